"""All that can happen to the Lead when its threads interleave: the class itself, with each access to what threads share made a step.

`steps_of` compiles the methods of `watchdog_app.Lead`, or of a subclass, to generators that pause before each such access, lock and park. A
`World` runs them as threads, beside a monitor, a stop, and peers whose jobs are fake: a job is a list of calls, and polling looks at flags.
`explore` visits all states that can be reached and returns what is wrong with one of them: two owners of a job, a poll without the lead, ...,
or a state from which there is no way to one in which all that was asked is served or cannot be. Time is left out: what may take a while may
take any while.

As a program, `python tests/scheduler_model.py`, it explores the larger cases too.
"""

import ast
import functools
import inspect
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import watchdog_app

# Calls. In place:     f returns  n never returns  s streams  S streams for ever
# Expected to block:   a returns  N never returns  r needs no successor: a refusal, or answered at once
NEVER, APART, STREAM = "nN", "aN", "sS"
SHARED = {"leader", "parked", "queue", "stopped", "current", "resting"}  # of the Lead, and looked at without its lock


class Case(NamedTuple):
    """What there is: the calls of each job, and what else can happen."""

    scripts: tuple[str, ...]
    threads: int = 2  # the setting; one more leads
    retire: bool = False  # parked threads may end
    refuse: bool = False  # the system may refuse a thread
    stop: bool = False  # the server may be stopped


CASES = {
    "a call that returns, one that does not": Case(("f", "n"), threads=1),
    "two requests at once": Case(("ff",), threads=1),
    "as many calls that never return as threads": Case(("n", "Nf"), threads=1),
    "calls expected to block": Case(("aa",), threads=1),
    "streams": Case(("s",), threads=1),
    "a refusal while all threads are taken": Case(("n", "r"), threads=1),
    "threads that retire": Case(("nf",), retire=True),
    "threads that are refused": Case(("a", "f"), threads=1, refuse=True),
    "a stop during a call": Case(("n",), stop=True),
}
LARGER = {
    "streams beside a call that never returns": Case(("s", "n"), threads=1),
    "a stop beside a queue": Case(("N", "a"), threads=1, stop=True),
    "streams that never end": Case(("s", "S"), threads=1),
    "two requests at once, and three threads": Case(("ff",)),
    "a call expected to block, and another, while threads are refused": Case(("n", "af"), refuse=True),
    "calls expected to block, and one that never returns": Case(("aa", "n"), threads=1),
    "a stop beside requests at once": Case(("fa",), threads=1, stop=True),
    "two requests at once beside one that never returns": Case(("ff", "n")),
    "a call that returns, and a stream": Case(("f", "s")),
    "threads that retire and are refused": Case(("f", "n"), retire=True, refuse=True),
    "a stop beside two calls": Case(("f", "n"), stop=True),
    "three threads and one to lead": Case(("f", "n", "S"), threads=3),
}


# ---- the Lead, as steps ----


class Steps(ast.NodeTransformer):
    """Make a generator of a method: it pauses before each access to what is shared, and runs what pauses by `yield from`."""

    def __init__(self, methods):
        self.pausing = methods | {"serve", "work", "acquire", "release"}

    def visit_Attribute(self, node):
        if isinstance(node.ctx, ast.Load) and node.attr in SHARED and ast.unparse(node.value) == "self":
            return ast.copy_location(pausing(f"look(self, {node.attr!r})"), node)
        return self.generic_visit(node)

    def visit_Assign(self, node):
        targets = ast.unparse(ast.Tuple(node.targets))
        node = self.generic_visit(node)
        if not any(f"self.{name}" in targets for name in SHARED):
            return node
        value = ast.Assign([ast.Name("value", ast.Store())], node.value)
        node.value = ast.Name("value", ast.Load())
        return [value, *ast.parse("yield ('write', '')").body, node]

    def visit_Call(self, node):
        name = getattr(node.func, "attr", None) or node.func.id
        node = self.generic_visit(node)
        if name in self.pausing or name in ("call", "start_thread", "choose"):
            return ast.YieldFrom(node)
        return node

    def visit_With(self, node):
        node = self.generic_visit(node)
        (item,) = node.items
        lock = ast.unparse(item.context_expr)
        assert lock == "self.lock"
        guarded = ast.parse(f"yield from {lock}.take()\ntry: pass\nfinally: {lock}.give()").body
        guarded[1].body = node.body
        return guarded


def pausing(text):
    return ast.YieldFrom(ast.parse(text, mode="eval").body)


def look(lead, name):
    """Pause, then look at a shared attribute."""
    yield "look", name
    return getattr(lead, name)


def choose(*ways):
    """Let any of these happen."""
    return (yield "choose", ways)


class Lock:
    """A lock, held or not, of which the world decides who gets it."""

    def __init__(self):
        self.held, self.name = False, "new"

    def take(self):
        yield "take", self
        assert not self.held
        self.held = True

    def give(self):
        self.held = False

    def acquire(self, timeout=None):
        if self.name == "new":  # nobody else knows of it
            self.held = True
            return True
        woken = yield "acquire", self, timeout
        self.held = True
        return woken

    def release(self):
        yield "release", ""
        if not self.held:
            raise RuntimeError
        self.held = False


class Modelled:
    """What the world decides in the place of time."""

    def _is_stuck(self):
        return choose(True, False)


@functools.cache
def steps_of(lead_class):
    """Return the methods of the Lead, or of a subclass, as generators of steps, by name."""
    lineage = [
        watchdog_app.Lead,
        *[base for base in reversed(lead_class.__mro__) if base not in watchdog_app.Lead.__mro__],
    ]
    found = {}
    for base in (*lineage, Modelled):
        found |= {name: value for name, value in vars(base).items() if inspect.isfunction(value)}
    names = {**vars(watchdog_app), "Lock": Lock, "look": look, "choose": choose, "REST_AFTER": -1.0}
    names["start_thread"] = lambda work, me, name: work.__self__.world.start_thread(work, me)
    names["watchdog_app"] = SimpleNamespace(**names)
    for function in found.values():
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        tree.body[0].body.append(ast.parse("if False: yield").body[0])
        tree.body[0].returns, tree.body[0].decorator_list = None, []
        made = ast.fix_missing_locations(Steps(set(found)).visit(tree))
        exec(compile("from __future__ import annotations\n" + ast.unparse(made), function.__qualname__, "exec"), names)
        found[function.__name__] = names[function.__name__]
    return found


class Job:
    """One fake connection: the calls that its peer will send, that have come, and that are read."""

    def __init__(self, name, script):
        self.name, self.script, self.kernel, self.buffer = name, script, "", ""
        self.call, self.runner = "", None  # that is read and not yet done, and the thread that runs it
        self.apart, self.noted, self.request, self.watched = False, False, None, True

    def freeze(self):
        runner = self.runner and self.runner.name
        return (self.script, self.kernel, self.buffer, self.call, runner, self.apart, self.noted, self.watched)


class Thread:
    """One thread: its generator, and what it waits for."""

    def __init__(self, name, steps, me=None):
        self.name, self.steps, self.me = name, steps, me
        self.waits = next(steps)

    def take(self, how):
        try:
            self.waits = self.steps.send(how)
        except StopIteration:
            self.waits = None

    def freeze(self):
        frames, steps = [], self.steps
        while steps is not None and steps.gi_frame is not None:
            known = [(key, name_of(value)) for key, value in steps.gi_frame.f_locals.items()]
            frames.append((steps.gi_code.co_name, steps.gi_frame.f_lasti, *known))
            steps = steps.gi_yieldfrom
        return tuple(frames)


def name_of(value):
    """Return what tells a local variable's value from another's."""
    return value if isinstance(value, (bool, str, float, tuple, type(None))) else getattr(value, "name", "")


class World:
    """All of it at one moment. `ways` says what can happen, `take` lets it happen, `wrong` what must not be, `is_done` whether all is served."""

    name = ""

    def __init__(self, case, lead_class=watchdog_app.Lead, rules=()):
        self.case, self.rules, self.violation = case, rules, ""
        self.lead = type(
            "Lead", (), steps_of(lead_class) | {"__init__": lambda lead: None, "world": self, "name": ""}
        )()
        self.jobs = [Job(str(index), script) for index, script in enumerate(case.scripts)]
        self.ready, self.more, self.inbox, self.waker = [], [], [], False
        self.workers, self.threads = [None] * (case.threads + 1), {}
        finish(steps_of(lead_class)["__init__"](self.lead, case.threads, self.serve, self.own, lambda: 0.0))
        self.lead.lock.name, self.lead.alarm.name = "lock", "alarm"
        finish(self.lead.start())
        self.threads["monitor"] = Thread("monitor", self.monitor())
        if case.stop:
            self.threads["stopper"] = Thread("stopper", self.stop())

    def freeze(self):
        lead = self.lead
        locks = [*[lead.leader], *lead.parked]
        return (
            *[lock.name for lock in locks],
            *[thread and (thread.me.held, thread.freeze()) for thread in self.workers],
            *[(name, thread.freeze()) for name, thread in self.threads.items()],
            *[job.freeze() for job in self.jobs],
            *[tuple(job.name for job in jobs) for jobs in (lead.queue, self.ready, self.more, self.inbox)],
            *(lead.current and lead.current.name, lead.stopped, lead.resting, lead.workers),
            *(lead.lock.held, lead.alarm.held, self.waker),
        )

    def start_thread(self, work, me):
        if self.case.refuse and (yield from choose("started", "refused")) == "refused":
            raise RuntimeError
        number = next(index for index, other in enumerate(self.workers) if other is None)
        me.name = str(number)
        self.workers[number] = Thread(me.name, work(me), me)

    # -- what the Lead's threads do --

    def monitor(self):
        while True:
            yield from self.lead.monitor()

    def stop(self):
        yield from self.lead.stop()
        self.waker = True

    @property
    def me(self):
        """The lock of the thread that takes this step."""
        return self.stepping.me

    def serve(self):
        """One turn of the leader, as the Server's."""
        yield "serve", ""
        if self.lead.leader is not self.me:
            self.violation = "a thread leads without the lead"
        if not self.ready:
            yield "poll", ""
            self.ready += [job for job in self.jobs if job.watched and job.kernel] + self.more + self.inbox * self.waker
            self.more.clear()
            if self.waker:
                self.waker = False
                self.inbox.clear()
            return
        job = self.ready.pop(0)
        if job.apart and "serve whoever owns" not in self.rules:
            yield "set aside", ""
            job.watched = False
            yield "apart?", ""
            if not job.apart and "set aside whatever" not in self.rules:
                self.settle(job)
        elif self.read(job):
            yield from self.begin(job)
        else:
            self.settle(job)

    @staticmethod
    def read(job):
        """Read the next call; return whether there is one."""
        if not job.buffer:
            job.buffer, job.kernel = job.kernel, ""
        job.call, job.buffer = job.buffer[:1], job.buffer[1:]
        return bool(job.call)

    def settle(self, job):
        job.watched = True
        if job.buffer:
            self.more.append(job)

    def begin(self, job):
        if job.call != "r" and (job.call in APART or not (yield from self.lead.has_successor())):
            if not (yield from self.lead.run_apart(job)):
                return
            yield from self.run(job, 0.0)
        elif (yield from self.lead.run_in_place(job, self.run)):
            self.settle(job)
            return
        yield from self.own(job)

    def own(self, job):
        """Run the calls of `job` without the lead, and give it back."""
        while job.call or self.read_on(job):
            yield from self.run(job, 0.0)
        yield "give back", ""
        yield from self.lead.give_back(job)
        yield "watched?", ""
        if not job.watched or job.buffer:
            self.inbox.append(job)
            self.waker = True

    def read_on(self, job):
        return bool(job.buffer) and self.read(job)

    def run(self, job, began):
        if job.runner is not None:
            self.violation = "two threads run a job"
        job.runner = self.stepping
        if self.lead.leader is not self.me and not job.apart:
            self.violation = "a thread runs what it does not own"
        yield "call", job.call
        if job.call in STREAM:
            yield from self.lead.step_aside(job)
            yield "call", "n" if job.call == "S" else "f"
        if job.runner is not self.stepping:
            self.violation = "a job has changed hands in a call"
        job.runner, job.call = None, ""

    # -- what can happen, and what happens --

    def ways(self):
        """Return the steps that can be taken now, each as (who, how)."""
        found = [(job.name, "sent") for job in self.jobs if job.script]
        everyone = [(index, thread) for index, thread in enumerate(self.workers) if thread] + [*self.threads.items()]
        for who, thread in everyone:
            found += [(who, how) for how in self.ways_of(thread)]
        return found

    def ways_of(self, thread):
        if thread.waits is None:
            return []
        what, which, *timeout = thread.waits
        if what == "take":
            return [] if which.held else [None]
        if what == "acquire":
            may_end = timeout[0] == watchdog_app.STUCK or (
                timeout[0] == watchdog_app.PARKED_SECONDS and self.case.retire
            )
            return [False] * may_end if which.held else [True]
        if what == "choose":
            return [*which]
        if what == "call":
            return [] if which in NEVER else [None]
        if what == "poll":
            return [None] * bool(self.waker or self.more or any(job.watched and job.kernel for job in self.jobs))
        return [None]

    def take(self, who, how):
        """Take one step."""
        if how == "sent":
            job = self.jobs[int(who)]
            job.kernel, job.script = job.kernel + job.script[0], job.script[1:]
            return
        thread = self.stepping = self.threads.get(who) or self.workers[who]
        thread.take(how)
        while thread.waits and self.is_unseen(*thread.waits[:2]):
            thread.take(None)
        if isinstance(who, int) and self.stepping.waits is None:
            self.workers[who] = None

    def is_unseen(self, what, which):
        """Tell whether a step makes no difference to other threads: it is taken under the lock, or looks at what does not change."""
        if self.lead.lock.held:
            return what in ("look", "write", "release")
        return (what, which) == ("look", "stopped") and not self.case.stop

    # -- what must not be --

    def wrong(self):
        """Return what is wrong with this state, "" for nothing."""
        lead = self.lead
        if self.violation or lead.lock.held:
            return self.violation
        if lead.workers != sum(thread is not None for thread in self.workers):
            return "workers are not the threads that live"
        if not lead.stopped and self.thread_of(lead.leader) is None:
            return "the leader has ended"
        if not all(job.apart for job in lead.queue):
            return "a queued job is the leader's"
        return self.wrong_parked() or self.wrong_current()

    def thread_of(self, lock):
        return next((thread for thread in self.workers if thread and thread.me is lock), None)

    def wrong_parked(self):
        for lock in self.lead.parked:
            thread = self.thread_of(lock)
            if (
                lock is self.lead.leader
                or thread is None
                or thread.waits[0] not in ("acquire", "take")
                or not lock.held
            ):
                return "a parked thread is not parked"
        return ""

    def wrong_current(self):
        job = self.lead.current
        if job is None:
            return ""
        if job.apart or (job.runner and job.runner.me is not self.lead.leader):
            return "the job in place is not the leader's"
        if job.runner and job.call != "r" and not self.lead.parked and not self.lead.stopped:
            return "a call runs in place, and no thread is parked"
        return ""

    def is_done(self):
        """Tell whether all that was asked is served, or in a call that never returns, or behind as many of those as there may be."""
        waits = [thread.waits for thread in self.workers if thread]
        stuck = [wait for wait in waits if wait[0] == "call" and wait[1] in NEVER]
        if self.lead.stopped:
            return len(stuck) == len(waits)
        full = len(stuck) >= (1 if self.case.refuse else self.case.threads)
        for job in self.jobs:
            if (job.runner and job.runner.waits in stuck) or (full and job in self.lead.queue):
                continue
            if job.script or job.kernel or job.buffer or job.call or job.apart or not job.watched:
                return False
        return True


def finish(steps):
    """Take all steps of a generator, alone."""
    for _ in steps:
        pass


class Found(NamedTuple):
    """What an exploration has found: the number of states, what is wrong, "" for nothing, and the steps that lead there."""

    states: int
    wrong: str
    steps: list[tuple[object, object]]


def explore(case, lead_class=watchdog_app.Lead, rules=(), most=1_000_000):
    """Visit all states of `case`, breadth first; a state is reached by taking the steps that lead to it from the start again."""
    numbers, paths, before, done = {World(case, lead_class, rules).freeze(): 0}, [()], [[]], []
    for number, path in enumerate(paths):
        world = walked(case, lead_class, rules, path)
        if world.is_done():
            done.append(number)
        for index, step in enumerate(world.ways()):
            after = walked(case, lead_class, rules, path) if index else world
            after.take(*step)
            if wrong := after.wrong():
                return Found(len(paths), wrong, [*path, step])
            known = numbers.setdefault(after.freeze(), len(paths))
            if known == len(paths):
                paths.append((*path, step))
                before.append([])
                assert known < most, "too many states"
            before[known].append(number)
    reached = ways_to(done, before)
    lost = next((number for number in range(len(paths)) if number not in reached), None)
    return Found(len(paths), "" if lost is None else "what was asked can no longer be served", list(paths[lost or 0]))


def walked(case, lead_class, rules, path):
    world = World(case, lead_class, rules)
    for step in path:
        world.take(*step)
    return world


def ways_to(goals, before):
    """Return all states from which one of `goals` can be reached."""
    reached, todo = set(goals), list(goals)
    while todo:
        for number in before[todo.pop()]:
            if number not in reached:
                reached.add(number)
                todo.append(number)
    return reached


if __name__ == "__main__":
    for name, case in {**CASES, **LARGER}.items():
        began = time.monotonic()
        found = explore(case)
        report = f"{found.states:8} states  {time.monotonic() - began:6.1f} s  {name}: {found.wrong or 'nothing wrong'}"
        print(report, *(found.steps if found.wrong else []), sep="\n", flush=True)
