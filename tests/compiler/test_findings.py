"""Unusual programs in which a rewrite or a rule has to look twice: compiled is still what eager is."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigrad as mg
from cells import CELLS, run
from minigrad.compiler import compile

pytestmark = pytest.mark.as_shipped


def drawn(*shape, seed=0):
    return mg.Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True, name=f"x{seed}")


def same(function, *arguments, more=()):
    """Value and gradients, at the sizes given and at those of `more` with the same program or another."""
    compiled = compile(function)
    for now in (arguments, *more):
        leaves = [a for a in {a.number: a for a in now}.values() if a.requires_grad]
        for a in leaves:
            a.grad = None
        loss = function(*now)
        loss.backward()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value, gradients = compiled.value_and_grad(*now)
        np.testing.assert_allclose(value.value, loss.value, rtol=1e-12)
        for a in leaves:
            np.testing.assert_allclose(gradients[a], a.grad, rtol=1e-11, atol=1e-13)
    return compiled


@pytest.mark.parametrize(
    "part",
    [lambda a: a[-2:], lambda a: a[:-1], lambda a: a[1:], lambda a: a[:5], lambda a: a[0], lambda a: a[-1], lambda a: a[1:3],
     lambda a: a[::2], lambda a: a[::-1], lambda a: a[:-1] * a[1:], lambda a: a[:, None, -1]],
)  # fmt: skip
def test_slices_of_sizes_that_are_not_known(part):
    same(lambda a: (part(a) ** 2).sum(), drawn(3, 4), more=[(drawn(7, 4),), (drawn(4, 4),)])
    with warnings.catch_warnings(), pytest.raises(mg.InputError):
        warnings.simplefilter("ignore")
        compile(lambda a: a[7].sum())(np.ones((3, 4)))


def test_bounds_that_no_longer_hold_are_traced_again():
    compiled = compile(lambda a: a[4].sum())
    assert compiled(np.ones((6, 2))).item() == 2
    with pytest.raises(mg.InputError, match="index 4 outside"):
        compiled(np.ones((3, 2)))


def test_the_same_tensor_twice():
    a, b = drawn(3), drawn(3, seed=1)
    same(lambda p, q: (p * q * q).sum(), a, a)
    same(lambda p: (p * p * b).sum(), b)


def test_a_capture_as_output_of_a_scan():
    k = drawn(3, seed=2)

    def function(x, k):
        h, o = mg.scan(lambda c, x: (c * 0.5 + x * k, k), mg.zeros((2, 3), "float64"), x)
        return (h * h).sum() + (o * o).sum()

    same(function, drawn(5, 2, 3), k)


def test_terms_of_smaller_shape_in_a_hoisted_sum():
    W = drawn(4, 3, seed=3)
    same(
        lambda x, h: mg.scan(lambda h, x: (mg.tanh(x @ W + h), None), h, x)[0].sum(),
        drawn(2, 1, 4),
        drawn(3, 3, seed=4),
    )


def test_broadcast_in_a_sum_over_steps():
    step = lambda c, x: (c + x.sum(axis=0, keepdims=True), None)  # noqa: E731
    same(lambda x: (mg.scan(step, mg.zeros((x.shape[1], 3), "float64"), x)[0] ** 2).sum(), drawn(3, 2, 3))


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_transposes_that_move_nothing(axes):
    step = lambda c, xy: (c + xy[0].transpose(*axes) @ xy[1], None)  # noqa: E731
    same(
        lambda x, y: mg.scan(step, mg.zeros((2, 2), "float64"), (x, y))[0].sum(),
        drawn(3, 2, 2),
        drawn(3, 2, 2, seed=1),
    )


def test_batches_that_broadcast():
    same(
        lambda w, x: mg.matmul(w.transpose(0, 2, 1), x).sum(axis=0).sum(),
        drawn(1, 3, 2),
        drawn(4, 3, 5, seed=1),
    )


def test_a_number_from_outside_is_looked_up():
    s = mg.Tensor(0.5, dtype="float64")
    compiled = compile(lambda x: (x * s).sum())
    x = np.arange(4.0)
    assert compiled(x).item() == 3
    s.value = 2.0
    assert compiled(x).item() == 12


@pytest.mark.parametrize(
    "function",
    [lambda a: (a > 3).sum(), lambda a: a / a.sum(), lambda a: (a * 1) ** 0.5, lambda a: mg.exp(a), lambda a: (a > 3).mean(),
     lambda a: a.mean(), lambda a: a + 1, lambda a: a.max(), lambda a: mg.where(a > 2, 1, a)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_integers_become_what_numpy_makes_of_them(function, dtype):
    a = np.arange(1, 7).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, right = compile(function)(a).value, function(mg.Tensor(a)).value
    assert ours.dtype == right.dtype
    np.testing.assert_allclose(ours, right, rtol=1e-14)


def test_an_embedding_inside_the_step():
    table, codes = drawn(5, 3, seed=5), np.random.default_rng(0).integers(0, 5, (6, 2))
    cell = CELLS["lstm"](3, 4, np.random.default_rng(1), "float64")

    def step(carry, code):
        q = cell.step(mg.gather(table, code), *carry)
        return (q["h"], q["c"]), q["h"]

    def function(codes):
        first = mg.zeros((codes.shape[1], 4), "float64"), mg.zeros((codes.shape[1], 4), "float64")
        return (mg.scan(step, first, codes)[1] ** 2).sum()

    loss = function(mg.Tensor(codes))
    loss.backward()
    value, gradients = compile(function).value_and_grad(codes)
    np.testing.assert_allclose(value.value, loss.value, rtol=1e-12)
    np.testing.assert_allclose(gradients[table], table.grad, rtol=1e-11)


def test_operands_that_are_computed_before_a_scan():
    cell = CELLS["lstm"](3, 4, np.random.default_rng(1), "float64")
    x = drawn(5, 2, 3)
    function = lambda x: (run(cell, x * 2.0).h ** 2).sum()  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(compile(function)(x).value, function(x).value, rtol=1e-12)


def test_anomaly_mode_and_frozen_parameters_are_heeded():
    w = mg.Tensor(np.ones(2), requires_grad=True, name="w")
    compiled = compile(lambda x: (mg.log(x) * w).sum())
    compiled.value_and_grad(np.ones(2))
    with mg.anomaly(), np.errstate(invalid="ignore"), pytest.raises(mg.NonFiniteError, match="log"):
        compiled(-np.ones(2))
    w.requires_grad = False
    with pytest.raises(mg.GraphError, match="no gradient for 'w'"):
        compiled.value_and_grad(np.ones(2))[1][w]


def same_gradients(function, *inputs, leaves):
    for leaf in leaves:
        leaf.grad = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is compiled
        value, gradients = compile(function).value_and_grad(*inputs)
    loss = function(*inputs)
    loss.backward()
    np.testing.assert_allclose(value.value, loss.value, rtol=1e-12)
    for leaf in leaves:
        np.testing.assert_allclose(gradients[leaf], leaf.grad, rtol=1e-10, atol=1e-12 * abs(leaf.grad).max())


@pytest.mark.parametrize("bias", [False, True])
def test_a_product_in_the_step_meets_a_larger_capture(bias):
    """Attention: (N, A) + (L, N, A) inside the step, where the capture is itself made of a capture."""
    N, H, D, A, L = 3, 4, 2, 5, 6
    W, U, b, v, W_h = (
        drawn(H, A),
        drawn(H, A, seed=1),
        drawn(A, seed=2),
        drawn(A, seed=3),
        drawn(2 * H + D, H, seed=4),
    )
    memory, xs = drawn(L, N, H, seed=5), drawn(7, N, D, seed=6)

    def function(xs, memory):
        L, N = memory.shape[:2]
        keys = memory @ U + b if bias else memory @ U

        def step(s, x):
            alpha = mg.softmax(mg.tanh(s @ W + keys) @ v, axis=0)
            context = (alpha.reshape((L, N, 1)) * memory).sum(axis=0)
            y = mg.tanh(mg.concat(s, x, context) @ W_h)
            return y, y

        return (mg.scan(step, mg.zeros((N, H), "float64"), xs)[1] ** 2).sum()

    same_gradients(function, xs, memory, leaves=[W, U, v, W_h, memory, xs, *([b] if bias else [])])


def test_a_view_of_a_sum_is_kept_for_all_steps():
    W, K, xs = drawn(4, 5), drawn(6, 3, 5, seed=1), drawn(7, 3, 2, seed=2)

    def function(xs):
        def step(s, x):
            e = mg.tanh(s @ W + K).sum(axis=0).sum(axis=-1, keepdims=True)
            y = mg.tanh(s) * e + x.sum(axis=-1, keepdims=True)
            return y, y

        return mg.scan(step, mg.zeros((xs.shape[1], 4), "float64"), xs)[1].sum()

    same_gradients(function, xs, leaves=[W, K])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("T", [1, 4, 5, 9])
def test_a_convolution_reads_shifted_rows_where_they_stand(causal, T):
    """Also where the taps reach beyond the sequence, and where what was shifted is wanted for something else."""
    W, b, V = drawn(5, 3, 4), drawn(4, seed=1), drawn(3, 4, 2, seed=2)

    def function(x):
        a = mg.relu(mg.conv1d(x, W, 2, causal) + b)
        late = mg.shift(a, 1)
        return (mg.conv1d(a, V, 1, causal) ** 2).sum() + (
            late @ V[0] * late.sum(axis=-1, keepdims=True)
        ).sum()

    part = drawn(T, 2, 3, seed=4)
    same_gradients(function, part, leaves=[W, b, V, part])
    if T > 1:
        compiled = compile(function, threads=2)
        np.testing.assert_allclose(compiled(part).value, function(part).value, rtol=1e-12)


def test_layers_that_repeat_are_written_once():
    layers = [(drawn(3, 4, 4, seed=k), drawn(4, seed=9 + k)) for k in range(4)]
    x = drawn(11, 2, 4, seed=30)

    def function(x):
        for k, (W, b) in enumerate(layers):
            x = mg.tanh(mg.conv1d(x, W, 2**k) + b) + x
        return (x**2).sum()

    same_gradients(function, x, leaves=[p for layer in layers for p in layer])
    compiled = compile(function)
    compiled.value_and_grad(x)
    assert "times over" in compiled.source and compiled.source.count("matmul_shifted(") < 4 * 2 * 2


def test_right_operands_of_one_array_in_two_shapes_are_packed_apart():
    U, W, x, y, z = (
        drawn(4, 6),
        drawn(3, 4, 6, seed=1),
        drawn(3, 4, seed=2),
        drawn(5, 6, seed=3),
        drawn(5, 12, seed=4),
    )
    same(lambda x, y: (x @ U).sum() + (y @ U.reshape(6, 4)).sum(), x, y)
    same(lambda x, z: (x @ W[0]).sum() + (z @ W.reshape(12, 6)).sum(), x, z)


@pytest.mark.parametrize("name", ["at", "i", "h_step", "permute", "inf"])
def test_arguments_may_have_any_name(name):
    """Their sizes and arrays are named after them, and so are offsets, counters and functions."""
    W, xs, z = drawn(4, 4), drawn(5, 3, 4, seed=1), drawn(7, 4, seed=2)

    def body(xs, z):
        def step(h, x):
            h = mg.tanh(x + h @ W).named("h")
            return h, h

        h, _ = mg.scan(step, mg.zeros((xs.shape[1], 4), "float64"), xs)
        return (h * h).sum() + (z @ W).sum()

    made: dict = {}
    exec(f"def function(xs, {name}): return body(xs, {name})", {"body": body}, made)
    same_gradients(made["function"], xs, z, leaves=[W, xs, z])


def test_constants_that_are_not_finite_are_told_apart():
    m, q = drawn(4, 5), drawn(5, 5, seed=1)

    def function(m, q):
        n = m @ q
        return mg.where(m > 0, m, float("inf")).max(axis=1), mg.where(n @ q > 0, n @ q, float("nan"))

    for ours, right in zip(compile(function)(m, q), function(m, q), strict=True):
        np.testing.assert_allclose(ours.value, right.value, rtol=1e-12)


def test_a_scan_may_start_from_infinity():
    def function(xs):
        def step(h, x):
            h = mg.maximum(h, x)
            return h, h

        return mg.scan(step, mg.broadcast_to(mg.Tensor(np.float64("-inf")), (2, 3)), xs)[1]

    xs = drawn(4, 2, 3)
    np.testing.assert_array_equal(compile(function)(xs).value, function(xs).value)


def test_weight_gradients_of_two_dtypes_run_eagerly_and_say_so():
    W, V = drawn(4, 4), mg.Tensor(np.ones((4, 4), "float32"), requires_grad=True)
    x = drawn(3, 4, seed=1)
    compiled = compile(lambda x: (x @ W).sum() + ((x.astype("float32") @ V) ** 2).sum().astype("float64"))
    with pytest.warns(UserWarning, match="float32 and in float64"):
        _, gradients = compiled.value_and_grad(x)
    np.testing.assert_allclose(gradients[W], x.value.T @ np.ones((3, 4)), rtol=1e-12)
