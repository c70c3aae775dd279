import threading

import pytest

import handler
from handler import handle
from watchdog_app import invoke


@pytest.fixture(autouse=True)
def database(tmp_path, monkeypatch):
    monkeypatch.setattr(handler, "PATH", str(tmp_path / "notes.db"))
    handler.startup(None)
    yield
    close()


def close():
    handler.local.connection.close()
    del handler.local.connection


def test_note_is_kept():
    answer = invoke(handle, "POST", body="buy milk")
    assert (answer.status, answer.json()) == (201, {"id": 1, "text": "buy milk"})
    assert invoke(handle).json() == [{"id": 1, "text": "buy milk"}]


def test_text_is_a_value_and_no_sql():
    text = "'); DROP TABLE notes; --"
    invoke(handle, "POST", body=text)
    assert invoke(handle).json() == [{"id": 1, "text": text}]


def test_empty_note_is_refused():
    assert invoke(handle, "POST").status == 400
    assert invoke(handle).json() == []


def test_threads_write_at_once():
    def write():
        for _ in range(5):
            handler.add("note")
        close()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [note["id"] for note in invoke(handle).json()] == list(range(1, 21))
