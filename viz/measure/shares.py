"""The shares of the ways in the gradient of a state, and how much of it cancels."""

from __future__ import annotations

import numpy as np

from .ways import State

NOTHING_LEFT = 1e-3  # of the sum of the parts' norms; of less, which may be rounding, shares say nothing


def shares(state: State, t: int) -> dict[str, float]:
    """The signed share of each way at a step; together 1.  None where the gradient is 0 or not finite,
    or where the parts cancel to next to nothing."""
    if (cancelled(state, t) or 0.0) > 1 - NOTHING_LEFT:
        return {}
    whole, parts = state.whole.get(t), state.vectors.get(t, {})
    top = float(np.abs(whole).max(initial=0)) if whole is not None else 0.0
    if whole is None or not top or not np.isfinite(top):
        return {}
    unit = whole / top
    return {way: float((part / top * unit).sum() / (unit * unit).sum()) for way, part in parts.items()}


def cancelled(state: State, t: int) -> float | None:
    """1 − ‖sum of the parts‖ / sum of their norms: 0 where all point one way, 1 where nothing is left."""
    sizes, total = [p[t] for p in state.parts.values() if t in p], state.total.get(t)
    return (
        None
        if total is None or not sum(sizes) or not np.isfinite(sum(sizes))
        else max(0.0, 1 - total / sum(sizes))
    )
