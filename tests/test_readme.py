"""The README and the pages behind it say what is so: their commands and blocks run, and their tables equal the code."""

import ast
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from conftest import (
    DEADLINE,
    ROOT,
    block_examples,
    call,
    check_block,
    clean_env,
    connect_and_get,
    copy_checkout,
    process,
    python_blocks,
    read_answer,
    run_program,
    serving,
    table_rows,
    wait_for,
)

import watchdog_app

REAL = shutil.which("fwatchdog")
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs/reference.md").read_text()

BLOCKS = python_blocks("README.md") + python_blocks("docs/reference.md")
MODULE = (ROOT / "watchdog_app.py").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))


def block(name, page=README):
    """Return the lines of a page's block behind the comment `name`."""
    return re.search(rf"<!-- {name} -->\n```console\n(.*?)```", page, re.DOTALL)[1].splitlines()


def table(name, page=REFERENCE):
    """Return the rows of a page's table behind the comment `name`."""
    return table_rows(re.search(rf"<!-- {name} -->\n((?:\|.*\n)+)", page)[1])


def names(cell):
    """Return the names in a table's cell."""
    return re.findall(r"`([A-Za-z_]+)(?:\(\))?`", cell)


@pytest.mark.parametrize(
    ("block", "line"), [pytest.param(*example, id=example[1]) for example in block_examples(BLOCKS)]
)
def test_example_answers_as_it_says(block, line, monkeypatch):
    check_block(block, line, monkeypatch)


def test_every_python_block_says_what_it_answers():
    assert all("\n# " in block.source for block in BLOCKS)


def test_settings_are_those_of_the_code():
    documented = {names(row[0])[0]: row[1].strip("`") for row in table("settings")}
    assert documented == {name: default for name, (_, default) in watchdog_app.SETTINGS.items()}


@pytest.mark.skipif(not REAL, reason="fwatchdog is not on PATH")
def test_settings_with_a_star_are_of_watchdogs_too():
    program = Path(REAL).read_bytes()
    starred = [names(row[0])[0] for row in table("settings") if row[0].endswith("*")]
    assert len(starred) == 8
    assert [name for name in starred if name.encode() not in program] == []


def test_build_arguments_and_their_defaults_are_those_of_the_dockerfile():
    defaults = dict(re.findall(r'^ARG ([A-Z_]+)="?(.*?)"?$', (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    rows = {row[0].strip("`"): row[1] for row in table("arguments")}
    assert rows.keys() == defaults.keys()
    in_words = {name for name, default in rows.items() if default and default[0] != "`"}
    assert in_words == {"TEST_COMMAND"}
    assert [name for name in rows.keys() - in_words if rows[name].strip("`") != defaults[name]] == []


def test_readme_names_each_hook_as_the_reference_does():
    hooks = {re.match(r"`(.*?)`", row[0])[1] for row in table("hooks")}
    assert hooks <= set(re.findall(r"`(\w+\([^`]*\))`", README))


def test_hooks_are_those_of_the_code():
    found = [re.match(r"`(\w+)\(([\w, ]*)\)`", row[0]) for row in table("hooks")]
    documented = {match[1]: match[2].count(",") + bool(match[2]) for match in found}
    parameters = set(inspect.signature(watchdog_app.Function).parameters) - {"handle", "stream_request"}
    assert documented.keys() == parameters
    seen = []

    def hook(name, *arguments):
        seen.append((name, len(arguments)))
        return arguments[0] if name == "wrap" else "x"

    hooks = {name: functools.partial(hook, name) for name in parameters}
    function = watchdog_app.Function(lambda event, context: 1 / 0, **hooks)
    application = watchdog_app.Application(function, watchdog_app.Settings(), {})
    application.startup()
    wrapped = application.wrapped()
    for path in ("/_/ready", "/"):
        wrapped({"REQUEST_METHOD": "GET", "PATH_INFO": path}, lambda status, headers: None)
    application.shutdown()
    assert seen == [(name, documented[name]) for name in ("startup", "wrap", "ready", "on_error", "shutdown")]


def test_event_has_what_the_table_names():
    public = {name for name in vars(watchdog_app.Event) if not name.startswith("_")} | {"environ"}
    assert {name for row in table("event") for name in names(row[0])} == public


def test_context_has_what_the_table_names():
    context = watchdog_app.Context.of({}, watchdog_app.Settings())
    public = {name for name in (*vars(watchdog_app.Context), *vars(context)) if not name.startswith("_")} - {"of"}
    assert {name for row in table("context") for name in names(row[0])} == public


def test_contract_in_short_names_what_the_reference_has():
    reference = {f"{page}.{name}" for page in ("event", "context") for row in table(page) for name in names(row[0])}
    short = [name for row in table("contract", README) for name in re.findall(r"`([a-z_.]+)(?:\(\))?`", row[0])]
    assert len(short) > 10 and set(short) <= reference


# ---- the figures of the first screen ----

RESULTS_OF_BENCH = json.loads((ROOT / "bench/results.json").read_text())["scenarios"]
COMPARED = ["product", "flask", "framework", "flask"]  # the columns of the comparison


def median(scenario, peer, key):
    return RESULTS_OF_BENCH[scenario]["figures"][peer][key]["median"]


@pytest.mark.parametrize(
    ("row", "scenario", "key", "rounding", "unit"),
    [
        pytest.param("requests a second", "get-32", "rate", -2, "", id="rate"),
        pytest.param("start to first response", "start", "start_ms", 0, " ms", id="start"),
        pytest.param("memory after 100 000 calls", "memory", "memory_mb", 0, " MB", id="memory"),
    ],
)
def test_comparison_has_the_medians_of_the_bench(row, scenario, key, rounding, unit):
    (cells,) = [cells for name, *cells in table("comparison", README) if name == row]
    medians = [round(median(scenario, peer, key), rounding) for peer in COMPARED]
    assert cells == [f"{value:,.0f}{unit}".replace(",", " ") for value in medians]


def test_figures_are_those_of_the_bench():
    figures = re.findall(r"\*\*(\d+)(?: (?:times|ms|MB))\*\*", README)
    ratios = [median(name, "product", "rate") / median(name, "flask", "rate") for name in ("get-32", "watchdog-get-32")]
    measured = [*ratios, median("start", "product", "start_ms"), median("memory", "product", "memory_mb")]
    assert [int(figure) for figure in figures] == [round(value) for value in measured]


def test_calls_lost_in_stops_are_those_that_the_bench_has_counted():
    (cells,) = [cells for name, *cells in table("comparison", README) if name == "calls lost in four stops"]
    counted = {row[0]: f"{row[2]} of {row[1]}" for row in table("stops", (ROOT / "bench/README.md").read_text())}
    product, flask, framework = counted.values()
    assert cells == [product, flask, framework, flask]


def test_calls_that_may_block_at_once_are_the_default():
    (cells,) = [cells for name, *cells in table("comparison", README) if name == "calls that may block at once"]
    assert cells[0] == watchdog_app.SETTINGS["threads"][1]


def test_readme_is_short_and_keeps_insiders_words_to_itself():
    assert len(README.splitlines()) <= 200
    assert re.findall(r"\bseam\b|\bthe lead\b|lock file|suppress_lock", README) == []


# ---- the results ----


@dataclasses.dataclass
class Order:
    number: int


class Color(enum.Enum):
    RED = "red"


async def items(*values):
    for value in values:
        yield value


def row_of_a_database():
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        return database.execute("SELECT 1 AS a").fetchone()


def response(environ, start_response):
    start_response("202 Accepted", [("Content-Type", "text/x-own")])
    return [b"x"]


HTML, BINARY, JSON, LINES, OWN = (
    "text/html; charset=utf-8",
    "application/octet-stream",
    "application/json",
    "application/x-ndjson",
    "text/x-own",
)
# What the first column of the results' table names -> a result of that kind, made anew, and its status, Content-Type and body
SAMPLES = {
    "statusCode": (lambda: {"statusCode": 201, "body": "x"}, 201, HTML, b"x"),
    "status_code": (lambda: {"status_code": 201, "response": b"x"}, 201, BINARY, b"x"),
    "headers": (lambda: {"headers": {"Content-Type": OWN}, "body": [1]}, 200, OWN, b"[1]"),
    "body": (lambda: {"body": {"a": 1}}, 200, JSON, b'{"a":1}'),
    "response": (lambda: {"response": "x"}, 200, HTML, b"x"),
    "dict": (lambda: {"a": 1}, 200, JSON, b'{"a":1}'),
    "list": (lambda: [1], 200, JSON, b"[1]"),
    "set": (lambda: {1}, 200, JSON, b"[1]"),
    "range": (lambda: range(2), 200, JSON, b"[0,1]"),
    "deque": (lambda: collections.deque([1]), 200, JSON, b"[1]"),
    "sqlite3.Row": (row_of_a_database, 200, JSON, b'{"a":1}'),
    "event.headers": (lambda: watchdog_app.Headers({"HTTP_X_A": "b"}), 200, JSON, b'{"X-A":"b"}'),
    "int": (lambda: 1, 200, JSON, b"1"),
    "float": (lambda: 1.5, 200, JSON, b"1.5"),
    "bool": (lambda: True, 200, JSON, b"true"),
    "dataclass": (lambda: Order(1), 200, JSON, b'{"number":1}'),
    "datetime": (lambda: datetime.datetime(2024, 2, 29), 200, JSON, b'"2024-02-29T00:00:00"'),
    "timedelta": (lambda: datetime.timedelta(minutes=1), 200, JSON, b'"PT60S"'),
    "Decimal": (lambda: decimal.Decimal("1.10"), 200, JSON, b'"1.10"'),
    "UUID": (lambda: uuid.UUID(int=1), 200, JSON, b'"00000000-0000-0000-0000-000000000001"'),
    "Enum": (lambda: Color.RED, 200, JSON, b'"red"'),
    "Path": (lambda: Path("/a"), 200, JSON, b'"/a"'),
    "str": (lambda: "ü", 200, HTML, b"\xc3\xbc"),
    "bytes": (lambda: b"x", 200, BINARY, b"x"),
    "bytearray": (lambda: bytearray(b"x"), 200, BINARY, b"x"),
    "memoryview": (lambda: memoryview(b"x"), 200, BINARY, b"x"),
    "None": (lambda: None, 204, None, b""),
    "(body, status)": (lambda: ("x", 201), 201, HTML, b"x"),
    "(body, headers)": (lambda: ([1], {"Content-Type": OWN}), 200, OWN, b"[1]"),
    "(body, status, headers)": (lambda: (b"x", 201, {}), 201, BINARY, b"x"),
    "open file": (lambda: io.BytesIO(b"x"), 200, BINARY, b"x"),
    "generator": (lambda: (text for text in ("a", "b")), 200, HTML, b"ab"),
    "iterator": (lambda: iter([{"a": 1}, [2]]), 200, LINES, b'{"a":1}\n[2]\n'),
    "async generator": (lambda: items(b"a", "b"), 200, BINARY, b"ab"),
    "WSGI response": (lambda: response, 202, OWN, b"x"),
}
NAMED = r"`([^`]+)`|(dataclass|open file|async generator|generator|iterator|WSGI response)"


def result_rows(page, where):
    """Return each row of a page's table of results with each kind of result that it names."""
    return [
        pytest.param(row, code or word, id=f"{where}: {code or word}")
        for row in table("results", page)
        for code, word in re.findall(NAMED, row[0])
    ]


RESULTS = result_rows(REFERENCE, "reference")
SHORT_RESULTS = result_rows(README, "README")


def test_results_of_the_table_are_those_that_have_a_sample():
    assert {row.values[1] for row in RESULTS} == SAMPLES.keys()


def test_readme_names_results_of_each_kind():
    assert len(table("results", README)) == len(table("results")) - 1  # without WSGI responses
    assert len(SHORT_RESULTS) > 10


@pytest.mark.parametrize(("row", "name"), RESULTS + SHORT_RESULTS)
def test_result_has_the_status_and_type_of_the_table(row, name):
    make, status, kind, body = SAMPLES[name]
    answer = call(lambda event, context: make())
    assert (answer.status, answer.header("Content-Type"), answer.body) == (status, kind, body)
    assert row[1] == str(status) or not row[1].isdigit()
    assert row[2] == f"`{kind}`" or row[2][:1] != "`"


def fails(event, context):
    return 1 / 0


def exits(event, context):
    sys.exit(0)


def has_a_bad_status(event, context):
    return "x", 999


def is_no_json(event, context):
    return {"a": fails}


def is_not_called(event, context):
    return breaks_off.__get__(event)


def breaks_off(event, context):
    yield "x"
    fails(event, context)


# What the first column of the faults' table says -> functions of that kind, or what the program is started with
CALLS = {
    "`handle` raises, or calls `sys.exit`": [fails, exits],
    "the result cannot be sent, or is a function that was not called": [has_a_bad_status, is_no_json, is_not_called],
    "a stream fails after its first item": [breaks_off],
    "the caller goes away": [],  # test_async.py, test_exchange.py and test_streams.py see to that
    "an `async def` holds up the event loop for over 1 s": [],  # test_async.py sees to that
    "a thread that the function started fails": [],  # test_log.py sees to that
}
HANDLE = "def handle(event, context): pass\n"
STARTS = {
    "the module cannot be imported, has no `handle(event, context)`, or `startup` fails": [
        ({"handler": "import no_such_module\n" + HANDLE}, {}, "Traceback"),
        ({"handler": "def handler(event, context): pass\n"}, {}, "it defines: handler"),
        ({"handler": "def handle(req): pass\n"}, {}, "handler.py:1: handle(req) cannot be called as"),
        ({"handler": "def startup(context): 1 / 0\n" + HANDLE}, {}, "Traceback"),
    ],
    "a setting is not valid, or the file or folder does not exist": [
        ({"handler": HANDLE}, {"threads": "none"}, "threads='none'"),
        ({}, {}, "handler.py"),
    ],
}


def fault_rows(samples):
    """Return each row of the faults' table that is in `samples`, with each of its samples."""
    numbered = [
        (row, number, sample) for row in table("faults") for number, sample in enumerate(samples.get(row[0], []), 1)
    ]
    return [pytest.param(row, sample, id=f"{row[0]}, {number}") for row, number, sample in numbered]


def test_faults_of_the_table_are_those_that_have_a_sample():
    assert [row[0] for row in table("faults")] == [*CALLS, *STARTS]


@pytest.mark.parametrize(("row", "function"), fault_rows(CALLS))
def test_fault_of_a_call_is_answered_as_the_table_says(row, function, log):
    place = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}: "
    shown = "Traceback" if "traceback" in row[2] else place
    with serving(function, debug="true") as server:
        data = server.talk(b"GET /orders HTTP/1.1\r\nHost: test\r\nX-Call-Id: id-7\r\n\r\n")
    if "cut" in row[1]:
        assert data.endswith(b"\r\n\r\n1\r\nx\r\n")
    else:
        answer = read_answer(data)[0]
        assert str(answer.status) in row[1] or row[1] == "the same"
        assert "id-7" in answer.text and shown in answer.text
    assert log.getvalue().count("ERROR") == 1
    assert all(text in log.getvalue() for text in ("id-7", "GET", "/orders", shown))


@pytest.mark.parametrize(("row", "start"), fault_rows(STARTS))
def test_fault_at_the_start_ends_as_the_table_says(row, start, tmp_path):
    sources, settings, says = start
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    with process(tmp_path, **settings) as program:
        status, log = program.end()
    assert row[2].endswith(f"exit status {status}")
    assert log.count("ERROR") == 1 and says in log
    assert log.count("\n") == 1 or "one line" not in row[2]


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a clone has, without what this machine made."""
    return copy_checkout(tmp_path / "clone")


@pytest.mark.skipif(not shutil.which("make") or not shutil.which("curl"), reason="make and curl are needed")
def test_make_run_prints_what_it_says_and_the_call_answers(checkout):
    command, *expected = block("run")
    assert command == "$ make run"
    make = ["make", "run", f"PYTHON={sys.executable}"]
    popen = subprocess.Popen(
        make, cwd=checkout, env=clean_env(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert [popen.stderr.readline().rstrip("\n") for _ in expected] == expected
        call_command, *answer = block("call")
        assert call_command[2:] == expected[1].strip()
        done = subprocess.run(call_command[2:].split(), capture_output=True, text=True, timeout=DEADLINE)
        assert done.stdout.splitlines() == answer
        os.killpg(popen.pid, signal.SIGINT)  # as a terminal does
        popen.wait(DEADLINE)
    finally:
        if popen.poll() is None:
            os.killpg(popen.pid, signal.SIGKILL)
        popen.communicate()


@pytest.mark.skipif(not shutil.which("make"), reason="make is needed")
def test_new_function_passes_its_first_test_and_runs(checkout):
    make, test, run = [line.removeprefix("$ ") for line in block("new")]
    venv = checkout / ".venv"
    venv.symlink_to(sys.prefix)
    (venv / "installed").touch()  # what the tests here run in has all that `make` would install
    subprocess.run(make.split(), cwd=checkout, check=True, capture_output=True, timeout=DEADLINE)
    done = subprocess.run(
        [sys.executable, *test.split()[1:]],
        cwd=checkout,
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert "2 passed" in done.stdout
    assert run.endswith("-m watchdog_app greeting --reload")
    with run_program([sys.executable, *run.split()[1:]], checkout) as program:
        wait_for(
            lambda: program.answers() and connect_and_get(program.port) == b'{"message":"Hello, World!"}', "an answer"
        )
        program.popen.terminate()
        assert program.popen.wait(DEADLINE) == 0
    again = subprocess.run(make.split(), cwd=checkout, capture_output=True, text=True, timeout=DEADLINE)
    assert again.returncode != 0 and "File exists" in again.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is needed")
def test_new_function_without_a_name_fails_at_once(checkout):
    done = subprocess.run(["make", "new"], cwd=checkout, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode != 0 and "make new NAME=greeting" in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.skipif(not shutil.which("make"), reason="make is needed")
@pytest.mark.parametrize(
    ("arguments", "image", "source"),
    [
        pytest.param([], "greet:latest", "handler", id="the example"),
        pytest.param(["FUNCTION=examples/routing/"], "routing:latest", "examples/routing", id="another folder"),
        pytest.param(["FUNCTION=examples/routing", "IMAGE=mine:1"], "mine:1", "examples/routing", id="a name"),
    ],
)
def test_image_is_built_of_the_folder_that_is_named(arguments, image, source, tmp_path, checkout):
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@"\nfor last; do :; done\nls "$last" && cat "$last/handler/handler.py"\n')
    docker.chmod(0o755)
    env = clean_env(PATH=f"{tmp_path}:{os.environ['PATH']}")
    command = ["make", "-s", "build", *arguments]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout.startswith(f"build -t {image} /"), done.stderr
    assert "\nDockerfile\nhandler\nimage\nwatchdog_app.py\n" in done.stdout
    assert done.stdout.endswith((checkout / source / "handler.py").read_text())
    context = Path(done.stdout.partition("\n")[0].rpartition(" ")[2])
    assert not context.exists(), "it is left behind"


@pytest.mark.skipif(not shutil.which("make"), reason="make is needed")
def test_image_of_a_folder_without_a_function_is_refused(checkout):
    command = ["make", "build", "FUNCTION=docs"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode != 0 and "make build FUNCTION=greeting" in done.stderr


def test_test_command_is_a_target_of_the_makefile():
    (command,) = block("test command")
    target = command.removeprefix("$ make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_make_without_a_target_names_each_command():
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, timeout=DEADLINE)
    for target in (
        "run",
        "new",
        "test",
        "coverage",
        "fuzz",
        "soak",
        "lint",
        "format",
        "check",
        "build",
        "image-test",
        "bench",
        "deploy",
        "clean",
    ):
        assert f"make {target}" in done.stdout


# ---- the module itself ----


SECTIONS = """
    Limits and settings; Errors; Log; Head -> Request; Reader; Request -> environ; JSON; Event and context; Streams and the event loop;
    Result -> Response; Application; Exchange; Connection; Lead; Server; Life cycle; For development; Command line
"""


def test_sections_stand_in_order():
    rulers = re.findall(r"^# ---- ([0-9]+)\. ([^:(\n]*?)(?:[:(].*| -+)$", MODULE, re.MULTILINE)
    assert [title.strip(" -") for _, title in rulers] == [title.strip() for title in SECTIONS.split(";")]
    assert [int(number) for number, _ in rulers] == list(range(1, len(rulers) + 1))


def test_module_refers_only_to_the_standard_library():
    tree = ast.parse(MODULE)
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= set(sys.stdlib_module_names)


PAGES = ["README.md", "SECURITY.md", "examples/README.md", "bench/README.md", *(f"docs/{path.name}" for path in DOCS)]


def anchors(page):
    """Return what GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_page_links_to_what_is_there(page):
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", (ROOT / page).read_text()):
        path, _, anchor = link.partition("#")
        target = ROOT / page if not path else (ROOT / page).parent / path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", ["reference", "how-it-works", "deploy", "moving-over"])
def test_readme_leads_to_each_page(name):
    assert f"](docs/{name}.md" in README


def test_wait_for_fails_when_the_condition_does_not_come_about(monkeypatch):
    monkeypatch.setattr("conftest.DEADLINE", 0.01)
    with pytest.raises(AssertionError, match="the moon did not come about"):
        wait_for(lambda: False, "the moon")


def test_no_path_of_a_machine_stands_in_what_people_read():
    pages = ("README.md", "CHANGELOG.md", *DOCS)
    for file in (*pages, "watchdog_app.py", "Makefile", "pyproject.toml"):
        text = Path(ROOT / file).read_text()
        assert not re.search(r"/(?:home(?!/app\b)|root|work|Users)/", text), file
