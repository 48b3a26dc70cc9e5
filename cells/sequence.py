"""One way to run anything over a sequence: ``layer(xs, …)``, or ``run(layer, xs, …)``, gives a `Run`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from minigrad import InputError, ShapeError, Tensor, as_tensor, describe, scope, where

from .layer import Layer
from .masks import step_numbers, steps_that_count
from .recurrence import joined, recur
from .steps import Run


def run(layer, xs, state=None, **options) -> Run:
    """Run a layer over xs (T, N, D); for a layer of ours the same as ``layer(xs, state, …)``.

    layer : a cell, stack, both directions, TCN, Transformer, attention decoder; a class of your own with a
        `step`; or any function or layer from xs to outputs (T, N, …).
    xs : (T, N, D), or a sequence of T tensors (N, D).
    state : the states before the first step, in the order of ``layer.state`` or by name, each as
        ``layer.initial_state(N)`` has it; default that.  One of a single row (1, …) is taken for all sequences,
        and learns where it requires a gradient.  A detached one lets go of its history (`Tensor.detach`).
    output : an output layer; the run then also has y = output(h) of the outputs.
    label : a scope around the steps, e.g. "encoder".
    reverse : read the sequence from its end; the steps stay in the order of time.
    lengths : (N,) whole numbers 0 … T, where each sequence ends; or
    mask : (T, N) booleans, True where a step is real.  Elsewhere the inputs count as 0, and states are
        carried through; outputs of a layer without states are 0 there.
    truncate : let no gradient flow further back than to the last cut; cuts are `truncate` steps apart.
    dropout : masks of a stack, TCN or Transformer, from its `dropout_masks`.
    others : inputs beside x that the cell's step takes by name, ``run(cell, xs, keep=…, t=…)``: one row a step,
        (T, N, …), (T, 1, …) for what all sequences share, or (T,) for a number a step.  In a stack and in both
        directions every cell gets those that it takes.

    On values every step is unrolled: step t (from 1 to T) is in scope "t=…"; the first states are in
    "t=0", or behind the last step when it is read from its end.  Traced by `compile` it is one scan, where
    lengths that are arguments cannot be compared with T: beyond T they count as T.

    Raises ShapeError and DTypeError, naming the step or the argument, for what does not fit, and InputError
    for an empty sequence, impossible lengths, an option that the layer has no use for, and a step that
    returns something else than its named quantities.
    """
    if isinstance(layer, type) or not (callable(layer) or hasattr(layer, "step")):
        raise InputError(
            f"run: {layer!r} cannot be run; give a layer, an object with a step, or a function of xs"
        )
    if not callable(layer):
        return recur(layer, xs, state, **options)
    given = {name: a for name, a in {"state": state, **options}.items() if a is not None}
    names = _keywords(layer)
    if names is None:
        found = layer(xs, **given)
        if isinstance(found, Run):
            return found
        if given:
            raise InputError(
                f"{called(layer)}: it takes all options of a run, so it must return a Run, not an array"
            )
        return whole(layer, lambda x, real: found, xs)
    # `mask` alone may mean anything, such as what an attention may look at.
    handed = {n: given.pop(n) for n in list(given) if n in names and (n != "mask" or "lengths" in names)}
    if {"lengths", "mask"} & set(given) and not causal(layer):
        raise InputError(
            f"{called(layer)} sees what comes after a step and takes no lengths, so padding would change its outputs"
        )
    return whole(layer, lambda x, real: layer(x, **handed), xs, **given)


def whole(
    layer, outputs_of: Callable, xs, state=None, *, output: Callable | None = None, label: str = "",
    lengths=None, mask=None, **others,
) -> Run:  # fmt: skip
    """The run of a layer that reads all steps at once: ``outputs_of(x, real)`` gives h (T, N, …).

    real : which steps are (T, N), or None where all are; where not, x is 0 already, and h becomes 0.
    Raises InputError for options that need states.
    """
    who = called(layer)
    if state is not None:
        raise InputError(f"{who} has no states, so none can be given")
    if others:
        remedy = "; give it xs[::-1]" if "reverse" in others else ""
        raise InputError(
            f"{who}: it takes no {', '.join(others)}, as it has neither steps nor states{remedy}"
        )
    xs = joined(xs)
    x = xs if isinstance(xs, Tensor) else Tensor(xs, name="x")
    if len(x.shape) < 2:
        raise ShapeError(f"{who}: x {describe(x)}; give (steps, sequences, …)")
    T, N = x.shape[:2]
    real = steps_that_count(who, x, lengths, mask, T, N)
    if real is not None:
        real = as_tensor(real)
        x = where(_along(real, x), x, 0.0 if x.dtype.kind == "f" else 0)
    with scope(*filter(None, [label])):
        h = outputs_of(x, real)
        if isinstance(h, Run):
            return _with_output(who, h, real, output)
        h = as_tensor(h)
        if len(h.shape) < 2 or tuple(h.shape[:2]) != (T, N):
            raise ShapeError(
                f"{who} gave {describe(h)} for x {describe(x)}; a layer gives (steps, sequences, …)"
            )
        if real is not None:
            h = where(_along(real, h), h, 0.0)
        if h.name is None:
            h.name = "h"
        quantities = {"h": h}
        if output is not None:
            quantities["y"] = _named(output(h))
    return WholeRun(quantities, who, real)


class WholeRun(Run):
    """A run without single steps: `last` is found where each sequence ends."""

    def __init__(self, quantities: dict[str, Tensor], who: str, real: Tensor | None):
        super().__init__(quantities)
        self._who, self._real = who, real

    @property
    def last(self) -> Tensor:
        return self.outputs[-1] if self._real is None else _last_real(self._who, self.outputs, self._real)


def causal(layer) -> bool:
    """Whether no output depends on a later step: what the layer says, else what the layers in it say."""
    if hasattr(layer, "causal"):
        return layer.causal
    inside = list(vars(layer).values()) if isinstance(layer, Layer) else []
    for value in inside:
        inside += (
            value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else []
        )
    return all(causal(part) for part in inside if isinstance(part, Layer))


def called(layer) -> str:
    return layer.__name__ if inspect.isfunction(layer) else type(layer).__name__


def _with_output(who: str, found: Run, real, output) -> Run:
    """What a layer of the caller's own gave, which runs others inside."""
    if real is not None:
        raise InputError(
            f"{who}: it takes no lengths or mask to hand on; write __call__(self, xs, **options)"
        )
    if output is not None:
        found.add("y", _named(output(found.outputs)))
    return found


def _named(y: Tensor) -> Tensor:
    return y if y.name else y.named("y")


def _along(real: Tensor, like: Tensor) -> Tensor:
    """(T, N) with as many axes as `like` (T, N, …) has."""
    return real.reshape((*real.shape, *(1,) * (len(like.shape) - 2)))


def _last_real(who: str, h: Tensor, real: Tensor) -> Tensor:
    """(N, …) of h (T, N, …) at each sequence's last real step."""
    if not real.is_symbol and not real.value.any(axis=0).all():
        n = int(np.argmin(real.value.any(axis=0)))
        raise InputError(f"{who}: sequence {n} has length 0 and so no last step; leave it out")
    t = step_numbers(real)
    last = t == where(real, t, -1).max(axis=0)  # a mask may have gaps
    return where(_along(last, h), h, 0.0).sum(axis=0)


def _keywords(layer) -> frozenset[str] | None:
    """What may be given by name to a layer beside xs; None: all options."""
    return _of_call(type(layer).__call__, 2) if isinstance(layer, Layer) else _of_call.__wrapped__(layer, 1)


@lru_cache(256)
def _of_call(function: Callable, skipped: int) -> frozenset[str] | None:
    try:
        given = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # such as a function of NumPy's
        return frozenset()
    if any(p.kind is p.VAR_KEYWORD for p in given):
        return None
    return frozenset(p.name for p in given[skipped:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
