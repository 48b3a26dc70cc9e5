"""Additive attention, and a decoder that gives any recurrent cell a memory to look at.

The decoder is itself a cell: its step makes the context from the state before and hands it
to the cell beside the step's input.  So whatever runs, masks, draws or compiles a cell does so
with this one, and the weights α of every step are one of its named quantities.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from minigrad import (
    DTypeError,
    InputError,
    ShapeError,
    Tensor,
    as_tensor,
    concat,
    describe,
    softmax,
    tanh,
    where,
)
from minigrad.init import glorot

from .cell import Cell
from .dropout import dropped
from .layer import Layer, copy_with, positive
from .masks import steps_that_count


class AdditiveAttention(Layer):
    """How well each place of a memory fits a query, by a small network (Bahdanau, Cho and Bengio, 2015).

    Queries have Q numbers, places of the memory K, its hidden layer A;
    ``A * (Q + K + 2)`` parameters.
    """

    W_a: Tensor
    U_a: Tensor
    b_a: Tensor
    v_a: Tensor

    def __init__(self, query: int, keys: int, hidden: int, rng: np.random.Generator, dtype="float32"):
        super().__init__(dtype)
        positive(type(self).__name__, query=query, keys=keys, hidden=hidden)
        self.query, self.keys, self.hidden = int(query), int(keys), int(hidden)
        self.parameter("W_a", glorot(rng, (query, hidden)))
        self.parameter("U_a", glorot(rng, (keys, hidden)))
        self.parameter("b_a", np.zeros(hidden))
        self.parameter("v_a", glorot(rng, (hidden, 1))[:, 0])

    def memory(self, h, *, lengths=None, mask=None) -> Memory:
        """What is the same for all queries, made once from h (L, N, K).

        N may be 1: one memory for all sequences.  lengths (N,) or mask (L, N): which places are real.
        Raises ShapeError, DTypeError and InputError for what does not fit.
        """
        who = type(self).__name__
        h = h if isinstance(h, Tensor) else Tensor(h, name="memory")
        if len(h.shape) != 3 or h.shape[2] != self.keys:
            raise ShapeError(f"{who}: memory {describe(h)}; give (places, sequences, {self.keys})")
        if h.dtype != self.dtype:
            raise DTypeError(
                f"{who}: the memory is {h.dtype}, the layer {self.dtype}; convert one with .astype(…)"
            )
        L, N = h.shape[:2]
        real = steps_that_count(who, h, lengths, mask, L, N)
        if real is not None:
            real = as_tensor(real)
            there = real.reshape((L, N, 1))
            h = where(there, h, 0.0)  # a weight of 0 alone does not hide padding: 0 · NaN is NaN
            real = real.T
        h = h.transpose(1, 0, 2)
        return Memory(h, (h @ self.U_a + self.b_a).named("keys"), real)

    def __call__(self, s, memory: Memory) -> tuple[Tensor, Tensor]:
        """s (N, Q) → the context (N, K), a mean of the memory's places, and their weights alpha (N, L).

        Where no place is real both are zeros.  Raises ShapeError for a memory of another number of sequences.
        """
        s = as_tensor(s)
        (N, _), (M, L, _) = s.shape, memory.h.shape
        if isinstance(N, int) and isinstance(M, int) and M not in (1, N):
            raise ShapeError(
                f"{type(self).__name__}: the memory has {M} sequences, the query {describe(s)} has {N}"
            )
        scores = tanh((s @ self.W_a).reshape((N, 1, self.hidden)) + memory.keys) @ self.v_a
        alpha = softmax(scores, mask=memory.real).named("alpha")
        context = (alpha.reshape((N, 1, L)) @ memory.h).reshape((N, self.keys))
        return context.named("context"), alpha


class Memory:
    """What a decoder looks at: places h (N, L, K), their keys (N, L, A), and which are `real` (N, L) or None."""

    def __init__(self, h: Tensor, keys: Tensor, real: Tensor | None):
        self.h, self.keys, self.real = h, keys, real


class AttentionDecoder(Cell):
    """Any cell that, at every step, looks at a memory with the state before (Bahdanau, Cho and Bengio, 2015).

    kind : a class of cells.  The cell's input is the step's input (D) and the context (K) side by side.
    keys : how many numbers a place of the memory has: the `width` of what reads the source.
    attention : hidden units of the additive attention; default `hidden`.

    ``decoder.over(encoder(xs).h)`` is the decoder that looks at it; it runs like any cell, and has
    the cell's quantities and "context" (N, K) and "alpha" (N, L) at every step.  Parameters are called
    "attention.W_a", …, "cell.W_f", ….  Raises InputError, when it is run, without a memory to look at.
    """

    def __init__(
        self,
        kind: Callable[..., Cell],
        inputs: int,
        hidden: int,
        keys: int,
        rng: np.random.Generator,
        attention: int | None = None,
        dtype="float32",
    ):
        super().__init__(inputs, hidden, rng, dtype)
        positive(type(self).__name__, keys=keys)
        # How many numbers such a cell gives is known once there is one.
        query = kind(1, hidden, np.random.default_rng(0), dtype).width
        self.attention = AdditiveAttention(
            query, keys, hidden if attention is None else attention, rng, dtype
        )
        self.cell = kind(inputs + keys, hidden, rng, dtype)
        self.gates, self.state = f"alpha context {self.cell.gates}", self.cell.state
        self.memory: Memory | None = None

    def build(self, rng: np.random.Generator) -> None:
        """Its parameters are those of its parts."""

    def over(self, h, *, lengths=None, mask=None) -> AttentionDecoder:
        """The same decoder, with the same parameters, looking at h (L, N, K).

        N may be 1: one memory for all sequences.  lengths (N,) or mask (L, N): which places are real; the
        others get the weight 0.
        """
        other = copy.copy(self)
        other.memory = self.attention.memory(h, lengths=lengths, mask=mask)
        return other

    def seen_through(self, masks: Tensor) -> AttentionDecoder:
        """What `dropped` returns: the cell and the attention see the outputs before through masks (width,)."""
        W_a = (self.attention.W_a * masks.reshape((self.width, 1))).named("W_a")
        return copy_with(self, cell=dropped(self.cell, masks), attention=copy_with(self.attention, W_a=W_a))

    def step(self, x: Tensor, *state: Tensor, **beside: Tensor) -> dict[str, Tensor]:
        if self.memory is None:
            raise InputError(
                f"{type(self).__name__} has no memory to look at: run decoder.over(h), "
                "h (places, sequences, keys) being what an encoder gives"
            )
        context, alpha = self.attention(state[0], self.memory)
        return dict(alpha=alpha, context=context, **self.cell.step(concat(x, context), *state, **beside))

    def initial_state(self, sequences: int) -> tuple[Tensor, ...]:
        return self.cell.initial_state(sequences)

    @property
    def width(self) -> int:
        return self.cell.width
