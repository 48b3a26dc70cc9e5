"""One step of a sequence, taken from where it was put together.

Libraries hand sequences on whole: the outputs of one layer are stacked, transposed, reshaped, and the next layer cuts
its steps out again.  `at` walks back through that to the concatenation that put the steps together, so that a step's
graph leads to the step that made it, and a picture shows which step reads which; the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from minigrad import Tensor, concat
from minigrad.axes import moves
from minigrad.tensor import apply

DEEPEST = 40  # operations that are walked through
AGAIN = (
    "concat",
    "reshape",
    "slice",
    "transpose",
)  # with one axis less, beside what works element by element


def at(x: Tensor, axis: int, k: int) -> Tensor:
    """x without `axis`, at place `k` of it, which may count from the end."""
    size = x.shape[axis]
    if x.is_symbol or not isinstance(size, int) or not -size <= k < size:
        return x[(*(slice(None),) * axis, k)]
    return _Walk().at(x, axis, k % size)


class _Walk:
    """What has been found out, so that a tensor that is read twice is walked through once."""

    def __init__(self):
        self.joined: dict[tuple[int, int], bool] = {}
        self.taken: dict[tuple[int, int, int], Tensor] = {}

    def at(self, x: Tensor, axis: int, k: int) -> Tensor:
        key = (x.number, axis, k)
        if key not in self.taken:
            if self.leads(x, axis, 0):
                self.taken[key] = self.through(x, axis, k)
            elif (
                x.shape[axis] == 1 and x.op is not None and x.op.name == "reshape"
            ):  # such as the last state of a layer
                self.taken[key] = reshaped(x, (*x.shape[:axis], *x.shape[axis + 1 :]))
            else:
                self.taken[key] = x[(*(slice(None),) * axis, k)]
        return self.taken[key]

    def leads(self, x: Tensor, axis: int, deep: int) -> bool:
        """Was this axis put together by a concatenation that can be reached?"""
        key = (x.number, axis)
        if key not in self.joined:
            self.joined[key] = x.op is not None and x.op.name == "concat" and x.params[0] == axis
            if deep < DEEPEST and not self.joined[key]:
                self.joined[key] = any(self.leads(i, a, deep + 1) for i, a in _sources(x, axis))
        return self.joined[key]

    def through(self, x: Tensor, axis: int, k: int) -> Tensor:
        assert x.op is not None
        op, inputs, below = x.op, x.inputs, lambda a: a - (a > axis)
        if op.name in ("concat", "slice") and x.params[0] == axis:
            m = next(m for m in moves(x, axis) if m.first <= k < m.last)
            return self.at(inputs[m.input], axis, m.step * k + m.by)
        of = {id(i): self.at(i, a, k if i.shape[a] > 1 else 0) for i, a in _sources(x, axis)}
        parts = [of.get(id(i), i) for i in inputs]
        if op.name == "concat":
            return concat(*parts, axis=below(x.params[0]))
        if op.name == "slice":
            return apply(op, tuple(parts), (below(x.params[0]), *x.params[1:]))
        if op.name == "transpose":
            gone = x.params[0][axis]
            return transposed(parts[0], tuple(a - (a > gone) for a in x.params[0] if a != gone))
        if op.name == "reshape":
            return reshaped(parts[0], (*x.shape[:axis], *x.shape[axis + 1 :]))
        return apply(op, tuple(parts), x.params)


def _sources(x: Tensor, axis: int) -> Iterator[tuple[Tensor, int]]:
    """The inputs, each with its axis, whose places are those of x; none where that is not plain to see."""
    if x.op is not None and x.size and (x.op.kind == "elementwise" or x.op.name in AGAIN):
        yield from ((x.inputs[m.input], m.axis) for m in moves(x, axis))


def reshaped(x: Tensor, shape: tuple) -> Tensor:
    """In one reshape, or none, where one follows another: a step that was put among others is itself again."""
    while x.shape != shape and x.op is not None and x.op.name == "reshape":
        x = x.inputs[0]
    return x if x.shape == shape else x.reshape(shape)


def transposed(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """In one transpose, or none, where one follows another."""
    if x.op is not None and x.op.name == "transpose":
        return transposed(x.inputs[0], tuple(x.params[0][a] for a in order))
    return x.transpose(order)
