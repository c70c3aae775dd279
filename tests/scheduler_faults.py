"""Faults of the scheduler, each a subclass of the Lead or of the Server, or a rule that the model's fake server breaks, with the smallest case.

What is to find faults, the model and the checks under stress, has to find these.
"""

from typing import Any, NamedTuple

from scheduler_model import Case

import watchdog_app


class Fault(NamedTuple):
    """A class with a fault, a case of the model, and the rules of the model's server that are broken."""

    lead: type = watchdog_app.Lead
    case: Case = Case(("f",))
    rules: tuple[str, ...] = ()
    server: type = watchdog_app.Server


class NobodyParked(watchdog_app.Lead):
    def has_successor(self) -> bool:
        return True


class QueuedIsNotApart(watchdog_app.Lead):
    def run_apart(self, job: Any) -> bool:
        with self.lock:
            if self._hand_over(job):
                return True
            self.queue.append(job)
            return False


class AnothersLead(watchdog_app.Lead):
    def step_aside(self, job: Any) -> None:
        with self.lock:
            self._hand_over(job)


class StartsAfterStop(watchdog_app.Lead):
    def _new_thread(self) -> Any:
        if self.workers > self.most:
            return None
        me = watchdog_app.Lock()
        me.acquire()
        watchdog_app.start_thread(self._work, me, "call-")
        self.workers += 1
        return me


class LooksTwice(watchdog_app.Lead):
    def _is_woken(self, me: Any) -> bool:
        while not me.acquire(timeout=watchdog_app.PARKED_SECONDS):
            pass
        if self.stopped:
            with self.lock:
                self.workers -= 1
        return not self.stopped


class NoLookAtQueue(watchdog_app.Lead):
    def _job_or_park(self, me: Any) -> Any:
        with self.lock:
            if self.stopped:
                me.release()
            else:
                self.parked.append(me)


class Retires(watchdog_app.Lead):
    def _leave(self) -> bool:
        with self.lock:
            self.workers -= 1
        return True


class RetiresWoken(Retires):
    def _is_woken(self, me: Any) -> bool:
        while not me.acquire(timeout=watchdog_app.PARKED_SECONDS):
            with self.lock:
                if me not in self.parked or len(self.parked) > 1:
                    self.parked[:] = set(self.parked) - {me}
                    self.workers -= 1
                    return False
        return not (self.stopped and self._leave())


class LastRetires(Retires):
    def _is_woken(self, me: Any) -> bool:
        while not me.acquire(timeout=watchdog_app.PARKED_SECONDS):
            with self.lock:
                if me in self.parked:
                    self.parked.remove(me)
                    self.workers -= 1
                    return False
        return not (self.stopped and self._leave())


class InHandStays(watchdog_app.Lead):
    def _hand_over(self, job: Any) -> bool:
        successor = self.parked.pop() if self.parked else self._new_thread()
        if successor is None:
            return False
        self.current, self.leader = None, successor
        successor.release()
        return True


class NoLookAfterCall(watchdog_app.Lead):
    def run_in_place(self, job: Any, call: Any) -> bool:
        self.current_since = began = self.clock()
        self.current = job
        if self.resting:
            self.wake()
        call(job, began)
        with self.lock:
            self.current = None
            return True


class MonitorNotWoken(watchdog_app.Lead):
    def run_in_place(self, job: Any, call: Any) -> bool:
        me = self.leader
        self.current = job
        call(job, self.clock())
        with self.lock:
            if self.leader is not me:
                return False
            self.current = None
            return True


class LeadsOn(watchdog_app.Lead):
    def _work(self, me: Any) -> None:
        while self._is_woken(me):
            leads = self.leader is me
            while leads and not self.stopped:
                self.serve()
            while job := self._job_or_park(me):
                self.work(job)


class NoSecondLook(watchdog_app.Lead):
    def monitor(self) -> None:
        self.alarm.acquire(timeout=watchdog_app.STUCK)
        stuck = self.current
        if stuck is not None and self._is_stuck():
            with self.lock:
                self._hand_over(stuck)


class NoLastLook(watchdog_app.Lead):
    def monitor(self) -> None:
        self.resting = True
        self.alarm.acquire(timeout=watchdog_app.LONGEST_POLL)
        self.resting = False
        if self._is_stuck():
            with self.lock:
                stuck = self.current
                if stuck is not None:
                    self._hand_over(stuck)


class StopSaidLate(watchdog_app.Lead):
    def stop(self) -> None:
        with self.lock:
            for worker in self.parked:
                worker.release()
            self.parked.clear()
        self.stopped = True


class SetsAsideWhatever(watchdog_app.Server):
    def _set_aside(self, connection: Any) -> None:
        self._unwatch(connection)


class ServesWhoeverOwns(watchdog_app.Server):
    def _set_aside(self, connection: Any) -> None:
        if connection.step():
            self._call(connection)
        else:
            self._settle(connection)


FAULTS = {
    "a call runs in place though nobody is parked": Fault(NobodyParked, Case(("N", "f"), threads=1)),
    "a queued connection stays in the selector": Fault(QueuedIsNotApart, Case(("N", "a"), threads=1)),
    "a stream gives away a lead that is another's": Fault(AnothersLead, Case(("s", "n"))),
    "a thread is started after the stop": Fault(StartsAfterStop, Case(("f",), threads=1, stop=True)),
    "a thread looks twice whether to end": Fault(LooksTwice, Case(("n",), stop=True)),
    "a thread parks without a look at the queue": Fault(NoLookAtQueue, Case(("a", "a"), threads=1)),
    "a thread retires that was woken": Fault(RetiresWoken, Case(("n",), retire=True)),
    "a connection is set aside though its owner has given it back": Fault(
        case=Case(("aa",), threads=1), rules=("set aside whatever",), server=SetsAsideWhatever
    ),
    "an event is served whoever owns the connection": Fault(
        case=Case(("aa",), threads=1), rules=("serve whoever owns",), server=ServesWhoeverOwns
    ),
    "the connection in hand stays in the selector": Fault(InHandStays, Case(("n",))),
    "the last parked thread retires": Fault(LastRetires, Case(("n",), retire=True)),
    "the leader does not look whether it still leads after a call": Fault(NoLookAfterCall, Case(("ff",))),
    "the leader does not wake the monitor": Fault(MonitorNotWoken, Case(("f", "n"), threads=1)),
    "the leader polls without a look whether it still leads": Fault(LeadsOn, Case(("f",))),
    "the monitor does not look again under the lock": Fault(NoSecondLook, Case(("f", "f"), threads=1)),
    "the monitor sleeps without a last look": Fault(NoLastLook, Case(("f", "n"), threads=1)),
    "the stop is said after the parked are woken": Fault(StopSaidLate, Case(("n",), stop=True)),
}
