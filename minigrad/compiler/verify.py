"""The loop program looked at without its numbers: which elements each statement reads and writes, and in which thread.

`verify` goes through a program as it runs, for given sizes and any number of threads, and raises VerifyError where a
view leaves its buffer, an element is read before anything wrote it, a call reads what it overwrites at another place,
a loop is given what it writes under two names, an argument is written to, or two threads of one stage touch an element
that one of them writes.  It knows nothing of how the program came about, and nothing of kernels but `EFFECTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..errors import GraphError
from ..sizes import Size
from .places import DEFECT
from .program import (
    Buffer,
    Call,
    For,
    If,
    Index,
    Name,
    Operand,
    Program,
    Set,
    Statement,
    View,
    touched_by,
    value_of,
)
from .text import lines_of


class VerifyError(GraphError):
    """A statement does what no program may do."""


class Access(NamedTuple):
    """`rows` runs of `width` elements, each `stride` behind the one before."""

    buffer: Buffer
    at: int
    rows: int
    stride: int
    width: int


class Effect(NamedTuple):
    """What a call reads, what it writes, and to what it adds."""

    reads: list[Access]
    writes: list[Access]
    adds: Sequence[Access] = ()


def run(buffer: Buffer, at: int, count: int) -> Access:
    return Access(buffer, at, 1, 0, count)


def matrix(buffer: Buffer, at: int, rows: int, columns: int, row: int, column: int) -> Access:
    """A matrix by its strides, one of which is 1."""
    if column == 1:
        return Access(buffer, at, rows, row, columns)
    return Access(buffer, at, columns, column, rows)


# What kernels with offsets read and write, from their operands: buffers, numbers and truth values.


def _matmul(a, a_at, m, k, a_row, a_col, packed, packed_at, c, c_at, n, c_row, accumulate) -> Effect:
    to = Access(c.buffer, c_at, m, c_row, n)
    reads = [matrix(a.buffer, a_at, m, k, a_row, a_col), *([packed] if m else [])]
    return Effect(reads, [], [to]) if accumulate else Effect(reads, [to])


def _matmul_sum(a, a_at, a_row, b, b_at, b_row, k, m, n, c, c_at, c_row, accumulate, scratch) -> Effect:
    to = Access(c.buffer, c_at, m, c_row, n)
    reads = [Access(a.buffer, a_at, k, a_row, m), Access(b.buffer, b_at, k, b_row, n)]
    return Effect(reads, [], [to]) if accumulate else Effect(reads, [to])


def _matmul_shifted(a, a_at, long, by, first, count, k, packed, c, c_at, n, accumulate) -> Effect:
    low, high = _kept(long, by, first, count)
    reads = [run(a.buffer, a_at + (low - by) * k, (high - low) * k), *([packed] if high > low else [])]
    if accumulate:
        return Effect(reads, [], [run(c.buffer, c_at + low * n, (high - low) * n)])
    return Effect(reads, [run(c.buffer, c_at + first * n, count * n)])


def _matmul_sum_shifted(
    a, a_at, a_row, long, by, first, count, b, b_at, m, n, c, c_at, accumulate, scratch
) -> Effect:
    low, high = _kept(long, by, first, count)
    return _matmul_sum(
        a, a_at + (low - by) * a_row, a_row, b, b_at + low * n, n, high - low, m, n, c, c_at, n, accumulate, scratch,
    )  # fmt: skip


def _kept(long: int, by: int, first: int, count: int) -> tuple[int, int]:
    """Which of `count` rows from `first` come from rows that are there, when these are shifted."""
    low = max(first, min(by, first + count))
    return low, max(low, min(first + count, long + by))


def _matmul_batch(a, a_at, a_row, a_col, b, b_at, b_row, b_col, packed, c, c_at, batch, m, k, n) -> Effect:
    a, b = run(a.buffer, a_at, batch * m * k), run(b.buffer, b_at, batch * k * n)
    return Effect([a, b], [packed, run(c.buffer, c_at, batch * m * n)])


def _pack(b, b_at, k, n, b_row, b_col, packed, packed_at) -> Effect:
    return Effect([matrix(b.buffer, b_at, k, n, b_row, b_col)], [packed])


def _start_rows(origin, origin_at, target, target_at, row0, rows, width, same) -> Effect:
    reads = (origin_at + row0 * width, rows * width) if same else (origin_at, width if rows else 0)
    return Effect([run(origin.buffer, *reads)], [run(target.buffer, target_at + row0 * width, rows * width)])


def _copy_slice(origin, target, outer, whole, start, count, step, inner) -> Effect:
    return Effect(_parts(origin, outer, whole, start, count, step, inner), [target])


def _place_slice(origin, target, outer, whole, start, count, step, inner) -> Effect:
    return Effect([origin], _parts(target, outer, whole, start, count, step, inner))


def _parts(x: Access, outer: int, whole: int, start: int, count: int, step: int, inner: int) -> list[Access]:
    """Every `step`th of `whole` runs of `inner` elements, in each of `outer` parts."""
    if step == 1:
        return [Access(x.buffer, x.at + start * inner, outer, whole * inner, count * inner)]
    first = x.at + start * inner
    return [Access(x.buffer, first + r * whole * inner, count, step * inner, inner) for r in range(outer)]


def _scatter(g, index, target, rows, width) -> Effect:
    return Effect([g, index], [], [target])


def _permute(origin, target, n0, n1, n2, n3, *strides) -> Effect:
    return Effect([origin] if n0 * n1 * n2 * n3 else [], [target])


EFFECTS: dict[str, Callable[..., Effect]] = {
    "copy_slice": _copy_slice, "matmul": _matmul, "matmul_batch": _matmul_batch, "matmul_shifted": _matmul_shifted,
    "matmul_sum": _matmul_sum, "matmul_sum_shifted": _matmul_sum_shifted, "pack": _pack, "permute": _permute,
    "place_slice": _place_slice, "scatter": _scatter, "start_rows": _start_rows,
}  # fmt: skip


def verify(program: Program, number: Callable[[Size | int], int], threads: int = 1) -> None:
    """Raise VerifyError where the program, at these sizes, does what no program may do.

    number : a function from sizes to numbers.
    threads : how many run the parallel stages.
    """
    sizes = dict(zip(program.size_names, map(number, program.sizes), strict=True))
    memories = {b: Memory(b, number(b.size)) for b in program.stores}
    for k, stage in enumerate(program.stages):
        for memory in memories.values():
            memory.begin()
        for part in range(threads if stage.parallel else 1):
            Walk(program, memories, sizes, k, part, threads if stage.parallel else 1).statements(stage.body)
    for place in program.results:
        memories[place.store].demand(run(place.store, 0, memories[place.store].size), None)


class Memory:
    """Which elements of a buffer hold something, and who touched them in this stage."""

    def __init__(self, buffer: Buffer, size: int):
        self.buffer, self.size = buffer, size
        self.given = buffer.kind in ("input", "constant")
        self.filled = np.full(size, self.given)
        self.begin()

    def begin(self) -> None:
        """A stage begins: what was touched before is everybody's."""
        self.writer: np.ndarray | None = (
            None  # of each element, −1 for nobody; made where threads share the stage
        )
        self.readers: np.ndarray | None = None  # one bit for each thread

    def share(self) -> tuple[np.ndarray, np.ndarray]:
        if self.writer is None or self.readers is None:
            self.writer, self.readers = np.full(self.size, -1, np.int8), np.zeros(self.size, np.int64)
        return self.writer, self.readers

    @staticmethod
    def part(of: np.ndarray, x: Access) -> np.ndarray:
        """The elements of an access, which lie in the buffer."""
        if x.stride == x.width or x.rows == 1:
            return of[x.at : x.at + x.rows * x.width]
        item = of.itemsize
        return as_strided(of[x.at :], (x.rows, x.width), (x.stride * item, item))

    def inside(self, x: Access, said: Said | None) -> bool:
        """Does it touch anything?  Raises where that lies outside."""
        if x.rows <= 0 or x.width <= 0:
            return False
        last = x.at + (x.rows - 1) * x.stride
        first, end = min(x.at, last), max(x.at, last) + x.width
        if first < 0 or end > self.size:
            raise VerifyError(
                f"{said} touches elements {first} … {end - 1} of {self.buffer.name}, which has {self.size} ({DEFECT})"
            )
        return True

    def demand(self, x: Access, said: Said | None) -> None:
        if self.inside(x, said) and not self.part(self.filled, x).all():
            raise VerifyError(
                f"{said or 'a result'} reads {self.buffer.name} before it is written ({DEFECT})"
            )

    def read(self, x: Access, part: int, shared: bool, said: Said) -> None:
        self.demand(x, said)
        if shared and self.inside(x, said):
            writer, readers = self.share()
            by = self.part(writer, x)
            if ((by >= 0) & (by != part)).any():
                raise VerifyError(f"{said} reads of {self.buffer.name} what another thread writes ({DEFECT})")
            self.part(readers, x)[...] |= 1 << part

    def write(self, x: Access, part: int, shared: bool, said: Said) -> None:
        if not self.inside(x, said):
            return
        if self.given:
            raise VerifyError(f"{said} writes to {self.buffer.name}, which is given from outside ({DEFECT})")
        if shared:
            writer, readers = self.share()
            by, read = self.part(writer, x), self.part(readers, x)
            if ((by >= 0) & (by != part)).any() or (read & ~(1 << part)).any():
                raise VerifyError(
                    f"{said} writes to {self.buffer.name} what another thread reads or writes ({DEFECT})"
                )
            by[...] = part
        self.part(self.filled, x)[...] = True


class Walk:
    """One thread's way through one stage."""

    def __init__(self, program: Program, memories, sizes: dict[str, int], number: int, part: int, parts: int):
        self.program, self.memories, self.number = program, memories, number
        self.part, self.shared = part, parts > 1
        self.names = {**sizes, "part": part, "parts": parts}

    def statements(self, body: Sequence[Statement]) -> None:
        for s in body:
            if isinstance(s, Set):
                values = [value_of(v, self.names) for v in s.values]
                self.names.update(zip(s.names, values, strict=True))
            elif isinstance(s, For):
                bounds = (value_of(b, self.names) for b in (s.start, s.stop, s.step))
                for k in range(*bounds):
                    self.names[s.counter] = k
                    self.statements(s.body)
            elif isinstance(s, If):
                if value_of(s.condition, self.names):
                    self.statements(s.body)
            elif isinstance(s, Call):
                self.call(s)
            else:
                raise TypeError(f"{s!r} is not a statement of a program that is ready to be printed")

    def call(self, s: Call) -> None:
        operands = [self.operand(x) for x in s.operands]
        said = Said(self, s)
        loop = self.program.touched.get(s.function)
        if loop is not None:
            _apart(operands, *loop, said)
        elementwise = loop is not None or s.function == "copy"
        if s.function in EFFECTS:
            effect = EFFECTS[s.function](*operands)
        else:  # each array as a whole
            effect = Effect(
                *([operands[k] for k in places] for places in touched_by(s, self.program.touched))
            )
        for x in (*effect.reads, *effect.adds):
            self.memories[x.buffer].read(x, self.part, self.shared, said)
        for x in (*effect.writes, *effect.adds):
            for y in effect.reads:
                # An operation on elements may write where it has just read the same element.
                if x.buffer is y.buffer and not (elementwise and x == y) and overlaps(x, y):
                    raise VerifyError(f"{said} overwrites of {x.buffer.name} what it reads ({DEFECT})")
            self.memories[x.buffer].write(x, self.part, self.shared, said)

    def operand(self, x: Operand) -> Any:
        """A number or truth value as it is, an array as all of its elements."""
        if isinstance(x, Buffer):
            return run(x, 0, self.memories[x].size)
        if isinstance(x, View):
            return run(x.buffer, value_of(x.at, self.names), value_of(x.count, self.names))
        if isinstance(x, Name) and x.text == "scratch":
            return None
        return value_of(x, self.names) if isinstance(x, Index) else x


class Said:
    """A statement in words, made when somebody reads it: where it stands, and at which steps of its loops."""

    def __init__(self, walk: Walk, s: Call):
        self.walk, self.s = walk, s

    def __str__(self) -> str:
        (line,) = lines_of([self.s])
        counters = ", ".join(
            f"{k} = {v}" for k, v in self.walk.names.items() if k in ("t", "r0") or k[:2] == "t_"
        )
        return f"stage {self.walk.number}, `{line}`{f' at {counters}' if counters else ''}"


def _apart(operands: Sequence[Any], reads: Sequence[int], writes: Sequence[int], said: Said) -> None:
    """Raise where a loop gets memory that it writes under a second name: LLVM is told that there is none."""
    for k in writes:
        for j in {*reads, *writes} - {k}:
            x, y = operands[k], operands[j]
            if x.buffer is y.buffer and overlaps(x, y):
                raise VerifyError(f"{said} is given what it writes of {x.buffer.name} twice ({DEFECT})")


def overlaps(x: Access, y: Access) -> bool:
    """Do two accesses of one buffer touch the same element?"""
    if min(x.rows, x.width, y.rows, y.width) <= 0:
        return False
    starts = [sorted((z.at, z.at + (z.rows - 1) * z.stride)) for z in (x, y)]
    if starts[0][1] + x.width <= starts[1][0] or starts[1][1] + y.width <= starts[0][0]:
        return False
    return bool(set(_elements(x)) & set(_elements(y)))


def _elements(x: Access) -> Iterator[int]:
    for r in range(x.rows):
        yield from range(x.at + r * x.stride, x.at + r * x.stride + x.width)
