"""Optimisers, clipping and initial weights: against PyTorch where it is installed, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minigrad import GraphError, InputError, NonFiniteError, Tensor, init, optim, tanh

pytestmark = pytest.mark.smoke
SHAPES = [(3, 4), (4,), ()]

OPTIMISERS = {  # ours, and PyTorch's name and options for the same
    "SGD": (lambda p: optim.SGD(p, lr=0.1), "SGD", dict(lr=0.1)),
    "SGD with momentum": (lambda p: optim.SGD(p, lr=0.05, momentum=0.9), "SGD", dict(lr=0.05, momentum=0.9)),
    "Adam": (lambda p: optim.Adam(p, lr=0.02), "Adam", dict(lr=0.02)),
    "Adam, other rates": (
        lambda p: optim.Adam(p, lr=0.02, betas=(0.5, 0.8), epsilon=1e-3),
        "Adam",
        dict(lr=0.02, betas=(0.5, 0.8), eps=1e-3),
    ),
    "AdamW": (lambda p: optim.Adam(p, lr=0.02, weight_decay=0.1), "AdamW", dict(lr=0.02, weight_decay=0.1)),
}
every_optimiser = pytest.mark.parametrize(("make", "theirs", "options"), OPTIMISERS.values(), ids=OPTIMISERS)


def parameters(rng, dtype="float64"):
    return [Tensor(rng.standard_normal(s), requires_grad=True, name=f"p{k}", dtype=dtype) for k, s in enumerate(SHAPES)]


@pytest.mark.oracle
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-5)])
@every_optimiser
def test_twenty_steps_equal_pytorchs(make, theirs, options, dtype, bound, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: `make torch` installs it")
    ours = parameters(rng, dtype)
    copies = [torch.tensor(p.value, requires_grad=True) for p in ours]
    optimiser, oracle = make(ours), getattr(torch.optim, theirs)(copies, **options)
    for _ in range(20):
        for p, copy in zip(ours, copies, strict=True):
            p.grad = rng.standard_normal(p.shape).astype(dtype)
            copy.grad = torch.tensor(p.grad)
        optimiser.step()
        oracle.step()
        for p, copy in zip(ours, copies, strict=True):
            np.testing.assert_allclose(p.value, copy.detach().numpy(), rtol=bound, atol=bound)


@every_optimiser
def test_float32_stays_float32_in_values_and_slots(make, theirs, options, rng):
    ours = parameters(rng, "float32")
    optimiser = make(ours)
    for _ in range(3):
        optimiser.zero_grad()
        sum((tanh(p) * 2.0).sum() for p in ours).backward()
        optim.clip_by_norm(ours, 0.5)
        optimiser.step()
    slots = [a for value in vars(optimiser).values() if isinstance(value, list) for a in value if isinstance(a, np.ndarray)]
    assert len(slots) == {"SGD": len(ours) if getattr(optimiser, "momentum", 0) else 0}.get(theirs, 2 * len(ours))
    for array in [*slots, *(p.value for p in ours), *(p.grad for p in ours)]:
        assert array.dtype == "float32"
    for p in ours:
        assert not p.value.flags.writeable and p.is_leaf and p.requires_grad and type(p.value) is np.ndarray


@every_optimiser
def test_a_parameter_without_gradient_stays_and_others_move(make, theirs, options, rng):
    ours = parameters(rng)
    before = [p.value for p in ours]
    (ours[0] * ours[0]).sum().backward()
    make(ours).step()
    assert (ours[0].value != before[0]).all()
    for p, old in zip(ours[1:], before[1:], strict=True):
        np.testing.assert_array_equal(p.value, old)


def test_a_step_leaves_the_old_array_to_whoever_holds_it(rng):
    (p,) = parameters(rng)[:1]
    held, kept = p.value, p.value.copy()
    (p * p).sum().backward()
    optim.SGD([p]).step()
    np.testing.assert_array_equal(held, kept)
    assert p.value is not held


@every_optimiser
def test_every_optimiser_finds_the_minimum_of_a_bowl(make, theirs, options, rng):
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
    "learning rate zero": (lambda p: optim.Adam([p], lr=0), InputError, "learning rate is 0; give a positive number"),
    "learning rate not a number": (lambda p: optim.Adam([p], lr=math.nan), InputError, "learning rate is nan"),
    "momentum of one": (lambda p: optim.SGD([p], momentum=1), InputError, r"momentum is 1; give a number in \[0, 1\)"),
    "betas": (lambda p: optim.Adam([p], betas=(0.9, 1.0)), InputError, r"betas \(0\.9, 1\.0\)"),
    "weight decay": (lambda p: optim.Adam([p], weight_decay=-1), InputError, "weight_decay -1 not below 0"),
    "an array": (lambda p: optim.SGD([p.value]), InputError, "is no parameter; give leaves"),
    "a computed tensor": (lambda p: optim.SGD([p * 2]), InputError, "is no parameter; give leaves"),
    "whole numbers": (lambda p: optim.SGD([Tensor([1, 2])]), InputError, "is no parameter"),
    "no gradients": (lambda p: optim.SGD([p]).step(), GraphError, r"call loss\.backward\(\) first"),
}


@pytest.mark.parametrize(("call", "kind", "words"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused_with_the_remedy(call, kind, words, rng):
    with pytest.raises(kind, match=words):
        call(parameters(rng)[0])


# Clipping.


@pytest.mark.oracle
@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clipping_equals_pytorchs(limit, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: `make torch` installs it")
    ours = parameters(rng)
    for p in ours:
        p.grad = rng.standard_normal(p.shape)
    copies = [torch.tensor(p.value, requires_grad=True) for p in ours]
    for p, copy in zip(ours, copies, strict=True):
        copy.grad = torch.tensor(p.grad)
    norm = optim.clip_by_norm(ours, limit)
    np.testing.assert_allclose(norm, torch.nn.utils.clip_grad_norm_(copies, limit).item(), rtol=1e-12)
    for p, copy in zip(ours, copies, strict=True):
        np.testing.assert_allclose(p.grad, copy.grad.numpy(), rtol=1e-5)  # PyTorch divides by norm + 1e-6


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
    with pytest.raises(NonFiniteError, match="gradient of 'p1' .* is not finite"):
        optim.clip_by_norm(ours, 1.0)
    np.testing.assert_array_equal(ours[0].grad, np.full((3, 4), 3.0))


# Initial weights.

INITIALISERS = {"zeros": init.zeros, "uniform": init.uniform, "glorot": init.glorot, "orthogonal": init.orthogonal}


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
        assert abs(draw).max() <= np.float32(bound) and abs(draw).max() > 0.99 * bound and abs(draw.mean()) < 0.05 * bound
    assert not init.zeros(rng, (3, 2)).any()


@pytest.mark.parametrize("draw", [init.uniform, init.glorot, init.orthogonal])
def test_a_seed_in_place_of_a_generator_is_refused(draw):
    with pytest.raises(InputError, match=r"numpy\.random\.default_rng\(seed\), not 7"):
        draw(7, (2, 2))
