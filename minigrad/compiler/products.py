"""Products: what is packed, what is added where it stands, what is read transposed or shifted, what is made in the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ops import OPS
from ..scanning import LAST, SCAN, STACKED
from ..sizes import is_one, resolve, source
from ..tensor import Tensor, describe
from .blocking import SCRATCH, share
from .lowering import Lowering, of_rows
from .places import PANEL_MOST, CannotCompile, Level, Place, named, product_of
from .program import (
    FIRST_MADE,
    FIRST_ROW,
    MADE_COUNT,
    ONE,
    ROW_COUNT,
    ZERO,
    Buffer,
    Call,
    For,
    Index,
    Name,
    Product,
    buffers_of,
    statements_in,
)

ADD, MATMUL, RESHAPE, SHIFT, SLICE, TRANSPOSE = (
    OPS[n] for n in ("add", "matmul", "reshape", "shift", "slice", "transpose")
)


def _shifted(x: Tensor) -> bool:
    """A shift, or its rows in one axis."""
    if x.op is RESHAPE and x.inputs[0].op is SHIFT:
        return (
            len(x.shape) == 2
            and len(x.inputs[0].shape) > 1
            and source(named(x.shape[-1])) == source(named(x.inputs[0].shape[-1]))
        )
    return x.op is SHIFT and len(x.shape) > 1


class Products(Lowering):
    """Products with a matrix on the right, sums over rows, and products of operands with leading axes."""

    # Which products are made where.

    def in_time(self, node: Tensor, level: Level) -> bool:
        """A product that only a scan reads, step by step, is made inside it, a block of steps before it is read.

        It is read again while the caches still hold it, and it is one product for many rows all the same.
        """
        readers = level.readers.get(node.number, [])
        if level.body is not None or node.number in level.wanted or len(node.shape) != 3:
            return False
        if len(readers) != 1 or readers[0].op is not SCAN or node.number in level.targets:
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

    # Their statements.

    @of_rows
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
            pushed = level.targets.get(other.number)
            if (pushed is not None and pushed is level.targets.get(node.number)) or self._adds_onto(
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
            return FIRST_MADE, MADE_COUNT
        count = self.count(axes)
        if level.body is not None:
            return ZERO, count
        if self.stage.rows_of != count:
            self.stage.rows_of = count
            self.write(level, *share(FIRST_ROW, ROW_COUNT, count))
        return FIRST_ROW, ROW_COUNT

    def _adds_onto(self, x: Tensor, total: Tensor, level: Level) -> bool:
        """May products be added where x stands, because the sum is all that reads it?"""
        if x.number in level.targets or total.number in level.targets or x.dtype != total.dtype:
            return False
        if self.elements(x.shape) != self.elements(total.shape):
            return False
        if (
            total.number in level.stacks and x.number not in level.stepwise
        ):  # kept for all steps, in a place of its own
            return False
        return self.may_overwrite(x, level, {total.number})

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
        first, rows = (FIRST_MADE, MADE_COUNT) if level.in_time else (ZERO, self.count(shape[:-1]))
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

    def push_down(self, level: Level) -> None:
        """What a value is computed from goes where the value has to go, if that is only a reshape or a sum of products."""
        for node in reversed(level.nodes):
            if node.number not in level.targets:
                continue
            if node.op is RESHAPE:
                inner = [node.inputs[0]]
            elif self._adds_product(node, level):
                inner = [x for x in node.inputs if self._adds_product(x, level)]
            else:
                continue
            for x in inner:
                alone = len(level.readers.get(x.number, [])) == 1 and x.number not in level.wanted
                if (alone and x.op not in (None, STACKED, LAST, RESHAPE, SLICE)) or (
                    alone and x.op is RESHAPE
                ):
                    level.targets[x.number] = level.targets[node.number]
