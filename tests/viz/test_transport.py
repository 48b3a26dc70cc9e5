"""Transport: planted networks whose factor is known, and Jacobians by finite differences for every cell."""

from __future__ import annotations

import re

import numpy as np
import pytest
from drawn import network as small
from drawn import texts
from forward import MASK, carried_states, network

import cells
import viz
from minigrad import InputError, Tensor, ancestors, concat, cross_entropy, exp, maximum, sigmoid, stack, tanh
from viz.language.text import number
from viz.read.network import read

CARRIED = {
    0.5: "halves every 1 step.",
    1.0: "keeps its size.",
    1.5: "doubles every 1.7 steps.",
}


class Linear(cells.Cell):
    """h = a · h_prev + x · w, element by element: a step carries × a, exactly."""

    a = 0.5

    def build(self, rng):
        self.parameter("w", np.ones(self.hidden))

    def step(self, x, h_prev):
        return {"h": self.a * h_prev + x * self.w}


class Changing(Linear):
    """0.5 in the first five steps, 0.8 from then on."""

    count = 0

    def step(self, x, h_prev):
        self.count += 1
        self.a = 0.5 if self.count <= 5 else 0.8
        return super().step(x, h_prev)


class Two(Linear):
    """Two states that run side by side, of which one is carried by a and one by b; both are shown in y."""

    state = "h m"
    b = 0.25

    def step(self, x, h_prev, m_prev):
        return {"h": self.a * h_prev + x * self.w, "m": self.b * m_prev + x * self.w}


def planted(cell, at, T=6, truncate=None):
    """The loss: a random direction of all states, at the steps `at`, each time of length 1 for each state."""
    rng = np.random.default_rng(0)
    steps = cells.run(cell, rng.standard_normal((T, 2, 3)), truncate=truncate).steps
    loss = Tensor(0.0)
    for t in at:
        for h in steps[t - 1].state:
            along = rng.standard_normal(h.shape)
            loss = loss + (h * (along / np.linalg.norm(along))).sum()
    loss.named("L").backward(record=True)
    return loss


def made(kind=Linear, a=0.5):
    cell = kind(3, 3, np.random.default_rng(0), "float64")
    cell.a = a
    return cell


@pytest.mark.parametrize("a", CARRIED)
@pytest.mark.parametrize("at", [[1, 2, 3, 4, 5, 6], [6], [3, 6]], ids=["every step", "the last", "two"])
def test_a_planted_factor_is_told_wherever_losses_are(a, at):
    loss = planted(made(a=a), at)
    (one,) = viz.transport(loss)
    assert one.factors() == pytest.approx([a] * 6) and one.factors("h") == pytest.approx([a] * 6)
    assert [t for t, v in one.added.items() if v] == at
    assert [one.added[t] for t in at] == pytest.approx([1.0] * len(at))
    (stretch,) = one.stretches
    half = -np.log(2) / np.log(a) if a != 1 else np.inf
    assert (stretch.half_life, stretch.largest, stretch.typical) == pytest.approx((half, a, a))
    assert one.rows is not None and one.rows.losses == at
    expected = [[a ** (s - t) if t <= s else np.nan for t in one.rows.times] for s in at]
    np.testing.assert_allclose(one.rows.norms, expected, rtol=1e-12)
    added = {
        6: "Each step's own loss adds 1.",
        2: "The loss adds 1 at t = 3 and 1 at t = 6, nothing elsewhere.",
    }
    said = [
        f"A step carries × {number(a)} of the gradient back, at every step. What ",
        CARRIED[a],
        added.get(len(at), "The loss adds 1 at t = 6, nothing elsewhere."),
    ]
    assert all(words in repr(viz.transport(loss)) for words in said)
    for picture in (viz.gradient(loss), viz.draw(loss), viz.draw(loss, level="step")):
        words = " ".join(texts(picture.svg()))
        assert all(w in words for w in said) and "Cut" not in words
        assert {w for w in texts(picture.svg()) if w.startswith("×0") or w.startswith("×1")} == {
            f"×{number(a)}",
            next(w for w in texts(picture.svg()) if w.startswith("×0.5 on an arrow")),
        }


def test_nothing_is_said_over_a_cut():
    loss = planted(made(), range(1, 7), truncate=4)
    (one,) = viz.transport(loss)
    assert [(x.t, x.after, x.cut) for x in one.links if x.is_cut] == [(4, 5, ["h"])]
    assert [s.times for s in one.stretches] == [[0, 1, 2, 3, 4], [5, 6]]
    assert one.factors() == pytest.approx([0.5] * 5)
    assert one.rows is not None and np.isnan(one.rows.norms[4:, :5]).all()
    for picture in (viz.gradient(loss), viz.draw(loss), viz.draw(loss, level="step")):
        words = texts(picture.svg())
        said = " ".join(words)
        assert (
            "A step carries × 0.5 of the gradient back, at every step. What one loss sends back halves"
            in said
        )
        assert "✂ Cut between t = 5 and 4." in said
    assert words.count("✂ cut") == 1


def test_the_cut_is_where_it_is_though_nothing_lies_behind_it():
    """One loss: behind the cut no gradient is known, but no arrow there is a cut."""
    loss = planted(made(), [6], truncate=4)
    (one,) = viz.transport(loss)
    assert [x.t for x in one.links if x.cut] == [4]
    for picture in (viz.gradient(loss), viz.draw(loss, level="step")):
        words = texts(picture.svg())
        assert words.count("✂ cut") == 1


def test_a_cut_of_one_state_only():
    class HalfCut(Two):
        def step(self, x, h_prev, m_prev):
            return super().step(x, h_prev, m_prev.detach())

    loss = planted(made(HalfCut), range(1, 7))
    (one,) = viz.transport(loss)
    assert all(x.cut == ["m"] and not x.is_cut for x in one.links) and len(one.stretches) == 1
    assert "✂ m is cut between t = 1 and 0, t = 2 and 1, t = 3 and 2 and 3 more." in repr(viz.transport(loss))


def test_two_states_are_measured_by_one_gradient():
    """Both get a loss of length 1 at the last step: h keeps 0.5 of √2, m 0.25; their joint factor is not a sum."""
    loss = planted(made(Two), [6])
    (one,) = viz.transport(loss)
    last = one.links[-1]
    assert (last.t, last.after) == (5, 6)
    assert last.by_state == pytest.approx({"h": 0.5 / np.sqrt(2), "m": 0.25 / np.sqrt(2)})
    assert last.factor == pytest.approx(np.sqrt((0.5**2 + 0.25**2) / 2))
    assert last.by_way == pytest.approx({(s, "straight along"): v for s, v in last.by_state.items()})
    assert one.stretches[0].largest == pytest.approx(0.5)  # over all directions: that of h
    words = texts(viz.gradient(loss).svg())
    for s in "hm":
        found = sorted(one.factors(s))
        middle, low, high = number(float(np.median(found))), number(found[0]), number(found[-1])
        assert any(f"A step carries × {middle} of the gradient to {s} ({low} … {high})." in w for w in words)
        assert f"×{number(last.by_state[s])}" in words


def test_an_lstm_with_its_forget_gates_at_a_half():
    """The memory keeps a half of what is in it; h passes nothing, as no weight reads it."""
    rng = np.random.default_rng(0)
    cell = cells.LSTM(3, 4, rng, "float64")
    for gate in "fico":
        W = cell.parameters()[f"W_{gate}"]
        W.value = np.concatenate([np.zeros((4, 4)), W.value[4:] * (gate != "f")])
    cell.b_f.value = np.zeros(4)
    run = cells.run(cell, rng.standard_normal((6, 2, 3)))
    loss = (run.steps[-1].h ** 2).sum().named("L")
    loss.backward(record=True)
    (one,) = viz.transport(loss)
    assert one.stretches[0].half_life == pytest.approx(1)  # without the way from h into the memory
    assert one.factors()[:-1] == pytest.approx([0.5] * 5)
    assert one.factors("c")[:-1] == pytest.approx([0.5] * 5) and one.factors("h") == pytest.approx([0] * 6)
    last = run.steps[-1]
    arrives = 2 * last.h.value * last.o.value * (1 - np.tanh(last.c.value) ** 2) * 0.5
    assert one.factors()[-1] == pytest.approx(np.linalg.norm(arrives) / np.linalg.norm(2 * last.h.value))


def jacobian(function, at: np.ndarray, step=1e-6) -> np.ndarray:
    """Of a function of a vector, by central differences."""
    moved = [[function(at + sign * step * e) for e in np.eye(at.size)] for sign in (1, -1)]
    return (np.array(moved[0]) - np.array(moved[1])).T / (2 * step)


def shown_by_mlstm(step, C, n, m):
    read = (C @ step.q.reshape((*step.q.shape, 1))).reshape(step.q.shape)
    return step.o * read / maximum(abs((n * step.q).sum(axis=1, keepdims=True)), exp(-m))


SHOWN = {  # the output of a step by the states after it, where no step reads the last output
    "min_gru_log": lambda step, log_h: exp(log_h),
    "min_lstm_log": lambda step, log_h: exp(log_h),
    "mlstm": shown_by_mlstm,
    "sru": lambda step, c: step.r * c + (step.h - step.r * step.c),
}


def shown_past_the_memory(cell, step, c_prev):
    """The output of SRU, whose gate r looks at the memory before, by that alone."""
    skip = cell.alpha * (step.x @ cell.W_x)
    return cell.step(step.x, step.h, c_prev)["r"] * (step.c - skip) + skip


PAST = {"sru": shown_past_the_memory}  # the output of a step by the states before it, those after it given


@pytest.mark.parametrize("name", cells.CELLS)
def test_every_cell_against_jacobians_by_finite_differences(name):
    rng = np.random.default_rng(3)
    T, N, H, D = 4, 2, 3, 2
    cell = cells.CELLS[name](D, H, rng, "float64")
    head = cells.Output(cell.width, D, rng, "float64")
    for p in cell.parameters().values():
        p.value = p.value + 0.3 * rng.standard_normal(p.shape)
    x, targets = rng.standard_normal((T, N, D)), rng.integers(0, D, (T, N))
    run = cells.run(cell, x)
    loss = sum((cross_entropy(head(s.h), y) for s, y in zip(run.steps, targets, strict=True)), Tensor(0.0))
    loss.backward(record=True)
    (one,) = viz.transport(loss)
    names, start = carried_states(run), dict(zip(cell.state.split(), cell.initial_state(N), strict=True))
    first = [start[s].value for s in names]
    ends = np.cumsum([s.size for s in first])

    def apart(v):
        parts = np.split(v, ends[:-1])
        return [Tensor(a.reshape(s.shape)) for a, s in zip(parts, first, strict=True)]

    states = [np.concatenate([s.ravel() for s in first])]
    states += [np.concatenate([s[q].value.ravel() for q in names]) for s in run.steps]
    J, own, past = {}, {0: np.zeros(ends[-1])}, {}
    for t in range(1, T + 1):

        def forward(v, t=t):
            made = cell.step(Tensor(x[t - 1]), *{**start, **dict(zip(names, apart(v), strict=True))}.values())
            return np.concatenate([made[q].value.ravel() for q in names])

        def loss_of(v, t=t):
            h = SHOWN[name](run.steps[t - 1], *apart(v)) if name in SHOWN else apart(v)[names.index("h")]
            return cross_entropy(head(h), targets[t - 1]).value.reshape(1)

        def past_loss_of(v, t=t):
            h = PAST[name](cell, run.steps[t - 1], *apart(v))
            return cross_entropy(head(h), targets[t - 1]).value.reshape(1)

        J[t], own[t] = jacobian(forward, states[t - 1]), jacobian(loss_of, states[t])[0]
        past[t] = jacobian(past_loss_of, states[t - 1])[0] if name in PAST else np.zeros(ends[-1])
    g = own[T]
    for link in reversed(one.links):
        arrived = J[link.after].T @ g
        whole = np.linalg.norm(g)
        assert link.factor == pytest.approx(np.linalg.norm(arrived) / whole, rel=1e-6)
        for k, q in enumerate(names):
            part = np.linalg.norm(np.split(arrived, ends[:-1])[k]) / whole
            assert link.by_state[q] == pytest.approx(part, rel=1e-6, abs=1e-9)  # 0 of a stabiliser
        g = arrived + own[link.t] + past[link.after]
        assert one.size[link.t] == pytest.approx(np.linalg.norm(g), rel=1e-6)
        assert one.added[link.t] == pytest.approx(np.linalg.norm(own[link.t] + past[link.after]), rel=1e-6)
    assert one.rows is not None
    for r, s in enumerate(one.rows.losses):
        v = own[s]
        for t in range(s, -1, -1):
            assert one.rows.norms[r, one.rows.times.index(t)] == pytest.approx(np.linalg.norm(v), rel=1e-6)
            v = J[t].T @ v + (past[t] if t == s else 0) if t else v
    there = {n.number for n in ancestors(loss)}  # a last state that no loss reads is not in the graph
    seen = np.repeat([run.steps[-1][s].number in there for s in names], [s.size for s in first])
    product = np.linalg.multi_dot([*(J[t].T for t in range(1, T)), J[T].T[:, seen]])
    stretch = np.linalg.svd(product, compute_uv=False)
    found = one.stretches[0]
    assert found.largest == pytest.approx(stretch[0] ** (1 / T), rel=1e-6)
    assert found.typical == pytest.approx(np.sqrt(np.mean(stretch**2)) ** (1 / T), rel=1e-6)


@pytest.mark.dot
def test_what_only_the_output_reads_of_the_states_before_is_no_way_that_a_step_carries():
    """SRU's gate r: what comes back through it is of the loss, so no share of the later states stands on its arrow."""
    loss, _ = network(cells.SRU)
    (one,) = viz.transport(loss)
    assert {name for _, name in one.aside} == {"r"}
    for link in one.links:
        assert {way for _, way in link.by_way} == {"straight along", "through f"}
        assert link.factor == pytest.approx(link.by_state["c"])
    labels = [word for word in texts(viz.draw(loss).svg()) if re.fullmatch(r"×[0-9.e⁻−]+", word)]
    shares = [share for link in one.links for share in link.by_way.values()]
    assert sorted(labels) == sorted(f"×{number(share)}" for share in shares) and len(shares) == 2 * len(
        one.links
    )


def test_a_half_life_is_fitted_to_each_stretch_apart():
    """0.5 before the cut and 0.8 behind it: two half-lives, and losses of very different size do not bend them."""
    rng, loss = np.random.default_rng(0), Tensor(0.0)
    steps = cells.run(Changing(3, 3, rng, "float64"), rng.standard_normal((10, 1, 3)), truncate=5).steps
    for t, s in enumerate(steps, 1):
        loss = loss + 100.0**t * s.h.sum()
    loss.backward(record=True)
    (one,) = viz.transport(loss)
    lives = [s.half_life for s in one.stretches]
    assert lives == pytest.approx([1.0, np.log(2) / -np.log(0.8)])
    assert "What one loss sends back halves every 1 … 3.1 steps." in repr(viz.transport(loss))
    words = " ".join(texts(viz.bptt(loss).svg()))
    assert "What one loss sends back halves every 1 … 3.1 steps." in words


@pytest.mark.parametrize(
    "case", [dict(mask=MASK), dict(truncate=2), dict(reverse=True), dict(last=True), dict(T=1)]
)
def test_rows_are_those_of_the_matrix(case):
    """Of a cell with one state both follow the same vectors."""
    loss, _ = network(cells.GRU, **case)
    (one,) = viz.transport(loss)
    matrix = viz.bptt(loss).data
    assert one.rows is not None
    for r, s in enumerate(one.rows.losses):
        row = dict(zip(matrix["t"], matrix["h"][list(matrix["s"]).index(s)], strict=True))
        np.testing.assert_allclose(one.rows.norms[r], [row[t] for t in one.rows.times], rtol=1e-12)


def test_layers_are_measured_apart_and_it_is_said_what_other_layers_add():
    from forward import EVERY

    loss, _ = network(**EVERY["stacked"])
    below, above = viz.transport(loss)
    assert (below.band, above.band) == ("layer 1", "layer 2") and below.others and not above.others
    said = repr(viz.transport(loss)).splitlines()
    assert "by way of other layers too. Each step's own loss and other layers add " in said[0]
    for one in (below, above):
        for link in one.links:
            arrived = link.factor * one.size[link.after]  # with what is added it makes the next gradient
            low, high = abs(arrived - one.added[link.t]), arrived + one.added[link.t]
            assert low * (1 - 1e-9) <= one.size[link.t] <= high * (1 + 1e-9)


def test_of_steps_alone_what_a_loss_outside_adds_is_known_but_not_followed():
    loss, steps = small()
    (alone,), (one,) = viz.transport(steps), viz.transport(loss)
    assert alone.factors() == pytest.approx(one.factors()) and alone.added == pytest.approx(one.added)
    assert alone.stretches[0].half_life is None and "sends back" not in repr(viz.transport(steps))


def test_a_single_loss_is_followed_through_the_layer_below():
    loss, _ = network(build=lambda *given: cells.Stack(cells.GRU, *given[:2], 2, *given[2:]), last=True)
    for one in viz.transport(loss):
        assert one.rows is not None and one.rows.losses == [5]
        matrix = viz.bptt(loss).data
        expected = matrix[f"{one.band} / h"][0, list(map(list(matrix["t"]).index, one.rows.times))]
        np.testing.assert_allclose(one.rows.norms[0], expected, rtol=1e-12)
    assert "What the loss of t = 5 sends back" in repr(viz.transport(loss))


def test_what_has_no_gradient_is_refused_or_left_unsaid():
    loss, _ = small(backward=False)
    with pytest.raises(InputError, match="backward"):
        viz.transport(loss)
    assert "carries" not in " ".join(texts(viz.draw(loss).svg()))
    assert not read(loss).computed


def test_a_gradient_that_is_not_a_number_is_no_factor():
    loss, _ = small()
    broken = (loss * np.nan).named("L")
    broken.backward(record=True)
    assert "not a number" in repr(viz.transport(broken))


class _Shown(cells.Cell):
    """Its output is never read by the next step; `named`: so is what it is made of, a quantity of its own."""

    state, gates, named = "h c", "f", False

    def build(self, rng):
        self.gate_parameters("f", rng, 1.0)
        self.gate_parameters("c", rng)

    def step(self, x, h_prev, c_prev):
        cx = concat(c_prev, x)
        f, c_tilde = sigmoid(cx @ self.W_f + self.b_f), tanh(cx @ self.W_c + self.b_c)
        c = f * c_prev + (1 - f) * c_tilde
        read = tanh(c)
        return dict(f=f, c_tilde=c_tilde, c=c, **({"read": read} if self.named else {}), h=read * 2)


def _numbers(made) -> list:
    return [[link.factor for link in made.links], list(made.added.values())]


def test_loss_that_comes_through_a_named_quantity_is_the_steps_own_loss():
    def measured(named):
        cell = _Shown(3, 4, np.random.default_rng(0), "float64")
        cell.named = named
        steps = cell(np.random.default_rng(1).standard_normal((5, 2, 3))).steps
        loss = stack([(s.h**2).sum() for s in steps]).sum()
        loss.backward(record=True)
        (made,) = viz.transport(loss)
        return _numbers(made)

    plain, named = measured(False), measured(True)
    for a, b in zip(plain, named, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert min(plain[1][1:]) > 0.1, "each step has a loss of its own"


def test_a_loss_on_a_gate_does_not_count_as_what_a_step_carries_back():
    """The states of the last step get the same with it and without it, so the step carries the same part back."""

    def last(weight):
        cell = cells.LSTM(3, 4, np.random.default_rng(0), "float64")
        steps = cell(np.random.default_rng(1).standard_normal((5, 2, 3))).steps
        loss = (steps[-1].h ** 2).sum()
        for s in steps:
            loss = loss + weight * (s.f**2).sum()
        loss.backward(record=True)
        (made,) = viz.transport(loss)
        (link,) = [link for link in made.links if link.after == 5]
        return [link.factor, *link.by_state.values()], made.added[4]

    (alone, nothing), (with_it, some) = last(0.0), last(3.0)
    np.testing.assert_allclose(with_it, alone, rtol=1e-12)
    assert nothing == 0 < some
