"""Routing: one function for several paths and methods, by a table of patterns."""

import re

from watchdog_app import HTTPError

ROUTES = []  # (method, pattern, function)
ORDERS = {"1": {"item": "tea"}}


def route(method, pattern):
    """Register a function for a method and a path; `<name>` in the path is one segment of it, and an argument."""
    compiled = re.compile(re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", pattern))
    return lambda function: ROUTES.append((method, compiled, function))


@route("GET", "/orders")
def list_orders(event):
    return ORDERS


@route("GET", "/orders/<number>")
def show_order(event, number):
    if number not in ORDERS:
        raise HTTPError(404, {"error": "no such order"})
    return ORDERS[number]


def handle(event, context):
    methods = []
    for method, pattern, function in ROUTES:
        if match := pattern.fullmatch(event.path):
            if method == event.method:
                return function(event, **match.groupdict())
            methods.append(method)
    if methods:
        raise HTTPError(405, headers={"Allow": ", ".join(methods)})
    raise HTTPError(404)
