"""`compile`: trace, rewrite, emit, load, and call with as little between as can be.

A `Compiled` keeps one program for every combination of argument types that it has
met; sizes are run-time values, so another number of steps or sequences meets a
program that is there.  A `Plan` is a program laid out for given sizes: its table of
sizes and addresses is filled once, and a call only puts in what has changed.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from sys import getrefcount
from typing import Any

import numpy as np

from ..errors import GraphError, InputError
from ..grad import adding, ancestors, grad
from ..locks import lock
from ..scan import flatten
from ..sizes import Size, Variable, resolve
from ..tensor import Tensor, describe, fill_node, modes, no_grad
from ..trace import Traced, leaves_of, trace, trace_gradients
from . import cache
from .emit import emit
from .places import DTYPES, CannotCompile, Fixed, Program
from .rewrite import REWRITES, split_products

ALIGN = 64


def compile(function: Callable, *, threads: int = 1) -> Compiled:
    """The same function, compiled when it is first called.

    function : of tensors, returning a tensor, or a tuple or dict of tensors.  Leaves that
        it reads from outside (parameters) are looked up at every call.
    threads : how many threads share the sequences of a batch; for one number the
        result is the same bits at every run.

    Calling it gives values without a graph; `value_and_grad` and `backward` give
    gradients too.  What cannot be compiled says which operation and why, once, as a
    warning, and runs eagerly.
    """
    if not callable(function):
        raise InputError(f"compile: {function!r} is no function")
    if not isinstance(threads, int) or threads < 1:
        raise InputError(f"compile: threads = {threads!r}; give a whole number of at least 1")
    return Compiled(function, threads)


class Gradients:
    """Gradients by tensor: ``gradients[W]`` is an array of W's shape.

    They are views of one array, made when they are asked for.
    """

    __slots__ = ("flat", "made", "parts", "tensors")

    def __init__(self, tensors: Sequence[Tensor], parts: Sequence[tuple], flat: np.ndarray):
        self.tensors, self.parts, self.flat = tensors, parts, flat
        self.made: dict[int, np.ndarray] = {}

    def __getitem__(self, tensor: Tensor) -> np.ndarray:
        number = tensor.number
        if number not in self.made:
            found = [part for t, part in zip(self.tensors, self.parts, strict=False) if t is tensor]
            if not found:
                raise GraphError(
                    f"no gradient for {describe(tensor)}: it does not require one, or was not used"
                )
            total = _view(self.flat, found[0])
            for part in found[1:]:  # the same tensor was given twice, or given and captured
                total = total + _view(self.flat, part)
            self.made[number] = total
        return self.made[number]

    def __contains__(self, tensor: Tensor) -> bool:
        return any(t is tensor for t in self.tensors)

    def __len__(self) -> int:
        return len({t.number for t in self.tensors})

    def __iter__(self) -> Iterator[Tensor]:
        return iter({t.number: t for t in self.tensors}.values())

    def items(self) -> list[tuple[Tensor, np.ndarray]]:
        return [(t, self[t]) for t in self]

    def __reduce__(self):  # tensors that are copied along have numbers of their own
        return _gradients, ([*self], [self[t] for t in self])


def _gradients(tensors: Sequence[Tensor], arrays: Sequence[np.ndarray]) -> Gradients:
    """Gradients that are arrays of their own."""
    found = Gradients(tensors, [], np.zeros(0))
    found.made = {t.number: g for t, g in zip(tensors, arrays, strict=True)}
    return found


class Compiled:
    """What `compile` returns; `source` is the generated program of the last call.

    Threads may call it at the same time.  A copy, or what a pickle gives, is the same function compiled
    with the same options, which makes its programs when it is called (from the cache, where they are
    there); a deep copy of a compiled method is that of the copied object.
    """

    def __init__(self, function: Callable, threads: int):
        self.function, self.threads = function, threads
        self.name = getattr(function, "__name__", type(function).__name__)
        self.variants: dict[tuple, list[Variant]] = {}
        self.eager: dict[tuple, str] = {}  # what could not be compiled, and why
        self.last: Variant | None = None

    def __copy__(self) -> Compiled:
        return Compiled(self.function, self.threads)

    def __deepcopy__(self, memo) -> Compiled:
        return Compiled(copy.deepcopy(self.function, memo), self.threads)

    def __reduce__(self):
        name, module = getattr(self.function, "__qualname__", ""), getattr(self.function, "__module__", "")
        if getattr(sys.modules.get(module), name, None) is self:  # @compile: it bears the function's name
            return _decorated, (module, name)
        if "<" in name:  # <lambda>, <locals>
            raise InputError(
                f"pickle of the compiled {name}: a lambda, or a function within a function, "
                "cannot be found by its name in another process; compile a function of a module or a method"
            )
        return Compiled, (self.function, self.threads)

    @property
    def source(self) -> str:
        if self.last is None:
            raise GraphError(f"{self.name} was not called yet, so there is no source to show")
        return self.last.program.source

    def __call__(self, *arguments):
        variant, arrays, shapes = self._variant(arguments, False)
        if variant is None:
            with no_grad():
                return self.function(*map(_tensor, arguments))
        flat, plan = variant.run(arrays, shapes, self.threads)
        return variant.traced.rebuild([_constant(_view(flat, part)) for part in plan.values])

    def value_and_grad(self, *arguments) -> tuple[Any, Gradients]:
        """What the function returns, and the gradients of its first result with respect to every leaf that requires one.

        The first (or only) result is the loss, a single number; others come along as values.
        """
        variant, arrays, shapes = self._variant(arguments, True)
        if variant is None:
            return self._eager(arguments)
        flat, plan = variant.run(arrays, shapes, self.threads)
        targets = [arguments[k] for k in variant.of_arguments] + variant.leaves
        values = variant.traced.rebuild([_constant(_view(flat, part)) for part in plan.values])
        return values, Gradients(targets, plan.gradients, flat)

    def backward(self, *arguments) -> Any:
        """What the function returns; gradients are added to `grad` of every leaf that requires one, as `backward` does."""
        value, gradients = self.value_and_grad(*arguments)
        with adding:
            for leaf, g in gradients.items():
                leaf.grad = g if leaf.grad is None else leaf.grad + g
        return value

    def _eager(self, arguments) -> tuple[Any, Gradients]:
        results, rebuild = flatten(self.function(*map(_tensor, arguments)))
        loss = results[0]
        leaves = [n for n in ancestors(loss) if n.op is None and n.requires_grad]
        found = _gradients(leaves, [g.value for g in grad(loss, leaves)])
        return rebuild([Tensor(r) for r in results]), found

    def _variant(self, arguments: Sequence, gradients: bool) -> tuple[Any, list, tuple]:
        """The program for these arguments, made now if there is none; None where it has to run eagerly."""
        arrays = [a._value if type(a) is Tensor else np.asarray(a) for a in arguments]
        needs = tuple([gradients and type(a) is Tensor and a.requires_grad for a in arguments])
        shapes = tuple([a.shape for a in arrays])
        key = (gradients, needs, tuple([a.dtype for a in arrays]), tuple([len(s) for s in shapes]))
        if modes()[1]:  # anomaly mode names a node, and only eager mode has nodes to look at
            return None, arrays, shapes
        variant = self._made(key, shapes)
        if variant is not None:
            return variant, arrays, shapes
        if key in self.eager:
            return None, arrays, shapes
        with _making:
            variant = self._made(key, shapes)  # another thread may have made it meanwhile
            if variant is not None or key in self.eager:
                return variant, arrays, shapes
            try:
                variant = Variant(self.function, arguments, needs, gradients)
            except CannotCompile as reason:
                self.eager[key] = str(reason)
                warnings.warn(f"{self.name} runs eagerly: {reason}", stacklevel=3)
                return None, arrays, shapes
            self.variants.setdefault(key, []).append(variant)
        self.last = variant
        return variant, arrays, shapes

    def _made(self, key: tuple, shapes: tuple) -> Variant | None:
        for variant in self.variants.get(key, ()):
            if variant.holds(shapes):
                self.last = variant
                return variant
        return None


def _decorated(module: str, name: str) -> Compiled:
    return getattr(importlib.import_module(module), name)


class Variant:
    """One program of a function."""

    def __init__(self, function: Callable, arguments: Sequence, needs: tuple, gradients: bool):
        for a in arguments:
            dtype = a.dtype if isinstance(a, Tensor) else np.asarray(a).dtype
            if str(dtype) not in DTYPES:
                raise CannotCompile(
                    f"an argument is {dtype}; the compiler takes float32, float64 and integers"
                )
        try:
            self.traced: Traced = trace(function, [_tensor(a) for a in arguments], needs)
        except CannotCompile:
            raise
        except GraphError as reason:  # a branch or a loop that needs a value
            raise CannotCompile(str(reason)) from None
        self.stages_of: dict[str, list[Tensor]] = {"traced": self.traced.outputs}
        self.traced.outputs = split_products(self.traced.outputs)
        outputs = list(self.traced.outputs)
        self.of_arguments = [k for k, needed in enumerate(needs) if needed]
        self.leaves: list[Tensor] = self.traced.captures if gradients else []
        self.learning = [
            (leaf, leaf.requires_grad)
            for leaf in leaves_of(self.traced.outputs)
            if gradients and leaf.number < self.traced.start and leaf.dtype.kind == "f"
        ]
        if gradients:
            symbols = [self.traced.arguments[k] for k in self.of_arguments]
            outputs += trace_gradients(self.traced, symbols + self.leaves)
        self.stages_of["gradients"] = outputs
        for name, rewrite in REWRITES.items():
            outputs = rewrite(outputs)
            self.stages_of[name] = outputs
        self.outputs = outputs
        self.program: Program = emit(outputs, self.traced.arguments, self.traced.name, self.traced.start)
        self.module = cache.load(self.program.source, self.traced.name)
        self.plans: dict[tuple, list[Plan]] = {}

    def holds(self, shapes: tuple) -> bool:
        """Is this the program for these shapes, and do the same parameters learn as when it was made?"""
        for leaf, learned in self.learning:
            if leaf.requires_grad is not learned:
                return False
        return shapes in self.plans or self.traced.sizes(shapes) is not None

    def run(self, arrays: list, shapes: tuple, threads: int) -> tuple[np.ndarray, Plan]:
        free = self.plans.get(shapes)
        if free is None:
            if len(self.plans) >= PLANS:  # each holds memory for all that it computes
                for oldest in list(self.plans)[:1]:  # a copy, as another thread may add to them
                    self.plans.pop(oldest, None)
            free = self.plans.setdefault(shapes, [])
        try:
            plan = free.pop()  # a plan serves one call at a time; another thread makes its own
        except IndexError:
            plan = Plan(self, shapes)
        flat = plan.run(arrays, threads)
        free.append(plan)  # not after an interrupt: another thread may still be writing into it
        return flat, plan


class Plan:
    """A program laid out for given sizes: where everything lies, and the table that says so."""

    def __init__(self, variant: Variant, shapes: tuple):
        program, traced = variant.program, variant.traced
        free = traced.sizes(shapes)
        assert free is not None

        def of(v: Variable) -> int:
            return v.hint if isinstance(v, Fixed) else free(v)

        def number(size: Size | int) -> int:
            size = resolve(size)
            return size.value(of) if isinstance(size, Size) else size

        self.module, self.name = variant.module, traced.name
        self.parallel = program.parallel
        count = len(program.stores)
        # Addresses and sizes of arrays, sizes by name, and what the calls of repeated stages work on.
        sizes = [number(s) for s in program.sizes]
        self.table = np.array([0] * (2 * count) + sizes + program.lists, np.int64)
        self.table[1 : 2 * count : 2] = [number(s.size) for s in program.stores]
        own = {a.number: k for k, a in enumerate(traced.arguments)}
        self.arguments: list[
            list
        ] = []  # [argument, position in the table, the array whose address stands there]
        self.leaves: list[list] = []  # likewise, [leaf, position, array]
        work, outputs = [], []
        for k, store in enumerate(program.stores):
            if store.kind in ("input", "constant"):
                if store.node.number in own:  # type: ignore[union-attr]
                    self.arguments.append([own[store.node.number], 2 * k, None])  # type: ignore[union-attr]
                else:
                    self.leaves.append([store.node, 2 * k, None])
            else:
                (outputs if store.kind == "output" else work).append((2 * k, number(store.size), store.dtype))
        offsets, total = _layout([n * _itemsize(d) for _, n, d in work])
        self.arena = np.empty(total + ALIGN, np.uint8)
        self.large = total > THREADS_FROM
        base = -(-_address(self.arena) // ALIGN) * ALIGN
        for (at, _, _), offset in zip(work, offsets, strict=True):
            self.table[at] = base + offset
        offsets, self.output_bytes = _layout([n * _itemsize(d) for _, n, d in outputs])
        self.output: np.ndarray | None = None
        self.output_at = np.array([at for at, _, _ in outputs], np.int64)
        self.output_offsets = np.array(offsets, np.int64)
        by_name = {program.stores[at // 2].name: o for (at, _, _), o in zip(outputs, offsets, strict=True)}
        parts = [
            (
                by_name[r.store.name],
                tuple(number(n) for n in r.shape),
                np.dtype(r.store.dtype if r.store.dtype != "b1" else bool),
            )
            for r in program.results
        ]
        count = len(traced.outputs)
        self.values, self.gradients = parts[:count], parts[count:]
        self.scratch = [np.empty(SCRATCH, program.scratch) for _ in range(os.cpu_count() or 1)]

    def run(self, arrays: list, threads: int) -> np.ndarray:
        table = self.table
        held = []
        for entry in self.arguments:
            array = arrays[entry[0]]
            if array is not entry[2]:  # the array of the last call is still where it was
                entry[2] = array
                if not array.flags.c_contiguous or not array.dtype.isnative:
                    array, entry[2] = np.ascontiguousarray(array), None
                    held.append(array)
                table[entry[1]] = _address(array)
        for entry in self.leaves:
            array = entry[0]._value
            if array is not entry[2]:
                entry[2] = array
                table[entry[1]] = _address(array)
        flat = self._output()
        bad = self._run_threads(threads, held) if threads > 1 and self.large else self._run_alone()
        if bad:
            raise InputError(f"{self.name}: {bad} indices lie outside of their table (gather or embedding)")
        return flat

    def _output(self) -> np.ndarray:
        """An array for the results: the last one, if its results were dropped, else a new one.

        Memory that was just used is in the cache, and its address stands in the table already.
        """
        if self.output is None or getrefcount(self.output) > 2:
            self.output = np.empty(self.output_bytes, np.uint8)
            self.table[self.output_at] = self.output_offsets + _address(self.output)
        return self.output

    def _run_alone(self) -> int:
        return self.module.run(self.table, self.scratch[0], 0, 1, 0, len(self.parallel))

    def _part(self, held: list, p: int, threads: int, k: int) -> int:
        """Thread p's part of stage k: the pool so holds all memory that it reads and writes, whoever lets go of it."""
        return self.module.run(self.table, self.scratch[p], p, threads, k, k + 1)

    def _run_threads(self, threads: int, held: list) -> int:
        pool, bad = _pool(threads), 0
        while len(self.scratch) < threads:
            self.scratch.append(np.empty_like(self.scratch[0]))
        run, stages = self.module.run, len(self.parallel)
        k = 0
        while k < stages:
            if self.parallel[k]:
                futures = [pool.submit(self._part, held, p, threads, k) for p in range(1, threads)]
                bad += run(self.table, self.scratch[0], 0, threads, k, k + 1)
                bad += sum(f.result() for f in futures)
                k += 1
            else:
                following = next((j for j in range(k, stages) if self.parallel[j]), stages)
                bad += run(self.table, self.scratch[0], 0, 1, k, following)
                k = following
        return bad


THREADS_FROM = 1 << 20  # bytes of values in between: below, waking threads takes longer than they save
PLANS = 8  # sizes that a program is kept laid out for
SCRATCH = 220_000  # numbers; more than matmul_sum asks for at any size
_pools: dict[int, ThreadPoolExecutor] = {}
_making = lock()  # one program is made at a time; what is traced may make another


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


def _itemsize(dtype: str) -> int:
    return int(dtype[1:])


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _view(flat: np.ndarray, part: tuple) -> np.ndarray:
    offset, shape, dtype = part
    return np.ndarray(shape, dtype, flat, offset)


def _constant(value: np.ndarray) -> Tensor:
    """A leaf around an array that nobody else writes to, without a copy."""
    node = Tensor.__new__(Tensor)
    fill_node(node, value, None, (), (), False)
    return node


def _tensor(argument) -> Tensor:
    return argument if isinstance(argument, Tensor) else Tensor(argument)


__all__ = ["CannotCompile", "Compiled", "Gradients", "compile"]
