"""The model of the scheduler finds nothing wrong, finds each fault that is put into it, and does what the server does."""

import random

import pytest
from scheduler_faults import FAULTS, faulty_module
from scheduler_model import CASES, STEPS, Case, explore
from scheduler_replay import replaying

import watchdog_app

REPLAYED = [  # more connections, requests and kinds than can be explored
    Case(("ff", "f")),
    Case(("fn", "nf")),
    Case(("fxs", "afl")),
    Case(("lNf", "Sf"), refuse=True, retire=True),
    Case(("fX", "as"), threads=1, stop=True, retire=True),
    Case(("ff", "sl", "a"), threads=3, stop=True),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_all_that_can_happen_keeps_the_invariants_and_serves_what_is_asked(case):
    found = explore(case)
    assert not found.wrong, "\n".join(map(str, found.steps))


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_and_the_way_to_it_is_one_of_the_server_with_that_fault_only(name, log):
    fault = FAULTS[name]
    found = explore(fault.case, name)
    assert found.wrong
    walk(faulty_module(fault), fault.case, name, found.steps)
    with pytest.raises(AssertionError, match="in the model"):
        for seed in range(50):
            walk(watchdog_app, fault.case, name, found.steps, seed, 50)


def walk(module, case, fault="", first=(), seed=0, further=0):
    """Take the `first` steps and random `further` ones in the model and in the server; return those of the server's threads, by name."""
    choice, taken = random.Random(seed), set()
    with replaying(module, case, fault) as replay:
        for who, how in first:
            replay.step(who, how)
        while (steps := replay.state.steps()) and further:
            who, how = choice.choice(steps)
            taken.add(replay.state.threads[who].step if isinstance(who, int) else who)
            replay.step(who, how)
            further -= 1
    return taken


def test_server_does_what_the_model_does(log):
    taken = set().union(*(walk(watchdog_app, case, seed=seed, further=300) for seed in range(20) for case in REPLAYED))
    assert set(STEPS) - taken == {"stopped again?"}, "each step is taken, but that of a fault"
