"""What to run first on a cell of one's own: its shapes, names, gradients, compiled program and equations are tried.

minigrad check lstm
minigrad check my_cells:Coupled     a class of one's own, or a layer that was made there
"""

from __future__ import annotations

import argparse
import sys

import cells
from minigrad import InputError
from minigrad.names import shown

from .named import HELP, named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cell", metavar="CELL", help=HELP)


def main(options: argparse.Namespace) -> None:
    check = getattr(cells, "check", None)
    if check is None:
        raise InputError("this version of cells has no check")
    found = check(named(options.cell))
    sys.stdout.write(shown(f"{found!r}\n"))
    if not found:
        sys.stdout.flush()
        raise InputError(found.line)
