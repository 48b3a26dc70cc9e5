"""What wraps any cell: both directions, layers, sequences of different length, dropout, cuts of the gradient.
Padding changes no bit; what is wrapped is what one would compute by hand; and compiled is eager.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigrad as mg
from cells import CELLS, GRU, JANET, LSTM, RNN, Bidirectional, Stack, dropped, recurrent_masks, run
from minigrad import DTypeError, InputError, ShapeError, Tensor, check_grads, grad_status, scan

T, N, D, H = 6, 4, 3, 5
every_cell = pytest.mark.parametrize("name", list(CELLS))


def layer(kind, rng, dtype="float64"):
    """With random biases too, which constant ones would hide."""
    made = kind(D, H, rng, dtype)
    for p in made.parameters().values():
        p.value = p.value + 0.2 * rng.standard_normal(p.shape)
    return made


def runs(layer, x, state=None, **options):
    return layer(x, state, **options)


def gradients(loss, of):
    for p in of:
        p.grad = None
    loss.backward()
    return [np.zeros(p.shape) if p.grad is None else p.grad for p in of]


def same_bits(ours, theirs, what=""):
    np.testing.assert_array_equal(ours, theirs, err_msg=what)  # 0 and −0 count as the same


# Sequences of different length.

LENGTHS = np.array([4, 6, 0, 1])  # unsorted; one has nothing, one all
KINDS = {**CELLS, "both directions": Bidirectional.of(LSTM)}


@pytest.mark.parametrize("of", ["outputs", "states"])
@pytest.mark.parametrize("name", list(KINDS))
def test_padding_changes_no_bit_of_a_value_or_gradient(name, of, rng):
    """Against each sequence run alone: cut to its length, in a batch of as many (a product's last bit depends
    on the size of the batch), with a loss that reads every number once (a sum's depends on the order)."""
    made = layer(KINDS[name], rng)
    parameters = list(made.parameters().values())
    states = [rng.standard_normal(s.shape) for s in made.initial_state(N)]
    data, weigh = rng.standard_normal((T, N, D)), rng.standard_normal((T, N, 2 * H))

    def results(n, length, steps, **options):
        x = Tensor(data[:steps], requires_grad=True)
        first = [Tensor(s, requires_grad=True) for s in states]
        r = runs(made, x, first, **options)
        read = [r.h[t, n] for t in range(length)] if of == "outputs" else [s[n] for s in r.state]
        loss = sum((q * weigh[k, n, : q.shape[-1]]).sum() for k, q in enumerate(read))
        *of_parameters, of_x = gradients(loss, [*parameters, x])
        assert not of_x[length:].any() and not np.delete(of_x, n, axis=1).any(), "a gradient of padding"
        values = [r.h.value[:length, n], *(s.value[n] for s in r.state)]
        return [
            *values,
            of_x[:length],
            *of_parameters,
            *(np.zeros(s.shape) if s.grad is None else s.grad for s in first),
        ]

    for n, length in enumerate(LENGTHS):
        if length:
            pairs = zip(results(n, length, T, lengths=LENGTHS), results(n, length, length), strict=True)
            for ours, theirs in pairs:
                same_bits(ours, theirs, f"sequence {n}")
    r = runs(made, data, states, lengths=LENGTHS)
    for s, given in zip(r.state, states, strict=True):
        same_bits(s.value[2], given[2], "a sequence of no steps keeps its first state")


@pytest.mark.parametrize("name", ["lstm", "gru", "irnn", "lstm_layer_norm"])
@pytest.mark.parametrize("padding", [0.0, 1e30, np.inf, np.nan])
def test_what_stands_in_the_padding_is_never_read(name, padding, rng):
    made = layer(CELLS[name], rng)
    data = rng.standard_normal((T, N, D))
    mask = np.arange(T)[:, None] < LENGTHS
    results = []
    for fill in (7.0, padding):
        x = Tensor(np.where(mask[:, :, None], data, fill), requires_grad=True)
        r = run(made, x, lengths=LENGTHS)
        found = gradients((r.h * r.h).sum(), [x, *made.parameters().values()])
        results.append([r.h.value, *(s.value for s in r.state), *found])
    for ours, theirs in zip(*results, strict=True):
        assert np.isfinite(theirs).all()
        same_bits(ours, theirs)


@every_cell
def test_gradients_with_lengths_match_finite_differences(name, rng):
    made = layer(CELLS[name], rng)
    if name == "irnn":
        made.W_h.value, made.b_h.value = 0.1 * made.W_h.value, np.array([3.0, -3, 3, -3, 3])
    names, weigh = list(made.parameters()), rng.standard_normal((T, N, made.width))

    def function(x, *values):
        for key, value in zip(names, values, strict=True):
            setattr(made, key, value)
        r = run(made, x, lengths=LENGTHS)
        return (r.h * weigh).sum() + sum((s * s).sum() for s in r.state)

    points = [rng.standard_normal((T, N, D)), *(p.value for p in made.parameters().values())]
    assert check_grads(function, points, order=1, tolerance=1e-5, complex_step=False) <= 1e-5


def test_a_mask_may_have_holes_and_may_mask_everything(rng):
    cell, x = layer(LSTM, rng), rng.standard_normal((T, N, D))
    holes = np.ones((T, N), bool)
    holes[[1, 4]] = False
    np.testing.assert_array_equal(
        run(cell, x, mask=holes).state[1].value, run(cell, x[[0, 2, 3, 5]]).state[1].value
    )
    first = [Tensor(rng.standard_normal((N, H)), requires_grad=True) for _ in "hc"]
    r = run(cell, x, first, mask=np.zeros((T, N), bool))
    for s, given in zip(r.state, first, strict=True):
        same_bits(s.value, given.value)
    found = gradients(r.state[0].sum(), [*first, *cell.parameters().values()])
    same_bits(found[0], np.ones((N, H)))
    assert not any(g.any() for g in found[1:])


BAD = {
    "longer than T": ({"lengths": [1, 2, 7, 3]}, InputError, r"LSTM: sequence 2 has length 7, x has 6 steps"),
    "negative": ({"lengths": [1, -2, 3, 3]}, InputError, r"sequence 1 has length -2"),
    "as floats": ({"lengths": [1.0, 2, 3, 3]}, DTypeError, r"lengths .*whole numbers"),
    "too few": ({"lengths": [1, 2]}, ShapeError, r"lengths .*\(2,\).*\(sequences,\) = \(4,\)"),
    "both": ({"lengths": [1, 2, 3, 3], "mask": np.ones((T, N), bool)}, InputError, "give one of them"),
    "mask of numbers": ({"mask": np.ones((T, N))}, DTypeError, r"the mask .*booleans, e.g. mask > 0"),
    "mask turned": ({"mask": np.ones((N, T), bool)}, ShapeError, r"the mask .*\(4, 6\).*= \(6, 4\)"),
    "a cut at every 0 steps": ({"truncate": 0}, InputError, r"LSTM: truncate = 0; give a whole number"),
    "half a step": ({"truncate": 1.5}, InputError, r"truncate = 1.5"),
}  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize(("options", "kind", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_masked_or_cut_is_named(options, kind, words, rng):
    with pytest.raises(kind, match=words):
        run(layer(LSTM, rng), rng.standard_normal((T, N, D)), **options)


@pytest.mark.smoke
def test_states_that_do_not_fit_are_named(rng):
    x, zero = rng.standard_normal((T, N, D)), np.zeros((N, H))
    both, stack = layer(Bidirectional.of(LSTM), rng), Stack(LSTM, D, H, 2, rng, "float64")
    with pytest.raises(ShapeError, match="Bidirectional: 2 states given, it has 4: h c h_back c_back"):
        both(x, [zero, zero])
    with pytest.raises(ShapeError, match=r"Stack: 2 states given, it has 4: 1\.h 1\.c 2\.h 2\.c"):
        stack(x, [zero, zero])
    with pytest.raises(ShapeError, match=r"LSTM: state c is .*\(4, 6\)"):
        stack(x, [zero, zero, zero, np.zeros((N, H + 1))])
    with pytest.raises(DTypeError, match=r"LSTM: state 'h' .*float32.*float64"):
        stack(x, [zero.astype("f4"), zero, zero, zero])
    with pytest.raises(InputError, match=r"no 'f'; it has h, and the gates of each direction in .forward"):
        both(x)["f"]


# Both directions, layers.


def test_the_backward_direction_is_the_forward_one_on_the_turned_sequence(rng):
    cell, x = layer(LSTM, rng), rng.standard_normal((T, N, D))
    there, back = run(cell, x, reverse=True), run(cell, x[::-1].copy())
    for name in ("f", "c", "h"):
        same_bits(there[name].value, back[name].value[::-1])
    same_bits(there.state[1].value, back.state[1].value)
    assert [s.t for s in there.steps] == [1, 2, 3, 4, 5, 6] and there.steps[0].h.scope == ("t=1",)


@every_cell
def test_both_directions_match_finite_differences(name, rng):
    both = layer(Bidirectional.of(CELLS[name]), rng)
    for cell in both.cells if name in ("irnn", "mlstm") else ():  # no kink is near
        if name == "irnn":
            cell.W_h.value, cell.b_h.value = 0.1 * cell.W_h.value, np.array([3.0, -3, 3, -3, 3])
        else:
            cell.b_i.value = cell.b_i.value - 4.0  # |n·q| stays below e^−m
    names = list(both.parameters())

    def function(x, *values):
        for key, value in zip(names, values, strict=True):
            way, own = key.split(".")
            setattr(getattr(both, way), own, value)
        r = both(x)
        return r.h, *r.state

    points = [rng.standard_normal((T, 2, D)), *(p.value for p in both.parameters().values())]
    assert check_grads(function, points, order=1, tolerance=1e-5, complex_step=False) <= 1e-5


@pytest.mark.smoke
def test_a_stack_feeds_each_layer_with_the_one_below_and_names_all(rng):
    stack = Stack(Bidirectional.of(GRU), D, H, 2, rng, "float64")
    x = rng.standard_normal((T, N, D))
    r = stack(x)
    by_hand = stack.cells[1](stack.cells[0](x).h)
    same_bits(r.h.value, by_hand.h.value)
    assert r.h.shape == (T, N, 2 * H) and len(r.state) == len(stack.state.split()) == 4
    assert {s.h.scope for s in r.steps} == {
        (f"layer 2 / {w}", f"t={t}") for w in ("forward", "backward") for t in range(1, 7)
    }
    assert list(stack.parameters())[:2] == ["1.forward.W_z", "1.forward.W_r"]
    again = stack(x, stack.initial_state(N))
    same_bits(again.h.value, r.h.value)


# Dropout.


@pytest.mark.smoke
def test_between_layers_masks_multiply_what_is_passed_on(rng):
    stack, x = Stack(LSTM, D, H, 3, rng, "float64"), rng.standard_normal((T, N, D))
    masks = stack.dropout_masks(T, N, 0.4, rng)
    assert masks.shape == (2, T, N, H) and set(np.unique(masks)) == {0, 1 / 0.6}
    by_hand = Tensor(x)
    for k, cell in enumerate(stack.cells):
        by_hand = run(cell, by_hand).h * (masks[k] if k < 2 else 1.0)
    same_bits(stack(x, dropout=masks).h.value, by_hand.value)
    one_for_all = stack.dropout_masks(1, N, 0.4, rng)
    same_bits(
        stack(x, dropout=one_for_all).h.value,
        stack(x, dropout=np.broadcast_to(one_for_all, (2, T, N, H))).h.value,
    )
    same_bits(stack(x, dropout=stack.dropout_masks(T, N, 0, rng)).h.value, stack(x).h.value)


@pytest.mark.smoke
def test_recurrent_dropout_hides_units_from_products_and_leaves_the_state_itself(rng):
    x, m = rng.standard_normal((T, N, D)), np.array([0, 2.0, 2, 0, 2])
    lstm = layer(LSTM, rng)
    h = c = Tensor(np.zeros((N, H)))
    for row in x:  # an LSTM reads h in its products alone
        quantities = lstm.step(Tensor(row), h * m, c)
        h, c = quantities["h"], quantities["c"]
    np.testing.assert_allclose(run(dropped(lstm, m), x).h.value[-1], h.value, rtol=1e-12)
    gru = layer(GRU, rng)
    h = np.zeros((N, H))
    W_z, W_r, W = (p.value for p in gru.parameters().values())
    for row in x:
        seen = np.concatenate([h * m, row], axis=1)
        z, r = 1 / (1 + np.exp(-seen @ W_z)), 1 / (1 + np.exp(-seen @ W_r))
        h = (1 - z) * h + z * np.tanh(np.concatenate([r * h * m, row], axis=1) @ W)
    np.testing.assert_allclose(run(dropped(gru, m), x).h.value[-1], h, rtol=1e-12)


@pytest.mark.smoke
def test_dropped_layers_train_the_weights_of_the_layer_they_came_from(rng):
    for kind in (
        *CELLS.values(),
        Bidirectional.of(RNN),
        lambda *a: Stack(Bidirectional.of(JANET), *a[:2], 2, *a[2:]),
    ):
        made = layer(kind, rng)
        masks = recurrent_masks(made, 0.5, rng)
        other, x = dropped(made, masks), rng.standard_normal((3, N, D))
        loss = (runs(other, x).h * 1.0).sum()
        found = gradients(loss, list(made.parameters().values()))
        assert all(np.isfinite(g).all() for g in found) and any(g.any() for g in found)
        assert all(p.is_leaf for p in made.parameters().values())
        none_dropped = dropped(made, np.ones_like(masks))
        same_bits(runs(none_dropped, x).h.value, runs(made, x).h.value)


@pytest.mark.smoke
@pytest.mark.parametrize("rate", [1, 1.5, -0.1, float("nan"), "half", True])
def test_a_rate_of_dropout_outside_of_its_range_is_named(rate, rng):
    stack = Stack(LSTM, D, H, 2, rng)
    for make in (lambda: stack.dropout_masks(T, N, rate, rng), lambda: recurrent_masks(stack, rate, rng)):
        with pytest.raises(InputError, match=r"dropout: rate = .*at least 0 and below 1"):
            make()
    with pytest.raises(InputError, match="default_rng"):
        stack.dropout_masks(T, N, 0.5, 3)


@pytest.mark.smoke
def test_masks_of_another_shape_are_named(rng):
    stack, x = Stack(LSTM, D, H, 2, rng), np.zeros((T, N, D), "f4")
    with pytest.raises(ShapeError, match=r"Stack: dropout .*\(1, T, N, 5\)"):
        stack(x, dropout=np.ones((3, T, N, H), "f4"))
    with pytest.raises(ShapeError, match=r"dropped Stack: masks .*give \(2, 5\)"):
        dropped(stack, np.ones(H, "f4"))


# Truncated backpropagation through time, carried state.


@pytest.mark.parametrize("every", [1, 2, 4, 6, 9])
def test_truncation_is_windows_one_after_the_other_with_the_state_handed_on(every, rng):
    cell, x = layer(LSTM, rng), Tensor(rng.standard_normal((T, N, D)), requires_grad=True)
    weigh, parameters = rng.standard_normal((T, N, H)), list(cell.parameters().values())
    r = run(cell, x, truncate=every)
    cut = gradients((r.h * weigh).sum(), [*parameters, x])
    for p in (*parameters, x):
        p.grad = None
    state = None
    for start in range(0, T, every):
        window = run(cell, x[start : start + every], state)
        state = [s.detach() for s in window.state]
        (window.h * weigh[start : start + every]).sum().backward()
    same_bits(r.h.value, run(cell, x).h.value)
    for ours, p in zip(cut, [*parameters, x], strict=True):
        np.testing.assert_allclose(ours, p.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.smoke
def test_a_cut_is_seen_in_the_graph(rng):
    cell = layer(RNN, rng)
    r = run(cell, rng.standard_normal((T, N, D)), truncate=2)
    loss = r.steps[-1].h.sum()
    loss.backward(record=True)
    states = grad_status(loss)
    assert [states[s.h.number] for s in r.steps] == ["cut"] * 4 + ["value"] * 2
    detached = [n for n in mg.ancestors(loss) if n.op is not None and n.op.name == "detach"]
    assert [n.scope for n in detached] == [("t=3",), ("t=5",)]


@pytest.mark.smoke
def test_carried_state_continues_a_stack_in_both_kinds_of_run(rng):
    stack, x = Stack(LSTM, D, H, 2, rng, "float64"), rng.standard_normal((T, N, D))
    whole, first = stack(x), stack(x[:4])
    second = stack(x[4:], first.state)
    same_bits(second.h.value, whole.h.value[4:])
    for a, b in zip(second.state, whole.state, strict=True):
        same_bits(a.value, b.value)


# Compiled = eager.


def assert_compiled(function, arguments, leaves, variants=1):
    arguments = [Tensor(a, requires_grad=np.asarray(a).dtype.kind == "f") for a in arguments]
    leaves = [*leaves, *(a for a in arguments if a.requires_grad)]
    loss = function(*arguments)
    expected = gradients(loss, leaves)
    compiled = mg.compile(function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # falling back to the eager run would warn
        value, found = compiled.value_and_grad(*arguments)
    assert value.item() == pytest.approx(loss.item(), rel=1e-12)
    for p, g in zip(leaves, expected, strict=True):
        assert abs(found[p] - g).max(initial=0) <= 1e-12 * max(1, abs(g).max(initial=0)), p.name
    assert sum(map(len, compiled.variants.values())) == variants
    return compiled


def total(r):
    return (r.h * r.h * r.h).sum() + sum((s * s).sum() for s in r.state)


def test_masks_lengths_and_cuts_compile(rng):
    cell, x = layer(RNN, rng), rng.standard_normal((T, N, D))
    for reverse in (False, True):
        compiled = assert_compiled(
            lambda x, n, reverse=reverse: total(run(cell, x, lengths=n, truncate=2, reverse=reverse)),
            (x, LENGTHS), cell.parameters().values(),
        )  # fmt: skip
    other = rng.standard_normal((9, 2, D))
    same = run(cell, other, lengths=[9, 3], truncate=2, reverse=True)
    assert compiled(other, np.array([9, 3])).item() == pytest.approx(total(same).item(), rel=1e-12)
    assert_compiled(
        lambda x, m: total(run(cell, x, mask=m)), (x, rng.random((T, N)) > 0.4), cell.parameters().values()
    )


def test_layers_in_both_directions_with_dropout_compile(rng):
    stack = Stack(Bidirectional.of(RNN), D, H, 2, rng, "float64")

    def function(x, lengths, between, recurrent):
        return total(dropped(stack, recurrent)(x, lengths=lengths, dropout=between))

    arguments = (
        rng.standard_normal((T, N, D)),
        LENGTHS,
        stack.dropout_masks(T, N, 0.3, rng),
        recurrent_masks(stack, 0.3, rng),
    )
    assert_compiled(function, arguments, stack.parameters().values())


@pytest.mark.smoke
def test_what_does_not_fit_is_named_by_a_compiled_function_as_it_is_eagerly(rng):
    cell = layer(LSTM, rng)
    for function, x, words in (
        (lambda x: run(cell, x).h.sum(), np.zeros((T, N, D + 1)), r"LSTM step t=1: x .*\(sequences, 3\)"),
        (lambda x: run(cell, x, [np.zeros((N, H))]).h.sum(), np.zeros((T, N, D)), r"LSTM: 1 states given"),
        (lambda x: run(cell, x, lengths=[1, 2]).h.sum(), np.zeros((T, N, D)), r"LSTM: lengths .*\(2,\)"),
    ):
        with pytest.raises(ShapeError, match=words):
            mg.compile(function)(x)


@pytest.mark.smoke
def test_a_scan_may_run_from_the_end(rng):
    x = rng.standard_normal((4, 2))
    last, seen = scan(lambda c, x: (c + x, c), Tensor(np.zeros(2)), x, reverse=True)
    np.testing.assert_allclose(last.value, x.sum(axis=0))
    np.testing.assert_allclose(seen.value, np.cumsum(x[::-1], axis=0)[::-1] - x)


@pytest.mark.smoke
def test_steps_of_a_run_are_the_steps_of_unroll(rng):
    cell, x = layer(LSTM, rng), rng.standard_normal((T, N, D))
    steps = run(cell, x, lengths=LENGTHS).steps
    same_bits(np.stack([s.h.value for s in steps]), run(cell, x, lengths=LENGTHS).h.value)
