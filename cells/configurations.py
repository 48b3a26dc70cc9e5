"""The sequence configurations: what of a sequence is read, and at which steps something is given.

Each is a function around ANY sequence layer, ``layer(xs (T, N, D)) → (T, N, layer.outputs)``, and an output
layer, ``output(h) → y``: both directions, stacks of cells, convolutions and attention alike.  A layer that has
states says so by a method ``run(xs, state, lengths=…)``, and one that sees what comes after a step by
``causal = False``.  On values the outputs of a recurrent layer are made step by step, so that a picture shows
from which step each comes; traced by `compile` all is one loop.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minigrad import (
    InputError,
    ShapeError,
    Tensor,
    as_tensor,
    concat,
    describe,
    no_grad,
    softmax,
    stack,
    tanh,
    where,
    zeros,
)
from minigrad.init import glorot

from .layer import Layer, positive
from .masks import steps_that_count


def many_to_many(
    layer: Callable, output: Callable, xs, *, delay: int = 0, state=None, lengths=None
) -> Tensor:
    """An output at every step, or from the step on that comes `delay` steps after the first.

    xs (T, N, D) → y (T − delay, N, K): with a delay the first output has seen delay + 1 inputs.
    state : the layer's states before the first step.
    lengths : (N,) where each sequence ends; what stands behind the end is not an answer.

    Raises InputError for a delay that leaves no step to answer at, and for a state that the layer does not have.
    """
    xs = as_tensor(xs)
    if not isinstance(delay, (int, np.integer)) or isinstance(delay, bool) or delay < 0:
        raise InputError(f"many_to_many: delay = {delay!r}; give a whole number of at least 0")
    T = xs.shape[0] if xs.shape else 0
    if (T if isinstance(T, int) else T.hint) <= delay:
        raise InputError(
            f"many_to_many: a delay of {delay} steps leaves no step to answer at in a sequence of {describe(xs)}; "
            f"give at least {delay + 1} steps, e.g. blanks behind the sequence"
        )
    xs[int(delay)]  # there must be such a step, also at later calls of what is compiled
    return _outputs(layer, output, xs, int(delay), state, lengths)


def many_to_one(layer: Callable, output: Callable, xs, *, state=None, lengths=None) -> Tensor:
    """One output for a whole sequence, after its last step: xs (T, N, D) → y (N, K).

    With `lengths` (N,) that is each sequence's last real step.  A layer in both directions gives what either
    direction has read last.  Raises InputError for a state that the layer does not have, and, where the layer
    has no states, for a sequence of no steps.
    """
    if hasattr(layer, "run"):
        return output(layer.run(xs, state, lengths=lengths).last).named("y")
    _stateless(layer, state)
    xs = as_tensor(xs)
    h = layer(xs)
    return output(h[-1] if lengths is None else _last_real(layer, h, xs, lengths)).named("y")


def one_to_many(layer: Callable, output: Callable, first, given, *, state=None) -> Tensor:
    """A sequence from one input: first (N, D) and given (T − 1, N, D) → y (T, N, K).

    first : what the sequence is made from; None for zeros, when `state` tells it (see `FirstState`).
    given : the inputs of the later steps.  In training they are the outputs that should have come so far
        (teacher forcing: Williams and Zipser, 1989); `generate` feeds back those that came.

    Raises InputError for a layer that sees what comes after a step, ShapeError for shapes that do not fit.
    """
    _causal("one_to_many", layer)
    given = as_tensor(given)
    first = zeros(given.shape[1:], given.dtype.name) if first is None else as_tensor(first)
    if given.ndim != 3 or tuple(first.shape) != tuple(given.shape[1:]):
        raise ShapeError(
            f"one_to_many: first {describe(first)} and given {describe(given)}; give (N, D) and (T − 1, N, D)"
        )
    if hasattr(layer, "run") and not (first.is_symbol or given.is_symbol):
        return _outputs(layer, output, [first, *given], 0, state)
    return _outputs(layer, output, concat(first.reshape((1, *first.shape)), given, axis=0), 0, state)


def generate(
    layer: Callable, output: Callable, first, length: int, *,
    feed: Callable | None = None, choose: Callable | None = None, state=None,
) -> np.ndarray:  # fmt: skip
    """Let a layer write: each output is chosen and fed back.  Returns whole numbers (length, N).

    first : the one input (N, D), or several (T, N, D), of which the last is answered first.
    feed : from what was chosen (N,) to the next input (N, D); default: one-hot rows.
    choose : from logits (N, K) to whole numbers (N,); default: the most likely.  See `by_probability`.

    A layer with states carries them from step to step; any other reads again all that was written.
    Raises InputError for a layer that sees what comes after a step.
    """
    _causal("generate", layer)
    positive("generate", length=length)
    first = np.asarray(first.value if isinstance(first, Tensor) else first)
    if first.ndim not in (2, 3) or not first.shape[0]:
        raise ShapeError(f"generate: first has shape {first.shape}; give (N, D), or (T, N, D)")
    seen = first if first.ndim == 3 else first[None]
    new, D, written = seen, first.shape[-1], []
    with no_grad():
        for _ in range(length):
            if hasattr(layer, "run"):
                run = layer.run(new, state)
                h, state = run.last, run.state
            else:
                _stateless(layer, state)
                h = layer(as_tensor(seen))[-1]
            logits = output(h).value
            written.append(logits.argmax(axis=-1) if choose is None else choose(logits))
            new = (
                _rows(written[-1], logits.shape[-1], D, first.dtype) if feed is None else feed(written[-1])
            )[None]
            if not hasattr(layer, "run"):
                seen = np.concatenate([seen, new])
    return np.stack(written)


def by_probability(rng: np.random.Generator, temperature: float = 1.0) -> Callable:
    """For `generate`: draw from softmax(logits / temperature); below 1 it is bolder, above 1 more varied."""
    if not temperature > 0:
        raise InputError(f"by_probability: temperature = {temperature!r}; give a number above 0")

    def choose(logits: np.ndarray) -> np.ndarray:
        p = softmax(logits.astype(np.float64) / temperature).value.cumsum(axis=-1)
        drawn = rng.random((*p.shape[:-1], 1)) * p[..., -1:]
        return (p <= drawn).sum(axis=-1)

    return choose


class FirstState(Layer):
    """First states of a recurrent layer made from one input (N, C), e.g. a class: tanh of a product for each.

    Called with the input it gives the states, for `one_to_many` and `generate`; parameters "W_1", "W_2", …
    """

    def __init__(self, layer, inputs: int, rng: np.random.Generator):
        super().__init__(layer.dtype)
        positive(type(self).__name__, inputs=inputs)
        for k, s in enumerate(layer.initial_state(1), 1):
            self.parameter(f"W_{k}", glorot(rng, (inputs, s.shape[1])))

    def __call__(self, x) -> tuple[Tensor, ...]:
        return tuple(tanh(as_tensor(x) @ W) for W in self.parameters().values())


def _outputs(layer, output, xs, delay: int = 0, state=None, lengths=None) -> Tensor:
    """y (T − delay, N, K): step by step where the steps are there, else for all at once."""
    if not hasattr(layer, "run"):
        _stateless(layer, state)
        return output(layer(xs)[delay:]).named("y")
    run = layer.run(xs, state, lengths=lengths)
    if run.steps:
        return stack([output(h).named("y") for h in run.each[delay:]])
    return output(run.outputs[delay:]).named("y")


def _last_real(layer, h: Tensor, xs: Tensor, lengths) -> Tensor:
    """(N, H) of h (T, N, H) at each sequence's last real step."""
    who = type(layer).__name__
    T, N = xs.shape[:2]
    real = as_tensor(steps_that_count(who, xs, lengths, None, T, N))
    if not real.is_symbol and not real.value.any(axis=0).all():
        n = int(np.argmin(real.value.any(axis=0)))
        raise InputError(f"{who}: sequence {n} has length 0 and so no last step; leave it out")
    later = concat(real[1:], zeros((1, N), "bool"), axis=0)
    last = where(later, False, real).reshape((T, N, 1))
    return where(last, h, 0.0).sum(axis=0)


def _rows(chosen: np.ndarray, K: int, D: int, dtype) -> np.ndarray:
    """One-hot rows (N, D); what was chosen is a number below K."""
    if K > D:
        raise InputError(
            f"generate: {K} outputs do not fit into the layer's {D} inputs; say with `feed` how to feed back"
        )
    return np.eye(D, dtype=dtype if dtype.kind == "f" else "float32")[chosen]


def _causal(who: str, layer) -> None:
    if not getattr(layer, "causal", True):
        raise InputError(
            f"{who}: {type(layer).__name__} sees what comes after a step, so it would read the answer; "
            "use a layer that reads forward only"
        )


def _stateless(layer, state) -> None:
    if state is not None:
        raise InputError(f"{type(layer).__name__} has no states, so none can be given")
