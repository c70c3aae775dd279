"""The model's steps in the real server: its threads run one at a time, from one step of the model to the next, and both have to agree after each.

A thread stops before each step that `scheduler_model` knows: the lock, an access to what others can see, a poll, a park, a call. The server, its
connections over socket pairs, its selector, its reader and its exchanges are the real ones. What differs: a thread is started to stop at once,
time stands still but for the monitor, calls that never return wait for the end of the replay, and the selector's events come in a fixed order.
"""

import contextlib
import socket
import threading
from typing import ClassVar

from conftest import DEADLINE
from scheduler_model import APART, FAULT, STREAM, State

LABELS = {"none": ""} | {  # step of the model -> what a thread stops at before it
    step: label
    for label, steps in {
        "lock": (
            "retire",
            "leave",
            "aside",
            "spare",
            "apart",
            "before",
            "end",
            "watch",
            "close",
            "park or job",
            "again",
            "release",
        ),
        "acquire": ("park", "sleep", "nap"),
        "release": ("alarm", "ring"),
        "stopped": ("stopped?", "stopped again?", "look on"),
        "stopped=": ("stop=", "late"),
        "leader": ("mine?", "look"),
        "parked": ("parked?",),
        "current": ("current?", "stuck?"),
        "current=": ("current=",),
        "resting": ("resting?", "rest?", "rests?"),
        "resting=": ("rest=", "rest=no", "awake=", "wake", "rouse"),
        "poll": ("poll",),
        "mask": ("mask",),
        "mask=": ("watching",),
        "call": ("call",),
        "wake_leader": ("wake leader",),
    }.items()
    for step in steps
}


class Actor:
    """A thread that stops at each step until it is told how to take it."""

    def __init__(self, stage, run):
        self.stage, self.me, self.label, self.how, self.holds_lock = stage, None, "", "", False
        self.failure = ""
        self.go, self.arrived = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self.live, args=(run,), daemon=True)

    def live(self, run):
        self.stage.local.actor = self
        try:
            run()
        except BaseException as error:  # it is the end of the replay, or the model has this thread still
            self.failure = repr(error)
        self.label = ""
        self.arrived.release()

    def begin(self):
        self.thread.start()
        self.await_arrival()

    def stop_at(self, label):
        self.label = label
        self.arrived.release()
        self.go.acquire()

    def step(self, how):
        self.how = how
        self.go.release()
        self.await_arrival()

    def await_arrival(self):
        arrived = self.arrived.acquire(timeout=DEADLINE)
        assert arrived, f"a thread does not come to its next step after {self.label}"


class Stage:
    """Who acts, and the replacements for what a server's threads wait at."""

    def __init__(self, slots):
        self.local, self.free, self.over = threading.local(), False, False
        self.workers, self.others, self.all = [None] * slots, {}, []

    def stop_at(self, label, anyhow=False):
        """Stop the thread that calls this, unless it holds the lock, so that nobody can see what it does."""
        actor = getattr(self.local, "actor", None)
        if actor is not None and not self.free and (anyhow or not actor.holds_lock):
            actor.stop_at(label)
        if actor is not None and self.over:
            raise SystemExit

    def how(self):
        actor = getattr(self.local, "actor", None)
        return actor.how if actor else ""

    def act(self, run):
        actor = Actor(self, run)
        self.all.append(actor)
        return actor

    def end(self, failed):
        """Let all of them run to their ends; or, where the server is at fault, end wherever they are."""
        self.free, self.over = True, failed
        for actor in self.all:
            actor.go.release()


class StageLock:
    """The server's lock; in a replay nobody is told to take it while another has it."""

    def __init__(self, stage):
        self.stage, self.lock = stage, threading.Lock()

    def __enter__(self):
        self.stage.stop_at("lock")
        taken = self.lock.acquire(timeout=DEADLINE if self.stage.free else 0.0)
        assert taken, "the lock is not free"
        if actor := getattr(self.stage.local, "actor", None):
            actor.holds_lock = True

    def __exit__(self, *exc_info):
        if actor := getattr(self.stage.local, "actor", None):
            actor.holds_lock = False
        self.lock.release()


class ParkLock:
    """What a thread parks on, and the monitor's alarm; a wait that the model lets time out does so at once."""

    def __init__(self, stage):
        self.stage, self.lock = stage, threading.Lock()

    def acquire(self, timeout=-1):
        self.stage.stop_at("acquire")
        return self.lock.acquire(timeout=0.01 if self.stage.free else 0.0)

    def release(self):
        self.stage.stop_at("release")
        self.lock.release()

    def locked(self):
        return self.lock.locked()


class StageEpoll:
    """The selector; a poll waits for nothing, since the model lets it happen when there is something."""

    def __init__(self, stage, epoll, order):
        self.stage, self.epoll, self.order, self.watched = stage, epoll, order, {}

    def poll(self, timeout=None):
        self.stage.stop_at("poll")
        return sorted(self.epoll.poll(0.01 if self.stage.free else 0.0), key=lambda event: self.order(event[0]))

    def register(self, fd, mask):
        self.epoll.register(fd, mask)
        self.watched[fd] = mask
        self.stage.stop_at("mask=", anyhow=True)

    def modify(self, fd, mask):
        self.epoll.modify(fd, mask)
        self.watched[fd] = mask
        self.stage.stop_at("mask=", anyhow=True)

    def unregister(self, fd):
        self.watched.pop(fd, None)
        self.epoll.unregister(fd)

    def close(self):
        self.epoll.close()


class Connections(dict):
    """The server's connections; who has found one looks at its mask next."""

    def __init__(self, stage):
        self.stage = stage

    def get(self, fd, default=None):
        connection = super().get(fd, default)
        if connection is not None:
            self.stage.stop_at("mask")
        return connection


class Expected:
    """The server's expectation: the requests of the model say whether they block."""

    paths: ClassVar = {}

    def blocks(self, target):
        return target[1] in APART

    def note(self, target, seconds):
        pass


def shared(name):
    """Make an attribute that a thread stops at before it reads or sets it."""
    hidden = f"shared_{name}"

    def read(self):
        self.stage.stop_at(name)
        return getattr(self, hidden)

    def write(self, value):
        self.stage.stop_at(f"{name}=")
        setattr(self, hidden, value)

    return property(read, write)


def staged(module, stage):
    """Make classes of `module`'s server and connection for a stage."""

    class StagedServer(module.Server):
        leader, current, resting, stopped, parked = (
            shared(name) for name in ("leader", "current", "resting", "stopped", "parked")
        )

        def __init__(self, *arguments):
            self.stage = stage
            super().__init__(*arguments)
            self.lock, self.connections, self.expectation = StageLock(stage), Connections(stage), Expected()
            self.epoll = StageEpoll(stage, self.epoll, self.order)
            self.next_sweep = 1.0  # before all deadlines, and not yet: the clock stands still

        def order(self, fd):
            return -1 if fd == self.waker else fd

        def wake_leader(self):
            stage.stop_at("wake_leader")
            super().wake_leader()

        def _exchange(self, connection, request, began):
            stage.stop_at("call")
            if request.target[1] in FAULT:
                raise RuntimeError("a fault of the server")
            return super()._exchange(connection, request, began)

    class StagedConnection(module.Connection):
        __slots__ = ()

        def send(self, data):
            large = getattr(stage.local, "kind", "") == "l"
            super().send(data[:-1] if large else data)
            if large:
                self.out = memoryview(data)[-1:]

    return StagedServer, StagedConnection


class Replay:
    """One server on a stage, beside the model of the same case."""

    def __init__(self, module, case, stage, fault):
        self.module, self.case, self.stage, self.state = module, case, stage, State(case, fault)
        self.listener = socket.create_server(("127.0.0.1", 0))
        server_class, connection_class = staged(module, stage)
        self.server = server_class(
            self.listener, self.application, module.Settings(threads=str(case.threads)), self.clock
        )
        self.peers, self.connections = [], []
        for _ in case.scripts:
            ours, peer = socket.socketpair()
            ours.setblocking(False)
            connection = connection_class(ours, "", module.RequestReader(10_000, 10_000), 1.0)
            self.server.connections[connection.fd] = connection
            self.server._watch(connection, module.IN, 100.0)
            self.peers.append(peer)
            self.connections.append(connection)
        self.numbers = {connection.fd: index for index, connection in enumerate(self.connections)} | {
            self.server.waker: "waker"
        }
        self.server.start()
        stage.others["monitor"] = stage.act(self.monitor)
        if case.stop:
            stage.others["stopper"] = stage.act(self.server.stop)
        for actor in stage.others.values():
            actor.begin()

    def clock(self):
        """Return the time: long past for the monitor, where the model lets it find a call stuck."""
        local = self.stage.local
        stuck = (
            getattr(local, "actor", None) is self.stage.others.get("monitor") is not None
            and self.stage.how() != "not yet"
        )
        return 1.0 if stuck else 0.0

    def monitor(self):
        while not self.stage.free:
            self.server.monitor()

    def application(self, environ, start_response):
        kind = environ["PATH_INFO"][1]
        self.stage.local.kind = kind
        start_response("200 OK", [])
        return self.stream() if kind in STREAM else [b"x"]

    def stream(self):
        self.stage.stop_at("call")
        yield b"x"

    # -- one step in both --

    def step(self, who, how):
        """Take a step in the model and in the server; fail where they differ then."""
        if str(who).startswith("peer"):
            index = int(who[5:])
            self.peers[index].sendall(
                b"GET /%b HTTP/1.1\r\nHost: test\r\n\r\n" % self.state.connections[index].script[0].encode()
            )
        self.state.take(who, how)
        actor = self.stage.others.get(who) or (self.stage.workers[who] if isinstance(who, int) else None)
        if actor:
            actor.step(how)
        model, server = self.of_model(), self.of_server()
        different = [
            f"{name}: {model[name]} in the model, {server[name]} in the server"
            for name in model
            if model[name] != server[name]
        ]
        failures = [actor.failure for actor in self.stage.all if actor.failure]
        assert not different + failures, f"after {who} {how}: {'; '.join(different + failures)}"

    def of_model(self):
        """Return what can be compared of the model's state."""
        state = self.state
        seen = {
            name: getattr(state, name)
            for name in (
                "leader",
                "parked",
                "workers",
                "queue",
                "current",
                "resting",
                "alarm",
                "stopped",
                "ready",
                "more",
            )
        }
        seen["steps"] = [LABELS[thread.step] for thread in state.threads]
        seen["woken"] = [thread.step != "none" and thread.woken for thread in state.threads]
        seen["events"] = ["waker"] * state.waker + [
            index for index, connection in enumerate(state.connections) if state.has_event(connection)
        ]
        seen["monitor"], seen["stopper"] = LABELS[state.monitor], LABELS[state.stopper]
        seen["connections"] = [(c.is_open, c.mask, c.watched, c.out) for c in state.connections]
        return seen

    def of_server(self):
        """Return the same of the server's."""
        server, names = self.server, {0: 0, self.module.IN: 1, self.module.OUT: 2}
        workers = [actor if actor and actor.label else None for actor in self.stage.workers]
        me = [actor.me if actor else None for actor in workers]
        return {
            "leader": next(
                (index for index, actor in enumerate(self.stage.workers) if actor and actor.me is server.leader), None
            ),
            "parked": [me.index(worker) for worker in server.parked],
            "workers": server.workers,
            "queue": [(self.connections.index(connection), request.target[1]) for connection, request in server.queue],
            "current": None if server.current is None else self.connections.index(server.current),
            "resting": server.resting,
            "alarm": not server.alarm.locked(),
            "stopped": server.stopped,
            "ready": [self.numbers[fd] for fd in server.ready],
            "more": [self.numbers[fd] for fd in server.more],
            "steps": [actor.label if actor else "" for actor in workers],
            "woken": [worker is not None and not worker.locked() for worker in me],
            "events": [
                self.numbers[fd]
                for fd, _ in sorted(server.epoll.epoll.poll(0), key=lambda event: server.order(event[0]))
            ],
            "monitor": self.stage.others["monitor"].label,
            "stopper": self.stage.others["stopper"].label if self.case.stop else "",
            "connections": [
                (c in server.connections.values(), names[c.mask], names[server.epoll.watched.get(c.fd, 0)], bool(c.out))
                for c in self.connections
            ],
        }

    def close(self, failed):
        """Let all threads run to their ends, and close all."""
        self.stage.end(failed)
        self.server.stop()
        for actor in self.stage.all:
            actor.thread.join(DEADLINE)
        alive = [actor.label for actor in self.stage.all if actor.thread.is_alive()]
        for peer in self.peers:
            peer.close()
        for connection in self.connections:
            connection.sock.close()
        self.server.close()
        assert not alive, f"threads have not ended: {alive}"


@contextlib.contextmanager
def replaying(module, case, fault=""):
    """Replay `case` in `module`'s server, beside the model or one with a fault, while this is open."""
    stage = Stage(case.threads + 1)

    def start_thread(work, me, name):
        """Start a thread of the server: it takes the lowest number that is free, as the model's do."""
        if stage.how() == "refused":
            raise RuntimeError("can't start new thread")
        actor = stage.act(lambda: work(me))
        actor.me = me
        number = next(index for index, other in enumerate(stage.workers) if other is None or not other.label)
        stage.workers[number] = actor
        actor.begin()

    kept = module.Lock, module.start_thread, module.REST_AFTER
    module.Lock, module.start_thread, module.REST_AFTER = lambda: ParkLock(stage), start_thread, -1
    try:
        replay, failed = Replay(module, case, stage, fault), True
        try:
            yield replay
            failed = False
        finally:
            replay.close(failed)
    finally:
        module.Lock, module.start_thread, module.REST_AFTER = kept
