"""`attention`: the weights that are drawn are those of the network, as a matrix and as lines."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from drawn import described, network, texts, words_of
from test_escaping import NASTY, harmless

import cells
import minigrad as mg
import viz
from minigrad import InputError, Tensor, scope, softmax
from viz.chart.panels import NEVER, Heat, Line, Words
from viz.language.scale import SHADES, SOFT, line_of, shade
from viz.language.status import CUT, NORMAL, NOT_A_NUMBER, NOT_COMPUTED, ZERO
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


def matrix(picture, head: str = "") -> Heat:
    """The matrix with this head."""
    (found,) = [p for p in picture.sheet.every if isinstance(p, Heat) and p.head == head]
    return found


def cells_of(panel: Heat) -> list:
    return [c for row in panel.rows for c in row]


def fills(picture, head: str = "") -> list[str]:
    """The colours of the cells of one matrix, row by row."""
    return [c.colour for c in cells_of(matrix(picture, head))]


def drawn_lines(picture) -> dict[tuple[int, int], Line]:
    """The lines of the first head, each by its output and its input, counted from 0 as they stand from the left."""
    marks = picture.sheet.panels[0][0].marks
    outs, ins = ([m.x for m in marks if isinstance(m, Words) and (m.y > 0.5) == top] for top in (True, False))
    lines = [m for m in marks if isinstance(m, Line)]
    found = {(outs.index(m.xs[1]), ins.index(m.xs[0])): m for m in lines}
    assert len(found) == len(lines) and all(m.ys[0] < m.ys[1] for m in lines)  # none twice; inputs lie below
    return found


# Which numbers.


def test_heads_of_one_sequence():
    loss, alpha = looked()
    for sequence in (0, 1):
        picture = viz.attention(loss, sequence=sequence)
        np.testing.assert_array_equal(picture.data["alpha"], alpha.value[sequence])
        np.testing.assert_array_equal(picture.data["d alpha"], alpha.grad[sequence])
        for head in range(3):
            drawn = fills(picture, f"block 1, head {head}")
            assert drawn == [shade(a) for a in alpha.value[sequence, head].ravel()]
    assert "sequence 1 of 2" in words_of(picture)


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
    assert fills(picture, "∂L/∂α") == [scale.colour(abs(s)) for s in alpha.grad.ravel()]
    assert [c.said for c in cells_of(matrix(picture, "∂L/∂α"))] == [number(s, 1) for s in alpha.grad.ravel()]
    assert written_signs(picture) == (slopes < 0).sum() and "− marks a negative gradient." in words_of(
        picture
    )


def written_signs(picture) -> int:
    """How many negative numbers, or signs alone, can be read."""
    return sum(bool(re.fullmatch(r"−[\d.e−]*", said)) for said in texts(picture.svg()))


@pytest.mark.parametrize("size", [1, 1e-3, 1e-9])
@pytest.mark.parametrize("K", [8, 30, 60])
def test_a_negative_gradient_has_its_sign_where_its_number_has_no_room(K, size):
    rng = np.random.default_rng(3)
    alpha = softmax(Tensor(rng.standard_normal((4, K)), requires_grad=True)).named("alpha")
    loss = ((alpha @ rng.standard_normal((K, 2))) ** 2).sum() * size
    loss.backward(record=True)
    picture = viz.attention(loss, gradient=True, over=(1, K))
    assert written_signs(picture) == (alpha.grad < 0).sum() > 0


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
    assert "decoder" in words_of(viz.attention(loss))


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
    h = net(rng.standard_normal((6, 1, 3))).outputs
    picture = viz.attention(h)
    said = texts(picture.svg())
    assert [s for s in said if "head" in s] == [f"block {b}, head {k}" for b in (1, 2) for k in (0, 1)]
    assert set(picture.data) == {"block 1/alpha", "block 2/alpha"}
    alpha = picture.data["block 2/alpha"]
    np.testing.assert_allclose(alpha.sum(axis=-1), 1)
    assert (alpha[:, ~np.tri(6, dtype=bool)] == 0).all()
    assert fills(picture, "block 1, head 0").count(NEVER) == 15
    assert "exactly 0, such as a step that may not be looked at" in said
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
    assert "looks at 1 input on average" in texts(viz.attention(np.eye(4)).svg())
    said = words_of(viz.attention(np.full((3, 5), 0.2)))
    assert "looks at 5 inputs on average" in said and "e to the mean entropy of the rows" in said


def test_the_largest_of_a_row_is_marked():
    rng = np.random.default_rng(0)
    for K in (5, 40):  # with numbers, and where there is no room for them
        alpha = rng.dirichlet(np.ones(K), 6)
        rows = matrix(picture := viz.attention(alpha)).rows
        assert [[k for k, c in enumerate(row) if "•" in c.said] for row in rows] == [
            [a.argmax()] for a in alpha
        ]
        assert sum(said.endswith("•") for said in texts(picture.svg())) == 6
        assert "•: the largest of a row." in words_of(picture)
    said = [[c.said.rstrip("•") for c in row] for row in matrix(viz.attention(alpha[:, :5])).rows]
    assert said == [[f"{a:.2f}" if a >= 0.005 else "" for a in row] for row in alpha[:, :5]]


# As lines.


def test_lines_are_as_wide_and_dark_as_the_weights():
    alpha = np.array([[0.7, 0.3, 0.0], [0.04, 0.16, 0.8], [0.34, 0.33, 0.33]])
    picture = viz.attention(alpha, view="lines", inputs="abc", outputs="xyz")
    drawn = drawn_lines(picture)
    assert sorted(drawn) == [(q, k) for q in range(3) for k in range(3) if alpha[q, k] >= 0.05]
    widths = {alpha[at]: line.stroke.width for at, line in drawn.items()}
    slope = np.polyfit(list(widths), list(widths.values()), 1)
    assert slope[0] > 0
    np.testing.assert_allclose(np.polyval(slope, list(widths)), list(widths.values()), atol=0.01)
    assert all(line.stroke == line_of(alpha[at]) for at, line in drawn.items())
    words = [(m.said, m.x) for m in picture.sheet.panels[0][0].marks if isinstance(m, Words)]
    assert words == [(said, k + 0.5) for said, k in zip("abcxyz", [0, 1, 2] * 2, strict=True)]
    assert "Left out: weights below 0.05" in words_of(picture)
    drawn = drawn_lines(viz.attention(alpha, view="lines", least=0.5))
    assert (1, 0) not in drawn and (1, 2) in drawn
    assert (
        max(drawn.values(), key=lambda line: line.stroke.width) is list(drawn.values())[-1]
    )  # strong on weak


def test_the_figure_shows_what_the_sheet_describes():
    """Read off matplotlib's own axes: colours of cells, ends and widths of lines."""
    from matplotlib.colors import to_hex

    alpha = np.random.default_rng(0).dirichlet(np.ones(4), 3)
    found = viz.attention(alpha).figure.axes[0].collections[0]
    colours = {
        (int(path[0][1]), int(path[0][0])): to_hex(colour)
        for paths, colour in zip(found.get_paths(), found.get_facecolor(), strict=True)
        for path in paths.vertices.reshape(-1, 5, 2)
    }
    assert colours == {at: shade(alpha[at]) for at in np.ndindex(3, 4)}
    picture = viz.attention(alpha, view="lines")
    found, drawn = picture.figure.axes[0].collections[0], drawn_lines(picture).values()
    assert [line.stroke.width for line in drawn] == list(found.get_linewidth())
    ends = [np.transpose([line.xs, line.ys]) for line in drawn]
    np.testing.assert_allclose([path.vertices for path in found.get_paths()], ends)


def test_an_output_that_looks_everywhere_has_lines():
    picture = viz.attention(np.full((2, 30), 1 / 30), view="lines")
    assert sorted(drawn_lines(picture)) == list(np.ndindex(2, 30))


def test_names_of_steps_are_written_however_close_they_stand():
    rng = np.random.default_rng(0)
    said = texts(viz.attention(rng.dirichlet(np.ones(12), (4, 12)), axes="hqk", view="lines").svg())
    assert [said.count(str(k)) for k in range(2, 13)] == [8] * 11
    said = texts(viz.attention(rng.dirichlet(np.ones(90), 90), view="lines", window=(1, 80)).svg())
    assert [said.count(str(k)) for k in range(2, 81)] == [2] * 79 and said.count("…") == 1


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
    said = "1000 output steps, 25 at a time (mean); 1000 input steps, 25 at a time (sum)."
    assert said in texts(picture.svg())
    assert picture.data["alpha"].shape == (1, 1000, 1000)
    axis = Places.of("window", 1000, None, None, False)
    block = alpha[250:275, 100:125].sum(axis=1).mean()
    assert together(alpha, axis, axis)[10, 4] == pytest.approx(block)
    assert fills(picture) == [shade(a) if a else NEVER for a in together(alpha, axis, axis).ravel()]
    assert sizes(alpha, axis, axis)[10, 4] == pytest.approx(np.linalg.norm(alpha[250:275, 100:125]))


def test_a_window_adds_up_what_lies_beside_it():
    rng = np.random.default_rng(0)
    alpha = rng.dirichlet(np.ones(30), 20)
    picture = viz.attention(alpha, window=(3, 5), over=(11, 14))
    wanted = np.concatenate(
        [alpha[:, :10].sum(1, keepdims=True), alpha[:, 10:14], alpha[:, 14:].sum(1, keepdims=True)], 1
    )
    assert fills(picture) == [shade(a) for a in wanted[2:5].ravel()]
    lines = viz.attention(alpha, window=(3, 5), over=(11, 14), view="lines")
    for said in (texts(picture.svg()), texts(lines.svg())):
        assert said.count("…") == 2 and "…: all inputs on that side that are not drawn, added up." in said
        assert "3 of 20 output steps, t = 3 … 5; 4 of 30 input steps, t = 11 … 14." in said
    drawn = drawn_lines(lines)
    assert drawn and all(line.stroke == line_of(wanted[2:5][at]) for at, line in drawn.items())
    soft = [m.said for m in lines.sheet.panels[0][0].marks if isinstance(m, Words) and m.colour == SOFT]
    assert soft == ["…", "…"]


def test_more_heads_than_can_be_drawn():
    rng = np.random.default_rng(0)
    words = words_of(viz.attention(rng.dirichlet(np.ones(3), (1, 20, 3))))
    assert "16 of 20 heads are drawn" in words and "head 15" in words and "head 16" not in words


@pytest.mark.parametrize("view", ["matrix", "lines"])
def test_a_single_step(view):
    picture = viz.attention(np.ones((1, 1)), view=view)
    assert picture.svg() and picture.data["alpha"].shape == (1, 1, 1)


# The status of a gradient.


def test_before_backward_nothing_is_computed():
    loss, _ = looked(backward=False)
    picture = viz.attention(loss, gradient=True)
    panel = matrix(picture, "∂L/∂α  block 1, head 0")
    assert panel.said == "not computed" and {(c.status, c.said) for c in cells_of(panel)} == {
        (NOT_COMPUTED, "–")
    }
    assert "No gradient is known yet" in words_of(picture) and "–" in texts(picture.svg())
    assert "d alpha" not in picture.data


def test_weights_behind_a_detach_are_cut():
    rng = np.random.default_rng(0)
    W = Tensor(rng.standard_normal((3, 3)), requires_grad=True)
    alpha = softmax(W).named("alpha")
    loss = ((alpha.detach() @ W) ** 2).sum()
    loss.backward(record=True)
    picture = viz.attention(loss, gradient=True)
    panel, said = matrix(picture, "∂L/∂α"), texts(picture.svg())
    assert panel.said == "cut" and {(c.status, c.said) for c in cells_of(panel)} == {(CUT, "✂")}
    assert said[said.index("∂L/∂α") + 1] == "cut" and "cut (detach)" in said
    assert "No gradient is known yet" not in " ".join(said)
    assert "d alpha" not in picture.data


def test_a_gradient_of_zero_is_zero():
    loss, alpha = looked()
    zero = loss * 0.0
    zero.backward(record=True)
    picture = viz.attention(zero, gradient=True)
    assert not picture.data["d alpha"].any()
    found = [(c.status, c.said) for c in cells_of(matrix(picture, "∂L/∂α  block 1, head 0"))]
    assert found == [(ZERO, "0")] * alpha.value[0, 0].size and "exactly zero" in words_of(picture)


@pytest.mark.parametrize("view", ["matrix", "lines"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_drawn(view, bad):
    alpha = np.full((3, 3), 1 / 3)
    alpha[1, 2] = bad
    picture = viz.attention(alpha, view=view)
    said = texts(picture.svg())
    if view == "matrix":
        odd = [(c.said, c.status) for c in cells_of(matrix(picture)) if c.status]
        assert odd == [("?", NOT_A_NUMBER)] and "?" in said and "not a number (NaN, ∞)" in said
    else:
        dashed = [at for at, line in drawn_lines(picture).items() if line.stroke.dash == "dashed"]
        assert dashed == [(1, 2)] and "dashed: not a number (NaN, ∞)" in said
    assert "looks at 3 inputs on average" in said  # the other rows do
    assert "inputs on average" not in words_of(viz.attention(np.full((2, 2), bad), view=view))


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_gradient_that_is_no_number():
    alpha = softmax(Tensor(np.zeros((2, 3)), requires_grad=True)).named("alpha")
    loss = (alpha * Tensor(np.array([np.nan, 1.0, 2.0]))).sum()
    loss.backward(record=True)
    picture = viz.attention(loss, gradient=True)
    states = [(c.said, c.status) for c in cells_of(matrix(picture, "∂L/∂α"))]
    assert states == [("?", NOT_A_NUMBER), ("1", NORMAL), ("2", NORMAL)] * 2
    assert "not a number (NaN, ∞)" in texts(picture.svg())


def test_rows_that_may_look_nowhere():
    mask = np.array([[True, True], [False, False]])
    loss, _ = looked(Q=2, K=2, N=1, heads=1, mask=mask)
    picture = viz.attention(loss)
    assert fills(picture, "block 1")[2:] == [NEVER, NEVER] and NEVER not in fills(picture, "block 1")[:2]
    assert "exactly 0, such as a step that may not be looked at" in words_of(picture)


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
        assert all(c.isprintable() for said in texts(picture.svg()) for c in said)
    harmless(viz.attention(loss, name=name or "alpha", gradient=True, inputs=[name] * 2).svg())


def test_the_same_program_draws_the_same_bytes():
    for view in ("matrix", "lines"):
        one, two = (viz.attention(looked()[0], view=view) for _ in range(2))
        assert one.svg() == two.svg() and one.svg() == one.svg() and one.png() == two.png()


def test_the_structure(golden):
    alpha = np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]])
    pictures = [viz.attention(alpha, view=view, inputs="abc", outputs="xy") for view in ("matrix", "lines")]
    golden("attention.txt", "".join(described(picture.sheet) for picture in pictures))


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
