"""Work for several cores in the processes of a pool, since threads of one process share one core.

Replicas come first: they are simpler, and on two cores two of them answered more calls than one with a pool of two. For
calls of a few milliseconds a pool is slower than none.
"""

import asyncio
import os
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from multiprocessing import get_context

from watchdog_app import HTTPError

WORKERS = int(os.environ.get("workers", 2))  # as many as the container may use cores
POOL = {}


def startup(context=None):
    # spawn: a process that is forked while other threads run may hang
    POOL["now"] = ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))


def shutdown(context=None):
    POOL.pop("now").shutdown(cancel_futures=True)


async def handle(event, context):
    limit = event.query.get("limit", 10_000, type=int)
    if not 0 <= limit <= 1_000_000:
        raise HTTPError(400, {"error": "limit: 0 to 1000000"})
    pool, loop = POOL["now"], asyncio.get_running_loop()
    try:
        return {"primes": await loop.run_in_executor(pool, count_primes, limit)}
    except BrokenProcessPool:  # a process was killed, for its memory mostly
        if POOL["now"] is pool:
            startup()
        raise HTTPError(503, {"error": "try again"}, {"Retry-After": "1"}) from None


def count_primes(limit):
    sieve = bytearray([0, 0]) + bytearray([1]) * limit
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, len(sieve), number)))
    return sum(sieve[: limit + 1])
