"""The temporal convolutional network: against PyTorch with its own weight norm, against loops in NumPy and finite
differences, random weights and biases; no step sees a later one; the receptive field is what gradients say.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigrad as mg
from cells import TCN, Output
from minigrad import DTypeError, InputError, ShapeError, Tensor, ancestors, check_grads, checkpoint

T, N, D, H = 12, 3, 2, 4


def tcn(rng, levels=2, taps=3, dtype="float64", inputs=D):
    """With random lengths and biases too, which those of the start would hide."""
    made = TCN(inputs, H, levels, taps, rng, dtype)
    for p in made.parameters().values():
        p.value = p.value + 0.3 * rng.standard_normal(p.shape)
    return made


def assert_close(ours, theirs, bound, what=""):
    """Relative to the largest number of the array: single elements may be sums that cancel."""
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
    assert ours.shape == theirs.shape, what
    assert abs(ours - theirs).max(initial=0) <= bound * max(1.0, abs(theirs).max(initial=0)), what


# Against other programs.


def in_numpy(made, x, masks):
    """The network once more, step by step and tap by tap."""
    for k, block in enumerate(made.blocks):
        w = {name: p.value for name, p in block.parameters().items()}
        y = x
        for c in (1, 2):
            v = w[f"v_{c}"]
            W = w[f"g_{c}"] * v / np.linalg.norm(v.reshape(-1, H), axis=0)
            z = np.tile(w[f"b_{c}"], (len(x), x.shape[1], 1))
            for t in range(len(x)):
                for j in range(len(v)):
                    seen = t - (len(v) - 1 - j) * 2**k
                    if seen >= 0:
                        z[t] += y[seen] @ W[j]
            y = np.maximum(z, 0) * masks[k, c - 1]
        x = np.maximum(y + (x @ w["W_s"] + w["b_s"] if "W_s" in w else x), 0)
    return x


@pytest.mark.smoke
@pytest.mark.parametrize(("levels", "taps", "inputs"), [(1, 1, D), (1, 4, H), (3, 2, D), (2, 3, H)])
@pytest.mark.parametrize("length", [1, T])
def test_the_network_is_what_its_definition_says(levels, taps, inputs, length, rng):
    made, x = tcn(rng, levels, taps, inputs=inputs), rng.standard_normal((T, N, inputs))
    masks = made.dropout_masks(length, N, 0.4, rng)
    assert_close(made(x, dropout=masks).outputs.value, in_numpy(made, x, masks), 1e-12)
    assert_close(made(x).outputs.value, in_numpy(made, x, np.ones_like(masks)), 1e-12)


def in_pytorch(torch, made, w):
    """Blocks of nn.Conv1d under torch's weight norm, with our weights; the shapes of `w` are ours."""
    from torch.nn.utils.parametrizations import weight_norm

    class Block(torch.nn.Module):
        def __init__(self, k, block):
            super().__init__()
            taps, inputs, hidden = block.v_1.shape
            self.reach = (taps - 1) * block.dilation
            for c, width in ((1, inputs), (2, hidden)):
                conv = weight_norm(torch.nn.Conv1d(width, hidden, taps, dilation=block.dilation))
                parts = conv.parametrizations.weight
                parts.original0 = torch.nn.Parameter(w[f"{k}.g_{c}"].reshape(hidden, 1, 1))
                parts.original1 = torch.nn.Parameter(w[f"{k}.v_{c}"].permute(2, 1, 0).contiguous())
                conv.bias = torch.nn.Parameter(w[f"{k}.b_{c}"])
                setattr(self, f"conv_{c}", conv)
            self.around = torch.nn.Conv1d(inputs, hidden, 1) if inputs != hidden else None
            if self.around is not None:
                self.around.weight = torch.nn.Parameter(w[f"{k}.W_s"].T[:, :, None].contiguous())
                self.around.bias = torch.nn.Parameter(w[f"{k}.b_s"])

        def forward(self, x, masks):
            y = x
            for conv, mask in zip((self.conv_1, self.conv_2), masks, strict=True):
                padded = torch.nn.functional.pad(y, (self.reach, 0))
                y = torch.relu(conv(padded)) * mask.permute(1, 2, 0)
            return torch.relu(y + (x if self.around is None else self.around(x)))

        def gradients(self, k):
            """By our names, in our shapes."""
            for c, conv in ((1, self.conv_1), (2, self.conv_2)):
                yield f"{k}.g_{c}", conv.parametrizations.weight.original0.grad.reshape(-1)
                yield f"{k}.v_{c}", conv.parametrizations.weight.original1.grad.permute(2, 1, 0)
                yield f"{k}.b_{c}", conv.bias.grad
            if self.around is not None:
                yield f"{k}.W_s", self.around.weight.grad[:, :, 0].T
                yield f"{k}.b_s", self.around.bias.grad

    return [Block(k, block) for k, block in enumerate(made.blocks, 1)]


@pytest.mark.oracle
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize(
    ("levels", "taps", "inputs", "rate"), [(3, 3, D, 0.0), (2, 4, H, 0.3), (4, 2, D, 0.2)]
)
def test_outputs_and_gradients_equal_pytorchs(levels, taps, inputs, rate, dtype, bound, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: `make torch` installs it")
    made = tcn(rng, levels, taps, dtype, inputs)
    x = Tensor(rng.standard_normal((T, N, inputs)), requires_grad=True, dtype=dtype)
    weigh = rng.standard_normal((T, N, H)).astype(dtype)
    masks = made.dropout_masks(T, N, rate, rng)

    blocks = in_pytorch(torch, made, {n: torch.tensor(p.value) for n, p in made.parameters().items()})
    x_t = torch.tensor(x.value, requires_grad=True)
    h = x_t.permute(1, 2, 0)
    for block, mask in zip(blocks, torch.tensor(masks), strict=True):
        h = block(h, mask)
    h = h.permute(2, 0, 1)
    (h * torch.tensor(weigh)).sum().backward()
    theirs = {name: g for k, block in enumerate(blocks, 1) for name, g in block.gradients(k)}

    ours = made(x, dropout=masks).outputs
    (ours * weigh).sum().backward()
    assert ours.dtype == dtype
    assert_close(ours.value, h, bound, "h")
    assert_close(x.grad, x_t.grad, bound, "gradient of x")
    assert set(theirs) == set(made.parameters())
    for name, p in made.parameters().items():
        assert p.grad.dtype == dtype
        assert_close(p.grad, theirs[name], bound, f"gradient of {name}")


def at_a_distance_from_kinks(made, rng):
    """Units that are always on or always off: at the kink of a rectifier there is no derivative to compare."""
    for block in made.blocks:
        for name, p in block.parameters().items():
            if name.startswith("b"):
                p.value = np.where(np.arange(H) % 2, 4.0, -4.0) + rng.standard_normal(H)
            elif name.startswith("g"):
                p.value = 0.15 * rng.standard_normal(H)
            elif name == "W_s":
                p.value = 0.1 * rng.standard_normal(p.shape)
    return made


def test_gradients_match_finite_differences(rng):
    made = at_a_distance_from_kinks(tcn(rng, levels=3), rng)
    x, masks = rng.standard_normal((T, N, D)), made.dropout_masks(T, N, 0.3, rng)
    signs = [
        n.inputs[1].value
        for n in ancestors(made(x).outputs)
        if n.op is not None and n.op.name == "greater_equal"
    ]
    assert len(signs) == 9 and all(abs(z[z != 0]).min() > 0.1 for z in signs)
    assert all((z > 0).any() and (z <= 0).any() for z in signs)
    names = {p.number: name for name, p in made.parameters().items()}
    weigh = rng.standard_normal((T, N, H))

    def function(wanted, given):
        for k, block in enumerate(made.blocks):
            for name, p in parameters[k].items():
                setattr(block, name, given if names[p.number] == wanted else p)
        return (made(given if wanted == "x" else x, dropout=masks).outputs * weigh).sum()

    parameters = [block.parameters() for block in made.blocks]
    points = {"x": x, **{name: p.value for name, p in made.parameters().items()}}
    for wanted, point in points.items():  # one by one, so that a small gradient hides behind no large one
        error = check_grads(
            lambda given, wanted=wanted: function(wanted, given), [point], order=1, tolerance=1e-7
        )
        assert error <= 1e-7, wanted


def test_compiled_is_eager(rng):
    made, output = tcn(rng, taps=2), Output(H, 2, rng, "float64")

    def loss(x, masks):
        y = output(made(x, dropout=masks).outputs)
        return (y * y * y).sum()

    x = Tensor(rng.standard_normal((T, N, D)), requires_grad=True)
    masks = made.dropout_masks(1, N, 0.3, rng)
    compiled = mg.compile(loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # falling back to the eager run would warn
        value, found = compiled.value_and_grad(x, masks)
    expected = loss(x, masks)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    for p in (x, *made.parameters().values(), *output.parameters().values()):
        assert_close(found[p], p.grad, 1e-12, p.name)
    other = Tensor(rng.standard_normal((3, 5, D)), requires_grad=True)  # fewer steps than taps reach
    masks = made.dropout_masks(1, 5, 0.3, rng)
    assert compiled.value_and_grad(other, masks)[0].item() == pytest.approx(
        loss(other, masks).item(), rel=1e-12
    )
    assert sum(map(len, compiled.variants.values())) == 1, "other sizes compile nothing anew"


# What a step sees.


@pytest.mark.smoke
@pytest.mark.parametrize("t", [1, 6, T - 1])
def test_a_change_of_x_changes_no_bit_before_it(t, rng):
    made, x = tcn(rng, levels=3), rng.standard_normal((T, N, D))
    before = made(x).outputs.value
    x[t:] = rng.standard_normal((T - t, N, D)) * 100
    after = made(x).outputs.value
    np.testing.assert_array_equal(after[:t], before[:t])
    assert (after[t] != before[t]).any(axis=-1).all()


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("levels", "taps", "length"), [(1, 1, 1), (1, 3, 5), (2, 3, 13), (3, 2, 15), (4, 3, 61)]
)
def test_the_receptive_field_is_what_the_gradient_reaches(levels, taps, length, rng):
    made = TCN(D, H, levels, taps, rng, "float64")
    for p in made.parameters().values():  # nothing cancels and no unit is off
        p.value = abs(p.value) + 0.01
    assert made.receptive_field == 1 + 2 * (taps - 1) * (2**levels - 1) == length
    x = Tensor(rng.random((length + 7, N, D)), requires_grad=True)
    made(x).outputs[-1].sum().backward()
    assert ((x.grad != 0).all(axis=(1, 2)) == (np.arange(length + 7) >= 7)).all()


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(0, N, D), (T, 0, D), (1, 1, D)])
def test_no_steps_no_sequences_and_a_single_step(shape, rng):
    made, x = tcn(rng), Tensor(np.ones(shape), requires_grad=True)
    y = made(x).outputs
    y.sum().backward()
    assert y.shape == (*shape[:2], H) and x.grad.shape == shape and np.isfinite(y.value).all()


# Dropout.


@pytest.mark.smoke
def test_one_mask_for_all_steps_drops_whole_channels(rng):
    made, x = tcn(rng), rng.standard_normal((T, N, D))
    masks = made.dropout_masks(1, N, 0.4, rng)
    assert masks.shape == (2, 2, 1, N, H) and set(np.unique(masks)) == {0, 1 / 0.6}
    repeated = np.broadcast_to(masks, (2, 2, T, N, H))
    np.testing.assert_array_equal(
        made(x, dropout=masks).outputs.value, made(x, dropout=repeated).outputs.value
    )
    np.testing.assert_array_equal(
        made(x, dropout=made.dropout_masks(T, N, 0, rng)).outputs.value, made(x).outputs.value
    )


@pytest.mark.smoke
@pytest.mark.parametrize("rate", [1, 1.5, -0.1, float("nan"), "half", True])
def test_a_rate_of_dropout_outside_of_its_range_is_named(rate, rng):
    with pytest.raises(InputError, match=r"dropout: rate = .*at least 0 and below 1"):
        tcn(rng).dropout_masks(T, N, rate, rng)


@pytest.mark.smoke
@pytest.mark.parametrize(
    "shape", [(2, 2, T, N, H + 1), (2, 2, T + 1, N, H), (2, 2, T, 1, H), (2, 1, T, N, H), (3, 2, 1, N, H), (T, N, H)]
)  # fmt: skip
def test_masks_of_another_shape_are_named(shape, rng):
    made, x, masks = tcn(rng, dtype="float32"), np.zeros((T, N, D), "f4"), np.ones(shape, "f4")
    with pytest.raises(ShapeError, match=r"TCN: 'dropout' .*\(2, 2, 12, 3, 4\), as dropout_masks does"):
        made(x, dropout=masks)
    with pytest.raises(ShapeError, match=r"TCN: 'masks' .*\(2, 2, 12, 3, 4\), as dropout_masks does"):
        mg.compile(lambda x, masks: made(x, dropout=masks).outputs.sum())(x, masks)


# What a learner sees, and what is refused.


@pytest.mark.smoke
def test_names_and_places_in_the_graph(rng):
    h = tcn(rng, levels=2)(rng.standard_normal((T, N, D))).outputs
    placed = [(*n.scope, n.name) for n in ancestors(h) if n.name and n.op is not None]
    assert placed == [
        ("level 1", "W_1"), ("level 1", "a"), ("level 1", "W_2"), ("level 1", "u"), ("level 1", "s"), ("level 1", "h"),
        ("level 2", "W_1"), ("level 2", "a"), ("level 2", "W_2"), ("level 2", "u"), ("level 2", "h"),
    ]  # fmt: skip
    assert all(n.shape == (T, N, H) for n in ancestors(h) if n.op is not None and n.name in list("aush"))


@pytest.mark.smoke
def test_the_printed_form_tells_levels_dilations_and_what_they_see(rng):
    first, *rows = repr(TCN(2, 25, 8, 7, rng)).splitlines()
    assert first == (
        "TCN, 66,850 parameters, float32; 2 inputs, 25 hidden, 8 levels, 7 taps, receptive field 3,061"
    )
    found = [" ".join(row.split()) for row in rows]
    assert found[0] == "level 1 dilation 1 sees 13 v_1 (7, 2, 25), v_2 (7, 25, 25), W_s (2, 25)"
    assert found[-1] == "level 8 dilation 128 sees 3,061 v_1 (7, 25, 25), v_2 (7, 25, 25)"
    assert len(rows) == 8


@pytest.mark.smoke
def test_parameters_are_named_by_level_and_counted(rng):
    made = TCN(D, H, 3, 2, rng)
    names = ["v_1", "g_1", "b_1", "v_2", "g_2", "b_2"]
    assert list(made.parameters()) == [
        *(f"1.{n}" for n in [*names, "W_s", "b_s"]),
        *(f"{k}.{n}" for k in (2, 3) for n in names),
    ]
    convolutions = (2 * D * H + 2 * H) + 5 * (2 * H * H + 2 * H)
    assert made.size == convolutions + H * (D + 1)
    assert made.width == H and made.dilations == [1, 2, 4] and made.causal


@pytest.mark.smoke
def test_it_starts_with_weights_that_are_its_directions(rng):
    made = TCN(D, 50, 2, 5, rng)
    for block in made.blocks:
        for v, g in ((block.v_1.value, block.g_1.value), (block.v_2.value, block.g_2.value)):
            bound = 1 / np.sqrt(v.shape[0] * v.shape[1])
            assert 0.98 * bound < abs(v).max() <= bound
            np.testing.assert_allclose(g, np.sqrt((v * v).sum(axis=(0, 1))), rtol=1e-6)


@pytest.mark.smoke
def test_same_seed_same_network_and_checkpoints_come_back_bit_for_bit(rng, tmp_path):
    one, other = (TCN(D, H, 3, 2, np.random.default_rng(5)) for _ in range(2))
    for a, b in zip(one.parameters().values(), other.parameters().values(), strict=True):
        np.testing.assert_array_equal(a.value, b.value)
    one = tcn(rng, 3, 2, "float32")
    checkpoint.save(tmp_path / "tcn.safetensors", one.parameters())
    other.load(tmp_path / "tcn.safetensors")
    x = rng.standard_normal((T, N, D)).astype("f4")
    np.testing.assert_array_equal(one(x).outputs.value, other(x).outputs.value)
    with pytest.raises(InputError, match=r"TCN.load_state_dict: missing 3.v_1, 3.g_1, 3.b_1"):
        other.load_state_dict(TCN(D, H, 2, 2, rng).parameters())
    with pytest.raises(
        ShapeError, match=r"TCN.load_state_dict: 1.v_1 has shape \(3, 2, 4\), not \(2, 2, 4\), 1.v_2"
    ):
        other.load_state_dict(TCN(D, H, 3, 3, rng).parameters())


@pytest.mark.smoke
@pytest.mark.parametrize(("name", "bad"), [("levels", 0), ("taps", 0), ("hidden", -1), ("inputs", 2.5)])
def test_what_cannot_be_made_is_named(name, bad, rng):
    sizes = {"inputs": D, "hidden": H, "levels": 2, "taps": 3, name: bad}
    with pytest.raises(InputError, match=f"TCN: {name} = {bad}; give a whole number of at least 1"):
        TCN(**sizes, rng=rng)


BAD_INPUTS = {
    "width": (np.zeros((T, N, D + 1), "f4"), ShapeError, r"TCN: 'x' \(12, 3, 3\).*\(steps, sequences, 2\)"),
    "axes": (np.zeros((N, D), "f4"), ShapeError, r"TCN: 'x' \(3, 2\).*\(steps, sequences, 2\)"),
    "type": (np.zeros((T, N, D)), DTypeError, r"TCN: x is float64, the layer float32.*astype"),
}


@pytest.mark.smoke
@pytest.mark.parametrize(("x", "kind", "words"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_an_input_that_does_not_fit_is_named(x, kind, words, rng):
    made = tcn(rng, dtype="float32")
    with pytest.raises(kind, match=words):
        made(x)
    with pytest.raises(kind, match=r"TCN: .*the layer"):
        mg.compile(lambda x: made(x).outputs.sum())(x)
