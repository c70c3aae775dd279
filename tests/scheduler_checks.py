"""The scheduler's invariants as assertions: a server that looks at them at the end of each step under its lock, and notes what is violated.

Use it by `checks` of test_scheduler.py, or by `monkeypatch.setattr(watchdog_app, "Server", checked(watchdog_app))`, which turns every server
of a test into such a one; `server.violations` has to be empty at the end.
"""

import threading
from collections import deque
from pathlib import Path


class CheckedLock:
    """The server's lock; before it is released, the invariants are looked at."""

    def __init__(self, server):
        self.server, self.lock = server, threading.Lock()

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *exc_info):
        try:
            self.server.verify()
        finally:
            self.lock.release()


class Accepted(dict):
    """The server's connections; one that is accepted belongs to the thread that accepts, until the selector watches it."""

    def __init__(self, server):
        self.server = server

    def __setitem__(self, fd, connection):
        self.server.owners[connection] = self.server.me
        super().__setitem__(fd, connection)


class Waiting(deque):
    """The server's queue; what is taken from it belongs to the thread that takes it."""

    def __init__(self, server):
        super().__init__()
        self.server = server

    def popleft(self):
        connection, request = super().popleft()
        self.server.owners[connection] = self.server.me
        return connection, request


def checked(module):
    """Make a class of `module`'s server that checks itself.

    It keeps its own books beside the server's: `owners` (connections off the selector and not queued -> their thread), `given_away` (with the
    thread that gives them to the selector), `running` (thread -> the connection whose call it runs in place), `busy` (how deep a thread is in
    leading or owning), `live` (threads that have not ended), `exchanging`.
    """

    class CheckedServer(module.Server):
        def __init__(self, *arguments):
            self.local, self.violations = threading.local(), []
            self.owners, self.given_away, self.running, self.busy, self.live, self.exchanging = (
                {},
                {},
                {},
                {},
                set(),
                set(),
            )
            self.polling = 0
            super().__init__(*arguments)
            self.lock, self.connections, self.queue = CheckedLock(self), Accepted(self), Waiting(self)

        # -- what is violated --

        @property
        def me(self):
            """The lock by which the server knows this thread; None for one that is not the server's."""
            return getattr(self.local, "me", None)

        def check(self, holds, what):
            if not holds and len(self.violations) < 20:
                self.violations.append(f"{threading.current_thread().name}: {what}")

        def verify(self):
            """Look at all that the lock protects, which the thread that calls this holds."""
            given = getattr(self.local, "given", None)
            if given is not None and (given.mask or self.connections.get(given.fd) is not given):
                self.given_away.pop((given, self.me), None)
            self.verify_threads()
            self.verify_current()
            queued = [connection for connection, _ in self.queue]
            connections = list(self.connections.values())  # in the order in which the next three change
            owned = set(self.owners)
            given_away = {connection for connection, _ in list(self.given_away)}
            for connection in connections:
                watched = bool(connection.mask)
                places = [
                    watched,
                    connection in owned or (not watched and connection in given_away),
                    connection in queued,
                ]
                self.check(places.count(True) == 1, f"a connection is in the selector, with a thread, queued: {places}")
            if self.workers:  # the last one may be overtaken by the end of the selector
                self.verify_selector()

        def verify_threads(self):
            if self.workers < len(self.live):  # one at a time, and itself
                self.live.discard(self.me)
            self.check(self.workers == len(self.live), f"{self.workers} workers are counted, {len(self.live)} live")
            self.check(self.stopped or self.leader in self.live, "the leader has ended")
            self.check(len(set(self.parked)) == len(self.parked), "a thread is parked twice")
            for worker in self.parked:
                self.check(worker.locked() and worker in self.live, "a parked thread is woken, or has ended")
                self.check(worker is not self.leader, "the leader is parked")
                self.check(not self.busy.get(worker), "a parked thread leads, or owns a connection")

        def verify_current(self):
            connection = self.current
            if connection is not None:
                self.check(self.running.get(self.leader) is connection, "the current connection is not the leader's")
                self.check(
                    connection.mask and connection not in self.owners, "the current connection is off the selector"
                )

        def verify_selector(self):
            """Compare what the kernel watches with what the server takes it to watch."""
            watched = {}
            for line in Path(f"/proc/self/fdinfo/{self.epoll.fileno()}").read_text().splitlines():
                if line.startswith("tfd:"):
                    _, fd, _, events, *_ = line.split()
                    watched[int(fd)] = int(events, 16) & (module.IN | module.OUT)
            masks = {fd: connection.watched for fd, connection in list(self.connections.items()) if connection.watched}
            polled = {fd: events for fd, events in watched.items() if fd not in self.callbacks}
            self.check(polled == masks, f"the selector watches {polled}, not {masks}")
            for connection in list(self.connections.values()):
                self.check(
                    connection.mask in (0, connection.watched),
                    f"the leader waits for {connection.mask}, not {connection.watched}",
                )

        # -- steps --

        @property
        def current(self):
            return self.in_place

        @current.setter
        def current(self, connection):
            leads = self.me is self.leader or getattr(self.local, "handing", False)
            self.check(leads, "a thread that does not lead has set or cleared the current connection")
            self.in_place = connection

        def _new_thread(self):
            worker = super()._new_thread()
            if worker is not None:
                self.live.add(worker)
            return worker

        def _hand_over(self, connection):
            before, self.local.handing = self.leader, True
            handed_over = super()._hand_over(connection)
            self.local.handing = False
            if handed_over:
                self.owners[connection] = before
            return handed_over

        def _work(self, me):
            self.local.me = me
            super()._work(me)
            self.check(me not in self.live, "a thread has ended that is counted")

        def _lead(self, me):
            with self.occupied(me):
                super()._lead(me)

        def _own(self, connection, request=None):
            self.check(
                self.owners.get(connection) is self.me and not connection.mask, "a thread runs what it does not own"
            )
            with self.occupied(self.me):
                super()._own(connection, request)

        def occupied(self, me):
            return Counted(self.busy, me)

        def _poll(self):
            self.check(self.me is self.leader, "a thread polls without the lead")
            self.polling += 1
            self.check(self.polling == 1, "two threads poll")
            super()._poll()
            self.polling -= 1

        def _attend(self, me, connection):
            self.check(me is self.me is self.leader, "a thread attends to a connection without the lead")
            self.check(connection not in self.owners, "a connection that a thread owns is attended to")
            super()._attend(me, connection)

        def _run_in_place(self, me, connection, request):
            target = (request or connection.exchange.request).target
            no_thread = (request and request.refusal) or self.at_once(target)
            self.check(no_thread or self.parked or self.stopped, "a call runs in place, and no thread is parked")
            self.running[me] = connection
            super()._run_in_place(me, connection, request)
            self.running.pop(me)

        def _exchange(self, connection, request, began):
            self.check(
                self.owners.get(connection, self.leader) is self.me,
                "a thread runs an exchange on a connection of another's",
            )
            self.check(connection not in self.exchanging, "two exchanges on one connection")
            self.exchanging.add(connection)
            try:
                return super()._exchange(connection, request, began)
            finally:
                self.exchanging.discard(connection)

        def _watch(self, connection, mask, deadline):
            self.check(
                self.owners.get(connection, self.leader) is self.me, "a thread gives away a connection of another's"
            )
            self.give_away(super()._watch, connection, mask, deadline)

        def _close(self, connection):
            self.check(self.owners.get(connection, self.leader) is self.me, "a thread closes a connection of another's")
            self.give_away(super()._close, connection)

        def give_away(self, how, connection, *arguments):
            """Run a step that gives `connection` to the selector, or closes it; the leader may have it before the step's end."""
            self.local.given = connection
            self.given_away[connection, self.me] = True
            self.owners.pop(connection, None)
            try:
                how(connection, *arguments)
            except BaseException:
                self.owners[connection] = self.me
                raise
            finally:
                self.local.given = None
                self.given_away.pop((connection, self.me), None)

    return CheckedServer


class Counted:
    """Count how deep a thread is in something."""

    def __init__(self, counts, key):
        self.counts, self.key = counts, key

    def __enter__(self):
        self.counts[self.key] = self.counts.get(self.key, 0) + 1

    def __exit__(self, *exc_info):
        self.counts[self.key] -= 1
