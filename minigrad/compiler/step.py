"""`TrainingStep`: loss, gradients, clipping and the optimiser's rule, with as little Python in between as can be.

The rule of an optimiser (`Optimiser.moved`) is compiled once, for flat arrays: all parameters lie one behind the
other as the loss's program writes their gradients, so that one call moves all of them, whatever the network is.
Where parameters differ in their options or counts, each kind has a run of its own over all, and gives what is its.
What does not fit (a parameter without gradient, many kinds, several dtypes, an optimiser of one's own, what cannot be
compiled) goes parameter by parameter, by the same rule.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import chain, repeat
from operator import is_
from sys import getrefcount
from typing import Any
from zlib import crc32

import numpy as np

import minigrad

from ..errors import InputError, MinigradError
from ..modes import training
from ..optim import Optimiser, check_limit, clip_by_norm, clip_grad_value, commit
from ..tensor import Tensor, describe, next_number
from .call import Gradients, constant
from .compile import Compiled, compile
from .places import CannotCompile
from .plan import ALIGN, Known, Plan, address_of, view_of

MOST_KINDS = 4  # of parameters that differ in options or counts: each costs a run over all of them
FAR = 1e30  # sums of squares beyond, or below its inverse: float32 cannot hold what is computed of them


class Layout:
    """Where gradients lie in the results of a program: in one piece, one behind the other."""

    def __init__(self, targets: Sequence[Tensor], parts: Sequence, parameters: Sequence[Tensor]):
        """Raises LookupError where they are not those of the parameters, or not in one piece."""
        places = {p.number: k for k, p in enumerate(parameters)}
        found = sorted((part[0], part, places.pop(t.number)) for t, part in zip(targets, parts, strict=True))
        if places or not found:
            raise LookupError
        (self.start, (*_, self.dtype), _) = found[0]
        at = self.start
        self.parts: list[tuple] = [()] * len(parameters)
        for offset, (_, shape, dtype), k in found:
            if (
                offset != at
                or dtype != self.dtype
                or (parameters[k].dtype, parameters[k].shape) != (dtype, shape)
            ):
                raise LookupError
            self.parts[k] = offset - self.start, shape, dtype
            at += -(-math.prod(shape) * dtype.itemsize // ALIGN) * ALIGN
        self.count = (at - self.start) // self.dtype.itemsize
        self.offsets = np.array([part[0] for part in self.parts], np.int64)
        self.checksum = crc32(repr((self.parts, self.count)).encode())

    def __eq__(self, other) -> bool:
        return isinstance(other, Layout) and (self.parts, self.count) == (other.parts, other.count)


class Slot(Sequence):
    """The entries of a slot: views of one array, made when they are asked for."""

    __slots__ = ("flat", "parts")

    def __init__(self, flat: np.ndarray, parts: Sequence[tuple]):
        self.flat, self.parts = flat, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, k: int) -> np.ndarray:  # type: ignore[override]
        return view_of(self.flat, self.parts[k])


class FlatValues:
    """Values and slots of all parameters in flat arrays, and what a table of addresses says of them."""

    def __init__(self, layout: Layout, memory: np.ndarray, parts: Sequence[tuple], places: dict[int, int]):
        """memory, parts : the array that holds the flat arrays, and where: of the values, then of each slot."""
        address = address_of(memory)
        values, *slots = [view_of(memory, part) for part in parts]
        self.layout, self.slots = layout, [Slot(flat, layout.parts) for flat in slots]
        self.addresses = np.array([part[0] for part in parts], np.int64) + address
        values.setflags(write=False)
        self.views = [view_of(values, part) for part in layout.parts]
        self.known = Known(places, self.views, layout.offsets + self.addresses[0])
        self.held = [memory, values, *slots, *self.views]
        self.alone: list[int] = []  # how often each is held where nobody else holds it

    def references(self) -> list[int]:
        return [*map(getrefcount, self.held)]

    @property
    def free(self) -> bool:
        """Whether nobody else holds an array of it, so that it can be written over."""
        return self.references() == self.alone

    def fill(self, optimiser: Optimiser) -> None:
        """Put in what the parameters and the optimiser hold."""
        values, *slots = self.held[1 : 2 + len(self.slots)]
        values.setflags(write=True)
        now = [p._value for p in optimiser.parameters]
        for flat, arrays in zip(
            [values, *slots], [now, *[getattr(optimiser, n) for n in optimiser.slots]], strict=True
        ):
            flat[:] = 0
            for part, array in zip(self.layout.parts, arrays, strict=True):
                view_of(flat, part)[...] = array
        values.setflags(write=False)

    def take(self, other: FlatValues, members: Sequence[int]) -> None:
        """Values and entries of some parameters from others of the same layout."""
        count = 1 + len(self.slots)
        own, theirs = self.held[1 : 1 + count], other.held[1 : 1 + count]
        own[0].setflags(write=True)
        for flat, source in zip(own, theirs, strict=True):
            for k in members:
                view_of(flat, self.layout.parts[k])[...] = view_of(source, self.layout.parts[k])
        own[0].setflags(write=False)

    def holds(self, layout: Layout, optimiser: Optimiser) -> bool:
        """Whether parameters and optimiser have just this, as nothing was assigned since."""
        return (
            (layout is self.layout or layout == self.layout)
            and all(map(is_, [p._value for p in optimiser.parameters], self.views))
            and all(map(is_, [getattr(optimiser, name) for name in optimiser.slots], self.slots))
        )


_compiled: dict[tuple, Compiled] = {}


def rule_of(optimiser: Optimiser) -> Compiled:
    """An optimiser's rule, compiled for flat arrays: (value, gradient, *slots, numbers) → (value, *slots)."""
    moved, count = type(optimiser).moved, len(optimiser.numbers(1))
    kind = moved, len(optimiser.slots), count
    if kind not in _compiled:

        def rule(value, gradient, *rest):
            *slots, numbers = rest
            scale, *others = [numbers[k] for k in range(1 + count)]
            value, entries = moved(minigrad, value, scale * gradient, tuple(slots), others)
            return (value, *entries)

        rule.__name__ = rule.__qualname__ = type(optimiser).__name__
        _compiled[kind] = compile(rule)
    return _compiled[kind]


class Rule:
    """The rule laid out for one layout: it reads some flat values and writes others."""

    def __init__(self, optimiser: Optimiser, layout: Layout, places: dict[int, int]):
        """Raises CannotCompile."""
        self.layout, self.places, self.slots = layout, places, len(optimiser.slots)
        self.numbers = np.empty(1 + len(optimiser.numbers(1)), layout.dtype)
        flat = np.empty(layout.count, layout.dtype)
        variant, call = rule_of(optimiser).variant([flat] * (2 + self.slots) + [self.numbers], False)
        if variant is None:
            raise CannotCompile(call.reason)
        self.plan = Plan(variant, call.shapes)
        at = {argument: place for argument, place, *_ in self.plan.arguments}  # in the table
        self.values_at = np.array([at[k] for k in (0, *range(2, 2 + self.slots))], np.int64)
        self.gradient_at = at[1]
        self.plan.table[at[2 + self.slots]] = address_of(self.numbers)
        # What the program returns stands in this order in its memory.
        self.output_from = np.array([part[0] for part in self.plan.values], np.int64)

    def fresh(self) -> FlatValues:
        memory = np.empty(self.plan.output_bytes, np.uint8)
        made = FlatValues(self.layout, memory, self.plan.values, self.places)
        del memory
        made.alone = made.references()
        return made

    def __call__(self, now: FlatValues, gradient: int, numbers: tuple, new: FlatValues) -> None:
        """gradient : the address of its flat array.  Raises InputError for an index out of range."""
        plan, held = self.plan, []
        self.numbers[:] = numbers
        plan.table[self.values_at] = now.addresses
        plan.table[self.gradient_at] = gradient
        plan.table[plan.output_at] = plan.output_offsets + (new.addresses[0] - self.output_from[0])
        plan.enter_leaves(held)
        plan.refuse(plan.run_alone())


class TrainingStep:
    """A step of training: ``step(*batch)`` returns what the loss returns, and has moved the parameters.

    loss : a function of a batch, or what `compile` made of it; its first (or only) result is the loss.  A batch is
        all that `compile` takes as arguments, also by name.
    optimiser : whose parameters are moved.
    clip : the greatest joint norm of the gradients; None: they are as they are.
    clip_value : the greatest element of the gradients, up or down, before the norm is taken; None: any.

    `compute` and `move` are its two halves; `average` lies between them where a step is made of several batches.
    `norm` is the joint norm of the last gradients, before it was clipped.  The parameters' `grad` is None after a step.

    Raises InputError for a limit that is not positive; NonFiniteError, naming the parameter, for a gradient that is not
    finite; nothing has moved then.
    """

    def __init__(
        self, loss, optimiser: Optimiser, clip: float | None = None, clip_value: float | None = None
    ):
        if clip is not None:
            check_limit(clip)
        if clip_value is not None:
            check_limit(clip_value, "clip_grad_value")
        self.loss = loss if isinstance(loss, Compiled) else compile(loss)
        self.optimiser, self.clip, self.clip_value, self.norm = optimiser, clip, clip_value, math.nan
        own = type(optimiser)
        self.whole = (
            isinstance(optimiser, Optimiser)
            and own.step is Optimiser.step
            and own.moved is not Optimiser.moved
        )
        self.places = {p.number: k for k, p in enumerate(optimiser.parameters)}
        self.rule: Rule | None = None
        self.now: FlatValues | None = None  # as the last step left it
        self.spare: FlatValues | None = None  # that of the step before
        self.other: FlatValues | None = None  # where parameters of another kind are moved
        self._found: tuple = ()

    def __call__(self, /, *batch, **named) -> Any:
        result = self.compute(*batch, **named)
        self.move()
        return result

    def compute(self, /, *batch, **named) -> Any:
        """The results of the loss; the gradients are kept for `move`."""
        loss, now = self.loss, self.now
        if now is None:  # the first time, when the loss is traced
            with training() as remarks:
                variant, call = loss.variant(batch, True, named)
            for text in remarks:
                warnings.warn(f"{loss.name}: {text}", stacklevel=3)
        else:
            variant, call = loss.variant(batch, True, named)
        loss.refuse_computed(call.arguments)
        if variant is None:
            result, gradients = loss._eagerly(call)
            self._found = None, 0, None, gradients
            return result
        flat, plan = variant.run(
            call.arrays, call.shapes, loss.threads, now.known if now is not None else None
        )
        if plan.layout is None or plan.layout[0] is not self.places:
            plan.layout = self.places, self._laid(variant.targets(call), plan.gradients)
        self._found = flat, plan.address, plan.layout[1], (call, variant, plan)
        return variant.traced.rebuild([constant(view_of(flat, part).copy()) for part in plan.values])

    def _laid(self, targets, parts) -> Layout | None:
        try:
            return Layout(targets, parts, self.optimiser.parameters) if self.whole else None
        except LookupError:
            return None

    def average(self, earlier: tuple | None, count: int | None = None) -> tuple:
        """Add what an earlier `average` returned to the gradients of the last `compute`; returns their sum.

        count : of how many batches this is the last: `move` then takes the mean.
        """
        if earlier is not None:
            layout = self._found[2]
            if layout is not None and earlier[2] == layout:
                gradient = self._flat_gradient(self._found)
                gradient += self._flat_gradient(earlier)
            else:
                one, two = self._gradients(earlier), self._gradients(self._found)
                both = [[*one], [*two]]
                arrays = [g for found in (one, two) for _, g in found.items()]
                self._found = None, 0, None, Gradients([t for part in both for t in part], arrays)
        if count is not None and count > 1:
            self.scale(1 / count)
        return self._found

    def scale(self, factor: float) -> None:
        """Multiply the gradients of the last `compute`; by 0 also those that are not finite."""
        for piece in self.pieces()[0]:
            if factor:
                piece *= piece.dtype.type(factor)
            else:
                piece[...] = 0

    def pieces(self) -> tuple[list[np.ndarray], int]:
        """The gradients of the last `compute`, to be changed in place, and a checksum of how they lie.

        One flat array where that is how the program writes them, else one for each parameter that has a gradient, in
        the order of the optimiser's parameters.
        """
        layout = self._found[2]
        if layout is not None:
            return [self._flat_gradient(self._found)], layout.checksum
        found = {t.number: (t, g) for t, g in self._gradients(self._found).items()}
        order = sorted(found, key=lambda number: self.places.get(number, len(self.places)))
        arrays = [np.array(found[number][1]) for number in order]
        self._found = None, 0, None, Gradients([found[number][0] for number in order], arrays)
        shapes = [(self.places.get(number, -1), found[number][1].shape) for number in order]
        return arrays, crc32(repr(shapes).encode())

    @staticmethod
    def _flat_gradient(found: tuple) -> np.ndarray:
        flat, _, layout, _ = found
        return np.ndarray((layout.count,), layout.dtype, flat, layout.start)

    @staticmethod
    def _gradients(found: tuple) -> Gradients:
        flat, _, _, rest = found
        if isinstance(rest, Gradients):
            return rest
        call, variant, plan = rest
        return Gradients(variant.targets(call), plan.gradients, flat)

    def move(self) -> None:
        """Clip the gradients, and move the parameters: all of them, or, where an error is raised, none."""
        _, address, layout, _ = found = self._found
        self._found = ()
        if layout is not None and self.whole and len(kinds := self._kinds()) <= MOST_KINDS:
            gradient = self._flat_gradient(found)
            if self.clip_value is not None:
                np.clip(gradient, -self.clip_value, self.clip_value, out=gradient)
            square = float(np.vdot(gradient, gradient))
            if 1 / FAR < square < FAR and self._ruled(layout):
                try:
                    self._move_all(layout, address + layout.start, math.sqrt(square), kinds)
                except InputError as error:
                    raise self._named(error, layout, gradient, math.sqrt(square)) from None
                return
        self._move_each(self._gradients(found))

    def _named(self, error: InputError, layout: Layout, gradient: np.ndarray, norm: float) -> InputError:
        """What a check in the rule has found, with the parameter and the index: the rule runs again, one by one."""
        optimiser, name = self.optimiser, type(self.optimiser).__name__
        scale = self.clip / norm if self.clip is not None and norm > self.clip else 1.0
        for k, p in enumerate(optimiser.parameters):
            own = view_of(gradient, layout.parts[k]) * gradient.dtype.type(scale)
            slots = tuple(Tensor(getattr(optimiser, slot)[k]) for slot in optimiser.slots)
            numbers = optimiser.numbers_of(k, optimiser.counts[k] + 1)
            try:
                optimiser.moved(minigrad, Tensor(p.value), Tensor(own), slots, numbers)
            except MinigradError as found:
                return InputError(f"{name}, moving {describe(p)}: {found}")
        return error

    def _move_each(self, gradients: Gradients) -> None:
        """Parameter by parameter."""
        for leaf, g in gradients.items():
            leaf.grad = g
        try:
            parameters = self.optimiser.parameters
            if self.clip_value is not None:
                clip_grad_value(parameters, self.clip_value)
            self.norm = clip_by_norm(parameters, math.inf if self.clip is None else self.clip)
            self.optimiser.step()
        finally:
            for leaf, _ in gradients.items():
                leaf.grad = None

    def _ruled(self, layout: Layout) -> bool:
        """Whether there is a program of the rule for this layout; else a warning says why not, once."""
        if self.rule is not None and (self.rule.layout is layout or self.rule.layout == layout):
            return True
        try:
            rule = Rule(self.optimiser, layout, self.places)
            self.rule, self.now, self.spare, self.other = rule, None, None, None
        except CannotCompile as reason:
            self.whole = False
            name = type(self.optimiser).__name__
            warnings.warn(f"{name} moves one parameter after the other: {reason}", stacklevel=4)
        return self.whole

    def _kinds(self) -> list[Sequence[int]]:
        """The parameters that have options and counts in common, most of them first."""
        optimiser = self.optimiser
        if not optimiser.groups and len({*optimiser.counts}) == 1:
            return [range(len(optimiser.counts))]
        found: dict[tuple, list[int]] = {}
        for k, kind in enumerate(zip(optimiser.group, optimiser.counts, strict=True)):
            found.setdefault(kind, []).append(k)
        return sorted(found.values(), key=len, reverse=True)

    def _move_all(self, layout: Layout, gradient: int, norm: float, kinds: list[Sequence[int]]) -> None:
        """In one call for each kind; gradient : the address of its flat array."""
        optimiser, rule, now, new = self.optimiser, self.rule, self.now, self.spare
        assert rule is not None
        counts = [count + 1 for count in optimiser.counts]
        scale = self.clip / norm if self.clip is not None and norm > self.clip else 1.0
        if now is None or not now.holds(layout, optimiser):
            now = rule.fresh()
            now.fill(optimiser)
        if new is None or not new.free:
            new = rule.fresh()
        rule(now, gradient, (scale, *optimiser.numbers_of(kinds[0][0], counts[kinds[0][0]])), new)
        for members in kinds[1:]:
            self.other = other = self.other or rule.fresh()
            rule(now, gradient, (scale, *optimiser.numbers_of(members[0], counts[members[0]])), other)
            new.take(other, members)
        self.norm, parameters = norm, optimiser.parameters
        commit(
            chain(
                zip(parameters, repeat("_value"), new.views),
                zip(parameters, repeat("changed"), repeat(next_number())),
                zip(repeat(optimiser), optimiser.slots, new.slots),
                [
                    (optimiser, "steps", optimiser.steps + 1),
                    (optimiser, "counts", counts),
                    (self, "now", new),
                    (self, "spare", now),
                ],
            )
        )
