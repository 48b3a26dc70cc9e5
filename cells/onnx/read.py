"""An ONNX file as plain Python: nodes with their attributes, initialisers as arrays, inputs with their shapes.

The package `onnx` parses the file; its protocol buffers end here.  Everything that a file says is checked before it is
believed: sizes against the bytes that are there, names against what was made before, and how much there is at all.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from minigrad import InputError
from minigrad.names import printable

MOST_NODES = 100_000  # of a graph, those within its nodes included
MOST_NUMBERS = 1 << 28  # of one array, as float32 1 GiB
MOST_PLACES = 8  # that a message names
STANDARD = ("", "ai.onnx")
REMEDY = "install it: pip install 'minigrad-rnn[onnx]'"


@dataclass(eq=False)
class Node:
    """One operation: `op` reads the values called `inputs` ("" where one is left out) and makes `outputs`.

    An attribute is a number, a text, a list of them, an array, or, for Loop and If, a `Graph`.
    """

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    name: str = ""
    scopes: tuple[str, ...] = ()  # where it stood in the program that was exported
    domain: str = ""

    @property
    def called(self) -> str:
        made = next(filter(None, self.outputs), "")
        return f"{self.op} {printable(self.name or made)!r}"


@dataclass(eq=False)
class Value:
    """What is known of an input or output: its shape, with a name or None for what is free, and its type."""

    name: str
    shape: tuple | None = None
    dtype: np.dtype | None = None

    def __str__(self) -> str:
        sizes = (
            "any shape"
            if self.shape is None
            else f"({', '.join('?' if n is None else str(n) for n in self.shape)})"
        )
        return f"{printable(self.name)!r} {printable(sizes)} {self.dtype or 'any type'}"


@dataclass(eq=False)
class Graph:
    nodes: list[Node]
    initialisers: dict[str, np.ndarray]
    inputs: list[Value]
    outputs: list[Value]
    opset: int = 0
    name: str = ""
    outer: set[str] = field(default_factory=set)  # names that a graph within a node reads from around it


def read(model) -> Graph:
    """The graph of a file, of bytes, or of an ``onnx.ModelProto``; its nodes in an order in which they can run.

    Raises InputError for what is no ONNX model, is cut short, misses its external data, has a cycle or an array whose
    shape and bytes disagree, and for more than `MOST_NODES` nodes.
    """
    onnx = _package()
    proto, folder, who = _parsed(onnx, model)
    if not proto.graph.node and not proto.graph.output:
        raise InputError(f"{who}: this is no ONNX model, it has no graph")
    versions = {p.domain: p.version for p in proto.opset_import}
    opset = next((versions[d] for d in STANDARD if d in versions), 0)
    if not opset:
        raise InputError(
            f"{who}: this is no ONNX model, it does not say which operators it is made of (opset_import)"
        )
    proto = _without_functions(onnx, proto, who)
    count = _count(proto.graph)
    if count > MOST_NODES:
        raise InputError(
            f"{who}: {count:,} nodes, at most {MOST_NODES:,} are read; export a loop with fewer steps, or one that is not "
            "unrolled"
        )
    return _Reader(onnx, folder, who, opset).graph(proto.graph, set())


def _package():
    try:
        import onnx
        import onnx.external_data_helper
        import onnx.numpy_helper
    except ImportError:
        raise InputError(f"from_onnx reads files with the package onnx, which is missing; {REMEDY}") from None
    return onnx


def _parsed(onnx, model):
    """The protocol buffer, the folder of its external data, and how messages call it."""
    if isinstance(model, onnx.ModelProto):
        return model, None, "the ONNX model"
    if isinstance(model, (str, os.PathLike)):
        path = os.fspath(model)
        who = f"from_onnx: {printable(os.path.basename(path))!r}"
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise InputError(
                f"from_onnx: {printable(path, 200)!r} cannot be read: {error.strerror}"
            ) from None
        folder = os.path.dirname(os.path.abspath(path))
    elif isinstance(model, (bytes, bytearray, memoryview)):
        data, folder, who = bytes(model), None, "from_onnx"
    else:
        raise InputError(
            f"from_onnx: give a file, its bytes or an onnx.ModelProto, not {type(model).__name__}"
        )
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception:  # protobuf's own kinds of error differ by its version
        raise InputError(f"{who}: this is no ONNX model, or it is cut short ({len(data):,} bytes)") from None
    return proto, folder, who


def _count(graph) -> int:
    """Nodes of a graph and of the graphs within them, without recursion."""
    count, pending = 0, [graph]
    while pending and count <= MOST_NODES:
        g = pending.pop()
        count += len(g.node)
        if count > MOST_NODES:
            break
        for node in g.node:
            pending.extend(a.g for a in node.attribute if a.HasField("g"))
    return count


def _without_functions(onnx, proto, who: str):
    """Functions that a file defines, written out where they are called; their number of nodes is looked at first."""
    if not proto.functions:
        return proto
    own = {(f.domain, f.name): f for f in proto.functions}
    size: dict[tuple, int] = {}
    for _ in range(
        len(own) + 1
    ):  # each round settles at least one more, unless they call each other in a circle
        for key, f in own.items():
            calls = [(n.domain, n.op_type) for n in f.node if (n.domain, n.op_type) in own]
            if key not in size and all(c in size for c in calls):
                size[key] = len(f.node) + sum(size[c] for c in calls)
        if len(size) == len(own):
            break
    else:
        raise InputError(f"{who}: functions of the file call each other in a circle")
    total = sum(size.get((n.domain, n.op_type), 1) for n in proto.graph.node)
    if total > MOST_NODES:
        raise InputError(
            f"{who}: {total:,} nodes with its functions written out, at most {MOST_NODES:,} are read"
        )
    from onnx import inliner

    try:
        return inliner.inline_local_functions(proto)
    except Exception as error:
        raise InputError(f"{who}: its functions cannot be written out: {_first_line(error)}") from None


@dataclass
class _Reader:
    onnx: Any
    folder: str | None
    who: str
    opset: int

    def graph(self, proto, around: set[str]) -> Graph:
        """`around`: the names that are known where this graph stands."""
        if proto.sparse_initializer:
            raise InputError(f"{self.who}: sparse initialisers are not known; export dense ones")
        arrays = {}
        for t in proto.initializer:
            arrays[_text(t.name)] = self.array(t, f"initialiser {printable(t.name)!r}")
        inputs = [v for v in map(self.value, proto.input) if v.name not in arrays]
        made = {*arrays, *(v.name for v in inputs)}
        nodes = _sorted(list(map(self.node, proto.node)), made, around, self.who)
        known = made | {o for n in nodes for o in n.outputs}
        for node in nodes:
            for name, a in list(node.attributes.items()):
                if isinstance(a, self.onnx.GraphProto):
                    node.attributes[name] = self.graph(a, around | known)
        outputs = [self.value(v) for v in proto.output]
        absent = [printable(v.name) for v in outputs if v.name not in known | around]
        if absent:
            raise InputError(f"{self.who}: no node makes the output {', '.join(absent[:MOST_PLACES])}")
        read = {i for n in nodes for i in n.inputs} | {v.name for v in outputs}
        read |= {
            name for n in nodes for a in n.attributes.values() if isinstance(a, Graph) for name in a.outer
        }
        return Graph(nodes, arrays, inputs, outputs, self.opset, _text(proto.name), read & around - known)

    def node(self, proto) -> Node:
        attributes = {_text(a.name): self.attribute(a, proto) for a in proto.attribute}
        domain = "" if proto.domain in STANDARD else _text(proto.domain)
        inputs, outputs = list(map(_text, proto.input)), list(map(_text, proto.output))
        return Node(
            _text(proto.op_type), inputs, outputs, attributes, _text(proto.name), _scopes(proto), domain
        )

    def attribute(self, a, node):
        kind = a.AttributeProto if hasattr(a, "AttributeProto") else self.onnx.AttributeProto
        where = f"attribute {printable(a.name)!r} of {printable(node.op_type)} {printable(node.name)!r}"
        if a.ref_attr_name:
            raise InputError(f"{self.who}: {where} refers to a function that is not there")
        if a.type == kind.TENSOR:
            return self.array(a.t, where)
        if a.type == kind.GRAPH:
            return a.g
        if a.type == kind.STRING:
            return a.s.decode("utf-8", "replace")
        if a.type == kind.STRINGS:
            return [s.decode("utf-8", "replace") for s in a.strings]
        if a.type in (kind.INT, kind.INTS, kind.FLOAT, kind.FLOATS):
            got = self.onnx.helper.get_attribute_value(a)
            return list(got) if a.type in (kind.INTS, kind.FLOATS) else got
        raise InputError(f"{self.who}: {where} is of a kind that is not known; export without it")

    def array(self, t, where: str) -> np.ndarray:
        """The numbers of a tensor; what it says of its shape is compared with the bytes that it has."""
        helper = self.onnx.numpy_helper
        try:
            dtype = np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(t.data_type))
        except (KeyError, TypeError, ValueError):
            dtype = np.dtype(object)
        if dtype.kind not in "fiub":
            raise InputError(
                f"{self.who}: {where} is {self.type_name(t.data_type)}, which is not known here; export it as float32"
            )
        shape = tuple(t.dims)
        count = 1
        for n in shape:
            count *= n
        if any(n < 0 for n in shape) or count > MOST_NUMBERS:
            raise InputError(
                f"{self.who}: {where} has the shape {shape}; at most {MOST_NUMBERS:,} numbers are read"
            )
        if t.data_location == self.onnx.TensorProto.EXTERNAL:
            t = self.external(t, where)
        if t.HasField("raw_data") and len(t.raw_data) != count * dtype.itemsize:
            raise InputError(
                f"{self.who}: {where} {shape} {dtype} needs {count * dtype.itemsize:,} bytes and has {len(t.raw_data):,}: "
                "the file is cut short or damaged"
            )
        try:
            return np.array(helper.to_array(t)).reshape(shape)
        except Exception as error:
            raise InputError(
                f"{self.who}: {where} {shape} {dtype} cannot be read: {_first_line(error)}"
            ) from None

    def external(self, t, where: str):
        """With the bytes that lie in a file beside the model; the package refuses paths that lead elsewhere."""
        place = {e.key: e.value for e in t.external_data}
        file = printable(place.get("location", ""))
        if self.folder is None:
            raise InputError(
                f"{self.who}: {where} lies in the file {file!r}; give the path of the model, not its bytes"
            )
        whole = self.onnx.TensorProto()
        whole.CopyFrom(t)
        try:
            self.onnx.external_data_helper.load_external_data_for_tensor(whole, self.folder)
        except Exception as error:
            raise InputError(
                f"{self.who}: {where} lies in the file {file!r} beside the model, which cannot be read: {_first_line(error)}"
            ) from None
        whole.data_location = self.onnx.TensorProto.DEFAULT
        return whole

    def value(self, v) -> Value:
        t = v.type.tensor_type
        if not v.type.HasField("tensor_type"):
            return Value(_text(v.name))
        shape = None
        if t.HasField("shape"):
            shape = tuple(
                d.dim_value if d.HasField("dim_value") else _text(d.dim_param) or None for d in t.shape.dim
            )
        try:
            dtype = np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(t.elem_type))
        except (KeyError, TypeError, ValueError):
            dtype = None
        return Value(_text(v.name), shape, dtype)

    def type_name(self, number: int) -> str:
        try:
            return self.onnx.TensorProto.DataType.Name(number)
        except ValueError:
            return f"of type {number}"


def _scopes(proto) -> tuple[str, ...]:
    """Where a node stood in the exported program: what PyTorch writes beside it, or a path in its name."""
    for entry in proto.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            inside = _text(entry.value).strip("[]").split(",")
            path = [part.strip(" '\"") for part in inside][:-1]  # the last is the operation
            return tuple(path[-1].split(".")) if path and path[-1] else ()
    return tuple(part for part in _text(proto.name).split("/")[:-1] if part)


def _text(name: str | bytes) -> str:
    """A name; what is no text arrives as bytes."""
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _sorted(nodes: list[Node], made: set[str], around: set[str], who: str) -> list[Node]:
    """Nodes in an order in which each reads what was made before; as they stand, if that is one."""
    maker: dict[str, int] = {}
    for k, node in enumerate(nodes):
        for name in filter(None, node.outputs):
            if name in maker or name in made:
                raise InputError(
                    f"{who}: {printable(name)!r} is made twice, the second time by {node.called}"
                )
            maker[name] = k
    needs: list[set[str]] = [_reads(n) for n in nodes]
    readers: dict[int, list[int]] = {}
    waiting = Counter()
    for k, node in enumerate(nodes):
        absent = [i for i in node.inputs if i and i not in maker and i not in made and i not in around]
        if absent:
            raise InputError(f"{who}: {node.called} reads {printable(absent[0])!r}, which nothing makes")
        before = {maker[i] for i in needs[k] if i in maker}
        waiting[k] = len(before)
        for b in before:
            readers.setdefault(b, []).append(k)
    ready = [k for k in range(len(nodes)) if not waiting[k]]
    heapify(ready)
    order = []
    while ready:
        k = heappop(ready)
        order.append(nodes[k])
        for r in readers.get(k, ()):
            waiting[r] -= 1
            if not waiting[r]:
                heappush(ready, r)
    if len(order) < len(nodes):
        stuck = next(n for k, n in enumerate(nodes) if waiting[k])
        raise InputError(f"{who}: the graph has a cycle: {stuck.called} depends on its own result")
    return order


def _reads(node: Node) -> set[str]:
    """Names that a node reads, and those that the graphs within it read from around them."""
    found = set(filter(None, node.inputs))
    for g in (a for a in node.attributes.values() if hasattr(a, "node")):
        found |= _outer(g)
    return found


def _outer(g) -> set[str]:
    """Names that a graph reads and does not make; protobuf bounds how deep graphs stand in graphs."""
    own = {_text(x.name) for x in (*g.input, *g.initializer)} | {_text(o) for n in g.node for o in n.output}
    read = {_text(v.name) for v in g.output} | {_text(i) for n in g.node for i in n.input if i}
    for inner in (a.g for n in g.node for a in n.attribute if a.HasField("g")):
        read |= _outer(inner)
    return read - own


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().split("\n")[0], 160) or type(error).__name__
