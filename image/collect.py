"""Collect what a function needs at run time into a folder that becomes the image; the Dockerfile runs it with the base image's Python.

    collect.py python OUT               the interpreter with its standard library, certificates, time zones, users and folders
    collect.py packages OUT BEFORE      the Debian packages installed since `dpkg-query -W` printed the file BEFORE
    collect.py libraries OUT            the shared libraries that what is in OUT needs, and the linker's cache
    collect.py seal OUT                 the same modes and times for everything, so that equal content gives an equal layer

Nothing here names an architecture: the interpreter says where it lies, `ldd` what it needs.
"""

from __future__ import annotations

import os
import py_compile
import re
import shutil
import site
import ssl
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

STDLIB = Path(sysconfig.get_path("stdlib"))
# What no function uses: tests, what is for building, pip's installer, and what needs a window or a terminal, with the libraries that come with it.
# To keep one of them, take it out of here.
LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "turtle.py",
    "curses",
    "ensurepip",
    "lib2to3",
    "sitecustomize.py",
}
LEFT_OUT |= {"site-packages", "dist-packages", "__pycache__"}
LEFT_OUT_MODULES = re.compile(
    r"(_tkinter|_curses\w*|readline|_dbm|_gdbm|_test\w*|xxlimited\w*|_xxtestfuzz|_ctypes_test)\..*so$"
)
# What functions usually import stays as folders, which start fastest; the rest lies in a compressed zip that stands last on the path
USUAL = """asyncio base64 collections.abc concurrent.futures contextvars copy csv ctypes dataclasses datetime decimal encodings.idna encodings.latin_1
encodings.ascii functools hashlib hmac http.client io json logging os pathlib random re secrets select shutil signal socket sqlite3 ssl string struct
subprocess tempfile threading time traceback types typing urllib.parse uuid weakref wsgiref.handlers zoneinfo"""
EXTRA_LIBRARIES = ("libgcc_s.so.1",)  # loaded at run time: without it an exit with daemon threads aborts
TIME_ZONES = Path("/usr/share/zoneinfo")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
DOCUMENTATION = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bug|doc-base)/")
FIND_LIBRARY = '''

def find_library(name):
    """Look through the linker's folders: the image has neither ldconfig nor a compiler."""
    import glob
    folders = ("/usr/local/lib", *glob.glob("/usr/lib/*-linux-gnu*"), "/usr/lib64", "/usr/lib", *glob.glob("/lib/*-linux-gnu*"), "/lib64", "/lib")
    for folder in folders:
        for path in sorted(glob.glob(f"{glob.escape(folder)}/lib{glob.escape(name)}.so*")):
            return os.path.basename(path)
    return None
'''


def main(command: str, out: str, *arguments: str) -> None:
    """Run one of the commands above."""
    commands = {"python": collect_python, "packages": collect_packages, "libraries": collect_libraries, "seal": seal}
    commands[command](Path(out), *arguments)


def collect_python(out: Path) -> None:
    """Collect the interpreter, its standard library and what both expect of a system."""
    make_folders(out)
    make_system_folders(out)
    interpreter = Path(os.path.realpath(sys.executable))
    copy(interpreter, out)
    for name in ("python3", "python"):
        link = out / interpreter.parent.relative_to("/") / name
        link.unlink(missing_ok=True)
        link.symlink_to(interpreter.name)
    collect_standard_library(out)
    for name in EXTRA_LIBRARIES:
        copy_library(find_library(name), out)
    copy_certificates(out)
    if TIME_ZONES.is_dir():
        copy_tree(TIME_ZONES, out, leave_out={"right", "posix"})
    (out / "etc/passwd").write_text("root:x:0:0:root:/root:/sbin/nologin\napp:x:12000:12000:app:/tmp:/sbin/nologin\n")
    (out / "etc/group").write_text("root:x:0:\napp:x:12000:\n")


def make_folders(out: Path) -> None:
    for name in ("tmp", "etc", "home/app", "usr/bin", "var/openfaas/secrets"):
        (out / name).mkdir(parents=True, exist_ok=True)


def make_system_folders(out: Path) -> None:
    """Link /lib, /lib64 and /bin as the base image does, so that each library has one place."""
    for name in ("lib", "lib64", "bin", "sbin"):
        source = Path("/", name)
        if source.is_symlink():
            (out / os.readlink(source)).mkdir(parents=True, exist_ok=True)
            (out / name).symlink_to(os.readlink(source))


def collect_standard_library(out: Path) -> None:
    """Compile the standard library into folders of .pyc and a zip, and copy what is not Python source."""
    rare = Path("/rare")
    usual = usual_modules()
    for path in walk(STDLIB):
        relative = path.relative_to(STDLIB)
        if relative.parts[0].startswith("config-") or LEFT_OUT_MODULES.match(path.name):
            continue
        if path.suffix == ".py":
            folder = out / STDLIB.relative_to("/") if relative.parts[0].removesuffix(".py") in usual else rare
            compile_module(path, folder / (str(relative) + "c"))
        elif path.suffix != ".a":
            copy(path, out)
    write_zip(rare, out)


def usual_modules() -> set[str]:
    """Return the top-level names of all that the usual imports load."""
    code = f"import sys, {', '.join(USUAL.split())}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = set(run(sys.executable, "-I", "-c", code).split())
    return loaded | {
        "encodings",
        "importlib",
        "collections",
        "os",
        "site",
        "runpy",
        "pkgutil",
        "zipimport",
        "__future__",
    }


def write_zip(folder: Path, out: Path) -> None:
    """Pack what is in `folder` into a zip, and have the path end with it."""
    target = STDLIB / "rare.zip"
    with zipfile.ZipFile(out / target.relative_to("/"), "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(walk_all(folder)):
            archive.writestr(zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    packages = out / site.getsitepackages()[0].lstrip("/")
    packages.mkdir(parents=True, exist_ok=True)
    (packages / "rare.pth").write_text(f"{target}\n")
    (
        packages / "sitecustomize.py"
    ).touch()  # every start looks for one: found here, it does not open the zip, which takes 2 ms


def walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        yield from (Path(root, name) for name in sorted(files) if name not in LEFT_OUT)


def compile_module(source: Path, target: Path) -> None:
    """Compile one module without asserts and docstrings; a hash in the place of its time keeps the result the same for the same source."""
    target.parent.mkdir(parents=True, exist_ok=True)
    text = source
    if source == STDLIB / "ctypes/util.py":
        text = Path("/tmp/ctypes_util.py")
        text.write_text(source.read_text() + FIND_LIBRARY)
    try:
        py_compile.compile(str(text), str(target), str(source), doraise=True, optimize=2, invalidation_mode=HASHED)
    except py_compile.PyCompileError:  # a template, not a module
        shutil.copyfile(source, target.with_suffix(".py"))


HASHED = py_compile.PycInvalidationMode.UNCHECKED_HASH


def copy_certificates(out: Path) -> None:
    """Copy the certificates to Debian's place, and link to them from where this Python's ssl looks."""
    if not CERTIFICATES.is_file():
        sys.exit(f"collect.py: there are no CA certificates at {CERTIFICATES}")
    copy(CERTIFICATES, out)
    expected = out / ssl.get_default_verify_paths().openssl_cafile.lstrip("/")
    if not os.path.lexists(expected):
        expected.parent.mkdir(parents=True, exist_ok=True)
        expected.symlink_to(CERTIFICATES)


def collect_packages(out: Path, before: str) -> None:
    """Copy the files of the packages that were installed since `before` was written, documentation apart."""
    old = set(Path(before).read_text().split())
    for package in sorted(set(run("dpkg-query", "-W", "-f", "${binary:Package}\n").split()) - old):
        for line in run("dpkg", "-L", package).splitlines():
            path = Path(line)
            if not DOCUMENTATION.match(line) and (path.is_symlink() or path.is_file()) and not exists_in_base(path):
                copy(path, out)


def exists_in_base(path: Path) -> bool:
    """Tell whether the Python layer has the file already."""
    return os.path.lexists(Path("/python") / str(path).lstrip("/"))


def collect_libraries(out: Path) -> None:
    """Copy what the programs and libraries in `out` are linked against, then write the linker's cache."""
    for path in [path for path in walk_all(out) if is_elf(path)]:
        for line in run("ldd", str(path), check=False).splitlines():
            if "=> not found" in line and not is_bundled(line.split()[0], out):
                report_missing(path.relative_to(out), line.split()[0])
            if match := re.search(r"(/\S+) \(0x", line):
                copy_library(Path(match[1]), out)
    write_cache(out)


def report_missing(path: Path, library: str) -> None:
    """Name a library that is not there: it ends the build for a wheel; a Debian package may have parts that few use."""
    message = f"collect.py: {path} needs {library}, which is not there: name its package in ADDITIONAL_PACKAGE"
    if "-packages" in str(path):
        sys.exit(message)
    print(message)


def walk_all(out: Path) -> Iterator[Path]:
    for root, _, files in os.walk(out):
        yield from (Path(root, name) for name in sorted(files) if not Path(root, name).is_symlink())


def is_elf(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def is_bundled(name: str, out: Path) -> bool:
    """Tell whether a wheel carries the library itself."""
    return any(path.name == name for path in walk_all(out))


def copy_library(path: Path, out: Path) -> None:
    """Copy a library under each name that leads to it, unless it stands in `out` or in the Python layer."""
    if str(path).startswith(str(out)):
        return
    path = Path(os.path.realpath(path.parent), path.name)
    if not exists_in_base(path) or out == Path("/python"):
        copy(path, out)
        if path.is_symlink():
            copy_library(path.parent / os.readlink(path), out)


def find_library(name: str) -> Path:
    """Return where the linker finds a library."""
    match = re.search(rf"^\s*{re.escape(name)} .*=> (\S+)$", run("ldconfig", "-p"), re.MULTILINE)
    if not match:
        sys.exit(f"collect.py: {name} is not in the linker's cache")
    return Path(match[1])


def write_cache(out: Path) -> None:
    """Write /etc/ld.so.cache over the Python layer and what is in `out`; without it /usr/local/lib is not searched."""
    root = Path("/root-of-cache")
    shutil.rmtree(root, ignore_errors=True)
    for layer in dict.fromkeys((Path("/python"), out)):
        shutil.copytree(layer, root, symlinks=True, dirs_exist_ok=True)
    (root / "etc").mkdir(exist_ok=True)
    for name in ("ld.so.conf", "ld.so.conf.d"):
        if Path("/etc", name).is_dir():
            shutil.copytree(Path("/etc", name), root / "etc" / name, dirs_exist_ok=True)
        elif Path("/etc", name).is_file():
            shutil.copyfile(Path("/etc", name), root / "etc" / name)
    subprocess.run(["ldconfig", "-X", "-r", str(root)], check=True)
    cache = root / "etc/ld.so.cache"
    base = Path("/python/etc/ld.so.cache")
    if out == Path("/python") or cache.read_bytes() != base.read_bytes():
        (out / "etc").mkdir(exist_ok=True)
        shutil.copyfile(cache, out / "etc/ld.so.cache")
    shutil.rmtree(root)


def seal(out: Path) -> None:
    """Give each file one mode and one time: folders made by faas-cli have 0700, and no other user could read the function."""
    for path in [out, *(Path(root, name) for root, folders, files in os.walk(out) for name in (*folders, *files))]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o111 else 0o644)
        os.utime(path, (0, 0), follow_symlinks=False)
    if (out / "tmp").is_dir():
        (out / "tmp").chmod(0o1777)


def copy_tree(folder: Path, out: Path, leave_out: set[str]) -> None:
    target = out / folder.relative_to("/")
    shutil.copytree(
        folder, target, symlinks=True, dirs_exist_ok=True, ignore=lambda root, names: leave_out & set(names)
    )


def copy(path: Path, out: Path) -> None:
    """Copy a file or a link to the same place in `out`."""
    target = out / os.path.join(os.path.realpath(path.parent), path.name).lstrip("/")
    if os.path.lexists(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target.symlink_to(os.readlink(path))
        if (linked := path.parent / os.readlink(path)).is_file():
            copy(linked, out)
    else:
        shutil.copy2(path, target)


def run(*command: str, check: bool = True) -> str:
    return subprocess.run(command, check=check, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
