"""A stop without a network, as faasd makes it, ends all processes within a second: one round of each case of lost_network.py."""

import pytest
from lost_network import CASES, LONGEST, is_possible, seconds_to_stop


@pytest.mark.parametrize("case", CASES)
def test_stop_without_a_network_takes_no_longer_than_a_second(case):
    if not is_possible(case):
        pytest.skip("this machine does not let us have a network and processes of our own, or freeze them")
    assert seconds_to_stop(case) < LONGEST
