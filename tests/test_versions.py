"""The module runs on each Python that it promises: the tests run on one, and the image has another."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import DEADLINE, ROOT, connect_and_get, run_program, wait_for, write

FIRST = int(re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())[1])
INSTALLED = Path.home() / ".pyenv" / "versions"


def interpreter(minor):
    """Return the path of Python 3.`minor`, None where this machine has none."""
    paths = sorted(INSTALLED.glob(f"3.{minor}.*/bin/python"))
    return str(paths[-1]) if paths else shutil.which(f"python3.{minor}")


@pytest.mark.parametrize("minor", range(FIRST, FIRST + 5))
def test_function_is_served(minor, tmp_path):
    if not (python := interpreter(minor)):
        pytest.skip(f"there is no Python 3.{minor} here")
    source = "async def startup(context):\n    pass\n\ndef handle(event, context):\n    return [event.method]\n"
    command = [python, str(ROOT / "watchdog_app.py"), write(tmp_path, handler=source)]
    with run_program(command, exec_timeout="5s", log_format="json") as program:
        wait_for(program.answers, "an answer")
        assert connect_and_get(program.port) == b'["GET"]'
        program.popen.terminate()
        assert program.popen.wait(DEADLINE) == 0
