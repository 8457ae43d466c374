"""The public names: all there, none by accident, each documented."""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import pytest
import tests.integration.django_project  # noqa: F401 - Django's modules need settings to be imported

import canister

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(canister.__path__, "canister.")
    if not any(part.startswith("_") for part in module.name.split("."))
)


def own_names(module: ModuleType) -> dict[str, Any]:
    """Return the public functions and classes that a module defines."""
    return {
        name: member
        for name, member in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(member) or inspect.isfunction(member))
        and member.__module__ == module.__name__
    }


def doc_of(member: Any) -> str:
    """Return a docstring that was written for just this function or class."""
    doc = vars(member).get("__doc__") if inspect.isclass(member) else member.__doc__
    text = inspect.cleandoc(doc or "")
    # What dataclasses and named tuples make up is their signature.
    return "" if text.startswith(f"{member.__name__}(") else text


def has_content(doc: str) -> bool:
    """Tell whether a docstring begins with a sentence."""
    first = doc.split("\n\n")[0]
    return len(first.split()) >= 2 and first.endswith((".", ":", "?"))


def test_all_is_the_public_names() -> None:
    """`__all__` lists every public name of the package, sorted, and nothing else."""
    public = {
        name
        for name, member in vars(canister).items()
        if not name.startswith("_") and not inspect.ismodule(member)
    }
    assert set(canister.__all__) == public
    assert list(canister.__all__) == sorted(canister.__all__)
    assert len(canister.__all__) == len({*canister.__all__})


def test_a_star_import_brings_what_is_listed() -> None:
    """No listed name is missing."""
    names: dict[str, Any] = {}
    exec("from canister import *", names)  # noqa: S102 - a function cannot hold a star import
    names.pop("__builtins__")
    assert set(names) == set(canister.__all__)


def test_every_error_is_public() -> None:
    """Whoever catches an error finds it beside what raised it."""
    errors = set(own_names(canister.errors))
    assert errors <= set(canister.__all__)


@pytest.mark.parametrize("name", canister.__all__)
def test_public_names_are_documented(name: str) -> None:
    """Every public name has a docstring that says something, and so has every method of a class."""
    member = getattr(canister, name)
    assert has_content(doc_of(member)), name
    if inspect.isclass(member):
        for attribute, value in vars(member).items():
            if inspect.isfunction(value) and not attribute.startswith("_"):
                assert has_content(doc_of(value)), f"{name}.{attribute}"


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_documented(name: str) -> None:
    """Every public module says what it is for, and so does every public function and class in it."""
    module = importlib.import_module(name)
    assert has_content(inspect.cleandoc(module.__doc__ or "")), name
    undocumented = [found for found, member in own_names(module).items() if not has_content(doc_of(member))]
    assert undocumented == []
