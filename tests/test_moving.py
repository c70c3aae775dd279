"""The page for those who move over says what is so: its blocks run, each row of its tables has a test, and the official examples answer."""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import shutil
import sys
import threading
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
from conftest import (
    FUNCTIONS,
    ROOT,
    block_examples,
    call,
    check_block,
    load_block,
    python_blocks,
    read_answer,
    serving,
    table_rows,
    write,
)
from test_examples import FORM, HTML, JSON, Example, check, environ_of, load, raw_request

from watchdog_app import HTTPError, load_function

PAGE = "docs/moving-over.md"
TEXT = (ROOT / PAGE).read_text()
BLOCKS = python_blocks(PAGE)
BINARY = "application/octet-stream"


# ---- the blocks ----


@pytest.mark.parametrize(
    ("block", "line"), [pytest.param(*example, id=example[1]) for example in block_examples(BLOCKS)]
)
def test_block_answers_as_it_says(block, line, monkeypatch):
    check_block(block, line, monkeypatch)


def test_every_block_says_what_it_answers_or_is_imported_by_one_that_does():
    for block in BLOCKS:
        if block.name == "main.py":
            assert any("from main import" in other.source and other.main == block.source for other in BLOCKS)
        else:
            assert block_examples([block])


def test_page_links_to_what_is_there():
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    links = re.findall(r"\]\(((?!http)[^)]+)\)", TEXT)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        assert (ROOT / "docs" / path).exists() if path else anchor in anchors, link


# ---- the rows of the tables ----


class Row(NamedTuple):
    """One request to a function that does what a row says, and what the row makes of it; no header means that it is not compared."""

    there: str  # how the row's left cell begins
    function: Any
    body: Any  # of the answer: text, bytes, or a regular expression
    status: int = 200
    headers: dict[str, str | None] = {}  # noqa: RUF012 (nobody changes it)
    method: str = "GET"
    target: str = "/"
    sent: bytes = b""
    environ: dict[str, str] = {}  # noqa: RUF012


def returns(value):
    """Make a function that returns `value`."""
    return lambda event, context: value


def body(value):
    """Make a function that returns an envelope with `value` as its body."""
    return returns({"statusCode": 200, "body": value})


def raises(error):
    """Make a function that raises `error`."""

    def handle(event, context):
        raise error

    return handle


def text_or_none(event, context):
    """Answer like `get_json(silent=True)`."""
    try:
        return [event.json()]
    except ValueError:
        return [None]


def query_of(event, context):
    query = event.query
    return [
        query["n"],
        "n" in query,
        query.get("n", 0, int),
        query.get("m", 7, int),
        query.getlist("n"),
        query.to_dict(),
        list(query.items()),
    ]


ANSWER_OF_QUERY = '["1",true,1,7,["1","2"],{"n":"1"},[["n","1"]]]'
PAIRS = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
LATIN = {"CONTENT_TYPE": "text/plain; charset=latin-1"}
COOKIE = {"HTTP_COOKIE": "name=Ada"}
ERROR = re.compile(r"Internal Server Error\ncall id: [0-9a-f]{32}\n")

HTTP = [
    Row(
        "`event.body` is `bytes`",
        lambda event, context: str(isinstance(event.body, bytes)) + str(event.body),
        "Truehello",
        sent=b"hello",
    ),
    Row("`event.query` is Werkzeug's", query_of, ANSWER_OF_QUERY, target="/?n=1&n=2"),
    Row("`event.query` is Werkzeug's", lambda event, context: [hasattr(event.query, "lists")], "[false]"),
    Row(
        "`event.headers` finds",
        lambda event, context: [event.headers[name] for name in ("x-a", "X-A")],
        '["1","1"]',
        environ={"HTTP_X_A": "1"},
    ),
    Row("`repr(event.query)`", lambda event, context: repr(event.query), "{'name': 'Ada'}", target="/?name=Ada"),
    Row("`for name, value", lambda event, context: ["X-A" in list(event.headers)], "[true]", environ={"HTTP_X_A": "1"}),
    Row(
        "`for name, value",
        lambda event, context: [("X-A", "1") in event.headers.items()],
        "[true]",
        environ={"HTTP_X_A": "1"},
    ),
    Row("`for name, value", lambda event, context: re.sub("{.*}", "{…}", str(event.headers)), "Headers({…})"),
    Row(
        "`X-Forwarded-For`",
        lambda event, context: event.headers["X-Forwarded-For"],
        "192.0.2.1",
        environ={"HTTP_X_FORWARDED_FOR": "192.0.2.1"},
    ),
    Row('`event.query["name"]`', lambda event, context: event.query["name"], "missing query parameter 'name'\n", 400),
    Row('`event.headers["Name"]`', lambda event, context: event.headers["Name"], "missing header 'Name'\n", 400),
    Row('`"body"` is a dict', body({"b": "ü", "a": 1}), '{"b":"ü","a":1}', headers={"Content-Type": JSON}),
    Row("a `datetime` in that dict", body({"a": datetime(2026, 1, 2, 3, 4, 5)}), '{"a":"2026-01-02T03:04:05"}'),
    Row("NaN in that dict", body({"a": float("nan")}), ERROR, 500),
    Row('`"body"` is a list', body([("a", 1)]), '[["a",1]]', headers={"Content-Type": JSON}),
    Row('`"body"` is a list', body(7), "7", headers={"Content-Type": JSON}),
    Row('`"body"` is a list', body(None), ""),
    Row('`"body"` is a list', body(b"x\xff"), b"x\xff", headers={"Content-Type": BINARY}),
    Row('`"body"` is a `str`', body("text"), "text", headers={"Content-Type": HTML}),
    Row('`"body"` is a `str`', body(ValueError("text")), "text", headers={"Content-Type": HTML}),
    Row("a dict without `statusCode`", returns({"message": "hi"}), '{"message":"hi"}', headers={"Content-Type": JSON}),
    Row(
        "other keys beside",
        returns({"statusCode": 404, "error": "no order"}),
        '{"error":"no order"}',
        404,
        {"Content-Type": JSON},
    ),
    Row("`return None`", returns(None), "", 204, {"Content-Type": None}),
    Row('`return "text"`', returns("text"), "text", headers={"Content-Type": HTML}),
    Row('`return "text"`', returns(("text", 201)), "text", 201),
    Row('`return "text"`', returns(("text", 201, {"Name": "value"})), "text", 201, {"Name": "value"}),
    Row('`return b"…"`', returns(b"x"), "x", headers={"Content-Type": BINARY}),
    Row("GET, HEAD, POST", lambda event, context: event.method, "OPTIONS", method="OPTIONS"),
    Row("`/static/…`", lambda event, context: event.path, "/static/x", target="/static/x"),
    Row("`/_/health`", lambda event, context: event.path, "OK\n", target="/_/health"),
    Row("an exception", raises(ZeroDivisionError()), ERROR, 500),
]


def flask_abort(req):
    from flask import abort

    abort(404, "no such order")


def flask_response(req):
    from flask import Response

    return Response((str(number) for number in range(3)), 202, mimetype="text/plain")


def flask_dump(req):
    from flask import jsonify, request

    return jsonify(method=request.method, n=request.args["n"], to=request.headers["X-Forwarded-For"])


FLASK = [
    Row("`req` is the body as text", lambda req: "Hi " + req, "Hi ü", sent="ü".encode(), environ=LATIN),
    Row('`return "text"`', lambda req: ("text", 201, {"Name": "value"}), "text", 201, {"Name": "value"}),
    Row('`return "text"`', lambda req: {"b": "ü", "a": 1}, '{"a":1,"b":"\\u00fc"}\n', headers={"Content-Type": JSON}),
    Row('`return "text"`', lambda req: [1], "[1]\n"),
    Row('`return "text"`', lambda req: b"x", "x", headers={"Content-Type": HTML}),
    Row("`return None`", lambda req: None, re.compile("<!doctype html>.*", re.DOTALL), 500, {"Content-Type": HTML}),
    Row("`return None`", lambda req: 1 / 0, re.compile("<!doctype html>.*", re.DOTALL), 500, {"Content-Type": HTML}),
    Row("a `flask.Response`", flask_response, "012", 202, {"Content-Type": "text/plain; charset=utf-8"}),
    Row("a `flask.Response`", lambda req: (str(number) for number in range(3)), "012", headers={"Content-Type": HTML}),
    Row("`flask.request`", flask_abort, re.compile("<!doctype html>.*<p>no such order</p>\n", re.DOTALL), 404),
    Row(
        "`X-Forwarded-For`",
        flask_dump,
        '{"method":"POST","n":"1","to":"192.0.2.1"}\n',
        method="POST",
        target="/?n=1",
        environ={"HTTP_X_FORWARDED_FOR": "192.0.2.1"},
    ),
    Row("GET, HEAD and POST", lambda req: "x", "", method="OPTIONS", headers={"Content-Type": HTML}),
    Row("GET, HEAD and POST", lambda req: "x", re.compile("<!doctype html>.*", re.DOTALL), 405, method="PUT"),
    Row("`/_/health`", lambda req: "x", "OK\n", target="/_/health"),
]
FRAMEWORK = [
    Row(
        "`request.method`",
        lambda event, context: [event.method, event.path],
        '["PUT","/a/b"]',
        method="PUT",
        target="/a/b",
    ),
    Row("`request.args.get", query_of, ANSWER_OF_QUERY, target="/?n=1&n=2"),
    Row(
        "`request.headers.get",
        lambda event, context: [event.headers.get("Cookie"), event.cookies.get("name")],
        '["name=Ada","Ada"]',
        environ=COOKIE,
    ),
    Row("`request.get_data()`", lambda event, context: [event.text, event.body == b"x"], '["x",true]', sent=b"x"),
    Row(
        "`request.get_json()`",
        lambda event, context: event.json(),
        "[1]",
        sent=b"[1]",
        environ={"CONTENT_TYPE": "text/plain"},
    ),
    Row(
        "`request.get_json()`",
        lambda event, context: event.json(),
        re.compile("the body is not valid JSON.*\n"),
        400,
        sent=b"x",
    ),
    Row("`request.get_json(silent=True)`", text_or_none, "[null]", sent=b"x"),
    Row(
        "`request.form",
        lambda event, context: event.form()["name"],
        "Ada",
        sent=b"name=Ada",
        environ={"CONTENT_TYPE": FORM},
    ),
    Row(
        '`request.files["name"]`',
        lambda event, context: [event.files["name"].filename, event.files["name"].read().decode()],
        '["a.txt","Ada"]',
        sent=b'--B\r\nContent-Disposition: form-data; name="name"; filename="a.txt"\r\n\r\nAda\r\n--B--\r\n',
        environ={"CONTENT_TYPE": "multipart/form-data; boundary=B"},
    ),
    Row(
        "`request.stream`",
        lambda event, context: event.stream.read(2) + event.stream.readline(),
        "ab\n",
        sent=b"ab\ncd",
    ),
    Row("returns a `str`", returns("text"), "text", headers={"Content-Type": HTML}),
    Row("returns a `str`", returns(["x"]), '["x"]', headers={"Content-Type": JSON}),
    Row("returns a `str`", returns({"x": 1}), '{"x":1}', headers={"Content-Type": JSON}),
    Row("returns a `str`", returns(("text", {"Name": "value"})), "text", headers={"Name": "value"}),
    Row("returns a `str`", lambda event, context: (item for item in ("a", "b")), "ab", headers={"Content-Type": HTML}),
    Row("`return None`", returns(None), "", 204),
    Row("`flask.abort", raises(HTTPError(404, "text")), "text", 404, {"Content-Type": HTML}),
    Row("`/robots.txt`", lambda event, context: event.path, "/robots.txt", target="/robots.txt"),
    Row("`/robots.txt`", lambda event, context: event.path, "/favicon.ico", target="/favicon.ico"),
]
LAMBDA = [
    Row('`event["body"]`', lambda event, context: [event.text, len(event.body)], '["ü",2]', sent="ü".encode()),
    Row('`event["body"]`', lambda event, context: [event.text, len(event.body)], '["",0]'),
    Row('`json.loads(event["body"])`', lambda event, context: event.json(), '{"a":1}', sent=b'{"a":1}'),
    Row(
        '`json.loads(event["body"])`',
        lambda event, context: event.json(),
        re.compile("the body is not valid JSON.*\n"),
        400,
    ),
    Row('`event["queryStringParameters"]', lambda event, context: event.query["name"], "Ada", target="/?name=Ada"),
    Row(
        '`event["queryStringParameters"]',
        lambda event, context: event.query["name"],
        "missing query parameter 'name'\n",
        400,
    ),
    Row(
        "several values",
        lambda event, context: [event.query.getlist("n"), event.query["n"]],
        '[["1","2"],"1"]',
        target="/?n=1&n=2",
    ),
    Row(
        '`event["headers"]',
        lambda event, context: event.headers["Content-Type"] + event.headers["content-type"],
        "xx",
        environ={"CONTENT_TYPE": "x"},
    ),
    Row('`event["requestContext"]["http"]', lambda event, context: event.method, "DELETE", method="DELETE"),
    Row(
        '`event["rawPath"]`',
        lambda event, context: [event.raw_path, event.raw_query],
        '["/a%2Fb","c=%41"]',
        target="/a%2Fb?c=%41",
    ),
    Row('`event["rawPath"]`', lambda event, context: event.path, "/a/b", target="/a/b"),
    Row('`event["cookies"]`', lambda event, context: event.cookies["name"], "Ada", environ=COOKIE),
    Row(
        '`{"statusCode": 200',
        returns({"statusCode": 202, "headers": {"Name": "value"}, "body": "text"}),
        "text",
        202,
        {"Name": "value"},
    ),
    Row(
        '`{"statusCode": 200',
        returns({"statusCode": 200, "headers": {}, "body": "text"}),
        "text",
        headers={"Content-Type": HTML},
    ),
    Row('`"body": json.dumps', body(json.dumps({"a": 1})), '{"a": 1}'),
    Row('`"body": json.dumps', body({"a": 1}), '{"a":1}', headers={"Content-Type": JSON}),
    Row("a dict or a list", returns({"a": 1}), '{"a":1}', headers={"Content-Type": JSON}),
    Row("a dict or a list", returns([1]), "[1]", headers={"Content-Type": JSON}),
    Row("a `str`, a number", returns("text"), "text", headers={"Content-Type": HTML}),
    Row("a `str`, a number", returns(7), "7", headers={"Content-Type": JSON}),
    Row("a `str`, a number", returns(None), "", 204),
    Row('`"isBase64Encoded": True`', returns({"statusCode": 200, "body": "eA==", "isBase64Encoded": True}), "eA=="),
    Row('`"isBase64Encoded": True`', body(b"x"), "x", headers={"Content-Type": BINARY}),
    Row("`context.aws_request_id`", lambda event, context: context.call_id, "7", environ={"HTTP_X_CALL_ID": "7"}),
    Row("`context.get_remaining", lambda event, context: [context.remaining()], "[null]"),
    Row("`context.function_name`", lambda event, context: [context.function_name], "[null]"),
]
SECTIONS = {
    "From python3-http": HTTP,
    "From python3-flask": FLASK,
    "From functions-framework": FRAMEWORK,
    "From AWS Lambda": LAMBDA,
}
# Rows that have a test of their own below, or stand for what this file does not test: other settings, what is not there, what the image does
APART = {
    "From python3-http": (
        "several `Set-Cookie`",
        "the function lies",
        "`/home/app` is in",
        "`from index import",
        "`from flask import Response`",
        "`flask.request`",
        "4 threads",
        "`ADDITIONAL_PACKAGE`",
        "tests run by tox",
    ),
    "From python3-flask": ("`RAW_BODY=True`", "a stream that fails", "an exception's traceback", "4 threads"),
    "From functions-framework": (
        "`main.py`, with",
        "`flask.jsonify`",
        "`@functions_framework.cloud_event`",
        "`@functions_framework.errorhandler`",
        "`@functions_framework.aio.http`",
        "`--host`",
        "`logging`",
    ),
    "From AWS Lambda": (
        '`event["pathParameters"]`',
        '`"cookies": […]`',
        "`context.function_version`",
        "one call at a time",
        "Parameter Store",
        "`logging`",
    ),
}


def in_flask(old, folder, monkeypatch):
    """Put the adapter of the template python3-flask around a function that receives only the body; return its `handle`."""
    pytest.importorskip("flask")
    shutil.copy(ROOT / "template" / "python3-flask" / "flask_adapter.py", folder)
    function = load_function(write(folder, handler=""))
    monkeypatch.setattr(sys.modules["function.handler"], "handle", old, raising=False)
    return function


@pytest.mark.parametrize(
    ("section", "row"),
    [pytest.param(section, row, id=f"{section}: {row.there}") for section, rows in SECTIONS.items() for row in rows],
)
def test_row_is_so(section, row, log, folder, monkeypatch):
    function = in_flask(row.function, folder, monkeypatch) if section == "From python3-flask" else row.function
    answer = call(function, row.method, row.target, row.sent, **row.environ)
    assert answer.status == row.status
    for name, value in row.headers.items():
        assert answer.header(name) == value
    if isinstance(row.body, re.Pattern):
        assert row.body.fullmatch(answer.text)
    else:
        assert answer.body == (row.body if isinstance(row.body, bytes) else row.body.encode())


@pytest.mark.parametrize("section", SECTIONS)
def test_each_row_has_a_test(section):
    table = re.search(rf"^## {section}$.*?<!-- table -->\n((?:\|[^\n]*\n)+)", TEXT, re.MULTILINE | re.DOTALL)[1]
    begun = {row.there for row in SECTIONS[section]} | set(APART[section])
    there = [row[0] for row in table_rows(table)]
    assert [cell for cell in there if sum(cell.startswith(start) for start in begun) != 1] == []
    assert [start for start in begun if sum(cell.startswith(start) for cell in there) != 1] == []


@pytest.mark.parametrize("headers", [PAIRS, {"Set-Cookie": ["a=1", "b=2"]}], ids=["pairs", "dict with a list"])
def test_several_cookies(headers):
    answer = call(returns({"statusCode": 200, "headers": headers, "body": "x"}))
    assert [pair for pair in answer.headers if pair[0] == "Set-Cookie"] == PAIRS


def test_unknown_method_reaches_the_function():
    with serving(lambda event, context: event.method) as server:
        assert server.request("PURGE").text == "PURGE"


def test_calls_run_at_once():
    both = threading.Barrier(2, timeout=10)
    with serving(lambda event, context: str(both.wait() >= 0)) as server:
        answers = []
        other = threading.Thread(target=lambda: answers.append(server.get().text))
        other.start()
        answers.append(server.get().text)
        other.join()
    assert answers == ["True", "True"]


def test_time_and_name_of_a_call():
    from watchdog_app import Settings

    seen = []
    env = {"OPENFAAS_NAME": "greet"}
    call(
        lambda event, context: seen.append((context.remaining(), context.function_name)),
        settings=Settings(exec_timeout="30s"),
        env=env,
    )
    assert 0 < seen[0][0] <= 30
    assert seen[0][1] == "greet"


def test_function_of_any_name_in_any_module(tmp_path, monkeypatch):
    import watchdog_app

    (tmp_path / "moved_main.py").write_text("def hello(event, context):\n    return 'Hello'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "moved_main", raising=False)
    assert call(watchdog_app.load_function("moved_main:hello")).text == "Hello"
    del sys.modules["moved_main"]


# ---- functions-framework itself, CloudEvents, and the adapter for Lambda ----


OF_THE_PACKAGE = """
import flask, functions_framework

def greet(request):
    if request.path == "/abort":
        flask.abort(404, "no such order")
    return f"Hi {request.args['name']}"

@functions_framework.cloud_event
def receive(event):
    print(event["id"], event.data)
"""


@pytest.fixture
def package(folder, monkeypatch):
    """Make the `handle` of the page's text: the application that functions-framework makes of a function in main.py."""
    create_app = pytest.importorskip("functions_framework").create_app
    write(folder, main=OF_THE_PACKAGE)

    def handle_of(name):
        app = create_app(name, str(folder / "main.py"))
        return lambda event, context: app

    return handle_of


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        pytest.param("/a/b?name=Ada", 200, "Hi Ada", id="function"),
        pytest.param("/abort", 404, ".*<p>no such order</p>\n", id="abort"),
        pytest.param("/robots.txt", 404, ".*<p>Not Found</p>\n", id="robots.txt"),
        pytest.param("/", 400, "<!doctype html>.*", id="missing parameter"),
    ],
)
def test_application_of_functions_framework(target, status, text, package):
    answer = call(package("greet"), target=target)
    assert answer.status == status
    assert re.fullmatch(text, answer.text, re.DOTALL)


def test_cloud_event_of_functions_framework(package, capsys):
    answer = call(package("receive"), "POST", "/", b'{"a":1}', **ATTRIBUTES, CONTENT_TYPE="application/json")
    assert (answer.status, answer.text, capsys.readouterr().out) == (200, "OK", "1 {'a': 1}\n")


def named(name):
    """Return the block behind the comment `name`."""
    (block,) = [block for block in BLOCKS if block.name == name]
    return block


STRUCTURED = {"CONTENT_TYPE": "application/cloudevents+json; charset=utf-8"}
ATTRIBUTES = {"HTTP_CE_ID": "1", "HTTP_CE_TYPE": "t", "HTTP_CE_SOURCE": "s", "HTTP_CE_SPECVERSION": "1.0"}


@pytest.mark.parametrize(
    ("sent", "environ", "printed"),
    [
        pytest.param(
            b'{"specversion":"1.0","type":"t","source":"s","id":"1","data":{"a":1}}',
            STRUCTURED,
            "1 {'a': 1}\n",
            id="structured",
        ),
        pytest.param(b'{"a":1}', {**ATTRIBUTES, "CONTENT_TYPE": "application/json"}, "1 {'a': 1}\n", id="binary, JSON"),
        pytest.param(b"text", {**ATTRIBUTES, "CONTENT_TYPE": "text/plain"}, "1 text\n", id="binary, text"),
    ],
)
def test_cloud_event(sent, environ, printed, monkeypatch, capsys):
    answer = call(load_block(named("CloudEvents"), monkeypatch), "POST", "/", sent, **environ)
    assert (answer.text, capsys.readouterr().out) == ("OK", printed)


@pytest.mark.skipif(not find_spec("cloudevents"), reason="cloudevents is not installed")
def test_cloud_event_of_the_package():
    from cloudevents.http import from_http

    def handle(event, context):
        received = from_http(event.headers, event.body)
        return [received["id"], received.data]

    assert call(handle, "POST", "/", b'{"a":1}', **ATTRIBUTES, CONTENT_TYPE="application/json").text == '["1",{"a":1}]'


def adapted(handler, monkeypatch):
    """Put the page's adapter around a function for Lambda."""
    handle = load_block(named("adapter for Lambda"), monkeypatch)
    handle.__globals__["handler"] = handler
    return handle


def test_lambda_event(monkeypatch):
    seen = []
    handle = adapted(lambda event, context: seen.append(event), monkeypatch)
    call(
        handle,
        "POST",
        "/a%2Fb?n=1&n=2&m=",
        "ü".encode(),
        CONTENT_TYPE="text/plain",
        HTTP_COOKIE="a=1; b=2",
        PATH_INFO="/a/b",
    )
    (event,) = seen
    assert {"content-type": "text/plain", "cookie": "a=1; b=2"}.items() <= event.pop("headers").items()
    assert event == {
        "version": "2.0",
        "rawPath": "/a%2Fb",
        "rawQueryString": "n=1&n=2&m=",
        "cookies": ["a=1", "b=2"],
        "queryStringParameters": {"n": "1,2", "m": ""},
        "requestContext": {"http": {"method": "POST", "path": "/a/b"}},
        "body": "ü",
        "isBase64Encoded": False,
    }


def test_lambda_event_with_a_binary_body(monkeypatch):
    seen = []
    call(adapted(lambda event, context: seen.append(event), monkeypatch), "POST", "/", b"\xff\x00")
    assert seen[0]["isBase64Encoded"] is True
    assert base64.b64decode(seen[0]["body"]) == b"\xff\x00"


def test_lambda_context(monkeypatch):
    from watchdog_app import Settings

    seen = []
    handle = adapted(lambda event, context: seen.append(context), monkeypatch)
    call(handle, HTTP_X_CALL_ID="7", env={"OPENFAAS_NAME": "greet"})
    call(handle, settings=Settings(exec_timeout="30s"))
    call(handle, settings=Settings(exec_timeout="1ms"), HTTP_X_TIMEOUT="1ns")
    assert (seen[0].aws_request_id, seen[0].function_name, seen[0].get_remaining_time_in_millis()) == (
        "7",
        "greet",
        900_000,
    )
    assert 0 < seen[1].get_remaining_time_in_millis() <= 30_000
    assert seen[2].get_remaining_time_in_millis() == 0


@pytest.mark.parametrize(
    ("result", "status", "headers", "content"),
    [
        pytest.param(
            {"statusCode": 202, "headers": {"Name": "value"}, "body": "x"},
            202,
            {"Name": "value"},
            b"x",
            id="text with a status",
        ),
        pytest.param(
            {"statusCode": 200, "body": "/wA=", "isBase64Encoded": True},
            200,
            {"Content-Type": BINARY},
            b"\xff\x00",
            id="base64",
        ),
        pytest.param({"statusCode": 200, "cookies": ["a=1"]}, 200, {"Set-Cookie": "a=1"}, b"", id="cookies, no body"),
        pytest.param({"statusCode": 204}, 204, {"Set-Cookie": None}, b"", id="status alone"),
        pytest.param({"message": "hi"}, 200, {"Content-Type": JSON}, b'{"message": "hi"}', id="no status"),
        pytest.param("text", 200, {"Content-Type": JSON}, b'"text"', id="text"),
        pytest.param(None, 200, {"Content-Type": JSON}, b"null", id="None"),
        pytest.param([1], 200, {"Content-Type": JSON}, b"[1]", id="list"),
    ],
)
def test_lambda_result(result, status, headers, content, monkeypatch):
    answer = call(adapted(lambda event, context: result, monkeypatch))
    assert (answer.status, answer.body) == (status, content)
    for name, value in headers.items():
        assert answer.header(name) == value


# ---- the official examples, unmodified: the template's README, and https://docs.openfaas.com/languages/python/ ----

DOCUMENTED = {
    "path": Example("request_path_docs.py", "GET", "/hello", {}, b"", 200, {"Content-Type": HTML}, b"Hello, World!"),
    "another path": Example(
        "request_path_docs.py", "GET", "/other", {}, b"", 404, {"Content-Type": HTML}, b"Not Found"
    ),
    "header": Example(
        "request_headers_get_docs.py",
        "POST",
        "/",
        {"Content-Type": FORM},
        b"x",
        200,
        {},
        b'{"content-type-received":"%b"}' % FORM.encode(),
    ),
    "no such header": Example(
        "request_headers_get_docs.py",
        "GET",
        "/",
        {},
        b"",
        200,
        {"Content-Type": JSON},
        b'{"content-type-received":null}',
    ),
    "Content-Type": Example(
        "json_content_type_docs.py",
        "GET",
        "/",
        {},
        b"",
        200,
        {"Content-Type": JSON},
        b'{"message":"Hello from OpenFaaS!"}',
    ),
    "static file, another path": Example(
        "static_files_docs.py", "GET", "/", {}, b"", 200, {"Content-Type": HTML}, b"Hello from OpenFaaS!"
    ),
}


@pytest.mark.parametrize("example", [pytest.param(example, id=name) for name, example in DOCUMENTED.items()])
def test_documented_example(example):
    check(
        call(load(example.function), example.method, example.target, example.body, **environ_of(example.headers)),
        example,
    )
    with serving(load(example.function)) as server:
        answer, rest = read_answer(server.talk(raw_request(example)), example.method)
    assert rest == b""
    check(answer, example)


def load_with(file, folder=FUNCTIONS, **names):
    """Run a file of tests/functions with `names` already in its module; return its `handle`."""
    module = ModuleType("handler")
    module.__file__ = str(folder / "handler.py")
    vars(module).update(names)
    exec(compile((FUNCTIONS / file).read_text(), file, "exec"), vars(module))
    return module.handle


def secrets_in(folder):
    """Make an `open` that has the secrets of OpenFaaS in `folder`."""

    def open_secret(path, mode="r"):
        assert Path(path).parent == Path("/var/openfaas/secrets")
        return open(folder / Path(path).name, mode)

    return open_secret


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        pytest.param({}, 401, "Unauthorized", id="no token"),
        pytest.param({"HTTP_AUTHORIZATION": "Bearer other"}, 401, "Unauthorized", id="another token"),
        pytest.param({"HTTP_AUTHORIZATION": "Bearer token"}, 200, "Access granted", id="the token"),
    ],
)
def test_documented_authentication(headers, status, text, tmp_path):
    (tmp_path / "python-auth-token").write_text("token\n")
    answer = call(load_with("authenticate_docs.py", open=secrets_in(tmp_path)), **headers)
    assert (answer.status, answer.text) == (status, text)


def test_documented_static_file(tmp_path):
    (tmp_path / "data.json").write_text('{"a": 1}')
    answer = call(
        load_with("static_files_docs.py", tmp_path, os=os, json=json), target="/static"
    )  # the example leaves out its imports
    assert (answer.status, answer.header("Content-Type"), answer.text) == (200, JSON, '{"a": 1}')


def test_documented_database_without_its_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psycopg2", ModuleType("psycopg2"))  # never called: there is no password
    answer = call(load_with("postgresql_docs.py", open=secrets_in(tmp_path)))
    assert (answer.status, answer.header("Content-Type")) == (500, HTML)
    assert answer.text.startswith("[Errno 2] No such file or directory")
    assert capsys.readouterr().out == f"DB error {answer.text}\n"


def test_documented_database_rows(tmp_path, monkeypatch):
    cursor = SimpleNamespace(execute=lambda statement: None, fetchall=lambda: [("Michael Stonebraker",)])
    database = ModuleType("psycopg2")
    database.connect = lambda **arguments: SimpleNamespace(cursor=lambda: cursor)
    monkeypatch.setitem(sys.modules, "psycopg2", database)
    (tmp_path / "db-password").write_text("passwd")
    answer = call(load_with("postgresql_docs.py", open=secrets_in(tmp_path)))
    assert (answer.status, answer.header("Content-Type"), answer.text) == (200, JSON, '[["Michael Stonebraker"]]')


def adapted_text(old):
    """Adapt a function for python3-flask as the page says."""
    return lambda event, context: old(event.text)


@pytest.mark.parametrize(
    ("file", "status", "kind", "text"),
    [
        pytest.param("flask_string_docs.py", 200, HTML, "Hiyou", id="text"),
        pytest.param("flask_status_docs.py", 201, HTML, "request accepted", id="status"),
        pytest.param("flask_content_type_docs.py", 201, "binary/octet-stream", "request accepted", id="Content-Type"),
    ],
)
def test_documented_flask_example(file, status, kind, text):
    answer = call(adapted_text(load(file)), "POST", "/", b"you")
    assert (answer.status, answer.header("Content-Type"), answer.text) == (status, kind, text)


def test_documented_flask_example_with_a_raw_body():
    old = load("flask_raw_body_docs.py")
    assert call(lambda event, context: old(bytes(event.body)), "POST", "/", b"hello").text == "b'hello'"


def test_documented_server_sent_events(monkeypatch):
    if not find_spec("flask"):
        monkeypatch.setitem(sys.modules, "flask", importlib.import_module("flask_standin"))
    old = load("server_sent_events_docs.py")
    slept = []
    old.__globals__["time"] = SimpleNamespace(sleep=slept.append)
    with serving(adapted_text(old)) as server:
        answer = server.get(Accept="text/event-stream")
    assert slept == [1] * 5
    assert (answer.status, answer.header("Content-Type")) == (200, "text/event-stream; charset=utf-8")
    assert answer.text == "".join(f"data: Message {number} of 5\n\n" for number in range(1, 6)) + "data: [DONE]\n\n"
