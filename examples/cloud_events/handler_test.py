import pytest

from handler import handle
from watchdog_app import invoke

STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
BINARY = {"ce-specversion": "1.0", "ce-id": "42", "ce-source": "/shop", "ce-type": "com.example.order"}
EVENT = {"specversion": "1.0", "id": "42", "source": "/shop", "type": "com.example.order"}


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        pytest.param({"json": {"item": "tea"}, "headers": BINARY}, {"item": "tea"}, id="binary, JSON"),
        pytest.param({"body": b"tea", "headers": BINARY | {"Content-Type": "text/plain"}}, "tea", id="binary, text"),
        pytest.param(
            {"json": EVENT | {"data": {"item": "tea"}}, "headers": STRUCTURED}, {"item": "tea"}, id="structured, JSON"
        ),
        pytest.param({"json": EVENT | {"data_base64": "dGVh"}, "headers": STRUCTURED}, "tea", id="structured, base64"),
        pytest.param({"json": EVENT, "headers": STRUCTURED}, None, id="structured, no data"),
    ],
)
def test_event_is_read_and_answered_by_one(request_, data):
    answer = invoke(handle, "POST", **request_)
    assert answer.status == 200
    assert answer.json() == {"seen": "42", "type": "com.example.order", "data": data}
    assert (answer.headers["ce-specversion"], answer.headers["ce-type"]) == ("1.0", "com.example.seen")
    assert answer.headers["Content-Type"] == "application/json"


def test_attributes_in_headers_are_percent_decoded():
    headers = BINARY | {"ce-type": "caf%C3%A9"}
    assert invoke(handle, "POST", json=1, headers=headers).json()["type"] == "café"


@pytest.mark.parametrize("name", ["id", "source", "specversion", "type"])
def test_missing_attribute_is_named(name):
    event = {key: value for key, value in EVENT.items() if key != name}
    headers = {key: value for key, value in BINARY.items() if key != f"ce-{name}"}
    for answer in (
        invoke(handle, "POST", json=event, headers=STRUCTURED),
        invoke(handle, "POST", json=1, headers=headers),
    ):
        assert (answer.status, answer.json()) == (400, {"error": f"the CloudEvent has no {name}"})


def test_other_version_is_refused():
    assert invoke(handle, "POST", json=EVENT | {"specversion": "0.3"}, headers=STRUCTURED).status == 400


@pytest.mark.parametrize(
    "event",
    [[EVENT], "event", EVENT | {"data_base64": "%"}, EVENT | {"data_base64": 5}, EVENT | {"data_base64": "/w=="}],
)
def test_json_that_is_no_event_is_refused(event):
    assert invoke(handle, "POST", json=event, headers=STRUCTURED).status == 400


def test_batch_is_refused():
    assert (
        invoke(handle, "POST", json=[EVENT], headers={"Content-Type": "application/cloudevents-batch+json"}).status
        == 415
    )
