"""The docstrings of what `__all__` names: a first sentence that stands alone, and a word on each argument."""

import inspect
import re

import pytest

import watchdog_app

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # their names are not the caller's


def lineage(cls):
    """Return a class and its bases, as far as they are this module's."""
    return [base for base in cls.__mro__ if base.__module__ == watchdog_app.__name__]


def public(cls):
    """Yield the name and value of each public attribute that a class, or a base of this module, defines."""
    for base in lineage(cls):
        yield from ((name, value) for name, value in vars(base).items() if not name.startswith("_"))


def function_of(value):
    """Return the function behind a method, a class method or a static method; None for any other attribute."""
    value = getattr(value, "__func__", value)
    return value if inspect.isfunction(value) else None


def documented():
    """Yield what has a docstring of its own: classes, functions and methods."""
    for name in watchdog_app.__all__:
        thing = getattr(watchdog_app, name)
        yield pytest.param(thing, id=name)
        if inspect.isclass(thing):
            methods = ((key, function_of(value)) for key, value in public(thing))
            yield from (pytest.param(function, id=f"{name}.{key}") for key, function in methods if function)


def arguments(thing):
    """Return the names of the arguments that a caller passes to a class, function or method."""
    if inspect.isclass(thing):
        thing = next((vars(base)["__init__"] for base in lineage(thing) if "__init__" in vars(base)), None)
    parameters = inspect.signature(thing).parameters.values() if thing else ()
    return [each.name for each in parameters if each.kind not in VARIADIC and each.name not in ("self", "cls")]


@pytest.mark.parametrize("thing", list(documented()))
def test_first_sentence_stands_alone(thing):
    first, *rest = inspect.cleandoc(thing.__doc__ or "").split("\n")
    assert re.fullmatch(r"[A-Z`].*\.", first), "the first line is no whole sentence"
    assert not rest or not rest[0], "the first line goes on in the next"


@pytest.mark.parametrize("thing", list(documented()))
def test_docstring_names_each_argument(thing):
    missing = [name for name in arguments(thing) if not re.search(rf"\b{name}\b", thing.__doc__ or "")]
    assert not missing


@pytest.mark.parametrize("cls", [watchdog_app.Event, watchdog_app.Context], ids=lambda cls: cls.__name__)
def test_docstring_names_each_attribute_of_a_call(cls):
    attributes = {name for name, value in public(cls) if not function_of(value)} | {
        name for name in cls.__annotations__ if name[0] != "_"
    }
    assert attributes
    assert {name for name in attributes if not re.search(rf"\b{name}\b", cls.__doc__)} == set()
