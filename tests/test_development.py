"""What is there for those who write functions: `invoke`, the request log, restart on change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from conftest import DEADLINE, ROOT, clean_env, connect_and_get, free_port, read_all, read_answer, wait_for

import watchdog_app
from watchdog_app import Function, HTTPError, invoke, watched_files, watched_folder


def echo(event, context):
    return {
        "method": event.method,
        "path": event.path,
        "query": event.query.to_dict(),
        "body": event.text,
        "type": event.headers.get("Content-Type"),
        "a": event.headers.get("X-A"),
    }


@pytest.mark.parametrize(
    ("arguments", "named", "seen"),
    [
        pytest.param((), {}, {"method": "GET", "path": "/", "query": {}, "body": "", "type": None}, id="nothing"),
        pytest.param(("POST", "/a%20b?x=1"), {}, {"method": "POST", "path": "/a b", "query": {"x": "1"}}, id="target"),
        pytest.param(("GET", "/%C3%BC"), {}, {"path": "/ü"}, id="target in UTF-8"),
        pytest.param(("POST",), {"body": b"x"}, {"body": "x", "type": None}, id="bytes"),
        pytest.param(("POST",), {"body": "ü"}, {"body": "ü"}, id="text"),
        pytest.param(("POST",), {"json": {"a": [1]}}, {"body": '{"a":[1]}', "type": "application/json"}, id="JSON"),
        pytest.param(("POST",), {"json": None}, {"body": "null"}, id="JSON null"),
        pytest.param(
            ("POST",), {"form": {"a": "b c"}}, {"body": "a=b+c", "type": "application/x-www-form-urlencoded"}, id="form"
        ),
        pytest.param((), {"headers": {"X-A": "b"}}, {"a": "b"}, id="headers"),
        pytest.param((), {"headers": [("X-A", "b"), ("x-a", "c")]}, {"a": "b, c"}, id="pairs"),
        pytest.param(
            ("POST",), {"json": 1, "headers": {"content-type": "a/b"}}, {"type": "a/b"}, id="own Content-Type"
        ),
    ],
)
def test_function_sees_what_is_given(arguments, named, seen):
    answer = invoke(echo, *arguments, **named).json()
    assert {name: answer[name] for name in seen} == seen


def test_answer_has_status_headers_body_text_and_json():
    answer = invoke(lambda event, context: ({"a": "ü"}, 201, {"Set-Cookie": ["a=1", "b=2"]}))
    assert (answer.status, answer.headers["content-type"], answer.json()) == (201, "application/json", {"a": "ü"})
    assert (answer.body, answer.text) == ('{"a":"ü"}'.encode(), '{"a":"ü"}')
    assert answer.headers.getlist("Set-Cookie") == ["a=1", "b=2"]
    assert "201" in repr(answer)


async def later(event, context):
    await asyncio.sleep(0)
    return "x"


async def items(event, context):
    yield "a"
    yield "b"


def writes(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])(b"a")
    return [b"b"]


@pytest.mark.parametrize(
    ("handle", "pieces"),
    [
        pytest.param(lambda event, context: iter(["a", "b"]), [b"a", b"b"], id="iterator"),
        pytest.param(items, [b"a", b"b"], id="async generator"),
        pytest.param(later, [b"x"], id="coroutine"),
        pytest.param(
            Function(lambda event, context: event.stream.read(), stream_request=True), [b""], id="stream_request"
        ),
        pytest.param(lambda event, context: writes, [b"a", b"b"], id="WSGI response"),
    ],
)
def test_streams_are_iterated(handle, pieces):
    assert list(invoke(handle)) == pieces
    assert invoke(handle).body == b"".join(pieces)
    assert invoke(handle, "HEAD").body == b""


def test_stream_is_closed_when_only_its_head_is_asked_for():
    ended = threading.Event()

    async def endless(event, context):
        try:
            while True:
                yield "x"
        finally:
            ended.set()

    assert invoke(endless, "HEAD").body == b""
    assert ended.wait(10)


def test_wsgi_application_may_be_a_generator():
    def application(environ, start_response):
        start_response("201 Created", [])
        yield b"x"

    answer = invoke(lambda event, context: application)
    assert (answer.status, answer.body) == (201, b"x")


def test_stream_is_closed_when_its_answer_is():
    closed = threading.Event()

    def endless(event, context):
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    answer = invoke(endless)
    assert next(iter(answer)) == b"x"
    answer.close()
    assert closed.is_set()


def fails(event, context):
    return 1 / 0


async def fails_later(event, context):
    return 1 / 0


def refuses(event, context):
    raise HTTPError(418)


@pytest.mark.parametrize("handle", [fails, fails_later])
def test_exception_is_a_500_or_let_through(handle, log):
    assert invoke(handle).status == 500
    with pytest.raises(ZeroDivisionError):
        invoke(handle, raise_errors=True)
    assert invoke(refuses, raise_errors=True).status == 418


def test_what_a_wsgi_application_has_written_and_yields_comes_in_order_and_is_closed():
    class Items:
        closed = False

        def __iter__(self):
            return iter([b"b", b"c"])

        def close(self):
            Items.closed = True

    def response(environ, start_response):
        start_response("200 OK", [])(b"a")
        return Items()

    assert invoke(lambda event, context: response).body == b"abc"
    assert Items.closed


@pytest.mark.parametrize(
    ("arguments", "named", "says"),
    [
        pytest.param(
            ("GET",), {"handle": None}, "handle is None: it takes a function of event and context", id="handle"
        ),
        pytest.param(
            ("GET",),
            {"handle": "handler"},
            "handle is 'handler': it takes a function of event and context",
            id="name of a handle",
        ),
        pytest.param(("G T",), {}, "method 'G T', target '/' or headers would be refused", id="method"),
        pytest.param(
            ("GET", "/ü"), {}, "would be refused by a server: encode the target, as in /a%20b", id="target not encoded"
        ),
        pytest.param(
            ("TRACE",),
            {},
            "method 'TRACE', target '/' or headers would be refused by a server",
            id="method that is refused",
        ),
        pytest.param(("GET", "a"), {}, "target 'a' or headers .*: encode the target", id="target"),
        pytest.param(("GET", "/a b"), {}, "target '/a b' or headers .*: encode the target", id="target with a space"),
        pytest.param((), {"body": {"a": 1}}, "body is {'a': 1}: it takes bytes or text; json=", id="body"),
        pytest.param((), {"body": "\ud800"}, r"body '\\ud800' is not valid Unicode", id="body that is no Unicode"),
        pytest.param(
            (),
            {"json": {"a": echo}},
            "a = <function echo .* of type function cannot be sent as JSON",
            id="JSON",
        ),
        pytest.param((), {"json": float("nan")}, "= nan of type float cannot be sent as JSON", id="JSON of NaN"),
        pytest.param((), {"body": "x", "json": 1}, "body, json and form exclude each other", id="two bodies"),
        pytest.param((), {"form": "x"}, "not a valid non-string sequence or mapping object", id="form"),
        pytest.param((), {"headers": {"X": "a\nb"}}, "header X with value .* cannot be sent", id="header"),
        pytest.param((), {"headers": {"X": 5}}, "header X with value 5 cannot be sent", id="number as a header"),
        pytest.param(
            (),
            {"headers": {"Host": "a b"}},
            "or headers would be refused by a server",
            id="header that is refused",
        ),
        pytest.param((), {"headers": 7}, "headers 7 cannot be sent: they take a dict", id="headers"),
    ],
)
def test_wrong_use_names_the_argument_and_what_it_takes(arguments, named, says):
    handle = named.pop("handle", echo)
    with pytest.raises((TypeError, ValueError), match=says):
        invoke(handle, *arguments, **named)


def with_bytecode(**variables):
    """Return an environment in which Python writes bytecode, as it does where nobody has switched that off."""
    return {name: value for name, value in clean_env(**variables).items() if name != "PYTHONDONTWRITEBYTECODE"}


class Reloading:
    """The program with --reload."""

    def __init__(self, target, tmp_path, *flags, **env):
        self.port = free_port()
        self.log = tmp_path / f".log_{self.port}"  # hidden, so that it is not watched
        command = [
            sys.executable,
            str(ROOT / "watchdog_app.py"),
            str(target),
            "--reload",
            "--bind",
            f"127.0.0.1:{self.port}",
            *flags,
        ]
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=with_bytecode(**env)
            )

    def body(self):
        try:
            return connect_and_get(self.port)
        except (OSError, AssertionError):  # nobody listens, or the restart has closed the connection before the request
            return b""


@pytest.fixture
def reloading(tmp_path):
    started = []

    def start(target, *flags, **env):
        started.append(Reloading(target, tmp_path, *flags, **env))
        return started[-1]

    yield start
    for program in started:
        program.popen.send_signal(signal.SIGTERM)
        try:
            assert program.popen.wait(DEADLINE) == 0
        finally:
            program.popen.kill()
            program.popen.wait()


def test_change_is_served_a_syntax_error_is_shown_and_waits_and_requests_are_logged(reloading, tmp_path):
    folder = tmp_path / "function"
    folder.mkdir()
    (folder / "handler.py").write_text("from .words import WORD\ndef handle(event, context): return WORD\n")
    (folder / "words.py").write_text("WORD = 'one'\n")
    program = reloading(folder)
    wait_for(lambda: program.body() == b"one", "the first answer")
    (folder / "words.py").write_text("WORD = 'two'\n")
    wait_for(lambda: program.body() == b"two", "the changed answer")
    (folder / "words.py").write_text("WORD = \n")
    wait_for(lambda: "waiting for a change" in program.log.read_text(), "the wait")
    assert "SyntaxError" in program.log.read_text()
    (folder / "words.py").write_text("WORD = 'three'\n")
    wait_for(lambda: program.body() == b"three", "the mended answer")
    assert re.search(r"^INFO GET / 200 [0-9.]+ ms$", program.log.read_text(), re.MULTILINE)
    assert "INFO words.py changed: starting again" in program.log.read_text()


def test_restart_calls_shutdown(reloading, tmp_path):
    file = tmp_path / "handler.py"
    source = "def shutdown(context): print('shut down')\ndef handle(event, context): return 'one'\n"
    file.write_text(source)
    program = reloading(file)
    wait_for(lambda: program.body() == b"one", "the first answer")
    file.write_text(source.replace("one", "two"))
    wait_for(lambda: program.body() == b"two", "the changed answer")
    assert "shut down\n" in program.log.read_text()


SECOND = 1_700_000_000 * 10**9  # a whole one, in nanoseconds


def edit(file, word, nanosecond):
    """Write a file of one length, at this time within one second: bytecode is known by seconds and length."""
    file.write_text(f"WORD = {word!r}\n")
    os.utime(file, ns=(SECOND, SECOND + nanosecond))


def test_edits_of_one_length_within_one_second_are_served(reloading, tmp_path):
    folder = tmp_path / "function"
    folder.mkdir()
    (folder / "handler.py").write_text("from .words import WORD\ndef handle(event, context): return WORD\n")
    words = folder / "words.py"
    edit(words, "aaa", 1)
    program = reloading(folder)
    for nanosecond, word in enumerate(("aaa", "bbb", "ccc"), 1):
        edit(words, word, nanosecond)
        wait_for(lambda: program.body() == word.encode(), f"{word}, not {program.body()}")
    assert not [*folder.rglob("*.pyc")], "it wrote bytecode"


def test_it_says_how_to_stop_and_shows_tracebacks_unless_debug_is_set(reloading, tmp_path):
    file = tmp_path / "handler.py"
    file.write_text("def handle(event, context): return 1 / 0\n")
    program = reloading(file)
    assert b"ZeroDivisionError" in wait_for(program.body, "an answer")
    assert "Ctrl+C to stop" in program.log.read_text()
    quiet = reloading(file, debug="false")
    assert b"ZeroDivisionError" not in wait_for(quiet.body, "an answer")


@pytest.mark.parametrize(
    ("line", "warnings"),
    [
        pytest.param("event.method", 1, id="forgotten"),
        pytest.param("return '', 204", 0, id="what the warning says"),
        pytest.param("return {'statusCode': 204}", 0, id="envelope"),
    ],
)
def test_a_forgotten_return_is_one_warning(line, warnings, reloading, tmp_path):
    file = tmp_path / "handler.py"
    file.write_text(f"def handle(event, context): {line}\n")
    program = reloading(file)
    seen = wait_for(lambda: program.body() or re.findall("^INFO GET / 204 .*\n", program.log.read_text(), re.M), "it")
    assert seen and program.body() == b""
    wait_for(lambda: program.log.read_text().count("INFO GET / 204") > 1, "the second request in the log")
    assert program.log.read_text().count("WARNING None was sent as status 204: is a `return` missing?") == warnings


def test_folder_that_is_watched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert watched_folder("") == str(ROOT / "handler")
    (tmp_path / "handler.py").touch()
    assert watched_folder("") == str(tmp_path)
    assert watched_folder(str(tmp_path)) == str(tmp_path)
    assert watched_folder("handler.py") == str(tmp_path)
    assert watched_folder("../" + tmp_path.name) == str(tmp_path), "as modules are named, whose bytecode is not read"
    assert watched_folder("some.module:handle") == str(tmp_path)


def test_files_that_are_watched(tmp_path):
    watched = ("handler.py", "parts/words.py", "page.html", "parts/data.json", "env/pyvenv.cfg")
    others = (".venv/other.py", ".hidden", "env/lib/other.py", "__pycache__/old.pyc", "parts/node_modules/other.js")
    for name in watched + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.py").symlink_to("nowhere")
    assert set(watched_files(str(tmp_path))) == {str(tmp_path / name) for name in watched}


SHOWS_ENV = """
import os

def handle(event, context):
    return {name: os.environ.get(name) for name in ("A", "B", "C")}, int(event.query.get("status", 200))
"""


def log_on_a_terminal(file, **env):
    """Return what --reload logs on a terminal for responses of each kind of status."""
    ours, terminal = pty.openpty()
    port = free_port()
    command = [sys.executable, str(ROOT / "watchdog_app.py"), str(file), "--reload", "--bind", f"127.0.0.1:{port}"]
    popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=terminal, env=clean_env(**env))
    os.close(terminal)
    try:
        for status in (200, 302, 404, 503):
            wait_for(lambda: is_answered(port, status), "an answer")
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(DEADLINE) == 0
        log = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(ours, 65536):
                log += piece
        return log.decode()
    finally:
        popen.kill()
        popen.wait()
        os.close(ours)


def is_answered(port, status):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        sock.sendall(f"GET /?status={status} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        return read_answer(read_all(sock))[0].status == status


def test_status_is_in_colour_on_a_terminal_only(tmp_path, reloading):
    file = tmp_path / "handler.py"
    file.write_text(SHOWS_ENV)
    log = log_on_a_terminal(file, NO_COLOR="")
    colours = re.findall(r"INFO GET /\?status=(\d+) \x1b\[(\d+)m(\d+)\x1b\[0m [0-9.]+ ms", log)
    assert colours == [("200", "32", "200"), ("302", "33", "302"), ("404", "31", "404"), ("503", "91", "503")]
    for env in ({"NO_COLOR": "1"}, {"log_format": "json"}):
        log = log_on_a_terminal(file, **env)
        assert "\x1b" not in log and log.count("GET /?status=") == 4
    program = reloading(file)
    wait_for(program.body, "an answer")
    assert "\x1b" not in program.log.read_text() and "INFO GET / 200" in program.log.read_text()


def test_env_file_is_read_only_if_it_is_named_and_anew_at_each_start(tmp_path, reloading, monkeypatch):
    folder = tmp_path / "function"
    folder.mkdir()
    (folder / "handler.py").write_text(SHOWS_ENV)
    (folder / ".env").write_text("A=1\nB=2\n")
    monkeypatch.chdir(folder)
    program = reloading(folder, C="of the environment")
    assert json.loads(wait_for(program.body, "an answer")) == {"A": None, "B": None, "C": "of the environment"}
    program = reloading(folder, "--env-file", ".env", B="of the environment", C="of the environment")
    assert json.loads(wait_for(program.body, "an answer")) == {"A": "1", "B": "2", "C": "of the environment"}
    (folder / ".env").write_text("A=3\n")
    (folder / "handler.py").write_text(SHOWS_ENV + "\n")
    wait_for(lambda: b'"A":"3"' in program.body(), "the new value")


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        pytest.param("A=1\nB_2=b c\n", {"A": "1", "B_2": "b c"}, id="lines"),
        pytest.param("A=\nB=''\n", {"A": "", "B": ""}, id="empty values"),
        pytest.param("\n# a note\n  A = 1  # another\n", {"A": "1"}, id="notes and spaces"),
        pytest.param("A=a#b\nB='c # d' # e\n", {"A": "a#b", "B": "c # d"}, id="number sign in a value"),
        pytest.param("export A=\"1 'x'\"\r\nB=a=b\r\n", {"A": "1 'x'", "B": "a=b"}, id="as for a shell"),
        pytest.param("URL=p://a:b\\c@d/e?f='g'\n", {"URL": "p://a:b\\c@d/e?f='g'"}, id="taken as it is"),
    ],
)
def test_env_file_has_variables(text, variables, tmp_path):
    (tmp_path / "env").write_bytes(text.encode())
    assert watchdog_app.parse_arguments(["--env-file", str(tmp_path / "env")]) == ("", variables, False)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "env' is not valid: it takes a file of NAME=value lines", id="no file"),
        pytest.param(b"", "env' is not valid: it takes a file of NAME=value lines", id="empty"),
        pytest.param(b"\xff\xfe", "env' is not valid: it takes a file of NAME=value lines", id="no text"),
        pytest.param(b"A=1\nsecret\n", "env', line 2, is not valid: it takes", id="no value"),
        pytest.param(b"A='secret\n", "env', line 1, is not valid", id="open quote"),
        pytest.param(b"A-B=secret\n", "env', line 1, is not valid", id="no name"),
    ],
)
def test_env_file_that_is_not_valid_is_named_and_nothing_of_it_shown(content, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "env").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        watchdog_app.parse_arguments(["--env-file", "env", "--bind", "127.0.0.1:1"])
    assert ended.value.code == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert says in shown and "secret" not in shown


def test_help_and_version():
    for flag, says in {
        "--help": ["TARGET", "--bind HOST:PORT", "--reload", "--env-file FILE", "--version", "--help"],
        "--version": ["watchdog_app 0."],
    }.items():
        shown = subprocess.run(
            [sys.executable, str(ROOT / "watchdog_app.py"), flag],
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE,
        )
        assert all(text in shown.stdout for text in says)
