"""The rewrites one by one: each leaves every value and gradient as it was, and does what its name says."""

from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from cells import CELLS, Output, run
from minigrad.compiler.rewrite import REWRITES, split_products
from minigrad.grad import ancestors
from minigrad.ops import OPS
from minigrad.scan import SCAN
from minigrad.trace import asked_of, evaluate, trace, trace_gradients

T, N, D, H, K = 5, 3, 4, 6, 3


def graph(kind: str):
    """Loss and all gradients as a graph, the sizes, the arguments' values and what eager mode computes."""
    rng = np.random.default_rng(0)
    cell = CELLS[kind](D, H, rng, "float64")
    output = Output(cell.outputs, K, rng, "float64")
    x, targets = mg.Tensor(rng.standard_normal((T, N, D)), requires_grad=True), rng.integers(0, K, (T, N))

    def loss(x, targets):
        return mg.cross_entropy(run(cell, x, output=output).y, targets)

    leaves = [*cell.parameters().values(), *output.parameters().values()]
    eager = loss(x, targets)
    eager.backward()
    traced = trace(loss, [x, targets], [True, False])
    traced.outputs = split_products(traced.outputs)
    outputs = [*traced.outputs, *trace_gradients(traced, [traced.arguments[0], *leaves])]
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


def test_source_of_the_lstm(golden):
    """The same program emits the same text, with the cell's own names in it."""
    rng = np.random.default_rng(0)
    cell = CELLS["lstm"](4, 8, rng)
    step = mg.compile(lambda x, dh: (run(cell, x).h * dh).sum())
    step.value_and_grad(np.zeros((4, 1, 4), "f4"), np.zeros((4, 1, 8), "f4"))
    golden("lstm_source.txt", step.source)
    assert step.source.count("_step(") >= 2 and "dW_f" in step.source and "c_tilde" in step.source
