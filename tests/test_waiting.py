"""No test sleeps to wait for something: `wait_for`, an event or a byte do that; `pause` lets time pass where that is its subject."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

FILES = sorted(
    {*ROOT.glob("tests/*.py"), *ROOT.glob("image/*.py")}
    - {ROOT / "tests/conftest.py", ROOT / "tests/watchdog_standin.py"}
)


def sleeps(node: ast.AST, inner: bool = False) -> list[int]:
    """Return the lines that sleep, but for those of functions under test: these take an event, or stand within a test."""
    found = []
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if is_function and (inner or "event" in [argument.arg for argument in child.args.args]):
            continue
        if isinstance(child, ast.Attribute) and ast.unparse(child) == "time.sleep":
            found.append(child.lineno)
        found += sleeps(child, inner or is_function)
    return found


@pytest.mark.parametrize("file", [pytest.param(file, id=file.name) for file in FILES])
def test_nothing_but_a_function_under_test_sleeps(file: Path) -> None:
    assert sleeps(ast.parse(file.read_text())) == []
