"""Send requests, made wrong in many ways, to the server half; hold what it makes of them against a strict reading of the same bytes.

    python tests/fuzz_requests.py --seconds 60 --seed 1

Two levels: `RequestReader` in this process, thousands of inputs a second, whole and in slices; and a running server over sockets, several
connections at a time, sliced, interleaved, half-closed and reset. An input is made of the seed and its number alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from conftest import DEADLINE, RESET, Serving, read_answer, serving, wait_for
from strict_reading import Limits, Message, Reading, environ_fields, read_requests

import watchdog_app

# -- a corpus: what servers have been broken with, and what they have to take --

HOST = "Host: a\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
NEXT = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


def get(*fields: str, line: str = "GET / HTTP/1.1", host: str = HOST) -> str:
    return f"{line}\r\n{host}" + "".join(field + "\r\n" for field in fields) + "\r\n"


def post(body: str, *fields: str, line: str = "POST / HTTP/1.1") -> str:
    return get(*fields, line=line) + body


def chunked(body: str) -> str:
    return post(body, "Transfer-Encoding: chunked")


def measured(length: str, body: str = "hello") -> str:
    return post(body, f"Content-Length: {length}")


GOOD = [
    get(),
    get(line="HEAD /a?b=c HTTP/1.1"),
    get(line="OPTIONS * HTTP/1.1"),
    get(line="get /%00%0d%0a%2e%2e/%zz HTTP/1.1"),
    get(line="GET //a//../b;c=d?e?f HTTP/1.1"),
    get(line="GET http://b.example:80/c?d HTTP/1.1"),
    get(line="GET HTTPS://[::1]:8443 HTTP/1.1"),
    get(line="GET / HTTP/1.9"),
    get(line="GET / HTTP/1.0", host=""),
    get("Connection: keep-alive", line="GET / HTTP/1.0") + get(line="GET /second HTTP/1.0"),
    get("Connection: Upgrade, CLOSE") + NEXT,
    get("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x") + NEXT,
    get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ") + NEXT,
    get("X:", "Y: \t ", "Z:a:b\t c \t", "W: \x85a\xa0"),
    get("A: 1", "a: 2", "Cookie: b=c", "cookie: d=e", "A_B: 3", "Proxy: x", "Content_Length: 7"),
    get(host="Host: a.b-c_d~e:8080\r\n"),
    get(host="hOST:[2001:db8::1.2.3.4]:\r\n"),
    get(host="Host: %41,b;c=(d)\r\n"),
    "\r\n\r\n" + get() + "\r\n" + NEXT,
    measured("5"),
    measured("0", NEXT),
    measured("0000000000000000005") + NEXT,
    measured(str(len(NEXT)), NEXT) + NEXT,
    measured("4", "\r\n\r\n"),
    post("hello", "Content-Length: 5", line="GET /body HTTP/1.1"),
    post("hello", "Content-Length: 5", "Connection: keep-alive", line="POST / HTTP/1.0") + NEXT,
    chunked("0\r\n\r\n") + NEXT,
    chunked("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n") + NEXT,
    chunked("000000000000000A;a=\"b;c\";d\r\n0123456789\r\n00\r\nX: y\r\nContent-Length: 9\r\n\r\n") + NEXT,
    chunked("2 \t;\r\n\r\n\r\n0\r\n\r\n") + NEXT,
    chunked("1;\x80\xff\r\nx\r\n0;last\r\nHost: b\r\nTransfer-Encoding: x\r\n\r\n"),
    get("Transfer-Encoding:\tCHUNKED ", line="PUT /a HTTP/1.1") + "3\r\nabc\r\n0\r\n\r\n",
    post("hello", "Expect: 100-continue", "Content-Length: 5"),
    post("5\r\nhello\r\n0\r\n\r\n", "Expect: 100-Continue", "Transfer-Encoding: chunked") + NEXT,
    post("", "Expect: 100-continue") + NEXT,
    post("hello", "Expect: 100-continue, 100-Continue", "Content-Length: 5"),
    post("hello", "Expect: ,", "Expect: 100-continue", "Expect:", "Content-Length: 5"),
    get("Expect: something") + NEXT,
    get("Expect: something", line="GET / HTTP/1.0"),
    "".join(get(line=f"GET /{number} HTTP/1.1") for number in range(8)),
]  # fmt: skip
BAD = [
    # two lengths, or one that is none
    post("0\r\n\r\n" + NEXT, "Content-Length: 5", "Transfer-Encoding: chunked"),
    post("0\r\n\r\n" + NEXT, "Transfer-Encoding: chunked", "Content-Length: 0"),
    post("hello", "Content-Length: 5", "Content-Length: 5"),
    post("hello", "Content-Length: 5", "content-length: 6"),
    *(measured(length) for length in ("", "5, 5", "+5", "-0", "0x5", "5_0", "5.0", "5 5", "\xb2", "5\xa0", "5;", "'5'", "1e1", "1" * 20)),
    measured("99999"),
    measured("9" * 19),
    # codings
    *(get(f"Transfer-Encoding: {coding}") + "0\r\n\r\n" for coding in (
        "", "xchunked", "chunked\x85", "\xa0chunked", "chunked,", ", chunked", "chunked, chunked", "chunked, identity", "identity", "gzip, chunked",
        "chunked;q=1", "\"chunked\"", "chun ked")),
    get("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + "0\r\n\r\n",
    get("Transfer-Encoding: chunked", "transfer-encoding: identity") + "0\r\n\r\n",
    get("Transfer-Encoding: chunked", line="POST / HTTP/1.0") + "0\r\n\r\n",
    get("Transfer-Encoding : chunked") + "0\r\n\r\n",
    get("Transfer-Encoding\t: chunked") + "0\r\n\r\n",
    get("X: y\r\n Transfer-Encoding: chunked") + "0\r\n\r\n",
    # chunks
    *(chunked(f"{size}\r\nhello\r\n0\r\n\r\n") for size in (
        "", " 5", "5 ", "\t5", "+5", "-5", "0x5", "5_", "5h", "\xb5", ";5", "5 a", "5\x0b", "5;a\x00", "5\n", "5;a\nb", "5\r", "5;\rb")),
    chunked("00000000000000005\r\nhello\r\n0\r\n\r\n"),
    chunked("5;" + "x" * 300 + "\r\nhello\r\n0\r\n\r\n"),
    chunked("FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    chunked("3e9\r\n" + "x" * 1001 + "\r\n0\r\n\r\n"),
    *(chunked(f"5\r\nhello{end}0\r\n\r\n") for end in ("", "\n", "\r", "\n\r", "\r\r\n", "  ", "\r\n\r\n", "x\r\n")),
    *(chunked(f"0\r\n{trailer}\r\n\r\n") for trailer in ("X", "X : y", ": y", " X: y", "X: y\r\n z", "X: \x00", "X: a\nb", "X: a\rb", NEXT.strip())),
    chunked("0\r\n\n"),
    chunked("0\n\r\n"),
    # lines and bytes
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\rHost: a\r\r",
    get("X: a\nTransfer-Encoding: chunked"),
    get("X: a\rTransfer-Encoding: chunked"),
    get("X: a\n"),
    get("X: a\n\r\nY: b"),
    get("X: a\r"),
    get("X: a\r\n\rY: b"),
    *(get(f"X: a{byte}b") for byte in "\x00\x01\x08\x0b\x0c\x1b\x1c\x1f\x7f"),
    "\n" + get(),
    "\r" + get(),
    "\r\n" * 5 + get(),
    # fields
    *(get(field) for field in ("X", "X y", ": y", ":", "X : y", "X\t: y", " X: y", "\tX: y", " ", "X Y: z", "(X): y", "X@: y", "X\x85: y")),
    get("\xe9: y"),
    get(host=" Host: a\r\n"),
    # Host
    get(host=""),
    get(host=HOST * 2),
    get(host="Host: a\r\nhost: b\r\n"),
    *(get(host=f"Host: {host}\r\n") for host in (
        "", "a b", "a, b", "a/b", "a@b", "a:b", "a:1:2", "a:100000", ":80", "::1", "[::1", "[]", "[g::1]", "[::1]a", "[::1%25lo]", "[1.2.3.4]", "%4",
        "%zz", "\xe9", "http://a")),
    get(line="GET http://b/ HTTP/1.1", host=""),
    # the request line
    *(get(line=line) for line in (
        "GET  / HTTP/1.1", "GET /  HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/1.1 ", "GET\t/\tHTTP/1.1", "GET /\x0bHTTP/1.1",
        "GET / a HTTP/1.1",
        "GET", "GET /", "GET / http/1.1", "GET / HTTP/1", "GET / HTTP/1.", "GET / HTTP/1.10", "GET / HTTP/01.1", "GET / HTTP/1,1", "GET / HTTP /1.1",
        "GET / HTTP/\xb9.1", "GET / ICE/1.0", "GET / HTTP/2.0", "GET / HTTP/0.9", "GET / HTTP/9.9", "G@T / HTTP/1.1", "G\xc9T / HTTP/1.1",
        "GET a HTTP/1.1", "GET a:80 HTTP/1.1", "GET * HTTP/1.1", "GET ?a HTTP/1.1", "GET http:/a HTTP/1.1", "GET http:///a HTTP/1.1",
        "GET http://a@b/ HTTP/1.1", "GET http://a\\b/ HTTP/1.1", "GET ftp://a/ HTTP/1.1", "OPTIONS ** HTTP/1.1", "CONNECT a:80 HTTP/1.1",
        "GET /a#b HTTP/1.1", "GET /\xe9\x80\xff HTTP/1.1", "GET http://a#b HTTP/1.1",
        "CONNECT / HTTP/1.1", "TRACE / HTTP/1.1", "A" * 33 + " / HTTP/1.1", "PROXY TCP4 127.0.0.1 127.0.0.1 1 2")),
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    # sizes
    get(*["X: y"] * 200),
    get("X: " + "y" * 3000),
    get(line="GET /" + "a" * 70_000 + " HTTP/1.1"),
    post("hello", "Expect: something", "Content-Length: 5"),
    chunked("0\r\n" + "X: y\r\n" * 201 + "\r\n"),
    chunked("0\r\nX: " + "y" * 3000 + "\r\n\r\n"),
]  # fmt: skip
CUT = [
    "",
    "\r\n",
    "\r\n\r",
    "GET",
    "GET /\r\n",  # HTTP/0.9
    get()[:-1],
    get()[:-3],
    NEXT + "P",
    measured("6"),
    post("", "Expect: 100-continue", "Content-Length: 5"),
    NEXT + post("", "Expect: 100-continue", "Transfer-Encoding: chunked"),
    chunked(""),
    chunked("5"),
    chunked("5\r"),
    chunked("5\r\nhello"),
    chunked("5\r\nhello\r"),
    chunked("5\r\nhello\r\n0\r\n"),
    chunked("0\r\nX: y"),
    chunked("0\r\nX: y\r\n\r"),
]
GOOD_SEEDS = [seed.encode("latin-1") for seed in GOOD]
SEEDS = GOOD_SEEDS + [seed.encode("latin-1") for seed in (*BAD, *CUT)]
PIECES = [piece.encode("latin-1") for piece in (
    "\r\n", "\r\n\r\n", "\n", "\r", "\n\n", "\r\n ", "\r\n\t", " ", "\t", "\x00", "\x0b", "\x0c", "\x1c", "\x7f", "\x85", "\xa0", "\xb2", "\xff",
    ":", ": ", ",", ";", "0", "1", "5", "0x", "+", "-", "_", "%00", "%", "/", "?", "#", "*", "@", "[", "]", "http://b/", " HTTP/1.1\r\n",
    "HTTP/1.0", "HEAD ", "0\r\n\r\n", "5\r\nhello\r\n", "00000000", "ffffffff", "99999999999", "chunked", "close", "keep-alive", "100-continue",
    HOST, CHUNKED, "Content-Length: 5\r\n", "Content-Length: 0\r\n", "Connection: close\r\n", "Connection: keep-alive\r\n",
    "Expect: 100-continue\r\n", "Expect: x\r\n", "Transfer-Encoding: x\r\n", "Content_Length: 5\r\n", "Proxy: b\r\n", "X: y\r\n", " X: y\r\n",
    "X : y\r\n", "Host: b\r\n", "Upgrade: h2c\r\n", NEXT,
)]  # fmt: skip


# -- making inputs --


def request(rng: random.Random) -> bytes:
    """Make a good request."""
    old = rng.random() < 0.1
    method = rng.choice(("GET", "GET", "POST", "PUT", "HEAD", "DELETE", "M-SEARCH", "A" * rng.randint(1, 34)))
    target = rng.choice(
        ("/", "/a", "/a?b=c", "/%00%ff", "//", "/" + "a" * rng.randint(0, 300), "http://b/c", "https://[::1]?d")
    )
    fields = [rng.choice(("Host: a", "Host: b:80", "host:\t[::1]:1 "))] if not old or rng.random() < 0.5 else []
    for _ in range(rng.choice((0, 0, 1, 2, 5))):
        fields.append(
            rng.choice(
                (
                    "X: y",
                    "x:z",
                    "A-B:",
                    "Cookie: a=b",
                    "C_D: e",
                    "Proxy: f",
                    "Accept: */*",
                    "Content-Type: a/b",
                    "Y: \xe9 \x85",
                )
            )
        )
    if rng.random() < (0.7 if old else 0.1):
        fields.append(
            rng.choice(("Connection: keep-alive", "Connection: close", "Connection: x", "Connection: X, Keep-Alive"))
        )
    if rng.random() < 0.1:
        fields.append("Expect: 100-continue")
    body = b""
    framing = rng.randrange(2 if old else 3)
    if framing == 1:
        body = content(rng, rng.choice((0, 1, 5, 30, 300)))
        fields.append(f"Content-Length: {len(body)}")
    elif framing == 2:
        fields.append(rng.choice(("Transfer-Encoding: chunked", "transfer-encoding:Chunked")))
        body = chunks(rng)
    rng.shuffle(fields)
    line = f"{method} {target} HTTP/{'1.0' if old else '1.1'}"
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1") + body


def content(rng: random.Random, length: int) -> bytes:
    """Make a body, one that looks like a request among others."""
    kind = rng.randrange(3)
    if kind == 0:
        return rng.randbytes(length)
    return ((NEXT if kind == 1 else "\r\n0\r\n\r\n").encode() * length)[:length]


def chunks(rng: random.Random) -> bytes:
    """Make a chunked body."""
    body = b""
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        piece = content(rng, rng.choice((1, 2, 5, 16, 100)))
        size = rng.choice(("%x", "%X", "%04x", "%016X")) % len(piece)
        body += size.encode() + rng.choice((b"", b"", b"", b";a=b", b" ;", b'\t; c="d;e"')) + b"\r\n" + piece + b"\r\n"
    return (
        body
        + rng.choice((b"0", b"0", b"00", b"0;z"))
        + b"\r\n"
        + rng.choice((b"", b"", b"X: y\r\n", b"Host: b\r\nY:\r\n"))
        + b"\r\n"
    )


def position(rng: random.Random, data: bytes) -> int:
    """Choose where to change `data`: often at a line's end, where most is decided."""
    if rng.random() < 0.4 and (ends := data.count(b"\r\n")):
        at = -1
        for _ in range(rng.randint(1, min(ends, 30))):
            at = data.find(b"\r\n", at + 1)
        return at + rng.choice((0, 1, 2))
    return rng.randint(0, len(data))


def flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) or 1)
    return data[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]


def put(rng: random.Random, data: bytes) -> bytes:
    at = position(rng, data)
    return data[:at] + rng.choice(PIECES) + data[at:]


def put_byte(rng: random.Random, data: bytes) -> bytes:
    at = position(rng, data)
    return data[:at] + bytes([rng.randrange(256)]) + data[at:]


def overwrite(rng: random.Random, data: bytes) -> bytes:
    at, piece = position(rng, data), rng.choice(PIECES)
    return data[:at] + piece + data[at + len(piece) :]


def delete(rng: random.Random, data: bytes) -> bytes:
    at = position(rng, data)
    return data[:at] + data[at + rng.choice((1, 1, 2, 4, 16)) :]


def duplicate(rng: random.Random, data: bytes) -> bytes:
    at, length = position(rng, data), rng.choice((1, 2, 8, 32, 128))
    return data[: at + length] + data[at:]


def repeat(rng: random.Random, data: bytes) -> bytes:
    """Say one piece very often, to reach the limits."""
    at, length = position(rng, data), rng.choice((1, 1, 2, 6, 20))
    piece = data[at : at + length]
    number = rng.choice((5, 20, 260, 1100))
    if rng.random() < 0.02:
        number = 70_000 // (len(piece) or 1)
    return data[:at] + piece * number + data[at:]


def with_lines(change: Callable[[random.Random, list[bytes]], object]) -> Callable[[random.Random, bytes], bytes]:
    """Make a mutator of bytes of one of lines."""

    def changed(rng: random.Random, data: bytes) -> bytes:
        lines = data.split(b"\r\n")
        change(rng, lines)
        return b"\r\n".join(lines)

    return changed


@with_lines
def swap_lines(rng: random.Random, lines: list[bytes]) -> None:
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


@with_lines
def double_line(rng: random.Random, lines: list[bytes]) -> None:
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))


@with_lines
def drop_line(rng: random.Random, lines: list[bytes]) -> None:
    del lines[rng.randrange(len(lines))]


@with_lines
def change_case(rng: random.Random, lines: list[bytes]) -> None:
    index = rng.randrange(len(lines))
    lines[index] = lines[index].swapcase()


@with_lines
def fold(rng: random.Random, lines: list[bytes]) -> None:
    index = rng.randrange(len(lines))
    lines[index] = rng.choice((b" ", b"\t")) + lines[index]


NUMBERS = [*b"0 1 4 6 7 a 10 1000 1001 00 +5 0x5 5_0 -1 \xb2".split(b" "), b"5 ", b"9" * 20]


@with_lines
def other_number(rng: random.Random, lines: list[bytes]) -> None:
    """Change a size: the lines that are one, or end in one."""
    ending = [index for index, line in enumerate(lines) if line[-1:].isdigit() and b"HTTP/" not in line]
    if ending:
        index = rng.choice(ending)
        lines[index] = lines[index].rstrip(b"0123456789") + rng.choice(NUMBERS)


def bare_end(rng: random.Random, data: bytes) -> bytes:
    """Take one half of a line's end, or of all of them."""
    half = rng.choice((b"\r", b"\n", b"\n\r"))
    if rng.random() < 0.2:
        return data.replace(b"\r\n", half)
    at = data.find(b"\r\n", rng.randrange(len(data) or 1))
    return data if at < 0 else data[:at] + half + data[at + 2 :]


def splice(rng: random.Random, data: bytes) -> bytes:
    other = rng.choice(SEEDS) if rng.random() < 0.7 else request(rng)
    return data[: position(rng, data)] + other[position(rng, other) :]


def follow(rng: random.Random, data: bytes) -> bytes:
    return data + (rng.choice(SEEDS) if rng.random() < 0.5 else request(rng))


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: position(rng, data)]


def ask_first(rng: random.Random, data: bytes) -> bytes:
    """End with a head whose peer waits for a 100."""
    at = data.find(b"\r\n\r\n")
    return data if at < 0 else data[:at] + b"\r\nExpect: 100-continue\r\n\r\n"


MUTATORS = (
    flip, put, put, put_byte, overwrite, delete, duplicate, repeat, swap_lines, double_line, drop_line, change_case, fold, other_number, other_number,
    bare_end, splice, splice, follow, follow, cut, ask_first,
)  # fmt: skip


def make_input(rng: random.Random) -> bytes:
    """Make the bytes of one connection: some good requests or a seed, made wrong not at all, once or several times."""
    kind = rng.random()
    if kind < 0.6:
        data = b"".join(request(rng) for _ in range(rng.choice((1, 1, 1, 2, 4))))
    else:
        data = rng.choice(GOOD_SEEDS if kind < 0.8 else SEEDS)
    for _ in range(rng.choice((0, 0, 1, 1, 1, 1, 2, 3))):
        data = rng.choice(MUTATORS)(rng, data)
    return data[:200_000]


def random_of(seed: int, number: int) -> random.Random:
    return random.Random(seed * 1_000_000_007 + number)


# -- the first level: RequestReader --


class Read(NamedTuple):
    """What the module made of the bytes of one connection, up to the request that ends it."""

    requests: list[tuple[Any, ...]]
    refusal: int | None  # that ends the connection
    method: str  # of that refusal
    waiting: str
    wants: bool = False  # to send a 100


def read_with_module(data: bytes, lengths: tuple[int, ...], limits: Limits) -> Read:
    """Let a RequestReader read `data`, in slices of these lengths, over and over."""
    reader = watchdog_app.RequestReader(limits.head, limits.body)
    requests: list[tuple[Any, ...]] = []
    for piece in slices(data, lengths):
        found = received(reader, piece)
        while found is not None:
            status = found.refusal.status if found.refusal else None
            if status and not found.keep_alive and (status != 417 or not found.fields or found.length):
                return Read(requests, status, found.method, "")
            requests.append(
                (found.method, found.target, found.fields, found.body, found.modern, found.keep_alive, status)
            )
            if not found.keep_alive:
                return Read(requests, None, "", "")
            found = received(reader, b"")
    wants = not lengths and reader.wants_continue()  # in slices that depends on when it is asked
    return Read(requests, None, "", reader.waiting, wants)


def received(reader: watchdog_app.RequestReader, piece: bytes) -> watchdog_app.Request | None:
    """Let `reader` take all of `piece`, in as many turns as it needs."""
    found = reader.receive(piece)
    while found is None and reader.in_part:
        found = reader.receive(b"")
    return found


def slices(data: bytes, lengths: tuple[int, ...]) -> Iterator[bytes]:
    """Cut `data` into slices of these lengths, over and over; no length is the whole."""
    at = index = 0
    while at < len(data):
        length = lengths[index % len(lengths)] if lengths else len(data)
        yield data[at : at + length]
        at, index = at + length, index + 1


def expected_of(message: Message) -> tuple[Any, ...]:
    """Return what the module is to make of a message, in the form of `read_with_module`."""
    fields, body = environ_fields(message), message.body
    return (message.method, message.target, fields, body, message.modern, message.keeps, message.refused)


def difference(data: bytes, lengths: tuple[int, ...], limits: Limits, strict: Reading | None = None) -> str:
    """Say where the module and a strict reading differ, or whole and sliced delivery; "" where they do not."""
    strict, whole = strict or read_requests(data, limits), read_with_module(data, (), limits)
    expected = [expected_of(message) for message in strict.messages]
    if whole.requests != expected:
        return f"the requests differ: the module reads {whole.requests!r}, the strict reading {expected!r}"
    if not ends_well(whole, strict):
        return f"the ends differ: the module {whole[1:]!r}, the strict reading {strict[1:]!r}"
    if lengths and (sliced := read_with_module(data, lengths, limits)) != whole._replace(wants=False):
        return f"slices differ: whole {whole!r}, in slices of {lengths} {sliced!r}"
    return ""


def ends_well(read: Read, strict: Reading) -> bool:
    """Tell whether a connection ends as it is to: refused, with the right status, if and only if something is wrong."""
    if strict.end in ("refused", "incomplete") and read.refusal:
        return read.refusal in strict.statuses and (read.method == "HEAD") == (strict.begun == "HEAD")
    if strict.end == "refused" or read.refusal:
        return False
    return (bool(read.waiting), read.wants) == (strict.end == "incomplete", strict.waits)


def minimal(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Take away from `data` what is not needed for it to fail."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


class Finding(NamedTuple):
    """Something that must not be, and how to see it again."""

    seed: int
    number: int
    what: str
    raw: bytes

    def __str__(self) -> str:
        return f"seed {self.seed}, input {self.number}: {self.what[:2000]}\n  raw = {self.raw!r}"


class ReaderFuzzer:
    """Inputs for RequestReader."""

    def __init__(self, seed: int) -> None:
        self.seed, self.number = seed, 0
        self.ends: Counter[str] = Counter()  # how many inputs end in which way, and how many requests were accepted

    def step(self) -> Finding | None:
        """Try the next input."""
        rng = random_of(self.seed, self.number)
        data, number = make_input(rng), self.number
        self.number += 1
        limits = Limits(head=rng.choice((200, 1000, 256 << 10)), body=rng.choice((10, 1000, 1000)))
        lengths = tuple(rng.choice((1, 2, 3, 7, 40, 300)) for _ in range(rng.choice((1, 1, 3))))
        lengths = tuple(max(length, len(data) // 100) for length in lengths)
        try:
            strict = read_requests(data, limits)
            self.count(strict)
            what = difference(data, lengths, limits, strict)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
        return Finding(self.seed, number, *self.shortest(data, lengths, limits, what)) if what else None

    def count(self, reading: Reading) -> None:
        self.ends[reading.end] += 1
        self.ends["accepted"] += len(reading.messages)
        for status in reading.statuses if reading.end == "refused" else ():
            self.ends[str(status)] += 1

    @staticmethod
    def shortest(data: bytes, lengths: tuple[int, ...], limits: Limits, what: str) -> tuple[str, bytes]:
        """Find a short input that fails in the same way."""
        kind = what.partition(":")[0]

        def fails(shorter: bytes) -> bool:
            try:
                return difference(shorter, lengths, limits).startswith(kind)
            except Exception as error:
                return type(error).__name__ == kind

        raw = minimal(data, fails)
        with contextlib.suppress(Exception):
            what = difference(raw, lengths, limits) or what
        return f"{what} (slices {lengths}, {limits})", raw


# -- the second level: a server over sockets --


def echo(event: Any, context: Any) -> dict[str, Any]:
    """Say what the function was called with."""
    fields = {key: value for key, value in event.environ.items() if key.startswith(("HTTP_", "CONTENT_"))}
    return {
        "method": event.method,
        "target": event.environ["REQUEST_URI"],
        "fields": fields,
        "text": event.body.decode("latin-1"),
    }


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Peer:
    """One connection of a batch: what it sends, in which slices, and how it ends."""

    def __init__(self, rng: random.Random, server: Serving, limits: Limits) -> None:
        self.raw = make_input(rng)
        self.strict = read_requests(self.raw, limits)
        self.ending = rng.choice(("half-close", "half-close", "half-close", "keep", "reset"))
        lengths = tuple(rng.choice((1, 5, 20, 100, 100_000)) for _ in range(3))
        least = len(self.raw) // 30 + 1
        self.slices = [*slices(self.raw, tuple(max(length, least) for length in lengths))]
        if self.ending == "reset":
            del self.slices[rng.randint(0, len(self.slices)) :]
        self.received = b""
        self.sock = server.connect()

    def step(self) -> bool:
        """Send the next slice; return whether there are more."""
        if not self.slices:
            return False
        try:
            self.sock.sendall(self.slices.pop(0))
        except OSError:  # refused, and closed before all was sent
            self.slices.clear()
        return bool(self.slices)

    def end(self) -> str:
        """End the connection; say what is wrong with the answers, "" for nothing."""
        try:
            with self.sock:
                if self.ending == "reset":
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return ""
                if self.ending == "half-close":
                    with contextlib.suppress(OSError):
                        self.sock.shutdown(socket.SHUT_WR)
                return self.check()
        except TimeoutError:
            return f"hang after {self.received!r}"
        except (AssertionError, ValueError, OSError) as error:
            return f"{type(error).__name__}: {error}"

    def check(self) -> str:
        """Read an answer for each message, then the end."""
        for message in self.strict.messages:
            answer = self.answer(message.method, message.expects)
            status = message.refused or 200
            if answer.status != status:
                return f"{answer.status} instead of {status} for {message.method} {message.target}"
            if answer.closes == message.keeps:
                return f"Connection: {answer.header('Connection')}, and it {'goes on' if message.keeps else 'ends'}"
            if status == 200 and message.method != "HEAD" and json.loads(answer.body) != echoed(message):
                return f"the function saw {answer.body!r} instead of {echoed(message)!r}"
        return self.check_end()

    def check_end(self) -> str:
        end, allowed = self.strict.end, self.strict.statuses
        if end == "incomplete" and self.ending == "half-close":
            allowed |= {400}
        if end == "refused" or (end == "incomplete" and self.ending == "half-close"):
            answer = self.answer(self.strict.begun, True)
            if answer.status not in allowed or not answer.closes:
                return f"{answer.status} with Connection: {answer.header('Connection')} instead of one of {sorted(allowed)}"
        elif self.ending == "keep" and end != "closed":
            self.more(DEADLINE if self.strict.waits and not self.received else 0.0)
            if self.strict.waits and not self.received.startswith(CONTINUE):
                return f"{self.received!r} instead of a 100"
            self.received = self.received.removeprefix(CONTINUE)
            if self.received and not allowed:
                return f"more answers than requests: {self.received!r}"
            return ""
        while self.more(DEADLINE):
            pass
        return f"more answers than requests: {self.received!r}" if self.received else ""

    def answer(self, method: str, may_wait: bool) -> Any:
        """Read one answer, and a 100 before it if that may be."""
        while True:
            try:
                answer, rest = read_answer(self.received, method)
            except (AssertionError, ValueError):
                if not self.more(DEADLINE):
                    raise
                continue
            self.received = rest
            if answer.status != 100 or not may_wait:
                return answer
            may_wait = False

    def more(self, seconds: float) -> bool:
        """Receive more within so many seconds; return False at the end."""
        if seconds == 0.0 and not select.select([self.sock], [], [], 0.0)[0]:
            return False
        data = self.sock.recv(65536)
        self.received += data
        return bool(data)


def echoed(message: Message) -> dict[str, Any]:
    """Return what `echo` has to say of a message."""
    return {
        "method": message.method,
        "target": message.target,
        "fields": environ_fields(message),
        "text": message.body.decode("latin-1"),
    }


class SocketFuzzer:
    """Batches of connections to one server, interleaved; what the server logs is in `log`."""

    LIMITS = Limits(head=1000, body=1000)
    BATCH = 8

    def __init__(self, seed: int, server: Serving, log: io.StringIO) -> None:
        self.seed, self.number, self.server, self.log = seed, 0, server, log

    def step(self) -> Finding | None:
        """Try the next batch."""
        rng, number = random_of(self.seed, self.number), self.number
        self.number += 1
        peers = [Peer(rng, self.server, self.LIMITS) for _ in range(self.BATCH)]
        busy = list(peers)
        while busy:
            peer = rng.choice(busy)
            if not peer.step():
                busy.remove(peer)
        rng.shuffle(peers)
        for peer in peers:
            if what := peer.end():
                for other in peers:
                    other.sock.close()
                return Finding(self.seed, number, f"{what} (slices {peer.strict}, ending {peer.ending})", peer.raw)
        what = self.after()
        return Finding(self.seed, number, what, b"".join(peer.raw for peer in peers)) if what else None

    def after(self) -> str:
        """Say what is wrong with the server after a batch, "" for nothing."""
        if self.server.get("/after").status != 200:
            return "the server does not serve any more"
        try:
            wait_for(lambda: not self.server.server.connections, "the end of all connections")
        except AssertionError as error:
            return f"{error}: {self.server.server.connections!r}"
        return f"log: {self.log.getvalue()}" if self.log.getvalue() else ""


@contextlib.contextmanager
def socket_fuzzer(seed: int) -> Iterator[SocketFuzzer]:
    """Start a server for a SocketFuzzer."""
    log = io.StringIO()
    limits = SocketFuzzer.LIMITS
    with contextlib.redirect_stderr(log), serving(echo, max_head=str(limits.head), max_body=str(limits.body)) as server:
        yield SocketFuzzer(seed, server, log)


# -- the program --


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long, for ever by default")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the time by default")
    return parser.parse_args()


def fuzz(name: str, step: Callable[[], Finding | None], until: float) -> tuple[int, int]:
    """Step until a time; print findings, at most ten; return the number of steps and of findings."""
    steps = findings = 0
    while time.monotonic() < until and findings < 10:
        steps += 1
        if finding := step():
            findings += 1
            print(f"FINDING {name}, {finding}", flush=True)
    return steps, findings


def main() -> int:
    options = arguments(str(__doc__).partition("\n")[0])
    end, began = time.monotonic() + options.seconds, time.monotonic()
    reader, batches, findings, batch_number = ReaderFuzzer(options.seed), 0, 0, 0
    print(f"seed {options.seed}", flush=True)
    while time.monotonic() < end and findings < 10:
        for_reader = min(end, time.monotonic() + 30)
        findings += fuzz("reader", reader.step, for_reader)[1]
        with socket_fuzzer(options.seed) as sockets:
            sockets.number = batch_number
            steps, found = fuzz("sockets", sockets.step, min(end, time.monotonic() + 30))
            batches, findings, batch_number = batches + steps, findings + found, sockets.number
        elapsed = time.monotonic() - began
        tried = f"{reader.number} inputs, {batches * SocketFuzzer.BATCH} connections, {findings} findings"
        print(f"{elapsed:.0f} s: {tried}; {dict(reader.ends)}", flush=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
