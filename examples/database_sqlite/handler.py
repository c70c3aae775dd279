"""Notes in SQLite, of the standard library: one connection a thread, made once."""

import os
import sqlite3
import threading

from watchdog_app import HTTPError

PATH = os.environ.get("database", "/tmp/notes.db")  # gone with the container: put a volume here for what has to stay
local = threading.local()


def startup(context):
    """Make the schema before the first call. WAL, which stays set in the file, lets readers read while one writes."""
    with database() as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")


def handle(event, context):
    if event.method == "POST":
        return add(event.text), 201
    return [
        {"id": number, "text": text} for number, text in database().execute("SELECT id, text FROM notes ORDER BY id")
    ]


def add(text):
    if not text:
        raise HTTPError(400, {"error": "the body is the note's text"})
    with database() as connection:  # commits at the end, and rolls back when it fails
        row = connection.execute("INSERT INTO notes (text) VALUES (?) RETURNING id", (text,)).fetchone()
    return {"id": row[0], "text": text}


def database():
    """Return this thread's connection."""
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect(PATH, timeout=5)  # seconds that it waits for who writes
    return local.connection
