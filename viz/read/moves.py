"""How operations move along time: to which place of which input a place of the result belongs.

A slice, a concatenation and a shift along time move the index; what works element by
element, and products over other axes, keep it.  Every answer is (input, its axis, by,
first, last): for first ≤ i < last, place i of the result is made of place i + by of
that input.  Inputs of which a place of the result reads many, or none, have no answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from minigrad import Tensor

Move = tuple[int, int, int, int, int]


def moves(n: Tensor, axis: int) -> Iterator[Move]:
    """For an axis of a node: (input, its axis, shift, first, last); see the top of this file."""
    op, size = n.op, n.shape[axis]
    if op is None:
        return
    if op.name == "matmul":
        for k, x in enumerate(n.inputs):
            a = axis - n.ndim + x.ndim
            rows_or_columns = axis - n.ndim == (-2, -1)[k]
            if a >= 0 and (rows_or_columns or axis < n.ndim - 2) and x.shape[a] == size:
                yield k, a, 0, 0, size
    elif op.kind == "elementwise" or op.name in ("detach", "broadcast_to"):
        for k, x in enumerate(n.inputs):
            a = axis - n.ndim + x.ndim
            if a >= 0 and x.shape[a] == size:
                yield k, a, 0, 0, size
    elif op.kind == "reduction":
        axes, keepdims = n.params
        kept = list(range(n.ndim)) if keepdims else [a for a in range(n.inputs[0].ndim) if a not in axes]
        if kept[axis] not in axes:
            yield 0, kept[axis], 0, 0, size
    elif op.name == "transpose":
        yield 0, n.params[0][axis], 0, 0, size
    elif op.name == "reshape":
        shape = n.inputs[0].shape
        same = [
            a for a in range(len(shape))
            if shape[a] == size and math.prod(shape[:a]) == math.prod(n.shape[:axis])
        ]  # fmt: skip
        if same:  # several only where the size is 1: an axis then keeps its place if it can
            yield 0, axis if axis in same else same[0], 0, 0, size
    elif op.name == "gather":
        within = n.inputs[1].ndim
        yield (1, axis, 0, 0, size) if axis < within else (0, axis - within + 1, 0, 0, size)
    elif op.name == "shift":
        by = n.params[0] if axis == 0 else 0
        yield 0, axis, -by, max(by, 0), size + min(by, 0)
    elif op.name in ("concat", "slice", "place"):
        yield from _shifts(n, axis)


def moves_steps(n: Tensor) -> bool:
    """Whether an operation moves steps to others (a single step that is taken out is not moved)."""
    assert n.op is not None
    if n.op.name == "slice":
        return n.params[0] == 0 and n.shape[0] not in (1, n.inputs[0].shape[0])
    return n.op.name == "shift" or (n.op.name == "concat" and n.params[0] == 0)


def _shifts(n: Tensor, axis: int) -> Iterator[Move]:
    """The operations that move an index."""
    assert n.op is not None
    along, size = n.params[0], n.shape[axis]
    if axis != along:
        yield from ((k, axis, 0, 0, size) for k in range(len(n.inputs)))
    elif n.op.name == "concat":
        start = 0
        for k, x in enumerate(n.inputs):
            yield k, axis, -start, start, start + x.shape[axis]
            start += x.shape[axis]
    elif n.params[3] == 1:
        start = n.params[1]
        if n.op.name == "slice":
            yield 0, axis, start, 0, size
        else:
            yield 0, axis, -start, start, start + n.inputs[0].shape[axis]
