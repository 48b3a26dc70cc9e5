"""`cells.check` finds every shipped cell and layer in order, and says of planted faults where they are and what to do."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad import Tensor, concat, sigmoid, tanh
from minigrad.ops import TANH
from minigrad.tensor import Op, apply

ALL = [
    "runs", "quantities", "repeatable", "finite", "parameters", "gradients", "compiled", "padding", "equations",
    "picture", "learns",
]  # fmt: skip


def row(found, name):
    return next(row for row in found.rows if row.name == name)


# What is right.


@pytest.mark.parametrize("name", cells.CELLS)
def test_every_cell_passes_every_check(name):
    found = cells.check(cells.CELLS[name])
    assert found, found
    assert [r.name for r in found.rows] == ALL and all(r.ok and not r.look for r in found.rows), found


LAYERS = {
    "stack": (lambda rng: cells.Stack(cells.LSTM, 3, 4, 2, rng), set()),
    "stack of both directions": (
        lambda rng: cells.Stack(cells.Bidirectional.of(cells.GRU), 3, 2, 2, rng),
        {"padding"},
    ),
    "both directions": (lambda rng: cells.Bidirectional(cells.GRU, 3, 4, rng), {"padding"}),
    "TCN": (lambda rng: cells.TCN, {"equations"}),
    "Transformer": (lambda rng: cells.Transformer, {"equations"}),
    "dense": (lambda rng: cells.Dense, {"equations"}),
    "embedding and more": (
        lambda rng: cells.Sequential(
            cells.Embedding(7, 3, rng), cells.JANET(3, 4, rng), cells.LayerNorm(4), cells.Output(4, 5, rng)
        ),
        set(),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_layers_pass_what_can_be_tried_of_them(name, rng):
    make, not_tried = LAYERS[name]
    found = cells.check(make(rng))
    assert found, found
    assert {r.name for r in found.rows if r.ok is None} == not_tried, found


class Folds(cells.RNN):
    """Has a kink wherever `folds` · h is a half."""

    folds = 1e2

    def step(self, x, h_prev):
        h = super().step(x, h_prev)["h"]
        return dict(h=mg.abs(self.folds * h - mg.floor(self.folds * h) - 0.5) * 1e-4 + h)


def test_another_draw_is_taken_where_one_is_at_a_kink():
    found = cells.check(Folds)
    assert found and re.search(r"finite differences, in draw \d+$", row(found, "gradients").measured), found


def test_where_every_draw_is_at_a_kink_nothing_is_claimed():
    class Folded(Folds):
        folds = 1e4

    tried = row(cells.check(Folded), "gradients")
    assert tried.ok is None and "at each of 20 draws it is at a kink" in tried.measured


def test_a_made_cell_is_left_as_it_is_and_may_be_large(rng):
    cell = cells.LSTM(40, 60, rng)
    before, W = cell.state_dict(), cell.W_f
    found = cells.check(cell)
    assert found, found
    assert cell.W_f is W and W.grad is None and cell.dtype == "float32"
    for name, value in cell.state_dict().items():
        assert value.dtype == "float32" and np.array_equal(value, before[name])


def test_inputs_beside_x_and_an_example_are_taken(rng):
    class Gated(cells.RNN):
        def step(self, x, h_prev, keep):
            h = super().step(x, h_prev)["h"]
            return dict(h=mg.where(keep, h_prev, h))

    xs = rng.standard_normal((4, 3, 2)).astype("float32")
    found = cells.check(Gated(2, 5, rng), xs, keep=rng.random((4, 3, 5)) < 0.5)
    assert found, found
    assert row(found, "runs").measured.startswith("(4, 3, 2) → (4, 3, 5)")
    lacking = cells.check(Gated(2, 5, rng))
    assert (
        not lacking and "its step takes keep beside x; give one row a step" in row(lacking, "runs").measured
    )


@pytest.mark.slow
def test_an_lstm_is_checked_in_ten_seconds_with_nothing_in_the_cache(tmp_path):
    program = "import cells; found = cells.check(cells.LSTM); print(found); assert found"
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"MINIGRAD_CACHE": str(tmp_path), "PYTHONPATH": "."}
    )
    assert time.perf_counter() - start < 10


# What is wrong.


class Base(cells.Cell):
    gates = "f"

    def build(self, rng):
        self.gate_parameters("f", rng)

    def step(self, x, h_prev):
        f = sigmoid(concat(h_prev, x) @ self.W_f + self.b_f)
        return dict(f=f, h=self.new(f, h_prev, x))

    def new(self, f, h_prev, x):
        return f * h_prev + (1 - f) * tanh(x.sum(axis=1, keepdims=True))


WRONG_RULE = Op(
    "wrong", TANH.forward, TANH.shape, vjp=(lambda g, y, x: 0.9 * g * (1 - y * y),), kind="elementwise",
    source=TANH.source,
)  # fmt: skip


class WrongRule(Base):
    def new(self, f, h_prev, x):
        return apply(WRONG_RULE, (f + h_prev,))


class ATensor(Base):
    def step(self, x, h_prev):
        return super().step(x, h_prev)["h"]


class Grows(Base):
    def new(self, f, h_prev, x):
        return concat(h_prev, f)


class Branches(Base):
    def new(self, f, h_prev, x):
        return f * Tensor(np.tanh(x.value.sum(axis=1, keepdims=True)))


class Remembers(Base):
    def new(self, f, h_prev, x):
        return f * Tensor(self.b_f.value + 1) + h_prev  # the numbers of now, no matter what comes after


class Draws(Base):
    def build(self, rng):
        super().build(rng)
        self.rng = rng

    def new(self, f, h_prev, x):
        return f * Tensor((self.rng.random(self.hidden) < 0.5).astype(self.dtype))


class NaN(Base):
    def new(self, f, h_prev, x):
        return f * mg.log(h_prev - 1)


class NaNGradient(Base):
    def new(self, f, h_prev, x):
        return mg.where(f > 5, mg.sqrt(f - f), f)


class NoGate(Base):
    gates = "f o"


class ManyOutputs(Base):
    width = 7  # type: ignore[assignment]  # a property of cells

    def build(self, rng):
        self.parameter("W_f", rng.standard_normal((self.hidden + self.inputs, self.hidden)))
        self.parameter("b_f", np.zeros(self.hidden))


class NoState(Base):
    def step(self, x, h_prev):
        return dict(f=super().step(x, h_prev)["f"])


class OwnMistake(Base):
    def new(self, f, h_prev, x):
        return f * self.no_such_attribute


RUNS, COMPILED = {"runs"}, {"compiled", "padding"}
FAULTS = {  # which rows are wrong, and what the first of them says
    WrongRule: ({"gradients"}, r"derivative of order 1 is .* by reverse mode and .* by finite differences"),
    ATensor: (RUNS, r"ATensor step t=1: step returned .*\(2, 4\).*: return dict\(h=h\)"),
    Grows: (RUNS, r"Grows step t=1: state h became .*\(2, 8\).*, it was \(2, 4\) float64"),
    Branches: ({"gradients", *COMPILED, "equations"}, r"by reverse mode and .* by finite differences"),
    Remembers: ({"gradients", *COMPILED}, r"by reverse mode and .* by finite differences"),
    Draws: ({"repeatable", *COMPILED}, r"h at t=1 differs: .* a random number.*give it beside x"),
    NaN: (
        {"finite", "gradients", "learns"},
        r"^nan at \(0, 0\) in the value of log, in t=1.*line \d+ of test_checking.py\)",
    ),
    NaNGradient: ({"finite", "gradients", "learns"}, r"the gradient of W_f is nan at"),
    NoGate: ({"quantities"}, r"step does not return the gate o; return it too"),
    ManyOutputs: (RUNS, r"outputs are \(5, 2, 4\), and ManyOutputs.width says 7"),
    NoState: (RUNS, r"NoState step t=1: step returned f; the state h is missing"),
    OwnMistake: (RUNS, r"AttributeError: .*no_such_attribute.* \(new, line \d+ of test_checking.py\)"),
}


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_planted_fault_is_found_where_it_is_and_named(kind):
    found = cells.check(kind)
    names, said = FAULTS[kind]
    wrong = [r for r in found.rows if r.ok is False]
    assert not found and {r.name for r in wrong} == names, found
    assert re.search(said, wrong[0].measured), found
    assert found.line.startswith(f"{kind.__name__}: wrong at {wrong[0].name}")
    assert [r.name for r in found.rows] == ALL


def test_what_numpy_makes_of_values_is_found_by_the_compiler_too():
    assert "Branches runs eagerly: 'x'" in row(cells.check(Branches), "compiled").measured
    assert "the value differs by" in row(cells.check(Remembers), "compiled").measured


def test_the_base_of_the_faulty_cells_is_right():
    assert cells.check(Base), cells.check(Base)


def test_what_is_never_used_is_a_remark_and_so_is_what_gets_no_gradient():
    class Spare(Base):
        def build(self, rng):
            super().build(rng)
            self.parameter("U_o", np.zeros(3))
            self.parameter("cut", np.ones(self.hidden))

        def new(self, f, h_prev, x):
            return super().new(f, h_prev, x) * self.cut.detach()

    found = cells.check(Spare)
    assert found and found.line == "Spare: all is well; look at parameters, gradients"
    assert row(found, "parameters").measured.startswith("U_o: never used by the step; cut: used, but")
    assert "'cut'" in row(found, "gradients").measured and "is detached" in row(found, "gradients").measured


def test_a_class_that_needs_more_says_what_and_a_function_needs_an_example(rng):
    class Ranked(Base):
        def __init__(self, inputs, hidden, rng, rank):
            super().__init__(inputs, hidden, rng)

    found = cells.check(Ranked)
    assert row(found, "runs").measured == "rank cannot be guessed; make the Ranked yourself and give that"
    assert all(r.ok is None and "not tried" in r.measured for r in found.rows[1:])
    assert "give an example" in row(cells.check(lambda xs: tanh(xs)), "runs").measured
    found = cells.check(lambda xs: tanh(xs), rng.standard_normal((4, 2, 3)))
    assert found and row(found, "parameters").look


def test_layers_within_that_are_not_told_of_padding_are_found(rng):
    class Reads(cells.Layer):
        inputs = 3

        def __init__(self):
            super().__init__()
            self.first, self.second = cells.GRU(3, 4, rng), cells.GRU(4, 4, rng)

        def __call__(self, xs, **options):
            return self.second(self.first(xs, label="first", reverse=True).outputs, label="second", **options)

    found = cells.check(Reads())
    assert [r.name for r in found.rows if r.ok is False] == ["padding"], found
    assert "hand lengths on" in row(found, "padding").measured


@pytest.mark.parametrize("what", [5, "lstm", None, Tensor(np.zeros(3))])
def test_what_is_not_a_layer_is_refused(what):
    with pytest.raises(mg.InputError, match="is not a layer; give a cell"):
        cells.check(what)


@pytest.mark.smoke
def test_an_example_of_too_few_steps_is_refused(rng):
    with pytest.raises(
        mg.InputError, match=r"xs has shape \(2, 3, 4\); give \(T, N, …\) with T of at least 3"
    ):
        cells.check(cells.RNN(4, 2, rng), np.zeros((2, 3, 4)))


def test_it_prints_as_a_line_and_a_table():
    lines = repr(cells.check(Base)).splitlines()
    assert lines[0] == "Base: all is well"
    for name in ALL:
        assert any(re.match(rf"│ ok +│ {name} ", line) for line in lines)
