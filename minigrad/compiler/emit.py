"""A graph → readable Numba source for all of it: `emit`.

The source is a list of stages, each a function of a table of sizes and addresses.
Element-wise operations that follow one another become one loop (a function of its
own over flat arrays, which LLVM turns into vector code); products and reductions are
calls; a scan is a Python loop over steps, one in the step of another a loop in that
loop.  Where values live is in places.py, loops over elements in loops.py, loops over
steps in scans.py.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from heapq import heappop, heappush
from typing import Any

from ..names import Taken, identifier, printable, quotable, unique
from ..ops import OPS
from ..reverse import ancestors
from ..scanning import LAST, SCAN, STACKED
from ..sizes import SIZE, Size, Variable, is_one, resolve, source
from ..tensor import Tensor, describe
from ..trace import asked_of, leaves_of
from .blocking import SCRATCH, blocked, share
from .loops import loops_of
from .places import (
    CHECKS,
    CODES,
    DEFECT,
    FUNCTIONS,
    IMPORTED,
    PANEL_MOST,
    ROWS,
    ROWS_OF_THREAD,
    CannotCompile,
    Fixed,
    Level,
    Place,
    Places,
    contiguous_leading,
    named,
    once,
    product_of,
    readers_of,
    variable,
)  # fmt: skip
from .program import (
    FIRST_ROW,
    ONE,
    ROW_COUNT,
    WRITTEN,
    ZERO,
    Buffer,
    Call,
    Constant,
    For,
    Index,
    Name,
    Number,
    Product,
    Program,
    Stage,
    Statement,
    View,
    buffers_of,
    statements_in,
)  # fmt: skip
from .repeats import Merged, as_loop, merge_stages, runs_of
from .scans import ScanLoop, push_down
from .text import Naming, lines_of, own_name

ADD, BROADCAST_TO, CONCAT, GATHER, MATMUL, PLACE, POWER, RESHAPE, SCATTER, SHIFT, SLICE, SUM, TRANSPOSE = (
    OPS[n]
    for n in (
        "add", "broadcast_to", "concat", "gather", "matmul", "place", "power", "reshape", "scatter", "shift", "slice",
        "sum", "transpose",
    )
)  # fmt: skip


RESERVED = {
    "t", "k", "b", "bad", "table", "part", "parts", "rows", "row0", "scratch", "f4", "f8", "i4", "i8", "b1", "copy",
    "fill", "pack", "matmul", "gather", "scatter", "view", "first", "last", *FUNCTIONS, "maximum",
    "and", "or", "t0", "t1", "r0", "step", "block", "first_row", "row_count", "loop", "entry",
    "origin", "copied", "run", "stage", "abs", "range", "max", "min", "int", "float", "inf", "nan",
}  # fmt: skip


# Where a program has more numbers than this, such as 0.9 ** t for every step t, they are data, as arrays are: else steps
# that are equal but for a number would be as many functions.
NUMBERS, COMMON = 32, (0, 0.5, 1, 2)
SCRATCH_TYPES = {"f4": "float32[::1]", "f8": "float64[::1]"}
NUMBERED = re.compile(
    r"at_\d+(_\d+)?|t_\d+|i\d+|size_\d+"
)  # offsets in loops over steps, counters of loops over axes, sizes in loops


def _shifted(x: Tensor) -> bool:
    """A shift, or its rows in one axis."""
    if x.op is RESHAPE and x.inputs[0].op is SHIFT:
        return (
            len(x.shape) == 2
            and len(x.inputs[0].shape) > 1
            and source(named(x.shape[-1])) == source(named(x.inputs[0].shape[-1]))
        )
    return x.op is SHIFT and len(x.shape) > 1


HEADER = '''"""Generated from {name}: the whole of it, forward and backward, as loops over flat arrays."""

from minigrad.compiler.runtime import *'''


def emit(outputs: Sequence[Tensor], arguments: Sequence[Tensor], name: str, start: int) -> Program:
    """Source for a graph traced from node number `start` on; raises CannotCompile, naming the operation and why."""
    return Emitter(list(outputs), list(arguments), name, start).program()


class Emitter:
    def __init__(self, outputs: list[Tensor], arguments: list[Tensor], name: str, start: int):
        self.results, self.arguments, self.name, self.start = outputs, arguments, name, start
        self.asked = asked_of(outputs)
        self.written = {x.value.item() for x in leaves_of(outputs) if self._is_written(x)}
        self.places = Places()
        self.done: set[int] = set()  # nodes whose lines are written: they read nothing any more
        self.checks: list[str] = []  # what the program may find wrong at run time
        self.stores: list[Buffer] = []
        self.size_names: dict[str, Name] = {}
        self.counts: dict[str, Index] = {}  # numbers of elements
        self.sizes: list[Size | int] = []
        self.functions: dict[str, str] = {}  # loops over elements, by their text with a number for each name
        self.loop_names: dict[str, str] = {}  # the same text → the function's name
        self.touched: dict[
            str, tuple[list[int], tuple[int, ...]]
        ] = {}  # operands that a function reads, and writes
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
            wanted = f"n{len(self.size_names)}" if isinstance(v, Fixed) else v.name
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
        places = WRITTEN[s.function] if s.function in WRITTEN else self.touched[s.function][1]
        operands = [s.operands[k] for k in places]
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

    # The walk.

    def program(self) -> Program:
        nodes = ancestors(*self.results)
        level = Level(nodes, {r.number for r in self.results}, readers_of(nodes))
        own = {a.number: a for a in self.arguments}
        for node in nodes:
            if node.op is None and (node.number in own or not self.is_number(node)):
                self.input(node)
        for k, r in enumerate(self.results):
            if r.op is not None and r.number not in level.outputs:
                level.outputs[r.number] = once(lambda r=r, k=k: self.output(r, k))
        push_down(level, self)
        self._place_concats(level)
        level.nodes = self.scheduled(level)
        self.run_level(level)
        results = []
        for k, r in enumerate(self.results):
            place = self.place(r, level)
            if (
                place.store.kind != "output"
                or place.at != ZERO
                or any(place.store is p.store for p in results)
            ):
                self.serial()
                target = self.output(r, k)
                self.copy(level, place, target)
                place = target
            results.append(place.reshaped(tuple(r.shape)))
        stages = self._written_stages()
        return Program(
            self.text(stages),
            stages,
            self.sizes,
            [name.text for name in self.size_names.values()],
            self.stores,
            results,
            self.loops,
            self.lists,
            self.scratch_type(),
            self.touched,
            self.checks,
        )

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

    def run_level(self, level: Level) -> None:
        for node in level.nodes:
            if node.op is None or self._fills_carries(node, level) or self.in_time(node, level):
                continue
            if self.is_elementwise(node) and not self._adds_product(node, level):
                level.pending[node.number] = node
            elif self._deferred_product(node, level):
                continue
            else:
                self.flush(level, self._operands(node, level))
                self.emit_node(node, level)
                self.done.add(node.number)
        self.flush(level, None)

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

    def _fills_carries(self, node: Tensor, level: Level) -> bool:
        """First states of one number are filled in by their scan."""
        if node.op is not BROADCAST_TO or not self.is_number(node.inputs[0]) or node.number in level.wanted:
            return False
        return all(
            r.op is SCAN and not any(x is node for x in r.inputs[len(r.params[0].carry) :])
            for r in level.readers.get(node.number, [])
        )

    def in_time(self, node: Tensor, level: Level) -> bool:
        """A product that only a scan reads, step by step, is made inside it, a block of steps before it is read.

        It is read again while the caches still hold it, and it is one product for many rows all the same.
        """
        readers = level.readers.get(node.number, [])
        if level.body is not None or node.number in level.wanted or len(node.shape) != 3:
            return False
        if len(readers) != 1 or readers[0].op is not SCAN or node.number in level.outputs:
            return False
        scan, body = readers[0], readers[0].params[0]
        count = len(body.carry)
        if not any(x is node for x in scan.inputs[count : count + len(body.xs)]):
            return False
        if not count or not body.carry[0].shape or source(node.shape[1]) != source(body.carry[0].shape[0]):
            return False  # all that is made inside has the rows of the same sequences
        products = self._in_time_products(node, level)
        return bool(products) and all(
            p.inputs[0].op not in (TRANSPOSE, SHIFT) and len(p.inputs[1].shape) == 2 for p in products
        )

    def _in_time_products(self, node: Tensor, level: Level) -> list[Tensor]:
        """The products of a sum that has nothing else but a bias; none if it is anything else."""
        if node.op is MATMUL:
            return [node]
        if node.op is not ADD:
            return []
        products = [x for x in node.inputs if self._is_addend(x, node, level)]
        biases = [x for x in node.inputs if len(x.shape) == 1 and x.op is None]
        return products if len(products) + len(biases) == 2 else []

    def scheduled(self, level: Level) -> list[Tensor]:
        """An order in which heavy operations, which threads share, stand together."""

        def kind(node: Tensor) -> int:
            if node.op is SCAN:
                return 2
            return 1 if node.op is MATMUL or self._adds_product(node, level) or node.op is TRANSPOSE else 0

        own = {n.number for n in level.nodes}
        waiting = {n.number: sum(x.number in own for x in n.inputs) for n in level.nodes}
        ready: list[list[tuple[int, Tensor]]] = [[], [], []]  # heaps: the oldest first
        order: list[Tensor] = []
        for n in level.nodes:
            if not waiting[n.number]:
                heappush(ready[kind(n)], (n.number, n))
        now = 0
        while any(ready):
            if not ready[now]:
                now = next(k for k in range(3) if ready[k])
            node = heappop(ready[now])[1]
            order.append(node)
            for reader in level.readers.get(node.number, []):
                waiting[reader.number] -= 1
                if not waiting[reader.number]:
                    heappush(ready[kind(reader)], (reader.number, reader))
        return order

    @staticmethod
    def is_elementwise(node: Tensor) -> bool:
        return node.op is not None and (node.op.kind == "elementwise" or node.op is BROADCAST_TO)

    def _operands(self, node: Tensor, level: Level) -> list[Tensor]:
        found = []
        pending = list(node.inputs)
        while pending:
            x = pending.pop(0)
            found.append(x)
            if self.in_time(x, level):  # made inside the scan, from operands that have to be there before it
                found.extend(y for product in self._in_time_products(x, level) for y in product.inputs)
                found.extend(x.inputs)
            if x.op is TRANSPOSE or self._deferred_product(x, level):
                pending.extend(x.inputs)
        return found

    def _deferred_product(self, node: Tensor, level: Level) -> bool:
        """A product that will be added where its only reader, a sum, lives; a transpose that products read by strides;
        what products read shifted."""
        key = "deferred", node.number
        if key not in level.known:
            level.known[key] = self._defers(node, level)
        return level.known[key]

    def _defers(self, node: Tensor, level: Level) -> bool:
        readers = level.readers.get(node.number, [])
        if node.number in level.wanted:
            return False
        if node.op is SHIFT or (node.op is RESHAPE and _shifted(node)):
            return (
                level.body is None
                and bool(readers)
                and all(self._reads_shifted(r, node, level) for r in readers)
            )
        if node.op is TRANSPOSE:
            return bool(readers) and all(self._reads_by_strides(r, node) for r in readers)
        return len(readers) == 1 and readers[0].op is ADD and self._is_addend(node, readers[0], level)

    def _reads_shifted(self, reader: Tensor, node: Tensor, level: Level) -> bool:
        """Is this the left operand of a product, or on the way to that of a sum over rows?"""
        if reader.op is MATMUL:
            return (
                reader.inputs[0] is node and reader.inputs[1] is not node and len(reader.inputs[1].shape) == 2
            )
        if reader.op is RESHAPE:
            return _shifted(reader) and self._deferred_product(reader, level)
        if reader.op is not TRANSPOSE or node.op is TRANSPOSE or reader.number in level.wanted:
            return False
        if reader.params[0] != (1, 0):
            return False
        return all(self._reads_shifted(r, reader, level) for r in level.readers.get(reader.number, []))

    def _reads_by_strides(self, reader: Tensor, node: Tensor) -> bool:
        """Do only products read this transposed operand, so that nothing has to be copied?"""
        axes = node.params[0]
        if len(axes) < 2 or (*axes[:-2], axes[-1], axes[-2]) != tuple(range(len(axes))):
            return False
        if reader.op is MATMUL:
            return True
        if reader.op is not SCAN:
            return False
        inside = [
            n
            for n in reader.params[0].nodes(*self.asked.get(reader.number, []))
            if any(x is node for x in n.inputs)
        ]
        return bool(inside) and all(n.op is MATMUL and n.inputs[1] is node for n in inside)

    def _adds_product(self, node: Tensor, level: Level) -> bool:
        if node.op is not ADD:
            return False
        key = "adds a product", node.number
        if key not in level.known:
            level.known[key] = any(self._is_addend(x, node, level) for x in node.inputs)
        return level.known[key]

    def _is_addend(self, x: Tensor, total: Tensor, level: Level) -> bool:
        return (
            x.op is MATMUL
            and (level.body is None or x.number > level.body.start)  # else it was made before the loop
            and x.number not in level.wanted
            and len(level.readers.get(x.number, [])) == 1
            and len(x.shape) == len(total.shape)
            and self.axes(x) == self.axes(total)
            and len(x.inputs[1].shape) == 2
            and all(y is x or self._starts(y, total) for y in total.inputs)
        )

    def _starts(self, x: Tensor, total: Tensor) -> bool:
        """Can a product be added to this: does it have the shape of the sum, or of one row of it?"""
        if self.is_number(x) or not x.shape:
            return False
        own, whole = self.axes(x), self.axes(total)
        return own == whole or (own[-1] == whole[-1] and all(map(is_one, x.shape[:-1])))

    def flush(self, level: Level, needed_by: list[Tensor] | None) -> None:
        """Write the loops of all pending operations, if one of them is needed now."""
        waiting = level.pending
        if not waiting or (needed_by is not None and not any(x.number in waiting for x in needed_by)):
            return
        if needed_by is None or level.body is not None:  # inside a loop few large loops are best
            pending, level.pending = list(waiting.values()), {}
        else:  # outside, what is not needed yet may share a loop with its readers
            now: set[int] = set()
            ask = [x.number for x in needed_by if x.number in waiting]
            while ask:
                number = ask.pop()
                if number not in now:
                    now.add(number)
                    ask += [x.number for x in waiting[number].inputs if x.number in waiting]
            pending = [waiting.pop(number) for number in sorted(now)]
        for nodes in self._of_one_shape(pending):
            for loop in loops_of(self, level, nodes):
                loop.emit()
            self.done.update(n.number for n in nodes)

    def _of_one_shape(self, nodes: list[Tensor]) -> list[list[Tensor]]:
        """Groups that a loop can hold: each operation in the first one of its shape where its operands are there."""
        groups: list[list[Tensor]] = []
        alike: dict[tuple[str, ...], list[int]] = {}  # the groups of a shape
        member: dict[int, tuple[int, tuple[str, ...]]] = {}
        for node in nodes:
            shape = self.axes(node)
            own = alike.setdefault(shape, [])
            least = 0
            for x in node.inputs:
                if x.number in member:
                    at, its = member[x.number]
                    least = max(least, at if its == shape else at + 1)
            k = bisect_left(own, least)
            if k == len(own):
                own.append(len(groups))
                groups.append([])
            groups[own[k]].append(node)
            member[node.number] = own[k], shape
        return groups

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
        if node.number in level.outputs:
            place = level.outputs[node.number]().reshaped(self.local_shape(node, level))
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

    # Operations that are not loops over elements.

    def emit_node(self, node: Tensor, level: Level) -> None:
        assert node.op is not None
        if level.body is None and node.op not in (MATMUL, ADD, SCAN):
            self.serial()
        if node.op is ADD:
            self._sum_of_products(node, level)
        elif node.op is SCAN:
            ScanLoop(self, node, level).emit()
        elif node.op in (STACKED, LAST):
            pass  # placed when their scan was written
        else:
            handler = getattr(self, f"_{node.op.name}", None)
            if handler is None:
                raise CannotCompile(
                    f"{self.name}: {node.op.name} of {describe(node)} is not compiled; run the part that needs it eagerly"
                )
            handler(node, level)

    def _reshape(self, node: Tensor, level: Level) -> None:
        origin = self.place(node.inputs[0], level)
        self._alias(node, level, origin.reshaped(self.local_shape(node, level)))

    def _detach(self, node: Tensor, level: Level) -> None:
        self._alias(node, level, self.place(node.inputs[0], level))

    def _alias(self, node: Tensor, level: Level, place: Place) -> None:
        held = node.op is RESHAPE and node.inputs[0].number in level.stacks  # for all steps already
        if (node.number in level.outputs and place.store.kind != "output") or (
            node.number in level.stacks and not held
        ):
            self.copy(level, place, self.target(node, level))
        else:
            self.settle(node, level, place)

    def _slice(self, node: Tensor, level: Level) -> None:
        axis, start, _, step = node.params
        origin = self.place(node.inputs[0], level)
        inner = self.count(tuple(node.shape[axis + 1 :]))
        if (
            resolve(step) == 1
            and contiguous_leading(tuple(node.inputs[0].shape), axis)
            and level.batch is None
        ):
            at = origin.at + self._offset(start, inner)
            self._alias(node, level, Place(origin.store, at, tuple(node.shape)))
            return
        outer = self.count(self.local_shape(node, level)[:axis])
        target, whole = self.target(node, level), node.inputs[0].shape[axis]
        self.write(
            level,
            Call("copy_slice", [
                self.view(origin), self.view(target), outer, self.size(whole), self.signed(start),
                self.size(node.shape[axis]), self.signed(step), inner,
            ]),
        )  # fmt: skip

    def signed(self, number) -> Index:
        number = resolve(number)
        return -self.size(-number) if isinstance(number, int) and number < 0 else self.size(number)

    def _offset(self, start, inner: Index) -> Index:
        return self.size(variable(start)) * inner  # that of the second step too, which is then like the third

    def _shift(self, node: Tensor, level: Level) -> None:
        origin, target = self.place(node.inputs[0], level), self.target(node, level)
        inner = self.count(tuple(node.shape[1:]))
        by = Number(node.params[0])
        self.write(
            level,
            Call("shift_rows", [self.view(origin), self.view(target), self.size(node.shape[0]), by, inner]),
        )

    def _cumsum(self, node: Tensor, level: Level) -> None:
        axis, backwards = node.params
        origin, target, shape = self.place(node.inputs[0], level), self.target(node, level), node.shape
        outer, inner = self.count(self.local_shape(node, level)[:axis]), self.count(tuple(shape[axis + 1 :]))
        count = self.size(self.local_shape(node, level)[axis])
        self.write(
            level,
            Call(
                "cumsum_columns", [self.view(origin), self.view(target), outer, count, inner, bool(backwards)]
            ),
        )

    def _place(self, node: Tensor, level: Level) -> None:
        axis, start, _, step, size = node.params
        origin, target = self.place(node.inputs[0], level), self.target(node, level)
        outer = self.count(self.local_shape(node, level)[:axis])
        inner = self.count(tuple(node.shape[axis + 1 :]))
        view = self.view(target)
        self.write(
            level,
            Call("fill", [view, Constant(target.store.dtype, 0)]),
            Call("place_slice", [
                self.view(origin), view, outer, self.size(size), self.signed(start),
                self.size(node.inputs[0].shape[axis]), self.signed(step), inner,
            ]),
        )  # fmt: skip

    def _concat(self, node: Tensor, level: Level) -> None:
        axis = node.params[0]
        target = self.target(node, level)
        whole, start = self.size(node.shape[axis]), Size({(): 0}).resolved()
        outer, inner = (
            self.count(self.local_shape(node, level)[:axis]),
            self.count(tuple(node.shape[axis + 1 :])),
        )
        for x in node.inputs:
            if level.body is None:
                self.serial()
            origin = self.place(x, level)
            if origin.store is not target.store or origin.at != self._part_of(node, x, start, level).at:
                self.write(
                    level,
                    Call("place_slice", [
                        self.view(origin), self.view(target), outer, whole, self.signed(start),
                        self.size(x.shape[axis]), ONE, inner,
                    ]),
                )  # fmt: skip
            start = resolve(start + x.shape[axis])

    def _place_concats(self, level: Level) -> None:
        """Parts of a concatenation along the leading axis are computed where they will stand."""
        for node in level.nodes:
            if node.op is CONCAT and contiguous_leading(tuple(node.shape), node.params[0]):
                start: Size | int = 0
                for x in node.inputs:
                    alone = len(level.readers.get(x.number, [])) == 1 and x.number not in level.wanted
                    if x.op is MATMUL and alone:
                        level.outputs[x.number] = lambda x=x, node=node, at=start: self._part_of(
                            node, x, at, level
                        )
                    start = resolve(start + x.shape[node.params[0]])

    def _part_of(self, node: Tensor, x: Tensor, start, level: Level) -> Place:
        whole = self.target(node, level)
        inner = self.count(tuple(node.shape[node.params[0] + 1 :]))
        return Place(whole.store, whole.at + self._offset(start, inner), tuple(x.shape))

    def _transpose(self, node: Tensor, level: Level) -> None:
        origin, axes = self.place(node.inputs[0], level), node.params[0]
        if axes == tuple(range(len(axes))):
            self._alias(node, level, origin)
            return
        target = self.target(node, level)
        shape, old = self.local_shape(node, level), tuple(node.inputs[0].shape)
        strides = [self.count(old[a + 1 :]) for a in axes]
        axes_sizes = [(self.size(n), s) for n, s in zip(shape, strides, strict=True)]
        outer, inner = axes_sizes[:-4], [(ONE, ZERO)] * (4 - len(axes_sizes)) + axes_sizes[-4:]
        read, written = self.view(origin), self.view(target)
        body = self.statements(level)
        if outer:  # loops over the axes that the kernel has no loop for
            at, number = origin.at, ZERO
            for depth, (n, stride) in enumerate(outer):
                counter = Name(f"i{depth}")
                at, number = at + counter * stride, number * n + counter
                loop = For(counter.text, ZERO, n)
                body.append(loop)
                body = loop.body
            count = self.count(shape[-4:])
            last: Index = ONE  # how far the last element lies from the first
            for n, stride in reversed(inner):
                last = (n - 1) * stride + last
            read, written = (
                View(origin.store, at, last),
                View(target.store, target.at + number * count, count),
            )
        call = Call("permute", [read, written, *(n for n, _ in inner), *(s for _, s in inner)])
        self.note(call)
        body.append(call)

    def _gather(self, node: Tensor, level: Level) -> None:
        table, index = (self.place(x, level) for x in node.inputs)
        width = self.count(tuple(node.inputs[0].shape[1:]))
        target = self.target(node, level)
        self.check(
            node,
            level,
            Call(
                "gather",
                [
                    self.view(table),
                    self.view(index),
                    self.view(target),
                    self.size(node.inputs[0].shape[0]),
                    width,
                ],
            ),
            f"the rows of {describe(node.inputs[0])}",
            node.inputs[0].shape[0],
        )

    def _arange(self, node: Tensor, level: Level) -> None:
        self.write(level, Call("count_up", [self.view(self.target(node, level))]))

    def check(self, node: Tensor, level: Level, call: Call, of: str, size: Size | int) -> None:
        """A call that counts what lies outside of `size` places; the first such is what the error names."""
        there = f"0 … {size - 1}" if isinstance(size, int) else f"0 … {size} − 1"
        self.checks.append(f"{describe(node)}: an index lies outside of {of}, {there}")
        call.check = CHECKS - len(self.checks)
        self.write(level, call)

    def _inside(self, node: Tensor, level: Level) -> None:
        index = self.place(node.inputs[0], level)
        size, of = node.params
        self.check(node, level, Call("count_outside", [self.view(index), self.size(size)]), of, size)
        self._alias(node, level, index)

    def _scatter(self, node: Tensor, level: Level) -> None:
        g, index = (self.place(x, level) for x in node.inputs)
        width = self.count(tuple(node.shape[1:]))
        target = self.target(node, level)
        view = self.view(target)
        self.write(level, Call("fill", [view, Constant(target.store.dtype, 0)]))
        self.check(
            node,
            level,
            Call("scatter", [self.view(g), self.view(index), view, self.size(node.shape[0]), width]),
            "the rows",
            node.shape[0],
        )

    # Reductions.

    def _reduction(self, node: Tensor, level: Level) -> None:
        axes, x = node.params[0], node.inputs[0]
        origin, target = self.place(x, level), self.target(node, level)
        shape = self.local_shape(x, level)
        if x.dtype != node.dtype:  # counts of booleans, sums of small integers
            converted = self.new_store(
                f"{self.label(x, level)}_{target.store.dtype}", node.dtype, product_of(tuple(x.shape))
            )
            place = Place(converted, self.batch_offset(x, level), shape)
            self.copy(level, origin, place)
            origin = place
        dims: list[list] = []  # runs of axes that are all kept or all summed
        for k, n in enumerate(shape):
            if is_one(n):
                continue
            if dims and dims[-1][0] == (k in axes):
                dims[-1][1] = resolve(named(dims[-1][1]) * named(n))
            else:
                dims.append([k in axes, resolve(n)])
        kinds = "".join("r" if reduced else "k" for reduced, _ in dims)
        sizes = [n for _, n in dims]
        views = [self.view(origin), self.view(target)]
        name = node.op.name  # type: ignore[union-attr]
        if kinds in ("", "k") and name == "top":  # a single −∞ is not −∞ any more
            self.write(level, Call("top_rows", [*views, self.count(shape), ONE]))
            return
        if kinds in ("", "k"):  # nothing to reduce
            self.copy(level, origin, target.reshaped(origin.shape))
            return
        outer: Size | int = 1
        if kinds in ("r", "kr"):
            outer, sizes = (sizes[0], sizes[1:]) if kinds == "kr" else (1, sizes)
            self.write(level, Call(f"{name}_rows", [*views, self.size(outer), self.size(sizes[0])]))
        elif kinds in ("rk", "krk"):
            outer, sizes = (sizes[0], sizes[1:]) if kinds == "krk" else (1, sizes)
            self.write(
                level,
                Call(f"{name}_columns", [*views, self.size(outer), self.size(sizes[0]), self.size(sizes[1])]),
            )
        else:
            raise CannotCompile(
                f"{self.name}: {name} over axes {axes} of {describe(x)}, which do not lie together ({DEFECT})"
            )

    _sum = _max = _min = _top = _logsumexp = _reduction

    # Products.

    def _matmul(self, node: Tensor, level: Level) -> None:
        if node.dtype.kind != "f":
            raise CannotCompile(
                f"{self.name}: matmul of {describe(node.inputs[0])}: products of integers are not compiled; "
                "convert them with .astype('float64')"
            )
        if len(node.inputs[1].shape) > 2:
            self._batched(node, level)
        else:
            self.product(
                node, self.operand_stores(node, level), level, lambda: self.target(node, level), False
            )

    def operand_stores(self, node: Tensor, level: Level) -> list[Buffer]:
        stores = []
        for x in node.inputs:
            x = x.inputs[0] if x.op is TRANSPOSE and x.number not in self.places else x
            stores.append(self.place(self._unshifted(x, level)[0], level).store)
        return stores

    def _unshifted(self, x: Tensor, level: Level) -> tuple[Tensor, Index | None]:
        """What a product reads in place of a shifted operand, and by how many rows it is shifted."""
        if x.number in self.places or not _shifted(x) or not self._deferred_product(x, level):
            return x, None
        node = x if x.op is SHIFT else x.inputs[0]
        rows = self.count((abs(node.params[0]), *node.shape[1:-1]))
        return node.inputs[0], -rows if node.params[0] < 0 else rows

    def _sum_of_products(self, node: Tensor, level: Level) -> None:
        """x + a·b + …: the products are added where x stands, if nobody else reads it."""
        addends = [x for x in node.inputs if self._is_addend(x, node, level)]
        others = [x for x in node.inputs if not any(x is a for a in addends)]
        accumulate = False
        if others:
            (other,) = others
            origin = self.place(other, level)
            pushed = level.outputs.get(other.number)
            if (pushed is not None and pushed is level.outputs.get(node.number)) or self._adds_onto(
                other, node, level
            ):
                self._go_on_at(origin.store, node, level)
                self.settle(node, level, origin)
                if other.number in level.stepwise:
                    level.stepwise.add(node.number)
            else:
                if level.body is None and not level.in_time:
                    self.parallel([origin.store])
                target = self.target(node, level)
                self._start_rows(
                    node, origin, target, level
                )  # each thread prepares the rows that it will add to
            accumulate = True
        for x in addends:
            stores = self.operand_stores(x, level)
            self.product(x, stores, level, lambda: self.target(node, level), accumulate)
            accumulate = True

    def _start_rows(self, node: Tensor, origin: Place, target: Place, level: Level) -> None:
        same = self.elements(origin.shape) == self.elements(target.shape)
        if same and level.body is not None:
            self.copy(level, origin, target)
            return
        first, rows = self._rows_of_thread(target.shape[:-1], level)
        width = self.size(node.shape[-1])
        operands = [origin.store, origin.at, target.store, target.at, first, rows, width, same]
        self.write(level, Call("start_rows", operands))

    def _rows_of_thread(self, axes: tuple, level: Level) -> tuple[Index, Index]:
        """The first row and how many of them, in lines that set them where they are not set yet."""
        if level.in_time:
            return Name("first_row"), Name("row_count")
        count = self.count(axes)
        if level.body is not None:
            return ZERO, count
        if self.stage.rows_of != count:
            self.stage.rows_of = count
            self.write(level, *share("row0", "rows", ZERO, count))
        return FIRST_ROW, ROW_COUNT

    def _adds_onto(self, x: Tensor, total: Tensor, level: Level) -> bool:
        """May products be added where x stands, because the sum is all that reads it?"""
        if x.number in level.outputs or total.number in level.outputs or x.dtype != total.dtype:
            return False
        if self.elements(x.shape) != self.elements(total.shape):
            return False
        if (
            total.number in level.stacks and x.number not in level.stepwise
        ):  # kept for all steps, in a place of its own
            return False
        return self.may_overwrite(x, level, {total.number})

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

    def _go_on_at(self, store: Buffer, node: Tensor, level: Level) -> None:
        """Products will be added to what stands there: in this stage only if each thread has the rows that it wrote."""
        if level.body is not None or level.in_time or not self.stage.parallel:
            return
        rows = self.count(tuple(node.shape[:-1]))
        for s in statements_in(self.stage.body):
            if store not in buffers_of(s):
                continue
            if isinstance(s, Product):
                same = s.c[0] is store and s.c_rows == rows and store not in (s.a[0], s.b[0])
            else:
                same = isinstance(s, Call) and s.function == "start_rows" and self.stage.rows_of == rows
            if not same:
                self.parallel([], fresh=True)
                return

    def product(
        self, node: Tensor, stores, level: Level, target: Callable[[], Place], accumulate: bool
    ) -> None:
        """One product with a matrix on the right, or a sum over rows (a transposed matrix on the left)."""
        left, right = node.inputs
        if level.body is None and not level.in_time:
            self.parallel(stores)
        if left.op is TRANSPOSE and left.params[0] == (1, 0) and left.number not in self.places:
            self._sum_product(node, level, target(), accumulate)
            return
        left, by = self._unshifted(left, level)
        a = self.place(left, level)
        K, columns = left.shape[-1], right.shape[-1]
        shape = self.local_shape(left, level)
        packed = self.pack(right, level)
        c = target()
        k, n = self.size(K), self.size(columns)
        if level.body is None and not level.in_time:
            rows = self.count(shape[:-1])
            whole = Product(
                False, rows, (a.store, a.at), (packed, ZERO), (c.store, c.at), k, n, accumulate, by, rows
            )
            self.write(level, whole)
            self.stage.rows_of = None
            return
        first, rows = (
            (Name("first_row"), Name("row_count")) if level.in_time else (ZERO, self.count(shape[:-1]))
        )
        self.write(level, Call("matmul", [
            a.store, a.at + first * k, rows, k, k, ONE, packed, ZERO, c.store, c.at + first * n, n, n, accumulate,
        ]))  # fmt: skip

    def pack(self, right: Tensor, level: Level) -> Buffer:
        """The right operand in panels: packed once, before the loop where it does not change in it."""
        transposed = right.op is TRANSPOSE and right.number not in self.places
        base = right.inputs[0] if transposed else right
        place = self.place(base, level)
        owner = level.owner(base)
        inside = owner is level
        k, n = self.size(right.shape[0]), self.size(right.shape[1])
        given = place.store.kind in ("input", "constant")  # never written to: packed once for all stages
        loop: Any = level  # in front of which it is packed: it does not change in it
        while owner is not None and not inside and loop.above is not owner:
            loop = loop.above
        once_for = loop if owner is not None else 0 if given else len(self.stages)
        key = (place.store, place.at, k, n, transposed, once_for)
        if key in self.packed and not inside:
            return self.packed[key]
        store = self.new_store(
            f"packed_{base.name or place.store.name}", base.dtype, self._packed_size(right)
        )
        store.kind = "packed"
        strides = (ONE, k) if transposed else (n, ONE)
        line = Call("pack", [place.store, place.at, k, n, *strides, store, ZERO])
        if inside:
            self.write(level, line)
            return store
        self.stage.uses.update(buffers_of(line))
        if owner is not None:
            loop.before.append(line)
        else:
            self.stage.setup.append(line)
        self.packed[key] = store
        return store

    def _packed_size(self, right: Tensor):
        columns = right.shape[1]
        return product_of((right.shape[0],)) * (named(columns) + PANEL_MOST)

    def _sum_product(self, node: Tensor, level: Level, c: Place, accumulate: bool) -> None:
        """Aᵀ·B with A (k, m) and B (k, n): the sum over rows of what a weight gradient needs."""
        left, right = node.inputs
        base, by = self._unshifted(left.inputs[0], level)
        a, b = self.place(base, level), self.place(right, level)
        m, n, k = (self.size(s) for s in (left.shape[0], right.shape[1], right.shape[0]))
        self.sums.add(c.store.dtype)
        if len(self.sums) > 1:
            raise CannotCompile(
                f"{self.name}: sums of products in float32 and in float64; convert with .astype(…) to one of them"
            )
        if level.body is not None:
            self.write(level, Call("matmul_sum", [
                a.store, a.at, m, b.store, b.at, n, k, m, n, c.store, c.at, n, accumulate, SCRATCH,
            ]))  # fmt: skip
            return
        whole = Product(True, k, (a.store, a.at), (b.store, b.at), (c.store, c.at), m, n, accumulate, by, m)
        self.write(level, whole)
        self.stage.rows_of = None

    def _batched(self, node: Tensor, level: Level) -> None:
        """Operands with leading axes: one product after the other, and an operand again and again where it is repeated."""
        left, right = node.inputs
        if level.body is None:
            self.serial()
        operands = []
        for x in (left, right):
            transposed = x.op is TRANSPOSE and x.number not in self.places
            operands.append((self.place(x.inputs[0] if transposed else x, level), transposed))
        (a, a_turned), (b, b_turned) = operands
        m, k, n = (self.size(s) for s in (left.shape[-2], left.shape[-1], right.shape[-1]))
        c = self.target(node, level)
        store = self.new_store(
            "packed_batch",
            right.dtype,
            product_of((right.shape[-2],)) * (named(right.shape[-1]) + PANEL_MOST),
        )
        store.kind = "packed"
        a_strides = (ONE, m) if a_turned else (k, ONE)
        b_strides = (ONE, k) if b_turned else (n, ONE)
        *loops, (batch, *_) = self._batches(node, level)
        at, body = [a.at, b.at, c.at], self.statements(level)
        for depth, (count, *strides) in enumerate(loops):
            counter = Name(f"i{depth}")
            at = [place + counter * stride for place, stride in zip(at, strides, strict=True)]
            loop = For(counter.text, ZERO, count)
            body.append(loop)
            body = loop.body
        call = Call("matmul_batch", [
            a.store, at[0], *a_strides, b.store, at[1], *b_strides, store, c.store, at[2], batch, m, k, n,
        ])  # fmt: skip
        self.note(call)
        body.append(call)

    def _batches(self, node: Tensor, level: Level) -> list[tuple[Index, ...]]:
        """The leading axes of a product, neighbours merged: how many, and by how much either operand and the result go on.

        The last are those that both operands have: one call takes all of them.
        """
        ndim = len(node.shape)
        shapes = [self.local_shape(x, level) for x in (*node.inputs, node)]
        shapes = [(*(1,) * (ndim - len(s)), *s) for s in shapes]
        runs: list[tuple] = []  # how many, who has them, the last of the axes
        for axis, n in enumerate(shapes[-1][:-2]):
            who = [not is_one(s[axis]) for s in shapes]
            if runs and runs[-1][1] == who:
                runs[-1] = (resolve(named(runs[-1][0]) * named(n)), who, axis)
            elif any(who):
                runs.append((resolve(n), who, axis))
        if not runs or not all(runs[-1][1]):
            runs.append((1, [True] * 3, ndim - 3))
        return [
            (
                self.size(n),
                *(self.count(s[axis + 1 :]) if has else ZERO for s, has in zip(shapes, who, strict=True)),
            )
            for n, who, axis in runs
        ]

    # The text.

    def _written_stages(self) -> list[Stage]:
        """Stages with calls in place of products; what a parallel one needs packed is packed by one thread before it."""
        found = []
        for stage in self.stages:
            body = blocked(stage.body)
            if stage.setup and (stage.parallel or not body):
                found.append(Stage(False, stage.setup))
            if body:
                found.append(Stage(stage.parallel, body if stage.parallel else [*stage.setup, *body]))
        return found

    def text(self, stages: list[Stage]) -> str:
        """One function with all stages: compiling takes as long as there are functions and statements."""
        entries: dict[Buffer | Name, tuple[str, int]] = {s: (s.dtype, k) for k, s in enumerate(self.stores)}
        for at, name in enumerate(self.size_names.values()):
            entries[name] = ("size", 2 * len(self.stores) + at)
        merged = merge_stages([s.body for s in stages], entries, 2 * len(self.stores) + len(self.sizes))
        used: set[Buffer | Name] = set()

        def name_of(x: Buffer | Name) -> str:
            used.add(x)
            return own_name(x)

        body = ["    bad = 0", *self._stages(stages, merged, name_of)]
        head = [
            f"    {own_name(x)} = " + (f"table[{k}]" if kind == "size" else f"array_{kind}(table, {k})")
            for x, (kind, k) in entries.items()
            if x in used
        ]
        signature = f"int64(int64[::1], {SCRATCH_TYPES[self.scratch_type()]}, int64, int64, int64, int64)"
        run = [f'@entry("{signature}")', "def run(table, scratch, part, parts, first, last):", *head, *body]
        header = HEADER.format(name=quotable(self.name))
        return "\n\n".join(
            [header, *self.functions.values(), *merged.functions, "\n".join([*run, "    return bad"]) + "\n"]
        )

    def _stages(self, stages: list[Stage], merged: Merged, name: Naming) -> list[str]:
        """The lines of all stages in their order; fills `lists`, which the calls of repeated ones read."""
        start = 2 * len(self.stores) + len(self.sizes)
        self.lists = merged.lists
        loops = {run.start: run for run in runs_of(merged.calls)}
        text: list[str] = []
        k = 0
        while k < len(stages):
            if k in loops:
                lines = as_loop(loops[k], merged, start + len(self.lists), self.store_names)
                self.lists += [x for j in loops[k] for x in (merged.calls[j].number, merged.calls[j].at)]
                text += ["    " + line for line in lines]
                k = loops[k].stop
                continue
            what = "rows or sequences are split over threads" if stages[k].parallel else "one thread"
            call = merged.calls.get(k)
            lines = call.lines(merged.name) if call else lines_of(stages[k].body, name)
            text += [f"    if first <= {k} < last:  # {what}", *("        " + line for line in lines)]
            k += 1
        return text

    def scratch_type(self) -> str:
        """The scratch array of sums of products, which have one dtype."""
        kinds = self.sums or {s.dtype for s in self.stores}
        return "f4" if "f4" in kinds else "f8"
