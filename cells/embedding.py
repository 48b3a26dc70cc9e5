"""A vector for each class, such as a word or a character, learned as rows of a table."""

from __future__ import annotations

import numpy as np

from minigrad import DTypeError, InputError, Tensor, describe, gather, where

from .layer import Layer, positive


class Embedding(Layer):
    """Looks up a row of W for every whole number: the same as a one-hot input times W, without the zeros.

    Shapes: indices (…) → (…, width).  ``classes * width`` parameters, W, which start normal with deviation 1.
    padding : the class that marks steps without input: its row starts at 0, what comes out for it is exactly 0, and no
        gradient goes into the row.
    Raises, when called, InputError that names the first index outside 0 … classes − 1, and DTypeError for what are
    not whole numbers.
    """

    W: Tensor

    def __init__(
        self,
        classes: int,
        width: int,
        rng: np.random.Generator,
        padding: int | None = None,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(type(self).__name__, classes=classes, width=width)
        whole = isinstance(padding, (int, np.integer)) and not isinstance(padding, bool)
        if padding is not None and not (whole and 0 <= padding < classes):
            raise InputError(
                f"{type(self).__name__}: padding = {padding!r}; give a class from 0 to {classes - 1}, or None"
            )
        self.classes, self.width = int(classes), int(width)
        self.padding = None if padding is None else int(padding)
        W = rng.standard_normal((classes, width))
        if padding is not None:
            W[padding] = 0
        self.parameter("W", W)

    def __call__(self, indices) -> Tensor:
        indices = indices if isinstance(indices, Tensor) else Tensor(indices, name="x")
        who = type(self).__name__
        if indices.dtype.kind not in "iu":
            raise DTypeError(f"{who}: {describe(indices)}; give whole numbers, the classes, e.g. int64")
        rows = gather(self.W, indices)
        if self.padding is None:
            return rows
        return where((indices == self.padding).reshape((*indices.shape, 1)), 0.0, rows)

    def described(self) -> str:
        padding = "" if self.padding is None else f", padding {self.padding}"
        return f"{type(self).__name__}({self.classes}, {self.width}{padding})"
