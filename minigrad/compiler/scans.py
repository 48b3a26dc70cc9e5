"""A scan as a loop over steps: where its carries and stacks live, and what threads may share.

A scan in the step of another one is a loop in that loop, for one thread: its arrays hold the steps of one outer step,
but for what is kept for all of them, which is written where it is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops import OPS
from ..scanning import LAST, STACKED, Body
from ..sizes import is_one, resolve, source
from ..tensor import Tensor
from .places import BLOCK_ROWS, Level, Place, Stage, Store, named, plus, product_of, readers_of

if TYPE_CHECKING:
    from .emit import Emitter

BROADCAST_TO, CONCAT, DETACH, MATMUL, PLACE, RESHAPE, SLICE = (
    OPS[n]
    for n in (
        "broadcast_to", "concat", "detach", "matmul", "place", "reshape", "slice",
    )
)  # fmt: skip


class ScanLoop:
    """A scan as a loop over steps: where carries and stacks live, and the body's lines."""

    def __init__(self, emitter: Emitter, node: Tensor, outer: Level):
        self.e, self.node, self.outer = emitter, node, outer
        self.body: Body = node.params[0]
        count = len(self.body.carry)
        self.first = node.inputs[:count]
        self.sequences = node.inputs[count : count + len(self.body.xs)]
        self.T = self.sequences[0].shape[0]
        self.asked = list({a.number: a for a in emitter.asked.get(node.number, [])}.values())
        self.offsets: dict[str, str] = {}
        self.held: dict[
            int, Place
        ] = {}  # body node → where its stack is kept for all steps of the loop around
        self.beforehand: Stage | None = None  # where threads make the products that one makes in the loop

    def emit(self) -> None:
        e, body = self.e, self.body
        nodes = body.nodes(*self.asked)
        wanted = {a.number for a in self.asked} | {c.number for c in body.carry_out}
        level = Level(
            nodes, wanted, readers_of(nodes), body, self.outer.indent + "    ", scan=self.node,
            above=self.outer, depth=self.outer.depth + 1,
        )  # fmt: skip
        if self.outer.body is None:  # a loop inside of another one is written among its lines, for one thread
            level.batch = self._batch(nodes)
            if level.batch is None:
                e.stages.append(Stage(False))
            else:
                e.parallel([], fresh=True)
        blocks = [s for s in self.sequences if s.number not in e.places and e.in_time(s, self.outer)]
        for s in blocks:
            e.target(s, self.outer)
        self._inputs(level)
        kept = self._carries(level)
        if level.batch is not None:
            e.stage.lines.insert(0, f"    rows = {e.size(level.batch)} * (part + 1) // parts - row0")
            e.stage.lines.insert(0, f"    row0 = {e.size(level.batch)} * part // parts")
        if blocks:
            level.indent += "    "
            self._block_of_steps(blocks, level)
            steps = "t0", "t1"
        else:
            steps = "0", e.size(self.T)
        low, high = steps
        head = f"range({high} - 1, {low} - 1, -1)" if body.reverse else f"range({low}, {high})"
        mark = len(e.stage.lines)
        e.stage.lines.append(f"{level.indent[4:]}for {self._step} in {head}:")
        push_down(level, e)
        level.nodes = e.scheduled(level)
        self._outputs(level)
        e.run_level(level)
        self._close_carries(level, kept)
        offsets = [f"{level.indent}{name} = {value}" for value, name in self.offsets.items()]
        e.stage.lines[mark : mark + 1] = [*level.before, e.stage.lines[mark], *offsets]
        e.places.close(level)
        if self.beforehand is not None:  # what all of them need packed is packed before the first
            self.beforehand.setup, e.stage.setup = e.stage.setup, []
        self._place_readers(level, kept)

    def _block_of_steps(self, blocks: list[Tensor], level: Level) -> None:
        """Lines that make the products of a block of steps.

        Of several threads each has a few rows of every step, and products of few rows are slow: they make all products
        before, when each has rows that lie together.
        """
        e, T = self.e, self.e.size(self.T)
        N = e.size(blocks[0].shape[1])
        rows, row0 = ("rows", "row0") if level.batch is not None else (N, "0")
        write = e.stage.lines.append
        alone = level.batch is None
        block, indent = f"max(1, {BLOCK_ROWS} // max(1, {N}))", "        " if alone else "            "
        write(f"    block = {block if alone else f'{block} if parts == 1 else max(1, {T})'}")
        if self.body.reverse:
            write(f"    for t1 in range({T}, 0, -block):")
            write("        t0 = max(0, t1 - block)")
        else:
            write(f"    for t0 in range(0, {T}, block):")
            write(f"        t1 = min({T}, t0 + block)")
        if not alone:
            write("        if parts == 1:")
        mark = len(e.stage.lines)
        write(f"{indent}first_row, row_count = t0 * {N} + {row0}, (t1 - t0 - 1) * {N} + {rows}")
        inside = replace(self.outer, indent=indent, in_time=True, pending={})
        for node in blocks:
            if node.op is MATMUL:
                e.product(node, [], inside, lambda node=node: e.places[node.number], "False")
            else:
                e._sum_of_products(node, inside)
        if not alone:
            all_rows = e.count(tuple(blocks[0].shape[:2]))
            own = [
                f"first_row = {all_rows} * part // parts",
                f"row_count = {all_rows} * (part + 1) // parts - first_row",
                *(str(line).strip() for line in e.stage.lines[mark + 1 :]),
            ]
            self.beforehand = replace(
                e.stage, lines=["    if parts > 1:", *(f"        {line}" for line in own)], setup=[]
            )
            e.stages.insert(-1, self.beforehand)

    def _batch(self, nodes: list[Tensor]):
        """The number of sequences, if every operation of the body works on each sequence alone."""
        if not self.body.carry or len(self.body.carry[0].shape) < 2:
            return None
        N = self.body.carry[0].shape[0]
        batched = {
            s.number for s in (*self.body.carry, *self.body.xs) if s.shape and source(s.shape[0]) == source(N)
        }
        if is_one(N) or any(s.number not in batched for s in (*self.body.carry,)):
            return None
        for n in nodes:
            alone = all(
                (x.number in batched and len(x.shape) == len(n.shape))
                if self._inside(x)
                else self._is_row(x, n)
                for x in n.inputs
            )
            ok = alone and bool(n.shape) and source(n.shape[0]) == source(N) and len(n.shape) >= 2
            if n.op is MATMUL:
                left, right = n.inputs
                ok = ok or (left.number in batched and not self._inside(right))
                ok = ok and left.number in batched and not self._inside(right)
                ok = ok and len(left.shape) == len(right.shape) == 2
            elif n.op in (CONCAT, SLICE, PLACE):
                ok = ok and n.params[0] > 0 and all(x.number in batched for x in n.inputs)
            elif n.op.kind == "reduction":  # type: ignore[union-attr]
                x = n.inputs[0]
                ok = x.number in batched and 0 not in n.params[0] and len(n.shape) >= 2
            elif n.op.kind != "elementwise" and n.op not in (BROADCAST_TO, DETACH):  # type: ignore[union-attr]
                ok = False
            if not ok:
                return None
            batched.add(n.number)
        return N if all(c.number in batched for c in self.body.carry_out) else None

    def _inside(self, x: Tensor) -> bool:
        return x.number > self.body.start and not (x.op is None and x._value is not None)

    @staticmethod
    def _is_row(x: Tensor, node: Tensor) -> bool:
        """Is what comes from outside the same for every sequence?"""
        return len(x.shape) < len(node.shape)

    @property
    def _depth(self) -> str:
        """What names in an inner loop have more than those in an outer one: t, then t_1."""
        return f"{self.outer.depth}_" if self.outer.depth else ""

    @property
    def _step(self) -> str:
        return f"t_{self.outer.depth}" if self.outer.depth else "t"

    def _at(self, node: Tensor, level: Level, shift: int = 0, slots: bool = False) -> str:
        """Where a step's value starts in a stack, for this thread: a name that is set at the top of the loop."""
        size = self.e.count(tuple(node.shape))
        step = f"{self._step} + {shift}" if shift else self._step
        index = f"({step}) % 2" if slots else f"({step})" if shift else step
        value = self.e.batch_offset(node, level, index if size == "1" else f"{index} * {size}")
        if value not in self.offsets:
            self.offsets[value] = f"at_{self._depth}{len(self.offsets)}"
        return self.offsets[value]

    def _inputs(self, level: Level) -> None:
        e = self.e
        for x, sequence in zip(self.body.xs, self.sequences, strict=True):
            if not level.readers.get(x.number) and x.number not in level.wanted:
                continue
            place = e.place(sequence, self.outer)
            at = self._at(x, level)
            base = at if place.at == "0" else f"{place.at} + {at}"
            e.settle(x, level, Place(place.store, base, e.local_shape(x, level)))
            whole = source(named(place.store.size)) == source(product_of(tuple(sequence.shape)))
            if place.at == "0" and whole:  # a slot for each step
                level.stepwise.add(x.number)

    def _carries(self, level: Level) -> list[bool]:
        """Give every carry its array: T + 1 states where somebody reads them all, else two in turn."""
        e, kept = self.e, []
        asked = {a.number for a in self.asked}
        claimed: set[int] = set()
        for k, (before, after) in enumerate(zip(self.body.carry, self.body.carry_out, strict=True)):
            all_steps = before.number in asked or (after.number in asked and after.number not in claimed)
            kept.append(all_steps)
            size = product_of(tuple(before.shape))
            label = before.name or after.name or "carry"
            store = e.new_store(label, before.dtype, resolve(size * (named(self.T) + 1 if all_steps else 2)))
            e.carry_stores.add(store.name)
            new, old = (0, 1) if self.body.reverse else (1, 0)
            at_old, at_new = (self._at(before, level, s, not all_steps) for s in (old, new))
            e.settle(before, level, Place(store, at_old, e.local_shape(before, level)))
            target = Place(store, at_new, e.local_shape(before, level))
            if after.number not in claimed and after.number > self.body.start and after.op is not None:
                claimed.add(after.number)
                level.outputs[after.number] = lambda target=target: target
            self._start(level, k, before, store, all_steps)
        return kept

    def _start(self, level: Level, k: int, before: Tensor, store: Store, all_steps: bool) -> None:
        e, first, T = self.e, self.first[k], self.e.size(self.T)
        size = e.count(tuple(before.shape))
        slot = (T if all_steps else f"{T} % 2") if self.body.reverse else "0"
        base = "0" if slot == "0" else f"({slot}) * {size}"
        target = Place(store, e.batch_offset(before, level, base), e.local_shape(before, level))
        flat = replace(level, indent=self.outer.indent)
        if first.op is BROADCAST_TO and e.is_number(first.inputs[0]):
            number = first.inputs[0].value.item()
            said = repr(number) if np.isfinite(number) else f'float("{number}")'
            e.write(flat, f"fill({e.view(target, True)}, {store.dtype}({said}))")
        else:
            origin = e.place(first, self.outer)
            here = Place(origin.store, e.batch_offset(before, level, origin.at), e.local_shape(before, level))
            e.copy(flat, here, target)

    def _outputs(self, level: Level) -> None:
        """Stacks of values that are not carries: an array with all steps, or the place of an input that dies."""
        e = self.e
        xs = {x.number for x in self.body.xs}
        carries = {c.number for c in self.body.carry}
        for a in self.asked:
            if a.number in xs or a.number in carries or a.number in level.outputs or a.op is None:
                continue

            reader = self._kept_by(a)

            def fresh(a=a) -> Place:
                store = e.new_store(
                    e.label(a, level), a.dtype, resolve(product_of(tuple(a.shape)) * named(self.T))
                )
                return Place(store, self._at(a, level), e.local_shape(a, level))

            def within(a=a, reader: Any = reader) -> Place:
                whole = self.held[a.number] = e.target(reader, self.outer)
                return Place(whole.store, plus(whole.at, self._at(a, level)), e.local_shape(a, level))

            level.stacks[a.number] = fresh if reader is None else within

    def _kept_by(self, a: Tensor) -> Tensor | None:
        """Who reads all steps of `a`, and is kept for all steps of the loop around: they are written there at once."""
        readers = self.outer.readers.get(self.node.number, [])
        return next(
            (r for r in readers if r.op is STACKED and r.params[0] is a and r.number in self.outer.stacks),
            None,
        )

    def _close_carries(self, level: Level, kept: list[bool]) -> None:
        """A state that was not computed into its place (an input passed on, the same state twice) is copied there."""
        e = self.e
        for k, (before, after) in enumerate(zip(self.body.carry, self.body.carry_out, strict=True)):
            mine = e.places[before.number].store
            place = e.place(after, level)
            if place.store is mine and place.at != e.places[before.number].at:
                continue
            new = 0 if self.body.reverse else 1
            at = self._at(before, level, new, not kept[k])
            e.copy(level, place, Place(mine, at, e.local_shape(before, level)))

    def _place_readers(self, level: Level, kept: list[bool]) -> None:
        """Tell the graph outside where stacks and last carries are."""
        e, T = self.e, self.T
        for reader in self.outer.readers.get(self.node.number, []):
            if reader.op is LAST:
                k = reader.params[0]
                size = e.count(tuple(reader.shape))
                slot = "0" if self.body.reverse else e.size(T) if kept[k] else f"({e.size(T)}) % 2"
                at = "0" if slot == "0" else f"{slot} * {size}"
                e._alias(
                    reader,
                    self.outer,
                    Place(e.places[self.body.carry[k].number].store, at, tuple(reader.shape)),
                )
            elif reader.number not in e.places:
                e._alias(reader, self.outer, self._stack_place(reader, kept))

    def _stack_place(self, reader: Tensor, kept: list[bool]) -> Place:
        e, node = self.e, reader.params[0]
        for x, sequence in zip(self.body.xs, self.sequences, strict=True):
            if x is node:
                return e.place(sequence, self.outer)
        store = e.places[node.number].store
        for whole in self.held.values():
            if whole.store is store:  # its own, or that of what it is a reshape of
                return whole.reshaped(tuple(reader.shape))
        at = "0"
        size = e.count(tuple(node.shape))
        for before, after in zip(self.body.carry, self.body.carry_out, strict=True):
            if e.places[before.number].store is store:
                shifted = (node is after) != self.body.reverse
                at = size if shifted else "0"
        return Place(store, at, tuple(reader.shape))


def push_down(level: Level, emitter: Emitter) -> None:
    """What a value is computed from goes where the value has to go, if that is only a reshape or a sum of products."""
    for node in reversed(level.nodes):
        if node.number not in level.outputs:
            continue
        if node.op is RESHAPE:
            inner = [node.inputs[0]]
        elif emitter._adds_product(node, level):
            inner = [x for x in node.inputs if emitter._adds_product(x, level)]
        else:
            continue
        for x in inner:
            alone = len(level.readers.get(x.number, [])) == 1 and x.number not in level.wanted
            if (alone and x.op not in (None, STACKED, LAST, RESHAPE, SLICE)) or (alone and x.op is RESHAPE):
                level.outputs[x.number] = level.outputs[node.number]
