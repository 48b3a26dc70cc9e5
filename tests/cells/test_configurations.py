"""The sequence configurations around any layer: what each reads and where it answers, against NumPy and finite
differences; compiled is eager; writing with carried states is reading the whole prefix again.
"""

from __future__ import annotations

import itertools
import re
import warnings

import numpy as np
import pytest

import minigrad as mg
from cells import (
    GRU,
    LSTM,
    MLSTM,
    RNN,
    TCN,
    AttentionDecoder,
    Bidirectional,
    FirstState,
    Output,
    Stack,
    Transformer,
    beam_search,
    by_probability,
    generate,
    many_to_many,
    many_to_one,
    one_to_many,
    run,
)
from cells.layer import Layer
from minigrad import InputError, MinigradError, ShapeError, Tensor, ancestors, check_grads

T, N, D, H, K = 6, 3, 4, 5, 4
LENGTHS = np.array([2, 6, 5])


class Taps(Layer):
    """A layer without states that the package does not know: two steps before and this one."""

    width = H

    def __init__(self, rng, dtype="float64"):
        super().__init__(dtype)
        self.W = self.parameter("W", rng.standard_normal((3, D, H)))

    def __call__(self, xs):
        return mg.tanh(mg.conv1d(xs, self.W))


LAYERS = {
    "stack": lambda rng: Stack(GRU, D, H, 2, rng, "float64"),
    "no states": Taps,
    "tcn": lambda rng: TCN(D, H, 2, 2, rng, "float64"),
    "transformer": lambda rng: Transformer(D, 6, 2, 1, rng, dtype="float64"),
    "both directions": lambda rng: Stack(Bidirectional.of(LSTM), D, H, 2, rng, "float64"),
}
every_layer = pytest.mark.parametrize("name", list(LAYERS))
every_causal_layer = pytest.mark.parametrize("name", ["stack", "no states", "tcn", "transformer"])


@pytest.fixture
def make(rng):
    def make(name):
        layer = LAYERS[name](rng)
        output = Output(layer.width, K, rng, "float64")
        for p in output.parameters().values():
            p.value = rng.standard_normal(p.shape)
        return layer, output

    return make


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, N, D))


def plain(output, h):
    """The output layer in NumPy."""
    return h @ output.W_y.value + output.b_y.value


# What is read, and where it is answered.


@every_layer
def test_every_step_is_answered_or_those_from_the_delay_on(name, make, x):
    layer, output = make(name)
    expected = plain(output, run(layer, x).outputs.value)
    for delay in (0, 2, T - 1):
        y = many_to_many(layer, output, x, delay=delay)
        np.testing.assert_allclose(y.value, expected[delay:], atol=1e-13)


@every_layer
def test_one_answer_is_that_after_the_last_step(name, make, x):
    layer, output = make(name)
    h = run(layer, x).outputs.value
    expected = h[-1].copy()
    if name == "both directions":
        expected[:, H:] = h[0, :, H:]  # the way back ends at the first step
    np.testing.assert_allclose(many_to_one(layer, output, x).value, plain(output, expected), atol=1e-13)


@every_layer
def test_with_lengths_it_is_that_of_each_sequence_alone(name, make, x):
    layer, output = make(name)
    y = many_to_one(layer, output, x, lengths=LENGTHS).value
    for n, length in enumerate(LENGTHS):
        alone = many_to_one(layer, output, x[:length, n : n + 1])
        np.testing.assert_allclose(y[n : n + 1], alone.value, atol=1e-13)


@every_layer
def test_padding_changes_neither_the_answer_nor_the_gradients(name, make, x, rng):
    layer, output = make(name)
    other = np.where((np.arange(T)[:, None] < LENGTHS)[..., None], x, rng.standard_normal(x.shape))
    found = []
    for given in (x, other):
        y = many_to_one(layer, output, given, lengths=LENGTHS)
        found.append([y.value, *mg.grad((y * y).sum(), list(layer.parameters().values()))])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(
            np.asarray(getattr(ours, "value", ours)), getattr(theirs, "value", theirs)
        )


@every_causal_layer
def test_a_sequence_from_one_input_reads_it_first_and_then_what_is_given(name, make, x):
    layer, output = make(name)
    expected = plain(output, run(layer, x).outputs.value)
    np.testing.assert_allclose(one_to_many(layer, output, x[0], x[1:]).value, expected, atol=1e-13)
    assert one_to_many(layer, output, x[0], x[1:1]).shape == (1, N, K)


def test_a_sequence_from_a_first_state(make, x, rng):
    layer, output = make("stack")
    first = FirstState(layer, 2, rng)
    c = np.eye(2)[[0, 1, 0]]
    states = first(c)
    assert len(states) == 2 and list(first.parameters()) == ["W_1", "W_2"]
    np.testing.assert_allclose(states[1].value, np.tanh(c @ first.W_2.value), atol=1e-13)
    x[0] = 0
    expected = plain(output, run(layer, x, state=states).outputs.value)
    np.testing.assert_allclose(
        one_to_many(layer, output, None, x[1:], state=states).value, expected, atol=1e-13
    )


# Gradients, compiled programs, pictures.

CONFIGURATIONS = {
    "many to many": (lambda layer, output, x: many_to_many(layer, output, x), None),
    "delay": (lambda layer, output, x: many_to_many(layer, output, x, delay=2), None),
    "many to one": (lambda layer, output, x: many_to_one(layer, output, x), None),
    "lengths": (lambda layer, output, x, lengths: many_to_one(layer, output, x, lengths=lengths), LENGTHS),
    "one to many": (lambda layer, output, x: one_to_many(layer, output, x[0], x[1:]), None),
}


PAIRS = [
    (name, configuration)
    for name in LAYERS
    for configuration in CONFIGURATIONS
    if (name, configuration) != ("both directions", "one to many")  # refused, see below
]


@pytest.mark.parametrize(("name", "configuration"), PAIRS)
def test_gradients_are_those_of_finite_differences(name, configuration, make, x):
    layer, output = make(name)
    answer, lengths = CONFIGURATIONS[configuration]
    more = () if lengths is None else (lengths,)
    check_grads(lambda x: answer(layer, output, x, *more), [x], order=1, complex_step=False)
    parameters = {**layer.parameters(), **output.parameters()}
    before = [p.value for p in parameters.values()]
    loss = (answer(layer, output, x, *more) ** 2).sum()
    gradients = mg.grad(loss, list(parameters.values()))
    direction = [np.random.default_rng(1).standard_normal(v.shape) for v in before]
    exact = sum(float((g.value * d).sum()) for g, d in zip(gradients, direction, strict=True))

    def moved(h):
        for p, v, d in zip(parameters.values(), before, direction, strict=True):
            p.value = v + h * d
        return float((answer(layer, output, x, *more) ** 2).sum().value)

    numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
    assert abs(exact - numeric) <= 1e-6 * max(abs(exact), 1)


COMPILED = [
    *[("recurrent", configuration) for configuration in CONFIGURATIONS if configuration != "many to many"],
    ("no states", "delay"),
    ("no states", "lengths"),
    ("both directions", "lengths"),
]


@pytest.mark.parametrize(("kind", "configuration"), COMPILED)
def test_compiled_is_eager(kind, configuration, rng):
    layer = {
        "recurrent": lambda: Stack(RNN, D, H, 1, rng, "float64"),
        "no states": lambda: Taps(rng),
        "both directions": lambda: Stack(Bidirectional.of(RNN), D, H, 1, rng, "float64"),
    }[kind]()
    output = Output(layer.width, K, rng, "float64")
    parameters = {**layer.parameters(), **output.parameters()}
    answer, lengths = CONFIGURATIONS[configuration]
    more = () if lengths is None else (lengths,)

    def loss(x, *more):
        y = answer(layer, output, x, *more)
        return (y * y).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as: runs eagerly
        compiled = mg.compile(loss)
        for length in (T, T + 3):  # another T is the same program
            x = rng.standard_normal((length, N, D))
            value, gradients = compiled.value_and_grad(x, *more)
            eager = loss(x, *more)
            expected = mg.grad(eager, list(parameters.values()))
            np.testing.assert_allclose(value, eager.value, rtol=1e-12)
            for p, g in zip(parameters.values(), expected, strict=True):
                np.testing.assert_allclose(gradients[p], g.value, rtol=1e-9, atol=1e-12)
    assert sum(map(len, compiled.variants.values())) == 1
    loops = re.findall(r"^ *for t0? in range\(.*\bT\b", compiled.source, re.MULTILINE)
    if kind == "recurrent" and lengths is None:
        assert len(loops) == 2, "one forward, one back"


def reached(root) -> set[str]:
    return {label for node in ancestors(root) for label in node.scope if label.startswith("t=")}


def test_an_answer_stands_at_its_own_step_of_the_graph(make, x):
    """So that a picture draws it there: it depends on no later step, and all steps are there."""
    layer, output = make("stack")
    y = many_to_many(layer, output, x, delay=2)
    answers = [node for node in ancestors(y) if node.name == "y"]
    assert [len(reached(a)) for a in answers] == [4, 5, 6, 7]  # with t=0, of the first states
    assert len(reached(many_to_one(layer, output, x))) == T + 1
    assert len([n for n in ancestors(one_to_many(layer, output, x[0], x[1:])) if n.name == "y"]) == T


# Writing.


@every_causal_layer
def test_writing_on_is_reading_again_all_that_was_written(name, make, x, rng):
    layer, output = make(name)
    start = x[:2]
    written = generate(layer, output, start, 5)
    seen = start
    for chosen in written:
        logits = plain(output, run(layer, seen).outputs.value[-1])
        np.testing.assert_array_equal(chosen, logits.argmax(-1))
        seen = np.concatenate([seen, np.eye(D)[chosen][None]])
    np.testing.assert_array_equal(generate(layer, output, x[0], 5), generate(layer, output, x[:1], 5))


def test_writing_from_a_first_state_and_with_what_is_fed_back(make, rng):
    layer, output = make("stack")
    state = tuple(rng.standard_normal((N, H)) for _ in range(2))
    table = rng.standard_normal((K, D))
    written = generate(layer, output, np.zeros((N, D)), 4, state=state, feed=lambda k: table[k])
    inputs = np.concatenate([np.zeros((1, N, D)), table[written[:-1]]])
    expected = plain(output, run(layer, inputs, state=state).outputs.value).argmax(-1)
    np.testing.assert_array_equal(written, expected)


def test_states_are_carried_not_computed_again(make, x, monkeypatch):
    layer, output = make("stack")
    steps = []
    call = Stack.__call__
    monkeypatch.setattr(
        Stack, "__call__", lambda self, xs, *a, **o: steps.append(len(xs)) or call(self, xs, *a, **o)
    )
    generate(layer, output, x, 4)
    assert steps == [T, 1, 1, 1]


def test_drawn_by_probability_as_often_as_it_is_probable(rng):
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.0001, 0.9]]))
    drawn = by_probability(rng)(np.repeat(logits, 20_000, axis=0)).reshape(2, -1)
    share = np.stack([np.bincount(d, minlength=3) for d in drawn]) / 20_000
    np.testing.assert_allclose(share, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), atol=0.02)
    cold = by_probability(rng, 1e-3)(logits * 3)
    np.testing.assert_array_equal(cold, [0, 2])
    same = [by_probability(np.random.default_rng(3))(logits) for _ in range(2)]
    np.testing.assert_array_equal(*same)


def test_nothing_is_recorded_while_writing(make, x):
    layer, output = make("stack")
    generate(layer, output, x, 2)
    assert all(p.grad is None for p in layer.parameters().values())


# The best of many.


def attending(rng):
    """A decoder that keeps a memory for each sequence."""
    decoder = AttentionDecoder(LSTM, D, H, 2, rng, dtype="float64")
    return decoder.over(rng.standard_normal((7, N, 2)), lengths=np.array([7, 3, 5]))


SEARCHED = {
    **{name: LAYERS[name] for name in ("stack", "no states", "tcn", "transformer")},
    "matrix memory": lambda rng: Stack(MLSTM, D, H, 2, rng, "float64"),
    "decoder": attending,
}
every_searched = pytest.mark.parametrize("name", list(SEARCHED))


@pytest.fixture
def searched(rng):
    def made(name):
        layer = SEARCHED[name](rng)
        output = Output(layer.width, K, rng, "float64")
        for p in [*layer.parameters().values(), *output.parameters().values()]:
            p.value = rng.standard_normal(p.shape)
        return layer, output

    return made


def exhaustive(layer, output, first, length, end=None, length_penalty=0.0):
    """All that can be written, by reading each of it whole: symbols (…, length, N) and log-probabilities, best first."""
    found = []
    for symbols in itertools.product(range(K), repeat=length):
        counts = length if end not in symbols else symbols.index(end) + 1
        if any(k != end for k in symbols[counts:]):
            continue
        fed = np.repeat(np.eye(D)[list(symbols[:-1])][:, None], N, axis=1)
        logits = plain(output, run(layer, np.concatenate([first, fed])).outputs.value)[len(first) - 1 :]
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        log_p = sum(np.log(p[t, :, k]) for t, k in enumerate(symbols[:counts]))
        found.append((np.array(symbols), log_p, log_p / counts**length_penalty))
    symbols, log_p, score = (np.array(a) for a in zip(*found, strict=True))
    best = np.argsort(-score, axis=0)
    return symbols[best].swapaxes(1, 2), np.take_along_axis(log_p, best, axis=0)


@every_searched
@pytest.mark.parametrize("options", [{}, {"end": 2}, {"end": 0, "length_penalty": 0.7}], ids=str)
def test_a_beam_that_keeps_all_is_an_exhaustive_search(name, options, searched, x):
    layer, output = searched(name)
    written, log_p = beam_search(layer, output, x[:2], 3, K**3, **options)
    expected, their_log_p = exhaustive(layer, output, x[:2], 3, **options)
    np.testing.assert_array_equal(written, expected)
    np.testing.assert_allclose(log_p, their_log_p, rtol=1e-9)
    assert written.dtype.kind == "i" and len(written) == (K**3 if "end" not in options else 40)
    if "end" not in options:
        np.testing.assert_allclose(np.exp(log_p).sum(axis=0), 1)


@every_searched
def test_a_beam_of_one_writes_what_is_most_likely_at_each_step(name, searched, x):
    layer, output = searched(name)
    written, log_p = beam_search(layer, output, x[:2], 6, 1)
    np.testing.assert_array_equal(written[0], generate(layer, output, x[:2], 6))
    assert written.shape == (1, 6, N) and log_p.shape == (1, N)


@every_searched
def test_a_narrow_beam_keeps_the_best_of_what_it_kept(name, searched, x):
    """Step by step, one sequence after the other, every beginning read whole."""
    layer, output = searched(name)
    width, end, length = 3, 1, 5
    written, log_p = beam_search(layer, output, x[:1], length, width, end=end)
    for n in range(N):
        kept = [((), 0.0)]
        for _ in range(length):
            longer = []
            for symbols, total in kept:
                if end in symbols:
                    longer.append(((*symbols, end), total))
                    continue
                fed = np.repeat(np.eye(D)[list(symbols)].reshape(-1, 1, D), N, axis=1)
                logits = plain(output, run(layer, np.concatenate([x[:1], fed])).outputs.value)[-1, n]
                log_probabilities = logits - np.log(np.exp(logits).sum())
                longer += [((*symbols, k), total + log_probabilities[k]) for k in range(K)]
            kept = sorted(longer, key=lambda each: -each[1])[:width]
        assert [tuple(w) for w in written[:, :, n]] == [symbols for symbols, _ in kept]
        np.testing.assert_allclose(log_p[:, n], [total for _, total in kept], rtol=1e-9)


def test_a_wider_beam_finds_what_a_greedy_one_misses():
    """First symbols 0 (0.6) and 1 (0.4); behind 0 all is as probable, behind 1 one thing is sure."""
    behind = {0: np.full(4, 0.25), 1: np.array([0, 0, 0, 1.0])}

    def output(h):
        with np.errstate(divide="ignore"):
            return Tensor(np.log([behind.get(int(row.argmax()), [0.6, 0.4, 0, 0]) for row in h.value]))

    first = np.eye(4)[[2, 3]]
    for width, expected, p in ((1, [0, 0], 0.15), (2, [1, 3], 0.4)):
        written, log_p = beam_search(lambda xs: xs, output, first, 2, width)
        np.testing.assert_array_equal(written[0], np.repeat(expected, 2).reshape(2, 2))
        np.testing.assert_allclose(np.exp(log_p[0]), p)


def test_means_favour_long_sequences_and_sums_short_ones():
    def output(h):  # the end, 0, has probability 0.3 at each step, 1 has 0.6
        return Tensor(np.log(np.tile([0.3, 0.6, 0.1, 1e-9], (len(h.value), 1))))

    written = {
        penalty: beam_search(lambda xs: xs, output, np.eye(4)[:1], 4, 9, end=0, length_penalty=penalty)[0][
            0, :, 0
        ]
        for penalty in (0, 1)
    }
    np.testing.assert_array_equal(written[0], [0, 0, 0, 0])
    np.testing.assert_array_equal(written[1], [1, 1, 1, 1])


def test_a_search_from_a_first_state_and_with_what_is_fed_back(make, rng):
    layer, output = make("stack")
    state = tuple(rng.standard_normal((N, H)) for _ in range(2))
    table = rng.standard_normal((K, D))
    options = dict(state=state, feed=lambda k: table[k])
    written, _ = beam_search(layer, output, np.zeros((N, D)), 4, 1, **options)
    np.testing.assert_array_equal(written[0], generate(layer, output, np.zeros((N, D)), 4, **options))
    best, log_p = beam_search(layer, output, np.zeros((N, D)), 4, 5, **options)
    inputs = np.stack([np.concatenate([np.zeros((1, N, D)), table[w[:-1]]]) for w in best])
    for w, symbols in enumerate(best):
        logits = plain(output, run(layer, inputs[w], state=state).outputs.value)
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        mine = np.take_along_axis(p, symbols[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(log_p[w], np.log(mine).sum(axis=0), rtol=1e-9)


# Mistakes.


@every_layer
@pytest.mark.parametrize("delay", [T, T + 1, -1, 1.5, True])
def test_a_delay_must_leave_a_step_to_answer_at(name, delay, make, x):
    with pytest.raises(InputError, match=r"delay.*(give at least \d+ steps|whole number)"):
        many_to_many(*make(name), x, delay=delay)


def test_a_delay_longer_than_the_sequence_is_refused_compiled_too(make, x):
    layer, output = make("no states")
    compiled = mg.compile(lambda x: many_to_many(layer, output, x, delay=3).sum())
    np.testing.assert_allclose(compiled(x), many_to_many(layer, output, x, delay=3).sum().value)
    with pytest.raises(InputError, match="a delay of 3 steps leaves no step"):
        compiled(x[:3])


def test_what_sees_later_steps_cannot_write(make, x):
    layer, output = make("both directions")
    for call in (
        lambda: one_to_many(layer, output, x[0], x[1:]),
        lambda: generate(layer, output, x, 3),
        lambda: beam_search(layer, output, x, 3, 2),
    ):
        with pytest.raises(InputError, match="Stack sees what comes after a step"):
            call()


def test_a_layer_without_states_takes_none(make, x):
    layer, output = make("no states")
    for call in (many_to_many, many_to_one):
        with pytest.raises(InputError, match="Taps has no states"):
            call(layer, output, x, state=(x[0],))
    with pytest.raises(InputError, match="Taps has no states"):
        generate(layer, output, x, 2, state=(x[0],))


def test_a_sequence_of_no_steps_has_no_last_one(make, x):
    layer, output = make("no states")
    with pytest.raises(InputError, match="sequence 1 has length 0"):
        many_to_one(layer, output, x, lengths=np.array([2, 0, 3]))
    with pytest.raises(InputError, match="length 7"):
        many_to_one(layer, output, x, lengths=np.array([2, 7, 3]))


def test_inputs_that_do_not_fit_are_named(make, x):
    layer, output = make("stack")
    with pytest.raises(ShapeError, match=r"first .*\(3, 3\).* given .*\(5, 3, 4\)"):
        one_to_many(layer, output, x[0, :, :3], x[1:])
    with pytest.raises(ShapeError, match="give \\(N, D\\), or \\(T, N, D\\)"):
        generate(layer, output, x[0, 0], 3)
    with pytest.raises(InputError, match="length = 0"):
        generate(layer, output, x[0], 0)
    with pytest.raises(InputError, match="7 outputs do not fit into the layer's 4 inputs"):
        generate(layer, Output(H, 7, np.random.default_rng(0), "float64"), x[0], 3)
    spoilt = np.where(np.arange(N)[:, None] == 1, np.nan, x[0])
    wide = Output(H, 7, np.random.default_rng(0), "float64")
    for words, first, length, out, more in (
        ("give \\(N, D\\), or \\(T, N, D\\)", x[0, 0], 3, output, {}),
        ("beam_search: length = 0", x[0], 0, output, {}),
        ("beam_search: width = 0", x[0], 3, output, {"width": 0}),
        ("beam_search: 7 outputs do not fit into the layer's 4 inputs", x[0], 3, wide, {}),
        ("end = 4; give one of the 4 outputs, 0 … 3", x[0], 3, output, {"end": 4}),
        ("end = True", x[0], 3, output, {"end": True}),
        ("length_penalty = nan; give a finite number", x[0], 3, output, {"length_penalty": float("nan")}),
        ("after 0 written symbols have no probabilities, as those of sequence 1", spoilt, 3, output, {}),
    ):  # fmt: skip
        with pytest.raises(MinigradError, match=words):
            beam_search(layer, out, first, length, **{"width": 2, **more})
    with pytest.raises(InputError, match="temperature = 0"):
        by_probability(np.random.default_rng(0), 0)


def test_a_tensor_is_taken_as_first_input(make, x):
    layer, output = make("stack")
    np.testing.assert_array_equal(generate(layer, output, Tensor(x), 3), generate(layer, output, x, 3))
