"""Response -> bytes: any WSGI application behind the server half."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time

import pytest
from conftest import DEADLINE, RESET, read_all, read_answer, read_answers, serving, serving_application, wait_for

import watchdog_app

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nHost: test\r\n\r\n"
PLAIN = [("Content-Type", "text/plain")]


@pytest.fixture
def sent(monkeypatch):
    """Each piece of bytes that a connection was asked to send."""
    pieces = []
    send = watchdog_app.Connection.send

    def noted(connection, *parts):
        pieces.append(b"".join(parts))
        send(connection, *parts)

    monkeypatch.setattr(watchdog_app.Connection, "send", noted)
    return pieces


def giving(result, status="200 OK", headers=PLAIN):
    """Make an application that gives the same result for each request."""

    def application(environ, start_response):
        start_response(status, list(headers))
        return result

    return application


def making(items, status="200 OK", headers=PLAIN):
    """Make an application whose result is made anew for each request."""

    def application(environ, start_response):
        start_response(status, list(headers))
        return items()

    return application


class Result:
    """An iterable that counts how often it is closed."""

    def __init__(self, *items) -> None:
        self.items, self.closed = items, 0

    def __iter__(self):
        for item in self.items:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self):
        self.closed += 1


def endless(ended):
    """Yield until closed."""
    try:
        while True:
            yield b"x" * 65536
    finally:
        ended.set()


def is_reset(sock):
    """Read to the end; tell whether that was a reset, and what came before it."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        return True, data
    return False, data


# -- materialised answers --


@pytest.mark.parametrize(
    ("result", "body"),
    [
        pytest.param([b"abc"], b"abc", id="one item"),
        pytest.param([b"a", b"", b"bc"], b"abc", id="several items"),
        pytest.param([b""], b"", id="empty item"),
        pytest.param([], b"", id="no item"),
        pytest.param([b"x" * 20_000], b"x" * 20_000, id="many bytes"),
    ],
)
def test_a_list_has_a_content_length_and_leaves_in_one_send(result, body, sent):
    with serving_application(giving(result)) as server:
        answer = server.get()
    assert (answer.status, answer.body) == (200, body)
    assert answer.header("Content-Length") == str(len(body))
    assert answer.header("Transfer-Encoding") is None
    assert len(sent) == 1


@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"statusCode": 201, "body": {"a": 1}, "headers": {"X-A": "b"}}, id="envelope"),
        pytest.param("text", id="str"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param(None, id="None"),
        pytest.param(["list"], id="list"),
        pytest.param(("x", 404), id="tuple"),
        pytest.param(object(), id="fault"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_materialised_answer_of_a_function_is_one_send(result, method, sent, log):
    with serving(lambda event, context: result) as server:
        for _ in range(3):
            server.request(method)
    assert len(sent) == 3
    assert all(piece.startswith(b"HTTP/1.1 ") for piece in sent)


def test_a_refusal_is_one_send(sent):
    with serving_application(giving([b"x"])) as server:
        server.talk(b"GET / HTTP/1.1\r\n\r\n")
    assert len(sent) == 1


# -- streams --


def test_a_generator_is_chunked():
    with serving_application(making(lambda: iter([b"a", b"", b"bc"]))) as server:
        data = server.talk(GET)
    answer, rest = read_answer(data)
    assert (answer.status, answer.body, rest) == (200, b"abc", b"")
    assert (answer.header("Transfer-Encoding"), answer.header("Content-Length")) == ("chunked", None)
    assert data.endswith(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("items", "body"),
    [
        pytest.param([], b"", id="no item"),
        pytest.param([b""], b"", id="empty item"),
        pytest.param([b"", b"a"], b"a", id="empty first item"),
        pytest.param([b"x" * 300_000, b"y"], b"x" * 300_000 + b"y", id="large item"),
    ],
)
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(iter, id="iterator"),
        pytest.param(tuple, id="tuple"),
        pytest.param(lambda items: Result(*items), id="object"),
    ],
)
def test_a_stream_of(items, body, kind):
    with serving_application(making(lambda: kind(items))) as server:
        assert server.get().body == body


@pytest.mark.parametrize("half_close", [False, True])
def test_each_item_is_sent_before_the_next_is_made(half_close):
    gate = threading.Event()

    def items():
        yield b"first"
        assert gate.wait(DEADLINE)
        yield b"second"

    with serving_application(making(items)) as server, server.connect() as sock:
        sock.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        data = b""
        while not data.endswith(b"5\r\nfirst\r\n"):
            piece = sock.recv(65536)
            assert piece
            data += piece
        gate.set()
        answer, rest = read_answer(data + read_all(sock))
    assert (answer.body, rest) == (b"firstsecond", b"")


def test_the_head_of_a_stream_leaves_with_its_first_item(sent):
    with serving_application(making(lambda: iter([b"a", b"b"]))) as server:
        server.get()
    assert sent[0].endswith(b"\r\n\r\n1\r\na\r\n")
    assert sent[1] == b"1\r\nb\r\n"
    assert sent[2] == b"0\r\n\r\n"


def test_a_stream_to_http_1_0_ends_with_its_connection():
    with serving_application(making(lambda: iter([b"a", b"b"]))) as server, server.connect() as sock:
        sock.sendall(OLD.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"))
        reset, data = is_reset(sock)
    answer, _ = read_answer(data)
    assert not reset
    assert answer.body == b"ab" and answer.closes
    assert (answer.header("Transfer-Encoding"), answer.header("Content-Length")) == (None, None)


def test_a_stream_to_http_1_0_that_fails_is_a_reset(log):
    with (
        serving_application(making(lambda: Result(b"a", RuntimeError("out of order")))) as server,
        server.connect() as sock,
    ):
        sock.sendall(OLD)
        reset, data = is_reset(sock)
    assert reset
    assert b"Content-Length" not in data


def test_a_stream_with_a_content_length_is_not_chunked():
    with serving_application(making(lambda: iter([b"ab", b"c"]), headers=[*PLAIN, ("Content-Length", "3")])) as server:
        data = server.talk(GET + GET)
    answers = read_answers(data)
    assert [answer.body for answer in answers] == [b"abc", b"abc"]
    assert [answer.header("Transfer-Encoding") for answer in answers] == [None, None]


def test_what_is_written_is_sent():
    def application(environ, start_response):
        write = start_response("200 OK", PLAIN[:])
        write(b"one ")
        write(b"two ")
        return [b"three"]

    with serving_application(application) as server:
        answer = server.get()
    assert (answer.status, answer.body, answer.header("Transfer-Encoding")) == (200, b"one two three", "chunked")


@pytest.mark.parametrize("result", [pytest.param([b"ab"], id="list"), pytest.param((b"a", b"b"), id="stream")])
def test_what_cannot_be_written_leaves_no_trace(result):
    def application(environ, start_response):
        write = start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
        for wrong in (b"abc", "ab"):
            with pytest.raises(watchdog_app.ResultError):
                write(wrong)
        return result

    with serving_application(application) as server:
        data = server.talk(GET + GET)
    assert [answer.body for answer in read_answers(data)] == [b"ab", b"ab"]
    assert data.count(b"Content-Length") == data.count(b"Date") == 2


def test_what_is_written_is_sent_at_once():
    gate = threading.Event()

    def application(environ, start_response):
        start_response("200 OK", PLAIN[:])(b"first")
        assert gate.wait(DEADLINE)
        return []

    with serving_application(application) as server, server.connect() as sock:
        sock.sendall(GET)
        data = b""
        while b"first" not in data:
            data += sock.recv(65536)
        gate.set()
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(65536)
    assert read_answer(data)[0].body == b"first"


# -- no body --


@pytest.mark.parametrize("result", [pytest.param([b"abc"], id="list"), pytest.param((b"a", b"bc"), id="stream")])
@pytest.mark.parametrize(
    "headers", [pytest.param(PLAIN, id="no length"), pytest.param([*PLAIN, ("Content-Length", "3")], id="length")]
)
def test_head_has_no_body(result, headers):
    with serving_application(giving(result, headers=headers)) as server:
        data = server.talk(HEAD + GET)
    head, rest = read_answer(data, "HEAD")
    get, rest = read_answer(rest)
    assert (head.status, get.status, get.body, rest) == (200, 200, b"abc", b"")
    assert head.header("Content-Type") == "text/plain"
    assert head.header("Content-Length") == get.header("Content-Length")


def test_head_may_have_the_length_of_a_body_that_was_not_made():
    with serving_application(giving([], headers=[*PLAIN, ("Content-Length", "1000")])) as server:
        answer = server.request("HEAD")
    assert (answer.status, answer.header("Content-Length")) == (200, "1000")


def test_head_of_an_endless_stream_ends():
    ended = threading.Event()
    with serving_application(making(lambda: endless(ended))) as server:
        assert server.request("HEAD").status == 200
    assert ended.wait(DEADLINE)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize(
    "result",
    [
        pytest.param([], id="no item"),
        pytest.param([b"abc"], id="list"),
        pytest.param((b"a", b"bc"), id="stream"),
        pytest.param((), id="empty stream"),
    ],
)
@pytest.mark.parametrize(
    "headers", [pytest.param([], id="no length"), pytest.param([("Content-Length", "3")], id="length")]
)
def test_204_and_304_have_no_body(status, result, headers):
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/next":
            return giving([b"next"])(environ, start_response)
        return giving(result, status, headers)(environ, start_response)

    with serving_application(application) as server:
        data = server.talk(GET + GET.replace(b" / ", b" /next "))
    first, rest = read_answer(data)
    assert first.status == int(status[:3])
    assert (first.header("Transfer-Encoding"), first.header("Content-Length") if first.status == 204 else None) == (
        None,
        None,
    )
    assert read_answer(rest)[0].body == b"next"


# -- what an application does wrong --

FAULTS = [
    pytest.param(giving([b"abc"], headers=[("Content-Length", "2")]), id="list longer than its Content-Length"),
    pytest.param(giving([b"abc"], headers=[("Content-Length", "4")]), id="list shorter than its Content-Length"),
    pytest.param(giving([b"abc"], headers=[("Content-Length", "three")]), id="Content-Length that is no number"),
    pytest.param(giving([b"abc"], headers=[("Content-Length", "-3")]), id="negative Content-Length"),
    pytest.param(lambda environ, start_response: [b"abc"], id="start_response not called"),
    pytest.param(lambda environ, start_response: iter([b"abc"]), id="start_response not called by a stream"),
    pytest.param(lambda environ, start_response: None, id="nothing"),
    pytest.param(giving(None), id="no result"),
    pytest.param(giving(["abc"]), id="list of str"),
    pytest.param(giving(("abc",)), id="stream of str"),
    pytest.param(giving(b"abc"), id="bytes instead of a list"),
    pytest.param(giving((), headers=[("Content-Length", "5")]), id="empty stream with a Content-Length"),
    pytest.param(giving(5), id="number"),
    pytest.param(giving([b"abc"], status="200"), id="status without a phrase"),
    pytest.param(giving([b"abc"], status="OK"), id="status without a number"),
    pytest.param(giving([b"abc"], status=200), id="status as a number"),
    pytest.param(giving([b"abc"], status="101 Switching Protocols"), id="status 101"),
    pytest.param(giving([b"abc"], status="600 Beyond"), id="status 600"),
    pytest.param(giving([b"abc"], status="200 OK\r\nX-Bad: a"), id="CRLF in the status"),
    pytest.param(giving([b"abc"], status="200 €"), id="status not latin-1"),
    pytest.param(giving([b"abc"], headers=[("X-Bad", "a\r\nX-B: c")]), id="CRLF in a header"),
    pytest.param(giving([b"abc"], headers=[("X-Bad", "a\nX-B: c")]), id="LF in a header"),
    pytest.param(giving([b"abc"], headers=[("X-Bad", "a\0")]), id="NUL in a header"),
    pytest.param(giving([b"abc"], headers=[("X-Bad\r\nX-B", "a")]), id="CRLF in a header's name"),
    pytest.param(giving([b"abc"], headers=[("X-Bad:", "a")]), id="colon in a header's name"),
    pytest.param(giving([b"abc"], headers=[("X-Bad", "€")]), id="header not latin-1"),
    pytest.param(giving([b"abc"], headers=[("X-Bad", 5)]), id="header not text"),
    pytest.param(giving((b"abc",), headers=[("X-Bad", "a\r\nX-B: c")]), id="CRLF in a header of a stream"),
    pytest.param(giving([b"abc"], headers=[("Server", "a\r\nX-B: c")]), id="CRLF in a header that is dropped"),
    pytest.param(giving([b"abc"], headers=[("X-Bad", "a", "b")]), id="three in a pair"),
    pytest.param(giving(Result(RuntimeError("out of order"), b"abc")), id="stream that fails before its first item"),
]


def raising(error):
    """Make an application that raises."""

    def application(environ, start_response):
        raise error

    return application


CONTROLS = [chr(code) for code in (*range(0x09), *range(0x0A, 0x20), 0x7F)]


@pytest.mark.parametrize("text", ["{}a", "a{}b", "a{}"], ids=["before", "within", "behind"])
@pytest.mark.parametrize("character", [*CONTROLS, "€"], ids=ascii)
def test_a_character_that_no_head_may_hold_cannot_be_sent(text, character):
    with pytest.raises(watchdog_app.ResultError):
        watchdog_app.status_bytes("200 " + text.format(character))
    with pytest.raises(watchdog_app.ResultError):
        watchdog_app.field_line("A", text.format(character))
    with pytest.raises(watchdog_app.ResultError):
        watchdog_app.field_line(text.format(character), "a")


def test_text_of_another_class_is_sent_as_it_was_checked():
    class Other(str):
        def __format__(self, spec):
            return "a\r\nX-Bad: b"

        __str__ = __format__

    for value in (Other("shown"), "shown"):  # what comes second is found in the cache
        with serving(lambda event, context: ("", 200, {"X-A": value})) as server:
            answer = server.get()
        assert (answer.header("X-A"), answer.header("X-Bad")) == ("shown", None)


@pytest.mark.parametrize("value", ["-3", "+3", "3_0", " 3", "3.0"])
@pytest.mark.parametrize("raw", [GET, HEAD], ids=["GET", "HEAD"])
@pytest.mark.parametrize("result", [[], ()], ids=["list", "stream"])
def test_a_content_length_that_is_no_number_is_a_500(result, raw, value, log):
    with serving_application(giving(result, headers=[("Content-Length", value)])) as server:
        data = server.talk(raw)
    assert data.startswith(b"HTTP/1.1 500 ")
    assert f"Content-Length with value '{value}' cannot be sent" in log.getvalue()


def test_the_date_is_made_anew_each_second():
    first = watchdog_app.date_fields(0)
    assert watchdog_app.date_fields(0) is first
    assert (first[:31], watchdog_app.date_fields(1)[:31]) == (
        b"Date: Thu, 01 Jan 1970 00:00:00",
        b"Date: Thu, 01 Jan 1970 00:00:01",
    )


def test_a_long_target_is_escaped_and_cut_in_the_log(log):
    with serving_application(giving(None)) as server:
        assert server.get("/'" + "x" * 5000).status == 500
    line = log.getvalue().partition("\n")[0]
    assert line.startswith("""ERROR 'GET' "/'xxx""") and len(line) < 1100


ERRORS = [
    pytest.param(raising(RuntimeError("out of order")), id="RuntimeError"),
    pytest.param(raising(ConnectionResetError("the database has gone")), id="ConnectionResetError"),
    pytest.param(raising(BrokenPipeError("the database has gone")), id="BrokenPipeError"),
    pytest.param(raising(TimeoutError("the database is slow")), id="TimeoutError"),
    pytest.param(raising(SystemExit(3)), id="SystemExit"),
    pytest.param(raising(KeyboardInterrupt()), id="KeyboardInterrupt"),
    pytest.param(
        giving(Result(ConnectionAbortedError("the database has gone"))), id="ConnectionAbortedError of a stream"
    ),
]


@pytest.mark.parametrize("application", FAULTS + ERRORS)
def test_a_fault_is_a_500_and_one_record(application, log):
    with serving_application(application) as server:
        answer = server.get("/orders")
    assert (answer.status, answer.text) == (500, "Internal Server Error\n")
    assert answer.header("Content-Type").startswith("text/plain")
    assert answer.header("X-B") is None and answer.header("X-Bad") is None
    record = log.getvalue()
    assert record.count("ERROR") == 1
    assert "GET" in record and "/orders" in record and "Traceback" in record


@pytest.mark.parametrize("application", FAULTS + ERRORS)
def test_a_fault_does_not_end_the_connection(application, log):
    with serving_application(application) as server:
        data = server.talk(GET + GET)
    assert [answer.status for answer in read_answers(data)] == [500, 500]


@pytest.mark.parametrize("application", FAULTS[:6] + ERRORS[:2])
def test_a_fault_is_one_send(application, sent, log):
    with serving_application(application) as server:
        server.get()
    assert len(sent) == 1


def test_a_fault_whose_caller_has_gone_is_one_record(log):
    called, gate = threading.Event(), threading.Event()

    def application(environ, start_response):
        called.set()
        gate.wait(DEADLINE)
        raise RuntimeError("out of order")

    with serving_application(application) as server, server.connect() as sock:
        sock.sendall(GET)
        assert called.wait(DEADLINE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
        gate.set()
        wait_for(lambda: not server.server.connections, "the end of the connection")
    assert log.getvalue().count("ERROR") == 1


def test_start_response_twice_is_a_500(log):
    def application(environ, start_response):
        start_response("200 OK", PLAIN[:])
        start_response("404 Not Found", PLAIN[:])
        return [b"abc"]

    with serving_application(application) as server:
        assert server.get().status == 500
    assert "start_response" in log.getvalue()


def test_start_response_with_exc_info_takes_the_place_of_the_first(log):
    def application(environ, start_response):
        start_response("200 OK", [("X-First", "a"), ("Content-Length", "99")])
        try:
            raise RuntimeError("out of order")
        except RuntimeError as error:
            start_response("503 Service Unavailable", PLAIN[:], (type(error), error, error.__traceback__))
        return [b"later"]

    with serving_application(application) as server:
        answer = server.get()
    assert (answer.status, answer.body, answer.header("X-First")) == (503, b"later", None)
    assert log.getvalue() == ""


def test_start_response_with_exc_info_after_the_first_item_cuts_the_response(log):
    def application(environ, start_response):
        start_response("200 OK", PLAIN[:])(b"first")
        try:
            raise RuntimeError("out of order")
        except RuntimeError as error:
            start_response("503 Service Unavailable", PLAIN[:], (type(error), error, error.__traceback__))
        return [b"later"]

    with serving_application(application) as server:
        data = server.talk(GET)
    assert data.endswith(b"5\r\nfirst\r\n")
    assert "out of order" in log.getvalue()


def test_a_connection_error_of_the_application_is_logged(log):
    with serving_application(raising(ConnectionResetError("the database has gone"))) as server:
        assert server.get().status == 500
    assert "the database has gone" in log.getvalue()


LATE_ERRORS = [
    pytest.param(RuntimeError("out of order"), id="RuntimeError"),
    pytest.param(ConnectionResetError("out of order"), id="ConnectionResetError"),
    pytest.param(SystemExit("out of order"), id="SystemExit"),
    pytest.param("out of order", id="str as an item"),
]


@pytest.mark.parametrize("error", LATE_ERRORS)
def test_a_stream_that_fails_later_is_visibly_cut(error, log):
    with serving_application(making(lambda: Result(b"first", error, b"never"))) as server:
        data = server.talk(GET + GET)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n") and data.endswith(b"\r\n\r\n5\r\nfirst\r\n")
    assert log.getvalue().count("ERROR") == 1
    assert "out of order" in log.getvalue()


@pytest.mark.parametrize(
    "headers", [pytest.param(PLAIN, id="chunked"), pytest.param([("Content-Length", "9")], id="length")]
)
def test_a_stream_that_is_cut_within_its_framing_ends_without_a_reset(headers, log):
    with (
        serving_application(making(lambda: Result(b"first", RuntimeError("out of order")), headers=headers)) as server,
        server.connect() as sock,
    ):
        sock.sendall(GET)
        assert is_reset(sock)[0] is False


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([b"ab"], id="too short"),
        pytest.param([b"ab", RuntimeError("out of order")], id="failed"),
    ],
)
def test_a_stream_shorter_than_its_content_length_is_visibly_cut(items, log):
    with serving_application(making(lambda: Result(*items), headers=[("Content-Length", "5")])) as server:
        data = server.talk(GET + GET)
    body = data.partition(b"\r\n\r\n")[2]
    assert data.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert b"Content-Length: 5\r\n" in data and len(body) < 5
    assert log.getvalue().count("ERROR") == 1


@pytest.mark.parametrize(
    "items", [pytest.param([b"abc"], id="first item"), pytest.param([b"ab", b"c"], id="last item")]
)
def test_a_stream_longer_than_its_content_length_ends_its_connection(items, log):
    with serving_application(making(lambda: Result(*items), headers=[("Content-Length", "2")])) as server:
        data = server.talk(GET + GET)
    assert data.count(b"HTTP/1.1 200 OK\r\n") <= 1
    assert len(data.partition(b"\r\n\r\n")[2]) <= 2 or data.startswith(b"HTTP/1.1 500 ")
    assert b"Content-Length" in log.getvalue().encode()


# -- close --


def served_result(result, raw, status="200 OK", headers=PLAIN):
    with serving_application(giving(result, status, headers)) as server:
        return server.talk(raw)


@pytest.mark.parametrize(
    ("items", "raw", "status", "headers"),
    [
        pytest.param([b"a", b"b"], GET, "200 OK", PLAIN, id="complete"),
        pytest.param([], GET, "200 OK", PLAIN, id="empty"),
        pytest.param([b"a", b"b"], HEAD, "200 OK", PLAIN, id="HEAD"),
        pytest.param([b"a", b"b"], OLD, "200 OK", PLAIN, id="HTTP/1.0"),
        pytest.param([b"a"], GET, "204 No Content", [], id="204"),
        pytest.param([b"a", RuntimeError("out of order")], GET, "200 OK", PLAIN, id="fails later"),
        pytest.param([RuntimeError("out of order")], GET, "200 OK", PLAIN, id="fails before its first item"),
        pytest.param(["text"], GET, "200 OK", PLAIN, id="no bytes"),
        pytest.param([b"abc"], GET, "200 OK", [("Content-Length", "1")], id="too long"),
        pytest.param([b"abc"], GET, "200 OK", [("Content-Length", "9")], id="too short"),
    ],
)
def test_a_result_is_closed_exactly_once(items, raw, status, headers, log):
    result = Result(*items)
    served_result(result, raw, status, headers)
    assert result.closed == 1


def test_a_result_without_a_response_is_closed(log):
    result = Result(b"a")
    with serving_application(lambda environ, start_response: result) as server:
        assert server.get().status == 500
    assert result.closed == 1


def test_a_list_with_close_is_closed():
    class ClosedList(list):
        closed = 0

        def close(self):
            self.closed += 1

    result = ClosedList([b"a"])
    assert read_answer(served_result(result, GET))[0].body == b"a"
    assert result.closed == 1


def test_an_error_in_close_is_logged_and_the_response_is_complete(log):
    class Failing(Result):
        def close(self):
            raise RuntimeError("cannot close")

    with serving_application(making(lambda: Failing(b"a"))) as server:
        assert [answer.body for answer in read_answers(server.talk(GET + GET))] == [b"a", b"a"]
    assert log.getvalue().count("RuntimeError: cannot close") == 2


def test_a_result_is_closed_when_its_caller_goes_away(log):
    ended = threading.Event()
    with serving_application(making(lambda: endless(ended))) as server, server.connect() as sock:
        sock.sendall(GET)
        assert sock.recv(65536)
        sock.close()
        assert ended.wait(DEADLINE)
    assert log.getvalue() == ""


def test_a_generator_of_a_function_is_closed_when_its_caller_goes_away(log):
    ended = threading.Event()
    with serving(lambda event, context: endless(ended)) as server, server.connect() as sock:
        sock.sendall(GET)
        assert sock.recv(65536)
        sock.close()
        assert ended.wait(DEADLINE)
    assert log.getvalue() == ""


def test_a_result_is_closed_once_when_its_caller_goes_away(log):
    class Endless(Result):
        def __iter__(self):
            while True:
                yield b"x" * 65536

    result = Endless()
    with serving_application(giving(result)) as server, server.connect() as sock:
        sock.sendall(GET)
        assert sock.recv(65536)
        sock.close()
        wait_for(lambda: result.closed, "close")
    assert result.closed == 1
    assert log.getvalue() == ""


@pytest.mark.parametrize("serve", [lambda answer: serving_application(answer), lambda answer: serving(lambda event, context: answer)],
    ids=["application", "function"])  # fmt: skip
def test_a_caller_that_goes_away_while_it_is_written_to_is_no_fault(serve, log):
    ended = threading.Event()

    def answer(environ, start_response):
        write = start_response("200 OK", PLAIN)
        try:
            while True:
                write(b"x" * 65536)
        finally:
            ended.set()

    with serve(answer) as server, server.connect() as sock:
        sock.sendall(GET)
        assert sock.recv(65536)
        sock.close()
        assert ended.wait(DEADLINE)
        wait_for(lambda: not server.server.connections, "the end of the connection")
    assert log.getvalue() == ""


# -- fields that are the server's --

KEPT = [
    pytest.param(b"HTTP/1.1", b"", None, id="HTTP/1.1"),
    pytest.param(b"HTTP/1.1", b"Connection: keep-alive\r\n", None, id="HTTP/1.1, keep-alive"),
    pytest.param(b"HTTP/1.1", b"Connection: close\r\n", "close", id="HTTP/1.1, close"),
    pytest.param(b"HTTP/1.1", b"Connection: X-A, Close\r\n", "close", id="HTTP/1.1, close in a list"),
    pytest.param(b"HTTP/1.0", b"", "close", id="HTTP/1.0"),
    pytest.param(b"HTTP/1.0", b"Connection: keep-alive\r\n", "keep-alive", id="HTTP/1.0, keep-alive"),
    pytest.param(b"HTTP/1.0", b"Connection: close, keep-alive\r\n", "close", id="HTTP/1.0, both"),
]


@pytest.mark.parametrize(("version", "field", "announced"), KEPT)
@pytest.mark.parametrize(
    ("status", "result"),
    [
        pytest.param("200 OK", [b"abc"], id="200"),
        pytest.param("204 No Content", [], id="204"),
        pytest.param("500 Oh", [b""], id="500"),
    ],
)
def test_a_response_announces_what_becomes_of_its_connection(version, field, announced, status, result):
    request = b"GET / %b\r\nHost: test\r\n%b\r\n" % (version, field)
    with serving_application(giving(result, status)) as server:
        answers = read_answers(server.talk(request + request))
    assert [answer.header("Connection") for answer in answers] == [announced] * len(answers)
    assert len(answers) == (1 if announced == "close" else 2)


@pytest.mark.parametrize("result", [pytest.param([b"abc"], id="list"), pytest.param((b"a", b"bc"), id="stream")])
def test_connection_close_of_the_application_is_honoured(result):
    with serving_application(giving(result, headers=[*PLAIN, ("connection", "Close")])) as server:
        answers = read_answers(server.talk(GET + GET, half_close=False))
    assert len(answers) == 1 and answers[0].closes


@pytest.mark.parametrize("result", [pytest.param([b"abc"], id="list"), pytest.param((b"a", b"bc"), id="stream")])
@pytest.mark.parametrize("value", ["keep-alive", "upgrade", "X-A"])
def test_another_connection_field_of_the_application_is_dropped(result, value):
    with serving_application(giving(result, headers=[("Connection", value)])) as server:
        answers = read_answers(server.talk(GET + GET))
    assert [answer.header("Connection") for answer in answers] == [None, None]


@pytest.mark.parametrize(
    "application",
    [
        pytest.param(giving([b"abc"]), id="list"),
        pytest.param(giving((b"a", b"bc")), id="stream"),
        pytest.param(giving([], "204 No Content", []), id="204"),
        pytest.param(
            giving([b"a"], headers=[("Date", "yesterday"), ("server", "mine"), ("SERVER", "mine")]),
            id="given by the application",
        ),
        pytest.param(raising(RuntimeError()), id="fault"),
    ],
)
def test_date_and_server_come_exactly_once(application, log):
    with serving_application(application) as server:
        answer = server.get()
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", answer.header("Date"))
    assert answer.header("Server") == "of-python"


@pytest.mark.parametrize(
    "name", ["Transfer-Encoding", "Keep-Alive", "Trailer", "TE", "Upgrade", "Proxy-Authenticate", "Proxy-Connection"]
)
@pytest.mark.parametrize("result", [pytest.param([b"abc"], id="list"), pytest.param((b"a", b"bc"), id="stream")])
def test_hop_by_hop_fields_of_the_application_are_dropped(name, result):
    with serving_application(giving(result, headers=[(name, "x"), ("X-A", "b")])) as server:
        answer = server.get()
    assert (answer.body, answer.header("X-A")) == (b"abc", "b")
    assert answer.header(name) in (None, "chunked")


def test_a_content_length_of_the_application_is_not_sent_twice():
    with serving_application(giving([b"abc"], headers=[("content-length", "3")])) as server:
        answer = server.get()
    assert (answer.header("Content-Length"), answer.body) == ("3", b"abc")


def test_header_fields_are_sent_in_order_and_as_given():
    headers = [
        ("x-b", "2"),
        ("X-A", "1"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Name", "J\xfcrgen"),
        ("X-Empty", ""),
    ]
    with serving_application(giving([b"abc"], headers=headers)) as server:
        answer = server.get()
    assert [pair for pair in answer.headers if pair in headers] == headers


@pytest.mark.parametrize("status", ["200 OK", "299 Fine by me", "404 Not Found", "599 Gr\xfc\xdfe", "200 "])
def test_a_status_line_is_sent_as_given(status):
    with serving_application(giving([b"abc"], status)) as server:
        data = server.talk(GET)
    assert data.startswith(b"HTTP/1.1 " + status.encode("latin-1") + b"\r\n")


# -- callers that leave a stream of empty items --


def empty_items(item, seen, ended):
    """Make a function that yields `item` for ever, and one on the loop."""

    def plain(event, context):
        try:
            while True:
                yield item
                time.sleep(0.005)
        finally:
            seen.append(context.cancelled)
            ended.set()

    async def on_the_loop(event, context):
        try:
            while True:
                yield item
                await asyncio.sleep(0.005)
        finally:
            seen.append(context.cancelled)
            ended.set()

    return plain, on_the_loop


@pytest.mark.parametrize("leave", ["reset", "close", "half-close"])
@pytest.mark.parametrize("is_async", [False, True], ids=["generator", "async generator"])
@pytest.mark.parametrize("item", ["", b""], ids=["text", "bytes"])
def test_stream_of_empty_items_is_closed_soon_after_its_caller_has_gone(item, is_async, leave, log, monkeypatch):
    monkeypatch.setattr(watchdog_app, "HALF_CLOSED", 0.3)
    seen, ended = [], threading.Event()
    with serving(empty_items(item, seen, ended)[is_async]) as server:
        with server.connect() as sock:
            sock.sendall(GET)
            assert b"\r\n\r\n" in sock.recv(1000)
            if leave == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if leave != "half-close":
                sock.close()
            else:
                sock.shutdown(socket.SHUT_WR)
            began = time.monotonic()
            assert ended.wait(DEADLINE)
        assert leave == "reset" or time.monotonic() - began > 0.2  # a close may be a half-close
        assert time.monotonic() - began < 0.8
        wait_for(lambda: not server.server.connections, "the end of the connection")
    assert seen == [True]
    assert log.getvalue() == ""


@pytest.mark.parametrize("is_async", [False, True], ids=["generator", "async generator"])
def test_caller_that_has_ended_its_side_gets_a_stream_whose_items_are_not_all_empty(is_async, monkeypatch):
    monkeypatch.setattr(watchdog_app, "HALF_CLOSED", 0.4)
    items = [item for number in range(4) for item in ["", "", str(number)]]

    def plain(event, context):
        for item in items:
            time.sleep(0.06)
            yield item

    async def on_the_loop(event, context):
        for item in items:
            await asyncio.sleep(0.06)
            yield item

    with serving([plain, on_the_loop][is_async]) as server:
        assert read_answer(server.talk(GET))[0].body == b"0123"
