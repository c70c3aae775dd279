"""The package: what `python -m build` makes and `pip install .` installs, run and type-checked as by its user."""

import contextlib
import http.client
import shutil
import signal
import subprocess
import sys
import tarfile
import venv
from zipfile import ZipFile

import pytest
from conftest import DEADLINE, FUNCTIONS, ROOT, clean_env, copy_checkout, run_program, wait_for
from test_readme import REFERENCE, block

import watchdog_app

pytestmark = pytest.mark.slow
VERSION = watchdog_app.__version__
TYPED = FUNCTIONS / "typed.py"
PATIENCE = 60.0  # seconds for pip, which may have to fetch what it builds with
# A SIGTERM in the first moment of the command, which nothing handles yet
EARLY_STOP = """
import os, signal, sys, watchdog_app
prepare_process = watchdog_app.prepare_process
watchdog_app.prepare_process = lambda: (os.kill(os.getpid(), signal.SIGTERM), prepare_process())
watchdog_app.run()
"""


def run(*command, cwd, **env):
    """Run a command to its end; return what it printed, and fail unless its status is 0."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean_env(**env), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def get(program, target):
    """Make one call; return its status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=DEADLINE)
    with contextlib.closing(connection):
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_checkout(tmp_path_factory.mktemp("package") / "clone")


@pytest.fixture(scope="module")
def built(checkout, tmp_path_factory):
    """A folder with the sdist, and the wheel that is made of that."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=checkout)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The folder of the programs of an environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--no-index", wheel, cwd=folder)
    return folder / "bin"


def test_wheel_holds_the_module_its_types_and_nothing_else(built):
    about = f"watchdog_app-{VERSION}.dist-info/"
    with ZipFile(built / f"watchdog_app-{VERSION}-py3-none-any.whl") as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    assert {name for name in files if not name.startswith(about)} == {
        "watchdog_app.py",
        "watchdog_app-stubs/__init__.pyi",
    }
    assert (
        files["watchdog_app.py"] == files["watchdog_app-stubs/__init__.pyi"] == (ROOT / "watchdog_app.py").read_bytes()
    )
    assert b"\nRequires-Dist:" not in files[about + "METADATA"]
    assert files[about + "licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_sdist_holds_what_the_wheel_is_made_of_and_no_tests(built):
    with tarfile.open(built / f"watchdog_app-{VERSION}.tar.gz") as sdist:
        files = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    made = {name for name in files if name.startswith("watchdog_app.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert files - made == {
        "LICENSE",
        "MANIFEST.in",
        "README.md",
        "pyproject.toml",
        "stubs/__init__.pyi",
        "watchdog_app.py",
    }


def test_command_says_its_version(installed, tmp_path):
    assert run(installed / "watchdog-app", "--version", cwd=tmp_path) == f"watchdog_app {VERSION}\n"


def test_command_serves_a_function_and_ends_by_sigterm_with_status_0(installed, tmp_path):
    with run_program([installed / "watchdog-app", TYPED], cwd=tmp_path) as program:
        wait_for(program.answers, "the first answer")
        assert get(program, "/?page=2") == (200, b'{"said":"","page":2}')
        assert get(program, "/other") == (
            404,
            b'{"error":"no such path"}',
        )  # the function's HTTPError is the one that the server knows
        program.popen.send_signal(signal.SIGTERM)
        status, log = program.end()
    assert status == 0
    assert "Traceback" not in log


def test_sigterm_in_the_first_moment_of_the_command_waits_until_it_is_handled(installed, tmp_path):
    with run_program([installed / "python", "-c", EARLY_STOP, TYPED], cwd=tmp_path) as program:
        status, _ = program.end()
    assert status == 0


@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_strict_type_checker_knows_each_type_of_a_users_file(kind, installed, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "types"  # one cache for both
    folder.mkdir(exist_ok=True)
    shutil.copy(TYPED, folder)
    options = {"wheel": ["--python-executable", installed / "python"], "source": []}[kind]
    path = {"wheel": {}, "source": {"MYPYPATH": str(ROOT)}}[kind]
    said = run(sys.executable, "-m", "mypy", "--strict", *options, TYPED.name, cwd=folder, **path)
    assert said == "Success: no issues found in 1 source file\n"


def test_readmes_commands_install_and_serve(checkout):
    make, install, serve = (line.removeprefix("$ ").split() for line in block("install"))
    run(*make, cwd=checkout)
    run(*install, cwd=checkout)
    folder = checkout / serve[-1]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TYPED, folder / "handler.py")
    with run_program([checkout / serve[0], *serve[1:]], cwd=checkout) as program:
        wait_for(program.answers, "the first answer")


@pytest.fixture(scope="module")
def runners(tmp_path_factory):
    """The folder of the programs of an environment that has uv and pipx."""
    folder = tmp_path_factory.mktemp("runners")
    venv.create(folder, with_pip=True, symlinks=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "uv", "pipx", cwd=folder)
    return folder / "bin"


@pytest.mark.parametrize("line", block("run once", REFERENCE), ids=lambda line: line.split()[1])
def test_references_runners_serve_without_an_installation(line, runners, checkout, tmp_path):
    command = line.removeprefix("$ ").split()
    folder = checkout / command[-1]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TYPED, folder / "handler.py")
    (folder / "requirements.txt").write_text("# none\n")
    own = {name: str(tmp_path / name) for name in ("UV_CACHE_DIR", "PIPX_HOME", "PIPX_BIN_DIR")}
    with run_program([runners / command[0], *command[1:]], cwd=checkout, **own) as program:
        wait_for(program.answers, "the first answer", PATIENCE)
        program.popen.terminate()
        status, log = program.end()
    assert (status, "Traceback" in log) == (0, False)
