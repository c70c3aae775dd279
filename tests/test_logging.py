"""The standard library's logging in a function: at INFO without any set-up, with the call's id, as text or JSON."""

from __future__ import annotations

import importlib
import json
import re
import signal
import sys
import zipfile

import pytest
from conftest import connect_and_get, process, read_all, wait_for
from test_lifecycle import GET, connected

from watchdog_app import ImportHook

SEVERAL = """
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor

POOL = ThreadPoolExecutor(1)

{imports}

def note(text):
    import logging
    logging.getLogger("shop").info("%s", text)

def handle(event, context):
    note("call")
    thread = threading.Thread(target=note, args=("thread",))
    thread.start()
    thread.join()
    POOL.submit(note, "pool").result()
    return stream()

def stream():
    yield "x"
    note("stream")
"""
TASKS = """
import asyncio, logging

async def handle(event, context):
    logging.info("coroutine")
    await asyncio.gather(inner("task"), asyncio.to_thread(logging.info, "worker"))
    return stream()

async def inner(text):
    logging.info(text)

async def stream():
    yield "x"
    logging.info("stream")
"""


def logged(source, tmp_path, **settings):
    """Return what a function logs in one call, line by line."""
    file = tmp_path / "handler.py"
    file.write_text(source)
    with process(file, **settings) as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(signal.SIGINT)
        status, log = program.end()
    assert status == 0
    return [line for line in log.splitlines() if "istening on" not in line and "curl" not in line]


@pytest.mark.parametrize("imports", ["", "import logging"], ids=["imported in the call", "imported at the start"])
def test_records_of_a_call_and_of_what_it_starts_carry_its_id(imports, tmp_path):
    lines = logged(SEVERAL.format(imports=imports), tmp_path)
    calls = {line.split()[2] for line in lines}
    assert len(calls) == 1 and len(calls.pop()) == 34
    assert [line.split(maxsplit=3)[3] for line in lines] == ["shop: call", "shop: thread", "shop: pool", "shop: stream"]


def test_records_of_tasks_carry_the_id_of_their_call(tmp_path):
    lines = logged(TASKS, tmp_path)
    assert len({line.split()[2] for line in lines}) == 1
    assert sorted(line.split(maxsplit=3)[3] for line in lines) == [
        "root: coroutine",
        "root: stream",
        "root: task",
        "root: worker",
    ]


def test_pool_thread_that_lives_on_takes_the_id_of_the_next_call(tmp_path):
    source = SEVERAL.format(imports="")
    file = tmp_path / "handler.py"
    file.write_text(source)
    with process(file) as program:
        wait_for(program.answers, "an answer")
        connect_and_get(program.port)
        program.popen.send_signal(signal.SIGINT)
        log = program.end()[1]
    pairs = [(line.split()[2], line.split(": ")[1]) for line in log.splitlines() if "shop" in line]
    assert len({call for call, _ in pairs}) == 2
    assert all(
        sum(1 for pair in pairs if pair == (call, text)) == 1
        for call, _ in pairs
        for text in ("call", "thread", "pool", "stream")
    )


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", ["d", "i", "w", "e"]), ("info", ["i", "w", "e"]), ("warning", ["w", "e"]), ("error", ["e"])],
)
def test_log_level(level, shown, tmp_path):
    source = "import logging\nlogging.debug('d')\nlogging.info('i')\nlogging.warning('w')\nlogging.error('e')\n"
    lines = logged(source + "def handle(event, context): pass\n", tmp_path, log_level=level)
    assert [line.split()[-1] for line in lines] == shown


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["INFO", "WARNING", "ERROR"]),
        ("info", ["INFO", "WARNING", "ERROR"]),
        ("warning", ["WARNING", "ERROR"]),
        ("error", ["ERROR"]),
    ],
)
def test_log_level_holds_for_the_runtimes_own_records(level, shown, tmp_path):
    file = tmp_path / "handler.py"
    file.write_text(
        "def handle(event, context): return {'statusCode': 200, 'body': 'x', 'more': 1}\ndef shutdown(context): 1 / 0\n"
    )
    with process(file, log_level=level) as program:
        wait_for(program.answers, "an answer")
        program.popen.send_signal(signal.SIGINT)
        log = program.end()[1]
    assert [line.split()[0] for line in log.splitlines() if line[0] != " "] == shown


@pytest.mark.parametrize(
    ("set_up", "line"),
    [
        pytest.param(
            "logging.basicConfig(format='own %(message)s %(call_id)s', level='INFO')", "own x id-7", id="basicConfig"
        ),
        pytest.param(
            "logging.basicConfig(format='own %(message)s'); logging.getLogger().setLevel('INFO')",
            "own x",
            id="format, then level",
        ),
        pytest.param("logging.getLogger().setLevel('WARNING')", None, id="level"),
        pytest.param("logging.basicConfig(level='WARNING')", None, id="basicConfig with a level"),
        pytest.param("logging.basicConfig()", "INFO call 'id-7' shop: x", id="basicConfig without anything"),
        pytest.param("logging.getLogger('shop').addHandler(logging.NullHandler())", None, id="handler"),
    ],
)
def test_what_the_function_sets_up_wins(set_up, line, tmp_path):
    call = "def handle(event, context):\n    context.call_id = 'id-7'\n    logging.getLogger('shop').info('x')\n"
    lines = logged(f"import logging\n{set_up}\n{call}", tmp_path)
    assert lines == ([line] if line else [])


def test_logging_that_was_imported_before_the_program_is_set_up(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import logging\n")
    source = "import logging\ndef handle(event, context):\n    context.call_id = 'id-7'\n    logging.info('x')\n"
    assert logged(source, tmp_path, PYTHONPATH=str(tmp_path)) == ["INFO call 'id-7' root: x"]


def test_level_that_was_set_before_the_program_wins(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import logging\nlogging.root.setLevel(logging.DEBUG)\n")
    source = "import logging\ndef handle(event, context):\n    context.call_id = 'id-7'\n    logging.debug('x')\n"
    assert logged(source, tmp_path, PYTHONPATH=str(tmp_path), log_level="debug") == ["DEBUG call 'id-7' root: x"]
    assert logged(source.replace("debug", "info"), tmp_path, PYTHONPATH=str(tmp_path)) == ["INFO call 'id-7' root: x"]


@pytest.mark.parametrize(
    "make",
    [
        "logging.LogRecord(None, 20, '', 1, 'x', None, None)",
        "logging.makeLogRecord({'msg': 'x', 'levelno': 20, 'levelname': 'INFO'})",
    ],
)
def test_record_that_the_function_makes_is_logged(make, tmp_path):
    (line,) = logged(f"import logging\ndef handle(event, context):\n    logging.getLogger().handle({make})\n", tmp_path)
    assert line.startswith("INFO ") and line.endswith(" x")


def test_json_is_one_object_a_line_tracebacks_included(tmp_path):
    source = "import logging\ndef handle(event, context):\n    logging.info('a\\nb')\n    try:\n        1 / 0\n    except Exception:\n"
    source += "        logging.exception('caught')\n    raise ValueError('ü')\n"
    records = [json.loads(line) for line in logged(source, tmp_path, log_format="json")]
    assert [record["level"] for record in records] == ["INFO", "ERROR", "ERROR"]
    assert [record["message"] for record in records] == ["a\nb", "caught", "'GET' '/' failed"]
    assert len({record["call_id"] for record in records}) == 1
    assert "ZeroDivisionError" in records[1]["traceback"] and "ValueError: ü" in records[2]["traceback"]
    assert records[0]["logger"] == "root" and records[0]["time"].endswith("Z")


def test_json_record_that_would_be_too_long_for_a_line_is_cut(tmp_path):
    source = "import logging\ndef handle(event, context):\n    logging.info('x' * 200_000)\n"
    (line,) = logged(source, tmp_path, log_format="json")
    head, marker, tail = json.loads(line)["message"].split("\n")
    assert re.fullmatch(r"\.\.\. \d+ more characters \.\.\.", marker) and len(line) <= 60 * 1024
    assert len(head) + int(marker.split()[1]) + len(tail) == 200_000


def test_long_exception_is_logged_soon(tmp_path):
    source = "import logging, time\ndef handle(event, context):\n    try:\n        raise ValueError('x\\n' * 5_000_000)\n    except ValueError:\n"
    source += "        began = time.thread_time()\n        logging.exception('caught')\n        print(time.thread_time() - began)\n"
    file = tmp_path / "handler.py"
    file.write_text(source)
    with process(file) as program, wait_for(lambda: connected(program.port), "the listener") as sock:
        sock.sendall(GET)
        program.popen.terminate()  # before its answer, for which it would wait until what it logs is read
        assert float(program.popen.communicate(timeout=20)[0]) < 1


def test_record_that_cannot_be_formatted_is_the_functions_fault_and_stops_nothing(tmp_path):
    lines = logged(
        "import logging\ndef handle(event, context):\n    logging.info('%d', 'x')\n    logging.info('next')\n", tmp_path
    )
    assert "--- Logging error ---" in lines[0] and lines[-1].endswith("root: next")


def test_logging_is_not_imported_for_a_function_that_does_not(tmp_path):
    lines = logged(
        "import sys\ndef handle(event, context): print('logging' in sys.modules, 'asyncio' in sys.modules, file=sys.stderr)\n",
        tmp_path,
    )
    assert lines == ["False False"]


def test_modules_of_a_zip_share_a_loader_and_only_the_one_that_is_waited_for_is_set_up(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "library.zip", "w") as file:
        file.writestr("zipped_one.py", "import zipped_two")
        file.writestr("zipped_two.py", "")
        file.writestr("zipped_three.py", "")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.syspath_prepend(tmp_path / "library.zip")
    seen = []
    ImportHook("zipped_one", lambda module: seen.append(module.__name__)).install()
    modules = [importlib.import_module(name) for name in ("zipped_one", "zipped_three")]
    assert seen == ["zipped_one"] and len({id(module.__loader__) for module in modules}) == 1


EXTRA = """
import datetime, logging

def handle(event, context):
    logging.info("x", extra={extra})
    return "x"
"""


def extra_fields(tmp_path, extra):
    """Return the record of one `logging.info` with `extra=`, without the fields that each record has."""
    (line,) = logged(EXTRA.replace("{extra}", extra), tmp_path, log_format="json")
    assert len(line) <= 60 * 1024
    record = json.loads(line)
    assert (record.pop("level"), record.pop("message"), record.pop("logger")) == ("INFO", "x", "root")
    assert record.pop("time")[-1] == "Z" and len(record.pop("call_id")) == 32
    return record


PLAIN_VALUES = {"a": "ü", "b": 1, "c": 2.5, "d": True, "e": None}


@pytest.mark.parametrize(
    ("extra", "fields"),
    [
        pytest.param(repr(PLAIN_VALUES), PLAIN_VALUES, id="plain values"),
        pytest.param("{'a': {'b': [1, 'c']}}", {"a": {"b": [1, "c"]}}, id="nested"),
        pytest.param("{'a': datetime.date(2024, 2, 29)}", {"a": "2024-02-29"}, id="date"),
        pytest.param("{'a': [datetime.date(2024, 2, 29)]}", {"a": ["2024-02-29"]}, id="date in a list"),
        pytest.param("{'a': float('nan')}", {"a": "nan"}, id="NaN, which is no JSON"),
        pytest.param("{'a': {(1, 2): 3}}", {"a": "{(1, 2): 3}"}, id="key that is no JSON"),
        pytest.param("{'level': 'own', 'time': 'own', 'logger': 'own'}", {}, id="names of the record's own fields"),
        pytest.param("{'trace_id': 'own'}", {"trace_id": "own"}, id="an id of its own"),
        pytest.param("{f'a{n}': n for n in range(5000)}", {}, id="too many for a line"),
        pytest.param("{'a' * 70_000: 1}", {}, id="name that is too long for a line"),
    ],
)
def test_extra_of_a_record_is_kept_in_json(extra, fields, tmp_path):
    assert extra_fields(tmp_path, extra) == fields


@pytest.mark.parametrize("value", ["'x' * 200_000", "['x'] * 50_000"], ids=["text", "list"])
def test_extra_that_would_be_too_long_for_a_line_is_cut(value, tmp_path):
    assert re.search(r"\n\.\.\. \d+ more characters \.\.\.\n", extra_fields(tmp_path, f"{{'a': {value}}}")["a"])


def test_extra_is_no_part_of_a_record_as_text(tmp_path):
    (line,) = logged(EXTRA.replace("{extra}", "{'a': 'b'}"), tmp_path)
    assert line.endswith("root: x")


TRACED = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\ntraceparent: 00-%b-b7ad6b7169203331-01\r\n\r\n"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
FAILS_LATE = """
import logging, threading

{prefix}def stream():
    yield "x"
    logging.info("stream")
    raise ValueError

{prefix}def handle(event, context):
    logging.info("call")
    thread = threading.Thread(target=logging.info, args=("thread",))
    thread.start()
    thread.join()
    return stream()
"""


@pytest.mark.parametrize("prefix", ["", "async "], ids=["plain", "async"])
def test_records_of_a_call_and_that_of_its_failure_carry_its_trace_id_in_json(prefix, tmp_path):
    file = tmp_path / "handler.py"
    file.write_text(FAILS_LATE.format(prefix=prefix))
    with process(file, log_format="json") as program:
        with wait_for(lambda: connected(program.port), "the listener") as sock:
            sock.sendall(TRACED % TRACE_ID.encode())
            read_all(sock)
        program.popen.send_signal(signal.SIGINT)
        records = [json.loads(line) for line in program.end()[1].splitlines()]
    found = {record["message"]: record.get("trace_id") for record in records if "istening" not in record["message"]}
    assert found == dict.fromkeys(["call", "thread", "stream", "'GET' '/' failed"], TRACE_ID)
