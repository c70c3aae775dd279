"""Processes that a function starts by `multiprocessing` and `concurrent.futures`: they import its code, print, and end."""

import contextlib
import json
import os
import py_compile
import signal
import subprocess
import sys
import time

import pytest
from conftest import BRIEFLY, DEADLINE, ROOT, Process, clean_env, connect_and_get, free_port, wait_for

FUNCTION = f"""{BRIEFLY}
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
import work
from .work import square
from function.work import square as same

def own(number):
    print("printed by a child", flush=True)
    return number * number

def pid(number):
    return os.getpid()

ways = dict(own=own, relative=square, package=same, bare=work.square, pid=pid)
context = multiprocessing.get_context(os.environ["METHOD"])
if multiprocessing.parent_process() is None:
    at_import = ProcessPoolExecutor(1, mp_context=context)
at_start = None

def startup(_):
    global at_start
    at_start = ProcessPoolExecutor(1, mp_context=context)
    at_start.submit(own, 1).result()

def results(pool):
    return dict((name, list(pool.map(way, [1, 2, 3]))) for name, way in ways.items())

def handle(event, _):
    kind = os.environ["KIND"]
    if kind == "Pool":
        with context.Pool(2) as pool:
            return results(pool)
    if kind == "ProcessPoolExecutor":
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            return results(pool)
    return results(at_import if kind == "import" else at_start)
"""
COMMAND = "import sys\nfrom watchdog_app import run\nif __name__ == '__main__':\n    sys.exit(run())\n"


def layout(kind, folder):
    """Lay the function out in `folder` beside the module, as in the image or otherwise; return the command that runs it there."""
    (folder / "handler").mkdir()
    (folder / "handler" / "__init__.py").write_text("")
    (folder / "handler" / "handler.py").write_text(FUNCTION)
    (folder / "handler" / "work.py").write_text("def square(number):\n    return number * number\n")
    if kind == "image":
        py_compile.compile(str(ROOT / "watchdog_app.py"), str(folder / "watchdog_app.pyc"))
        return [sys.executable, "watchdog_app.pyc"]
    if kind == "command":
        (folder / "watchdog-app").write_text(COMMAND)
        return [sys.executable, "watchdog-app", "handler"]
    return [
        sys.executable,
        *(["-m", "watchdog_app"] if kind == "module" else [str(ROOT / "watchdog_app.py")]),
        "handler",
    ]


@contextlib.contextmanager
def running(kind, folder, method, executor):
    """Run the function laid out so; at the end kill it with all that it has started, which would keep its output open."""
    command, port = layout(kind, folder), free_port()
    env = clean_env(METHOD=method, KIND=executor, PYTHONPATH=str(ROOT), upstream_url=f"http://127.0.0.1:{port}")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, **pipes) as popen:
        try:
            wait_for(lambda: b"curl" in popen.stderr.readline(), "the start")
            yield Process(popen, port)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("executor", ["Pool", "ProcessPoolExecutor", "import", "startup"])
@pytest.mark.parametrize("kind", ["source", "image"])
def test_process_runs_the_functions_own_code_and_ends_with_the_server(kind, executor, method, tmp_path):
    with running(kind, tmp_path, method, executor) as program:
        answer = json.loads(connect_and_get(program.port))
        pids = answer.pop("pid")
        assert answer == {way: [1, 4, 9] for way in ("own", "relative", "package", "bare")}
        began = time.monotonic()
        program.popen.send_signal(signal.SIGTERM)
        printed, log = program.popen.communicate(timeout=DEADLINE)
        assert (program.popen.returncode, log) == (0, b"")
        assert time.monotonic() - began < 4
    assert printed.count(b"printed by a child\n") >= 3
    wait_for(lambda: not any(is_there(pid) for pid in pids), "the end of the processes")


@pytest.mark.parametrize("kind", ["module", "command"])
def test_process_runs_the_functions_own_code_however_the_server_was_started(kind, tmp_path):
    with running(kind, tmp_path, "spawn", "Pool") as program:
        assert json.loads(connect_and_get(program.port))["own"] == [1, 4, 9]
