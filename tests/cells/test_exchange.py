"""Weights brought from PyTorch, Keras and ONNX give their outputs and gradients; weights taken there and
back are the same bits; and what is missing, surplus or misshapen is named.
"""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

from cells import (
    CELLS,
    GRU,
    IRNN,
    JANET,
    LSTM,
    RNN,
    BiasedGRU,
    Bidirectional,
    Dense,
    Embedding,
    MultiHeadAttention,
    Output,
    PeepholeLSTM,
    ProjectedLSTM,
    ResetAfterGRU,
    Stack,
    TransformerBlock,
    ZoneoutLSTM,
    exchange,
    run,
)
from minigrad import InputError, ShapeError, Tensor, checkpoint

T, N, D, H = 7, 3, 4, 5
DTYPES = pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
TORCH = {
    RNN: ("RNN", {}),
    IRNN: ("RNN", {"nonlinearity": "relu"}),
    LSTM: ("LSTM", {}),
    ResetAfterGRU: ("GRU", {}),
}
ways = pytest.mark.parametrize("both", [False, True], ids=["one way", "both ways"])


def random_weights(layer, rng, scale=0.4):
    for p in layer.parameters().values():
        p.value = scale * rng.standard_normal(p.shape)
    return layer


def made(kind, layers, both, rng, dtype="float64"):
    return random_weights(Stack(Bidirectional.of(kind) if both else kind, D, H, layers, rng, dtype), rng)


def assert_close(ours, theirs, bound, what=""):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, what
    assert abs(ours - theirs).max(initial=0) <= bound * max(1.0, abs(theirs).max(initial=0)), what


# PyTorch.


def pytorch():
    return pytest.importorskip("torch", reason="PyTorch is the oracle here: `make torch` installs it")


@pytest.mark.oracle
@DTYPES
@ways
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", list(TORCH), ids=lambda kind: kind.__name__)
def test_pytorchs_layers_values_and_all_gradients(kind, layers, both, dtype, bound, rng):
    _against_pytorch(kind, layers, both, dtype, bound, rng, lengths=None)


@pytest.mark.oracle
@DTYPES
@ways
@pytest.mark.parametrize("kind", list(TORCH), ids=lambda kind: kind.__name__)
def test_pytorchs_packed_sequences_values_and_all_gradients(kind, both, dtype, bound, rng):
    _against_pytorch(kind, 2, both, dtype, bound, rng, lengths=[4, 7, 1])


def _against_pytorch(kind, layers, both, dtype, bound, rng, lengths):
    torch = pytorch()
    called, options = TORCH[kind]
    theirs = getattr(torch.nn, called)(
        D, H, layers, bidirectional=both, dtype=getattr(torch, dtype), **options
    )
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(0.4 * rng.standard_normal(tuple(p.shape))))
    ours = Stack(Bidirectional.of(kind) if both else kind, D, H, layers, rng, dtype)
    exchange.from_pytorch(ours, theirs.state_dict())

    data = rng.standard_normal((T, N, D)).astype(dtype)
    count = layers * (2 if both else 1)
    per = len(kind(1, 1, rng).state.split())
    first = [rng.standard_normal((count, N, H)).astype(dtype) for _ in range(per)]
    x, states = (
        Tensor(data, requires_grad=True),
        [Tensor(s[k], requires_grad=True) for k in range(count) for s in first],
    )
    r = ours(x, states, lengths=lengths)
    mask = (
        np.ones((T, N, 1), bool)
        if lengths is None
        else (np.arange(T)[:, None] < np.array(lengths))[:, :, None]
    )

    their_x = torch.tensor(data, requires_grad=True)
    their_states = [torch.tensor(s, requires_grad=True) for s in first]
    given = tuple(their_states) if per > 1 else their_states[0]
    if lengths is None:
        h, last = theirs(their_x, given)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(their_x, torch.tensor(lengths), enforce_sorted=False)
        h, last = theirs(packed, given)
        h, _ = torch.nn.utils.rnn.pad_packed_sequence(h)
    last = last if per > 1 else (last,)
    assert_close(r.h.value * mask, h.detach(), bound, "h")
    for k in range(count):
        for j in range(per):
            assert_close(r.state[k * per + j].value, last[j][k].detach(), bound, f"last state {j} of {k}")

    weigh = rng.standard_normal(r.h.shape).astype(dtype)
    last_weigh = rng.standard_normal((per, count, N, H)).astype(dtype)
    loss = (r.h * (weigh * mask)).sum()
    for k in range(count):
        for j in range(per):
            loss = loss + (r.state[k * per + j] * last_weigh[j, k]).sum()
    loss.backward()
    their_loss = (h * torch.tensor(weigh)).sum()
    their_loss = their_loss + sum((s * torch.tensor(w)).sum() for s, w in zip(last, last_weigh, strict=True))
    their_loss.backward()
    assert_close(x.grad, their_x.grad, bound, "gradient of x")
    for k in range(count):
        for j in range(per):
            assert_close(
                states[k * per + j].grad, their_states[j].grad[k], bound, f"gradient of state {j} of {k}"
            )
    # The gradients as weights, brought over in the same order; a bias that is one of two counts once.
    grads = {n: p.grad.numpy().copy() for n, p in theirs.named_parameters()}
    for name in grads:
        if name.startswith("bias_hh") and kind is not ResetAfterGRU:
            grads[name][:] = 0
        elif name.startswith("bias_hh"):
            grads[name][: 2 * H] = 0
    expected = Stack(Bidirectional.of(kind) if both else kind, D, H, layers, rng, dtype)
    exchange.from_pytorch(expected, grads)
    for name, p in ours.parameters().items():
        assert_close(p.grad, expected.parameters()[name].value, bound, f"gradient of {name}")


@pytest.mark.oracle
@ways
def test_weights_of_ours_run_in_pytorch(both, rng):
    torch = pytorch()
    for kind, (called, options) in TORCH.items():
        ours = made(kind, 2, both, rng)
        theirs = getattr(torch.nn, called)(D, H, 2, bidirectional=both, dtype=torch.float64, **options)
        theirs.load_state_dict({k: torch.tensor(a) for k, a in exchange.to_pytorch(ours).items()})
        x = rng.standard_normal((T, N, D))
        assert_close(ours(x).h.value, theirs(torch.tensor(x))[0].detach(), 1e-10)


# ONNX.

ONNX = {RNN: "RNN", LSTM: "LSTM", PeepholeLSTM: "LSTM", GRU: "GRU", BiasedGRU: "GRU", ResetAfterGRU: "GRU"}


@pytest.mark.oracle
@DTYPES
@pytest.mark.parametrize("kind", list(ONNX), ids=lambda kind: kind.__name__)
def test_onnxs_operators(kind, dtype, bound, rng):
    pytest.importorskip("onnx", reason="onnx.reference is the oracle here: pip install onnx")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    ours = random_weights(kind(D, H, rng, dtype), rng)
    arrays = exchange.to_onnx(ours)
    x = rng.standard_normal((T, N, D)).astype(dtype)
    state = [rng.standard_normal((N, H)).astype(dtype) for _ in ours.state.split()]
    feed = {"X": x, **arrays, "h0": state[0][None]}
    inputs = ["X", "W", "R", "B" if "B" in arrays else "", "", "h0"]
    if len(state) > 1:
        inputs, feed = [*inputs, "c0"], {**feed, "c0": state[1][None]}
    if "P" in arrays:
        inputs = [*inputs, "P"]
    options = {"linear_before_reset": 1} if kind is ResetAfterGRU else {}
    node = helper.make_node(ONNX[kind], inputs, ["Y", "Y_h"], hidden_size=H, **options)
    of = TensorProto.FLOAT if dtype == "float32" else TensorProto.DOUBLE
    graph = helper.make_graph(
        [node], "cell",
        [helper.make_tensor_value_info(n, of, None) for n in feed],
        [helper.make_tensor_value_info(n, of, None) for n in ("Y", "Y_h")],
    )  # fmt: skip
    Y, Y_h = ReferenceEvaluator(helper.make_model(graph)).run(None, feed)
    r = run(ours, x, state)
    assert_close(r.h.value, Y[:, 0], bound, "h")
    assert_close(r.state[0].value, Y_h[0], bound, "the last h")


# Keras.

KERAS = {RNN: "SimpleRNN", LSTM: "LSTM", GRU: "GRU", BiasedGRU: "GRU", ResetAfterGRU: "GRU"}


def keras_layers():
    """Keras on whichever backend is there; it asks once, when it is first imported."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of its imports
        return pytest.importorskip("keras", reason="Keras is the oracle here: pip install keras")


# Keras's own product on PyTorch computes in float32; where PyTorch runs the whole layer it does not.
IN_KERAS = [(k, "float32", 1e-5) for k in KERAS] + [(k, "float64", 1e-10) for k in (LSTM, ResetAfterGRU)]


@pytest.mark.oracle
@ways
@pytest.mark.parametrize(("kind", "dtype", "bound"), IN_KERAS, ids=lambda p: getattr(p, "__name__", str(p)))
@pytest.mark.filterwarnings("ignore")
def test_kerass_layers(kind, both, dtype, bound, rng):
    keras = keras_layers()
    options = {"return_sequences": True, "dtype": dtype}
    if KERAS[kind] == "GRU":
        options |= {"reset_after": kind is ResetAfterGRU, "use_bias": kind is not GRU}
    theirs, ours = getattr(keras.layers, KERAS[kind])(H, **options), kind(D, H, rng, dtype)
    if both:
        theirs, ours = keras.layers.Bidirectional(theirs, dtype=dtype), Bidirectional(kind, D, H, rng, dtype)
    theirs.build((N, T, D))
    theirs.set_weights([0.4 * rng.standard_normal(w.shape) for w in theirs.get_weights()])
    exchange.from_keras(ours, theirs.get_weights())
    x = rng.standard_normal((T, N, D)).astype(dtype)
    for _ in ("there", "and back"):
        h = keras.ops.convert_to_numpy(theirs(keras.ops.convert_to_tensor(x.swapaxes(0, 1))))
        assert_close(runs(ours, x).h.value, h.swapaxes(0, 1), bound)
        random_weights(ours, rng)
        theirs.set_weights(list(exchange.to_keras(ours).values()))


def runs(layer, x):
    return layer(x)


# There and back.

WITH = {"pytorch": list(TORCH), "keras": [*KERAS, IRNN, BiasedGRU], "onnx": list(ONNX)}
PAIRS = [(library, kind) for library, kinds in WITH.items() for kind in kinds]
pairs = pytest.mark.parametrize(
    ("library", "kind"), PAIRS, ids=lambda p: p if isinstance(p, str) else p.__name__
)


@pytest.mark.smoke
@ways
@pairs
def test_there_and_back_no_bit_is_lost_also_by_a_file(library, kind, both, rng, tmp_path):
    to, back = getattr(exchange, f"to_{library}"), getattr(exchange, f"from_{library}")
    for dtype in ("float32", "float64"):
        for layers in (1, 2):
            ours = made(kind, layers, both, rng, dtype)
            arrays = to(ours, tmp_path / "weights.safetensors")
            for given in (arrays, tmp_path / "weights.safetensors"):
                other = made(kind, layers, both, rng, dtype)
                back(other, given)
                for name, p in ours.parameters().items():
                    np.testing.assert_array_equal(other.parameters()[name].value, p.value)
                    assert other.parameters()[name].dtype == dtype
                again = to(other)
                assert list(again) == list(arrays)
                for name, a in arrays.items():
                    np.testing.assert_array_equal(again[name], a)
                    assert a.dtype == dtype and a.flags.c_contiguous


@pytest.mark.smoke
def test_two_biases_add_up_to_one(rng):
    ours = made(LSTM, 1, False, rng)
    arrays = exchange.to_pytorch(ours)
    arrays["bias_hh_l0"] = arrays["bias_hh_l0"] + np.repeat([1.0, 2, 3, 4], H)  # i f c o
    before = {name: p.value for name, p in ours.parameters().items()}
    exchange.from_pytorch(ours, arrays)
    for gate, more in zip("ifco", (1, 2, 3, 4), strict=True):
        np.testing.assert_array_equal(ours.parameters()[f"1.b_{gate}"].value, before[f"1.b_{gate}"] + more)


@pytest.mark.smoke
def test_names_may_stand_behind_a_prefix(rng):
    ours, other = made(LSTM, 1, False, rng), made(LSTM, 1, False, rng)
    arrays = {f"encoder.{n}": a for n, a in exchange.to_pytorch(ours).items()}
    exchange.from_pytorch(other, {**arrays, "decoder.weight": np.ones(3)}, prefix="encoder.")
    np.testing.assert_array_equal(other.parameters()["1.W_f"].value, ours.parameters()["1.W_f"].value)


@pytest.mark.smoke
def test_what_is_missing_surplus_or_misshapen_is_named_and_nothing_is_changed(rng):
    ours = made(LSTM, 1, False, rng)
    before = {name: p.value for name, p in ours.parameters().items()}
    good = exchange.to_pytorch(ours)
    without = {n: a + 1 for n, a in good.items() if not n.startswith("bias")}
    cases = [
        (
            {**without, "bias": 0},
            InputError,
            r"missing bias_ih_l0, bias_hh_l0; surplus bias; expected weight_ih_l0, ",
        ),
        ({**good, "weight_ih_l1": np.ones(3)}, InputError, r"missing none; surplus weight_ih_l1"),
        (
            {**good, "weight_ih_l0": np.ones((20, 5)), "bias_ih_l0": np.ones(4)},
            ShapeError,
            r"weight_ih_l0 \(20, 5\), not \(20, 4\); bias_ih_l0 \(4,\), not \(20,\)",
        ),
        ({**good, "bias_hh_l0": np.array(["a"] * 20)}, InputError, r"bias_hh_l0 \(<U1\) hold no numbers"),
        ([1, 2], InputError, "give a dictionary of arrays or a file, not list"),
    ]
    for arrays, kind, words in cases:
        with pytest.raises(kind, match=f"PyTorch's weights for Stack: .*{words}"):
            exchange.from_pytorch(ours, arrays)
    with pytest.raises(InputError, match="4 arrays, LSTM has kernel, recurrent_kernel, bias"):
        exchange.from_keras(LSTM(D, H, rng), [1, 2, 3, 4])
    for name, p in ours.parameters().items():
        np.testing.assert_array_equal(p.value, before[name])


@pytest.mark.smoke
def test_a_cell_that_the_other_library_has_not_is_named(rng):
    with pytest.raises(
        InputError,
        match="PyTorch has no GRU; weights can be exchanged for RNN, IRNN, LSTM, ProjectedLSTM, ResetAfterGRU",
    ):
        exchange.to_pytorch(GRU(D, H, rng))
    for kind in CELLS.values():
        for library in ("pytorch", "keras", "onnx"):
            if kind is JANET:
                with pytest.raises(InputError, match="has no JANET"):
                    getattr(exchange, f"to_{library}")(kind(D, H, rng))


@pytest.mark.smoke
def test_a_file_that_is_none_is_named(tmp_path, rng):
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    for name in ("broken.safetensors", "absent.safetensors"):
        with pytest.raises(InputError, match=name):
            exchange.from_pytorch(LSTM(D, H, rng), tmp_path / name)
    checkpoint.save(tmp_path / "other.safetensors", {"x": Tensor(np.ones(2))})
    with pytest.raises(InputError, match="surplus x"):
        exchange.from_onnx(LSTM(D, H, rng), tmp_path / "other.safetensors")


# Layers without recurrence, projections, and what computes something else.


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@DTYPES
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize(
    "name", ["Linear", "Output", "Embedding", "MultiheadAttention", "TransformerEncoderLayer", "LSTM"]
)
def test_pytorchs_other_layers_values_and_all_gradients(name, biases, dtype, bound, rng):
    torch = pytorch()
    kind, W = getattr(torch, dtype), 6
    nn, x = torch.nn, rng.standard_normal((T, N, W)).astype(dtype)
    theirs, ours = {
        "Linear": lambda: (nn.Linear(W, H, bias=biases), Dense(W, H, rng, dtype=dtype)),
        "Output": lambda: (nn.Linear(W, H, bias=biases), Output(W, H, rng, dtype)),
        "Embedding": lambda: (nn.Embedding(9, H), Embedding(9, H, rng, dtype=dtype)),
        "MultiheadAttention": lambda: (
            nn.MultiheadAttention(W, 3, bias=biases),
            MultiHeadAttention(W, 3, rng, dtype),
        ),
        "TransformerEncoderLayer": lambda: (
            nn.TransformerEncoderLayer(W, 2, 7, dropout=0.0, norm_first=True, bias=True),
            TransformerBlock(W, 2, rng, 7, dtype),
        ),
        "LSTM": lambda: (
            nn.LSTM(W, H, proj_size=3, bias=biases),
            ProjectedLSTM(W, H, rng, dtype, projection=3),
        ),
    }[name]()
    theirs = theirs.to(kind)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(0.5 * rng.standard_normal(tuple(p.shape))))
    exchange.from_pytorch(ours, theirs)
    if name == "Embedding":
        x = rng.integers(0, 9, (T, N))
        y, h = ours(x), theirs(torch.tensor(x))
    else:
        y, there = ours(x), torch.tensor(x)
        h = theirs(there, there, there) if name == "MultiheadAttention" else theirs(there)
    y, h = getattr(y, "outputs", y), h[0] if isinstance(h, tuple) else h
    assert_close(y.value, h.detach(), bound)
    weigh = rng.standard_normal(y.shape).astype(dtype)
    (y * weigh).sum().backward()
    (h * torch.tensor(weigh)).sum().backward()
    grads = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
    grads |= {n: 0 * a for n, a in grads.items() if n.startswith("bias_hh")}  # one of two biases
    found = {n: p.grad for n, p in ours.parameters().items()}
    exchange.from_pytorch(ours, grads)  # the gradients as weights
    for key, p in ours.parameters().items():
        if biases or (not key.rpartition(".")[2].startswith("b_") and key != "b"):
            assert_close(found[key], p.value, bound, key)
    again = exchange.to_pytorch(ours)
    for key, a in grads.items():
        np.testing.assert_array_equal(again[key], a)


@pytest.mark.oracle
def test_what_computes_something_else_with_the_same_weights_is_refused(rng):
    nn = pytorch().nn
    before = (ours := RNN(D, H, rng)).W_h.value
    with pytest.raises(InputError, match=r"nonlinearity = 'relu', ours 'tanh'; load it into cells\.IRNN"):
        exchange.from_pytorch(ours, nn.RNN(D, H, nonlinearity="relu"))
    assert ours.W_h.value is before
    exchange.from_pytorch(IRNN(D, H, rng), nn.RNN(D, H, nonlinearity="relu"))
    for module, words in (
        (nn.TransformerEncoderLayer(4, 2, 7), "norm_first = False, ours True"),
        (
            nn.TransformerEncoderLayer(4, 2, 7, norm_first=True, activation="gelu"),
            "activation = gelu, ours relu",
        ),
        (nn.TransformerEncoderLayer(4, 4, 7, norm_first=True), "num_heads = 4, ours 2"),
        (nn.TransformerEncoderLayer(4, 2, 7, norm_first=True, layer_norm_eps=1e-3), "norm1.eps = 0.001"),
    ):
        with pytest.raises(InputError, match=words):
            exchange.from_pytorch(TransformerBlock(4, 2, rng, 7), module)


@pytest.mark.smoke
def test_zoneout_is_not_exchanged_as_if_it_were_none(rng):
    for to in (exchange.to_pytorch, exchange.to_keras, exchange.to_onnx):
        with pytest.raises(InputError, match=r"has no ZoneoutLSTM; .* computes something else than LSTM"):
            to(ZoneoutLSTM(D, H, rng))
