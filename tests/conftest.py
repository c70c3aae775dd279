"""What the tests share: a function called through wsgiref's validator, a server in this process, and one in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = Path(__file__).resolve().parent / "functions"
sys.path.insert(0, str(ROOT))
pytest.register_assert_rewrite(
    "scheduler_checks", "scheduler_faults", "scheduler_model", "scheduler_replay"
)  # so that they hold under -O too

import watchdog_app  # noqa: E402

DEADLINE = 10.0  # seconds after which a test gives up waiting
RESET = struct.pack("ii", 1, 0)  # the value of SO_LINGER with which a close is a reset


class Answer(NamedTuple):
    """One response, read strictly."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the one value of `name`; fail where it came twice."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        return self.header("Connection") == "close"

    @property
    def text(self) -> str:
        return self.body.decode()


def read_answer(data: bytes, method: str = "GET") -> tuple[Answer, bytes]:
    """Read one response from the front of `data` as a strict client would; return it with the bytes behind it."""
    head, found, rest = data.partition(b"\r\n\r\n")
    assert found, f"no complete head in {data!r}"
    lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]+", lines[0])
    assert match, lines[0]
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
    answer = Answer(int(match[1]), headers, b"")
    if match[1][0] == "1" or match[1] in ("204", "304") or method == "HEAD":
        return answer, rest
    if answer.header("Transfer-Encoding") == "chunked":
        body, rest = read_chunks(rest)
    else:
        length = answer.header("Content-Length")
        end = len(rest) if length is None else int(length)
        assert len(rest) >= end, "the body is cut"
        body, rest = rest[:end], rest[end:]
    return answer._replace(body=body), rest


def read_chunks(data: bytes) -> tuple[bytes, bytes]:
    """Read a chunked body; return it with the bytes behind it."""
    pieces, position = [], 0
    while True:
        line = re.compile(rb"([0-9a-f]+)\r\n").match(data, position)
        assert line, f"not a chunk: {data[position : position + 100]!r}"
        start, size = line.end(), int(line[1], 16)
        position = start + size + 2
        assert data[start + size : position] == b"\r\n", "a chunk is cut"
        pieces.append(data[start : start + size])
        if not size:
            return b"".join(pieces), data[position:]


def read_answers(data: bytes) -> list[Answer]:
    """Read all responses in `data`."""
    answers = []
    while data:
        answer, data = read_answer(data)
        answers.append(answer)
    return answers


def call(
    function: Callable[[Any, Any], Any], method: str = "GET", target: str = "/", body: bytes = b"", **environ: Any
) -> Answer:
    """Call a function through the application half alone, with wsgiref's validator on both sides of it.

    `environ` has more variables, such as HTTP_X_CALL_ID or CONTENT_TYPE; `settings` and `env` are the application's.
    """
    settings = environ.pop("settings", None) or watchdog_app.Settings()
    application = watchdog_app.Application(function, settings, environ.pop("env", {}))
    path, _, query = target.partition("?")
    variables = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_URI": target,
    }
    variables |= {"wsgi.input": io.BytesIO(body), "HTTP_HOST": "test"}
    if body:
        variables["CONTENT_LENGTH"] = str(len(body))
    variables.update(environ)
    setup_testing_defaults(variables)
    started: list[Any] = []
    result = validator(application)(
        variables, lambda status, headers, exc_info=None: started.append((status, headers)) or (lambda data: None)
    )
    try:
        content = b"".join(result)
    finally:
        result.close()
    status, headers = started[-1]
    return Answer(int(status[:3]), headers, content)


class Block(NamedTuple):
    """One Python block of a page, with the name in the comment before it, and the block called main.py before that, which it may import."""

    source: str
    name: str
    main: str


def python_blocks(page: str) -> list[Block]:
    """Return the Python blocks of a page, given by its path in the repository."""
    blocks, main = [], ""
    for name, source in re.findall(
        r"(?:<!-- ([^\n]*) -->\n)?```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL
    ):
        main = source if name == "main.py" else main
        blocks.append(Block(source, name, main))
    return blocks


def block_examples(blocks: list[Block]) -> list[tuple[Block, str]]:
    """Return each line `METHOD target [body] -> status text` in a comment of a block with its block."""
    return [(block, line) for block in blocks for line in re.findall(r"^# ([A-Z]+ .*)$", block.source, re.MULTILINE)]


def load_block(block: Block, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Any], Any]:
    """Run a block as a function's module and return its `handle`; a stand-in is there for flask where that is not installed."""
    if not importlib.util.find_spec("flask"):
        monkeypatch.setitem(sys.modules, "flask", importlib.import_module("flask_standin"))
        if "Flask(" in block.source:
            pytest.skip("flask is not installed")
    for name, source in (("main", block.main), ("handler", block.source)):
        spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
        module = importlib.util.module_from_spec(spec)  # with a loader, which tracebacks of Python 3.15 ask for
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, f"{name}.py", "exec"), vars(module))
    handle: Callable[[Any, Any], Any] = module.handle
    return handle


def check_block(block: Block, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the request of one of a block's lines, and compare the answer with what the line says."""
    request, _, expected = line.partition(" -> ")
    method, target, *body = request.split(" ")
    status, _, text = expected.partition(" ")
    answer = call(load_block(block, monkeypatch), method, target, " ".join(body).encode())
    assert (answer.status, answer.text.rstrip("\n")) == (int(status), text.replace("\\n", "\n"))


def table_rows(table: str) -> list[list[str]]:
    """Return the rows of a page's table below its head, as lists of cells."""
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table.splitlines()[2:]]


class Serving:
    """A server in this process, and ways to talk to it."""

    def __init__(self, server: watchdog_app.Server, port: int) -> None:
        self.server, self.port = server, port

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def talk(self, raw: bytes, slices: int = 0, half_close: bool = True) -> bytes:
        """Send `raw`, whole or in slices of so many bytes; return all that comes back until the server closes."""
        with self.connect() as sock:
            try:
                for start in range(0, len(raw), slices or len(raw)):
                    sock.sendall(raw[start : start + (slices or len(raw))])
                if half_close:
                    sock.shutdown(socket.SHUT_WR)
            except OSError:  # refused, and closed before all was sent
                pass
            return read_all(sock)

    def get(self, target: str = "/", **headers: str) -> Answer:
        """Send one GET on a connection of its own."""
        return self.request("GET", target, b"", **headers)

    def request(self, method: str, target: str = "/", body: bytes = b"", **headers: str) -> Answer:
        """Send one request on a connection of its own."""
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        raw = (
            f"{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}{length}\r\n".encode("latin-1")
            + body
        )
        answer, rest = read_answer(self.talk(raw), method)
        assert not rest, f"more than one answer: {rest!r}"
        return answer


def read_all(sock: socket.socket) -> bytes:
    """Read until the end, or a reset."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def wait_for(condition: Callable[[], Any], what: str = "the condition", seconds: float | None = None) -> Any:
    """Look every few milliseconds until `condition` holds; fail after so many seconds, by default DEADLINE."""
    end = time.monotonic() + (seconds or DEADLINE)
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.002)
    return value


def pause(seconds: float) -> None:
    """Let time pass, where its length is what the test is about. What waits for something waits by `wait_for`."""
    time.sleep(seconds)


class Gate:
    """A FIFO at which a function in a process of its own waits until the test lets it go on.

    wait: the statement that the function waits by. It needs no import, and none is made in it: what it is to find out may be how little is left.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path, self.writer = path, -1
        self.wait = f"with open({str(path)!r}) as gate: gate.read()"

    def reached(self) -> None:
        """Wait until the function is there."""
        self.writer = wait_for(self._entered, "the function at the gate")

    def _entered(self) -> int:
        with contextlib.suppress(OSError):  # ENXIO: nobody reads
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return 0

    def open(self) -> None:
        """Let the function go on."""
        os.close(self.writer)


def connections_to(port: int) -> int:
    """Return how many connections to a port of 127.0.0.1 there are, accepted or not."""
    address, established = f"0100007F:{port:04X}", "01"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(row[2:4] == [address, established] for row in rows)


@contextlib.contextmanager
def serving_application(
    application: Any, clock: Callable[[], float] = time.monotonic, **settings: str
) -> Iterator[Serving]:
    """Serve a WSGI application on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = watchdog_app.Server(listener, application, watchdog_app.Settings(**settings), clock)

    def watch() -> None:
        while not server.lead.stopped:
            server.monitor()

    monitor = threading.Thread(target=watch)
    server.start()
    monitor.start()
    try:
        yield Serving(server, listener.getsockname()[1])
    finally:
        server.stop()
        server.wake()
        monitor.join(DEADLINE)
        wait_for(lambda: server.lead.workers == 0, "the end of the server's threads")
        server.close()


@contextlib.contextmanager
def serving(function: Callable[[Any, Any], Any], **settings: str) -> Iterator[Serving]:
    """Serve a function on a port of its own."""
    application = watchdog_app.Application(function, watchdog_app.Settings(**settings), {"HOSTNAME": "test"})
    with serving_application(application, **settings) as served:
        yield served


class Process:
    """The module as a program, in a process of its own."""

    def __init__(self, popen: subprocess.Popen[bytes], port: int) -> None:
        self.popen, self.pid, self.port = popen, popen.pid, port

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and what it logged."""
        _, log = self.popen.communicate(timeout=DEADLINE * 2)
        return self.popen.returncode, log.decode()

    def answers(self) -> bool:
        """Tell whether it answers a request."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                return read_all(sock).startswith(b"HTTP/1.1 ")
        except OSError:
            return False


def connect_and_get(port: int) -> bytes:
    """Return the body of the answer to one GET."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        return read_answer(read_all(sock))[0].body


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def clean_env(**variables: str) -> dict[str, str]:
    """Return this process's environment without settings of the runtime, and with `variables`."""
    hidden = {*watchdog_app.SETTINGS, "fprocess", "function_process", "mode", "HOSTNAME"}
    return {**{name: value for name, value in os.environ.items() if name not in hidden}, **variables}


# For the source of a function in a process of its own: how long it accepts after SIGTERM, where a test is not about that
BRIEFLY = "import sys\nsys.modules['__main__'].MOMENT = 0.1\n"


def process(target: Path | str, *flags: str, **env: str) -> contextlib.AbstractContextManager[Process]:
    """Run `python watchdog_app.py TARGET` on a port of its own, and kill it at the end if it still runs."""
    return run_program([sys.executable, *flags, str(ROOT / "watchdog_app.py"), str(target)], **env)


@contextlib.contextmanager
def run_program(command: Sequence[str | Path], cwd: Path | None = None, **env: str) -> Iterator[Process]:
    """Run a command that starts the module, as `process` does."""
    port = free_port()
    variables = clean_env(**{"upstream_url": f"http://127.0.0.1:{port}", **env})
    popen = subprocess.Popen(
        command, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield Process(popen, port)
    finally:
        popen.kill()
        popen.communicate()


def copy_checkout(folder: Path) -> Path:
    """Make `folder`, a copy of what a clone has, without what this machine made; return it."""
    ignore = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "build", "*.egg-info")
    return Path(shutil.copytree(ROOT, folder, symlinks=True, ignore=ignore))


def write(folder: Path, **sources: str) -> str:
    """Write modules into a folder; return the folder as TARGET."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return str(folder)


HANDLE = "def handle(event, context):\n    return "


@contextlib.contextmanager
def restored_imports() -> Iterator[None]:
    """Take back what an import puts into the process."""
    modules, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    try:
        yield
    finally:
        for name in sys.modules.keys() - modules.keys():
            del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:], sys.meta_path[:] = path, finders
        os.environ.pop(watchdog_app.FUNCTION_FOLDER, None)


class Log:
    """What the module has logged since the test began."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.text = capsys, ""

    def getvalue(self) -> str:
        """Return all of it."""
        self.text += self.capsys.readouterr().err
        return self.text


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Log:
    """What the module logs, and a memory without warnings."""
    monkeypatch.setattr(watchdog_app, "WARNED", set())
    return Log(capsys)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Where a function in a process of its own waits for the test."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Give an empty folder `handler` for a function; what its import leaves behind is taken back."""
    folder = tmp_path / "handler"
    folder.mkdir()
    with restored_imports():
        yield folder
