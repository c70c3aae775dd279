"""The contract of OpenFaaS's own Python template, written anew in its shape: Flask, served by waitress. Arguments: function, port."""

import importlib
import os
import sys

from flask import Flask, jsonify, request
from waitress import serve

METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE"]
app = Flask(__name__)
function = importlib.import_module(sys.argv[1])


class Event:
    """What the function sees of the request, all of it read at once."""

    def __init__(self):
        self.body = request.get_data()
        self.headers = request.headers
        self.method = request.method
        self.query = request.args
        self.path = request.path


class Context:
    """Where the function runs."""

    def __init__(self):
        self.hostname = os.getenv("HOSTNAME", "localhost")


def content_type(result):
    """Return the Content-Type that the function asks for, if any."""
    return dict(result.get("headers") or {}).get("Content-Type", "")


def format_body(result):
    """Convert the body: bytes as they are where they are declared so, dict and list as JSON, all else as text."""
    body = result.get("body", "")
    if content_type(result) == "application/octet-stream":
        return body
    return jsonify(body) if isinstance(body, (dict, list)) else str(body)


def format_response(result):
    """Convert what the function returned to Flask's triple."""
    if result is None:
        return "", 200
    return format_body(result), result.get("statusCode", 200), result.get("headers") or []


@app.route("/", defaults={"path": ""}, methods=METHODS)
@app.route("/<path:path>", methods=METHODS)
def call_handler(path):
    return format_response(function.handle(Event(), Context()))


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=int(sys.argv[2]))
