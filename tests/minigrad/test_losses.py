"""Losses against their formulas, differences and PyTorch's: eager and compiled, in float64; and what they refuse.

Every row of LOSSES says how ours and PyTorch's are called with the same random numbers, and what the formula gives.
Where there is no PyTorch, what compares with it is skipped and nothing else.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minigrad as mg
from minigrad import InputError, ShapeError, Tensor, losses

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = F = None  # type: ignore[assignment]


def compared(test):
    """A test for which PyTorch is the oracle."""
    why = "PyTorch is the oracle here: `make oracles` installs it"
    return pytest.mark.oracle(pytest.mark.skipif(torch is None, reason=why)(test))


T, N, K = 3, 4, 5
DRAW = np.random.default_rng(7)
CLASSES = DRAW.integers(0, K, (T, N))
SOFT = DRAW.dirichlet(np.ones(K), (T, N))
WEIGHTS = DRAW.uniform(0.1, 3, K)
MASK = DRAW.random((T, N)) < 0.6
TARGETS = DRAW.standard_normal((T, N, K))
CHANCES = DRAW.random((T, N, K))
IGNORED = np.where(MASK, CLASSES, -100)
REDUCTIONS = ["mean", "sum", "none"]


def t(array):
    return torch.tensor(array)


def theirs_of_classes(z, classes, **options):
    """PyTorch wants the classes on the second axis."""
    return F.cross_entropy(
        z.permute(0, 2, 1), classes if classes.ndim == 2 else classes.permute(0, 2, 1), **options
    )


def masked(losses, mask, reduction):
    mask = t(mask)
    mask = mask.reshape(*mask.shape, *[1] * (losses.ndim - mask.ndim)).expand(losses.shape)
    if reduction == "none":
        return losses * mask
    return losses[mask].mean() if reduction == "mean" else losses[mask].sum()


LOSSES = {
    "classes": (
        lambda z, r: mg.cross_entropy(z, CLASSES, reduction=r),
        lambda z, r: theirs_of_classes(z, t(CLASSES), reduction=r),
    ),
    "soft": (
        lambda z, r: mg.cross_entropy(z, SOFT, reduction=r),
        lambda z, r: theirs_of_classes(z, t(SOFT), reduction=r),
    ),
    "weights": (
        lambda z, r: mg.cross_entropy(z, CLASSES, weights=WEIGHTS, reduction=r),
        lambda z, r: theirs_of_classes(z, t(CLASSES), weight=t(WEIGHTS), reduction=r),
    ),
    "soft, weights": (
        lambda z, r: mg.cross_entropy(z, SOFT, weights=WEIGHTS, reduction=r),
        lambda z, r: theirs_of_classes(z, t(SOFT), weight=t(WEIGHTS), reduction=r),
    ),
    "smoothing": (
        lambda z, r: mg.cross_entropy(z, CLASSES, label_smoothing=0.2, reduction=r),
        lambda z, r: theirs_of_classes(z, t(CLASSES), label_smoothing=0.2, reduction=r),
    ),
    "ignored": (
        lambda z, r: mg.cross_entropy(z, IGNORED, ignore_index=-100, reduction=r),
        lambda z, r: theirs_of_classes(z, t(IGNORED), reduction=r),
    ),
    "all at once": (
        lambda z, r: mg.cross_entropy(
            z, IGNORED, None, -100, weights=WEIGHTS, label_smoothing=0.3, reduction=r
        ),
        lambda z, r: theirs_of_classes(z, t(IGNORED), weight=t(WEIGHTS), label_smoothing=0.3, reduction=r),
    ),
    "soft, weights, smoothing": (
        lambda z, r: mg.cross_entropy(z, SOFT, weights=WEIGHTS, label_smoothing=0.3, reduction=r),
        lambda z, r: theirs_of_classes(z, t(SOFT), weight=t(WEIGHTS), label_smoothing=0.3, reduction=r),
    ),
    "masked": (
        lambda z, r: mg.cross_entropy(z, CLASSES, MASK, reduction=r),
        lambda z, r: masked(theirs_of_classes(z, t(CLASSES), reduction="none"), MASK, r),
    ),
    "binary": (
        lambda z, r: mg.binary_cross_entropy(z, CHANCES, reduction=r),
        lambda z, r: F.binary_cross_entropy_with_logits(z, t(CHANCES), reduction=r),
    ),
    "binary, pos_weight": (
        lambda z, r: mg.binary_cross_entropy(z, CHANCES > 0.7, pos_weight=WEIGHTS, reduction=r),
        lambda z, r: F.binary_cross_entropy_with_logits(
            z, t((CHANCES > 0.7) * 1.0), pos_weight=t(WEIGHTS), reduction=r
        ),
    ),
    "binary, masked": (
        lambda z, r: mg.binary_cross_entropy(z, CHANCES, MASK, pos_weight=2.5, reduction=r),
        lambda z, r: masked(
            F.binary_cross_entropy_with_logits(z, t(CHANCES), pos_weight=t(2.5), reduction="none"), MASK, r
        ),
    ),
    "mse": (
        lambda z, r: mg.mse(z, TARGETS, reduction=r),
        lambda z, r: F.mse_loss(z, t(TARGETS), reduction=r),
    ),
    "mse, masked": (
        lambda z, r: mg.mse(z, TARGETS, MASK, reduction=r),
        lambda z, r: masked(F.mse_loss(z, t(TARGETS), reduction="none"), MASK, r),
    ),
    "mse, masked element by element": (
        lambda z, r: mg.mse(z, TARGETS, CHANCES > 0.4, reduction=r),
        lambda z, r: masked(F.mse_loss(z, t(TARGETS), reduction="none"), CHANCES > 0.4, r),
    ),
    "mae": (
        lambda z, r: mg.mae(z, TARGETS, reduction=r),
        lambda z, r: F.l1_loss(z, t(TARGETS), reduction=r),
    ),
    "huber": (
        lambda z, r: mg.huber(z, TARGETS, delta=0.7, reduction=r),
        lambda z, r: F.huber_loss(z, t(TARGETS), delta=0.7, reduction=r),
    ),
    "smooth L1": (
        lambda z, r: mg.huber(z, TARGETS, delta=0.4, reduction=r) / 0.4,
        lambda z, r: F.smooth_l1_loss(z, t(TARGETS), beta=0.4, reduction=r),
    ),
    "huber, masked": (
        lambda z, r: mg.huber(z, TARGETS, MASK, reduction=r),
        lambda z, r: masked(F.huber_loss(z, t(TARGETS), reduction="none"), MASK, r),
    ),
}


def both(ours, theirs, z, rtol=1e-10, atol=1e-12, compiled_too=True):
    """Values and gradients of a weighted sum of the losses: ours eager, ours compiled, PyTorch's."""
    x = torch.tensor(z, requires_grad=True)
    right = theirs(x)
    share = np.random.default_rng(3).uniform(0.5, 2, tuple(right.shape))
    (right * t(share)).sum().backward()

    def total(x):
        return (ours(x) * share).sum()

    leaf = Tensor(z, requires_grad=True)
    np.testing.assert_allclose(ours(leaf).value, right.detach().numpy(), rtol=rtol, atol=atol)
    total(leaf).backward()
    np.testing.assert_allclose(leaf.grad, x.grad.numpy(), rtol=rtol, atol=atol)
    if not compiled_too:
        return
    compiled, gradients = mg.compile(total).value_and_grad(leaf)
    np.testing.assert_allclose(compiled.value, total(leaf).value, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gradients[leaf], leaf.grad, rtol=1e-11, atol=1e-13)


# The formulas: what every place loses, and how much it counts in the mean, from logits z (T, N, K).
HOT = np.eye(K)[CLASSES]


def plain_classes(z, targets):
    return -(targets * (z - np.log(np.exp(z).sum(-1, keepdims=True)))).sum(-1)


def plain_binary(z, targets, weight=1.0):
    return weight * targets * np.log1p(np.exp(-z)) + (1 - targets) * np.log1p(np.exp(z))


def plain_huber(z, delta=1.0):
    d = np.abs(z - TARGETS)
    return np.where(d <= delta, d * d / 2, delta * (d - delta / 2))


def smoothed(targets, epsilon):
    return (1 - epsilon) * targets + epsilon / K


ALL = np.ones((T, N))
EACH, ROWS = np.ones((T, N, K)), np.broadcast_to(MASK[..., None], (T, N, K))
FORMULAS = {
    "classes": lambda z: (plain_classes(z, HOT), ALL),
    "soft": lambda z: (plain_classes(z, SOFT), ALL),
    "weights": lambda z: (plain_classes(z, HOT * WEIGHTS), WEIGHTS[CLASSES]),
    "soft, weights": lambda z: (plain_classes(z, SOFT * WEIGHTS), ALL),
    "smoothing": lambda z: (plain_classes(z, smoothed(HOT, 0.2)), ALL),
    "ignored": lambda z: (plain_classes(z, HOT) * MASK, MASK),
    "all at once": lambda z: (
        plain_classes(z, smoothed(HOT, 0.3) * WEIGHTS) * MASK,
        WEIGHTS[CLASSES] * MASK,
    ),
    "soft, weights, smoothing": lambda z: (plain_classes(z, smoothed(SOFT, 0.3) * WEIGHTS), ALL),
    "masked": lambda z: (plain_classes(z, HOT) * MASK, MASK),
    "binary": lambda z: (plain_binary(z, CHANCES), EACH),
    "binary, pos_weight": lambda z: (plain_binary(z, CHANCES > 0.7, WEIGHTS), EACH),
    "binary, masked": lambda z: (plain_binary(z, CHANCES, 2.5) * ROWS, ROWS),
    "mse": lambda z: ((z - TARGETS) ** 2, EACH),
    "mse, masked": lambda z: ((z - TARGETS) ** 2 * ROWS, ROWS),
    "mse, masked element by element": lambda z: ((z - TARGETS) ** 2 * (CHANCES > 0.4), CHANCES > 0.4),
    "mae": lambda z: (np.abs(z - TARGETS), EACH),
    "huber": lambda z: (plain_huber(z, 0.7), EACH),
    "smooth L1": lambda z: (plain_huber(z, 0.4) / 0.4, EACH),
    "huber, masked": lambda z: (plain_huber(z) * ROWS, ROWS),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_values_are_the_formulas_and_gradients_their_differences(name, reduction, rng):
    """Eager and compiled; logits of ±30 have no differences worth a comparison: the slope is 0 or 1 nearly everywhere."""
    ours = LOSSES[name][0]
    compiled = mg.compile(lambda x: ours(x, reduction))
    for scale in (1.0, 30.0):
        z = scale * rng.standard_normal((T, N, K))
        losses_, counts = FORMULAS[name](z)
        right = {"none": losses_, "sum": losses_.sum(), "mean": losses_.sum() / counts.sum()}[reduction]
        for found in (ours(Tensor(z), reduction), compiled(z)):
            np.testing.assert_allclose(found.value, right, rtol=1e-12, atol=1e-12)
    mg.check_grads(lambda x: ours(x, reduction), [rng.standard_normal((T, N, K))])
    total = lambda x: (ours(x, reduction) * np.arange(1.0, right.size + 1).reshape(right.shape)).sum()  # noqa: E731
    leaf = Tensor(z, requires_grad=True)
    total(leaf).backward()
    _, gradients = mg.compile(total).value_and_grad(leaf)
    np.testing.assert_allclose(gradients[leaf], leaf.grad, rtol=1e-11, atol=1e-12)


@compared
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_pytorchs_eager_and_compiled(name, reduction, rng):
    ours, theirs = LOSSES[name]
    for scale in (1.0, 30.0):
        z = scale * rng.standard_normal((T, N, K))
        both(lambda x: ours(x, reduction), lambda x: theirs(x, reduction), z, compiled_too=scale > 1)


def test_every_row_has_its_formula():
    assert {*FORMULAS} == {*LOSSES}


@pytest.mark.parametrize("name", [n for n in LOSSES if "mask" in n or "ignored" in n])
def test_what_does_not_count_may_hold_anything(name, rng):
    ours = LOSSES[name][0]
    z = rng.standard_normal((T, N, K))
    counts = CHANCES > 0.4 if "element" in name else np.broadcast_to(MASK[..., None], z.shape)
    for bad in (np.nan, np.inf, -np.inf):
        dirty = np.where(counts, z, bad)
        a, b = (Tensor(x, requires_grad=True) for x in (z, dirty))
        one, two = ours(a, "mean"), ours(b, "mean")
        one.backward()
        two.backward()
        assert one.item() == two.item() and (a.grad == b.grad).all() and not b.grad[~counts].any()


def test_nothing_that_counts_is_a_loss_of_0(rng):
    z, none = rng.standard_normal((T, N, K)), np.zeros((T, N), bool)
    for loss in (
        lambda x: mg.cross_entropy(x, CLASSES, none, weights=WEIGHTS),
        lambda x: mg.binary_cross_entropy(x, CHANCES, none),
        lambda x: mg.mse(x, TARGETS, none),
        lambda x: mg.mae(x, TARGETS, none),
        lambda x: mg.huber(x, TARGETS, none),
    ):
        x = Tensor(z, requires_grad=True)
        loss(x).backward()
        assert loss(x).item() == 0 and not x.grad.any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_binary_cross_entropy_is_stable_far_out_and_keeps_the_dtype(dtype):
    x = Tensor(np.array([-1e4, -30, 0, 30, 1e4], dtype), requires_grad=True)
    for targets, right in (
        (np.zeros(5), [0, np.exp(-30), np.log(2), 30, 1e4]),
        (np.ones(5), [1e4, 30, np.log(2), np.exp(-30), 0]),
    ):
        loss = mg.binary_cross_entropy(x, targets.astype(dtype), reduction="none")
        x.grad = None
        loss.sum().backward()
        np.testing.assert_allclose(
            loss.value,
            right,
            rtol=2e-3 if dtype == "float16" else 1e-6,
            atol=1e-7 if dtype == "float16" else 0,
        )
        assert loss.dtype == x.grad.dtype == dtype and np.isfinite(x.grad).all()


HALF = [
    n for n in LOSSES if not any(word in n for word in ("soft", "binary", "mse", "mae", "huber", "smooth L1"))
]


@pytest.mark.parametrize(
    "name", HALF
)  # the targets of the others are float64, and nothing is promoted silently
def test_losses_keep_float32_and_float16(name, rng):
    z = rng.standard_normal((T, N, K))
    right = LOSSES[name][0](Tensor(z), "mean").value
    for dtype, close in (("float32", 1e-5), ("float16", 5e-3)):
        found = LOSSES[name][0](Tensor(z, dtype=dtype), "mean")
        np.testing.assert_allclose(found.value, right, rtol=close)
        assert found.dtype == dtype


# CTC.


def ways(log_p, target, blank):
    """−log of the sum over all ways, counted one by one: log_p (T, K)."""
    total = 0.0
    for way in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        written = [k for k, _ in itertools.groupby(way) if k != blank]
        if written == list(target):
            total += np.exp(log_p[np.arange(len(way)), list(way)].sum())
    return -np.log(total) if total else np.inf


def case(seed, T=7, N=5, K=4, S=3, blank=0):
    rng = np.random.default_rng(seed)
    classes = [k for k in range(K) if k != blank]
    return (
        rng.standard_normal((T, N, K)),
        rng.choice(classes, (N, S)),
        rng.integers(S, T + 1, N),
        rng.integers(0, S + 1, N),
    )


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("seed", range(4))
def test_ctc_is_the_sum_over_all_ways(seed, blank):
    z, targets, steps, lengths = case(seed, T=5, K=3, blank=blank)
    log_p = mg.log_softmax(z).value
    right = [ways(log_p[: steps[n], n], targets[n, : lengths[n]], blank) for n in range(len(targets))]
    found = mg.ctc_loss(z, targets, steps, lengths, blank=blank, reduction="none")
    np.testing.assert_allclose(found.value, right, rtol=1e-12)
    assert np.isfinite(right).any()
    finite = np.isfinite(right)

    def loss(x):
        return mg.ctc_loss(x, targets[finite], steps[finite], lengths[finite], blank=blank, reduction="none")

    mg.check_grads(loss, [z[:, finite]])
    compiled = mg.compile(lambda x: loss(x).sum())
    leaf = Tensor(z[:, finite], requires_grad=True)
    loss(leaf).sum().backward()
    value, gradients = compiled.value_and_grad(leaf)
    assert value.item() == pytest.approx(np.asarray(right)[finite].sum(), rel=1e-12)
    np.testing.assert_allclose(gradients[leaf], leaf.grad, rtol=1e-11, atol=1e-13)


@compared
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("seed", range(3))
def test_ctc_is_pytorchs_eager_and_compiled(seed, blank, reduction):
    z, targets, steps, lengths = case(seed, T=9, blank=blank)
    options = dict(blank=blank, reduction=reduction)
    both(
        lambda x: mg.ctc_loss(x, targets, steps, lengths, **options),
        lambda x: F.ctc_loss(x.log_softmax(-1), t(targets), t(steps), t(lengths), **options),
        z,
    )  # fmt: skip
    everything = [np.full(5, 9), np.full(5, 3)]
    both(
        lambda x: mg.ctc_loss(x, targets, **options),
        lambda x: F.ctc_loss(x.log_softmax(-1), t(targets), *map(t, everything), **options),
        z,
    )


REPEATS = np.array([[1, 1, 1], [1, 2, 1], [2, 2, 1], [3, 3, 3], [1, 2, 3]])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_target_that_no_way_writes_is_infinite_or_0(reduction):
    z, steps = case(0, T=4)[0], np.array([4, 4, 4, 4, 2])
    log_p = mg.log_softmax(z).value
    each = np.array([ways(log_p[: steps[n], n], REPEATS[n], 0) for n in range(5)])
    for zero in (False, True):
        right = np.where(np.isinf(each), 0, each) if zero else each
        right = {"none": right, "sum": right.sum(), "mean": (right / 3).mean()}[reduction]
        loss = lambda x: mg.ctc_loss(x, REPEATS, steps, reduction=reduction, zero_infinity=zero)  # noqa: E731, B023
        for found in (loss(z), mg.compile(loss)(z)):
            np.testing.assert_allclose(found.value, right, rtol=1e-12)
    leaf = Tensor(z, requires_grad=True)
    loss(leaf).sum().backward()
    assert not leaf.grad[:, np.isinf(each)].any() and np.isinf(each).tolist() == [
        True,
        False,
        False,
        True,
        True,
    ]
    mg.check_grads(lambda x: loss(x), [z])


@compared
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ctc_of_too_few_steps_is_pytorchs(reduction):
    """REPEATS in 4 steps: those with two repeats do not fit."""
    z = case(0, T=4)[0]
    given = REPEATS, np.array([4, 4, 4, 4, 2]), np.array([3, 3, 3, 3, 3])
    theirs = lambda x, zero=False: F.ctc_loss(  # noqa: E731
        x.log_softmax(-1), *map(t, given), reduction=reduction, zero_infinity=zero
    )
    found = mg.ctc_loss(z, *given, reduction=reduction)
    np.testing.assert_array_equal(np.isinf(found.value), np.isinf(theirs(t(z)).numpy()))
    if reduction == "none":
        assert np.isinf(found.value).tolist() == [True, False, False, True, True]
    both(
        lambda x: mg.ctc_loss(x, *given, reduction=reduction, zero_infinity=True),
        lambda x: theirs(x, True),
        z,
    )


@compared
def test_the_gradient_of_an_infinite_ctc_loss_is_0_and_of_the_others_pytorchs():
    z = case(0, T=4)[0]
    given = REPEATS, np.full(5, 4), np.full(5, 3)
    x, y = Tensor(z, requires_grad=True), torch.tensor(z, requires_grad=True)
    mg.ctc_loss(x, *given, reduction="sum").backward()
    F.ctc_loss(y.log_softmax(-1), *map(t, given), reduction="sum").backward()
    right = y.grad.numpy()
    assert np.isnan(right[:, [0, 3]]).all() and not x.grad[:, [0, 3]].any()
    np.testing.assert_allclose(x.grad[:, [1, 2, 4]], right[:, [1, 2, 4]], rtol=1e-10)


@compared
@pytest.mark.parametrize("zero", [False, True])
def test_ctc_at_probabilities_of_0(zero):
    """PyTorch's value at −∞; its gradient is NaN there, so that is taken at −300, a probability of 1e-130."""
    z, targets, steps, lengths = case(5, T=9)
    gone = np.random.default_rng(0).random(z.shape) < 0.15
    gone[:, 0] = False
    gone[:, 0, targets[0, 0]] = True  # the first target cannot be written at all
    lengths = np.maximum(lengths, 1)
    none, small = np.where(gone, -np.inf, z), np.where(gone, -300.0, z)
    right = F.ctc_loss(
        t(none).log_softmax(-1), t(targets), t(steps), t(lengths), reduction="none", zero_infinity=zero
    )
    x, y = Tensor(none, requires_grad=True), torch.tensor(small, requires_grad=True)
    found = mg.ctc_loss(x, targets, steps, lengths, reduction="none", zero_infinity=zero)
    np.testing.assert_allclose(found.value, right.numpy(), rtol=1e-10)
    assert np.isinf(found.value[0]) != zero and np.isfinite(found.value[1:]).sum() >= 2
    fits = np.isfinite(found.value) & (found.value > 0)
    found.sum().backward()
    F.ctc_loss(y.log_softmax(-1), t(targets), t(steps), t(lengths), reduction="sum").backward()
    assert np.isfinite(x.grad).all()
    np.testing.assert_allclose(x.grad[:, fits], y.grad.numpy()[:, fits], rtol=1e-10, atol=1e-12)
    compiled, gradients = mg.compile(
        lambda x: mg.ctc_loss(x, targets, steps, lengths, reduction="none", zero_infinity=True).sum()
    ).value_and_grad(x)
    assert np.isfinite(compiled.item())
    np.testing.assert_allclose(gradients[x], x.grad, rtol=1e-10, atol=1e-13)


def test_ctc_of_sequences_and_targets_of_no_length(rng):
    z = rng.standard_normal((4, 3, 4))
    found = mg.ctc_loss(z, np.full((3, 2), 1), [0, 0, 3], [0, 2, 0], reduction="none").value
    assert found[0] == 0 and np.isinf(found[1])
    assert found[2] == pytest.approx(-mg.log_softmax(z).value[:3, 2, 0].sum(), rel=1e-13)
    no_targets = mg.ctc_loss(z, np.zeros((3, 0), int), reduction="none")
    np.testing.assert_allclose(no_targets.value, -mg.log_softmax(z).value[:, :, 0].sum(0), rtol=1e-13)


def test_ctc_compiled_takes_targets_and_lengths_as_arguments_and_checks_them():
    compiled = mg.compile(lambda z, k, steps, lengths: mg.ctc_loss(z, k, steps, lengths))
    for seed, size in ((1, 9), (2, 6), (3, 9)):
        given = case(seed, T=size)
        assert compiled(*given).item() == pytest.approx(mg.ctc_loss(*given).item(), rel=1e-12)
    z, targets, steps, lengths = case(1, T=9)
    for bad in (
        (z, targets + 3, steps, lengths * 0 + 3),
        (z, targets, steps + 9, lengths),
        (z, targets, steps, lengths + 4),
    ):
        for function in (compiled, mg.ctc_loss):
            with pytest.raises(InputError, match="outside"):
                function(*bad)


def test_ctc_learns_to_write_a_target(rng):
    z, target = (
        Tensor(rng.standard_normal((12, 1, 5)), requires_grad=True, name="z"),
        np.array([[3, 3, 1, 4]]),
    )
    values = mg.fit(lambda k: mg.ctc_loss(z, k), {"z": z}, [(target,)] * 150, lr=0.1)
    best = z.value[:, 0].argmax(-1)
    assert values[-1] < 0.1 * values[0] and [k for k, _ in itertools.groupby(best) if k] == [3, 3, 1, 4]


# What is refused.

Z = np.zeros((T, N, K))
WRONG = {
    "class too large": (lambda: mg.cross_entropy(Z, CLASSES * 0 + 5 * (np.arange(12).reshape(3, 4) == 6)), InputError,
                        r"cross_entropy: index 5 at \(1, 2\) outside the classes, 0 … 4"),
    "class below zero": (lambda: mg.one_hot([0, -2], 3), InputError, r"one_hot: index -2 at \(1,\) outside the classes, 0 … 2"),
    "a class alone": (lambda: mg.one_hot(3, 3), InputError, "one_hot: index 3 outside the classes, 0 … 2"),
    "smoothing": (lambda: mg.cross_entropy(Z, CLASSES, label_smoothing=1.5), InputError, "label_smoothing is 1.5; give"),
    "weights": (lambda: mg.cross_entropy(Z, CLASSES, weights=np.ones(4)), ShapeError, r"weights .*\(4,\).* do not fit logits"),
    "delta": (lambda: mg.huber(Z, Z, delta=0), InputError, "delta is 0; give a positive"),
    "mask": (lambda: mg.mse(Z, Z, np.ones((N, K), bool)), ShapeError, r"mse: the mask .*\(4, 5\).* give its shape"),
    "shapes": (lambda: mg.binary_cross_entropy(Z, Z[0]), ShapeError, "binary_cross_entropy of .* shapes must be the same"),
    "ctc: logits": (lambda: mg.ctc_loss(Z[0], CLASSES), ShapeError, "give logits \\(steps, sequences, classes\\)"),
    "ctc: sequences": (lambda: mg.ctc_loss(Z, CLASSES), ShapeError, "ctc_loss of"),
    "ctc: blank": (lambda: mg.ctc_loss(Z, CLASSES.T, blank=5), InputError, "blank: index 5 outside the classes, 0 … 4"),
    "ctc: class": (lambda: mg.ctc_loss(Z, CLASSES.T + 3), InputError, r"ctc_loss: index \d at \(\d, \d\) outside the cl"),
    "ctc: steps": (lambda: mg.ctc_loss(Z, CLASSES.T, [3, 3, 4, 3]), InputError, r"input_lengths: index 4 at \(2,\) outside"),
    "ctc: lengths": (lambda: mg.ctc_loss(Z, CLASSES.T, None, [3, -1, 3, 3]), InputError, r"target_lengths: index -1 at \(1,\)"),
    "ctc: how many": (lambda: mg.ctc_loss(Z, CLASSES.T, [3, 3]), ShapeError, "input_lengths .*give one length for each of the 4"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "words"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused_with_the_remedy(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "ctc_loss"])
def test_another_reduction_is_refused_by_every_loss(name):
    targets = CLASSES.T if name == "ctc_loss" else CLASSES if name == "cross_entropy" else TARGETS
    with pytest.raises(InputError, match=f'{name}: reduction = \'average\'; give "mean", "sum" or "none"'):
        getattr(losses, name)(Z, targets, reduction="average")
