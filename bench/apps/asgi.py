"""The smallest ASGI applications that answer the same bytes: no event, no contract."""

import asyncio
from urllib.parse import parse_qsl

from payload import HELLO, LONG, ORDERS, SLEEP, burn, to_json

JSON, BINARY = b"application/json", b"application/octet-stream"
HELLO_BYTES = to_json(HELLO)


async def answer(send, body, kind=JSON):
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def whole(receive):
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


async def hello(scope, receive, send):
    await answer(send, HELLO_BYTES)


async def length(scope, receive, send):
    await answer(send, b'{"bytes":%d}' % len(await whole(receive)))


async def orders(scope, receive, send):
    await answer(send, to_json({"orders": ORDERS}))


async def read(scope, receive, send):
    query, headers = dict(parse_qsl(scope["query_string"].decode())), dict(scope["headers"])
    seen = {
        "name": query["name"],
        "count": int(query["count"]),
        "agent": headers[b"user-agent"].decode(),
        "trace": headers[b"x-trace"].decode(),
    }
    await answer(send, to_json(seen))


async def echo(scope, receive, send):
    await answer(send, await whole(receive), BINARY)


async def sleep(scope, receive, send):
    await asyncio.sleep(SLEEP)
    await answer(send, HELLO_BYTES)


async def long(scope, receive, send):
    await asyncio.sleep(LONG)
    await answer(send, HELLO_BYTES)


async def busy(scope, receive, send):
    await asyncio.to_thread(burn)
    await answer(send, HELLO_BYTES)


ROUTES = {"/": hello, "/orders": orders, "/read": read, "/echo": echo, "/sleep": sleep, "/long": long, "/burn": busy}


async def calls(scope, receive, send):
    await ROUTES[scope["path"]](scope, receive, send)


async def stream(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", BINARY)]})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})
