"""Reads a graph as steps, gates and states, and the gradient that flows between them.

Nothing here knows a cell.  Scopes "t=…" give the steps, what stands before them in
the scope gives the band (a layer), and named nodes give the quantities.  An
operation belongs to the first named quantity that consumes it; what several
consume belongs to the step itself ("shared").  A quantity that another step reads
is a carried state.  What stands outside all steps is an input of the step that
alone reads it, an output of the step that alone it reads, or the end (the loss).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from minigrad import GraphError, InputError, Tensor, ancestors, grad_states
from minigrad.audit import CUT as CUT_STATE
from minigrad.audit import NOT_COMPUTED as UNKNOWN
from minigrad.names import unique

from ..drawing.style import CUT, NOT_COMPUTED, clean, norm, number

_STEP = re.compile(r"t=(-?\d{1,9})")
SHARED, INPUT, OUTPUT, END, FIRST, PARAMETER = "shared", "input", "output", "end", "first state", "parameter"
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

    @property
    def out(self) -> Tensor:
        return self.nodes[-1]

    @property
    def symbols(self) -> str:
        """What it computes, in short: the symbols of its operations in order, each once."""
        return " ".join(dict.fromkeys(n.op.symbol or n.op.name for n in self.nodes if n.op is not None))


@dataclass
class Flow:
    """What flows between two groups: the norm of the gradient, or None and the reason in `state`."""

    source: Group
    target: Group
    norm: float | None
    state: str | None = None
    carrier: Tensor | None = None  # the node that is read


@dataclass
class Network:
    """A graph read as steps; `bands` from the first layer to the last, `steps` in the order of time."""

    root: Tensor
    nodes: list[Tensor]
    group_of: dict[int, Group]
    bands: list[str]
    steps: list[int]
    cells: dict[tuple[str, int], list[Group]]
    carried: dict[str, list[str]]  # by band: names of states in the order of the equations
    memory: dict[str, list[str]]  # those that run on by element-wise operations alone
    first: dict[tuple[str, str], Group]  # the first value of a state, by band and name
    before: dict[tuple[str, int], int]  # the step from which the states come
    inputs: dict[tuple[str, int], list[Group]]
    outputs: dict[int, Group]
    end: Group | None
    states: dict[int, str]  # of every node's gradient
    captions: dict[int, str] = field(default_factory=dict)  # what is written beside "t = …"

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
        return f"{root.name or 'loss'}  {number(root.value.item(), 4) if one else ''}".strip()

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
    raise InputError(
        f"cannot draw {kind}: give a minigrad.Tensor, such as the loss, or the steps that unroll returned"
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
    _outside(nodes, place, group_of, cells)
    network = _network(root, nodes, group_of, cells)
    network.captions = captions_of(captions, network.steps)
    return network


def captions_of(given: Captions | None, steps: list[int]) -> dict[int, str]:
    """The caption of each step, of a text per step or of a dict from steps to texts; raises InputError."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        unknown = [t for t in given if t not in steps]
        if unknown:
            raise InputError(
                f"captions: there is no step t = {clean(unknown[0])}; there are t = {steps[0]} … {steps[-1]}"
            )
        return {t: str(said) for t, said in given.items()}
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(
            f"captions: {clean(repr(given))} is no list; give one text per step, or a dict from t to text"
        )
    if len(given) != len(steps):
        raise InputError(
            f"captions: {len(given)} for {len(steps)} steps (t = {steps[0]} … {steps[-1]}); "
            "give one text per step, or a dict from t to text"
        )
    return {t: str(said) for t, said in zip(steps, given, strict=True)}


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
    cells: dict[tuple[str, int], list[Group]] = {}
    taken: dict[tuple[str, int], set[str]] = {}  # names join steps: a second h is another quantity
    for group in sorted(by_key.values(), key=lambda g: g.out.number):
        if group.name:
            group.name = unique(group.name, taken.setdefault((group.band, group.t), set()), " ")
        cells.setdefault((group.band, group.t), []).append(group)
    return group_of, cells


def _outside(nodes, place, group_of, cells) -> None:
    """Groups for what stands in no step: inputs, outputs, parameters and the end."""
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
    for n in nodes:
        if n.number in place:
            continue
        who, behind = readers.get(n.number, set()), sources[n.number]
        if behind:
            key = (OUTPUT, "", next(iter(behind)), "output") if len(behind) == 1 else (END, "", 0, "end")
        elif n.op is None and (own := step_of(n)) and own[1] not in {t for _, t in who}:
            key = (FIRST, *own, clean(n.name or ""))
        elif len({t for _, t in who}) == 1 and not (n.op is None and n.requires_grad):
            key = (INPUT, *min(who, key=lambda w: bands.index(w[0])), n.number)
        else:
            key = (PARAMETER, "", 0, n.number)
        name = clean(n.name or "") if isinstance(key[3], int) else key[3]
        group = groups.setdefault(key, Group(*key[:3], name))  # type: ignore[arg-type]
        group.nodes.append(n)
        group_of[n.number] = group


def _network(root, nodes, group_of, cells) -> Network:
    bands = list(dict.fromkeys(band for band, _ in cells))
    steps = sorted({t for _, t in cells})
    groups = list(dict.fromkeys(group_of.values()))
    before, carried = _carried(nodes, group_of, cells, bands)
    first = {(g.band, g.name): g for g in groups if g.kind == FIRST}
    _first_by_role(nodes, group_of, cells, bands, before, carried, first)
    groups = list(dict.fromkeys(group_of.values()))
    inputs: dict[tuple[str, int], list[Group]] = {}
    for g in groups:
        # A constant that an equation holds, such as the 1 of 1 − z, is no input, nor is a mask.
        if g.kind == INPUT and g.out.shape != () and g.out.dtype.kind != "b":
            inputs.setdefault((g.band, g.t), []).append(g)
    outputs = {g.t: g for g in groups if g.kind == OUTPUT}
    _outputs_within(nodes, group_of, cells, carried, outputs)
    for g in outputs.values():
        if g.name == OUTPUT:
            g.name = next((clean(n.name) for n in reversed(g.nodes) if n.name), OUTPUT)
    end = next((g for g in groups if g.kind == END), None)
    memory = _memory(cells, group_of, carried, before)
    states = states_of(root)
    return Network(
        root, nodes, group_of, bands, steps, cells, carried,
        memory, first, before, inputs, outputs, end, states,
    )  # fmt: skip


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


def _first_by_role(nodes, group_of, cells, bands, before, carried, first) -> None:
    """A first state without scope or name is known by its role: it is read where later steps read one."""
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
            if (
                role in roles
                and (band, roles[role]) not in first
                and group_of[x.number].kind in (INPUT, PARAMETER)
            ):
                group = Group(FIRST, band, starts[0] - 1, roles[role], [x])
                first[band, roles[role]] = group_of[x.number] = group


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
        ):  # a masked state runs on element by element too: the one that feeds the gates is no memory line
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
                source = network.group_of[x.number]
                if source is not target:
                    entry = found.setdefault((id(source), id(target)), (source, target, {}))
                    entry[2].setdefault(x.number, []).append((n, k, x))
    return [_flow(network, *entry) for entry in found.values()]


def _flow(network: Network, source: Group, target: Group, edges: dict[int, list]) -> Flow:
    squares, state, known = [], None, False
    # The cut is where the gradient stops, not all that lies behind it.
    stops = not network.computed or _has_gradient(network, target)
    for uses in edges.values():
        parts = [edge_gradient(network.states, *use) for use in uses]
        arrays = [p for p, _ in parts if p is not None]
        if arrays:
            known = True
            squares.append(norm(sum(np.asarray(a, dtype=np.float64) for a in arrays)))
        elif parts[0][1] == CUT and stops:
            state = CUT
    carrier = next(iter(edges.values()))[0][2]
    if known:
        return Flow(source, target, norm(np.array(squares)), None, carrier)
    return Flow(source, target, None, state or NOT_COMPUTED, carrier)


def _has_gradient(network: Network, group: Group) -> bool:
    """Whether some gradient reached a group."""
    return gradient_of(network.states, group.out) is not None or any(
        part is not None for n in group.nodes for part in n.contributions or ()
    )


def edge_gradient(
    states: dict[int, str], node: Tensor, k: int, x: Tensor
) -> tuple[np.ndarray | None, str | None]:
    """What flowed from `node` to its input k, or why nothing did."""
    part = node.contributions[k] if node.contributions else None
    if part is not None:
        return part, None
    no_rule = node.op is not None and (
        node.op.vjp is None or (not node.op.variadic and node.op.vjp[k] is None)
    )
    if states.get(node.number) == CUT_STATE or (no_rule and x.dtype.kind == "f"):
        return None, CUT
    return None, NOT_COMPUTED


def states_of(root: Tensor) -> dict[int, str]:
    """The state of every node's gradient, as far as this graph's own backward pass left it.

    Another graph that read the same data may have left a gradient on them: unless a
    reader here recorded what it sent, that is not the gradient of this picture.
    """
    states = grad_states(root)
    nodes = ancestors(root)
    known = {x.number for n in nodes if n.contributions for x in n.inputs} | {root.number}
    for n in nodes:
        if n.number not in known and not (n.op is None and n.requires_grad) and states[n.number] != CUT_STATE:
            states[n.number] = UNKNOWN
    return states


def gradient_of(states: dict[int, str], node: Tensor) -> np.ndarray | None:
    """A node's gradient, unless it is another graph's."""
    return None if states.get(node.number) == UNKNOWN else node.grad


def gradient_state(states: dict[int, str], node: Tensor) -> tuple[float | None, str | None]:
    """Norm of a node's gradient, or None and the reason."""
    gradient = gradient_of(states, node)
    if gradient is not None:
        return norm(gradient), None
    return None, CUT if states.get(node.number) == CUT_STATE else NOT_COMPUTED


def parameter_flows(network: Network, group: Group) -> list[Flow]:
    """What one group at one step sends to each parameter: ∂L/∂W of this step alone."""
    return [f for f in flows(network, [group]) if f.source.kind == PARAMETER and f.source.out.requires_grad]
