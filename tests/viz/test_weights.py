"""`weights_by_step`: what each step adds to each weight, against finite differences, and the sum against grad."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import texts, words_of
from forward import EVERY, network, slope

import cells
import viz
from minigrad import InputError, Tensor, concat, cross_entropy, sqrt, tanh
from viz.chart.panels import Heat
from viz.language.status import NOT_A_NUMBER, NOT_COMPUTED, ZERO, norm
from viz.language.text import number
from viz.measure.ways import weight_names
from viz.measure.weights import AT_ONCE, by_step
from viz.read.network import read


def heats_of(picture) -> tuple[Heat, Heat]:
    """The cells by step, and the sums beside them."""
    steps, sums = picture.sheet.every
    return steps, sums


@pytest.mark.parametrize("case", EVERY)
def test_the_steps_add_up_to_the_gradient(case):
    loss, _ = network(**EVERY[case])
    net = read(loss)
    names = weight_names(net)
    by_name = {p.name: p for p in by_step(net)}
    weights = [n for n in net.nodes if n.op is None and n.requires_grad]
    assert len(weights) == len(by_name) == len(names)
    for W in weights:
        p = by_name[names[W.number]]
        if W.grad is None:  # a first step that reads no state, such as a GRU's at T = 1, may leave none
            assert p.total is None
            continue
        assert norm(p.total - W.grad) <= 1e-12 * sum(
            p.norms.values()
        )  # which may cancel, as of an sLSTM's b_i
        assert p.agreement is None or p.agreement == pytest.approx(norm(W.grad) / sum(p.norms.values()))


@pytest.mark.parametrize("case", [*cells.CELLS, "stacked", "masked", "from the end"])
def test_every_step_against_finite_differences(case):
    """A weight is moved as one step alone sees it: the slope along the part is its norm."""
    loss, _ = network(**EVERY[case])
    net, rng, t = read(loss), np.random.default_rng(1), 3
    places = {n: g.t for n, g in net.group_of.items() if g.kind in ("quantity", "shared", "output")}
    parts = {p.name: p for p in by_step(net)}
    for W in [n for n in net.nodes if n.op is None and n.requires_grad]:
        direction = rng.standard_normal(W.shape)
        found = [
            slope(loss, W, d, lambda n: places.get(n.number) == t)
            for d in (direction, *np.eye(W.size).reshape(W.size, *W.shape)[:: max(1, W.size // 4)])
        ]
        seeds = [
            (n, k, n.contributions[k])
            for n in net.nodes
            if places.get(n.number) == t
            for k, x in enumerate(n.inputs)
            if x is W
        ]
        part = sum((p for _, _, p in seeds), np.zeros(W.shape))
        assert parts[weight_names(net)[W.number]].norms.get(t, 0.0) == pytest.approx(norm(part), rel=1e-12)
        assert found[0] == pytest.approx(float((part * direction).sum()), rel=2e-5, abs=1e-9)
        np.testing.assert_allclose(found[1:], part.ravel()[:: max(1, W.size // 4)], rtol=2e-5, atol=1e-9)


def test_a_weight_that_is_normed_before_the_steps_is_still_taken_apart():
    rng = np.random.default_rng(0)

    class Normed(cells.Cell):
        def build(self, rng):
            self.parameter("v", rng.standard_normal((5, 3)))

        def step(self, x, h_prev):
            return dict(h=tanh(concat(h_prev, x) @ self.W))

    cell = Normed(2, 3, rng, "float64")
    cell.W = cell.v / sqrt((cell.v * cell.v).sum(axis=0, keepdims=True))
    loss = cells.run(cell, rng.standard_normal((4, 2, 2))).h.sum()
    loss.backward(record=True)
    (p,) = by_step(read(loss))
    assert p.name == "v" and set(p.norms) == {1, 2, 3, 4}
    np.testing.assert_allclose(p.total, cell.v.grad, rtol=1e-12)


def test_an_output_layer_over_all_steps_stands_apart():
    rng = np.random.default_rng(0)
    cell, head = cells.GRU(3, 4, rng, "float64"), cells.Output(4, 3, rng, "float64")
    h = cells.run(cell, rng.standard_normal((5, 2, 3))).h
    loss = cross_entropy(head(h), rng.integers(0, 3, (5, 2)))
    loss.backward(record=True)
    found = {p.name: p for p in by_step(read(loss))}
    assert list(found["W_y"].norms) == [AT_ONCE] and AT_ONCE not in found["W_z"].norms
    np.testing.assert_allclose(found["W_y"].total, head.W_y.grad, rtol=1e-12)
    picture = viz.weights_by_step(loss)
    words, (steps, sums) = texts(picture.svg()), heats_of(picture)
    assert "at once" in words and number(norm(head.W_y.grad)) in words
    assert "“at once”: used outside of the steps, in one product for all." in words_of(picture)
    k, size = list(steps.labels).index("W_y"), number(norm(head.W_y.grad))
    assert list(sums.columns) == [AT_ONCE, "sum", "agree"]
    assert [c.said for c in sums.rows[k]] == [size, size, ""]
    assert {(c.said, c.status) for c in steps.rows[k]} == {("", "")}  # no step adds any, and none is missing
    assert sums.rows[0][0].said == sums.rows[0][0].status == ""


def test_numbers_and_data():
    loss, run = network(T=4)
    picture = viz.weights_by_step(loss, run.steps)
    words, data, (steps, sums) = texts(picture.svg()), picture.data, heats_of(picture)
    assert list(steps.columns) == ["1", "2", "3", "4"] and list(sums.columns) == ["sum", "agree"]
    assert list(steps.labels) == [p.name for p in by_step(read(loss))]
    for p, row, last in zip(by_step(read(loss)), steps.rows, sums.rows, strict=True):
        assert [c.said for c in row] == [number(p.norms.get(t, 0)) for t in (1, 2, 3, 4)]
        assert [c.said for c in last] == [number(norm(p.total)), f"{100 * p.agreement:.0f} %"]
        assert all(number(v) in words for v in p.norms.values()) and number(norm(p.total)) in words
        assert f"{100 * p.agreement:.0f} %" in words
        np.testing.assert_allclose(data[f"d{p.name}"], [p.norms.get(t, 0) for t in data["t"]])
    biggest = max((v, p.name, t) for p in by_step(read(loss)) for t, v in p.norms.items())
    said = picture.sheet.headlines[0]
    assert said.startswith(f"Largest: {biggest[1]} at t = {biggest[2]} ({number(biggest[0])}).")
    assert said in words_of(picture)
    sizes = np.sum([list(data[f"d{p.name}"]) for p in by_step(read(loss))], axis=0)
    half = max(t for t in (1, 2, 3, 4) if sizes[t - 1 :].sum() >= sizes.sum() / 2)
    assert f"Half of all norms comes from t ≥ {half}." in said
    worst = min(by_step(read(loss)), key=lambda p: p.agreement)
    assert f"The steps agree least on {worst.name} ({100 * worst.agreement:.0f} %)." in said


def test_the_layers_of_a_stack_are_named():
    loss, _ = network(**EVERY["stacked"])
    data = viz.weights_by_step(loss).data
    assert {"layer 1 / dW_f", "layer 2 / dW_f", "dW_y", "layer 2 / db_o sum"} <= set(data)


def test_states_before_backward_zero_nan_single_and_a_thousand():
    loss, run = network(backward=False)
    picture = viz.weights_by_step(loss, run.steps)
    words, (steps, sums) = texts(picture.svg()), heats_of(picture)
    assert "Not computed: run loss.backward(record=True)." in words and "0" not in words
    assert "No gradient is known yet: loss.backward(record=True) was not run." in words
    assert (
        {c.status for row in steps.rows for c in row}
        == {row[0].status for row in sums.rows}
        == {NOT_COMPUTED}
    )
    assert picture.sheet.statuses == [NOT_COMPUTED] and np.isnan(picture.data["dW_f"]).all()
    nothing = (run.h * 0.0).sum()
    nothing.backward(record=True)
    picture = viz.weights_by_step(nothing)
    assert "Exactly zero at every step." in texts(picture.svg()) and picture.sheet.statuses == [ZERO]
    bad = run.steps[0].h.sum() + run.steps[1].h[0, 0] * np.inf
    with np.errstate(invalid="ignore"):
        bad.backward(record=True)
    picture = viz.weights_by_step(bad)
    words = words_of(picture)
    assert "not a number (NaN, ∞)" in words and "Not a number: W_f" in words
    steps, _ = heats_of(picture)
    for name, row in zip(steps.labels, steps.rows, strict=True):
        finite = np.isfinite(picture.data[f"d{name}"])
        np.testing.assert_array_equal([c.status != NOT_A_NUMBER for c in row], finite)
    assert viz.weights_by_step(network(T=1)[0]).data["dW_f"].shape == (1,)
    long = viz.weights_by_step(network(T=1000, N=1, H=2)[0])
    assert long.data["dW_f"].shape == (1000,)
    words = words_of(long)
    assert "Every 38th of 1000 steps is drawn." in words
    assert "Sum: over all steps, the gradient that training uses." in words
    assert heats_of(long)[0].columns[-2:] == ["962", "1000"]


def test_bad_input():
    with pytest.raises(InputError, match="no step in this graph reads a weight"):
        viz.weights_by_step((Tensor(np.ones(2), requires_grad=True) * 2.0).sum())
    with pytest.raises(InputError, match="cannot draw str"):
        viz.weights_by_step("loss")
