"""Recurrent cells, each a short file with the equations of its slide.

`CELLS` is the table that the tests, the examples and the benchmarks walk.
"""

from .cell import Cell, Step, unroll
from .layer import Layer, Output
from .lstm import LSTM
from .rnn import RNN
from .sequence import Run, run
from .stack import Stack
from .text import Alphabet

CELLS: dict[str, type[Cell]] = {"rnn": RNN, "lstm": LSTM}

__all__ = [
    "CELLS",
    "LSTM",
    "RNN",
    "Alphabet",
    "Cell",
    "Layer",
    "Output",
    "Run",
    "Stack",
    "Step",
    "run",
    "unroll",
]
