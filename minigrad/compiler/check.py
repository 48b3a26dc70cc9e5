"""What ``compile(f, check=True)`` compares: two traces of one function, and compiled with eager numbers.

A trace is Python that ran once.  Where a second one differs, something in the function is not its arguments':
an attribute that changed, a random number, an array made inside.  Where compiled numbers differ from eager
ones, the first quantity that does is looked for among all that bear a name, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import GraphError, describe, dims
from ..reverse import ancestors
from ..scanning import SCAN, stacked
from ..sizes import Size, source
from ..tensor import Tensor
from ..trace import asked_of, everywhere

# How far rounding may take the same computation done in another order, relative to the largest number.
TOLERANCE = {"float32": 1e-3, "float64": 1e-8}


def same_trace(name: str, first: Sequence[Tensor], second: Sequence[Tensor], start: int) -> None:
    """Raise GraphError where the same function traced twice gives two graphs: leaves before `start` are not part of it."""
    ours, theirs = everywhere(first), everywhere(second)
    for a, b in zip(ours, theirs, strict=False):
        if a.op is not b.op or a.name != b.name or _written(a.params) != _written(b.params):
            raise _lively(name, describe(a), describe(b))
        if a.op is None and a._value is not None and a is not b and not (
            a.number > start and b.number > start and _equal(a.value, b.value)
        ):  # fmt: skip
            what = f"an array {dims(a.shape)} with" if a.shape else "the number"
            raise _lively(name, f"{what} {_said(a.value, b.value)}", _said(b.value, a.value))
    if len(ours) != len(theirs):
        raise _lively(name, f"{len(ours)} operations", f"{len(theirs)} operations")


def _lively(name: str, first: str, second: str) -> GraphError:
    return GraphError(
        f"check of {name}: traced twice it differs: first {first}, then {second}. Python runs once, so this would be "
        "frozen in the program: pass it as an argument, or keep it in a tensor whose value is assigned"
    )


def _written(param) -> str:
    if isinstance(param, tuple):
        return str(tuple(map(_written, param)))
    if isinstance(param, Tensor):
        return describe(param)
    return source(param) if isinstance(param, Size) else "" if hasattr(param, "carry") else repr(param)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _said(a: np.ndarray, b: np.ndarray) -> str:
    """The first number of `a` that is not that of `b`."""
    if a.shape != b.shape:
        return f"of shape {dims(a.shape)}"
    at = first_difference(a, b, 0.0)
    return str(a[at]) if at is not None else str(a.dtype)


def largest(*arrays: np.ndarray) -> float:
    """The largest of all numbers that are finite."""
    floats = [b for b in arrays if b.dtype.kind == "f"]
    return max((float(np.abs(b[np.isfinite(b)]).max(initial=0)) for b in floats), default=0.0)


def first_difference(
    a: np.ndarray, b: np.ndarray, tolerance: float | None = None, beside: float = 0.0
) -> tuple | None:
    """Where two arrays of one shape differ by more than rounding; None where they do not.

    beside : the largest number of what was computed along with them; what cancels to nothing has its rounding.
    """
    if a.dtype.kind != "f":
        wrong = a != b
    else:
        bound = (TOLERANCE[str(b.dtype)] if tolerance is None else tolerance) * largest(b)
        bound += 1000 * float(np.finfo(b.dtype).eps) * beside
        with np.errstate(invalid="ignore"):
            wrong = ~((np.abs(a - b) <= bound) | (a == b) | (np.isnan(a) & np.isnan(b)))
    if not wrong.any():
        return None
    return tuple(int(k) for k in np.argwhere(wrong)[0])


@dataclass
class Quantity:
    """What bears a name in a traced graph: itself, or its values at all steps, in the order in which they come."""

    name: str
    asked: Tensor
    stepwise: bool = False
    backwards: bool = False


def quantities(results: Sequence[Tensor]) -> list[list[Quantity]]:
    """All that has a name, loop by loop, in the order in which it is computed."""
    groups: list[list[Quantity]] = []
    asked = asked_of(results)
    for node in ancestors(*results):
        if node.op is SCAN:
            body = node.params[0]
            inside = [n for n in body.nodes(*asked.get(node.number, [])) if n.name]
            groups.append([Quantity(str(n.name), stacked(node, n), True, body.reverse) for n in inside])
        elif node.op is not None and node.name and node.is_symbol:
            groups.append([Quantity(node.name, node)])
    return groups


def earliest(groups: Sequence[Sequence[Quantity]], ours: Sequence, theirs: Sequence) -> str:
    """The first quantity, at the first step, whose numbers differ, in words; nothing where all are the same."""
    pairs = iter(zip(ours, theirs, strict=True))
    beside = largest(*theirs)
    for group in groups:
        found: list[tuple[int, str]] = []
        for q in group:
            a, b = next(pairs)
            times: Sequence[int | slice] = [slice(None)]
            if q.stepwise:
                times = range(len(a))[:: -1 if q.backwards else 1]
            for order, t in enumerate(times):
                at = first_difference(a[t], b[t], beside=beside)
                if at is not None:
                    when = f" at t = {t + 1}" if q.stepwise else ""  # type: ignore[operator]
                    found.append((order, f"{q.name}{when} is {a[t][at]} compiled and {b[t][at]} eagerly"))
                    break
        if found:
            return min(found, key=lambda entry: entry[0])[1]
    return ""
