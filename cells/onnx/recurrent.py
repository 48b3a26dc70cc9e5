"""The nodes RNN, LSTM and GRU as our cells, run step by step, so that every gate is seen.

The weights stay the file's: a cell's W_f is made of its W and R by slices, transposes and concatenations, so that a
gradient found here flows on to the parameter of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import InputError, ShapeError, Tensor, as_tensor, describe, scope, where

from .. import exchange
from ..bidirectional import Bidirectional
from ..cell import Cell
from ..gru import GRU
from ..gru_biased import BiasedGRU
from ..gru_reset_after import ResetAfterGRU
from ..irnn import IRNN
from ..lstm import LSTM
from ..lstm_peephole import PeepholeLSTM
from ..masks import steps_that_count
from ..rnn import RNN
from ..sequence import Run, run
from .operators import concat, known
from .steps import at

USUAL = {"RNN": ["tanh"], "LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"]}


@dataclass
class Recurrent:
    """One node RNN, LSTM or GRU: what its attributes say."""

    op: str
    label: str
    direction: str = "forward"
    layout: int = 0
    hidden_size: int | None = None
    linear_before_reset: int = 0
    activations: list | None = None
    clip: float | None = None
    input_forget: int = 0
    activation_alpha: list | None = None
    activation_beta: list | None = None
    output_sequence: int = 0  # of the first opset, where it changes nothing but what is kept

    def __post_init__(self):
        if self.direction not in ("forward", "reverse", "bidirectional"):
            raise InputError(f"direction {self.direction!r}; known are forward, reverse, bidirectional")
        if self.clip or self.input_forget:
            raise InputError("clip and input_forget are not known; export it without")
        self.directions = 2 if self.direction == "bidirectional" else 1
        given = [a.lower() for a in self.activations or USUAL[self.op] * self.directions]
        usual = USUAL[self.op] * self.directions
        self.rectified = self.op == "RNN" and given == ["relu"] * self.directions
        if given != usual and not self.rectified:
            raise InputError(
                f"the activations {', '.join(given)} are not known: known are {', '.join(usual)}"
                + (" and relu" if self.op == "RNN" else "")
            )

    def __call__(self, x, W, R, B=None, lengths=None, h0=None, c0=None, P=None):
        """ONNX's inputs → Y, Y_h (and Y_c), and the `Run`, which has the gates."""
        x, H = as_tensor(x), R.shape[-1]
        if len(x.shape) != 3 or len(W.shape) != 3 or len(R.shape) != 3 or W.shape[0] != self.directions:
            raise ShapeError(
                f"X {describe(x)}, W {tuple(W.shape)}, R {tuple(R.shape)}; give X (steps, "
                f"sequences, inputs) and W, R for {self.directions} direction{'s' * (self.directions > 1)}"
            )
        if self.hidden_size not in (None, H):
            raise ShapeError(f"hidden_size {self.hidden_size}, but R is {tuple(R.shape)}")
        if self.layout:
            x = x.transpose((1, 0, 2))
            h0, c0 = (None if s is None else s.transpose((1, 0, 2)) for s in (h0, c0))
        T, N, D = x.shape
        cells = [self.cell(d, W, R, B, P, D, H, x.dtype) for d in range(self.directions)]
        states = self.first(T, N, (h0, c0), cells[0])
        r = self.run(cells, x, states, lengths)
        y = r.outputs
        if lengths is not None:
            real = steps_that_count(self.op, x, lengths, None, T, N)
            y = where(as_tensor(real).reshape((T, N, 1)), y, np.zeros((), x.dtype))
        y = y.reshape((T, N, self.directions, H)).transpose((0, 2, 1, 3))
        count = len(cells[0].state.split())
        last = [concat([s.reshape((1, N, H)) for s in r.state[k::count]], 0) for k in range(count)]
        if self.layout:
            y, last = y.transpose((2, 0, 1, 3)), [s.transpose((1, 0, 2)) for s in last]
        return (y, *last), r

    def cell(self, d: int, W, R, B, P, D: int, H: int, dtype) -> Cell:
        """The cell of a direction, whose parameters are made of the file's."""
        kind = self.kind(B, P)
        cell = kind(1, 1, np.random.default_rng(0), dtype)  # its own parameters are replaced at once
        cell.inputs, cell.hidden = D, H
        count = len(R.shape) and R.shape[1] // H
        arrays = {"W": W[d], "R": R[d], "B": np.zeros(2 * count * H, dtype) if B is None else B[d]}
        if isinstance(cell, PeepholeLSTM):
            arrays["P"] = P[d]
        for name, value in exchange.weights_of_onnx(cell, arrays).items():
            made = as_tensor(value)
            setattr(cell, name, made if made.is_leaf and made.requires_grad else made.named(name))
        return cell

    def kind(self, B, P) -> type[Cell]:
        if self.op == "RNN":
            return IRNN if self.rectified else RNN
        if self.op == "LSTM":
            return LSTM if P is None else PeepholeLSTM
        if self.linear_before_reset:
            return ResetAfterGRU
        return GRU if B is None else BiasedGRU

    def first(self, T, N, given: tuple, cell: Cell) -> list | None:
        """The first states, direction by direction, each where its run begins; zeros for one that is not given."""
        names = cell.state.split()
        if all(s is None for s in given):
            return None
        states = []
        for d in range(self.directions):
            start = T + 1 if self.reads_back(d) else 0
            way = [("forward", "backward")[d]] if self.directions == 2 else []
            for name, s, zero in zip(names, given, cell.initial_state(N), strict=False):
                if isinstance(s, Tensor):
                    with scope(*filter(None, [self.label]), *way, f"t={start}"):
                        own = at(s, 0, d)
                        states.append(own.named(name) if own.name is None and not own.is_leaf else own)
                else:
                    states.append(zero if s is None else np.ascontiguousarray(s[d]))
        return states

    def reads_back(self, d: int) -> bool:
        return d == 1 or self.direction == "reverse"

    def run(self, cells: list[Cell], x: Tensor, states, lengths) -> Run:
        """The one place where cells are run over the sequence."""
        if lengths is not None and not isinstance(lengths, Tensor):
            lengths = known(lengths, "sequence_lens").astype(np.int64)
        xs: Any = x if x.is_symbol else [at(x, 0, t) for t in range(x.shape[0])]
        options: dict[str, Any] = dict(lengths=lengths, label=self.label)
        if self.directions == 1:
            return run(cells[0], xs, states, reverse=self.direction == "reverse", **options)
        both = Bidirectional(type(cells[0]), 1, 1, np.random.default_rng(0), x.dtype.name)
        both.cells = cells
        both.inputs, both.hidden = cells[0].inputs, cells[0].hidden
        return both(xs, states, **options)
