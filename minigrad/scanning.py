"""The loop as an operation: `scan`, whose body is a graph.

Run on values it unrolls, so that every step can be seen.  Traced (there is a symbol
among what it reads) it is ONE node that holds its body: a graph of the same
nodes.  Its reverse is a scan again, running backwards, so that it can be drawn,
differentiated and compiled like any other.

A traced scan node has no value of its own.  Two operations read it: `stacked`, the
values of one node of the body at all steps, and `last`, a carry after the final
step.  Any node of the body may be asked for: what nobody asks for is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import GraphError, InputError, ShapeError
from .functional import stack
from .modes import step_of_scan
from .ops import OPS
from .reverse import lets_through, walk
from .sizes import Size, at_least, resolve
from .tensor import Op, Tensor, apply, apply_symbolic, as_tensor, describe, let_go, next_number, scope, symbol


@dataclass(eq=False)
class Body:
    """The body of a traced scan.

    `carry` and `xs` are the symbols that stand for the state before a step and for the
    step's inputs; `carry_out` are the states after it.  Inputs of body nodes that are
    older than `start` belong to the graph outside: `captures`, the same at all steps.
    """

    carry: list[Tensor]
    xs: list[Tensor]
    carry_out: list[Tensor]
    captures: list[Tensor]
    start: int
    reverse: bool = False

    def nodes(self, *more: Tensor) -> list[Tensor]:
        """What the body computes, by rising number, symbols and captures excluded."""
        return [n for n in ancestors_within(self.start, *self.carry_out, *more) if n.op is not None]


@dataclass(eq=False)
class Parts:
    """The cotangent of a scan node: cotangents of what was read from it."""

    stacks: dict[int, tuple[Tensor, Any]] = field(default_factory=dict)  # body node → cotangent (T, …)
    lasts: dict[int, Any] = field(default_factory=dict)  # position of the carry → cotangent
    result: list | None = None
    needed: Collection[int] | None = (
        None  # numbers of the nodes that gradients flow to; None: that require one
    )
    shape: tuple = ()
    op: None = None

    def __add__(self, other: Parts) -> Parts:
        total = Parts(dict(self.stacks), dict(self.lasts))
        for number, (node, g) in other.stacks.items():
            total.stacks[number] = (node, total.stacks[number][1] + g if number in total.stacks else g)
        for k, g in other.lasts.items():
            total.lasts[k] = total.lasts[k] + g if k in total.lasts else g
        return total


def ancestors_within(start: int, *roots: Tensor) -> list[Tensor]:
    """Ancestors that are younger than `start`: the inside of a body."""
    seen: dict[int, Tensor] = {}
    pending = [r for r in roots if r.number > start]
    while pending:
        node = pending.pop()
        if node.number not in seen:
            seen[node.number] = node
            pending.extend(x for x in node.inputs if x.number > start and x.number not in seen)
    return [seen[n] for n in sorted(seen)]


def asked_among(nodes: Sequence[Tensor]) -> dict[int, list[Tensor]]:
    """For every scan among `nodes`, by number, the nodes of its body whose stacks they read."""
    asked: dict[int, list[Tensor]] = {}
    for node in nodes:
        if node.op is STACKED:
            asked.setdefault(node.inputs[0].number, []).append(node.params[0])
    return asked


def _no_value(*_):
    raise GraphError("a traced scan has no value; compile the function, or run it on values")


SCAN = Op("scan", _no_value, lambda *_: (), lambda k: lambda g, y, *rest: _scan_vjp(k, g, y), params=("body",),
    variadic=True, symbol="↻", text="scan", tex=r"\mathrm{{scan}}")  # fmt: skip
STACKED = Op("stacked", _no_value, lambda shape, node, T: (T, *node.shape),
    (lambda g, y, loop, node, T: Parts(stacks={node.number: (node, g)}),), params=("node", "steps"),
    dtype=lambda dtype, node, T: node.dtype, symbol="all t", text="{0}", tex="{0}")  # fmt: skip
LAST = Op("last", _no_value, lambda shape, k, node: node.shape,
    (lambda g, y, loop, k, node: Parts(lasts={k: g}),), params=("carry", "node"),
    dtype=lambda dtype, k, node: node.dtype, symbol="last", text="{0}", tex="{0}")  # fmt: skip


def scan(step: Callable, carry, xs, *, reverse: bool = False, labels: bool = True) -> tuple[Any, Any]:
    """Run ``carry, out = step(carry, x)`` over the leading axis of `xs`; returns (carry, outs).

    carry : a tensor, or a tuple or dict of tensors; `step` must return the like,
        of the same shapes and dtypes.
    xs : a tensor (T, …), or a tuple or dict of such.
    out : a tensor, tuple, dict or None; `outs` has a leading axis T on each.
    reverse : run from the last step to the first; `outs` stay in the order of `xs`.
    labels : put step t (from 1) in scope "t=…" when unrolled.

    Raises ShapeError, naming the step, where a carry changes shape or dtype, and
    InputError where xs differ in length or T = 0 leaves the outputs' shapes unknown.
    """
    first, rebuild_carry = flatten(carry)
    sequences, rebuild_x = flatten(xs)
    first, sequences = [let_go(as_tensor(c)) for c in first], [as_tensor(x) for x in sequences]
    if not sequences or any(not x.shape for x in sequences):
        raise InputError("scan: xs needs at least one tensor with a leading axis of steps")
    T = sequences[0].shape[0]
    for x in sequences[1:]:
        if x.shape[0] != T:
            raise InputError(f"scan: xs have {T} and {x.shape[0]} steps; all must have the same number")
    if any(t.is_symbol for t in (*first, *sequences)):
        if isinstance(T, Size) and not at_least(T, 1):
            raise InputError("scan: a sequence of T = 0 steps has nothing to unroll; give at least one step")
        return _traced(step, first, sequences, rebuild_carry, rebuild_x, reverse)
    if T == 0:
        raise InputError("scan: a sequence of T = 0 steps has nothing to unroll; give at least one step")
    now, outs = first, []
    rebuild_out: Callable = list
    for t in reversed(range(T)) if reverse else range(T):
        with scope(*([f"t={t + 1}"] if labels else [])):
            after, out = _pair(step(rebuild_carry(now), rebuild_x([x[t] for x in sequences])))
        now = checked(now, flatten(after)[0], f"scan step t={t + 1}")
        leaves, rebuild_out = flatten(out)
        outs.append(leaves)
    if reverse:
        outs.reverse()
    return rebuild_carry(now), rebuild_out([stack([o[k] for o in outs]) for k in range(len(outs[0]))])


def _pair(result) -> tuple:
    if not isinstance(result, tuple) or len(result) != 2:
        raise InputError(
            f"scan: step returned {type(result).__name__}; it must return (carry, out), out may be None"
        )
    return result


def _traced(step, first, sequences, rebuild_carry, rebuild_x, reverse):
    start = next_number()
    carry = [symbol(c.shape, c.dtype, c.name, True) for c in first]
    xs = [symbol(x.shape[1:], x.dtype, x.name or "x", x.requires_grad) for x in sequences]
    with step_of_scan(start):
        after, out = _pair(step(rebuild_carry(carry), rebuild_x(xs)))
    carry_out = checked(carry, flatten(after)[0], "scan")
    leaves, rebuild_out = flatten(out)
    leaves = [as_tensor(o) for o in leaves]
    loop = scan_node(Body(carry, xs, carry_out, [], start, reverse), first, sequences, leaves)
    # A carry that no step changes, or that is a tensor from outside, is that tensor, as it is when it is unrolled.
    same = {s.number: c for s, c in zip(carry, first, strict=True)}
    lasts = [
        same[c.number]
        if c is after_k
        else after_k
        if after_k.number < start
        else apply(LAST, (loop,), (k, c))
        for k, (c, after_k) in enumerate(zip(carry, carry_out, strict=True))
    ]
    return rebuild_carry(lasts), rebuild_out([stacked(loop, node) for node in leaves])


def scan_node(
    body: Body, first: Sequence[Tensor], sequences: Sequence[Tensor], more: Sequence[Tensor] = ()
) -> Tensor:
    """The node of a body; captures are found by walking it."""
    inside = ancestors_within(body.start, *body.carry_out, *more)
    outside = {x.number: x for n in inside for x in n.inputs if x.number <= body.start}
    outside.update({c.number: c for c in (*body.carry_out, *more) if c.number <= body.start})
    body.captures = [outside[n] for n in sorted(outside)]
    loop = apply_symbolic(SCAN, (*first, *sequences, *body.captures), (body,))
    loop.requires_grad = any(x.requires_grad for x in loop.inputs)
    loop.spec = (
        (),
        np.dtype("float32"),
    )  # a float, lest a first carry that counts seem to stop all gradients
    return loop


def stacked(loop: Tensor, node: Tensor) -> Tensor:
    """All steps' values of one node of the body, (T, …)."""
    body: Body = loop.params[0]
    T = loop.inputs[len(body.carry)].shape[0]
    if node.number <= body.start or (node.op is None and node._value is not None):  # the same at every step
        return apply_symbolic(OPS["broadcast_to"], (node,), ((T, *node.shape),))
    return apply(STACKED, (loop,), (node, T))


# A body on other inputs.


def opened(loop: Tensor, inputs: Sequence[Tensor], new: dict[int, Tensor]) -> int:
    """Begin a copy of a scan's body: `new` gets symbols for its states and steps, and what its captures now are.

    Returns the number from which on nodes belong to the copy.
    """
    body: Body = loop.params[0]
    start = next_number()
    for s in (*body.carry, *body.xs):
        new[s.number] = symbol(s.shape, s.dtype, s.name, s.requires_grad)
    captures = inputs[len(body.carry) + len(body.xs) :]
    new.update({old.number: c for old, c in zip(body.captures, captures, strict=True)})
    return start


def again(node: Tensor, inputs: tuple, new: dict[int, Tensor], asked: dict[int, list[Tensor]]) -> Tensor:
    """The same operation on other inputs, under the same name.

    A scan gets a body of its own, whose nodes come into `new`: asked are those that are read, as `asked_among` says.
    """
    if node.op is SCAN:
        return _scan_again(node, inputs, new, asked.get(node.number, []))
    params = node.params
    if node.op is STACKED:
        params = (new.get(params[0].number, params[0]), *params[1:])
    elif node.op is LAST:
        params = (params[0], inputs[0].params[0].carry[params[0]])
    # Sizes that are not known make a symbol of a constant too.
    fresh = (apply_symbolic if node.is_symbol else apply)(node.op, inputs, params)  # type: ignore[arg-type]
    fresh.name, fresh.scope = node.name, node.scope
    return fresh


def _scan_again(loop: Tensor, inputs: tuple, new: dict[int, Tensor], asked: Sequence[Tensor]) -> Tensor:
    body: Body = loop.params[0]
    start = opened(loop, inputs, new)
    nodes = body.nodes(*asked)
    within = asked_among(nodes)
    for node in nodes:
        new[node.number] = again(node, tuple(new.get(x.number, x) for x in node.inputs), new, within)
    renewed: Callable[[Sequence[Tensor]], list[Tensor]] = lambda own: [new.get(n.number, n) for n in own]  # noqa: E731
    count = len(body.carry)
    copy = Body(
        renewed(body.carry), renewed(body.xs), renewed(body.carry_out), [], start, body.reverse
    )  # fmt: skip
    return scan_node(copy, inputs[:count], inputs[count : count + len(body.xs)], renewed(asked))


def flatten(tree) -> tuple[list, Callable]:
    """The tensors of a tensor, tuple, list or dict, and how to put others in their places."""
    if tree is None:
        return [], lambda leaves: None
    if isinstance(tree, dict):
        parts = [flatten(v) for v in tree.values()]
        return _joined(parts, lambda values: dict(zip(tree, values, strict=True)))
    if isinstance(tree, (tuple, list)):
        return _joined([flatten(v) for v in tree], type(tree) if type(tree) in (tuple, list) else tuple)
    return [tree], lambda leaves: leaves[0]


def _joined(parts: list, make: Callable) -> tuple[list, Callable]:
    def rebuild(leaves: Sequence):
        values, at = [], 0
        for own, build in parts:
            values.append(build(leaves[at : at + len(own)]))
            at += len(own)
        return make(values)

    return [leaf for own, _ in parts for leaf in own], rebuild


def checked(before: Sequence[Tensor], after: Sequence, who: str) -> list[Tensor]:
    if len(after) != len(before):
        raise ShapeError(f"{who}: the step returned {len(after)} carries, it was given {len(before)}")
    after = [as_tensor(a, b) for a, b in zip(after, before, strict=True)]
    for old, new in zip(before, after, strict=True):
        if len(new.shape) != len(old.shape) or tuple(new.shape) != tuple(old.shape) or new.dtype != old.dtype:
            raise ShapeError(
                f"{who}: a carry became {describe(new)}, it was {describe(old)}; a carry keeps shape and dtype"
            )
    return after


# Its reverse.


def _scan_vjp(k: int, parts: Parts, loop: Tensor):
    """The cotangent of input k; the whole backward scan is built at the first call."""
    if parts.result is None:
        parts.result = reverse_scan(parts, loop)
    return parts.result[k]


def reverse_scan(parts: Parts, loop: Tensor) -> list:
    """Cotangents of a scan's inputs: a scan that runs backwards.

    Its carries are the cotangents of the forward carries, and a sum for every capture;
    its inputs are the stacked cotangents and the stacked values of those forward
    nodes that the derivative rules read.
    """
    body: Body = loop.params[0]
    hooked = next((s for s in body.carry if s.hooks), None)
    if hooked is not None:
        raise GraphError(
            f"hook of {describe(hooked)}, a state that a step is given: its gradient is complete only together with that "
            "of the step before; put the hook on the state that the step returns"
        )
    if any(
        resolve(x.shape[0]) == 0
        for x in loop.inputs[len(body.carry) : len(body.carry) + 1]
        if not isinstance(x.shape[0], Size)
    ):
        raise GraphError("the reverse of a scan over T = 0 steps")
    count = len(body.carry)
    needed = parts.needed
    wanted = [c for c in body.captures if (c.requires_grad if needed is None else c.number in needed)]
    start = next_number()
    d_carry = [symbol(c.shape, c.dtype, f"d{c.name or 'carry'}", True) for c in body.carry]
    totals = [symbol(c.shape, c.dtype, f"d{c.name or 'capture'}", True) for c in wanted]
    given = {
        n: symbol(node.shape, node.dtype, f"d{node.name or 'out'}_t", True)
        for n, (node, _) in parts.stacks.items()
    }

    results = [*body.carry_out, *(node for node, _ in parts.stacks.values())]
    cotangents = [*d_carry, *given.values()]
    found = gradients_within(body, results, cotangents, [*body.carry, *body.xs, *wanted])
    new_carry = [g if g is not None else _zeros(c) for g, c in zip(found, body.carry, strict=False)]
    dx = found[count : count + len(body.xs)]
    new_totals = [
        t if g is None else t + g for t, g in zip(totals, found[count + len(body.xs) :], strict=True)
    ]

    results = [*new_carry, *new_totals, *(g for g in dx if g is not None)]
    results, residuals = replace_residuals(body, start, results)
    carry_out = checked([*d_carry, *totals], results[: count + len(wanted)], "reverse of scan")
    dx_nodes = results[count + len(wanted) :]
    inner = Body(
        [*d_carry, *totals],
        [*given.values(), *(s for _, s in residuals)],
        carry_out,
        [],
        start,
        not body.reverse,
    )
    sequences = [g for _, g in parts.stacks.values()] + [_sequence_of(loop, node) for node, _ in residuals]
    first = [parts.lasts[k] if k in parts.lasts else _zeros(c) for k, c in enumerate(body.carry)]
    first += [_zeros(c) for c in wanted]
    if not sequences:  # nothing but the carry flows: the number of steps still has to come from somewhere
        anchor = symbol(body.xs[0].shape, body.xs[0].dtype)
        inner.xs, sequences = [anchor], [loop.inputs[count]]
    back = scan_node(inner, first, sequences, dx_nodes)
    lasts = [apply(LAST, (back,), (k, c)) for k, c in enumerate(inner.carry)]
    by_capture = dict(zip([c.number for c in wanted], lasts[count:], strict=True))
    stacks = iter(dx_nodes)
    dxs = [None if g is None else stacked(back, next(stacks)) for g in dx]
    return [*lasts[:count], *dxs, *(by_capture.get(c.number) for c in body.captures)]


def gradients_within(body: Body, results, cotangents, wrt: Sequence[Tensor]) -> list:
    """The vjp of the body's graph, as a graph; None where nothing flows."""
    targets = {x.number for x in wrt if x.dtype.kind == "f"}
    depends = set(targets)
    for node in ancestors_within(body.start, *results):
        if lets_through(node) and any(x.number in depends for x in node.inputs):
            depends.add(node.number)
    starts = [(y, g) for y, g in zip(results, cotangents, strict=True) if y.number in depends]
    found = {}
    # Captures end the walk: how one of them was made of another is the graph outside's to differentiate.
    for node, gradient, _ in walk(starts, None, depends, True, body.start):
        if node.number in targets:
            found[node.number] = gradient
    return [found.get(x.number) for x in wrt]


def replace_residuals(
    body: Body, start: int, results: list[Tensor]
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Let a gradient graph read symbols where it read nodes of the forward body.

    What only moves elements (concat, slice, …) is computed again rather than stored.  What is read of a scan inside of
    the body belongs to the forward body, whichever of the two graphs asked for it.
    Returns the results and the pairs (forward node, symbol that stands for it).
    """
    residuals: list[tuple[Tensor, Tensor]] = []
    mapping: dict[int, Tensor] = {}

    def forward(node: Tensor) -> bool:
        if node.op in (STACKED, LAST):
            return forward(node.inputs[0])
        return body.start < node.number < start and not (node.op is None and node._value is not None)

    def moves(node: Tensor) -> bool:
        known = node.op is not None and OPS.get(node.op.name)
        return bool(known) and node.op.kind == "structure" and node.op.smooth  # type: ignore[union-attr]

    def replaced(root: Tensor) -> Tensor:
        way: dict[int, Tensor] = {}
        pending = [root]
        while pending:
            node = pending.pop()
            if forward(node) and node.number not in mapping and node.number not in way:
                way[node.number] = node
                pending += node.inputs if moves(node) else ()
        for number in sorted(way):
            node = way[number]
            if moves(node):
                inputs = tuple(mapping.get(x.number, x) for x in node.inputs)
                mapping[number] = apply(node.op, inputs, node.params)  # type: ignore[arg-type]
            else:
                mapping[number] = symbol(node.shape, node.dtype, node.name, True)
                residuals.append((node, mapping[number]))
        return mapping.get(root.number, root)

    nodes = ancestors_within(start, *results)
    asked = asked_among(nodes)
    for node in nodes:
        if node.op is not None and not forward(node):
            inputs = tuple(replaced(x) for x in node.inputs)
            if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
                mapping[node.number] = again(node, inputs, mapping, asked)
    return [replaced(r) for r in results], residuals


def _sequence_of(loop: Tensor, node: Tensor) -> Tensor:
    """All steps' values of a body node: a step input is the sequence itself."""
    body: Body = loop.params[0]
    for k, x in enumerate(body.xs):
        if x is node:
            return loop.inputs[len(body.carry) + k]
    return stacked(loop, node)


def _zeros(like: Tensor) -> Tensor:
    return apply_symbolic(OPS["broadcast_to"], (as_tensor(np.zeros((), like.dtype)),), (tuple(like.shape),))


__all__ = ["Body", "scan"]
