"""Stop the server under load at random moments, and count what callers lose.

    python tests/rolling_stops.py --stops 200
    python tests/rolling_stops.py --alone --stops 100

Behind of-watchdog (`fwatchdog` where it is on PATH, else the stand-in; as process 1 where `unshare` is allowed), or alone. Callers send short
calls, uploads, calls that sleep and streams, each on a connection of its own or on one that it keeps, and go on for a while after the signal. A
call is lost when it got no right answer; only a connection that is refused is none, and ends its caller. At the end, `shutdown` must have run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

from conftest import DEADLINE, Process, pause, process, wait_for
from test_watchdog import HAS_PROCESS_1, PROCESS_1, REAL, Watchdog, behind

AFTER = 0.3  # seconds for which the callers go on after the signal: both are to accept for longer
FUNCTION = """
import time

def shutdown(context):
    print("shut down")

def handle(event, context):
    if event.path == "/sleep":
        time.sleep(0.02)
    if event.path == "/stream":
        return (str(number) for number in range(10))
    return str(len(event.body))
"""
CALLS = [
    ("GET", "/", None, b"0"),
    ("POST", "/", b"x" * 1000, b"1000"),
    ("POST", "/sleep", b"x" * 10, b"10"),
    ("GET", "/stream", None, b"0123456789"),
]


class Caller(threading.Thread):
    """Calls one after another until told to stop, or refused; each keeps its connection or makes one a call."""

    def __init__(self, port: int, keeps: bool, seed: int) -> None:
        super().__init__(daemon=True)
        self.port, self.keeps, self.chance = port, keeps, random.Random(seed)
        self.stopped = False
        self.calls, self.after = 0, 0
        self.lost: list[str] = []
        self.signalled = threading.Event()

    def run(self) -> None:
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)) as connection:
            while not self.stopped:
                call = self.chance.choice(CALLS)
                try:
                    if not connects(connection):
                        return
                    self.call(connection, *call)
                except Exception as error:
                    connection.close()
                    self.lost.append(f"{call[0]} {call[1]}: {error!r}")

    def call(self, connection: HTTPConnection, method: str, target: str, body: bytes | None, expected: bytes) -> None:
        """Make one call and check its answer."""
        connection.request(method, target, body)
        response = connection.getresponse()
        received = response.read()
        self.calls += 1
        self.after += self.signalled.is_set()
        if (response.status, received) != (200, expected):
            self.lost.append(f"{method} {target}: {response.status} {received[:100]!r}")
        if not self.keeps:
            connection.close()


def connects(connection: HTTPConnection) -> bool:
    """Connect unless it is; return whether it could, and raise where it failed otherwise than by a refusal."""
    try:
        if connection.sock is None:
            connection.connect()
        return True
    except ConnectionRefusedError:
        return False


@contextlib.contextmanager
def running(folder: Path, alone: bool) -> Iterator[Process | Watchdog]:
    """Start the function and wait until it answers."""
    file = folder / "handler.py"
    file.write_text(FUNCTION)
    if alone:
        with process(file) as program:
            wait_for(program.answers, "an answer")
            yield program
    else:
        process_1 = PROCESS_1 if HAS_PROCESS_1 else ()
        with behind(
            "real" if REAL else "stand-in", file, folder, alone=process_1, healthcheck_interval="1s"
        ) as watchdog:
            yield watchdog


def stop_once(chance: random.Random, alone: bool, counts: Counter[str]) -> list[str]:
    """Start, load, stop; return what was lost, and what is wrong with the exit."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), alone) as server:
        callers = [Caller(server.port, number % 2 == 0, chance.randrange(1 << 30)) for number in range(6)]
        for caller in callers:
            caller.start()
        pause(chance.uniform(0.02, 0.5))
        os.kill(server.pid, signal.SIGTERM)
        for caller in callers:
            caller.signalled.set()
        pause(AFTER)
        for caller in callers:
            caller.stopped = True
        for caller in callers:
            caller.join(DEADLINE)
        status = server.popen.wait(DEADLINE)
        shut_down = (
            not (HAS_PROCESS_1 and isinstance(server, Watchdog)) or server.log.count("shut down") == 1
        )  # else it ends later
    counts["calls"] += sum(caller.calls for caller in callers)
    counts["calls after the signal"] += sum(caller.after for caller in callers)
    lost = [text for caller in callers for text in caller.lost]
    lost += ["a call without an end" for caller in callers if caller.is_alive()]
    return lost + [f"exit status {status}"] * (status != 0) + ["shutdown did not run"] * (not shut_down)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--alone", action="store_true", help="without of-watchdog")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance, counts, lost = random.Random(options.seed), Counter[str](), []
    print("alone" if options.alone else "behind of-watchdog" if REAL else "behind the stand-in", flush=True)
    for number in range(1, options.stops + 1):
        lost += [f"stop {number}: {text}" for text in stop_once(chance, options.alone, counts)]
        if number % 20 == 0 or number == options.stops:
            print(f"{number} stops, {dict(counts)}, {len(lost)} lost", flush=True)
    print("\n".join(lost[:20]))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
