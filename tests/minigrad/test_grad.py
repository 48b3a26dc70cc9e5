"""Reverse mode: `backward`, `grad`, contributions, the status of gradients, hooks, cuts, and what is
refused.

A refusal must name the node, its shape and the remedy, and leave every gradient as it was.
"""

from __future__ import annotations

import numpy as np
import pytest

import minigrad
from minigrad import (
    OPS,
    DTypeError,
    GraphError,
    ShapeError,
    Tensor,
    ancestors,
    audit,
    backward,
    check_grads,
    concat,
    cross_entropy,
    exp,
    gather,
    grad,
    grad_status,
    layer_norm,
    logsumexp,
    maximum,
    mse,
    no_grad,
    scope,
    sigmoid,
    softmax,
    softplus,
    stack,
    tanh,
    where,
)

pytestmark = pytest.mark.smoke


def leaf(rng, *shape, name=None):
    return Tensor(rng.standard_normal(shape), requires_grad=True, name=name)


# Graphs that use inputs twice, in diamonds, broadcast, in parts and through compositions.
GRAPHS = {
    "the same input twice": lambda a, b: (a * a * a).sum(),
    "a diamond": lambda a, b: (tanh(a) * sigmoid(a) + tanh(a)).sum(),
    "broadcasting": lambda a, b: (a * b[0] + b[1, 2]).sum(),
    "parts that overlap": lambda a, b: (a[1:] * a[:-1] + a[::-1][:2]).sum(),
    "products": lambda a, b: tanh(a @ b.T @ a).sum(),
    "vectors": lambda a, b: a[0] @ b[0] + (a @ b[1]).sum() + (b[2] @ a.T).sum(),
    "rows": lambda a, b: (gather(a, np.array([[0, 0], [2, 1]])) ** 2).sum(),
    "side by side": lambda a, b: tanh(concat(a, b, axis=0) * concat(b, a, axis=0)).sum(),
    "stacked": lambda a, b: (stack([a, b, a], axis=1) ** 2).mean(),
    "softmax": lambda a, b: (softmax(a) * b).sum(),
    "masked softmax": lambda a, b: (softmax(a, mask=np.eye(3, dtype=bool)) * b).sum(),
    "softplus": lambda a, b: softplus(a - b).sum(),
    "layer norm": lambda a, b: (layer_norm(a, b[0], b[1]) * b).sum(),
    "cross-entropy": lambda a, b: cross_entropy(a @ b, np.array([2, 0, 1])),
    "mean square": lambda a, b: mse(a, tanh(b)),
    "extremes": lambda a, b: a.max(axis=0).sum() * b.min() + maximum(a, b).sum(),
    "a choice": lambda a, b: where(a > b, a * b, exp(a)).sum(),
    "log-sum-exp": lambda a, b: logsumexp(a * b, axis=0).sum(),
    "division": lambda a, b: (a / (b * b + 1)).sum(),
}
every_graph = pytest.mark.parametrize("function", GRAPHS.values(), ids=GRAPHS)


@every_graph
def test_derivatives_of_graphs_to_second_order(function, rng):
    assert check_grads(function, [rng.standard_normal((3, 3)), rng.standard_normal((3, 3))], rng=rng) <= 1e-6


@every_graph
def test_the_law_of_contributions(function, rng, assert_law):
    a, b = leaf(rng, 3, 3, name="a"), leaf(rng, 3, 3, name="b")
    y = function(a, b)
    backward(y, record=True)
    assert_law(y)
    assert audit(y) <= 1e-12


@every_graph
def test_recording_changes_no_gradient_and_a_second_backward_adds_up(function, rng):
    a, b = leaf(rng, 3, 3), leaf(rng, 3, 3)
    y = function(a, b)
    y.backward()
    first = a.grad.copy()
    y.backward()
    np.testing.assert_array_equal(a.grad, first + first)
    y.backward(record=True)  # starts anew
    np.testing.assert_array_equal(a.grad, first)
    np.testing.assert_array_equal(grad(y, a).value, first)


def test_the_audit_sees_a_contribution_that_is_off(rng):
    a = leaf(rng, 3)
    y = (a * a).sum()
    y.backward(record=True)
    a.grad = a.grad * 1.001
    assert audit(y) > 1e-4


def test_contributions_and_gradients_are_recorded_on_data_too(rng):
    data, W = Tensor(rng.standard_normal((2, 3)), name="x"), leaf(rng, 3, 4, name="W")
    y = (data @ W).sum()
    y.backward(record=True)
    np.testing.assert_allclose(data.grad, np.ones((2, 4)) @ W.value.T)
    product = y.inputs[0]
    assert product.contributions[0].shape == (2, 3) and product.contributions[1].shape == (3, 4)
    y.backward()
    assert data.requires_grad is False


def test_gradients_of_gradients_are_graphs_and_can_go_on(rng):
    x = leaf(rng, 4)
    y = (x**4).sum()
    for coefficient, power in ((4, 3), (12, 2), (24, 1), (24, 0)):
        y = grad(y, x, create_graph=True).sum()
        np.testing.assert_allclose(y.value, (coefficient * x.value**power).sum(), rtol=1e-12)
    assert all(isinstance(node, Tensor) for node in ancestors(y)) and len(ancestors(y)) > 4


def test_grad_with_respect_to_an_inner_node_and_to_what_does_not_matter(rng):
    x, other = leaf(rng, 3), leaf(rng, 2)
    inner = x * 2
    y = (inner * inner).sum()
    to_inner, to_x, to_other = grad(y, [inner, x, other])
    np.testing.assert_allclose(to_inner.value, 2 * inner.value)
    np.testing.assert_allclose(to_x.value, 4 * inner.value)
    np.testing.assert_array_equal(to_other.value, np.zeros(2))
    assert x.grad is None, "grad leaves nothing behind"


def test_a_cotangent_weighs_the_outputs(rng):
    x = leaf(rng, 3)
    weights = np.array([1.0, -2.0, 0.5])
    (x * x).backward(weights)
    np.testing.assert_allclose(x.grad, 2 * x.value * weights)
    np.testing.assert_allclose(grad(x * x, x, Tensor(weights)).value, 2 * x.value * weights)


# The status of a gradient.


def test_the_states_of_a_gradient():
    x = Tensor([1.0, 2.0], requires_grad=True, name="x")
    cut = Tensor([3.0, 4.0], requires_grad=True, name="cut")
    zero = Tensor([-1.0, -2.0], requires_grad=True, name="zero")
    whole = Tensor([1, 0], name="whole")
    bad = Tensor([0.0, 1.0], requires_grad=True, name="bad")
    with np.errstate(divide="ignore", invalid="ignore"):
        y = (x * (cut * 2).detach() + maximum(zero, 0.0) + x * whole + minigrad.sqrt(bad)).sum()
        before = grad_status(y)
        assert {before[t.number] for t in (x, zero, whole, bad)} == {"not computed"}
        assert before[cut.number] == "cut", "a cut stands in the graph, whether or not backward has run"
        y.backward(record=True)
    states = {
        node.name: state for node in ancestors(y) if (state := grad_status(y)[node.number]) and node.name
    }
    assert states == {
        "x": "value",
        "cut": "cut",
        "zero": "zero",
        "whole": "not computed",
        "bad": "not finite",
    }
    assert cut.grad is None and zero.grad is not None and not zero.grad.any()


def test_a_node_with_an_open_way_beside_a_cut_is_not_cut():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = (x * x.detach()).sum()
    y.backward()
    assert grad_status(y)[x.number] == "value"
    np.testing.assert_array_equal(x.grad, x.value)  # half of what x·x would give


# Hooks.


def test_a_hook_sees_the_complete_gradient_once_and_may_replace_it(rng):
    x = leaf(rng, 3)
    inner = x * 2
    seen = []
    remove = inner.hook(lambda g: seen.append(np.array(g)))
    loss = (inner * inner).sum() + inner.sum()
    loss.backward()
    np.testing.assert_allclose(seen, [2 * inner.value + 1])
    remove()
    inner.hook(lambda g: np.clip(g, -0.5, 0.5))
    x.grad = None
    loss.backward()
    np.testing.assert_allclose(x.grad, 2 * np.clip(2 * inner.value + 1, -0.5, 0.5))
    assert len(seen) == 1, "a removed hook is not called"


def test_a_hook_on_a_leaf_works_in_grad_and_in_the_graph_of_the_gradient(rng):
    x = leaf(rng, 3)
    x.hook(lambda g: g * 3)
    np.testing.assert_allclose(grad((x * x).sum(), x).value, 6 * x.value)
    doubled = grad((x * x).sum(), x, create_graph=True)
    assert isinstance(doubled, Tensor) and doubled.op is not None
    np.testing.assert_allclose(doubled.value, 6 * x.value)


def test_a_hook_that_returns_another_shape_is_refused(rng):
    x = leaf(rng, 3, name="x")
    x.hook(lambda g: g[:2])
    with pytest.raises(ShapeError, match=r"hook of 'x' \(3,\) float64 returned shape \(2,\)"):
        (x * x).sum().backward()
    assert x.grad is None


# Cuts.


def test_no_grad_records_nothing_and_ends_with_its_block(rng):
    x = leaf(rng, 3)
    with no_grad():
        y = tanh(x)
        with no_grad():
            pass
        z = y * 2
    assert y.op is None and y.inputs == () and not y.requires_grad and not z.requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert (x * 2).requires_grad, "also when the block ends by an error"


def test_detach_is_a_node_of_the_graph_that_lets_nothing_through(rng):
    x = leaf(rng, 3)
    y = (x.detach() * x).sum()
    y.backward()
    np.testing.assert_array_equal(x.grad, x.value)
    assert OPS["detach"] in [node.op for node in ancestors(y)]


# What is refused, with a reason that helps, and leaves all gradients as they were.


def freed(x):
    y = (x * x).sum()
    y.backward(free=True)
    return y


def changed(x):
    y = (x * x).sum()
    x.value = x.value + 1
    return y


REFUSALS = {
    "no single number": (lambda x, w: (x * x, None), ShapeError, [r"mul \(3,\)", r"\.sum\(\)", "cotangent="]),
    "misshapen cotangent": (lambda x, w: (x * x, np.ones(2)), ShapeError, [r"\(2,\)", r"mul \(3,\)"]),
    "freed": (lambda x, w: (freed(x), None), GraphError, ["freed", r"free=True", "compute it again"]),
    "no parameters": (
        lambda x, w: (Tensor([1.0]) * 2, None),
        GraphError,
        [r"mul \(1,\)", "requires_grad=True"],
    ),
    "behind a cut": (lambda x, w: (x.detach().sum(), None), GraphError, [r"sum \(\)", "detach"]),
    "integers": (lambda x, w: (Tensor(3) * 2, None), DTypeError, [r"mul \(\) int64", "use floats"]),
    "booleans": (lambda x, w: ((x > 0).sum(), None), DTypeError, [r"sum \(\) int64", "no gradient"]),
    "changed leaf": (
        lambda x, w: (changed(x), None),
        GraphError,
        ["in-place change of 'x'", "mul", "call backward before"],
    ),
}


@pytest.mark.parametrize(("make", "kind", "words"), REFUSALS.values(), ids=REFUSALS)
def test_backward_refuses_with_a_reason_and_changes_nothing(make, kind, words, rng):
    x, w = leaf(rng, 3, name="x"), leaf(rng, 3, name="w")
    (w * 2.0).sum().backward()
    y, cotangent = make(x, w)
    x_before = None if x.grad is None else x.grad.copy()
    with pytest.raises(kind) as caught:
        y.backward(cotangent)
    for word in words:
        assert caught.match(word)
    np.testing.assert_array_equal(w.grad, np.full(3, 2.0))
    assert (x.grad is None) == (x_before is None) and (x.grad is None or (x.grad == x_before).all())


def test_an_error_in_the_middle_leaves_every_gradient_as_it_was(rng):
    early, late = leaf(rng, 3, name="early"), leaf(rng, 3, name="late")
    early.grad = np.full(3, 7.0)
    y = ((early * late) * late).sum() + (early * 2).sum()
    late.value = np.zeros(3)
    with pytest.raises(GraphError, match="'late'"):
        y.backward()
    np.testing.assert_array_equal(early.grad, np.full(3, 7.0))
    assert late.grad is None


def test_grad_refuses_integers_by_name():
    whole, x = Tensor([1, 2], name="whole"), Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(DTypeError, match=r"'whole' \(2,\) int64.*use floats"):
        grad((x * whole).sum(), whole)


def test_the_user_may_change_a_gradient_without_harm_to_the_graph(rng):
    x, w = leaf(rng, 3), leaf(rng, 3)
    y = (x + w).sum()
    y.backward()
    assert x.grad is not w.grad and not np.shares_memory(x.grad, w.grad)
    x.grad *= 0
    np.testing.assert_array_equal(w.grad, np.ones(3))
    y.backward()
    np.testing.assert_array_equal(w.grad, np.full(3, 2.0))


def test_a_mode_may_be_entered_again_inside_itself_and_decorate_a_function(rng):
    x = Tensor(rng.standard_normal(3), requires_grad=True)
    mode = no_grad()
    with mode:
        with mode:
            assert not (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @scope("inside")
    def doubled(times: int):
        return x * 2 if times == 0 else doubled(times - 1)

    assert doubled(0).scope == ("inside",) and doubled(2).scope == ("inside",) * 3 and (x * 2).scope == ()
    with pytest.raises(ZeroDivisionError), mode:
        _ = 1 / 0
    assert (x * 2).requires_grad
