"""A function with types, for a strict type checker: a type that is another one is an error, and so is an `ignore` that nothing needs."""

from __future__ import annotations

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
    Settings,
    invoke,
    make_application,
)


def handle(event: Event, context: Context) -> dict[str, Any]:
    if event.path != "/":
        raise HTTPError(404, {"error": "no such path"}, {"X-Path": event.raw_path})
    page: int = event.query.get("page", 1, type=int)
    return {"statusCode": 200, "body": {"said": str(event.body), "page": page}}


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


def see_context(context: Context) -> None:
    assert_type(context.call_id, str)
    assert_type(context.deadline, float | None)
    assert_type(context.function_name, str | None)
    assert_type(context.hostname, str)
    assert_type(context.namespace, str | None)
    assert_type(context.remaining(), float | None)


def see_application() -> WSGIApplication:
    assert_type(make_application("handler.py"), Application)
    assert_type(Settings(threads="4").threads, int)
    return Application(handle, Settings(), {"HOSTNAME": "test"})


def on_error(error: Exception, event: Event, context: Context) -> dict[str, Any]:
    return {"statusCode": 502, "body": {"error": str(error), "path": event.path}}


def wrap(application: WSGIApplication) -> WSGIApplication:
    return application


def see_hooks() -> Function:
    assert_type(Application(handle).wrapped(), Application)
    return Function(handle, wrap=wrap, on_error=on_error)


def see_test_kit() -> None:
    assert_type(invoke(handle, "POST", files={"a": b"", "b": ("b.txt", b""), "c": ("c.png", b"", "image/png")}), Answer)
    assert_type(invoke(handle, "POST", form={"a": "b"}, files={"c": [b"", ("d.txt", b"")]}), Answer)


def see_mistakes(event: Event, context: Context) -> None:
    print(event.bdoy)  # type: ignore[attr-defined]
    print(context.call_id + 1)  # type: ignore[operator]
    print(event.body + "text")  # type: ignore[operator]
    print(event.files["photo"] + "text")  # type: ignore[operator]
    invoke(handle, files={"a": "text"})  # type: ignore[dict-item]
    HTTPError("404")  # type: ignore[arg-type]
    Settings(threads=4)  # type: ignore[arg-type]
    Function(handle, wrap=handle)  # type: ignore[arg-type]
