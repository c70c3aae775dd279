"""Functions that are awaited: coroutines, async generators, hooks, on one loop and few threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import DEADLINE, RESET, call, read_all, read_answer, read_answers, serving, socket, wait_for

import watchdog_app
from watchdog_app import Application, Function, HTTPError, Settings

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


async def hello(event, context):
    await asyncio.sleep(0)
    return {"path": event.path}


async def items(event, context):
    for number in range(3):
        await asyncio.sleep(0)
        yield {"number": number}


class Future:
    """Something that can be awaited, and is no coroutine."""

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return "from a future"


async def fails(event, context):
    await asyncio.sleep(0)
    raise ValueError("asked for")


async def refuses(event, context):
    await asyncio.sleep(0)
    raise HTTPError(404, "no such thing")


async def refuses_before_its_first_item(event, context):
    await asyncio.sleep(0)
    if event:
        raise HTTPError(404, "no such thing")
    yield "x"


async def returns_a_generator(event, context):
    return (text for text in ("a", "b"))


async def returns_an_async_generator(event, context):
    async def texts():
        yield "a"
        yield "b"

    return texts(), 201, {"X-A": "b"}


async def returns_one_with_a_content_type(event, context):
    async def texts():
        yield "a"

    return texts(), {"content-type": "text/csv"}


async def yields_nothing(event, context):
    for item in ():
        yield item


async def no_content(event, context):
    async def texts():
        yield "a"

    return texts(), 204


class Countdown:
    """An asynchronous iterator that is no generator: it has no `aclose`."""

    def __init__(self):
        self.number = 3

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if not self.number:
            raise StopAsyncIteration
        self.number -= 1
        return str(self.number)


HTML, JSON, BINARY, LINES = (
    "text/html; charset=utf-8",
    "application/json",
    "application/octet-stream",
    "application/x-ndjson",
)
CASES = [
    pytest.param(hello, 200, JSON, b'{"path":"/"}', id="coroutine"),
    pytest.param(
        lambda event, context: hello(event, context),
        200,
        JSON,
        b'{"path":"/"}',
        id="plain function that returns a coroutine",
    ),
    pytest.param(lambda event, context: Future(), 200, HTML, b"from a future", id="future"),
    pytest.param(items, 200, LINES, b'{"number":0}\n{"number":1}\n{"number":2}\n', id="async generator"),
    pytest.param(refuses, 404, HTML, b"no such thing", id="HTTPError"),
    pytest.param(refuses_before_its_first_item, 404, HTML, b"no such thing", id="HTTPError before the first item"),
    pytest.param(returns_a_generator, 200, HTML, b"ab", id="coroutine that returns a generator"),
    pytest.param(
        returns_an_async_generator, 201, HTML, b"ab", id="coroutine that returns an async generator in a tuple"
    ),
    pytest.param(lambda event, context: Countdown(), 200, HTML, b"210", id="asynchronous iterator"),
    pytest.param(
        returns_one_with_a_content_type, 200, "text/csv", b"a", id="async generator with its own content-type"
    ),
    pytest.param(yields_nothing, 200, BINARY, b"", id="async generator without items"),
    pytest.param(no_content, 204, None, b"", id="async generator where no body is allowed"),
]


@pytest.mark.parametrize(("function", "status", "kind", "body"), CASES)
def test_answer_under_any_server(function, status, kind, body, log):
    answer = call(function)
    assert (answer.status, answer.header("Content-Type"), answer.body) == (status, kind, body)


@pytest.mark.parametrize(("function", "status", "kind", "body"), CASES)
def test_answer_of_the_server(function, status, kind, body, log):
    with serving(function) as served:
        answer = served.get()
        assert (answer.status, answer.header("Content-Type"), answer.body) == (status, kind, body)
        assert read_answer(served.talk(GET))[0].status == status  # half-closed


def test_two_requests_at_once_are_answered_in_order_on_one_connection():
    with serving(hello) as served:
        answers = read_answers(
            served.talk(b"GET /a HTTP/1.1\r\nHost: test\r\n\r\nGET /b HTTP/1.1\r\nHost: test\r\n\r\n")
        )
    assert [answer.body for answer in answers] == [b'{"path":"/a"}', b'{"path":"/b"}']


def test_request_that_comes_while_another_ones_result_is_awaited_is_answered_after_it():
    begun, go_on = threading.Event(), threading.Event()

    async def waits(event, context):
        begun.set()
        await asyncio.to_thread(go_on.wait, 10)
        return event.path

    def is_set_aside(served):
        return any(connection.mask == watchdog_app.END for connection in served.server.connections.values())

    with serving(waits) as served, served.connect() as sock:
        sock.sendall(b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n")
        assert begun.wait(10)
        sock.sendall(b"GET /b HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        wait_for(lambda: is_set_aside(served), "the leader's look at the second request")
        go_on.set()
        answers = read_answers(read_all(sock))
    assert [answer.body for answer in answers] == [b"/a", b"/b"]


def test_head_of_an_async_generator_has_no_body_and_ends_it():
    ended = threading.Event()

    async def endless(event, context):
        try:
            while True:
                yield "x"
                await asyncio.sleep(0)
        finally:
            ended.set()

    with serving(endless) as served:
        assert served.request("HEAD").body == b""
        assert ended.wait(10)


@pytest.mark.parametrize(
    "function", [fails, pytest.param(lambda event, context: fails(event, context), id="through a plain function")]
)
def test_exception_is_a_500_and_one_record(function, log):
    with serving(function) as served:
        assert served.get().status == 500
    assert log.getvalue().count("ERROR call") == 1
    assert "ValueError: asked for" in log.getvalue()


async def exits(event, context):
    await asyncio.sleep(0)
    raise SystemExit(3)


async def has_a_task_that_exits(event, context):
    await asyncio.create_task(exits(event, context))


async def yields_and_exits(event, context):
    if event:
        raise SystemExit(3)
    yield "x"


@pytest.mark.parametrize("function", [exits, has_a_task_that_exits, yields_and_exits])
def test_exit_is_a_500_and_ends_no_other_call(function, log):
    go_on = threading.Event()

    async def handle(event, context):
        if event.path == "/wait":
            await asyncio.to_thread(go_on.wait, 10)
        elif event.path == "/exit":
            result = function(event, context)
            return await result if hasattr(result, "__await__") else result
        return event.path

    with serving(handle) as served, served.connect() as sock:
        sock.sendall(b"GET /wait HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert served.get("/exit").status == 500
        assert served.get("/next").body == b"/next"
        go_on.set()
        assert read_answer(read_all(sock))[0].body == b"/wait"
    assert "SystemExit: 3" in log.getvalue()


class Sendable(Future):
    """Something that can be awaited, and has a method of a coroutine's without being one."""

    def send(self, message):
        raise AssertionError("it is no coroutine")


def test_what_is_awaited_may_have_a_method_called_send():
    with serving(lambda event, context: Sendable()) as served:
        assert served.get().body == b"from a future"


@pytest.fixture
def factory_that_fails():
    """Let the function's task factory fail, as one does that takes no context."""
    watchdog_app.LOOP.start()
    watchdog_app.LOOP.loop.set_task_factory(lambda loop, coroutine: asyncio.Task(coroutine, loop=loop))
    yield
    watchdog_app.LOOP.loop.set_task_factory(None)


@pytest.mark.parametrize("function", [hello, items])
def test_task_factory_that_fails_is_a_500(function, factory_that_fails, log):
    with serving(function) as served:
        assert served.get().status == 500
    assert "TypeError" in log.getvalue()


def test_generator_whose_first_item_cannot_be_sent_is_ended(log):
    ended = threading.Event()

    async def yields_a_number(event, context):
        try:
            yield 1
        finally:
            ended.set()

    with serving(yields_a_number) as served:
        assert served.get().status == 500
        assert ended.wait(10)


def test_generator_that_goes_on_when_it_is_cancelled_is_ended():
    sleeping, ended = threading.Event(), threading.Event()

    async def goes_on(event, context):
        try:
            yield "x"
            while True:
                try:
                    sleeping.set()
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    await asyncio.sleep(0)
                    yield "y"
        finally:
            ended.set()

    with serving(goes_on) as served:
        with served.connect() as sock:
            sock.sendall(GET)
            sock.recv(1000)
            assert sleeping.wait(10)
        assert ended.wait(10)


class Closable:
    """Two items whose source takes a while to close."""

    def __init__(self, closed):
        self.items, self.closed = iter("xy"), closed

    def __aiter__(self):
        return self

    async def __anext__(self):
        for item in self.items:
            return item
        raise StopAsyncIteration

    async def aclose(self):
        await asyncio.sleep(0.01)
        self.closed.set()


def test_source_of_items_is_closed_to_its_end():
    closed = threading.Event()
    with serving(lambda event, context: Closable(closed)) as served:
        assert served.get().body == b"xy"
        assert closed.wait(10)


def test_stream_that_fails_later_is_cut_and_logged_once(log):
    async def breaks(event, context):
        yield "x"
        raise ValueError("asked for")

    with serving(breaks) as served:
        received = served.talk(GET)
    assert received.endswith(b"1\r\nx\r\n")
    assert log.getvalue().count("ERROR call") == 1


def test_a_thousand_calls_that_sleep_are_served_by_few_threads():
    async def sleeps(event, context):
        await asyncio.sleep(0.2)
        return str(threading.active_count())

    with serving(sleeps) as served:
        socks = [served.connect() for _ in range(1000)]
        began = time.monotonic()
        for sock in socks:
            sock.sendall(GET.replace(b"test\r\n", b"test\r\nConnection: close\r\n"))
        answers = [read_answer(read_all(sock))[0] for sock in socks]
        took = time.monotonic() - began
        for sock in socks:
            sock.close()
    assert {answer.status for answer in answers} == {200}
    assert max(int(answer.body) for answer in answers) < 16  # those of the tests among them
    assert took < 20  # one after the other they would take 200


def test_many_streams_at_once_are_served_by_few_threads():
    async def ticks(event, context):
        for _ in range(3):
            yield "x"
            await asyncio.sleep(0.1)
        yield str(threading.active_count())

    with serving(ticks, threads="4") as served:
        socks = [served.connect() for _ in range(100)]
        for sock in socks:
            sock.sendall(GET.replace(b"test\r\n", b"test\r\nConnection: close\r\n"))
        bodies = [read_answer(read_all(sock))[0].body for sock in socks]
        for sock in socks:
            sock.close()
    assert all(body.startswith(b"xxx") and int(body[3:]) < 16 for body in bodies)


@pytest.mark.parametrize("leave", ["reset", "close"])
@pytest.mark.parametrize("kind", ["coroutine", "generator before its first item", "generator after it"])
def test_function_is_cancelled_when_the_caller_goes(leave, kind, log, monkeypatch):
    monkeypatch.setattr(watchdog_app, "HALF_CLOSED", 0.2)
    begun, ended, gone = threading.Event(), threading.Event(), []

    async def waits(event, context):
        begun.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            gone.append(context.cancelled)
            ended.set()
            raise

    async def yields(event, context):
        if kind.endswith("after it"):
            yield "x"
        await waits(event, context)
        yield "y"

    with serving(waits if kind == "coroutine" else yields) as served:
        with served.connect() as sock:
            sock.sendall(GET)
            assert begun.wait(10)
            if kind.endswith("after it"):
                sock.recv(1000)
            if leave == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        assert ended.wait(10)
        wait_for(lambda: not served.server.connections, "the end of the connection")
    assert log.getvalue() == ""


def test_slow_reader_of_an_async_stream_holds_no_thread_and_gets_all_of_it():
    async def large(event, context):
        for _ in range(50):
            yield b"x" * 200_000

    with serving(large, threads="1") as served:
        with served.connect() as slow:
            slow.sendall(GET.replace(b"test\r\n", b"test\r\nConnection: close\r\n"))
            with served.connect() as other:
                other.sendall(GET.replace(b"test\r\n", b"test\r\nConnection: close\r\n"))
                assert len(read_answer(read_all(other))[0].body) == 10_000_000
            assert len(read_answer(read_all(slow))[0].body) == 10_000_000


def test_hooks_run_on_the_same_loop_as_calls():
    loops = []

    async def note(context=None):
        loops.append(asyncio.get_running_loop())
        return True

    async def handle(event, context):
        await note()

    application = Application(Function(handle, startup=note, shutdown=note, ready=note), Settings(), {})
    application.startup()
    started = []
    for path in ("/", "/_/ready"):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
        list(application(environ, lambda status, headers, exc_info=None: started.append(status)))
    application.shutdown()
    assert started == ["204 No Content", "200 OK"]
    assert len(loops) == 4 and len(set(loops)) == 1


def test_wsgi_response_that_raises_an_error_with_an_async_body_is_answered_with_that():
    async def reasons():
        yield "no "
        yield "such thing"

    def response(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        raise HTTPError(404, reasons())

    answer = call(lambda event, context: response)
    assert (answer.status, answer.body) == (404, b"no such thing")


def test_result_that_waits_for_its_peer_leaves_a_thread_to_lead():
    begun, go_on = [], threading.Event()

    async def large(event, context):
        begun.append(event)
        await asyncio.to_thread(go_on.wait, 10)
        return iter([b"x" * 1_000_000] * 50)

    with serving(large, threads="1") as served, served.connect() as slow, served.connect() as queued:
        for sock in (slow, queued):
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        wait_for(lambda: len(begun) == 2, "two calls whose results are awaited")
        go_on.set()
        wait_for(lambda: served.server.lead.queue, "a second stream that has no thread")
        assert served.talk(b"bad\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        slow.close()
        assert len(read_answer(read_all(queued))[0].body) == 50_000_000


def test_end_of_a_stream_whose_head_the_kernel_did_not_take_follows_it(monkeypatch):
    """A connection whose socket is full keeps what one `send` leaves, and only that."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    with ours, peer, serving(yields_nothing) as served:
        connection = watchdog_app.Connection(
            ours, "peer", watchdog_app.RequestReader(10_000, 10_000), watchdog_app.Settings()
        )
        request = connection.reader.receive(GET)
        exchange = watchdog_app.Exchange(request, connection, served.server)
        exchange.run(served.server.application)
        filler = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filler += ours.send(b"x" * 10_000)
        while exchange.awaits:
            done = threading.Event()
            exchange.result.when_ready(done.set)
            assert done.wait(10)
            exchange.go_on()
        left = bytes(connection.out)
    assert left.startswith(b"HTTP/1.1 200 OK\r\n") and left.endswith(b"\r\n\r\n0\r\n\r\n")


def test_stream_that_ends_while_an_item_is_encoded_says_so_at_the_next(monkeypatch):
    async def one():
        yield "x"
        await asyncio.sleep(1000)

    def slowly(item):
        watchdog_app.LOOP.soon(stream.items.task.cancel)
        wait_for(lambda: stream.items.task.done(), "the end of the task")
        return encode(item)

    encode, stream = watchdog_app.encode_item, watchdog_app.AwaitedStream(watchdog_app.Items(one(), None))
    monkeypatch.setattr(watchdog_app, "encode_item", slowly)
    stream.begin()
    assert stream.take() == b"x"
    with pytest.raises(watchdog_app.StreamFailed):
        stream.take()


def test_stream_that_ends_before_its_item_is_taken_gives_it_and_fails_at_the_next():
    async def one():
        yield "x"

    feed = watchdog_app.Items(one(), None)
    stream = watchdog_app.AwaitedStream(feed)
    assert feed.wait(DEADLINE)
    watchdog_app.LOOP.soon(feed.task.cancel)
    wait_for(feed.task.done, "the end of the task")
    stream.begin()
    assert stream.take() == b"x"
    with pytest.raises(watchdog_app.StreamFailed):
        stream.take()


def test_stream_that_ends_by_a_time_limit_while_an_item_is_encoded_is_cut_and_hangs_nobody(monkeypatch, log):
    ended = threading.Event()

    async def limited(event, context):
        try:
            async with asyncio.timeout(0.05):
                yield "x"
                await asyncio.sleep(1000)
        finally:
            ended.set()

    def slowly(item):
        assert ended.wait(10)
        return encode(item)

    encode = watchdog_app.encode_item
    monkeypatch.setattr(watchdog_app, "encode_item", slowly)
    with serving(limited) as served:
        received = served.talk(GET)
    assert received.startswith(b"HTTP/1.1 500 ") or received.endswith(b"1\r\nx\r\n"), "as late as it fails"
    assert log.getvalue().count("ERROR call") == 1


class Unruly(Coroutine):
    """A coroutine by name: it cannot be awaited, nor closed."""

    def send(self, value):
        raise StopIteration

    def throw(self, *error):
        raise StopIteration

    def close(self):
        raise ValueError("not closed")

    def __await__(self):
        return iter(())


def test_coroutine_of_which_no_task_can_be_made_is_a_500_and_holds_up_no_other(monkeypatch, log):
    def refuses(coroutine, **more):
        raise StopIteration("no task")

    with serving(lambda event, context: Unruly() if event.path == "/bad" else hello(event, context)) as served:
        assert served.get("/").status == 200
        with monkeypatch.context() as patched:
            patched.setattr(watchdog_app.LOOP.loop, "create_task", refuses)
            assert served.get("/bad").status == 500
        assert served.get("/").status == 200


# ---- a loop that is held up ----


def waiting(event, release):
    event.set()
    release.wait(DEADLINE)  # here it stands


@pytest.fixture
def hold_up(monkeypatch):
    """Let calls hold up the loop, one after another, until the test says so; return the fixture's function."""
    monkeypatch.setattr(watchdog_app, "HELD_UP", 0.05)

    @contextlib.contextmanager
    def hold_up():
        begun, release = threading.Event(), threading.Event()

        async def waits(event, context):
            waiting(begun, release)

        with serving(waits) as server:
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(server.get)
                begun.wait(DEADLINE)
                yield
                release.set()
                assert answer.result(DEADLINE).status in (200, 204)

    return hold_up


def line_of(text):
    """Return the number of the one line of this file that ends with `text`."""
    (number,) = [
        number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.endswith(text)
    ]
    return number


def test_what_holds_up_the_loop_is_logged_once_a_place(hold_up, log):
    for _ in range(2):
        with hold_up():
            wait_for(lambda: "has blocked" in log.getvalue(), "a warning")
    line = line_of("# here it " + "stands")
    place = f"WARNING {__file__}:{line} has blocked all async calls for over 0.05 s: release.wait(DEADLINE)  # here it stands\n"
    assert log.getvalue().startswith(place)
    assert log.getvalue().count("WARNING") == 1


def test_call_that_waits_without_holding_up_the_loop_is_not_logged(monkeypatch, log):
    looks = []
    monkeypatch.setattr(watchdog_app, "HELD_UP", 0.05)

    async def waits(event, context):
        loop, soon = asyncio.get_running_loop(), asyncio.get_running_loop().call_soon_threadsafe
        monkeypatch.setattr(
            loop, "call_soon_threadsafe", lambda *arguments: looks.append(arguments) or soon(*arguments)
        )
        while len(looks) < 3:
            await asyncio.sleep(0.001)

    with serving(waits) as server:
        assert server.get().status == 204
    assert "WARNING" not in log.getvalue()


LIBRARY_FILE, PACKAGE_FILE = asyncio.__file__, "/home/app/.venv/lib/python3.13/site-packages/slow/client.py"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param(["/app/handler.py", LIBRARY_FILE], "/app/handler.py", id="in the standard library"),
        pytest.param(["/app/handler.py", PACKAGE_FILE, LIBRARY_FILE], "/app/handler.py", id="in a package"),
        pytest.param(["/app/handler.py", "/app/mod.py"], "/app/mod.py", id="in a module of the function"),
        pytest.param([LIBRARY_FILE, PACKAGE_FILE, LIBRARY_FILE], None, id="in a package's own task"),
        pytest.param([LIBRARY_FILE, watchdog_app.__file__, "<frozen runpy>"], None, id="in the loop itself"),
        pytest.param([], None, id="nowhere"),
    ],
)
def test_place_that_is_named_is_the_functions_own_if_there_is_one(files, found):
    frame = None
    for file in files:
        frame = SimpleNamespace(
            f_back=frame,
            f_globals=vars(watchdog_app) if file == watchdog_app.__file__ else {},
            f_code=SimpleNamespace(co_filename=file),
        )
    place = watchdog_app.function_frame(frame)
    assert (place and place.f_code.co_filename) == found
