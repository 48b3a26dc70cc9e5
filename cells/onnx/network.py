"""A graph of ONNX as a layer: `from_onnx` and `Network`, which runs its nodes one after the other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from minigrad import DTypeError, InputError, MinigradError, ShapeError, Tensor, as_tensor, describe, scope
from minigrad.names import printable
from minigrad.roles import PARAMETER, Role

from ..layer import Layer
from ..sequence import Run
from .control import CONTROL
from .operators import row_of, settled, signature_of
from .read import MOST_NUMBERS, MOST_PLACES, Graph, Node, Value, read
from .recurrent import Recurrent
from .repeats import CUT_OUT, LAID_OUT, Loop, find, key_of

RECURRENT = ("RNN", "LSTM", "GRU")
SPARE = 10_000  # numbers that a model may make for each that it holds or is given, beside `MOST_NUMBERS`


def from_onnx(model, *, parameters: Iterable[str] | None = None) -> Network:
    """A network trained elsewhere as a layer whose recurrent nodes are cells with gates that are seen.

    model : the path of an ONNX file, its bytes, or an ``onnx.ModelProto``.
    parameters : names of the initialisers that learn; default: all of a float type that have axes.

    RNN, LSTM and GRU nodes run as our cells; loops that arrive unrolled become steps (`Network.loops`); everything else
    becomes the operations of `operators.OPERATORS`.  Where an exporter folded parameters into others, the file has those,
    and gradients are theirs; `from_torch` keeps the module's own.

    The package `onnx` reads the file (``pip install 'minigrad-rnn[onnx]'``); nothing in it is executed.

    Raises InputError for what is no ONNX model, is damaged or too large, and for operators and attributes that are not
    known, with all their places.
    """
    return Network(read(model), parameters)


class Network(Layer):
    """A network of ONNX's operators: call it on its inputs, by position or by name, arrays or tensors.

    `parameters` are those of the file, by their names and in their shapes (``rnn.weight_hh_l0``), and so are their
    gradients; what they become within a cell (``W_f``) is made of them at every call.  `inputs` and `outputs` say what
    the file says of their shapes and types, `loops` which steps were found in it.  One output comes as a tensor, several
    as a tuple; `run` gives them by name, together with the runs of the cells.
    """

    numbered = "weights"

    def __init__(self, graph: Graph, parameters: Iterable[str] | None = None):
        floats = [a.dtype for a in graph.initialisers.values() if a.dtype.kind == "f" and a.ndim]
        floats += [v.dtype for v in graph.inputs if v.dtype is not None and v.dtype.kind == "f"]
        super().__init__(floats[0].name if floats else "float32")
        self.graph = graph
        self.inputs, self.outputs = list(graph.inputs), list(graph.outputs)
        learn = _learning(graph, parameters)
        self.weights = {
            name: Tensor(a, requires_grad=True, name=name)
            for name, a in graph.initialisers.items()
            if name in learn
        }
        for weight in self.weights.values():
            weight.role = Role(PARAMETER)  # what stands in a dict gets none by itself
        self.fixed = {n: a for n, a in graph.initialisers.items() if n not in learn}
        _check_operators(graph)
        self.labels = _labels(graph, learn)
        self.loops: list[Loop] = find(graph, set(learn))
        graph.initialisers = self.fixed  # weights are kept once

    def __call__(self, *inputs, **named) -> Tensor | tuple[Tensor, ...]:
        """The outputs: one as a tensor, several as a tuple in the order of `outputs`.

        Raises InputError for inputs that are missing or surplus, ShapeError and DTypeError for what does not fit.
        """
        results = self.run(*inputs, **named)
        found = tuple(results[v.name] for v in self.outputs)
        return found[0] if len(found) == 1 else found

    def run(self, *inputs, **named) -> Results:
        """All outputs by name, and the runs of its cells: ``run.runs["rnn"].steps[0].f``."""
        runs: dict[str, Run] = {}
        given = self._given(inputs, named)
        values: dict[str, Any] = {**self.fixed, **self.weights, **given}
        play = _Player(self, runs)
        play.most += SPARE * sum(x.size for x in given.values() if not x.is_symbol)
        play.all(self.graph, values)
        found = {v.name: as_tensor(values[v.name]) for v in self.outputs}
        for name, tensor in found.items():
            if tensor.name is None and not tensor.is_leaf:
                tensor.name = name
        return Results(found, runs)

    def __repr__(self) -> str:
        first, *rows = super().__repr__().split("\n")
        said = f"{first}; from {', '.join(map(str, self.inputs))} to {', '.join(printable(v.name) for v in self.outputs)}"
        loops = [f"  {loop}" for loop in self.loops]
        if not loops and not self.labels:
            loops = ["  no steps were found: it is drawn as it is"]
        return "\n".join([said, *loops, *rows])

    def _given(self, inputs: tuple, named: dict) -> dict[str, Tensor]:
        expected = {v.name: v for v in self.inputs}
        who = f"{type(self).__name__}: it takes {', '.join(map(str, self.inputs)) or 'no inputs'}"
        if len(inputs) > len(expected):
            raise InputError(f"{who}; {len(inputs)} are given")
        given = dict(zip(expected, inputs, strict=False))
        twice = [n for n in named if n in given]
        surplus = [n for n in named if n not in expected]
        missing = [n for n in expected if n not in given and n not in named]
        if twice or surplus or missing:
            said = [("twice", twice), ("surplus", surplus), ("missing", missing)]
            raise InputError(
                f"{who}; " + "; ".join(f"{how} {', '.join(map(printable, n))}" for how, n in said if n)
            )
        given |= named
        return {name: _fitting(value, given[name]) for name, value in expected.items()}


class Results:
    """What a run of a `Network` gave: ``results["output"]`` by name; `outputs` are all, `runs` those of its cells."""

    def __init__(self, outputs: dict[str, Tensor], runs: dict[str, Run]):
        self.outputs, self.runs = outputs, runs

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.outputs:
            raise InputError(
                f"the run has no output {name!r}; it has {', '.join(map(printable, self.outputs))}"
            )
        return self.outputs[name]


class _Player:
    """Runs nodes; knows which of them stand in a step of a loop that was found."""

    def __init__(self, network: Network, runs: dict[str, Run]):
        self.network, self.runs = network, runs
        self.opset = network.graph.opset
        self.step_of = {node: (loop, t) for loop in network.loops for node, t in loop.step_of.items()}
        self.names = {value: name for loop in network.loops for value, name in loop.names.items()}
        self.first = {value: (name, loop) for loop in network.loops for value, name in loop.first.items()}
        self.made_of: dict[str, tuple] = {name: (name,) for name in network.weights}
        self.once: dict[tuple | None, Any] = {}
        held = [*network.fixed.values(), *(w.value for w in network.weights.values())]
        self.most, self.count = MOST_NUMBERS + SPARE * sum(a.size for a in held), 0

    def all(self, graph: Graph, values: dict[str, Any]) -> None:
        last = _last_reads(graph)
        for node in graph.nodes:
            try:
                self.one(node, values)
            except MinigradError as error:
                raise type(error)(f"{node.called}: {error}") from None
            except (
                ValueError,
                TypeError,
                IndexError,
                KeyError,
                AttributeError,
                OverflowError,
                MemoryError,
            ) as error:
                said = ", ".join(_say(values.get(i)) for i in node.inputs if i)
                raise InputError(f"{node.called} of {said}: {error}") from None
            for name in last.get(id(node), ()):  # what nobody reads any more is let go
                values.pop(name, None)

    def one(self, node: Node, values: dict[str, Any]) -> None:
        labels = _path(node.scopes)
        if node in self.step_of:
            loop, t = self.step_of[node]
            labels = (*filter(None, [loop.label]), f"t={t}")
        inputs = [values[i] if i else None for i in node.inputs]
        for k, i in enumerate(node.inputs):
            if i in self.first and node in self.step_of and isinstance(inputs[k], np.ndarray):
                name, loop = self.first[i]
                with scope(*filter(None, [loop.label]), "t=0"):
                    values[i] = inputs[k] = Tensor(inputs[k], name=name)
        if node.op in RECURRENT:
            made, run = Recurrent(node.op, self.network.labels[node], **node.attributes)(*inputs)
            self.runs[self.network.labels[node] or printable(node.name) or node.op] = run
        elif node.op in CONTROL:
            made = CONTROL[node.op](self, node, inputs, values)
        else:
            key = self.of_weights(node, inputs)
            made = self.once.get(
                key
            )  # the transpose of a weight that every step asks for is one for all steps
            if made is None:
                with scope(*labels):
                    made = self.row(node, inputs)
            if key is not None:
                self.once[key] = made
        made = made if isinstance(made, tuple) else (made,)
        if any(node.outputs[len(made) :]):
            raise InputError(
                f"{len(node.outputs)} outputs are asked for, there are {len(made)}; export the model anew"
            )
        for name, value in zip(node.outputs, made, strict=False):
            if name:
                values[name] = value = settled(value)
                self.counted(value)
                called = self.names.get(name)
                if called and isinstance(value, Tensor) and value.name is None and not value.is_leaf:
                    value.name = called

    def counted(self, value) -> None:
        """Raise ShapeError where a model makes far more numbers in all than what it holds and is given can be meant for."""
        if isinstance(value, (Tensor, np.ndarray)):
            size = math.prod(n for n in value.shape if isinstance(n, int))
            self.count += size
            if self.count > self.most:
                raise ShapeError(
                    f"with a result of shape {tuple(value.shape)} there are {self.count:,} numbers in all; a model as small "
                    f"as this may make {self.most:,}; give it fewer steps or sequences at once"
                )

    def of_weights(self, node: Node, inputs: list) -> tuple | None:
        """Equal for nodes that only cut out or lay out the same weights in the same way; None for other nodes."""
        read = [
            self.made_of.get(i) if isinstance(x, Tensor) else key_of(x)
            for i, x in zip(node.inputs, inputs, strict=True)
            if x is not None
        ]
        key = None
        if node.op in LAID_OUT | CUT_OUT and None not in read and any(isinstance(x, Tensor) for x in inputs):
            key = (node.op, tuple((n, key_of(a)) for n, a in sorted(node.attributes.items())), *read)
        for k, name in enumerate(node.outputs):
            self.made_of.pop(name, None)
            if key is not None:
                self.made_of[name] = (k, key)
        return key

    def row(self, node: Node, inputs: list):
        row = row_of(node.op, self.opset)
        assert row is not None
        given, asked = dict(node.attributes), signature_of(row)[1]
        if "opset" in asked:
            given["opset"] = self.opset
        if "outputs" in asked:
            given["outputs"] = len(node.outputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        with np.errstate(all="ignore"):
            return row(*inputs, **given)


# What is checked before anything runs.


def _learning(graph: Graph, parameters: Iterable[str] | None) -> set[str]:
    if parameters is None:
        return {name for name, a in graph.initialisers.items() if a.dtype.kind == "f" and a.ndim}
    wanted = list(parameters)
    absent = [n for n in wanted if n not in graph.initialisers or graph.initialisers[n].dtype.kind != "f"]
    if absent:
        raise InputError(
            f"from_onnx: parameters = {', '.join(map(printable, absent[:MOST_PLACES]))}; there is no such initialiser of a "
            "float type"
        )
    return set(wanted)


def _check_operators(graph: Graph) -> None:
    """Raise InputError for operators and attributes that are not known, each with all its places."""
    unknown: dict[str, list[str]] = {}
    odd: dict[str, list[str]] = {}
    pending = [graph]
    while pending:
        g = pending.pop()
        for node in g.nodes:
            pending.extend(a for a in node.attributes.values() if isinstance(a, Graph))
            row = None if node.domain else row_of(node.op, graph.opset)
            if node.op in RECURRENT and not node.domain:
                surplus = set(node.attributes) - _FIELDS
                _check_recurrent(node)
            elif node.op in CONTROL and not node.domain:
                surplus = set()
            elif row is None:
                unknown.setdefault(".".join(filter(None, [node.domain, node.op])), []).append(node.called)
                continue
            else:
                surplus = set(node.attributes) - signature_of(row)[1]
                if not surplus:
                    _check_call(node, row)
            for name in sorted(surplus):
                odd.setdefault(f"{node.op}.{name}", []).append(node.called)
    if unknown:
        raise InputError(
            f"ONNX operators that are not known: {_places(unknown)}; export the model with another opset, or replace "
            "them there; a row in cells/onnx/operators.py makes one known"
        )
    if odd:
        raise InputError(
            f"attributes of ONNX operators that are not known: {_places(odd)}; export the model without them"
        )


def _check_recurrent(node: Node) -> None:
    try:
        Recurrent(node.op, "", **{k: v for k, v in node.attributes.items() if k in _FIELDS})
    except MinigradError as error:
        raise type(error)(f"{node.called}: {error}") from None
    except (TypeError, AttributeError):
        raise InputError(f"{node.called}: an attribute is not of its type; export the model anew") from None


def _check_call(node: Node, row) -> None:
    """Raise InputError where a node has more or fewer inputs, or lacks an attribute."""
    signature, own = signature_of(row)
    try:
        signature.bind(*node.inputs, **{**dict.fromkeys(own & {"opset", "outputs"}), **node.attributes})
    except TypeError as error:
        raise InputError(
            f"{node.called} with {len(node.inputs)} inputs: {error}; export the model anew"
        ) from None


_FIELDS = set(Recurrent.__dataclass_fields__) - {"op", "label"}


def _places(found: dict[str, list[str]]) -> str:
    said = []
    for what, places in found.items():
        more = f" and {len(places) - MOST_PLACES} more" if len(places) > MOST_PLACES else ""
        said.append(f"{printable(what)} ({len(places)}: {', '.join(places[:MOST_PLACES])}{more})")
    return "; ".join(said[:MOST_PLACES]) + (
        f"; and {len(said) - MOST_PLACES} more" if len(said) > MOST_PLACES else ""
    )


def _labels(graph: Graph, learn: set[str]) -> dict[Node, str]:
    """A label for each recurrent node: the module that its weights are called after, and its layer if there are more."""
    made = {o: node for node in graph.nodes for o in node.outputs if o}
    said: list[tuple[Node, str]] = []
    pending = [graph]
    while pending:
        g = pending.pop()
        for node in g.nodes:
            pending.extend(a for a in node.attributes.values() if isinstance(a, Graph))
            if node.op in RECURRENT:
                weights = sorted(_weights_behind(node.inputs[1:2], made, learn))
                stem = re.split("[./]", weights[0])[:-1] if weights else []
                said.append((node, " / ".join(_path(stem or node.scopes))))
    labels: dict[Node, str] = {}
    for node, label in said:
        same = [n for n, other in said if other == label]
        layer = f"layer {same.index(node) + 1}" if len(same) > 1 else ""
        labels[node] = " / ".join(filter(None, [label, layer]))
    return labels


def _weights_behind(names: list[str], made: dict[str, Node], learn: set[str]) -> set[str]:
    found, seen, pending = set(), set(), list(names)
    while pending:
        name = pending.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        if name in learn:
            found.add(name)
        elif name in made:
            pending.extend(made[name].inputs)
    return found


def _path(scopes) -> tuple[str, ...]:
    """Scopes of a file, none of which can be taken for a step."""
    return tuple(re.sub(r"^\s*t\s*=", "t is ", part) for part in scopes if part)


def _last_reads(graph: Graph) -> dict[int, list[str]]:
    """By node: the values that nobody reads after it."""
    kept = {v.name for v in graph.outputs}
    last: dict[str, int] = {}
    for node in graph.nodes:
        inside = {name for a in node.attributes.values() if isinstance(a, Graph) for name in a.outer}
        for name in (*node.inputs, *node.outputs, *inside):
            if name and name not in kept:
                last[name] = id(node)
    found: dict[int, list[str]] = {}
    for name, node_id in last.items():
        found.setdefault(node_id, []).append(name)
    return found


def _fitting(expected: Value, given) -> Tensor:
    """An input as a tensor; raises where shape or type are not those that the model was exported with."""
    if not isinstance(given, Tensor):
        like = None if isinstance(given, (np.ndarray, np.generic)) else expected.dtype
        given = Tensor(given, name=expected.name, dtype=like)
    who = f"input {expected}"
    if expected.dtype is not None and given.dtype != expected.dtype:
        raise DTypeError(
            f"{who}: {describe(given)} is given; convert it with .astype({expected.dtype.name!r})"
        )
    if expected.shape is None:
        return given
    fixed = zip(given.shape, expected.shape, strict=False)
    if len(given.shape) != len(expected.shape) or any(isinstance(n, int) and g != n for g, n in fixed):
        raise ShapeError(
            f"{who}: {describe(given)} is given; the model was exported for that shape: give it, or export the model with "
            "this axis free"
        )
    return given


def _say(value) -> str:
    if isinstance(value, Tensor):
        return describe(value)
    return (
        f"a constant {value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    )
