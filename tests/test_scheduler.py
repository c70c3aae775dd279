"""The scheduler's invariants under stress; as a program, `python tests/test_scheduler.py SECONDS [SEED]`, for longer and without pytest."""

import contextlib
import random
import socket
import struct
import sys
import threading
import time

import pytest
from conftest import DEADLINE, pause, read_answer, serving, wait_for
from scheduler_checks import checked_server
from scheduler_faults import FAULTS

import watchdog_app

SECONDS, SEED, CLIENTS = 1.5, 1, 8
KINDS = ["fast"] * 6 + ["sleep", "sleep", "compute", "stream", "large", "raise", "exit"]
LARGE = 1 << 20


class Function:
    """A function of many kinds of calls, /kind/name; those to /never return once the gate is opened."""

    def __init__(self):
        self.gate, self.never, self.lock = threading.Event(), 0, threading.Lock()

    def __call__(self, event, context):
        _, kind, name = event.path.split("/")
        return getattr(self, f"{kind}_call")(name)

    def fast_call(self, name):
        return name

    def sleep_call(self, name):
        pause(int(name) % 5 / 1000)
        return name

    def compute_call(self, name):
        sum(range(100_000))
        return name

    def stream_call(self, name):
        for _ in range(3):
            pause(int(name) % 3 / 1000)
            yield name

    def large_call(self, name):
        return (name * LARGE)[:LARGE]

    def raise_call(self, name):
        raise ValueError(name)

    def exit_call(self, name):
        raise SystemExit(name)

    def never_call(self, name):
        with self.lock:
            self.never += 1
        self.gate.wait(DEADLINE * 2)
        return name


class Client:
    """One peer: batches of requests, pipelined, in slices, or cut by a reset; each answer has to be the one that was asked for."""

    def __init__(self, served, seed, end):
        self.served, self.random, self.end = served, random.Random(seed), end
        self.asked, self.failure, self.thread = 0, "", threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while time.monotonic() < self.end:
                with self.served.connect() as sock:
                    self.talk(sock)
        except (AssertionError, OSError) as error:
            self.failure = f"after {self.asked} requests: {error!r}"[:1000]

    def talk(self, sock):
        for _ in range(self.random.randint(1, 20)):
            batch = [
                (self.random.choice(KINDS), str(self.random.randint(0, 9999)))
                for _ in range(self.random.choice((1, 1, 1, 2, 6)))
            ]
            raw = b"".join(
                b"GET /%b/%b HTTP/1.1\r\nHost: test\r\n\r\n" % (kind.encode(), name.encode()) for kind, name in batch
            )
            how = self.random.random()
            if how < 0.1:
                return self.reset(sock, raw)
            step = 7 if how < 0.2 else len(raw)
            for start in range(0, len(raw), step):
                sock.sendall(raw[start : start + step])
            self.read(sock, batch)

    def reset(self, sock, raw):
        sock.sendall(raw[: self.random.randint(0, len(raw))])
        pause(self.random.choice((0, 0.001, 0.005)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def read(self, sock, batch):
        data = b""
        for kind, name in batch:
            answer = None
            while answer is None:
                with contextlib.suppress(AssertionError, ValueError):  # not all there yet
                    answer, data = read_answer(data)
                    break
                piece = sock.recv(1 << 20)
                assert piece, f"closed before the answer to {kind}"
                data += piece
            self.asked += 1
            expected = {"stream": name * 3, "large": (name * LARGE)[:LARGE], "raise": None, "exit": None}.get(
                kind, name
            )
            assert answer.status == (500 if expected is None else 200), (kind, answer)
            assert expected in (None, answer.text), (kind, name, answer.text[:100])


@contextlib.contextmanager
def fast_switches():
    """Let the interpreter switch threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def stress(served, function, threads, seconds, seed):
    """Let clients ask for all kinds of calls; then block all threads but one, for which the server still has to poll. Return the number of calls."""
    end = time.monotonic() + seconds
    clients = [Client(served, seed * 1000 + index, end) for index in range(CLIENTS)]
    ended = lambda: not any(client.thread.is_alive() for client in clients)  # noqa: E731
    wait_for(lambda: served.server.violations or ended(), "the clients' end", seconds + DEADLINE * 6)
    assert not served.server.violations, "\n".join(served.server.violations)
    failures = [client.failure for client in clients if client.failure]
    assert not failures, "\n".join(failures)
    with contextlib.ExitStack() as stack:
        number = min(threads, 8)
        for index in range(number + 2):
            stack.enter_context(served.connect()).sendall(b"GET /never/%d HTTP/1.1\r\nHost: test\r\n\r\n" % index)
        try:
            wait_for(lambda: function.never >= number, "calls that block")
            assert served.talk(b"bad\r\n\r\n").startswith(b"HTTP/1.1 400 "), "nobody polls"
        finally:
            function.gate.set()
        wait_for(lambda: function.never == number + 2, "the end of the queue")
    return sum(client.asked for client in clients)


@contextlib.contextmanager
def checks(server_class=watchdog_app.Server, lead_class=watchdog_app.Lead):
    """Let servers check themselves, and threads retire soon, while this is open; fail where an invariant is violated, at the latest at its end."""
    servers, checked = [], checked_server(server_class, lead_class)
    kept = watchdog_app.Server, watchdog_app.PARKED_SECONDS

    def make(*arguments):
        servers.append(checked(*arguments))
        return servers[-1]

    watchdog_app.Server, watchdog_app.PARKED_SECONDS = make, 0.01
    try:
        with fast_switches():
            yield servers
    finally:
        watchdog_app.Server, watchdog_app.PARKED_SECONDS = kept
    violations = [violation for server in servers for violation in server.violations]
    assert not violations, "\n".join(violations)
    wait_for(lambda: not any(server.lead.live for server in servers), "the end of all threads")


# ---- under stress ----


@pytest.mark.slow
@pytest.mark.parametrize("threads", [512, 3, 2, 1])
def test_invariants_hold_under_stress(threads, log):
    function = Function()
    with checks(), serving(function, threads=str(threads)) as served:
        assert stress(served, function, threads, SECONDS, SEED) > 100


@pytest.mark.slow
def test_invariants_hold_while_the_system_refuses_threads_now_and_then(log, monkeypatch):
    choice, start = random.Random(SEED), threading.Thread.start

    def refused(self):
        if self.name.startswith("call-") and started.is_set() and choice.random() < 0.7:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refused)
    function, started = Function(), threading.Event()
    with checks(), serving(function) as served:
        started.set()
        assert stress(served, function, 1, SECONDS, SEED) > 100


def test_all_threads_end_when_the_server_stops_under_load(log):
    for seed in range(8):
        function = Function()
        with checks() as servers:
            with serving(function, threads="3") as served:
                clients = [Client(served, seed * 1000 + index, time.monotonic() + SECONDS) for index in range(4)]
                wait_for(
                    lambda: sum(client.asked for client in clients) > random.Random(seed).randint(0, 100), "some calls"
                )
            for client in clients:
                client.thread.join(DEADLINE)
        assert servers[0].lead.workers == 0
        assert [client for client in clients if client.thread.is_alive()] == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param(name, says, id=name)
        for name, says in {
            "a call runs in place though nobody is parked": "no thread is parked",
            "a queued connection stays in the selector": "in the selector",
            "a stream gives away a lead that is another's": "does not own|two threads poll|without the lead|is apart",
            "a thread retires that was woken": "has ended",
            "the connection in hand stays in the selector": "does not own|two exchanges|is nowhere|queued connection",
            "the leader does not look whether it still leads after a call": "without the lead|another thread runs|is apart",
            "the leader polls without a look whether it still leads": "without the lead|does not own",
        }.items()
    ],
)
def test_fault_is_found_under_stress(name, says, log):
    function = Function()
    with pytest.raises(AssertionError, match=says):
        with checks(FAULTS[name].server, FAULTS[name].lead), serving(function, threads="3") as served:
            stress(served, function, 3, DEADLINE, SEED)  # ends with the first violation


def main(seconds, seed):
    """Stress servers of several limits in turn, `seconds` in all."""
    end, calls = time.monotonic() + seconds, 0
    watchdog_app.log = lambda text: None
    while time.monotonic() < end:
        for threads in (512, 3, 2, 1):
            function = Function()
            with checks(), serving(function, threads=str(threads)) as served:
                calls += stress(served, function, threads, min(10.0, seconds / 4), seed)
        seed += 1
        print(f"{calls} calls, no violation; the next seed is {seed}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SEED)
