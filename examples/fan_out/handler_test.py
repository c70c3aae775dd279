import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import handler
from handler import handle
from watchdog_app import invoke


class Service(BaseHTTPRequestHandler):
    """A service that answers once all of its callers are there, so that it never answers who asks one by one."""

    def do_GET(self):
        if self.path == "/broken":
            self.send_error(503)
            return
        self.server.callers.wait(5)
        body = json.dumps({"path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(callers):
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        server.callers = threading.Barrier(callers)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_services_are_asked_at_once(monkeypatch):
    with serving(callers=3) as url:
        services = [f"{url}/{name}" for name in ("stock", "price", "rating")]
        monkeypatch.setattr(handler, "SERVICES", services)
        answer = invoke(handle)
    assert answer.status == 200
    assert answer.json()["answers"] == {service: {"path": service.removeprefix(url)} for service in services}


def test_service_that_fails_spoils_no_other(monkeypatch):
    with serving(callers=1) as url:
        monkeypatch.setattr(handler, "SERVICES", [f"{url}/broken", f"{url}/stock"])
        answers = invoke(handle).json()["answers"]
    assert "503" in answers[f"{url}/broken"]["error"]
    assert answers[f"{url}/stock"] == {"path": "/stock"}


def test_missing_setting_is_named(monkeypatch):
    monkeypatch.setattr(handler, "SERVICES", [])
    answer = invoke(handle)
    assert answer.status == 500
    assert "services" in answer.json()["error"]
