"""`compare`: the numbers of each run against NumPy, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import described, texts, words_of
from forward import network

import cells
import viz
from minigrad import InputError, Tensor
from viz.chart.panels import Heat, Plot
from viz.language.scale import BLUE, ORANGE
from viz.language.status import norm
from viz.language.text import number


def two(**options):
    return network(cells.LSTM, **options), network(cells.JANET, **options)


def test_gradients_shared_gates_and_their_differences():
    (a, run_a), (b, run_b) = two(T=4)
    picture = viz.compare({"LSTM": a, "JANET": b})
    words, data = texts(picture.svg()), picture.data
    for k, (s, r) in enumerate(zip(run_a.steps, run_b.steps, strict=True)):
        sizes = norm(s.h.grad), norm(r.h.grad)
        assert data["LSTM dh"][k] == pytest.approx(sizes[0]) and data["JANET dh"][k] == pytest.approx(
            sizes[1]
        )
        assert {number(sizes[0]), number(sizes[1]), f"× {number(sizes[1] / sizes[0])}"} <= set(words)
        means = s.f.value.mean(), r.f.value.mean()
        assert data["LSTM f"][k] == pytest.approx(means[0]) and data["JANET f"][k] == pytest.approx(means[1])
        assert {number(means[0]), number(means[1] - means[0])} <= set(words)
        assert data["JANET c_tilde"][k] == pytest.approx(
            np.abs(r.c_tilde.value).mean()
        )  # of both signs: sizes
    assert "LSTM i" not in data and "mean f" in words and "mean |c̃|" in words and "JANET ÷ LSTM" in words


def rows_of(picture, head: str) -> dict:
    """The rows of cells with this head, by their labels."""
    (panel,) = [p for p in picture.sheet.every if isinstance(p, Heat) and p.head == head]
    return dict(zip(panel.labels, panel.rows, strict=True))


def curves_of(picture) -> list:
    (panel,) = [p for p in picture.sheet.every if isinstance(p, Plot)]
    assert panel.y.log
    return list(panel.marks)


def test_every_number_stands_in_its_row():
    (a, _), (b, _) = two(T=4)
    picture = viz.compare({"LSTM": a, "JANET": b})
    data = picture.data
    for curve, name in zip(curves_of(picture), ("LSTM", "JANET"), strict=True):
        np.testing.assert_array_equal(curve.ys, data[f"{name} dh"])
        assert curve.label.startswith(f"{name}: L = ") and "A step carries × " in curve.label
    rows, ratios = rows_of(picture, "Gradient"), data["JANET dh"] / data["LSTM dh"]
    for name in ("LSTM", "JANET"):
        assert [c.said for c in rows[f"{name}  ‖∂L/∂h‖"]] == [number(v) for v in data[f"{name} dh"]]
    assert [c.said for c in rows["JANET ÷ LSTM"]] == [f"× {number(v)}" for v in ratios]
    for cell, value in zip(rows["JANET ÷ LSTM"], ratios, strict=True):  # ever more orange above 1, blue below
        red, blue = (int(cell.colour[k : k + 2], 16) for k in (1, 5))
        assert (red > blue) == (value > 1)
    for name, head in (("f", "mean f"), ("c_tilde", "mean |c̃|"), ("h", "mean |h|")):
        rows, own = rows_of(picture, head), [data[f"{run} {name}"] for run in ("LSTM", "JANET")]
        for label, values in zip(("LSTM", "JANET", "JANET − LSTM"), [*own, own[1] - own[0]], strict=True):
            assert [c.said for c in rows[label]] == [number(v) for v in values]
    words = words_of(picture)
    assert "less than the first" in words and "over units and sequences" in words
    assert picture.sheet.keys == [(BLUE, "less than the first"), (ORANGE, "more")]


def test_the_structure(golden):
    (a, _), (b, _) = two(T=2, H=2)
    golden("compare.txt", described(viz.compare({"LSTM": a, "JANET": b}).sheet))


def test_one_scale_for_all_and_one_that_is_given():
    (a, _), (b, _) = two(T=3)
    weak, _ = network(cells.RNN, T=3, bend=0.05)
    scale = viz.Scale(-5, 0)
    given = viz.compare({"a": a, "b": weak}, scale=scale)
    assert number(1e-5) in texts(given.svg())
    for run in "ab":
        cells_, values = rows_of(given, "Gradient")[f"{run}  ‖∂L/∂h‖"], given.data[f"{run} dh"]
        assert [c.colour for c in cells_] == [scale.colour(v) for v in values]
    picture = viz.compare({"a": a, "b": b, "c": weak})
    everything = texts(picture.svg())
    assert len({(c.kind, tuple(c.xs)) for c in curves_of(picture)}) == 3
    for run in (a, b, weak):
        alone = viz.gradient(run).data["dh"]
        assert number(norm(alone[-1])) in everything


def test_that_the_inputs_differ_is_said():
    (a, _), _ = two(T=3)
    other, _ = network(cells.GRU, T=3, seed=5)
    assert "They read DIFFERENT inputs." in words_of(viz.compare({"a": a, "b": other}))
    rng = np.random.default_rng(0)
    x, losses = rng.standard_normal((3, 1, 2)), {}
    for name in ("lstm", "gru"):
        losses[name] = (cells.run(cells.CELLS[name](2, 3, rng, "float64"), x).h ** 2).sum()
        losses[name].backward(record=True)
    assert "All read the same input." in words_of(viz.compare(losses))


def test_the_state_can_be_named_and_the_last_layer_is_taken():
    (a, run), _ = two(T=3)
    b, _ = network(cells.PeepholeLSTM, T=3)
    np.testing.assert_allclose(
        viz.compare({"a": a, "b": b}, of="c").data["a dc"], [norm(s.c.grad) for s in run.steps]
    )
    deep, _ = network(build=lambda *given: cells.Stack(cells.LSTM, *given[:2], 2, *given[2:]), T=3)
    assert "layer 2: A step carries" in words_of(viz.compare({"flat": a, "deep": deep}))


def test_before_backward_a_single_step_and_strange_names():
    (a, _), (b, _) = network(T=1), network(cells.GRU, T=1, backward=False)
    picture = viz.compare({"<b>&\\N": a, "größer": b})
    words = texts(picture.svg())
    assert any(w.startswith("<b>&\\N: L = ") and "A step carries" in w for w in words) and "–" in words
    assert any("größer: not computed: run loss.backward(record=True)" in w for w in words)
    assert np.isnan(picture.data["größer dh"]).all()
    assert "No gradient is known yet: loss.backward(record=True) was not run." in words


def test_bad_input():
    (a, _), _ = two(T=3)
    longer, _ = network(T=4)
    with pytest.raises(InputError, match="a has 3 steps and b 4; run them on the same input"):
        viz.compare({"a": a, "b": longer})
    for runs in ({"a": a}, dict.fromkeys("abcde", a), [a, a]):
        with pytest.raises(InputError, match="give two to 4 runs by name"):
            viz.compare(runs)
    with pytest.raises(InputError, match="b carries no state from step to step"):
        viz.compare({"a": a, "b": (Tensor(np.ones(2), requires_grad=True) * 2.0).sum()})
    with pytest.raises(InputError, match="a carries no state 'z'"):
        viz.compare({"a": a, "b": a}, of="z")


def test_a_long_verdict_is_folded_and_none_of_it_is_lost():
    from overlap_charts import assert_apart

    found = {
        "a network with a long name, " + kind.__name__: network(kind, T=12, truncate=2)[0]
        for kind in (cells.LSTM, cells.GRU)
    }
    picture = viz.compare(found)
    assert_apart(picture)
    for curve in curves_of(picture):
        assert "✂ Cut" in curve.label and curve.label.split()[-1] in words_of(picture)
        assert all(word in words_of(picture) for word in curve.label.split())
