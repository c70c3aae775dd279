"""A JSON API: take an order, and say which field is wrong with it."""

from watchdog_app import HTTPError


def handle(event, context):
    if event.method != "POST":
        raise HTTPError(405, {"error": "POST an order"}, {"Allow": "POST"})
    order = event.json()  # what is not JSON is a 400 already
    check(isinstance(order, dict), None, "the order is a JSON object")
    item, quantity = order.get("item"), order.get("quantity", 1)
    check(isinstance(item, str) and 0 < len(item) <= 100, "item", "a text of 1 to 100 characters")
    check(
        type(quantity) is int and 1 <= quantity <= 50, "quantity", "a whole number from 1 to 50"
    )  # True is an int too, but none of type int
    for name in order.keys() - {"item", "quantity"}:
        check(False, name, "no such field")
    return {"order": context.call_id, "item": item, "quantity": quantity}, 201


def check(valid, field, message):
    """Answer 400 with the field's name and what it takes, unless it is valid."""
    if not valid:
        raise HTTPError(400, {"field": field, "error": message})
