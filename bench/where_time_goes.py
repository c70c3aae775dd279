"""Say where the time of a request goes: microseconds by step, in the module's own functions, and beside them the floor.

The floor is a loop that polls, receives, and sends fixed bytes: what a server in Python cannot go below. Server and clients run in one thread, 32
connections at a time; only the server's part is timed. The steps are timed by a wrapper around each function, whose own time is measured and taken
off; what no step has is the rest: the loop, the exchange, and the calls between the steps.
"""

from __future__ import annotations

import functools
import os
import select
import socket
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any

import one_thread
from one_thread import CHUNKED, GET, Clients, OneThread

import watchdog_app

CLIENTS, ROUNDS, RUNS, WARM = 32, 200, 5, 20
STEPS: dict[str, tuple[tuple[Any, str], ...]] = {
    "poll": ((watchdog_app.Server, "_poll"),),
    "recv": ((watchdog_app.Connection, "receive"),),
    "parse": ((watchdog_app.RequestReader, "receive"),),
    "environ": ((watchdog_app, "build_environ"),),
    "event": ((watchdog_app.Event, "__init__"), (watchdog_app.Context, "__init__"), (watchdog_app, "read_input")),
    "handle": (),  # the function, wrapped where it is handed over
    "cast": ((watchdog_app, "to_response"),),
    "json": (),  # the encoder, wrapped where it is kept
    "head": ((watchdog_app.Exchange, "start_response"), (watchdog_app.Exchange, "_head")),
    "send": ((watchdog_app.Connection, "send"),),
}
CASES: dict[str, tuple[Callable[[Any, Any], Any], bytes]] = {
    "GET hello": (one_thread.hello, GET),
    "POST 1 KiB chunked": (one_thread.length, CHUNKED),
}


class Stopwatch:
    """Time functions, each without those that it calls and that are timed too.

    Arguments: the nanoseconds that a timed call costs more than a plain one, inside what is timed and outside, where its caller is charged.
    """

    def __init__(self, inside: float = 0.0, outside: float = 0.0) -> None:
        self.inside, self.outside = inside, outside
        self.own: Counter[str] = Counter()  # nanoseconds
        self.calls: Counter[str] = Counter()
        self.inner: Counter[str] = Counter()  # timed calls that a step makes
        self.stack: list[tuple[str, int]] = [("", 0)]

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` with its time counted for `step`."""
        stack, own, calls, inner = self.stack, self.own, self.calls, self.inner

        @functools.wraps(function)
        def wrapper(*arguments: Any) -> Any:
            stack.append((step, 0))
            began = perf_counter_ns()
            try:
                return function(*arguments)
            finally:
                spent = perf_counter_ns() - began
                own[step] += spent - stack.pop()[1]
                calls[step] += 1
                caller, before = stack[-1]
                stack[-1] = (caller, before + spent)
                inner[caller] += 1

        return wrapper

    def lap(self) -> dict[str, float]:
        """Return the nanoseconds of each step since the last lap, without those of the stopwatch itself, which stand apart."""
        spent = {
            step: own - self.inside * self.calls[step] - self.outside * self.inner[step]
            for step, own in self.own.items()
        }
        spent["stopwatch"] = (self.inside + self.outside) * sum(self.calls.values())
        for counter in (self.own, self.calls, self.inner):
            counter.clear()
        return spent


def nothing() -> None:
    """Do nothing."""


def cost_of_timing(times: int = 2_000, tries: int = 50) -> tuple[float, float]:
    """Return the nanoseconds that a timed call costs more than a plain one: inside what is timed, and outside. Of the tries the fastest counts."""
    watch = Stopwatch()
    wrapped = watch.timed("nothing", nothing)
    plain, inside, timed = [], [], []
    for _ in range(tries):
        plain.append(time_of(nothing, times))
        timed.append(time_of(wrapped, times))
        inside.append(watch.lap()["nothing"] / times)
    return max(0.0, min(inside) - min(plain)), min(timed) - min(inside)


def time_of(function: Callable[[], object], times: int) -> float:
    """Return the nanoseconds of one call."""
    began = perf_counter_ns()
    for _ in range(times):
        function()
    return (perf_counter_ns() - began) / times


@contextmanager
def watched(watch: Stopwatch) -> Iterator[None]:
    """Time each step's functions for a while."""
    before = [(owner, name, getattr(owner, name)) for functions in STEPS.values() for owner, name in functions]
    for step, functions in STEPS.items():
        for owner, name in functions:
            setattr(owner, name, watch.timed(step, getattr(owner, name)))
    encode, decode = watchdog_app.json_codec()
    codec, timed = watchdog_app.json_codec, (watch.timed("json", encode), decode)
    watchdog_app.json_codec = lambda: timed  # type: ignore[assignment]
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
        watchdog_app.json_codec = codec


class Laps:
    """Time the server's part of each round: from the moment when all clients have asked to that when all have their answers."""

    def __init__(self, clients: Clients, watch: Stopwatch | None = None) -> None:
        self.clients, self.turn, self.watch = clients, clients.turn, watch
        self.left, self.spent = perf_counter_ns(), 0
        self.laps: list[dict[str, float]] = []

    def __call__(self) -> bool:
        self.spent += perf_counter_ns() - self.left
        before, done = self.clients.rounds, self.turn()
        if done or self.clients.rounds != before:
            steps = self.watch.lap() if self.watch else {}
            whole = self.spent - steps.pop("stopwatch", 0.0)
            self.laps.append({**steps, "rest": whole - sum(steps.values()), "whole": whole})
            self.spent = 0
        self.left = perf_counter_ns()
        return done

    def microseconds(self) -> list[dict[str, float]]:
        """Return the laps, without the first ones, for one request."""
        return [{step: spent / 1000 / CLIENTS for step, spent in lap.items()} for lap in self.laps[WARM:]]


def served(handle: Callable[[Any, Any], Any], request: bytes, watch: Stopwatch | None = None) -> list[dict[str, float]]:
    """Let the module serve; return its laps."""
    running = OneThread(watch.timed("handle", handle) if watch else handle, request, CLIENTS)
    try:
        laps = Laps(running.clients, watch)
        running.clients.turn = laps  # type: ignore[method-assign]
        running.run(ROUNDS)
        return laps.microseconds()
    finally:
        running.close()


def floor(request: bytes, answer: bytes) -> list[dict[str, float]]:
    """Let a loop serve that polls, receives, and sends fixed bytes; return its laps."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS)
    clients = Clients(listener.getsockname()[1], CLIENTS, request)
    clients.rounds, always, epoll = ROUNDS, os.eventfd(1), select.epoll()
    socks = {sock.fileno(): sock for sock in (listener.accept()[0] for _ in range(CLIENTS))}
    for fd in (always, *socks):
        epoll.register(fd, select.EPOLLIN)
    laps, done = Laps(clients), False
    while not done:
        for fd, _ in epoll.poll():
            if fd == always:
                done = laps()
            else:
                sock = socks[fd]
                sock.recv(65536)
                sock.send(answer)
    for sock in (*socks.values(), listener):
        sock.close()
    clients.close()
    epoll.close()
    os.close(always)
    return laps.microseconds()


def answer_of(handle: Callable[[Any, Any], Any], request: bytes) -> bytes:
    """Return the bytes that the server answers with."""
    running = OneThread(handle, request, 1)
    answers: list[bytes] = []
    send = watchdog_app.Connection.send

    def kept(connection: Any, data: bytes) -> None:
        answers.append(data)
        send(connection, data)

    watchdog_app.Connection.send = kept  # type: ignore[method-assign, assignment]
    try:
        running.run(1)
    finally:
        watchdog_app.Connection.send = send  # type: ignore[method-assign]
        running.close()
    return answers[0]


def steps_of(handle: Callable[[Any, Any], Any], request: bytes) -> list[dict[str, float]]:
    """Let the module serve with its steps timed; return the laps."""
    watch = Stopwatch(*cost_of_timing())
    with watched(watch):
        return served(handle, request, watch)


def typical(laps: list[dict[str, float]], step: str) -> float:
    """Return the lower quartile of a step: what disturbs makes some laps slower, and none faster."""
    return statistics.quantiles([lap.get(step, 0.0) for lap in laps], n=4)[0]


def measure(handle: Callable[[Any, Any], Any], request: bytes) -> dict[str, float]:
    """Return microseconds a request: each step, the rest, the whole and the floor."""
    answer = answer_of(handle, request)
    plain, timed, least = [], [], []
    for _ in range(RUNS):
        plain += served(handle, request)
        timed += steps_of(handle, request)
        least += floor(request, answer)
    steps = {step: typical(timed, step) for step in (*STEPS, "rest")}
    whole = typical(plain, "whole")
    scale = whole / sum(
        steps.values()
    )  # to the time without the stopwatch, which also takes room in the processor's caches
    return {**{step: spent * scale for step, spent in steps.items()}, "whole": whole, "floor": typical(least, "whole")}


def print_table(columns: dict[str, dict[str, float]]) -> None:
    """Print the figures as a table in Markdown, and what they say."""
    print(
        f"| µs a request, Python {sys.version.split()[0]} | "
        + " | ".join(columns)
        + " |\n| --- |"
        + " ---: |" * len(columns)
    )
    for row in next(iter(columns.values())):
        name = f"**{row}**" if row in ("whole", "floor") else row
        print(f"| {name} | " + " | ".join(f"{figures[row]:.2f}" for figures in columns.values()) + " |")
    for title, figures in columns.items():
        distance = figures["whole"] - figures["floor"]
        ours = distance - figures["handle"] - figures["json"]
        print(f"\n{title}: {distance:.1f} µs above the floor; {ours / distance:.0%} of them are the module's,", end=" ")
        print("the others the function's and the JSON encoder's.")


if __name__ == "__main__":
    print_table({title: measure(*case) for title, case in CASES.items()})
