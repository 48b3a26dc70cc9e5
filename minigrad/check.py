"""Reverse mode looked over: `check_grads` against numbers, for operations and cells of one's own, and
`audit` against itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .errors import GraphError, MinigradError
from .reverse import ancestors, grad
from .tensor import Tensor, no_grad


class KinkError(GraphError):
    """Inputs so near to a kink (of relu, abs, max, …) that there is no derivative to compare with."""


def check_grads(
    function: Callable,
    inputs: Iterable,
    *,
    order: int = 2,
    tolerance: float = 1e-6,
    rng=None,
    complex_step: bool | None = None,
) -> float:
    """Compare reverse mode with numerical derivatives; returns the largest relative error.

    function : of as many tensors as there are `inputs`, returning a tensor or several.
    inputs : arrays (taken as float64) at which to check.
    order : 1 checks gradients, 2 also gradients of gradients.
    rng : NumPy generator for the random projections (default: seed 0).
    complex_step : compare first derivatives with Im f(x + ih)/h instead (Squire and
        Trapp, 1998), exact to rounding, where all operations are smooth; None tries
        it where it is possible: where all are, and `function` takes complex numbers.

    The projection v·J·u is compared for random u, v (Griewank and Walther, 2008).
    Raises GraphError where the error exceeds `tolerance`; if the inputs are at a kink (of relu, abs, max), so that
    differences of two widths disagree among themselves, it says so.
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
        scale = sum(
            float(np.linalg.norm(g.value) * np.linalg.norm(u))
            for g, u in zip(gradients, directions, strict=True)
        )
        numeric = None
        if level == 1 and (_can_step(f, leaves) if complex_step is None else complex_step):
            try:
                numeric = _complex_step(f, points, directions)
            except MinigradError:  # a cell, say, that takes float64 and nothing else
                if complex_step:
                    raise
        use_complex = numeric is not None
        if numeric is None:
            numeric = _central(f, points, directions)
        error = abs(exact - numeric) / max(scale, abs(numeric), 1e-3)
        bound = min(tolerance, 1e-12) if use_complex and complex_step else tolerance
        if not error <= bound and not use_complex:
            coarse, numeric = numeric, _central(f, points, directions, 1e-5)
            error = abs(exact - numeric) / max(scale, abs(numeric), 1e-3)
            if not error <= bound and abs(coarse - numeric) > bound * max(scale, abs(numeric), 1e-3):
                raise KinkError(
                    f"check_grads: finite differences of order {level} are {coarse:.12g} over 1e-3 and {numeric:.12g} over "
                    "1e-5: the inputs are at a kink (relu, abs, max, …) or where the function jumps; draw others"
                )
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
        results = function(*map(Tensor, points))
    results = results if isinstance(results, (tuple, list)) else (results,)
    weights = [rng.standard_normal(y.shape) for y in results]

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
        # A leaf of its own per argument, so that it also works on what is not a leaf.
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
