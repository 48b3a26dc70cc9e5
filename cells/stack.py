"""Layers on top of each other: the outputs of one are the inputs of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minigrad import ShapeError, Tensor

from .cell import Cell
from .layer import Layer, positive
from .sequence import Run, run


class Stack(Layer):
    """`layers` cells of one kind, D inputs, H hidden each; parameters are called "1.W_f", "2.W_f", …"""

    def __init__(
        self,
        kind: type[Cell],
        inputs: int,
        hidden: int,
        layers: int,
        rng: np.random.Generator,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(type(self).__name__, layers=layers)
        self.cells = [kind(inputs if k == 0 else hidden, hidden, rng, dtype) for k in range(layers)]

    @property
    def state(self) -> int:
        """How many states there are: those of the first layer, then those of the next, …"""
        return sum(len(c.state.split()) for c in self.cells)

    def parameters(self) -> dict[str, Tensor]:
        return {
            f"{k}.{name}": p for k, cell in enumerate(self.cells, 1) for name, p in cell.parameters().items()
        }

    def run(self, xs, state: Sequence | None = None, *, output: Callable | None = None) -> Run:
        """Run all layers over xs (T, N, D); the run's quantities are the last layer's, its state is all layers'."""
        if state is not None and len(state) != self.state:
            raise ShapeError(
                f"Stack: {len(state)} states given, its {len(self.cells)} layers have {self.state}"
            )
        after: list[Tensor] = []
        result = None
        for k, cell in enumerate(self.cells, 1):
            count = len(cell.state.split())
            own = None if state is None else tuple(state[len(after) : len(after) + count])
            last = output if k == len(self.cells) else None
            result = run(cell, xs, own, output=last, label=f"layer {k}" if len(self.cells) > 1 else "")
            after += result.state
            xs = result[cell.state.split()[0]]
        assert result is not None
        result.state = tuple(after)
        return result

    def initial_state(self, sequences: int) -> tuple[np.ndarray, ...]:
        """Zeros (N, H) for every state of every layer."""
        return tuple(s.value for cell in self.cells for s in cell.initial_state(sequences))
