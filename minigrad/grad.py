"""Reverse mode: graph → graph, or graph → arrays, from one text of every rule.

`reverse` visits nodes by falling number, so that a node's gradient is complete
when it is visited; nothing recurses.  `backward` leaves gradients in leaves (and,
when recording, in every node and on every edge), `grad` returns them as tensors
that can be differentiated again.  `check_grads` compares them with finite
differences and the complex step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from .errors import DTypeError, GraphError, NonFiniteError, ShapeError
from .ops import DETACH, axes_of
from .sizes import is_one
from .tensor import Op, Tensor, as_tensor, describe, first_bad, modes, no_grad

NOT_COMPUTED, CUT, ZERO, VALUE, NOT_FINITE = "not computed", "cut", "zero", "value", "not finite"
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


def reverse(outputs: Sequence[Tensor], cotangents: Sequence, needed: set[int] | None, graph: bool) -> Iterator:
    """The walk: yields (node, gradient, contributions) by falling number, each gradient complete.

    needed : numbers of the nodes that gradients flow to; None: those that require one.
    graph : whether rules run on tensors (the gradient is a graph) or on plain arrays.
    The contributions are what flowed along the edge to each input, None where nothing did.
    """
    gradients: dict[int, Any] = {}
    owned: set[int] = set()  # sums that nobody else holds, so that more may be added in place
    pending: list = []
    for y, cotangent in zip(outputs, cotangents, strict=True):
        before = gradients.get(y.number)
        gradients[y.number] = cotangent if before is None else before + cotangent
        if before is None:
            heappush(pending, (-y.number, y))
    while pending:
        number, node = heappop(pending)
        number = -number
        gradient = gradients.pop(number)
        if node.hooks:
            gradient = _call_hooks(node, gradient)
        if graph and node.name and gradient.op is not None and gradient.name is None:
            gradient.name = f"d{node.name}"
        op = node.op
        if op is None:
            yield node, gradient, ()
            continue
        inputs, params, rules = node.inputs, node.params, op.vjp
        y, *read = (node, *inputs) if graph else (node._value, *[x._value for x in inputs])
        parts = []
        for k, x in enumerate(inputs):
            if x.changed > number:
                raise _changed(x, node)
            part = None
            if rules is not None and (x.requires_grad if needed is None else x.number in needed):
                rule = rules(k) if op.variadic else rules[k]
                if rule is not None:
                    part = rule(gradient, y, *read, *params)
                    if len(part.shape) != len(read[k].shape) or part.shape != read[k].shape:
                        part = unbroadcast(part, read[k].shape)
                    to = x.number
                    before = gradients.get(to)
                    if before is None:
                        gradients[to] = part
                        heappush(pending, (-to, x))
                    elif to in owned:
                        before += part
                    else:
                        gradients[to] = before + part
                        if not graph and part.ndim:  # a sum of numbers is immutable
                            owned.add(to)
            parts.append(part)
        yield node, gradient, parts


def unbroadcast(part, shape: tuple):
    """Sum a cotangent over the axes along which its input was repeated."""
    extra = len(part.shape) - len(shape)
    axes = [k for k in range(extra) if not is_one(part.shape[k])]
    axes += [k + extra for k, n in enumerate(shape) if is_one(n) and not is_one(part.shape[k + extra])]
    if axes:
        part = part.sum(axis=tuple(axes), keepdims=True)
    return part.reshape(shape) if extra else part


def _call_hooks(node: Tensor, gradient):
    for hook in node.hooks:
        new = hook(gradient)
        if new is not None:
            if np.shape(new) != np.shape(gradient):
                raise ShapeError(f"hook of {describe(node)} returned shape {np.shape(new)}")
            gradient = as_tensor(new) if isinstance(gradient, Tensor) else np.asarray(new, dtype=node.dtype)
    return gradient


def _changed(x: Tensor, node: Tensor) -> GraphError:
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

    Raises ShapeError (non-scalar without cotangent), GraphError (nothing to
    differentiate, freed, changed in place) and, in anomaly mode, NonFiniteError.
    """
    _refuse(y)
    if not y.requires_grad:
        raise GraphError(
            f"backward from {describe(y)}: nothing that it was computed from requires a gradient "
            "(no parameters, or all behind detach or no_grad); make them with requires_grad=True"
        )
    seed = _cotangent(y, cotangent)
    needed = None
    if record:
        for node in ancestors(y):
            node.contributions = node.grad = None
        needed = {node.number for node in ancestors(y) if node.dtype.kind == "f"}
    leaves: list = []
    for node, gradient, parts in reverse((y,), (seed,), needed, False):
        if modes.now[1]:
            _stop_where_bad(node, gradient)
        if node.op is None and node.requires_grad:
            leaves.append((node, gradient))
        elif record:
            node.grad = np.asarray(gradient)
        if record:
            node.contributions = tuple(parts)
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
    """
    single = isinstance(wrt, Tensor)
    targets = [wrt] if single else list(wrt)
    _refuse(y)
    for x in targets:
        if x.dtype.kind != "f":
            raise DTypeError(f"gradient with respect to {describe(x)}: {x.dtype} has no gradient; use floats")
    wanted = {x.number for x in targets}
    depends = set(wanted)
    for node in ancestors(y):  # rising numbers: inputs were decided before
        if node.op is not None and node.op.vjp is not None and any(x.number in depends for x in node.inputs):
            depends.add(node.number)
    found: dict[int, object] = {}

    if y.number in depends:
        graph = create_graph or y.is_symbol
        seed = cotangent if isinstance(cotangent, Tensor) and graph else Tensor(_cotangent(y, cotangent))
        for node, gradient, _ in reverse((y,), (seed if graph else seed.value,), depends, graph):
            if modes.now[1] and not graph:  # in a graph every operation is checked when it is made
                _stop_where_bad(node, gradient)
            if node.number in wanted:
                found[node.number] = gradient
    gradients = [as_tensor(found[x.number]) if x.number in found else Tensor(np.zeros(x.shape, x.dtype)) for x in targets]
    return gradients[0] if single else gradients


def grad_states(*roots: Tensor) -> dict[int, str]:
    """For every ancestor, by number: is its gradient not computed, cut, zero, a value, or not finite?

    "cut" is a node whose every way to the roots leads through detach; a node that
    backward did not reach for another reason is "not computed".
    """
    nodes = ancestors(*roots)
    open_ways: set[int] = {r.number for r in roots}
    has_user: set[int] = set()
    for node in reversed(nodes):
        for x in node.inputs:
            has_user.add(x.number)
            if node.op is not DETACH and node.number in open_ways:
                open_ways.add(x.number)
    states = {}
    for node in nodes:
        if node.number in has_user and node.number not in open_ways:
            states[node.number] = CUT
        elif node.grad is None:
            states[node.number] = NOT_COMPUTED
        elif not np.isfinite(node.grad).all():
            states[node.number] = NOT_FINITE
        else:
            states[node.number] = VALUE if node.grad.any() else ZERO
    return states


def audit(root: Tensor) -> float:
    """The law of contributions: what flowed into a node along its edges sums to its gradient.

    After ``root.backward(record=True)`` returns the largest deviation over all nodes,
    relative to the size of the contributions.
    """
    total: dict[int, np.ndarray] = {}
    size: dict[int, float] = {}
    worst = 0.0
    nodes = ancestors(root)
    for node in nodes:
        for x, part in zip(node.inputs, node.contributions or (), strict=False):
            if part is not None:
                total[x.number] = total.get(x.number, 0) + np.asarray(part, dtype=np.float64)
                size[x.number] = size.get(x.number, 0.0) + float(np.abs(part).max(initial=0))
    for node in nodes:
        if node.number in total and node.grad is not None and size[node.number]:
            off = np.abs(total[node.number] - node.grad).max(initial=0)
            worst = max(worst, float(off) / size[node.number])
    return worst


# Checking.


def check_grads(
    function: Callable, inputs: Iterable, *, order: int = 2, tolerance: float = 1e-6, rng=None, complex_step: bool | None = None
) -> float:
    """Compare reverse mode with numerical derivatives; returns the largest relative error.

    function : of as many tensors as there are `inputs`, returning a tensor or several.
    inputs : arrays (taken as float64) at which to check.
    order : 1 checks gradients, 2 also gradients of gradients.
    rng : NumPy generator for the random projections (default: seed 0).
    complex_step : compare first derivatives with Im f(x + ih)/h instead (Squire and
        Trapp, 1998), exact to rounding, where all operations are smooth; None tries
        it where it is possible.

    The projection v·J·u is compared for random u, v (Griewank and Walther, 2008).
    Raises GraphError where the error exceeds `tolerance`.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    points = [np.array(x.value if isinstance(x, Tensor) else x, dtype=np.float64) for x in inputs]
    worst = 0.0
    f = _projected(function, points, rng)
    for level in range(1, order + 1):
        directions = [rng.standard_normal(p.shape) for p in points]
        leaves = [Tensor(p, requires_grad=True) for p in points]
        gradients = grad(f(*leaves), leaves, create_graph=True)
        exact = sum(float((g.value * u).sum()) for g, u in zip(gradients, directions, strict=True))
        scale = sum(float(np.linalg.norm(g.value) * np.linalg.norm(u)) for g, u in zip(gradients, directions, strict=True))
        use_complex = level == 1 and _can_step(f, leaves) if complex_step is None else complex_step and level == 1
        numeric = (_complex_step if use_complex else _central)(f, points, directions)
        error = abs(exact - numeric) / max(scale, abs(numeric), 1e-3)
        bound = min(tolerance, 1e-12) if use_complex and complex_step else tolerance
        if not error <= bound:
            raise GraphError(
                f"check_grads: derivative of order {level} is {exact:.12g} by reverse mode and {numeric:.12g} by "
                f"{'complex step' if use_complex else 'finite differences'}: relative error {error:.2g} > {bound:.2g}"
            )
        worst = max(worst, error)
        f = _projected_gradient(f, points, rng)
    return worst


def _projected(function: Callable, points: Sequence[np.ndarray], rng) -> Callable:
    with no_grad():
        outputs = function(*map(Tensor, points))
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    weights = [rng.standard_normal(y.shape) for y in outputs]

    def projected(*xs):
        ys = function(*xs)
        ys = ys if isinstance(ys, (tuple, list)) else (ys,)
        total = (ys[0] * weights[0]).sum()
        for y, w in zip(ys[1:], weights[1:], strict=True):
            total = total + (y * w).sum()
        return total

    return projected


def _projected_gradient(f: Callable, points: Sequence[np.ndarray], rng) -> Callable:
    weights = [rng.standard_normal(p.shape) for p in points]

    def projected(*xs):
        # A leaf of its own per argument, so that it also works on what is no leaf.
        gradients = grad(f(*xs), list(xs), create_graph=True)
        total = (gradients[0] * weights[0]).sum()
        for g, w in zip(gradients[1:], weights[1:], strict=True):
            total = total + (g * w).sum()
        return total

    return projected


def _can_step(f: Callable, leaves: Sequence[Tensor]) -> bool:
    return all(node.op is None or node.op.smooth for node in ancestors(f(*leaves)))


def _complex_step(f: Callable, points, directions, h: float = 1e-30) -> float:
    with no_grad():
        y = f(*(Tensor(p + 1j * h * u) for p, u in zip(points, directions, strict=True)))
    return float(np.imag(y.value)) / h


def _central(f: Callable, points, directions, h: float = 1e-3) -> float:
    """The five-point central difference: error O(h⁴)."""

    def at(k: int) -> float:
        return f(*(Tensor(p + k * h * u) for p, u in zip(points, directions, strict=True))).item()

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)


Tensor.backward = backward  # type: ignore[method-assign]
__all__ = ["audit", "axes_of", "backward", "check_grads", "grad", "grad_states", "reverse"]
