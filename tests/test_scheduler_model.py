"""All that can happen to the Lead keeps the invariants and serves what is asked; each fault that is put into it is found."""

import pytest
from scheduler_faults import FAULTS
from scheduler_model import CASES, explore


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_all_that_can_happen_keeps_the_invariants_and_serves_what_is_asked(case):
    found = explore(case)
    assert not found.wrong, "\n".join(map(str, found.steps))


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found(name):
    fault = FAULTS[name]
    assert explore(fault.case, fault.lead, fault.rules).wrong
