"""`taps`: which step is read by which, how far an output sees, and what every tap sends back."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from drawn import attributes_of, edges, network, structure
from hypothesis import given, settings
from hypothesis import strategies as st
from test_escaping import NASTY, harmless

import cells
import minigrad as mg
import viz
from minigrad import InputError, Tensor, conv1d, scope, tanh
from viz.diagram.taps import offsets_said
from viz.language.text import number
from viz.read.whole import norms, read_whole


def convolved(T=9, N=2, D=3, taps=3, dilation=2, causal=True, layers=1, seed=0, read=-1, x=None):
    """Convolutions, each with a tanh, of x: (loss, x, [h of each layer], [W of each layer])."""
    rng = np.random.default_rng(seed)
    x = Tensor(rng.standard_normal((T, N, D)), name="x") if x is None else x
    h, made, weights = x, [], []
    for k in range(layers):
        W = Tensor(rng.standard_normal((taps, D, D)) / D, requires_grad=True, name="W")
        weights.append(W)
        with scope(f"level {k + 1}"):
            h = tanh(conv1d(h, W, dilation**k if layers > 1 else dilation, causal)).named("h")
        made.append(h)
    loss = (h[read] ** 2).sum().named("L") if read is not None else (h**2).mean().named("L")
    loss.backward(record=True)
    return loss, x, made, weights


def tcn(T=20, N=2, levels=3, taps=3, seed=0, dropout=False, positive=False):
    """The temporal convolutional network with a loss at its last step: (loss, network, x, h)."""
    rng = np.random.default_rng(seed)
    net = cells.TCN(4, 5, levels, taps, rng, "float64")
    data = rng.standard_normal((T, N, 4))
    if positive:  # then no rectifier is dead, and whatever is seen has a gradient
        data = np.abs(data)
        for p in net.parameters().values():
            p.value = np.abs(p.value)
    x = Tensor(data, name="x")
    h = net(x, dropout=net.dropout_masks(T, N, 0.2, rng) if dropout else None).outputs
    loss = (h[-1] ** 2).sum().named("L")
    loss.backward(record=True)
    return loss, net, x, h


def transformer(T=6, N=2, heads=2, layers=2, seed=0, D=5, read=None):
    rng = np.random.default_rng(seed)
    net = cells.Transformer(D, 8, heads, layers, rng, dtype="float64")
    x = Tensor(rng.standard_normal((T, N, D)), name="x")
    h = net(x).outputs
    loss = ((h if read is None else h[read]) ** 2).sum().named("L")
    loss.backward(record=True)
    return loss, x, h


def lines(dot: str) -> set[tuple[str, str]]:
    """The lines from step to step, without those of the legend, of the loss and of the bracket."""
    found = edges(dot)
    return {(a, b) for a, b in found if re.search(r"t=\d+$", a) and re.search(r"t=\d+$", b)}


# Which step is read by which.


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (3, 1), (3, 2), (5, 3)])
def test_every_tap_is_a_line_at_its_offset(taps, dilation, causal):
    T = 9
    loss, *_ = convolved(T, taps=taps, dilation=dilation, causal=causal)
    back = taps - 1 if causal else taps // 2
    wanted = {
        (f"x t={s + 1}", f"level 1  h t={t + 1}")
        for t in range(T)
        for j in range(taps)
        if 0 <= (s := t - (back - j) * dilation) < T
    }
    dot = viz.taps(loss).dot
    assert lines(dot) == wanted
    assert ("both sides" in dot) == (taps > 1 and not causal)


def test_a_convolution_of_padded_slices_is_read_too():
    """As somebody else may write it: zeros joined on, then a slice for each tap."""
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((7, 2, 3)), name="x")
    W = Tensor(rng.standard_normal((3, 3, 4)), requires_grad=True)
    padded = mg.concat(mg.zeros((4, 2, 3), "float64"), x, axis=0)
    h = tanh(padded[:-4] @ W[0] + padded[2:-2] @ W[1] + padded[4:] @ W[2]).named("h")
    (h**2).sum().backward(record=True)
    row = read_whole(h).top
    assert [way.offset for way in row.ways] == [-4, -2, 0]
    g = h.grad * (1 - h.value**2)
    for way, tap in zip(row.ways, W.value, strict=True):
        sent = np.linalg.norm(g @ tap.T, axis=(1, 2))
        sent[: -way.offset] = 0
        np.testing.assert_allclose(way.norms, sent, rtol=1e-12)


def test_zeros_of_as_many_steps_as_the_sequence_are_no_input():
    x = Tensor(np.random.default_rng(0).standard_normal((4, 1, 2)))
    h = tanh(mg.concat(mg.zeros((4, 1, 2), "float64"), x, axis=0)[2:6] + x).named("h")
    whole = read_whole(h)
    assert [row.label for row in whole.rows] == ["x", "h"]
    assert [way.offset for way in whole.top.ways] == [-2, 0]


def test_the_rows_of_a_temporal_convolutional_network():
    loss, net, *_ = tcn(dropout=True)
    whole = read_whole(loss)
    names = [f"level {k}  {name}" for k in (1, 2, 3) for name in "ah"]
    assert [row.label for row in whole.rows] == ["x", *names]
    for row, dilation in zip(whole.rows[1:], [1, 1, 2, 2, 4, 4], strict=True):
        taps = [way.offset for way in row.ways if way.source is whole.rows[whole.rows.index(row) - 1]]
        assert taps == [-2 * dilation, -dilation, 0]
    skips = {(w.source.label, row.label) for row in whole.rows for w in row.ways if row.name == "h"}
    assert ("x", "level 1  h") in skips and ("level 2  h", "level 3  h") in skips
    dot = viz.taps(loss).dot
    assert "3 taps, dilation 4" in dot and "skip from level 2" in dot
    assert ("level 2  h t=7", "level 3  h t=7") in lines(dot)
    assert whole.reach() == net.receptive_field


def test_sizes_that_happen_to_be_equal_confuse_nothing():
    loss, *_ = convolved(T=3, N=3, D=3, taps=3, dilation=1)
    assert [[w.offset for w in row.ways] for row in read_whole(loss).rows] == [[], [-2, -1, 0]]
    loss, *_ = transformer(T=4, N=4, heads=4, D=4)
    rows = read_whole(loss).rows
    assert [row.label for row in rows] == ["x", "block 1", "block 2", "h"]
    assert all(row.node.shape == (4, 4, w) for row, w in zip(rows, (4, 8, 8, 8), strict=True))
    loss, *_ = tcn(T=3, N=3, levels=3, dropout=True)
    assert [row.label for row in read_whole(loss).inputs] == ["x"]


@pytest.mark.parametrize("kind", ["leaf that learns", "embedding", "one-hot", "no name"])
def test_inputs_of_every_kind(kind):
    rng = np.random.default_rng(0)
    index = Tensor(rng.integers(0, 3, (8, 2)), name="text")
    x = {
        "leaf that learns": lambda: Tensor(rng.standard_normal((8, 2, 3)), requires_grad=True, name="x"),
        "embedding": lambda: mg.gather(Tensor(rng.standard_normal((3, 3)), requires_grad=True), index),
        "one-hot": lambda: mg.one_hot(index, 3, "float64"),
        "no name": lambda: Tensor(rng.standard_normal((8, 2, 3))),
    }[kind]()
    loss, *_ = convolved(x=x)
    whole = read_whole(loss)
    assert [row.name for row in whole.rows] == ["text" if kind in ("embedding", "one-hot") else "x", "h"]
    assert [way.offset for way in whole.top.ways] == [-4, -2, 0]
    assert whole.seen_from(7)[x.number].tolist() == [t in (3, 5, 7) for t in range(8)]


def test_a_name_for_what_is_only_passed_on_can_be_asked_for():
    loss, *_ = tcn(levels=1)
    names = [row.name for row in read_whole(loss, ["u", "h"]).rows]
    assert names == ["x", "u", "h"] and "level 1  u" in viz.taps(loss, rows=["u", "h"]).dot
    whole = read_whole(loss, ["h"])  # two convolutions on top of each other: five offsets
    assert [way.offset for way in whole.top.ways] == [-4, -3, -2, -1, 0]


def test_what_mixes_all_steps_is_said():
    x = Tensor(np.random.default_rng(0).standard_normal((5, 2, 3)), name="x")
    h = (x - x.mean(axis=0, keepdims=True)).named("h")
    dot = viz.taps(h, step=2).dot
    assert "all steps" in dot and "sees 5 of 5 steps" in dot


def test_what_a_recurrence_gives_is_an_input():
    rng = np.random.default_rng(0)
    run = cells.run(cells.RNN(3, 4, rng, "float64"), rng.standard_normal((5, 1, 3)))
    y = conv1d(run.h, rng.standard_normal((2, 4, 2))).named("y")
    whole = read_whole(y)
    assert [row.label for row in whole.rows] == ["h", "y"] and [w.offset for w in whole.top.ways] == [-1, 0]


# How far an output sees.


@pytest.mark.parametrize("step", [1, 9, 20])
def test_the_receptive_field_is_what_has_a_gradient(step):
    _, net, x, h = tcn(levels=2, positive=True)
    loss = (h[step - 1] ** 2).sum().named("L")
    loss.backward(record=True)
    picture = viz.taps(loss)
    seen = np.abs(x.grad).sum(axis=(1, 2)) > 0
    np.testing.assert_array_equal(picture.data["seen/x"], seen)
    assert seen.sum() == min(step, net.receptive_field)
    assert f"h at t = {step} sees {seen.sum()} of 20 steps of x" in picture.dot


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_causal_transformer_sees_all_steps_before(step):
    loss, x, _ = transformer(read=step - 1)
    picture = viz.taps(loss)
    np.testing.assert_array_equal(picture.data["seen/x"], np.abs(x.grad).sum(axis=(1, 2)) > 0)
    assert picture.data["seen/x"].sum() == step


def test_a_field_that_is_longer_than_the_sequence():
    loss, *_ = convolved(T=6, taps=3, dilation=4)
    assert (
        "sees 2 of 6 steps" in viz.taps(loss).dot and "its receptive field is 9 steps" in viz.taps(loss).dot
    )


def test_another_step_may_be_asked_for():
    loss, *_ = convolved(taps=2, dilation=1)
    dot = viz.taps(loss, step=4).dot
    assert "h at t = 4 sees 2 of 9 steps of x: t = 3 … 4" in dot
    assert "seen from h at t = 4: 2 of 9" in dot


# What the taps send back.


@pytest.mark.parametrize("causal", [True, False])
def test_what_a_tap_sends_back_by_finite_differences(causal):
    """Every tap gets an input of its own: the difference in that input alone is what flows along the tap."""
    rng = np.random.default_rng(1)
    T, N, D, taps, dilation = 6, 2, 2, 3, 2
    x, W = rng.standard_normal((T, N, D)), rng.standard_normal((taps, D, D))
    loss, *_, weights = convolved(T, N, D, taps, dilation, causal, read=None, x=Tensor(x, name="x"))
    W = weights[0].value
    back = taps - 1 if causal else 1

    def value(copies) -> float:
        pre = np.zeros((T, N, D))
        for j in range(taps):
            for t in range(T):
                s = t - (back - j) * dilation
                if 0 <= s < T:
                    pre[t] += copies[j, s] @ W[j]
        return float((np.tanh(pre) ** 2).mean())

    slopes, copies = np.zeros((taps, T, N, D)), np.stack([x] * taps)
    for at in np.ndindex(slopes.shape):
        up, down = copies.copy(), copies.copy()
        up[at] += 1e-6
        down[at] -= 1e-6
        slopes[at] = (value(up) - value(down)) / 2e-6
    data = viz.taps(loss).data
    for j in range(taps):
        offset = -(back - j) * dilation
        sent = np.zeros(T)
        for t in range(T):
            if 0 <= t + offset < T:
                sent[t] = np.linalg.norm(slopes[j, t + offset])
        np.testing.assert_allclose(data[f"taps/level 1  h/x/{offset}"], sent, rtol=1e-6, atol=1e-10)


def test_what_the_taps_of_every_level_send_back_by_numpy():
    loss, *_ = tcn(levels=2)
    nodes = {(n.scope, n.name): n for n in mg.ancestors(loss)}
    data = viz.taps(loss).data
    for k, below in ((1, "x"), (2, "level 1  h")):
        a, W = nodes[(f"level {k}",), "a"], nodes[(f"level {k}",), "W_1"]
        g = a.grad * (a.value > 0)
        for j in range(3):
            offset = -(2 - j) * 2 ** (k - 1)
            sent = np.linalg.norm(g @ W.value[j].T, axis=(1, 2))
            sent[: -offset or 0] = 0
            np.testing.assert_allclose(data[f"taps/level {k}  a/{below}/{offset}"], sent, rtol=1e-12)


def test_what_flows_into_a_row_adds_up_to_its_gradient():
    """Of one unit and nothing negative the norms are the numbers themselves, so they add up."""
    rng = np.random.default_rng(0)
    x = h = Tensor(rng.random((9, 1, 1)), name="x")
    for k in range(3):
        with scope(f"level {k + 1}"):
            W = Tensor(rng.random((3, 1, 1)), requires_grad=True)
            h = (tanh(conv1d(h, W, 2**k)) + 0.5 * h + 0.1 * x).named("h")
    loss = h.sum()
    loss.backward(record=True)
    whole = read_whole(loss)
    for row in whole.rows[:-1]:
        arrived = np.zeros(9)
        for reader in whole.rows:
            for way in reader.ways:
                if way.source is row:
                    for t in way.times:
                        arrived[t + way.offset] += way.norms[t]
        np.testing.assert_allclose(arrived, row.node.grad.ravel(), rtol=1e-12)
    assert x is whole.rows[0].node


def test_the_numbers_of_lines_and_cells_are_those_of_the_arrays():
    loss, x, (h,), _ = convolved(T=7)
    picture = viz.taps(loss)
    size = picture.data["taps/level 1  h/x/-2"][6]
    line = attributes_of(picture.dot, "x t=5", "level 1  h t=7")
    assert f"gradient {number(size, 4)} (normal)" in line
    np.testing.assert_allclose(picture.data["values/x"], np.linalg.norm(x.value, axis=(1, 2)))
    np.testing.assert_allclose(picture.data["gradients/level 1  h"], np.linalg.norm(h.grad, axis=(1, 2)))
    widths = []
    for offset in (-4, -2, 0):
        line = attributes_of(picture.dot, f"x t={7 + offset}", "level 1  h t=7")
        widths.append(
            (picture.data[f"taps/level 1  h/x/{offset}"][6], float(re.search(r"penwidth=([\d.]+)", line)[1]))
        )
    assert [w for _, w in sorted(widths)] == sorted(w for _, w in widths)


def test_norms_do_not_overflow():
    a = np.array([[3e200, 4e200], [0, 0], [np.nan, 1], [np.inf, 1], [3e-200, 4e-200]])[:, None]
    np.testing.assert_allclose(norms(a), [5e200, 0, np.nan, np.inf, 5e-200])
    assert norms(np.zeros((3, 0, 2))).tolist() == [0, 0, 0]


# Attention.


def test_the_lines_of_attention_are_the_weights():
    loss, *_ = transformer(read=-1)
    alpha = [n.value for n in mg.ancestors(loss) if n.name == "alpha"]
    picture = viz.taps(loss, sequence=1)
    np.testing.assert_array_equal(picture.data["alpha/block 1/x"], alpha[0][1])
    mean = alpha[1][1].mean(axis=0)
    least = min(0.05, mean[5].max() / 2)
    for s in range(6):
        present = (f"block 1 t={s + 1}", "block 2 t=6") in lines(picture.dot)
        assert present == (mean[5, s] >= least or s == 5)
    line = attributes_of(picture.dot, "block 1 t=2", "block 2 t=6")
    assert f"α = {number(mean[5, 1], 3)}" in line
    one = viz.taps(loss, head=1).dot
    assert "Brown: attention, head 1, sequence 0" in one
    assert f"α = {number(alpha[1][0, 1, 5, 1], 3)}" in attributes_of(one, "block 1 t=2", "block 2 t=6")


def test_heads_that_are_products_of_their_own():
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((5, 1, 4)), name="x")
    rows = x.transpose(1, 0, 2)
    heads = []
    for _ in range(3):
        q, k, v = (rows @ Tensor(rng.standard_normal((4, 2)), requires_grad=True) for _ in range(3))
        heads.append(mg.softmax(q @ k.swapaxes(-1, -2)).named("alpha") @ v)
    y = mg.concat(*heads).transpose(1, 0, 2).named("y")
    assert viz.taps(y).data["alpha/y/x"].shape == (3, 5, 5)


# The status of a gradient.


def test_before_backward_nothing_is_computed():
    x = Tensor(np.random.default_rng(0).standard_normal((5, 1, 3)), name="x")
    h = tanh(conv1d(x, Tensor(np.ones((2, 3, 2)), requires_grad=True))).named("h")
    dot = viz.taps((h**2).sum().named("L")).dot
    line = attributes_of(dot, "x t=4", "h t=5")
    assert "not computed" in line and "style=dashed" in line
    assert "No gradient is known yet" in dot and "gradient 0" not in dot
    assert not [key for key in viz.taps((h**2).sum()).data if key.startswith(("gradients", "taps"))]


def test_backward_without_record_is_not_computed_either():
    x = Tensor(np.ones((5, 1, 3)), requires_grad=True, name="x")
    loss = (tanh(conv1d(x, np.ones((2, 3, 2)))).named("h") ** 2).sum()
    loss.backward()
    assert "not computed" in attributes_of(viz.taps(loss).dot, "x t=4", "h t=5")


def test_a_gradient_of_zero_is_zero():
    loss, *_ = convolved()
    (loss * 0.0).backward(record=True)
    dot = viz.taps(loss * 0.0).dot
    assert "not computed" in dot  # of another graph: that it was computed for this one is not known
    zero = loss * 0.0
    zero.backward(record=True)
    dot = viz.taps(zero).dot
    line = attributes_of(dot, "x t=7", "level 1  h t=9")
    assert "gradient 0 (exactly zero)" in line and "style=solid" in line


def test_a_cut_is_a_cut():
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((6, 1, 3)), name="x")
    W = Tensor(rng.standard_normal((2, 3, 3)), requires_grad=True)
    with scope("level 1"):
        a = tanh(conv1d(x, W)).named("a")
    with scope("level 2"):
        h = (tanh(conv1d(a.detach(), W)) + x).named("h")
    loss = (h**2).sum()
    loss.backward(record=True)
    dot = viz.taps(loss).dot
    assert "tooltip=" in (line := attributes_of(dot, "level 1  a t=5", "level 2  h t=6")) and "cut" in line
    assert "style=dashed" in line and "✂ cut" in dot
    assert "normal" in attributes_of(dot, "x t=6", "level 2  h t=6")


@pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero)")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_drawn_and_does_not_spoil_the_scale(bad):
    data = np.random.default_rng(0).standard_normal((6, 1, 2))
    data[2, 0, 1] = bad
    x = Tensor(data, name="x")
    h = (conv1d(x, Tensor(np.ones((2, 2, 2)), requires_grad=True)) ** 2).named("h")
    loss = (h**2).sum()
    loss.backward(record=True)
    picture = viz.taps(loss)
    assert "not a number" in attributes_of(picture.dot, "x t=3", "h t=4") and picture.svg()
    assert "normal" in attributes_of(picture.dot, "x t=5", "h t=6") or bad is np.nan


def test_two_pictures_on_one_scale():
    loss, *_ = convolved()
    assert ">10⁻⁶<" in viz.taps(loss, scale=viz.Scale(-6, 2)).dot


# Sizes.


def test_a_single_step():
    loss, *_ = convolved(T=1)
    picture = viz.taps(loss)
    assert "sees 1 of 1 step of x: t = 1" in picture.dot and lines(picture.dot) == {
        ("x t=1", "level 1  h t=1")
    }
    assert picture.svg()
    loss, *_ = transformer(T=1, N=1)
    assert viz.taps(loss).data["alpha/block 1/x"].shape == (2, 1, 1)


def test_a_thousand_steps_are_a_window_and_that_is_said():
    loss, *_ = tcn(T=1000)
    start = time.process_time()
    picture = viz.taps(loss)
    picture.svg()
    assert time.process_time() - start < 5
    assert (
        "t = 1 … 960" in picture.dot and "960 steps" in picture.dot and "sees 29 of 1000 steps" in picture.dot
    )
    assert "level 1  a t=960" not in picture.dot and len(picture.data["values/x"]) == 1000
    ends = {a for a, _ in edges(viz.taps(loss, window=(975, 985)).dot)}
    assert "before" in ends and "after" not in ends  # seen from t = 1000, and nothing sees ahead


def test_lines_beyond_the_budget_are_left_out_and_that_is_said():
    loss, *_ = convolved(T=30, taps=5, dilation=1, layers=3)
    dot = viz.taps(loss, budget=20).dot
    assert len(lines(dot)) == 20 and "The 20 strongest of" in dot and "are left out" in dot


def test_the_same_program_draws_the_same_bytes():
    assert viz.taps(tcn()[0]).dot == viz.taps(tcn()[0]).dot
    assert viz.taps(transformer()[0]).dot == viz.taps(transformer()[0]).dot


def test_the_structure(golden):
    loss, *_ = convolved(T=4, taps=2, dilation=1, layers=2)
    found = structure(viz.taps(loss, captions=list("abcd"), title="two convolutions").dot)
    above, _, legend = found.partition('  "text gradient"')
    drawn = [
        line
        for line in legend.splitlines()
        if " -> " in line and "scale" not in line and "status" not in line
    ]
    golden("taps.txt", above + "\n".join(drawn) + "\n")


# What comes from outside.


@pytest.mark.parametrize("name", NASTY, ids=range(len(NASTY)))
def test_nasty_names(name):
    x = Tensor(np.ones((3, 1, 2)), requires_grad=True, name=name)
    with scope(name):
        a = tanh(conv1d(x, np.ones((2, 2, 2)))).named(name)
    h = tanh(conv1d(a, np.ones((2, 2, 2)))).named(name or "h")
    loss = (h**2).sum().named(name)
    loss.backward(record=True)
    picture = viz.taps(loss, title=name, captions=[name] * 3)
    harmless(picture.svg())
    assert "\x00" not in picture.dot and len({len(v) for v in picture.data.values()}) == 1
    assert len([key for key in picture.data if key.startswith("values")]) == 3


def test_names_in_other_scripts():
    x = Tensor(np.ones((3, 1, 2)), requires_grad=True, name="入力")
    h = tanh(conv1d(x, np.ones((2, 2, 2)))).named("выход")
    dot = viz.taps(h, captions=["א", "ب", "ü"]).dot
    assert all(said in dot for said in ("入力", "выход", "א", "ب", "ü"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"step": 0}, "steps 1 … 9"),
        ({"step": 10}, "steps 1 … 9"),
        ({"step": 1.5}, "steps 1 … 9"),
        ({"window": (30, 40)}, "holds no step"),
        ({"window": "x"}, "first and the last step"),
        ({"window": 3}, "first and the last step"),
        ({"budget": 0}, "at least 10"),
        ({"rows": ["nothing"]}, "nothing over all 9 steps is named 'nothing'"),
        ({"captions": ["a"]}, "1 for 9 steps"),
    ],
)
def test_options_that_make_no_sense(options, said):
    loss, *_ = convolved()
    with pytest.raises(InputError, match=re.escape(said)):
        viz.taps(loss, **options)


def test_heads_and_sequences_that_there_are_not():
    loss, *_ = transformer()
    with pytest.raises(InputError, match="heads 0 … 1"):
        viz.taps(loss, head=2)
    with pytest.raises(InputError, match="sequences 0 … 1"):
        viz.taps(loss, sequence=2)


def test_graphs_that_are_no_whole_sequences():
    with pytest.raises(InputError, match="recurrence"):
        viz.taps(network()[0])
    with pytest.raises(InputError, match="whole sequence"):
        viz.taps((Tensor(np.ones(3), requires_grad=True) * 2.0).sum())
    with pytest.raises(InputError, match=r"give a minigrad\.Tensor"):
        viz.taps([1, 2])
    x = Tensor(np.ones((0, 1, 2)), name="x")
    with pytest.raises(InputError, match="T = 0"):
        viz.taps((x * 2.0).named("h").sum())
    loss, *_ = convolved()
    loss.backward(free=True)
    with pytest.raises(mg.GraphError, match="freed"):
        viz.taps(loss)


def test_offsets_in_words():
    assert offsets_said([-4, -2, 0]) == "3 taps, dilation 2"
    assert offsets_said([-1, 0, 1]) == "3 taps, dilation 1"
    assert offsets_said([-1]) == "1 step back" and offsets_said([3]) == "3 steps ahead"
    assert offsets_said([-5, -1, 0]) == "3 taps: −5, −1, 0"


# Networks of any kind: the receptive field against the gradient of every step.

MIXED = 0.1 + np.random.default_rng(1).random((4, 4))
LAYERS = {
    "shift": lambda x, k: x + mg.shift(x, k - 2),
    "convolution": lambda x, k: conv1d(
        x, 0.3 * np.stack([MIXED, MIXED.T, MIXED[::-1]]), k + 1, causal=k % 2 == 0
    ),
    "roll": lambda x, k: mg.concat(x[k + 1 :], x[: k + 1], axis=0),
    "padded": lambda x, k: mg.concat(mg.zeros((k, 2, 4), "float64"), x, axis=0)[: x.shape[0]] + 0.5 * x,
    "units": lambda x, k: (x / x.sum(axis=-1, keepdims=True)) @ MIXED,
    "turned": lambda x, k: (
        x.transpose(1, 2, 0).reshape((8, x.shape[0])).reshape((2, 4, -1)).transpose(2, 0, 1)
    ),
    "heads": lambda x, k: (
        x.reshape((x.shape[0], 2, 2, 2)).sum(axis=2).reshape((x.shape[0], 2, 2)) @ MIXED[:2]
    ),
    "time": lambda x, k: x + x.sum(axis=0, keepdims=True),
    "attention": lambda x, k: _attended(x, causal=k % 2 == 0),
    "where": lambda x, k: mg.where(x > -1.0, x * 2.0, 0.0),
}


def _attended(x: Tensor, causal: bool) -> Tensor:
    rows, T = x.transpose(1, 0, 2), x.shape[0]
    shares = rows / rows.sum(axis=-1, keepdims=True)  # so that no weight vanishes
    scores = shares @ shares.swapaxes(-1, -2)
    alpha = mg.softmax(scores, mask=np.tri(T, dtype=bool) if causal else None)
    return (alpha @ rows).transpose(1, 0, 2)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(LAYERS)), st.integers(0, 4), st.booleans()), min_size=1, max_size=5
    )
)
def test_any_receptive_field_is_that_of_the_gradient(layers):
    T = 7
    rng = np.random.default_rng(0)
    x = h = Tensor(0.5 + rng.random((T, 2, 4)), name="x")  # positive throughout: nothing cancels
    for k, (kind, number_, named) in enumerate(layers):
        with scope(f"level {k + 1}"):
            h = LAYERS[kind](h, number_)
            h = h.named("h") if named else h
    h = (h * 1.0).named("y")
    whole = read_whole(h)
    for t in range(T):
        seen = np.abs(mg.grad((h[t] * MIXED[:2]).sum(), x).value).sum(axis=(1, 2)) > 1e-12
        np.testing.assert_array_equal(whole.seen_from(t)[x.number], seen)


@pytest.mark.parametrize("delay", [0, 2])
def test_outputs_that_come_late(delay):
    """With a delay the outputs are fewer than the steps; what the loss reads of h is drawn all the same."""
    rng = np.random.default_rng(0)
    net, output = cells.TCN(3, 4, 1, 2, rng, "float64"), cells.Output(4, 2, rng, "float64")
    y = cells.many_to_many(net, output, rng.standard_normal((6, 1, 3)), delay=delay)
    loss = ((y + 1.0) ** 2).sum()
    loss.backward(record=True)
    whole = read_whole(loss)
    assert whole.top.name == ("y" if delay == 0 else "h")
    sizes, _ = whole.gradient(whole.top)
    assert (sizes > 0).tolist() == [t >= delay for t in range(6)]
