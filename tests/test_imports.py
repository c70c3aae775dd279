"""The function as a package: its modules by all their names, beside whatever else can be imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import HANDLE, ROOT, call, clean_env, connect_and_get, restored_imports, run_program, write

from watchdog_app import load_function

MODULE = ["import sibling as it", "from . import sibling as it", "from function import sibling as it"]
MODULE += ["import function.sibling as it", "import function.sibling; it = function.sibling"]
HANDLER = [spelling.replace("sibling", "handler") for spelling in MODULE]
NESTED = ["import inner.deep as it", "from inner import deep as it", "from .inner import deep as it"]
NESTED += [
    "from function.inner import deep as it",
    "import function.inner.deep as it",
    "import inner.deep; it = inner.deep",
]
INNER = [spelling.replace("sibling", "inner") for spelling in MODULE]
GROUPS = {"module": MODULE, "handler": HANDLER, "nested": NESTED, "package": INNER}
LAYOUTS = {"no __init__": (), "with __init__": ("__init__.py", "inner/__init__.py"), "one __init__": ("__init__.py",)}


def lay_out(folder, inits, handler):
    """Make a function with a sibling and a nested module, each of which counts how often it is run; return the folder."""
    (folder / "inner").mkdir()
    write(folder, sibling="from inner import deep\nfrom .inner.deep import STATE\nassert STATE is deep.STATE\n")
    write(
        folder / "inner", deep="from ..inner import deep\nfrom . import deep as same\nassert deep is same\nSTATE = []\n"
    )
    for name in inits:
        (folder / name).write_text("")
    return write(folder, handler=handler)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "spellings",
    [pytest.param([first, *group], id=f"{name}: {first}") for name, group in GROUPS.items() for first in group],
)
def test_module_is_one_object_by_all_its_names(folder, layout, spellings):
    found = "".join(f"    {spelling}\n    found.append(it)\n" for spelling in spellings)
    source = f"def handle(event, context):\n    found = []\n{found}    return len({{id(it) for it in found}})\n"
    assert call(load_function(lay_out(folder, LAYOUTS[layout], source))).text == "1"


@pytest.mark.parametrize("first", ["import", "from . import"])
@pytest.mark.parametrize("then", ["import", "from . import"])
def test_modules_may_import_each_other(folder, first, then):
    write(folder, one=f"{then} two\nNAME = 'one'\n", two=f"{first} one\n{then} handler\ndef name(): return one.NAME\n")
    assert call(load_function(write(folder, handler=f"{first} two\n{HANDLE}two.name()\n"))).text == "one"


def test_names_of_the_wild_are_found_at_the_second_try(folder):
    source = "try:\n    from configuration import X\nexcept ModuleNotFoundError:\n    from .configuration import X\n"
    write(folder, configuration="X = 'x'\n")
    assert call(load_function(write(folder, handler=f"{source}{HANDLE}X\n"))).text == "x"


HIDDEN = ["queue", "email", "types", "random", "http", "wave", "pluggy"]  # of the standard library, and one installed


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("target", ["handler", "file"])
def test_file_of_the_function_hides_no_other_module(folder, name, target):
    source = f"VALUE = 'own'\nimport {name} as known\nfrom .{name} import VALUE\n{HANDLE}[VALUE, known.__name__]\n"
    write(folder, **{name: source, "handler": f"from .{name} import handle\n"})
    assert call(load_function(folder / f"{name}.py" if target == "file" else folder)).text == f'["own","{name}"]'


def test_folder_is_not_on_the_path(folder):
    handler = f"import sys\n{HANDLE}[entry for entry in sys.path if 'handler' in entry]\n"
    before = list(sys.path)
    assert call(load_function(write(folder, handler=handler))).text == "[]"
    assert sys.path == before


def test_function_is_found_before_an_installed_package_of_that_name(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "site" / "function").mkdir(parents=True)
    write(tmp_path / "site" / "function", __init__="", sibling="VALUE = 'installed'\n")
    write(folder, sibling="VALUE = 'own'\n")
    assert (
        call(load_function(write(folder, handler=f"from function.sibling import VALUE\n{HANDLE}VALUE\n"))).text == "own"
    )


def test_missing_module_is_named_as_it_was_asked_for(folder):
    target = write(folder, handler="import inner.nothing\n")
    (folder / "inner").mkdir()
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'inner.nothing'"):
        load_function(target)


def test_what_a_sibling_raises_is_raised_and_its_next_import_tries_again(folder):
    write(folder, sibling="import os\nif 'now' not in os.environ: raise OSError('not yet')\n")
    function = load_function(write(folder, handler=f"{HANDLE}__import__('sibling').__name__\n"))
    with pytest.MonkeyPatch.context() as patch:
        assert call(function).status == 500
        patch.setenv("now", "1")
        assert call(function).text == "function.sibling"


SEEN = """
import importlib, importlib.resources, inspect, pickle, pkgutil, work
from . import work as same

class Order:
    pass

def handle(event, context):
    import function
    return {
        "file": [work.__file__, work.__spec__.origin],
        "names": [work.__name__, work.__package__, work.__spec__.name, __name__, __package__],
        "source": inspect.getsource(work.square),
        "data": importlib.resources.files("function").joinpath("data.txt").read_text(),
        "data of the package": pkgutil.get_data("function", "data.txt").decode(),
        "data of a module": importlib.resources.files(work.__package__).joinpath("data.txt").read_text(),
        "modules": sorted(module.name for module in pkgutil.iter_modules(function.__path__)),
        "reloaded": importlib.reload(work) is same is importlib.reload(same),
        "package": [importlib.reload(function) is function, function.__spec__.name, function.__package__],
        "unpickled": type(pickle.loads(pickle.dumps(Order()))) is Order,
        "found": importlib.util.find_spec("work").origin,
    }
"""


@pytest.mark.parametrize(
    "init", [pytest.param((), id="no __init__"), pytest.param(("__init__.py",), id="with __init__")]
)
def test_modules_look_like_modules(folder, init):
    for name in init:
        (folder / name).touch()
    (folder / "data.txt").write_text("some")
    work = "def square(number):\n    return number * number\n"
    seen = json.loads(call(load_function(write(folder, handler=SEEN, work=work))).text)
    assert seen == {
        "file": [str(folder / "work.py")] * 2,
        "names": ["function.work", "function", "function.work", "function.handler", "function"],
        "source": work,
        "data": "some",
        "data of the package": "some",
        "data of a module": "some",
        "modules": ["handler", "work"],
        "reloaded": True,
        "package": [True, "function", "function"],
        "unpickled": True,
        "found": str(folder / "work.py"),
    }


def test_package_has_a_spec(folder):
    load_function(write(folder, handler=HANDLE + "1\n"))
    spec = sys.modules["function"].__spec__
    assert (spec.name, spec.submodule_search_locations, spec.has_location) == ("function", [str(folder)], True)


def test_one_function_after_another_is_loaded_with_its_own_modules(folder, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(
            tmp_path / name,
            work=f"NAME = {name!r}\n",
            handler=f"import work\nfrom .work import NAME\n{HANDLE}work.NAME + NAME\n",
        )
    assert [call(load_function(tmp_path / name)).text for name in ("one", "two", "one")] == [
        "oneone",
        "twotwo",
        "oneone",
    ]


# -- where the function is, without TARGET --


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param(("handler.py", "function/handler.py", "handler/handler.py"), "handler.py", id="a file"),
        pytest.param(("function/handler.py", "handler/handler.py"), "function/handler.py", id="function"),
        pytest.param(("handler/handler.py",), "handler/handler.py", id="handler"),
        pytest.param(
            ("function/other.py", "handler/handler.py"), "handler/handler.py", id="function without handler.py"
        ),
        pytest.param(("handler.py/other", "handler/handler.py"), "handler/handler.py", id="a folder handler.py"),
        pytest.param(("other.py",), str(ROOT / "handler" / "handler.py"), id="beside the module"),
    ],
)
def test_function_is_looked_for_where_it_may_be(tmp_path, monkeypatch, files, found):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(HANDLE + "1\n")
    monkeypatch.chdir(tmp_path)
    with restored_imports():
        assert load_function().handle.__code__.co_filename == str(tmp_path / found)


def test_function_that_is_nowhere_is_said_to_be(tmp_path):
    (tmp_path / "watchdog_app.py").symlink_to(ROOT / "watchdog_app.py")
    ended = subprocess.run(
        [sys.executable, "-c", "import watchdog_app; watchdog_app.run()"],
        cwd=tmp_path,
        env=clean_env(upstream_url="127.0.0.1:0"),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "handler.py" in ended.stderr and "TARGET" in ended.stderr


FILES = """
import os
PATHS = ["./function/model.txt", "function/model.txt", os.path.join(os.path.dirname(__file__), "model.txt"), "HOME/function/model.txt"]

def handle(event, context):
    return [open(path.replace("HOME", os.getcwd())).read() for path in PATHS]
"""


def test_files_of_the_function_are_opened_as_in_the_official_image(tmp_path):
    (tmp_path / "function").mkdir()
    (tmp_path / "function" / "model.txt").write_text("model")
    write(tmp_path / "function", handler=FILES)
    with run_program([sys.executable, str(ROOT / "watchdog_app.py")], cwd=tmp_path) as program:
        assert b"Listening" in program.popen.stderr.readline()
        assert json.loads(connect_and_get(program.port)) == ["model"] * 4


# -- tests of a function by pytest --

HELPERS = {"none": "X = 'x'\n", "bare": "import helper\nX = helper.X\n", "relative": "from .helper import X\n"}
HELPERS |= {"package": "from function.helper import X\n", "hidden": "import queue\nX = queue.Queue and 'x'\n"}
STYLES = {"relative": "from .{} import X", "bare": "from {} import X", "package": "from function.{} import X"}
AS_AT_RUN_TIME = ["-p", "watchdog_app", "--import-mode=importlib"]


def lay_out_tests(folder, styles, helpers, init):
    """Make a function with modules that import in these ways, and a test of each in each style."""
    folder.mkdir(parents=True)
    write(folder, helper="X = 'x'\n", queue="X = 'own'\n", **{f"by_{name}": HELPERS[name] for name in helpers})
    if init:
        write(folder, __init__="")
    for style in styles:
        lines = "".join(f"    {STYLES[style].format(f'by_{name}')}\n    assert X == 'x'\n" for name in helpers)
        write(folder, **{f"{style}_test": f"{STYLES[style].format('by_none')}\n\ndef test_all():\n{lines}"})


def run_pytest(cwd, *arguments, flags=(), **env):
    """Run pytest; return its last lines."""
    command = [sys.executable, *flags, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    env = clean_env(PYTHONPATH=str(ROOT), **env)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60).stdout[-2000:]


@pytest.mark.parametrize("init", [False, True], ids=["no __init__", "with __init__"])
@pytest.mark.parametrize("inside", [False, True], ids=["from outside", "inside"])
def test_tests_of_a_function_import_as_at_run_time(tmp_path, init, inside):
    lay_out_tests(tmp_path / "function", STYLES, HELPERS, init)
    # -P: the current folder is not on the path, where its queue.py would hide the standard library's
    place, flags = ((tmp_path / "function", "--rootdir=.."), ["-P"]) if inside else ((tmp_path, "function"), [])
    printed = run_pytest(*place, *AS_AT_RUN_TIME, flags=flags, watchdog_app_function="." if inside else "function")
    assert printed.splitlines()[-1].startswith("3 passed"), printed


@pytest.mark.parametrize("init", [False, True], ids=["no __init__", "with __init__"])
def test_tests_of_two_functions_run_together(tmp_path, init):
    for name in ("one", "two"):
        lay_out_tests(tmp_path / name, ["relative"], ["none", "relative"], init)
    assert run_pytest(tmp_path, "--import-mode=importlib", "one", "two").splitlines()[-1].startswith("2 passed")


def test_first_test_of_the_page_runs_by_the_shortest_command(tmp_path):
    lay_out_tests(tmp_path / "greeting", ["bare"], ["none", "bare"], init=False)
    assert run_pytest(tmp_path, "greeting").splitlines()[-1].startswith("1 passed")
