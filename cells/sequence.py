"""A cell over a whole sequence: `run`, which is visible on values and one loop when compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minigrad import DTypeError, InputError, ShapeError, Tensor, describe, scan, stack, where

from .cell import Cell, Step, first_state, name_all, unroll
from .masks import advance, check_truncate, cuts, steps_that_count


class Run:
    """All steps of a run: ``run.h`` or ``run["f"]`` are (T, N, H); `state` is what the last step left.

    `outputs` are the outputs (T, N, …), whatever their name is, and `last` (N, …) those after the last step.
    `steps` are the single steps where the run was eager, else empty.
    """

    def __init__(
        self,
        quantities: dict[str, Tensor] | None,
        state: tuple[Tensor, ...],
        steps: list[Step],
        name: str = "h",
    ):
        self._quantities, self.state, self.steps = quantities or {}, state, steps
        self.name, self._last = name, state[0]

    @property
    def outputs(self) -> Tensor:
        return self[self.name]

    @property
    def last(self) -> Tensor:
        return self._last

    @property
    def each(self) -> list[Tensor]:
        """The outputs (N, …) step by step; empty where the run was traced."""
        return [step.state[0] for step in self.steps]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._quantities and self.steps:
            self._quantities[name] = stack([step[name] for step in self.steps])
        return self._quantities[name]

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except (KeyError, InputError):
            raise AttributeError(f"the run has no {name!r}; it has {', '.join(self._quantities)}") from None


def run(
    cell: Cell,
    xs,
    state: Sequence | None = None,
    *,
    output: Callable | None = None,
    label: str = "",
    reverse: bool = False,
    lengths=None,
    mask=None,
    truncate: int | None = None,
) -> Run:
    """Run `cell` over xs (T, N, D) from `state` (default zeros).

    With an `output` layer the run has its y too.  The other options and what is raised are
    those of `unroll`.  On values every step is unrolled; traced by `compile` it is one scan, where
    lengths that are arguments cannot be compared with T: beyond T they count as T.
    """
    if not (isinstance(xs, Tensor) and xs.is_symbol):
        steps = unroll(
            cell, xs, state, output=output, label=label,
            reverse=reverse, lengths=lengths, mask=mask, truncate=truncate,
        )  # fmt: skip
        return Run(None, steps[0 if reverse else -1].state, steps, cell.state.split()[0])
    who, names = type(cell).__name__, cell.state.split()
    if len(xs.shape) != 3 or xs.shape[2] != cell.inputs:
        raise ShapeError(f"{who}: x {describe(xs)}; the cell was made for (steps, sequences, {cell.inputs})")
    if xs.dtype.kind == "f" and xs.dtype != cell.dtype:
        raise DTypeError(f"{who}: x is {xs.dtype}, the cell {cell.dtype}; convert one with .astype(…)")
    check_truncate(who, truncate)
    T, N = xs.shape[:2]
    first = first_state(cell, state, N)
    real = steps_that_count(who, xs, lengths, mask, T, N)
    sequences: dict[str, Tensor] = {"x": xs}
    if real is not None:
        sequences["real"] = real.reshape((T, N, 1))
    if truncate is not None:
        sequences["cut"] = cuts(xs, truncate, reverse)

    def step(before, now):
        if "cut" in now:
            before = tuple(where(now["cut"], s.detach(), s) for s in before)
        quantities = advance(cell, now["x"], before, now.get("real"))
        after = tuple(quantities[name] for name in names)
        if output is not None:
            quantities["y"] = output(after[0])
        name_all(quantities)
        return after, quantities

    for name, s in zip(names, first, strict=True):
        if s.name is None:
            s.name = name
    carry, quantities = scan(step, first, sequences, reverse=reverse)
    return Run(quantities, carry, [], names[0])
