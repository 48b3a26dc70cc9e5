"""The Transformer: every step looks at all steps before it, and none is passed through a recurrence.

Written as equations over whole sequences, so that the weights α of every head, named
"alpha", stand in the graph and compiled it is one program for any number of steps.
"""

from __future__ import annotations

import numpy as np

from minigrad import (
    DTypeError,
    InputError,
    ShapeError,
    Tensor,
    as_tensor,
    describe,
    layer_norm,
    relu,
    scope,
    sin,
    softmax,
    where,
)
from minigrad.init import glorot

from .dropout import mask as random_mask
from .layer import Layer, positive
from .masks import step_numbers
from .recurrence import joined
from .sequence import whole
from .steps import Run


class MultiHeadAttention(Layer):
    """Scaled dot-product attention in `heads` parts of the width (Vaswani et al., 2017).

    ``4 * W * (W + 1)`` parameters.  Raises InputError unless the heads divide the width.
    """

    causal = False  # without a mask every step sees all

    W_q: Tensor
    W_k: Tensor
    W_v: Tensor
    W_o: Tensor
    b_q: Tensor
    b_k: Tensor
    b_v: Tensor
    b_o: Tensor

    def __init__(self, width: int, heads: int, rng: np.random.Generator, dtype="float32"):
        super().__init__(dtype)
        positive(type(self).__name__, width=width, heads=heads)
        if width % heads:
            near = [n for n in range(1, width + 1) if width % n == 0]
            raise InputError(
                f"{type(self).__name__}: {heads} heads do not divide a width of {width}; "
                f"give {', '.join(map(str, near[:-1]))} or {near[-1]} heads"
            )
        self.inputs = self.width = int(width)
        self.heads = int(heads)
        for name in "qkvo":
            self.parameter(f"W_{name}", glorot(rng, (width, width)))
            self.parameter(f"b_{name}", np.zeros(width))

    def __call__(self, x, memory=None, mask=None) -> Tensor:
        """x (T, N, W) looks at memory (L, N, W), by default at itself; returns (T, N, W).

        mask : booleans that broadcast to (N, heads, T, L), True where a step may look.  A step that may
            look nowhere gets zeros for its context.

        Raises ShapeError or DTypeError for an x or a memory of another width or float type.
        """
        x = _checked(self, as_tensor(x), self.width)
        memory = x if memory is None else _checked(self, as_tensor(memory), self.width)
        q = self._split(x @ self.W_q + self.b_q).named("q")  # what a step asks for
        k = self._split(memory @ self.W_k + self.b_k).named("k")  # what a step offers
        v = self._split(memory @ self.W_v + self.b_v).named("v")  # what it gives
        scores = q @ k.swapaxes(-1, -2) * (self.width // self.heads) ** -0.5  # (N, heads, T, L)
        alpha = softmax(scores, mask=mask).named("alpha")
        context = (alpha @ v).transpose(2, 0, 1, 3).reshape(x.shape).named("context")
        return context @ self.W_o + self.b_o

    def _split(self, x: Tensor) -> Tensor:
        """(T, N, W) → (N, heads, T, W / heads)."""
        T, N, W = x.shape
        return x.reshape((T, N, self.heads, W // self.heads)).transpose(1, 2, 0, 3)


class TransformerBlock(Layer):
    """Attention and a feed-forward layer, each with its residual connection and layer norm.

    Vaswani et al. (2017), with the norms before the attention and before the feed-forward layer rather
    than behind them (pre-norm, Xiong et al., 2020): gradients reach every block undiminished along the
    residual connections, and training needs no long warm-up.
    """

    causal = False  # without a mask every step sees all

    g_a: Tensor
    b_a: Tensor
    g_f: Tensor
    b_f: Tensor
    W_1: Tensor
    b_1: Tensor
    W_2: Tensor
    b_2: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        rng: np.random.Generator,
        feedforward: int | None = None,
        dtype="float32",
    ):
        super().__init__(dtype)
        self.attention = MultiHeadAttention(width, heads, rng, dtype)
        hidden = 4 * width if feedforward is None else feedforward
        positive(type(self).__name__, feedforward=hidden)
        for norm in "af":  # before the attention, before the feed-forward layer
            self.parameter(f"g_{norm}", np.ones(width))
            self.parameter(f"b_{norm}", np.zeros(width))
        self.parameter("W_1", glorot(rng, (width, hidden)))
        self.parameter("b_1", np.zeros(hidden))
        self.parameter("W_2", glorot(rng, (hidden, width)))
        self.parameter("b_2", np.zeros(width))

    def __call__(self, x, mask=None, dropout=None) -> Tensor:
        """x (T, N, W) → (T, N, W).

        mask : as in MultiHeadAttention.
        dropout : masks (2, T, N, W) on what the attention and the feed-forward layer add.
        """
        x = as_tensor(x)
        seen = self.attention(layer_norm(x, self.g_a, self.b_a), mask=mask)
        x = x + (seen if dropout is None else seen * dropout[0])
        hidden = relu(layer_norm(x, self.g_f, self.b_f) @ self.W_1 + self.b_1)
        made = hidden @ self.W_2 + self.b_2
        return x + (made if dropout is None else made * dropout[1])


class Transformer(Layer):
    """Blocks on top of each other, over an input projection plus sinusoidal positions.

    D inputs → `width` outputs at every step, for any number of steps.  Where `causal` a step sees itself
    and the steps before it, else all.  Parameters are called "1.attention.W_q", …, "2.W_1", ….
    """

    numbered = "blocks"
    W_x: Tensor
    b_x: Tensor
    g_h: Tensor
    b_h: Tensor

    def __init__(
        self,
        inputs: int,
        width: int,
        heads: int,
        layers: int,
        rng: np.random.Generator,
        feedforward: int | None = None,
        causal: bool = True,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(type(self).__name__, inputs=inputs, layers=layers)
        self.inputs, self.causal = int(inputs), bool(causal)
        blocks = [TransformerBlock(width, heads, rng, feedforward, dtype) for _ in range(layers)]
        self.width = int(width)
        self.parameter("W_x", rng.standard_normal((inputs, width)))  # as large as the positions
        self.parameter("b_x", np.zeros(width))
        self.blocks = blocks
        self.parameter("g_h", np.ones(width))
        self.parameter("b_h", np.zeros(width))

    def __call__(self, xs, state=None, *, dropout=None, **options) -> Run:
        """Run it over xs (T, N, D): outputs h (T, N, width); options and errors are those of `run`.

        Steps that are not real are seen by none.
        dropout : masks from `dropout_masks`.
        """
        xs, dropout = _checked(self, as_tensor(joined(xs)), self.inputs), self._checked_dropout(dropout)
        return whole(self, lambda x, real: self._outputs(x, real, dropout), xs, state, **options)

    def _outputs(self, xs: Tensor, real: Tensor | None, dropout: Tensor | None) -> Tensor:
        times = step_numbers(xs)
        visible = _visible(times, real, self.causal)
        h = xs @ self.W_x + self.b_x + positions(times, self.width, self.dtype)
        if dropout is not None:
            h = h * dropout[0]
        for k, block in enumerate(self.blocks):
            with scope(f"block {k + 1}"):
                h = block(h, visible, None if dropout is None else dropout[2 * k + 1 : 2 * k + 3])
        return layer_norm(h, self.g_h, self.b_h)

    def dropout_masks(self, T: int, N: int, rate: float, rng: np.random.Generator) -> np.ndarray:
        """Masks for a call: (1 + 2 · layers, T, N, width), on the sum with the positions and on what every
        attention and feed-forward layer adds.  With T = 1 one mask serves all steps.
        """
        return random_mask((1 + 2 * len(self.blocks), T, N, self.width), rate, rng, self.dtype)

    def _checked_dropout(self, dropout) -> Tensor | None:
        if dropout is None:
            return None
        dropout, count = as_tensor(dropout), 1 + 2 * len(self.blocks)
        if len(dropout.shape) != 4 or dropout.shape[0] != count or dropout.shape[3] != self.width:
            raise ShapeError(
                f"{type(self).__name__}: dropout {describe(dropout)}; give (1 + 2 · layers, steps, sequences, "
                f"width) = ({count}, T, N, {self.width}), as dropout_masks does"
            )
        return dropout


def positions(times: Tensor, width: int, dtype) -> Tensor:
    """Sines and cosines of wave lengths from 2π to 20,000π, by turns: (T, 1, width)."""
    pair, odd = np.divmod(np.arange(width), 2)
    rates, phases = 10_000.0 ** (-2 * pair / width), odd * np.pi / 2  # a cosine is a sine that is ahead
    angles = times.reshape((times.shape[0], 1, 1)).astype(dtype) * rates.astype(dtype) + phases.astype(dtype)
    return sin(angles).named("position")


def _visible(times: Tensor, real: Tensor | None, causal: bool) -> Tensor | None:
    """Which steps a step may look at, as booleans that broadcast to (N, heads, T, T)."""
    T = times.shape[0]
    past = times >= times.reshape((1, T)) if causal else None
    if real is None:
        return None if past is None else past.named("visible")
    there = real.T.reshape((real.shape[1], 1, 1, T))
    return (there if past is None else where(past, there, False)).named("visible")


def _checked(layer, x: Tensor, features: int) -> Tensor:
    who = type(layer).__name__
    if len(x.shape) != 3 or x.shape[2] != features:
        raise ShapeError(f"{who}: x {describe(x)}; it was made for (steps, sequences, {features})")
    if x.dtype.kind == "f" and x.dtype != layer.dtype:
        raise DTypeError(f"{who}: x is {x.dtype}, the layer {layer.dtype}; convert one with .astype(…)")
    return x
