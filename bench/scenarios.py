"""What is measured: one table."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "apps"))

from payload import HELLO, ORDERS, SLEEP


@dataclass(frozen=True)
class Metric:
    """One figure of a scenario: the key of its samples, how it is printed, which way is better, and whether a ratio says something."""

    key: str
    unit: str
    more_is_better: bool
    digits: int = 0
    compared: bool = True


RATE = Metric("rate", "requests/s", True)
CPU = Metric("cpu_us", "CPU µs a request", False, 1)
P99 = Metric("p99_ms", "ms p99", False, 1)
IDEAL = Metric("share", "of the ideal rate", True, 2)
START = Metric("start_ms", "ms to the first 200", False)
MEMORY = Metric("memory_mb", "MB resident", False, 1)
GROWTH = Metric("growth_mb", "MB grown", False, 1, compared=False)
STREAM = Metric("mib_s", "MiB/s", True)
CPU_MIB = Metric("cpu_ms_mib", "CPU ms a MiB", False, 2)


@dataclass(frozen=True)
class Call:
    """One request, and what its answer holds: bytes, or a value as JSON."""

    method: str = "GET"
    target: str = "/"
    size: int = 0
    chunked: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    expected: Any = None

    @property
    def body(self) -> bytes:
        return b"x" * self.size

    def is_right(self, status: int, content: bytes) -> bool:
        """Tell whether an answer is the one that was to come."""
        if isinstance(self.expected, bytes):
            return status == 200 and content == self.expected
        return status == 200 and bool(json.loads(content) == self.expected)


@dataclass(frozen=True)
class Scenario:
    """One thing to measure.

    measure: what does it, a name of `measure.MEASURES`. app: which application. metrics: the first one is that of the chart.
    ideal: seconds that a call takes at least, for the share of the ideal rate. beside: a call that other connections make meanwhile, and how many.
    busy_after: whether calls may still run in the server afterwards, so that the next scenario needs a new one. quick: part of a quick run.
    """

    id: str
    title: str
    app: str
    call: Call
    connections: int = 0
    measure: str = "load"
    metrics: tuple[Metric, ...] = (RATE, CPU, P99)
    ideal: float = 0.0
    beside: tuple[Call, int] | None = None
    behind_watchdog: bool = False
    busy_after: bool = False
    quick: bool = False


AGENT = (("User-Agent", "wrk/4"), ("X-Trace", "6f0c"), ("Accept", "*/*"))
GET = Call(expected=HELLO)
POST = Call("POST", size=1024, expected={"bytes": 1024})
CHUNKED = Call("POST", size=1024, chunked=True, expected={"bytes": 1024})
JSON_OUT = Call(target="/orders", expected={"orders": ORDERS})
READ = Call(
    target="/read?name=World&count=3",
    headers=AGENT,
    expected={"name": "World", "count": 3, "agent": "wrk/4", "trace": "6f0c"},
)
ECHO = Call("POST", "/echo", size=65536, expected=b"x" * 65536)
STREAMED = Call("POST", size=1024, expected=b"x" * 1024)
SLEEPING = Call(target="/sleep", expected=HELLO)
LONG_CALL = Call(target="/long", expected=HELLO)
BUSY_CALL = Call(target="/burn", expected=HELLO)
APART = (P99, RATE)


def connections(number: int) -> str:
    """Convert a number of connections to words."""
    return "1 connection" if number == 1 else f"{number:,} connections".replace(",", " ")


def _direct() -> list[Scenario]:
    hello = [
        Scenario(f"get-{n}", f"hello GET, {connections(n)}", "hello", GET, n, quick=n in (1, 32))
        for n in (1, 32, 256, 1000)
    ]
    sleeping = [
        Scenario(
            f"sleep-{n}",
            f"sleep 50 ms, {connections(n)}",
            "calls",
            SLEEPING,
            n,
            metrics=(IDEAL, RATE, CPU),
            ideal=SLEEP,
            busy_after=True,
            quick=n == 32,
        )
        for n in (32, 256)
    ]
    return [
        *hello,
        Scenario("post-32", "POST 1 KiB, Content-Length, 32 connections", "length", POST, 32),
        Scenario("chunked-32", "POST 1 KiB, chunked, 32 connections", "length", CHUNKED, 32, quick=True),
        Scenario("json-32", "10 KiB of JSON out, 32 connections", "calls", JSON_OUT, 32),
        Scenario("read-32", "query and headers read, 32 connections", "calls", READ, 32),
        Scenario("echo-32", "64 KiB echo, 32 connections", "calls", ECHO, 32),
        *sleeping,
        Scenario("alone-8", "short calls alone, 8 connections", "calls", GET, 8, metrics=APART),
        Scenario(
            "sleep-beside",
            "short calls beside 8 that sleep 1 s",
            "calls",
            GET,
            8,
            metrics=APART,
            beside=(LONG_CALL, 8),
            busy_after=True,
        ),
        Scenario(
            "cpu-beside",
            "short calls beside 2 that burn CPU",
            "calls",
            GET,
            8,
            metrics=APART,
            beside=(BUSY_CALL, 2),
            busy_after=True,
        ),
        Scenario("start", "start to the first 200", "hello", GET, measure="start", metrics=(START,), quick=True),
        Scenario(
            "memory",
            "memory after {calls} calls",
            "hello",
            GET,
            32,
            measure="memory",
            metrics=(MEMORY, GROWTH),
            quick=True,
        ),
        Scenario(
            "stream",
            "{mib} MiB through and back as a stream",
            "stream",
            STREAMED,
            1,
            measure="stream",
            metrics=(STREAM, CPU_MIB, GROWTH),
        ),
    ]


def _behind(name: str, title: str, app: str, call: Call) -> list[Scenario]:
    return [
        Scenario(
            f"watchdog-{name}-{n}",
            f"behind of-watchdog: {title}, {connections(n)}",
            app,
            call,
            n,
            behind_watchdog=True,
            quick=n == 32,
        )
        for n in (1, 32, 128)
    ]


SCENARIOS = (*_direct(), *_behind("get", "hello GET", "hello", GET), *_behind("post", "POST 1 KiB", "length", POST))
