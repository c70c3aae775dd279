"""The image, built and run: `make image-test`. It needs a Docker engine that reaches the base images, Debian's packages and PyPI."""

import _sqlite3
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import DEADLINE, FUNCTIONS, ROOT, free_port, pause, wait_for
from test_examples import EXAMPLES

BUILD = ("docker", "build", "--network=host")
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--memory", "64m")
# What the image leaves out of the standard library (image/collect.py), and what only other systems have
LEFT_OUT = {
    "idlelib",
    "tkinter",
    "turtle",
    "turtledemo",
    "curses",
    "ensurepip",
    "lib2to3",
    "readline",
    "rlcompleter",
    "test",
}
OTHER_SYSTEMS = {
    "_winapi",
    "_wmi",
    "_overlapped",
    "_scproxy",
    "_msi",
    "msilib",
    "msvcrt",
    "nt",
    "ntpath",
    "nturl2path",
    "winreg",
    "winsound",
}
UNLOADABLE = {
    "_curses",
    "_curses_panel",
    "_tkinter",
    "_dbm",
    "_gdbm",
    "_android_support",
    "_apple_support",
    "_ios_support",
    "antigravity",
    "this",
}

# What needs a terminal, another system or another database
NEEDS_OTHERS = ("_pyrepl.", "dbm.gnu", "dbm.ndbm", "encodings.mbcs", "encodings.oem", "ctypes.wintypes")

pytestmark = pytest.mark.skipif(
    not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode != 0,
    reason="a Docker engine is needed",
)


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=900, **options)


def build(folder, tag, *arguments):
    """Build the image of a checkout in `folder`; return the finished process."""
    return run(*BUILD, "-t", tag, *arguments, str(folder))


@pytest.fixture
def checkout(tmp_path):
    """A folder as faas-cli lays it out for a build, with modes that keep other users out."""
    for name in ("Dockerfile", "watchdog_app.py", ".dockerignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("image", "handler"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / name).chmod(0o700)
    return tmp_path


@pytest.fixture(scope="session")
def image():
    """The image of this repository's own example."""
    done = build(ROOT, "watchdog-app-test")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return "watchdog-app-test"


class Container:
    """A running container with its port 8080 published."""

    def __init__(self, name, port):
        self.name, self.port = name, port

    def call(self, method="GET", target="/", body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request(method, target, body)
            response = connection.getresponse()
            return response.status, response.read()

    def answers(self, target="/_/ready"):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.call(target=target)[0] == 200
        return False

    def state(self):
        return json.loads(run("docker", "inspect", "-f", "{{json .State}}", self.name).stdout)

    def log(self):
        done = run("docker", "logs", self.name)
        return done.stdout + done.stderr


@contextlib.contextmanager
def running(image, *flags, ready=True):
    port = free_port()
    name = f"{image}-{port}"
    done = run("docker", "run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:8080", *flags, image)
    assert done.returncode == 0, done.stderr
    container = Container(name, port)
    try:
        if ready:
            wait_for(container.answers, "readiness")
        yield container
    finally:
        run("docker", "rm", "-f", "-v", name)


@pytest.mark.parametrize(
    "user",
    [(), ("--user", "12000"), ("--user", "1000620000:0")],
    ids=["default user", "uid 12000", "random uid with gid 0"],
)
def test_any_user_runs_it_hardened(image, user):
    with running(image, *HARDENED, *user) as container:
        assert container.call("POST", body=b"Ann") == (200, b'{"message":"Hello, Ann!"}')
        assert container.call(target="/_/health")[0] == 200


def upload(port, size, answers):
    """Send a POST of `size` bytes, reading meanwhile as a careful caller does; add the head of its answer to `answers`."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sender = threading.Thread(target=send_body, args=(sock, size))
        sender.start()
        head = b""
        while b"\r\n\r\n" not in head and (piece := sock.recv(65536)):
            head += piece
        answers.append(head.decode("latin-1").lower())
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # ends the sending
        sender.join()


def send_body(sock, size):
    with contextlib.suppress(OSError):
        sock.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            sock.sendall(bytes(1 << 16))


@pytest.mark.parametrize("megabytes", [1, 5, 15, 100])
def test_many_uploads_at_once_do_not_end_a_container_of_64_mib(image, megabytes):
    with running(image, *HARDENED, "--memory-swap", "64m") as container:
        answers = []
        callers = [threading.Thread(target=upload, args=(container.port, megabytes << 20, answers)) for _ in range(50)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(answers) == 50
        assert {answer.split(" ")[1] for answer in answers} <= {"200", "413", "503"}
        assert all("retry-after: 1" in answer for answer in answers if " 503 " in answer)
        assert megabytes > 15 or any(" 200 " in answer for answer in answers)
        assert (container.state()["Status"], container.state()["OOMKilled"]) == ("running", False)
        assert container.call("POST", body=b"Ann") == (200, b'{"message":"Hello, Ann!"}')


def test_default_user_is_not_root(image):
    assert run("docker", "inspect", "-f", "{{.Config.User}}", image).stdout.strip() == "12000:12000"


@pytest.mark.parametrize(
    "flags", [(), ("--read-only",)], ids=["writable", "read-only root without a tmpfs, as faas-cli local-run has it"]
)
def test_health_check_turns_healthy(image, flags):
    with running(image, *flags) as container:
        wait_for(lambda: container.state()["Health"]["Status"] == "healthy", "the health", 20)


LAST_WORDS = """
import atexit, time

def handle(event, context):
    print("called", flush=True)
    time.sleep(6)  # longer than of-watchdog accepts
    print("answered", flush=True)
    return "x"

def shutdown(context):
    print("shut down")

atexit.register(print, "good bye")
"""


def test_docker_stop_with_calls_in_flight_answers_them_and_then_runs_shutdown_and_exit_handlers(image, tmp_path):
    (tmp_path / "handler.py").write_text(LAST_WORDS)
    with (
        running(image, *HARDENED, "--volume", f"{tmp_path}/handler.py:/home/app/function/handler.py:ro") as container,
        ThreadPoolExecutor(3) as pool,
    ):
        calls = [pool.submit(container.call) for _ in range(3)]
        wait_for(lambda: container.log().count("called") == 3, "the calls")
        assert run("docker", "stop", container.name).returncode == 0
        assert [call.result() for call in calls] == [(200, b"x")] * 3
        assert re.findall("answered|shut down|good bye", container.log()) == ["answered"] * 3 + [
            "shut down",
            "good bye",
        ]
        assert container.state()["ExitCode"] == 0


def test_docker_stop_under_load_loses_no_call_and_exits_0(image):
    with running(image) as container:
        statuses, stop = [], threading.Event()

        def load():
            while not stop.is_set():
                try:
                    statuses.append(container.call("POST", body=b"x")[0])
                except ConnectionRefusedError:
                    return
                except (OSError, http.client.HTTPException) as error:
                    statuses.append(repr(error))

        callers = [threading.Thread(target=load) for _ in range(4)]
        for caller in callers:
            caller.start()
        stopping = subprocess.Popen(["docker", "stop", container.name], stdout=subprocess.DEVNULL)
        pause(4)  # of the 5 s for which of-watchdog goes on accepting
        stop.set()
        for caller in callers:
            caller.join(DEADLINE)
        assert stopping.wait(30) == 0
        assert set(statuses) == {200}
        assert container.state()["ExitCode"] == 0


def test_whole_standard_library_can_be_imported(image):
    code = f"""
import importlib, pkgutil, sys
left_out = {LEFT_OUT | OTHER_SYSTEMS | UNLOADABLE!r}
other = {NEEDS_OTHERS!r}
failed, number = [], 0
for top in sorted(set(sys.stdlib_module_names) - left_out):
    names = [top]
    try:
        module = importlib.import_module(top)
        number += 1
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), top + "."):
            last = found.name.rpartition(".")[2]
            if found.name.startswith(other) or last.startswith(("__main__", "windows", "_windows", "popen_spawn_win32", "test")):
                continue
            names.append(found.name)
            importlib.import_module(found.name)
            number += 1
    except BaseException as error:
        failed.append((names[-1], repr(error)))
print(number, failed)
"""
    done = run("docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--entrypoint", "python3", image, "-c", code)
    number, _, failed = done.stdout.partition(" ")
    assert failed.strip() == "[]", done.stdout + done.stderr
    assert int(number) > 500


def test_parts_that_need_files_of_the_system_work(image):
    code = """
import ctypes, ctypes.util, encodings.idna, locale, multiprocessing, socket, sqlite3, ssl, zoneinfo
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50
assert str(zoneinfo.ZoneInfo("Europe/Vienna")) == "Europe/Vienna"
assert ctypes.CDLL(ctypes.util.find_library("sqlite3"))
assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
assert socket.getaddrinfo("localhost", 80)
locale.setlocale(locale.LC_ALL, "C")
if __name__ == "__main__":
    print("ok")
"""
    done = run("docker", "run", "--rm", *HARDENED, "--entrypoint", "python3", image, "-c", code)
    assert done.stdout == "ok\n", done.stderr


def layers(image):
    """Return the digests of an image's layers."""
    return json.loads(run("docker", "inspect", "-f", "{{json .RootFS.Layers}}", image).stdout)


def test_second_build_gives_the_same_python_layer_and_a_changed_function_only_its_own(image, checkout):
    assert build(checkout, "watchdog-app-again", "--no-cache").returncode == 0
    assert layers("watchdog-app-again") == layers(image)
    (checkout / "handler/handler.py").write_text("def handle(event, context):\n    return 'changed'\n")
    assert build(checkout, "watchdog-app-changed").returncode == 0
    before, after = layers(image), layers("watchdog-app-changed")
    assert after[:-1] == before[:-1]
    saved = checkout / "image.tar"
    assert run("docker", "save", "-o", str(saved), "watchdog-app-changed").returncode == 0
    with tarfile.open(saved) as archive:
        sizes = {
            layer_digest(archive, member): member.size
            for member in archive
            if member.name.endswith("layer.tar") or "blobs/" in member.name
        }
    assert sizes[after[-1]] < 100_000


def layer_digest(archive, member):
    content = archive.extractfile(member)
    return "" if content is None else "sha256:" + hashlib.sha256(content.read()).hexdigest()


def test_image_is_small(image):
    assert int(run("docker", "inspect", "-f", "{{.Size}}", image).stdout) < 43_500_000


def test_function_that_cannot_be_imported_ends_the_container_with_its_traceback(checkout):
    (checkout / "handler/handler.py").write_text("import no_such_module\n")
    assert build(checkout, "watchdog-app-broken", "--build-arg", "TEST_ENABLED=false").returncode == 0
    with running("watchdog-app-broken", ready=False) as container:
        wait_for(lambda: not container.state()["Running"], "the end")
        assert container.state()["ExitCode"] != 0
        assert "No module named 'no_such_module'" in container.log()


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        pytest.param(
            "requirements.txt",
            "no-such-distribution-of-anybody==9.9\n",
            "no-such-distribution-of-anybody",
            id="requirement",
        ),
        pytest.param("handler.py", "def handle(:\n", "SyntaxError", id="syntax error"),
        pytest.param("test_it.py", "def test_it():\n    assert 1 == 2\n", "assert 1 == 2", id="failing test"),
    ],
)
def test_build_ends_with_a_message_that_names_what_is_wrong(checkout, file, text, says):
    (checkout / "handler" / file).write_text(text)
    done = build(checkout, "watchdog-app-failing")
    assert done.returncode != 0
    assert says in done.stdout + done.stderr


def test_wheel_that_needs_a_missing_library_ends_the_build_and_names_it(tmp_path):
    library = Path(_sqlite3.__file__).read_bytes()
    wheel = tmp_path / "site-packages"
    wheel.mkdir()
    (wheel / "module.so").write_bytes(library.replace(b"libsqlite3.so", b"libmissing.so"))
    done = run(sys.executable, str(ROOT / "image/collect.py"), "libraries", str(tmp_path))
    assert done.returncode == 1
    assert "site-packages/module.so needs libmissing.so" in done.stderr


def test_tests_can_be_switched_off(checkout):
    (checkout / "handler/test_it.py").write_text("def test_it():\n    assert 1 == 2\n")
    assert build(checkout, "watchdog-app-untested", "--build-arg", "TEST_ENABLED=false").returncode == 0


def test_wheels_with_compiled_parts_and_debian_packages_work_hardened(checkout):
    (checkout / "handler/requirements.txt").write_text("numpy\npydantic\ncryptography\nrequests\npsycopg\n")
    (checkout / "handler/handler.py").write_text(
        "import subprocess\n"
        "import numpy, psycopg, pydantic, requests\n"
        "from cryptography.fernet import Fernet\n"
        "def handle(event, context):\n"
        "    program = subprocess.run(['xz', '--version'], capture_output=True, text=True).stdout\n"
        "    key = Fernet(Fernet.generate_key())\n"
        "    return [float(numpy.ones(3).sum()), psycopg.pq.__impl__, key.decrypt(key.encrypt(b'x')).decode(), program.split()[0]]\n"
    )
    done = build(checkout, "watchdog-app-native", "--build-arg", "ADDITIONAL_PACKAGE=libpq5 xz-utils")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with running(
        "watchdog-app-native", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--user", "12000"
    ) as container:
        assert container.call() == (200, b'[3.0,"python","x","xz"]')


@pytest.mark.parametrize("file", sorted({row.values[0].function for row in EXAMPLES}))
def test_example_of_the_documentation_answers_right_from_the_container(image, file):
    mounted = ("--volume", f"{FUNCTIONS / file}:/home/app/function/handler.py:ro")
    with running(image, *HARDENED, *mounted) as container:
        for example in [row.values[0] for row in EXAMPLES if row.values[0].function == file]:
            connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=DEADLINE)
            with contextlib.closing(connection):
                connection.request(example.method, example.target, example.body or None, example.headers)
                response = connection.getresponse()
                assert (response.status, response.read()) == (example.status, example.expected_body)


def readme_block(name):
    """Return the commands and outputs of one of the README's blocks."""
    text = (ROOT / "README.md").read_text()
    return re.search(rf"<!-- {name} -->\n```console\n(.*?)```", text, re.DOTALL)[1].splitlines()


def test_readme_commands_build_and_run_the_image(checkout):
    build_command, run_command, call_command, answer = readme_block("image")
    shutil.copy(ROOT / "Makefile", checkout)
    assert run("sh", "-c", build_command[2:] + " BUILD_FLAGS=--network=host", cwd=checkout).returncode == 0
    container = subprocess.Popen(
        run_command[2:].replace("run --rm", "run --rm --name readme").split(), stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: run(*call_command[2:].split()).stdout == answer, "the answer")
    finally:
        run("docker", "rm", "-f", "readme")
        container.wait(DEADLINE)


@pytest.mark.skipif(not shutil.which("faas-cli"), reason="faas-cli is needed")
@pytest.mark.parametrize("language", ["python3-http", "python2.7-http"])
def test_template_gives_a_function_that_runs(language, tmp_path):
    repository = tmp_path / "repository"
    run("git", "clone", "--quiet", str(ROOT), str(repository))
    folder = tmp_path / "user"
    folder.mkdir()
    pull, create, *_ = [line[2:] for line in readme_block("template")]
    assert run("sh", "-c", pull, cwd=folder, env={**os.environ, "REPOSITORY": str(repository)}).returncode == 0
    new = run("sh", "-c", create.replace("python3-http", language), cwd=folder)
    assert "faas-cli build" in new.stdout
    assert run("faas-cli", "build", "-f", "stack.yaml", "--shrinkwrap", cwd=folder).returncode == 0
    assert build(folder / "build/greeting", "watchdog-app-template").returncode == 0
    with running("watchdog-app-template", *HARDENED) as container:
        assert container.call("POST", body=b"Ann") == (200, b'{"message":"Hello, Ann!"}')


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
