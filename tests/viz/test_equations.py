"""Equations as a reader sees them (goldens), and as numbers: the printed text of every cell is computed,
column by column as it is written, and must give the cell's own values and gradients.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from reader import computes

import cells
from minigrad import InputError, Tensor, concat, relu, tanh
from viz.equations import equations
from viz.notation import label

sys.path.append(str(Path(__file__).parents[1] / "cells"))
from literature import LITERATURE  # noqa: E402

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


def forward_of(step) -> list[str]:
    return [f"{e.left.text} {e.sign} {e.right.text}" for e in equations(Own(step), backward=False).forward]


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
        (lambda c, x, h: {"h": relu(h @ c.V)}, "h_t = relu(V·h_{t−1})"),
        (lambda c, x, h: {"h": h - h.mean(axis=-1, keepdims=True)}, "h_t = h_{t−1} − mean(h_{t−1})"),
    ],
)
def test_brackets_stand_where_they_are_needed_and_nowhere_else(step, expected):
    assert forward_of(step) == [expected]


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
