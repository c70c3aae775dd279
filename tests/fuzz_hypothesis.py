"""Let hypothesis make inputs and shrink those that fail; hold the requests among them against h11 as well.

    make fuzz-hypothesis SECONDS=60 SEED=1

The seeds, the generators and the strict readings are those of the other fuzzers: hypothesis chooses for them, and edits
what they make. It needs tests/requirements-fuzz.txt.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import h11
from fuzz_multipart import difference as form_difference
from fuzz_multipart import make_input as make_form
from fuzz_requests import PIECES, SEEDS, arguments, difference, make_input
from fuzz_results import result_fuzzer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from strict_reading import Limits, Reading, read_requests

LIMITS = Limits()
ROUND = 200  # inputs between two looks at the clock

# -- inputs --

randoms = st.randoms(use_true_random=False)  # whose every choice hypothesis makes, and shrinks
edits = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 4), st.sampled_from(PIECES) | st.binary(max_size=2)), max_size=3
)


def edited(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Replace `length` bytes at each position by other ones."""
    for at, length, piece in changes:
        data = data[:at] + piece + data[at + length :]
    return data


streams = randoms.map(make_input) | st.builds(edited, st.lists(st.sampled_from(SEEDS), max_size=2).map(b"".join), edits)
lengths = st.lists(st.sampled_from((1, 2, 3, 7, 40, 300)), min_size=1, max_size=3).map(tuple)

# -- the third opinion --


class Heard(NamedTuple):
    """What h11 made of the bytes of one connection."""

    messages: list[tuple[str, str, list[tuple[str, str]], bytes]]
    end: str  # "refused", "open" or "closed"
    why: str


def read_with_h11(data: bytes) -> Heard:
    """Let h11 read `data`, and refuse each request, since a 200 to CONNECT would end the reading."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    if data:  # none would be the end
        connection.receive_data(data)
    messages: list[Any] = []
    try:
        while message := next_message(connection):
            messages.append(message)
            connection.send(h11.Response(status_code=403, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                return Heard(messages, "closed", "")
            connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return Heard(messages, "refused", str(error))
    return Heard(messages, "open", "")


def next_message(connection: h11.Connection) -> tuple[str, str, list[tuple[str, str]], bytes] | None:
    """Return the next whole request, None where it is not whole."""
    request, body = None, b""
    while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        if isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and request:
            fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
            return request.method.decode(), request.target.decode(), fields, bytes(body)
    return None


# Where one refuses what the other one reads: the rule, and what the request looks like that it applies to. What both
# accept has to be equal to the last byte.
FIELD = rb"\n(?i:%s):"  # without what is before it: a search is linear
STRICTER = {  # we refuse, h11 reads on
    "LF alone ends a line: a recipient may recognise it, RFC 9112 §2.2": rb"(?<!\r)\n",
    "a folded line: to be refused or replaced, RFC 9112 §5.2": rb"\n[ \t]",
    "a control character: to be refused or replaced, RFC 9110 §5.5": rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)",
    "`#` in a target: in none of its forms, RFC 9112 §3.2": rb"^[^ ]+ [^ ]*#",
    "a target of another form than its method's: RFC 9112 §3.2": rb"^(?!OPTIONS \*)[^ ]+ (?!/|(?i:https?://))",
    "a target's authority that is none: RFC 9110 §4.2.1": rb"^[^ ]+ (?i:https?)://",
    "Transfer-Encoding in HTTP/1.0: faulty framing, RFC 9112 §6.1": rb"^[^\n]* HTTP/1.0\r(?s:.*)" + FIELD % rb"transfer-encoding",
    "two lengths or both framings: may be refused, RFC 9112 §6.1, §6.3": FIELD % rb"content-length" + rb"(?s:.*)(\n(?i:transfer-encoding|content-length):|,)",
    "both framings: may be refused, RFC 9112 §6.1": FIELD % rb"transfer-encoding" + rb"(?s:.*)\n(?i:content-length):",
    "a chunk's size of 17 digits: our limit": rb"\n[0-9A-Fa-f]{17}",
    "a chunk's line of 256 bytes: our limit": rb"\n[0-9A-Fa-f]+;[^\n]{200}",
    "white space behind a chunk's size: not in the grammar, RFC 9112 §7.1": rb"\n[0-9A-Fa-f]+[ \t]+\r",
    "a length of 20 digits: our limit": FIELD % rb"content-length" + rb"[ \t]*[0-9]{20}",
    "HTTP/1.2 or later without Host: h11 asks HTTP/1.1 alone for it, RFC 9112 §3.2": rb"^[^\n]* HTTP/1\.[2-9]\r(?!(?s:.*)" + FIELD % rb"host" + rb")",
    "Host that is no authority: RFC 9112 §3.2": FIELD % rb"host",
}  # fmt: skip
LOOSER = {  # h11 refuses, for the reason given, and we read on
    "an empty line before a request: to be ignored, RFC 9112 §2.2": "no request line received",
    "white space before a chunk's extension: to be accepted, RFC 9112 §7.1.1": r"illegal chunk header: .*'[0-9A-Fa-f]+( |\\t)+;",
    "a framing field among trailers: not to be merged, RFC 9110 §6.5.1": "Only Transfer-Encoding|multiple Transfer|bad Content-Length|conflicting",
    "HTTP/1.0 that is to stay open: may be supported, RFC 9112 §9.3": "closed",
}  # fmt: skip


def h11_difference(data: bytes, seen: Counter[str]) -> str:
    """Say how a strict reading and h11 differ, but by a rule of the tables; "" where they do not."""
    strict, heard = read_requests(data, LIMITS), read_with_h11(data)
    ours = [comparable(each.method, each.target, each.headers, each.body) for each in strict.messages]
    theirs = [comparable(*message) for message in heard.messages]
    both = min(len(ours), len(theirs))
    if ours[:both] != theirs[:both]:
        return f"h11 reads {theirs} instead of {ours}"
    end = {"incomplete": "open", "between": "open"}.get(strict.end, strict.end)
    if (len(ours), end) == (len(theirs), heard.end):
        seen["equal"] += 1
        return ""
    return explained(data, strict, heard, seen)


def comparable(method: str, target: str, fields: list[tuple[str, str]], body: bytes) -> tuple[Any, ...]:
    """Return a message in the form that h11 gives it."""
    lower = [(name.lower(), value) for name, value in fields]
    return (
        method,
        target,
        [(name, value.lower() if name == "transfer-encoding" else value) for name, value in lower],
        body,
    )


def explained(data: bytes, strict: Reading, heard: Heard, seen: Counter[str]) -> str:
    """Count the rule by which two readings differ; say how they do if there is none."""
    closed = heard.end == "closed" and len(strict.messages) == len(heard.messages)
    refused = strict.end == "refused" and len(strict.messages) <= len(heard.messages) and not closed
    if refused and strict.statuses - {400}:
        rules = ["what we do not serve: a limit, a method, a coding, a version or an expectation"]
    elif refused:
        rules = [rule for rule, form in STRICTER.items() if re.search(form, data[strict.start :])]
    elif strict.end == "incomplete" and heard.why.startswith("illegal request line"):
        rules = ["a line that has not ended: its fault may be told when it has"]
    else:
        rules = [rule for rule, why in LOOSER.items() if re.search(why, heard.why or heard.end)]
    seen[rules[0] if rules else "FINDING"] += 1
    return "" if rules else f"h11 makes {heard} of what is strictly {strict}"


# -- the properties --


def properties(seen: Counter[str], result_step: Callable[..., Any]) -> dict[str, Callable[[], None]]:
    """Return what has to hold, by name; hypothesis makes the arguments."""

    @given(streams, lengths)
    def requests(data: bytes, sizes: tuple[int, ...]) -> None:
        sizes = tuple(max(size, len(data) // 100) for size in sizes)
        assert (what := difference(data, sizes, LIMITS)) == "", what

    @given(streams)
    def h11_requests(data: bytes) -> None:
        assert (what := h11_difference(data, seen)) == "", what

    @given(randoms.map(make_form))
    def forms(form: tuple[bytes, str]) -> None:
        assert (what := form_difference(*form)) == "", what

    @given(randoms)
    def results(rng: Any) -> None:
        assert (finding := result_step(rng)) is None, str(finding)

    return {each.__name__: each for each in (requests, h11_requests, forms, results)}


def hold(name: str, test: Callable[[], None], number: int, examples: int) -> int:
    """Let hypothesis try so many inputs; print the smallest that fails; return the number of failures."""
    options = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    try:
        seed(number)(options(test))()
    except Exception as error:
        print(f"FINDING {name}, seed {number}: {error}", *getattr(error, "__notes__", ()), sep="\n  ", flush=True)
        return 1
    return 0


def main() -> int:
    options = arguments(str(__doc__).partition("\n")[0])
    end, number, findings = time.monotonic() + options.seconds, options.seed, 0
    seen: Counter[str] = Counter()
    with result_fuzzer(options.seed) as (_, step):
        while time.monotonic() < end and findings < 10:
            for name, test in properties(seen, step).items():
                findings += hold(name, test, number, ROUND)
            number += 1
    print(
        f"seeds {options.seed} to {number - 1}: {(number - options.seed) * ROUND} inputs of each kind, {findings} findings"
    )
    for rule, times in seen.most_common():
        print(f"{times:7} {rule}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
