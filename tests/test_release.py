"""The workflows, and the scripts that they call: these run here as they run there."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

import watchdog_app

VERSION = watchdog_app.__version__
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MINE = {"x86_64": "fwatchdog-amd64", "aarch64": "fwatchdog-arm64"}.get(platform.machine(), "")
# Programs that the scripts find on PATH: gh downloads what is in $FILES, the others say how they were called
GH = """#!/bin/sh
while [ "$1" != --pattern ]; do shift; done
cp "$FILES/$2" "$4"
"""
SAY = """#!/bin/sh
echo "$(basename "$0") $*" >>"$SAID"
case "$*" in *inspect*) echo sha256:abc;; info*) echo x86_64;; esac
"""


def each(pattern):
    """Return what `pattern` finds in the workflows, each with its workflow's name, as parameters."""
    found = [(path.name, match) for path in WORKFLOWS for match in re.findall(pattern, path.read_text(), re.MULTILINE)]
    assert found
    return [pytest.param(match, id=f"{name} {match}") for name, match in dict.fromkeys(found)]


@pytest.fixture
def checkout(tmp_path):
    """A folder with the scripts, and what they read."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    for name in ("watchdog_app.py", "stack.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## {VERSION} (2026-12-01)\n\n- A change.\n\n## 0.0.1 (x)\n\n- B\n"
    )
    return folder


def ran(folder, *command, programs=(), **env):
    """Run a script of a checkout, with these programs first on PATH."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, source in programs:
        (folder / "bin" / name).write_text(source)
        (folder / "bin" / name).chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path, **env}, capture_output=True, text=True)


# -- the workflows --


@pytest.mark.parametrize("command", each(r"^ *(?:- )?run: (.*)$"))
def test_a_step_calls_make_or_a_script(command):
    command = re.sub(r"^sudo --preserve-env=\w+ ", "", command)
    program, name = command.split()[:2] if command.startswith("make ") else (command.split()[0], "")
    if name:
        assert re.search(rf"^{name}[ a-z-]*:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    else:
        assert program.startswith(".ci/") and os.access(ROOT / program, os.X_OK)


@pytest.mark.parametrize("used", each(r"\buses: (.*)$"))
def test_an_action_is_pinned_by_its_commit(used):
    assert re.fullmatch(r"\./\.github/workflows/\w+\.yml|[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_no_more_unless_a_job_says_so(path):
    source = path.read_text()
    assert re.findall(r"^permissions:\n((?: .*\n)+)", source, re.MULTILINE) == ["  contents: read\n"]
    assert source.count("actions/checkout@") == source.count("persist-credentials: false")


def test_the_tests_run_on_each_python_from_the_first_that_is_promised():
    (pythons,) = re.findall(r"^ +python: \[(.*)\]$", (ROOT / ".github/workflows/ci.yml").read_text(), re.MULTILINE)
    first = int(re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())[1])
    assert pythons == ", ".join(f'"3.{minor}"' for minor in range(first, 16))


# -- a release --


def test_release_whose_names_agree_is_one(checkout):
    done = ran(checkout, ".ci/release", "check", VERSION)
    assert (done.returncode, done.stderr) == (0, "")
    assert ran(checkout, ".ci/release", "notes", VERSION).stdout == "\n- A change.\n\n"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        pytest.param("watchdog_app.py", VERSION, "9.9.9", f'no __version__ = "{VERSION}"', id="module"),
        pytest.param("stack.yaml", f"#{VERSION}", "#9.9.9", f"no template of the tag {VERSION}", id="template"),
        pytest.param("CHANGELOG.md", "2026-12-01", "not released", f"no section '## {VERSION} (date)'", id="no date"),
        pytest.param("CHANGELOG.md", "- A change.\n\n", "## Unreleased\n", "changes that are unreleased", id="unreleased"),
    ],
)  # fmt: skip
def test_release_whose_names_differ_is_refused(name, old, new, said, checkout):
    source = (checkout / name).read_text()
    assert old in source
    (checkout / name).write_text(source.replace(old, new))
    done = ran(checkout, ".ci/release", "check", VERSION)
    assert done.returncode == 1 and said in done.stderr


def test_image_is_pushed_for_each_processor_then_joined_and_signed_by_its_digest(checkout, tmp_path):
    said = tmp_path / "said"
    env = {"SAID": str(said), "GH_ACTOR": "you", "GH_TOKEN": "secret"}
    programs = [("docker", SAY), ("cosign", SAY)]
    for command in ("build", "join"):
        done = ran(checkout, ".ci/publish-image", command, "r.example/You/app:0.2.0", programs=programs, **env)
        assert done.returncode == 0, done.stderr
    assert "secret" not in said.read_text()
    calls = [line for line in said.read_text().splitlines() if re.search("--push|imagetools create|cosign", line)]
    assert calls == [
        "docker buildx build --sbom=true --provenance=mode=max --push --tag r.example/you/app:0.2.0-amd64 .",
        "docker buildx imagetools create --tag r.example/you/app:0.2.0 r.example/you/app:0.2.0-amd64 r.example/you/app:0.2.0-arm64",
        "cosign sign --yes --recursive r.example/you/app@sha256:abc",
    ]


# -- of-watchdog --


@pytest.fixture
def files(tmp_path):
    """The files of a release of of-watchdog."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("fwatchdog-amd64", "fwatchdog-arm64"):
        (folder / name).write_text(f"this is {name}")
    return folder


@pytest.mark.skipif(not MINE, reason="of-watchdog is for amd64 and arm64")
def test_watchdog_is_installed_where_it_is_the_one_that_is_pinned(checkout, files, tmp_path):
    env = {"programs": [("gh", GH)], "FILES": str(files)}
    assert ran(checkout, ".ci/watchdog", "bump", "9.9.9", **env).returncode == 0
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(files.iterdir())]
    assert (checkout / ".ci/watchdog.sha256").read_text().splitlines() == ["# 9.9.9", *sums]
    assert ran(checkout, ".ci/watchdog", "get", str(tmp_path), **env).returncode == 0
    assert (tmp_path / "fwatchdog").read_text() == f"this is {MINE}" and os.access(tmp_path / "fwatchdog", os.X_OK)


@pytest.mark.skipif(not MINE, reason="of-watchdog is for amd64 and arm64")
def test_watchdog_that_is_another_is_not_installed(checkout, files, tmp_path):
    done = ran(checkout, ".ci/watchdog", "get", str(tmp_path), programs=[("gh", GH)], FILES=str(files))
    assert done.returncode != 0 and not (tmp_path / "fwatchdog").exists()


def test_pins_are_of_one_version():
    version, *sums = (ROOT / ".ci/watchdog.sha256").read_text().splitlines()
    assert re.fullmatch(r"# \d+\.\d+\.\d+", version)
    assert [re.sub("[0-9a-f]{64}", "SUM", line) for line in sums] == ["SUM  fwatchdog-amd64", "SUM  fwatchdog-arm64"]


# -- the pages about it --

PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "RELEASING.md", ROOT / ".github/pull_request_template.md"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_names_what_there_is(path):
    source = path.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for names in re.findall(r"`make ([a-z -]+)", source) for name in names.split()}
    files = re.findall(r"`((?:\.ci|tests|docs|image)/[\w./]*)", source) + re.findall(r"\]\(([^#)]+)", source)
    assert named <= targets
    assert files == [name for name in files if (ROOT / name).exists()]


@pytest.mark.parametrize("name", ["Settings", "setting", "to_response", "from_parts", "ResultError", "HTTPError"])
def test_contributing_names_what_the_module_has(name):
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", (ROOT / "CONTRIBUTING.md").read_text())
    assert hasattr(watchdog_app, name)


def test_editors_find_what_their_settings_name():
    (launch,) = json.loads((ROOT / ".vscode/launch.json").read_text())["configurations"]
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert (ROOT / launch["module"]).with_suffix(".py").exists()
    target = container["postCreateCommand"].removeprefix("make ")
    assert target.replace(".venv", "$(VENV)") + ":" in (ROOT / "Makefile").read_text()
