"""Cells of the literature under the microscope: their usual starts have no fault, faults planted in them are named,
and every view draws them, whatever their states are and however x enters."""

from __future__ import annotations

import numpy as np
import pytest
from literature import LITERATURE

import cells
import viz
from minigrad import InputError, Tensor, cross_entropy, relu, stack
from minigrad.init import glorot, orthogonal

T, N, D, H = 25, 4, 4, 16
every_cell = pytest.mark.parametrize("name", LITERATURE)


def smaller(cell):
    """Weights that multiply the state, orthogonal as everywhere; the table of cells draws them from N(0, 1)."""
    rng = np.random.default_rng(5)
    cell.W_mx.value = glorot(rng, (cell.inputs, cell.hidden)).astype(cell.dtype)
    cell.W_mh.value = orthogonal(rng, (cell.hidden, cell.hidden)).astype(cell.dtype)


def silent(cell):
    """The memory does not write into itself at the start (Voelker et al.): else it grows × 1.5 per step."""
    cell.e_m.value = np.zeros_like(cell.e_m.value)


STARTS = {"multiplicative_lstm": smaller, "lmu": silent}


def unrolled(name, seed=0, scale=1.0, last=False, kind=None, change=None):
    """A cell at its usual start, after a recorded backward pass of a loss at every step, or at the last."""
    rng = np.random.default_rng(seed)
    own = D + 2 * H if name == "zoneout_lstm" else D
    cell = (kind or LITERATURE[name])(own, H, rng, "float64")
    for change_ in filter(None, (STARTS.get(name), change)):
        change_(cell)
    x = scale * rng.standard_normal((T, N, own))
    x[..., D:] = rng.uniform(0, 1, x[..., D:].shape)  # what zoneout draws its units from
    outputs = stack([s.state[0] for s in cells.run(cell, x).steps])
    if outputs.ndim > 3:
        loss = (outputs[-1:] if last else outputs).mean() ** 2
    else:
        y = cells.Output(outputs.shape[-1], D, rng, "float64")(outputs[-1:] if last else outputs)
        loss = cross_entropy(y, rng.integers(0, D, y.shape[:2]))
    loss.backward(record=True)
    return loss


def faults(loss) -> list[str]:
    return [f.kind for f in viz.report(loss).faults]


@every_cell
def test_no_fault_at_the_usual_start(name):
    for seed, scale in ((0, 1.0), (1, 1.0), (2, 0.1), (3, 2.0)):
        for last in (False, True):
            report = viz.report(unrolled(name, seed, scale, last))
            assert report.healthy, (seed, scale, last, report.text)


# Planted faults.


def passing(name, change_states):
    """The cell, with its states of floats changed on their way into each step."""
    base = LITERATURE[name]

    class Planted(base):
        count = 0

        def step(self, x, *states):
            self.count += 1
            states = [change_states(s, self.count) if s.dtype.kind == "f" else s for s in states]
            return base.step(self, x, *states)

    Planted.__name__ = base.__name__
    return Planted


def gain(factor):
    """The same value, and a gradient that is so many times as large: no layer saturates by it."""
    return lambda s, t: factor * s + (1 - factor) * s.detach()


@every_cell
def test_a_cut(name):
    kind = passing(name, lambda s, t: s.detach() if t == 7 else s)
    fault = next(f for f in viz.report(unrolled(name, kind=kind)).faults if f.kind == "cut")
    assert fault.times == (7,) and "t = 6 and 7" in fault.said


@every_cell
@pytest.mark.parametrize("factor, word", [(0.05, "vanishing"), (20.0, "exploding")])
def test_a_gradient_that_vanishes_or_explodes_wherever_the_loss_is(name, factor, word):
    for last in (False, True):
        found = faults(unrolled(name, last=last, kind=passing(name, gain(factor))))
        assert word in found and not {"vanishing", "exploding"} - {word} & set(found)


@every_cell
def test_a_weight_that_does_not_learn(name):
    def freeze(cell):
        frozen.append(next(k for k, p in cell.parameters().items() if p.ndim > 1))
        cell.parameters()[frozen[0]].requires_grad = False

    frozen: list[str] = []
    fault = next(f for f in viz.report(unrolled(name, change=freeze)).faults if f.kind == "frozen")
    assert f": {frozen[0]} will not move" in fault.said


@every_cell
def test_units_that_are_dead(name):
    base = LITERATURE[name]
    shift = np.where(np.arange(H) < H // 4, 1e3, -1e3)

    class Dead(base):
        def step(self, x, *states):
            q = base.step(self, x, *states)
            return q | {"h": relu(q["h"] - shift) + np.minimum(shift, 0)}

    fault = next(f for f in viz.report(unrolled(name, kind=Dead)).faults if f.kind == "dead")
    assert f"25 % of its {H} ReLU units" in fault.said


@pytest.mark.parametrize(
    "name, bias, value, gate",
    [("sru", "b_r", 12, "r"), ("min_gru", "b_z", 12, "z"), ("slstm", "b_o", -12, "o"), ("mlstm", "b_o", 12, "o"),
     ("phased_lstm", "b_i", -12, "i"), ("mogrifier_lstm", "b_o", 12, "o"), ("zoneout_lstm", "b_i", -12, "i"),
     ("learned_state_lstm", "b_c", 12, "c̃"), ("weight_norm_rnn", "b", 12, "h"), ("mgu", "b_f", 12, "f")],
)  # fmt: skip
def test_a_gate_that_is_saturated(name, bias, value, gate):
    def push(cell):
        b = getattr(cell, bias)
        b.value = np.full(b.shape, float(value))

    found = [f for f in viz.report(unrolled(name, change=push)).faults if f.kind == "saturated"]
    assert any(f.said.startswith(f"{gate}: 9") or f.said.startswith(f"{gate}: 100 %") for f in found), found


# Every view draws every cell.

VIEWS = {
    "draw": lambda loss, steps: (viz.draw(loss), viz.draw(steps), viz.draw(loss, level="step")),
    "operation": lambda loss, steps: viz.draw(loss, level="operation"),
    "gradient": lambda loss, steps: viz.gradient(loss),
    "paths": lambda loss, steps: viz.paths(loss),
    "direct": lambda loss, steps: viz.direct(loss),
    "bptt": lambda loss, steps: viz.bptt(loss),
    "weights": lambda loss, steps: viz.weights_by_step(loss),
    "gates": lambda loss, steps: (viz.gates(steps), viz.gates(loss)),
    "report": lambda loss, steps: viz.report(loss),
    "compare": lambda loss, steps: viz.compare({"a": loss, "b": loss}),
}
VARIANTS = {
    "a loss at every step": {},
    "a loss at the last": dict(last=True),
    "one step": dict(length=1),
    "one sequence": dict(sequences=1),
    "one step of one sequence": dict(length=1, sequences=1, last=True),
    "x is one tensor": dict(learns="whole"),
    "x is a tensor at each step": dict(learns="each"),
    "one x that learns": dict(learns="each", length=1),
    "from the end": dict(reverse=True),
    "cut": dict(truncate=2),
    "padded": dict(lengths=np.array([2, 4])),
    "no gradient yet": dict(backward=False),
}
MATRICES = ("mlstm", "softmax_memory", "conv_lstm", "delta_rule")  # states that unroll cannot pad
STRANGE = ("qrnn", "lmu", "clockwork_rnn", "learned_state_lstm", "min_gru_log", "softmax_memory")


def small(kind, length=4, sequences=2, last=False, learns="", backward=True, **options):
    rng = np.random.default_rng(0)
    own = 3 + 2 * 5 if kind is LITERATURE["zoneout_lstm"] else 3
    cell = kind(own, 5, rng, "float64")
    x = rng.uniform(0.1, 0.9, (length, sequences, own))
    if learns:
        x = Tensor(x, True, name="x") if learns == "whole" else [Tensor(v, True, name="x") for v in x]
    made = cells.run(cell, x, **options).steps
    h = stack([s.state[0] for s in (made[-1:] if last else made)])
    loss = (h * h).mean().named("L")
    if backward:
        loss.backward(record=True)
    return loss, made


def look(kind, views, **options):
    if "lengths" in options and kind in [LITERATURE[name] for name in MATRICES]:
        options["lengths"] = None
    loss, steps = small(kind, **options)
    for view in views:
        VIEWS[view](loss, steps)


@every_cell
def test_every_view_draws_every_cell(name):
    look(LITERATURE[name], VIEWS)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", STRANGE)
def test_every_view_draws_unusual_runs(name, variant):
    look(LITERATURE[name], [v for v in VIEWS if v not in ("operation", "compare")], **VARIANTS[variant])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", [n for n in LITERATURE | cells.CELLS if n not in STRANGE])
def test_every_view_draws_all_runs(name, variant):
    look((LITERATURE | cells.CELLS)[name], VIEWS, **VARIANTS[variant])


@pytest.mark.slow
@every_cell
def test_every_cell_has_a_page(name):
    loss, _ = small(LITERATURE[name])
    assert "</html>" in str(viz.page(loss).html)


def test_a_graph_without_a_state_says_so():
    x = Tensor(np.ones((2, 3)), requires_grad=True, name="x")
    loss = (x * x).sum()
    loss.backward(record=True)
    for view in (viz.gradient, viz.paths, viz.direct):
        with pytest.raises(InputError, match="give the loss of an unrolled cell"):
            view(loss)
