"""Which steps a picture draws: what happens is never folded away untold."""

from __future__ import annotations

import re

import numpy as np
import pytest
from drawn import GRU, network

import cells
import viz
from minigrad import scope
from viz.language.status import norm
from viz.measure.folding import LEAST_FOLD, MOST, folds, steps_shown
from viz.read.network import QUANTITY, read


def planted(change, T=40, cell=cells.LSTM):
    """A loss at the last step, with states changed on their way into each step."""
    rng = np.random.default_rng(0)
    made = cell(3, 4, rng, "float64")
    now = [s.named(n) for s, n in zip(made.initial_state(2), made.state.split(), strict=True)]
    for t in range(1, T + 1):
        with scope(f"t={t}"):
            now = change(t, now)
            quantities = made.step(rng.standard_normal((2, 3)), *now)
            now = [quantities[s].named(s) for s in made.state.split()]
    loss = (now[0] ** 2).sum()
    loss.backward(record=True)
    return loss


@pytest.mark.parametrize("cell", [cells.LSTM, cells.GRU, cells.RNN, cells.JANET, GRU])
@pytest.mark.parametrize("T", [1, 5, 8, 9, 11, 30, 100])
def test_no_fold_is_small_and_the_ends_are_drawn(cell, T):
    net = read(network(cell, T=T)[0])
    for gates in (True, False):
        shown = steps_shown(net, gates=gates)
        assert shown == sorted(set(shown)) and len(shown) <= MOST and {1, T} <= set(shown)
        assert all(len(fold) >= LEAST_FOLD for fold in folds(net.times, shown))
        assert T > 8 or shown == net.times


@pytest.mark.parametrize("at", [4, 17, 31])
@pytest.mark.parametrize("level", ["step", "gate"])
def test_a_cut_is_drawn(at, level):
    loss = planted(lambda t, now: [s.detach() if t == at else s for s in now])
    assert {at - 1, at} <= set(steps_shown(read(loss)))
    assert "✂" in viz.draw(loss, level=level).dot


def test_a_nan_is_drawn():
    loss = planted(lambda t, now: [s * (np.nan if t == 13 else 1.0) for s in now])
    shown = steps_shown(read(loss))
    assert 13 in shown


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_and_the_smallest_are_drawn_or_named_by_the_fold(seed):
    loss, _ = network(T=40, seed=seed)
    net = read(loss)
    picture = viz.draw(loss).dot
    shown = {int(t) for t in re.findall(r"cluster t=(\d+)", picture)}
    for name in ("f", "i", "c_tilde", "o", "c", "h"):
        sizes = {
            t: norm(g.out.grad)
            for t in net.times
            for g in net.cells["", t]
            if g.kind == QUANTITY and g.name == name
        }
        for word, t in (("largest", max(sizes, key=sizes.get)), ("smallest", min(sizes, key=sizes.get))):
            assert t in shown or f"({word} of all t = {t})" in picture, (name, word, t)
