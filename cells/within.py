"""What stands within a layer: the parameters, constants and layers that its attributes hold, by name, each once.

Shared by the layers themselves (`layer.py`) and by what prints them (`summary.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from minigrad import Tensor
from minigrad.roles import CONSTANT, PARAMETER


class Holder:
    """What a layer is to those that look into it; `Layer` is the only one."""

    dtype: np.dtype
    numbered = ""  # the attribute whose layers are called by their numbers alone: "1.W_f"
    _names: tuple[str, ...] = ()  # attributes that are parameters, also when they do not learn for a while
    _constants: tuple[str, ...] = ()  # attributes that are constants
    _own_way = False  # whether its class tells its parameters in a way of its own

    def parameters(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def described(self) -> str:
        raise NotImplementedError


def holds(value, within: tuple = ()) -> bool:
    """Is this something that a layer keeps by name?  It may stand in itself, `within` is what it stands in."""
    if isinstance(value, Tensor):
        return value.is_leaf and (value.requires_grad or value.role is not None)
    if isinstance(value, (list, tuple, dict)):
        return not any(value is w for w in within) and any(
            holds(part, (*within, value)) for _, part in parts_of(value)
        )
    return isinstance(value, Holder)


def parts_of(value) -> Iterator[tuple[object, object]]:
    """The parts of a list or tuple by their numbers, from 1, or of a dictionary by their keys."""
    yield from value.items() if isinstance(value, dict) else enumerate(value, 1)


def attributes_of(layer: Holder) -> Iterator[tuple[str, object]]:
    """What a layer keeps, attribute by attribute."""
    for attribute, value in vars(layer).items():
        known = attribute in layer._names or attribute in layer._constants
        if known or (not isinstance(value, Tensor) and holds(value)):
            yield attribute, value


def leaves_in(value) -> Iterator[tuple[str, Tensor, str]]:
    """Those of whatever an attribute has: a leaf, a layer, or a list, tuple or dictionary of them."""
    yield from _named("", value, PARAMETER, {}, {}) if holds(value) else ()


def leaves_within(layer: Holder, without: Iterable[int] = ()) -> Iterator[tuple[str, Tensor, str]]:
    """What a layer keeps: (name, leaf, parameter or constant), in the order of its attributes, each once.

    without : ids of layers and leaves that are passed over.
    """
    yield from _within(layer, "", dict.fromkeys((*without, id(layer)), (None, "")), {})


def shared_within(layer: Holder) -> dict[str, str]:
    """The further names of what a layer keeps more than once, a tensor, a layer or a list, and the first of each."""
    others: dict[str, str] = {}
    for _ in _within(layer, "", {id(layer): (layer, "")}, others):
        pass
    return others


def _within(layer: Holder, prefix: str, seen: dict, others: dict[str, str]) -> Iterator:
    for attribute, value in attributes_of(layer):
        kind = CONSTANT if attribute in layer._constants else PARAMETER
        own = "" if attribute == layer.numbered else attribute
        yield from _named(f"{prefix}{own}", value, kind, seen, others)


def _named(name: str, value, kind: str, seen: dict, others: dict[str, str]) -> Iterator:
    """What is kept in an attribute, whatever it is."""
    if id(value) in seen:
        others[name.rstrip(".")] = seen[id(value)][1]
        return
    seen[id(value)] = value, name.rstrip(".")
    if isinstance(value, Tensor):
        yield name, value, kind
    elif isinstance(value, (list, tuple, dict)):
        for key, part in parts_of(value):
            if holds(part):
                own = part.role.kind if isinstance(part, Tensor) and part.role is not None else PARAMETER
                yield from _named(_joined(name, key), part, own, seen, others)
    elif isinstance(value, Holder):
        if not value._own_way:
            yield from _within(value, f"{name}.", seen, others)
            return
        for inner, p in value.parameters().items():  # one that has a way of its own
            yield from _named(f"{name}.{inner}", p, PARAMETER, seen, others)
        yield from (leaf for leaf in _within(value, f"{name}.", seen, others) if leaf[2] == CONSTANT)


def _joined(name: str, key) -> str:
    return f"{name}{'.' if name and not name.endswith('.') else ''}{key}"
