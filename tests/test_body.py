"""Bytes -> body, by RequestReader: what a body takes, and what it leaves."""

import random

import pytest

from watchdog_app import CHUNKS_AT_ONCE, MAX_CHUNK_LINE, MAX_FIELDS, RequestReader

SURPLUS = b"GET / HTTP/1.1\r\n"
ROOMY = 1 << 20
LENGTH = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(most=ROOMY, max_head=ROOMY):
    """Make a reader that has taken the head of a chunked body."""
    reader = RequestReader(max_head, most)
    assert reader.receive(CHUNKED) is None
    return reader


def of_length(length):
    """Make a reader that has taken the head of a body whose length was declared."""
    reader = RequestReader(ROOMY, ROOMY)
    assert reader.receive(LENGTH % length) is None
    return reader


def feed(reader, pieces):
    """Let `reader` receive `pieces`; return the first request that this completes or refuses, and what is left behind it."""
    request, rest = None, b""
    for piece in pieces:
        if request is None:
            request = reader.receive(piece)
            while request is None and reader.in_part:
                request = reader.receive(b"")
        else:
            rest += piece
    return request, bytes(reader.buffer) + rest


def slices(raw, length):
    return [raw[start : start + length] for start in range(0, len(raw), length)]


def refusal(raw, length, **limits):
    """Return the status with which a chunked body is refused."""
    request, _ = feed(chunked(**limits), slices(raw, length))
    return request.refusal.status


def assert_body(result, content, rest=SURPLUS):
    request, left = result
    assert request is not None
    assert (request.refusal, request.body, left) == (None, content, rest)


# -- by length --


def test_a_body_of_no_bytes_is_complete_at_once():
    request = RequestReader(ROOMY, ROOMY).receive(LENGTH % 0)
    assert request is not None and request.body == b""


def test_a_length_body_takes_its_bytes_and_no_more():
    assert_body(feed(of_length(5), [b"hello" + SURPLUS]), b"hello")


def test_a_length_body_is_not_complete_before_its_last_byte():
    reader = of_length(5)
    assert reader.receive(b"hell") is None
    assert reader.receive(b"") is None
    assert (reader.waiting, reader.received) == ("body", 4)


@pytest.mark.parametrize("behind_head", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 100, ROOMY])
def test_a_length_body_is_the_same_however_it_is_sliced(length, behind_head):
    content = bytes(range(256))
    if behind_head:
        assert_body(feed(of_length(256), slices(content + SURPLUS, length)), content)
    else:
        assert_body(feed(RequestReader(ROOMY, ROOMY), slices(LENGTH % 256 + content + SURPLUS, length)), content)


# -- in chunks: what is accepted --

ACCEPTED = [
    pytest.param(b"0\r\n\r\n", b"", id="no chunk"),
    pytest.param(b"5\r\nhello\r\n0\r\n\r\n", b"hello", id="one chunk"),
    pytest.param(b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n", b"abcdef", id="three chunks"),
    pytest.param(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, id="hexadecimal in both cases"),
    pytest.param(b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n", b"hello", id="sixteen digits"),
    pytest.param(b"6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", b"\r\n0\r\n\r", id="content like framing"),
    pytest.param(b"3\r\n\x00\n\r\r\n0\r\n\r\n", b"\x00\n\r", id="control bytes in the content"),
    pytest.param(b"5;a=b\r\nhello\r\n0;c\r\n\r\n", b"hello", id="extensions"),
    pytest.param(b'5 \t; a = "b;c"\r\nhello\r\n0\r\n\r\n', b"hello", id="extension with space and quotes"),
    pytest.param(b"5;\xe9\r\nhello\r\n0\r\n\r\n", b"hello", id="extension that is not ascii"),
    pytest.param(b"5;" + b"x" * (MAX_CHUNK_LINE - 2) + b"\r\nhello\r\n0\r\n\r\n", b"hello", id="longest extension"),
    pytest.param(b"5\r\nhello\r\n0\r\nA: b\r\nC:\r\n\r\n", b"hello", id="trailers"),
    pytest.param(
        b"5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n", b"hello", id="framing in the trailers"
    ),
    pytest.param(b"0\r\n" + b"A: b\r\n" * MAX_FIELDS + b"\r\n", b"", id="most trailers"),
]


@pytest.mark.parametrize(("raw", "content"), ACCEPTED)
@pytest.mark.parametrize("surplus", [b"", SURPLUS])
def test_a_chunked_body_received_whole_takes_its_bytes_and_no_more(raw, content, surplus):
    assert_body(feed(RequestReader(ROOMY, ROOMY), [CHUNKED + raw + surplus]), content, surplus)
    assert_body(feed(chunked(), [raw + surplus]), content, surplus)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize(("raw", "content"), ACCEPTED)
def test_a_chunked_body_is_the_same_however_it_is_sliced(raw, content, length):
    assert_body(feed(chunked(), slices(raw + SURPLUS, length)), content)
    assert_body(feed(RequestReader(ROOMY, ROOMY), slices(CHUNKED + raw + SURPLUS, length)), content)


@pytest.mark.parametrize(("raw", "content"), ACCEPTED)
def test_a_chunked_body_is_the_same_wherever_it_is_split(raw, content):
    for point in range(1, len(raw)):
        reader = chunked()
        assert reader.receive(raw[:point]) is None, f"complete after {point} bytes"
        assert_body(feed(reader, [raw[point:] + SURPLUS]), content)


@pytest.mark.parametrize(("raw", "content"), ACCEPTED)
def test_another_request_behind_a_chunked_body_is_read(raw, content):
    for length in (1, 7, ROOMY):
        reader, requests = RequestReader(ROOMY, ROOMY), []
        for piece in slices((CHUNKED + raw) * 2 + SURPLUS + b"Host: a\r\n\r\n", length):
            request = reader.receive(piece)
            while request:
                requests.append(request)
                request = reader.receive(b"")
        assert [(request.method, request.body) for request in requests] == [("POST", content)] * 2 + [("GET", b"")]


def test_content_is_taken_as_it_comes():
    reader = chunked()
    assert reader.receive(b"5\r\nhel") is None
    assert (reader.received, bytes(reader.buffer)) == (3, b"")
    assert reader.receive(b"lo") is None
    assert (reader.received, bytes(reader.buffer)) == (5, b"")


# -- in chunks: what is refused --

REFUSED = [
    pytest.param(b"\r\n", id="no size"),
    pytest.param(b";a\r\n", id="extension alone"),
    pytest.param(b"+5\r\nhello\r\n", id="size with plus"),
    pytest.param(b"-5\r\nhello\r\n", id="size with minus"),
    pytest.param(b"0x5\r\nhello\r\n", id="size with 0x"),
    pytest.param(b"1_0\r\n0123456789abcdef\r\n", id="size with underscore"),
    pytest.param(b"\xb2\r\nhe\r\n", id="superscript"),
    pytest.param(b"g\r\n", id="not hexadecimal"),
    pytest.param(b" 5\r\nhello\r\n", id="space before the size"),
    pytest.param(b"5 \r\nhello\r\n", id="space behind the size"),
    pytest.param(b"5\t\r\nhello\r\n", id="tab behind the size"),
    pytest.param(b"5 5\r\nhello\r\n", id="two sizes"),
    pytest.param(b"5,a\r\nhello\r\n", id="comma behind the size"),
    pytest.param(b"0" * 16 + b"5\r\nhello\r\n", id="seventeen digits"),
    pytest.param(b"5\nhello\r\n", id="size line that ends with LF alone"),
    pytest.param(b"5\r\r\nhello\r\n", id="size line with two CR"),
    pytest.param(b"5\rhello\r\n", id="size line that ends with CR alone"),
    pytest.param(b"5;a\nhello\r\n", id="extension that ends with LF alone"),
    pytest.param(b"5;a\rb\r\nhello\r\n", id="CR in an extension"),
    pytest.param(b"5;a\x00\r\nhello\r\n", id="NUL in an extension"),
    pytest.param(b"5;a\x7f\r\nhello\r\n", id="DEL in an extension"),
    pytest.param(b"5;" + b"x" * (MAX_CHUNK_LINE - 1) + b"\r\nhello\r\n", id="extension too long"),
    pytest.param(b"5;" + b"x" * 1000, id="extension without end"),
    pytest.param(b"5\r\nhelloX\r\n", id="content longer than its size"),
    pytest.param(b"5\r\nhello\n0\r\n\r\n", id="LF alone behind the content"),
    pytest.param(b"5\r\nhello\r0\r\n\r\n", id="CR alone behind the content"),
    pytest.param(b"5\r\nhello\rX0\r\n\r\n", id="CR and another byte behind the content"),
    pytest.param(b"5\r\nhello0\r\n\r\n", id="nothing behind the content"),
    pytest.param(b"5\r\nhello\n\r0\r\n\r\n", id="LF CR behind the content"),
    pytest.param(b"0\r\nno colon\r\n\r\n", id="trailer without colon"),
    pytest.param(b"0\r\n: a\r\n\r\n", id="trailer without name"),
    pytest.param(b"0\r\nA : b\r\n\r\n", id="space before the colon"),
    pytest.param(b"0\r\n A: b\r\n\r\n", id="space before the name"),
    pytest.param(b"0\r\nA: b\r\n c\r\n\r\n", id="folded trailer"),
    pytest.param(b"0\r\nA: b\n\r\n", id="trailer that ends with LF alone"),
    pytest.param(b"0\r\nA: b\rc\r\n\r\n", id="CR in a trailer"),
    pytest.param(b"0\r\nA: \x00\r\n\r\n", id="NUL in a trailer"),
    pytest.param(b"0\r\n\n", id="LF alone at the end"),
    pytest.param(b"0\r\n\r\r\n", id="two CR at the end"),
    pytest.param(b"0\r\nGET / HTTP/1.1\r\n\r\n", id="a request for trailers"),
]


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
@pytest.mark.parametrize("raw", REFUSED)
def test_wrong_framing_is_refused_however_it_is_sliced(raw, length):
    assert refusal(raw + b"0\r\n\r\n" + SURPLUS, length) == 400
    for behind in (b"", SURPLUS):
        request, _ = feed(RequestReader(ROOMY, ROOMY), slices(CHUNKED + raw + b"0\r\n\r\n" + behind, length))
        assert request.refusal.status == 400


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
@pytest.mark.parametrize(
    "raw", [b"4\r\nhello", b"4\r\nhell\n", b"4\r\nhell\rX"], ids=["content", "LF", "CR and content"]
)
def test_the_first_wrong_byte_behind_a_chunk_is_refused_at_once(raw, length):
    assert refusal(raw, length) == 400


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
def test_a_size_line_that_is_too_long_is_refused_before_its_end(length):
    assert refusal(b"5;" + b"x" * MAX_CHUNK_LINE, length) == 400


# -- in chunks: limits --

TEN = b"4\r\nabcd\r\n6\r\nefghij\r\n0\r\n\r\n"


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
def test_a_total_above_the_limit_is_refused(length):
    assert refusal(TEN, length, most=9) == 413
    assert refusal(b"A\r\nabcdefghij\r\n0\r\n\r\n", length, most=9) == 413


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
def test_a_total_at_the_limit_is_accepted(length):
    for raw in (TEN, b"A\r\nabcdefghij\r\n0\r\n\r\n"):
        assert_body(feed(chunked(most=10), slices(raw, length)), b"abcdefghij", b"")


@pytest.mark.parametrize("size", [b"b", b"FFFFFFFF", b"7FFFFFFFFFFFFFFF", b"FFFFFFFFFFFFFFFF"])
def test_a_chunk_above_the_limit_is_refused_before_its_content(size):
    assert refusal(size + b"\r\n", ROOMY, most=10) == 413


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
def test_one_trailer_too_many_is_refused(length):
    assert refusal(b"0\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n", length) == 431


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
@pytest.mark.parametrize(
    "trailers",
    [
        pytest.param(b"A: " + b"x" * 1000 + b"\r\n", id="one long trailer"),
        pytest.param(b"A: " + b"x" * 1000, id="one without end"),
        pytest.param(b"A: 34567890\r\n" * 9, id="many short ones"),
    ],
)
def test_trailers_of_more_bytes_than_a_head_may_have_are_refused(trailers, length):
    assert refusal(b"0\r\n" + trailers + b"\r\n", length, max_head=100) == 431


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
def test_trailers_within_the_room_are_accepted(length):
    assert_body(feed(chunked(max_head=100), slices(b"0\r\n" + b"A: 4567\r\n" * 11 + b"\r\n", length)), b"", b"")


# -- many small chunks --


def small_chunks(seed, count, most):
    """Make a body of many small chunks, their sizes written in all ways; return it with its content."""
    choice, raw, content = random.Random(seed), b"", b""
    for _ in range(count):
        piece = choice.randbytes(choice.randint(1, most))
        line = choice.choice(("%x", "%X", "%x", "%02x", "%016X", "%x;a=b" if most > 15 else "%x")) % len(piece)
        raw, content = raw + line.encode() + b"\r\n" + piece + b"\r\n", content + piece
    return raw + b"0\r\n\r\n", content


@pytest.mark.parametrize("length", [1, 100, 1000, ROOMY])
@pytest.mark.parametrize("most", [1, 2, 15, 16, 20])
def test_many_small_chunks_are_the_same_however_they_are_sliced(most, length):
    raw, content = small_chunks(most, 3000, most)
    assert_body(feed(chunked(), slices(raw + SURPLUS, length)), content)


@pytest.mark.parametrize("most", [1, 15, 20])
def test_one_wrong_byte_among_small_chunks_has_the_same_outcome_however_they_are_sliced(most):
    raw, content = small_chunks(most, 200, most)
    for seed in range(300):
        choice = random.Random(seed)
        wrong, at = bytearray(raw), choice.randrange(len(raw))
        wrong[at] = choice.choice(b"01f;\r\nx \xff")
        assert outcome(wrong, len(content), ROOMY) == outcome(wrong, len(content), 1), (seed, at)


def outcome(raw, most, length):
    """Return what becomes of a body: its content and what is left behind it, or the status of its refusal."""
    reader = chunked(most)
    request, rest = feed(reader, slices(bytes(raw), length))
    if request is None:
        return reader.received, rest
    return (request.body, rest) if request.refusal is None else request.refusal.status


@pytest.mark.parametrize(
    "chunk", [b"1\r\nx\r\n", b"1;a\r\nx\r\n", b"10\r\n0123456789abcdef\r\n"], ids=["tiny", "extension", "small"]
)
def test_chunks_are_taken_a_number_at_once(chunk):
    reader, raw = chunked(), chunk * 50_000
    assert reader.receive(raw) is None
    for turns in range(1, 4):
        assert reader.in_part
        assert len(raw) - len(reader.buffer) == turns * CHUNKS_AT_ONCE * len(chunk)
        assert reader.receive(b"") is None


def test_large_chunks_are_taken_all_at_once():
    reader, raw = chunked(), b"400\r\n" + b"x" * 1024 + b"\r\n"
    assert reader.receive(raw * 64) is None
    assert (reader.in_part, reader.received, bytes(reader.buffer)) == (False, 65536, b"")


def test_chunks_that_end_with_a_turn_are_not_taken_for_more():
    reader = chunked()
    assert reader.receive(b"1\r\nx\r\n" * CHUNKS_AT_ONCE) is None
    assert not reader.in_part
