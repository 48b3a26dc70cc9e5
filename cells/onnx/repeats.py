"""Loops that arrive unrolled: equal bodies in a row are found and become steps with carried states.

An exporter writes ``for x in xs: h = cell(x, h)`` as one body after the other, which read the same weights.  Bodies are
equal when their nodes have the same operators, attributes and weights, and read each other in the same way: within
the body, from the body before (a carried state), or from outside (what all share, or the step's input).  Of the places
where a body may begin, that is taken which leaves the most whole bodies, and of these at which the fewest values are
carried.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from minigrad.names import printable

from .read import Graph, Node

CANDIDATES = 16  # distances between equal nodes that are tried as lengths of a body
ROWS = 200  # of nodes that look equal, the longest, that are looked into
TURNS = 12  # places where a body may begin that are tried
LAID_OUT = {
    "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Gather", "Identity", "Range", "Reshape", "Shape", "Size",
    "Slice", "Squeeze", "Unsqueeze",
}  # fmt: skip
CUT_OUT = {"Gather", "Identity", "Reshape", "SequenceAt", "Slice", "Split", "SplitToSequence", "Squeeze", "Transpose",
           "Unsqueeze"}  # fmt: skip
PRODUCTS = {"MatMul", "Gemm", "Conv", "Einsum"}
FLOATS = (1, 10, 11)  # ONNX's numbers for float32, float16, float64
PLACES = (
    "starts",
    "ends",
    "value",
    "value_int",
    "value_ints",
)  # attributes that may differ from step to step


@dataclass(eq=False)
class Loop:
    """Steps that were found: which node stands in which, what its values are called, and the first states."""

    label: str
    length: int
    states: list[str]
    step_of: dict[Node, int] = field(default_factory=dict)  # t from 1
    names: dict[str, str] = field(default_factory=dict)  # of values, such as gates and states
    first: dict[str, str] = field(default_factory=dict)  # values that are states before the first step

    def __str__(self) -> str:
        return f"loop {printable(self.label)!r}: {self.length} steps, states {' '.join(self.states)}"


def find(graph: Graph, learn: set[str]) -> list[Loop]:
    """The loops of a graph, in its order; none where nothing repeats."""
    row = _Row(graph, learn)
    taken = np.zeros(len(row.nodes), bool)
    loops: list[tuple[int, Loop]] = []
    for start, period, count in _alike(row)[:ROWS]:
        if taken[start : start + period * count].any():
            continue
        found = _Body(row, start, period, count).verified()
        if found is None:
            continue
        begin, end = found.span
        if not taken[begin:end].any():
            taken[begin:end] = True
            loops.append((begin, found.loop()))
    ordered = [loop for _, loop in sorted(loops, key=lambda pair: pair[0])]
    for k, loop in enumerate(ordered):
        same = sum(other.label.partition(" / run ")[0] == loop.label for other in ordered[:k])
        loop.label = f"{loop.label} / run {same + 1}" if same else loop.label
    return ordered


class _Row:
    """The nodes that compute, in order: without constants, arithmetic of shapes, and what is made of weights alone.

    `inputs` are the values that each reads, through casts that change nothing; `weights` are the parameters that a value
    is made of, with a key that is equal for what is made in the same way; `maker` and `readers` say where a value is made
    and read; `tokens` are equal numbers for nodes that look equal.
    """

    def __init__(self, graph: Graph, learn: set[str]):
        self.nodes: list[Node] = []
        self.inputs: list[list[str]] = []
        self.weights: dict[str, tuple] = {name: (name,) for name in learn}
        self.origin: dict[str, list[str]] = {name: [name] for name in learn}
        self.through: dict[str, str] = {}
        self._walk(graph)
        self.maker = {o: (k, j) for k, node in enumerate(self.nodes) for j, o in enumerate(node.outputs) if o}
        self.readers: dict[str, list[int]] = {}
        for k, inputs in enumerate(self.inputs):
            for i in inputs:
                self.readers.setdefault(i, []).append(k)
        self.tokens = _numbered(map(self._look, self.nodes, self.inputs))
        self.kinds = _numbered(
            (n.domain, n.op, _attributes(n), len(n.inputs), len(n.outputs)) for n in self.nodes
        )

    def _walk(self, graph: Graph) -> None:
        fixed = {name for name in graph.initialisers if name not in self.weights}
        whole = {name for name in fixed if graph.initialisers[name].dtype.kind in "iub"}
        whole |= {v.name for v in graph.inputs if v.dtype is not None and v.dtype.kind in "iub"}
        for node in graph.nodes:
            inputs = [self.through.get(i, i) for i in node.inputs]
            read = [i for i in inputs if i]
            value = node.attributes.get("value")
            constant = isinstance(value, np.ndarray) and value.dtype.kind in "iub" and node.op == "Constant"
            sizes = node.op in ("Shape", "Size") or "value_ints" in node.attributes or constant
            to_float = node.op == "Cast" and node.attributes.get("to") in FLOATS
            if not to_float and (sizes or (read and all(i in whole for i in read))):
                whole.update(node.outputs)
            known = all(i in fixed for i in read) or node.op in ("Shape", "Size")
            made = [i for i in read if i in self.weights]
            if known and (node.op in LAID_OUT or all(o in whole for o in node.outputs)):
                fixed.update(node.outputs)
            elif read and (node.op == "Identity" or (to_float and read[0] not in whole)):
                self.through[node.outputs[0]] = read[0]
            elif (
                made and node.op in LAID_OUT | CUT_OUT and all(i in self.weights or i in fixed for i in read)
            ):
                for k, output in enumerate(node.outputs):
                    self.weights[output] = (
                        k,
                        node.op,
                        _attributes(node),
                        *(self.weights.get(i) for i in read),
                    )
                    self.origin[output] = [name for i in made for name in self.origin[i]]
            else:
                self.nodes.append(node)
                self.inputs.append(inputs)

    def _look(self, node: Node, inputs: list[str]) -> tuple:
        read = tuple(self.weights.get(i, i != "") for i in inputs)
        return (node.domain, node.op, _attributes(node), read, len(node.outputs))

    def heavy(self, k: int) -> bool:
        """Does a node read weights?"""
        return any(i in self.weights for i in self.inputs[k])


def _numbered(looks) -> list[int]:
    """Equal numbers for what is equal."""
    numbers: dict[tuple, int] = {}
    return [numbers.setdefault(look, len(numbers)) for look in looks]


def _attributes(node: Node) -> tuple:
    return tuple((name, key_of(a)) for name, a in sorted(node.attributes.items()) if name not in PLACES)


def key_of(a):
    """An attribute or an array as something that can be compared."""
    if isinstance(a, np.ndarray):
        return (a.shape, a.tobytes())
    return tuple(a) if isinstance(a, list) else id(a) if isinstance(a, Graph) else a


def _alike(row: _Row) -> list[tuple[int, int, int]]:
    """(start, length of a body, how many) of rows of nodes that look equal again and again, the longest first."""
    last: dict[int, int] = {}
    apart: Counter = Counter()
    for k, token in enumerate(row.tokens):
        if row.heavy(k):
            if token in last:
                apart[k - last[token]] += 1
            last[token] = k
    tokens = np.array(row.tokens)
    found = []
    for period, _ in apart.most_common(CANDIDATES):
        equal = np.concatenate([[False], tokens[:-period] == tokens[period:], [False]])
        edges = np.flatnonzero(equal[1:] != equal[:-1])
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if end - begin >= period:
                found.append((begin, period, end - begin + period))
    found.sort(key=lambda f: (-f[2], f[1], f[0]))
    return [(start, period, length // period) for start, period, length in found]


# Bodies that read each other in the same way.


class _Body:
    """Bodies in a row; `start` moves to the place where the fewest values are carried."""

    def __init__(self, row: _Row, start: int, period: int, count: int):
        self.row, self.nodes, self.tokens = row, row.nodes, row.tokens
        self.start, self.period, self.count = start, period, count
        self.reads: list[list] = []  # by place in the body, by input: where it comes from, as in `_source`
        self.head = self.tail = 0  # nodes of an incomplete first and last step

    @property
    def span(self) -> tuple[int, int]:
        return self.start - self.head, self.start + self.period * self.count + self.tail

    def verified(self) -> _Body | None:
        """Itself, begun at the best place and cut to the steps that fit; None where that leaves fewer than two."""
        first, length = self.start, self._length()
        best, found = None, (0, 0, 0)
        for turn, crossed in self._turns(length):
            self.start, self.count = first + turn, (length - turn) // self.period
            if best is not None and (self.count, -crossed) < found[:2]:
                break
            self._fit()
            body = self.nodes[self.start : self.start + self.period]
            weights = any(map(self.row.heavy, range(self.start, self.start + self.period)))
            carried = _carried(self.reads) if weights and self.count > 1 else []
            # Of equals that one whose states are multiplied by a matrix: h, and not what tanh makes h of.
            quality = (self.count, -crossed, sum(_enters_product(body, self.reads, s) for s in carried))
            if carried and (best is None or quality > found):
                best, found = self.start, quality
        if best is None:
            return None
        self.start, self.count = best, found[0]
        self._fit()
        self._ends()
        return self

    def _length(self) -> int:
        """How far the row goes, an incomplete body at its end included."""
        end = self.start + self.period
        while end < len(self.tokens) and self.tokens[end] == self.tokens[end - self.period]:
            end += 1
        return end - self.start

    def _turns(self, length: int) -> list[tuple[int, int]]:
        """Places where a body may begin, and how many values go from one body to the next there.

        Those with the most whole bodies come first, then those with the fewest values.
        """
        begin = self.start + self.period  # the boundaries that follow the first body
        crossing = np.zeros(self.period + 1, int)
        for k in range(self.start, min(self.start + 2 * self.period, len(self.nodes))):
            for output in filter(None, self.nodes[k].outputs):
                reach = self._last_reader(output, k)
                low, high = max(k + 1, begin), min(reach, begin + self.period - 1)
                if low <= high:  # boundaries at low … high are crossed
                    crossing[low - begin] += 1
                    crossing[high - begin + 1] -= 1
        carried = np.cumsum(crossing)[: self.period]
        possible = [t for t in range(self.period) if (length - t) // self.period >= 2]
        best = sorted(possible, key=lambda t: (-((length - t) // self.period), carried[t], t))
        return [(t, int(carried[t])) for t in best[:TURNS]]

    def _last_reader(self, output: str, k: int) -> int:
        """The last node that reads a value within the next body."""
        until = min(k + 2 * self.period, self.start + self.period * self.count)
        return max((n for n in self.row.readers.get(output, ()) if n < until), default=k)

    def _source(self, body: int, name: str) -> tuple | None:
        """(bodies back, place, output) for what bodies make; None for what comes from outside."""
        k, output = self.row.maker.get(name, (-1, 0))
        where = k - self.start
        if not 0 <= where < self.period * self.count:
            return None
        return body - where // self.period, where % self.period, output

    def _fit(self) -> None:
        """Cut the row to the bodies that read each other as the second does."""
        self.reads = self._sources_of(1) if self.count > 1 else []
        for body in range(self.count):
            own = self._sources_of(body)
            # Before the first body stand the first states, where later ones read the body before.
            expected = [[None if s and s[0] > body else s for s in row] for row in self.reads]
            if own != expected:
                self.count = body
                return

    def _sources_of(self, body: int) -> list[list]:
        begin = self.start + body * self.period
        return [
            [self._source(body, i) if i and i not in self.row.weights else None for i in inputs]
            for inputs in self.row.inputs[begin : begin + self.period]
        ]

    def _ends(self) -> None:
        """Incomplete steps at both ends: operators in the same order, which read each other as in the body.

        So the first step may be, whose state is a constant or a parameter, and the last one, half of which nobody reads.
        """
        end = self.start + self.period * self.count
        body = list(range(self.start, self.start + self.period))
        self.tail = self._matching(range(end, min(end + self.period - 1, len(self.nodes))), body)
        self.head = self._matching(
            range(self.start - 1, max(self.start - self.period - 1, -1), -1), body[::-1]
        )

    def _matching(self, places: range, body: list[int]) -> int:
        """How many nodes, from the first place on, follow each other as in the body; none unless one reads its weights."""
        kinds, behind = [self.row.kinds[k] for k in body], places.step > 0
        matched: dict[int, int] = {}
        at = found = 0
        for k in places:
            if self.row.kinds[k] not in kinds[at:]:
                break
            at = kinds.index(self.row.kinds[k], at) + 1
            matched[k] = body[at - 1] - self.start
            if behind and not self._agrees(k, matched, behind):
                del matched[k]
                break
            if self.row.heavy(k) and self.tokens[k] == self.tokens[body[at - 1]]:
                found = len(matched)
        if behind:
            return found
        return len(matched) if found and all(self._agrees(k, matched, behind) for k in matched) else 0

    def _agrees(self, k: int, matched: dict[int, int], behind: bool) -> bool:
        """Does a node of an incomplete step read what its like in the body reads?  Before the first are constants."""
        for name, expected in zip(self.row.inputs[k], self.reads[matched[k]], strict=False):
            maker, output = self.row.maker.get(name, (-1, 0))
            found = (0, matched[maker], output) if maker in matched else self._source(self.count, name)
            if expected != found and expected is not None and (behind or found is not None):
                return False
        return True

    # What is said of it.

    def loop(self) -> Loop:
        body = self.nodes[self.start : self.start + self.period]
        outside = self._cut_out(body)
        called = _names(body, self.reads, outside)
        carried = _carried(self.reads)
        states = sorted((called[s] for s in carried), key=lambda n: (not n.startswith("h"), n))
        shift = 1 if self.head else 0
        loop = Loop(self._label(), self.count + shift + (1 if self.tail else 0), states)
        for b in range(self.count):
            for k in range(self.period):
                node = self.nodes[self.start + b * self.period + k]
                if k not in outside:
                    loop.step_of[node] = b + 1 + shift
                for o, name in enumerate(node.outputs):
                    if (k, o) in called:
                        loop.names[name] = called[k, o]
        for k in range(self.start - self.head, self.start):
            loop.step_of[self.nodes[k]] = 1
        for k in range(self.span[1] - self.tail, self.span[1]):
            loop.step_of[self.nodes[k]] = loop.length
        for k, row in enumerate(self.reads):
            for i, s in enumerate(row):
                if s and s[0] == 1 and s[1:] in called:
                    loop.first[self.nodes[self.start + k].inputs[i]] = called[s[1:]]
        return loop

    def _cut_out(self, body: list[Node]) -> set[int]:
        """Places of nodes that only cut the step's input out of what comes from outside."""
        found: set[int] = set()
        for k, node in enumerate(body):
            plain = node.op in CUT_OUT and not self.row.heavy(self.start + k)
            if plain and all(s is None or (s[0] == 0 and s[1] in found) for s in self.reads[k]):
                found.add(k)
        return found

    def _label(self) -> str:
        """The module that the weights are called after, where they share one."""
        inputs = self.row.inputs[self.start : self.start + self.period]
        names = [name for row in inputs for i in row for name in self.row.origin.get(i, ())]
        shared, *stems = [re.split("[./]", name)[:-1] for name in names]
        for stem in stems:
            same = [a == b for a, b in zip(shared, stem, strict=False)]
            shared = shared[: same.index(False) if False in same else len(same)]
        return " / ".join(shared)


def _carried(reads: list[list]) -> list[tuple[int, int]]:
    return list(dict.fromkeys(s[1:] for row in reads for s in row if s and s[0] == 1))


# Names of gates and states, by the part that they play.


def _names(body: list[Node], reads: list[list], outside: set[int]) -> dict[tuple[int, int], str]:
    """(place, output) → its name: the step's input, the carried states, and the gates by what they are used for."""
    named: dict[tuple[int, int], str] = {}
    carried = _carried(reads)
    kinds = {s: "h" if _enters_product(body, reads, s) else "c" for s in carried}
    for kind in ("h", "c"):
        same = [s for s in sorted(carried) if kinds[s] == kind]
        if not any(k == "h" for k in kinds.values()):
            kind = "h"
        for n, s in enumerate(same, 1):
            named[s] = kind if len(same) == 1 else f"{kind}{n}"
    xs = list(
        dict.fromkeys(
            s[1:] for k, row in enumerate(reads) for s in row if s and s[1] in outside and k not in outside
        )
    )
    for n, s in enumerate(xs, 1):
        named.setdefault(s, "x" if len(xs) == 1 else f"x{n}")
    for s, name in list(named.items()):
        if name.startswith("c"):
            _lstm_gates(body, reads, s, name[1:], named)
    if len(carried) == 1:
        _gru_gates(body, reads, carried[0], named)
    rest = [k for k, node in enumerate(body) if node.op == "Sigmoid" and (k, 0) not in named]
    for n, k in enumerate(rest, 1):
        named[k, 0] = f"gate {n}" if len(rest) > 1 else "gate"
    for k, node in enumerate(body):
        if node.op == "Softmax" and any(s == (0, k, 0) for row in reads for s in row):
            named.setdefault((k, 0), "alpha")
    made = _made_for_outside(body, reads)
    made = [s for s in made if s not in named and s[0] not in outside]
    for n, s in enumerate(made, 1):
        named[s] = "y" if len(made) == 1 else f"y{n}"
    return named


def _made_for_outside(body: list[Node], reads: list[list]) -> list[tuple[int, int]]:
    """What no step reads, such as what an output layer makes of the state, before it is laid out beside that of others."""
    read = {s[1] for row in reads for s in row if s}
    found = []
    for end in (k for k in range(len(body)) if k not in read):
        s = (end, 0)
        while body[s[0]].op in CUT_OUT and len(_inner(reads, s[0])) == 1:
            (s,) = _inner(reads, s[0])
        found.append(s)
    return list(dict.fromkeys(found))


def _inner(reads: list[list], k: int) -> list[tuple[int, int]]:
    """What a node reads that its own body makes."""
    return [s[1:] for s in reads[k] if s and s[0] == 0]


def _enters_product(body, reads, state: tuple[int, int]) -> bool:
    """Does the next step multiply the state by a matrix, perhaps beside its input?"""
    fresh = [k for k, row in enumerate(reads) if any(s == (1, *state) for s in row if s)]
    seen: set[int] = set()
    while fresh:
        k = fresh.pop()
        if body[k].op in PRODUCTS:
            return True
        if k not in seen and (body[k].op in CUT_OUT or body[k].op == "Concat"):
            seen.add(k)
            fresh += [n for n in range(len(body)) if any(s[0] == k for s in _inner(reads, n))]
    return False


def _lstm_gates(body, reads, c: tuple[int, int], suffix: str, named) -> None:
    """c = f · c_prev + i · c_tilde and h = o · tanh(c)."""
    if body[c[0]].op != "Add":
        return
    for product, _ in _inner(reads, c[0]):
        if body[product].op != "Mul":
            continue
        memory = any(s == (1, *c) for s in reads[product] if s)
        for s in _inner(reads, product):
            op = body[s[0]].op
            if op == "Sigmoid":
                named.setdefault(s, ("f" if memory else "i") + suffix)
            elif op == "Tanh":
                named.setdefault(s, "c_tilde" + suffix)
    for k, node in enumerate(body):
        if node.op == "Mul" and any(
            body[s[0]].op == "Tanh" and c in _inner(reads, s[0]) for s in _inner(reads, k)
        ):
            for s in _inner(reads, k):
                if body[s[0]].op == "Sigmoid":
                    named.setdefault(s, "o" + suffix)


def _gru_gates(body, reads, h: tuple[int, int], named) -> None:
    """One candidate by tanh; r is the gate that enters it, z the one that does not."""
    tanhs = [k for k, node in enumerate(body) if node.op == "Tanh" and (k, 0) != h]
    gates = [k for k, node in enumerate(body) if node.op == "Sigmoid" and (k, 0) not in named]
    if len(tanhs) != 1 or not 1 <= len(gates) <= 2:
        return
    behind, pending = set(), [tanhs[0]]
    while pending:
        k = pending.pop()
        if k not in behind:
            behind.add(k)
            pending += [s[0] for s in _inner(reads, k)]
    before = [k for k in gates if k in behind]
    if len(gates) == 2 and len(before) == 1:
        named.update({(k, 0): "r" if k in before else "z" for k in gates})
        named.setdefault((tanhs[0], 0), "h_tilde")
    elif len(gates) == 1 and not before:
        named.update({(gates[0], 0): "z", (tanhs[0], 0): "h_tilde"})
