"""environ -> event -> handle -> Response: what happens when something is wrong, and how a function is loaded."""

from __future__ import annotations

import functools
import io
import re
import sys

import pytest
from conftest import FUNCTIONS, HANDLE, call, process, restored_imports, serving, write

import watchdog_app
from watchdog_app import Application, Function, HTTPError, LoadError, Settings, SettingsError, load_function

DEBUG = Settings(debug="true")


class Writes(io.StringIO):
    """A stream that notes each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


class BrokenStream(io.StringIO):
    """A log whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


class OddError(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Nonsense:
    """Nothing that can be sent."""


# -- functions that fail --


def raises(event, context):
    raise RuntimeError("out of order")


def exits(event, context):
    sys.exit("out of order")


def exits_quietly(event, context):
    raise SystemExit


def is_interrupted(event, context):
    raise KeyboardInterrupt


def raises_what_has_no_text(event, context):
    raise OddError


def recurses(event, context):
    return recurses(event, context)


def returns_nonsense(event, context):
    return Nonsense()


def returns_a_bad_status(event, context):
    return {"statusCode": 999, "body": "half"}


def returns_a_bad_header(event, context):
    return {"statusCode": 200, "body": "half", "headers": {"X-Bad": "a\r\nb"}}


def returns_nan(event, context):
    return {"half": float("nan")}


def gives_nonsense_at_once(event, context):
    yield Nonsense()


def raises_what_cannot_be_sent(event, context):
    raise HTTPError(404, Nonsense())


def fails_before_its_first_item(event, context):
    raise RuntimeError("out of order")
    yield "half"


def has_too_few_arguments(event):
    return "half"


RAISED = [
    pytest.param(raises, "RuntimeError: out of order", id="raises"),
    pytest.param(exits, "SystemExit: out of order", id="sys.exit"),
    pytest.param(exits_quietly, "SystemExit", id="sys.exit without a reason"),
    pytest.param(is_interrupted, "KeyboardInterrupt", id="KeyboardInterrupt"),
    pytest.param(raises_what_has_no_text, "OddError", id="an exception without text"),
    pytest.param(recurses, "RecursionError", id="recursion"),
    pytest.param(fails_before_its_first_item, "RuntimeError: out of order", id="stream before its first item"),
    pytest.param(has_too_few_arguments, "TypeError", id="too few arguments"),
]
RETURNED = [
    pytest.param(returns_nonsense, "Nonsense", id="type"),
    pytest.param(returns_a_bad_status, "status 999", id="status"),
    pytest.param(returns_a_bad_header, "X-Bad", id="header"),
    pytest.param(returns_nan, "half", id="NaN"),
]
FAULTS = RAISED + RETURNED


@pytest.mark.parametrize(("function", "reason"), FAULTS)
def test_a_fault_is_a_500_with_the_call_id(function, reason, log):
    answer = call(function, "POST", "/orders?id=7", b"x", HTTP_X_CALL_ID="id-7")
    assert answer.status == 500
    assert answer.header("Content-Type").startswith("text/plain")
    assert "Internal Server Error" in answer.text and "id-7" in answer.text
    assert "Traceback" not in answer.text and reason not in answer.text and "half" not in answer.text


@pytest.mark.parametrize(("function", "reason"), RAISED)
def test_a_fault_is_one_record_of_call_id_method_path_and_traceback(function, reason, monkeypatch):
    stream = Writes()
    monkeypatch.setattr(sys, "stderr", stream)
    call(function, "POST", "/orders?id=7", b"x", HTTP_X_CALL_ID="id-7")
    assert len(stream.writes) == 1
    record = stream.writes[0]
    assert record.startswith("ERROR ") and record.endswith("\n")
    assert all(word in record.splitlines()[0] for word in ("id-7", "POST", "/orders"))
    assert record.count("Traceback") == 1
    assert reason in record


def decorated(function):
    @functools.wraps(function)
    def wrapper(event, context):
        return function(event, context)

    return wrapper


class Callable:
    def __call__(self, event, context):
        return Nonsense()

    def method(self, event, context):
        return Nonsense()


async def awaits_nonsense(event, context):
    return Nonsense()


def has_a_default(event, context, result):
    return result


@pytest.mark.parametrize(
    ("handle", "defined", "reason"),
    [
        *(pytest.param(row.values[0], row.values[0], row.values[1], id=row.id) for row in RETURNED),
        pytest.param(decorated(returns_nan), returns_nan, "half", id="decorated"),
        pytest.param(
            functools.partial(has_a_default, result=(1, 2, 3, 4)), has_a_default, "a tuple of 4", id="partial"
        ),
        pytest.param(Callable(), Callable.__call__, "Nonsense", id="callable object"),
        pytest.param(Callable().method, Callable.method, "Nonsense", id="method"),
        pytest.param(gives_nonsense_at_once, gives_nonsense_at_once, "Nonsense", id="stream"),
        pytest.param(raises_what_cannot_be_sent, raises_what_cannot_be_sent, "Nonsense", id="HTTPError"),
    ],
)
def test_a_result_that_cannot_be_sent_is_one_line_with_the_place_of_handle(handle, defined, reason, log):
    answer = call(handle, "POST", "/orders?id=7", b"x", HTTP_X_CALL_ID="id-7", settings=DEBUG)
    head, line = log.getvalue().splitlines()
    assert all(word in head for word in ("ERROR ", "id-7", "POST", "/orders"))
    place = f"{defined.__code__.co_filename}:{defined.__code__.co_firstlineno}: ResultError: "
    assert line.strip().startswith(place) and reason in line
    assert answer.text.endswith(line.strip() + "\n")


def test_the_result_of_a_coroutine_that_cannot_be_sent_has_its_place_too(log):
    with serving(awaits_nonsense) as server:
        assert server.get().status == 500
    assert f"{awaits_nonsense.__code__.co_firstlineno}: ResultError: " in log.getvalue()
    assert "watchdog_app.py" not in log.getvalue()


@pytest.mark.parametrize(("function", "reason"), FAULTS)
def test_a_fault_does_not_harm_the_next_call(function, reason, log):
    def handle(event, context):
        return function(event, context) if event.path == "/fault" else "well"

    with serving(handle) as server:
        data = server.talk(b"GET /fault HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 500 ")
    assert data.endswith(b"\r\n\r\nwell")


def test_a_made_call_id_is_in_the_answer_and_in_the_log(log):
    seen = []

    def handle(event, context):
        seen.append(context.call_id)
        raise RuntimeError

    answer = call(handle)
    assert seen[0] in answer.text and seen[0] in log.getvalue()


@pytest.mark.parametrize(("function", "reason"), RAISED)
def test_debug_shows_the_traceback_to_the_caller(function, reason, log):
    answer = call(function, HTTP_X_CALL_ID="id-7", settings=DEBUG)
    assert answer.status == 500
    assert "id-7" in answer.text and "Traceback" in answer.text and reason in answer.text
    assert reason in log.getvalue()


def test_a_traceback_begins_in_the_function(log):
    call(raises)
    assert "watchdog_app.py" not in log.getvalue()
    assert "in raises" in log.getvalue()


def test_a_traceback_shows_the_cause(log):
    def handle(event, context):
        try:
            raise OSError("no database")
        except OSError as error:
            raise RuntimeError("no order") from error

    call(handle)
    assert "no database" in log.getvalue() and "no order" in log.getvalue()


def test_text_that_is_no_unicode_in_a_traceback_does_no_harm(log):
    def handle(event, context):
        raise RuntimeError("\ud800")

    assert call(handle, settings=DEBUG).status == 500


@pytest.mark.parametrize(
    ("target", "environ"),
    [
        pytest.param("/a\x1b[31m", {}, id="escape sequence in the path"),
        pytest.param("/a\x85b\xad\xff", {}, id="latin-1 in the path"),
        pytest.param("/a?q=\x9b", {}, id="latin-1 in the query"),
        pytest.param("/", {"HTTP_X_CALL_ID": "id\x1b[31m\x85\r\nERROR forged"}, id="call id"),
        pytest.param("/", {"REQUEST_METHOD": "G\x1bT\nERROR forged"}, id="method"),
    ],
)
def test_nothing_of_the_request_is_in_the_log_or_in_the_answer_unescaped(target, environ, log):
    application = Application(raises, DEBUG, {})
    variables = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": target.partition("?")[0],
        "QUERY_STRING": "",
        "REQUEST_URI": target,
        **environ,
    }
    content = b"".join(application(variables, lambda status, headers: None)).decode()
    for text in (log.getvalue(), content):
        assert text.isascii()
        assert text.replace("\n", "").isprintable()
        assert "\nERROR forged" not in text


def test_a_long_path_and_a_long_call_id_are_cut_in_the_log(log):
    call(raises, target="/" + "p" * 9000, HTTP_X_CALL_ID="i" * 9000)
    assert len(log.getvalue().splitlines()[0]) < 1500


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(HTTPError(404), id="404"),
        pytest.param(HTTPError(500), id="500"),
        pytest.param(HTTPError(503, {"error": "later"}, {"Retry-After": 5}), id="503"),
    ],
)
def test_an_http_error_is_never_logged(error, log):
    def handle(event, context):
        raise error

    assert call(handle).status == error.status
    assert call(handle, settings=DEBUG).status == error.status
    assert log.getvalue() == ""


def closed_stream():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(BrokenStream, id="broken pipe"),
        pytest.param(closed_stream, id="closed"),
        pytest.param(lambda: None, id="none at all, as Python has it where descriptor 2 was closed at its start"),
    ],
)
def test_a_log_that_cannot_be_written_stops_nobody(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    application = Application(raises, Settings(), {})
    statuses = []
    content = application({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda status, headers: statuses.append(status))
    assert b"Internal Server Error" in b"".join(content)
    assert statuses == ["500 Internal Server Error"]


# -- streams that fail --


def fails_later(event, context):
    yield "first"
    raise RuntimeError("out of order")


def exits_later(event, context):
    yield "first"
    sys.exit("out of order")


def gives_nonsense_later(event, context):
    yield "first"
    yield Nonsense()


def refuses_later(event, context):
    yield "first"
    raise HTTPError(404)


LATE_FAULTS = [
    pytest.param(fails_later, "RuntimeError: out of order", id="raises"),
    pytest.param(exits_later, "SystemExit: out of order", id="sys.exit"),
    pytest.param(gives_nonsense_later, "Nonsense", id="type"),
    pytest.param(refuses_later, "HTTPError", id="HTTPError"),
]


@pytest.mark.parametrize(("function", "reason"), LATE_FAULTS)
def test_a_stream_that_fails_later_is_visibly_cut_and_logged_once(function, reason, log):
    with serving(function) as server:
        data = server.talk(b"GET /orders HTTP/1.1\r\nHost: test\r\nX-Call-Id: id-7\r\n\r\n" * 2)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(b"5\r\nfirst\r\n")
    record = log.getvalue()
    assert record.count("ERROR") == 1
    assert all(word in record for word in ("id-7", "GET", "/orders", reason))
    assert ("Traceback" in record) == (function is not gives_nonsense_later)


@pytest.mark.parametrize(("function", "reason"), LATE_FAULTS)
def test_a_stream_that_fails_later_is_an_exception_for_any_server(function, reason, monkeypatch):
    stream = Writes()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(watchdog_app.StreamFailed):
        call(function, target="/orders", HTTP_X_CALL_ID="id-7")
    assert len(stream.writes) == 1
    assert "id-7" in stream.writes[0] and reason in stream.writes[0]


# -- loading --


def load_and_call(target):
    return call(load_function(str(target))).text


def test_a_folder_is_loaded(folder):
    assert load_and_call(write(folder, handler=HANDLE + "'from a folder'\n")) == "from a folder"


def test_a_file_is_loaded(folder):
    write(folder, hello=HANDLE + "'from a file'\n")
    assert load_and_call(folder / "hello.py") == "from a file"


@pytest.mark.parametrize("name", ["my-function", "2nd", "with space", "class"])
def test_a_file_whose_name_is_no_identifier_is_loaded(folder, name):
    (folder / f"{name}.py").write_text(HANDLE + "'odd'\n")
    assert load_and_call(folder / f"{name}.py") == "odd"


def test_a_relative_target_is_loaded(folder, monkeypatch):
    write(folder, handler=HANDLE + "'here'\n")
    monkeypatch.chdir(folder.parent)
    assert load_and_call("handler") == "here"


def test_a_file_in_the_current_folder_is_loaded(folder, monkeypatch):
    write(folder, hello=HANDLE + "'here'\n")
    monkeypatch.chdir(folder)
    assert load_and_call("hello.py") == "here"


def test_module_and_function_are_loaded(folder, monkeypatch):
    write(folder, shop="def order(event, context):\n    return 'ordered'\n")
    monkeypatch.chdir(folder)
    assert load_and_call("shop:order") == "ordered"


def test_a_module_in_a_package_is_loaded(folder, monkeypatch):
    (folder / "shop").mkdir()
    write(folder / "shop", __init__="", orders="def order(event, context):\n    return __name__\n")
    monkeypatch.chdir(folder)
    assert load_and_call("shop.orders:order") == "shop.orders"


def test_no_target_is_the_folder_handler_beside_the_module():
    with restored_imports():
        assert load_function().handle.__code__.co_filename == str(FUNCTIONS.parent.parent / "handler" / "handler.py")


IMPORTS = [
    pytest.param("from .sibling import VALUE", id="relative, of a name"),
    pytest.param("from . import sibling; VALUE = sibling.VALUE", id="relative, of a module"),
    pytest.param("from sibling import VALUE", id="plain, of a name"),
    pytest.param("import sibling; VALUE = sibling.VALUE", id="plain, of a module"),
    pytest.param("from function import sibling; VALUE = sibling.VALUE", id="from function"),
    pytest.param("from function.sibling import VALUE", id="from a module of function"),
    pytest.param("import function.sibling; VALUE = function.sibling.VALUE", id="a module of function"),
    pytest.param("from .inner.deep import VALUE", id="relative, of a package"),
    pytest.param("from inner.deep import VALUE", id="plain, of a package"),
    pytest.param("from function.inner.deep import VALUE", id="from a package of function"),
]


@pytest.mark.parametrize("init", [pytest.param(False, id="no __init__"), pytest.param(True, id="with __init__")])
@pytest.mark.parametrize("statement", IMPORTS)
def test_a_sibling_is_imported(folder, statement, init):
    (folder / "inner").mkdir()
    write(
        folder / "inner",
        __init__="",
        deep="from ..sibling import VALUE\n" if "sibling" in statement else "VALUE = 'found'\n",
    )
    if init:
        write(folder, __init__="")
    target = write(folder, handler=f"{statement}\n\n{HANDLE}VALUE\n", sibling="VALUE = 'found'\n")
    assert load_and_call(target) == "found"


def test_a_sibling_is_imported_during_a_call(folder):
    source = "def handle(event, context):\n    from .sibling import VALUE\n    return VALUE\n"
    assert load_and_call(write(folder, handler=source, sibling="VALUE = 'found'\n")) == "found"


def test_a_name_of_the_package_is_imported(folder):
    target = write(folder, __init__="VALUE = 'found'\n", handler="from function import VALUE\n\n" + HANDLE + "VALUE\n")
    assert load_and_call(target) == "found"


def test_the_handler_is_one_module_by_all_its_names(folder):
    load_function(write(folder, handler="CALLS = []\n\n" + HANDLE + "'x'\n"))
    import function.handler

    import handler

    assert handler is function.handler


def test_a_file_may_import_its_siblings_too(folder):
    write(folder, hello="from .sibling import VALUE\n\n" + HANDLE + "VALUE\n", sibling="VALUE = 'found'\n")
    assert load_and_call(folder / "hello.py") == "found"


def test_http_error_of_a_function_is_the_running_modules(folder):
    load = load_function(
        write(
            folder,
            handler="from watchdog_app import HTTPError\n\ndef handle(event, context):\n    raise HTTPError(418)\n",
        )
    )
    assert call(load).status == 418


def test_handle_may_be_any_callable(folder):
    source = "class Handle:\n    def __call__(self, event, context):\n        return 'called'\n\nhandle = Handle()\n"
    assert load_and_call(write(folder, handler=source)) == "called"


def test_what_the_module_declares_is_looked_up_once(folder):
    source = "def ready():\n    return True\n\ndef handle(event, context):\n    global handle, ready\n    handle = ready = None\n    return 'x'\n"
    function = load_function(write(folder, handler=source))
    assert [call(function).text, call(function).text, call(function, target="/_/ready").text] == ["x", "x", "OK\n"]


def test_a_name_like_a_hooks_is_none(folder):
    source = "def start_up(): 1 / 0\non_startup = Startup = start = shut_down = is_ready = start_up\nstream_requests = True\n\n"
    function = load_function(write(folder, handler=source + HANDLE + "'x'\n"))
    assert (function.startup, function.shutdown, function.ready, function.stream_request) == (None, None, None, False)


@pytest.mark.parametrize(("value", "streams"), [("True", True), ("False", False)])
def test_a_module_asks_for_requests_as_streams(value, streams, folder):
    function = load_function(write(folder, handler=f"stream_request = {value}\n\n{HANDLE}'x'\n"))
    assert Application(function, Settings(), {}).stream_request is streams


def test_a_target_may_be_a_path(folder):
    write(folder, handler=HANDLE + "'here'\n")
    assert call(load_function(folder)).text == call(load_function(folder / "handler.py")).text == "here"


# -- what cannot be loaded --


@pytest.mark.parametrize("target", [5, None, b"handler", ["handler"]])
@pytest.mark.parametrize("load", [load_function, watchdog_app.make_application])
def test_a_target_of_another_type_is_an_error_that_names_it(load, target):
    with pytest.raises(
        TypeError, match=r"target is .*: it takes a file, a folder with handler\.py, or module:function"
    ):
        load(target)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: Function(None), "handle is None: it takes a function of event and context", id="handle"),
        pytest.param(
            lambda: Application("handler"),
            "handle is 'handler': it takes a function of event and context",
            id="function",
        ),
        pytest.param(lambda: Function(raises, startup=5), "startup is 5: it takes a function, or None", id="startup"),
        pytest.param(
            lambda: Function(raises, shutdown="x"), "shutdown is 'x': it takes a function, or None", id="shutdown"
        ),
        pytest.param(lambda: Function(raises, ready=True), "ready is True: it takes a function, or None", id="ready"),
        pytest.param(
            lambda: Application(raises, {"debug": "true"}),
            "settings is {'debug': 'true'}: it takes Settings",
            id="settings",
        ),
    ],
)
def test_wrong_use_names_the_argument_and_what_it_takes(make, says):
    with pytest.raises(TypeError, match=says):
        make()


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("nowhere", id="name"),
        pytest.param("nowhere/handler.py", id="file"),
        pytest.param("/nowhere/at/all", id="absolute"),
        pytest.param("module:", id="no function"),
        pytest.param("module:not a name", id="no name of a function"),
        pytest.param(":handle", id="no module"),
        pytest.param("..module:handle", id="relative module"),
        pytest.param("no/where:handle", id="path with a function"),
        pytest.param("nowhere:handle", id="module"),
        pytest.param("nowhere.at.all:handle", id="module of a package"),
        pytest.param("shop.orders:handle", id="module of what is no package"),
        pytest.param("shop.py:handle", id="file with a function"),
    ],
)
def test_a_target_that_does_not_exist_is_named_on_one_line(target, folder, monkeypatch):
    write(folder, shop=HANDLE + "'x'\n")
    monkeypatch.chdir(folder)
    with pytest.raises(SettingsError) as caught:
        load_function(target)
    message = str(caught.value)
    assert "TARGET" in message and target in message and "handler.py" in message
    assert "\n" not in message


def test_a_target_is_escaped_and_cut(folder):
    with pytest.raises(SettingsError) as caught:
        load_function("\x1b[31m\n" + "x" * 5000)
    assert str(caught.value).isascii() and str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["app.old.py", "app", "app.txt"])
def test_a_file_that_cannot_be_a_module_is_a_wrong_target(name, folder):
    file = folder / name
    file.write_text(HANDLE + "1\n")
    with pytest.raises(
        SettingsError,
        match=rf"TARGET '{re.escape(name)}' cannot be imported: it takes a \.py file, with a name without dots",
    ):
        load_function(str(file))


def test_a_module_that_imports_what_is_missing_is_there(folder, monkeypatch):
    write(folder, shop="import no_such_module_at_all\n")
    monkeypatch.chdir(folder)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        load_function("shop:order")


def test_an_application_for_another_server_is_made_of_a_target(folder):
    with restored_imports():
        application = watchdog_app.make_application(str(write(folder, handler=HANDLE + "'made'\n")))
    assert application.handle(None, None) == "made"


def test_a_folder_without_handler_is_a_wrong_target(folder):
    with pytest.raises(SettingsError, match=r"handler\.py") as caught:
        load_function(write(folder, other=HANDLE + "1\n"))
    assert str(folder)[:20] in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(
            "def handler(event, context):\n    return 1\n\ndef helper():\n    pass\n\nclass Order:\n    pass\n",
            id="another name",
        ),
        pytest.param(
            "handle = 5\n\ndef handler(event, context):\n    return 1\n\ndef helper():\n    pass\n", id="not a function"
        ),
    ],
)
def test_a_module_without_handle_is_named_with_its_functions(folder, source):
    with pytest.raises(LoadError) as caught:
        load_function(write(folder, handler="from os.path import join\nLIMIT = 5\n" + source))
    message = str(caught.value)
    assert str(folder / "handler.py") in message
    assert "handle" in message and "handler, helper" in message
    assert "join" not in message and "LIMIT" not in message


def test_an_empty_module_has_no_functions(folder):
    with pytest.raises(LoadError, match=r"handler\.py"):
        load_function(write(folder, handler=""))


def test_a_module_without_the_function_is_named(folder, monkeypatch):
    write(folder, shop="def order(event, context):\n    return 1\n")
    monkeypatch.chdir(folder)
    with pytest.raises(LoadError, match=r"shop\.py.*\border\b"):
        load_function("shop:orders")


def test_a_module_without_a_file_and_without_the_function_is_named():
    with restored_imports(), pytest.raises(LoadError, match=r"\btime\b"):
        load_function("time:order")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        pytest.param("def handle(event, context)\n    pass\n", SyntaxError, id="syntax error"),
        pytest.param("import no_such_module_at_all\n", ModuleNotFoundError, id="module not found"),
        pytest.param("from .missing import x\n", ModuleNotFoundError, id="sibling not found"),
        pytest.param("1 / 0\n", ZeroDivisionError, id="exception"),
        pytest.param("import sys\nsys.exit(0)\n", SystemExit, id="sys.exit"),
    ],
)
def test_what_the_import_raises_is_raised(folder, source, error):
    with pytest.raises(error):
        load_function(write(folder, handler=source))


# -- the same, as a program --


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        pytest.param("def handle(event, context)\n    pass\n", ["SyntaxError", "handler.py"], id="syntax error"),
        pytest.param(
            "import no_such_module\n",
            ["ModuleNotFoundError", "no_such_module", "requirements.txt"],
            id="module not found",
        ),
        pytest.param("1 / 0\n", ["Traceback", "ZeroDivisionError", "handler.py"], id="exception"),
        pytest.param("import sys\nsys.exit(0)\n", ["SystemExit"], id="sys.exit"),
        pytest.param("def handler(event, context):\n    pass\n", ["handler.py", "handle", "handler"], id="no handle"),
    ],
)
def test_a_function_that_cannot_be_imported_ends_the_program_with_1(folder, source, shown):
    with process(write(folder, handler=source)) as program:
        status, log = program.end()
    assert status == 1
    assert log.startswith("ERROR ") and log.count("ERROR") == 1
    assert all(text in log for text in shown)


def test_a_target_that_does_not_exist_ends_the_program_with_2(tmp_path):
    with process(tmp_path / "nowhere") as program:
        status, log = program.end()
    assert status == 2
    assert log.count("\n") == 1
    assert "TARGET" in log and "nowhere" in log


def test_a_body_without_a_declared_length_is_read_to_its_end_as_pep_3333_allows():
    variables = {"wsgi.input": io.BytesIO(b"chunked"), "wsgi.input_terminated": True}
    assert call(lambda event, context: event.body, "POST", **variables).body == b"chunked"
