"""`paths` and `direct`: the parts add up, and each is what finite differences say."""

from __future__ import annotations

import re

import numpy as np
import pytest
from drawn import described, texts, words_of
from forward import EVERY, MASK, network, slope

import cells
import viz
from minigrad import InputError, Tensor, stack
from viz.chart.direct import verdict as verdict_of_direct
from viz.chart.panels import Bar, Heat, Plot, Words
from viz.chart.paths import percent
from viz.language.status import CUT, NOT_A_NUMBER, NOT_COMPUTED, ZERO, norm
from viz.language.text import number
from viz.measure.direct import Direct, measured
from viz.measure.shares import NOTHING_LEFT, cancelled, shares
from viz.measure.ways import FROM_LOSS, STRAIGHT, carried, passed_on, split, where
from viz.measure.ways import slope as slope_of_gate
from viz.read.network import OUTPUT, QUANTITY, SHARED, read

VIEWS = (viz.paths, viz.direct, viz.bptt, viz.weights_by_step)
PLAIN = [name for name in EVERY if name in cells.CELLS]


def panels_of(picture, head) -> tuple[Plot | None, Heat]:
    """The bars of a state, where there are some, and the rows of numbers below them."""
    every = picture.sheet.every
    k = [p.head for p in every].index(head)
    return (every[k], every[k + 1]) if isinstance(every[k], Plot) else (None, every[k])


def statuses_of(picture) -> set[str]:
    return {c.status for c in picture.sheet.cells} - {""}


def every_state(net, far):
    times = sorted({*net.times, *(g.t for g in net.first.values())})
    return [split(net, band, name, times, far) for band, name in carried("test", net)]


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("case", EVERY)
def test_the_parts_add_up_to_the_gradient(case, far):
    loss, _ = network(**EVERY[case])
    for s in every_state(read(loss), far):
        assert s.whole
        for t, whole in s.whole.items():
            total = sum(s.vectors[t].values(), np.zeros_like(whole))
            size = sum(map(norm, s.vectors[t].values()))  # of a stabiliser the parts cancel
            assert norm(total - whole) <= 1e-12 * size, (case, s.band, s.name, t)


@pytest.mark.parametrize("case", PLAIN)
def test_every_part_against_finite_differences(case):
    """The value of a state is moved as one gate of the next step sees it, or as the own step's output does."""
    loss, _ = network(**EVERY[case])
    net, rng = read(loss), np.random.default_rng(1)
    for band, name in carried("test", net):
        s = split(net, band, name, [2], far=True)
        node = net.find(band, 2, name).out
        own = {n.number for g in net.cells[band, 2] for n in g.nodes if n.number > node.number}
        shared = {n.number for g in net.cells[band, 3] if g.kind == SHARED for n in g.nodes}
        direction = rng.standard_normal(node.shape)
        for way, part in s.vectors[2].items():

            def reads(n, way=way, s=s):
                g = net.group_of[n.number]
                return (
                    g.kind == OUTPUT
                    if way == FROM_LOSS
                    else g.kind == QUANTITY and g.name == s.gates[way] and g.t == 3
                )

            found = slope(loss, node, direction, reads, own | shared)
            straight = [
                w for w in s.gates if s.gates[w] == s.gates.get(way)
            ]  # both lead into the same quantity
            expected = (
                sum((s.vectors[2][w] * direction).sum() for w in straight)
                if straight
                else (part * direction).sum()
            )
            assert found == pytest.approx(expected, rel=2e-5, abs=1e-9), (name, way)


def test_the_ways_of_an_lstm_by_hand():
    loss, run = network(T=4)
    net, s2, s3 = read(loss), run.steps[1], run.steps[2]
    c = split(net, "", "c", [2], far=True)
    assert set(c.parts) == {FROM_LOSS, STRAIGHT, "through f", "through i", "through c̃", "through o"}
    np.testing.assert_allclose(c.vectors[2][STRAIGHT], s3.c.grad * s3.f.value, rtol=1e-12)
    shown = s2.o.value * (1 - np.tanh(s2.c.value) ** 2)
    W = s3.o.inputs[0].inputs[0].inputs[1].value[:4]  # the rows that read h
    through_o = (s3.o.grad * s3.o.value * (1 - s3.o.value)) @ W.T
    np.testing.assert_allclose(c.vectors[2]["through o"], through_o * shown, rtol=1e-12)
    assert passed_on(net, c, "through o", 2) == pytest.approx(norm(through_o * shown) / norm(s3.o.grad))
    assert slope_of_gate(net, c, "through o", 2) == pytest.approx(np.mean(s3.o.value * (1 - s3.o.value)))


@pytest.mark.parametrize("case", PLAIN)
def test_signed_shares_are_complete_and_cancelling_is_between_none_and_all(case):
    loss, _ = network(**EVERY[case])
    for s in every_state(read(loss), True):
        for t in s.times:
            found, lost = shares(s, t), cancelled(s, t)
            if not found:
                assert t not in s.whole or not s.whole[t].any() or lost > 1 - NOTHING_LEFT, (case, s.name, t)
                continue
            assert sum(found.values()) == pytest.approx(1, rel=1e-12)
            sizes = [norm(v) for v in s.vectors[t].values()]
            assert lost == pytest.approx(1 - norm(sum(s.vectors[t].values())) / sum(sizes), abs=1e-12)


def test_cancelling_parts_are_seen():
    """Two ways of equal size against each other leave nothing: all is cancelled."""
    from viz.measure.ways import State

    v = np.ones((1, 2))
    s = State(
        "", "h", [1], total={1: norm(0.2 * v)}, whole={1: 0.2 * v}, vectors={1: {"a": v, "b": -0.8 * v}}
    )
    s.parts = {w: {1: norm(p)} for w, p in s.vectors[1].items()}
    assert shares(s, 1) == pytest.approx({"a": 5, "b": -4}) and cancelled(s, 1) == pytest.approx(
        1 - 0.2 / 1.8
    )


def test_numbers_shares_and_table_stand_in_the_picture():
    loss, run = network(T=4)
    picture = viz.paths(loss, run.steps, of="h")
    words, (_, heat) = texts(picture.svg()), panels_of(picture, "∂L/∂h")
    assert "∂L/∂c" not in words and "through c̃" in words
    rows = dict(zip(heat.labels, heat.rows, strict=True))
    assert list(heat.columns) == [str(t) for t in picture.data["t"]] == ["0", "1", "2", "3", "4"]
    for t, step in enumerate(run.steps, 1):
        assert number(norm(step.h.grad)) in words
        data = picture.data
        k = list(data["t"]).index(t)
        total = sum(
            data[f"dh {w}"][k]
            for w in ("from the loss", "through f", "through i", "through c_tilde", "through o")
        )
        np.testing.assert_allclose(total, step.h.grad, rtol=1e-12)
        assert rows["‖∂L/∂h‖"][k].said == number(norm(step.h.grad))
    net = read(loss)
    s = split(net, "", "h", [0, 1, 2, 3, 4], far=True)
    for way in s.ways:
        expected = [s.parts[way].get(t) for t in s.times]
        assert [c.said for c in rows[way]] == ["" if v is None else number(v) for v in expected], way
        if way in s.gates:
            kept = [passed_on(net, s, way, t) for t in s.times]
            row = rows[f"{way.removeprefix('through ')} passes"]
            assert [c.said for c in row] == ["" if v is None else f"×{number(v)}" for v in kept], way
    assert [c.said for c in rows["cancelled"]] == [f"{100 * cancelled(s, t):.0f} %" for t in s.times]
    s = split(read(loss), "", "h", [2], far=True)
    row = next(line for line in picture.text.splitlines() if line.split()[0] == "2")
    assert row.split()[1] == number(norm(run.steps[1].h.grad))
    assert f"{100 * shares(s, 2)[FROM_LOSS]:.0f} %" in row and f"{100 * cancelled(s, 2):.0f} %" in row


@pytest.mark.parametrize("name", ["c", "h"])
def test_the_bars_are_the_shares_up_and_down_and_name_their_gate(name):
    loss, _ = network(T=4, bend=2.0)
    plot, heat = panels_of(viz.paths(loss, of=name), f"∂L/∂{name}")
    s = split(read(loss), "", name, [0, 1, 2, 3, 4], far=True)
    ways = dict(zip(heat.chips, s.ways, strict=False))
    assert len(ways) == len(s.ways)  # every way has a colour of its own
    room = plot.height / (plot.y.high - plot.y.low)
    for k, t in enumerate(s.times):
        bars = [m for m in plot.marks if isinstance(m, Bar) and int(m.x) == k]
        found = {ways[b.colour]: b.high - b.low if b.low >= 0 else b.low - b.high for b in bars}
        assert found == pytest.approx({way: v for way, v in shares(s, t).items() if v})
        for sign in (1, -1):  # stacked from zero outwards, without a gap
            edges = sorted({abs(e) for b in bars if (b.low + b.high) * sign > 0 for e in (b.low, b.high)})
            assert edges == pytest.approx(
                [0, *np.cumsum([v * sign for w in s.ways if (v := shares(s, t).get(w, 0.0)) * sign > 0])]
                if edges
                else []
            )
        for b in bars:
            gate = ways[b.colour].removeprefix("through ").removeprefix("from the ").replace(STRAIGHT, name)
            assert b.inside == (gate if (b.high - b.low) * room > 9.5 else "")
    assert any(m.high <= 0 for m in plot.marks) and any(m.inside for m in plot.marks)


def test_layers_are_told_apart_and_name_who_sends():
    loss, _ = network(**EVERY["stacked"])
    picture = viz.paths(loss)
    words = words_of(picture)
    assert "from layer 2" in words and "layer 1: ∂L/∂c" in words and "from the loss" in words
    assert "from layer 2" in panels_of(picture, "layer 1: ∂L/∂h")[1].labels
    assert "from the loss" in panels_of(picture, "layer 2: ∂L/∂h")[1].labels


def test_a_mask_carries_the_state_straight_along():
    loss, _ = network(mask=MASK)
    h = split(read(loss), "", "h", [3], far=True)
    assert (
        norm(h.vectors[3][STRAIGHT]) > 0 and STRAIGHT not in split(read(loss), "", "h", [1], far=True).parts
    )


def test_before_backward_nothing_is_computed_and_nothing_is_zero():
    loss, run = network(backward=False)
    for picture in (viz.paths(loss, run.steps), viz.direct(loss, run.steps)):
        words = texts(picture.svg())
        assert "–" in words and words.count("0") == 2  # two steps t = 0
        assert words.count("not computed: run loss.backward(record=True)") == 2
        assert "No gradient is known yet: loss.backward(record=True) was not run." in words
        assert picture.sheet.statuses == [NOT_COMPUTED] and statuses_of(picture) == {NOT_COMPUTED}
        assert np.isnan(picture.data["dh" if "dh" in picture.data else "dh total"]).all()


def test_a_cut_shows_as_a_cut():
    loss, _ = network(truncate=2)
    picture = viz.paths(loss)
    _, heat = panels_of(picture, "∂L/∂h")
    rows = dict(zip(heat.labels, heat.rows, strict=True))
    for gate in ("f", "i", "c̃", "o"):  # windows of two steps: nothing comes back into t = 2 and 4
        assert [k for k, c in enumerate(rows[f"through {gate}"]) if c.status == CUT] == [2, 4]
    assert not any(c.status == CUT for c in rows["from the loss"])
    drawn = sum(c.status == CUT for c in picture.sheet.cells)
    assert texts(picture.svg()).count("✂") == drawn + 1 > 6  # the legend has one


def test_not_a_number_zero_and_a_single_step():
    loss, _ = network(T=1)
    assert "100 %" in texts(viz.paths(loss).svg())
    cell = cells.LSTM(2, 3, np.random.default_rng(0), "float64")
    run = cells.run(cell, np.ones((3, 1, 2)))
    nothing = (run.h * 0.0).sum()
    nothing.backward(record=True)
    picture = viz.paths(nothing)
    assert texts(picture.svg()).count("exactly zero") == 3  # of c, of h, and in the legend
    assert statuses_of(picture) == {ZERO} and not any(isinstance(p, Plot) for p in picture.sheet.every)
    picture = viz.direct(nothing)
    assert statuses_of(picture) == {ZERO} and texts(picture.svg()).count("0") > 20
    assert "no step's own loss sends anything that has a size" in words_of(picture)
    bad = run.steps[0].h.sum() + (run.steps[1].h * np.inf).sum()
    with np.errstate(invalid="ignore"):
        bad.backward(record=True)
        for picture in (viz.paths(bad), viz.direct(bad)):
            assert NOT_A_NUMBER in statuses_of(picture) and "?" in texts(picture.svg())
            assert "not a number (NaN, ∞)" in words_of(picture)
            for name in "ch":
                _, heat = panels_of(picture, f"∂L/∂{name}")
                whole = picture.data[f"d{name}" if f"d{name}" in picture.data else f"d{name} total"]
                finite = [bool(np.isfinite(v).all()) for v in whole]
                row = heat.rows[heat.bold[0]]
                assert not all(finite) and [c.status != NOT_A_NUMBER for c in row] == finite
        assert "NaN" in viz.paths(bad).text


def test_a_hook_that_changes_the_gradient_is_named():
    loss, run = network(backward=False)
    calls = []
    run.steps[1].h.hook(lambda g: calls.append(1) or 0.5 * g)
    loss.backward(record=True)
    assert "by a hook" in split(read(loss), "", "h", [2]).parts and calls == [1]


def test_a_thousand_steps_are_sampled():
    loss, _ = network(T=1000, N=1, H=2)
    picture = viz.paths(loss, of="c")
    assert len(picture.data["t"]) <= 27 and "Every 38th of 1000 steps is drawn." in words_of(picture)
    _, heat = panels_of(picture, "∂L/∂c")
    assert list(heat.columns) == [str(t) for t in picture.data["t"]] and heat.columns[-1] == "1000"


def test_bad_input():
    loss, _ = network()
    for view in (viz.paths, viz.direct):
        with pytest.raises(InputError, match="'z' is not a carried state; there are c, h"):
            view(loss, of="z")
        with pytest.raises(InputError, match="no state is carried"):
            view((Tensor(np.ones(2), requires_grad=True) * 2.0).sum())
        with pytest.raises(InputError, match="cannot draw int"):
            view(3)


@pytest.mark.parametrize("view", VIEWS)
def test_the_structure_and_that_the_same_program_writes_the_same_bytes(view, golden):
    pictures = [view(network(T=3, H=2, N=1)[0]) for _ in range(2)]
    assert pictures[0].svg() == pictures[1].svg()
    golden(f"{view.__name__}.txt", described(pictures[0].sheet))


# Direct and total.


@pytest.mark.parametrize("case", EVERY)
def test_direct_and_the_rest_make_the_total(case):
    loss, _ = network(**EVERY[case])
    net = read(loss)
    times = sorted({*net.times, *(g.t for g in net.first.values())})
    for d in measured(net, loss, carried("test", net), times):
        for t, total in d.vectors["total"].items():
            both = d.vectors["direct"][t] + d.vectors["from other steps"][t]
            assert norm(both - total) <= 1e-12 * norm(total)


@pytest.mark.parametrize("case", [*PLAIN, "stacked", "masked", "from the end"])
def test_direct_against_finite_differences(case):
    """The state is moved, and only what stands in its own step, or outside of all steps, follows."""
    loss, _ = network(**EVERY[case])
    net, rng, t = read(loss), np.random.default_rng(1), 2
    places = where(net)
    for d in measured(net, loss, carried("test", net), [t]):
        node = net.find(d.band, t, d.name).out
        carry = {n for n, at in places.place.items() if at == t and n > node.number}
        direction = rng.standard_normal(node.shape)
        found = slope(loss, node, direction, lambda n: n.number in places.outside, carry)
        assert found == pytest.approx(float((d.vectors["direct"][t] * direction).sum()), rel=2e-5, abs=1e-9)


@pytest.mark.parametrize("options", [{}, dict(last=True)])
def test_two_bars_per_step_are_the_norms_and_zero_is_written(options):
    loss, _ = network(**options)
    picture = viz.direct(loss, of="h")
    plot, heat = panels_of(picture, "∂L/∂h")
    assert plot.y.log and list(heat.labels) == ["direct", "from other steps", "total"]
    for k in range(len(picture.data["t"])):
        for row, kind in zip(heat.rows, heat.labels, strict=True):
            size = norm(picture.data[f"dh {kind}"][k])
            assert row[k].said == number(size)
            here = [m for m in plot.marks if int(m.x) == k and (m.x % 1 < 0.5) == (kind == "direct")]
            if kind == "from other steps":
                continue
            (mark,) = here
            if size:
                assert isinstance(mark, Bar) and mark.colour == heat.chips[list(heat.labels).index(kind)]
                assert mark.high == pytest.approx(size) and plot.y.low == mark.low <= size <= plot.y.high
            else:
                assert isinstance(mark, Words) and mark.said == "0"
    assert "direct + from other steps = total, as vectors: their norms do not add up." in words_of(picture)


def test_the_trap_of_the_direct_gradient():
    """With a loss at the end alone all but the last step get nothing directly."""
    loss, run = network(last=True)
    data = viz.direct(loss, run.steps, of="h").data
    assert not data["dh direct"][:-1].any()
    np.testing.assert_array_equal(data["dh direct"][-1], run.steps[-1].h.grad)
    np.testing.assert_array_equal(data["dh total"][2], run.steps[1].h.grad)


class Cancelling(cells.Cell):
    """What comes back to c by a is taken away again by b: the gradient is zero, up to rounding."""

    gates = "a b"
    state = "h c"

    def build(self, rng):
        self.parameter("W", rng.standard_normal((self.inputs, self.hidden)))
        self.parameter("w", rng.uniform(1, 3, self.hidden))

    def step(self, x, h_prev, c_prev):
        a = c_prev * self.w * 3.0
        b = c_prev * (self.w * 3.0 + self.rest)
        return dict(a=a, b=b, c=x @ self.W, h=a - b + h_prev)


@pytest.mark.parametrize("rest", [1e-9, 0.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shares_of_next_to_nothing_are_not_told(rest, dtype):
    rng = np.random.default_rng(0)
    cell = type("Cancelling", (Cancelling,), dict(rest=rest))(3, 4, rng, dtype)
    steps = cells.run(cell, rng.standard_normal((4, 2, 3)).astype(dtype)).steps
    loss = (stack([s.h for s in steps]) ** 2).sum()
    loss.backward(record=True)
    for picture in (viz.paths(loss), viz.direct(loss)):
        said = words_of(picture) + described(picture.sheet) + (picture.text or "")
        assert not re.search(r"\d{4,} %|[+−]\d{4,}|nan|inf", said), said
    if rest and dtype == "float64":
        said = words_of(viz.paths(loss, of="c"))
        assert "The ways cancel: of all that comes, less than a thousandth is left." in said


def against_each_other(rest):
    """The loss of a cell in which c hands back −3 w by a and 3 w + rest by b, as shares of the rest."""
    cell = type("Cancelling", (Cancelling,), dict(rest=rest))(3, 4, np.random.default_rng(0), "float64")
    run = cells.run(cell, np.random.default_rng(1).standard_normal((4, 2, 3)))
    loss = (run.h**2).sum()
    loss.backward(record=True)
    return loss


def test_bars_beyond_the_axis_end_there_and_say_where():
    loss = against_each_other(1.0)
    plot, _ = panels_of(viz.paths(loss, of="c"), "∂L/∂c")
    assert (plot.y.low, plot.y.high) == (-2.0, 3.0)
    s = split(read(loss), "", "c", [0, 1, 2, 3, 4], far=True)
    for k, t in enumerate(s.times):
        bars = [m for m in plot.marks if int(m.x) == k]
        assert all(-2 <= m.low <= m.high <= 3 for m in bars)
        found = shares(s, t)
        said = [m.said for m in bars if m.said]
        down = sum(v for v in found.values() if v < 0)
        assert said == ([f"+{100 * (1 - down):.0f} −{-100 * down:.0f}"] if down < -2 else [])
    assert any(m.said for m in plot.marks)


@pytest.mark.parametrize("rest", [20.0, 2000.0])
def test_a_share_that_rounds_to_zero_has_no_sign(rest):
    """What hangs a little below zero makes the axis begin there; its first label is that of zero."""
    picture = viz.paths(against_each_other(rest), of="c")
    plot, _ = panels_of(picture, "∂L/∂c")
    assert -0.5 < plot.y.low < 0 and [said for _, said in plot.y.ticks or ()] == ["0 %", "50 %", "100 %"]
    said = words_of(picture) + picture.text
    assert re.search(r"(?<!\d)0 %", said) and not re.search(r"[-−]0 %", said)


def test_percent():
    found = [percent(v) for v in (-0.001, -0.0, 0.004, -0.12, 1.5)]
    assert found == ["0 %", "0 %", "0 %", "−12 %", "150 %"]
    d = Direct("", "c", [1, 2])
    for t in d.times:
        d.vectors["direct"][t], d.vectors["total"][t] = np.array([-1e-3, 0.0]), np.array([1.0, 0.0])
    said = verdict_of_direct(d)
    assert "sends 0 % of it on average" in said and "least at t = 1 (0 %)" in said


def test_a_direct_part_is_not_set_beside_next_to_nothing():
    d = Direct("", "c", [1, 2])
    direct, rest = np.array([1.0, -2.0]), np.array([-1.0, 2.0 + 1e-9])
    for t, other in ((1, rest), (2, 0.5 * direct)):
        d.vectors["direct"][t], d.vectors["from other steps"][t] = direct, other
        d.vectors["total"][t] = direct + other
    assert d.share(1) is None and d.share(2) == pytest.approx(1 / 1.5)
