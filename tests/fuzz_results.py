"""Let a function return whatever there is; hold what leaves the server against one rule: one valid response, or a visibly cut one.

    python tests/fuzz_results.py --seconds 60 --seed 1

Each case is a result, a request for it and one more request behind it. A case is made of the seed and its number alone. The contract says what
a result becomes, so that a case also knows its status and its body: a right result is no 500, a wrong one is.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import enum
import io
import json
import pathlib
import random
import re
import sqlite3
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple

from conftest import Answer, Serving, read_answer, serving, wait_for
from fuzz_requests import Finding, arguments, fuzz, random_of

from watchdog_app import HTTPError

# -- expectations --

WRONG = 500  # the status of what cannot be sent
PHRASES = {int(status): f"{status.phrase}\n".encode() for status in HTTPStatus}


class Case(NamedTuple):
    """What a function does, and what is to become of it."""

    act: Callable[[Any, Any], Any]  # the function itself
    what: str  # for the one who reads a finding
    status: int | None  # expected; None where only validity counts
    body: bytes | None = None  # expected; None for any
    json: Any = None  # expected instead of `body`, where a value is JSON
    cut: bool = False  # it fails after it has begun
    logs: bool | None = False  # whether the log gets a record of it; None for either
    headers: Sequence[tuple[str, str]] = ()  # that are to be sent, among others


class Part(NamedTuple):
    """A body: how to make it, and what it is on the wire."""

    make: Callable[[], Any]
    sent: bytes | None  # None where it cannot be sent
    json: Any = None
    cut: bool = False  # whether an item of a stream fails or cannot be sent
    close_fails: bool = False


class Odd(Exception):
    """An exception whose text is odd."""

    def __init__(self, text: Any) -> None:
        super().__init__("odd")
        self.text = text

    def __str__(self) -> Any:
        if isinstance(self.text, BaseException):
            raise self.text
        return self.text

    __repr__ = __str__


class Color(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: Any


class Unprintable:
    """A value that can be neither sent nor shown."""

    def __repr__(self) -> str:
        raise ValueError("no repr")


class Subtle(str):
    """Text by another name."""


ERRORS: list[Callable[[], BaseException]] = [
    lambda: ValueError("a\r\nb\x00\ud800"), lambda: Odd("plain"), lambda: Odd(5), lambda: Odd(None), lambda: Odd(ValueError("in __str__")),
    lambda: Odd(SystemExit(3)), lambda: SystemExit(0), lambda: KeyboardInterrupt(), lambda: GeneratorExit(), lambda: StopIteration(1),
    lambda: MemoryError(), lambda: RecursionError(), lambda: ConnectionResetError(), lambda: BrokenPipeError(), lambda: TimeoutError(),
    lambda: BlockingIOError(), lambda: UnicodeEncodeError("ascii", "é", 0, 1, "x"), lambda: BaseException(),
    lambda: ExceptionGroup("g", [ValueError()]), lambda: SyntaxError("a", ("b", -1, 10**9, "c\nd")), lambda: AssertionError(),
    lambda: KeyError("x"), lambda: OSError(24, "too many"),
]  # fmt: skip
STATUSES: list[tuple[Any, int | None]] = [
    *((code, code) for code in (200, 201, 204, 304, 299, 400, 404, 451, 500, 503, 599)), ("202", 202), (HTTPStatus.ACCEPTED, 202), ("599", 599),
    ("404 Not Found", 404), ("299 A phrase", 299),
    *((status, None) for status in (
        100, 101, 199, 600, 0, -1, 10**30, 200.0, True, None, "", "20", "2000", " 200", "200OK", "²00", "200\r\n", b"200", [200], object,
        Unprintable(),
    )),
]  # fmt: skip
HEADERS: list[tuple[Any, list[tuple[str, str]] | None]] = [
    *((nothing, []) for nothing in (None, (), [], {}, "")),
    ({"X-A": "b"}, [("X-A", "b")]),
    ([("X-A", "b"), ("x-a", "c")], [("X-A", "b"), ("x-a", "c")]),
    ({"Set-Cookie": ["a=b", "c=d"]}, [("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]),
    ({"X-A": 5, "X-B": ""}, [("X-A", "5"), ("X-B", "")]),
    ({"X-A": "\xe9\x85\t"}, [("X-A", "\xe9\x85\t")]),
    ({"X-A": ()}, []),
    ({"X-A": 1.5, "X-B": [True, uuid.UUID(int=5)]}, [("X-A", "1.5"), ("X-B", "True"), ("X-B", str(uuid.UUID(int=5)))]),
    ({"X-A": datetime.date(2020, 2, 29)}, [("X-A", "2020-02-29")]),
    ({"content-TYPE": "a/b"}, [("content-TYPE", "a/b")]),
    ({"Content-Length": "1"}, []),
    ({"content-length": 10**18, "Transfer-Encoding": "chunked"}, []),
    ({"Transfer-Encoding": "chunked", "Trailer": "x", "Upgrade": "h2c", "Keep-Alive": "timeout=1", "TE": "x"}, []),
    ({"Date": "yesterday", "Server": "x", "Connection": "keep-alive"}, []),
    *((headers, None) for headers in (
        {"X-A": "b\r\nX-C: d"}, {"X-A": "b\n"}, {"X-A": "\x00"}, {"X-A": "\x7f"}, {"X-A": "b\rc"}, {"X-A": "€"}, {"X-A": None}, {"X-A": b"b"}, {"X-A": {"b": "c"}}, {"X-A": [["b"]]}, {"X-A": ["b", "c\n"]}, {"X-A": pathlib.Path("b\n")}, {"X-A": Unprintable()},
        {"": "b"}, {"X A": "b"}, {"X-A:": "b"}, {"X-A\n": "b"}, {"é": "b"}, {"X-A\r\n": "b"}, {5: "b"}, {None: "b"}, {b"X-A": "b"},
        {("X", "A"): "b"}, "X-A: b", 5, [1, 2], [("X-A",)], [("X-A", "b", "c")], {"Content-Length": "1\r\nX: y"}, {"Connection": "close\r\n"},
        object(),
    )),
]  # fmt: skip


def a_row() -> sqlite3.Row:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        row: sqlite3.Row = database.execute("SELECT 1 AS a").fetchone()
        return row


def nested(rng: random.Random, depth: int) -> tuple[Any, Any]:
    """Make a value that JSON can say, and the plain one that it becomes."""
    kind = rng.randrange(12 if depth else 8)
    if kind < 4:
        value = rng.choice((None, True, False, 0, -7, 10**30, 1.5, 1e300, "", "é€😀", 'a"\\\n\x00', "\\\ud800", " "))
        return value, value
    if kind < 8:
        moment = datetime.datetime(2020, 2, 29, 1, 2, 3)
        return rng.choice((
            (moment, moment.isoformat()), (moment.date(), "2020-02-29"), (moment.time(), "01:02:03"), (decimal.Decimal("1.10"), "1.10"),
            (uuid.UUID(int=5), str(uuid.UUID(int=5))), ({7}, [7]), (frozenset(), []), (Color.RED, "red"), (Point(1, Color.RED), {"x": 1, "y": "red"}),
            (pathlib.Path("/a/b"), "/a/b"), ((1, "a"), [1, "a"]), (Subtle("s"), "s"), (range(2), [0, 1]), ({"a": 1}.values(), [1]),
            (collections.deque([Color.RED]), ["red"]), (MappingProxyType({"a": {7}}), {"a": [7]}), (collections.UserList(), []),
            (collections.ChainMap({"a": 1}, {"b": 2}), {"b": 2, "a": 1}), (datetime.timedelta(seconds=90), "PT90S"), (a_row(), {"a": 1}),
        ))  # fmt: skip
    pairs = [nested(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind < 10:
        return [value for value, _ in pairs], [plain for _, plain in pairs]
    return {f"k{index}": value for index, (value, _) in enumerate(pairs)}, {
        f"k{index}": plain for index, (_, plain) in enumerate(pairs)
    }


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


UNSENDABLE: list[Callable[[], Any]] = [
    lambda: float("nan"), lambda: [float("inf")], lambda: {"a": float("-inf")}, lambda: "\ud800", lambda: {"a": b"b"},
    lambda: object(), lambda: [object()], lambda: {"a": {("b", "c"): 1}}, lambda: 1j, Unprintable, lambda: [Unprintable()], circle, deep,
    lambda: {"a": iter("x")}, lambda: Ellipsis, lambda: Point(1, object()), lambda: Odd("\ud800"), lambda: Odd(5), lambda: Odd(ValueError("x")),
    lambda: Odd(KeyboardInterrupt()), lambda: re.compile("x"),
]  # fmt: skip


def body(rng: random.Random) -> Part:
    """Make a body of any type."""
    kind = rng.randrange(10)
    if kind == 0:
        text = rng.choice(("", "text", "é€😀", "a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "\x00"))
        return Part(rng.choice((lambda: text, lambda: Subtle(text), lambda: ValueError(text))), text.encode())
    if kind in (1, 2):
        data = rng.choice(
            (
                b"",
                b"bytes",
                b"\r\n0\r\n\r\n",
                rng.randbytes(50),
                b"x" * rng.choice((1000, 70_000, 70_000, 70_000, 12_000_000)),
            )
        )
        return Part(
            rng.choice(
                (
                    lambda: data,
                    lambda: bytearray(data),
                    lambda: memoryview(data),
                    lambda: memoryview(data + data)[: len(data)],
                )
            ),
            data,
        )
    if kind in (3, 4):
        value, plain = nested(rng, 3)
        while value is None or isinstance(value, (str, enum.Enum)):
            value, plain = nested(rng, 3)
        return Part(lambda: value, b"", json=plain)
    if kind == 5:
        return Part(lambda: None, b"")
    if kind == 6:
        return Part(rng.choice(UNSENDABLE), None)
    return stream(rng)


class Items:
    """An iterator with `close`, that fails where an item is an exception."""

    def __init__(self, items: list[Any], close_fails: bool) -> None:
        self.items, self.close_fails, self.closed, self.begun = iter(items), close_fails, 0, False
        self.shown = f"{type(self).__name__} {show(items)}"
        CLOSED.append(self)

    def __iter__(self) -> Items:
        return self

    def __next__(self) -> Any:
        self.begun = True
        item = next(self.items)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self.closed += 1
        if self.close_fails:
            raise ValueError("close")


CLOSED: list[Items] = []  # those made for a batch


class File(Items):
    """The same as an open file."""

    __next__ = None  # type: ignore[assignment]

    def read(self, size: int = -1) -> Any:
        return Items.__next__(self) if self.items.__length_hint__() else b""


def generated(items: list[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, BaseException):
            raise item
        yield item


RIGHT_ITEMS: list[Any] = [
    "text",
    "é",
    "",
    b"",
    b"bytes",
    bytearray(b"a"),
    memoryview(b"b"),
    {"a": 1},
    [1],
    ["\ud800"],
    b"0\r\n\r\n",
    b"x" * 200_000,
]
WRONG_ITEMS: list[Any] = [None, 5, 1.5, object(), "\ud800", {"a": b""}, Unprintable(), ()]


def stream(rng: random.Random) -> Part:
    """Make a stream of items, some of which fail or cannot be sent."""
    items, sent = [], b""
    fault = None
    for index in range(rng.choice((0, 1, 1, 2, 5))):
        if rng.random() < 0.12:
            items.append(rng.choice((rng.choice(ERRORS)(), rng.choice(WRONG_ITEMS))))
            if isinstance(items[-1], StopIteration):
                items[-1] = ValueError("stop")
            fault = index
            break
        items.append(rng.choice(RIGHT_ITEMS))
        sent += encoded(items[-1])
    kind = rng.randrange(5)
    if kind == 0 and fault is None:
        data = b"".join(item for item in items if type(item) is bytes)
        return Part(lambda: io.BytesIO(data), data)
    if kind == 4:
        return file(items, sent, fault)
    make = (
        lambda: generated(items),
        lambda: generated(items),
        lambda: Items(items, False),
        lambda: Items(items, True),
    )[kind]
    return Part(make, None if fault == 0 else sent, cut=fault is not None, close_fails=kind == 3)


def file(items: list[Any], sent: bytes, fault: int | None) -> Part:
    """Make a file whose reads give these items; the first empty one is its end."""
    end = next(
        (index for index, item in enumerate(items) if not isinstance(item, BaseException) and is_empty(item)), None
    )
    if end is None:
        return Part(lambda: File(items, False), None if fault == 0 else sent, cut=fault is not None)
    return Part(lambda: File(items[:end], False), b"".join(encoded(item) for item in items[:end]))


def is_empty(item: Any) -> bool:
    return item is None or (hasattr(item, "__len__") and len(item) == 0)


def encoded(item: Any) -> bytes:
    """Return what an item is on the wire."""
    if isinstance(item, (dict, list)):
        return json.dumps(item, separators=(",", ":")).encode() + b"\n"
    return item.encode() if isinstance(item, str) else bytes(item)


def finished(
    what: str, act: Callable[[Any, Any], Any], status: Any, part: Part, headers: Any = (), pairs: Any = ()
) -> Case:
    """Put a case together: what the status, the headers and the body say of the response."""
    is_dropped = status in (204, 304)  # a stream without being begun, so that a wrong first item is not seen
    if status is None or pairs is None or (part.sent is None and not (part.cut and is_dropped)):
        return Case(act, what, WRONG, logs=True)
    if is_dropped:
        if part.close_fails:  # a 500, or not
            return Case(act, what, None, logs=None)
        return Case(act, what, status, b"", headers=[pair for pair in pairs if pair[0].lower() != "content-type"])
    logs = None if part.close_fails else part.cut
    return Case(
        act, what, status, part.sent if part.json is None and not part.cut else None, part.json, part.cut, logs, pairs
    )


def case(rng: random.Random) -> Case:
    """Make a case."""
    kind = rng.randrange(9)
    if kind == 0:
        error = rng.choice(ERRORS)
        return Case(lambda event, context: raising(error), f"raise {type(error()).__name__}", WRONG, logs=True)
    if kind in (1, 8):
        return wsgi_case(rng)
    part = body(rng)
    if kind == 2:
        return plain_case(part)
    status, code = choose(rng, STATUSES)
    headers, pairs = choose(rng, HEADERS)
    shown = f"status {status if not isinstance(status, Unprintable) else '?'}, headers {show(headers)}, body {show_part(part)}"
    if kind == 3:
        return tuple_case(rng, part, (status, code), (headers, pairs), shown)
    if kind == 4:
        return error_case(part, (status, code), (headers, pairs), shown)
    names = rng.choice(
        (("statusCode", "body"), ("status_code", "response"), ("statusCode", "response"), ("status_code", "body"))
    )
    if status is None:
        code = 200
    envelope = {names[0]: status, "headers": headers, names[1]: part}
    if rng.random() < 0.2:
        envelope["extra"] = 1
    return finished(
        "envelope: " + shown, lambda event, context: {**envelope, names[1]: part.make()}, code, part, headers, pairs
    )


def choose(rng: random.Random, table: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Choose a value and what becomes of it: mostly one that is right."""
    while True:
        value, becomes = rng.choice(table)
        if becomes is not None or rng.random() < 0.15:
            return value, becomes


def raising(error: Callable[[], BaseException]) -> Any:
    raise error()


def show(value: object) -> str:
    try:
        return ascii(value)[:300]
    except BaseException:
        return f"<{type(value).__name__}>"


def show_part(part: Part) -> str:
    value = part.make()
    return f"{type(value).__name__} {show(value)}, sent {show(part.sent)}{', cut' if part.cut else ''}"


def plain_case(part: Part) -> Case:
    """A body alone is a result, with a few exceptions: None, a tuple, and a dict that is an envelope."""
    value = part.make()
    what = f"plain: {show_part(part)}"
    if value is None:
        return Case(lambda event, context: part.make(), what, 204, b"")
    if type(value) is tuple or isinstance(value, BaseException):
        return Case(lambda event, context: part.make(), what, WRONG, logs=True)
    return finished(what, lambda event, context: part.make(), 200, part)


def tuple_case(rng: random.Random, part: Part, status: tuple[Any, Any], headers: tuple[Any, Any], shown: str) -> Case:
    kind = rng.randrange(4)
    if kind == 0:
        return finished(
            "(body, status, headers): " + shown,
            lambda event, context: (part.make(), status[0], headers[0]),
            status[1],
            part,
            *headers,
        )
    if kind == 1 and not isinstance(status[0], list):
        return finished("(body, status): " + shown, lambda event, context: (part.make(), status[0]), status[1], part)
    if kind == 2 and isinstance(headers[0], (list, dict)):
        return finished(
            "(body, headers): " + shown, lambda event, context: (part.make(), headers[0]), 200, part, *headers
        )
    length = rng.choice((0, 1, 4, 7))
    return Case(lambda event, context: (part.make(),) * length, f"tuple of {length}", WRONG, logs=True)


def error_case(part: Part, status: tuple[Any, Any], headers: tuple[Any, Any], shown: str) -> Case:
    def act(event: Any, context: Any) -> Any:
        raise HTTPError(status[0], part.make(), headers[0])

    made = finished("HTTPError: " + shown, act, status[1], part, *headers)
    if part.make() is None and part.sent is not None and made.logs is False and made.status not in (204, 304):
        return made._replace(body=PHRASES.get(made.status, b"Unknown\n"))
    return made


# -- WSGI responses --


WSGI_STATUSES = (
    "200 OK", "404 Not Found", "204 No Content", "304 Not Modified", "599 X", "200 OK\r\nX: y", "200", "100 Continue", "", "abc", 200,
    b"200 OK", None,
)  # fmt: skip
WSGI_HEADERS: tuple[Any, ...] = (
    [], [("X-A", "b")], [("Content-Type", "a/b")], [("X-A", "b\r\n")], [("X-A", 5)], [("X", "€")], [5], None, {"X-A": "b"}, [("Connection", "close")],
    [("Transfer-Encoding", "chunked")], [("Date", "x"), ("Server", "y")],
)  # fmt: skip
LENGTHS = ("0", str(10**12), "+5", "5, 5", "", "1 ", "-1", "0x5", "²", 5)
RIGHT_SHAPES = ("list", "tuple", "generator", "lazy", "items", "write", "exc_info")
SHAPES = (*RIGHT_SHAPES, "none", "number", "unstarted", "twice", "late exc_info")


class WsgiAnswer:
    """A WSGI response object that behaves, or misbehaves, in one of many ways."""

    def __init__(self, rng: random.Random) -> None:
        self.status: Any = rng.choice(WSGI_STATUSES[: rng.choice((5, 5, 99))])
        self.headers: Any = rng.choice(WSGI_HEADERS[: rng.choice((3, 3, 99))])
        self.items: list[Any] = [
            rng.choice((b"", b"ab", b"abc" * 100, b"\r\n0\r\n\r\n", b"x" * 300_000)) for _ in range(rng.randrange(4))
        ]
        self.shape, self.close_fails = rng.choice(SHAPES), rng.random() < 0.5
        if rng.random() < 0.2:
            error = rng.choice([make for make in ERRORS if type(make()) is not StopIteration])
            self.items.insert(rng.randint(0, len(self.items)), rng.choice(("text", None, 5, bytearray(b"a"), error())))
        self.right = (
            (self.status in WSGI_STATUSES[:5], self.headers in WSGI_HEADERS[:3], self.shape in RIGHT_SHAPES) == (True, True, True)
            and all(type(item) is bytes for item in self.items)
        )  # fmt: skip
        if rng.random() < 0.3 and type(self.headers) is list:
            self.declare_length(rng)

    def declare_length(self, rng: random.Random) -> None:
        """Add a Content-Length, right or wrong."""
        length = sum(len(item) for item in self.items if type(item) is bytes)
        value = rng.choice((str(length), str(length), str(length + 1), str(max(0, length - 1)), rng.choice(LENGTHS)))
        self.headers = [*self.headers, ("Content-Length", value)]
        self.right = self.right and value == str(length)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if self.shape in ("lazy", "unstarted"):
            return self.lazily(start_response) if self.shape == "lazy" else list(self.items)
        write = start_response(self.status, self.headers)
        if self.shape == "twice":
            start_response(self.status, self.headers)
        if self.shape == "exc_info":
            again(start_response, self.status, self.headers)
        if self.shape == "write":
            for item in self.items:
                write(item)
        return self.result(start_response)

    def result(self, start_response: Any) -> Any:
        if self.shape == "late exc_info":
            return self.late(start_response)
        if self.shape == "items":
            return Items(self.items, self.close_fails)
        makers = {
            "tuple": tuple,
            "generator": generated,
            "write": lambda items: [],
            "none": lambda items: None,
            "number": lambda items: 5,
        }
        return makers.get(self.shape, list)(self.items)

    def lazily(self, start_response: Any) -> Iterator[Any]:
        start_response(self.status, self.headers)
        yield from generated(self.items)

    def late(self, start_response: Any) -> Iterator[Any]:
        yield b"begun"
        again(start_response, self.status, self.headers)
        yield from generated(self.items)


def wsgi_case(rng: random.Random) -> Case:
    """Make a case of a WSGI response object."""
    answer = WsgiAnswer(rng)
    items = [item[:20] if type(item) is bytes else item for item in answer.items]
    what = f"WSGI {answer.shape}: {show(answer.status)}, {show(answer.headers)}, {show(items)}"
    if not answer.right:
        return Case(lambda event, context: answer, what, None, logs=None)
    code = int(answer.status[:3])
    logs = None if answer.shape == "items" and answer.close_fails else False
    return Case(
        lambda event, context: answer, what, code, b"" if code in (204, 304) else b"".join(answer.items), logs=logs
    )


def again(start_response: Any, status: Any, headers: Any) -> None:
    """Start a response once more, as PEP 3333 allows after an error."""
    try:
        raise ValueError("first")
    except ValueError:
        start_response(status, headers, sys.exc_info())


# -- reading what comes --

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
SINGLE = ("content-length", "transfer-encoding", "connection", "date", "server", "content-type")


def fault_of(answer: Answer) -> str:
    """Say what is wrong with an answer's head (RFC 9110, RFC 9112), "" for nothing."""
    names = [name.lower() for name, _ in answer.headers]
    for name, value in answer.headers:
        if not TOKEN(name) or not VALUE(value):
            return f"the field {name!r}: {value!r}"
    for name in SINGLE:
        if names.count(name) > 1:
            return f"{name} came twice"
    if "content-length" in names and "transfer-encoding" in names:
        return "both framings"
    if answer.status in (204, 304) and (
        "transfer-encoding" in names or (answer.status == 204 and "content-length" in names)
    ):
        return f"a framing with {answer.status}"
    if "date" not in names or "server" not in names:
        return "no Date or no Server"
    if answer.status < 200:
        return f"status {answer.status}"
    return ""


class ResultFuzzer:
    """Cases for one server; what it logs is in `log`."""

    BATCH = 40

    def __init__(self, seed: int, log: io.StringIO) -> None:
        self.seed, self.number, self.log = seed, 0, log
        self.cases: dict[str, Case] = {}
        self.seen: Counter[str] = Counter()
        self.logs: dict[str, bool | None] = {}  # target -> whether the log gets a record of it

    def function(self, event: Any, context: Any) -> Any:
        """Do what the case of this target is made of."""
        if event.path == "/next":
            return "next"
        return self.cases[event.path].act(event, context)

    def step(self, server: Serving, rng: random.Random | None = None) -> Finding | None:
        """Try the next case, and after a batch whether the server is well."""
        rng, number = rng or random_of(self.seed, self.number), self.number
        self.number += 1
        target = f"/{number}"
        self.cases[target] = tried = case(rng)
        raw, method, old, keeps = self.request(rng, target)
        leaves = rng.random() < 0.03
        ends_early = method == "HEAD" or leaves  # perhaps before it fails
        self.logs[target] = None if tried.logs and ends_early and (leaves or tried.cut) else tried.logs
        try:
            what = self.exchange(server, raw, tried, method, old, keeps, leaves)
        except TimeoutError:
            what = "hang"
        except (AssertionError, ValueError) as error:
            what = f"not a valid response: {error}"
        if not what and self.number % self.BATCH == 0:
            what = self.after(server)
        return Finding(self.seed, number, f"{what}\n  {tried.what}", raw) if what else None

    @staticmethod
    def request(rng: random.Random, target: str) -> tuple[bytes, str, bool, bool]:
        method, old, connection = (
            rng.choice(("GET", "GET", "POST", "HEAD")),
            rng.random() < 0.3,
            rng.choice(("", "", "close", "keep-alive")),
        )
        field = f"Connection: {connection}\r\n" if connection else ""
        raw = f"{method} {target} HTTP/1.{0 if old else 1}\r\nHost: a\r\n{field}\r\n".encode()
        return raw, method, old, connection == "keep-alive" if old else connection != "close"

    def exchange(
        self, server: Serving, raw: bytes, tried: Case, method: str, old: bool, keeps: bool, leaves: bool
    ) -> str:
        """Send the case's request and another; say what is wrong with what comes back, "" for nothing."""
        with server.connect() as sock:
            sock.sendall(raw + b"GET /next HTTP/1.0\r\nHost: a\r\n\r\n")
            if leaves:
                return ""
            data, ended = read_to_end(sock)
        return self.judge(data, ended, tried, method, old, keeps)

    def judge(self, data: bytes, ended: str, tried: Case, method: str, old: bool, keeps: bool) -> str:
        try:
            answer, rest = read_answer(data, method)
        except (AssertionError, ValueError):
            answer, rest = None, b""
        if answer is not None and (wrong := fault_of(answer)):
            return f"{wrong} in {data[:500]!r}"
        unframed = (
            answer is not None
            and old
            and method != "HEAD"
            and answer.status not in (204, 304)
            and answer.header("Content-Length") is None
        )
        if answer is None or (unframed and ended == "reset"):
            self.seen["cut"] += 1
            return self.judge_cut(data, ended, tried)
        self.seen[str(answer.status)] += 1
        if tried.cut and method != "HEAD" and answer.status != 304:
            return f"it failed, and looks complete: {data[:500]!r}"
        if tried.status is not None and answer.status != tried.status:
            return f"{answer.status} instead of {tried.status}: {data[:500]!r}"
        if tried.status is not None and [pair for pair in answer.headers if pair in tried.headers] != list(
            tried.headers
        ):
            return f"the headers are {answer.headers!r}"
        if method != "HEAD" and (wrong := self.wrong_body(answer, tried)):
            return wrong
        if answer.closes:
            return (
                f"after the end: {rest[:500]!r}"
                if rest
                else ""
                if not keeps or old or tried.status is None
                else "closed without need"
            )
        if unframed:
            return "no end of the response is known"
        if not keeps:
            return "Connection: close is missing"
        if not rest and tried.status is None:  # it failed when all that was promised had been sent
            return ""
        follower, rest = read_answer(rest)
        if (follower.status, follower.body) != (200, b"next") or rest:
            return f"the next answer is {follower!r}, and then {rest[:500]!r}"
        return ""

    @staticmethod
    def judge_cut(data: bytes, ended: str, tried: Case) -> str:
        """Say what is wrong with a response that is not whole: it must have begun as one, and have a reason."""
        if not tried.cut and tried.status is not None:
            return f"cut without need ({ended}): {data[:500]!r}"
        if data and not b"HTTP/1.1 ".startswith(data[:9]):
            return f"no response: {data[:500]!r}"
        if data.count(b"\r\nServer: of-python\r\n") > 1:
            return f"a second response within the first: {data[:500]!r}"
        return ""

    @staticmethod
    def wrong_body(answer: Answer, tried: Case) -> str:
        if tried.status == WRONG and tried.logs:
            return (
                ""
                if answer.body.startswith(b"Internal Server Error\ncall id: ")
                else f"no call id in {answer.body[:500]!r}"
            )
        if tried.json is not None and answer.status not in (204, 304):
            return "" if json.loads(answer.body) == tried.json else f"the body is {answer.body[:500]!r}"
        if tried.body is not None and answer.body != tried.body:
            return f"the body is {answer.body[:500]!r} instead of {tried.body[:500]!r}"
        return ""

    def after(self, server: Serving) -> str:
        """Say what is wrong with the server, "" for nothing."""
        if server.get("/next").body != b"next":
            return "the server does not serve any more"
        try:
            wait_for(lambda: not server.server.connections, "the end of all connections")
        except AssertionError as error:
            return f"{error}: {server.server.connections!r}"
        logged = self.log.getvalue()
        self.log.seek(0)
        self.log.truncate()
        wrong = self.wrong_log(logged) or self.wrong_closing()
        self.cases.clear()
        return wrong

    def wrong_log(self, logged: str) -> str:
        """Say what is wrong with the log of a batch, "" for nothing."""
        found = set(re.findall(r"^ERROR (?:call [!-~]+ )?'[A-Z]+' '(/[0-9]+)' failed$", logged, re.MULTILINE))
        expected, self.logs = self.logs, {}
        for target, logs in expected.items():
            if logs is not None and (target in found) != logs:
                record = logged.partition(f"'{target}' failed\n")[2].partition("\nERROR call")[0]
                return f"{target}, {self.cases[target].what}, has {'no' if logs else 'a'} record in the log: {record}"
        return f"log: {logged}" if "the server failed" in logged else ""

    @staticmethod
    def wrong_closing() -> str:
        """Say whether an iterator that was begun was not closed exactly once, "" if not."""
        wrong = [items for items in CLOSED if items.begun and items.closed != 1]
        CLOSED.clear()
        return f"{wrong[0].closed} calls of close for {wrong[0].shown}" if wrong else ""


def read_to_end(sock: Any) -> tuple[bytes, str]:
    """Read until the end; return the bytes and whether that was an "end" or a "reset"."""
    pieces = []
    try:
        while piece := sock.recv(1 << 18):
            pieces.append(piece)
    except ConnectionResetError:
        return b"".join(pieces), "reset"
    return b"".join(pieces), "end"


@contextlib.contextmanager
def result_fuzzer(seed: int, number: int = 0) -> Iterator[tuple[ResultFuzzer, Callable[..., Finding | None]]]:
    """Start a server for a ResultFuzzer; give it and its step."""
    log = io.StringIO()
    fuzzer = ResultFuzzer(seed, log)
    fuzzer.number = number
    with contextlib.redirect_stderr(log), serving(fuzzer.function) as server:
        yield fuzzer, partial(fuzzer.step, server)


def main() -> int:
    options = arguments(str(__doc__).partition("\n")[0])
    end, began = time.monotonic() + options.seconds, time.monotonic()
    number = findings = 0
    seen: Counter[str] = Counter()
    print(f"seed {options.seed}", flush=True)
    while time.monotonic() < end and findings < 10:
        with result_fuzzer(options.seed, number) as (fuzzer, step):
            findings += fuzz("results", step, min(end, time.monotonic() + 60))[1]
            number = fuzzer.number
            seen += fuzzer.seen
        print(f"{time.monotonic() - began:.0f} s: {number} results, {findings} findings; {dict(seen)}", flush=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
