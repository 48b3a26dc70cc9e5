"""History: what is recorded while a network is trained agrees with NumPy, and disturbs nothing."""

from __future__ import annotations

import time

import numpy as np
import pytest
from drawn import words_of
from test_escaping import NASTY, harmless

import cells
import viz
from minigrad import InputError, compile, cross_entropy, fit, mse, stack, tanh

T, N, D, H = 6, 3, 4, 5


def network(kind=cells.LSTM, seed=0, layers=1):
    """(loss, parameters, batches): a small network that is to say what it reads."""
    rng = np.random.default_rng(seed)
    layer = cells.Stack(kind, D, H, layers, rng) if layers > 1 else kind(D, H, rng)
    output = cells.Output(layer.width, D, rng)

    def loss(x, y):
        h = layer(x).outputs
        return cross_entropy(output(h), y).named("L")

    def batch():
        codes = rng.integers(0, D, (T, N))
        return np.eye(D, dtype="f")[codes], codes

    return loss, layer.parameters() | output.parameters(), batch


def test_records_are_taken_at_the_steps_and_training_is_the_same():
    loss, parameters, batch = network()
    batches, step = [batch() for _ in range(9)], compile(loss)
    start = {name: p.value.copy() for name, p in parameters.items()}

    def train(watched):
        for name, p in parameters.items():
            p.value = start[name]
        history = viz.History(every=4)
        watch = history.watch(loss, *batches[0]) if watched else None
        losses = fit(step, parameters, batches, lr=1e-2, watch=watch)
        return history, losses, [p.value for p in parameters.values()]

    history, losses, values = train(True)
    _, alone, others = train(False)
    assert np.array_equal(losses, alone)
    assert all(np.array_equal(a, b) for a, b in zip(values, others, strict=True))
    assert len(history) == 3 and history.data["step"].tolist() == [0, 4, 8]
    assert history.data["t"].tolist() == [1, 2, 3, 4, 5, 6] and "steps 0 … 8" in repr(history)


def test_what_is_recorded_against_a_run_of_ones_own():
    loss, _, batch = network()
    x, y = batch()
    history = viz.History()
    history.record(7, loss, x, y)
    rng = np.random.default_rng(0)
    cell, output = cells.LSTM(D, H, rng), cells.Output(H, D, rng)
    steps = cells.run(cell, x).steps
    own = cross_entropy(output(stack([s.h for s in steps])), y)
    own.backward(record=True)
    data = history.data
    assert data["step"].tolist() == [7] and data["loss"][0] == pytest.approx(own.item(), rel=1e-5)
    for name in ("f", "i", "c_tilde", "c", "o", "h"):
        assert np.allclose(data[f"d{name}"][0], [np.linalg.norm(s[name].grad) for s in steps], rtol=1e-4)
        assert np.allclose(data[f"{name} mean"][0], [s[name].value.mean() for s in steps], atol=1e-6)
    high = [(s.c_tilde.value > 0.95).mean() for s in steps]
    assert np.allclose(data["c_tilde saturated high"][0], high) and "h saturated low" not in data
    for name, p in cell.parameters().items():
        assert data[f"d{name} norm"][0] == pytest.approx(np.linalg.norm(p.grad), rel=1e-4)
        assert data[f"{name} norm"][0] == pytest.approx(np.linalg.norm(p.value), rel=1e-5)
    assert data["rate"][0] == pytest.approx(float(viz.report(own).data["rate"]), rel=1e-4)
    assert data["half-life"][0] == pytest.approx(-np.log(2) / data["rate"][0], rel=1e-6)


@pytest.mark.parametrize("name", cells.CELLS)
def test_every_cell_is_recorded_and_drawn(name):
    loss, _, batch = network(cells.CELLS[name])
    history = viz.History()
    probe = batch()
    for step in (0, 100):
        history.record(step, loss, *probe)
    assert history.flow().svg() and history.half_life().svg()
    state = next(
        s for s in cells.CELLS[name].state.split() if f"{s} mean" in history.data
    )  # one that is carried
    assert f"∂L/∂{state}" in words_of(history.flow(of=state))
    if any(key.endswith(" saturated low") for key in history.data):
        assert "▾ %" in words_of(history.gates())
    elif name not in ("irnn", "min_gru_log", "min_lstm_log"):
        raise AssertionError("a σ or tanh is not recorded")
    assert {f"d{state}", f"{state} mean", "rate", "half-life"} <= set(history.data)


def test_layers_stand_before_the_names():
    loss, _, batch = network(layers=2)
    history = viz.History()
    history.record(0, loss, *batch())
    data = history.data
    assert {"layer 1 / dh", "layer 2 / f mean", "layer 2 / rate", "layer 1 / dW_f norm", "dW_y norm"} <= set(
        data
    )
    assert "of layer 2" in words_of(history.flow()) and "of layer 1" in words_of(
        history.flow(of="layer 1 / f")
    )


def test_gradients_in_the_weights_are_as_before():
    loss, parameters, batch = network()
    compiled = compile(loss)
    compiled.backward(*batch())
    before = {name: p.grad.copy() for name, p in parameters.items()}
    viz.History().record(1, compiled, *batch())  # what is compiled is run as the function that it was made of
    assert all(np.array_equal(p.grad, before[name]) for name, p in parameters.items())
    viz.History().record(1, lambda x, y: (loss(x, y), x), *batch())  # the first of several


def test_another_function_may_stop_the_training():
    loss, parameters, batch = network()
    history, seen = viz.History(every=2), []

    def then(step, value):
        seen.append((step, value))
        return step == 3

    watch = history.watch(loss, *batch(), start=False, then=then)
    losses = fit(loss, parameters, [batch() for _ in range(9)], watch=watch)
    assert len(losses) == 3 and seen[-1] == (3, losses[-1]) and history.data["step"].tolist() == [2]


def test_save_and_load(tmp_path):
    loss, _, batch = network(layers=2)
    history, probe = viz.History(every=7), batch()
    for step in (0, 7, 14):
        history.record(step, loss, *probe)
    path = history.save(tmp_path / "new" / "history.npz")
    assert [p.name for p in path.parent.iterdir()] == ["history.npz"]
    again = viz.History.load(path)
    assert again.every == 7 and list(again.data) == list(history.data)
    assert all(np.array_equal(again.data[k], v, equal_nan=True) for k, v in history.data.items())
    for view in ("flow", "gates", "half_life"):
        assert getattr(again, view)().svg() == getattr(history, view)().svg()
    again.record(21, loss, *probe)
    assert len(again) == 4
    viz.History().save(tmp_path / "empty.npz")
    assert len(viz.History.load(tmp_path / "empty.npz")) == 0


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    np.savez(tmp_path / "pickle.npz", names=np.array([{}], dtype=object), every=1, state="")
    np.savez(
        tmp_path / "short.npz",
        names=np.array(["step", "loss", "t"]),
        every=1,
        state="",
        a0=[1, 2],
        a1=[1.0],
        a2=[1],
    )
    for name in ("text", "other", "pickle", "short", "missing"):
        with pytest.raises(InputError, match="not a recorded history"):
            viz.History.load(tmp_path / f"{name}.npz")
    with pytest.raises(InputError, match="cannot be written"):
        viz.History().save(tmp_path / "text.npz" / "history.npz")


def test_bad_input():
    loss, _, batch = network()
    for every in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="every"):
            viz.History(every)  # type: ignore[arg-type]
    history = viz.History()
    for view in (history.flow, history.gates, history.half_life):
        with pytest.raises(InputError, match="nothing was recorded"):
            view()
    with pytest.raises(InputError, match="single number"):
        history.record(0, lambda x, y: x, *batch())
    with pytest.raises(InputError, match="requires a gradient"):
        history.record(0, lambda x, y: (x * x).sum(), *batch())
    x, y = batch()
    history.record(0, loss, x, y)
    with pytest.raises(InputError, match="4 steps, that before had 6"):
        history.record(1, loss, x[:4], y[:4])
    with pytest.raises(InputError, match="q was not recorded"):
        history.flow(of="q")
    assert len(history) == 1


def test_a_network_without_recurrence_and_one_record():
    rng = np.random.default_rng(0)
    layer = cells.Dense(3, 2, rng, activation=tanh)
    history = viz.History()
    history.record(0, lambda x, y: mse(layer(x), y), np.ones((5, 3), "f"), np.zeros((5, 2), "f"))
    assert history.data["dW norm"].shape == (1,) and history.data["t"].shape == (0,)
    assert history.half_life().svg()
    with pytest.raises(InputError, match="nothing stands in steps"):
        history.flow()


def test_a_single_step_and_what_is_not_finite():
    loss, parameters, batch = network()
    x, y = batch()
    history = viz.History()
    history.record(0, loss, x[:1], y[:1])
    assert "rate" not in history.data and history.flow().svg() and history.half_life().svg()
    history, p = viz.History(), parameters["W_f"]
    history.record(0, loss, x, y)
    p.value = np.full_like(p.value, np.nan)
    history.record(1, loss, x, y)
    assert np.isfinite(history.data["dh"][0]).all() and not np.isfinite(history.data["dh"][1]).any()
    for view in ("flow", "gates", "half_life"):
        assert getattr(history, view)().svg()


@pytest.mark.parametrize("name", [n for n in NASTY if n], ids=range(len(NASTY) - 1))
def test_nasty_names(name):
    class Cell(cells.RNN):
        def step(self, x, h_prev):
            h = super().step(x, h_prev)["h"]
            return {name: tanh(h), "h": h}

    rng = np.random.default_rng(0)
    cell = Cell(2, 2, rng)
    history = viz.History()
    for step in (0, 1):
        history.record(
            step,
            lambda x: sum((s[name] ** 2).sum() for s in cells.run(cell, x).steps),
            np.ones((3, 1, 2), "f"),
        )
    for picture in (history.flow(title=name), history.gates(title=name), history.half_life(title=name)):
        harmless(picture.svg())


@pytest.mark.slow
def test_it_takes_at_most_a_tenth_of_the_time_of_the_training():
    """An LSTM of 128 units, 100 steps, 32 sequences: one step of a hundred is recorded."""
    rng = np.random.default_rng(0)
    cell, output = cells.LSTM(16, 128, rng), cells.Output(128, 16, rng)

    def loss(x, y):
        return cross_entropy(cells.run(cell, x, output=output).y, y)

    codes = rng.integers(0, 16, (100, 32))
    batch = np.eye(16, dtype="f")[codes], codes
    step, history = compile(loss), viz.History()
    probe = tuple(a[:, :2] for a in batch)
    recording = best(lambda: history.record(0, loss, *probe), 12)  # of many, as other programs disturb it
    assert recording < 0.1 * 100 * best(lambda: step.backward(*batch), 24)


def best(action, times: int) -> float:
    found = []
    for _ in range(times):
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return min(found)


def test_the_losses_of_fit_are_drawn_with_those_of_the_validations():
    loss, parameters, batch = network()
    losses = fit(loss, parameters, [batch() for _ in range(3)], epochs=4, validate=[batch()])
    picture = viz.History.loss(losses)
    assert picture.data["step"].tolist() == list(range(1, 13))
    np.testing.assert_array_equal(picture.data["loss"], losses)
    assert picture.data["validated at"].tolist() == [3, 6, 9, 12]
    np.testing.assert_array_equal(picture.data["validation"], losses.validation)
    assert f"after step {losses.best}." in picture.svg() and "on the data to validate on" in picture.svg()
    plain = viz.History.loss([3.0, -1.0, np.nan])
    assert "validation" not in plain.data and "validate" not in plain.svg()
    for nothing in ([], np.ones((2, 2)), 3.0):
        with pytest.raises(InputError, match=r"History\.loss: give the losses of at least one step"):
            viz.History.loss(nothing)
