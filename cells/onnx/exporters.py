"""Networks out of PyTorch and Keras: each is asked for an ONNX model in memory, which `from_onnx` reads.

PyTorch's tracing exporter is asked first and the one of torch.export where it fails.  Tracing takes a tenth of a second
where the other takes seconds, keeps RNN layers whole and every module's path as a scope, and, with its folding of
constants off, every parameter under its own name.  It takes packed sequences, and masks of attention that are looked
into, which the other refuses.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import inspect
import io
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import InputError, Tensor
from minigrad.names import printable

from .network import Network
from .read import Graph, read

EXPORTERS = ("trace", "export")


def from_torch(
    module, example, *, free: Mapping[str, Mapping[int, str]] | None = None, exporter: str | None = None
) -> Network:
    """A PyTorch module as a layer: parameters by the names of its `state_dict`, its recurrent layers as cells.

    example : what the module is called with, a tensor or array or a tuple of them; its sizes are fixed in what comes
        out, except those that are free.
    free : by the name of an argument of `forward`, axes that may have another size: ``{"x": {0: "T"}}``.  A Python
        loop over the steps fixes their number, which is told.
    exporter : "trace" or "export" (PyTorch's exporters by tracing and by torch.export), default: the first that works.

    The module is exported in evaluation mode and is not changed; what comes out is compared with it, on the example and
    on a longer one along each free axis.  Raises InputError where PyTorch or onnx is missing, for what is no module, and
    where no exporter takes the module or what was exported gives other numbers, saying what each of them said.
    """
    try:
        import torch
    except ImportError:
        raise InputError(
            "from_torch needs PyTorch, which is missing; install it: pip install torch"
        ) from None
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"from_torch: give a torch.nn.Module, not {type(module).__name__}")
    if exporter not in (None, *EXPORTERS):
        raise InputError(f"from_torch: exporter = {exporter!r}; give one of {', '.join(EXPORTERS)}")
    tensors = _tensors(torch, "from_torch", example)
    names = _arguments(module, tensors)
    unknown = [n for n in free or {} if n not in names]
    if unknown:
        raise InputError(
            f"from_torch: free = {', '.join(map(printable, unknown))}; forward takes {', '.join(names)}"
        )
    called = {id(p): name for name, p in reversed(list(module.named_parameters(remove_duplicate=False)))}
    own = _stand_in(torch, module)
    return _brought(
        torch,
        "from_torch",
        module,
        own,
        tensors,
        free or {},
        called,
        EXPORTERS if exporter is None else (exporter,),
    )


def from_keras(model, example=None) -> Network:
    """A Keras model as a layer: parameters by the paths of its weights, its recurrent layers as loops that are found.

    example : what the model is called with, an array or a tuple of them; default zeros for two sequences.

    On PyTorch's backend the model is traced as `from_torch` does and compared with itself.  On others it is saved, and
    traced by a Python of its own on PyTorch's; where PyTorch is missing it is asked for ``model.export(format="onnx")``.
    Raises InputError where Keras is missing, and where the model cannot be exported or gives other numbers there.
    """
    try:
        import keras
    except ImportError:
        raise InputError("from_keras needs Keras, which is missing; install it: pip install keras") from None
    if not isinstance(model, keras.Model):
        raise InputError(f"from_keras: give a keras.Model, not {type(model).__name__}")
    if not model.built:
        raise InputError("from_keras: the model is not built; call it on data once, or give it an Input")
    if example is None:
        shapes = [tuple(2 if n is None else n for n in x.shape) for x in model.inputs]
        example = tuple(np.zeros(s, x.dtype) for s, x in zip(shapes, model.inputs, strict=True))
    if keras.backend.backend() != "torch":
        inputs = example if isinstance(example, tuple) else (example,)
        there = importlib.util.find_spec("torch") is not None
        network = _on_pytorch(model, inputs) if there else _from_file(model, inputs)
        _check_keras(model, network, inputs)
        return network
    return traced(model, example, [w.path for w in _floats(model)])


def _floats(model) -> list:
    """The weights of a Keras model without the states of random numbers, which not every backend has."""
    return [w for w in model.weights if "float" in str(w.dtype)]


def traced(model, example, names: list[str]) -> Network:
    """A Keras model of PyTorch's backend, its weights called by `names`, in their order."""
    import torch

    tensors = _tensors(torch, "from_keras", example)
    called = {id(w.value): str(name) for w, name in zip(_floats(model)[::-1], names[::-1], strict=True)}
    return _brought(torch, "from_keras", model, model, tensors, {}, called, ("trace",))


PROGRAM = """
import pickle, sys
import keras, numpy as np
from cells.onnx.exporters import traced
folder, *names = sys.argv[1:]
try:
    model = keras.models.load_model(folder + "/model.keras", compile=False)
    with np.load(folder + "/example.npz") as arrays:
        found = traced(model, tuple(arrays.values()), names)
except Exception as error:
    found = str(error)
with open(folder + "/found", "wb") as file:
    pickle.dump(found, file)
"""


def _on_pytorch(model, inputs: tuple) -> Network:
    """By another Python, as a process has one backend: the model is saved here, loaded there, and traced."""
    who = f"from_keras: {type(model).__name__} cannot be brought to PyTorch's backend"
    around = {"KERAS_BACKEND": "torch", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", PROGRAM, folder, *(w.path for w in _floats(model))]
        path = Path(folder, "found")  # what that program writes, in a folder of ours
        try:
            with _quiet():
                model.save(os.path.join(folder, "model.keras"))
            np.savez(os.path.join(folder, "example.npz"), *map(np.asarray, inputs))
            done = subprocess.run(words, env=os.environ | around, capture_output=True, text=True)
            said = done.stderr.strip().splitlines() or ["that ended without a word"]
            found = pickle.loads(path.read_bytes()) if path.exists() else said[-1]
        except Exception as error:
            raise InputError(f"{who}: {_said(error)}") from None
    if not isinstance(found, Network):
        raise InputError(f"{who}: {printable(found, 300)}")
    return found


def _from_file(model, inputs: tuple) -> Network:
    """By way of a file, where Keras has its own exporter."""
    model(inputs[0] if len(inputs) == 1 else list(inputs))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        try:
            with _quiet():
                model.export(path, format="onnx", verbose=False)
        except Exception as error:
            raise InputError(
                f"from_keras: {type(model).__name__} cannot be exported: {_said(error)}; with PyTorch installed it is "
                "brought over on that backend"
            ) from None
        return Network(read(path))


def _check_keras(model, network: Network, inputs: tuple) -> None:
    """Raise InputError unless the network gives the model's numbers on the example."""
    import keras

    theirs = model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
    theirs: list = [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(theirs)]
    results = network.run(*map(np.asarray, inputs))
    ours = [results[v.name].value for v in network.outputs]
    if len(ours) != len(theirs) or not all(map(_same, ours, theirs)):
        raise InputError("from_keras: what was exported gives other numbers than the model on the example")


def _tensors(torch, who: str, example) -> tuple:
    inputs = example if isinstance(example, (tuple, list)) else (example,)
    try:
        return tuple(torch.as_tensor(x.value if isinstance(x, Tensor) else x) for x in inputs)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{who}: example: give a tensor or an array, or a tuple of them") from None


def _brought(
    torch, who: str, module, own, tensors: tuple, free, called: dict[int, str], exporters
) -> Network:
    """By the first exporter that gives the same numbers; `own` stands in for the module, `called` names parameters."""
    said = []
    for name in exporters:
        try:
            with _quiet(), torch.no_grad(), _without_fast_paths(torch), _told_apart(torch, own):
                model = (_traced if name == "trace" else _exported)(torch, own, tensors, free)
            network = _named_as_there(module, read(model), called)
            _check(torch, module, network, tensors, free)
            return network
        except Exception as error:
            said.append(f"{name}: {_said(error)}")
    raise InputError(f"{who}: {type(module).__name__} cannot be exported; " + "; ".join(said))


def _named_as_there(module, graph: Graph, called: dict[int, str]) -> Network:
    """The network with the module's own values, each parameter under one name, also where it is used twice (tied)."""
    renamed: dict[str, str] = {}
    learned: dict[str, np.ndarray] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        if name in graph.initialisers and p.is_floating_point():
            own: str = called.get(id(p)) or name
            renamed[name] = own
            learned[own] = p.detach().cpu().numpy().copy()
            del graph.initialisers[name]
    graph.initialisers.update(learned)
    pending = [graph]
    while pending:
        for node in pending.pop().nodes:
            node.inputs = [renamed.get(i, i) for i in node.inputs]
            pending.extend(a for a in node.attributes.values() if isinstance(a, Graph))
    return Network(graph, learned)


def _check(torch, module, network: Network, tensors: tuple, free) -> None:
    """Raise InputError unless the network gives what the module gives: on the example, and where an axis is free on a
    longer one, for an exporter may have taken its size for a constant, as a Python loop does.
    """
    names = _arguments(module, tensors)
    cases = {"on the example": tensors}
    for size in dict.fromkeys(size for axes in free.values() for size in axes.values()):
        cases[f"where {size} is longer by 1: its size was taken for a constant"] = tuple(
            _longer(torch, x, [axis for axis, s in free.get(name, {}).items() if s == size])
            for name, x in zip(names, tensors, strict=True)
        )
    for where, inputs in cases.items():
        was = module.training
        module.eval()
        try:
            with torch.no_grad():
                theirs = [
                    y for y in torch.utils._pytree.tree_leaves(module(*inputs)) if isinstance(y, torch.Tensor)
                ]
        except Exception:
            if inputs is tensors:
                raise
            continue  # the module itself takes no longer one
        finally:
            module.train(was)
        ours = [
            network.run(*(x.detach().cpu().numpy() for x in inputs))[v.name].value for v in network.outputs
        ]
        if len(ours) != len(theirs) or not all(map(_same, ours, (y.detach().cpu().numpy() for y in theirs))):
            raise InputError(f"what was exported gives other numbers than the module {printable(where, 120)}")


def _arguments(module, tensors: tuple) -> list[str]:
    return list(inspect.signature(module.forward).parameters)[: len(tensors)]


def _longer(torch, x, axes: list[int]):
    for axis in axes:
        x = torch.cat([x, x.narrow(axis, x.shape[axis] - 1, 1)], axis)
    return x


def _same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal numbers; padding behind the longest packed sequence, which only ONNX keeps, is 0."""
    if ours.ndim != theirs.ndim or any(a < b for a, b in zip(ours.shape, theirs.shape, strict=True)):
        return False
    common = tuple(slice(n) for n in theirs.shape)
    rest = np.array(ours)
    rest[common] = 0
    bound = 1e-3 if ours.dtype == np.float32 else 1e-7
    close = np.allclose(
        ours[common], theirs, rtol=bound, atol=bound * max(1.0, np.abs(theirs).max(initial=0)), equal_nan=True
    )
    return bool(close and not rest.any())


def _stand_in(torch, module):
    """A copy, in which an LSTM with a projection, which ONNX has not, is a loop over its steps."""
    try:
        own = copy.deepcopy(module)
    except Exception:  # a module that cannot be copied is exported itself
        return module
    for name, part in list(own.named_modules()):
        if isinstance(part, torch.nn.LSTM) and part.proj_size:
            if not name:
                return _projected(torch)(part)
            above, _, last = name.rpartition(".")
            setattr(own.get_submodule(above), last, _projected(torch)(part))
    return own


def _projected(torch):
    """The class of an nn.LSTM with projections (Sak et al., 2014), written as a loop; parameters bear the same names."""

    class Projected(torch.nn.Module):
        def __init__(self, rnn):
            super().__init__()
            self.layers, self.ways = rnn.num_layers, 2 if rnn.bidirectional else 1
            self.first, self.hidden, self.width = rnn.batch_first, rnn.hidden_size, rnn.proj_size
            for name, p in rnn.named_parameters(recurse=False):
                self.register_parameter(name, p)

        def forward(self, x, state=None):
            x = x.transpose(0, 1) if self.first else x
            count = self.layers * self.ways
            h0, c0 = state or (x.new_zeros(count, x.shape[1], n) for n in (self.width, self.hidden))
            hs, cs = [], []
            for layer in range(self.layers):
                both = []
                for way in range(self.ways):
                    y, h, c = self.run(x, h0[len(hs)], c0[len(hs)], f"_l{layer}{'_reverse' * way}", way)
                    both.append(y)
                    hs.append(h)
                    cs.append(c)
                x = torch.cat(both, -1)
            return (x.transpose(0, 1) if self.first else x), (torch.stack(hs), torch.stack(cs))

        def run(self, x, h, c, suffix: str, back: int):
            W, U, V = (getattr(self, f"weight_{part}{suffix}") for part in ("ih", "hh", "hr"))
            biases = [getattr(self, f"bias_{part}{suffix}", None) for part in ("ih", "hh")]
            linear, outputs = torch.nn.functional.linear, []
            for t in reversed(range(x.shape[0])) if back else range(x.shape[0]):
                i, f, new, o = (linear(x[t], W, biases[0]) + linear(h, U, biases[1])).chunk(4, -1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(new)
                h = linear(torch.sigmoid(o) * torch.tanh(c), V)
                outputs.append(h)
            return torch.stack(outputs[::-1] if back else outputs), h, c

    return Projected


@contextlib.contextmanager
def _told_apart(torch, module):
    """All parameters differ for a while: of two that are equal, such as the biases of new norms, exporters make one."""
    generator = torch.Generator().manual_seed(0)
    before = {id(p): (p, p.detach().clone()) for p in module.parameters() if p.is_floating_point()}
    try:
        for p, _ in before.values():
            p.add_(1e-2 * torch.randn(p.shape, generator=generator).to(p))
        yield
    finally:
        for p, value in before.values():
            p.copy_(value)


def _said(error: BaseException) -> str:
    """What an exporter said, in a line: the cause, where it tells one."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[0], 200) if lines else type(error).__name__


def _traced(torch, module, tensors: tuple, free) -> bytes:
    """By tracing, with nothing folded: parameters stay what they are."""
    names = _arguments(module, tensors)
    file = io.BytesIO()
    torch.onnx.export(
        module, tensors, file, dynamo=False, do_constant_folding=False, input_names=names,
        dynamic_axes={name: dict(axes) for name, axes in free.items()} or None,
    )  # fmt: skip
    return file.getvalue()


def _exported(torch, module, tensors: tuple, free):
    """By torch.export, not optimised, which would fold parameters into others."""
    names = _arguments(module, tensors)
    shapes = None
    if free:
        dims: dict[str, Any] = {}
        shapes = tuple(
            {axis: dims.setdefault(size, torch.export.Dim(size)) for axis, size in free.get(name, {}).items()}
            for name in names
        )
    was = module.training
    module.eval()
    try:
        program = torch.onnx.export(
            module, tensors, dynamo=True, optimize=False, verbose=False, dynamic_shapes=shapes
        )
    finally:
        module.train(was)
    return program.model_proto


@contextlib.contextmanager
def _without_fast_paths(torch):
    """Attention as its operations, and not as one that no exporter knows."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


@contextlib.contextmanager
def _quiet():
    """Without what exporters print, log and warn of: what matters is told by errors."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
