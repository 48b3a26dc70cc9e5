"""Arrays by name into the leaves of a layer: all that does not fit is named at once, and nothing is half loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from minigrad import DTypeError, InputError, ShapeError, Tensor
from minigrad.errors import dims
from minigrad.names import printable
from minigrad.optim import assigned, commit

LISTED = 50  # names in a message


class Loaded(NamedTuple):
    """What was not loaded: names that were missing, names that the layer does not have, and, by name, why
    an array did not fit."""

    missing: list[str]
    surplus: list[str]
    unfit: dict[str, str]


def set_by_name(
    who: str, own: Mapping[str, Tensor], others: Mapping[str, str], values: Mapping, strict: bool
) -> Loaded:
    """Give the leaves in `own` the arrays in `values`, all at once; others : further names of leaves and layers.

    Raises, where `strict`, InputError, ShapeError or DTypeError for whatever does not fit.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{who}: give a dict of arrays by name, not {type(values).__name__}")
    found: dict[str, np.ndarray] = {}
    came_as: dict[str, str] = {}
    surplus: list[str] = []
    unfit: dict[str, str] = {}
    kinds: set[type] = set()
    for name, value in values.items():
        first = first_name(name, own, others)
        if first is None:
            surplus.append(name)
            continue
        array, kind, said = _fitted(value, own[first])
        if kind is None and first in found and not _same(found[first], array):
            kind, said = InputError, f"differs from {printable(came_as[first])}, with which it is shared here"
        if kind is not None:
            kinds.add(kind)
            unfit[name] = said
        else:
            found[first], came_as[first] = array, name
    seen = {first_name(name, own, others) for name in unfit}
    missing = [name for name in own if name not in found and name not in seen]
    if strict and (missing or surplus or unfit):
        kind = kinds.pop() if len(kinds) == 1 and not missing and not surplus else InputError
        raise kind(f"{who}: {_said(missing, surplus, unfit)}; nothing was changed")
    commit([change for name, array in found.items() for change in assigned(own[name], array)])
    return Loaded(missing, surplus, unfit)


def first_name(name, own: Mapping[str, Tensor], others: Mapping[str, str]) -> str | None:
    """By which name the layer has a leaf that is given by any of its names; None where it has none."""
    if not isinstance(name, str):
        return None
    for _ in range(2 + name.count(".")):  # what is shared may stand in what is shared
        if name in own:
            return name
        other = next((o for o in others if name == o or name.startswith(f"{o}.")), None)
        if other is None:
            return None
        name = f"{others[other]}{name.removeprefix(other)}".removeprefix(".")
    return None


def _fitted(value, leaf: Tensor) -> tuple[np.ndarray, type | None, str]:
    """A copy that can be the value of a leaf; or why it cannot: the kind of error, and what it says."""
    try:
        array = np.asarray(value.value if isinstance(value, Tensor) else value)
    except (ValueError, TypeError):
        array = np.empty(0, object)
    if array.dtype.kind not in "fiubc":
        return array, InputError, "is not a numeric array"
    if array.shape != leaf.shape:
        return array, ShapeError, f"has shape {dims(array.shape)}, not {dims(leaf.shape)}"
    if array.dtype.newbyteorder("=") != leaf.dtype:  # a cast would not give the same numbers
        said = f"is {array.dtype}, not {leaf.dtype}: convert it with .astype('{leaf.dtype}')"
        return array, DTypeError, said
    return np.array(array, leaf.dtype, order="C"), None, ""


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _said(missing: list[str], surplus: list[str], unfit: dict[str, str]) -> str:
    """All that is wrong, in a sentence."""
    parts = [
        f"{what} {_listed(map(_shown, names))}"
        for what, names in (("missing", missing), ("surplus", surplus))
        if names
    ]
    if unfit:
        parts.append(_listed(f"{_shown(name)} {why}" for name, why in unfit.items()))
    return "; ".join(parts)


def _shown(name) -> str:
    return printable(name, 200)


def _listed(texts) -> str:
    texts = list(texts)
    rest = [f"and {len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return ", ".join(texts[:LISTED] + rest)
