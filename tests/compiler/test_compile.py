"""Compiled equals eager: every operation, every cell, drawn bodies, every way to lay out and share the work."""

from __future__ import annotations

import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import minigrad as mg
from cells import CELLS, Output, Stack, run
from minigrad import Tensor
from minigrad.compiler import CannotCompile, compile, plan
from minigrad.compiler.program import For
from minigrad.scanning import scan
from minigrad.tensor import apply

sys.path.insert(0, str(Path(__file__).parents[1] / "minigrad"))
from test_ops import SAMPLES

pytestmark = pytest.mark.as_shipped

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def close(a, b, dtype, what=""):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, what
    if a.dtype.kind != "f":
        np.testing.assert_array_equal(a, b, err_msg=what)
        return
    scale = max(1e-30, np.abs(b).max(initial=0))
    assert np.abs(a - b).max(initial=0) <= TOLERANCE[dtype] * scale, f"{what}: {np.abs(a - b).max() / scale}"


def assert_equal(function, arguments, leaves, dtype, compiled=None):
    """Value and all gradients of a compiled function, against the same function run on values."""
    for p in leaves:
        p.grad = None
    eager_arguments = [a if isinstance(a, Tensor) else Tensor(a) for a in arguments]
    loss = function(*eager_arguments)
    first = loss[0] if isinstance(loss, tuple) else loss
    first.backward()
    compiled = compiled or compile(function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, gradients = compiled.value_and_grad(*arguments)
    values = value if isinstance(value, tuple) else (value,)
    for ours, theirs in zip(values, loss if isinstance(loss, tuple) else (loss,), strict=True):
        close(ours.value, theirs.value, dtype, "value")
    for p in leaves:
        wanted = np.zeros(p.shape, dtype) if p.grad is None else p.grad  # a state that the step does not read
        close(gradients[p], wanted, dtype, f"gradient of {p.name}")
    return compiled


# Every operation.


@pytest.mark.parametrize("name", sorted(SAMPLES))
@settings(max_examples=1)
@given(data=st.data(), seed=st.integers(0, 100))
def test_every_operation_compiles_or_says_why_not(name, data, seed):
    op, rng = mg.OPS[name], np.random.default_rng(seed)
    arrays, params = SAMPLES[name](data.draw, rng)
    inputs = [
        Tensor(a, requires_grad=np.asarray(a).dtype.kind == "f", name=f"x{k}") for k, a in enumerate(arrays)
    ]
    differentiable = op.vjp is not None and any(x.requires_grad for x in inputs)

    def function(*xs):
        y = apply(op, xs, params)
        return (y * y).sum() if y.dtype.kind == "f" else y

    compiled = compile(function)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not differentiable:
            close(compiled(*inputs).value, function(*inputs).value, "float64", name)
        else:
            expected = function(*inputs)
            expected.backward()
            value, gradients = compiled.value_and_grad(*inputs)
            close(value.value, expected.value, "float64", name)
            for x in inputs:
                if x.requires_grad and x.grad is not None:
                    close(gradients[x], x.grad, "float64", f"gradient of {name}")
    assert all("runs eagerly" in str(w.message) and name in str(w.message) for w in caught)


# Every cell.


def model(kind, dtype, D=4, H=6, K=3, seed=0):
    rng = np.random.default_rng(seed)
    cell = CELLS[kind](D, H, rng, dtype)
    output = Output(cell.width, K, rng, dtype)
    for p in cell.parameters().values():
        p.value = p.value + 0.1 * rng.standard_normal(p.shape)  # biases too, so that none is constant
    if (
        kind == "mlstm"
    ):  # |n·q| stays below e^−m: what is divided by is not a small difference of large numbers
        cell.b_i.value = cell.b_i.value - 4.0

    def loss(x, targets, *state):
        r = run(cell, x, state or None, output=output)
        total = mg.cross_entropy(r.y, targets)
        for s in r.state if state else ():
            total = total + (s * s * s).mean()
        return (total, *r.state) if state else total

    return cell, output, loss


def state_of(name, drawn):
    """What is divided by stays away from 0, where float32 has few digits left: a normaliser n, a stabiliser m."""
    return {"n": abs(drawn) + 0.5, "m": -abs(drawn)}.get(name, drawn)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", sorted(CELLS))
def test_cell_compiled_equals_eager_at_every_size_with_one_program(kind, dtype):
    """Outputs, states in and out, and all gradients; another number of steps or sequences is no other program."""
    cell, output, loss = model(kind, dtype)
    rng, compiled = np.random.default_rng(1), compile(loss)
    leaves = [*cell.parameters().values(), *output.parameters().values()]
    for T, N in [(5, 3), (1, 1), (7, 1), (2, 6), (12, 32), (6, 4), (3, 3)]:
        x = Tensor(rng.standard_normal((T, N, 4)).astype(dtype), requires_grad=True, name="x")
        states = [
            Tensor(
                state_of(s.name, rng.standard_normal(s.shape)).astype(dtype), requires_grad=True, name=s.name
            )
            for s in cell.initial_state(N)
        ]
        assert_equal(loss, (x, rng.integers(0, 3, (T, N)), *states), [*leaves, x, *states], dtype, compiled)
    assert sum(map(len, compiled.variants.values())) == 1, "another T or N was compiled again"
    if dtype == "float32":  # the same without gradients is another program
        close(
            compiled(x.value, np.zeros((T, N), np.int64)).value,
            loss(x, np.zeros((T, N), np.int64)).value,
            dtype,
        )


def test_program_does_not_depend_on_the_width():
    sources = set()
    for D, H, K in [(4, 6, 3), (5, 7, 9), (11, 40, 13)]:
        _, _, loss = model("lstm", "float32", D, H, K)
        compiled = compile(loss)
        compiled.value_and_grad(np.zeros((2, 3, D), "f4"), np.zeros((2, 3), np.int64))
        sources.add(compiled.source)
    assert len(sources) == 1


def test_stacked_layers():
    rng = np.random.default_rng(3)
    layers, output = Stack(CELLS["lstm"], 5, 7, 3, rng, "float64"), Output(7, 5, rng, "float64")

    def function(x, targets):
        return mg.cross_entropy(layers(mg.one_hot(x, 5, "float64"), output=output).y, targets)

    codes = rng.integers(0, 5, (9, 4))
    close(compile(function)(codes[:-1], codes[1:]).value, function(codes[:-1], codes[1:]).value, "float64")
    assert_equal(
        function,
        (codes[:-1], codes[1:]),
        [*layers.parameters().values(), *output.parameters().values()],
        "float64",
    )


def test_embedding_is_gathered_and_scattered():
    rng = np.random.default_rng(4)
    cell, _, _ = model("rnn", "float64")
    table = Tensor(rng.standard_normal((10, 4)), requires_grad=True, name="E")

    def function(codes):
        r = run(cell, mg.gather(table, codes))
        return (r.h * r.h).sum()

    compiled = assert_equal(
        function, (rng.integers(0, 10, (6, 3)),), [table, *cell.parameters().values()], "float64"
    )
    codes = rng.integers(0, 10, (6, 3))
    codes[4, 1] = 10
    with pytest.raises(
        mg.InputError, match=r"gather of 'E' .*: index 10 at \(4, 1\) outside the rows, 0 … 9"
    ):
        compiled.value_and_grad(codes)


def test_window_of_a_compiled_run_opens_as_an_eager_graph():
    """Same parameters, the carried state at its start: the steps can be seen, and their gradients are the compiled ones."""
    cell, output, _ = model("lstm", "float64")
    rng = np.random.default_rng(5)
    x = Tensor(rng.standard_normal((20, 2, 4)), requires_grad=True)
    targets = rng.integers(0, 3, (20, 2))

    def function(x, targets):
        r = run(cell, x, output=output)
        return mg.cross_entropy(r.y, targets), r.h, r.c

    (_, h, c), gradients = compile(function).value_and_grad(x, targets)
    window = run(cell, x.value[15:], (h.value[14], c.value[14]), output=output).steps
    loss = mg.cross_entropy(mg.stack([s.y for s in window]), targets[15:]) * (5 / 20)
    loss.backward(record=True)
    for k, step in enumerate(window):
        close(step.h.value, h.value[15 + k], "float64", "state in the window")
        close(step.x.grad, gradients[x][15 + k], "float64", "gradient in the window")


# Drawn bodies.


@st.composite
def bodies(draw):
    """A step of random operations on a carry (N, H), an input (N, H) and a matrix."""
    plan = [
        (draw(st.sampled_from(["tanh", "sigmoid", "mul", "add", "sub", "matmul", "scale", "relu", "concat", "mean"])),
         draw(st.integers(0, 7)), draw(st.integers(0, 7)))
        for _ in range(draw(st.integers(1, 7)))
    ]  # fmt: skip
    return plan


def step_of(plan, W, V, b):
    def step(carry, x):
        values = [carry, x, mg.tanh(x @ W)]
        for name, p, q in plan:
            a, c = values[p % len(values)], values[q % len(values)]
            values.append(
                {
                    "tanh": lambda a=a: mg.tanh(a),
                    "sigmoid": lambda a=a: mg.sigmoid(a),
                    "mul": lambda a=a, c=c: mg.tanh(a) * c,
                    "add": lambda a=a, c=c: 0.5 * (a + c),
                    "sub": lambda a=a, c=c: a - 0.5 * c,
                    "matmul": lambda a=a: mg.tanh(a @ W + b),
                    "scale": lambda a=a: a * b,
                    "relu": lambda a=a: mg.relu(a),
                    "concat": lambda a=a, c=c: mg.tanh(mg.concat(a, c) @ V),
                    "mean": lambda a=a, c=c: c - 0.5 * a.mean(axis=-1, keepdims=True),
                }[name]()
            )
        return mg.tanh(values[-1] + 0.3 * carry), values[-1]

    return step


@settings(max_examples=25, phases=(Phase.explicit, Phase.generate))  # shrinking would compile for minutes
@given(plan=bodies(), seed=st.integers(0, 1000))
def test_drawn_bodies(plan, seed):
    rng, H = np.random.default_rng(seed), 5
    W, V, b = (Tensor(0.4 * rng.standard_normal(s), requires_grad=True, name=n) for n, s in
               (("W", (H, H)), ("V", (2 * H, H)), ("b", (H,))))  # fmt: skip
    x = Tensor(rng.standard_normal((4, 3, H)), requires_grad=True, name="x")
    first = Tensor(rng.standard_normal((3, H)), requires_grad=True, name="first")

    def function(x, first):
        last, outs = scan(step_of(plan, W, V, b), first, x)
        return (last * last).sum() + mg.tanh(outs).sum()

    def check(leaves):
        used = {n.number for n in mg.ancestors(function(x, first))}
        assert_equal(function, (x, first), [p for p in leaves if p.number in used], "float64")

    check([x, first, W, V, b])


# Layouts, threads, sizes.


@pytest.mark.parametrize("lay", ["reversed", "fortran", "strided", "read-only"])
def test_any_memory_layout(lay):
    cell, _, loss = model("lstm", "float64")
    x, y = (
        np.random.default_rng(6).standard_normal((6, 3, 4)),
        np.random.default_rng(6).integers(0, 3, (6, 3)),
    )
    laid = {
        "reversed": x[::-1], "fortran": np.asfortranarray(x), "strided": np.repeat(x, 2, axis=1)[:, ::2], "read-only": x.copy(),
    }[lay]  # fmt: skip
    laid.flags.writeable = False
    compiled = compile(loss)
    a, b = compiled.value_and_grad(laid, y), compiled.value_and_grad(np.ascontiguousarray(laid), y)
    assert a[0].item() == b[0].item()
    assert all(np.array_equal(a[1][p], b[1][p]) for p in cell.parameters().values())


@pytest.mark.parametrize("N", [1, 2, 7])
def test_threads_share_the_sequences(N, monkeypatch):
    monkeypatch.setattr(plan, "THREADS_FROM", 0)
    cell, output, loss = model("lstm", "float32", 9, 33, 5)
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((11, N, 9)).astype("f4"), rng.integers(0, 5, (11, N))
    one, two = compile(loss), compile(loss, threads=2)
    runs = [two.value_and_grad(x, y) for _ in range(3)]
    reference = one.value_and_grad(x, y)
    for p in [*cell.parameters().values(), *output.parameters().values()]:
        assert all(np.array_equal(r[1][p], runs[0][1][p]) for r in runs), "not the same bits"
        close(runs[0][1][p], reference[1][p], "float32")


def test_several_python_threads_at_once():
    cell, _, loss = model("lstm", "float64")
    rng, compiled = np.random.default_rng(8), compile(loss)
    cases = [(rng.standard_normal((T, 3, 4)), rng.integers(0, 3, (T, 3))) for T in (3, 9, 3, 9)]
    expected = [compiled.value_and_grad(*case) for case in cases]
    wrong: list[str] = []

    def work(case, right):
        for _ in range(40):
            value, gradients = compiled.value_and_grad(*case)
            if value.item() != right[0].item() or not np.array_equal(gradients[cell.b_f], right[1][cell.b_f]):
                wrong.append("another thread's numbers")

    workers = [threading.Thread(target=work, args=pair) for pair in zip(cases, expected, strict=True)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_no_sequences_give_zero_gradients_and_no_steps_are_refused_as_eagerly():
    cell, _, _ = model("lstm", "float64")

    def function(x):
        r = run(cell, x)
        return (r.h * r.h).sum() + (r.state[0] * r.state[0]).sum()

    compiled = compile(function)
    compiled.value_and_grad(np.ones((3, 2, 4)))
    value, gradients = compiled.value_and_grad(np.ones((4, 0, 4)))
    assert value.item() == 0
    assert all(not gradients[p].any() for p in cell.parameters().values())
    for N in (0, 3):
        with pytest.raises(mg.InputError, match="T = 0"):
            compiled.value_and_grad(np.ones((0, N, 4)))


def test_parameters_are_looked_up_at_every_call():
    _, output, loss = model("rnn", "float64")
    x, y = np.ones((3, 2, 4)), np.zeros((3, 2), np.int64)
    compiled = compile(loss)
    before = compiled(x, y).item()
    output.W_y.value = output.W_y.value * 2
    assert compiled(x, y).item() == pytest.approx(loss(Tensor(x), y).item(), rel=1e-12)
    assert compiled(x, y).item() != before


@pytest.mark.parametrize(
    "name", ["sum", "max", "logsumexp", "sign", "maximum", "tanh", "sigmoid", "exp", "relu"]
)
def test_infinities_and_nan_are_those_of_numpy(name):
    inf, nan = np.inf, np.nan
    x = np.array(
        [
            [inf, 1.0, 2.0],
            [-inf, -inf, -inf],
            [nan, 1.0, 2.0],
            [1.0, nan, 0.0],
            [-inf, 0.0, 1e4],
            [inf, -inf, 1.0],
        ]
    )
    function = {
        "sum": lambda x: x.sum(axis=1), "max": lambda x: x.max(axis=1), "logsumexp": lambda x: mg.logsumexp(x, 1),
        "sign": lambda x: apply(mg.OPS["sign"], (x,)), "maximum": lambda x: mg.maximum(x, 0.5), "relu": mg.relu,
    }.get(name) or getattr(mg, name)  # fmt: skip
    with np.errstate(all="ignore"):
        expected = function(Tensor(x)).value
    np.testing.assert_allclose(compile(function)(x).value, expected, rtol=1e-14)


# What cannot be compiled.


def branch(x):
    return x.sum() if x.sum() > 0 else -x.sum()


def python_loop(x):
    total = x[0] * 0.0
    for t in range(x.shape[0]):
        total = total + x[t]
    return total.sum()


@pytest.mark.parametrize("function, word", [(branch, "minigrad.where"), (python_loop, "minigrad.scan")])
def test_python_control_flow_runs_eagerly_and_says_why(function, word):
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    compiled = compile(function)
    with pytest.warns(UserWarning, match=word):
        value, gradients = compiled.value_and_grad(x)
    assert value.item() == 15
    np.testing.assert_array_equal(gradients[x], np.ones((3, 2)))
    compiled.value_and_grad(x)  # says it once


@pytest.mark.parametrize("dtype", ["float16", "complex128"])
def test_other_element_types_run_eagerly(dtype):
    compiled = compile(lambda x: (x * x).sum())
    with pytest.warns(UserWarning, match=dtype):
        assert compiled(np.ones(3, dtype)).item() == 3


def test_carry_that_changes_shape_is_named():
    x = np.ones((3, 2, 4))

    def function(x):
        return scan(lambda c, x: (mg.concat(c, x), None), mg.zeros((2, 4), "float64"), x)[0].sum()

    with pytest.raises(mg.ShapeError, match="carry"):
        compile(function)(x)
    with pytest.raises(mg.ShapeError, match="t=1"):
        function(Tensor(x))


def test_loss_must_be_one_number():
    with pytest.raises(mg.ShapeError, match="single number"):
        compile(lambda x: x * 2.0).value_and_grad(Tensor(np.ones(3), requires_grad=True))


def test_cannot_compile_is_a_graph_error():
    assert issubclass(CannotCompile, mg.GraphError)


# Threads share the sequences of a loop if the lines of all operations of its step can be for some rows.

BY_ROWS = {
    "broadcast": lambda h, x: h * x[:, :1],
    "concat and slice": lambda h, x: mg.concat(h, x)[:, 3:],
    "detach": lambda h, x: h.detach() * x[:, :1],
    "reductions": lambda h, x: h * x.sum(axis=1, keepdims=True) + mg.logsumexp(h, axis=1, keepdims=True),
    "product": lambda h, x: h @ Tensor(np.ones((4, 4)), name="W"),
}
BY_ONE = {
    "a row of another": lambda h, x: h[::-1] + x[:, :1],
    "batched product": lambda h, x: (h.reshape(-1, 2, 2) @ h.reshape(-1, 2, 2)).reshape(-1, 4),
    "no lines for rows": lambda h, x: mg.cumsum(h, axis=1),
}


@pytest.mark.parametrize("what", [*BY_ROWS, *BY_ONE])
def test_which_steps_are_shared_among_threads(what, rng, monkeypatch):
    step = {**BY_ROWS, **BY_ONE}[what]
    monkeypatch.setattr(plan, "THREADS_FROM", -1)

    def function(x):
        def both(h, x):
            h = step(h, x)
            return h, h

        return mg.scan(both, mg.broadcast_to(x[0, :, :1], (x.shape[1], 4)), x)[1].sum()

    x = rng.normal(size=(3, 5, 3))
    compiled = mg.compile(function, threads=3)
    stages = compiled.variant([x], False)[0].program.stages
    (shared,) = [s.parallel for s in stages if any(isinstance(x, For) and x.counter == "t" for x in s.body)]
    assert shared == (what in BY_ROWS)
    np.testing.assert_allclose(compiled(x).value, function(mg.Tensor(x)).value, rtol=1e-12)
