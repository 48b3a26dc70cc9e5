"""The emitted source, run by Python itself on tiny arrays, with an eye on every element that is read and written.

The text that becomes machine code is executed as it stands; arrays are `Array`s, which know of each
element whether it was written yet, and by which thread.  So a program needs milliseconds in place of the
compiler's seconds, and three kinds of defects show that numbers alone may hide: what lies outside of an
array, what is read before it was written, and what two threads of one stage touch at once.
"""

from __future__ import annotations

import ast
import functools
import math
from contextlib import contextmanager
from types import FunctionType

import numpy as np

from minigrad.compiler import blocking, places, runtime
from minigrad.compiler.call import Gradients
from minigrad.compiler.compile import Compiled
from minigrad.compiler.plan import numbers_of
from minigrad.erf import erf
from minigrad.tensor import Tensor

DTYPES = {"f4": np.float32, "f8": np.float64, "i4": np.int32, "i8": np.int64, "b1": np.bool_}


class Memory:
    """One array of the program: its numbers, which of them were written, and who touched them in this stage."""

    part = 0  # the thread that is running, and whether others run at the same time
    shared = False

    def __init__(self, name: str, dtype: str, size: int, given: np.ndarray | None):
        self.name, self.fixed = name, given is not None
        self.values = (
            np.zeros(size, DTYPES[dtype]) if given is None else given.reshape(-1).astype(DTYPES[dtype])
        )
        self.written = np.full(size, given is not None)
        self.begin()
        self.packed: dict[int, np.ndarray] = {}

    def begin(self) -> None:
        """A stage begins: what was touched before is everybody's."""
        self.writer = np.full(self.values.size, -1, np.int8)
        self.readers = np.zeros(self.values.size, np.int16)

    def read(self, at):
        if not np.all(self.written[at]):
            raise AssertionError(f"{self.name} is read before it was written")
        if Memory.shared:
            if np.any((self.writer[at] >= 0) & (self.writer[at] != Memory.part)):
                raise AssertionError(f"{self.name}: a thread reads what another one writes")
            self.readers[at] |= 1 << Memory.part
        return self.values[at]

    def write(self, at, values) -> None:
        if self.fixed:
            raise AssertionError(f"{self.name} is given from outside, and is written")
        if Memory.shared:
            others = self.readers[at] & ~(1 << Memory.part)
            if np.any((self.writer[at] >= 0) & (self.writer[at] != Memory.part)) or np.any(others):
                raise AssertionError(f"{self.name}: a thread writes what another one reads or writes")
            self.writer[at] = Memory.part
        self.written[at] = True
        self.values[at] = values


class Array:
    """A run of elements of a memory, as generated code sees it."""

    def __init__(self, memory: Memory, start: int, size: int):
        if start < 0 or size < 0 or start + size > memory.values.size:
            raise AssertionError(f"{memory.name}: {start} … {start + size} of {memory.values.size}")
        self.memory, self.start, self.size = memory, start, size
        self.dtype = memory.values.dtype

    def _at(self, index):
        index = np.asarray(index)
        if index.size and (index.min() < 0 or index.max() >= self.size):
            raise AssertionError(f"{self.memory.name}: element {index} of {self.size}")
        return index + self.start

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Array(self.memory, self.start + index.start, index.stop - index.start)
        return self.memory.read(self._at(index))

    def __setitem__(self, index, values) -> None:
        self.memory.write(self._at(index), values)


def _block(at, rows, columns, row_stride, column_stride):
    return at + np.arange(rows)[:, None] * row_stride + np.arange(columns)[None, :] * column_stride


def pack(b, b_at, k, n, b_row, b_col, packed, packed_at):
    panel = 32 // (b.dtype.itemsize // 4)
    size = -(-n // panel) * panel * k
    packed[packed_at + np.arange(size)] = 0
    packed.memory.packed[packed.start + packed_at] = b[_block(b_at, k, n, b_row, b_col)]


def matmul(a, a_at, m, k, a_row, a_col, packed, packed_at, c, c_at, n, c_row, accumulate):
    packed[packed_at : packed_at + n * k][np.arange(n * k)]  # it must be there, and nobody may write it now
    right = packed.memory.packed[packed.start + packed_at]
    assert right.shape == (k, n), f"{packed.memory.name} holds {right.shape}, ({k}, {n}) is read"
    _product(a, _block(a_at, m, k, a_row, a_col), right, c, _block(c_at, m, n, c_row, 1), accumulate)


def matmul_sum(a, a_at, a_row, b, b_at, b_row, k, m, n, c, c_at, c_row, accumulate, scratch):
    left, right = _block(a_at, k, m, a_row, 1), b[_block(b_at, k, n, b_row, 1)]
    _product(a, left.T, right, c, _block(c_at, m, n, c_row, 1), accumulate)


def _product(a, left, right, c, to, accumulate):
    if a.memory is c.memory and np.intersect1d(left + a.start, to + c.start).size:
        raise AssertionError(f"{c.memory.name}: a product writes what it reads")
    assert a.dtype == right.dtype == c.dtype
    values = a[left] @ right
    c[to] = c[to] + values if accumulate else values


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x > 0, type(x)(1), e)[()] / (e + type(x)(1))


def _float(name):
    function = erf if name == "erf" else getattr(np, name)
    return lambda x: type(x)(function(x))


OWN = {
    "pack": pack, "matmul": matmul, "matmul_sum": matmul_sum, "sigmoid": _sigmoid, "np": np, "math": math,
    "f4": np.float32, "f8": np.float64, "i4": np.int32, "i8": np.int64, "b1": np.bool_,
    **{name: _float(name) for name in places.FUNCTIONS if name not in ("sigmoid", "softplus")},
    "wrapping_add": np.add, "wrapping_sub": np.subtract, "wrapping_mul": np.multiply,
    "softplus": lambda x: np.logaddexp(type(x)(0), x),
    "wide_zero": lambda like: np.float64(0) if like.dtype.kind == "f" else np.int64(0),
    "maximum": lambda a, b: a if a > b or a != a else b,
    "minimum": lambda a, b: a if a < b or a != a else b,
    "view": lambda array, at, n: Array(array.memory, array.start + at, n),
    "loop": lambda f: f, "stage": lambda f: f, "entry": lambda signature: lambda f: f,
}  # fmt: skip


@functools.cache
def _names() -> dict:
    """What generated code finds: the kernels' own Python text, on stand-ins for what is machine code."""
    names = {"__builtins__": __builtins__, **{k: v for k, v in vars(runtime).items() if k.isupper()}}
    for name, value in vars(runtime).items():
        text = getattr(value, "__wrapped__", None)
        if isinstance(text, FunctionType):
            names[name] = FunctionType(text.__code__, names, name, text.__defaults__, text.__closure__)
    names.update(OWN)
    for dtype in DTYPES:
        names[f"array_{dtype}"] = lambda table, k: table.arrays[k]
    return names


class _Table(list):
    arrays: list


@functools.lru_cache(64)
def _code(source: str):
    tree = ast.parse(source)
    tree.body = [s for s in tree.body if not isinstance(s, ast.ImportFrom)]
    return compile(tree, "<emitted>", "exec")


@contextmanager
def small_blocks():
    """Rows are taken in blocks of a few, so that tiny arrays have several."""
    before = blocking.BLOCK_SUM, blocking.BLOCK_ROWS
    blocking.BLOCK_SUM, blocking.BLOCK_ROWS = 2, 3
    try:
        yield
    finally:
        blocking.BLOCK_SUM, blocking.BLOCK_ROWS = before


def interpreted(compiled: Compiled, *arguments, parts: int = 1, gradients: bool = True):
    """What ``compiled.value_and_grad(*arguments)`` should return, from the emitted source run by Python.

    Where the function cannot be compiled it is run eagerly, as there.  Raises AssertionError for what is read
    or written outside of an array, read before it was written, or touched by two threads of a stage.
    """
    with small_blocks():
        variant, call = compiled.variant(arguments, gradients, load=False)
    if variant is None:
        result = compiled._eagerly(call)
        return result if gradients else (result, None)
    program, traced = variant.program, variant.traced
    number = numbers_of(variant.traced, call.shapes)
    own = {a.number: k for k, a in enumerate(traced.arguments)}
    memories = []
    for s in program.stores:
        given = None
        if s.kind in ("input", "constant"):
            given = call.arrays[own[s.node.number]] if s.node.number in own else s.node.value
            assert given.size == number(s.size), f"{s.name} has {given.size} numbers, not {number(s.size)}"
        memories.append(Memory(s.name, s.dtype, number(s.size), given))
    table = _Table([0] * (2 * len(memories)) + [number(s) for s in program.sizes] + program.lists)
    table.arrays = [Array(m, 0, m.values.size) for m in memories]
    names = dict(_names())
    for f in [v for v in names.values() if isinstance(v, FunctionType) and v.__globals__ is _names()]:
        names[f.__name__] = f
    exec(_code(program.source), names)
    bad = 0
    with np.errstate(all="ignore"):
        for k, parallel in enumerate(program.parallel):
            count = parts if parallel else 1
            Memory.shared = count > 1
            for memory in memories:
                memory.begin()
            for part in range(count):
                Memory.part = part
                bad = bad or names["run"](table, None, part, count, k, k + 1)
    Memory.shared = False
    variant.refuse(bad)
    found = []
    for r in program.results:
        memory = memories[program.stores.index(r.store)]
        shape = tuple(number(n) for n in r.shape)
        found.append(memory.read(np.arange(math.prod(shape))).reshape(shape))
    count = len(traced.results)
    values = traced.rebuild([Tensor(v) for v in found[:count]])
    return values, Gradients(variant.targets(call), found[count:])
