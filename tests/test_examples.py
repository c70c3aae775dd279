"""The eight examples of the OpenFaaS templates' documentation, unmodified, in the older and the newer spelling of an envelope."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import pytest
from conftest import FUNCTIONS, Answer, call, read_answer, serving

HTML, JSON = "text/html; charset=utf-8", "application/json"
FORM = "application/x-www-form-urlencoded"


class Example(NamedTuple):
    """One request to one function, and its answer; `function` is a file's name under tests/functions without `_old.py` or `_new.py`."""

    function: str
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    status: int
    expected_headers: dict[str, str]
    expected_body: bytes


CASES = {
    "JSON body": Example("json_body", "GET", "/", {}, b"", 200, {"Content-Type": JSON}, b'{"key":"value"}'),
    "JSON body to a POST": Example(
        "json_body", "POST", "/", {}, b"ignored", 200, {"Content-Type": JSON}, b'{"key":"value"}'
    ),
    "string body": Example(
        "string_body", "POST", "/", {}, b"x", 201, {"Content-Type": HTML}, b"Object successfully created"
    ),
    "JSON error": Example("json_error", "POST", "/", {}, b"x", 400, {"Content-Type": JSON}, b'{"error":"Bad request"}'),
    "response headers": Example(
        "response_headers", "GET", "/", {}, b"", 200, {"Location": "https://www.example.com/"}, b'{"key":"value"}'
    ),
    "request body": Example(
        "request_body", "POST", "/", {"Content-Type": FORM}, b"hello", 200, {"Content-Type": HTML}, b"You said: hello"
    ),
    "request body in UTF-8": Example(
        "request_body",
        "POST",
        "/",
        {"Content-Type": "text/plain"},
        "grüß dich".encode(),
        200,
        {"Content-Type": HTML},
        "You said: grüß dich".encode(),
    ),
    "request body in latin-1": Example(
        "request_body",
        "POST",
        "/",
        {"Content-Type": "text/plain; charset=latin-1"},
        b"gr\xfc\xdf dich",
        200,
        {},
        "You said: grüß dich".encode(),
    ),
    "request body of a GET": Example("request_body", "GET", "/", {}, b"", 200, {"Content-Type": HTML}, b"You said: "),
    "method GET": Example("request_method", "GET", "/", {}, b"", 200, {"Content-Type": HTML}, b"GET request"),
    "method POST": Example("request_method", "POST", "/", {}, b"x", 405, {"Content-Type": HTML}, b"Method not allowed"),
    "method PUT": Example(
        "request_method", "PUT", "/a/b", {}, b"x", 405, {"Content-Type": HTML}, b"Method not allowed"
    ),
    "method DELETE": Example(
        "request_method", "DELETE", "/", {}, b"", 405, {"Content-Type": HTML}, b"Method not allowed"
    ),
    "method OPTIONS": Example(
        "request_method", "OPTIONS", "/", {}, b"", 405, {"Content-Type": HTML}, b"Method not allowed"
    ),
    "method HEAD": Example("request_method", "HEAD", "/", {}, b"", 405, {"Content-Type": HTML}, b""),
    "query": Example("request_query", "GET", "/?name=World", {}, b"", 200, {"Content-Type": JSON}, b'{"name":"World"}'),
    "query of a POST": Example(
        "request_query", "POST", "/p?a=b&name=J%C3%BCrgen+B.", {}, b"x", 200, {}, '{"name":"Jürgen B."}'.encode()
    ),
    "query without the name": Example(
        "request_query", "GET", "/?other=1", {}, b"", 400, {}, b"missing query parameter 'name'\n"
    ),
    "request headers": Example(
        "request_headers",
        "POST",
        "/",
        {"content-type": "text/plain"},
        b"x",
        200,
        {"Content-Type": JSON},
        b'{"content-type-received":"text/plain"}',
    ),
    "no such request header": Example(
        "request_headers", "POST", "/", {}, b"x", 400, {}, b"missing header 'Content-Type'\n"
    ),
}
OWN_TYPE = {"Location": "https://www.example.com/", "Content-Type": "application/vnd.example+json"}


def spelt(example: Example, spelling: str) -> Example:
    """Return the example with its function's file; the older function with headers gives a Content-Type of its own too."""
    if (example.function, spelling) == ("response_headers", "old"):
        example = example._replace(expected_headers=OWN_TYPE)
    return example._replace(function=f"{example.function}_{spelling}.py")


# to be imported by other tests: (file in tests/functions, request method, target, headers, body, expected status, expected headers, expected body)
EXAMPLES = [
    pytest.param(spelt(example, spelling), id=f"{name}, {spelling}")
    for name, example in CASES.items()
    for spelling in ("old", "new")
]


def load(file: str):
    """Return the `handle` of a file in tests/functions; nothing of it stays in sys.modules."""
    spec = importlib.util.spec_from_file_location(file.removesuffix(".py"), FUNCTIONS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.handle


def chunked(body: bytes) -> bytes:
    """Convert a body to chunks of three bytes."""
    pieces = [body[start : start + 3] for start in range(0, len(body), 3)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def raw_request(example: Example) -> bytes:
    """Convert an example to a request as the watchdog sends it: a body is chunked."""
    fields = {"Host": "test", "Connection": "close", **example.headers}
    if example.body:
        fields["Transfer-Encoding"] = "chunked"
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{example.method} {example.target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (
        chunked(example.body) if example.body else b""
    )


def environ_of(headers: dict[str, str]) -> dict[str, str]:
    keys = {name: name.upper().replace("-", "_") for name in headers}
    return {key if key == "CONTENT_TYPE" else "HTTP_" + key: headers[name] for name, key in keys.items()}


def check(answer: Answer, example: Example) -> None:
    """Compare an answer with what the example expects."""
    assert (answer.status, answer.body) == (example.status, example.expected_body)
    for name, value in example.expected_headers.items():
        assert answer.header(name) == value


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_called_through_the_application(example):
    answer = call(load(example.function), example.method, example.target, example.body, **environ_of(example.headers))
    if example.method == "HEAD":
        answer = answer._replace(body=b"")  # what is not sent is the server's business
    check(answer, example)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_called_through_the_server(example):
    with serving(load(example.function)) as server:
        answer, rest = read_answer(server.talk(raw_request(example)), example.method)
    assert rest == b""
    check(answer, example)


@pytest.mark.parametrize("spelling", ["old", "new"])
def test_all_examples_of_the_documentation_are_here(spelling):
    names = [
        "json_body",
        "string_body",
        "json_error",
        "response_headers",
        "request_body",
        "request_method",
        "request_query",
        "request_headers",
    ]
    assert {example.function for example in CASES.values()} == set(names)
    for name in names:
        source = (FUNCTIONS / f"{name}_{spelling}.py").read_text()
        assert ("status_code" in source, "statusCode" in source) == (spelling == "old", spelling == "new")
