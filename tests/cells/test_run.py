"""One way to run anything, and what a step may carry and be given: states of any shape, a first state that is
learned, inputs beside x.  Against each sequence alone, windows, single steps and finite differences; compiled is
eager; what is written wrongly is named.
"""

from __future__ import annotations

import functools
import re
import warnings

import numpy as np
import pytest

import cells
import minigrad as mg
from cells import (
    GRU,
    LSTM,
    TCN,
    AttentionDecoder,
    Bidirectional,
    Cell,
    FirstState,
    Output,
    ProjectedLSTM,
    Run,
    Stack,
    Transformer,
    ZoneoutLSTM,
    run,
)
from cells.layer import Dense, Layer
from minigrad import DTypeError, InputError, ShapeError, Tensor, check_grads, concat, sigmoid, tanh, where

T, N, D, H, K = 6, 3, 4, 5, 4
R = functools.partial(np.random.default_rng, 0)
LENGTHS = np.array([2, 6, 4])


class MatrixMemory(Cell):
    """A memory M (N, H, H) that is written by an outer product and read by a query; and how often, n (N, 1, 1)."""

    gates = "f"
    state = "h M n"

    def build(self, rng):
        self.gate_parameters("f", rng)
        for name in "kvq":
            self.weights(f"W_{name}", rng)

    def initial_state(self, sequences):
        return (
            mg.zeros((sequences, self.hidden), self.dtype.name),
            mg.zeros((sequences, self.hidden, self.hidden), self.dtype.name),
            mg.zeros((sequences, 1, 1), self.dtype.name),
        )

    def step(self, x, h_prev, M_prev, n_prev):
        hx = concat(h_prev, x)
        f = sigmoid(hx @ self.W_f + self.b_f)
        k, v, q = (hx @ W for W in (self.W_k, self.W_v, self.W_q))
        N, H = f.shape
        M = f.reshape((N, H, 1)) * M_prev + tanh(v).reshape((N, H, 1)) * k.reshape((N, 1, H))
        n = 0.5 * n_prev + sigmoid(k).sum(axis=1).reshape((N, 1, 1))
        h = tanh((M @ q.reshape((N, H, 1))).reshape((N, H)) + n.reshape((N, 1)))
        return dict(f=f, M=M, n=n, h=h)


class Timed(Cell):
    """A cell that forgets by the time since the step before, and keeps what it is told to."""

    state = "h"

    def build(self, rng):
        self.gate_parameters("h", rng)

    def step(self, x, h_prev, keep, *, t=1.0):
        new = tanh(concat(h_prev * mg.exp(-0.1 * t), x) @ self.W_h + self.b_h)
        return dict(h=where(keep, h_prev, new))


class Learned(GRU):
    """A GRU whose first state is learned."""

    def build(self, rng):
        super().build(rng)
        self.parameter("h_0", rng.standard_normal((1, self.hidden)))

    def initial_state(self, sequences):
        return self.h_0


class Own:
    """What has a step and is no layer of ours."""

    inputs, hidden, state, dtype = D, H, "h", np.dtype("float64")

    def __init__(self, rng):
        self.W = Tensor(rng.standard_normal((D + H, H)), requires_grad=True, name="W")

    def parameters(self):
        return {"W": self.W}

    def step(self, x, h_prev):
        return dict(h=tanh(concat(h_prev, x) @ self.W))


class Inside(Layer):
    """A layer of the caller's own, which hands all options on to a layer in it."""

    width = H

    def __init__(self, rng):
        super().__init__("float64")
        self.embed, self.rnn = Dense(D, 3, rng, dtype="float64"), LSTM(3, H, rng, "float64")

    def initial_state(self, sequences):
        return self.rnn.initial_state(sequences)

    def __call__(self, xs, **options):
        return self.rnn(self.embed(xs), **options)


class Plain(Layer):
    """A layer of the caller's own that gives outputs alone."""

    width = H

    def __init__(self, rng):
        super().__init__("float64")
        self.dense = Dense(D, H, rng, dtype="float64")

    def __call__(self, xs):
        return tanh(self.dense(xs))


def decoder(rng):
    made = AttentionDecoder(LSTM, D, H, 2, rng, dtype="float64")
    return made.over(rng.standard_normal((3, 1, 2)))


def of(kind, **options):
    return lambda rng: kind(D, H, rng, "float64", **options)


RECURRENT = {
    "cell": of(LSTM),
    "projected": of(ProjectedLSTM, projection=2),
    "matrix memory": of(MatrixMemory),
    "learned first state": of(Learned),
    "stack": lambda rng: Stack(ProjectedLSTM, D, H, 2, rng, "float64"),
    "stack of matrix memories": lambda rng: Stack(MatrixMemory, D, H, 2, rng, "float64"),
    "both directions": lambda rng: Bidirectional(MatrixMemory, D, H, rng, "float64"),
    "decoder": decoder,
    "decoder of projections": lambda rng: AttentionDecoder(ProjectedLSTM, D, H, 2, rng, dtype="float64").over(
        rng.standard_normal((3, 1, 2))
    ),
    "own step": Own,
    "own layer": Inside,
}
STATELESS = {
    "tcn": lambda rng: TCN(D, H, 2, 2, rng, "float64"),
    "transformer": lambda rng: Transformer(D, 6, 2, 1, rng, dtype="float64"),
    "looks both ways": lambda rng: Transformer(D, 6, 2, 1, rng, causal=False, dtype="float64"),
    "own outputs": Plain,
    "function": lambda rng: lambda xs: tanh(xs * 2.0),
}
LAYERS = RECURRENT | STATELESS
every_layer = pytest.mark.parametrize("name", list(LAYERS))
every_recurrent = pytest.mark.parametrize("name", list(RECURRENT))
every_causal = pytest.mark.parametrize(
    "name", [n for n in LAYERS if n not in ("both directions", "looks both ways")]
)


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, N, D))


def first_states(layer, rng, sequences=N):
    """Drawn, of the shapes that the layer asks for."""
    if isinstance(layer, Own):
        return (rng.standard_normal((sequences, H)),)
    found = layer.initial_state(sequences)
    found = found if isinstance(found, tuple) else (found,)
    return tuple(rng.standard_normal((sequences, *s.shape[1:])) for s in found)


def learned(layer):
    return list(layer.parameters().values()) if hasattr(layer, "parameters") else []


def same(ours, theirs, **options):
    np.testing.assert_allclose(
        ours.value, getattr(theirs, "value", theirs), **{"atol": 1e-12, "rtol": 1e-10} | options
    )


# One way.


@every_layer
def test_every_layer_gives_a_run(name, x, rng):
    layer = LAYERS[name](rng)
    r = run(layer, x)
    assert (
        isinstance(r, Run) and r.outputs.shape[:2] == (T, N) and r.last.shape == r.outputs.shape[1:]
        if name != "both directions"
        else True
    )
    if isinstance(layer, Layer) and name != "own outputs":
        same(layer(x).outputs, r.outputs, atol=0, rtol=0)
    if name in STATELESS:
        assert r.state == () and r.steps == [] and r.each == []
        same(r.last, r.outputs.value[-1], atol=0)
    else:
        assert r.state and len(r.steps) in (T, 2 * T)
    output = Output(r.outputs.shape[-1], K, rng, "float64")
    y = run(layer, x, output=output, label="here").y
    same(y, output(r.outputs))
    assert any(n.scope[:1] == ("here",) or "here" in n.scope[0] for n in mg.ancestors(y) if n.scope)


@every_layer
def test_lengths_are_each_sequence_alone_and_padding_is_never_read(name, x, rng):
    layer = LAYERS[name](rng)
    real = (np.arange(T)[:, None] < LENGTHS)[..., None]
    found = []
    # A layer of one's own that takes all options reads padding itself: 0 · NaN is NaN.
    for padding in (7.0, 1e3 if name == "own layer" else np.nan):
        given = Tensor(np.where(real, x, padding), requires_grad=True)
        how = dict(lengths=LENGTHS) if name == "function" else dict(mask=real[..., 0])
        r = run(layer, given, **how)
        gradients = mg.grad((r.outputs**2).sum() + (r.last**3).sum(), [given, *learned(layer)])
        found.append([r.outputs.value, r.last.value, *(g.value for g in gradients)])
        if name in STATELESS:
            assert not np.where(real, 0, r.outputs.value).any(), "outputs of padding"
    for ours, theirs in zip(*found, strict=True):
        assert np.isfinite(theirs).all()
        np.testing.assert_array_equal(ours, theirs)
    for n, length in enumerate(LENGTHS):
        alone = run(layer, x[:length, n : n + 1])
        np.testing.assert_allclose(found[0][0][:length, n : n + 1], alone.outputs.value, atol=1e-12)
        np.testing.assert_allclose(found[0][1][n : n + 1], alone.last.value, atol=1e-12)


def test_the_last_step_of_a_mask_with_gaps_is_the_last_real_one(x, rng):
    layer = Plain(rng)
    mask = np.array([[1, 0, 1, 0, 0, 0], [1] * 6, [0, 1, 0, 1, 1, 0]], bool).T
    r = run(layer, x, mask=mask)
    same(r.last, np.stack([layer(x).value[t, n] for n, t in enumerate((2, 5, 4))]))
    compiled = mg.compile(lambda x, mask: run(layer, x, mask=mask).last)
    same(compiled(x, mask), r.last)
    with pytest.raises(InputError, match="Plain: sequence 1 has length 0 and so no last step"):
        run(layer, x, mask=mask & [True, False, True]).last  # noqa: B018


@every_causal
def test_every_configuration_takes_every_layer(name, x, rng):
    layer = LAYERS[name](rng)
    whole = run(layer, x)
    output = Output(whole.outputs.shape[-1], K, rng, "float64")
    output.W_y.value = rng.standard_normal(output.W_y.shape)
    expected = output(whole.outputs).value
    same(cells.many_to_many(layer, output, x, delay=2), expected[2:])
    same(cells.many_to_one(layer, output, x), expected[-1])
    same(cells.one_to_many(layer, output, x[0], x[1:]), expected)
    written, seen = cells.generate(layer, output, x[:2], 3), x[:2]
    for chosen in written:
        logits = output(run(layer, seen).outputs).value[-1]
        np.testing.assert_array_equal(chosen, logits.argmax(-1))
        seen = np.concatenate([seen, np.eye(D)[chosen][None]])


@pytest.mark.parametrize("name", ["both directions", "looks both ways"])
def test_what_sees_later_steps_answers_but_does_not_write(name, x, rng):
    layer = LAYERS[name](rng)
    output = Output(run(layer, x).outputs.shape[-1], K, rng, "float64")
    assert cells.many_to_many(layer, output, x).shape == (T, N, K)
    assert cells.many_to_one(layer, output, x, lengths=LENGTHS).shape == (N, K)
    for call in (
        lambda: cells.one_to_many(layer, output, x[0], x[1:]),
        lambda: cells.generate(layer, output, x, 2),
    ):
        with pytest.raises(InputError, match="sees what comes after a step"):
            call()


def test_a_layer_with_one_inside_that_sees_later_steps_sees_them_too(x, rng):
    class Tagger(Plain):
        def __init__(self, rng):
            super().__init__(rng)
            self.parts = [Bidirectional(GRU, D, 2, rng, "float64")]

    with pytest.raises(InputError, match="Tagger sees what comes after a step"):
        cells.generate(Tagger(rng), lambda h: h, x, 2)


# States of any shape.


@every_recurrent
def test_a_state_that_is_carried_on_continues_the_run(name, x, rng):
    layer = RECURRENT[name](rng)
    states = first_states(layer, rng)
    whole = run(layer, x, states)
    if name == "both directions":  # the way back comes from the other end
        same(
            run(layer, x, whole.state).outputs,
            run(layer, x, dict(zip(layer.state.split(), whole.state, strict=True))).outputs,
        )
        return
    first = run(layer, x[:4], states)
    second = run(layer, x[4:], first.state)
    for ours, theirs in zip((second.outputs, *second.state), (whole.outputs[4:], *whole.state), strict=True):
        same(ours, theirs)
    assert [s.shape for s in whole.state] == [s.shape for s in states]


@every_recurrent
def test_given_states_masks_cuts_and_their_gradients_compile(name, x, rng):
    """Values, gradients of x, of the given states and of all parameters; any T and N is one program."""
    layer = RECURRENT[name](rng)

    def loss(x, lengths, *states):
        r = run(layer, x, states, lengths=lengths, truncate=2)
        return (r.outputs**2).mean() + sum((s**3).mean() for s in r.state)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as: runs eagerly
        compiled = mg.compile(loss)
        for length, sequences in ((T, N), (4, 2)):
            arguments = [Tensor(rng.standard_normal((length, sequences, D)), requires_grad=True)]
            arguments += [Tensor(s, requires_grad=True) for s in first_states(layer, rng, sequences)]
            lengths = rng.integers(0, length + 1, sequences)
            value, found = compiled.value_and_grad(arguments[0], lengths, *arguments[1:])
            eager = loss(arguments[0], lengths, *arguments[1:])
            leaves = [*arguments, *(p for p in learned(layer) if p.name != "h_0")]
            same(value, eager)
            for p, g in zip(leaves, mg.grad(eager, leaves), strict=True):
                np.testing.assert_allclose(found[p], g.value, rtol=1e-9, atol=1e-12)
    assert sum(map(len, compiled.variants.values())) == 1


@pytest.mark.parametrize(
    "name", ["projected", "matrix memory", "learned first state", "stack of matrix memories"]
)
def test_gradients_through_states_match_finite_differences(name, x, rng):
    layer = RECURRENT[name](rng)
    states = first_states(layer, rng)

    def function(x, *states):
        r = run(layer, x, states, lengths=LENGTHS)
        return (r.outputs**2).sum() + sum((s**2).sum() for s in r.state)

    assert check_grads(function, [x, *states], order=1, tolerance=1e-5, complex_step=False) <= 1e-5


@every_recurrent
def test_a_first_state_made_of_one_input_has_the_states_shapes(name, x, rng):
    layer = RECURRENT[name](rng)
    if name in ("own step", "both directions"):
        return
    first = FirstState(layer, 2, rng) if name != "own layer" else FirstState(layer.rnn, 2, rng)
    states = first(np.eye(2)[[0, 1, 0]])
    assert [s.shape for s in states] == [s.shape for s in first_states(layer, rng)]
    given = run(layer, x, states)
    same(given.outputs, run(layer, x, [s.value for s in states]).outputs)
    output = Output(given.outputs.shape[-1], K, rng, "float64")
    loss = cells.one_to_many(layer, output, None, x[1:], state=states).sum()
    assert all(np.abs(g.value).max() > 0 for g in mg.grad(loss, list(first.parameters().values())))
    assert cells.generate(layer, output, x[0], 3, state=states).shape == (3, N)


@pytest.mark.parametrize("given", [False, True])
def test_a_first_state_of_one_row_serves_all_sequences_and_learns(given, x, rng):
    layer = Learned(D, H, rng, "float64")
    plain = GRU(D, H, rng, "float64")
    plain.load_state_dict({n: p.value for n, p in layer.parameters().items() if n != "h_0"})

    def loss(x):
        r = run(plain, x, layer.h_0) if given else layer(x)
        return (r.h**2).sum()

    rows = Tensor(np.repeat(layer.h_0.value, N, axis=0), requires_grad=True)
    by_hand = (plain(x, rows).h ** 2).sum()
    (expected,) = mg.grad(by_hand, [rows])
    eager = loss(x)
    same(eager, by_hand)
    (found,) = mg.grad(eager, [layer.h_0])
    same(found, expected.value.sum(axis=0, keepdims=True))
    compiled = mg.compile(loss)
    value, gradients = compiled.value_and_grad(x)
    same(value, eager)
    np.testing.assert_allclose(gradients[layer.h_0], found.value, rtol=1e-10)
    for sequences in (1, 2):  # and for another number of them
        same(compiled(x[:, :sequences]), loss(x[:, :sequences]))
    loss(x).backward()
    mg.optim.SGD(layer.parameters() if not given else {"h_0": layer.h_0}, 0.1).step()
    assert loss(x).item() < eager.item()


def test_dropout_within_a_projected_lstm_leaves_the_projection_alone(x, rng):
    cell = ProjectedLSTM(
        2, H, rng, "float64", projection=3
    )  # W_p has as many rows as [h_prev, x] has numbers
    masks = np.array([0.0, 2.0, 1.0])
    thin = cells.dropped(cell, masks)
    assert cells.recurrent_masks(cell, 0.5, rng).shape == (3,)
    h, c = rng.standard_normal((N, 3)), rng.standard_normal((N, H))
    found = thin.step(Tensor(x[0, :, :2]), Tensor(h), Tensor(c))
    expected = cell.step(Tensor(x[0, :, :2]), Tensor(h * masks), Tensor(c))
    for name in ("c", "h"):
        same(found[name], expected[name])


def test_a_first_state_of_one_row_may_be_an_argument(x, rng):
    cell = GRU(D, H, rng, "float64")
    compiled = mg.compile(lambda x, h: (cell(x, h).h ** 2).sum())
    for rows in (1, N):
        h = Tensor(rng.standard_normal((rows, H)), requires_grad=True)
        value, found = compiled.value_and_grad(x, h)
        eager = (cell(x, h).h ** 2).sum()
        same(value, eager)
        np.testing.assert_allclose(found[h], mg.grad(eager, [h])[0].value, rtol=1e-10)
    same(compiled(x[:, :1], rng.standard_normal((1, H)) * 0), (cell(x[:, :1]).h ** 2).sum())


def test_equations_of_states_of_any_shape_are_printed(rng):
    viz = pytest.importorskip("viz")
    text = str(viz.equations(MatrixMemory(D, H, rng)))
    assert "M_t" in text and "M_{t−1}" in text and "dM_{t−1}" in text
    assert "h_t " in str(viz.equations(ProjectedLSTM(D, H, rng))) and "W_p" in str(
        viz.equations(ProjectedLSTM(D, H, rng))
    )


SHAPES = {
    "a matrix": (
        lambda c, x: c(x, (np.zeros((N, H)), np.zeros((N, H)), np.zeros((N, 1, 1)))),
        ShapeError,
        r"MatrixMemory: state M is 'M' in t=0 \(3, 5\) float64; give \(3, 5, 5\), or \(1, 5, 5\) for all",
    ),
    "sequences": (
        lambda c, x: c(x, {"n": np.zeros((2, 1, 1)), "M": np.zeros((N, H, H)), "h": np.zeros((N, H))}),
        ShapeError,
        r"state n .*\(2, 1, 1\).*give \(3, 1, 1\)",
    ),
    "type": (
        lambda c, x: c(x, (np.zeros((N, H)), np.zeros((N, H, H), "f4"), np.zeros((N, 1, 1)))),
        DTypeError,
        r"state 'M' .* float32, the cell's is float64; .*astype",
    ),
    "count": (
        lambda c, x: c(x, np.zeros((N, H))),
        ShapeError,
        "MatrixMemory: 1 states given, it has 3: h M n",
    ),
    "of none": (
        lambda c, x: FirstState(TCN(D, H, 1, 2, R()), 2, R()),
        InputError,
        "FirstState: TCN has no states; give a recurrent layer",
    ),
}


@pytest.mark.parametrize("how", ["eager", "compiled"])
@pytest.mark.parametrize(("call", "kind", "words"), SHAPES.values(), ids=SHAPES)
def test_states_that_do_not_fit_are_named_with_what_would(call, kind, words, how, x, rng):
    cell = MatrixMemory(D, H, rng, "float64")
    with pytest.raises(kind, match=words if how == "eager" else words.replace(" in t=0", ".*")):
        mg.compile(lambda x: call(cell, x).h.sum())(x) if how == "compiled" else call(cell, x)


# Inputs beside x.


def timed(rng, x):
    cell = Timed(D, H, rng, "float64")
    return cell, dict(keep=rng.random((len(x), N, H)) < 0.4, t=rng.random((len(x), N, 1)))


def test_a_step_is_given_its_row_by_name(x, rng):
    cell, beside = timed(rng, x)
    r = cell(x, **beside)
    h = Tensor(np.zeros((N, H)))
    for t, step in enumerate(r.steps):
        h = cell.step(Tensor(x[t]), h, Tensor(beside["keep"][t]), t=Tensor(beside["t"][t]))["h"]
        same(step.h, h, atol=0)
        assert step["keep"].name == "keep" and step.inputs["t"].scope[-1] == f"t={t + 1}"
    np.testing.assert_array_equal(r["keep"].value, beside["keep"])
    same(run(cell, list(x), keep=list(map(Tensor, beside["keep"])), t=Tensor(beside["t"])).h, r.h)
    without = cell(x, keep=beside["keep"])  # t has a default
    same(without.h, cell(x, keep=beside["keep"], t=np.ones(T)).h)
    same(
        cell(x, keep=beside["keep"][:, :1], t=np.ones((T, 1, 1))).h,
        cell(x, keep=np.repeat(beside["keep"][:, :1], N, axis=1)).h,
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_inputs_beside_x_have_gradients_and_compile(reverse, x, rng):
    cell, beside = timed(rng, x)

    def loss(x, keep, t, lengths):
        return (cell(x, keep=keep, t=t, lengths=lengths, truncate=4, reverse=reverse).h ** 2).sum()

    t = Tensor(beside["t"], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = mg.compile(loss)
        value, found = compiled.value_and_grad(x, beside["keep"], t, LENGTHS)
    eager = loss(x, beside["keep"], t, LENGTHS)
    same(value, eager)
    for p, g in zip([t, cell.W_h], mg.grad(eager, [t, cell.W_h]), strict=True):
        np.testing.assert_allclose(found[p], g.value, rtol=1e-9, atol=1e-13)
    assert (
        check_grads(
            lambda t: cell(x, keep=beside["keep"], t=t, reverse=reverse).h.sum(),
            [beside["t"]],
            order=1,
            complex_step=False,
        )
        <= 1e-6
    )
    # What is traced beside an x that is known, and the other way round.
    same(mg.compile(lambda t: cell(x, keep=beside["keep"], t=t).h)(beside["t"]), cell(x, **beside).h)
    same(mg.compile(lambda x: cell(x, **beside).h)(x), cell(x, **beside).h)


def test_padding_beside_x_is_never_read(x, rng):
    cell, beside = timed(rng, x)
    real = (np.arange(T)[:, None] < LENGTHS)[..., None]
    found = []
    for padding in (0.3, np.nan):
        r = cell(x, keep=beside["keep"], t=np.where(real, beside["t"], padding), lengths=LENGTHS)
        found.append([r.h.value, *(g.value for g in mg.grad((r.h**2).sum(), learned(cell)))])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["stack", "mixed stack", "both directions", "decoder", "configuration"])
def test_inputs_beside_x_reach_the_cells_in_other_layers(kind, x, rng):
    _, beside = timed(rng, x)
    if kind == "stack":
        layer = Stack(Timed, D, H, 2, rng, "float64")
        expected = layer.cells[1](layer.cells[0](x, **beside).h, **beside).h
        found = layer(x, **beside).h
    elif kind == "mixed stack":  # only those cells are given an input that take it
        kinds = iter((GRU, Timed))
        layer = Stack(lambda *sizes: next(kinds)(*sizes), D, H, 2, rng, "float64")
        expected = layer.cells[1](layer.cells[0](x).h, **beside).h
        found = layer(x, **beside).h
    elif kind == "both directions":
        layer = Bidirectional(Timed, D, H, rng, "float64")
        expected = concat(layer.forward(x, **beside).h, layer.backward(x, reverse=True, **beside).h)
        found = layer(x, **beside).h
    elif kind == "decoder":
        layer = AttentionDecoder(Timed, D, H, 2, rng, dtype="float64").over(rng.standard_normal((3, 1, 2)))
        with pytest.raises(InputError, match="AttentionDecoder: its step takes keep beside x"):
            layer(x)
        r = layer(x, **beside)
        found, expected = (
            r.h,
            layer.cell(concat(Tensor(x), mg.stack([s.context for s in r.steps])), **beside).h,
        )
    else:
        layer, output = Timed(D, H, rng, "float64"), Output(H, K, rng, "float64")
        found = cells.many_to_one(layer, output, x, **beside)
        expected = output(layer(x, **beside).last)
    same(found, expected)


def test_zoneout_keeps_what_the_masks_say_and_else_the_mean(x, rng):
    cell = ZoneoutLSTM(D, H, rng, "float64", rate_h=0.3, rate_c=0.6)
    masks = cell.masks(2000, 2, rng)
    assert abs(masks["keep_h"].mean() - 0.3) < 0.02 and abs(masks["keep_c"].mean() - 0.6) < 0.02
    masks = cell.masks(T, N, rng)
    h, c = np.zeros((N, H)), np.zeros((N, H))
    for t, step in enumerate(cell(x, **masks).steps):
        new = LSTM.step(cell, Tensor(x[t]), Tensor(h), Tensor(c))
        h = np.where(masks["keep_h"][t], h, new["h"].value)
        c = np.where(masks["keep_c"][t], c, new["c"].value)
        same(step.h, h, atol=0, rtol=0)
        same(step.c, c, atol=0, rtol=0)
    keep = {name: np.zeros_like(m) for name, m in masks.items()}
    plain = LSTM(D, H, rng, "float64")
    plain.load_state_dict({n: p.value for n, p in cell.parameters().items()})
    same(cell(x, **keep).h, plain(x).h, atol=0, rtol=0)
    same(
        mg.compile(lambda x, keep_h, keep_c: cell(x, keep_h=keep_h, keep_c=keep_c).h)(x, *masks.values()),
        cell(x, **masks).h,
    )
    # In the mean over all masks one step is what it is without them.
    one = [
        cell.step(Tensor(x[0]), Tensor(x[1] @ np.ones((D, H))), Tensor(x[2] @ np.ones((D, H))))[s].value
        for s in "hc"
    ]
    drawn = [[], []]
    for _ in range(3000):
        m = {n: Tensor(a[0]) for n, a in cell.masks(1, N, rng).items()}
        made = cell.step(Tensor(x[0]), Tensor(x[1] @ np.ones((D, H))), Tensor(x[2] @ np.ones((D, H))), **m)
        for s, values in zip("hc", drawn, strict=True):
            values.append(made[s].value)
    for mean, values in zip(one, drawn, strict=True):
        np.testing.assert_allclose(np.mean(values, axis=0), mean, atol=0.2)
    for rate in (-0.1, 1.5, True, "half"):
        with pytest.raises(InputError, match=r"rate_c = .*number from 0 to 1"):
            ZoneoutLSTM(D, H, rng, rate_c=rate)


def test_a_picture_calls_an_input_beside_x_by_its_name(x, rng):
    viz = pytest.importorskip("viz")
    cell, arrays = timed(rng, x[:2])
    t = Tensor(arrays["t"], requires_grad=True)
    (dt,) = mg.grad((cell(x[:2], keep=arrays["keep"], t=t).h ** 2).sum(), [t])
    for beside in (arrays, {name: Tensor(a) for name, a in arrays.items()}):
        loss = (cell(x[:2], **beside).h ** 2).sum()
        loss.backward(record=True)
        for level in ("gate", "operation"):
            drawn = viz.draw(loss, level=level)
            said = re.findall(r'tooltip="(\w+)(?: t=\d)?: 3 × \d+ ', drawn.dot)
            assert all(said.count(name) >= 2 for name in ("x", "keep", "t", "h")), level
        np.testing.assert_array_equal(drawn.data["t"], arrays["t"])
        np.testing.assert_allclose(drawn.data["dt"], dt.value, rtol=1e-12)
    assert "mask" not in viz.draw((cell(x[:2], **arrays, lengths=[1, 2, 2]).h ** 2).sum()).dot


def test_equations_name_inputs_beside_x(rng):
    viz = pytest.importorskip("viz")
    with pytest.raises(
        InputError, match=r"equations of Timed: its step takes keep beside x; .* keep=np.ones\(\(1, 5\)\)"
    ):
        viz.equations(Timed(D, H, rng))
    text = str(viz.equations(Timed(D, H, rng), keep=np.ones((1, H), bool), t=np.ones((1, 1), "f4")))
    assert "keep_t" in text and "t_t" in text
    zoneout = ZoneoutLSTM(D, H, rng)
    assert "0.05 h_{t−1}" in str(viz.equations(zoneout))
    assert "where(keep_{h,t}, h_{t−1}, h_{new,t})" in str(
        viz.equations(zoneout, **{n: m[0] for n, m in zoneout.masks(1, 1, rng).items()})
    )
    assert "h_{t−1}" in str(viz.equations(Learned(D, H, rng)))


def test_scheduled_sampling_is_a_cell_that_is_given_a_coin(x, rng):
    class Writer(Cell):
        """It reads what it wrote, or, where the coin says so, what it should have written."""

        state = "y h"

        def build(self, rng):
            self.gate_parameters("h", rng)
            self.weights("W_y", rng)

        def step(self, x, y_prev, h_prev, given, coin):
            read = where(coin, given, y_prev)
            h = tanh(concat(h_prev, x) @ self.W_h + self.b_h + read)
            return dict(h=h, y=tanh(concat(h, x) @ self.W_y))

    cell, given = Writer(D, H, rng, "float64"), rng.standard_normal((T, N, H))
    forced = cell(x, given=given, coin=np.ones((T, 1, 1), bool))
    free = cell(x, given=given, coin=np.zeros((T, 1, 1), bool))
    fed = cell(
        x, given=np.concatenate([np.zeros((1, N, H)), free["y"].value[:-1]]), coin=np.ones((T, 1, 1), bool)
    )
    same(fed["y"], free["y"])
    assert abs(forced["y"].value - free["y"].value).max() > 0.1


# What is written or given wrongly.


def broken(returned, **more):
    class Broken(GRU):
        def step(self, x, h_prev):
            return returned(super().step(x, h_prev))

    for name, value in more.items():
        setattr(Broken, name, value)
    return Broken


WRONG = {
    "a tensor": (
        broken(lambda q: q["h"]),
        InputError,
        r"Broken.*: step returned .* \(3, 5\) float64; return its quantities by name, .*return dict\(h=h\)",
    ),
    "a pair": (
        broken(lambda q: (q["h"], q["h"])),
        InputError,
        r"step returned a tuple of 2; return its quantities by name",
    ),
    "nothing": (broken(lambda q: None), InputError, r"step returned nothing; return its quantities by name"),
    "an array": (
        broken(lambda q: {**q, "z": np.ones(3)}),
        InputError,
        r"step returned z as a ndarray, not a tensor",
    ),
    "a missing state": (
        broken(lambda q: dict(z=q["z"])),
        InputError,
        r"step returned z; the state h is missing, return it too",
    ),
    "another shape": (
        broken(lambda q: dict(h=q["h"][:, :2])),
        ShapeError,
        r"state h became .*\(3, 2\) float64, it was \(3, 5\) float64; a step keeps",
    ),
    "another type": (
        broken(lambda q: dict(h=q["h"].astype("float32"))),
        ShapeError,
        r"state h became .* float32, it was \(3, 5\) float64",
    ),
    "too few states": (
        broken(lambda q: q, state="h c"),
        InputError,
        r"step\(x, h_prev\) takes x and 1 states, `state` names 2",
    ),
    "no first state": (
        broken(lambda q: q, initial_state=lambda self, n: None),
        InputError,
        r"Broken: initial_state returned nothing; return a tuple",
    ),
}


@pytest.mark.parametrize("how", ["eager", "compiled"])
@pytest.mark.parametrize(("kind", "error", "words"), WRONG.values(), ids=WRONG)
def test_what_a_subclass_writes_wrongly_is_said_with_the_remedy(kind, error, words, how, x, rng):
    cell = kind(D, H, rng, "float64")
    with pytest.raises(error, match=words) as raised:
        mg.compile(lambda x: cell(x).h.sum())(x) if how == "compiled" else cell(x)
    if "step returned" in words and how == "eager":
        assert "Broken step t=1" in str(raised.value)


def test_a_cell_without_its_parts_is_told_how_to_write_them(rng):
    class Empty(Cell):
        def step(self, x, h_prev):
            return dict(h=h_prev)

    class Stepless(Cell):
        def build(self, rng):
            pass

    with pytest.raises(NotImplementedError, match=r"Empty must make its parameters in build\(self, rng\)"):
        Empty(D, H, rng)
    with pytest.raises(
        NotImplementedError, match=r"Stepless must compute one step in step\(self, x, \*states\): return dict"
    ):
        Stepless(D, H, rng)(np.zeros((T, N, D), "f4"))


MISFITS = {
    "a typing error": (
        lambda c, x, b: LSTM(D, H, R(), "float64")(x, lenghts=LENGTHS),
        InputError,
        "LSTM: its step takes no lenghts; it takes x and its states alone.  Options .*lengths",
    ),
    "no such input": (
        lambda c, x, b: c(x, **b, kept=1),
        InputError,
        "Timed: its step takes no kept; beside x it takes keep, t",
    ),
    "missing": (
        lambda c, x, b: c(x, t=b["t"]),
        InputError,
        r"Timed: its step takes keep beside x; give one row a step, keep=array",
    ),
    "other steps": (
        lambda c, x, b: c(x, **{**b, "t": b["t"][1:]}),
        ShapeError,
        r"Timed: t \(5, 3, 1\) needs a row for each of the 6 steps",
    ),
    "other sequences": (
        lambda c, x, b: c(x, **{**b, "keep": b["keep"][:, :2]}),
        ShapeError,
        r"keep \(6, 2, 5\) has 2 sequences, x has 3; give \(6, 3, …\), \(6, 1, …\)",
    ),
    "a single number": (
        lambda c, x, b: c(x, **{**b, "t": 1.0}),
        ShapeError,
        r"t \(\) needs a row for each of the 6 steps",
    ),
    "type": (
        lambda c, x, b: c(x, **{**b, "t": b["t"].astype("f4")}),
        DTypeError,
        r"Timed: t is float32, the cell float64",
    ),
    "words": (
        lambda c, x, b: c(x, **{**b, "t": ["a"] * 6}),
        DTypeError,
        r"t is <U1; give numbers or booleans",
    ),
    "in a stack": (
        lambda c, x, b: Stack(GRU, D, H, 2, R(), "float64")(x, **b),
        InputError,
        "Stack: its step takes no keep, t",
    ),
    "in both directions": (
        lambda c, x, b: Bidirectional(Timed, D, H, R(), "float64")(x),
        InputError,
        "Bidirectional: its step takes keep",
    ),
    "reverse of both": (
        lambda c, x, b: Bidirectional(GRU, D, H, R(), "float64")(x, reverse=True),
        InputError,
        "in both directions; reverse has no meaning",
    ),
    "states of none": (
        lambda c, x, b: run(Plain(R()), x, (x[0],)),
        InputError,
        "Plain has no states, so none can be given",
    ),
    "no steps to turn": (
        lambda c, x, b: run(lambda xs: xs, x, reverse=True),
        InputError,
        r"takes no reverse, .*give it xs\[::-1\]",
    ),
    "no states to cut": (
        lambda c, x, b: TCN(D, H, 1, 2, R(), "float64")(x, truncate=2),
        InputError,
        "TCN: it takes no truncate",
    ),
    "one for all": (
        lambda c, x, b: run(lambda xs: tanh(xs)[-1], x),
        ShapeError,
        r"<lambda> gave .*\(3, 4\).* a layer gives \(steps, sequences, …\)",
    ),
    "a class": (lambda c, x, b: run(LSTM, x), InputError, "cannot be run; give a layer"),
    "a number": (lambda c, x, b: run(3, x), InputError, "3 cannot be run; give a layer"),
    "attention without a mask": (
        lambda c, x, b: run(cells.MultiHeadAttention(D, 2, R(), "float64"), x, lengths=LENGTHS),
        InputError,
        "MultiHeadAttention sees what comes after a step and takes no lengths",
    ),
    "padding inside": (
        lambda c, x, b: run(lambda xs: GRU(D, H, R(), "float64")(xs), x, lengths=LENGTHS),
        InputError,
        "takes no lengths or mask to hand on",
    ),
}


@pytest.mark.parametrize("how", ["eager", "compiled"])
@pytest.mark.parametrize(("call", "kind", "words"), MISFITS.values(), ids=MISFITS)
def test_what_a_run_cannot_take_is_named(call, kind, words, how, x, rng):
    cell, beside = timed(rng, x)
    if how == "compiled" and "(" in words:
        words = "Timed|lambda|takes|give|needs"
    with pytest.raises(kind, match=words):
        if how == "compiled":
            mg.compile(lambda x: call(cell, x, beside).outputs.sum())(x)
        else:
            call(cell, x, beside)


def test_an_input_may_not_be_called_like_an_option(x, rng):
    class Hidden(Timed):
        def step(self, x, h_prev, mask):
            return super().step(x, h_prev, mask)

    with pytest.raises(
        InputError, match="'mask' is an option of every run; give the step's input another name"
    ):
        Hidden(D, H, rng, "float64")(x)


@pytest.mark.parametrize(
    "use",
    [
        Output(H, K, R(), "float64"),
        mg.tanh,
        np.asarray,
        list,
        lambda r: mg.Tensor(1.0) * r,
        lambda r: r[0],
        lambda r: r.shape,
    ],
    ids=range(7),
)
def test_a_run_is_not_an_array_and_says_what_to_take(use, x, rng):
    with pytest.raises((InputError, AttributeError, DTypeError), match=r"\.outputs"):
        use(LSTM(D, H, rng, "float64")(x))


def test_states_of_a_stack_have_names_too(x, rng):
    stack = Stack(ProjectedLSTM, D, H, 2, rng, "float64")
    assert stack.state == "1.h 1.c 2.h 2.c"
    states = [*first_states(stack, rng)]
    named = dict(zip(stack.state.split(), states, strict=True))
    same(stack(x, dict(reversed(named.items()))).h, stack(x, states).h, atol=0)
    with pytest.raises(
        ShapeError, match=re.escape("Stack: 2 states given (h, c), it has 4: 1.h 1.c 2.h 2.c")
    ):
        stack(x, {"h": states[0], "c": states[1]})
