"""Every public name says in its docstring what it is for and which errors it raises.

Errors are read from the source: each ``raise XError(…)`` in a public function or method, and in the functions of
its own module that it calls, has to be named in its docstring, or in that of its class; or the docstring says
"raises what `name` raises" or "errors are those of `name`", and that names it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from functools import cache
from types import FunctionType, ModuleType
from typing import NamedTuple

import pytest

import minigrad

PACKAGES = ["minigrad", "minigrad.checkpoint", "minigrad.compiler", "cells", "viz"]
ERRORS = {
    name
    for name, thing in vars(minigrad.errors).items()
    if inspect.isclass(thing) and issubclass(thing, minigrad.MinigradError)
}
REFERENCE = re.compile(r"(?:[Rr]aises? what|[Ee]rrors,?(?: \w+)* are those of)((?:[^`.]*`[\w.]+`)+)")


class Public(NamedTuple):
    """A public name: where it is found, itself, and the docstrings that speak of it."""

    path: str
    thing: object
    said: str  # its own docstring
    about: str = ""  # that of its class

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def public_in(package: str) -> list[Public]:
    """All names of a package, of the modules among them, and the public methods of their classes."""
    found: list[Public] = []
    modules = [importlib.import_module(package)]
    for module in modules:
        own = [n for n, a in vars(module).items() if not n.startswith("_") and _is_of(a, module)]
        for name in getattr(module, "__all__", own):
            thing = getattr(module, name)
            if isinstance(thing, ModuleType):
                modules.append(thing)
            elif inspect.isclass(thing):
                found += of_class(f"{module.__name__}.{name}", thing)
            elif callable(thing):
                found.append(Public(f"{module.__name__}.{name}", thing, inspect.getdoc(thing) or ""))
    return found


def _is_of(thing, module: ModuleType) -> bool:
    return (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__ == module.__name__


def of_class(path: str, cls: type) -> list[Public]:
    """A class and its public methods, also those of a base that is not public itself."""
    about = inspect.getdoc(cls) or ""
    found = [Public(path, cls, about)]
    bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("minigrad.methods")]
    for name, thing in [entry for kind in (cls, *bases) for entry in vars(kind).items()]:
        function = thing.fget if isinstance(thing, property) else getattr(thing, "__func__", thing)
        written = isinstance(function, FunctionType) and not inspect.unwrap(
            function
        ).__code__.co_filename.startswith("<")
        if written and (not name.startswith("_") or name in ("__init__", "__call__")):
            own = inspect.getdoc(getattr(cls, name)) or ""
            found.append(Public(f"{path}.{name}", function, own, about))
    return found


@cache
def tree_of(file: str) -> dict[str, ast.FunctionDef]:
    """The functions of a module, by name."""
    with open(file, encoding="utf-8") as f:
        return {n.name: n for n in ast.parse(f.read()).body if isinstance(n, ast.FunctionDef)}


def raised_by(function: FunctionType) -> set[str]:
    """The error classes that a function raises itself, or by a function of its module that it calls."""
    function = inspect.unwrap(function)
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    helpers = tree_of(inspect.getfile(function))
    called = {
        n.func.id
        for n in ast.walk(node)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in helpers
    }
    return set().union(*(errors_in(n) for n in [node, *(helpers[name] for name in called)]))


def errors_in(node: ast.AST) -> set[str]:
    raised = [n.exc for n in ast.walk(node) if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call)]
    return {ast.unparse(e.func).rpartition(".")[2] for e in raised} & ERRORS


def named_in(text: str, docs: dict[str, list[str]], depth: int = 3) -> set[str]:
    """The errors that a docstring names, and those of what it refers to."""
    found = {error for error in ERRORS if re.search(rf"\b{error}\b", text)}
    for match in REFERENCE.finditer(text) if depth else ():
        for name in re.findall(r"`([\w.]+)`", match[1]):
            for other in docs.get(name.rpartition(".")[2], ()):
                found |= named_in(other, docs, depth - 1)
    return found


ALL = [entry for package in PACKAGES for entry in public_in(package)]
DOCS: dict[str, list[str]] = {}
for entry in ALL:
    DOCS.setdefault(entry.name, []).append(f"{entry.said}\n{entry.about}")


@pytest.mark.smoke
def test_every_public_name_and_method_has_a_docstring():
    bare = [e.path for e in ALL if not e.path.endswith(("__init__", "__call__")) and not e.said]
    assert not bare, f"without a docstring: {bare}"


@pytest.mark.smoke
def test_docstrings_name_the_errors_that_are_raised():
    silent = {
        e.path: sorted(missing)
        for e in ALL
        if isinstance(e.thing, FunctionType)
        and (missing := raised_by(e.thing) - named_in(f"{e.said}\n{e.about}", DOCS))
    }
    assert not silent, "docstrings that do not name an error: " + "; ".join(
        f"{path}: {', '.join(errors)}" for path, errors in silent.items()
    )
