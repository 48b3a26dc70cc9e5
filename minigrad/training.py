"""The training loop that examples, benchmarks and comparisons share: `fit`, and the file that it goes on from."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checkpoint
from .errors import InputError, NonFiniteError
from .optim import Adam, Optimiser

if TYPE_CHECKING:
    from numpy.random import Generator


def fit(
    loss: Callable,
    parameters,
    batches: Iterable[tuple],
    *,
    lr: float | Callable[[int], float] = 1e-3,
    clip: float = 1.0,
    optimiser: Optimiser | None = None,
    watch: Callable[[int, float], object] | None = None,
    resume: str | os.PathLike | None = None,
    save_every: int = 1000,
    rng: Generator | Mapping[str, Generator] | None = None,
    notes: Mapping[str, str] | None = None,
) -> np.ndarray:
    """One optimiser step per batch; returns the losses (steps,).

    loss : a function of a batch's arrays that returns one number, or a tuple that begins with it;
        compiled unless it already is (`minigrad.compile`).
    parameters : tensors, or a dict of them, that are moved.
    batches : tuples of the arguments of `loss`, arrays or e.g. dicts of arrays; the training ends with them.
    lr : Adam's learning rate, or a function that gives it for the number of the step, from 1.
    clip : the greatest joint norm of the gradients.
    optimiser : in place of Adam; it has its own parameters, and its own rate unless `lr` is a function.
    watch : called after each step with its number, from 1, and its loss; to stop, return True.
    resume : a file.  Where there is none the training starts, and the file is written then, every `save_every`
        steps, and at the end, be it by Ctrl-C or an error.  Where there is one the training goes on from it: the
        same program, started again, ends in the same bits as one that was never stopped.  For that, give the same
        `batches` from their beginning: those that were trained on are drawn and passed over.  Losses and the
        numbers of steps count from the beginning too.  A finished training is not trained again.
    rng : the random generator that batches, loss or `watch` draw from, or several by name.  After the batches
        that are passed over it goes on from its state in the file, whatever its seed was.
    notes : texts by name for the file; without them those in the file stay (``checkpoint.load(file).notes``).

    Ctrl-C passes through; the parameters keep what they have learned.  Raises NonFiniteError, naming the
    step, when the loss or a gradient is not finite; the parameters are then those of the step before.
    Raises what `checkpoint.load_training` raises for a file of another training; nothing is changed then.
    """
    from .compiler import TrainingStep  # LLVM is loaded when it is first needed

    schedule = lr if callable(lr) else None
    if optimiser is None:
        rate = 1.0 if callable(lr) else lr
        optimiser = Adam(parameters, rate)
        schedule = schedule or (lambda number: rate)  # also where the file behind `resume` has another
    step = TrainingStep(loss, optimiser, clip)
    with _Progress(optimiser, resume, save_every, rng, notes) as progress:
        for number, batch in progress.numbered(batches):
            if not isinstance(batch, (tuple, list)):
                raise InputError(
                    f"fit: batch {number} is {type(batch).__name__}; give tuples of arguments of the loss, "
                    "e.g. (batch,)"
                )
            if schedule is not None:
                optimiser.lr = _rate(schedule, number)
            optimiser.zero_grad()
            result = step.compute(*batch)
            value = float(result[0] if isinstance(result, (tuple, list)) else result)
            if not np.isfinite(value):
                raise NonFiniteError(
                    f"fit: the loss of step {number} is {value}; use a smaller learning rate"
                )
            try:
                progress.step(value, step.move)
            except NonFiniteError as error:
                raise NonFiniteError(f"fit: step {number}: {error}; use a smaller learning rate") from None
            if watch is not None and watch(number, value):
                break
    return np.array(progress.losses)


class _Progress:
    """Losses, and the file behind `resume`: what it holds is put back, and what was learned is written to it.

    However `fit` ends, the file gets the parameters, losses and generators of one and the same step: the
    optimiser's step count, which changes with the parameters, says which.
    """

    def __init__(self, optimiser: Optimiser, path, every: int, rng, notes):
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"fit: save_every = {every!r}; give a whole number of at least 1")
        self.optimiser, self.path, self.every, self.notes = optimiser, path, every, notes or {}
        self.generators = {} if path is None else checkpoint.generators(rng)
        self.losses: list[float] = []
        if path is not None and os.path.lexists(path):
            found = checkpoint.load_training(path, optimiser, rng=self.generators)
            self.losses = found.get("losses", np.empty(0)).tolist()
            self.notes = found.notes if notes is None else notes
        self.first = optimiser.steps - len(self.losses)
        self._mark()
        self.saved = -1
        self._save()  # what cannot be written is known before the training, not after

    def numbered(self, batches: Iterable[tuple]) -> Iterator[tuple[int, tuple]]:
        """The batches that are still to be trained on, and the numbers of their steps."""
        batches, done = iter(batches), len(self.losses)
        deque(islice(batches, done), maxlen=0)
        for name, state in self.states[self.optimiser.steps].items():
            self.generators[name].bit_generator.state = state
        for number, batch in enumerate(batches, done + 1):
            yield number, batch
            self._mark()
            if number % self.every == 0:
                self._save()

    def step(self, loss: float, move: Callable[[], None]) -> None:
        self.losses.append(loss)
        now = self.optimiser.steps
        self.states = {now: self.states[now], now + 1: self._states()}
        move()

    def _states(self) -> dict[str, Any]:
        return {name: generator.bit_generator.state for name, generator in self.generators.items()}

    def _mark(self) -> None:
        self.states = {
            self.optimiser.steps: self._states()
        }  # of the generators, by the optimiser's step count

    def _save(self) -> None:
        now = self.optimiser.steps
        if self.path is not None and now != self.saved:
            losses = {"losses": np.array(self.losses[: now - self.first], np.float64)}
            checkpoint.write_training(self.path, self.optimiser, self.states[now], losses, self.notes)
            self.saved = now

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self._mark()
        self._save()


def _rate(schedule: Callable[[int], float], number: int) -> float:
    rate = float(schedule(number))
    if not 0 <= rate < np.inf:
        raise InputError(f"fit: the learning rate of step {number} is {rate}; give a number of at least 0")
    return rate
