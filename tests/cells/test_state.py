"""Parameters and constants by name: saved, loaded, frozen, tied, printed; and programs that notice all of it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
import viz
from cells import GRU, LSTM, Cell, Dense, Embedding, Layer, LayerNorm, Output, Sequential, Stack, run
from minigrad import DTypeError, GraphError, InputError, ShapeError, Tensor, checkpoint, optim

pytestmark = pytest.mark.smoke
H = 4


class Tagger(Layer):
    """An embedding whose table the output reads too, a cell, a constant, a list, and one layer in two places."""

    def __init__(self, rng, dtype="float32", tied=True):
        super().__init__(dtype)
        self.emb = Embedding(H + 3, H, rng, dtype=dtype)
        self.rnn = LSTM(H, H, rng, dtype)
        self.out = Dense(H, H, rng, mg.tanh, dtype)
        self.constant("A", rng.standard_normal((H, H)))
        self.constant("order", np.arange(H)[::-1])
        self.blocks = [Dense(H, H, rng, dtype=dtype), mg.tanh, Tensor(np.ones(H, dtype), requires_grad=True)]
        self.again = self.blocks[0] if tied else Dense(H, H, rng, dtype=dtype)
        if tied:
            self.out.W = self.blocks[0].W

    def __call__(self, codes):
        h = run(self.rnn, self.emb(codes)).h @ self.A
        h = self.blocks[0](h) * self.blocks[2] + self.again(mg.gather(self.out(h).T, self.order).T)
        return (h @ self.emb.W.T).named("logits")

    def loss(self, codes, targets):
        return mg.cross_entropy(self(codes), targets)


CODES, TARGETS = np.array([[1, 0], [2, 4], [6, 5]]), np.array([[0, 1], [4, 2], [3, 3]])
LSTM_NAMES = [f"{kind}_{gate}" for gate in "fico" for kind in "Wb"]
NAMES = ["emb.W", *(f"rnn.{n}" for n in LSTM_NAMES), "out.W", "out.b", "blocks.1.b", "blocks.3"]


def state(layer) -> dict:
    return {name: a.copy() for name, a in layer.state_dict().items()}


def changed(layer, before) -> list[str]:
    return [name for name, a in layer.state_dict().items() if not np.array_equal(a, before[name])]


def eager_and_compiled(model, compiled) -> None:
    """Values and gradients are those of a network that has just been made from the same numbers."""
    value, gradients = compiled.value_and_grad(CODES, TARGETS)
    seen = model.loss(CODES, TARGETS)
    np.testing.assert_allclose(value.value, seen.value, rtol=1e-5)
    learned = [p for p in model.parameters().values() if p.requires_grad]
    expected = mg.grad(seen, learned)
    assert len(gradients) == len(learned)
    for p, g in zip(learned, expected, strict=True):
        np.testing.assert_allclose(gradients[p], g.value, rtol=1e-4, atol=1e-6, err_msg=p.name)


# Saved and loaded.


def test_a_state_has_every_parameter_once_and_the_constants_after_them(rng):
    model = Tagger(rng)
    assert list(model.parameters()) == NAMES
    assert list(model.constants()) == ["A", "order"] and list(model.state_dict()) == [*NAMES, "A", "order"]
    assert model.size == sum(p.size for p in model.parameters().values())
    for name, a in model.state_dict().items():
        assert not a.flags.writeable, name
    before = model.state_dict()
    kept = state(model)
    optim_step(model)
    assert all(np.array_equal(before[n], kept[n]) for n in kept), "what was asked for stays as it was"
    assert "emb.W" in changed(model, kept)


def optim_step(model, **options):
    optimiser = optim.Adam(model.parameters(), 0.05, **options)
    model.loss(CODES, TARGETS).backward()
    optimiser.step()
    return optimiser


def test_saved_and_loaded_to_the_bit_also_by_a_program_compiled_before(rng, tmp_path):
    model, other = Tagger(rng), Tagger(rng)
    compiled = mg.compile(other.loss)
    assert compiled(CODES, TARGETS).value != model.loss(CODES, TARGETS).value
    model.save(tmp_path / "tagger.safetensors", notes={"alphabet": "abc"})
    loaded = other.load(tmp_path / "tagger.safetensors")
    assert loaded == ([], [], {})
    assert changed(other, state(model)) == []
    assert other(CODES).value.tobytes() == model(CODES).value.tobytes()
    eager_and_compiled(other, compiled)
    assert checkpoint.load(tmp_path / "tagger.safetensors").notes == {"alphabet": "abc"}
    assert other.order.dtype == np.int64


def test_all_that_is_wrong_is_named_and_nothing_is_half_loaded(rng):
    model = Tagger(rng)
    values, before = state(Tagger(rng)), state(model)
    del values["rnn.b_i"], values["A"]
    values |= {
        "rnn.W_x": np.ones(2), 7: np.ones(2), "emb.W": np.ones((3, 4), "f4"), "out.b": np.ones(H),
        "order": np.array(["a"] * H), "blocks.3": [[1], [2, 3]],
    }  # fmt: skip
    with pytest.raises(InputError) as error:
        model.load_state_dict(values)
    for part in (
        "missing rnn.b_i, A;", "surplus rnn.W_x, 7;", "emb.W has shape (3, 4), not (7, 4)", "blocks.3 is not a numeric",
        "out.b is float64, not float32: convert it with .astype('float32')", "order is not a numeric array",
        "Tagger.load_state_dict: ", "nothing was changed",
    ):  # fmt: skip
        assert part in str(error.value)
    assert changed(model, before) == []
    result = model.load_state_dict(values, strict=False)
    assert result.missing == ["rnn.b_i", "A"] and result.surplus == ["rnn.W_x", 7]
    assert sorted(result.unfit) == ["blocks.3", "emb.W", "order", "out.b"]
    fit = [n for n in before if n not in {*result.missing, *result.unfit}]
    moved = changed(model, before)
    assert moved == [n for n in fit if not np.array_equal(before[n], values[n])] and "rnn.W_f" in moved
    with pytest.raises(ShapeError, match=r"emb.W has shape \(3, 4\), not \(7, 4\), rnn.W_f has shape"):
        model.load_state_dict({**before, "emb.W": np.ones((3, 4)), "rnn.W_f": np.ones(1)})
    with pytest.raises(DTypeError, match=r"out.b is int64"):
        model.load_state_dict({**before, "out.b": np.ones(H, np.int64)})
    with pytest.raises(InputError, match="dict of arrays by name, not list"):
        model.load_state_dict([before])


def test_a_foreign_file_says_what_it_is(rng, tmp_path):
    model, path = Tagger(rng), tmp_path / "file"
    before = state(model)
    path.write_bytes(pickle.dumps(before))
    with pytest.raises(InputError, match="not a safetensors file, or damaged"):
        model.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        model.load(tmp_path / "nothing")
    with pytest.raises(
        InputError, match=r"Tagger.load: give the name of a file, not dict; arrays go to load_state"
    ):
        model.load(before)
    GRU(3, 4, rng).save(path)
    with pytest.raises(
        InputError, match=r"Tagger from '.*file': missing emb.W, rnn.W_f.*; surplus W, W_r, W_z; nothing"
    ):
        model.load(path)
    optimiser = optim.SGD(model.parameters())
    checkpoint.save_training(path, optimiser)
    with pytest.raises(InputError, match=r"holds a training; give prefix='parameters/'"):
        model.load(path)
    assert changed(model, before) == []
    other = Tagger(rng)
    with pytest.raises(InputError, match="missing A, order; nothing"):
        other.load(path, prefix="parameters/")
    other.load(path, strict=False, prefix="parameters/")
    assert changed(other, before) == ["A"], "an optimiser's file has no constants"


# Tied weights.


def test_what_is_tied_is_saved_once_and_loaded_by_any_of_its_names(rng, tmp_path):
    model, free = Tagger(rng), Tagger(rng, tied=False)
    assert "blocks.1.W" not in model.state_dict() and "again.b" not in model.state_dict()
    assert {"blocks.1.W", "again.W", "again.b"} < set(free.state_dict())
    other, values = Tagger(rng), state(model)
    W, b = values.pop("out.W"), values.pop("blocks.1.b")
    other.load_state_dict({**values, "again.W": W, "again.b": b})
    assert changed(other, state(model)) == []
    other.load_state_dict({**values, "out.W": W, "again.W": W, "blocks.1.b": b, "blocks.1.W": W})
    for strict in (True, False):
        twice = {**values, "blocks.1.b": b, "again.W": W + 1, "out.W": W}
        if strict:
            with pytest.raises(InputError, match=r"out.W differs from again.W, with which it is shared here"):
                other.load_state_dict(twice)
        else:
            assert list(other.load_state_dict(twice, strict=False).unfit) == ["out.W"]
    model.save(tmp_path / "tied")
    with pytest.raises(InputError, match=r"missing blocks.1.W, again.W, again.b;"):
        free.load(tmp_path / "tied")


def test_tying_after_compiling_is_noticed_and_the_tied_learn_as_one(rng):
    model = Tagger(rng, tied=False)
    compiled = mg.compile(model.loss)
    eager_and_compiled(model, compiled)
    model.out.W = model.blocks[0].W
    model.again = model.blocks[0]
    eager_and_compiled(model, compiled)
    mg.fit(compiled, model.parameters(), [(CODES, TARGETS)] * 3)
    assert model.out.W is model.again.W
    eager_and_compiled(model, compiled)
    model.out.W = Tensor(model.out.W.value + 1, requires_grad=True)  # apart again
    assert model.out.W.name == "W" and model.out.W is not model.again.W
    eager_and_compiled(model, compiled)
    model.rnn = GRU(H, H, rng)
    eager_and_compiled(model, compiled)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_keeps_what_is_frozen_constant_and_tied(way, rng):
    model = Tagger(rng)
    model.freeze("rnn", "blocks.3")
    other = way(model)
    assert repr(other) == repr(model) and list(other.state_dict()) == list(model.state_dict())
    assert other.A.is_constant and other.A is not model.A and other.rnn.W_f.is_parameter
    other.A = np.zeros((H, H))
    assert model.A.value.any()


# Frozen.


def test_what_is_frozen_gets_no_gradient_and_stays(rng):
    model = Tagger(rng)
    compiled = mg.compile(model.loss)
    eager_and_compiled(model, compiled)
    model.loss(CODES, TARGETS).backward()
    model.freeze("rnn.*", "blocks")
    before = state(model)
    frozen = [n for n in NAMES if n.startswith(("rnn.", "blocks."))] + [
        "out.W"
    ]  # by its other name, blocks.1.W
    assert [n for n, p in model.parameters().items() if not p.requires_grad] == [
        n for n in NAMES if n in frozen
    ]
    assert list(model.parameters()) == NAMES and list(model.state_dict()) == [*NAMES, "A", "order"]
    assert all(model.parameters()[n].grad is None for n in frozen), "an old gradient would still move it"
    eager_and_compiled(model, compiled)
    for optimiser in (
        optim.Adam(model.parameters(), 0.1, weight_decay=0.1),
        optim.SGD(model.parameters(), 0.1),
    ):
        model.loss(CODES, TARGETS).backward()
        optim.clip_by_norm(model.parameters().values(), 1.0)
        optimiser.step()
    losses = mg.fit(compiled, model.parameters(), [(CODES, TARGETS)] * 20, lr=0.02)
    assert losses[-1] < losses[0]
    assert changed(model, before) == [n for n in NAMES if n not in frozen]
    model.unfreeze("rnn.W_?")
    before = state(model)
    mg.fit(compiled, model.parameters(), [(CODES, TARGETS)] * 3, lr=0.02)
    assert [n for n in changed(model, before) if n.startswith("rnn")] == [f"rnn.W_{g}" for g in "fico"]
    model.unfreeze()
    eager_and_compiled(model, compiled)
    before = state(model)
    mg.fit(compiled, model.parameters(), [(CODES, TARGETS)] * 3, lr=0.02)
    assert changed(model, before) == NAMES


def test_freezing_in_the_middle_of_a_training_is_noticed_by_its_step(rng):
    model, other = Tagger(rng), None
    step = mg.training_step(mg.compile(model.loss), optim.Adam(model.parameters(), 0.05), clip=1.0)
    step(CODES, TARGETS)
    other = copy.deepcopy(model)
    optimiser = optim.Adam(other.parameters(), 0.05)
    optimiser.load_state_dict(step.optimiser.state_dict())
    for k in range(6):
        for one in (model, other):
            one.freeze("emb", "out.W") if k == 2 else one.unfreeze() if k == 4 else None
        step(CODES, TARGETS)
        optimiser.zero_grad()
        other.loss(CODES, TARGETS).backward()
        optim.clip_by_norm(other.parameters(), 1.0)
        optimiser.step()
        for name, a in other.state_dict().items():
            np.testing.assert_allclose(
                model.state_dict()[name], a, rtol=1e-4, atol=2e-6, err_msg=f"{name} at {k}"
            )
    assert optimiser.counts[0] == step.optimiser.counts[0] == 5, "frozen for two of seven steps"


def test_a_recorded_gradient_of_what_is_frozen_moves_nothing(rng):
    model = Tagger(rng)
    model.freeze("rnn")
    before = state(model)
    optimiser = optim.SGD(model.parameters(), 0.1)
    model.loss(CODES, TARGETS).backward(record=True)
    assert model.rnn.W_f.grad is not None, "a picture shows it"
    norm = optim.clip_by_norm(model.parameters(), 1e-3)
    learned = [p for p in model.parameters().values() if p.requires_grad]
    expected = mg.grad(model.loss(CODES, TARGETS), learned)
    np.testing.assert_allclose(norm, np.sqrt(sum((g.value**2).sum() for g in expected)), rtol=1e-4)
    optimiser.step()
    assert not [n for n in changed(model, before) if n.startswith("rnn")]


def test_what_cannot_be_frozen_or_moved_says_so(rng):
    model = Tagger(rng)
    with pytest.raises(
        InputError, match=r"Tagger: no parameter is called 'rnn.W_q'; there are emb.W, rnn.W_f"
    ):
        model.freeze("emb", "rnn.W_q")
    assert all(p.requires_grad for p in model.parameters().values()), "nothing was frozen"
    model.freeze()
    with pytest.raises(GraphError, match="unfreeze"):
        model.loss(CODES, TARGETS).backward()
    with pytest.raises(GraphError, match="all parameters are frozen; unfreeze"):
        optim.SGD(model.parameters()).step()
    with pytest.raises(InputError, match="is not a parameter"):
        optim.SGD([model.A])
    with pytest.raises(InputError, match=r"is a layer; give its parameters"):
        optim.SGD(model)


# Constants.


class Fixed(Cell):
    """A cell with a fixed matrix and a fixed number."""

    def build(self, rng):
        self.weights("W", rng)
        self.constant("A", np.linspace(-1, 1, self.hidden**2).reshape(self.hidden, -1))
        self.constant("tau", 0.9)

    def step(self, x, h_prev):
        return dict(h=self.tau * mg.tanh(mg.concat(h_prev, x) @ self.W) @ self.A)


def test_a_constant_is_no_parameter_and_gets_no_gradient(rng):
    cell = Fixed(3, H, rng, "float64")
    assert list(cell.parameters()) == ["W"] and list(cell.constants()) == ["A", "tau"]
    assert list(cell.state_dict()) == ["W", "A", "tau"] and cell.A.dtype == np.float64
    assert Fixed(3, H, rng).A.dtype == np.float32
    run(cell, rng.standard_normal((3, 2, 3))).h.sum().backward()
    assert cell.A.grad is None and cell.W.grad is not None
    with pytest.raises(InputError, match="numeric array"):
        cell.constant("B", [[1], [2, 3]])
    assert not hasattr(cell, "B")


REPLACED = {
    "assigned": lambda cell, A: setattr(cell, "A", A),
    "as float32": lambda cell, A: setattr(cell, "A", A.astype("f4")),
    "made again": lambda cell, A: cell.constant("A", A),
    "its value": lambda cell, A: setattr(cell.A, "value", A),
    "a tensor": lambda cell, A: setattr(cell, "A", Tensor(A)),
    "loaded": lambda cell, A: cell.load_state_dict({**cell.state_dict(), "A": A}),
    "deleted and made again": lambda cell, A: (delattr(cell, "A"), cell.constant("A", A)),
}


@pytest.mark.parametrize("way", list(REPLACED))
def test_a_compiled_program_notices_a_constant_that_is_replaced(way, rng):
    cell, x = Fixed(3, H, rng, "float64"), rng.standard_normal((3, 2, 3))
    weigh = rng.standard_normal((3, 2, H))

    def loss(x):
        return (run(cell, x).h * weigh).sum()

    compiled = mg.compile(loss)
    for k in range(3):
        np.testing.assert_allclose(compiled(x).value, loss(x).value, rtol=1e-10, err_msg=str(k))
        REPLACED[way](cell, rng.integers(-9, 9, (H, H)) / 4.0)  # halves: the same in float32
        assert list(cell.constants()) in (["A", "tau"], ["tau", "A"]) and cell.A.is_constant
        assert cell.A.dtype == np.float64 and cell.A.name == "A"
    np.testing.assert_allclose(compiled(x).value, loss(x).value, rtol=1e-10)


def test_a_constant_of_another_shape_or_type_is_another(rng):
    layer = Layer("float64")
    layer.constant("mask", [True, False])
    f = mg.compile(lambda x: mg.where(layer.mask, x, 0.0).sum())
    x = np.array([1.0, 2.0])
    assert f(x).value == 1
    layer.mask = [[True, True], [True, False]]
    assert f(x).value == 4 and layer.mask.shape == (2, 2)
    layer.constant("table", [1, 2])
    g = mg.compile(lambda x: mg.gather(x, layer.table).sum())
    assert g(np.arange(5.0)).value == 3
    layer.table = np.array([3, 4, 4])
    assert g(np.arange(5.0)).value == 11
    layer.table = Tensor(np.array([1, 1, 1]))
    assert g(np.arange(5.0)).value == 3


def test_a_parameter_can_become_a_constant_and_back(rng):
    cell = Fixed(3, H, rng)
    cell.constant("W", cell.W.value)
    assert list(cell.parameters()) == [] and list(cell.constants()) == ["W", "A", "tau"]
    cell.parameter("A", cell.A.value)
    assert list(cell.parameters()) == ["A"] and list(cell.constants()) == ["W", "tau"]
    del cell.W
    assert list(cell.constants()) == ["tau"]


def test_a_bare_array_does_not_take_the_place_of_a_parameter(rng):
    layer = Dense(2, 3, rng)
    for array in (np.ones((2, 3)), np.float32(1), 1, 0.5):
        with pytest.raises(
            InputError, match=r"Dense: 'W' is a parameter; assign its numbers, layer.W.value = array"
        ):
            layer.W = array
    assert list(layer.parameters()) == ["W", "b"]
    layer.W.value = np.ones((2, 3))
    layer.parameter("W", np.ones((4, 3)))
    assert layer.parameters()["W"].shape == (4, 3)


# Printed.


def test_a_model_is_printed_as_a_tree(rng):
    model = Tagger(rng)
    model.rnn.freeze()
    model.out.freeze("b")
    lines = [" ".join(line.split()) for line in repr(model).splitlines()]
    assert lines == [
        "Tagger, 200 parameters (148 frozen), float32",
        "emb: Embedding(7, 4) 28", "W (7, 4) 28",
        "rnn: LSTM 144 frozen",
        *(f"W_{g} (8, 4) 32 frozen" if kind == "W" else f"b_{g} (4,) 4 frozen" for g in "fico" for kind in "Wb"),
        "out: Dense 20", "W (4, 4) 16", "b (4,) 4 frozen",
        "A (4, 4) constant", "order (4,) constant",
        "blocks",
        "1: Dense 4", "W (4, 4) shared with out.W", "b (4,) 4", "2: tanh", "3 (4,) 4",
        "again: Dense shared with blocks.1",
    ]  # fmt: skip
    indents = [len(line) - len(line.lstrip()) for line in repr(model).splitlines()]
    assert indents == [0, 2, 4, 2, *[4] * 8, 2, 4, 4, 2, 2, 2, 4, 6, 6, 4, 4, 2]
    columns = {line.index("(", 20) for line in repr(model).splitlines()[1:] if "(" in line[20:]}
    assert len(columns) == 1, "shapes stand below each other"
    stack = repr(Stack(GRU, 2, 3, 2, rng)).splitlines()
    assert [line.split()[0] for line in stack[1:]] == ["1:", "W_z", "W_r", "W", "2:", "W_z", "W_r", "W"]


def test_a_ring_of_layers_and_an_evil_name_are_printed(rng):
    class Ring(Layer):
        def __init__(self):
            super().__init__()
            self.inner = Dense(2, 2, rng)
            self.inner.parent = self
            self.parts = {"a\x1b[31m\nb": Dense(2, 2, rng)}

    said = repr(Ring())
    assert "parent: Ring" in said and "shared with the whole" in said
    assert "\x1b" not in said and len(said.splitlines()) == 1 + 4 + 4
    assert said.splitlines()[0] == "Ring, 12 parameters, float32"
    assert [line.split()[-1] for line in said.splitlines() if ": Dense" in line] == ["6", "6"]


# Pictures and equations.


def test_equations_call_a_constant_by_its_name_and_give_no_gradient_of_what_is_frozen(rng):
    cell = Fixed(3, H, rng)
    text = viz.equations(cell).text
    assert "h_t = A·(tau ⊙ tanh(W·[h_{t−1}, x_t]))" in text
    assert "dW" in text and "dA" not in text and "const" not in text
    cell.freeze()
    text = viz.equations(cell).text
    assert "W·[h_{t−1}, x_t]" in text and "dW" not in text and "dh_{t−1}" in text


def test_constants_of_one_name_in_two_layers_are_told_apart(rng):
    class Two(Cell):
        def build(self, rng):
            self.weights("W", rng)
            self.parts = [Fixed(3, self.hidden, rng), Fixed(3, self.hidden, rng)]
            self.parts[1].A = 2 * np.eye(self.hidden)

        def step(self, x, h_prev):
            h = mg.concat(h_prev, x) @ self.W
            return dict(h=mg.tanh(h @ self.parts[0].A) @ self.parts[1].A)

    text = viz.equations(Two(3, H, rng)).text
    assert "h_t = A_2·tanh(A·(W·[h_{t−1}, x_t]))" in text


@pytest.mark.parametrize("T", [1, 3])
def test_a_picture_takes_neither_a_constant_nor_what_is_frozen_for_an_input(T, rng):
    cell, output = Fixed(3, H, rng), Output(H, 3, rng)
    x = rng.standard_normal((T, 2, 3)).astype("f4")

    def kinds():
        loss = mg.cross_entropy(run(cell, x, output=output).y, np.zeros((T, 2), int))
        loss.backward(record=True)
        network = viz.read.network.read(loss)
        groups = dict.fromkeys(network.group_of.values())
        return loss, {g.name: g.kind for g in groups if g.out.op is None and g.out.role is not None}

    _, before = kinds()
    cell.freeze()
    output.freeze("W_y")
    loss, after = kinds()
    assert after == before == dict.fromkeys(["W", "A", "tau", "W_y", "b_y"], "parameter")
    report = str(viz.report(loss))
    frozen = next(line for line in report.splitlines() if "disabled" in line)
    assert "W" in frozen and "W_y" in frozen and "A" not in frozen.split("False):")[1] and "tau" not in frozen
    dot = viz.draw(loss, level="operation").dot
    assert "constant" in dot and "frozen" in dot


def test_whole_sequences_are_read_from_the_input_and_not_from_a_constant(rng):
    net = Sequential(Dense(3, 4, rng), LayerNorm(4))
    net.constant("scale", np.ones((5, 1, 3)))
    x = Tensor(rng.standard_normal((5, 2, 3)).astype("f4"), name="x")
    y = net(x * net.scale).named("y")
    (y * y).mean().backward(record=True)
    assert [row.name for row in viz.read.whole.read_whole(y).inputs] == ["x"]
