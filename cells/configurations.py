"""The sequence configurations: what of a sequence is read, and at which steps something is given.

Each is a function around ANY layer that `run` takes, a cell, stack, both directions, convolutions and attention
alike, a function of your own too, and an output layer, ``output(h) → y``.  A layer that sees what comes after a
step says so by ``causal = False``.  Options are those of `run`: lengths, mask, inputs beside x, ….

On values the outputs of a recurrent layer are made step by step, so that a picture shows from which step each
comes; traced by `compile` all is one loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minigrad import (
    InputError,
    NonFiniteError,
    ShapeError,
    Tensor,
    as_tensor,
    concat,
    describe,
    log_softmax,
    no_grad,
    softmax,
    stack,
    tanh,
    zeros,
)
from minigrad.init import glorot

from .layer import Layer, positive
from .recurrence import first_states, joined, state_names
from .sequence import called, causal, run
from .steps import Run


def many_to_many(layer, output: Callable, xs, *, delay: int = 0, state=None, **options) -> Tensor:
    """An output at every step, or from the step on that comes `delay` steps after the first.

    xs (T, N, D) → y (T − delay, N, K): with a delay the first output has seen delay + 1 inputs.
    state : the layer's states before the first step.
    options : those of `run`; what stands behind the end of a sequence with `lengths` is not an answer.

    Raises InputError for a delay that leaves no step to answer at, and what `run` raises.
    """
    xs = as_tensor(joined(xs))
    if not isinstance(delay, (int, np.integer)) or isinstance(delay, bool) or delay < 0:
        raise InputError(f"many_to_many: delay = {delay!r}; give a whole number of at least 0")
    T = xs.shape[0] if xs.shape else 0
    if (T if isinstance(T, int) else T.hint) <= delay:
        raise InputError(
            f"many_to_many: a delay of {delay} steps leaves no step to answer at in a sequence of {describe(xs)}; "
            f"give at least {delay + 1} steps, e.g. blanks behind the sequence"
        )
    xs[int(delay)]  # there must be such a step, also at later calls of what is compiled
    return _outputs(run(layer, xs, state, **options), output, int(delay))


def many_to_one(layer, output: Callable, xs, *, state=None, **options) -> Tensor:
    """One output for a whole sequence, after its last step: xs (T, N, D) → y (N, K).

    options : those of `run`; with `lengths` (N,) it is each sequence's last real step.
    A layer in both directions gives what either direction has read last.  Raises what `run` raises, and, where
    the layer has no states, InputError for a sequence of no steps.
    """
    return output(run(layer, xs, state, **options).last).named("y")


def one_to_many(layer, output: Callable, first, given, *, state=None, **options) -> Tensor:
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
    traced = first.is_symbol or given.is_symbol
    xs = concat(first.reshape((1, *first.shape)), given, axis=0) if traced else [first, *given]
    return _outputs(run(layer, xs, state, **options), output)


def generate(
    layer, output: Callable, first, length: int, *,
    feed: Callable | None = None, choose: Callable | None = None, state=None,
) -> np.ndarray:  # fmt: skip
    """Let a layer write: each output is chosen and fed back.  Returns whole numbers (length, N).

    first : the one input (N, D), or several (T, N, D), of which the last is answered first.
    feed : from what was chosen (N,) to the next input (N, D); default: one-hot rows.
    choose : from logits (N, K) to whole numbers (N,); default: the most likely.  See `by_probability`.

    A layer with states carries them from step to step; any other reads again all that was written.
    Raises InputError for a layer that sees what comes after a step and a length below 1, ShapeError for a `first` of
    another shape.
    """
    _causal("generate", layer)
    positive("generate", length=length)
    seen = new = _first_inputs("generate", first)
    written: list[np.ndarray] = []
    with no_grad():
        for _ in range(length):
            made = run(layer, new if state is not None else seen, state)
            logits = output(made.last).value
            written.append(logits.argmax(axis=-1) if choose is None else choose(logits))
            new = _fed_back("generate", written[-1], logits.shape[-1], seen, feed)
            state = made.state or None
            if state is None:
                seen = np.concatenate([seen, new])
    return np.stack(written)


def beam_search(
    layer, output: Callable, first, length: int, width: int, *,
    feed: Callable | None = None, state=None, end: int | None = None, length_penalty: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Let a layer write the most probable: at every step the `width` best beginnings are kept (Lowerre, 1976).

    Returns whole numbers (width, length, N), the best first, and the logarithms of their probabilities (width, N):
    sums over the symbols, as float64.  There are fewer where not so many can be written.

    first, feed, state : as in `generate`, which writes the same for a width of 1, unless there is an `end`.
    end : the symbol behind which nothing more is written; the rest of a sequence is filled with it.
    length_penalty : the best are those with the largest sum / (number of symbols) ** length_penalty, the end among
        the symbols; 0 compares the sums, which are larger for short sequences, and 1 their means.

    Each beginning is a run of its own of N sequences, so that what a layer keeps for each sequence, such as the
    memory of a decoder, may stay as it is.  Raises what `generate` raises, InputError for an `end` that is none of
    the outputs, and NonFiniteError where the outputs have no probabilities.
    """
    who = "beam_search"
    _causal(who, layer)
    positive(who, length=length, width=width)
    if not isinstance(length_penalty, (int, float)) or not math.isfinite(length_penalty):
        raise InputError(f"{who}: length_penalty = {length_penalty!r}; give a finite number, e.g. 0 or 1")
    seen = _first_inputs(who, first)
    N = seen.shape[1]
    beams = Beams(
        np.zeros((1, 0, N), np.int64), np.zeros((1, N)), np.zeros((1, N), np.int64), np.zeros((1, N), bool)
    )
    now = [(seen, state)]  # what each of the beams reads, and the states before
    with no_grad():
        for t in range(length):
            runs = [run(layer, x, states) for x, states in now]
            log_p = np.stack([_log_probabilities(who, t, output(made.last)) for made in runs])
            beams, parent = beams.longer(
                log_p, width, _checked_end(who, end, log_p.shape[-1]), length_penalty
            )
            new = [_fed_back(who, k, log_p.shape[-1], seen, feed) for k in beams.written[:, -1]]
            if runs[0].state:
                states = [
                    _picked([made.state[j].value for made in runs], parent) for j in range(len(runs[0].state))
                ]
                now = [(x, tuple(s[w] for s in states)) for w, x in enumerate(new)]
            else:
                before = _picked([x.swapaxes(0, 1) for x, _ in now], parent).swapaxes(1, 2)
                now = [(np.concatenate([before[w], x]), None) for w, x in enumerate(new)]
    return beams.written, beams.log_p


class Beams(NamedTuple):
    """The beginnings that a search keeps: symbols (W, t, N), logarithms of their probabilities (W, N), how many
    symbols count (W, N), and which have ended (W, N)."""

    written: np.ndarray
    log_p: np.ndarray
    lengths: np.ndarray
    ended: np.ndarray

    def longer(
        self, log_p: np.ndarray, width: int, end: int | None, length_penalty: float
    ) -> tuple[Beams, np.ndarray]:
        """The `width` best with one more symbol, of log-probability `log_p` (W, N, K), and the parent (W', N) of each.

        What has ended goes on as it is, by the symbol `end`.
        """
        W, N, K = log_p.shape
        ended = self.ended[:, None, :]
        possible = np.logical_not(ended) | (
            np.arange(K)[:, None] == (-1 if end is None else end)
        )  # (W, K, N)
        total = self.log_p[:, None, :] + np.where(ended, 0, log_p.swapaxes(1, 2))
        lengths = np.broadcast_to(self.lengths[:, None, :] + np.logical_not(ended), total.shape)
        score = total / lengths ** float(length_penalty)
        possible, total, lengths, score = (a.reshape(W * K, N) for a in (possible, total, lengths, score))
        count = min(width, int(possible.sum(axis=0).min()))
        best = np.lexsort((-score, np.logical_not(possible)), axis=0)[
            :count
        ]  # stable: of equal ones the first
        parent, symbol = np.divmod(best, K)
        n = np.arange(N)
        written = np.concatenate([self.written[parent, :, n].swapaxes(1, 2), symbol[:, None]], axis=1)
        return Beams(
            written, total[best, n], lengths[best, n], symbol == (-1 if end is None else end)
        ), parent


def by_probability(rng: np.random.Generator, temperature: float = 1.0) -> Callable:
    """For `generate`: draw from softmax(logits / temperature); below 1 it is bolder, above 1 more varied.

    Raises InputError for a temperature that is not above 0.
    """
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
    Raises InputError for inputs below 1, and for a layer without states.
    """

    def __init__(self, layer, inputs: int, rng: np.random.Generator):
        super().__init__(layer.dtype)
        positive(type(self).__name__, inputs=inputs)
        if not state_names(layer):
            raise InputError(f"{type(self).__name__}: {called(layer)} has no states; give a recurrent layer")
        self.shapes = [tuple(s.shape[1:]) for s in first_states(layer, 1)]
        for k, shape in enumerate(self.shapes, 1):
            self.parameter(f"W_{k}", glorot(rng, (inputs, math.prod(shape))))

    def __call__(self, x) -> tuple[Tensor, ...]:
        x = as_tensor(x)
        made = [tanh(x @ W) for W in self.parameters().values()]
        return tuple(
            s if len(shape) == 1 else s.reshape((x.shape[0], *shape))
            for s, shape in zip(made, self.shapes, strict=True)
        )


def _outputs(made: Run, output: Callable, delay: int = 0) -> Tensor:
    """y (T − delay, N, K): step by step where the steps are there, else for all at once."""
    if made.steps:
        return stack([output(h).named("y") for h in made.each[delay:]])
    return output(made.outputs[delay:]).named("y")


def _first_inputs(who: str, first) -> np.ndarray:
    """(T, N, D) of what is given: (N, D) or (T, N, D)."""
    first = np.asarray(first.value if isinstance(first, Tensor) else first)
    if first.ndim not in (2, 3) or not first.shape[0]:
        raise ShapeError(f"{who}: first has shape {first.shape}; give (N, D), or (T, N, D)")
    return first if first.ndim == 3 else first[None]


def _fed_back(who: str, chosen: np.ndarray, K: int, seen: np.ndarray, feed: Callable | None) -> np.ndarray:
    """The next input (1, N, D): one-hot rows unless `feed` says otherwise; what was chosen is a number below K."""
    if feed is not None:
        return feed(chosen)[None]
    D, dtype = seen.shape[-1], seen.dtype
    if K > D:
        raise InputError(
            f"{who}: {K} outputs do not fit into the layer's {D} inputs; say with `feed` how to feed back"
        )
    return np.eye(D, dtype=dtype if dtype.kind == "f" else "float32")[chosen][None]


def _log_probabilities(who: str, t: int, logits: Tensor) -> np.ndarray:
    """(N, K), as float64: many of them are added up."""
    log_p = log_softmax(logits.value.astype(np.float64)).value
    if np.isnan(log_p).any():
        n = int(np.argmax(np.isnan(log_p).any(axis=-1)))
        raise NonFiniteError(
            f"{who}: the outputs after {t} written symbols have no probabilities, as those of sequence {n} are not "
            "finite; look at the weights and at `first`"
        )
    return log_p


def _checked_end(who: str, end, K: int) -> int | None:
    whole = isinstance(end, (int, np.integer)) and not isinstance(end, bool)
    if end is not None and not (whole and 0 <= end < K):
        raise InputError(f"{who}: end = {end!r}; give one of the {K} outputs, 0 … {K - 1}, or None")
    return None if end is None else int(end)


def _picked(arrays: list[np.ndarray], parent: np.ndarray) -> np.ndarray:
    """For each of W' beams and N sequences the row (…) of its parent: from W arrays (N, …) to (W', N, …)."""
    return np.stack(arrays)[parent, np.arange(parent.shape[1])]


def _causal(who: str, layer) -> None:
    if not causal(layer):
        raise InputError(
            f"{who}: {called(layer)} sees what comes after a step, so it would read the answer; "
            "use a layer that reads forward only"
        )
