"""The nodes RNN, LSTM and GRU as our cells, run step by step, so that every gate is seen.

The weights stay the file's: a cell's W_f is made of its W and R by slices, transposes and concatenations, so that a
gradient found here flows on to the parameter of the file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from minigrad import (
    InputError,
    ShapeError,
    Tensor,
    as_tensor,
    clip,
    describe,
    relu,
    scope,
    sigmoid,
    tanh,
    where,
)
from minigrad.names import printable

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
from .operators import OPERATORS, bounded, concat, known
from .steps import at

# Each with what its alpha and beta are where none are given; None: there ONNX's reference and onnxruntime disagree.
ACTIVATIONS: dict[str, tuple[Callable, dict[str, float | None]]] = {
    "sigmoid": (sigmoid, {}),
    "tanh": (tanh, {}),
    "relu": (relu, {}),
    "softsign": (OPERATORS["Softsign"], {}),
    "softplus": (OPERATORS["Softplus"], {}),
    "affine": (lambda x, alpha, beta: alpha * x + beta, {"alpha": None, "beta": None}),
    "scaledtanh": (lambda x, alpha, beta: alpha * tanh(beta * x), {"alpha": None, "beta": None}),
    "hardsigmoid": (OPERATORS["HardSigmoid"], {"alpha": 0.2, "beta": 0.5}),
    "leakyrelu": (OPERATORS["LeakyRelu"], {"alpha": 0.01}),
    "thresholdedrelu": (lambda x, alpha: where(x > alpha, x, 0.0), {"alpha": None}),
    "elu": (OPERATORS["Elu"], {"alpha": 1.0}),
}
MOST_TURNS = 100_000  # of a sequence or a loop
REMEDY = "export its cell as a loop of plain operations, whose steps are found"
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
        if self.input_forget:
            raise InputError(f"input_forget, which couples two gates, is not known; {REMEDY}")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"clip = {self.clip}; give a number above 0, or leave it out")
        self.directions = 2 if self.direction == "bidirectional" else 1
        usual = USUAL[self.op] * self.directions
        given = [a.lower() for a in self.activations or usual]
        unknown = [printable(a) for a in given if a not in ACTIVATIONS]
        if unknown:
            raise InputError(
                f"the activation {unknown[0]!r} is not known; there are {', '.join(ACTIVATIONS)}; {REMEDY}"
            )
        if len(given) != len(usual):
            raise InputError(
                f"{len(given)} activations for {self.direction}; give {len(usual)}, one for each of {', '.join(usual)}"
            )
        self.rectified = given == ["relu"] * self.directions and self.op == "RNN" and self.clip is None
        self.own = (
            None if self.clip is None and (given == usual or self.rectified) else self._functions(given)
        )

    def _functions(self, given: list[str]) -> list[Callable]:
        """The activations, each with its numbers: those of the attributes are meant for the ones that take some."""
        numbers = {"alpha": list(self.activation_alpha or ()), "beta": list(self.activation_beta or ())}
        found = []
        for k, name in enumerate(given):
            function, defaults = ACTIVATIONS[name]
            options = {n: numbers[n].pop(0) if numbers[n] else v for n, v in defaults.items()}
            if None in options.values():
                raise InputError(
                    f"the activation {name} without its {' and '.join(options)}; give them by "
                    f"{' and '.join(f'activation_{n}' for n in options)}, as there is no default that all agree on"
                )
            turned = self.op == "GRU" and not self.linear_before_reset and k % 2 == 0
            if turned and name != "sigmoid" and (name, options.get("beta")) != ("hardsigmoid", 0.5):
                raise InputError(
                    f"the activation {name} of the gates of a GRU whose linear_before_reset is 0: known there are those "
                    f"with f(−a) = 1 − f(a), sigmoid and hardsigmoid with beta 0.5; {REMEDY}"
                )
            found.append(functools.partial(function, **options))
        return found

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
        if isinstance(T, int) and T > MOST_TURNS:
            raise ShapeError(f"{T:,} steps; at most {MOST_TURNS:,} are run: cut the sequence into pieces")
        bounded([T, N, R.shape[1] * self.directions])
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
        cell: Any = kind(1, 1, np.random.default_rng(0), dtype)  # its own parameters are replaced at once
        cell.inputs, cell.hidden = D, H
        count = len(R.shape) and R.shape[1] // H
        arrays = {"W": W[d], "R": R[d], "B": np.zeros(2 * count * H, dtype) if B is None else B[d]}
        if isinstance(cell, PeepholeLSTM):
            arrays["P"] = P[d]
        for name, value in exchange.weights_of_onnx(cell, arrays).items():
            made = as_tensor(value)
            setattr(cell, name, made if made.is_leaf and made.requires_grad else made.named(name))
        if self.own is not None:
            count = len(USUAL[self.op])
            other: Any = _activated(kind, self.own[d * count : (d + 1) * count], self.clip)
            cell.__class__ = other
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


def _activated(kind: type[Cell], own: list[Callable], most: float | None) -> type[Cell]:
    """A cell by its own equations, with other functions under the names σ and tanh, and what they read kept within ±most.

    own : in the order of ONNX, that of σ first where the cell has one, then those of tanh as they come.
    """
    step = kind.step

    def kept(function: Callable) -> Callable:
        bound = most
        return function if bound is None else lambda x: function(clip(x, -bound, bound))

    @functools.wraps(step)
    def other(self, *args, **options):
        first, *later = [kept(f) if k < 2 else f for k, f in enumerate(own)]  # that of c reads it as it is
        tanhs = iter(later or [first])
        names = {"sigmoid": first, "tanh": lambda x: next(tanhs)(x)}
        return FunctionType(step.__code__, {**step.__globals__, **names})(self, *args, **options)

    return type(kind.__name__, (kind,), {"step": other})
