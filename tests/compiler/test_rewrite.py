"""The rewrites one by one: each leaves every value and gradient as it was, and does what its name says."""

from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from cells import CELLS, Output, run
from minigrad.compiler.rewrite import REWRITES, rewritten, split_products
from minigrad.ops import OPS
from minigrad.reverse import ancestors
from minigrad.scanning import SCAN, stacked
from minigrad.trace import asked_of, evaluate, trace, trace_gradients

T, N, D, H, K = 5, 3, 4, 6, 3


def graph(kind: str):
    """Loss and all gradients as a graph, the sizes, the arguments' values and what eager mode computes."""
    rng = np.random.default_rng(0)
    cell = CELLS[kind](D, H, rng, "float64")
    output = Output(cell.width, K, rng, "float64")
    x, targets = mg.Tensor(rng.standard_normal((T, N, D)), requires_grad=True), rng.integers(0, K, (T, N))

    def loss(x, targets):
        return mg.cross_entropy(run(cell, x, output=output).y, targets)

    leaves = [*cell.parameters().values(), *output.parameters().values()]
    eager = loss(x, targets)
    eager.backward()
    traced = trace(loss, [x, targets], [True, False])
    traced.results = split_products(traced.results)
    outputs = [*traced.results, *trace_gradients(traced, [traced.arguments[0], *leaves])]
    values = dict(zip((a.number for a in traced.arguments), (x.value, targets), strict=True))
    return (
        outputs,
        values,
        traced.sizes([(T, N, D), (T, N)]),
        [eager.value, x.grad, *(p.grad for p in leaves)],
    )


def bodies(outputs) -> list[list[mg.Tensor]]:
    asked = asked_of(outputs)
    return [n.params[0].nodes(*asked.get(n.number, [])) for n in ancestors(*outputs) if n.op is SCAN]


@pytest.mark.parametrize("kind", sorted(CELLS))
def test_every_rewrite_leaves_values_as_they_were(kind):
    outputs, values, sizes, expected = graph(kind)
    for name, rewrite in {"none": list, **REWRITES}.items():
        outputs = rewrite(outputs)
        for ours, right in zip(evaluate(outputs, values, sizes), expected, strict=True):
            np.testing.assert_allclose(ours, right, rtol=1e-12, atol=1e-14, err_msg=name)


def test_what_the_rewrites_do_to_the_lstm():
    outputs, *_ = graph("lstm")
    products = lambda outputs: [sum(n.op is OPS["matmul"] for n in body) for body in bodies(outputs)]  # noqa: E731
    assert not any(n.op is OPS["concat"] for body in bodies(outputs) for n in body if n.op), (
        "products are split"
    )
    before = products(outputs)
    for rewrite in REWRITES.values():
        outputs = rewrite(outputs)
    # Forward: one product with the state for each of four gates; backward: one for each gate back to the state.
    assert products(outputs) == [4, 4] and sum(before) > 20
    assert not any(n.op is OPS["transpose"] and n.inputs[0].name for body in bodies(outputs) for n in body)


# The log: which node of the new graph stands for which one of the old.


def places(outputs) -> dict[int, tuple[mg.Tensor, mg.Tensor | None]]:
    """Every node that is computed, by number, with the scan in whose body it is."""
    asked, found = asked_of(outputs), {}
    for n in ancestors(*outputs):
        inner = n.params[0].nodes(*asked.get(n.number, [])) if n.op is SCAN else []
        found.update({x.number: (x, n) for x in inner})
        found.update({n.number: (n, None)} if n.op not in (None, SCAN) else {})
    return found


def all_values(outputs, values, sizes) -> dict[int, np.ndarray]:
    """What every node is worth; those in a body at all steps, which come first."""
    found = places(outputs)
    asked = [n if loop is None else stacked(loop, n) for n, loop in found.values()]
    return dict(zip(found, evaluate(asked, values, sizes), strict=True))


def same(new: np.ndarray, old: np.ndarray, left: bool) -> bool:
    """Are these the same numbers, or, if it left the loop, what every step has, or the sum of all steps?"""
    if left and new.size != old.size:
        alike = all(np.array_equal(step, old[0]) for step in old)
        old = old[0] if alike and np.array_equal(new.ravel(), old[0].ravel()) else old.sum(axis=0)
    return new.size == old.size and np.allclose(new.ravel(), old.ravel(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", sorted(CELLS))
def test_what_a_node_stands_for_has_its_value(kind):
    outputs, values, sizes, _ = graph(kind)
    for name, rewrite in REWRITES.items():
        before, was = places(outputs), all_values(outputs, values, sizes)
        outputs, log = rewritten(rewrite, outputs)
        after, now = places(outputs), all_values(outputs, values, sizes)
        pairs = [(n, loop, *before[log[k]]) for k, (n, loop) in after.items() if log.get(k) in before]
        assert len(pairs) >= sum(k not in before for k in after) * 0.5, f"{name} logs what it copies"
        for new, loop, old, from_loop in pairs:
            left = from_loop is not None and loop is None
            assert left or (loop is None) == (from_loop is None), f"{name} moved {new} into a loop"
            assert same(now[new.number], was[old.number], left), f"{name}: {new} does not stand for {old}"


def moved(kind: str, last: str) -> list[str]:
    """The products and sums that a rewrite took out of a loop: of what, in words of the graph before."""
    outputs, *_ = graph(kind)
    for name, rewrite in REWRITES.items():
        before = places(outputs)
        outputs, log = rewritten(rewrite, outputs)
        if name == last:
            break
    inside = {log.get(k, k) for k, (_, loop) in places(outputs).items() if loop is not None}
    found = []
    for k, (n, loop) in places(outputs).items():
        old, from_loop = before.get(log.get(k, k), (None, None))
        if n.op in (OPS["matmul"], OPS["sum"]) and loop is None and from_loop is not None:
            assert old.op is n.op and old.number not in inside, "it is computed once"
            found.append("Σ " * (n.op is OPS["sum"]) + " · ".join(said(x) for x in old.inputs))
    return sorted(found)


def said(x: mg.Tensor) -> str:
    """The name of a tensor, ᵀ for one that was turned; a slice of a weight has its name."""
    if x.op is OPS["transpose"]:
        return said(x.inputs[0]) + "ᵀ"
    return said(x.inputs[0]) if x.op is not None and x.op.name in ("slice", "reshape") else x.name or "…"


@pytest.mark.parametrize(
    ("kind", "gates"),  # of each gate: its weight, the gradient of its sum, the state that is multiplied
    [
        ("lstm", [(f"W_{g}", f"dz_{g}{'_tilde' * (g == 'c')}", "h") for g in "fico"]),
        ("gru", [("W_z", "dz_z", "h"), ("W_r", "dz_r", "h"), ("W", "dz_h_tilde", "…")]),
    ],
)
def test_the_log_says_what_left_the_loops(kind, gates):
    """Products with the input stand before the forward loop; what makes y, dx, dW and db stands after the loops."""
    assert moved(kind, "hoist") == sorted(["dy_t · W_yᵀ", *(f"x · {W}" for W, _, _ in gates)])
    expected = [p for W, dz, h in gates for p in (f"{dz} · {W}ᵀ", f"xᵀ · {dz}", f"{h}ᵀ · {dz}")]
    expected += [f"Σ {dz}" for _, dz, _ in gates if kind == "lstm"]  # this GRU has no biases
    assert moved(kind, "sink") == sorted(["h · W_y", "hᵀ · dy_t", "Σ dy_t", *expected])


def test_the_log_says_what_was_split():
    """A sum stands for each product with a concatenation; the parts, and the slices of its weight, are new."""
    cell = CELLS["lstm"](D, H, np.random.default_rng(0))
    outputs = trace(lambda x: run(cell, x).h, [mg.Tensor(np.zeros((T, N, D), "f4"))], [False]).results
    before = places(outputs)
    outputs, log = rewritten(split_products, outputs)
    pairs = [
        (n.op.name, before[log[k]][0].op.name if k in log else "") for k, (n, _) in places(outputs).items()
    ]
    assert pairs.count(("add", "matmul")) == 4
    assert pairs.count(("matmul", "")) == pairs.count(("slice", "")) == 8
    assert all(old in (new, "") for new, old in pairs if old != "matmul")


def test_source_of_the_lstm(golden):
    """The same program emits the same text, with the cell's own names in it."""
    rng = np.random.default_rng(0)
    cell = CELLS["lstm"](4, 8, rng)
    step = mg.compile(lambda x, dh: (run(cell, x).h * dh).sum())
    step.value_and_grad(np.zeros((4, 1, 4), "f4"), np.zeros((4, 1, 8), "f4"))
    golden("lstm_source.txt", step.source)
    assert step.source.count("_step(") >= 2 and "dW_f" in step.source and "c_tilde" in step.source


@pytest.mark.parametrize("kind", sorted(CELLS))
def test_products_with_one_hot_rows_are_looked_up(kind):
    """Values and gradients as eager, in and out of the loop, and no product with the classes is left."""
    rng = np.random.default_rng(0)
    cell = CELLS[kind](D, H, rng, "float64")
    output = Output(cell.width, D, rng, "float64")

    def loss(codes):
        y = run(cell, mg.one_hot(codes[:-1], D, "float64"), output=output).y
        return mg.cross_entropy(y, codes[1:]) + (mg.one_hot(codes[0], D, "float64") @ table).sum()

    table = mg.Tensor(rng.standard_normal((D, 2)), requires_grad=True, name="table")
    leaves = [*cell.parameters().values(), *output.parameters().values(), table]
    compiled, codes = mg.compile(loss), rng.integers(0, D, (T, N))
    value, gradients = compiled.value_and_grad(codes)
    eager = loss(mg.Tensor(codes))
    eager.backward()
    np.testing.assert_allclose(value.value, eager.value, rtol=1e-12)
    for leaf in leaves:
        np.testing.assert_allclose(gradients[leaf], leaf.grad, rtol=1e-11, atol=1e-13, err_msg=leaf.name)
    assert "gather(" in compiled.source and "compute_cast" not in compiled.source
    with pytest.raises(mg.InputError, match=r"one_hot: index .* outside the classes, 0 … "):
        compiled.value_and_grad(codes + D - codes.max())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("place", ["table", "other"])
def test_what_is_not_finite_comes_through_a_look_up_as_through_the_product(number, place):
    """0 · ∞ is NaN: also in the rows that no one-hot row picks.  Large numbers, whose sum is not finite, stay."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((5, 4)).astype("f4")
    other = rng.standard_normal((3, 4)).astype("f4")
    {"table": table, "other": other}[place][1:3, 2] = number
    W = mg.Tensor(table, requires_grad=True, name="W")
    codes = np.array([0, 2, 2])

    def loss(codes, other):
        return ((mg.one_hot(codes, 5) @ W) * other).sum()

    with np.errstate(all="ignore"):
        eager = loss(mg.Tensor(codes), mg.Tensor(other))
        eager.backward()
        value, gradients = mg.compile(loss).value_and_grad(codes, other)
    np.testing.assert_allclose(value.value, eager.value, rtol=1e-6)
    np.testing.assert_allclose(gradients[W], W.grad, rtol=1e-6)


def test_only_rows_that_are_one_hot_for_certain_are_looked_up():
    """Not what may be assigned anew, counts otherwise, or has other classes than those that were checked."""
    rng = np.random.default_rng(0)
    W, codes = mg.Tensor(rng.standard_normal((4, 3)), name="W"), np.array([[0, 3], [1, 1]])
    classes = mg.Tensor(np.arange(4))

    def product(made):
        return lambda codes: (made(codes.reshape((2, 2, 1))).astype("float64") @ W).sum()

    for made in (lambda c: c == classes, lambda c: c == np.array([0, 1, 3, 2]), lambda c: c == np.arange(4)):
        compiled = mg.compile(product(made))
        assert compiled(codes).item() == pytest.approx(product(made)(mg.Tensor(codes)).item())
        assert "gather(" not in compiled.source
        assert compiled(codes + 7).item() == 0


ROWS = {  # of one number, by way of what a look-up looks through
    "number": lambda x: x.sum().reshape(1, 1),
    "vector": lambda x: x[:1].reshape(1, 1),
    "cast": lambda x: x.sum().astype("int64").reshape(1, 1).astype("float32"),
    "equal to a number": lambda x: (x.sum().reshape(1, 1) == 2).astype("float32"),
    "equal to one of itself": lambda x: (x.sum().reshape(1, 1) == x.sum()).astype("float32"),
    "class of a number": lambda x: mg.one_hot(x.sum().astype("int64"), 5).reshape(5, 1)[:1],
}


@pytest.mark.parametrize("rows", ROWS)
def test_a_row_made_of_a_single_number_is_multiplied_as_any_other(rows):
    W, x = mg.Tensor(np.arange(1, 4, dtype="float32")[None], requires_grad=True), np.full(2, 2, "float32")
    step = mg.compile(lambda x: ((ROWS[rows](x) @ W) ** 2).sum())
    (value, gradients), loss = step.value_and_grad(x), ((ROWS[rows](mg.Tensor(x)) @ W) ** 2).sum()
    loss.backward()
    assert not step.eager, step.eager
    np.testing.assert_array_equal(value.value, loss.value)
    np.testing.assert_array_equal(gradients[W], W.grad)
