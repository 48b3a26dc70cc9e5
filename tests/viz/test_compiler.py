"""`rewrites` and `loops`: what is inside the loop over the steps, and what left it."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn import GRU, edges, structure
from test_escaping import NASTY, harmless

import cells
import viz
from minigrad import InputError, compile, cross_entropy, one_hot, scan
from minigrad.compiler import cache
from viz.read.stages import stages_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def not_loaded(monkeypatch):
    """Pictures read the graphs of the stages and the plan of the program; nothing has to be run."""
    monkeypatch.setattr(cache, "load", lambda *_: None)


def compiled(kind=cells.LSTM, T=4, H=8, D=4, name="x", gradients=True, layers=1):
    """A cell with an output layer and a loss over all steps, as its compiled function."""
    rng = np.random.default_rng(0)
    cell = kind(D, H, rng) if layers == 1 else cells.Stack(kind, D, H, layers, rng)
    output = cells.Output(cell.width, D, rng)
    for key, parameter in cell.parameters().items():
        parameter.name = parameter.name or key

    def loss(x, targets):
        return cross_entropy(cell(x.named(name), output=output).y, targets).named("L")

    made = compile(loss)
    made.variant((np.zeros((T, 1, D), np.float32), np.zeros((T, 1), np.int64)), gradients, load=False)
    return made


def products(dot: str, where: str) -> list[str]:
    """The products that stand before, inside or after the loop, as the picture writes them."""
    found = []
    for line in dot.splitlines():
        if re.match(rf'\s*"{where} [^"]*" \[', line) and "(product" in line:
            found.append(html.unescape(re.search(r"<B>([^<]*·[^<]*)</B>", line)[1]))
    return sorted(found)


@pytest.fixture(scope="module")
def lstm():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "load", lambda *_: None)
        return compiled()


@pytest.fixture(scope="module")
def pictures(lstm):
    return viz.rewrites(lstm)


@pytest.mark.parametrize(
    "name", ["traced forward", "split products forward", "hoist forward", "sink forward", "sink backward"]
)
def test_the_structure_of_the_rewrites(golden, pictures, name):
    golden(f"rewrites_{name.replace(' ', '_')}.txt", structure(pictures[name].dot))


def test_the_structure_of_the_loops(golden, lstm):
    golden("loops_lstm.txt", structure(viz.loops(lstm).dot))


def test_the_rewrites_of_a_cell_that_viz_has_never_seen(golden):
    golden("rewrites_gru_sink_backward.txt", structure(viz.rewrites(compiled(GRU))["sink backward"].dot))


def test_pictures_come_in_the_order_of_the_compiler_and_only_where_something_changed(pictures):
    assert list(pictures) == [
        "traced forward", "split products forward", "gradients backward", "move captures out forward",
        "move captures out backward", "hoist forward", "hoist backward", "sink forward", "sink backward",
    ]  # fmt: skip


def test_products_leave_the_loop_one_rewrite_after_the_other(pictures):
    gates = "cfio"
    before = [f"x · W_{g}[8:12] + b_{g}" for g in gates]
    states = [f"h_prev · W_{g}[0:8]" for g in gates]
    assert products(pictures["traced forward"].dot, "inside") == sorted(
        [*(f"[h_prev, x] · W_{g}" for g in gates), "h · W_y"]
    )
    hoisted = pictures["hoist forward"].dot
    assert products(hoisted, "before") == before and products(hoisted, "inside") == sorted(
        ["h · W_y", *states]
    )
    assert "Every step computed 9 products, and now computes 5" in hoisted
    sunk = pictures["sink forward"].dot
    assert products(sunk, "inside") == states and products(sunk, "after") == ["h · W_y"]


def test_weight_gradients_leave_the_backward_loop(pictures):
    dot = pictures["sink backward"].dot
    assert products(dot, "inside") == sorted(["dz_c̃ · W_c[0:8]ᵀ", *(f"dz_{g} · W_{g}[0:8]ᵀ" for g in "fio")])
    assert len(products(dot, "after")) == 9 and "h_prevᵀ · dz_f" in products(dot, "after")
    assert "9 products left the loop: now after it" in dot
    assert all(f"after dW_{g}" in {b for _, b in edges(dot)} for g in "fico")


def test_what_left_is_marked_at_that_stage_alone(pictures):
    assert pictures["hoist forward"].dot.count(">left the loop<") == 4
    assert pictures["sink forward"].dot.count(">left the loop<") == 1
    assert pictures["traced forward"].dot.count(">left the loop<") == 0
    assert pictures["split products forward"].dot.count(">new<") == 16  # 8 products, 8 slices of weights


def test_a_product_that_reads_what_was_rewritten_is_not_new():
    """One-hot rows are looked up: products before the loop become look-ups, and those in the loop are what they were."""
    rng = np.random.default_rng(0)
    cell = cells.LSTM(5, 6, rng)
    output = cells.Output(cell.width, 5, rng)
    made = compile(lambda k: cross_entropy(cells.run(cell, one_hot(k[:-1], 5), output=output).y, k[1:]))
    made.variant((np.zeros((6, 2), np.int64),), True, load=False)
    pictures = viz.rewrites(made)
    before = pictures["hoist forward"].dot
    for way in ("forward", "backward"):
        dot = pictures[f"look up one-hot {way}"].dot
        assert ">new<" not in dot and ">left the loop<" not in dot and "4 products, as before" in dot
    assert len(products(before, "before")) == 4
    assert not products(pictures["look up one-hot forward"].dot, "before")


def test_what_is_counted_is_what_the_graph_holds(lstm, pictures):
    for stage in stages_of(lstm):
        for name, loop in stage.loops.items():
            picture = pictures.get(f"{stage.name} {name}")
            if picture is not None:
                assert len(products(picture.dot, "inside")) == len(loop.products())


@pytest.mark.parametrize(
    ("name", "quantities"),
    [("f_i_c_tilde_c_o_step", ("f = σ", "c̃ = tanh", "c = +", "o = σ")), ("h_step", ("tanh", "h = ⊙"))],
)
def test_a_frame_holds_what_the_function_of_its_name_computes(lstm, name, quantities):
    dot, functions = viz.loops(lstm).dot, lstm.last.program.loops
    assert name in functions and f"def {name}(" in lstm.last.program.source
    inside = dot[dot.index(f'subgraph "cluster {name}"') :]
    inside = inside[: inside.index("\n\t\t}")]
    operations = [row for row in inside.splitlines() if "penwidth=1" in row and "->" not in row]
    assert len(operations) == len(functions[name])
    for quantity in quantities:
        assert f">{quantity}<" in inside


def test_without_gradients_there_is_a_forward_loop_alone():
    made = compiled(gradients=False)
    assert all(name.endswith("forward") for name in viz.rewrites(made))
    assert "backward" not in viz.loops(made).dot


def test_layers_are_loops_of_their_own():
    made = compiled(cells.RNN, layers=2)
    names = list(viz.rewrites(made))
    assert "hoist forward" in names and "hoist forward 2" in names and "sink backward 2" in names
    assert viz.loops(made).dot.count("for every t") >= 4
    sunk = viz.rewrites(made)[
        "sink backward"
    ].dot  # of the upper layer: what the lower one needs leaves as well
    assert "Every step computed 5 products, and now computes 1. 3 products left the loop" in sunk
    assert "1 more left, and needs nothing of this loop" in sunk  # the output layer's weight gradient


@pytest.mark.parametrize("kind", list(cells.CELLS.values()), ids=list(cells.CELLS))
def test_every_cell_has_pictures(kind):
    made = compiled(kind, H=3, D=2)
    if made.last is None:
        pytest.skip(f"not compiled: {made.eager}")
    found = viz.rewrites(made)
    assert products(found["traced forward"].dot, "inside") and viz.loops(made).dot


def test_a_budget_holds_and_says_what_is_missing(lstm):
    for picture in [*viz.rewrites(lstm, budget=12).values(), viz.loops(lstm, budget=12)]:
        assert "more, not drawn" in picture.dot
        drawn = [row for row in picture.dot.splitlines() if "tooltip=" in row and "->" not in row]
        assert len(drawn) < 50
    with pytest.raises(InputError, match="at least 10"):
        viz.loops(lstm, budget=3)


@pytest.mark.parametrize("name", NASTY, ids=range(len(NASTY)))
def test_nasty_names(name):
    made = compiled(cells.RNN, H=2, D=2, name=name)
    harmless(viz.loops(made).svg())
    for picture in list(viz.rewrites(made).values())[:4:3]:
        harmless(picture.svg())


def test_all_kinds_without_dot(without_dot, pictures):
    assert pictures["sink backward"].svg().count("<text") > 40


def test_errors_name_the_thing_and_the_remedy(lstm):
    def square(x):
        return (x * x).sum()

    fresh = compile(square)
    for draw in (viz.rewrites, viz.loops):
        with pytest.raises(InputError, match=r"square was not compiled yet; call it once"):
            draw(fresh)
        with pytest.raises(InputError, match=r"cannot draw function: give what minigrad\.compile returned"):
            draw(square)
    fresh.eager["these types"] = "an argument is complex128"
    with pytest.raises(InputError, match=r"square runs eagerly.*complex128"):
        viz.loops(fresh)
    fresh.variant((np.ones(3),), False, load=False)
    with pytest.raises(InputError, match="square has no loop over steps"):
        viz.rewrites(fresh)
    inner = compile(
        lambda x: scan(lambda h, x: (scan(lambda c, y: (c * y, None), h, x)[0], None), x[0, 0], x)[0]
    )
    inner.variant((np.ones((3, 2, 4)),), False, load=False)
    for draw in (viz.rewrites, viz.loops):
        with pytest.raises(InputError, match="scan in the step of a scan, of which there is no picture yet"):
            draw(inner)


def test_a_long_chain_in_a_step_needs_no_deep_recursion():
    def step(h, x):
        for _ in range(1500):
            h = (h * x).reshape((1, -1)).reshape((-1,)).reshape((1, -1))
        return h, None

    def total(x):
        return scan(step, np.ones((1, 3)), x)[0].sum()

    made = compile(total)
    made.variant((np.ones((4, 1, 3)),), False, load=False)
    found = [*viz.rewrites(made).values(), viz.loops(made)]
    assert all(len(picture.dot) < 200_000 for picture in found)


def test_the_same_program_writes_the_same_bytes(pictures):
    again = viz.rewrites(compiled())
    assert [p.dot for p in again.values()] == [p.dot for p in pictures.values()]


def test_viz_imports_no_numba():
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import viz; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
