"""`attention`: the weights that are drawn are those of the network, as a matrix and as lines."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from drawn import attributes_of, edges, network, structure, texts
from test_escaping import NASTY, harmless

import cells
import minigrad as mg
import viz
from minigrad import InputError, Tensor, scope, softmax
from viz.language.scale import SHADES, shade
from viz.language.text import number
from viz.measure.attention import Places, sharpness, sizes, together
from viz.read.attention import order


def looked(Q=4, K=5, N=2, heads=3, seed=0, mask=None, backward=True):
    """Weights (N, heads, Q, K) named alpha in a small graph: (loss, alpha)."""
    rng = np.random.default_rng(seed)
    q = Tensor(rng.standard_normal((N, heads, Q, 3)), requires_grad=True)
    k = Tensor(rng.standard_normal((N, heads, K, 3)), requires_grad=True)
    v = Tensor(rng.standard_normal((N, heads, K, 2)))
    with scope("block 1"):
        alpha = softmax(q @ k.swapaxes(-1, -2), mask=mask).named("alpha")
    loss = ((alpha @ v) ** 2).sum().named("L")
    if backward:
        loss.backward(record=True)
    return loss, alpha


def decoder(L=6, T=4, N=2, seed=0):
    """An encoder and a decoder that looks at it: (loss, run)."""
    rng = np.random.default_rng(seed)
    encoder = cells.GRU(3, 5, rng, "float64")
    made = cells.AttentionDecoder(cells.LSTM, 2, 4, 5, rng, dtype="float64")
    output = cells.Output(4, 3, rng, "float64")
    h = cells.run(encoder, rng.standard_normal((L, N, 3)), label="encoder").h
    run = cells.run(made.over(h), rng.standard_normal((T, N, 2)), output=output, label="decoder")
    loss = mg.cross_entropy(run.y, rng.integers(0, 3, (T, N))).named("L")
    loss.backward(record=True)
    return loss, run


def drawn_lines(dot: str) -> list[tuple[str, str]]:
    return [(a, b) for a, b in edges(dot) if "input" in a and "output" in b]


def fills(dot: str, key: str) -> list[str]:
    """The colours of the cells of one matrix, row by row."""
    return re.findall(r'BGCOLOR="(#\w+)"', node(dot, key))


def node(dot: str, key: str) -> str:
    """The line of one node; its id is its name without commas."""
    key = key.replace(",", "_")
    return next(row for row in dot.splitlines() if row.strip().startswith((f'"{key}" [', f"{key} [")))


# Which numbers.


def test_heads_of_one_sequence():
    loss, alpha = looked()
    for sequence in (0, 1):
        picture = viz.attention(loss, sequence=sequence)
        np.testing.assert_array_equal(picture.data["alpha"], alpha.value[sequence])
        np.testing.assert_array_equal(picture.data["d alpha"], alpha.grad[sequence])
        for head in range(3):
            drawn = fills(picture.dot, f"alpha block 1, head {head}")
            assert drawn == [shade(a) for a in alpha.value[sequence, head].ravel()]
    assert "sequence 1 of 2" in picture.dot


def test_the_gradient_of_the_weights_by_finite_differences():
    rng = np.random.default_rng(3)
    v = rng.standard_normal((5, 2))
    alpha = softmax(Tensor(rng.standard_normal((4, 5)), requires_grad=True)).named("alpha")
    loss = ((alpha @ v) ** 2).sum()
    loss.backward(record=True)
    slopes = np.zeros((4, 5))
    for at in np.ndindex(4, 5):
        up, down = alpha.value.copy(), alpha.value.copy()
        up[at] += 1e-6
        down[at] -= 1e-6
        slopes[at] = (((up @ v) ** 2).sum() - ((down @ v) ** 2).sum()) / 2e-6
    picture = viz.attention(loss, gradient=True)
    np.testing.assert_allclose(picture.data["d alpha"][0], slopes, rtol=1e-6, atol=1e-8)
    scale = viz.Scale.of(np.abs(slopes).ravel())
    assert fills(picture.dot, "d alpha") == [scale.colour(abs(s)) for s in alpha.grad.ravel()]
    assert node(picture.dot, "d alpha").count(">−<") == (slopes < 0).sum()


def test_a_decoder_whose_weights_stand_in_its_steps():
    loss, run = decoder()
    wanted = np.stack([step["alpha"].value for step in run.steps])
    slopes = np.stack([step["alpha"].grad for step in run.steps])
    for what in (loss, run.steps, run["alpha"]):
        data = viz.attention(what, sequence=1).data
        np.testing.assert_array_equal(data["alpha"], wanted[None, :, 1])
    for what in (loss, run.steps):
        np.testing.assert_array_equal(viz.attention(what).data["d alpha"], slopes[None, :, 0])
    stacked = viz.attention(run["alpha"].value, axes="qnk", sequence=1)
    np.testing.assert_array_equal(stacked.data["alpha"], wanted[None, :, 1])
    assert "decoder" in viz.attention(loss).dot


@pytest.mark.parametrize("turned", [(0, 1), (1, 0)])
def test_weights_of_a_step_lie_either_way(turned):
    rng = np.random.default_rng(0)
    values = rng.dirichlet(np.ones(5), (3, 2))
    parts = []
    for t in range(3):
        with scope(f"t={t + 1}"):
            parts.append((Tensor(values[t].transpose(turned)) * 1.0).named("alpha"))
    data = viz.attention(mg.stack(parts).sum(), sequence=1).data
    np.testing.assert_array_equal(data["alpha"][0], values[:, 1])


def test_the_transformer_has_a_panel_for_every_head_of_every_block():
    rng = np.random.default_rng(0)
    net = cells.Transformer(3, 8, 2, 2, rng, dtype="float64")
    h = net(rng.standard_normal((6, 1, 3)))
    picture = viz.attention(h)
    said = texts(picture.svg())
    assert [s for s in said if "head" in s] == [f"block {b}, head {k}" for b in (1, 2) for k in (0, 1)]
    assert set(picture.data) == {"block 1/alpha", "block 2/alpha"}
    alpha = picture.data["block 2/alpha"]
    np.testing.assert_allclose(alpha.sum(axis=-1), 1)
    assert (alpha[:, ~np.tri(6, dtype=bool)] == 0).all()
    grey = fills(picture.dot, "alpha block 1, head 0").count("#f4f6f8")
    assert grey == 15  # what may not be looked at
    assert [s for s in texts(viz.attention(h, heads=[1]).svg()) if "head" in s] == [
        "block 1, head 1",
        "block 2, head 1",
    ]


def test_axes_are_found_or_given():
    rng = np.random.default_rng(0)
    alpha = rng.dirichlet(np.ones(5), (2, 3, 4))  # (n, h, q, k)
    assert order(alpha, None, "") == "nhqk" and order(alpha[0, 0], None, "") == "qk"
    assert order(alpha[0, 0].T, None, "") == "kq" and order(alpha[:, 0], None, "") == "nqk"
    assert order(alpha[:, 0].transpose(1, 2, 0), None, "") == "qkn"
    wanted = viz.attention(alpha, sequence=1).data["alpha"]
    np.testing.assert_array_equal(
        viz.attention(alpha.swapaxes(0, 1), axes="hnqk", sequence=1).data["alpha"], wanted
    )
    np.testing.assert_array_equal(viz.attention(alpha[0, 0].T).data["alpha"][0], alpha[0, 0])


def test_at_how_many_inputs_it_looks():
    assert sharpness(np.eye(4)) == pytest.approx(1)
    assert sharpness(np.full((3, 5), 0.2)) == pytest.approx(5)
    masked = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])  # the second row may look nowhere
    assert sharpness(masked) == pytest.approx(2)
    assert np.isnan(sharpness(np.full((2, 2), np.nan)))
    assert "looks at 1 input on average" in viz.attention(np.eye(4)).dot


# As lines.


def test_lines_are_as_wide_and_dark_as_the_weights():
    alpha = np.array([[0.7, 0.3, 0.0], [0.04, 0.16, 0.8], [0.34, 0.33, 0.33]])
    picture = viz.attention(alpha, view="lines", inputs="abc", outputs="xyz")
    wanted = [
        (f"input {k + 1}", f"output {q + 1}") for q in range(3) for k in range(3) if alpha[q, k] >= 0.05
    ]
    assert sorted(drawn_lines(picture.dot)) == sorted(wanted)
    widths = {}
    for q, k in zip(*np.nonzero(alpha >= 0.05), strict=True):
        line = attributes_of(picture.dot, f"input {k + 1}", f"output {q + 1}")
        assert f"{'xyz'[q]} ← {'abc'[k]}: α = {number(alpha[q, k], 3)}" in line
        widths[alpha[q, k]] = float(re.search(r"penwidth=([\d.]+)", line)[1])
    slope = np.polyfit(list(widths), list(widths.values()), 1)
    np.testing.assert_allclose(np.polyval(slope, list(widths)), list(widths.values()), atol=0.01)
    assert "Left out: weights below 0.05" in picture.dot
    drawn = drawn_lines(viz.attention(alpha, view="lines", least=0.5).dot)
    assert ("input 1", "output 2") not in drawn and ("input 3", "output 2") in drawn


def test_an_output_that_looks_everywhere_has_lines():
    dot = viz.attention(np.full((2, 30), 1 / 30), view="lines").dot
    assert len(drawn_lines(dot)) == 60


def test_darkness_rises_evenly():
    light = [
        sum(int(shade(a)[k : k + 2], 16) * w for k, w in ((1, 0.299), (3, 0.587), (5, 0.114)))
        for a in np.linspace(0, 1, 21)
    ]
    steps = -np.diff(light)
    assert (
        (steps > 0).all()
        and steps.max() < 4 * steps.min()
        and shade(0) == SHADES[0]
        and shade(1) == SHADES[-1]
    )


# Long sequences.


def test_many_steps_are_taken_together_and_that_is_said():
    rng = np.random.default_rng(0)
    alpha = np.tril(rng.random((1000, 1000))) + 1e-9 * np.eye(1000)
    alpha = np.where(np.tri(1000, dtype=bool), alpha, 0)
    alpha /= alpha.sum(axis=1, keepdims=True)
    start = time.process_time()
    picture = viz.attention(alpha)
    picture.svg()
    viz.attention(alpha, view="lines").svg()
    assert time.process_time() - start < 5
    assert "1000 output steps, 25 at a time (mean); 1000 input steps, 25 at a time (sum)" in picture.dot
    assert picture.data["alpha"].shape == (1, 1000, 1000)
    axis = Places.of("window", 1000, None, None, False)
    block = alpha[250:275, 100:125].sum(axis=1).mean()
    assert together(alpha, axis, axis)[10, 4] == pytest.approx(block)
    assert fills(picture.dot, "alpha")[10 * 40 + 4] == shade(together(alpha, axis, axis)[10, 4])
    assert sizes(alpha, axis, axis)[10, 4] == pytest.approx(np.linalg.norm(alpha[250:275, 100:125]))


def test_a_window_adds_up_what_lies_beside_it():
    rng = np.random.default_rng(0)
    alpha = rng.dirichlet(np.ones(30), 20)
    picture = viz.attention(alpha, window=(3, 5), over=(11, 14))
    wanted = np.concatenate(
        [alpha[:, :10].sum(1, keepdims=True), alpha[:, 10:14], alpha[:, 14:].sum(1, keepdims=True)], 1
    )
    assert fills(picture.dot, "alpha") == [shade(a) for a in wanted[2:5].ravel()]
    said = texts(picture.svg())
    assert (
        said.count("…") == 2 and "3 of 20 output steps, t = 3 … 5; 4 of 30 input steps, t = 11 … 14." in said
    )
    dashed = viz.attention(alpha, window=(3, 5), over=(11, 14), view="lines").dot
    assert len(drawn_lines(dashed)) and dashed.count("…: t = ") == 2


def test_more_heads_than_can_be_drawn():
    rng = np.random.default_rng(0)
    dot = viz.attention(rng.dirichlet(np.ones(3), (1, 20, 3))).dot
    assert "16 of 20 heads are drawn" in dot and "head 15" in dot and "head 16" not in dot


@pytest.mark.parametrize("view", ["matrix", "lines"])
def test_a_single_step(view):
    picture = viz.attention(np.ones((1, 1)), view=view)
    assert picture.svg() and picture.data["alpha"].shape == (1, 1, 1)


# The states of a gradient.


def test_before_backward_nothing_is_computed():
    loss, _ = looked(backward=False)
    picture = viz.attention(loss, gradient=True)
    assert "∂L/∂α not computed" in picture.dot and "No gradient is known yet" in picture.dot
    assert "d alpha" not in picture.data


def test_weights_behind_a_detach_are_cut():
    rng = np.random.default_rng(0)
    W = Tensor(rng.standard_normal((3, 3)), requires_grad=True)
    alpha = softmax(W).named("alpha")
    loss = ((alpha.detach() @ W) ** 2).sum()
    loss.backward(record=True)
    assert "∂L/∂α cut" in viz.attention(loss, gradient=True).dot


def test_a_gradient_of_zero_is_zero():
    loss, alpha = looked()
    zero = loss * 0.0
    zero.backward(record=True)
    picture = viz.attention(zero, gradient=True)
    assert not picture.data["d alpha"].any()
    line = node(picture.dot, "d alpha block 1, head 0")
    assert line.count(">0<") == alpha.value[0, 0].size


@pytest.mark.parametrize("view", ["matrix", "lines"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_drawn(view, bad):
    alpha = np.full((3, 3), 1 / 3)
    alpha[1, 2] = bad
    picture = viz.attention(alpha, view=view)
    assert picture.svg() and (">?<" in picture.dot or "NaN" in picture.dot or "∞" in picture.dot)
    assert viz.attention(np.full((2, 2), bad), view=view).svg()


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_gradient_that_is_no_number():
    alpha = softmax(Tensor(np.zeros((2, 3)), requires_grad=True)).named("alpha")
    loss = (alpha * Tensor(np.array([np.nan, 1.0, 2.0]))).sum()
    loss.backward(record=True)
    assert ">!<" in viz.attention(loss, gradient=True).dot


def test_rows_that_may_look_nowhere():
    mask = np.array([[True, True], [False, False]])
    loss, _ = looked(Q=2, K=2, N=1, heads=1, mask=mask)
    assert fills(viz.attention(loss).dot, "alpha block 1")[2:] == ["#f4f6f8", "#f4f6f8"]


# What comes from outside.


def test_a_space_is_seen_and_labels_come_out_as_they_are():
    said = texts(
        viz.attention(np.eye(4), inputs=["a b", " ", "<b>", "ü"], outputs=["一", "א", "&amp;", '"']).svg()
    )
    assert {"a b", "␣", "<b>", "ü", "一", "א", "&amp;", '"'} <= set(said)


@pytest.mark.parametrize("name", NASTY, ids=range(len(NASTY)))
def test_nasty_names(name):
    with scope(name):
        alpha = softmax(Tensor(np.zeros((2, 2, 2)), requires_grad=True)).named(name or "alpha")
    loss = (alpha**2).sum()
    loss.backward(record=True)
    for view in ("matrix", "lines"):
        picture = viz.attention(loss, name=name or "alpha", view=view, inputs=[name] * 2, title=name)
        harmless(picture.svg())
        assert "\x00" not in picture.dot
    harmless(viz.attention(loss, name=name or "alpha", gradient=True, inputs=[name] * 2).svg())


def test_the_same_program_draws_the_same_bytes():
    for view in ("matrix", "lines"):
        assert viz.attention(looked()[0], view=view).dot == viz.attention(looked()[0], view=view).dot


def test_the_structure(golden):
    alpha = np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]])
    matrix = structure(viz.attention(alpha, inputs="abc", outputs="xy").dot)
    golden(
        "attention.txt",
        matrix + structure(viz.attention(alpha, view="lines", inputs="abc", outputs="xy").dot),
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"view": "picture"}, "'matrix', 'lines'"),
        ({"view": "lines", "gradient": True}, "view='matrix'"),
        ({"least": 1.0}, "below 1"),
        ({"inputs": "ab"}, "2 inputs for 5 steps"),
        ({"outputs": 3}, "a text for each of 4 steps"),
        ({"heads": [3]}, "heads 0 … 2"),
        ({"heads": []}, "heads 0 … 2"),
        ({"sequence": 2}, "sequences 0 … 1"),
        ({"sequence": True}, "sequences 0 … 1"),
        ({"axes": "qk"}, "one letter per axis"),
        ({"axes": "nhqq"}, "one letter per axis"),
        ({"window": (9, 12)}, "holds 0 steps"),
        ({"window": 3}, "the first and the last step"),
        ({"over": (float("inf"), 3)}, "the first and the last step"),
        ({"name": "beta"}, "nothing is named 'beta'"),
    ],
)
def test_options_that_make_no_sense(options, said):
    loss, _ = looked()
    with pytest.raises(InputError, match=re.escape(said)):
        viz.attention(loss, **options)


def test_what_holds_no_weights():
    with pytest.raises(InputError, match="nothing is named 'alpha'"):
        viz.attention(network()[0])
    with pytest.raises(InputError, match="has no 'alpha'; it has"):
        viz.attention(network()[1])
    with pytest.raises(InputError, match="holds no weights"):
        viz.attention("abc")
    with pytest.raises(InputError, match="holds no weights"):
        viz.attention([])
    with pytest.raises(InputError, match="nothing to show"):
        viz.attention(np.ones((0, 3)))
    with pytest.raises(InputError, match="nothing to show"):
        viz.attention(np.ones((2, 3), int))
    with pytest.raises(InputError, match="up to 2 axes before"):
        viz.attention(np.ones((1, 1, 1, 2, 2)))
