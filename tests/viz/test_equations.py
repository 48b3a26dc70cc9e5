"""Equations as a reader sees them (goldens), and as numbers: the printed text of every cell is computed,
column by column as it is written, and must give the cell's own values and gradients.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import cells
from minigrad import InputError, Tensor, concat, relu, tanh
from viz.equations import equations, label

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


class Columns:
    """Reads equations as they stand: · of matrices, ⊙ element by element, [a, b] one above the other."""

    OPERATORS = (("⊙", "*"), ("·", "@"), ("−", "-"), ("²", "**2"), ("ᵀ", ".T"))

    def __init__(self, known: dict[str, np.ndarray]):
        self.names: list[tuple[str, str]] = []
        self.values: dict = {
            "sigma": lambda x: 1 / (1 + np.exp(-x)), "tanh": np.tanh, "root": np.sqrt,
            "max": np.maximum, "above": lambda *xs: np.concatenate(xs), "one": lambda x: x.astype(float),
            "mean": lambda x: x.mean(axis=0, keepdims=True), "units": lambda x: x.sum(axis=0, keepdims=True),
            "total": lambda x: x.sum(axis=1, keepdims=True),
        }  # fmt: skip
        for name, value in known.items():
            self.set(name, value)

    def set(self, name: str, value) -> None:
        if name not in dict(self.names):
            self.names.append((name, f"v{len(self.names)}"))
            self.names.sort(key=lambda pair: -len(pair[0]))
        self.values[dict(self.names)[name]] = value

    def compute(self, text: str):
        for name, variable in self.names:
            text = re.sub(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_{{′])", f" {variable} ", text)
        text = re.sub(r"1\[([^\]]*)\]", r"one(\1)", text)
        text = text.replace("[", "above(").replace("]", ")")
        text = re.sub(r"Σ_units ([^()]*(?:\([^()]*\)[^()]*)*)", r"units(\1)", text)
        text = re.sub(r"^Σ (.*)$", r"total(\1)", text)
        text = text.replace("√", "root").replace("σ", "sigma")
        for sign, operator in self.OPERATORS:
            text = text.replace(sign, operator)
        text = re.sub(r"(\b2) (?= *v)", r"\1 *", text)
        # In a formula ⊙ stands outside of ·; Python has one strength for both, from the left.
        return eval(text, {"__builtins__": {}}, self.values)

    def run(self, lines) -> None:
        for equation in lines:
            left, value = equation.left.text, self.compute(equation.right.text)
            if left.startswith("["):
                parts = re.split(r", (?![^(]*\))", left[1:-1])
                height = [D if re.fullmatch(r"dx_t′*", p) else H for p in parts]
                for part, piece in zip(parts, np.split(value, np.cumsum(height)[:-1]), strict=True):
                    self.set(part, piece)
            else:
                self.set(left, value)


@every_cell
def test_the_printed_text_computes_the_cells_values_and_gradients(name):
    rng, cell, N = np.random.default_rng(1), cells.CELLS[name](D, H, np.random.default_rng(0), "float64"), 5
    for p in cell.parameters().values():
        p.value = rng.standard_normal(p.shape)
    x = Tensor(rng.standard_normal((N, D)), requires_grad=True)
    states = [Tensor(rng.standard_normal((N, H)), requires_grad=True) for _ in cell.state.split()]
    quantities = cell.step(x, *states)
    cotangents = {s: rng.standard_normal((N, H)) for s in cell.state.split()}
    sum((quantities[s] * g).sum() for s, g in cotangents.items()).backward()

    def column(a):  # weights and vectors as the slide has them: transposed
        return a.T if a.ndim == 2 else a[:, None]

    known = {
        "x_t": column(x.value),
        **{f"{s}_{{t−1}}": column(v.value) for s, v in zip(cotangents, states, strict=True)},
    }
    known |= {label(n).text: column(p.value) for n, p in cell.parameters().items()}
    printed, reader = equations(cell), Columns(known)
    reader.run(printed.forward)
    names = dict(reader.names)
    for quantity, value in quantities.items():
        np.testing.assert_allclose(reader.values[names[label(quantity, "t").text]], value.value.T, rtol=1e-10)
    for s, g in cotangents.items():
        reader.set(f"d{s}_t", g.T)
    reader.run(printed.backward)
    names = dict(reader.names)
    wanted = {"dx_t": x.grad, **{f"d{s}_{{t−1}}": v.grad for s, v in zip(cotangents, states, strict=True)}}
    wanted |= {f"d{label(n).text}": p.grad for n, p in cell.parameters().items()}
    for key, value in wanted.items():
        np.testing.assert_allclose(
            reader.values[names[key]], column(value), rtol=1e-8, atol=1e-10, err_msg=key
        )


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
        (lambda c, x, h: {"h": relu(h @ c.V)}, "h_t = max(V·h_{t−1}, 0)"),
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
