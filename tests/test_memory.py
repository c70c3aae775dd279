"""What the bodies of requests, and large answers, hold in memory: once each, and no more than `body_memory` in all."""

import contextlib
import io
import json
import os
import socket
import threading
import tracemalloc

import pytest
from conftest import DEADLINE, FUNCTIONS, process, read_all, read_answer, serving, serving_application, wait_for

import watchdog_app
from watchdog_app import Settings

MB = 1 << 20


def post(size, framing=b"", path=b"/"):
    return b"POST %b HTTP/1.1\r\nHost: test\r\n%b\r\n" % (path, framing or b"Content-Length: %d\r\n" % size)


def in_chunks(data, size=60_000):
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def ask(server, raw):
    with server.connect() as sock:
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        return read_answer(read_all(sock))[0]


# -- the limit of the memory --


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {"/sys/fs/cgroup/memory.max": "67108864"},
            64 * MB,
            id="version 2, in a container",
        ),
        pytest.param(
            {
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "8192",
            },
            8192,
            id="version 1, in a container",
        ),
        pytest.param({"/sys/fs/cgroup/memory.max": "max"}, None, id="no limit"),
        pytest.param({}, None, id="no control groups"),
    ],
)
def test_memory_limit_is_that_of_the_container_or_the_machine(monkeypatch, files, expected):
    monkeypatch.setattr(watchdog_app, "read_text", files.get)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert watchdog_app.memory_limit() == (expected or machine)


def test_bodies_may_hold_a_quarter_of_the_memory_and_one_no_more(monkeypatch):
    monkeypatch.setattr(watchdog_app, "memory_limit", lambda: 64 * MB)
    assert (Settings().body_memory, Settings().max_body) == (16 * MB, 16 * MB)
    assert (Settings(max_body="1MB").max_body, Settings(body_memory="8MB", max_body="1GB").max_body) == (MB, 8 * MB)


# -- what is received --


def length(event, context):
    return str(len(event.environ["wsgi.input"].read()))


@pytest.mark.parametrize(
    "framed",
    [lambda data: post(len(data)) + data, lambda data: post(0, b"Transfer-Encoding: chunked\r\n") + in_chunks(data)],
)
def test_body_that_does_not_fit_beside_the_others_is_a_503(log, framed):
    entered, opened = threading.Semaphore(0), threading.Event()

    def handle(event, context):
        entered.release()
        opened.wait(DEADLINE)
        return length(event, context)

    with serving(handle, body_memory="1MB") as server, server.connect() as first:
        first.sendall(post(700_000) + b"x" * 700_000)
        assert entered.acquire(timeout=DEADLINE)
        answer = ask(server, framed(b"x" * 400_000))
        assert (answer.status, answer.header("Retry-After"), answer.text) == (503, "1", "Service Unavailable\n")
        opened.set()
        first.shutdown(socket.SHUT_WR)
        assert read_answer(read_all(first))[0].text == "700000"
        wait_for(lambda: server.server.memory.held == 0, "the end of what is counted")
        assert ask(server, framed(b"x" * 400_000)).text == "400000"
    assert log.getvalue().count("WARNING bodies would take more than body_memory=1048576 bytes") == 1


def test_body_that_could_never_fit_is_a_413():
    with serving(length, body_memory="1MB", max_body="2MB") as server:
        assert ask(server, post(MB + 1)).status == 413
        assert ask(server, post(0, b"Transfer-Encoding: chunked\r\n") + in_chunks(b"x" * (MB + 1))).status == 413
        assert ask(server, post(MB) + b"x" * MB).status == 200


@pytest.mark.parametrize(
    "close", [lambda sock: sock.close(), lambda sock: sock.sendall(b"x" * 100_000)], ids=["gone", "complete"]
)
def test_what_a_body_held_is_free_again(close):
    with serving(length, body_memory="1MB") as server, contextlib.closing(server.connect()) as sock:
        sock.sendall(post(600_000) + b"x" * 500_000)
        wait_for(lambda: server.server.memory.held == 500_000, "the body")
        close(sock)
        wait_for(lambda: server.server.memory.held == 0, "the end of what is counted")


def test_body_of_an_awaited_call_counts_until_its_answer():
    opened = threading.Event()

    async def handle(event, context):
        import asyncio

        await asyncio.to_thread(opened.wait, DEADLINE)
        return "done"

    with serving(handle, body_memory="1MB") as server, server.connect() as sock:
        sock.sendall(post(700_000) + b"x" * 700_000)
        wait_for(lambda: any(c.exchange for c in server.server.connections.values()), "the call")
        assert server.server.memory.held == 700_000
        opened.set()
        wait_for(lambda: server.server.memory.held == 0, "the end of what is counted")


def test_streamed_body_does_not_count():
    def handle(event, context):
        return str(sum(map(len, iter(lambda: event.stream.read(65536), b""))))

    application = watchdog_app.Application(watchdog_app.Function(handle, stream_request=True), Settings(), {})
    with serving_application(application, body_memory="64KB") as server:
        assert ask(server, post(MB) + b"x" * MB).text == str(MB)
        assert server.server.memory.held == 0


# -- JSON --


@pytest.mark.parametrize(
    ("body", "memory", "status"),
    [
        pytest.param(b"[%b]" % b",".join([b'{"a":0}'] * 20_000), "16MB", 200, id="fits"),
        pytest.param(b"[%b]" % b",".join([b'{"a":0}'] * 20_000), "1MB", 413, id="small objects"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "1MB", 413, id="deep"),
        pytest.param(b'"%b"' % (b"x" * 200_000), "1MB", 200, id="one long text"),
    ],
)
def test_json_counts_what_its_values_take(body, memory, status):
    with serving(lambda event, context: str(len(event.json()) + len(event.json())), body_memory=memory) as server:
        assert ask(server, post(len(body)) + body).status == status
        assert server.server.memory.held == 0


def test_json_that_does_not_fit_beside_others_is_a_503():
    body = b"[%b]" % b",".join([b"1"] * 50_000)
    inside, opened = threading.Semaphore(0), threading.Event()

    def handle(event, context):
        event.json()
        inside.release()
        opened.wait(DEADLINE)

    with serving(handle, body_memory="4MB") as server, server.connect() as first:
        first.sendall(post(len(body)) + body)
        assert inside.acquire(timeout=DEADLINE)
        answer = ask(server, post(len(body)) + body)
        assert (answer.status, answer.header("Retry-After")) == (503, "1")
        opened.set()


@pytest.mark.parametrize(
    "text", ['{"a":0}', '{"a":[1.5,2.5,"xyz"]}', "[]", "[[]]", "{}", '"abc"', "12345", '{"a":{"b":{"c":null}}}']
)
def test_estimate_of_parsed_json_is_no_less_than_what_it_takes(text):
    body = f"[{','.join([text] * 20_000)}]".encode()
    decoded = body.decode()
    tracemalloc.start()
    try:
        value = json.loads(decoded)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(value) == 20_000
    assert taken <= watchdog_app.parsed_size(body) <= 8 * taken + len(body)


# -- large answers --


def resident(pid, what="VmRSS"):
    """Return the resident memory of a process, or its peak `VmHWM`, in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(what))


SIZE = 20 * MB
ALLOCATOR = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "1048576"}  # as in the image


@pytest.fixture
def program():
    with process(FUNCTIONS / "memory.py", **ALLOCATOR) as running:
        wait_for(running.answers, "the server")
        yield running


def test_body_is_held_once(program):
    before = resident(program.popen.pid)
    for chunked in (False, True):
        body = b"x" * SIZE
        raw = (
            post(0, b"Transfer-Encoding: chunked\r\n", b"/unread") + in_chunks(body)
            if chunked
            else post(SIZE, b"", b"/unread") + body
        )
        with socket.create_connection(("127.0.0.1", program.port), timeout=DEADLINE) as sock:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            assert read_answer(read_all(sock))[0].text == "unread"
    assert resident(program.popen.pid, "VmHWM") - before < SIZE * 1.3


def test_text_and_stream_of_a_body_make_one_copy_at_most():
    event = watchdog_app.Event({"wsgi.input": io.BytesIO(b"x" * SIZE), "CONTENT_LENGTH": str(SIZE)})
    tracemalloc.start()
    try:
        assert len(event.text) == len(event.stream.read()) == SIZE
        assert tracemalloc.get_traced_memory()[1] < SIZE * 1.1
    finally:
        tracemalloc.stop()


def test_large_answer_is_not_copied_for_each_reader(program):
    before = resident(program.popen.pid)
    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(("127.0.0.1", program.port), timeout=DEADLINE))
            for _ in range(20)
        ]
        for sock in socks:
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        for sock in socks:
            sock.recv(1)
        assert resident(program.popen.pid) - before < SIZE * 2
        assert len(read_all(socks[0])) > SIZE


def test_head_that_does_not_fit_is_sent_before_its_body():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = watchdog_app.Connection(
            ours, "peer", watchdog_app.RequestReader(1000, 1000), watchdog_app.Settings()
        )
        filler = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filler += ours.send(b"x" * 4096)
        connection.send(b"head", b"body" * 100_000)
        data = b""
        theirs.settimeout(DEADLINE)
        while len(data) < filler + 400_004:
            data += theirs.recv(1 << 16)
            connection.send_rest()
        assert data[filler:] == b"head" + b"body" * 100_000
        assert connection.out == b""
