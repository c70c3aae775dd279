"""Install what the function depends on; the Dockerfile runs it with the base image's Python.

install.py wanted FOLDER OUT        copy the files of the function in FOLDER that say what it depends on
install.py debian OUT               the packages of ADDITIONAL_PACKAGE, collected into OUT, and those of BUILD_PACKAGE, which are not
install.py python FOLDER OUT        the Python packages that these files name, into OUT
install.py pytest FOLDER OUT        pytest, where TEST_COMMAND runs it and FOLDER has tests
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
# Of these the image keeps nothing but the libraries that something in it is linked to. A version makes a compiler one to keep: gcc-14
BUILD_ONLY = re.compile(
    r"(autoconf|automake|build-essential|cargo|cmake|g\+\+|gcc|gfortran|libtool|make|meson|ninja-build|patch|pkg-config|pkgconf|rustc|swig|.*-dev)"
)
# OpenFaaS's python3-http is made of Alpine, this image of Debian
ALPINE = {
    "build-base": "build-essential",
    "cyrus-sasl-dev": "libsasl2-dev",
    "freetype-dev": "libfreetype-dev",
    "jpeg-dev": "libjpeg-dev",
    "lapack-dev": "liblapack-dev",
    "libc-dev": "libc6-dev",
    "libjpeg-turbo-dev": "libjpeg-dev",
    "libmagic": "libmagic1",
    "libpq": "libpq5",
    "libstdc++": "libstdc++6",
    "libxslt-dev": "libxslt1-dev",
    "linux-headers": "linux-libc-dev",
    "mariadb-connector-c": "libmariadb3",
    "mariadb-connector-c-dev": "libmariadb-dev",
    "mariadb-dev": "libmariadb-dev",
    "musl-dev": "libc6-dev",
    "openblas": "libopenblas0",
    "openblas-dev": "libopenblas-dev",
    "openldap-dev": "libldap-dev",
    "openssl-dev": "libssl-dev",
    "pkgconfig": "pkg-config",
    "postgresql-dev": "libpq-dev",
    "postgresql-libs": "libpq5",
    "tiff-dev": "libtiff-dev",
    "zlib-dev": "zlib1g-dev",
}
TEMPLATE = HERE / "requirements.txt"  # of a template that has Flask in it
TOOLS = Path("/tools")
PROJECTS = ("pyproject.toml", "uv.lock", "pylock.toml")
GIT = re.compile(r"\bgit\+|\bgit\s*=|\[packages.vcs\]")
NAMES_A_FILE = re.compile(r"(-[^-i]|--(requirement|constraint|editable|find-links)\b|[./]|file:|.*@\s*(\.|file:))")
EDITABLE = re.compile(r"^\s*(-e|--editable)[ =]*", re.MULTILINE)
TESTS = ("test_*.py", "*_test.py", "tests")


def main(command: str, *arguments: str) -> None:
    """Run one of the commands above."""
    commands = {"wanted": copy_wanted, "debian": install_debian, "python": install_python, "pytest": install_pytest}
    commands[command](*(Path(argument) for argument in arguments))


def copy_wanted(folder: Path, out: Path) -> None:
    """Copy the files that say what to install, or the whole folder where one of them names files of it.

    What is copied decides whether everything has to be installed anew: a changed handler.py alone shall not.
    """
    if names_files(folder):
        shutil.copytree(folder, out, ignore=shutil.ignore_patterns("__pycache__"))
        return
    out.mkdir()
    for name in ("requirements.txt", *PROJECTS):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


def names_files(folder: Path) -> bool:
    """Tell whether the requirements name files or folders of the function: `-r other.txt`, `./vendor/x.whl`, `-e .`."""
    lines = [re.sub(r"(^|\s)(#|--hash).*", "", line).strip() for line in read(folder / "requirements.txt").splitlines()]
    projects = read(folder / "pyproject.toml") + read(folder / "pylock.toml")
    return any(map(is_file_name, lines)) or re.search(r"\bpath\s*=|file:", projects) is not None


def is_file_name(line: str) -> bool:
    """Tell whether a line of requirements names a file or a folder."""
    return NAMES_A_FILE.match(line) is not None or ("/" in line and "://" not in line)


def read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def install_debian(out: Path) -> None:
    """Install the Debian packages, and collect the files of those that are not for building only."""
    wanted = [in_debian(name) for name in os.environ.get("ADDITIONAL_PACKAGE", "").split()]
    kept = [name for name in wanted if not is_for_building(name)]
    building = [name.removeprefix("build:") for name in wanted if is_for_building(name)]
    building += [*os.environ.get("BUILD_PACKAGE", "").split(), *read(HERE / "build_packages.txt").split()]
    if kept:
        before = Path("/before")
        before.write_text(run_text("dpkg-query", "-W", "-f", "${binary:Package}\n"))
        apt_install(kept)
        run(sys.executable, str(HERE / "collect.py"), "packages", str(out), str(before))
    if building:
        apt_install(building)


def in_debian(name: str) -> str:
    """Return Debian's name of a package that is known by Alpine's."""
    if name not in ALPINE:
        return name
    print(f"install.py: {name} is Alpine's name, which is {ALPINE[name]} in Debian", flush=True)
    return ALPINE[name]


def is_for_building(name: str) -> bool:
    return name.startswith("build:") or BUILD_ONLY.fullmatch(name) is not None


def apt_install(packages: list[str]) -> None:
    """Install Debian packages; where that fails, end with what to look at."""
    run("apt-get", "update")
    if subprocess.run(["apt-get", "-y", "install", "--no-install-recommends", *packages]).returncode:
        sys.exit(
            "install.py: ADDITIONAL_PACKAGE and BUILD_PACKAGE take names of Debian packages, as python3-http-debian does, "
            "not those of Alpine: search for them at packages.debian.org"
        )


def install_python(folder: Path, out: Path) -> None:
    """Install the Python packages into `out`, with the programs that they bring in /usr/local/bin."""
    target = out / site.getsitepackages()[0].lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    read_secrets()
    if GIT.search("".join(read(path) for path in wanted_files(folder))) and not shutil.which("git"):
        apt_install(["git", "ca-certificates"])
    for arguments in to_install(folder):
        pip("install", "--target", str(target), *arguments)
    if TEMPLATE.is_file() and not (target / "flask").is_dir():
        sys.exit("install.py: this template needs flask: add it to the function's dependencies, and lock them again")
    if (target / "bin").is_dir():
        shutil.copytree(target / "bin", out / "usr/local/bin", dirs_exist_ok=True)
        shutil.rmtree(target / "bin")


def wanted_files(folder: Path) -> list[Path]:
    return [*folder.glob("*.txt"), *(folder / name for name in PROJECTS)]


def read_secrets() -> None:
    """Let pip find the build's secrets, which are mounted for one instruction and are in no layer."""
    secrets = Path("/run/secrets")
    if (secrets / "pipconf").is_file():
        os.environ["PIP_CONFIG_FILE"] = str(secrets / "pipconf")
    if index := read(secrets / "pip_index_url").strip():
        os.environ["PIP_INDEX_URL"] = index


def to_install(folder: Path) -> list[list[str]]:
    """Return arguments for pip: of requirements.txt if it names anything, else of a lock, else of pyproject.toml."""
    for path in folder.glob("*.txt"):
        path.write_text(
            EDITABLE.sub("", path.read_text())
        )  # installed as a copy: the folder itself is not in the image
    requirements = read(folder / "requirements.txt")
    template = ["-r", str(TEMPLATE)] if TEMPLATE.is_file() else []
    if re.search(r"^\s*[^#\s]", requirements, re.MULTILINE):
        locked = "--hash" in requirements
        return [["-r", "requirements.txt", *([] if locked else template)]]
    if (folder / "uv.lock").is_file():
        return export_lock(folder)
    if (folder / "pylock.toml").is_file():
        add_tool("pip>=26.1")  # the first that reads it
        return [["-r", "pylock.toml"]]
    project = tomllib.loads(read(folder / "pyproject.toml")).get("project", {})
    arguments = [*template, *project.get("dependencies", [])]
    return [arguments] if arguments else []


def export_lock(folder: Path) -> list[list[str]]:
    """Return arguments for pip of uv.lock: packages with their hashes, and folders of the function without."""
    add_tool("uv")
    command = (
        sys.executable,
        "-m",
        "uv",
        "export",
        "--frozen",
        "--no-dev",
        "--no-emit-project",
        "--no-header",
        "--no-annotate",
    )
    os.environ |= {"UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    run(*command, "--no-emit-local", "-o", str(folder / "locked.txt"))
    lines = run_text(*command, "--no-hashes", "--no-editable").splitlines()
    folders = [line.partition(" ;")[0] for line in lines if line.startswith((".", "/", "file:"))]
    return [["-r", "locked.txt"], *([["--no-deps", *folders]] if folders else [])]


def install_pytest(folder: Path, out: Path) -> None:
    """Install pytest where TEST_COMMAND runs it; a file `none` says that there is nothing to test."""
    out.mkdir()
    if os.environ["TEST_ENABLED"] == "false" or "pytest" not in os.environ["TEST_COMMAND"]:
        return
    if not any(any(folder.glob(pattern)) for pattern in TESTS):
        (out / "none").touch()
        return
    read_secrets()
    pip("install", "--quiet", "--target", str(out), "pytest")


def add_tool(requirement: str) -> None:
    """Install a program of the build, which is not in the image, for this process and those that it starts."""
    pip("install", "--quiet", "--target", str(TOOLS), requirement)
    os.environ["PYTHONPATH"] = str(TOOLS)


def pip(*arguments: str) -> None:
    run(sys.executable, "-m", "pip", *arguments)


def run(*command: str) -> None:
    """Run a program; where it fails, end as it did: it has said why."""
    if status := subprocess.run(command).returncode:
        sys.exit(status)


def run_text(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
