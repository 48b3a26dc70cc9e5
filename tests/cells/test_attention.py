"""Additive attention against NumPy and finite differences; around any cell it is a cell, so runs, masks, cuts,
generation and equations take it; padding is never seen; and compiled is eager.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import cells
import minigrad as mg
from cells import (
    CELLS,
    LSTM,
    AdditiveAttention,
    AttentionDecoder,
    Bidirectional,
    Output,
    dropped,
    generate,
    run,
)
from minigrad import DTypeError, InputError, ShapeError, Tensor, check_grads

T, L, N, D, H, K, A = 3, 6, 4, 3, 5, 4, 7
LENGTHS = np.array([4, 6, 1, 3])  # of the memory; unsorted
every_cell = pytest.mark.parametrize("name", list(CELLS))


def random_weights(layer, rng):
    """Biases too, which first are 0."""
    for p in layer.parameters().values():
        p.value = p.value + 0.2 * rng.standard_normal(p.shape)
    return layer


def decoder(rng, kind=LSTM, dtype="float64"):
    return random_weights(AttentionDecoder(kind, D, H, K, rng, A, dtype), rng)


def gradients(loss, of):
    for p in of:
        p.grad = None
    loss.backward()
    return [np.zeros(p.shape) if p.grad is None else p.grad for p in of]


def by_the_book(attention, s, h, real=None):
    """Bahdanau et al., appendix A.1.2, place by place: the context and α of each sequence."""
    W, U, b, v = (p.value for p in attention.parameters().values())
    contexts, weights = [], []
    for n in range(len(s)):
        places = [i for i in range(len(h)) if real is None or real[i, n]]
        e = np.array([v @ np.tanh(W.T @ s[n] + U.T @ h[i, n] + b) for i in places])
        alpha = np.zeros(len(h))
        alpha[places] = np.exp(e) / np.exp(e).sum()
        weights.append(alpha)
        contexts.append(sum((alpha[i] * h[i, n] for i in places), np.zeros(h.shape[2])))
    return np.stack(contexts), np.stack(weights)


# Against NumPy and finite differences.


@pytest.mark.smoke
def test_context_and_weights_are_those_of_the_paper(rng):
    attention = random_weights(AdditiveAttention(H, K, A, rng, "float64"), rng)
    assert attention.size == A * (H + K + 2)
    s, h = rng.standard_normal((N, H)), rng.standard_normal((L, N, K))
    for lengths in (None, LENGTHS):
        context, alpha = attention(s, attention.memory(h, lengths=lengths))
        real = None if lengths is None else np.arange(L)[:, None] < lengths
        for ours, theirs in zip((context, alpha), by_the_book(attention, s, h, real), strict=True):
            np.testing.assert_allclose(ours.value, theirs, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(alpha.value.sum(axis=1), 1)
    assert (alpha.name, context.name) == ("alpha", "context")


@every_cell
def test_a_step_is_the_cells_on_input_and_context(name, rng):
    made = decoder(rng, CELLS[name])
    h, xs = rng.standard_normal((L, N, K)), rng.standard_normal((T, N, D))
    first = [rng.standard_normal(s.shape) for s in made.initial_state(N)]
    r, state = made.over(h)(xs, first), [Tensor(s) for s in first]
    for step, x in zip(r.steps, xs, strict=True):
        context, alpha = by_the_book(made.attention, state[0].value, h)
        inside = made.cell.step(Tensor(np.concatenate([x, context], axis=1)), *state)
        state = [inside[s] for s in made.cell.state.split()]
        np.testing.assert_allclose(step.alpha.value, alpha, rtol=1e-10, atol=1e-12)
        for quantity, q in inside.items():
            np.testing.assert_allclose(step[quantity].value, q.value, rtol=1e-10, atol=1e-12)
    assert [*r.steps[0]] == ["alpha", "context", *inside]
    assert {(s.alpha.name, *s.alpha.scope) for s in r.steps} == {("alpha", f"t={t}") for t in (1, 2, 3)}


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_gradients_match_finite_differences(name, rng):
    made = decoder(rng, CELLS[name])
    names, weigh = list(made.parameters()), rng.standard_normal((T, N, H))

    def function(xs, h, *values):
        for key, value in zip(names, values, strict=True):
            part, own = key.split(".")
            setattr(getattr(made, part), own, value)
        r = made.over(h, lengths=LENGTHS)(xs)
        return (r.h * weigh).sum() + (r.alpha * r.alpha).sum()

    points = [rng.standard_normal(s) for s in ((T, N, D), (L, N, K))]
    points += [p.value for p in made.parameters().values()]
    assert check_grads(function, points, order=1, tolerance=1e-5, complex_step=False) <= 1e-5


# What must not be seen.


@pytest.mark.smoke
@pytest.mark.parametrize("padding", [0.0, 1e30, np.inf, np.nan])
def test_padding_of_the_memory_changes_no_bit_of_a_value_or_gradient(padding, rng):
    made, data = decoder(rng), rng.standard_normal((L, N, K))
    real, xs = np.arange(L)[:, None] < LENGTHS, rng.standard_normal((T, N, D))
    parameters, results = list(made.parameters().values()), []
    for fill, options in ((7.0, {"lengths": LENGTHS}), (padding, {"mask": real})):
        h = Tensor(np.where(real[:, :, None], data, fill), requires_grad=True)
        r = made.over(h, **options)(xs)
        results.append([r.h.value, r.alpha.value, *gradients((r.h * r.h).sum(), [h, *parameters])])
    for ours, theirs in zip(*results, strict=True):
        assert np.isfinite(theirs).all()
        np.testing.assert_array_equal(ours, theirs)
    _, alpha, of_h, *_ = results[0]
    assert not of_h[~real].any() and of_h[real].any(axis=-1).all()
    assert not alpha.transpose(2, 1, 0)[~real].any()
    for n, length in enumerate(LENGTHS):
        alone = made.over(data[:length, n : n + 1])(xs[:, n : n + 1])
        np.testing.assert_allclose(results[0][0][:, n : n + 1], alone.h.value, rtol=1e-12, atol=1e-14)


@pytest.mark.smoke
def test_a_memory_in_which_nothing_is_real_gives_zeros(rng):
    made, h = decoder(rng), Tensor(rng.standard_normal((L, N, K)), requires_grad=True)
    r = made.over(h, lengths=[4, 0, 1, 3])(rng.standard_normal((T, N, D)))
    assert not r.alpha.value[:, 1].any() and not r.context.value[:, 1].any()
    found = gradients((r.h * r.h).sum(), [h, *made.parameters().values()])
    assert all(np.isfinite(g).all() for g in found) and not found[0][:, 1].any()


@pytest.mark.smoke
def test_lengths_and_cuts_of_the_steps_are_those_of_any_cell(rng):
    made, h, xs = decoder(rng), rng.standard_normal((L, N, K)), rng.standard_normal((T, N, D))
    r = run(made.over(h), xs, lengths=[3, 1, 0, 2])
    for n, length in enumerate([3, 1, 0, 2]):
        if length:
            alone = run(made.over(h[:, n : n + 1]), xs[:length, n : n + 1])
            np.testing.assert_allclose(r.state[1].value[n], alone.state[1].value[0], rtol=1e-12)
    assert not r.state[0].value[2].any()
    x = Tensor(xs, requires_grad=True)
    made.over(h)(x, truncate=2).h[2].sum().backward()
    assert not x.grad[:2].any() and x.grad[2].all()


# It is a cell, and a layer.


@pytest.mark.smoke
def test_the_decoder_shares_its_parameters_and_keeps_no_memory_of_its_own(rng):
    made, h = decoder(rng), rng.standard_normal((L, N, K))
    over = made.over(h)
    assert all(a is b for a, b in zip(made.parameters().values(), over.parameters().values(), strict=True))
    with pytest.raises(InputError, match=r"AttentionDecoder has no memory.*decoder.over\(h\)"):
        made(np.zeros((T, N, D)))
    cell = LSTM(D + K, H, rng)
    assert made.size == cell.size + A * (H + K + 2) and made.width == H
    assert list(made.parameters())[:5] == [
        *(f"attention.{n}" for n in ("W_a", "U_a", "b_a", "v_a")),
        "cell.W_f",
    ]
    assert "gates alpha context f i c_tilde o, state h c" in repr(made)


@pytest.mark.smoke
def test_recurrent_dropout_hides_outputs_from_the_cell_and_from_the_attention(rng):
    made, h, x = decoder(rng), rng.standard_normal((L, N, K)), rng.standard_normal((N, D))
    first = [Tensor(rng.standard_normal((N, H))) for _ in "hc"]
    m = np.array([0, 2.0, 2, 0, 2])
    hidden = dropped(made, m).over(h).step(Tensor(x), *first)
    seen = made.over(h).step(Tensor(x), first[0] * m, first[1])  # an LSTM reads h in its products alone
    for name, quantity in seen.items():
        np.testing.assert_allclose(hidden[name].value, quantity.value, rtol=1e-12, err_msg=name)
    assert abs(hidden["alpha"].value - made.over(h).step(Tensor(x), *first)["alpha"].value).max() > 1e-3
    found = gradients(hidden["h"].sum(), list(made.parameters().values()))
    assert found[0].any() and not found[0][m == 0].any()


@pytest.mark.smoke
def test_one_memory_may_serve_all_sequences(rng):
    made, h, xs = decoder(rng), rng.standard_normal((L, 1, K)), rng.standard_normal((T, N, D))
    same = made.over(np.repeat(h, N, axis=1))(xs)
    np.testing.assert_allclose(made.over(h)(xs).h.value, same.h.value, rtol=1e-12)


@pytest.mark.smoke
def test_what_is_generated_is_what_teacher_forcing_with_it_prefers(rng):
    both = random_weights(Bidirectional(LSTM, D, K // 2, rng, "float64"), rng)
    made, output = decoder(rng), Output(H, D, rng, dtype="float64")
    output.W_y.value = 9 * rng.standard_normal((H, D))
    over = made.over(both(rng.standard_normal((L, N, D))).outputs)
    start = np.zeros((N, D))
    written = generate(over, output, start, 5)
    assert written.shape == (5, N) and len(np.unique(written)) > 1
    given = np.concatenate([start[None], np.eye(D)[written[:-1]]])
    np.testing.assert_array_equal(output(over(given).outputs).value.argmax(axis=-1), written)


@pytest.mark.smoke
def test_equations_are_read_from_its_graph(rng):
    viz = pytest.importorskip("viz")
    text = str(viz.equations(decoder(rng).over(rng.standard_normal((L, 1, K))), backward=False))
    lines = [line.split("=")[0].strip() for line in text.split("\n\n")[1].splitlines()]
    assert [n for n in lines if not n.startswith("u_")] == [
        "keys_t", "alpha_t", "context_t", "f_t", "i_t", "c̃_t", "c_t", "o_t", "h_t",
    ]  # fmt: skip
    assert "softmax(tanh(W_a·h_{t−1} + keys_t)ᵀ·v_a)" in text and "[h_{t−1}, [x_t, context_t]]" in text


H_ = np.zeros((L, N, K))
BAD = {
    "keys": (lambda d: d.over(np.zeros((L, N, K + 1))), ShapeError, r"memory .*\(6, 4, 5\).*\(places, sequences, 4\)"),
    "axes": (lambda d: d.over(np.zeros((L, K))), ShapeError, r"give \(places, sequences, 4\)"),
    "type": (lambda d: d.over(H_.astype("f4")), DTypeError, "memory is float32, the layer float64"),
    "lengths": (lambda d: d.over(H_, lengths=[1, 2, 7, 3]), InputError, "sequence 2 has length 7, x has 6 steps"),
    "sequences": (lambda d: d.over(H_)(np.zeros((T, N + 1, D))), ShapeError, "memory has 4 sequences, .* has 5"),
    "hidden": (lambda d: AttentionDecoder(LSTM, D, 0, K, np.random.default_rng(0)), InputError, "hidden = 0"),
    "attention": (
        lambda d: AttentionDecoder(LSTM, D, H, K, np.random.default_rng(0), 0), InputError, "hidden = 0",
    ),
}  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize(("act", "kind", "words"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_named(act, kind, words, rng):
    with pytest.raises(kind, match=words):
        act(decoder(rng))


# Compiled = eager.


def test_compiled_is_eager_from_encoder_to_decoder(rng):
    both = random_weights(Bidirectional(cells.GRU, 2, K // 2, rng, "float64"), rng)
    made = decoder(rng, cells.GRU)
    parameters = [*both.parameters().values(), *made.parameters().values()]

    def loss(source, lengths, xs):
        h = both(source, lengths=lengths).outputs
        r = made.over(h, lengths=lengths)(xs)
        return (r.h * r.h * r.h).sum() + (r.alpha * r.alpha).sum(), r.alpha

    compiled = mg.compile(loss)
    for places, length, lengths in ((L, T, LENGTHS), (9, 5, np.array([3, 9]))):
        source, xs = (
            rng.standard_normal((places, len(lengths), 2)),
            rng.standard_normal((length, len(lengths), D)),
        )
        value, alpha = loss(source, lengths, xs)
        expected = gradients(value, parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # falling back to the eager run would warn
            (same, same_alpha), found = compiled.value_and_grad(source, lengths, xs)
        assert same.item() == pytest.approx(value.item(), rel=1e-12)
        np.testing.assert_allclose(same_alpha.value, alpha.value, rtol=1e-12, atol=1e-14)
        for p, g in zip(parameters, expected, strict=True):
            assert abs(found[p] - g).max() <= 1e-12 * max(1, abs(g).max()), p.name
    assert sum(map(len, compiled.variants.values())) == 1
