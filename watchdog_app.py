"""Run an OpenFaaS function behind of-watchdog: a WSGI application and a WSGI server, standard library only.

    handler/handler.py
        def handle(event, context):
            return {"statusCode": 200, "body": "You said: " + str(event.body)}

    $ python3 watchdog_app.py

`event` is the request: body, headers, method, query, path, raw_path, raw_query, text, json(), form(), files, cookies,
stream and environ. `context` describes the call: hostname, function_name, namespace, call_id, trace_id, deadline,
remaining(), cancelled, secret() and after(). The return value of `handle` becomes the response:

    {"statusCode": …, "headers": …, "body": …}     an envelope; also with status_code and response
    any other dict, a list, a number, …            200, application/json
    str                                            200, text/html
    bytes                                          200, application/octet-stream
    None                                           204
    (body, status), (body, headers) or (body, status, headers)
    an open file, a generator or an iterator       streamed item by item
    a WSGI response (from Flask or Werkzeug)       sent unchanged

Raise HTTPError(status, body, headers) to respond by exception. After any other exception the caller gets a 500, and the
log a traceback.

The module has three parts. The server half knows nothing of events and results, and the application half nothing of
sockets; they meet only at the WSGI interface. The life cycle joins them and runs them behind of-watchdog.

 bytes ──► Request ──► environ ──► event ──► handle(event, context) ──► result ──► Response ──► bytes
 └───────── server half ────────┘ └──────────────── application half ───────────────┘ └─ server half ─┘
                                  ▲ environ / start_response (PEP 3333): the only seam ▲

Glossary: one word, one meaning.
    function    the user's module; handle: its entry point; result: the value that handle returns
    peer        the other end of a connection; caller: the client that waits for the response
    head        the request line or status line, and the header fields after it
    target      the second word of the request line, raw; path: its decoded path
    environ     the WSGI dictionary of one request
    response    a Response, made from a result
    connection  one socket; exchange: one request and its response on it
    lead        the right to poll the selector; exactly one thread, the leader, holds it
    in place    run by the leader; apart: run by a thread without the lead
    stuck       running in place for so long that the lead is passed on
    parked      of a thread: waiting for work
    discard     read an unwanted body and drop it; linger: discard after the last byte of the response
    in flight   of an exchange: begun and not finished
    drain       stop accepting, and finish the exchanges in flight
"""

from __future__ import annotations

import signal
import sys

if sys.version_info < (3, 11):  # noqa: UP036  # before anything that an older Python does not have
    needs = f"watchdog_app needs Python 3.11 or later, and this is {sys.version.split()[0]}"
    raise (SystemExit if __name__ == "__main__" else ImportError)(needs)
if __name__ == "__main__" and hasattr(signal, "pthread_sigmask"):
    # Before the slow imports: until Life handles SIGTERM, it would end this process and, with it, of-watchdog
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

import _thread
import os
import re
import select as selecting
import socket
import threading

# By name: a function that replaces these in their modules, as gevent and eventlet do, does not replace ours
from _thread import get_ident, start_new_thread
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence, Set, ValuesView
from contextvars import ContextVar, copy_context
from enum import Enum
from errno import EACCES, EADDRINUSE, EROFS
from functools import cache, lru_cache, partial
from io import BufferedReader, BytesIO, FileIO, RawIOBase, TextIOWrapper
from os import read as os_read
from os import write as os_write
from select import select
from threading import Lock, RLock
from time import gmtime, monotonic, perf_counter, sleep, strftime, time
from types import CodeType, FunctionType
from wsgiref.handlers import BaseHandler, format_date_time

Socket = socket.socket
poll: Any = getattr(selecting, "poll", None)  # not on Windows
epoll: Any = getattr(selecting, "epoll", None)  # Linux only
POLLIN, POLLOUT, POLLERR, POLLHUP, POLLNVAL = 1, 4, 8, 16, 32  # on every system that has poll
POLLRDHUP = 0x2000  # Linux only

TYPE_CHECKING = False  # importing typing takes 5 to 20 ms; type checkers treat this name as true
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
    from types import FrameType, ModuleType
    from typing import Any, BinaryIO, NoReturn, Self, TypeVar, TypeVarTuple, Unpack, overload
    from wsgiref.types import StartResponse, WSGIApplication

    T = TypeVar("T")
    Ts = TypeVarTuple("Ts")
    V = TypeVar("V")
    D = TypeVar("D")
    Taking = Generator[bool, bytes, T]  # see section 5
    RequestLine = tuple[str, str, bool, dict[str, str]]
    HeaderPairs = list[tuple[str, str]]
    HeadersArgument = Mapping[str, Any] | Iterable[tuple[str, Any]]
    Part = tuple[str, bool, "File"]  # of a form: its name, whether it has a filename, its content
    Callback = Callable[[], object]
    Clock = Callable[[], float]
    Handle = Callable[[Any, Any], Any]
    FileArgument = bytes | tuple[str, bytes] | tuple[str, bytes, str]

__version__ = "0.1.0"
__all__ = ["Answer", "Application", "Body", "Context", "Event", "File", "Function", "HTTPError", "Headers"]
__all__ += ["Query", "Server", "Settings", "invoke", "make_application"]


# ---- 1. Limits and settings: environment variables -> Settings -------------------------------------------------------

# Heads and bodies
MAX_LINE = 64 * 1024  # bytes of a request line, beyond it 414; few exceed 8 KiB, and no other server allows more
MAX_FIELDS = 200  # header fields, and trailer fields, beyond it 431; a browser sends about 20, the gateway adds 6
MAX_PARAMETERS = 1000  # query parameters, form fields or cookies, beyond it 413
MAX_PART_FIELDS = 10  # headers of one part of a form, and parameters of one header, beyond it 400
MAX_PART_HEAD = 4096  # bytes of a part's headers, beyond it 400
MAX_METHOD = 32  # bytes of a method, beyond it 501; the longest registered one, UPDATEREDIRECTREF, has 17
MAX_BLANK_LINES = 4  # empty lines before a request line (RFC 9112 §2.2: a server should ignore at least one)
MAX_CHUNK_LINE = 256  # bytes of a chunk's size and extensions; extensions are unused in practice
HEAD_SECONDS = 10.0  # from the first byte of a head to its last
BODY_RATE = 1024.0  # bytes a second that a body must average after read_timeout
BODY_SHARE = 4  # body_memory is the memory limit divided by this: event.body is a second copy, the function makes more
LINGER_SECONDS, LINGER_BYTES = 2.0, 16 << 20  # limits of discarding after a refusal, so that the peer can read it
HALF_CLOSED = 1.0  # seconds that a call may go on waiting after its peer has sent FIN, which may be a half-close
CACHE_ENTRIES, CACHE_LENGTH = 1024, 128  # limits of each cache and of a key's length: no peer can fill the memory

# Turns: the most work for one connection before the next one is served
CHUNKS_AT_ONCE = 256  # chunks of a body, which take 0.6 ms
TURN = 0.001  # seconds of receiving for one request
ACCEPT_AT_ONCE = 64  # connections accepted
RECEIVE = 64 * 1024  # bytes of one recv
JOINED = 64 * 1024  # bytes of a body or item that are copied into its framing for a single send; more is sent uncopied
PIECE = 64 * 1024  # bytes of one read of a streamed file
UNCOUNTED = 64 * 1024  # bytes of a JSON body up to which its objects do not count as body_memory

# Scheduling
STUCK = 0.002  # seconds after which a call in place is stuck
SLOW = 0.001  # average seconds above which calls are expected to block, and run apart
SAMPLE_LIMIT = 0.005  # seconds that one call contributes to the average at most, so that a single outlier hardly counts
WEIGHT = 0.1  # of the latest call in the average
PARKED_SECONDS = 10.0  # after which a parked thread ends
REST_AFTER = 0.05  # seconds without a call in place after which the monitor rests
SWITCH_INTERVAL = 0.001  # seconds; with the default of 5 ms, a short call waits up to 15 ms for a CPU-bound one
HELD_UP = 1.0  # seconds for which a coroutine may block the event loop before it is logged
TICK = 1.0  # seconds between checks of deadlines and of the server's own descriptors
ACCEPT_PAUSE = 0.05  # seconds without accept after it failed for lack of descriptors or memory
BACKLOG = 1024  # connections that wait in the kernel during the import, or while the leader is busy
LONGEST_POLL = 86400.0  # seconds; the kernel allows 24 days

# Log and shutdown
LOG_LINE = 60 * 1024  # bytes of a line; of-watchdog stops reading at a line of 64 KiB
LOG_PATIENCE = 5.0  # seconds that output waits for its reader before it is dropped
READY_SECONDS = 1.0  # time limit of `ready`, and lifetime of its result
MOMENT = 1.0  # seconds for which a server without of-watchdog accepts after SIGTERM, before callers know of it
STOP_LOOK = 0.05  # seconds between checks of what is left to do, once the process stops
LIBRARY = os.path.dirname(os.path.dirname(os.__file__)) + os.sep  # contains the standard library, a folder or a zip

DURATION = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}  # logging's numbers
FOREVER = float("inf")


def go_duration(text: str) -> float:
    """Convert a Go duration with units, such as `1m30s` or `500ms`, to seconds (time.ParseDuration)."""
    if text == "0":
        return 0.0
    if len(text) > 64 or not re.fullmatch(f"(?:{DURATION})+", text):
        raise ValueError("a duration such as 10s, 1m30s or 500ms")
    return sum(float(part[0].removesuffix(part[1])) * SECONDS[part[1]] for part in re.finditer(DURATION, text))


def duration(text: str) -> float:
    """Convert a duration in of-watchdog's syntax, plain seconds or Go's, to seconds."""
    return float(text) if re.fullmatch("[0-9]{1,9}", text) else go_duration(text)


def size(text: str) -> int:
    """Convert a size such as `100MB`, `256KB` or `4096` to bytes; units are powers of 1024."""
    match = re.fullmatch("([0-9]{1,15})(?:([KMG])(?:i?B)?|B)?", text, re.IGNORECASE | re.ASCII)
    if not match:
        raise ValueError("a size such as 4096, 256KB or 100MB")
    return int(match[1]) * SIZES[(match[2] or "").upper()]


def count(text: str) -> int:
    """Convert a whole number, 0 or more."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError("a whole number")
    return int(text)


def address(text: str) -> tuple[str, int]:
    """Convert `http://host:port` or `host:port` to the host (IPv6 without brackets) and the port."""
    match = re.fullmatch(r"(?:http://)?(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})/?", text)
    if not match or int(match[3]) > 65535:
        raise ValueError("an address such as http://127.0.0.1:5000")
    return match[1] or match[2], int(match[3])


def any_host(text: str) -> tuple[str, int]:
    """Convert a port to the address that accepts connections from other hosts."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError("a port such as 8080")
    return "0.0.0.0", int(text)  # noqa: S104


def checked(convert: Callable[[str], Any], is_valid: Callable[[Any], object], takes: str) -> Callable[[str], Any]:
    """Return a converter that refuses values that are not valid; `takes` is the text of its error."""

    def converted(text: str) -> Any:
        value = convert(text)
        if not is_valid(value):
            raise ValueError(takes)
        return value

    return converted


def one_of(values: Mapping[str, Any], takes: str) -> Callable[[str], Any]:
    """Return a converter that accepts only the keys of `values`, in any case; `takes` is the text of its error."""
    return checked(lambda text: values.get(text.lower()), lambda value: value is not None, takes)


switch = one_of({"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}, "true or false")
positive_size = checked(size, bool, "a size above 0, such as 4096, 256KB or 100MB")
pool_time = "a duration of at least 90s, for which of-watchdog may reuse an idle connection"


class SettingsError(ValueError):
    """An invalid setting or argument. The message is one line with its name, its value and the values it takes."""


def setting(convert: Callable[[str], Any], default: str) -> Any:
    """Declare a setting. Returns Any for type checkers: the attribute of an instance is the converted value."""
    return convert, default


class Settings:
    """The settings, read once; durations are in seconds, sizes in bytes.

    Arguments: the settings that differ from their defaults, in the text form of the environment.
    Raises SettingsError for an invalid value and TypeError for an unknown name.
    """

    host: str
    port: int
    names_port: bool
    # Each class attribute is a converter and a default as text; docs/reference.md has the same table
    upstream_url: tuple[str, int] = setting(address, "http://127.0.0.1:5000")
    http_upstream_url: tuple[str, int] = setting(address, "")
    PORT: tuple[str, int] = setting(any_host, "")
    exec_timeout: float | None = setting(duration, "0")
    read_timeout: float = setting(duration, "30s")
    write_timeout: float = setting(checked(duration, bool, "a duration above 0, such as 30s"), "30s")
    healthcheck_interval: float = setting(duration, "")
    max_inflight: int = setting(count, "0")
    suppress_lock: bool = setting(switch, "false")
    ready_on: str = setting(one_of({"listen": "listen", "startup": "startup"}, "listen or startup"), "listen")
    threads: int = setting(checked(count, bool, "a whole number above 0"), "512")
    max_body: int = setting(positive_size, "100MB")
    body_memory: int = setting(positive_size, "")
    max_head: int = setting(positive_size, "256KB")
    keep_alive: float = setting(checked(duration, lambda seconds: seconds >= 90, pool_time), "120s")
    log_level: int = setting(one_of(LEVELS, "debug, info, warning or error"), "info")
    log_format: str = setting(one_of({"text": "text", "json": "json"}, "text or json"), "text")
    debug: bool = setting(switch, "false")
    secret_dir: str = setting(str, "/var/openfaas/secrets")

    def __init__(self, **texts: str) -> None:
        if unknown := texts.keys() - SETTINGS.keys():
            raise TypeError(f"no such setting: {', '.join(sorted(unknown))}")
        if texts.get("http_upstream_url") or texts.get("upstream_url"):
            texts.pop("PORT", None)  # it may be a variable of the function's own, and not a number
        values = {name: read_setting(name, texts.get(name, "")) for name in SETTINGS}
        values["names_port"] = any(texts.get(name) for name in ("http_upstream_url", "upstream_url", "PORT"))
        values["host"], values["port"] = values.pop("http_upstream_url") or values.pop("PORT") or values["upstream_url"]
        if values["healthcheck_interval"] is None:
            values["healthcheck_interval"] = values["write_timeout"]
        values["exec_timeout"] = values["exec_timeout"] or None  # 0 means no limit, as in of-watchdog
        values["read_timeout"] = values["read_timeout"] or FOREVER
        values["threads"] = min(values["threads"], values["max_inflight"] or FOREVER)
        values["body_memory"] = values["body_memory"] or memory_limit() // BODY_SHARE
        values["max_body"] = min(values["max_body"], values["body_memory"])
        self.__dict__.update(values)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings from `env`, a mapping such as `os.environ`; its other names are ignored."""
        return cls(**{name: env[name] for name in SETTINGS if name in env})


# A class of Python 3.13 has a tuple of its own, __static_attributes__
SETTINGS = {name: made for name, made in vars(Settings).items() if name in Settings.__annotations__}


def read_setting(name: str, text: str) -> Any:
    """Convert the text of one setting, or its default if the text is empty; return None if both are empty."""
    convert, default = SETTINGS[name]
    try:
        if not isinstance(text, str):
            raise ValueError("text, as in the environment")
        return convert(text or default) if text or default else None
    except ValueError as takes:
        raise SettingsError(f"{name}={clipped(text)} is not valid: it takes {takes}") from None


def memory_limit() -> int:
    """Return the bytes that this process may use: its container's limit, or the machine's memory (cgroups(7))."""
    texts = [read_text(f"/sys/fs/cgroup/{name}") for name in ("memory.max", "memory/memory.limit_in_bytes")]
    sysconf = getattr(os, "sysconf", lambda name: 1 << 15)  # not on Windows, which does not serve: 1 GiB for tests
    machine = sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES")
    return min(int(text) if text and text.isdecimal() else machine for text in texts)  # it may be missing, or "max"


def read_text(path: str) -> str | None:
    """Return the stripped text of a file; None if it is empty or unreadable."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip() or None
    except (OSError, ValueError):
        return None


def remember(cache: dict[Any, Any], key: Any, value: Any, length: int) -> None:
    """Add `value` to a bounded cache: long keys are not kept, and a full cache is emptied."""
    if length <= CACHE_LENGTH:
        if len(cache) >= CACHE_ENTRIES:
            cache.clear()
        cache[key] = value


def clipped(value: object, length: int = 100) -> str:
    """Convert any value to printable ASCII of at most `length` characters, for logs and messages."""
    text = ascii(value[:length] if isinstance(value, (str, bytes)) else value)  # a caller's text may be 100 MB
    return text if len(text) <= length else text[: length - 3] + "..."


def shortened(text: str, length: int) -> str:
    """Cut text to about `length` characters: replace its middle with a note, since its ends tell the most."""
    half = length // 2
    cut = len(text) - 2 * half
    return f"{text[:half]}\n... {cut} more characters ...\n{text[len(text) - half :]}" if len(text) > length else text


# ---- 2. Errors: refusals with a status -------------------------------------------------------------------------------

PLAIN: HeaderPairs = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]
RETRY: HeaderPairs = [("Retry-After", "1")]  # for a 503: the load may be lower in a second


@cache
def status_line(status: int) -> str:
    """Convert a status to the text of a status line, such as `404 Not Found`."""
    if status == 200:
        return "200 OK"  # without the import, which takes 1 to 2 ms
    from http import HTTPStatus

    known = {int(member): member.phrase for member in HTTPStatus}
    return f"{status} {known.get(status, 'Unknown')}"


class HTTPError(Exception):
    """A response by exception: `raise HTTPError(404, {"error": "no such order"})`.

    Arguments: status, 200 to 599; body, of any type that the body of an envelope may have, or None for the status's
    phrase as text/plain; headers, a dict or pairs.
    """

    def __init__(self, status: int, body: Any = None, headers: HeadersArgument = ()) -> None:
        super().__init__(status, body)
        self.status, self.body, self.headers = status, body, headers


class Disconnected(Exception):
    """The peer has gone or has stopped reading; neither the function nor the server is at fault."""


class SenderGone(Disconnected):
    """The sender of a body has gone while the function was reading it."""


class BadRequest(HTTPError):
    """The request lacks a value that the function needs: a 400 with an explanation, unless the function catches it."""

    def __init__(self, text: str) -> None:
        super().__init__(400, text + "\n", PLAIN)

    def __str__(self) -> str:
        return str(self.body).rstrip()


class Missing(BadRequest, KeyError):
    """A missing header, query parameter, form field or cookie."""


class NotReadable(BadRequest, ValueError):
    """A body in another format than the function expects."""


# ---- 3. Log: records, and the files behind stdout and stderr ---------------------------------------------------------
#
# Any thread may call any function of this section.

CALL: ContextVar[Context | None] = ContextVar("call", default=None)  # for code of a call that runs outside its frame
CALL_CODE: set[CodeType] = set()  # of functions that run a call and have its context as the local `context`
WARNED: set[str] = set()
# Control characters to escape in a record; lines after a line feed are indented instead
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
CONTROLS |= {0x2028: "\\u2028", 0x2029: "\\u2029"}


class Log:
    """The log on stderr: one write per record. Failed writes are ignored, so that logging never fails a call."""

    def __init__(self) -> None:
        self.level = LEVELS["info"]
        self.make_record: Callable[..., str] = text_record

    def __call__(self, level: str, text: str, *more: Any) -> None:
        """Write one record, unless `level` is below the log's level. Arguments: those of `text_record`."""
        if LEVELS.get(level.lower(), LEVELS["error"]) < self.level:
            return
        try:
            output: Any = sys.stderr or sys.__stderr__  # the function may have set it to None
            output.write(self.make_record(level, text, *more))
            output.flush()
        except Exception:  # a broken pipe, a full disk, no file, or an object that the function has put in its place
            pass


def warn_once(message: str) -> None:
    """Log a warning, once per process for each distinct message."""
    if message not in WARNED and len(WARNED) < CACHE_ENTRIES:
        WARNED.add(message)
        log("WARNING", message)


def text_record(
    level: str, text: str, trace: str = "", call: Context | None = None, logger: str = "", extra: Mapping[str, Any] = {}
) -> str:
    """Make a record as text. Lines after the first are indented, so that no message can forge a record.

    Arguments: level; text; trace, a traceback to append; call, to which the record belongs; logger, its name in
    `logging`; extra, more fields, for JSON only.
    """
    of_call = f"call {clipped(call.call_id)} " if call else ""
    head = f"{level} {of_call}{logger and logger + ': '}{shortened(text, LOG_LINE)}"
    record = f"{head}\n{shortened(trace, LOG_LINE)}".strip().translate(CONTROLS)
    record = record.encode("utf-8", "backslashreplace").decode("utf-8")  # escape lone surrogates
    return record.replace("\n", "\n  ") + "\n"


def json_record(
    level: str, text: str, trace: str = "", call: Context | None = None, logger: str = "", extra: Mapping[str, Any] = {}
) -> str:
    """Make a record as one line of JSON; if the line would be too long, long values are cut visibly."""
    from json import dumps

    now, ids = time(), {"call_id": call.call_id, "trace_id": call.trace_id} if call else {}
    stamp = strftime("%Y-%m-%dT%H:%M:%S", gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    own = {"time": stamp, "level": level, "message": text, **ids, "logger": logger, "traceback": trace}
    own = {name: value for name, value in own.items() if value}
    length, fields = LOG_LINE, {**own, **extra, **own}
    while len(line := dumps({key: loggable(value, length) for key, value in fields.items()}, default=str)) >= LOG_LINE:
        length, fields = (length // 2, fields) if length > 100 else (LOG_LINE, own)  # too many extra fields
    return line + "\n"


def loggable(value: Any, length: int) -> Any:
    """Return `value` for a record in JSON: as text if it has no JSON form or a longer one than `length`; cut text."""
    from json import dumps

    if not isinstance(value, str):
        try:
            if len(dumps(value, default=str, allow_nan=False)) <= length:
                return value
        except (TypeError, ValueError, RecursionError):
            pass
    return shortened(str(value), length)


log = Log()


def whole_lines(text: Any, newline: Any) -> Iterator[Any]:
    """Cut text or bytes into pieces of whole lines, at most LOG_LINE each; longer lines are broken.

    Each piece is written in one step, under the GIL and perhaps a lock; other threads may run between two pieces.
    """
    start = 0
    while len(text) - start > LOG_LINE:
        end = text.rfind(newline, start, start + LOG_LINE + 1) + 1
        if end:
            yield text[start:end]
        else:
            end = start + LOG_LINE
            while newline == b"\n" and text[end] & 0xC0 == 0x80 and end > start + LOG_LINE - 3:  # inside a character
                end -= 1
            yield text[start:end] + newline
        start = end
    yield text[start:]


class TextOutput(TextIOWrapper):
    """sys.stdout or sys.stderr: long text is encoded piece by piece."""

    def write(self, text: str, /) -> int:
        for piece in whole_lines(text, "\n"):
            super().write(piece)
        return len(text)


class Output(FileIO):
    """The file behind stdout or stderr: breaks long lines, and drops output that is not read, so that no write hangs.

    of-watchdog stops reading for good at a line of 64 KiB; the pipe would fill, and every call that prints would hang.
    Output of other threads never interrupts a write of up to LOG_LINE bytes, and a longer one only between lines.
    Arguments: fd, which is never closed; name, for display.
    """

    def __init__(self, fd: int, name: str) -> None:
        super().__init__(fd, "wb", closefd=False)
        self.name = name
        self.column = 0  # length of the unfinished line
        self.lost = 0  # bytes dropped since the last successful write
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)  # the thread that holds it does not exist in the child

    def _renew_lock(self) -> None:
        self.lock = RLock()  # reentrant: a signal handler may print during a print

    def write(self, data: Any, /) -> int:
        """Write all of `data`, a bytes-like object; drop and count bytes that are not read within LOG_PATIENCE."""
        data = data if type(data) is bytes else memoryview(data).tobytes()
        for piece in whole_lines(data, b"\n"):
            with self.lock:
                notice = b"\nWARNING %d bytes of output are lost: nobody read them\n" % self.lost
                if self.lost and not self._put(notice):
                    self.column = self.lost = 0
                self.lost += self._put(self._with_break(piece))
        return len(data)

    def _with_break(self, piece: bytes) -> bytes:
        """Return `piece`, after a line break if it would make the unfinished line too long."""
        if self.column and self.column + len(piece.partition(b"\n")[0]) > LOG_LINE:
            piece = b"\n" + piece
        tail = len(piece) - piece.rfind(b"\n") - 1
        self.column = tail if b"\n" in piece else self.column + tail
        return piece

    def _put(self, data: bytes) -> int:
        """Write `data`, and wait for the reader unless output has been lost; return the number of bytes not written."""
        rest = memoryview(data)
        try:
            while rest and select((), (self,), (), 0 if self.lost else LOG_PATIENCE)[1]:
                rest = rest[os_write(self.fileno(), rest[: selecting.PIPE_BUF]) :]  # a writable pipe has room for these
        except (OSError, ValueError):  # a broken pipe, a full disk, a closed descriptor
            pass
        return len(rest)


class ImportHook:
    """Calls `set_up(module)` as soon as the function has imported the module `name` (importlib.abc.MetaPathFinder)."""

    def __init__(self, name: str, set_up: Callable[[Any], None]) -> None:
        self.name, self.set_up = name, set_up

    def install(self) -> None:
        """Wait for the import, unless the module is there already, for example from a sitecustomize."""
        if self.name in sys.modules:
            self.set_up(sys.modules[self.name])
        else:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find the module with the other finders, and make its loader call `set_up`; only the first time."""
        if name != self.name:
            return None
        self.name = ""
        from importlib.util import find_spec

        spec: Any = find_spec(name)
        loader, execute = spec.loader, spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            if module.__name__ == name:  # the modules of a zip share one loader
                del loader.exec_module
                self.set_up(module)

        loader.exec_module = exec_module
        return spec


def set_up_logging(logging: Any) -> None:
    """Let `logging` work without configuration: records at log_level or above go to this log, each with its call id.

    The function's own configuration wins: this is not a handler but logging's last resort, used while there is no
    handler. `basicConfig` with a level at most, as `logging.info` calls it, would replace it with a poorer one.
    """

    def make_record(*arguments: Any, **more: Any) -> Any:
        record = make_plain_record(*arguments, **more)
        call = running_call()
        record.call_id = call.call_id if call else ""
        return record

    def basic_config(**named: Any) -> None:
        if logging.root.handlers or named.keys() - {"level"}:
            configure(**named)
        elif "level" in named:
            logging.root.setLevel(named["level"])

    make_plain_record, configure = logging.getLogRecordFactory(), logging.basicConfig
    logging.setLogRecordFactory(make_record)
    own = {*vars(logging.makeLogRecord({})), "message", "asctime"}  # the attributes that are not `extra`
    logging.basicConfig = basic_config
    logging.lastResort.setLevel(logging.NOTSET)
    logging.lastResort.emit = partial(log_record, own)
    logging.lastResort.lock = RLock()  # gevent's lock fails across threads
    if not logging.root.handlers and logging.root.level == logging.WARNING:  # not configured yet
        logging.root.setLevel(log.level)


def log_record(own: set[str], record: Any) -> None:
    """Write a record of `logging` to this log (logging.Handler.emit); attributes that are not in `own` are extra."""
    try:
        error = record.exc_info and record.exc_info[1]
        trace = (format_traceback(error, of_function=True) if error else "") + (record.stack_info or "")
        extra = {name: value for name, value in vars(record).items() if name not in own}
        log(record.levelname, record.getMessage(), trace, running_call(), record.name or "", extra)
    except Exception:
        from logging import lastResort

        lastResort.handleError(record)  # type: ignore[union-attr]


def running_call() -> Context | None:
    """Return the context of the running call. It is found in the call's frame, so that calls that do not log pay
    nothing; in threads, tasks and streams it is in CALL.
    """
    frame: Any = None if CALL.get() else sys._getframe()
    while frame and frame.f_code not in CALL_CODE:
        frame = frame.f_back
    return frame.f_locals["context"] if frame else CALL.get()


def in_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `function` so that it belongs to the running call in another thread too; keep only the ids, not the body."""
    call = running_call()
    traceparent = call._environ.get("HTTP_TRACEPARENT", "") if call else ""
    ids = call and type(call)({"HTTP_X_CALL_ID": call.call_id, "HTTP_TRACEPARENT": traceparent})

    def run(*arguments: Any, **named: Any) -> Any:
        CALL.set(ids)
        return function(*arguments, **named)

    return run


def track_threads() -> None:
    """Make each thread belong to the call that starts it."""
    start = threading.Thread.start

    def start_in_call(thread: threading.Thread) -> None:
        thread.run = in_call(thread.run)  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = start_in_call  # type: ignore[method-assign,assignment]


def set_up_pools(futures: Any) -> None:
    """Make each task of a thread pool belong to the call that submits it; the pool's threads outlive that call."""
    submit = futures.ThreadPoolExecutor.submit

    def submit_in_call(pool: Any, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
        return submit(pool, in_call(function), *arguments, **named)

    futures.ThreadPoolExecutor.submit = submit_in_call


def log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    """Log a thread's exception as one record (threading.excepthook); the default hook makes several writes."""
    if failure.thread and failure.exc_value and failure.exc_type is not SystemExit:
        # Python 3.14 runs a thread in a context of its own, which it has left by now
        context: Any = getattr(failure.thread, "_context", None) or {}
        call, trace = CALL.get() or context.get(CALL), format_traceback(failure.exc_value, of_function=True)
        log("ERROR", f"thread {clipped(failure.thread.name)} failed", trace, call)


def format_traceback(error: BaseException, of_function: object = False) -> str:
    """Convert an exception to the text of its traceback.

    With `of_function` (True, or the callable that failed), add a hint, and leave out the runtime's own frames unless
    log_level is debug.
    """
    from traceback import FrameSummary, TracebackException  # 5 ms, which a function without failures does not need

    try:
        formatted: Any = TracebackException(type(error), error, error.__traceback__, compact=True)
    except ImportError:  # Python 3.15 imports the package of a module that is missing
        forget_packages(error)
        formatted = TracebackException(type(error), error, error.__traceback__, compact=True)
    whole, exceptions = formatted.stack[:], [formatted]
    hidden = NOT_OF_FUNCTIONS if of_function and log.level > LEVELS["debug"] else ()
    for each in exceptions:  # with its causes; indenting a message of 100 MB takes seconds without a thread switch
        each._str = shortened(each._str, LOG_LINE)
        each.stack[:] = [frame for frame in each.stack if not frame.filename.startswith(hidden)]
        exceptions += filter(None, (each.__cause__, each.__context__, *(each.exceptions or ())))
    if not (formatted.stack or isinstance(error, SyntaxError)):  # the message of a SyntaxError names the line
        formatted.stack[:] = [FrameSummary(*place_of(of_function), "handle")] if callable(of_function) else whole
    return "".join(formatted.format()) + (hint(error) if of_function else "")


def forget_packages(error: BaseException | None) -> None:
    """Cut the name of each missing module, in an exception and its causes, to that of its outermost package."""
    while error:
        if isinstance(error, ModuleNotFoundError):
            error.name = (error.name or "").partition(".")[0]
        error = error.__cause__ or error.__context__


def log_fault(error: BaseException) -> None:
    """Log a fault of this module."""
    try:
        log("ERROR", "the server failed", format_traceback(error))
    except Exception:  # no memory or descriptors for the traceback's module
        log("ERROR", "the server failed")


# Prefixes of the files whose frames are left out of a function's traceback
NOT_OF_FUNCTIONS = (log.__call__.__code__.co_filename, threading.settrace.__code__.co_filename, "<frozen importlib")


def code_of(function: Any) -> Any:
    """Return the code of a function, a method or a callable instance; None if it has none, as a class does not."""
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None


def place_of(function: Any) -> tuple[str, int]:
    """Return the file and line where a function is defined."""
    while inner := getattr(function, "__wrapped__", None) or getattr(function, "func", None):
        function = inner
    code = code_of(function)
    return (code.co_filename, code.co_firstlineno) if code else (clipped(function), 0)


FUNCTION_FOLDER = "watchdog_app_function"  # environment variable for the processes that the function starts
PIP_NAMES = """attr=attrs bs4=beautifulsoup4 Crypto=pycryptodome cv2=opencv-python-headless dateutil=python-dateutil
dotenv=python-dotenv fitz=PyMuPDF jwt=PyJWT magic=python-magic MySQLdb=mysqlclient PIL=Pillow psycopg2=psycopg2-binary
skimage=scikit-image sklearn=scikit-learn yaml=PyYAML"""  # module=package, where the names differ


def hint(error: Any) -> str:
    """Return a hint for a common mistake, as a line; "" for any other error."""
    folder = os.environ.get(FUNCTION_FOLDER) or os.getcwd()
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"Hint: {missing_hint(error.name, folder)}\n"
    refused = isinstance(error, OSError) and error.errno in (EACCES, EROFS)
    if refused and os.path.abspath(str(error.filename or "/")).startswith((f"{folder}/", f"{os.getcwd()}/")):
        return "Hint: in its container, a function can write only to /tmp and to volumes\n"
    return ""


def missing_hint(name: str, folder: str) -> str:
    """Suggest why a module is missing; `folder` is the function's."""
    from glob import glob

    *parents, last = name.removeprefix("function.").split(".")
    parent, top = os.path.join(folder, *parents), name.partition(".")[0]
    if os.path.isdir(parent) and (parents or name != last):
        return f"{parent} has no {last}.py, only {', '.join(sorted(glob('*.py', root_dir=parent)))}"
    for path in glob(f"*/{last}.py", root_dir=folder):
        return f"{path} in the function's folder is imported as {path[:-3].replace(os.sep, '.')}"
    if top in sys.stdlib_module_names:
        return f"{top} is part of the standard library, but not of the image"
    packages = dict(pair.split("=") for pair in PIP_NAMES.split())
    return f"is {clipped(packages.get(top, top))} listed in requirements.txt, and has the function been rebuilt since?"


SYSTEM_THREADS = type(sys)("_thread")  # a copy that gevent does not patch
vars(SYSTEM_THREADS).update(vars(_thread))
GREEN = """the function has replaced Python's locks, as gevent and eventlet do: \
a call that waits for a lock of another call may hang; \
gevent.monkey.patch_all(thread=False, queue=False) and eventlet.monkey_patch(thread=False) keep Python's locks"""


def start_thread(work: Callable[[Any], object], argument: object, name: str) -> None:
    """Start a daemon thread of the operating system, even if gevent or eventlet makes `threading` start greenlets."""
    if threading.get_ident is get_ident:
        threading.Thread(target=work, args=(argument,), name=name, daemon=True).start()
    else:
        warn_once(GREEN)
        # Two calls may import at once, and gevent has replaced the locks of the import system; eventlet has not
        vars(sys.modules["_frozen_importlib"])["_thread"] = SYSTEM_THREADS
        start_new_thread(work, (argument,))


# ---- 4. Head -> Request: pure and strict, raises HTTPError (RFC 9112 §2 to §6) ---------------------------------------
#
# Any thread may parse. The caches need no lock: threads that miss at the same time compute the same value.

CHUNKED = -1  # stands for the length of a chunked body
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 §5.6.2
FRAMING = frozenset(("HTTP_TRANSFER_ENCODING", "CONTENT_LENGTH", "HTTP_CONNECTION", "HTTP_EXPECT"))
is_token = re.compile(TOKEN).fullmatch
is_field_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch  # RFC 9110 §5.5
# A target has no `#` and only ASCII (RFC 9112 §3.2): of-watchdog removes a fragment and escapes other bytes, so that
# it and this server would read different targets
is_request_line = re.compile(rf"({TOKEN}) ([!\"$-~]+) HTTP/([0-9])\.([0-9])").fullmatch
is_absolute = re.compile("https?://([^/?]*)", re.IGNORECASE).match
is_authority = re.compile(r"(?ai)(?:\[[0-9a-f:.]+]|(?:[\w.~!$&'()*+,;=-]|%[0-9a-f]{2})+)(?::[0-9]{0,5})?").fullmatch
is_length = re.compile("[0-9]{1,19}").fullmatch
find_escapes = re.compile(b"(?:%[0-9A-Fa-f]{2}){1,1000}").finditer


class Request:
    """One request: its head, and its body once that is complete. If it has a `refusal`, that is its response."""

    length = 0  # of the body in bytes, or CHUNKED
    expects_continue = False
    content: BytesIO  # the part of an incomplete body that has arrived
    body = b""
    refusal: HTTPError | None = None
    repeated: Mapping[str, list[str]] = {}  # environ key -> separate values, for field names that occur more than once

    def __init__(self, line: RequestLine, fields: dict[str, str]) -> None:
        self.method, self.target, self.modern, self.variables = line
        self.fields = fields  # environ key -> value
        self.keep_alive = self.modern


class Known(dict):  # type: ignore[type-arg]
    """A cache: text -> `parse(text)`. Behind of-watchdog most lines are the same in every call.

    A text is cached when it is seen twice in a row among the texts with the same hash slot, so that lines that differ
    in every call (X-Call-Id, traceparent) evict nothing. The limits are CACHE_ENTRIES and, for each text, CACHE_LENGTH.
    """

    def __init__(self, parse: Callable[[Any], Any]) -> None:
        self.parse = parse
        self.seen_once = [None] * CACHE_ENTRIES  # by hash slot: its last text that was not cached

    def __missing__(self, text: Any) -> Any:
        parsed = self.parse(text)
        if len(text) <= CACHE_LENGTH:
            slot = hash(text) % CACHE_ENTRIES
            if self.seen_once[slot] == text:
                remember(self, text, parsed, len(text))
            self.seen_once[slot] = text
        return parsed


def parse_head(head: bytes) -> Request:
    """Convert a head, without its final empty line, to a Request without a body; raise HTTPError if it is invalid."""
    lines = head.split(b"\r\n")
    line = REQUEST_LINES[lines.pop(0)]
    if len(lines) > MAX_FIELDS:
        raise HTTPError(431)
    request = Request(line, dict(map(FIELDS.__getitem__, lines)))
    if len(request.fields) < len(lines) or "" in request.fields:
        join_repeated(request, lines)
    if request.modern and "HTTP_HOST" not in request.fields:
        raise HTTPError(400)
    if request.target[0] != "/":
        take_authority(request)
    if not FRAMING.isdisjoint(request.fields):
        frame(request)
    return request


def parse_request_line(line: bytes) -> RequestLine:
    """Convert a request line to its method, its target, whether it is HTTP/1.1 or later, and its environ variables
    (RFC 9112 §3).
    """
    match = is_request_line(line.decode("latin-1"))
    if match is None:
        raise HTTPError(400)
    method, target, major, minor = match.groups()
    if major != "1":
        raise HTTPError(505)
    if len(method) > MAX_METHOD or method in ("CONNECT", "TRACE"):
        raise HTTPError(501)
    path, _, query = target.partition("?")
    variables = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": target,
        "PATH_INFO": decoded_path(path),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.0" if minor == "0" else "HTTP/1.1",
    }
    return method, target, minor != "0", variables


def parse_field(line: bytes) -> tuple[str, str]:
    """Convert a field line to its environ key and value (RFC 9112 §5)."""
    name, colon, value = line.decode("latin-1").partition(":")
    if not colon or not (value.isprintable() or is_field_value(value)):  # the first test is faster, the second exact
        raise HTTPError(400)
    key, value = ENVIRON_KEYS[name], value.strip(" \t")  # no other character is OWS (RFC 9110 §5.6.3)
    return key, check_host(value) if key == "HTTP_HOST" else value


def join_repeated(request: Request, lines: list[bytes]) -> None:
    """Join the values of repeated names, and drop the fields that must not reach the environ."""
    values: dict[str, list[str]] = {}
    for key, value in map(FIELDS.__getitem__, lines):
        values.setdefault(key, []).append(value)
    values.pop("", None)
    request.fields = {key: ("; " if key == "HTTP_COOKIE" else ", ").join(several) for key, several in values.items()}
    request.repeated = {key: several for key, several in values.items() if len(several) > 1}
    if "HTTP_HOST" in request.repeated:
        raise HTTPError(400)


def environ_key(name: str) -> str:
    """Convert a field name to its environ key, or "" for a field to drop; raise HTTPError 400 if it is not a token.

    In the environ, a name with `_` would equal the one with `-`, and `Proxy` the variable HTTP_PROXY (httpoxy).
    """
    if not is_token(name):
        raise HTTPError(400)
    return "" if "_" in name or name.upper() == "PROXY" else header_key(name)


def header_key(name: str) -> str:
    """Convert a header name in any case to its environ key."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


def take_authority(request: Request) -> None:
    """Check a target that is not a path; the authority of an absolute target replaces Host (RFC 9112 §3.2)."""
    if request.target == "*" and request.method == "OPTIONS":
        return
    match = is_absolute(request.target)
    if match is None:
        raise HTTPError(400)
    request.fields["HTTP_HOST"] = check_host(match[1])


def check_host(host: str) -> str:
    """Return `host` if it is a single valid host, with or without a port; raise HTTPError 400 otherwise."""
    if not is_authority(host):
        raise HTTPError(400)
    if host[0] == "[":
        try:
            socket.inet_pton(socket.AF_INET6, host[1 : host.index("]")])
        except OSError:
            raise HTTPError(400) from None
    return host


def frame(request: Request) -> None:
    """Set the attributes of `request` that its fields decide: body length, persistence, 100 Continue."""
    modern, fields = request.modern, request.fields
    request.length = body_framing(modern, fields)
    request.keep_alive = keep_alive(modern, fields.get("HTTP_CONNECTION"))
    if modern and "HTTP_EXPECT" in fields:  # 100-continue is the only expectation (RFC 9110 §10.1.1)
        expected = {single.strip(" \t").lower() for single in fields["HTTP_EXPECT"].split(",")} - {""}
        request.expects_continue = expected == {"100-continue"}
        if expected - {"100-continue"}:
            request.refusal = HTTPError(417)  # the framing is still valid


def body_framing(modern: bool, fields: dict[str, str]) -> int:
    """Return the length of a request's body in bytes, or CHUNKED: RFC 9112 §6.3 without its leniencies."""
    coding, length = fields.get("HTTP_TRANSFER_ENCODING"), fields.get("CONTENT_LENGTH")
    if coding is None:
        if length is None:
            return 0
        if not is_length(length):
            raise HTTPError(400)
        return int(length)
    if length is not None or not modern:  # a choice between the two is what allows request smuggling
        raise HTTPError(400)
    if coding.lower() == "chunked":
        return CHUNKED
    codings = {single.strip(" \t").lower() for single in coding.split(",")}
    raise HTTPError(400 if codings <= {"chunked", ""} else 501)


def keep_alive(modern: bool, connection: str | None) -> bool:
    """Return whether the connection persists after the exchange (RFC 9112 §9.3); `close` wins."""
    if connection is None:
        return modern
    options = [option.strip(" \t").lower() for option in connection.split(",")]
    return "close" not in options and (modern or "keep-alive" in options)


# Filled from the heads that arrive. A hit takes 0.02 µs; without it, a request line takes 1.1 µs, a field line 0.6 µs,
# and the name of one that is new with each call, such as X-Call-Id, 0.7 µs
REQUEST_LINES = Known(parse_request_line)
FIELDS = Known(parse_field)
ENVIRON_KEYS = Known(environ_key)


def decoded_path(path: str) -> str:
    """Return the path of a target, without scheme and authority, with %XX decoded to latin-1."""
    if path[:1] != "/":
        path = "/" + path.partition("://")[2].partition("/")[2]
    return percent_decoded(path.encode("ascii")).decode("latin-1") if "%" in path else path


def percent_decoded(raw: bytes) -> bytes:
    """Decode %XX; for a body of escapes alone, the standard library's function needs 70 times its memory."""
    decoded, end = bytearray(), 0
    for escapes in find_escapes(raw):
        decoded += raw[end : escapes.start()] + bytes.fromhex(escapes[0].decode().replace("%", " "))
        end = escapes.end()
    return bytes(decoded) + raw[end:]


# ---- 5. Reader: bytes -> requests ------------------------------------------------------------------------------------
#
# Who may touch what:
#     RequestReader  only the owner of its connection.
#     BodyMemory     any thread.
#
# The generators take a message from the front of `buffer`. Each one yields when it needs more bytes, and is sent them;
# it yields True to let other connections have their turn while the buffer holds more. None has a reference to its
# reader: such a cycle would keep an abandoned body in memory until the next garbage collection.

is_line = re.compile(rb"[\t\x20-\x7e\x80-\xff]*(?:\r\n?)?").fullmatch  # a line or part of one (RFC 9112 §2.2)
chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n").match


def take_head(buffer: bytearray, most: int) -> Taking[Request]:
    """Take a head of at most `most` bytes, and a few preceding empty lines (RFC 9112 §2.2)."""
    for _ in range(MAX_BLANK_LINES):
        if not (yield from is_at_line_end(buffer)):
            break
        del buffer[:2]
    end = yield from find_line(buffer, 0, min(MAX_LINE + 2, most + 4), 414)
    parse_request_line(bytes(buffer[: end - 2]))
    end = yield from find_fields(buffer, end, most + 4)
    request = parse_head(bytes(buffer[: end - 4]))
    del buffer[:end]
    return request


def is_at_line_end(buffer: bytearray) -> Taking[bool]:
    """Tell whether CRLF comes next; the first other byte decides."""
    while b"\r".startswith(buffer):
        buffer += yield False
    return buffer.startswith(b"\r\n")


def find_fields(buffer: bytearray, start: int, limit: int) -> Taking[int]:
    """Return the end of the fields from `start` on, after their empty line; raise HTTPError at an invalid one."""
    for _ in range(MAX_FIELDS + 1):
        end = yield from find_line(buffer, start, limit, 431)
        if end == start + 2:
            return end
        parse_field(bytes(buffer[start : end - 2]))
        start = end
    raise HTTPError(431)


def find_line(buffer: bytearray, start: int, limit: int, status: int) -> Taking[int]:
    """Return the end of the line at `start`; raise HTTPError(status) if it lies beyond `limit`.

    Bytes are checked as they arrive: the first error decides, however the line was split into packets.
    """
    while True:
        end = buffer.find(b"\n", start, limit) + 1
        if not is_line(buffer, start, end or limit):
            raise HTTPError(400)
        if end:
            return end
        if len(buffer) >= limit:
            raise HTTPError(status)
        start = max(start, len(buffer) - 1)  # check the last byte again: it may be the CR
        buffer += yield False


def take_content(buffer: bytearray, body: BytesIO, size: int) -> Taking[None]:
    """Move `size` bytes to `body`."""
    taken = body.write(memoryview(buffer)[:size])
    del buffer[:taken]
    while size := size - taken:
        data = yield False  # written directly, which saves a copy to the buffer
        taken = body.write(memoryview(data)[:size])
        buffer += data[taken:]


def take_chunks(buffer: bytearray, body: BytesIO, most: int, trailer_room: int) -> Taking[None]:
    """Move the content of a chunked body, at most `most` bytes, to `body`; drop its trailers (RFC 9112 §7.1)."""
    chunks = 0
    while size := (yield from take_size(buffer)):
        if body.tell() + size > most:
            raise HTTPError(413)
        yield from take_content(buffer, body, size)
        if not (yield from is_at_line_end(buffer)):
            raise HTTPError(400)
        del buffer[:2]
        chunks += 1
        if buffer and not chunks % CHUNKS_AT_ONCE:
            buffer += yield True
    del buffer[: (yield from find_fields(buffer, 0, trailer_room + 2))]


def take_size(buffer: bytearray) -> Taking[int]:
    """Take a chunk-size line; return the size."""
    end = yield from find_line(buffer, 0, MAX_CHUNK_LINE + 2, 400)
    match = chunk_line(bytes(buffer[:end]))
    if match is None:
        raise HTTPError(400)
    del buffer[:end]
    return int(match[1], 16)


def whole_body(length: int, data: bytes) -> bytes:
    """Return the body if `data` is all of it, sent with a length or in one chunk, as by of-watchdog; else return b"".

    One chunk takes 0.4 µs here, and 4 µs with the generators.
    """
    if length != CHUNKED:
        return data if length == len(data) else b""
    line = chunk_line(data, 0, MAX_CHUNK_LINE + 2)
    if line is None:
        return b""
    start = line.end()
    end = start + int(line[1], 16)
    return data[start:end] if data[end:] == b"\r\n0\r\n\r\n" else b""


class BodyMemory:
    """The memory of all bodies together: `held` bytes of at most `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.held, self.lock = most, 0, RLock()


class RequestReader:
    """Converts the bytes of one connection to requests, one at a time, without I/O or a clock.

    `in_part` is True if the buffer holds more chunks than one turn takes, with which the next `receive` continues.
    `held` is the share of the request in `memory`.
    """

    def __init__(self, max_head: int, max_body: int, memory: BodyMemory | None = None, streams: bool = False) -> None:
        self.memory, self.held = memory or BodyMemory(sys.maxsize), 0
        self.max_head, self.max_body, self.streams = max_head, sys.maxsize if streams else max_body, streams
        self.max_at_once = min(MAX_LINE, max_head)  # a head of this length is within both limits
        self.buffer = bytearray()  # bytes that have arrived and are not taken yet
        self.pending: Request | None = None  # the request with an incomplete body
        self.steps: Any = None  # the generator of the incomplete head or body
        self.in_part = False

    @property
    def waiting(self) -> str:
        """The incomplete part of a request: "head", "body", or "" for neither."""
        return "body" if self.pending else "head" if self.steps and self.buffer else ""

    def receive(self, data: bytes) -> Request | None:
        """Add `data`; return the request that it completes or that is refused, or None if more bytes are needed.

        With b"", continue with the bytes that have already arrived.
        """
        try:
            if self.steps:
                return self._go_on(data)
            if self.pending:
                return self._take_body(self.pending, data)
            if self.buffer:
                data, self.buffer = bytes(self.buffer) + data, bytearray()
            head, end, rest = data.partition(b"\r\n\r\n")
            if end and len(head) <= self.max_at_once:  # nearly always the whole head: 2 µs instead of 9
                try:
                    request = parse_head(head)
                except HTTPError:
                    pass  # take_head finds the first error
                else:
                    return self._take_body(request, rest) if rest or request.length else request
            return self._begin(take_head(self.buffer, self.max_head), data) if data else None
        except HTTPError as error:
            return self._refuse(error)

    def _begin(self, steps: Taking[Any], data: bytes) -> Request | None:
        self.steps = steps
        self.buffer += data
        return self._go_on(None)

    def _go_on(self, data: bytes | None) -> Request | None:
        """Send `data` to the generator; return the request that it completes."""
        request, head = self.pending, None
        try:
            self.in_part = self.steps.send(data)
        except StopIteration as end:
            head, self.steps, self.in_part = end.value, None, False
        if self.steps:
            if request and not self.streams:
                self.hold(request.content.tell() - self.held)
            return None
        if request:
            return self._completed(request, request.content.getvalue())  # without a copy
        rest, self.buffer = bytes(self.buffer), bytearray()
        return self._take_body(head, rest)

    def _take_body(self, request: Any, rest: bytes) -> Request | None:
        """Return the request if `rest`, the bytes after its head, completes it; otherwise begin to take its body."""
        if not request.length:
            self.buffer += rest
            return request  # type: ignore[no-any-return]
        self.pending = request
        if request.length > self.max_body:
            raise HTTPError(413)
        if request.refusal:  # raised here, since the bytes that follow are its body and not a request
            raise request.refusal
        if rest:
            request.expects_continue = False  # the peer did not wait for the 100
        body = whole_body(request.length, rest)
        if body and len(body) <= self.max_body:
            return self._completed(request, body)
        content = request.content = BytesIO()
        if not rest and not self.streams:  # of-watchdog sends the head of a larger body on its own: 6 µs instead of 13
            return None
        if request.length == CHUNKED:
            steps = take_chunks(self.buffer, content, self.max_body, self.max_head)
        else:
            steps = take_content(self.buffer, content, request.length)
        return self._begin(steps, rest) or (request if self.streams else None)

    def _completed(self, request: Request, body: bytes) -> Request:
        """Return the request with its body."""
        if not self.streams:
            self.hold(len(body) - self.held)
        self.pending, request.body = None, body
        if request.length == CHUNKED:  # Django, bottle and Falcon read no body without a length
            request.fields["CONTENT_LENGTH"] = f"{len(body)}"
            del request.fields["HTTP_TRANSFER_ENCODING"]
        return request

    def give_up(self, status: int) -> Request | None:
        """Refuse the incomplete request with `status` and return it; return None if no request has begun."""
        return self._refuse(HTTPError(status)) if self.waiting else None

    def _refuse(self, error: HTTPError) -> Request:
        method = b"HEAD" if self.buffer.startswith(b"HEAD ") else b"GET"
        request = self.pending or Request(REQUEST_LINES[method + b" / HTTP/1.1"], {})
        request.refusal = error.with_traceback(None)  # its frames refer to this request: a cycle
        request.keep_alive = False
        self.pending, self.steps, self.in_part = None, None, False
        self.buffer.clear()
        self.hold(-self.held)
        return request

    def hold(self, more: int) -> None:
        """Add `more` bytes, which may be negative, to the share of the current request in the memory.

        Raise a 503 if there is no room now, and a 413 if there can never be. Any thread: a coroutine may go on after
        its connection has been closed.
        """
        with self.memory.lock:
            memory = self.memory  # read here, since `close` may just have replaced it
            held = memory.held + more
            if held > memory.most:
                if self.held + more > memory.most:
                    raise HTTPError(413)
                warn_once(f"bodies would take more than body_memory={memory.most} bytes: some are refused with 503")
                raise HTTPError(503, None, RETRY)
            memory.held, self.held = held, self.held + more

    def close(self) -> None:
        """Release the memory of the current request; later ones are not counted."""
        with self.memory.lock:
            self.hold(-self.held)
            self.memory = BodyMemory(sys.maxsize)

    def wants_continue(self) -> bool:
        """Return True, once, if the peer waits for a 100 before it sends the body."""
        if self.pending is None or not self.pending.expects_continue:
            return False
        self.pending.expects_continue = False
        return True

    @property
    def received(self) -> int:
        """Bytes of the current body that have arrived."""
        return self.pending.content.tell() if self.pending else 0


# ---- 6. Request -> environ (PEP 3333) --------------------------------------------------------------------------------


def base_environ(host: str, port: int, multithread: bool = True) -> dict[str, Any]:
    """Return the variables common to every environ of a server on `host` and `port`."""
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_SOFTWARE": "of-python",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.errors": sys.stderr or sys.__stderr__,
        "wsgi.input_terminated": True,  # the input ends with the body, even without a Content-Length
    }


def build_environ(request: Request, base: dict[str, Any], peer: str) -> dict[str, Any]:
    """Convert a request to its environ: `base`, its variables and its fields, with latin-1 text (PEP 3333)."""
    environ = {**base, **request.variables, **request.fields, "REMOTE_ADDR": peer, "wsgi.input": BytesIO(request.body)}
    if request.repeated:
        environ["of_python.repeated"] = request.repeated
    return environ


# ---- 7. JSON ---------------------------------------------------------------------------------------------------------


def parsed_size(body: bytes) -> int:
    """Estimate the memory of parsed JSON in bytes: up to 30 times the size of its text if the values are small."""
    return len(body) + 64 * body.count(b",") + 208 * body.count(b"{") + 96 * body.count(b"[")


class ResultError(TypeError):
    """A result that cannot be sent; the message names the key and the value."""


def encode_text(text: str) -> bytes:
    """Convert text to UTF-8; raise ResultError for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ResultError(f"body {clipped(text)} is not valid Unicode: {error.reason} at {error.start}") from None


@cache
def json_codec() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    """Return the functions that encode and decode JSON, made on first use: importing json takes 1 to 3 ms.

    The C encoder is made once; `JSONEncoder.encode` makes one for each value, which takes 0.5 µs (3.11) to 0.7 µs
    (3.13), 3 to 4 % of a short call.
    """
    from json import JSONDecoder, JSONEncoder, encoder

    decode = JSONDecoder(parse_constant=not_json).decode
    make = getattr(encoder, "c_make_encoder", None)
    if make is None:  # not CPython
        named: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
        return JSONEncoder(default=json_default, **named).encode, decode
    pieces = make(None, json_default, encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(pieces(value, 0)), decode


def not_json(constant: str) -> NoReturn:
    """Refuse NaN and infinity, which are not in JSON (RFC 8259 §6)."""
    raise ValueError(f"{constant} is not JSON")


def encode_json(value: Any) -> bytes:
    """Convert a value to JSON in UTF-8; raise ResultError if that is not possible."""
    try:
        # A lone surrogate becomes \udXXX, which is an escape in JSON, too (RFC 8259 §7)
        return json_codec()[0](value).encode("utf-8", "backslashreplace")
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error)
    try:
        fault = json_fault(value) or f" cannot be sent as JSON: {reason}"
    except RecursionError:
        fault = " cannot be sent as JSON: it contains itself, or is nested too deep"
    raise ResultError("body" + fault if fault[0] == " " else fault.removeprefix("."))


JSON_TYPES = (dict, list, tuple, str, int, type(None))


def json_fault(value: Any) -> str:
    """Return the place of the first part of `value` that has no JSON form, and what would help; "" if there is none."""
    try:
        while not (isinstance(value, JSON_TYPES) or (isinstance(value, float) and abs(value) < FOREVER)):
            value = json_default(value)
        parts: Any = enumerate(value) if isinstance(value, (list, tuple)) else getattr(value, "items", tuple)()
        for key, part in parts:
            if not isinstance(key, (str, int, float, type(None))):
                raise TypeError(f"its key {clipped(key)} is a {type(key).__name__}, and str(...) would help")
            if fault := json_fault(part):
                is_name = isinstance(key, str) and key.isidentifier()
                return (f".{clipped(key)[1:-1]}" if is_name else f"[{clipped(key)}]") + fault
    except (TypeError, ValueError) as error:
        return f" = {clipped(value)} of type {type(value).__name__} cannot be sent as JSON: {error}"
    return ""


def iso_duration(value: Any) -> str:
    """Convert a timedelta to ISO 8601, such as `PT5400.5S`."""
    seconds = f"{value.total_seconds():.6f}".rstrip("0").removesuffix(".")
    return f"-PT{seconds[1:]}S" if seconds[0] == "-" else f"PT{seconds}S"


# Type -> the conversion of its values to a type that JSON has. Types are named, since importing them takes time
JSON_FORMS: dict[str, Callable[[Any], Any]] = {
    "datetime.date": lambda value: value.isoformat(),  # a datetime is a date
    "datetime.time": lambda value: value.isoformat(), "datetime.timedelta": iso_duration, "decimal.Decimal": str,
    "uuid.UUID": str, "collections.UserString": str, "enum.Enum": lambda value: value.value, "sqlite3.Row": dict,
    "builtins.set": list, "builtins.frozenset": list, "numpy.ndarray": lambda value: value.tolist(),
    "numpy.generic": lambda value: value.item(), "numpy.floating": float, "numpy.complexfloating": complex,
}  # fmt: skip
# An attribute of a value without a JSON form -> what would help; the first one that it has counts
JSON_HELP = {
    "__await__": "await", "isoformat": ".isoformat()", "tolist": ".item() or .tolist()", "decode": ".decode()",
    "dict": ".dict()", "json": ".json()", "to_dict": ".to_dict()", "__iter__": "list(...)", "__traceback__": "str(...)",
    "is_integer": "None", "__call__": "calling it", "__dict__": "vars(...)", "__str__": "str(...)",
}  # fmt: skip


def json_default(value: Any) -> Any:
    """Convert a value of a type that json does not support, without importing the module of that type."""
    for cls in type(value).__mro__:
        if convert := JSON_FORMS.get(f"{cls.__module__}.{cls.__qualname__}"):
            return convert(value)
    if hasattr(type(value), "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if hasattr(type(value), "__struct_fields__"):
        return struct_form(value)
    fields = getattr(type(value), "__attrs_attrs__", None)
    if hasattr(type(value), "__dataclass_fields__"):
        fields = sys.modules["dataclasses"].fields(value)
    if fields is not None:
        return {field.name: getattr(value, field.name) for field in fields}
    kinds: Any = (os.PathLike, os.fsdecode), (Mapping, dict), ((Sequence, Set, ValuesView), list)
    for kind, convert in kinds:
        if isinstance(value, kind) and not isinstance(value, (bytes, bytearray, memoryview)):
            return convert(value)
    raise TypeError(next(f"{advice} would help" for name, advice in JSON_HELP.items() if hasattr(value, name)))


def struct_form(value: Any) -> Any:
    """Convert a msgspec Struct; if a part has no JSON form, to a dict of its fields, in which json_fault finds it."""
    try:
        return sys.modules["msgspec"].to_builtins(value, enc_hook=json_default)
    except TypeError:
        return {name: getattr(value, name) for name in value.__struct_fields__}


def fitted(model: Any, value: Any, text: str) -> Any:
    """Convert JSON, parsed as `value` from `text`, to an instance of `model`; raise a 422 if it does not fit."""
    if not callable(model) or hasattr(model, "__origin__"):
        raise TypeError(f"model is {clipped(model)}: it takes a class or a function")
    try:
        if hasattr(model, "model_validate_json"):  # pydantic, whose strict mode accepts dates only in text
            return model.model_validate_json(text)
        if hasattr(model, "__struct_fields__"):
            return sys.modules["msgspec"].json.decode(text, type=model)
        has_fields = hasattr(model, "__dataclass_fields__") or hasattr(model, "__attrs_attrs__")
        return model(**value) if has_fields else model(value)
    except (TypeError, ValueError, KeyError) as error:
        raise HTTPError(422, {"detail": account_of(error)}) from error


def account_of(error: Any) -> Any:
    """Return a model's explanation of an error: pydantic's list of errors, or text."""
    if hasattr(error, "error_count"):
        return json_codec()[1](error.json(include_url=False, include_input=False))
    text = str(error.args[0] if error.args else error)[:1000]
    return f"missing {clipped(text)}" if isinstance(error, KeyError) else text


# ---- 8. Event and context: the arguments of handle -------------------------------------------------------------------

if TYPE_CHECKING:
    from functools import cached_property as lazy  # for type checkers, a lazy attribute is a cached property
else:

    class lazy:
        """An attribute that its method computes on first access; an unused attribute costs nothing."""

        def __init__(self, compute: Callable[[Any], Any]) -> None:
            self.compute, self.__doc__ = compute, compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, instance: Any, owner: type) -> Any:
            if instance is None:
                return self
            value = self.compute(instance)
            setattr(instance, self.name, value)  # shadows this descriptor from now on
            return value


class Body(bytes):
    """A request's body: bytes, except that `str()` and f-strings decode it."""

    charset = "utf-8"

    def __str__(self) -> str:
        """Decode with the charset of Content-Type if it is in CHARSETS, else as UTF-8; replace bad bytes."""
        return decoded(self, self.charset)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def text_name(name: object) -> str:
    """Return `name` if it is text, else raise TypeError: a wrong type is an error of the function, not the caller."""
    if not isinstance(name, str):
        raise TypeError(f"name is {clipped(name)}: it takes text")
    return name


def converted(values: list[str], kind: Callable[[str], Any] | None) -> list[Any]:
    """Convert each value by `kind`, unless that is None; leave out the values that do not convert."""
    if kind is None:
        return values
    if not callable(kind):
        raise TypeError(f"type is {clipped(kind)}: it takes a function of text, such as int")
    fitting = []
    for value in values:
        try:
            fitting.append(kind(value))
        except (ValueError, TypeError, ArithmeticError):  # Decimal raises an ArithmeticError
            pass
    return fitting


class Values:
    """What Headers and Query share: a missing name is a 400, and `get` and `getlist` convert values.

    A subclass is a mapping, and has a method `_all` that returns a new list of all values of a name.
    """

    _what = "header"  # the noun for one entry

    def __missing__(self, key: str) -> NoReturn:
        raise Missing(f"missing {self._what} {clipped(text_name(key))}")

    if TYPE_CHECKING:

        @overload
        def get(self, key: str, default: None = None, type: None = None) -> str | None: ...
        @overload
        def get(self, key: str, default: D, type: None = None) -> str | D: ...
        @overload
        def get(self, key: str, default: None = None, *, type: Callable[[str], T]) -> T | None: ...
        @overload
        def get(self, key: str, default: D, type: Callable[[str], T]) -> T | D: ...

    def get(self: Any, key: str, default: Any = None, type: Callable[[str], Any] | None = None) -> Any:  # noqa: A002 (Werkzeug's name)
        """Return the value of `key`, converted by `type`; `default` if it is missing or does not convert."""
        found = converted([self[key]] if text_name(key) in self else [], type)
        return found[0] if found else default

    if TYPE_CHECKING:

        @overload
        def getlist(self, key: str, type: None = None) -> list[str]: ...
        @overload
        def getlist(self, key: str, type: Callable[[str], T]) -> list[T]: ...

    def getlist(self: Any, key: str, type: Callable[[str], Any] | None = None) -> list[Any]:  # noqa: A002
        """Return all values of `key` in order of arrival, converted by `type`; leave out those that do not convert."""
        return converted(self._all(text_name(key)), type)


class Headers(Values, Mapping[str, str]):
    """The header fields of a request by name, in any case; values are latin-1 text, as in PEP 3333.

    Argument: environ, the WSGI environ of the request.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        value = self._environ.get(header_key(text_name(name)))
        return self.__missing__(name) if value is None else str(value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and header_key(name) in self._environ

    def __iter__(self) -> Iterator[str]:
        for key in self._environ:
            if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                yield key.removeprefix("HTTP_").replace("_", "-").title()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"

    def _all(self, key: str) -> list[str]:
        repeated = self._environ.get("of_python.repeated", {}).get(header_key(key))
        return list(repeated) if repeated else [self[key]] if key in self else []

    get_all = Values.getlist


class Several(Values, dict[str, "V"]):  # type: ignore[misc]  # whose `get` takes no type
    """The base of Query and Files: named values in order of arrival. A dict of the first value of each name."""

    def __init__(self, pairs: Iterable[tuple[str, V]], what: str = "query parameter") -> None:
        self._what = what
        self._further: dict[str, list[V]] = {}  # name -> its values after the first
        for name, value in pairs:
            if name in self:
                self._further.setdefault(name, []).append(value)
            else:
                self[name] = value

    def _all(self, key: str) -> list[Any]:
        return [self[key], *self._further.get(key, ())] if key in self else []

    def to_dict(self, flat: bool = True) -> dict[str, Any]:
        """Return a plain dict with the first value of each name, or with a list of all its values if not `flat`."""
        return dict(self) if flat else {name: self._all(name) for name in self}

    def copy(self) -> Self:
        """Return a copy with the same values."""
        return type(self)([(name, value) for name in self for value in self._all(name)], self._what)


class Query(Several[str]):
    """Text values in order of arrival: query parameters, form fields, cookies. A dict of the first value of each name.

    Arguments: pairs, each a name and a value; what, the noun for one entry in the message about a missing name.
    """


class File(BytesIO):
    """A file of a multipart/form-data body, in memory.

    filename: str, chosen by the sender: never use it as a path. content_type: str. headers: Headers of its part.

    Arguments: content; filename; headers.
    """

    def __init__(self, content: bytes, filename: str, headers: Headers) -> None:
        super().__init__(content)  # which shares `content` until it is written to
        self.filename, self.headers = filename, headers
        self.content_type: str = headers.get("Content-Type", "text/plain")  # RFC 7578 §4.4


class Files(Several[File]):
    """The files of a form, by the names of their fields. Arguments: as for Query."""

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def get(self, key: str, default: None = None) -> File | None: ...
        @overload
        def get(self, key: str, default: D) -> File | D: ...
        def get(self, key: str, default: Any = None) -> Any: ...
        def getlist(self, key: str) -> list[File]: ...  # type: ignore[override]


def parse_query(raw: bytes, what: str = "query parameter") -> Query:
    """Convert text such as `a=1&b=2`: decode `+` and %XX as UTF-8, replace bad bytes, keep blank values."""
    check_number(raw.count(b"&"), what)
    pairs = [field.partition(b"=") for field in raw.replace(b"+", b" ").split(b"&") if field]
    return Query([(form_text(name), form_text(value)) for name, _, value in pairs], what)


def form_text(raw: bytes) -> str:
    """Decode %XX and UTF-8."""
    return (percent_decoded(raw) if b"%" in raw else raw).decode("utf-8", "replace")


def parse_cookies(text: str) -> Query:
    """Convert a Cookie header, with the leniency of RFC 6265 §5.2; remove quotes around values."""
    check_number(text.count(";"), "cookie")
    pairs = [cookie.partition("=") for cookie in text.split(";") if "=" in cookie]
    return Query([(name.strip(" \t"), value.strip(' \t"')) for name, _, value in pairs], "cookie")


def check_number(separators: int, what: str) -> None:
    """Raise a 413 for more than MAX_PARAMETERS values, before they are parsed: 20 MB of `a&` would take 868 MB."""
    if separators >= MAX_PARAMETERS:
        raise HTTPError(413, f"more than {MAX_PARAMETERS} {what}s\n", PLAIN)


MULTIPART, URLENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
PARAMETER = rf'[ \t]*;[ \t]*(?:({TOKEN})=(?:({TOKEN})|"([^"]*)"))?'  # RFC 9110 §5.6.6


def malformed(why: str) -> NotReadable:
    """Return the exception for a body that is not valid multipart/form-data, a 400."""
    return NotReadable(f"the body is not valid multipart/form-data: {why}")


def parse_parameters(value: str) -> tuple[str, dict[str, str]]:
    """Split a value such as `form-data; name="a"` into its first word, in lower case, and its parameters."""
    # A field has no control characters, so \0 and \1 can stand for these two quoted pairs. Any other backslash is
    # literal, as in the paths of Windows
    first, semicolon, rest = value.replace("\\\\", "\0").replace('\\"', "\1").partition(";")
    is_valid = re.fullmatch(f"(?:{PARAMETER}){{,{MAX_PART_FIELDS}}}+", semicolon + rest)
    found = re.findall(PARAMETER, semicolon + rest) if is_valid else []
    pairs = [(name.lower(), token or unescaped(text)) for name, token, text in found if name]
    if not is_valid or len(dict(pairs)) < len(pairs):
        raise malformed(f"the parameters in {clipped(value)} are malformed, too many or repeated")
    return first.strip(" \t").lower(), dict(pairs)


def unescaped(text: str) -> str:
    """Decode the escapes that browsers use in a quoted string, then the quoted pairs that `parse_parameters` marked."""
    text = text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
    return text.replace("\1", '"').replace("\0", "\\")


def parse_multipart(body: bytes, content_type: str) -> list[Part]:
    """Split a multipart/form-data body into its parts: RFC 2046 §5.1 and RFC 7578, without their leniencies.

    Arguments: body; content_type, with the boundary. Returns (name, whether it is a file, content) of each part.
    Raises HTTPError 400 for a body that is not valid, and 413 for more than MAX_PARAMETERS parts. `filename*` is
    ignored: RFC 7578 §4.2 forbids it.
    """
    boundary = parse_parameters(content_type)[1].get("boundary", "")
    if not re.fullmatch(r"[0-9A-Za-z'()+_,\-./:=? ]{1,70}(?<! )", boundary):
        raise malformed(f"its boundary {clipped(boundary)} is not 1 to 70 of the characters that RFC 2046 allows")
    parts: list[Part] = []
    for start, end in part_spans(body, b"\r\n--" + boundary.encode("ascii")):
        check_number(len(parts), "form field")
        # Up to the line break after the part: a part without content may consist of its head alone
        head_end = body.find(b"\r\n\r\n", start, min(end + 2, start + MAX_PART_HEAD + 4))
        if head_end == -1 or body.count(b"\r\n", start, head_end) >= MAX_PART_FIELDS:
            raise malformed(f"a part takes up to {MAX_PART_FIELDS} headers, {MAX_PART_HEAD} bytes, then an empty line")
        parts.append(parse_part(body[start:head_end], body[head_end + 4 : end]))
    return parts


def part_spans(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of each part, in linear time; raise a 400 unless the last delimiter of the body closes it."""
    # After a boundary: padding and the end of the line, with -- before them if no part follows
    rest = re.compile(rb"[ \t]*\r\n|(--)[ \t]*(?:\r\n|\Z)").match
    first = end = -2 if body.startswith(delimiter[2:]) else body.find(delimiter)  # -2: as if CRLF preceded the body
    # A form without fields is the closing delimiter alone; after a preamble there must be a part
    while end != -1 and (line := rest(body, end + len(delimiter))) and not (line[1] and end == first >= 0):
        if line[1]:
            return
        end = body.find(delimiter, line.end() - 2)
        if end != -1:
            yield line.end(), end
    raise malformed("a delimiter is malformed, or the closing one is missing")


def parse_part(head: bytes, content: bytes) -> Part:
    """Convert the head of a part, without its final empty line, and its content."""
    lines = head.split(b"\r\n")
    fields = {key: utf8(value) for key, value in map(parse_field, lines)}
    kind, parameters = parse_parameters(fields.get("HTTP_CONTENT_DISPOSITION", ""))
    if kind != "form-data" or "name" not in parameters or len(fields) < len(lines):
        raise malformed("each part takes one Content-Disposition: form-data with a name, and no repeated header")
    if fields.get("HTTP_CONTENT_TRANSFER_ENCODING", "binary").lower() not in ("7bit", "8bit", "binary"):
        raise malformed("Content-Transfer-Encoding is deprecated: send the content as it is")
    return parameters["name"], "filename" in parameters, File(content, parameters.get("filename", ""), Headers(fields))


def utf8(latin1: str) -> str:
    """Convert latin-1 text of an environ (PEP 3333) to the UTF-8 text that it stands for; replace bad bytes."""
    return latin1 if latin1.isascii() else latin1.encode("latin-1").decode("utf-8", "replace")


FAST_CODECS = """utf-8 ascii utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be koi8-r koi8-u
    shift-jis cp932 euc-jp iso2022-jp euc-kr cp949 gb2312 gbk gb18030 big5 big5-hkscs"""
# Names of charsets, without - and _ -> codecs. Callers choose the name, and other codecs may be slow (punycode is
# quadratic, 7 s for 1 MB); CPython also caches every name that it does not know
CHARSETS = {
    **{name.replace("-", ""): name for name in FAST_CODECS.split()},
    **{f"iso8859{part}": f"iso8859-{part}" for part in range(1, 17) if part != 12},
    **{f"latin{number}": f"iso8859-{part}" for number, part in enumerate((1, 2, 3, 4, 9, 10, 13, 14, 15, 16), 1)},
    **{f"{maker}125{number}": f"cp125{number}" for maker in ("windows", "win", "cp") for number in range(9)},
    "usascii": "ascii", "l1": "iso8859-1", "sjis": "shift-jis", "xsjis": "shift-jis", "ms932": "cp932",
    "windows31j": "cp932", "xeucjp": "euc-jp",
    "uhc": "cp949", "windows949": "cp949", "ksc56011987": "cp949", "gb231280": "gb2312", "cp936": "gbk", "xgbk": "gbk",
}  # fmt: skip


def charset_of(content_type: str) -> str:
    """Return the codec for the charset of a Content-Type, or utf-8 if the charset is missing or not in CHARSETS."""
    value = content_type.lower().partition("charset=")[2].partition(";")[0]
    return CHARSETS.get(value.strip(' \t"').replace("-", "").replace("_", ""), "utf-8")


def decoded(data: bytes, codec: str) -> str:
    """Decode, and replace bad bytes. For single-byte codecs this uses a table, which takes a hundredth of the 0.1 to
    0.3 s that they need for each MB of bad bytes.
    """
    if not codec.startswith(("iso8859", "cp125", "koi8")):
        return data.decode(codec, "replace")
    from codecs import charmap_decode

    return charmap_decode(data, "strict", bytes(range(256)).decode(codec, "replace"))[0]


class Attributes:
    """The base of Event and Context. Their `__dict__` is what `vars` shows; their attributes are stored elsewhere."""

    def __copy__(self) -> Any:
        twin = object.__new__(type(self))
        stored = Attributes.__dict__["__dict__"].__get__
        stored(twin).update(stored(self))
        return twin


class Event(Attributes):
    """The request of one call.

    method: str, as sent. path: str, decoded, begins with `/`. raw_path, raw_query: str, exactly as sent. headers:
    Headers. query: Query. body: Body. text: str. cookies: Query. files: Files, of a multipart form.
    stream: binary file. environ: the WSGI environ.
    """

    _context: Context  # of the same call, set by Application
    _failed = False  # whether `on_error` has been called

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ

    method: lazy[str] = lazy(lambda self: self.environ["REQUEST_METHOD"])
    path: lazy[str] = lazy(lambda self: utf8(self._path) or "/")
    raw_path: lazy[str] = lazy(lambda self: self._target.partition("?")[0])
    raw_query: lazy[str] = lazy(lambda self: self.environ.get("QUERY_STRING", ""))
    headers: lazy[Headers] = lazy(lambda self: Headers(self.environ))
    query: lazy[Query] = lazy(lambda self: parse_query(self.raw_query.encode("latin-1")))
    cookies: lazy[Query] = lazy(lambda self: parse_cookies(self.environ.get("HTTP_COOKIE", "")))
    text: lazy[str] = lazy(lambda self: decoded(self._content, charset_of(self._content_type)))
    stream: lazy[BinaryIO] = lazy(lambda self: BytesIO(self._content))
    files: lazy[Files] = lazy(lambda self: self._multipart[1] if self._media_type == MULTIPART else Files((), "file"))
    # Not a Body: `text`, `json` and `stream` do without that copy
    _content: lazy[bytes] = lazy(lambda self: read_input(self.environ))
    _path: lazy[str] = lazy(lambda self: self.environ.get("SCRIPT_NAME", "") + self.environ.get("PATH_INFO", ""))
    _content_type: lazy[str] = lazy(lambda self: self.environ.get("CONTENT_TYPE", ""))
    _media_type: lazy[str] = lazy(lambda self: self._content_type.partition(";")[0].strip(" \t").lower())

    @lazy
    def _target(self) -> str:
        environ = self.environ  # most servers set one of these two, which are not in PEP 3333
        target = environ.get("REQUEST_URI") or environ.get("RAW_URI")
        if target is None:
            from urllib.parse import quote

            target = quote(self._path, encoding="latin-1")
        return str(target)

    @lazy
    def body(self) -> Body:
        body = Body(self._content)
        if content_type := self.environ.get("CONTENT_TYPE"):
            body.charset = charset_of(content_type)
        return body

    if TYPE_CHECKING:

        @overload
        def json(self, model: None = None) -> Any: ...
        @overload
        def json(self, model: Callable[..., T]) -> T: ...

    def json(self, model: Any = None) -> Any:
        """Parse the body as JSON, whatever its Content-Type; raise a 400 if it is not JSON.

        Argument: model, a pydantic model, a msgspec Struct, a dataclass, an attrs class, or a function of the parsed
        value; its instance or result is returned. A body that does not fit it is a 422 with what the model says.
        """
        body = self._plain()
        self._claim(parsed_size(body))
        try:
            text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
            value = json_codec()[1](text)
        except (ValueError, RecursionError) as error:
            raise NotReadable(f"the body is not valid JSON: {clipped(str(error)).strip(chr(39))}") from None
        return value if model is None else fitted(model, value, text)

    def form(self) -> Query:
        """Return the fields of a form, urlencoded or multipart.

        Raises a 415 for another Content-Type, or a Content-Encoding, and a 400 for a multipart body that is not valid.
        """
        if self._media_type == URLENCODED:
            return parse_query(self._plain(), "form field")
        if self._media_type != MULTIPART:
            raise HTTPError(415, f"this function takes a form: Content-Type: {URLENCODED} or {MULTIPART}\n", PLAIN)
        return self._multipart[0]

    @lazy
    def _multipart(self) -> tuple[Query, Files]:
        self._claim(len(self._content))
        parts = parse_multipart(self._plain(), self._content_type)
        fields = [(name, part) for name, is_file, part in parts if not is_file]
        texts = [(name, decoded(part.getvalue(), charset_of(part.content_type))) for name, part in fields]
        # A browser sends an empty file without a name if the user has chosen none
        files = [(name, part) for name, is_file, part in parts if is_file and (part.filename or part.getvalue())]
        return Query(texts, "form field"), Files(files, "file")

    def _plain(self) -> bytes:
        """Return the body; raise a 415 if it has a Content-Encoding. Decoding is left to the function, since signatures
        cover the body as it was sent, and a small body may expand to a huge one.
        """
        coding = self.environ.get("HTTP_CONTENT_ENCODING", "")
        if coding.lower() not in ("", "identity"):
            text = f"this function takes a body without Content-Encoding, not {clipped(coding)}\n"
            raise HTTPError(415, text, [*PLAIN, ("Accept-Encoding", "identity")])
        return self._content

    def _claim(self, size: int) -> None:
        """Count `size` bytes that are made of the body as body_memory, unless the body is short."""
        if (connection := self.environ.get("of_python.connection")) and len(self._content) > UNCOUNTED:
            connection.claim(size)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # for vars(event); attributes are stored elsewhere
        return {name: getattr(self, name) for name in ("body", "headers", "method", "query", "path")}

    def __repr__(self) -> str:
        return f"<Event {clipped(self.method)} {clipped(self._target)}>"


def read_input(environ: dict[str, Any]) -> bytes:
    """Read the whole body of a request from the environ of any WSGI server."""
    length = environ.get("CONTENT_LENGTH")
    if not length and not environ.get("wsgi.input_terminated"):
        return b""
    if type(source := environ["wsgi.input"]) is BytesIO:  # without `read`: two threads may get here at once
        return source.getvalue()[: int(length)] if length else source.getvalue()
    return bytes(source.read(int(length) if length else -1))


REQUIRED: Any = object()  # sentinel: no default
# version, trace id, parent id, flags (W3C Trace Context §3.2); later versions may append fields
is_traceparent = re.compile(
    r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:(?<!^00.{53})-.*)?"
).fullmatch


def time_limit(exec_timeout: float | None, x_timeout: str | None) -> float:
    """Return the seconds that a call may take. As in of-watchdog, a malformed or larger X-Timeout is ignored."""
    if exec_timeout is None:
        return FOREVER
    try:
        return min(exec_timeout, go_duration(x_timeout or ""))
    except ValueError:
        return exec_timeout


NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class Context(Attributes):
    """The surroundings of one call: its ids, its time limit, and the function's name and secrets.

    hostname: str. function_name, namespace: str or None. call_id: str, also in the log and in the body of a 500.
    trace_id: str, 32 hexadecimal digits, or None. deadline: float, the end of the call's time in seconds on the clock
    of time.monotonic, or None. cancelled: bool, True once the caller has gone.

    Argument: environ, the WSGI environ of the call.
    """

    hostname: str
    function_name: str | None
    namespace: str | None
    _exec_timeout: float | None
    _secret_dir: str
    _begin: Callable[[dict[str, Any]], object]  # begins the work of `after`

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self._started = monotonic() if self._exec_timeout else 0.0

    @classmethod
    def of(cls, env: Mapping[str, str], settings: Settings) -> type[Context]:
        """Make the class of one function's contexts, with the attributes that they share.

        Arguments: env, a mapping such as `os.environ`; settings, for `exec_timeout` and `secret_dir`.
        """
        attributes = {
            "hostname": env.get("HOSTNAME") or socket.gethostname(),
            "function_name": env.get("OPENFAAS_NAME") or env.get("K_SERVICE") or None,  # K_SERVICE: Knative, Cloud Run
            "namespace": env.get("OPENFAAS_NAMESPACE") or read_text(NAMESPACE),
            "_exec_timeout": settings.exec_timeout,
            "_secret_dir": settings.secret_dir,
        }
        return type("Context", (cls,), attributes)

    @lazy
    def call_id(self) -> str:
        sent = self._environ.get("HTTP_X_CALL_ID")
        return str(sent or self._environ.setdefault("of_python.call_id", os.urandom(16).hex()))  # the same in threads

    @lazy
    def trace_id(self) -> str | None:
        match = is_traceparent(self._environ.get("HTTP_TRACEPARENT", ""))
        return match[1] if match else None

    @lazy
    def deadline(self) -> float | None:
        limit = time_limit(self._exec_timeout, self._environ.get("HTTP_X_TIMEOUT"))
        return self._started + limit if self._exec_timeout else None

    def remaining(self) -> float | None:
        """Return the seconds left for this call, negative once its time is over; None if there is no limit."""
        return None if self.deadline is None else float(self.deadline - monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the caller has gone; always False under another WSGI server."""
        connection = self._environ.get("of_python.connection")
        return bool(connection and connection.has_gone())

    def after(self, function: Callable[[Unpack[Ts]], object], *arguments: Unpack[Ts]) -> None:  # noqa: UP044  # Python 3.8 parses this
        """Call `function`, plain or async, once the response is sent or its caller has gone, as part of this call.

        The functions of one call run in order, in a thread of their own, async ones on the event loop. If the call
        fails, none of them runs. Given after the response, or under another WSGI server, a function runs at once.
        """
        if not callable(function):
            raise TypeError(f"function is {clipped(function)}: it takes a function, and then its arguments")
        environ, connection = self._environ, self._environ.get("of_python.connection")
        waits = "of_python.after" in environ or (connection and connection.expects_work(environ))
        environ.setdefault("of_python.after", []).append(partial(in_call(function), *arguments))
        if not waits:
            self._begin(environ)

    if TYPE_CHECKING:

        @overload
        def secret(self, name: str) -> str: ...
        @overload
        def secret(self, name: str, default: D) -> str | D: ...

    def secret(self, name: str, default: Any = REQUIRED) -> Any:
        """Read a secret's file; return its text without the final line break.

        Arguments: name, the secret's name in OpenFaaS; default, returned if the secret is missing.
        Raises FileNotFoundError with the path if the secret is missing and there is no default, and ValueError for an
        invalid name.
        """
        if not isinstance(name, str) or not re.fullmatch(r"(?!.*\.\.)[^/\0]+", name):
            raise ValueError(f"secret name {clipped(name)} is not valid: it takes a file name without / and ..")
        path = os.path.join(self._secret_dir, name)
        try:
            with open(path, encoding="utf-8", newline="") as file:
                return file.read().removesuffix("\n").removesuffix("\r")
        except FileNotFoundError:
            if default is not REQUIRED:
                return default
            where = f"there is no file {path}; is it listed in stack.yaml?"
            raise FileNotFoundError(f"secret {clipped(name)} is missing: {where}") from None

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # for vars(context)
        return {"hostname": self.hostname}

    def __repr__(self) -> str:
        return f"<Context {clipped(self.call_id)} on {self.hostname}>"


# ---- 9. Streams and the event loop -----------------------------------------------------------------------------------
#
# Who may touch what:
#     Stream      the thread that sends it.
#     Feed        put: the thread that provides the value. when_ready, wait, take: any other thread.
#     Job, Items  __init__, close: any thread. take: one thread at a time. Methods with an underscore: the loop's.
#     Loop        start, soon: any thread. _run, _run_jobs: the loop's thread. _watch: a thread of its own.

HTML, BINARY = "text/html; charset=utf-8", "application/octet-stream"
JSON, LINES = "application/json", "application/x-ndjson"


class Stream:
    """A body that is sent item by item. Arguments: items, an iterator; source, what to close, by default `items`."""

    def __init__(self, items: Any, source: Any = None) -> None:
        self.items, self.source = items, items if source is None else source
        self.failed: Callback = bool  # called when an item after the first raises
        self.context: Context | None = None  # of the call that it belongs to
        self.first: list[bytes] = []
        self.kind = BINARY

    def begin(self) -> None:
        """Take the first item, which decides the Content-Type; let its exceptions through."""
        try:
            for item in self.items:
                encoded, self.kind = encode_item(item)
                self.first.append(encoded)
                break
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        if self.first:
            yield self.first.pop()
        try:
            CALL.set(self.context)
            for item in self.items:
                yield encode_item(item)[0]
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failed()
            raise StreamFailed("a stream failed after its first item") from error
        finally:
            CALL.set(None)

    def close(self) -> None:
        """Close the source, if it can be closed."""
        getattr(self.source, "close", bool)()


class FileStream(Stream):
    """The unread rest of a regular file. Arguments: file; size, of the rest in bytes; changed, its st_mtime_ns."""

    def __init__(self, file: Any, size: int, changed: int) -> None:
        super().__init__(file_pieces(file, size), file)
        self.size, self.changed = size, changed


class AwaitedStream(Stream):
    """A stream of Items. A server that uses `when_ready` needs no thread between two of them."""

    def when_ready(self, callback: Callback) -> None:
        """Call `callback` once, in any thread, when `take` will not wait."""
        if self.first:
            callback()
        else:
            self.items.when_ready(callback)

    def take(self) -> bytes | None:
        """Return the next item, or None at the end; raise StreamFailed if the iterator has failed."""
        return next(iter(self), None)


class StreamFailed(Exception):
    """A stream failed after its first item and was logged: the server can only cut the response."""


def encode_item(item: Any) -> tuple[bytes, str]:
    """Convert one item of a stream to bytes, and to the stream's Content-Type if it is the first item."""
    if isinstance(item, (dict, list)):
        return encode_json(item) + b"\n", LINES
    if isinstance(item, str):
        return encode_text(item), HTML
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item), BINARY
    kind = type(item).__name__
    raise ResultError(f"item {clipped(item)} of type {kind} cannot be sent: a stream takes str, bytes, dict or list")


def file_pieces(file: Any, left: int = sys.maxsize) -> Iterator[Any]:
    """Yield the content of an open file in pieces, at most `left` bytes."""
    while piece := file.read(min(PIECE, left)):
        yield piece
        left -= len(piece)


def regular_file(file: Any) -> FileStream | None:
    """Return the stream of a file that `open(path, "rb")` has returned, or None for anything else.

    Others, such as the files of gzip.open, have the descriptor of a regular file, but not its content.
    """
    if not (type(getattr(file, "raw", file)) is FileIO and file.readable() and os.path.isfile(file.fileno())):
        return None
    status = os.fstat(file.fileno())
    size = status.st_size - file.tell()
    return FileStream(file, size, status.st_mtime_ns) if size > 0 else None  # 0 for a file in /proc, whatever it holds


class Feed:
    """A value that another thread provides."""

    def __init__(self) -> None:
        self.lock, self.is_ready = Lock(), False
        self.callbacks: list[Callback] = []

    def put(self, outcome: Callable[[], Any]) -> None:
        """Provide the value: `outcome` returns or raises it in the thread that takes it."""
        with self.lock:
            self.outcome, self.is_ready = outcome, True
            callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the thread that takes the value."""

        def outcome() -> NoReturn:
            raise error

        self.put(outcome)

    def when_ready(self, callback: Callback) -> None:
        """Call `callback` once, in any thread, when `take` will not wait."""
        with self.lock:
            if not self.is_ready:
                return self.callbacks.append(callback)
        callback()

    def wait(self, seconds: float = -1) -> bool:
        """Wait for the value, with a time limit in seconds; return whether the value is ready."""
        if not self.is_ready:
            arrived = Lock()
            arrived.acquire()
            self.when_ready(arrived.release)
            arrived.acquire(timeout=seconds)
        return self.is_ready

    def take(self) -> Any:
        """Wait for the value; return it, or raise the exception that was provided instead."""
        self.wait()
        return self.outcome()


class Later:
    """The body of a response that depends on a feed.

    Any WSGI server or middleware can iterate over it, and waits, while the caller is there; a server that uses
    `when_ready` and `take` needs no thread to wait. Arguments: feed; respond, called when the feed is ready, returns
    the items to send; context, of the call.
    """

    def __init__(self, feed: Feed, respond: Callable[[], Iterable[bytes]], context: Context) -> None:
        self.when_ready, self.take, self.close = feed.when_ready, respond, getattr(feed, "close", bool)
        self.wait, self.context = feed.wait, context

    def __iter__(self) -> Iterator[bytes]:
        while not self.wait(TICK):
            if self.context.cancelled:
                self.close()
                raise Disconnected
        items = self.take()
        try:
            yield from items
        finally:
            getattr(items, "close", bool)()


class Inbox:
    """A queue to one thread, with one wake-up for many items. Argument: wake, to make the thread call `take_all`."""

    def __init__(self, wake: Callback) -> None:
        self.wake, self.woken = wake, False
        self.items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self.items.append(item)
        if not self.woken:
            self.woken = True
            self.wake()

    def take_all(self) -> Iterator[Any]:
        self.woken = False  # first, so that an item that is put from now on wakes the thread again
        while self.items:
            yield self.items.popleft()


class Loop:
    """The asyncio event loop, in a thread of its own. It starts with the first coroutine: the import takes 70 ms."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.loop: Any = None
        self.jobs = Inbox(lambda: self.loop.call_soon_threadsafe(self._run_jobs))
        self.soon = self.jobs.put  # runs a function in the loop's thread; many functions at once wake the loop once

    def start(self) -> None:
        """Start the loop and its watch, unless they are running."""
        with self.lock:
            if self.loop is None:
                made = Feed()
                start_thread(self._run, made, "async")
                self.loop = made.take()
                start_thread(self._watch, None, "async watch")

    def _run(self, made: Feed) -> None:
        self.thread = get_ident()
        try:
            from asyncio import new_event_loop

            loop = new_event_loop()  # here, since gevent's selector works only in the thread that created it
        except Exception as error:
            return made.fail(error)
        made.put(lambda: loop)
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):  # from a task: asyncio raises them from the loop too
                if self.loop is loop:  # not in a process that was forked, where Life.in_child has stopped it
                    continue
            log("ERROR", "the event loop has stopped: a process that handle forked must end with os._exit")
            os._exit(1)

    def _run_jobs(self) -> None:
        for job in self.jobs.take_all():
            job()

    def _watch(self, _: None) -> None:
        """Check once a second that the loop responds, and log the code that blocks it. Thread main loop."""
        while True:
            sleep(HELD_UP)
            sign = Feed()
            self.loop.call_soon_threadsafe(sign.put, lambda: None)
            if not sign.wait(HELD_UP):
                warn_of_hold_up(sys._current_frames().get(self.thread))
                sign.wait()


LOOP = Loop()


def warn_of_hold_up(frame: FrameType | None) -> None:
    """Log which line of the function blocks the loop; `frame` is what the loop's thread is running.

    If no line of the function is running, the loop waits for the GIL, and nothing is logged.
    """
    if place := function_frame(frame):
        from linecache import getline

        file, line = place.f_code.co_filename, place.f_lineno
        source = clipped(getline(file, line).strip(), 200)[1:-1]
        blocked = f"{file}:{line} has blocked all async calls for over {HELD_UP:g} s: {source}"
        warn_once(f"{blocked}\nwith await asyncio.to_thread(...), other calls would go on")


def function_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame in the function's files, or None if there is none."""
    while frame:
        file = frame.f_code.co_filename
        if not (frame.f_globals is globals() or file.startswith((LIBRARY, "<frozen ")) or "-packages" in file):
            break
        frame = frame.f_back
    return frame


async def awaited(awaitable: Awaitable[Any]) -> Any:
    """Convert an awaitable to a coroutine."""
    return await awaitable


class Job(Feed):
    """The result of an awaitable, which a task on the loop awaits.

    Arguments: awaitable; context, of the call that it belongs to, or None for a hook.
    """

    def __init__(self, awaitable: Awaitable[Any], context: Context | None = None) -> None:
        super().__init__()
        LOOP.start()
        self.coroutine = awaitable if isinstance(awaitable, Coroutine) else awaited(awaitable)
        self.call, self.closed = copy_context(), False
        self.call.run(CALL.set, context)
        self.task: Any = None
        LOOP.soon(self._begin)

    def _begin(self) -> None:
        try:
            self.task = LOOP.loop.create_task(self.coroutine, context=self.call)
            self.task.add_done_callback(self._done)
        except BaseException as error:  # from the function's own task factory, or sys.exit in an eager task
            self.fail(error)
            self.coroutine.close()

    def _done(self, task: Any) -> None:
        if not task.cancelled():
            task.exception()  # mark it as retrieved; asyncio would log it otherwise
        if not self.is_ready:  # otherwise an item has to be taken first, and then `_go_on` calls this
            self.put(task.result)

    def close(self) -> None:
        """Cancel the task, unless it is done: the caller has gone."""
        self.closed = True
        LOOP.soon(lambda: self.task and self.task.cancel())


WORK: list[list[Callable[[], Any]]] = []  # the functions of `context.after`, a list for each call whose work is running


def begin_work(environ: dict[str, Any] | None) -> None:
    """Begin the work that the call of `environ` has given to `context.after`, if any."""
    if work := environ and environ.pop("of_python.after", None):
        WORK.append(work)
        try:
            start_thread(run_work, work, "after")
        except RuntimeError:  # the system allows no more threads
            run_work(work)


def run_work(work: list[Callable[[], Any]]) -> None:
    """Call functions one after another; log their exceptions. Thread main loop."""
    for function in work:
        try:
            result = function()
            if hasattr(result, "__await__"):
                Job(result, CALL.get()).take()
        except BaseException as error:
            log("ERROR", "work after a response failed", format_traceback(error, of_function=True), CALL.get())
    WORK.remove(work)


END_OF_ITEMS = object()


class Items(Job):
    """The items of an async iterator, one after another. The task runs at most one item ahead of the reader."""

    def __init__(self, source: Any, context: Context | None) -> None:
        self.source = source
        super().__init__(self._run(), context)

    async def _run(self) -> object:
        try:
            async for item in self.source:
                if self.closed:  # the iterator has ignored its cancellation
                    break
                self.taken = LOOP.loop.create_future()
                self.put(lambda item=item: item)  # type: ignore[misc]
                await self.taken
        finally:
            if hasattr(self.source, "aclose"):
                await self.source.aclose()
        return END_OF_ITEMS  # after `aclose`: the server calls `close` at the end, which would cancel it

    def _go_on(self) -> None:
        if self.task.done():  # ended before the last item was taken, for instance by a time limit
            self._done(self.task)
        elif not self.taken.done():
            self.taken.set_result(None)

    def take(self) -> Any:
        """Wait for the next item and return it; raise StopIteration at the end, or the iterator's exception."""
        item = super().take()
        if item is END_OF_ITEMS:
            raise StopIteration
        self.is_ready = False
        LOOP.soon(self._go_on)
        return item

    __next__ = take

    def __iter__(self) -> Items:
        return self


# ---- 10. Result -> Response: the types that handle may return --------------------------------------------------------

ENVELOPE = frozenset(("body", "response", "statusCode", "status_code", "headers"))
# The only key of an envelope that may have been meant as JSON -> what was sent instead
ALONE = {"response": "its value was sent as the body", "headers": "they were sent as headers, with an empty body"}
RELOADED: list[str] = []  # the arguments of the command line, with --reload
OTHER, OWN, LENGTH, CONNECTION = range(4)
# Fields that only the server may set: hop-by-hop fields (RFC 9110 §7.6.1), the framing, Date and Server
OWN_FIELDS = """date keep-alive proxy-authenticate proxy-authorization proxy-connection server te trailer
    transfer-encoding upgrade"""
FIELD_KINDS = {**dict.fromkeys(OWN_FIELDS.split(), OWN), "content-length": LENGTH, "connection": CONNECTION}


class Response:
    """A response to send: status, headers as pairs, and a body, bytes or a stream."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: HeaderPairs, body: bytes | Stream) -> None:
        self.status, self.headers, self.body = status, headers, body


def to_response(result: Any) -> Response:
    """Convert the result of `handle` to a Response; raise ResultError if that is not possible."""
    kind = type(result)
    if kind is str:
        return from_parts(200, (), result)
    if kind is dict or (isinstance(result, dict) and not isinstance(result, Values)):  # a caller chooses its names
        if "statusCode" in result:
            return from_envelope(result)
        if not ENVELOPE.isdisjoint(result):
            if "status_code" in result or ENVELOPE.issuperset(result):
                return from_envelope(result)
            warn_of_status(result)
        return Response(200, [("Content-Type", JSON)], encode_json(result))
    if result is None:
        if RELOADED:
            warn_once('None was sent as status 204: is a `return` missing? If not, return ("", 204)')
        return Response(204, [], b"")
    if kind is tuple:  # a named tuple is JSON
        return from_tuple(result)
    if isinstance(result, BaseException):
        raise ResultError(f"{clipped(result)} was returned: raise it, or return (str(error), 500)") from result
    if isinstance(result, int) and means_status(result):
        warn_once('a number on its own was sent as the body, with status 200: for a status, return ("", 404)')
    return from_parts(200, (), result)


def means_status(value: Any) -> bool:
    """Return whether a value is likely to be meant as a status."""
    return isinstance(value, int) and 200 <= value <= 599 and "Unknown" not in status_line(value)


def warn_of_status(result: dict[Any, Any]) -> None:
    """Warn of a dict with a body and a status that is not an envelope, since the key of its status is misspelt."""
    for key, value in result.items():
        if "body" in result and str(key).lower().startswith("status") and means_status(value):
            warn_once(f"a dict with {clipped(key)} was sent as JSON, with status 200: an envelope has 'statusCode'")


def from_envelope(envelope: dict[Any, Any]) -> Response:
    """Convert an envelope; the newer spelling of a key wins."""
    body = envelope["body"] if "body" in envelope and ENVELOPE.issuperset(envelope) else unusual_body(envelope)
    status = envelope.get("statusCode")
    if status is None and (status := envelope.get("status_code")) is None:
        status = 200
    return from_parts(status, envelope.get("headers") or (), body)


def unusual_body(envelope: dict[Any, Any]) -> Any:
    """Return the body of an envelope without `body`, or with keys outside ENVELOPE; warn of what is not sent.

    Such keys become the body if there is no other, so that no content is lost by accident.
    """
    others = {key: value for key, value in envelope.items() if key not in ENVELOPE}
    has_body = "body" in envelope or "response" in envelope
    if others and has_body:
        warn_once(f"keys beside a body were not sent: put them into it: {clipped(sorted(map(str, others)))}")
    if len(envelope) == 1 and (key := next(iter(envelope))) in ALONE:
        warn_once(f'{{"{key}": ...}} is an envelope: {ALONE[key]}; for JSON, return {{"body": {{"{key}": ...}}}}')
    return envelope.get("body", envelope.get("response")) if has_body else others or None


def from_tuple(result: tuple[Any, ...]) -> Response:
    """Convert (body, status), (body, headers) or (body, status, headers)."""
    if len(result) == 3:
        return from_parts(result[1], result[2], result[0])
    if len(result) != 2:
        shapes = "(body, status), (body, headers) or (body, status, headers)"
        raise ResultError(f"a tuple of {len(result)} cannot be sent: return {shapes}")
    body, second = result
    if not isinstance(second, (list, Mapping)):
        return from_parts(second, (), body)
    if means_status(body):
        warn_once("a number was sent as the body, and what follows as headers: for a status, return (body, status)")
    return from_parts(200, second, body)


def from_parts(status: Any, headers: Any, body: Any, kind: str = "") -> Response:
    """Make a response. Its Content-Type is the one in `headers`, else `kind`, else that of the body's type."""
    code = to_status(status)
    pairs = to_pairs(headers) if headers else []
    content, natural = encode_body(body)
    if code in (204, 304):
        return without_body(code, pairs, content)
    if not (pairs and has_type(pairs)) and (kind or natural):
        pairs.insert(0, ("Content-Type", kind or natural))
    return Response(code, pairs, content)


def has_type(headers: HeaderPairs) -> bool:
    """Return whether the headers contain a Content-Type."""
    return any(name.lower() == "content-type" for name, _ in headers)


def without_body(status: int, headers: HeaderPairs, content: bytes | Stream) -> Response:
    """Make a response with a status that forbids a body; warn if the function returned one."""
    if content != b"":
        warn_once(f"a body with status {status} is not sent")
    if not isinstance(content, bytes):
        content.close()
    return Response(status, [pair for pair in headers if pair[0].lower() != "content-type"], b"")


def to_status(status: Any) -> int:
    """Convert a status from 200 to 599, an int, an http.HTTPStatus or text such as `404 Not Found`, to an int."""
    code = status  # below 200, of-watchdog's caller would hang
    if isinstance(status, str) and re.fullmatch("[0-9]{3}( [ -~]+)?", status):
        code = int(status[:3])
    if not isinstance(code, int) or isinstance(code, bool) or not 200 <= code <= 599:
        raise ResultError(f"status {clipped(status)} cannot be sent: it takes a number from 200 to 599")
    return int(code)


def header_items(headers: Any) -> list[tuple[Any, Any]]:
    """Convert a dict or pairs to pairs; raise ResultError for anything else."""
    try:
        return [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        raise ResultError(f"headers {clipped(headers)} cannot be sent: they take a dict or a list of pairs") from None


def to_pairs(headers: Any) -> HeaderPairs:
    """Convert the function's headers to checked pairs of text, one for each field, without fields of the server."""
    pairs = []
    for name, value in header_items(headers):
        for single in value if isinstance(value, (list, tuple)) else (value,):
            # None, bytes and containers are refused: what their text should be is anyone's guess
            text = single if type(single) is str or single is None or hasattr(single, "__len__") else str(single)
            _, kind = FIELD_LINES[name, text] if type(name) is str is type(text) else field_line(name, text)
            if kind == OTHER or (kind == CONNECTION and text.lower() == "close"):
                pairs.append((name, text))
    return pairs


def encode_body(body: Any) -> tuple[bytes | Stream, str]:
    """Convert a body to bytes or a stream, and its Content-Type, or "" if the first item decides it later."""
    kind = type(body)
    if kind is dict or kind is list:
        return encode_json(body), JSON
    if kind is str or (isinstance(body, str) and not isinstance(body, Enum)):
        return encode_text(body), HTML
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), BINARY
    if body is None:
        return b"", HTML
    if isinstance(body, BaseException):  # seen in the wild: {"statusCode": 500, "body": error}
        return encode_text(str(body)), HTML
    if callable(getattr(body, "read", None)):
        file = regular_file(body)
        return (file, BINARY) if file else (Stream(file_pieces(body), body), "")
    if hasattr(body, "__next__"):
        return Stream(items_of(body) if hasattr(body, "gi_frame") else body), ""
    if hasattr(body, "__anext__"):
        return AwaitedStream(Items(body, running_call())), ""
    return encode_json(body), JSON


def items_of(generator: Generator[Any, None, Any]) -> Iterator[Any]:
    """Yield the items of a generator; warn of a value that it returns."""
    value = yield from generator
    if value is not None:
        warn_once(f"a generator returned a {type(value).__name__}, which was not sent: for a status, raise HTTPError")


def of_file(response: Response, environ: dict[str, Any]) -> Response:
    """Apply the conditions and the range of a request to a response with a file (RFC 9110 §13, §14).

    The function's own status and headers win. Size and time of change identify a version of the file.
    """
    stream: Any = response.body
    if response.status == 200 and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        seconds, own = stream.changed / 1e9, {name.lower(): value for name, value in response.headers}
        etag = own.get("etag", f'"{stream.changed:x}-{stream.size:x}"')
        modified = own.get("last-modified", format_date_time(min(seconds, time())))
        added = [("ETag", etag), ("Last-Modified", modified), ("Accept-Ranges", "bytes")]
        response.headers += [pair for pair in added if pair[0].lower() not in own]
        if is_unchanged(environ, etag, modified):
            stream.close()
            return without_body(304, response.headers, b"")
        found = requested_range(environ, stream.size, etag, modified)
        if found and own.get("accept-ranges") != "none":
            return of_range(response, stream, *found)
    response.headers.append(("Content-Length", str(stream.size)))
    return response


def is_unchanged(environ: dict[str, Any], etag: str, modified: str) -> bool:
    """Return whether the caller has this version of a file (RFC 9110 §13.1.2, §13.1.3).

    The dates must be equal, as in nginx: a later version may have an earlier date, after a roll-back for example.
    """
    known = environ.get("HTTP_IF_NONE_MATCH")
    if known is None:
        return bool(environ.get("HTTP_IF_MODIFIED_SINCE") == modified)
    return known == "*" or etag.removeprefix("W/") in re.findall('"[^"]*"', known)


def requested_range(environ: dict[str, Any], size: int, etag: str, modified: str) -> tuple[int, int] | None:
    """Return start and end of the requested part of a file, or None for all of it (RFC 9110 §14.2, §13.1.5).

    Several ranges, a range with another method than GET, and a range of another version are ignored.
    """
    match = re.fullmatch("bytes=(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))", environ.get("HTTP_RANGE", "").lower())
    version = environ.get("HTTP_IF_RANGE")
    is_other = version is not None and (etag.startswith("W/") or version not in (etag, modified))
    if match is None or is_other or environ["REQUEST_METHOD"] != "GET" or (match[2] and int(match[2]) < int(match[1])):
        return None
    start = int(match[1]) if match[1] else max(size - int(match[3]), 0)
    return start, min(int(match[2]) + 1, size) if match[2] else size


def of_range(response: Response, stream: FileStream, start: int, end: int) -> Response:
    """Make the response with a part of a file, or the 416 if the part lies outside it."""
    if start >= end:
        stream.close()
        return Response(416, [*PLAIN, ("Content-Range", f"bytes */{stream.size}")], b"Range Not Satisfiable\n")
    stream.source.seek(start, os.SEEK_CUR)
    stream.items = file_pieces(stream.source, end - start)
    part = [("Content-Range", f"bytes {start}-{end - 1}/{stream.size}"), ("Content-Length", str(end - start))]
    return Response(206, response.headers + part, stream)


class FieldLines(dict):  # type: ignore[type-arg]
    """A cache: header -> its line and kind. A hit takes 0.1 µs, a miss 1 µs."""

    def __missing__(self, header: tuple[str, str]) -> tuple[bytes, int]:
        return field_line(*header)


FIELD_LINES = FieldLines()


def field_line(name: str, value: str) -> tuple[bytes, int]:
    """Convert a header to its line and kind; raise ResultError if it would break the response."""
    if not isinstance(name, str) or not is_token(name):
        raise ResultError(f"header name {clipped(name)} cannot be sent: it takes letters, digits and -")
    if not isinstance(value, str) or not is_field_value(value):
        takes = "it takes latin-1 text without control characters"
        raise ResultError(f"header {name} with value {clipped(value)} cannot be sent: {takes}")
    text = "".join((name, ": ", value, "\r\n"))  # not an f-string: a subclass of str may format to other text
    line = text.encode("latin-1"), FIELD_KINDS.get(name.lower(), OTHER)
    remember(FIELD_LINES, (name, value), line, len(line[0]))
    return line


# ---- 11. Application: environ -> event -> handle -> Response ---------------------------------------------------------
#
# Who may touch what:
#     Application  any thread; calls run concurrently.
#     Readiness    ask: any thread. _ask, _give_up: one thread each, for one check.


class Function:
    """The user's module: its entry point and its hooks.

    Arguments: handle(event, context); startup(context), called before the first call; shutdown(context), called after
    the last one; ready(), which returns false or raises while the function cannot take calls; stream_request, whether
    `handle` is called before the body has arrived; wrap(application), called once with the WSGI application, returns
    the one to serve; on_error(error, event, context), called with what `handle` raises, unless that is an HTTPError,
    returns a result in its place, or None to leave the failure as it is.
    """

    def __init__(
        self,
        handle: Handle,
        startup: Callable[[Any], Any] | None = None,
        shutdown: Callable[[Any], Any] | None = None,
        ready: Callable[[], Any] | None = None,
        stream_request: bool = False,
        wrap: Callable[[WSGIApplication], WSGIApplication] | None = None,
        on_error: Callable[[Any, Any, Any], Any] | None = None,
    ) -> None:
        if not callable(handle):
            raise TypeError(f"handle is {clipped(handle)}: it takes a function of event and context")
        hooks = {"startup": startup, "shutdown": shutdown, "ready": ready, "wrap": wrap, "on_error": on_error}
        for name, hook in hooks.items():
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} is {clipped(hook)}: it takes a function, or None")
        self.handle, self.stream_request = handle, bool(stream_request)
        self.startup, self.shutdown, self.ready, self.wrap, self.on_error = startup, shutdown, ready, wrap, on_error


class Readiness:
    """Whether the function is ready: its `ready` runs in a thread of its own, once for all callers that wait.

    The result is valid for READY_SECONDS. A `ready` that takes longer counts as false until it returns. Argument:
    is_ready, which calls the hook.
    """

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self.is_ready, self.lock = is_ready, Lock()
        self.result, self.until = Feed(), 0.0  # the latest one, and the time when it expires

    def ask(self) -> Feed:
        """Return a feed that gets its result within READY_SECONDS."""
        with self.lock:
            if monotonic() >= self.until:
                self.result, self.until = Feed(), FOREVER
                try:
                    start_thread(self._give_up, self.result, "ready")
                    start_thread(self._ask, self.result, "ready")
                except RuntimeError:  # the system allows no more threads
                    self._put(self.result, False)
            return self.result

    def _ask(self, result: Feed) -> None:
        self._put(result, self.is_ready())

    def _put(self, result: Feed, is_ready: bool) -> None:
        result.put(lambda: is_ready)
        self.until = monotonic() + READY_SECONDS

    def _give_up(self, result: Feed) -> None:
        if not result.wait(READY_SECONDS):
            warn_once(f"ready has taken more than {READY_SECONDS:g} s: the status of /_/ready is 503 until it returns")
            result.put(lambda: False)


OWN_PATHS = ("/_/health", "/_/ready")  # to which the runtime responds itself


def state(is_ready: bool) -> Response:
    """Make the response for one of OWN_PATHS."""
    return Response(200, PLAIN[:], b"OK\n") if is_ready else Response(503, PLAIN[:], b"not ready\n")


class Application:
    """A WSGI application (PEP 3333) that calls the `handle` of one function; it runs under any WSGI server.

    Arguments: function, a Function or only its `handle`; settings, by default from `os.environ`; env, the environment
    for the context, by default `os.environ`.
    """

    raise_errors = False  # whether exceptions are raised instead of becoming a 500; an HTTPError is still a response

    def __init__(
        self, function: Function | Handle, settings: Settings | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        env = os.environ if env is None else env
        settings = Settings.from_env(env) if settings is None else settings
        if not isinstance(settings, Settings):
            raise TypeError(f"settings is {clipped(settings)}: it takes Settings, such as Settings(debug='true')")
        self.function = function if isinstance(function, Function) else Function(function)
        self.handle, self.debug = self.function.handle, settings.debug
        self.stream_request = self.function.stream_request  # read by the server
        self.context = Context.of(env, settings)
        self.context._begin = staticmethod(begin_work)
        self.readiness = Readiness(self._is_ready) if self.function.ready else None

    def wrapped(self) -> Application:
        """Return the application to serve: this one, inside the function's middleware if it has `wrap`."""
        return Wrapped(self, self.function.wrap) if self.function.wrap else self

    def startup(self) -> None:
        """Call the function's `startup`, if it has one; let its exceptions through."""
        if self.function.startup:
            self._run_hook(self.function.startup, self.context({}))

    def shutdown(self) -> None:
        """Call the function's `shutdown`, if it has one; log its exception."""
        try:
            if self.function.shutdown:
                self._run_hook(self.function.shutdown, self.context({}))
        except BaseException as error:
            log("ERROR", "shutdown failed", format_traceback(error, of_function=True))

    def _run_hook(self, hook: Callable[..., Any], *arguments: Any) -> Any:
        result = hook(*arguments)
        return Job(result, running_call()).take() if hasattr(result, "__await__") else result

    def _is_ready(self) -> bool:
        """Call the function's `ready`; an exception counts as false."""
        try:
            return bool(self.function.ready and self._run_hook(self.function.ready))
        except BaseException as error:
            trace = format_traceback(error, of_function=self.function.ready)
            warn_once(f"ready failed: {clipped(str(error))}\n{trace}")
            return False

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        event = Event(environ)
        event._context = self.context(environ)
        if self.stream_request:
            event.stream = environ["wsgi.input"]  # instead of a copy: the body arrives during the call
        if environ.get("PATH_INFO") in OWN_PATHS:
            return self._respond_itself(event, start_response)
        return self._respond(self.handle, event, start_response)

    def _respond(self, produce: Handle, event: Event, start_response: StartResponse) -> Iterable[bytes]:
        """Convert the result or exception of `produce` to a response and begin it; return the items to send."""
        context = event._context  # read by running_call, too
        try:
            result = produce(event, context)
            if hasattr(result, "__await__"):
                job = Job(result, context)
                return Later(job, partial(self._respond, lambda *_: job.take(), event, start_response), context)
            response = None if callable(result) and is_application(result) else to_response(result)
        except BaseException as error:  # also SystemExit: sys.exit in a function ends its call, not the server
            return self._recover(error, event, start_response)
        if response is None:
            return self._relay(result, event, start_response)
        return self._send(response, event, start_response)

    def _send(self, response: Response, event: Event, start_response: StartResponse) -> Iterable[bytes]:
        if type(response.body) is not bytes:
            return self._send_stream(response, event, start_response)
        start_response(status_line(response.status), response.headers)
        return [response.body]

    def _send_stream(self, response: Response, event: Event, start_response: StartResponse) -> Iterable[bytes]:
        """Send a stream, once it has its first item: until then an error can decide the status."""
        if type(response.body) is FileStream:
            response = of_file(response, event.environ)
        if type(response.body) is bytes:  # a 304 or a 416
            return self._send(response, event, start_response)
        stream: Any = response.body
        stream.failed, stream.context = lambda: self._report(sys.exception(), event), event._context

        def send(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            stream.begin()
            if not has_type(response.headers):
                response.headers.insert(0, ("Content-Type", stream.kind))
            start_response(status_line(response.status), response.headers)
            return stream  # type: ignore[no-any-return]

        respond = partial(self._relay, send, event, start_response)
        return Later(stream.items, respond, event._context) if isinstance(stream, AwaitedStream) else respond()

    def _relay(self, application: WSGIApplication, event: Event, start_response: StartResponse) -> Iterable[bytes]:
        """Let a WSGI application, such as a response object of Flask, respond; convert its exception to a response."""
        try:
            return application(event.environ, start_response)
        except Disconnected:  # this server's `write` raises it
            raise
        except BaseException as error:
            failure = sys.exc_info()

            def start_again(status: str, headers: HeaderPairs, _: Any = None) -> Callable[[bytes], object]:
                return start_response(status, headers, failure)  # which the application may have called already

            return self._recover(error, event, start_again)

    def answers_at_once(self, target: str) -> bool:
        """Return whether the runtime itself responds to `target`, which needs no thread."""
        return ("_/" in target or "%" in target) and decoded_path(target.partition("?")[0]) in OWN_PATHS

    def _respond_itself(self, event: Event, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to a health check, or to a readiness check such as of-watchdog's with `ready_path=/_/ready`."""
        if event.environ["PATH_INFO"] == "/_/health" or self.readiness is None:
            return self._send(state(True), event, start_response)
        answer = self.readiness.ask()
        return Later(answer, lambda: self._send(state(answer.take()), event, start_response), event._context)

    def _recover(self, error: BaseException, event: Event, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to an exception of `handle`: with the result of the function's `on_error`, at most once in a call."""
        is_final = event._failed or isinstance(error, (HTTPError, SenderGone))
        on_error = None if is_final else self.function.on_error
        if on_error is None:
            return self._send(self._failure(error, event), event, start_response)
        event._failed = True

        def recovered(event: Event, context: Context) -> Any:
            result = self._run_hook(on_error, error, event, context)
            if result is None:
                raise error
            return result

        return self._respond(recovered, event, start_response)

    def _failure(self, error: BaseException, event: Event) -> Response:
        """Convert an exception of `handle` to a response: an HTTPError to its own; any other is logged and a 500."""
        if isinstance(error, SenderGone) or (self.raise_errors and not isinstance(error, HTTPError)):
            raise error
        if isinstance(error, HTTPError):
            try:
                return from_error(error)
            except BaseException as second:
                return self._failure(second, event)
        trace = self._report(error, event)
        text = "Internal Server Error\ncall id: " + clipped(event._context.call_id).strip("'") + "\n"
        return Response(500, PLAIN[:], (text + trace if self.debug else text).encode("utf-8", "replace"))

    def _report(self, error: BaseException | None, event: Event) -> str:
        """Log a failed call as one record; return its traceback, or the place of `handle` if its result is at fault."""
        event.environ.pop("of_python.after", None)
        trace, shown = "", error
        if isinstance(error, ResultError):  # raised here, where the function's frames are gone
            trace, shown = "{}:{}: ResultError: {}\n".format(*place_of(self.handle), error), error.__cause__
        trace += format_traceback(shown, of_function=self.handle) if shown else ""
        log("ERROR", f"{clipped(event.method)} {clipped(event._target, 1000)} failed", trace, event._context)
        return trace


class Wrapped(Application):
    """An application inside the WSGI middleware of its function, which health checks bypass.

    Arguments: application; wrap, which makes the middleware. Raises LoadError if that cannot be called.
    """

    def __init__(self, application: Application, wrap: Callable[[WSGIApplication], WSGIApplication]) -> None:
        vars(self).update(vars(application))
        self.middleware = wrap(super().__call__)
        if not callable(self.middleware):
            raise LoadError(f"wrap returned {clipped(self.middleware)}: it must return a WSGI application")

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        is_own = environ.get("PATH_INFO") in OWN_PATHS
        return (super().__call__ if is_own else self.middleware)(environ, start_response)

    def _send(self, response: Response, event: Event, start_response: StartResponse) -> Iterable[bytes]:
        """Add a Content-Length: middleware may wrap the list in something without a length."""
        if type(response.body) is bytes and response.status not in (204, 304):
            response.headers.append(("Content-Length", str(len(response.body))))
        return super()._send(response, event, start_response)


def is_application(result: Any) -> bool:
    """Return whether a callable result is a WSGI application; raise ResultError if it is a function to be called."""
    code, is_class = code_of(result), isinstance(result, type) and not hasattr(result, "__iter__")
    is_async = code and code.co_flags & (0x80 | 0x200)  # CO_COROUTINE, CO_ASYNC_GENERATOR
    if not (is_async or is_class or misfit(result, ("environ", "start_response"))):
        return True
    if name := getattr(result, "__name__", ""):
        raise ResultError(f"result is {clipped(result)}, which was not called: return {name}(), not {name}")
    return False


CALL_CODE.add(Application._respond.__code__)  # its local `context` is that of the call


def from_error(error: HTTPError) -> Response:
    """Convert an HTTPError to a response; its body is the status's phrase as text if the error has none."""
    if error.body is not None:
        return from_parts(error.status, error.headers, error.body)
    code = to_status(error.status)
    phrase = None if code in (204, 304) else status_line(code)[4:] + "\n"
    return from_parts(code, error.headers, phrase, "text/plain; charset=utf-8")


TARGETS = "a file, a folder with handler.py, or module:function"


def default_target() -> str:
    """Return the target if none is given: in the current folder, else beside this module."""
    for path in ("handler.py", "function", "handler"):
        if os.path.isfile(path) or os.path.isfile(f"{path}/handler.py"):
            return os.path.abspath(path)
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "handler")


def load_function(target: str | os.PathLike[str] = "") -> Function:
    """Import the function's module and return its Function.

    Argument: target, a file, a folder with `handler.py`, or `module:function`; by default `handler.py`, `function/` or
    `handler/` in the current folder, else the folder `handler` beside this module. Raises SettingsError if the target
    does not exist, LoadError if the module has no such entry point, and any exception of the import.
    """
    if not isinstance(target, (str, os.PathLike)):
        raise TypeError(f"target is {clipped(target)}: it takes {TARGETS}")
    target = os.fspath(target) or default_target()
    if os.path.isdir(target) or os.path.isfile(target):
        return declared(import_file(target), "handle")
    module, _, name = target.partition(":")
    if name.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        sys.path.insert(0, os.getcwd())
        try:
            imported = __import__(module, fromlist=[name])
            if hasattr(imported, "__path__") and not getattr(imported, "__file__", None):
                raise SettingsError(f"TARGET {clipped(target)} is a folder: it takes {module} or {module}.file:{name}")
            return declared(imported, name)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):  # a module that the function imports is missing
                raise
    raise SettingsError(f"TARGET {clipped(target)} does not exist: it takes {TARGETS}")


class LoadError(Exception):
    """The function cannot be loaded or started. Arguments: the text to log, and a traceback."""


def import_file(path: str) -> ModuleType:
    """Import a function's file as a module of the package `function`.

    Argument: path, of the file, or of a folder with handler.py, where an adapter from a template takes precedence.
    """
    if os.path.isdir(path):
        adapter = os.path.join(path, ADAPTER)
        path = adapter if os.path.isfile(adapter) else os.path.join(path, "handler.py")
    path = os.path.abspath(path)
    folder, file = os.path.split(path)
    if not os.path.isfile(path):
        raise SettingsError(f"TARGET {clipped(folder)} holds no {file}")
    name = file.removesuffix(".py")
    if "." in name or name == file:
        raise SettingsError(f"TARGET {clipped(file)} cannot be imported: it takes a .py file, with a name without dots")
    package = sys.modules.get("function")
    if package and [*package.__path__] != [folder]:  # another function, loaded before
        for key, module in list(sys.modules.items()):
            if f"{getattr(module, '__name__', key)}.".startswith("function."):
                del sys.modules[key]
    FunctionFinder(folder).install()
    os.environ[FUNCTION_FOLDER] = folder
    return __import__("function." + name, fromlist=["handle"])


ADAPTER = "flask_adapter.py"  # of the template python3-flask


class FunctionFinder:
    """Finds the package `function` in a folder of any name, and its modules by their bare names too.

    Two are installed. The first finder of all finds the package, even if one of this name is installed. The last one
    resolves `mod`, if no other finder has, to the module `function.mod`: the function's files shadow no other module,
    and none is loaded twice. (MetaPathFinder and Loader of importlib.abc.) Arguments: folder, the function's; is_last.
    """

    def __init__(self, folder: str, is_last: bool = False) -> None:
        self.folder, self.is_last = folder, is_last

    def install(self) -> None:
        """Install the first finder and the last, in place of those of an earlier function."""
        others = [finder for finder in sys.meta_path if not isinstance(finder, FunctionFinder)]
        sys.meta_path[:] = [self, *others, FunctionFinder(self.folder, is_last=True)]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name == "function":
            return self.package()
        parent = name.rpartition(".")[0]  # `import inner.deep` may follow upon `import inner`
        is_inner = parent and getattr(sys.modules.get(parent), "__name__", "") == "function." + parent
        # `handler` by this finder alone: a folder `handler` in the current one would be found as a namespace package
        if not (is_inner or (self.is_last and not parent) or name == "handler"):
            return None
        from importlib.machinery import ModuleSpec, PathFinder

        found = PathFinder.find_spec("function." + name, path or [self.folder])
        return found and ModuleSpec(name, self, origin=found.origin)  # type: ignore[arg-type]

    def package(self) -> Any:
        from importlib.machinery import ModuleSpec, SourceFileLoader

        loader: Any = SourceFileLoader("function", os.path.join(self.folder, "__init__.py"))
        if not os.path.isfile(loader.path):
            loader.exec_module = bool  # nothing to run
        spec = ModuleSpec("function", loader, origin=loader.path, is_package=True)
        spec.submodule_search_locations, spec.has_location = [self.folder], True
        return spec

    def create_module(self, spec: Any) -> ModuleType:
        module = __import__("function." + spec.name, fromlist=["handle"])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: Any) -> None:
        module.__spec__ = module.__spec__.loader_state  # its own, which the import system has just replaced


HOOKS = {"startup": "context", "shutdown": "context", "ready": "", "wrap": "application"}  # and their arguments
HOOKS["on_error"] = "error event context"


def declared(module: ModuleType, name: str) -> Function:
    """Return the Function of `module`, with `name` as its entry point; raise LoadError if that cannot be called."""
    handle = getattr(module, name, None)
    if callable(handle):
        if fault := misfit(handle, ("event", "context"), name):
            raise LoadError(fault)
        hooks: dict[str, Any] = {hook: value for hook in HOOKS if callable(value := getattr(module, hook, None))}
        if getattr(hooks.get("wrap"), "__module__", "") == "textwrap":
            del hooks["wrap"]
        for hook, value in list(hooks.items()):
            if fault := misfit(value, HOOKS[hook].split(), hook):
                log("WARNING", f"{fault}: it is not used as a hook")
                del hooks[hook]
        return Function(handle, **hooks, stream_request=getattr(module, "stream_request", False))
    callables = [(key, value) for key, value in vars(module).items() if callable(value)]
    defined = [key for key, value in callables if getattr(value, "__module__", "") == module.__name__]
    where = getattr(module, "__file__", module.__name__)
    raise LoadError(f"{where} defines no function {name}(event, context); it defines: {', '.join(defined) or 'none'}")


def misfit(function: Any, arguments: Sequence[str], name: str = "") -> str:
    """Return what is wrong with the signature of a function that is called with these arguments; "" if nothing."""
    code, has_self = code_of(function), not isinstance(function, FunctionType)
    if code and code.co_argcount == len(arguments) + has_self and not code.co_kwonlyargcount:
        return ""
    from inspect import signature  # takes 10 ms

    try:
        form = signature(function, follow_wrapped=False)  # of the decorator's wrapper, since that is called
    except Exception:  # unknown, as for some built-in functions
        return ""
    try:
        form.bind(*arguments)
        return ""
    except TypeError:
        found = f"{name}{clipped(str(form), 200)[1:-1]}"
        return "{}:{}: {} cannot be called as {}({})".format(*place_of(function), found, name, ", ".join(arguments))


def make_application(target: str | os.PathLike[str] = "") -> Application:
    """Make the application for another WSGI server: `waitress-serve --call watchdog_app:make_application`.

    Argument: target, as for `load_function`, with the same exceptions.
    """
    application = Application(load_function(target))
    application.startup()
    import atexit

    atexit.register(application.shutdown)
    return application.wrapped()


# ---- 12. Exchange: one request and its response ----------------------------------------------------------------------
#
# Only the thread that owns a connection touches its Exchange.

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
is_status = re.compile(r"[2-5][0-9]{2} [\t\x20-\x7e\x80-\xff]*").fullmatch
BODILESS = ("204 ", "304 ")  # statuses without a body (RFC 9110 §6.4.1); 1xx is not accepted at all


def status_bytes(status: str) -> tuple[bytes, bool]:
    """Return the status line of a WSGI status, and whether it has no body; raise ResultError if it is not valid."""
    if type(status) is not str or not is_status(status):
        raise ResultError(f"status line {clipped(status)} cannot be sent: it takes 200 to 599 and a phrase")
    return f"HTTP/1.1 {status}\r\n".encode("latin-1"), status.startswith(BODILESS)


STATUS_BYTES = Known(status_bytes)


@lru_cache(1)
def date_fields(second: int) -> bytes:
    """Return the Date and Server fields of a response; they are formatted once a second."""
    return f"Date: {format_date_time(second)}\r\nServer: of-python\r\n".encode("latin-1")


class Exchange(BaseHandler):
    """One request and its response: run a WSGI application; check, frame and send what it returns.

    BaseHandler provides the hooks and their order; the docstring of an override says what is wrong with the default.
    Status, names and values are checked here, before the first byte is sent.

    Arguments: request; connection, whose `send` keeps the bytes that the kernel does not take, and whose `send_all`
    waits for the peer; server, which has the base environ, `clock`, `closing` and `before_stream`.
    """

    error_headers: HeaderPairs = PLAIN
    error_body = b"Internal Server Error\n"
    bytes_sent = 0  # of a body whose length is known
    length: int | None = None  # of the body: declared by the application, or that of a list
    no_body = False  # for HEAD, 204 and 304
    chunked = False
    ended_at = FOREVER  # when the peer's FIN was first seen
    cut = False  # whether the response ended early
    work_of: dict[str, Any] | None = None  # the environ, if it has work to begin at the end

    def __init__(self, request: Request, connection: Connection, server: Server) -> None:
        self.request, self.connection, self.server = request, connection, server
        # Set here, since each exchange reads them: reading a class default takes several times as long
        self.lines: list[bytes] | None = None  # the status line and the checked fields
        self.headers_sent = False
        self.awaits = False  # whether the result is awaited: the server calls `go_on` once it is ready
        self.is_special = False  # whether it is cut, or has work to begin at the end

    def run(self, application: WSGIApplication) -> None:
        """Run `application`. The default mistakes its ConnectionError for a lost peer."""
        connection = self.connection
        try:
            self.environ = environ = build_environ(self.request, self.server.base, connection.peer)
            environ["of_python.connection"] = connection
            if connection.reader.pending is not None:
                environ["wsgi.input"] = connection.arriving_body(self.request)
            self.result = application(environ, self.start_response)
            self.finish_response()
        except BaseException as error:
            self._fail(error)

    def go_on(self) -> None:
        """Go on with a result that is ready: items that replace it, or the next item of a stream, None at its end."""
        try:
            taken = self.result.take()  # type: ignore[attr-defined]
            if type(taken) is bytes:
                self.write(taken)
            elif taken is not None:
                self.result, self.awaits = taken, False
                return self.finish_response()
            if taken is None or self.no_body:
                self.finish_content()
                self.awaits = False
        except BaseException as error:
            self._fail(error)

    def start_response(self, status: str, headers: HeaderPairs, exc_info: Any = None) -> Callable[[bytes], object]:  # type: ignore[override]
        """Check status and headers (PEP 3333). The default checks with assert only, and allows CR and LF."""
        if exc_info:
            if self.headers_sent:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self.lines:
            raise RuntimeError("start_response was called twice")
        self.length = None
        line, self.bodiless = STATUS_BYTES[status]
        lines = [line, date_fields(int(time()))]
        for name, value in headers:
            line, kind = FIELD_LINES[name, value]
            if kind == OTHER:
                lines.append(line)
            elif kind == LENGTH:
                self.length = declared_length(value)
            elif kind == CONNECTION and value.lower() == "close":
                self.request.keep_alive = False
        self.lines = lines
        return self.write

    def finish_response(self) -> None:
        """Send a list together with the head, an awaited result once it is ready, and anything else item by item.

        The default sends the head and each item separately.
        """
        if type(self.result) is list and not self.headers_sent:  # a list has no `close`
            body = b"".join(self.result)
            if self.length is None:
                self.length = len(body)
            self.connection.send(*self._framed(body, True))
        elif hasattr(self.result, "when_ready"):
            self.awaits = True
        else:
            self.server.before_stream(self.connection)
            for item in self.result:
                self.write(item)
                if self.no_body:
                    break
            self.finish_content()

    def finish_content(self) -> None:
        """End the body and close the result. The default knows no chunks, and allows a body that is too short."""
        self.write(b"", is_last=True)
        self.close()

    def write(self, data: bytes, is_last: bool = False) -> None:
        """Send one item of a stream (PEP 3333). The default knows no framing but Content-Length.

        The leader sends an awaited result and must not wait: it takes the next item when this one has been sent.
        """
        if type(data) is not bytes:
            raise ResultError(f"the item {clipped(data)} of type {type(data).__name__} cannot be sent: it takes bytes")
        framed, *more = self._framed(data, is_last)
        if framed or more:
            self.ended_at = FOREVER
            (self.connection.send if self.awaits else self.connection.send_all)(framed, *more)
        elif not is_last:
            self._look_at_peer()

    def _framed(self, data: bytes, is_last: bool) -> list[bytes]:
        """Return `data` in its framing: after the head, if that has not been sent; before the body's end, if last."""
        head, tail = b"" if self.headers_sent else self._head(), b""
        if self.no_body:
            data = b""
        elif self.length is not None:
            sent = self.bytes_sent + len(data)
            if sent != self.length and (is_last or sent > self.length):
                raise ResultError(f"header Content-Length is {self.length}, but the body has {sent} bytes")
            self.bytes_sent = sent
        if self.chunked:
            if data:
                head, tail = head + b"%x\r\n" % len(data), b"\r\n"
            if is_last:
                tail += b"0\r\n\r\n"
        self.headers_sent = True
        return [head, data, tail] if len(data) > JOINED else [b"".join((head, data, tail))]

    def _head(self) -> bytes:
        if not self.lines:
            raise RuntimeError("the application did not call start_response before its first item")
        request, framing = self.request, self._framing()
        if self.server.closing or self.connection.reader.pending is not None:
            request.keep_alive = False
        end = b"\r\n" if request.modern else b"Connection: keep-alive\r\n\r\n"
        if not request.keep_alive:  # no 100 from now on
            request.expects_continue, end = False, b"Connection: close\r\n\r\n"
        return b"".join((*self.lines, framing, end))

    def _framing(self) -> bytes:
        """Decide how the body is delimited (RFC 9112 §6.3); return the header field that says so."""
        request = self.request
        self.no_body = self.bodiless or request.method == "HEAD"
        if self.bodiless:
            return b""
        if self.length is not None:
            return b"Content-Length: %d\r\n" % self.length
        if request.modern:
            self.chunked = not self.no_body
            return b"Transfer-Encoding: chunked\r\n"
        request.keep_alive = False  # the end of the connection is the end of the body
        return b""

    def _look_at_peer(self) -> None:
        """Raise Disconnected if the peer is lost, or sent FIN HALF_CLOSED seconds ago: empty items cause no send."""
        if end := self.connection.has_gone():
            now = self.server.clock()
            self.ended_at = min(self.ended_at, now)
            if end != POLLRDHUP or now - self.ended_at >= HALF_CLOSED:
                raise Disconnected

    def _fail(self, error: BaseException) -> None:
        """Log the error, then send a 500 or cut a response that has begun."""
        self.awaits = False
        try:
            if not isinstance(error, (Disconnected, StreamFailed)):  # no fault; logged by the application
                self.log_exception(sys.exc_info())
            if isinstance(error, Disconnected) or self.headers_sent:
                return self.give_up()
            self.close()
            self.result = self.error_output(self.environ, self.start_response)
            self.finish_response()
        except BaseException:  # the response to the error has failed too
            self.give_up()

    def ends_early(self) -> bool:
        """Begin the work of the call; return whether its response was cut."""
        begin_work(self.work_of)
        return self.cut

    def give_up(self) -> None:
        """Abandon the rest of the response."""
        self.is_special = self.cut = True
        self.close()

    def close(self) -> None:
        """Close the result. The default lets its errors escape."""
        try:
            super().close()
        except BaseException:
            self.log_exception(sys.exc_info())

    def log_exception(self, exc_info: Any) -> None:
        """Log one record. The default makes many writes."""
        call = f"{clipped(self.request.method)} {clipped(self.request.target, 1000)}"
        log("ERROR", f"{call} failed", format_traceback(exc_info[1], of_function=True))

    get_stdin = get_stderr = add_cgi_vars = _write = _flush = None  # type: ignore[assignment]  # never called


def declared_length(value: str) -> int:
    """Convert the application's Content-Length; raise ResultError if it is not a number."""
    if not is_length(value):
        raise ResultError(f"header Content-Length with value {clipped(value)} cannot be sent: it takes a number")
    return int(value)


def refuse(error: HTTPError, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
    """Respond with a refusal: fixed text, nothing from the request."""
    line = status_line(error.status)
    start_response(line, [*PLAIN, *error.headers])
    return [line[4:].encode("latin-1") + b"\n"]


# ---- 13. Connection: one socket and its state ------------------------------------------------------------------------
#
# A Connection knows nothing of threads or other connections. Only its owner writes to it: the leader, or the thread
# that runs its call (section 14). One exception: the thread that completes an awaited result sets `is_ready`.
#
# state                  what happens                                                    next state
# NEW, IDLE              a part of a request comes                                       HEAD, BODY
# HEAD                   the rest of a head comes; only blank lines came                 BODY, IDLE
# NEW, IDLE, HEAD, BODY  a request is complete or refused: it runs, or waits             RUNNING, QUEUED
# NEW, IDLE, HEAD, BODY  the connection is lost; in NEW and IDLE FIN, or keep_alive ends CLOSED
# BODY                   the kernel does not take our 100                                SENDING
# QUEUED                 a thread is free; the connection is lost                        RUNNING, CLOSED
# RUNNING                the response is sent; and a further request has begun           IDLE, HEAD
# RUNNING                the response is sent, the last one; it is cut                   LINGERING, CLOSED
# RUNNING                the result is awaited; the kernel does not take all             AWAITING, SENDING
# SENDING                all is sent; `then` is the next state                           IDLE, HEAD, LINGERING
# SENDING                likewise                                                        AWAITING, BODY
# SENDING                the connection is lost; nothing is taken for write_timeout      CLOSED
# AWAITING               the result is ready: the call goes on, or waits for a thread    RUNNING, QUEUED
# AWAITING               the connection is lost; HALF_CLOSED seconds after FIN           CLOSED
# LINGERING              FIN; LINGER_BYTES have come; LINGER_SECONDS are over            CLOSED

NEW, IDLE, HEAD, BODY = "new", "idle", "head", "body"  # NEW: before the first request; HEAD, BODY: as Reader.waiting
QUEUED, RUNNING, SENDING, AWAITING = "queued", "running", "sending", "awaiting"
LINGERING, CLOSED = "lingering", "closed"
READING = (IDLE, NEW, HEAD, BODY)
IN, OUT = POLLIN, POLLOUT
END, LOST = POLLRDHUP, POLLHUP | POLLERR | POLLNVAL  # FIN, perhaps of a half-close; the connection is lost
RESET = (1).to_bytes(4, sys.byteorder) + bytes(4)  # struct linger {1, 0}; importing struct costs 1 ms at start


def poll_for(fd: int, mask: int, seconds: float = 0.0) -> int:
    """Wait at most `seconds` for an event of `mask` on `fd`; return the events, 0 for none."""
    waiter = poll()
    waiter.register(fd, mask)
    return sum(event for _, event in waiter.poll(min(seconds, LONGEST_POLL) * 1000))


def acknowledged(sock: Socket) -> int:
    """Return how many bytes the peer has acknowledged (tcpi_bytes_acked of struct tcp_info), 0 if unknown."""
    try:
        return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)[120:128], sys.byteorder)
    except (OSError, AttributeError):  # not on Linux
        return 0


def peeked_end(sock: Socket) -> int:
    """Return the same as `Connection.has_gone`, where there is no POLLRDHUP: FIN after unread bytes is not noticed."""
    try:
        return 0 if sock.recv(1, socket.MSG_PEEK) else END
    except BlockingIOError:
        return 0
    except OSError:
        return LOST


def remaining(parts: Sequence[bytes | memoryview], sent: int) -> bytes | memoryview:
    """Return what follows the first `sent` bytes of `parts`, without a copy if it lies in one of them."""
    views = []
    for part in parts:
        if sent < len(part):
            views.append(memoryview(part)[sent:])
        sent = max(0, sent - len(part))
    return views[0] if len(views) == 1 else b"".join(views)


class Connection:
    """One socket: its state, what it waits for (`mask`) and until when (`deadline`).

    Arguments: sock, non-blocking; peer, its address; reader; settings; clock; notify, called with the descriptor, in
    any thread, when an awaited result is ready.
    """

    def __init__(
        self,
        sock: Socket,
        peer: str,
        reader: RequestReader,
        settings: Settings,
        clock: Clock = monotonic,
        notify: Callable[[int], object] = bool,
    ) -> None:
        self.sock, self.fd, self.peer, self.reader = sock, sock.fileno(), peer, reader
        self.settings, self.clock, self.notify = settings, clock, notify
        self.since = clock()  # when the head, the body or the wait for a thread began
        self.state, self.mask, self.deadline = NEW, IN, self.since + settings.keep_alive
        self.then = IDLE  # the state after SENDING
        self.out: bytes | memoryview = b""  # bytes that the kernel has not taken yet
        self.taken = self.discarded = 0  # bytes acknowledged at the last check; bytes read while LINGERING
        self.more = False  # whether more may be readable now, though its turn is over
        self.request: Any = None  # the Request of the call to run, until its response is complete
        self.exchange: Any = None  # the Exchange in progress
        self.is_ready = False  # whether its awaited result is ready
        self.apart = False  # whether a thread without the lead owns it; only the Lead writes this
        self.noted = False  # whether the call's time has been counted, or is not to be
        self.watched = 0  # what the selector watches it for; only the Server writes this

    # -- one step --

    def step(self) -> bool:
        """Handle an event, for one turn at most; return whether a call is to be run. Owner."""
        self.more = False
        try:
            if self.state not in READING:
                return self._step_on()
            request = self._read()
            if request is None:
                self._await_rest(self.clock())
                return False
            self.request, self.noted = request, request.refusal is not None
            return True
        except BaseException as error:
            if not isinstance(error, Disconnected):
                log_fault(error)
            self.state = CLOSED
            return False

    def _step_on(self) -> bool:
        """Handle an event after the request is complete; return whether a call is to be run."""
        if self.state == SENDING:
            self.send_rest()
            self._enter(self.then, self.clock())
        elif self.state == LINGERING:
            data = self.receive()
            self.discarded += len(data or b"")
            if data == b"" or self.discarded > LINGER_BYTES:
                self.state = CLOSED
        elif self.state == QUEUED:
            return self.exchange is not None or self._is_wanted()
        elif self.state == AWAITING and not self.is_ready:
            self._look_at_peer()
        return self.is_ready and self.state == AWAITING

    def _read(self) -> Request | None:
        """Return the request that is complete or refused. While reads are full, one more costs less than a poll."""
        reader, end = self.reader, 0.0
        if reader.buffer and (not reader.waiting or reader.in_part):  # bytes that have arrived already
            return reader.receive(b"")
        while data := self.receive():
            request = reader.receive(data)
            if request is not None or len(data) < RECEIVE or reader.in_part:
                return request
            end = end or self.clock() + TURN
            if self.clock() >= end:
                self.more = True
                return None
        if data is None:
            return None
        if request := reader.give_up(400):
            return request
        raise Disconnected

    def _await_rest(self, now: float) -> None:
        """Wait for the rest of a request, or for the next one."""
        reader = self.reader
        self.more = self.more or reader.in_part
        self._enter(reader.waiting or (NEW if self.state == NEW else IDLE), now)
        if reader.wants_continue():
            self.send(CONTINUE)
            self._enter(BODY, now)

    def _enter(self, state: str, now: float) -> None:
        """Enter `state`, by way of SENDING if bytes are left to send; set what to wait for and the deadline.

        A body must arrive without long pauses, and at BODY_RATE on average.
        """
        settings, reader = self.settings, self.reader
        if self.out:
            self.then, state = state, SENDING
            self.has_taken()
        elif state == IDLE and reader.buffer:  # a further request, or its beginning
            state, self.more = HEAD, True
        if state != self.state:
            self.since = now
        self.state, self.mask, self.deadline = state, IN, now + settings.keep_alive
        if state == HEAD:
            self.deadline = self.since + HEAD_SECONDS
        elif state == BODY:
            allowed = settings.read_timeout + reader.received / BODY_RATE
            self.deadline = min(now + settings.read_timeout, self.since + allowed)
        elif state == SENDING:
            self.mask, self.deadline = OUT, now + settings.write_timeout
        elif state == AWAITING:
            self.mask, self.deadline = END if reader.pending else IN, FOREVER
            self.exchange.result.when_ready(self._announce)
        elif state == LINGERING:  # closing with unread data would cost the peer the response
            self.deadline = now + LINGER_SECONDS
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.state = CLOSED

    def run(self, server: Server) -> float:
        """Run the call, or go on with the one whose result is ready; return the time when it is done. Owner.

        The response is sent as far as the kernel takes it.
        """
        self.state, self.more = RUNNING, False
        exchange, request = self.exchange, self.request
        if exchange is None:
            exchange = self.exchange = Exchange(request, self, server)
            exchange.run(partial(refuse, request.refusal) if request.refusal else server.application)
        else:
            self.is_ready = False
            exchange.go_on()
        now = self.clock()
        if exchange.awaits:
            self._enter(AWAITING, now)
            return now
        self.request = self.exchange = None  # the exchange refers to this connection: a cycle
        if held := self.reader.held:
            self.reader.hold(-held)
        if exchange.is_special and exchange.ends_early():
            self.abort(visibly=not exchange.chunked and exchange.length is None)
        elif self.out or self.reader.buffer or not request.keep_alive:
            self._enter(IDLE if request.keep_alive else LINGERING, now)
        else:  # nearly always: without the call, 4 % less of a short one
            self.state, self.mask, self.deadline = IDLE, IN, now + self.settings.keep_alive
        return now

    def expire(self, now: float) -> bool:
        """End what takes too long; return whether to send a refusal, the 408 for an incomplete request. Leader."""
        if self.state == SENDING and self.has_taken():
            self.deadline = now + self.settings.write_timeout
            return False
        self.request, self.noted = self.reader.give_up(408) if self.state in READING else None, True
        if self.request is None:
            self.state = CLOSED
        return self.request is not None

    def leave_idle(self, now: float) -> None:
        """Let an idle connection end now, and a new one, whose first request may be on its way, in a moment. Leader."""
        if self.state in (NEW, IDLE):
            self.deadline = min(self.deadline, now + MOMENT if self.state == NEW else now)

    # -- calls --

    def queue(self) -> None:
        """Begin to wait for a thread. Leader."""
        self.state, self.since, self.more = QUEUED, self.clock(), True

    def has_call(self) -> bool:
        """Tell whether a call is to be run: queued, awaited, or received together with the last one. Owner."""
        return (self.more or self.is_ready) and self.step()

    def _is_wanted(self) -> bool:
        """Tell whether the caller of a queued call is still there; refuse the call if its time is over.

        FIN may be a half-close, but of-watchdog sends one, too, when its own caller has gone: after HALF_CLOSED seconds
        the call is refused, so that a caller who is still there can try again.
        """
        end = self.has_gone()
        if end & LOST:
            self.state = CLOSED
            return False
        limit = time_limit(self.settings.exec_timeout, self.request.fields.get("HTTP_X_TIMEOUT"))
        waited = self.clock() - self.since
        if waited >= limit:
            warn_once("calls have waited for a thread until their time was over, and were not run: 503")
        if waited >= (min(limit, HALF_CLOSED) if end else limit):
            self.request.refusal, self.noted = HTTPError(503, None, RETRY), True
        return True

    def expects_work(self, environ: dict[str, Any]) -> bool:
        """Tell whether the exchange of `environ` is in progress; if so, its end begins the work. Any thread."""
        exchange = self.exchange
        if is_going := exchange is not None and exchange.environ is environ:
            exchange.is_special, exchange.work_of = True, environ
        return is_going

    def claim(self, size: int) -> None:
        """Count `size` bytes that the function makes of its body; raise HTTPError if they do not fit. Any thread."""
        self.reader.hold(size)

    def _announce(self) -> None:
        """Tell the leader that the awaited result is ready. Any thread."""
        self.is_ready = True
        self.notify(self.fd)

    # -- the peer --

    def has_gone(self) -> int:
        """Return 0 while the peer is there, END after its FIN, bits of LOST if it is lost. Any thread."""
        if self.state == CLOSED:  # the descriptor may be another's
            return LOST
        return poll_for(self.fd, END) if epoll else poll_for(self.fd, 0) or peeked_end(self.sock)

    def arriving_body(self, request: Request) -> BufferedReader:
        """Return a file that reads the body of `request` from the network. Owner."""
        return BufferedReader(ArrivingBody(self, request, self.settings.read_timeout), RECEIVE)

    def _look_at_peer(self) -> None:
        """Close if the peer is lost while its result is awaited; allow HALF_CLOSED seconds after FIN."""
        end = self.has_gone()
        if end & LOST:
            self.state = CLOSED
        elif end:
            self.mask, self.deadline = POLLHUP, self.clock() + HALF_CLOSED
        else:  # its next request came early
            self.mask = END

    def receive(self) -> bytes | None:
        """Return what has arrived, b"" at EOF, None if nothing has; raise SenderGone if it is lost. Owner."""
        try:
            return self.sock.recv(RECEIVE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SenderGone from error

    def send(self, data: bytes | memoryview, *more: bytes) -> None:
        """Send as much of `data`, then `more`, as the kernel takes at once, and keep the rest. Owner."""
        try:
            sent = self.sock.sendmsg((data, *more)) if more else self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Disconnected from error
        if more or sent < len(data):
            self.out = remaining((data, *more), sent)

    def send_rest(self) -> None:
        """Send as much of the rest as the kernel takes at once. Owner."""
        out, self.out = self.out, b""
        self.send(out)

    def send_all(self, *parts: bytes) -> None:
        """Send all of `parts`; raise Disconnected if the peer takes nothing for write_timeout seconds. Owner."""
        self.send(*parts)
        while self.out:
            self.has_taken()
            if not poll_for(self.fd, POLLOUT, self.settings.write_timeout) and not self.has_taken():
                raise Disconnected
            self.send_rest()

    def has_taken(self) -> bool:
        """Tell whether the peer has acknowledged anything since the last check: the kernel reports room only when a
        third of its buffer is free.
        """
        before, self.taken = self.taken, acknowledged(self.sock)
        return self.taken > before

    def abort(self, visibly: bool = False) -> None:
        """End at once, by RST if FIN would pass for the end of the response. Owner."""
        self.state = CLOSED
        if visibly:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            except OSError:
                pass

    def close(self) -> None:
        """Close the socket, and give up an awaited result. Leader."""
        self.state = CLOSED
        self.reader.close()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.give_up()
            exchange.ends_early()
        try:
            self.sock.close()
        except OSError:  # the function has closed it
            pass


class ArrivingBody(RawIOBase):
    """A request's body that is read from the connection as the function asks for it (`stream_request`). Owner."""

    def __init__(self, connection: Connection, request: Request, patience: float) -> None:
        self.connection, self.request, self.patience = connection, request, patience
        self.received, self.waited = connection.reader.received, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        """Read what has arrived, or wait for more; return 0 at the end of the body.

        Raise HTTPError for a body that is not valid, is cut, or stops arriving.
        """
        content, reader = self.request.content, self.connection.reader
        while not content.tell() and reader.pending is self.request:  # which may be a later request by now
            self._receive(reader)
        content.seek(0)
        size = content.readinto(target)
        rest = content.read()  # usually nothing
        content.seek(0)
        content.truncate()
        content.write(rest)
        return size

    def _receive(self, reader: RequestReader) -> None:
        if reader.wants_continue():
            self.connection.send_all(CONTINUE)
        data = b"" if reader.in_part else self.connection.receive()
        if data or reader.in_part:
            request = reader.receive(data or b"")
            self.received += len(data or b"")
        else:
            request = self._wait(reader) if data is None else reader.give_up(400)
        if request is not None and request.refusal:
            raise request.refusal

    def _wait(self, reader: RequestReader) -> Request | None:
        """Wait for more; refuse a body that pauses for too long, or whose waits add up to more than its bytes allow."""
        began = monotonic()
        allowed = min(self.patience, self.patience + self.received / BODY_RATE - self.waited)
        came = poll_for(self.connection.fd, POLLIN, max(allowed, 0.0))
        self.waited += monotonic() - began
        return None if came else reader.give_up(408)


# ---- 14. Lead: threads, and the right to poll ------------------------------------------------------------------------
#
# Handing a call to another thread costs two switches under the GIL. So one thread has the lead: it polls, and runs a
# complete call in place. The lead is passed on only when a call may block: before one that is expected to (by the
# average of earlier calls), before a response that waits for its peer, and by the monitor when the call is stuck.
#
# - Only the thread that has the lead polls. The lead is never lost: it passes to a parked thread or to a new one.
# - A call runs in place only if a parked thread can take the lead. One thread more than `most` is kept for that; if
#   none is parked, the leader queues calls and goes on polling.
# - A job (a Connection) has one owner: the leader or, if it is `apart`, the queue or the one thread that runs it.
# - A job becomes `apart` only under `lock`, by the leader or by whoever takes the lead from it. The owner's last write
#   gives it back.
# - `leader`, `parked`, `workers`, `queue` and `current` change under `lock`; without it they may only be looked at.


class Expectation:
    """How long calls take: a moving average of all and, once one was slow, of each path."""

    def __init__(self) -> None:
        self.average = 0.0
        self.paths: dict[str, float] = {}

    def blocks(self, target: str) -> bool:
        """Tell whether a call to `target` is expected to take more than SLOW seconds."""
        return self.paths.get(target.partition("?")[0], self.average) > SLOW

    def note(self, target: str, seconds: float) -> None:
        """Take a call's wall time into the averages."""
        sample = seconds if seconds < SAMPLE_LIMIT else SAMPLE_LIMIT
        self.average += (sample - self.average) * WEIGHT
        if self.paths or sample > SLOW:
            path = target.partition("?")[0]
            average = self.paths.get(path, 0.0)
            remember(self.paths, path, average + (sample - average) * WEIGHT, len(path))


class Lead:
    """The right to poll, and the threads that pass it on. Of a job it knows `apart`, `noted` and `request` only.

    Arguments: most, how many threads may block; serve, called by the leader for each turn; work, which runs a job from
    the queue without the lead; clock. None of these may raise.
    """

    def __init__(self, most: int, serve: Callback, work: Callable[[Connection], object], clock: Clock) -> None:
        self.most, self.serve, self.work, self.clock = most, serve, work, clock
        self.lock = Lock()
        self.leader: Lock | None = None  # a thread is known by the lock it parks on: an Event costs three times as much
        self.parked: list[Lock] = []
        self.workers = 0
        self.queue: deque[Connection] = deque()
        self.stopped = False
        self.current: Connection | None = None  # the job in place; and since when
        self.current_since = 0.0
        self.expectation = Expectation()
        self.alarm = Lock()  # the monitor sleeps on it
        self.alarm.acquire()
        self.resting = False  # whether the next call in place has to wake the monitor

    # -- passing it on --

    def run_in_place(self, job: Connection, call: Callable[[Connection, float], object]) -> bool:
        """Run `call(job, now)`; return False if the lead has been passed on meanwhile: the job is apart. Leader."""
        me = self.leader
        self.current_since = began = self.clock()
        self.current = job
        if self.resting:
            self.wake()
        call(job, began)
        with self.lock:
            if self.leader is not me:
                return False
            self.current = None
            return True

    def run_apart(self, job: Connection) -> bool:
        """Pass the lead on and return True: this thread now owns `job`; or queue it for the next free one. Leader."""
        with self.lock:
            if self._hand_over(job):
                return True
            job.apart = True
            self.queue.append(job)
            return False

    def step_aside(self, job: Connection) -> None:
        """Pass the lead on if `job` runs in place: it may have to wait for its peer. Owner."""
        with self.lock:
            if self.current is job:
                self._hand_over(job)

    def give_back(self, job: Connection) -> None:
        """Return `job` to the leader. Owner."""
        job.apart = False

    def has_successor(self) -> bool:
        """Tell whether a thread is parked, or can be started, to take the lead from a call in place. Leader."""
        if self.parked and not self.queue:
            return True
        with self.lock:
            spare = None if self.parked else self._new_thread()
            if spare is not None:
                self.parked.append(spare)
            return bool(self.parked) and not self.queue  # whoever passes the lead on then runs the queued jobs

    def _hand_over(self, job: Connection) -> bool:
        """Pass the lead to a parked or new thread; the old leader now owns `job`. Lock held."""
        successor = self.parked.pop() if self.parked else self._new_thread()
        if successor is None:
            return False
        job.apart = True
        self.current = None
        self.leader = successor
        successor.release()
        return True

    # -- threads --

    def start(self) -> None:
        """Start one thread to lead, and one to take the lead from it. Main thread."""
        with self.lock:
            self.leader, spare = self._new_thread(), self._new_thread()
            if self.leader is None or spare is None:
                raise RuntimeError("two threads are needed, and the system allows no more")
            self.parked.append(spare)
            self.leader.release()

    def stop(self) -> None:
        """End the threads that are not in a call. Any thread."""
        self.stopped = True
        with self.lock:
            for worker in self.parked:
                worker.release()
            self.parked.clear()

    def _new_thread(self) -> Lock | None:
        """Start a thread, unless there are `most` besides the leader. Lock held."""
        if self.stopped or self.workers > self.most:
            return None
        me = Lock()
        me.acquire()
        try:
            start_thread(self._work, me, f"call-{self.workers + 1}")
        except RuntimeError:  # the system allows no more
            return None
        self.workers += 1
        return me

    def _work(self, me: Lock) -> None:
        """Thread main loop: serve while this thread has the lead, then run queued jobs, then park."""
        while self._is_woken(me):
            while self.leader is me and not self.stopped:
                self.serve()
            while job := self._job_or_park(me):
                self.work(job)
        if gevent := sys.modules.get("gevent"):  # its hub keeps two descriptors for each thread that has waited
            gevent.get_hub().destroy()

    def _is_woken(self, me: Lock) -> bool:
        """Park until woken; return False if it is time to end: at the stop, or after PARKED_SECONDS without work."""
        while not me.acquire(timeout=PARKED_SECONDS):
            with self.lock:
                if me in self.parked and len(self.parked) > 1:
                    self.parked.remove(me)
                    self.workers -= 1
                    return False
        if not self.stopped:
            return True
        with self.lock:
            self.workers -= 1
        return False

    def _job_or_park(self, me: Lock) -> Connection | None:
        with self.lock:
            if self.queue:
                return self.queue.popleft()
            if self.stopped:
                me.release()
            else:
                self.parked.append(me)
            return None

    # -- the monitor --

    def monitor(self) -> None:
        """Sleep, then pass the lead on if the call in place is stuck. Main thread.

        To be called in a loop. The monitor rests when no call has run in place for a while; the next one wakes it.
        """
        self.resting = self.clock() - self.current_since > REST_AFTER
        if self.current is not None:  # a call that began before it could see that the monitor rests
            self.resting = False
        self.alarm.acquire(timeout=LONGEST_POLL if self.resting else STUCK)
        self.resting = False
        with self.lock:
            job = self.current
            if job is not None and self._is_stuck() and self._hand_over(job) and not job.noted:
                job.noted = True  # count it as slow now, so that queued calls run apart
                self.expectation.note(getattr(job.request, "target", ""), SAMPLE_LIMIT)  # it may have just ended

    def _is_stuck(self) -> bool:
        return self.clock() - self.current_since > STUCK

    def wake(self) -> None:
        """Wake the monitor. Any thread, and signal handlers."""
        self.resting = False
        try:
            self.alarm.release()
        except RuntimeError:  # it is awake
            pass


# ---- 15. Server: the selector, accept, deadlines and drain -----------------------------------------------------------
#
# - Only the leader touches the selector, `connections`, `ready` and `later`.
# - A connection stays in the selector while a thread owns it. Its first event takes it off (`_set_aside`); when its
#   owner gives it back, the leader registers it again (`_own`).
# - Other threads reach the leader by `inbox`, which wakes it: each descriptor in it is served like an event.
# - Once a second the leader ends connections whose deadline has passed.

STDERR = 2  # the last of the standard descriptors
ONE = (1).to_bytes(8, sys.byteorder)  # an eventfd takes a number of 8 bytes, a pipe anything


class Poll:
    """The part of epoll's interface that the server uses, for development where there is only poll (macOS). Leader.

    It watches for IN and OUT only: macOS reports FIN as POLLHUP, again and again.
    """

    def __init__(self) -> None:
        self.poller, self.closed = poll(), False
        self.unregister = self.poller.unregister

    def register(self, fd: Any, mask: int) -> None:
        self.poller.register(fd, mask & (IN | OUT))

    modify = register  # which replaces the mask

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """Return the events; a descriptor that the function has closed is forgotten, as by epoll."""
        events: list[tuple[int, int]] = self.poller.poll(seconds * 1000)
        for fd in [fd for fd, event in events if event & POLLNVAL]:
            self.poller.unregister(fd)
        return [event for event in events if not event[1] & POLLNVAL]

    def close(self) -> None:
        self.closed = True


def quiet_pipe() -> tuple[int, int]:
    """Make a pipe with non-blocking ends."""
    ends = os.pipe()
    for fd in ends:
        os.set_blocking(fd, False)
    return ends


def make_waker() -> tuple[int, int]:
    """Make a descriptor to read from and one to write ONE to: an eventfd, or a pipe where there is no eventfd."""
    if not hasattr(os, "eventfd"):
        return quiet_pipe()
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    return fd, fd


class Server:
    """A WSGI server: it listens, reads requests, runs `application` for each, and sends its responses.

    Arguments: listener, a bound and listening socket; application, any WSGI application; settings; clock, in seconds,
    for all its deadlines.
    """

    def __init__(
        self, listener: Socket, application: WSGIApplication, settings: Settings, clock: Clock = monotonic
    ) -> None:
        self.listener, self.application, self.settings, self.clock = listener, application, settings, clock
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what it accepts
        # Whether calls run before their bodies have arrived, and which of them need no thread
        self.streams = bool(getattr(application, "stream_request", False))
        self.at_once: Callable[[str], bool] = getattr(application, "answers_at_once", lambda target: False)
        self.base = base_environ(*listener.getsockname()[:2])
        self.memory = BodyMemory(settings.body_memory)
        self.lead = Lead(settings.threads, self._serve, self._own, clock)
        self.before_stream = self.lead.step_aside
        self.epoll = (epoll or Poll)()
        self.waker, self.bell = make_waker()  # writing to the bell ends the leader's poll
        self.inbox = Inbox(lambda: os_write(self.bell, ONE))
        self.connections: dict[int, Connection] = {}
        self.callbacks: dict[int, Callback] = {listener.fileno(): self._accept, self.waker: self._woken}
        for fd in self.callbacks:
            self.epoll.register(fd, IN)
        self.ready: deque[int] = deque()  # polled, and not served yet; moves with the lead
        self.later: dict[int, None] = {}  # more than one turn's work: one of them goes on after each poll
        self.next_tick = 0.0
        self.closing = False  # whether each response ends its connection
        self.draining = False
        self.fault = ""  # why the server stopped by itself
        self.start, self.monitor, self.wake = self.lead.start, self.lead.monitor, self.lead.wake

    # -- one turn of the leader --

    def _serve(self) -> None:
        """Serve one event, or poll for more. Leader."""
        connection = None
        try:
            if not self.ready:
                return self._poll()
            fd = self.ready.popleft()
            try:
                connection = self.connections[fd]
            except KeyError:
                self.callbacks.get(fd, bool)()
                return
            if connection.apart:
                self._set_aside(connection)
            elif connection.step():
                self._call(connection)
            else:
                self._settle(connection)
        except BaseException as error:
            log_fault(error)
            if connection is not None:
                self._close(connection)

    def _poll(self) -> None:
        """Wait for events, at most until the next tick. Leader."""
        wait = 0.0 if self.later else self.next_tick - self.clock()
        try:
            self.ready.extend([fd for fd, _ in self.epoll.poll(wait if wait > 0.0 else 0.0)])
            if self.draining or self.clock() >= self.next_tick:
                self._tick(self.clock())
        except (OSError, ValueError) as error:  # the function has closed the selector, the listener or the waker
            return self._cannot_go_on(str(error))
        if self.later:
            first = next(iter(self.later))
            self.ready = deque([fd for fd in self.ready if fd not in self.later])
            self.ready.append(first)  # after the events of other connections
            del self.later[first]

    def _tick(self, now: float) -> None:
        """Once a second: end connections whose deadline has passed, and a pause of accept. Leader."""
        self.next_tick = now + (STOP_LOOK if self.draining else TICK)
        self.epoll.modify(self.waker, IN)
        if self.listener.fileno() >= 0:
            self.epoll.modify(self.listener, IN)
            if self.draining and self._accept():
                self.epoll.unregister(self.listener)
                self.listener.close()
        served = {*self.ready, *self.inbox.items, *self.later}  # first: after a freeze all deadlines have passed
        for connection in [*self.connections.values()]:
            if connection.apart or connection.fd in served:
                continue
            if self.draining:
                connection.leave_idle(now)
            if connection.deadline <= now:
                if connection.expire(now):
                    self._run(connection, now)
                self._settle(connection)

    def _set_aside(self, connection: Connection) -> None:
        """Take a connection that a thread owns off the selector: each poll would report it again. Leader."""
        self._unwatch(connection)
        if not connection.apart:  # given back since: the owner may have seen neither this nor the event
            self.ready.append(connection.fd)

    def _settle(self, connection: Connection) -> None:
        """Let the selector watch for what `connection` waits for, or close it. Leader."""
        if connection.state == CLOSED:
            return self._close(connection)
        if connection.watched != connection.mask:
            try:
                change = self.epoll.modify if connection.watched else self.epoll.register
                change(connection.fd, connection.mask)
            except OSError as error:  # the function has closed its descriptor, or the kernel watches no more
                log("ERROR", f"a connection is lost: {error}")
                return self._close(connection)
            connection.watched = connection.mask
        if connection.more and connection.state == BODY:
            self.later[connection.fd] = None
        elif connection.more:  # a further request, which goes on after the next poll
            self.inbox.put(connection.fd)

    def _unwatch(self, connection: Connection) -> None:
        if connection.watched:
            connection.watched = 0
            try:
                self.epoll.unregister(connection.fd)
            except (OSError, ValueError, KeyError):  # the function has closed it: its number may be another's by now
                connection.sock.detach()

    def _close(self, connection: Connection) -> None:
        """Close `connection`; its descriptor is forgotten first, since the next accept may get the same. Leader."""
        self._unwatch(connection)  # closing would not, if a child process holds a copy of the socket
        if self.connections.get(connection.fd) is connection:
            del self.connections[connection.fd]
        connection.close()

    # -- calls --

    def _call(self, connection: Connection) -> None:
        """Run the call of `connection`: in place if it is likely to be short, otherwise apart, or later. Leader."""
        lead, request = self.lead, connection.request
        apart = connection.exchange is None and (
            connection.reader.pending is not None
            or (lead.expectation.paths and lead.expectation.blocks(request.target))
        )
        if (apart or not lead.has_successor()) and request.refusal is None and not self.at_once(request.target):
            connection.queue()
            if not lead.run_apart(connection):
                return
            self._run(connection, self.clock())
        elif lead.run_in_place(connection, self._run):
            if connection.state != IDLE or connection.watched != IN:
                self._settle(connection)
            return
        self._own(connection)

    def _own(self, connection: Connection) -> None:
        """Run the calls of `connection` until it waits for its peer, then give it to the leader. Owner."""
        while connection.has_call():
            self._run(connection, self.clock())
        self.lead.give_back(connection)
        if connection.watched != connection.mask or connection.more or connection.state == CLOSED:
            self.inbox.put(connection.fd)

    def _run(self, connection: Connection, began: float) -> None:
        """Run the call of `connection`, or go on with the one whose result is ready. Owner."""
        try:
            request: Any = connection.request
            ended = connection.run(self)
            if self.epoll.closed:  # by Life.in_child
                log("ERROR", "handle has returned in a process that it forked: end such a process with os._exit")
                os._exit(1)
            if not connection.noted:
                self.lead.expectation.note(request.target, ended - began)
        except BaseException as error:
            log_fault(error)
            connection.abort()

    # -- accept --

    def _accept(self) -> bool:
        """Accept waiting connections, a few at a time; return whether none is left. Leader."""
        listener: Any = self.listener
        for _ in range(ACCEPT_AT_ONCE):
            try:
                fd, peer = listener._accept()  # of _socket: the function may have replaced `socket.socket`
                sock = Socket(listener.family, listener.type, listener.proto, fd)
                sock.setblocking(False)
            except BlockingIOError:
                return True
            except ConnectionAbortedError:
                continue
            except OSError as error:  # no descriptors, no memory
                warn_once(f"accept failed: {error}")
                self.next_tick = self.clock() + ACCEPT_PAUSE
                self.epoll.modify(self.listener, 0)
                return False
            if fd <= STDERR or fd in self.connections:  # else this peer would get output, or the response to another
                sock.close()
                self._cannot_go_on(f"its number is {fd}")
                return False
            reader = RequestReader(self.settings.max_head, self.settings.max_body, self.memory, self.streams)
            self.connections[fd] = Connection(sock, str(peer[0]), reader, self.settings, self.clock, self.inbox.put)
            self._settle(self.connections[fd])
        return False

    # -- requests to the leader --

    def _woken(self) -> None:
        os_read(self.waker, RECEIVE)
        self.ready.extend(self.inbox.take_all())

    def _cannot_go_on(self, fault: str) -> None:
        """Stop, and let the main thread end the process: the next one will serve."""
        self.fault, self.lead.stopped = fault, True
        self.wake()

    def drain(self) -> None:
        """Accept what has come so far, then no more; end idle connections, finish what is in flight. Any thread."""
        self.closing = self.draining = True
        self.inbox.wake()

    def drained(self) -> bool:
        """Tell whether the drain is complete: all peers that are left have their responses. Any thread."""
        if not self.draining or self.listener.fileno() >= 0:
            return False
        return not WORK and all(connection.state == LINGERING for connection in [*self.connections.values()])

    def has_calls(self) -> bool:
        """Tell whether a call, a part of one, or work after one is in flight. Any thread."""
        states = {connection.state for connection in [*self.connections.values()]}
        return bool(WORK or states - {NEW, IDLE, LINGERING})

    def stop(self) -> None:
        """End the threads that are not in a call. Main thread."""
        self.lead.stop()
        self.inbox.wake()

    def close(self) -> None:
        """Close all descriptors: when the threads have ended, or in a process that the function has forked."""
        self.listener.close()
        self.epoll.close()
        for fd in {self.waker, self.bell}:
            os.close(fd)
        for connection in [*self.connections.values()]:
            connection.sock.close()


# ---- 16. Life cycle: listen, import, be ready, drain, exit -----------------------------------------------------------
#
# - The main thread listens, imports, serves (Server.monitor) and exits.
# - The signal thread (Life.attend) decides when to stop and with which status; the main thread reads `is_over`.

SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT))
PARENT = os.getppid()  # read early: of-watchdog may be gone before the function is imported
TOGETHER = 0.25  # seconds within which two signals count as one: Ctrl+C comes directly, and from of-watchdog
HURRY = 0.5  # seconds for `shutdown` and exit handlers when the process has to end at once
LATE = 5.0  # seconds of grace for of-watchdog, and for exit handlers that hang
LAST_WORDS = 0.2  # seconds before exit: a busy of-watchdog loses the last output of a child that ends at once
HOLDS = 10  # requests held open at of-watchdog: it may not have accepted the newest ones
PATIENCE = 0.9  # share of write_timeout after which `shutdown` runs despite a call: of-watchdog exits at its end
LOOPBACK = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}"
SIOCGIFFLAGS, IFREQ_SIZE, IFF_UP = 0x8913, 40, 1  # linux/sockios.h, net/if.h
SPARE_PORTS = 9  # ports that are tried after 5000, for development
IS_OPEN = ("01", "08")  # ESTABLISHED, CLOSE_WAIT
RESTART: list[str] = []  # the command that runs instead of an exit, with --reload
CANNOT_GO_ON = "the server cannot go on: the function has closed a descriptor that is not its own"


def remove_lock(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # of-watchdog was first, or there is none
        pass


def is_supervised(env: Mapping[str, str]) -> bool:
    """Tell whether of-watchdog is the parent: it gives its child a pipe as stdin."""
    started = env.get("fprocess") or env.get("function_process")
    return bool(started) and (os.fstat(0).st_mode & 0o170000) == 0o010000  # without stdin, 0 is the listener


def is_cut_off() -> bool:
    """Tell whether the loopback device is down: faasd takes the network away before it sends SIGTERM.

    of-watchdog would wait until it is killed for responses that cannot reach it; if its child fails, it exits at once.
    Only the device's flag tells: it keeps its addresses, so that `bind` works and `connect` waits.
    """
    from fcntl import ioctl

    try:
        with Socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            interface = ioctl(sock, SIOCGIFFLAGS, b"lo".ljust(IFREQ_SIZE, b"\0"))  # netdevice(7)
    except OSError:
        return False
    return not int.from_bytes(interface[16:18], sys.byteorder) & IFF_UP


def listen(host: str, port: int, spare: int = 0) -> Socket:
    """Bind and listen; if the port is taken, try the next `spare` ports. Raise SettingsError if none is available."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if spare and error.errno == EADDRINUSE:
            log("INFO", f"Port {port} is taken (on macOS by AirPlay), and no setting names one: trying {port + 1}")
            return listen(host, port + 1, spare - 1)
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def let_signals_in() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def leave_to_thread(number: int, frame: object) -> None:
    """Ignore a signal here: `Life.attend` handles it."""


class Hold:
    """Requests that keep of-watchdog alive until the function has shut down: if process 1 of a container ends, all do.

    of-watchdog handles POST /_/health itself, whatever max_inflight and jwt_auth say, but reads the body first, whose
    one byte never comes. After it has stopped accepting, it still waits for its callers.

    Argument: port, of-watchdog's.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.socks: deque[Socket] = deque(maxlen=HOLDS)
        self.refused_at = FOREVER

    def calls_are_over(self, server: Server, now: float) -> bool:
        """Renew the requests; tell whether of-watchdog has stopped accepting, and its last call is over or given up."""
        if self.refused_at == FOREVER:
            self.renew(now)
            return False
        unseen = 2 * STOP_LOOK  # seconds: the refusal, and this limit, may be noticed late
        is_late = now + unseen > self.refused_at + server.settings.write_timeout * PATIENCE
        return is_late or not (self.has_callers() or server.has_calls())

    def renew(self, now: float) -> None:
        """Send one more request, since each ends after read_timeout; note when of-watchdog refuses the connection."""
        try:
            with Socket() as sock:
                sock.settimeout(STOP_LOOK)
                sock.connect(("127.0.0.1", self.port))
                sock.sendall(b"POST /_/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
                self.socks.append(Socket(fileno=sock.detach()))
        except ConnectionRefusedError:
            self.refused_at = now if self.socks else FOREVER  # a port that never accepted is not of-watchdog's
        except OSError:  # a full backlog, or no descriptors
            pass

    def has_callers(self) -> bool:
        """Tell whether others are connected to of-watchdog: http_buffer_req_body may be holding their calls back."""
        own = {f"{LOOPBACK}:{sock.getsockname()[1]:04X}" for sock in self.socks}
        lines = [line for table in ("tcp", "tcp6") for line in (read_text(f"/proc/net/{table}") or "").splitlines()]
        rows = [line.split(None, 4)[1:4] for line in lines]  # addresses and ports in hexadecimal (proc_net_tcp.rst)
        callers = [peer for local, peer, state in rows if local.endswith(f":{self.port:04X}") and state in IS_OPEN]
        return any(peer[-13:] not in own for peer in callers)


class Life:
    """When the process ends, and with which status.

        SIGTERM behind of-watchdog       go on serving: it still sends calls
          it is gone, or waits for Hold  end with 0
          the network is gone (faasd)    end with 1 within HURRY seconds
          leave_by has come              exit
        SIGTERM alone                    accept for a MOMENT more, then drain for write_timeout at most
        SIGINT                           drain for write_timeout at most
        second signal                    end with 0 within HURRY seconds
        of-watchdog gone, no signal      end with 0
        own descriptor closed            exit with 1: the function has closed it

    At `is_over` the main thread calls `shutdown` and exits; at `leave_by` the signal thread exits regardless.
    """

    def __init__(self, settings: Settings, hold: Hold | None, lock: str) -> None:
        self.settings, self.hold, self.lock = settings, hold, lock
        self.server: Server | None = None
        self.signalled_at = self.drain_at = self.leave_by = FOREVER
        self.is_over, self.status = False, 0
        self.says_how = False  # whether to say how to stop at once, if calls go on for a while after Ctrl+C

    def take_signals(self) -> None:
        """Let the signal thread handle SIGTERM and SIGINT, also those that are pending.

        Python runs handlers in the main thread, once it wakes. But the kernel may deliver a signal to any thread, and
        does so when it thaws a frozen container (`runc kill --all`): then nothing wakes the main thread. The wakeup
        descriptor gets its byte from whichever thread receives the signal.
        """
        self.signals, self.wakeup = quiet_pipe()
        signal.set_wakeup_fd(self.wakeup, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, leave_to_thread)
        start_new_thread(self.attend, ())
        let_signals_in()
        os.register_at_fork(before=hold_signals, after_in_parent=let_signals_in, after_in_child=self.in_child)

    def check_signals(self) -> None:
        """Warn if the function handles a signal itself; restore the wakeup descriptor: its event loop may set one."""
        for number in SIGNALS:
            if signal.getsignal(number) != leave_to_thread:
                lost = "calls in flight are lost, and `shutdown` is not called, if its handler ends the process"
                instead = "use shutdown(context), which is called after the last call"
                log("WARNING", f"the function handles {number.name} itself: {lost}; {instead}")
        signal.set_wakeup_fd(self.wakeup, warn_on_full_buffer=False)

    def in_child(self) -> None:
        """In a process that the function has forked: leave signals and the server's descriptors to the parent."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        let_signals_in()  # a pending one ends the child
        if LOOP.loop:  # it would take events from the parent
            LOOP.loop = LOOP.loop.stop()
        server, self.server = self.server, None  # once: this process may fork too, and have reused the numbers
        if server:
            server.close()

    def become_ready(self) -> None:
        """Write the lock file, unless of-watchdog writes it or a signal has come. A failure fails only its probes."""
        if not self.lock or self.signalled_at != FOREVER:
            return
        try:
            os.close(os.open(self.lock, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o660))
        except OSError as error:
            until = "/_/health and /_/ready say 503 until a writable /tmp is mounted or TMPDIR is set"
            log("WARNING", f"cannot write the lock file {self.lock}: {error.strerror}; of-watchdog's {until}")

    def run(self, server: Server) -> int:
        """Serve until it is over; return the exit status. Main thread."""
        self.server = server
        server.start()
        while not (self.is_over or server.fault):
            server.monitor()
        if server.fault:
            log("ERROR", f"{CANNOT_GO_ON} ({server.fault})")
        return 1 if server.fault else self.status

    def attend(self) -> None:
        """Signal thread: take signals and watch of-watchdog; exit at `leave_by`."""
        try:
            while (left := self.leave_by - monotonic()) > 0:
                pace = STOP_LOOK if self.signalled_at != FOREVER else TICK if self.hold else FOREVER
                if came := poll_for(self.signals, POLLIN, min(left, pace)):
                    for number in SIGNALS.intersection(os_read(self.signals, 64)):
                        self.on_signal(number, monotonic())
                self.look(monotonic())
                if self.server and (came or self.is_over):  # the main thread runs the function's own handlers, too
                    self.server.wake()
        except OSError as error:
            log("ERROR", f"{CANNOT_GO_ON} ({error})")
            leave_after(LAST_WORDS, 1)
        leave_after(0.0, self.status)

    def on_signal(self, number: int, now: float) -> None:
        """Decide how to stop. If SIGINT and SIGTERM come together, SIGTERM counts: it spares the callers."""
        settings = self.settings
        if now > self.signalled_at + TOGETHER:
            self.hurry(0)
        elif self.signalled_at != FOREVER and number == signal.SIGINT:
            return
        elif self.hold and number == signal.SIGTERM:
            self.drain_at, self.leave_by = FOREVER, now + settings.healthcheck_interval + settings.write_timeout + LATE
        else:
            self.drain_at = now + (MOMENT if number == signal.SIGTERM else 0.0)
            self.leave_by = self.drain_at + settings.write_timeout
            remove_lock(self.lock)
            self.says_how = number == signal.SIGINT and not RESTART
        self.signalled_at = min(now, self.signalled_at)

    def look(self, now: float) -> None:
        """Drain once that is due; check whether serving is over."""
        server = self.server
        if self.hold and self.signalled_at != FOREVER and is_cut_off():
            self.hurry(1)
        if server and self.drain_at != FOREVER:
            server.closing = True
            if now >= self.drain_at:
                server.drain()
        if server and (server.drained() or self.watchdog_is_gone(server, now)):
            self.is_over = True
        elif server and self.says_how and now > self.signalled_at + TOGETHER and server.has_calls():
            self.says_how = False
            most = f"at most {self.settings.write_timeout:g} s"
            log("INFO", f"Stopping once the calls in flight are over, {most}. Press Ctrl+C again to stop now.")

    def watchdog_is_gone(self, server: Server, now: float) -> bool:
        """Tell whether of-watchdog has ended, or only waits for the function to shut down."""
        if self.hold is None:
            return False
        # If it ended before PARENT was read, only its pipe tells
        if os.getppid() != PARENT or poll_for(0, 0) & POLLHUP:
            return True
        return self.signalled_at != FOREVER and self.hold.calls_are_over(server, now)

    def hurry(self, status: int) -> None:
        """End without waiting for calls; `shutdown` and exit handlers get HURRY seconds."""
        self.is_over, self.status = True, max(status, self.status)
        self.leave_by = min(self.leave_by, monotonic() + HURRY)


def leave(status: int) -> NoReturn:
    """Run the exit handlers, flush the output, and exit without waiting for threads that never return."""
    import atexit

    begin_leaving(LATE, status)  # an exit handler may hang
    if pools := sys.modules.get("concurrent.futures.process"):
        pools._python_exit()  # as Python does at exit: it ends idle processes, which exit handlers would wait for
    atexit._run_exitfuncs()
    flush_output()
    leave_after(LAST_WORDS, status)


def begin_leaving(seconds: float, status: int) -> None:
    """Exit after `seconds`, in a thread of its own."""
    try:
        start_new_thread(leave_after, (seconds, status))
    except RuntimeError:  # no more threads: wait for whatever hangs
        pass


def leave_after(seconds: float, status: int) -> NoReturn:
    """Exit after `seconds`, whatever other threads do."""
    sleep(min(seconds, threading.TIMEOUT_MAX))
    flush_output()
    if RESTART:
        os.execv(RESTART[0], RESTART)  # noqa: S606
    # Not sys.exit: if a daemon thread holds the lock of stdout, finalization aborts with exit status 134
    os._exit(status)


def flush_output() -> None:
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError, AttributeError, RuntimeError):  # broken, closed, missing, or in use by a signal
            pass


def serve(target: str, settings: Settings, env: Mapping[str, str], wrap: Callable[[Any], WSGIApplication]) -> int:
    """Listen, import the function and serve what `wrap` makes of it until told to stop; return the exit status."""
    supervised = is_supervised(env)
    spare = 0 if settings.names_port or supervised else SPARE_PORTS
    listener = listen(settings.host, settings.port, spare)  # before the import: early calls wait in the backlog
    os.register_at_fork(after_in_child=listener.close)
    port = env.get("port", "")
    hold = Hold(int(port) if port.isdecimal() else 8080) if supervised else None
    lock = os.path.join(env.get("TMPDIR") or "/tmp", ".lock")  # noqa: S108  # as Go's os.TempDir
    life = Life(settings, hold, lock if settings.suppress_lock else "")
    life.take_signals()
    if hold:
        check_durations(settings)
    try:
        application = load_application(target, settings, env, life)
        if not hold:
            announce(listener)
        status = life.run(Server(listener, wrap(application), settings))
        begin_leaving(settings.write_timeout, status)  # `shutdown` may take as long as a call
        application.shutdown()
        return status
    finally:
        listener.close()
        remove_lock(life.lock)


def check_durations(settings: Settings) -> None:
    """Warn of durations that of-watchdog cannot keep."""
    if not settings.healthcheck_interval:
        never = "lets of-watchdog accept calls for ever after SIGTERM, until it is killed: it takes 1ms or more"
        log("WARNING", f"healthcheck_interval=0s {never}")
    if (settings.exec_timeout or 0.0) >= settings.write_timeout:
        late = "a call that takes longer gets no 504: of-watchdog closes its connection, and a GET may be sent again"
        log("WARNING", f"write_timeout is not above exec_timeout: {late}")


def load_application(target: str, settings: Settings, env: Mapping[str, str], life: Life) -> Application:
    """Import the function, run its `startup`, and write the lock file when `ready_on` says so."""
    if settings.ready_on == "listen":
        life.become_ready()
    failure = "the function's module cannot be imported"
    try:
        application = Application(load_function(target), settings, env)
        failure = "startup failed"
        application.startup()
        failure = "wrap failed"
        application = application.wrapped()
    except (SettingsError, LoadError):
        raise
    except BaseException as error:
        raise LoadError(failure, format_traceback(error, of_function=True)) from error
    life.check_signals()
    if settings.ready_on == "startup":
        life.become_ready()
    return application


def announce(listener: Socket) -> None:
    """Log where to call a function that was started by hand."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log("INFO", f"Listening on {url}\ncurl -d World {url}/")


def prepare_process() -> None:
    """Process-wide setup: the threads' switch interval and excepthook, unbuffered output, one copy of this module."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    threading.excepthook = log_thread_failure
    track_threads()
    for name in ("stdout", "stderr"):
        if stream := getattr(sys, name):
            file = Output(stream.fileno(), stream.name)
            output = TextOutput(file, stream.encoding, "backslashreplace", line_buffering=True)
            setattr(sys, name, output)
            setattr(sys, f"__{name}__", output)
    # `from watchdog_app import HTTPError` in the function gets this module, also when it runs as __main__
    sys.modules["watchdog_app"] = sys.modules[__name__]


# ---- 17. For development: a test kit, a request log, restart on change; none of it runs in the container -------------


class Answer:
    """The response of a function to `invoke`.

    status: int. headers: Headers. body: bytes, all of it. text: str, the body decoded. Iteration yields the items of a
    stream as they are produced, once; close() ends it early.
    """

    def __init__(self, status: int, headers: HeaderPairs, items: Iterable[bytes], close: Callback) -> None:
        self.status, self._items, self.close = status, items, close
        values: dict[str, list[str]] = {}
        for name, value in headers:
            values.setdefault(header_key(name), []).append(value)
        joined: dict[str, Any] = {key: ", ".join(several) for key, several in values.items()}
        self.headers = Headers({**joined, "of_python.repeated": values})

    body: lazy[bytes] = lazy(b"".join)  # of its items

    @property
    def text(self) -> str:
        return decoded(self.body, charset_of(self.headers.get("Content-Type", "")))

    def json(self) -> Any:
        """Return the decoded JSON body; raise ValueError if it is not JSON."""
        return json_codec()[1](self.body.decode("utf-8"))

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._items
        finally:
            self.close()

    def __repr__(self) -> str:
        return f"<Answer {self.status} {dict(self.headers)!r}>"


def invoke(
    handle: Function | Handle,
    method: str = "GET",
    target: str = "/",
    *,
    body: bytes | str | None = None,
    json: Any = REQUIRED,
    form: Mapping[str, str] | None = None,
    files: Mapping[str, FileArgument | list[FileArgument]] | None = None,
    headers: HeadersArgument = (),
    raise_errors: bool = False,
) -> Answer:
    """Call a function for a test, as the server would: from parsing the head to the headers of the response.

    Arguments: handle, the function's `handle`, or a Function; method; target, the path with its query, beginning with
    `/`; one of body, bytes or text, json, any value that JSON can represent, and form, a dict; files, which makes the
    form multipart/form-data, a dict of bytes, (filename, bytes), (filename, bytes, content_type) or a list of these;
    headers, a dict or pairs; raise_errors, whether the function's exceptions are raised here instead of becoming a 500.
    `startup` is not called; the work of `context.after` is done before this returns, or at the end of a stream. The
    settings are those of `os.environ`. Returns an Answer. Raises TypeError or ValueError for an argument that is not
    valid, and names what is wrong.
    """
    from itertools import chain, islice

    content, kind = invoked_body(body, json, form, files)
    request = invoked_request(method, target, content, kind, headers)
    environ = build_environ(request, base_environ("127.0.0.1", 8080), "127.0.0.1")
    environ["of_python.after"] = []  # so that `finish` runs the work
    started: list[tuple[str, HeaderPairs]] = []
    early: list[bytes] = []  # items sent by `write`, then the first that a generator yields

    def start_response(status: str, pairs: HeaderPairs, exc_info: Any = None) -> Callable[[bytes], object]:
        started.append((status, pairs))
        return early.append

    application = Application(handle)
    application.raise_errors = raise_errors
    items = application.wrapped()(environ, start_response)
    while isinstance(items, Later):
        items = items.take()
    close, iterator = getattr(items, "close", bool), iter(items)
    if not started:  # a generator calls start_response when it is asked for its first item
        early += islice(iterator, 1)
    status, pairs = started[-1]

    def finish() -> None:
        close()
        WORK.append(work := environ.pop("of_python.after", []))
        copy_context().run(run_work, work)

    if method == "HEAD" or type(items) is list:
        finish()
    return Answer(int(status[:3]), pairs, () if method == "HEAD" else chain(early, iterator), finish)


def invoked_body(body: Any, json: Any, form: Any, files: Any) -> tuple[bytes, str]:
    """Return the body that `invoke` sends, and its Content-Type, "" for none."""
    if (body is not None) + (json is not REQUIRED) + (form is not None or files is not None) > 1:
        raise TypeError("body, json and form exclude each other: give one of them")
    if json is not REQUIRED:
        return encode_json(json), JSON
    if form is not None or files is not None:
        from urllib.parse import parse_qsl, urlencode

        encoded = urlencode(form or {}, doseq=True)
        if files is not None:
            return invoked_parts(parse_qsl(encoded, keep_blank_values=True), files)
        return encoded.encode("ascii"), URLENCODED
    if not isinstance(body, (bytes, str, type(None))):
        raise TypeError(f"body is {clipped(body)}: it takes bytes or text; json={{...}} sends JSON")
    return (encode_text(body) if isinstance(body, str) else body or b""), ""


def invoked_parts(fields: list[tuple[str, str]], files: Any) -> tuple[bytes, str]:
    """Return the multipart/form-data body that `invoke` sends, and its Content-Type."""
    boundary = os.urandom(16).hex()
    start = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = [f"{start}{quoted(name)}\r\n\r\n{value}\r\n".encode() for name, value in fields]
    try:
        pairs = [(name, file) for name, one in files.items() for file in (one if type(one) is list else [one])]
        for name, file in pairs:
            filename, content, kind = (name, file, BINARY) if isinstance(file, bytes) else (*file, BINARY)[:3]
            head = f"{start}{quoted(name)}; filename={quoted(filename)}\r\nContent-Type: {kind}\r\n\r\n"
            parts.append(head.encode() + content + b"\r\n")
    except (AttributeError, TypeError, ValueError):
        raise TypeError(f"files is {clipped(files)}: it takes a dict of bytes or (filename, bytes, type)") from None
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"{MULTIPART}; boundary={boundary}"


def quoted(name: str) -> str:
    """Quote a name in Content-Disposition."""
    return '"' + name.translate({ord('"'): "%22", ord("\r"): "%0D", ord("\n"): "%0A", ord("\\"): "\\\\"}) + '"'


def invoked_request(method: str, target: str, content: bytes, kind: str, headers: HeadersArgument) -> Request:
    """Make the request that `invoke` sends, as if it had come over a connection."""
    own = {"host": "127.0.0.1:8080", "content-length": str(len(content) or ""), "content-type": kind}
    given = header_items(headers)
    names = {name.lower() for name, _ in given}
    pairs = given + [(name, value) for name, value in own.items() if value and name not in names]
    head = b"".join(field_line(name, value)[0] for name, value in pairs)[:-2]
    try:
        request = parse_head(f"{method} {target} HTTP/1.1\r\n".encode("utf-8", "surrogatepass") + head)
    except HTTPError:
        what = f"method {clipped(method)}, target {clipped(target)} or headers"
        raise ValueError(f"{what} would be refused by a server: encode the target, as in /a%20b") from None
    request.body = content
    return request


class RequestLog:
    """WSGI middleware that logs each request with its status and time."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.stream_request, self.answers_at_once = application.stream_request, application.answers_at_once

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        began = perf_counter()

        def start(status: str, headers: HeaderPairs, exc_info: Any = None) -> Callable[[bytes], object]:
            took = (perf_counter() - began) * 1000
            method, target = clipped(environ["REQUEST_METHOD"]), clipped(environ.get("REQUEST_URI", ""), 1000)
            log("INFO", f"{method[1:-1]} {target[1:-1]} {status[:3]} {took:.1f} ms")
            return start_response(status, headers, exc_info)

        return self.application(environ, start)


COLOURS = {"2": 32, "3": 33, "4": 31, "5": 91}  # of a status by its first digit, as in uvicorn


def coloured_record(*arguments: Any) -> str:
    """Make a record as text, with the status of a request in colour."""
    request = r"(INFO \S+ \S+ )(([2-5])\d\d)( [0-9.]+ ms\n)"
    found = re.fullmatch(request, text := text_record(*arguments))
    return f"{found[1]}\x1b[{COLOURS[found[3]]}m{found[2]}\x1b[0m{found[4]}" if found else text


LOOK = 0.2  # seconds between checks of the files
CACHES = ("__pycache__", "node_modules")


def watch(target: str, arguments: Sequence[str]) -> None:
    """Begin to watch the files of the function, and to restart with the same arguments when one changes."""
    RELOADED[:] = arguments
    sys.dont_write_bytecode = True  # it is matched by time in seconds and size, which two edits may share
    folder = watched_folder(target)
    log("INFO", f"Watching {folder}. Press Ctrl+C to stop.")
    start_new_thread(reload, (folder, watched_files(folder)))


def reload(folder: str, seen: dict[str, int]) -> None:
    """Restart the program in the same process once a file of the function has changed."""
    while (now := watched_files(folder)) == seen:
        sleep(LOOK)
    changed = sorted(os.path.relpath(path, folder) for path, _ in now.items() ^ seen.items())
    log("INFO", f"{', '.join(dict.fromkeys(changed))} changed: starting again")
    RESTART[:] = [sys.executable, os.path.abspath(__file__), *RELOADED]
    if signal.getsignal(signal.SIGINT) is leave_to_thread:  # the server runs
        os.kill(os.getpid(), signal.SIGINT)
    leave_after(LATE, 0)


def watched_folder(target: str) -> str:
    """Return the folder that holds the function of TARGET."""
    path = os.path.abspath(target or default_target())
    return path if os.path.isdir(path) else os.path.dirname(path) if os.path.isfile(path) else os.getcwd()


def watched_files(folder: str) -> dict[str, int]:
    """Return the files below `folder`, without hidden ones, virtual environments and caches: path -> time of change."""
    found = {}
    for parent, folders, files in os.walk(folder):
        is_environment = "pyvenv.cfg" in files
        folders[:] = [name for name in folders if not (is_environment or name.startswith(".") or name in CACHES)]
        for path in (os.path.join(parent, name) for name in files if not name.startswith(".")):
            try:
                found[path] = os.stat(path).st_mtime_ns
            except OSError:  # gone since the walk
                pass
    return found


# ---- 18. Command line ------------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str]) -> tuple[str, dict[str, str], bool]:
    """Convert the command line to TARGET, the variables that its flags set, and whether to restart on change."""
    if not any(argument.startswith("-") for argument in arguments) and len(arguments) < 2:
        return "".join(arguments), {}, False
    from argparse import ArgumentParser  # 10 ms, and a container passes no flags

    reloading = "restart when a file of the function changes, log each request, show tracebacks"
    parser = ArgumentParser(prog="watchdog_app", description="Run an OpenFaaS function, behind of-watchdog or alone.")
    parser.add_argument("target", nargs="?", default="", metavar="TARGET", help=TARGETS)
    parser.add_argument("--bind", metavar="HOST:PORT", help="where to listen, instead of upstream_url")
    parser.add_argument("--reload", action="store_true", help=reloading)
    parser.add_argument("--version", action="version", version=f"watchdog_app {__version__}")
    parser.add_argument("--env-file", metavar="FILE", help="NAME=value lines, which override the environment")
    options = parser.parse_args(arguments)
    try:
        flags = read_env_file(options.env_file) if options.env_file else {}
        if options.bind is not None and address(options.bind):
            flags["http_upstream_url"] = options.bind
    except SettingsError as error:
        parser.error(str(error))
    except ValueError:
        parser.error(f"--bind={clipped(options.bind)} is not valid: it takes an address such as 127.0.0.1:5000")
    return options.target, flags, options.reload


def read_env_file(path: str) -> dict[str, str]:
    """Read NAME=value lines, with quotes, comments and `export`; raise SettingsError for any other line, or none."""
    pattern = r"""(?:#.*|(?:export\s+)?(\w+)\s*=\s*(?:(['"])(.*)\2|([^'"].*?)?)\s*(?:\s#.*)?)?"""
    lines = [re.fullmatch(pattern, line.strip()) for line in (read_text(path) or "").splitlines()]
    if None in lines or not lines:
        where = f", line {lines.index(None) + 1}," if lines else ""  # which may hold a secret
        raise SettingsError(f"--env-file={clipped(path)}{where} is not valid: it takes a file of NAME=value lines")
    return {match[1]: match[3] or match[4] or "" for match in lines if match and match[1]}


def main(arguments: Sequence[str]) -> int:
    """Run as a program; return the exit status: 0 after a stop, 1 after a failure, 2 for wrong settings."""
    prepare_process()
    target, flags, reloads = parse_arguments(arguments)
    os.environ.update(flags)
    wrap = RequestLog if reloads else lambda application: application
    try:
        settings = Settings.from_env({"debug": "true", **os.environ} if reloads else os.environ)
        log.level = settings.log_level
        log.make_record = json_record if settings.log_format == "json" else text_record
        if reloads:
            if log.make_record is text_record and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
                log.make_record = coloured_record
            watch(target, arguments)
        ImportHook("logging", set_up_logging).install()
        ImportHook("concurrent.futures.thread", set_up_pools).install()
        return serve(target, settings, os.environ, wrap)
    except SettingsError as error:
        log("ERROR", str(error))
        return 2
    except LoadError as error:
        log("ERROR", *error.args)
    except BaseException as error:
        log_fault(error)
    if reloads:
        log("INFO", "waiting for a change")
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        while not RESTART:
            sleep(LOOK)
    return 1


def run() -> NoReturn:
    """Run the program to its end: `python3 watchdog_app.py`, and the command `watchdog-app`."""
    if not poll:
        sys.exit("watchdog_app serves on Windows only in WSL or Docker; tests with `invoke` run without them")
    hold_signals()  # the command imports the module, which blocks them only as __main__
    leave(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
elif FUNCTION_FOLDER in os.environ:  # a process of multiprocessing, which imports the main module as __mp_main__
    sys.modules["watchdog_app"] = sys.modules[__name__]
    FunctionFinder(os.environ[FUNCTION_FOLDER]).install()
