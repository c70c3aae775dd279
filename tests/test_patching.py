"""A function whose import replaces what the server works with: by hand, by gevent or by eventlet. These two are there in `make examples-test`."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest
from conftest import (
    DEADLINE,
    ROOT,
    Process,
    clean_env,
    connect_and_get,
    free_port,
    process,
    read_all,
    read_answer,
    wait_for,
)
from test_watchdog import behind

BY_HAND = """
import select, socket, sys, threading, time, _thread
import os
def replaced(*arguments, **named):
    raise AssertionError("the server has taken what the function has put there")
class Replaced:
    __init__ = replaced
del select.epoll, select.poll
select.select = socket.create_server = replaced
socket.socket = Replaced
threading.Lock = threading.RLock = threading.get_ident = replaced
threading._start_new_thread = threading._start_joinable_thread = _thread.start_new_thread = _thread.allocate_lock = replaced
time.monotonic = time.time = time.perf_counter = time.sleep = os.write = os.read = replaced
def gate():
    pass
"""
PATCHES = {
    "by hand": BY_HAND,
    "gevent": "from gevent import monkey\nmonkey.patch_all()\nfrom time import sleep\ndef gate():\n    sleep(0.01)\n",
    "eventlet": "import warnings\nwarnings.simplefilter('ignore')\nimport eventlet\neventlet.monkey_patch()\nfrom time import sleep\n"
    "def gate():\n    sleep(0.01)\n",
}
FUNCTION = """
import os, sys
inside = cancelled = 0
def handle(event, context):
    global inside, cancelled
    if event.path == "/together":
        inside += 1
        while inside < 8:
            gate()
    if event.path == "/cancelled":
        print("waiting", file=sys.stderr, flush=True)
        while not context.cancelled:
            gate()
        cancelled += 1
    if event.path == "/stream":
        return (gate() or f"{number}\\n" for number in range(3))
    if event.path == "/within":
        from urllib.request import urlopen
        return urlopen(os.environ["upstream_url"] + "/size").read()
    if event.path == "/fail":
        raise ValueError("on purpose")
    return f"{len(event.body)} {cancelled} {context.remaining() > 0}"
"""
AWAITING = "import asyncio\nasync def handle(event, context):\n    await asyncio.sleep(0.01)\n    return 'awaited'\n"
GET = b"GET /%s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


def kinds(*names):
    """Return these kinds of patching as parameters; one whose package is not there is skipped."""
    missing = {name: name != "by hand" and not find_spec(name) for name in names}
    return [
        pytest.param(name, marks=pytest.mark.skipif(missing[name], reason=f"{name} is not installed")) for name in names
    ]


ALL = pytest.mark.parametrize("kind", kinds(*PATCHES))
PACKAGES = pytest.mark.parametrize("kind", kinds("gevent", "eventlet"))


def written(folder, kind, function=FUNCTION):
    (folder / "handler.py").write_text(PATCHES[kind] + function)
    return folder


@contextlib.contextmanager
def patched(folder, kind, function=FUNCTION):
    """Run a function that patches as `kind` says; it ends well at SIGTERM."""
    with process(written(folder, kind, function), exec_timeout="30s") as program:
        wait_for(program.answers, "the first answer")
        yield program
        program.popen.send_signal(signal.SIGTERM)
        program.status, program.log = program.end()
        assert program.status == 0
        assert "the server failed" not in program.log


def talk(program, path, body=b""):
    """Send one request; return its response."""
    head = b"POST /%s HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
    with socket.create_connection(("127.0.0.1", program.port), timeout=DEADLINE) as sock:
        sock.sendall(head + body)
        return read_answer(read_all(sock))[0]


@ALL
def test_calls_uploads_streams_and_failures_are_as_ever(kind, tmp_path):
    with patched(tmp_path, kind) as program:
        assert talk(program, b"size", b"x" * 3_000_000).text == "3000000 0 True"
        assert talk(program, b"stream").text == "0\n1\n2\n"
        assert talk(program, b"fail").status == 500
    assert "ValueError: on purpose" in program.log


@PACKAGES
def test_calls_that_sleep_run_side_by_side(kind, tmp_path):
    with patched(tmp_path, kind) as program:
        answers = []
        callers = [threading.Thread(target=lambda: answers.append(talk(program, b"together").text)) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(DEADLINE)
    assert answers == ["0 0 True"] * 8
    assert program.log.count("WARNING the function has replaced Python's locks") == 1


@PACKAGES
def test_call_to_itself_and_call_whose_caller_goes(kind, tmp_path):
    with patched(tmp_path, kind) as program:
        assert talk(program, b"within").text == "0 0 True"
        with socket.create_connection(("127.0.0.1", program.port), timeout=DEADLINE) as sock:
            sock.sendall(GET % b"cancelled")
            wait_for(lambda: b"waiting" in program.popen.stderr.readline(), "the call")
        wait_for(lambda: talk(program, b"size").text == "0 1 True", "the end of the call")


@PACKAGES
def test_call_that_is_awaited(kind, tmp_path):
    with patched(tmp_path, kind, AWAITING) as program:
        assert [talk(program, b"").text for _ in range(3)] == ["awaited"] * 3


def body(port):
    with contextlib.suppress(OSError, AssertionError):  # it is starting again
        return connect_and_get(port)


@PACKAGES
def test_reload_serves_what_has_changed(kind, tmp_path):
    program = ROOT / "watchdog_app.py"
    port = free_port()
    command = [sys.executable, str(program), str(written(tmp_path, kind)), "--reload", "--bind", f"127.0.0.1:{port}"]
    popen = subprocess.Popen(command, env=clean_env(exec_timeout="30s"), stderr=subprocess.DEVNULL)
    try:
        wait_for(Process(popen, port).answers, "the first answer")
        written(tmp_path, kind, "def handle(event, context):\n    return 'changed'\n")
        wait_for(lambda: body(port) == b"changed", "the changed answer")
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(DEADLINE) == 0
    finally:
        popen.kill()
        popen.wait()


@PACKAGES
def test_behind_of_watchdog(kind, tmp_path):
    with behind("stand-in", written(tmp_path, kind), tmp_path, exec_timeout="30s") as watchdog:
        assert watchdog.call("POST", "/size", b"abc")[2] == b"3 0 True"
        assert watchdog.stop() == 0


LEAKING = "import os, sys\nimport watchdog_app\nwatchdog_app.PARKED_SECONDS = 0.01\n" + FUNCTION.replace(
    "    return f", "    if event.path == '/threads':\n        return str(len(os.listdir('/proc/self/task')))\n"
    "    if event.path == '/descriptors':\n        return str(len(os.listdir('/proc/self/fd')))\n    return f"
)  # fmt: skip


@pytest.mark.parametrize("kind", kinds("gevent"))
def test_thread_that_ends_leaves_no_descriptors(kind, tmp_path):
    with patched(tmp_path, kind, LEAKING) as program:
        before = int(talk(program, b"descriptors").text)
        callers = [threading.Thread(target=talk, args=(program, b"together")) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(DEADLINE)
        wait_for(lambda: int(talk(program, b"threads").text) <= 5, "the end of the threads")
        assert int(talk(program, b"descriptors").text) <= before + 6
