"""Systems that lack what Linux has, as sitecustomize.py in tests/systems takes it away, and Pythons that are too old: `make test-poll`."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import (
    DEADLINE,
    HANDLE,
    ROOT,
    Gate,
    clean_env,
    connect_and_get,
    process,
    read_all,
    wait_for,
    write,
)

GET = b"GET /%b HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
SYSTEMS = str(ROOT / "tests" / "systems")


def on(system, **env):
    """Return the settings with which a program runs as on another system."""
    return {"SIMULATED": system, "PYTHONPATH": f"{SYSTEMS}:{ROOT}", **env}


def run(system, *arguments, cwd=ROOT, **env):
    """Run Python as on another system; return what it did."""
    env = clean_env(**on(system, **env))
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_function_is_called_and_tested(system, tmp_path):
    source = f"from watchdog_app import invoke\n{HANDLE}event.text\ndef test_it():\n    assert invoke(handle, body='x').text == 'x'\n"
    (tmp_path / "test_handler.py").write_text(source)
    done = run(system, "-m", "pytest", "-q", "-p", "watchdog_app", "-p", "no:cacheprovider", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_simulation_takes_away_what_it_says():
    names = "[name for name in ('epoll', 'EPOLLIN', 'POLLRDHUP', 'poll') if hasattr(select, name)]"
    assert run("macos", "-c", f"import select, os\nprint({names}, hasattr(os, 'eventfd'))").stdout == "['poll'] False\n"
    assert run("windows", "-c", f"import select\nprint({names})").stdout == "[]\n"
    assert run("", "-c", f"import select\nprint(len({names}))").stdout == "4\n"


def test_server_says_what_serves_on_windows():
    done = run("windows", "watchdog_app.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "WSL or Docker" in done.stderr


def test_server_without_epoll_serves_calls_at_once_and_stops_at_a_signal(tmp_path):
    gate = Gate(tmp_path / "gate")
    source = f"def handle(event, context):\n    if event.path == '/wait':\n        {gate.wait}\n    return event.path\n"
    with process(write(tmp_path, handler=source), **on("macos")) as program:
        wait_for(program.answers, "an answer")
        with socket.create_connection(("127.0.0.1", program.port), timeout=DEADLINE) as sock:
            sock.sendall(GET % b"wait")
            gate.reached()
            assert connect_and_get(program.port) == b"/"
            program.popen.send_signal(signal.SIGINT)
            gate.open()
            assert read_all(sock).endswith(b"/wait")
        status, log = program.end()
    assert status == 0 and "ERROR" not in log


@pytest.mark.parametrize(
    "close", [socket.socket.close, lambda sock: sock.shutdown(socket.SHUT_WR)], ids=["close", "FIN"]
)
def test_caller_who_goes_is_noticed_without_pollrdhup(close, tmp_path):
    source = (
        "import asyncio\nSEEN = []\nasync def handle(event, context):\n    if event.path == '/':\n        return ' '.join(SEEN)\n"
        "    SEEN.append('waiting')\n    try:\n        await asyncio.Event().wait()\n    finally:\n        SEEN.append('cancelled')\n"
    )
    with process(write(tmp_path, handler=source), **on("macos")) as program:
        wait_for(program.answers, "an answer")
        with socket.create_connection(("127.0.0.1", program.port), timeout=DEADLINE) as sock:
            sock.sendall(GET % b"wait")
            wait_for(lambda: connect_and_get(program.port) == b"waiting", "the call")
            close(sock)
            wait_for(lambda: connect_and_get(program.port) == b"waiting cancelled", "the end of the call")


OLD = sorted(Path.home().glob(".pyenv/versions/3.[89].*/bin/python")) + sorted(
    Path.home().glob(".pyenv/versions/3.10.*/bin/python")
)


def test_old_python_is_told_before_it_meets_what_it_does_not_know(tmp_path):
    source = (ROOT / "watchdog_app.py").read_text()
    head = source[: source.index("import _thread")]
    program = tmp_path / "watchdog_app.py"
    program.write_text(
        "import sys\nsys.version_info, sys.version = (3, 10, 4), '3.10.4 (main)'\n"
        + head.replace("from __future__ import annotations\n", "", 1)
        + "no_such_name\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (1, "watchdog_app needs Python 3.11 or later, and this is 3.10.4\n")
    done = subprocess.run(
        [sys.executable, "-c", "import watchdog_app"], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.stderr.endswith("ImportError: watchdog_app needs Python 3.11 or later, and this is 3.10.4\n")


def test_grammar_is_that_of_python_38():
    """Else an old Python would report a syntax error instead of the version that is needed."""
    import ast

    ast.parse((ROOT / "watchdog_app.py").read_text(), feature_version=(3, 8))


@pytest.mark.skipif(not OLD, reason="no Python older than 3.11 is there")
@pytest.mark.parametrize("python", OLD, ids=lambda path: path.parts[-3])
def test_old_python_says_which_is_needed(python):
    done = subprocess.run([python, ROOT / "watchdog_app.py"], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"watchdog_app needs Python 3\.11 or later, and this is 3\.(8|9|10)\.\d+\n", done.stderr)
