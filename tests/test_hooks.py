"""What a function's module may declare beside `handle`: startup, shutdown, ready; and the runtime's own paths."""

from __future__ import annotations

import os
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest
from conftest import BRIEFLY, DEADLINE, call, connect_and_get, free_port, process, read_all, read_answer, wait_for
from test_watchdog import HAS_PROCESS_1, PROCESS_1, REAL, behind, connects, kind  # noqa: F401 (a fixture)

from watchdog_app import Function, Hold

HOOKS = """
import asyncio
STARTED = []

{startup}

{shutdown}

def handle(event, context):
    return STARTED[0]
"""
PLAIN = {
    "startup": "def startup(context):\n    STARTED.append(context.hostname)",
    "shutdown": "def shutdown(context):\n    print('shut down', context.hostname)",
}
AWAITED = {
    "startup": "async def startup(context):\n    await asyncio.sleep(0)\n    STARTED.append(context.hostname)",
    "shutdown": "async def shutdown(context):\n    await asyncio.sleep(0)\n    print('shut down', context.hostname)",
}


def written(folder, source):
    file = folder / "handler.py"
    file.write_text(source)
    return file


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("hooks", [pytest.param(PLAIN, id="plain"), pytest.param(AWAITED, id="awaited")])
def test_startup_runs_before_the_first_call_and_shutdown_after_the_last(hooks, number, tmp_path):
    with process(written(tmp_path, BRIEFLY + HOOKS.format(**hooks)), HOSTNAME="pod-1") as program:
        wait_for(program.answers, "an answer")
        assert connect_and_get(program.port) == b"pod-1"
        program.popen.send_signal(number)
        out, _ = program.popen.communicate(timeout=20)
    assert (program.popen.returncode, out) == (0, b"shut down pod-1\n")


def test_startup_that_fails_ends_the_start_with_one_record(tmp_path):
    with process(written(tmp_path, "def startup(context):\n    1 / 0\ndef handle(event, context): pass\n")) as program:
        status, log = program.end()
    assert status == 1
    assert log.startswith("ERROR startup failed\n  Traceback (most recent call last):\n    File")
    assert "handler.py" in log.splitlines()[2] and log.endswith("ZeroDivisionError: division by zero\n")


def test_shutdown_that_fails_is_one_record(tmp_path):
    with process(written(tmp_path, "def shutdown(context):\n    1 / 0\ndef handle(event, context): pass\n")) as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(signal.SIGINT)
        status, log = program.end()
    assert status == 0
    assert "ERROR shutdown failed\n" in log and "handler.py" in log and "ZeroDivisionError" in log


def test_shutdown_that_never_returns_is_given_up(tmp_path):
    source = "import time\ndef shutdown(context):\n    time.sleep(1000)\ndef handle(event, context): pass\n"
    with process(written(tmp_path, source), write_timeout="500ms") as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(signal.SIGINT)
        assert program.end()[0] == 0


def test_name_that_is_no_function_is_no_hook(tmp_path):
    with process(written(tmp_path, "ready = startup = False\ndef handle(event, context): return 'x'\n")) as program:
        wait_for(program.answers, "an answer")


def raises():
    raise ValueError("no database")


async def awaited():
    return True


@pytest.mark.parametrize(
    ("ready", "status"),
    [
        pytest.param(None, 200, id="none"),
        pytest.param(lambda: True, 200, id="true"),
        pytest.param(awaited, 200, id="awaited"),
        pytest.param(lambda: False, 503, id="false"),
        pytest.param(lambda: None, 503, id="None"),
        pytest.param(raises, 503, id="exception"),
    ],
)
def test_ready(ready, status, log):
    function = Function(lambda event, context: "the function's", ready=ready)
    answer = call(function, target="/_/ready")
    assert (answer.status, answer.body) == (status, b"OK\n" if status == 200 else b"not ready\n")
    health = call(function, target="/_/health")
    assert (health.status, health.body) == (200, b"OK\n")
    assert call(function, target="/_/other").body == b"the function's"
    assert log.getvalue().count("WARNING ready failed: 'no database'") == (ready is raises)


def test_readiness_through_the_watchdog_follows_ready(kind, tmp_path):  # noqa: F811
    source = "READY = []\ndef ready(): return READY\ndef handle(event, context):\n    READY.append(1)\n    return 'x'\n"
    with behind(kind, written(tmp_path, source), tmp_path, wait=False, ready_path="/_/ready") as watchdog:
        wait_for((tmp_path / ".lock").exists, "the lock file")
        if kind == "real":  # the stand-in asks for no path
            wait_for(lambda: status(watchdog, "/_/ready") == 503, "503 while it is not ready")
        assert wait_for(lambda: status(watchdog, "/"), "an answer") == 200
        wait_for(lambda: status(watchdog, "/_/ready") == 200, "200 when it is ready")


def status(watchdog, path):
    """Return the status of one GET, None while nobody listens."""
    try:
        return watchdog.call("GET", path, None, {})[0]
    except OSError:
        return None


def test_lock_file_waits_for_startup_with_ready_on_startup(kind, gate, tmp_path):  # noqa: F811
    source = f"def startup(context):\n    {gate.wait}\n"
    with behind(
        kind,
        written(tmp_path, source + "def handle(event, context): return 'x'\n"),
        tmp_path,
        wait=False,
        ready_on="startup",
    ) as watchdog:
        wait_for(lambda: "istening on port" in watchdog.log or kind != "real", "the watchdog")
        gate.reached()
        assert not (tmp_path / ".lock").exists()
        gate.open()
        wait_for((tmp_path / ".lock").exists, "the lock file")
        wait_for(watchdog.ready, "readiness")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
@pytest.mark.skipif(not REAL, reason="fwatchdog is not on PATH, and the stand-in sends nothing before the end")
def test_items_arrive_one_by_one_through_the_watchdog_when_the_caller_asks_for_them(accept, tmp_path):
    source = f"import asyncio, os\nasync def handle(event, context):\n    yield 'one'\n    while not os.path.exists({str(tmp_path / 'go')!r}):\n"
    with behind(
        "real", written(tmp_path, source + "        await asyncio.sleep(0.01)\n    yield 'two'\n"), tmp_path
    ) as watchdog:
        connection = HTTPConnection("127.0.0.1", watchdog.port, timeout=10)
        connection.request("GET", "/", headers={"Accept": accept})
        response = connection.getresponse()
        assert response.read1(100) == b"one"  # the second item is not made before it
        (tmp_path / "go").touch()
        assert response.read() == b"two"
        connection.close()


LAST_WORDS = """
import asyncio, atexit, os, time

def handle(event, context):
    print("called", flush=True)
    while event.path == "/stuck" or not os.path.exists("{go}"):
        time.sleep(0.01)
    print("answered", flush=True)
    return "x"

{shutdown}
atexit.register(print, "good bye")
"""


def in_flight(watchdog, path, number):
    """Have so many calls in flight; return them."""
    pool = ThreadPoolExecutor(number)
    calls = [pool.submit(watchdog.call, "GET", path) for _ in range(number)]
    wait_for(lambda: watchdog.log.count("called") == number, "the calls")
    return calls


@pytest.mark.skipif(not HAS_PROCESS_1, reason="this machine does not let us have a process 1 of our own")
@pytest.mark.parametrize(
    "env", [pytest.param({}, id="no limit"), pytest.param({"max_inflight": "3"}, id="as many calls as may be")]
)
@pytest.mark.parametrize("hooks", [pytest.param(PLAIN, id="plain"), pytest.param(AWAITED, id="awaited")])
def test_shutdown_and_exit_handlers_run_after_the_last_call_behind_process_1(kind, hooks, env, tmp_path):  # noqa: F811
    source = LAST_WORDS.format(go=tmp_path / "go", shutdown=hooks["shutdown"])
    with behind(
        kind, written(tmp_path, source), tmp_path, alone=PROCESS_1, healthcheck_interval="0.1s", **env
    ) as watchdog:
        calls = in_flight(watchdog, "/", 3)
        os.kill(watchdog.pid, signal.SIGTERM)
        wait_for(lambda: not connects(watchdog.port), "the end of the listener")
        (tmp_path / "go").touch()
        assert [call.result()[0] for call in calls] == [200] * 3
        assert watchdog.popen.wait(DEADLINE) == 0
        assert re.findall("answered|shut down|good bye", watchdog.log) == ["answered"] * 3 + ["shut down", "good bye"]


@pytest.mark.skipif(not HAS_PROCESS_1, reason="this machine does not let us have a process 1 of our own")
def test_shutdown_runs_behind_process_1_before_a_call_that_is_stuck_is_given_up(kind, tmp_path):  # noqa: F811
    source = LAST_WORDS.format(go=tmp_path / "go", shutdown=PLAIN["shutdown"])
    env = {"healthcheck_interval": "0.1s", "write_timeout": "2s"}
    with behind(kind, written(tmp_path, source), tmp_path, alone=PROCESS_1, **env) as watchdog:
        in_flight(watchdog, "/stuck", 1)
        os.kill(watchdog.pid, signal.SIGTERM)
        assert watchdog.popen.wait(DEADLINE) == 0
        assert re.findall("shut down|good bye", watchdog.log) == ["shut down", "good bye"]


@pytest.mark.skipif(not HAS_PROCESS_1, reason="this machine does not let us have a process 1 of our own")
def test_call_that_process_1_has_not_handed_on_when_it_accepts_no_more_comes_before_shutdown(kind, tmp_path):  # noqa: F811
    (tmp_path / "go").touch()
    source = LAST_WORDS.format(go=tmp_path / "go", shutdown=PLAIN["shutdown"])
    env = {"healthcheck_interval": "0.3s", "http_buffer_req_body": "true"}  # it reads the whole body first
    with behind(kind, written(tmp_path, source), tmp_path, alone=PROCESS_1, **env) as watchdog:
        with socket.create_connection(("127.0.0.1", watchdog.port), timeout=DEADLINE) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 2\r\n\r\na")
            os.kill(watchdog.pid, signal.SIGTERM)
            wait_for(lambda: not connects(watchdog.port), "the end of the listener")
            sock.sendall(b"b")
            assert read_answer(read_all(sock))[0].status == 200
        assert watchdog.popen.wait(DEADLINE) == 0
        assert re.findall("answered|shut down", watchdog.log) == ["answered", "shut down"]


def test_port_where_nobody_ever_listened_is_not_the_watchdogs():
    hold = Hold(free_port())
    assert not hold.calls_are_over(None, 1.0)
    assert hold.refused_at == float("inf")


def test_watchdog_that_takes_no_connection_now_is_asked_again(monkeypatch):
    def fail(*arguments):
        raise TimeoutError

    hold = Hold(free_port())
    monkeypatch.setattr("socket.create_connection", fail)
    assert not hold.calls_are_over(None, 1.0)
    assert hold.refused_at == float("inf")
