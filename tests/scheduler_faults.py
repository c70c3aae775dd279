"""Faults of the scheduler, each in the model (by its name) and in the module's text, with the smallest case that shows it.

What is to find faults, the model, its replay and the checks under stress, has to find these.
"""

import types
from typing import NamedTuple

from conftest import ROOT
from scheduler_model import Case


class Fault(NamedTuple):
    """A part of the module's text, what stands there instead, and a case of the model."""

    old: str
    new: str
    case: Case


FAULTS = {
    "a call runs in place though nobody is parked": Fault(
        " or not self._has_successor())", ")", Case(("n", "f"), threads=1)
    ),
    "a queued connection stays in the selector": Fault(
        "                connection.mask = 0\n                self.queue",
        "                self.queue",
        Case(("n", "f"), threads=1),
    ),
    "a stream gives away a lead that is another's": Fault(
        "            if self.current is connection:", "            if True:", Case(("s", "n"))
    ),
    "a thread is started after the stop": Fault(
        "if self.stopped or self.workers", "if self.workers", Case(("f",), threads=1, stop=True)
    ),
    "a thread looks twice whether to end": Fault(
        "        if not self.stopped:\n            return True\n        with self.lock:\n            self.workers -= 1\n        return False\n",
        "        if self.stopped:\n            with self.lock:\n                self.workers -= 1\n        return not self.stopped\n",
        Case(("n",), stop=True),
    ),
    "a thread parks without a look at the queue": Fault(
        "            if self.queue:\n                return",
        "            if False:\n                return",
        Case(("n", "f"), threads=1),
    ),
    "a thread retires that was woken": Fault(
        "                if me in self.parked and len(self.parked) > 1:\n                    self.parked.remove(me)",
        "                if True:\n                    self.parked[:] = set(self.parked) - {me}",
        Case(("n",), retire=True),
    ),
    "a connection is set aside though its owner has given it back": Fault(
        "            if not connection.mask:  # its owner", "            if True:  # its owner", Case(("ff", "f"))
    ),
    "an event is served whoever owns the connection": Fault(
        "                elif connection.mask:", "                elif True:", Case(("ff",))
    ),
    "the connection in hand stays in the selector": Fault(
        "        connection.mask = 0\n        self.current = None", "        self.current = None", Case(("n",))
    ),
    "the last parked thread retires": Fault(" and len(self.parked) > 1", "", Case(("n",), retire=True)),
    "the leader does not look whether it still leads after a call": Fault(
        "leading = self.leader is me", "leading = True", Case(("ff",))
    ),
    "the leader does not wake the monitor": Fault(
        "        if self.resting:\n            self.wake()\n",
        "        if False:\n            self.wake()\n",
        Case(("f", "n")),
    ),
    "the leader polls without a look whether it still leads": Fault(
        "while self.leader is me and not self.stopped",
        "while (self.leader is me or True) and not self.stopped",
        Case(("f",)),
    ),
    "the monitor does not look again under the lock": Fault(
        "            with self.lock:\n                stuck = self.current\n"
        "                if stuck is not None and self._is_stuck() and self._hand_over(stuck):\n",
        "            stuck = vars(self).get('in_place', vars(self).get('shared_current'))\n"
        "            with self.lock:\n                if stuck is not None and self._hand_over(stuck):\n",
        Case(("f", "f")),
    ),
    "the monitor sleeps without a last look": Fault(
        "        if self.current is not None:  # it began", "        if False:  # it began", Case(("f", "n"))
    ),
    "the stop is said after the parked are woken": Fault(
        "        self.stopped = True\n        self.wake_leader()\n        with self.lock:\n            for worker in self.parked:\n"
        "                worker.release()\n            self.parked.clear()\n",
        "        self.wake_leader()\n        with self.lock:\n            for worker in self.parked:\n"
        "                worker.release()\n            self.parked.clear()\n        self.stopped = True\n        os.eventfd_write(self.waker, 1)\n",
        Case(("n",), stop=True),
    ),
}


def faulty_module(fault):
    """Make the module with a fault in its text."""
    text = (ROOT / "watchdog_app.py").read_text()
    assert text.count(fault.old) == 1, f"{fault.old!r} has to be there once"
    module = types.ModuleType("watchdog_app_with_a_fault")
    exec(compile(text.replace(fault.old, fault.new), module.__name__, "exec"), module.__dict__)
    return module
