"""`handle` returns a WSGI application of a framework: a form, JSON, an upload and a stream, with Content-Length and in chunks."""

from __future__ import annotations

import importlib.util
import json
import threading
from typing import Any

import pytest
from conftest import DEADLINE, read_all, read_answer, serving, serving_application

from watchdog_app import Application, Function, Settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a framework may be older than this Python
BOUNDARY = "a-boundary"
UPLOAD = (
    f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nten\r\n"
    f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n"
).encode() + b"0123456789" * 30_000 + f"\r\n--{BOUNDARY}--\r\n".encode()  # fmt: skip


def flask_application() -> Any:
    from flask import Flask, Response, jsonify, request

    app = Flask("frameworks")
    app.add_url_rule("/form", "form", lambda: jsonify(request.form.to_dict()), methods=["POST"])
    app.add_url_rule("/json", "json", lambda: jsonify(request.get_json()), methods=["POST"])
    app.add_url_rule("/raw", "raw", lambda: jsonify([len(request.get_data())]), methods=["POST"])

    def upload() -> Any:
        return jsonify([request.form["title"], len(request.files["file"].read())])

    app.add_url_rule("/upload", "upload", upload, methods=["POST"])
    app.add_url_rule("/stream", "stream", lambda: Response(f"{number}," for number in range(3)), methods=["POST"])
    return app


def bottle_application() -> Any:
    from bottle import Bottle, request

    app = Bottle()
    app.post("/form", callback=lambda: dict(request.forms))
    app.post("/json", callback=lambda: request.json)
    app.post("/raw", callback=lambda: json.dumps([len(request.body.read())]))
    app.post("/upload", callback=lambda: json.dumps([request.forms["title"], len(request.files["file"].file.read())]))
    app.post("/stream", callback=lambda: (f"{number}," for number in range(3)))
    return app


def falcon_application() -> Any:
    import falcon

    class Form:
        def on_post(self, req: Any, resp: Any) -> None:
            resp.media = req.get_media()

    class Raw:
        def on_post(self, req: Any, resp: Any) -> None:
            resp.media = [len(req.bounded_stream.read())]

    class Upload:
        def on_post(self, req: Any, resp: Any) -> None:
            parts = {part.name: part.stream.read() for part in req.get_media()}
            resp.media = [parts["title"].decode(), len(parts["file"])]

    class Stream:
        def on_post(self, req: Any, resp: Any) -> None:
            resp.stream = (b"%d," % number for number in range(3))

    app = falcon.App()
    for path, resource in (
        ("/form", Form()),
        ("/json", Form()),
        ("/raw", Raw()),
        ("/upload", Upload()),
        ("/stream", Stream()),
    ):
        app.add_route(path, resource)
    return app


def django_application() -> Any:
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import JsonResponse, StreamingHttpResponse
    from django.urls import path

    def upload(request: Any) -> Any:
        return JsonResponse([request.POST["title"], len(request.FILES["file"].read())], safe=False)

    urls = type("Urls", (), {})
    urls.urlpatterns = [
        path("form", lambda request: JsonResponse(request.POST.dict())),
        path("json", lambda request: JsonResponse(json.loads(request.body))),
        path("raw", lambda request: JsonResponse([len(request.body)], safe=False)),
        path("upload", upload),
        path("stream", lambda request: StreamingHttpResponse(f"{number}," for number in range(3))),
    ]
    if not settings.configured:
        settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], DATA_UPLOAD_MAX_MEMORY_SIZE=None, SECRET_KEY="test")
        django.setup(set_prefix=False)
    return WSGIHandler()


FRAMEWORKS = {
    "flask": flask_application,
    "bottle": bottle_application,
    "falcon": falcon_application,
    "django": django_application,
}
REQUESTS = [
    pytest.param("/form", "application/x-www-form-urlencoded", b"a=1&b=c+d", {"a": "1", "b": "c d"}, id="form"),
    pytest.param("/json", "application/json", b'{"a": [1, "\xc3\xbc"]}', {"a": [1, "ü"]}, id="JSON"),
    pytest.param("/upload", f"multipart/form-data; boundary={BOUNDARY}", UPLOAD, ["ten", 300_000], id="upload"),
    pytest.param("/raw", "application/octet-stream", b"x" * 200_000, [200_000], id="raw body"),
    pytest.param("/raw", "application/octet-stream", b"", [0], id="empty body"),
    pytest.param("/stream", "text/plain", b"go", "0,1,2,", id="stream"),
]


@pytest.fixture(scope="module")
def app(request: pytest.FixtureRequest) -> Any:
    if not importlib.util.find_spec(request.param):
        pytest.skip(f"{request.param} is not installed")
    return FRAMEWORKS[request.param]()


def message(path: str, content_type: str, body: bytes, in_chunks: bool) -> bytes:
    """Make a request with its length, or in chunks as of-watchdog sends them."""
    size = 32 * 1024
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    framing, content = f"Content-Length: {len(body)}", body
    if in_chunks:
        framing, content = (
            "Transfer-Encoding: chunked",
            b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n",
        )
    head = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n"
    )
    return head.encode() + content


def said(body: bytes, path: str) -> Any:
    return body.decode() if path == "/stream" else json.loads(body)


@pytest.mark.parametrize("app", FRAMEWORKS, indirect=True)
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize(("path", "content_type", "body", "expected"), REQUESTS)
def test_application_of_a_framework_reads_what_is_sent(app, path, content_type, body, expected, in_chunks):
    with serving(lambda event, context: app) as server:
        answer, rest = read_answer(server.talk(message(path, content_type, body, in_chunks)))
    assert (answer.status, said(answer.body, path), rest) == (200, expected, b"")


@pytest.mark.parametrize("app", ["flask"], indirect=True)
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize(("path", "content_type", "body", "expected"), REQUESTS)
def test_flask_reads_a_body_that_still_arrives(app, path, content_type, body, expected, in_chunks):
    begun = threading.Event()

    def handle(event, context):
        begun.set()
        return app

    raw = message(path, content_type, body, in_chunks)
    head = raw.index(b"\r\n\r\n") + 4
    application = Application(Function(handle, stream_request=True), Settings(), {})
    with serving_application(application) as server, server.connect() as sock:
        sock.sendall(raw[:head])
        assert begun.wait(DEADLINE)
        sock.sendall(raw[head:])
        answer, _ = read_answer(read_all(sock))
    assert (answer.status, said(answer.body, path)) == (200, expected)
