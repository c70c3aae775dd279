"""What the tests use of Flask where it is not installed: its Request and its Response, as far as the documentation's examples go."""

from __future__ import annotations

import json
from http import HTTPStatus
from urllib.parse import parse_qsl


class Request:
    """A request, made of a WSGI environ."""

    def __init__(self, environ):
        self.environ, self.method, self.path = environ, environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.args = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))

    def get_data(self):
        return self.environ["wsgi.input"].read(int(self.environ.get("CONTENT_LENGTH") or 0))

    def get_json(self, silent=False):
        assert silent, "the stand-in raises nothing"
        return json.loads(self.get_data()) if self.environ.get("CONTENT_TYPE") == "application/json" else None


class Response:
    """A response, which is a WSGI application."""

    def __init__(self, response, status=200, mimetype="text/html"):
        self.response, self.status = response, HTTPStatus(status)
        self.headers = [("Content-Type", f"{mimetype}; charset=utf-8")]

    def __call__(self, environ, start_response):
        start_response(f"{self.status.value} {self.status.phrase}", self.headers)
        return (item.encode() for item in self.response)
