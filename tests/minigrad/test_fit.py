"""`fit`: each step is the one written out by hand; schedules, stopping, and steps that go wrong."""

from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import InputError, NonFiniteError, Tensor, optim


@pytest.fixture
def problem(rng):
    """A line to be found: w (3,) and b () with data in batches."""

    def parameters():
        return {
            "w": Tensor(np.linspace(-1, 1, 3), requires_grad=True, name="w"),
            "b": Tensor(0.5, requires_grad=True, name="b"),
        }

    def loss_of(p):
        def loss(x, y):
            return ((x @ p["w"].reshape((3, 1)) + p["b"] - y) ** 2).mean()

        return loss

    batches = [(rng.standard_normal((5, 3)), rng.standard_normal((5, 1))) for _ in range(6)]
    return parameters, loss_of, batches


def by_hand(p, loss, batches, rates, clip=1.0):
    optimiser, losses = optim.Adam(p, 1.0), []
    for batch, rate in zip(batches, rates, strict=True):
        optimiser.lr = rate
        optimiser.zero_grad()
        value = loss(*batch)
        value.backward()
        optim.clip_by_norm(optimiser.parameters, clip)
        optimiser.step()
        losses.append(value.item())
    return losses


def same(ours, theirs):
    for name in ours:
        np.testing.assert_allclose(ours[name].value, theirs[name].value, rtol=1e-10)


@pytest.mark.parametrize("lr", [0.1, lambda step: 0.2 / step], ids=["a rate", "a schedule"])
def test_every_step_is_the_one_written_by_hand(lr, problem):
    parameters, loss_of, batches = problem
    ours, theirs = parameters(), parameters()
    losses = mg.fit(loss_of(ours), ours, batches, lr=lr, clip=0.5)
    rates = [lr(k) if callable(lr) else lr for k in range(1, 7)]
    np.testing.assert_allclose(losses, by_hand(theirs, loss_of(theirs), batches, rates, 0.5), rtol=1e-10)
    same(ours, theirs)
    assert losses.shape == (6,)


def test_another_optimiser_and_a_compiled_loss_with_more_results(problem):
    parameters, loss_of, batches = problem
    ours, theirs = parameters(), parameters()
    loss = loss_of(ours)
    compiled = mg.compile(lambda x, y: (loss(x, y), ours["w"] * 2))
    sgd = optim.SGD(ours, 0.05)
    losses = mg.fit(compiled, None, iter(batches), optimiser=sgd, clip=1e9)
    for batch, value in zip(batches, losses, strict=True):
        eager = loss_of(theirs)(*batch)
        assert value == pytest.approx(eager.item(), rel=1e-10)
        gradients = mg.grad(eager, list(theirs.values()))
        for p, g in zip(theirs.values(), gradients, strict=True):
            p.value = p.value - 0.05 * g.value
    same(ours, theirs)


def test_it_is_watched_and_stops_when_told(problem):
    parameters, loss_of, batches = problem
    p, seen = parameters(), []

    def watch(step, loss):
        seen.append((step, loss))
        return step == 3

    losses = mg.fit(loss_of(p), p, batches, watch=watch)
    assert seen == list(enumerate(losses, 1)) and len(losses) == 3
    assert mg.fit(loss_of(p), p, []).shape == (0,)


def test_a_loss_that_is_not_finite_names_the_step_and_changes_nothing(problem):
    parameters, loss_of, batches = problem
    p, q = parameters(), parameters()
    bad = (batches[2][0], np.full((5, 1), np.nan))
    with pytest.raises(NonFiniteError, match="loss of step 3 is nan; use a smaller learning rate"):
        mg.fit(loss_of(p), p, [*batches[:2], bad, *batches[3:]])
    mg.fit(loss_of(q), q, batches[:2])
    same(p, q)


def test_a_gradient_that_is_not_finite_names_the_step_and_the_parameter():
    p = Tensor(np.zeros(2), requires_grad=True, name="w")
    with pytest.raises(NonFiniteError, match=r"step 1: .*'w'.* not finite"):
        mg.fit(lambda x: mg.sqrt(p * x).sum(), [p], [(np.ones(2),)])
    np.testing.assert_array_equal(p.value, 0)


def test_ctrl_c_passes_and_keeps_what_was_learned(problem):
    parameters, loss_of, batches = problem
    p, q = parameters(), parameters()

    def interrupted():
        yield from batches[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mg.fit(loss_of(p), p, interrupted())
    mg.fit(loss_of(q), q, batches[:2])
    same(p, q)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(lr=0.0), "learning rate is 0.0"),
        (dict(lr=lambda step: 2.0 - step), "learning rate of step 3 is -1.0"),
        (dict(lr=lambda step: np.nan), "learning rate of step 1 is nan"),
        (dict(clip=0), "limit is 0"),
        (dict(batches=[np.ones((2, 3))]), "batch 1 is ndarray; give tuples"),
        (dict(parameters={}), "no parameters"),
    ],
)
def test_mistakes_are_named(options, words, problem):
    parameters, loss_of, batches = problem
    p = parameters()
    given = dict(parameters=p, batches=batches) | options
    with pytest.raises(InputError, match=words):
        mg.fit(loss_of(p), **given)
