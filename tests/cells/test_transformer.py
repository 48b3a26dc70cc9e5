"""The Transformer against PyTorch's encoder, finite differences and NumPy; what lies ahead or is padding is never
seen; and compiled is eager.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigrad as mg
from cells import MultiHeadAttention, Output, Transformer, TransformerBlock, generate, many_to_one
from minigrad import DTypeError, InputError, ShapeError, Tensor, ancestors, check_grads

T, N, D, W, HEADS, LAYERS = 6, 4, 3, 8, 2, 2
LENGTHS = np.array([4, 6, 0, 1])  # unsorted; one has nothing, one all


def random_weights(layer, rng):
    """Gains and biases too, whose first values would hide what is swapped."""
    for p in layer.parameters().values():
        p.value = p.value + 0.2 * rng.standard_normal(p.shape)
    return layer


def network(rng, dtype="float64", feedforward=None, causal=True, layers=LAYERS):
    return random_weights(Transformer(D, W, HEADS, layers, rng, feedforward, causal, dtype), rng)


def gradients(loss, of):
    for p in of:
        p.grad = None
    loss.backward()
    return [np.zeros(p.shape) if p.grad is None else p.grad for p in of]


def seen_in(h):
    """The weights of every block, in their order."""
    return [n for n in ancestors(h) if n.name == "alpha"]


# Against PyTorch.

BOUNDS = {"float32": 1e-5, "float64": 1e-10}


def torch():
    return pytest.importorskip("torch", reason="PyTorch is the oracle here: `make torch` installs it")


def close(ours, theirs, dtype, what=""):
    theirs = np.asarray(theirs.detach() if hasattr(theirs, "detach") else theirs)
    size = max(1.0, np.abs(theirs).max(initial=0))
    assert np.abs(np.asarray(ours) - theirs).max(initial=0) <= BOUNDS[dtype] * size, what


def their_attention(module, ours):
    """Puts our weights into an nn.MultiheadAttention; returns our name → a function of its gradient."""
    t = torch()
    p = {name: t.tensor(q.value) for name, q in ours.parameters().items()}
    with t.no_grad():
        module.in_proj_weight.copy_(t.cat([p["W_q"].T, p["W_k"].T, p["W_v"].T]))
        module.in_proj_bias.copy_(t.cat([p["b_q"], p["b_k"], p["b_v"]]))
        module.out_proj.weight.copy_(p["W_o"].T)
        module.out_proj.bias.copy_(p["b_o"])
    width = ours.width

    def part(tensor, k):
        return tensor.grad[k * width : (k + 1) * width]

    found = {f"W_{n}": lambda k=k: part(module.in_proj_weight, k).T for k, n in enumerate("qkv")}
    found |= {f"b_{n}": lambda k=k: part(module.in_proj_bias, k) for k, n in enumerate("qkv")}
    return found | {"W_o": lambda: module.out_proj.weight.grad.T, "b_o": lambda: module.out_proj.bias.grad}


def their_block(module, ours):
    """Likewise for an nn.TransformerEncoderLayer."""
    t = torch()
    inside = their_attention(module.self_attn, ours.attention)
    pairs = {
        "g_a": module.norm1.weight, "b_a": module.norm1.bias, "g_f": module.norm2.weight, "b_f": module.norm2.bias,
        "W_1": module.linear1.weight, "b_1": module.linear1.bias,
        "W_2": module.linear2.weight, "b_2": module.linear2.bias,
    }  # fmt: skip
    with t.no_grad():
        for name, theirs in pairs.items():
            theirs.copy_(t.tensor(getattr(ours, name).value.T))
    return {f"attention.{name}": g for name, g in inside.items()} | {
        name: lambda p=p: p.grad.T if p.ndim == 2 else p.grad for name, p in pairs.items()
    }


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("masked", [False, True])
def test_attention_to_a_memory_equals_pytorchs(masked, dtype, rng):
    t, L = torch(), 5
    ours = random_weights(MultiHeadAttention(W, HEADS, rng, dtype), rng)
    module = t.nn.MultiheadAttention(W, HEADS, dtype=getattr(t, dtype))
    theirs = their_attention(module, ours)
    data = [rng.standard_normal(s).astype(dtype) for s in ((T, N, W), (L, N, W), (T, N, W))]
    x, memory = (Tensor(a, requires_grad=True) for a in data[:2])
    tx, tm = (t.tensor(a, requires_grad=True) for a in data[:2])
    there = np.arange(L) < np.array([[3], [5], [1], [2]])  # (N, L)
    y = ours(x, memory, mask=there[:, None, None] if masked else None)
    ty, weights = module(
        tx, tm, tm, key_padding_mask=t.tensor(~there) if masked else None, average_attn_weights=False
    )
    close(y.value, ty, dtype)
    close(seen_in(y)[0].value, weights, dtype, "alpha")
    (y * data[2]).sum().backward()
    (ty * t.tensor(data[2])).sum().backward()
    close(x.grad, tx.grad, dtype)
    close(memory.grad, tm.grad, dtype)
    for name, p in ours.parameters().items():
        close(p.grad, theirs[name](), dtype, name)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_whole_equals_pytorchs_encoder_with_norms_first(dtype, rng):
    t, hidden = torch(), 12
    net, kind = network(rng, dtype, hidden), getattr(t, dtype)
    make = t.nn.TransformerEncoderLayer
    modules = [make(W, HEADS, hidden, 0.0, norm_first=True, dtype=kind) for _ in range(LAYERS)]
    theirs = [their_block(m, b) for m, b in zip(modules, net.blocks, strict=True)]
    data, weigh = rng.standard_normal((T, N, D)).astype(dtype), rng.standard_normal((T, N, W)).astype(dtype)
    lengths = np.array([4, 6, 2, 1])  # PyTorch has NaN where a sequence has nothing
    x, tx = Tensor(data, requires_grad=True), t.tensor(data, requires_grad=True)
    W_x, b_x, g_h, b_h = (t.tensor(getattr(net, n).value) for n in ("W_x", "b_x", "g_h", "b_h"))
    th = tx @ W_x + b_x + t.tensor(by_the_book(T, W)).to(kind)[:, None]
    ahead = t.ones(T, T, dtype=t.bool).triu(1)
    padding = t.arange(T) >= t.tensor(lengths)[:, None]
    for module in modules:
        th = module(th, src_mask=ahead, src_key_padding_mask=padding)
    th = t.nn.functional.layer_norm(th, (W,), g_h, b_h) * ~padding.T[:, :, None]
    h = net(x, lengths=lengths).outputs
    close(h.value, th, dtype)
    (h * weigh).sum().backward()
    (th * t.tensor(weigh)).sum().backward()
    close(x.grad, tx.grad, dtype)
    for k, (block, found) in enumerate(zip(net.blocks, theirs, strict=True), 1):
        for name, p in block.parameters().items():
            close(p.grad, found[name](), dtype, f"{k}.{name}")


# Against NumPy and finite differences.


def by_the_book(length, width):
    """Section 3.5 of the paper, number by number."""
    table = np.zeros((length, width))
    for pos in range(length):
        for i in range(0, width, 2):
            table[pos, i] = np.sin(pos / 10000 ** (i / width))
            if i + 1 < width:
                table[pos, i + 1] = np.cos(pos / 10000 ** (i / width))
    return table


@pytest.mark.smoke
@pytest.mark.parametrize("width", [1, 6, 7])
def test_positions_are_those_of_the_paper(width):
    from cells.transformer import positions, step_numbers

    found = positions(step_numbers(Tensor(np.zeros((40, 2, 1)))), width, np.dtype("float64"))
    assert found.name == "position" and found.shape == (40, 1, width)
    np.testing.assert_allclose(found.value[:, 0], by_the_book(40, width), atol=1e-12)


def test_gradients_match_finite_differences(rng):
    block = random_weights(TransformerBlock(4, 2, rng, 5, "float64"), rng)
    block.b_1.value = np.array([9.0, -9, 9, -9, 9])  # far from the kink of ReLU
    names = list(block.parameters())
    mask = rng.random((2, 1, 3, 3)) > 0.4

    def function(x, *values):
        for name, value in zip(names, values, strict=True):
            owner = block.attention if name.startswith("attention.") else block
            setattr(owner, name.rpartition(".")[2], value)
        return block(x, mask=mask)

    points = [rng.standard_normal((3, 2, 4)), *(p.value for p in block.parameters().values())]
    assert check_grads(function, points, order=1, tolerance=1e-5, complex_step=False) <= 1e-5


# What must not be seen.


@pytest.mark.smoke
def test_a_step_sees_nothing_of_later_steps_bit_for_bit(rng):
    net, data = network(rng), rng.standard_normal((T, N, D))
    whole = net(data).outputs.value
    for s in range(1, T):
        other = data.copy()
        other[s:] = 100 * rng.standard_normal(other[s:].shape)
        np.testing.assert_array_equal(net(other).outputs.value[:s], whole[:s])
        x = Tensor(data, requires_grad=True)
        (net(x).outputs[s - 1] ** 2).sum().backward()
        assert not x.grad[s:].any() and x.grad[:s].any(axis=2).all()
    net.causal = False
    assert np.abs(net(other).outputs.value[0] - net(data).outputs.value[0]).max() > 1e-3


@pytest.mark.smoke
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padding", [0.0, 1e30, np.inf, np.nan])
def test_padding_changes_no_bit_of_a_value_or_gradient(padding, causal, rng):
    net, data = network(rng, causal=causal), rng.standard_normal((T, N, D))
    real = np.arange(T)[:, None] < LENGTHS
    parameters, results = list(net.parameters().values()), []
    for fill in (7.0, padding):
        x = Tensor(np.where(real[:, :, None], data, fill), requires_grad=True)
        h = net(x, lengths=LENGTHS).outputs
        results.append([h.value, *gradients((h * h * h).sum(), [x, *parameters])])
    for ours, theirs in zip(*results, strict=True):
        assert np.isfinite(theirs).all()
        np.testing.assert_array_equal(ours, theirs)
    values, of_x = results[0][:2]
    assert not values[~real].any() and not of_x[~real].any()


@pytest.mark.parametrize("causal", [True, False])
def test_a_padded_sequence_is_the_sequence_alone(causal, rng):
    net, data = network(rng, causal=causal), rng.standard_normal((T, N, D))
    h = net(data, lengths=LENGTHS).outputs.value
    for n, length in enumerate(LENGTHS):
        if length:
            alone = net(data[:length, n : n + 1]).outputs.value
            np.testing.assert_allclose(h[:length, n : n + 1], alone, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(net(data, mask=np.arange(T)[:, None] < LENGTHS).outputs.value, h)


@pytest.mark.smoke
def test_who_may_look_nowhere_has_zeros_for_context_and_no_gradient(rng):
    attention = random_weights(MultiHeadAttention(W, HEADS, rng, "float64"), rng)
    x = Tensor(rng.standard_normal((T, N, W)), requires_grad=True)
    mask = np.ones((N, 1, T, T), bool)
    mask[1] = mask[:, :, 2] = False
    y = attention(x, mask=mask)
    alpha = seen_in(y)[0].value
    assert not alpha[1].any() and not alpha[:, :, 2].any()
    np.testing.assert_allclose(alpha[[0, 2, 3]][:, :, [0, 1, 3, 4, 5]].sum(axis=-1), 1)
    np.testing.assert_array_equal(y.value[2], np.broadcast_to(attention.b_o.value, (N, W)))
    assert all(np.isfinite(g).all() for g in gradients((y * y).sum(), [x, *attention.parameters().values()]))
    assert not x.grad[:, 1].any() and x.grad[:, [0, 2, 3]].any(axis=2).all()


# Dropout, names.


@pytest.mark.smoke
def test_dropout_multiplies_what_is_added(rng):
    net, x = network(rng), rng.standard_normal((T, N, D))
    masks = net.dropout_masks(T, N, 0.4, rng)
    assert masks.shape == (1 + 2 * LAYERS, T, N, W) and set(np.unique(masks)) == {0, 1 / 0.6}
    np.testing.assert_array_equal(net(x, dropout=np.ones_like(masks)).outputs.value, net(x).outputs.value)
    masks[1:] = 0  # no block adds anything
    h = (x @ net.W_x.value + net.b_x.value + by_the_book(T, W)[:, None]) * masks[0]
    by_hand = mg.layer_norm(h, net.g_h, net.b_h).value
    np.testing.assert_allclose(net(x, dropout=masks).outputs.value, by_hand, rtol=1e-10, atol=1e-12)
    one_for_all = net.dropout_masks(1, N, 0.4, rng)
    repeated = np.broadcast_to(one_for_all, (1 + 2 * LAYERS, T, N, W))
    np.testing.assert_array_equal(
        net(x, dropout=one_for_all).outputs.value, net(x, dropout=repeated).outputs.value
    )


@pytest.mark.smoke
def test_the_graph_names_what_attention_computes(rng):
    h = network(rng)(rng.standard_normal((T, N, D))).outputs
    found = {
        (n.scope, n.name): n.shape
        for n in ancestors(h)
        if n.scope and n.name in ("q", "k", "v", "alpha", "context")
    }
    head = (N, HEADS, T, W // HEADS)
    for block in ("block 1", "block 2"):
        assert [found[(block,), n] for n in ("q", "k", "v")] == [head] * 3
        assert found[(block,), "alpha"] == (N, HEADS, T, T)
        assert found[(block,), "context"] == (T, N, W)
    assert len(found) == 10 and h.name == "h"


@pytest.mark.smoke
def test_parameters_are_counted_named_and_loaded(rng):
    net, other = network(rng), Transformer(D, W, HEADS, LAYERS, rng, dtype="float64")
    names = list(net.parameters())
    assert names[:4] == ["W_x", "b_x", "1.attention.W_q", "1.attention.b_q"] and names[-2:] == ["g_h", "b_h"]
    block = 4 * W * (W + 1) + 4 * W + W * 4 * W + 4 * W + 4 * W * W + W
    assert net.size == LAYERS * block + D * W + W + 2 * W and net.width == W
    other.load_state_dict({name: p.value for name, p in net.parameters().items()})
    x = rng.standard_normal((T, N, D))
    np.testing.assert_array_equal(other(x).outputs.value, net(x).outputs.value)


@pytest.mark.smoke
def test_it_is_a_layer_for_the_sequence_configurations(rng):
    net, output = network(rng), Output(W, D, rng, dtype="float64")
    output.W_y.value = 9 * output.W_y.value
    first = rng.standard_normal((2, N, D))
    written = generate(net, output, first, 4)
    assert written.shape == (4, N) and len(np.unique(written)) > 1
    given = np.concatenate([first, np.eye(D)[written[:-1]]])
    np.testing.assert_array_equal(output(net(given).outputs).value.argmax(axis=-1)[1:], written)
    last = many_to_one(net, output, given, lengths=[5, 3, 1, 2])
    np.testing.assert_allclose(last.value[1], output(net(given).outputs).value[2, 1], rtol=1e-12)
    with pytest.raises(InputError, match="sees what comes after"):
        generate(network(rng, causal=False), output, first, 4)


# Bad input.

X = np.zeros((T, N, D))
BAD = {
    "heads": (lambda net, r: Transformer(D, 8, 3, 1, r), InputError, r"3 heads do not divide a width of 8; give 1, 2, 4 or 8"),
    "no head": (lambda net, r: MultiHeadAttention(8, 0, r), InputError, "heads = 0"),
    "no layer": (lambda net, r: Transformer(D, 8, 2, 0, r), InputError, "layers = 0"),
    "no hidden": (lambda net, r: TransformerBlock(8, 2, r, 0), InputError, "feedforward = 0"),
    "features": (lambda net, r: net(np.zeros((T, N, D + 1))), ShapeError, r"Transformer: x .*\(6, 4, 4\).*sequences, 3\)"),
    "axes": (lambda net, r: net(np.zeros((T, D))), ShapeError, r"Transformer: x .*\(steps, sequences, 3\)"),
    "type": (lambda net, r: net(X.astype("f4")), DTypeError, "x is float32, the layer float64"),
    "lengths": (lambda net, r: net(X, lengths=[1, 2, 7, 3]), InputError, "Transformer: sequence 2 has length 7"),
    "both": (lambda net, r: net(X, lengths=LENGTHS, mask=np.ones((T, N), bool)), InputError, "one of them"),
    "rate": (lambda net, r: net.dropout_masks(T, N, 1.0, r), InputError, "dropout: rate = 1.0"),
    "masks": (lambda net, r: net(X, dropout=np.ones((2, T, N, W))), ShapeError, r"\(5, T, N, 8\)"),
}  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize(("act", "kind", "words"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_named(act, kind, words, rng):
    with pytest.raises(kind, match=words):
        act(network(rng), rng)


# Compiled = eager.


def test_compiled_is_eager_for_every_number_of_steps(rng):
    net = network(rng, layers=1)

    def loss(x, lengths, dropout):
        h = net(x, lengths=lengths, dropout=dropout).outputs
        return (h * h * h).sum(), h

    compiled, parameters = mg.compile(loss), list(net.parameters().values())
    for length, lengths in ((T, LENGTHS), (9, np.array([3, 9]))):
        sequences = len(lengths)
        masks = net.dropout_masks(length, sequences, 0.3, rng)
        x = Tensor(rng.standard_normal((length, sequences, D)), requires_grad=True)
        value, h = loss(x, lengths, masks)
        expected = gradients(value, [x, *parameters])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # falling back to the eager run would warn
            (same, same_h), found = compiled.value_and_grad(x, lengths, masks)
        assert same.item() == pytest.approx(value.item(), rel=1e-12)
        np.testing.assert_allclose(same_h.value, h.value, rtol=1e-12, atol=1e-12)
        for p, g in zip([x, *parameters], expected, strict=True):
            assert abs(found[p] - g).max() <= 1e-12 * max(1, abs(g).max()), p.name
    assert sum(map(len, compiled.variants.values())) == 1
