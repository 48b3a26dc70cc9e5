"""The status of a gradient, and its size: one vocabulary for all that reads and draws."""

from __future__ import annotations

import math

import numpy as np

from .catalogue import deferred

VANISHED_BELOW, EXPLODED_ABOVE = 1e-6, 1e3


NOT_COMPUTED, CUT, ZERO, VANISHED, NORMAL, EXPLODES, NOT_A_NUMBER = STATUSES = (
    deferred("not computed"), deferred("cut"), deferred("exactly zero"), deferred("vanished"), deferred("normal"),
    deferred("exploded"), deferred("not a number"),
)  # fmt: skip
UNKNOWN = deferred("No gradient is known yet: loss.backward(record=True) was not run.")


def norm(array) -> float:
    """The Euclidean norm in double precision, which neither overflows nor underflows on the way."""
    values = np.abs(np.asarray(array, dtype=np.float64))
    top = float(values.max(initial=0.0))
    if top == 0 or not math.isfinite(top):
        return top if not np.isnan(values).any() else math.nan
    return top * float(np.sqrt(np.square(values / top).sum()))


def is_small(array: np.ndarray, most_columns: int = 16, most_rows: int = 4) -> bool:
    """Whether the numbers themselves are shown: few columns and few rows."""
    columns = array.shape[-1] if array.ndim else 1
    return (
        0 < array.size <= most_columns * most_rows
        and columns <= most_columns
        and array.size // columns <= most_rows
    )


def norms(batch: np.ndarray) -> np.ndarray:
    """`style.norm` of each array of a batch (items, …)."""
    flat = np.abs(batch.reshape(len(batch), -1).astype(np.float64))
    if flat.size <= 64:
        return np.array([norm(a) for a in flat])
    top = flat.max(axis=1)
    with np.errstate(all="ignore"):
        sizes = top * np.sqrt(np.square(flat / top[:, None]).sum(axis=1))
    return np.where((top == 0) | (np.isinf(top)), top, sizes)
