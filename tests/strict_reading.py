"""Read HTTP/1.1 requests strictly: a second opinion, from RFC 9112 alone, on what the module accepts and refuses.

It shares nothing with the module: no pattern and no splitting of lines, but one position that moves over the bytes, a class of bytes at a time.
It reads what has come as a whole, keeps all that is wrong with a request instead of the first fault, and takes no care to be fast.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

CR, LF, SEMICOLON = b"\r\n;"
DIGITS = b"0123456789"
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEX = DIGITS + b"ABCDEFabcdef"
TOKEN = DIGITS + LETTERS + b"!#$%&'*+-.^_`|~"  # RFC 9110 §5.6.2
BLANK = b" \t"  # RFC 9110 §5.6.3
VISIBLE = bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100))
TEXT = VISIBLE + BLANK  # RFC 9110 §5.5
TARGET = "".join(map(chr, [0x21, 0x22, *range(0x24, 0x7F)]))  # of-watchdog cuts `#` off, and escapes what is not ASCII
NAME = DIGITS + LETTERS + b"-._~!$&'()*+,;="  # reg-name without its percent-encoding (RFC 3986 §3.2.2)


class Limits(NamedTuple):
    """How much is accepted, in bytes and in numbers."""

    head: int = 256 << 10
    body: int = 1000
    line: int = 64 << 10
    fields: int = 200
    method: int = 32
    blank_lines: int = 4
    chunk_line: int = 256


class Message(NamedTuple):
    """One request that is accepted, or refused in a way that leaves the connection usable."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    modern: bool  # HTTP/1.1 or later
    host: str | None  # the authority of an absolute target, else Host
    keeps: bool  # whether the connection goes on behind it
    refused: int | None  # 417, where it has no body
    expects: bool  # a 100 before its body


class Reading(NamedTuple):
    """What was read: the messages, and how it ends."""

    messages: list[Message]
    end: str  # "between" requests, "incomplete", "refused", or "closed" by the last message
    statuses: frozenset[int]  # that the last request is to be refused with, or may be already where it is incomplete
    begun: str = ""  # method of that last request, as far as an answer to it depends on that
    waits: bool = False  # whether its peer waits for a 100: the head is good, the body has not begun
    start: int = 0  # where that last request begins


class IncompleteError(Exception):
    """The bytes end before the request does."""


class RefusedError(Exception):
    """What is wrong is wrong whatever comes next."""


def read_requests(data: bytes, limits: Limits) -> Reading:
    """Read all requests in `data`."""
    reader = Reader(data, limits)
    messages: list[Message] = []
    try:
        while True:
            reader.begin()
            messages.append(reader.request())
            if not messages[-1].keeps:
                return Reading(messages, "closed", frozenset(), start=reader.start)
    except IncompleteError:
        end = "incomplete" if reader.at > reader.start or reader.at < len(data) else "between"
    except RefusedError:
        end = "refused"
    begun = reader.method or ("HEAD" if data.startswith(b"HEAD ", reader.start) else "GET")
    return Reading(messages, end, frozenset(reader.faults), begun, reader.waits, reader.start)


class Reader:
    """A position in the bytes of one connection, and what is wrong with the request there."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self.data, self.limits = data, limits
        self.at = self.start = 0
        self.faults: set[int] = set()
        self.method, self.waits = "", False

    # -- bytes --

    def run(self, allowed: bytes) -> bytes:
        """Pass the bytes of one class; return them."""
        start = self.at
        while piece := self.data[self.at : self.at + 256]:
            left = len(piece.lstrip(allowed))
            self.at += len(piece) - left
            if left:
                break
        return self.data[start : self.at]

    def peek(self) -> int:
        """Return the next byte."""
        if self.at == len(self.data):
            raise IncompleteError
        return self.data[self.at]

    def refuse(self, *statuses: int) -> None:
        self.faults.update(statuses)
        raise RefusedError

    def line_end(self) -> None:
        """Pass CRLF and nothing else."""
        for byte in (CR, LF):
            if self.peek() != byte:
                self.refuse(400)
            self.at += 1

    def ends_line(self) -> bool:
        """Tell whether the next byte ends a line, well or not."""
        return self.peek() in (CR, LF)

    # -- the head --

    def begin(self) -> None:
        """Pass a few empty lines before a request."""
        self.faults, self.method, self.waits = set(), "", False
        for _ in range(self.limits.blank_lines):
            self.start = self.at
            if not self.data.startswith(b"\r\n", self.at):
                break
            self.at += 2
        self.start = self.at
        if self.data.startswith((b"\r\n", b"\n"), self.at):
            self.refuse(400)

    def request(self) -> Message:
        try:
            method, target, minor = self.request_line()
            headers = self.fields()
        except IncompleteError:
            self.check_unfinished_head()
            raise
        except RefusedError:
            if self.at - self.start > self.limits.head:
                self.faults.add(431)
            raise
        if self.at - 4 - self.start > self.limits.head:
            self.faults.add(431)
        modern = minor != "0"
        host = self.host(method, target, headers, modern)
        length = self.body_length(headers, modern)
        refused, expects = self.expectation(headers, modern)
        if self.faults:
            raise RefusedError
        self.method = method
        if length != 0 and refused:
            self.refuse(refused)
        self.waits = expects and length != 0 and self.at == len(self.data)
        body = self.chunks() if length is None else self.content(length)
        keeps = self.keeps(headers, modern)
        return Message(method, target, headers, body, modern, host, keeps, refused, expects and length != 0)

    def check_unfinished_head(self) -> None:
        """Refuse what is too long already, and note what it may be refused for."""
        taken = len(self.data) - self.start
        line = min(self.limits.line + 2, self.limits.head + 4)
        if b"\r\n" not in self.data[self.start : self.start + line]:
            if taken >= line:
                self.refuse(414)
        elif taken >= self.limits.head + 4:
            self.refuse(431)

    def request_line(self) -> tuple[str, str, str]:
        """Pass `method SP target SP HTTP/digit.digit` (RFC 9112 §3)."""
        line = self.run(TEXT)
        if len(line) > min(self.limits.line, self.limits.head):
            self.faults.add(414)
        self.line_end()
        method, target, version = [part.decode("latin-1") for part in [*line.split(b" "), b"", b""][:3]]
        if line.count(b" ") != 2 or not method or not target or method.strip(TOKEN.decode()) or target.strip(TARGET):
            self.faults.add(400)
        if len(method) > self.limits.method or method in ("CONNECT", "TRACE"):
            self.faults.add(501)
        digits = version[5:6] + version[7:8]
        if version != f"HTTP/{digits[:1]}.{digits[1:]}" or len(digits) != 2 or digits.strip(DIGITS.decode()):
            self.faults.add(400)
        elif digits[0] != "1":
            self.faults.add(505)
        return method, target, digits[1:]

    def fields(self) -> list[tuple[str, str]]:
        """Pass the fields and the empty line behind them (RFC 9112 §5)."""
        headers = []
        while not self.ends_line():
            headers.append(self.field())
            if len(headers) > self.limits.fields:
                self.faults.add(431)
        self.line_end()
        return headers

    def field(self) -> tuple[str, str]:
        """Pass `token ":" OWS value OWS CRLF`."""
        name = self.run(TOKEN)
        colon = self.data[self.at : self.at + 1]
        if not name or colon not in (b":", b""):  # b"": it has not come yet
            self.faults.add(400)
        self.at += colon == b":"
        self.run(BLANK)
        value = self.run(TEXT)
        while value and value[-1] in BLANK:
            value = value[:-1]
        self.line_end()
        if name.lower() == b"host" and not is_authority(value.decode("latin-1")):
            self.faults.add(400)
        return name.decode("latin-1"), value.decode("latin-1")

    def host(self, method: str, target: str, headers: list[tuple[str, str]], modern: bool) -> str | None:
        """Check Host and the target's form; return the authority asked for (RFC 9112 §3.2)."""
        hosts = values(headers, "host")
        if len(hosts) > 1 or (modern and not hosts) or not all(map(is_authority, hosts)):
            self.faults.add(400)
        host = hosts[0] if hosts else None
        if target.startswith("/") or (target == "*" and method == "OPTIONS"):
            return host
        scheme, slashes, rest = target.partition("://")
        authority = rest[: min(len(rest), *(rest.find(mark) % (len(rest) + 1) for mark in "/?"))]
        if not slashes or scheme.lower() not in ("http", "https") or not is_authority(authority):
            self.faults.add(400)
        return authority

    def body_length(self, headers: list[tuple[str, str]], modern: bool) -> int | None:
        """Decide how long the body is, None for chunks: one of two fields, once, or none (RFC 9112 §6.3)."""
        codings, lengths = values(headers, "transfer-encoding"), values(headers, "content-length")
        if codings:
            single = [coding.strip(" \t").lower() for value in codings for coding in value.split(",")]
            if lengths or not modern or (len(single) != 1 and not set(single) - {"chunked", ""}) or single == [""]:
                self.faults.add(400)
            elif single != ["chunked"]:
                self.faults.add(501)
            return None
        if not lengths:
            return 0
        if (
            len(lengths) > 1
            or not 1 <= len(lengths[0]) <= 19
            or any(character not in "0123456789" for character in lengths[0])
        ):
            self.faults.add(400)
            return 0
        length = int(lengths[0])
        if length > self.limits.body:
            self.faults.add(413)
        return length

    def expectation(self, headers: list[tuple[str, str]], modern: bool) -> tuple[int | None, bool]:
        """Return 417 for an expectation that nobody knows, and whether the peer expects a 100 (RFC 9110 §10.1.1)."""
        expected: set[str] = set()
        for value in values(headers, "expect") if modern else ():
            expected.update(single.strip(" \t").lower() for single in value.split(","))
        expected.discard("")
        return (417, False) if expected - {"100-continue"} else (None, bool(expected))

    def keeps(self, headers: list[tuple[str, str]], modern: bool) -> bool:
        """Decide whether the connection goes on (RFC 9112 §9.3)."""
        options = {
            option.strip(" \t").lower() for value in values(headers, "connection") for option in value.split(",")
        }
        return "close" not in options and (modern or "keep-alive" in options)

    # -- the body --

    def content(self, length: int) -> bytes:
        """Pass so many bytes."""
        if len(self.data) - self.at < length:
            raise IncompleteError
        self.at += length
        return self.data[self.at - length : self.at]

    def chunks(self) -> bytes:
        """Pass chunks, the last one and the trailers (RFC 9112 §7.1)."""
        body = b""
        while size := self.chunk_size(len(body)):
            body += self.content(size)
            self.line_end()
        self.trailers()
        return body

    def chunk_size(self, before: int) -> int:
        """Pass a chunk's size and its extensions."""
        line, start = self.whole_line(self.limits.chunk_line, 400), self.at
        digits = self.run(HEX)
        behind = self.at
        self.run(BLANK)
        if self.at < start + len(line) and self.peek() == SEMICOLON:
            self.run(TEXT)
        elif self.at > behind:
            self.refuse(400)
        if not 1 <= len(digits) <= 16:
            self.refuse(400)
        self.line_end()
        size = 0
        for digit in digits:
            size = size * 16 + b"0123456789abcdef".index(bytes([digit]).lower())
        if before + size > self.limits.body:
            self.refuse(413)
        return size

    def trailers(self) -> None:
        """Pass trailers, which are fields, and drop them."""
        first, number = self.at, 0
        while self.whole_line(self.limits.head - (self.at - first), 431) != b"\r\n":
            self.field()
            number += 1
            if number > self.limits.fields or self.at - first > self.limits.head:
                self.refuse(431, *self.faults)
            if self.faults:
                raise RefusedError
        self.line_end()

    def whole_line(self, most: int, status: int) -> bytes:
        """Return the line that begins here, when its LF has come; refuse a wrong byte, or more than `most`, before that."""
        end = self.data.find(b"\n", self.at, self.at + most + 2)
        if end < 0:
            if len(self.data) - self.at >= most + 2:
                self.refuse(status, 400)
            if self.data[self.at :].removesuffix(b"\r").strip(TEXT):
                self.refuse(400)
            raise IncompleteError
        return self.data[self.at : end + 1]


def values(headers: list[tuple[str, str]], name: str) -> list[str]:
    """Return the values of all fields called `name`, given in lower case."""
    return [value for key, value in headers if key.lower() == name]


def is_authority(text: str) -> bool:
    """Tell whether `text` is a host, with or without a port (RFC 3986 §3.2.2); a port has five digits at most."""
    host, bracket, rest = text.partition("]")
    if text.startswith("["):
        if not bracket or not is_ipv6(host[1:]) or (rest and rest[0] != ":"):
            return False
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
        if not is_name(host):
            return False
    return len(port) <= 5 and not port.strip("0123456789")


def is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text)) and "%" not in text
    except ValueError:
        return False


def is_name(text: str) -> bool:
    """Tell whether `text` is a reg-name, which may be an IPv4 address, and is not empty."""
    plain, *encoded = text.split("%")
    for piece in encoded:
        if len(piece) < 2 or piece[:2].strip(HEX.decode()):
            return False
        plain += piece[2:]
    return text != "" and not plain.strip(NAME.decode())


def environ_fields(message: Message) -> dict[str, str]:
    """Return what of a message's headers belongs into a WSGI environ (PEP 3333), without the names that would pass for others.

    A body that came in chunks has its length there instead of its coding.
    """
    environ: dict[str, str] = {}
    for name, value in message.headers:
        key = name.upper().replace("-", "_")
        if "_" in name or key == "PROXY":
            continue
        if key not in ("CONTENT_LENGTH", "CONTENT_TYPE"):
            key = "HTTP_" + key
        environ[key] = environ[key] + ("; " if key == "HTTP_COOKIE" else ", ") + value if key in environ else value
    if environ.pop("HTTP_TRANSFER_ENCODING", None) and not message.refused and message.modern:
        environ["CONTENT_LENGTH"] = str(len(message.body))
    if message.host is not None:
        environ["HTTP_HOST"] = message.host
    return environ
