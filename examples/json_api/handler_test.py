import pytest

from handler import handle
from watchdog_app import invoke


def test_order_is_taken():
    answer = invoke(handle, "POST", json={"item": "tea", "quantity": 2}, headers={"X-Call-Id": "7"})
    assert answer.status == 201
    assert answer.json() == {"order": "7", "item": "tea", "quantity": 2}


@pytest.mark.parametrize(
    ("order", "field"),
    [
        pytest.param([], None, id="no object"),
        pytest.param({}, "item", id="no item"),
        pytest.param({"item": ""}, "item", id="empty item"),
        pytest.param({"item": "tea", "quantity": "2"}, "quantity", id="text as a number"),
        pytest.param({"item": "tea", "quantity": True}, "quantity", id="a truth as a number"),
        pytest.param({"item": "tea", "quantity": 51}, "quantity", id="too many"),
        pytest.param({"item": "tea", "colour": "green"}, "colour", id="unknown field"),
    ],
)
def test_wrong_field_is_named(order, field):
    answer = invoke(handle, "POST", json=order)
    assert (answer.status, answer.json()["field"]) == (400, field)


def test_body_that_is_not_json_is_refused():
    answer = invoke(handle, "POST", body=b"{")
    assert answer.status == 400
    assert "not valid JSON" in answer.text


def test_other_method_is_refused():
    answer = invoke(handle, "GET")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
