"""Every picture of a graph is had as the arrays behind it: values and gradients against the nodes themselves."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import plain, words_of
from forward import EVERY, carried_states, network

import cells
import viz
from viz.language.status import norm, norms


@pytest.mark.parametrize("case", ["lstm", "gru", "janet", "masked"])
@pytest.mark.parametrize("level", ["step", "gate", "operation"])
def test_the_steps_that_are_drawn(case, level):
    loss, run = network(**EVERY[case])
    data = viz.draw(loss, run.steps, level=level).data
    for k, t in enumerate(data["t"]):
        step = run.steps[t - 1]
        for name in step:
            np.testing.assert_array_equal(data[name][k], step[name].value)
            np.testing.assert_array_equal(data[f"d{name}"][k], step[name].grad)
        np.testing.assert_array_equal(data["x"][k], step.x.value)


def test_lines_and_weights():
    loss, run = network(T=4)
    data = viz.draw(loss, run.steps).data
    for k, t in enumerate(data["t"][1:], 1):
        s = run.steps[t - 1]
        assert data["c before → c"][k] == pytest.approx(norm(s.c.grad * s.f.value))
        assert data["f → c"][k] == pytest.approx(norm(s.f.grad))
    W = run.steps[0].f.inputs[0].inputs[0].inputs[1]
    np.testing.assert_array_equal(data["W_f"], W.value)
    np.testing.assert_array_equal(data["dW_f"], W.grad)


@pytest.mark.parametrize("case", cells.CELLS)
def test_gates_are_the_values_and_gradients_of_all_steps(case):
    loss, run = network(**EVERY[case])
    for picture in (viz.gates(loss, run.steps), viz.gates(run.steps)):
        for name in [n for n in run.steps[0] if n != "h" or n in carried_states(run)]:
            shape = (len(run.steps), -1, run.steps[0][name].shape[-1])  # a matrix's rows lie below each other
            values = [s[name].value for s in run.steps]
            unread = np.full(values[0].shape, np.nan)  # such as the last c, where only the next step reads it
            slopes = [unread if s[name].grad is None else s[name].grad for s in run.steps]
            np.testing.assert_array_equal(picture.data[name], np.reshape(values, shape))
            shown = picture.data[f"d{name}"]
            if case == "lstm_zoneout" and name == "c_new" and np.isnan(shown[-1]).all():
                shown[-1] = slopes[-1]  # without the loss it is not known that nobody reads the last c
            np.testing.assert_array_equal(shown, np.reshape(slopes, shape))


def test_gates_with_and_without_their_gradients():
    loss, run = network(T=3, backward=False)
    words = words_of(viz.gates(run.steps))
    assert "∂L/∂f" not in words and np.isnan(viz.gates(run.steps).data["df"]).all()
    loss.backward(record=True)
    assert "∂L/∂f" in words_of(viz.gates(run.steps))
    assert "∂L/∂f" not in words_of(viz.gates(run.steps, gradients=False))


def test_the_gradient_of_the_states():
    loss, run = network()
    data = viz.gradient(loss, run.steps).data
    np.testing.assert_array_equal(data["dc"][1:], [s.c.grad for s in run.steps])
    parts = data["dc from h, same step"] + data["dc straight along"]
    np.testing.assert_allclose(parts, data["dc"], rtol=1e-12, atol=1e-16)


def test_layers_stand_before_the_names():
    loss, _ = network(**EVERY["stacked"])
    for view in (viz.draw, viz.gates, viz.gradient, viz.paths, viz.bptt, viz.direct):
        assert any(name.startswith("layer 2 / ") for name in view(loss).data), view


def test_a_graph_without_steps():
    loss = plain()
    data = viz.draw(loss).data
    leaf = next(n for n in loss.inputs[0].inputs[0].inputs[0].inputs[0].inputs if n.name == "W")
    np.testing.assert_array_equal(data["dW"], leaf.grad)
    assert data["loss"] == loss.value and data["matmul"].shape == (2, 4)


def test_norms_of_a_batch():
    batch = np.random.default_rng(0).standard_normal((6, 4, 5))
    batch[1], batch[2, 0, 0], batch[3, 0, 0], batch[4] = 0, np.nan, -np.inf, 1e200
    np.testing.assert_allclose(norms(batch), [norm(b) for b in batch])
    np.testing.assert_allclose(norms(np.zeros((2, 0))), [0, 0])
