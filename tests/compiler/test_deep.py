"""Programs of thousands of operations: they compile, are what eager is, and cost what they have of unequal parts."""

from __future__ import annotations

import ast
import sys
import warnings

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad.compiler import plan
from minigrad.ops import OPS
from minigrad.reverse import ancestors
from tests.compiler.test_llvm import assert_same_bits

rng = np.random.default_rng(0)
W = mg.Tensor(0.4 * rng.standard_normal((4, 4)), requires_grad=True, name="W")
b = mg.Tensor(0.1 * rng.standard_normal(4), requires_grad=True, name="b")
x = mg.Tensor(rng.standard_normal((3, 4)), requires_grad=True, name="x")


def assert_compiled_is_eager(function, *arguments, more=(), tolerance=1e-12):
    """Values and every gradient; a warning, as of what runs eagerly, is an error."""
    compiled = mg.compile(function)
    learned = [*(a for a in arguments if a.requires_grad), *more]
    for leaf in learned:
        leaf.grad = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, gradients = compiled.value_and_grad(*arguments)
        alone = compiled(*arguments)
    loss = function(*arguments)
    loss.backward()
    np.testing.assert_allclose(value.value, loss.value, rtol=tolerance)
    np.testing.assert_allclose(alone.value, loss.value, rtol=tolerance)
    for leaf in learned:
        if leaf in gradients:
            scale = float(np.abs(leaf.grad).max())
            np.testing.assert_allclose(gradients[leaf], leaf.grad, rtol=tolerance, atol=tolerance * scale)
    return compiled


# Chains.


def elementwise(n):
    def function(x):
        for _ in range(n // 2):
            x = mg.tanh(x * 1.01)
        return x.sum()

    return function


def products(n):
    def function(x):
        for _ in range(n):
            x = x @ W
        return x.sum()

    return function


def mixed(n):
    def function(x):
        for _ in range(n // 5):
            x = mg.tanh(x @ W + b) * 0.5 + x * 0.5
        return (x * x).sum()

    return function


def sums(n):
    def function(x):
        total = x
        for k in range(n // 3):
            total = total + (x * (1 / (k + 1))) @ W
        return total.sum()

    return function


def losses(n):
    def function(x):
        total = 0.0
        for _ in range(n // 4):
            x = mg.sigmoid(x) * 1.5
            total = total + x.sum()
        return total

    return function


def moves(n):
    def function(x):
        for _ in range(n // 6):
            x = x.reshape((4, 3)).T * 1.01
            x = mg.concat(x[1:], x[:1], axis=0)
        return (x * x).sum()

    return function


@pytest.mark.parametrize("chain", [elementwise, products, mixed, sums, losses, moves])
def test_a_chain_of_5000_operations(chain):
    assert_compiled_is_eager(chain(5_000), x, more=[W, b], tolerance=1e-11)


@pytest.mark.slow
def test_a_chain_of_20000_operations_of_every_kind():
    assert_compiled_is_eager(mixed(20_000), x, more=[W, b], tolerance=1e-10)


def unequal(n):
    """Operations drawn so that no stretch is like another."""

    def function(x):
        draw = np.random.default_rng(1)
        values = [x]
        for _ in range(n):
            a, c = values[-1], values[-1 - int(draw.integers(0, min(len(values), 5)))]
            ways = [
                lambda a, c: mg.tanh(a + c), lambda a, c: a * 0.9, lambda a, c: a @ W,
                lambda a, c: mg.sigmoid(c) * a, lambda a, c: a - c * 0.3,
                lambda a, c: a - a.mean(axis=1, keepdims=True),
            ]  # fmt: skip
            values.append(ways[int(draw.integers(0, len(ways)))](a, c))
        return mg.tanh(values[-1]).sum()

    return function


def test_operations_of_which_no_stretch_is_like_another():
    assert_compiled_is_eager(unequal(300), x, more=[W])


def depth(node: ast.AST) -> int:
    return 1 + max(map(depth, ast.iter_child_nodes(node)), default=0)


def test_no_statement_nests_deep():
    compiled = assert_compiled_is_eager(elementwise(1_000), x)
    statements = [s for s in ast.walk(ast.parse(compiled.source)) if isinstance(s, ast.Assign)]
    assert (
        max(map(depth, statements)) < 60
    )  # a term on each level of 12, in brackets, with its operator and call


def test_the_square_of_a_square_is_written_once():
    def function(x):
        for _ in range(30):
            x = (x * 0.5) ** 2 + 0.4
        return x.sum()

    assert len(assert_compiled_is_eager(function, x).source) < 10_000


@pytest.mark.parametrize("chain", [elementwise, products, mixed, sums, losses])
def test_twice_as_many_equal_steps_are_hardly_more_source(chain):
    short, long = (assert_compiled_is_eager(chain(n), x, more=[W, b]) for n in (1_200, 2_400))
    assert len(long.source) < 1.4 * len(short.source)


# In a scan's step.


@pytest.mark.parametrize(
    "step",
    [
        lambda h, a, k: mg.tanh(h * 1.01 + a * 0.01),
        lambda h, a, k: mg.tanh(h @ W + a),
        lambda h, a, k: h * 0.5 + (a * (1 / (k + 1))) @ W,
        lambda h, a, k: mg.concat(h[:, 1:], h[:, :1]),
        lambda h, a, k: h @ W.T,
    ],
)
def test_a_step_of_hundreds_of_operations(step):
    def function(x):
        def whole(h, a):
            parts = []
            for k in range(150):
                h = step(h, a, k)
                parts.append(h)
            return h, sum(parts[1:], parts[0])

        h, outs = mg.scan(whole, x, mg.stack([x, x * 0.5, x * 0.1]))
        return h.sum() + (outs * outs).mean()

    assert_compiled_is_eager(function, x, more=[W], tolerance=1e-11)


def test_a_step_that_moves_a_thousand_times_is_no_recursion():
    def function(x):
        def step(h, a):
            for _ in range(700):
                h = mg.concat(h[:, 1:], h[:, :1])
            return mg.tanh(h + a), h * a

        h, outs = mg.scan(step, x, mg.stack([x, x]))
        return h.sum() + outs.sum()

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(600)
    try:
        mg.compile(function).value_and_grad(x)
    finally:
        sys.setrecursionlimit(limit)


# Steps that are unrolled in Python.


def unrolled(cell, T, every=False):
    def function(xs):
        state = cell.initial_state(2)
        total = 0.0
        for t in range(T):
            quantities = cell.step(xs[t], *state)
            state = tuple(quantities[s] for s in cell.state.split())
            if every or t == T - 1:
                total = total + (state[0] * state[0]).sum()
        return total

    return function


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("kind", ["gru", "lstm", "rnn"])
def test_many_unrolled_steps_cost_little_more_than_few(kind, every):
    cell = cells.CELLS[kind](3, 5, np.random.default_rng(0), dtype="float64")
    sources = []
    for T in (8, 72, 144):
        xs = mg.Tensor(np.random.default_rng(T).standard_normal((T, 2, 3)), requires_grad=True)
        compiled = assert_compiled_is_eager(
            unrolled(cell, T, every), xs, more=list(cell.parameters().values()), tolerance=1e-11
        )
        sources.append(len(compiled.source.split("\n")))
    # A step that is not a call adds dozens of lines; the names of arrays that are added at the end may come on top.
    assert sources[2] < 1.1 * sources[1] + 72, sources


@pytest.mark.as_shipped
def test_unrolled_steps_give_the_bits_of_numba_with_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(plan, "THREADS_FROM", -1)
    cell = cells.GRU(3, 5, np.random.default_rng(0))
    xs = mg.Tensor(np.random.default_rng(1).standard_normal((20, 2, 3)).astype("f"), requires_grad=True)
    for threads in (1, 3):
        compiled = mg.compile(unrolled(cell, 20), threads=threads)
        assert_same_bits(compiled, xs)
        assert "in the order that stands in the table" in compiled.source


def test_steps_that_differ_by_a_number_are_one_function():
    def discounted(T):
        def function(x):
            total, h = 0.0, x
            for t in range(T):
                h = mg.tanh(h @ W)
                total = total + 0.97**t * (h * (t + 0.25)).sum()
            return total

        return function

    short, long = (assert_compiled_is_eager(discounted(T), x, more=[W]) for T in (150, 300))
    assert len(long.source.split("\n")) < 1.2 * len(short.source.split("\n"))


def test_a_weight_is_packed_once_though_many_stages_read_it():
    compiled = mg.compile(mixed(100))
    compiled.value_and_grad(x)
    assert compiled.source.count("pack(W,") == 2  # as it is, and for its gradient transposed


def test_a_computed_weight_that_is_added_to_in_place_is_packed_anew():
    def function(x):
        A = W @ W
        for k in range(4):
            x = x @ A
            A = A + (x.T @ x) @ (W * (0.1 + k))  # no sooner than x is there
        return (x @ A).sum()

    compiled = mg.compile(function)
    np.testing.assert_allclose(compiled(x).value, function(x).value, rtol=1e-12)
    assert_compiled_is_eager(function, x, more=[W])


@pytest.mark.parametrize("also", ["a stack", "a carry", "a term"])
def test_a_sum_over_steps_that_is_read_on_its_way_stays_in_the_loop(also):
    def function(x):
        def step(carry, a):
            total, other = carry
            part = total + (a * a).sum(axis=0)
            whole = part + (a * 0.5).sum(axis=0)
            other = other * 0.5 + part if also == "a carry" else other + a[0]
            if also == "a term":
                whole = whole + (a * part).sum(axis=0)
            return (whole, other), part if also == "a stack" else a

        (total, other), outs = mg.scan(step, (b * 0, b * 0), mg.stack([x, x * 0.5, x * 0.1]))
        return (total * other).sum() + outs.mean()

    assert_compiled_is_eager(function, x)


# Parts that are added before they are placed.


def test_the_gradient_of_a_weight_that_is_read_in_parts_is_joined_once():
    def function(x):
        h = x
        for _ in range(6):
            h = mg.tanh(h[:, :2] @ W[:2] + h[:, 2:] @ W[2:])
        return h.sum()

    compiled = assert_compiled_is_eager(function, x, more=[W])
    graph = compiled.last.stages_of["join places"]  # type: ignore[union-attr]
    assert not any(n.op is OPS["place"] for n in ancestors(*graph))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ((x[1:] * x[:-1]).sum() + (x[1:] ** 3).sum()),  # parts that overlap
        lambda x: (x[:1] * 2).sum() + (x[:1] ** 2).sum() + (x[2:] ** 3).sum(),  # a gap between them
        lambda x: (x[:, 1:] ** 2).sum() + (x[1:] ** 2).sum() + (x[:, :1] ** 2).sum(),  # along two axes
        lambda x: (x[:1] ** 2).sum() + (x[1:] ** 3).sum() + (x**2).sum() + (x[1:] * 3).sum(),
        lambda x: (x[1:2] ** 2).sum() + (x[1:] ** 3).sum() + (x[:1] * 3).sum() + (x[1:3] ** 2).sum(),  # one in another
        lambda x: (W[::2] ** 2).sum() * x.sum() + (W[::2] * W[:2]).sum(),  # with steps between
        lambda x: mg.scan(lambda h, a: (mg.concat(h[:, 2:] * a[:, :2], h[:, :2] + h[:, 2:]), None), x, mg.stack([x, x]))[0].sum(),
    ],
)  # fmt: skip
def test_parts_of_every_kind(function):
    assert_compiled_is_eager(function, x, more=[W])


@pytest.mark.parametrize("at", [0, 150, 299])
def test_a_look_up_that_is_outside_is_told_from_deep_within(at):
    """Long bodies are compiled in parts, and what each part found wrong has to come out of it."""
    table = mg.Tensor(rng.standard_normal((7, 4)), name="table")

    def step(carry, x):
        (h,) = carry
        for k in range(300):
            moved = x["codes"][k] + (h[:, 0] > 99).astype(
                "int64"
            )  # of the state: it cannot be looked up before
            h = mg.tanh(h @ W) + mg.gather(table, moved)
        return (h,), {}

    def function(codes):
        (h,), _ = mg.scan(step, (mg.zeros((3, 4), "float64"),), {"codes": codes})
        return h.sum()

    compiled = mg.compile(function)
    codes = np.random.default_rng(0).integers(0, 7, (2, 300, 3))
    np.testing.assert_allclose(compiled(codes).value, function(codes).value, rtol=1e-12)
    for wrong in (7, -1):
        outside = codes.copy()
        outside[1, at, 1] = wrong
        with pytest.raises(mg.InputError, match=r"gather of 'table' .*: index .* outside the rows, 0 …"):
            compiled(outside)
