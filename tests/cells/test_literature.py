"""Walks the table of cells of the literature: each against its paper's equations in plain NumPy, eager gradients
against finite differences, compiled against eager with one thread and with four, and printed and drawn.

All that a cell needs besides its class is one row in `NUMPY`: its paper's equations written there.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from literature import LITERATURE

import cells
import viz
from minigrad import Tensor, check_grads, compile, grad
from minigrad.compiler import plan

T, N, D, H = 5, 3, 4, 5
every_cell = pytest.mark.parametrize("name", list(LITERATURE))

# What is known: to be struck out when it is mended, and the tests say so.

RUNS_EAGERLY: dict[str, str] = {}  # compiled: why not (a regular expression)

SLOW = ("softmax_memory", "conv_lstm", "hyper_lstm")  # to compile, for the first time


# THE ROW A NEW CELL NEEDS: its paper's equations for ONE sequence, as plainly as they can be written.
# (weights, xs (T, D)) -> h at every step


def sigma(a):
    return 1 / (1 + np.exp(-a))


def normed(a, gain=1.0, shift=0.0):
    return gain * (a - a.mean()) / np.sqrt(a.var() + 1e-5) + shift


def mgu(w, xs):
    h = np.zeros(H)
    for x in xs:
        f = sigma(np.r_[h, x] @ w["W_f"] + w["b_f"])
        h = (1 - f) * h + f * np.tanh(np.r_[f * h, x] @ w["W_h"] + w["b_h"])
        yield h


def sru(w, xs):
    c = np.zeros(H)
    for x in xs:
        f = sigma(x @ w["W_f"] + w["v_f"] * c + w["b_f"])
        r = sigma(x @ w["W_r"] + w["v_r"] * c + w["b_r"])
        c = f * c + (1 - f) * (x @ w["W_c"])
        yield r * c + (1 - r) * np.sqrt(3) * (x @ w["W_x"] if "W_x" in w else x)


def qrnn(w, xs):
    c, taps = np.zeros(H), {g: w[f"W_{g}"].reshape(2, D, H) for g in "zfo"}
    padded = np.concatenate([np.zeros((1, D)), xs])
    for t in range(1, len(padded)):
        z, f, o = (padded[t - 1] @ taps[g][0] + padded[t] @ taps[g][1] for g in "zfo")
        c = sigma(f) * c + (1 - sigma(f)) * np.tanh(z)
        yield sigma(o) * c


def min_gru(w, xs):
    h = np.zeros(H)
    for x in xs:
        z = sigma(x @ w["W_z"] + w["b_z"])
        h = (1 - z) * h + z * (x @ w["W_h"] + w["b_h"])
        yield h


def min_lstm(w, xs):
    h = np.zeros(H)
    for x in xs:
        f, i = (sigma(x @ w[f"W_{g}"] + w[f"b_{g}"]) for g in "fi")
        h = (f * h + i * (x @ w["W_h"] + w["b_h"])) / (f + i)
        yield h


def positive(a):
    return np.where(a >= 0, a + 0.5, sigma(a))


def min_gru_log(w, xs):  # without logarithms
    h = np.full(H, 0.5)
    for x in xs:
        z = sigma(x @ w["W_z"] + w["b_z"])
        h = (1 - z) * h + z * positive(x @ w["W_h"] + w["b_h"])
        yield h


def min_lstm_log(w, xs):
    h = np.full(H, 0.5)
    for x in xs:
        f, i = (sigma(x @ w[f"W_{g}"] + w[f"b_{g}"]) for g in "fi")
        h = (f * h + i * positive(x @ w["W_h"] + w["b_h"])) / (f + i)
        yield h


def slstm(w, xs):  # without the stabiliser
    h = c = n = np.zeros(H)
    for x in xs:
        z, i, f, o = (np.r_[h, x] @ w[f"W_{g}"] + w[f"b_{g}"] for g in "zifo")
        c = sigma(f) * c + np.exp(i) * np.tanh(z)
        n = sigma(f) * n + np.exp(i)
        h = sigma(o) * c / n
        yield h


def mlstm(w, xs):  # without the stabiliser
    C, n = np.zeros((H, H)), np.zeros(H)
    for x in xs:
        q, k, v, i, f, o = (x @ w[f"W_{g}"] for g in "qkvifo")
        q, k, v = q + w["b_q"], k / np.sqrt(H) + w["b_k"], v + w["b_v"]
        i, f = np.exp(i + w["b_i"]), sigma(f + w["b_f"])
        C = f * C + i * np.outer(v, k)
        n = f * n + i * k
        yield sigma(o + w["b_o"]) * (C @ q) / max(abs(n @ q), 1)


def lmu(w, xs, order=6, theta=12.0):
    A, B = np.zeros((order, order)), np.zeros(order)
    for i in range(order):
        B[i] = (2 * i + 1) * (-1) ** i / theta
        for j in range(order):
            A[i, j] = (2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1))
    h, m = np.zeros(H), np.zeros(order)
    for x in xs:
        u = (x @ w["e_x"] + h @ w["e_h"] + m @ w["e_m"]).item()
        m = m + A @ m + B * u
        h = np.tanh(x @ w["W_x"] + h @ w["W_h"] + m @ w["W_m"])
        yield h


def phased_lstm(w, xs):
    h = c = np.zeros(H)
    for t, x in enumerate(xs, 1):
        phase = np.mod(t - w["s"], w["tau"]) / w["tau"]
        k = np.empty(H)
        for u, (p, r) in enumerate(zip(phase, w["r"], strict=True)):
            k[u] = 2 * p / r if p < r / 2 else 2 - 2 * p / r if p < r else 0.001 * p
        f, i, g, o = (np.r_[h, x] @ w[f"W_{gate}"] + w[f"b_{gate}"] for gate in "fico")
        new = sigma(f + w["p_f"] * c) * c + sigma(i + w["p_i"] * c) * np.tanh(g)
        h = k * sigma(o + w["p_o"] * new) * np.tanh(new) + (1 - k) * h
        c = k * new + (1 - k) * c
        yield h


def clockwork_rnn(w, xs):
    h = np.zeros(H)
    periods = [2 ** (u // 2) for u in range(H)]
    for t, x in enumerate(xs, 1):
        after = h.copy()
        for u in range(H):
            if t % periods[u] == 0:
                told = sum(h[v] * w["W_h"][v, u] for v in range(H) if periods[v] >= periods[u])
                after[u] = np.tanh(told + x @ w["W_x"][:, u] + w["b_x"][u])
        h = after
        yield h


def softmax_memory(w, xs):
    h = r = np.zeros(H)
    M = w["M_0"].copy()
    for x in xs:
        h = np.tanh(np.r_[h, x, r] @ w["W_h"] + w["b_h"])
        k, a = (np.tanh(h @ w[f"W_{g}"] + w[f"b_{g}"]) for g in "ka")
        beta, e = np.log1p(np.exp(h @ w["W_beta"] + w["b_beta"])), sigma(h @ w["W_e"] + w["b_e"])
        scores = np.exp([beta * (k @ row) / (np.linalg.norm(k) * np.linalg.norm(row) + 1e-6) for row in M])
        at = (scores / scores.sum()).ravel()
        r = at @ M
        M = M * (1 - np.outer(at, e)) + np.outer(at, a)
        yield h


def conv_lstm(w, xs):
    h = c = np.zeros((D, H))
    for x in xs:
        padded = np.zeros((D + 2, H + 1))
        padded[1:-1] = np.c_[h, x]
        f, i, g, o = (
            np.array([sum(padded[p + j] @ w[f"W_{gate}"][j] for j in range(3)) for p in range(D)])
            + w[f"b_{gate}"]
            for gate in "fico"
        )
        new = sigma(f + w["p_f"] * c) * c + sigma(i + w["p_i"] * c) * np.tanh(g)
        c, h = new, sigma(o + w["p_o"] * new) * np.tanh(new)
        yield h


def lru(w, xs):
    state = np.zeros(H, complex)
    turn = np.exp(-np.exp(w["nu"]) + 1j * np.exp(w["theta"]))
    for x in xs:
        state = turn * state + np.exp(w["gamma"]) * (x @ (w["B_re"] + 1j * w["B_im"]))
        yield (state @ (w["C_re"] + 1j * w["C_im"])).real + x @ w["D"]


def lstm(w, x, h, c):
    f, i, g, o = (np.r_[h, x] @ w[f"W_{gate}"] + w[f"b_{gate}"] for gate in "fico")
    c = sigma(f) * c + sigma(i) * np.tanh(g)
    return sigma(o) * np.tanh(c), c


def mogrifier_lstm(w, xs):
    h = c = np.zeros(H)
    for x in xs:
        x = 2 * sigma(h @ w["Q_1"]) * x
        h = 2 * sigma(x @ w["R_2"]) * h
        x = 2 * sigma(h @ w["Q_3"]) * x
        h = 2 * sigma(x @ w["R_4"]) * h
        x = 2 * sigma(h @ w["Q_5"]) * x
        h, c = lstm(w, x, h, c)
        yield h


def delta_rule(w, xs):
    def features(k):
        r = np.maximum(np.r_[k, -k], 0)
        return r * np.roll(r, 1) / ((r * np.roll(r, 1)).sum() + 1e-6)

    W = np.zeros((H, 2 * H))
    for x in xs:
        k, q, v = features(x @ w["W_k"]), features(x @ w["W_q"]), x @ w["W_v"]
        W = W + sigma(x @ w["W_beta"]) * np.outer(v - W @ k, k)
        yield W @ q


def ctrnn(w, xs):
    h = np.zeros(H)
    for x in xs:
        for _ in range(4):
            h = h + 0.25 * (-h + sigma(h) @ w["W_h"] + x @ w["W_x"] + w["b_x"]) / w["tau"]
        yield h


def ltc(w, xs):
    h = np.zeros(H)
    for x in xs:
        for _ in range(6):
            f = sigma(h @ w["W_h"] + x @ w["W_x"] + w["b_x"])
            h = (h + f * w["A"] / 6) / (1 + (1 / w["tau"] + f) / 6)
        yield h


def multiplicative_lstm(w, xs):
    h = c = np.zeros(H)
    for x in xs:
        m = (x @ w["W_mx"]) * (h @ w["W_mh"])
        new, i, f, o = (np.r_[m, x] @ w[f"W_{gate}"] + w[f"b_{gate}"] for gate in "hifo")
        c = sigma(f) * c + sigma(i) * new
        h = np.tanh(c * sigma(o))
        yield h


def hyper_lstm(w, xs):
    h, c, small, small_c = np.zeros(H), np.zeros(H), np.zeros(3), np.zeros(3)
    hyper = dict(zip(("W_f", "W_i", "W_o", "W_c"), np.split(w["W_hyper"], 4, axis=1), strict=True))
    hyper |= dict(zip(("b_f", "b_i", "b_o", "b_c"), np.split(w["b_hyper"], 4), strict=True))
    rows, columns = np.split(w["W_h"], 4, axis=1), np.split(w["W_x"], 4, axis=1)

    def scale(part, gate):
        z = small @ w[f"W_z_{part}"] + w[f"b_z_{part}"]
        return z[2 * gate : 2 * gate + 2] @ w[f"D_{part}"][gate]

    for x in xs:
        small, small_c = lstm(hyper, np.r_[h, x], small, small_c)
        sums = [
            scale("h", g) * (h @ rows[g]) + scale("x", g) * (x @ columns[g]) + scale("b", g) for g in range(4)
        ]
        f, i, o, new = (normed(a, w["g_gates"][g], w["b_gates"][g]) for g, a in enumerate(sums))
        c = sigma(f) * c + sigma(i) * np.tanh(new)
        h = sigma(o) * np.tanh(normed(c, w["g_c"], w["b_c"]))
        yield h


def zoneout_lstm(w, xs):
    h = c = np.zeros(H)
    for x in xs:
        new_h, new_c = lstm(w, x[:D], h, c)
        c = np.array([c[u] if x[D + u] < 0.5 else new_c[u] for u in range(H)])
        h = np.array([h[u] if x[D + H + u] < 0.3 else new_h[u] for u in range(H)])
        yield h


def weight_norm_rnn(w, xs):
    h, W = np.zeros(H), np.empty((H + D, H))
    for u in range(H):
        W[:, u] = w["g"][u] * w["V"][:, u] / np.linalg.norm(w["V"][:, u])
    for x in xs:
        h = np.tanh(np.r_[h, x] @ W + w["b"])
        yield h


def learned_state_lstm(w, xs):
    h, c = w["h_0"], w["c_0"]
    for x in xs:
        h, c = lstm(w, x, h, c)
        yield h


def batch_norm_lstm(w, xs):  # the one that sees all sequences: xs (T, N, D)
    def over_sequences(a, gain):
        return np.stack([normed(column, g) for column, g in zip(a.T, gain, strict=True)], axis=1)

    h = c = np.zeros((xs.shape[1], H))
    for x in xs:
        sums = (
            over_sequences(h @ w["W_h"], w["gamma_h"]) + over_sequences(x @ w["W_x"], w["gamma_x"]) + w["b"]
        )
        f, i, o, g = np.split(sums, 4, axis=1)
        c = sigma(f) * c + sigma(i) * np.tanh(g)
        h = sigma(o) * np.tanh(over_sequences(c, w["gamma_c"]) + w["beta_c"])
        yield h


NUMPY = {
    "mgu": mgu,
    "sru": sru,
    "qrnn": qrnn,
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "min_gru_log": min_gru_log,
    "min_lstm_log": min_lstm_log,
    "slstm": slstm,
    "mlstm": mlstm,
    "lmu": lmu,
    "phased_lstm": phased_lstm,
    "clockwork_rnn": clockwork_rnn,
    "softmax_memory": softmax_memory,
    "conv_lstm": conv_lstm,
    "lru": lru,
    "mogrifier_lstm": mogrifier_lstm,
    "delta_rule": delta_rule,
    "ctrnn": ctrnn,
    "ltc": ltc,
    "multiplicative_lstm": multiplicative_lstm,
    "hyper_lstm": hyper_lstm,
    "zoneout_lstm": zoneout_lstm,
    "batch_norm_lstm": batch_norm_lstm,
    "weight_norm_rnn": weight_norm_rnn,
    "learned_state_lstm": learned_state_lstm,
}


def make(name: str, rng) -> cells.Cell:
    """A cell whose parameters are random, so that none that starts at 0 or 1 hides."""
    cell = LITERATURE[name](D + 2 * H if name == "zoneout_lstm" else D, H, rng, "float64")
    cell.load_state_dict(
        {k: p.value + 0.1 * rng.standard_normal(p.shape) for k, p in cell.parameters().items()}
    )
    return cell


def inputs(cell, rng, T=T, N=N) -> np.ndarray:
    return rng.standard_normal((T, N, cell.inputs))


def learning(cell) -> list[str]:
    """The states that gradients flow through: counters are whole numbers."""
    first = dict(zip(cell.state.split(), cell.initial_state(1), strict=True))
    return [name for name, state in first.items() if state.dtype.kind == "f"]


def test_every_cell_is_written_in_numpy_too():
    assert list(NUMPY) == sorted(NUMPY, key=list(LITERATURE).index) and set(NUMPY) == set(LITERATURE)


@every_cell
def test_a_run_is_its_papers_equations(name, rng):
    cell = make(name, rng)
    x, weights = inputs(cell, rng), {k: p.value for k, p in cell.parameters().items()}
    steps = cells.run(cell, x).steps
    for step in steps:
        assert set(step) >= {*cell.gates.split(), *cell.state.split()}
        assert all(np.isfinite(step[q].value).all() and step[q].name for q in step)
        assert tuple(step[s] for s in cell.state.split()) == step.state and cell.state.split()[0] == "h"
    ours = np.stack([step.h.value for step in steps])
    if name == "batch_norm_lstm":
        theirs = np.stack(list(NUMPY[name](weights, x)))
    else:
        theirs = np.stack([list(NUMPY[name](weights, x[:, n])) for n in range(N)], axis=1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    assert re.search(r"\(.*(19|20)\d\d", type(cell).__doc__), "no paper and year"


def test_where_sru_is_as_wide_as_its_input_x_itself_goes_past_the_memory(rng):
    """Else through W_x, as everywhere in this table."""
    cell = cells.SRU(H, H, rng, "float64")
    assert "W_x" not in cell.parameters() and cell.size == 4 * H * (H + 1) - H * H
    for p in cell.parameters().values():
        p.value = rng.standard_normal(p.shape)
    x, weights = rng.standard_normal((T, N, H)), {k: p.value for k, p in cell.parameters().items()}
    theirs = np.stack([list(sru(weights, x[:, n])) for n in range(N)], axis=1)
    run = lambda x: cells.run(cell, x).outputs  # noqa: E731
    for found in (run(x), compile(run)(x)):
        np.testing.assert_allclose(found.value, theirs, rtol=1e-12, atol=1e-13)
    check_grads(run, [x])


@every_cell
def test_gradients_match_finite_differences(name, rng):
    cell = make(name, rng)
    x, states = inputs(cell, rng), learning(cell)
    for wanted, p in {"x": x, **cell.parameters()}.items():  # one by one: a small gradient must not hide

        def function(change, wanted=wanted, p=p):
            # Tenths of a unit, so that few kinks lie between the points of a difference.
            moved = p + 0.1 * change
            if wanted != "x":
                setattr(cell, wanted, moved)
            steps = cells.run(cell, moved if wanted == "x" else x).steps
            return [step[s] for step in steps for s in states]

        try:
            # The complex step would turn states complex, which were made real.
            assert check_grads(function, [np.zeros(p.shape)], order=1, complex_step=False) <= 1e-6, wanted
        finally:
            if wanted != "x":
                setattr(cell, wanted, p)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in LITERATURE]
)
def test_compiled_is_eager_with_one_thread_and_with_four(name, rng, monkeypatch):
    monkeypatch.setattr(plan, "THREADS_FROM", 0)  # small, and yet shared
    cell = make(name, rng)
    states = learning(cell)

    def loss(x):
        run = cells.run(cell, x)
        last = dict(zip(cell.state.split(), run.state, strict=True))
        return sum((run[s] * run[s]).mean() + last[s].mean() for s in states)

    compiled = {threads: compile(loss, threads=threads) for threads in (1, 4)}
    said = set()
    for sizes in ((T, N), (2, 7), (1, 1)):  # fewer sequences than threads, and more
        x = Tensor(inputs(cell, rng, *sizes), requires_grad=True, name="x")
        leaves = {"x": x, **cell.parameters()}
        expected = loss(x)
        gradients = dict(zip(leaves, grad(expected, list(leaves.values())), strict=True))
        if sizes == (T, N):
            assert all(g.value.any() for g in gradients.values()), "a parameter that nothing depends on"
        for threads, f in compiled.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                value, found = f.value_and_grad(x)
            said |= {str(w.message) for w in caught}
            where = f"T, N = {sizes}, {threads} threads"
            close(value.value, expected.value, f"value, {where}")
            for leaf, g in gradients.items():
                close(found[leaves[leaf]], g.value, f"gradient of {leaf}, {where}")
    reason = RUNS_EAGERLY.get(name)
    assert bool(said) == bool(reason), f"{said}; in the table stands {reason}"
    assert all(re.search(f"runs eagerly: .*{reason}", words) for words in said), said


def close(ours, theirs, what):
    """Relative to the largest number of the array: single elements may be sums that cancel."""
    assert ours.shape == theirs.shape, what
    assert abs(ours - theirs).max() <= 1e-12 * max(1.0, abs(theirs).max()), what


@every_cell
def test_it_is_printed_and_drawn(name, rng):
    cell = make(name, rng)
    printed = viz.equations(cell)  # computed in tests/viz/test_equations.py
    assert printed.latex and all(f"{s}_t" in printed.text for s in cell.state.split() if len(s) == 1)
    steps = cells.run(cell, inputs(cell, rng, 2, 2)).steps
    loss = sum((step[s] * step[s]).mean() for step in steps for s in learning(cell))
    loss.backward(record=True)
    dot = viz.draw(loss, steps).dot
    assert all(f"t={t} {gate}" in dot for t in (1, 2) for gate in cell.gates.split())
