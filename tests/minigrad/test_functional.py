"""Numerics at the edges: ±10,000, masked rows, ties, zeros and empty batches; compositions against plain
NumPy. Warnings are errors here as everywhere, so an overflow shows.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigrad
from minigrad import (
    OPS,
    InputError,
    ShapeError,
    Tensor,
    cross_entropy,
    gather,
    grad,
    layer_norm,
    log_softmax,
    logsumexp,
    matmul,
    maximum,
    minimum,
    mse,
    one_hot,
    relu,
    scatter,
    sigmoid,
    softmax,
    softplus,
    tanh,
)

pytestmark = pytest.mark.smoke
EDGE = 1e4
every_type = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])


def parameter(data, dtype="float64"):
    return Tensor(data, requires_grad=True, dtype=dtype)


def gradient(y, x):
    return grad(y, x, np.ones(y.shape, y.dtype)).value


@both_types
def test_activations_far_out_are_exact_with_finite_gradients(dtype):
    x = parameter([-EDGE, -100, 0, 100, EDGE], dtype)
    cases = {
        sigmoid: [0, 0, 0.5, 1, 1],
        tanh: [-1, -1, 0, 1, 1],
        softplus: [0, 0, math.log(2), 100, EDGE],
        relu: [0, 0, 0, 100, EDGE],
    }
    for function, expected in cases.items():
        y = function(x)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.value, expected, rtol=1e-6, atol=1e-37)
        assert np.isfinite(gradient(y, x)).all()
    np.testing.assert_allclose(gradient(sigmoid(x), x)[[0, 4]], [0, 0], atol=1e-37)
    assert gradient(sigmoid(x), x)[2] == 0.25


def test_sigmoid_keeps_its_relative_accuracy_in_both_tails():
    x = np.array([-700.0, -40.0, -1.0, 0.0, 1.0, 30.0])
    exact = [math.exp(v) / (1 + math.exp(v)) if v < 0 else 1 / (1 + math.exp(-v)) for v in x]
    np.testing.assert_allclose(sigmoid(Tensor(x)).value, exact, rtol=4e-16)
    single = np.array([-86.0, -20.0, 0.0, 20.0], "float32")
    exact = [math.exp(v) / (1 + math.exp(v)) for v in single.astype(float)]
    np.testing.assert_allclose(sigmoid(Tensor(single)).value, exact, rtol=1e-6)


@both_types
def test_softmax_and_cross_entropy_far_out(dtype):
    x = parameter([[EDGE, -EDGE, 0], [-EDGE, -EDGE, -EDGE], [EDGE, EDGE, EDGE]], dtype)
    loss = cross_entropy(x, np.array([1, 0, 2]))
    np.testing.assert_allclose(loss.value, (2 * EDGE + 2 * math.log(3)) / 3, rtol=1e-6)
    for y in (softmax(x), log_softmax(x), loss):
        assert y.dtype == dtype and np.isfinite(y.value).all() and np.isfinite(gradient(y, x)).all()


@both_types
def test_softmax_and_its_gradients_lose_no_digits_far_out(dtype):
    third, precision = 1 / 3, 4 * np.finfo(dtype).eps
    x = parameter([[EDGE, -EDGE, 0], [-EDGE, -EDGE, -EDGE], [EDGE, EDGE, EDGE]], dtype)
    expected = np.array([[1, 0, 0], [third] * 3, [third] * 3])
    np.testing.assert_allclose(softmax(x).value, expected, rtol=precision)
    np.testing.assert_allclose(gradient(logsumexp(x, 1), x), expected, rtol=precision)
    slope = gradient(cross_entropy(x, np.array([1, 0, 2])), x)
    np.testing.assert_allclose(slope, (expected - np.eye(3)[[1, 0, 2]]) / 3, rtol=precision, atol=1e-30)


@both_types
def test_logsumexp_far_out_and_of_nothing_but_minus_infinity(dtype):
    x = parameter([[EDGE, EDGE], [-EDGE, -EDGE]], dtype)
    np.testing.assert_allclose(logsumexp(x, 1).value, [EDGE + math.log(2), -EDGE + math.log(2)], rtol=1e-6)
    assert logsumexp(Tensor([-np.inf, -np.inf], dtype=dtype)).value == -np.inf
    assert logsumexp(Tensor([np.inf, 0.0], dtype=dtype)).value == np.inf
    assert logsumexp(Tensor([-np.inf, 1.0], dtype=dtype)).value == 1


@every_type
def test_a_fully_masked_row_gives_zeros_and_no_gradient(dtype, rng):
    x = parameter(rng.standard_normal((2, 3)), dtype)
    mask = np.array([[False, False, False], [True, False, True]])
    y = softmax(x, mask=mask)
    np.testing.assert_array_equal(y.value[~mask], np.zeros(4))
    precision = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(y.value.sum(1), [0, 1], rtol=precision)
    two = softmax(Tensor(x.value[1, [0, 2]])).value
    np.testing.assert_allclose(y.value[1, [0, 2]], two, rtol=precision)
    slope = grad((y * rng.standard_normal((2, 3)).astype(dtype)).sum(), x).value
    assert np.isfinite(slope).all() and not slope[~mask].any() and slope[mask].any() and y.dtype == dtype


def test_ties_share_the_gradient_of_a_maximum_equally():
    x = parameter([[3.0, 3.0, 1.0, 3.0], [1.0, 2.0, 2.0, 0.0]])
    third = 1 / 3
    np.testing.assert_allclose(gradient(x.max(axis=1), x), [[third, third, 0, third], [0, 0.5, 0.5, 0]])
    np.testing.assert_allclose(gradient(x.max(), x), [[third, third, 0, third], [0, 0, 0, 0]])
    np.testing.assert_allclose(gradient(x.min(axis=0), x), [[0, 0, 1, 0], [1, 1, 0, 1]])
    a, b = parameter([1.0, 2.0, 3.0]), parameter([1.0, 3.0, 2.0])
    for function, to_a in ((maximum, [0.5, 0, 1]), (minimum, [0.5, 1, 0])):
        np.testing.assert_array_equal(gradient(function(a, b), a), to_a)
        np.testing.assert_array_equal(gradient(function(a, b), b), 1 - np.array(to_a))


def test_at_zero_kinks_have_the_gradient_that_is_documented():
    x = parameter([0.0, -0.0])
    np.testing.assert_array_equal(gradient(relu(x), x), [0, 0])
    np.testing.assert_array_equal(gradient(abs(x), x), [0, 0])
    np.testing.assert_array_equal(gradient(x**0, x), [0, 0])
    np.testing.assert_array_equal(gradient(x**1, x), [1, 1])
    np.testing.assert_allclose(gradient(softplus(x), x), [0.5, 0.5])


def test_targets_as_classes_and_as_one_hot_rows_mean_the_same(rng):
    logits = parameter(rng.standard_normal((4, 2, 5)))
    classes = rng.integers(0, 5, (4, 2))
    by_class, by_row = cross_entropy(logits, classes), cross_entropy(logits, one_hot(classes, 5, "float64"))
    assert by_class.item() == by_row.item()
    np.testing.assert_array_equal(gradient(by_class, logits), gradient(by_row, logits))
    probabilities = np.exp(logits.value) / np.exp(logits.value).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(probabilities, classes[..., None], -1)).mean()
    np.testing.assert_allclose(by_class.value, expected, rtol=1e-13)


def test_a_mask_leaves_places_out_of_the_loss(rng):
    logits, classes = parameter(rng.standard_normal((4, 3))), rng.integers(0, 3, 4)
    mask = np.array([True, False, True, False])
    loss = cross_entropy(logits, classes, mask)
    np.testing.assert_allclose(loss.value, cross_entropy(logits.value[mask], classes[mask]).value, rtol=1e-14)
    slope = gradient(loss, logits)
    assert not slope[~mask].any() and slope[mask].any()
    nothing = cross_entropy(logits, classes, np.zeros(4, bool))
    assert nothing.item() == 0 and not gradient(nothing, logits).any()


LOSSES = {
    "class too large": (lambda z: cross_entropy(z, [0, 3]), InputError, r"outside the classes, 0 … 2"),
    "class below zero": (
        lambda z: cross_entropy(z, [0, -1]),
        InputError,
        r"index -1 at \(1,\) outside the classes, 0 … 2",
    ),
    "too few classes": (
        lambda z: cross_entropy(z, [0]),
        ShapeError,
        r"\(1,\) int64 do not fit logits 'z' \(2, 3\)",
    ),
    "misshapen rows": (
        lambda z: cross_entropy(z, np.ones((2, 4))),
        ShapeError,
        r"\(2, 4\) .*logits 'z' \(2, 3\)",
    ),
    "mse broadcast": (
        lambda z: mse(z, np.ones((2, 1))),
        ShapeError,
        r"'z' \(2, 3\) .*\(2, 1\).*must be the same",
    ),
}


@pytest.mark.parametrize(("call", "kind", "words"), LOSSES.values(), ids=LOSSES)
def test_targets_that_do_not_fit_are_refused(call, kind, words):
    with pytest.raises(kind, match=words):
        call(Tensor(np.ones((2, 3)), requires_grad=True, name="z"))


def test_compositions_against_plain_numpy(rng):
    x, gain, bias = rng.standard_normal((2, 3, 5)), rng.standard_normal(5), rng.standard_normal(5)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain + bias
    np.testing.assert_allclose(layer_norm(Tensor(x), gain, bias).value, expected, rtol=1e-12)
    np.testing.assert_allclose(softplus(Tensor(x)).value, np.log1p(np.exp(x)), rtol=1e-13)
    np.testing.assert_allclose(
        softmax(Tensor(x), 1).value, np.exp(x) / np.exp(x).sum(1, keepdims=True), rtol=1e-13
    )
    np.testing.assert_allclose(mse(Tensor(x), x + 2).value, 4, rtol=1e-13)
    rows, index = rng.standard_normal((3, 2)), np.array([1, 1, 3])
    np.testing.assert_array_equal(scatter(rows, index, 4).value, [[0, 0], rows[0] + rows[1], [0, 0], rows[2]])
    np.testing.assert_array_equal(gather(rows, index % 3).value, rows[index % 3])


# Empty batches: N = 0 sequences, or no rows at all.

EMPTY = {
    "element by element": lambda x: tanh(x) * sigmoid(x) + x,
    "product": lambda x: matmul(x, np.ones((3, 2))),
    "sum over nothing": lambda x: x.sum(axis=0),
    "sum": lambda x: x.sum(),
    "softmax": softmax,
    "maximum over what is there": lambda x: x.max(axis=1),
    "layer norm": layer_norm,
    "parts": lambda x: minigrad.concat(x, x[:, :1], axis=1),
    "rows": lambda x: gather(np.ones((2, 3)), np.zeros(0, int)) * x,
    "masked loss": lambda x: cross_entropy(x, np.zeros(0, int), np.zeros(0, bool)),
}


@pytest.mark.parametrize("function", EMPTY.values(), ids=EMPTY)
def test_an_empty_batch_has_values_and_gradients(function):
    x = parameter(np.zeros((0, 3)))
    y = function(x)
    assert gradient(y, x).shape == (0, 3) and np.isfinite(y.value).all()


def test_every_elementwise_operation_takes_an_empty_batch():
    for op in OPS.values():
        if op.kind == "elementwise" and not op.params:
            count = sum(f"{{{k}}}" in op.source for k in range(3))
            bits = op.name in ("and", "or", "xor")
            given = [
                Tensor(np.zeros((0, 3), bool if bits or (op.name == "where" and k == 0) else float))
                for k in range(count)
            ]
            assert minigrad.tensor.apply(op, tuple(given)).shape == (0, 3), op.name
