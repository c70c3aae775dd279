import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

for module in ("sdk", "exporter.otlp.proto.http", "instrumentation.urllib", "instrumentation.wsgi"):
    pytest.importorskip(f"opentelemetry.{module}")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import handler
import watchdog_app
from handler import handle, shutdown, startup, wrap
from watchdog_app import invoke

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
EXPORTER = InMemorySpanExporter()
handler.PROVIDER.add_span_processor(SimpleSpanProcessor(EXPORTER))


class Stock(BaseHTTPRequestHandler):
    """A service that keeps the traceparent of its callers."""

    def do_GET(self):
        self.server.seen.append(self.headers["traceparent"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"3")

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module", autouse=True)
def instrumented():
    startup(None)
    yield
    handler.URLLibInstrumentor().uninstrument()
    shutdown(None)


@pytest.fixture
def stock(monkeypatch):
    with HTTPServer(("127.0.0.1", 0), Stock) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("stock_url", f"http://127.0.0.1:{server.server_port}/")
        yield server
        server.shutdown()
        thread.join()


def spans():
    """Return the spans since the last time, by their kind."""
    found = {span.kind: span for span in EXPORTER.get_finished_spans()}
    EXPORTER.clear()
    return found


def call(**headers):
    function = watchdog_app.Function(handle, wrap=wrap)
    answer = invoke(function, "GET", "/?item=tea", headers=headers)
    assert (answer.status, answer.json()["stock"]) == (200, "3")  # the server's span ends with the body
    return answer


def test_spans_log_and_outgoing_call_share_the_trace_of_the_caller(stock, caplog):
    with caplog.at_level("INFO"):
        answer = call(traceparent=f"00-{TRACE}-{PARENT}-01")
    found = spans()
    server, step, client = (found[kind] for kind in (SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT))
    assert {format(span.context.trace_id, "032x") for span in found.values()} == {TRACE}
    assert format(server.parent.span_id, "016x") == PARENT
    assert (step.parent.span_id, client.parent.span_id) == (server.context.span_id, step.context.span_id)
    assert (step.name, step.attributes["item"]) == ("stock", "tea")
    assert stock.seen == [f"00-{TRACE}-{client.context.span_id:016x}-01"]
    assert answer.json()["trace_id"] == TRACE
    assert caplog.messages == ["asking for the stock of tea"]


def test_call_without_a_trace_begins_one(stock):
    trace_id = call().json()["trace_id"]
    assert {format(span.context.trace_id, "032x") for span in spans().values()} == {trace_id}
    assert stock.seen[0].split("-")[1] == trace_id


def test_failure_is_in_the_spans(monkeypatch):
    monkeypatch.setenv("stock_url", "http://127.0.0.1:1/")
    answer = invoke(watchdog_app.Function(handle, wrap=wrap), "GET", "/?item=tea")
    assert answer.status == 500
    assert answer.body
    found = spans()
    assert found[SpanKind.INTERNAL].events[0].name == "exception"
    assert found[SpanKind.SERVER].attributes.get("http.status_code", 500) == 500
    assert json.loads(found[SpanKind.SERVER].to_json())["status"]["status_code"] == "ERROR"
