"""A chain of 100,000 operations runs, differentiates to second order and is freed, under Python's default
recursion limit and without the garbage collector.
"""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np

from minigrad import Tensor, ancestors, audit, grad, grad_status

LENGTH = 100_000


def test_a_long_chain_runs_backwards_to_second_order_and_is_freed(rng):
    assert sys.getrecursionlimit() < LENGTH
    x = Tensor(rng.standard_normal(), requires_grad=True)
    y = x * x
    for _ in range(LENGTH - 1):
        y = y * 1.00001
    factor = 1.00001 ** (LENGTH - 1)
    y.backward()
    np.testing.assert_allclose(x.grad, 2 * x.value * factor, rtol=1e-10)
    slope = grad(y, x, create_graph=True)
    np.testing.assert_allclose(slope.value, x.grad, rtol=1e-12)
    np.testing.assert_allclose(grad(slope, x).value, 2 * factor, rtol=1e-10)
    assert len(ancestors(slope)) > LENGTH
    alive = [weakref.ref(node) for node in ancestors(slope) if node is not x]
    gc.disable()
    try:
        del y, slope  # no cycle keeps a node, and freeing one after the other does not recurse
        assert not any(node() for node in alive)
    finally:
        gc.enable()


def test_a_long_chain_can_be_recorded_audited_and_freed_by_backward(rng):
    x = Tensor(rng.standard_normal(), requires_grad=True)
    y = x
    for _ in range(LENGTH):
        y = -y
    y.backward(record=True)
    assert audit(y) <= 1e-12 and len(grad_status(y)) == LENGTH + 1
    y.backward(free=True)
    assert ancestors(y) == [y]
