"""Reverse mode: graph → graph, or graph → arrays, from one text of every rule.

`walk` visits nodes by falling number, so that what a node is sent is complete
when it is visited; nothing recurses, and it is the only walk of its kind: what is
sent is its parameter.  Here it is gradients, in items.py many gradients side by side,
in pictures the ways between steps.  `backward` leaves gradients in leaves (and, when
recording, in every node and on every edge), `grad` returns them as tensors that can
be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from .errors import DTypeError, GraphError, NonFiniteError, ShapeError
from .locks import lock
from .modes import refuse_outside
from .op import Op
from .ops import SUM, either, zeros
from .sizes import is_one
from .tensor import Tensor, as_tensor, describe, first_bad, modes, ndarray

adding = lock()  # threads may add to the gradient of one leaf at the same time
_FREED = Op("freed", lambda *_: None, lambda *_: (), None)


def ancestors(*roots: Tensor) -> list[Tensor]:
    """All nodes that `roots` were computed from, and themselves, by rising number."""
    seen = {}
    pending = list(roots)
    while pending:
        node = pending.pop()
        if node.number not in seen:
            seen[node.number] = node
            pending.extend(x for x in node.inputs if x.number not in seen)
    return [seen[n] for n in sorted(seen)]


class Kind(NamedTuple):
    """What a walk sends backwards that is not one gradient: batches of gradients, sets of items, ways of a picture."""

    sent: Callable  # (node, its total) -> an iterable: for each input what it is sent, or None; () ends the walk here
    join: Callable  # (input, its total so far, what it is sent) -> total
    enter: Callable | None = None  # (input, what it is sent first) -> total; None: that itself


def walk(starts: Iterable, kind: Kind | None = None, needed=None, graph: bool = False, stop=-1) -> Iterator:
    """The one walk backwards: yields (node, total, parts sent to its inputs) by falling number, each total complete.

    starts : (node, what it is sent) where the walk begins.
    kind : what is sent; None: gradients, for which the other parameters are.  Their rules run right here: on small
        arrays a call more for every edge takes as long as a rule.
    needed : numbers of the nodes that gradients flow to; None: those that require one.
    graph : whether rules run on tensors (the gradient is a graph) or on plain arrays.
    stop : the walk ends at nodes with this number or a smaller one.
    The parts are what flowed along the edge to each input, None where nothing did.
    """
    send, join, enter = kind or (None, None, None)
    totals: dict[int, Any] = {}
    nodes: dict[int, Tensor] = {}
    owned: set[int] = set()  # sums that nobody else holds, so that more may be added in place
    pending: list[int] = []  # a heap of negative numbers, which gives the largest number first
    for y, part in starts:
        if y.number in nodes:
            totals[y.number] = join(y, totals[y.number], part) if join else totals[y.number] + part
        else:
            nodes[y.number], totals[y.number] = y, enter(y, part) if enter else part
            heappush(pending, -y.number)
    while pending:
        number = -heappop(pending)
        node, total = nodes.pop(number), totals.pop(number)
        op, inputs = node.op, node.inputs
        rules: Any = None
        if send is not None:
            sent = iter(send(node, total))
        else:
            if not graph and type(total) is not ndarray:  # methods of bare numbers fill a cache
                total = np.asarray(total)
            if graph or node.hooks:
                total = _complete(node, total, needed, graph, number > stop)
            if op is None or number <= stop:
                yield node, total, ()
                continue
            rules = op.vjp
            read = inputs if graph else [x._value for x in inputs]
            arguments = (total, node if graph else node._value, *read, *node.params)
        parts = []
        for k, x in enumerate(inputs):
            part = None
            if send is not None:
                part = next(sent, None)
            elif x.changed > number:
                raise changed_after(x, node)
            elif rules is not None and (x.requires_grad if needed is None else x.number in needed):
                rule = rules(k) if op.variadic else rules[k]
                if rule is not None:
                    part = rule(*arguments)
                    shape = read[k].shape
                    if part is not None and (len(part.shape) != len(shape) or part.shape != shape):
                        part = unbroadcast(part, shape)
            if part is not None:
                to = x.number
                if to not in nodes:
                    nodes[to], totals[to] = x, enter(x, part) if enter else part
                    heappush(pending, -to)
                elif join is not None:
                    totals[to] = join(x, totals[to], part)
                elif to in owned:
                    totals[to] += part
                else:
                    totals[to] = totals[to] + part
                    if not graph and part.ndim:  # a sum of numbers is immutable
                        owned.add(to)
            parts.append(part)
        yield node, total, parts


def _complete(node: Tensor, gradient: Any, needed: set[int] | None, graph: bool, inside: bool) -> Any:
    """A gradient when all of it is there: hooks see it; that of a capture is complete outside."""
    if node.hooks and inside:
        gradient = _call_hooks(node, gradient)
    if graph:
        _tell(gradient, node, needed)
    return gradient


def lets_through(node: Tensor) -> bool:
    """Does a gradient flow from this node to its inputs?  None does where its values are whole numbers or booleans."""
    return node.op is not None and node.op.vjp is not None and node.dtype.kind in "fc"


def _tell(gradient: Any, node: Tensor, needed: set[int] | None) -> None:
    """A gradient that is a graph bears its node's name; a scan, which is not walked through here, learns what is needed."""
    if hasattr(gradient, "needed"):
        gradient.needed = needed
    if node.name and gradient.op is not None and gradient.name is None:
        gradient.name = f"d{node.name}"


def unbroadcast(part, shape: tuple):
    """Sum a cotangent over the axes along which its input was repeated."""
    extra = len(part.shape) - len(shape)
    if type(part) is np.ndarray and part.shape == (1,) * extra + shape:  # a bias beside a batch of one
        return part.reshape(shape)
    axes = [k for k in range(extra) if not is_one(part.shape[k])]
    axes += [k + extra for k, n in enumerate(shape) if is_one(n) and not is_one(part.shape[k + extra])]
    if axes:
        part = either(SUM, part, params=(tuple(axes), True))
    return part.reshape(shape) if extra else part


def _call_hooks(node: Tensor, gradient):
    for hook in node.hooks:
        new = hook(gradient)
        if new is None and isinstance(gradient, Tensor) and gradient.is_symbol:
            raise GraphError(
                f"hook of {describe(node)}: it returned nothing while it was traced, and what it does in Python "
                "would be done once; return the gradient that is to flow on, or run the function eagerly"
            )
        if new is not None:
            if np.shape(new) != np.shape(gradient):
                raise ShapeError(f"hook of {describe(node)} returned shape {np.shape(new)}")
            gradient = as_tensor(new) if isinstance(gradient, Tensor) else np.asarray(new, dtype=node.dtype)
    return gradient


def changed_after(x: Tensor, node: Tensor) -> GraphError:
    return GraphError(
        f"in-place change of {describe(x)} after {describe(node)} was computed from it: its gradient would be "
        "wrong; call backward before the change (before the optimiser's step), or compute the loss again"
    )


def _cotangent(y: Tensor, cotangent) -> np.ndarray:
    if cotangent is None:
        if any(not is_one(n) for n in y.shape):
            raise ShapeError(
                f"backward from {describe(y)}: only a single number has an obvious cotangent; "
                "take .sum() or .mean() first, or pass cotangent= of the same shape"
            )
        return np.ones(y.shape, y.dtype)
    seed = np.asarray(cotangent.value if isinstance(cotangent, Tensor) else cotangent, dtype=y.dtype)
    if seed.shape != y.shape:
        raise ShapeError(f"cotangent of shape {seed.shape} for {describe(y)}")
    return seed


def _refuse(y: Tensor) -> None:
    if y.op is _FREED:
        raise GraphError(
            f"backward from {y.name or 'a tensor'} {y.shape}: its graph was freed by backward(free=True); "
            "compute it again, or call backward() without free"
        )
    if y.dtype.kind != "f":
        raise DTypeError(f"gradient of {describe(y)}: {y.dtype} has no gradient; use floats")


def backward(y: Tensor, cotangent=None, *, record: bool = False, free: bool = False) -> None:
    """Add ∂y/∂leaf to `grad` of every leaf that requires it.

    cotangent : ∂loss/∂y, of y's shape; may be left out for a single number.
    record : also leave the gradient in every node and, in `contributions`, what
        flowed along every edge: for pictures and audits, on all float nodes, inputs
        and first states included.  Leaves start anew here, so that every `grad` is
        this backward pass's own.
    free : drop the graph behind y when done, to save memory.

    Raises ShapeError (non-scalar without cotangent, or a cotangent of another shape), DTypeError (y is not a
    float), GraphError (nothing to differentiate, freed, changed in place) and, in anomaly mode, NonFiniteError.
    """
    _refuse(y)
    if modes()[3]:
        raise GraphError(
            f"backward from {describe(y)} inside of a function that is traced: it would be done once; use minigrad.grad"
        )
    if not y.requires_grad:
        raise GraphError(
            f"backward from {describe(y)}: nothing that it was computed from requires a gradient "
            "(no parameters, or frozen, or behind detach or no_grad); unfreeze, or make with requires_grad=True"
        )
    seed = _cotangent(y, cotangent)
    needed = None
    if record:
        for node in ancestors(y):
            node.contributions = node.grad = None
        needed = {node.number for node in ancestors(y) if node.dtype.kind == "f"}
    leaves: list = []
    anomaly = modes()[1]
    for node, gradient, parts in walk([(y, seed)], needed=needed):
        if anomaly:
            _stop_where_bad(node, gradient)
        if node.op is None and node.requires_grad:
            leaves.append((node, gradient))
        elif record:
            node.grad = np.asarray(gradient)
        if record:
            node.contributions = tuple(parts)
    with adding:
        for node, gradient in leaves:  # only now: an error above leaves every grad as it was
            node.grad = np.array(gradient) if node.grad is None else np.asarray(node.grad + gradient)
    if free:
        _free(y)


def _stop_where_bad(node: Tensor, gradient) -> None:
    if not np.isfinite(gradient).all():
        raise NonFiniteError(f"{first_bad(np.asarray(gradient))} in the gradient of {describe(node)}")


def _free(y: Tensor) -> None:
    for node in ancestors(y):
        if node.op is not None:
            node.op, node.inputs, node.params = _FREED, (), ()


def grad(y: Tensor, wrt, cotangent=None, *, create_graph: bool = False):
    """∂y/∂x for a tensor x or a sequence of them, as tensors.

    With ``create_graph=True`` they are a graph of the same kind of nodes and can be
    drawn and differentiated again.  What y does not depend on gets zeros.

    Raises what `backward` raises, and GraphError inside of `no_grad`, where nothing is recorded.
    """
    single = isinstance(wrt, Tensor)
    targets = [wrt] if single else list(wrt)
    _refuse(y)
    for x in targets:
        if x.dtype.kind != "f":
            raise DTypeError(f"gradient with respect to {describe(x)}: {x.dtype} has no gradient; use floats")
    wanted = {x.number for x in targets}
    depends = set(wanted)
    behind = ancestors(y)
    if not modes()[0] and y.op is None and y.number not in wanted:
        raise GraphError(
            f"gradient of {describe(y)} inside of no_grad, where nothing is recorded: leave no_grad first"
        )
    refuse_outside(y, targets, behind)
    for node in behind:  # rising numbers: inputs were decided before
        if lets_through(node) and any(x.number in depends for x in node.inputs):
            depends.add(node.number)
    found: dict[int, object] = {}

    if y.number in depends:
        graph = create_graph or y.is_symbol
        seed = cotangent if isinstance(cotangent, Tensor) and graph else Tensor(_cotangent(y, cotangent))
        for node, gradient, _ in walk([(y, seed if graph else seed.value)], None, depends, graph):
            if modes()[1] and not graph:  # in a graph every operation is checked when it is made
                _stop_where_bad(node, gradient)
            if node.number in wanted:
                found[node.number] = gradient
    gradients = [
        as_tensor(found[x.number]) if x.number in found else zeros(x.shape, x.dtype) for x in targets
    ]
    return gradients[0] if single else gradients


Tensor.backward = backward  # type: ignore[method-assign]
