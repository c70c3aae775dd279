"""The README says what is so: its commands and blocks run, and its tables equal the code."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
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
    python_blocks,
    run_program,
    table_rows,
    wait_for,
)

import watchdog_app

README = (ROOT / "README.md").read_text()
BLOCKS = python_blocks("README.md")
MODULE = (ROOT / "watchdog_app.py").read_text()


def block(name):
    """Return the lines of the block behind the comment `name`."""
    return re.search(rf"<!-- {name} -->\n```console\n(.*?)```", README, re.DOTALL)[1].splitlines()


def table(name):
    """Return the rows of the table behind the comment `name`."""
    return table_rows(re.search(rf"<!-- {name} -->\n((?:\|.*\n)+)", README)[1])


def names(cell):
    """Return the names in a table's cell."""
    return re.findall(r"`([a-z_]+)(?:\(\))?`", cell)


@pytest.mark.parametrize(("block", "line"), [pytest.param(*example, id=example[1]) for example in block_examples(BLOCKS)])
def test_example_answers_as_it_says(block, line, monkeypatch):
    check_block(block, line, monkeypatch)


def test_every_python_block_says_what_it_answers():
    assert all("\n# " in block.source for block in BLOCKS)


def test_settings_are_those_of_the_code():
    documented = {names(row[0])[0]: row[1].strip("`") for row in table("settings")}
    assert documented == {name: default for name, (_, default) in watchdog_app.SETTINGS.items()}


def test_build_arguments_are_those_of_the_dockerfile():
    dockerfile = (ROOT / "Dockerfile").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE)
    assert set(rows) == set(re.findall(r"^ARG ([A-Z_]+)", dockerfile, re.MULTILINE))


def test_event_has_what_the_table_names():
    public = {name for name in vars(watchdog_app.Event) if not name.startswith("_")} | {"environ"}
    assert {name for row in table("event") for name in names(row[0])} == public


def test_context_has_what_the_table_names():
    context = watchdog_app.Context.of({}, watchdog_app.Settings())
    public = {name for name in (*vars(watchdog_app.Context), *vars(context)) if not name.startswith("_")} - {"of"}
    assert {name for row in table("context") for name in names(row[0])} == public


def test_results_have_the_status_and_type_of_the_table():
    rows = table("results")
    samples = [{"statusCode": 201, "body": "x"}, {"a": 1}, "x", b"x", None, ("x", 202), iter(["x"])]
    for row, sample in zip(rows, samples, strict=False):
        answer = call(lambda event, context, sample=sample: sample)
        if row[1].isdigit():
            assert answer.status == int(row[1])
        if row[2].startswith("`"):
            assert f"`{answer.header('Content-Type')}`" == row[2]


def test_picture_is_the_modules():
    picture = [line for line in README.splitlines() if (line.startswith((" bytes ──►", " └───", "      ")) and "─" in line) or "▲" in line]
    assert len(picture) == 3
    assert all(line in MODULE for line in picture)


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a clone has, without what this machine made."""
    return copy_checkout(tmp_path / "clone")


@pytest.mark.skipif(not shutil.which("make") or not shutil.which("curl"), reason="make and curl are needed")
def test_make_run_prints_what_it_says_and_the_call_answers(checkout):
    command, *expected = block("run")
    assert command == "$ make run"
    make = ["make", "run", f"PYTHON={sys.executable}"]
    popen = subprocess.Popen(make, cwd=checkout, env=clean_env(), stderr=subprocess.PIPE, text=True, start_new_session=True)
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
    done = subprocess.run([sys.executable, *test.split()[1:]], cwd=checkout, env=clean_env(), capture_output=True, text=True, timeout=DEADLINE)
    assert "2 passed" in done.stdout
    assert run.endswith("-m watchdog_app greeting --reload")
    with run_program([sys.executable, *run.split()[1:]], checkout) as program:
        wait_for(lambda: program.answers() and connect_and_get(program.port) == b'{"message":"Hello, World!"}', "an answer")
        program.popen.terminate()
        assert program.popen.wait(DEADLINE) == 0
    again = subprocess.run(make.split(), cwd=checkout, capture_output=True, text=True, timeout=DEADLINE)
    assert again.returncode != 0 and "File exists" in again.stderr


def test_test_command_is_a_target_of_the_makefile():
    (command,) = block("test command")
    target = command.removeprefix("$ make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_make_without_a_target_names_each_command():
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, timeout=DEADLINE)
    for target in ("run", "new", "test", "coverage", "fuzz", "soak", "lint", "format", "check", "build", "image-test", "bench", "deploy", "clean"):
        assert f"make {target}" in done.stdout


# ---- the module itself ----


def test_sections_stand_in_order():
    assert [int(number) for number in re.findall(r"^# ---- ([0-9]+)\. ", MODULE, re.MULTILINE)] == list(range(1, 14))


def test_module_refers_only_to_the_standard_library():
    tree = ast.parse(MODULE)
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= set(sys.stdlib_module_names)


def test_repository_has_what_the_readme_links_to():
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_wait_for_fails_when_the_condition_does_not_come_about(monkeypatch):
    monkeypatch.setattr("conftest.DEADLINE", 0.01)
    with pytest.raises(AssertionError, match="the moon did not come about"):
        wait_for(lambda: False, "the moon")


def test_no_path_of_a_machine_stands_in_what_people_read():
    for file in ("README.md", "docs/moving-over.md", "watchdog_app.py", "Makefile", "pyproject.toml", "CHANGELOG.md"):
        text = Path(ROOT / file).read_text()
        assert not re.search(r"/(?:home|root|work|Users)/", text), file
