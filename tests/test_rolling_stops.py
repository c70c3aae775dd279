"""Stops under load lose nothing: a short run of rolling_stops.py."""

import random
from collections import Counter

import pytest
from rolling_stops import stop_once


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True], ids=["behind of-watchdog", "alone"])
def test_no_call_is_lost_at_stops_under_load(alone):
    chance, counts = random.Random(7), Counter()
    assert [lost for _ in range(3) for lost in stop_once(chance, alone, counts)] == []
    assert counts["calls after the signal"] > 0
