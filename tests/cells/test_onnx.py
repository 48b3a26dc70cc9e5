"""Networks that were trained elsewhere give the same numbers and gradients here, in steps that can be seen.

The oracles are PyTorch (modules brought over by both of its exporters), ONNX's own cases of its recurrent nodes, and
onnxruntime on nodes drawn by chance.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import pickle
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

import cells
import minigrad as mg
import viz
from cells.onnx.control import CONTROL
from cells.onnx.operators import OPERATORS
from cells.onnx.read import MOST_NODES
from cells.onnx.recurrent import ACTIVATIONS
from cells.onnx.steps import at
from minigrad import DTypeError, InputError, ShapeError, Tensor
from minigrad.errors import MinigradError
from tests.cells.onnx_models import D, H, N, T, models

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # exporters warn of themselves
BOUNDS = {"float32": 1e-5, "float64": 1e-10}


@pytest.fixture(autouse=True)
def needed():
    pytest.importorskip(
        "onnx", reason="files of ONNX are read with the package onnx: `make oracles` installs it"
    )


def pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: `make oracles` installs it")
    torch.manual_seed(0)
    return torch


def assert_close(ours, theirs, bound, what=""):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, what
    assert abs(ours - theirs).max(initial=0) <= bound * max(1.0, abs(theirs).max(initial=0)), what


# Modules of PyTorch.

TABLE = [
    "rnn", "rnn relu, 2 layers", "rnn both ways, 3 layers", "rnn without bias", "lstm", "lstm, 3 layers",
    "lstm both ways", "lstm both ways, 2 layers, sequences first", "lstm with dropout between layers",
    "lstm without bias", "lstm with projection", "lstm with first states", "lstm both ways with first states", "lstm, packed",
    "gru both ways, packed",
    "gru", "gru, 2 layers, sequences first", "gru both ways, 2 layers", "gru without bias", "classifier of words",
    "classifier of words, both ways, 2 layers", "tagger of words", "attention on a gru", "encoder and decoder",
    "convolution before an lstm", "convolution with dilation, stride and groups", "loop of an lstm cell",
    "loop of a gru cell", "loop of an rnn cell", "loop of a cell of one's own", "loop of a leaky cell",
    "loop of a minimal gate", "loop of two lstm cells", "loop after loop",
    "loop from the end, learned first states", "decoder with attention in a loop", "transformer",
    "transformer, norm last, relu", "tied weights", "arithmetic",
]  # fmt: skip
STEPS = {"decoder with attention in a loop": 4}  # where not T


def brought(torch, name, dtype, exporter="trace"):
    """The module, its inputs, and the network."""
    module, inputs, loops = models(torch)[name]
    module = module.to(getattr(torch, dtype)).eval()
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    inputs = tuple(x.to(getattr(torch, dtype)) if x.is_floating_point() else x for x in inputs)
    network = cells.from_torch(module, inputs, exporter=exporter)
    loops += exporter == "export" and isinstance(
        getattr(module, "rnn", None), torch.nn.RNN
    )  # which it unrolls
    assert [loop.length for loop in network.loops] == [STEPS.get(name, T)] * loops
    return module, inputs, network


def loss_of(outputs, weights):
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = (outputs[0] * weights[0]).sum()
    for y, w in zip(outputs[1:], weights[1:], strict=True):
        total = total + (y * w).sum()
    return total


def compared(torch, module, inputs, network, dtype, rng):
    """Outputs and all gradients, eager and compiled, beside PyTorch's; returns our loss."""
    bound = BOUNDS[dtype]
    theirs = tuple(x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs)
    y = module(*theirs)
    y = y if isinstance(y, tuple) else (y,)
    weights = [rng.standard_normal(tuple(o.shape)).astype(dtype) for o in y]
    loss_of(y, [torch.tensor(w) for w in weights]).backward()

    ours = [
        Tensor(x.numpy(), requires_grad=x.is_floating_point(), name=v.name)
        for x, v in zip(inputs, network.inputs, strict=True)
    ]
    outputs = network(*ours)
    for k, o in enumerate(outputs if isinstance(outputs, tuple) else (outputs,)):
        assert_close(o.value, y[k].detach(), bound, f"output {k}")
    loss = loss_of(outputs, weights)
    loss.backward(record=True)
    for o, x in zip(ours, theirs, strict=True):
        if x.is_floating_point():
            assert_close(o.grad, x.grad, bound, f"gradient of {o.name}")
    own = network.parameters()
    assert set(own) == {n for n, p in module.named_parameters()}
    for name, p in module.named_parameters():
        assert_close(own[name].value, p.detach(), 0, name)
        assert_close(own[name].grad, p.grad, bound, f"gradient of {name}")
        own[name].grad = None
    return loss, weights


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", TABLE)
def test_a_module_gives_the_same_outputs_and_gradients(name, dtype, rng):
    torch = pytorch()
    module, inputs, network = brought(torch, name, dtype)
    compared(torch, module, inputs, network, dtype, rng)


def test_the_table_has_every_model():
    assert list(models(pytorch())) == TABLE


COMPILED = [
    "lstm both ways, 2 layers, sequences first",
    "gru both ways, packed",
    "loop of an lstm cell",
    "transformer",
]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_it_is_what_is_seen(name, rng):
    torch = pytorch()
    module, inputs, network = brought(torch, name, "float64")
    _, weights = compared(torch, module, inputs, network, "float64", rng)
    step = mg.compile(lambda *xs: loss_of(network(*xs), weights))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one of them would say that it runs eagerly
        step.backward(*(x.numpy() for x in inputs))
    for key, p in module.named_parameters():
        assert_close(network.parameters()[key].grad, p.grad, 1e-10, f"gradient of {key}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm both ways", "loop of a gru cell", "tied weights"])
def test_by_the_exporter_of_torch_export(name, rng):
    pytest.importorskip("onnxscript", reason="PyTorch's second exporter needs onnxscript")
    torch = pytorch()
    module, inputs, network = brought(torch, name, "float64", exporter="export")
    compared(torch, module, inputs, network, "float64", rng)


def test_sizes_that_are_free_are_free_in_the_program_too(rng):
    torch = pytorch()
    module, inputs, _ = brought(torch, "gru both ways, 2 layers", "float64")
    network = cells.from_torch(module, inputs, free={"x": {0: "T", 1: "N"}})
    step = mg.compile(lambda x: network(x)[0])
    for length, sequences in ((T, N), (2, 1), (9, 4)):
        x = rng.standard_normal((length, sequences, D))
        y = module(torch.tensor(x))[0].detach()
        assert_close(network(x)[0].value, y, 1e-10)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_close(step(x).value, y, 1e-10)
    with pytest.raises(ShapeError, match=r"input 'x' \(T, N, 4\) float64: .*\(5, 3, 5\)"):
        network(np.zeros((5, 3, 5)))


def test_a_size_that_an_exporter_took_for_a_constant_is_told():
    torch = pytorch()
    module, x, _ = models(torch)["loop of a gru cell"]
    with pytest.raises(InputError, match="other numbers than the module where T is longer by 1"):
        cells.from_torch(module, x, free={"x": {0: "T"}}, exporter="trace")


def test_a_module_is_not_changed():
    torch = pytorch()
    module, inputs, _ = models(torch)["transformer"]
    module.train()
    before = {name: p.clone() for name, p in module.state_dict().items()}
    cells.from_torch(module, inputs)
    assert module.training and all(bool((p == before[name]).all()) for name, p in module.state_dict().items())


def test_a_network_is_a_layer_that_can_be_copied_saved_and_trained(tmp_path, rng):
    torch = pytorch()
    _, (x,), network = brought(torch, "loop of an lstm cell", "float64")
    x = x.numpy()
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(other(x).value, network(x).value)
        assert other.parameters()["cell.bias_hh"] is not network.parameters()["cell.bias_hh"]
        assert [str(loop) for loop in other.loops] == [str(loop) for loop in network.loops]
    other.load_state_dict({name: 2 * p.value for name, p in network.parameters().items()})
    step = mg.training_step(lambda x: (other(x) ** 2).sum(), mg.optim.SGD(other.parameters(), 0.1))
    losses = [float(step(x)) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


def test_where_nothing_repeats_it_says_so():
    network = cells.from_onnx(model([node("Tanh", ["x"], ["y"])]))
    assert "no steps were found: it is drawn as it is" in repr(network)


def test_what_cannot_be_brought_is_said_in_one_line():
    torch = pytorch()
    module, x, _ = models(torch)["lstm"]
    wrong = [
        (dict(module=3, example=x), "give a torch.nn.Module, not int"),
        (dict(module=module, example="abc"), "give a tensor or an array"),
        (dict(module=module, example=x, exporter="zip"), "'zip'; give one of trace, export"),
        (dict(module=module, example=x, free={"z": {0: "T"}}), "free = z; forward takes x"),
        (dict(module=module, example=x[..., :2], exporter="trace"), "Expected 4, got 2"),
    ]
    for arguments, words in wrong:
        with pytest.raises(InputError, match=words) as caught:
            cells.from_torch(**arguments)
        assert "\n" not in str(caught.value)


# What pictures see.


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("lstm with first states", {"rnn / layer 1": "h c", "rnn / layer 2": "h c"}),
        (
            "gru both ways, 2 layers",
            {f"rnn / layer {k} / {way}": "h" for k in (1, 2) for way in ("forward", "backward")},
        ),
        ("loop of an lstm cell", {"cell": "h c"}),
        ("loop of a gru cell", {"cell": "h"}),
        ("loop after loop", {"low": "h", "high": "h"}),
        ("loop of two lstm cells", {"": "h1 c1 h2 c2"}),
    ],
)
def test_pictures_see_steps_states_and_transport(name, bands, rng):
    torch = pytorch()
    module, inputs, network = brought(torch, name, "float64")
    loss, _ = compared(torch, module, inputs, network, "float64", rng)
    from viz.read.network import read

    seen = read(loss)
    assert {band: set(states) for band, states in seen.carried.items()} == {
        b: set(s.split()) for b, s in bands.items()
    }
    assert seen.times == list(range(1, T + 1))
    assert len(viz.transport(loss)) == len(bands)
    for view in (viz.draw, viz.gradient, viz.gates, viz.report, viz.bptt, viz.paths):
        view(loss)
    viz.page(loss)


@pytest.mark.parametrize(
    ("name", "gates"),
    [
        ("loop of an lstm cell", "f i c_tilde o c h"),
        ("loop of a gru cell", "r z h_tilde h"),
        ("loop of two lstm cells", "f1 i1 c_tilde1 o1 f2 i2 c_tilde2 o2 c1 c2 h1 h2"),
        ("loop of a minimal gate", "z h_tilde h"),
        ("loop of a leaky cell", "h"),
    ],
)
def test_gates_of_loops_bear_their_names(name, gates):
    torch = pytorch()
    _, inputs, network = brought(torch, name, "float64")
    y = network(*(x.numpy() for x in inputs))
    found = {
        n.name for n in mg.ancestors(y) if n.op is not None and n.scope and n.scope[-1] == "t=3" and n.name
    }
    assert found == set(gates.split())


@pytest.mark.parametrize("seed", range(40))
def test_a_step_taken_from_where_it_was_put_together_has_the_same_numbers(seed):
    """Chains of operations drawn by chance over steps that are stacked; `at` beside an index."""
    rng = np.random.default_rng(seed)
    steps = [Tensor(rng.standard_normal((2, 3)), requires_grad=True) for _ in range(4)]
    x = mg.concat(*(s.reshape(1, 2, 3) for s in steps), axis=0)
    for _ in range(rng.integers(1, 7)):
        kind = rng.integers(6)
        if kind == 0:
            x = x.transpose(tuple(rng.permutation(x.ndim).tolist()))
        elif kind == 1:
            x = x.reshape(-1, *x.shape[1:]) if x.ndim > 3 else x.reshape(1, *x.shape)
        elif kind == 2:
            x = mg.concat(x, mg.tanh(x), axis=int(rng.integers(x.ndim)))
        elif kind == 3:
            x = x * rng.standard_normal([n if rng.random() < 0.5 else 1 for n in x.shape]) + x
        elif kind == 4:
            x = x[
                tuple(
                    slice(int(rng.integers(2)) if n > 2 else 0, None, int(rng.integers(1, 3)))
                    for n in x.shape
                )
            ]
        else:
            x = x.reshape(x.shape[0], -1) if rng.random() < 0.3 else mg.where(x > 0, x, 0.1 * x)
    for axis in range(x.ndim):
        for k in (0, x.shape[axis] - 1, -1):
            np.testing.assert_array_equal(at(x, axis, k).value, x.value.take(k, axis))
    weigh = rng.standard_normal(x.shape)
    parts = [(at(x, 0, k) * weigh[k]).sum() for k in range(x.shape[0])]
    whole, by_step = (mg.grad(loss, steps) for loss in ((x * weigh).sum(), sum(parts[1:], start=parts[0])))
    for a, b in zip(whole, by_step, strict=True):
        assert_close(a, b, 1e-12)


def test_first_states_stand_where_their_run_begins():
    torch = pytorch()
    _, inputs, network = brought(torch, "lstm both ways with first states", "float64")
    y = network(*(x.numpy() for x in inputs))[0]
    found = {
        (n.scope, n.name)
        for n in mg.ancestors(y)
        if n.scope and n.scope[-1] in ("t=0", f"t={T + 1}") and n.name
    }
    ways = (("forward", "t=0"), ("backward", f"t={T + 1}"))
    assert {(scope[-2:], name) for scope, name in found} == {
        ((way, at), name) for way, at in ways for name in "hc"
    }


def test_the_first_state_of_a_run_from_the_end_stands_behind_it():
    given = [value("W", np.ones((1, 3, 3), "f")), value("R", np.ones((1, 3, 3), "f"))]
    inputs = [("x", (4, 2, 3)), ("h0", (1, 2, 3))]
    proto = model(
        [node("RNN", ["x", "W", "R", "", "", "h0"], ["y"], direction="reverse")], inputs, initialisers=given
    )
    y = cells.from_onnx(proto)(np.ones((4, 2, 3), "f"), np.ones((1, 2, 3), "f"))
    assert {n.scope[-1] for n in mg.ancestors(y) if n.scope} == {f"t={t}" for t in range(1, 6)}


def test_bodies_that_look_alike_and_read_otherwise_are_no_steps():
    """The third reads the state of the first: two steps, and then something else."""
    W = value("W", np.ones((3, 3), "f"))
    nodes = []
    for t, (before, x) in enumerate((("h0", "x1"), ("h1", "x2"), ("h1", "x3")), 1):
        nodes += [node("MatMul", [before, "W"], [f"a{t}"]), node("Add", [f"a{t}", x], [f"b{t}"])]
        nodes += [node("Tanh", [f"b{t}"], [f"h{t}"])]
    nodes.append(node("Add", ["h2", "h3"], ["y"]))
    inputs = [(name, (2, 3)) for name in ("h0", "x1", "x2", "x3")]
    (loop,) = cells.from_onnx(model(nodes, inputs, initialisers=[W])).loops
    assert (loop.length, loop.states) == (2, ["h"])
    assert {n.outputs[0]: t for n, t in loop.step_of.items()} == dict(a1=1, b1=1, h1=1, a2=2, b2=2, h2=2)


def test_gates_of_a_node_are_those_of_the_module(rng):
    torch = pytorch()
    module, (x,), network = brought(torch, "lstm", "float64")
    run = network.run(x.numpy())
    assert list(run.outputs) == [v.name for v in network.outputs] and list(run.runs) == ["rnn"]
    step = run.runs["rnn"].steps[0]
    p = {name: value.detach().numpy() for name, value in module.named_parameters()}
    a = x.numpy()[0] @ p["rnn.weight_ih_l0"].T + p["rnn.bias_ih_l0"] + p["rnn.bias_hh_l0"]
    for gate, part, function in (("i", 0, "σ"), ("f", 1, "σ"), ("c_tilde", 2, "tanh"), ("o", 3, "σ")):
        own = a[:, part * H : (part + 1) * H]
        assert_close(
            step[gate].value, np.tanh(own) if function == "tanh" else 1 / (1 + np.exp(-own)), 1e-12, gate
        )


# ONNX's own cases, and nodes drawn by chance.


@pytest.fixture(scope="module")
def cases():
    return pytest.importorskip("onnx.backend.test.case.node").collect_testcases("")


def test_onnxs_own_cases_of_recurrent_nodes(cases):
    done = 0
    for case in cases:
        if case.model.graph.node[0].op_type in ("RNN", "LSTM", "GRU"):
            network = cells.from_onnx(case.model)
            for inputs, expected in case.data_sets:
                outputs = network.run(*inputs)
                for v, y in zip(network.outputs, expected, strict=True):
                    assert_close(outputs[v.name].value, y, 1e-6, f"{case.name}: {v.name}")
            done += 1
    assert done >= 18


REFUSED = (  # cases whose operators are known and that are refused, and why
    "_select_last_index",  # of several largest the last
    "_training_mode", "test_training_dropout",
    "test_basic_conv", "test_conv_with",  # along two axes
    "gathernd_example_int32_batch_dim1",
    "_empty_set",  # the largest of nothing
    "test_scan_sum",  # of opset 8
)  # fmt: skip


def test_onnxs_own_cases_of_all_operators_that_are_known(cases):
    done, refusals = set(), []
    for case in cases:
        ops = {n.op_type for n in case.model.graph.node}
        domains = {n.domain for n in case.model.graph.node}
        if not case.data_sets or not ops <= {*OPERATORS, *CONTROL} or not domains <= {"", "ai.onnx"}:
            continue
        for inputs, expected in case.data_sets:
            if not all(hasattr(a, "dtype") and a.dtype.kind in "fiub" for a in (*inputs, *expected)):
                continue  # texts, sequences, and floats of 8 bits
            try:
                network = cells.from_onnx(case.model)
                outputs = network.run(*map(np.asarray, inputs))
            except MinigradError:
                refusals.append(case.name)
                continue
            for v, y in zip(network.outputs, expected, strict=True):
                ours, bound = outputs[v.name].value, 5e-3 if y.dtype == np.float16 else 1e-5
                assert ours.shape == y.shape and ours.dtype == y.dtype, f"{case.name}: {v.name}"
                np.testing.assert_allclose(ours, y, rtol=bound, atol=bound / 10, err_msg=case.name)
            done.add(case.name)
    assert len(done) > 800
    assert [name for name in refusals if not any(part in name for part in REFUSED)] == []


def value(name, array):
    from onnx import numpy_helper

    return numpy_helper.from_array(np.asarray(array), name)


def model(nodes, inputs=(("x", (2, 3)),), outputs=("y",), initialisers=(), opset=17):
    """A model of float32, its output shapes left open."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs], list(initialisers),
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(*arguments, **options):
    from onnx import helper

    return helper.make_node(*arguments, **options)


@pytest.mark.parametrize("seed", range(30))
def test_recurrent_nodes_drawn_by_chance_beside_onnxruntime(seed):
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is the oracle here: `make oracles` installs it"
    )
    rng = np.random.default_rng(seed)
    op, gates = [("RNN", 1), ("LSTM", 4), ("GRU", 3)][seed % 3]
    direction = rng.choice(["forward", "reverse", "bidirectional"])
    ways, length, n, d, h = 2 if direction == "bidirectional" else 1, *rng.integers(1, 6, 4).tolist()
    draw = lambda *shape: (0.5 * rng.standard_normal(shape)).astype(np.float32)  # noqa: E731
    inputs, given = (
        ["x", "W", "R"],
        [value("W", draw(ways, gates * h, d)), value("R", draw(ways, gates * h, h))],
    )
    more = [("B", draw(ways, 2 * gates * h)), ("lengths", rng.integers(1, length + 1, n).astype(np.int32))]
    more += [("h0", draw(ways, n, h))] + (
        [("c0", draw(ways, n, h)), ("P", draw(ways, 3 * h))] if op == "LSTM" else []
    )
    for name, array in more:
        there = rng.random() < 0.6
        inputs.append(name if there else "")
        given += [value(name, array)] if there else []
    options = dict(hidden_size=int(h), direction=str(direction))
    if op == "GRU":
        options["linear_before_reset"] = int(rng.integers(2))
    if op == "RNN" and rng.random() < 0.5:
        options["activations"] = ["Relu"] * ways
    outputs = ["Y", "Y_h"] + ["Y_c"] * (op == "LSTM")
    proto = model([node(op, inputs, outputs, **options)], [("x", (length, n, d))], outputs, given, opset=14)
    x = draw(length, n, d)
    theirs = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    ours = cells.from_onnx(proto).run(x)
    for name, y in zip(outputs, theirs, strict=True):
        assert_close(ours[name].value, y, 1e-5, f"{op} {options} {inputs}: {name}")


WRITTEN = {a.lower(): a for a in (
    "Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", "Affine", "ScaledTanh", "HardSigmoid", "LeakyRelu",
    "ThresholdedRelu", "Elu",
)}  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_other_activations_and_clip_drawn_by_chance_beside_onnxruntime(seed):
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is the oracle here: `make oracles` installs it"
    )
    assert set(WRITTEN) == set(ACTIVATIONS)
    rng = np.random.default_rng(seed)
    op, gates, count = [("RNN", 1, 1), ("LSTM", 4, 3), ("GRU", 3, 2)][seed % 3]
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    ways, length, n, d, h = 2 if direction == "bidirectional" else 1, *rng.integers(1, 5, 4).tolist()
    draw = lambda *shape: (0.6 * rng.standard_normal(shape)).astype(np.float32)  # noqa: E731
    names = rng.choice(list(ACTIVATIONS), count * ways).tolist()
    options: dict = dict(hidden_size=h, direction=direction)
    if op == "GRU":
        options["linear_before_reset"] = int(rng.integers(2))
        if not options["linear_before_reset"]:
            names[::2] = rng.choice(["sigmoid", "hardsigmoid"], ways).tolist()
    numbers = {
        k: [0.5 if (op, name, k) == ("GRU", "hardsigmoid", "beta") else float(rng.uniform(0.1, 1)) for name in names
            if k in ACTIVATIONS[name][1]]
        for k in ("alpha", "beta")
    }  # fmt: skip
    options["activations"] = [WRITTEN[name] for name in names]
    options |= {f"activation_{k}": v for k, v in numbers.items() if v}
    if rng.random() < 0.5:
        options["clip"] = float(rng.uniform(0.2, 1))
    inputs = ["x", "W", "R", "B"]
    given = [value("W", draw(ways, gates * h, d)), value("R", draw(ways, gates * h, h))]
    given += [value("B", draw(ways, 2 * gates * h))]
    if op == "LSTM" and rng.random() < 0.4:
        inputs += ["", "", "", "P"]
        given.append(value("P", draw(ways, 3 * h)))
    outputs = ["Y", "Y_h"] + ["Y_c"] * (op == "LSTM")
    proto = model([node(op, inputs, outputs, **options)], [("x", (length, n, d))], outputs, given, opset=14)
    x = draw(length, n, d)
    theirs = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    network = cells.from_onnx(proto)
    ours = network.run(x)
    for name, y in zip(outputs, theirs, strict=True):
        assert_close(ours[name].value, y, 1e-5, f"{op} {options} {inputs}: {name}")
    if seed < 6:  # what is seen is what runs compiled
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_close(mg.compile(lambda x: network.run(x)["Y"])(x).value, theirs[0], 1e-5)


def test_gates_of_other_activations_keep_their_names():
    given = [value("W", np.ones((1, 4, 3), "f")), value("R", np.ones((1, 4, 1), "f"))]
    options = dict(hidden_size=1, activations=["HardSigmoid", "Tanh", "Softsign"], clip=3.0)
    y = cells.from_onnx(
        model([node("LSTM", ["x", "W", "R"], ["y"], **options)], [("x", (2, 1, 3))], initialisers=given)
    )(np.ones((2, 1, 3), "f"))
    assert {n.name for n in mg.ancestors(y) if n.scope and n.scope[-1] == "t=2"} >= {
        "f",
        "i",
        "c_tilde",
        "o",
        "c",
        "h",
    }


EARLIER = [
    (7, [("Dropout", ["x"], ["y"], dict(ratio=0.3))]),
    (9, [("Slice", ["x"], ["y"], dict(starts=[0, -3], ends=[9, -1], axes=[0, 2]))]),
    (9, [("Softmax", ["x"], ["y"], dict(axis=1))]),
    (10, [("Pad", ["x"], ["y"], dict(pads=[0, 1, 0, 2, 0, 1], value=0.5))]),
    (10, [("Clip", ["x"], ["y"], dict(min=-0.5, max=0.25))]),
    (11, [("Softmax", ["x"], ["y"], {})]),
    (11, [("LogSoftmax", ["x"], ["y"], dict(axis=2))]),
    (11, [("Unsqueeze", ["x"], ["a"], dict(axes=[0, 4])), ("Squeeze", ["a"], ["y"], dict(axes=[0]))]),
    (11, [("ReduceSum", ["x"], ["y"], dict(axes=[1, -1], keepdims=0))]),
    (11, [("ReduceMean", ["x"], ["y"], {})]),
    (11, [("Split", ["x"], ["a", "y"], dict(axis=2, split=[1, 3]))]),
    (12, [("Split", ["x"], ["y", "b"], dict(axis=-1))]),
    (12, [("ReduceMax", ["x"], ["y"], dict(axes=[0]))]),
    (13, [("Softmax", ["x"], ["y"], {})]),
    (18, [("Split", ["x"], ["a", "y"], dict(axis=1, num_outputs=2))]),
]


@pytest.mark.parametrize(("opset", "parts"), EARLIER)
def test_operators_of_earlier_opsets_beside_onnxruntime(opset, parts, rng):
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is the oracle here: `make oracles` installs it"
    )
    nodes = [node(op, inputs, outputs, **attributes) for op, inputs, outputs, attributes in parts]
    proto = model(nodes, [("x", (2, 3, 4))], opset=opset)
    x = rng.standard_normal((2, 3, 4)).astype("f")
    (y,) = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    assert_close(cells.from_onnx(proto)(x).value, y, 1e-6)


def test_scan_loop_and_if(rng):
    from onnx import TensorProto, helper

    real = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    U = rng.standard_normal((3, 3)).astype("f")
    step = helper.make_graph(
        [node("MatMul", ["h", "U"], ["a"]), node("Add", ["a", "x_t"], ["b"]), node("Tanh", ["b"], ["h_t"]),
         node("Identity", ["h_t"], ["y_t"])],
        "step", [real("h", 2, 3), real("x_t", 2, 3)], [real("h_t", 2, 3), real("y_t", 2, 3)],
    )  # fmt: skip
    proto = model(
        [node("Scan", ["h0", "x"], ["h", "y"], body=step, num_scan_inputs=1)],
        [("h0", (2, 3)), ("x", (4, 2, 3))], ("y",), [value("U", U)],
    )  # fmt: skip
    h0, x = rng.standard_normal((2, 3)).astype("f"), rng.standard_normal((4, 2, 3)).astype("f")
    expected, h = [], h0
    for row in x:
        h = np.tanh(h @ U + row)
        expected.append(h)
    y = cells.from_onnx(proto)(h0, x)
    assert_close(y.value, np.stack(expected), 1e-6)
    assert {n.scope[-1] for n in mg.ancestors(y) if n.op is not None and n.scope} == {
        f"t={t}" for t in range(1, 5)
    }

    turn = helper.make_graph(
        [node("Mul", ["v", "two"], ["w"]), node("Identity", ["going"], ["still"])],
        "turn",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ()), helper.make_tensor_value_info("going", TensorProto.BOOL, ()),
         real("v", 2, 3)],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, ()), real("w", 2, 3)],
    )  # fmt: skip
    branches = dict(
        then_branch=helper.make_graph([node("Neg", ["z"], ["p"])], "yes", [], [real("p", 2, 3)]),
        else_branch=helper.make_graph([node("Exp", ["z"], ["q"])], "no", [], [real("q", 2, 3)]),
    )
    proto = model(
        [node("Loop", ["three", "", "x"], ["z"], body=turn), node("If", ["yes"], ["y"], **branches)],
        initialisers=[value("two", np.float32(2)), value("three", np.int64(3)), value("yes", np.bool_(True))],
    )
    assert_close(cells.from_onnx(proto)(h0).value, -8 * h0, 1e-6)


# Keras.


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_models(backend, tmp_path):
    for needed in ("keras", backend):  # importing Keras here would choose a backend
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is missing; Keras is the oracle here: `make oracles` installs it")
    pytorch()
    program = f"""
import warnings; warnings.simplefilter("ignore")
import keras, numpy as np, cells
assert keras.backend.backend() == {backend!r}
L, rng = keras.layers, np.random.default_rng(0)
for layers, steps in (([L.LSTM(6, return_sequences=True), L.Dense(3)], 1), ([L.GRU(6), L.Dense(3, activation="softmax")], 1),
                      ([L.Bidirectional(L.SimpleRNN(6))], 2), ([L.Conv1D(4, 3), L.LSTM(5)], 1)):
    model = keras.Sequential([keras.Input(({T}, {D})), *layers])
    x = rng.standard_normal(({N}, {T}, {D})).astype("float32")
    network = cells.from_keras(model, x)
    assert abs(network(x).value - keras.ops.convert_to_numpy(model(x))).max() < 1e-5
    assert set(network.parameters()) == {{w.path for w in model.trainable_weights}}
    found = [loop.length for loop in network.loops]
    assert found == [{T} - 2 * isinstance(layers[0], L.Conv1D)] * steps, found
try:
    cells.from_keras(keras.Sequential([keras.Input(({T}, {D})), L.Lambda(lambda x: x)]), x)
except cells.onnx.exporters.InputError as error:
    assert "\\n" not in str(error) and "cannot be" in str(error), error
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


# Bad input.


def refused(make, kind, words):
    begun = time.perf_counter()
    with pytest.raises(kind, match=words) as caught:
        make()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert time.perf_counter() - begun < 5


def test_files_that_are_none(tmp_path):
    proto = model([node("MatMul", ["x", "W"], ["y"])], initialisers=[value("W", np.ones((3, 300), "f"))])
    data = proto.SerializeToString()
    (tmp_path / "text.onnx").write_text("hello, I am no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    for name, words in (
        ("text", "no ONNX model"),
        ("empty", "no ONNX model"),
        ("cut", "cut short"),
        ("absent", "cannot be read"),
    ):
        refused(
            lambda name=name: cells.from_onnx(tmp_path / f"{name}.onnx"), InputError, f"{name}.onnx'.*{words}"
        )
    refused(lambda: cells.from_onnx(5), InputError, "not int")
    for end in range(1, len(data), 97):
        with pytest.raises(InputError):
            cells.from_onnx(data[:end])


def test_bytes_that_are_spoilt_raise_errors_of_ours_only(rng):
    data = model(
        [node("MatMul", ["x", "W"], ["y"])], initialisers=[value("W", np.ones((3, 5), "f"))]
    ).SerializeToString()
    x = np.ones((2, 3), "f")
    for _ in range(300):
        spoilt = bytearray(data)
        for k in rng.integers(len(data), size=3):
            spoilt[k] = rng.integers(256)
        with contextlib.suppress(MinigradError):
            cells.from_onnx(bytes(spoilt))(x)


def test_data_that_lies_elsewhere(tmp_path):
    import onnx

    proto = model([node("MatMul", ["x", "W"], ["y"])], initialisers=[value("W", np.ones((3, 300), "f"))])
    path = str(tmp_path / "model.onnx")
    onnx.save_model(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert cells.from_onnx(path)(np.ones((2, 3), "f")).value[0, 0] == 3
    refused(
        lambda: cells.from_onnx((tmp_path / "model.onnx").read_bytes()), InputError, "'w.bin'; give the path"
    )
    os.truncate(tmp_path / "w.bin", 1000)
    refused(lambda: cells.from_onnx(path), InputError, "'W' lies in the file 'w.bin'")
    os.remove(tmp_path / "w.bin")
    refused(lambda: cells.from_onnx(path), InputError, "'W' lies in the file 'w.bin'")
    proto = onnx.load(path, load_external_data=False)
    (tmp_path / "secret").write_bytes(bytes(3600))
    (tmp_path / "inside").mkdir()
    proto.graph.initializer[0].external_data[0].value = "../secret"
    (tmp_path / "inside" / "model.onnx").write_bytes(proto.SerializeToString())
    refused(lambda: cells.from_onnx(tmp_path / "inside" / "model.onnx"), InputError, "'../secret'")


def test_graphs_that_make_no_sense():
    from onnx import TensorProto

    whole = lambda name, a: value(name, np.array(a, np.int64))  # noqa: E731
    huge = TensorProto(name="W", data_type=1, dims=[1 << 40], raw_data=b"1234")
    short = TensorProto(name="W", data_type=1, dims=[5], raw_data=b"1234")
    read = [
        ([node("Add", ["x", "b"], ["a"], name="first"), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])], (),
         "cycle: Add 'first'"),
        ([node("Add", ["x", "nothing"], ["y"])], (), "'nothing', which nothing makes"),
        ([node("Relu", ["x"], ["y"]), node("Relu", ["x"], ["y"])], (), "'y' is made twice"),
        ([node("Relu", ["x"], ["z"])], (), "no node makes the output y"),
        ([node("Add", ["x", "W"], ["y"])], [huge], "shape \\(1099511627776,\\); at most"),
        ([node("Add", ["x", "W"], ["y"])], [short], "needs 20 bytes and has 4"),
        ([node("Quux", ["x"], ["a"], name="/a/b"), node("Quux", ["a"], ["b"]), node("Foo", ["b"], ["y"], domain="com.x")], (),
         "Quux \\(2: Quux '/a/b', Quux 'b'\\); com.x.Foo \\(1: Foo 'y'\\); export the model"),
        ([node("Relu", ["x"], ["y"], slope=3.0)], (), "Relu.slope \\(1: Relu 'y'\\)"),
        ([node("Concat", ["x", "x"], ["y"])], (), "missing a required argument: 'axis'"),
        ([node("GRU", ["x", "x", "x"], ["y"], activations=["Relu", "Tanh"])], (), "f\\(−a\\) = 1 − f\\(a\\)"),
        ([node("RNN", ["x", "x", "x"], ["y"], activations=["Affine"])], (), "affine without its alpha and beta"),
        ([node("RNN", ["x", "x", "x"], ["y"], activations=["Tanh"] * 2)], (), "2 activations for forward; give 1"),
        ([node("RNN", ["x", "x", "x"], ["y"], clip=-1.0)], (), "give a number above 0"),
        ([node("LSTM", ["x", "x", "x"], ["y"], input_forget=1)], (), "export its cell as a loop"),
        ([node("LSTM", ["x", "x", "x"], ["y"], activations=["Mish"])], (), "LSTM 'y': the activation 'mish' is not known"),
    ]  # fmt: skip
    for nodes, initialisers, words in read:
        refused(lambda n=nodes, i=initialisers: cells.from_onnx(model(n, initialisers=i)), InputError, words)
    x = np.ones((2, 3), "f")
    tall, wide = value("v", np.ones((1 << 20, 1), "f")), value("w", np.ones((1, 1 << 20), "f"))
    too_large = [
        ([node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])], [whole("s", [1 << 40])]),
        ([node("Expand", ["x", "s"], ["y"])], [whole("s", [1 << 40, 2, 3])]),
        ([node("Tile", ["x", "s"], ["y"])], [whole("s", [1 << 20, 1 << 20])]),
        ([node("Pad", ["x", "s"], ["y"])], [whole("s", [1 << 40, 0, 0, 0])]),
        ([node("Add", ["v", "w"], ["y"])], [tall, wide]),
        ([node("MatMul", ["v", "w"], ["y"])], [tall, wide]),
        ([node("Einsum", ["v", "w"], ["y"], equation="ij,jk->ik")], [tall, wide]),
    ]
    too_large += [
        ([node("Range", ["zero", "s", "one"], ["r"]), node("Add", ["x", "r"], ["y"])],
         [value("zero", np.int64(0)), value("s", np.int64(1 << 40)), value("one", np.int64(1))]),
        ([node("OneHot", ["i", "s", "v"], ["y"])],
         [whole("i", [0]), value("s", np.int64(1 << 40)), value("v", np.ones(2, "f"))]),
    ]  # fmt: skip
    for nodes, initialisers in too_large:
        refused(
            lambda n=nodes, i=initialisers: cells.from_onnx(model(n, initialisers=i))(x),
            ShapeError,
            "at most 268,435,456",
        )
    medium = [node("ConstantOfShape", ["s"], [f"c{k}"]) for k in range(64)]
    medium += [node("Add", [f"c{k}", f"v{k}" if k else "x1"], [f"v{k + 1}"]) for k in range(64)]
    first = node("ReduceSum", ["x"], ["x1"], keepdims=0)
    proto = model([first, *medium], outputs=("v64",), initialisers=[whole("s", [1 << 22])])
    refused(lambda: cells.from_onnx(proto)(x), ShapeError, "in all; a model as small")
    refused(
        lambda: cells.from_onnx(
            model([node("Reshape", ["x", "s"], ["y"])], initialisers=[whole("s", [1 << 40])])
        )(x),
        MinigradError,
        "Reshape 'y'",
    )
    given = [whole("s", [1 << 20, 2, 3]), value("W", np.ones((1, 3, 3), "f"))]
    long = [node("Expand", ["x", "s"], ["e"]), node("RNN", ["e", "W", "W"], ["y"])]
    refused(
        lambda: cells.from_onnx(model(long, initialisers=given))(x),
        ShapeError,
        "1,048,576 steps; at most 100,000",
    )
    many = [node("Relu", ["x" if k == 0 else f"v{k}"], [f"v{k + 1}"]) for k in range(MOST_NODES + 1)]
    refused(
        lambda: cells.from_onnx(model(many, outputs=(f"v{MOST_NODES + 1}",))),
        InputError,
        "at most 100,000 are read",
    )


def test_functions_that_a_file_defines():
    from onnx import helper

    ours, own = helper.make_opsetid("", 17), helper.make_opsetid("f", 1)
    twice = lambda k, inner: helper.make_function(  # noqa: E731
        "f", f"F{k}", ["a"], ["b"],
        [node(inner, ["a"], ["c"], domain="f" * (inner != "Relu")), node(inner, ["c"], ["b"], domain="f" * (inner != "Relu"))],
        [ours, own],
    )  # fmt: skip
    proto = model([node("F0", ["x"], ["y"], domain="f")])
    proto.opset_import.append(own)
    proto.functions.append(twice(0, "Relu"))
    x = np.array([[-1, 2, 3], [4, -5, 6]], "f")
    assert_close(cells.from_onnx(proto)(x).value, np.maximum(x, 0), 0)
    del proto.functions[:]
    proto.functions.extend([*(twice(k, f"F{k + 1}") for k in range(40)), twice(40, "Relu")])
    refused(lambda: cells.from_onnx(proto), InputError, "nodes with its functions written out")
    del proto.functions[:]
    proto.functions.append(twice(0, "F0"))
    refused(lambda: cells.from_onnx(proto), InputError, "in a circle")


def test_inputs_that_do_not_fit():
    network = cells.from_onnx(model([node("Add", ["x", "z"], ["y"])], [("x", (2, 3)), ("z", (2, 3))]))
    x = np.ones((2, 3), "f")
    assert_close(network(x, z=x).value, 2 * x, 0)
    assert_close(network([[1, 1, 1], [1, 1, 1]], x).value, 2 * x, 0)
    takes = r"it takes 'x' \(2, 3\) float32, 'z' \(2, 3\) float32; "
    refused(lambda: network(x), InputError, takes + "missing z")
    refused(lambda: network(x, x, x), InputError, takes + "3 are given")
    refused(lambda: network(x, x, z=x), InputError, takes + "twice z")
    refused(lambda: network(x, x, q=x), InputError, takes + "surplus q")
    refused(
        lambda: network(x, x.astype("float64")),
        DTypeError,
        r"float64 is given; convert it with .astype\('float32'\)",
    )
    refused(
        lambda: network(x, x[:1]),
        ShapeError,
        r"\(1, 3\) float32 is given; the model was exported for that shape",
    )
    refused(lambda: network(x, x).shape and network.run(x, x)["q"], InputError, "no output 'q'; it has y")


def test_names_with_markup_and_code_are_names(tmp_path):
    evil = f"<script>alert(1)</script>\x1b[31m';__import__('os').system('touch {tmp_path}/pwned')#"
    proto = model(
        [node("MatMul", [evil + "x", evil], ["q"], name=evil + "/t=3/" + evil), node("Tanh", ["q"], [evil + "y"], name="t=3/x")],
        [(evil + "x", (2, 3))], (evil + "y",), [value(evil, np.ones((3, 3), "f"))],
    )  # fmt: skip
    network = cells.from_onnx(proto)
    assert "\x1b" not in repr(network)
    loss = (network(np.ones((2, 3), "f")) ** 2).sum()
    loss.backward(record=True)
    assert "<script>" not in viz.draw(loss).svg()
    mg.compile(lambda x: (network(x) ** 2).sum()).backward(np.ones((2, 3), "f"))
    assert not (tmp_path / "pwned").exists()
    assert not any(part.startswith("t=") for n in mg.ancestors(loss) for part in n.scope), (
        "a name passes for a step"
    )


def test_without_the_package_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(lambda: cells.from_onnx(b""), InputError, r"minigrad-rnn\[onnx\]")


def test_nothing_is_imported_before_it_is_asked_for():
    program = "import sys, cells; print([m for m in ('onnx', 'torch', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What a first reader must read right.


def test_a_decoder_begins_with_the_very_state_of_the_encoder(rng):
    torch = pytorch()
    module, inputs, network = brought(torch, "encoder and decoder", "float64")
    loss, _ = compared(torch, module, inputs, network, "float64", rng)
    from viz.read.network import FIRST, read

    net = read(loss)
    (last,) = [g for g in net.cells["encoder", T] if g.name == "h"]
    readers = {
        (g.band, g.t) for n in net.nodes for x in n.inputs if x is last.out for g in [net.group_of[n.number]]
    }
    assert ("decoder", 1) in readers and ("decoder", "h") not in net.first
    assert not net.outputs and FIRST in {g.kind for g in net.first.values()}


def test_the_input_of_a_convolution_is_no_weight(rng):
    torch = pytorch()
    module, inputs, network = brought(torch, "convolution before an lstm", "float64")
    loss, _ = compared(torch, module, inputs, network, "float64", rng)
    report = viz.report(loss, parameters=network.parameters())
    assert "left out" not in str(report) and all(f.kind != "frozen" for f in report.findings)


def test_what_a_loop_makes_beside_its_states_is_its_output(rng):
    torch = pytorch()
    nn = torch.nn

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.W, self.U, self.out = nn.Linear(D, H), nn.Linear(H, H, bias=False), nn.Linear(H, 2)

        def forward(self, x):
            h, ys = x.new_zeros(x.shape[1], H), []
            for row in x.unbind(0):
                h = torch.tanh(self.W(row) + self.U(h))
                ys.append(self.out(h))
            return torch.stack(ys)

    module, x = Own().double(), torch.randn(T, N, D, dtype=torch.float64)
    network = cells.from_torch(module, x)
    loss, _ = compared(torch, module, (x,), network, "float64", rng)
    from viz.read.network import read
    from viz.read.titles import equations_of

    # The file asks for U.T at every step: there is one for all of them, which is no input of its steps.
    turned = [n.inputs[0].name for n in mg.ancestors(loss) if n.op is not None and n.op.name == "transpose"]
    assert turned.count("U.weight") == 1
    net = read(loss)
    assert {t: g.name for t, g in net.outputs.items()} == dict.fromkeys(range(1, T + 1), "y")
    assert net.inputs.keys() == {("", t) for t in range(1, T + 1)}
    assert all([g.name for g in own] == ["x"] for own in net.inputs.values())
    assert equations_of(net) == ["h_t = tanh(W_weightᵀ·x_t + W_bias + U_weightᵀ·h_{t−1})"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("rnn", "h_t = tanh(W_h·[h_{t−1}, x_t] + b_h)"),
        ("lstm both ways", "c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t"),
        ("gru", "h̃_t = tanh(W·x_t + b_W + r_t ⊙ (U·h_{t−1} + b_U))"),
    ],
)
def test_equations_of_a_file_are_those_of_the_cell(name, line, rng):
    """What W_f was made of, before any step, is not among them."""
    torch = pytorch()
    module, inputs, network = brought(torch, name, "float64")
    loss, _ = compared(torch, module, inputs, network, "float64", rng)
    from viz.read.network import read
    from viz.read.titles import equations_of

    said = equations_of(read(loss))
    assert line in said and not any("weight" in one or "axis" in one for one in said)
