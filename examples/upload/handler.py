"""A form with files: each one is read, counted and named in the answer; nothing that a visitor chose is a path or HTML."""

import hashlib
from html import escape

from watchdog_app import HTTPError

FORM = """<!doctype html>
<meta charset="utf-8">
<title>Upload</title>
<form method="post" enctype="multipart/form-data">
  <label>Title <input name="title" required></label>
  <input type="file" name="files" multiple required>
  <button>Send</button>
</form>
"""


def handle(event, context):
    if event.method in ("GET", "HEAD"):
        return FORM
    if event.method != "POST":
        raise HTTPError(405, headers={"Allow": "GET, HEAD, POST"})
    title = event.form()["title"]  # a missing field is a 400 that names it
    files = event.files.getlist("files")
    if not files:
        raise HTTPError(400, {"error": "files: choose at least one"})
    return f"<!doctype html>\n<h1>{escape(title)}</h1>\n<ul>{''.join(map(item, files))}</ul>\n"


def item(file):
    """Describe a file. It is in memory: for files above some MB, see the example `files`."""
    content = file.read()
    return f"<li>{escape(file.filename)}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()[:8]}…</li>"
