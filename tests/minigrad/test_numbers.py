"""Numbers that are easily got wrong: small and unsigned integers, slices from beyond the ends, NaN and infinities,
sums over very many float32 numbers, losses of extreme logits.  What is right comes from NumPy, or from the
definition in float64 or wider.
"""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import minigrad as mg
from minigrad import DTypeError, InputError, MinigradError, ShapeError, Tensor, check_grads, grad
from minigrad.tensor import symbol

WHOLE = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
DTYPES = [*WHOLE, "f2", "f4", "f8"]
quietly = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, of the same operations


def leaf(data, dtype="float64"):
    return Tensor(data, requires_grad=True, dtype=dtype)


def slope(function, x, dtype="float64"):
    x = leaf(x, dtype)
    y = function(x)
    return grad(y, x, np.ones(y.shape, y.dtype)).value


# Slices.


@pytest.mark.smoke
@pytest.mark.parametrize("size", range(6))
def test_every_slice_of_a_short_axis_is_numpys(size):
    bounds = [None, *range(-size - 2, size + 3)]
    data = np.arange(1.0, size + 1)
    x, weights = leaf(data), np.arange(1.0, size + 3) ** 2
    for part in itertools.starmap(slice, itertools.product(bounds, bounds, [None, -3, -2, -1, 1, 2, 3])):
        y = x[part]
        np.testing.assert_array_equal(y.value, data[part], err_msg=str(part))
        expected = np.zeros(size)
        expected[part] = weights[: y.size]
        np.testing.assert_array_equal(grad(y, x, weights[: y.size]).value, expected, err_msg=str(part))


@given(data=st.data(), shape=array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
def test_drawn_slices_of_several_axes_are_numpys(data, shape):
    bound = st.none() | st.integers(-6, 6)
    parts = st.builds(slice, bound, bound, st.sampled_from([None, 1, 2, -1, -2, -5]))
    index = tuple(data.draw(st.lists(parts, max_size=len(shape))))
    values = np.random.default_rng(0).standard_normal(shape)
    x = leaf(values)
    np.testing.assert_array_equal(x[index].value, values[index])
    np.testing.assert_array_equal(symbol(shape, float)[index].shape, values[index].shape)
    expected = np.zeros(shape)
    expected[index] = 1
    np.testing.assert_array_equal(grad(x[index].sum(), x).value, expected)


@pytest.mark.smoke
@pytest.mark.parametrize("part", [slice(None, None, 0), slice(0.5, None), slice(None, "a")])
def test_slices_that_mean_nothing_are_refused(part):
    with pytest.raises(DTypeError, match=r"slice.*slice"):
        leaf([1.0, 2.0])[part]


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", WHOLE[1:])
def test_rows_by_an_index_of_any_integer_type(dtype):
    table = np.arange(600.0).reshape(300, 2)
    index = np.array([[0, 1], [2, 127]], dtype)
    np.testing.assert_array_equal(leaf(table)[index].value, table[index])
    np.testing.assert_array_equal(mg.gather(table, index).value, table[index])
    np.testing.assert_array_equal(mg.one_hot(index, 300).value, np.eye(300)[index])
    if np.dtype(dtype).kind == "i":
        np.testing.assert_array_equal(leaf(table)[-index].value, table[-index])
    np.testing.assert_array_equal(leaf(table)[[]].value, table[[]])


# Every element type through every operation.


def edges(dtype):
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.array([True, False, True, False])
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return np.array([limits.min, limits.max, 0, 1, 7, limits.max // 2], kind)
    f = np.finfo(kind)
    rest = [0, -0.0, 1, -1, 0.5, np.inf, -np.inf, np.nan, 12, -12]
    return np.array([*rest, f.max, f.min, f.tiny, f.smallest_subnormal], kind)


UNARY = {
    "neg": operator.neg, "abs": abs, "exp": (mg.exp, np.exp), "log": (mg.log, np.log), "log1p": (mg.log1p, np.log1p),
    "sqrt": (mg.sqrt, np.sqrt), "sin": (mg.sin, np.sin), "cos": (mg.cos, np.cos), "tanh": (mg.tanh, np.tanh),
    "sign": np.sign, "square": np.square, "sum": lambda x: x.sum(), "mean": lambda x: x.mean(), "max": lambda x: x.max(),
    "min": lambda x: x.min(), "floor": (mg.floor, np.floor), "ceil": (mg.ceil, np.ceil), "round": (mg.round, np.round),
    "expm1": (mg.expm1, np.expm1), "not": operator.invert, "plus": operator.pos, "isnan": np.isnan,
    "isfinite": np.isfinite, "isinf": np.isinf, "prod": np.prod, "cumsum": np.cumsum, "cumprod": np.cumprod,
    "argmax": np.argmax, "argmin": np.argmin, "var": np.var, "NumPy's clip": lambda x: np.clip(x, 1, 5),
    "relu": (mg.relu, lambda x: np.maximum(x, 0)), "clip": (
        lambda x: mg.minimum(mg.maximum(x, 1), 5), lambda x: np.clip(x, 1, 5)),
    **{f"{f} of columns": lambda x, f=f: getattr(x.reshape(2, -1), f)(axis=0) for f in ("sum", "mean", "max", "min")},
    **{f"{f} of rows": lambda x, f=f: getattr(x.reshape(2, -1), f)(axis=1) for f in ("sum", "mean", "max", "min")},
    **{f"power {p}": lambda x, p=p: x**p for p in (0, 1, 2, 3, -1, 0.5, 2.0)},
    **{f"cast to {t}": lambda x, t=t: x.astype(t) for t in DTYPES},
}  # fmt: skip
BINARY = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "gt": operator.gt,
    "ge": operator.ge, "lt": operator.lt, "le": operator.le, "eq": operator.eq, "ne": operator.ne,
    "maximum": (mg.maximum, np.maximum), "minimum": (mg.minimum, np.minimum), "mod": operator.mod,
    "floordiv": operator.floordiv, "pow": operator.pow, "and": operator.and_,
    "or": operator.or_, "xor": operator.xor,
}  # fmt: skip
PAIRS = {
    **BINARY,
    "logaddexp": np.logaddexp,
    "where": (lambda a, b: mg.where(a == b, a, b), lambda a, b: np.where(a == b, a, b)),
    "concat": (lambda a, b: mg.concat(a, b), lambda a, b: np.concatenate([a, b])),
    "stack": (lambda a, b: mg.stack([a, b]), lambda a, b: np.stack([a, b])),
    "matmul": (lambda a, b: a.reshape(2, -1) @ b.reshape(-1, 2),) * 2,
}


def two(function):
    return function if isinstance(function, tuple) else (function, function)


def compare(ours, theirs, *arrays, given=None):
    """The same numbers and element type as NumPy, eagerly and as a symbol; where NumPy has no answer, we refuse."""
    try:
        expected = np.asarray(theirs(*(arrays if given is None else given)))
    except (TypeError, ValueError, OverflowError):
        with pytest.raises(MinigradError):
            ours(*map(Tensor, arrays))
        return
    found = ours(*map(Tensor, arrays))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.value, expected)
    assert ours(*(symbol(a.shape, a.dtype) for a in arrays)).dtype == expected.dtype


@quietly
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_operations_of_one_array_are_numpys_for_every_type(name, dtype):
    compare(*two(UNARY[name]), edges(dtype))


@quietly
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BINARY)
def test_operations_with_python_numbers_are_numpys_for_every_type(name, dtype):
    ours, theirs = two(BINARY[name])
    for number in (0, 1, 3, -1, 300, -300, 2**40, 0.5, True):
        compare(lambda x, n=number: ours(x, n), lambda x, n=number: theirs(x, n), edges(dtype))
        compare(lambda x, n=number: ours(n, x), lambda x, n=number: theirs(n, x), edges(dtype))


@quietly
@pytest.mark.parametrize("name", PAIRS)
def test_operations_of_two_arrays_are_numpys_for_every_two_types(name):
    ours, theirs = two(PAIRS[name])
    for a, b in itertools.product(DTYPES, DTYPES):
        x, y = edges(a), edges(b)[::-1].copy()
        n = min(len(x), len(y)) // 2 * 2
        x, y = x[:n], y[:n]
        if name == "matmul":
            x, y = (np.clip(np.nan_to_num(v), -9, 9) if v.dtype.kind == "f" else v for v in (x, y))
        kinds = x.dtype.kind + y.dtype.kind
        if kinds == "ff" and a != b:  # nothing is promoted silently
            with pytest.raises(DTypeError, match=r"astype"):
                ours(Tensor(x), Tensor(y))
            continue
        given = (x.astype(b) if kinds in ("if", "uf") else x, y.astype(a) if kinds in ("fi", "fu") else y)
        compare(ours, theirs, x, y, given=given)  # integers beside floats take their type


def _softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


IN_FLOATS = {  # what NumPy has no operation for: exact in float64
    "logsumexp": (mg.logsumexp, lambda x: np.logaddexp.reduce(x)),
    "softmax": (mg.softmax, _softmax),
    "masked softmax": (lambda x: mg.softmax(x, mask=np.ones(x.shape, bool)), _softmax),
    "log_softmax": (mg.log_softmax, lambda x: x - np.logaddexp.reduce(x)),
    "softplus": (mg.softplus, lambda x: np.logaddexp(x, 0)),
    "norm": (mg.norm, np.linalg.norm),
    "layer_norm": (mg.layer_norm, lambda x: (x - x.mean()) / np.sqrt(x.var() + 1e-5)),
    "mse": (lambda x: mg.mse(x, x[::-1]), lambda x: ((x - x[::-1]) ** 2).mean()),
    "cross_entropy": (
        lambda x: mg.cross_entropy(x.reshape(1, -1), [1]),
        lambda x: np.logaddexp.reduce(x) - x[1],
    ),
}


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize("name", IN_FLOATS)
def test_compositions_of_whole_numbers_are_computed_in_float64(name, dtype):
    ours, theirs = IN_FLOATS[name]
    x = edges(dtype)[:4]
    found = ours(Tensor(x))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.value, theirs(x.astype(float)), rtol=1e-12, atol=1e-300)


@pytest.mark.smoke
@pytest.mark.parametrize("name", IN_FLOATS)
def test_compositions_of_float16_leave_its_range_only_where_the_result_does(name, rng):
    ours, theirs = IN_FLOATS[name]
    for x in (rng.standard_normal(4), np.array([300.0, 299.0, 301.0, 300.5]), np.full(70_000, 0.25)):
        x = x.astype("f2")
        expected = theirs(x.astype(float))
        if np.abs(expected).max() < 6e4:
            found = ours(Tensor(x))
            assert found.dtype == np.float16
            np.testing.assert_allclose(found.value, expected, rtol=2e-3, atol=1e-7)
    assert np.isfinite(slope(ours, [1.0, 2.0, 2.5, -3.0], "float16")).all()


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", WHOLE)
def test_sigmoid_of_whole_numbers(dtype):
    x = edges(dtype)[:4]
    found = mg.sigmoid(x).value
    with np.errstate(over="ignore"):
        assert found.dtype == np.exp(x).dtype
        np.testing.assert_allclose(
            found, 1 / (1 + np.exp(-x.astype(float))), rtol=2 * np.finfo(found.dtype).eps, atol=1e-7
        )


@pytest.mark.smoke
def test_a_mean_of_large_integers_does_not_overflow():
    assert mg.mean(np.full(8, 2**62)).item() == 2.0**62
    assert (
        mg.mean(np.full(100, 100, "f2")).dtype == "f2" and mg.mean(np.full(70_000, 100, "f2")).item() == 100
    )


@pytest.mark.smoke
def test_a_number_that_does_not_fit_is_refused_with_the_remedy():
    with pytest.raises(DTypeError, match=r"300 does not fit uint8.*'pixels'.*astype"):
        Tensor(np.zeros(3, "u1"), name="pixels") + 300


# NaN, infinities and zeros.

THROUGH = {
    "relu": mg.relu, "softplus": mg.softplus, "maximum": lambda x: mg.maximum(x, 0.5), "max": lambda x: x.max(),
    "other maximum": lambda x: mg.maximum(0.5, x), "minimum": lambda x: mg.minimum(x, 0.5), "min": lambda x: x.min(),
    "other minimum": lambda x: mg.minimum(0.5, x), "logsumexp": mg.logsumexp, "softmax": mg.softmax, "norm": mg.norm,
    "log_softmax": mg.log_softmax, "cross_entropy": lambda x: mg.cross_entropy(x, 0), "sigmoid": mg.sigmoid,
    "tanh": mg.tanh, "layer_norm": mg.layer_norm, "log1p": mg.log1p,
}  # fmt: skip


@pytest.mark.smoke
@quietly
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", THROUGH)
def test_nan_goes_through(name, dtype):
    y = THROUGH[name](Tensor(np.array([0.25, np.nan, 0.75], dtype)))
    assert np.isnan(y.value.ravel()[1 if y.size > 1 else 0]) and y.dtype == dtype


@pytest.mark.smoke
def test_relu_and_softplus_and_their_slopes_at_the_edges():
    x = np.array([-np.inf, -1e4, -1.0, -0.0, 0.0, 1.0, 1e4, np.inf])
    np.testing.assert_array_equal(mg.relu(x).value, [0, 0, 0, 0, 0, 1, 1e4, np.inf])
    np.testing.assert_array_equal(slope(mg.relu, x), [0, 0, 0, 0, 0, 1, 1, 1])
    sigma = [0, 0, 1 / (1 + np.e), 0.5, 0.5, 1 / (1 + np.exp(-1)), 1, 1]
    np.testing.assert_allclose(slope(mg.softplus, x), sigma, rtol=1e-15)
    z = leaf(x[1:-1])
    curve = grad(grad(mg.softplus(z).sum(), z, create_graph=True).sum(), z).value
    s = np.array(sigma[1:-1])
    np.testing.assert_allclose(curve, s * (1 - s), rtol=1e-14, atol=1e-300)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softplus_keeps_its_relative_accuracy(dtype):
    x = np.concatenate(
        [np.linspace(-80, 80, 1001), np.geomspace(1e-30, 1e4, 200), -np.geomspace(1e-30, 80, 200)]
    )
    x = x.astype(dtype)
    wide = x.astype(np.longdouble)
    exact = np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide)))
    np.testing.assert_allclose(mg.softplus(x).value, exact.astype(float), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.smoke
def test_a_norm_and_its_slopes_where_it_is_0(rng):
    x = rng.standard_normal((3, 4))
    x[1] = 0
    for axis, keepdims in ((None, False), (1, False), ((0, 1), True), (0, True)):
        found = mg.norm(x, axis, keepdims)
        np.testing.assert_allclose(
            found.value, np.sqrt((x * x).sum(axis=axis, keepdims=keepdims)), rtol=1e-14
        )
    rows = leaf(x)
    first = grad(mg.norm(rows, 1).sum(), rows, create_graph=True)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(first.value, x / np.where(lengths == 0, 1, lengths), rtol=1e-14)
    assert not first.value[1].any()
    second = grad((first * rng.standard_normal(x.shape)).sum(), rows).value
    assert np.isfinite(second).all() and not second[1].any() and second[0].any()
    assert check_grads(lambda x: mg.norm(x, 1), [x[[0, 2]]]) <= 1e-6
    assert mg.norm(Tensor([3, 4])).item() == 5


@pytest.mark.smoke
def test_a_softmax_of_nothing_but_minus_infinity_is_0_and_so_is_the_slope_of_its_logarithm():
    x = [[-np.inf, -np.inf], [-np.inf, 1.0], [0.0, 0.0]]
    np.testing.assert_array_equal(mg.softmax(x).value, [[0, 0], [0, 1], [0.5, 0.5]])
    np.testing.assert_array_equal(mg.logsumexp(x, 1).value, [-np.inf, 1, np.log(2)])
    np.testing.assert_array_equal(slope(lambda x: mg.logsumexp(x, 1), x), [[0, 0], [0, 1], [0.5, 0.5]])
    np.testing.assert_array_equal(mg.log_softmax(x).value[:2], [[-np.inf, -np.inf], [-np.inf, 0]])
    mask = [[True, False], [True, True], [False, False]]
    masked = slope(lambda x: mg.softmax(x, mask=mask)[:, 0], x)
    np.testing.assert_array_equal(masked, [[0, 0], [0, 0], [0, 0]])


# Losses.


def exact_loss(logits, weights):
    """−Σ t log p by the definition, in the widest float."""
    x = np.asarray(logits, np.longdouble)
    top = np.where(np.isfinite(x.max(-1, keepdims=True)), x.max(-1, keepdims=True), 0)
    e = np.exp(x - top)
    total = e.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        logp = x - top - np.log(np.where(total == 0, 1, total))
    share = e / np.where(total == 0, 1, total)
    weights = np.asarray(weights, np.longdouble)
    terms = np.zeros(x.shape, np.longdouble)
    np.multiply(weights, logp, out=terms, where=weights != 0)
    slope = weights.sum(-1, keepdims=True) * share - weights
    return -terms.sum(-1).astype(float), slope.astype(float)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e3, 1e6, -1e6, 1e30])
def test_an_offset_of_the_logits_takes_no_digit_from_the_loss(dtype, offset, rng):
    x = rng.integers(-8, 8, (5, 4)) * 0.5
    logits = (x + offset).astype(dtype)
    classes = rng.integers(0, 4, 5)
    losses, slopes = exact_loss(logits, np.eye(4)[classes])
    precision = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(mg.cross_entropy(logits, classes).value, losses.mean(), rtol=precision)
    rows = mg.one_hot(classes, 4, dtype)
    np.testing.assert_allclose(mg.cross_entropy(logits, rows).value, losses.mean(), rtol=precision)
    found = slope(lambda z: mg.cross_entropy(z, classes), logits, dtype)
    np.testing.assert_allclose(found, slopes / 5, rtol=precision, atol=precision / 5)


LOGITS = {
    "plain": [0.5, -1.0, 2.0], "one −∞": [0.5, -np.inf, 2.0], "all but one −∞": [-np.inf, 3.0, -np.inf],
    "all −∞": [-np.inf] * 3, "far apart": [1e30, -1e30, 0.0], "equal": [7.0] * 3,
}  # fmt: skip
WEIGHTS = {
    "a class": [0.0, 1.0, 0.0], "a distribution": [0.5, 0.25, 0.25], "half of one": [0.0, 0.5, 0.0],
    "more than one": [1.0, 2.0, 0.5], "nothing": [0.0, 0.0, 0.0], "the first": [1.0, 0.0, 0.0],
}  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_cross_entropy_at_the_edges(logits, weights, dtype):
    x, t = np.array(LOGITS[logits], dtype), np.array(WEIGHTS[weights], dtype)
    loss, expected = exact_loss(x, t)
    found = slope(lambda z: mg.cross_entropy(z, t), x, dtype)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(mg.cross_entropy(x, t).value, loss, rtol=1e-5)
    if sorted(t) == [0, 0, 1]:
        k = int(t.argmax())
        np.testing.assert_allclose(mg.cross_entropy(x, k).value, loss, rtol=1e-5)
        assert np.isfinite(slope(lambda z: mg.cross_entropy(z, k), x, dtype)).all()
    whole = np.array(WEIGHTS[weights])
    if (whole == whole.astype(int)).all():
        np.testing.assert_allclose(mg.cross_entropy(x, whole.astype("i4")).value, loss, rtol=1e-5)


@pytest.mark.smoke
def test_the_weights_of_a_loss_have_a_gradient_too():
    x, t = np.array([0.5, -1.0, 2.0]), [0.0, 0.25, 0.5]
    minus_log_p = np.logaddexp.reduce(x) - x
    np.testing.assert_allclose(slope(lambda t: mg.cross_entropy(x, t), t), minus_log_p, rtol=1e-14)


@pytest.mark.smoke
@pytest.mark.parametrize("ignore", [-1, -100, 3, 1, 255])
@pytest.mark.parametrize("dtype", ["i8", "i4", "i2", "u1"])
def test_places_of_the_ignored_class_do_not_count(ignore, dtype, rng):
    if dtype == "u1" and ignore < 0:
        return
    logits, targets = rng.standard_normal((4, 3, 4)), rng.integers(0, 4, (4, 3))
    kept = rng.random((4, 3)) < 0.6
    kept[0] = [True, False, True]
    targets = np.where(kept, targets, ignore).astype(dtype)
    kept &= targets != ignore  # the class may be one that there is
    logits[~kept] = np.nan
    expected = mg.cross_entropy(logits[kept], targets[kept]).item()
    assert mg.cross_entropy(logits, targets, ignore_index=ignore).item() == pytest.approx(expected, rel=1e-14)
    found = slope(lambda z: mg.cross_entropy(z, targets, ignore_index=ignore), logits)
    right = slope(lambda z: mg.cross_entropy(z, targets[kept]), logits[kept])
    np.testing.assert_allclose(found[kept], right, rtol=1e-13)
    assert not found[~kept].any()
    mask = rng.random((4, 3)) < 0.7
    both = mask & kept
    loss = mg.cross_entropy(logits, targets, mask, ignore_index=ignore)
    assert loss.item() == pytest.approx(mg.cross_entropy(logits[both], targets[both]).item(), rel=1e-14)
    nothing = mg.cross_entropy(logits, np.full((4, 3), ignore), ignore_index=ignore)
    assert nothing.item() == 0


@pytest.mark.smoke
def test_an_ignored_class_is_one_number_beside_classes():
    with pytest.raises(InputError, match=r"ignore_index = 2 with targets .*integers"):
        mg.cross_entropy(np.ones((2, 3)), np.ones((2, 3)), ignore_index=2)
    with pytest.raises(InputError, match=r"cross_entropy: index -1 at \(1,\) outside the classes, 0 … 2"):
        mg.cross_entropy(np.ones((2, 3)), [1, -1], ignore_index=-100)
    assert mg.cross_entropy(np.ones((2, 3)), [1, 0], ignore_index=-1).item() == pytest.approx(np.log(3))
    assert mg.cross_entropy(np.ones((2, 3)), np.array([1, 0], "u1"), ignore_index=-1).item() == pytest.approx(
        np.log(3)
    )


@pytest.mark.smoke
def test_a_mask_may_be_repeated_over_the_places(rng):
    logits, targets = rng.standard_normal((4, 3, 5)), rng.integers(0, 5, (4, 3))
    mask = np.array([[True], [False], [True], [True]])
    expected = mg.cross_entropy(logits[[0, 2, 3]], targets[[0, 2, 3]]).item()
    assert mg.cross_entropy(logits, targets, mask).item() == pytest.approx(expected, rel=1e-14)
    with pytest.raises(ShapeError):
        mg.cross_entropy(logits, targets, np.ones((4, 2), bool))


# Sums over very many numbers.

MANY = 10_000_000
SUMS = {
    "all": ((MANY,), None), "the last": ((2, MANY // 2), 1), "the first of one": ((MANY, 1), 0),
    "the first of three": ((MANY // 3, 3), 0), "the middle": ((2, MANY // 8, 4), 1), "the outer": ((MANY // 40, 8, 5), (0, 2)),
    "all of two": ((MANY // 3, 3), None), "a few thousand": ((5000, 7), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("order", "CF")
def test_sums_over_many_float32_numbers_are_exact_to_a_millionth(name, order):
    shape, axis = SUMS[name]
    x = np.full(shape, 0.1, "f4", order=order)
    count = x.size / np.empty(shape).sum(axis=axis).size
    exact = float(np.float32(0.1))
    tensor = mg.tensor.apply(
        mg.OPS["transpose"], (Tensor(x.T),), (tuple(reversed(range(x.ndim))),)
    )  # keeps the order
    for t in (Tensor(x), tensor):
        np.testing.assert_allclose(t.sum(axis=axis).value, exact * count, rtol=1e-6)
        np.testing.assert_allclose(t.mean(axis=axis).value, exact, rtol=1e-6)


def test_the_gradient_of_what_was_repeated_many_times_is_exact_to_a_millionth():
    b, big = leaf(np.zeros(3), "float32"), np.full((MANY // 3, 3), 0.1, "f4")
    np.testing.assert_allclose(
        grad(((b + big) * big).sum(), b).value, float(np.float32(0.1)) * (MANY // 3), rtol=1e-6
    )
    table, index = leaf(np.zeros((2, 1)), "float32"), np.zeros(MANY // 10, int)
    slopes = grad((table[index] * np.float32(0.1)).sum(), table).value
    np.testing.assert_allclose(slopes, [[np.float32(0.1) * (MANY // 10)], [0]], rtol=1e-6)


def test_a_loss_over_many_places_is_exact_to_a_millionth():
    logits = np.zeros((MANY // 20, 2), "f4")
    logits[:, 1] = 0.3
    exact = np.logaddexp(0, np.float64(np.float32(0.3)))
    targets = np.zeros(len(logits), int)
    assert mg.cross_entropy(logits, targets).item() == pytest.approx(exact, rel=1e-6)
    assert mg.cross_entropy(logits, targets, np.ones(len(logits), bool)).item() == pytest.approx(
        exact, rel=1e-6
    )
    assert mg.logsumexp(np.zeros((MANY // 10, 2), "f4"), 0).value == pytest.approx(
        np.log(MANY // 10), rel=1e-6
    )


@pytest.mark.smoke
def test_sums_of_float16_do_not_stand_still():
    x = np.ones((5000, 3), "f2")
    for t in (Tensor(x), Tensor(x.T).T):
        np.testing.assert_array_equal(t.sum(axis=0).value, [5000] * 3)
        assert t.sum(axis=0).dtype == "f2"


# Gradients stop at what is not a float.

STEPS = {
    "a cast": lambda x: x.astype("int64").astype("float64"), "a cast to booleans": lambda x: x.astype(bool).astype("float64"),
    "a comparison": lambda x: (x > 1).astype("float64"),
    "an integer maximum": lambda x: mg.max(x.astype("int8"), 0, True).astype("float64"),
    "integer arithmetic": lambda x: (x.astype("int32") * 3 + 2).astype("float64"),
    "where among integers": lambda x: mg.where(x > 1, x.astype("int64"), 0).astype("float64"),
    "a concatenation": lambda x: mg.concat(x.astype("int64"), x.astype("int64"))[:2].astype("float64"),
    "a choice": lambda x: mg.where(x.astype("int64") == 2, 5.0, 3.0),
}  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize("name", STEPS)
def test_no_gradient_flows_through_whole_numbers(name):
    weights = np.array([3.5, 0.5])
    x = leaf([2.7, 0.2])
    assert not grad((STEPS[name](x) * weights).sum(), x).value.any()
    y = (STEPS[name](x) * weights).sum() + (x * weights).sum()
    np.testing.assert_array_equal(grad(y, x).value, weights)
    np.testing.assert_array_equal(grad(y, x, create_graph=True).value, weights)
    y.backward()
    np.testing.assert_array_equal(x.grad, weights)
    x.grad = None
    y.backward(record=True)
    np.testing.assert_array_equal(x.grad, weights)
