"""The training loop that examples, benchmarks and comparisons share: `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .errors import InputError, NonFiniteError
from .optim import Adam, Optimiser, clip_by_norm


def fit(
    loss: Callable,
    parameters,
    batches: Iterable[tuple],
    *,
    lr: float | Callable[[int], float] = 1e-3,
    clip: float = 1.0,
    optimiser: Optimiser | None = None,
    watch: Callable[[int, float], object] | None = None,
) -> np.ndarray:
    """One optimiser step per batch; returns the losses (steps,).

    loss : a function of a batch's arrays that returns one number, or a tuple that begins with it;
        compiled unless it already is (`minigrad.compile`).
    parameters : tensors, or a dict of them, that are moved.
    batches : tuples of the arguments of `loss`; the training ends with them.
    lr : Adam's learning rate, or a function that gives it for the number of the step, from 1.
    clip : the greatest joint norm of the gradients.
    optimiser : in place of Adam; it has its own parameters, and its own rate unless `lr` is a function.
    watch : called after each step with its number, from 1, and its loss; to stop, return True.

    Ctrl-C passes through; the parameters keep what they have learned.  Raises NonFiniteError, naming the
    step, when the loss or a gradient is not finite; the parameters are then those of the step before.
    """
    from .compiler import Compiled, compile  # Numba is imported when it is first needed

    step_of = loss if isinstance(loss, Compiled) else compile(loss)
    schedule = lr if callable(lr) else None
    if optimiser is None:
        optimiser = Adam(parameters, 1.0 if callable(lr) else lr)
    losses = []
    for number, batch in enumerate(batches, 1):
        if not isinstance(batch, (tuple, list)):
            raise InputError(
                f"fit: batch {number} is {type(batch).__name__}; give tuples of arguments of the loss"
            )
        if schedule is not None:
            optimiser.lr = _rate(schedule, number)
        optimiser.zero_grad()
        result = step_of.backward(*batch)
        value = float(result[0] if isinstance(result, (tuple, list)) else result)
        if not np.isfinite(value):
            raise NonFiniteError(f"fit: the loss of step {number} is {value}; use a smaller learning rate")
        try:
            clip_by_norm(optimiser.parameters, clip)
        except NonFiniteError as error:
            raise NonFiniteError(f"fit: step {number}: {error}; use a smaller learning rate") from None
        optimiser.step()
        losses.append(value)
        if watch is not None and watch(number, value):
            break
    return np.array(losses)


def _rate(schedule: Callable[[int], float], number: int) -> float:
    rate = float(schedule(number))
    if not 0 <= rate < np.inf:
        raise InputError(f"fit: the learning rate of step {number} is {rate}; give a number of at least 0")
    return rate
