"""The health report: planted faults are named, healthy networks have none, figures agree with other computations."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from drawn import texts, words_of
from rich.console import Console
from test_escaping import NASTY, harmless, named

import cells
import viz
from minigrad import (
    InputError,
    Tensor,
    concat,
    cross_entropy,
    exp,
    fit,
    log,
    maximum,
    mse,
    relu,
    sigmoid,
    softplus,
    stack,
    tanh,
    where,
)
from viz.language.text import number

T, N, D, H = 25, 4, 4, 32


def unrolled(
    kind=cells.LSTM, seed=0, change=None, scale=1.0, last=False, length=T, hidden=H, mask=None, **options
):
    """A cell over random inputs, after a recorded backward pass of a loss at every step, or at the last."""
    rng = np.random.default_rng(seed)
    cell = kind(D, hidden, rng, "float64")
    output = cells.Output(cell.width, D, rng, "float64")
    if change is not None:
        change(cell)
    made = cells.run(cell, scale * rng.standard_normal((length, N, D)), **options).steps
    if last:
        loss = cross_entropy(output(made[-1].state[0]), rng.integers(0, D, N))
    else:
        targets = rng.integers(0, D, (length, N))
        loss = cross_entropy(stack([output(s.state[0]) for s in made]), targets, mask=mask)
    loss.backward(record=True)
    return loss


def radius(rho):
    """Recurrent weights scaled to a spectral radius."""

    def change(cell):
        W = cell.W_h.value.copy()
        W[: cell.hidden] *= rho / np.abs(np.linalg.eigvals(W[: cell.hidden])).max()
        cell.W_h.value = W

    return change


def bias(name, value, units=None):
    def change(cell):
        b = getattr(cell, name).value.copy()
        b[:units] = value
        getattr(cell, name).value = b

    return change


def kinds(loss, **options) -> list[str]:
    return [f.kind for f in viz.report(loss, **options).faults]


def only(loss, kind, **options):
    """The one fault of a report, which is of this kind."""
    report = viz.report(loss, **options)
    assert [f.kind for f in report.faults] == [kind], report.text
    assert f"1. {kind.upper()}" in report.text and kind in texts(report.svg())
    assert report.faults[0].advice and "Try: " in report.text
    return report.faults[0]


# Healthy networks.


@pytest.mark.parametrize("name", cells.CELLS)
@pytest.mark.parametrize("last", [False, True], ids=["each", "last"])
def test_no_fault_is_named_in_a_healthy_network(name, last):
    for seed, scale in ((0, 1.0), (1, 1.0), (2, 0.1), (3, 2.0)):
        report = viz.report(unrolled(cells.CELLS[name], seed, last=last, scale=scale))
        assert report.healthy and "No fault found" in report.text, report.text


def test_no_fault_after_some_training():
    rng = np.random.default_rng(0)
    cell, output = cells.LSTM(D, 16, rng), cells.Output(16, D, rng)
    parameters = cell.parameters() | output.parameters()

    def loss(x, y):
        return cross_entropy(cells.run(cell, x, output=output).y, y)

    def batch():  # say again what was read two steps before
        codes = rng.integers(0, D, (12, 16))
        return np.eye(D, dtype="f")[codes], np.roll(codes, 2, axis=0)

    losses = fit(loss, parameters, (batch() for _ in range(150)), lr=1e-2)
    assert losses[-1] < 0.8 * losses[0]
    trained = loss(*map(Tensor, batch()))
    trained.backward(record=True)
    report = viz.report(trained, parameters=parameters)
    assert report.healthy, report.text


@pytest.mark.parametrize("kind", ["tcn", "transformer", "mlp", "stack", "bidirectional"])
def test_no_fault_in_layers_and_in_networks_without_recurrence(kind):
    rng = np.random.default_rng(1)
    layer = {
        "tcn": lambda: cells.TCN(D, 8, 3, 3, rng),
        "transformer": lambda: cells.Transformer(D, 8, 2, 2, rng),
        "mlp": lambda: cells.Dense(D, 8, rng, activation=relu),
        "stack": lambda: cells.Stack(cells.GRU, D, 8, 3, rng),
        "bidirectional": lambda: cells.Bidirectional(cells.LSTM, D, 8, rng),
    }[kind]()
    output = cells.Output(layer.width, D, rng)
    x = Tensor(rng.standard_normal((12, N, D)).astype("f"))
    loss = cross_entropy(output(cells.run(layer, x).outputs), rng.integers(0, D, (12, N)))
    loss.backward(record=True)
    report = viz.report(loss, parameters=layer.parameters() | output.parameters())
    assert report.healthy, report.text
    assert len(report._facts.decays) == {"stack": 3, "bidirectional": 2}.get(kind, 0)
    assert "dW_y norm" in report.data and report.svg()


# Planted faults.


@pytest.mark.parametrize("last", [False, True])
def test_recurrent_weights_that_vanish(last):
    for scale in (0.01, 1.0):  # with a loss at every step ∂L/∂h_t stays large at all t
        fault = only(unrolled(cells.RNN, change=radius(0.5), scale=scale, last=last), "vanishing")
        assert "half-life" in fault.said and "λ" in fault.said and "orthogonal" in fault.advice


def test_recurrent_weights_that_explode():
    fault = only(unrolled(cells.RNN, change=radius(1.5), scale=1e-5), "exploding")
    assert "doubles every" in fault.said and "Clip" in fault.advice
    held = viz.report(
        unrolled(cells.RNN, change=radius(1.5))
    )  # saturation holds it: that is not an explosion
    note = next(f for f in held.findings if f.kind == "large weights")
    assert held.healthy and "spectral radius 1.5" in note.said and held.data["rate"] < 0


class Diagonal(cells.Cell):
    """h_t = a ⊙ h_{t−1} + x W: the gradient goes × a per step, whatever the loss is."""

    a = 1.0

    def build(self, rng):
        self.parameter("W", rng.standard_normal((self.inputs, self.hidden)))
        self.parameter("d", np.full(self.hidden, self.a))

    def step(self, x, h_prev):
        return dict(h=self.d * h_prev + x @ self.W)


@pytest.mark.parametrize("losses", [range(T), [T - 1], [T // 2, T - 1]], ids=["each", "last", "two"])
@pytest.mark.parametrize("a, word", [(0.5, "vanishing"), (1.0, None), (1.5, "exploding")])
def test_what_is_said_of_a_diagonal_does_not_depend_on_where_the_losses_are(a, word, losses):
    rng = np.random.default_rng(0)
    kind = type("Diagonal", (Diagonal,), dict(a=a))
    steps = cells.run(kind(D, 8, rng, "float64"), 0.1 * rng.standard_normal((T, N, D))).steps
    loss = sum(((steps[t].h - rng.standard_normal((N, 8))) ** 2).sum() for t in losses)
    loss.backward(record=True)
    report = viz.report(loss)
    assert [f.kind for f in report.faults] == ([word] if word else []), report.text
    assert report.data["rate"] == pytest.approx(np.log(a), abs=1e-9)


@pytest.mark.parametrize(
    "a, length, kind",
    [(1.3, 6, None), (1.3, 12, "grows"), (1.3, 40, "exploding"), (1.5, 12, "exploding"), (1.2, 12, None)],
)
def test_a_growth_is_a_fault_by_what_it_comes_to_over_the_steps_at_hand(a, length, kind):
    """× 1.3 per step is × 18 over 12 steps, which a network that learns may well have, and × 28,000 over 40."""
    rng = np.random.default_rng(0)
    cell = type("Diagonal", (Diagonal,), dict(a=a))(D, 8, rng, "float64")
    run = cells.run(cell, 0.1 * rng.standard_normal((length, N, D)))
    loss = (run.h[-1] ** 2).sum()
    loss.backward(record=True)
    report = viz.report(loss)
    assert [f.kind for f in report.findings] == ([kind] if kind else []), report.text
    assert report.healthy == (kind != "exploding")
    if kind:
        (found,) = report.findings
        assert (
            f"× {number(a)} per step back" in found.said and f"× {number(a ** (length - 1))}." in found.said
        )
        assert f"From t = {length} back to t = 1" in found.said
    if kind == "grows":
        assert (
            f"over 100 it would be × {number(a**100)}." in found.said
            and "Nothing at this length" in found.advice
        )


def test_what_grows_is_told_over_the_longest_stretch_without_a_cut():
    kind = type("Diagonal", (Diagonal,), dict(a=1.5))
    for truncate, grown in ((5, False), (12, True)):
        rng = np.random.default_rng(0)
        steps = cells.run(kind(D, 8, rng, "float64"), rng.standard_normal((T, N, D)), truncate=truncate).steps
        loss = (stack([s.h for s in steps]) ** 2).mean()
        loss.backward(record=True)
        report = viz.report(loss)
        assert ("exploding" in [f.kind for f in report.faults]) is grown, report.text
        if grown:  # 12 steps with 11 ways between
            said = next(f for f in report.faults if f.kind == "exploding").said
            assert f"× {number(1.5**11)}." in said and "From t = 12 back to t = 1" in said


def test_a_forget_gate_that_is_shut():
    report = viz.report(unrolled(change=bias("b_f", -5.0)))
    assert [f.kind for f in report.faults] == ["vanishing", "saturated"]
    assert report.faults[1].said.startswith("f: 100 %") and "forgotten" in report.faults[1].said
    assert "chrono" in report.faults[0].advice


def test_a_memory_that_is_held_open_is_no_fault():
    assert not kinds(unrolled(change=bias("b_f", 5.0)))
    assert not kinds(unrolled(cells.JANET, change=bias("b_f", 6.0)))


@pytest.mark.parametrize("value", [-6.0, 6.0])
def test_an_input_gate_that_is_saturated(value):
    fault = only(unrolled(change=bias("b_i", value)), "saturated")
    assert fault.said.startswith("i: 100 %") and len(fault.times) == T


def test_an_update_gate_of_a_gru_forgets_where_it_is_high():
    def change(cell):
        W = cell.W_z.value.copy()
        W[H:] = 8.0
        cell.W_z.value = W

    rng = np.random.default_rng(0)
    cell = cells.GRU(D, H, rng, "float64")
    change(cell)
    steps = cells.run(cell, 0.2 + np.abs(rng.standard_normal((T, N, D)))).steps
    loss = (steps[-1].h ** 2).sum()
    loss.backward(record=True)
    report = viz.report(loss)
    assert (
        "saturated" in kinds(loss)
        and "forgotten" in next(f for f in report.faults if f.kind == "saturated").said
    )


def test_dead_units():
    assert only(unrolled(cells.IRNN, change=bias("b_h", -10.0, 8)), "dead").said.startswith(
        "h: 25 % of its 32"
    )
    report = viz.report(unrolled(cells.IRNN, change=bias("b_h", -10.0)))
    assert {"dead", "vanishing"} <= {f.kind for f in report.faults}  # nothing comes back through them
    rng = np.random.default_rng(0)
    layer = cells.Dense(8, 16, rng, activation=relu)
    layer.b.value = np.where(np.arange(16) < 4, -20.0, 0.0)
    loss = (layer(Tensor(rng.standard_normal((10, 8)).astype("f"))) ** 2).mean()
    loss.backward(record=True)
    assert "25 % of its 16" in only(loss, "dead").said


def written_out(x):
    """softplus as many write it: its max(x, 0) is off where x < 0, and a gradient comes back all the same."""
    return maximum(x, 0.0) + log(1.0 + exp(-abs(x)))


@pytest.mark.parametrize("activation", [softplus, written_out, lambda x: relu(x) - 0.1 * relu(-x)])
def test_what_has_a_slope_where_it_is_off_is_not_dead(activation):
    class Stabilised(cells.LSTM):
        """Its forget gate is exp(−softplus(−a)), which is σ(a)."""

        def step(self, x, h_prev, c_prev):
            q = super().step(x, h_prev, c_prev)
            a = concat(h_prev, x) @ self.W_f + self.b_f
            c = exp(-activation(-a)) * c_prev + q["i"] * q["c_tilde"]
            return q | dict(c=c, h=q["o"] * tanh(c))

    for value in (-8.0, 8.0):  # always on, and always off
        report = viz.report(unrolled(Stabilised, change=bias("b_f", value)))
        assert "dead" not in [f.kind for f in report.faults] and not report._facts.rectifiers, report.text


def test_a_choice_by_another_bound_is_no_rectifier():
    class Clipped(cells.RNN):
        def step(self, x, h_prev):
            h = super().step(x, h_prev)["h"]
            return dict(h=where(h > -0.9, h, 0.0))

    assert not viz.report(unrolled(Clipped))._facts.rectifiers


# What has no gradient by its nature.


class Counting(cells.RNN):
    """An RNN beside which whole numbers count."""

    state = "h k"

    def step(self, x, h_prev, k_prev):
        k = k_prev + 1
        h = super().step(x, h_prev)["h"]
        return dict(k=k, h=where(k > 3, h, 0.9 * h))

    def initial_state(self, sequences):
        return *super().initial_state(sequences)[:1], Tensor(np.zeros((sequences, 1), int), name="k")


def test_a_counter_is_no_state_through_which_a_gradient_could_come():
    report = viz.report(unrolled(Counting))
    assert report.healthy and not report.findings, report.text
    assert report._facts.decays[0].states == ["h"]


class Spiking(cells.RNN):
    """An RNN that also reads whether its units fired: the gradient comes back by h alone."""

    state = "h s"

    def step(self, x, h_prev, s_prev):
        h = super().step(x, h_prev)["h"] * (1.0 - 0.1 * s_prev)
        return dict(h=h, s=(h + self.own * s_prev > 0.5).astype("float64"))


@pytest.mark.parametrize("own", [0.0, 1.0])
def test_a_state_of_spikes_is_no_fault(own):
    report = viz.report(unrolled(type("Spiking", (Spiking,), dict(own=own))))
    assert report.healthy and not report.findings, report.text


class Latch(cells.RNN):
    """An RNN with a switch that reads itself by comparison alone."""

    state = "h s"

    def step(self, x, h_prev, s_prev):
        h = super().step(x, h_prev)["h"]
        s = (h + s_prev > 0.5).astype("float64")
        return dict(s=s, h=h * (1.0 - 0.1 * s))


def test_a_state_that_is_only_compared_is_a_note():
    report = viz.report(unrolled(Latch))
    assert report.healthy and [f.kind for f in report.findings] == ["no derivative"], report.text
    assert "through s" in report.findings[0].said


class Hard(cells.RNN):
    def step(self, x, h_prev):
        return dict(h=(super().step(x, h_prev)["h"] > 0.0).astype("float64"))


def test_a_layer_that_nothing_comes_back_through_is_cut():
    fault = only(unrolled(Hard), "cut")
    assert "no derivative" in fault.said and "No loss on one side" in fault.said


class Fixed(cells.RNN):
    """An RNN with a matrix that is given, not learned; and a number, and a vector."""

    kept = Tensor(np.eye(H))

    def step(self, x, h_prev):
        A = {"array": np.eye(H), "tensor": Tensor(np.eye(H)), "kept": self.kept}[self.form]
        h = super().step(x, 0.5 * h_prev + 0.5 * (h_prev @ A))["h"]
        return dict(h=h * np.linspace(0.9, 1.0, self.hidden))


@pytest.mark.parametrize("form", ["array", "tensor", "kept"])
def test_fixed_matrices_are_not_frozen_weights(form):
    loss = unrolled(type("Fixed", (Fixed,), dict(form=form)))
    report = viz.report(loss)
    assert report.healthy, report.text
    assert [w.name for w in report._facts.weights] == ["W_h", "b_h", "W_y", "b_y"]
    assert [[g.name for g in own] for own in report._facts.network.inputs.values()] == [["x"]] * T

    def freeze(cell):
        cell.W_h.requires_grad = False

    frozen = only(unrolled(type("Fixed", (Fixed,), dict(form=form)), change=freeze), "frozen")
    assert ": W_h will not move" in frozen.said


@pytest.mark.parametrize("whole", [True, False])
def test_an_input_whose_gradient_is_asked_for_is_no_weight(whole):
    rng = np.random.default_rng(0)
    cell, x = cells.LSTM(D, 8, rng, "float64"), rng.standard_normal((5, N, D))
    x = Tensor(x, True, name="x") if whole else [Tensor(v, True, name="x") for v in x]
    loss = (cells.run(cell, x).steps[-1].h ** 2).sum()
    loss.backward(record=True)
    report = viz.report(loss, parameters=cell.parameters())
    assert report.healthy and [w.name for w in report._facts.weights] == list(cell.parameters())
    assert "dx" not in viz.weights_by_step(loss).data


class Cutting(cells.LSTM):
    count, both = 0, True

    def step(self, x, h_prev, c_prev):
        self.count += 1
        if self.count == 7:
            h_prev, c_prev = h_prev.detach() if self.both else h_prev, c_prev.detach()
        return super().step(x, h_prev, c_prev)


def test_a_detach_at_step_7():
    fault = only(unrolled(Cutting), "cut")
    assert fault.times == (7,) and "t = 6 and 7" in fault.said and "c and h" in fault.said


def test_a_detach_of_one_state_alone(monkeypatch):
    monkeypatch.setattr(Cutting, "both", False)
    fault = only(unrolled(Cutting), "cut")
    assert "gradient of c is cut" in fault.said


def test_truncation_is_a_note():
    report = viz.report(unrolled(truncate=5))
    note = next(f for f in report.findings if f.kind == "cut")
    assert report.healthy and note.times == (6, 11, 16, 21) and "Every 5 steps" in note.said


def test_weights_behind_a_detach():
    rng = np.random.default_rng(0)
    a, b = cells.Dense(D, 6, rng, activation=tanh), cells.Output(6, D, rng)
    loss = cross_entropy(
        b(a(Tensor(rng.standard_normal((9, D)).astype("f"))).detach()), rng.integers(0, D, 9)
    )
    loss.backward(record=True)
    assert "W and b" in only(loss, "cut").said


def test_a_mask_over_steps_3_to_5():
    mask = np.ones((T, N), bool)
    mask[2:5] = False
    fault = only(unrolled(mask=mask), "masked")  # of the loss
    assert fault.times == (3, 4, 5) and "t = 3 … 5" in fault.said and fault.where == "loss"
    rng = np.random.default_rng(0)
    for kind in (cells.LSTM, cells.RNN, cells.GRU):  # of the states
        cell = kind(D, H, rng, "float64")
        steps = cells.run(cell, rng.standard_normal((T, N, D)), mask=mask).steps
        loss = mse(stack([s.h for s in steps]), rng.standard_normal((T, N, H)))
        loss.backward(record=True)
        assert only(loss, "masked").times == (3, 4, 5)


def test_padding_is_a_note_and_changes_no_rate():
    rng = np.random.default_rng(0)
    cell, x = cells.LSTM(D, H, rng, "float64"), rng.standard_normal((T, N, D))

    def rate(**options):
        loss = (stack([s.h for s in cells.run(cell, x, **options).steps]) ** 2).mean()
        loss.backward(record=True)
        report = viz.report(loss)
        assert report.healthy
        return report.data["rate"], [f.kind for f in report.findings]

    whole, padded = rate(), rate(lengths=np.array([25, 15, 20, 25]))
    assert padded[1] == ["padding"] and padded[0] == pytest.approx(whole[0], abs=0.03)


@pytest.mark.parametrize("frozen", [1, 2])
def test_a_layer_that_does_not_learn(frozen):
    rng = np.random.default_rng(0)
    layers = cells.Stack(cells.LSTM, D, 8, 2, rng)
    output = cells.Output(8, D, rng)
    for p in layers.cells[frozen - 1].parameters().values():
        p.requires_grad = False
    x = Tensor(rng.standard_normal((6, N, D)).astype("f"), name="x")
    loss = cross_entropy(output(layers(x).outputs), rng.integers(0, D, (6, N)))
    loss.backward(record=True)
    fault = only(loss, "frozen")
    assert fault.where == f"layer {frozen}" and "W_f, b_f, W_i" in fault.said
    names = layers.parameters() | output.parameters()
    assert f"{frozen}.W_f" in only(loss, "frozen", parameters=names).said


def test_parameters_that_are_not_used_or_not_given():
    rng = np.random.default_rng(0)
    loss, more = unrolled(), cells.Output(3, 3, rng)
    given = {w.name: w.tensor for w in viz.report(loss)._facts.weights}
    assert only(loss, "unused", parameters=given | {"more": more.W_y}).said.endswith("depend on more.")
    del given["W_y"]
    assert "W_y" in only(loss, "frozen", parameters=given).said


def test_a_deep_network_of_sigmoids_vanishes_across_layers():
    rng = np.random.default_rng(0)
    h = Tensor(rng.standard_normal((16, 8)).astype("f"))
    for _ in range(9):
        h = cells.Dense(8, 8, rng, activation=sigmoid)(h)
    loss = (h**2).mean()
    loss.backward(record=True)
    assert only(loss, "vanishing").where == "across layers"


# Figures.


class Linear(cells.RNN):
    def step(self, x, h_prev):
        return {"h": super().step(x, h_prev)["h"].inputs[0]}  # without its tanh


def test_one_step_is_said_in_the_singular():
    for rho, words in ((0.5, "halves every 1 step (half-life)"), (2.0, "doubles every 1 step:")):
        report = viz.report(unrolled(Linear, change=radius(rho), hidden=16))
        assert any(words in finding.said for finding in report.findings), rho


@pytest.mark.parametrize("rho", [0.5, 0.9, 1.0, 1.3])
def test_half_life_and_rate_of_a_linear_layer(rho):
    """An orthogonal matrix times ρ: the half-life is ln 2/−ln ρ, the Lyapunov rate ln ρ, at every step."""
    report = viz.report(unrolled(Linear, change=radius(rho), hidden=16))
    assert report.data["rate"] == pytest.approx(np.log(rho), abs=1e-6)
    if rho != 1.0:
        assert report.data["half-life"] == pytest.approx(-np.log(2) / np.log(rho), rel=1e-6)
    assert np.allclose(report.data["left"], np.log(rho) * np.arange(T - 1, -1, -1), atol=1e-6)


def test_rate_of_any_matrix_is_its_spectral_radius():
    def change(cell):
        W = cell.W_h.value.copy()
        W[:16] = np.random.default_rng(5).standard_normal((16, 16)) / 4
        cell.W_h.value = W

    for seed in range(3):
        loss = unrolled(Linear, seed, change, length=150, hidden=16)
        report = viz.report(loss)
        rho = np.abs(np.linalg.eigvals(np.random.default_rng(5).standard_normal((16, 16)) / 4)).max()
        assert report.data["rate"] == pytest.approx(np.log(rho), abs=0.01)
        assert report._facts.decays[0].radii["W_h"] == pytest.approx(rho)


def test_what_is_left_is_the_product_of_jacobians():
    """Against finite differences of the whole network, from the state of the first step to that of the last."""
    rng = np.random.default_rng(3)
    cell = cells.RNN(2, 3, rng, "float64")
    x = rng.standard_normal((8, 1, 2))
    steps = cells.run(cell, x).steps
    loss = (steps[-1].h ** 2).sum()
    loss.backward(record=True)

    def last(h):
        for t in range(1, 8):
            h = np.tanh(np.concatenate([h, x[t, 0]]) @ cell.W_h.value + cell.b_h.value)
        return h

    h, e = steps[0].h.value[0], 1e-6
    jacobian = np.array([(last(h + e * d) - last(h - e * d)) / (2 * e) for d in np.eye(3)])
    sizes = np.linalg.svd(jacobian, compute_uv=False)
    left = viz.report(loss).data["left"][0]
    assert np.log(sizes[-1]) <= left <= np.log(sizes[0]) + 1e-6


def test_shares_of_saturated_units_against_numpy():
    rng = np.random.default_rng(0)
    cell = cells.LSTM(D, 8, rng, "float64")
    cell.W_i.value = 6 * cell.W_i.value
    steps = cells.run(cell, rng.standard_normal((10, N, D))).steps
    loss = (steps[-1].h ** 2).sum()
    loss.backward(record=True)
    data = viz.report(loss).data
    i = np.array([s.i.value for s in steps])
    assert np.allclose(data["i saturated"], ((i < 0.05) | (i > 0.95)).mean(axis=(1, 2)))
    assert data["i saturated"].mean() > 0.2
    f = np.array([s.f.value for s in steps])  # an open gate is not saturated
    assert np.allclose(data["f saturated"], (f < 0.05).mean(axis=(1, 2)))
    assert data["dW_i norm"] == pytest.approx(np.linalg.norm(cell.W_i.grad))


# Bad input.


def test_before_backward_nothing_is_computed():
    rng = np.random.default_rng(0)
    steps = cells.run(cells.LSTM(D, 8, rng), np.zeros((3, 1, D), "f")).steps
    for run in (lambda loss: None, lambda loss: loss.backward()):
        loss = (steps[-1].h ** 2).sum()
        run(loss)
        report = viz.report(loss)
        assert (
            "not computed" in report.text
            and "record=True" in report.text
            and "not computed" in words_of(report)
        )
        assert not report.faults and np.isnan(report.data["dW_f norm"])


class Logarithm(cells.RNN):
    def step(self, x, h_prev):
        return {"h": log(super().step(x, h_prev)["h"])}


@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero)")
def test_not_a_number_names_where_it_begins():
    report = viz.report(unrolled(Logarithm, length=6))
    fault = next(f for f in report.faults if f.kind == "not a number")
    assert "value of h at t = 1" in fault.said and fault.times == (1,) and report.svg()


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_infinite_gradient():
    x = Tensor(np.ones(3), requires_grad=True, name="x")
    y = tanh(x) * 1e200
    y.backward(np.full(3, 1e200), record=True)
    assert "gradient" in only(y.named("y"), "not a number").said


def test_all_zero():
    loss = unrolled() * 0.0
    loss.backward(record=True)
    assert "every weight" in only(loss, "exactly zero").said


def test_a_single_step_and_no_sequences():
    report = viz.report(unrolled(length=1))
    assert report.healthy and report.svg() and [f.said for f in report.findings] == [
        "The gradient of W_f and b_f is exactly zero."
    ]  # fmt: skip
    assert viz.report(unrolled(length=2)).healthy
    steps = cells.run(cells.LSTM(D, 4, np.random.default_rng(0)), np.zeros((3, 0, D), "f")).steps
    assert viz.report(steps).svg()


def test_steps_alone():
    rng = np.random.default_rng(0)
    steps = cells.run(cells.GRU(D, 8, rng), rng.standard_normal((5, 2, D)).astype("f")).steps
    (steps[-1].h ** 2).sum().backward(record=True)
    assert viz.report(steps).healthy and "half-life" in str(viz.report(steps))


def test_a_thousand_steps_are_quick():
    loss = unrolled(length=1000, hidden=16)
    start = time.process_time()
    report = viz.report(loss)
    assert time.process_time() - start < 8  # a second on a machine of its own
    assert report.healthy and report.findings[0].kind == "short memory"
    assert "Every" not in report.text and "Every 38th of 1000 steps is drawn." in words_of(report)


def test_what_is_no_graph():
    for bad in (None, [], 3.0):
        with pytest.raises(InputError, match="give a minigrad"):
            viz.report(bad)
    with pytest.raises(InputError, match="a parameter is int"):
        viz.report(unrolled(length=2), parameters=[3])


def test_the_same_graph_gives_the_same_report():
    a, b = viz.report(unrolled()), viz.report(unrolled())
    assert a.svg() == b.svg() and a.text == b.text


@pytest.mark.parametrize("name", NASTY, ids=range(len(NASTY)))
def test_nasty_names(name):
    report = viz.report(named(name), parameters={name: Tensor(np.ones(2), requires_grad=True)}, title=name)
    harmless(report.svg())
    assert not set("\x00\x1b\x07") & set(report.text)


def test_rich_shows_tables_and_takes_no_name_for_markup():
    unused = {"[red]W[/red]": Tensor(np.ones(2), requires_grad=True), "[/b]": Tensor(1.0)}
    console = Console(width=140, record=True, file=io.StringIO())
    report = viz.report(unrolled(length=3), parameters=unused)
    console.print(report)
    said = console.export_text()
    assert "[red]W[/red] and [/b]" in said and "half-life (steps)" in said and "unused" in said
    assert "[red]W[/red]" in str(report)
