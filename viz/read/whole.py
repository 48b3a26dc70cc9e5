"""Reads a graph whose quantities hold the whole sequence at once: which step of which is read by which step.

Nothing here knows a layer.  A quantity with a leading axis of T steps is a row.  From
each row the graph is followed downwards to the next rows: a slice or a concatenation
along time moves the index, everything element by element and every product over the
units keeps it, so every way from row to row has an offset in time (the tap of a
convolution: −j · dilation; a skip connection: 0).  Where a product sums over steps, its
left operand holds the weights: that is attention.  The gradient is sent the same ways,
offset by offset, by the rules of the operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from minigrad import GraphError, InputError, Tensor, ancestors, describe
from minigrad.reverse import Kind, unbroadcast, walk

from ..language.status import CUT, NOT_COMPUTED
from ..language.text import clean
from .moves import Move, moves, moves_steps
from .network import gradient_of, gradient_status, statuses_of, step_of


@dataclass(eq=False)
class Row:
    """One quantity over all steps."""

    node: Tensor
    name: str
    scope: str
    ways: list[Way] = field(default_factory=list)  # by which it reads rows below

    @property
    def label(self) -> str:
        return f"{self.scope}  {self.name}".strip()

    def values(self) -> np.ndarray:
        """‖value‖ at each step (T,)."""
        return norms(self.node.value)


@dataclass(eq=False)
class Way:
    """How a row reads `source`: step t reads step t + offset; with `weights`, by attention, all steps;
    with neither, in a way that mixes the steps, such as a mean over time."""

    source: Row
    offset: int | None
    first: int = 0  # it holds for the steps first … last − 1, counted from 0
    last: int = 0
    norms: np.ndarray | None = None  # ‖gradient‖ that step t sends along it (T,)
    status: str | None = None  # why there is none
    weights: Sequence[Tensor] = ()

    @property
    def times(self) -> range:
        """The steps t, from 0, that read by it a step that there is."""
        assert self.offset is not None
        T = self.source.node.shape[0]
        return range(max(self.first, -self.offset, 0), min(self.last, T - self.offset, T))


@dataclass
class Whole:
    """A graph of whole sequences; rows from the inputs up to the output."""

    root: Tensor
    T: int
    rows: list[Row]
    statuses: dict[int, str]

    @property
    def top(self) -> Row:
        return self.rows[-1]

    @property
    def inputs(self) -> list[Row]:
        return [row for row in self.rows if not row.ways]

    @property
    def computed(self) -> bool:
        return gradient_of(self.statuses, self.top.node) is not None

    def gradient(self, row: Row) -> tuple[np.ndarray | None, str | None]:
        """‖∂L/∂row‖ at each step (T,), or None and why."""
        found = gradient_of(self.statuses, row.node)
        return (
            (norms(found), None) if found is not None else (None, gradient_status(self.statuses, row.node)[1])
        )

    def seen_from(self, t: int) -> dict[int, np.ndarray]:
        """The receptive field of step t (from 0) of the top row: by number of the row's node, booleans (T,)."""
        seen = {row.node.number: np.zeros(self.T, bool) for row in self.rows}
        seen[self.top.node.number][t] = True
        for row in reversed(self.rows):
            mine = seen[row.node.number]
            for way in row.ways:
                seen[way.source.node.number] |= _read_by(way, mine)
        return seen

    def reach(self) -> int:
        """How many steps the furthest way from the top row to an input spans, however long the sequence is."""
        span = {self.top.node.number: (0, 0)}
        for row in reversed(self.rows):
            if row.node.number not in span:
                continue
            low, high = span[row.node.number]
            for way in row.ways:
                if way.offset is not None:
                    a, b = span.get(way.source.node.number, (0, 0))
                    span[way.source.node.number] = min(a, low + way.offset), max(b, high + way.offset)
        return max([high - low + 1 for n in self.inputs for low, high in [span.get(n.node.number, (0, 0))]])


def _read_by(way: Way, mine: np.ndarray) -> np.ndarray:
    """Which steps of its source a way brings to the steps `mine`."""
    found = np.zeros(len(mine), bool)
    if way.offset is not None:
        times = np.array(way.times, dtype=int)
        times = times[mine[times]]
        found[times + way.offset] = True
    elif way.weights:
        for w in (w.value for w in way.weights):
            found |= (w.reshape(-1, *w.shape[-2:])[:, mine] != 0).any(axis=(0, 1))
    else:
        found |= mine.any()
    return found


def norms(array) -> np.ndarray:
    """The Euclidean norm of every step (T,), in double precision, without overflow on the way."""
    values = np.abs(np.asarray(array, dtype=np.float64)).reshape(len(array), math.prod(array.shape[1:]))
    top = values.max(axis=1, initial=0.0)
    with np.errstate(invalid="ignore"):
        scaled = values / np.where((top > 0) & np.isfinite(top), top, 1.0)[:, None]
        sizes = np.sqrt(np.square(np.minimum(scaled, 2.0)).sum(axis=1))
    return np.where((top > 0) & np.isfinite(top), top * sizes, top)


def read_whole(root: Tensor, names: Sequence[str] | None = None) -> Whole:
    """The graph behind `root` as rows; names: which named quantities are rows, by default those that need it.

    Raises InputError where nothing in it is a whole sequence, GraphError where it was freed.
    """
    nodes = ancestors(root)
    if any(n.op is not None and n.op.name == "freed" for n in nodes):
        raise GraphError(
            "the graph was freed by backward(free=True), there is nothing left to draw; run it without free"
        )
    if any(n.is_symbol for n in nodes):
        raise InputError("taps: this is a traced graph without values; call the function on arrays")
    users: dict[int, list[Tensor]] = {}
    for n in nodes:
        for x in n.inputs:
            users.setdefault(x.number, []).append(n)
    reader = _reader(root, nodes, users)
    top = reader.top
    chosen = reader.rows(top, users, names)
    statuses = statuses_of(root)
    made: dict[int, Row] = {}
    for n in chosen:
        made[n.number] = Row(n, _name(n, reader), " / ".join(map(clean, n.scope)))
    for row in made.values():
        row.ways = reader.ways(row.node, made, gradient_of(statuses, row.node))
        for way in row.ways:
            if way.norms is None and way.status is None:
                way.status = NOT_COMPUTED
    return Whole(root, top.shape[0], list(made.values()), statuses)


def _name(n: Tensor, reader: _Reader) -> str:
    if n.name:
        return clean(n.name, 30)
    if joined(n):
        return clean(n.inputs[0].inputs[0].name or "x", 30)
    if not reader.is_source(n):
        return ""
    indices = [x for x in ancestors(n) if x.name and x.number in reader.depends]
    return clean(indices[0].name, 30) if indices else "x"


# What is a row.


def _reader(root: Tensor, nodes: list[Tensor], users) -> _Reader:
    """For the last whole sequence that has as many steps as what it was computed from."""
    first = None
    for top in _tops(root, nodes, users):
        if not top.shape[0]:
            raise InputError(f"taps: {describe(top)} has T = 0 steps, there is nothing to draw")
        reader = _Reader(top, _inputs(top, users))
        if reader.sources and 0 in reader.times[top.number]:
            return reader
        first = first or top
    if first is not None:
        raise InputError(
            f"taps: {describe(first)} was computed from no input that has T = {first.shape[0]} steps along its "
            "first axis; give a network that reads (steps, sequences, units), or draw a recurrence with viz.draw"
        )
    raise InputError(
        "taps: nothing in this graph is a whole sequence: no named tensor (steps, sequences, units) is "
        "computed in it; name the outputs, .named('h'), or draw a recurrence with viz.draw"
    )


def _tops(root: Tensor, nodes: list[Tensor], users) -> Iterator[Tensor]:
    """What may be the output, the last first: (T, N, units) with a name, then what leaves its scope."""
    if root.ndim >= 2 and root.dtype.kind == "f":
        yield root
    for wanted in (lambda n: n.name, lambda n: leaves_scope(n, users)):
        for n in reversed(nodes):
            if n.op is not None and n.ndim == 3 and n.dtype.kind == "f" and wanted(n) and step_of(n) is None:
                yield n


def leaves_scope(n: Tensor, users) -> bool:
    """Whether something outside its scope reads it: the output of a block."""
    return bool(n.scope) and any(u.scope[: len(n.scope)] != n.scope for u in users.get(n.number, ()))


def _inputs(top: Tensor, users) -> list[Tensor]:
    """The leaves in which time enters: data with an axis of T steps, not weights, masks or padding."""
    T = top.shape[0]
    reached = _reached(top)
    nodes = [n for n in ancestors(top) if n.ndim >= 2 and n.shape[0] == T and (n.number, 0) in reached]
    held = [n for n in nodes if n.op is None and n.dtype.kind in "fiu" and step_of(n) is None]
    leaves = [n for n in held if n.role is None]
    data = [n for n in leaves if n.dtype.kind == "f" and not n.requires_grad]
    named = [n for n in data if n.name] + [n for n in nodes if joined(n)]
    # Without names the first: factors are masks, and zeros that are joined on are padding.
    others = [n for n in data if not n.name and not all(_aside(u, n) for u in users.get(n.number, ()))]
    times = np.arange(T).reshape(-1, 1)
    counted = [n for n in leaves if n.dtype.kind in "iu"]
    indices = [n for n in counted if not (n.shape == (T, 1) and (n.value == times).all())] or counted
    for found in (named or others[:1], indices[:1], data[:1], [n for n in leaves if n.requires_grad], held):
        if found:
            return found
    return []


def _reached(top: Tensor) -> set[tuple[int, int]]:
    """Nodes, by number, and their axes that the steps of `top` may come from."""
    seen, pending = {(top.number, 0)}, [(top, 0)]
    while pending:
        n, axis = pending.pop()
        for k, a, *_ in () if joined(n) else moves(n, axis):
            if (n.inputs[k].number, a) not in seen:
                seen.add((n.inputs[k].number, a))
                pending.append((n.inputs[k], a))
    return seen


def joined(n: Tensor) -> bool:
    """Whether it was put together of single steps, as what a recurrence gives is."""
    if n.op is None or n.op.name != "concat" or n.params[0] != 0 or n.shape[0] == 1:
        return False
    return all(x.shape[0] == 1 and x.op is not None and x.op.name == "reshape" for x in n.inputs)


def _aside(user: Tensor, n: Tensor) -> bool:
    """Whether `n` is only a factor in `user`, or the zeros with which it begins or ends."""
    assert user.op is not None
    return user.op.name == "mul" or (user.op.name == "concat" and not n.value.any())


class _Reader:
    """Follows time through the operations."""

    def __init__(self, top: Tensor, sources: list[Tensor]):
        self.top, self.T = top, top.shape[0]
        self.nodes = ancestors(top)
        self.sources = {n.number for n in sources}
        self.times: dict[int, set[int]] = {}  # by number: the axes that count steps
        self.depends: set[int] = set()
        for n in self.nodes:
            if n.number in self.sources:
                self.times[n.number] = {0}
            elif n.op is not None:
                self.times[n.number] = {a for a in range(n.ndim) if any(True for _ in self.back(n, a))}
            if n.number in self.sources or any(x.number in self.depends for x in n.inputs):
                self.depends.add(n.number)

    def is_source(self, n: Tensor) -> bool:
        """Whether time enters here: an input, or the first floats made of indices."""
        floats = [x for x in n.inputs if x.dtype.kind == "f" and x.number in self.depends]
        return n.number in self.sources or (n.number in self.depends and n.dtype.kind == "f" and not floats)

    def back(self, n: Tensor, axis: int) -> Iterator[Move]:
        """From an axis of a node to that of its inputs that count steps: (input, axis, shift, first, last).

        Place i of the node is made of place i + shift of the input, for first ≤ i < last.
        """
        for k, a, shift, first, last in moves(n, axis):
            if a in self.times.get(n.inputs[k].number, ()):
                yield k, a, shift, first, last

    def rows(self, top: Tensor, users, names: Sequence[str] | None) -> list[Tensor]:
        """The nodes that are rows, by rising number."""
        found: list[Tensor] = []
        reads: dict[int, list[Way]] = {}
        for n in self.nodes:
            if n is not top and not self._may_be_row(n, users, names):
                continue
            ways = self.ways(n, {m.number: Row(m, "", "") for m in found}, None)
            worth = n is top or n.name or leaves_scope(n, users) or self.is_source(n)
            if not worth and all(w.offset == 0 for w in ways):
                continue  # a mask on what a convolution reads, say
            found.append(n)
            reads[n.number] = ways
        kept = {top.number}
        for n in reversed(found):  # readers are decided before what they read
            if n is top or self.is_source(n) or (names is not None and n.name in names):
                kept.add(n.number)
                continue
            readers = [(m, w) for m in found for w in reads[m.number] if w.source.node is n]
            if any(w.offset != 0 or m.scope != n.scope for m, w in readers):
                kept.add(n.number)
        return [n for n in found if n.number in kept]

    def _may_be_row(self, n: Tensor, users, names: Sequence[str] | None) -> bool:
        if n.dtype.kind != "f" or n.ndim < 2 or 0 not in self.times.get(n.number, ()) or n.shape[0] != self.T:
            return False
        if self.is_source(n):
            return True
        if step_of(n) is not None or (names is not None and n.name and n.name not in names):
            return False
        shifted = any(moves_steps(u) for u in users.get(n.number, ()) if u.number in self.times)
        return bool(n.name) or leaves_scope(n, users) or shifted

    def ways(self, top: Tensor, rows: dict[int, Row], gradient: np.ndarray | None) -> list[Way]:
        """From one row down to the next: ways by source and offset; what its `gradient` sends along each."""
        found: list[Way] = []
        mixed: dict[int, tuple[Row, list[Tensor]]] = {}

        def ends(n: Tensor) -> bool:
            return n.number in rows and n is not top

        def sent(n: Tensor, parts: _Parts) -> list[_Parts | None]:
            to: list[_Parts] = [{} for _ in n.inputs]
            for (axis, shift), part in () if ends(n) else parts.items():
                followed = set()
                for k, a, by, first, last in self.back(n, axis):
                    followed.add(k)
                    if n.inputs[k].dtype.kind == "f":
                        further = part.through(n, k, first - shift, last - shift)
                        to[k][a, shift + by] = further.joined(to[k].get((a, shift + by)))
                self._mixed(n, axis, followed, rows, mixed)
            return [p or None for p in to]

        def join(_, parts: _Parts, more: _Parts) -> _Parts:
            return parts | {at: part.joined(parts.get(at)) for at, part in more.items()}

        for n, parts, _ in walk([(top, {(0, 0): _Part(gradient, 0, self.T)})], Kind(sent, join)):
            if ends(n):
                found += [_way(rows[n.number], shift, part) for (_, shift), part in sorted(parts.items())]
        return found + [Way(row, None, 0, self.T, weights=w) for row, w in mixed.values()]

    def _mixed(self, n: Tensor, axis: int, followed: set[int], rows, mixed) -> None:
        """Inputs of `n` of which every step reads many: by weights where `n` is a product with them."""
        for k, x in enumerate(n.inputs):
            if k in followed or x.number not in self.depends or x.dtype.kind != "f":
                continue
            left = n.inputs[0]
            attends = (
                n.op is not None and n.op.kind == "product" and k == 1 and axis == n.ndim - 2
                and {left.ndim - 2, left.ndim - 1} <= self.times.get(left.number, set())
                and x.ndim - 2 in self.times.get(x.number, ())
            )  # fmt: skip
            for row in self._rows_behind(x, rows):
                mixed.setdefault(row.node.number, (row, []))[1].extend([left] if attends else [])

    def _rows_behind(self, x: Tensor, rows: dict[int, Row]) -> list[Row]:
        found, pending, seen = [], [x], set()
        while pending:
            n = pending.pop()
            if n.number in seen or n.number not in self.depends:
                continue
            seen.add(n.number)
            if n.number in rows:
                found.append(rows[n.number])
            else:
                pending.extend(n.inputs)
        return found


@dataclass
class _Part:
    """What is on its way down at one node, with one shift: the gradient and for which steps it holds."""

    gradient: np.ndarray | None
    first: int
    last: int
    cut: bool = False

    def through(self, n: Tensor, k: int, first: int, last: int) -> _Part:
        """What `n` sends on to its input k."""
        assert n.op is not None
        rule = n.op.rule(k)
        sent = None
        if rule is not None and self.gradient is not None:
            with np.errstate(all="ignore"):
                sent = rule(self.gradient, n.value, *(x.value for x in n.inputs), *n.params)
            sent = unbroadcast(sent, n.inputs[k].shape)
        return _Part(sent, max(self.first, first), min(self.last, last), self.cut or rule is None)

    def joined(self, other: _Part | None) -> _Part:
        if other is None:
            return self
        known = [p.gradient for p in (self, other) if p.gradient is not None]
        total = None if not known else known[0] if len(known) == 1 else known[0] + known[1]
        first, last = min(self.first, other.first), max(self.last, other.last)
        return _Part(total, first, last, self.cut and other.cut)


_Parts = dict[tuple[int, int], _Part]  # by axis and shift


def _way(source: Row, offset: int, part: _Part) -> Way:
    way = Way(source, offset, part.first, part.last)
    if part.gradient is None:
        way.status = CUT if part.cut else None
        return way
    sizes = norms(part.gradient)
    way.norms = np.zeros(len(sizes))
    times = np.array(way.times, dtype=int)
    way.norms[times] = sizes[times + offset]
    return way
