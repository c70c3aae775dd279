"""The module as a program: settings, loading, readiness, signals and exit codes, without a watchdog."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import (
    BRIEFLY,
    DEADLINE,
    ROOT,
    clean_env,
    connect_and_get,
    free_port,
    pause,
    process,
    read_all,
    read_answer,
    run_program,
    wait_for,
    write,
)

import watchdog_app

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
FORBIDDEN_AT_START = {"http.client", "email", "asyncio", "logging", "typing", "dataclasses", "argparse"}


@pytest.fixture
def function(tmp_path):
    """Write a function's file; return its path."""

    def write(text):
        file = tmp_path / "handler.py"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def with_lock(tmp_path):
    """The settings with which the lock file's end says that the first signal has been handled, and what waits for that."""
    lock = tmp_path / ".lock"
    return {"suppress_lock": "true", "TMPDIR": str(tmp_path)}, lambda: wait_for(
        lambda: not lock.exists(), "the lock file's end"
    )


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def ask(sock):
    sock.sendall(GET)
    return next_answer(sock)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        pytest.param(
            {"exec_timeout": "soon"},
            "exec_timeout='soon' is not valid: it takes a duration such as 10s, 1m30s or 500ms",
            id="duration",
        ),
        pytest.param({"threads": "0"}, "threads='0' is not valid: it takes a whole number above 0", id="count"),
        pytest.param(
            {"max_body": "big"},
            "max_body='big' is not valid: it takes a size such as 4096, 256KB or 100MB",
            id="size",
        ),
        pytest.param({"http_upstream_url": "here"}, "it takes an address such as http://127.0.0.1:5000", id="address"),
        pytest.param({"ready_on": "never"}, "ready_on='never' is not valid: it takes listen or startup", id="choice"),
    ],
)
def test_wrong_setting_ends_the_start_with_one_line_and_status_2(env, says, function):
    with process(function("def handle(event, context): pass"), **env) as program:
        status, log = program.end()
    assert status == 2
    assert log.count("\n") == 1
    assert says in log


def test_target_that_does_not_exist_ends_the_start_with_status_2(tmp_path):
    with process(tmp_path / "nothing.py") as program:
        status, log = program.end()
    assert (status, log.count("\n")) == (2, 1)
    assert "nothing.py" in log


def test_module_without_handle_ends_the_start_and_says_what_it_has(function):
    with process(function("def handler(event, context): pass\ndef other(): pass\n")) as program:
        status, log = program.end()
    assert status == 1
    assert "handler.py defines no function handle(event, context); it defines: handler, other" in log


def test_target_of_a_folder_says_what_it_takes(tmp_path):
    (tmp_path / "greeting").mkdir()
    write(tmp_path / "greeting", handler="def handle(event, context): pass")
    command = [sys.executable, str(ROOT / "watchdog_app.py"), "greeting:handle"]
    with run_program(command, cwd=tmp_path) as program:
        status, log = program.end()
    takes = "it takes greeting or greeting.file:handle"
    assert (status, log) == (2, f"ERROR TARGET 'greeting:handle' is a folder: {takes}\n")
    with run_program([*command[:-1], "greeting.handler:handle"], cwd=tmp_path) as program:
        wait_for(program.answers, "an answer")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("import no_such_thing", "is 'no_such_thing' listed in requirements.txt", id="missing module"),
        pytest.param("def handle(:", "SyntaxError", id="syntax error"),
        pytest.param("1 / 0", "ZeroDivisionError", id="error at import"),
        pytest.param("import sys; sys.exit(0)", "SystemExit", id="exit at import"),
    ],
)
def test_function_that_cannot_be_imported_ends_the_start_with_status_1_and_its_traceback(text, says, function):
    with process(function(text)) as program:
        status, log = program.end()
    assert status == 1
    assert says in log
    assert "handler.py" in log
    assert "importlib" not in log and "watchdog_app.py" not in log, (
        "the frames that are not the function's say nothing to its author"
    )


@pytest.mark.linux
def test_fault_that_is_not_the_functions_is_not_called_so(function):
    with process(function("import os\nos.eventfd = None\ndef handle(event, context): pass")) as program:
        status, log = program.end()
    assert status == 1
    assert "ERROR the server failed\n" in log and "TypeError" in log


@pytest.mark.parametrize("name", ["upstream_url", "http_upstream_url", "PORT"])
def test_port_that_is_named_is_no_other(name, function):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        named = {"upstream_url": "", name: port if name == "PORT" else f"127.0.0.1:{port}"}
        with process(function("def handle(event, context): pass"), **named) as program:
            status, log = program.end()
    assert (status, log.count("\n")) == (2, 1)


def test_next_free_port_is_taken_where_none_is_named(function):
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # another program has it
            stack.enter_context(socket.create_server(("127.0.0.1", 5000)))
        program = stack.enter_context(process(function("def handle(event, context): return 'x'"), upstream_url=""))
        lines = [program.popen.stderr.readline().decode() for _ in range(2)]
        while "Listening" not in lines[-1]:
            lines.append(program.popen.stderr.readline().decode())
        assert lines[0] == "INFO Port 5000 is taken (on macOS by AirPlay), and no setting names one: trying 5001\n"
        port = int(lines[-1].rpartition(":")[2])
        assert 5000 < port < 5010 and connect_and_get(port) == b"x"


def test_first_ctrl_c_during_a_call_says_what_it_waits_for(gate, function):
    with process(function(f"def handle(event, context):\n    {gate.wait}\n")) as program:
        assert b"Listening" in program.popen.stderr.readline()
        with connect(program.port) as sock:
            sock.sendall(GET)
            gate.reached()
            program.popen.send_signal(signal.SIGINT)
            says = "INFO Stopping once the calls in flight are over, at most 30 s. Press Ctrl+C again to stop now.\n"
            assert says in iter(lambda: program.popen.stderr.readline().decode(), "")
            gate.open()
            assert program.end() == (0, "")


def test_ctrl_c_without_a_call_says_nothing(function):
    with process(function("def handle(event, context): pass")) as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(signal.SIGINT)
        assert "Ctrl+C" not in program.end()[1]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_address_of_ipv6_is_shown_as_a_url(function):
    port = free_port()
    with process(function("def handle(event, context): pass"), upstream_url=f"http://[::1]:{port}") as program:
        assert program.popen.stderr.readline().decode() == f"INFO Listening on http://[::1]:{port}\n"
        assert program.popen.stderr.readline().decode() == f"  curl -d World http://[::1]:{port}/\n"


def test_address_in_use_ends_the_start_with_one_line(function):
    file = function("def handle(event, context): pass")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = clean_env(upstream_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        done = subprocess.run(
            [sys.executable, ROOT / "watchdog_app.py", file], env=env, capture_output=True, text=True, timeout=DEADLINE
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot listen on 127.0.0.1" in done.stderr


def test_bind_wins_over_the_environment(function):
    file = function("def handle(event, context): return 'bound'")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    env = clean_env(upstream_url="http://127.0.0.1:1", http_upstream_url="http://127.0.0.1:1")
    popen = subprocess.Popen(
        [sys.executable, ROOT / "watchdog_app.py", file, "--bind", f"127.0.0.1:{port}"],
        env=env,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(port), "an answer")
    finally:
        popen.kill()
        popen.wait()


def answers(port):
    try:
        with connect(port) as sock:
            return ask(sock).status
    except OSError:
        return None


@pytest.mark.parametrize(
    ("arguments", "target", "flags"),
    [
        pytest.param([], "", {}, id="none"),
        pytest.param(["app.py"], "app.py", {}, id="target"),
        pytest.param(["--bind", "127.0.0.1:1"], "", {"http_upstream_url": "127.0.0.1:1"}, id="bind"),
        pytest.param(["app.py", "--bind=[::1]:1"], "app.py", {"http_upstream_url": "[::1]:1"}, id="both"),
        pytest.param(["--", "-app.py"], "-app.py", {}, id="target that begins with a dash"),
    ],
)
def test_command_line_says_what_to_run_and_where(arguments, target, flags):
    assert watchdog_app.parse_arguments(arguments) == (target, flags, False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["--bind", "5000"], "--bind='5000' is not valid: it takes an address such as 127.0.0.1:5000", id="bind"
        ),
        pytest.param(
            ["--bind="], "--bind='' is not valid: it takes an address such as 127.0.0.1:5000", id="bind to nothing"
        ),
        pytest.param(["--bind"], "argument --bind: expected one argument", id="bind without an address"),
        pytest.param(["--port", "5000"], "unrecognized arguments: --port", id="unknown flag"),
        pytest.param(["a.py", "b.py"], "unrecognized arguments: b.py", id="two targets"),
    ],
)
def test_wrong_command_line_names_the_argument_and_ends_with_status_2(arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        watchdog_app.parse_arguments(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_program_with_a_wrong_command_line_ends_with_status_2():
    command = [sys.executable, ROOT / "watchdog_app.py", "--bind", "5000"]
    done = subprocess.run(command, env=clean_env(), capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--bind='5000' is not valid" in done.stderr


@pytest.mark.parametrize(
    ("supervised", "number", "seconds"),
    [
        pytest.param(
            True, signal.SIGTERM, 3 + 7 + watchdog_app.LATE, id="of-watchdog accepts for healthcheck_interval"
        ),
        pytest.param(True, signal.SIGINT, 7, id="SIGINT under of-watchdog"),
        pytest.param(False, signal.SIGTERM, watchdog_app.MOMENT + 7, id="alone"),
        pytest.param(False, signal.SIGINT, 7, id="SIGINT alone"),
    ],
)
def test_time_until_the_process_is_gone_after_a_signal(supervised, number, seconds):
    hold = watchdog_app.Hold(8080) if supervised else None
    life = watchdog_app.Life(watchdog_app.Settings(healthcheck_interval="3s", write_timeout="7s"), hold, "")
    life.on_signal(number, 1000.0)
    assert life.leave_by == 1000.0 + seconds


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_program_without_standard_streams_serves(closed, function):
    port = free_port()
    command = f'exec "$@" {closed}'
    file = function("def handle(event, context):\n    print('printed')\n    return 'x'")
    popen = subprocess.Popen(
        ["sh", "-c", command, "sh", sys.executable, ROOT / "watchdog_app.py", file, "--bind", f"127.0.0.1:{port}"],
        env=clean_env(),
    )
    try:
        wait_for(lambda: answers(port) == 200, "an answer")
        popen.send_signal(signal.SIGINT)
        assert popen.wait(DEADLINE) == 0
    finally:
        popen.kill()
        popen.wait()


def test_version_is_printed():
    done = subprocess.run(
        [sys.executable, ROOT / "watchdog_app.py", "--version"], capture_output=True, text=True, timeout=DEADLINE
    )
    assert (done.returncode, done.stdout) == (0, "watchdog_app 0.1.0\n")


def test_call_during_the_import_waits_and_succeeds(function, gate):
    with process(function(f"{gate.wait}\ndef handle(event, context): return 'late'")) as program:
        gate.reached()
        with connect(program.port) as sock:
            sock.sendall(GET)
            gate.open()
            assert next_answer(sock).body == b"late"


def next_answer(sock):
    return read_answer(sock.recv(65536))[0]


def connected(port):
    try:
        return connect(port)
    except ConnectionRefusedError:
        return None


def test_sigterm_during_the_import_serves_what_waits_and_exits_0(function, gate, with_lock):
    env, signalled = with_lock
    with process(function(f"{BRIEFLY}{gate.wait}\ndef handle(event, context): return 'late'"), **env) as program:
        gate.reached()
        with connect(program.port) as sock:
            sock.sendall(GET)
            program.popen.send_signal(signal.SIGTERM)
            signalled()
            gate.open()
            assert read_answer(read_all(sock))[0].body == b"late"
        assert program.end()[0] == 0


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param([[signal.SIGTERM]], id="SIGTERM"),
        pytest.param(
            [[signal.SIGTERM, signal.SIGINT]], id="two at once"
        ),  # as to a process group, directly and by of-watchdog
        pytest.param([[signal.SIGTERM], [signal.SIGINT]], id="two, one after the other"),
    ],
)
def test_a_signal_alone_finishes_the_call_in_flight(signals, function, gate, with_lock):
    env, signalled = with_lock
    source = f"{BRIEFLY}def handle(event, context):\n    {gate.wait}\n    return 'done'"
    with process(function(source), **env) as program:
        with wait_for(lambda: connected(program.port), "the listener") as sock:
            sock.sendall(GET)
            gate.reached()
            for together in signals:
                send_at_once(program.popen, together)
                signalled()
            wait_for(lambda: refuses(program.port), "the end of the listener")
            gate.open()
            answer = read_answer(read_all(sock))[0]
        assert (answer.body, answer.closes) == (b"done", True)
        assert program.end()[0] == 0


def refuses(port):
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return True
    return False


def send_at_once(popen, numbers):
    """Send signals, all of which are there before the process handles one."""
    popen.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, popen.pid, os.WSTOPPED)
    for number in (*numbers, signal.SIGCONT):
        popen.send_signal(number)


def test_connection_made_after_sigterm_is_served_and_closed(function, with_lock):
    env, signalled = with_lock
    with process(function("def handle(event, context): return 'x'"), **env) as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(signal.SIGTERM)
        signalled()
        wait_for(lambda: closing_answer(program), "an answer that closes its connection")
        assert program.end()[0] == 0


def closing_answer(program):
    """Make one call; tell whether its answer closes the connection, as those do once the signal has been handled to its end."""
    with connect(program.port) as sock:
        answer = ask(sock)
        assert answer.body == b"x"
        return answer.closes and sock.recv(1) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_connection_does_not_delay_the_exit(number, function):
    with process(function(f"{BRIEFLY}def handle(event, context): return 'x'")) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as sock:
            ask(sock)
            began = time.monotonic()
            program.popen.send_signal(number)
            assert program.end()[0] == 0
            assert time.monotonic() - began < 1.0


def test_call_stuck_beyond_write_timeout_is_given_up_with_status_0(function, gate):
    with process(function(f"{BRIEFLY}def handle(event, context):\n    {gate.wait}"), write_timeout="0.3s") as program:
        with wait_for(lambda: connected(program.port), "the listener") as sock:
            sock.sendall(GET)
            gate.reached()
            program.popen.send_signal(signal.SIGTERM)
            assert program.end()[0] == 0


def test_second_signal_ends_at_once(function, gate, with_lock):
    env, signalled = with_lock
    with process(function(f"def handle(event, context):\n    {gate.wait}"), **env) as program:
        with wait_for(lambda: connected(program.port), "the listener") as sock:
            sock.sendall(GET)
            gate.reached()
            program.popen.send_signal(signal.SIGTERM)
            signalled()
            pause(watchdog_app.TOGETHER)  # within which one signal may come twice
            program.popen.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert program.end()[0] == 0
            assert time.monotonic() - began < 1


TO_ANOTHER_THREAD = """
import os, signal, threading, time
{briefly}

def take_signal():
    while not os.path.exists({go!r}):
        time.sleep(0.01)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=take_signal, daemon=True).start()
{startup}
def handle(event, context):
    return "x"
"""


def test_signal_that_another_thread_gets_stops_an_idle_program(function, tmp_path):
    with process(function(TO_ANOTHER_THREAD.format(briefly=BRIEFLY, go=str(tmp_path / "go"), startup=""))) as program:
        wait_for(program.answers, "an answer")
        wait_for(lambda: is_asleep(program.popen.pid), "the main thread's rest")
        (tmp_path / "go").touch()
        assert program.end()[0] == 0


def is_asleep(pid):
    """Tell whether the main thread of a process is not woken for a while."""

    def switches():
        return Path(f"/proc/{pid}/task/{pid}/status").read_text().partition("voluntary_ctxt_switches:")[2].split()[0]

    before = switches()
    pause(0.02)
    return switches() == before


def test_signal_ends_in_time_a_startup_that_never_returns(function, tmp_path):
    startup = "def startup(context):\n    time.sleep(1000)\n"
    source = TO_ANOTHER_THREAD.format(briefly=BRIEFLY, go=str(tmp_path / "go"), startup=startup)
    with process(function(source), write_timeout="0.2s") as program:
        wait_for(lambda: connected(program.port), "the listener").close()
        (tmp_path / "go").touch()
        assert program.end()[0] == 0


def test_lock_file_is_written_with_suppress_lock_and_removed_at_the_end(function, tmp_path):
    with process(
        function("def handle(event, context): return 'x'"), suppress_lock="true", TMPDIR=str(tmp_path)
    ) as program:
        wait_for(program.answers, "an answer")
        assert (tmp_path / ".lock").exists()
        program.popen.send_signal(signal.SIGINT)
        assert program.end()[0] == 0
    assert not (tmp_path / ".lock").exists()


def test_lock_file_is_the_watchdogs_without_suppress_lock(function, tmp_path):
    with process(function("def handle(event, context): return 'x'"), TMPDIR=str(tmp_path)) as program:
        wait_for(program.answers, "an answer")
        assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(("ready_on", "during_startup"), [("listen", b"true"), ("startup", b"false")])
def test_lock_file_is_there_once_it_listens_or_after_startup(ready_on, during_startup, function, tmp_path):
    source = f"from os.path import exists\nSEEN = []\ndef startup(context): SEEN.append(exists({str(tmp_path / '.lock')!r}))\n"
    source += f"def handle(event, context): return [SEEN[0], exists({str(tmp_path / '.lock')!r})]\n"
    with process(function(source), suppress_lock="true", ready_on=ready_on, TMPDIR=str(tmp_path)) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as sock:
            assert ask(sock).body == b"[%b,true]" % during_startup


def test_lock_file_that_cannot_be_written_is_one_warning(function, tmp_path):
    missing = str(tmp_path / "missing")
    with process(function("def handle(event, context): return 'x'"), suppress_lock="true", TMPDIR=missing) as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(signal.SIGINT)
        status, log = program.end()
    assert status == 0
    assert log.count(f"WARNING cannot write the lock file {missing}/.lock: No such file or directory; ") == 1
    assert "mount" in log


def test_lock_file_is_removed_when_the_import_fails(function, tmp_path):
    with process(function("1 / 0"), suppress_lock="true", TMPDIR=str(tmp_path)) as program:
        assert program.end()[0] == 1
    assert not (tmp_path / ".lock").exists()


def test_function_imports_the_running_module_not_a_copy(function):
    text = "import sys, watchdog_app\ndef handle(event, context): return str(watchdog_app is sys.modules['__main__'])"
    with process(function(text)) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as sock:
            assert ask(sock).body == b"True"


def test_exit_handlers_of_the_function_run_and_its_output_is_written(function):
    text = "import atexit, sys\natexit.register(lambda: sys.stdout.write('goodbye'))\ndef handle(event, context): return 'x'"
    with process(function(text)) as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(signal.SIGINT)
        out, _ = program.popen.communicate(timeout=DEADLINE)
    assert out == b"goodbye"


def test_function_may_call_sys_exit_in_a_call(function):
    with process(function("import sys\ndef handle(event, context): sys.exit(3)")) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as sock:
            assert ask(sock).status == 500
            assert ask(sock).status == 500


def test_function_that_closes_all_descriptors_ends_the_program_with_status_1(function):
    with process(function("import os\ndef handle(event, context): os.closerange(3, 64)")) as program:
        with wait_for(lambda: connected(program.port), "the listener") as sock:
            sock.sendall(GET)
            status, log = program.end()
    assert status == 1
    assert "ERROR the server cannot go on: " in log


OWN_SIGNAL = """
import signal, time
{briefly}

def own(number, frame):
    print("own handler", flush=True)

{imported}
def startup(context):
    {started}

def handle(event, context):
    print("called", flush=True)
    time.sleep(0.3)
    return "x"
"""


@pytest.mark.parametrize(
    ("imported", "started", "number"),
    [
        pytest.param("signal.signal(signal.SIGTERM, own)", "pass", signal.SIGTERM, id="import"),
        pytest.param("", "signal.signal(signal.SIGINT, own)", signal.SIGINT, id="startup"),
        pytest.param("signal.set_wakeup_fd(-1)", "pass", None, id="way of the signals alone"),
    ],
)
def test_signal_that_the_function_handles_is_one_warning_and_calls_are_finished(imported, started, number, function):
    with process(function(OWN_SIGNAL.format(briefly=BRIEFLY, imported=imported, started=started))) as program:
        with wait_for(lambda: connected(program.port), "the listener") as sock:
            sock.sendall(GET)
            assert program.popen.stdout.readline() == b"called\n"
            program.popen.send_signal(number or signal.SIGTERM)
            assert read_answer(read_all(sock))[0].body == b"x"
        out, log = program.popen.communicate(timeout=DEADLINE)
    assert (program.popen.returncode, out) == (0, b"own handler\n" if number else b"")
    warning = b"WARNING the function handles %s itself: calls in flight are lost" % (
        number.name.encode() if number else b""
    )
    assert (log.count(warning), log.count(b"WARNING")) == (bool(number), bool(number))


def test_network_that_is_up_is_not_called_lost():
    assert not watchdog_app.is_cut_off()


class Left(Exception):
    """The process would have ended."""


@pytest.fixture
def steps(monkeypatch):
    """What happens, in order, when the process is left; it stays."""
    happened = []

    def end(status):
        happened.append(status)
        raise Left

    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr("atexit._run_exitfuncs", lambda: happened.append("exit handlers"))
    monkeypatch.setattr(watchdog_app, "sleep", lambda seconds: happened.append(seconds))
    monkeypatch.setattr(watchdog_app, "start_new_thread", lambda function, arguments: happened.append(arguments))
    return happened


class Stream:
    """A stream that notes that it was written out, and fails."""

    def __init__(self, happened):
        self.happened = happened

    def flush(self):
        self.happened.append("written out")
        raise ValueError("closed")


@pytest.mark.parametrize("status", [0, 1])
def test_process_is_left_after_its_exit_handlers_and_with_its_output_written(status, steps, monkeypatch):
    monkeypatch.setattr("sys.stdout", Stream(steps))
    with pytest.raises(Left):
        watchdog_app.leave(status)
    assert steps == [
        (watchdog_app.LATE, status),
        "exit handlers",
        "written out",
        watchdog_app.LAST_WORDS,
        "written out",
        status,
    ]


def test_process_is_left_later_with_its_output_written(steps, monkeypatch):
    monkeypatch.setattr("sys.stdout", Stream(steps))
    with pytest.raises(Left):
        watchdog_app.leave_after(float("inf"), 0)
    assert steps == [threading.TIMEOUT_MAX, "written out", 0]


def test_import_of_the_module_loads_nothing_that_start_up_does_not_need():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import watchdog_app; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code, str(ROOT)], capture_output=True, text=True, timeout=DEADLINE
    )
    assert FORBIDDEN_AT_START & set(done.stdout.split()) == set()
    assert "wsgiref.handlers" in done.stdout.split()


def test_start_of_the_program_loads_no_more(function):
    text = "import sys\nseen = list(sys.modules)\ndef handle(event, context): return ' '.join(seen)"
    with process(function(text), "-S") as program:  # nothing that an environment adds by itself
        wait_for(program.answers, "an answer")
        with connect(program.port) as sock:
            loaded = set(ask(sock).text.split())
    assert loaded & {*FORBIDDEN_AT_START, "json", "traceback"} == set()
