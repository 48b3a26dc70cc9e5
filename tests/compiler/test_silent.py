"""Programs in which a rule of the compiler once looked at less than it should: each was a wrong number without a word.

They are run by the interpreter of the emitted source, which also sees what is read before it was written, what lies
outside of an array, and what two threads touch at once; what concerns machine code itself is compiled.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad import Tensor
from minigrad.scanning import flatten
from tests.drawn.interpret import interpreted


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def leaf(*shape, seed=0):
    return Tensor(drawn(*shape, seed=seed), requires_grad=True, name=f"w{seed}")


def same(function, *arguments, leaves=(), compiled=None, parts=(1, 3)):
    """Value and gradients of the interpreted source against the eager run; returns what was compiled."""
    compiled = compiled or mg.compile(function)
    for n in parts:
        tensors = [a if isinstance(a, Tensor) else Tensor(a) for a in arguments]
        results = flatten(function(*tensors))[0]
        wrt = [*leaves, *{id(a): a for a in tensors if a.requires_grad}.values()]
        gradients = mg.grad(results[0], wrt)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values, found = interpreted(compiled, *arguments, parts=n)
        for got, right in zip(flatten(values)[0], results, strict=True):
            np.testing.assert_allclose(got.value, right.value, rtol=1e-10, atol=1e-12)
        for x, g in zip(wrt, gradients, strict=True):
            np.testing.assert_allclose(found[x], g.value, rtol=1e-9, atol=1e-12, err_msg=str(x.name))
    return compiled


W, V, B = leaf(3, 3, seed=1), leaf(3, 3, seed=2), leaf(3, seed=3)


# Threads and memory.


@pytest.mark.parametrize(
    "step", [lambda h, v: mg.tanh(h @ v), lambda h, v: mg.tanh(h @ h + v), lambda h, v: mg.tanh(v @ h)]
)
def test_a_product_with_a_matrix_that_the_step_has_made(step):
    def function(x):
        h, o = mg.scan(lambda h, v: (step(h, v), h), x[0], x)
        return (o * o).sum() + h.sum()

    same(function, drawn(4, 3, 3))


def test_a_matrix_on_both_sides():
    M = leaf(6, 6, seed=4)
    same(lambda x: mg.tanh(M @ mg.tanh(x @ M)).sum(), drawn(6, 6), leaves=[M])
    same(lambda x: mg.tanh(M.T @ mg.tanh(x @ M)).sum(), drawn(6, 6), leaves=[M])


def test_inputs_of_different_numbers_of_rows_in_one_step():
    A, C = leaf(3, 4, seed=5), leaf(2, 4, seed=6)

    def function(x, y):
        def step(h, xs):
            a, b = xs
            h = mg.tanh(h + a @ A + (b @ C).sum(axis=0))
            return h, h

        return (mg.scan(step, mg.zeros((x.shape[1], 4), "float64"), (x, y))[1] ** 2).sum()

    same(function, drawn(5, 3, 3), drawn(5, 2, 2, seed=1), leaves=[A, C])
    same(function, drawn(5, 2, 3), drawn(5, 4, 2, seed=1), leaves=[A, C])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("step", [lambda h, v: mg.tanh(v), lambda h, v: v + h @ W], ids=["loop", "product"])
@pytest.mark.parametrize(
    "handed", [lambda s: s, lambda s: s[-1], lambda s: s.detach()], ids=["whole", "last", "cut"]
)
def test_a_sequence_that_the_step_reads_and_hands_on(handed, step, reverse):
    """No operation of the step reads it as a whole, and yet no step may write over it."""

    def function(x):
        zeros = mg.zeros(x.shape[1:], "float64")
        s = mg.scan(lambda h, v: (mg.tanh(h + v), mg.sin(h) * v), zeros, x)[1]

        def one(state, v):
            h, k = state
            y = step(h, v)
            return (mg.tanh(0.5 * h + y * k.sum()), handed(s)), y

        (h, k), o = mg.scan(one, (zeros, handed(x)), s, reverse=reverse)
        return (h * h).sum() + (k * k).sum() + (o * o).sum()

    same(function, drawn(4, 3, 3))
    same(function, Tensor(drawn(3, 3, 3), requires_grad=True))


# What is assigned anew.


def test_a_first_state_that_was_zero_while_compiling():
    b = Tensor(np.zeros(3), requires_grad=True)
    Z = Tensor(np.zeros((3, 3)))
    functions = [
        lambda x: (
            mg.scan(lambda c, v: (c + v.sum(axis=0), None), mg.broadcast_to(b, (3,)), x)[0] ** 2
        ).sum(),
        lambda x: (
            (mg.scan(lambda c, v: (c + v.T @ v, None), mg.broadcast_to(Z, (3, 3)), x)[0] ** 2).sum() + b.sum()
        ),
    ]
    for function in functions:
        b.value, Z.value = np.zeros(3), np.zeros((3, 3))
        compiled = same(function, drawn(4, 2, 3), leaves=[b])
        b.value, Z.value = np.ones(3), np.ones((3, 3))
        same(function, drawn(4, 2, 3), leaves=[b], compiled=compiled)


def test_a_detached_first_state_stays_live():
    h0 = Tensor(np.ones((2, 3)), requires_grad=True)
    cell = cells.RNN(3, 3, np.random.default_rng(0), "float64")
    for function in (
        lambda x: (mg.scan(lambda c, v: (mg.tanh(c + v), None), h0.detach(), x)[0] ** 2).sum(),
        lambda x: (cells.run(cell, x, (h0.detach(),)).h ** 2).sum(),
    ):
        h0.value = np.ones((2, 3))
        compiled = same(function, drawn(4, 2, 3))
        h0.value = np.full((2, 3), -0.5)
        same(function, drawn(4, 2, 3), compiled=compiled)


def test_what_is_computed_inside_no_grad_stays_live_and_lets_nothing_through():
    P = leaf(3, seed=7)

    def function(x):
        with mg.no_grad():
            s, t = P * 2, mg.tanh(x)
        return (x * s * t * P).sum()

    compiled = same(function, drawn(2, 3), leaves=[P])
    P.value = P.value + 1
    same(function, drawn(2, 3), leaves=[P], compiled=compiled)
    same(function, Tensor(drawn(2, 3), requires_grad=True), leaves=[P])


def test_a_first_call_inside_no_grad():
    P = leaf(3, seed=8)
    function = lambda x: (x * (P * 2)).sum()  # noqa: E731
    compiled = mg.compile(function)
    x = drawn(2, 3)
    with mg.no_grad():
        interpreted(compiled, x, gradients=False)
        interpreted(compiled, x)
    P.value = P.value + 1
    same(function, x, leaves=[P], compiled=compiled)
    assert interpreted(compiled, x, gradients=False)[0].item() == pytest.approx(function(Tensor(x)).item())


def test_a_compiled_function_inside_of_another():
    P = leaf(3, seed=9)
    inner = mg.compile(lambda w: w * w)
    function = lambda x: (x * inner(P) * P).sum()  # noqa: E731
    compiled = same(function, drawn(2, 3), leaves=[P])
    P.value = P.value + 1
    same(function, drawn(2, 3), leaves=[P], compiled=compiled)


def test_what_was_computed_outside_of_constants_is_not_computed_anew():
    S = Tensor(drawn(3))
    S2 = S * 2
    compiled = same(lambda x: (x * S2 * B).sum(), drawn(2, 3), leaves=[B])
    S.value = S.value + 1
    with pytest.raises(mg.GraphError, match="in-place change"):
        interpreted(compiled, drawn(2, 3))


@pytest.mark.parametrize("learns", [True, False])
def test_a_number_that_the_function_makes_once(learns):
    class Lazy:
        pass

    m = Lazy()

    def function(x):
        if not hasattr(m, "s"):
            m.s = Tensor(2.0, requires_grad=learns)
        return (x * m.s * B).sum()

    compiled = mg.compile(function)
    interpreted(compiled, drawn(2, 3))
    m.s.value = 5.0
    same(function, drawn(2, 3), compiled=compiled)


# Sizes.


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum() if x.shape[0] == 1 else (x * x).sum(),
        lambda x: x.sum() if x.shape[0] != 3 else (x * x).sum(),
        lambda x: x.sum() if x.shape[0] in (2, 1) else (x * x).sum(),
    ],
)
def test_a_branch_on_a_size_is_taken_at_every_call(function):
    compiled = mg.compile(function)
    for n in (3, 1, 4, 2):
        same(function, drawn(n), compiled=compiled)


def test_a_branch_on_two_sizes():
    function = lambda x, y: x.sum() + y.sum() if x.shape[0] == y.shape[0] else (x * x).sum() - y.sum()  # noqa: E731
    compiled = mg.compile(function)
    for n, m in ((3, 2), (3, 3), (2, 4)):
        same(function, drawn(n), drawn(m), compiled=compiled)


@pytest.mark.parametrize("good, bad", [((6,), (8,)), ((3, 2), (2, 2))])
def test_a_reshape_fits_at_every_call(good, bad):
    compiled = mg.compile(lambda x: (x.reshape(2, 3) * 2).sum())
    for first, then in ((bad, good), (good, bad)):
        for shape in (first, then):
            if shape == good:
                assert np.isclose(
                    interpreted(compiled, drawn(*shape), gradients=False)[0].item(), 2 * drawn(*shape).sum()
                )
            else:
                with pytest.raises(mg.ShapeError, match="reshape"):
                    interpreted(compiled, drawn(*shape), gradients=False)


# Hooks, and one tensor in two places.


def hooked(where):
    def function(x):
        def step(h, v):
            z = h @ W + v
            if where == "body":
                z.hook(lambda g: g * 0.5)
            if where == "input":
                v.hook(lambda g: g * 0.5)
            if where == "state":
                h.hook(lambda g: g * 0.5)
            h = mg.tanh(z)
            if where == "returned":
                h.hook(mg.tanh)
            return h, h

        y = mg.tanh(mg.concat(x, x) @ mg.concat(V, V, axis=0))
        if where == "outside":
            y.hook(lambda g: g * 0.5)
        last, out = mg.scan(step, mg.zeros((2, 3), "float64"), y)
        if where == "stack":
            out.hook(mg.tanh)
        return (out * out).sum() + last.sum()

    return function


@pytest.mark.parametrize("where", ["outside", "body", "input", "state", "returned", "stack"])
def test_hooks_of_what_is_no_leaf(where):
    same(hooked(where), drawn(4, 2, 3), leaves=[W, V])


def test_one_tensor_in_two_places():
    Q = leaf(3, seed=10)

    def inner(a):
        y = (a * Q * Q).sum()
        return (mg.grad(y, a, create_graph=True) ** 2).sum()

    def twice(a, b):
        y = (a * b * b).sum()
        return (mg.grad(y, a, create_graph=True) ** 2).sum() + y

    for hook in (None, mg.tanh):
        remove = Q.hook(hook) if hook else lambda: None
        same(lambda a, b: (a * b * b).sum(), Q, Q)
        same(lambda a: (a * Q * Q).sum(), Q)
        same(inner, Q)
        same(twice, Q, Q)
        compiled = same(twice, Q, leaf(3, seed=11))
        same(twice, Q, Q, compiled=compiled)
        remove()


def test_a_hook_that_comes_after_a_call_without_gradients():
    Q = leaf(3, seed=12)
    function = lambda x: (mg.grad((x * Q * Q).sum(), Q) * x).sum()  # noqa: E731
    compiled, x = mg.compile(function), drawn(3)
    interpreted(compiled, x, gradients=False)
    Q.hook(lambda g: g * 10)
    assert interpreted(compiled, x, gradients=False)[0].item() == pytest.approx(function(Tensor(x)).item())


# Machine code.


def test_integers_wrap_and_zeros_keep_their_sign():
    def function(small, large, z):
        return (
            (small**2).astype("float64"), small**3, (small**2) > 0, (large * large) > 0, (large * 2) > 0, large + large > 0,
            -large, large - large * 3, 1 / (0 - z), 1 / -z,
        )  # fmt: skip

    arguments = np.array([50000, -3], "i4"), np.array([2**62, -5]), np.array([0.0, -0.0])
    with np.errstate(all="ignore"):
        for got, right in zip(
            mg.compile(function)(*arguments), function(*map(Tensor, arguments)), strict=True
        ):
            assert got.dtype == right.dtype
            np.testing.assert_array_equal(got.value, right.value)


# check=True raises no false alarm.


def test_a_check_is_quiet_where_all_is_right():
    k = leaf(3, 4, seed=13), leaf(4, seed=14)
    q = drawn(2, 4, seed=15).astype("f4")
    K, b = (Tensor(p.value.astype("f4"), requires_grad=True, name="b") for p in k)

    def scores(x):  # what is added to all scores changes no softmax: the gradient of b is 0
        s = mg.softmax(q @ (x @ K + b).T)
        return ((s @ x) ** 2).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mg.compile(scores, check=True).value_and_grad(drawn(5, 3).astype("f4"))
        mg.compile(lambda x: (x[:2] ** 2).sum() + (x[-3:] ** 3).sum(), check=True).value_and_grad(
            Tensor(drawn(5), requires_grad=True)
        )
