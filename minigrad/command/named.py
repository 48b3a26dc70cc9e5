"""A cell by its name in `cells.CELLS`, or by module:Class."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import cells
from minigrad import InputError, MinigradError

from .given import UsageError

HELP = f"{', '.join(cells.CELLS)}, or module:Class"
Made = TypeVar("Made")


def named(name: str) -> Any:
    """A class, or whatever a module calls so.

    Raises UsageError for a name that is not known, InputError for what is not there.
    """
    if name in cells.CELLS:
        return cells.CELLS[name]
    place, colon, path = name.partition(":")
    if not colon or not place or not path:
        raise UsageError(
            f"no cell is called {name!r}; there are {', '.join(cells.CELLS)}; one of your own is module:Class"
        )
    if os.getcwd() not in sys.path:  # a console script does not look where it is started
        sys.path.insert(0, os.getcwd())

    def found():
        thing: Any = importlib.import_module(place)
        for part in path.split("."):
            thing = getattr(thing, part)
        return thing

    return asked(name, found)


def asked(name: str, of_theirs: Callable[[], Made]) -> Made:
    """What code of somebody's own gives; raises InputError with whatever it raises."""
    try:
        return of_theirs()
    except MinigradError:
        raise
    except Exception as error:
        raise InputError(f"{name}: {type(error).__name__}: {error}") from None
