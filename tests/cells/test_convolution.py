"""Dense and convolutional layers: against loops in NumPy, finite differences and PyTorch, random weights and
biases; compiled is eager; and what does not fit is named.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigrad as mg
from cells import Conv1d, Dense, Output, weight_norm
from minigrad import DTypeError, InputError, ShapeError, Tensor, check_grads, checkpoint, tanh

T, N, D, K = 9, 3, 4, 5
# taps, dilation, causal; the last two reach beyond the sequence
KINDS = [(1, 1, False), (3, 1, False), (5, 2, False), (2, 1, True), (3, 2, True), (3, 5, True), (5, 4, False)]
every_kind = pytest.mark.parametrize(("taps", "dilation", "causal"), KINDS)


def with_random_biases(layer, rng):
    for p in layer.parameters().values():
        p.value = p.value + 0.3 * rng.standard_normal(p.shape)
    return layer


def conv(rng, taps, dilation, causal, dtype="float64"):
    return with_random_biases(Conv1d(D, K, taps, rng, dilation, causal, dtype), rng)


def dense(rng, dtype="float64", activation=tanh):
    return with_random_biases(Dense(D, K, rng, activation, dtype), rng)


def assert_close(ours, theirs, bound, what=""):
    """Relative to the largest number of the array: single elements may be sums that cancel."""
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
    assert ours.shape == theirs.shape, what
    assert abs(ours - theirs).max() <= bound * max(1.0, abs(theirs).max()), what


def oracle():
    return pytest.importorskip("torch", reason="PyTorch is the oracle here: `make torch` installs it")


# Values and gradients.


@pytest.mark.smoke
@every_kind
def test_a_convolution_is_what_its_definition_says(taps, dilation, causal, rng):
    layer, x = conv(rng, taps, dilation, causal), rng.standard_normal((T, N, D))
    newest = 0 if causal else dilation * (taps - 1) // 2  # how far the last tap lies after the step
    expected = np.tile(layer.b.value, (T, N, 1))
    for t in range(T):
        for j in range(taps):
            seen = t + newest - (taps - 1 - j) * dilation
            if 0 <= seen < T:
                expected[t] += x[seen] @ layer.W.value[j]
    assert_close(layer(x).value, expected, 1e-13)


@every_kind
def test_gradients_of_a_convolution_match_finite_differences(taps, dilation, causal, rng):
    layer = conv(rng, taps, dilation, causal)

    def function(x, W, b):
        layer.W, layer.b = W, b
        return tanh(layer(x))

    points = [rng.standard_normal((T, N, D)), layer.W.value, layer.b.value]
    assert check_grads(function, points, tolerance=1e-7, complex_step=False) <= 1e-7


@pytest.mark.oracle
@every_kind
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
def test_a_convolution_equals_pytorchs(taps, dilation, causal, dtype, bound, rng):
    torch = oracle()
    layer = conv(rng, taps, dilation, causal, dtype)
    x = Tensor(rng.standard_normal((T, N, D)), requires_grad=True, dtype=dtype)
    weigh = rng.standard_normal((T, N, K)).astype(dtype)
    x_t, W_t, b_t = (torch.tensor(a.value, requires_grad=True) for a in (x, layer.W, layer.b))
    reach = (taps - 1) * dilation
    padded = torch.nn.functional.pad(x_t.permute(1, 2, 0), (reach, 0) if causal else (reach // 2, reach // 2))
    y_t = torch.nn.functional.conv1d(padded, W_t.permute(2, 1, 0), b_t, dilation=dilation).permute(2, 0, 1)
    (y_t * torch.tensor(weigh)).sum().backward()
    y = layer(x)
    (y * weigh).sum().backward()
    assert y.dtype == dtype
    assert_close(y.value, y_t, bound, "y")
    for name, ours, theirs in (("x", x, x_t), ("W", layer.W, W_t), ("b", layer.b, b_t)):
        assert ours.grad.dtype == dtype
        assert_close(ours.grad, theirs.grad, bound, f"gradient of {name}")


@pytest.mark.oracle
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
def test_a_dense_layer_equals_pytorchs(dtype, bound, rng):
    torch = oracle()
    layer = dense(rng, dtype)
    x = Tensor(rng.standard_normal((T, N, D)), requires_grad=True, dtype=dtype)
    weigh = rng.standard_normal((T, N, K)).astype(dtype)
    x_t, W_t, b_t = (torch.tensor(a.value, requires_grad=True) for a in (x, layer.W, layer.b))
    y_t = torch.tanh(torch.nn.functional.linear(x_t, W_t.T, b_t))
    (y_t * torch.tensor(weigh)).sum().backward()
    y = layer(x)
    (y * weigh).sum().backward()
    assert_close(y.value, y_t, bound, "y")
    for name, ours, theirs in (("x", x, x_t), ("W", layer.W, W_t), ("b", layer.b, b_t)):
        assert_close(ours.grad, theirs.grad, bound, f"gradient of {name}")


@pytest.mark.smoke
def test_a_dense_layer_takes_any_number_of_axes_before_the_last(rng):
    layer, x = dense(rng), rng.standard_normal((T, N, D))
    expected = np.tanh(x @ layer.W.value + layer.b.value)
    for part, same in ((x, expected), (x[0], expected[0]), (x[0, 0], expected[0, 0])):
        assert_close(layer(part).value, same, 1e-13)
    linear = dense(rng, activation=None)
    assert_close(linear(x).value, x @ linear.W.value + linear.b.value, 1e-13)


@pytest.mark.smoke
def test_gradients_of_a_dense_layer_match_finite_differences(rng):
    layer = dense(rng)

    def function(x, W, b):
        layer.W, layer.b = W, b
        return layer(x)

    points = [rng.standard_normal((N, D)), layer.W.value, layer.b.value]
    assert check_grads(function, points, tolerance=1e-7, complex_step=False) <= 1e-7


@pytest.mark.smoke
def test_the_output_layer_is_a_dense_layer_with_the_names_of_the_lecture(rng):
    output = with_random_biases(Output(D, K, rng), rng)
    same = Dense(D, K, rng)
    same.load_state_dict({"W": output.W_y.value, "b": output.b_y.value})
    assert list(output.parameters()) == ["W_y", "b_y"] and list(same.parameters()) == ["W", "b"]
    x = rng.standard_normal((N, D)).astype("f4")
    np.testing.assert_array_equal(output(x).value, same(x).value)


@pytest.mark.smoke
def test_normed_weights_have_the_length_g_for_each_output(rng):
    v, g = rng.standard_normal((3, D, K)), rng.standard_normal(K)
    W = weight_norm(Tensor(v), Tensor(g)).value
    for k in range(K):
        assert np.linalg.norm(W[:, :, k]) == pytest.approx(abs(g[k]), rel=1e-13)
        assert_close(W[:, :, k] / g[k], v[:, :, k] / np.linalg.norm(v[:, :, k]), 1e-13)
    assert check_grads(weight_norm, [v, g], tolerance=1e-6, complex_step=False) <= 1e-6


def test_compiled_is_eager(rng):
    inner, middle = conv(rng, 3, 2, False), with_random_biases(Dense(K, K, rng, tanh, "float64"), rng)
    last = with_random_biases(Output(K, 2, rng, "float64"), rng)

    def loss(x):
        y = last(middle(inner(x)))
        return (y * y * y).sum()

    x = Tensor(rng.standard_normal((T, N, D)), requires_grad=True)
    leaves = [x, *(p for part in (inner, middle, last) for p in part.parameters().values())]
    expected = loss(x)
    expected.backward()
    compiled = mg.compile(loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # falling back to the eager run would warn
        value, found = compiled.value_and_grad(x)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    for p in leaves:
        assert_close(found[p], p.grad, 1e-12, p.name)
    other = Tensor(rng.standard_normal((2 * T, 2, D)), requires_grad=True)
    assert compiled.value_and_grad(other)[0].item() == pytest.approx(loss(other).item(), rel=1e-12)
    assert sum(map(len, compiled.variants.values())) == 1, "other sizes compile nothing anew"


# What a learner sees, and what is refused.


@pytest.mark.smoke
def test_a_convolution_prints_what_it_sees(rng):
    text = repr(Conv1d(2, 3, 5, rng, dilation=4))
    assert text.splitlines()[0] == (
        "Conv1d, 33 parameters, float32; 2 inputs, width 3, dilation 4, receptive field 17"
    )
    assert "causal" in repr(Conv1d(2, 3, 4, rng, causal=True))


@pytest.mark.smoke
def test_the_first_weights_are_drawn_in_the_bound_of_glorot_and_bengio(rng):
    for W, fan in ((Conv1d(20, 30, 5, rng).W, 5 * (20 + 30)), (Dense(200, 300, rng).parameters()["W"], 500)):
        bound = np.sqrt(6 / fan)
        assert 0.98 * bound < abs(W.value).max() <= bound
        assert W.value.std() == pytest.approx(bound / np.sqrt(3), rel=0.03)


@pytest.mark.smoke
def test_same_seed_same_weights_and_checkpoints_come_back_bit_for_bit(rng, tmp_path):
    for make in (lambda r: Conv1d(D, K, 3, r), lambda r: Dense(D, K, r, tanh)):
        one, other = make(np.random.default_rng(5)), make(np.random.default_rng(5))
        for a, b in zip(one.parameters().values(), other.parameters().values(), strict=True):
            np.testing.assert_array_equal(a.value, b.value)
        checkpoint.save(tmp_path / "layer.safetensors", with_random_biases(one, rng).parameters())
        other.load(tmp_path / "layer.safetensors")
        x = rng.standard_normal((T, N, D)).astype("f4")
        np.testing.assert_array_equal(one(x).value, other(x).value)


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(0, N, D), (T, 0, D), (1, 1, D)])
def test_no_steps_no_sequences_and_a_single_step(shape, rng):
    for layer, out in ((conv(rng, 5, 3, False), K), (conv(rng, 4, 3, True), K), (dense(rng), K)):
        x = Tensor(np.ones(shape), requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert y.shape == (*shape[:2], out) and x.grad.shape == shape and np.isfinite(y.value).all()


BAD_MAKES = {
    "even taps": (
        lambda r: Conv1d(D, K, 4, r),
        "Conv1d: 4 taps have no middle; give an odd number, or causal",
    ),
    "no taps": (lambda r: Conv1d(D, K, 0, r), "Conv1d: taps = 0"),
    "no dilation": (lambda r: Conv1d(D, K, 3, r, dilation=0), "Conv1d: dilation = 0"),
    "half a step": (lambda r: Conv1d(D, K, 3, r, dilation=1.5), "Conv1d: dilation = 1.5"),
    "no inputs": (lambda r: Conv1d(0, K, 3, r), "Conv1d: inputs = 0"),
    "no width": (lambda r: Dense(D, 0, r), "Dense: width = 0"),
    "activation by name": (lambda r: Dense(D, K, r, "relu"), "Dense: activation = 'relu'; give a function"),
    "a seed": (lambda r: Conv1d(D, K, 3, 7), r"numpy.random.default_rng\(seed\)"),
    "whole numbers": (lambda r: Conv1d(D, K, 3, r, dtype="int32"), "Conv1d: dtype int32"),
}


@pytest.mark.smoke
@pytest.mark.parametrize(("make", "words"), BAD_MAKES.values(), ids=BAD_MAKES)
def test_what_cannot_be_made_is_named(make, words, rng):
    with pytest.raises(InputError, match=words):
        make(rng)


BAD_INPUTS = {
    "width": (np.zeros((T, N, D + 1), "f4"), ShapeError, r"Conv1d: 'x' \(9, 3, 5\).*\(steps, sequences, 4\)"),
    "axes": (np.zeros((N, D), "f4"), ShapeError, r"Conv1d: 'x' \(3, 4\).*\(steps, sequences, 4\)"),
    "type": (np.zeros((T, N, D)), DTypeError, r"Conv1d: x is float64, the layer float32.*astype"),
}


@pytest.mark.smoke
@pytest.mark.parametrize(("x", "kind", "words"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_an_input_that_does_not_fit_is_named(x, kind, words, rng):
    layer = Conv1d(D, K, 3, rng)
    with pytest.raises(kind, match=words):
        layer(x)
    with pytest.raises(kind, match=r"Conv1d: .*the layer"):
        mg.compile(lambda x: layer(x).sum())(x)


@pytest.mark.smoke
def test_an_input_that_does_not_fit_a_dense_layer_is_named(rng):
    for x, words in ((np.zeros((2, 3), "f4"), r"Dense: 'x' \(2, 3\)"), (np.float32(1), r"Dense: 'x' \(\)")):
        with pytest.raises(ShapeError, match=words + r".*\(…, 4\)"):
            Dense(D, K, rng)(x)
    with pytest.raises(DTypeError, match="Dense: x is float64, the layer float32"):
        Dense(D, K, rng)(np.zeros((2, D)))
