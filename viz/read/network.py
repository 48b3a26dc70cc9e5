"""Reads a graph as steps, gates and states, and the gradient that flows between them.

Nothing here knows a cell.  Scopes "t=…" give the steps, what stands before them in
the scope gives the band (a layer), and named nodes give the quantities.  An
operation belongs to the first named quantity that consumes it; what several
consume belongs to the step itself ("shared").  A quantity that another step reads
is a carried state.  What stands outside all steps is an input of the step that
alone reads it, an output of the step that alone it reads, or the end (the loss).
What is read where other steps read another node is an input too, though the step after
reads it as well.  A step that only makes the states of the next is not a step: they are first states.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from minigrad import GraphError, InputError, Tensor, ancestors, grad_status
from minigrad.audit import CUT as CUT_STATUS
from minigrad.audit import NOT_COMPUTED as UNKNOWN
from minigrad.names import unique

from ..language.catalogue import deferred, tr
from ..language.status import CUT, NOT_COMPUTED, norm
from ..language.text import clean, number

_STEP = re.compile(r"t=(-?\d{1,9})")
SHARED, INPUT, OUTPUT, END, FIRST, PARAMETER = (
    deferred("shared"), deferred("input"), deferred("output"), deferred("end"), deferred("first state"),
    deferred("parameter"),
)  # fmt: skip
QUANTITY = "quantity"
Captions = Sequence[str] | Mapping[int, str]


@dataclass(eq=False)
class Group:
    """Nodes that a picture shows as one thing; `out` is the node whose value it has."""

    kind: str
    band: str
    t: int
    name: str
    nodes: list[Tensor] = field(default_factory=list)  # by rising number
    result: Tensor | None = None  # where it is not the last of the nodes

    @property
    def out(self) -> Tensor:
        return self.result if self.result is not None else self.nodes[-1]

    @property
    def symbols(self) -> str:
        """What it computes, in short: the symbols of its operations in order, each once."""
        return " ".join(dict.fromkeys(n.op.symbol or n.op.name for n in self.nodes if n.op is not None))


@dataclass
class Flow:
    """What flows between two groups: the norm of the gradient, or None and the reason in `status`."""

    source: Group
    target: Group
    norm: float | None
    status: str | None = None
    carrier: Tensor | None = None  # the node that is read


@dataclass
class Network:
    """A graph read as steps; `bands` from the first layer to the last, `times` its steps t in their order."""

    root: Tensor
    nodes: list[Tensor]
    group_of: dict[int, Group]
    bands: list[str]
    times: list[int]
    cells: dict[tuple[str, int], list[Group]]
    carried: dict[str, list[str]]  # by band: names of states in the order of the equations
    memory: dict[str, list[str]]  # those that run on by element-wise operations alone
    first: dict[tuple[str, str], Group]  # the first value of a state, by band and name
    before: dict[tuple[str, int], int]  # the step from which the states come
    inputs: dict[tuple[str, int], list[Group]]
    outputs: dict[int, Group]
    end: Group | None
    statuses: dict[int, str]  # of every node's gradient
    captions: dict[int, str] = field(default_factory=dict)  # what is written beside "t = …"
    data: set[int] = field(default_factory=set)  # numbers of leaves that are inputs, or cut into inputs
    measured: dict[str, object] = field(
        default_factory=dict, repr=False, compare=False
    )  # once, for all pictures

    def find(self, band: str, t: int, name: str) -> Group | None:
        return next((g for g in self.cells.get((band, t), ()) if g.kind == QUANTITY and g.name == name), None)

    @property
    def mirrored(self) -> set[str]:
        """Bands that read the sequence from its end: their states run to the left."""
        return {band for band, t in self.before if self.before[band, t] > t}

    @property
    def end_text(self) -> str:
        """The name of the end and, if it is one number, that number."""
        root = self.end.out if self.end is not None else self.root
        one = not root.is_symbol and root.value.size == 1 and root.dtype.kind in "fiub"
        return f"{root.name or tr('loss')}  {number(root.value.item(), 4) if one else ''}".strip()

    @cached_property
    def readers(self) -> dict[int, list[Tensor]]:
        """By the number of a node: what reads it."""
        found: dict[int, list[Tensor]] = {}
        for n in self.nodes:
            for x in n.inputs:
                found.setdefault(x.number, []).append(n)
        return found

    @cached_property
    def computed(self) -> bool:
        """Whether a recorded backward pass went through."""
        return any(n.contributions for n in self.nodes)


def roots_of(what, steps=None) -> tuple[Tensor, list | None]:
    """The node to draw from, out of a tensor or a list of step records; raises InputError."""
    if isinstance(what, Tensor):
        return what, steps
    if (
        isinstance(what, (list, tuple))
        and what
        and all(hasattr(s, "quantities") and hasattr(s, "t") for s in what)
    ):
        return max((q for s in what for q in s.quantities.values()), key=lambda n: n.number), list(what)
    kind = (
        f"an empty {type(what).__name__}"
        if isinstance(what, (list, tuple)) and not what
        else type(what).__name__
    )
    if hasattr(what, "value_and_grad"):
        raise InputError(
            "cannot draw a compiled function: viz.loops and viz.rewrites draw it; of what it computes give the loss"
        )
    raise InputError(
        f"cannot draw {kind}: give a minigrad.Tensor, such as the loss, or the steps of a run, run.steps"
    )


def step_of(node: Tensor) -> tuple[str, int] | None:
    """Band and step that a node stands in, by its scope."""
    for k in range(len(node.scope) - 1, -1, -1):
        found = _STEP.fullmatch(node.scope[k])
        if found:
            return " / ".join(node.scope[:k]), int(found[1])
    return None


def read(root: Tensor, steps=None, captions: Captions | None = None) -> Network | None:
    """The graph behind `root` as steps, or None when nothing in it stands in a step."""
    records = [q for s in steps or () for q in s.quantities.values()]
    nodes = ancestors(root, *records)
    if any(n.op is not None and n.op.name == "freed" for n in nodes):
        raise GraphError(
            "the graph was freed by backward(free=True), there is nothing left to draw; run it without free"
        )
    place = {n.number: where for n in nodes if n.op is not None and (where := step_of(n))}
    if not place:
        return None
    group_of, cells = _quantities(nodes, place, steps)
    _made_first(cells, group_of, place)
    _outside(nodes, place, group_of, cells, {s.x.number for s in steps or () if hasattr(s, "x")})
    network = _network(root, nodes, group_of, cells)
    network.data = _data(nodes, place, group_of)
    network.captions = captions_of(captions, network.times)
    return network


def captions_of(given: Captions | None, times: list[int]) -> dict[int, str]:
    """The caption of each step, of a text per step or of a dict from steps to texts; raises InputError."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        unknown = [t for t in given if t not in times]
        if unknown:
            raise InputError(
                f"captions: there is no step t = {clean(unknown[0])}; there are t = {times[0]} … {times[-1]}"
            )
        return {t: str(said) for t, said in given.items()}
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(
            f"captions: {clean(repr(given))} is not a list; give one text per step, or a dict from t to text"
        )
    if len(given) != len(times):
        raise InputError(
            f"captions: {len(given)} for {len(times)} steps (t = {times[0]} … {times[-1]}); "
            "give one text per step, or a dict from t to text"
        )
    return {t: str(said) for t, said in zip(times, given, strict=True)}


def _quantities(nodes, place, steps):
    """Groups within the steps: every operation to the first named quantity that consumes it."""
    given = {q.number: name for s in steps or () for name, q in reversed(s.quantities.items())}
    users: dict[int, list[Tensor]] = {}
    for n in nodes:
        for x in n.inputs:
            users.setdefault(x.number, []).append(n)
    group_of: dict[int, Group] = {}
    by_key: dict[tuple, Group] = {}
    for n in reversed(nodes):
        where = place.get(n.number)
        if where is None:
            continue
        name = given.get(n.number) or n.name
        if name:
            key = (*where, QUANTITY, n.number)
        else:
            inside = [group_of[u.number] for u in users.get(n.number, ()) if place.get(u.number) == where]
            if inside and all(g is inside[0] for g in inside):
                group_of[n.number] = inside[0]
                inside[0].nodes.insert(0, n)
                continue
            key, name = (*where, SHARED), ""
        said = clean(name) or "␣" * bool(name)  # a name of blanks is a name
        group = by_key.setdefault(key, Group(key[2], where[0], where[1], said))
        group.nodes.insert(0, n)
        group_of[n.number] = group
    _one_run(by_key.values(), place)
    cells: dict[tuple[str, int], list[Group]] = {}
    taken: dict[tuple[str, int], set[str]] = {}  # names join steps: a second h is another quantity
    for group in sorted(by_key.values(), key=lambda g: g.out.number):
        if group.name:
            group.name = unique(group.name, taken.setdefault((group.band, group.t), set()), " ")
        cells.setdefault((group.band, group.t), []).append(group)
    return group_of, cells


def _one_run(groups: Iterable[Group], place: dict[int, tuple[str, int]]) -> None:
    """Raises GraphError where a step is computed, left, and computed again: two runs in the same scope.

    Where runs have a single step each, they are known by the weights that both read.
    """
    visits: dict[str, tuple[list[int], list[int]]] = {}  # by band: where in the order of nodes a step begins
    for at, (band, t) in sorted(place.items()):
        starts, times = visits.setdefault(band, ([], []))
        if not times or times[-1] != t:
            starts.append(at)
            times.append(t)
    seen: dict[tuple[str, int, str], list[Group]] = {}
    for group in groups:
        if group.kind == QUANTITY:
            seen.setdefault((group.band, group.t, group.name), []).append(group)
    for (band, t, name), same in sorted(seen.items(), key=lambda item: item[1][-1].out.number):
        if len(same) < 2:
            continue
        starts, times = visits[band]
        weights = [{x.number for n in g.nodes for x in n.inputs if x.is_parameter} for g in same]
        again = len({bisect(starts, g.out.number) for g in same}) > 1
        if again or (len(times) == 1 and set.intersection(*weights)):
            where = f" of {clean(band)}" if band else ""
            raise GraphError(
                f"two runs stand in the same steps: {clean(name)} at t = {t}{where} was computed {len(same)} times, so that "
                'no picture can tell them apart; give each run a label of its own, as in cell(xs, label="second"), '
                'or run it within scope("second"); states that go from one run to the next are detached first where '
                "only the last is meant"
            )


def _made_first(cells, group_of, place) -> None:
    """First states that are computed, such as learned ones: what looks like a step but only makes the states of
    the next, without a product and by other operations than the steps."""
    for band in dict.fromkeys(band for band, _ in cells):
        times = [t for b, t in cells if b == band]
        if len(times) < 2:
            continue
        own, later = cells[band, times[0]], cells[band, times[1]]
        made = [g for g in own if g.kind == QUANTITY]
        there = {g.name: [n.op.name for n in g.nodes] for t in times[1:] for g in cells[band, t]}
        numbers = {n.number for g in own for n in g.nodes}
        read = {group_of[x.number] for g in later for n in g.nodes for x in n.inputs if x.number in numbers}
        alike = any([n.op.name for n in g.nodes] == there.get(g.name) for g in made)
        products = any(n.op.kind == "product" for g in own for n in g.nodes)
        if not made or alike or products or not all(g in read and g.name in there for g in made):
            continue
        for g in own:
            if g.kind == SHARED:
                made[0].nodes = sorted([*g.nodes, *made[0].nodes], key=lambda n: n.number)
                group_of.update({n.number: made[0] for n in g.nodes})
        for g in made:
            g.kind = FIRST
        for own_number in numbers:
            del place[own_number]
        del cells[band, times[0]]


def _outside(nodes, place, group_of, cells, given: set[int]) -> None:
    """Groups for what stands in no step: inputs, outputs, parameters and the end.

    given : numbers of what the records of steps call their x.
    """
    readers: dict[int, set] = {}  # outside nodes without a step behind them: the steps that read them
    sources: dict[int, set[int]] = {}  # outside nodes with steps behind them: those steps
    for n in nodes:
        where = place.get(n.number)
        for x in n.inputs:
            if where is not None and x.number not in place:
                readers.setdefault(x.number, set()).add(where)
        if where is None:
            behind: set[int] = set()
            for x in n.inputs:
                behind |= {place[x.number][1]} if x.number in place else sources.get(x.number, set())
                if len(behind) > 2:
                    break
            sources[n.number] = behind
    groups: dict[tuple, Group] = {}
    bands = list(dict.fromkeys(band for band, _ in cells))
    order = {where: k for k, where in enumerate(cells)}
    named = {(g.band, g.name) for groups_ in cells.values() for g in groups_ if g.kind == QUANTITY}
    moving = _moving(cells, place)
    for n in nodes:
        if n.number in place or n.number in group_of:
            continue
        who, behind = readers.get(n.number, set()), sources[n.number]
        start = min(who, key=lambda w: (bands.index(w[0]), order[w]), default=None)
        if behind:
            key = (OUTPUT, "", next(iter(behind)), "output") if len(behind) == 1 else (END, "", 0, "end")
        elif start and (t := _first_of(n, start, who, cells, named)) is not None:
            key = (FIRST, start[0], t, clean(n.name or ""))
        elif start and _is_input(n, who, moving, given):
            key = (INPUT, *start, n.number)
        else:
            key = (PARAMETER, "", 0, n.number)
        name = (_sliced(n).name if key[0] == INPUT else n.name) if isinstance(key[3], int) else key[3]
        group = groups.setdefault(key, Group(*key[:3], clean(name or "")))  # type: ignore[arg-type]
        group.nodes.append(n)
        group_of[n.number] = group


def _first_of(n: Tensor, start: tuple[str, int], who: set, cells, named) -> int | None:
    """The step of a first state: it bears another step's scope, or was handed on from an earlier run."""
    own, (band, t) = step_of(n) if n.op is None else None, start
    state = n.op is None and (band, clean(n.name or "")) in named
    if own is None:  # roles tell it where there are more steps
        return t - 1 if state and [s for b, s in cells if b == band] == [t] else None
    if own[1] == t if not state else (own[1] in {s for _, s in who} and own[1] != t):
        return None
    if not state and own in cells:  # such as the x of another step
        return None
    return own[1] if abs(own[1] - t) == 1 and (band, own[1]) not in cells else t - 1


def _is_input(n: Tensor, who: set, moving: set[int], given: set[int]) -> bool:
    """Whether what these steps read is their input, and not a parameter."""
    times = {t for _, t in who}
    own = step_of(n) if n.op is None else None
    if n.number in given or (own is not None and own[1] in times):
        return True
    if n.role is not None:  # a layer holds it
        return False
    if n.op is None and n.requires_grad:  # a weight may be read by one step alone, where no other step counts
        return n.number in moving or (n.name == "x" and len(times) == 1)
    return len(times) == 1 or n.number in moving


def _moving(cells, place) -> set[int]:
    """Outside nodes in whose place another step reads another one that is alike: x, also where the next step keeps it."""
    at: dict[tuple, set[int]] = {}
    for (band, _), groups in cells.items():
        for role, x in _reads(groups):
            if x.number not in place:
                at.setdefault((band, role, x.name, x.shape), set()).add(x.number)
    return {number for numbers in at.values() if len(numbers) > 1 for number in numbers}


def _sliced(n: Tensor) -> Tensor:
    """What an input was cut out of."""
    x = n
    while x.op is not None and x.op.kind == "structure" and len(x.inputs) == 1:
        x = x.inputs[0]
    return x if x.name else n


def _data(nodes, place, group_of) -> set[int]:
    """Leaves that require a gradient but are not weights: inputs, what is cut into inputs without arithmetic, and what no
    layer holds and a layer's weights multiply, such as the input of a convolution before the steps."""
    held: set[int] = set()  # what is made of the weights of layers alone
    for n in nodes:
        if n.role is not None if n.op is None else all(x.number in held for x in n.inputs):
            held.add(n.number)
    found: dict[int, bool] = {}  # by number, whether all that reads it takes it for data
    for n in reversed(nodes):
        kind = group_of[n.number].kind
        if kind == INPUT:
            found[n.number] = True
        if n.op is None or n.number in place or kind in (OUTPUT, END):
            continue
        cut = n.op.kind == "structure" and n.op.name != "gather" and found.get(n.number, False)
        times_weights = n.op.name == "matmul" and n.inputs[1].number in held
        for k, x in enumerate(n.inputs):
            found[x.number] = (cut or (times_weights and k == 0)) and found.get(x.number, True)
    return {n.number for n in nodes if n.op is None and n.requires_grad and found.get(n.number)} - held


def _network(root, nodes, group_of, cells) -> Network:
    bands = list(dict.fromkeys(band for band, _ in cells))
    times = sorted({t for _, t in cells})
    groups = list(dict.fromkeys(group_of.values()))
    before, carried = _carried(nodes, group_of, cells, bands)
    first = {(g.band, g.name): g for g in groups if g.kind == FIRST}
    _first_by_role(nodes, group_of, cells, bands, before, carried, first)
    mirrored = {band for band, t in before if before[band, t] > t}
    for g in first.values():
        if (g.band, g.t) in cells:  # handed on from a run that had other steps
            g.t = max(times) + 1 if g.band in mirrored else min(t for b, t in cells if b == g.band) - 1
    groups = list(dict.fromkeys(group_of.values()))
    inputs = _inputs(groups, cells)
    outputs = {g.t: g for g in groups if g.kind == OUTPUT}
    _outputs_within(nodes, group_of, cells, carried, outputs)
    end = _losses_apart(nodes, group_of, outputs, next((g for g in groups if g.kind == END), None))
    for g in outputs.values():
        if g.name == OUTPUT:
            g.name = clean(g.out.name or "y")
    memory = _memory(cells, group_of, carried, before)
    statuses = statuses_of(root)
    return Network(
        root, nodes, group_of, bands, times, cells, carried,
        memory, first, before, inputs, outputs, end, statuses,
    )  # fmt: skip


def _inputs(groups: list[Group], cells) -> dict[tuple[str, int], list[Group]]:
    """What each step reads from outside.  What an equation holds is not an input: the 1 of 1 − z, a fixed matrix
    without a name that is the same at every step; nor is the mask of a sequence's length, which has no name."""
    found: dict[tuple[str, int], list[Group]] = {}
    still: dict[tuple, set[int]] = {}
    for g in groups:
        if g.kind == INPUT and (g.name or (g.out.shape != () and g.out.dtype.kind != "b")):
            found.setdefault((g.band, g.t), []).append(g)
            if not g.name and g.out.op is None and not g.out.is_symbol:
                still.setdefault((g.band, g.out.shape, g.out.value.tobytes()), set()).add(g.t)

    def held(g: Group) -> bool:
        if g.name or g.out.op is not None or g.out.is_symbol:
            return False
        times = {t for b, t in cells if b == g.band}
        alone = len(times) == 1 and len(found[g.band, g.t]) == 1
        return not alone and still[g.band, g.out.shape, g.out.value.tobytes()] == times

    kept = {where: [g for g in own if not held(g)] for where, own in found.items()}
    return {where: own for where, own in kept.items() if own}


def _carried(nodes, group_of, cells, bands):
    """Which quantities other steps of their band read, and from which step each step takes its states."""
    before: dict[tuple[str, int], int] = {}
    names: dict[str, dict[str, int]] = {band: {} for band in bands}
    for n in nodes:
        g = group_of[n.number]
        for x in n.inputs:
            s = group_of[x.number]
            if s.kind == QUANTITY and g.kind in (QUANTITY, SHARED) and s.band == g.band and s.t != g.t:
                names[s.band].setdefault(s.name, s.out.number)
                before[g.band, g.t] = s.t
            elif s.kind == FIRST and g.kind in (QUANTITY, SHARED):
                own = next((q for q in cells[g.band, g.t] if q.name == s.name and q.kind == QUANTITY), None)
                if own:
                    names[g.band].setdefault(s.name, own.out.number)
    order = {band: [q.name for q in next(c for (b, _), c in cells.items() if b == band)] for band in bands}
    return before, {
        band: sorted(found, key=lambda s, o=order[band]: o.index(s) if s in o else len(o))
        for band, found in names.items()
    }


def _outputs_within(nodes, group_of, cells, carried, outputs: dict[int, Group]) -> None:
    """A quantity made of a state and read by no step, such as y of an output layer, is an output."""
    inside = {g for groups in cells.values() for g in groups}
    read_inside = {
        (s.band, s.name)
        for n in nodes
        if (g := group_of[n.number]) in inside
        for x in n.inputs
        if (s := group_of[x.number]) is not g
    }
    for (band, t), groups in cells.items():
        for g in list(groups):
            made_of = {group_of[x.number] for n in g.nodes for x in n.inputs} - {g}
            of_state = any(s.name in carried[band] and s.t == t and s.kind == QUANTITY for s in made_of)
            if g.kind != QUANTITY or g.name in carried[band] or (band, g.name) in read_inside or not of_state:
                continue
            groups.remove(g)
            merged = outputs.setdefault(t, g)
            if merged is not g:
                merged.nodes = sorted([*merged.nodes, *g.nodes], key=lambda n: n.number)
                group_of.update({n.number: merged for n in g.nodes})
                merged.name = g.name
            merged.kind, merged.band = OUTPUT, ""


def _losses_apart(nodes, group_of, outputs: dict[int, Group], end: Group | None) -> Group | None:
    """An output y ends with the last node that has a name, reads a weight or is a product; what comes after it
    is its loss and belongs to the end, unless a step reads it."""
    readers: dict[int, list[Tensor]] = {}
    for n in nodes:
        for x in n.inputs:
            readers.setdefault(x.number, []).append(n)
    for t, g in list(outputs.items()):
        made = [
            n
            for n in g.nodes
            if n.ndim and (n.name or any(x.is_parameter for x in n.inputs) or n.op.kind == "product")
        ]
        kept: set[int] = {n.number for n in g.nodes if made and n.number <= made[-1].number}
        for n in reversed(g.nodes):  # what the next step reads, such as a word that was chosen
            to = [group_of[r.number] for r in readers.get(n.number, ())]
            if any(q is not g and q.kind not in (END, OUTPUT) for q in to) or any(
                r.number in kept and n.number > (made[-1].number if made else -1)
                for r in readers.get(n.number, ())
            ):
                kept.add(n.number)
        rest = [n for n in g.nodes if n.number not in kept]
        g.nodes = [n for n in g.nodes if n.number in kept]
        g.result = made[-1] if made else None
        if not g.nodes:
            del outputs[t]
        if rest:
            end = end or Group(END, "", 0, "end")
            end.nodes = sorted([*end.nodes, *rest], key=lambda n: n.number)
            group_of.update({n.number: end for n in rest})
    return end


def _first_by_role(nodes, group_of, cells, bands, before, carried, first) -> None:
    """A first state without scope or name is known by its role: it is read where later steps read one."""
    to: dict[int, list[Group]] = {}
    for n in nodes:
        for x in n.inputs:
            to.setdefault(x.number, []).append(group_of[n.number])
    for band in bands:
        times = [t for b, t in cells if b == band]
        starts = [t for t in times if (band, t) not in before]
        later = next((t for t in times if (band, t) in before), None)
        if later is None or not starts:
            continue
        roles = {}
        for role, x in _reads(cells[band, later]):
            s = group_of[x.number]
            if s.kind == QUANTITY and s.t != later and s.band == band:
                roles[role] = s.name
        for role, x in _reads(cells[band, starts[0]]):
            if role not in roles or (band, roles[role]) in first:
                continue
            own = group_of[x.number]
            made = own.kind in (OUTPUT, END) and all((q.band, q.t) == (band, starts[0]) for q in to[x.number])
            if made or own.kind in (INPUT, PARAMETER):
                group = Group(FIRST, band, starts[0] - 1, roles[role], [x])
                first[band, roles[role]] = group_of[x.number] = group
                if made:
                    own.nodes = [n for n in own.nodes if n is not x]
    _bridges(nodes, group_of)


def _bridges(nodes, group_of) -> None:
    """What a first state is made of by way of another run's states, such as a layer between encoder and decoder, belongs
    to that first state where nothing else reads it."""
    to: dict[int, set[int]] = {}  # by number: the groups that read a node, by id
    firsts = {id(g): g for g in group_of.values() if g.kind == FIRST}
    for n in reversed(nodes):
        own, readers = group_of[n.number], to.get(n.number, set())
        if own.kind in (OUTPUT, END) and len(readers) == 1 and (group := firsts.get(*readers)):
            own.nodes = [x for x in own.nodes if x is not n]
            group.nodes.insert(0, n)
            group_of[n.number] = own = group
        for x in n.inputs:
            to.setdefault(x.number, set()).add(id(own))


def _reads(cell: Iterable[Group]):
    members = sorted((n for g in cell for n in g.nodes), key=lambda n: n.number)
    for k, n in enumerate(members):
        for slot, x in enumerate(n.inputs):
            yield (k, slot), x


def _memory(cells, group_of, carried, before) -> dict[str, list[str]]:
    """States that reach their next value through element-wise operations alone: the memory lines."""
    result: dict[str, list[str]] = {}
    for band, names in carried.items():
        later = [c for (b, t), c in cells.items() if b == band and (b, t) in before] or [
            c for (b, t), c in cells.items() if b == band
        ]
        kept, read_by_others = [], set()
        for name in names:
            own = next((g for g in later[0] if g.kind == QUANTITY and g.name == name), None)
            if own is None:
                continue
            clear: set[int] = set()  # nodes to which an element-wise way leads from the state before
            for g in later[0]:
                for n in g.nodes:
                    for x in n.inputs:
                        s = group_of[x.number]
                        from_before = s.name == name and (
                            s.kind == FIRST or (s.kind == QUANTITY and s.t != own.t and s.band == band)
                        )
                        if from_before and g is not own:
                            read_by_others.add(name)
                        if g is own and n.op.kind == "elementwise" and (from_before or x.number in clear):
                            clear.add(n.number)
            if own.out.number in clear:
                kept.append(name)
        if (
            len(kept) > 1
        ):  # a masked state runs on element by element too: the one that feeds the gates is not a memory line
            kept = [name for name in kept if name not in read_by_others] or kept
        result[band] = kept
    return result


# Gradients.


def flows(network: Network, targets: Iterable[Group]) -> list[Flow]:
    """The gradient along all edges into `targets` from other groups, summed where they read the same node."""
    found: dict[tuple[int, int], tuple[Group, Group, dict[int, list]]] = {}
    for target in targets:
        for n in target.nodes:
            for k, x in enumerate(n.inputs):
                source, use = network.group_of[x.number], (n, k, x)
                if source is not target and x.name is None and x.op is not None and x.op.name == "detach":
                    use = (
                        x,
                        0,
                        x.inputs[0],
                    )  # it stands with whatever read it first; what it cuts is the source
                    source = network.group_of[x.inputs[0].number]
                if source is not target:
                    entry = found.setdefault((id(source), id(target)), (source, target, {}))
                    entry[2].setdefault(use[2].number, []).append(use)
    return [_flow(network, *entry) for entry in found.values()]


def bridges(network: Network) -> list[Flow]:
    """Those from the states of one run to the first states of another that are made of them."""
    return [f for f in flows(network, network.first.values()) if f.source.kind == QUANTITY]


def _flow(network: Network, source: Group, target: Group, edges: dict[int, list]) -> Flow:
    squares, status, known = [], None, False
    # The cut is where the gradient stops, not all that lies behind it.
    stops = not network.computed or _has_gradient(network, target)
    for uses in edges.values():
        parts = [edge_gradient(network.statuses, *use) for use in uses]
        arrays = [p for p, _ in parts if p is not None]
        if arrays:
            known = True
            squares.append(norm(sum(np.asarray(a, dtype=np.float64) for a in arrays)))
        elif parts[0][1] == CUT and stops:
            status = CUT
    carrier = next(iter(edges.values()))[0][2]
    if known:
        return Flow(source, target, norm(np.array(squares)), None, carrier)
    return Flow(source, target, None, status or NOT_COMPUTED, carrier)


def _has_gradient(network: Network, group: Group) -> bool:
    """Whether some gradient reached a group."""
    return gradient_of(network.statuses, group.out) is not None or any(
        part is not None for n in group.nodes for part in n.contributions or ()
    )


def edge_gradient(
    statuses: dict[int, str], node: Tensor, k: int, x: Tensor
) -> tuple[np.ndarray | None, str | None]:
    """What flowed from `node` to its input k, or why nothing did."""
    part = node.contributions[k] if node.contributions else None
    if part is not None:
        return part, None
    no_rule = node.op is not None and node.op.rule(k) is None
    if statuses.get(node.number) == CUT_STATUS or (no_rule and x.dtype.kind == "f"):
        return None, CUT
    return None, NOT_COMPUTED


def statuses_of(root: Tensor) -> dict[int, str]:
    """The status of every node's gradient, as far as this graph's own backward pass left it.

    Another graph that read the same data may have left a gradient on them: unless a
    reader here recorded what it sent, that is not the gradient of this picture.
    """
    statuses = grad_status(root)
    nodes = ancestors(root)
    known = {x.number for n in nodes if n.contributions for x in n.inputs} | {root.number}
    for n in nodes:
        if (
            n.number not in known
            and not (n.op is None and n.requires_grad)
            and statuses[n.number] != CUT_STATUS
        ):
            statuses[n.number] = UNKNOWN
    return statuses


def gradient_of(statuses: dict[int, str], node: Tensor) -> np.ndarray | None:
    """A node's gradient, unless it is another graph's."""
    return None if statuses.get(node.number) == UNKNOWN else node.grad


def gradient_status(statuses: dict[int, str], node: Tensor) -> tuple[float | None, str | None]:
    """Norm of a node's gradient, or None and the reason."""
    gradient = gradient_of(statuses, node)
    if gradient is not None:
        return norm(gradient), None
    return None, CUT if statuses.get(node.number) == CUT_STATUS else NOT_COMPUTED


def parameter_flows(network: Network, group: Group) -> list[Flow]:
    """What one group at one step sends to each parameter: ∂L/∂W of this step alone."""
    return [f for f in flows(network, [group]) if f.source.kind == PARAMETER and f.source.out.requires_grad]


def joined(network: Network, g: Group) -> str:
    """[h, x] for what joins h and x, else the symbols of its operations."""
    if g.out.op is not None and g.out.op.variadic:
        names = []
        for x in g.out.inputs:
            while network.group_of[x.number] is g and x.inputs:
                x = x.inputs[0]
            names.append(network.group_of[x.number].name or "x")
        if len(names) <= 3:
            return f"[{', '.join(names)}]"
    return g.symbols or SHARED
