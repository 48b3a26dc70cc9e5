"""Walks the table of cells: every cell in `cells.CELLS` over 50 steps against finite differences and
against PyTorch, with random weights and states (constant weights cannot see a swapped gate order), and
under the law of contributions. All that a cell needs besides its file is one row in `PYTORCH`: its
equations written there.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import cells
from cells import CELLS
from minigrad import InputError, Tensor, check_grads, optim

T, N, D, H = 50, 2, 3, 4
every_cell = pytest.mark.parametrize("name", list(CELLS))


# THE ROW A NEW CELL NEEDS: its slide's equations, operation by operation.
# (torch, weights, x, *state) -> quantities


def rnn(torch, w, x, h_prev):
    hx = torch.cat([h_prev, x], 1)
    return {"h": torch.tanh(hx @ w["W_h"] + w["b_h"])}


def lstm(torch, w, x, h_prev, c_prev):
    hx = torch.cat([h_prev, x], 1)
    f = torch.sigmoid(hx @ w["W_f"] + w["b_f"])
    i = torch.sigmoid(hx @ w["W_i"] + w["b_i"])
    c_tilde = torch.tanh(hx @ w["W_c"] + w["b_c"])
    c = f * c_prev + i * c_tilde
    o = torch.sigmoid(hx @ w["W_o"] + w["b_o"])
    return {"f": f, "i": i, "c_tilde": c_tilde, "c": c, "o": o, "h": o * torch.tanh(c)}


def irnn(torch, w, x, h_prev):
    hx = torch.cat([h_prev, x], 1)
    return {"h": torch.relu(hx @ w["W_h"] + w["b_h"])}


def lstm_peephole(torch, w, x, h_prev, c_prev):
    hx = torch.cat([h_prev, x], 1)
    f = torch.sigmoid(hx @ w["W_f"] + w["p_f"] * c_prev + w["b_f"])
    i = torch.sigmoid(hx @ w["W_i"] + w["p_i"] * c_prev + w["b_i"])
    c_tilde = torch.tanh(hx @ w["W_c"] + w["b_c"])
    c = f * c_prev + i * c_tilde
    o = torch.sigmoid(hx @ w["W_o"] + w["p_o"] * c + w["b_o"])
    return {"f": f, "i": i, "c_tilde": c_tilde, "c": c, "o": o, "h": o * torch.tanh(c)}


def lstm_coupled(torch, w, x, h_prev, c_prev):
    hx = torch.cat([h_prev, x], 1)
    f = torch.sigmoid(hx @ w["W_f"] + w["b_f"])
    c_tilde = torch.tanh(hx @ w["W_c"] + w["b_c"])
    c = f * c_prev + (1 - f) * c_tilde
    o = torch.sigmoid(hx @ w["W_o"] + w["b_o"])
    return {"f": f, "i": 1 - f, "c_tilde": c_tilde, "c": c, "o": o, "h": o * torch.tanh(c)}


def lstm_projected(torch, w, x, h_prev, c_prev):
    made = lstm(torch, w, x, h_prev, c_prev)
    return {**made, "m": made["h"], "h": made["h"] @ w["W_p"]}


def lstm_zoneout(torch, w, x, h_prev, c_prev):
    """Without masks: each state is the mean over them."""
    new = lstm(torch, w, x, h_prev, c_prev)
    kept = {"h": 0.05 * h_prev + 0.95 * new["h"], "c": 0.5 * c_prev + 0.5 * new["c"]}
    return {**new, "h_new": new["h"], "c_new": new["c"], **kept}


def lstm_layer_norm(torch, w, x, h_prev, c_prev):
    hx = torch.cat([h_prev, x], 1)

    def norm(a, gate):
        return torch.nn.functional.layer_norm(a, (H,), w[f"g_{gate}"], w[f"b_{gate}"], 1e-5)

    f, i, o = (torch.sigmoid(norm(hx @ w[f"W_{gate}"], gate)) for gate in "fio")
    c_tilde = torch.tanh(norm(hx @ w["W_c"], "c"))
    c = f * c_prev + i * c_tilde
    return {"f": f, "i": i, "c_tilde": c_tilde, "c": c, "o": o, "h": o * torch.tanh(norm(c, "h"))}


def gru(torch, w, x, h_prev):
    hx = torch.cat([h_prev, x], 1)
    z, r = torch.sigmoid(hx @ w["W_z"]), torch.sigmoid(hx @ w["W_r"])
    h_tilde = torch.tanh(torch.cat([r * h_prev, x], 1) @ w["W"])
    return {"z": z, "r": r, "h_tilde": h_tilde, "h": (1 - z) * h_prev + z * h_tilde}


def gru_biased(torch, w, x, h_prev):
    hx = torch.cat([h_prev, x], 1)
    z, r = torch.sigmoid(hx @ w["W_z"] + w["b_z"]), torch.sigmoid(hx @ w["W_r"] + w["b_r"])
    h_tilde = torch.tanh(torch.cat([r * h_prev, x], 1) @ w["W"] + w["b_h"])
    return {"z": z, "r": r, "h_tilde": h_tilde, "h": (1 - z) * h_prev + z * h_tilde}


def gru_reset_after(torch, w, x, h_prev):
    hx = torch.cat([h_prev, x], 1)
    r, z = torch.sigmoid(hx @ w["W_r"] + w["b_r"]), torch.sigmoid(hx @ w["W_z"] + w["b_z"])
    h_tilde = torch.tanh(x @ w["W"] + w["b_W"] + r * (h_prev @ w["U"] + w["b_U"]))
    return {"r": r, "z": z, "h_tilde": h_tilde, "h": (1 - z) * h_tilde + z * h_prev}


def janet(torch, w, x, h_prev):
    hx = torch.cat([h_prev, x], 1)
    s = hx @ w["W_f"] + w["b_f"]
    c_tilde = torch.tanh(hx @ w["W_c"] + w["b_c"])
    h = torch.sigmoid(s) * h_prev + (1 - torch.sigmoid(s - 1.0)) * c_tilde
    return {"s": s, "f": torch.sigmoid(s), "c_tilde": c_tilde, "h": h}


def mgu(torch, w, x, h_prev):
    f = torch.sigmoid(torch.cat([h_prev, x], 1) @ w["W_f"] + w["b_f"])
    h_tilde = torch.tanh(torch.cat([f * h_prev, x], 1) @ w["W_h"] + w["b_h"])
    return {"f": f, "h_tilde": h_tilde, "h": (1 - f) * h_prev + f * h_tilde}


def min_gru(torch, w, x, h_prev):
    z, h_tilde = torch.sigmoid(x @ w["W_z"] + w["b_z"]), x @ w["W_h"] + w["b_h"]
    return {"z": z, "h_tilde": h_tilde, "h": torch.lerp(h_prev, h_tilde, z)}


def min_lstm(torch, w, x, h_prev):
    f, i = (torch.sigmoid(x @ w[f"W_{g}"] + w[f"b_{g}"]) for g in "fi")
    h_tilde = x @ w["W_h"] + w["b_h"]
    return {"f": f, "i": i, "h_tilde": h_tilde, "h": (f * h_prev + i * h_tilde) / (f + i)}


def positive(torch, a):
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


def min_gru_log(torch, w, x, h_prev, log_h_prev):
    """Without logarithms, but for the names."""
    s = x @ w["W_z"] + w["b_z"]
    z, h_tilde = torch.sigmoid(s), positive(torch, x @ w["W_h"] + w["b_h"])
    h = (1 - z) * torch.exp(log_h_prev) + z * h_tilde
    logs = {"log_z": z, "log_keep": 1 - z, "log_h_tilde": h_tilde, "log_h": h}
    return {"s": s, **{name: torch.log(a) for name, a in logs.items()}, "h": h}


def min_lstm_log(torch, w, x, h_prev, log_h_prev):
    """Without logarithms, but for the names."""
    f, i = (torch.sigmoid(x @ w[f"W_{g}"] + w[f"b_{g}"]) for g in "fi")
    h_tilde = positive(torch, x @ w["W_h"] + w["b_h"])
    h = (f * torch.exp(log_h_prev) + i * h_tilde) / (f + i)
    logs = {"d": i / f, "log_f": f / (f + i), "log_i": i / (f + i), "log_h_tilde": h_tilde, "log_h": h}
    return {**{name: torch.log(a) for name, a in logs.items()}, "h": h}


def exponential_gates(torch, w, a, m_prev):
    """The logarithms of f and i, their stabiliser, and both gates, stabilised."""
    log_f, log_i = torch.nn.functional.logsigmoid(a @ w["W_f"] + w["b_f"]), a @ w["W_i"] + w["b_i"]
    m = torch.maximum(log_f + m_prev, log_i)
    return {
        "log_f": log_f,
        "log_i": log_i,
        "m": m,
        "f": torch.exp(log_f + m_prev - m),
        "i": torch.exp(log_i - m),
    }


def slstm(torch, w, x, h_prev, c_prev, n_prev, m_prev):
    hx = torch.cat([h_prev, x], 1)
    g = exponential_gates(torch, w, hx, m_prev)
    z, o = torch.tanh(hx @ w["W_z"] + w["b_z"]), torch.sigmoid(hx @ w["W_o"] + w["b_o"])
    c, n = g["f"] * c_prev + g["i"] * z, g["f"] * n_prev + g["i"]
    return {**g, "z": z, "o": o, "c": c, "n": n, "h": o * (c / n)}


def mlstm(torch, w, x, h_prev, C_prev, n_prev, m_prev):
    g = exponential_gates(torch, w, x, m_prev)
    q, k, v = (
        x @ w[f"W_{name}"] * scale + w[f"b_{name}"]
        for name, scale in zip("qkv", (1, H**-0.5, 1), strict=True)
    )
    C = g["f"][:, :, None] * C_prev + g["i"][:, :, None] * torch.einsum("ni,nj->nij", v, k)
    n, o = g["f"] * n_prev + g["i"] * k, torch.sigmoid(x @ w["W_o"] + w["b_o"])
    read = torch.einsum("nij,nj->ni", C, q)
    size = torch.maximum(torch.einsum("ni,ni->n", n, q).abs()[:, None], torch.exp(-g["m"]))
    return {**g, "q": q, "k": k, "v": v, "C": C, "n": n, "o": o, "h": o * read / size}


def sru(torch, w, x, h_prev, c_prev):
    f, r = (torch.sigmoid(x @ w[f"W_{g}"] + w[f"v_{g}"] * c_prev + w[f"b_{g}"]) for g in "fr")
    c_tilde = x @ w["W_c"]
    c = torch.lerp(c_tilde, c_prev, f)
    skip = x @ w["W_x"] if "W_x" in w else x
    return {"f": f, "c_tilde": c_tilde, "c": c, "r": r, "h": torch.lerp(3**0.5 * skip, c, r)}


PYTORCH = {
    "rnn": rnn,
    "irnn": irnn,
    "lstm": lstm,
    "lstm_peephole": lstm_peephole,
    "lstm_coupled": lstm_coupled,
    "lstm_layer_norm": lstm_layer_norm,
    "lstm_projected": lstm_projected,
    "lstm_zoneout": lstm_zoneout,
    "gru": gru,
    "gru_biased": gru_biased,
    "gru_reset_after": gru_reset_after,
    "janet": janet,
    "mgu": mgu,
    "min_gru": min_gru,
    "min_gru_log": min_gru_log,
    "min_lstm": min_lstm,
    "min_lstm_log": min_lstm_log,
    "slstm": slstm,
    "mlstm": mlstm,
    "sru": sru,
}


UNREAD = ("min_gru_log", "min_lstm_log", "mlstm", "sru")  # their steps do not read the last output


def oracle():
    return pytest.importorskip("torch", reason="PyTorch is the oracle here: `make torch` installs it")


def make(name: str, rng, dtype="float64"):
    """A cell with random weights and biases, and by name all that its gradients flow to: inputs, states,
    weights."""
    cell = CELLS[name](D, H, rng, dtype=dtype)
    arrays = {
        "x": rng.standard_normal((T, N, D)),
        **{s.name + "_0": rng.standard_normal(s.shape) for s in cell.initial_state(N)},
    }
    arrays |= {p: rng.standard_normal(value.shape) * 0.5 for p, value in cell.parameters().items()}
    if (
        name == "irnn"
    ):  # units that are always on or always off: at the kink there is no derivative to compare
        arrays["W_h"] = arrays["W_h"] * 0.1
        arrays["b_h"] = np.array([2.0, -2.0, 2.5, 1.5])
    if name == "slstm":  # a sum of weights: the memory is divided by it
        arrays["n_0"] = abs(arrays["n_0"]) + 0.5
    return cell, {k: a.astype(dtype) for k, a in arrays.items()}


def leaves(arrays) -> dict[str, Tensor]:
    return {k: Tensor(a, requires_grad=True, name=k) for k, a in arrays.items()}


def run(cell, tensors):
    """Unroll with these tensors as inputs, states and weights."""
    for name in cell.parameters():
        setattr(cell, name, tensors[name])
    return cell(tensors["x"], [tensors[s + "_0"] for s in cell.state.split()]).steps


def loss_of(steps, weigh):
    """All states of all steps, each weighed differently, so that no gradient cancels."""
    return sum(
        (q * weights_for(q, w)).sum() for step, w in zip(steps, weigh, strict=True) for q in step.state
    )


def weights_for(q, w):
    """For a quantity (N, …) from w (N, H): a number of its own for each of its own."""
    return w[:, : q.shape[1]] if len(q.shape) == 2 else w[:, :, None] * w[:, None, :]


def test_every_cell_is_written_in_pytorch_too():
    missing = [name for name in CELLS if name not in PYTORCH]
    assert not missing, f"cells without an oracle: {missing}; add their equations to PYTORCH in {__file__}"


@every_cell
def test_gradients_over_fifty_steps_match_finite_differences(name, rng):
    cell, arrays = make(name, rng)
    weigh = rng.standard_normal((T, N, H))
    for wanted in arrays:  # one after the other, so that a small gradient does not hide behind a large one

        def function(given, wanted=wanted):
            return loss_of(
                run(cell, {k: given if k == wanted else Tensor(a) for k, a in arrays.items()}), weigh
            )

        assert check_grads(function, [arrays[wanted]], order=1, tolerance=1e-5, complex_step=False) <= 1e-5, (
            wanted
        )


@every_cell
def test_gradients_of_gradients_match_finite_differences(name, rng):
    cell, arrays = make(name, rng)
    arrays["x"] = arrays["x"][:3]
    weigh = rng.standard_normal((3, N, H))

    def function(*given):
        return loss_of(run(cell, dict(zip(arrays, given, strict=True))), weigh)

    assert check_grads(function, arrays.values(), order=2) <= 1e-6


@pytest.mark.oracle
@every_cell
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
def test_quantities_and_gradients_equal_pytorchs_operation_by_operation(name, dtype, bound, rng):
    torch = oracle()
    cell, arrays = make(name, rng, dtype)
    ours, theirs = leaves(arrays), {k: torch.tensor(a, requires_grad=True) for k, a in arrays.items()}
    weigh = rng.standard_normal((T, N, H)).astype(dtype)

    steps = run(cell, ours)
    state = [theirs[s + "_0"] for s in cell.state.split()]
    their_loss = 0
    for step, x, w in zip(steps, theirs["x"], torch.tensor(weigh), strict=True):
        quantities = PYTORCH[name](torch, theirs, x, *state)
        state = [quantities[s] for s in cell.state.split()]
        their_loss = their_loss + sum((s * weights_for(s, w)).sum() for s in state)
        assert set(step) == set(quantities)
        for quantity in step:
            assert_close(step[quantity].value, quantities[quantity], bound, f"{quantity} at t={step.t}")
    loss_of(steps, weigh).backward()
    their_loss.backward()
    for k, x in ours.items():
        if k == "h_0" and name in UNREAD:
            assert x.grad is None and theirs[k].grad is None
            continue
        assert x.grad.dtype == dtype
        assert_close(x.grad, theirs[k].grad, bound, f"gradient of {k}")


def assert_close(ours, theirs, bound, what):
    """Relative to the largest number of the array: single elements may be sums that cancel."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert abs(ours - theirs).max() <= bound * max(1.0, abs(theirs).max()), what


@every_cell
def test_the_law_of_contributions_over_fifty_steps(name, rng, assert_law):
    cell, arrays = make(name, rng)
    loss = loss_of(run(cell, leaves(arrays)), rng.standard_normal((T, N, H)))
    loss.backward(record=True)
    assert_law(loss)


@pytest.mark.smoke
@every_cell
def test_float32_in_every_quantity_gradient_and_contribution(name, rng):
    cell, arrays = make(name, rng, "float32")
    tensors = leaves(arrays)
    steps = run(cell, tensors)
    loss = loss_of(steps, rng.standard_normal((T, N, H)).astype("float32"))
    loss.backward(record=True)
    for step in steps:
        for quantity in step:
            assert step[quantity].dtype == step[quantity].grad.dtype == "float32"
            assert all(part is None or part.dtype == "float32" for part in step[quantity].contributions)
    read = [x for k, x in tensors.items() if not (k == "h_0" and name in UNREAD)]
    assert loss.dtype == "float32" and all(x.grad.dtype == "float32" for x in read)


@pytest.mark.smoke
@every_cell
def test_a_cell_trains_and_the_same_seed_gives_the_same_numbers(name):
    def train(seed):
        rng = np.random.default_rng(seed)
        cell = CELLS[name](D, H, rng)
        x, target = (rng.standard_normal(shape).astype("float32") for shape in ((5, N, D), (N, cell.width)))
        optimiser, losses = optim.Adam(cell.parameters(), lr=0.02), []
        for _ in range(20):
            optimiser.zero_grad()
            miss = cell(x).steps[-1].h - np.tanh(target)
            loss = (miss * miss).mean()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses, [p.value for p in cell.parameters().values()]

    losses, weights = train(1)
    again, same_weights = train(1)
    assert losses[-1] < losses[0]
    assert losses == again and losses != train(2)[0]
    for a, b in zip(weights, same_weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.smoke
@every_cell
def test_the_class_says_what_its_step_returns(name, rng):
    cell, arrays = make(name, rng)
    (step, *_) = run(cell, leaves(arrays))
    assert set(cell.gates.split()) | set(cell.state.split()) <= set(step)
    assert step.state == tuple(step[s] for s in cell.state.split()) and cell.state.split()[0] == "h"
    assert (cell.inputs, cell.hidden, cell.size) == (D, H, sum(p.size for p in cell.parameters().values()))
    assert type(cell).__doc__ and getattr(cells, type(cell).__name__) is type(cell)


@pytest.mark.smoke
@every_cell
def test_first_weights_are_orthogonal_then_glorot_in_the_asked_type(name):
    for dtype in ("float32", "float64"):
        cell = CELLS[name](D, H, np.random.default_rng(0), dtype=dtype)
        for key, p in cell.parameters().items():
            assert p.dtype == dtype and p.requires_grad and p.name == key
            if key.startswith("W_") and p.shape == (cell.width + D, H):
                P, bound = cell.width, np.sqrt(6 / (D + H))
                np.testing.assert_allclose(p.value[:P] @ p.value[:P].T, np.eye(P), atol=1e-6)
                assert abs(p.value[P:]).max() <= bound


@pytest.mark.smoke
@every_cell
def test_the_class_says_how_many_parameters_it_has(name):
    cell = CELLS[name](5, 7, np.random.default_rng(0))
    (formula,) = re.findall("``([^`]*)`` parameters", type(cell).__doc__)
    assert eval(formula, {"H": 7, "D": 5, "P": cell.width}) == cell.size
    assert f"{cell.size:,} parameters" in repr(cell)


@pytest.mark.smoke
def test_the_rectified_layer_starts_at_the_identity():
    cell = cells.IRNN(D, H, np.random.default_rng(0))
    np.testing.assert_array_equal(cell.W_h.value[:H], np.eye(H))
    assert not cell.b_h.value.any()


@pytest.mark.smoke
def test_janet_starts_with_memories_up_to_its_longest_and_takes_its_own():
    biases = cells.JANET(1, 400, np.random.default_rng(0), T_max=300).b_f.value
    assert biases.min() >= 0 and np.log(280) < biases.max() <= np.log(300)
    np.testing.assert_allclose(np.exp(biases).mean(), 150.5, rtol=0.1)  # uniform, then the logarithm
    x = np.random.default_rng(1).standard_normal((1, 2, D)).astype("f4")
    one, two = (cells.JANET(D, H, np.random.default_rng(0), beta=beta) for beta in (1.0, 0.0))
    (step,), (other,) = one(x).steps, two(x).steps
    np.testing.assert_allclose(
        step.h.value, (1 - 1 / (1 + np.exp(1 - step.s.value))) * step.c_tilde.value, rtol=1e-6
    )
    np.testing.assert_allclose(other.h.value, (1 - other.f.value) * other.c_tilde.value, rtol=1e-5)
    with pytest.raises(InputError, match="JANET: T_max = 0"):
        cells.JANET(D, H, np.random.default_rng(0), T_max=0)


@pytest.mark.smoke
@pytest.mark.parametrize("make", [cells.LSTM, cells.JANET, cells.Bidirectional.of(cells.PeepholeLSTM)])
def test_biases_of_forget_gates_wherever_they_are(make):
    layer = make(3, 100, np.random.default_rng(0))
    cells.forget_bias(layer, 2.5)
    own = {k: p for k, p in layer.parameters().items() if k.endswith("b_f")}
    assert own and all((p.value == 2.5).all() for p in own.values())
    cells.chrono(layer, 40, np.random.default_rng(1))
    for name, p in own.items():
        assert p.value.min() >= 0 and np.log(34) < p.value.max() <= np.log(39)
        opposite = layer.parameters().get(name[:-1] + "i")
        assert opposite is None or (opposite.value == -p.value).all()


@pytest.mark.smoke
def test_no_forget_gate_and_no_memory_are_named():
    with pytest.raises(InputError, match=r"GRU has no forget gate's bias b_f; it has W_z, W_r, W"):
        cells.forget_bias(cells.GRU(D, H, np.random.default_rng(0)))
    for T_max in (1, -3, True, "ten", float("nan")):
        with pytest.raises(InputError, match="chrono: T_max"):
            cells.chrono(cells.LSTM(D, H, np.random.default_rng(0)), T_max, np.random.default_rng(0))


@pytest.mark.smoke
def test_the_lstm_starts_out_remembering():
    parameters = cells.LSTM(D, H, np.random.default_rng(0)).parameters()
    assert {k: set(parameters[k].value) for k in ("b_f", "b_i", "b_c", "b_o")} == {
        "b_f": {1},
        "b_i": {0},
        "b_c": {0},
        "b_o": {0},
    }
