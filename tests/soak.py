"""Load a function for a long time, and see that its process ends as it was: memory, descriptors and threads.

    python tests/soak.py --minutes 20

Half the rate that the callers reach is sent: short calls, uploads, errors, streams, large answers, calls that sleep, and callers that leave in the
midst of each, at the watchdog and at the function's own port, where wrong requests go too. It runs behind of-watchdog where `fwatchdog` is on
PATH, else alone. What the process has is read after the first minute and at the end, each time when the callers have paused for long enough that
idle threads end. Every answer is checked.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, NamedTuple

from conftest import RESET, free_port, pause, process, read_all, read_answer, wait_for
from test_watchdog import REAL, behind

CALLERS = 8
PATIENCE = 30.0  # seconds that a caller waits for an answer
IN_THE_MIDST = 0.02  # seconds after which a caller without an answer leaves; less than `/sleep` sleeps
PAUSE = 15.0  # seconds; longer than a thread is parked before it ends
GROWTH = 2 << 20  # bytes that the resident memory may have grown by
# As in the image: with glibc's default each thread may keep an arena of its own, and what is freed at the end of an arena is kept up to
# twice the largest block that was ever freed, so that memory is never the same twice
ALLOCATOR = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "1048576"}
FUNCTION = """
import time

def handle(event, context):
    if event.path == "/echo":
        return event.body
    if event.path == "/large":
        return b"x" * 2_000_000
    if event.path == "/sleep":
        time.sleep(0.05)
        return "slept"
    if event.path == "/missing":
        return {"statusCode": 404, "body": "no such thing"}
    if event.path == "/fail":
        raise ValueError("asked for")
    if event.path == "/stream":
        return (b"x" * 1000 for _ in range(100))
    return {"path": event.path, "name": event.query.get("name")}
"""


class State(NamedTuple):
    """What a process has: bytes of resident memory, descriptors, threads."""

    memory: int
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.memory / (1 << 20):.1f} MB, {self.descriptors} descriptors, {self.threads} threads"


def state(pid: int) -> State:
    """Read what a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return State(int(fields["VmRSS"].split()[0]) << 10, len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"]))


class Ports(NamedTuple):
    """Where to call: what callers call, and the function's own port; the same one where it runs alone."""

    front: int
    own: int


class Load:
    """Callers in threads, which call at a rate, or as fast as they can at 0."""

    def __init__(self, ports: Ports) -> None:
        self.ports, self.rate = ports, 0.0
        self.running = threading.Event()
        self.over = False
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.threads = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(CALLERS)]

    def work(self, number: int) -> None:
        """Call over and over, on a connection that is kept as long as it can be."""
        chance = random.Random(number)
        connection = HTTPConnection("127.0.0.1", self.ports.front, timeout=PATIENCE)
        while not self.over:
            if not self.running.is_set():
                connection.close()  # so that what is read in the pause does not depend on which callers have one
                self.running.wait()
            began = time.monotonic()
            name, call = chance.choices(CALLS, WEIGHTS)[0]
            try:
                call(connection, self.ports)
            except Exception as error:
                self.wrong.append(f"{name}: {error!r}")
                connection.close()
            self.counts[name] += 1
            if self.rate:
                pause(max(0.0, CALLERS / self.rate - (time.monotonic() - began)))

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """Let the callers call."""
        self.running.set()
        try:
            yield
        finally:
            self.running.clear()


def expect(
    connection: HTTPConnection, method: str, target: str, body: bytes | None, status: int, content: bytes
) -> None:
    """Make one call, and check its answer: the status, and what the body begins with and, of a success, is."""
    connection.request(method, target, body)
    response = connection.getresponse()
    received = response.read()
    right = received == content if status == 200 else received.startswith(content)  # a call id stands behind it
    if response.status != status or not right:
        raise AssertionError(f"{method} {target}: {response.status} {received[:100]!r}")


def leave(port: int, sent: bytes, size: int) -> None:
    """Send something, receive so much of an answer, which is to be a success, or wait a moment, and leave with a reset."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(sent)
        received = b""
        while len(received) < size and (piece := sock.recv(size)):
            received += piece
        if not size:
            pause(IN_THE_MIDST)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    if size and not (received.startswith(b"HTTP/1.1 200 ") and len(received) >= size):
        raise AssertionError(f"{sent!r}: {received[:100]!r}, {len(received)} bytes")


def refused(port: int, sent: bytes) -> None:
    """Send a wrong request; check that it is refused, and the connection closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(sent)
        answer, rest = read_answer(read_all(sock))
    if answer.status != 400 or answer.body != b"Bad Request\n" or not answer.closes or rest:
        raise AssertionError(f"{sent!r}: {answer} {rest!r}")


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


HALF = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf"
Call = Callable[[HTTPConnection, Ports], None]
MIX: list[tuple[str, int, Call]] = [
    ("short", 60, lambda c, p: expect(c, "GET", "/a?name=b", None, 200, b'{"path":"/a","name":"b"}')),
    ("upload", 20, lambda c, p: expect(c, "POST", "/echo", b"y" * 1024, 200, b"y" * 1024)),
    ("large upload", 2, lambda c, p: expect(c, "POST", "/echo", b"z" * 1_000_000, 200, b"z" * 1_000_000)),
    ("large answer", 2, lambda c, p: expect(c, "GET", "/large", None, 200, b"x" * 2_000_000)),
    ("stream", 4, lambda c, p: expect(c, "GET", "/stream", None, 200, b"x" * 100_000)),
    ("sleep", 4, lambda c, p: expect(c, "GET", "/sleep", None, 200, b"slept")),
    ("failure", 3, lambda c, p: expect(c, "GET", "/fail", None, 500, b"Internal Server Error\n")),
    ("missing", 3, lambda c, p: expect(c, "GET", "/missing", None, 404, b"no such thing")),
    ("left in a request", 1, lambda c, p: leave(p.front, HALF, 0)),
    ("left in a stream", 1, lambda c, p: leave(p.front, get("/stream"), 10_000)),
    ("left in a large answer", 1, lambda c, p: leave(p.front, get("/large"), 100_000)),
    ("left in a call", 1, lambda c, p: leave(p.front, get("/sleep"), 0)),
    ("left in a request, own port", 1, lambda c, p: leave(p.own, HALF, 0)),
    ("left in a stream, own port", 1, lambda c, p: leave(p.own, get("/stream"), 10_000)),
    ("left in a large answer, own port", 1, lambda c, p: leave(p.own, get("/large"), 100_000)),
    ("left in a call, own port", 1, lambda c, p: leave(p.own, get("/sleep"), 0)),
    ("refused, own port", 2, lambda c, p: refused(p.own, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")),
]
CALLS = [(name, call) for name, _, call in MIX]
WEIGHTS = [weight for _, weight, _ in MIX]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[Ports, int]]:
    """Start the function, behind of-watchdog where that is here; yield the ports to call and the number of the function's process."""
    file = folder / "handler.py"
    file.write_text(FUNCTION)
    if REAL:
        own = free_port()
        with behind("real", file, folder, upstream_url=f"http://127.0.0.1:{own}", **ALLOCATOR) as watchdog:
            yield Ports(watchdog.port, own), watchdog.child()
        return
    with process(file, TMPDIR=str(folder), **ALLOCATOR) as program:
        for pipe in (program.popen.stdout, program.popen.stderr):
            threading.Thread(target=discard, args=(pipe,), daemon=True).start()
        wait_for(program.answers, "an answer")
        yield Ports(program.port, program.port), program.popen.pid


def discard(pipe: IO[bytes]) -> None:
    """Read to the end, and keep nothing."""
    with contextlib.suppress(ValueError):  # closed by another thread, once the process is gone
        while pipe.read(65536):
            pass


def soak(minutes: float, ports: Ports, pid: int) -> list[str]:
    """Load for so many minutes; return what is wrong."""
    load = Load(ports)
    for thread in load.threads:
        thread.start()
    with load.going():
        pause(5)
    load.rate = load.counts.total() / 5 / 2
    print(f"full rate {2 * load.rate:.0f} calls a second", flush=True)
    minute = min(60.0, minutes * 20)
    first = rested(load, pid, minute)
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end - minute:
        with load.going():
            pause(minute)
        print(f"{load.counts.total()} calls, {len(load.wrong)} wrong; under load {state(pid)}", flush=True)
    last = rested(load, pid, max(0.0, end - time.monotonic()))
    print(dict(load.counts), flush=True)
    wrong = load.wrong[:10]
    if last.memory > first.memory + GROWTH or last[1:] != first[1:]:
        wrong.append(f"it had {first} and has {last}")
    return wrong


def rested(load: Load, pid: int, seconds: float) -> State:
    """Let the callers call for so long, then pause; return what the process has then."""
    with load.going():
        pause(seconds)
    pause(PAUSE)
    now = state(pid)
    print(f"{load.counts.total()} calls, {len(load.wrong)} wrong; rested {now}", flush=True)
    return now


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="how long, after the first minute")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as (ports, pid):
        print("behind of-watchdog" if REAL else "alone, fwatchdog is not on PATH", flush=True)
        wrong = soak(options.minutes, ports, pid)
    print("\n".join(wrong) or "as it was")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
