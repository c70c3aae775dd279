"""A function with types, for a strict type checker: a type that is another one is an error, and so is an `ignore` that nothing needs."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO, assert_type
from wsgiref.types import WSGIApplication

from watchdog_app import (
    Answer,
    Application,
    Body,
    Context,
    Event,
    File,
    Function,
    Headers,
    HTTPError,
    Query,
    Server,
    Settings,
    invoke,
    make_application,
)


def handle(event: Event, context: Context) -> dict[str, Any]:
    if event.path != "/":
        raise HTTPError(404, {"error": "no such path"}, {"X-Path": event.raw_path})
    page = event.query.get("page", 1, type=int)
    assert_type(page, int)
    return {"statusCode": 200, "body": {"said": str(event.body), "page": page}}


async def coroutine(event: Event, context: Context) -> tuple[str, int]:
    return event.text, 201


def generator(event: Event, context: Context) -> Iterator[dict[str, float | None]]:
    yield {"remaining": context.remaining()}


async def async_generator(event: Event, context: Context) -> AsyncIterator[bytes]:
    yield event.stream.read(10)


def startup(context: Context) -> None:
    print(context.hostname)


def ready() -> bool:
    return True


@dataclass
class Order:
    item: str
    quantity: int = 1


def order_of(value: dict[str, str]) -> Order:
    return Order(value["item"])


def see_json(event: Event) -> None:
    assert_type(event.json(), Any)
    assert_type(event.json(Order), Order)
    assert_type(event.json(model=order_of), Order)


def see_values(event: Event) -> None:
    assert_type(event.query.get("page"), str | None)
    assert_type(event.query.get("page", ""), str)
    assert_type(event.query.get("page", default=7), str | int)
    assert_type(event.query.get("page", type=int), int | None)
    assert_type(event.query.get("page", "", type=int), int | str)
    assert_type(event.form().get("price", Decimal(0), Decimal), Decimal)
    assert_type(event.cookies.get("session"), str | None)
    assert_type(event.headers.get("X-Retries", 0, int), int)
    assert_type(event.headers.get("Accept", "*/*"), str)
    assert_type(event.files.get("photo"), File | None)
    assert_type(event.query.to_dict(), dict[str, Any])
    assert_type(event.query.copy(), Query)


def see_event(event: Event) -> None:
    assert_type(event.body, Body)
    assert_type(event.cookies, Query)
    assert_type(event.environ, dict[str, Any])
    assert_type(event.files["photo"], File)
    assert_type(event.files["photo"].filename, str)
    assert_type(event.files["photo"].content_type, str)
    assert_type(event.files.getlist("photo"), list[File])
    assert_type([*event.files.values()], list[File])
    assert_type(event.form(), Query)
    assert_type(event.headers, Headers)
    assert_type(event.headers["Content-Type"], str)
    assert_type(event.headers.getlist("Via"), list[str])
    assert_type(event.method, str)
    assert_type(event.path, str)
    assert_type(event.query, Query)
    assert_type(event.query["page"], str)
    assert_type(event.query.getlist("page"), list[str])
    assert_type(event.query.getlist("page", type=int), list[int])
    assert_type(event.headers.get_all("Via"), list[str])
    assert_type(event.raw_path, str)
    assert_type(event.raw_query, str)
    assert_type(event.stream, BinaryIO)
    assert_type(event.text, str)


async def later(number: int) -> None: ...


def see_context(context: Context) -> None:
    assert_type(context.call_id, str)
    assert_type(context.deadline, float | None)
    assert_type(context.function_name, str | None)
    assert_type(context.hostname, str)
    assert_type(context.namespace, str | None)
    assert_type(context.remaining(), float | None)
    context.after(print, "text", 5)
    context.after(later, 5)
    assert_type(context.cancelled, bool)
    assert_type(context.trace_id, str | None)
    assert_type(context.secret("key"), str)
    assert_type(context.secret("key", None), str | None)
    assert_type(context.secret("key", default="none"), str)


def see_application() -> WSGIApplication:
    assert_type(make_application("handler.py"), Application)
    assert_type(Settings(threads="4").threads, int)
    function = Function(coroutine, startup, shutdown=startup, ready=ready, stream_request=True)
    assert_type(function.stream_request, bool)
    Application(generator)
    Application(async_generator, Settings.from_env({"threads": "4"}))
    return Application(handle, Settings(), {"HOSTNAME": "test"})


def on_error(error: Exception, event: Event, context: Context) -> dict[str, Any]:
    return {"statusCode": 502, "body": {"error": str(error), "path": event.path}}


def wrap(application: WSGIApplication) -> WSGIApplication:
    return application


def see_hooks() -> Function:
    assert_type(Application(handle).wrapped(), Application)
    return Function(handle, wrap=wrap, on_error=on_error)


def see_server(listener: socket.socket) -> None:
    Server(listener, see_application(), Settings())


def see_test_kit() -> None:
    assert_type(invoke(handle, "POST", files={"a": b"", "b": ("b.txt", b""), "c": ("c.png", b"", "image/png")}), Answer)
    assert_type(invoke(handle, "POST", form={"a": "b"}, files={"c": [b"", ("d.txt", b"")]}), Answer)
    answer = invoke(Function(handle), "PUT", "/a?b=c", json={"a": 1}, headers={"X-Call-Id": "1"}, raise_errors=True)
    assert_type(answer.status, int)
    assert_type(answer.headers, Headers)
    assert_type(answer.body, bytes)
    assert_type(answer.text, str)
    assert_type(answer.json(), Any)
    assert_type(list(answer), list[bytes])


def see_mistakes(event: Event, context: Context) -> None:
    print(event.bdoy)  # type: ignore[attr-defined]
    print(context.call_id + 1)  # type: ignore[operator]
    context.after(later, "text")  # type: ignore[arg-type]
    context.after(later(5))  # type: ignore[arg-type]
    print(event.body + "text")  # type: ignore[operator]
    print(event.files["photo"] + "text")  # type: ignore[operator]
    print(event.query.get("page", type=int) + 1)  # type: ignore[operator]
    print(event.json(Order).colour)  # type: ignore[attr-defined]
    event.json("Order")  # type: ignore[call-overload]
    print(context.secret("key", None).upper())  # type: ignore[union-attr]
    invoke(handle, files={"a": "text"})  # type: ignore[dict-item]
    HTTPError("404")  # type: ignore[arg-type]
    Settings(threads=4)  # type: ignore[arg-type]
    Function(handle, wrap=handle)  # type: ignore[arg-type]
