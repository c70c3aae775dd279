"""Bytes -> body: what each takes, and what it leaves."""

import random

import pytest

from watchdog_app import CHUNKS_AT_ONCE, MAX_CHUNK_LINE, MAX_FIELDS, ChunkedBody, HTTPError, LengthBody

SURPLUS = b"GET / HTTP/1.1\r\n"
ROOMY = 1 << 20


def chunked(most=ROOMY, trailer_room=ROOMY):
    return ChunkedBody(most, trailer_room)


def feed(body, pieces):
    """Feed `pieces` as they arrive, what was left of one before the next; return what is left at the end."""
    rest = b""
    for piece in pieces:
        rest += piece
        rest = rest[body.feed(rest) :]
        while body.in_part and rest and not body.complete:
            rest = rest[body.feed(rest) :]
    return rest


def slices(raw, length):
    return [raw[start : start + length] for start in range(0, len(raw), length)]


def refusal(raw, length, **limits):
    """Return the status with which a chunked body is refused."""
    with pytest.raises(HTTPError) as caught:
        feed(chunked(**limits), slices(raw, length))
    return caught.value.status


# -- LengthBody --


def test_a_body_of_no_bytes_is_complete_at_once():
    assert LengthBody(0).complete


def test_a_length_body_takes_its_bytes_and_no_more():
    body = LengthBody(5)
    assert body.feed(b"hello" + SURPLUS) == 5
    assert (body.data.getvalue(), body.complete) == (b"hello", True)
    assert body.feed(SURPLUS) == 0
    assert body.data.getvalue() == b"hello"


def test_a_length_body_is_not_complete_before_its_last_byte():
    body = LengthBody(5)
    assert body.feed(b"hell") == 4
    assert not body.complete
    assert body.feed(b"") == 0
    assert not body.complete


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 100])
def test_a_length_body_is_the_same_however_it_is_sliced(length, kind):
    content = bytes(range(256))
    body = LengthBody(256)
    assert feed(body, map(kind, slices(content + SURPLUS, length))) == SURPLUS
    assert (body.data.getvalue(), body.complete) == (content, True)


def test_what_was_fed_to_a_length_body_is_left_as_it_was():
    data = bytearray(b"hello" + SURPLUS)
    LengthBody(5).feed(data)
    assert data == b"hello" + SURPLUS


# -- ChunkedBody: what is accepted --

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


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize(("raw", "content"), ACCEPTED)
def test_a_chunked_body_fed_whole_takes_its_bytes_and_no_more(raw, content, kind):
    body = chunked()
    data = kind(raw + SURPLUS)
    assert body.feed(data) == len(raw)
    assert (body.data.getvalue(), body.complete) == (content, True)
    assert body.feed(SURPLUS) == 0
    assert data == raw + SURPLUS


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize(("raw", "content"), ACCEPTED)
def test_a_chunked_body_is_the_same_however_it_is_sliced(raw, content, length):
    body = chunked()
    assert feed(body, slices(raw + SURPLUS, length)) == SURPLUS
    assert (body.data.getvalue(), body.complete) == (content, True)


@pytest.mark.parametrize(("raw", "content"), ACCEPTED)
def test_a_chunked_body_is_the_same_wherever_it_is_split(raw, content):
    for point in range(1, len(raw)):
        body = chunked()
        rest = feed(body, [raw[:point]])
        assert not body.complete, f"complete after {point} bytes"
        assert feed(body, [rest + raw[point:] + SURPLUS]) == SURPLUS
        assert (body.data.getvalue(), body.complete) == (content, True)


def test_content_is_taken_as_it_comes():
    body = chunked()
    assert body.feed(b"5\r\nhel") == 6
    assert body.data.getvalue() == b"hel"
    assert body.feed(b"lo") == 2
    assert body.data.getvalue() == b"hello"


# -- ChunkedBody: what is refused --

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


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
def test_a_size_line_that_is_too_long_is_refused_before_its_end(length):
    assert refusal(b"5;" + b"x" * MAX_CHUNK_LINE, length) == 400


# -- ChunkedBody: limits --

TEN = b"4\r\nabcd\r\n6\r\nefghij\r\n0\r\n\r\n"


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
def test_a_total_above_the_limit_is_refused(length):
    assert refusal(TEN, length, most=9) == 413


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
def test_a_total_at_the_limit_is_accepted(length):
    body = chunked(most=10)
    assert feed(body, slices(TEN, length)) == b""
    assert body.data.getvalue() == b"abcdefghij"


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
    assert refusal(b"0\r\n" + trailers + b"\r\n", length, trailer_room=100) == 431


@pytest.mark.parametrize("length", [1, 2, 3, 7, ROOMY])
def test_trailers_within_the_room_are_accepted(length):
    body = chunked(trailer_room=100)
    assert feed(body, slices(b"0\r\n" + b"A: 4567\r\n" * 11 + b"\r\n", length)) == b""
    assert body.complete


# -- many small chunks --


def small_chunks(seed, count, most):
    """Make a body of many small chunks, their sizes written in all ways; return it with its content."""
    choice, raw, content = random.Random(seed), b"", b""
    for _ in range(count):
        piece = choice.randbytes(choice.randint(1, most))
        line = choice.choice(("%x", "%X", "%x", "%02x", "%016X", "%x;a=b" if most > 15 else "%x")) % len(piece)
        raw, content = raw + line.encode() + b"\r\n" + piece + b"\r\n", content + piece
    return raw + b"0\r\n\r\n", content


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("length", [1, 100, 1000, ROOMY])
@pytest.mark.parametrize("most", [1, 2, 15, 16, 20])
def test_many_small_chunks_are_the_same_however_they_are_sliced(most, length, kind):
    raw, content = small_chunks(most, 3000, most)
    body = chunked()
    assert feed(body, [kind(piece) for piece in slices(raw + SURPLUS, length)]) == SURPLUS
    assert (body.data.getvalue(), body.complete) == (content, True)


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
    body = chunked(most)
    try:
        rest = feed(body, slices(bytes(raw), length))
        return body.data.getvalue(), body.complete, rest
    except HTTPError as error:
        return error.status


@pytest.mark.parametrize(
    "chunk", [b"1\r\nx\r\n", b"1;a\r\nx\r\n", b"10\r\n0123456789abcdef\r\n"], ids=["tiny", "extension", "small"]
)
def test_chunks_are_taken_a_number_at_once(chunk):
    body, raw = chunked(), chunk * 50_000
    taken = body.feed(raw)
    assert body.in_part
    assert len(chunk) * CHUNKS_AT_ONCE / 4 <= taken <= max(40_000, len(chunk) * CHUNKS_AT_ONCE)


def test_large_chunks_are_taken_all_at_once():
    body, raw = chunked(), b"400\r\n" + b"x" * 1024 + b"\r\n"
    assert body.feed(raw * 64) == len(raw) * 64
    assert not body.in_part
