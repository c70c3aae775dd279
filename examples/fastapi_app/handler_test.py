import pytest

pytest.importorskip("a2wsgi")
pytest.importorskip("fastapi")

from handler import handle
from watchdog_app import invoke


def test_order_is_taken_and_shown():
    answer = invoke(handle, "POST", "/orders", json={"item": "tea", "quantity": 2})
    assert (answer.status, answer.json()) == (201, {"number": 1, "item": "tea", "quantity": 2})
    assert invoke(handle, "GET", "/orders/1").json() == {"item": "tea", "quantity": 2}


def test_wrong_field_is_named():
    answer = invoke(handle, "POST", "/orders", json={"item": "tea", "quantity": 51})
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "quantity"]


def test_missing_order_is_a_404():
    answer = invoke(handle, "GET", "/orders/7")
    assert (answer.status, answer.json()) == (404, {"detail": "no such order"})


def test_documentation_is_there():
    assert "Orders" in invoke(handle, "GET", "/docs").text
    assert "/orders/{number}" in invoke(handle, "GET", "/openapi.json").json()["paths"]
