"""Faults of the peer, of the function and of the system: the server goes on where it can, and ends with status 1 where it cannot."""

import contextlib
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import (
    BRIEFLY,
    DEADLINE,
    pause,
    process,
    read_all,
    read_answer,
    read_answers,
    serving,
    serving_application,
    wait_for,
)
from test_lifecycle import connect, connected
from test_server import clocked, wakeups, wakeups_within
from test_watchdog import REAL, behind, first_child, is_running, write_function

import watchdog_app

GET = b"GET /get HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /post HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /chunked HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
REQUESTS = [pytest.param(GET, id="GET"), pytest.param(POST, id="POST"), pytest.param(CHUNKED, id="chunked POST")]


def reset(sock):
    """Close with a reset, as a peer that has crashed does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def receive(sock, size):
    """Receive exactly so many bytes."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"closed after {data!r}"
        data += piece
    return data


def freed(server):
    """Wait until the server holds no connection, and has answered once more."""
    assert server.get("/after").status == 200
    wait_for(lambda: not server.server.connections, "the end of all connections")


# ---- the peer goes away ----


@pytest.mark.parametrize("raw", REQUESTS)
def test_reset_at_each_byte_of_a_request_calls_nothing_and_leaves_nothing(raw, log):
    calls = []
    with serving(lambda event, context: calls.append(event.path)) as server:
        for size in range(len(raw)):
            sock = server.connect()
            sock.sendall(raw[:size])
            reset(sock)
        wait_for(lambda: not server.server.connections, "the end of all connections")
        assert calls == []
        assert server.get("/after").status == 204
    assert log.getvalue() == ""


@pytest.mark.parametrize("raw", REQUESTS)
def test_end_at_each_byte_of_a_request_is_a_400_and_calls_nothing(raw, log):
    calls = []
    with serving(lambda event, context: calls.append(event.path)) as server:
        for size in range(1, len(raw)):
            (answer,) = read_answers(server.talk(raw[:size]))
            assert (size, answer.status, answer.closes) == (size, 400, True)
        assert server.talk(b"\r\n") == server.talk(b"\r\n\r\n") == b""  # nothing was asked
        assert calls == []
        wait_for(lambda: not server.server.connections, "the end of all connections")
    assert log.getvalue() == ""


class Streams:
    """A function that streams, and counts its generators."""

    def __init__(self, item, items):
        self.item, self.items = item, items
        self.begun = self.ended = 0

    def __call__(self, event, context):
        if event.path == "/after":
            return "x"
        return self.stream()

    def stream(self):
        self.begun += 1
        try:
            for _ in range(self.items):
                yield self.item
        finally:
            self.ended += 1


def whole_answer(server):
    """Return the bytes of a whole response; each has as many."""
    with server.connect() as sock:
        sock.sendall(GET)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


@pytest.mark.parametrize("raw", REQUESTS)
def test_reset_at_each_byte_of_a_small_answer_leaves_nothing(raw, log):
    with serving(lambda event, context: event.path) as server:
        for size in range(len(server.talk(raw))):
            sock = server.connect()
            sock.sendall(raw)
            receive(sock, size)
            reset(sock)
        freed(server)
    assert log.getvalue() == ""


def test_reset_at_each_byte_of_a_stream_closes_its_generator(log):
    function = Streams(b"item", 5)
    with serving(lambda event, context: function(event, context)) as server:
        for size in range(len(whole_answer(server))):
            sock = server.connect()
            sock.sendall(GET)
            receive(sock, size)
            reset(sock)
        freed(server)
        wait_for(lambda: function.ended == function.begun, "the end of all generators")
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda event, context: b"x" * (4 << 20) if event.path != "/after" else "x", id="whole"),
        pytest.param(Streams(b"x" * 65536, 64), id="stream"),
    ],
)
@pytest.mark.parametrize("small_window", [False, True], ids=["wide", "narrow"])
def test_reset_within_a_large_answer_leaves_nothing(function, small_window, log):
    with serving(lambda event, context: function(event, context)) as server:
        for size in [
            *range(0, 1000, 50),
            *range(1000, 20_000 if small_window else 3_500_000, 5000 if small_window else 250_000),
        ]:
            sock = server.connect()
            if small_window:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(GET)
            receive(sock, size)
            reset(sock)
        freed(server)
        if isinstance(function, Streams):
            wait_for(lambda: function.ended == function.begun, "the end of all generators")
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda event, context: "small", id="small"),
        pytest.param(Streams(b"item", 5), id="stream"),
        pytest.param(Streams(b"x" * 65536, 40), id="large stream"),
    ],
)
def test_half_close_at_each_byte_of_an_answer_cuts_nothing(function, log):
    with serving(lambda event, context: function(event, context)) as server:
        whole = read_answer(whole_answer(server))[0].body
        for size in range(0, 230, 1 if len(whole) < 1000 else 10):
            with server.connect() as sock:
                sock.sendall(GET)
                start = receive(sock, size) if size < 100 + len(whole) else b""
                sock.shutdown(socket.SHUT_WR)
                answer, rest = read_answer(start + read_all(sock))
                assert (answer.body, rest) == (whole, b"")
        wait_for(lambda: not server.server.connections, "the end of all connections")
    assert log.getvalue() == ""


# ---- the function raises ----


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def recurse():
    return recurse()


def raising(error):
    def function():
        raise error

    return function


RAISES = [
    *[
        pytest.param(raising(error), error.__name__, id=error.__name__)
        for error in (BaseException, KeyboardInterrupt, GeneratorExit, StopIteration)
    ],
    pytest.param(recurse, "RecursionError", id="RecursionError"),
    pytest.param(lambda: bytearray(1 << 62), "MemoryError", id="MemoryError"),
    pytest.param(lambda: sys.exit(0), "SystemExit: 0", id="sys.exit"),
    pytest.param(raising(Unprintable), "Unprintable: <exception str() failed>", id="exception that cannot be printed"),
    pytest.param(raising(BrokenPipeError), "BrokenPipeError", id="BrokenPipeError"),
    pytest.param(raising(watchdog_app.Disconnected), "Disconnected", id="an exception of the server's own"),
    pytest.param(
        raising(BaseExceptionGroup("several", [SystemExit(), ValueError()])), "BaseExceptionGroup: several", id="group"
    ),
]


@pytest.mark.parametrize(("fail", "name"), RAISES)
def test_call_that_raises_anything_is_a_500_one_record_and_costs_nothing_else(fail, name, log):
    with serving(lambda event, context: fail() if event.path == "/get" else "x") as server:
        answers = read_answers(server.talk(GET + GET + GET.replace(b"/get", b"/other")))
        assert [answer.status for answer in answers] == [500, 500, 200]
    text = log.getvalue()
    assert (
        text.count("ERROR call") == len(re.findall(rf"^[ +|]+(?:[a-z_]+\.)?{re.escape(name)}", text, re.MULTILINE)) == 2
    )


@pytest.mark.parametrize(("fail", "name"), RAISES)
def test_stream_that_raises_anything_after_its_first_item_is_cut_and_logged_once(fail, name, log):
    def stream():
        yield "first"
        yield fail()

    with serving(lambda event, context: stream() if event.path == "/get" else "x") as server:
        data = server.talk(GET)
        assert data.endswith(b"first\r\n")
        assert server.get("/after").status == 200
        wait_for(lambda: not server.server.connections, "the end of all connections")
    assert name in log.getvalue()
    assert log.getvalue().count("ERROR") == 1


# ---- the function ends, forks, takes all there is: in a process of its own ----

SERVER = """
import gc, os
def server(found=[]):  # the first call takes long, and so is not in place
    if not found:
        found.append(next(o for o in gc.get_objects() if type(o).__name__ == "Server"))
    return found[0]
"""


def program_of(tmp_path, text, **env):
    return process(write_function(tmp_path, text), **env)


def get(program, path="/", sock=None):
    """Make one call, on a connection of its own; return the answer."""
    raw = f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()
    with sock or connect(program.port) as sock:
        sock.sendall(raw)
        return read_answer(read_all(sock))[0]


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def end_well(program):
    """Stop the program; return what it logged, without the lines of its start."""
    program.popen.send_signal(signal.SIGINT)
    status, log = program.end()
    assert status == 0
    return log.partition("curl -d World")[2].partition("\n")[2]


BLOCKING = "import time\ntime.sleep(0.01)\n"  # calls that are expected to block leave the lead, and run apart


def make_slow(program):
    for _ in range(10):
        get(program)


@pytest.fixture(params=["in place", "apart"])
def pace(request):
    """What a call does first, and what makes the server expect that."""
    return (
        ("", lambda program: None)
        if request.param == "in place"
        else ("    __import__('time').sleep(0.01)\n", make_slow)
    )


def test_exit_of_the_process_in_a_call_is_its_status(tmp_path):
    with program_of(
        tmp_path, "import os\ndef handle(event, context):\n    if event.path == '/exit': os._exit(3)\n    return 'x'"
    ) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as sock:
            sock.sendall(b"GET /exit HTTP/1.1\r\nHost: test\r\n\r\n")
            assert read_all(sock) == b""
        assert program.end()[0] == 3


def test_exit_of_the_process_in_a_call_ends_the_watchdog(tmp_path):
    function = write_function(
        tmp_path, "import os\ndef handle(event, context):\n    if event.path == '/exit': os._exit(3)\n    return 'x'"
    )
    with behind("real" if REAL else "stand-in", function, tmp_path) as watchdog:
        with contextlib.suppress(OSError, watchdog_exceptions()):
            watchdog.call(target="/exit")
        assert watchdog.popen.wait(DEADLINE) != 0


def watchdog_exceptions():
    from http.client import HTTPException

    return HTTPException


FORKS = """    if event.path != '/fork':
        return str(os.getpid())
    pid = os.fork()
    if pid == 0:
        {child}
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
FORK = "import os\ndef handle(event, context):\n{pace}" + FORKS


@pytest.mark.parametrize(
    ("child", "status", "says"),
    [
        pytest.param("os._exit(7)", b"7", "", id="ends"),
        pytest.param("os.execv('/bin/sh', ['sh', '-c', 'exit 7'])", b"7", "", id="runs another program"),
        pytest.param("return 'twice'", b"1", "returned in a process that it forked", id="returns"),
        pytest.param("raise SystemExit", b"1", "returned in a process that it forked", id="raises"),
        pytest.param("return iter(['twice', 'twice'])", b"1", "returned in a process that it forked", id="streams"),
    ],
)
def test_fork_in_a_call_answers_once_and_its_child_serves_nobody(child, status, says, pace, tmp_path):
    wait, prepare = pace
    with program_of(tmp_path, FORK.format(pace=wait, child=child)) as program:
        wait_for(program.answers, "an answer")
        prepare(program)
        expect_one_answer(program, status)
        assert says in end_well(program)


def expect_one_answer(program, status):
    """Make a call that forks, and see that it is the parent that answers it, and all calls after it."""
    assert get(program, "/fork").body == status
    assert {get(program).text for _ in range(10)} == {str(program.popen.pid)}


AWAITED_FORK = """
import asyncio, os
OPEN, END = asyncio.Event(), asyncio.Event()
async def handle(event, context):
    if event.path == '/open':
        OPEN.set()
        await END.wait()
        return 'late'
    if event.path == '/end':
        END.set()
    if event.path == '/fork':
        await OPEN.wait()
    await asyncio.sleep(0.01)
"""
AWAITED_FORK += FORKS


@pytest.mark.parametrize(
    ("child", "status", "says"),
    [
        pytest.param("os._exit(7)", b"7", "", id="ends"),
        pytest.param("return 'twice'", b"1", "the event loop has stopped", id="returns"),
        pytest.param("await asyncio.sleep(0); os._exit(7)", b"1", "the event loop has stopped", id="awaits"),
        pytest.param("raise SystemExit", b"1", "the event loop has stopped", id="raises"),
    ],
)
def test_fork_in_an_awaited_call_answers_once_and_costs_no_other_its_answer(child, status, says, tmp_path):
    with program_of(tmp_path, AWAITED_FORK.format(child=child)) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as other:
            other.sendall(b"GET /open HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            expect_one_answer(program, status)
            get(program, "/end")
            assert read_answer(read_all(other))[0].text == "late"
        assert says in end_well(program)


def test_child_that_is_forked_during_the_import_leaves_the_server_alone(tmp_path):
    text = "import os\npid = os.fork()\nif not pid:\n    os._exit(0)\nos.waitpid(pid, 0)\ndef handle(event, context): return 'x'"
    with program_of(tmp_path, text) as program:
        wait_for(program.answers, "an answer")
        assert end_well(program) == ""


def test_child_that_was_forked_holds_no_connection_open(gate, tmp_path):
    text = f"""
import os
def handle(event, context):
    if event.path == '/fork' and os.fork() == 0:
        {gate.wait}
        os._exit(0)
    return 'x'
"""
    with program_of(tmp_path, text) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as other:
            assert get(program, "/fork").body == b"x"  # accepted in order: by now the other one is the server's
            gate.reached()
            program.popen.send_signal(signal.SIGINT)
            assert read_all(other) == b""
            assert program.popen.wait(DEADLINE) == 0
        with pytest.raises(ConnectionRefusedError):
            connect(program.port)
        gate.open()  # until here the child was there


@pytest.mark.parametrize(
    ("work", "result"),
    [
        pytest.param("subprocess.run(['sh', '-c', 'exit 7']).returncode", b"7", id="subprocess"),
        pytest.param(
            "subprocess.run(['sh', '-c', 'kill -TERM $$; sleep 5']).returncode", b"-15", id="subprocess that is stopped"
        ),
        pytest.param("run('spawn', sys.exit, 7)", b"7", id="spawn"),
        pytest.param("run('fork', sys.exit, 7)", b"7", id="fork"),
        pytest.param("run('fork', time.sleep, 60, stop=True)", b"-15", id="fork that is stopped"),
    ],
)
def test_processes_of_the_function_end_as_it_wants(work, result, tmp_path):
    text = f"""
import multiprocessing, subprocess, sys, time
def run(method, target, argument, stop=False):
    child = multiprocessing.get_context(method).Process(target=target, args=(argument,))
    child.start()
    if stop:
        child.terminate()
    child.join(5)
    return child.exitcode
def handle(event, context):
    return str({work}) if event.path == '/work' else 'x'
"""
    with program_of(tmp_path, text, suppress_lock="true", TMPDIR=str(tmp_path)) as program:
        wait_for(program.answers, "an answer")
        assert get(program, "/work").body == result
        assert get(program).body == b"x"
        assert (tmp_path / ".lock").exists()


def test_calls_that_never_return_hold_up_nobody_and_end_with_the_process(tmp_path):
    text = (
        BRIEFLY
        + """
import threading, time
def handle(event, context):
    if event.path == '/loop':
        while True: pass
    if event.path == '/block':
        threading.Lock().acquire() and (lock := threading.Lock()).acquire() and lock.acquire()
    return 'x'
"""
    )
    with program_of(tmp_path, text, write_timeout="0.5s") as program, contextlib.ExitStack() as stack:
        wait_for(program.answers, "an answer")
        for path in (b"/loop", b"/block", b"/block"):
            stack.enter_context(connect(program.port)).sendall(b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % path)
        assert [get(program).body for _ in range(20)] == [b"x"] * 20
        program.popen.send_signal(signal.SIGTERM)
        assert program.end()[0] == 0


def test_call_that_takes_too_much_memory_is_a_500_and_the_next_is_served(tmp_path):
    text = """
import resource
size = int(open('/proc/self/statm').read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20), -1))
def handle(event, context):
    if event.path == '/all':
        return ''.join(['x' * (1 << 20) for _ in range(1000)])
    return 'x'
"""
    with program_of(tmp_path, text) as program:
        wait_for(program.answers, "an answer")
        assert [get(program, path).status for path in ("/all", "/", "/all", "/")] == [500, 200, 500, 200]
        log = end_well(program)
    assert log.count("MemoryError") == log.count("ERROR") == 2


def test_stop_without_room_for_another_thread_finishes_the_call_in_flight(gate, tmp_path):
    text = f"""
import resource
def handle(event, context):
    if event.path == '/slow':
        size = int(open('/proc/self/statm').read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), -1))
        {gate.wait}
    return 'x'
"""
    with program_of(tmp_path, text, suppress_lock="true", TMPDIR=str(tmp_path)) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as sock:
            sock.sendall(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
            gate.reached()
            program.popen.send_signal(signal.SIGINT)
            wait_for(lambda: not (tmp_path / ".lock").exists(), "the lock file's end")
            gate.open()
            assert read_answer(read_all(sock))[0].body == b"x"
        assert program.end()[0] == 0


# ---- descriptors: none left, or the wrong one closed ----

FEW = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\ndef handle(event, context): return 'x'"


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_accept_without_descriptors_waits_without_spinning_and_recovers(tmp_path):
    with program_of(tmp_path, FEW) as program, contextlib.ExitStack() as stack:
        wait_for(program.answers, "an answer")
        socks = [stack.enter_context(connect(program.port)) for _ in range(50)]
        wait_for(lambda: len(os.listdir(f"/proc/{program.popen.pid}/fd")) == 30, "the last descriptor")
        wait_for(lambda: wakeups_within(0.1, program.popen.pid) <= 8, "the rest of the monitor")
        before, woken = processor_seconds(program.popen.pid), wakeups(program.popen.pid)
        assert get(program, sock=socks.pop(0)).body == b"x"  # accepted early
        pause(1)  # what is measured
        assert processor_seconds(program.popen.pid) - before <= 0.1
        assert wakeups(program.popen.pid) - woken <= 80  # 20 tries to accept in a second, and one call
        for sock in socks:
            assert get(program, sock=sock).body == b"x"
        log = end_well(program)
    assert log.count("\n") == log.count("WARNING accept failed") == 1


def test_stop_without_descriptors_loses_no_call_that_waits(tmp_path):
    with program_of(tmp_path, FEW) as program, contextlib.ExitStack() as stack:
        wait_for(program.answers, "an answer")
        socks = [stack.enter_context(connect(program.port)) for _ in range(50)]
        for sock in socks[30:]:
            sock.sendall(GET)
        wait_for(lambda: len(os.listdir(f"/proc/{program.popen.pid}/fd")) == 30, "the last descriptor")
        program.popen.send_signal(signal.SIGTERM)
        assert [read_answer(read_all(sock))[0].body for sock in socks[30:]] == [b"x"] * 20
        assert program.end()[0] == 0


@pytest.mark.parametrize(
    "what",
    ["server().listener.fileno()", "server().epoll.fileno()", "server().waker"],
    ids=["listener", "selector", "waker"],
)
@pytest.mark.parametrize("then", ["", "; os.open('/dev/null', 0)"], ids=["closed", "taken by another file"])
def test_function_that_closes_what_the_server_needs_ends_it_with_status_1(what, then, pace, tmp_path):
    wait, prepare = pace
    text = f"{SERVER}\ndef handle(event, context):\n    server()\n{wait}    if event.path == '/close': os.close({what}){then}\n    return 'x'"
    with program_of(tmp_path, text) as program:
        wait_for(program.answers, "an answer")
        prepare(program)
        with contextlib.suppress(AssertionError, OSError):  # it may be answered
            get(program, "/close")
        status, log = program.end()
    assert status == 1
    assert "the server cannot go on: the function has closed a descriptor that is not its own" in log


def test_listener_that_is_closed_is_missed_also_while_calls_go_on(tmp_path):
    text = f"{SERVER}\ndef handle(event, context):\n    server()\n    if event.path == '/close': os.close(server().listener.fileno())\n    return 'x'"
    with program_of(tmp_path, text) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as sock, contextlib.suppress(OSError):
            sock.sendall(GET.replace(b"/get", b"/close"))
            end = time.monotonic() + DEADLINE
            while sock.recv(65536):  # so that the monitor never rests
                assert time.monotonic() < end
                sock.sendall(GET)
        assert program.end()[0] == 1


def test_function_that_closes_all_descriptors_ends_the_process_with_status_1(tmp_path):
    with program_of(
        tmp_path,
        "import os\ndef handle(event, context):\n    if event.path == '/close': os.closerange(3, 999)\n    return 'x'",
    ) as program:
        wait_for(program.answers, "an answer")
        with contextlib.suppress(AssertionError, OSError):
            get(program, "/close")
        status, log = program.end()
    assert status == 1
    assert "the function has closed a descriptor that is not its own" in log


def test_function_that_closes_connections_ends_the_process_before_a_later_one_gets_a_wrong_response(pace, tmp_path):
    wait, prepare = pace
    close = "if event.path == '/close': [os.close(fd) for fd in server().connections]"
    text = f"{SERVER}\ndef handle(event, context):\n    server()\n{wait}    {close}\n    return 'x'"
    with program_of(tmp_path, text) as program:
        wait_for(program.answers, "an answer")
        prepare(program)
        with connect(program.port) as idle, connect(program.port) as own:
            wait_for(lambda: len(os.listdir(f"/proc/{program.popen.pid}/fd")) >= 8, "the connections")
            own.sendall(b"GET /close HTTP/1.1\r\nHost: test\r\n\r\n")
            assert read_all(own) == read_all(idle) == b""
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                for _ in range(10):  # of which one gets the number of a connection that the server has
                    stack.enter_context(connect(program.port)).sendall(GET)
            status, log = program.end()
    assert (status, "the function has closed a descriptor that is not its own" in log) == (1, True)


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_function_that_closes_a_standard_descriptor_prints_to_no_caller(closed, tmp_path):
    text = f"""
import os, sys
def handle(event, context):
    if event.path == '/close':
        os.close({closed})
    elif event.path == '/print':
        os.write(1, b'printed'), os.write(2, b'printed'), print('printed'), print('printed', file=sys.stderr)
    return 'x'
"""
    with program_of(tmp_path, text) as program:
        wait_for(program.answers, "an answer")
        with connect(program.port) as sock:
            for path in (b"/close", b"/get"):
                sock.sendall(GET.replace(b"/get", path))
                assert read_answer(sock.recv(65536))[0].body == b"x"
            with connect(program.port) as later, contextlib.suppress(OSError):  # which would get the number
                later.sendall(GET.replace(b"/get", b"/print"))
                assert read_all(later) == b""
        status, log = program.end()
    assert status == 1
    assert closed == 2 or "the function has closed a descriptor that is not its own" in log


# ---- clocks ----


def test_date_follows_the_wall_clock_wherever_it_jumps(monkeypatch):
    now = [1_000_000_000.0]
    monkeypatch.setattr(watchdog_app, "time", lambda: now[0])
    with serving_application(lambda environ, start_response: start_response("200 OK", []) and []) as server:
        for second, text in [(0, "01:46:40"), (7200, "03:46:40"), (-7200, "23:46:40"), (1, "01:46:41")]:
            now[0] = 1_000_000_000.0 + second
            assert text in server.get().header("Date")


def test_jump_of_the_clock_by_hours_serves_what_has_come_and_ends_what_is_overdue():
    gate, entered = threading.Event(), threading.Event()

    def function(event, context):
        if event.path == "/wait":
            entered.set()
            gate.wait(DEADLINE)
        return event.path

    with (
        clocked(function) as (clock, server),
        server.connect() as waiting,
        server.connect() as half,
        server.connect() as idle,
    ):
        waiting.sendall(GET.replace(b"/get", b"/wait"))
        assert entered.wait(DEADLINE)
        clock.now += 1  # after which the call is stuck, and another thread leads
        half.sendall(GET[:10])
        wait_for(lambda: sum(c.state == "head" for c in server.server.connections.values()) == 1, "half a head")
        clock.advance(server, 10_000)
        assert read_answer(read_all(half))[0].status == 408
        assert read_all(idle) == b""
        assert server.get("/after").body == b"/after"
        gate.set()
        waiting.shutdown(socket.SHUT_WR)
        assert read_answer(read_all(waiting))[0].body == b"/wait"


# ---- signals, and the death of the watchdog, at any moment ----

EARLY_STOP = """
import importlib.machinery, os, signal, sys
os.kill(os.getpid(), signal.SIGTERM)
sys.path.remove(os.path.dirname(__file__))
del sys.modules["wsgiref"]
import wsgiref
sys.modules["wsgiref"] = wsgiref
"""


def test_sigterm_during_the_imports_of_the_module_itself_ends_with_status_0(tmp_path):
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "wsgiref.py").write_text(EARLY_STOP)
    with program_of(tmp_path, "def handle(event, context): return 'x'", PYTHONPATH=str(tmp_path / "early")) as program:
        assert program.end()[0] == 0


def takes_sigterm(pid):
    """Tell whether the process blocks or handles SIGTERM now; the C library blocks all signals for moments of its own."""
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    blocked, handled = int(fields["SigBlk"], 16), int(fields["SigCgt"], 16)
    return bool((handled if blocked & bit(signal.SIGUSR1) else handled | blocked) & bit(signal.SIGTERM))


def bit(number):
    return 1 << (number - 1)


SLOW_START = "import time\ntime.sleep(0.05)\ndef handle(event, context):\n    time.sleep(0.02)\n    return 'x'\n"
MOMENTS = [
    0.005 * step for step in range(30)
]  # seconds, from the first at which it takes SIGTERM to the time when it has answered


@pytest.mark.slow
def test_sigterm_at_any_moment_ends_the_process_with_status_0(tmp_path):
    with ThreadPoolExecutor(5) as pool:  # each takes a second, in which the server still accepts
        list(pool.map(lambda moment: stop_at(moment, tmp_path / f"{moment:.3f}"), MOMENTS))


def stop_at(moment, folder):
    """Stop the program at this moment of its life; a call that it has accepted is answered."""
    folder.mkdir()
    with program_of(folder, SLOW_START, suppress_lock="true", TMPDIR=str(folder), write_timeout="2s") as program:
        wait_for(lambda: takes_sigterm(program.popen.pid), "the first moment")
        pause(moment)
        sock = connected(program.port)
        if sock:
            sock.sendall(GET)
        program.popen.send_signal(signal.SIGTERM)
        with sock or contextlib.nullcontext():
            assert sock is None or read_answer(read_all(sock))[0].body == b"x"
        assert (moment, program.end()[0]) == (moment, 0)
        assert not (folder / ".lock").exists()


def test_sigterm_is_taken_before_the_imports_that_take_time(tmp_path):
    with process(write_function(tmp_path, SLOW_START), "-v") as program:  # which names each module as it is imported
        assert any(b"/wsgiref/" in line for line in program.popen.stderr), "wsgiref is imported"
        assert takes_sigterm(program.popen.pid)


@pytest.fixture(
    params=[
        pytest.param("stand-in"),
        pytest.param("real", marks=pytest.mark.skipif(not REAL, reason="fwatchdog is not on PATH")),
    ]
)
def kind(request):
    return request.param


def call_until(end, watchdog, results):
    """Call over and over until then; the first calls may come before the function listens."""
    while time.monotonic() < end:
        try:
            results.append(watchdog.call()[0])
        except OSError as error:
            results.append(repr(error))


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.15, 0.2, 0.3, 0.5])
def test_sigterm_to_the_watchdog_at_any_moment_of_the_start_loses_no_call(kind, delay, tmp_path):
    with behind(
        kind, write_function(tmp_path, SLOW_START), tmp_path, wait=False, healthcheck_interval="0.3s"
    ) as watchdog:
        wait_for(lambda: (tmp_path / ".lock").exists(), "the lock file")
        pause(delay - 0.15)
        results = []
        # A little less than healthcheck_interval: what comes just as of-watchdog ends its listener is lost by that, with any function
        caller = threading.Thread(target=call_until, args=(time.monotonic() + 0.25, watchdog, results))
        caller.start()
        watchdog.popen.send_signal(signal.SIGTERM)
        assert watchdog.popen.wait(DEADLINE) == 0
        caller.join(DEADLINE)
        assert set(results) == {200}
        wait_for(lambda: not (tmp_path / ".lock").exists(), "the lock file's end")


@pytest.mark.slow
@pytest.mark.parametrize("import_takes", ["0", "0.3"])
def test_child_of_a_watchdog_that_is_killed_at_any_moment_leaves(kind, import_takes, tmp_path):
    function = write_function(
        tmp_path, f"import time\ntime.sleep({import_takes})\ndef handle(event, context): time.sleep(1000)\n"
    )
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2):
        with behind(kind, function, tmp_path, wait=False) as watchdog:
            child = wait_for(lambda: first_child(watchdog), "the function's process")
            pause(delay)
            watchdog.popen.kill()
            watchdog.popen.wait()
            wait_for(lambda: not is_running(child), "the function's end")
            assert not (tmp_path / ".lock").exists()
