"""What moves and selects elements, for sizes that only a call tells: compiled it is what it is eagerly, and one program."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from minigrad.scanning import flatten
from minigrad.trace import evaluate, trace

DTYPES = {"float64": 1e-12, "float32": 1e-5}


def draws(dtype: str, *shapes: tuple, seed: int = 0) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [Tensor(rng.standard_normal(s).astype(dtype), requires_grad=True) for s in shapes]


def close(ours, right, tolerance: float, what: str) -> None:
    assert ours.shape == right.shape and ours.dtype == right.dtype, what
    scale = 1 + np.abs(right[np.isfinite(right)]).max(initial=0) if right.dtype.kind == "f" else 1
    np.testing.assert_allclose(ours, right, rtol=tolerance, atol=tolerance * scale, err_msg=what)


def same(function, *calls, leaves=(), programs: int = 1, dtype: str = "float64") -> mg.Compiled:
    """Outputs and all gradients of the sum of their squares are those of eager mode, and nothing runs eagerly."""

    def loss(*arguments):
        outputs = flatten(function(*arguments))[0]
        total = sum((y * y).sum() for y in outputs if y.dtype.kind == "f")
        return (total, *outputs)

    compiled = mg.compile(loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for arguments in calls:
            found, gradients = compiled.value_and_grad(*arguments)
            expected = loss(*(a if isinstance(a, Tensor) else Tensor(a) for a in arguments))
            wrt = [x for x in (*arguments, *leaves) if isinstance(x, Tensor) and x.requires_grad]
            for k, (a, b) in enumerate(zip(found, expected, strict=True)):
                close(a.value, b.value, DTYPES[dtype], f"output {k}")
            for x, g in zip(wrt, mg.grad(expected[0], wrt), strict=True):
                close(gradients[x], g.value, DTYPES[dtype], f"gradient of {x}")
    assert sum(map(len, compiled.variants.values())) == programs
    return compiled


def in_a_step(function):
    """The function of each step's values, within a scan; what it returns is summed into the state."""

    def looped(xs, *captures):
        def step(total, x):
            y = function(x, *captures)
            return total + (y * y).sum(), y

        total, ys = mg.scan(step, Tensor(np.zeros((), xs.dtype)), xs)
        return total, ys

    return looped


def refused(function, good: tuple, bad: tuple, words: str) -> None:
    """Compiled for what fits, it refuses what eager mode refuses."""
    compiled = mg.compile(function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(*good)
        with pytest.raises(mg.MinigradError):
            function(*map(Tensor, bad))
        with pytest.raises(mg.MinigradError, match=words):
            compiled(*bad)
        compiled(*good)


# Reductions over axes that stand apart.

APART = [(0, 2), (0, 3), (1, 3), (0, 1, 3), (0, 2, 3), (-1, 0)]
REDUCTIONS = {
    "sum": mg.sum, "mean": mg.mean, "max": mg.max, "min": mg.min, "logsumexp": mg.logsumexp, "norm": mg.norm,
    "softmax": mg.softmax,
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_over_axes_that_stand_apart(name, dtype):
    reduce = REDUCTIONS[name]

    def function(x):
        if name == "softmax":
            return tuple(reduce(x, axes) for axes in APART)
        return tuple(reduce(x, axes, keepdims) for axes in APART for keepdims in (True, False))

    same(
        function,
        draws(dtype, (3, 2, 4, 5)),
        draws(dtype, (1, 3, 2, 2)),
        draws(dtype, (2, 3, 1, 7)),
        dtype=dtype,
    )


def test_equal_extremes_share_their_gradient_over_axes_that_stand_apart():
    x = Tensor(np.random.default_rng(0).integers(0, 3, (3, 2, 4)) * 1.0, requires_grad=True)
    same(lambda x: (mg.max(x, (0, 2)), mg.min(x, (0, 2), True)), (x,))


def test_what_is_not_finite_is_reduced_as_eagerly():
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    x[:, 1], x[0, 2, 3], x[:, 3] = -np.inf, np.nan, np.inf
    compiled = mg.compile(lambda x: (mg.max(x, (0, 2)), mg.logsumexp(x, (0, 2)), mg.softmax(x, (0, 2))))
    with np.errstate(all="ignore"):
        for ours, right in zip(compiled(x), compiled.function(Tensor(x)), strict=True):
            np.testing.assert_allclose(ours.value, right.value, rtol=1e-12)


def test_sums_over_axes_that_stand_apart_of_counts_and_of_nothing():
    compiled = mg.compile(lambda x: ((x > 0).sum((0, 2)), x.sum((0, 2)), mg.logsumexp(x, (0, 2))))
    for shape in [(3, 4, 5), (0, 4, 5), (3, 4, 0), (2, 0, 2)]:
        x = np.random.default_rng(0).standard_normal(shape)
        for ours, right in zip(compiled(x), compiled.function(Tensor(x)), strict=True):
            close(ours.value, right.value, 1e-12, str(shape))
    assert sum(map(len, compiled.variants.values())) == 1


def test_reductions_over_axes_that_stand_apart_in_a_step():
    for name in ("sum", "max", "logsumexp"):
        step = in_a_step(lambda x, w, reduce=REDUCTIONS[name]: reduce(x * w, (0, 2)))
        same(
            step,
            draws("float64", (5, 3, 4, 2), (3, 4, 2)),
            draws("float64", (2, 2, 4, 3), (4, 1)),
            programs=2,
        )
    # A capture's gradient is a sum over the steps too: over the first axis and the last.
    (b,) = draws("float64", (4, 1))
    same(in_a_step(lambda x: mg.tanh(x + b)), draws("float64", (5, 4, 3)), leaves=[b])


# Products whose leading axes are repeated.

PAIRS = [
    ((2, 1, 6, 4), (3, 4, 5)), ((3, 4, 5), (2, 1, 5, 6)), ((6, 4), (3, 4, 5)), ((2, 3, 6, 4), (3, 4, 5)),
    ((2, 3, 6, 4), (2, 1, 4, 5)), ((2, 1, 3, 6, 4), (5, 1, 4, 3)), ((1, 6, 4), (3, 4, 5)), ((2, 3, 6, 4), (1, 1, 4, 5)),
    ((4,), (3, 4, 5)), ((3, 6, 4), (4,)), ((2, 1, 6, 1), (3, 1, 5)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_a_product_whose_leading_axes_are_repeated(left, right, dtype):
    a, b = draws(dtype, left, right)
    same(lambda x: x @ b, (a,), leaves=[b], dtype=dtype)
    if len(left) > 1 and len(right) > 1:  # transposed operands are read where they stand
        turned = [Tensor(x.value.swapaxes(-1, -2).copy(), requires_grad=True) for x in (a, b)]
        same(lambda x, y: x.swapaxes(-1, -2) @ y.swapaxes(-1, -2), turned, dtype=dtype)


def test_a_product_with_repeated_axes_is_one_program_for_all_sizes():
    calls = [
        draws("float64", (B, H, m, 4), (B, 1, 4, n))
        for B, H, m, n in [(2, 3, 5, 6), (4, 2, 1, 3), (2, 5, 7, 1)]
    ]
    compiled = same(lambda a, b: a @ b, *calls)
    same(
        lambda a, b: a @ b,
        draws("float64", (2, 3, 5, 4), (2, 1, 4, 0)),
        draws("float64", (2, 0, 5, 4), (2, 1, 4, 3)),
    )
    assert "broadcast" not in compiled.source


def test_products_with_repeated_axes_in_a_step():
    same(in_a_step(lambda x, w: x @ w), draws("float64", (4, 2, 1, 3, 5), (3, 5, 2)))
    same(in_a_step(lambda x, w: w @ x), draws("float64", (4, 3, 5, 2), (2, 1, 6, 5)))


# Slices of a size that only a call tells.

BOUNDS, STEPS = (None, -9, -3, -2, -1, 0, 1, 2, 3, 9), (None, 1, 2, 3, -1, -2, -5)


def test_every_slice_is_numpys_at_every_size():
    """Whatever the size at which it was traced, if the trace says that it holds."""
    held = 0
    for start, stop, step in itertools.product(BOUNDS, BOUNDS, STEPS):
        part = slice(start, stop, step)
        for first in (0, 1, 3, 4, 7):
            traced = trace(lambda x, part=part: x[part], [np.zeros(first)])
            assert traced.sizes([(first,)]) is not None
            for n in range(12):
                sizes, x = traced.sizes([(n,)]), np.arange(float(n))
                if sizes is not None:
                    (y,) = evaluate(traced.results, {traced.arguments[0].number: x}, sizes)
                    np.testing.assert_array_equal(y, x[part], err_msg=f"{part} of {n}, traced at {first}")
                    held += 1
    assert held > 30_000


@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_with_steps_and_flips_are_one_program(dtype):
    def function(x):
        return (x[::2], x[::-1], x[1::3], x[::-2], x[:, ::-1], x[:, 1::2], x[-1::-3, ::2], x[::2][::-1][::2])

    same(function, *(draws(dtype, (T, D)) for T, D in [(7, 3), (8, 4), (1, 1), (2, 6), (12, 5)]), dtype=dtype)


def test_a_slice_that_begins_behind_the_end_is_empty():
    function = lambda x: (x[5:], x[:5], x[-5:], x[:-5], x[5:2], x[4::-1], x[9:1:-2], x[2:-2])  # noqa: E731
    same(function, *(draws("float64", (T, 2)) for T in [3, 2, 4, 1]), programs=2)
    same(function, *(draws("float64", (T, 2)) for T in [12, 3, 9, 5, 2, 10]), programs=2)


def test_lengths_of_slices_are_sizes():
    """They are means' counts, lengths of scans, the shapes of zeros, and equal where they have to be."""
    (w,) = draws("float64", (3, 3))

    def function(x, y):
        halves = x[::2] * y[::2] + x[1::2]  # T even
        h, hs = mg.scan(lambda h, x: (mg.tanh(h @ w + x), h), mg.zeros((3,), "float64"), halves)
        rest = mg.zeros((x[::3].shape[0], 2), "float64") + x[::3, :2] * x[::3].shape[0]
        return x[1::2].mean(0), x[::3].mean(), h, hs, rest, mg.concat(x[::2], x[1::2], axis=0), x[::2].max(0)

    same(function, *(draws("float64", (T, 3), (T, 3)) for T in [6, 2, 10, 8]), leaves=[w])


def test_a_length_that_has_to_fit_is_demanded_of_every_call():
    (w,) = draws("float64", (4, 2))
    compiled = same(lambda x: x[::2].T @ w, *(draws("float64", (T, 3)) for T in [7, 8]), leaves=[w])
    with pytest.raises(mg.ShapeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(np.ones((9, 3)))
    same(lambda x, y: x[::2] + y[1::2], *(draws("float64", (T,), (S,)) for T, S in [(7, 8), (8, 9), (5, 6)]))
    refused(lambda x, y: x[::2] + y[1::2], (np.ones(7), np.ones(8)), (np.ones(7), np.ones(7)), "broadcast")
    # A length that is the size itself, or 1 and repeated, is so for few sizes only.
    same(lambda x: x[::2] + x, draws("float64", (1,)), draws("float64", (2,)), programs=2)
    refused(lambda x: x[::2] + x, (np.ones(1),), (np.ones(4),), "broadcast")
    refused(lambda x: x[1::2].max(0), (np.ones((4, 2)),), (np.ones((1, 2)),), "max of ")
    # Equal by chance at the first call: another program where they are not.
    equal = lambda x: x[::2] + x[0] if x[::2].shape[0] == x.shape[1] else x  # noqa: E731
    same(equal, draws("float64", (4, 2)), draws("float64", (4, 3)), programs=2)


def test_parts_of_a_size():
    def function(x):
        T = x.shape[0]
        return x[: T // 2], x[T // 2 :], x[T // 3], x[-(T // 2) :], x[T - 1], x[: T - 1 : 2], x[T // 2 :: -1]

    same(function, *(draws("float64", (T, 2)) for T in [5, 3, 8, 4, 9]))
    (table,) = draws("float64", (9, 2))
    same(lambda x: x + table[: x.shape[0]], *(draws("float64", (T, 2)) for T in [5, 3, 9]), leaves=[table])
    with pytest.raises(mg.ShapeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mg.compile(lambda x: x + table[: x.shape[0]])(np.ones((10, 2)))


def test_a_part_as_long_as_another_argument():
    function = lambda x, y: (x[: y.shape[0]], x[y.shape[0] :: -1], x[-y.shape[0] :])  # noqa: E731
    calls = [(5, 3), (4, 2), (3, 5), (7, 7), (2, 6)]
    same(function, *(draws("float64", (T, 2), (S, 1)) for T, S in calls), programs=2)


def test_slices_with_steps_in_a_step():
    same(
        in_a_step(lambda x, w: x[::2] * w[::-1]),
        draws("float64", (4, 7), (4,)),
        draws("float64", (3, 7), (4,)),
    )
    same(
        in_a_step(lambda x, w: mg.tanh(x[:, ::-1] @ w)[1::2]),
        *(draws("float64", (4, N, 3), (3, 2)) for N in [5, 2]),
    )


# Class counts that are sizes.


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_classes_is_read_from_an_argument(dtype):
    rng = np.random.default_rng(0)
    for function in [
        lambda x, t: mg.cross_entropy(x, t),
        lambda x, t: mg.one_hot(t, x.shape[1], x.dtype) * x,
        lambda x, t: mg.cross_entropy(x, t, ignore_index=2),
    ]:
        calls = [(*draws(dtype, (N, K)), rng.integers(0, K, N)) for N, K in [(5, 4), (3, 6), (1, 3), (8, 11)]]
        same(function, *calls, dtype=dtype)
        x, t = np.ones((3, 5), dtype), np.array([0, 5, 1])
        refused(
            function,
            (x, t - (t == 5)),
            (x, t),
            r"(cross_entropy|one_hot): index 5 at \(1,\) outside the classes, 0 … 4",
        )
        refused(function, (x, t - (t == 5)), (x, t - 6), "index -.* outside the classes, 0 … 4")


def test_classes_by_codes_from_outside_that_are_assigned_anew():
    codes = Tensor(np.array([1, 0, 2]))
    compiled = mg.compile(lambda x: (mg.cross_entropy(x, codes), mg.one_hot(codes, 3)))
    x = np.random.default_rng(0).standard_normal((3, 3))
    for value in ([1, 0, 2], [2, 2, 1]):
        codes.value = np.array(value)
        for ours, right in zip(compiled(x), compiled.function(Tensor(x)), strict=True):
            close(ours.value, right.value, 1e-7, str(value))
    fixed = mg.compile(lambda x: mg.one_hot(codes, 3, "float64") * x)
    fixed(x)
    codes.value = np.array([0, 1, 3])
    with pytest.raises(mg.InputError, match=r"one_hot: index 3 at \(2,\) outside the classes, 0 … 2"):
        fixed(x)
    with pytest.raises(mg.InputError, match=r"cross_entropy: index 3 at \(2,\) outside the classes, 0 … 2"):
        compiled(x)


def test_class_counts_in_a_step():
    rng = np.random.default_rng(0)

    def function(xs, ts):
        step = lambda total, now: (total + mg.cross_entropy(*now), mg.one_hot(now[1], xs.shape[2], "float64"))  # noqa: E731
        return mg.scan(step, mg.zeros((), "float64"), (xs, ts))

    same(
        function,
        *((*draws("float64", (T, N, K)), rng.integers(0, K, (T, N))) for T, N, K in [(4, 3, 5), (2, 1, 7)]),
    )


# Integer arrays.

FEW, MORE, TWO = np.array([1, -1, 2]), np.array([0, 3, -4]), np.array([[0], [2]])
INDICES = {
    "rows": (lambda x, i: x[i], FEW), "columns": (lambda x, i: x[:, i], FEW), "elements": (lambda x, i, j: x[i, j], FEW, MORE),
    "the last axes": (lambda x, i, j: x[..., i, j], FEW, FEW), "in the middle": (lambda x, i: x[::-1, i, 1:], FEW),
    "new axes": (lambda x, i: x[None, :, None, i], FEW), "two axes": (lambda x, i: x[:, i], np.array([[0, 1], [-1, 2]])),
    "they broadcast": (lambda x, i, j: x[i, j], TWO, MORE), "a number beside": (lambda x, i: x[1, i], FEW),
    "a number behind": (lambda x, i: x[:, i, -1], FEW), "three": (lambda x, i, j: x[i, j, i], FEW, MORE),
    "one number": (lambda x, k: x[k], np.array(-2)), "two numbers": (lambda x, k, m: x[k, :, m], np.array(1), np.array(-1)),
    "a number and an array": (lambda x, k, i: x[k, i], np.array(1), FEW), "none at all": (lambda x, i: x[:, i], FEW[:0]),
    "computed": (lambda x, i: x[(i * i) % 1 if isinstance(i, int) else i * i - 2 * i], np.array([1, 2])),
    "dots behind": (lambda x, i: x[i, ...], FEW), "the same often": (lambda x, i: x[:, i], np.array([1, 1, 1, -2])),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", INDICES)
def test_integer_arrays_are_numpys_indices_eagerly_and_compiled(name, dtype):
    function, *indices = INDICES[name]
    for shape in [(3, 4, 5), (6, 4, 3)]:
        (x,) = draws(dtype, shape)
        np.testing.assert_array_equal(function(x, *indices).value, function(x.value, *indices))
    calls = [(*draws(dtype, shape), *indices) for shape in [(3, 4, 5), (6, 4, 3), (4, 5, 4)]]
    same(function, *calls, dtype=dtype)
    small = [i.astype("int32") for i in indices]
    same(lambda x: function(x, *indices), *(c[:1] for c in calls), dtype=dtype)  # known while tracing
    same(function, (calls[0][0], *small), dtype=dtype)
    same(lambda *indices: function(calls[0][0], *indices), indices, leaves=calls[0][:1], dtype=dtype)


def test_other_indices_and_lengths_are_no_other_program():
    rng = np.random.default_rng(0)
    calls = [(*draws("float64", (T, 4)), rng.integers(-T, T, n)) for T, n in [(5, 3), (2, 7), (9, 1), (3, 0)]]
    same(lambda x, i: (x[i], x[i, 0], x[i][:, None], x.T[:, i]), *calls)


def test_arrays_with_something_else_between_them_come_first_as_in_numpy():
    array = np.arange(60.0).reshape(3, 4, 5)
    x = Tensor(array, name="x", requires_grad=True)
    for index in [(FEW, slice(None), FEW), (0, slice(None), FEW), (FEW, None, FEW), (FEW, ..., 0)]:
        np.testing.assert_array_equal(x[index].value, array[index])
        compiled = mg.compile(lambda x, index=index: (x[index] ** 2).sum())
        value, gradients = compiled.value_and_grad(x)
        assert value.item() == (array[index] ** 2).sum() and compiled.last is not None
        expected = np.zeros_like(array)
        np.add.at(expected, index, 2 * array[index])
        np.testing.assert_array_equal(gradients[x], expected)
    np.testing.assert_array_equal(x[:, FEW, 0].value, array[:, FEW, 0])


def test_a_mask_that_is_not_known_runs_eagerly_and_says_why():
    x = np.arange(12.0).reshape(3, 4)
    for mask in (x > 3, x[:, 0] > 0):
        np.testing.assert_array_equal(Tensor(x)[mask].value, x[mask])
        with pytest.warns(UserWarning, match=r"boolean mask of 'x'.*minigrad\.where"):
            np.testing.assert_array_equal(mg.compile(lambda x, m: x[m])(x, mask).value, x[mask])
        known = mg.compile(lambda x, mask=mask: x[mask] * 2)  # an array of NumPy's is known
        np.testing.assert_array_equal(known(x).value, x[mask] * 2)
    with pytest.raises(mg.ShapeError, match=r"boolean mask of .*3 along axis 1, which has 4"):
        Tensor(x)[:, [True, False, True]]


BEYOND = [
    (lambda x, i: x[i], 0, r"axis 0 of 'x' \(3, 4\) float64, 0 … 2"),
    (lambda x, i: x[:, i], 1, r"axis 1 of 'x' \(x_0, x_1\) float64, 0 … 3"),
    (lambda x, i: x[i, 0], 0, r"axis 0 of 'x' \(x_0, x_1\) float64"),
    (lambda x, i: x[0, i], 1, r"axis 1 of 'x' \(x_0, x_1\) float64"),
]


@pytest.mark.parametrize(("function", "axis", "words"), BEYOND)
def test_an_index_outside_names_the_tensor_and_the_range(function, axis, words):
    x = Tensor(np.arange(12.0).reshape(3, 4), name="x")
    n = x.shape[axis]
    for bad in (n, -n - 1):
        with pytest.raises(
            mg.InputError, match=rf"index {bad} at \(1,\) outside axis {axis} of 'x' \(3, 4\) .*, 0 … {n - 1}"
        ):
            function(x, np.array([0, bad]))
        refused(function, (x.value, np.array([-n, n - 1])), (x.value, np.array([0, bad])), words)
    with pytest.raises(mg.ShapeError, match=r"index of 'x' .*do not broadcast"):
        x[np.array([0, 1]), np.array([0, 1, 2])]


def test_an_index_from_outside_is_looked_up_at_every_call():
    i = Tensor(np.array([1, -1]))
    compiled = mg.compile(lambda x: (x[i], x[:, i], x[i[0]]))
    x = np.random.default_rng(0).standard_normal((3, 4))
    for value in ([1, -1], [0, 2]):
        i.value = np.array(value)
        for ours, right in zip(compiled(x), compiled.function(Tensor(x)), strict=True):
            close(ours.value, right.value, 0, str(value))


def test_integer_arrays_in_a_step():
    rng = np.random.default_rng(0)
    (table,) = draws("float64", (6, 4, 2))

    def function(xs, ks, js):
        def step(h, now):
            x, k, j = now
            h = mg.tanh(h + table[k, j] + x[:, j].sum(0)[:, None])
            return h, (table[k], x[j], h)

        return mg.scan(step, mg.zeros((3, 2), "float64"), (xs, ks, js))

    calls = [
        (*draws("float64", (T, 3, 4)), rng.integers(-6, 6, (T, 3)), rng.integers(-3, 3, (T, 3)))
        for T in (5, 2)
    ]
    same(function, *calls, leaves=[table])
    # An index that is the same at every step, and a number of each step.
    step = in_a_step(lambda x, i: x[i] * table[i, 0, 0])
    same(step, *((*draws("float64", (T, 3)), FEW) for T in (4, 2)), leaves=[table])
    walk = lambda ks: mg.scan(lambda h, k: (mg.tanh(h + table[k]), None), mg.zeros((4, 2), "float64"), ks)[0]  # noqa: E731
    same(walk, (FEW,), leaves=[table])
