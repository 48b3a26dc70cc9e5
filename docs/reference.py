"""The reference, made from docstrings: one page a package, each public name with its signature and what it says.

Docstrings here are prose with lists of the form ``name : what it is``; names in single backticks are links where
they are public.  MkDocs asks for `pages` while it builds the site; nothing is written to disk.
"""

from __future__ import annotations

import importlib
import inspect
import re
from types import FunctionType, ModuleType

PACKAGES = {
    "minigrad": "The engine: tensors, operations, gradients, losses, optimisers, training and the compiler.",
    "minigrad.checkpoint": "Files that hold weights, and trainings that go on where they stopped.",
    "minigrad.compiler": "Compiled functions, and WebAssembly.",
    "cells": "Recurrent cells and what is run around them; networks without recurrence; tasks and comparisons.",
    "viz": "Pictures, reports, equations and pages.",
}
ITEM = re.compile(r"^(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*) : (.*)$")


def pages() -> dict[str, str]:
    """Markdown by the name of the page."""
    known = {name: f"{package}.md#{package}.{name}" for package in PACKAGES for name in names(package)}
    return {package: page(package, known) for package in PACKAGES}


def names(package: str) -> list[str]:
    """The public names of a package that have something to say, in the order of its `__all__`."""
    module = importlib.import_module(package)
    listed = getattr(module, "__all__", None) or [
        n for n, thing in vars(module).items() if not n.startswith("_") and _own(thing, module)
    ]
    return [n for n in listed if callable(getattr(module, n)) or isinstance(getattr(module, n), ModuleType)]


def page(package: str, known: dict[str, str]) -> str:
    module = importlib.import_module(package)
    parts = [f"# {package}", PACKAGES[package], markdown(inspect.getdoc(module) or "", known)]
    for name in names(package):
        thing = getattr(module, name)
        parts.append(f"## {name} {{ #{package}.{name} }}")
        if isinstance(thing, ModuleType):
            parts += [markdown(inspect.getdoc(thing) or "", known)]
            for inner, own in vars(thing).items():
                if not inner.startswith("_") and _own(own, thing):
                    parts += entry(f"{package}.{name}", inner, own, known)
        else:
            parts += [signature(name, thing), markdown(inspect.getdoc(thing) or "", known)]
            for inner, method in methods(thing):
                parts += entry(f"{package}.{name}", inner, method, known)
    return "\n\n".join(p for p in parts if p) + "\n"


def entry(path: str, name: str, thing, known: dict[str, str]) -> list[str]:
    said = inspect.getdoc(thing) or ""
    function = thing.fget if isinstance(thing, property) else thing
    title = f"### {path.rpartition('.')[2]}.{name} {{ #{path}.{name} }}"
    return [title, "" if isinstance(thing, property) else signature(name, function), markdown(said, known)]


def methods(thing) -> list[tuple[str, object]]:
    """The public methods and properties that a class itself defines and documents, in the order of its text."""
    if not inspect.isclass(thing):
        return []
    found = []
    for name, own in vars(thing).items():
        function = own.fget if isinstance(own, property) else getattr(own, "__func__", own)
        if isinstance(function, FunctionType) and not name.startswith("_") and inspect.getdoc(own):
            found.append((name, own if isinstance(own, property) else function))
    return found


def signature(name: str, thing) -> str:
    """As a block of Python; without quotes around annotations, which are read as text."""
    try:
        given = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    kept = [p for k, p in enumerate(given.parameters.values()) if not (k == 0 and p.name == "self")]
    shown = [re.sub(r"'([^']*)'", r"\1", str(p), count=1) if "'" in str(p.annotation) or isinstance(p.annotation, str)
             else str(p) for p in kept]  # fmt: skip
    shown = [re.sub(r" at 0x\w+", "", text) for text in shown]
    if any(p.kind is p.KEYWORD_ONLY for p in kept) and not any(p.kind is p.VAR_POSITIONAL for p in kept):
        shown.insert(next(k for k, p in enumerate(kept) if p.kind is p.KEYWORD_ONLY), "*")
    line = f"{name}({', '.join(shown)})"
    if len(line) > 90:
        line = f"{name}(\n    " + ",\n    ".join(shown) + ",\n)"
    return f"```python\n{line}\n```"


def markdown(said: str, known: dict[str, str]) -> str:
    """A docstring as Markdown."""
    blocks: list[str] = []
    for paragraph in re.split(r"\n\s*\n", said.strip()):
        lines = paragraph.split("\n")
        if all(line.startswith("    ") for line in lines):
            blocks.append("```text\n" + "\n".join(line[4:] for line in lines) + "\n```")
            continue
        items: list[list[str]] = []
        for line in lines:
            match = ITEM.match(line)
            if match:
                items.append([match[1], match[2]])
            elif items and line.startswith("    "):
                items[-1][1] += " " + line.strip()
            else:
                items.append(["", line.strip()])
        text: list[str] = []
        for name, words in items:
            if name:
                text.append(f"\n- **{escaped(name)}**: {prose(words, known)}")
            else:
                text.append(prose(words, known))
        blocks.append("\n".join(text).strip())
    return "\n\n".join(blocks)


def prose(text: str, known: dict[str, str]) -> str:
    """Code in double backticks, public names in single ones as links, all else as it stands."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text)
    return "".join(_piece(part, known) for part in parts)


def _piece(part: str, known: dict[str, str]) -> str:
    if part.startswith("``"):
        return f"`{part[2:-2].strip()}`"
    if part.startswith("`") and part.endswith("`"):
        name = part[1:-1].split("(")[0].rpartition(".")[2]
        return f"[{part}]({known[name]})" if name in known else part
    return escaped(part)


def escaped(text: str) -> str:
    return re.sub(r"([*<\[\]_|])", r"\\\1", text)


def _own(thing, module: ModuleType) -> bool:
    return (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__ == module.__name__
