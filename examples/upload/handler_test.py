from handler import handle
from watchdog_app import invoke


def test_form_is_shown():
    answer = invoke(handle)
    assert answer.status == 200
    assert 'enctype="multipart/form-data"' in answer.text


def test_each_file_is_counted():
    files = {"files": [("a.txt", b"hello"), ("b.bin", b"\x00" * 1000)]}
    answer = invoke(handle, "POST", form={"title": "Two"}, files=files)
    assert answer.status == 200
    assert "<h1>Two</h1>" in answer.text
    assert "<li>a.txt: 5 bytes, SHA-256 2cf24dba…</li>" in answer.text
    assert "<li>b.bin: 1000 bytes, " in answer.text


def test_what_is_typed_is_escaped():
    name = "<script>.txt"
    answer = invoke(handle, "POST", form={"title": "<b>"}, files={"files": (name, b"")})
    assert "<script>" not in answer.text
    assert "<h1>&lt;b&gt;</h1>" in answer.text


def test_missing_title_is_named():
    answer = invoke(handle, "POST", files={"files": ("a.txt", b"a")})
    assert answer.status == 400
    assert "title" in answer.text


def test_form_without_files_is_refused():
    assert invoke(handle, "POST", form={"title": "None"}, files={}).status == 400
    assert invoke(handle, "POST", form={"title": "None"}, files={"files": ("", b"")}).status == 400


def test_body_that_is_no_form_is_refused():
    assert invoke(handle, "POST", json={"title": "None"}).status == 415


def test_other_method_is_refused():
    assert invoke(handle, "DELETE").status == 405
