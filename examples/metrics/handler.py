"""Metrics of one's own for Prometheus, at /metrics: how many orders, and how long each took.

Prometheus has to ask each replica, so let it find the pods, not the gateway. In stack.yaml, annotations do that:
`prometheus.io/scrape: "true"` and `prometheus.io/port: "8080"`. of-watchdog's own metrics are on port 8081.
"""

from prometheus_client import Counter, Histogram, make_wsgi_app

from watchdog_app import HTTPError

ITEMS = {"tea": 2.5, "coffee": 3.0}
# A label has few values, all known: each one is a series of its own, and a caller must not choose it
ORDERS = Counter("orders", "Orders taken", ["item"])
SECONDS = Histogram("order_seconds", "Time of an order", buckets=[0.001, 0.01, 0.1, 1])
metrics = make_wsgi_app()


def handle(event, context):
    if event.path == "/metrics":
        return metrics
    with SECONDS.time():
        return order(event.query["item"])


def order(item):
    if item not in ITEMS:
        raise HTTPError(404, {"error": f"items: {', '.join(ITEMS)}"})
    ORDERS.labels(item).inc()
    return {"item": item, "price": ITEMS[item]}
