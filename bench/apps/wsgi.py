"""The smallest WSGI applications that answer the same bytes: no event, no contract."""

import time
from urllib.parse import parse_qsl

from payload import HELLO, LONG, ORDERS, PIECE, SLEEP, burn, to_json

JSON, BINARY = "application/json", "application/octet-stream"
HELLO_BYTES = to_json(HELLO)


def answer(start_response, body, kind=JSON):
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def hello(environ, start_response):
    return answer(start_response, HELLO_BYTES)


def length(environ, start_response):
    return answer(start_response, b'{"bytes":%d}' % len(environ["wsgi.input"].read()))


def orders(environ, start_response):
    return answer(start_response, to_json({"orders": ORDERS}))


def read(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    seen = {
        "name": query["name"],
        "count": int(query["count"]),
        "agent": environ["HTTP_USER_AGENT"],
        "trace": environ.get("HTTP_X_TRACE"),
    }
    return answer(start_response, to_json(seen))


def echo(environ, start_response):
    return answer(start_response, environ["wsgi.input"].read(), BINARY)


def sleep(environ, start_response):
    time.sleep(SLEEP)
    return hello(environ, start_response)


def long(environ, start_response):
    time.sleep(LONG)
    return hello(environ, start_response)


def busy(environ, start_response):
    burn()
    return hello(environ, start_response)


ROUTES = {"/": hello, "/orders": orders, "/read": read, "/echo": echo, "/sleep": sleep, "/long": long, "/burn": busy}


def calls(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", BINARY)])
    return iter(lambda: environ["wsgi.input"].read(PIECE), b"")
