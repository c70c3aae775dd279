"""The function with a PostgreSQL of its own, which these tests start: apt-get install postgresql, pip install -r requirements.txt."""

import contextlib
import glob
import os
import shutil
import subprocess
import tempfile
from types import SimpleNamespace

import pytest

pytest.importorskip("psycopg_pool", reason="psycopg is not installed: pip install -r requirements.txt")

from psycopg_pool import PoolTimeout

import handler
from handler import handle
from watchdog_app import invoke


def find(program):
    """Return a program of PostgreSQL's, on PATH or where Debian has it."""
    found = shutil.which(program) or next(
        iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{program}"), reverse=True)), None
    )
    return found or pytest.skip(f"{program} is not installed: apt-get install postgresql")


@contextlib.contextmanager
def postgres():
    """Run a new PostgreSQL on a socket in a folder of its own; give its address."""
    initdb, pg_ctl = find("initdb"), find("pg_ctl")
    user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, user)
        run = {"user": user, "cwd": folder, "check": True, "stdout": subprocess.DEVNULL, "timeout": 60}
        subprocess.run(
            [initdb, "--pgdata", f"{folder}/data", "--username", "test", "--auth", "trust", "--no-sync"], **run
        )
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        subprocess.run(
            [pg_ctl, "--pgdata", f"{folder}/data", "--log", f"{folder}/log", "--options", options, "--wait", "start"],
            **run,
        )
        try:
            yield f"postgresql://test@/postgres?host={folder}"
        finally:
            subprocess.run([pg_ctl, "--pgdata", f"{folder}/data", "--mode", "immediate", "--wait", "stop"], **run)


@pytest.fixture(scope="module")
def url():
    with postgres() as url:
        yield url


@pytest.fixture(autouse=True)
def database(url):
    handler.startup(SimpleNamespace(secret={"database-url": url}.__getitem__))
    yield
    with handler.pool.connection() as connection:
        connection.execute("DROP TABLE notes")
    handler.shutdown(None)


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


def test_connection_is_used_again():
    def process_id():
        with handler.pool.connection() as connection:
            return connection.info.backend_pid

    assert process_id() == process_id()


def test_function_is_ready_while_the_database_answers():
    assert handler.ready()


def test_function_does_not_start_without_its_database(monkeypatch):
    monkeypatch.setattr(handler, "pool", None)
    monkeypatch.setattr(handler, "PATIENCE", 0.1)
    with pytest.raises(PoolTimeout):
        handler.startup(SimpleNamespace(secret={"database-url": "host=/nowhere"}.__getitem__))
