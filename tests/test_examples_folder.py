"""The folder `examples`: each example is complete, and its row in the README is what happens."""

import contextlib
import http.client
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import DEADLINE, ROOT, clean_env, process, wait_for

EXAMPLES = ROOT / "examples"
README = (EXAMPLES / "README.md").read_text()
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
ROWS = re.findall(r"^\| \[(\w+)\]\((\S+)\) \| (.+?) \| `(curl .+?)` \| (?:`(.+)`)? ?\|$", README, re.MULTILINE)
PICTURE = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)  # one red pixel


def test_each_example_has_a_row_and_each_row_an_example():
    assert sorted(row[0] for row in ROWS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_example_is_complete(name):
    link = next(row[1] for row in ROWS if row[0] == name)
    assert (EXAMPLES / link) == EXAMPLES / name / "handler.py"
    assert 10 <= len((EXAMPLES / name / "handler.py").read_text().splitlines()) <= 45
    test = (EXAMPLES / name / "handler_test.py").read_text()
    assert "from handler import handle" in test
    assert "from watchdog_app import invoke" in test


def secret(text, folder, name="database-url"):
    """Write a secret to a file of its own; return the setting that names its folder."""
    (folder / name).write_text(text)
    return {"secret_dir": str(folder)}


@contextlib.contextmanager
def prepared_webhook(folder):
    """Do what the README says."""
    yield secret(re.search("printf '(.+)' > /tmp/secrets/webhook-secret", README)[1], folder, "webhook-secret")


@contextlib.contextmanager
def prepared_jwt_token(folder):
    yield secret(re.search("signed with `(.+?)`", README)[1], folder, "jwt-key")


@contextlib.contextmanager
def prepared_database_postgres(folder):
    """Start the PostgreSQL of the example's own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES / "database_postgres")
        for name in ("handler", "handler_test"):
            patch.delitem(sys.modules, name, raising=False)
        tests = importlib.import_module("handler_test")
        for name in ("handler", "handler_test"):
            del sys.modules[name]
    with tests.postgres() as url:
        yield secret(url, folder)


@contextlib.contextmanager
def prepared_database_sqlite(folder):
    yield {"database": str(folder / "notes.db")}


@contextlib.contextmanager
def prepared_image(folder):
    if not importlib.util.find_spec("PIL"):
        pytest.skip("Pillow is not installed")
    (folder / "picture.jpg").write_bytes(PICTURE)
    yield {}


@contextlib.contextmanager
def prepared_files(folder):
    shutil.copy(ROOT / "README.md", folder)
    yield {}


prepared_upload = prepared_files


@contextlib.contextmanager
def prepared_model(folder):
    yield {"ready_on": "startup", "suppress_lock": "true"}
    assert (folder / ".lock").exists()  # the call was answered after `startup`


def packages_of(name):
    """Return the prepared function of an example that needs packages and nothing else."""

    @contextlib.contextmanager
    def prepared(folder):
        for line in (EXAMPLES / name / "requirements.txt").read_text().splitlines():
            package = re.match("[a-z0-9-]+", line)[0]
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                pytest.skip(f"{package} is not installed")
        yield {}

    return prepared


prepared_django_app, prepared_fastapi_app = packages_of("django_app"), packages_of("fastapi_app")
prepared_metrics = packages_of("metrics")


class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"path": self.path}).encode())

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def service():
    """Run a service that another function asks; yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def prepared_fan_out(folder):
    with service() as url:
        yield {"services": f"{url}/a {url}/b"}


@contextlib.contextmanager
def prepared_tracing(folder):
    with packages_of("tracing")(folder), service() as url:
        yield {"stock_url": f"{url}/stock"}


@contextlib.contextmanager
def prepared_nothing(folder):
    yield {}


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is needed")
@pytest.mark.parametrize(
    ("name", "command", "expected"), [pytest.param(row[0], row[3], row[4], id=row[0]) for row in ROWS]
)
def test_call_answers_as_its_row_says(name, command, expected, tmp_path):
    prepared = globals().get(f"prepared_{name}", prepared_nothing)
    with prepared(tmp_path) as env, process(EXAMPLES / name, TMPDIR=str(tmp_path), **env) as program:
        first = program.popen.stderr.readline()
        assert first.startswith(b"INFO Listening"), first
        command = command.replace("curl ", "curl --silent --show-error --fail ").replace(":5000/", f":{program.port}/")
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env=clean_env(no_proxy="*"),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        if "\ndef shutdown(" in (EXAMPLES / name / "handler.py").read_text():
            program.popen.send_signal(signal.SIGTERM)
            assert program.end()[0] == 0
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(re.escape(expected).replace("…", ".+"), done.stdout.strip(), re.DOTALL), done.stdout
    if " -o thumbnail.png " in command:
        assert (tmp_path / "thumbnail.png").read_bytes().startswith(b"\x89PNG")


def test_log_of_tracing_has_the_trace_id_of_its_spans(tmp_path):
    with prepared_tracing(tmp_path) as env, process(EXAMPLES / "tracing", log_format="json", **env) as program:
        wait_for(program.answers, "the first answer")
        connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request("GET", "/?item=tea")
            trace_id = json.load(connection.getresponse())["trace_id"]
        program.popen.send_signal(signal.SIGTERM)
        status, log = program.end()
    records = [json.loads(line) for line in log.splitlines()]
    assert status == 0
    assert [record["trace_id"] for record in records if record["message"].startswith("asking for")] == [trace_id]


def test_copied_folder_is_tested_as_the_build_does_it(tmp_path):
    build = (ROOT / "Dockerfile").read_text()
    assert "export PYTHONPATH=/build:$site:/pytest watchdog_app_function=/build/function &&" in build
    flags = re.search(r'^ARG TEST_COMMAND="python3 (-P -m pytest .+?)"$', build, re.MULTILINE)[1].split()
    shutil.copy(ROOT / "watchdog_app.py", tmp_path)
    shutil.copytree(EXAMPLES / "json_api", tmp_path / "function", ignore=shutil.ignore_patterns("__pycache__"))
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = clean_env(PYTHONPATH=path, watchdog_app_function=str(tmp_path / "function"))
    done = subprocess.run(
        [sys.executable, *flags],
        cwd=tmp_path / "function",
        env=env,
        capture_output=True,
        text=True,
        timeout=DEADLINE * 3,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9][0-9]* passed", done.stdout)


def test_tests_of_all_examples_pass_in_one_process():
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", "examples"]
    done = subprocess.run(command, cwd=ROOT, env=clean_env(), capture_output=True, text=True, timeout=DEADLINE * 6)
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9][0-9]+ passed", done.stdout)
