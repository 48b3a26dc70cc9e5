"""Layers and functions one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from minigrad import InputError, Tensor, as_tensor, no_grad, scope
from minigrad.names import printable

from .dropout import Dropout
from .layer import Layer
from .sequence import run


class Sequential(Layer):
    """Hands what each layer gives to the next: ``Sequential(Embedding(…), LSTM(…), LayerNorm(…), Output(…))``.

    Layers are called by their numbers, from 1: "2.W_f", …; functions of a tensor, such as `minigrad.tanh`, count
    too.  Of a layer over whole sequences, such as a cell, its outputs (T, N, H) go on.
    Raises InputError for what is neither a layer nor a function, and for none at all.
    """

    numbered = "layers"

    def __init__(self, *layers):
        for k, layer in enumerate(layers, 1):
            if not (callable(layer) or isinstance(layer, Layer)) or isinstance(layer, type):
                raise InputError(
                    f"{type(self).__name__}: layer {k} is {printable(repr(layer))}; give a layer or a function of a "
                    "tensor"
                )
        if not layers:
            raise InputError(f"{type(self).__name__}: give at least one layer")
        super().__init__(str(next((layer.dtype for layer in layers if isinstance(layer, Layer)), "float32")))
        self.layers = list(layers)
        self._shapes: tuple | None = None  # of what the `Dropout` layers were given last

    def __call__(self, x, dropout: Sequence | None = None) -> Tensor:
        """dropout : masks for the `Dropout` layers, in their order, from `dropout_masks`; without, nothing is dropped.

        Raises InputError for another number of masks than there are such layers.
        """
        drops = self._dropouts()
        if dropout is None:
            return self._given(x, lambda *_: None)
        if not isinstance(dropout, (list, tuple)) or len(dropout) != len(drops):
            what = len(dropout) if isinstance(dropout, (list, tuple)) else f"a {type(dropout).__name__}"
            raise InputError(
                f"{type(self).__name__}: dropout is {what}; give a list of {len(drops)} masks, as dropout_masks does"
            )
        masks = iter(dropout)
        return self._given(x, lambda *_: next(masks))

    def _given(self, x, mask_of: Callable[[Dropout, Any], Any]) -> Tensor:
        for k, layer in enumerate(self.layers, 1):
            with scope(f"layer {k}"):
                if isinstance(layer, Sequential):
                    x = layer._given(x, mask_of)
                elif isinstance(layer, Dropout):
                    x = layer(x, mask_of(layer, x))
                else:
                    x = outputs_of(layer, x)
        return as_tensor(x)

    def dropout_masks(self, x, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Masks for a call on x, or on anything of its shape: one for each `Dropout`, within others too.

        The first time it runs on x, to know the shapes.
        """
        x, drops = as_tensor(x), self._dropouts()
        key = x.shape, x.dtype, *map(id, self._each())
        if self._shapes is None or self._shapes[0] != key:
            found: list[tuple] = []
            with no_grad():
                self._given(x, lambda _, x: found.append((as_tensor(x).shape, as_tensor(x).dtype)))
            self._shapes = key, found
        return tuple(
            drop.dropout_masks(shape, rng, dtype)
            for drop, (shape, dtype) in zip(drops, self._shapes[1], strict=True)
        )

    def _each(self) -> Iterator:
        for layer in self.layers:
            if isinstance(layer, Sequential):
                yield from layer._each()
            else:
                yield layer

    def _dropouts(self) -> list[Dropout]:
        return [layer for layer in self._each() if isinstance(layer, Dropout)]


def outputs_of(layer, x) -> Any:
    """What a layer, or a function, makes of x; of one over whole sequences its outputs (T, N, H)."""
    how = layer if callable(layer) else layer.run if hasattr(layer, "run") else partial(run, layer)
    made = how(x)
    return made if isinstance(made, Tensor) else getattr(made, "outputs", made)
