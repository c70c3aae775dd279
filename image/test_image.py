"""The image, built and run: `make image-test`. It needs a Docker engine that reaches the base images, Debian's packages and PyPI."""

import _sqlite3
import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from conftest import DEADLINE, FUNCTIONS, ROOT, free_port, pause, wait_for
from test_examples import EXAMPLES

BUILD = ("docker", "build", "--network=host")
VERSION = re.search(r'^__version__ = "(.*)"$', (ROOT / "watchdog_app.py").read_text(), re.MULTILINE)[1]
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
    return run(*BUILD, "-t", tag, *arguments, str(folder), env={**os.environ, "DOCKER_BUILDKIT": "1"})


def built(folder, tag, *arguments):
    """Build the image of a checkout in `folder`, which has to succeed; return what the build printed."""
    done = build(folder, tag, *arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


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
    built(ROOT, "watchdog-app-test")
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
            if select.select([sock], [], [], 0)[0]:
                return  # the answer has come; of-watchdog waits 0.5 s for its caller to read it, then resets
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


def test_second_build_gives_the_same_layers_and_a_changed_function_only_its_own(image, checkout):
    built(checkout, "watchdog-app-again", "--no-cache")
    assert layers("watchdog-app-again") == layers(image)
    (checkout / "handler/handler.py").write_text("def handle(event, context):\n    return 'changed'\n")
    log = built(checkout, "watchdog-app-changed")
    assert re.search(r"install.py python .*\n(.* sha256:.*\n)?.* CACHED", log), "the packages were installed anew"
    (changed,) = set(layers("watchdog-app-changed")) - set(layers(image))
    saved = checkout / "image.tar"
    assert run("docker", "save", "-o", str(saved), "watchdog-app-changed").returncode == 0
    with tarfile.open(saved) as archive:
        sizes = {
            layer_digest(archive, member): member.size
            for member in archive
            if member.name.endswith("layer.tar") or "blobs/" in member.name
        }
    assert sizes[changed] < 100_000


def layer_digest(archive, member):
    content = archive.extractfile(member)
    return "" if content is None else "sha256:" + hashlib.sha256(content.read()).hexdigest()


def size(image):
    return int(run("docker", "inspect", "-f", "{{.Size}}", image).stdout)


def test_image_is_small(image):
    version = re.search(r"^ARG WATCHDOG_VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
    watchdog = size(f"ghcr.io/openfaas/of-watchdog:{version}")  # 11.5 MB, or more where it is a stand-in
    assert size(image) - watchdog < 32_000_000


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


FILES = """
import os

def handle(event, context):
    names = ("./function/model.txt", "function/model.txt", "/home/app/function/model.txt")
    texts = [open(name).read() for name in (*names, os.path.join(os.path.dirname(__file__), "model.txt"))]
    try:
        open("/home/app/function/new.txt", "w")
    except OSError as error:
        return [os.getcwd(), *texts, error.strerror]
"""


@pytest.mark.parametrize(
    ("flags", "why"),
    [((), "Permission denied"), (("--read-only",), "Read-only file system")],
    ids=["writable", "read-only"],
)
def test_function_lies_where_the_official_image_has_it_and_cannot_write_there(checkout, flags, why):
    (checkout / "handler/handler.py").write_text(FILES)
    (checkout / "handler/model.txt").write_text("x")
    built(checkout, "watchdog-app-files")
    with running("watchdog-app-files", *flags) as container:
        assert json.loads(container.call()[1]) == ["/home/app", "x", "x", "x", "x", why]


def test_builder_without_secrets_is_refused_at_once(checkout):
    done = run(*BUILD, str(checkout), env={**os.environ, "DOCKER_BUILDKIT": "0"})
    assert done.returncode != 0
    assert "This image needs BuildKit: install docker-buildx, or set DOCKER_BUILDKIT=1" in done.stdout + done.stderr
    assert "collect.py python /python" not in done.stdout


PASSWORD = "correct-horse-battery"
THING = "thing-1.0-py3-none-any.whl"


def write_wheel(path):
    """Write a wheel of a distribution `thing` with a module and a program."""
    info = "thing-1.0.dist-info"
    files = {
        "thing.py": "def main():\n    print('thing 1.0')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nthing = thing:main\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)


class PrivateIndex(http.server.SimpleHTTPRequestHandler):
    """An index of packages for those who know the password."""

    def do_GET(self):
        expected = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {expected}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="private"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The address and folder of a private index that has `thing`."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "simple/thing").mkdir(parents=True)
    write_wheel(folder / "simple/thing" / THING)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(PrivateIndex, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_port}/simple", folder / "simple/thing" / THING
        server.shutdown()


PROJECT = '[project]\nname = "function"\nversion = "0"\nrequires-python = ">=3.11"\n'
LIBRARY = '[project]\nname = "thing"\nversion = "1.0"\nscripts.thing = "thing:main"\n[tool.setuptools]\npy-modules = ["thing"]\n'
MODULE = "def main():\n    print('thing 1.0')\n"
UV_LOCK = """version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "function"
version = "0"
source = { virtual = "." }
dependencies = [{ name = "thing" }]

[[package]]
name = "thing"
version = "1.0"
source = {source}
"""
UV_WHEEL = 'wheels = [{ url = "http://{index}/thing/{wheel}", hash = "sha256:{hash}" }]\n'
PYLOCK = """lock-version = "1.0"
created-by = "test"

[[packages]]
name = "thing"
version = "1.0"
"""
PYLOCK_WHEEL = 'wheels = [{ url = "http://{index}/thing/{wheel}", hashes = { sha256 = "{hash}" } }]\n'
REQUIREMENT = {"requirements.txt": "thing\n"}


@pytest.mark.parametrize(
    ("files", "secrets"),
    [
        pytest.param(REQUIREMENT, {"pipconf": "[global]\nindex-url = http://user:{password}@{index}\n"}, id="pip.conf"),
        pytest.param(REQUIREMENT, {"pip_index_url": "http://user:{password}@{index}\n"}, id="pip_index_url"),
        pytest.param(
            {"requirements.txt": "--extra-index-url http://{index}\nthing\n"},
            {"netrc": "machine 127.0.0.1 login user password {password}\n"},
            id="netrc",
        ),
        pytest.param({"requirements.txt": f"./vendor/{THING}\n", "vendor/" + THING: None}, {}, id="wheel"),
        pytest.param(
            {"requirements.txt": "-e ./lib\n", "lib/pyproject.toml": LIBRARY, "lib/thing.py": MODULE}, {}, id="folder"
        ),
        pytest.param(
            {
                "requirements.txt": "-r more/other.txt\n",
                "more/other.txt": "--no-index\n--find-links vendor\nthing\n",
                "vendor/" + THING: None,
            },
            {},
            id="another file",
        ),
        pytest.param(
            {"requirements.txt": "", "pyproject.toml": PROJECT + 'dependencies = ["thing"]\n'},
            {"pip_index_url": "http://user:{password}@{index}"},
            id="pyproject.toml",
        ),
        pytest.param(
            {
                "pyproject.toml": PROJECT + 'dependencies = ["thing"]\n',
                "uv.lock": UV_LOCK.replace("{source}", '{ registry = "http://{index}" }') + UV_WHEEL,
            },
            {"pipconf": "[global]\nextra-index-url = http://user:{password}@{index}\n"},
            id="uv.lock",
        ),
        pytest.param(
            {
                "pyproject.toml": PROJECT + 'dependencies = ["thing"]\n[tool.uv.sources]\nthing = { path = "lib" }\n',
                "uv.lock": UV_LOCK.replace("{source}", '{ directory = "lib" }'),
                "lib/pyproject.toml": LIBRARY,
                "lib/thing.py": MODULE,
            },
            {},
            id="uv.lock with a folder",
        ),
        pytest.param(
            {"pylock.toml": PYLOCK + PYLOCK_WHEEL},
            {"netrc": "machine 127.0.0.1 login user password {password}\n"},
            id="pylock.toml",
        ),
    ],
)
def test_dependencies_are_installed_as_the_function_names_them(checkout, index, files, secrets):
    address, wheel = index
    values = {
        "index": address,
        "password": PASSWORD,
        "wheel": THING,
        "hash": hashlib.sha256(wheel.read_bytes()).hexdigest(),
    }
    (checkout / "handler/requirements.txt").unlink()
    for name, text in files.items():
        path = checkout / "handler" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wheel.read_bytes() if text is None else fill(text, values).encode())
    flags = []
    for name, text in secrets.items():
        (checkout / name).write_text(fill(text, values))
        flags += ["--secret", f"id={name},src={checkout / name}"]
    tag = "watchdog-app-dependencies"
    log = built(checkout, tag, *flags)
    assert PASSWORD not in log
    assert run("docker", "run", "--rm", tag, "thing").stdout == "thing 1.0\n"
    assert secret_found(tag, checkout) == []


def fill(text, values):
    """Put values in the place of their names in braces."""
    return re.sub(r"\{(index|password|wheel|hash)\}", lambda match: values[match[1]], text)


def secret_found(image, folder):
    """Return the names of files in the image's archive, and in its layers, that hold the password in any form."""
    saved = folder / "image.tar"
    assert run("docker", "save", "-o", str(saved), image).returncode == 0
    found = []
    with tarfile.open(saved) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content and any(word in content.read() for word in FORMS):
                found.append(member.name)
    return found


FORMS = (PASSWORD.encode(), base64.b64encode(f"user:{PASSWORD}".encode()))


def test_search_for_the_secret_finds_it(checkout):
    """What searches the layers sees what is in them."""
    (checkout / "handler/secret.txt").write_text(PASSWORD)
    built(checkout, "watchdog-app-leak")
    assert secret_found("watchdog-app-leak", checkout) != []


def test_packages_for_building_are_not_in_the_image(image, checkout):
    (checkout / "handler/requirements.txt").write_text("./lib\n")
    (checkout / "handler/lib").mkdir()
    (checkout / "handler/lib/setup.py").write_text(
        "from setuptools import Extension, setup\nimport shutil\nassert shutil.which('patchelf') and shutil.which('file')\n"
        "setup(name='lib', ext_modules=[Extension('fast', ['fast.c'], py_limited_api=True)])\n"
    )
    (checkout / "handler/lib/fast.c").write_text(
        "#include <stdlib.h>\nvoid *PyModuleDef_Init(void *); void *PyModule_Create2(void *, int);\n"
        "static struct { long base[5]; const char *name; const char *doc; long size; void *rest[5]; }\n"
        '    module = {{1}, "fast", NULL, -1};\n'
        "void *PyInit_fast(void) { return PyModule_Create2(&module, 1013); }\n"
    )
    (checkout / "handler/handler.py").write_text(
        "import fast\n\ndef handle(event, context):\n    return fast.__name__\n"
    )
    built(
        checkout,
        "watchdog-app-compiled",
        "--build-arg",
        "ADDITIONAL_PACKAGE=gcc musl-dev build:patchelf",
        "--build-arg",
        "BUILD_PACKAGE=file",
    )
    with running("watchdog-app-compiled", *HARDENED) as container:
        assert container.call() == (200, b"fast")
    assert size("watchdog-app-compiled") - size(image) < 2_000_000


def test_unknown_package_ends_the_build_and_says_whose_names_it_takes(checkout):
    done = build(checkout, "watchdog-app-failing", "--build-arg", "ADDITIONAL_PACKAGE=no-such-package-of-anybody")
    assert done.returncode != 0
    assert "Unable to locate package no-such-package-of-anybody" in done.stdout + done.stderr
    assert "take names of Debian packages" in done.stdout + done.stderr


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


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The address of this repository as a server of git has it, with a tag."""
    folder = tmp_path_factory.mktemp("repository")
    run("git", "clone", "--quiet", "--bare", str(ROOT), str(folder / "watchdog_app.git"))
    run("git", "-C", str(folder / "watchdog_app.git"), "tag", "--force", VERSION)
    port = free_port()
    command = ["git", "daemon", "--export-all", f"--base-path={folder}", "--listen=127.0.0.1", f"--port={port}"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    address = f"git://127.0.0.1:{port}/watchdog_app.git"
    try:
        wait_for(lambda: run("git", "ls-remote", address).returncode == 0, "the server of git")
        yield address
    finally:
        server.terminate()
        server.wait(DEADLINE)


@pytest.mark.skipif(not shutil.which("faas-cli"), reason="faas-cli is needed")
@pytest.mark.parametrize("language", ["python3-http", "python3-flask-debian"])
def test_template_gives_a_function_that_runs(language, repository, tmp_path):
    setting, pull, create, *_ = [line[2:] for line in readme_block("template")]
    env = {**os.environ, "REPOSITORY": repository}
    assert run("sh", "-c", f"{setting} && {pull}", cwd=tmp_path, env=env).returncode == 0
    new = run("sh", "-c", f"{setting} && {create.replace('python3-http', language)}", cwd=tmp_path)
    assert f"python3 template/{language}/watchdog_app.py NAME --reload" in new.stdout
    assert "image: docker.io/you/greeting:latest" in (tmp_path / "stack.yaml").read_text()
    (tmp_path / "greeting/unique.txt").write_text(str(tmp_path))  # for a build that is not cached
    assert run("faas-cli", "build", "-f", "stack.yaml", "--shrinkwrap", cwd=tmp_path).returncode == 0
    log = built(tmp_path / "build/greeting", "watchdog-app-template")
    assert "2 passed" in log
    with running("watchdog-app-template", *HARDENED) as container:
        status, body = container.call("POST", body=b"Ann")
        assert (status, json.loads(body)) == (200, {"message": "Hello, Ann!"})


def test_first_test_of_a_template_is_not_that_of_another_function(checkout):
    shutil.copy(ROOT / "docs/handler_test.py", checkout / "handler/handler_test.py")
    shutil.copy(ROOT / "docs/handler_test.py", checkout / "image/example_test.py")
    shutil.copy(ROOT / "handler/handler.py", checkout / "image/example.py")
    (checkout / "handler/handler.py").write_text(f"def handle(event, context):\n    return {str(checkout)!r}\n")
    assert "handler_test.py is left out: it is the template's" in built(checkout, "watchdog-app-another")
    (checkout / "handler/handler_test.py").write_text(
        "from .handler import handle\n\ndef test_it():\n    assert handle(0, 0)\n"
    )
    (checkout / "handler/queue.py").write_text("raise SystemExit('not the standard library')\n")
    assert "1 passed" in built(checkout, "watchdog-app-another")


@pytest.mark.skipif(not shutil.which("faas-cli"), reason="faas-cli is needed")
def test_stack_without_its_template_pulls_the_one_that_it_pins(repository, tmp_path):
    shutil.copy(ROOT / "stack.yaml", tmp_path)
    shutil.copytree(ROOT / "handler", tmp_path / "handler", ignore=shutil.ignore_patterns("__pycache__"))
    env = {**os.environ, "REPOSITORY": repository}
    done = run("faas-cli", "build", "-f", "stack.yaml", "--shrinkwrap", cwd=tmp_path, env=env)
    assert f"Pulling template: python3-http from {repository}#{VERSION}" in done.stdout
    assert (tmp_path / "build/greet/watchdog_app.py").read_bytes() == run_bytes("git", "show", "HEAD:watchdog_app.py")


def run_bytes(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout


@pytest.mark.skipif(not shutil.which("faas-cli"), reason="faas-cli is needed")
def test_local_run_answers_with_a_read_only_root(image, tmp_path):
    port = free_port()
    text = (ROOT / "stack.yaml").read_text().replace("${OPENFAAS_PREFIX:-127.0.0.1:5000}/greet", image)
    assert "readonly_root_filesystem: true" in text
    (tmp_path / "stack.yaml").write_text(text)
    for name in ("handler", "template"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = ["faas-cli", "local-run", "greet", "-f", "stack.yaml", "--build=false", f"--port={port}"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    container = Container("greet", port)
    try:
        wait_for(container.answers, "readiness")
        assert container.call("POST", body=b"Ann") == (200, b'{"message":"Hello, Ann!"}')
    finally:
        run("docker", "rm", "-f", "-v", "greet")  # and faas-cli ends with its container
        process.terminate()
        process.wait(DEADLINE)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
