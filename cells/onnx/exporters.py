"""Networks out of PyTorch and Keras: each is asked for an ONNX model in memory, which `from_onnx` reads.

PyTorch's tracing exporter is asked first and the one of torch.export where it fails.  Tracing takes a tenth of a second
where the other takes seconds, keeps every module's path as a scope, and, with its folding of constants off, every
parameter under its own name; the other has projections, which tracing has not.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigrad import InputError, Tensor
from minigrad.names import printable

from .network import Network
from .read import read

EXPORTERS = ("trace", "export")


def from_torch(module, example, *, free: Mapping[str, Mapping[int, str]] | None = None, exporter: str | None = None) -> Network:
    """A PyTorch module as a layer: parameters by the names of its `state_dict`, its recurrent layers as cells.

    example : what the module is called with, a tensor or array or a tuple of them; its sizes are fixed in what comes
        out, except those that are free.
    free : by the name of an argument of `forward`, axes that may have another size: ``{"x": {0: "T"}}``.  A Python
        loop over the steps fixes their number.
    exporter : "trace" or "export" (PyTorch's exporters by tracing and by torch.export), default: the first that works.

    The module is exported in evaluation mode and is not changed.  Raises InputError where PyTorch or onnx is missing,
    for what is no module, and where no exporter takes the module, saying what each of them said.
    """
    try:
        import torch
    except ImportError:
        raise InputError("from_torch needs PyTorch, which is missing; install it: pip install torch") from None
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"from_torch: give a torch.nn.Module, not {type(module).__name__}")
    if exporter not in (None, *EXPORTERS):
        raise InputError(f"from_torch: exporter = {exporter!r}; give one of {', '.join(EXPORTERS)}")
    inputs = example if isinstance(example, (tuple, list)) else (example,)
    tensors = tuple(torch.as_tensor(x.value if isinstance(x, Tensor) else x) for x in inputs)
    said, model = [], None
    for name in EXPORTERS if exporter is None else (exporter,):
        try:
            with _quiet(), torch.no_grad(), _without_fast_paths(torch):
                model = (_traced if name == "trace" else _exported)(torch, module, tensors, free or {})
            break
        except InputError:
            raise
        except Exception as error:
            said.append(f"{name}: {printable(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, 200)}")
    if model is None:
        raise InputError(f"from_torch: {type(module).__name__} cannot be exported; " + "; ".join(said))
    graph = read(model)
    return Network(graph, [n for n, p in module.named_parameters() if n in graph.initialisers and p.is_floating_point()])


def _traced(torch, module, tensors: tuple, free) -> bytes:
    """By tracing, with nothing folded: parameters stay what they are."""
    import inspect

    names = list(inspect.signature(module.forward).parameters)[: len(tensors)]
    file = io.BytesIO()
    torch.onnx.export(
        module, tensors, file, dynamo=False, do_constant_folding=False, input_names=names,
        dynamic_axes={name: dict(axes) for name, axes in free.items()} or None,
    )  # fmt: skip
    return file.getvalue()


def _exported(torch, module, tensors: tuple, free):
    """By torch.export, not optimised, which would fold parameters into others."""
    import inspect

    names = list(inspect.signature(module.forward).parameters)[: len(tensors)]
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
        program = torch.onnx.export(module, tensors, dynamo=True, optimize=False, verbose=False, dynamic_shapes=shapes)
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
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def from_keras(*a): ...
