"""The equations of a cell, forward and backward, as they are read from its graph.

minigrad equations lstm
minigrad equations gru --latex > gru.tex
minigrad equations my_cells:Coupled --forward     a class of one's own, called as Coupled(inputs, hidden, rng)
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

import numpy as np

import cells
import viz
from minigrad import InputError, MinigradError
from minigrad.names import shown

from .given import UsageError

INPUTS, HIDDEN = 3, 4  # equations are the same for all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cell", metavar="CELL", help=f"{', '.join(cells.CELLS)}, or module:Class")
    parser.add_argument("--latex", action="store_true", help="for a paper; default: plain text")
    parser.add_argument("--forward", action="store_true", help="without the backward pass")


def main(options: argparse.Namespace) -> None:
    printed = viz.equations(cell_of(options.cell), backward=not options.forward)
    sys.stdout.write(shown(printed.latex if options.latex else printed.text))


def cell_of(name: str):
    """A cell by its name in `cells.CELLS`, or by module:Class.

    Raises UsageError for a name that is not known, InputError for a class that is not there or cannot be made.
    """
    rng = np.random.default_rng(0)
    if name in cells.CELLS:
        return cells.CELLS[name](INPUTS, HIDDEN, rng)
    place, colon, path = name.partition(":")
    if not colon or not place or not path:
        raise UsageError(
            f"no cell is called {name!r}; there are {', '.join(cells.CELLS)}; one of your own is module:Class"
        )
    if os.getcwd() not in sys.path:  # a console script does not look where it is started
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(place)
        for part in path.split("."):
            found = getattr(found, part)
        return found(INPUTS, HIDDEN, rng) if isinstance(found, type) else found
    except MinigradError:
        raise
    except Exception as error:  # whatever that module does
        raise InputError(f"{name}: {type(error).__name__}: {error}") from None
