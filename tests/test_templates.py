"""The templates for faas-cli, and stack.yaml, as faas-cli and the cluster take them."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request

import pytest
from conftest import DEADLINE, ROOT, clean_env, run_program, wait_for

import watchdog_app

TEMPLATES = sorted(path.name for path in (ROOT / "template").iterdir())
STACK = (ROOT / "stack.yaml").read_text()


def install_py():
    spec = importlib.util.spec_from_file_location("install", ROOT / "image/install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = install_py()


@pytest.fixture
def project(tmp_path):
    """Give a folder with what `faas-cli template pull` and `faas-cli new` make of a template: copies of what links lead to."""

    def make(name):
        shutil.copytree(ROOT / "template" / name, tmp_path / "template" / name)
        shutil.copytree(ROOT / "template" / name / "handler", tmp_path / "greeting")
        return tmp_path

    return make


def commands(name):
    """Return the commands of the welcome message, for a function `greeting`."""
    text = (ROOT / "template" / name / "template.yml").read_text().partition("welcome_message: |")[2]
    return [line.strip().replace("NAME", "greeting") for line in text.splitlines() if line.startswith("    ")]


def test_there_is_a_template_for_each_of_the_official_ones():
    official = ["python3-flask", "python3-flask-debian", "python3-http", "python3-http-debian"]
    assert sorted([*official, "python2.7-http"]) == TEMPLATES


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_has_what_the_dockerfile_copies(name):
    folder = ROOT / "template" / name
    assert not folder.is_symlink()
    assert [path for path in folder.rglob("*") if not path.exists()] == [], "links that lead nowhere"
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    named = {source for line in sources for source in line.split() if "[" not in source}
    assert [source for source in named if not (folder / source).exists()] == []
    assert f"language: {name}\n" in (folder / "template.yml").read_text()


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("option", ["dev", "libpq"])
def test_build_options_install_packages_for_building_only(name, option):
    text = (ROOT / "template" / name / "template.yml").read_text()
    packages = re.search(rf"- name: {option}\n +packages:\n((?: +- \S+\n)+)", text)[1].split()[1::2]
    assert "build:gcc" in packages
    assert all(install.is_for_building(package) for package in packages)


@pytest.mark.parametrize("name", TEMPLATES)
def test_first_test_passes_as_the_welcome_message_runs_it(name, project):
    folder = project(name)
    setting, _, *command = commands(name)[1].split()
    env = clean_env(**dict([setting.split("=")]))
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=DEADLINE
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", TEMPLATES)
def test_function_runs_at_once_as_the_welcome_message_says(name, project):
    if "flask" in name and not importlib.util.find_spec("flask"):
        pytest.skip("flask is not installed")
    folder = project(name)
    command = commands(name)[0].removeprefix("pip install flask && ").split()
    with run_program([sys.executable, *command[1:]], folder) as program:
        wait_for(program.answers)
        with urllib.request.urlopen(f"http://127.0.0.1:{program.port}/", b"Ada", DEADLINE) as response:
            assert json.load(response) == {"message": "Hello, Ada!"}
        program.popen.send_signal(signal.SIGINT)  # what reloads ends what it has started
        program.end()


@pytest.mark.parametrize(
    ("name", "debian", "building"),
    [
        ("libpq5", "libpq5", False),
        ("libpq-dev", "libpq-dev", True),
        ("gcc", "gcc", True),
        ("gcc-14", "gcc-14", False),
        ("build:git", "build:git", True),
        ("git", "git", False),
        ("musl-dev", "libc6-dev", True),
        ("postgresql-libs", "libpq5", False),
    ],
)
def test_additional_packages_are_kept_or_for_building(name, debian, building):
    assert (install.in_debian(name), install.is_for_building(debian)) == (debian, building)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        pytest.param({"requirements.txt": "requests==2.32.0\nnumpy >= 2  # a/b\n"}, False, id="packages"),
        pytest.param(
            {"requirements.txt": "--index-url https://example.org/simple\n-i https://b.org/\nx\n"}, False, id="index"
        ),
        pytest.param(
            {"requirements.txt": "x @ https://example.org/x.whl\ngit+https://example.org/x.git\n"}, False, id="URL"
        ),
        pytest.param({"requirements.txt": "x --hash=sha256:ab/cd\n"}, False, id="hash"),
        pytest.param({"requirements.txt": "x\n./vendor/x.whl\n"}, True, id="wheel"),
        pytest.param({"requirements.txt": "vendor/x.whl\n"}, True, id="wheel without a dot"),
        pytest.param({"requirements.txt": "-e .\n"}, True, id="the folder"),
        pytest.param({"requirements.txt": "x @ file:lib\n"}, True, id="file URL"),
        pytest.param({"requirements.txt": "-r other.txt\n"}, True, id="another file"),
        pytest.param({"requirements.txt": "x\n--constraint other.txt\n"}, True, id="constraints"),
        pytest.param({"requirements.txt": "--find-links vendor\nx\n"}, True, id="folder of wheels"),
        pytest.param({"pyproject.toml": 'dependencies = ["x"]\n'}, False, id="pyproject.toml"),
        pytest.param({"pyproject.toml": 'x = { path = "lib" }\n'}, True, id="pyproject.toml with a path"),
        pytest.param({"pylock.toml": 'packages.wheels.path = "x.whl"\n'}, True, id="pylock.toml with a path"),
    ],
)
def test_only_what_is_named_decides_whether_packages_are_installed_anew(files, names, tmp_path):
    folder = tmp_path / "function"
    folder.mkdir()
    (folder / "handler.py").write_text("")
    for name, text in files.items():
        (folder / name).write_text(text)
    install.copy_wanted(folder, tmp_path / "wanted")
    assert sorted(os.listdir(tmp_path / "wanted")) == sorted([*files, *(["handler.py"] if names else [])])


def test_stack_names_a_registry_from_the_environment():
    assert re.search(r"^ +image: \$\{OPENFAAS_PREFIX:-[\w.:/]+\}/greet:latest$", STACK, re.MULTILINE)


def test_stack_pins_its_template_to_this_version():
    source = re.search(r"- name: python3-http\n +source: (\S+)", STACK)[1]
    assert source == "${REPOSITORY}#" + watchdog_app.__version__


def test_stack_has_memory_for_the_bodies_that_it_allows():
    memory = int(re.search(r"limits:\n(?: +#.*\n)* +memory: (\d+)Mi", STACK)[1])
    max_body = int(re.search(r"max_body: (\d+)MB", STACK)[1])
    assert memory == 4 * max_body


@pytest.mark.parametrize("prefix", ["", "docker.io/you"])
def test_make_deploy_asks_for_a_registry(prefix, tmp_path):
    (tmp_path / "faas-cli").write_text('#!/bin/sh\necho "$OPENFAAS_PREFIX $*"\n')
    (tmp_path / "faas-cli").chmod(0o755)
    env = clean_env(PATH=f"{tmp_path}:{os.environ['PATH']}", OPENFAAS_PREFIX=prefix)
    done = subprocess.run(["make", "-s", "deploy"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=DEADLINE)
    if prefix:
        assert done.stdout == f"{prefix} up -f stack.yaml\n"
    else:
        assert "make deploy OPENFAAS_PREFIX=docker.io/you" in done.stderr
        assert done.returncode != 0
