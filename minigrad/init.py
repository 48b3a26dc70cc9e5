"""Initial weights, from an explicit generator: same seed, same weights."""

from __future__ import annotations

import numpy as np

from .errors import InputError


def _generator(rng) -> np.random.Generator:
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"initialiser: give a generator, numpy.random.default_rng(seed), not {rng!r}")
    return rng


def zeros(rng, shape, dtype="float32") -> np.ndarray:
    """All 0; takes the generator so that every initialiser is called alike."""
    return np.zeros(shape, dtype)


def uniform(rng, shape, dtype="float32", bound: float | None = None) -> np.ndarray:
    """Uniform in ±bound; without one ±1/√fan_in, fan_in being the first size.

    Raises InputError unless `rng` is a generator.
    """
    limit = 1 / np.sqrt(max(1, shape[0])) if bound is None else bound
    return _generator(rng).uniform(-limit, limit, shape).astype(dtype)


def glorot(rng, shape, dtype="float32") -> np.ndarray:
    """Uniform in ±√(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    return uniform(rng, shape, dtype, np.sqrt(6 / max(1, shape[0] + shape[-1])))


def orthogonal(rng, shape, dtype="float32", gain: float = 1.0) -> np.ndarray:
    """Orthonormal rows or columns, whichever are fewer, times `gain` (Saxe et al., 2014).

    Raises InputError unless `rng` is a generator.
    """
    rows, columns = shape
    square = _generator(rng).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(square)
    q = q * np.sign(np.diag(r))  # makes the draw uniform over orthogonal matrices
    return (gain * (q if rows >= columns else q.T)).astype(dtype)
