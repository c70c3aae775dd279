"""What a server does while all its threads are busy: it says how it is, and runs no call that nobody waits for any more."""

import contextlib
import socket
import threading
import time

import pytest
from conftest import RESET, call, read_answer, serving_application, wait_for

import watchdog_app

GET = b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n"
UPLOAD = b"POST %b HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nx"  # which does not go on
OWN = ["/_/health", "/_/ready", "/_/health?x=1", "http://test/_/ready", "/%5F/health", "/_%2Fready"]


class Held:
    """A function whose calls wait until they are let go; `runs` has their paths."""

    def __init__(self):
        self.gate, self.runs, self.stream_request = threading.Event(), [], False

    def handle(self, event, context):
        self.runs.append(event.path)
        if self.stream_request:
            return str(len(event.stream.read()))
        self.gate.wait(30)
        return event.path


@contextlib.contextmanager
def busy(threads=2, queued=1, raw=GET % b"/held", stream_request=False, ready=None, clock=time.monotonic, **settings):
    """Serve with all threads in calls, and more calls in the queue; give the function, what serves it, and the queued callers."""
    held = Held()
    held.stream_request = stream_request
    function = watchdog_app.Function(held.handle, stream_request=stream_request, ready=ready)
    application = watchdog_app.Application(function, watchdog_app.Settings(**settings), {})
    with (
        serving_application(application, clock, threads=str(threads), **settings) as served,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(held.gate.set)
        socks = [stack.enter_context(served.connect()) for _ in range(threads + queued)]
        for count, sock in enumerate(socks, 1):
            sock.sendall(raw)
            wait_for(lambda count=count: len(held.runs) + len(served.server.lead.queue) == count, "a call that waits")
        assert len(held.runs) == threads
        yield held, served, socks[threads:]


class Clock:
    """A clock that a test moves on: the monitor needs one that runs."""

    ahead = 0.0

    def __call__(self):
        return time.monotonic() + self.ahead


# ---- health ----


@pytest.mark.parametrize("target", OWN)
def test_health_and_readiness_are_answered_while_all_threads_are_busy(target):
    with busy(ready=lambda: True) as (held, served, _):
        answer = served.get(target)
        assert (answer.status, answer.body) == (200, b"OK\n")
        assert len(held.runs) == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("target", OWN)
def test_health_and_readiness_are_answered_while_slow_uploads_hold_all_threads(target, method):
    with (
        busy(raw=UPLOAD % b"/slow", stream_request=True, ready=lambda: True) as (held, served, _),
        served.connect() as sock,
    ):
        sock.sendall((GET if method == "GET" else UPLOAD) % target.encode())
        answer = read_answer(sock.recv(1000))[0]
        assert (answer.status, answer.body, answer.closes) == (200, b"OK\n", method == "POST")
        assert held.runs == ["/slow"] * 2


@pytest.mark.parametrize(
    "target", ["/_/health/", "//_/health", "/_/healthy", "/_/", "/_/health%20", "/x/_/health", "/?x=/_/health"]
)
def test_what_looks_like_a_path_of_the_runtime_is_the_functions(target):
    application = watchdog_app.Application(lambda event, context: "the function's", watchdog_app.Settings(), {})
    assert not application.answers_at_once(target)
    assert call(lambda event, context: "the function's", target=target).body == b"the function's"
    with busy() as (_, served, _), served.connect() as sock:
        sock.sendall(GET % target.encode())
        wait_for(lambda: len(served.server.lead.queue) == 2, "a call that waits as others do")


def test_another_application_gets_the_paths_of_the_runtime():
    def application(environ, start_response):
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    with serving_application(application) as served:
        assert served.get("/_/health").body == b"/_/health"


# ---- readiness ----


class Asked:
    """A function's `ready` that waits until it is let go, and then says `answer`."""

    def __init__(self, answer):
        self.answer, self.count, self.threads, self.gate = answer, 0, set(), threading.Event()

    def __call__(self):
        self.threads.add(threading.current_thread().name)
        self.count += 1
        self.gate.wait(30)
        return self.answer


@pytest.fixture
def asked():
    asked = Asked(True)
    yield asked
    asked.gate.set()
    wait_for(lambda: "ready" not in {thread.name for thread in threading.enumerate()}, "the end of ready")


def test_ready_runs_once_for_many_and_its_answer_stands_for_a_second(asked, monkeypatch):
    monkeypatch.setattr(watchdog_app, "READY_SECONDS", 30.0)
    with busy(ready=asked) as (_, served, _), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(served.connect()) for _ in range(5)]
        for sock in socks:
            sock.sendall(GET % b"/_/ready")
        wait_for(lambda: asked.count == 1, "the call of ready")
        assert served.get("/_/health").status == 200
        asked.gate.set()
        assert [read_answer(sock.recv(1000))[0].status for sock in socks] == [200] * 5
        assert served.get("/_/ready").status == 200
    assert (asked.count, asked.threads) == (1, {"ready"})


def test_ready_is_asked_again_when_its_answer_stands_no_more(asked, monkeypatch):
    monkeypatch.setattr(watchdog_app, "READY_SECONDS", 0.0)
    asked.gate.set()
    readiness = watchdog_app.Readiness(asked)
    monkeypatch.setattr(readiness, "_give_up", lambda done: None)
    assert [readiness.ask().take(), readiness.ask().take(), asked.count] == [True, True, 2]


def test_ready_that_takes_too_long_is_not_ready_until_it_returns(asked, monkeypatch, log):
    monkeypatch.setattr(watchdog_app, "READY_SECONDS", 0.1)
    with busy(ready=asked) as (_, served, _):
        assert [served.get("/_/ready").status for _ in range(3)] == [503] * 3
        assert asked.count == 1
        asked.gate.set()
        wait_for(lambda: served.get("/_/ready").status == 200, "readiness")
    assert (
        log.getvalue().count("WARNING ready has taken more than 0.1 s: the status of /_/ready is 503 until it returns")
        == 1
    )


def test_ready_without_a_thread_is_not_ready(asked, monkeypatch):
    def refused(self):
        raise RuntimeError("can't start new thread")

    readiness = watchdog_app.Readiness(asked)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        assert readiness.ask().take() is False


# ---- the queue ----


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def wait_in_queue(served, raw):
    """Return the connection of one more call, when it waits for a thread."""
    before = len(served.server.lead.queue)
    sock = served.connect()
    sock.sendall(raw)
    wait_for(lambda: len(served.server.lead.queue) > before, "a call that waits")
    return sock


@pytest.mark.parametrize(
    ("raw", "stream_request"), [(GET % b"/gone", False), (UPLOAD % b"/gone", True)], ids=["complete", "arriving"]
)
def test_calls_of_callers_that_have_gone_are_not_run(raw, stream_request, log):
    with busy(threads=1, queued=0) as (held, served, _):
        served.server.streams = stream_request
        for sock in [wait_in_queue(served, raw) for _ in range(5)]:
            reset(sock)
        with wait_in_queue(served, GET % b"/there") as there:
            held.gate.set()
            assert read_answer(there.recv(1000))[0].body == b"/there"
        assert held.runs == ["/held", "/there"]
        wait_for(lambda: len(served.server.connections) <= 1, "the end of their connections")
    assert log.getvalue() == ""


@pytest.mark.parametrize(("waited", "status"), [(0.0, 200), (1.1, 503)])
def test_caller_that_has_ended_its_side_is_answered_and_its_call_is_not_run_late(waited, status, log):
    clock = Clock()
    with busy(threads=1, queued=0, clock=clock) as (held, served, _), wait_in_queue(served, GET % b"/half") as half:
        half.shutdown(socket.SHUT_WR)
        clock.ahead += waited
        held.gate.set()
        answer = read_answer(half.recv(1000))[0]
        assert (answer.status, answer.header("Retry-After")) == (status, "1" if status == 503 else None)
        assert held.runs == ["/held", "/half"][: 2 if status == 200 else 1]
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    ("exec_timeout", "fields", "waited", "status"),
    [
        pytest.param("10s", b"", 5.0, 200, id="within exec_timeout"),
        pytest.param("10s", b"", 10.1, 503, id="beyond exec_timeout"),
        pytest.param("10s", b"X-Timeout: 2s\r\n", 2.1, 503, id="beyond X-Timeout"),
        pytest.param("10s", b"X-Timeout: 20s\r\n", 10.1, 503, id="a larger X-Timeout"),
        pytest.param("10s", b"X-Timeout: soon\r\n", 5.0, 200, id="an X-Timeout that is none"),
        pytest.param("0", b"X-Timeout: 2s\r\n", 100, 200, id="no limit"),
    ],
)
def test_call_whose_time_is_over_before_it_starts_is_not_run(exec_timeout, fields, waited, status, log):
    clock, raw = Clock(), b"GET /late HTTP/1.1\r\nHost: test\r\n%b\r\n" % fields
    with (
        busy(threads=1, queued=0, clock=clock, exec_timeout=exec_timeout) as (held, served, _),
        contextlib.ExitStack() as stack,
    ):
        late = [stack.enter_context(wait_in_queue(served, raw)) for _ in range(2)]
        clock.ahead += waited
        held.gate.set()
        answers = [read_answer(sock.recv(1000))[0] for sock in late]
        assert [(answer.status, answer.header("Retry-After"), answer.closes) for answer in answers] == [
            (status, "1" if status == 503 else None, False)
        ] * 2
        assert len(held.runs) == (1 if status == 503 else 3)
    warning = "WARNING calls have waited for a thread until their time was over, and were not run: 503\n"
    assert log.getvalue() == (warning if status == 503 else "")
