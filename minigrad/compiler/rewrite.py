"""The rewrites: each a function from a graph to a graph that means the same.

`rebuild` copies a graph, bodies of scans included, and lets a rule replace nodes on
the way; what nobody asks for is not copied, and so is dropped.  What stands for what is
logged there, see `rewritten`.  Each rewrite can be run, tested and drawn alone:

1. `split_products`: a product with a concatenation becomes a sum of products.
2. `hoist`: what depends on a scan's inputs alone leaves the loop.
3. `sink`: sums of products over the steps leave the backward loop, and so do
   products that only the results need.
4. `drop_carries`: a carry that nobody reads is not carried.
5. `shift_before_products`: what a convolution shifts is read where it stands.
6. `reduce_by_runs`: a reduction over axes that stand apart becomes one for each run of them.
7. `look_up_one_hot`: products with one-hot rows become look-ups.
8. `drop_ones`: nothing is multiplied by 1, which is what the gradient of a loss begins with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import GraphError
from ..ops import OPS
from ..reverse import ancestors
from ..scanning import (
    LAST,
    SCAN,
    STACKED,
    Body,
    again,
    ancestors_within,
    asked_among,
    opened,
    scan_node,
    stacked,
)
from ..sizes import ARANGE, Size, is_one, resolve, source
from ..tensor import Tensor, apply, next_number, symbol
from ..trace import everywhere

(
    ADD, BROADCAST_TO, CAST, CONCAT, EQUAL, GATHER, GREATER, INSIDE, MATMUL, MUL, PLACE, RESHAPE, SCATTER, SHIFT,
    SLICE, SUM, TRANSPOSE, WHERE,
) = (
    OPS[n]
    for n in (
        "add", "broadcast_to", "cast", "concat", "equal", "gather", "greater", "inside", "matmul", "mul", "place",
        "reshape", "scatter", "shift", "slice", "sum", "transpose", "where",
    )
)  # fmt: skip
Rule = Callable[[Tensor, tuple], "Tensor | None"]
Rewrite = Callable[[Sequence[Tensor]], list[Tensor]]
_log: ContextVar[dict[int, int] | None] = ContextVar("minigrad log of a rewrite", default=None)


def rewritten(rewrite: Rewrite, outputs: Sequence[Tensor]) -> tuple[list[Tensor], dict[int, int]]:
    """What a rewrite makes of a graph, and its log: the number of a node it made → that of the node it stands for there.

    The one has the numbers of the other; if it left a loop, those of all steps, what every step has, or their sum, as
    its shape says.  What is made and not in the log stands for no node alone: it is new.
    """
    log: dict[int, int] = {}
    token = _log.set(log)
    try:
        return rewrite(outputs), log
    finally:
        _log.reset(token)


def stands_for(fresh: Tensor, number: int) -> None:
    """Log it, if `fresh` was made now; `number` may be a node that was made on the way."""
    log = _log.get()
    if log is not None and fresh.number > number:
        log.setdefault(fresh.number, log.get(number, number))


def remake(node: Tensor, inputs: tuple) -> Tensor:
    """The same operation, which is no scan's, on other inputs, under the same name."""
    fresh = again(node, inputs, {}, {})
    stands_for(fresh, node.number)
    return fresh


def rebuild(
    results: Sequence[Tensor],
    rule: Rule | None = None,
    scan_rule: Callable | None = None,
    in_bodies: bool = True,
) -> list[Tensor]:
    """Copy the graph behind `results`.

    rule(node, new inputs) may return a replacement for a node, also inside bodies if `in_bodies`;
    scan_rule(Loop) may change a loop that was copied before it is made a node, inner loops before outer ones.
    Where there is nothing to replace, the graph is what it was.
    """
    nodes = ancestors(*results)
    if not any(n.op is SCAN or (n.op is not None and rule and rule(n, n.inputs) is not None) for n in nodes):
        return list(results)
    done: dict[int, Tensor] = {}
    Copying(rule, rule if in_bodies else None, scan_rule).copy(nodes, done)
    return [done.get(y.number, y) for y in results]


@dataclass
class Copying:
    """How `rebuild` copies nodes: by one rule outside of bodies, by another one inside, loops by a third."""

    rule: Rule | None
    inside: Rule | None
    scan_rule: Callable | None

    def copy(self, nodes: Sequence[Tensor], new: dict[int, Tensor]) -> None:
        """Copies of nodes, by rising number; `new` has what they read from elsewhere, and gets the copies."""
        loops: dict[int, Loop] = {}
        asked = asked_among(nodes)
        for node in nodes:
            if node.op is None:
                continue
            inputs = tuple(new.get(x.number, x) for x in node.inputs)
            if node.op is SCAN:
                loop = Loop.copy(node, inputs, asked.get(node.number, []), self)
                if self.scan_rule:
                    self.scan_rule(loop)
                loops[node.number] = loop
                fresh = loop.node()
            elif node.op is STACKED:
                fresh = loops[node.inputs[0].number].read_stack(node.params[0])
            elif node.op is LAST:
                fresh = loops[node.inputs[0].number].read_last(node.params[0])
            else:
                fresh = self.rule(node, inputs) if self.rule else None
                fresh = remake(node, inputs) if fresh is None else fresh
            new[node.number] = fresh
            stands_for(fresh, node.number)
            if fresh.name is None and fresh.op is not None:
                fresh.name = node.name


def _inputs_first(root: Tensor, inputs: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
    """The nodes that `inputs` leads to from `root`, and itself, by rising number."""
    seen: dict[int, Tensor] = {}
    pending = [root]
    while pending:
        node = pending.pop()
        if node.number not in seen:
            seen[node.number] = node
            pending.extend(inputs(node))
    return [seen[n] for n in sorted(seen)]


@dataclass
class Loop:
    """A scan taken apart, in which carries, inputs and results can be added or removed.

    `stacks` and `lasts` say how a reader of the old scan gets what it read: from a
    body node of the new one, or from a node outside.
    """

    start: int
    reverse: bool
    carry: list[Tensor]
    xs: list[Tensor]
    carry_out: list[Tensor]
    first: list[Tensor]
    sequences: list[Tensor]
    new: dict[int, Tensor]  # old body node → new body node
    asked: list[Tensor]  # new body nodes whose stacks are read
    outside: dict[int, Callable[[], Tensor]] = field(
        default_factory=dict
    )  # body node → its stack, made outside
    positions: list[int] = field(default_factory=list)  # old carry → new carry, −1 if it left
    outside_lasts: dict[int, Callable[[], Tensor]] = field(default_factory=dict)
    made: Tensor | None = None
    read: dict[int, Tensor] = field(default_factory=dict)  # the stacks read so far: one node each

    @classmethod
    def copy(cls, node: Tensor, inputs: Sequence[Tensor], asked: list[Tensor], how: Copying) -> Loop:
        body: Body = node.params[0]
        new: dict[int, Tensor] = {}
        start = opened(node, inputs, new)
        replace(how, rule=how.inside).copy(body.nodes(*asked), new)
        count = len(body.carry)
        return cls(
            start, body.reverse, [new[c.number] for c in body.carry], [new[x.number] for x in body.xs],
            [new.get(c.number, c) for c in body.carry_out], list(inputs[:count]), list(inputs[count : count + len(body.xs)]),
            new, [new[a.number] for a in asked], positions=list(range(count)),
        )  # fmt: skip

    def node(self) -> Tensor:
        if not self.xs:  # the number of steps must come from somewhere
            raise AssertionError("a loop keeps at least one input")
        body = Body(self.carry, self.xs, self.carry_out, [], self.start, self.reverse)
        self.made = scan_node(
            body, self.first, self.sequences, [a for a in self.asked if a.number not in self.outside]
        )
        for number in sorted(self.outside):  # one may be made of those before it
            self.read[number] = self.outside[number]()
        return self.made

    def read_stack(self, old: Tensor) -> Tensor:
        return self.stack(self.new[old.number])

    def stack(self, node: Tensor) -> Tensor:
        """All steps' values of a new body node."""
        for x, sequence in zip(self.xs, self.sequences, strict=True):
            if x is node:
                return sequence
        if node.number not in self.read:
            if node is not self.stored(node):  # elements in the same order: nothing is kept for it
                own = self.stack(node.inputs[0])
                self.read[node.number] = own.reshape((own.shape[0], *node.shape))
            else:
                self.read[node.number] = stacked(self.made, node)  # type: ignore[arg-type]
        return self.read[node.number]

    def stored(self, node: Tensor) -> Tensor:
        """The node whose stack holds the elements of this one's: what it is a reshape of."""
        while node.op is RESHAPE and self.inside(node) and self.inside(node.inputs[0]):
            node = node.inputs[0]
        return node

    def read_last(self, k: int) -> Tensor:
        if k in self.outside_lasts:
            return self.outside_lasts[k]()
        at = self.positions[k]
        return apply(LAST, (self.made,), (at, self.carry[at]))  # type: ignore[arg-type]

    def nodes(self) -> list[Tensor]:
        """What the new body computes for its carries and its readers."""
        kept = [a for a in self.asked if a.number not in self.outside]
        return [n for n in ancestors_within(self.start, *self.carry_out, *kept) if n.op is not None]

    def renew(self, new: dict[int, Tensor]) -> None:
        """Let everything that refers to body nodes refer to their replacements."""
        for number, fresh in new.items():
            stands_for(fresh, number)
        self.carry_out = [new.get(c.number, c) for c in self.carry_out]
        self.asked = [new.get(a.number, a) for a in self.asked]
        self.new = {old: new.get(n.number, n) for old, n in self.new.items()}

    def inside(self, node: Tensor) -> bool:
        return node.number > self.start and not (node.op is None and node._value is not None)


# 1. Products with a concatenation.


def split_products(results: Sequence[Tensor]) -> list[Tensor]:
    """[a, b] · W = a · W[:A] + b · W[A:], so that each part can go its own way."""

    def rule(node: Tensor, inputs: tuple) -> Tensor | None:
        if node.op is not MATMUL or inputs[0].op is not CONCAT:
            return None
        left, right = inputs
        if left.params[0] != len(left.shape) - 1 or len(right.shape) != 2:
            return None
        total, start = None, 0
        for part in left.inputs:
            stop = resolve(start + part.shape[-1])
            product = apply(MATMUL, (part, apply(SLICE, (right,), (0, start, stop, 1))))
            total = product if total is None else apply(ADD, (total, product))
            start = stop
        if total is not None:
            total.name = node.name
        return total

    return rebuild(results, rule)


# 2. What depends on the inputs alone.


def hoist(results: Sequence[Tensor]) -> list[Tensor]:
    """Products of a step's input with captures, and the biases added to them, leave the loop."""
    return rebuild(results, None, _hoist_loop)


def _hoist_loop(loop: Loop) -> None:
    lifted = {x.number: s for x, s in zip(loop.xs, loop.sequences, strict=True)}
    stays: set[int] = set()  # what is known not to leave
    new: dict[int, Tensor] = {}

    def lift(node: Tensor) -> Tensor | None:
        """The node for all steps at once, outside; None where that cannot be."""
        way: list[Tensor] = []
        while node.number not in lifted and node.number not in stays:
            if node.op is not MATMUL or loop.inside(node.inputs[1]) or len(node.inputs[1].shape) != 2:
                stays.add(node.number)
                break
            way.append(node)
            node = node.inputs[0]
        if node.number in stays:
            stays.update(n.number for n in way)
            return None
        for product in reversed(way):
            lifted[product.number] = remake(product, (lifted[node.number], product.inputs[1]))
            node = product
        return lifted[node.number]

    def terms(root: Tensor) -> list[Tensor]:
        """A sum as its terms, as far as nobody else reads the partial sums."""
        found, pending = [], [root]
        while pending:
            node = pending.pop()
            if node.op is ADD and (node is root or readers.get(node.number, 0) == 1):
                pending += reversed(node.inputs)
            else:
                found.append(node)
        return found

    readers = _count_readers(loop.nodes(), (*loop.carry_out, *loop.asked))
    body = loop.nodes()
    asked = asked_among(body)
    inner_sums = {
        x.number for n in body if n.op is ADD for x in n.inputs if x.op is ADD and readers.get(x.number) == 1
    }
    read_alone = {
        x.number for n in body if n.op is not ADD for x in n.inputs
    }  # by more than a sum, which would lift it
    for node in body:
        own = tuple(new.get(x.number, x) for x in node.inputs)
        if node.op is ADD and node.number not in inner_sums:
            parts = terms(node)
            up = [p for p in parts if (p.op is MATMUL and lift(p) is not None)]
            if up:
                # What all of them are spread to with the axis of steps in front is what each step's are spread to.
                least = min(len(p.shape) for p in up)
                up = [p for p in up if len(p.shape) == least]
                up += [p for p in parts if not loop.inside(p) and len(p.shape) <= least]
                lifting = {p.number for p in up}
                rest = [p for p in parts if p.number not in lifting]
                outer = None
                for p in up:
                    term = lifted.get(p.number, p)
                    outer = term if outer is None else apply(ADD, (outer, term))
                outer.name = node.name  # type: ignore[union-attr]
                if not rest:
                    stands_for(outer, node.number)  # type: ignore[arg-type]
                fresh = symbol(outer.shape[1:], node.dtype, node.name, True)  # type: ignore[union-attr]
                loop.xs.append(fresh)
                loop.sequences.append(outer)  # type: ignore[arg-type]
                lifted[fresh.number] = outer  # type: ignore[assignment]
                for p in rest:
                    fresh = apply(ADD, (fresh, new.get(p.number, p)))
                    fresh.scope = node.scope
                fresh.name = node.name
                new[node.number] = fresh
                continue
        if node.op is MATMUL and node.number in read_alone and lift(node) is not None:
            fresh = symbol(node.shape, node.dtype, node.name, True)
            loop.xs.append(fresh)
            loop.sequences.append(lifted[node.number])
            new[node.number] = fresh
            continue
        if any(a is not b for a, b in zip(own, node.inputs, strict=True)):
            new[node.number] = again(node, own, new, asked)
    loop.renew(new)
    _drop_inputs(loop)


def _count_readers(nodes: list[Tensor], roots: Sequence[Tensor]) -> dict[int, int]:
    readers: dict[int, int] = {}
    for x in (*(x for n in nodes for x in n.inputs), *roots):
        readers[x.number] = readers.get(x.number, 0) + 1
    return readers


def _drop_inputs(loop: Loop) -> None:
    """Step inputs that nothing reads any more; one stays to say how many steps there are."""
    read = {x.number for n in loop.nodes() for x in n.inputs} | {
        c.number for c in (*loop.carry_out, *loop.asked)
    }
    kept = [k for k, x in enumerate(loop.xs) if x.number in read] or [0]
    loop.xs, loop.sequences = [loop.xs[k] for k in kept], [loop.sequences[k] for k in kept]


# 3. Sums over the steps.


def sink(results: Sequence[Tensor]) -> list[Tensor]:
    """Weight gradients become one product over all steps, and so do products that only results need."""
    made = min((n.number for n in everywhere(results) if n.is_symbol), default=0)
    return rebuild(results, None, lambda loop: _sink_loop(loop, made))


def _sink_loop(loop: Loop, made: int) -> None:
    """made : constants with larger numbers were made by the function; the values of older ones may be assigned anew."""
    nodes, roots = loop.nodes(), (*loop.carry_out, *loop.asked)
    counts = _count_readers(nodes, roots)
    reader = {x.number: n for n in nodes for x in n.inputs}
    for k, (before, after) in enumerate(zip(list(loop.carry), list(loop.carry_out), strict=True)):
        terms = _sum_terms(after, before, reader, counts)
        if not terms or not all(same_shape(term, before) for term in terms):
            continue
        needs = [need for term in terms for need in _needs(loop, term)]
        if any(n is None for n in needs):
            continue
        first = loop.first[k]

        def total(terms=terms, first=first) -> Tensor:
            result = None
            for term in terms:
                part = _over_steps(loop, term)
                result = part if result is None else apply(ADD, (result, part))
            assert result is not None
            return result if _is_zero(first, made) else apply(ADD, (first, result))

        loop.outside_lasts[k] = total
        loop.asked += [n for n in needs if n is not None]
    leaving = [k for k in range(len(loop.carry)) if k in loop.outside_lasts]
    _drop_carries(loop, leaving)
    feeds_carry = {n.number for n in ancestors_within(loop.start, *loop.carry_out)}
    sinkable = _sinkable(loop)
    for node in list(loop.asked):
        if node.number in sinkable and node.number not in feeds_carry and node.number not in loop.outside:
            loop.outside[node.number] = lambda node=node: _outside_product(loop, node)
            loop.asked += _sunk_needs(loop, node)
    loop.asked = _distinct(loop.asked)
    _drop_inputs(loop)


def _distinct(nodes: list[Tensor]) -> list[Tensor]:
    return list({n.number: n for n in nodes}.values())


def _sum_terms(
    after: Tensor, before: Tensor, reader: dict[int, Tensor], counts: dict[int, int]
) -> list[Tensor] | None:
    """after = before + g₁ + g₂ …: the g; None if it is anything else.

    The sum may be read where it ends, and nowhere on its way: not by another carry, a stack, or a term.
    """
    left, right, node = [], [], before
    while node is not after:
        total = reader.get(node.number)
        if total is None or total.op is not ADD or counts[node.number] != 1:
            return None
        (right if total.inputs[0] is node else left).append(total.inputs[total.inputs[0] is node])
        node = total
    return [*left[::-1], *right] if counts[after.number] == 1 else None


def same_shape(a: Tensor, b: Tensor) -> bool:
    """Of the same shape at every call: nothing was repeated."""
    return list(map(source, map(resolve, a.shape))) == list(map(source, map(resolve, b.shape)))


def _is_swap(node: Tensor) -> bool:
    return node.op is TRANSPOSE and node.params[0] == (1, 0)


def _summed(term: Tensor) -> Sequence[Tensor]:
    """What the sum over the steps of a term is made of, if that is the sums of other terms."""
    if term.op is PLACE or (term.op is RESHAPE and _unshaped(term).op in (SUM, SCATTER)):
        return term.inputs
    if term.op is ADD and all(same_shape(x, term) for x in term.inputs):
        return term.inputs
    return ()


def _unshaped(node: Tensor) -> Tensor:
    while node.op is RESHAPE:
        node = node.inputs[0]
    return node


def _needs(loop: Loop, term: Tensor) -> list[Tensor | None]:
    """Body nodes whose stacks `_over_steps` reads; [None] where a term has to stay inside."""
    needs: list[Tensor | None] = []
    for node in _inputs_first(term, _summed):
        if node.op is MATMUL and _is_swap(node.inputs[0]):
            read = (node.inputs[0].inputs[0], node.inputs[1])
            if any(len(x.shape) != 2 for x in read):
                return [None]
        elif node.op in (SUM, SCATTER):
            read = node.inputs
        elif _summed(node):
            continue
        else:
            return [None]
        if not all(loop.inside(x) for x in read):
            return [None]
        needs += [loop.stored(x) for x in read]
    return needs


def _over_steps(loop: Loop, term: Tensor) -> Tensor:
    """Σ over the steps of a term, made outside from stacks."""
    totals: dict[int, Tensor] = {}
    for node in _inputs_first(term, _summed):
        own = tuple(totals[x.number] for x in _summed(node))
        totals[node.number] = remake(node, own) if own else _total(loop, node)
        stands_for(totals[node.number], node.number)
    return totals[term.number]


def _total(loop: Loop, term: Tensor) -> Tensor:
    if term.op is MATMUL:
        a, b = loop.stack(term.inputs[0].inputs[0]), loop.stack(term.inputs[1])
        rows = a.shape[0] * a.shape[1]
        a, b = a.reshape((rows, a.shape[2])), b.reshape((rows, b.shape[2]))
        return remake(term, (a.transpose((1, 0)), b))
    if term.op is SUM:
        axes, keepdims = term.params
        total = apply(SUM, (loop.stack(term.inputs[0]),), ((0, *(a + 1 for a in axes)), keepdims))
        stands_for(total, term.number)
        return total.reshape(term.shape) if keepdims else total
    return apply(SCATTER, tuple(loop.stack(x) for x in term.inputs), term.params)


def _is_zero(node: Tensor, made: int) -> bool:
    return (
        node.op is OPS["broadcast_to"]
        and node.inputs[0].op is None
        and node.inputs[0]._value is not None
        and node.inputs[0].number > made
        and not node.inputs[0].requires_grad
        and not node.inputs[0]._value.any()
    )


def _sinkable(loop: Loop) -> set[int]:
    """Products of what is inside with what is not, and sums of them: a capture, such as a bias, comes along."""
    found: set[int] = set()
    for node in loop.nodes():
        if node.op is MATMUL:
            left, right = node.inputs
            if loop.inside(left) and not loop.inside(_unmoved(right)) and len(right.shape) == 2:
                found.add(node.number)
        elif node.op is ADD:
            own = [x.number in found for x in node.inputs]
            if any(own) and all(
                len(x.shape) == len(node.shape) if ok else _is_bias(loop, x, node)
                for ok, x in zip(own, node.inputs, strict=True)
            ):
                found.add(node.number)
    return found


def _is_bias(loop: Loop, x: Tensor, total: Tensor) -> bool:
    return not loop.inside(x) and len(x.shape) < len(total.shape)


def _unmoved(node: Tensor) -> Tensor:
    """Behind transposes and slices, which a capture may carry inside the body."""
    while node.op in (TRANSPOSE, SLICE):
        node = node.inputs[0]
    return node


def _addends(loop: Loop, node: Tensor) -> Sequence[Tensor]:
    return [x for x in node.inputs if loop.inside(x)] if node.op is ADD else ()


def _sunk_needs(loop: Loop, node: Tensor) -> list[Tensor]:
    products = [n for n in _inputs_first(node, lambda n: _addends(loop, n)) if n.op is MATMUL]
    return [loop.stored(product.inputs[0]) for product in products]


def _outside_product(loop: Loop, node: Tensor) -> Tensor:
    made: dict[int, Tensor] = {}
    for n in _inputs_first(node, lambda n: _addends(loop, n)):
        if n.op is ADD:
            made[n.number] = remake(n, tuple(made.get(x.number, x) for x in n.inputs))
        else:
            left, right = n.inputs
            made[n.number] = remake(n, (loop.stack(left), _moved_out(loop, right)))
    return made[node.number]


def _moved_out(loop: Loop, node: Tensor) -> Tensor:
    moves: list[Tensor] = []
    while loop.inside(node):
        moves.append(node)
        node = node.inputs[0]
    for move in reversed(moves):
        node = remake(move, (node,))
    return node


# 4. Carries and moves.


def _drop_carries(loop: Loop, leaving: list[int]) -> None:
    kept = [k for k in range(len(loop.carry)) if k not in leaving]
    loop.positions = [kept.index(p) if p in kept else -1 for p in loop.positions]
    loop.carry, loop.carry_out = [loop.carry[k] for k in kept], [loop.carry_out[k] for k in kept]
    loop.first = [loop.first[k] for k in kept]


def move_captures_out(results: Sequence[Tensor]) -> list[Tensor]:
    """Slices and transposes of captures are the same at every step: they leave the loop."""

    def loop_rule(loop: Loop) -> None:
        new: dict[int, Tensor] = {}
        outer: list[Tensor] = []
        nodes = loop.nodes()
        asked = asked_among(nodes)
        for node in nodes:
            own = tuple(new.get(x.number, x) for x in node.inputs)
            still = all(not loop.inside(x) or any(x is o for o in outer) for x in own)
            if still and node.op in (TRANSPOSE, SLICE, RESHAPE, ARANGE):
                new[node.number] = remake(node, own)
                outer.append(new[node.number])
            elif any(a is not b for a, b in zip(own, node.inputs, strict=True)):
                new[node.number] = again(node, own, new, asked)
        if outer:
            _restart(loop, new, outer)

    return rebuild(results, None, loop_rule)


def _restart(loop: Loop, new: dict[int, Tensor], outer: list[Tensor]) -> None:
    """Give the body fresh numbers, so that what moved out is older than it."""
    loop.renew(new)
    _drop_inputs(loop)
    nodes, out = loop.nodes(), {o.number for o in outer}
    start, asked = next_number(), asked_among(nodes)
    fresh = {s.number: symbol(s.shape, s.dtype, s.name, s.requires_grad) for s in (*loop.carry, *loop.xs)}
    for node in nodes:
        if node.number not in out:
            fresh[node.number] = again(node, tuple(fresh.get(x.number, x) for x in node.inputs), fresh, asked)
    loop.start = start
    loop.carry, loop.xs = [fresh[c.number] for c in loop.carry], [fresh[x.number] for x in loop.xs]
    loop.renew(fresh)


def join_places(results: Sequence[Tensor]) -> list[Tensor]:
    """place(a, 0…A) + place(b, A…B) over a whole axis is a concatenation: no zeros, no sum.

    What is placed where something else is placed too, as the parts of a weight's gradient are at every step, is
    added before it is placed.
    """
    sums = _sums_of_places(results)
    new: dict[int, Tensor] = {}  # the operands of sums, as they are in the new graph

    def rule(node: Tensor, inputs: tuple) -> Tensor | None:
        if node.op in (ADD, PLACE):
            new.update((x.number, fresh) for x, fresh in zip(node.inputs, inputs, strict=True))
        return _joined(node, sums[node.number], new) if node.number in sums else None

    return rebuild(results, rule) if sums else list(results)


def _sums_of_places(results: Sequence[Tensor]) -> dict[int, list[Tensor]]:
    """The terms of every sum of which two or more are placed along one axis."""
    nodes = everywhere(results)
    roots = [y for n in nodes if n.op is SCAN for y in n.params[0].carry_out]
    roots += [*results, *(n.params[0] for n in nodes if n.op is STACKED)]
    readers = _count_readers(nodes, roots)
    inner = {
        x.number for n in nodes if n.op is ADD for x in n.inputs if x.op is ADD and readers[x.number] == 1
    }
    found: dict[int, list[Tensor]] = {}
    for node in nodes:
        if node.op is not ADD or node.number in inner:
            continue
        terms, pending = [], [*reversed(node.inputs)]
        while pending:
            x = pending.pop()
            if x.number in inner:
                pending += reversed(x.inputs)
            else:
                terms.append(x)
        if sum(_is_part(x, node) for x in terms) > 1:
            found[node.number] = terms
    return found


def _is_part(x: Tensor, total: Tensor) -> bool:
    """Is it placed, without gaps, in something of the sum's shape?"""
    return x.op is PLACE and x.params[3] == 1 and x.dtype == total.dtype and same_shape(x, total)


def _joined(total: Tensor, terms: Sequence[Tensor], new: dict[int, Tensor]) -> Tensor | None:
    """The sum of what is placed at the same places, joined where that fills the axis, and of the other terms."""
    axis = next(x.params[0] for x in terms if _is_part(x, total))
    places: dict[tuple[str, str], list[Tensor]] = {}
    others: list[Tensor] = []
    for x in terms:
        if _is_part(x, total) and x.params[0] == axis:
            places.setdefault((source(x.params[1]), source(x.params[2])), []).append(x)
        else:
            others.append(new[x.number])
    parts = [(same[0], _sum_of([new[x.inputs[0].number] for x in same])) for same in places.values()]
    parts.sort(key=lambda part: _now(part[0].params[1]))
    ends = [0, *(place.params[2] for place, _ in parts)]
    starts = [*(place.params[1] for place, _ in parts), total.shape[axis]]
    if len(parts) > 1 and _meet(starts, ends):
        joined = [apply(CONCAT, tuple(x for _, x in parts), (axis,))]
    elif len(parts) + len(others) < len(terms):
        joined = [remake(place, (x,)) for place, x in parts]
    else:
        return None
    return _sum_of([*joined, *others])


def _now(size: Size | int) -> int:
    return size.hint if isinstance(size, Size) else size


def _meet(starts: Sequence, ends: Sequence) -> bool:
    """Does each part begin where the last one ends?  The program is then for calls in which that is so.

    A sequence of which a Python loop reads as many steps as it has now would else get a gradient of its whole size,
    zeros but for a step, from every step.
    """
    pairs = list(zip(starts, ends, strict=True))
    try:
        return all(_now(a) == _now(b) for a, b in pairs) and all(a == b for a, b in pairs)
    except GraphError:  # it cannot be demanded
        return False


def _sum_of(terms: Sequence[Tensor]) -> Tensor:
    return functools.reduce(lambda a, b: apply(ADD, (a, b)), terms)


def merge_batches(results: Sequence[Tensor]) -> list[Tensor]:
    """Σ over a batch of aᵀ·b is one product: the weight gradient of a layer that all steps share."""

    def rule(node: Tensor, inputs: tuple) -> Tensor | None:
        if node.op is not SUM or inputs[0].op is not MATMUL:
            return None
        left, right = inputs[0].inputs
        axes, keepdims = node.params
        lead = len(left.shape) - 2
        swapped = (*range(lead), lead + 1, lead)
        if (
            left.op is not TRANSPOSE
            or left.params[0] != swapped
            or axes != tuple(range(lead))
            or [source(resolve(n)) for n in right.shape[:-2]] != [source(resolve(n)) for n in left.shape[:-2]]
        ):
            return None
        a, b = left.inputs[0], right
        rows: Any = 1
        for n in a.shape[:-1]:
            rows = n * rows
        product = apply(
            MATMUL, (a.reshape((rows, a.shape[-1])).transpose((1, 0)), b.reshape((rows, b.shape[-1])))
        )
        stands_for(product, node.number)
        return product.reshape(node.shape) if keepdims else product

    return rebuild(results, rule)


def shift_before_products(results: Sequence[Tensor]) -> list[Tensor]:
    """shift(a · W) = shift(a) · W: a product reads shifted rows where they stand, and nothing is moved."""
    readers = _count_readers(ancestors(*results), results)

    def rule(node: Tensor, inputs: tuple) -> Tensor | None:
        (x, *_) = node.inputs or (None,)
        if node.op is not SHIFT or x.op is not MATMUL or readers[x.number] > 1 or len(x.inputs[1].shape) > 2:
            return None
        a, W = inputs[0].inputs
        return apply(MATMUL, (apply(SHIFT, (a,), node.params), W))

    return rebuild(results, rule, in_bodies=False)


def reduce_by_runs(results: Sequence[Tensor]) -> list[Tensor]:
    """Σ over axes that do not stand side by side is a sum of sums, the last axes first; so are maxima and log Σ exp."""

    def rule(node: Tensor, inputs: tuple) -> Tensor | None:
        if node.op is None or node.op.kind != "reduction":
            return None
        (x,), (axes, keepdims) = inputs, node.params
        runs: list[list[int]] = []
        for a in axes:
            apart = not runs or not all(is_one(n) for n in x.shape[runs[-1][-1] + 1 : a])
            runs.extend([[]] if apart else [])
            runs[-1].append(a)
        if len(runs) < 2:
            return None
        for run in reversed(runs):  # the axes before keep their numbers
            x = apply(node.op, (x,), (tuple(run), keepdims))
        x.name, x.scope = node.name, node.scope
        return x

    return rebuild(results, rule)


# 7. Products with one-hot rows.


def look_up_one_hot(results: Sequence[Tensor]) -> list[Tensor]:
    """one_hot(k) · W = W[k], and one_hot(k)ᵀ · G adds the rows of G where k says: nothing is multiplied by 0.

    But 0 · ∞ and 0 · NaN are NaN: so becomes, as before, what another row than its own spoils.
    """
    made = min((n.number for n in everywhere(results) if n.is_symbol), default=0)

    def rule(node: Tensor, inputs: tuple) -> Tensor | None:
        if node.op is not MATMUL or len(inputs[1].shape) != 2 or node.dtype.kind != "f":
            return None
        left, right = inputs
        turned = _is_swap(left)
        codes = _codes(left.inputs[0] if turned else left, made)
        if codes is None:
            return None
        zero, one, nan = (Tensor(np.array(number, right.dtype)) for number in (0, 1, np.nan))
        spoils = apply(WHERE, (apply(EQUAL, (apply(MUL, (right, zero)), zero)), zero, one))
        result, own = (apply(SCATTER, (x, codes), (left.shape[0],)) if turned else x for x in (right, spoils))
        spoilt = apply(GREATER, (apply(SUM, (spoils,), ((0,), False)), own))
        result = apply(WHERE, (spoilt, nan, result))
        return result if turned else apply(GATHER, (result, codes))

    if not any(n.op is MATMUL and rule(n, n.inputs) is not None for n in ancestors(*results)):
        return list(results)
    # The rows themselves, which a loop was given to hand them to the product, are not made any more.
    return rebuild(rebuild(results, rule, in_bodies=False), None, _drop_inputs, in_bodies=False)


def _codes(rows: Tensor, made: int) -> Tensor | None:
    """Which class each row is of, if these are rows with a single 1."""
    x = rows
    while x.op is CAST or (x.op is RESHAPE and _same_columns(x, x.inputs[0])):
        x = x.inputs[0]
    if x.op is not EQUAL or x.inputs[0].op is not RESHAPE:
        return None
    (column, classes), codes = x.inputs, x.inputs[0].inputs[0]
    counts = classes.op is ARANGE or (
        classes.op is None and classes.number > made and _counts_up(classes._value)
    )
    if not counts or len(classes.shape) != 1 or not is_one(column.shape[-1]) or not len(codes.shape):
        return None
    if codes.op is not INSIDE or source(resolve(codes.params[0])) != source(resolve(classes.shape[0])):
        return None
    return codes if len(codes.shape) == len(rows.shape) - 1 else codes.reshape(rows.shape[:-1])


def _same_columns(x: Tensor, y: Tensor) -> bool:
    """Both have a last axis, and it is as long."""
    return bool(x.shape and y.shape) and source(resolve(x.shape[-1])) == source(resolve(y.shape[-1]))


def _counts_up(values: np.ndarray | None) -> bool:
    return values is not None and values.ndim == 1 and np.array_equal(values, np.arange(len(values)))


# 8. Products with 1.


def drop_ones(results: Sequence[Tensor]) -> list[Tensor]:
    """1 · x = x to the last bit, NaN and infinity too: no array is read and written to be what it was."""
    made = min((n.number for n in everywhere(results) if n.is_symbol), default=0)

    def rule(node: Tensor, inputs: tuple) -> Tensor | None:
        if node.op is not MUL or node.dtype.kind != "f":
            return None
        for one, x in (inputs, inputs[::-1]):
            if _is_one(one, made) and x.dtype == node.dtype and same_shape(x, node):
                return x
        return None

    return rebuild(results, rule)


def _is_one(x: Tensor, made: int) -> bool:
    while x.op is RESHAPE or x.op is BROADCAST_TO:
        x = x.inputs[0]
    if x.op is not None or x._value is None or x.number <= made or x.requires_grad:
        return False
    return not x.shape and x._value.item() == 1


def share(results: Sequence[Tensor]) -> list[Tensor]:
    """Nodes that compute the same from the same become one, outside of loops."""
    nodes = ancestors(*results)
    if any(n.op is SCAN for n in nodes) or _any_alike(nodes):
        known: dict[tuple, Tensor] = {}

        def rule(node: Tensor, inputs: tuple) -> Tensor:
            key = _key(node, [x.number for x in inputs])
            if key not in known:
                known[key] = remake(node, inputs)
            return known[key]

        return rebuild(results, rule, in_bodies=False)
    return list(results)


def _any_alike(nodes: Sequence[Tensor]) -> bool:
    keys = [_key(n, [x.number for x in n.inputs]) for n in nodes if n.op is not None]
    return len(set(keys)) < len(keys)


def _key(node: Tensor, inputs: Sequence[int]) -> tuple:
    return node.op.name, tuple(inputs), tuple(map(_param_key, node.params))  # type: ignore[union-attr]


def _param_key(param) -> str:
    if isinstance(param, tuple):
        return str(tuple(map(_param_key, param)))
    return source(param) if isinstance(param, Size) else repr(param)


REWRITES: dict[str, Rewrite] = {
    "split products": split_products,
    "move captures out": move_captures_out,
    "hoist": hoist,
    "sink": sink,
    "join places": join_places,
    "shift before products": shift_before_products,
    "merge batches": merge_batches,
    "reduce by runs": reduce_by_runs,
    "look up one-hot": look_up_one_hot,
    "drop ones": drop_ones,
    "share": share,
}
__all__ = [
    "REWRITES",
    "Loop",
    "drop_ones",
    "hoist",
    "join_places",
    "look_up_one_hot",
    "move_captures_out",
    "rebuild",
    "reduce_by_runs",
    "rewritten",
    "sink",
    "split_products",
]
