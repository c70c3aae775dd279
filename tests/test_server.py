"""The scheduler and its connections: nobody waits for anybody else's call, and nothing is lost."""

import collections
import contextlib
import functools
import io
import os
import resource
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import (
    DEADLINE,
    pause,
    process,
    read_all,
    read_answer,
    read_answers,
    serving,
    serving_application,
    wait_for,
)

import watchdog_app

GET = b"GET /%b HTTP/1.1\r\nHost: test\r\n\r\n"


def ask(sock, path=b"", raw=None):
    sock.sendall(raw or GET % path)
    return next_answer(sock)


def next_answer(sock):
    data = b""
    while True:
        piece = sock.recv(65536)
        assert piece, f"closed after {data!r}"
        data += piece
        with contextlib.suppress(AssertionError):
            answer, rest = read_answer(data)
            assert not rest
            return answer


def worker_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("call-")]


class Gate:
    """A function whose calls to /wait wait until the gate is opened; others answer at once."""

    def __init__(self):
        self.opened, self.waiting, self.lock = threading.Event(), 0, threading.Lock()

    def __call__(self, event, context):
        if event.path == "/wait":
            with self.lock:
                self.waiting += 1
            self.opened.wait(DEADLINE)
        return event.path


@contextlib.contextmanager
def gated(**settings):
    gate = Gate()
    with serving(lambda event, context: gate(event, context), **settings) as server:
        try:
            yield gate, server
        finally:
            gate.opened.set()


class SteppingClock:
    """A clock that stands still until a test moves it."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def advance(self, server, seconds):
        wait_for(lambda: server.server.lead.current is None, "the end of the exchange")
        self.now += seconds
        server.server.inbox.put(-1)  # wakes the leader


@contextlib.contextmanager
def clocked(function, **settings):
    clock = SteppingClock()
    application = watchdog_app.Application(function, watchdog_app.Settings(**settings), {})
    with serving_application(application, clock, **settings) as server:
        yield clock, server


# ---- calls that block ----


def test_call_that_blocks_holds_up_nobody():
    with gated() as (gate, server), server.connect() as blocked, server.connect() as other:
        blocked.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 1)
        assert [ask(other).body for _ in range(20)] == [b"/"] * 20
        gate.opened.set()
        assert next_answer(blocked).body == b"/wait"


def test_many_calls_that_block_run_at_the_same_time():
    with gated() as (gate, server), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(40)]
        for sock in socks:
            sock.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 40, "40 calls at once")
        gate.opened.set()
        assert {next_answer(sock).body for sock in socks} == {b"/wait"}


def test_short_calls_stay_short_beside_calls_that_sleep():
    with gated() as (gate, server), contextlib.ExitStack() as stack:
        sleeping = [stack.enter_context(server.connect()) for _ in range(8)]
        for sock in sleeping:
            sock.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 8, "8 calls that sleep")
        times = []
        with server.connect() as sock:
            end = time.monotonic() + 0.8
            while time.monotonic() < end:
                began = time.perf_counter()
                ask(sock)
                times.append(time.perf_counter() - began)
        times.sort()
        assert times[int(len(times) * 0.99)] < 0.020
        gate.opened.set()
        assert {next_answer(sock).status for sock in sleeping} == {200}


def test_calls_above_the_limit_of_threads_wait_and_are_served():
    with gated(threads="2") as (gate, server), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(6)]
        for sock in socks:
            sock.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 2 and len(server.server.lead.queue) == 4, "two calls and a queue of four")
        assert server.talk(b"bad\r\n\r\n").startswith(b"HTTP/1.1 400 "), "the leader still refuses"
        gate.opened.set()
        assert [next_answer(sock).body for sock in socks] == [b"/wait"] * 6


def test_queue_is_served_in_order_of_arrival():
    order = []
    gate = Gate()

    def function(event, context):
        order.append(event.path)
        return gate(event, context)

    with serving(function, threads="1") as server, contextlib.ExitStack() as stack:
        stack.callback(gate.opened.set)
        first = stack.enter_context(server.connect())
        first.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 1)
        socks = []
        for index in range(4):
            socks.append(stack.enter_context(server.connect()))
            socks[-1].sendall(GET % b"%d" % index)
            wait_for(lambda expected=index + 1: len(server.server.lead.queue) == expected)
        gate.opened.set()
        for sock in socks:
            next_answer(sock)
    assert order == ["/wait", "/0", "/1", "/2", "/3"]


@pytest.fixture
def no_more_threads(monkeypatch):
    """Let the system refuse more threads for calls while it is set, as a limit on processes does."""
    refused = threading.Event()
    start = threading.Thread.start

    def limited(self):
        if refused.is_set() and self.name.startswith("call-"):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return refused


@pytest.mark.parametrize(
    "path", [pytest.param(b"wait", id="a call that blocks"), pytest.param(b"stream", id="a stream to a slow reader")]
)
def test_lead_is_kept_where_the_system_allows_no_more_threads(path, no_more_threads):
    gate = Gate()

    def function(event, context):
        return (b"x" * 100_000 for _ in range(200)) if event.path == "/stream" else gate(event, context)

    with serving(function) as server, server.connect() as first, server.connect() as second, server.connect() as third:
        no_more_threads.set()
        try:
            first.sendall(GET % b"wait")
            wait_for(lambda: gate.waiting == 1)
            second.sendall(GET % path)
            wait_for(lambda: len(server.server.lead.queue) == 1, "a queue")
            assert server.talk(b"bad\r\n\r\n").startswith(b"HTTP/1.1 400 ")
            no_more_threads.clear()
            assert ask(third).body == b"/", "a thread can be had again"
            wait_for(lambda: not server.server.lead.queue, "the end of the queue")
        finally:
            gate.opened.set()


def test_call_that_computes_does_not_hold_up_others():
    stop = threading.Event()

    def function(event, context):
        while event.path == "/loop" and not stop.is_set():
            sum(range(1000))
        return "x"

    interval = sys.getswitchinterval()
    sys.setswitchinterval(watchdog_app.SWITCH_INTERVAL)
    try:
        with serving(function) as server, server.connect() as busy, server.connect() as other:
            busy.sendall(GET % b"loop")
            try:
                assert [ask(other).status for _ in range(20)] == [200] * 20
            finally:
                stop.set()
            assert next_answer(busy).status == 200
    finally:
        sys.setswitchinterval(interval)


def test_function_that_always_blocks_passes_the_lead_on_before_its_calls():
    def function(event, context):
        time.sleep(0.01)
        return "x"

    with serving(function) as server, server.connect() as sock:
        for _ in range(10):
            ask(sock)
        assert server.server.lead.expectation.blocks("/")
        assert (
            not server.server.lead.expectation.blocks("/other")
            or server.server.lead.expectation.average > watchdog_app.SLOW
        )


def test_calls_that_are_stuck_tell_that_their_like_will_block_before_one_has_ended():
    with gated() as (gate, server), contextlib.ExitStack() as stack:
        for number in range(3):
            stack.enter_context(server.connect()).sendall(GET % b"wait")
            wait_for(lambda: gate.waiting == number + 1 and server.server.lead.current is None, "the successor's lead")
        assert server.server.lead.expectation.blocks("/wait")


def test_stuck_call_counts_once():
    with gated() as (gate, server), server.connect() as sock:
        sock.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 1 and server.server.lead.current is None, "the successor's lead")
        average = server.server.lead.expectation.average
        assert 0 < average <= watchdog_app.SAMPLE_LIMIT * watchdog_app.WEIGHT
        gate.opened.set()
        assert next_answer(sock).status == 200
        wait_for(lambda: not connections(server)[0].apart, "the end of the exchange")
        assert server.server.lead.expectation.average == average


def test_one_slow_call_does_not_make_the_next_ones_expected_to_block():
    expectation = watchdog_app.Expectation()
    expectation.note("/", 60.0)
    assert not expectation.blocks("/")
    for _ in range(5):
        expectation.note("/?with=query", 60.0)
    assert expectation.blocks("/?another=query")
    for _ in range(30):
        expectation.note("/", 0.00001)
    assert not expectation.blocks("/")


def test_connection_has_one_owner_at_a_time(monkeypatch):
    owners = collections.Counter()
    run = watchdog_app.Connection.run

    @functools.wraps(run)
    def counted(self, server):
        owners[self] += 1
        assert owners[self] == 1, "two exchanges on one connection"
        try:
            return run(self, server)
        finally:
            owners[self] -= 1

    monkeypatch.setattr(watchdog_app.Connection, "run", counted)

    def function(event, context):
        time.sleep(float(event.query["s"]))
        return event.query["s"]

    with serving(function) as server, server.connect() as sock:
        pauses = [b"0", b"0.004", b"0", b"0", b"0.01", b"0"] * 5
        sock.sendall(b"".join(GET % (b"?s=" + pause) for pause in pauses))
        sock.shutdown(socket.SHUT_WR)
        assert [answer.body for answer in read_answers(read_all(sock))] == pauses


# ---- connections ----


def test_pipelined_requests_are_answered_in_order():
    with serving(lambda event, context: event.path) as server:
        data = server.talk(b"".join(GET % b"%d" % index for index in range(100)))
        assert [answer.text for answer in read_answers(data)] == [f"/{index}" for index in range(100)]


def test_pipelined_requests_of_one_peer_do_not_hold_up_another():
    seen = []

    def function(event, context):
        seen.append(event.path)
        return "x"

    with serving(function) as server, server.connect() as greedy, server.connect() as modest:
        ask(greedy, b"greedy")
        greedy.sendall(b"".join(GET % b"greedy" for _ in range(1000)))
        ask(modest, b"modest")
        wait_for(lambda: len(seen) == 1002)
    assert seen.index("/modest") < 1001


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(b"1\r\nx\r\n", id="tiny"),
        pytest.param(b"1;a\r\nx\r\n", id="with extensions"),
        pytest.param(b"10\r\n0123456789abcdef\r\n", id="small"),
        pytest.param(b"10000\r\n" + b"x" * 65536 + b"\r\n", id="large"),
    ],
)
def test_bodies_that_take_many_turns_let_others_go_first(chunk, monkeypatch):
    """All has come before the server starts; then between two calls of another caller lies a turn of one body, not of each."""
    steps, receive = [], watchdog_app.RequestReader.receive
    monkeypatch.setattr(
        watchdog_app.RequestReader, "receive", lambda self, data: steps.append("turn") or receive(self, data)
    )
    monkeypatch.setattr(watchdog_app, "TURN", 0.0)
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    with (
        not_started(handle=lambda event, context: steps.append("call")) as (server, address),
        contextlib.ExitStack() as stack,
    ):
        for _ in range(8):
            greedy = stack.enter_context(socket.create_connection(address, DEADLINE))
            greedy.sendall(head + chunk * (300_000 // len(chunk)))
        modest = stack.enter_context(socket.create_connection(address, DEADLINE))
        modest.sendall(GET % b"modest" * 10)
        server.start()
        wait_for(lambda: steps.count("call") == 10, "the calls")
    between = "".join(step[0] for step in steps).split("c")[1:10]  # a turn is t, a call c
    assert max(map(len, between)) < 6, "its own, and a few of one body"


def test_many_chunks_behind_a_call_that_is_expected_to_block_are_read_to_their_end():
    with (
        not_started(handle=lambda event, context: event.path) as (server, address),
        socket.create_connection(address, DEADLINE) as sock,
    ):
        server.lead.expectation.paths["/slow"] = 1.0
        sock.sendall(
            GET % b"slow" + POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;a\r\nx\r\n" * 5000 + b"0\r\n\r\n"
        )
        server.start()  # all has come by now, and no event will tell of more
        received = b""
        while received.count(b"HTTP/1.1 200") < 2 or not received.endswith(b"/"):
            received += sock.recv(1000)
    assert [answer.body for answer in read_answers(received)] == [b"/slow", b"/"]


def test_half_closed_client_still_gets_its_answer():
    with gated() as (gate, server), server.connect() as sock:
        sock.sendall(GET % b"wait")
        sock.shutdown(socket.SHUT_WR)
        wait_for(lambda: gate.waiting == 1)
        gate.opened.set()
        assert read_answer(read_all(sock))[0].body == b"/wait"


def test_idle_connections_cost_no_thread():
    with serving(lambda event, context: "x") as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(200)]
        assert {ask(sock).status for sock in socks} == {200}
        assert len(worker_threads()) < 7


def test_threads_retire_when_there_is_no_work_for_them(monkeypatch):
    monkeypatch.setattr(watchdog_app, "PARKED_SECONDS", 0.05)
    with gated() as (gate, server), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(10)]
        for sock in socks:
            sock.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 10)
        gate.opened.set()
        for sock in socks:
            next_answer(sock)
        wait_for(lambda: server.server.lead.workers == 2, "the leader and one to take the lead from it")
        assert ask(socks[0]).status == 200


def test_large_answer_waits_for_a_slow_reader_without_a_thread():
    body = os.urandom(1 << 20) * 16
    with (
        serving(lambda event, context: body if event.path == "/large" else "x") as server,
        server.connect() as slow,
        server.connect() as other,
    ):
        slow.sendall(GET % b"large")
        assert [ask(other).body for _ in range(10)] == [b"x"] * 10
        wait_for(
            lambda: sorted(states(server)) == ["idle", "sending"],
            "the selector's watch",
        )
        take_answer(slow, len(body))
        wait_for(
            lambda: [type(c.out) for c in connections(server)] == [bytes] * 2,
            "the end of the view that keeps the answer in memory",
        )


def test_requests_behind_a_large_answer_wait_for_it():
    body = b"x" * (8 << 20)
    with serving(lambda event, context: body if event.path == "/large" else "small") as server:
        data = server.talk(GET % b"large" + GET % b"small")
        assert [len(answer.body) for answer in read_answers(data)] == [len(body), 5]


def test_stream_to_a_slow_reader_holds_up_nobody():
    def function(event, context):
        return (b"x" * 100_000 for _ in range(200)) if event.path == "/stream" else "x"

    with serving(function) as server, server.connect() as slow, server.connect() as other:
        slow.sendall(GET % b"stream")
        assert [ask(other).body for _ in range(10)] == [b"x"] * 10
        slow.shutdown(socket.SHUT_WR)
        assert len(read_answer(read_all(slow))[0].body) == 20_000_000


def test_peer_that_resets_costs_only_its_own_connection(log):
    with gated() as (gate, server), server.connect() as other:
        for index in range(20):
            sock = server.connect()
            sock.sendall(GET % b"wait"[: index % 5])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        gate.opened.set()
        assert ask(other).status == 200
        wait_for(lambda: len(server.server.connections) == 1, "the end of the others")
    assert log.getvalue() == ""


def test_answer_to_a_refused_upload_reaches_the_caller():
    with serving(lambda event, context: "x", max_body="1MB") as server:
        for _ in range(5):
            with server.connect() as sock:
                sender = threading.Thread(target=send_upload, args=(sock,))
                sender.start()
                assert read_answer(read_all(sock))[0].status == 413
                sender.join(DEADLINE)


def send_upload(sock):
    with contextlib.suppress(OSError):
        sock.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % (8 << 20))
        sock.sendall(b"x" * (8 << 20))


def test_one_send_carries_a_materialised_answer(monkeypatch):
    sizes = []
    send = watchdog_app.Connection.send
    monkeypatch.setattr(watchdog_app.Connection, "send", lambda self, data: sizes.append(len(data)) or send(self, data))
    with serving(lambda event, context: {"statusCode": 200, "body": {"a": 1}, "headers": {"X-A": "b"}}) as server:
        data = server.talk(GET % b"")
    assert sizes == [len(data)]


# ---- deadlines, by a clock that the test moves ----


def connections(server):
    """Return the connections that a server has now."""
    return list(server.server.connections.values())


def states(server):
    """Return their states."""
    return [connection.state for connection in connections(server)]


def is_kept(server, sock):
    """Tell whether `sock` is still open, and nothing has come on it, after the leader had a turn at the time that it is now."""
    with server.connect() as other:
        ask(other)
    sock.setblocking(False)
    try:
        sock.recv(1)
        return False
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(DEADLINE)


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
HALF = [
    pytest.param(b"GET / HT", b"TP/1.1\r\nHost: a\r\n\r\n", 10, id="head not complete after 10 s"),
    pytest.param(POST + b"Content-Length: 5\r\n\r\nab", b"cde", 30, id="body without progress for 30 s"),
    pytest.param(POST + b"Content-Length: 5\r\n\r\n", b"abcde", 30, id="body that does not begin for 30 s"),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"cde\r\n0\r\n\r\n",
        30,
        id="chunk without progress for 30 s",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: b", b"\r\n\r\n", 30, id="trailer not complete after 30 s"
    ),
]


@contextlib.contextmanager
def begun(sent):
    """Serve with a clock, and send the first part of a request."""
    with clocked(lambda event, context: "x") as (clock, server), server.connect() as sock:
        sock.sendall(sent)
        wait_for(lambda: states(server) in (["head"], ["body"]), "the first part")
        yield clock, server, sock


@pytest.mark.parametrize(("sent", "rest", "seconds"), HALF)
def test_request_that_does_not_get_on_is_refused(sent, rest, seconds):
    with begun(sent) as (clock, server, sock):
        clock.advance(server, seconds + 1)
        answer, behind = read_answer(read_all(sock))
        assert (answer.status, answer.closes, behind) == (408, True, b"")


@pytest.mark.parametrize(("seconds", "status"), [(4, 200), (6, 408)])
@pytest.mark.parametrize(
    "length", [pytest.param(0, id="nothing has come"), pytest.param(2, id="little"), pytest.param(50_000, id="much")]
)
def test_body_has_read_timeout_to_get_on(length, seconds, status):
    with clocked(lambda event, context: "x", read_timeout="5s") as (clock, server), server.connect() as sock:
        sock.sendall(POST + b"Content-Length: %d\r\n\r\n" % (length + 3) + b"x" * length)
        wait_for(lambda: body_received(server) == length, "the first part")
        clock.advance(server, seconds)
        answer = ask(sock, raw=b"end") if status == 200 else read_answer(read_all(sock))[0]
        assert answer.status == status


def test_body_that_trickles_has_read_timeout_in_all():
    with clocked(lambda event, context: "x", read_timeout="5s") as (clock, server), server.connect() as sock:
        sock.sendall(POST + b"Content-Length: 5\r\n\r\na")
        wait_for(lambda: body_received(server) == 1, "the first byte")
        clock.advance(server, 4)
        sock.sendall(b"b")
        wait_for(lambda: body_received(server) == 2, "the second byte")
        clock.advance(server, 2)
        assert read_answer(read_all(sock))[0].status == 408


@pytest.mark.parametrize(("sent", "rest", "seconds"), HALF)
def test_request_that_gets_on_just_in_time_is_served(sent, rest, seconds):
    with begun(sent) as (clock, server, sock):
        clock.advance(server, seconds - 1)
        assert is_kept(server, sock)
        assert ask(sock, raw=rest).status == 200


def test_body_that_does_not_come_after_a_100_is_refused():
    with clocked(lambda event, context: "x") as (clock, server), server.connect() as sock:
        assert ask(sock, raw=POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n").status == 100
        wait_for(lambda: states(server) == ["body"], "the wait for the body")
        clock.advance(server, 29)
        assert is_kept(server, sock)
        clock.advance(server, 2)
        assert read_answer(read_all(sock))[0].status == 408


def test_peer_whose_request_has_had_its_time_may_still_send_and_gets_its_answer():
    with begun(b"GET / HT") as (clock, server, sock):
        clock.advance(server, 11)
        wait_for(lambda: states(server) == ["lingering"], "the refusal")
        sock.sendall(b"TP/1.1\r\n")
        wait_for(lambda: [c.discarded for c in connections(server)] == [8], "what is discarded")
        assert read_answer(read_all(sock))[0].status == 408


def test_head_has_its_time_from_the_first_byte_not_from_the_last():
    with clocked(lambda event, context: "x") as (clock, server), server.connect() as sock:
        for number in range(1, 6):
            sock.sendall(b"GET /"[number - 1 : number])
            wait_for(
                lambda length=number: (
                    [len(c.reader.buffer) for c in connections(server) if c.state == "head"] == [length]
                ),
                "the byte",
            )
            clock.advance(server, 2.4)
        assert read_answer(read_all(sock))[0].status == 408


def test_body_has_its_time_without_progress_from_its_last_byte():
    with clocked(lambda event, context: "x") as (clock, server), server.connect() as sock:
        sock.sendall(POST + b"Content-Length: 100000\r\n\r\n")
        for received in range(20_000, 100_000, 20_000):
            sock.sendall(b"x" * 20_000)
            wait_for(lambda expected=received: body_received(server) == expected, "progress")
            clock.advance(server, 19)
        assert ask(sock, raw=b"x" * 20_000).status == 200


def test_body_that_pauses_is_refused_although_much_of_it_has_come():
    with clocked(lambda event, context: "x") as (clock, server), server.connect() as sock:
        sock.sendall(POST + b"Content-Length: 200000\r\n\r\n" + b"x" * 100_000)
        wait_for(lambda: body_received(server) == 100_000, "the first half")
        clock.advance(server, 29)
        assert is_kept(server, sock)
        clock.advance(server, 2)
        assert read_answer(read_all(sock))[0].status == 408


@pytest.mark.parametrize(("seconds", "kept"), [pytest.param(49, True, id="49 s"), pytest.param(51, False, id="51 s")])
def test_body_slower_than_1_kib_a_second_on_average_after_its_first_30_s_is_refused(seconds, kept):
    with clocked(lambda event, context: "x") as (clock, server), server.connect() as sock:
        sock.sendall(POST + b"Content-Length: 20481\r\n\r\n")
        wait_for(lambda: body_received(server) == 0, "the head")
        clock.advance(server, 25)
        sock.sendall(b"x" * 20_480)
        wait_for(lambda: body_received(server) == 20_480, "progress")
        clock.advance(server, seconds - 25)
        assert is_kept(server, sock) == kept
        assert not kept or ask(sock, raw=b"x").status == 200


def body_received(server):
    """Return how much of a body the one connection has, once it waits for more of it."""
    return next((c.reader.received for c in connections(server) if c.state == "body"), None)


LARGE = 32 << 20  # bytes, which no socket takes at once


@pytest.mark.parametrize(
    ("seconds", "open_after"),
    [pytest.param(91, True, id="91 s"), pytest.param(119, True, id="119 s"), pytest.param(121, False, id="121 s")],
)
@pytest.mark.parametrize(
    ("sent", "length"),
    [
        pytest.param(b"", 0, id="nothing asked"),
        pytest.param(b"\r\n", 0, id="a blank line"),
        pytest.param(GET % b"", 1, id="a small answer"),
        pytest.param(GET % b"large", LARGE, id="a large answer"),
        pytest.param(GET % b"stream", len(b"1\r\nx\r\n0\r\n\r\n"), id="a stream"),
    ],
)
def test_idle_connection_is_kept_longer_than_the_watchdog_may_reuse_it(sent, length, seconds, open_after):
    def function(event, context):
        return {"/large": b"x" * LARGE, "/stream": iter("x")}.get(event.path, "x")

    with clocked(function) as (clock, server), server.connect() as sock:
        wait_for(lambda: connections(server), "the connection")
        if sent:
            sock.sendall(sent)
        if length:
            take_answer(sock, length)
        wait_for(
            lambda: is_waiting(connections(server)[0], asked=length > 0, blank_lines=sent == b"\r\n"),
            "the end of the exchange",
        )
        clock.advance(server, seconds)
        assert is_kept(server, sock) == open_after
        assert not open_after or ask(sock).status == 200


@pytest.mark.parametrize(("seconds", "kept"), [(299, True), (301, False)])
def test_idle_connection_is_kept_for_keep_alive(seconds, kept):
    with clocked(lambda event, context: "x", keep_alive="5m") as (clock, server), server.connect() as sock:
        assert ask(sock).status == 200
        wait_for(lambda: states(server) == ["idle"], "the end of the exchange")
        clock.advance(server, seconds)
        assert is_kept(server, sock) == kept


def test_deadlines_are_looked_at_once_a_second_at_most():
    with (
        clocked(lambda event, context: "x") as (clock, server),
        server.connect() as first,
        contextlib.ExitStack() as stack,
    ):
        wait_for(lambda: len(connections(server)) == 1, "the first connection")
        clock.advance(server, 0.5)
        second = stack.enter_context(server.connect())
        wait_for(lambda: len(connections(server)) == 2, "the second connection")
        clock.advance(server, 119.5)
        assert first.recv(1) == b""
        clock.advance(server, 0.9)
        assert is_kept(server, second), "0.4 s after its deadline, and 0.9 s after the last look"
        clock.advance(server, 0.1)
        assert second.recv(1) == b""


def test_request_that_came_while_the_machine_stood_still_is_served():
    clock = SteppingClock()
    with not_started(clock) as (server, address), socket.create_connection(address, DEADLINE) as sock:
        server.callbacks[server.listener.fileno()]()
        sock.sendall(GET % b"")
        clock.now += 10_000
        server.start()
        assert next_answer(sock).status == 200


def is_waiting(connection, asked, blank_lines):
    """Tell whether a connection waits for its peer, and what has come on it."""
    return (connection.state, connection.reader.steps is not None) == ("idle" if asked else "new", blank_lines)


def take_answer(sock, length):
    """Read one answer whose content, with its framing, has `length` bytes."""
    with sock.makefile("rb") as file:
        while file.readline().rstrip():
            pass
        assert len(file.read(length)) == length


@contextlib.contextmanager
def answering_a_slow_reader(function, **settings):
    """Serve with a clock a peer that takes nothing, and wait until its socket is full."""
    with clocked(function, **settings) as (clock, server), server.connect() as sock:
        sock.sendall(GET % b"")
        wait_for(lambda: states(server) == ["sending"], "a full socket")
        yield clock, server, sock


def wait_for_cut(clock, server, seconds):
    """Wait for the end of a peer that takes nothing for so long; what its kernel took last may be told late, and gives it once more as long."""
    clock.advance(server, seconds)
    wait_for(lambda: not connections(server) or clock.advance(server, seconds), "the end of the connection")


def test_peer_that_takes_nothing_for_write_timeout_is_cut():
    with answering_a_slow_reader(lambda event, context: b"x" * LARGE) as (clock, server, _):
        wait_for_cut(clock, server, 31)


@pytest.mark.parametrize(("seconds", "cut"), [(4, False), (6, True)])
def test_peer_has_write_timeout_to_take_something(seconds, cut):
    with answering_a_slow_reader(
        lambda event, context: b"x" * LARGE if event.path == "/" else "x", write_timeout="5s"
    ) as (clock, server, sock):
        clock.advance(server, seconds)
        with server.connect() as other:  # the leader had a turn
            other.sendall(GET % b"other")
            assert next_answer(other).status == 200
        if cut:
            wait_for_cut(clock, server, seconds)
        else:
            sock.shutdown(socket.SHUT_WR)
            assert read_answer(read_all(sock))[0].body == b"x" * LARGE


def test_peer_that_takes_something_within_write_timeout_is_not_cut():
    with answering_a_slow_reader(lambda event, context: b"x" * LARGE) as (clock, server, sock):
        connection, data = connections(server)[0], b""
        for _ in range(3):
            clock.advance(server, 29)
            left = wait_for(lambda: len(connection.out), "an end of the leader's send")
            data += receive_until(sock, lambda left=left: len(connection.out) < left)
        sock.shutdown(socket.SHUT_WR)
        assert read_answer(data + read_all(sock))[0].body == b"x" * LARGE


@pytest.mark.linux
def test_steady_reader_is_not_cut_though_the_kernel_reports_no_room():
    with answering_a_slow_reader(lambda event, context: b"x" * LARGE if event.path == "/" else "x") as (
        clock,
        server,
        sock,
    ):
        connection = connections(server)[0]
        left = len(connection.out)
        for _ in range(3):
            taken = watchdog_app.acknowledged(connection.sock)
            data = receive_until(sock, lambda taken=taken: watchdog_app.acknowledged(connection.sock) > taken, 1 << 15)
            assert len(data) < LARGE // 8
            clock.advance(server, 31)
            assert server.get("/other").body == b"x", "the leader had a turn"
            assert connection in connections(server) and len(connection.out) == left
        wait_for_cut(clock, server, 31)


@pytest.mark.linux
@pytest.mark.parametrize("reads", [True, False])
def test_steady_reader_of_a_stream_is_not_cut(reads, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        ours, _ = listener.accept()
        with ours:
            ours.setblocking(False)
            settings = watchdog_app.Settings(write_timeout="0.05s")
            connection = watchdog_app.Connection(ours, "", watchdog_app.RequestReader(10_000, 10_000), settings)
            looks = []

            def reports_no_room(fd, mask, seconds):
                looks.append(len(connection.out))
                if len(looks) > 3:
                    raise StopIteration
                if reads:
                    taken = watchdog_app.acknowledged(ours)
                    receive_until(peer, lambda: watchdog_app.acknowledged(ours) > taken, 1 << 15)
                return 0

            monkeypatch.setattr(watchdog_app, "poll_for", reports_no_room)
            with pytest.raises(StopIteration if reads else watchdog_app.Disconnected):
                connection.send_all(b"x" * LARGE)
    assert len(looks) == (4 if reads else 1)


def receive_until(sock, condition, most=1 << 20):
    """Read as much as is needed for `condition` to come about, `most` bytes at a time."""
    data = bytearray()
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        data += sock.recv(most)
    return bytes(data)


@contextlib.contextmanager
def lingering():
    """Serve with a clock a peer whose upload was refused, and who goes on sending."""
    with clocked(lambda event, context: "x") as (clock, server), server.connect() as sock:
        answer = ask(sock, raw=POST + b"Content-Length: 200000000\r\n\r\n")
        assert (answer.status, answer.closes) == (413, True)
        assert sock.recv(1) == b"", "our side is closed at once"
        wait_for(lambda: states(server) == ["lingering"], "the wait for the peer's end")
        yield clock, server, sock


def test_refused_upload_is_discarded_for_2_s():
    with lingering() as (clock, server, sock):
        clock.advance(server, 1.9)
        sock.sendall(b"x" * 1000)
        wait_for(lambda: [c.discarded for c in connections(server)] == [1000], "what is discarded")
        clock.advance(server, watchdog_app.TICK)
        wait_for(lambda: not connections(server), "the end of the connection")


def test_refused_upload_is_discarded_up_to_16_mib():
    with lingering() as (_, server, sock):
        piece = b"x" * (1 << 20)
        for number in range(1, 16):
            sock.sendall(piece)
            wait_for(
                lambda expected=number: [c.discarded for c in connections(server)] == [expected << 20],
                "what is discarded",
            )
        send_all_it_takes(sock, piece + b"x")
        wait_for(lambda: not connections(server), "the end of the connection")


def send_all_it_takes(sock, data):
    with contextlib.suppress(OSError):
        sock.sendall(data)


def test_refused_peer_that_closes_is_not_waited_for():
    with lingering() as (_, server, sock):
        sock.close()
        wait_for(lambda: not connections(server), "the end of the connection")


def test_generator_is_closed_when_its_peer_takes_nothing_for_write_timeout():
    closed = threading.Event()

    def stream():
        try:
            while True:
                yield b"x" * 1_000_000
        finally:
            closed.set()

    with serving(lambda event, context: stream(), write_timeout="0.3s") as server, server.connect() as sock:
        sock.sendall(GET % b"")
        assert closed.wait(DEADLINE)
        wait_for(lambda: not connections(server), "the end of the connection")


def test_stream_waits_for_a_reader_who_pauses():
    with serving(lambda event, context: iter([b"x" * LARGE]), write_timeout="10s") as server, server.connect() as sock:
        sock.sendall(GET % b"")
        wait_for(lambda: any(c.out for c in connections(server)), "a full socket")
        pause(0.1)  # of write_timeout it is a hundredth
        sock.shutdown(socket.SHUT_WR)
        assert len(read_answer(read_all(sock))[0].body) == LARGE


def test_stream_passes_the_lead_on_before_it_waits():
    gate = threading.Event()

    def stream():
        yield b"first"
        gate.wait(DEADLINE * 2)

    with (
        clocked(lambda event, context: stream() if event.path == "/stream" else "x") as (_, server),
        server.connect() as sock,
    ):
        sock.sendall(GET % b"stream")
        try:
            assert server.get().body == b"x", "by this clock, which stands, no call is ever stuck"
        finally:
            gate.set()
        take_answer(sock, len(b"5\r\nfirst\r\n0\r\n\r\n"))


def test_deadline_set_without_the_lead_is_seen_by_the_leader(monkeypatch):
    monkeypatch.setattr(watchdog_app, "HEAD_SECONDS", 0.1)
    with gated() as (gate, server), server.connect() as sock:
        sock.sendall(GET % b"wait" + b"GET / HT")
        wait_for(lambda: gate.waiting == 1 and connections(server)[0].apart, "a thread of its own")
        gate.opened.set()
        assert [answer.status for answer in read_answers(read_all(sock))] == [200, 408]


def test_what_comes_while_a_thread_owns_the_connection_is_left_in_peace():
    with gated() as (gate, server), server.connect() as sock:
        sock.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 1 and connections(server)[0].apart, "a thread of its own")
        assert connections(server)[0].watched == watchdog_app.IN, "nothing has come yet"
        sock.sendall((GET % b"b").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        wait_for(
            lambda: connections(server)[0].watched == 0,
            "the end of the watch, lest the leader be woken again and again",
        )
        gate.opened.set()
        assert [answer.text for answer in read_answers(read_all(sock))] == ["/wait", "/b"]


def test_refusals_are_no_sign_of_short_calls():
    def function(event, context):
        time.sleep(0.01)

    with serving(function) as server, server.connect() as sock:
        for _ in range(3):
            ask(sock)
        wait_for(lambda: not connections(server)[0].apart, "the end of the exchange")
        before = server.server.lead.expectation.average
        assert server.talk(b"bad\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert server.server.lead.expectation.average == before


def test_queued_call_whose_time_is_over_is_no_sign_of_short_calls():
    clock = SteppingClock()
    with pair(clock, exec_timeout="1s") as (connection, peer):
        peer.sendall(GET % b"")
        assert connection.step()
        connection.queue()
        clock.now += 1
        assert connection.has_call()
        assert connection.request.refusal.status == 503
        assert connection.noted


# ---- peers that have gone, in the middle of something ----


@contextlib.contextmanager
def pair(clock=time.monotonic, **settings):
    """Make a connection without a server, and its peer."""
    sock, peer = socket.socketpair()
    sock.setblocking(False)
    with sock, peer:
        reader = watchdog_app.RequestReader(1 << 18, 1 << 20)
        yield watchdog_app.Connection(sock, "peer", reader, watchdog_app.Settings(**settings), clock), peer


@pytest.mark.linux
def test_connection_that_the_selector_does_not_take_is_closed_and_logged(log):
    with not_started() as (server, _), pair() as (connection, _):
        server.connections[connection.fd] = connection
        os.close(connection.fd)
        server._settle(connection)
        assert not server.connections
    assert "a connection is lost" in log.getvalue()


def test_connection_whose_descriptor_the_function_has_closed_is_forgotten():
    with not_started() as (server, _), pair() as (connection, _):
        server.connections[connection.fd] = connection
        os.close(connection.fd)
        server.inbox.put(connection.fd)  # as a result that is ready does
        server.start()
        wait_for(lambda: not server.connections, "the end of the connection")


def test_result_that_is_ready_when_its_connection_is_given_back_is_taken(monkeypatch):
    unwatch = watchdog_app.Server._unwatch

    def given_back_meanwhile(server, connection):
        unwatch(server, connection)
        connection.apart = False

    with not_started() as (server, _), pair() as (connection, _):
        monkeypatch.setattr(watchdog_app.Server, "_unwatch", given_back_meanwhile)
        server.connections[connection.fd] = connection
        connection.apart = True
        server.ready.append(connection.fd)  # the event that tells of the result
        server._serve()
        assert connection.fd in server.ready, "the event is served"
        server.connections.clear()


def test_memory_of_a_connection_is_let_go_for_good_when_it_is_closed():
    with pair() as (connection, _):
        memory = connection.reader.memory
        connection.claim(10)
        assert memory.held == 10
        connection.close()
        connection.claim(10)  # by a coroutine that has not been cancelled yet
        assert memory.held == 0


def test_caller_who_has_gone_is_not_taken_for_the_next_one_with_its_descriptor():
    with pair() as (connection, _):
        number = connection.fd
        assert not connection.has_gone()
        connection.close()
        left, right = socket.socketpair()
        with left, right:
            assert number in (left.fileno(), right.fileno())
            assert connection.has_gone()


@pytest.mark.parametrize(("turn", "complete"), [(1.0, True), (0.0, False)])
def test_large_request_is_received_as_far_as_it_has_come_but_not_for_ever(monkeypatch, turn, complete):
    monkeypatch.setattr(watchdog_app, "RECEIVE", 1000)
    monkeypatch.setattr(watchdog_app, "TURN", turn)
    with pair() as (connection, peer):
        peer.sendall(POST + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000)
        assert connection.step() is complete
        assert connection.reader.received == (0 if complete else 1000 - len(POST + b"Content-Length: 5000\r\n\r\n"))
        assert connection.more is not complete
        assert not complete or connection.request.body == b"x" * 5000


def test_connection_whose_socket_is_full_keeps_what_is_to_be_sent():
    with pair() as (connection, peer):
        while not connection.out:
            connection.send(b"x" * 100_000)
        left = len(connection.out)
        connection.send_rest()
        assert len(connection.out) == left
        connection.send(b"next")
        assert connection.out == b"next"
        peer.close()
        with pytest.raises(watchdog_app.Disconnected):
            connection.send_rest()


def test_100_that_its_peer_does_not_take_in_time_ends_the_connection():
    with pair() as (connection, peer):
        while not connection.out:
            connection.send(b"x" * 100_000)
        connection.out = b""
        peer.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert not connection.step()
        assert (connection.out, connection.state, connection.mask) == (
            watchdog_app.CONTINUE,
            "sending",
            watchdog_app.OUT,
        )
        assert not connection.expire(connection.deadline)
        assert connection.state == "closed"


@contextlib.contextmanager
def in_a_call(raw):
    """Serve a peer whose first call waits, in a thread of its own, for the gate to open."""
    with gated() as (gate, server), server.connect() as sock:
        sock.sendall(raw)
        wait_for(lambda: gate.waiting == 1 and connections(server)[0].apart, "a thread of its own")
        yield gate, server, sock


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(GET % b"wait" + POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", id="before its 100"),
        pytest.param(GET % b"wait" + b"bad\r\n\r\n", id="before its refusal"),
        pytest.param(
            (GET % b"wait").replace(b"test\r\n", b"test\r\nConnection: close\r\n"), id="before our side is closed"
        ),
    ],
)
def test_peer_that_has_gone_costs_no_record(raw, log):
    with in_a_call(raw) as (gate, server, sock):
        sock.close()
        gate.opened.set()
        wait_for(lambda: not connections(server), "the end of the connection")
    assert log.getvalue() == ""


def test_peer_that_resets_during_a_large_answer_costs_no_record(log):
    with answering_a_slow_reader(lambda event, context: b"x" * LARGE) as (_, server, sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, watchdog_app.RESET)
        sock.close()
        wait_for(lambda: not connections(server), "the end of the connection")
    assert log.getvalue() == ""


# ---- a system that has no more, and a function that takes what is not its own ----


def test_accept_without_descriptors_waits_50_ms_and_goes_on(log, monkeypatch):
    tries = []
    accept = socket.socket._accept
    monkeypatch.setattr(socket.socket, "_accept", lambda self: tries.append(1) or accept(self))
    with clocked(lambda event, context: "x") as (clock, server), server.connect() as other, socket.socket() as waiting:
        waiting.settimeout(DEADLINE)
        ask(other)
        tries.clear()
        with no_more_descriptors():
            waiting.connect(("127.0.0.1", server.port))
            wait_for(lambda: server.server.next_tick == clock.now + 0.05, "the pause")
            clock.advance(server, 0.04)
            assert {ask(other).status for _ in range(10)} == {200}
            assert len(tries) == 1
            clock.advance(server, 0.02)
            wait_for(lambda: len(tries) == 2 and server.server.next_tick == clock.now + 0.05, "a second try")
        clock.advance(server, 0.06)
        assert ask(waiting).status == 200
    assert log.getvalue().count("WARNING accept failed: [Errno 24] Too many open files") == 1


@contextlib.contextmanager
def no_more_descriptors():
    """Let this process open no more than it has."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest:
        free = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_connections_are_accepted_a_number_at_a_time():
    number = watchdog_app.ACCEPT_AT_ONCE + 10
    with contextlib.ExitStack() as stack:
        listener = socket.create_server(("127.0.0.1", 0), backlog=number)
        server = watchdog_app.Server(listener, None, watchdog_app.Settings())  # nothing is asked of the application
        stack.callback(server.close)
        for _ in range(number):
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=DEADLINE))
        accept = server.callbacks[listener.fileno()]
        assert accept() is False
        assert len(server.connections) == watchdog_app.ACCEPT_AT_ONCE
        assert accept() is True
        assert len(server.connections) == number


def test_what_is_sent_does_not_wait_for_more():
    with serving(lambda event, context: "x") as server, server.connect() as sock:
        ask(sock)
        (connection,) = connections(server)
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.linux
def test_closed_connection_is_off_the_selector_although_another_holds_its_socket():
    with serving(lambda event, context: "x") as server:
        with server.connect() as sock:
            ask(sock)
            (connection,) = connections(server)
            watched, copy = f"tfd: {connection.fd:8} ", connection.sock.dup()
            assert watched in selected(server)
        with copy:
            wait_for(lambda: not connections(server), "the end of the connection")
            assert watched not in selected(server)


def selected(server):
    """Return what the kernel says of the selector."""
    return Path(f"/proc/self/fdinfo/{server.server.epoll.fileno()}").read_text()


def test_connection_that_is_aborted_before_it_is_accepted_costs_nothing(log, monkeypatch):
    errors = [ConnectionAbortedError()]
    accept = socket.socket._accept

    def failing(self):
        if errors:
            raise errors.pop()
        return accept(self)

    with clocked(lambda event, context: "x") as (_, server):
        monkeypatch.setattr(socket.socket, "_accept", failing)
        assert server.get().status == 200
        assert errors == []
    assert log.getvalue() == ""


def no_thread(*arguments, **options):
    raise RuntimeError("can't start new thread")


def test_start_without_threads_says_what_is_needed(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = watchdog_app.Server(listener, None, watchdog_app.Settings())
        with pytest.raises(RuntimeError, match="two threads are needed"):
            server.start()
        server.close()


def test_calls_wait_when_the_system_allows_no_more_threads(monkeypatch):
    with gated() as (gate, server), server.connect() as first, server.connect() as second:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        first.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 1 and not server.server.lead.parked, "a new leader, and none behind it")
        second.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 2 or server.server.lead.queue, "the second call")
        gate.opened.set()
        assert (next_answer(first).body, next_answer(second).body) == (b"/wait", b"/wait")


def test_function_that_closes_the_descriptor_of_its_connection_costs_only_that(log):
    closed = []

    def function(event, context):
        if event.path == "/close":
            closed.append(next(iter(server.server.connections)))
            os.close(closed[0])
        return "x"

    with serving(function) as server, server.connect() as sock:
        sock.sendall(GET % b"close")
        wait_for(lambda: closed and closed[0] not in server.server.connections, "the end of the connection")
        assert server.get().status == 200
    assert log.getvalue() == ""


@pytest.mark.linux
def test_function_that_closes_the_selector_ends_the_server_with_a_reason():
    with serving(lambda event, context: os.close(server.server.epoll.fileno())) as server, server.connect() as sock:
        sock.sendall(GET % b"")
        wait_for(lambda: server.server.fault, "the end of the server")
        assert server.server.lead.stopped


@pytest.mark.linux
def test_leader_whose_selector_is_closed_stops_at_once():
    with not_started() as (server, _):
        server.epoll.close()
        server.start()
        wait_for(lambda: server.fault, "the reason")
        assert server.lead.stopped


# ---- the end, and nothing to do ----


def test_drained_server_answers_what_has_come_and_accepts_no_more():
    with gated() as (gate, server), server.connect() as busy, server.connect() as idle:
        ask(idle)
        busy.sendall(GET % b"wait")
        wait_for(lambda: gate.waiting == 1)
        server.server.drain()
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            wait_for(lambda: server.connect().close(), "a refusal")
        assert not server.server.drained()
        gate.opened.set()
        answer = read_answer(read_all(busy))[0]
        assert (answer.body, answer.closes) == (b"/wait", True)
        wait_for(server.server.drained, "the drain's end")


@contextlib.contextmanager
def not_started(clock=time.monotonic, handle=lambda event, context: "x"):
    """Make a server that does not serve yet, on the listener of the program."""
    listener = watchdog_app.listen("127.0.0.1", 0)
    application = watchdog_app.Application(handle, watchdog_app.Settings(), {})
    server = watchdog_app.Server(listener, application, watchdog_app.Settings(), clock)
    try:
        yield server, listener.getsockname()
    finally:
        server.stop()
        wait_for(lambda: server.lead.workers == 0, "the end of the server's threads")
        server.close()


@pytest.mark.linux
def test_backlog_holds_1024_connections():
    with watchdog_app.listen("127.0.0.1", 0) as listener:
        information = struct.unpack("8B6I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32))
    assert information[-1] >= min(1024, int(Path("/proc/sys/net/core/somaxconn").read_text()))


@pytest.mark.parametrize(
    ("waiting", "backlog", "served"),
    [
        pytest.param(1, 1024, 1, id="one"),
        pytest.param(100, 1024, 100, id="more than are accepted at once"),
        pytest.param(129, 128, 128, id="too many"),
    ],
)
def test_drain_accepts_what_waits_in_the_backlog(waiting, backlog, served, monkeypatch):
    with not_started() as (server, address), contextlib.ExitStack() as stack:
        monkeypatch.setattr(watchdog_app, "BACKLOG", backlog)
        socks = [stack.enter_context(socket.create_connection(address, DEADLINE)) for _ in range(waiting)]
        for sock in socks:
            sock.sendall(GET % b"")
        server.closing = server.draining = True  # before the listener is polled
        server.start()
        answers = [read_all(sock) for sock in socks]
        assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) >= served
        wait_for(server.drained, "the drain's end")


def test_drain_leaves_a_new_connection_a_moment_to_ask(monkeypatch):
    looks, leave_idle = [], watchdog_app.Connection.leave_idle
    monkeypatch.setattr(
        watchdog_app.Connection, "leave_idle", lambda self, now: looks.append(1) or leave_idle(self, now)
    )
    with clocked(lambda event, context: "x") as (clock, server), server.connect() as silent, server.connect() as asking:
        wait_for(lambda: len(connections(server)) == 2, "the connections")
        server.server.drain()
        wait_for(lambda: [c.deadline for c in connections(server)] == [clock.now + 1.0] * 2, "the moment")
        wait_for(lambda: len(looks) > 4, "a further look, which changes nothing")
        clock.advance(server, 0.9)
        answer = ask(asking)
        assert (answer.status, answer.closes) == (200, True)
        assert not server.server.drained()
        clock.advance(server, 1.1)
        assert silent.recv(1) == b""
        wait_for(server.server.drained, "the drain's end")


def test_drain_waits_for_an_answer_to_be_taken():
    with answering_a_slow_reader(lambda event, context: b"x" * LARGE) as (_, server, sock):
        server.server.drain()
        wait_for(lambda: server.server.listener.fileno() < 0, "the end of the listener")
        assert not server.server.drained()
        take_answer(sock, LARGE)
        wait_for(server.server.drained, "the drain's end")


def test_last_answer_ends_its_connection():
    with serving(lambda event, context: "x") as server, server.connect() as sock:
        server.server.closing = True
        assert ask(sock).closes
        assert sock.recv(1) == b""


def wakeups(pid):
    """Return how often the process's threads went to sleep of their own will."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        total += int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total


def wakeups_within(seconds, pid):
    """Return how often they do so in this time from now on."""
    before = wakeups(pid)
    pause(seconds)
    return wakeups(pid) - before


def test_idle_server_wakes_once_a_second(tmp_path):
    file = tmp_path / "handler.py"
    file.write_text("def handle(event, context): return 'x'")
    with process(file) as program:
        wait_for(program.answers, "an answer")
        wait_for(lambda: wakeups_within(0.3, program.popen.pid) <= 1, "the rest of the monitor")
        assert wakeups_within(2, program.popen.pid) <= 3


def test_fault_of_the_server_costs_one_connection_and_is_logged(log, monkeypatch):
    step = watchdog_app.Connection.step

    def faulty(self):
        if step(self):
            return True
        if self.reader.buffer == b"poison":
            raise RuntimeError("a fault of the server")
        return False

    monkeypatch.setattr(watchdog_app.Connection, "step", faulty)
    with serving(lambda event, context: "x") as server, server.connect() as sock:
        sock.sendall(b"poison")
        assert read_all(sock) == b""
        assert server.get().status == 200
    assert "a fault of the server" in log.getvalue()


@contextlib.contextmanager
def fault_of_a_callback():
    """Serve, and fail once where no connection is concerned."""
    source, target = os.pipe()
    try:
        with serving(lambda event, context: "x") as server, server.connect() as sock:

            def fault():
                server.server.epoll.unregister(source)
                raise RuntimeError("a fault of a callback")

            ask(sock)
            server.server.callbacks[source] = fault
            server.server.epoll.register(source, 0)  # the end of a pipe is always reported
            os.close(target)
            yield sock
    finally:
        os.close(source)


def test_fault_without_a_connection_costs_none(log):
    with fault_of_a_callback() as sock:
        wait_for(lambda: "a fault of a callback" in log.getvalue(), "the record")
        assert ask(sock).status == 200


def test_fault_that_cannot_be_described_is_logged(log, monkeypatch):
    monkeypatch.setattr("traceback.TracebackException", lambda *arguments: 1 / 0)
    with fault_of_a_callback() as sock:
        wait_for(lambda: log.getvalue() == "ERROR the server failed\n", "the record")
        assert ask(sock).status == 200


@pytest.mark.linux
def test_fault_of_the_server_without_the_lead_costs_one_connection(log, monkeypatch):
    def faulty(self):
        raise RuntimeError("a fault of the server")

    with in_a_call(GET % b"wait") as (gate, server, sock):
        monkeypatch.setattr(watchdog_app.Connection, "has_call", faulty)
        gate.opened.set()
        assert read_answer(read_all(sock))[0].body == b"/wait"
        monkeypatch.undo()
        assert server.get().status == 200
    assert log.getvalue().count("ERROR the server failed") == 1


def test_server_leaves_no_descriptor_behind():
    before = set(os.listdir("/proc/self/fd"))
    with serving(lambda event, context: "x") as server:
        for _ in range(5):
            assert server.get().status == 200
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "error", [BrokenPipeError, pytest.param(RuntimeError, id="what the function has put in the place of stderr")]
)
def test_log_that_cannot_be_written_stops_nobody(error, monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise error

    monkeypatch.setattr(sys, "stderr", Broken())
    with serving(lambda event, context: 1 / 0) as server:
        assert server.get().status == 500
