"""Forms with files: what `event.form()` and `event.files` make of multipart/form-data, and what `invoke` sends."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import time
import tracemalloc

import pytest
from conftest import call, serving
from fuzz_multipart import BAD, GOOD, MultipartFuzzer, body, difference, parse, part

from watchdog_app import File, HTTPError, invoke

KIND = "multipart/form-data; boundary=B"
FORM = "application/x-www-form-urlencoded"
SEED, INPUTS = 1, 3_000
CURL = shutil.which("curl")


def posted(text, content_type=KIND, **headers):
    """Return the event of a form, whose text stands for latin-1 bytes."""
    seen = []
    invoke(
        lambda event, context: seen.append(event),
        "POST",
        body=text.encode("latin-1"),
        headers={"Content-Type": content_type, **headers},
    )
    return seen[0]


# -- the parser --


def name(raw):
    return ascii(raw)[1:60]


@pytest.mark.parametrize("raw", GOOD, ids=name)
def test_a_good_body_is_accepted_by_both(raw):
    assert isinstance(parse(raw.encode("latin-1"), KIND), list)
    assert difference(raw.encode("latin-1"), KIND) == ""


@pytest.mark.parametrize("raw", BAD, ids=name)
def test_a_bad_body_is_refused_by_both(raw):
    assert isinstance(parse(raw.encode("latin-1"), KIND), str)
    assert difference(raw.encode("latin-1"), KIND) == ""


@pytest.mark.parametrize(
    "boundary", ["B", "-", "b" * 70, "-" * 70, '"0 0"', '"\'()+_,-./:=?"', '"b";', "b; charset=utf-8", "b ;c=d"]
)
def test_a_boundary_is_up_to_70_of_some_characters(boundary):
    content_type = f"Multipart/Form-Data ;BOUNDARY={boundary}"
    plain = boundary.partition(";")[0].strip('" ')
    assert posted(f"--{plain}\r\n{part('; name=a')}\r\n--{plain}--", content_type).form() == {"a": "x"}


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param("", id="none"),
        pytest.param("; boundary", id="no value"),
        pytest.param("; boundary=", id="empty"),
        pytest.param('; boundary=""', id="empty and quoted"),
        pytest.param("; boundary=" + "B" * 71, id="71 characters"),
        pytest.param('; boundary="B "', id="a space at its end"),
        pytest.param('; boundary="B', id="no end"),
        pytest.param('; boundary="B"x', id="more behind its end"),
        pytest.param("; boundary=B; boundary=B", id="twice"),
        pytest.param("; boundary=B:B", id="a colon without quotation marks"),
        pytest.param('; boundary="B&B"', id="another character"),
        pytest.param('; boundary="B\xdf"', id="not ASCII"),
        pytest.param("; boundary = B", id="spaces around ="),
        pytest.param("; charset=utf-8, boundary=B", id="a comma"),
    ],
)
def test_another_boundary_is_a_400(parameters):
    boundary = parameters.rpartition("boundary=")[2].strip('"')
    body = f"--{boundary}\r\n{part('; name=a')}\r\n--{boundary}--"
    event = posted(body, "multipart/form-data" + parameters)
    with pytest.raises(HTTPError) as caught:
        event.form()
    assert caught.value.status == 400


def test_the_module_agrees_with_a_strict_reading_of_the_same_bytes():
    fuzzer = MultipartFuzzer(SEED)
    for _ in range(INPUTS):
        assert (finding := fuzzer.step()) is None, str(finding)
    assert all(fuzzer.ends[kind] > INPUTS / 30 for kind in ("accepted", "refused", "file"))


@pytest.mark.parametrize("number", [1000, 1001])
def test_a_thousand_parts_are_read_and_more_are_a_413(number):
    text = body(*[part("; name=a", str(index)) for index in range(number - 1)], part("; name=b; filename=c"))
    answer = invoke(
        lambda event, context: len(event.form().getlist("a")) + len(event.files),
        "POST",
        body=text,
        headers={"Content-Type": KIND},
    )
    assert (answer.status, answer.text) == ((200, "1000") if number == 1000 else (413, "more than 1000 form fields\n"))


LONG, MB = "B" * 70, 1_000_000


HEAD = f"--{LONG}\r\n{part('; name=a', '')}"
HOSTILE = [
    pytest.param(lambda: HEAD + "x" * 5 * MB + f"\r\n--{LONG}--", id="a large field"),
    pytest.param(lambda: HEAD + f"\r\n--{LONG[1:]}b" * 70_000, id="almost the boundary"),
    pytest.param(lambda: HEAD + f"\r\n--b{LONG[1:]}" * 70_000, id="almost the boundary, from its start"),
    pytest.param(lambda: HEAD + "\r\n--B" * MB, id="the beginning of the boundary"),
    pytest.param(lambda: HEAD + "B" * 5 * MB, id="one character of the boundary"),
    pytest.param(lambda: HEAD + "\r\n" * 2 * MB, id="empty lines"),
    pytest.param(lambda: HEAD + f"\r\n--{LONG}" + " " * 5 * MB, id="padding"),
    pytest.param(lambda: f"--{LONG}\r\n" + "x" * 5 * MB + f"\r\n--{LONG}--", id="one long header"),
    pytest.param(lambda: f"--{LONG}\r\n" + "Ab: y\r\n" * 800_000 + f"\r\n--{LONG}--", id="many headers"),
    pytest.param(lambda: f"--{LONG[1:]}\r\n" * 70_000, id="a preamble"),
    pytest.param(lambda: f"--{LONG}--\r\n" * 70_000, id="an epilogue"),
    pytest.param(lambda: f"{HEAD}\r\n" * 40_000, id="many parts"),
    pytest.param(lambda: f"--{LONG}\r\n{part('; name=a' + ' ; ' * 9 + 'x' * 3900, '')}\r\n" * 1000, id="parameters"),
]


NAMES = [
    pytest.param("%22" * 1333, id="escapes of browsers"),
    pytest.param('\\"' * 2000, id="quoted pairs"),
    pytest.param("\\x" * 2000, id="backslashes"),
    pytest.param("\xe9" * 2000, id="not ASCII"),
    pytest.param("; " * 2000, id="semicolons"),
]


def seconds_for(text):
    """Return the time that parsing takes, the least of some."""
    raw, seconds = text.encode(), []
    assert 4 * MB < len(raw) < 6 * MB
    for _ in range(5):
        began = time.thread_time()
        parse(raw, f"multipart/form-data; boundary={LONG}")
        seconds.append(time.thread_time() - began)
    return min(seconds)


@pytest.mark.parametrize("make", HOSTILE)
def test_five_megabytes_take_far_less_than_a_tenth_of_a_second(make):
    assert seconds_for(make()) < 0.08


@pytest.mark.parametrize("text", NAMES)
def test_the_longest_names_of_a_thousand_parts_take_less_than_a_second(text):
    disposition = f'; name="{text[:4000]}"'
    assert seconds_for(f"--{LONG}\r\n{part(disposition, '')}\r\n" * 1000) < 0.8


# -- form() and files --


def test_fields_and_files_are_told_apart_by_a_filename():
    event = posted(
        body(
            part('; name="title"', "caf\xc3\xa9"),
            part('; name="a"; filename="a.png"', "\x00\xff\r\n", "Content-Type: image/png", "X-Own: 1"),
            part('; name="a"; filename="b"', ""),
            part('; name="title"', "2"),
        )
    )
    assert event.form().getlist("title") == ["café", "2"]
    assert event.form().keys() == {"title"} and event.files.keys() == {"a"}
    one, two = event.files.getlist("a")
    assert event.files["a"] is one and isinstance(one, File)
    assert (one.filename, one.content_type, one.read(), one.read()) == ("a.png", "image/png", b"\x00\xff\r\n", b"")
    assert (one.headers["x-own"], one.headers.get("Missing")) == ("1", None)
    assert (two.filename, two.content_type, two.getvalue()) == ("b", "text/plain", b"")


def test_files_are_read_as_files_are():
    file = posted(body(part('; name="a"; filename="b"', "1\n2\n3"))).files["a"]
    assert list(file) == [b"1\n", b"2\n", b"3"]
    assert file.seek(2) == 2 and file.read() == b"2\n3"
    with file:
        pass
    assert file.closed


@pytest.mark.parametrize(
    ("content", "names"), [pytest.param("", [], id="no file chosen"), pytest.param("x", [""], id="no name")]
)
def test_a_file_that_nobody_has_chosen_is_not_there(content, names):
    event = posted(body(part('; name="a"; filename=""', content)))
    assert [file.filename for file in event.files.getlist("a")] == names
    assert event.form() == {}


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        pytest.param('"\xc3\xbc\xe2\x82\xac"', "ü€", id="UTF-8"),
        pytest.param('"\xff"', "\ufffd", id="not UTF-8"),
        pytest.param('"%22%0D%0A"', '"\r\n', id="as browsers escape"),
        pytest.param('"%41%2F%%0d"', "%41%2F%%0d", id="no escape of browsers"),
        pytest.param('"\\"\\\\"', '"\\', id="quoted pairs"),
        pytest.param('"C:\\temp\\x"', "C:\\temp\\x", id="a path of Windows"),
        pytest.param('"../../etc/passwd"', "../../etc/passwd", id="another path"),
        pytest.param('"a;b=c"', "a;b=c", id="a semicolon"),
        pytest.param("a.txt", "a.txt", id="a token"),
    ],
)
def test_names_are_read_as_browsers_send_them(sent, read):
    event = posted(
        body(part(f'; name={sent}; filename="x"'), part(f"; name=a; filename={sent}"), part(f"; name={sent}"))
    )
    assert [*event.files] == [read, "a"] and event.files["a"].filename == read
    assert [*event.form()] == [read]


def test_another_name_in_rfc_5987_is_not_interpreted():
    event = posted(body(part("; name=a; filename=b; filename*=UTF-8''c"), part("; name=d; filename*=UTF-8''e")))
    assert event.files["a"].filename == "b"
    assert event.form() == {"d": "x"}


def test_a_field_has_the_charset_of_its_content_type():
    event = posted(
        body(part("; name=a", "\xe9", "Content-Type: text/plain; charset=iso-8859-1"), part("; name=b", "\xe9"))
    )
    assert event.form() == {"a": "é", "b": "\ufffd"}


def test_a_form_without_fields_is_empty():
    assert posted("--B--\r\n").form() == posted("--B--\r\n").files == {}


@pytest.mark.parametrize("use", [lambda event: event.form(), lambda event: event.files], ids=["form", "files"])
def test_a_bad_body_is_a_400_with_a_reason(use, log):
    answer = call(lambda event, context: use(event), "POST", body=b"--B\r\n", CONTENT_TYPE=KIND)
    assert (answer.status, answer.text.partition(":")[0]) == (400, "the body is not valid multipart/form-data")
    assert log.getvalue() == ""


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/mixed; boundary=B", FORM])
def test_other_bodies_have_no_files(kind):
    assert posted(body(part("; name=a; filename=b")), kind).files == {}


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/mixed; boundary=B", "multipart/form-datax"])
def test_a_form_of_another_type_is_a_415_that_names_both(kind):
    with pytest.raises(HTTPError, match="multipart/form-data") as caught:
        posted(body(part("; name=a")), kind).form()
    assert caught.value.status == 415 and FORM in caught.value.body


def test_a_missing_file_is_a_400_that_names_it():
    answer = invoke(lambda event, context: event.files["photo"].read(), "POST", files={})
    assert (answer.status, answer.text) == (400, "missing file 'photo'\n")


def test_a_missing_field_of_a_multipart_form_is_a_400_that_names_it():
    answer = invoke(lambda event, context: event.form()["title"], "POST", files={"photo": b"x"})
    assert (answer.status, answer.text) == (400, "missing form field 'title'\n")


def test_an_event_with_files_can_be_copied():
    event = posted(body(part('; name="a"; filename="b"', "1")))
    other = copy.copy(event)
    assert other.files["a"].read() == b"1"
    again = copy.deepcopy(event.files["a"])
    assert (again.getvalue(), again.filename, again.content_type) == (b"1", "b", "text/plain")


# -- memory --


def test_files_are_in_memory_once_beside_the_body():
    raw = body(part('; name="a"; filename="b"', "x" * 4 * MB), part('; name="c"; filename="d"', "x" * 4 * MB)).encode()
    event = posted(raw.decode())
    assert len(event.body) == len(raw)
    tracemalloc.start()
    try:
        files = event.files
        assert sum(len(file.getvalue()) for file in files.values()) == 8 * MB
        assert event.form() == {} and event.files is files
        assert tracemalloc.get_traced_memory()[1] < 1.01 * len(raw)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("use", [lambda event: event.form(), lambda event: event.files], ids=["form", "files"])
def test_files_count_as_the_body_does(use):
    raw = body(part("; name=a; filename=b", "x" * 600_000)).encode()

    def handle(event, context):
        use(event)
        use(event)  # which counts nothing more
        return "read"

    with serving(handle, body_memory="1MB") as server:  # which has room for the body, and never for its files too
        assert server.request("POST", body=raw, Content_Type=KIND).status == 413
    with serving(handle, body_memory="2MB") as server:
        assert server.request("POST", body=raw, Content_Type=KIND).text == "read"


# -- Content-Encoding --


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity", "\x1b<b>"])
@pytest.mark.parametrize(
    ("use", "kind"),
    [
        pytest.param(lambda event: event.form(), FORM, id="form"),
        pytest.param(lambda event: event.form(), KIND, id="multipart"),
        pytest.param(lambda event: event.files["a"], KIND, id="files"),
        pytest.param(lambda event: event.json(), "", id="json"),
    ],
)
def test_an_encoded_body_that_is_to_be_parsed_is_a_415_that_says_so(use, kind, coding, log):
    environ = {"CONTENT_TYPE": kind, "HTTP_CONTENT_ENCODING": coding}
    answer = call(lambda event, context: use(event), "POST", body=b"\x1f\x8b", **environ)
    assert (answer.status, answer.header("Accept-Encoding")) == (415, "identity")
    assert answer.text == f"this function takes a body without Content-Encoding, not {coding!a}\n"
    assert log.getvalue() == ""


@pytest.mark.parametrize("coding", ["gzip", "", "identity", "Identity"])
def test_the_body_is_as_it_was_sent_whatever_its_encoding(coding):
    answer = call(
        lambda event, context: event.body + event.stream.read() + event.text.encode(),
        "POST",
        body=b"[1]",
        HTTP_CONTENT_ENCODING=coding,
    )
    assert answer.body == b"[1]" * 3


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_a_body_that_is_not_encoded_is_parsed(coding):
    assert call(lambda event, context: event.json(), "POST", body=b"[1]", HTTP_CONTENT_ENCODING=coding).body == b"[1]"


# -- clients --


def seen(event, context):
    files = [
        [name, file.filename, file.content_type, file.read().decode("latin-1")]
        for name in event.files
        for file in event.files.getlist(name)
    ]
    return {"fields": event.form().to_dict(flat=False), "files": files}


@pytest.mark.parametrize(
    ("given", "fields", "files"),
    [
        pytest.param({"files": {"a": b"\r\n"}}, {}, [["a", "a", "application/octet-stream", "\r\n"]], id="bytes"),
        pytest.param({"files": {"a": ("b", b"")}}, {}, [["a", "b", "application/octet-stream", ""]], id="name"),
        pytest.param({"files": {"a": ("b", b"x", "c/d")}}, {}, [["a", "b", "c/d", "x"]], id="type"),
        pytest.param(
            {"files": {"a": [b"1", ("2", b"2")]}},
            {},
            [["a", "a", "application/octet-stream", "1"], ["a", "2", "application/octet-stream", "2"]],
            id="list",
        ),
        pytest.param(
            {"files": {"a": b""}, "form": {"b": "ü", "c": ["1", "2"]}},
            {"b": ["ü"], "c": ["1", "2"]},
            [["a", "a", "application/octet-stream", ""]],
            id="with fields",
        ),
        pytest.param({"files": {}}, {}, [], id="none"),
        pytest.param(
            {"files": {'"\\\r\nü"': ('"\\\r\n€\\', b"x")}},
            {},
            [['"\\\r\nü"', '"\\\r\n€\\', "application/octet-stream", "x"]],
            id="odd names",
        ),
    ],
)
def test_invoke_sends_files(given, fields, files):
    answer = invoke(seen, "POST", **given)
    assert answer.json() == {"fields": fields, "files": files}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param({"files": {"a": "text"}}, r"files is \{'a': 'text'\}: it takes", id="text"),
        pytest.param({"files": {"a": ("b",)}}, "files is .*: it takes", id="name alone"),
        pytest.param({"files": {"a": ("b", "text")}}, "files is .*: it takes", id="name and text"),
        pytest.param({"files": 5}, "files is 5: it takes", id="number"),
        pytest.param({"files": {5: b"x"}}, "files is .*: it takes", id="number as a name"),
        pytest.param({"files": {}, "json": 1}, "body, json and form exclude each other", id="with JSON"),
        pytest.param({"files": {}, "body": b""}, "body, json and form exclude each other", id="with a body"),
    ],
)
def test_wrong_files_are_an_error_that_says_what_is_right(given, says):
    with pytest.raises(TypeError, match=says):
        invoke(seen, "POST", **given)


@pytest.mark.skipif(not CURL, reason="curl is not on PATH")
def test_curl_sends_a_form_with_a_file(tmp_path):
    path = tmp_path / 'a"b.txt'
    path.write_bytes(bytes(range(256)) * 1000)
    with serving(seen) as server:
        url = f"http://127.0.0.1:{server.port}/"
        command = [
            CURL,
            "-s",
            "-F",
            "title=caf\u00e9",
            "-F",
            f'file=@"{str(path).replace(chr(34), chr(92) + chr(34))}"',
            url,
        ]
        text = subprocess.run(command, capture_output=True, check=True, timeout=10).stdout
    answer = json.loads(text)
    assert answer["fields"] == {"title": ["café"]}
    assert answer["files"] == [["file", 'a"b.txt', "text/plain", path.read_bytes().decode("latin-1")]]
