"""`paths` and `direct`: the parts add up, and each is what finite differences say."""

from __future__ import annotations

import re

import numpy as np
import pytest
from drawn import structure, texts
from forward import EVERY, MASK, network, slope

import cells
import viz
from minigrad import InputError, Tensor, stack
from viz.chart.direct import Direct, measured
from viz.chart.paths import cancelled, shares
from viz.language.states import norm
from viz.language.text import number
from viz.measure.ways import FROM_LOSS, STRAIGHT, carried, passed_on, split, where
from viz.measure.ways import slope as slope_of_gate
from viz.read.network import OUTPUT, QUANTITY, SHARED, read

VIEWS = (viz.paths, viz.direct, viz.bptt, viz.weights_by_step)
PLAIN = [name for name in EVERY if name in cells.CELLS]


def every_state(net, far):
    times = sorted({*net.steps, *(g.t for g in net.first.values())})
    return [split(net, band, name, times, far) for band, name in carried("test", net)]


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("case", EVERY)
def test_the_parts_add_up_to_the_gradient(case, far):
    loss, _ = network(**EVERY[case])
    for s in every_state(read(loss), far):
        assert s.whole
        for t, whole in s.whole.items():
            total = sum(s.vectors[t].values(), np.zeros_like(whole))
            assert norm(total - whole) <= 1e-12 * norm(whole), (case, s.band, s.name, t)


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
    words = texts(picture.svg())
    assert "∂L/∂c" not in words and "through c̃" in words
    for t, step in enumerate(run.steps, 1):
        assert number(norm(step.h.grad)) in words
        data = picture.data
        k = list(data["t"]).index(t)
        total = sum(
            data[f"dh {w}"][k]
            for w in ("from the loss", "through f", "through i", "through c_tilde", "through o")
        )
        np.testing.assert_allclose(total, step.h.grad, rtol=1e-12)
    s = split(read(loss), "", "h", [2], far=True)
    row = next(line for line in picture.text.splitlines() if line.split()[0] == "2")
    assert row.split()[1] == number(norm(run.steps[1].h.grad))
    assert f"{100 * shares(s, 2)[FROM_LOSS]:.0f} %" in row and f"{100 * cancelled(s, 2):.0f} %" in row


def test_layers_are_told_apart_and_name_who_sends():
    loss, _ = network(**EVERY["stacked"])
    dot = viz.paths(loss).dot
    assert "from layer 2" in dot and "layer 1: ∂L/∂c" in dot and "from the loss" in dot


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
        assert "–" in words and words.count("0") == 3  # of the legend, and two steps t = 0
        assert any("not computed: run loss.backward(record=True)" in w for w in words)
        assert np.isnan(picture.data["dh" if "dh" in picture.data else "dh total"]).all()


def test_a_cut_shows_as_a_cut():
    loss, _ = network(truncate=2)
    words = texts(viz.paths(loss).svg())
    assert words.count("✂") > 5  # the legend has one


def test_not_a_number_zero_and_a_single_step():
    loss, _ = network(T=1)
    assert "100 %" in texts(viz.paths(loss).svg())
    cell = cells.LSTM(2, 3, np.random.default_rng(0), "float64")
    run = cells.run(cell, np.ones((3, 1, 2)))
    nothing = (run.h * 0.0).sum()
    nothing.backward(record=True)
    assert "nothing that has a size" in texts(viz.paths(nothing).svg())
    assert texts(viz.direct(nothing).svg()).count("0") > 20
    bad = run.steps[0].h.sum() + (run.steps[1].h * np.inf).sum()
    with np.errstate(invalid="ignore"):
        bad.backward(record=True)
        for picture in (viz.paths(bad), viz.direct(bad)):
            assert "NaN" in texts(picture.svg())


def test_a_hook_that_changes_the_gradient_is_named():
    loss, run = network(backward=False)
    calls = []
    run.steps[1].h.hook(lambda g: calls.append(1) or 0.5 * g)
    loss.backward(record=True)
    assert "by a hook" in split(read(loss), "", "h", [2]).parts and calls == [1]


def test_a_thousand_steps_are_sampled():
    loss, _ = network(T=1000, N=1, H=2)
    picture = viz.paths(loss, of="c")
    assert len(picture.data["t"]) <= 27 and "Every 38th of 1000 steps is drawn" in picture.dot


def test_bad_input():
    loss, _ = network()
    for view in (viz.paths, viz.direct):
        with pytest.raises(InputError, match="'z' is no carried state; there are c, h"):
            view(loss, of="z")
        with pytest.raises(InputError, match="no state is carried"):
            view((Tensor(np.ones(2), requires_grad=True) * 2.0).sum())
        with pytest.raises(InputError, match="cannot draw int"):
            view(3)


@pytest.mark.parametrize("view", VIEWS)
def test_the_structure_and_that_the_same_program_writes_the_same_bytes(view, golden):
    pictures = [view(network(T=3, H=2, N=1)[0]) for _ in range(2)]
    assert pictures[0].dot == pictures[1].dot
    golden(f"{view.__name__}.txt", structure(pictures[0].dot))


# Direct and total.


@pytest.mark.parametrize("case", EVERY)
def test_direct_and_the_rest_make_the_total(case):
    loss, _ = network(**EVERY[case])
    net = read(loss)
    times = sorted({*net.steps, *(g.t for g in net.first.values())})
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
    steps = cells.unroll(cell, rng.standard_normal((4, 2, 3)).astype(dtype))
    loss = (stack([s.h for s in steps]) ** 2).sum()
    loss.backward(record=True)
    for picture in (viz.paths(loss), viz.direct(loss)):
        said = picture.dot + (picture.text or "")
        assert not re.search(r"\d{4,} %|[+−]\d{4,}|nan|inf", said), said
    if rest and dtype == "float64":
        assert (
            "The ways cancel: of all that comes, less than a thousandth is left."
            in viz.paths(loss, of="c").dot
        )


def test_a_direct_part_is_not_set_beside_next_to_nothing():
    d = Direct("", "c", [1, 2])
    direct, rest = np.array([1.0, -2.0]), np.array([-1.0, 2.0 + 1e-9])
    for t, other in ((1, rest), (2, 0.5 * direct)):
        d.vectors["direct"][t], d.vectors["from other steps"][t] = direct, other
        d.vectors["total"][t] = direct + other
    assert d.share(1) is None and d.share(2) == pytest.approx(1 / 1.5)
