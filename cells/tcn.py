"""The temporal convolutional network: residual blocks of dilated causal convolutions."""

from __future__ import annotations

import numpy as np

from minigrad import ShapeError, Tensor, conv1d, describe, init, relu, scope

from .convolution import length, weight_norm
from .dropout import mask
from .layer import Layer, fitting, positive
from .recurrence import joined
from .sequence import whole
from .steps import Run


class TCNBlock(Layer):
    """One level of a `TCN`: two weight-normed dilated causal convolutions and a way around them.

    Shapes: x (T, N, D) → (T, N, H).  The way around is a convolution of one tap, W_s, where D is not H.
    """

    v_1: Tensor
    g_1: Tensor
    b_1: Tensor
    v_2: Tensor
    g_2: Tensor
    b_2: Tensor
    W_s: Tensor
    b_s: Tensor

    def __init__(
        self,
        inputs: int,
        hidden: int,
        taps: int,
        dilation: int,
        rng: np.random.Generator,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(type(self).__name__, inputs=inputs, hidden=hidden, taps=taps, dilation=dilation)
        self.inputs, self.width, self.dilation = inputs, hidden, dilation
        for k, width in ((1, inputs), (2, hidden)):
            bound = 1 / np.sqrt(taps * width)
            v = self.parameter(f"v_{k}", init.uniform(rng, (taps, width, hidden), bound=bound))
            self.parameter(f"g_{k}", length(v))
            self.parameter(f"b_{k}", np.zeros(hidden))
        if inputs != hidden:
            self.parameter("W_s", init.glorot(rng, (inputs, hidden)))
            self.parameter("b_s", np.zeros(hidden))

    def __call__(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """keep : two masks of dropout, (2, T, N, H)."""
        W_1 = weight_norm(self.v_1, self.g_1).named("W_1")
        a = relu(conv1d(x, W_1, self.dilation) + self.b_1).named("a")
        a = a if keep is None else a * keep[0]
        W_2 = weight_norm(self.v_2, self.g_2).named("W_2")
        u = relu(conv1d(a, W_2, self.dilation) + self.b_2).named("u")
        u = u if keep is None else u * keep[1]
        s = x if self.inputs == self.width else (x @ self.W_s + self.b_s).named("s")
        return relu(u + s).named("h")


class TCN(Layer):
    """Temporal convolutional network (Bai, Kolter and Koltun, 2018): D inputs, H hidden at each level.

    ``tcn(xs).outputs``: (T, N, D) → (T, N, H), and no step sees a later one.  Level k has dilation 2 ** (k − 1), so
    that what a step sees doubles with each level; parameters are called "1.v_1", "1.g_1", "1.b_1", ….

    Directions v start uniform in ±1/√(taps · inputs), lengths g at ‖v‖, biases at 0, so that h keeps its size
    from level to level.  The paper's code asks for normal numbers of deviation 0.01, but sets the product
    of v and g, which is computed anew before it is read: what it trains from is this uniform start, and
    from 0.01 it learns several times as slowly.
    """

    causal = True  # no output depends on a later step
    numbered = "blocks"

    def __init__(
        self,
        inputs: int,
        hidden: int,
        levels: int,
        taps: int,
        rng: np.random.Generator,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(type(self).__name__, inputs=inputs, hidden=hidden, levels=levels, taps=taps)
        self.inputs, self.hidden, self.taps = int(inputs), int(hidden), int(taps)
        self.blocks = [
            TCNBlock(inputs if k == 0 else hidden, hidden, taps, 2**k, rng, dtype) for k in range(levels)
        ]

    def __call__(self, xs, state=None, *, dropout=None, **options) -> Run:
        """Run it over xs (T, N, D): outputs h (T, N, H); options and errors are those of `run`.

        dropout : masks behind each convolution, from `dropout_masks`.
        """
        x = fitting(self, joined(xs), "steps, sequences")
        keep = None if dropout is None else self._fitting_masks(dropout, x)
        return whole(self, lambda x, real: self._outputs(x, keep), x, state, **options)

    def _outputs(self, x: Tensor, keep: Tensor | None) -> Tensor:
        for k, block in enumerate(self.blocks, 1):
            with scope(f"level {k}"):
                x = block(x, None if keep is None else keep[k - 1])
        return x

    def dropout_masks(self, T: int, N: int, rate: float, rng: np.random.Generator) -> np.ndarray:
        """Masks for ``tcn(xs, dropout=…)``: (levels, 2, T, N, hidden), one behind each convolution.

        With T = 1 whole channels are dropped, for all steps (spatial dropout, Tompson et al., 2015), as the
        paper says; with as many steps as xs each number by itself, as the paper's code does.
        """
        return mask((len(self.blocks), 2, T, N, self.hidden), rate, rng, self.dtype)

    def _fitting_masks(self, dropout, x: Tensor) -> Tensor:
        dropout = dropout if isinstance(dropout, Tensor) else Tensor(dropout, name="dropout")
        T, N = x.shape[:2]
        fits = len(dropout.shape) == 5 and (
            tuple(dropout.shape[:2]) == (len(self.blocks), 2)
            and dropout.shape[2] in (T, 1)
            and tuple(dropout.shape[3:]) == (N, self.hidden)
        )
        if not fits:
            raise ShapeError(
                f"TCN: {describe(dropout)}; give (levels, 2, steps or 1, sequences, hidden) = "
                f"({len(self.blocks)}, 2, {T}, {N}, {self.hidden}), as dropout_masks does"
            )
        return dropout

    @property
    def width(self) -> int:
        """How many numbers a step gives for each sequence."""
        return self.hidden

    @property
    def dilations(self) -> list[int]:
        """How many steps apart the taps of each level are."""
        return [block.dilation for block in self.blocks]

    @property
    def receptive_field(self) -> int:
        """How many steps an output sees: its own and those before it."""
        return 1 + 2 * (self.taps - 1) * sum(self.dilations)

    def __repr__(self) -> str:
        rows, sees = [], 1
        for k, block in enumerate(self.blocks, 1):
            sees += 2 * (self.taps - 1) * block.dilation
            weights = ", ".join(f"{n} {p.shape}" for n, p in block.parameters().items() if p.ndim > 1)
            rows.append(f"\n  level {k:<2}  dilation {block.dilation:<4}  sees {sees:<6,}  {weights}")
        return (
            f"TCN, {self.size:,} parameters, {self.dtype}; {self.inputs} inputs, {self.hidden} hidden, "
            f"{len(self.blocks)} levels, {self.taps} taps, receptive field {self.receptive_field:,}{''.join(rows)}"
        )
