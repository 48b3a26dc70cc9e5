"""`compile(f, check=True)`, what Python does once, and what is a reason to run eagerly: never a silent wrong number."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad import Tensor
from minigrad.compiler import emit as emitting


def leaf(*shape, seed=0, name=None):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True, name=name)


W, V = leaf(3, 3, seed=1, name="W"), leaf(3, 3, seed=2, name="V")
XS = np.random.default_rng(3).standard_normal((4, 2, 3))


def shared_projection(x):
    def step(h, x):
        u = x @ W
        return (mg.tanh(h @ V + u).named("a") * mg.tanh(h @ W + u).named("b")).named("h"), None

    return (mg.scan(step, mg.zeros((2, 3), "float64"), x)[0] ** 2).sum()


def test_a_checked_function_gives_what_it_gives_otherwise():
    cell = cells.LSTM(3, 5, np.random.default_rng(0), "float32")

    def loss(x):
        r = cells.run(cell, x)
        return (r.h**2).mean(), r.c

    x = XS.astype("f4")
    checked, plain = mg.compile(loss, check=True), mg.compile(loss)
    assert checked(x)[0].item() == plain(x)[0].item()
    (a, c), g = checked.value_and_grad(x)
    (b, d), h = plain.value_and_grad(x)
    assert a.item() == b.item() and np.array_equal(c.value, d.value)
    assert all(np.array_equal(g[p], h[p]) for p in cell.parameters().values())


def test_a_wrong_number_is_named_with_its_step_and_both_numbers(monkeypatch):
    """The compiler is broken on purpose: it overwrites what another gate still reads."""
    right = emitting.Emitter.may_overwrite

    def wrong(self, x, level, readers):
        place = self.places.get(x.number)
        return right(self, x, level, readers) or (
            place is not None and place.store.kind == "work" and x.number in level.stepwise
        )

    monkeypatch.setattr(emitting.Emitter, "may_overwrite", wrong)
    with pytest.raises(mg.GraphError, match=r"z_. at t = 2 is (-?[\d.]+) compiled and (-?[\d.]+) eagerly"):
        mg.compile(shared_projection, check=True).value_and_grad(XS)
    monkeypatch.undo()
    mg.compile(shared_projection, check=True).value_and_grad(XS)


@pytest.mark.parametrize("what", ["random", "attribute", "number", "shape"])
def test_what_python_does_anew_at_every_call_is_named(what):
    class State:
        rng, calls = np.random.default_rng(0), 0

    def function(x):
        State.calls += 1
        if what == "random":
            return (x * State.rng.standard_normal(3)).sum()
        if what == "attribute":
            return (x * np.full(3, float(State.calls))).sum()
        if what == "number":
            return (x * (0.5 * State.calls)).sum()
        return mg.tanh(x).sum() if State.calls % 2 else x.sum()

    with pytest.raises(mg.GraphError, match="traced twice it differs"):
        mg.compile(function, check=True)(XS)


def test_ways_to_keep_a_mask_or_a_number_live():
    mask = Tensor(np.array([1.0, 0.0, 1.0]), name="mask")
    compiled = mg.compile(lambda x, k: (x * mask * k).sum(), check=True)
    x = np.ones((2, 3))
    assert compiled(x, 2.0).item() == 8
    mask.value = np.array([1.0, 1.0, 1.0])
    assert compiled(x, 3.0).item() == 18
    assert sum(map(len, compiled.variants.values())) == 1


# Python numbers and sizes.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_python_float_takes_the_dtype_of_the_arguments(dtype):
    compiled = mg.compile(lambda x, k: (x * k).sum())
    result = compiled(np.ones(4, dtype), 0.5)
    assert result.value == 2 and result.dtype == dtype


def test_a_python_float_takes_the_dtype_of_the_parameters_where_no_argument_has_one():
    w = Tensor(np.ones(3, "f4"), requires_grad=True)
    compiled = mg.compile(lambda k: (w * k).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for k in (0.5, 0.25):
            value, gradients = compiled.value_and_grad(k)
            assert value.item() == 3 * k and value.dtype == np.float32 and gradients[w].tolist() == [k] * 3
    assert mg.compile(lambda k: k * 2)(0.5).dtype == np.float64


def sizes_in_arithmetic(x):
    return (
        x.sum() / (0.1 * x.shape[0]),
        x * x.shape[1] ** -0.5,
        (x / x.shape[0] ** 2).sum() - 1.5 / x.shape[1],
        (2 - x.shape[0]) * x + x.shape[1] / x.shape[0],
        x * (x.shape[0] * x.shape[1] + 0.5) ** 0.5 - (x.shape[1] - 0.25) * 3,
        x.shape[0] * x - x.shape[1] + x / x.shape[0],
        np.float64(0.5) * x.shape[0] * x,
        x + np.ones(4, x.dtype) * x.shape[0],
        x + x.shape[0] * np.ones(4, x.dtype),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sizes_in_arithmetic(dtype):
    compiled = mg.compile(sizes_in_arithmetic)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for T in (3, 5):
            x = np.random.default_rng(T).standard_normal((T, 4)).astype(dtype)
            for got, right in zip(compiled(x), sizes_in_arithmetic(Tensor(x)), strict=True):
                assert got.dtype == right.dtype
                np.testing.assert_allclose(got.value, right.value, rtol=1e-5 if dtype == "float32" else 1e-12)
    assert sum(map(len, compiled.variants.values())) == 1


# What is refused eagerly is refused.


@pytest.mark.parametrize(
    "function, good, bad",
    [
        (lambda x: mg.max(x, -1), np.ones((3, 1)), np.ones((3, 0))),
        (lambda x: mg.min(x, -1), np.ones((3, 1)), np.ones((3, 0))),
        (lambda x: x.mean(axis=0), np.ones((1, 2)), np.ones((0, 2))),
        (lambda t: mg.one_hot(t, 4), np.array([1, 3]), np.array([1, 9])),
        (lambda t: mg.one_hot(t, 4), np.array([1, 3]), np.array([1, -1])),
        (lambda t: mg.gather(W, t), np.array([1, 2]), np.array([1, 3])),
        (lambda t: mg.scatter(W, t, 4), np.array([1, 2, 3]), np.array([1, 2, 4])),
        (lambda t: mg.cross_entropy(V, t), np.array([1, 2, 0]), np.array([1, 2, 3])),
        (lambda x: mg.scan(lambda c, x: (c + x.sum(), None), mg.zeros((), "float64"), x)[0], np.ones((1, 2)), np.ones((0, 2))),
    ],
)  # fmt: skip
def test_what_is_refused_eagerly_is_refused_compiled(function, good, bad):
    compiled = mg.compile(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(compiled(good).value, function(Tensor(good)).value)
        with pytest.raises(mg.MinigradError):
            function(Tensor(bad))
        with pytest.raises(mg.MinigradError):
            compiled(bad)
        np.testing.assert_allclose(compiled(good).value, function(Tensor(good)).value)


def test_lengths_beyond_the_sequence_and_below_zero():
    cell = cells.GRU(3, 4, np.random.default_rng(0), "float64")
    compiled = mg.compile(lambda x, n: (cells.run(cell, x, lengths=n).h ** 2).sum())
    compiled(XS, np.array([4, 0]))
    for lengths in ([5, 1], [1, -1]):
        with pytest.raises(mg.InputError, match="outside"):
            compiled(XS, np.array(lengths))


def test_a_class_is_named_with_the_operation():
    compiled = mg.compile(lambda x, t: mg.cross_entropy((x @ W).named("scores"), t))
    with pytest.raises(mg.InputError, match=r"cross_entropy: index 3 at \(1,\) outside the classes, 0 … 2"):
        compiled(np.ones((2, 3)), np.array([0, 3]))


# Hooks.


def test_a_hook_of_a_parameter_sees_the_whole_gradient_once():
    w = Tensor([[1.0]], requires_grad=True)
    remove = w.hook(lambda g: g * 0.5)
    loss = lambda x: mg.scan(lambda c, z: (c + z @ w, None), mg.zeros((1, 1), "float64"), x)[0].sum()  # noqa: E731
    compiled = mg.compile(loss)
    assert compiled.value_and_grad(np.ones((3, 1, 1)))[1][w] == 1.5
    remove()
    assert compiled.value_and_grad(np.ones((3, 1, 1)))[1][w] == 3
    w.hook(lambda g: g * g)
    assert compiled.value_and_grad(np.ones((3, 1, 1)))[1][w] == 9


def test_a_hook_of_an_argument():
    x = Tensor(np.ones(3), requires_grad=True)
    compiled = mg.compile(lambda x: (x * x).sum())
    assert compiled.value_and_grad(x)[1][x].tolist() == [2, 2, 2]
    x.hook(lambda g: g + 1.0)
    assert compiled.value_and_grad(x)[1][x].tolist() == [3, 3, 3]


def test_a_hook_that_only_looks_runs_eagerly_at_every_call():
    w, seen = Tensor([2.0], requires_grad=True), []
    w.hook(lambda g: seen.append(np.asarray(g).item()))
    compiled = mg.compile(lambda x: (x * w).sum())
    with pytest.warns(UserWarning, match="runs eagerly"):
        compiled.value_and_grad(np.array([3.0]))
    compiled.value_and_grad(np.array([4.0]))
    assert seen == [3.0, 4.0]


# Who is a leaf.


def test_a_computed_argument_is_a_leaf_and_backward_refuses_it():
    a = leaf(3)
    b = mg.tanh(a)
    compiled = mg.compile(lambda x: (x * x).sum())
    np.testing.assert_allclose(compiled.value_and_grad(b)[1][b], 2 * b.value)
    with pytest.raises(mg.GraphError, match="detach"):
        compiled.backward(b)


def test_what_was_computed_outside_is_not_computed_anew_from_changed_leaves():
    a = leaf(3)
    b = mg.tanh(a)
    compiled = mg.compile(lambda x: (x * b).sum())
    x = np.arange(3.0)
    assert np.isclose(compiled(x).item(), (x * b.value).sum())
    a.value = a.value + 1
    with pytest.raises(mg.GraphError, match="in-place change"):
        compiled(x)


def test_gradients_within_the_function():
    w = leaf(3, seed=4)

    def function(x):
        y = (mg.tanh(w * x) ** 2).sum()
        return (mg.grad(y, w, create_graph=True) ** 2).sum()

    x = np.arange(3.0)
    right = function(Tensor(x))
    assert np.isclose(mg.compile(function)(x).item(), right.item(), rtol=1e-12)
    with pytest.raises(mg.GraphError, match="no_grad"), mg.no_grad():
        function(Tensor(x))


def test_a_gradient_inside_a_step_of_what_is_outside_runs_eagerly():
    w = leaf(1, 1, seed=5)

    def function(x):
        def step(c, e):
            return c + mg.grad((e * e).sum(), w, create_graph=True), None

        return mg.scan(step, x, w)[0].sum()

    with pytest.warns(UserWarning, match="inside of the step of a scan"):
        got = mg.compile(function)(np.ones((1, 1)))
    assert np.isclose(got.item(), function(Tensor(np.ones((1, 1)))).item())


# Reasons to run eagerly.


@pytest.mark.parametrize(
    "function, word",
    [
        (lambda x: mg.Tensor(np.asarray(x)).sum(), "symbol"),
        (lambda x: (x * np.ones(x.shape)).sum(), "not known"),
        (lambda x: x.astype("int64") @ np.eye(3, dtype=int), "integers"),
        (lambda x: x.undefined, "AttributeError"),
    ],
)
def test_no_crash_but_a_reason(function, word):
    compiled = mg.compile(function)
    try:
        right = function(Tensor(np.ones((2, 3))))
    except AttributeError:
        with pytest.raises(AttributeError):
            compiled(np.ones((2, 3)))
        return
    with pytest.warns(UserWarning, match=word):
        got = compiled(np.ones((2, 3)))
    np.testing.assert_array_equal(got.value, right.value)


def test_a_defect_of_the_compiler_is_a_warning_and_a_right_number(monkeypatch):
    monkeypatch.setattr(emitting.Emitter, "text", lambda self, stages: {}["no such key"])
    with pytest.warns(UserWarning, match="a defect of the compiler, please report it"):
        assert mg.compile(lambda x: (x * x).sum())(np.ones(3)).item() == 3


# Small integers and booleans.


def of_integers(x, y):
    return (
        x + y, x * y, abs(x) * y + x, x / (y + 1.5), (x > 0) == (y > 0), (x != y) == (x >= y), x != y,
        x.sum(axis=0), (x > y).sum(axis=1), x.mean(axis=0), x.max(axis=1), mg.logsumexp(x, 1),
        mg.where(x > y, x, y), mg.maximum(x, y),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "uint8"])
def test_integers_are_those_of_numpy(dtype):
    rng = np.random.default_rng(1)
    most = {"int32": 2**31 - 1, "int64": 2**40, "bool": 2, "uint8": 256}[dtype]
    x, y = rng.integers(0, most, (3, 2)).astype(dtype), rng.integers(0, most, (3, 2)).astype(dtype)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore" if dtype == "uint8" else "error")  # bytes run eagerly
        results = zip(mg.compile(of_integers)(x, y), of_integers(Tensor(x), Tensor(y)), strict=True)
    for got, right in results:
        assert got.dtype == right.dtype
        np.testing.assert_allclose(got.value, right.value, rtol=1e-14)
