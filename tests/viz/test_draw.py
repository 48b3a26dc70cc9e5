"""`draw`: what stands in a picture at each level of detail, and that it says what it leaves out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn import GRU, attributes_of, edges, network, plain, structure

import cells
import viz
from minigrad import GraphError, InputError, Tensor, compile, cross_entropy, scope, stack, tanh
from viz.diagram.unrolled import Unrolled
from viz.language.status import norm
from viz.language.text import number, tight
from viz.read.network import QUANTITY, read

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.smoke
@pytest.mark.parametrize("level", ["step", "gate", "operation"])
def test_the_structure_of_an_lstm(golden, level):
    loss, steps = network(T=3)
    golden(f"lstm_{level}.txt", structure(viz.draw(loss, steps, level=level, title="LSTM").dot))


def test_the_structure_of_a_plain_expression(golden):
    golden("plain.txt", structure(viz.draw(plain(), title="sigmoid(x @ W + b) ** 2").dot))


def test_the_structure_of_a_cell_that_viz_has_never_seen(golden):
    loss, _ = network(GRU, T=2)
    golden("gru_gate.txt", structure(viz.draw(loss).dot))


def test_the_reading_of_an_lstm_from_its_graph_alone():
    loss, _ = network(T=3)
    net = read(loss)
    assert net.times == [1, 2, 3]
    assert [g.name for g in net.cells["", 2] if g.kind == QUANTITY] == ["f", "i", "c_tilde", "c", "o", "h"]
    assert net.carried[""] == ["c", "h"] and net.memory[""] == ["c"]
    assert {name for _, name in net.first} == {"c", "h"}
    assert net.find("", 2, "f").symbols == "· + σ"
    assert sorted(net.outputs) == [1, 2, 3] and net.end.out is loss


def test_steps_may_be_left_out_or_stand_alone():
    loss, steps = network()
    assert viz.draw(loss, title="a").dot == viz.draw(loss, steps, title="a").dot
    alone = viz.draw(steps, title="a")
    assert ("t=4 f", "t=4 c") in edges(alone.dot)


def test_each_gate_flows_into_the_memory_and_the_states_run_on():
    loss, _ = network()
    found = edges(viz.draw(loss).dot)
    for t in (2, 3, 4):
        for gate in ("f", "i", "c_tilde"):
            assert (f"t={t} {gate}", f"t={t} c") in found
            assert (f"t={t} shared", f"t={t} {gate}") in found
        assert (f"t={t - 1} c", f"t={t} c") in found and (f"t={t - 1} h", f"t={t} shared") in found
        assert (f"t={t} x", f"t={t} shared") in found and (f"t={t} h", f"t={t} output") in found
    assert ("t=0 c", "t=1 c") in found and ("t=4 output", "loss") in found


def test_the_memory_line_is_straight_and_above_the_gates():
    dot = viz.draw(network()[0]).dot
    at = {
        m[1]: (float(m[2]), float(m[3]))
        for m in re.finditer(r'"(t=\d \w+)" \[.*?pos="([\d.-]+),([\d.-]+)!"', dot)
    }
    assert len({at[f"t={t} c"][1] for t in range(5)}) == 1
    assert len({at[f"t={t} h"][1] for t in range(5)}) == 1
    assert at["t=2 h"][1] < at["t=2 f"][1] < at["t=2 c"][1]
    order = [at[f"t={t} {g}"][0] for t in (1, 2, 3, 4) for g in ("f", "i", "c_tilde", "o")]
    assert order == sorted(order)  # time, and within a step the order of the equations


def test_the_numbers_on_the_lanes_are_the_parts_of_the_gradient_that_arrive():
    loss, steps = network()
    dot = viz.draw(loss).dot
    c = steps[1].c  # read by step 3 in f ⊙ c, and by its own step's tanh
    part = next(
        n.contributions[k]
        for n in read(loss).find("", 3, "c").nodes
        for k, x in enumerate(n.inputs)
        if x is c
    )
    assert np.allclose(part, steps[2].c.grad * steps[2].f.value)
    line = attributes_of(dot, "t=2 c", "t=3 c")
    from_h = steps[2].h.grad * steps[2].o.value * (1 - np.tanh(steps[2].c.value) ** 2)
    carried = np.hypot(
        norm(steps[2].h.grad), norm(steps[2].c.grad - from_h)
    )  # without the way within the step
    assert f">×{number(norm(part) / carried)}<" in line
    assert f"gradient {number(np.sqrt((part**2).sum()), 4)} (normal)" in line


def test_a_box_shows_the_norm_of_its_gradient_and_the_share_of_the_weight():
    loss, steps = network()
    line = next(row for row in viz.draw(loss).dot.splitlines() if row.strip().startswith('"t=3 i"'))
    assert f"∂i {number(np.linalg.norm(steps[2].i.grad))}" in line
    hx = steps[2].i.inputs[0].inputs[0].inputs[0].value
    dW = hx.T @ (steps[2].i.grad * steps[2].i.value * (1 - steps[2].i.value))
    assert f"∂W_i {number(np.linalg.norm(dW))}" in line


def test_width_grows_with_the_gradient_on_one_scale():
    dot = viz.draw(network()[0], level="step").dot
    found = []
    for line in dot.splitlines():
        width, value = (
            re.search(r"penwidth=([\d.]+)", line),
            re.search(r"gradient ([\d.e−]+) \(normal\)", line),
        )
        if "->" in line and width and value:
            found.append((float(value[1].replace("−", "-")), float(width[1])))
    widths = [w for _, w in sorted(found)]
    assert len(found) > 10 and widths == sorted(widths) and widths[0] < widths[-1]


def test_long_sequences_leave_out_the_middle_and_say_so():
    loss, _ = network(T=60)
    for level in ("step", "gate"):
        dot = viz.draw(loss, level=level).dot
        found = re.findall(r">t = (\d+) … (\d+)<", dot)
        assert found and ">not drawn<" in dot
        for first, last in found:
            assert f">{int(last) - int(first) + 1} steps<" in dot and int(last) - int(first) >= 2
            assert f'"t={(int(first) + int(last)) // 2}"' not in dot
        assert (
            f"t={found[0][0]}..{found[0][1]}",
            f"t={int(found[0][1]) + 1}" + " c" * (level == "gate"),
        ) in edges(dot)


def test_eight_steps_are_drawn_whole():
    for level in ("step", "gate"):
        assert "not drawn" not in viz.draw(network(T=8)[0], level=level).dot


@pytest.mark.parametrize("cell", [cells.LSTM, cells.GRU])
def test_steps_that_go_on_in_another_line_keep_their_arrows(cell):
    loss, _ = network(cell, T=8)
    dot = viz.draw(loss).dot
    assert '"t=4 h again"' in dot
    state = "c" if cell is cells.LSTM else "h"
    for t in range(1, 9):
        assert (f"t={t - 1} {state}", f"t={t} {state}") in edges(dot), t
        assert ">×" in attributes_of(dot, f"t={t - 1} {state}", f"t={t} {state}")


def test_the_loss_is_no_output():
    rng = np.random.default_rng(0)
    cell, output = cells.LSTM(3, 5, rng, "float64"), cells.Output(5, 3, rng, "float64")
    steps = cells.run(cell, rng.standard_normal((3, 2, 3))).steps
    y = output(steps[-1].h)
    loss = cross_entropy(y, [0, 1])
    loss.backward(record=True)
    net = read(loss)
    assert net.outputs[3].out is y and net.outputs[3].name == "y" and net.end.out is loss
    for level in ("step", "gate"):
        dot = viz.draw(loss, level=level).dot
        assert ("t=3 output", "loss") in edges(dot) and f"∂y {number(norm(y.grad))}<" in dot
    alone = (steps[-1].h ** 2).sum()
    alone.backward(record=True)
    assert not read(alone).outputs and ("t=3 h", "loss") in edges(viz.draw(alone).dot)


def test_a_gate_says_its_value_and_whether_it_is_shut():
    for bias, word in ((-9.0, "shut"), (0.0, ""), (9.0, "open")):
        rng = np.random.default_rng(0)
        cell = cells.LSTM(3, 5, rng, "float64")
        cell.b_f.value = np.full(5, bias)
        steps = cells.run(cell, rng.standard_normal((3, 2, 3))).steps
        loss = (steps[-1].h ** 2).sum()
        loss.backward(record=True)
        f = steps[1].f.value
        line = next(r for r in viz.draw(loss).dot.splitlines() if r.strip().startswith('"t=2 f"'))
        assert f"<B>{number(f.mean())}{' ' * bool(word)}{word}</B>" in line
        assert all(number(v) in line or tight(v, 5) in line for v in (f.min(), f.max()))
        h = next(r for r in viz.draw(loss).dot.splitlines() if r.strip().startswith('"t=2 h"'))
        assert "shut" not in h and "open" not in h


def test_a_gradient_of_zero_says_why():
    line = next(r for r in viz.draw(network()[0]).dot.splitlines() if r.strip().startswith('"t=1 f"'))
    assert ">as c_0 = 0<" in line
    assert "as c_" not in next(
        r for r in viz.draw(network()[0]).dot.splitlines() if r.strip().startswith('"t=2 f"')
    )


def test_the_heading_has_the_sizes_and_the_equations_of_the_graph():
    dot = viz.draw(network(N=3, T=4, H=8, D=5)[0]).dot
    for said in (
        "T = 4 steps",
        "N = 3 sequences",
        "D = 5 inputs",
        "H = 8 units",
        "c_t = f_t ⊙ c_{t−1} + i_t ⊙ c\u0303_t",
    ):
        assert said in dot


def test_the_legend_explains_what_occurs():
    loss, _ = network(cells.RNN)
    dot = viz.draw(loss).dot
    assert "cut (detach)" not in dot and "scale of gates" not in dot and "scale of values" in dot
    assert "scale of gates" in viz.draw(network()[0]).dot
    assert "gradient</B>" not in Unrolled(read(loss), [1, 2], "t", None).draw(legend=False)


def test_a_window_opens_any_steps():
    loss, _ = network(T=12)
    dot = viz.draw(loss, window=(5, 6)).dot
    assert ">t = 1 … 4<" in dot and ">t = 7 … 12<" in dot and '"t=5 f"' in dot and '"t=6 o"' in dot
    operations = viz.draw(loss, level="operation", window=(5, 6)).dot
    assert '"t=5 W_f"' in operations and '"t=7 ' not in operations


@pytest.mark.parametrize("budget", [12, 40, 100])
def test_a_budget_holds(budget):
    loss, _ = network(T=40)
    for level in ("step", "gate", "operation"):
        dot = viz.draw(loss, level=level, budget=budget).dot
        boxes = [row for row in dot.splitlines() if re.match(r'\s*"?(t=\d+|loss)', row) and "->" not in row]
        assert len(boxes) <= max(budget, 60 if level == "operation" else 14), (
            level
        )  # one step is always drawn


def test_a_chain_of_100_000_operations_is_drawn_within_its_budget():
    y = Tensor(np.ones(3), requires_grad=True, name="x")
    for _ in range(100_000):
        y = tanh(y)
    y.sum().backward(record=True)
    limit = sys.getrecursionlimit()
    dot = viz.draw(y.sum(), budget=50).dot
    assert limit == sys.getrecursionlimit()
    assert dot.count("shape=") < 60 and "99,9" in dot and ">not drawn<" in dot
    assert ("x", "tanh") in edges(dot) or any(a == "x" for a, _ in edges(dot))


def test_a_wide_graph_keeps_its_budget():
    leaves = [Tensor(float(k), requires_grad=True, name=f"leaf{k}") for k in range(2_000)]
    total = leaves[0]
    for leaf in leaves[1:]:
        total = total + leaf
    assert len(edges(viz.draw(total, budget=30).dot)) < 120


def test_layers_stand_above_each_other():
    rng = np.random.default_rng(0)
    below = cells.run(
        cells.LSTM(4, 6, rng), rng.standard_normal((2, 1, 4)).astype("f"), label="layer 1"
    ).steps
    above = cells.run(cells.RNN(6, 5, rng), [s.h for s in below], label="layer 2").steps
    loss = (above[-1].h ** 2).sum()
    loss.backward(record=True)
    found = edges(viz.draw(loss).dot)
    assert ("layer 1 t=1 h", "layer 2 t=1 h") in found and ("layer 2 t=1 h", "layer 2 t=2 h") in found
    assert ("layer 1 t=2", "layer 2 t=2") in edges(viz.draw(loss, level="step").dot)


def test_a_layer_that_reads_from_the_end_is_drawn_in_the_mirror():
    rng = np.random.default_rng(0)
    cell, x = cells.RNN(3, 4, rng), Tensor(rng.standard_normal((1, 3)).astype("f"))
    (now,) = cell.initial_state(1)
    for t in (3, 2, 1):
        with scope(f"t={t}"):
            now = cell.step(x, now)["h"].named("h")
    loss = now.sum()
    loss.backward(record=True)
    dot = viz.draw(loss).dot
    assert ("t=3 h", "t=2 h") in edges(dot)
    at = {m[1]: float(m[2]) for m in re.finditer(r'"(t=\d h)" \[.*?pos="([\d.-]+),', dot)}
    assert at["t=1 h"] < at["t=2 h"] < at["t=3 h"]


@pytest.mark.parametrize("level", ["step", "gate", "operation"])
def test_a_single_step_and_no_recurrence(level):
    loss, _steps = network(T=1, N=2)
    assert '"t=1' in viz.draw(loss, level=level).dot
    with scope("t=1"):
        y = tanh(Tensor(np.ones(3), requires_grad=True, name="W") * 2).named("y")
    y.sum().backward(record=True)
    assert "y" in viz.draw(y.sum(), level=level).dot


def test_symbols_and_integers_are_drawn():
    from minigrad.tensor import symbol

    x = symbol((2, 3), np.float32, "x")
    dot = viz.draw(tanh(x) * 2).dot
    assert "no value" in dot and "2 × 3" in dot
    assert viz.draw(Tensor([1, 2, 3], name="n")).dot
    assert viz.draw(Tensor(np.zeros((0, 3)), name="empty")).dot


def test_errors_name_the_thing_and_the_remedy():
    loss, steps = network(T=2)
    for call, kind, words in (
        (lambda: viz.draw(loss, level="gates"), InputError, "choose one of 'step', 'gate', 'operation'"),
        (lambda: viz.draw(loss, budget=3), InputError, "at least 10"),
        (lambda: viz.draw(loss, window=(7, 9)), InputError, "there are t = 1 … 2"),
        (lambda: viz.draw(loss, window=3), InputError, "first and the last step"),
        (lambda: viz.draw(loss, time_limit=0), InputError, "seconds above 0"),
        (lambda: viz.draw(np.ones(3)), InputError, "cannot draw ndarray: give a minigrad.Tensor"),
        (lambda: viz.draw(compile(tanh)), InputError, "viz.loops and viz.rewrites draw it"),
        (lambda: viz.draw([]), InputError, "an empty list"),
        (lambda: viz.gates(steps, sequence=4), InputError, "sequences 0 … 0"),
        (lambda: viz.gates(plain()), InputError, "stands in a step"),
        (lambda: viz.gradient(plain()), InputError, "no state is carried"),
    ):
        with pytest.raises(kind, match=re.escape(words)):
            call()
    loss.backward(free=True)
    with pytest.raises(GraphError, match="freed"):
        viz.draw(loss)


PROGRAM = """
import sys; sys.path[:0] = [{root!r}, {root!r} + "/tests/viz"]
from drawn import network, plain
import viz, hashlib
loss, steps = network(T=7)
dots = [viz.draw(loss, level=l).dot for l in ("step", "gate", "operation")]
dots += [viz.draw(plain()).dot, viz.gradient(loss).svg(), viz.gates(steps).svg()]
print(hashlib.sha256("".join(dots).encode()).hexdigest(), "0x" in "".join(dots[:4]))
"""


def test_the_same_program_writes_the_same_bytes():
    import os

    outcomes = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        program = PROGRAM.format(root=str(ROOT))
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
        )
        outcomes.add(done.stdout)
    assert len(outcomes) == 1 and "True" not in outcomes.pop()


def test_viz_imports_no_cell_and_no_matplotlib():
    unwanted = ("cells", "matplotlib", "pygraphviz")
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import viz; "
        f"print([m for m in {unwanted} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_first_state_without_scope_is_known_by_its_role():
    rng = np.random.default_rng(0)
    first = [Tensor(np.ones((1, 5)), requires_grad=True), Tensor(np.zeros((1, 5)))]
    steps = cells.run(cells.LSTM(3, 5, rng, "float64"), rng.standard_normal((3, 1, 3)), first).steps
    steps[-1].h.sum().backward(record=True)
    net = read(steps[-1].h.sum())
    assert net.first["", "h"].out is first[0] and net.first["", "c"].out is first[1]
    drawn_as_inputs = {g.out.number for groups in net.inputs.values() for g in groups}
    assert not drawn_as_inputs & {f.number for f in first}
    found = edges(viz.draw(steps[-1].h.sum()).dot)
    assert ("t=0 h", "t=1 shared") in found and ("t=0 c", "t=1 c") in found


def test_an_output_layer_within_the_steps_is_no_gate():
    rng = np.random.default_rng(0)
    cell, output = cells.LSTM(3, 5, rng), cells.Output(5, 3, rng)
    steps = cells.run(cell, rng.standard_normal((3, 1, 3)).astype("f"), output=output).steps
    loss = stack([s.y for s in steps]).sum()
    loss.backward(record=True)
    net = read(loss)
    assert all(g.name != "y" for groups in net.cells.values() for g in groups)
    assert [net.outputs[t].name for t in (1, 2, 3)] == ["y"] * 3
    assert ("t=2 h", "t=2 output") in edges(viz.draw(loss).dot)


def test_constants_stand_in_the_operation_on_their_own_side():
    x = Tensor(np.ones(3), requires_grad=True, name="x")
    dot = viz.draw((1 - x) * 2.0).dot
    assert ">1 −<" in dot and ">⊙ 2<" in dot and len(edges(dot)) == 2


def test_a_gradient_that_another_graph_left_is_not_shown():
    x, w = Tensor(np.ones(3), name="x"), Tensor(np.ones(3), requires_grad=True, name="w")
    (x * w).sum().backward(record=True)
    assert ">∂x –<" in viz.draw(tanh(x * w)).dot
