"""Let all examples be tested in one process: each has a `handler` and a `handler_test` of its own."""

import sys

import pytest

HANDLERS = {}  # folder -> its module


def pytest_collectstart(collector):
    """Forget the modules of the example before, so that the next one's tests import what stands beside them."""
    if isinstance(collector, pytest.Module):
        for name in ("handler", "handler_test"):
            sys.modules.pop(name, None)


def pytest_itemcollected(item):
    HANDLERS[item.path.parent] = sys.modules["handler"]


def pytest_runtest_setup(item):
    """Let `handler` be the test's own by name too, as Django and the processes of a pool look for it."""
    sys.modules["handler"] = HANDLERS[item.path.parent]
    sys.path.insert(0, str(item.path.parent))


def pytest_runtest_teardown(item):
    sys.path.remove(str(item.path.parent))
