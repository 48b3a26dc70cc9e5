"""A cell over a sequence: step by step on values, so that each can be seen; one loop where it is traced.

A cell is anything with ``step(x, *state)`` that returns its quantities by name, the names of its states in
`state`, `inputs`, `dtype`, and, unless they are (N, hidden), its first states in ``initial_state(N)``.  States
may have any shape whose first axis is that of the sequences.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from minigrad import (
    DTypeError,
    InputError,
    ShapeError,
    Tensor,
    as_tensor,
    broadcast_to,
    describe,
    no_grad,
    scan,
    scope,
    stack,
    where,
    zeros,
)
from minigrad.hints import LAYER_PARAMETERS, refuse
from minigrad.tensor import let_go

from .masks import check_truncate, cuts, padded_to_zero, spread, steps_first, steps_that_count
from .steps import Run, Step

OPTIONS = ("state", "output", "label", "reverse", "lengths", "mask", "truncate", "dropout")


def recur(
    cell,
    xs,
    state=None,
    *,
    output: Callable | None = None,
    label: str = "",
    reverse: bool = False,
    lengths=None,
    mask=None,
    truncate: int | None = None,
    **beside,
) -> Run:
    """Run a cell over xs; options, shapes and errors are those of `cells.run`."""
    who = type(cell).__name__
    check_truncate(who, truncate)
    check_step(cell, beside)
    xs, beside = _sequence(who, xs), {name: _rows(rows) for name, rows in beside.items()}
    options = (beside, output, reverse, lengths, mask, truncate)
    with scope(*filter(None, [label])):
        if any(isinstance(a, Tensor) and a.is_symbol for a in (xs, lengths, mask, *beside.values())):
            return _looped(cell, xs, state, *options)
        return _unrolled(cell, xs, state, *options)


def _unrolled(cell, xs, state, beside, output, reverse, lengths, mask, truncate) -> Run:
    who, names, inputs = type(cell).__name__, state_names(cell), _inputs(cell, xs)
    T, N = len(inputs), inputs[0].shape[0]
    for name, rows in beside.items():
        _check_beside(cell, name, rows, T, N)
    real = steps_that_count(who, xs, lengths, mask, T, N)
    with scope(f"t={T + 1 if reverse else 0}"):
        now = first_state(cell, state, N, T)
    steps = []
    for count, t in enumerate(range(T, 0, -1) if reverse else range(1, T + 1)):
        x, more = inputs[t - 1], {name: _row(name, rows, t) for name, rows in beside.items()}
        with scope(f"t={t}"):
            if truncate is not None and count and count % truncate == 0:
                now = tuple(s.detach() for s in now)
            padded = None if real is None or real[t - 1].all() else real[t - 1]
            quantities, now = advance(cell, names, t, x, more, now, padded)
            if output is not None:
                quantities["y"] = output(now[0])
        name_all(quantities)
        steps.append(Step(t, {"x": x, **more}, quantities, now))
    return Run(None, now, steps[::-1] if reverse else steps, names[0])


def _looped(cell, xs, state, beside, output, reverse, lengths, mask, truncate) -> Run:
    who, names, xs = type(cell).__name__, state_names(cell), joined(xs)
    xs = xs if isinstance(xs, Tensor) else Tensor(xs, name="x")
    if len(xs.shape) != 3 or xs.shape[2] != cell.inputs:
        raise ShapeError(f"{who}: x {describe(xs)}; the cell was made for (steps, sequences, {cell.inputs})")
    if xs.dtype.kind == "f" and xs.dtype != cell.dtype:
        raise DTypeError(f"{who}: x is {xs.dtype}, the cell {cell.dtype}; convert one with .astype(…)")
    T, N = xs.shape[:2]
    for name, rows in beside.items():
        _check_beside(cell, name, rows, T, N)
    first = first_state(cell, state, N, T)
    real = steps_that_count(who, xs, lengths, mask, T, N)
    sequences: dict = {"x": xs}
    if real is not None:
        sequences["real"] = as_tensor(real).reshape((T, N, 1))
    if truncate is not None:
        sequences["cut"] = cuts(xs, truncate, reverse)
    sequences["beside"] = beside

    def step(before, now):
        if "cut" in now:
            before = tuple(where(now["cut"], s.detach(), s) for s in before)
        for name, row in now["beside"].items():
            row.name = name
        quantities, after = advance(cell, names, None, now["x"], now["beside"], before, now.get("real"))
        if output is not None:
            quantities["y"] = output(after[0])
        name_all(quantities)
        return after, quantities

    for name, s in zip(names, first, strict=True):
        if s.name is None:
            s.name = name
    carry, quantities = scan(step, first, sequences, reverse=reverse)
    return Run(quantities, carry, [], names[0])


def advance(cell, names: list[str], t: int | None, x: Tensor, beside: dict[str, Tensor], before, real=None):
    """Step t: its quantities, and the states among them.

    Where `real` (N,) or (N, 1) is False all inputs count as 0 and the states stay as they were.
    """
    if real is not None:
        x = padded_to_zero(real, x)
        beside = {name: padded_to_zero(real, a) for name, a in beside.items()}
    made = cell.step(x, *before, **beside)
    now = _checked(cell, names, t, made, before)
    quantities = dict(made)
    if real is not None:
        now = tuple(where(spread(real, new), new, old) for new, old in zip(now, before, strict=True))
        quantities.update(zip(names, now, strict=True))
    return quantities, now


def name_all(quantities: dict[str, Tensor]) -> None:
    """Let every tensor bear its name; what has one keeps it."""
    for name, tensor in quantities.items():
        if tensor.name is None:
            tensor.name = name


# States.


def state_names(layer) -> list[str]:
    """Names of a layer's states in their order; none where it has none."""
    return getattr(layer, "state", "").split()


def in_order(layer, state) -> tuple | None:
    """The states given to a layer in the order of its names: from a tuple, a dict by name, or the only one.

    Raises ShapeError unless there are as many as the layer has.
    """
    if state is None:
        return None
    names = state_names(layer)
    if isinstance(state, Mapping) and sorted(state) == sorted(names):
        return tuple(state[name] for name in names)
    given = tuple(state) if isinstance(state, (tuple, list, Mapping)) else (state,)
    if len(given) != len(names) or isinstance(state, Mapping):
        called = f" ({', '.join(map(str, state))})" if isinstance(state, Mapping) else ""
        raise ShapeError(
            f"{type(layer).__name__}: {len(given)} states given{called}, it has {len(names)}: {' '.join(names)}"
            + _layer_by_layer(given, names)
        )
    return given


def _layer_by_layer(given: tuple, names: list[str]) -> str:
    """A remedy where the states of several layers, (layers, N, H) each, were given in one array."""
    kinds = [name.rsplit(".", 1)[-1].removesuffix("_back") for name in names]
    count = len(given)
    layers, shapes = len(names) // max(count, 1), [tuple(getattr(s, "shape", ())) for s in given]
    if kinds != kinds[:count] * layers or any(len(shape) != 3 or shape[0] != layers for shape in shapes):
        return ""
    rows = [f"{kind}[{k}]" for k in range(layers) for kind in kinds[:count]]
    return (
        f"; one for each layer or direction, so give the rows of {_written(shapes[0])}: ({', '.join(rows)})"
    )


def zero_states(cell, sequences: int) -> tuple[Tensor, ...]:
    """The states before the first step: zeros (N, H) for each.  A subclass of `Cell` may give others.

    Their first axis is that of the sequences; one of a single row is taken for all of them, so that a parameter
    (1, H) is a first state that is learned.
    """
    return tuple(zeros((sequences, cell.hidden), cell.dtype).named(s) for s in state_names(cell))


def first_states(layer, N) -> tuple:
    """What ``layer.initial_state(N)`` gives, in order; zeros for a cell that does not say."""
    if not hasattr(layer, "initial_state"):
        return zero_states(layer, N)
    found = in_order(layer, layer.initial_state(N))
    if found is None:
        raise InputError(f"{type(layer).__name__}: initial_state returned nothing; return a tuple of states")
    return found


def _of_layers(name: str, given: tuple, shape: tuple) -> str:
    """A remedy for a state with an axis of layers, as (1, N, H) is where (N, H) is wanted."""
    several = len(given) == len(shape) + 2 and given[2:] == shape
    return f", without the axis of layers, e.g. {name}[0]" if several else ""


def first_state(cell, state, N, T=None) -> tuple[Tensor, ...]:
    """The states before the first step, checked, one of a single row for all sequences; N may be not known yet.

    T : how many steps x has, by which a message tells whether its axes were meant the other way round.
    """
    if state is None and _starts_at_zero(cell):
        return zero_states(cell, N)
    who, names = type(cell).__name__, state_names(cell)
    given = in_order(cell, state)
    if given is None:
        given = [as_tensor(s) for s in first_states(cell, N)]
        rest = [(tuple(s.shape[1:]), s.dtype if s.dtype.kind != "f" else cell.dtype) for s in given]
    else:
        rest = _shapes(cell)
    ready = []
    for name, s, (shape, dtype) in zip(names, given, rest, strict=True):
        s = let_go(s) if isinstance(s, Tensor) else Tensor(s, name=name)
        if not s.shape or s.shape[0] not in (N, 1) or tuple(s.shape[1:]) != shape:
            one = "" if N == 1 else f", or {_written((1, *shape))} for all sequences"
            raise ShapeError(
                f"{who}: state {name} is {describe(s)}; give {_written((N, *shape))}{one}"
                + _of_layers(name, tuple(s.shape), shape)
                + (steps_first(s.shape[0], T, N) if tuple(s.shape[1:]) == shape else "")
            )
        if s.dtype != dtype:
            raise DTypeError(
                f"{who}: state {describe(s)}, the cell's is {dtype}; convert one with .astype(…)"
            )
        if s.shape[0] != N:
            s = broadcast_to(s, (N, *shape)).named(name)
        ready.append(s)
    return tuple(ready)


def _starts_at_zero(cell) -> bool:
    return getattr(type(cell), "initial_state", zero_states) is zero_states


def _shapes(cell) -> list[tuple[tuple, np.dtype]]:
    """Shape, without the axis of the sequences, and dtype of every state."""
    if _starts_at_zero(cell):
        return [((cell.hidden,), cell.dtype)] * len(state_names(cell))
    with no_grad():
        return [(tuple(s.shape[1:]), s.dtype) for s in map(as_tensor, first_states(cell, 1))]


def _written(shape: tuple) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _checked(cell, names: list[str], t: int | None, made, before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The states after a step, which must be there and keep shape and dtype."""
    if type(made) is not dict and not isinstance(made, Mapping):
        what = describe(made) if isinstance(made, Tensor) else _what(made)
        example = ", ".join(f"{n}={n}" for n in names)
        raise InputError(
            f"{_place(cell, t)}: step returned {what}; return its quantities by name, the states among them: "
            f"return dict({example})"
        )
    for name, q in made.items():
        if type(q) is not Tensor and not isinstance(q, Tensor):
            raise InputError(
                f"{_place(cell, t)}: step returned {name} as {_what(q)}, not a tensor; make it one, e.g. as_tensor(…)"
            )
    now = tuple([made[n] for n in names if n in made])
    if len(now) < len(names):
        missing = [n for n in names if n not in made]
        raise InputError(
            f"{_place(cell, t)}: step returned {', '.join(made)}; the state {', '.join(missing)} is missing, "
            "return it too, or name what is carried in `state`"
        )
    for name, old, new in zip(names, before, now, strict=True):
        if new.shape != old.shape or new.dtype != old.dtype:
            raise ShapeError(
                f"{_place(cell, t)}: state {name} became {describe(new)}, it was {_written(old.shape)} {old.dtype}; "
                "a step keeps the shape and dtype that initial_state gives"
            )
    return now


def _place(cell, t: int | None) -> str:
    return type(cell).__name__ + ("" if t is None else f" step t={t}")


def _what(a) -> str:
    if a is None:
        return "nothing"
    return f"a {type(a).__name__}" + (f" of {len(a)}" if isinstance(a, (tuple, list)) else "")


# Inputs.


def joined(xs):
    """Steps (N, …) that are given one by one as one sequence (T, N, …)."""
    several = isinstance(xs, (list, tuple)) and any(isinstance(x, Tensor) for x in xs)
    return stack([as_tensor(x) for x in xs]) if several else xs


def _sequence(who: str, xs):
    if isinstance(xs, (Tensor, np.ndarray)):
        if len(xs.shape) != 3:
            raise ShapeError(
                f"{who}: the input has shape {_written(xs.shape)}; give (steps, sequences, features)"
                + (
                    ", for a single step x[None], for a single sequence x[:, None]"
                    if len(xs.shape) == 2
                    else ""
                )
            )
    elif not isinstance(xs, Sequence):
        raise InputError(
            f"{who}: give the input as an array (T, N, D) or a sequence of (N, D), not {type(xs).__name__}"
        )
    return xs


def _inputs(cell, xs) -> list[Tensor]:
    who = type(cell).__name__
    if not len(xs):
        raise InputError(f"{who}: a sequence of T = 0 steps has nothing to unroll; give at least one step")
    inputs: list[Tensor] = []
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


def _rows(rows):
    """A tensor of the caller's, or an array, of which each step has its row."""
    rows = joined(rows)
    return rows if isinstance(rows, Tensor) else np.asarray(rows)


def _row(name: str, rows, t: int) -> Tensor:
    """An input of step t; of a tensor it is cut out before the step, as x is."""
    if isinstance(rows, Tensor):
        return rows[t - 1].named(name)
    with scope(f"t={t}"):
        return Tensor(rows[t - 1], name=name)


def _check_beside(cell, name: str, rows, T, N) -> None:
    who, shape = type(cell).__name__, rows.shape
    if rows.dtype.kind not in "fiub":
        raise DTypeError(f"{who}: {name} is {rows.dtype}; give numbers or booleans")
    if not shape or shape[0] != T:
        raise ShapeError(
            f"{who}: {name} {_written(shape)} needs a row for each of the {T} steps; give ({T}, …)"
            + (steps_first(T, T, N) if shape[:2] == (N, T) else "")
        )
    if len(shape) > 1 and shape[1] not in (N, 1):
        raise ShapeError(
            f"{who}: {name} {_written(shape)} has {shape[1]} sequences, x has {N}; give ({T}, {N}, …), ({T}, 1, …) "
            f"for what all sequences share, or ({T},) for a number a step"
        )
    if rows.dtype.kind == "f" and rows.dtype != cell.dtype:
        raise DTypeError(f"{who}: {name} is {rows.dtype}, the cell {cell.dtype}; convert one with .astype(…)")


def takes(layer) -> dict[str, bool] | None:
    """What a layer's step takes beside x and the states, by name, and whether it must be given; None: anything."""
    if hasattr(layer, "cells"):
        found: dict[str, bool] = {}
        for cell in layer.cells:
            own = takes(cell)
            if own is None:
                return None
            found |= {name: must or found.get(name, False) for name, must in own.items()}
        return found
    if not hasattr(layer, "step"):
        return {}
    own = _keywords(
        getattr(layer.step, "__func__", layer.step), hasattr(layer.step, "__func__"), len(state_names(layer))
    )
    if own is not None or not hasattr(getattr(layer, "cell", None), "step"):
        return own
    return takes(layer.cell)  # a step that hands on what its cell takes


@lru_cache(256)
def _keywords(step: Callable, bound: bool, states: int) -> dict[str, bool] | None:
    """Raises InputError where a step cannot be called with x and so many states."""
    given = list(inspect.signature(step).parameters.values())[bound:]
    by_place = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = any(p.kind is p.VAR_POSITIONAL for p in given)
    if len(by_place) < 1 + states and not rest:
        raise InputError(
            f"{step.__qualname__}({', '.join(p.name for p in by_place)}) takes x and {max(0, len(by_place) - 1)} states, "
            f"`state` names {states}; write step(self, x, one argument for each state)"
        )
    if any(p.kind is p.VAR_KEYWORD for p in given):
        return None
    beside = [*by_place[1 + states :], *(p for p in given if p.kind is p.KEYWORD_ONLY)]
    taken = next((p.name for p in beside if p.name in OPTIONS and p.default is p.empty), None)
    if taken:
        raise InputError(
            f"{step.__qualname__}: {taken!r} is an option of every run; give the step's input another name"
        )
    return {p.name: p.default is p.empty for p in beside if p.name not in OPTIONS}


def check_step(layer, beside: Mapping) -> None:
    """Raise InputError for inputs beside x that the layer's step does not take, and for those it lacks."""
    known = takes(layer)
    if known is None or not (known or beside):
        return
    who = type(layer).__name__
    surplus = [name for name in beside if name not in known]
    if surplus:
        refuse(who, surplus, (), LAYER_PARAMETERS)
        inputs = f"beside x it takes {', '.join(known)}" if known else "it takes x and its states alone"
        raise InputError(
            f"{who}: its step takes no {', '.join(surplus)}; {inputs}.  Options of a run are {', '.join(OPTIONS[:-1])}"
        )
    missing = [name for name, must in known.items() if must and name not in beside]
    if missing:
        raise InputError(
            f"{who}: its step takes {', '.join(missing)} beside x; give one row a step, {missing[0]}=array (T, N, …)"
        )
