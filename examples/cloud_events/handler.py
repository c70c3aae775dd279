"""CloudEvents over HTTP: binary mode (attributes are ce-* headers) and structured mode (all is one JSON object)."""

from base64 import b64decode
from urllib.parse import unquote
from uuid import uuid4

from watchdog_app import HTTPError


def handle(event, context):
    attributes, data = read_event(event)
    for name in ("id", "source", "specversion", "type"):
        if not attributes.get(name):
            raise HTTPError(400, {"error": f"the CloudEvent has no {name}"})
    if attributes["specversion"] != "1.0":
        raise HTTPError(400, {"error": "specversion: 1.0 is what this function takes"})
    return {
        "headers": {
            "ce-specversion": "1.0",
            "ce-id": str(uuid4()),
            "ce-source": "/examples/cloud_events",
            "ce-type": "com.example.seen",
        },
        "body": {"seen": attributes["id"], "type": attributes["type"], "data": data},
    }


def read_event(event):
    """Convert a request to the attributes and the data of a CloudEvent."""
    kind = event.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "application/cloudevents+json":
        return read_structured(event.json())
    if kind.startswith("application/cloudevents"):  # another format, or a batch
        raise HTTPError(415, {"error": "a CloudEvent in binary mode, or as application/cloudevents+json"})
    attributes = {
        name[3:].lower(): unquote(value) for name, value in event.headers.items() if name.lower().startswith("ce-")
    }
    return attributes, event.json() if kind == "application/json" or kind.endswith("+json") else event.text


def read_structured(attributes):
    """Take the data, which is JSON or encoded in base64, out of the attributes."""
    try:
        encoded = attributes.pop("data_base64", None)
        return attributes, attributes.pop("data", None) if encoded is None else b64decode(
            encoded, validate=True
        ).decode()
    except (AttributeError, TypeError, ValueError):
        raise HTTPError(400, {"error": "not a CloudEvent: a JSON object, data_base64 as text"}) from None
