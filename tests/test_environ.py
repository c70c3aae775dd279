"""Request -> environ, as PEP 3333 has it."""

import os
import sys
from io import BytesIO
from wsgiref.validate import validator

import pytest
from conftest import read_answers, serving_application

from watchdog_app import RequestReader, base_environ, build_environ

BASE = base_environ("127.0.0.1", 5000)
MINIMAL = {
    "REMOTE_ADDR", "QUERY_STRING", "PATH_INFO", "REQUEST_METHOD", "REQUEST_URI", "SCRIPT_NAME", "SERVER_NAME", "SERVER_PORT",
    "SERVER_PROTOCOL", "SERVER_SOFTWARE", "wsgi.errors", "wsgi.input", "wsgi.input_terminated",
    "wsgi.multiprocess", "wsgi.multithread", "wsgi.run_once", "wsgi.url_scheme", "wsgi.version",
}  # fmt: skip


def environ_of(*fields, line="GET / HTTP/1.1", host="Host: test", body=b""):
    """Return the environ of one request."""
    lines = [line, *([host] if host else []), *fields, "", ""]
    request = RequestReader(1 << 18, 1 << 20).receive("\r\n".join(lines).encode("latin-1") + body)
    return build_environ(request, BASE, "10.0.0.1")


def test_the_smallest_request_has_these_keys_and_no_others():
    assert environ_of(line="GET / HTTP/1.0", host="").keys() == MINIMAL


def test_nothing_of_the_process_environment_is_in_it(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_PROCESS", "x")
    environ = environ_of()
    assert environ.keys().isdisjoint(os.environ)


def test_the_variables_of_a_request():
    environ = environ_of(
        "Content-Length: 5", "Content-Type: text/plain", "X-Call-Id: 7", line="POST /a/b?c=d&e HTTP/1.1", body=b"hello"
    )
    expected = {
        "REQUEST_METHOD": "POST", "REQUEST_URI": "/a/b?c=d&e", "SCRIPT_NAME": "", "PATH_INFO": "/a/b", "QUERY_STRING": "c=d&e", "CONTENT_LENGTH": "5",
        "CONTENT_TYPE": "text/plain", "HTTP_HOST": "test", "HTTP_X_CALL_ID": "7", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "5000",
        "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "10.0.0.1",
    }  # fmt: skip
    assert {key: environ[key] for key in expected} == expected


def test_the_types_are_exactly_those_of_pep_3333():
    environ = environ_of("A: \xe9", line="GET /%C3%A9?\xe9 HTTP/1.1")
    assert type(environ) is dict
    assert all(type(key) is str for key in environ)
    assert all(type(value) is str for key, value in environ.items() if not key.startswith("wsgi."))
    assert all(
        type(environ[key]) is bool
        for key in ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "wsgi.input_terminated")
    )
    assert (environ["wsgi.version"], environ["wsgi.url_scheme"]) == ((1, 0), "http")
    assert environ["wsgi.errors"] is sys.stderr


def test_all_text_can_be_encoded_as_latin_1():
    environ = environ_of("A: \xe9\xff", line="GET /%E2%82%AC%E9?%FF HTTP/1.1")
    for value in environ.values():
        if type(value) is str:
            value.encode("latin-1")


@pytest.mark.parametrize("multithread", [True, False])
def test_whether_calls_run_beside_each_other_is_the_servers_to_say(multithread):
    assert base_environ("127.0.0.1", 5000, multithread)["wsgi.multithread"] is multithread


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        pytest.param("/", "/", "", id="root"),
        pytest.param("/a/b", "/a/b", "", id="plain"),
        pytest.param("/a?", "/a", "", id="empty query"),
        pytest.param("/a?b=c%20d+e", "/a", "b=c%20d+e", id="query is not decoded"),
        pytest.param("/a?b?c", "/a", "b?c", id="question mark in the query"),
        pytest.param("/a%20b", "/a b", "", id="space"),
        pytest.param("/a+b", "/a+b", "", id="plus"),
        pytest.param("/a%2Fb", "/a/b", "", id="slash"),
        pytest.param("/a%2fb%3Fc", "/a/b?c", "", id="question mark in the path"),
        pytest.param("/%C3%A9", "/\xc3\xa9", "", id="utf-8 as latin-1"),
        pytest.param("/%E9", "/\xe9", "", id="latin-1"),
        pytest.param("/%2525", "/%25", "", id="decoded once"),
        pytest.param("/%zz%4%", "/%zz%4%", "", id="wrong percent"),
        pytest.param("//a//b/../c", "//a//b/../c", "", id="not normalised"),
        pytest.param("/a://b/c", "/a://b/c", "", id="like a scheme"),
        pytest.param("http://other/a%20b?c", "/a b", "c", id="absolute"),
        pytest.param("http://other", "/", "", id="absolute without path"),
        pytest.param("http://other?a=/b", "/", "a=/b", id="absolute with query alone"),
        pytest.param("http://other/a://b/c", "/a://b/c", "", id="absolute, then like a scheme"),
        pytest.param("HTTPS://[::1]:80/a", "/a", "", id="absolute with ipv6"),
    ],
)
def test_path_and_query_of_a_target(target, path, query):
    environ = environ_of(line=f"GET {target} HTTP/1.1")
    assert (environ["REQUEST_URI"], environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["QUERY_STRING"]) == (
        target,
        "",
        path,
        query,
    )


def test_an_asterisk_is_seen_in_the_raw_target():
    environ = environ_of(line="OPTIONS * HTTP/1.1")
    assert (environ["REQUEST_URI"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("*", "/", "")


def test_the_authority_of_an_absolute_target_is_the_host():
    assert environ_of(line="GET http://other:81/ HTTP/1.1")["HTTP_HOST"] == "other:81"


@pytest.mark.parametrize(("version", "protocol"), [("1.0", "HTTP/1.0"), ("1.1", "HTTP/1.1"), ("1.5", "HTTP/1.1")])
def test_the_protocol_is_the_one_that_is_spoken(version, protocol):
    assert environ_of(line=f"GET / HTTP/{version}")["SERVER_PROTOCOL"] == protocol


def test_names_that_would_pass_for_others_are_not_in_it():
    fields = ["X_Call_Id: 1", "Proxy: 2", "Content_Length: 3", "Content_Type: 4", "REMOTE_ADDR: 5", "wsgi.input_: 6"]
    assert environ_of(*fields).keys() == MINIMAL | {"HTTP_HOST"}


def test_a_field_cannot_replace_a_variable():
    environ = environ_of("Remote-Addr: x", "Wsgi.Input: x", "Request-Method: x", "Path-Info: x", "HTTP-Host: x")
    assert (environ["REMOTE_ADDR"], environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["HTTP_HOST"]) == (
        "10.0.0.1",
        "GET",
        "/",
        "test",
    )
    assert type(environ["wsgi.input"]) is BytesIO


def test_repeated_fields_are_joined_and_their_values_kept_apart():
    environ = environ_of("A: b", "A: c", "Cookie: d", "Cookie: e")
    assert (environ["HTTP_A"], environ["HTTP_COOKIE"]) == ("b, c", "d; e")
    assert environ["of_python.repeated"] == {"HTTP_A": ["b", "c"], "HTTP_COOKIE": ["d", "e"]}


def test_a_chunked_body_has_its_length_and_an_input_that_ends():
    environ = environ_of(
        "Transfer-Encoding: chunked", line="POST / HTTP/1.1", body=b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"
    )
    assert environ["CONTENT_LENGTH"] == "5"
    assert "HTTP_TRANSFER_ENCODING" not in environ
    assert environ["wsgi.input_terminated"] is True
    assert (environ["wsgi.input"].read(), environ["wsgi.input"].read()) == (b"hello", b"")


def test_each_environ_is_a_dictionary_of_its_own():
    environ_of()["SCRIPT_NAME"] = "/changed"
    assert (environ_of()["SCRIPT_NAME"], BASE["SCRIPT_NAME"]) == ("", "")


# -- served --

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


def report(environ, start_response):
    """Answer with what came, in the WSGI way."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 1 << 20))
    text = "{REQUEST_METHOD} {PATH_INFO} {QUERY_STRING} {SERVER_PROTOCOL} {REMOTE_ADDR}".format(**environ)
    start_response("200 OK", [("Content-Type", "text/plain; charset=latin-1")])
    return [text.encode("latin-1"), b" ", body]


@pytest.fixture(scope="module")
def server():
    with serving_application(validator(report)) as served:
        yield served


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /  HTTP/1.1 127.0.0.1 ", id="get"),
        pytest.param(
            b"GET /%E9?b=c HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /\xe9 b=c HTTP/1.1 127.0.0.1 ", id="path and query"
        ),
        pytest.param(b"GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /c  HTTP/1.1 127.0.0.1 ", id="absolute"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", b"GET /  HTTP/1.0 127.0.0.1 ", id="1.0"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS /  HTTP/1.1 127.0.0.1 ", id="asterisk"),
        pytest.param(POST + b"Content-Length: 5\r\n\r\nhello", b"POST /  HTTP/1.1 127.0.0.1 hello", id="length"),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"POST /  HTTP/1.1 127.0.0.1 hello",
            id="chunked",
        ),
        pytest.param(
            POST + b"A: b\r\nA: c\r\nA_B: d\r\nProxy: e\r\nX: \xff\r\nContent-Type: x\r\n\r\n",
            b"POST /  HTTP/1.1 127.0.0.1 ",
            id="fields",
        ),
    ],
)
@pytest.mark.parametrize("slices", [0, 1])
def test_wsgirefs_validator_has_no_complaint(server, raw, body, slices, capsys):
    (answer,) = read_answers(server.talk(raw, slices))
    assert (answer.status, answer.body) == (200, body)
    assert capsys.readouterr().err == ""


def test_wsgirefs_validator_has_no_complaint_about_requests_in_a_row(server, capsys):
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi" + b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
    answers = read_answers(server.talk(raw * 3))
    assert [answer.body[:6] for answer in answers] == [b"POST /", b"GET /b"] * 3
    assert capsys.readouterr().err == ""


def test_wsgirefs_validator_has_no_complaint_about_head(server, capsys):
    data = server.talk(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(b"\r\n\r\n")
    assert data.count(b"\r\n\r\n") == 1
    assert capsys.readouterr().err == ""
