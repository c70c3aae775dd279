"""Stop of-watchdog as faasd does, which takes the network away and then sends SIGTERM to every process, and measure how long they take to end.

    python tests/lost_network.py --stops 50

Each stop has a network and processes of its own: that needs `unshare`, and to be root. Behind of-watchdog (`fwatchdog` where it is on PATH, else
the stand-in). The cases take turns; in `frozen` the signal comes while the processes are frozen, as `runc kill --all` sends it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from conftest import DEADLINE, pause, wait_for
from test_watchdog import PROCESS_1, REAL, Watchdog, behind, connects, first_child

LONGEST = 1.0  # seconds from SIGTERM to the end of all processes
CASES = ("idle", "load", "asleep", "CPU loops", "start", "import", "startup", "later", "frozen")
STARTS = ("start", "import", "startup")  # the signal comes before the function is ready
PATHS = {"load": "/", "later": "/", "asleep": "/asleep", "CPU loops": "/loop"}
CALLERS = 8
FUNCTION = """
import os, time
BEGUN = "{folder}/begun"

def begin(what):
    if what == "{case}":
        open(BEGUN, "w").close()
        time.sleep(1000)

def startup(context):
    begin("startup")

def shutdown(context):
    print("shut down")

def handle(event, context):
    if event.path != "/":
        open(BEGUN, "a").write("x")
    while event.path == "/loop":
        pass
    if event.path == "/asleep":
        time.sleep(1000)
    return "x"

begin("import")
"""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
CGROUPS = [
    root
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
    if os.access(root / "cgroup.procs", os.W_OK)
]


def set_loopback(up: bool) -> None:
    """Set the loopback device of this process's network up or down."""
    with socket.socket() as sock:
        request = bytearray(b"lo".ljust(40, b"\0"))
        fcntl.ioctl(sock, SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("h", request, 16)
        struct.pack_into("h", request, 16, flags | IFF_UP if up else flags & ~IFF_UP)
        fcntl.ioctl(sock, SIOCSIFFLAGS, request)


@contextlib.contextmanager
def frozen(pids: Iterable[int]) -> Iterator[None]:
    """Freeze processes for the time of the block (Linux's cgroup v2)."""
    group = CGROUPS[0] / f"lost_network-{os.getpid()}"
    group.mkdir()
    try:
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        (group / "cgroup.freeze").write_text("1")
        wait_for(lambda: "frozen 1" in (group / "cgroup.events").read_text(), "the freeze")
        yield
        (group / "cgroup.freeze").write_text("0")
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (CGROUPS[0] / "cgroup.procs").write_text(pid)
        group.rmdir()


def call_until_the_end(watchdog: Watchdog, path: str) -> None:
    while True:
        try:
            watchdog.call(target=path)
        except Exception:
            return


def stop(case: str, folder: Path) -> float:
    """Start, load, take the network away and send SIGTERM, in a network of its own; return the seconds until all processes have ended."""
    set_loopback(True)
    file = folder / "handler.py"
    file.write_text(FUNCTION.format(case=case, folder=folder))
    kind = "real" if REAL else "stand-in"
    with behind(kind, file, folder, wait=case not in STARTS, alone=PROCESS_1, healthcheck_interval="5s") as watchdog:
        wait_for(lambda: connects(watchdog.port), "the watchdog's port")
        pids = (wait_for(lambda: first_child(watchdog), "the function's process"), watchdog.pid)
        begin(case, watchdog, folder)
        with frozen(pids) if case == "frozen" else contextlib.nullcontext():
            if case != "later":
                set_loopback(False)
            began = time.monotonic()
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            if case == "later":
                pause(random.uniform(0.001, 0.3))
                set_loopback(False)
        watchdog.popen.wait(DEADLINE * 4)
        seconds = time.monotonic() - began
        assert case in STARTS or "shut down" in watchdog.log, watchdog.log
    return seconds


def begin(case: str, watchdog: Watchdog, folder: Path) -> None:
    """Bring about what the case has going on at the stop."""
    calls = CALLERS if case in PATHS else 0
    for _ in range(calls):
        threading.Thread(target=call_until_the_end, args=(watchdog, PATHS[case]), daemon=True).start()
    if case in ("import", "startup"):
        wait_for((folder / "begun").exists, case)
    elif case in ("asleep", "CPU loops"):
        wait_for(lambda: (folder / "begun").exists() and len((folder / "begun").read_text()) == calls, "all calls")
    else:
        pause(random.uniform(0.0, 0.3))  # at a moment like any other


def is_possible(case: str = "idle") -> bool:
    """Tell whether this machine lets us have networks and processes of their own, and freeze them where the case is of that."""
    try:
        allowed = subprocess.run(["unshare", "--net", *PROCESS_1, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
    return allowed and (case != "frozen" or bool(CGROUPS))


def seconds_to_stop(case: str) -> float:
    """Stop once in a network of its own."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, __file__, "--case", case],
        capture_output=True,
        text=True,
        timeout=DEADLINE * 6,
    )
    match = re.search(r"^([0-9.]+) s$", done.stdout, re.MULTILINE)
    assert match, done.stdout + done.stderr
    return float(match[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--case", choices=CASES, help="stop once so, in this process's own network")
    options = parser.parse_args()
    if options.case:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{stop(options.case, Path(folder)):.2f} s", flush=True)
        return 0
    print("behind of-watchdog" if REAL else "behind the stand-in", flush=True)
    cases = [case for case in CASES if is_possible(case)]
    times: dict[str, list[float]] = {case: [] for case in cases}
    for number in range(options.stops):
        case = cases[number % len(cases)]
        times[case].append(seconds_to_stop(case))
    for case, seconds in times.items():
        print(f"{case}: {len(seconds)} stops, {min(seconds, default=0):.2f} to {max(seconds, default=0):.2f} s")
    late = sum(seconds > LONGEST for several in times.values() for seconds in several)
    print(f"{options.stops} stops, {late} of them took more than {LONGEST} s")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
