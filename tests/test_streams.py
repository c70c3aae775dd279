"""Requests that are run before their bodies have arrived: `stream_request`."""

from __future__ import annotations

import asyncio
import re
import select
import threading
import time
from contextlib import contextmanager

import pytest
from conftest import RESET, read_all, read_answer, read_answers, serving_application, socket, wait_for

from watchdog_app import Application, Function, Settings

HEAD = b"POST / HTTP/1.1\r\nHost: test\r\n"
CLOSE = b"Connection: close\r\n"


@contextmanager
def streaming(handle, **settings):
    """Serve a function with `stream_request`."""
    application = Application(Function(handle, stream_request=True), Settings(**settings), {"HOSTNAME": "test"})
    with serving_application(application, **settings) as served:
        yield served


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def lines(event, context):
    return [line.decode() for line in event.stream]


def whole(event, context):
    return event.body


def length(event, context):
    total = 0
    while piece := event.stream.read(100_000):
        total += len(piece)
    return str(total)


@pytest.mark.parametrize("slices", [0, 1, 7])
@pytest.mark.parametrize(
    "function", [whole, lambda event, context: event.stream.read(), lambda event, context: b"".join(event.stream)]
)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"Content-Length: 11\r\n\r\none\ntwo\nend", id="length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n7\r\ntwo\nend\r\n0\r\n\r\n", id="chunked"),
    ],
)
def test_body_is_read_whole_however_it_arrives(body, function, slices):
    with streaming(function) as served:
        assert read_answer(served.talk(HEAD + CLOSE + body, slices))[0].body == b"one\ntwo\nend"
        assert len(read_answers(served.talk((HEAD + body) * 2, slices))) >= 1


def test_function_runs_while_the_body_arrives():
    with streaming(lambda event, context: (line for line in event.stream)) as served, served.connect() as sock:
        sock.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"one\n"))
        received = b""
        while b"one\n" not in received:
            received += sock.recv(1000)
        sock.sendall(chunk(b"two\n") + b"0\r\n\r\n")
        while not received.endswith(b"0\r\n\r\n"):
            received += sock.recv(1000)
    assert read_answer(received)[0].body == b"one\ntwo\n"


@pytest.mark.parametrize("piece", [b"x", b"x" * 16], ids=["tiny", "small"])
def test_more_chunks_than_are_taken_at_once_are_read_to_their_end(piece):
    with streaming(length) as served:
        raw = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(piece) * 20_000 + b"0\r\n\r\n"
        answer, rest = read_answer(served.talk(raw))
    assert (answer.text, rest) == (str(20_000 * len(piece)), b"")


def test_connection_goes_on_after_a_body_that_was_read_to_its_end():
    body = b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000
    with streaming(length) as served, served.connect() as sock:
        for _ in range(3):
            sock.sendall(HEAD + body)
            answer = read_answer(sock.recv(1000))[0]
            assert (answer.body, answer.closes) == (b"200000", False)


def test_body_that_is_not_read_ends_the_connection_and_the_answer_comes():
    with streaming(lambda event, context: "not wanted") as served, served.connect() as sock:
        sock.sendall(HEAD + b"Content-Length: 10000000\r\n\r\n" + b"x" * 100_000)
        answer = read_answer(sock.recv(1000))[0]
        assert (answer.body, answer.closes) == (b"not wanted", True)
        assert read_all(sock) == b""


def test_max_body_does_not_limit_a_stream():
    with streaming(length, max_body="1KB") as served:
        assert served.request("POST", body=b"x" * 300_000).body == b"300000"


def test_continue_is_sent_when_the_function_reads():
    with streaming(length) as served, served.connect() as sock:
        sock.sendall(HEAD + CLOSE + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"12345")
        assert read_answer(read_all(sock))[0].body == b"5"


def test_no_continue_where_the_function_does_not_read():
    with streaming(lambda event, context: ("no", 403)) as served, served.connect() as sock:
        sock.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        answer, rest = read_answer(read_all(sock))
    assert (answer.status, answer.closes, rest) == (403, True, b"")


def test_no_continue_where_an_async_function_does_not_read():
    async def waits(event, context):
        await asyncio.sleep(0.01)
        return "no", 403

    with streaming(waits) as served, served.connect() as sock:
        sock.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        answer, rest = read_answer(read_all(sock))
    assert (answer.status, answer.closes, rest) == (403, True, b"")


def test_stream_that_is_read_after_its_call_takes_nothing_of_the_next():
    streams, read_again = [], threading.Event()

    def reads_the_first_again(event, context):
        streams.append(event.stream)
        again = streams[0].read()
        if len(streams) == 1:
            return again
        read_again.set()
        return [again.decode(), event.stream.read().decode()]

    with streaming(reads_the_first_again) as served, served.connect() as sock:
        sock.sendall(HEAD + b"Content-Length: 5\r\n\r\n1")
        wait_for(lambda: streams, "the first call")
        sock.sendall(b"2345")
        assert read_answer(sock.recv(1000))[0].body == b"12345"
        sock.sendall(HEAD + CLOSE + b"Content-Length: 5\r\n\r\n1")
        assert read_again.wait(10)
        sock.sendall(b"2345")
        assert read_answer(read_all(sock))[0].text == '["","12345"]'


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"Content-Length: 10\r\n\r\n12345", 400, id="cut"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nx\r\n", 400, id="not a chunk"),
    ],
)
def test_body_that_is_not_valid_is_refused_when_it_is_read(sent, status, log):
    with streaming(length) as served:
        answer, rest = read_answer(served.talk(HEAD + sent))
    assert (answer.status, answer.closes, rest) == (status, True, b"")
    assert log.getvalue() == ""


def test_body_that_stops_arriving_is_a_408():
    with streaming(length, read_timeout="100ms") as served:
        assert read_answer(served.talk(HEAD + b"Content-Length: 10\r\n\r\n12345", half_close=False))[0].status == 408


def test_body_that_arrives_too_slowly_is_a_408():
    with streaming(length, read_timeout="200ms") as served, served.connect() as sock:
        sock.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        sent = 0
        while not select.select([sock], [], [], 0.05)[0]:  # each byte comes in time
            sock.sendall(b"x")
            sent += 1
        assert read_answer(read_all(sock))[0].status == 408
    assert 1 < sent < 100


def test_sender_is_not_blamed_for_a_function_that_reads_slowly():
    arrived = threading.Event()

    def reads_late(event, context):
        first = event.stream.read(1)
        arrived.wait(10)
        time.sleep(0.1)  # longer than read_timeout
        return first + event.stream.read()

    with streaming(reads_late, read_timeout="50ms") as served, served.connect() as sock:
        sock.sendall(HEAD + CLOSE + b"Content-Length: 50001\r\n\r\n1")
        threading.Thread(target=lambda: (sock.sendall(b"x" * 50_000), arrived.set())).start()
        assert len(read_answer(read_all(sock))[0].body) == 50_001


def test_sender_that_resets_the_connection_is_no_failure_of_the_function(log):
    begun, ended = threading.Event(), []

    def reads(event, context):
        begun.set()
        try:
            return event.stream.read()
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    with streaming(reads) as served:
        with served.connect() as sock:
            sock.sendall(HEAD + b"Content-Length: 10\r\n\r\n12345")
            assert begun.wait(10)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        wait_for(lambda: ended, "the end of the call")
        wait_for(lambda: not served.server.connections, "the end of the connection")
    assert ended == ["SenderGone"]
    assert log.getvalue() == ""


def test_upload_does_not_hold_up_other_calls():
    with streaming(length) as served, served.connect() as slow:
        slow.sendall(HEAD + b"Content-Length: 10\r\n\r\n12345")
        assert served.request("POST", body=b"123").body == b"3"


def test_large_upload_and_its_way_back_take_constant_memory():
    size, piece = 64 << 20, b"x" * (1 << 20)
    memory = []

    def echo(event, context):
        for part in iter(lambda: event.stream.read(65536), b""):
            memory.append(resident())
            yield part

    with streaming(echo) as served, served.connect() as sock:
        threading.Thread(
            target=lambda: [
                sock.sendall(head) for head in [HEAD + CLOSE + b"Content-Length: %d\r\n\r\n" % size] + [piece] * 64
            ]
        ).start()
        received = 0
        while data := sock.recv(1 << 16):
            received += len(data)
    assert received > size
    assert max(memory) - memory[0] < 8 << 20


def resident():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) << 10


def test_caller_who_has_gone_is_seen_by_a_plain_function(log):
    begun, seen = threading.Event(), []

    def waits(event, context):
        begun.set()
        end = time.monotonic() + 10
        while not context.cancelled and time.monotonic() < end:
            time.sleep(0.01)
        seen.append(context.cancelled)

    with streaming(waits) as served:
        with served.connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert begun.wait(10)
            assert not seen
        wait_for(lambda: seen, "the end of the call")
    assert seen == [True]
