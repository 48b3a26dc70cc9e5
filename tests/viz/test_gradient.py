"""`gradient` and `gates`: their numbers against NumPy."""

from __future__ import annotations

import re

import numpy as np
import pytest
from drawn import GRU, described, network, words_of
from overlap_charts import words_of as texts_of

import cells
import viz
from viz.chart.gradient import FROM_LOSS, STRAIGHT, split
from viz.chart.panels import SHARE, Bar, Cell, Heat
from viz.language.text import number
from viz.read.network import read


def test_the_structure_of_both(golden):
    loss, steps = network(T=3, H=3)
    golden("gradient.txt", described(viz.gradient(loss, steps).sheet))
    golden("gates.txt", described(viz.gates(steps).sheet))


def test_the_parts_are_those_of_the_equations():
    loss, steps = network()
    net = read(loss)
    c, h = split(net, "", "c", [1, 2, 3]), split(net, "", "h", [1, 2, 3])
    s2, s3 = steps[1], steps[2]
    assert c.total[2] == pytest.approx(np.linalg.norm(s2.c.grad))
    assert c.parts[STRAIGHT][2] == pytest.approx(np.linalg.norm(s3.c.grad * s3.f.value))
    own = s2.h.grad * s2.o.value * (1 - np.tanh(s2.c.value) ** 2)
    assert c.parts["from h, same step"][2] == pytest.approx(np.linalg.norm(own))
    for gate, slope in (("f", lambda v: v * (1 - v)), ("c_tilde", lambda v: 1 - v * v)):
        q = s3[gate]
        W = q.inputs[0].inputs[0].inputs[1].value[:8]  # the rows that read h
        through = (q.grad * slope(q.value)) @ W.T
        assert h.parts[f"through {gate.replace('c_tilde', 'c̃')}"][2] == pytest.approx(np.linalg.norm(through))


@pytest.mark.parametrize("cell", [cells.RNN, cells.LSTM, GRU])
def test_the_parts_are_complete(cell):
    """As vectors the parts add up to the gradient; so their norms bound it from both sides."""
    loss, _ = network(cell)
    net = read(loss)
    for name in net.carried[""]:
        state = split(net, "", name, [0, 1, 2, 3, 4])
        for t in range(5):
            sizes = [p[t] for p in state.parts.values() if t in p]
            assert state.total[t] <= sum(sizes) * (1 + 1e-9)
            assert state.total[t] >= 2 * max(sizes) - sum(sizes) - 1e-9


def test_steps_alone_know_what_came_from_a_loss_outside():
    loss, steps = network()
    alone, whole = read(steps[-1].h, steps), read(loss)
    for t in (1, 2, 3, 4):
        a, b = split(alone, "", "h", [t]), split(whole, "", "h", [t])
        assert a.parts[FROM_LOSS][t] == pytest.approx(b.parts[FROM_LOSS][t])


def test_the_bars_are_the_norms_on_a_logarithmic_axis():
    loss, steps = network(T=6)
    (bars,) = [p for p in viz.gradient(loss).sheet.every if p.head == "∂L/∂h"]
    assert bars.y.log and not bars.x.log
    by_step = {int(b.x): b for b in bars.marks if isinstance(b, Bar)}
    for t, s in enumerate(steps, 1):
        value = float(np.linalg.norm(s.h.grad))
        assert by_step[t].high == pytest.approx(value) and by_step[t].said == number(value)
        assert bars.y.low == by_step[t].low <= value <= bars.y.high


def test_the_figure_shows_what_the_sheet_describes():
    """Read off matplotlib's own axes: heights of bars, the kind of axis, colours of cells."""
    loss, _ = network(T=6)
    picture = viz.gradient(loss)
    drawn = {round(bar.get_height() + bar.get_y(), 12) for ax in picture.figure.axes for bar in ax.patches}
    described = {
        round(m.high, 12)
        for p in picture.sheet.every
        if hasattr(p, "marks")
        for m in p.marks
        if isinstance(m, Bar)
    }
    assert described <= drawn and {ax.get_yscale() for ax in picture.figure.axes} == {"log", "linear"}


def test_a_thousand_steps_are_sampled_and_that_is_said():
    loss, steps = network(T=300, H=4)
    words = words_of(viz.gradient(loss))
    assert re.search(r"Every 12th of 301 steps is drawn", words) and " 300 " in words
    assert re.search(r"Every \d+th of 300 steps is drawn", words_of(viz.gates(steps)))


def test_gates_show_values_means_ranges_and_saturation():
    _, steps = network(T=4, H=8)
    sheet = viz.gates(steps).sheet
    for name in ("f", "i", "c̃", "c", "o", "h"):
        (block,) = [p for p in sheet.every if p.head == name]
        values = np.concatenate([s[name.replace("c̃", "c_tilde")].value for s in steps])
        assert f"{number(values.min())} … {number(values.max())}" in block.said
        assert [c.said for c in block.rows[block.labels.index("mean")]] == [
            number(float(row.mean())) for row in values
        ]
    (f,) = [p for p in sheet.every if p.head == "f"]
    assert f.rows[f.labels.index("unit 5")][2].said.rstrip("▴▾") == number(steps[2].f.value[0, 5])
    assert all(c.of == SHARE for c in f.rows[f.labels.index("unit 5")])


def test_saturation_is_marked():
    rng = np.random.default_rng(0)
    cell = cells.LSTM(3, 4, rng, "float64")
    cell.b_f.value = np.array([20.0, -20.0, 0.0, 0.0])
    steps = cells.run(cell, 0.1 * rng.standard_normal((3, 2, 3))).steps
    picture = viz.gates(steps, sequence=1)
    (f,) = [p for p in picture.sheet.every if p.head == "f"]
    assert "50 % saturated" in f.said and "sequence 1 of 2" in words_of(picture)
    assert {c.said for c in f.rows[f.labels.index("saturated %")]} == {"50"}


def test_each_number_stands_in_the_middle_of_its_cell_and_can_be_restyled():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from viz.chart.figure import panel_on
    from viz.chart.numbers import Numbers

    rows = [[Cell("#eeeeee", said) for said in ("0.5", "1.2e−5", "✂")] for _ in range(2)]
    figure = Figure(figsize=(4, 2), dpi=100)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    panel_on(ax, Heat(rows, height=40.0), 0.8 * 4 * 72)
    found = texts_of(figure)
    assert [w.said for w in found] == [c.said for row in rows for c in row]
    for k, w in enumerate(found):
        x, y = ax.transData.transform((k % 3 + 0.5, k // 3 + 0.5)) * 72 / 100
        assert (w.left + w.right) / 2 == pytest.approx(x, abs=1)
        assert w.top < 2 * 72 - y < w.bottom
    (numbers,) = [a for a in ax.get_children() if isinstance(a, Numbers)]
    numbers.set_size(5.0)
    for small, w in zip(texts_of(figure), found, strict=True):
        assert small.right - small.left < 0.8 * (w.right - w.left)
        assert (small.left + small.right) / 2 == pytest.approx((w.left + w.right) / 2, abs=1)


def test_numbers_over_bars_stand_on_paper():
    loss, _ = network(T=3)
    figure = viz.gradient(loss).figure
    boxes = [t.get_bbox_patch() for ax in figure.axes for t in ax.texts if t.get_bbox_patch() is not None]
    assert boxes and all(b.get_facecolor() == (1, 1, 1, 1) for b in boxes)
