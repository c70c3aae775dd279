"""What the server refuses: raw bytes -> status, announced end of the connection, and nothing behind it."""

import re
import socket
import struct
from http import HTTPStatus

import pytest
from conftest import read_all, read_answer, read_answers, serving

from watchdog_app import MAX_FIELDS, MAX_LINE

HOST = b"Host: test\r\n"
GOOD = b"GET /good HTTP/1.1\r\nHost: test\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
PATIENCE = 3.0  # seconds in which a refusal, which needs no more bytes, has come
ERROR_FIELDS = {"Date", "Server", "Content-Type", "X-Content-Type-Options", "Content-Length"}
WHOLE, BYTE_BY_BYTE = 0, 1
DELIVERIES = [pytest.param(WHOLE, id="whole"), pytest.param(BYTE_BY_BYTE, id="byte by byte")]


class Recorded:
    """A server, and the calls that its function got."""

    def __init__(self, server, calls):
        self.server, self.calls = server, calls

    def talk(self, raw, slices=WHOLE):
        """Send `raw` and leave our side open; return what comes until the server ends the connection of its own accord."""
        with self.server.connect() as sock:
            sock.settimeout(PATIENCE)
            send(sock, raw, slices)
            return read_all(sock)


def send(sock, raw, slices=WHOLE):
    """Send `raw` whole or in slices; leave it when the server closes before its end."""
    try:
        for start in range(0, len(raw), slices or len(raw)):
            sock.sendall(raw[start : start + (slices or len(raw))])
    except OSError:
        pass


@pytest.fixture(scope="module")
def recorded():
    calls = []

    def handle(event, context):
        calls.append((event.method, event.path, bytes(event.body)))
        return "called"

    with serving(handle, max_head="4KB", max_body="1KB") as server:
        yield Recorded(server, calls)


@pytest.fixture
def service(recorded):
    recorded.calls.clear()
    return recorded


def get(*fields, line=b"GET / HTTP/1.1", host=HOST):
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def post(framing, body=b"", line=b"POST / HTTP/1.1"):
    return get(framing, line=line) + body


def chunked(body):
    return post(b"Transfer-Encoding: chunked", body)


def check_refusal(answer, status, closes=True):
    phrase = HTTPStatus(status).phrase
    assert (answer.status, answer.text) == (status, f"{phrase}\n")
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Connection") == ("close" if closes else None)
    assert {name for name, _ in answer.headers} == ERROR_FIELDS | ({"Connection"} if closes else set())


def only_answer(data, method="GET"):
    answer, rest = read_answer(data, method)
    assert not rest, f"bytes behind the answer: {rest!r}"
    return answer


def check_refused(service, raw, status, slices):
    """Check that `raw` is refused as it stands, before a good request and behind one, and that no function is called for it or behind it."""
    check_refusal(only_answer(service.talk(raw, slices)), status)
    check_refusal(only_answer(service.talk(raw + GOOD, slices)), status)
    assert service.calls == []
    first, second = read_answers(service.talk(GOOD + raw + GOOD, slices))
    assert (first.status, first.body) == (200, b"called")
    check_refusal(second, status)
    assert service.calls == [("GET", "/good", b"")]


# -- the request line --

REQUEST_LINES = [
    pytest.param(b"A" * 33 + b" / HTTP/1.1", 501, id="method too long"),
    pytest.param(b"CONNECT test:443 HTTP/1.1", 501, id="CONNECT"),
    pytest.param(b"CONNECT / HTTP/1.1", 501, id="CONNECT with a path"),
    pytest.param(b"TRACE / HTTP/1.1", 501, id="TRACE"),
    pytest.param(b"TRACE / HTTP/1.0", 501, id="TRACE on 1.0"),
    pytest.param(b"G(T / HTTP/1.1", 400, id="method that is no token"),
    pytest.param(b"G\xc9T / HTTP/1.1", 400, id="method that is not ascii"),
    pytest.param(b"GET / HTTP/0.9", 505, id="0.9"),
    pytest.param(b"GET / HTTP/2.0", 505, id="2.0"),
    pytest.param(b"GET / HTTP/9.9", 505, id="9.9"),
    pytest.param(b"GET / HTTP/2", 400, id="2"),
    pytest.param(b"GET / HTTP/1.10", 400, id="1.10"),
    pytest.param(b"GET / HTTP/01.1", 400, id="01.1"),
    pytest.param(b"GET / HTTP/1.", 400, id="no minor version"),
    pytest.param(b"GET / HTTP/1,1", 400, id="comma in the version"),
    pytest.param(b"GET / HTTP/1.\xb9", 400, id="superscript in the version"),
    pytest.param(b"GET / HTTP/+1.1", 400, id="plus in the version"),
    pytest.param(b"GET / http/1.1", 400, id="small letters in the version"),
    pytest.param(b"GET / HTTPS/1.1", 400, id="another protocol"),
    pytest.param(b"GET /", 400, id="no version"),
    pytest.param(b"GET / ", 400, id="empty version"),
    pytest.param(b"GET HTTP/1.1", 400, id="no target"),
    pytest.param(b"GET  HTTP/1.1", 400, id="empty target"),
    pytest.param(b"GET", 400, id="method alone"),
    pytest.param(b" GET / HTTP/1.1", 400, id="space before the method"),
    pytest.param(b" / HTTP/1.1", 400, id="no method"),
    pytest.param(b"GET  / HTTP/1.1", 400, id="two spaces before the target"),
    pytest.param(b"GET /  HTTP/1.1", 400, id="two spaces behind the target"),
    pytest.param(b"GET / HTTP/1.1 ", 400, id="space behind the version"),
    pytest.param(b"GET\t/ HTTP/1.1", 400, id="tab for a space"),
    pytest.param(b"GET /\tHTTP/1.1", 400, id="tab behind the target"),
    pytest.param(b"GET\xa0/ HTTP/1.1", 400, id="no-break space for a space"),
    pytest.param(b"GET /a b HTTP/1.1", 400, id="space in the target"),
    pytest.param(b"GET /a\tb HTTP/1.1", 400, id="tab in the target"),
    pytest.param(b"GET a HTTP/1.1", 400, id="relative target"),
    pytest.param(b"GET ?a HTTP/1.1", 400, id="query for a target"),
    pytest.param(b"GET * HTTP/1.1", 400, id="asterisk without OPTIONS"),
    pytest.param(b"OPTIONS ** HTTP/1.1", 400, id="two asterisks"),
    pytest.param(b"GET test:443 HTTP/1.1", 400, id="authority without CONNECT"),
    pytest.param(b"GET http:// HTTP/1.1", 400, id="empty authority"),
    pytest.param(b"GET http:///a HTTP/1.1", 400, id="empty host"),
    pytest.param(b"GET http://:80/a HTTP/1.1", 400, id="port without host"),
    pytest.param(b"GET http:/a HTTP/1.1", 400, id="one slash"),
    pytest.param(b"GET http://a@b/ HTTP/1.1", 400, id="user in the authority"),
    pytest.param(b"GET http://a:b/ HTTP/1.1", 400, id="port that is no number"),
    pytest.param(b"GET http://[::1/ HTTP/1.1", 400, id="bracket not closed"),
    pytest.param(b"GET http://a\\b/ HTTP/1.1", 400, id="backslash in the authority"),
]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(("line", "status"), REQUEST_LINES)
def test_a_wrong_request_line_is_refused(service, line, status, slices):
    check_refused(service, get(line=line), status, slices)


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\r\n" * 10 + get(), id="many blank lines"),
        pytest.param(b"\n" + get(), id="LF before"),
        pytest.param(b"\r" + get(), id="CR before"),
        pytest.param(get().replace(b"\r\n", b"\n"), id="LF alone for every line end"),
        pytest.param(get().replace(b"\r\n", b"\r"), id="CR alone for every line end"),
        pytest.param(get(b"A: b").replace(b"b\r\n", b"b\n"), id="LF alone for one line end"),
        pytest.param(get(b"A: b").replace(b"b\r\n", b"b\r"), id="CR alone for one line end"),
        pytest.param(get(b"A: b")[:-2] + b"\n", id="LF alone at the end"),
        pytest.param(b"GET /\r\n\r\n", id="a request of HTTP/0.9"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\n\nSM\n\n", id="LF alone in HTTP/2's preface"),
    ],
)
def test_what_is_not_lines_is_refused(service, raw, slices):
    check_refused(service, raw, 400, slices)


@pytest.mark.parametrize("slices", DELIVERIES)
def test_http_2s_preface_is_refused(service, slices):
    check_refused(service, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, slices)


# -- bytes that no head may hold --

POSITIONS = [
    pytest.param(b"%bGET / HTTP/1.1\r\nHost: a\r\n\r\n", id="before the method"),
    pytest.param(b"G%bET / HTTP/1.1\r\nHost: a\r\n\r\n", id="in the method"),
    pytest.param(b"GET %b/ HTTP/1.1\r\nHost: a\r\n\r\n", id="before the target"),
    pytest.param(b"GET /a%bb HTTP/1.1\r\nHost: a\r\n\r\n", id="in the target"),
    pytest.param(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n", id="behind the target"),
    pytest.param(b"GET / HTTP/1%b.1\r\nHost: a\r\n\r\n", id="in the version"),
    pytest.param(b"GET / HTTP/1.1%b\r\nHost: a\r\n\r\n", id="behind the version"),
    pytest.param(b"GET / HTTP/1.1\r\n%bHost: a\r\n\r\n", id="before a name"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nA%bB: c\r\n\r\n", id="in a name"),
    pytest.param(b"GET / HTTP/1.1\r\nHost%b: a\r\n\r\n", id="behind a name"),
    pytest.param(b"GET / HTTP/1.1\r\nHost:%ba\r\n\r\n", id="before a value"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nA: b%bc\r\n\r\n", id="in a value"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nA: b%b\r\n\r\n", id="behind a value"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n", id="behind the fields"),
]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("byte", [b"\0", b"\x08", b"\n", b"\x0b", b"\x0c", b"\r", b"\x0e", b"\x1f", b"\x7f"], ids=ascii)
@pytest.mark.parametrize("raw", POSITIONS)
def test_a_forbidden_byte_anywhere_in_a_head_is_refused(service, raw, byte, slices):
    check_refused(service, raw % byte, 400, slices)


# -- fields --

FIELDS = [
    pytest.param(get(b"A"), id="no colon"),
    pytest.param(get(b"A", b"Content-Length: 0"), id="no colon, then a length"),
    pytest.param(get(b"Content-Length"), id="length without colon"),
    pytest.param(get(b": b"), id="empty name"),
    pytest.param(get(b":"), id="colon alone"),
    pytest.param(get(b"A : b"), id="space before the colon"),
    pytest.param(get(b"A\t: b"), id="tab before the colon"),
    pytest.param(get(b"Content-Length : 0"), id="space before a length's colon"),
    pytest.param(get(b"Transfer-Encoding : chunked") + b"0\r\n\r\n", id="space before a coding's colon"),
    pytest.param(get(b"A: b", b" c"), id="folded with a space"),
    pytest.param(get(b"A: b", b"\tc"), id="folded with a tab"),
    pytest.param(get(b"A: b", b" "), id="line of a space"),
    pytest.param(get(b" A: b", host=b""), id="space before the first name"),
    pytest.param(get(b"A: b", b" Content-Length: 5"), id="space before a length"),
    pytest.param(get(b"A B: c"), id="space in a name"),
    pytest.param(get(b"A(B): c"), id="parentheses in a name"),
    pytest.param(get(b"\xe9: c"), id="name that is not ascii"),
    pytest.param(get(b"Content-Length\xa0: 5"), id="no-break space behind a name"),
    pytest.param(get(host=b""), id="no host"),
    pytest.param(get(line=b"GET / HTTP/1.5", host=b""), id="no host on 1.5"),
    pytest.param(get(line=b"GET http://a/ HTTP/1.1", host=b""), id="no host with an absolute target"),
    pytest.param(get(line=b"GET http://a/ HTTP/1.1", host=HOST + HOST), id="two hosts with an absolute target"),
    pytest.param(get(HOST[:-2]), id="two equal hosts"),
    pytest.param(get(b"host: other"), id="two hosts"),
    pytest.param(get(HOST[:-2], line=b"GET / HTTP/1.0"), id="two hosts on 1.0"),
    pytest.param(get(host=b"Host:\r\n"), id="empty host"),
    pytest.param(get(host=b"Host: a b\r\n"), id="space in the host"),
    pytest.param(get(host=b"Host: a/b\r\n"), id="slash in the host"),
    pytest.param(get(host=b"Host: a@b\r\n"), id="user in the host"),
    pytest.param(get(host=b"Host: a:b\r\n"), id="port that is no number"),
    pytest.param(get(host=b"Host: :80\r\n"), id="port alone"),
    pytest.param(get(host=b"Host: ::1\r\n"), id="ipv6 without brackets"),
    pytest.param(get(host=b"Host: [::1\r\n"), id="bracket not closed"),
    pytest.param(get(host=b"Host: [::g]\r\n"), id="brackets around what is no address"),
    pytest.param(get(host=b"Host: \xe9\r\n"), id="host that is not ascii"),
    pytest.param(get(host=b"Host_: a\r\n"), id="host with an underscore"),
]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("raw", FIELDS)
def test_a_wrong_field_is_refused(service, raw, slices):
    check_refused(service, raw, 400, slices)


# -- framing --

LENGTHS = [
    pytest.param(b"+10", id="plus"),
    pytest.param(b"-10", id="minus"),
    pytest.param(b"0x1", id="hexadecimal"),
    pytest.param(b"1_0", id="underscore"),
    pytest.param(b"\xb2", id="superscript"),
    pytest.param(b"\xd9\xa3", id="arabic digit"),
    pytest.param(b"", id="empty"),
    pytest.param(b"1, 1", id="list of equals"),
    pytest.param(b"1,2", id="list"),
    pytest.param(b"1,", id="comma"),
    pytest.param(b"1;a", id="parameter"),
    pytest.param(b"1 0", id="space"),
    pytest.param(b"1\t0", id="tab"),
    pytest.param(b"10\xa0", id="no-break space"),
    pytest.param(b"1.0", id="point"),
    pytest.param(b"1e1", id="exponent"),
    pytest.param(b'"1"', id="quotes"),
    pytest.param(b"chunked", id="word"),
    pytest.param(b"0" * 20, id="20 zeros"),
    pytest.param(b"1" * 20, id="20 digits"),
    pytest.param(b"1" * 3000, id="3000 digits"),
]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("line", [b"POST / HTTP/1.1", b"POST / HTTP/1.0"], ids=["1.1", "1.0"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_wrong_content_length_is_refused(service, length, line, slices):
    check_refused(service, post(b"Content-Length: " + length, b"0123456789", line), 400, slices)


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("second", [b"1", b"2", b"0", b""])
def test_two_content_lengths_are_refused(service, second, slices):
    check_refused(service, post(b"Content-Length: 1\r\ncontent-length: " + second, b"a"), 400, slices)


CODINGS = [
    pytest.param(b"Transfer-Encoding: gzip", 501, id="gzip"),
    pytest.param(b"Transfer-Encoding: identity", 501, id="identity"),
    pytest.param(b"Transfer-Encoding: xchunked", 501, id="xchunked"),
    pytest.param(b"Transfer-Encoding: chunkedx", 501, id="chunkedx"),
    pytest.param(b"Transfer-Encoding: gzip, chunked", 501, id="gzip, chunked"),
    pytest.param(b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501, id="gzip and chunked on two lines"),
    pytest.param(b"Transfer-Encoding: chunked, gzip", 501, id="chunked, gzip"),
    pytest.param(b"Transfer-Encoding: chunked, identity", 501, id="chunked, identity"),
    pytest.param(b"Transfer-Encoding: chunked, chunked", 400, id="chunked twice"),
    pytest.param(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, id="chunked on two lines"),
    pytest.param(b"Transfer-Encoding:", 400, id="empty"),
    pytest.param(b"Transfer-Encoding: \t ", 400, id="blank"),
    pytest.param(b"Transfer-Encoding: chunked\x0b", 400, id="vertical tab behind"),
    pytest.param(b"Transfer-Encoding: \x0cchunked", 400, id="form feed before"),
    pytest.param(b"Transfer-Encoding:\r\n chunked", 400, id="folded"),
    pytest.param(b"Transfer-Encoding\t: chunked", 400, id="tab before the colon"),
    pytest.param(b" Transfer-Encoding: chunked", 400, id="space before the name"),
    pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400, id="and a length"),
    pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400, id="behind a length"),
    pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: gzip", 400, id="gzip behind a length"),
    pytest.param(b"Content-Length: 5\r\nTransfer-Encoding:", 400, id="empty behind a length"),
    pytest.param(b"Content-Length: x\r\nTransfer-Encoding: chunked", 400, id="behind a wrong length"),
]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(("field", "status"), CODINGS)
def test_another_transfer_encoding_is_refused(service, field, status, slices):
    check_refused(service, post(field, b"5\r\nhello\r\n0\r\n\r\n"), status, slices)


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(
    "coding",
    [b"ch unked", b"chunked;a=b", b'"chunked"', b"chunked,", b",chunked", b"chunked\xa0", b"\x85chunked"],
    ids=ascii,
)
def test_what_is_nearly_chunked_is_refused(service, coding, slices):
    raw = post(b"Transfer-Encoding: " + coding, b"0\r\n\r\n")
    answer = only_answer(service.talk(raw + GOOD, slices))
    assert answer.status in (400, 501)
    check_refusal(answer, answer.status)
    assert service.calls == []


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("coding", [b"chunked", b"gzip", b"identity", b""], ids=ascii)
def test_a_transfer_encoding_on_1_0_is_refused(service, coding, slices):
    check_refused(
        service, post(b"Transfer-Encoding: " + coding, b"5\r\nhello\r\n0\r\n\r\n", b"POST / HTTP/1.0"), 400, slices
    )


# -- chunks --

CHUNKS = [
    pytest.param(b"\r\n", 400, id="no size"),
    pytest.param(b"+5\r\nhello\r\n", 400, id="size with plus"),
    pytest.param(b"-5\r\nhello\r\n", 400, id="size with minus"),
    pytest.param(b"0x5\r\nhello\r\n", 400, id="size with 0x"),
    pytest.param(b"1_0\r\n0123456789abcdef\r\n", 400, id="size with underscore"),
    pytest.param(b"\xb2\r\nhe\r\n", 400, id="size that is a superscript"),
    pytest.param(b"xyz\r\nhello\r\n", 400, id="size that is no number"),
    pytest.param(b" 5\r\nhello\r\n", 400, id="space before the size"),
    pytest.param(b"5 \r\nhello\r\n", 400, id="space behind the size"),
    pytest.param(b"0" * 16 + b"5\r\nhello\r\n", 400, id="size of seventeen digits"),
    pytest.param(b"5\nhello\r\n", 400, id="LF alone behind the size"),
    pytest.param(b"5\rhello\r\n", 400, id="CR alone behind the size"),
    pytest.param(b"5;\n\r\nhello\r\n", 400, id="LF in an extension"),
    pytest.param(b"5;a\rb\r\nhello\r\n", 400, id="CR in an extension"),
    pytest.param(b"5;\0\r\nhello\r\n", 400, id="NUL in an extension"),
    pytest.param(b"5;" + b"x" * 300 + b"\r\nhello\r\n", 400, id="long extension"),
    pytest.param(b"5;" + b"x" * 300, 400, id="extension without end"),
    pytest.param(b"5\r\nhelloworld\r\n", 400, id="chunk longer than its size"),
    pytest.param(b"5\r\nhello0\r\n\r\n", 400, id="no CRLF behind a chunk"),
    pytest.param(b"5\r\nhello\n0\r\n\r\n", 400, id="LF alone behind a chunk"),
    pytest.param(b"5\r\nhello\r0\r\n\r\n", 400, id="CR alone behind a chunk"),
    pytest.param(b"0\r\nA\r\n\r\n", 400, id="trailer without colon"),
    pytest.param(b"0\r\n: b\r\n\r\n", 400, id="trailer without name"),
    pytest.param(b"0\r\nA : b\r\n\r\n", 400, id="space before a trailer's colon"),
    pytest.param(b"0\r\nA: b\r\n c\r\n\r\n", 400, id="folded trailer"),
    pytest.param(b"0\r\nA: \0\r\n\r\n", 400, id="NUL in a trailer"),
    pytest.param(b"0\r\nA: b\n\r\n", 400, id="LF alone behind a trailer"),
    pytest.param(b"0\r\nA: b\rc\r\n\r\n", 400, id="CR in a trailer"),
    pytest.param(b"0\r\n\n", 400, id="LF alone at the end"),
    pytest.param(b"0\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n", 431, id="too many trailers"),
    pytest.param(b"0\r\nA: " + b"x" * 5000 + b"\r\n\r\n", 431, id="long trailer"),
    pytest.param(b"0\r\nA: " + b"x" * 5000, 431, id="trailer without end"),
    pytest.param(b"0\r\n" + (b"A: " + b"x" * 95 + b"\r\n") * 50 + b"\r\n", 431, id="trailers of too many bytes"),
    pytest.param(b"401\r\n", 413, id="chunk above the limit"),
    pytest.param(b"FFFFFFFFFFFFFFFF\r\n", 413, id="the largest size"),
    pytest.param((b"100\r\n" + b"x" * 256 + b"\r\n") * 4 + b"1\r\n", 413, id="total above the limit"),
    pytest.param(b"1\r\na\r\n" * 1025, 413, id="total of small chunks above the limit"),
]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(("body", "status"), CHUNKS)
def test_wrong_chunks_are_refused(service, body, status, slices):
    check_refused(service, chunked(body), status, slices)


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(
    ("body", "content"),
    [
        pytest.param(b"400;a=b\r\n" + b"x" * 1024 + b"\r\n0\r\nA: b\r\n\r\n", b"x" * 1024, id="chunk at the limit"),
        pytest.param(b"1\r\na\r\n" * 1024 + b"0\r\n\r\n", b"a" * 1024, id="total at the limit"),
        pytest.param(b"0\r\n" + b"A: b\r\n" * MAX_FIELDS + b"\r\n", b"", id="most trailers"),
    ],
)
def test_chunks_within_the_limits_are_accepted(service, body, content, slices):
    answers = read_answers(service.talk(chunked(body) + LAST, slices))
    assert [answer.status for answer in answers] == [200, 200]
    assert service.calls == [("POST", "/", content), ("GET", "/last", b"")]


# -- limits --

LARGE = [
    pytest.param(get(b"A: " + b"x" * 5000), 431, id="long field"),
    pytest.param(get(b"A: b")[:-2] + b"B: " + b"x" * 5000, 431, id="field without end"),
    pytest.param(get(*[b"A: " + b"x" * 95] * 50), 431, id="fields of too many bytes"),
    pytest.param(get(*[b"A:b"] * MAX_FIELDS), 431, id="too many fields"),
    pytest.param(post(b"Content-Length: 1025"), 413, id="declared length above the limit"),
    pytest.param(post(b"Content-Length: 1025", b"x" * 1025), 413, id="body above the limit"),
    pytest.param(post(b"Content-Length: " + b"9" * 19), 413, id="the largest length"),
    pytest.param(
        post(b"Content-Length: 1025", line=b"POST / HTTP/1.0"), 413, id="declared length above the limit on 1.0"
    ),
    pytest.param(
        post(b"Expect: 100-continue\r\nContent-Length: 1025"),
        413,
        id="declared length above the limit with an expectation",
    ),
]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(("raw", "status"), LARGE)
def test_what_is_too_large_is_refused(service, raw, status, slices):
    check_refused(service, raw, status, slices)


@pytest.mark.parametrize("slices", [WHOLE, 1000])
@pytest.mark.parametrize("end", [b" HTTP/1.1\r\n" + HOST + b"\r\n", b""], ids=["complete", "without end"])
def test_a_request_line_that_is_too_long_is_refused(service, end, slices):
    check_refused(service, b"GET /" + b"a" * MAX_LINE + end, 414, slices)


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(get(*[b"A:b"] * (MAX_FIELDS - 1)), id="most fields"),
        pytest.param(get(b"A: " + b"x" * (4096 - len(get(b"A: ")) + 4)), id="longest head"),
        pytest.param(get(line=b"A" * 32 + b" / HTTP/1.1"), id="longest method"),
        pytest.param(post(b"Content-Length: 1024", b"x" * 1024), id="longest body"),
    ],
)
def test_what_is_as_large_as_may_be_is_accepted(service, raw, slices):
    answers = read_answers(service.talk(raw + LAST, slices))
    assert [answer.status for answer in answers] == [200, 200]
    assert len(service.calls) == 2


# -- expectations --


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("expectation", [b"200-ok", b"100-continue, x", b"100-continue;a", b"x"], ids=ascii)
def test_an_unknown_expectation_without_a_body_is_refused_and_the_connection_kept(service, expectation, slices):
    refused, last = read_answers(service.talk(get(b"Expect: " + expectation) + LAST, slices))
    check_refusal(refused, 417, closes=False)
    assert last.status == 200
    assert service.calls == [("GET", "/last", b"")]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(post(b"Expect: x\r\nContent-Length: 37", GOOD), id="length"),
        pytest.param(post(b"Expect: x\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), id="chunked"),
        pytest.param(get(b"Expect: x", b"Connection: close"), id="no body, but close"),
    ],
)
def test_an_unknown_expectation_with_a_body_ends_the_connection(service, raw, slices):
    check_refused(service, raw, 417, slices)


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("expectation", [b"100-continue", b"x"])
def test_an_expectation_on_1_0_is_ignored(service, expectation, slices):
    raw = post(b"Content-Length: 5\r\nExpect: " + expectation, b"hello", b"POST / HTTP/1.0")
    assert only_answer(service.talk(raw, slices)).status == 200
    assert service.calls == [("POST", "/", b"hello")]


FRAMINGS = [
    pytest.param(b"Content-Length: 5", b"hello", id="length"),
    pytest.param(b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", id="chunked"),
]


def continued(sock, raw):
    """Send a head; return what comes up to the end of the first answer."""
    sock.settimeout(PATIENCE)
    sock.sendall(raw)
    return read_until(sock, b"100 Continue\r\n\r\n")


def read_until(sock, end):
    data = b""
    while not data.endswith(end):
        piece = sock.recv(65536)
        assert piece, f"ended after {data!r}"
        data += piece
    return data


@pytest.mark.parametrize(("framing", "body"), FRAMINGS)
def test_a_peer_that_waits_gets_a_100(service, framing, body):
    with service.server.connect() as sock:
        assert continued(sock, post(framing + b"\r\nExpect: 100-continue")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert service.calls == []
        sock.sendall(body + LAST)
        assert [answer.status for answer in read_answers(read_all(sock))] == [200, 200]
    assert service.calls == [("POST", "/", b"hello"), ("GET", "/last", b"")]


@pytest.mark.parametrize(
    "twice",
    [b"Expect: 100-continue, 100-continue", b"Expect: 100-continue\r\nExpect: 100-continue"],
    ids=["list", "fields"],
)
def test_a_peer_that_says_twice_that_it_waits_gets_one_100(service, twice):
    with service.server.connect() as sock:
        assert continued(sock, post(twice + b"\r\nContent-Length: 5")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello" + LAST)
        assert [answer.status for answer in read_answers(read_all(sock))] == [200, 200]


@pytest.mark.parametrize("slices", DELIVERIES)
def test_an_empty_expectation_is_none(service, slices):
    answers = read_answers(service.talk(post(b"Content-Length: 5\r\nExpect:", b"hello") + LAST, slices))
    assert [answer.status for answer in answers] == [200, 200]
    assert service.calls == [("POST", "/", b"hello"), ("GET", "/last", b"")]


def test_a_peer_that_waits_behind_another_request_gets_a_100(service):
    with service.server.connect() as sock:
        data = continued(sock, GOOD + post(b"Content-Length: 5\r\nExpect: 100-continue"))
        assert [answer.status for answer in read_answers(data)] == [200, 100]
        sock.sendall(b"hello" + LAST)
        assert [answer.status for answer in read_answers(read_all(sock))] == [200, 200]


@pytest.mark.parametrize("arrived", [1, 3, 5])
@pytest.mark.parametrize(("framing", "body"), FRAMINGS)
def test_a_peer_that_did_not_wait_gets_no_100(service, framing, body, arrived):
    with service.server.connect() as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(post(framing + b"\r\nExpect: 100-continue", body[:arrived]))
        sock.sendall(body[arrived:] + LAST)
        assert [answer.status for answer in read_answers(read_all(sock))] == [200, 200]
    assert service.calls[0] == ("POST", "/", b"hello")


@pytest.mark.parametrize("slices", DELIVERIES)
def test_a_peer_that_waits_without_a_body_gets_no_100(service, slices):
    answers = read_answers(service.talk(get(b"Expect: 100-continue") + LAST, slices))
    assert [answer.status for answer in answers] == [200, 200]


# -- HEAD --


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(post(b"Content-Length: 1025"), 413, id="too large"),
        pytest.param(post(b"Expect: x\r\nContent-Length: 1"), 417, id="expectation"),
        pytest.param(chunked(b"x\r\n"), 400, id="wrong chunk"),
        pytest.param(chunked(b"401\r\n"), 413, id="chunk too large"),
        pytest.param(get(host=b""), 400, id="no host"),
        pytest.param(get(b"A"), 400, id="no colon"),
        pytest.param(post(b"Content-Length: x"), 400, id="wrong length"),
        pytest.param(post(b"Transfer-Encoding: gzip"), 501, id="gzip"),
        pytest.param(get(*[b"A:b"] * MAX_FIELDS), 431, id="too many fields"),
    ],
)
def test_a_refusal_of_head_has_no_body(service, raw, status, slices):
    raw = re.sub(rb"^[A-Z]+", b"HEAD", raw)
    answer = only_answer(service.talk(raw + GOOD, slices), "HEAD")
    assert (answer.status, answer.closes) == (status, True)
    assert answer.header("Content-Length") == str(len(HTTPStatus(status).phrase) + 1)


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("before", [GOOD, b"\r\n"], ids=["another request", "a blank line"])
def test_a_refusal_of_head_has_no_body_behind(service, before, slices):
    data = service.talk(before + get(host=b"", line=b"HEAD / HTTP/1.1"), slices)
    if before == GOOD:
        _, data = read_answer(data)
    assert only_answer(data, "HEAD").status == 400


# -- what is cut --

TRUNCATED = [
    pytest.param(post(b"Content-Length: 5", b"hell"), id="length"),
    pytest.param(post(b"Content-Length: 5"), id="length, no byte"),
    pytest.param(post(b"Content-Length: 5", b"hell", b"POST / HTTP/1.0"), id="length on 1.0"),
    pytest.param(chunked(b""), id="no chunk"),
    pytest.param(chunked(b"5"), id="in a size"),
    pytest.param(chunked(b"5\r\nhell"), id="in a chunk"),
    pytest.param(chunked(b"5\r\nhello"), id="behind a chunk"),
    pytest.param(chunked(b"5\r\nhello\r\n"), id="no last chunk"),
    pytest.param(chunked(b"5\r\nhello\r\n0\r\n"), id="no end of the trailers"),
    pytest.param(chunked(b"5\r\nhello\r\n0\r\nA: b\r\n"), id="trailer and no end"),
]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("raw", TRUNCATED)
def test_a_truncated_body_never_reaches_the_function(service, raw, slices):
    check_refusal(only_answer(service.server.talk(raw, slices)), 400)
    assert service.calls == []


@pytest.mark.parametrize("raw", TRUNCATED)
def test_a_body_cut_by_a_reset_never_reaches_the_function(service, raw):
    with service.server.connect() as sock:
        sock.sendall(raw)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert only_answer(service.talk(LAST)).status == 200
    assert service.calls == [("GET", "/last", b"")]


@pytest.mark.parametrize("slices", DELIVERIES)
@pytest.mark.parametrize("raw", [b"G", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\n", GOOD[:-2], GOOD[:-1]], ids=ascii)
def test_a_truncated_head_is_refused(service, raw, slices):
    check_refusal(only_answer(service.server.talk(raw, slices)), 400)
    assert service.calls == []


@pytest.mark.parametrize("raw", [b"\r\n", b"\r\n\r\n"], ids=ascii)
def test_blank_lines_alone_get_no_answer(service, raw):
    assert service.server.talk(raw) == b""


# -- what an error answer says --


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(get(line=b"GET /<script>secret HTTP/9.9"), id="target"),
        pytest.param(get(b"secret value"), id="field"),
        pytest.param(get(host=b"Host: <secret>\r\n"), id="host"),
        pytest.param(post(b"Transfer-Encoding: secret"), id="coding"),
        pytest.param(chunked(b"secret\r\n"), id="chunk"),
        pytest.param(get(b"Expect: secret", b"Connection: close"), id="expectation"),
        pytest.param(b"secret\0", id="method"),
    ],
)
def test_an_error_answer_holds_nothing_of_the_request(service, raw):
    data = service.talk(raw)
    assert b"secret" not in data
    check_refusal(only_answer(data), read_answer(data)[0].status)


def test_a_refusal_reaches_a_peer_that_goes_on_sending(service):
    with service.server.connect() as sock:
        sock.settimeout(PATIENCE)
        send(sock, post(b"Content-Length: 4000000") + b"x" * 4_000_000)
        check_refusal(only_answer(read_all(sock)), 413)


def test_the_server_is_well_after_all_this(service):
    assert only_answer(service.talk(LAST)).body == b"called"
