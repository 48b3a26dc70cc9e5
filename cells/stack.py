"""Layers on top of each other: the outputs of one are the inputs of the next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minigrad import ShapeError, Tensor, as_tensor, broadcast_to, describe

from .dropout import mask
from .layer import Layer, positive
from .recurrence import OPTIONS, check_step, first_states, in_order, state_names, takes
from .sequence import causal, run
from .steps import Run


class Stack(Layer):
    """`layers` cells of one kind, D inputs, H hidden each; parameters are called "1.W_f", "2.W_f", …

    kind : a class of cells, or what makes a layer when it is called like one: ``Bidirectional.of(LSTM)``.
    """

    numbered = "cells"

    def __init__(
        self,
        kind: Callable,
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
            self.cells.append(kind(self.cells[-1].width if self.cells else inputs, hidden, rng, dtype))

    @property
    def state(self) -> str:
        """Names of the states, "1.h 1.c 2.h …": those of the first layer, then those of the next."""
        return " ".join(f"{k}.{s}" for k, cell in enumerate(self.cells, 1) for s in state_names(cell))

    @property
    def width(self) -> int:
        """How many numbers a step gives for each sequence: those of the last layer."""
        return self.cells[-1].width

    @property
    def causal(self) -> bool:
        """Whether no output depends on a later step."""
        return all(causal(cell) for cell in self.cells)

    def __call__(
        self, xs, state=None, *, output: Callable | None = None, label: str = "", dropout=None, **options
    ) -> Run:
        """Run all layers over xs (T, N, D): quantities of the last layer, states of all.

        dropout : masks between the layers, from `dropout_masks`.
        The other options and errors are those of `run`.  Raises ShapeError for states or masks that are not
        as many as the layers need.
        """
        given, dropout = in_order(self, state), self._checked_dropout(dropout)
        beside = {name: a for name, a in options.items() if name not in OPTIONS}
        check_step(self, beside)
        after: list[Tensor] = []
        result = None
        for k, cell in enumerate(self.cells, 1):
            count, known = len(state_names(cell)), takes(cell)
            result = run(
                cell,
                xs,
                None if given is None or not count else given[len(after) : len(after) + count],
                output=output if k == len(self.cells) else None,
                label=" / ".join(filter(None, [label, f"layer {k}" if len(self.cells) > 1 else ""])),
                **{n: a for n, a in options.items() if n not in beside or known is None or n in known},
            )
            after += result.state
            # On values step by step, so that a picture shows from which step each comes.
            xs = result.each or result.outputs
            if dropout is not None and k < len(self.cells):
                xs = _thinned(xs, dropout[k - 1])
        assert result is not None
        result.state = tuple(after)
        return result

    def _checked_dropout(self, dropout) -> Tensor | None:
        if dropout is None:
            return None
        dropout = as_tensor(dropout)
        if len(dropout.shape) != 4 or dropout.shape[0] != len(self.cells) - 1:
            raise ShapeError(
                f"Stack: dropout {describe(dropout)}; give (layers − 1, steps, sequences, width) = "
                f"({len(self.cells) - 1}, T, N, {self.width}), as dropout_masks does"
            )
        return dropout

    def dropout_masks(self, T: int, N: int, rate: float, rng: np.random.Generator) -> np.ndarray:
        """Masks between the layers for a run: (layers − 1, T, N, width).

        With T = 1 one mask serves all steps (variational dropout).
        """
        return mask((len(self.cells) - 1, T, N, self.width), rate, rng, self.dtype)

    def initial_state(self, sequences: int) -> tuple[Tensor, ...]:
        """The first states of every layer."""
        return tuple(s for cell in self.cells if state_names(cell) for s in first_states(cell, sequences))


def _thinned(xs, keep: Tensor):
    """What one layer gives to the next, or each step of it, times masks (T, N, …) or (1, N, …)."""
    if isinstance(xs, Tensor):
        return xs * keep
    return [x * k for x, k in zip(xs, broadcast_to(keep, (len(xs), *keep.shape[1:])), strict=True)]
