"""Optimisers, clipping and initial weights by themselves, and what they refuse; test_pytorch.py has the
comparison.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from minigrad import GraphError, InputError, NonFiniteError, ShapeError, Tensor, init, optim, tanh

pytestmark = pytest.mark.smoke
SHAPES = [(3, 4), (4,), ()]

OPTIMISERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "Adam": lambda p: optim.Adam(p, lr=0.02),
    "AdamW": lambda p: optim.Adam(p, lr=0.02, weight_decay=0.1),
}
every_optimiser = pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)


def parameters(rng, dtype="float64"):
    return [
        Tensor(rng.standard_normal(s), requires_grad=True, name=f"p{k}", dtype=dtype)
        for k, s in enumerate(SHAPES)
    ]


@every_optimiser
def test_float32_stays_float32_in_values_and_slots(make, rng):
    ours = parameters(rng, "float32")
    optimiser = make(ours)
    for _ in range(3):
        optimiser.zero_grad()
        sum((tanh(p) * 2.0).sum() for p in ours).backward()
        optim.clip_by_norm(ours, 0.5)
        optimiser.step()
    slots = [
        a
        for value in vars(optimiser).values()
        if isinstance(value, list)
        for a in value
        if isinstance(a, np.ndarray)
    ]
    each = 2 if isinstance(optimiser, optim.Adam) else int(optimiser.momentum > 0)
    assert len(slots) == each * len(ours)
    for array in [*slots, *(p.value for p in ours), *(p.grad for p in ours)]:
        assert array.dtype == "float32"
    for p in ours:
        assert not p.value.flags.writeable and p.is_leaf and p.requires_grad and type(p.value) is np.ndarray


@every_optimiser
def test_a_parameter_without_gradient_stays_and_others_move(make, rng):
    ours = parameters(rng)
    before = [p.value for p in ours]
    (ours[0] * ours[0]).sum().backward()
    make(ours).step()
    assert (ours[0].value != before[0]).all()
    for p, old in zip(ours[1:], before[1:], strict=True):
        np.testing.assert_array_equal(p.value, old)


@every_optimiser
def test_a_gradient_of_another_shape_is_named_and_nothing_moves(make, rng):
    ours = parameters(rng)
    before = [p.value for p in ours]
    optimiser = make(ours)
    ours[0].grad, ours[1].grad = np.ones((3, 4)), np.ones((2, 4))
    with pytest.raises(ShapeError, match=r"gradient of 'p1' \(4,\) float64 has shape \(2, 4\)"):
        optimiser.step()
    assert all(p.value is old for p, old in zip(ours, before, strict=True))


def test_a_step_leaves_the_old_array_to_whoever_holds_it(rng):
    (p,) = parameters(rng)[:1]
    held, kept = p.value, p.value.copy()
    (p * p).sum().backward()
    optim.SGD([p]).step()
    np.testing.assert_array_equal(held, kept)
    assert p.value is not held


@every_optimiser
def test_every_optimiser_finds_the_minimum_of_a_bowl(make, rng):
    (p,) = parameters(rng)[:1]
    optimiser = make({"p": p})
    first = float((p.value**2).sum())
    for _ in range(200):
        optimiser.zero_grad()
        (p * p).sum().backward()
        optimiser.step()
    assert float((p.value**2).sum()) < 1e-3 * first


WRONG = {
    "no parameters": (lambda p: optim.SGD([]), InputError, "no parameters"),
    "learning rate zero": (
        lambda p: optim.Adam([p], lr=0),
        InputError,
        "learning rate is 0; give a positive number",
    ),
    "learning rate not a number": (
        lambda p: optim.Adam([p], lr=math.nan),
        InputError,
        "learning rate is nan",
    ),
    "momentum of one": (
        lambda p: optim.SGD([p], momentum=1),
        InputError,
        r"momentum is 1; give a number in \[0, 1\)",
    ),
    "betas": (lambda p: optim.Adam([p], betas=(0.9, 1.0)), InputError, r"betas \(0\.9, 1\.0\)"),
    "weight decay": (lambda p: optim.Adam([p], weight_decay=-1), InputError, "weight_decay -1 not below 0"),
    "an array": (lambda p: optim.SGD([p.value]), InputError, "is no parameter; give leaves"),
    "a computed tensor": (lambda p: optim.SGD([p * 2]), InputError, "is no parameter; give leaves"),
    "whole numbers": (lambda p: optim.SGD([Tensor([1, 2])]), InputError, "is no parameter"),
    "no gradient wanted": (lambda p: optim.SGD([Tensor([1.0])]), InputError, r"requires_grad=True"),
    "the same twice": (lambda p: optim.Adam([p, p]), InputError, "twice"),
    "limit below zero": (
        lambda p: optim.clip_by_norm([p], -1.0),
        InputError,
        r"limit is -1\.0; give a positive",
    ),
    "limit not a number": (lambda p: optim.clip_by_norm([p], math.nan), InputError, "limit is nan"),
    "no gradients": (lambda p: optim.SGD([p]).step(), GraphError, r"call loss\.backward\(\) first"),
}


@pytest.mark.parametrize(("call", "kind", "words"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused_with_the_remedy(call, kind, words, rng):
    with pytest.raises(kind, match=words):
        call(parameters(rng)[0])


# Clipping.


def test_clipping_keeps_directions_and_what_is_below_the_limit(rng):
    ours = parameters(rng)
    ours[0].grad, ours[1].grad = np.full((3, 4), 3.0), np.full(4, -4.0)
    norm = optim.clip_by_norm(ours, 1.0)
    assert norm == pytest.approx(math.sqrt(12 * 9 + 4 * 16), rel=1e-14)
    np.testing.assert_allclose(ours[0].grad, np.full((3, 4), 3 / norm), rtol=1e-14)
    assert optim.clip_by_norm(ours, 5.0) == pytest.approx(1.0, rel=1e-14) and ours[2].grad is None
    np.testing.assert_allclose(ours[1].grad, np.full(4, -4 / norm), rtol=1e-14)


def test_clipping_large_float32_gradients_does_not_overflow():
    p = Tensor(np.ones(4, "float32"), requires_grad=True)
    p.grad = np.full(4, 1e25, "float32")
    assert optim.clip_by_norm([p], 1.0) == pytest.approx(2e25, rel=1e-6)
    np.testing.assert_allclose(p.grad, np.full(4, 0.5), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_names_a_gradient_that_is_not_finite_and_changes_none(bad, rng):
    ours = parameters(rng)
    ours[0].grad, ours[1].grad = np.full((3, 4), 3.0), np.array([0, 0, bad, 0])
    with pytest.raises(NonFiniteError, match=r"gradient of 'p1' .* is not finite"):
        optim.clip_by_norm(ours, 1.0)
    np.testing.assert_array_equal(ours[0].grad, np.full((3, 4), 3.0))


# Initial weights.

INITIALISERS = {
    "zeros": init.zeros,
    "uniform": init.uniform,
    "glorot": init.glorot,
    "orthogonal": init.orthogonal,
}


@pytest.mark.parametrize("draw", INITIALISERS.values(), ids=INITIALISERS)
def test_the_same_seed_draws_the_same_weights(draw):
    first, again, other = (draw(np.random.default_rng(seed), (5, 3)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert draw is init.zeros or (first != other).any()
    assert first.shape == (5, 3) and first.dtype == "float32"
    assert draw(np.random.default_rng(1), (5, 3), "float64").dtype == "float64"


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6), (1, 5)])
def test_orthogonal_weights_are_orthonormal(shape, rng):
    weights = init.orthogonal(rng, shape, "float64", gain=2.0)
    small = weights if shape[0] <= shape[1] else weights.T
    np.testing.assert_allclose(small @ small.T, 4 * np.eye(min(shape)), atol=1e-14)


def test_uniform_weights_stay_within_and_fill_their_bounds(rng):
    for draw, bound in (
        (init.uniform(rng, (100, 50)), 0.1),
        (init.uniform(rng, (100, 50), bound=0.25), 0.25),
        (init.glorot(rng, (100, 50)), 0.2),
    ):
        assert (
            abs(draw).max() <= np.float32(bound)
            and abs(draw).max() > 0.99 * bound
            and abs(draw.mean()) < 0.05 * bound
        )
    assert not init.zeros(rng, (3, 2)).any()


@pytest.mark.parametrize("draw", [init.uniform, init.glorot, init.orthogonal])
def test_a_seed_in_place_of_a_generator_is_refused(draw):
    with pytest.raises(InputError, match=r"numpy\.random\.default_rng\(seed\), not 7"):
        draw(7, (2, 2))
