"""Start a server, see that it answers right, and measure it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import py_compile
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import Peer
from scenarios import Call, Scenario

HERE = Path(__file__).resolve().parent
LOAD = HERE / "load.lua"
CORES = sorted(os.sched_getaffinity(0))
ALL, SERVER_CORE, CLIENT_CORE = set(CORES), {CORES[0]}, {CORES[-1]}
START_SECONDS = 20.0  # within which a server has to answer
CALL_SECONDS = 20.0  # within which the call that is checked has to be answered
AHEAD = 0.3  # seconds that other calls have already gone on when the short ones begin
METRICS_PORT = 8081  # of-watchdog's, and fixed
MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
Sample = dict[str, float]


class NotMeasured(Exception):
    """A peer cannot be measured in a scenario; the message says why."""


@dataclass(frozen=True)
class Effort:
    """How much is done.

    rounds. seconds: of one run of wrk. calls: before memory is read; longest: seconds that they may take. mib: of a stream.
    starts: of each server in one round. limit: seconds within which a further round has to end, or it is not begun.
    """

    rounds: int
    seconds: int
    calls: int
    longest: float
    mib: int
    starts: int
    limit: float


FULL = Effort(rounds=5, seconds=2, calls=100_000, longest=60.0, mib=1024, starts=5, limit=7200.0)
QUICK = Effort(rounds=2, seconds=1, calls=5_000, longest=3.0, mib=64, starts=2, limit=115.0)


# ---- processes ----


@contextlib.contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Let this thread, and so what it starts, run on `cores` only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def compile_product(folder: Path) -> Path:
    """Compile the module as the image's build does, into `folder`; return the file."""
    source, target = HERE.parent / "watchdog_app.py", folder / "watchdog_app.pyc"
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source), str(target), "watchdog_app.py", doraise=True, optimize=1, invalidation_mode=mode)
    return target


def tree(pid: int) -> list[int]:
    """Return `pid` and all processes below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time that processes have used, user and system."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def kilobytes(pid: int, file: str, *names: str) -> int:
    """Return the sum of some lines of a file of /proc."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in names)


def memory_mb(pids: Sequence[int]) -> float:
    """Return what processes hold: all of the largest one's resident memory, and of the others what they do not share."""
    largest = max(pids, key=lambda pid: kilobytes(pid, "status", "VmRSS"))
    others = sum(kilobytes(pid, "smaps_rollup", "Private_Clean", "Private_Dirty") for pid in pids if pid != largest)
    return (kilobytes(largest, "status", "VmRSS") + others) * 1024 / 1e6


class Server:
    """A server that runs: its processes and where to call it."""

    def __init__(self, popen: subprocess.Popen[bytes], port: int, log: Path, child: bool) -> None:
        self.popen, self.port, self.log, self.child = popen, port, log, child

    def pids(self) -> list[int]:
        """Return the server's processes, without of-watchdog's own."""
        return tree(self.popen.pid)[1 if self.child else 0 :]

    def fail(self, what: str) -> NotMeasured:
        """Make the exception that says what the server did not do, with the end of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return NotMeasured(f"{what}{': ' + lines[-1][:200] if lines else ''}")

    def check(self, call: Call) -> None:
        """Make one call; raise NotMeasured unless it is answered right."""
        try:
            status, content = send(self.port, call)
            right = call.is_right(status, content)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self.fail(f"{call.method} {call.target} failed, {type(error).__name__}") from None
        if not right:
            raise self.fail(f"{call.method} {call.target} answered {status} {content[:60]!r}")

    def wait(self, call: Call) -> None:
        """Wait until a call is answered with 200."""
        end = time.monotonic() + START_SECONDS
        while not is_answered(self.port, call):
            if time.monotonic() > end or self.popen.poll() is not None:
                raise self.fail("it does not start")
            time.sleep(0.0005)

    def stop(self) -> None:
        """End its processes, at once."""
        pids = tree(self.popen.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        for pid in pids[1:]:  # of-watchdog gives its child a group of its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait()


class Starter:
    """Start servers; their files are in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.product, self.number = folder, compile_product(folder), 0
        hidden = {"fprocess", "function_process", "mode", "port", "upstream_url", "http_upstream_url"}
        self.env = {name: value for name, value in os.environ.items() if name not in hidden}
        self.env["PYTHONPATH"] = str(HERE / "apps")

    def direct(self, peer: Peer, app: str) -> Server:
        """Start a server on the server's core."""
        port = free_port()
        with pinned(SERVER_CORE):
            return self._start(
                peer.words(app, port, self.product), {**peer.env, "upstream_url": f"http://127.0.0.1:{port}"}, port
            )

    def behind_watchdog(self, peer: Peer, app: str) -> Server:
        """Start of-watchdog with a server behind it, on all cores."""
        port, upstream = free_port(), free_port()
        words = peer.words(app, upstream, self.product)
        env = {
            "mode": "http",
            "port": str(port),
            "upstream_url": f"http://127.0.0.1:{upstream}",
            "fprocess": " ".join(words),
        }
        lock = {"TMPDIR": str(self.folder), "suppress_lock": "true", "healthcheck_interval": "1s"}
        return self._start(["fwatchdog"], {**peer.env, **env, **lock}, port, child=True)

    def _start(self, words: list[str], env: dict[str, str], port: int, child: bool = False) -> Server:
        self.number += 1
        log = self.folder / f"log-{self.number}"
        with open(log, "wb") as output:
            popen = subprocess.Popen(
                words,
                env={**self.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return Server(popen, port, log, child)


def why_no_watchdog() -> str:
    """Return why nothing can be measured behind of-watchdog, "" if it can."""
    if not shutil.which("fwatchdog"):
        return "fwatchdog is not on PATH"
    try:
        socket.create_server(("0.0.0.0", METRICS_PORT)).close()
    except OSError:
        return f"port {METRICS_PORT}, which of-watchdog needs for its metrics, is in use"
    return ""


# ---- calls ----


def send(port: int, call: Call) -> tuple[int, bytes]:
    """Make one call; return status and content."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_SECONDS)
    try:
        body = iter([call.body]) if call.chunked else call.body or None
        connection.request(call.method, call.target, body, dict(call.headers), encode_chunked=call.chunked)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_answered(port: int, call: Call) -> bool:
    """Tell whether a call is answered with 200; as quickly as can be told."""
    head = f"{call.method} {call.target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {call.size}\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as sock:
            sock.sendall(head.encode() + call.body)
            return sock.recv(65536).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def wrk(port: int, call: Call, connections: int, seconds: int, cores: set[int]) -> subprocess.Popen[bytes]:
    """Start wrk; it prints one line of JSON at its end."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "10s",
        "-s",
        str(LOAD),
        f"http://127.0.0.1:{port}{call.target}",
    ]
    arguments = [
        call.method,
        str(call.size),
        "chunked" if call.chunked else "length",
        *(f"{name}: {value}" for name, value in call.headers),
    ]
    with pinned(cores):
        return subprocess.Popen([*command, "--", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def outcome(popen: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for wrk's end; return what it measured."""
    output = popen.communicate()[0].decode(errors="replace").strip().splitlines()
    if popen.returncode or not output or not output[-1].startswith("{"):
        raise NotMeasured(f"wrk failed: {' '.join(output)[-200:]}")
    measured: dict[str, Any] = json.loads(output[-1])
    if not measured["requests"]:  # each of them took longer than all of the time
        measured["p99_ms"] = measured["seconds"] * 1e3
    if measured["status"]:
        raise NotMeasured(f"{measured['status']} of {measured['requests']} calls were answered with an error")
    return measured


# ---- what is measured ----


def load(starter: Starter, server: Server, peer: Peer, scenario: Scenario, effort: Effort) -> list[Sample]:
    """Measure rate, CPU and latency of a call under load."""
    server.check(scenario.call)
    cores = ALL if scenario.behind_watchdog else CLIENT_CORE
    seconds = effort.seconds * (
        2 if scenario.ideal else 1
    )  # calls that the end of a run cuts off count for nobody: few of many, please
    with beside(server, scenario, seconds, cores):
        pids = server.pids()
        before = cpu_seconds(pids)
        measured = outcome(wrk(server.port, scenario.call, scenario.connections, seconds, cores))
        used = cpu_seconds(pids) - before
    rate = measured["requests"] / measured["seconds"]
    sample = {
        "rate": rate,
        "p50_ms": measured["p50_ms"],
        "p99_ms": measured["p99_ms"],
        "failed": measured["failed"] + measured["timeout"],
    }
    sample["cpu_us"] = used * 1e6 / max(measured["requests"], 1)
    if scenario.ideal:
        sample["share"] = rate / (scenario.connections / scenario.ideal)
    return [sample]


@contextlib.contextmanager
def beside(server: Server, scenario: Scenario, seconds: int, cores: set[int]) -> Iterator[None]:
    """Let other connections make their calls meanwhile."""
    if scenario.beside is None:
        yield
        return
    call, connections = scenario.beside
    others = wrk(server.port, call, connections, seconds + 60, cores)
    try:
        time.sleep(AHEAD)
        yield
    finally:
        others.kill()
        others.communicate()


def start(starter: Starter, server: Server, peer: Peer, scenario: Scenario, effort: Effort) -> list[Sample]:
    """Measure the time from exec to the first 200, beside that of an interpreter that does nothing."""
    samples = []
    for _ in range(effort.starts):
        with pinned(SERVER_CORE):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True, env=starter.env)
            bare = time.perf_counter() - began
        began = time.perf_counter()
        started = starter.direct(peer, scenario.app)
        try:
            started.wait(scenario.call)
            samples.append({"start_ms": (time.perf_counter() - began) * 1e3, "bare_ms": bare * 1e3})
        finally:
            started.stop()
    return samples


def memory(starter: Starter, server: Server, peer: Peer, scenario: Scenario, effort: Effort) -> list[Sample]:
    """Measure resident memory after many calls, and what it grew by since the first tenth of them."""
    fresh = starter.direct(peer, scenario.app)
    try:
        fresh.wait(scenario.call)
        calls, early, end = 0, 0.0, time.monotonic() + effort.longest
        while calls < effort.calls and time.monotonic() < end:
            calls += outcome(wrk(fresh.port, scenario.call, scenario.connections, 1, CLIENT_CORE))["requests"]
            early = early or memory_mb(fresh.pids())
        late = memory_mb(fresh.pids())
    finally:
        fresh.stop()
    return [{"memory_mb": late, "growth_mb": late - early, "calls": calls}]


def stream(starter: Starter, server: Server, peer: Peer, scenario: Scenario, effort: Effort) -> list[Sample]:
    """Measure a large body sent through a function that sends it back as it comes; both directions at once."""
    if not passes_on(server.port):
        raise NotMeasured("the whole body is read before the application sees it")
    pids = server.pids()
    held, used, began = memory_mb(pids), cpu_seconds(pids), time.perf_counter()
    with pinned(CLIENT_CORE):
        came = through(server.port, effort.mib)
    seconds, used = time.perf_counter() - began, cpu_seconds(pids) - used
    if came < effort.mib * MIB:
        raise server.fail(f"only {came // MIB} of {effort.mib} MiB came back")
    peak = max(kilobytes(pid, "status", "VmHWM") for pid in pids) * 1024 / 1e6
    return [{"mib_s": effort.mib / seconds, "cpu_ms_mib": used * 1e3 / effort.mib, "growth_mb": max(0.0, peak - held)}]


STREAM_HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
LAST = b"0\r\n\r\n"


def passes_on(port: int) -> bool:
    """Tell whether a piece of a body comes back before the body has ended, and all of it after that."""
    with socket.create_connection(("127.0.0.1", port), timeout=2.0) as sock:
        try:
            sock.sendall(STREAM_HEAD + PIECE)
            answer = bytearray()
            while b"xxxx" not in answer:
                piece = sock.recv(65536)
                if not piece:
                    return False
                answer += piece
            sock.sendall(PIECE + LAST)
            while piece := sock.recv(65536):
                answer += piece
        except OSError:
            return False
    return answer.startswith(b"HTTP/1.1 200") and answer.count(b"x") == 2 * 65536 and answer.endswith(LAST)


def through(port: int, mib: int) -> int:
    """Send so many MiB and take what comes back meanwhile; return how many bytes that was."""
    with socket.create_connection(("127.0.0.1", port), timeout=CALL_SECONDS) as sock:
        sender = threading.Thread(target=send_pieces, args=(sock, mib))
        sender.start()
        buffer, came, tail = bytearray(MIB), 0, b""
        with contextlib.suppress(OSError):
            while taken := sock.recv_into(buffer):
                came += taken
                tail = (tail + buffer[max(0, taken - len(LAST)) : taken])[-len(LAST) :]
        sender.join()
    return came if tail == LAST else 0


def send_pieces(sock: socket.socket, mib: int) -> None:
    """Send a chunked request of so many MiB."""
    with contextlib.suppress(OSError):  # what comes back tells
        sock.sendall(STREAM_HEAD)
        for _ in range(mib):
            sock.sendall(PIECE * (MIB // 65536))
        sock.sendall(LAST)


MEASURES: dict[str, Callable[[Starter, Server, Peer, Scenario, Effort], list[Sample]]] = {
    "load": load,
    "start": start,
    "memory": memory,
    "stream": stream,
}


@contextlib.contextmanager
def starting() -> Iterator[Starter]:
    """Make a Starter, and its folder for as long."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Starter(Path(folder))
