"""The training loop that examples, benchmarks and comparisons share: `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .errors import NonFiniteError
from .optim import Adam, Optimiser, clip_by_norm


def fit(
    loss: Callable,
    parameters,
    batches: Iterable[tuple],
    *,
    lr: float = 1e-3,
    clip: float = 1.0,
    optimiser: Optimiser | None = None,
    watch: Callable[[int, float], object] | None = None,
) -> np.ndarray:
    """One optimiser step per batch; returns the losses (steps,).

    loss : a function of a batch's arrays that returns one number, or a tuple that begins with it;
        compiled unless it already is (`minigrad.compile`).
    parameters : tensors, or a dict of them, that are moved.
    batches : tuples of the arguments of `loss`; the training ends with them.
    lr, clip : Adam's learning rate, and the greatest joint norm of the gradients.
    optimiser : in place of Adam; it has its own parameters and rate.
    watch : called after each step with its number, from 1, and its loss; to stop, return True.

    Ctrl-C passes through; the parameters keep what they have learned.  Raises NonFiniteError, naming the
    step, when the loss or a gradient is not finite; the parameters are then those of the step before.
    """
    from .compiler import Compiled, compile  # Numba is imported when it is first needed

    step_of = loss if isinstance(loss, Compiled) else compile(loss)
    optimiser = Adam(parameters, lr) if optimiser is None else optimiser
    losses = []
    for number, batch in enumerate(batches, 1):
        optimiser.zero_grad()
        result = step_of.backward(*batch)
        value = float(result[0] if isinstance(result, tuple) else result)
        if not np.isfinite(value):
            raise NonFiniteError(f"fit: the loss of step {number} is {value}; use a smaller learning rate")
        clip_by_norm(optimiser.parameters, clip)
        optimiser.step()
        losses.append(value)
        if watch is not None and watch(number, value):
            break
    return np.array(losses)
