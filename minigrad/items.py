"""Itemised reverse mode: one walk carries the cotangents of many items side by side.

An item is what a gradient is to be split by: the step whose loss it came from, the gate
that it passed, the step at which a weight was used.  Reverse mode is linear, so the items'
gradients add up to the gradient.  Every cotangent has a leading axis of items; those that
a node cannot reach are left out, so that nothing is computed for them and "no way" is
told from "exactly zero".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from .axes import Move, moves
from .reverse import Kind, changed_after, unbroadcast, walk
from .tensor import Tensor

Bits = Any  # one bit per item: an int, or a list of them, one for each place along the first axis


def itemised(
    seeds: Iterable[tuple[Tensor, int, Any]], through: Collection[int], wanted: Collection[int] = ()
) -> Iterator[tuple[Tensor, np.ndarray, np.ndarray]]:
    """Yields (node, items, gradients) by falling number, each complete.

    seeds : (node, item, cotangent): where an item enters, and with what; items are numbers from 0.
    through : numbers of the nodes that are walked through; a node outside is reached, and the walk
        ends there.
    wanted : numbers of further nodes that are to be reached, such as leaves.
    items : the sorted items that reach the node; gradients : (items, …), one of the node's shape for each.

    Hooks are not called.  Raises GraphError where a value was changed in place.
    """
    seeds = list(seeds)
    bits = {n: together(b) for n, b in reach([s[:2] for s in seeds], through, wanted).items()}
    starts = [(y, (1 << item, np.asarray(cotangent, y.dtype)[None], ())) for y, item, cotangent in seeds]
    for node, batch, _ in walk(starts, _batches(bits, through)):
        yield node, rows_of(bits[node.number]), batch


def _batches(bits: dict[int, int], through: Collection[int]) -> Kind:
    """Of `itemised`: every total is a batch of gradients; a part comes with its items and its place in the input."""
    owned: set[int] = set()  # batches that nobody else holds, so that more may be added in place

    def sent(node: Tensor, batch: np.ndarray) -> Iterator:
        if node.number not in through or node.op is None:
            return
        mine, windows = bits[node.number], _windows(node)
        for k, x in enumerate(node.inputs):
            passed = mine & bits.get(x.number, 0)
            if not passed or not flows_back(node, k):
                yield None
                continue
            if x.changed > node.number:
                raise changed_after(x, node)
            part = batch if passed == mine else batch[_places(passed, mine)]
            if k in windows:  # adds to its own place only: T slices of a sequence cost no T² zeros
                own, place = windows[k]
                yield passed, part[own], place
            else:
                yield passed, pulled(node, k, part), ()

    def enter(x: Tensor, first: tuple) -> np.ndarray:
        items, part, place = first
        if items == bits[x.number] and not place:
            return part
        owned.add(x.number)
        return add(x, np.zeros((bits[x.number].bit_count(), *x.shape), x.dtype), first)

    def join(x: Tensor, batch: np.ndarray, more: tuple) -> np.ndarray:
        if x.number not in owned:
            owned.add(x.number)
            batch = batch.copy()
        return add(x, batch, more)

    def add(x: Tensor, batch: np.ndarray, more: tuple) -> np.ndarray:
        items, part, place = more
        rows = slice(None) if items == bits[x.number] else _places(items, bits[x.number])
        with np.errstate(all="ignore"):
            batch[(rows, *place)] += part
        return batch

    return Kind(sent, join, enter)


def flows_back(node: Tensor, k: int) -> bool:
    """Whether the operation has a derivative with respect to its input k."""
    op = node.op
    rule = op is not None and op.vjp is not None and (op.variadic or op.vjp[k] is not None)
    return rule and node.inputs[k].dtype.kind == "f"


def _windows(node: Tensor) -> dict[int, tuple[tuple, tuple]]:
    """Of inputs whose elements an operation only moves: which part of the result is made of which part of each."""
    if node.op is None or node.op.kind != "structure":
        return {}
    ways = [{m.input: m for m in moves(node, a)} for a in range(node.ndim)]
    found = {}
    for k, x in enumerate(node.inputs):
        own = [w[k] for w in ways if k in w]
        if len(own) == node.ndim == x.ndim and all(m.axis == a and m.step for a, m in enumerate(own)):
            whole = all(m.step == 1 and m.last - m.first == n for m, n in zip(own, x.shape, strict=True))
            result = (slice(None), *(slice(m.first, m.last) for m in own))
            found[k] = result, () if whole else tuple(map(_read, own))
    return found


def _read(m: Move) -> slice:
    """The places of the input that are read."""
    if m.first == m.last:
        return slice(0, 0)
    stop = m.last * m.step + m.by
    return slice(m.first * m.step + m.by, None if stop < 0 else stop, m.step)


def pulled(node: Tensor, k: int, batch: np.ndarray) -> np.ndarray:
    """What the rule of input k makes of each cotangent of a batch (items, …)."""
    op, x = node.op, node.inputs[k]
    assert op is not None
    rule, read, params = op.rule(k), [i.value for i in node.inputs], node.params
    assert rule is not None
    value = node.value
    with np.errstate(all="ignore"):
        if op.kind == "product" and k == 0 and read[1].ndim == 2:  # one product for all items
            part = batch.reshape(-1, batch.shape[-1]).dot(read[1].T)
            return part.reshape(len(batch), *x.shape)
        if op.kind == "reduction":  # with the axes that it has lost, its rule broadcasts too
            kept = tuple(1 if a in params[0] else n for a, n in enumerate(x.shape))
            value, batch, params = value.reshape(kept), batch.reshape(len(batch), *kept), (params[0], True)
        if op.kind != "structure":
            return _unbroadcast(np.asarray(rule(batch, value, *read, *params)), x.shape)
        parts = (rule(g, value, *read, *params) for g in batch)
        return np.stack([unbroadcast(np.asarray(p), x.shape) for p in parts])


def _unbroadcast(part: np.ndarray, shape: tuple) -> np.ndarray:
    """Sum over the axes along which an input was repeated, behind the axis of items."""
    if part.shape[1:] == shape:
        return part
    aligned = (1,) * (part.ndim - 1 - len(shape)) + tuple(shape)
    axes = tuple(a + 1 for a, n in enumerate(aligned) if n == 1 and part.shape[a + 1] != 1)
    return part.sum(axis=axes, keepdims=True).reshape(len(part), *shape)


# Which items reach which node.


def reach(
    starts: Iterable[tuple[Tensor, int]],
    through: Collection[int],
    wanted: Collection[int] = (),
    cuts: bool = True,
) -> dict[int, Bits]:
    """The items that reach each node, by number; one set of bits per place of the first axis where they differ.

    cuts : whether detach and operations without a derivative stop them; if not, what is found is on
        what each item's value depends.
    """

    def sent(node: Tensor, bits: Bits) -> Iterator:
        if node.number not in through or node.op is None:
            return
        # The same items at all places stay the same, unless places come from somewhere else.
        apart = node.ndim and (node.op.kind == "structure" or not isinstance(bits, int))
        ways = {m.input: m for m in moves(node, 0)} if apart else {}
        for k, x in enumerate(node.inputs):
            asked = x.number in through or x.number in wanted
            part = _handed(ways.get(k), x, bits) if asked and (not cuts or flows_back(node, k)) else 0
            yield part if together(part) else None

    kind = Kind(sent, lambda x, bits, more: _merged(bits, more))
    return {node.number: bits for node, bits, _ in walk(((y, 1 << item) for y, item in starts), kind)}


def _handed(way: Move | None, x: Tensor, bits: Bits) -> Bits:
    """What reaches an input, place by place where places along the first axis are made of such places."""
    if way is None or way.axis != 0:
        return together(bits)
    size, same = x.shape[0], isinstance(bits, int)
    if way.step == 1 and way.last - way.first == size and (same or len(bits) == size):
        return bits
    places = [0] * size
    for i in range(way.first, way.last):
        places[way.step * i + way.by] |= bits if same else bits[i]
    return _plain(places)


def _plain(places: list[int]) -> Bits:
    return places[0] if places and all(b == places[0] for b in places) else places


def together(bits: Bits) -> int:
    """All items that reach some place."""
    if isinstance(bits, int):
        return bits
    total = 0
    for b in bits:
        total |= b
    return total


def _merged(a: Bits, b: Bits) -> Bits:
    if isinstance(a, int) and isinstance(b, int):
        return a | b
    if isinstance(a, int):
        return [a | x for x in b]
    return [x | b for x in a] if isinstance(b, int) else [x | y for x, y in zip(a, b, strict=True)]


@lru_cache(4096)
def rows_of(bits: int) -> np.ndarray:
    """The items of a set of bits, sorted."""
    return np.array([k for k in range(bits.bit_length()) if bits >> k & 1], dtype=np.intp)


@lru_cache(4096)
def _places(some: int, all_of: int) -> np.ndarray:
    """Where the items of `some` stand among those of `all_of`."""
    return rows_of(all_of).searchsorted(rows_of(some))
