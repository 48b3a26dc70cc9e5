"""A cell over a whole sequence: `run`, which is visible on values and one loop when compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minigrad import Tensor, scan, stack, zeros

from .cell import Cell, Step, name_all, unroll


class Run:
    """All steps of a run: ``run.h`` or ``run["f"]`` are (T, N, H); `state` is what the last step left.

    `steps` are the single steps where the run was eager, else empty.
    """

    def __init__(self, quantities: dict[str, Tensor] | None, state: tuple[Tensor, ...], steps: list[Step]):
        self._quantities, self.state, self.steps = quantities or {}, state, steps

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._quantities and self.steps:
            self._quantities[name] = stack([step[name] for step in self.steps])
        return self._quantities[name]

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the run has no {name!r}; it has {', '.join(self._quantities)}") from None


def run(
    cell: Cell, xs, state: Sequence | None = None, *, output: Callable | None = None, label: str = ""
) -> Run:
    """Run `cell` over xs (T, N, D) from `state` (default zeros); with an `output` layer the run has its y too.

    On values every step is unrolled, as `unroll` does; traced by `compile`, it is one
    scan.  Raises what `unroll` raises.
    """
    if not (isinstance(xs, Tensor) and xs.is_symbol):
        steps = unroll(cell, xs, state, output=output, label=label)
        return Run(None, steps[-1].state, steps)
    names = cell.state.split()
    first = (
        tuple(state)
        if state is not None
        else tuple(zeros((xs.shape[1], cell.hidden), cell.dtype) for _ in names)
    )

    def step(carry, x):
        quantities = cell.step(x, *carry)
        if output is not None:
            quantities["y"] = output(quantities[names[0]])
        name_all(quantities)
        return tuple(quantities[n] for n in names), quantities

    for name, s in zip(names, first, strict=True):
        if s.name is None:
            s.name = name
    carry, quantities = scan(step, first, xs)
    return Run(quantities, carry, [])
