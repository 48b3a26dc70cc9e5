"""Layers on top of each other: the outputs of one are the inputs of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minigrad import ShapeError, Tensor, as_tensor, broadcast_to, describe

from .bidirectional import Bidirectional
from .cell import Cell
from .dropout import mask
from .layer import Layer, positive
from .sequence import Run, run


class Stack(Layer):
    """`layers` cells of one kind, D inputs, H hidden each; parameters are called "1.W_f", "2.W_f", …

    kind : a class of cells, or what makes a layer when it is called like one: ``Bidirectional.of(LSTM)``.
    """

    numbered = "cells"

    def __init__(
        self,
        kind: Callable[..., Cell | Bidirectional],
        inputs: int,
        hidden: int,
        layers: int,
        rng: np.random.Generator,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(type(self).__name__, layers=layers)
        self.cells: list = []
        for _ in range(layers):
            self.cells.append(kind(self.cells[-1].outputs if self.cells else inputs, hidden, rng, dtype))

    @property
    def state(self) -> int:
        """How many states there are: those of the first layer, then those of the next, …"""
        return sum(len(c.state.split()) for c in self.cells)

    @property
    def outputs(self) -> int:
        return self.cells[-1].outputs

    @property
    def causal(self) -> bool:
        """Whether no output depends on a later step."""
        return all(getattr(cell, "causal", True) for cell in self.cells)

    def __call__(self, xs, **options) -> Tensor:
        """The outputs of the last layer, xs (T, N, D) → (T, N, outputs); options are those of `run`."""
        return self.run(xs, **options).outputs

    def run(
        self,
        xs,
        state: Sequence | None = None,
        *,
        output: Callable | None = None,
        dropout=None,
        **options,
    ) -> Run:
        """Run all layers over xs (T, N, D): quantities of the last layer, states of all.

        dropout : masks between the layers, from `dropout_masks`.
        options : `lengths`, `mask` and `truncate`, as in `run`.
        Raises ShapeError for states or masks that are not as many as the layers need.
        """
        if state is not None and len(state) != self.state:
            raise ShapeError(
                f"Stack: {len(state)} states given, its {len(self.cells)} layers have {self.state}"
            )
        if dropout is not None:
            dropout = as_tensor(dropout)
            if len(dropout.shape) != 4 or dropout.shape[0] != len(self.cells) - 1:
                raise ShapeError(
                    f"Stack: dropout {describe(dropout)}; give (layers − 1, steps, sequences, outputs) = "
                    f"({len(self.cells) - 1}, T, N, {self.outputs}), as dropout_masks does"
                )
        after: list[Tensor] = []
        result = None
        for k, cell in enumerate(self.cells, 1):
            count = len(cell.state.split())
            own = None if state is None else tuple(state[len(after) : len(after) + count])
            last = output if k == len(self.cells) else None
            label = f"layer {k}" if len(self.cells) > 1 else ""
            runs = (
                cell.run if isinstance(cell, Bidirectional) else lambda *a, cell=cell, **o: run(cell, *a, **o)
            )
            result = runs(xs, own, output=last, label=label, **options)
            after += result.state
            # On values step by step, so that a picture shows from which step each comes.
            xs = result.each or result.outputs
            if dropout is not None and k < len(self.cells):
                xs = _thinned(xs, dropout[k - 1])
        assert result is not None
        result.state = tuple(after)
        return result

    def dropout_masks(self, T: int, N: int, rate: float, rng: np.random.Generator) -> np.ndarray:
        """Masks between the layers for `run`: (layers − 1, T, N, outputs).

        With T = 1 one mask serves all steps (variational dropout).
        """
        return mask((len(self.cells) - 1, T, N, self.outputs), rate, rng, self.dtype)

    def initial_state(self, sequences: int) -> tuple[np.ndarray, ...]:
        """Zeros (N, H) for every state of every layer."""
        return tuple(s.value for cell in self.cells for s in cell.initial_state(sequences))


def _thinned(xs, keep: Tensor):
    """What one layer gives to the next, or each step of it, times masks (T, N, …) or (1, N, …)."""
    if isinstance(xs, Tensor):
        return xs * keep
    return [x * k for x, k in zip(xs, broadcast_to(keep, (len(xs), *keep.shape[1:])), strict=True)]
