"""A cell in both directions: what is before and what is after a step are known to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minigrad import InputError, Tensor, concat, scope

from .cell import Cell
from .layer import Layer
from .recurrence import OPTIONS, check_step, first_states, in_order, state_names
from .sequence import run
from .steps import Run


class BothRuns(Run):
    """A run in both directions: `h` (T, N, 2H) has both outputs side by side.

    `forward` and `backward` are the runs, with the gates of each.
    """

    def __init__(self, forward: Run, backward: Run, quantities: dict[str, Tensor], label: str = ""):
        super().__init__(quantities, (*forward.state, *backward.state), [*forward.steps, *backward.steps])
        self.forward, self.backward, self.label = forward, backward, label

    @property
    def last(self) -> Tensor:
        return concat(self.forward.last, self.backward.last)

    @property
    def each(self) -> list[Tensor]:
        both = []
        for t, (ahead, back) in enumerate(zip(self.forward.each, self.backward.each, strict=True), 1):
            with scope(*filter(None, [self.label]), f"t={t}"):
                both.append(concat(ahead, back).named("h"))
        return both

    def __getitem__(self, name: str) -> Tensor:
        if name in self._quantities:
            return self._quantities[name]
        raise InputError(
            f"a run in both directions has no {name!r}; it has {', '.join(self._quantities)}, and the "
            "gates of each direction in .forward and .backward"
        )


class Bidirectional(Layer):
    """Two cells of one kind, one of which reads the sequence from its end (Schuster and Paliwal, 1997).

    D inputs, H hidden each, 2H outputs; parameters are called "forward.W_f", "backward.W_f", ….
    ``Bidirectional.of(LSTM)`` stands where a kind of cell is asked for, as in ``Stack(…)``.
    """

    causal = False  # an output depends on later steps too

    def __init__(
        self, kind: Callable[..., Cell], inputs: int, hidden: int, rng: np.random.Generator, dtype="float32"
    ):
        super().__init__(dtype)
        self.forward: Cell = kind(inputs, hidden, rng, dtype)
        self.backward: Cell = kind(inputs, hidden, rng, dtype)
        self.inputs, self.hidden = inputs, hidden

    @classmethod
    def of(cls, kind: Callable[..., Cell]) -> Callable[..., Bidirectional]:
        """What makes two cells of this kind, called like one: ``of(LSTM)(inputs, hidden, rng)``."""
        return lambda inputs, hidden, rng, dtype="float32": cls(kind, inputs, hidden, rng, dtype)

    @property
    def cells(self) -> list[Cell]:
        """The one that reads forward, and the one that reads from the end."""
        return [self.forward, self.backward]

    @cells.setter
    def cells(self, both: Sequence[Cell]) -> None:
        self.forward, self.backward = both

    @property
    def width(self) -> int:
        """How many numbers a step gives for each sequence: those of both directions."""
        return sum(cell.width for cell in self.cells)

    @property
    def state(self) -> str:
        """Names of the states: those of the forward cell, then those of the backward cell."""
        return " ".join([*self.forward.state.split(), *(f"{s}_back" for s in self.backward.state.split())])

    def initial_state(self, sequences: int) -> tuple[Tensor, ...]:
        """The first states of both directions."""
        return tuple(s for cell in self.cells for s in first_states(cell, sequences))

    def __call__(
        self, xs, state=None, *, output: Callable | None = None, label: str = "", **options
    ) -> BothRuns:
        """Run both over xs (T, N, D): outputs (T, N, 2H); options and errors are those of `run`.

        Padding at the end is where the backward cell starts, and it passes its first state on.
        """
        if options.pop("reverse", False):
            raise InputError(
                f"{type(self).__name__} reads the sequence in both directions; reverse has no meaning"
            )
        given, count = in_order(self, state), len(state_names(self.forward))
        first = (None, None) if given is None else (given[:count], given[count:])
        check_step(self, {name: a for name, a in options.items() if name not in OPTIONS})
        ways = [
            run(
                cell,
                xs,
                own,
                label=" / ".join(filter(None, [label, way])),
                reverse=way == "backward",
                **options,
            )
            for cell, own, way in zip(self.cells, first, ("forward", "backward"), strict=True)
        ]
        h = concat(*(way.outputs for way in ways))
        quantities = {"h": h.named("h")}
        if output is not None:
            quantities["y"] = output(h).named("y")
        return BothRuns(ways[0], ways[1], quantities, label)
