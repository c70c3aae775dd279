"""One function for the other scenarios, which are told apart by their paths."""

import time

from payload import HELLO, LONG, ORDERS, SLEEP, burn


def orders(event):
    return {"statusCode": 200, "body": {"orders": ORDERS}}


def read(event):
    query, headers = event.query, event.headers
    seen = {
        "name": query["name"],
        "count": query.get("count", type=int),
        "agent": headers["User-Agent"],
        "trace": headers.get("X-Trace"),
    }
    return {"statusCode": 200, "body": seen}


def echo(event):
    return {"statusCode": 200, "body": event.body, "headers": {"Content-Type": "application/octet-stream"}}


def sleep(event):
    time.sleep(SLEEP)
    return {"statusCode": 200, "body": HELLO}


def long(event):
    time.sleep(LONG)
    return {"statusCode": 200, "body": HELLO}


def busy(event):
    burn()
    return {"statusCode": 200, "body": HELLO}


def short(event):
    return {"statusCode": 200, "body": HELLO}


ROUTES = {"/": short, "/orders": orders, "/read": read, "/echo": echo, "/sleep": sleep, "/long": long, "/burn": busy}


def handle(event, context):
    return ROUTES[event.path](event)
