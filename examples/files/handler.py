"""Upload and download of files of any size, in constant memory: PUT and GET /name."""

import re
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

from watchdog_app import HTTPError

stream_request = True  # call handle before the body is here, so that it can be written as it comes
FOLDER = Path(tempfile.gettempdir()) / "files"  # gone with the container: put a volume here, or send the pieces on


def handle(event, context):
    name = event.path.removeprefix("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):  # no slash, no leading dot: nothing outside FOLDER
        raise HTTPError(400, {"error": "a name has up to 100 letters, digits, dots, dashes"})
    if event.method == "PUT":
        return {"name": name, "bytes": save(event.stream, FOLDER / name)}, 201
    if event.method not in ("GET", "HEAD"):
        raise HTTPError(405, headers={"Allow": "GET, HEAD, PUT"})
    try:
        return (FOLDER / name).open("rb"), {"Content-Disposition": f'attachment; filename="{name}"'}
    except FileNotFoundError:
        raise HTTPError(404, {"error": "no such file"}) from None


def save(stream, path):
    """Write a stream to a file, which appears when it is complete; return its size."""
    FOLDER.mkdir(exist_ok=True)
    part = FOLDER / f".{uuid4()}"
    try:
        with part.open("xb") as file:
            shutil.copyfileobj(stream, file)
        return part.replace(path).stat().st_size
    finally:
        part.unlink(missing_ok=True)
