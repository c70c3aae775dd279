"""Tracing with OpenTelemetry: spans for OTEL_EXPORTER_OTLP_ENDPOINT, and their trace id in the log and in calls to others."""

import logging
import os
import urllib.request

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.urllib import URLLibInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

PROVIDER = TracerProvider()
tracer = PROVIDER.get_tracer(__name__)


def startup(context):
    URLLibInstrumentor().instrument(tracer_provider=PROVIDER)  # calls of urllib get a span, and send traceparent
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
        PROVIDER.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))


def shutdown(context):
    PROVIDER.shutdown()  # sends the last spans


def wrap(application):
    """Make a span for each call, and set its traceparent for `context` and the log, also where the caller sent none."""

    def in_span(environ, start_response):
        carrier = {}
        inject(carrier)
        environ["HTTP_TRACEPARENT"] = carrier.get("traceparent", "")
        return application(environ, start_response)

    return OpenTelemetryMiddleware(in_span, tracer_provider=PROVIDER)


def handle(event, context):
    item = event.query["item"]
    with tracer.start_as_current_span("stock", attributes={"item": item}):
        logging.info("asking for the stock of %s", item)
        with urllib.request.urlopen(os.environ["stock_url"], timeout=5) as answer:
            return {"stock": answer.read().decode(), "trace_id": context.trace_id}
