"""`gradient` and `gates`: their numbers against NumPy."""

from __future__ import annotations

import re

import numpy as np
import pytest
from drawn import GRU, network, structure

import cells
import viz
from viz.chart.gates import brief
from viz.chart.gradient import FROM_LOSS, STRAIGHT, split
from viz.language.text import number
from viz.read.network import read


def test_the_structure_of_both(golden):
    loss, steps = network(T=3, H=3)
    golden("gradient.txt", structure(viz.gradient(loss, steps).dot))
    golden("gates.txt", structure(viz.gates(steps).dot))


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


def test_the_bars_carry_the_numbers_and_their_heights_are_logarithmic():
    loss, steps = network(T=6)
    dot = viz.gradient(loss).dot
    heights = {}
    for t, s in enumerate(steps, 1):
        value = float(np.linalg.norm(s.h.grad))
        line = next(
            row
            for row in dot.splitlines()
            if row.strip().startswith(f'"bar  h t={t}"') or row.strip().startswith(f'"bar h t={t}"')
        )
        assert f"h t={t}: {number(value, 4)} (normal)" in line
        heights[t] = (np.log10(value), float(re.search(r"height=([\d.]+)", line)[1]))
    logs, bars = zip(*heights.values(), strict=True)
    slope = np.polyfit(logs, bars, 1)
    assert np.allclose(np.polyval(slope, logs), bars, atol=2e-3)


def test_a_thousand_steps_are_sampled_and_that_is_said():
    loss, steps = network(T=300, H=4)
    dot = viz.gradient(loss).dot
    assert re.search(r"Every 12th of 301 steps is drawn", dot) and ">300<" in dot
    assert "of 300 steps are drawn, evenly chosen" in viz.gates(steps).dot


def test_gates_show_values_means_ranges_and_saturation():
    _, steps = network(T=4, H=8)
    picture = viz.gates(steps).dot
    for name in ("f", "i", "c_tilde", "c", "o", "h"):
        values = np.concatenate([s[name].value for s in steps])
        assert f"range {number(values.min())} … {number(values.max())}" in picture
        assert all(f">{brief(float(row.mean()), 46)}<" in picture for row in values)
    assert f">{number(steps[2].f.value[0, 5])}<" in picture


def test_saturation_is_marked():
    rng = np.random.default_rng(0)
    cell = cells.LSTM(3, 4, rng, "float64")
    cell.b_f.value = np.array([20.0, -20.0, 0.0, 0.0])
    steps = cells.unroll(cell, 0.1 * rng.standard_normal((3, 2, 3)))
    dot = viz.gates(steps, sequence=1).dot
    assert ">1▴<" in dot and "▾<" in dot and "saturated 50 %" in dot and "sequence 1 of 2" in dot
