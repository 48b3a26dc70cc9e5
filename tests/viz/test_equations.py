"""Equations as a reader sees them (goldens), and as numbers: the printed text of every cell is computed,
column by column as it is written, and must give the cell's own values and gradients.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from reader import computes

import cells
from minigrad import (
    InputError,
    Tensor,
    concat,
    cross_entropy,
    exp,
    layer_norm,
    log_softmax,
    logsumexp,
    maximum,
    norm,
    relu,
    shift,
    softmax,
    softplus,
    tanh,
    where,
)
from minigrad.tensor import OPS, apply
from viz.formula.equations import equations
from viz.formula.words import label

sys.path.append(str(Path(__file__).parents[1] / "cells"))
from literature import LITERATURE

pytestmark = pytest.mark.smoke
D, H = 3, 4
every_cell = pytest.mark.parametrize("name", list(cells.CELLS))


def make(name: str, seed=0) -> cells.Cell:
    return cells.CELLS[name](D, H, np.random.default_rng(seed))


@every_cell
def test_text_and_latex_are_the_goldens(name, golden):
    printed = equations(make(name))
    golden(f"equations_{name}.txt", printed.text)
    golden(f"equations_{name}.tex", printed.latex)
    assert str(printed) == printed.text.rstrip() and printed._repr_latex_().count("$$") == 4


def test_the_lstm_is_the_slides():
    lines = equations(cells.LSTM(D, H, np.random.default_rng(0)), backward=False).text.split("\n")
    assert lines[2:] == [
        "  f_t = σ(W_f·[h_{t−1}, x_t] + b_f)",
        "  i_t = σ(W_i·[h_{t−1}, x_t] + b_i)",
        "  c̃_t = tanh(W_c·[h_{t−1}, x_t] + b_c)",
        "  c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t",
        "  o_t = σ(W_o·[h_{t−1}, x_t] + b_o)",
        "  h_t = o_t ⊙ tanh(c_t)",
        "",
    ]


# The printed text, computed.


def random_cell(kind, rng, inputs=D):
    cell = kind(inputs, H, rng, "float64")
    for p in cell.parameters().values():
        p.value = p.value + 0.3 * rng.standard_normal(p.shape)
    return cell


@every_cell
def test_the_printed_text_computes_the_cells_values_and_gradients(name):
    rng = np.random.default_rng(1)
    computes(random_cell(cells.CELLS[name], rng), rng)


@pytest.mark.parametrize("name", list(LITERATURE))
def test_the_printed_text_computes_the_cells_of_the_literature(name):
    rng = np.random.default_rng(1)
    computes(random_cell(LITERATURE[name], rng, D + 2 * H if name == "zoneout_lstm" else D), rng)


# Cells of one's own.


class Own:
    """Not a cells.Cell: only what `equations` asks for."""

    state, inputs, hidden = "h", 2, 3

    def __init__(self, step):
        rng = np.random.default_rng(0)
        self.W = Tensor(rng.standard_normal((5, 3)), requires_grad=True, name="W")
        self.V = Tensor(rng.standard_normal((3, 3)), requires_grad=True, name="V")
        self._step = step

    def parameters(self):
        return {"W": self.W, "V": self.V}

    def step(self, x, h_prev):
        return self._step(self, x, h_prev)


def forward_of_cell(cell) -> list[str]:
    return [f"{e.left.text} {e.sign} {e.right.text}" for e in equations(cell, backward=False).forward]


def forward_of(step) -> list[str]:
    return forward_of_cell(Own(step))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda c, x, h: {"h": h - (h - h * h)}, "h_t = h_{t−1} − (h_{t−1} − h_{t−1}²)"),
        (lambda c, x, h: {"h": h * (h + 1) * 2}, "h_t = 2 h_{t−1} ⊙ (h_{t−1} + 1)"),
        (lambda c, x, h: {"h": -(h + 1)}, "h_t = −(h_{t−1} + 1)"),
        (lambda c, x, h: {"h": tanh(h) + -(h * 3.0)}, "h_t = tanh(h_{t−1}) − 3 h_{t−1}"),
        (lambda c, x, h: {"h": (h * 0.5 + 1) @ c.V}, "h_t = V·(0.5 h_{t−1} + 1)"),
        (lambda c, x, h: {"h": h * (h @ c.V)}, "h_t = h_{t−1} ⊙ (V·h_{t−1})"),
        (lambda c, x, h: {"h": h / (h * h)}, "h_t = h_{t−1} / h_{t−1}²"),
        (lambda c, x, h: {"h": (h / 2.0) / (h / 3.0)}, "h_t = h_{t−1} / 2 / (h_{t−1} / 3)"),
        (lambda c, x, h: {"h": h * (x[:, :1] / h)}, "h_t = h_{t−1} ⊙ (x_t[0:1] / h_{t−1})"),
        (lambda c, x, h: {"h": (h * h) ** 2}, "h_t = (h_{t−1}²)²"),
        (lambda c, x, h: {"h": (h + 1) ** -0.5 * 0.5}, "h_t = 0.5 (h_{t−1} + 1)^(−0.5)"),
        (lambda c, x, h: {"h": -(h @ c.V) - (-h) * 2.0}, "h_t = −V·h_{t−1} + 2 h_{t−1}"),
        (lambda c, x, h: {"h": relu(h @ c.V)}, "h_t = relu(V·h_{t−1})"),
        (lambda c, x, h: {"h": h - h.mean(axis=-1, keepdims=True)}, "h_t = h_{t−1} − mean(h_{t−1})"),
    ],
)
def test_brackets_stand_where_they_are_needed_and_nowhere_else(step, expected):
    assert forward_of(step) == [expected]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda h: h.detach() * h, "stop(h_{t−1}) ⊙ h_{t−1}"),
        (lambda h: h - (2.0 * h).astype("int64").astype("float64"), "h_{t−1} − trunc(2 h_{t−1})"),
        (lambda h: h.astype("float32").astype("float64"), "float64(float32(h_{t−1}))"),
        (lambda h: (h > 0.5).astype("float64") + h, "1[h_{t−1} > 0.5] + h_{t−1}"),
        (lambda h: concat(h[:, 1:], h[:, :1]), "[h_{t−1}[1:3], h_{t−1}[0:1]]"),
        (lambda h: h[:, ::-1] + h[:, 2][:, None], "h_{t−1}[2::-1] + h_{t−1}[2]"),
        (lambda h: where(h > h * 0.5 + 1.0, 0.0, h), "h_{t−1} ⊙ 1[h_{t−1} ≤ 0.5 h_{t−1} + 1]"),
        (
            lambda h: where((h == 0.0) != (h > 1.0), h, 2.0),
            "where((h_{t−1} = 0) ≠ (h_{t−1} > 1), h_{t−1}, 2)",
        ),
        (lambda h: h + (-h - 2.0), "h_{t−1} − h_{t−1} − 2"),
        (lambda h: h - h.max(axis=-1, keepdims=True), "h_{t−1} − max(h_{t−1})"),
        (lambda h: h * h.sum(axis=0), "h_{t−1} ⊙ (Σ h_{t−1})"),
        (lambda h: h - h.mean(axis=0), "h_{t−1} − mean_sequences(h_{t−1})"),
        (lambda h: shift(h.T, 1).T, "shift(h_{t−1}, 1)"),
        (lambda h: h.reshape((h.shape[0], 3, 1)) @ h.reshape((h.shape[0], 1, 3)) @ np.ones(3), None),
        (lambda h: softmax(h, mask=h > 0.0), "softmax(where(h_{t−1} > 0, h_{t−1}, −∞))"),
    ],
)
def test_what_changes_values_or_gradients_is_visible(step, expected):
    (line,) = forward_of(lambda c, x, h: {"h": step(h)})
    if expected is not None:
        assert line == f"h_t = {expected}"
    else:
        assert "h_{t−1}·h_{t−1}ᵀ" in line


def by_hand(x):
    e = exp(x - max_of(x))
    return e / (e.sum(axis=-1, keepdims=True) + 1e-30)


def max_of(x):
    return apply(OPS["top"], (x,), ((1,), True))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (relu, "relu(V·h)"),
        (softplus, "softplus(V·h)"),
        (softmax, "softmax(V·h)"),
        (by_hand, "softmax(V·h)"),  # whoever wrote it
        (log_softmax, "log_softmax(V·h)"),
        (lambda a: a * logsumexp(a, axis=-1, keepdims=True), "u_1 ⊙ logsumexp(u_1)"),
        (layer_norm, "layer_norm(V·h)"),
        (lambda a: layer_norm(a, epsilon=0.1), "layer_norm(V·h, 0.1)"),
        (lambda a: a / norm(a, axis=-1, keepdims=True), "u_1 / norm(u_1)"),
        (lambda a: a * cross_entropy(a, np.arange(3) * np.ones((1, 1)) / 3 + 0.0 * a),
         "u_1 ⊙ mean_sequences(cross_entropy(u_1, "),
        (lambda a: a * cross_entropy(a, (abs(a[:, 0]) < 1.0).astype("int64")),
         "u_1 ⊙ mean_sequences(cross_entropy(u_1, 1[1 > |u_1[0]|]))"),
        (lambda a: a - exp(a).sum(axis=-1, keepdims=True), "u_1 − Σ_units exp(u_1)"),  # none of them
        (lambda a: exp(a - max_of(a)) / (exp(a - max_of(a)).sum(axis=-1, keepdims=True) + 1e-30), "exp("),
        (lambda a: where(a <= 0, 0, a + 1.0), "(u_1 + 1) ⊙ 1[u_1 > 0]"),
    ],
)  # fmt: skip
def test_compositions_have_their_names(step, expected):
    line = forward_of(lambda c, x, h: {"h": step(h @ c.V)})[-1].replace("h_{t−1}", "h")
    assert line.startswith(f"h_t = {expected}") and (expected[-1] not in ")]" or line == f"h_t = {expected}")


def test_gradients_of_compositions_are_short():
    def backward(function):
        return equations(Own(lambda c, x, h: {"h": function(h)})).text.split("backward")[1]

    assert "= h_t ⊙ (dh_t − Σ_units dh_t ⊙ h_t)" in backward(softmax)
    assert "= dh_t − (Σ_units dh_t) ⊙ softmax(h_{t−1})" in backward(log_softmax)
    assert "= (dh_t − mean(dh_t) − h_t ⊙ mean(dh_t ⊙ h_t)) / std(h_{t−1})" in backward(layer_norm)
    assert "= dh_t ⊙ 1[h_t > 0]" in backward(relu) and "= dh_t ⊙ σ(h_{t−1})" in backward(softplus)
    assert "= dh_t ⊙ (1[h_{t−1} > 0.5] + 0.5 ⊙ 1[h_{t−1} = 0.5])" in backward(lambda h: maximum(h, 0.5))


@pytest.mark.parametrize(
    ("name", "text", "tex"),
    [
        ("c_tilde", "c̃_t", r"\tilde{c}_{t}"),
        ("log_h_tilde", "log h̃_t", r"\log \tilde{h}_{t}"),
        ("log_h", "log h_t", r"\log h_{t}"),
        ("h_hat", "h_{hat,t}", r"h_{\mathrm{hat},t}"),
        ("hyper_c_tilde", "hyper_{c̃,t}", r"\mathit{hyper}_{\tilde{c},t}"),
        ("log", "log_t", r"\mathit{log}_{t}"),
        ("log_", "log_t", r"\mathit{log}_{t}"),
        ("_tilde", "_tilde_t", r"\mathit{\_tilde}_{t}"),
    ],
)
def test_labels(name, text, tex):
    assert (label(name, "t").text, label(name, "t").tex) == (text, tex)


def test_labels_that_look_alike_are_numbered():
    def step(c, x, h):
        gates = {"h": tanh(h @ c.V), "c_tilde": h * 3.0, "c\u0303": h * 2.0, "dh": h + 1.0, "u_1": h - 1.0}
        return gates | {"u": tanh(h + 2.0), "a_h": h * h}

    printed = equations(Own(step))
    lefts = [e.left.text for e in printed.forward]
    assert lefts == ["h_t", "c̃_t", "c̃_{2,t}", "dh_{2,t}", "u_{1,t}", "u_t", "a_{h,t}"]
    assert len({e.left.tex for e in printed.forward}) == len(lefts)
    assert [e.left.text for e in printed.backward] == ["da_{h,2,t}", "dh_{t−1}", "dV"]  # a_h is another

    class Two(Own):
        def parameters(self):
            return {"one.W": self.W, "two.W": self.V}

    assert forward_of_cell(Two(lambda c, x, h: {"h": concat(h, x) @ c.W + h @ c.V})) == [
        "h_t = W·[h_{t−1}, x_t] + W_2·h_{t−1}"
    ]


def test_constants_are_called_as_the_cell_calls_them_and_told_apart():
    cell = Own(
        lambda c, x, h: {
            "h": h * c.told + h * np.array([1.0, 2.0, 4.0]) - np.array([3.0, 2.0, 4.0]) + np.ones(3)
        }
    )
    cell.told = np.array([1.0, 0.0, 1.0])
    assert forward_of_cell(cell) == ["h_t = h_{t−1} ⊙ told + h_{t−1} ⊙ const_2 − const_3 + 1"]
    assert "const_2: a constant (3,)" in equations(cell).text and "told:" not in equations(cell).text


def test_a_step_that_reads_the_shape_of_its_first_state():
    """Whatever initial_state gives: other sizes, whole numbers, learned; or none, then (N, H)."""
    printed = equations(random_cell(LITERATURE["clockwork_rnn"], np.random.default_rng(0)))
    assert "clock_t" in printed.text and "dclock" not in printed.text  # whole numbers have no gradient
    printed = equations(random_cell(LITERATURE["mlstm"], np.random.default_rng(0)))
    assert "= f_t ⊙ C_{t−1} + (i_t ⊙ v_t)ᵀ ⊙ k_t" in printed.text
    assert "C_{t−1}: rows of the program are columns here" in printed.notes


def test_named_nodes_and_long_expressions_read_twice_have_equations_of_their_own():
    def step(c, x, h):
        a = (concat(h, x) @ c.W).named("a_h")
        b = h @ c.V + 1.0
        return {"h": tanh(a) * b + b}

    assert forward_of(step) == [
        "a_{h,t} = W·[h_{t−1}, x_t]",
        "u_1 = V·h_{t−1} + 1",
        "h_t = tanh(a_{h,t}) ⊙ u_1 + u_1",
    ]


def test_two_names_of_one_quantity_are_both_printed():
    class Two(Own):
        state = "h c"

        def step(self, x, h_prev, c_prev):
            c = tanh(concat(h_prev, x) @ self.W) + c_prev
            return {"c": c, "h": c}

    printed = equations(Two(None))
    assert [e.left.text for e in printed.forward] == ["c_t", "h_t"] and printed.forward[1].right.text == "c_t"
    assert "dc_{t−1}" in printed.text


def test_the_same_cell_prints_the_same_text_twice():
    cell = make("gru")
    assert equations(cell).text == equations(cell).text == equations(make("gru", 5)).text


def test_what_is_no_cell_is_named():
    with pytest.raises(
        InputError, match=r"equations of int: it has no step, state, inputs, hidden, parameters; give a cell"
    ):
        equations(3)
