"""Dropout with an explicit generator: masks are arrays, so eager and compiled runs drop the same units.

Between layers a mask multiplies what one layer gives to the next (``stack(xs, dropout=…)``, and `Dropout` as a
layer).  Within the recurrence one mask serves all steps (variational dropout, Gal and Ghahramani, 2016): a
unit that is dropped is not seen by the products, while the states themselves are carried
on untouched.  So it suits every cell, also one that passes h on by a gate.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from minigrad import InputError, ShapeError, Tensor, as_tensor, concat, describe
from minigrad.modes import remark

from .layer import Layer, copy_with

Some = TypeVar("Some", bound=Layer)


def mask(shape, rate: float, rng: np.random.Generator, dtype: Any = "float32") -> np.ndarray:
    """0 with probability `rate`, else 1 / (1 − rate), so that the mean is kept.

    Raises InputError for a rate outside [0, 1) and for what is not a generator.
    """
    check_rate(rate)
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"dropout: give a generator, numpy.random.default_rng(seed), not {rng!r}")
    return ((rng.random(shape) >= rate) / (1 - rate)).astype(dtype)


def check_rate(rate) -> None:
    """Raise InputError unless it is a probability below 1."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not 0 <= rate < 1:
        raise InputError(f"dropout: rate = {rate!r}; give a number of at least 0 and below 1")


class Dropout(Layer):
    """Drops units with probability `rate` (Srivastava et al., 2014) where it is given a mask, and only there.

    Shapes: x (…) → (…).  ``drop(x, dropout=drop.dropout_masks(x.shape, rng))`` is for training, ``drop(x)``, which
    is x itself, for everything else: there is no mode to forget, and a training step whose loss gives no mask warns of it.
    Kept units are scaled by 1 / (1 − rate), so that the mean is the same in both.  Pass masks as arguments to a compiled
    function: eager and compiled runs then drop the same units.
    Raises InputError for a rate outside 0 ≤ rate < 1.
    """

    def __init__(self, rate: float, dtype="float32"):
        super().__init__(dtype)
        check_rate(rate)
        self.rate = float(rate)

    def __call__(self, x, dropout=None) -> Tensor:
        """dropout : a mask of x's shape, or with 1 for axes along which the same units are dropped.

        Raises ShapeError for a mask of another shape.
        """
        x = as_tensor(x)
        if dropout is None:
            if self.rate:
                remark(
                    f"{self.described()} is given no mask, and so drops nothing in this training: give it one that is an "
                    "argument of the loss, drop(x, dropout=mask), drawn anew for each batch by drop.dropout_masks(x.shape, rng)"
                )
            return x
        dropout = dropout if isinstance(dropout, Tensor) else Tensor(dropout, name="dropout")
        fits = len(dropout.shape) == len(x.shape) and all(
            m == 1 or m == n for m, n in zip(dropout.shape, x.shape, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"Dropout: the mask {describe(dropout)} does not fit x {describe(x)}; draw it with "
                "dropout_masks(x.shape, rng)"
            )
        return x * dropout

    def dropout_masks(self, shape, rng: np.random.Generator, dtype: Any = None) -> np.ndarray:
        """A mask for x of this shape; with 1 for an axis, such as that of the steps, one serves all its places.

        Raises InputError for an `rng` that is not a generator.
        """
        return mask(shape, self.rate, rng, self.dtype if dtype is None else dtype)

    def described(self) -> str:
        return f"Dropout({self.rate:g})"


def recurrent_masks(layer: Layer, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Masks for `dropped`: (width,) for a cell, (2, H) for both directions, (layers, …) for a stack.

    Raises InputError for a rate outside 0 ≤ rate < 1, and for an `rng` that is not a generator.
    """
    return mask(_mask_shape(layer), rate, rng, layer.dtype)


def dropped(layer: Some, masks) -> Some:
    """The same layer, seeing its last outputs through `masks`; its parameters stay those of `layer`.

    The mask goes on the rows of the recurrent weights, once for all steps and sequences.
    Raises ShapeError for masks of another shape than `recurrent_masks` gives, and InputError for a layer of which
    it cannot tell the recurrent weights.
    """
    masks, shape = as_tensor(masks), _mask_shape(layer)
    if len(masks.shape) != len(shape) or tuple(masks.shape) != shape:
        raise ShapeError(
            f"dropped {type(layer).__name__}: masks {describe(masks)}; give {shape}, as recurrent_masks does"
        )
    if hasattr(layer, "cells"):
        return copy_with(layer, cells=[dropped(cell, masks[k]) for k, cell in enumerate(layer.cells)])  # type: ignore[attr-defined]
    if hasattr(layer, "seen_through"):  # made of parts, which it knows
        return layer.seen_through(masks)  # type: ignore[attr-defined]
    within = [name for name in layer.parameters() if "." in name]
    if within:
        raise InputError(
            f"dropped {type(layer).__name__}: which weights of its layers ({within[0]}, …) see the last outputs is "
            "not known; give the class a method seen_through(masks), as AttentionDecoder has"
        )
    H = shape[0]
    column, seen = masks.reshape((H, 1)), {}
    for name, p in layer.parameters().items():
        if p.ndim != 2 or name in getattr(layer, "inner", ()):
            continue
        if name.startswith("U"):  # (H, H): sees the last output alone
            seen[name] = (p * column).named(name)
        elif p.shape[0] > H and p.shape[0] == H + layer.inputs:  # type: ignore[attr-defined]
            kept = np.ones((p.shape[0] - H, 1), layer.dtype)
            seen[name] = (p * concat(column, kept, axis=0)).named(name)
    return copy_with(layer, **seen)


def _mask_shape(layer) -> tuple[int, ...]:
    if hasattr(layer, "cells"):
        return (len(layer.cells), *_mask_shape(layer.cells[0]))
    return (layer.width,)
