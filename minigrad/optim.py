"""Optimisers (SGD, Adam, AdamW, RMSprop) and gradient clipping: they read `grad` and assign `value` anew.

Every slot has its parameter's dtype.  A step computes everything before it changes
anything, so that an error or Ctrl-C leaves the parameters and slots of one step, the
last or the next, and never a mixture.  Assigning marks the parameter as changed, so
that a backward pass through a graph from before the step is an error.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import starmap
from typing import Any

import numpy as np

from .errors import DTypeError, GraphError, InputError, NonFiniteError, ShapeError, dims
from .hints import (
    OPTIM,
    OPTIMISER,
    OPTIMISER_PARAMETERS,
    hint_functions,
    hint_methods,
    missing,
    refuse_made,
    say_what_is_elsewhere,
)
from .tensor import Tensor, describe, next_number


def _parameters(parameters) -> list[Tensor]:
    if not isinstance(parameters, Iterable):
        raise InputError(f"optimiser: given {type(parameters).__name__}; give a dict or a list of parameters")
    found = list(parameters.values() if isinstance(parameters, dict) else parameters)
    if not found:
        raise InputError("optimiser: no parameters given")
    for p in found:
        if isinstance(p, Mapping):
            raise InputError(
                "optimiser: a parameter is a dict; give all parameters together, and those with options of their own "
                "as groups, e.g. groups={'b_*': dict(lr=0.01)}"
            )
        if not isinstance(p, Tensor) or not p.is_parameter:
            raise InputError(f"optimiser: {p!r} is not a parameter; give leaves made with requires_grad=True")
    if len({p.number for p in found}) < len(found):
        raise InputError("optimiser: a parameter is given twice and would move twice")
    return found


def _refuse_layers(parameters) -> None:
    """Raise InputError for layers in place of their parameters."""
    one_by_one = isinstance(parameters, (list, tuple))
    for layer in parameters if one_by_one else (parameters,):
        if hasattr(layer, "parameters"):
            several = ", several of them as {**a.parameters(), **b.parameters()}" if one_by_one else ""
            raise InputError(
                f"optimiser: {type(layer).__name__} is a layer; give its parameters, layer.parameters(){several}"
            )


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
    """What all share: the parameters, `zero_grad`, a step over those that have gradients, groups, and the state.

    What a layer has frozen is left as it is, slots and count included, until it is unfrozen.

    A kind of its own names in `options` what was chosen and in `slots` its lists of arrays, one for each
    parameter.  Its rule stands once, in `moved`, and runs on the arrays of one parameter, in `step`, or, compiled,
    on all parameters at once, in a training step (`minigrad.TrainingStep`).

    parameters : tensors, or a dict of them, e.g. ``model.parameters()``.
    lr : the learning rate; it may be assigned at any time.
    groups : options of their own for some parameters: ``{"b_*": dict(weight_decay=0.0)}`` by a pattern of names
        (`*` and `?` as in file names; names are those of `state_dict`), or pairs of (pattern or parameters, options).
        A parameter belongs to the first group that it fits, and has the optimiser's options otherwise.  The rate of
        a group keeps its ratio to `lr`: when a schedule halves that, it halves all.

    Raises InputError when there are no parameters, for anything that is not a parameter, for options out of range,
    and for a group that nothing belongs to.
    """

    options: tuple[str, ...] = ("lr",)
    slots: tuple[str, ...] = ()

    def __new__(cls, *_, **options):
        refuse_made(cls, options, OPTIMISER_PARAMETERS)
        return super().__new__(cls)

    def __init__(self, parameters, lr: float, groups=None):
        _refuse_layers(parameters)
        if isinstance(parameters, Iterable) and not isinstance(parameters, Mapping):
            parameters = list(parameters)  # which may come once
        self.parameters, self.lr = _parameters(parameters), lr
        self.labels = _labels(parameters, self.parameters)
        self._check_rate(lr)
        # Steps in all, and those that moved each parameter.
        self.steps, self.counts = 0, [0 for _ in self.parameters]
        # By group the options that differ, its rate as a multiple of `lr`; by parameter its group, −1: none.
        self.groups: list[dict[str, Any]] = []
        self.group = [-1 for _ in self.parameters]
        for which, chosen in groups.items() if isinstance(groups, Mapping) else groups or ():
            self._add_group(which, chosen)

    def _add_group(self, which, chosen: Mapping[str, Any]) -> None:
        unknown = [name for name in chosen if name not in self.options]
        if unknown:
            raise InputError(
                f"{type(self).__name__}: a group has no option {unknown[0]!r}; it has {', '.join(self.options)}"
            )
        if isinstance(which, str):
            members = [k for k, label in enumerate(self.labels) if fnmatchcase(label, which)]
        else:
            numbers = {p.number for p in _parameters([which] if isinstance(which, Tensor) else which)}
            members = [k for k, p in enumerate(self.parameters) if p.number in numbers]
            if len(members) < len(numbers):
                raise InputError(
                    f"{type(self).__name__}: a group has a parameter that the optimiser does not have"
                )
        members = [k for k in members if self.group[k] < 0]
        if not members:
            what = repr(which) if isinstance(which, str) else f"number {len(self.groups) + 1}"
            raise InputError(
                f"{type(self).__name__}: no parameter is in the group {what}, or all of its are in one before; the "
                f"parameters are {_listed(self.labels)}"
            )
        if "lr" in chosen:
            self._check_rate(chosen["lr"])
            chosen = {**chosen, "lr": chosen["lr"] / self.lr}
        for k in members:
            self.group[k] = len(self.groups)
        self.groups.append(dict(chosen))

    def _check_rate(self, lr) -> None:
        if not 0 < lr < math.inf:
            raise InputError(f"optimiser: the learning rate is {lr}; give a positive number")

    def _each(self) -> list:
        """The optimiser with its own options, and as each group has them."""
        return [self, *[self._of_group(k) for k in range(len(self.groups))]]

    def _of_group(self, k: int) -> Optimiser:
        """The optimiser as the parameters of one group see it."""
        seen, chosen = object.__new__(type(self)), self.groups[k]
        seen.__dict__.update(self.__dict__, **chosen)
        seen.lr = self.lr * chosen.get("lr", 1)
        return seen

    def numbers_of(self, k: int, count: int) -> tuple[float, ...]:
        """`numbers` with the options of the k-th parameter's group."""
        seen = self if self.group[k] < 0 else self._of_group(self.group[k])
        return seen.numbers(count)

    def zero_grad(self) -> None:
        """Let every parameter forget its gradient."""
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
        """Move every parameter that has a gradient.

        Raises GraphError when none has, and ShapeError for a gradient of another shape than its parameter's.

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
            entries, numbers = tuple([slot[k] for slot in new]), self.numbers_of(k, counts[k])
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
        own = {
            "counts": list(self.counts),
            "group": list(self.group),
            "groups": [dict(g) for g in self.groups],
        }
        return {**self.__dict__, **own, **entries}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Step count, options and slots as arrays by name, e.g. "Adam.lr", "Adam.first.W_f", for `checkpoint.save`.

        A parameter is called by its key in the dict that it came in, or by its own name; where these do not tell
        all parameters apart, by its position.
        """
        kind = type(self).__name__
        found = {f"{kind}.steps": np.asarray(self.steps)}
        for option in self.options:
            found[f"{kind}.{option}"] = np.asarray(getattr(self, option), np.float64)
        for k, chosen in enumerate(self.groups):
            for option, value in chosen.items():
                found[f"{kind}.groups.{k}.{option}"] = np.asarray(value, np.float64)
        for slot in (*self._counted, *self.slots):
            for label, entry in zip(self.labels, getattr(self, slot), strict=True):
                found[f"{kind}.{slot}.{label}"] = np.array(entry)
        return found

    @property
    def _counted(self) -> tuple[str, ...]:
        """The lists of whole numbers, one for each parameter."""
        return ("counts", "group") if self.groups else ("counts",)

    def load_state_dict(self, values: Mapping[str, np.ndarray]) -> None:
        """Put back what `state_dict` gave, the options too.

        Raises InputError for what is missing or surplus, ShapeError and DTypeError for what does not fit; nothing
        is changed then.
        """
        commit(self.loaded(values))

    def loaded(self, values: Mapping[str, np.ndarray]) -> list[tuple]:
        """The changes that `load_state_dict` makes; raises what `fitting` raises."""
        kind = type(self).__name__
        found = fitting(f"{kind}.load_state_dict", values, self.state_dict())
        changes: list[tuple] = [(self, "steps", found[f"{kind}.steps"].item())]
        changes += [(self, option, _plain(found[f"{kind}.{option}"])) for option in self.options]
        groups = [
            {option: _plain(found[f"{kind}.groups.{k}.{option}"]) for option in chosen}
            for k, chosen in enumerate(self.groups)
        ]
        changes.append((self, "groups", groups))
        for name in self._counted:
            counted = [found[f"{kind}.{name}.{label}"].item() for label in self.labels]
            if name == "group" and not all(-1 <= k < len(groups) for k in counted):
                raise InputError(
                    f"{kind}.load_state_dict: {counted} are not numbers of its {len(groups)} groups, or −1"
                )
            changes.append((self, name, counted))
        for slot in self.slots:
            changes.append((self, slot, [found[f"{kind}.{slot}.{label}"] for label in self.labels]))
        return changes


def _plain(array: np.ndarray) -> Any:
    """An option from an array: a number, or a tuple of them."""
    return tuple(array.tolist()) if array.ndim else array.item()


def fitting(who: str, given: Mapping, expected: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of the given arrays, which must have the names, shapes and dtypes of the expected ones.

    Raises InputError, ShapeError or DTypeError where they have not.
    """
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


def _check(who: str, ranges: str, value, inside: bool) -> None:
    if not inside:
        raise InputError(f"{who} is {value}; give {ranges}")


def _check_decay(kind: str, decay: float) -> None:
    _check(f"{kind}: weight_decay", "a number not below 0", decay, 0 <= decay < math.inf)


class SGD(Optimiser):
    """Gradient descent with momentum (Polyak, 1964): v = m·v + g; p = p − lr·v.

    `weight_decay` λ adds λ·p to the gradient.
    Raises what `Optimiser` raises.
    """

    options = ("lr", "momentum", "weight_decay")

    def __init__(
        self, parameters, lr: float = 0.01, momentum: float = 0.0, weight_decay: float = 0.0, *, groups=None
    ):
        self.momentum, self.weight_decay = momentum, weight_decay
        super().__init__(parameters, lr, groups)
        for own in self._each():
            _check("SGD: momentum", "a number in [0, 1)", own.momentum, 0 <= own.momentum < 1)
            _check_decay("SGD", own.weight_decay)
        moving = any(own.momentum for own in self._each())
        if moving:
            self.slots = ("velocity",)
        self.velocity = [np.zeros_like(p.value) for p in self.parameters] if moving else []

    def numbers(self, count):
        return self.lr, self.momentum, self.weight_decay

    @staticmethod
    def moved(xp, value, gradient, slots, numbers):
        rate, momentum, decay = numbers
        gradient = gradient + decay * value
        if slots:
            gradient = momentum * slots[0] + gradient
            slots = (gradient,)
        return value - rate * gradient, slots


class Adam(Optimiser):
    """Adam (Kingma and Ba, 2015).  `weight_decay` λ adds λ·p to the gradient, which Adam then rescales like the rest
    of it; what is mostly wanted is `AdamW`.

    The bias correction counts the gradients of each parameter, so that one whose gradient comes rarely, or only
    later in the training, starts as any other does.
    Raises what `Optimiser` raises.
    """

    options = ("lr", "betas", "epsilon", "weight_decay")
    slots = ("first", "second")

    def __init__(
        self,
        parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        groups=None,
    ):
        self.betas, self.epsilon, self.weight_decay = betas, epsilon, weight_decay
        super().__init__(parameters, lr, groups)
        kind = type(self).__name__
        for own in self._each():
            fits = len(own.betas) == 2 and all(0 <= b < 1 for b in own.betas)
            _check(f"{kind}: betas", "two numbers in [0, 1)", own.betas, fits)
            _check_epsilon(kind, own.epsilon)
            _check_decay(kind, own.weight_decay)
        self.first = [np.zeros_like(p.value) for p in self.parameters]
        self.second = [np.zeros_like(p.value) for p in self.parameters]

    def numbers(self, count):
        b1, b2 = self.betas
        correction = math.sqrt(1 - b2**count)
        rate = self.lr * correction / (1 - b1**count)
        return 1 - b1, 1 - b2, rate, self.epsilon * correction, self.weight_decay

    @staticmethod
    def moved(xp, value, gradient, slots, numbers):
        *rest, decay = numbers
        step, slots = _adam(xp, gradient + decay * value, slots, rest)
        return value - step, slots


def _adam(xp, gradient, slots, numbers) -> tuple:
    """How far Adam goes, and its new moments."""
    (first, second), (a, b, rate, epsilon) = slots, numbers
    first = first + a * (gradient - first)
    second = second + b * (gradient * gradient - second)
    return rate * (first / (xp.sqrt(second) + epsilon)), (first, second)


class AdamW(Adam):
    """Adam with a weight decay apart from the gradient (Loshchilov and Hutter, 2019): p = p − lr·λ·p − Adam's step."""

    def __init__(
        self,
        parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        groups=None,
    ):
        super().__init__(parameters, lr, betas, epsilon, weight_decay, groups=groups)

    def numbers(self, count):
        return *super().numbers(count)[:-1], self.lr * self.weight_decay

    @staticmethod
    def moved(xp, value, gradient, slots, numbers):
        *rest, decay = numbers
        step, slots = _adam(xp, gradient, slots, rest)
        return value - (step + decay * value), slots


def _check_epsilon(kind: str, epsilon: float) -> None:
    _check(f"{kind}: epsilon", "a number not below 0", epsilon, 0 <= epsilon < math.inf)


class RMSprop(Optimiser):
    """RMSprop (Tieleman and Hinton, 2012): s = α·s + (1 − α)·g²; v = m·v + g / (√s + ε); p = p − lr·v.

    centred : √(s − mean²) in place of √s, with a running mean of g (Graves, 2013).
    `weight_decay` λ adds λ·p to the gradient.
    Raises what `Optimiser` raises.
    """

    options = ("lr", "alpha", "epsilon", "momentum", "weight_decay")

    def __init__(
        self,
        parameters,
        lr: float = 0.01,
        alpha: float = 0.99,
        epsilon: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        centred: bool = False,
        *,
        groups=None,
    ):
        self.alpha, self.epsilon, self.momentum, self.weight_decay = alpha, epsilon, momentum, weight_decay
        super().__init__(parameters, lr, groups)
        for own in self._each():
            _check("RMSprop: alpha", "a number in [0, 1)", own.alpha, 0 <= own.alpha < 1)
            _check("RMSprop: momentum", "a number in [0, 1)", own.momentum, 0 <= own.momentum < 1)
            _check_epsilon("RMSprop", own.epsilon)
            _check_decay("RMSprop", own.weight_decay)
        self.slots = ("square", "velocity", "mean") if centred else ("square", "velocity")
        for slot in self.slots:
            setattr(self, slot, [np.zeros_like(p.value) for p in self.parameters])

    def numbers(self, count):
        return self.lr, 1 - self.alpha, self.epsilon, self.momentum, self.weight_decay

    @staticmethod
    def moved(xp, value, gradient, slots, numbers):
        (square, velocity, *mean), (rate, a, epsilon, momentum, decay) = slots, numbers
        gradient = gradient + decay * value
        square = square + a * (gradient * gradient - square)
        spread = square
        if mean:
            mean = [mean[0] + a * (gradient - mean[0])]
            spread = xp.maximum(square - mean[0] * mean[0], 0.0)  # rounding may leave less than nothing
        velocity = momentum * velocity + gradient / (xp.sqrt(spread) + epsilon)
        return value - rate * velocity, (square, velocity, *mean)


def check_limit(limit: float, who: str = "clip_by_norm") -> None:
    """Raises InputError for a norm or a value that nothing could be clipped to."""
    if not limit > 0:
        raise InputError(f"{who}: the limit is {limit}; give a positive number")


def _learning(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Those that have a gradient and are not frozen."""
    return [p for p in _parameters(parameters) if p.grad is not None and p.requires_grad]


def clip_by_norm(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale all gradients together so that their joint norm is at most `limit`; returns the norm before.

    Source: Pascanu, Mikolov and Bengio (2013).  `clip_grad_norm` is the same function.

    Raises InputError for a limit that is not positive; NonFiniteError, naming the parameter, and changes nothing when
    a gradient is not finite.
    """
    check_limit(limit)
    with_grad = _learning(parameters)
    squares = sum(float(np.vdot(p.grad, p.grad)) for p in with_grad)  # type: ignore[arg-type]
    if not 1e-30 < squares < math.inf or any(p.dtype.itemsize < 4 for p in with_grad):
        return _clip_far_from_one(with_grad, limit)
    norm = math.sqrt(squares)
    if norm > limit:
        for p in with_grad:
            p.grad = np.asarray(p.grad * p.dtype.type(limit / norm))
    return norm


def clip_grad_value(parameters: Iterable[Tensor], limit: float) -> None:
    """Clip every element of every gradient to −limit … limit; an infinite one too.

    Raises InputError for a limit that is not positive; NonFiniteError, naming the parameter, and changes nothing when
    a gradient is not a number.
    """
    check_limit(limit, "clip_grad_value")
    with_grad = _learning(parameters)
    for p in with_grad:
        if np.isnan(p.grad).any():  # type: ignore[arg-type]
            raise NonFiniteError(f"clip_grad_value: the gradient of {describe(p)} is not a number")
    for p in with_grad:
        p.grad = np.asarray(np.clip(p.grad, -limit, limit), p.dtype)  # type: ignore[arg-type]


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


def __getattr__(name: str):
    if name in OPTIM:
        raise missing("module 'minigrad.optim'", name, OPTIM)
    raise AttributeError(f"module 'minigrad.optim' has no attribute {name!r}")


say_what_is_elsewhere(Optimiser, OPTIMISER)
hint_methods(Optimiser, ["zero_grad", "step"])
hint_functions("minigrad.optim", globals(), ["clip_by_norm", "clip_grad_value"])
clip_grad_norm = clip_by_norm
