"""What a backward pass has left: which status each gradient has, and whether the contributions sum to it."""

from __future__ import annotations

import numpy as np

from .ops import DETACH
from .reverse import ancestors
from .tensor import Tensor

NOT_COMPUTED, CUT, ZERO, VALUE, NOT_FINITE = "not computed", "cut", "zero", "value", "not finite"


def grad_status(*roots: Tensor) -> dict[int, str]:
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
    statuses = {}
    for node in nodes:
        if node.number in has_user and node.number not in open_ways:
            statuses[node.number] = CUT
        elif node.grad is None:
            statuses[node.number] = NOT_COMPUTED
        elif not np.isfinite(node.grad).all():
            statuses[node.number] = NOT_FINITE
        else:
            statuses[node.number] = VALUE if node.grad.any() else ZERO
    return statuses


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
