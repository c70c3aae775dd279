"""Behind of-watchdog: the real one where it is on PATH, and a stand-in always. The id of each test says which of the two it ran with."""

import contextlib
import functools
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import DEADLINE, FUNCTIONS, ROOT, clean_env, connections_to, free_port, pause, wait_for
from test_examples import EXAMPLES

REAL = shutil.which("fwatchdog")
METRICS_PORT = 8081  # of fwatchdog, which takes no other
PROCESS_1 = (
    "unshare",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
)  # runs what follows as process 1, as an image does
HAS_PROCESS_1 = (
    bool(shutil.which("unshare")) and subprocess.run([*PROCESS_1, "true"], capture_output=True).returncode == 0
)
STAND_IN = Path(__file__).parent / "watchdog_standin.py"


class Watchdog:
    """A running watchdog with the function behind it."""

    def __init__(self, popen, pid, port, upstream, tmp, log):
        self.popen, self.pid, self.port, self.upstream, self.tmp, self.log_file = popen, pid, port, upstream, tmp, log

    def call(self, method="GET", target="/", body=None, headers=()):
        """Make one call on a connection of its own; return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            content = None if body is None else iter([body] if body else [])
            connection.request(method, target, content, dict(headers), encode_chunked=body is not None)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def ready(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.call(target="/_/ready")[0] == 200
        return False

    def begin_stop(self):
        """Send SIGTERM, and wait until the watchdog has taken its readiness back."""
        os.kill(self.pid, signal.SIGTERM)
        wait_for(lambda: not (self.tmp / ".lock").exists(), "the lock file's end")

    def stop(self):
        """Send SIGTERM; return the exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self.popen.wait(DEADLINE)

    def child(self):
        """Return the function's process. Go, when it starts, forks a short-lived one of its own; the watchdog's threads fork too."""
        return next(
            pid for pid in children_of(self.pid) if b"watchdog_app" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )

    @property
    def log(self):
        return self.log_file.read_text()


def children_of(pid):
    """Return the processes that one, by whichever of its threads, has started."""
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def first_child(watchdog):
    """Return the function's process, None while there is none."""
    with contextlib.suppress(StopIteration, FileNotFoundError, ProcessLookupError):
        return watchdog.child()


@functools.cache
def is_metrics_port_taken():
    """Tell whether another program has the port at which fwatchdog serves its metrics, before the first of ours is started."""
    try:
        socket.create_server(("", METRICS_PORT)).close()
    except OSError:
        return True
    return False


@pytest.mark.skipif(not REAL, reason="fwatchdog is not on PATH")
def test_port_that_fwatchdog_cannot_do_without_is_free():
    assert not is_metrics_port_taken(), f"port {METRICS_PORT} is taken: the tests behind the real fwatchdog are skipped"


@contextlib.contextmanager
def behind(kind, function, tmp, wait=True, alone=(), **env):
    """Start a watchdog of this kind with a function behind it, by the command `alone` if given, and wait until it says that it is ready."""
    if kind == "real" and is_metrics_port_taken():
        pytest.skip(f"port {METRICS_PORT} is taken, at which fwatchdog serves its metrics")
    port, upstream = free_port(), free_port()
    variables = clean_env(
        mode="http",
        port=str(port),
        upstream_url=f"http://127.0.0.1:{upstream}",
        suppress_lock="true",
        TMPDIR=str(tmp),
        healthcheck_interval="1s",
    )
    variables["fprocess"] = f"{sys.executable} {ROOT / 'watchdog_app.py'} {function}"
    command = [REAL] if kind == "real" else [sys.executable, str(STAND_IN)]
    log = tmp / "log"
    with open(log, "wb") as output:
        popen = subprocess.Popen([*alone, *command], env={**variables, **env}, stdout=output, stderr=output)
    pid = wait_for(lambda: children_of(popen.pid), "process 1")[0] if alone else popen.pid
    watchdog = Watchdog(popen, pid, port, upstream, tmp, log)
    try:
        if wait:
            wait_for(watchdog.ready, f"readiness; log: {watchdog.log}")
        yield watchdog
    finally:
        popen.kill()
        popen.wait()  # the function leaves once the watchdog is gone; its port is its own, so nothing waits for that


@pytest.fixture(
    params=[
        pytest.param("stand-in"),
        pytest.param("real", marks=pytest.mark.skipif(not REAL, reason="fwatchdog is not on PATH")),
    ]
)
def kind(request):
    return request.param


def write_function(folder, text):
    file = folder / "handler.py"
    file.write_text(text)
    return file


@pytest.mark.parametrize("file", sorted({row.values[0].function for row in EXAMPLES}))
def test_example_answers_right_from_a_chunked_body(kind, file, tmp_path):
    with behind(kind, FUNCTIONS / file, tmp_path) as watchdog:
        for example in [row.values[0] for row in EXAMPLES if row.values[0].function == file]:
            status, headers, body = watchdog.call(example.method, example.target, example.body or None, example.headers)
            assert (status, body) == (example.status, example.expected_body)
            assert {name: headers.get(name) for name in example.expected_headers} == example.expected_headers


@contextlib.contextmanager
def calling(watchdog):
    """Make a call in a thread; give the list that its answer comes into, and wait for that."""
    answers = []
    caller = threading.Thread(target=lambda: answers.append(watchdog.call()))
    caller.start()
    yield answers
    caller.join(DEADLINE)


def test_call_during_a_slow_import_waits_and_succeeds(kind, gate, tmp_path):
    function = write_function(tmp_path, f"{gate.wait}\ndef handle(event, context):\n    return 'imported'\n")
    with behind(kind, function, tmp_path) as watchdog:
        gate.reached()
        with calling(watchdog) as answers:
            wait_for(lambda: connections_to(watchdog.upstream), "the watchdog's connection")
            assert not answers
            gate.open()
        assert answers[0][2] == b"imported"


def test_lock_file_makes_readiness_true_and_sigterm_takes_it_back(kind, tmp_path):
    function = write_function(tmp_path, "def handle(event, context):\n    return 'x'\n")
    with behind(kind, function, tmp_path) as watchdog:
        assert (tmp_path / ".lock").exists()
        watchdog.begin_stop()
        assert watchdog.call()[2] == b"x"


def test_ready_on_startup_waits_for_the_import(kind, gate, tmp_path):
    function = write_function(tmp_path, f"{gate.wait}\ndef handle(event, context):\n    return 'x'\n")
    with behind(kind, function, tmp_path, wait=False, ready_on="startup") as watchdog:
        wait_for(lambda: connects(watchdog.port), "the watchdog's port")
        gate.reached()
        assert not watchdog.ready()
        gate.open()
        wait_for(watchdog.ready, "readiness")


def connects(port):
    with (
        contextlib.suppress(OSError),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection,
    ):
        connection.connect()
        return True
    return False


def load(watchdog, stop, results):
    """Call over and over on one connection after another until `stop`; record (began, status or the error)."""
    while not stop.is_set():
        began = time.monotonic()
        try:
            status = watchdog.call("POST", "/", b"x" * 100)[0]
        except ConnectionRefusedError:
            return  # it accepts no more
        except (OSError, http.client.HTTPException) as error:
            status = repr(error)
        results.append((began, status))


@pytest.mark.slow
@pytest.mark.parametrize("takes", ["0", "0.02"])
def test_no_call_is_lost_at_ten_stops_under_load(kind, takes, tmp_path):
    function = write_function(
        tmp_path,
        f"import time\ndef handle(event, context):\n    time.sleep({takes})\n    return str(len(event.body))\n",
    )
    random.seed(takes)
    for _ in range(5):
        with behind(kind, function, tmp_path, healthcheck_interval="0.3s") as watchdog:
            results, stop = [], threading.Event()
            callers = [threading.Thread(target=load, args=(watchdog, stop, results)) for _ in range(4)]
            for caller in callers:
                caller.start()
            pause(random.uniform(0.02, 0.3))  # a moment like any other
            signalled = time.monotonic()
            watchdog.popen.send_signal(signal.SIGTERM)
            pause(0.25)  # the load after the signal, a little less than healthcheck_interval
            stop.set()
            for caller in callers:
                caller.join(DEADLINE)
            assert [status for _, status in results if status != 200] == []
            assert any(began > signalled for began, _ in results)
            assert watchdog.popen.wait(DEADLINE) == 0


def test_calls_in_flight_at_the_stop_are_finished(kind, gate, tmp_path):
    function = write_function(tmp_path, f"def handle(event, context):\n    {gate.wait}\n    return 'done'\n")
    with behind(kind, function, tmp_path, healthcheck_interval="0.2s") as watchdog:
        with calling(watchdog) as answers:
            gate.reached()
            watchdog.begin_stop()
            wait_for(lambda: not connects(watchdog.port), "the end of the watchdog's listener")
            gate.open()
            assert watchdog.popen.wait(DEADLINE) == 0
        assert (answers[0][0], answers[0][2]) == (200, b"done")


def test_function_leaves_when_the_watchdog_is_killed(kind, tmp_path):
    function = write_function(tmp_path, "def handle(event, context):\n    return 'x'\n")
    with behind(kind, function, tmp_path) as watchdog:
        child = watchdog.child()
        watchdog.popen.kill()
        watchdog.popen.wait()
        wait_for(lambda: not is_running(child), "the function's end")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before the file is opened, or read
        return False


def test_function_that_cannot_be_imported_ends_the_watchdog_with_its_traceback(kind, tmp_path):
    function = write_function(tmp_path, "import no_such_module\n")
    with behind(kind, function, tmp_path, wait=False) as watchdog:
        assert watchdog.popen.wait(DEADLINE) != 0
        assert "No module named 'no_such_module'" in watchdog.log
        assert "requirements.txt" in watchdog.log


def test_prints_appear_at_once(kind, tmp_path):
    function = write_function(
        tmp_path, "def handle(event, context):\n    print('printed by the function')\n    return 'x'\n"
    )
    with behind(kind, function, tmp_path) as watchdog:
        watchdog.call()
        wait_for(lambda: "printed by the function" in watchdog.log, "the print")


def test_calls_that_print_long_lines_do_not_hang(kind, tmp_path):
    function = write_function(tmp_path, "def handle(event, context):\n    print('x' * 100_000)\n    return 'x'\n")
    with behind(kind, function, tmp_path) as watchdog:
        assert {watchdog.call()[2] for _ in range(20)} == {b"x"}
        wait_for(lambda: watchdog.log.count("x") >= 2_000_000, "all that was printed")


def test_second_sigterm_to_the_function_ends_it_at_once(kind, tmp_path):
    function = write_function(tmp_path, "def handle(event, context):\n    return 'x'\n")
    with behind(kind, function, tmp_path) as watchdog:
        child = watchdog.child()
        os.kill(child, signal.SIGTERM)
        assert watchdog.call()[2] == b"x"
        pause(0.4)  # later than one signal may come twice
        os.kill(child, signal.SIGTERM)
        wait_for(lambda: not is_running(child), "the function's end")


def test_stopping_before_the_function_is_imported_loses_no_call(kind, gate, tmp_path):
    function = write_function(tmp_path, f"{gate.wait}\ndef handle(event, context):\n    return 'x'\n")
    with behind(kind, function, tmp_path, healthcheck_interval="0.2s") as watchdog:
        gate.reached()
        with calling(watchdog) as answers:
            wait_for(lambda: connections_to(watchdog.upstream), "the watchdog's connection")
            watchdog.begin_stop()
            gate.open()
        assert answers[0][0] == 200
        assert watchdog.popen.wait(DEADLINE) == 0


def test_signal_to_the_whole_process_group_loses_no_call(kind, tmp_path):
    function = write_function(tmp_path, "def handle(event, context):\n    return 'x'\n")
    with behind(kind, function, tmp_path) as watchdog:
        child = watchdog.child()
        os.kill(child, signal.SIGTERM)
        watchdog.begin_stop()
        assert watchdog.call()[2] == b"x"
        assert watchdog.popen.wait(DEADLINE) == 0


@pytest.mark.parametrize(("interval", "warnings"), [("0s", 1), ("0", 1), ("0.1s", 0)])
def test_healthcheck_interval_with_which_the_watchdog_never_stops_is_one_warning(kind, interval, warnings, tmp_path):
    function = write_function(tmp_path, "def handle(event, context):\n    return 'x'\n")
    with behind(kind, function, tmp_path, healthcheck_interval=interval) as watchdog:
        assert watchdog.call()[2] == b"x"
        assert watchdog.log.count("WARNING healthcheck_interval=0s lets of-watchdog accept calls for ever") == warnings


@pytest.mark.parametrize(("written", "warnings"), [("29.9s", 1), ("30s", 1), ("30.1s", 0)])
def test_write_timeout_that_leaves_no_time_for_a_504_is_one_warning(kind, written, warnings, tmp_path):
    function = write_function(tmp_path, "def handle(event, context):\n    return 'x'\n")
    with behind(kind, function, tmp_path, exec_timeout="30s", write_timeout=written) as watchdog:
        assert watchdog.call()[2] == b"x"
        assert watchdog.log.count("WARNING write_timeout is not above exec_timeout: a call that takes") == warnings


def test_lock_file_that_cannot_be_written_stops_no_call(kind, tmp_path):
    function = write_function(tmp_path, "def handle(event, context):\n    return 'x'\n")
    env = {"healthcheck_interval": "0.2s", "TMPDIR": str(tmp_path / "missing")}
    with behind(kind, function, tmp_path, wait=False, **env) as watchdog:
        wait_for(lambda: connects(watchdog.port), "the watchdog's port")
        wait_for(lambda: "WARNING cannot write the lock file" in watchdog.log, "the warning")
        assert watchdog.call()[2] == b"x"
        assert watchdog.call(target="/_/health")[0] == 503
        assert watchdog.stop() == 0
