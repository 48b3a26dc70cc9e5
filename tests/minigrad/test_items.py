"""Itemised reverse mode: every item against a backward pass of its own, and together against the whole."""

from __future__ import annotations

import numpy as np
import pytest

from minigrad import GraphError, Tensor, ancestors, concat, grad, layer_norm, softmax, stack, tanh, where
from minigrad.items import itemised, reach, rows_of, together


def program(rng, T=4, N=2, H=3):
    """Steps with every kind of operation, and a loss of each step: (first state, weights, losses)."""
    h0 = Tensor(rng.standard_normal((N, H)), requires_grad=True, name="h0")
    W = Tensor(rng.standard_normal((2 * H, H)), requires_grad=True, name="W")
    b = Tensor(rng.standard_normal(H), requires_grad=True, name="b")
    h, states = h0, []
    for t in range(T):
        x = Tensor(rng.standard_normal((N, H)))
        new = tanh(layer_norm(concat(h, x) @ W) * 0.5 + b) - h / (2 + h * h)
        h = where(rng.random((N, 1)) < 0.7, new, h) if t == 2 else new
        states.append(h)
    rows = stack(states)  # (T, N, H)
    seen = softmax(rows.reshape(T, N, H) * 2.0) @ W[:H]
    losses = [(seen[t] * rng.standard_normal((N, H))).sum() + seen[t, :, :2].mean() for t in range(T)]
    return h0, W, b, states, losses


def walked(losses, wanted):
    through = {n.number for y in losses for n in ancestors(y) if n.op is not None}
    seeds = [(y, k, 1.0) for k, y in enumerate(losses)]
    found = itemised(seeds, through, {x.number for x in wanted})
    return {n.number: (list(items), batch) for n, items, batch in found}


def test_every_item_is_a_backward_pass_of_its_own(rng):
    h0, W, b, states, losses = program(rng)
    found = walked(losses, [h0, W, b])
    for x in (h0, W, b, *states):
        items, batch = found[x.number]
        for k, y in enumerate(losses):
            alone = grad(y, x).value
            if k in items:
                np.testing.assert_allclose(batch[items.index(k)], alone, rtol=1e-12, atol=1e-14)
            else:
                assert not alone.any()


def test_the_items_add_up_to_the_gradient(rng):
    h0, W, b, _, losses = program(rng)
    total = losses[0]
    for y in losses[1:]:
        total = total + y
    found = walked(losses, [h0, W, b])
    for x in (h0, W, b):
        np.testing.assert_allclose(found[x.number][1].sum(0), grad(total, x).value, rtol=1e-12, atol=1e-14)


def test_what_comes_later_is_not_reached_though_all_steps_stand_in_one_array(rng):
    _, _, _, states, losses = program(rng)
    found = walked(losses, [])
    for t, h in enumerate(states):
        assert found[h.number][0] == list(range(t, len(states)))


def test_detach_stops_and_dependence_goes_on(rng):
    x = Tensor(rng.standard_normal(3), requires_grad=True)
    a = tanh(x)
    y, z = (a.detach() * x).sum(), a.sum()
    through = {n.number for y in (y, z) for n in ancestors(y) if n.op is not None}
    starts = [(y, 0), (z, 1)]
    stopped, depends = reach(starts, through), reach(starts, through, cuts=False)
    assert together(stopped[a.number]) == 0b10 and together(depends[a.number]) == 0b11
    assert list(rows_of(0b1011)) == [0, 1, 3]


def test_a_change_in_place_is_refused(rng):
    x = Tensor(rng.standard_normal(3), requires_grad=True, name="x")
    y = (x * x).sum()
    x.value = np.ones(3)
    with pytest.raises(GraphError, match="in-place change of 'x'"):
        walked([y], [x])


def test_infinite_slopes_do_not_leak_into_other_items():
    x = Tensor(np.array([0.0, 1.0]), requires_grad=True)
    a, b = x**0.5, x * 3.0
    with np.errstate(divide="ignore"):
        found = walked([a.sum(), b.sum()], [x])
    _, batch = found[x.number]
    assert np.isinf(batch[0, 0]) and np.array_equal(batch[1], [3.0, 3.0])
