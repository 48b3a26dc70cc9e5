"""The equations of a cell, forward and backward, as they are read from its graph.

minigrad equations lstm
minigrad equations gru --latex > gru.tex
minigrad equations my_cells:Coupled --forward     a class of one's own, called as Coupled(inputs, hidden, rng)
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import viz
from minigrad.names import shown

from .named import HELP, asked, named

INPUTS, HIDDEN = 3, 4  # equations are the same for all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cell", metavar="CELL", help=HELP)
    parser.add_argument("--latex", action="store_true", help="for a paper; default: plain text")
    parser.add_argument("--forward", action="store_true", help="without the backward pass")


def main(options: argparse.Namespace) -> None:
    cell = made(options.cell)
    printed = asked(options.cell, lambda: viz.equations(cell, backward=not options.forward))
    sys.stdout.write(shown(printed.latex if options.latex else printed.text))


def made(name: str):
    """A small cell of that name; raises InputError where it cannot be made of inputs, hidden and rng."""
    found = named(name)
    if not isinstance(found, type):
        return found
    return asked(name, lambda: found(INPUTS, HIDDEN, np.random.default_rng(0)))
