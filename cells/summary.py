"""What `print(layer)` shows: a tree of layers with shapes and counts, what is frozen, shared or a constant said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from minigrad import Tensor
from minigrad.errors import dims
from minigrad.names import name_of, printable
from minigrad.roles import PARAMETER

from .within import Holder, attributes_of, leaves_within, parts_of


class Row(NamedTuple):
    depth: int
    label: str
    shape: str = ""
    count: int | None = None  # of numbers that are learned, or would be
    said: str = ""


def tree(layer: Holder) -> str:
    """One line for each layer and leaf, what stands within a layer below it."""
    own = layer.parameters().values()
    frozen = sum(p.size for p in own if not p.requires_grad)
    rows = list(_rows(layer, 1, "", {id(layer): "the whole"}))
    left = [f"{'  ' * row.depth}{row.label}" for row in rows]
    counts = ["" if row.count is None else f"{row.count:,}" for row in rows]
    widths = [max([*map(len, column), 8]) for column in (left, [row.shape for row in rows], counts)]
    lines = [
        f"{name:<{widths[0]}}  {row.shape:<{widths[1]}}  {count:>{widths[2]}}  {row.said}".rstrip()
        for name, row, count in zip(left, rows, counts, strict=True)
    ]
    some = f" ({frozen:,} frozen)" if frozen else ""
    title = f"{printable(layer.described())}, {sum(p.size for p in own):,} parameters{some}, {layer.dtype}"
    return "\n".join([title, *lines])


def _rows(layer: Holder, depth: int, path: str, seen: dict[int, str]) -> Iterator[Row]:
    """The rows of what a layer keeps; seen : by id, the first place of what was shown."""
    if layer._own_way:  # it has a way of its own
        for name, p in layer.parameters().items():
            yield from _of(name, p, depth, f"{path}{name}", seen)
    for attribute, value in attributes_of(layer):
        if attribute == layer.numbered and isinstance(value, (list, tuple, dict)):
            yield from _of_parts(value, depth, path, seen)
        elif id(value) not in seen or attribute in layer._names or attribute in layer._constants:
            yield from _of(attribute, value, depth, f"{path}{attribute}", seen)
        else:
            yield Row(depth, f"{printable(attribute)}: {_kind(value)}", said=f"shared with {seen[id(value)]}")


def _of(name: str, value, depth: int, path: str, seen: dict[int, str]) -> Iterator[Row]:
    label = printable(name)
    if id(value) in seen:
        kind = "" if isinstance(value, Tensor) else f": {_kind(value)}"
        yield Row(
            depth, f"{label}{kind}", _shape(value), said=f"shared with {printable(seen[id(value)], 200)}"
        )
        return
    before = set(seen)
    seen[id(value)] = path
    if isinstance(value, Tensor):
        said = "constant" if value.is_constant else "" if value.requires_grad else "frozen"
        yield Row(depth, label, _shape(value), None if value.is_constant else value.size, said)
    elif isinstance(value, Holder):
        fresh = [p for _, p, kind in leaves_within(value, before) if kind == PARAMETER]
        count = sum(p.size for p in fresh)
        still = bool(fresh) and not any(p.requires_grad for p in fresh)
        yield Row(depth, f"{label}: {_kind(value)}", count=count or None, said="frozen" if still else "")
        yield from _rows(value, depth + 1, f"{path}.", seen)
    elif isinstance(value, (list, tuple, dict)):
        yield Row(depth, label)
        yield from _of_parts(value, depth + 1, f"{path}.", seen)
    elif callable(value):
        yield Row(depth, f"{label}: {_kind(value)}")


def _of_parts(value, depth: int, path: str, seen: dict[int, str]) -> Iterator[Row]:
    """Layers, leaves and functions in a list or dictionary."""
    for key, part in parts_of(value):
        if isinstance(part, (Tensor, Holder, list, tuple, dict)):
            yield from _of(str(key), part, depth, f"{path}{key}", seen)
        elif callable(part):
            yield Row(depth, f"{printable(key)}: {_kind(part)}")


def _shape(value) -> str:
    return dims(value.shape) if isinstance(value, Tensor) else ""


def _kind(value) -> str:
    if isinstance(value, Holder):
        return printable(value.described())
    return printable(name_of(value)) if callable(value) else type(value).__name__
