"""Parse forms, made wrong in many ways; hold what the module makes of them against a strict reading of the same bytes.

python tests/fuzz_multipart.py --seconds 60 --seed 1
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter

from fuzz_requests import (
    Finding,
    arguments,
    bare_end,
    change_case,
    cut,
    delete,
    double_line,
    drop_line,
    duplicate,
    flip,
    fold,
    fuzz,
    minimal,
    position,
    put_byte,
    random_of,
    repeat,
    swap_lines,
)
from strict_multipart import Part, RefusedError, read_parts

import watchdog_app

TYPE = 'multipart/form-data; boundary="{}"'
BOUNDARIES = ["b", "-", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "-" * 70, "a" * 70, "a:=?,/ b", "'()+_,-./:=?", "0 0"]


def part(disposition: str, content: str = "x", *headers: str) -> str:
    return "\r\n".join([f"Content-Disposition: form-data{disposition}", *headers, "", content])


def body(*parts: str, before: str = "", after: str = "\r\n") -> str:
    """Make a body whose boundary is B."""
    return before + "".join(f"--B\r\n{each}\r\n" for each in parts) + "--B--" + after


A, FILE = part('; name="a"'), part('; name="f"; filename="f.bin"', "\x00\xff\r\n\r\n--\r\n", "Content-Type: image/png")
GOOD = [
    body(A),
    body(A, FILE, A),
    body(FILE, after=""),
    body(),  # what a browser makes of a form without fields
    body(A, before="This is a preamble, --B it is\r\n"),
    body(A, before="\r\n"),
    body(A, after="\r\nThis is an epilogue\r\n--B\r\n--Bx"),
    body(A, after=" \t"),
    body(A, after=" \t\r\n--B--"),
    body(A).replace("--B\r\n", "--B \t \r\n"),
    body(part('; name="a"', "")),
    body(part('; name="a"', "")).replace("\r\n\r\n\r\n", "\r\n\r\n"),  # the empty line ends in what begins the delimiter
    body(part('; name="a"', "\r\n")),
    body(part('; name="a"', "--\r\n-\r\n\r\n--b\r\n --B\r\n\n--B\r\r--B--")),
    body(part('; NAME="a"; FileName=x')),
    body(part('; name=""; filename=""', "")),
    body(part("; name=a" + ";" * 9)),
    body(part(';name=a\t ;\t;; other="x;\\y"; ')),
    body(part('; name="a\\"b\\\\c\\d%22e%0D%0Af%0d%0D%41%"')),
    body(part('; name="\xc3\xbc"; filename="\xe2\x82\xac \xff"')),
    body(part("; name=\"a\"; filename=\"b\"; filename*=UTF-8''c")),
    body(part('; name="a"', "x", "Content-Transfer-Encoding: 8BIT", "Content-Length: 99", "X_Y: z", "Empty:")),
    body(part('; name="a"', "x", *(f"X-{number}: y" for number in range(9)))),
    body(part('; name="a"', "x", "X: " + "y" * 4051)),
    body(*[part('; name="a"', str(number)) for number in range(20)]),
    body(A).replace("form-data", "\tFORM-data \t"),
]  # fmt: skip
BAD = [
    "", "--B", "--B\r\n", "--B--x", "--B-", "\r\n\r\n", "B--", " --B--",
    body(A).replace("--B--", "--B"),
    body(A).replace("--B--", "--B- -"),
    body(A, after="x"),
    body(A, after=" \r"),
    body(A, after="\n"),
    body(A, after=" x\r\n--B--"),
    body(A, before="x"),
    body(A, before="\n"),
    body(A, before="--Bx\r\n"),
    body(A).replace("\r\n", "\n"),
    body(A).replace("\r\n", "\r"),
    body(A).replace("x\r\n--B", "x\n--B"),
    body(part('; name="a"', "x\r\n--Bx")),
    body(part('; name="a"', "x\r\n--B --")),
    "--B\r\n--B--\r\n",
    body(""),
    body("\r\nx"),
    body("x"),
    body('Content-Disposition: form-data; name="a"'),
    body("Content-Type: text/plain\r\n\r\nx"),
    body('Content-Disposition: attachment; name="a"\r\n\r\nx'),
    body('Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"\r\n\r\nx'),
    body('Content-Disposition: form-data; name="a\r\nContent-Disposition: b"\r\n\r\nx'),
    *(body(part(disposition)) for disposition in (
        "", ";", "; name", "; name=", "; name= a", '; name ="a"', '; name="a', '; name="a\\"', '; name=a"', '; name="a"b', '; name="a"; name="a"',
        '; filename="a"', '; name="a", b', "; name=a b", "; na\xc3\xbc=a", "; name=\xc3\xbc", "; name=a" + ";" * 10, "; name*=UTF-8''a", '; name="a"; name*0="b" x')),
    *(body(part('; name="a"', "x", header)) for header in (
        "X", ": x", "X : y", " X: y", "X: y\x00", "X: \ry", "X: \ny", "\xc3\xbc: x", "Content-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: quoted-printable", "Content-Transfer-Encoding:", "X: y\r\n folded", "X: y\r\nx: y", "X: " + "y" * 4052)),
    body(part('; name="a"', "x", *(f"X-{number}: y" for number in range(10)))),
]  # fmt: skip
TYPES = ["boundary={}", 'BOUNDARY="{}"', '{}', 'boundary={};', 'charset=utf-8; boundary="{}"', 'boundary="{}"; boundary="{}"', 'boundary="{} "', 'boundary=""']  # fmt: skip
PIECES = [
    b"\r\n", b"\r\n\r\n", b"--", b"--B", b"\r\n--B", b"\r\n--B--", b"--B\r\n", b"B", b" ", b"\t", b'"', b"\\", b";", b"=", b"%22", b"%0D",
    b"name", b"filename", b"; name=a", b'; filename="x"', b"Content-Disposition: form-data", b"\r\nContent-Type: a/b", b"\xc3", b"\x00",
]  # fmt: skip


def put(rng: random.Random, data: bytes) -> bytes:
    at = position(rng, data)
    return data[:at] + rng.choice(PIECES) + data[at:]


def splice(rng: random.Random, data: bytes) -> bytes:
    other = rng.choice(GOOD).encode("latin-1")
    return data[: position(rng, data)] + other[position(rng, other) :]


MUTATORS = (
    flip, put, put, put, put_byte, delete, duplicate, repeat, swap_lines, double_line, drop_line, change_case, fold, bare_end, splice, splice, cut,
)  # fmt: skip


def make_input(rng: random.Random) -> tuple[bytes, str]:
    """Make a body and its Content-Type: a seed, made wrong not at all, once or several times."""
    data = rng.choice(GOOD if rng.random() < 0.9 else BAD).encode("latin-1")
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        data = rng.choice(MUTATORS)(rng, data)
    boundary, kind = rng.choice(BOUNDARIES), TYPE
    if rng.random() < 0.1:
        kind = "multipart/form-data; " + rng.choice(TYPES)
    return data[:100_000].replace(b"--B", b"--" + boundary.encode()), kind.replace("{}", boundary)


def parse(data: bytes, content_type: str) -> list[Part] | str:
    """Return what the module makes of a body: its parts, or the refusal."""
    try:
        parts = watchdog_app.parse_multipart(data, content_type)
    except watchdog_app.HTTPError as error:
        assert error.status in (400, 413) and str(error.body).isascii() and len(str(error.body)) < 300
        return f"refused: {error.body}"
    return [
        Part(
            name,
            part.filename if is_file else None,
            {key.lower(): value for key, value in part.headers.items()},
            part.getvalue(),
        )
        for name, is_file, part in parts
    ]


def difference(data: bytes, content_type: str) -> str:
    """Say how the module and the strict reading differ, "" if they do not."""
    parts = parse(data, content_type)
    try:
        strict = read_parts(data, content_type)
    except RefusedError as error:
        return "" if isinstance(parts, str) else f"accepted: {parts}, and strictly {error}"
    if len(strict) > watchdog_app.MAX_PARAMETERS and isinstance(parts, str):
        return ""
    return "" if parts == strict else f"differs: {parts} instead of {strict}"


class MultipartFuzzer:
    """Inputs for parse_multipart."""

    def __init__(self, seed: int) -> None:
        self.seed, self.number = seed, 0
        self.ends: Counter[str] = Counter()  # how many inputs were accepted, refused, and had a file

    def step(self) -> Finding | None:
        """Try the next input."""
        number = self.number
        data, content_type = make_input(random_of(self.seed, number))
        self.number += 1
        parts = parse(data, content_type)
        self.ends["refused" if isinstance(parts, str) else "accepted"] += 1
        self.ends["file"] += not isinstance(parts, str) and any(part.filename for part in parts)
        if not difference(data, content_type):
            return None
        raw = minimal(data, lambda shorter: difference(shorter, content_type) != "")
        return Finding(self.seed, number, f"{content_type}: {difference(raw, content_type)}", raw)


def main() -> int:
    options = arguments(str(__doc__).partition("\n")[0])
    fuzzer = MultipartFuzzer(options.seed)
    _, findings = fuzz("multipart", fuzzer.step, time.monotonic() + options.seconds)
    print(f"seed {options.seed}: {fuzzer.number} bodies, {findings} findings; {dict(fuzzer.ends)}", flush=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
