"""`wrap`: a function's own WSGI middleware around its application, written by hand or installed; and `on_error`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading

import pytest
from conftest import (
    BRIEFLY,
    DEADLINE,
    connect_and_get,
    process,
    read_all,
    read_answer,
    serving_application,
    wait_for,
)

import watchdog_app
from watchdog_app import Application, Function, HTTPError, Settings, invoke, make_application


def as_it_is(application):
    return lambda environ, start_response: application(environ, start_response)


def with_header(application):
    """The way of werkzeug's middleware: the iterable goes through as it is."""

    def middleware(environ, start_response):
        def start(status, headers, exc_info=None):
            return start_response(status, [*headers, ("X-Seen", environ["PATH_INFO"])], exc_info)

        return application(environ, start)

    return middleware


def generating(application):
    """The way of OpenTelemetry: the server sees only a generator."""

    def items(iterable):
        try:
            yield from iterable
        finally:
            getattr(iterable, "close", bool)()

    return lambda environ, start_response: items(application(environ, start_response))


def lazily(application):
    """The application is called only when the server asks for the first item."""

    def middleware(environ, start_response):
        yield from application(environ, start_response)

    return middleware


class Closing:
    """The way of Sentry, and of werkzeug's ClosingIterator."""

    def __init__(self, iterable):
        self.iterator, self.close = iter(iterable), getattr(iterable, "close", bool)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.iterator)


def closing(application):
    return lambda environ, start_response: Closing(application(environ, start_response))


def collecting(application):
    """The way of a profiler: all is there before the server sees any of it."""

    def middleware(environ, start_response):
        iterable = application(environ, start_response)
        try:
            return [b"".join(iterable)]
        finally:
            getattr(iterable, "close", bool)()

    return middleware


MIDDLEWARE = [as_it_is, with_header, generating, lazily, closing, collecting]


async def later(event, context):
    await asyncio.sleep(0)
    return {"a": 1}


async def later_items(event, context):
    yield "a"
    await asyncio.sleep(0)
    yield "b"


async def later_stream(event, context):
    return later_items(event, context)


async def refuses_later(event, context):
    raise HTTPError(404, {"error": "none"})


def fails(event, context):
    raise ValueError("no database")


async def fails_later(event, context):
    raise ValueError("no database")


def application_of_its_own(environ, start_response):
    start_response("202 Accepted", [("Content-Type", "text/plain")])(b"a")
    return [b"b"]


FUNCTIONS = {
    "dict": lambda event, context: {"a": 1},
    "nothing": lambda event, context: None,
    "empty text": lambda event, context: "",
    "large": lambda event, context: b"x" * 300_000,
    "generator": lambda event, context: iter(["a", "b"]),
    "coroutine": later,
    "async generator": later_items,
    "coroutine that returns an async generator": later_stream,
    "HTTPError": refuses_later,
    "failure": fails,
    "failure of a coroutine": fails_later,
    "WSGI application": lambda event, context: application_of_its_own,
}
GET = b"GET / HTTP/1.1\r\nHost: test\r\nX-Call-Id: id-7\r\n\r\n"


def served(function, raw, half_close=True):
    """Return the responses to `raw`."""
    with serving_application(Application(function, Settings(), {}).wrapped()) as server:
        return server.talk(raw, half_close=half_close)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("wrap", MIDDLEWARE)
@pytest.mark.parametrize("handle", [pytest.param(handle, id=name) for name, handle in FUNCTIONS.items()])
def test_response_behind_middleware_is_that_without_it(handle, wrap, method, log):
    raw = GET.replace(b"GET", method.encode()) * 2
    data, rest = served(Function(handle, wrap=wrap), raw), served(handle, raw)
    for _ in range(2):
        (answer, data), (plain, rest) = read_answer(data, method), read_answer(rest, method)
        assert (answer.status, answer.body) == (plain.status, plain.body)
        names = {name for name, _ in answer.headers} - {"X-Seen"}
        assert (names, answer.header("Content-Type")) == (
            {name for name, _ in plain.headers},
            plain.header("Content-Type"),
        ) or wrap is collecting
        assert answer.header("Content-Length") == plain.header("Content-Length") or wrap is collecting
        assert (answer.header("X-Seen") == "/") == (wrap is with_header)
    assert (data, rest) == (b"", b"")


@pytest.mark.parametrize("wrap", MIDDLEWARE)
def test_health_checks_need_no_thread_and_do_not_go_through_middleware(wrap):
    going = threading.Event()

    def handle(event, context):
        going.wait(DEADLINE)

    function = Function(handle, ready=lambda: True, wrap=wrap)
    application = Application(function, Settings(threads="1"), {}).wrapped()
    with serving_application(application, threads="1") as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(4)]
        for sock in socks:
            sock.sendall(GET)
        assert [server.get(path).status for path in ("/_/health", "/_/ready") * 2] == [200] * 4
        assert server.get("/_/health").header("X-Seen") is None
        going.set()
        for sock in socks:
            assert sock.recv(100).startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize("wrap", MIDDLEWARE)
def test_upload_is_read_as_it_arrives_behind_middleware(wrap):
    begun = threading.Event()

    def handle(event, context):
        begun.set()
        return event.stream.read()

    application = Application(Function(handle, stream_request=True, wrap=wrap), Settings(), {}).wrapped()
    with serving_application(application) as server, server.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhel")
        assert begun.wait(DEADLINE)
        sock.sendall(b"lo")
        assert read_answer(read_all(sock))[0].body == b"hello"


def test_awaited_stream_without_middleware_in_its_way_takes_no_thread_while_it_waits():
    async def endless(event, context):
        yield "x"
        await asyncio.sleep(DEADLINE)

    application = Application(Function(endless, wrap=with_header), Settings(threads="1"), {}).wrapped()
    with serving_application(application, threads="1") as server, contextlib.ExitStack() as stack:
        for _ in range(5):
            sock = stack.enter_context(server.connect())
            sock.sendall(GET)
            assert b"X-Seen" in sock.recv(1000)


@pytest.mark.parametrize("wrap", [generating, closing, collecting])
def test_call_that_is_awaited_behind_middleware_is_cancelled_when_its_caller_has_gone(wrap, log):
    begun, cancelled = threading.Event(), threading.Event()

    async def handle(event, context):
        begun.set()
        try:
            await asyncio.sleep(DEADLINE)
        finally:
            cancelled.set()

    application = Application(Function(handle, wrap=wrap), Settings(), {}).wrapped()
    with serving_application(application) as server:
        with server.connect() as sock:
            sock.sendall(GET)
            assert begun.wait(DEADLINE)
        assert cancelled.wait(DEADLINE / 2)
    assert log.getvalue() == ""


def test_call_that_is_awaited_behind_middleware_goes_on_while_its_caller_waits():
    async def handle(event, context):
        await asyncio.sleep(1.1 * watchdog_app.TICK)  # until it has been looked for the caller
        return "x"

    assert (
        read_answer(
            served(
                Function(handle, wrap=generating),
                GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
                half_close=False,
            )
        )[0].body
        == b"x"
    )


def test_iterator_that_a_coroutine_returns_is_closed_behind_middleware():
    class Endless:
        is_closed = False

        def __next__(self):
            return "x"

        def close(self):
            self.is_closed = True

        def __iter__(self):
            return self

    endless = Endless()

    async def handle(event, context):
        return endless

    answer = invoke(Function(handle, wrap=generating))
    assert next(iter(answer)) == b"x"
    answer.close()
    assert endless.is_closed


def test_other_servers_are_told_the_length_of_a_body_unless_there_is_none():
    assert invoke(Function(later, wrap=as_it_is)).headers["Content-Length"] == "7"
    assert "Content-Length" not in invoke(Function(FUNCTIONS["nothing"], wrap=as_it_is)).headers


def test_wrap_is_called_once_with_what_serves():
    seen = []

    def wrap(application):
        seen.append(application)
        return with_header(application)

    application = Application(Function(later, wrap=wrap), Settings(), {}).wrapped()
    with serving_application(application) as server:
        assert [server.get().status for _ in range(3)] == [200] * 3
    assert len(seen) == 1 and callable(seen[0])


@pytest.mark.parametrize("wrap", MIDDLEWARE)
@pytest.mark.parametrize("handle", [pytest.param(handle, id=name) for name, handle in FUNCTIONS.items()])
def test_invoke_calls_through_middleware(handle, wrap, log):
    answer, plain = (
        invoke(Function(handle, wrap=wrap), headers={"X-Call-Id": "7"}),
        invoke(handle, headers={"X-Call-Id": "7"}),
    )
    assert (answer.status, answer.body) == (plain.status, plain.body)
    assert ("X-Seen" in answer.headers) == (wrap is with_header)


def test_invoke_lets_exceptions_through_middleware():
    with pytest.raises(ValueError, match="no database"):
        invoke(Function(fails_later, wrap=with_header), raise_errors=True)


WRAPPED = """
def wrap(application):
    def middleware(environ, start_response):
        environ["HTTP_X_BY"] = "middleware"
        return application(environ, start_response)
    return {returned}

def handle(event, context):
    return event.headers.get("X-By", "nobody")
"""


def test_program_and_other_servers_serve_what_wrap_returns(folder):
    (folder / "handler.py").write_text(
        BRIEFLY.replace("__main__", "watchdog_app") + WRAPPED.format(returned="middleware")
    )
    assert call_wsgi(make_application(folder)) == b"middleware"
    with process(folder) as program:
        wait_for(program.answers, "an answer")
        assert connect_and_get(program.port) == b"middleware"


def call_wsgi(application):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": ""}
    return b"".join(application(environ, lambda status, headers, exc_info=None: bytes))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param(
            WRAPPED.format(returned="None"),
            "ERROR wrap returned None: it must return a WSGI application\n",
            id="nothing",
        ),
        pytest.param(
            "def wrap(application): return {'a': 1}\n" + WRAPPED.split("\n\n")[1],
            "ERROR wrap returned {'a': 1}: it must return a WSGI application\n",
            id="dict",
        ),
        pytest.param(
            "def wrap(application): 1 / 0\n" + WRAPPED.split("\n\n")[1], "ERROR wrap failed\n", id="exception"
        ),
    ],
)
def test_wrap_that_gives_nothing_to_serve_ends_the_start(source, says, tmp_path):
    (tmp_path / "handler.py").write_text(source)
    with process(tmp_path) as program:
        status, log = program.end()
    assert status == 1 and says in log and log.count("ERROR") == 1
    assert log.count("\n") == 1 or "Traceback" in log


def test_wrap_of_another_kind_is_no_hook(tmp_path):
    source = "from textwrap import wrap\ndef on_error(error): pass\ndef handle(event, context): return wrap('a b', 1)\n"
    (tmp_path / "handler.py").write_text(source)
    with process(tmp_path) as program:
        wait_for(program.answers, "an answer")
        assert connect_and_get(program.port) == b'["a","b"]'
        program.popen.terminate()
        log = program.end()[1]
    assert (
        "WARNING" in log
        and "on_error(error) cannot be called as on_error(error, event, context): it is not used as a hook" in log
    )
    assert log.count("WARNING") == 1


@pytest.mark.parametrize("name", ["wrap", "on_error"])
def test_hook_that_is_no_function_is_refused(name):
    with pytest.raises(TypeError, match=f"{name} is 5: it takes a function, or None"):
        Function(fails, **{name: 5})


# ---- on_error ----


def on_error(error, event, context):
    return {"error": str(error), "path": event.path, "id": context.call_id}, 502


async def on_error_later(error, event, context):
    await asyncio.sleep(0)
    return on_error(error, event, context)


def fails_in_a_stream(event, context):
    fails(event, context)
    yield "x"


async def fails_in_an_async_stream(event, context):
    fails(event, context)
    yield "x"


def exits(event, context):
    raise SystemExit("no database")


def fails_as_an_application(event, context):
    def application(environ, start_response):
        start_response("200 OK", [])
        raise ValueError("no database")

    return application


def cannot_be_sent(event, context):
    return "x", 999


FAILING = [fails, fails_later, fails_in_a_stream, fails_in_an_async_stream, exits, fails_as_an_application]


@pytest.mark.parametrize("hook", [on_error, on_error_later])
@pytest.mark.parametrize("handle", FAILING)
@pytest.mark.parametrize("wrap", [None, generating])
def test_on_error_makes_a_result_of_what_handle_raises(handle, hook, wrap, log):
    data = served(Function(handle, on_error=hook, wrap=wrap), GET)
    answer = read_answer(data)[0]
    assert (answer.status, json.loads(answer.body)) == (502, {"error": "no database", "path": "/", "id": "id-7"})
    assert log.getvalue() == ""


def test_on_error_gets_a_result_that_cannot_be_sent():
    answer = invoke(Function(cannot_be_sent, on_error=on_error))
    assert (answer.status, answer.json()["error"][:10]) == (502, "status 999")


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(lambda: ("sorry", 503), id="text"),
        pytest.param(lambda: iter(["sor", "ry"]), id="stream"),
        pytest.param(lambda: application_of_its_own, id="WSGI application"),
        pytest.param(lambda: later_items(None, None), id="async generator"),
    ],
)
@pytest.mark.parametrize("handle", FAILING[:4])
def test_on_error_may_return_any_result(handle, result, log):
    def good(event, context):
        return result()

    raw = GET
    data = served(Function(handle, on_error=lambda error, event, context: result()), raw)
    plain = served(good, raw)
    answer, expected = read_answer(data)[0], read_answer(plain)[0]
    assert (answer.status, answer.body, answer.header("Content-Type")) == (
        expected.status,
        expected.body,
        expected.header("Content-Type"),
    )
    assert log.getvalue() == ""


def raises_again(error, event, context):
    raise LookupError("no second try") from error


def raises_the_same(error, event, context):
    raise error


def returns_nothing(error, event, context):
    pass


def returns_what_cannot_be_sent(error, event, context):
    return "x", 999


@pytest.mark.parametrize(
    ("hook", "shown"),
    [
        pytest.param(raises_again, ["ValueError: no database", "LookupError: no second try"], id="another"),
        pytest.param(raises_the_same, ["ValueError: no database"], id="the same"),
        pytest.param(returns_nothing, ["ValueError: no database"], id="nothing"),
        pytest.param(returns_what_cannot_be_sent, ["status 999"], id="no result"),
    ],
)
@pytest.mark.parametrize("handle", FAILING[:4])
def test_what_on_error_raises_is_the_failure(handle, hook, shown, log):
    calls = []

    def counted(error, event, context):
        calls.append(error)
        return hook(error, event, context)

    data = served(Function(handle, on_error=counted), GET)
    assert read_answer(data)[0].status == 500 and b"id-7" in data
    assert len(calls) == 1 and log.getvalue().count("ERROR") == 1
    assert all(text in log.getvalue() for text in (*shown, "id-7", "'GET' '/' failed"))


def test_http_error_of_on_error_is_its_response(log):
    def refuse(error, event, context):
        raise HTTPError(503, {"error": "later"})

    answer = invoke(Function(fails, on_error=refuse))
    assert (answer.status, answer.json()) == (503, {"error": "later"})
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    ("handle", "status"),
    [
        pytest.param(refuses_later, 404, id="HTTPError"),
        pytest.param(lambda event, context: event.query["name"], 400, id="missing key"),
        pytest.param(lambda event, context: event.json(), 400, id="bad JSON"),
    ],
)
def test_on_error_does_not_get_a_response_by_exception(handle, status):
    assert invoke(Function(handle, on_error=on_error)).status == status


def test_stream_that_fails_late_is_no_affair_of_on_error(log):
    def handle(event, context):
        yield "x"
        fails(event, context)

    data = served(Function(handle, on_error=on_error), GET)
    assert data.endswith(b"\r\n\r\n1\r\nx\r\n") and "ValueError: no database" in log.getvalue()


def test_invoke_raises_what_on_error_does_not_handle():
    with pytest.raises(ValueError, match="no database"):
        invoke(Function(fails, on_error=returns_nothing), raise_errors=True)
    assert invoke(Function(fails, on_error=on_error), raise_errors=True).status == 502


def test_on_error_of_a_module_is_called(folder):
    source = "def on_error(error, event, context): return repr(error)\ndef handle(event, context): return 1 / 0\n"
    (folder / "handler.py").write_text(source)
    assert call_wsgi(make_application(folder)) == b"ZeroDivisionError('division by zero')"


# ---- installed middleware ----


def open_telemetry(application):
    otel = pytest.importorskip("opentelemetry.instrumentation.wsgi")
    return otel.OpenTelemetryMiddleware(application)


def sentry(application):
    wsgi = pytest.importorskip("sentry_sdk.integrations.wsgi")
    return wsgi.SentryWsgiMiddleware(application)


def proxy_fix(application):
    return pytest.importorskip("werkzeug.middleware.proxy_fix").ProxyFix(application)


def lint(application):
    return pytest.importorskip("werkzeug.middleware.lint").LintMiddleware(application)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [open_telemetry, sentry, proxy_fix, lint])
@pytest.mark.parametrize("handle", [pytest.param(handle, id=name) for name, handle in FUNCTIONS.items()])
def test_response_behind_installed_middleware_is_that_without_it(handle, wrap, log):
    data, plain = served(Function(handle, wrap=wrap), GET), served(handle, GET)
    answer, expected = read_answer(data)[0], read_answer(plain)[0]
    assert (answer.status, answer.body) == (expected.status, expected.body)
    assert answer.header("Content-Length") == expected.header("Content-Length")


def test_spans_of_open_telemetry_are_of_one_trace_also_in_a_coroutine():
    pytest.importorskip("opentelemetry.instrumentation.wsgi")
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")

    async def handle(event, context):
        with tracer.start_as_current_span("inner"):
            await asyncio.sleep(0)
            return {"trace_id": context.trace_id}

    def wrap(application):
        return OpenTelemetryMiddleware(application, tracer_provider=provider)

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    sent = GET[:-2] + b"traceparent: 00-%b-b7ad6b7169203331-01\r\n\r\n" % trace_id.encode()
    data = served(Function(handle, wrap=wrap), sent)
    assert json.loads(read_answer(data)[0].body) == {"trace_id": trace_id}
    wait_for(lambda: len(exporter.get_finished_spans()) == 2, "the spans")
    inner, outer = exporter.get_finished_spans()
    assert (inner.name, outer.kind.name, outer.attributes["http.status_code"]) == ("inner", "SERVER", 200)
    assert inner.parent.span_id == outer.context.span_id
    assert {f"{span.context.trace_id:032x}" for span in (inner, outer)} == {trace_id}


def test_sentry_gets_the_failures_that_on_error_reports():
    sentry_sdk = pytest.importorskip("sentry_sdk")
    events = []

    def report(error, event, context):
        sentry_sdk.capture_exception(error)

    client = {"dsn": "http://key@127.0.0.1/1", "before_send": lambda event, hint: events.append(event)}
    sentry_sdk.init(**client, default_integrations=False, auto_enabling_integrations=False)
    try:
        data = served(Function(fails_later, wrap=sentry, on_error=report), GET)
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)
    assert read_answer(data)[0].status == 500
    (event,) = events
    assert event["exception"]["values"][0]["value"] == "no database"
    assert event["request"]["url"] == "http://test/"
