"""`bptt`: the matrix against a backward pass for each loss, and against finite differences."""

from __future__ import annotations

import time

import numpy as np
import pytest
from drawn import texts, words_of
from forward import EVERY, MASK, network, slope

import cells
import viz
from minigrad import GraphError, InputError, Tensor, concat, cross_entropy, grad, scope, stack, tanh
from viz.chart.panels import NO_WAY, Dots, Heat, Line, Plot
from viz.language.status import CUT, NORMAL, NOT_A_NUMBER, ZERO, norm
from viz.language.text import number
from viz.measure.bptt import CUT_OFF, FLOWS, matrices
from viz.measure.ways import where
from viz.read.network import read


def heat_of(picture) -> Heat:
    """The matrix of a picture that shows one."""
    (heat,) = [p for p in picture.sheet.every if isinstance(p, Heat)]
    return heat


def distances_of(picture) -> Plot:
    """The plot beside it."""
    (plot,) = [p for p in picture.sheet.every if isinstance(p, Plot)]
    return plot


def parts_of(loss):
    """The loss of each step: the last terms of the sum that `network` makes, and their steps."""
    terms, node = [], loss
    while node.op is not None and node.op.name == "add":
        terms.append(node.inputs[1])
        node = node.inputs[0]
    return terms[::-1]


def named(net):
    """Every named quantity by band, name and step, as nodes; first states included."""
    found = {
        (b, g.name, t): g.out for (b, t), groups in net.cells.items() for g in groups if g.kind == "quantity"
    }
    return found | {(b, name, g.t): g.out for (b, name), g in net.first.items()}


@pytest.mark.parametrize("case", EVERY)
def test_every_entry_is_that_of_a_backward_pass_of_its_own(case):
    loss, _ = network(**EVERY[case], backward=False)
    net = read(loss)
    losses, nodes = parts_of(loss), named(net)
    found = {(m.band, m.name): m for m in matrices(net, [loss])}
    if case != "one loss":
        assert len(losses) == len(net.times)
    for (band, name, t), node in nodes.items():
        m = found[band, name]
        assert m.losses == (net.times if case != "one loss" else net.times[-1:])
        for r, part in enumerate(losses):
            alone, mine = norm(grad(part, node).value), m.norms[r, m.times.index(t)]
            assert (np.isnan(mine) and alone == 0) or mine == pytest.approx(alone, rel=1e-10), (band, name, t)


@pytest.mark.parametrize("case", cells.CELLS)
def test_finite_differences(case):
    """The norm of a gradient is the slope along its own direction, and there is none across it."""
    loss, _ = network(**EVERY[case], backward=False)
    net = read(loss)
    losses, nodes = parts_of(loss), named(net)
    for m in matrices(net, [loss]):
        for r, k in ((3, 2), (4, 4), (2, 1)):
            t = m.times[k] if m.there[k] else m.times[k + 1]
            node, k = nodes["", m.name, t], m.times.index(t)
            if not m.ways[r, k] or not m.norms[r, k]:
                continue
            along = grad(losses[r], node).value / m.norms[r, k]
            assert slope(losses[r], node, along) == pytest.approx(m.norms[r, k], rel=2e-5, abs=1e-9)


def test_a_loss_and_the_list_of_its_terms_give_the_same():
    loss, _ = network(backward=False)
    one, many = viz.bptt(loss), viz.bptt(parts_of(loss))
    assert list(one.data) == list(many.data)
    for name in one.data:
        np.testing.assert_allclose(one.data[name], many.data[name], rtol=1e-12)


def test_the_loss_of_a_whole_sequence_is_taken_apart():
    """One cross-entropy over all steps, its outputs stacked: the entries are those of each step's own term."""
    rng = np.random.default_rng(0)
    cell, head = cells.LSTM(3, 4, rng, "float64"), cells.Output(4, 3, rng, "float64")
    targets = rng.integers(0, 3, (5, 2))
    run = cells.run(cell, rng.standard_normal((5, 2, 3)), output=head)
    whole = viz.bptt(cross_entropy(run.y, targets)).data
    whole_h = viz.bptt(cross_entropy(head(run.h), targets)).data  # one product for all steps
    terms = [cross_entropy(head(step.h), y) / 5.0 for step, y in zip(run.steps, targets, strict=True)]
    for name, expected in viz.bptt(terms).data.items():
        np.testing.assert_allclose(whole[name], expected, rtol=1e-10)
        np.testing.assert_allclose(whole_h[name], expected, rtol=1e-10)


def test_what_comes_later_has_no_way_and_a_cut_is_no_zero():
    loss, _ = network(T=5, truncate=2, backward=False)
    m = next(m for m in matrices(read(loss), [loss]) if m.name == "h")
    picture = viz.bptt(loss)
    heat = heat_of(picture)
    assert list(heat.labels) == [str(s) for s in m.losses] and list(heat.columns) == [str(t) for t in m.times]
    for r, s in enumerate(m.losses):
        for k, t in enumerate(m.times):
            state = heat.rows[r][k].status
            block = (s - 1) // 2 == (max(t, 1) - 1) // 2
            assert (state == NO_WAY) == (t > s)
            assert (state == CUT) == (t <= s and not block), (s, t)
            assert heat.rows[r][k].framed == (state != NO_WAY)
    assert texts(picture.svg()).count("✂") == 1 + int((m.ways == CUT_OFF).sum())  # the legend has one
    words = words_of(picture)
    assert "✂ Cut between t = 4 and 5, 2 and 3: a loss does not reach back over it." in words
    assert "Without a frame: no way leads from that state to that loss (it comes later)." in words


def test_cuts_of_a_layer_that_reads_from_the_end():
    loss, _ = network(T=5, truncate=2, reverse=True, backward=False)
    m = next(m for m in matrices(read(loss), [loss]) if m.name == "h")
    assert m.mirrored and m.cuts == [(3, 4), (1, 2)]
    assert "✂ Cut between t = 3 and 4, 1 and 2" in words_of(viz.bptt(loss))


def test_a_layer_that_reads_from_the_end_is_the_mirror():
    loss, _ = network(reverse=True, backward=False)
    m = next(m for m in matrices(read(loss), [loss]) if m.name == "h")
    later = np.subtract.outer(m.losses, m.times) <= 0
    np.testing.assert_array_equal(m.ways == FLOWS, later)
    heat = heat_of(viz.bptt(loss))
    np.testing.assert_array_equal([[c.status == NORMAL for c in row] for row in heat.rows], later)


def test_padding_sends_nothing_and_passes_all():
    """At t = 4 both sequences are padded: no loss of a gate, and the state keeps its gradient."""
    loss, _ = network(mask=MASK, backward=False)
    found = {m.name: m for m in matrices(read(loss), [loss])}
    f, h = found["f"], found["h"]
    t4, t3 = f.times.index(4), f.times.index(3)
    assert not np.nan_to_num(f.norms[:, t4]).any() and f.ways[4, t4] == FLOWS
    heat = heat_of(viz.bptt(loss, of="f"))
    assert heat.rows[4][list(heat.columns).index("4")].status == ZERO and "0" not in heat.columns
    assert h.norms[4, h.times.index(4)] == pytest.approx(h.norms[4, t4]) and h.norms[4, t3] > 0


class Halving(cells.Cell):
    """h = a · h_prev + x: the gradient falls by a at each step, exactly."""

    rate = 0.8

    def build(self, rng):
        self.parameter("w", np.ones(self.hidden))

    def step(self, x, h_prev):
        return dict(h=self.rate * h_prev + x * self.w)


@pytest.mark.parametrize("rate, said", [(0.8, "halves every 3.1 steps"), (1.25, "doubles every 3.1 steps")])
def test_the_half_life(rate, said):
    cell = Halving(3, 3, np.random.default_rng(0), "float64")
    cell.rate = rate
    run = cells.run(cell, np.random.default_rng(1).standard_normal((12, 1, 3)))
    picture = viz.bptt([step.h.sum() for step in run.steps])
    last = run.steps[-1].h.sum()
    m = next(iter(matrices(read(last), [last])))
    assert m.half_lives[0] == pytest.approx(-np.log(2) / np.log(rate), rel=1e-9)
    words = words_of(picture)
    assert f"What one loss sends back {said}." in words and f"dashed: {said}" in words
    assert (
        "“Halves every …”: the common slope of the rows, each on a level of its own, from cut to cut" in words
    )
    (line,) = [p for p in distances_of(picture).marks if isinstance(p, Line) and p.stroke.dash == "dashed"]
    assert list(line.xs) == [0, 12] and line.ys == pytest.approx([np.sqrt(3), np.sqrt(3) * rate**12])
    expected = rate ** np.subtract.outer(picture.data["s"], picture.data["t"]) * np.sqrt(3)
    found = picture.data["h"]
    np.testing.assert_allclose(found[~np.isnan(found)], expected[~np.isnan(found)], rtol=1e-12)


def test_a_half_life_is_told_only_where_there_is_one():
    picture = viz.bptt(network(T=1, backward=False)[0])
    assert "Halves" not in words_of(picture) and "halves" not in words_of(picture)


@pytest.mark.parametrize("rate, size", [(1e30, 1e-10), (1e30, 1.0), (1e30, 9e7), (1e-26, 1.0)])
def test_gradients_at_the_ends_of_what_floats_hold_have_an_axis(rate, size):
    cell = Halving(3, 3, np.random.default_rng(0), "float64")
    cell.rate = rate
    steps = cells.run(cell, 1e-300 * np.random.default_rng(1).standard_normal((13, 1, 3))).steps
    with np.errstate(over="ignore"):
        plot = distances_of(viz.bptt([(size * s.h).sum() for s in steps]))
    assert 0 < plot.y.low < plot.y.high < np.inf
    assert all(np.isfinite(mark.ys).all() for mark in plot.marks if isinstance(mark, Line))


def test_the_numbers_stand_in_the_picture():
    loss, _ = network(T=4, backward=False)
    picture = viz.bptt(loss, of="f")
    words, heat = texts(picture.svg()), heat_of(picture)
    assert "‖∂L_s/∂f_t‖" in words and {"loss of step s", "state of step t"} <= set(words)
    for value in picture.data["f"].ravel():
        assert np.isnan(value) or number(value) in words or value == 0
    columns = [list(picture.data["t"]).index(int(t)) for t in heat.columns]
    for row, values in zip(heat.rows, picture.data["f"][:, columns], strict=True):
        assert [c.said for c in row] == ["" if np.isnan(v) else number(v) for v in values]


def test_distances_show_the_median_and_the_ends_of_each():
    loss, _ = network(T=6, backward=False)
    picture = viz.bptt(loss)
    plot, norms = distances_of(picture), picture.data["h"]
    apart = np.subtract.outer(picture.data["s"], picture.data["t"])
    found = {d: norms[(apart == d) & ~np.isnan(norms)] for d in range(7)}
    (dots,) = [m for m in plot.marks if isinstance(m, Dots)]
    assert list(dots.xs) == list(found)
    assert dots.ys == pytest.approx([float(np.median(v)) for v in found.values()])
    ranges = {m.xs[0]: m.ys for m in plot.marks if isinstance(m, Line) and m.stroke.dash == "solid"}
    assert ranges == {d: pytest.approx([v.min(), v.max()]) for d, v in found.items() if len(v) > 1}
    assert plot.y.log and plot.y.low <= np.nanmin(norms) and np.nanmax(norms) <= plot.y.high
    assert (plot.head, plot.x.label) == ("By distance", "distance | s − t |, in steps")
    assert plot.said.startswith("median, smallest and largest")


def test_no_backward_pass_is_needed_and_none_is_left():
    loss, run = network(backward=False)
    viz.bptt(loss)
    assert all(s.h.grad is None and s.h.contributions is None for s in run.steps)


def test_not_a_number_zero_and_a_single_step():
    loss, run = network(T=1, backward=False)
    assert viz.bptt(loss).data["h"].shape == (1, 2)
    _, run = network(T=3, backward=False)
    nothing = (run.h * 0.0).sum()
    picture = viz.bptt(nothing)
    assert "Exactly zero everywhere" in words_of(picture)
    assert {c.status for c in heat_of(picture).rows[-1]} == {ZERO}
    bad = run.steps[0].h.sum() + run.steps[1].h[0, 0] * np.inf + run.steps[2].h.sum()
    picture = viz.bptt(bad)
    assert "It is not a number in places." in words_of(picture) and np.isfinite(picture.data["h"][2, 3])
    states = np.array([[c.status for c in row] for row in heat_of(picture).rows])
    flows = ~np.isnan(picture.data["h"]) | (np.subtract.outer(picture.data["s"], picture.data["t"]) >= 0)
    np.testing.assert_array_equal(states == NOT_A_NUMBER, flows & ~np.isfinite(picture.data["h"]))
    assert NOT_A_NUMBER in states and "not a number (NaN, ∞)" in words_of(picture)


def test_a_hundred_steps_of_a_large_lstm_within_two_seconds():
    rng = np.random.default_rng(0)
    cell, head = cells.LSTM(65, 100, rng), cells.Output(100, 65, rng)
    x, targets = rng.standard_normal((100, 1, 65)).astype("f"), rng.integers(0, 65, (100, 1))
    loss = cross_entropy(cells.run(cell, x, output=head).y, targets)
    start = time.process_time()
    picture = viz.bptt(loss)
    assert picture.figure and time.process_time() - start < 2
    assert picture.data["h"].shape == (100, 101) and picture.data["f"].dtype == np.float64


def test_the_walk_visits_every_operation_once_however_many_losses_there_are():
    from minigrad.items import itemised

    loss, _ = network(T=60, H=20, backward=False)
    net = read(loss)
    places = where(net)
    seeds = [(n, t - 1, part) for n, t, part in places.entrances(loss)]
    visited = sum(1 for _ in itemised(seeds, set(places.place) | places.outside))
    assert visited <= len(places.place) + len(places.outside)


def test_a_thousand_steps_are_sampled():
    loss, _ = network(T=1000, N=1, H=2, backward=False)
    picture = viz.bptt(loss)
    assert picture.data["h"].shape == (100, 1001) and picture.data["s"][-1] == 1000
    assert "100 losses are followed" in words_of(picture)
    heat = heat_of(picture)
    assert heat.labels[-1] == heat.columns[-1] == "1000" and len(heat.columns) <= 101
    assert np.diff([int(t) for t in heat.columns]).tolist() == [10] * (len(heat.columns) - 1)


def test_attention_like_reads_of_all_steps_are_followed():
    """A loss of its own steps and of the whole sequence: every later step reads every earlier one."""
    rng = np.random.default_rng(0)
    cell = cells.GRU(2, 3, rng, "float64")
    memory = cells.run(cell, rng.standard_normal((4, 1, 2)), label="encoder").h
    W = Tensor(rng.standard_normal((3, 3)), requires_grad=True, name="W")
    h, losses = memory[3], []
    for t in range(1, 4):
        with scope("decoder", f"t={t}"):
            h = tanh(concat(h, (memory * h).sum(axis=0)) @ concat(W, W, axis=0)).named("h")
        losses.append((h * h).sum())
    total = losses[0] + losses[1] + losses[2]
    net = read(total)
    m = next(m for m in matrices(net, losses) if m.band == "encoder" and m.name == "h")
    assert (m.ways[:, 1:] == FLOWS).all()
    for r, part in enumerate(losses):
        for t in range(1, 5):
            alone = norm(grad(part, net.find("encoder", t, "h").out).value)
            assert m.norms[r, m.times.index(t)] == pytest.approx(alone, rel=1e-10)


def test_bad_input():
    loss, run = network(backward=False)
    with pytest.raises(InputError, match=r"of = 'z' is not a quantity of a step; there are f, i, c_tilde"):
        viz.bptt(loss, of="z")
    with pytest.raises(InputError, match=r"a loss is a single number with a value, not .*take .mean\(\)"):
        viz.bptt(run.steps[0].h)
    for what in (3, [], [3], run.steps):
        with pytest.raises(InputError, match="give the loss, or a list with a loss for each step"):
            viz.bptt(what)
    with pytest.raises(InputError, match="nothing in this graph stands in a step"):
        viz.bptt((Tensor(np.ones(2), requires_grad=True) * 2.0).sum())
    run.steps[0].h.sum().backward(free=True)
    with pytest.raises(GraphError, match="freed"):
        viz.bptt(stack([s.h for s in run.steps]).sum())


def test_steps_back_in_an_encoder_are_counted_from_where_its_last_state_is_handed_on():
    """All losses come into it at t = 5, whatever step of the decoder they are of."""
    rng = np.random.default_rng(0)
    encoder, decoder = cells.RNN(3, 4, rng, "float64"), cells.RNN(2, 4, rng, "float64")
    (h,) = cells.run(encoder, rng.standard_normal((5, 2, 3)), label="encoder").state
    y = cells.run(decoder, rng.standard_normal((4, 2, 2)), [h], label="decoder").outputs
    loss = (y * y).sum()
    loss.backward(record=True)
    picture = viz.bptt(loss)
    found = {m.band: m for m in matrices(read(loss), [loss]) if m.name == "h"}
    m = found["encoder"]
    assert m.entry == 5 and not m.mirrored and found["decoder"].entry is None
    assert sorted(m.by_distance) == [0, 1, 2, 3, 4, 5] and len(m.half_lives) == 1
    for d, norms in m.by_distance.items():
        np.testing.assert_allclose(norms, m.norms[:, m.times.index(5 - d)])
    words = words_of(picture)
    assert "steps back from t = 5" in words and "distance | s − t |" in words and "doubles" not in words
