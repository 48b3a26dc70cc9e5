"""What all recurrent cells share, and `unroll`, which runs one over a sequence.

A cell is a class with the equations of its slide in `step` and the names of its
gates and states; it knows nothing of sequences, layers or pictures.  Every
quantity that `step` returns is named in the graph, so that errors, pictures and
equations speak of ``f`` and ``c_tilde`` and of the step they stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from minigrad import DTypeError, InputError, ShapeError, Tensor, describe, scope, zeros
from minigrad.init import glorot, orthogonal
from minigrad.tensor import let_go

from .layer import Layer, positive
from .masks import advance, check_truncate, steps_that_count


class Cell(Layer):
    """A recurrent cell: D inputs, H hidden units.

    A subclass names its `gates` and its `state` (each separated by blanks, the
    first state is the output), makes its parameters in `build`, and computes one step
    in ``step(x, *state)``: x (N, D) and states (N, H) → the named quantities.
    """

    gates = ""
    state = "h"

    def __init__(self, inputs: int, hidden: int, rng: np.random.Generator, dtype="float32"):
        super().__init__(dtype)
        positive(type(self).__name__, inputs=inputs, hidden=hidden)
        self.inputs, self.hidden = int(inputs), int(hidden)
        self.build(rng)

    def build(self, rng: np.random.Generator) -> None:
        raise NotImplementedError(f"{type(self).__name__} must make its parameters in build(rng)")

    def step(self, x: Tensor, *state: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must compute one step in step(x, *state)")

    def gate_parameters(self, gate: str, rng: np.random.Generator, bias: float = 0.0) -> None:
        """W_gate (H + D, H), rows in the order [h_prev, x]: orthogonal, then Glorot; and b_gate (H,)."""
        self.weights(f"W_{gate}", rng)
        self.parameter(f"b_{gate}", np.full(self.hidden, bias))

    def weights(self, name: str, rng: np.random.Generator) -> None:
        """A matrix (H + D, H), rows in the order [h_prev, x]: orthogonal, then Glorot."""
        recurrent = orthogonal(rng, (self.hidden, self.hidden))
        self.parameter(name, np.concatenate([recurrent, glorot(rng, (self.inputs, self.hidden))]))

    def initial_state(self, sequences: int) -> tuple[Tensor, ...]:
        """Zeros (N, H) for every state."""
        return tuple(zeros((sequences, self.hidden), self.dtype.name).named(s) for s in self.state.split())

    @property
    def outputs(self) -> int:
        """How many numbers a step gives for each sequence."""
        return self.hidden

    def __repr__(self) -> str:
        gates = f"gates {self.gates}, " if self.gates else ""
        first, *rows = super().__repr__().split("\n")
        return "\n".join(
            [f"{first}; {self.inputs} inputs, {self.hidden} hidden, {gates}state {self.state}", *rows]
        )


class Step:
    """One step's named quantities: ``step.f`` or ``step["f"]``; `t` counts from 1, `x` is the input."""

    def __init__(self, t: int, x: Tensor, quantities: dict[str, Tensor], state: tuple[Tensor, ...]):
        self.t, self.x, self.quantities, self.state = t, x, quantities, state

    def __getitem__(self, name: str) -> Tensor:
        if name == "x":
            return self.x
        try:
            return self.quantities[name]
        except KeyError:
            raise InputError(
                f"step t={self.t} has no {name!r}; it has x, {', '.join(self.quantities)}"
            ) from None

    def __getattr__(self, name: str) -> Tensor:
        quantities = vars(self).get("quantities", {})  # none yet while it is copied or unpickled
        if name.startswith("_") or name not in quantities:
            raise AttributeError(
                f"step t={vars(self).get('t')} has no {name!r}; it has x, {', '.join(quantities)}"
            )
        return quantities[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.quantities)

    def __repr__(self) -> str:
        return f"<step t={self.t}: x, {', '.join(self.quantities)}>"


def unroll(
    cell: Cell,
    xs,
    state: Sequence | None = None,
    *,
    output: Callable | None = None,
    label: str = "",
    reverse: bool = False,
    lengths=None,
    mask=None,
    truncate: int | None = None,
) -> list[Step]:
    """Run `cell` over a sequence and return one record per step, every gate by name.

    xs : (T, N, D), or a sequence of T tensors (N, D).
    state : the states before the first step, each (N, H); default zeros.  A detached one lets go of its
        history (see `Tensor.detach`).
    output : an output layer; each step then also has y = output(h) of its first state.
    label : a scope around the steps, e.g. "layer 1".
    reverse : read the sequence from its end; the records stay in the order of time.
    lengths : (N,) whole numbers 0 … T, where each sequence ends; or
    mask : (T, N) booleans, True where a step is real.  Elsewhere the states are carried through.
    truncate : let no gradient flow further back than to the last cut; cuts are `truncate` steps apart.

    Step t (from 1 to T) stands in scope "t=…"; the first states stand in "t=0", or behind the
    last step when it is read from its end.  Raises ShapeError, naming the step, for inputs,
    states or masks of another shape, and InputError for an empty sequence or impossible lengths.
    """
    inputs = _inputs(cell, xs)
    T, N = len(inputs), inputs[0].shape[0]
    check_truncate(type(cell).__name__, truncate)
    real = steps_that_count(type(cell).__name__, xs, lengths, mask, T, N)
    with scope(*filter(None, [label])):
        with scope(f"t={T + 1 if reverse else 0}"):
            now = first_state(cell, state, N)
        steps = []
        for count, t in enumerate(range(T, 0, -1) if reverse else range(1, T + 1)):
            x = inputs[t - 1]
            with scope(f"t={t}"):
                if truncate is not None and count and count % truncate == 0:
                    now = tuple(s.detach() for s in now)
                padded = None if real is None or real[t - 1].all() else real[t - 1][:, None]
                quantities = advance(cell, x, now, padded)
                now = _check(cell, t, quantities, now)
                if output is not None:
                    quantities["y"] = output(now[0])
            name_all(quantities)
            steps.append(Step(t, x, quantities, now))
    return steps[::-1] if reverse else steps


def name_all(quantities: dict[str, Tensor]) -> None:
    """Let every tensor bear its name; what has one keeps it."""
    for name, tensor in quantities.items():
        if tensor.name is None:
            tensor.name = name


def _inputs(cell: Cell, xs) -> list[Tensor]:
    who = type(cell).__name__
    if isinstance(xs, (Tensor, np.ndarray)):
        if xs.ndim != 3:
            raise ShapeError(f"{who}: the input has shape {xs.shape}; give (steps, sequences, features)")
    elif not isinstance(xs, Sequence):
        raise InputError(
            f"{who}: give the input as an array (T, N, D) or a sequence of (N, D), not {type(xs).__name__}"
        )
    if not len(xs):
        raise InputError(f"{who}: a sequence of T = 0 steps has nothing to unroll; give at least one step")
    inputs = []
    for t, x in enumerate(xs, 1):
        if not isinstance(x, Tensor):
            with scope(f"t={t}"):
                x = Tensor(x, name="x")
        if x.ndim != 2 or x.shape[1] != cell.inputs:
            raise ShapeError(
                f"{who} step t={t}: x {x.shape} has {x.shape[-1] if x.ndim else 0} features, "
                f"the cell was made for ({inputs[0].shape[0] if inputs else 'sequences'}, {cell.inputs})"
            )
        if inputs and x.shape[0] != inputs[0].shape[0]:
            raise ShapeError(
                f"{who} step t={t}: x {x.shape} has {x.shape[0]} sequences, step t=1 has {inputs[0].shape[0]}"
            )
        if x.dtype.kind == "f" and x.dtype != cell.dtype:
            raise DTypeError(
                f"{who} step t={t}: x is {x.dtype}, the cell {cell.dtype}; convert one with .astype(…)"
            )
        inputs.append(x)
    return inputs


def first_state(cell: Cell, state, N) -> tuple[Tensor, ...]:
    """The states before the first step, checked; N may be a size that is not known yet."""
    names = cell.state.split()
    if state is None:
        return cell.initial_state(N)
    if isinstance(state, dict) and sorted(state) == sorted(names):
        state = [state[name] for name in names]
    given = (
        tuple(state)
        if isinstance(state, dict)
        else tuple(state)
        if isinstance(state, (tuple, list))
        else (state,)
    )
    if len(given) != len(names) or isinstance(state, dict):
        called = f" ({', '.join(map(str, state))})" if isinstance(state, dict) else ""
        raise ShapeError(
            f"{type(cell).__name__}: {len(given)} states given{called}, "
            f"the cell has {len(names)}: {cell.state}"
        )
    tensors = tuple(
        let_go(s) if isinstance(s, Tensor) else Tensor(s, name=n) for s, n in zip(given, names, strict=True)
    )
    for name, s in zip(names, tensors, strict=True):
        if len(s.shape) != 2 or tuple(s.shape) != (N, cell.hidden):
            raise ShapeError(
                f"{type(cell).__name__}: state {name} is {describe(s)}; give ({N}, {cell.hidden})"
            )
        if s.dtype.kind == "f" and s.dtype != cell.dtype:
            raise DTypeError(
                f"{type(cell).__name__}: state {describe(s)}, the cell is {cell.dtype}; "
                "convert one with .astype(…)"
            )
    return tensors


def _check(
    cell: Cell, t: int, quantities: dict[str, Tensor], before: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The states after a step, which must be there and keep their shape."""
    who = f"{type(cell).__name__} step t={t}"
    missing = [n for n in cell.state.split() if n not in quantities]
    if missing:
        raise InputError(
            f"{who}: step returned {', '.join(quantities)}; the state {', '.join(missing)} is missing"
        )
    now = tuple(quantities[n] for n in cell.state.split())
    for name, old, new in zip(cell.state.split(), before, now, strict=True):
        if new.shape != old.shape or new.dtype is not old.dtype:
            raise ShapeError(f"{who}: state {name} became {describe(new)}, it was {old.shape} {old.dtype}")
    return now
