"""The training loop: `fit`, and the file that it goes on from.

What must stay together (the losses, the carried state, what was validated, the generators) is kept by the optimiser's
step count, which changes with the parameters: so neither Ctrl-C nor an error can come between the two.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import checkpoint
from .errors import InputError, NonFiniteError, first_bad
from .modes import no_grad
from .optim import Adam, Optimiser, assigned, commit, fitting
from .parallel import ALONE, Alone, ranks_of
from .progress import shown
from .scanning import flatten
from .tensor import Tensor, describe

if TYPE_CHECKING:
    from numpy.random import Generator

    from .compiler import TrainingStep


class Losses(np.ndarray):
    """The losses of all steps (steps,), an array, with what `fit` found on the data given to `validate`.

    `validated_at` are the numbers of the steps (k,) after which it looked, `validation` the losses there (k,), and
    `best` is the step of the smallest, 0 where there is none.
    """

    validated_at: np.ndarray
    validation: np.ndarray

    def __new__(cls, losses, validated: Iterable[tuple[int, float]] = ()):
        made = np.array(losses, np.float64).view(cls)
        found = list(validated)
        made.validated_at = np.array([step for step, _ in found], np.int64)
        made.validation = np.array([value for _, value in found], np.float64)
        return made

    def __array_finalize__(self, other) -> None:
        self.validated_at = getattr(other, "validated_at", np.zeros(0, np.int64))
        self.validation = getattr(other, "validation", np.zeros(0))

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return np.asarray(array)[()]  # what is computed of losses is an array or a number like any other

    @property
    def best(self) -> int:
        return int(self.validated_at[self.validation.argmin()]) if self.validation.size else 0


def fit(
    loss: Callable,
    parameters,
    batches: Iterable[tuple] | Callable[[int], Iterable[tuple]],
    *,
    lr: float | Callable[[int], float] = 1e-3,
    clip: float | None = 1.0,
    clip_value: float | None = None,
    optimiser: Optimiser | None = None,
    epochs: int | None = 1,
    steps: int | None = None,
    accumulate: int = 1,
    state=(),
    validate: Iterable[tuple] | Callable[[], float] | None = None,
    validate_every: int | None = None,
    patience: float | None = None,
    watch: Callable[[int, float], object] | None = None,
    progress: bool | None = None,
    resume: str | os.PathLike | None = None,
    save_every: int = 1000,
    rng: Generator | Mapping[str, Generator] | None = None,
    notes: Mapping[str, str] | None = None,
    comm=None,
) -> Losses:
    """Train: one optimiser step per batch; returns the losses (steps,), an array that also has what was validated.

    loss : a function of a batch's arrays that returns one number, or a tuple that begins with it;
        compiled unless it already is (`minigrad.compile`).
    parameters : tensors, or a dict of them, that are moved.
    batches : tuples of the arguments of `loss`, arrays or e.g. dicts of arrays; a list or another iterable, or a
        function that gives one for the number of the epoch, from 1.  The training ends with them.
    lr : Adam's learning rate, or a function that gives it for the number of the step, from 1.
    clip : the greatest joint norm of the gradients; None: any.
    clip_value : the greatest element of the gradients, before the norm is taken; None: any.
    optimiser : in place of Adam; it has its own parameters, and its own rate unless `lr` is a function.
    epochs : how often the batches are gone through; None: until `steps`, `patience` or `watch` end it.
    steps : no more than so many steps in all.
    accumulate : batches per step, whose gradients and losses are averaged; the last step of an epoch takes what is
        left.
    state : what is carried from batch to batch, e.g. the states of a cell over the windows of a long text: the first
        one, an array or a tuple of them.  The loss is called as ``loss(*batch, *state)`` and returns the loss and the
        next state, ``(loss, *state)``.  No gradient flows from batch to batch.  An epoch begins with the first state.
    validate : batches, of which the mean loss is taken after every epoch, and after the last step; or a function that
        returns a number to be made small.  The state that is carried through such batches begins with the first.
    validate_every : validate after every so many steps, rather than epochs.
    patience : end after so many validations without a smaller loss.  At the end the parameters are those of the
        smallest; ``math.inf``: that alone.
    watch : called after each step with its number, from 1, and its loss; to stop, return True.
    progress : True shows loss, rate and the time left on stderr, as a bar on a terminal and as lines elsewhere; None
        only the bar, False nothing.
    resume : a file.  Where there is none the training starts, and the file is written then, every `save_every`
        steps, and at the end, be it by Ctrl-C or an error.  Where there is one the training goes on from it: the
        same program, started again, ends in the same bits as one that was never stopped.  For that, give the same
        `batches` from their beginning: those that were trained on are drawn and passed over.  Losses and the
        numbers of steps count from the beginning too.  A finished training is not trained again.  The file has the
        last parameters, and with `patience` the best as well (``checkpoint.load(file, "tensors/best/")``).
    rng : the random generator that batches, loss, `validate` or `watch` draw from, or several by name.  After the
        batches that are passed over it goes on from its state in the file, whatever its seed was.
    notes : texts by name for the file; without them those in the file stay (``checkpoint.load(file).notes``).
    comm : an MPI communicator whose ranks train together, e.g. ``MPI.COMM_WORLD`` of mpi4py, or `Ranks` of it, which
        says how batches are shared out.  All ranks call `fit` with the same arguments and the same whole batches, and
        take their own sequences; all end with the same parameters and losses, those of one process to rounding.
        Parameters, the optimiser and `rng` begin as on rank 0, which alone reads and writes the file, shows progress,
        and calls `watch` and a function `validate`; batches to validate on are shared out, unless a state is
        carried.  An error or Ctrl-C on one rank ends all.  See docs/how/ranks.md.

    Ctrl-C passes through; the parameters keep what they have learned.  Raises NonFiniteError, naming the step, when
    the loss or a gradient is not finite, and where the data are not finite, batch, argument and place; the parameters
    are then those of the step before.  Raises InputError for options that make no sense, and what
    `checkpoint.load_training` raises for a file of another training; nothing is changed then.  With `comm` also
    InputError where ranks differ in what they were given, or where the loss of a batch is not made of those of its
    parts, and MinigradError where another rank has failed.
    """
    from .compiler import TrainingStep  # LLVM is loaded when it is first needed

    _check_counts(
        accumulate=accumulate,
        epochs=epochs,
        steps=steps,
        validate_every=validate_every,
        save_every=save_every,
    )
    first = tuple(state) if isinstance(state, (tuple, list)) else (state,)
    validate = validate if validate is None or callable(validate) else list(validate)
    _check_ends(batches, epochs, validate, validate_every, patience)
    schedule = lr if callable(lr) else None
    if optimiser is None:
        rate = 1.0 if callable(lr) else lr
        optimiser = Adam(parameters, rate)
        schedule = schedule or (lambda number: rate)  # also where the file behind `resume` has another
    step, ranks = TrainingStep(loss, optimiser, clip, clip_value), ranks_of(comm)
    total = _total(batches, epochs, steps, accumulate)
    with (
        ranks,
        _Record(optimiser, resume, save_every, rng, notes, first, ranks) as record,
        shown(progress if ranks.rank == 0 else False, total, len(record.losses)) as show,
    ):
        events = _events(batches, epochs, steps, accumulate, record.begin)
        for number, group in record.remaining(events, patience):
            if group:
                if schedule is not None:
                    optimiser.lr = _rate(schedule, number)
                value = _one_step(step, record, number, group)
                show(number, value, optimiser.lr)
            due = number % validate_every == 0 if validate_every else group is None
            if validate is not None and due and number > record.validated_last:
                record.judge(number, _validated(step, validate, first, number, record))
            if (
                group
                and watch is not None
                and record.on_first(lambda *told: bool(watch(*told)), number, value)
            ):
                break
        ranks.done(len(record.losses))
    if patience is not None:
        record.put_back_best()
    return Losses(record.losses, record.moment.validated)


def _one_step(step: TrainingStep, record: _Record, number: int, group: list) -> float:
    """Loss and gradients of one batch, or the means of several, and the step; returns the loss."""
    step.optimiser.zero_grad()
    ranks, now = record.ranks, _Batches(step, record, number, group)
    value = ranks.summed(step, number, now.part)
    if ranks.looks(number):
        ranks.compare(now.names[0], step, now.batches[0], record.moment.state, now.first)
    try:
        record.step(value, now.states, step.move)
    except NonFiniteError as error:
        raise NonFiniteError(f"fit: step {number}: {error}{now.blame()}") from None
    return value


class _Batches:
    """The batches of one step, of which each part of this process is computed by itself."""

    def __init__(self, step: TrainingStep, record: _Record, number: int, group: list):
        self.step, self.ranks, self.number = step, record.ranks, number
        self.names = [
            f"batch {number}" if len(group) == 1 else f"batch {k} of step {number}"
            for k in range(1, len(group) + 1)
        ]
        self.batches = [_arguments("fit", name, b) for name, b in zip(self.names, group, strict=True)]
        self.shares = [
            self.ranks.own(name, batch, step.loss.function)
            for name, batch in zip(self.names, self.batches, strict=True)
        ]
        self.states = [*record.moment.state]  # of each part, as the batch before has left it
        self.first = 0.0  # what these parts have added to the loss of the first batch
        self.last: tuple = "", ()  # the batch that was computed last, and what the loss was given

    def part(self, k: int) -> list[float]:
        """Compute the k-th part of all batches; returns what it adds to the loss, its weight, and that of the whole."""
        step, count, total, added = self.step, len(self.batches), None, []
        for name, batch, shares in zip(self.names, self.batches, self.shares, strict=True):
            share, state = shares[k], self.states[k]
            self.last = name, (*batch, *state)
            result = step.compute(*share.arguments, *state)
            value = _number(result)
            if not math.isfinite(value) and share.weight:
                raise NonFiniteError(f"fit: the loss of step {self.number} is {value}{self.blame()}")
            self.ranks.refuse_counts(name, step, share)
            self.states[k] = _next_state(result, state)
            if share.weight != 1:
                value = share.weight and value * share.weight
                step.scale(share.weight)
            added.append(value)
            if count > 1:
                total = step.average(total, count if len(added) == count else None)
        self.first += added[0]
        weights = (
            sum(shares[k].weight for shares in self.shares),
            sum(shares[k].of_all for shares in self.shares),
        )
        return [sum(added) / count, *weights]

    def blame(self) -> str:
        """Where numbers that are not finite come from."""
        return _blame(self.step, *self.last)


def _validated(
    step: TrainingStep, validate: list | Callable[[], float], first: tuple, number: int, record: _Record
) -> float:
    """The mean loss of the batches, or what the function returns."""
    if callable(validate):
        value = record.on_first(lambda: float(validate()))
        if math.isnan(value):
            raise NonFiniteError(f"fit: validate returned nan after step {number}")
        return value

    def one(k: int, state: tuple = ()) -> tuple[float, tuple]:
        name = f"batch {k + 1} of validate"
        given = (*_arguments("fit", name, validate[k]), *state)
        with no_grad():
            result = step.loss(*given)
        value = _number(result)
        if not math.isfinite(value):
            raise NonFiniteError(
                f"fit: the loss of {name} is {value} after step {number}{_blame(step, name, given)}"
            )
        return value, _next_state(result, state)

    def in_turn() -> list[float]:
        values, state = [], first
        for k in range(len(validate)):
            value, state = one(k, state)
            values.append(value)
        return values

    ranks = record.ranks
    values = ranks.first(in_turn) if first else ranks.each(lambda k: one(k)[0], len(validate))
    return sum(values) / len(values)


def _arguments(who: str, name: str, batch) -> tuple | list:
    if not isinstance(batch, (tuple, list)):
        raise InputError(
            f"{who}: {name} is {type(batch).__name__}; give tuples of arguments of the loss, e.g. (batch,)"
        )
    return batch


def _number(result) -> float:
    return float(result[0] if isinstance(result, (tuple, list)) else result)


def _next_state(result, state: tuple) -> tuple:
    """What the loss returned behind its value, in place of the state that it was given."""
    if not state:
        return ()
    after = tuple(result[1:]) if isinstance(result, (tuple, list)) else ()
    if len(after) != len(state):
        raise InputError(
            f"fit: the loss was given {len(state)} carried states and returned {len(after)}; return (loss, *states)"
        )
    leaves, rebuild = flatten(after)
    return rebuild([np.asarray(x.value if isinstance(x, Tensor) else x) for x in leaves])


def _blame(step: TrainingStep, name: str, given: tuple) -> str:
    """Where numbers that are not finite come from, as the end of a sentence, with a remedy."""
    loss = step.loss.function
    try:
        named = [
            p.name for p in inspect.signature(loss).parameters.values() if p.kind is not p.VAR_POSITIONAL
        ]
    except (TypeError, ValueError):  # a callable without a signature
        named = []
    for k, argument in enumerate(given):
        which = repr(named[k]) if k < len(named) else f"number {k + 1}"
        for path, leaf in _leaves(argument):
            value = np.asarray(leaf.value if isinstance(leaf, Tensor) else leaf)
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                return f": in {name} the argument {which}{path} is {first_bad(value)}; clean or mask the data"
    for p in step.optimiser.parameters:
        if not np.isfinite(p.value).all():
            return f": {describe(p)} itself is {first_bad(p.value)}; start with finite weights"
    return "; use a smaller learning rate"


def _leaves(tree, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, part in tree.items():
            yield from _leaves(part, f"{path}[{key!r}]")
    elif isinstance(tree, (tuple, list)) and not all(isinstance(x, (int, float)) for x in tree):
        for k, part in enumerate(tree):
            yield from _leaves(part, f"{path}[{k}]")
    else:
        yield path, tree


def _check_counts(**counts) -> None:
    for name, count in counts.items():
        optional = name not in ("accumulate", "save_every")
        least = 0 if name == "steps" else 1
        if optional and count is None:
            continue
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < least:
            raise InputError(f"fit: {name} = {count!r}; give a whole number of at least {least}")


def _check_ends(batches, epochs, validate, validate_every, patience) -> None:
    if not callable(batches) and epochs != 1 and iter(batches) is batches:
        raise InputError(
            f"fit: the batches can be gone through once, and epochs = {epochs}; give a list, or a function of the epoch "
            "that returns them"
        )
    if validate == []:
        raise InputError("fit: validate has no batches; give at least one")
    if validate is None and (patience is not None or validate_every is not None):
        raise InputError(
            "fit: patience and validate_every need validate: batches, or a function that returns a number"
        )
    if patience is not None and not patience >= 1:
        raise InputError(f"fit: patience = {patience}; give a number of at least 1")


def _events(batches, epochs, steps, accumulate, begin: Callable[[int], None]) -> Iterator[list | None]:
    """The batches of every step, and None at the end of every epoch; begin : called with the epoch before it."""
    number = epoch = 0
    while (epochs is None or epoch < epochs) and (steps is None or number < steps):
        epoch, before = epoch + 1, number
        begin(epoch)
        one: Iterator = iter(batches(epoch) if callable(batches) else batches)  # type: ignore[call-overload]
        while steps is None or number < steps:  # no batch is drawn that is not needed
            group = list(islice(one, accumulate))
            if not group:
                break
            number += 1
            yield group
        if number == before:  # nothing is left, and will not be
            return
        yield None


def _total(batches, epochs, steps, accumulate) -> int | None:
    """How many steps there are, where that is known."""
    try:
        found = math.inf if callable(batches) or epochs is None else -(-len(batches) // accumulate) * epochs
    except TypeError:
        found = math.inf
    found = min(found, math.inf if steps is None else steps)
    return None if math.isinf(found) else int(found)


class Moment(NamedTuple):
    """What goes with the parameters after a step."""

    generators: dict[str, Any]
    state: list[tuple]  # what is carried, by parts of a batch
    epoch: int = 0
    generators_then: dict[str, Any] | None = (
        None  # at the beginning of the epoch: its batches may be drawn again
    )
    validated: tuple[tuple[int, float], ...] = ()  # step and loss of each validation
    best: list | None = None  # the values of the parameters at the smallest


class _Record:
    """Losses and moments, and the file behind `resume`: what it holds is put back, and what was learned is written.

    However `fit` ends, the file gets the parameters, losses and moment of one and the same step: the optimiser's step
    count, which changes with the parameters, says which.
    """

    def __init__(
        self, optimiser: Optimiser, path, every: int, rng, notes, first: tuple, ranks: Alone = ALONE
    ):
        self.optimiser, self.path, self.every, self.notes = optimiser, path, every, notes or {}
        self.generators = {} if path is None and ranks is ALONE else checkpoint.generators(rng)
        self.losses: list[float] = []
        self.first, self.ranks = first, ranks
        moment = Moment({}, [first])
        if path is not None and ranks.rank == 0 and os.path.lexists(path):
            moment = self._load(notes)
        if ranks is not ALONE:
            ranks.steps = lambda: optimiser.steps
            moment = self._as_on_first(moment)
        self.first = ranks.own_state(self.first)
        moment = moment._replace(state=ranks.own_state(moment.state[0]))
        self.start = optimiser.steps - len(self.losses)
        self.moments = {optimiser.steps: moment._replace(generators=self._positions())}
        self.saved = -1
        self._save()  # what cannot be written is known before the training, not after

    def _load(self, notes) -> Moment:
        leaves, rebuild = flatten(self.first)
        own = {str(k): np.asarray(x.value if isinstance(x, Tensor) else x) for k, x in enumerate(leaves)}
        changes, found = checkpoint.training_from(self.path, self.optimiser, self.generators)
        known = {name.removeprefix("state/"): a for name, a in found.items() if name.startswith("state/")}
        known = fitting(f"fit: the carried state in {str(self.path)!r:.200}", known, own)
        commit(changes)
        self.losses = found.get("losses", np.empty(0)).tolist()
        self.notes = found.notes if notes is None else notes
        validated = tuple(
            (int(step), value) for step, value in found.get("validation", np.empty((0, 2))).tolist()
        )
        best = [found[f"best/{n}"] for n in self.optimiser.labels if f"best/{n}" in found]
        then = json.loads(found["epoch rng"].tobytes()) if "epoch rng" in found else {}
        epoch = int(found.get("epoch", 0))
        return Moment({}, [rebuild([known[name] for name in own])], epoch, then, validated, best or None)

    def _as_on_first(self, moment: Moment) -> Moment:
        """Let all ranks begin with what rank 0 has; returns the moment."""
        optimiser, ranks = self.optimiser, self.ranks
        values = [p.value for p in optimiser.parameters]
        told = (values, optimiser.state_dict(), self._positions(), moment, self.losses, dict(self.notes))
        values, slots, positions, moment, self.losses, self.notes = ranks.first(lambda: told)
        if ranks.rank:
            own = dict(zip(optimiser.labels, optimiser.parameters, strict=True))
            found = fitting(
                "fit: the parameters of rank 0",
                dict(zip(own, values, strict=True)),
                {n: p.value for n, p in own.items()},
            )
            changes = [change for name, p in own.items() for change in assigned(p, found[name])]
            commit([*changes, *optimiser.loaded(slots)])
            self._put_back(positions)
        return moment

    def on_first(self, function: Callable, *arguments) -> Any:
        """What a function of the caller's returns, which rank 0 alone calls; what it has drawn, all have drawn."""
        if self.ranks is ALONE:
            return function(*arguments)
        found, positions = self.ranks.first(lambda: (function(*arguments), self._positions()))
        if self.ranks.rank:
            self._put_back(positions)
        return found

    @property
    def moment(self) -> Moment:
        return self.moments[self.optimiser.steps]

    @property
    def validated_last(self) -> int:
        return self.moment.validated[-1][0] if self.moment.validated else -1

    def begin(self, epoch: int) -> None:
        """Before the batches of an epoch are drawn, be it again."""
        if epoch == self.moment.epoch:
            self._put_back(self.moment.generators_then)
        elif epoch > self.moment.epoch:
            now = self._positions()
            moment = self.moment._replace(generators=now, state=self.first, epoch=epoch, generators_then=now)
            self.moments = {self.optimiser.steps: moment}

    def remaining(
        self, events: Iterator[list | None], patience: float | None
    ) -> Iterator[tuple[int, list | None]]:
        """The steps that are still to be made, with their numbers, and ends of epochs (None) from here on.

        The step that was the last before the file was written comes with no batches: what follows it may be missing.
        """
        number, passed = len(self.losses), 0
        if number and not self._tired(patience):
            for group in events:
                passed += group is not None
                if passed == number:
                    break
        self._put_back(self.moment.generators)
        if self._tired(patience):
            return
        if number and passed == number:
            yield number, []
        for group in () if self._tired(patience) else events:
            number += group is not None
            yield number, group
            self._mark()
            if group and number % self.every == 0:
                self._save()
            if self._tired(patience):
                return

    def _tired(self, patience) -> bool:
        """Whether so many validations have brought nothing."""
        values = [value for _, value in self.moment.validated]
        return patience is not None and bool(values) and len(values) - 1 - int(np.argmin(values)) >= patience

    def step(self, loss: float, state: list[tuple], move: Callable[[], None]) -> None:
        self.losses.append(loss)
        now, old = self.optimiser.steps, self.moment
        self.moments = {now: old, now + 1: old._replace(generators=self._positions(), state=state)}
        move()

    def judge(self, number: int, value: float) -> None:
        """Note a validation, and the parameters where it is the smallest."""
        old = self.moment
        smallest = min((v for _, v in old.validated), default=math.inf)
        best = (
            [p._value for p in self.optimiser.parameters]
            if value < smallest or old.best is None
            else old.best
        )
        validated = (*old.validated, (number, value))
        moment = old._replace(generators=self._positions(), validated=validated, best=best)
        self.moments = {self.optimiser.steps: moment}

    def put_back_best(self) -> None:
        best = self.moment.best
        if best is not None:
            commit([c for p, v in zip(self.optimiser.parameters, best, strict=True) for c in assigned(p, v)])

    def _positions(self) -> dict[str, Any]:
        return {name: generator.bit_generator.state for name, generator in self.generators.items()}

    def _put_back(self, positions: dict[str, Any] | None) -> None:
        for name, position in (positions or {}).items():
            self.generators[name].bit_generator.state = position

    def _mark(self) -> None:
        self.moments = {self.optimiser.steps: self.moment._replace(generators=self._positions())}

    def _save(self) -> None:
        now, ranks = self.optimiser.steps, self.ranks
        if self.path is None or (now, len(self.moment.validated)) == self.saved:
            return
        if ranks.over and any(self.moment.state) and not ranks.orderly:
            return  # the others' parts of the carried state are not to be had: the file stays as it was
        moment = self.moments[now]
        moment = moment._replace(state=[ranks.whole_state(moment.state)])
        ranks.first(self._write, now, moment)
        self.saved = now, len(moment.validated)

    def _write(self, now: int, moment: Moment) -> None:
        tensors = {"losses": np.array(self.losses[: now - self.start], np.float64)}
        if moment.epoch:
            text = checkpoint.text_of_generators(moment.generators_then or {})
            tensors |= {"epoch": np.array(moment.epoch), "epoch rng": np.frombuffer(text.encode(), np.uint8)}
        tensors |= {f"state/{k}": x for k, x in enumerate(flatten(moment.state[0])[0])}
        if moment.validated:
            tensors["validation"] = np.array(moment.validated, np.float64)
        if moment.best is not None:
            tensors |= {f"best/{n}": x for n, x in zip(self.optimiser.labels, moment.best, strict=True)}
        checkpoint.write_training(self.path, self.optimiser, moment.generators, tensors, self.notes)

    def __enter__(self) -> _Record:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self._mark()
        self.ranks.join(error)
        self._save()


def _rate(schedule: Callable[[int], float], number: int) -> float:
    rate = float(schedule(number))
    if not 0 <= rate < np.inf:
        raise InputError(f"fit: the learning rate of step {number} is {rate}; give a number of at least 0")
    return rate
