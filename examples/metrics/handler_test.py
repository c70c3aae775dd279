import pytest

prometheus_client = pytest.importorskip("prometheus_client")

from handler import handle
from watchdog_app import invoke


def sample(name, **labels):
    return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0


def test_order_is_counted_and_timed():
    orders, timed = sample("orders_total", item="tea"), sample("order_seconds_count")
    assert invoke(handle, "POST", "/?item=tea").json() == {"item": "tea", "price": 2.5}
    assert (sample("orders_total", item="tea"), sample("order_seconds_count")) == (orders + 1, timed + 1)


def test_name_that_a_caller_chose_is_no_label():
    assert invoke(handle, "POST", "/?item=gold").status == 404
    assert "gold" not in invoke(handle, "GET", "/metrics").text


def test_prometheus_can_read_the_metrics():
    invoke(handle, "POST", "/?item=coffee")
    answer = invoke(handle, "GET", "/metrics", headers={"Accept": "text/plain"})
    assert (answer.status, answer.headers["Content-Type"].startswith("text/plain")) == (200, True)
    assert 'orders_total{item="coffee"}' in answer.text
    assert 'order_seconds_bucket{le="+Inf"}' in answer.text
