"""Files that `handle` returns: their length, the conditions of a request (RFC 9110 §13), and one range (§14)."""
# ruff: noqa: SIM115 (the runtime closes them)

from __future__ import annotations

import functools
import gzip
import io
import os
import re
import subprocess
import tempfile
import time
from email.utils import parsedate_to_datetime

import pytest
from conftest import call, serving

CONTENT = bytes(range(256)) * 1000
OLD = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.fixture
def path(tmp_path):
    """A file that has not changed for long."""
    return made(tmp_path, CONTENT)


def made(folder, content, changed=OLD):
    path = folder / "file"
    path.write_bytes(content)
    os.utime(path, (changed, changed))
    return path


def sending(path, *rest, at=0, mode="rb"):
    """Return a handle that returns the file."""

    def handle(event, context):
        file = open(path, mode)
        file.seek(at)
        return (file, *rest) if rest else file

    return handle


def get(handle, method="GET", **headers):
    """Call a function with some header fields, and check what any of its responses must be."""
    answer = call(handle, method, **{f"HTTP_{name}".upper(): value for name, value in headers.items()})
    if answer.status != 304 and method != "HEAD":
        assert answer.header("Content-Length") in (None, str(len(answer.body)))
    return answer


# -- length and position --


@pytest.mark.parametrize("content", [b"x", CONTENT], ids=["small", "large"])
@pytest.mark.parametrize("buffering", [-1, 0], ids=["buffered", "raw"])
def test_a_file_has_a_length(content, buffering, tmp_path):
    path = made(tmp_path, content)
    answer = get(lambda event, context: open(path, "rb", buffering))
    assert (answer.status, answer.body, answer.header("Content-Length")) == (200, content, str(len(content)))
    assert answer.header("Content-Type") == "application/octet-stream"


def test_a_file_goes_over_the_wire_in_one_piece_and_the_connection_stays(path):
    with serving(sending(path)) as server:
        request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        data = server.talk(request * 2)
    assert data.count(b"HTTP/1.1 200 OK") == data.count(b"Content-Length: 256000\r\n") == 2
    assert data.count(CONTENT) == 2 and b"chunked" not in data


def test_the_head_of_a_file_is_that_of_its_get(path):
    with serving(sending(path)) as server:
        head, whole = server.request("HEAD"), server.get()
    dated = {"Date"}
    assert [pair for pair in head.headers if pair[0] not in dated] == [
        pair for pair in whole.headers if pair[0] not in dated
    ]
    assert (head.body, head.header("Content-Length")) == (b"", "256000")


@pytest.mark.parametrize(("at", "left"), [(1, CONTENT[1:]), (255_999, b"\xff"), (256_000, b""), (300_000, b"")])
def test_what_is_sent_is_what_is_left_to_read(at, left, path):
    assert get(sending(path, at=at)).body == left


def test_a_file_that_has_been_read_in_part_is_sent_from_there(path):
    def handle(event, context):
        file = open(path, "rb")
        assert file.read(3) == CONTENT[:3]
        return file

    assert get(handle).body == CONTENT[3:]
    assert get(handle, range="bytes=1-2").header("Content-Range") == "bytes 1-2/255997"
    assert get(handle, range="bytes=1-2").body == CONTENT[4:6]
    assert get(handle).header("ETag") != get(sending(path)).header("ETag")


def test_a_file_that_was_written_is_sent(tmp_path):
    def handle(event, context):
        file = open(tmp_path / "new", "w+b")
        file.write(b"abc")
        file.seek(0)
        return file

    assert (get(handle).body, get(handle).header("Content-Length")) == (b"abc", "3")


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile], ids=lambda make: make.__name__)
def test_a_temporary_file_has_a_length(make):
    def handle(event, context):
        file = make()
        file.write(b"abc")
        file.seek(1)
        return file

    answer = get(handle)
    assert (answer.body, answer.header("Content-Length")) == (b"bc", "2")


def piped(data):
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return open(reader, "rb")


@pytest.mark.parametrize(
    ("opened", "body"),
    [
        pytest.param(
            lambda path: open(path, encoding="latin-1", newline=""), CONTENT.decode("latin-1").encode(), id="text"
        ),
        pytest.param(lambda path: io.BytesIO(CONTENT), CONTENT, id="in memory"),
        pytest.param(lambda path: gzip.open(path), CONTENT, id="gzip"),
        pytest.param(lambda path: io.BufferedReader(gzip.open(path)), CONTENT, id="gzip, buffered"),
        pytest.param(lambda path: open("/proc/self/status", "rb"), re.compile(rb"Name:\t.*\n", re.DOTALL), id="/proc"),
        pytest.param(lambda path: open(os.open(os.devnull, os.O_RDONLY), "rb"), b"", id="device"),
        pytest.param(lambda path: made(path.parent, b"").open("rb"), b"", id="empty"),
        pytest.param(lambda path: piped(b"x\n"), b"x\n", id="pipe"),
    ],
)
def test_other_files_are_streams_without_length_range_and_conditions(opened, body, tmp_path, request):
    if "gzip" in request.node.name:
        path = made(tmp_path, gzip.compress(CONTENT))
    else:
        path = made(tmp_path, CONTENT)
    answer = get(lambda event, context: opened(path), range="bytes=0-0", if_none_match="*")
    assert answer.status == 200
    assert [answer.header(name) for name in ("Content-Length", "ETag", "Last-Modified", "Accept-Ranges")] == [None] * 4
    assert body.match(answer.body) if isinstance(body, re.Pattern) else answer.body == body


@pytest.mark.parametrize(
    "opened",
    [
        pytest.param(lambda path: open(path, "ab"), id="at its end, cannot be read"),
        pytest.param(lambda path: open(os.open(path, os.O_WRONLY), "wb"), id="cannot be read"),
        pytest.param(lambda path: [file := open(path, "rb"), file.close()][0], id="closed"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_500(opened, path, log):
    assert get(lambda event, context: opened(path)).status == 500
    assert "Traceback" in log.getvalue()


class Changing:
    """A wrapper of a file, as those of tempfile are, that changes the file once its reading has begun."""

    def __init__(self, file, change):
        self.raw, self.file, self.change, self.reads = file.raw, file, change, 0

    def __getattr__(self, name):
        self.reads += name == "read"
        if self.reads == 2:
            self.change()
        return getattr(self.file, name)


@pytest.mark.parametrize("asked", ["", "bytes=10-"])
def test_a_file_that_shrinks_is_a_response_that_is_cut(asked, path, log):
    def handle(event, context):
        return Changing(open(path, "rb"), lambda: os.truncate(path, 200_000))

    with serving(handle) as server:
        data = server.talk(f"GET / HTTP/1.1\r\nHost: a\r\nRange: {asked}\r\n\r\n".encode())
    head, _, body = data.partition(b"\r\n\r\n")
    assert int(re.search(rb"Content-Length: ([0-9]+)", head)[1]) > len(body) > 0
    assert "Content-Length" in log.getvalue()


def test_a_file_that_grows_is_sent_as_it_was(path):
    def grow():
        with open(path, "ab") as file:
            file.write(b"more")

    assert get(lambda event, context: Changing(open(path, "rb"), grow)).body == CONTENT
    assert path.stat().st_size > len(CONTENT)


# -- who closes it --


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("HEAD", {}, 200),
        ("GET", {"Range": "bytes=0-0"}, 206),
        ("GET", {"Range": "bytes=999999-"}, 416),
        ("GET", {"If-None-Match": "*"}, 304),
        ("HEAD", {"If-None-Match": "*"}, 304),
    ],
)
def test_the_file_is_closed(method, headers, status, path):
    files = []

    def handle(event, context):
        files.append(open(path, "rb"))
        return files[0]

    with serving(handle) as server:
        assert server.request(method, **headers).status == status
    assert files[0].closed


# -- validators and conditions --


def test_a_file_has_an_etag_and_a_date(path):
    answer = get(sending(path))
    assert re.fullmatch('"[0-9a-f]+-3e800"', answer.header("ETag"))
    assert (answer.header("Last-Modified"), answer.header("Accept-Ranges")) == (DATE, "bytes")


def test_another_content_has_another_etag(tmp_path):
    etags = {
        get(sending(made(tmp_path, content, changed))).header("ETag") for content in (b"x", b"xy") for changed in (1, 2)
    }
    assert len(etags) == 4


def test_the_date_of_a_file_is_never_to_come(tmp_path):
    path = made(tmp_path, CONTENT, time.time() + 3600)
    before = time.time()
    answer = get(sending(path))
    assert int(before) <= parsedate_to_datetime(answer.header("Last-Modified")).timestamp() <= time.time()


def etag_of(path):
    return get(sending(path)).header("ETag")


@pytest.mark.parametrize(
    ("known", "status"),
    [
        pytest.param("{}", 304, id="this one"),
        pytest.param("W/{}", 304, id="this one, weak"),
        pytest.param('"a,b", {}', 304, id="one of two"),
        pytest.param('W/"a" ,\t{},', 304, id="in odd spaces"),
        pytest.param("*", 304, id="any"),
        pytest.param('"x"', 200, id="another one"),
        pytest.param("", 200, id="none"),
        pytest.param("*, *", 200, id="no list"),
        pytest.param('"', 200, id="half an etag"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match(known, status, method, path):
    answer = get(sending(path, {"Cache-Control": "no-cache"}), method, if_none_match=known.format(etag_of(path)))
    assert answer.status == status
    assert (answer.header("ETag"), answer.header("Cache-Control")) == (etag_of(path), "no-cache")
    assert status == 200 or answer.body == b""


@pytest.mark.parametrize(
    ("since", "status"),
    [
        pytest.param(DATE, 304, id="the same second"),
        pytest.param("Sun, 06 Nov 1994 08:49:38 GMT", 200, id="a second later"),
        pytest.param("Sun, 06 Nov 1994 08:49:36 GMT", 200, id="a second before"),
        pytest.param("1995", 200, id="no date"),
        pytest.param("", 200, id="empty"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_modified_since(since, status, method, path):
    assert get(sending(path), method, if_modified_since=since).status == status


def test_the_etag_decides_where_there_is_a_date_too(path):
    assert get(sending(path), if_none_match='"x"', if_modified_since=DATE).status == 200
    assert get(sending(path), if_none_match=etag_of(path), if_modified_since="").status == 304


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_conditions_and_ranges_are_for_get_and_head(method, path):
    answer = get(sending(path), method, if_none_match="*", if_modified_since=DATE, range="bytes=0-0")
    assert (answer.status, answer.body, answer.header("ETag")) == (200, CONTENT, None)
    assert answer.header("Content-Length") == "256000"


@pytest.mark.parametrize("status", [201, 206, 404, 500])
def test_conditions_and_ranges_are_for_a_200(status, path):
    answer = get(sending(path, status), if_none_match="*", range="bytes=0-0")
    assert (answer.status, answer.body, answer.header("ETag"), answer.header("Content-Range")) == (
        status,
        CONTENT,
        None,
        None,
    )
    assert answer.header("Content-Length") == "256000"


@pytest.mark.parametrize("status", [204, 304])
def test_a_file_is_not_sent_with_a_status_that_forbids_it(status, path, log):
    answer = get(sending(path, status))
    assert (answer.status, answer.body, answer.header("Content-Length")) == (status, b"", None)


def test_the_functions_own_headers_win(path):
    own = {
        "etag": '"own"',
        "LAST-MODIFIED": "Mon, 07 Nov 1994 08:49:37 GMT",
        "Accept-Ranges": "bytes",
        "Content-Length": "7",
    }
    send = functools.partial(get, sending(path, {**own, "Content-Type": "image/png"}))
    answer = send()
    assert [answer.header(name) for name in (*own, "Content-Type")] == [*list(own.values())[:3], "256000", "image/png"]
    assert send(if_none_match='"own"').status == 304
    assert send(if_none_match=etag_of(path)).status == 200
    assert send(if_modified_since=DATE).status == 200
    assert send(if_modified_since="Mon, 07 Nov 1994 08:49:37 GMT").status == 304
    assert send(range="bytes=0-0", if_range='"own"').header("Content-Type") == "image/png"
    assert send(range="bytes=0-0", if_range=etag_of(path)).status == 200


def test_an_own_etag_or_date_that_is_none_matches_nothing(path):
    send = functools.partial(get, sending(path, {"ETag": "own", "Last-Modified": "yesterday"}))
    assert send(if_none_match="own").status == send(if_modified_since=DATE).status == 200


# -- ranges --


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        pytest.param("bytes=0-0", (0, 1), id="first byte"),
        pytest.param("bytes=100-199", (100, 200), id="middle"),
        pytest.param("bytes=0-255999", (0, 256_000), id="all"),
        pytest.param("bytes=65000-131073", (65_000, 131_074), id="several pieces"),
        pytest.param("bytes=255999-", (255_999, 256_000), id="last byte"),
        pytest.param("bytes=0-", (0, 256_000), id="from the first"),
        pytest.param("bytes=255990-999999", (255_990, 256_000), id="beyond the end"),
        pytest.param("bytes=-1", (255_999, 256_000), id="suffix"),
        pytest.param("bytes=-999999", (0, 256_000), id="suffix that is longer"),
        pytest.param("BYTES=1-1", (1, 2), id="upper case"),
        pytest.param("bytes=0-" + "9" * 19, (0, 256_000), id="large number"),
    ],
)
def test_one_range_is_a_206(asked, part, path):
    start, end = part
    answer = get(sending(path), range=asked)
    assert (answer.status, answer.body) == (206, CONTENT[start:end])
    assert answer.header("Content-Range") == f"bytes {start}-{end - 1}/256000"
    assert answer.header("Content-Length") == str(end - start)
    assert answer.header("ETag") == etag_of(path)
    assert get(sending(path), "HEAD", range=asked).status == 200


@pytest.mark.parametrize(
    "asked", ["bytes=256000-", "bytes=256000-256000", "bytes=999999-", "bytes=-0", "bytes=" + "9" * 19 + "-"]
)
def test_a_range_that_is_not_in_the_file_is_a_416(asked, path, log):
    answer = get(sending(path, {"Cache-Control": "max-age=60"}), range=asked)
    assert (answer.status, answer.header("Content-Range"), answer.header("Cache-Control")) == (
        416,
        "bytes */256000",
        None,
    )
    assert answer.header("Content-Type").startswith("text/plain")
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    "asked",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=5-4", "bytes=0-0,2-3", "bytes=0-0, 0-0", "bytes= 0-0", "items=0-0", "bytes=+0-1",
     "bytes=0x0-1", "bytes=\xb2-", "bytes=0-" + "9" * 20, "bytes=--1", "bytes=1-2-3", "bytes=0-0\t"],
)  # fmt: skip
def test_a_range_that_is_none_is_left_out_of_account(asked, path):
    answer = get(sending(path), range=asked)
    assert (answer.status, answer.body, answer.header("Content-Range")) == (200, CONTENT, None)


@pytest.mark.parametrize(
    ("version", "status"),
    [
        pytest.param("{}", 206, id="this version"),
        pytest.param(DATE, 206, id="its date"),
        pytest.param("W/{}", 200, id="a weak one"),
        pytest.param('"x"', 200, id="another version"),
        pytest.param("Sun, 06 Nov 1994 08:49:38 GMT", 200, id="another date"),
        pytest.param("", 200, id="none"),
    ],
)
def test_a_range_is_of_the_version_that_the_caller_has(version, status, path):
    assert get(sending(path), range="bytes=0-0", if_range=version.format(etag_of(path))).status == status
    assert get(sending(path), range="bytes=999999-", if_range=version.format(etag_of(path))).status == (
        416 if status == 206 else 200
    )


def test_a_function_may_refuse_ranges_and_weaken_its_etag(path):
    assert get(sending(path, {"Accept-Ranges": "none"}), range="bytes=0-0").status == 200
    send = functools.partial(get, sending(path, {"ETag": 'W/"own"'}))
    assert send(if_none_match='"own"').status == 304
    assert send(range="bytes=0-0", if_range='W/"own"').status == 200


def test_a_condition_comes_before_the_range(path):
    assert get(sending(path), range="bytes=999999-", if_none_match=etag_of(path)).status == 304


def test_an_async_function_may_return_a_file(path):
    async def handle(event, context):
        return open(path, "rb")

    with serving(handle) as server:
        answer = server.get(Range="bytes=1-2")
    assert (answer.status, answer.body) == (206, CONTENT[1:3])


def test_curl_resumes_a_download(path, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(CONTENT[:100_000])
    with serving(sending(path)) as server:
        command = ["curl", "-sfC", "-", "-o", str(part), f"http://127.0.0.1:{server.port}/"]
        assert subprocess.run(command, timeout=10).returncode == 0
    assert part.read_bytes() == CONTENT
