"""Stop each server that has a contract, behind of-watchdog and under load, and count the calls that are lost.

    bench/.venv/bin/python bench/stops.py --stops 4

It sends SIGTERM to of-watchdog, as a rollout does, while callers go on for less than its healthcheck_interval: in a
cluster that is the time until all know that this one is leaving. A call that ends after the signal counts. It is lost
if its response is not a 200, or does not come.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import signal
import sys
import threading
import time

from measure import Server, Starter, send, starting, why_no_watchdog
from peers import PEERS, Peer
from scenarios import Call

CALLERS = 4
BEFORE, AFTER = 0.5, 0.8  # seconds of load; of-watchdog goes on for one second after the signal
PAUSE = 0.05  # seconds after a lost call, as long as one takes: each caller makes as many calls either way
SLEEP = Call(target="/sleep")


def stop_once(server: Server) -> tuple[int, int]:
    """Stop a server under load; return how many calls ended after the signal, and how many of them were lost."""
    ended: list[tuple[float, bool]] = []
    until = time.monotonic() + BEFORE + AFTER
    callers = [threading.Thread(target=make_calls, args=(server.port, until, ended)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    time.sleep(BEFORE)
    signalled = time.monotonic()
    server.popen.send_signal(signal.SIGTERM)
    for caller in callers:
        caller.join()
    after = [is_lost for at, is_lost in ended if at > signalled]
    return len(after), sum(after)


def make_calls(port: int, until: float, ended: list[tuple[float, bool]]) -> None:
    """Make one call after another; note when each ended, and whether it was lost."""
    while time.monotonic() < until:
        is_lost = True
        with contextlib.suppress(OSError, http.client.HTTPException):
            is_lost = send(port, SLEEP)[0] != 200
        ended.append((time.monotonic(), is_lost))
        if is_lost:
            time.sleep(PAUSE)


def stop(starter: Starter, peer: Peer, stops: int) -> tuple[int, int]:
    """Stop new servers of a peer one after another; return the calls that ended after the signals, and those lost."""
    counts = []
    for _ in range(stops):
        server = starter.behind_watchdog(peer, "calls")
        try:
            server.wait(SLEEP)
            counts.append(stop_once(server))
        finally:
            server.stop()
    calls, lost = (sum(column) for column in zip(*counts, strict=True))
    return calls, lost


def main() -> int:
    """Count for each server, and print; return the exit status."""
    parser = argparse.ArgumentParser(description="Count the calls that servers lose when they are stopped.")
    parser.add_argument("--stops", type=int, default=4, help="of each server")
    options = parser.parse_args()
    if reason := why_no_watchdog():
        print(f"nothing is measured: {reason}", file=sys.stderr)
        return 1
    with starting() as starter:
        for peer in [peer for peer in PEERS if peer.contract]:
            calls, lost = stop(starter, peer, options.stops)
            print(f"{peer.title:<20} {lost:4} of {calls:4} calls lost, {options.stops} stops", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
