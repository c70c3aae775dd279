"""result -> Response: whatever handle returned."""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import io
import json
import pathlib
import sqlite3
import time
import uuid
from http import HTTPStatus
from types import MappingProxyType

import pytest
from conftest import call, serving

import watchdog_app
from watchdog_app import Headers, HTTPError, Query, ResultError, Stream, to_response

HTML, BINARY, JSON, LINES = (
    "text/html; charset=utf-8",
    "application/octet-stream",
    "application/json",
    "application/x-ndjson",
)


def returning(result):
    return lambda event, context: result


class Color(enum.Enum):
    RED = "red"


class Size(str, enum.Enum):  # noqa: UP042 (as functions have it)
    BIG = "big"


class Word(enum.StrEnum):
    YES = "yes"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    at: datetime.date


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    read: float
    unit: str


class Name(str):
    pass


class Record(dict):
    pass


class Document:
    """No type that the contract names."""


def row():
    """Make a row of a database."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        return database.execute("SELECT 1 AS id, 'x' AS name").fetchone()


# -- what each type becomes --

BODIES = [
    pytest.param("grüße", HTML, "grüße".encode(), id="str"),
    pytest.param("", HTML, b"", id="empty str"),
    pytest.param(Name("x"), HTML, b"x", id="subclass of str"),
    pytest.param(b"\x00\xff", BINARY, b"\x00\xff", id="bytes"),
    pytest.param(b"", BINARY, b"", id="empty bytes"),
    pytest.param(bytearray(b"ab"), BINARY, b"ab", id="bytearray"),
    pytest.param(memoryview(b"abc")[1:], BINARY, b"bc", id="memoryview"),
    pytest.param(memoryview(b"abcd")[::2], BINARY, b"ac", id="memoryview with gaps"),
    pytest.param({}, JSON, b"{}", id="empty dict"),
    pytest.param({"name": "grüße"}, JSON, '{"name":"grüße"}'.encode(), id="dict, UTF-8 unescaped"),
    pytest.param({"a": "\ud800"}, JSON, rb'{"a":"\ud800"}', id="dict, lone surrogate escaped"),
    pytest.param(
        {"\udfff": "😀\ud83d"},
        JSON,
        rb'{"\udfff":"' + "😀".encode() + rb'\ud83d"}',
        id="dict, pair unescaped, lone ones escaped",
    ),
    pytest.param(["\\\udc80"], JSON, rb'["\\\udc80"]', id="list, lone surrogate behind a backslash"),
    pytest.param(Record(a=1), JSON, b'{"a":1}', id="subclass of dict"),
    pytest.param([], JSON, b"[]", id="empty list"),
    pytest.param([1, "two", None, True, 2.5], JSON, b'[1,"two",null,true,2.5]', id="list"),
    pytest.param([(1, 2)], JSON, b"[[1,2]]", id="tuple inside"),
    pytest.param({7}, JSON, b"[7]", id="set"),
    pytest.param(frozenset({7}), JSON, b"[7]", id="frozenset"),
    pytest.param(set(), JSON, b"[]", id="empty set"),
    pytest.param(42, JSON, b"42", id="int"),
    pytest.param(0, JSON, b"0", id="zero"),
    pytest.param(2.5, JSON, b"2.5", id="float"),
    pytest.param(True, JSON, b"true", id="true"),
    pytest.param(False, JSON, b"false", id="false"),
    pytest.param(Point(1, datetime.date(2024, 2, 29)), JSON, b'{"x":1,"at":"2024-02-29"}', id="dataclass"),
    pytest.param([Point(1, datetime.date(2024, 2, 29))], JSON, b'[{"x":1,"at":"2024-02-29"}]', id="dataclass inside"),
    pytest.param(
        Reading(2.5, "kWh"), JSON, b'{"read":2.5,"unit":"kWh"}', id="dataclass with slots and a field called read"
    ),
    pytest.param(datetime.datetime(2024, 2, 29, 12, 30), JSON, b'"2024-02-29T12:30:00"', id="datetime"),
    pytest.param(
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
        JSON,
        b'"2024-02-29T00:00:00+00:00"',
        id="datetime with a zone",
    ),
    pytest.param(datetime.date(2024, 2, 29), JSON, b'"2024-02-29"', id="date"),
    pytest.param(datetime.time(12, 30), JSON, b'"12:30:00"', id="time"),
    pytest.param(decimal.Decimal("1.10"), JSON, b'"1.10"', id="Decimal"),
    pytest.param(uuid.UUID(int=1), JSON, b'"00000000-0000-0000-0000-000000000001"', id="UUID"),
    pytest.param(Color.RED, JSON, b'"red"', id="Enum"),
    pytest.param(Size.BIG, JSON, b'"big"', id="Enum that is a str"),
    pytest.param(Word.YES, JSON, b'"yes"', id="StrEnum"),
    pytest.param(Level.HIGH, JSON, b"3", id="IntEnum"),
    pytest.param({"size": Size.BIG, "level": Level.HIGH}, JSON, b'{"size":"big","level":3}', id="Enums inside"),
    pytest.param(pathlib.Path("/a/ü"), JSON, '"/a/ü"'.encode(), id="Path"),
    pytest.param(pathlib.PurePosixPath("a/b"), JSON, b'"a/b"', id="PurePath"),
    pytest.param(datetime.timedelta(1, 5400, 500_000), JSON, b'"PT91800.5S"', id="timedelta"),
    pytest.param(datetime.timedelta(seconds=-90), JSON, b'"-PT90S"', id="negative timedelta"),
    pytest.param(datetime.timedelta(), JSON, b'"PT0S"', id="no time at all"),
    pytest.param(range(3), JSON, b"[0,1,2]", id="range"),
    pytest.param(range(100, 101), JSON, b"[100]", id="range of one"),
    pytest.param({"a": 1}.keys(), JSON, b'["a"]', id="keys of a dict"),
    pytest.param({"a": 1}.values(), JSON, b"[1]", id="values of a dict"),
    pytest.param({"a": 1}.items(), JSON, b'[["a",1]]', id="items of a dict"),
    pytest.param(collections.deque([1, {2}]), JSON, b"[1,[2]]", id="deque"),
    pytest.param(collections.UserList([1]), JSON, b"[1]", id="UserList"),
    pytest.param(array.array("i", [1, 2]), JSON, b"[1,2]", id="array"),
    pytest.param(MappingProxyType({"a": 1}), JSON, b'{"a":1}', id="MappingProxyType"),
    pytest.param(collections.ChainMap({"a": 1}, {"a": 2}), JSON, b'{"a":1}', id="ChainMap"),
    pytest.param(collections.UserDict(a={"b": range(1)}), JSON, b'{"a":{"b":[0]}}', id="UserDict"),
    pytest.param(collections.OrderedDict(b=1, a=2), JSON, b'{"b":1,"a":2}', id="OrderedDict"),
    pytest.param(collections.UserString("x"), JSON, b'"x"', id="UserString"),
    pytest.param(Headers({"HTTP_X_A": "b"}), JSON, b'{"X-A":"b"}', id="Headers"),
    pytest.param([Headers({"HTTP_X_A": "b"})], JSON, b'[{"X-A":"b"}]', id="Headers inside"),
    pytest.param(Query([("a", "1"), ("a", "2")]), JSON, b'{"a":"1"}', id="Query"),
    pytest.param(row(), JSON, b'{"id":1,"name":"x"}', id="sqlite3.Row"),
    pytest.param([row()], JSON, b'[{"id":1,"name":"x"}]', id="sqlite3.Row inside"),
]
EXCEPTIONS = [
    pytest.param(ValueError("no such order"), HTML, b"no such order", id="exception"),
    pytest.param(KeyError("a"), HTML, b"'a'", id="KeyError"),
]

SPELLINGS = [
    pytest.param(lambda body: body, 200, id="alone"),
    pytest.param(lambda body: {"statusCode": 201, "body": body}, 201, id="newer envelope"),
    pytest.param(lambda body: {"status_code": 201, "response": body}, 201, id="older envelope"),
    pytest.param(lambda body: {"body": body}, 200, id="envelope without a status"),
    pytest.param(lambda body: (body, 201), 201, id="with a status"),
    pytest.param(lambda body: (body, {"X-A": "b"}), 200, id="with headers"),
    pytest.param(lambda body: (body, 201, [("X-A", "b")]), 201, id="with both"),
]


@pytest.mark.parametrize(("spell", "status"), SPELLINGS)
@pytest.mark.parametrize(("body", "kind", "content"), BODIES)
def test_a_body_becomes(body, kind, content, spell, status, log):
    check_body(body, kind, content, spell, status, log)


@pytest.mark.parametrize(("spell", "status"), SPELLINGS[1:])
@pytest.mark.parametrize(("body", "kind", "content"), EXCEPTIONS)
def test_an_exception_as_a_body_becomes_its_text(body, kind, content, spell, status, log):
    check_body(body, kind, content, spell, status, log)


def check_body(body, kind, content, spell, status, log):
    answer = call(returning(spell(body)))
    assert (answer.status, answer.header("Content-Type"), answer.body) == (status, kind, content)
    assert log.getvalue() == ""


@pytest.mark.parametrize(("body", "kind", "content"), BODIES)
def test_to_response_of(body, kind, content):
    response = to_response(body)
    assert (response.status, response.headers, response.body) == (200, [("Content-Type", kind)], content)


def test_a_set_becomes_a_list_of_all_its_items():
    assert sorted(json.loads(call(returning({1, 2, 3})).body)) == [1, 2, 3]


def test_none_is_204_without_a_content_type():
    answer = call(returning(None))
    assert (answer.status, answer.body, answer.header("Content-Type")) == (204, b"", None)


@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"statusCode": 204}, id="status alone"),
        pytest.param({"statusCode": 304}, id="304 alone"),
        pytest.param({"statusCode": 204, "body": None}, id="body None"),
        pytest.param({"status_code": 204, "response": ""}, id="empty str"),
        pytest.param({"statusCode": 304, "body": b""}, id="empty bytes"),
        pytest.param((None, 204), id="tuple"),
        pytest.param(("", 204), id="tuple of an empty str"),
        pytest.param((None, 304, {"Content-Type": "text/plain"}), id="own Content-Type"),
    ],
)
def test_an_empty_body_where_none_is_allowed_is_no_fault(result, log):
    answer = call(returning(result))
    assert answer.status in (204, 304)
    assert (answer.body, answer.header("Content-Type")) == (b"", None)
    assert log.getvalue() == ""


# -- envelopes --

ENVELOPES = [
    pytest.param({"statusCode": 201, "body": "x"}, 201, HTML, b"x", id="newer"),
    pytest.param({"status_code": 201, "response": "x"}, 201, HTML, b"x", id="older"),
    pytest.param({"statusCode": 201, "response": "x"}, 201, HTML, b"x", id="mixed"),
    pytest.param({"status_code": 201, "body": "x"}, 201, HTML, b"x", id="mixed the other way"),
    pytest.param(
        {"statusCode": 201, "status_code": 202, "body": "x", "response": "y"},
        201,
        HTML,
        b"x",
        id="both: the newer wins",
    ),
    pytest.param(
        {"status_code": 202, "statusCode": 201, "response": "y", "body": "x"},
        201,
        HTML,
        b"x",
        id="both, in the other order",
    ),
    pytest.param({"body": None, "response": "y", "statusCode": 200}, 200, HTML, b"", id="both: a newer None wins too"),
    pytest.param({"body": "x"}, 200, HTML, b"x", id="body alone"),
    pytest.param({"response": ["x"], "headers": {}}, 200, JSON, b'["x"]', id="response and headers"),
    pytest.param({"headers": {"X-A": "b"}, "body": "x"}, 200, HTML, b"x", id="headers and body"),
    pytest.param({"statusCode": 404, "body": ""}, 404, HTML, b"", id="empty body"),
    pytest.param({"statusCode": 200, "headers": None, "body": "x"}, 200, HTML, b"x", id="headers None"),
    pytest.param(
        {"statusCode": 404, "error": "no such order"},
        404,
        JSON,
        b'{"error":"no such order"}',
        id="status with unknown keys",
    ),
    pytest.param({"status_code": 404, "error": 1}, 404, JSON, b'{"error":1}', id="older status with unknown keys"),
    pytest.param(
        {"statusCode": 404, "headers": {"X-A": "b"}, "error": 1},
        404,
        JSON,
        b'{"error":1}',
        id="status, headers and unknown keys",
    ),
    pytest.param({"message": "hi"}, 200, JSON, b'{"message":"hi"}', id="no key of an envelope"),
    pytest.param(
        {"body": "x", "title": "y"}, 200, JSON, b'{"body":"x","title":"y"}', id="a body and unknown keys, no status"
    ),
    pytest.param(
        {"headers": {"a": "b"}, "args": {}},
        200,
        JSON,
        b'{"headers":{"a":"b"},"args":{}}',
        id="headers and unknown keys, no status",
    ),
    pytest.param(
        {"body": {"statusCode": 500, "body": "x"}},
        200,
        JSON,
        b'{"statusCode":500,"body":"x"}',
        id="an envelope in an envelope",
    ),
    pytest.param(Record(statusCode=201, body="x"), 201, HTML, b"x", id="subclass of dict"),
]


@pytest.mark.parametrize(("result", "status", "kind", "content"), ENVELOPES)
def test_an_envelope(result, status, kind, content, log):
    response = to_response(result)
    assert (response.status, dict(response.headers).get("Content-Type"), response.body) == (status, kind, content)
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"statusCode": 200}, id="status alone"),
        pytest.param({"statusCode": 302, "headers": {"Location": "/x"}}, id="status and headers"),
        pytest.param({"headers": {"X-A": "b"}}, id="headers alone"),
        pytest.param({"statusCode": 200, "body": None}, id="body None"),
        pytest.param((None, 404), id="tuple"),
    ],
)
def test_an_envelope_without_a_body_is_an_empty_answer(result):
    answer = call(returning(result))  # wsgiref.validate asks for a Content-Type here
    assert answer.status == to_response(result).status
    assert answer.body == b""


@pytest.mark.parametrize("key", ["body", "response"])
def test_unknown_keys_beside_a_body_are_ignored_with_one_warning(key, log):
    for _ in range(3):
        answer = call(returning({"statusCode": 200, key: "x", "isBase64Encoded": False}))
        assert (answer.status, answer.text) == (200, "x")
    assert log.getvalue().count("\n") == 1
    assert "isBase64Encoded" in log.getvalue()


def test_each_distinct_warning_comes_once(log):
    for name in ("a", "b", "a", "b"):
        to_response({"statusCode": 200, "body": "x", name: 1})
    assert log.getvalue().count("\n") == 2


def test_unknown_keys_are_shown_escaped_and_cut(log):
    to_response({"statusCode": 200, "body": "x", "\x1b[31m" + "y" * 500: 1, 5: 2})
    assert "\x1b" not in log.getvalue()
    assert len(log.getvalue()) < 300


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param("x", id="str"),
        pytest.param(b"x", id="bytes"),
        pytest.param({"a": 1}, id="dict"),
        pytest.param({}, id="empty dict"),
        pytest.param(iter(["x"]), id="iterator"),
    ],
)
def test_a_body_where_none_is_allowed_is_dropped_with_one_warning(status, body, log):
    for _ in range(2):
        answer = call(returning({"statusCode": status, "body": body}))
        assert (answer.status, answer.body, answer.header("Content-Type")) == (status, b"", None)
    assert log.getvalue().count("\n") == 1
    assert str(status) in log.getvalue()


def test_an_iterator_as_a_body_of_204_is_closed(log):
    closed = []

    class Items:
        def __iter__(self):
            return self

        def __next__(self):
            return "x"

        def close(self):
            closed.append(True)

    assert call(returning((Items(), 204))).body == b""
    assert closed == [True]


def test_an_open_file_as_a_body_of_304_is_closed(log):
    file = io.BytesIO(b"x")
    assert call(returning((file, 304))).body == b""
    assert file.closed


# -- tuples --


@pytest.mark.parametrize(
    ("result", "status", "headers"),
    [
        pytest.param(("x", 404), 404, {}, id="status"),
        pytest.param(("x", HTTPStatus.CREATED), 201, {}, id="HTTPStatus"),
        pytest.param(("x", "404"), 404, {}, id="status as text"),
        pytest.param(("x", {"X-A": "b"}), 200, {"X-A": "b"}, id="dict of headers"),
        pytest.param(("x", [("X-A", "b")]), 200, {"X-A": "b"}, id="list of headers"),
        pytest.param(("x", {}), 200, {}, id="no headers"),
        pytest.param(("x", []), 200, {}, id="no headers in a list"),
        pytest.param(("x", 404, {"X-A": "b"}), 404, {"X-A": "b"}, id="status and dict"),
        pytest.param(("x", 404, [("X-A", "b")]), 404, {"X-A": "b"}, id="status and list"),
        pytest.param(("x", 404, None), 404, {}, id="status and None"),
    ],
)
def test_a_tuple(result, status, headers):
    answer = call(returning(result))
    assert (answer.status, answer.body, answer.headers) == (status, b"x", [("Content-Type", HTML), *headers.items()])


@pytest.mark.parametrize(
    "result",
    [
        pytest.param((), id="empty"),
        pytest.param(("x",), id="one"),
        pytest.param(("x", 200, {}, 1), id="four"),
        pytest.param(("x", None), id="None as a status"),
        pytest.param(("x", "y"), id="two bodies"),
        pytest.param(("x", 2.0), id="float as a status"),
        pytest.param(("x", {}, 200), id="headers before the status"),
        pytest.param(("x", 200, "y"), id="text as headers"),
        pytest.param(("x", 200, 5), id="number as headers"),
    ],
)
def test_a_tuple_that_is_no_result_is_a_500(result, log):
    with pytest.raises(ResultError):
        to_response(result)
    assert call(returning(result)).status == 500
    assert "ResultError" in log.getvalue()


# -- statuses --


@pytest.mark.parametrize("key", ["statusCode", "status_code"])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(200, 200, id="lowest"),
        pytest.param(599, 599, id="highest"),
        pytest.param(299, 299, id="without a phrase"),
        pytest.param("201", 201, id="text"),
        pytest.param("404 Not Found", 404, id="text with its phrase"),
        pytest.param("499 Client Closed Request", 499, id="text with a phrase of its own"),
        pytest.param(None, 200, id="None"),
        pytest.param(HTTPStatus.CREATED, 201, id="HTTPStatus"),
        pytest.param(HTTPStatus(404), 404, id="HTTPStatus of an error"),
    ],
)
def test_a_status(key, status, code):
    assert to_response({key: status}).status == code
    assert type(to_response({key: status}).status) is int
    assert call(returning({key: status, "body": "x"})).status == code


@pytest.mark.parametrize("key", ["statusCode", "status_code"])
@pytest.mark.parametrize(
    "status",
    [
        pytest.param(True, id="true"),
        pytest.param(False, id="false"),
        pytest.param(0, id="zero"),
        pytest.param(99, id="two digits"),
        pytest.param(100, id="100 Continue"),
        pytest.param(HTTPStatus.SWITCHING_PROTOCOLS, id="101"),
        pytest.param(199, id="199"),
        pytest.param(600, id="600"),
        pytest.param(-200, id="negative"),
        pytest.param(200.0, id="float"),
        pytest.param("", id="empty"),
        pytest.param("20", id="two digits of text"),
        pytest.param("0200", id="four digits"),
        pytest.param("+200", id="a sign"),
        pytest.param(" 200", id="a blank"),
        pytest.param("200\n", id="a line break"),
        pytest.param("200OK", id="no blank before its phrase"),
        pytest.param("99 Bottles", id="two digits and a phrase"),
        pytest.param("600 Late", id="600 with a phrase"),
        pytest.param("200 ", id="a blank without a phrase"),
        pytest.param("200 OK\x7f", id="control character in its phrase"),
        pytest.param("200 OK\r\nX-A: b", id="line break in its phrase"),
        pytest.param("199", id="199 as text"),
        pytest.param("\u0662\u0660\u0660", id="digits of another script"),
        pytest.param(b"200", id="bytes"),
        pytest.param([200], id="list"),
    ],
)
def test_a_status_that_cannot_be_sent_is_a_500_and_the_log_shows_it(key, status, log):
    answer = call(returning({key: status, "body": "x"}))
    assert answer.status == 500
    record = log.getvalue()
    assert "status" in record and ascii(status) in record


# -- headers --


@pytest.mark.parametrize(
    ("headers", "pairs"),
    [
        pytest.param({"X-A": "b", "X-C": "d"}, [("X-A", "b"), ("X-C", "d")], id="dict"),
        pytest.param([("X-A", "b"), ("X-C", "d")], [("X-A", "b"), ("X-C", "d")], id="list of pairs"),
        pytest.param([["X-A", "b"]], [("X-A", "b")], id="list of lists"),
        pytest.param((("X-A", "b"),), [("X-A", "b")], id="tuple of pairs"),
        pytest.param(
            [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
            [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
            id="one name twice",
        ),
        pytest.param(
            {"Set-Cookie": ["a=1", "b=2"]}, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], id="list as a value"
        ),
        pytest.param(
            {"Set-Cookie": ("a=1", "b=2")}, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], id="tuple as a value"
        ),
        pytest.param(
            [("Set-Cookie", ["a=1", "b=2"])],
            [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
            id="list as a value in a list",
        ),
        pytest.param({"X-A": []}, [], id="empty list as a value"),
        pytest.param({"X-Count": 7, "X-Zero": 0}, [("X-Count", "7"), ("X-Zero", "0")], id="int"),
        pytest.param({"X-Count": [1, "2"]}, [("X-Count", "1"), ("X-Count", "2")], id="int in a list"),
        pytest.param({"X-A": 2.5, "X-B": True}, [("X-A", "2.5"), ("X-B", "True")], id="float and bool"),
        pytest.param({"X-Id": uuid.UUID(int=1)}, [("X-Id", str(uuid.UUID(int=1)))], id="UUID"),
        pytest.param({"X-At": [datetime.datetime(2024, 2, 29)]}, [("X-At", "2024-02-29 00:00:00")], id="datetime"),
        pytest.param({"X-Path": pathlib.Path("/a")}, [("X-Path", "/a")], id="Path"),
        pytest.param({"X-Name": "J\xfcrgen"}, [("X-Name", "J\xfcrgen")], id="latin-1"),
        pytest.param({"X-A": ""}, [("X-A", "")], id="empty value"),
        pytest.param(MappingProxyType({"X-A": "b"}), [("X-A", "b")], id="another mapping"),
        pytest.param({}, [], id="none"),
        pytest.param(None, [], id="None"),
    ],
)
@pytest.mark.parametrize("key", ["body", "response"])
def test_headers(headers, pairs, key):
    answer = call(returning({"statusCode": 200, key: "x", "headers": headers}))
    assert [pair for pair in answer.headers if pair[0] != "Content-Type"] == pairs
    assert answer.header("Content-Type") == HTML


def test_the_headers_of_a_function_are_not_changed():
    headers = [("X-A", "b")]
    call(returning({"body": "x", "headers": headers}))
    assert headers == [("X-A", "b")]


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
@pytest.mark.parametrize("body", ["x", b"x", {"a": 1}, iter("x")])
def test_the_functions_own_content_type_wins(name, body):
    answer = call(returning({"statusCode": 200, "body": body, "headers": {name: "text/csv"}}))
    assert answer.header("Content-Type") == "text/csv"


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "Keep-Alive",
        "Trailer",
        "TE",
        "Upgrade",
        "Proxy-Authenticate",
        "Proxy-Connection",
    ],
)
def test_the_servers_own_headers_are_dropped(name):
    answer = call(returning(("abc", {name: "2", "X-A": "b"})))
    assert (answer.status, answer.body, answer.header(name), answer.header("X-A")) == (200, b"abc", None, "b")


def test_a_wrong_content_length_does_no_harm_on_the_wire():
    with serving(returning(("abc", {"Content-Length": 2, "Transfer-Encoding": "chunked"}))) as server:
        answer = server.get()
    assert (answer.header("Content-Length"), answer.header("Transfer-Encoding"), answer.body) == ("3", None, b"abc")


@pytest.mark.parametrize("value", ["close", "Close"])
def test_connection_close_is_honoured(value):
    with serving(returning(("abc", {"connection": value}))) as server:
        data = server.talk(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 2)
    assert data.count(b"HTTP/1.1 200 OK") == 1
    assert data.lower().count(b"connection: close\r\n") == 1


def test_connection_keep_alive_is_dropped():
    with serving(returning(("abc", {"Connection": "keep-alive, X-A"}))) as server:
        data = server.talk(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 2)
    assert data.count(b"HTTP/1.1 200 OK") == 2
    assert b"connection" not in data.lower()


BAD_HEADERS = [
    pytest.param({"X-Bad": "a\r\nSet-Cookie: b"}, "X-Bad", id="CRLF"),
    pytest.param({"X-Bad": "a\nb"}, "X-Bad", id="LF"),
    pytest.param({"X-Bad": "a\rb"}, "X-Bad", id="CR"),
    pytest.param({"X-Bad": "a\n"}, "X-Bad", id="LF at the end"),
    pytest.param({"X-Bad": "a\0b"}, "X-Bad", id="NUL"),
    pytest.param({"X-Bad": "a\x7fb"}, "X-Bad", id="DEL"),
    pytest.param({"X-Bad": "€"}, "X-Bad", id="not latin-1"),
    pytest.param({"X-Bad": None}, "X-Bad", id="None"),
    pytest.param({"X-Bad": b"bytes"}, "X-Bad", id="bytes"),
    pytest.param({"X-Bad": pathlib.Path("a\nb")}, "X-Bad", id="LF in a value with str()"),
    pytest.param({"X-Bad": [["a"]]}, "X-Bad", id="list in a list"),
    pytest.param({"X-Bad": ["ok", "a\r\nb"]}, "X-Bad", id="CRLF in a list"),
    pytest.param({"X-Bad": {"a": "b"}}, "X-Bad", id="dict"),
    pytest.param([("X-Bad", "a\r\nb")], "X-Bad", id="CRLF in a list of pairs"),
    pytest.param({"X Bad": "a"}, "X Bad", id="blank in a name"),
    pytest.param({"X-Bad:": "a"}, "X-Bad:", id="colon in a name"),
    pytest.param({"X-Bad\r\nX-B": "a"}, "X-Bad", id="CRLF in a name"),
    pytest.param({"X-Bad\n": "a"}, "X-Bad", id="LF at the end of a name"),
    pytest.param({"X-Bäd": "a"}, "X-B\\xe4d", id="name not ASCII"),
    pytest.param({"": "a"}, "''", id="empty name"),
    pytest.param({5: "a"}, "5", id="number as a name"),
    pytest.param({b"X-Bad": "a"}, "X-Bad", id="bytes as a name"),
    pytest.param({"Content-Length": "1\r\nX-B: c"}, "Content-Length", id="CRLF in one that is dropped"),
    pytest.param("X-Bad: a", "X-Bad: a", id="text"),
    pytest.param([("X-Bad", "a", "b")], "X-Bad", id="three in a pair"),
    pytest.param([("X-Bad",)], "X-Bad", id="one in a pair"),
    pytest.param(["X-Bad: a"], "X-Bad: a", id="lines of text"),
    pytest.param(17, "17", id="number"),
]


@pytest.mark.parametrize(("headers", "shown"), BAD_HEADERS)
def test_headers_that_cannot_be_sent_are_a_500_and_the_log_shows_them(headers, shown, log):
    answer = call(returning({"statusCode": 200, "body": "x", "headers": headers}))
    assert answer.status == 500
    record = log.getvalue()
    assert "header" in record and shown in record
    assert record.replace("\n", "").isprintable()


@pytest.mark.parametrize(("headers", "shown"), BAD_HEADERS[:12])
def test_header_injection_does_not_reach_the_wire(headers, shown, log):
    with serving(returning({"statusCode": 200, "body": "x", "headers": headers})) as server:
        answer = server.get()
    assert answer.status == 500
    assert answer.header("Set-Cookie") is None


@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"headers": {"X-Bad": "\n" + "y" * 5000}}, id="header"),
        pytest.param({"headers": {"X Bad" + "y" * 5000: "a"}}, id="header name"),
        pytest.param({"headers": ["y" * 5000]}, id="headers"),
        pytest.param({"statusCode": "y" * 5000}, id="status"),
        pytest.param({"body": [{"y" * 5000: b"y" * 5000}]}, id="body"),
        pytest.param({"body": "\ud800" + "y" * 5000}, id="text that is no Unicode"),
        pytest.param({"body": iter([("y" * 5000,)])}, id="item"),
    ],
)
def test_a_long_value_is_cut_in_the_log(result, log):
    assert call(returning(result)).status == 500
    assert "y" * 50 in log.getvalue() and "y" * 200 not in log.getvalue()


# -- streams --


def strings():
    yield "gr"
    yield "üße"


@pytest.mark.parametrize(
    ("items", "kind", "content"),
    [
        pytest.param(["a", "ü"], HTML, "aü".encode(), id="str"),
        pytest.param([b"a", b"\xff"], BINARY, b"a\xff", id="bytes"),
        pytest.param([bytearray(b"a"), memoryview(b"b")], BINARY, b"ab", id="bytearray and memoryview"),
        pytest.param([{"a": "ü"}, {"b": 2}], LINES, '{"a":"ü"}\n{"b":2}\n'.encode(), id="dict"),
        pytest.param(
            [{"\ud800": "😀"}, ["\udfff"]],
            LINES,
            rb'{"\ud800":"' + "😀".encode() + b'"}\n' + rb'["\udfff"]' + b"\n",
            id="lone surrogates",
        ),
        pytest.param([[1], [2, "x"]], LINES, b'[1]\n[2,"x"]\n', id="list"),
        pytest.param([{"line": "a\nb"}], LINES, b'{"line":"a\\nb"}\n', id="line break in JSON"),
        pytest.param([Record(a=1)], LINES, b'{"a":1}\n', id="subclass of dict"),
        pytest.param([{"at": datetime.date(2024, 2, 29)}], LINES, b'{"at":"2024-02-29"}\n', id="date in JSON"),
        pytest.param(["a", b"b", {"c": 1}], HTML, b'ab{"c":1}\n', id="mixed: the first decides"),
        pytest.param([], BINARY, b"", id="empty"),
        pytest.param(["", "a"], HTML, b"a", id="empty first item"),
        pytest.param([b"", b""], BINARY, b"", id="empty items"),
    ],
)
@pytest.mark.parametrize(
    "iterate", [pytest.param(iter, id="iterator"), pytest.param(lambda items: (item for item in items), id="generator")]
)
@pytest.mark.parametrize(("spell", "status"), SPELLINGS)
def test_a_stream(items, kind, content, iterate, spell, status):
    answer = call(returning(spell(iterate(items))))
    assert (answer.status, answer.header("Content-Type"), answer.body) == (status, kind, content)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda event, context: strings(), id="returned generator"),
        pytest.param(lambda event, context: map(str.lower, ["GR", "ÜSSE".replace("SS", "ß")]), id="map"),
        pytest.param(lambda event, context: reversed(["üße", "gr"]), id="reversed"),
    ],
)
def test_iterators_are_streamed(function):
    with serving(function) as server:
        answer = server.get()
    assert (answer.text, answer.header("Transfer-Encoding"), answer.header("Content-Length")) == (
        "grüße",
        "chunked",
        None,
    )


def test_a_handle_that_yields_is_a_stream():
    def handle(event, context):
        yield event.method
        yield context.call_id

    answer = call(handle, "PUT", HTTP_X_CALL_ID="7")
    assert (answer.status, answer.header("Content-Type"), answer.text) == (200, HTML, "PUT7")


def test_a_stream_is_a_stream_and_all_else_is_not():
    assert isinstance(to_response(iter([b"x"])).body, Stream)
    assert isinstance(to_response(io.BytesIO(b"x")).body, Stream)
    assert to_response([b"x".hex()]).body == b'["78"]'


def test_an_open_file_is_sent_and_closed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000 + b"end")
    files = []

    def handle(event, context):
        files.append(open(path, "rb"))  # noqa: SIM115 (the runtime closes it)
        return files[0]

    answer = call(handle)
    assert (answer.status, answer.header("Content-Type")) == (200, BINARY)
    assert answer.body == path.read_bytes()
    assert files[0].closed


@pytest.mark.parametrize(
    ("content", "kind"), [pytest.param(b"", BINARY, id="empty"), pytest.param(b"x", BINARY, id="short")]
)
def test_a_file_in_memory_is_sent_and_closed(content, kind):
    file = io.BytesIO(content)
    answer = call(returning({"statusCode": 201, "body": file}))
    assert (answer.status, answer.header("Content-Type"), answer.body, file.closed) == (201, kind, content, True)


def test_what_can_be_read_and_not_closed_is_sent():
    class Source:
        def __init__(self):
            self.pieces = [b"", b"b", b"a"]

        def read(self, size):
            return self.pieces.pop()

    assert call(returning(Source())).body == b"ab"


def test_an_open_file_is_closed_after_head():
    file = io.BytesIO(b"x" * 200_000)
    with serving(returning(file)) as server:
        assert server.request("HEAD").status == 200
    assert file.closed


def test_a_generator_is_closed_when_its_consumer_stops():
    closed = []

    def items():
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    body = to_response(items()).body
    assert next(iter(body)) == b"a"
    body.close()
    assert closed == [True]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(lambda event: HTTPError(404), 404, id="HTTPError"),
        pytest.param(lambda event: event.query["name"], 400, id="missing key"),
        pytest.param(lambda event: event.json(), 400, id="bad JSON"),
        pytest.param(lambda event: event.form(), 415, id="no form"),
        pytest.param(lambda event: 1 / 0, 500, id="another exception"),
    ],
)
def test_an_error_before_the_first_item_chooses_the_status(error, status, log):
    def handle(event, context):
        problem = error(event)
        if problem:
            raise problem
        yield "never"

    assert call(handle).status == status
    assert ("Traceback" in log.getvalue()) == (status == 500)


@pytest.mark.parametrize(
    ("item", "named"),
    [
        pytest.param(None, "NoneType", id="None"),
        pytest.param(5, "int", id="int"),
        pytest.param(("a", "b"), "tuple", id="tuple"),
        pytest.param(Document(), "Document", id="object"),
        pytest.param({"a": float("nan")}, "a = nan of type float", id="NaN"),
    ],
)
def test_a_first_item_that_cannot_be_sent_is_a_500(item, named, log):
    closed = []

    def items():
        try:
            yield item
        finally:
            closed.append(True)

    assert call(returning(items())).status == 500
    assert named in log.getvalue()
    assert closed == [True]


@pytest.mark.parametrize(
    "first", [5, ValueError("first"), HTTPError(404), SystemExit(1)], ids=lambda first: type(first).__name__
)
def test_an_iterator_whose_first_item_fails_is_closed(first, log):
    class Rows:
        closed = 0

        def __iter__(self):
            return self

        def __next__(self):
            if isinstance(first, BaseException):
                raise first
            return first

        def close(self):
            self.closed += 1

    rows = Rows()
    assert call(returning(rows)).status == (404 if isinstance(first, HTTPError) else 500)
    assert rows.closed == 1


# -- what cannot be sent --

NOT_SENT = [
    pytest.param(Document(), "Document", id="object"),
    pytest.param([Document()], "Document", id="object in a list"),
    pytest.param({"a": {"b": Document()}}, "Document", id="object in a dict"),
    pytest.param(1 + 2j, "complex", id="complex"),
    pytest.param({"a": iter("x")}, "str_ascii_iterator", id="iterator in a dict"),
    pytest.param([b"x"], "bytes", id="bytes in JSON"),
    pytest.param(float("nan"), "float", id="NaN"),
    pytest.param([float("inf")], "float", id="infinity"),
    pytest.param({"a": float("-inf")}, "float", id="minus infinity"),
    pytest.param({(1, 2): 3}, "tuple", id="tuple as a key"),
    pytest.param("\ud800", "ud800", id="text that is no Unicode"),
    pytest.param(NotImplemented, "NotImplementedType", id="NotImplemented"),
    pytest.param(..., "ellipsis", id="ellipsis"),
]


@pytest.mark.parametrize(("body", "named"), NOT_SENT)
@pytest.mark.parametrize(("spell", "status"), SPELLINGS)
def test_what_cannot_be_sent_is_a_500_and_the_log_names_it(body, named, spell, status, log):
    answer = call(returning(spell(body)))
    assert answer.status == 500
    assert answer.header("Content-Type").startswith("text/plain")
    assert named in log.getvalue()


@pytest.mark.parametrize(
    "sent", [rb'"\ud800"', rb'{"\udc00": ["\ud800\ud800", "\ud83d\ude00"]}', rb'["\\\udfff"]'], ids=ascii
)
def test_what_a_caller_sends_as_json_goes_back_as_the_same(sent):
    answer = call(lambda event, context: {"echo": event.json()}, "POST", body=sent)
    assert (answer.status, json.loads(answer.body)) == (200, {"echo": json.loads(sent)})


def test_what_refers_to_itself_is_a_500(log):
    result = []
    result.append(result)
    assert call(returning(result)).status == 500
    assert "ResultError: body cannot be sent as JSON: it contains itself" in log.getvalue()


class Clock:
    def isoformat(self):
        return "noon"

    def __repr__(self):
        return "Clock()"


class Scalar:
    def item(self):
        return 1

    tolist = item

    def __repr__(self):
        return "Scalar()"


class OldModel:
    """As pydantic 1 has it."""

    def dict(self):
        return {}

    def json(self):
        return "{}"

    def __repr__(self):
        return "OldModel()"


async def later():
    return 1


PLACES = [
    pytest.param({"a": OldModel()}, "a = OldModel() of type OldModel", ".dict()", id="model of pydantic 1"),
    pytest.param({"users": [{"when": Clock()}]}, "users[0].when = Clock() of type Clock", ".isoformat()", id="nested"),
    pytest.param({"a": {"b": [0, Scalar()]}}, "a.b[1] = Scalar() of type Scalar", ".item() or .tolist()", id="scalar"),
    pytest.param([1, (2, iter(()))], "[1][1] = ", "list(...)", id="iterator in a tuple"),
    pytest.param({"a b": {5: b"x"}}, "['a b'][5] = b'x' of type bytes", ".decode()", id="names that are none"),
    pytest.param({"é": 1j}, "\\xe9 = 1j of type complex", "str(...)", id="name that is not ASCII"),
    pytest.param(Clock(), "body = Clock() of type Clock", ".isoformat()", id="the whole"),
    pytest.param([Point(1, Clock())], "[0].at = Clock() of type Clock", ".isoformat()", id="in a dataclass"),
    pytest.param({"a": MappingProxyType({"b": Clock()})}, "a.b = Clock()", ".isoformat()", id="in another mapping"),
    pytest.param({"a": [1.5, float("nan")]}, "a[1] = nan of type float", "None", id="NaN"),
    pytest.param(
        {"a": {(1, 2): 3}}, "a = {(1, 2): 3} of type dict", "its key (1, 2) is a tuple, and str(...)", id="key"
    ),
    pytest.param({"work": later}, "work = <function later at ", "calling it", id="parentheses forgotten"),
    pytest.param({"error": ValueError("x")}, "error = ValueError('x') of type ValueError", "str(...)", id="exception"),
    pytest.param([Document()], "[0] = <test_response.Document object at ", "vars(...)", id="object"),
]


@pytest.mark.parametrize(("spell", "status"), SPELLINGS)
@pytest.mark.parametrize(("result", "place", "advice"), PLACES)
def test_what_is_no_json_is_named_with_its_place_and_what_would_help(result, place, advice, spell, status, log):
    def handle(event, context):
        return spell(result)

    if callable(spell(result)):
        return
    assert call(handle).status == 500
    first, *others = log.getvalue().splitlines()
    assert first.startswith("ERROR ") and len(others) == 1
    assert f"{__file__}:{handle.__code__.co_firstlineno}: ResultError: {place}" in others[0]
    assert others[0].endswith(f" cannot be sent as JSON: {advice} would help")


def test_an_awaitable_in_a_result_is_named(log):
    coroutine = later()
    assert call(returning({"price": coroutine})).status == 500
    coroutine.close()
    assert "price = <coroutine object later" in log.getvalue() and "await would help" in log.getvalue()


def test_a_fault_at_the_end_of_a_large_result_is_found_soon(log):
    began = time.monotonic()
    assert call(returning([[*range(200_000)], {"y" * 5_000_000: [*range(200_000), 1j]}])).status == 500
    assert "[200000] = 1j" in log.getvalue() and len(log.getvalue()) < 500
    assert time.monotonic() - began < 10


# -- results that are easily taken for something else --

SURPRISES = [
    pytest.param({"response": "pong"}, 200, b"pong", '{"body": {"response": ...}}', id="response alone"),
    pytest.param({"headers": {"X-A": "b"}}, 200, b"", '{"body": {"headers": ...}}', id="headers alone"),
    pytest.param({"headers": Headers({"HTTP_X_A": "b"})}, 200, b"", "sent as headers", id="the request's headers"),
    pytest.param({"status": 404, "body": "x"}, 200, b'{"status":404,"body":"x"}', "'statusCode'", id="status"),
    pytest.param({"statuscode": 404, "body": 1}, 200, b'{"statuscode":404,"body":1}', "'statusCode'", id="statuscode"),
    pytest.param(
        {"Status": HTTPStatus(404), "headers": {}, "body": 1},
        200,
        b'{"Status":404,"headers":{},"body":1}',
        "'Status' was sent as JSON, with status 200",
        id="status and headers",
    ),
    pytest.param((404, {"X-A": "b"}), 200, b"404", "(body, status)", id="status before the body"),
    pytest.param(404, 200, b"404", 'return ("", 404)', id="status alone"),
    pytest.param(HTTPStatus.NOT_FOUND, 200, b"404", 'return ("", 404)', id="HTTPStatus alone"),
    pytest.param(
        {"statusCode": 200, "body": "x", "a": 1}, 200, b"x", "were not sent: put them into it: ['a']", id="keys beside"
    ),
]


@pytest.mark.parametrize(("result", "status", "content", "advice"), SURPRISES)
def test_a_surprise_is_one_warning_that_says_how_to_say_the_other_thing(result, status, content, advice, log):
    for _ in range(2):
        answer = call(returning(result))
        assert (answer.status, answer.body) == (status, content)
    assert log.getvalue().startswith("WARNING ") and log.getvalue().count("\n") == 1
    assert advice in log.getvalue()


NO_SURPRISES = [
    pytest.param({"body": "x"}, id="body alone"),
    pytest.param({"body": {"response": "pong"}}, id="what the warning about a response says"),
    pytest.param({"body": {"headers": {"X-A": "b"}}}, id="what the warning about headers says"),
    pytest.param({"status_code": 200, "response": "x"}, id="older envelope"),
    pytest.param({"response": "x", "headers": {}}, id="response and headers"),
    pytest.param({"headers": {"X-A": "b"}, "body": ""}, id="headers and an empty body"),
    pytest.param({"statusCode": 302, "headers": {"Location": "/"}}, id="redirection"),
    pytest.param({"status": "ok"}, id="a status of its own"),
    pytest.param({"status": 200, "message": "x"}, id="a status in JSON"),
    pytest.param({"status": 200, "headers": {}, "url": "/"}, id="a request in JSON"),
    pytest.param({"title": "x", "body": "y", "status": "published"}, id="an article"),
    pytest.param({"title": "x", "body": "y", "status": 3}, id="an article with a number"),
    pytest.param({"title": "x", "body": "y", "id": 404}, id="an article with an id"),
    pytest.param({"statusCode": 404, "error": "x"}, id="status with a body of unknown keys"),
    pytest.param({}, id="empty dict"),
    pytest.param((7, {"X-A": "b"}), id="a number with headers"),
    pytest.param((404, 404), id="a number with a status"),
    pytest.param(("", 404), id="what the warning about a status says"),
    pytest.param(17, id="small number"),
    pytest.param(1024, id="large number"),
    pytest.param(299, id="number that is no known status"),
    pytest.param(True, id="bool"),
    pytest.param("404", id="text"),
    pytest.param([404], id="list"),
    pytest.param(None, id="None"),
    pytest.param(row(), id="row"),
]


@pytest.mark.parametrize("result", NO_SURPRISES)
def test_what_is_clear_is_no_warning(result, log):
    call(returning(result))
    assert log.getvalue() == ""


@pytest.mark.parametrize("items", [pytest.param([], id="no item"), pytest.param(["a"], id="after an item")])
def test_what_a_generator_returns_is_a_warning(items, log):
    def handle(event, context):
        yield from items
        return {"statusCode": 404}

    assert [(call(handle).status, call(handle).text)] == [(200, "".join(items))]
    assert log.getvalue().count("\n") == 1
    assert "a generator returned a dict, which was not sent: for a status, raise HTTPError" in log.getvalue()


def test_a_generator_that_returns_nothing_is_no_warning(log):
    def handle(event, context):
        if event.path == "/":
            return
        yield "x"

    assert call(handle).body == b""
    assert log.getvalue() == ""


@pytest.mark.parametrize("error", [ValueError("no such order"), HTTPError(404), SystemExit(3)], ids=ascii)
def test_an_exception_that_is_returned_is_a_500_and_the_log_says_so(error, log):
    assert call(returning(error)).status == 500
    assert f"ResultError: {error!r} was returned: raise it, or return (str(error), 500)" in log.getvalue()


def test_the_traceback_of_an_exception_that_is_returned_is_in_the_log(log):
    def handle(event, context):
        try:
            return 1 / 0
        except ArithmeticError as error:
            return error

    assert call(handle).status == 500
    assert "was returned" in log.getvalue() and "in handle\n" in log.getvalue()
    assert "watchdog_app.py" not in log.getvalue()


def test_what_is_nested_too_deep_is_a_500(log):
    result = []
    for _ in range(200_000):
        result = [result]
    try:
        assert call(returning(result)).status == 500
    finally:
        while result:  # the interpreter would recurse
            result = result.pop()


def test_a_class_is_no_result(log):
    assert call(returning(Document)).status == 500
    assert "Document" in log.getvalue()


def test_a_function_is_no_result(log):
    def helper():
        return "x"

    assert call(returning(helper)).status == 500
    assert "helper" in log.getvalue()


def test_a_long_result_is_cut_in_the_log(log):
    call(returning({"text": "y" * 5000, "bad": memoryview(b"y" * 5000), "y" * 5000: 1}))
    assert "bad" in log.getvalue() and "y" * 200 not in log.getvalue()


# -- HTTPError --


@pytest.mark.parametrize(
    ("error", "status", "kind", "content"),
    [
        pytest.param(HTTPError(404), 404, "text/plain; charset=utf-8", b"Not Found", id="status alone"),
        pytest.param(HTTPError(HTTPStatus.CONFLICT), 409, "text/plain; charset=utf-8", b"Conflict", id="HTTPStatus"),
        pytest.param(HTTPError("403"), 403, "text/plain; charset=utf-8", b"Forbidden", id="text"),
        pytest.param(HTTPError(404, {"error": "no such order"}), 404, JSON, b'{"error":"no such order"}', id="dict"),
        pytest.param(HTTPError(404, ["a"]), 404, JSON, b'["a"]', id="list"),
        pytest.param(HTTPError(404, "gone"), 404, HTML, b"gone", id="str"),
        pytest.param(HTTPError(404, ""), 404, HTML, b"", id="empty str"),
        pytest.param(HTTPError(404, b"gone"), 404, BINARY, b"gone", id="bytes"),
        pytest.param(HTTPError(404, iter(["a", "b"])), 404, HTML, b"ab", id="iterator"),
        pytest.param(HTTPError(401, "who?", {"WWW-Authenticate": "Basic"}), 401, HTML, b"who?", id="headers"),
        pytest.param(
            HTTPError(404, "a,b", [("content-type", "text/csv")]), 404, "text/csv", b"a,b", id="own content-type"
        ),
        pytest.param(
            HTTPError(404, None, {"content-type": "text/html"}),
            404,
            "text/html",
            b"Not Found",
            id="own content-type and no body",
        ),
        pytest.param(
            HTTPError(302, None, {"Location": "/x"}), 302, "text/plain; charset=utf-8", b"Found", id="redirection"
        ),
        pytest.param(HTTPError(status=410, body="x", headers=()), 410, HTML, b"x", id="by name"),
    ],
)
def test_an_http_error_answers_like_the_envelope(error, status, kind, content, log):
    def handle(event, context):
        raise error

    answer = call(handle)
    assert (answer.status, answer.header("Content-Type")) == (status, kind)
    assert answer.body.rstrip(b"\n") == content
    for name, value in dict(error.headers).items():
        assert answer.header(name) == value
    assert log.getvalue() == ""


def test_an_http_error_without_content():
    def handle(event, context):
        raise HTTPError(204)

    answer = call(handle)
    assert (answer.status, answer.body, answer.header("Content-Type")) == (204, b"", None)


def test_an_http_error_from_a_subclass():
    class NoOrder(HTTPError):
        def __init__(self):
            super().__init__(404, {"error": "no such order"})

    def handle(event, context):
        raise NoOrder

    assert (call(handle).status, call(handle).text) == (404, '{"error":"no such order"}')


@pytest.mark.parametrize(
    ("error", "says"),
    [
        pytest.param(HTTPError(99), "status 99 cannot be sent: it takes a number from 200 to 599", id="status"),
        pytest.param(
            HTTPError("gone"), "status 'gone' cannot be sent: it takes a number from 200 to 599", id="text as a status"
        ),
        pytest.param(HTTPError(404, Document()), "of type Document cannot be sent as JSON", id="body"),
        pytest.param(
            HTTPError(404, "x", {"X-Bad": "a\nb"}),
            "header X-Bad with value 'a\\nb' cannot be sent: it takes latin-1 text",
            id="header",
        ),
        pytest.param(
            HTTPError(404, "x", 5),
            "headers 5 cannot be sent: they take a dict or a list of pairs",
            id="headers",
        ),
    ],
)
def test_an_http_error_that_cannot_be_sent_is_a_500_and_the_log_says_what_it_takes(error, says, log):
    def handle(event, context):
        raise error

    assert call(handle).status == 500
    assert "ResultError: " in log.getvalue() and says in log.getvalue()


@pytest.mark.parametrize("fault", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_http_error_whose_body_fails_is_a_500_with_the_call_id(fault, log):
    def items():
        raise fault("first")
        yield "never"

    def handle(event, context):
        raise HTTPError(404, items())

    answer = call(handle, HTTP_X_CALL_ID="an-id")
    assert (answer.status, "call id: an-id" in answer.text) == (500, True)
    assert log.getvalue().count("ERROR call 'an-id'") == 1


# -- WSGI responses --


class WsgiResponse:
    """What Flask and Werkzeug return: a WSGI application."""

    def __init__(self, *items: bytes, status: str = "202 Accepted") -> None:
        self.items, self.status, self.closed = items, status, 0

    def __call__(self, environ, start_response):
        start_response(self.status, [("Content-Type", "text/x-own"), ("X-Method", environ["REQUEST_METHOD"])])
        return self

    def __iter__(self):
        return iter(self.items)

    def close(self):
        self.closed += 1


def test_a_wsgi_response_is_as_it_says_itself():
    response = WsgiResponse(b"a", b"b")
    answer = call(returning(response), "PUT")
    assert (answer.status, answer.header("Content-Type"), answer.header("X-Method"), answer.body) == (
        202,
        "text/x-own",
        "PUT",
        b"ab",
    )
    assert response.closed == 1


def test_a_wsgi_response_on_the_wire():
    response = WsgiResponse(b"a", b"b")
    with serving(returning(response)) as server:
        answer = server.get()
    assert (answer.status, answer.header("Content-Type"), answer.body) == (202, "text/x-own", b"ab")
    assert response.closed == 1


def test_a_wsgi_response_that_fails_is_a_500(log):
    class Failing(WsgiResponse):
        def __call__(self, environ, start_response):
            raise RuntimeError("out of order")

    answer = call(returning(Failing()), HTTP_X_CALL_ID="id-7")
    assert answer.status == 500 and "id-7" in answer.text
    assert "out of order" in log.getvalue()


def test_a_wsgi_response_that_fails_after_its_start_is_one_500(log):
    class Failing(WsgiResponse):
        def __call__(self, environ, start_response):
            super().__call__(environ, start_response)
            raise RuntimeError("out of order")

    with serving(returning(Failing())) as server:
        answer = server.get(X_Call_Id="id-7")
    assert answer.status == 500 and "id-7" in answer.text
    assert log.getvalue().count("ERROR") == 1
    assert "out of order" in log.getvalue()


# -- on the wire --


def test_materialised_bodies_have_a_content_length():
    for result in ("grüße", b"abc", {"a": 1}, [1], ("x", 404), {"statusCode": 200, "body": "x"}, 5):
        with serving(returning(result)) as server:
            answer = server.get()
        assert answer.header("Content-Length") == str(len(answer.body))
        assert answer.header("Transfer-Encoding") is None


def test_none_has_no_content_length():
    with serving(returning(None)) as server:
        answer = server.get()
    assert (answer.status, answer.header("Content-Length"), answer.header("Content-Type")) == (204, None, None)


def test_json_is_the_same_without_the_encoder_of_cpython(monkeypatch):
    value = {"text": 'é\u2028"', "list": [1, 2.5, None, True], "date": datetime.date(2024, 2, 29), "set": {1}}
    expected = to_response(value).body
    monkeypatch.setattr("json.encoder.c_make_encoder", None)
    monkeypatch.setattr("watchdog_app.json_codec", watchdog_app.json_codec.__wrapped__)
    assert to_response(value).body == expected
