"""One connection alone, over a socket pair, without server or threads: all transitions of the table above the class, and no other."""

import contextlib
import re
import socket
from types import SimpleNamespace

import pytest
from conftest import RESET, ROOT, read_answer

import watchdog_app

GET = b"GET /%b HTTP/1.1\r\nHost: test\r\n\r\n"
LAST = (GET % b"").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
POST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n"
EXPECTS = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
HALF = b"GET / HT"
LARGE = 4 << 20
TAKEN: dict[str, set[tuple[str, str]]] = {}  # transitions of each scenario


class Result:
    """What an application returns that has no result yet."""

    def __init__(self):
        self.callback, self.items = None, [b"x"]

    def when_ready(self, callback):
        self.callback = callback

    def take(self):
        return self.items

    def close(self):
        pass


class Noting(watchdog_app.Connection):
    """A connection that notes each change of its state."""

    __slots__ = ("taken_ways",)

    def __setattr__(self, name, value):
        if name == "state" and hasattr(self, "state") and value != self.state:
            self.taken_ways.add((self.state, value))
        super().__setattr__(name, value)


class Walk:
    """A connection and its peer, and what can happen to them; `now` is the time."""

    def __init__(self, sock, peer):
        self.peer, self.now, self.notified, self.result = peer, 1000.0, [], Result()
        sock.setblocking(False)
        reader, settings = watchdog_app.RequestReader(1 << 16, 1 << 20), watchdog_app.Settings()
        self.connection = Noting(sock, "peer", reader, settings, lambda: self.now, self.notified.append)
        self.connection.taken_ways = set()
        base = watchdog_app.base_environ("127.0.0.1", 80)
        self.server = SimpleNamespace(application=self.application, base=base, settings=settings, closing=False)
        self.server.clock = lambda: self.now
        self.server.before_stream = lambda connection: None

    def application(self, environ, start_response):
        path = environ["PATH_INFO"]
        start_response("200 OK", [("Content-Length", "9")] if path == "/cut" else [])
        if path == "/awaited":
            return self.result
        return iter([b"short"]) if path == "/cut" else [b"x" * (LARGE if path == "/large" else 1)]

    def sent(self, data, run=True):
        """Let the peer send; run what that completes."""
        self.peer.sendall(data)
        self.step(run)

    def step(self, run=True):
        called = self.connection.step()
        if called and run:
            self.run()
        assert not run or self.connection.state != "running"

    def run(self):
        self.connection.run(self.server)
        while self.connection.more and self.connection.step():
            self.connection.run(self.server)

    def queued(self, data=GET % b""):
        self.sent(data, run=False)
        self.connection.queue()

    def fill(self):
        """Let the kernel take no more."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.connection.sock.send(b"x" * 65536)

    def take(self):
        """Let the peer take all that there is."""
        self.peer.setblocking(False)
        while self.connection.state == "sending":
            with contextlib.suppress(BlockingIOError):
                while self.peer.recv(1 << 20):
                    pass
            self.connection.step()

    def large(self, data=b"", path=b"large"):
        self.sent(GET % path + data)
        assert self.connection.state == "sending"

    def awaited(self):
        self.sent(GET % b"awaited")
        assert self.connection.state == "awaiting"

    def over(self):
        """Let its time be over."""
        self.now = self.connection.deadline
        if self.connection.expire(self.now):
            self.run()

    def lost(self):
        """Let the peer be gone."""
        self.peer.close()
        self.connection.step()


def large_and_last(walk):
    walk.large(path=b"large HTTP/1.1\r\nConnection: close\r\nX-A: x")


def full_100(walk):
    walk.fill()
    walk.sent(EXPECTS)


SCENARIOS = {  # what happens, and the state after it
    "a part of a head": (lambda walk: walk.sent(HALF), "head"),
    "a part of a body": (lambda walk: walk.sent(POST + b"x"), "body"),
    "a 100": (lambda walk: walk.sent(EXPECTS), "body"),
    "a part of a head, then of a body": (lambda walk: (walk.sent(POST[:8]), walk.sent(POST[8:])), "body"),
    "a request at once": (lambda walk: walk.sent(GET % b""), "idle"),
    "a request in parts": (lambda walk: (walk.sent(HALF), walk.sent(LAST[8:])), "lingering"),
    "a body in parts": (lambda walk: (walk.sent(POST), walk.sent(b"12345")), "idle"),
    "a part of a head on an idle connection": (lambda walk: (walk.sent(GET % b""), walk.sent(HALF)), "head"),
    "a part of a body on an idle connection": (lambda walk: (walk.sent(GET % b""), walk.sent(POST)), "body"),
    "requests one after another": (lambda walk: [walk.sent(GET % b"") for _ in range(3)], "idle"),
    "requests at once": (lambda walk: walk.sent(GET % b"" * 3), "idle"),
    "a request and a blank line": (lambda walk: walk.sent(GET % b"" + b"\r\n"), "idle"),
    "a request and a part of the next": (lambda walk: walk.sent(GET % b"" + HALF), "head"),
    "the last request": (lambda walk: walk.sent(LAST), "lingering"),
    "a bad request": (lambda walk: walk.sent(b"bad\r\n\r\n"), "lingering"),
    "a head that takes too long": (lambda walk: (walk.sent(HALF), walk.over()), "lingering"),
    "a body that takes too long": (lambda walk: (walk.sent(POST), walk.over()), "lingering"),
    "nothing for long": (lambda walk: walk.over(), "closed"),
    "nothing more for long": (lambda walk: (walk.sent(GET % b""), walk.over()), "closed"),
    "FIN": (lambda walk: walk.lost(), "closed"),
    "FIN of an idle peer": (lambda walk: (walk.sent(GET % b""), walk.lost()), "closed"),
    "FIN within a head": (lambda walk: (walk.sent(HALF), walk.peer.shutdown(socket.SHUT_WR), walk.step()), "lingering"),
    "a 100 that the kernel does not take": (full_100, "sending"),
    "a 100 that the kernel takes later": (lambda walk: (full_100(walk), walk.take()), "body"),
    "a peer that takes no 100": (lambda walk: (full_100(walk), walk.over()), "closed"),
    "a call that waits": (lambda walk: walk.queued(), "queued"),
    "a call that has waited": (lambda walk: (walk.queued(), walk.connection.has_call() and walk.run()), "idle"),
    "a call that waits on an idle connection": (lambda walk: (walk.sent(GET % b""), walk.queued()), "queued"),
    "a call in parts that waits": (lambda walk: (walk.sent(HALF), walk.queued((GET % b"")[8:])), "queued"),
    "a body in parts that waits": (lambda walk: (walk.sent(POST), walk.queued(b"12345")), "queued"),
    "a call whose caller has gone": (
        lambda walk: (walk.queued(), walk.peer.close(), walk.connection.has_call()),
        "closed",
    ),
    "a response that is cut": (lambda walk: walk.sent(GET % b"cut"), "closed"),
    "a large response": (lambda walk: (walk.large(), walk.take()), "idle"),
    "a large response and a further request": (lambda walk: (walk.large(GET % b""), walk.take()), "head"),
    "a large response, the last": (lambda walk: (large_and_last(walk), walk.take()), "lingering"),
    "a large response that nobody takes": (lambda walk: (walk.large(), walk.over()), "closed"),
    "a large response to a peer that goes": (lambda walk: (walk.large(), walk.lost()), "closed"),
    "an awaited result": (lambda walk: walk.awaited(), "awaiting"),
    "an awaited result that comes": (lambda walk: (walk.awaited(), walk.result.callback(), walk.step()), "idle"),
    "an awaited result that waits for a thread": (
        lambda walk: (walk.awaited(), walk.result.callback(), walk.connection.queue()),
        "queued",
    ),
    "an early request": (lambda walk: (walk.awaited(), walk.sent(GET % b"")), "awaiting"),
    "an awaited result of a peer that goes": (lambda walk: (walk.awaited(), walk.lost()), "closed"),
    "an awaited result after FIN": (
        lambda walk: (walk.awaited(), walk.peer.shutdown(socket.SHUT_WR), walk.step(), walk.over()),
        "closed",
    ),
    "FIN after the last response": (lambda walk: (walk.sent(LAST), walk.lost()), "closed"),
    "much after the last response": (
        lambda walk: [walk.sent(LAST), *[walk.sent(b"x" * 65536) for _ in range(257)]],
        "closed",
    ),
    "nothing after the last response": (lambda walk: (walk.sent(LAST), walk.over()), "closed"),
}


@contextlib.contextmanager
def walking():
    sock, peer = socket.socketpair()
    with sock, peer:
        walk = Walk(sock, peer)
        yield walk
        walk.connection.close()


@pytest.mark.parametrize("name", SCENARIOS)
def test_state_after(name):
    happen, state = SCENARIOS[name]
    with walking() as walk:
        happen(walk)
        assert walk.connection.state == state
        TAKEN[name] = walk.connection.taken_ways.copy()


@pytest.mark.parametrize("state", ["head", "body"])
def test_reset_closes_whatever_is_read(state):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        walk = Walk(listener.accept()[0], peer)
        walk.sent(HALF if state == "head" else POST)
        assert walk.connection.state == state
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        walk.lost()
        assert walk.connection.state == "closed"
        TAKEN[state] = walk.connection.taken_ways.copy()
        walk.connection.close()


def test_stream_goes_on_to_be_awaited_when_its_item_is_sent():
    with walking() as walk:
        walk.awaited()
        walk.result.items = b"x" * LARGE
        walk.result.callback()
        walk.step()
        assert walk.connection.state == "sending"
        walk.take()
        assert walk.connection.state == "awaiting"
        TAKEN["stream"] = walk.connection.taken_ways.copy()


def table():
    """Return the transitions of the table above the class."""
    rows = re.findall(
        r"^# ([A-Z]+(?:, [A-Z]+)*)  +.*? +([A-Z]+(?:, [A-Z]+)*)$", (ROOT / "watchdog_app.py").read_text(), re.M
    )
    return {(old, new) for olds, news in rows for old in olds.lower().split(", ") for new in news.lower().split(", ")}


def test_table_has_all_transitions_and_no_other():
    assert len(TAKEN) == len(SCENARIOS) + 3, "it runs behind the tests above"
    assert set().union(*TAKEN.values()) == table()


def test_notify_says_which_result_is_ready():
    with walking() as walk:
        walk.awaited()
        walk.result.callback()
        assert walk.notified == [walk.connection.fd]
        walk.step()
        assert read_answer(walk.peer.recv(1000))[0].body == b"x"
