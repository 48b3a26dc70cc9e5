"""Where the values of a graph live in the loop program, and what is known of a graph while it is lowered.

Every value stands in a flat, contiguous array (`Buffer`) from an offset on (`Place`), so reshapes and leading slices cost
nothing.
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
from .program import Buffer, Index, Statement

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
class Place:
    """Where a value lives: contiguous, from an offset in a store, in row-major order."""

    store: Buffer
    at: Index
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
        self.tenants: dict[Buffer, dict[tuple[Level | None, Index, str], list[Tensor]]] = {}

    def home(self, level: Level | None, place: Place) -> tuple[Level | None, Index, str]:
        return level, place.at, self.extents.of(place.shape).text

    def settle(self, node: Tensor, level: Level | None, place: Place) -> None:
        self[node.number] = place
        homes = self.tenants.setdefault(place.store, {})
        homes.setdefault(self.home(level, place), []).append(node)

    def close(self, level: Level) -> None:
        """A loop was written: what it keeps lives on under the names that the graph outside reads it by."""
        for name, homes in self.tenants.items():
            self.tenants[name] = {home: nodes for home, nodes in homes.items() if home[0] is not level}


@dataclass(eq=False)
class Level:
    """The graph outside, or the body of one scan: what is read by whom, and in which lines it is written."""

    nodes: list[Tensor]
    wanted: set[int]
    readers: dict[int, list[Tensor]]
    body: Body | None = None
    statements: list[Statement] | None = (
        None  # of a loop over steps; outside, they go into the stage that is written
    )
    batch: Size | int | None = None
    pending: dict[int, Tensor] = field(default_factory=dict)  # operations whose loop is not written yet
    targets: dict[int, Callable[[], Place]] = field(default_factory=dict)  # where a value has to go
    scan: Tensor | None = None  # whose body this is
    above: Level | None = None  # in which that scan stands
    depth: int = 0  # in how many loops over steps it stands
    before: list[Statement] = field(
        default_factory=list
    )  # of the level above, which have to stand before the loop
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
