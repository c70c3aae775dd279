"""Draw the pictures of docs/how-it-works.md: python docs/pictures.py. Sections, limits and times are the code's."""

from __future__ import annotations

import re
import sys
from html import escape
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "pictures"
ROOT = FOLDER.parents[1]
MODULE = (ROOT / "watchdog_app.py").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
  .small { font-size: 11px; fill: #59636e; } .strong { font-weight: 600; } .middle { text-anchor: middle; }
  .paper { fill: #ffffff; } .band { fill: #f3f5f8; } .box { fill: #ffffff; stroke: #8c959f; }
  .yours { fill: #fff3d6; stroke: #bf8700; } .lead { fill: #cfe3ff; stroke: #4a84d8; }
  .call { fill: #c9efd0; stroke: #3a9a50; } .apart { fill: #ffe0cc; stroke: #d1701f; }
  .parked { fill: none; stroke: #afb8c1; }
  .line { stroke: #59636e; fill: none; } .dashed { stroke-dasharray: 4 4; } .head { fill: #59636e; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; } .small { fill: #9198a1; }
    .paper { fill: #0d1117; } .band { fill: #161c25; } .box { fill: #0d1117; stroke: #656c76; }
    .yours { fill: #3a2d0c; stroke: #d29922; } .lead { fill: #12305c; stroke: #4a84d8; }
    .call { fill: #12391e; stroke: #3fb950; } .apart { fill: #4a2912; stroke: #db7b35; } .parked { stroke: #4a525b; }
    .line { stroke: #9198a1; } .head { fill: #9198a1; }
  }
"""


def sections() -> dict[str, str]:
    """Return the number of each of the module's sections by its title."""
    rulers = re.findall(r"^# ---- (\d+)\. ([^:(\n]*?)(?: -+|[:(].*)$", MODULE, re.MULTILINE)
    return {title.strip(): number for number, title in rulers}


def constant(name: str) -> float:
    """Return a number that the module assigns to `name`."""
    match = re.search(rf"^{name} = ([\d.]+)", MODULE, re.MULTILINE)
    assert match, name
    return float(match[1])


def setting(name: str) -> str:
    """Return what the image sets `name` to."""
    match = re.search(rf"^ENV .*\b{name}=(\S+)", DOCKERFILE, re.MULTILINE)
    assert match, name
    return match[1]


class Picture:
    """Shapes and text on a sheet, in the order in which they are drawn."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []
        self.rectangle(0, 0, width, height, "paper")

    def rectangle(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5"/>')

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text, quote=False)}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str, text: str, small: str = "") -> None:
        """Draw a box with a line of text in its middle, and a small one below it."""
        self.rectangle(x, y, width, height, kind)
        middle = y + height / 2 + (-2 if small else 4)
        self.text(x + width / 2, middle, text, "middle")
        if small:
            self.text(x + width / 2, middle + 16, small, "middle small")

    def line(self, *points: tuple[float, float], kind: str = "line") -> None:
        self.parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x:g},{y:g}" for x, y in points)}"/>')

    def arrow(self, *points: tuple[float, float], kind: str = "line") -> None:
        """Draw a line along points, with a head at the last one. Its last part is horizontal or vertical."""
        self.line(*points, kind=kind)
        (x0, y0), (x, y) = points[-2:]
        along = ((x > x0) - (x < x0), (y > y0) - (y < y0))
        sides = [(x - 7 * along[0] + s * along[1] * 4, y - 7 * along[1] + s * along[0] * 4) for s in (1, -1)]
        corners = " ".join(f"{a:g},{b:g}" for a, b in [(x, y), *sides])
        self.parts.append(f'<polygon class="head" points="{corners}"/>')

    def svg(self) -> str:
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(self.title)}">'
        return "\n".join([opening, f"<style>{STYLE}</style>", *self.parts, "</svg>", ""])


# ---- the way of a request ----

# What a step makes of the one before it -> the section that does so; above, from the caller to handle; below, back
THERE = {"bytes": "", "Request": "Reader", "environ": "Request -> environ", "event, context": "Event and context"}
BACK = {"bytes": "", "one send": "Connection", "head and body": "Exchange", "Response": "Result -> Response"}
STEPS, WIDE, TALL = (26, 206, 386, 664), 144, 50  # pixels: the left edges of the steps, and their size
EDGE = (12, 544, 650, 1004)  # pixels: where the server half begins and ends, then the application half


def request() -> Picture:
    """Draw the way of a request and of its response."""
    picture, numbers = Picture(1016, 284, "The way of a request to handle, and of the response back"), sections()
    picture.rectangle(EDGE[0], 12, EDGE[1] - EDGE[0], 260, "band")
    picture.rectangle(EDGE[2], 12, EDGE[3] - EDGE[2], 260, "band")
    picture.text(26, 38, "server half: knows nothing of events and results", "strong")
    picture.text(664, 38, "application half: nothing of sockets", "strong")
    for y, steps, where in ((60, THERE, "from the caller"), (198, BACK, "to the caller")):
        for x, (name, section) in zip(STEPS, steps.items(), strict=True):
            small = f"{numbers[section]}. {section.replace('->', '→')}" if section else where
            picture.box(x, y, WIDE, TALL, "box", name, small)
        for x, following in pairwise(STEPS):
            ends = (x + WIDE, y + TALL / 2), (following, y + TALL / 2)
            picture.arrow(*(ends if steps is THERE else ends[::-1]))
    picture.box(860, 128, 130, 52, "yours", "handle", "your function")
    picture.arrow((808, 85), (925, 85), (925, 128))
    picture.arrow((925, 180), (925, 223), (808, 223))
    picture.text(866, 216, "result", "middle small")
    middle = (EDGE[1] + EDGE[2]) / 2
    for y, text, kind in ((140, "WSGI", "strong"), (158, "environ and", "small"), (173, "start_response", "small")):
        picture.text(middle, y, text, f"middle {kind}")
    return picture


# ---- threads ----

LANE, LEFT, UNIT = 44, 130, 14  # pixels: of a lane, before time 0, of a unit of time
# Each case: its title; what each thread does, as kind, units of time and text; when the lead is passed on, and by whom
CASES = """
Calls are short: the leader runs them itself
thread 1: lead 6 poll; call 6 call; lead 8 poll; call 5 call; call 5 call; lead 24 poll
thread 2: parked 54 parked

Calls to this path took more than SLOW on average: the lead is passed on before the call
thread 1: lead 10 poll; apart 34 call that blocks, apart; parked 10 parked
thread 2: parked 10 parked; lead 12 poll; call 6 call; lead 26 poll
at 10: thread 1 -> thread 2

A call blocks unexpectedly: after STUCK the monitor passes the lead on
thread 1: lead 10 poll; call 12 call, in place; apart 22 … the same call, apart; parked 10 parked
thread 2: parked 22 parked; lead 12 poll; call 5 call; lead 15 poll
main thread: parked 54 monitor
at 22: main thread -> thread 2
"""
KEY = {
    "lead": "has the lead: polls",
    "call": "a call in place, by the leader",
    "apart": "a call apart, without the lead",
    "parked": "waits",
}


def threads() -> Picture:
    """Draw how the right to poll passes from thread to thread."""
    picture, y = Picture(904, 458, "How the lead passes from thread to thread, in three cases"), 30
    text = re.sub(r"SLOW|STUCK", lambda name: f"{constant(name[0]) * 1000:g} ms", CASES)
    for title, *lines in (case.splitlines() for case in text.strip().split("\n\n")):
        picture.text(18, y, title, "strong")
        y = draw_case(picture, y + 14, [line.partition(": ")[::2] for line in lines]) + 18
    for x, (kind, meaning) in zip((30, 210, 445, 680), KEY.items(), strict=True):
        picture.rectangle(x, y - 14, 22, 16, kind)
        picture.text(x + 30, y, meaning)
    return picture


def draw_case(picture: Picture, y: float, lines: list[tuple[str, str]]) -> float:
    """Draw a case's threads below one another, and who passes the lead on; return where it ends."""
    tops = {}
    for name, text in lines:
        if name.startswith("at "):
            (sender, receiver), x = (tops[thread] for thread in text.split(" -> ")), LEFT + int(name[3:]) * UNIT
            begin, end = (sender + 26, receiver) if sender < receiver else (sender, receiver + 26)
            picture.arrow((x + 7, begin), (x + 7, end))
            picture.text(x + 16, max(begin, end) - 5, "the lead", "small")
            continue
        tops[name] = y
        picture.text(30, y + 18, name)
        x = LEFT
        for kind, units, what in (span.split(" ", 2) for span in text.split("; ")):
            picture.box(x, y, int(units) * UNIT, 26, kind, what)
            x += int(units) * UNIT
        y += LANE
    return y


# ---- the life cycle ----

PLATFORM, WATCHDOG, RUNTIME, ROW = 20, 280, 610, 34  # pixels: the middle of each column, and the height of a row
HALF = {WATCHDOG: 140, RUNTIME: 165}  # of the width of a column's boxes
Event = tuple[int, str, str, int]


def events() -> list[Event]:
    """Return what happens as (column, text, class of the box, column from which it is caused); column 0 is both."""
    interval, write = setting("healthcheck_interval"), setting("write_timeout")
    held = "gets a request that stays open"
    return [
        (WATCHDOG, "starts as process 1, listens on 8080", "box", PLATFORM),
        (RUNTIME, "starts, listens on 5000: early calls wait", "box", WATCHDOG),
        (RUNTIME, "with ready_on=listen, /_/health is 200 now", "box", 0),
        (RUNTIME, "imports the function", "yours", 0),
        (RUNTIME, "startup(context), then wrap(application)", "yours", 0),
        (RUNTIME, "with ready_on=startup, /_/health is 200 now", "box", 0),
        (0, "calls are served", "call", 0),
        (WATCHDOG, "SIGTERM: /_/health is 503", "box", PLATFORM),
        (RUNTIME, "SIGTERM: goes on serving", "box", WATCHDOG),
        (WATCHDOG, held, "box", RUNTIME),
        (0, f"calls are served for healthcheck_interval, {interval} in the image", "call", 0),
        (WATCHDOG, "accepts no more calls", "box", 0),
        (0, f"the last calls, and work after them, end within nine tenths of write_timeout, {write}", "call", 0),
        (RUNTIME, "shutdown(context), then exit handlers", "yours", 0),
        (RUNTIME, "exits with status 0", "box", 0),
        (WATCHDOG, "exits, and the container ends", "box", RUNTIME),
    ]


def life() -> Picture:
    """Draw the life cycle as a time line: of-watchdog on the left, the runtime on the right."""
    rows = events()
    end = 44 + len(rows) * ROW
    picture = Picture(850, end + 10, "The life of a function in a container, from docker run to docker stop")
    picture.text(WATCHDOG, 28, "of-watchdog", "middle strong")
    picture.text(RUNTIME, 28, "watchdog_app and the function", "middle strong")
    picture.line((WATCHDOG, 44), (WATCHDOG, end - 20), kind="line dashed")
    picture.line((RUNTIME, 44 + ROW), (RUNTIME, end - 20 - ROW), kind="line dashed")
    for number, (column, text, kind, cause) in enumerate(rows):
        y = 44 + number * ROW
        left, right = (column - HALF[column], column + HALF[column]) if column else (140, 775)
        if cause:
            begin = cause + HALF.get(cause, 0) * (1 if cause < column else -1)
            picture.arrow((begin, y + 13), (left if cause < column else right, y + 13))
        picture.box(left, y, right - left, 26, kind, text)
    calls = [number for number, row in enumerate(rows) if row[2] == "call"]
    stop = calls[0] + 1
    picture.text(PLATFORM, 44 + 6, "docker run", "small")
    picture.text(PLATFORM, 44 + 6 + stop * ROW, "docker stop", "small")
    for begin, until, name in ((0, calls[0], "start"), (calls[0], stop, "serve"), (stop, len(rows), "stop")):
        picture.line((790, 44 + begin * ROW), (790, 36 + until * ROW))
        picture.text(800, 44 + (begin + until) * ROW / 2, name)
    return picture


# ---- the states of a connection ----

READING = ("NEW", "IDLE", "HEAD", "BODY")
PLACES = {
    "reading": (20, 60, 230, 200),
    "QUEUED": (400, 60, 120, 40),
    "RUNNING": (400, 160, 120, 40),
    "AWAITING": (670, 60, 120, 40),
    "SENDING": (670, 160, 120, 40),
    "LINGERING": (670, 272, 120, 40),
    "CLOSED": (880, 272, 100, 40),
}
# From, to -> the way of the arrow; where its text stands, and the text. What leads to CLOSED elsewhere is not drawn
CHANGES = {
    ("reading", "QUEUED"): (((250, 80), (400, 80)), (258, 74, "no thread is free")),
    ("reading", "RUNNING"): (((250, 172), (400, 172)), (258, 166, "a request is complete")),
    ("RUNNING", "reading"): (((400, 190), (250, 190)), (258, 204, "the response is sent")),
    ("QUEUED", "RUNNING"): (((430, 100), (430, 160)), (340, 128, "a thread is free")),
    ("AWAITING", "QUEUED"): (((670, 80), (520, 80)), (530, 74, "ready, no thread free")),
    ("RUNNING", "AWAITING"): (((480, 160), (480, 122), (700, 122), (700, 100)), (530, 116, "the result is awaited")),
    ("AWAITING", "RUNNING"): (((730, 100), (730, 144), (500, 144), (500, 160)), (530, 138, "the result is ready")),
    ("RUNNING", "SENDING"): (((520, 180), (670, 180)), (530, 174, "not all can be sent")),
    ("SENDING", "AWAITING"): (((770, 160), (770, 100)), (778, 134, "all is sent")),
    ("SENDING", "LINGERING"): (((730, 200), (730, 272)), (738, 240, "all is sent, the last response")),
    ("SENDING", "reading"): (((700, 200), (700, 240), (250, 240)), (258, 234, "all is sent")),
    ("RUNNING", "LINGERING"): (((460, 200), (460, 292), (670, 292)), (468, 286, "the last response is sent")),
    ("reading", "SENDING"): (
        ((135, 60), (135, 30), (880, 30), (880, 180), (790, 180)),
        (258, 24, "100 (Continue) cannot be sent"),
    ),
    ("LINGERING", "CLOSED"): (((790, 292), (880, 292)), (798, 286, "FIN, or too long")),
}


def changes() -> set[tuple[str, str]]:
    """Return from where to where the state changes, by the module's table; those of a connection that reads as one."""
    table = re.search(r"^(# state +)(what happens +)next state\n((?:# .+\n)+)", MODULE, re.MULTILINE)
    assert table
    first, last = len(table[1]), len(table[1] + table[2])
    rows = [(line[2:first].strip().split(", "), line[last:].split(", ")) for line in table[3].splitlines()]
    found = {(group(state), group(name)) for states, names in rows for state in states for name in names}
    return {(state, following) for state, following in found if state != following}


def group(state: str) -> str:
    return "reading" if state in READING else state


def states() -> Picture:
    """Draw the states of a connection. Each change that the module's table has is drawn, except to CLOSED."""
    picture = Picture(1000, 340, "The states of a connection")
    for state, (x, y, width, height) in PLACES.items():
        kind = {"RUNNING": "call", "QUEUED": "parked", "reading": "band"}.get(state, "box")
        if state != "reading":
            picture.box(x, y, width, height, kind, state)
            continue
        picture.rectangle(x, y, width, height, kind)
        picture.text(x + width / 2, y + 24, "reads a request", "middle strong")
        for number, name in enumerate(READING):
            picture.box(x + 20 + 100 * (number % 2), y + 44 + 74 * (number // 2), 90, 40, "box", name)
    for way, (x, y, text) in CHANGES.values():
        picture.arrow(*way)
        picture.text(x, y, text, "small")
    return picture


PICTURES = {"request": request, "threads": threads, "states": states, "life": life}


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(draw().svg())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
