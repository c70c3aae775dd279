"""Hold many connections beside a normal caller, send bursts, have uploads refused; print what each shows, and fail where it is too much.

    python tests/many_connections.py

The server runs alone; bursts and uploads go through of-watchdog too, where `fwatchdog` is on PATH.
"""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

from conftest import DEADLINE, Process, pause, process, read_all, wait_for
from test_server import next_answer, wakeups_within
from test_watchdog import REAL, behind

IDLE, SLOW = 2000, 300
CALLS = 2000
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n"
HALF_BODY = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n"
FUNCTION = """
def handle(event, context):
    return b"x" * 10_000_000 if event.path == "/large" else str(len(event.body))
"""


class Figure:
    """What was measured, and what it may be at most."""

    def __init__(self, name: str, value: float, most: float) -> None:
        self.name, self.value, self.most = name, value, most

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.4g} (at most {self.most:g}){'' if self.value <= self.most else ': TOO MUCH'}"


@contextlib.contextmanager
def alone(**settings: str) -> Iterator[Process]:
    """Start the server alone."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "handler.py"
        file.write_text(FUNCTION)
        with process(file, **settings) as program:
            wait_for(program.answers, "an answer")
            yield program


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


# ---- idle and slow connections ----


class SlowPeers:
    """Peers that send a byte a second of a head or a body, or take a few bytes a second of a large answer."""

    def __init__(self, port: int) -> None:
        self.socks = [connect(port) for _ in range(SLOW)]
        self.over = threading.Event()
        for number, sock in enumerate(self.socks):
            sock.sendall((b"", HALF_BODY, LARGE)[number % 3])
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self) -> None:
        turn = 0
        while not self.over.wait(1.0):
            for number, sock in enumerate(self.socks):
                with contextlib.suppress(OSError):  # the server gives up on those that are too slow
                    self.go_on(number, sock, turn)
            turn += 1

    @staticmethod
    def go_on(number: int, sock: socket.socket, turn: int) -> None:
        """Send or take a little more."""
        if number % 3 == 2:
            sock.recv(10)
        else:
            sock.sendall(GET[turn % 20 : turn % 20 + 1] if number % 3 == 0 else b"x")


def idle_and_slow() -> list[Figure]:
    """Measure a normal caller beside many connections that want nothing, or little at a time."""
    with alone() as program, contextlib.ExitStack() as stack:
        pid = program.popen.pid
        for _ in range(IDLE):
            stack.enter_context(connect(program.port))
        slow = SlowPeers(program.port)
        for sock in slow.socks:
            stack.enter_context(sock)
        stack.callback(slow.over.set)
        slow.thread.start()
        pause(1)
        times = sorted(answer_times(program.port))
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return [
        Figure("p99 in ms of a normal caller", times[int(len(times) * 0.99)] * 1000, 50),
        Figure("threads", threads, 11),
    ]


def answer_times(port: int) -> Iterator[float]:
    """Make calls one after another for some seconds; yield how long each took."""
    with connect(port) as sock:
        for _ in range(CALLS):
            began = time.perf_counter()
            sock.sendall(GET)
            assert next_answer(sock).body == b"0"
            yield time.perf_counter() - began
            pause(0.002)


def idle() -> list[Figure]:
    """Measure how often a server without calls wakes."""
    with alone() as program:
        wait_for(lambda: not wakeups_within(0.3, program.popen.pid), "the rest of the monitor")
        return [Figure("wake-ups a second of an idle server", wakeups_within(10, program.popen.pid) / 10, 1)]


# ---- bursts ----


def bursts(port: int) -> list[Figure]:
    """Send bursts of uploads with pauses of about the 500 ms for which of-watchdog keeps its connections to the function."""
    chance, failures, calls = random.Random(1), 0, 0
    with ThreadPoolExecutor(50) as pool:
        while calls < 3000:
            failures += sum(pool.map(lambda _: not upload(port), range(50)))
            calls += 50
            pause(chance.uniform(0.4, 0.6))
    return [Figure(f"failures of {calls} calls in bursts", failures, 0)]


def upload(port: int) -> bool:
    """Make one call with a body; return whether it went well."""
    try:
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
            connection.request("POST", "/", b"x" * 1024)
            response = connection.getresponse()
            return (response.status, response.read()) == (200, b"1024")
    except OSError:
        return False


# ---- refused uploads ----


def refused(port: int, where: str) -> list[Figure]:
    """Send uploads that are larger than may be, whole; count the callers that do not get the refusal."""
    return [Figure(f"uploads of 20 refused without a 413, {where}", sum(not is_told(port) for _ in range(20)), 0)]


def is_told(port: int) -> bool:
    """Send 8 MiB while reading, as of-watchdog does; return whether a 413 came."""
    with connect(port) as sock, ThreadPoolExecutor(1) as sender:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 8388608\r\nConnection: close\r\n\r\n")
        sent = sender.submit(send, sock)
        told = read_all(sock).startswith(b"HTTP/1.1 413 ")
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sent.result(DEADLINE)
        return told


def send(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for _ in range(128):
            sock.sendall(b"x" * 65536)


def main() -> int:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    figures = idle() + idle_and_slow()
    with alone(max_body="1MB") as program:
        figures += refused(program.port, "alone")
    if REAL:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "handler.py"
            file.write_text(FUNCTION)
            with behind("real", file, Path(folder), max_body="1MB") as watchdog:
                figures += refused(watchdog.port, "behind of-watchdog") + bursts(watchdog.port)
    else:
        print("not behind of-watchdog: fwatchdog is not on PATH")
    print(*figures, sep="\n")
    return 1 if any(figure.value > figure.most for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
