"""Run the server and its clients in one thread, so that each run does the same, step by step, and can be counted and timed."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import watchdog_app

GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:5000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: 127.0.0.1:5000\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n%b\r\n0\r\n\r\n" % (
    b"x" * 1024
)


def hello(event: Any, context: Any) -> Any:
    """Answer as the smallest function does."""
    return {"statusCode": 200, "body": {"message": "Hello from OpenFaaS!"}}


def length(event: Any, context: Any) -> Any:
    """Read the body."""
    return {"statusCode": 200, "body": {"bytes": len(event.body)}}


class Clients:
    """Some connections, each of which asks again when all have their answers."""

    def __init__(self, port: int, number: int, request: bytes) -> None:
        self.request = request
        self.socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(number)]
        for sock in self.socks:
            sock.setblocking(False)
        self.waiting: list[socket.socket] = []
        self.rounds = 0  # still to be made

    def turn(self) -> bool:
        """Take the answers that have come, and ask again when there is none to come; return whether all is done."""
        self.waiting = [sock for sock in self.waiting if not self._is_answered(sock)]
        if not self.waiting and self.rounds:
            self.rounds -= 1
            self.waiting = self.socks[:]
            for sock in self.socks:
                sock.send(self.request)
        return not self.waiting

    @staticmethod
    def _is_answered(sock: socket.socket) -> bool:
        try:
            answer = sock.recv(65536)
        except BlockingIOError:
            return False
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"the answer is {answer!r}")
        return True

    def close(self) -> None:
        """Close the connections."""
        for sock in self.socks:
            sock.close()


class OneThread:
    """The module's own server, whose leader is the calling thread; between two polls the clients get their turn.

    Its clock stands still: no call is ever slow, so that none is given to another thread, and a run does not depend on the machine.
    Arguments: handle; request, the bytes that each of `number` clients sends over and over.
    """

    def __init__(self, handle: Callable[[Any, Any], Any], request: bytes, number: int = 32) -> None:
        settings = watchdog_app.Settings()
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        application = watchdog_app.Application(handle, settings, {"HOSTNAME": "here"})
        self.server = watchdog_app.Server(listener, application, settings, clock=partial(float, 1))
        self.clients = Clients(listener.getsockname()[1], number, request)
        self.server.lead.leader = threading.Lock()
        # Stands for a thread that could take the lead; since no call is slow, none has to
        self.server.lead.parked.append(threading.Lock())
        self.failure: BaseException | None = None
        self.always = os.eventfd(1)  # readable at every poll
        self.server.callbacks[self.always] = self._turn
        self.server.epoll.register(self.always, watchdog_app.IN)

    def _turn(self) -> None:
        try:
            self.server.lead.stopped = self.clients.turn()
        except BaseException as failure:  # the server would log it and go on
            self.failure, self.server.lead.stopped = failure, True

    def run(self, rounds: int) -> None:
        """Let each client make so many requests."""
        self.clients.rounds, self.server.lead.stopped = rounds, False
        while not self.server.lead.stopped:
            self.server.lead.serve()
        if self.failure:
            raise self.failure

    def close(self) -> None:
        """Close all."""
        self.clients.close()
        self.server.close()
        os.close(self.always)
