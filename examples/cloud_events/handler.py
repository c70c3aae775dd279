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
    headers = {"ce-specversion": "1.0", "ce-id": str(uuid4()), "ce-source": "/examples/cloud_events"}
    headers["ce-type"] = "com.example.seen"
    return {"seen": attributes["id"], "type": attributes["type"], "data": data}, headers


def read_event(event):
    """Convert a request to the attributes and the data of a CloudEvent."""
    kind = event.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "application/cloudevents+json":
        return read_structured(event.json())
    if kind.startswith("application/cloudevents"):  # another format, or a batch
        raise HTTPError(415, {"error": "a CloudEvent in binary mode, or as application/cloudevents+json"})
    fields = [(name.lower(), unquote(value)) for name, value in event.headers.items()]
    attributes = {name[3:]: value for name, value in fields if name.startswith("ce-")}
    return attributes, event.json() if kind == "application/json" or kind.endswith("+json") else event.text


def read_structured(attributes):
    """Take the data, which is JSON or encoded in base64, out of the attributes."""
    try:
        if "data_base64" in attributes:
            return attributes, b64decode(attributes.pop("data_base64"), validate=True).decode()
        return attributes, attributes.pop("data", None)
    except (AttributeError, TypeError, ValueError):
        raise HTTPError(400, {"error": "not a CloudEvent: a JSON object, data_base64 as text"}) from None
