"""Dropout with an explicit generator: masks are arrays, so what is compiled drops what the eager run drops.

Between layers a mask multiplies what one layer gives to the next (``stack(xs, dropout=…)``).  Within
the recurrence one mask serves all steps (variational dropout, Gal and Ghahramani, 2016): a
unit that is dropped is not seen by the products, while the states themselves are carried
on untouched.  So it suits every cell, also one that passes h on by a gate.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np

from minigrad import InputError, ShapeError, as_tensor, concat, describe

from .layer import Layer

Some = TypeVar("Some", bound=Layer)


def mask(shape, rate: float, rng: np.random.Generator, dtype: Any = "float32") -> np.ndarray:
    """0 with probability `rate`, else 1 / (1 − rate), so that the mean is kept.

    Raises InputError for a rate outside [0, 1) and for what is no generator.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not 0 <= rate < 1:
        raise InputError(f"dropout: rate = {rate!r}; give a number of at least 0 and below 1")
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"dropout: give a generator, numpy.random.default_rng(seed), not {rng!r}")
    return ((rng.random(shape) >= rate) / (1 - rate)).astype(dtype)


def recurrent_masks(layer: Layer, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Masks for `dropped`: (outputs,) for a cell, (2, H) for both directions, (layers, …) for a stack."""
    return mask(_mask_shape(layer), rate, rng, layer.dtype)


def dropped(layer: Some, masks) -> Some:
    """The same layer, seeing its last outputs through `masks`; its parameters stay those of `layer`.

    The mask goes on the rows of the recurrent weights, once for all steps and sequences.
    Raises ShapeError for masks of another shape than `recurrent_masks` gives.
    """
    masks, shape = as_tensor(masks), _mask_shape(layer)
    if len(masks.shape) != len(shape) or tuple(masks.shape) != shape:
        raise ShapeError(
            f"dropped {type(layer).__name__}: masks {describe(masks)}; give {shape}, as recurrent_masks does"
        )
    other = copy.copy(layer)
    if hasattr(layer, "cells"):
        other.cells = [dropped(cell, masks[k]) for k, cell in enumerate(layer.cells)]  # type: ignore[attr-defined]
        return other
    if hasattr(layer, "seen_through"):  # made of parts, which it knows
        return layer.seen_through(masks)  # type: ignore[attr-defined]
    within = [name for name in layer.parameters() if "." in name]
    if within:
        raise InputError(
            f"dropped {type(layer).__name__}: which weights of its layers ({within[0]}, …) see the last outputs is "
            "not known; give the class a method seen_through(masks), as AttentionDecoder has"
        )
    H = shape[0]
    column = masks.reshape((H, 1))
    for name, p in layer.parameters().items():
        if p.ndim != 2 or name in getattr(layer, "inner", ()):
            continue
        if name.startswith("U"):  # (H, H): sees the last output alone
            setattr(other, name, (p * column).named(name))
        elif p.shape[0] > H and p.shape[0] == H + layer.inputs:  # type: ignore[attr-defined]
            kept = np.ones((p.shape[0] - H, 1), layer.dtype)
            setattr(other, name, (p * concat(column, kept, axis=0)).named(name))
    return other


def _mask_shape(layer) -> tuple[int, ...]:
    if hasattr(layer, "cells"):
        return (len(layer.cells), *_mask_shape(layer.cells[0]))
    return (layer.outputs,)
