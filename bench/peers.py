"""The servers that are compared: one table."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

APPS = Path(__file__).resolve().parent / "apps"


@dataclass(frozen=True)
class Peer:
    """One server, and how it is started.

    contract: whether a request goes through event, context and result; the others answer the same bytes from the smallest application.
    command: its words, with {python}, {bin}, {product}, {apps}, {app} and {port} to be filled in.
    packages: what it is made of, the first one its own.
    streams: whether its contract can hand a body on as it comes. quick: whether it takes part in a quick run.
    """

    id: str
    title: str
    contract: bool
    command: str
    packages: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    streams: bool = True
    quick: bool = False

    def words(self, app: str, port: int, product: Path) -> list[str]:
        """Return the command line that serves `app` on `port`; `product` is the compiled module."""
        values = {
            "python": sys.executable,
            "bin": Path(sys.executable).parent,
            "product": product,
            "apps": APPS,
            "app": app,
            "port": port,
        }
        return [word.format(**values) for word in self.command.split(" ")]

    def versions(self) -> dict[str, str] | None:
        """Return the versions of its packages, None where one is not installed."""
        try:
            return {package: version(package) for package in self.packages}
        except PackageNotFoundError:
            return None


UVICORN = (
    "{bin}/uvicorn --app-dir={apps} --port={port} --interface=asgi3 --lifespan=off --no-access-log --log-level=error"
    " --timeout-keep-alive=75 --http=httptools --loop=LOOP asgi:{app}"
)
GUNICORN = "{bin}/gunicorn --chdir={apps} --bind=127.0.0.1:{port} --worker-class=gthread --threads=8 --keep-alive=75 --log-level=error wsgi:{app}"
GRANIAN = "{bin}/granian --working-dir={apps} --port={port} --interface=asginl --loop=uvloop --workers=1 --no-access-log --log-level=error asgi:{app}"
FRAMEWORK = "{bin}/functions-framework --source={apps}/framework.py --host=127.0.0.1 --port={port} --target={app}"

IMAGE = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "1048576",
}  # what the product's image sets; they would slow others down
PRODUCT = Peer("product", "watchdog_app", True, "{python} {product} {apps}/{app}.py", env=IMAGE, quick=True)
PEERS = (
    PRODUCT,
    Peer(
        "flask",
        "Flask + waitress",
        True,
        "{python} {apps}/template.py {app} {port}",
        ("flask", "waitress"),
        streams=False,
        quick=True,
    ),
    Peer("framework", "functions-framework", True, FRAMEWORK, ("functions-framework", "flask", "gunicorn")),
    Peer("gunicorn", "gunicorn gthread", False, GUNICORN, ("gunicorn",)),
    Peer(
        "uvicorn",
        "uvicorn + httptools",
        False,
        UVICORN.replace("LOOP", "asyncio"),
        ("uvicorn", "httptools"),
        quick=True,
    ),
    Peer("uvloop", "uvicorn + uvloop", False, UVICORN.replace("LOOP", "uvloop"), ("uvicorn", "httptools", "uvloop")),
    Peer("granian", "granian", False, GRANIAN, ("granian", "uvloop"), quick=True),
    Peer("bjoern", "bjoern", False, "{python} {apps}/bjoern_server.py {app} {port}", ("bjoern",), quick=True),
)
