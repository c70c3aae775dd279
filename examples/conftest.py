"""Let all examples be tested in one process: each has a `handler` and a `handler_test` of its own."""

import sys

import pytest


def pytest_collectstart(collector):
    """Forget the modules of the example before, so that the next one's tests import what stands beside them."""
    if isinstance(collector, pytest.Module):
        for name in ("handler", "handler_test"):
            sys.modules.pop(name, None)
