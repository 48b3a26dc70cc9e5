"""A scan as a loop over steps: where its carries and stacks live, and what threads may share.

A scan in the step of another one is a loop in that loop, for one thread: its arrays hold the steps of one outer step,
but for what is kept for all of them, which is written where it is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..axes import along
from ..ops import OPS
from ..scanning import LAST, STACKED, Body
from ..sizes import is_one, resolve, source
from ..tensor import Tensor
from . import blocking
from .blocking import share
from .places import Level, Place, named, product_of, readers_of
from .program import (
    FIRST_MADE,
    FIRST_ROW,
    MADE_COUNT,
    ONE,
    PARTS,
    ROW_COUNT,
    ZERO,
    Buffer,
    Call,
    Constant,
    For,
    If,
    Index,
    Name,
    Number,
    Set,
    Stage,
    Statement,
    chosen,
    compared,
    maximum,
    minimum,
)  # fmt: skip
from .walk import Walk

BROADCAST_TO, MATMUL = (OPS[n] for n in ("broadcast_to", "matmul"))


class ScanLoop:
    """A scan as a loop over steps: where carries and stacks live, and the body's lines."""

    def __init__(self, emitter: Walk, node: Tensor, outer: Level):
        self.e, self.node, self.outer = emitter, node, outer
        self.body: Body = node.params[0]
        count = len(self.body.carry)
        self.first = node.inputs[:count]
        self.sequences = node.inputs[count : count + len(self.body.xs)]
        self.T = self.sequences[0].shape[0]
        self.asked = list({a.number: a for a in emitter.asked.get(node.number, [])}.values())
        self.offsets: dict[Index, Name] = {}
        self.held: dict[
            int, Place
        ] = {}  # body node → where its stack is kept for all steps of the loop around
        self.beforehand: Stage | None = None  # where threads make the products that one makes in the loop

    def emit(self) -> None:
        e, body = self.e, self.body
        nodes = body.nodes(*self.asked)
        wanted = {a.number for a in self.asked} | {c.number for c in body.carry_out}
        level = Level(
            nodes, wanted, readers_of(nodes), body, [], scan=self.node, above=self.outer, depth=self.outer.depth + 1,
        )  # fmt: skip
        if (
            self.outer.body is None
        ):  # a loop inside of another one is written among its statements, for one thread
            level.batch = self._batch(nodes)
            if level.batch is None:
                e.stages.append(Stage(False))
            else:
                e.parallel([], fresh=True)
        blocks = [s for s in self.sequences if s.number not in e.places and e.in_time(s, self.outer)]
        for s in blocks:
            e.target(s, self.outer)
        if level.batch is not None:
            e.write(self.outer, *share(FIRST_ROW, ROW_COUNT, e.size(level.batch)))
        self._inputs(level)
        kept = self._carries(level)
        T = e.size(self.T)
        around = e.statements(self.outer)
        low, high = ZERO, T
        if blocks:
            around = self._block_of_steps(blocks, level)
            low, high = Name("t0"), Name("t1")
        bounds = (high - 1, low - 1, Number(-1)) if body.reverse else (low, high, ONE)
        steps = For(self._step.text, *bounds)
        level.statements = []
        e.push_down(level)
        level.nodes = e.scheduled(level)
        self._stacks(level)
        e.run_level(level)
        self._close_carries(level, kept)
        offsets = [Set((name.text,), (value,)) for value, name in self.offsets.items()]
        steps.body = [*offsets, *level.statements]
        around += [*level.before, steps]
        e.places.close(level)
        if self.beforehand is not None:  # what all of them need packed is packed before the first
            self.beforehand.setup, e.stage.setup = e.stage.setup, []
        self._place_readers(kept)

    def _block_of_steps(self, blocks: list[Tensor], level: Level) -> list[Statement]:
        """Statements that make the products of a block of steps; returns where those of the steps go.

        Of several threads each has a few rows of every step, and products of few rows are slow: they make all products
        before, when each has rows that lie together.
        """
        e, T = self.e, self.e.size(self.T)
        N = e.size(blocks[0].shape[1])
        alone = level.batch is None
        rows, row0 = (N, ZERO) if alone else (ROW_COUNT, FIRST_ROW)
        t0, t1, block = Name("t0"), Name("t1"), Name("block")
        several = maximum(1, Number(blocking.BLOCK_ROWS) // maximum(1, N))
        size = several if alone else chosen(compared("==", PARTS, 1), several, maximum(1, T))
        e.write(self.outer, Set((block.text,), (size,)))
        if self.body.reverse:
            loop = For(t1.text, T, ZERO, -block, [Set((t0.text,), (maximum(0, t1 - block),))])
        else:
            loop = For(t0.text, ZERO, T, block, [Set((t1.text,), (minimum(T, t0 + block),))])
        e.statements(self.outer).append(loop)
        count = (t1 - t0 - 1) * N + rows
        made: list[Statement] = [Set((FIRST_MADE.text, MADE_COUNT.text), (t0 * N + row0, count))]
        inside = replace(self.outer, statements=made, in_time=True, pending={})
        for node in blocks:
            if node.op is MATMUL:
                e.product(node, [], inside, lambda node=node: e.places[node.number], False)
            else:
                e._sum_of_products(node, inside)
        loop.body += made if alone else [If(compared("==", PARTS, 1), made)]
        if not alone:
            own = share(FIRST_MADE, MADE_COUNT, e.count(tuple(blocks[0].shape[:2])))
            several_threads = If(compared(">", PARTS, 1), [*own, *made[1:]])
            self.beforehand = replace(e.stage, body=[several_threads], setup=[])
            e.stages.insert(-1, self.beforehand)
        return loop.body

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
            ok = len(n.shape) >= 2 and source(n.shape[0]) == source(N) and self.e.by_rows(n)
            if not ok or not self._alone(n, batched):
                return None
            batched.add(n.number)
        return N if all(c.number in batched for c in self.body.carry_out) else None

    def _inside(self, x: Tensor) -> bool:
        return x.number > self.body.start and not (x.op is None and x._value is not None)

    def _alone(self, n: Tensor, batched: set[int]) -> bool:
        """Is each sequence made of itself, and of what is the same for all of them?"""
        entries = list(along(n.op, 0, n.shape, [x.shape for x in n.inputs], n.params))  # type: ignore[arg-type]
        own = {k for k, *place in entries if place == [0]}
        return len(own) == len(entries) and all(
            x.number in batched if k in own else not self._inside(x) for k, x in enumerate(n.inputs)
        )

    @property
    def _depth(self) -> str:
        """What names in an inner loop have more than those in an outer one: t, then t_1."""
        return f"{self.outer.depth}_" if self.outer.depth else ""

    @property
    def _step(self) -> Name:
        return Name(f"t_{self.outer.depth}" if self.outer.depth else "t")

    def _at(self, node: Tensor, level: Level, shift: int = 0, slots: bool = False) -> Name:
        """Where a step's value starts in a stack, for this thread: a name that is set at the top of the loop."""
        step = self._step + shift
        slot = step % 2 if slots else step
        value = self.e.batch_offset(node, level, slot * self.e.count(tuple(node.shape)))
        if value not in self.offsets:
            self.offsets[value] = Name(f"at_{self._depth}{len(self.offsets)}")
        return self.offsets[value]

    def _inputs(self, level: Level) -> None:
        e = self.e
        for x, sequence in zip(self.body.xs, self.sequences, strict=True):
            if not level.readers.get(x.number) and x.number not in level.wanted:
                continue
            place = e.place(sequence, self.outer)
            at = self._at(x, level)
            e.settle(x, level, Place(place.store, place.at + at, e.local_shape(x, level)))
            whole = source(named(place.store.size)) == source(product_of(tuple(sequence.shape)))
            if place.at == ZERO and whole:  # a slot for each step
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
            e.carry_stores.add(store)
            new, old = (0, 1) if self.body.reverse else (1, 0)
            at_old, at_new = (self._at(before, level, s, not all_steps) for s in (old, new))
            e.settle(before, level, Place(store, at_old, e.local_shape(before, level)))
            target = Place(store, at_new, e.local_shape(before, level))
            if after.number not in claimed and after.number > self.body.start and after.op is not None:
                claimed.add(after.number)
                level.targets[after.number] = lambda target=target: target
            self._start(level, k, before, store, all_steps)
        return kept

    def _start(self, level: Level, k: int, before: Tensor, store: Buffer, all_steps: bool) -> None:
        e, first, T = self.e, self.first[k], self.e.size(self.T)
        size = e.count(tuple(before.shape))
        slot = (T if all_steps else T % 2) if self.body.reverse else ZERO
        target = Place(store, e.batch_offset(before, level, slot * size), e.local_shape(before, level))
        flat = replace(level, statements=self.outer.statements)
        if first.op is BROADCAST_TO and e.is_number(first.inputs[0]):
            number = first.inputs[0].value.item()
            e.write(flat, Call("fill", [e.view(target), Constant(store.dtype, number)]))
        else:
            origin = e.place(first, self.outer)
            here = Place(origin.store, e.batch_offset(before, level, origin.at), e.local_shape(before, level))
            e.copy(flat, here, target)

    def _stacks(self, level: Level) -> None:
        """Stacks of values that are not carries: an array with all steps, or the place of an input that dies."""
        e = self.e
        xs = {x.number for x in self.body.xs}
        carries = {c.number for c in self.body.carry}
        for a in self.asked:
            if a.number in xs or a.number in carries or a.number in level.targets or a.op is None:
                continue

            reader = self._kept_by(a)

            def fresh(a=a) -> Place:
                store = e.new_store(
                    e.label(a, level), a.dtype, resolve(product_of(tuple(a.shape)) * named(self.T))
                )
                return Place(store, self._at(a, level), e.local_shape(a, level))

            def within(a=a, reader: Any = reader) -> Place:
                whole = self.held[a.number] = e.target(reader, self.outer)
                return Place(whole.store, whole.at + self._at(a, level), e.local_shape(a, level))

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

    def _place_readers(self, kept: list[bool]) -> None:
        """Tell the graph outside where stacks and last carries are."""
        e, T = self.e, self.T
        for reader in self.outer.readers.get(self.node.number, []):
            if reader.op is LAST:
                k = reader.params[0]
                size = e.count(tuple(reader.shape))
                slot = ZERO if self.body.reverse else e.size(T) if kept[k] else e.size(T) % 2
                store = e.places[self.body.carry[k].number].store
                e._alias(reader, self.outer, Place(store, slot * size, tuple(reader.shape)))
            elif reader.number not in e.places:
                e._alias(reader, self.outer, self._stack_place(reader))

    def _stack_place(self, reader: Tensor) -> Place:
        e, node = self.e, reader.params[0]
        for x, sequence in zip(self.body.xs, self.sequences, strict=True):
            if x is node:
                return e.place(sequence, self.outer)
        store = e.places[node.number].store
        for whole in self.held.values():
            if whole.store is store:  # its own, or that of what it is a reshape of
                return whole.reshaped(tuple(reader.shape))
        at: Index = ZERO
        size = e.count(tuple(node.shape))
        for before, after in zip(self.body.carry, self.body.carry_out, strict=True):
            if e.places[before.number].store is store:
                shifted = (node is after) != self.body.reverse
                at = size if shifted else ZERO
        return Place(store, at, tuple(reader.shape))
