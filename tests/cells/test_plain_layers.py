"""Layers without a recurrence: Dense, Output, Embedding, LayerNorm, Dropout, and Sequential around all of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import minigrad as mg
import viz
from cells import (
    CELLS,
    GRU,
    LSTM,
    TCN,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    LayerNorm,
    Output,
    Sequential,
    Stack,
    Transformer,
    run,
)
from minigrad import DTypeError, InputError, ShapeError, Tensor, check_grads, optim

T, N, D, K, V = 5, 3, 4, 6, 7


def numbers(rng, dtype, T=T, N=N):
    return rng.standard_normal((T, N, D)).astype(dtype)


def codes(rng, dtype=None, T=T, N=N):
    return rng.integers(0, V, (T, N))


@dataclass
class Row:
    make: Callable  # (rng, dtype) → layer
    draw: Callable = numbers  # (rng, dtype, T, N) → input
    drops: bool = False
    kinks: bool = False


ROWS = {
    "Dense": Row(lambda rng, dtype: Dense(D, K, rng, mg.tanh, dtype)),
    "Output": Row(lambda rng, dtype: Output(D, K, rng, dtype)),
    "Embedding": Row(lambda rng, dtype: Embedding(V, K, rng, dtype=dtype), codes),
    "Embedding with padding": Row(lambda rng, dtype: Embedding(V, K, rng, padding=2, dtype=dtype), codes),
    "LayerNorm": Row(lambda rng, dtype: LayerNorm(D, dtype=dtype)),
    "Dropout": Row(lambda rng, dtype: Dropout(0.4, dtype), drops=True),
    "Sequential": Row(
        lambda rng, dtype: Sequential(
            Embedding(V, D, rng, padding=0, dtype=dtype),
            LSTM(D, D, rng, dtype),
            Dropout(0.3),
            mg.tanh,
            Sequential(LayerNorm(D, dtype=dtype), Dropout(0.5), Bidirectional(GRU, D, 2, rng, dtype)),
            Stack(CELLS["rnn"], D, D, 2, rng, dtype),
            Output(D, K, rng, dtype),
        ),
        codes,
        drops=True,
    ),
    "Sequential of whole sequences": Row(
        lambda rng, dtype: Sequential(
            Dense(D, D, rng, dtype=dtype),
            TCN(D, D, 1, 2, rng, dtype),
            Transformer(D, D, 2, 1, rng, dtype=dtype),
        ),
        kinks=True,
    ),
}
every_layer = pytest.mark.parametrize("name", list(ROWS))


def made(name, rng, dtype="float64"):
    """A layer whose parameters are random, so that none that starts at 0 or 1 hides; and options of a call."""
    layer = ROWS[name].make(rng, dtype)
    for p in layer.parameters().values():
        p.value = p.value + 0.3 * rng.standard_normal(p.shape)
    return layer


def options(name, layer, x, rng) -> dict:
    if not ROWS[name].drops:
        return {}
    if isinstance(layer, Dropout):
        return {"dropout": layer.dropout_masks(x.shape, rng, x.dtype)}
    return {"dropout": layer.dropout_masks(x, rng)}


@every_layer
def test_gradients_are_those_of_finite_differences(name, rng):
    layer = made(name, rng)
    x = ROWS[name].draw(rng, "float64")
    with_masks, own = options(name, layer, x, rng), layer.parameters()
    weigh = rng.standard_normal(layer(x).shape)
    for wanted, p in own.items():
        owner, attribute = layer, wanted
        while "." in attribute:  # "5.3.forward.W"
            step, _, attribute = attribute.partition(".")
            kept = getattr(owner, owner.numbered)[int(step) - 1] if step.isdigit() else getattr(owner, step)
            owner = kept

        def function(value, owner=owner, attribute=attribute):
            vars(owner)[attribute] = value
            return (layer(x, **with_masks) * weigh).sum()

        try:
            assert error(name, function, p.value) <= 1e-5, wanted
        finally:
            vars(owner)[attribute] = p
    if x.dtype.kind == "f":
        assert error(name, lambda x: (layer(x, **with_masks) * weigh).sum(), x) <= 1e-5


def error(name, function, point) -> float:
    """How far reverse mode is from finite differences, by steps that meet no kink."""
    if not ROWS[name].kinks:
        return check_grads(function, [point], order=1, tolerance=1e-5, complex_step=False)
    leaf, h = Tensor(point, requires_grad=True), 1e-6
    ways = np.random.default_rng(0).standard_normal((3, *point.shape))
    exact = (mg.grad(function(leaf), leaf).value * ways).reshape(3, -1).sum(1)
    found = [
        (function(Tensor(point + h * u)).item() - function(Tensor(point - h * u)).item()) / (2 * h)
        for u in ways
    ]
    return abs(exact - found).max() / max(abs(exact).max(), 1e-2)  # b_k of attention has none


@every_layer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_is_eager_and_serves_every_length(name, dtype, rng):
    layer = made(name, rng, dtype)
    weigh = rng.standard_normal(layer(ROWS[name].draw(rng, dtype)).shape[-1]).astype(dtype)

    def loss(x, dropout=None):
        return ((layer(x) if dropout is None else layer(x, dropout=dropout)) * weigh).sum()

    compiled, close = (
        mg.compile(loss),
        dict(rtol=2e-4, atol=2e-4) if dtype == "float32" else dict(rtol=1e-9, atol=1e-11),
    )
    learned = list(layer.parameters().values())
    for length, sequences in ((T, N), (1, 1), (8, 2)):
        x = ROWS[name].draw(rng, dtype, T=length, N=sequences)
        for given in ({}, options(name, layer, x, rng)):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                value, gradients = (
                    compiled.value_and_grad(x, **given) if learned else (compiled(x, **given), {})
                )
            seen = loss(x, **given)
            np.testing.assert_allclose(value.value, seen.value, **close)
            for p, g in zip(learned, mg.grad(seen, learned) if learned else [], strict=True):
                np.testing.assert_allclose(gradients[p], g.value, err_msg=p.name, **close)


@every_layer
def test_saved_loaded_printed_and_drawn(name, rng, tmp_path):
    layer, other = made(name, rng), made(name, rng)
    x = ROWS[name].draw(rng, "float64")
    layer.save(tmp_path / "layer.safetensors")
    other.load(tmp_path / "layer.safetensors")
    np.testing.assert_array_equal(layer(x).value, other(x).value)
    assert repr(layer).startswith(f"{layer.described()}, {layer.size:,} parameters, float")
    leaf = Tensor(x, requires_grad=x.dtype.kind == "f", name="x")
    loss = (layer(leaf, **options(name, layer, x, rng)) ** 2).mean().named("L")
    loss.backward(record=True)
    dot = viz.draw(loss, level="operation").dot
    for p in layer.parameters().values():
        assert f">{p.name}<" in dot or p.name.split("_")[0] in dot, p.name
    assert viz.draw(loss).dot == viz.draw(loss).dot


# Embedding.


@pytest.mark.smoke
def test_an_embedding_is_a_one_hot_input_times_its_matrix(rng):
    layer = Embedding(V, K, rng, dtype="float64")
    for shape in ((), (4,), (T, N), (2, 1, 3), (0, 2)):
        index = rng.integers(0, V, shape)
        out = layer(index)
        assert out.shape == (*shape, K)
        np.testing.assert_array_equal(out.value, np.eye(V)[index] @ layer.W.value)
    for dtype in (np.int32, np.uint8, np.int64):
        np.testing.assert_array_equal(layer(np.array([1, 2], dtype)).value, layer.W.value[1:3])
    np.testing.assert_array_equal(layer([1, 2]).value, layer.W.value[1:3])


@pytest.mark.smoke
def test_the_padding_row_stays_zero_and_gives_zero(rng):
    layer = Embedding(V, K, rng, padding=3)
    index = np.array([[3, 1], [3, 3], [0, 3]])
    assert not layer.W.value[3].any() and layer.W.value[[0, 1, 2, 4, 5, 6]].all()
    optimiser = optim.Adam(layer.parameters(), 0.1, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        ((layer(index) - 1.0) ** 2).sum().backward()
        assert (
            not layer.W.grad[3].any() and layer.W.grad[[0, 1]].all() and not layer.W.grad[[2, 4, 5, 6]].any()
        )
        optimiser.step()
    assert not layer.W.value[3].any()
    layer.W.value = np.ones((V, K))  # loaded from elsewhere: what comes out stays 0
    assert not layer(index).value[index == 3].any()


@pytest.mark.smoke
def test_an_index_that_is_none_is_named(rng):
    layer = Embedding(V, K, rng)
    with pytest.raises(
        InputError, match=r"gather of 'W' .*, 'x' .*: index 7 at \(1, 0\) outside the rows, 0 … 6"
    ):
        layer(np.array([[0, 6], [7, -1]]))
    with pytest.raises(InputError, match=r"index -1 outside the rows, 0 … 6"):
        layer(-1)
    for bad in (np.array([0.0, 1.0]), np.array([True])):
        with pytest.raises(DTypeError, match=r"Embedding: .*give whole numbers"):
            layer(bad)
    compiled = mg.compile(lambda x: layer(x).sum())
    compiled(np.array([0, 6]))
    for bad in ([0, 7], [-1, 0]):
        with pytest.raises(
            InputError, match=r"gather of 'W' \(7, 6\) .*, 'x' .*: index .* outside the rows, 0 … 6"
        ):
            compiled(np.array(bad))
    for padding in (7, -1, 1.0, True):
        with pytest.raises(InputError, match=r"padding = .*give a class from 0 to 6, or None"):
            Embedding(V, K, rng, padding=padding)
    with pytest.raises(InputError, match="Embedding: classes = 0"):
        Embedding(0, K, rng)


@pytest.mark.oracle
@pytest.mark.parametrize("padding", [None, 2])
def test_embedding_is_pytorchs(padding, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    layer = Embedding(V, K, rng, padding=padding, dtype="float64")
    theirs = torch.nn.Embedding(V, K, padding_idx=padding, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(layer.W.numpy()))
    index, weigh = rng.integers(0, V, (T, N)), rng.standard_normal((T, N, K))
    index[0] = 2
    out = layer(index)
    (out * weigh).sum().backward()
    expected = theirs(torch.from_numpy(index))
    (expected * torch.from_numpy(weigh)).sum().backward()
    np.testing.assert_array_equal(out.value, expected.detach().numpy())
    np.testing.assert_allclose(layer.W.grad, theirs.weight.grad.numpy(), rtol=1e-14)


# LayerNorm.


@pytest.mark.oracle
@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_layer_norm_is_pytorchs(epsilon, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    layer = LayerNorm(D, epsilon, dtype="float64")
    theirs = torch.nn.LayerNorm(D, eps=epsilon, dtype=torch.float64)
    for p, q in ((layer.g, theirs.weight), (layer.b, theirs.bias)):
        p.value = rng.standard_normal(D)
        with torch.no_grad():
            q.copy_(torch.from_numpy(p.numpy()))
    x, weigh = rng.standard_normal((T, N, D)), rng.standard_normal((T, N, D))
    ours, their_x = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    out, expected = layer(ours), theirs(their_x)
    (out * weigh).sum().backward()
    (expected * torch.from_numpy(weigh)).sum().backward()
    np.testing.assert_allclose(out.value, expected.detach().numpy(), rtol=1e-12, atol=1e-13)
    pairs = ((ours.grad, their_x.grad), (layer.g.grad, theirs.weight.grad), (layer.b.grad, theirs.bias.grad))
    for a, b in pairs:
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.smoke
def test_layer_norm_gives_mean_0_and_variance_1_and_names_what_does_not_fit(rng):
    layer = LayerNorm(D)
    y = layer(3 + 5 * rng.standard_normal((T, N, D)).astype("f4")).value
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(-1), 1, atol=1e-3)
    with pytest.raises(ShapeError, match=r"LayerNorm: 'x' \(3, 5\).*made for \(…, 4\)"):
        layer(np.ones((3, 5), "f4"))
    with pytest.raises(DTypeError, match="x is float64, the layer float32"):
        layer(np.ones((3, 4)))
    for epsilon in (0, -1.0, np.nan, np.inf, "1"):
        with pytest.raises(InputError, match="epsilon"):
            LayerNorm(D, epsilon)


# Dropout.


@pytest.mark.smoke
def test_dropout_drops_by_its_mask_and_nothing_without(rng):
    drop, x = Dropout(0.25), np.ones((400, 50), "f4")
    assert drop(x).value is not None and (drop(x).value == 1).all()
    mask = drop.dropout_masks(x.shape, rng)
    y = drop(x, dropout=mask).value
    assert set(np.unique(y)) == {0, np.float32(4 / 3)} and y.dtype == np.float32
    assert abs(y.mean() - 1) < 0.02 and abs((y == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(
        drop.dropout_masks((3, 4), np.random.default_rng(5)),
        drop.dropout_masks((3, 4), np.random.default_rng(5)),
    )
    assert (drop(x, dropout=mask[:1]).value == mask[:1]).all(), "one mask for all steps"
    assert drop.parameters() == {} and repr(drop) == "Dropout(0.25), 0 parameters, float32"
    for bad in (mask[:, :3], mask[0], mask[None]):
        with pytest.raises(ShapeError, match=r"Dropout: the mask .* does not fit x"):
            drop(x, dropout=bad)
    for rate in (1, -0.1, "a", True, np.nan):
        with pytest.raises(InputError, match="dropout: rate"):
            Dropout(rate)
    with pytest.raises(InputError, match="default_rng"):
        drop.dropout_masks((2, 2), np.random)


@pytest.mark.parametrize("rate, masked, warns", [(0.5, False, True), (0.5, True, False), (0.0, False, False)])
def test_training_without_masks_is_told(rate, masked, warns):
    """Who comes from a library whose layers have modes gives no mask, and would train without dropout unawares."""
    rng = np.random.default_rng(0)
    model = Sequential(Dense(3, 4, rng), Dropout(rate), Dense(4, 1, rng))

    def loss(x, *masks):
        return (model(x, dropout=list(masks) or None) ** 2).mean()

    x = rng.standard_normal((5, 3)).astype("f4")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        step = mg.training_step(loss, optim.SGD(model.parameters(), 0.1))
        for _ in range(2):
            step(x, *(model.dropout_masks(x, rng) if masked else ()))
        model(x)  # outside of training it is as it should be
    said = [str(w.message) for w in told if "drops nothing" in str(w.message)]
    assert len(said) == warns, said
    assert all(f"Dropout({rate:g})" in text and "dropout_masks(x.shape, rng)" in text for text in said)


# Sequential.


@pytest.mark.smoke
def test_sequential_is_one_layer_after_the_other(rng):
    emb, cell, drop, out = Embedding(V, D, rng), LSTM(D, K, rng), Dropout(0.5), Dense(K, 2, rng, mg.tanh)
    net = Sequential(emb, cell, drop, out, lambda y: y * 2)
    x = codes(rng)
    np.testing.assert_array_equal(net(x).value, 2 * out(run(cell, emb(x)).h).value)
    (mask,) = net.dropout_masks(x, rng)
    assert mask.shape == (T, N, K) and mask.dtype == np.float32
    np.testing.assert_array_equal(net(x, dropout=[mask]).value, 2 * out(run(cell, emb(x)).h * mask).value)
    assert list(net.parameters()) == ["1.W", *(f"2.{n}" for n in cell.parameters()), "4.W", "4.b"]
    outer = Sequential(net, Sequential(Dropout(0.5)))
    assert [m.shape for m in outer.dropout_masks(x, rng)] == [(T, N, K), (T, N, 2)]
    assert next(iter(outer.parameters())) == "1.1.W"
    lines = [" ".join(line.split()) for line in repr(outer).splitlines()]
    assert lines[:4] == [
        f"Sequential, {net.size} parameters, float32",
        f"1: Sequential {net.size}",
        "1: Embedding(7, 4) 28",
        "W (7, 4) 28",
    ]
    assert lines[-5:] == ["W (6, 2) 12", "b (2,) 2", "5: <lambda>", "2: Sequential", "1: Dropout(0.5)"]


def test_masks_of_a_sequential_follow_the_input_and_a_layer_that_is_replaced(rng):
    net = Sequential(Dense(D, K, rng), Dropout(0.5))
    x = numbers(rng, "float32")
    assert net.dropout_masks(x, rng)[0].shape == (T, N, K)
    assert net.dropout_masks(x[:2], rng)[0].shape == (2, N, K)
    net.layers[0] = Dense(D, 2, rng, dtype="float64")
    assert net.dropout_masks(x[:2].astype("f8"), rng)[0].shape == (2, N, 2)
    net.layers.insert(0, Dropout(0.1))
    first, second = net.dropout_masks(x[:2].astype("f8"), rng)
    assert (first.shape, second.shape) == ((2, N, D), (2, N, 2)) and first.dtype == np.float64
    mine, theirs = np.random.default_rng(1), np.random.default_rng(1)
    for a, b in zip(net.dropout_masks(x[:2].astype("f8"), mine), (first, second), strict=True):
        np.testing.assert_array_equal(
            a, Dropout(0.1 if b is first else 0.5).dropout_masks(b.shape, theirs, "f8")
        )


@pytest.mark.smoke
def test_what_is_no_layer_is_named(rng):
    with pytest.raises(InputError, match=r"Sequential: layer 2 is 3; give a layer or a function"):
        Sequential(mg.tanh, 3)
    with pytest.raises(InputError, match=r"Sequential: layer 1 is .*LSTM"):
        Sequential(LSTM)
    with pytest.raises(InputError, match="give at least one layer"):
        Sequential()
    net = Sequential(Dense(D, K, rng), Dropout(0.5))
    x = numbers(rng, "float32")
    with pytest.raises(InputError, match="dropout is 2; give a list of 1 masks"):
        net(x, dropout=[1.0, 1.0])
    with pytest.raises(InputError, match="dropout is a ndarray; give a list of 1"):
        net(x, dropout=np.ones((T, N, K)))
    with pytest.raises(ShapeError, match=r"Dense: 'x' .*\(5, 3, 6\).*made for \(…, 4\)"):
        Sequential(Dense(D, K, rng), lambda x: x.named("x"), Dense(D, 2, rng))(x)


def test_a_sequential_learns_with_dropout_and_is_drawn_step_by_step(rng):
    net = Sequential(
        Embedding(V, 8, rng, padding=0), LSTM(8, 16, rng), LayerNorm(16), Dropout(0.2), Output(16, V, rng)
    )
    x = rng.integers(1, V, (6, 8))
    y = np.roll(x, 1, axis=0)
    y[0] = 0

    def loss(x, y, dropout=None):
        return mg.cross_entropy(net(x, dropout=dropout), y).named("L")

    first = float(loss(x, y))
    mg.fit(loss, net.parameters(), ((x, y, net.dropout_masks(x, rng)) for _ in range(150)), lr=0.02)
    assert float(loss(x, y)) < 0.1 * first
    assert not net.layers[0].W.value[0].any()
    shown = loss(x[:3, :2], y[:3, :2])
    shown.backward(record=True)
    network = viz.read.network.read(shown)
    assert network.bands == ["layer 2"] and network.times == [1, 2, 3]
    assert {g.name for g in network.cells["layer 2", 1]} >= {"f", "i", "c_tilde", "o", "c", "h"}
