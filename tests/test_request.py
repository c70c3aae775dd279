"""Bytes -> Request, without a socket: what is accepted, and what it becomes."""

import gc
import time
from typing import NamedTuple

import pytest

import watchdog_app
from watchdog_app import (
    CACHE_ENTRIES,
    CHUNKED,
    MAX_BLANK_LINES,
    MAX_FIELDS,
    MAX_LINE,
    MAX_METHOD,
    HTTPError,
    RequestReader,
    body_framing,
    keep_alive,
    parse_head,
)

HOST = b"Host: test\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
CONTROLS = sorted({*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F})


def head(*fields, line="GET / HTTP/1.1", host="Host: test"):
    """Return a head without the empty line that ends it."""
    return "\r\n".join([line, *([host] if host else []), *fields]).encode("latin-1")


def refusal_of(raw):
    with pytest.raises(HTTPError) as caught:
        parse_head(raw)
    return caught.value.status


# -- the request line --


@pytest.mark.parametrize(
    "method",
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND",
     "get", "connect", "Trace", "CONNECTED", "M-SEARCH", "!#$%&'*+-.^_`|~", "1", "A" * MAX_METHOD],
)  # fmt: skip
def test_a_method_is_any_token_as_it_was_sent(method):
    assert parse_head(head(line=f"{method} / HTTP/1.1")).method == method


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/", id="root"),
        pytest.param("/a/b.c?d=e&f", id="path and query"),
        pytest.param("//a//b", id="double slashes"),
        pytest.param("/../../etc", id="dots"),
        pytest.param("/%2F%00%zz%", id="percent, right and wrong"),
        pytest.param("/?a?b", id="two question marks"),
        pytest.param("/!\"$&'()*+,;:@[]\\^`{|}~", id="odd ascii"),
        pytest.param("http://other/a?b", id="absolute"),
        pytest.param("HTTPS://other:8080", id="absolute without path"),
        pytest.param("http://[::1]:80?b", id="absolute with ipv6 and query alone"),
    ],
)
def test_a_target_is_kept_raw(target):
    assert parse_head(head(line=f"GET {target} HTTP/1.1")).target == target


@pytest.mark.parametrize("place", ["{}", "/{}", "/a?{}", "http://other{}", "http://other/{}"])
@pytest.mark.parametrize("mark", ["#", "#b", "\x80", "\xe9", "\xff", "\xc3\xbc"], ids=ascii)
def test_what_of_watchdog_reads_in_another_way_is_no_target(mark, place):
    assert refusal_of(head(line=f"GET {place.format(mark)} HTTP/1.1")) == 400


def test_an_asterisk_is_a_target_for_options():
    assert parse_head(head(line="OPTIONS * HTTP/1.1")).target == "*"


@pytest.mark.parametrize(
    ("version", "modern"), [("1.0", False), ("1.1", True), ("1.2", True), ("1.5", True), ("1.9", True)]
)
def test_a_minor_version_above_1_acts_as_1(version, modern):
    request = parse_head(head(line=f"GET / HTTP/{version}"))
    assert (request.modern, request.keep_alive) == (modern, modern)


@pytest.mark.parametrize(
    ("target", "host"),
    [
        pytest.param("http://other/a", "other", id="name"),
        pytest.param("http://other:8080/a", "other:8080", id="port"),
        pytest.param("https://other", "other", id="no path"),
        pytest.param("HTTP://other?a", "other", id="query alone"),
        pytest.param("http://[::1]:80/", "[::1]:80", id="ipv6"),
    ],
)
def test_the_authority_of_an_absolute_target_wins_over_host(target, host):
    assert parse_head(head(line=f"GET {target} HTTP/1.1")).fields["HTTP_HOST"] == host


def test_a_wrong_host_is_refused_with_an_absolute_target_too():
    assert refusal_of(head(line="GET http://other/ HTTP/1.1", host="Host: a b")) == 400


def test_a_missing_host_is_refused_with_an_absolute_target_too():
    assert refusal_of(head(line="GET http://other/ HTTP/1.1", host="")) == 400


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        pytest.param("/", {}, id="origin form"),
        pytest.param("http://other/", {"HTTP_HOST": "other"}, id="absolute form"),
    ],
)
def test_http_1_0_needs_no_host(target, fields):
    assert parse_head(head(line=f"GET {target} HTTP/1.0", host="")).fields == fields


# -- Host --


@pytest.mark.parametrize(
    "host",
    ["a", "a.b-c_d~e", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8080", "[2001:db8::1.2.3.4]",
     "a:", "xn--bcher-kva.example:443", "%41", "a!$&'()*+;="],
)  # fmt: skip
def test_a_host_is_accepted(host):
    assert parse_head(head(host=f"Host: {host}")).fields["HTTP_HOST"] == host


@pytest.mark.parametrize(
    "host",
    ["", ":80", "a b", "a/b", "a?b", "a#b", "a@b", "a\\b", "a:b", "a:8x", "a:-1", "a:80:80", "a:100000",
     "::1", "[::1", "::1]", "[]", "[g::1]", "[:::::]", "[1.2.3.4]", "[.]", "[::1]a", "[::1%25eth0]",
     "%4", "%zz", "a, b", "a,\tb", '"a"', "<a>", "\xe9", "http://a"],
)  # fmt: skip
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_wrong_host_is_refused(host, version):
    assert refusal_of(head(line=f"GET / HTTP/{version}", host=f"Host: {host}")) == 400


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("second", ["test", "other", ""])
def test_two_hosts_are_refused(second, version):
    assert refusal_of(head(f"host: {second}", line=f"GET / HTTP/{version}")) == 400


# -- fields --


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        pytest.param("A: b", "HTTP_A", "b", id="plain"),
        pytest.param("A:b", "HTTP_A", "b", id="no space"),
        pytest.param("A:", "HTTP_A", "", id="empty"),
        pytest.param("A: \t ", "HTTP_A", "", id="space alone"),
        pytest.param("A:\t  b \t", "HTTP_A", "b", id="spaces and tabs around"),
        pytest.param("A: b \t c", "HTTP_A", "b \t c", id="spaces within"),
        pytest.param("A: b:c::", "HTTP_A", "b:c::", id="colons in the value"),
        pytest.param("A: \x80\xe9\xff", "HTTP_A", "\x80\xe9\xff", id="not ascii"),
        pytest.param("A: \x85b\xa0", "HTTP_A", "\x85b\xa0", id="not ascii that str.strip eats"),
        pytest.param("x-CALL-id: b", "HTTP_X_CALL_ID", "b", id="dashes"),
        pytest.param("Content-Type: a/b", "CONTENT_TYPE", "a/b", id="content-type"),
        pytest.param("content-length: 007", "CONTENT_LENGTH", "007", id="content-length"),
        pytest.param("HTTP-Content-Length: 3", "HTTP_HTTP_CONTENT_LENGTH", "3", id="http-content-length"),
        pytest.param("!#$%&'*+.^`|~1: b", "HTTP_!#$%&'*+.^`|~1", "b", id="odd name"),
        pytest.param("Proxy-Connection: b", "HTTP_PROXY_CONNECTION", "b", id="proxy-connection"),
    ],
)
def test_a_field_becomes_a_variable(line, key, value):
    request = parse_head(head(line))
    assert request.fields == {"HTTP_HOST": "test", key: value}
    assert request.repeated == {}


@pytest.mark.parametrize(
    ("lines", "key", "value", "values"),
    [
        pytest.param(["A: b", "a: c"], "HTTP_A", "b, c", ["b", "c"], id="two"),
        pytest.param(["A: b", "B: x", "A: c, d", "A: e"], "HTTP_A", "b, c, d, e", ["b", "c, d", "e"], id="three"),
        pytest.param(["A:", "A:"], "HTTP_A", ", ", ["", ""], id="empty ones"),
        pytest.param(["Cookie: a=b", "cookie: c=d"], "HTTP_COOKIE", "a=b; c=d", ["a=b", "c=d"], id="cookies"),
    ],
)
def test_repeated_fields_are_joined_and_kept_apart(lines, key, value, values):
    request = parse_head(head(*lines))
    assert request.fields[key] == value
    assert request.repeated == {key: values}


@pytest.mark.parametrize(
    "name", ["X_Call_Id", "x-call_id", "_", "Content_Length", "Transfer_Encoding", "Host_", "Proxy", "PROXY", "proxy"]
)
@pytest.mark.parametrize("times", [1, 2])
def test_names_that_would_pass_for_others_are_dropped(name, times):
    request = parse_head(head(*[f"{name}: 5"] * times))
    assert (request.fields, request.repeated, request.length) == ({"HTTP_HOST": "test"}, {}, 0)


@pytest.mark.parametrize(
    "line",
    ["A", "A b", ": b", ":", "A : b", "A\t: b", " A: b", "\tA: b", " ", "A B: c", "(A): b", "A,B: c", '"A": b', "A/B: c", "A@: b",
     "{A}: b", "\xe9: b", "A\xa0: b", "A\x85: b"],
)  # fmt: skip
def test_a_wrong_field_is_refused(line):
    assert refusal_of(head(line)) == 400
    assert refusal_of(head(line, "Content-Length: 0")) == 400


@pytest.mark.parametrize("byte", [*map(chr, CONTROLS), "\r", "\n", "\n\r"], ids=ascii)
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("{}GET / HTTP/1.1\r\nHost: a", id="before the method"),
        pytest.param("G{}ET / HTTP/1.1\r\nHost: a", id="in the method"),
        pytest.param("GET{} / HTTP/1.1\r\nHost: a", id="behind the method"),
        pytest.param("GET {}/ HTTP/1.1\r\nHost: a", id="before the target"),
        pytest.param("GET /{} HTTP/1.1\r\nHost: a", id="in the target"),
        pytest.param("GET / HTTP/{}1.1\r\nHost: a", id="in the version"),
        pytest.param("GET / HTTP/1.1{}\r\nHost: a", id="behind the version"),
        pytest.param("GET / HTTP/1.1\r\n{}Host: a", id="before a name"),
        pytest.param("GET / HTTP/1.1\r\nHo{}st: a", id="in a name"),
        pytest.param("GET / HTTP/1.1\r\nHost{}: a", id="behind a name"),
        pytest.param("GET / HTTP/1.1\r\nHost:{}a", id="before a value"),
        pytest.param("GET / HTTP/1.1\r\nHost: a\r\nX: b{}c", id="in a value"),
        pytest.param("GET / HTTP/1.1\r\nHost: a\r\nX: b{}", id="behind a value"),
    ],
)
def test_a_control_byte_anywhere_is_refused(raw, byte):
    assert refusal_of(raw.format(byte).encode("latin-1")) == 400


def test_many_long_names_do_not_fill_the_memory(monkeypatch):
    caches = empty_caches(monkeypatch)
    for number in range(MAX_FIELDS):
        for _ in range(3):
            parse_head(head("X" * 10000 + str(number) + ": a", line=f"GET /{'x' * 10000}{number} HTTP/1.1"))
    assert sum(len(text) for cache in caches for text in (*cache, *filter(None, cache.seen_once))) < 100_000


def test_a_head_is_the_same_once_the_caches_are_full(monkeypatch):
    caches = empty_caches(monkeypatch)
    monkeypatch.setattr(watchdog_app, "CACHE_ENTRIES", 1)
    for _ in range(2):
        for times in range(4):
            assert parse_head(head("A-B: c", *["C_D: e"] * times)).fields == {"HTTP_HOST": "test", "HTTP_A_B": "c"}
            assert parse_head(head(*["A-B: c"] * times, "A-B: d")).fields["HTTP_A_B"] == "c, " * times + "d"
    assert [len(cache) for cache in caches] == [1, 1, 1]


def test_what_is_new_with_each_call_evicts_nothing(monkeypatch):
    request_lines, fields, _ = empty_caches(monkeypatch)
    for number in range(3 * CACHE_ENTRIES):
        parse_head(head("Accept: a", f"X-Call-Id: {number}", line=f"GET /{number % 2 and number} HTTP/1.1"))
    assert set(fields) == {b"Host: test", b"Accept: a"}
    assert set(request_lines) == {b"GET /0 HTTP/1.1"}
    assert max(len(cache.seen_once) for cache in (request_lines, fields)) <= CACHE_ENTRIES


@pytest.mark.parametrize("line", ["A", "A\0: b", "A: \0", "A : b", "A: b\n", "Host: a b", "Host: test"])
def test_a_wrong_field_is_refused_however_often_it_comes(line):
    assert [refusal_of(head(line)) for _ in range(4)] == [400] * 4


def empty_caches(monkeypatch):
    """Let the module begin with empty caches of request lines, fields and names; return them."""
    caches = []
    for name in ("REQUEST_LINES", "FIELDS", "ENVIRON_KEYS"):
        cache = watchdog_app.Known(getattr(watchdog_app, name).parse)
        monkeypatch.setattr(watchdog_app, name, cache)
        caches.append(cache)
    return caches


# -- decisions --


@pytest.mark.parametrize(
    ("connection", "old", "modern"),
    [
        (None, False, True),
        ("", False, True),
        ("close", False, False),
        ("Close", False, False),
        ("keep-alive", True, True),
        ("Keep-Alive", True, True),
        ("keep-alive, close", False, False),
        ("close, keep-alive", False, False),
        ("Upgrade,\tCLOSE ,x", False, False),
        (", ,close", False, False),
        ("x, KEEP-ALIVE", True, True),
        ("upgrade", False, True),
        ("closed", False, True),
        ("not close", False, True),
        ("close\x85", False, True),
        ("keep_alive", False, True),
    ],
)
def test_whether_the_connection_is_kept(connection, old, modern):
    assert (keep_alive(False, connection), keep_alive(True, connection)) == (old, modern)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_close_wins_on_any_connection_line(version):
    assert not parse_head(
        head("Connection: keep-alive", "CONNECTION: x, Close", line=f"GET / HTTP/{version}")
    ).keep_alive


@pytest.mark.parametrize(
    ("coding", "length", "old", "modern"),
    [
        pytest.param(None, None, 0, 0, id="neither"),
        pytest.param(None, "0", 0, 0, id="length 0"),
        pytest.param(None, "10", 10, 10, id="length"),
        pytest.param(None, "0010", 10, 10, id="length with zeros"),
        pytest.param(None, "9" * 19, int("9" * 19), int("9" * 19), id="length of 19 digits"),
        pytest.param(None, "1" * 20, 400, 400, id="length of 20 digits"),
        pytest.param(None, "0" * 20, 400, 400, id="twenty zeros"),
        pytest.param(None, "", 400, 400, id="length empty"),
        pytest.param(None, "+10", 400, 400, id="length with plus"),
        pytest.param(None, "-1", 400, 400, id="length negative"),
        pytest.param(None, "0x1", 400, 400, id="length hexadecimal"),
        pytest.param(None, "1_0", 400, 400, id="length with underscore"),
        pytest.param(None, "\xb2", 400, 400, id="length superscript"),
        pytest.param(None, "1.0", 400, 400, id="length with a point"),
        pytest.param(None, "1 0", 400, 400, id="length with a space"),
        pytest.param(None, "10\xa0", 400, 400, id="length with a no-break space"),
        pytest.param(None, "1, 1", 400, 400, id="length as a list"),
        pytest.param("chunked", None, 400, CHUNKED, id="chunked"),
        pytest.param("CHUNKED", None, 400, CHUNKED, id="chunked in capitals"),
        pytest.param("chunked", "0", 400, 400, id="chunked and length"),
        pytest.param("gzip", "0", 400, 400, id="gzip and length"),
        pytest.param("", "10", 400, 400, id="empty coding and length"),
        pytest.param("", None, 400, 400, id="empty coding"),
        pytest.param("chunked, chunked", None, 400, 400, id="chunked twice"),
        pytest.param("gzip", None, 400, 501, id="gzip"),
        pytest.param("identity", None, 400, 501, id="identity"),
        pytest.param("xchunked", None, 400, 501, id="xchunked"),
        pytest.param("gzip, chunked", None, 400, 501, id="gzip, chunked"),
        pytest.param("chunked, gzip", None, 400, 501, id="chunked, gzip"),
    ],
)
def test_how_long_the_body_is(coding, length, old, modern):
    fields = {
        key: value
        for key, value in (("HTTP_TRANSFER_ENCODING", coding), ("CONTENT_LENGTH", length))
        if value is not None
    }
    assert framing(False, fields) == old
    assert framing(True, fields) == modern


def framing(modern, fields):
    try:
        return body_framing(modern, fields)
    except HTTPError as error:
        return error.status


@pytest.mark.parametrize(
    ("line", "fields", "expects", "refusal"),
    [
        pytest.param("POST / HTTP/1.1", ["Expect: 100-continue"], True, None, id="continue"),
        pytest.param("POST / HTTP/1.5", ["EXPECT: 100-Continue"], True, None, id="continue in capitals"),
        pytest.param("POST / HTTP/1.1", [], False, None, id="nothing"),
        pytest.param("POST / HTTP/1.0", ["Expect: 100-continue"], False, None, id="continue on 1.0"),
        pytest.param("POST / HTTP/1.0", ["Expect: x"], False, None, id="other on 1.0"),
        pytest.param("POST / HTTP/1.1", ["Expect:"], False, None, id="empty"),
        pytest.param("POST / HTTP/1.1", ["Expect: ,"], False, None, id="empty list"),
        pytest.param(
            "POST / HTTP/1.1", ["Expect: 100-continue, 100-Continue"], True, None, id="continue twice in a list"
        ),
        pytest.param(
            "POST / HTTP/1.1", ["Expect: 100-continue", "Expect: 100-continue"], True, None, id="continue in two fields"
        ),
        pytest.param("POST / HTTP/1.1", ["Expect:", "Expect: 100-continue\t,"], True, None, id="empty and continue"),
        pytest.param("POST / HTTP/1.1", ["Expect: x"], False, 417, id="other"),
        pytest.param("POST / HTTP/1.1", ["Expect:", "Expect: x"], False, 417, id="empty and other"),
        pytest.param("POST / HTTP/1.1", ["Expect: 100-continue", "Expect: x"], False, 417, id="continue and other"),
    ],
)
def test_what_is_expected(line, fields, expects, refusal):
    request = parse_head(head(*fields, line=line))
    assert request.expects_continue == expects
    assert (request.refusal and request.refusal.status) == refusal


# -- RequestReader --


class Read(NamedTuple):
    """What came out of a reader for one request."""

    method: str
    target: str
    modern: bool
    fields: dict
    repeated: dict
    keep_alive: bool
    body: bytes
    refusal: int | None


def read(raw, length=0, max_head=256 << 10, max_body=1 << 20):
    """Return the requests in `raw`, received whole or in slices of `length`, up to a refusal that ends the connection; and the reader."""
    reader, requests = RequestReader(max_head, max_body), []
    for start in range(0, len(raw), length or len(raw)):
        request = reader.receive(raw[start : start + (length or len(raw))])
        while request:
            refusal = request.refusal and request.refusal.status
            requests.append(
                Read(
                    request.method,
                    request.target,
                    request.modern,
                    request.fields,
                    request.repeated,
                    request.keep_alive,
                    request.body,
                    refusal,
                )
            )
            if refusal and not request.keep_alive:
                return requests, reader
            request = reader.receive(b"")
    return requests, reader


def statuses(raw, length=0, **limits):
    return [request.refusal for request in read(raw, length, **limits)[0]]


POST = b"POST /post HTTP/1.1\r\n" + HOST
ACCEPTED = [
    pytest.param(GET, b"", id="get"),
    pytest.param(b"\r\n\r\n" + GET, b"", id="blank lines before"),
    pytest.param(b"GET / HTTP/1.0\r\n\r\n", b"", id="no field"),
    pytest.param(b"OPTIONS * HTTP/1.5\r\n" + HOST + b"\r\n", b"", id="asterisk"),
    pytest.param(b"GET http://a/b HTTP/1.1\r\n" + HOST + b"\r\n", b"", id="absolute"),
    pytest.param(b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\nA: \xff\r\nCookie: c\r\nCookie: d\r\nX_Y: z\r\n\r\n", b"", id="fields"),
    pytest.param(POST + b"Content-Length: 0\r\n\r\n", b"", id="length 0"),
    pytest.param(POST + b"Content-Length: 5\r\n\r\nhello", b"hello", id="length"),
    pytest.param(POST + b"Content-Length: 8\r\n\r\n\r\n\r\n\r\n\r\n", b"\r\n" * 4, id="body of line ends"),
    pytest.param(POST + b"Content-Length: 37\r\n\r\n" + GET, GET, id="body like a request"),
    pytest.param(b"GET /get HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", b"hello", id="get with a body"),
    pytest.param(b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", id="1.0 with a body"),
    pytest.param(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", b"hello", id="expect"),
    pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", id="no chunk"),
    pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\n", b"hello world", id="chunks"),
    pytest.param(POST + b"Expect: x\r\n\r\n", b"", id="refused without harm"),
]  # fmt: skip


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(("raw", "body"), ACCEPTED)
def test_the_same_requests_come_out_however_they_are_sliced(raw, body, length):
    raw = raw.replace(b"Content-Length: 37", b"Content-Length: %d" % len(GET))
    (expected,), _ = read(raw)
    assert expected.body == body
    assert read(raw, length)[0] == [expected]
    follower = b"PUT /next HTTP/1.1\r\nHost: other\r\nContent-Length: 2\r\n\r\nok"
    requests, reader = read(raw + follower + raw, length)
    assert requests == [expected, read(follower)[0][0], expected]
    assert (reader.waiting, bytes(reader.buffer), reader.pending) == ("", b"", None)


@pytest.mark.parametrize(("raw", "body"), ACCEPTED)
def test_the_same_request_comes_out_wherever_it_is_split(raw, body):
    raw = raw.replace(b"Content-Length: 37", b"Content-Length: %d" % len(GET))
    expected, _ = read(raw)
    for point in range(1, len(raw)):
        reader = RequestReader(1 << 18, 1 << 20)
        assert reader.receive(raw[:point]) is None, f"complete after {point} bytes"
        request = reader.receive(raw[point:])
        assert request is not None
        assert (request.target, request.fields, request.body) == (expected[0].target, expected[0].fields, body)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
def test_pipelined_requests_come_out_in_order(length):
    raw = b"".join(
        b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\nPOST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n%02d" % (n, n, n)
        for n in range(20)
    )
    requests, _ = read(raw, length)
    assert [request.target for request in requests] == [f"/{n // 2}" for n in range(40)]
    assert [request.body for request in requests[1::2]] == [b"%02d" % n for n in range(20)]


@pytest.mark.parametrize(
    "raw",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0", POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n"],
    ids=["head", "byte", "chunk"],
)
def test_nothing_behind_a_refusal_is_parsed(raw):
    reader = RequestReader(1 << 18, 1 << 20)
    assert reader.receive(raw + GET).refusal.status == 400
    assert (reader.receive(b""), reader.waiting, bytes(reader.buffer)) == (None, "", b"")


def test_a_refusal_leaves_nothing_for_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        assert statuses(b"GET / HTTP/1.1\r\n\r\n") == [400]
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("length", [0, 1000, 65536])
def test_a_body_of_any_bytes_behind_a_large_head_is_accepted(length):
    requests, _ = read(POST + b"A: " + b"x" * 100_000 + b"\r\nContent-Length: 4\r\n\r\n\0\r\n\n" + GET, length)
    assert [request.body for request in requests] == [b"\0\r\n\n", b""]


def test_one_request_comes_out_at_a_time():
    reader = RequestReader(1 << 18, 1 << 20)
    assert reader.receive(GET + GET).target == "/"
    assert bytes(reader.buffer) == GET
    assert reader.receive(b"").target == "/"
    assert reader.receive(b"") is None


def test_blank_line_after_each_of_many_requests_is_skipped():
    reader = RequestReader(1 << 18, 1 << 20)
    for _ in range(10):
        request = reader.receive(GET)
        assert request is not None and request.refusal is None
        assert reader.receive(b"\r\n") is None


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
def test_a_few_blank_lines_before_a_request_are_skipped(length):
    requests, _ = read((b"\r\n" * MAX_BLANK_LINES + GET) * 3, length)
    assert len(requests) == 3
    assert requests[0] == read(GET)[0][0]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(
    "blank", [b"\r\n" * (MAX_BLANK_LINES + 1), b"\n", b"\r", b"\r\n\n", b"\r\n\r", b"\n\r\n", b"\r\r\n"], ids=ascii
)
def test_too_many_or_wrong_blank_lines_are_refused(blank, length):
    assert statuses(blank + GET, length) == [400]
    assert statuses(GET + blank + GET, length) == [None, 400]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
def test_too_many_blank_lines_are_refused_before_what_follows(length):
    assert statuses(b"\r\n" * MAX_BLANK_LINES, length) == []
    assert statuses(b"\r\n" * (MAX_BLANK_LINES + 1), length) == [400]


# -- RequestReader: what has begun --


@pytest.mark.parametrize(
    ("raw", "waiting"),
    [
        pytest.param(b"", "", id="nothing"),
        pytest.param(b"\r\n", "", id="a blank line"),
        pytest.param(b"\r\n\r", "head", id="half a line end"),
        pytest.param(b"G", "head", id="one byte"),
        pytest.param(GET[:-1], "head", id="all but one byte"),
        pytest.param(GET, "", id="a request"),
        pytest.param(GET + b"G", "head", id="a request and a byte"),
        pytest.param(POST + b"Content-Length: 5\r\n\r\n", "body", id="a head"),
        pytest.param(POST + b"Content-Length: 5\r\n\r\nhell", "body", id="most of a body"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n", "body", id="a chunked head"),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "body", id="no end of the trailers"
        ),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", id="a chunked request"),
    ],
)
@pytest.mark.parametrize("length", [0, 1, 3])
def test_what_has_begun_can_be_given_up(raw, waiting, length):
    _, reader = read(raw, length) if raw else ([], RequestReader(100, 100))
    assert reader.waiting == waiting
    request = reader.give_up(408)
    if waiting:
        assert (request.refusal.status, request.keep_alive) == (408, False)
    else:
        assert request is None
    assert reader.give_up(408) is None


def test_a_body_given_up_keeps_its_method():
    reader = RequestReader(1000, 1000)
    reader.receive(b"HEAD /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhell")
    assert reader.give_up(408).method == "HEAD"


@pytest.mark.parametrize("method", ["GET", "HEAD", "HEADER", "POST"])
def test_a_refused_head_is_known_for_head_wherever_it_is_split(method):
    raw = head("A: HEAD HEAD ", line=f"{method} / HTTP/1.1", host="") + b"\r\n\r\n"
    for point in range(len(raw)):
        reader = RequestReader(1000, 1000)
        request = reader.receive(raw[:point]) or reader.receive(raw[point:])
        assert request.refusal.status == 400
        assert (request.method == "HEAD") == (method == "HEAD"), f"split after {point} bytes"


EXPECTING = b" / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"


@pytest.mark.parametrize(
    ("raw", "wants"),
    [
        pytest.param(b"POST" + EXPECTING + b"Content-Length: 5\r\n\r\n", True, id="length"),
        pytest.param(b"POST" + EXPECTING + b"Transfer-Encoding: chunked\r\n\r\n", True, id="chunked"),
        pytest.param(b"POST" + EXPECTING + b"Content-Length: 5\r\n\r\nh", False, id="first byte is there"),
        pytest.param(b"POST" + EXPECTING + b"Transfer-Encoding: chunked\r\n\r\n5", False, id="first byte of a size is there"),
        pytest.param(b"POST" + EXPECTING + b"Content-Length: 5\r\n\r\nhello", False, id="body is there"),
        pytest.param(b"POST" + EXPECTING + b"Content-Length: 0\r\n\r\n", False, id="length 0"),
        pytest.param(b"POST" + EXPECTING + b"\r\n", False, id="no body"),
        pytest.param(b"POST" + EXPECTING + b"Content-Length: 5\r\n", False, id="head not complete"),
        pytest.param(b"POST" + EXPECTING + b"Content-Length: 9999\r\n\r\n", False, id="too large"),
        pytest.param(b"POST" + EXPECTING + b"Content-Length: x\r\n\r\n", False, id="head not good"),
        pytest.param(b"POST" + EXPECTING.replace(b"1.1", b"1.0") + b"Content-Length: 5\r\n\r\n", False, id="1.0"),
        pytest.param(POST + b"Content-Length: 5\r\n\r\n", False, id="not asked for"),
        pytest.param(GET + b"POST" + EXPECTING + b"Content-Length: 5\r\n\r\n", True, id="second request"),
    ],
)  # fmt: skip
def test_whether_the_peer_waits_for_a_100(raw, wants):
    _, reader = read(raw, max_body=1000)
    assert reader.wants_continue() == wants
    assert not reader.wants_continue(), "it is told once"


# -- RequestReader: limits --


@pytest.mark.parametrize(
    ("name", "limit"),
    [("MAX_LINE", 65536), ("MAX_FIELDS", 200), ("MAX_METHOD", 32), ("MAX_BLANK_LINES", 4), ("MAX_CHUNK_LINE", 256)],
)
def test_a_limit_is_what_is_promised(name, limit):
    assert getattr(watchdog_app, name) == limit


def line_of(length):
    return b"GET /" + b"a" * (length - 14) + b" HTTP/1.1\r\n"


@pytest.mark.parametrize("length", [0, 1000, 4096, 65536])
@pytest.mark.parametrize(
    ("size", "status"), [(MAX_LINE, None), (MAX_LINE + 1, 414), (MAX_LINE + 2, 414), (3 * MAX_LINE, 414)]
)
def test_a_request_line_above_the_limit_is_refused(size, status, length):
    assert statuses(line_of(size) + HOST + b"\r\n", length) == [status]


@pytest.mark.parametrize("length", [0, 7, 4096])
def test_a_request_line_above_the_limit_is_refused_behind_another_request(length):
    assert statuses(GET + line_of(MAX_LINE + 1), length) == [None, 414]


@pytest.mark.parametrize("length", [0, 1000, 4096, 65536])
def test_a_request_line_is_refused_as_soon_as_it_is_too_long(length):
    assert statuses(line_of(MAX_LINE)[:-1], length) == []
    assert statuses(b"GET /" + b"a" * (MAX_LINE - 3), length) == [414]


@pytest.mark.parametrize("length", [0, 1, 7, 1000])
def test_a_limit_comes_before_what_is_wrong_behind_it(length):
    assert statuses(b"GET /" + b"a" * MAX_LINE + b"\0", length) == [414]
    assert statuses(b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 1000 + b"\0", length, max_head=1000) == [431]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(("size", "status"), [(1000, None), (1001, 431), (1002, 431), (1004, 431), (2000, 431)])
def test_a_head_above_the_limit_is_refused(size, status, length):
    raw = b"GET / HTTP/1.1\r\n" + HOST + b"A: "
    raw += b"x" * (size - len(raw)) + b"\r\n\r\n"
    assert statuses(raw + GET, length, max_head=1000)[0] == status


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 64])
@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\r\n", b"\n", b"\r", b"\x00"], ids=ascii)
def test_a_request_line_above_the_limit_of_a_head_is_refused_whatever_follows(end, length):
    assert statuses(line_of(1010)[:-2] + end + HOST, length, max_head=1000) == [414]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 64])
@pytest.mark.parametrize(("size", "status"), [(1002, 431), (1003, 414)])
def test_a_head_above_the_limit_is_refused_for_what_does_not_fit(size, status, length):
    assert statuses(line_of(size) + HOST, length, max_head=1000) == [status]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(("number", "status"), [(MAX_FIELDS, None), (MAX_FIELDS + 1, 431)])
def test_one_field_too_many_is_refused(number, status, length):
    assert statuses(b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * (number - 1) + b"\r\n", length) == [status]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(("size", "status"), [(10, None), (11, 413), (10**19 - 1, 413)])
def test_a_declared_body_above_the_limit_is_refused_at_once(size, status, length):
    expected = [413] if status else []
    assert statuses(POST + b"Content-Length: %d\r\n\r\n" % size, length, max_body=10) == expected


# -- RequestReader: linear time --


def chunks(number):
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * number + b"0\r\n\r\n"


LONG = [
    pytest.param(lambda n: line_of(n) + HOST + b"\r\n", 30_000, 1, id="request line"),
    pytest.param(
        lambda n: line_of(n) + HOST + b"A: " + b"x" * n + b"\r\n\r\n", 20_000, 1, id="field behind a long request line"
    ),
    pytest.param(lambda n: b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * n + b"\r\n\r\n", 100_000, 1, id="field"),
    pytest.param(
        lambda n: b"GET / HTTP/1.1\r\n" + HOST + (b"A: " + b"x" * (n // 100) + b"\r\n") * 100 + b"\r\n",
        100_000,
        1,
        id="fields",
    ),
    pytest.param(lambda n: POST + b"Content-Length: %d\r\n\r\n" % n + b"x" * n, 100_000, 1, id="body"),
    pytest.param(chunks, 15_000, 1, id="chunks of a byte, byte by byte"),
    pytest.param(chunks, 50_000, 65536, id="chunks of a byte, as they are received"),
    pytest.param(lambda n: chunks(1)[:-2] + b"A: " + b"x" * n + b"\r\n\r\n", 100_000, 1, id="trailer"),
    pytest.param(
        lambda n: chunks(1)[:-2] + (b"A: " + b"x" * (n // 100) + b"\r\n") * 100 + b"\r\n", 100_000, 1, id="trailers"
    ),
]


def processor_time(raw, length):
    reader = RequestReader(256 << 10, 1 << 20)
    began = time.thread_time()
    for start in range(0, len(raw), length):
        request = reader.receive(raw[start : start + length])
        while reader.in_part:
            request = reader.receive(b"")
    taken = time.thread_time() - began
    assert request is not None
    assert request.refusal is None
    return taken


@pytest.mark.slow
@pytest.mark.parametrize(("make", "size", "length"), LONG)
def test_eight_times_as_much_takes_about_eight_times_as_long(make, size, length):
    """Quadratic time would take up to 64 times as long; the least of some runs has little in it of what else runs on the machine."""
    once, eight_times = [], []
    while len(once) < 30 and not (len(once) > 4 and min(eight_times) < 12 * min(once)):
        once.append(processor_time(make(size // 4), length))
        eight_times.append(processor_time(make(size * 2), length))
    assert min(eight_times) < 12 * min(once)
