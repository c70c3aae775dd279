import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

import handler
from handler import handle
from watchdog_app import invoke


@pytest.fixture(autouse=True)
def pool():
    handler.startup()
    yield
    handler.shutdown()


@pytest.mark.parametrize(("limit", "primes"), [(0, 0), (1, 0), (2, 1), (10, 4), (11, 5), (10_000, 1229)])
def test_primes_are_counted(limit, primes):
    assert handler.count_primes(limit) == primes


def test_calls_run_in_other_processes_at_once():
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: invoke(handle, "GET", "/?limit=100").json(), range(4)))
    assert answers == [{"primes": 25}] * 4
    pool = handler.POOL["now"]
    assert pool.submit(os.getpid).result() != os.getpid()


@pytest.mark.parametrize("limit", ["-1", "1000001"])
def test_limit_that_is_too_large_is_refused(limit):
    assert invoke(handle, "GET", f"/?limit={limit}").status == 400


def test_process_that_is_killed_is_replaced():
    pool = handler.POOL["now"]
    os.kill(pool.submit(os.getpid).result(), signal.SIGKILL)
    answers = [invoke(handle, "GET", "/?limit=10") for _ in range(3)]
    assert answers[-1].json() == {"primes": 4}
    assert {answer.status for answer in answers} <= {200, 503}
    assert handler.POOL["now"] is not pool
