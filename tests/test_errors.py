"""What the log says of a function's fault: its file and line, a hint, and nothing of the runtime's own code."""

from __future__ import annotations

import re
import signal
import sys

import pytest
from conftest import HANDLE, ROOT, call, process, write

import watchdog_app
from watchdog_app import LoadError, load_function

OWN = str(ROOT / "watchdog_app.py")


def record_of(folder, log, source, target="/", **modules):
    """Call a function of this source; return the record of its failure, which is to name none of the runtime's code."""
    function = load_function(write(folder, handler=source, **modules))
    log.getvalue()
    assert call(function, target=target).status == 500
    record = log.getvalue()
    assert record.count("ERROR") == 1
    assert OWN not in record and "importlib" not in record
    return record


def lines_of(folder, record):
    """Return the places that a record names, as file and line."""
    return re.findall(rf'{folder}/(\w+\.py)(?:", line |:)(\d+)', record)


RAISES = """
import json, os, asyncio
def fails(): return 1 / 0
async def fails_later(): return 1 / 0
def handle(event, context):
    {statement}
"""
CALLS = [
    pytest.param("fails()", [6, 3], "ZeroDivisionError", id="exception"),
    pytest.param("context.secret('x/y')", [6], "secret", id="raised by the context"),
    pytest.param("event.query.get('a', type=1)", [6], "TypeError", id="raised by the query"),
    pytest.param("return fails_later()", [4], "ZeroDivisionError", id="coroutine"),
    pytest.param("return map(int, ['x'])", [5], "ValueError", id="iterator written in C"),
    pytest.param("import sibling", [6, "sibling.py", 2], "ZeroDivisionError", id="bare import"),
    pytest.param("from . import sibling", [6, "sibling.py", 2], "ZeroDivisionError", id="relative import"),
    pytest.param("from function.sibling import x", [6, "sibling.py", 2], "ZeroDivisionError", id="import of function"),
    pytest.param("import unclosed", [6, "unclosed.py", 1], "SyntaxError", id="syntax error"),
    pytest.param("from . import unclosed", [6, "unclosed.py", 1], "SyntaxError", id="relative syntax error"),
    pytest.param("return (1 / n for n in [0])", [6], "ZeroDivisionError", id="generator"),
    pytest.param(
        "try: fails()\n    except Exception as e: raise OSError(1) from e",
        [6, 3, 7],
        "direct cause",
        id="two exceptions",
    ),
    pytest.param("try: context.secret('/')\n    except ValueError: fails()", [6, 7, 3], "During handling", id="second"),
]


@pytest.mark.parametrize(("statement", "places", "says"), CALLS)
def test_record_of_a_call_names_the_functions_lines_alone(folder, log, statement, places, says):
    source = RAISES.format(statement=statement)
    record = record_of(folder, log, source, sibling="\n1 / 0\n", unclosed="x = (\n")
    assert says in record
    named = [int(line) if file == "handler.py" else (file, int(line)) for file, line in lines_of(folder, record)]
    expected = [tuple(places[i : i + 2]) if isinstance(it, str) else it for i, it in enumerate(places)]
    assert named == [it for i, it in enumerate(expected) if not (i and isinstance(places[i - 1], str))]


RESULTS = [
    pytest.param("object()", "object", id="no JSON"),
    pytest.param("{'statusCode': 9000}", "status 9000", id="status"),
    pytest.param("('x', {'A': 'b\\nc'})", "header A", id="header"),
    pytest.param("iter([object()])", "object", id="item of a stream"),
]


@pytest.mark.parametrize(("result", "says"), RESULTS)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_record_of_a_result_names_the_line_of_handle(folder, log, result, says, kind):
    record = record_of(folder, log, f"\n{kind} handle(event, context):\n    return {result}\n")
    assert says in record
    assert lines_of(folder, record) == [("handler.py", "2")]


HANDLES = [
    pytest.param("import functools\n\n@functools.lru_cache\n" + HANDLE + "object()\n", 3, id="decorated"),
    pytest.param("class H:\n    def __call__(self, e, c):\n        return object()\nhandle = H()\n", 2, id="instance"),
]


@pytest.mark.parametrize(("source", "line"), HANDLES)
def test_record_of_a_result_names_the_line_of_any_handle(folder, log, source, line):
    assert lines_of(folder, record_of(folder, log, source)) == [("handler.py", str(line))]


def test_runtimes_own_frames_are_shown_to_those_who_debug(folder, log, monkeypatch):
    monkeypatch.setattr(watchdog_app.log, "level", watchdog_app.LEVELS["debug"])
    assert call(load_function(write(folder, handler=HANDLE + "1 / 0\n"))).status == 500
    assert OWN in log.getvalue()


NOT_CALLED = """
import json
class Order:
    def total(self): return 1
class Pair:
    def __init__(self, one, other): pass
def work(): return 1
async def later(event, context): return 1
async def items(event, context): yield 1
def handle(event, context):
    return {result}
"""


@pytest.mark.parametrize(
    ("result", "name"),
    [
        pytest.param("work", "work", id="function"),
        pytest.param("later", "later", id="coroutine function"),
        pytest.param("items", "items", id="async generator function"),
        pytest.param("Order", "Order", id="class"),
        pytest.param("Pair", "Pair", id="class of two values"),
        pytest.param("Order().total", "total", id="method"),
        pytest.param("event.json", "json", id="method of event"),
        pytest.param("lambda: 1", "<lambda>", id="lambda"),
    ],
)
def test_result_that_was_not_called_says_so(folder, log, result, name):
    record = record_of(folder, log, NOT_CALLED.format(result=result))
    assert f"which was not called: return {name}(), not {name}" in record
    assert lines_of(folder, record) == [("handler.py", "10")]


@pytest.mark.parametrize(
    "result",
    [
        pytest.param("function", id="function"),
        pytest.param("Class", id="class"),
        pytest.param("Instance()", id="instance"),
        pytest.param("Instance().method", id="method"),
        pytest.param("lambda *arguments: function(*arguments)", id="lambda"),
        pytest.param("functools.partial(lambda x, e, s: function(e, s), 1)", id="partial"),
        pytest.param("Proxy(function)", id="proxy"),
    ],
)
def test_wsgi_application_of_any_kind_is_a_result(folder, result):
    source = """
import functools
def function(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"sent"]
class Class:
    def __init__(self, environ, start_response):
        self.items = function(environ, start_response)
    def __iter__(self): return iter(self.items)
class Instance:
    def __call__(self, environ, start_response): return function(environ, start_response)
    def method(self, environ, start_response): return function(environ, start_response)
class Proxy:
    def __init__(self, target): self.target = target
    def __getattr__(self, name): return getattr(vars(self)["target"], name)
    def __call__(self, *arguments, **named): return vars(self)["target"](*arguments, **named)
def handle(event, context):
    return """
    assert call(load_function(write(folder, handler=f"{source}{result}\n"))).text == "sent"


def test_data_that_can_be_called_is_a_result(folder):
    source = "import dataclasses\n@dataclasses.dataclass\nclass Order:\n    total: int\n    def __call__(self): pass\n"
    assert call(load_function(write(folder, handler=f"{source}{HANDLE}Order(5)\n"))).text == '{"total":5}'


# -- the start --


SIGNATURES = [
    pytest.param("def handle(req):", "handle(req)", id="of the older templates"),
    pytest.param("def handle():", "handle()", id="none"),
    pytest.param("def handle(event, context, more):", "handle(event, context, more)", id="three"),
    pytest.param("def handle(event, context, *, more):", "handle(event, context, *, more)", id="required by name"),
    pytest.param("async def handle(req):", "handle(req)", id="async"),
    pytest.param("class handle:\n    def __init__(self, req):", "handle(req)", id="class"),
]


@pytest.mark.parametrize(("definition", "found"), SIGNATURES)
def test_handle_of_another_signature_is_named_with_the_wanted_one(folder, definition, found):
    indent = "        " if "class" in definition else "    "
    with pytest.raises(LoadError) as caught:
        load_function(write(folder, handler=f"\n{definition}\n{indent}return None\n"))
    place = "<class 'function.handler.handle'>:0: " if "class" in definition else f"{folder}/handler.py:2: "
    assert str(caught.value) == f"{place}{found} cannot be called as handle(event, context)"


@pytest.mark.parametrize(
    "definition",
    [
        "def handle(event, context=None):",
        "def handle(event, context, more=1, **others):",
        "def handle(*arguments):",
        "def handle(a, b, /):",
        "import functools\n@functools.partial\ndef handle(event, context):",
        "import functools\n@functools.lru_cache\ndef handle(event, context):",
        "class handle:\n  def __new__(cls, event, context):",
        "import functools\ndef handle(req): pass\n@functools.wraps(handle)\ndef handle(*arguments):",
    ],
)
def test_handle_that_can_be_called_with_two_arguments_is_taken(folder, definition):
    assert call(load_function(write(folder, handler=f"{definition}\n    return 'called'\n"))).text == "called"


def test_handle_of_another_signature_ends_the_program_with_1(tmp_path):
    with process(write(tmp_path, handler="def handle(req):\n    return req\n")) as program:
        status, log = program.end()
    assert status == 1
    assert log == f"ERROR {tmp_path}/handler.py:1: handle(req) cannot be called as handle(event, context)\n"


def test_name_of_a_hook_with_another_signature_is_no_hook(folder, log):
    source = "def shutdown(signum, frame): pass\ndef startup(app, config): pass\ndef ready(order): pass\n"
    function = load_function(write(folder, handler=f"{source}{HANDLE}1\n"))
    assert (function.startup, function.shutdown, function.ready) == (None, None, None)
    assert log.getvalue().splitlines() == [
        f"WARNING {folder}/handler.py:2: startup(app, config) cannot be called as startup(context): it is not used as a hook",
        f"WARNING {folder}/handler.py:1: shutdown(signum, frame) cannot be called as shutdown(context): it is not used as a hook",
        f"WARNING {folder}/handler.py:3: ready(order) cannot be called as ready(): it is not used as a hook",
    ]


def listed(package):
    return f"is '{package}' listed in requirements.txt, and has the function been rebuilt since?"


HINTS = [
    pytest.param("import PIL.Image", listed("Pillow"), id="Pillow"),
    pytest.param("import cv2", listed("opencv-python-headless"), id="OpenCV"),
    pytest.param("import yaml", listed("PyYAML"), id="PyYAML"),
    pytest.param("from sklearn import svm", listed("scikit-learn"), id="scikit-learn"),
    pytest.param("import flask", listed("flask"), id="Flask"),
    pytest.param("import bs4", listed("beautifulsoup4"), id="Beautiful Soup"),
    pytest.param("from dateutil.parser import parse", listed("python-dateutil"), id="dateutil"),
    pytest.param("from nosuch.sub import x", listed("nosuch"), id="of a package"),
    pytest.param("from .helper import x", "FOLDER has no helper.py, only handler.py, helpers.py", id="relative"),
    pytest.param("import function.helper", "FOLDER has no helper.py, only handler.py, helpers.py", id="of function"),
    pytest.param("import lib.other", "FOLDER/lib has no other.py, only words.py", id="of a folder"),
    pytest.param("from .lib.other import x", "FOLDER/lib has no other.py, only words.py", id="relative, of a folder"),
    pytest.param("import words", "lib/words.py in the function's folder is imported as lib.words", id="in a folder"),
    pytest.param("import _no_tkinter", listed("_no_tkinter"), id="private"),
    pytest.param(
        "raise ModuleNotFoundError('curses', name='curses')",
        "curses is part of the standard library, but not of the image",
        id="of the standard library",
    ),
]


@pytest.mark.parametrize(("statement", "hint"), HINTS)
def test_missing_module_is_named_with_where_it_may_come_from(folder, log, statement, hint, monkeypatch):
    for name in ("PIL", "cv2", "yaml", "sklearn", "bs4", "dateutil", "flask"):
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    (folder / "lib").mkdir()
    write(folder / "lib", words="")
    record = record_of(folder, log, f"def handle(event, context):\n    {statement}\n", helpers="")
    assert record.splitlines()[-1] == "  Hint: " + hint.replace("FOLDER", str(folder))


@pytest.mark.parametrize(
    "cause",
    ["\n    finally:\n        pass", "\n    except Exception:\n        raise ValueError"],
    ids=["error", "context"],
)
def test_missing_module_of_a_missing_package_is_shown(folder, log, cause):
    raised = "raise ModuleNotFoundError('odd', name='no_such.part')"
    record = record_of(folder, log, f"def handle(event, context):\n    try:\n        {raised}{cause}\n", helpers="")
    assert "ModuleNotFoundError: odd\n" in record


def test_missing_module_ends_the_program_with_a_hint(tmp_path):
    with process(write(tmp_path, handler="import helper\n", helper="from .help import x\n", helpers="")) as program:
        status, log = program.end()
    assert status == 1
    assert log.count("ERROR") == 1 and OWN not in log
    assert log.endswith(f"  Hint: {tmp_path} has no help.py, only handler.py, helper.py, helpers.py\n")


@pytest.mark.parametrize("number", [13, 30], ids=["EACCES", "EROFS"])
@pytest.mark.parametrize(
    ("path", "helps"),
    [
        pytest.param("os.path.join(os.path.dirname(__file__), 'x')", True, id="in the function's folder"),
        pytest.param("'state.json'", True, id="relative"),
        pytest.param("os.path.join(os.getcwd(), 'a', 'b').encode()", True, id="below the current folder, as bytes"),
        pytest.param("'/var/x'", False, id="elsewhere"),
        pytest.param("None", False, id="nowhere"),
    ],
)
def test_write_that_is_refused_says_what_can_be_written(folder, log, number, path, helps):
    source = f"import os\ndef handle(event, context):\n    raise OSError({number}, 'refused', {path})\n"
    hints = [line for line in record_of(folder, log, source).splitlines() if "Hint" in line]
    assert hints == ["  Hint: in its container, a function can write only to /tmp and to volumes"] * helps


# -- what runs outside of a call --

FAILS = "\n\ndef fails(): return 1 / 0\n"
LATER = [
    pytest.param(f"def startup(context): fails()\n{HANDLE}1\n", [4, 3], "startup failed", 1, id="startup"),
    pytest.param(f"async def startup(context): fails()\n{HANDLE}1\n", [4, 3], "startup failed", 1, id="async startup"),
    pytest.param("fails()\n", [4, 3], "cannot be imported", 1, id="import"),
    pytest.param("import helper\n", [4, "helper.py"], "cannot be imported", 1, id="import of another"),
    pytest.param("x = (\n", [4], "SyntaxError", 1, id="syntax error"),
]


@pytest.mark.parametrize(("source", "places", "says", "status"), LATER)
def test_record_of_the_start_names_the_functions_lines_alone(tmp_path, source, places, says, status):
    with process(write(tmp_path, handler=f"{FAILS}{source}", helper="1 / 0\n")) as program:
        ended, log = program.end()
    assert (ended, log.count("ERROR")) == (status, 1)
    assert says in log and OWN not in log and "importlib" not in log
    named = [int(line) if file == "handler.py" else file for file, line in lines_of(tmp_path, log)]
    assert named == places


def test_record_of_shutdown_and_readiness_names_the_functions_lines_alone(folder, log):
    source = f"{FAILS}def shutdown(context): fails()\ndef ready(): fails()\n{HANDLE}1\n"
    application = watchdog_app.Application(load_function(write(folder, handler=source)), watchdog_app.Settings(), {})
    application.shutdown()
    first = log.getvalue()
    assert lines_of(folder, first) == [("handler.py", "4"), ("handler.py", "3")]
    assert call(load_function(str(folder)), target="/_/ready").status == 503
    assert lines_of(folder, log.getvalue().removeprefix(first)) == [("handler.py", "5"), ("handler.py", "3")]
    assert OWN not in log.getvalue()


APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"sent"
    fails()
"""


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        pytest.param(f"{APPLICATION}{HANDLE}application\n", ["8", "3"], id="WSGI application"),
        pytest.param(f"{HANDLE}(b'x' * n or fails() for n in [1, 0])\n", ["5", "3"], id="generator"),
        pytest.param(
            "async def handle(event, context):\n    yield 'x'\n    fails()\n", ["6", "3"], id="async generator"
        ),
        pytest.param(
            "import threading\ndef handle(event, context):\n    thread = threading.Thread(target=fails)\n"
            "    thread.start()\n    thread.join()\n    return 'x'\n",
            ["3"],
            id="thread",
        ),
        pytest.param(
            "import logging\ndef handle(event, context):\n    try: fails()\n    except Exception:"
            " logging.exception('caught')\n    return 'x'\n",
            ["6", "3"],
            id="logging",
        ),
    ],
)
def test_record_of_what_fails_later_names_the_functions_lines_alone(tmp_path, source, lines):
    with process(write(tmp_path, handler=f"{FAILS}{source}")) as program:
        assert b"Listening" in program.popen.stderr.readline()
        program.popen.stderr.readline()
        assert program.answers()
        program.popen.send_signal(signal.SIGINT)
        status, log = program.end()
    assert status == 0
    assert log.count("ERROR") == 1 and OWN not in log and "threading.py" not in log
    assert [line for _, line in lines_of(tmp_path, log)] == lines
