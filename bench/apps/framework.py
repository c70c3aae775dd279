"""The same functions for functions-framework, which hands them Flask's request."""

import time

from flask import Response
from payload import HELLO, LONG, ORDERS, PIECE, SLEEP, burn


def hello(request):
    return HELLO


def length(request):
    return {"bytes": len(request.get_data())}


def orders(request):
    return {"orders": ORDERS}


def read(request):
    query, headers = request.args, request.headers
    return {
        "name": query["name"],
        "count": query.get("count", type=int),
        "agent": headers["User-Agent"],
        "trace": headers.get("X-Trace"),
    }


def echo(request):
    return Response(request.get_data(), mimetype="application/octet-stream")


def sleep(request):
    time.sleep(SLEEP)
    return HELLO


def long(request):
    time.sleep(LONG)
    return HELLO


def busy(request):
    burn()
    return HELLO


ROUTES = {"/": hello, "/orders": orders, "/read": read, "/echo": echo, "/sleep": sleep, "/long": long, "/burn": busy}


def calls(request):
    return ROUTES[request.path](request)


def stream(request):
    return Response(iter(lambda: request.stream.read(PIECE), b""), mimetype="application/octet-stream")
