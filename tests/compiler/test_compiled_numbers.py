"""Compiled numbers that are easily got wrong: minima, NaN, long float32 sums, losses at the edges, slices."""

from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, compile
from minigrad.tensor import apply

pytestmark = pytest.mark.as_shipped

both = pytest.mark.parametrize("dtype", ["float32", "float64"])
EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-30,
    -1e-30,
    -0.75,
    20.0,
    -20.0,
    1e4,
    -1e4,
    np.inf,
    -np.inf,
    np.nan,
    3.0,
    -0.5,
]


def agree(function, *arrays, leaves=(), tolerance=1e-14):
    """Values, and gradients of the first result with respect to `leaves`, compiled and eager."""
    with np.errstate(all="ignore"):
        expected = function(*map(Tensor, arrays))
        slopes = mg.grad(expected[0], leaves) if leaves else ()
    if leaves:
        compiled, found = compile(function).value_and_grad(*arrays)
        for leaf, slope in zip(leaves, slopes, strict=True):
            np.testing.assert_allclose(found[leaf], slope.value, rtol=tolerance, atol=tolerance)
    else:
        compiled = compile(function)(*arrays)
    for ours, right in zip(compiled, expected, strict=True):
        assert ours.dtype == right.dtype
        np.testing.assert_allclose(ours.value, right.value, rtol=tolerance)


@both
def test_elementwise_operations_at_the_edges(dtype):
    def function(x, y):
        return (mg.minimum(x, y), mg.minimum(x, 0.5), mg.maximum(-0.5, x), mg.softplus(x), mg.log1p(x), mg.relu(x),
                mg.minimum(mg.maximum(x, -1.0), 1.0))  # fmt: skip

    x = np.array(EDGES, dtype)
    agree(function, x, x[::-1].copy(), tolerance=4 * np.finfo(dtype).eps)


def every_elementwise(kinds: str):
    """All operations of the table that take numbers of such a kind, without parameters."""
    taken = []
    for op in mg.OPS.values():
        if op.kind == "elementwise" and not op.params and op.name != "where":
            count = op.source.count("{1}") > 0
            ones = [np.ones(1, f"{k}8" if k != "b" else "?") for k in kinds] * 2
            try:
                apply(op, tuple(map(Tensor, ones[: 2 if count else 1])))
            except mg.DTypeError:
                continue
            taken.append((op, 2 if count else 1))
    return taken


@both
def test_every_elementwise_operation_at_every_pair_of_edges(dtype):
    edges = np.array([*EDGES, 7.0, -7.0, 2.5, 1e-3, 1e30, 0.1], dtype)
    x, y = (a.ravel().copy() for a in np.meshgrid(edges, edges))
    for op, count in every_elementwise("f"):
        given = (x, y)[:count]
        agree(lambda *xs, op=op: (apply(op, xs),), *given, tolerance=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool"])
def test_every_elementwise_operation_of_whole_numbers(dtype):
    limits = [] if dtype == "bool" else [np.iinfo(dtype).min, np.iinfo(dtype).max]
    edges = np.array([0, 1, -1, 2, 3, -7, 12, *limits]).astype(dtype)
    x, y = (a.ravel().copy() for a in np.meshgrid(edges, edges))
    for op, count in every_elementwise("b" if dtype == "bool" else "i"):
        given = (x, y)[:count]
        if op.name == "pow":
            continue  # refused: see test_ops
        with np.errstate(all="ignore"):
            right = apply(op, tuple(map(Tensor, given)))
        if right.dtype.itemsize in (1, 2) and right.dtype != "bool":
            continue  # float16 and int8, of booleans
        [found] = list(compile(lambda *xs, op=op: (apply(op, xs),))(*given))
        assert found.dtype == right.dtype
        np.testing.assert_allclose(found.value, right.value, rtol=1e-13, err_msg=op.name)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_minima_over_any_axes(dtype, rng):
    x = rng.integers(-100, 100, (3, 5, 4)).astype(dtype)
    if x.dtype.kind == "f":
        x[0, 1, 2], x[1, 0, 0], x[2] = np.nan, -np.inf, np.inf
    agree(
        lambda x: (x.min(), x.min(axis=2), x.min(axis=0), x.min(axis=1, keepdims=True), x.min(axis=(1, 2))), x
    )


def test_minima_and_norms_and_their_gradients(rng):
    W = Tensor(rng.standard_normal((3, 4)), requires_grad=True)
    V = np.array([[1.0], [0.0], [2.0]])

    def loss(x):
        rows = W * x
        return ((rows.min(axis=0) ** 2).sum() + (mg.norm(rows, 1) * 2).sum() + mg.minimum(W, 0.1).sum(),)

    agree(loss, V, leaves=[W], tolerance=1e-12)


@both
def test_losses_of_ignored_masked_and_impossible_places(dtype, rng):
    W = Tensor(rng.standard_normal((4, 5)), requires_grad=True, dtype=dtype)
    x, y = rng.standard_normal((6, 3, 4)).astype(dtype), rng.integers(0, 5, (6, 3))
    y[1], y[4, 2] = -1, -1
    mask = rng.random((6, 3)) < 0.8

    def loss(x, y, mask):
        return (mg.cross_entropy(x @ W, y, mask, ignore_index=-1),)

    agree(loss, x, y, mask, leaves=[W], tolerance=1e-5 if dtype == "float32" else 1e-12)
    nothing = compile(lambda x, y: mg.cross_entropy(x @ W, y, ignore_index=-1))
    assert nothing(x, np.full((6, 3), -1)).item() == 0
    assert nothing(x, y).item() == pytest.approx(mg.cross_entropy(x @ W, y, ignore_index=-1).item(), rel=1e-5)


@both
def test_rows_of_minus_infinity_and_weights_that_are_no_distribution(dtype):
    inf = np.inf
    x = np.array(
        [[0.5, -1, 2], [-inf, 3, -inf], [-inf] * 3, [1e30, -1e30, 0], [1e6, 1e6 + 1, 1e6 + 2]], dtype
    )
    t = np.array([[0.5, 0.25, 0.5], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]], dtype)

    def function(x, t):
        return mg.softmax(x), mg.log_softmax(x), mg.cross_entropy(x, t), mg.logsumexp(x, 0), mg.softmax(x, 0)

    agree(function, x, t, tolerance=8 * np.finfo(dtype).eps)


def test_sums_over_many_float32_numbers():
    columns, rows = np.full((2_000_000, 5), 0.1, "f4"), np.full((5, 2_000_000), 0.1, "f4")
    exact = float(np.float32(0.1))
    for x, axis in ((columns, 0), (columns, None), (rows, 1), (rows, None)):
        total, average = compile(lambda x, a=axis: (x.sum(axis=a), x.mean(axis=a)))(x)
        np.testing.assert_allclose(total.value, exact * (x.size if axis is None else 2_000_000), rtol=1e-6)
        np.testing.assert_allclose(average.value, exact, rtol=1e-6)


def test_a_mean_of_large_integers_and_counts_of_booleans():
    x = np.full((3, 2), 2**30, "i4")
    agree(lambda x: (x.mean(), x.mean(axis=0), mg.logsumexp(x - 2**30 + 3)), x)


def test_slices_of_sizes_that_are_known():
    W = Tensor(np.arange(12.0).reshape(3, 4), requires_grad=True)
    parts = [
        slice(-4, None, -1),
        slice(9, None, -2),
        slice(None, -9, -1),
        slice(1, -9, -1),
        slice(5, 9),
        slice(0, 3, 2),
    ]

    def function(x):
        ys = [y for p in parts for y in (W[p], W[:, p])]
        return (sum(((k + 1) * (y * y).sum() for k, y in enumerate(ys)), x), *(y * 2 for y in ys if y.size))

    agree(function, np.array(1.0), leaves=[W])


def test_a_slice_that_leaves_nothing_of_a_shorter_sequence():
    inner = compile(lambda x: (x[1:-1].sum(axis=0), x[2:-2] * 2))
    for T in (7, 4, 5, 3, 2):
        x = np.arange(T * 2.0).reshape(T, 2)
        total, part = inner(x)
        np.testing.assert_array_equal(total.value, x[1:-1].sum(axis=0))
        np.testing.assert_array_equal(part.value, x[2:-2] * 2)


def test_no_gradient_flows_through_whole_numbers_in_a_loop_that_counts(rng):
    W = Tensor([2.5, -1.5], requires_grad=True)
    first = (Tensor(np.zeros(1, np.int64)), Tensor(np.zeros((3, 2))))  # the first of the carries is a counter

    def step(carry, x):
        count, h = carry
        whole = (W * x * 3).astype("int64")
        return (
            count + 1,
            0.5 * h + W * x + whole.astype("float64") + mg.maximum(whole, 1).astype("float64"),
        ), None

    def loss(xs):
        (count, h), _ = mg.scan(step, first, xs)
        return (h**2).sum(), count

    agree(loss, rng.standard_normal((4, 3, 2)), leaves=[W], tolerance=1e-12)
