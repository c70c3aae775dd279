"""Read multipart/form-data strictly: a second opinion, from RFC 2046 §5.1 and RFC 7578 alone, line by line and a character at a time.

It shares nothing with the module: no pattern, no search for the boundary in the body, and no care to be fast.
"""

from __future__ import annotations

from typing import NamedTuple

from strict_reading import BLANK, DIGITS, LETTERS, TEXT, TOKEN

BOUNDARY = (DIGITS + LETTERS + b"'()+_,-./:=? ").decode()
ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}  # as browsers send them


class Part(NamedTuple):
    """One part of a form."""

    name: str
    filename: str | None
    headers: dict[str, str]  # by lower-case name
    content: bytes


class RefusedError(Exception):
    """The body is not what its Content-Type says."""


def check(condition: object, why: str) -> None:
    if not condition:
        raise RefusedError(why)


def read_parts(body: bytes, content_type: str) -> list[Part]:
    """Read all parts of a body."""
    boundary = parameters(content_type)[1].get("boundary", "")
    check(1 <= len(boundary) <= 70 and all(each in BOUNDARY for each in boundary), "boundary")
    check(boundary[-1:] != " ", "a boundary that ends with a space")
    lines, marker = body.split(b"\r\n"), b"--" + boundary.encode()
    marked = [number for number, line in enumerate(lines) if line.startswith(marker)]
    found = []
    for number, following in zip(marked, [*marked[1:], None], strict=False):
        rest = lines[number][len(marker) :]
        if rest[:2] == b"--" and not rest[2:].strip(BLANK):
            check(found or number == 0, "no part")  # the body of a form without fields is its closing delimiter
            return found
        check(not rest.strip(BLANK), "a line that begins with the boundary and goes on")
        check(following is not None, "no closing delimiter")
        found.append(part(lines[number + 1 : following]))
    raise RefusedError("no closing delimiter")


def part(lines: list[bytes]) -> Part:
    check(b"" in lines, "no empty line")
    empty = lines.index(b"")
    head, content = lines[:empty], b"\r\n".join(lines[empty + 1 :])
    check(len(head) <= 10 and len(b"\r\n".join(head)) <= 4096, "headers too long")
    headers: dict[str, str] = {}
    dropped = 0
    for line in head:
        name, colon, value = line.partition(b":")
        check(colon and name and not name.strip(TOKEN) and not value.translate(None, TEXT), "header")
        key = name.decode().lower()
        dropped += (hidden := "_" in key or key == "proxy")  # the environ of a request has none of these
        check(key not in headers, "a header twice")
        if not hidden:
            headers[key] = value.strip(BLANK).decode("utf-8", "replace")
    check(dropped <= 1, "what is dropped, twice")
    check(headers.get("content-transfer-encoding", "8bit").lower() in ("7bit", "8bit", "binary"), "encoded content")
    kind, named = parameters(headers.get("content-disposition", ""))
    check(kind == "form-data" and "name" in named, "Content-Disposition")
    return Part(named["name"], named.get("filename"), headers, content)


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """Read a value's first word, in lower case, and its parameters."""
    first, found, at = value.partition(";")[0], {}, len(value.partition(";")[0])

    def run(allowed: str) -> str:
        nonlocal at
        start = at
        while at < len(value) and value[at] in allowed:
            at += 1
        return value[start:at]

    passed = 0
    while at < len(value):
        passed += 1
        check(passed <= 10, "too many parameters")
        run(" \t")
        check(value[at : at + 1] == ";", "no semicolon")
        at += 1
        run(" \t")
        name = run(TOKEN.decode()).lower()
        if not name:
            continue
        check(value[at : at + 1] == "=" and name not in found, "parameter")
        at += 1
        if value[at : at + 1] == '"':
            found[name], at = quoted(value, at + 1)
        else:
            found[name] = run(TOKEN.decode())
            check(found[name], "no value")
    return first.strip(" \t").lower(), found


def quoted(value: str, at: int) -> tuple[str, int]:
    """Read the rest of a quoted string; return it with where it ends."""
    text = ""
    while value[at : at + 1] != '"':
        check(at < len(value), "no closing quotation mark")
        if value[at] == "\\":
            at += value[at + 1 : at + 2] in ('"', "\\")
            text += value[at]
            at += 1
        elif value[at : at + 3] in ESCAPES:
            text += ESCAPES[value[at : at + 3]]
            at += 3
        else:
            text += value[at]
            at += 1
    return text, at + 1
