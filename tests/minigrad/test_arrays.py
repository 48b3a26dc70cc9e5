"""What NumPy's users write, on tensors: the same values, gradients that differences confirm, compiled as eager.

One row of `CALLS` is one way to call: its text is run on NumPy's arrays, on tensors and compiled.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import DTypeError, InputError, ShapeError, Tensor, check_grads

# What is called, with NumPy in `np`; x (2, 3, 4), y (4, 3), v (4,), p > 0 and m, whole numbers, are given.
CALLS = [
    "np.abs(x)", "np.sign(x) * x", "np.floor(x) * x", "np.ceil(x) * x", "np.rint(x) * x", "np.round(x, 1) * x", "np.expm1(x)",
    "np.clip(x, -0.5, 0.7)", "np.clip(x, None, v)", "np.clip(x, v, None)", "x.clip(-0.5, 0.7)", "np.logaddexp(x, v)",
    "np.hypot(x, v)",
    "x % 0.7", "x % p", "0.7 % p", "x // p * x", "p**v", "2.0**x", "p**x", "p**-1.5", "+x", "np.positive(x)",
    "np.where((x > 0) & (x < 1) | ~(v < 0.5), x, 0)", "np.where((x > 0) ^ (v > 0), x, 0)",
    "np.where(np.isnan(x) | np.isfinite(x) & ~np.isinf(x), x, 0)",
    "np.var(x)", "np.var(x, axis=1)", "np.var(x, axis=(0, 2), ddof=1, keepdims=True)", "x.var(1, ddof=1)",
    "np.std(x)", "np.std(x, axis=-1, ddof=1)", "np.std(x, axis=(0, 1))", "np.prod(x)", "np.prod(x, axis=1)",
    "np.prod(x, axis=(0, 2), keepdims=True)", "x.prod(0)", "np.cumsum(x)", "np.cumsum(x, axis=1)", "x.cumsum(-1)",
    "np.cumprod(x, axis=1)", "np.cumprod(y)", "x * np.argmax(x, axis=1, keepdims=True)", "x * np.argmin(x)",
    "x * np.argmax(m, axis=0)", "np.outer(v, y)", "np.outer(x, v)", "np.linalg.norm(x)", "np.linalg.norm(x, axis=1)",
    "np.linalg.norm(x, axis=(1, 2))", "np.linalg.norm(v, 2)", "np.split(x, 2, axis=-1)[1]", "np.split(x, [1, 2], axis=1)[2]",
    "np.squeeze(x[:1])", "np.squeeze(x[:1, :, :1], axis=2)", "np.expand_dims(x, (0, -1))", "np.expand_dims(x, 1)",
    "np.flip(x)", "np.flip(x, 1)", "np.flip(x, (0, -1))", "np.pad(x, 1)", "np.pad(x, ((0, 1), (2, 0), (0, 0)))",
    "np.pad(y, ((1, 0), (0, 2)), constant_values=1.5)", "np.pad(y, 2, mode='edge')", "np.pad(y, (1, 2), mode='reflect')",
    "np.pad(y, 2, mode='symmetric')", "np.pad(y, 3, mode='wrap')", "x * np.ones_like(x)", "x + np.zeros_like(x)",
    "x + np.full_like(x, 2.5)", "np.einsum('ijk,kl->ijl', x, y)", "np.einsum('ijk,kl', x, y)", "np.einsum('ijk->kji', x)",
    "np.einsum('ijk->', x)", "np.einsum('...k,kl->...l', x, y)", "np.einsum('...k,...k->...', x, v)",
    "np.einsum('k,kj,ijk->ij', v, y, x)", "np.einsum('ii->i', y[:3])", "np.einsum('ii', y[:3])", "np.einsum('i,j->ij', v, v)",
    "np.einsum('ijk,ijl->ikl', x, x)", "np.einsum('ijk,ijk->ij', x, x)", "np.einsum('...ij->...ji', x)",
    "np.einsum('iij->j', x[:, :2])",
    "np.einsum('ij,jk', y, y[:3])", "np.einsum('k,ij', v, y)", "np.einsum(' i j k -> k ', x)", "np.einsum('ij,kl->ik', y, y)",
    "x[x0 > 0]", "x[:, [True, False, True]]", "x[[0, 1], :, [1, 3]]", "x[0, :, [1, 3]]", "x[[[0], [1]], 1:, [1, 3]]",
    "x[..., [2, 0]]", "x[[1], None, [0, 2]]", "x[x0[:, 0, 0] > -9, :, [1, 0]]", "y[y0 < 0]",
]  # fmt: skip


def given():
    rng = np.random.default_rng(3)
    x = rng.permutation(24).reshape(2, 3, 4) * 0.23 - 2.53 + 0.027
    return dict(
        x=x, y=rng.standard_normal((4, 3)), v=rng.standard_normal(4), p=rng.uniform(0.55, 0.65, (3, 4)),
        m=rng.integers(0, 5, (3, 4)), x0=x, y0=np.random.default_rng(4).standard_normal((4, 3)),
    )  # fmt: skip


LEARNS = ("x", "y", "v", "p")


def call(text: str):
    code = compile(text, "<call>", "eval")
    fixed = {k: a for k, a in given().items() if k not in LEARNS}
    return lambda *learned: eval(
        code, {"np": np, **fixed, "m": Tensor(fixed["m"])}, dict(zip(LEARNS, learned, strict=True))
    )


@pytest.mark.parametrize("text", CALLS)
def test_a_call_of_numpy_on_tensors(text):
    arrays = given()
    learned = [arrays[k] for k in LEARNS]
    expected = np.asarray(eval(text, {"np": np, **arrays}))
    leaves = [Tensor(a, requires_grad=True, name=k) for k, a in zip(LEARNS, learned, strict=True)]
    function = call(text)
    y = function(*leaves)
    assert y.dtype == expected.dtype and y.shape == expected.shape
    np.testing.assert_allclose(y.value, expected, rtol=1e-13, atol=1e-13)

    def loss(*given):  # whatever the result's size is
        return mg.sin(function(*given) + 0.3).sum() + 0.0 * sum((g.sum() for g in given), Tensor(0.0))

    assert check_grads(loss, learned, order=2, tolerance=1e-5, complex_step=False) <= 1e-5
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        value, gradients = mg.compile(lambda *given: loss(*given)).value_and_grad(*leaves)
    # Arguments have sizes that may change; what repeats elements at the ends has to know them.
    assert [str(w.message) for w in heard if "runs eagerly" in str(w.message)] == [] or "mode=" in text
    right = loss(*leaves)
    right.backward()
    np.testing.assert_allclose(value.value, right.value, rtol=1e-12, atol=1e-12)
    for leaf in leaves:
        np.testing.assert_allclose(gradients[leaf], leaf.grad, rtol=1e-10, atol=1e-12)


def slope(function, *values):
    leaves = [Tensor(np.array(v, float), requires_grad=True) for v in values]
    with np.errstate(all="ignore"):
        function(*leaves).sum().backward()
    return [leaf.grad.tolist() for leaf in leaves]


def test_the_gradients_at_kinks_are_those_that_the_docstrings_name():
    inf = np.inf
    assert slope(lambda x: mg.clip(x, 0, 1), [-1, 0, 0.5, 1, 2]) == [[0, 1, 1, 1, 0]]
    assert slope(mg.abs, [-2, 0, 3]) == [[-1, 0, 1]]
    assert slope(lambda x: mg.std(x), [2, 2, 2]) == [[0, 0, 0]]
    assert slope(lambda x: mg.norm(x, (0, 1)), [[0, 0], [0, 0]]) == [[[0, 0], [0, 0]]]
    assert slope(mg.logaddexp, [inf, -inf, inf, 0], [inf, -inf, 0, 0]) == [
        [0.5, 0.5, 1, 0.5],
        [0.5, 0.5, 0, 0.5],
    ]
    assert slope(mg.hypot, [3, 0, 0], [-4, 0, 2]) == [[0.6, 0, 0], [-0.8, 0, 1]]
    assert slope(mg.power, [0, 0, 2], [0, 2, 0]) == [[0, 0, 0], [0, 0, np.log(2)]]
    assert slope(mg.mod, [5, -5], [3, 3]) == [[1, 1], [-1, 2]]


def test_a_product_with_zeros_has_the_gradient_of_the_other_factors():
    x = [[2, 0, 3], [0, 0, 5], [1, 4, 2.5]]
    expected = [[[0, 6, 0], [0, 0, 0], [10, 2.5, 4]]]
    assert slope(lambda x: mg.prod(x, 1), x) == expected
    assert slope(lambda x: mg.cumprod(x, 1)[:, -1], x) == expected
    compiled = mg.compile(lambda x: mg.prod(x, 1).sum())
    leaf = Tensor(np.array(x, float), requires_grad=True)
    assert compiled.value_and_grad(leaf)[1][leaf].tolist() == expected[0]


ZEROS = {  # which of 3 × 6 numbers are 0, along rows of 6
    "none": [], "one a row": [(0, 2), (1, 0), (2, 5)], "two": [(0, 1), (0, 4), (1, 0), (1, 5)],
    "side by side": [(0, 2), (0, 3), (2, 0), (2, 1)], "three": [(1, 1), (1, 3), (1, 4)], "all": [(0, k) for k in range(6)],
}  # fmt: skip


def with_zeros(which: str, dtype="float64") -> np.ndarray:
    x = np.random.default_rng(4).standard_normal((3, 6)).astype(dtype)
    for place in ZEROS[which]:
        x[place] = 0
    return x


def slopes(function, x: np.ndarray) -> list[np.ndarray]:
    """The gradient of the sum of the results, each times its number: eager, and compiled."""
    place = np.arange(1, x.size + 1, dtype=x.dtype).reshape(function(x).shape)
    loss = lambda x: (function(x) * place).sum()  # noqa: E731
    leaf = Tensor(x, requires_grad=True)
    loss(leaf).backward()
    assert leaf.grad is not None
    return [leaf.grad, mg.compile(lambda: loss(leaf)).value_and_grad()[1][leaf]]


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("which", ZEROS)
def test_products_up_to_each_place_are_right_at_zeros(which, axis):
    """The gradient from its definition: by x_i, every product from there on without x_i."""
    x = with_zeros(which)
    rows = x.reshape(1, -1) if axis is None else np.moveaxis(x, axis, -1)
    place = np.arange(1.0, x.size + 1).reshape(x.shape)
    shares = place.reshape(1, -1) if axis is None else np.moveaxis(place, axis, -1)
    right = np.zeros(rows.shape)
    for r, row in enumerate(rows):
        for i in range(len(row)):
            for k in range(i, len(row)):
                right[r, i] += shares[r, k] * np.prod(np.delete(row[: k + 1], i))
    right = right.reshape(x.shape) if axis is None else np.moveaxis(right, -1, axis)
    for found in slopes(lambda x: mg.cumprod(x, axis), x):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-13)
    for found in (mg.cumprod(x, axis), mg.compile(lambda x: mg.cumprod(x, axis))(x)):
        np.testing.assert_array_equal(found.value, np.cumprod(x, axis))
    check_grads(lambda x: mg.cumprod(x, axis), [x], order=2)


@pytest.mark.oracle
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("which", ZEROS)
def test_products_up_to_each_place_have_pytorchs_gradient(which, axis, dtype, bound):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: `make oracles` installs it")
    x = with_zeros(which, dtype)
    theirs = torch.tensor(x, requires_grad=True)
    (
        torch.cumprod(theirs, axis) * torch.arange(1, x.size + 1, dtype=theirs.dtype).reshape(x.shape)
    ).sum().backward()
    for found in slopes(lambda x: mg.cumprod(x, axis), x):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, theirs.grad.numpy(), rtol=bound, atol=bound)


def test_compiled_once_for_other_sizes_too():
    rng = np.random.default_rng(0)
    w = Tensor(rng.standard_normal(3), requires_grad=True)

    def loss(x):
        y = mg.cumsum(x * w, 0) + mg.prod(x, 0) + mg.std(x, 0, ddof=1) + mg.argmax(x, 0).astype("float64") * w
        return (y + mg.einsum("tk,sk->tk", x, x)).sum() + mg.flip(mg.pad(x, ((1, 2), (0, 0))), 0)[2:].sum()

    compiled = mg.compile(loss)
    for T in (4, 7, 2):
        x = rng.standard_normal((T, 3))
        value, gradients = compiled.value_and_grad(x)
        w.grad = None
        right = loss(Tensor(x))
        right.backward()
        np.testing.assert_allclose(value.value, right.value, rtol=1e-12)
        np.testing.assert_allclose(gradients[w], w.grad, rtol=1e-12)


def test_squeeze_follows_the_sizes_of_each_call():
    compiled = mg.compile(lambda x: mg.squeeze(x * 2))
    for shape in ((1, 3), (2, 3), (2, 1), (1, 1), (1, 3)):
        x = np.ones(shape)
        assert compiled(x).shape == np.squeeze(x).shape


def test_sums_up_to_each_place_of_many_float32_numbers():
    x = np.full((2, 300_000), 0.1, "f4")
    exact = np.cumsum(x, axis=1, dtype=np.float64)
    np.testing.assert_allclose(mg.cumsum(x, 1).value, exact, rtol=1e-6)
    np.testing.assert_allclose(mg.compile(lambda x: mg.cumsum(x, 1))(x).value, exact, rtol=1e-6)


def test_gelu_is_x_times_the_normal_distribution():
    x = np.linspace(-5, 5, 41)
    torch = pytest.importorskip("torch")
    for how in ("none", "tanh"):
        right = torch.nn.functional.gelu(torch.as_tensor(x), approximate=how).numpy()
        np.testing.assert_allclose(mg.gelu(x, how).value, right, rtol=1e-12, atol=1e-15)
    assert mg.gelu(x.astype("f2")).dtype == "float16"


def test_erf_is_that_of_the_standard_library():
    x = np.concatenate([np.linspace(-7, 7, 2001), [0, 1, -1, 1e-300, np.inf, -np.inf]])
    np.testing.assert_allclose(mg.erf(x).value, [math.erf(v) for v in x], rtol=3e-16)
    assert np.isnan(mg.erf(np.nan).value)


x = Tensor(given()["x"], name="x", requires_grad=True)
REFUSALS = {
    "clip without bounds": (lambda: mg.clip(x), InputError, "a_min"),
    "clip at NaN": (lambda: mg.clip(x, np.nan), InputError, "NaN"),
    "variance of too few": (lambda: mg.var(x, 0, ddof=2), ShapeError, r"'x'.*ddof = 2"),
    "parts that are not equal": (lambda: mg.split(x, 2, 1), ShapeError, r"'x'.*axis 1 has size 3"),
    "squeeze of more than one": (lambda: mg.squeeze(x, 1), ShapeError, r"'x'.*axis 1 has 3"),
    "a mode that there is not": (lambda: mg.pad(x, 1, "mean"), InputError, "mode 'mean'"),
    "fewer pairs than axes": (lambda: mg.pad(x, ((1, 2), (3, 4))), ShapeError, "each of 3 axes"),
    "a negative width": (lambda: mg.pad(x, -1), InputError, "from 0"),
    "einsum of other sizes": (lambda: mg.einsum("ijk,jl->il", x, x[0].T), ShapeError, "'j' is 3 and.* 4"),
    "einsum of too many axes": (lambda: mg.einsum("ij->i", x), ShapeError, "'ij' of 'x'.*3 axes"),
    "einsum of too few operands": (
        lambda: mg.einsum("i,j->i", x),
        InputError,
        "2 operands are named, 1 given",
    ),
    "einsum of a new letter": (lambda: mg.einsum("ijk->z", x), InputError, "the result has 'z'"),
    "einsum that cannot be read": (lambda: mg.einsum("i+j", x), InputError, r"cannot read 'i\+j'"),
    "einsum with a letter twice": (lambda: mg.einsum("ijk->ii", x), InputError, "twice in the result"),
    "& of floats": (lambda: x & x, DTypeError, "bitwise_and|and of"),
    "~ of floats": (lambda: ~x, DTypeError, "'x'.*compare"),
    "integers to negative powers": (lambda: Tensor([2]) ** Tensor([-1]), DTypeError, "negative powers"),
    "a mask of another length": (lambda: x[:, [True, False]], ShapeError, "2 along axis 1, which has 3"),
    "gelu of another kind": (lambda: mg.gelu(x, "erf"), InputError, "'none' or 'tanh'"),
    "norm of another order": (lambda: np.linalg.norm(x, 1), DTypeError, "ord=1"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_says_why(name):
    function, error, match = REFUSALS[name]
    with pytest.raises(error, match=match):
        function()


def test_a_mask_that_is_computed_is_refused_while_tracing_and_works_eagerly():
    function = lambda x: (x[x > 0] ** 2).sum()  # noqa: E731
    right = function(x)
    assert right.item() == pytest.approx((x.value[x.value > 0] ** 2).sum())
    with pytest.warns(UserWarning, match=r"boolean mask of 'x'.*minigrad\.where"):
        assert mg.compile(function)(x).item() == right.item()


def test_whole_numbers_and_booleans_stay_numpys():
    i, b = np.array([5, -7, 0]), np.array([True, False, True])
    for ours, theirs in [
        (~Tensor(b), ~b), (~Tensor(i), ~i), (Tensor(i) & 3, i & 3), (1 | Tensor(i), 1 | i), (Tensor(b) ^ True, b ^ True),
        (mg.cumsum(b), np.cumsum(b)), (mg.prod(i), np.prod(i)), (mg.floor(i), np.floor(i)), (Tensor(i) % 3, i % 3),
        (-7 // Tensor(i[:2]), -7 // i[:2]), (mg.round(i, -1), np.round(i, -1)),
    ]:  # fmt: skip
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.value, theirs)
    assert mg.ones((2, 3)).dtype == "float32" and mg.full((2,), 7, "int64").value.tolist() == [7, 7]
