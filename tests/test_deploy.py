"""The page about platforms says what is so: its files are valid and do what they promise, and its tables are those of the code and of of-watchdog."""

import re
import shutil
import subprocess
import sys
import time

import pytest
from conftest import DEADLINE, ROOT, connect_and_get, free_port, run_program, table_rows, wait_for
from test_watchdog import behind, write_function

import watchdog_app
from watchdog_app import Settings, duration, size

TEXT = (ROOT / "docs/deploy.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SET = re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', "\n".join(re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)))
IMAGE = {name: quoted or plain for name, quoted, plain in SET}


def block(name):
    """Return the block behind the comment `name`."""
    return re.search(rf"<!-- {re.escape(name)} -->\n```[a-z]+\n(.*?)```", TEXT, re.DOTALL)[1]


def table(name):
    """Return the rows of the table behind the comment `name`."""
    return table_rows(re.search(rf"<!-- {name} -->\n((?:\|.*\n)+)", TEXT)[1])


def parse(text):
    """Convert the part of YAML that the page uses to dicts, lists and text: two spaces a level, `key: value`, `- item`."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert not [line for line in lines if not re.fullmatch(r"(  )*(- )?([\w./-]+:( \S.*)?|\S+)", line)]
    return parse_level([(len(line) - len(line.lstrip()), line.strip()) for line in lines])


def parse_level(lines):
    """Convert lines, each with its indentation, to the one value that they stand for."""
    if lines[0][1].startswith("- "):
        entries = group([(depth, text) for depth, text in lines], lambda depth, text: depth == lines[0][0])
        return [parse_level([(depth + 2, text[2:]), *rest]) for (depth, text), *rest in entries]
    key, colon, value = lines[0][1].partition(":")
    if len(lines) == 1 and (not colon or (value and value[0] != " ") or key[0] == '"'):
        return lines[0][1].strip('"')
    entries = group(lines, lambda depth, text: depth == lines[0][0])
    return {
        text.partition(":")[0]: parse_level(rest) if rest else text.partition(":")[2].strip().strip('"')
        for (_, text), *rest in entries
    }


def group(lines, begins):
    """Return `lines` cut before each one that begins an entry."""
    entries = []
    for line in lines:
        if begins(*line):
            entries.append([])
        entries[-1].append(line)
    return entries


def test_parse_reads_what_yaml_means():
    text = 'a: 1\nb:\n  - c: x\n    d: ""\n  - "1:2"\nf:\n  g:\n    h: http://x:1\n'
    assert parse(text) == {"a": "1", "b": [{"c": "x", "d": ""}, "1:2"], "f": {"g": {"h": "http://x:1"}}}


STACK = parse(block("stack.yaml"))["functions"]["greet"]
COMPOSE = parse(block("compose.yaml"))
SERVICE = parse(block("service.yaml"))
OF_FAASD = {"OPENFAAS_NAME", "OPENFAAS_NAMESPACE"}
STACK_NAMES = {"greet", *STACK["secrets"]}


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(STACK["environment"], id="stack.yaml"),
        pytest.param(COMPOSE["services"]["greet"]["environment"], id="compose.yaml"),
    ],
)
def test_environment_is_valid_and_leaves_time_for_a_504(environment):
    assert environment.keys() <= watchdog_app.SETTINGS.keys() | OF_FAASD
    settings = Settings.from_env({**IMAGE, **environment})
    assert settings.exec_timeout < settings.write_timeout == settings.read_timeout


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(block("stack.yaml"), id="on the page"),
        pytest.param((ROOT / "stack.yaml").read_text(), id="of the repository"),
    ],
)
def test_bodies_take_a_quarter_of_the_memory_where_faasd_hides_the_limit(text):
    limit = size(re.search(r" limits:.*?memory: (\w+)", text, re.DOTALL)[1] + "B")  # Kubernetes' Mi is our MiB
    assert size(re.search(r" body_memory: (\w+)", text)[1]) == limit // watchdog_app.BODY_SHARE


def test_name_of_the_function_is_the_one_in_the_stack():
    context = watchdog_app.Context.of(STACK["environment"], Settings())
    assert (context.function_name, context.namespace) == ("greet", "openfaas-fn")


def test_compose_starts_the_image_as_it_wants_to_be_started():
    service = COMPOSE["services"]["greet"]
    assert service["ports"][0].endswith(":8080") and "EXPOSE 8080" in DOCKERFILE
    assert (service["read_only"], service["tmpfs"], service["cap_drop"]) == ("true", ["/tmp"], ["ALL"])
    (secret,) = service["secrets"]
    assert secret["target"] == f"{Settings().secret_dir}/{secret['source']}"
    assert COMPOSE["secrets"].keys() == {secret["source"]}


def stop_seconds(environment):
    """Return how long the image may take to stop, with these settings over its own."""
    settings = Settings.from_env({**IMAGE, **environment})
    return settings.healthcheck_interval + settings.write_timeout


def test_stop_has_the_time_that_it_may_take():
    service = COMPOSE["services"]["greet"]
    assert duration(service["stop_grace_period"]) > stop_seconds(service["environment"])
    assert int(re.search(r"--stop-timeout (\d+)", block("docker"))[1]) > stop_seconds({})


def test_docker_run_is_the_same_as_compose():
    words = block("docker").split()
    assert {"--read-only", "--rm"} <= set(words)
    service = COMPOSE["services"]["greet"]
    assert words[words.index("--tmpfs") + 1] in service["tmpfs"]
    assert words[words.index("--memory") + 1] == service["mem_limit"]
    assert [words[words.index("-p") + 1]] == service["ports"]
    assert words[-1] == service["image"]


(CONTAINER,) = SERVICE["spec"]["template"]["spec"]["containers"]
KNATIVE = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}


def test_service_of_knative_runs_what_the_image_has():
    command = [*CONTAINER["command"], *CONTAINER["args"]]
    assert " ".join(command) == IMAGE["fprocess"]


def test_cloud_run_gets_the_same_as_knative():
    flags = dict(re.findall(r"--([a-z-]+)=(\S+)", block("cloud run")))
    assert [flags["command"], flags["args"]] == [*CONTAINER["command"], *CONTAINER["args"]]
    assert dict(pair.split("=") for pair in flags["set-env-vars"].split(",")) == KNATIVE


def test_runtime_alone_serves_at_port_with_what_the_page_sets(tmp_path):
    function = write_function(tmp_path, "def handle(event, context):\n    return context.function_name\n")
    port = free_port()
    env = {**IMAGE, **KNATIVE, "PORT": str(port), "K_SERVICE": "greet", "TMPDIR": str(tmp_path)}
    del env["PATH"]  # with the image's, the interpreter would be another
    with run_program([sys.executable, str(ROOT / "watchdog_app.py"), str(function)], **env) as program:
        program.port = port
        wait_for(program.answers, "an answer")
        assert connect_and_get(port) == b"greet"


def test_image_says_that_port_is_not_its_own():
    assert Settings.from_env({**IMAGE, "PORT": "9000"}).port == 5000
    settings = Settings.from_env({**IMAGE, **KNATIVE, "PORT": "9000"})
    assert (settings.host, settings.port) == ("0.0.0.0", 9000)


@pytest.mark.skipif(not shutil.which("faas-cli"), reason="faas-cli is not on PATH")
@pytest.mark.parametrize("line", block("faasd").splitlines())
def test_command_has_the_flags_that_the_page_gives_it(line):
    words = line.removeprefix("$ ").split()
    command = [word for word in words[1:3] if word.isalpha() and word not in STACK_NAMES]
    done = subprocess.run([words[0], *command, "--help"], capture_output=True, text=True, timeout=DEADLINE, check=True)
    flags = [word.partition("=")[0] for word in words if word.startswith("-")]
    assert [flag for flag in flags if not re.search(rf"(^|\s){flag}\b", done.stdout)] == []


# ---- the tables ----

ACCOUNT = "of the service account"
PLATFORMS = {
    "OpenFaaS Standard": {"OPENFAAS_NAME": "greet"},
    "OpenFaaS, Community Edition": {},
    "faasd": {},
    "Knative": {"K_SERVICE": "greet", "K_REVISION": "greet-00001"},
    "Cloud Run": {"K_SERVICE": "greet", "K_REVISION": "greet-00001"},
    "Docker, Compose": {},
}


def test_platforms_of_the_table_are_those_that_have_a_sample():
    assert [row[0] for row in table("names")] == [*PLATFORMS]


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0]) for row in table("names")])
def test_name_and_namespace_are_what_the_table_says(row, monkeypatch):
    monkeypatch.setattr(watchdog_app, "read_text", lambda path: "team-a" if row[2] == ACCOUNT else None)
    context = watchdog_app.Context.of(PLATFORMS[row[0]], Settings())
    assert context.function_name == (None if row[1] == "`None`" else PLATFORMS[row[0]][row[1].strip("`")])
    assert context.namespace == {"`None`": None, ACCOUNT: "team-a"}[row[2]]


def test_limits_have_the_defaults_of_the_image():
    of_image = {**{name: default for name, (_, default) in watchdog_app.SETTINGS.items()}, **IMAGE}
    rows = [re.fullmatch(r"of-watchdog `(\w+)`", row[0]) for row in table("limits")]
    names = {row[1]: line[1] for row, line in zip(rows, table("limits"), strict=True) if row}
    assert names == {name: of_image[name] for name in names} and len(names) == 3


SLEEP = """
import time

def handle(event, context):
    time.sleep(event.query.get("s", 0.0, type=float))
    return "done"
"""


@pytest.mark.skipif(not shutil.which("fwatchdog"), reason="fwatchdog is not on PATH")
@pytest.mark.parametrize(
    ("limit", "env", "headers"),
    [
        pytest.param("of-watchdog `exec_timeout`", {"exec_timeout": "300ms"}, {}, id="exec_timeout"),
        pytest.param("the caller's `X-Timeout`", {}, {"X-Timeout": "300ms"}, id="X-Timeout"),
    ],
)
def test_call_that_takes_too_long_is_the_504_of_the_table(limit, env, headers, tmp_path):
    said = {row[0]: row[2] for row in table("limits")}
    assert said[limit].startswith(("504, empty, with `X-OpenFaaS-Internal: of-watchdog`", "the same"))
    with behind("real", write_function(tmp_path, SLEEP), tmp_path, **env) as watchdog:
        status, got, body = watchdog.call("POST", "/?s=2", b"x", headers)
        internal = {name.lower(): value for name, value in got.items()}["x-openfaas-internal"]
        assert (status, internal, body) == (504, "of-watchdog", b"")


@pytest.mark.skipif(not shutil.which("fwatchdog"), reason="fwatchdog is not on PATH")
@pytest.mark.parametrize("exec_timeout", ["30s", "500ms"])
def test_call_beyond_write_timeout_gets_no_response(exec_timeout, tmp_path):
    env = {"write_timeout": "500ms", "exec_timeout": exec_timeout, "healthcheck_interval": "100ms"}
    with behind("real", write_function(tmp_path, SLEEP), tmp_path, **env) as watchdog:
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            watchdog.call("POST", "/?s=1", b"x")
        assert time.monotonic() - began >= 0.5


def test_page_links_to_what_is_there():
    anchors = {head.lower().replace(" ", "-") for head in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)}
    links = re.findall(r"\]\(((?!http)[^)]+)\)", TEXT)
    assert links
    assert [link for link in links if link[1:] not in anchors and not (ROOT / "docs" / link).exists()] == []


# What the page names of others' settings
OTHERS = {
    "depends_on",
    "port",
    "readonly_root_filesystem",
    "ready_path",
    "scale_from_zero",
    "service_timeout",
    "stop_grace_period",
    "upstream_timeout",
}


def test_settings_that_the_page_names_are_the_codes_or_of_others():
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:[=:][^`]*)?`", TEXT))
    assert named - OTHERS <= watchdog_app.SETTINGS.keys()
    assert OTHERS - {"port"} <= named
