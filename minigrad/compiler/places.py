"""Where the values of a generated program live, and the pieces that it is put together from.

Every value stands in a flat, contiguous array (`Store`) at an offset (`Place`), so
reshapes and leading slices cost nothing.  Lines are collected in `Stage`s, which run
one after the other; `Product`s that run through the same rows are written together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ..errors import GraphError
from ..scanning import Body
from ..sizes import Size, Variable, is_one, resolve, source
from ..tensor import Tensor

NARROW = ("int8", "uint8", "int16", "uint16", "uint32")  # held as int64, which is each of their numbers
DTYPES = {
    "float32": "f4",
    "float64": "f8",
    "int64": "i8",
    "int32": "i4",
    "bool": "b1",
    **dict.fromkeys(NARROW, "i8"),
}
# Operations whose results are among what they are given, so that those of narrow integers fit their type in int64 too.
CHOOSING = (
    "broadcast_to", "concat", "detach", "gather", "inside", "last", "max", "maximum", "min", "minimum", "place",
    "reshape", "shift", "slice", "stacked", "transpose", "where",
)  # fmt: skip
CODES = {np.dtype(name): code for name, code in DTYPES.items()}
# Functions of one number, which the `source` of an operation may call; abs, maximum and minimum it may call too.
FUNCTIONS = (
    "exp",
    "log",
    "log1p",
    "expm1",
    "tanh",
    "sigmoid",
    "softplus",
    "erf",
    "sqrt",
    "sin",
    "cos",
    "floor",
    "rint",
    "sign",
)
IMPORTED = (  # what a program imports from runtime.py
    *FUNCTIONS,
    "array_b1", "array_f4", "array_f8", "array_i4", "array_i8", "b1", "copy", "copy_slice", "count_outside",
    "count_up", "cumsum_columns", "entry", "f4", "f8", "fill", "gather", "i4", "i8", "logsumexp_columns",
    "logsumexp_rows", "loop", "matmul", "matmul_batch", "matmul_shifted", "matmul_sum", "matmul_sum_shifted",
    "max_columns", "max_rows", "maximum", "min_columns", "min_rows", "minimum", "np", "pack", "permute",
    "place_slice", "scatter", "shift_rows", "stage", "start_rows", "sum_columns", "sum_rows", "top_columns",
    "top_rows", "view", "wrapping_add", "wrapping_mul", "wrapping_sub",
)  # fmt: skip
CHECKS = 1 << 20  # more than a program has: the first one that fails gives the largest number
BLOCK_SUM = 256  # rows of a block that several products read: matmul_sum's own block
SUMS_IN_CACHE = 200_000  # numbers
# Rows of a product that is made inside a loop: enough to run at full speed, few enough for the cache.
BLOCK_ROWS = 128
LINES, ARRAYS = 32, 96  # of a stage, after which another one begins
PANEL_MOST = 32  # no panel is wider: two vectors of 16 float32


class Fixed(Variable):
    """A size that is a number in the graph: it gets a name in the source too, so that other widths need no other code."""


ROWS = Variable("rows", 2)  # the sequences of a batch that one thread works on
ROWS_OF_THREAD = Size({(ROWS,): 1})


class Extent(NamedTuple):
    """The elements of a shape: how many, that number and each axis as text, by which equal ones are known."""

    shape: tuple
    size: Size | int
    text: str
    axes: tuple[str, ...]


class Extents(dict[tuple, Extent]):
    """The extents of the shapes that a program has: their algebra is done once."""

    def of(self, shape: tuple) -> Extent:
        key = tuple([n if type(n) is int else id(n) for n in shape])
        found = self.get(key)
        if found is None:  # it holds the shape, so that no other size gets the same id
            size = product_of(shape)
            found = self[key] = Extent(shape, size, source(size), tuple(map(source, shape)))
        return found


DEFECT = "a defect of the compiler, please report it"


class CannotCompile(GraphError):  # noqa: N818 (it is a reason, and is caught as one)
    """An operation that the compiler does not take; the function still runs eagerly."""


@dataclass(eq=False)
class Store:
    """One flat array of the generated code."""

    name: str
    dtype: str
    size: Size | int
    kind: str  # input | constant | work | output
    node: Tensor | None = None  # whose value an input holds


@dataclass(eq=False)
class Place:
    """Where a value lives: contiguous, from an offset in a store, in row-major order."""

    store: Store
    at: str
    shape: tuple

    def reshaped(self, shape: tuple) -> Place:
        return replace(self, shape=tuple(shape))


class Places(dict[int, Place]):
    """Where the values of nodes live, by number; `tenants` are all nodes that live in a store, by where they live there.

    A home is a level, an offset and a number of elements.
    """

    def __init__(self):
        super().__init__()
        self.extents = Extents()
        self.tenants: dict[str, dict[tuple[Level | None, str, str], list[Tensor]]] = {}

    def home(self, level: Level | None, place: Place) -> tuple[Level | None, str, str]:
        return level, place.at, self.extents.of(place.shape).text

    def settle(self, node: Tensor, level: Level | None, place: Place) -> None:
        self[node.number] = place
        homes = self.tenants.setdefault(place.store.name, {})
        homes.setdefault(self.home(level, place), []).append(node)

    def close(self, level: Level) -> None:
        """A loop was written: what it keeps lives on under the names that the graph outside reads it by."""
        for name, homes in self.tenants.items():
            self.tenants[name] = {home: nodes for home, nodes in homes.items() if home[0] is not level}


@dataclass
class Product:
    """A product outside of loops over steps: rows of A times a packed matrix, or a sum over the rows of A and B.

    `long` is the number of rows that run through; threads share them, or the rows of a sum.
    """

    is_sum: bool
    long: str
    a: tuple[str, str]  # name and offset
    b: tuple[str, str]
    c: tuple[str, str]
    width: str  # columns of A
    columns: str  # columns of B and C
    accumulate: str
    shift: str = ""  # by how many rows A is shifted, if it is
    c_rows: str = ""  # rows of C, which threads share

    def lines(self, start: str, count: str) -> list[str]:
        """The call for `count` rows from `start`."""
        return self._shifted(start, count) if self.shift else self._plain(start, count)

    def _plain(self, start: str, count: str) -> list[str]:
        a_rows, b_rows = times(start, self.width), times(start, self.columns)
        if self.is_sum:
            return [
                *self._own_columns,
                f"matmul_sum({self.a[0]}, {plus(self.a[1], a_rows, 'row0')}, {self.width}, "
                f"{self.b[0]}, {plus(self.b[1], b_rows)}, {self.columns}, {count}, rows, {self.columns}, "
                f"{self.c[0]}, {plus(self.c[1], times('row0', self.columns))}, {self.columns}, {self._add(start)}, scratch)",
            ]
        return [
            *self._own_rows(start, count, self.long),
            f"matmul({self.a[0]}, {plus(self.a[1], times('first_row', self.width))}, row_count, {self.width}, {self.width}, 1, "
            f"{self.b[0]}, {self.b[1]}, {self.c[0]}, {plus(self.c[1], times('first_row', self.columns))}, "
            f"{self.columns}, {self.columns}, {self.accumulate})",
        ]

    def _shifted(self, start: str, count: str) -> list[str]:
        if self.is_sum:
            return [
                *self._own_columns,
                f"matmul_sum_shifted({self.a[0]}, {plus(self.a[1], 'row0')}, {self.width}, {self.long}, {self.shift}, {start}, "
                f"{count}, {self.b[0]}, {self.b[1]}, rows, {self.columns}, "
                f"{self.c[0]}, {plus(self.c[1], times('row0', self.columns))}, {self._add(start)}, scratch)",
            ]
        return [
            *self._own_rows(start, count, self.long),
            f"matmul_shifted({self.a[0]}, {self.a[1]}, {self.long}, {self.shift}, first_row, row_count, {self.width}, "
            f"{self.b[0]}, {self.c[0]}, {self.c[1]}, {self.columns}, {self.accumulate})",
        ]

    def _add(self, start: str) -> str:
        return f"{start} > 0" if start != "0" and self.accumulate == "False" else self.accumulate

    @property
    def _own_columns(self) -> list[str]:
        return [
            f"row0 = {self.width} * part // parts",
            f"rows = {self.width} * (part + 1) // parts - row0",
        ]

    @staticmethod
    def _own_rows(start: str, count: str, long: str) -> list[str]:
        """A thread's rows: the same ones in all lines of a stage, so that of a block it may have none."""
        first, end = f"{long} * part // parts", f"{long} * (part + 1) // parts"
        if start == "0":
            return [f"first_row = {first}", f"row_count = {end} - first_row"]
        return [
            f"first_row = max({start}, {first})",
            f"row_count = max(0, min({start} + {count}, {end}) - first_row)",
        ]


def times(a: str, b: str) -> str:
    return "0" if "0" in (a, b) else a if b == "1" else b if a == "1" else f"{a} * {b}"


def plus(*terms: str) -> str:
    return " + ".join(t for t in terms if t != "0") or "0"


def written(lines: Sequence[str | Product]) -> list[str]:
    """Products that run through the same rows do so together, a block of rows at a time that the caches hold."""
    text: list[str] = []
    group: list[Product] = []

    def close() -> None:
        indent = "    "
        if len(group) > 1 and any(p.is_sum for p in group):
            # Not where the sums are so large that they themselves would be thrown out of the cache by every block.
            size = plus(*(times(p.width, p.columns) for p in group if p.is_sum))
            text.append(f"    step = {BLOCK_SUM} if {size} < {SUMS_IN_CACHE} else max(1, {group[0].long})")
            text.append(f"    for r0 in range(0, max(1, {group[0].long}), step):")
            text.append(f"        block = min(step, {group[0].long} - r0)")
            calls, indent = [line for p in group for line in p.lines("r0", "block")], "        "
        else:
            calls = [line for p in group for line in p.lines("0", p.long)]
        known: dict[str, str] = {}
        for line in calls:
            name, equals, value = line.partition(" = ")
            if not equals or known.get(name) != value:  # set anew only where it differs
                text.append(indent + line)
                known[name] = value
        group.clear()

    for line in lines:
        # A sum adds to all rows of C with every block: no product of other rows may go to the same C.
        apart = isinstance(line, Product) and any(
            p.c[0] == line.c[0] and p.is_sum != line.is_sum for p in group
        )
        if isinstance(line, Product) and not apart and (not group or group[0].long == line.long):
            group.append(line)
            continue
        close()
        if isinstance(line, Product):
            group.append(line)
        else:
            text.append(line)
    close()
    return text


@dataclass
class Stage:
    """Lines of one stage; a parallel one may be split over threads."""

    parallel: bool
    lines: list[str | Product] = field(default_factory=list)
    writes: set[str] = field(default_factory=set)
    uses: dict[str, Store] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)
    rows_of: str = ""  # what row0 and rows split at this point

    def is_long(self) -> bool:
        """Would more lines make it too long to be found anew, where a program does the same many times?"""
        return len(self.lines) >= LINES or len(self.uses) >= ARRAYS


@dataclass(eq=False)
class Level:
    """The graph outside, or the body of one scan: what is read by whom, and in which lines it is written."""

    nodes: list[Tensor]
    wanted: set[int]
    readers: dict[int, list[Tensor]]
    body: Body | None = None
    indent: str = "    "
    batch: Size | int | None = None
    pending: dict[int, Tensor] = field(default_factory=dict)  # operations whose loop is not written yet
    outputs: dict[int, Callable[[], Place]] = field(default_factory=dict)  # where a value has to go
    scan: Tensor | None = None  # whose body this is
    above: Level | None = None  # in which that scan stands
    depth: int = 0  # in how many loops over steps its lines stand
    before: list[str] = field(
        default_factory=list
    )  # lines of the level above that have to stand before the loop
    stepwise: set[int] = field(
        default_factory=set
    )  # values that stand in a place for all steps that nobody else needs
    in_time: bool = False  # inside a scan's loop, but for a block of its steps
    stacks: dict[int, Callable[[], Place]] = field(
        default_factory=dict
    )  # kept for all steps, if nothing dies for them
    known: dict[tuple[str, int], bool] = field(default_factory=dict)  # what was found out about a node

    def owner(self, node: Tensor) -> Level | None:
        """The innermost level whose steps give this value anew; None: it is there before all of these loops."""
        level: Level | None = self
        while level is not None and (level.body is None or node.number <= level.body.start):
            level = level.above
        return level


@dataclass
class Program:
    """What `emit` returns: the source, and what its table holds."""

    source: str
    sizes: list[Size | int]
    stores: list[Store]
    parallel: list[bool]
    results: list[Place]
    loops: dict[str, list[int]] = field(default_factory=dict)  # function of a loop → numbers of its nodes
    lists: list[int] = field(default_factory=list)  # what stands in the table behind the sizes
    scratch: str = "f4"  # the dtype of the scratch array
    checks: list[str] = field(
        default_factory=list
    )  # what `run` may find wrong: it returns CHECKS less which, from 1


def once(make: Callable[[], Place]) -> Callable[[], Place]:
    """The same place however often it is asked for."""
    made: list[Place] = []

    def place() -> Place:
        if not made:
            made.append(make())
        return made[0]

    return place


_fixed: dict[int, Fixed] = {}


def named(size: Size | int) -> Size | int:
    """A number above 1 as a variable of that value."""
    size = resolve(size)
    return size if isinstance(size, int) and size < 2 else variable(size)


def variable(size: Size | int) -> Size | int:
    """A number above 0 as a variable of that value."""
    size = resolve(size)
    if not isinstance(size, int) or size < 1:
        return size
    if size not in _fixed:
        _fixed[size] = Fixed(f"={size}", size)
    return Size({(_fixed[size],): 1})


def product_of(shape: tuple) -> Size | int:
    total: Size | int = 1
    for n in shape:
        total = named(n) * total
    return resolve(total)


def contiguous_leading(shape: tuple, axis: int) -> bool:
    """Is a slice along `axis` one run of elements?"""
    return all(is_one(n) for n in shape[:axis])


def readers_of(nodes: Sequence[Tensor]) -> dict[int, list[Tensor]]:
    readers: dict[int, list[Tensor]] = {}
    for node in nodes:
        for x in node.inputs:
            readers.setdefault(x.number, []).append(node)
    return readers
