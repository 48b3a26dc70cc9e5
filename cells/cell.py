"""What all recurrent cells share.

A cell is a class with the equations of its slide in `step` and the names of its
gates and states; what runs it over a sequence is in `recurrence`.  Every
quantity that `step` returns is named in the graph, so that errors, pictures and
equations speak of ``f`` and ``c_tilde`` and of the step they stand in.
"""

from __future__ import annotations

import numpy as np

from minigrad import Tensor
from minigrad.init import glorot, orthogonal

from .layer import Layer, positive
from .recurrence import recur, zero_states
from .steps import Run


class Cell(Layer):
    """A recurrent cell: D inputs, H hidden units.

    A subclass names its `gates` and its `state` (each separated by blanks, the
    first state is the output), makes its parameters in `build`, and computes one step
    in ``step(x, *state)``: x (N, D) and states (N, H) → the named quantities.

    States of another shape are what `initial_state` gives; one of a single row, such as a parameter (1, H),
    is taken for all sequences, and learned.  What `step` takes by name behind its states are inputs beside x,
    ``step(self, x, h_prev, t)``, which a run is given by that name: ``cell(xs, t=times)``.
    """

    gates = ""
    state = "h"

    def __init__(self, inputs: int, hidden: int, rng: np.random.Generator, dtype="float32"):
        super().__init__(dtype)
        positive(type(self).__name__, inputs=inputs, hidden=hidden)
        self.inputs, self.hidden = int(inputs), int(hidden)
        self.build(rng)

    def build(self, rng: np.random.Generator) -> None:
        """Make the parameters, which a subclass does by `gate_parameters`, `weights` and `parameter`."""
        raise NotImplementedError(
            f"{type(self).__name__} must make its parameters in build(self, rng), which "
            'its __init__ calls, e.g. by self.gate_parameters("f", rng) or self.parameter("W", array)'
        )

    def step(self, x: Tensor, *state: Tensor) -> dict[str, Tensor]:
        """One step, x (N, D) and the states before → its quantities by name, the states after among them."""
        raise NotImplementedError(
            f"{type(self).__name__} must compute one step in step(self, x, *states): return dict(h=…, …)"
        )

    def __call__(self, xs, state=None, **options) -> Run:
        """Run it over xs (T, N, D); options and errors are those of `run`."""
        return recur(self, xs, state, **options)

    def gate_parameters(self, gate: str, rng: np.random.Generator, bias: float = 0.0) -> None:
        """W_gate (width + D, H), rows in the order [h_prev, x]: orthogonal, then Glorot; and b_gate (H,)."""
        self.weights(f"W_{gate}", rng)
        self.parameter(f"b_{gate}", np.full(self.hidden, bias))

    def input_parameters(
        self, gate: str, rng: np.random.Generator, width: int | None = None, bias: float = 0.0
    ) -> None:
        """W_gate (D, width) and b_gate (width,), by default H, of a gate that sees the input alone: Glorot."""
        width = self.hidden if width is None else width
        self.parameter(f"W_{gate}", glorot(rng, (self.inputs, width)))
        self.parameter(f"b_{gate}", np.full(width, bias))

    def weights(self, name: str, rng: np.random.Generator) -> None:
        """A matrix (width + D, H), rows in the order [h_prev, x]: orthogonal, then Glorot."""
        recurrent = orthogonal(rng, (self.width, self.hidden))
        self.parameter(name, np.concatenate([recurrent, glorot(rng, (self.inputs, self.hidden))]))

    initial_state = zero_states

    @property
    def width(self) -> int:
        """How many numbers a step gives for each sequence."""
        return self.hidden

    def __repr__(self) -> str:
        gates = f"gates {self.gates}, " if self.gates else ""
        first, *rows = super().__repr__().split("\n")
        return "\n".join(
            [f"{first}; {self.inputs} inputs, {self.hidden} hidden, {gates}state {self.state}", *rows]
        )
