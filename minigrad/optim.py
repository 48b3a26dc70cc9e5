"""Optimisers and gradient clipping: they read `grad` and assign `value` anew.

Every slot has its parameter's dtype.  A step computes everything before it changes
anything, so that an error or Ctrl-C leaves the parameters and slots of one step, the
last or the next, and never a mixture.  Assigning marks the parameter as changed, so
that a backward pass through a graph from before the step is an error.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap
from typing import Any

import numpy as np

from .errors import DTypeError, GraphError, InputError, NonFiniteError, ShapeError, dims
from .tensor import Tensor, describe, next_number


def _parameters(parameters) -> list[Tensor]:
    found = list(parameters.values() if isinstance(parameters, dict) else parameters)
    if not found:
        raise InputError("optimiser: no parameters given")
    for p in found:
        if not isinstance(p, Tensor) or not p.is_parameter:
            raise InputError(f"optimiser: {p!r} is not a parameter; give leaves made with requires_grad=True")
    if len({p.number for p in found}) < len(found):
        raise InputError("optimiser: a parameter is given twice and would move twice")
    return found


def _labels(parameters, found: list[Tensor]) -> list[str]:
    """What a state calls each parameter: its key or name where these tell all apart, else its position."""
    labels = (
        [str(key) for key in parameters] if isinstance(parameters, dict) else [p.name or "" for p in found]
    )
    return labels if all(labels) and len({*labels}) == len(labels) else [str(k) for k in range(len(found))]


def commit(changes: Iterable[tuple]) -> None:
    """Set attributes, (owner, name, value) each: all of them or none.

    Python looks for Ctrl-C between its own instructions, and this is one call that runs none of them.
    """
    deque(starmap(setattr, changes), maxlen=0)


def assigned(p: Tensor, value: np.ndarray) -> list[tuple]:
    """The changes that give a parameter a new array, which is taken over."""
    value.setflags(write=False)
    return [(p, "_value", value), (p, "changed", next_number())]


class Optimiser:
    """What all share: the parameters, `zero_grad`, a step over those that have gradients, and the state.

    What a layer has frozen is left as it is, slots and count included, until it is unfrozen.

    A kind of its own names in `options` what was chosen and in `slots` its lists of arrays, one for each
    parameter.  Its rule stands once, in `moved`, and runs on the arrays of one parameter, in `step`, or, compiled,
    on all parameters at once, in a training step (`minigrad.TrainingStep`).
    """

    options: tuple[str, ...] = ("lr",)
    slots: tuple[str, ...] = ()

    def __init__(self, parameters, lr: float):
        if not 0 < lr < math.inf:
            raise InputError(f"optimiser: the learning rate is {lr}; give a positive number")
        parameters = parameters if isinstance(parameters, dict) else list(parameters)
        self.parameters, self.lr = _parameters(parameters), lr
        self.labels = _labels(parameters, self.parameters)
        # Steps in all, and those that moved each parameter.
        self.steps, self.counts = 0, [0 for _ in self.parameters]

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def numbers(self, count: int) -> tuple[float, ...]:
        """What `moved` takes as numbers in the count-th step of a parameter, counted from 1."""
        raise NotImplementedError

    @staticmethod
    def moved(xp, value, gradient, slots: tuple, numbers: Sequence) -> tuple:
        """The new value and the new entries of the slots; xp : numpy for arrays, minigrad for tensors."""
        raise NotImplementedError

    @np.errstate(over="raise")
    def step(self) -> None:
        """Move every parameter that has a gradient; raises GraphError when none has.

        Whole also when Ctrl-C or an error interrupts it: then nothing has moved, or everything has.
        """
        new = [list(getattr(self, name)) for name in self.slots]
        counts, changes = list(self.counts), []
        for k, p in enumerate(self.parameters):
            gradient, value = p.grad, p._value
            if gradient is None or not p.requires_grad:  # frozen
                continue
            if gradient.shape != value.shape:
                raise ShapeError(f"optimiser step: the gradient of {describe(p)} has shape {gradient.shape}")
            gradient = np.asarray(gradient, value.dtype, order="C")
            counts[k] += 1
            entries, numbers = tuple([slot[k] for slot in new]), self.numbers(counts[k])
            try:
                value, entries = self.moved(np, value, gradient, entries, numbers)
            except FloatingPointError:
                value, entries = self._moved_far(value, gradient, entries, numbers)
            for slot, entry in zip(new, entries, strict=True):
                slot[k] = np.asarray(entry, order="C")  # of arrays without axes, NumPy makes bare numbers
            changes += assigned(p, np.asarray(value, order="C"))
        if not changes:
            if not any(p.requires_grad for p in self.parameters):
                raise GraphError("optimiser step: all parameters are frozen; unfreeze those that are to move")
            raise GraphError("optimiser step without gradients: call loss.backward() first")
        changes += (self, "steps", self.steps + 1), (self, "counts", counts)
        commit(changes + [(self, name, slot) for name, slot in zip(self.slots, new, strict=True)])

    def _moved_far(self, value, gradient: np.ndarray, entries: tuple, numbers: tuple) -> tuple:
        """Where a number overflowed: gradients whose square does count as the largest whose square does not.

        Adam moves by the ratio of its moments, which that leaves as it is; an infinite moment would hold the
        parameter for ever.
        """
        limit = gradient.dtype.type(2.0 ** (np.finfo(gradient.dtype).maxexp // 2 - 1))
        with np.errstate(over="warn"):
            return self.moved(np, value, np.clip(gradient, -limit, limit), entries, numbers)

    def __getstate__(self) -> dict:
        """A copy has entries of its own."""
        entries = {name: [np.array(a) for a in getattr(self, name)] for name in self.slots}
        return {**self.__dict__, "counts": list(self.counts), **entries}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Step count, options and slots as arrays by name, e.g. "Adam.lr", "Adam.first.W_f", for `checkpoint.save`.

        A parameter is called by its key in the dict that it came in, or by its own name; where these do not tell
        all parameters apart, by its position.
        """
        kind = type(self).__name__
        found = {f"{kind}.steps": np.asarray(self.steps)}
        for option in self.options:
            found[f"{kind}.{option}"] = np.asarray(getattr(self, option), np.float64)
        for slot in ("counts", *self.slots):
            for label, entry in zip(self.labels, getattr(self, slot), strict=True):
                found[f"{kind}.{slot}.{label}"] = np.array(entry)
        return found

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what `state_dict` gave, the options too.

        Raises InputError for what is missing or surplus, ShapeError and DTypeError for what does not fit; nothing
        is changed then.
        """
        commit(self.loaded(state))

    def loaded(self, state: Mapping[str, np.ndarray]) -> list[tuple]:
        """The changes that `load_state_dict` makes."""
        kind = type(self).__name__
        found = fitting(f"{kind}.load_state_dict", state, self.state_dict())
        changes: list[tuple] = [(self, "steps", found[f"{kind}.steps"].item())]
        for option in self.options:
            value = found[f"{kind}.{option}"].tolist()
            changes.append((self, option, tuple(value) if isinstance(value, list) else value))
        changes.append((self, "counts", [found[f"{kind}.counts.{label}"].item() for label in self.labels]))
        for slot in self.slots:
            changes.append((self, slot, [found[f"{kind}.{slot}.{label}"] for label in self.labels]))
        return changes


def fitting(who: str, given: Mapping, expected: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of the given arrays, which must have the names, shapes and dtypes of the expected ones."""
    if not isinstance(given, Mapping):
        raise InputError(f"{who}: give a dict of arrays by name, not {type(given).__name__}")
    missing, surplus = [n for n in expected if n not in given], [n for n in given if n not in expected]
    if missing or surplus:
        raise InputError(f"{who}: missing {_listed(missing)}; surplus {_listed(surplus)}")
    found = {}
    for name, own in expected.items():
        try:
            array = np.array(given[name], order="C")
        except (ValueError, TypeError) as error:
            raise InputError(f"{who}: {name!r:.80} is not a numeric array ({error})") from None
        if array.shape != own.shape:
            raise ShapeError(f"{who}: {name!r:.80} has shape {dims(array.shape)}, not {dims(own.shape)}")
        if array.dtype.newbyteorder("=") != own.dtype:  # a cast would not give the same bits
            raise DTypeError(f"{who}: {name!r:.80} is {array.dtype}, not {own.dtype}")
        found[name] = array.astype(own.dtype, copy=False)
    return found


def _listed(names: list[str], most: int = 6) -> str:
    """Names for a message, not more than fit into it."""
    rest = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([f"{name!r:.80}" for name in names[:most]] + rest) or "none"


class SGD(Optimiser):
    """Gradient descent with momentum (Polyak, 1964): v = m·v + g; p = p − lr·v."""

    options = ("lr", "momentum")

    def __init__(self, parameters, lr: float = 0.01, momentum: float = 0.0):
        super().__init__(parameters, lr)
        if not 0 <= momentum < 1:
            raise InputError(f"SGD: momentum is {momentum}; give a number in [0, 1)")
        self.momentum = momentum
        if momentum:
            self.slots = ("velocity",)
        self.velocity = [np.zeros_like(p.value) for p in self.parameters] if momentum else []

    def numbers(self, count):
        return self.lr, self.momentum

    @staticmethod
    def moved(xp, value, gradient, slots, numbers):
        rate, momentum = numbers
        if slots:
            gradient = momentum * slots[0] + gradient
            slots = (gradient,)
        return value - rate * gradient, slots


class Adam(Optimiser):
    """Adam (Kingma and Ba, 2015); `weight_decay` is decoupled from the gradient (Loshchilov and Hutter, 2019).

    The bias correction counts the gradients of each parameter, so that one whose gradient comes rarely starts as
    any other does.
    """

    options = ("lr", "betas", "epsilon", "weight_decay")
    slots = ("first", "second")

    def __init__(
        self,
        parameters,
        lr: float = 1e-3,
        betas=(0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr)
        if not all(0 <= b < 1 for b in betas) or weight_decay < 0:
            raise InputError(
                f"Adam: betas {betas} must lie in [0, 1) and weight_decay {weight_decay} not below 0"
            )
        self.betas, self.epsilon, self.weight_decay = betas, epsilon, weight_decay
        self.first = [np.zeros_like(p.value) for p in self.parameters]
        self.second = [np.zeros_like(p.value) for p in self.parameters]

    def numbers(self, count):
        b1, b2 = self.betas
        correction = math.sqrt(1 - b2**count)
        rate = self.lr * correction / (1 - b1**count)
        return 1 - b1, 1 - b2, rate, self.epsilon * correction, self.lr * self.weight_decay

    @staticmethod
    def moved(xp, value, gradient, slots, numbers):
        (first, second), (a, b, rate, epsilon, decay) = slots, numbers
        first = first + a * (gradient - first)
        second = second + b * (gradient * gradient - second)
        return value - (rate * (first / (xp.sqrt(second) + epsilon)) + decay * value), (first, second)


def check_limit(limit: float) -> None:
    """Raises InputError for a norm that nothing could be clipped to."""
    if not limit > 0:
        raise InputError(f"clip_by_norm: the limit is {limit}; give a positive number")


def clip_by_norm(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale all gradients together so that their joint norm is at most `limit`; returns the norm before.

    Raises NonFiniteError, naming the parameter, and changes nothing when a gradient is not finite.
    """
    check_limit(limit)
    with_grad = [p for p in _parameters(parameters) if p.grad is not None and p.requires_grad]
    squares = sum(float(np.vdot(p.grad, p.grad)) for p in with_grad)  # type: ignore[arg-type]
    if not 1e-30 < squares < math.inf or any(p.dtype.itemsize < 4 for p in with_grad):
        return _clip_far_from_one(with_grad, limit)
    norm = math.sqrt(squares)
    if norm > limit:
        for p in with_grad:
            p.grad = np.asarray(p.grad * p.dtype.type(limit / norm))
    return norm


def _clip_far_from_one(parameters: list[Tensor], limit: float) -> float:
    """The same for numbers that are finite, and not 0, where their squares are not."""
    gradients: list[Any] = [p.grad for p in parameters]
    largest = [float(np.abs(g).max(initial=0)) for g in gradients]
    for p, size in zip(parameters, largest, strict=True):
        if not math.isfinite(size):
            raise NonFiniteError(f"clip_by_norm: the gradient of {describe(p)} is not finite")
    unit = max(largest, default=0.0) or 1.0
    parts = [np.divide(g, unit, dtype=np.float64) for g in gradients]
    root = math.sqrt(sum(float(np.vdot(part, part)) for part in parts))
    if unit * root > limit:
        for p, part in zip(parameters, parts, strict=True):
            p.grad = np.asarray(part * (limit / root), p.dtype)
    return unit * root
