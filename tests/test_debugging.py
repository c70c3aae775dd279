"""What docs/debugging.md says: a breakpoint, a crash, a call that hangs, a profile."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import (
    DEADLINE,
    ROOT,
    block_examples,
    check_block,
    clean_env,
    free_port,
    process,
    python_blocks,
    read_all,
    wait_for,
    write,
)

PAGE = (ROOT / "docs/debugging.md").read_text()
BLOCKS = python_blocks("docs/debugging.md")
STOPS = 'def handle(event, context):\n    name = event.query["name"]\n    breakpoint()\n    return {"message": f"Hello, {name}!"}\n'
CRASHES = "import ctypes\n\n\ndef handle(event, context):\n    return ctypes.string_at(0)\n"
HANGS = "import threading\nforever = threading.Event()\ndef handle(event, context):\n    print('it hangs')\n    forever.wait()\n"
COUNTS = """def handle(event, context):
    return sum(is_prime(number) for number in range(200))


def is_prime(number):
    return number > 1 and all(number % divisor for divisor in range(2, number))
"""


def block_of(name: str) -> str:
    """Return the text of the block behind the comment `name`."""
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def ask(port: int, target: str = "/") -> socket.socket:
    """Send a GET; return its connection."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    sock.sendall(b"GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n" % target.encode())
    return sock


def read_until(fd: int, text: str) -> str:
    """Read from a terminal until `text` has come."""
    seen, end = "", time.monotonic() + DEADLINE
    while text not in seen:
        assert select.select([fd], [], [], max(end - time.monotonic(), 0))[0], f"{text!r} did not come after {seen!r}"
        seen += os.read(fd, 65536).decode()
    return seen


@pytest.mark.parametrize("flags", [pytest.param([], id="plain"), pytest.param(["--reload"], id="reload")])
def test_a_breakpoint_opens_the_debugger_in_the_terminal(flags, tmp_path):
    port, (master, slave) = free_port(), pty.openpty()
    command = [sys.executable, str(ROOT / "watchdog_app.py"), write(tmp_path, handler=STOPS), *flags]
    env = clean_env(upstream_url=f"http://127.0.0.1:{port}", TERM="dumb")
    program = subprocess.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    try:
        read_until(master, "Listening")
        with ask(port, "/?name=Ann") as sock:
            assert "handle()" in read_until(master, "(Pdb) ")
            os.write(master, b"p name\n")
            assert "'Ann'" in read_until(master, "(Pdb) ")
            os.write(master, b"c\n")
            assert read_all(sock).endswith(b'{"message":"Hello, Ann!"}')
    finally:
        program.kill()
        program.wait()
        os.close(slave)
        os.close(master)
    assert [line for line in block_of("breakpoint").splitlines() if line[:5] == "(Pdb)"] == ["(Pdb) p name", "(Pdb) c"]


def test_a_breakpoint_without_a_terminal_is_a_500_unless_it_is_turned_off(tmp_path):
    for value, status in (("", b"500"), ("0", b"200")):
        env = {"PYTHONBREAKPOINT": value} if value else {}
        with process(write(tmp_path, handler=STOPS), **env) as program:
            wait_for(program.answers, "the first answer")
            with ask(program.port, "/?name=Ann") as sock:
                assert read_all(sock).split()[1] == status


def test_a_crash_is_in_the_log_with_its_line(tmp_path):
    assert "$ PYTHONFAULTHANDLER=1 " in block_of("crash")
    with process(write(tmp_path, handler=CRASHES), PYTHONFAULTHANDLER="1") as program:
        assert program.popen.stderr.readline().startswith(b"INFO Listening")
        with ask(program.port) as sock, contextlib.suppress(ConnectionError):
            read_all(sock)
        status, log = program.end()
    assert status == -signal.SIGSEGV
    current = log.partition("Current thread ")[2].partition("\n\n")[0]
    assert f'File "{tmp_path}/handler.py", line 5 in handle' in current


def test_a_call_that_hangs_is_in_the_log_at_a_signal(tmp_path):
    with process(write(tmp_path, handler=block_of("hang") + HANGS)) as program:
        assert program.popen.stderr.readline().startswith(b"INFO Listening")
        lines = iter(program.popen.stderr.readline, b"")
        with ask(program.port):
            assert program.popen.stdout.readline() == b"it hangs\n"
            program.popen.send_signal(signal.SIGUSR1)
            assert any(re.search(rb'handler\.py", line \d+ in handle', line) for line in lines)


def test_a_profile_names_the_functions_of_the_function(tmp_path):
    folder = write(tmp_path, handler=COUNTS, profile_it=block_of("profile_it"))
    shutil.copy(ROOT / "watchdog_app.py", tmp_path)
    command = block_of("profile").splitlines()[0].removeprefix("$ python3 ").split()
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=clean_env(), capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +20000 .*handler\.py:5\(is_prime\)$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize(
    ("block", "line"), [pytest.param(*example, id=example[1]) for example in block_examples(BLOCKS)]
)
def test_the_code_of_the_page_answers_as_it_says(block, line, monkeypatch):
    check_block(block, line, monkeypatch)
