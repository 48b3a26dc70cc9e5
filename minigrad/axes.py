"""Axis maps: which place of an input feeds which place of the result, one rule for an operation or a kind of them.

From `axes` of a record follow which items and which steps a gradient comes from, what a step of a picture reads, and
which rows of a batch threads may share: none of them knows an operation by name.  A map is asked for one axis of a
result and yields for every input along which of its axes the places correspond:

    (k, a)              place i of the result is made of place i of axis a of input k, and of no other
    (k, a, by, step)    … of place step · i + by, where there is such a place

An input of which a place of the result reads several places, or the whole, has no entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .op import Op
    from .tensor import Tensor


class Move(NamedTuple):
    """Place i of an axis of a node, first ≤ i < last, is made of place step · i + by of an axis of an input."""

    input: int
    axis: int
    by: int
    step: int  # 0 where one place is repeated
    first: int
    last: int


def moves(node: Tensor, axis: int) -> Iterator[Move]:
    """The axis map of a node whose sizes are numbers: where the places of one of its axes come from."""
    if node.op is None:
        return
    size, shapes = node.shape[axis], [x.shape for x in node.inputs]
    for k, a, *shift in along(node.op, axis, node.shape, shapes, node.params):
        own, (by, step) = shapes[k][a], shift or (0, 1)
        if not shift and own != size:  # an axis of size 1 that is repeated
            yield Move(k, a, 0, 0, 0, size)
            continue
        first, last = (min(max(-by, 0), size), min(own - by, size)) if step == 1 else (0, size)
        yield Move(k, a, by, step, first, max(first, last))


def along(op: Op, axis: int, shape: tuple, shapes: Sequence[tuple], params: tuple) -> Iterator[tuple]:
    """The entries for an axis of a result, axes of size 1 that are repeated among them; sizes may be those of a trace."""
    follow = op.axes or _OF_KIND.get(op.kind)
    return iter(()) if follow is None else follow(axis, shape, shapes, *params)


# Of a kind of operations, or of several.


def aligned(axis, shape, shapes, *_) -> Iterator[tuple]:
    """Element by element: the same axis counted from the last, which fewer axes may not have."""
    for k, own in enumerate(shapes):
        if axis - len(shape) + len(own) >= 0:
            yield k, axis - len(shape) + len(own)


def left_over(axis, shape, shapes, axes, keepdims) -> Iterator[tuple]:
    """Of a reduction: the axes that are not reduced."""
    kept = range(len(shape)) if keepdims else [a for a in range(len(shapes[0])) if a not in axes]
    if kept[axis] not in axes:
        yield 0, kept[axis]


def rows_and_columns(axis, shape, shapes) -> Iterator[tuple]:
    """Of a product of matrices: rows of the left, columns of the right, batches of both."""
    for k, a in aligned(axis, shape, shapes):
        if axis < len(shape) - 2 or axis - len(shape) == (-2, -1)[k]:
            yield k, a


def other_than(axis, shape, shapes, along, *_) -> Iterator[tuple]:
    """Along one axis anything may happen; the others stay."""
    if axis != along:
        yield from ((k, axis) for k in range(len(shapes)))


_OF_KIND = {"elementwise": aligned, "reduction": left_over, "product": rows_and_columns}


# Of one operation each.


def permuted(axis, shape, shapes, axes) -> Iterator[tuple]:
    yield 0, axes[axis]


def reshaped(axis, shape, shapes, new) -> Iterator[tuple]:
    """An axis stays if it has its size and as many elements stand before it."""
    (old,), before = shapes, math.prod(shape[:axis])
    same = [a for a, n in enumerate(old) if n == shape[axis] and math.prod(old[:a]) == before]
    if same:  # several only where the size is 1: an axis then keeps its place if it can
        yield 0, axis if axis in same else same[0]


def side_by_side(axis, shape, shapes, along) -> Iterator[tuple]:
    start = 0
    for k, own in enumerate(shapes):
        yield (k, axis) if axis != along else (k, axis, -start, 1)
        start += own[along]


def cut_out(axis, shape, shapes, along, start, stop, step) -> Iterator[tuple]:
    yield (0, axis) if axis != along else (0, axis, start, step)


def put_in(axis, shape, shapes, along, start, stop, step, size) -> Iterator[tuple]:
    if axis != along:
        yield 0, axis
    elif step == 1:  # with a larger step there is no place for each i
        yield 0, axis, -start, 1


def looked_up(axis, shape, shapes, *_) -> Iterator[tuple]:
    """Places of the index, then what stands in a row of the table."""
    within = len(shapes[1])
    yield (1, axis) if axis < within else (0, axis - within + 1)


def within_rows(axis, shape, shapes, *_) -> Iterator[tuple]:
    """Rows are added up; what stands in them keeps its place."""
    if axis:
        yield 0, axis + len(shapes[1]) - 1


def later(axis, shape, shapes, by) -> Iterator[tuple]:
    yield (0, axis) if axis else (0, 0, -by, 1)
