"""A model of the scheduler, small enough to look at all that can happen: threads, monitor, stop and connections as steps that interleave.

A step is what no other thread can divide: what is done under the server's lock, or one access without it to what others can see; what a thread
does between two of them belongs to the first. Each step names the method of `watchdog_app.Server` it stands for. Time is left out: whatever may
take a while may take any while. `explore` visits all states that can be reached and returns what is wrong with one of them: two owners of a
connection, a poll without the lead, …, or a state from which there is no way to one in which all that was asked is served or cannot be.

As a program, `python tests/scheduler_model.py`, it explores the larger cases too.
"""

import time
from typing import NamedTuple

# Requests. In place:      f returns  n never returns  x is a fault of the server's  s streams  S streams for ever  l is too large for one send
# Expected to block:       a returns  N never returns  X is a fault                  r needs no successor: a refusal, or answered at once
NEVER, APART, FAULT, STREAM = "nSN", "aNX", "xX", "sS"
IN, OUT = 1, 2


class Case(NamedTuple):
    """What there is: the requests of each connection, and what else can happen."""

    scripts: tuple[str, ...]
    threads: int = 2  # the setting; one more leads
    retire: bool = False  # parked threads may end
    refuse: bool = False  # the system may refuse a thread
    stop: bool = False  # the server may be stopped


class Thread:
    """One thread: the step that it takes next, the connection in its hand with the request, whether it runs it in place, in `_lead`, woken."""

    __slots__ = ("connection", "in_lead", "in_place", "request", "step", "woken")

    def __init__(self, step="none", connection=None, request="", in_place=False, in_lead=False, woken=False):
        self.step, self.connection, self.request, self.in_place, self.in_lead, self.woken = (
            step,
            connection,
            request,
            in_place,
            in_lead,
            woken,
        )

    def freeze(self):
        return (self.step, self.connection, self.request, self.in_place, self.in_lead, self.woken)


class Connection:
    """One connection: what its peer will send, what lies in the kernel and in the reader, what the selector and the server say, the rest to send."""

    __slots__ = ("buffer", "is_open", "kernel", "mask", "out", "script", "watched")

    def __init__(self, script, kernel="", buffer="", mask=IN, watched=IN, out=False, is_open=True):
        self.script, self.kernel, self.buffer, self.mask, self.watched, self.out, self.is_open = (
            script,
            kernel,
            buffer,
            mask,
            watched,
            out,
            is_open,
        )

    def freeze(self):
        return (self.script, self.kernel, self.buffer, self.mask, self.watched, self.out, self.is_open)


CASES = {
    "a call that returns, one that does not": Case(("f", "n")),
    "two requests at once": Case(("ff",)),
    "as many calls that never return as threads": Case(("n", "Nf")),
    "calls expected to block": Case(("aa", "n"), threads=1),
    "streams": Case(("s", "S"), threads=1),
    "an answer too large for one send": Case(("ln",)),
    "a refusal while all threads are taken": Case(("n", "r"), threads=1),
    "faults of the server": Case(("x", "X"), threads=1),
    "threads that retire": Case(("nf",), retire=True),
    "threads that are refused": Case(("n", "a"), refuse=True),
    "a stop during a call": Case(("n",), stop=True),
    "a stop beside a queue": Case(("n", "a"), threads=1, stop=True),
}
LARGER = {
    "a call expected to block, and another, while threads are refused": Case(("n", "af"), refuse=True),
    "a stop beside requests at once": Case(("fa",), threads=1, stop=True),
    "two requests at once beside one that never returns": Case(("ff", "n")),
    "a call that returns, and a stream": Case(("f", "s")),
    "threads that retire and are refused": Case(("f", "n"), retire=True, refuse=True),
    "an answer too large for one send, and a fault": Case(("l", "x")),
    "a stop beside two calls": Case(("f", "n"), stop=True),
    "three threads and one to lead": Case(("f", "n", "S"), threads=3),
}
LOCKED = {
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
}  # steps that take the lock
LEADING = {"poll", "mask", "aside", "parked?", "spare", "apart", "current="}  # steps that only the leader may take
CALLING = {"resting?", "wake", "alarm", "call", "before", "end", "rests?", "rouse", "ring"}
HOLDING = {"parked?", "spare", "apart", "current=", "watch", "watching", "close"} | CALLING
IN_CALL = {"resting?", "wake", "alarm", "call", "before", "end"}


class State:
    """All of it at one moment. `steps` says what can happen, `take` lets it happen, `wrong` what must not be, `is_done` whether all is served."""

    def __init__(self, case, fault="", frozen=None):
        self.case, self.fault = case, fault
        if frozen is None:
            self.begin()
            return
        server, parked, queue, ready, more, threads, connections = frozen
        (self.leader, self.workers, self.current, self.resting, self.alarm, self.stopped, self.waker, self.lock) = (
            server[:8]
        )
        (self.monitor, self.seen, self.stopper) = server[8:]
        self.parked, self.queue, self.ready, self.more = [*parked], [*queue], [*ready], [*more]
        self.threads = [Thread(*thread) for thread in threads]
        self.connections = [Connection(*connection) for connection in connections]

    def begin(self):
        """Server.start, and connections that have been accepted."""
        self.leader, self.workers, self.current, self.resting, self.alarm, self.stopped, self.waker, self.lock = (
            0,
            2,
            None,
            False,
            False,
            False,
            False,
            None,
        )
        first = "wake leader" if self.fault == "the stop is said after the parked are woken" else "stop="
        self.monitor, self.seen, self.stopper = "rest=", None, first if self.case.stop else "none"
        self.parked, self.queue, self.ready, self.more = [1], [], [], []
        self.threads = [Thread("park", woken=True), Thread("park")] + [Thread() for _ in range(self.case.threads - 1)]
        self.connections = [Connection(script) for script in self.case.scripts]

    def freeze(self):
        server = (
            self.leader,
            self.workers,
            self.current,
            self.resting,
            self.alarm,
            self.stopped,
            self.waker,
            self.lock,
        )
        return (
            (*server, self.monitor, self.seen, self.stopper),
            (*self.parked,),
            (*self.queue,),
            (*self.ready,),
            (*self.more,),
            (*[thread.freeze() for thread in self.threads],),
            (*[connection.freeze() for connection in self.connections],),
        )

    # -- what can happen --

    def steps(self):
        """Return the steps that can be taken now, each as (who, how)."""
        found = [(f"peer {index}", "") for index, connection in enumerate(self.connections) if connection.script]
        for index, thread in enumerate(self.threads):
            if thread.step != "none" and (self.lock is None or thread.step not in LOCKED):
                found += [(index, how) for how in self.ways(thread)]
        if self.monitor == "again":
            found += [("monitor", how) for how in ("not yet", *self.starts())] if self.lock is None else []
        elif self.monitor == "stuck?":
            found += [("monitor", "not yet"), ("monitor", "stuck")]
        elif self.monitor != "sleep" or self.alarm:
            found.append(("monitor", ""))
        if self.stopper != "none" and (self.stopper != "release" or self.lock is None):
            found.append(("stopper", ""))
        return found

    def ways(self, thread):
        if thread.step == "park":
            return ["woken"] if thread.woken else ["timeout"] if self.case.retire else []
        if thread.step == "poll":
            return (
                [""]
                if self.waker or self.more or any(self.has_event(connection) for connection in self.connections)
                else []
            )
        if thread.step == "call":
            return [] if thread.request in "nN" else [""]
        if thread.step in ("spare", "apart") or (thread.step == "before" and self.current == thread.connection):
            return self.starts()
        return [""]

    def starts(self):
        """Return how an attempt to start a thread may end, where one is made."""
        if self.parked or not self.may_start():
            return [""]
        return ["", "refused"] if self.case.refuse else [""]

    def may_start(self):
        """_new_thread: its first lines."""
        if self.stopped and self.fault != "a thread is started after the stop":
            return False
        return self.workers <= self.case.threads

    @staticmethod
    def has_event(connection):
        return connection.watched == OUT or (connection.watched == IN and connection.kernel != "")

    # -- what happens --

    def take(self, who, how):
        """Take one step."""
        if who == "monitor":
            self.monitor = self.monitor_step(how)
        elif who == "stopper":
            self.stopper = self.stop_step()
        elif isinstance(who, str):
            connection = self.connections[int(who[5:])]
            connection.kernel, connection.script = connection.kernel + connection.script[0], connection.script[1:]
        else:
            thread = self.threads[who]
            STEPS[thread.step](self, who, thread, how)

    def new_thread(self, how):
        """_new_thread"""
        if how == "refused" or not self.may_start():
            return None
        worker = next(index for index, thread in enumerate(self.threads) if thread.step == "none")
        self.threads[worker] = Thread("park")
        self.workers += 1
        return worker

    def hand_over(self, index, how):
        """_hand_over"""
        successor = self.parked.pop() if self.parked else self.new_thread(how)
        if successor is None:
            return False
        if self.fault != "the connection in hand stays in the selector":
            self.connections[index].mask = 0
        self.current, self.leader = None, successor
        self.threads[successor].woken = True
        return True

    @staticmethod
    def unwatch(connection):
        """_unwatch"""
        connection.mask = connection.watched = 0

    def monitor_step(self, how):
        """monitor, with _may_rest and _is_stuck; it tries to rest each time"""
        step = self.monitor
        if step == "rest=":
            self.resting = True
            return "rest?" if self.fault == "the monitor sleeps without a last look" else "current?"
        if step == "current?":
            return "rest?" if self.current is None else "rest=no"
        if step == "rest=no":
            self.resting = False
            return "rest?"
        if step == "rest?":
            return "sleep" if self.resting else "nap"
        if step == "sleep":
            self.alarm = False
            return "awake="
        if step == "nap":
            self.alarm = False
            return "stuck?"
        if step == "awake=":
            self.resting = False
            return "stuck?"
        if step == "stuck?":
            self.seen = self.current if self.fault == "the monitor does not look again under the lock" else None
            return "again" if how == "stuck" and self.current is not None else "rest="
        given = self.current if self.seen is None else self.seen
        if how != "not yet" and given is not None:
            self.hand_over(given, how)
        self.seen = None
        return "rest="

    def stop_step(self):
        """stop"""
        if self.stopper == "stop=":
            self.stopped = True
            return "wake leader"
        if self.stopper == "wake leader":
            self.waker = True
            return "release"
        if self.stopper == "release":
            for worker in self.parked:
                self.threads[worker].woken = True
            self.parked.clear()
            return "late" if not self.stopped else "none"
        self.stopped = self.waker = True
        return "none"

    # -- steps of a thread; each sets the next one --

    def park(self, me, thread, how):
        """_is_woken: acquire"""
        if how == "timeout":
            thread.step = "retire"
        else:
            thread.woken, thread.step = False, "stopped?"

    def retire(self, me, thread, how):
        """_is_woken: after PARKED_SECONDS"""
        least = 0 if self.fault == "the last parked thread retires" else 1
        if self.fault == "a thread retires that was woken" or (me in self.parked and len(self.parked) > least):
            if me in self.parked:
                self.parked.remove(me)
            self.workers -= 1
            self.threads[me] = Thread()
        else:
            thread.step = "park"

    def is_stopped(self, me, thread, how):
        """_is_woken: what `stopped` says after it"""
        thread.step = "leave" if self.stopped else "mine?"
        if self.fault == "a thread looks twice whether to end" and not self.stopped:
            thread.step = "stopped again?"

    def is_stopped_again(self, me, thread, how):
        """_is_woken, as it was"""
        thread.step = "mine?"
        if self.stopped:
            self.threads[me] = Thread()

    def leave(self, me, thread, how):
        """_is_woken: the end"""
        self.workers -= 1
        self.threads[me] = Thread()

    def is_mine(self, me, thread, how):
        """_work: whether it was woken to lead"""
        thread.in_lead = self.leader == me
        thread.step = "look" if thread.in_lead else "park or job"

    def look(self, me, thread, how):
        """_lead: whether the lead is still mine"""
        leads = self.leader == me or self.fault == "the leader polls without a look whether it still leads"
        thread.step, thread.in_lead = ("look on", True) if leads else ("park or job", False)

    def look_on(self, me, thread, how):
        """_lead: not stopped; the next of what is ready"""
        if self.stopped:
            thread.step, thread.in_lead = "park or job", False
        elif not self.ready:
            thread.step = "poll"
        else:
            event = self.ready.pop(0)
            thread.step = "look"
            if event == "waker":
                self.waker = False  # _woken
            elif self.connections[event].is_open:
                thread.step, thread.connection = "mask", event

    def poll(self, me, thread, how):
        """_poll"""
        self.ready += ["waker"] if self.waker else []
        self.ready += [index for index, connection in enumerate(self.connections) if self.has_event(connection)]
        self.ready += self.more
        self.more.clear()
        thread.step = "look"

    def attend(self, me, thread, how):
        """_lead: the connection's mask; _attend, _flush, _read"""
        connection = self.connections[thread.connection]
        if not connection.mask and self.fault != "an event is served whoever owns the connection":
            thread.step = "aside"
        elif connection.out:
            connection.out = False
            self.settle(thread)
        elif not connection.buffer and not connection.kernel:
            self.settle(thread)
        else:
            if not connection.buffer:
                connection.buffer, connection.kernel = connection.kernel, ""
            thread.request, connection.buffer = connection.buffer[0], connection.buffer[1:]
            asks = thread.request != "r" and self.fault != "a call runs in place though nobody is parked"
            thread.step = "apart" if thread.request in APART else "parked?" if asks else "current="

    def set_aside(self, me, thread, how):
        """_set_aside"""
        connection = self.connections[thread.connection]
        if not connection.mask or self.fault == "a connection is set aside though its owner has given it back":
            self.unwatch(connection)
        self.let_go(thread)

    def is_parked(self, me, thread, how):
        """_has_successor: the look without the lock"""
        thread.step = "current=" if self.parked and not self.queue else "spare"

    def spare(self, me, thread, how):
        """_has_successor: a thread is started, and parked"""
        spare = None if self.parked else self.new_thread(how)
        if spare is not None:
            self.parked.append(spare)
        thread.step = "current=" if self.parked and not self.queue else "apart"

    def apart(self, me, thread, how):
        """_run_apart"""
        if self.hand_over(thread.connection, how):
            thread.step = "call"
            return
        if self.fault != "a queued connection stays in the selector":
            self.connections[thread.connection].mask = 0
        self.queue.append((thread.connection, thread.request))
        self.let_go(thread)

    def set_current(self, me, thread, how):
        """_run_in_place: current"""
        thread.in_place, self.current = True, thread.connection
        thread.step = "call" if self.fault == "the leader does not wake the monitor" else "resting?"

    def is_resting(self, me, thread, how):
        """_run_in_place: whether the monitor rests"""
        thread.step = "wake" if self.resting else "call"

    def wake(self, me, thread, how):
        """wake: resting"""
        self.resting, thread.step = False, "alarm"

    def ring(self, me, thread, how):
        """wake: alarm"""
        self.alarm, thread.step = True, "call"

    def call(self, me, thread, how):
        """_exchange"""
        if thread.request == "l":
            self.connections[thread.connection].out = True
        if thread.request in STREAM:
            thread.step = "before"
        elif thread.in_place:
            thread.step = "end"
        else:
            self.after_call(thread)

    def before(self, me, thread, how):
        """before_stream"""
        anyhow = self.fault == "a stream gives away a lead that is another's"
        if self.current == thread.connection or anyhow:
            self.hand_over(thread.connection, how)
        thread.step, thread.request = "call", "n" if thread.request == "S" else "f"

    def end(self, me, thread, how):
        """_run_in_place: its end"""
        leading = self.leader == me or self.fault == "the leader does not look whether it still leads after a call"
        if leading:
            self.current = None
        thread.in_place = False
        if thread.request in FAULT:
            thread.step = "close"  # _failed
        elif leading:
            self.settle(thread)
        else:
            self.after_call(thread)

    def after_call(self, thread):
        """_own: the next request, or _settle"""
        connection = self.connections[thread.connection]
        if thread.request in FAULT:
            thread.step = "close"  # _failed
        elif connection.buffer and not connection.out:
            thread.request, connection.buffer, thread.step = connection.buffer[0], connection.buffer[1:], "call"
        else:
            thread.step = "rests?"

    def does_rest(self, me, thread, how):
        """_own: whether the monitor rests"""
        if self.resting:
            thread.step = "rouse"
        else:
            self.settle(thread)

    def rouse(self, me, thread, how):
        """wake, by the thread that owns a connection: resting"""
        self.resting, thread.step = False, "ring"

    def ring_and_settle(self, me, thread, how):
        """wake, by the thread that owns a connection: alarm"""
        self.alarm = True
        self.settle(thread)

    def settle(self, thread):
        """_settle, and _watch as far as it goes without the lock"""
        connection = self.connections[thread.connection]
        if connection.mask and connection.buffer and not connection.out:
            self.more.append(thread.connection)
        if connection.mask == (OUT if connection.out else IN):
            self.let_go(thread)
        else:
            thread.step = "watch"

    def watch(self, me, thread, how):
        """_watch: the selector"""
        connection = self.connections[thread.connection]
        wanted = OUT if connection.out else IN
        if connection.watched == wanted:
            connection.mask = wanted
            self.let_go(thread)
        else:
            connection.watched = wanted
            self.lock, thread.step = me, "watching"

    def watching(self, me, thread, how):
        """_watch: the mask"""
        connection = self.connections[thread.connection]
        connection.mask, self.lock = connection.watched, None
        self.let_go(thread)

    def close(self, me, thread, how):
        """_close"""
        connection = self.connections[thread.connection]
        self.unwatch(connection)
        connection.is_open, connection.script, connection.kernel, connection.buffer = False, "", "", ""
        self.let_go(thread)

    def let_go(self, thread):
        thread.connection, thread.request = None, ""
        thread.step = "look" if thread.in_lead else "park or job"

    def park_or_job(self, me, thread, how):
        """_job_or_park"""
        thread.connection = None
        if self.queue and self.fault != "a thread parks without a look at the queue":
            thread.connection, thread.request = self.queue.pop(0)
            thread.step = "call"
        else:
            thread.step = "park"
            if self.stopped:
                thread.woken = True
            else:
                self.parked.append(me)

    # -- what must not be --

    def wrong(self):
        """Return what is wrong with this state, "" for nothing."""
        holders = {}
        for me, thread in enumerate(self.threads):
            if thread.step in LEADING and self.leader != me:
                return f"a thread takes the step {thread.step} without the lead"
            if thread.step in HOLDING:
                if thread.connection in holders:
                    return "two threads own a connection"
                holders[thread.connection] = me
        return self.wrong_connection(holders) or self.wrong_thread() or self.wrong_current(holders)

    def wrong_connection(self, holders):
        queued = [index for index, _ in self.queue]
        for index, connection in enumerate(self.connections):
            owner = holders.get(index)
            if queued.count(index) + (owner is not None) > 1:
                return "a connection has two owners"
            if (
                owner is not None
                and connection.mask
                and owner != self.leader
                and self.threads[owner].step != "watching"
            ):
                return "a connection is in the selector and with a thread"
            if index in queued and connection.mask:
                return "a connection is in the selector and queued"
            if (
                connection.is_open
                and owner is None
                and index not in queued
                and (not connection.mask or connection.mask != connection.watched)
            ):
                return "a connection is nowhere"
        return ""

    def wrong_thread(self):
        if self.workers != sum(thread.step != "none" for thread in self.threads):
            return "workers are not the threads that live"
        if self.threads[self.leader].step == "none" and not self.stopped:
            return "the leader has ended"
        for worker in self.parked:
            if (
                self.threads[worker].step not in ("park", "retire")
                or self.threads[worker].woken
                or worker == self.leader
            ):
                return "a parked thread is not parked"
        return ""

    def wrong_current(self, holders):
        if self.current is None:
            return ""
        thread = self.threads[self.leader]
        if holders.get(self.current) != self.leader or not thread.in_place or thread.step not in IN_CALL:
            return "the current connection is not the leader's"
        if thread.request not in "r" and not self.parked and not self.stopped:
            return "a call runs in place and nobody is parked"
        return ""

    def is_done(self):
        """Tell whether all that was asked is served, or in a call that never returns, or behind as many of those as there may be."""
        stuck = {thread.connection for thread in self.threads if thread.step == "call" and thread.request in "nN"}
        if self.stopped:
            return all(
                thread.step == "none" or (thread.step == "call" and thread.connection in stuck)
                for thread in self.threads
            )
        full = len(stuck) >= (1 if self.case.refuse else self.case.threads)
        queued = {index for index, _ in self.queue} if full else set()
        held = {thread.connection for thread in self.threads if thread.step in HOLDING}
        for index, connection in enumerate(self.connections):
            if index in stuck or index in queued:
                continue
            if connection.script or connection.kernel or connection.buffer or connection.out or index in held:
                return False
            if connection.is_open and not connection.mask:
                return False
        return True


STEPS = {
    "park": State.park,
    "retire": State.retire,
    "stopped?": State.is_stopped,
    "stopped again?": State.is_stopped_again,
    "leave": State.leave,
    "mine?": State.is_mine,
    "look": State.look,
    "look on": State.look_on,
    "poll": State.poll,
    "mask": State.attend,
    "aside": State.set_aside,
    "parked?": State.is_parked,
    "spare": State.spare,
    "apart": State.apart,
    "current=": State.set_current,
    "resting?": State.is_resting,
    "wake": State.wake,
    "alarm": State.ring,
    "call": State.call,
    "rests?": State.does_rest,
    "rouse": State.rouse,
    "ring": State.ring_and_settle,
    "before": State.before,
    "end": State.end,
    "watch": State.watch,
    "watching": State.watching,
    "close": State.close,
    "park or job": State.park_or_job,
}


class Found(NamedTuple):
    """What an exploration has found: the number of states, what is wrong, "" for nothing, and the steps that lead there."""

    states: int
    wrong: str
    steps: list[tuple[object, str]]


def explore(case, fault="", most=5_000_000):
    """Visit all states of `case`, breadth first."""
    first = State(case, fault).freeze()
    numbers, states, came_from, before = {first: 0}, [first], [(0, ("", ""))], [[]]
    done, number = [], 0
    while number < len(states):
        frozen = states[number]
        state = State(case, fault, frozen)
        if wrong := state.wrong():
            return Found(len(states), wrong, way(came_from, number))
        if state.is_done():
            done.append(number)
        for step in state.steps():
            after = State(case, fault, frozen)
            after.take(*step)
            frozen_after = after.freeze()
            known = numbers.get(frozen_after)
            if known is None:
                known = numbers[frozen_after] = len(states)
                states.append(frozen_after)
                came_from.append((number, step))
                before.append([])
                assert known < most, "too many states"
            before[known].append(number)
        number += 1
    reached = ways_to(done, before)
    for number in range(len(states)):
        if number not in reached:
            return Found(len(states), "what was asked can no longer be served", way(came_from, number))
    return Found(len(states), "", [])


def ways_to(goals, before):
    """Return all states from which one of `goals` can be reached."""
    reached, todo = set(goals), list(goals)
    while todo:
        for number in before[todo.pop()]:
            if number not in reached:
                reached.add(number)
                todo.append(number)
    return reached


def way(came_from, number):
    """Return the steps from the first state to `number`."""
    steps = []
    while number:
        number, step = came_from[number]
        steps.append(step)
    return steps[::-1]


if __name__ == "__main__":
    for name, case in {**CASES, **LARGER}.items():
        began = time.monotonic()
        found = explore(case)
        print(
            f"{found.states:8} states  {time.monotonic() - began:6.1f} s  {name}: {found.wrong or 'nothing wrong'}",
            *found.steps,
            sep="\n",
            flush=True,
        )
