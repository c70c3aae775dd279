"""`context.after`: work that is done once the response has been sent."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import socket
import threading

import pytest
from conftest import (
    BRIEFLY,
    DEADLINE,
    call,
    connect_and_get,
    pause,
    process,
    read_all,
    read_answer,
    serving,
    serving_application,
    wait_for,
)
from test_hooks import in_flight
from test_watchdog import HAS_PROCESS_1, PROCESS_1, behind, connects, kind  # noqa: F401 (a fixture)
from test_wrap import application_of_its_own, generating, later_items

from watchdog_app import Application, Function, HTTPError, Settings, invoke

GET = b"GET / HTTP/1.1\r\nHost: test\r\nX-Call-Id: id-7\r\n\r\n"


def plain(event, context):
    return "x"


async def later(event, context):
    await asyncio.sleep(0)
    return "x"


def stream(event, context):
    yield "x"


def refuses(event, context):
    raise HTTPError(404)


def with_work(handle, work, *arguments):
    """Make `handle` give some work first."""
    if inspect.iscoroutinefunction(handle):

        async def awaited(event, context):
            context.after(work, *arguments)
            return await handle(event, context)

        return awaited

    def called(event, context):
        context.after(work, *arguments)
        return handle(event, context)

    return called


HANDLES = {
    "text": plain,
    "coroutine": later,
    "stream": stream,
    "async stream": later_items,
    "HTTPError": refuses,
    "WSGI application": lambda event, context: application_of_its_own,
    "nothing": lambda event, context: None,
    "large": lambda event, context: b"x" * 3_000_000,
}
handles = pytest.mark.parametrize("handle", [pytest.param(handle, id=name) for name, handle in HANDLES.items()])


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@handles
def test_work_is_done_once_for_each_call_and_the_connection_goes_on(handle, method, is_async, log):
    done = []

    async def note(*arguments):
        await asyncio.sleep(0)
        done.append(arguments)

    work = note if is_async else lambda *arguments: done.append(arguments)
    raw = GET.replace(b"GET", method.encode()) * 3
    with serving(with_work(handle, work, 1, "a")) as server, serving(handle) as other:
        data = server.talk(raw)
        assert [read_head(data)] == [read_head(other.talk(raw))]
        wait_for(lambda: len(done) == 3, "the work")
    assert done == [(1, "a")] * 3 and log.getvalue() == ""


def read_head(data):
    """Return responses without their dates."""
    return re.sub(rb"\r\nDate: [^\r]*", b"", data)


@pytest.mark.parametrize("wait", ["work", "work_later"])
def test_caller_gets_its_response_before_the_work_is_done(wait):
    goes_on, done = threading.Event(), threading.Event()

    def work():
        goes_on.wait(DEADLINE)
        done.set()

    async def work_later():
        await asyncio.to_thread(work)

    with serving(with_work(plain, locals()[wait])) as server:
        assert server.get().body == b"x"
        assert not done.is_set()
        goes_on.set()
        assert done.wait(DEADLINE)


def test_work_begins_only_after_the_last_item_of_a_stream():
    goes_on, begun = threading.Event(), threading.Event()

    def handle(event, context):
        context.after(begun.set)
        yield "a"
        goes_on.wait(DEADLINE)
        yield str(begun.is_set())

    with serving(handle) as server, server.connect() as sock:
        sock.sendall(GET)
        data = sock.recv(65536)
        goes_on.set()
        sock.shutdown(socket.SHUT_WR)
        assert read_answer(data + read_all(sock))[0].body == b"aFalse"
        assert begun.wait(DEADLINE)


def test_work_of_a_call_is_done_in_order_and_a_failure_is_one_record(log):
    done = []

    async def note(value):
        await asyncio.sleep(0)
        done.append(value)

    def fail():
        raise ValueError("no mail")

    async def fail_later():
        raise LookupError("no queue")

    def handle(event, context):
        for function, *arguments in ((done.append, 1), (fail,), (note, 2), (fail_later,), (done.append, 3)):
            context.after(function, *arguments)

    with serving(handle) as server:
        server.talk(GET)
        wait_for(lambda: done[-1:] == [3], "the work")
    assert done == [1, 2, 3]
    records = re.findall(r"^(.*)\n((?: .*\n)*)", log.getvalue(), re.MULTILINE)
    assert [head for head, _ in records] == ["ERROR call 'id-7' work after a response failed"] * 2
    assert "in fail\n" in records[0][1] and records[0][1].endswith("ValueError: no mail\n")
    assert "in fail_later\n" in records[1][1] and "watchdog_app.py" not in log.getvalue()


def fails(event, context):
    return 1 / 0


async def fails_later(event, context):
    return 1 / 0


def fails_late(event, context):
    yield "x"
    fails(event, context)


@pytest.mark.parametrize("on_error", [None, lambda error, event, context: None], ids=["", "on_error"])
@pytest.mark.parametrize(
    "handle", [fails, fails_later, fails_late, pytest.param(lambda event, context: ("x", 999), id="no result")]
)
def test_call_that_fails_runs_none_of_its_work(handle, on_error, log):
    done = []

    def either(event, context):
        if event.path == "/good":
            context.after(done.append, "good")
            return "x"
        return with_work(handle, done.append, "bad")(event, context)

    with serving(Function(either, on_error=on_error)) as server:
        server.talk(GET.replace(b"/", b"/bad", 1))
        server.get("/good")
        wait_for(lambda: done, "the work")
    assert done == ["good"] and log.getvalue().count("ERROR") == 1


def test_work_of_a_call_that_on_error_makes_good_is_done():
    done = []
    function = Function(with_work(fails, done.append, 1), on_error=lambda error, event, context: "x")
    with serving(function) as server:
        assert server.get().status == 200
        wait_for(lambda: done == [1], "the work")


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_work_is_done_when_the_caller_has_gone(is_async):
    begun, done = threading.Event(), threading.Event()

    def handle(event, context):
        context.after(done.set)
        begun.set()
        while True:
            yield b"x" * 65536

    async def handle_later(event, context):
        context.after(done.set)
        begun.set()
        await asyncio.sleep(DEADLINE)

    with serving(handle_later if is_async else handle) as server:
        with server.connect() as sock:
            sock.sendall(GET)
            assert begun.wait(DEADLINE)
        assert done.wait(DEADLINE / 2)


def test_work_that_is_given_after_the_response_begins_at_once():
    done, contexts = threading.Event(), []

    def handle(event, context):
        contexts.append(context)
        context.after(context.after, context.after, done.set)

    with serving(handle) as server:
        server.get()
        assert done.wait(DEADLINE)
        done.clear()
        contexts[0].after(done.set)
        assert done.wait(DEADLINE)


def test_work_is_done_behind_middleware():
    done = []
    function = Function(with_work(later, done.append, 1), wrap=generating)
    with serving_application(Application(function, Settings(), {}).wrapped()) as server:
        assert server.get().body == b"x"
        wait_for(lambda: done == [1], "the work")


def test_work_begins_at_once_under_another_server_and_without_a_thread_where_the_system_allows_none(monkeypatch):
    done = []
    call(with_work(plain, done.append, 1))
    wait_for(lambda: done == [1], "the work")

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    call(with_work(plain, done.append, 2))
    assert done == [1, 2]


@pytest.mark.parametrize("wrong", [5, None, "name"])
def test_work_that_cannot_be_called_is_refused(wrong):
    with pytest.raises(TypeError, match=f"function is {wrong!r}: it takes a function, and then its arguments"):
        invoke(with_work(plain, wrong), raise_errors=True)


# ---- invoke ----


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@handles
def test_invoke_runs_the_work_once_the_response_is_made(handle, method, log):
    done = []
    answer = invoke(with_work(handle, done.append, 1), method)
    if handle in (stream, later_items) and method == "GET":
        assert done == []
        assert answer.body
    assert done == [1] and log.getvalue() == ""
    assert answer.body is not None
    assert done == [1]


def test_invoke_runs_no_work_of_a_call_that_fails(log):
    done = []
    assert invoke(with_work(fails, done.append, 1)).status == 500
    with pytest.raises(ZeroDivisionError):
        invoke(with_work(fails, done.append, 1), raise_errors=True)
    assert done == []


# ---- programs ----

SOURCE = """
import asyncio, atexit, os, sys, time

def shutdown(context):
    print("shut down", flush=True)

{prefix}def work():
    print("called", flush=True)
    while {condition}:
        {sleep}
    print("worked", flush=True)

def handle(event, context):
    context.after(work)
    return "x"
"""
PLAIN = {"prefix": "", "sleep": "time.sleep(0.01)"}
ASYNC = {"prefix": "async ", "sleep": "await asyncio.sleep(0.01)"}
kinds = pytest.mark.parametrize("words", [pytest.param(PLAIN, id="plain"), pytest.param(ASYNC, id="async")])


def written(folder, words, condition):
    file = folder / "handler.py"
    file.write_text(BRIEFLY + SOURCE.format(condition=condition, **words))
    return file


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@kinds
def test_drain_waits_for_work_and_then_calls_shutdown(words, number, tmp_path):
    with process(written(tmp_path, words, f"not os.path.exists({str(tmp_path / 'go')!r})")) as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(number)
        wait_for(lambda: not connects(program.port), "the end of the listener")
        assert program.popen.poll() is None
        (tmp_path / "go").touch()
        out, _ = program.popen.communicate(timeout=DEADLINE)
    assert (program.popen.returncode, out.split(b"\n")) == (0, [b"called", b"worked", b"shut down", b""])


def test_drain_gives_work_up_after_write_timeout(tmp_path):
    with process(written(tmp_path, PLAIN, "True"), write_timeout="500ms") as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(signal.SIGINT)
        assert program.end()[0] == 0


@pytest.mark.skipif(not HAS_PROCESS_1, reason="this machine does not let us have a process 1 of our own")
@kinds
def test_process_1_waits_for_work_and_then_for_shutdown(kind, words, tmp_path):  # noqa: F811
    file = written(tmp_path, words, f"not os.path.exists({str(tmp_path / 'go')!r})")
    with behind(kind, file, tmp_path, alone=PROCESS_1, healthcheck_interval="0.1s") as watchdog:
        calls = in_flight(watchdog, "/", 2)
        assert [call.result()[0] for call in calls] == [200] * 2
        os.kill(watchdog.pid, signal.SIGTERM)
        wait_for(lambda: not connects(watchdog.port), "the end of the listener")
        pause(0.5)  # several times as long as it takes to see that no call is left
        assert "shut down" not in watchdog.log
        (tmp_path / "go").touch()
        assert watchdog.popen.wait(DEADLINE) == 0
        assert re.findall("worked|shut down", watchdog.log) == ["worked"] * 2 + ["shut down"]


def test_watchdog_waits_for_work(kind, tmp_path):  # noqa: F811
    file = written(tmp_path, PLAIN, f"not os.path.exists({str(tmp_path / 'go')!r})")
    with behind(kind, file, tmp_path, healthcheck_interval="0.1s") as watchdog:
        in_flight(watchdog, "/", 2)
        os.kill(watchdog.pid, signal.SIGTERM)
        wait_for(lambda: not connects(watchdog.port), "the end of the listener")
        (tmp_path / "go").touch()
        assert watchdog.popen.wait(DEADLINE) == 0
        wait_for(lambda: "shut down" in watchdog.log, "shutdown")
        assert re.findall("worked|shut down", watchdog.log) == ["worked"] * 2 + ["shut down"]


def test_records_of_work_carry_the_id_of_its_call(tmp_path):
    source = "import logging\nasync def later(): logging.info('later')\ndef handle(event, context):\n"
    source += (
        "    context.after(logging.info, 'soon')\n    context.after(later)\n    print(context.call_id, flush=True)\n"
    )
    (tmp_path / "handler.py").write_text(source)
    with process(tmp_path) as program:
        wait_for(program.answers, "an answer")
        connect_and_get(program.port)
        program.popen.send_signal(signal.SIGINT)
        out, log = program.popen.communicate(timeout=DEADLINE)
    ids = out.decode().split()
    found = re.findall(r"^INFO call '(\w+)' root: (\w+)$", log.decode(), re.MULTILINE)
    assert sorted(found) == sorted((call_id, text) for call_id in ids for text in ("soon", "later"))
