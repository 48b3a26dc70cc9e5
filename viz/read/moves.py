"""How operations move along time, by their axis maps: to which place of which input a place of the result belongs.

Every answer is (input, its axis, by, first, last): for first ≤ i < last, place i of the result is made of place i + by
of that input.  Inputs of which a place of the result reads many, or none, or that are repeated along the axis, have no
answer, nor have slices of every second place and the like.
"""

from __future__ import annotations

from collections.abc import Iterator

from minigrad import Tensor, axes

Move = tuple[int, int, int, int, int]


def moves(n: Tensor, axis: int) -> Iterator[Move]:
    """For an axis of a node: (input, its axis, shift, first, last); see the top of this file."""
    return ((m.input, m.axis, m.by, m.first, m.last) for m in axes.moves(n, axis) if m.step == 1)


def moves_steps(n: Tensor) -> bool:
    """Whether an operation moves steps to others (a single step that is taken out is not moved)."""
    if not n.ndim or n.shape[0] == 1:
        return False
    own = [(m, n.inputs[m.input]) for m in axes.moves(n, 0) if m.axis == 0 and m.step]
    return any(m.by or m.step != 1 or x.shape[0] != n.shape[0] for m, x in own)
