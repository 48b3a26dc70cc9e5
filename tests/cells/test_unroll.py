"""Unrolling, layers and text: records by name and step, and errors that name the step, the state or the
character.
"""

from __future__ import annotations

import numpy as np
import pytest

from cells import CELLS, LSTM, RNN, Alphabet, Cell, Output, run
from minigrad import DTypeError, InputError, ShapeError, Tensor, ancestors, describe, no_grad, tanh

pytestmark = pytest.mark.smoke


@pytest.fixture
def lstm(rng):
    return LSTM(4, 3, rng)


def inputs(length=5, sequences=2, features=4, dtype="float32"):
    return np.random.default_rng(3).standard_normal((length, sequences, features)).astype(dtype)


# Records.


def test_steps_count_from_one_and_hold_every_quantity_by_name(lstm):
    x = inputs()
    steps = run(lstm, x).steps
    assert [step.t for step in steps] == [1, 2, 3, 4, 5]
    assert list(steps[0]) == ["f", "i", "c_tilde", "c", "o", "h"]
    for k, step in enumerate(steps):
        assert step.f is step["f"] and step["x"] is step.x and step.state == (step.h, step.c)
        np.testing.assert_array_equal(step.x.value, x[k])
        np.testing.assert_array_equal(step.h.value, step.o.value * np.tanh(step.c.value))
    assert repr(steps[2]) == "<step t=3: x, f, i, c_tilde, c, o, h>"
    with pytest.raises(InputError, match="step t=3 has no 'z'; it has x, f, i, c_tilde, c, o, h"):
        steps[2]["z"]
    with pytest.raises(AttributeError, match="step t=3 has no 'z'; it has x, f"):
        _ = steps[2].z


def test_every_quantity_is_named_in_the_graph_and_stands_in_its_step(lstm):
    steps = run(lstm, inputs(), label="layer 1").steps
    for step in steps:
        for quantity in step:
            assert step[quantity].name == quantity and step[quantity].scope == ("layer 1", f"t={step.t}")
    assert describe(steps[2].f) == "'f' (sigmoid) in layer 1 / t=3 (2, 3) float32"
    first = [node for node in ancestors(steps[0].h) if node.scope == ("layer 1", "t=0")]
    assert sorted(node.name for node in first) == ["c", "h"] and all(not node.value.any() for node in first)


def test_an_array_a_list_and_a_tensor_are_the_same_input(lstm):
    x = inputs()
    expected = run(lstm, x).steps[-1].h.value
    for given in (list(x), [Tensor(row) for row in x], Tensor(x), tuple(x)):
        np.testing.assert_array_equal(run(lstm, given).steps[-1].h.value, expected)


def test_a_sequence_continues_from_the_states_of_its_last_step(lstm):
    x = inputs()
    whole, (*_, middle) = run(lstm, x).steps, run(lstm, x[:3]).steps
    for state in (
        middle.state,
        list(middle.state),
        {"h": middle.h, "c": middle.c},
        [s.value for s in middle.state],
    ):
        np.testing.assert_array_equal(run(lstm, x[3:], state).steps[-1].c.value, whole[-1].c.value)


def test_states_given_by_name_go_by_name(lstm):
    h, c = np.full((2, 3), 0.5, "f4"), np.full((2, 3), -0.5, "f4")
    expected = run(lstm, inputs(), [h, c]).steps[-1].c.value
    np.testing.assert_array_equal(run(lstm, inputs(), {"c": c, "h": h}).steps[-1].c.value, expected)
    with pytest.raises((ShapeError, InputError), match=r"LSTM.*h c"):
        run(lstm, inputs(), {"h": h, "z": c})


def test_without_gradients_values_are_the_same_and_no_graph_is_kept(lstm):
    expected = run(lstm, inputs()).steps[-1].h
    with no_grad():
        h = run(lstm, inputs()).steps[-1].h
    np.testing.assert_array_equal(h.value, expected.value)
    assert ancestors(h) == [h]


def test_an_empty_batch_runs_through(lstm):
    steps = run(lstm, inputs(sequences=0)).steps
    assert steps[-1].h.shape == (0, 3)
    steps[-1].h.sum().backward()
    assert not lstm.W_f.grad.any()


# What does not fit.

MISFITS = {
    "features": (inputs(features=5), None, ShapeError, r"LSTM step t=1: x \(2, 5\) has 5 features, .*4\)"),
    "features later": (
        [*inputs(2), inputs(features=5)[0]],
        None,
        ShapeError,
        r"LSTM step t=3: x \(2, 5\) has 5 features",
    ),
    "sequences later": (
        [*inputs(2), inputs(sequences=3)[0]],
        None,
        ShapeError,
        r"step t=3: .* 3 sequences, step t=1 has 2",
    ),
    "two axes": (inputs()[0], None, ShapeError, r"LSTM: .*\(2, 4\); give \(steps, sequences, features\)"),
    "a row": ([np.ones(4, "f4")], None, ShapeError, r"LSTM step t=1: x \(4,\)"),
    "no steps": (inputs(length=0), None, InputError, r"LSTM: .*T = 0 .*at least one step"),
    "an empty list": ([], None, InputError, r"LSTM: .*T = 0 .*at least one step"),
    "a number": (3.0, None, InputError, r"LSTM: .*\(T, N, D\).*not float"),
    "one state": (
        inputs(),
        [np.ones((2, 3), "f4")],
        ShapeError,
        r"LSTM: 1 states given, it has 2: h c",
    ),
    "a bare state": (
        inputs(),
        np.ones((2, 3), "f4"),
        ShapeError,
        r"LSTM: 1 states given, it has 2: h c",
    ),
    "state of other width": (
        inputs(),
        [np.ones((2, 3), "f4"), np.ones((2, 4), "f4")],
        ShapeError,
        r"LSTM: state c is 'c' in t=0 \(2, 4\) float32; give \(2, 3\)",
    ),
    "state of other sequences": (
        inputs(),
        [np.ones((4, 3), "f4")] * 2,
        ShapeError,
        r"state h is .*\(4, 3\).*give \(2, 3\), or \(1, 3\) for all sequences",
    ),
    "double input": (inputs(dtype="float64"), None, DTypeError, r"t=1.*float64.*astype"),
    "double input as a tensor": (Tensor(inputs(dtype="float64")), None, DTypeError, r"t=1.*float64.*astype"),
    "double input later": ([*inputs(2), inputs(dtype="f8")[0]], None, DTypeError, r"t=3.*float64.*astype"),
    "double state": (inputs(), [np.ones((2, 3))] * 2, DTypeError, r"'h' in t=0 .*float64.*astype"),
}


@pytest.mark.parametrize(("xs", "state", "kind", "words"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_named_with_its_step(xs, state, kind, words, lstm):
    with pytest.raises(kind, match=words):
        run(lstm, xs, state)
    assert all(p.grad is None for p in lstm.parameters().values())


def test_whole_numbers_as_input_become_the_cells_type(lstm):
    whole = np.eye(4, dtype=int)[[0, 2, 1]][:, None, :]
    steps = run(lstm, whole).steps
    assert steps[-1].h.dtype == "float32"
    np.testing.assert_array_equal(steps[-1].h.value, run(lstm, whole.astype("f4")).steps[-1].h.value)


class Forgetful(Cell):
    """A cell whose step leaves its state out."""

    def build(self, rng):
        self.gate_parameters("h", rng)

    def step(self, x, h_prev):
        return {"z": tanh(x @ self.W_h[3:])}


class Widening(Forgetful):
    """A cell whose state changes its shape."""

    def step(self, x, h_prev):
        return {"h": x}


def test_a_cell_that_is_written_wrongly_is_told_what_and_where(rng):
    with pytest.raises(InputError, match=r"Forgetful step t=1: step returned z; the state h is missing"):
        run(Forgetful(4, 3, rng), inputs())
    with pytest.raises(ShapeError, match=r"Widening step t=1: state h became .*\(2, 4\).*it was \(2, 3\)"):
        run(Widening(4, 3, rng), inputs())
    with pytest.raises(NotImplementedError, match=r"Cell must make its parameters in build\(self, rng\)"):
        Cell(4, 3, rng)


SIZES = {
    "no inputs": (0, 3),
    "below zero": (4, -1),
    "a fraction": (4, 2.5),
    "a word": ("4", 3),
    "a truth value": (True, 3),
}


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_sizes_must_be_whole_numbers_above_zero(name, sizes, rng):
    with pytest.raises(
        InputError, match=rf"{CELLS[name].__name__}: (inputs|hidden) = .*whole number of at least 1"
    ):
        CELLS[name](*sizes, rng)


def test_a_cell_needs_a_generator_and_a_float_type(rng):
    with pytest.raises(InputError, match=r"numpy\.random\.default_rng\(seed\), not 42"):
        LSTM(4, 3, 42)
    with pytest.raises(InputError, match="LSTM: dtype int64; parameters need a float type"):
        LSTM(4, 3, rng, dtype="int64")


# Layers.


def test_parameters_come_by_name_in_the_order_in_which_they_were_made(lstm):
    assert list(lstm.parameters()) == ["W_f", "b_f", "W_i", "b_i", "W_c", "b_c", "W_o", "b_o"]
    assert lstm.size == 4 * (7 * 3 + 3)
    assert repr(lstm).startswith(
        "LSTM, 96 parameters, float32; 4 inputs, 3 hidden, gates f i c_tilde o, state h c\n  W_f"
    )
    assert [p.shape for p in RNN(4, 3, np.random.default_rng(0)).parameters().values()] == [(7, 3), (3,)]


def test_loading_sets_all_parameters_and_keeps_their_type(lstm):
    values = {k: np.full(p.shape, n, p.dtype) for n, (k, p) in enumerate(lstm.parameters().items())}
    lstm.load_state_dict(values)
    for n, p in enumerate(lstm.parameters().values()):
        assert p.dtype == "float32" and (p.value == n).all() and p.requires_grad


def without(values, name):
    return {k: v for k, v in values.items() if k != name}


LOADS = {
    "one missing": (lambda v: without(v, "b_o"), InputError, r"LSTM\.load_state_dict: missing b_o; nothing"),
    "one too many": (
        lambda v: v | {"W_z": np.ones(1)},
        InputError,
        r"LSTM\.load_state_dict: surplus W_z; nothing",
    ),
    "the last misshapen": (
        lambda v: v | {"b_o": np.ones(4, "f4")},
        ShapeError,
        r"LSTM\.load_state_dict: b_o has shape \(4,\), not \(3,\)",
    ),
    "the last of words": (
        lambda v: v | {"b_o": np.array(["a", "b", "c"])},
        InputError,
        r"load_state_dict: b_o is not a num",
    ),
    "the last of another type": (
        lambda v: v | {"b_o": np.ones(3)},
        DTypeError,
        r"b_o is float64, not float32: conv",
    ),
    "one of each": (
        lambda v: {**without(v, "b_f"), "W_z": np.ones(1), "b_i": np.ones(4), "b_o": np.ones(3)},
        InputError,
        r"missing b_f; surplus W_z; b_i has shape \(4,\), not \(3,\), b_o is float64, not float32.*; nothing was",
    ),
}


@pytest.mark.parametrize(("spoil", "kind", "words"), LOADS.values(), ids=LOADS)
def test_loading_sets_all_or_nothing(spoil, kind, words, lstm):
    before = {k: p.value for k, p in lstm.parameters().items()}
    with pytest.raises(kind, match=words):
        lstm.load_state_dict(spoil({k: np.zeros(p.shape, p.dtype) for k, p in lstm.parameters().items()}))
    assert all(p.value is before[k] for k, p in lstm.parameters().items())


def test_the_output_layer_takes_one_step_or_many(rng):
    output = Output(3, 5, rng)
    h = Tensor(inputs(features=3))
    np.testing.assert_allclose(output(h).value, h.value @ output.W_y.value + output.b_y.value, rtol=1e-6)
    assert output(h).shape == (5, 2, 5) and output(h[0]).shape == (2, 5)
    np.testing.assert_allclose(output(h).value[2], output(h[2]).value, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="Output: classes = 0"):
        Output(3, 0, rng)


# Text.


def test_an_alphabet_numbers_characters_by_code_point_and_back():
    letters = Alphabet("hello wörld")
    assert letters.characters == " dehlorwö" and len(letters) == 9
    np.testing.assert_array_equal(letters.encode("hö"), [3, 8])
    assert letters.decode(letters.encode("roll")) == "roll" and letters.encode("").shape == (0,)
    rows = letters.one_hot("held")
    assert (
        rows.shape == (4, 1, 9)
        and rows.dtype == "float32"
        and letters.one_hot("h", "float64").dtype == "float64"
    )
    np.testing.assert_array_equal(rows[:, 0].argmax(1), letters.encode("held"))
    np.testing.assert_array_equal(rows.sum(-1), np.ones((4, 1)))


def test_a_number_outside_the_alphabet_is_named():
    for number in (4, -1):
        with pytest.raises(
            InputError, match=rf"number {number} is not in the alphabet, which goes from 0 to 3"
        ):
            Alphabet("hello").decode([0, number])


@pytest.mark.parametrize(("text", "words"), [("", "empty text has nothing"), ("aaa", "only 'a'")])
def test_a_text_that_cannot_be_predicted_is_refused(text, words):
    with pytest.raises(InputError, match=f"{words}.*at least two different characters"):
        Alphabet(text)


def test_a_character_outside_the_alphabet_is_named_with_its_place():
    with pytest.raises(InputError, match=r"character 'x' at position 2 is not in the alphabet 'ehlo'"):
        Alphabet("hello").encode("hexo")
    with pytest.raises(InputError, match=r"'z' at position 0 .*…; make the alphabet from a text that has it"):
        Alphabet("".join(map(chr, range(300, 400)))).one_hot("z")
