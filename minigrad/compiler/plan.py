"""A program laid out for given sizes, and run: memory for all that it computes, the table that says where, and threads.

A `Plan`'s table of sizes and addresses is filled once, and a call only puts in what has changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from sys import getrefcount
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..sizes import Size, Variable, resolve
from ..tensor import Tensor
from ..trace import Traced
from .memory import refuse_beyond, too_large
from .places import NARROW, Fixed
from .program import Program

ALIGN = 64
THREADS_FROM = 1 << 20  # bytes of values in between: below, waking threads takes longer than they save
SCRATCH = 220_000  # numbers; more than matmul_sum asks for at any size
_pools: dict[int, ThreadPoolExecutor] = {}


def numbers_of(traced: Traced, shapes: tuple) -> Callable[[Size | int], int]:
    """A function from sizes to numbers, for arguments of these shapes."""
    free = traced.sizes(shapes)
    assert free is not None

    def of(v: Variable) -> int:
        return v.hint if isinstance(v, Fixed) else free(v)

    def number(size: Size | int) -> int:
        size = resolve(size)
        return size.value(of) if isinstance(size, Size) else size

    return number


class Ready(Protocol):
    """What a plan is made of: a program with its trace and its machine code."""

    program: Program
    traced: Traced

    module: Any  # cache.Program, made when it is asked for

    def refuse(self, bad: int) -> None: ...


class Known(NamedTuple):
    """Arrays of some leaves whose addresses are known, so that none has to be asked for."""

    places: dict[int, int]  # by number of the leaf, which of the arrays is its own
    arrays: list[np.ndarray]
    addresses: np.ndarray


class Plan:
    """A program laid out for given sizes: where everything lies, and the table that says so."""

    def __init__(self, variant: Ready, shapes: tuple):
        program, traced = variant.program, variant.traced
        number = numbers_of(traced, shapes)
        self.module, self.refuse = variant.module, variant.refuse
        self.parallel = program.parallel
        count = len(program.stores)
        # Addresses and sizes of arrays, sizes by name, and what the calls of repeated stages work on.
        sizes = [number(s) for s in program.sizes]
        own = {a.number: k for k, a in enumerate(traced.arguments)}
        # [argument, position in the table, the array whose address stands there, whether it is of small integers]
        self.arguments: list[list] = []
        self.leaves: list[list] = []  # likewise, [leaf, position, array, …]
        work, results = [], []
        for k, store in enumerate(program.stores):
            if store.kind in ("input", "constant"):
                node: Tensor = store.node  # type: ignore[assignment]
                entries, key = (
                    (self.arguments, own[node.number]) if node.number in own else (self.leaves, node)
                )
                entries.append([key, 2 * k, None, str(node.dtype) in NARROW])
            else:
                (results if store.kind == "output" else work).append((2 * k, number(store.size), store.dtype))
        offsets, total = _layout([n * itemsize(d) for _, n, d in work])
        output_offsets, self.output_bytes = _layout([n * itemsize(d) for _, n, d in results])
        self.bytes = self.output_bytes + total
        refuse_beyond(traced.name, shapes, self.output_bytes, total)
        self.table = np.array([0] * (2 * count) + sizes + program.lists, np.int64)
        self.table[1 : 2 * count : 2] = [number(s.size) for s in program.stores]
        try:
            self.arena = np.empty(total + ALIGN, np.uint8)
        except MemoryError:  # a limit of the process's own
            raise too_large(traced.name, shapes, self.output_bytes, total) from None
        self.large = total > THREADS_FROM
        base = -(-address_of(self.arena) // ALIGN) * ALIGN
        for (at, _, _), offset in zip(work, offsets, strict=True):
            self.table[at] = base + offset
        self.output: np.ndarray | None = None
        self.address = 0  # of the last results
        self.known: dict | None = None
        self.layout: Any = None  # what a training step has found out about where gradients lie
        self.output_at = np.array([at for at, _, _ in results], np.int64)
        self.output_offsets = np.array(output_offsets, np.int64)
        by_name = {
            program.stores[at // 2].name: o for (at, _, _), o in zip(results, output_offsets, strict=True)
        }
        parts = [
            (
                by_name[r.store.name],
                tuple(number(n) for n in r.shape),
                np.dtype(r.store.dtype if r.store.dtype != "b1" else bool),
            )
            for r in program.results
        ]
        count = len(traced.results)
        self.values, self.gradients = parts[:count], parts[count:]
        self.scratch: list[np.ndarray] = []
        self.rooms: list[
            tuple[int, int, int, int]
        ] = []  # the table's address and length, a thread's scratch's
        self.run_part, self.scratch_type = self.module.run, program.scratch
        self._rooms_for(1)

    def _rooms_for(self, threads: int) -> None:
        while len(self.rooms) < threads:
            self.scratch.append(np.empty(SCRATCH, self.scratch_type))
            self.rooms.append(
                (address_of(self.table), len(self.table), address_of(self.scratch[-1]), SCRATCH)
            )

    def run(self, arrays: list, threads: int) -> np.ndarray:
        held: list[np.ndarray] = []  # copies that live as long as the call
        for entry in self.arguments:
            array = arrays[entry[0]]
            if array is not entry[2]:  # the array of the last call is still where it was
                self._enter(entry, array, held)
        self.enter_leaves(held)
        flat = self._output()
        bad = self._run_threads(threads, held) if threads > 1 and self.large else self.run_alone()
        self.refuse(bad)
        return flat

    def enter_leaves(self, held: list[np.ndarray]) -> None:
        """Put the addresses of what the program reads from outside into the table; held : copies that must outlive the call."""
        for entry in self.leaves:
            array = entry[0]._value
            if array is not entry[2]:
                self._enter(entry, array, held)

    def know(self, known: Known) -> None:
        """Put the addresses of these leaves into the table, all at once."""
        if self.known is not known.places:
            own = [(e, known.places[e[0].number]) for e in self.leaves if e[0].number in known.places]
            self.known, self.known_leaves = known.places, own
            self.known_at = np.array([e[1] for e, _ in own], np.int64)
            self.known_from = np.array([k for _, k in own], np.int64)
        for entry, k in self.known_leaves:
            entry[2] = known.arrays[k]
        self.table[self.known_at] = known.addresses[self.known_from]

    def _enter(self, entry: list, array: np.ndarray, held: list[np.ndarray]) -> None:
        """Put the address of an array into the table, or that of a copy in the order in which it is read."""
        entry[2] = array
        if entry[3] or not array.flags.c_contiguous or not array.flags.aligned:
            array = np.require(array, np.int64 if entry[3] else None, ["C", "A", "O"])
            entry[2] = None  # looked at again at the next call
            held.append(array)
        self.table[entry[1]] = address_of(array)

    def _output(self) -> np.ndarray:
        """An array for the results: the last one, if its results were dropped, else a new one.

        Memory that was just used is in the cache, and its address stands in the table already.
        """
        if self.output is None or getrefcount(self.output) > 2:
            # Between gradients lie zeros, so that a training step may take all of them as one array.
            self.output = (np.zeros if self.gradients else np.empty)(self.output_bytes, np.uint8)
            self.address = address_of(self.output)
            self.table[self.output_at] = self.output_offsets + self.address
        return self.output

    def run_alone(self) -> int:
        return self.run_part(*self.rooms[0], 0, 1, 0, len(self.parallel))

    def _part(self, held: list, p: int, threads: int, k: int) -> int:
        """Thread p's part of stage k: the pool so holds all memory that it reads and writes, whoever lets go of it."""
        return self.run_part(*self.rooms[p], p, threads, k, k + 1)

    def _run_threads(self, threads: int, held: list) -> int:
        pool, bad, stages = _pool(threads), 0, len(self.parallel)
        self._rooms_for(threads)
        k = 0
        while k < stages:
            if self.parallel[k]:
                futures = [pool.submit(self._part, held, p, threads, k) for p in range(1, threads)]
                bad = bad or self._part(held, 0, threads, k)
                for future in futures:
                    bad = bad or future.result()
                k += 1
            else:
                following = next((j for j in range(k, stages) if self.parallel[j]), stages)
                bad = bad or self.run_part(*self.rooms[0], 0, 1, k, following)
                k = following
        return bad


def _pool(threads: int) -> ThreadPoolExecutor:
    pool = _pools.get(threads)
    if pool is None:  # two threads may come here at once: a pool that got no work has no threads
        pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="minigrad")
    return _pools.setdefault(threads, pool)


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads: it makes pools of its own
    os.register_at_fork(after_in_child=_pools.clear)


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    offsets, total = [], 0
    for size in sizes:
        offsets.append(total)
        total += -(-size // ALIGN) * ALIGN
    return offsets, total


def itemsize(dtype: str) -> int:
    return int(dtype[1:])


def address_of(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def view_of(flat: np.ndarray, part: tuple) -> np.ndarray:
    offset, shape, dtype = part
    return np.ndarray(shape, dtype, flat, offset)
