"""Convolution along time: `Conv1d`, the same weights at every step, and `weight_norm`."""

from __future__ import annotations

import numpy as np

from minigrad import InputError, Tensor, conv1d, init, sqrt

from .layer import Layer, fitting, positive


class Conv1d(Layer):
    """A convolution along time: each step sees `taps` steps, which lie `dilation` apart.

    Shapes: x (T, N, D) → (T, N, K), K the `width`; outside the sequence stand zeros.
    ``K * (taps * D + 1)`` parameters: W (taps, D, K), whose last slice is that of the newest step, starts after Glorot
    and Bengio (2010), b at 0.
    causal : no step sees a later one; else it sees as many after it as before it.
    Raises InputError for an even number of taps that is not causal, and ShapeError, when called, for
    an x that is not D wide.
    """

    W: Tensor
    b: Tensor

    def __init__(
        self,
        inputs: int,
        width: int,
        taps: int,
        rng: np.random.Generator,
        dilation: int = 1,
        causal: bool = False,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(type(self).__name__, inputs=inputs, width=width, taps=taps, dilation=dilation)
        if not causal and taps % 2 == 0:
            raise InputError(
                f"{type(self).__name__}: {taps} taps have no middle; give an odd number, or causal=True"
            )
        self.inputs, self.width, self.taps = int(inputs), int(width), int(taps)
        self.dilation, self.causal = int(dilation), causal
        bound = np.sqrt(6 / (taps * (inputs + width)))
        self.parameter("W", init.uniform(rng, (taps, inputs, width), bound=bound))
        self.parameter("b", np.zeros(width))

    def __call__(self, x) -> Tensor:
        x = fitting(self, x, "steps, sequences")
        return conv1d(x, self.W, self.dilation, self.causal) + self.b

    @property
    def receptive_field(self) -> int:
        """How many steps there are from the first to the last that an output sees."""
        return 1 + (self.taps - 1) * self.dilation

    def __repr__(self) -> str:
        first, *rows = super().__repr__().split("\n")
        way = "causal, " if self.causal else ""
        about = f"{way}dilation {self.dilation}, receptive field {self.receptive_field:,}"
        return "\n".join([f"{first}; {self.inputs} inputs, width {self.width}, {about}", *rows])


def weight_norm(v: Tensor, g: Tensor) -> Tensor:
    """Weights (taps, D, K) of direction v and length g (K,), for each output (Salimans and Kingma, 2016)."""
    return v * (g / length(v))


def length(v: Tensor) -> Tensor:
    """‖v‖ over taps and inputs: (taps, D, K) → (K,)."""
    return sqrt((v * v).sum(axis=(0, 1)))
