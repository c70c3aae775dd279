"""What was measured as a table, a file and a chart."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measure import Effort, Sample
from peers import PRODUCT, Peer
from scenarios import CPU, MEMORY, RATE, START, Metric, Scenario

INK, OURS, CONTRACT, BARE = (
    "#747a82",
    "#3b82f6",
    "#9a6fd0",
    "#a8aeb6",
)  # the ink has a contrast of 4.3 on white and on nearly black
PANELS: tuple[tuple[str, Metric], ...] = (
    ("get-32", RATE),
    ("chunked-32", RATE),
    ("get-32", CPU),
    ("watchdog-get-32", RATE),
    ("watchdog-post-32", RATE),
    ("sleep-32", RATE),
    ("start", START),
    ("memory", MEMORY),
)
COLUMNS = 2


class Spread(NamedTuple):
    """The median of some samples, and the least and greatest of them."""

    median: float
    least: float
    most: float


class Results:
    """All samples of a run, and the reasons for what is not there."""

    def __init__(self, machine: dict[str, str], effort: Effort) -> None:
        self.machine, self.effort = machine, effort
        self.versions: dict[str, str] = {}
        self.samples: dict[tuple[str, str], list[Sample]] = {}
        self.reasons: dict[tuple[str, str], str] = {}
        self.left_out: dict[str, str] = {}

    def add(self, scenario: Scenario, peer: Peer, samples: list[Sample]) -> None:
        """Add samples of a peer in a scenario."""
        self.samples.setdefault((scenario.id, peer.id), []).extend(samples)

    def give_reason(self, scenario: Scenario, peer: Peer, reason: str) -> None:
        """Note why a peer has no figure in a scenario."""
        self.reasons[scenario.id, peer.id] = reason

    def leave_out(self, what: str, reason: str) -> None:
        """Note what is not measured at all."""
        self.left_out[what] = reason
        print(f"left out: {what}: {reason}", flush=True)

    def spread(self, scenario: Scenario, peer: Peer, key: str) -> Spread | None:
        """Return the spread of one figure, None where there is none."""
        values = [sample[key] for sample in self.samples.get((scenario.id, peer.id), []) if key in sample]
        return Spread(statistics.median(values), min(values), max(values)) if values else None

    def title(self, scenario: Scenario) -> str:
        """Return a scenario's title with what depends on the effort."""
        return scenario.title.format(calls=f"{self.effort.calls:,}".replace(",", " "), mib=self.effort.mib)


def describe_machine() -> dict[str, str]:
    """Return what a figure depends on and is not in the repository."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": models[0] if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
    }


def ratio(metric: Metric, ours: Spread | None, theirs: Spread | None) -> float | None:
    """Return how many times as good the product is: above 1 it is ahead, whichever way is better."""
    if not metric.compared or not ours or not theirs or not ours.median or not theirs.median:
        return None
    return ours.median / theirs.median if metric.more_is_better else theirs.median / ours.median


# ---- the table ----


def number(value: float, digits: int) -> str:
    """Convert a number to text with a space between thousands."""
    return f"{value:,.{digits}f}".replace(",", " ")


def cell(metric: Metric, spread: Spread | None) -> str:
    """Convert a spread to text: the median, and in brackets the least and the greatest."""
    if spread is None:
        return "–"
    return f"{number(spread.median, metric.digits)} ({number(spread.least, metric.digits)}–{number(spread.most, metric.digits)})"


def rows_of(results: Results, scenario: Scenario, peers: Sequence[Peer]) -> list[list[str]]:
    """Return a scenario's part of the table, a heading first."""
    heading = [results.title(scenario)]
    for metric in scenario.metrics:
        heading += [metric.unit, "ratio"]
    rows = [heading]
    for peer in peers:
        row = [peer.title]
        for metric in scenario.metrics:
            theirs = results.spread(scenario, peer, metric.key)
            times = None if peer is PRODUCT else ratio(metric, results.spread(scenario, PRODUCT, metric.key), theirs)
            row += [cell(metric, theirs), "" if times is None else f"{times:.2f}"]
        reason = results.reasons.get((scenario.id, peer.id), "")
        failed = results.spread(scenario, peer, "failed")
        note = reason or (f"{failed.most:.0f} calls failed" if failed and failed.most else "")
        rows.append([*row, note])
    return rows


def print_table(results: Results, peers: Sequence[Peer], scenarios: Sequence[Scenario]) -> None:
    """Print a table for each scenario, and how to read it."""
    effort = results.effort
    print(f"\nMedian (least–greatest) of {effort.rounds} rounds of {effort.seconds} s each.")
    print(
        "ratio: how many times as good watchdog_app is; above 1 it is ahead. CPU: of the server's processes, without of-watchdog's."
    )
    print("  ".join(f"{name} {value}" for name, value in (results.machine | results.versions).items()))
    for scenario in scenarios:
        print()
        for row in rows_of(results, scenario, peers):
            first, *rest = row
            print(
                f"{first:<48}"
                + "".join(f"{text:>30}" if index % 2 == 0 else f"{text:>7}" for index, text in enumerate(rest[:6]))
                + note_of(row)
            )
    for what, reason in results.left_out.items():
        print(f"\nleft out: {what}: {reason}")


def note_of(row: list[str]) -> str:
    """Return a row's note, which stands behind its figures."""
    return f"  {row[-1]}" if len(row) % 2 == 0 and row[-1] else ""


# ---- the file ----


def write_json(results: Results, peers: Sequence[Peer], scenarios: Sequence[Scenario], path: Path) -> None:
    """Write all figures, with their samples."""
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": results.machine,
        "versions": results.versions,
        "effort": dataclasses.asdict(results.effort),
        "left_out": results.left_out,
        "peers": {peer.id: {"title": peer.title, "contract": peer.contract} for peer in peers},
        "scenarios": {scenario.id: scenario_document(results, scenario, peers) for scenario in scenarios},
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(f"\nwritten: {path}")


def scenario_document(results: Results, scenario: Scenario, peers: Sequence[Peer]) -> dict[str, Any]:
    """Return what the file says of one scenario."""
    figures: dict[str, Any] = {}
    for peer in peers:
        if reason := results.reasons.get((scenario.id, peer.id)):
            figures[peer.id] = {"reason": reason}
            continue
        samples = results.samples.get((scenario.id, peer.id), [])
        keys = samples[0] if samples else ()
        figures[peer.id] = {key: figure_document(results, scenario, peer, key) for key in keys}
    return {"title": results.title(scenario), "figures": figures}


def figure_document(results: Results, scenario: Scenario, peer: Peer, key: str) -> dict[str, Any]:
    """Return what the file says of one figure."""
    values = [round(sample[key], 3) for sample in results.samples[scenario.id, peer.id]]
    return {"median": round(statistics.median(values), 3), "min": min(values), "max": max(values), "values": values}


# ---- the chart ----


def write_chart(results: Results, peers: Sequence[Peer], scenarios: Sequence[Scenario], path: Path) -> None:
    """Draw the main figures as bars, on no background and in colours that can be read on a light and on a dark one."""
    known = {scenario.id: scenario for scenario in scenarios}
    panels = [(known[name], metric) for name, metric in PANELS if name in known]
    if not panels:
        return
    rows = -(-len(panels) // COLUMNS)
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "bench",
            "font.family": "sans-serif",
            "font.size": 9,
            "text.color": INK,
        }
    )
    figure = Figure(figsize=(10.5, 0.5 + rows * (0.55 + 0.24 * len(peers))), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (scenario, metric) in zip(grid.flat, panels, strict=False):
        draw_panel(axes, results, scenario, metric, peers)
    figure.legend(handles=legend(), loc="outside lower center", ncols=3, frameon=False, labelcolor=INK)
    figure.savefig(path, transparent=True, metadata={"Date": None})
    print(f"written: {path}")


def legend() -> list[Any]:
    """Return what the colours mean."""
    from matplotlib.patches import Patch

    kinds = {
        OURS: "watchdog_app: event, context, result",
        CONTRACT: "others with a contract",
        BARE: "bare: the smallest WSGI or ASGI application",
    }
    return [Patch(color=colour, label=label) for colour, label in kinds.items()]


def draw_panel(axes: Axes, results: Results, scenario: Scenario, metric: Metric, peers: Sequence[Peer]) -> None:
    """Draw one scenario: a bar for each peer, with its spread and its median in figures."""
    better = "more is better" if metric.more_is_better else "less is better"
    axes.set_title(f"{results.title(scenario)}\n{metric.unit}, {better}", loc="left", fontsize=9, color=INK)
    spreads = [results.spread(scenario, peer, metric.key) for peer in peers]
    most = max((spread.most for spread in spreads if spread), default=1.0)
    for place, (peer, spread) in enumerate(zip(peers, spreads, strict=True)):
        if spread is None:
            axes.text(0, place, " not measured", va="center", fontsize=8, color=INK)
            continue
        error = [[spread.median - spread.least], [spread.most - spread.median]]
        axes.barh(
            place,
            spread.median,
            color=colour_of(peer),
            height=0.7,
            xerr=error,
            error_kw={"ecolor": INK, "elinewidth": 1},
        )
        axes.text(
            spread.most + most * 0.02, place, number(spread.median, metric.digits), va="center", fontsize=8, color=INK
        )
    axes.set_yticks(range(len(peers)), [peer.title for peer in peers], color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.18)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def colour_of(peer: Peer) -> str:
    """Return the colour of a peer's bars."""
    if peer is PRODUCT:
        return OURS
    return CONTRACT if peer.contract else BARE
