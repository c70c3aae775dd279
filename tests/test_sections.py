"""The sections of the module point backwards: each uses names of its own and of those above it, when it is imported and when it is called."""

from __future__ import annotations

import dis
import re
from collections.abc import Iterator
from types import CodeType

from conftest import ROOT

SOURCE = (ROOT / "watchdog_app.py").read_text()
RULERS = [number for number, line in enumerate(SOURCE.splitlines(), 1) if re.match(r"# ---- \d+\. ", line)]


def section(line: int) -> int:
    """Return the number of the section that a line is in."""
    return sum(ruler <= line for ruler in RULERS)


def instructions(code: CodeType, owner: str = "") -> Iterator[tuple[str, str, str, int]]:
    """Yield each instruction of the module as (class or function, operation, argument, section). Annotations are text, and have none."""
    for instruction in dis.get_instructions(code):
        position = instruction.positions
        line = position.lineno if position and position.lineno else code.co_firstlineno
        yield owner, instruction.opname, str(instruction.argval), section(line)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from instructions(constant, owner or constant.co_name)


def test_no_section_uses_names_of_a_later_one():
    every = list(instructions(compile(SOURCE, "watchdog_app.py", "exec")))
    defined: dict[str, int] = {}
    for owner, operation, name, place in every:
        if operation == "STORE_NAME" and not owner:
            defined.setdefault(name, place)
    used = [
        (owner, name, place) for owner, operation, name, place in every if operation in ("LOAD_GLOBAL", "LOAD_NAME")
    ]
    assert len(RULERS) > 10 and len(defined) > 200 and len(used) > 1000  # they are seen at all
    forward = {f"{owner or 'module'} -> {name}" for owner, name, place in used if defined.get(name, 0) > place}
    assert forward == set()


def test_each_name_is_defined_once():
    code = compile(SOURCE, "watchdog_app.py", "exec")
    stored = [name for owner, operation, name, _ in instructions(code) if operation == "STORE_NAME" and not owner]
    assert {name for name in stored if stored.count(name) > 1} == {"__all__", "CONTROLS", "lazy"}  # added to; if, else
