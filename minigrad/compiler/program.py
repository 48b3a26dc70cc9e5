"""The loop program that a graph becomes: buffers, views of them, integers known when it runs, and statements.

A program is a list of stages, each run by one thread or split over all of them.  A statement calls a kernel or a loop
over elements, is a loop over steps or blocks itself, or gives names to integers.  Whoever looks at a statement, to block,
outline, verify or print it, looks at these types; text is made at the very end (text.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..sizes import Size
from ..tensor import Tensor

# Integers.


class Index:
    """An integer of the program.  Equal ones are those that are computed alike; sums and products of 0 and 1 vanish."""

    def __add__(self, other: Index | int) -> Index:
        return _joined("+", [*_terms("+", self), *_terms("+", index(other))], ZERO)

    def __mul__(self, other: Index | int) -> Index:
        if ZERO in (self, index(other)):
            return ZERO
        return _joined("*", [*_terms("*", self), *_terms("*", index(other))], ONE)

    def __sub__(self, other: Index | int) -> Index:
        return Arithmetic("-", (self, index(other)))

    def __mod__(self, other: Index | int) -> Index:
        return Arithmetic("%", (self, index(other)))

    def __floordiv__(self, other: Index | int) -> Index:
        return Arithmetic("//", (self, index(other)))

    def __neg__(self) -> Index:
        return Arithmetic("neg", (self,))


@dataclass(frozen=True)
class Number(Index):
    """A number that stands in the source."""

    value: int


@dataclass(frozen=True)
class Name(Index):
    """A size of the table, or what a statement, a loop or the caller has given a name: a step, a thread's first row."""

    text: str
    is_size: bool = False


@dataclass(frozen=True)
class Arithmetic(Index):
    """`if` has a condition, and what holds with it and without."""

    operator: str  # + * - // % neg max min < > == if
    parts: tuple[Index, ...]


ZERO, ONE = Number(0), Number(1)
PART, PARTS = Name("part"), Name("parts")  # which thread of how many runs this stage
FIRST_ROW, ROW_COUNT = Name("row0"), Name("rows")  # which sequences, or rows of a sum, are this thread's
FIRST_MADE, MADE_COUNT = Name("first_row"), Name("row_count")  # which rows of a product it makes now


def index(x: Index | int) -> Index:
    return x if isinstance(x, Index) else Number(x)


def maximum(a: Index | int, b: Index | int) -> Index:
    return Arithmetic("max", (index(a), index(b)))


def minimum(a: Index | int, b: Index | int) -> Index:
    return Arithmetic("min", (index(a), index(b)))


def compared(operator: str, a: Index | int, b: Index | int) -> Index:
    return Arithmetic(operator, (index(a), index(b)))


def chosen(condition: Index, a: Index | int, b: Index | int) -> Index:
    return Arithmetic("if", (condition, index(a), index(b)))


def _terms(operator: str, x: Index) -> tuple[Index, ...]:
    return x.parts if isinstance(x, Arithmetic) and x.operator == operator else (x,)


def _joined(operator: str, parts: Sequence[Index], without: Number) -> Index:
    parts = tuple(p for p in parts if p != without)
    return without if not parts else parts[0] if len(parts) == 1 else Arithmetic(operator, parts)


def value_of(x: Index, names: Mapping[str, int]) -> int:
    """The integer, where names have these values."""
    if isinstance(x, Number):
        return x.value
    if isinstance(x, Name):
        return names[x.text]
    assert isinstance(x, Arithmetic)
    if x.operator == "if":
        condition, a, b = x.parts
        return value_of(a if value_of(condition, names) else b, names)
    first, *rest = (value_of(p, names) for p in x.parts)
    if x.operator == "neg":
        return -first
    for other in rest:
        first = EVALUATED[x.operator](first, other)
    return first


EVALUATED: dict[str, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "//": lambda a, b: a // b if b else 0,
    "%": lambda a, b: a % b if b else 0,
    "max": max,
    "min": min,
    "<": int.__lt__,
    ">": int.__gt__,
    "==": int.__eq__,
}

# Memory.


@dataclass(eq=False)
class Buffer:
    """One flat array of the generated code."""

    name: str
    dtype: str
    size: Size | int
    kind: str  # input | constant | work | packed | output
    node: Tensor | None = None  # whose value an input holds


@dataclass(frozen=True)
class View:
    """`count` elements of a buffer, one behind the other."""

    buffer: Buffer
    at: Index
    count: Index


@dataclass(frozen=True)
class Constant:
    """A number of a buffer's dtype, such as what is filled in."""

    dtype: str
    value: float


Operand: TypeAlias = "Buffer | View | Index | Constant | bool"

# Statements.


@dataclass(eq=False)
class Call:
    """A kernel, or a loop over elements, is called; a check counts what lies outside, and the program returns which."""

    function: str
    operands: list[Operand]
    check: int = 0


@dataclass(eq=False)
class Set:
    """Integers get names."""

    names: tuple[str, ...]
    values: tuple[Index, ...]


@dataclass(eq=False)
class For:
    """`body` for each value of a counter, from `start` on and before `stop`."""

    counter: str
    start: Index
    stop: Index
    step: Index = ONE
    body: list[Statement] = field(default_factory=list)


@dataclass(eq=False)
class If:
    """`body` where the condition holds."""

    condition: Index
    body: list[Statement]


@dataclass(eq=False)
class Product:
    """A product outside of loops over steps: rows of A times a packed matrix, or a sum over the rows of A and B.

    `long` is the number of rows that run through; threads share them, or the rows of a sum.
    """

    is_sum: bool
    long: Index
    a: tuple[Buffer, Index]  # and where it starts
    b: tuple[Buffer, Index]
    c: tuple[Buffer, Index]
    width: Index  # columns of A
    columns: Index  # columns of B and C
    accumulate: bool
    shift: Index | None = None  # by how many rows A is shifted, if it is
    c_rows: Index = ZERO  # rows of C, which threads share


Statement: TypeAlias = "Call | Set | For | If | Product"


def statements_in(body: Sequence[Statement]) -> Iterator[Statement]:
    """All of them, those in loops included, in the order of the text."""
    for s in body:
        yield s
        if isinstance(s, (For, If)):
            yield from statements_in(s.body)


def buffers_of(s: Statement) -> Iterator[Buffer]:
    """The buffers that a statement itself names."""
    if isinstance(s, Product):
        yield from (s.a[0], s.b[0], s.c[0])
    elif isinstance(s, Call):
        for x in s.operands:
            if isinstance(x, (Buffer, View)):
                yield x if isinstance(x, Buffer) else x.buffer


Touched: TypeAlias = tuple[
    list[int], tuple[int, ...]
]  # the operands that are read, and those that are written

# Which operands a kernel writes.
WRITTEN: dict[str, tuple[int, ...]] = {
    "copy": (1,), "copy_slice": (1,), "count_outside": (), "count_up": (0,), "cumsum_columns": (1,), "fill": (0,),
    "gather": (2,), "matmul": (8,), "matmul_batch": (8, 9), "matmul_shifted": (8,), "matmul_sum": (9,),
    "matmul_sum_shifted": (11,), "pack": (6,), "permute": (1,), "place_slice": (1,), "scatter": (2,),
    "shift_rows": (1,), "start_rows": (2,),
    **{f"{kind}_{of}": (1,) for kind in ("sum", "max", "min", "top", "logsumexp") for of in ("rows", "columns")},
}  # fmt: skip


def touched_by(call: Call, loops: Mapping[str, Touched]) -> Touched:
    """Which operands a call reads, and which it writes; loops : those of the program's own loops over elements."""
    if call.function in loops:
        return loops[call.function]
    writes = WRITTEN[call.function]
    arrays = [k for k, x in enumerate(call.operands) if isinstance(x, (Buffer, View))]
    return [k for k in arrays if k not in writes], writes


# What kernels with many operands call them: so many positions are unreadable.
OPERANDS: dict[str, tuple[str, ...]] = {
    name: tuple(operands.split())
    for name, operands in {
        "copy_slice": "origin target outer whole start count step inner",
        "matmul": "a a_at m k a_row a_col packed packed_at c c_at n c_row accumulate",
        "matmul_batch": "a a_at a_row a_col b b_at b_row b_col packed c c_at batch m k n",
        "matmul_shifted": "a a_at long by first count k packed c c_at n accumulate",
        "matmul_sum": "a a_at a_row b b_at b_row k m n c c_at c_row accumulate scratch",
        "matmul_sum_shifted": "a a_at a_row long by first count b b_at m n c c_at accumulate scratch",
        "pack": "b b_at k n b_row b_col packed packed_at",
        "permute": "origin target n0 n1 n2 n3 s0 s1 s2 s3",
        "place_slice": "origin target outer whole start count step inner",
        "start_rows": "origin origin_at target target_at row0 rows width same",
    }.items()
}

LINES, ARRAYS = 32, 96  # of a stage, after which another one begins


@dataclass(eq=False)
class Stage:
    """Statements that one thread runs, or that are split over threads."""

    parallel: bool
    body: list[Statement] = field(default_factory=list)
    writes: set[Buffer] = field(default_factory=set)
    uses: set[Buffer] = field(default_factory=set)
    setup: list[Statement] = field(default_factory=list)  # what one thread does before
    rows_of: Index | None = None  # what row0 and rows split at this point

    def is_long(self) -> bool:
        """Would more statements make it too long to be found anew, where a program does the same many times?"""
        return len(list(statements_in(self.body))) >= LINES or len(self.uses) >= ARRAYS


@dataclass
class Program:
    """What `emit` returns: the source, and what its table holds."""

    source: str
    stages: list[Stage]
    sizes: list[Size | int]
    size_names: list[str]
    stores: list[Buffer]
    results: list[Any]  # places, in the order of the graph's
    loops: dict[str, list[int]] = field(default_factory=dict)  # function of a loop → numbers of its nodes
    lists: list[int] = field(default_factory=list)  # what stands in the table behind the sizes
    scratch: str = "f4"  # the dtype of the scratch array
    # Of each loop over elements, which operands it reads and which it writes.
    touched: dict[str, Touched] = field(default_factory=dict)
    checks: list[str] = field(
        default_factory=list
    )  # what `run` may find wrong: it returns CHECKS less which, from 1

    @property
    def parallel(self) -> list[bool]:
        """Which stages are split over threads."""
        return [stage.parallel for stage in self.stages]
