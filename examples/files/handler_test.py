import pytest

import handler
from handler import handle
from watchdog_app import invoke


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(handler, "FOLDER", tmp_path / "files")
    return tmp_path / "files"


def test_file_comes_back_as_it_was_sent(folder):
    content = bytes(range(256)) * 4096
    answer = invoke(handle, "PUT", "/picture.png", body=content)
    assert (answer.status, answer.json()) == (201, {"name": "picture.png", "bytes": len(content)})
    answer = invoke(handle, "GET", "/picture.png")
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="picture.png"'
    assert [path.name for path in folder.iterdir()] == ["picture.png"]


def test_download_is_resumed():
    invoke(handle, "PUT", "/notes.txt", body=b"first")
    etag = invoke(handle, "HEAD", "/notes.txt").headers["ETag"]
    answer = invoke(handle, "GET", "/notes.txt", headers={"Range": "bytes=3-", "If-Range": etag})
    assert (answer.status, answer.body, answer.headers["Content-Range"]) == (206, b"st", "bytes 3-4/5")
    assert invoke(handle, "GET", "/notes.txt", headers={"If-None-Match": etag}).status == 304


def test_file_is_replaced():
    for content in (b"first", b"second"):
        invoke(handle, "PUT", "/notes.txt", body=content)
    assert invoke(handle, "GET", "/notes.txt").body == b"second"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/..",
        "/../secret",
        "/%2e%2e%2fsecret",
        "/a/b",
        "//etc/passwd",
        "/.hidden",
        "/a%00b",
        "/name%0a",
        "/" + "a" * 101,
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_name_that_leads_elsewhere_is_refused(method, target, tmp_path):
    (tmp_path / "secret").write_text("secret")
    assert invoke(handle, method, target, body=b"x").status == 400
    assert (tmp_path / "secret").read_text() == "secret"


def test_upload_that_breaks_off_leaves_no_file(folder):
    class Broken:
        def read(self, size=-1):
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        handler.save(Broken(), folder / "half.bin")
    assert list(folder.iterdir()) == []


def test_missing_file_is_a_404():
    assert invoke(handle, "GET", "/nothing.txt").status == 404


def test_other_method_is_refused():
    assert invoke(handle, "DELETE", "/notes.txt").status == 405
