"""Sequences of different length, and cuts of the gradient: which steps count, and where it stops.

A mask is True where a step is real.  Elsewhere x is read as 0 and the states stay as they
were, so that padding, whatever it holds, changes no value and no gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad import OPS, DTypeError, InputError, ShapeError, Tensor, as_tensor, describe, scan, where
from minigrad.tensor import apply

from .layer import positive


def steps_that_count(who: str, xs, lengths, mask, T, N) -> Any:
    """The mask (T, N) of `lengths` (N,) or the `mask` itself; None where neither is given.

    An array where everything is known, else a tensor of the traced graph.  Raises InputError,
    ShapeError or DTypeError, saying which sequence does not fit.
    """
    if lengths is None and mask is None:
        return None
    if lengths is not None and mask is not None:
        raise InputError(f"{who}: lengths and a mask are given; give one of them")
    name, given, shape = ("lengths", lengths, (N,)) if mask is None else ("the mask", mask, (T, N))
    given = as_tensor(given)
    if len(given.shape) != len(shape) or tuple(given.shape) != shape:
        remedy = f"(sequences,) = ({N},)" if mask is None else f"(steps, sequences) = ({T}, {N})"
        swapped = tuple(given.shape) == shape[::-1] if mask is not None and given.ndim == 2 else False
        raise ShapeError(
            f"{who}: {name} {describe(given)}; give {remedy}"
            + (steps_first(given.shape[0], T, N) if mask is None and given.ndim == 1 else "")
            + (", e.g. mask.swapaxes(0, 1)" if swapped else "")
        )
    if given.dtype.kind not in ("iu" if mask is None else "b"):
        remedy = "whole numbers" if mask is None else "booleans, e.g. mask > 0"
        raise DTypeError(f"{who}: {name} {describe(given)}; give {remedy}")
    traced = given.is_symbol or not isinstance(T, int)
    if mask is not None:
        return given if traced else given.value
    if traced:
        given = apply(OPS["inside"], (given,), (T + 1, "the lengths", f"{who}: "))
        _, t = scan(lambda t, x: (t + 1, t), Tensor(np.zeros(1, np.int64), name="t"), xs)
        return t < given
    n = int(np.argmax((given.value > T) | (given.value < 0))) if given.value.size else 0
    if given.value.size and not 0 <= given.value[n] <= T:
        raise InputError(f"{who}: sequence {n} has length {given.value[n]}, x has {T} steps; give 0 … {T}")
    return np.arange(T)[:, None] < given.value


def steps_first(count, T, N) -> str:
    """The end of an error about something with `count` rows that has to have one for each of x's N sequences."""
    if not (isinstance(count, int) and isinstance(T, int) and isinstance(N, int)) or count != T or T == N:
        return ""  # what is not known yet must not be compared
    return f"; x is (steps, sequences, …), ({T}, {N}, …): if its sequences come first, give xs.swapaxes(0, 1)"


def step_numbers(xs: Tensor) -> Tensor:
    """The number of each step, from 0: (T, 1); in a traced graph they are counted there."""
    if isinstance(xs.shape[0], int):
        return Tensor(np.arange(xs.shape[0])[:, None], name="t")
    return scan(lambda t, x: (t + 1, t), Tensor(np.zeros(1, np.int64), name="t"), xs)[1]


def cuts(xs, every: int, reverse: bool) -> Tensor:
    """In a traced graph: True (T, 1) at every step before which the gradient stops, `every` steps apart."""

    def count_down(left, x):
        now = left == 0
        return where(now, every, left) - 1, now

    return scan(count_down, Tensor(np.full(1, every)), xs, reverse=reverse)[1]


def spread(real, like: Tensor):
    """`real` (N,) or (N, 1) with as many axes as `like` (N, …) has."""
    return (
        real
        if len(real.shape) == len(like.shape)
        else real.reshape((like.shape[0], *(1,) * (len(like.shape) - 1)))
    )


def padded_to_zero(real, row: Tensor) -> Tensor:
    """A step's row of inputs (N, …), read as 0 where `real` is False; what all sequences share stays."""
    if not row.shape or row.shape[0] != real.shape[0]:
        return row
    return where(spread(real, row), row, {"f": 0.0, "b": False}.get(row.dtype.kind, 0))


def check_truncate(who: str, truncate) -> None:
    if truncate is not None:
        positive(who, truncate=truncate)
