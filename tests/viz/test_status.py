"""The status of a gradient: each is told apart, and not by colour alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
from drawn import attributes_of, network, plain, texts, words_of
from literature import LITERATURE

import cells
import viz
from minigrad import GraphError, Tensor, cross_entropy, log, stack, tanh
from viz.language.scale import Scale
from viz.language.status import CUT, STATUSES
from viz.read.network import SHARED, flows, read, roots_of


def edge_style(dot: str, source: str, target: str) -> tuple[str, float]:
    line = attributes_of(dot, source, target)
    return re.search(r"style=(\w+)", line)[1], float(re.search(r"penwidth=([\d.]+)", line)[1])


def test_every_state_has_a_look_of_its_own_without_its_colour():
    scale = Scale(-4, 0)
    looks = {
        (s.width, s.dash, s.mark)
        for s in (scale.stroke(1e-2 if k == "normal" else None, k) for k in STATUSES)
    }
    assert len(looks) == len(STATUSES)


@pytest.mark.parametrize("level", ["step", "gate"])
def test_before_backward_nothing_is_computed_and_nothing_is_zero(level):
    dot = viz.draw(network(backward=False)[0], level=level).dot
    assert (
        "No gradient is known yet" in dot and "not computed" in attributes_of(dot, "t=2 h", "t=2 output")
        if level == "gate"
        else True
    )
    assert "gradient 0" not in dot and ">∂f 0<" not in dot and ">∂c –<" in dot
    if level == "gate":
        assert edge_style(dot, "t=2 c", "t=3 c") == ("dashed", 0.8)


def test_a_plain_graph_before_backward():
    dot = viz.draw(plain(backward=False)).dot
    assert "No gradient is known yet" in dot and "not computed" in attributes_of(dot, "x", "matmul")
    assert ">∂W –<" in dot


def test_backward_without_record_is_not_computed_either():
    loss, _ = network(backward=False)
    loss.backward()
    assert "not computed" in attributes_of(viz.draw(loss).dot, "t=2 c", "t=3 c")


def test_a_cut_is_a_cut():
    x = Tensor(np.ones(3), requires_grad=True, name="x")
    y = tanh(x).named("y")
    loss = (y.detach() * y).sum()
    loss.backward(record=True)
    dot = viz.draw(loss).dot
    line = attributes_of(dot, "y", "detach")
    assert "✂" in line and "style=dashed" in line and "tooltip=cut" in line
    behind = tanh(tanh(x).named("a").detach())
    dot = viz.draw(behind * y).dot
    assert "cut" in attributes_of(dot, "x", "a")


class Truncated(cells.LSTM):
    count = 0

    def step(self, x, h_prev, c_prev):
        self.count += 1
        if self.count == 3:
            h_prev, c_prev = h_prev.detach(), c_prev.detach()
        return super().step(x, h_prev, c_prev)


def test_truncation_shows_on_both_lanes_and_in_words():
    loss, _ = network(Truncated)
    dot = viz.draw(loss).dot
    for line in (attributes_of(dot, "t=2 c", "t=3 c"), attributes_of(dot, "t=2 h", "t=3 shared")):
        assert "✂" in line and ": cut" in line
    flow = viz.gradient(loss)
    assert "✂ Cut between t = 3 and 2." in words_of(flow) and texts(flow.svg()).count("✂ cut") == 2


def test_exactly_zero_is_said():
    loss, _ = network()  # the first memory is zero, so nothing can flow back through f at step 1
    dot = viz.draw(loss).dot
    assert edge_style(dot, "t=1 f", "t=1 c") == ("solid", 0.8)
    assert "gradient 0 (exactly zero)" in attributes_of(dot, "t=1 f", "t=1 c")
    loss, _ = network(backward=False)
    (loss * 0.0).backward(record=True)
    dot = viz.draw(loss).dot
    assert "(exactly zero)" in attributes_of(dot, "t=2 c", "t=3 c")
    assert words_of(viz.gradient(loss)).count("exactly zero everywhere") == 2


def recurrent(factor: float, T=25):
    """A basic layer whose weights are scaled, with a loss at its last step alone."""
    rng = np.random.default_rng(1)
    cell = cells.RNN(4, 16, rng, "float64")
    cell.W_h.value = cell.W_h.value * factor
    steps = cells.run(cell, 0.01 * rng.standard_normal((T, 1, 4))).steps
    loss = (steps[-1].h ** 2).sum()
    loss.backward(record=True)
    return loss, steps


def test_vanished_gradients_are_dotted_and_named():
    loss, steps = recurrent(0.3)
    dot = viz.draw(loss).dot
    assert np.linalg.norm(steps[0].h.grad) < 1e-6
    assert edge_style(dot, "t=1 h", "t=2 h")[0] == "dotted" and ">vanished<" in dot
    flow = words_of(viz.gradient(loss))
    assert "A step carries × 0.3 of the gradient back" in flow and "It has vanished at t = 0 …" in flow


def test_exploded_gradients_are_widest_and_named():
    loss, _ = network(backward=False)
    (loss * 1e9).backward(record=True)
    dot = viz.draw(loss).dot
    assert ">exploded<" in dot and "(exploded)" in attributes_of(dot, "t=2 c", "t=3 c")
    assert "It has exploded" in words_of(viz.gradient(loss))


class Logarithm(cells.RNN):
    def step(self, x, h_prev):
        return {"h": log(super().step(x, h_prev)["h"])}


@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero)")
def test_not_a_number_is_said_and_does_not_disturb_the_scale():
    loss, steps = network(Logarithm)
    dot = viz.draw(loss).dot
    assert "not a number" in attributes_of(dot, "t=3 h", "t=4 h") and ">NaN<" in dot
    assert "not a number from t = " in words_of(viz.gradient(loss))
    assert (
        "NaN" in words_of(viz.gates(steps))
        and viz.draw(loss, level="step").dot
        and viz.draw(loss, level="operation").dot
    )


def test_infinity_and_huge_numbers_are_drawn():
    x = Tensor(np.array([1e300, -1e300, np.inf, 1e-320]), requires_grad=True, name="x")
    y = x + 1.0
    y.backward(np.array([1e300, 1.0, np.inf, 1e-320]), record=True)
    dot = viz.draw(y).dot
    assert "∞" in dot and "1e300" in dot


def test_two_pictures_on_one_scale():
    loss, _ = network()
    scale = viz.Scale(-6, 2)
    for picture in (
        viz.draw(loss, scale=scale),
        viz.draw(plain(), scale=scale),
    ):
        assert ">10⁻⁶<" in picture.dot and ">10²<" in picture.dot
    words = texts(viz.gradient(loss, scale=scale).svg())
    assert "1e−6" in words and "100" in words


def test_a_loss_over_one_sequence_of_many():
    rng = np.random.default_rng(0)
    cell = cells.LSTM(3, 5, rng, "float64")
    steps = cells.run(cell, rng.standard_normal((3, 4, 3))).steps
    loss = cross_entropy(stack([s.h for s in steps]), rng.integers(0, 5, (3, 4)))
    loss.backward(record=True)
    assert ("t=3 h" in viz.draw(loss).dot) and "∂L/∂h" in words_of(viz.gradient(loss))


# Two runs of one cell, and a state that goes from one to the next.

EVERY_VIEW = [
    viz.draw,
    viz.gradient,
    viz.paths,
    viz.direct,
    viz.bptt,
    viz.weights_by_step,
    viz.gates,
    viz.report,
]


def two_runs(labels=("", ""), T=3, chained=False, kind=cells.LSTM):
    """One cell over two sequences, of which the second may go on where the first ended."""
    rng = np.random.default_rng(0)
    cell = kind(3, 5, rng, "float64")
    x, state, loss = rng.standard_normal((2, T, 2, 3)), None, Tensor(0.0)
    for xs, label in zip(x, labels, strict=True):
        steps = cells.run(cell, xs, state, label=label).steps
        state = steps[-1].state if chained else None
        loss = loss + (steps[-1].h ** 2).sum()
    loss.backward(record=True)
    return loss


@pytest.mark.parametrize("view", EVERY_VIEW, ids=lambda view: view.__name__)
def test_two_runs_in_the_same_steps_are_refused(view):
    for T in (1, 3):
        for chained in (False, True):
            for kind in (cells.RNN, cells.GRU, cells.LSTM):
                with pytest.raises(GraphError, match=r'two runs stand in the same steps.*label="second"'):
                    view(two_runs(T=T, chained=chained, kind=kind))


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("view", EVERY_VIEW, ids=lambda view: view.__name__)
def test_with_labels_both_runs_are_shown(view, chained):
    words = words_of(view(two_runs(("first", "second"), chained=chained)))
    assert "first" in words and "second" in words


def test_what_a_cell_names_twice_in_one_step_is_no_second_run():
    class Twice(cells.RNN):
        def step(self, x, h_prev):
            h = super().step(x, h_prev)["h"].named("h")
            return dict(h=(0.5 * h).named("h"))

    loss, _ = network(Twice)
    assert viz.draw(loss).dot and "∂L/∂h" in words_of(viz.gradient(loss))


@pytest.mark.parametrize("T", [1, 2, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_usual_stateful_loop_draws_its_last_window(T, reverse):
    rng = np.random.default_rng(0)
    cell, state = cells.LSTM(3, 5, rng, "float64"), None
    for window in rng.standard_normal((3, T, 2, 3)):
        if T == 4 and state is not None:
            window = window[:3]  # windows need not be of the same length
        steps = cells.run(cell, window, state, reverse=reverse).steps
        last = steps[0 if reverse else -1].state
        loss = (last[0] ** 2).sum()
        loss.backward(record=True)
        before, state = state, [s.detach() for s in last]
    for what in (loss, steps):
        seen = read(*roots_of(what))
        assert seen.times == list(range(1, len(steps) + 1)) and seen.carried[""] == ["c", "h"]
        start = len(steps) + 1 if reverse and T > 1 else 0  # one step has no direction
        assert {key: g.t for key, g in seen.first.items()} == {("", "c"): start, ("", "h"): start}
        for (_, name), group in seen.first.items():
            assert np.array_equal(group.out.value, before["hc".index(name)].value)
        assert [g.name for own in seen.inputs.values() for g in own] == ["x"] * len(steps)
    for view in EVERY_VIEW:
        assert texts(view(loss).svg())
    assert list(viz.gradient(loss).data["t"]) == sorted([*seen.times, start])


# Inputs and first states, wherever they come from.


@pytest.mark.parametrize("learns", ["", "whole", "each"])
@pytest.mark.parametrize("T", [1, 2, 4])
@pytest.mark.parametrize("name", ["qrnn", "lmu", "learned_state_lstm", "zoneout_lstm", "mlstm"])
def test_x_is_an_input_of_its_step_whatever_else_reads_it(name, T, learns):
    rng = np.random.default_rng(0)
    D = 13 if name == "zoneout_lstm" else 3
    cell, x = LITERATURE[name](D, 5, rng, "float64"), rng.standard_normal((T, 2, D))
    if learns:
        x = Tensor(x, True, name="x") if learns == "whole" else [Tensor(v, True, name="x") for v in x]
    steps = cells.run(cell, x).steps
    loss = (steps[-1].state[0] ** 2).sum()
    loss.backward(record=True)
    for records in (None, steps):
        seen = read(loss, records)
        assert seen.times == list(range(1, T + 1))
        assert {t: [g.name for g in own] for (_, t), own in seen.inputs.items()} == {
            t: ["x"] for t in seen.times
        }
        assert all(np.array_equal(seen.inputs["", s.t][0].out.value, s.x.value) for s in steps)
    weights = {p.number for p in cell.parameters().values()}
    there = {n.number for n in seen.nodes if n.op is None and n.requires_grad}
    assert there - seen.data == weights & there
    dot = viz.draw(loss).dot
    assert dot.count(">∂x ") == len(seen.times) == dot.count(">x<")


def test_learned_first_states_are_drawn_with_their_gradient():
    rng = np.random.default_rng(0)
    cell = LITERATURE["learned_state_lstm"](3, 5, rng, "float64")
    steps = cells.run(cell, rng.standard_normal((4, 2, 3))).steps
    loss = (stack([s.h for s in steps]) ** 2).sum()
    loss.backward(record=True)
    for view in (viz.gradient, viz.paths, viz.direct):
        data = view(loss).data
        assert list(data["t"]) == [0, 1, 2, 3, 4]
        for name in "hc":  # h_0 is the same for all sequences: its gradient is the sum of theirs
            whole = data[f"d{name} total" if view is viz.direct else f"d{name}"]
            assert np.allclose(whole[0].sum(axis=0), getattr(cell, f"{name}_0").grad, atol=1e-12)
    assert np.allclose(viz.weights_by_step(loss).data["dh_0 sum"], cell.h_0.grad)


def test_a_cut_state_that_two_quantities_read_is_cut_on_both_ways():
    class Cut(cells.JANET):
        def step(self, x, h_prev):
            return super().step(x, h_prev.detach())

    rng = np.random.default_rng(0)
    steps = cells.run(Cut(3, 4, rng, "float64"), rng.standard_normal((3, 1, 3))).steps
    loss = (steps[-1].h ** 2).sum()
    loss.backward(record=True)
    network = read(loss)
    found = flows(network, network.cells["", 3])
    before = [f for f in found if (f.source.name, f.source.t) == ("h", 2)]
    assert {f.target.name for f in before} == {"", "h"} and {f.status for f in before} == {CUT}
    assert not [f for f in found if f.source.kind == SHARED and f.target.name == "h"]


def test_a_zero_inside_of_a_quantity_is_not_told_as_the_quantity():
    rng = np.random.default_rng(0)
    steps = cells.run(cells.ResetAfterGRU(3, 4, rng, "float64"), rng.standard_normal((3, 1, 3))).steps
    loss = (steps[-1].h ** 2).sum()
    loss.backward(record=True)
    assert not steps[0].r.grad.any() and steps[0].h_tilde.value.any()
    for picture in (viz.draw(loss, level="gate"), viz.gates(loss)):
        words = words_of(picture)
        assert "it meets a 0" in words and "h_tilde_1 = 0" not in words and "h̃ of t = 1 is 0" not in words


def handed_over(through) -> Tensor:
    """An encoder and a decoder that begins with what `through` makes of the encoder's last state."""
    rng = np.random.default_rng(0)
    encoder, decoder = cells.RNN(3, 4, rng, "float64"), cells.RNN(2, 4, rng, "float64")
    (h,) = cells.run(encoder, rng.standard_normal((4, 2, 3)), label="encoder").state
    y = cells.run(decoder, rng.standard_normal((3, 2, 2)), [through(h)], label="decoder").outputs
    loss = (y * y).sum().named("L")
    loss.backward(record=True)
    return loss


def test_what_lies_between_two_runs_is_the_first_state_of_the_second_and_no_output():
    W = Tensor(np.random.default_rng(1).standard_normal((4, 4)), requires_grad=True, name="W")
    loss = handed_over(lambda h: tanh(h @ W))
    net = read(loss)
    first = net.first["decoder", "h"]
    assert [n.op.name for n in first.nodes] == ["matmul", "tanh"] and not net.outputs
    for level, source in (("gate", "encoder t=4 h"), ("step", "encoder t=4")):
        dot = viz.draw(loss, level=level).dot
        assert "gradient" in attributes_of(dot, source, "decoder t=0 h"), level
        assert "t=4 output" not in dot
    ways = viz.transport(loss)
    norm = np.linalg.norm
    assert ways[0].links[-1].factor == pytest.approx(
        norm(net.find("encoder", 3, "h").out.grad) / norm(net.find("encoder", 4, "h").out.grad)
    )
    rows = ways[0].rows  # a loss of the decoder is followed back through the layer between
    assert np.isfinite(rows.norms).all()
    total = norm(net.find("encoder", 2, "h").out.grad)
    assert rows.norms[:, rows.times.index(2)].sum() >= total * (1 - 1e-9)


def test_what_the_loss_reads_as_well_stays_an_output():
    rng = np.random.default_rng(0)
    encoder, decoder = cells.RNN(3, 4, rng, "float64"), cells.RNN(2, 4, rng, "float64")
    (h,) = cells.run(encoder, rng.standard_normal((4, 2, 3)), label="encoder").state
    W = Tensor(rng.standard_normal((4, 4)), requires_grad=True, name="W")
    y = tanh(h @ W)
    run = cells.run(decoder, rng.standard_normal((3, 2, 2)), [y * 0.5], label="decoder")
    loss = (run.outputs * run.outputs).sum() + (y * y).sum()
    loss.backward(record=True)
    net = read(loss)
    assert [n.op.name for n in net.first["decoder", "h"].nodes] == ["mul"]
    assert [n.op.name for n in net.outputs[4].nodes] == ["matmul", "tanh"]


def test_what_weights_of_a_layer_multiply_before_the_steps_is_no_weight():
    rng = np.random.default_rng(0)
    layer, cell = cells.Dense(3, 5, rng, dtype="float64"), cells.GRU(5, 4, rng, "float64")
    x = Tensor(rng.standard_normal((4, 2, 3)), requires_grad=True, name="x")
    free = Tensor(rng.standard_normal((3, 3)), requires_grad=True, name="free")  # which no layer holds
    loss = (cells.run(cell, layer(x @ free)).outputs ** 2).sum()
    loss.backward(record=True)
    net = read(loss)
    assert x.number not in net.data  # what a free weight multiplies may be one as well
    loss = (cells.run(cell, layer(x)).outputs ** 2).sum()
    loss.backward(record=True)
    assert read(loss).data >= {x.number}
    assert not viz.report(loss, parameters=[*layer.parameters().values(), *cell.parameters().values()]).faults
