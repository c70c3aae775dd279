"""What a request costs, counted instead of timed: the same on a slow machine, and more only if the module does more."""

import collections
import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path
from statistics import median
from typing import NamedTuple

import one_thread
import pytest
from conftest import DEADLINE, ROOT, clean_env, free_port, read_answer
from one_thread import CHUNKED, GET, OneThread

import watchdog_app

CLIENTS, ROUNDS = 32, 8
STRACE = shutil.which("strace")
FUNCTION = ROOT / "bench" / "apps" / "hello.py"


class Cost(NamedTuple):
    """Counts for one request. Each bound is 15 % above today's count: room for another release of Python, not for another layer."""

    calls: float  # of functions in Python; each costs about 50 ns
    c_calls: float  # of functions in C, system calls among them
    bytecodes: float  # run; 3.11 needs most, 3.12 and later a tenth less
    blocks: float  # of memory held when `handle` has run: request, environ, event, result and what they are made of
    bytes: float  # in these blocks: a body may be there twice, no more


CASES = {
    # 36, 35, 1 145, 34 and 2 690
    "GET hello": (one_thread.hello, GET, Cost(calls=42, c_calls=41, bytecodes=1320, blocks=40, bytes=3100)),
    # 49, 52, 1 526, 39 and 4 810: the body is there twice, as it came and as `event.body`
    "POST 1 KiB chunked": (
        one_thread.length,
        CHUNKED,
        Cost(calls=57, c_calls=61, bytecodes=1760, blocks=45, bytes=5550),
    ),
}
cases = pytest.mark.parametrize(
    ("handle", "request_bytes", "bound"), [pytest.param(*case, id=name) for name, case in CASES.items()]
)


@pytest.fixture
def one():
    """Make servers that run in this thread; close them at the end."""
    made = []

    def make(handle, request_bytes, clients=CLIENTS):
        running = OneThread(handle, request_bytes, clients)
        made.append(running)
        running.run(5)  # the caches are filled, and what is imported late is there
        return running

    yield make
    for running in made:
        running.close()


def is_clients(frame):
    return frame.f_code.co_filename == one_thread.__file__ and frame.f_code not in (
        one_thread.hello.__code__,
        one_thread.length.__code__,
    )


def traced(running):
    """Return how many calls, lines and bytecodes of Python a request takes."""
    counts = collections.Counter()

    def step(frame, event, argument):
        counts[event] += 1
        return step

    def begin(frame, event, argument):
        if is_clients(frame):
            return None
        frame.f_trace_opcodes = True
        counts[event] += 1
        return step

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        running.run(ROUNDS)
    finally:
        sys.settrace(before)
    return {event: count / (CLIENTS * ROUNDS) for event, count in counts.items()}


def least(running, count):
    """Return the least of each count in some runs: a poll more or less, as the kernel pleases, and 3.12 sees no bytecodes in the first."""
    runs = [count(running) for _ in range(3)][1:]
    return {event: min(run[event] for run in runs) for event in runs[0]}


@cases
def test_request_takes_no_more_python_than_its_bound(one, handle, request_bytes, bound):
    counts = least(one(handle, request_bytes), traced)
    assert counts["call"] <= bound.calls
    assert counts["opcode"] <= bound.bytecodes
    assert counts["opcode"] > bound.bytecodes / 2  # they are counted at all


def profiled(running):
    """Return how many functions in C a request calls."""
    counts = collections.Counter()

    def see(frame, event, argument):
        if not is_clients(frame):
            counts[event] += 1

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        running.run(ROUNDS)
    finally:
        sys.setprofile(before)
    return {event: count / (CLIENTS * ROUNDS) for event, count in counts.items()}


@cases
def test_request_calls_no_more_functions_in_c_than_its_bound(one, handle, request_bytes, bound):
    counts = least(one(handle, request_bytes), profiled)
    assert bound.c_calls / 2 < counts["c_call"] <= bound.c_calls


@cases
def test_requests_that_come_together_share_a_poll(one, monkeypatch, handle, request_bytes, bound):
    running = one(handle, request_bytes)
    polls, poll = [], watchdog_app.Server._poll
    monkeypatch.setattr(watchdog_app.Server, "_poll", lambda server: (polls.append(1), poll(server)))
    running.run(ROUNDS)
    assert (
        ROUNDS <= len(polls) <= 3 * ROUNDS
    )  # one that finds the requests, one that finds only the clients' turn, and one to spare


# ---- memory ----


@pytest.fixture
def quiet_collector():
    """Let the collector free nothing meanwhile: what is counted is freed without it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.skipif(bool(sys.gettrace()), reason="what measures coverage allocates too")
@cases
def test_request_holds_no_more_memory_than_its_bound(one, quiet_collector, handle, request_bytes, bound):
    seen = []

    def handle_and_see(event, context):
        result = handle(event, context)
        seen.append((sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]))
        return result

    running = one(handle_and_see, request_bytes, clients=1)
    tracemalloc.start()
    try:
        running.run(5)
        blocks, held = [], []
        for _ in range(5):
            seen.clear()
            gc.collect()  # frees what the interpreter keeps for objects to come, so that these need new memory
            before = (sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0])
            running.run(1)
            blocks.append(seen[0][0] - before[0])
            held.append(seen[0][1] - before[1])
    finally:
        tracemalloc.stop()
    assert bound.blocks / 2 < median(blocks) <= bound.blocks
    larger = 1.1 if sys.version_info >= (3, 15) else 1.0  # its objects are: 5 840 bytes for the POST in as many blocks
    assert bound.bytes / 2 < median(held) <= bound.bytes * larger


@cases
def test_requests_leave_nothing_behind_and_the_collector_nothing_to_do(
    one, quiet_collector, handle, request_bytes, bound
):
    running = one(handle, request_bytes)

    def growth():
        before = sys.getallocatedblocks()
        running.run(100)
        assert gc.collect() == 0
        return sys.getallocatedblocks() - before

    gc.collect()
    # For 3 200 requests: one block for each of them would be a leak. Twice, as a table of the interpreter may grow once
    assert min(growth(), growth()) < 20


# ---- system calls ----


def is_traceable():
    """Tell whether strace is there and may trace."""
    return bool(STRACE) and subprocess.run([STRACE, "-c", "true"], capture_output=True).returncode == 0


def system_calls(requests, request_bytes, summary):
    """Count the system calls of a process that serves so many requests one after another on one connection."""
    port = free_port()
    command = [STRACE, "-f", "-c", "-o", str(summary), sys.executable, str(ROOT / "watchdog_app.py"), str(FUNCTION)]
    popen = subprocess.Popen(
        command, env=clean_env(upstream_url=f"http://127.0.0.1:{port}"), stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        popen.stderr.readline()  # it says that it listens
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
            for _ in range(requests):
                sock.sendall(request_bytes)
                answer, rest = read_answer(sock.recv(65536))
                assert (answer.status, rest) == (200, b"")
        (server,) = Path(f"/proc/{popen.pid}/task/{popen.pid}/children").read_text().split()
        os.kill(int(server), signal.SIGINT)
        popen.communicate(timeout=DEADLINE)
    finally:
        if popen.poll() is None:
            os.killpg(popen.pid, signal.SIGKILL)  # the server outlives its strace
        popen.communicate()
    row = r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$"
    return collections.Counter(
        {name: int(count) for count, name in re.findall(row, summary.read_text(), re.MULTILINE) if name != "total"}
    )


@pytest.mark.skipif(not is_traceable(), reason="strace is not on PATH, or may not trace")
@pytest.mark.parametrize(
    "request_bytes", [pytest.param(GET, id="GET hello"), pytest.param(CHUNKED, id="POST 1 KiB chunked")]
)
def test_request_takes_one_poll_one_recv_and_one_send(request_bytes, tmp_path):
    few, many, summary = 100, 600, tmp_path / "summary"
    counts = system_calls(many, request_bytes, summary)
    counts.subtract(system_calls(few, request_bytes, summary))
    a_request = {name: count / (many - few) for name, count in counts.items()}
    for name in ("epoll_wait", "recvfrom", "sendto"):
        assert 0.95 < a_request.pop(name) < 1.05, name  # a poll more or less at the start and the end
    del a_request["futex"]  # the monitor's, which looks every 2 ms as long as there are calls: by time, not by request
    assert {
        name: count for name, count in a_request.items() if count > 0.5
    } == {}  # the imports after the start are spread over all requests
