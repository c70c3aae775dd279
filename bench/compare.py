"""Compare the product with other servers: run them in turn, several rounds interleaved; print a table, write results.json and a chart.

`make bench` measures all of it; `make bench QUICK=1` the main figures within two minutes;
`make bench FLAGS="--peers product,bjoern --scenarios get-32,chunked-32 --rounds 9"` what is named.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from measure import FULL, HERE, MEASURES, QUICK, Effort, NotMeasured, Server, Starter, starting, why_no_watchdog
from peers import PEERS, Peer
from report import Results, describe_machine, print_table, write_chart, write_json
from scenarios import SCENARIOS, Scenario

Row = TypeVar("Row", Peer, Scenario)
FILES = 8192  # descriptors: 1 000 connections, for server and wrk


def chosen(rows: Sequence[Row], names: str, quick: bool) -> list[Row]:
    """Return the rows that are named, else all, or those of a quick run."""
    if not names:
        return [row for row in rows if row.quick or not quick]
    wanted = names.split(",")
    if unknown := set(wanted) - {row.id for row in rows}:
        raise SystemExit(f"no such name: {', '.join(sorted(unknown))}; there are {', '.join(row.id for row in rows)}")
    return [row for row in rows if row.id in wanted]


def installed(peers: Sequence[Peer], results: Results) -> list[Peer]:
    """Return the peers whose packages are there; note the others."""
    found = []
    for peer in peers:
        versions = peer.versions()
        if versions is None:
            results.leave_out(peer.title, f"its package {peer.packages[0]} is not installed")
        else:
            results.versions.update(versions)
            found.append(peer)
    return found


class Progress:
    """Say what is measured, and for how long it will go on."""

    def __init__(self, total: int) -> None:
        self.total, self.number, self.began = total, 0, time.monotonic()

    def step(self, round_number: int, scenario: Scenario, peer: Peer, said: str) -> None:
        self.number += 1
        passed = time.monotonic() - self.began
        left = passed / self.number * (self.total - self.number)
        text = f"{self.number}/{self.total} round {round_number + 1} {scenario.id} {peer.title}: {said}"
        print(f"[{passed / 60:.1f} min, {left / 60:.1f} left] {text}", file=sys.stderr, flush=True)


class Runner:
    """Measure each peer in each scenario, in turn."""

    def __init__(
        self, starter: Starter, peers: list[Peer], scenarios: list[Scenario], effort: Effort, results: Results
    ) -> None:
        self.starter, self.peers, self.scenarios, self.effort, self.results = starter, peers, scenarios, effort, results
        self.progress = Progress(len(peers) * len(scenarios) * effort.rounds)
        self.servers: dict[tuple[str, str], Server] = {}

    def run(self) -> None:
        """Do all rounds."""
        began = time.monotonic()
        for number in range(self.effort.rounds):
            if number and (time.monotonic() - began) * (number + 1) / number > self.effort.limit:
                return self.results.leave_out(f"rounds from {number + 1} on", "the machine is too busy for them")
            self._direct(number)
            self._behind_watchdog(number)

    def _order(self, number: int) -> list[Peer]:
        """Return the peers, in the other order in every second round."""
        return self.peers[:: -1 if number % 2 else 1]

    def _direct(self, number: int) -> None:
        """Start all servers, and go from one scenario to the next; an idle server takes no time from the others."""
        try:
            for scenario in self.scenarios:
                if not scenario.behind_watchdog:
                    for peer in self._order(number):
                        self._measure(number, scenario, peer)
        finally:
            for server in self.servers.values():
                server.stop()
            self.servers.clear()

    def _behind_watchdog(self, number: int) -> None:
        """Start one of-watchdog after another: it has a fixed port of its own."""
        scenarios = [scenario for scenario in self.scenarios if scenario.behind_watchdog]
        for app in dict.fromkeys(scenario.app for scenario in scenarios):
            for peer in self._order(number):
                with self._watchdog(peer, app):
                    for scenario in scenarios:
                        if scenario.app == app:
                            self._measure(number, scenario, peer)

    @contextlib.contextmanager
    def _watchdog(self, peer: Peer, app: str) -> Iterator[None]:
        server = self.servers[peer.id, app] = self.starter.behind_watchdog(peer, app)
        try:
            call = next(
                scenario.call for scenario in self.scenarios if scenario.behind_watchdog and scenario.app == app
            )
            with contextlib.suppress(NotMeasured):  # the check that follows says why
                server.wait(call)
            yield
        finally:
            server.stop()
            del self.servers[peer.id, app]

    def _server(self, peer: Peer, scenario: Scenario) -> Server:
        """Return the server that runs, or a new one."""
        key = (peer.id, scenario.app)
        if key not in self.servers:
            self.servers[key] = self.starter.direct(peer, scenario.app)
            self.servers[key].wait(scenario.call)
        return self.servers[key]

    def _measure(self, number: int, scenario: Scenario, peer: Peer) -> None:
        said = self.results.reasons.get((scenario.id, peer.id), "")
        if not said:
            try:
                said = self._sample(scenario, peer)
            except NotMeasured as reason:
                said = str(reason)
                self.results.give_reason(scenario, peer, said)
                self._end(peer, scenario)
        self.progress.step(number, scenario, peer, said)

    def _sample(self, scenario: Scenario, peer: Peer) -> str:
        """Measure once; return the main figure as text."""
        if scenario.measure == "stream" and not peer.streams:
            raise NotMeasured("its contract hands the function the whole body")
        samples = MEASURES[scenario.measure](self.starter, self._server(peer, scenario), peer, scenario, self.effort)
        self.results.add(scenario, peer, samples)
        if scenario.busy_after:
            self._end(peer, scenario)
        metric = scenario.metrics[0]
        return f"{samples[-1][metric.key]:.{metric.digits}f} {metric.unit}"

    def _end(self, peer: Peer, scenario: Scenario) -> None:
        """End a server in which calls may still run."""
        if not scenario.behind_watchdog and (server := self.servers.pop((peer.id, scenario.app), None)):
            server.stop()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare the product with other servers.")
    parser.add_argument("--quick", action="store_true", help="the main figures only, within two minutes")
    parser.add_argument(
        "--peers", default="", metavar="ID,ID", help="only these: " + ", ".join(peer.id for peer in PEERS)
    )
    parser.add_argument(
        "--scenarios",
        default="",
        metavar="ID,ID",
        help="only these: " + ", ".join(scenario.id for scenario in SCENARIOS),
    )
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--seconds", type=int, help="of one run of wrk")
    return parser.parse_args()


def output_folder(options: argparse.Namespace) -> Path:
    """Return where the results go: in place of the last ones if all was measured, else apart from them."""
    folder = HERE / "last" if options.quick or options.peers or options.scenarios else HERE
    folder.mkdir(exist_ok=True)
    return folder


def main() -> int:
    """Run as a program."""
    options = parse_arguments()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not on PATH, and it makes the load: install it, for example by `apt-get install wrk`")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard), hard))
    given = {name: value for name in ("rounds", "seconds") if (value := getattr(options, name))}
    effort = dataclasses.replace(QUICK if options.quick else FULL, **given)
    results = Results(describe_machine(), effort)
    peers, scenarios = (
        installed(chosen(PEERS, options.peers, options.quick), results),
        chosen(SCENARIOS, options.scenarios, options.quick),
    )
    if any(scenario.behind_watchdog for scenario in scenarios) and (reason := why_no_watchdog()):
        results.leave_out("all behind of-watchdog", reason)
        scenarios = [scenario for scenario in scenarios if not scenario.behind_watchdog]
    with starting() as starter:
        Runner(starter, peers, scenarios, effort, results).run()
    print_table(results, peers, scenarios)
    folder = output_folder(options)
    write_json(results, peers, scenarios, folder / "results.json")
    write_chart(results, peers, scenarios, folder / "chart.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
