"""The adapter of the template python3-flask: an old `handle(req)` responds as in the official template, to the byte."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE, ROOT, Process, run_program, wait_for
from test_examples import HTML, JSON

pytestmark = pytest.mark.skipif(not find_spec("flask"), reason="flask is not installed")
FUNCTION = r"""
import os

from flask import Response, abort, jsonify, make_response, request

from .words import GREETING

RESULTS = {
    "text": lambda req: GREETING + req,
    "repr": lambda req: repr(req),
    "status": lambda req: ("accepted", 201),
    "headers": lambda req: ("accepted", 201, {"Content-Type": "binary/octet-stream"}),
    "dict": lambda req: {"b": "\u00fc", "a": 1},
    "list": lambda req: [1],
    "bytes": lambda req: b"x",
    "none": lambda req: None,
    "error": lambda req: 1 / 0,
    "abort": lambda req: abort(404, "no such order"),
    "jsonify": lambda req: jsonify(a=request.args["n"], b=request.headers.get("X-B"), c=request.method),
    "made": lambda req: make_response("made", 202, {"X-A": "1"}),
    "stream": lambda req: Response((f"data: {number}\n\n" for number in range(3)), mimetype="text/event-stream"),
    "broken": lambda req: (1 / number for number in range(3)),
    "generator": lambda req: (str(number) for number in range(3)),
    "folder": lambda req: f"{__name__} {os.path.relpath(__file__)}",
}


def handle(req):
    return RESULTS[request.path.rpartition("/")[2]](req)
"""
PAGE = "<!doctype html>\n<html lang=en>\n<title>{0}</title>\n<h1>{1}</h1>\n<p>{2}</p>\n"
FAILED = PAGE.format(
    "500 Internal Server Error",
    "Internal Server Error",
    "The server encountered an internal error and was unable to complete your request. "
    "Either the server is overloaded or there is an error in the application.",
)
REFUSED = PAGE.format(
    "405 Method Not Allowed", "Method Not Allowed", "The method is not allowed for the requested URL."
)
INCOMPLETE = PAGE.format(
    "400 Bad Request", "Bad Request", "The browser (or proxy) sent a request that this server could not understand."
)
ABORTED = PAGE.format("404 Not Found", "Not Found", "no such order")
MISSING = PAGE.format(
    "404 Not Found",
    "Not Found",
    "The requested URL was not found on the server. "
    "If you entered the URL manually please check your spelling and try again.",
)
EVENTS = "data: 0\n\ndata: 1\n\ndata: 2\n\n"
SSE, PLAIN = "text/event-stream; charset=utf-8", "text/plain; charset=utf-8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the image has as /home/app, with a function for python3-flask."""
    home = tmp_path_factory.mktemp("home")
    (home / "function").mkdir()
    (home / "function" / "handler.py").write_text(FUNCTION)
    (home / "function" / "words.py").write_text("GREETING = 'Hi '\n")
    (home / "function" / "static").mkdir()
    (home / "function" / "static" / "text").write_text("a file of the function")
    shutil.copy(ROOT / "template" / "python3-flask" / "flask_adapter.py", home / "function")
    return home


def adapter(folder: Path, **env: str) -> Any:
    """Run the function behind the adapter, as the template's image does."""
    return run_program([sys.executable, ROOT / "watchdog_app.py"], folder, **env)


@pytest.fixture(scope="module")
def program(folder: Path) -> Iterator[Process]:
    with adapter(folder) as started:
        wait_for(started.answers)
        yield started


def ask(program: Process, method: str, target: str, body: Any = None) -> tuple[http.client.HTTPResponse, str]:
    """Send one request; an iterable body goes out in chunks, as of-watchdog sends it."""
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=DEADLINE)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "kind", "text"),
    [
        pytest.param("POST", "/text", "ü".encode(), 200, HTML, "Hi ü", id="text"),
        pytest.param("POST", "/text", iter([b"\xc3", b"\xbc"]), 200, HTML, "Hi ü", id="chunks"),
        pytest.param("POST", "/text", b"\xff", 200, HTML, "Hi \ufffd", id="bad UTF-8"),
        pytest.param("GET", "/a/b/text", None, 200, HTML, "Hi ", id="a deeper path, no body"),
        pytest.param("HEAD", "/text", None, 200, HTML, "", id="HEAD"),
        pytest.param("POST", "/repr", b"a", 200, HTML, "'a'", id="the body is text"),
        pytest.param("GET", "/status", None, 201, HTML, "accepted", id="status"),
        pytest.param("GET", "/headers", None, 201, "binary/octet-stream", "accepted", id="headers"),
        pytest.param("GET", "/dict", None, 200, JSON, '{"a":1,"b":"\\u00fc"}\n', id="dict"),
        pytest.param("GET", "/list", None, 200, JSON, "[1]\n", id="list"),
        pytest.param("GET", "/bytes", None, 200, HTML, "x", id="bytes"),
        pytest.param("GET", "/none", None, 500, HTML, FAILED, id="None"),
        pytest.param("GET", "/error", None, 500, HTML, FAILED, id="exception"),
        pytest.param("GET", "/abort", None, 404, HTML, ABORTED, id="abort"),
        pytest.param("POST", "/jsonify?n=1", None, 200, JSON, '{"a":"1","b":null,"c":"POST"}\n', id="flask.request"),
        pytest.param("GET", "/jsonify", None, 400, HTML, INCOMPLETE, id="missing parameter"),
        pytest.param("GET", "/made", None, 202, HTML, "made", id="make_response"),
        pytest.param("GET", "/stream", None, 200, SSE, EVENTS, id="streamed Response"),
        pytest.param("GET", "/generator", None, 200, HTML, "012", id="generator"),
        pytest.param("GET", "/broken", None, 500, PLAIN, "Internal Server Error\n", id="stream without a first item"),
        pytest.param("PUT", "/text", b"a", 405, HTML, REFUSED, id="PUT"),
        pytest.param("GET", "/static/text", None, 404, HTML, MISSING, id="its folder static"),
        pytest.param("OPTIONS", "/text", None, 200, HTML, "", id="OPTIONS"),
        pytest.param("GET", "/folder", None, 200, HTML, "function.handler function/handler.py", id="where it lies"),
    ],
)
def test_old_function_responds_as_there(program, method, target, body, status, kind, text):
    response, content = ask(program, method, target, body)
    assert (response.status, response.headers["Content-Type"], content) == (status, kind, text)


@pytest.mark.parametrize(
    ("value", "text"), [("True", "b'a'"), ("1", "b'a'"), ("TRUE", "b'a'"), ("yes", "'a'"), ("", "'a'")]
)
def test_raw_body(value, text, folder):
    with adapter(folder, RAW_BODY=value) as program:
        wait_for(program.answers)
        assert ask(program, "POST", "/repr", b"a")[1] == text


def test_exception_is_one_record_with_the_call_id(folder):
    with adapter(folder, log_format="json") as program:
        wait_for(program.answers)
        ask(program, "GET", "/error")
        program.popen.terminate()
        records = [json.loads(line) for line in program.end()[1].splitlines()]
    (record,) = [record for record in records if "/error" in record["message"]]
    assert record["call_id"]
    assert "ZeroDivisionError" in record["traceback"]
