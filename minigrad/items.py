"""Itemised reverse mode: one walk carries the cotangents of many items side by side.

An item is what a gradient is to be split by: the step whose loss it came from, the gate
that it passed, the step at which a weight was used.  Reverse mode is linear, so the items'
gradients add up to the gradient.  Every cotangent has a leading axis of items; those that
a node cannot reach are left out, so that nothing is computed for them and "no way" is
told from "exactly zero".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import heappop, heappush
from itertools import accumulate
from typing import Any

import numpy as np

from .ops import CONCAT, MATMUL, RESHAPE, SLICE, SUM
from .reverse import _changed, unbroadcast
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
    sums = _Sums({n: together(b) for n, b in reach([s[:2] for s in seeds], through, wanted).items()})
    for y, item, cotangent in seeds:
        sums.into(y)[rows_of(sums.bits[y.number]).searchsorted(item)] += np.asarray(cotangent, y.dtype)
    while sums.pending:
        number = -heappop(sums.pending)
        node, batch, mine = sums.nodes.pop(number), sums.batches.pop(number), sums.bits[number]
        yield node, rows_of(mine), batch
        if number not in through or node.op is None:
            continue
        starts = _starts(node)
        for k, x in enumerate(node.inputs):
            passed = mine & sums.bits.get(x.number, 0)
            if not passed or not flows_back(node, k):
                continue
            if x.changed > number:
                raise _changed(x, node)
            part = batch if passed == mine else batch[_places(passed, mine)]
            if node.op is SLICE:  # adds to its own place only: T slices of a sequence cost no T² zeros
                sums.add(x, passed, part, _window(*node.params))
            else:
                sums.add(x, passed, pulled(node, k, part, starts))


class _Sums:
    """The cotangents of nodes that are still to be visited, a batch (items, …) for each."""

    def __init__(self, bits: dict[int, int]):
        self.bits = bits  # by number: the items that reach the node
        self.nodes: dict[int, Tensor] = {}
        self.batches: dict[int, np.ndarray] = {}
        self.owned: set[int] = set()  # batches that nobody else holds, so that more may be added in place
        self.pending: list[int] = []  # a heap of negative numbers, which gives the largest number first

    def into(self, x: Tensor) -> np.ndarray:
        """The sum at x, to be changed in place."""
        if x.number not in self.nodes:
            self._enter(x, np.zeros((self.bits[x.number].bit_count(), *x.shape), x.dtype))
            self.owned.add(x.number)
        elif x.number not in self.owned:
            self.batches[x.number] = self.batches[x.number].copy()
            self.owned.add(x.number)
        return self.batches[x.number]

    def add(self, x: Tensor, items: int, part: np.ndarray, window: tuple = ()) -> None:
        """Add what some items send, to all of x or to a part of it."""
        whole = items == self.bits[x.number]
        if whole and not window and x.number not in self.nodes:
            self._enter(x, part)
            return
        rows = slice(None) if whole else _places(items, self.bits[x.number])
        with np.errstate(all="ignore"):
            self.into(x)[(rows, *window)] += part

    def _enter(self, x: Tensor, batch: np.ndarray) -> None:
        self.nodes[x.number], self.batches[x.number] = x, batch
        heappush(self.pending, -x.number)


def flows_back(node: Tensor, k: int) -> bool:
    """Whether the operation has a derivative with respect to its input k."""
    rules = node.op.vjp if node.op is not None else None
    return (
        rules is not None and (node.op.variadic or rules[k] is not None) and node.inputs[k].dtype.kind == "f"
    )


def _starts(node: Tensor) -> list[int]:
    """Where the inputs of a concatenation begin, found once: T states cost no T² sums."""
    sizes = [x.shape[node.params[0]] for x in node.inputs] if node.op is CONCAT else []
    return [0, *accumulate(sizes)]


def pulled(node: Tensor, k: int, batch: np.ndarray, starts: Sequence[int] | None = None) -> np.ndarray:
    """What the rule of input k makes of each cotangent of a batch (items, …); starts: those of `_starts`."""
    op, x = node.op, node.inputs[k]
    assert op is not None
    if op is CONCAT:
        axis = node.params[0]
        start = (starts or _starts(node))[k]
        return batch[(*(slice(None),) * (axis + 1), slice(start, start + x.shape[axis]))]
    if op is SUM:
        kept = (1 if a in node.params[0] else n for a, n in enumerate(x.shape))
        return np.broadcast_to(batch.reshape(len(batch), *kept), (len(batch), *x.shape))
    rule, read = op.vjp(k) if op.variadic else op.vjp[k], [i.value for i in node.inputs]
    with np.errstate(all="ignore"):
        if op is MATMUL and k == 0 and read[1].ndim == 2:
            part = batch.reshape(-1, batch.shape[-1]).dot(read[1].T)
            return part.reshape(len(batch), *x.shape)
        if op.kind == "elementwise" or op is MATMUL:  # their rules broadcast
            part = np.asarray(rule(batch, node.value, *read, *node.params))
            return _unbroadcast(part, x.shape)
        parts = (rule(g, node.value, *read, *node.params) for g in batch)
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
    found: dict[int, Bits] = {}
    nodes: dict[int, Tensor] = {}
    pending: list[int] = []

    def add(x: Tensor, bits: Bits) -> None:
        if x.number not in nodes:
            nodes[x.number], found[x.number] = x, bits
            heappush(pending, -x.number)
        else:
            found[x.number] = _merged(found[x.number], bits)

    for y, item in starts:
        add(y, 1 << item)
    while pending:
        number = -heappop(pending)
        node = nodes[number]
        if number not in through or node.op is None:
            continue
        for k, x in enumerate(node.inputs):
            if (x.number in through or x.number in wanted) and (not cuts or flows_back(node, k)):
                bits = _handed(node, k, x, found[number])
                if together(bits):
                    add(x, bits)
    return found


def _handed(node: Tensor, k: int, x: Tensor, bits: Bits) -> Bits:
    """What reaches input k, place by place where the operation keeps places along the first axis apart."""
    op, size = node.op, x.shape[0] if x.shape else 1
    assert op is not None
    if op is SLICE and node.params[0] == 0:
        places = [0] * size
        _, start, _, step = node.params
        for j, place in enumerate(range(start, start + node.shape[0] * step, step)):
            places[place] = bits if isinstance(bits, int) else bits[j]
        return _plain(places)
    if isinstance(bits, int):
        return bits
    if op is CONCAT and node.params[0] == 0:
        start = sum(i.shape[0] for i in node.inputs[:k])
        return _plain(bits[start : start + size])
    apart = op.kind == "elementwise" or op in (CONCAT, SLICE) or (op is MATMUL and node.ndim > 2)
    kept = op is RESHAPE or (op.kind == "reduction" and 0 not in node.params[0])
    return bits if size == len(bits) and (kept or (apart and x.ndim == node.ndim)) else together(bits)


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


def _window(axis: int, start: int, stop: int, step: int) -> tuple:
    return (*(slice(None),) * axis, slice(start, None if stop < 0 else stop, step))
