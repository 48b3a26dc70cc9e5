"""Layers within layers, copies of them, and what a loop over windows keeps.

One mechanism finds the parameters; names are those that the exchange tables and the checkpoints know.
"""

from __future__ import annotations

import copy
import gc
import pickle
import tracemalloc
import weakref

import numpy as np
import pytest

import minigrad as mg
from cells import (
    CELLS,
    GRU,
    LSTM,
    RNN,
    TCN,
    AttentionDecoder,
    Bidirectional,
    Cell,
    Dense,
    Layer,
    Output,
    Stack,
    Transformer,
    dropped,
    forget_bias,
    recurrent_masks,
    run,
)
from minigrad import GraphError, InputError, ShapeError, Tensor, checkpoint, optim

COPIES = {"deep copy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}
every_copy = pytest.mark.parametrize("way", COPIES.values(), ids=COPIES.keys())


class Model(Layer):
    """Something of everything: a parameter, a layer, a list of layers, a dictionary, and a tensor that learns."""

    def __init__(self, rng, dtype="float64"):
        super().__init__(dtype)
        self.parameter("E", rng.standard_normal((7, 4)))
        self.rnn = LSTM(4, 5, rng, dtype)
        self.blocks = [Dense(5, 5, rng, mg.tanh, dtype), mg.tanh, Dense(5, 5, rng, dtype=dtype)]
        self.heads = {"class": Output(5, 3, rng, dtype), "value": (Output(5, 1, rng, dtype),)}
        self.scale = Tensor(np.ones(5), requires_grad=True, name="scale")
        self.fixed = Tensor(np.ones(5))
        self.note = "a text"

    def __call__(self, codes):
        h = run(self.rnn, mg.gather(self.E, codes)).h * self.scale
        for block in self.blocks:
            h = block(h)
        return self.heads["class"](h).sum() + self.heads["value"][0](h).sum()


LSTM_NAMES = [f"{kind}_{gate}" for gate in "fico" for kind in "Wb"]
MODEL_NAMES = [
    "E", *(f"rnn.{n}" for n in LSTM_NAMES), "blocks.1.W", "blocks.1.b", "blocks.3.W", "blocks.3.b",
    "heads.class.W_y", "heads.class.b_y", "heads.value.1.W_y", "heads.value.1.b_y", "scale",
]  # fmt: skip


@pytest.mark.smoke
def test_parameters_of_layers_within_come_by_name_in_the_order_of_making(rng):
    model = Model(rng)
    assert list(model.parameters()) == MODEL_NAMES
    assert model.parameters()["rnn.W_f"] is model.rnn.W_f
    assert model.parameters()["heads.value.1.W_y"] is model.heads["value"][0].W_y
    assert model.size == 28 + (4 + 5) * 5 * 4 + 20 + 2 * 30 + 18 + 6 + 5


@pytest.mark.smoke
def test_every_parameter_within_learns(rng):
    model, codes = Model(rng), np.array([[1, 2], [3, 4], [5, 6]])
    model(codes).backward()
    assert all(p.grad is not None for p in model.parameters().values())
    before = {n: p.value.copy() for n, p in model.parameters().items()}
    optim.SGD(model.parameters(), lr=0.1).step()
    moved = [n for n, p in model.parameters().items() if not np.array_equal(p.value, before[n])]
    assert moved == MODEL_NAMES


def test_layers_within_are_saved_and_loaded_and_all_or_nothing(rng, tmp_path):
    model, other = Model(rng), Model(rng)
    checkpoint.save(tmp_path / "weights", model.parameters())
    other.load(tmp_path / "weights")
    codes = np.array([[1, 2], [3, 4]])
    assert other(codes).value == model(codes).value
    values = {n: np.zeros(p.shape) for n, p in model.parameters().items()}
    with pytest.raises(InputError, match=r"missing rnn.W_f; nothing"):
        model.load_state_dict({n: v for n, v in values.items() if n != "rnn.W_f"})
    with pytest.raises(ShapeError, match=r"heads\.class\.W_y has shape"):
        model.load_state_dict({**values, "heads.class.W_y": np.zeros(3)})
    assert other(codes).value == model(codes).value, "nothing was changed"
    forget_bias(model, 2.0)
    assert (model.rnn.b_f.value == 2).all()


def test_a_shared_tensor_comes_once_by_its_first_name(rng):
    class Tied(Layer):
        def __init__(self):
            super().__init__()
            self.first = Dense(3, 3, rng)
            self.second = Dense(3, 3, rng)
            self.second.W = self.first.W
            self.again = [self.first, self.second]
            self.first.parent = self  # a ring of layers
            self.again.append(self.again)
            self.nothing = [{}]
            self.nothing[0]["itself"] = self.nothing

    tied = Tied()
    assert list(tied.parameters()) == ["first.W", "first.b", "second.b"]
    assert tied.size == 9 + 3 + 3


def test_what_is_assigned_anew_or_deleted_is_replaced_or_gone(rng):
    model = Model(rng)
    model.rnn = GRU(4, 5, rng, "float64")
    model.blocks.append(Dense(5, 2, rng))
    del model.heads, model.E
    model.scale = None
    assert list(model.parameters()) == [
        "rnn.W_z", "rnn.W_r", "rnn.W", "blocks.1.W", "blocks.1.b", "blocks.3.W", "blocks.3.b",
        "blocks.4.W", "blocks.4.b",
    ]  # fmt: skip
    model.E = Tensor(np.ones(3))
    assert "E" not in model.parameters(), "a constant is not a parameter"
    W = model.parameter("E", np.zeros(2))
    assert model.parameters()["E"] is W


def test_a_parameter_that_does_not_learn_for_a_while_stays_one(rng):
    model = Model(rng)
    for p in model.parameters().values():
        p.requires_grad = False
    assert list(model.parameters()) == MODEL_NAMES


def test_a_layer_with_parameters_of_its_own_way_is_heeded(rng):
    class Own(Layer):
        def parameters(self):
            return {"x": self.hidden_away}

    class Outer(Layer):
        def __init__(self):
            super().__init__()
            self.own = Own()
            object.__setattr__(self.own, "hidden_away", Tensor([1.0], requires_grad=True))

    assert list(Outer().parameters()) == ["own.x"]


TAKEN = {
    "step": "would hide Probe.step", "load": "would hide Probe.load", "parameters": "would hide Probe.parameters",
    "size": "would hide Probe.size", "freeze": "would hide Probe.freeze", "constant": "would hide Probe.constant",
    "state_dict": "would hide Probe.state_dict", "_constants": "would hide",
    "width": "would hide Probe.width", "state": "would hide Probe.state",
    "hidden": r"would hide a size of the layer, hidden = 4", "inputs": "would hide a size", "dtype": "would hide a size",
    "lambda": "give an identifier", "W f": "give an identifier", "": "give an identifier", "  ": "give an identifier",
    "1": "give an identifier", "W.f": "give an identifier", "W\n": "give an identifier", "_names": "would hide",
}  # fmt: skip


@pytest.mark.parametrize("name", list(TAKEN))
def test_a_name_that_is_taken_or_none_is_refused(name, rng):
    class Probe(Cell):
        def build(self, rng):
            self.weights("W", rng)

        def step(self, x, h):
            return dict(h=mg.tanh(mg.concat(h, x) @ self.W))

    cell = Probe(3, 4, rng)
    before = list(vars(cell).items())
    for make in (
        lambda: cell.parameter(name, np.zeros(3)),
        lambda: cell.constant(name, np.zeros(3)),
        lambda: setattr(cell, name, Dense(3, 4, rng)),
        lambda: setattr(cell, name, [Dense(3, 4, rng)]),
        lambda: setattr(cell, name, Tensor([1.0], requires_grad=True)),
    ):
        with pytest.raises(InputError, match=f"Probe: {name!r} .*{TAKEN[name]}.*|Probe: .*{TAKEN[name]}"):
            make()
    assert list(vars(cell).items()) == before and list(cell.parameters()) == ["W"]
    assert run(cell, np.ones((2, 1, 3), "f4")).h.shape == (2, 1, 4)


def test_a_default_of_the_class_is_no_obstacle(rng):
    class Typed(Layer):
        rnn = None
        E: Tensor

        def __init__(self):
            super().__init__()
            self.parameter("E", np.zeros(2))
            self.rnn = self.other = None
            self.rnn, self.other = RNN(2, 2, rng), RNN(2, 2, rng)

    assert list(Typed().parameters()) == ["E", "rnn.W_h", "rnn.b_h", "other.W_h", "other.b_h"]


@pytest.mark.parametrize("early", [
    lambda self, rng: setattr(self, "rnn", RNN(2, 2, rng)),
    lambda self, rng: setattr(self, "blocks", [RNN(2, 2, rng)]),
    lambda self, rng: self.parameter("E", np.zeros(2)),
])  # fmt: skip
def test_a_layer_that_is_assigned_before_the_base_was_made_says_so(early, rng):
    class Early(Layer):
        def __init__(self):
            early(self, rng)
            super().__init__()

    with pytest.raises(
        InputError, match=r"Early: '\w+' is set before super\(\).__init__\(…\); call that first"
    ):
        Early()


def test_two_parameters_of_one_name_are_refused(rng):
    class Odd(Layer):
        def __init__(self):
            super().__init__()
            self.parts = {1: Dense(2, 2, rng), "1": Dense(2, 2, rng)}

    with pytest.raises(InputError, match=r"Odd: two parameters are called 'parts\.1\.W'"):
        Odd().parameters()


@pytest.mark.smoke
def test_the_published_names_of_layers_made_of_layers(rng):
    gates = ["W_z", "W_r", "W"]
    assert list(Stack(GRU, 2, 3, 2, rng).parameters()) == [f"{k}.{g}" for k in (1, 2) for g in gates]
    both = ["forward", "backward"]
    assert list(Bidirectional(GRU, 2, 3, rng).parameters()) == [f"{way}.{g}" for way in both for g in gates]
    deep = Stack(Bidirectional.of(GRU), 2, 3, 2, rng)
    assert list(deep.parameters()) == [f"{k}.{way}.{g}" for k in (1, 2) for way in both for g in gates]
    block = ["v_1", "g_1", "b_1", "v_2", "g_2", "b_2"]
    assert list(TCN(3, 3, 2, 2, rng).parameters()) == [f"{k}.{n}" for k in (1, 2) for n in block]
    attention = [f"attention.{kind}_{n}" for n in "qkvo" for kind in "Wb"]
    names = [*attention, "g_a", "b_a", "g_f", "b_f", "W_1", "b_1", "W_2", "b_2"]
    assert list(Transformer(2, 4, 2, 2, rng).parameters()) == [
        "W_x", "b_x", *(f"{k}.{n}" for k in (1, 2) for n in names), "g_h", "b_h",
    ]  # fmt: skip
    assert list(AttentionDecoder(GRU, 2, 3, 4, rng).parameters()) == [
        *(f"attention.{n}" for n in ("W_a", "U_a", "b_a", "v_a")), *(f"cell.{g}" for g in gates),
    ]  # fmt: skip


def test_dropout_within_the_recurrence_of_a_cell_with_layers_within_asks_how(rng):
    class Nested(Cell):
        def build(self, rng):
            self.inner = Dense(self.hidden + self.inputs, self.hidden, rng)

        def step(self, x, h):
            return dict(h=mg.tanh(self.inner(mg.concat(h, x))))

    cell = Nested(3, 4, rng)
    with pytest.raises(InputError, match=r"dropped Nested: .*inner.W.*seen_through"):
        dropped(cell, recurrent_masks(cell, 0.5, rng))


# Copies.


LAYERS = {
    **{name: lambda rng, kind=kind: kind(3, 4, rng, "float64") for name, kind in CELLS.items()},
    "Stack": lambda rng: Stack(LSTM, 3, 4, 2, rng, "float64"),
    "Stack in both directions": lambda rng: Stack(Bidirectional.of(GRU), 3, 4, 2, rng, "float64"),
    "Bidirectional": lambda rng: Bidirectional(RNN, 3, 4, rng, "float64"),
    "TCN": lambda rng: TCN(3, 4, 2, 2, rng, "float64"),
    "Transformer": lambda rng: Transformer(3, 4, 2, 2, rng, dtype="float64"),
}


def outputs(layer, x):
    return run(layer, x).outputs


@every_copy
@pytest.mark.parametrize("name", list(LAYERS))
def test_a_copied_layer_is_another_with_the_same_numbers(name, way, rng):
    first, x = LAYERS[name](rng), rng.standard_normal((3, 2, 3))
    other = way(first)
    own, copied = first.parameters(), other.parameters()
    assert list(own) == list(copied) and repr(first) == repr(other) and type(first) is type(other)
    assert not {p.number for p in own.values()} & {p.number for p in copied.values()}
    np.testing.assert_array_equal(outputs(other, x).value, outputs(first, x).value)
    weigh = rng.standard_normal((3, 2, first.width))
    ((outputs(first, x) * weigh * 2).sum() + (outputs(other, x) * weigh * 8).sum()).backward()
    for p, q in zip(own.values(), copied.values(), strict=True):
        np.testing.assert_array_equal(q.grad, p.grad * 4)
    assert any(p.grad.any() for p in own.values())


@every_copy
def test_a_copied_model_keeps_what_is_tied_tied(way, rng):
    model = Model(rng)
    model.heads["class"].W_y = model.blocks[0].W = Tensor(np.ones((5, 5)), requires_grad=True)
    model.heads["class"].b_y = Tensor(np.zeros(5), requires_grad=True)
    other = way(model)
    assert other.heads["class"].W_y is other.blocks[0].W is not model.blocks[0].W
    assert list(other.parameters()) == list(model.parameters())
    assert "heads.class.W_y" not in other.parameters()


def test_a_shallow_copy_shares_the_parameters_and_nothing_that_is_added_later(rng):
    cell = LSTM(3, 4, rng)
    other = copy.copy(cell)
    assert all(p is q for p, q in zip(cell.parameters().values(), other.parameters().values(), strict=True))
    other.parameter("W_new", np.zeros(2))
    other.inner = RNN(2, 2, rng)
    assert list(cell.parameters()) == LSTM_NAMES and len(other.parameters()) == 8 + 1 + 2


@every_copy
def test_runs_and_steps_survive(way, rng):
    cell, x = LSTM(3, 4, rng), rng.standard_normal((3, 2, 3)).astype("f4")
    both = Bidirectional(RNN, 3, 4, rng)
    with mg.no_grad():
        r, b = run(cell, x), both(x)
    other = way(r)
    np.testing.assert_array_equal(other.f.value, r.f.value)
    np.testing.assert_array_equal(other.steps[1]["c"].value, r.steps[1].c.value)
    assert other.state[0] is other.steps[-1].h is other.last, "what is one stays one"
    np.testing.assert_array_equal(way(b).forward.h.value, b.forward.h.value)
    shallow = copy.copy(r.steps[0])
    assert shallow.h is r.steps[0].h and copy.copy(r).state is r.state
    for thing in (other, shallow, way(b)):
        assert not hasattr(thing, "nothing") and not hasattr(thing, "_nothing")
    with pytest.raises(GraphError, match=r"copy or pickle of .*detach\(\) or \.numpy\(\)"):
        way(run(cell, x))
    for kind in (type(r), type(r.steps[0])):  # as while it is unpickled: nothing is there yet
        with pytest.raises(AttributeError):
            getattr(kind.__new__(kind), "anything")  # noqa: B009


# Windows one after the other.


def windows(kind, rng, N=2, H=4, length=3):
    """What runs one window from a state, and the parameters: returns (loss, next state)."""
    x = rng.standard_normal((length, N, 3)).astype("f4")
    if kind == "scan":
        W = Tensor(0.1 * rng.standard_normal((H, H)).astype("f4"), requires_grad=True)
        V = Tensor(0.1 * rng.standard_normal((3, H)).astype("f4"), requires_grad=True)

        def window(state):  # type: ignore[no-redef]
            first = mg.zeros((N, H)) if state is None else state[0]
            h, hs = mg.scan(lambda h, x: (mg.tanh(h @ W + x @ V),) * 2, first, x)
            return (hs**2).mean(), [h]

        return window, [W, V]
    if kind == "stack":
        layer = Stack(RNN, 3, H, 2, rng)
    elif kind == "both":
        layer = Bidirectional(RNN, 3, H, rng)
    else:
        layer = LSTM(3, H, rng) if kind == "run" else RNN(3, H, rng)

    def window(state):
        if kind == "steps":
            steps = run(layer, x, state).steps
            return mg.stack([s.h**2 for s in steps]).mean(), steps[-1].state
        r = layer(x, state)
        return (r.h**2).mean(), r.state

    return window, list(layer.parameters().values())


KINDS = ["run", "steps", "scan", "stack", "both"]


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_state_keeps_no_window_before(kind, rng):
    window, parameters = windows(kind, rng)
    state, counts, first = None, [], None
    for _ in range(6):
        loss, after = window(state)
        loss.backward()
        optim.SGD(parameters, 0.1).step()
        state = [s.detach() for s in after]
        counts.append(len(mg.ancestors(loss)))
        first = first or weakref.ref(loss)
    assert len(set(counts[1:])) == 1, counts
    assert first is not None and first() is None, "the first window is gone"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_windows_take_the_memory_of_one(kind, rng):
    window, parameters = windows(kind, rng, N=64, H=32, length=2)
    optimiser, state, used = optim.SGD(parameters, 0.1), None, []
    tracemalloc.start()
    try:
        for k in range(1101):
            optimiser.zero_grad()
            loss, after = window(state)
            loss.backward()
            optimiser.step()
            state = [s.detach() for s in after]
            if k in (100, 1100):
                gc.collect()
                used.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert used[1] <= 1.01 * used[0], used


@pytest.mark.slow
def test_a_thousand_windows_of_a_compiled_loss_take_the_memory_of_one(rng):
    cell = RNN(3, 32, rng)

    @mg.compile
    def loss(x, h):
        r = run(cell, x, (h,))
        return (r.h**2).mean(), *r.state

    optimiser, x = optim.Adam(cell.parameters(), 0.01), rng.standard_normal((2, 64, 3)).astype("f4")
    state, used = cell.initial_state(64), []
    tracemalloc.start()
    try:
        for k in range(1101):
            optimiser.zero_grad()
            _, *state = loss.backward(x, *state)
            optimiser.step()
            state = [s.detach() for s in state]
            if k in (100, 1100):
                gc.collect()
                used.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert used[1] <= 1.01 * used[0], used


# What somebody writes who comes from another library.


@pytest.mark.smoke
def test_a_layer_in_place_of_its_parameters_is_named_with_the_remedy(rng):
    cell, output = RNN(2, 3, rng), Output(3, 2, rng)
    with pytest.raises(
        InputError, match=r"^optimiser: RNN is a layer; give its parameters, layer.parameters\(\)$"
    ):
        mg.optim.SGD(cell, lr=0.1)
    with pytest.raises(InputError, match=r"RNN is a layer; .*several of them as {\*\*a.parameters\(\), "):
        mg.optim.SGD([cell, output], lr=0.1)


@pytest.mark.smoke
def test_a_forward_that_nothing_calls_is_refused_where_it_is_written():
    with pytest.raises(
        InputError, match=r"Model: nothing calls forward here; write __call__\(self, xs\) instead"
    ):

        class Model(Layer):
            def forward(self, xs):
                return xs

    class Calls(Layer):  # what calls it itself may have one
        def __call__(self, xs):
            return self.forward(xs)

        def forward(self, xs):
            return xs

    assert Calls()(3) == 3


@pytest.mark.smoke
@pytest.mark.parametrize(("name", "place"), [("Adam", "Adam"), ("clip_grad_norm_", "clip_grad_norm")])
def test_what_is_in_optim_says_so(name, place):
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; it is minigrad\.optim\.{place}$"):
        getattr(mg, name)
    with pytest.raises(AttributeError, match=r"no attribute 'no_such_thing'$"):
        _ = mg.no_such_thing
