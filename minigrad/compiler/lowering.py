"""What all parts of the lowering share: sizes, buffers, statements, where values live, and what memory may be used again.

`Lowering` has the state; products.py, operations.py and walk.py say how each kind of operation becomes statements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from ..names import Taken, identifier, printable, unique
from ..ops import OPS
from ..reverse import ancestors
from ..scanning import SCAN
from ..sizes import SIZE, Size, Variable, resolve, source
from ..tensor import Tensor, describe
from ..trace import asked_of, leaves_of
from .places import (
    CHECKS,
    CODES,
    DEFECT,
    FUNCTIONS,
    IMPORTED,
    ROWS,
    ROWS_OF_THREAD,
    CannotCompile,
    Fixed,
    Level,
    Place,
    Places,
    named,
    product_of,
    variable,
)
from .program import (
    FIRST_ROW,
    ROW_COUNT,
    ZERO,
    Buffer,
    Call,
    Index,
    Name,
    Number,
    Product,
    Stage,
    Statement,
    Touched,
    View,
    buffers_of,
    touched_by,
)

RESHAPE, SHIFT, TRANSPOSE = (OPS[n] for n in ("reshape", "shift", "transpose"))

RESERVED = {
    "t", "k", "b", "bad", "table", "part", "parts", "rows", "row0", "scratch", "f4", "f8", "i4", "i8", "b1", "copy",
    "fill", "pack", "matmul", "gather", "scatter", "view", "first", "last", *FUNCTIONS, "maximum",
    "and", "or", "t0", "t1", "r0", "step", "block", "first_row", "row_count", "loop", "entry",
    "origin", "copied", "run", "stage", "abs", "range", "max", "min", "int", "float", "inf", "nan",
}  # fmt: skip


# Where a program has more numbers than this, such as 0.9 ** t for every step t, they are data, as arrays are: else steps
# that are equal but for a number would be as many functions.
NUMBERS, COMMON = 32, (0, 0.5, 1, 2)
NUMBERED = re.compile(
    r"at_\d+(_\d+)?|t_\d+|i\d+|size_\d+"
)  # offsets in loops over steps, counters of loops over axes, sizes in loops


def width_letters(results: Sequence[Tensor], arguments: Sequence[Tensor]) -> dict[int, str]:
    """What people call the widths of the first loop over steps: H is that of its first state, D that of its input, which is
    the first argument with as many steps.
    """
    loop = next((n for n in ancestors(*results) if n.op is SCAN), None)
    if loop is None:
        return {}
    states, length = loop.params[0].carry, source(loop.inputs[len(loop.params[0].carry)].shape[0])
    inputs = [x for x in arguments if len(x.shape) > 1 and source(x.shape[0]) == length]
    letters: dict[int, str] = {}
    for letter, (first, *_) in (("H", [*states, None]), ("D", [*inputs, None])):
        width = resolve(first.shape[-1]) if first is not None and len(first.shape) > 1 else None
        if isinstance(width, int):
            letters.setdefault(width, letter)
    return letters


def of_rows(lines: Callable) -> Callable:
    """Mark the method of an operation whose lines can be for the rows of one thread alone, as those of a step's are."""
    lines.of_rows = True  # type: ignore[attr-defined]
    return lines


class Lowering:
    """What is known of a program while it is made, and what all that make it share."""

    def __init__(self, results: list[Tensor], arguments: list[Tensor], name: str, start: int):
        self.results, self.arguments, self.name, self.start = results, arguments, name, start
        self.asked = asked_of(results)
        self.written = {x.value.item() for x in leaves_of(results) if self._is_written(x)}
        self.places = Places()
        self.done: set[int] = set()  # nodes whose lines are written: they read nothing any more
        self.checks: list[str] = []  # what the program may find wrong at run time
        self.stores: list[Buffer] = []
        self.size_names: dict[str, Name] = {}
        self.letters = width_letters(results, arguments)
        self.counts: dict[str, Index] = {}  # numbers of elements
        self.sizes: list[Size | int] = []
        # Loops over elements, (name, source) by their text with a number for each name.
        self.functions: dict[str, tuple[str, str]] = {}
        self.touched: dict[str, Touched] = {}  # by the name of such a function
        self.loops: dict[str, list[int]] = {}
        self.store_names = Taken()
        self.stages: list[Stage] = [Stage(False)]
        self.packed: dict[tuple, Buffer] = {}
        self.carry_stores: set[Buffer] = set()
        self.sums: set[str] = set()  # dtypes of sums of products
        self.lists: list[int] = []  # which arrays and sizes the calls of repeated stages work on

    # Names and sizes.

    def size(self, size: Size | int) -> Index:
        """A size as the program knows it: what is known before the call has a name, and stands in the table."""
        size = named(size)
        if isinstance(size, int):
            return Number(size)
        if any(v is ROWS for product in size.terms for v in product):
            return self._arithmetic(size)
        ((product, coefficient), *more) = size.terms.items()
        if len(product) == 1 and coefficient == 1 and not more:
            return self._size_name(product[0])
        key = source(size)
        if key not in self.size_names:
            wanted = (
                "_".join(self._size_name(v).text for v in product)
                if coefficient == 1 and not more
                else "some"
            )
            self.size_names[key] = Name(self._fresh(wanted, self.store_names), True)
            self.sizes.append(size)
        return self.size_names[key]

    def _arithmetic(self, size: Size) -> Index:
        total: Index = ZERO
        for product, coefficient in size.terms.items():
            known = [v for v in product if v is not ROWS]
            term: Index = Number(abs(coefficient))
            if known:
                term *= self.size(Size({tuple(known): 1}))
            for _ in range(len(product) - len(known)):
                term *= ROW_COUNT
            total = total + term if coefficient > 0 else total - term
        return total

    def _size_name(self, v: Variable) -> Name:
        if v.name not in self.size_names:
            wanted = v.name
            if isinstance(v, Fixed):
                wanted = self.letters.get(v.hint) or f"n{len(self.size_names)}"
            self.size_names[v.name] = Name(self._fresh(wanted, self.store_names), True)
            self.sizes.append(Size({(v,): 1}))
        return self.size_names[v.name]

    def count(self, shape: tuple) -> Index:
        extent = self.places.extents.of(shape)
        if extent.text not in self.counts:
            self.counts[extent.text] = self.size(extent.size)
        return self.counts[extent.text]

    def elements(self, shape: tuple) -> str:
        """How many, as text that is the same for the same number of elements."""
        return self.places.extents.of(shape).text

    def axes(self, node: Tensor) -> tuple[str, ...]:
        return self.places.extents.of(node.shape).axes

    @staticmethod
    def _fresh(name: str, taken: set[str]) -> str:
        base = identifier(name)
        if base in RESERVED or NUMBERED.fullmatch(base) or base in IMPORTED:
            base = f"{base}_"
        return unique(base, taken)

    def new_store(self, name: str, dtype, size, kind: str = "work", node: Tensor | None = None) -> Buffer:
        key = CODES.get(dtype)
        if key is None:
            raise CannotCompile(
                f"{self.name}: {printable(name)} is {dtype}; the compiler takes float32, float64, int32, int64 and bool: "
                "convert it with .astype(…)"
            )
        store = Buffer(self._fresh(name, self.store_names), key, resolve(size), kind, node)
        self.stores.append(store)
        return store

    # Writing statements.

    @property
    def stage(self) -> Stage:
        return self.stages[-1]

    def statements(self, level: Level) -> list[Statement]:
        """Where those of a level go."""
        return self.stage.body if level.statements is None else level.statements

    def write(self, level: Level, *statements: Statement) -> None:
        for s in statements:
            self.note(s)
        self.statements(level).extend(statements)

    def note(self, s: Statement) -> None:
        """The stage knows what its statements use, wherever they stand in it."""
        self.stage.uses.update(buffers_of(s))
        self.stage.writes.update(self.written_by(s))

    def written_by(self, s: Statement) -> list[Buffer]:
        if isinstance(s, Product):
            return [s.c[0]]
        if not isinstance(s, Call):
            return []
        operands = [s.operands[k] for k in touched_by(s, self.touched)[1]]
        return [x.buffer if isinstance(x, View) else x for x in operands if isinstance(x, (View, Buffer))]

    def view(self, place: Place) -> Buffer | View:
        """The elements of a place as a flat array."""
        if place.at == ZERO and self.elements((place.store.size,)) == self.elements(place.shape):
            return place.store
        return View(place.store, place.at, self.count(place.shape))

    def serial(self) -> None:
        if self.stage.parallel or self.stage.is_long():
            self.stages.append(Stage(False))

    def parallel(self, reads: Sequence[Buffer], fresh: bool = False) -> None:
        """Go on in a parallel stage; a new one where it would read what this one writes."""
        fresh = fresh or not self.stage.parallel or self.stage.is_long()
        if fresh or any(s in self.stage.writes for s in reads):
            self.stages.append(Stage(True))

    # Where values live.

    def input(self, node: Tensor) -> Place:
        if node.number not in self.places:
            kind = "input" if node.requires_grad or node.is_symbol else "constant"
            store = self.new_store(node.name or "constant", node.dtype, product_of(node.shape), kind, node)
            self.settle(node, None, Place(store, ZERO, tuple(node.shape)))
        return self.places[node.number]

    def settle(self, node: Tensor, level: Level | None, place: Place) -> None:
        """From here on the value of a node lives there; None: it is the same in all levels."""
        self.places.settle(node, level, place)

    def output(self, node: Tensor, k: int) -> Place:
        store = self.new_store(node.name or f"result_{k}", node.dtype, product_of(node.shape), "output", node)
        return Place(store, ZERO, tuple(node.shape))

    def place(self, node: Tensor, level: Level) -> Place:
        if node.number in self.places:
            return self.places[node.number]
        if node.op is None and node._value is not None:
            return self.input(node)
        if node.op in (TRANSPOSE, SHIFT, RESHAPE):  # deferred, but somebody wants it after all
            self.emit_node(node, level)
            return self.places[node.number]
        raise CannotCompile(f"{self.name}: {describe(node)} has no place ({DEFECT})")

    def target(self, node: Tensor, level: Level) -> Place:
        """Where a new value goes: where it has to, or into an array of its own."""
        if node.number in self.places:
            return self.places[node.number]
        if node.number in level.targets:
            place = level.targets[node.number]().reshaped(self.local_shape(node, level))
        elif node.number in level.stacks:
            place = level.stacks[node.number]()
        else:
            shape = self.local_shape(node, level)
            label = self.label(node, level)
            full = product_of(tuple(node.shape))
            store = self.new_store(label, node.dtype, full)
            place = Place(store, self.batch_offset(node, level), shape)
        self.settle(node, level, place)
        return place

    @staticmethod
    def label(node: Tensor, level: Level) -> str:
        """A name for a value: its own, or its operation's."""
        if node.name:
            return node.name
        return node.op.name if node.op else "value"

    def local_shape(self, node: Tensor, level: Level) -> tuple:
        if level.batch is not None and node.shape and source(node.shape[0]) == source(level.batch):
            return (ROWS_OF_THREAD, *node.shape[1:])
        return tuple(node.shape)

    def batch_offset(self, node: Tensor, level: Level, base: Index = ZERO) -> Index:
        """Where this thread's sequences start."""
        if level.batch is not None and node.shape and source(node.shape[0]) == source(level.batch):
            return base + FIRST_ROW * self.count(tuple(node.shape[1:]))
        return base

    def copy(self, level: Level, origin: Place, target: Place) -> None:
        if level.body is None:
            self.serial()  # all of it, by one thread
        self.write(level, Call("copy", [self.view(origin), self.view(target)]))

    def _alias(self, node: Tensor, level: Level, place: Place) -> None:
        held = node.op is RESHAPE and node.inputs[0].number in level.stacks  # for all steps already
        if (node.number in level.targets and place.store.kind != "output") or (
            node.number in level.stacks and not held
        ):
            self.copy(level, place, self.target(node, level))
        else:
            self.settle(node, level, place)

    # Numbers.

    def is_number(self, x: Tensor) -> bool:
        """A size, or a number that the function wrote itself: it stands in the source.  Older ones may be assigned anew."""
        return x.op is SIZE or (
            self._is_written(x) and (len(self.written) <= NUMBERS or x.value.item() in COMMON)
        )

    def _is_written(self, x: Tensor) -> bool:
        return (
            x.op is None
            and x._value is not None
            and not x.shape
            and x.number > self.start
            and not x.requires_grad
        )

    def signed(self, number) -> Index:
        number = resolve(number)
        return -self.size(-number) if isinstance(number, int) and number < 0 else self.size(number)

    def _offset(self, start, inner: Index) -> Index:
        return self.size(variable(start)) * inner  # that of the second step too, which is then like the third

    def check(self, node: Tensor, level: Level, call: Call, of: str, size: Size | int) -> None:
        """A call that counts what lies outside of `size` places; the first such is what the error names."""
        there = f"0 … {size - 1}" if isinstance(size, int) else f"0 … {size} − 1"
        self.checks.append(f"{describe(node)}: an index lies outside of {of}, {there}")
        call.check = CHECKS - len(self.checks)
        self.write(level, call)

    # Memory that is used again.

    def may_overwrite(self, x: Tensor, level: Level, readers: Collection[int]) -> bool:
        """Does nobody but `readers`, who are being written, read what stands where x stands?

        The one rule by which memory is used again.  All that lives in the same array counts, under whatever name and
        in whichever level: reshapes, slices, the sequence whose step x is, and what is still to be written.
        """
        place = self.places.get(x.number)
        if place is None or place.store.kind != "work" or place.store in self.carry_stores:
            return False
        scan = level.scan.number if level.scan is not None else -1
        own = self.places.home(level, place)
        for home, nodes in self.places.tenants[place.store].items():
            if home[0] is not level:
                outside = (*readers, scan)
                if any(
                    self._read_at_every_step(y, level) or not self._is_dead(y, home[0], outside)
                    for y in nodes
                ):
                    return False
            elif home != own:
                return False
            else:  # who is dead stays so, and is not asked again
                nodes[:] = [y for y in nodes if not self._is_dead(y, level, ())]
                if not all(self._is_dead(y, level, readers) for y in nodes):
                    return False
        return True

    @staticmethod
    def _read_at_every_step(y: Tensor, level: Level) -> bool:
        """Is this, from outside, read by the step's operations, or handed on by the step as it is?"""
        return bool(level.readers.get(y.number)) or y.number in level.wanted

    def _is_dead(self, y: Tensor, home: Level | None, readers: Collection[int]) -> bool:
        if home is None or y.number in home.wanted:
            return False
        return all(r.number in readers or r.number in self.done for r in home.readers.get(y.number, []))

    def emit_node(self, node: Tensor, level: Level) -> None:
        """Write the statements of an operation that is no loop over elements: `Walk` does."""
        raise NotImplementedError
