"""The WebAssembly module of a program, run by Node, gives what the native program gives."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shutil
import subprocess
import sys
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad.compiler import wasm
from minigrad.scanning import flatten

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None, reason="Node is not installed, and nothing else here runs WebAssembly"
)
BOUND = {"float32": 1e-6, "float64": 1e-12}
SCRIPT = """
import fs from "node:fs";
const [folder] = process.argv.slice(2);
const calls = JSON.parse(fs.readFileSync(`${folder}/calls.json`));
const module = new WebAssembly.Module(fs.readFileSync(`${folder}/module.wasm`));
const { memory, run } = new WebAssembly.Instance(module, {}).exports;
const said = { imports: WebAssembly.Module.imports(module), exports: WebAssembly.Module.exports(module), bad: [] };
calls.forEach((writes, k) => {
  for (const [at, data] of writes) new Uint8Array(memory.buffer).set(Buffer.from(data, "base64"), at);
  said.bad.push(run());
  fs.writeFileSync(`${folder}/memory_${k}.bin`, new Uint8Array(memory.buffer));
});
console.log(JSON.stringify(said));
"""


class Ran(NamedTuple):
    """What a module has left in its memory after a call."""

    bad: int
    results: list[np.ndarray]
    gradients: dict[str, np.ndarray]
    said: dict


def in_node(made: wasm.Wasm, folder, *calls, written: dict | None = None) -> list[Ran]:
    """Call a module in one instance, once for each tuple of arrays; written : parameters that are put in before."""
    layout = made.layout
    made.save(folder / "module.wasm")
    puts = []
    for arrays in calls:
        entries = [*zip(layout["arguments"], map(np.asarray, arrays), strict=True)]
        entries += [(layout["parameters"][name], array) for name, array in (written or {}).items()]
        for entry, array in entries:
            assert (entry["dtype"], entry["shape"]) == (str(array.dtype), list(array.shape))
        puts.append([(e["offset"], base64.b64encode(a.tobytes()).decode()) for e, a in entries])
    (folder / "calls.json").write_text(json.dumps(puts))
    (folder / "run.mjs").write_text(SCRIPT)
    done = subprocess.run([NODE, folder / "run.mjs", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    runs = []
    for k, bad in enumerate(said["bad"]):
        memory = (folder / f"memory_{k}.bin").read_bytes()
        assert len(memory) == layout["bytes"]
        results = [read(memory, entry) for entry in layout["results"]]
        runs.append(Ran(bad, results, {n: read(memory, e) for n, e in layout["gradients"].items()}, said))
    return runs


def read(memory: bytes, entry: dict) -> np.ndarray:
    shape = tuple(entry["shape"])
    return np.frombuffer(memory, entry["dtype"], math.prod(shape), entry["offset"]).reshape(shape)


def assert_near(got: np.ndarray, right: np.ndarray, what: str = "") -> None:
    assert (got.dtype, got.shape) == (right.dtype, right.shape), what
    bound = BOUND.get(str(right.dtype), 0)
    size = np.abs(right[np.isfinite(right)]).max(initial=0)
    np.testing.assert_allclose(got, right, rtol=bound, atol=bound * size, err_msg=what)


def assert_as_native(compiled, folder, *arguments, gradients: bool = True) -> wasm.Wasm:
    """Values and all gradients of the module are those of the native program."""
    made = compiled.wasm(*arguments, gradients=gradients)
    arrays = [a.value if isinstance(a, mg.Tensor) else a for a in arguments]
    (ran,) = in_node(made, folder, arrays)
    values, right = compiled.value_and_grad(*arguments) if gradients else (compiled(*arguments), {})
    assert ran.bad == 0
    for k, (got, value) in enumerate(zip(ran.results, flatten(values)[0], strict=True)):
        assert_near(got, value.value, f"result {k}")
    for (name, got), tensor in zip(ran.gradients.items(), right, strict=True):
        assert_near(got, right[tensor], f"the gradient of {name}")
    return made


def network(name: str, dtype: str, T: int = 6, N: int = 5, D: int = 3, H: int = 11):
    """A layer's loss, compiled; what it is called with; its parameters."""
    rng = np.random.default_rng(7)
    layer = cells.CELLS[name](D, H, rng, dtype=dtype)
    output = cells.Output(layer.width, 4, rng, dtype=dtype)
    x, targets = rng.standard_normal((T, N, D)).astype(dtype), rng.integers(0, 4, (T, N))

    def loss(x, targets):
        return mg.cross_entropy(cells.run(layer, x, output=output).y, targets)

    return mg.compile(loss), (x, targets), layer, output


# What it computes.


@needs_node
@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_loss_and_all_gradients_of_a_layer_are_the_native_ones(name, dtype, tmp_path):
    compiled, arguments, layer, output = network(name, dtype)
    made = assert_as_native(compiled, tmp_path, *arguments)
    parameters = [*flatten(layer.parameters())[0], *flatten(output.parameters())[0]]
    assert (
        sorted(made.layout["parameters"])
        == sorted(made.layout["gradients"])
        == sorted(p.name for p in parameters)
    )


@needs_node
@pytest.mark.parametrize("dtype", BOUND)
def test_products_of_every_form_are_the_native_ones(dtype, tmp_path, rng):
    """Wider than a panel and narrower, deeper than a block, transposed, summed over many rows, in batches, of one row."""
    a, b, c, d = (
        mg.Tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True, name=name)
        for name, shape in {"a": (70, 300), "b": (300, 37), "c": (3, 6, 5), "d": (3, 5, 9)}.items()
    )

    def f(a, b, c, d):
        product = a @ b
        return ((product * product).mean() + (c @ d).sum(), product, a[:1] @ b, b.T @ a.T, c @ d)

    made = assert_as_native(mg.compile(f), tmp_path, a, b, c, d)
    assert list(made.layout["gradients"]) == ["a", "b", "c", "d"]
    assert b"\xfd\xe4\x01" in made.bytes or b"\xfd\xf0\x01" in made.bytes  # f32x4.add, f64x2.add


@needs_node
@pytest.mark.parametrize("dtype", BOUND)
def test_reductions_are_the_native_ones_and_have_the_memory_they_ask_for(dtype, tmp_path, rng):
    x = (8 * rng.standard_normal((9, 30_011))).astype(dtype)  # a row is longer than what the stack has anyway

    def f(x):
        return {
            "sums": [x.sum(), x.sum(axis=0), x.mean(axis=1)],
            "ends": [x.max(axis=0), x.max(axis=1), x.min(axis=0), x.min(axis=1)],
            "logs": [mg.logsumexp(x, 0), mg.logsumexp(x, 1), mg.logsumexp(x.T, 0)],
            "counts": [(x > 0).sum(axis=1), x.sum(axis=0) > 0],
        }

    made = assert_as_native(mg.compile(f), tmp_path, x, gradients=False)
    assert [e["dtype"] for e in made.layout["results"][-2:]] == ["int64", "bool"]


@needs_node
def test_formulas_keep_their_edges(tmp_path):
    edges = [
        0.0,
        -0.0,
        1e-45,
        -1e-39,
        0.3,
        -0.7,
        1.0,
        88.0,
        -104.0,
        1e30,
        np.inf,
        -np.inf,
        np.nan,
        -1.0,
        20.0,
    ]
    x = np.array([*edges, *edges[:4]], "float32")
    functions = mg.exp, mg.tanh, mg.sigmoid, mg.log, mg.log1p, mg.softplus, mg.sqrt, abs
    assert_as_native(mg.compile(lambda x: tuple(g(x) for g in functions)), tmp_path, x, gradients=False)


@needs_node
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_indices_choose_rows_and_those_outside_are_told(dtype, tmp_path, rng):
    table = mg.Tensor(rng.standard_normal((7, 5)), requires_grad=True, name="table")
    compiled = mg.compile(lambda index: (mg.gather(table, index) ** 2).sum())
    index = np.array([[3, 0, 6], [6, 1, 3]], dtype)
    made = assert_as_native(compiled, tmp_path, index)
    wrong, again = in_node(made, tmp_path, (index + 1,), (index,))
    with pytest.raises(mg.InputError) as error:
        compiled.value_and_grad(index + 1)
    said = made.layout["checks"][str(wrong.bad)]
    rows = "(index_0, index_1, 5) float64: an index lies outside of the rows of 'table' (7, 5) float64, 0 … 6"
    assert said == f"{compiled.name}: gather {rows}"
    found = (
        f"gather of 'table' (7, 5) float64, 'index' (2, 3) {dtype}: index 7 at (0, 2) outside the rows, 0 … 6"
    )
    assert str(error.value) == f"{compiled.name}: {found}"  # which one, only native programs look up
    assert again.bad == 0


@needs_node
def test_parameters_that_are_written_from_outside_are_those_it_computes_with(tmp_path, rng):
    compiled, arguments, layer, output = network("lstm", "float64")
    made = compiled.wasm(*arguments, gradients=True)
    (before,) = in_node(made, tmp_path, arguments)
    assert_near(before.results[0], compiled(*arguments).value)
    new = {}
    for p in (*flatten(layer.parameters())[0], *flatten(output.parameters())[0]):
        new[p.name] = p.value = p.value + rng.standard_normal(p.shape)
    x, targets = arguments
    after, other = in_node(made, tmp_path, arguments, (x[::-1].copy(), targets), written=new)
    for ran, given in ((after, arguments), (other, (x[::-1], targets))):
        value, gradients = compiled.value_and_grad(*given)
        assert_near(ran.results[0], value.value)
        for tensor, g in gradients.items():
            assert_near(ran.gradients[tensor.name], g, tensor.name)
    assert abs(before.results[0] - after.results[0]) > 1e-3


@needs_node
def test_layers_that_repeat_and_have_the_same_names_are_told_apart(tmp_path, rng):
    weights = [mg.Tensor(rng.standard_normal((6, 6)), requires_grad=True, name="W") for _ in range(4)]

    def loss(x):
        for W in weights:
            x = mg.tanh(x @ W)
        return (x * x).mean()

    x = rng.standard_normal((5, 6))
    made = assert_as_native(mg.compile(loss), tmp_path, x)
    assert list(made.layout["gradients"]) == ["W", "W_2", "W_3", "W_4"]
    values = mg.compile(loss).wasm(x)
    assert list(values.layout["parameters"]) == ["W", "W_2", "W_3", "W_4"]
    weights[2].value = np.eye(6)
    right = mg.compile(loss)(x).value
    for module in (made, values):
        (ran,) = in_node(module, tmp_path, (x,), written={"W_3": np.eye(6)})
        assert_near(ran.results[0], right)


@needs_node
def test_arguments_of_every_kind_have_a_place(tmp_path, rng):
    """The same tensor twice, one that nothing reads, a number, booleans, none at all of something."""
    a = mg.Tensor(rng.standard_normal((3, 4)), requires_grad=True, name="a")
    arguments = a, a, np.zeros((2, 2)), 0.5, rng.random((3, 4)) > 0.5, np.zeros((0, 4))

    def f(first, second, unread, number, mask, empty):
        return mg.where(mask, first * second, number).sum(), mg.concat([first, empty], axis=0)

    made = assert_as_native(mg.compile(f), tmp_path, *arguments)
    words = ["first", "second", "unread", "number", "mask", "empty"]
    assert [e["name"] for e in made.layout["arguments"]] == words
    assert made.layout["arguments"][0]["offset"] == made.layout["arguments"][1]["offset"]
    assert list(made.layout["gradients"]) == ["first"]


# The module and its layout.


@needs_node
def test_a_module_imports_nothing_and_exports_its_memory_and_one_function(tmp_path):
    made = mg.compile(lambda x: mg.exp(x)).wasm(np.ones(3))
    (ran,) = in_node(made, tmp_path, (np.zeros(3),))
    assert ran.said["imports"] == []
    assert ran.said["exports"] == [{"name": "memory", "kind": "memory"}, {"name": "run", "kind": "function"}]
    np.testing.assert_array_equal(ran.results[0], np.ones(3))


def test_the_layout_is_plain_data_whose_pieces_lie_apart_and_the_module_is_always_the_same():
    compiled, arguments, *_ = network("lstm", "float32")
    made = compiled.wasm(*arguments, gradients=True)
    layout = made.layout
    assert json.loads(json.dumps(layout)) == layout
    assert layout["sha256"] == hashlib.sha256(made.bytes).hexdigest()
    assert layout["constants"] and layout["bytes"] % 65536 == 0
    entries = [*layout["arguments"], *layout["results"], layout["table"], layout["scratch"]]
    entries += [e for kind in ("parameters", "constants", "gradients") for e in layout[kind].values()]
    places = sorted((e["offset"], math.prod(e["shape"]) * np.dtype(e["dtype"]).itemsize) for e in entries)
    assert all(at % 64 == 0 for at, _ in places)
    assert all(at + size <= after for (at, size), (after, _) in pairwise([*places, (layout["bytes"], 0)]))
    assert compiled.wasm(*arguments, gradients=True).bytes == made.bytes


def test_what_arguments_hold_does_not_go_into_the_module():
    compiled = mg.compile(lambda x: x + x)
    assert compiled.wasm(np.full(9, 0.123)).bytes == compiled.wasm(np.zeros(9)).bytes


def test_save_writes_module_and_layout_whole(tmp_path):
    made = wasm.Wasm(b"\0asm\1\0\0\0", {"bytes": 65536})
    path = tmp_path / "new" / "step.wasm"
    for _ in range(2):  # the second time over the first
        assert made.save(str(path)) == path
    assert path.read_bytes() == made.bytes
    assert json.loads((tmp_path / "new" / "step.wasm.json").read_text()) == made.layout
    assert sorted(p.name for p in path.parent.iterdir()) == ["step.wasm", "step.wasm.json"]
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file" / "step.wasm", tmp_path / "new", ""):
        with pytest.raises(mg.InputError, match=r"cannot be written|is a folder, not a file"):
            made.save(wrong)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "new"]


# What cannot be done.


def test_what_runs_eagerly_is_refused_with_the_reason():
    def f(x):
        return x * float(x.value.sum())

    with pytest.raises(mg.InputError, match=r"wasm of f: it runs eagerly.*is a symbol of a traced graph"):
        mg.compile(f).wasm(np.ones(3))
    with pytest.raises(mg.InputError, match=r"it runs eagerly.*float16"):
        mg.compile(lambda x: x).wasm(np.ones(3, "float16"))
    compiled = mg.compile(f)
    with pytest.warns(UserWarning, match="runs eagerly"):
        compiled(np.ones(3))
    with pytest.raises(mg.InputError, match="is a symbol of a traced graph"):  # known from the call
        compiled.wasm(np.ones(3))
    with mg.anomaly(), pytest.raises(mg.InputError, match="anomaly mode is on"):
        mg.compile(lambda x: x).wasm(np.ones(3))


def test_threads_gradients_of_many_numbers_and_a_trace_are_refused():
    with pytest.raises(mg.InputError, match="one thread, not 2; compile it with threads=1"):
        mg.compile(lambda x: x, threads=2).wasm(np.ones(3))
    with pytest.raises(mg.InputError, match="return a single number first"):
        mg.compile(lambda x: x).wasm(np.ones(3), gradients=True)
    inner = mg.compile(lambda x: x)
    with pytest.raises(mg.InputError, match="make the module outside"):
        mg.compile(lambda x: inner.wasm(x)).wasm(np.ones(3))


@pytest.mark.parametrize(("name", "f"), [("sin", mg.sin), ("cos", mg.cos), ("pow", lambda x: x**0.3)])
def test_functions_that_the_host_would_have_to_give_are_refused(name, f):
    with pytest.raises(mg.InputError, match=f"it calls {name}, for which minigrad has no code of its own"):
        mg.compile(lambda x: f(x)).wasm(np.ones(3))


def test_more_memory_than_a_module_may_have_is_refused():
    def f(x):
        return (mg.zeros((20_000, 20_000)) + x) * x

    with pytest.raises(
        mg.InputError, match=r"it takes 3,2\d\d,\d\d\d,\d\d\d bytes, of 2,147,483,648 at most"
    ):
        mg.compile(f).wasm(np.float64(1))


def test_when_the_process_of_llvm_dies_its_last_words_are_told(monkeypatch, tmp_path):
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\nexit 1\n")
    dies.chmod(0o755)
    compiled = mg.compile(lambda x: x + x)
    variant, call = compiled.variant((np.ones(3),), False)
    entry = wasm.Frame(variant, call).entry()
    with pytest.raises(
        mg.InputError, match=r"wasm of f: LLVM cannot make WebAssembly of it: .*UnknownError: nothing\(\)"
    ):
        wasm.object_code("wasm of f", variant.program.source.replace("bad = 0", "bad = nothing()"), entry)
    for python, said in (
        (str(dies), "status 1"),
        ("/nowhere/python", "no process can be started"),
        (None, "no process can be started"),
    ):
        monkeypatch.setattr(sys, "executable", python)
        with pytest.raises(mg.InputError, match=said):
            compiled.wasm(np.ones(3))


@needs_node
def test_containers_names_and_narrow_integers(tmp_path):
    W = mg.Tensor(np.random.default_rng(0).standard_normal((5, 3)), requires_grad=True, name="W")
    compiled = mg.compile(lambda batch, scale: (mg.gather(W, batch["codes"]) * batch["x"]).sum() * scale)
    x, codes = np.random.default_rng(1).standard_normal((4, 3)), np.array([0, 4, 2, 2], "uint8")
    batch, scale = {"x": x, "codes": codes}, np.array(2.0)
    made = compiled.wasm(batch, scale=scale, gradients=True)
    assert [(a["name"], a["dtype"]) for a in made.layout["arguments"]] == [
        ("batch_x", "float64"), ("batch_codes", "int64"), ("scale", "float64"),
    ]  # fmt: skip
    (ran,) = in_node(made, tmp_path, [x, codes.astype("int64"), scale])
    value, gradients = compiled.value_and_grad(batch, scale=scale)
    assert_near(ran.results[0], value.value)
    assert_near(ran.gradients["W"], gradients[W])
