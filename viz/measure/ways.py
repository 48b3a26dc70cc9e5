"""Splits the gradient of a state by the ways on which it came: its own step's loss, the gates of the next step.

A way is known by the first named quantity that reads the state.  The parts are vectors
that add up to the state's gradient, as reverse mode is linear.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minigrad import InputError, Tensor
from minigrad.items import itemised, pulled

from ..language.catalogue import deferred, tr
from ..language.status import norm
from ..language.text import Keys, key, pretty
from ..read.network import (
    CUT,
    END,
    FIRST,
    OUTPUT,
    QUANTITY,
    SHARED,
    Group,
    Network,
    edge_gradient,
    gradient_of,
    gradient_status,
    step_of,
)

FROM_LOSS, STRAIGHT, BY_HOOK = deferred("from the loss"), deferred("straight along"), deferred("by a hook")
OTHER_LAYER, OTHERS, ITSELF = deferred("another layer"), deferred("others"), deferred("the step itself")
SAME_STEP = ", same step"


def carried(who: str, network: Network | None, of: str | None = None) -> list[tuple[str, str]]:
    """Band and name of every carried state (or those called `of`: "c", "layer 1 / c"), memory lines first.

    Raises InputError where there is none.
    """
    every = [
        (band, name)
        for band in (network.bands if network is not None else ())
        for name in sorted(network.carried[band], key=lambda s, b=band: s not in network.memory[b])  # type: ignore[union-attr]
    ]
    found = [(band, name) for band, name in every if of in (None, name, key(band, name))]
    if not every:
        raise InputError(
            f"{who}: no state is carried from step to step in this graph; give the loss of an unrolled cell"
        )
    if not found:
        known = ", ".join(dict.fromkeys(key(*which) for which in every))
        raise InputError(f"{who}: of = {of!r} is not a carried state; there are {known}")
    return found


@dataclass
class State:
    """One state over time: its gradient at each step and what it is made of."""

    band: str
    name: str
    times: list[int]
    total: dict[int, float | None] = field(default_factory=dict)
    why: dict[int, str | None] = field(default_factory=dict)
    parts: dict[str, dict[int, float]] = field(default_factory=dict)  # norms, by way and step
    next_step: dict[int, float] = field(default_factory=dict)  # what comes from the next step by all ways
    cut: list[int] = field(default_factory=list)  # steps to which detach lets nothing come back
    vectors: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)  # the parts, by step and way
    whole: dict[int, np.ndarray] = field(default_factory=dict)  # the gradient itself
    gates: dict[str, str] = field(
        default_factory=dict
    )  # by way: the quantity of the next step that it passes
    after: dict[int, int] = field(default_factory=dict)  # the step that is computed next
    order: list[str] = field(default_factory=list)  # the quantities of a step, as the equations have them

    @property
    def ways(self) -> list[str]:
        """From the loss, from the same step, straight along, through the gates in their order."""

        def place(way: str) -> tuple:
            gate = self.gates.get(way)
            return (
                way != FROM_LOSS, SAME_STEP not in way, way != STRAIGHT, gate is not None,
                self.order.index(gate) if gate in self.order else 0,
            )  # fmt: skip

        return sorted(self.parts, key=place)


@dataclass(frozen=True)
class Where:
    """Which nodes stand in which step, and which between the steps and the loss, by number."""

    place: dict[int, int]  # operations within the steps: their step
    first: dict[int, int]  # first states: the step before the first
    outside: set[int]  # operations of outputs and loss, and between layers

    @property
    def times(self) -> dict[int, int]:
        return self.place | self.first

    def entrances(self, y: Tensor) -> list[tuple[Tensor, int, np.ndarray]]:
        """Where the gradient of `y` enters the steps: the node, its step, and what enters there."""
        seeds = [(y, 0, np.ones(y.shape))]
        times = self.times
        found = itemised(seeds, self.outside, times)
        return [(n, times[n.number], batch[0]) for n, _, batch in found if n.number in times]


def where(network: Network) -> Where:
    """Reads the places of all nodes off their scopes."""
    place = {n.number: found[1] for n in network.nodes if n.op is not None and (found := step_of(n))}
    outside: set[int] = set()
    for n in network.nodes:
        if n.op is None or n.number in place:
            continue
        kind = network.group_of[n.number].kind
        # From one run to the first state of the next, such as from an encoder to a decoder.
        between = kind == FIRST and any(x.number in place or x.number in outside for x in n.inputs)
        if between or kind in (OUTPUT, END):
            outside.add(n.number)
    return Where(place, {g.out.number: g.t for g in network.first.values()}, outside)


def split(network: Network, band: str, name: str, times: list[int], far: bool = False) -> State:
    """The gradient of one state at `times`, in parts.

    far : follow what the state's own step makes of it (c is shown in h, and h is read by the next
        step's gates) until another step or the loss is reached.
    """
    state = State(band, name, times)
    state.after = {before: t for (b, t), before in network.before.items() if b == band}
    first = network.first.get((band, name))
    if first is not None:
        state.after.setdefault(first.t, next(t for b, t in network.cells if b == band))
    cell = next(groups for (b, _), groups in network.cells.items() if b == band)
    state.order = [g.name for g in cell]
    readers: dict[int, list[tuple[Tensor, int]]] = {}
    for n in network.nodes:
        for k, x in enumerate(n.inputs):
            readers.setdefault(x.number, []).append((n, k))
    ahead = _bands_ahead(network)
    for t in times:
        g = network.find(band, t, name) or (first if first is not None and first.t == t else None)
        if g is not None:
            _split_at(network, state, g.out, t, far, readers, ahead)
    return state


def _split_at(network: Network, state: State, node: Tensor, t: int, far: bool, readers, ahead) -> None:
    """One step of `split`: what each reader sent back, carried to `node` way by way."""
    following = state.after.get(t)
    state.total[t], state.why[t] = gradient_status(network.statuses, node)
    region, clear = _region(network, state.band, t, node, following, far)
    labels: dict[str, int] = {}
    seeds = []
    for x in region.values():
        for n, k in readers.get(x.number, ()):
            reader, part = network.group_of[n.number], n.contributions[k] if n.contributions else None
            is_next = (reader.band, reader.t) == (state.band, following) and reader.kind in (QUANTITY, SHARED)
            if part is None and is_next and edge_gradient(network.statuses, n, k, x)[1] == CUT:
                state.cut.append(t)
            if part is None or n.number in region:
                continue
            label = _way(state, reader, n, t, is_next, x.number in clear, ahead)
            if is_next and reader.kind == QUANTITY:
                state.gates.setdefault(label, reader.name)
            seeds.append((x, labels.setdefault(label, len(labels)), part))
    ways, vectors = list(labels), {}
    for reached, items, batch in itemised(seeds, region):
        if reached is node:
            vectors = {ways[k]: np.asarray(part, np.float64) for k, part in zip(items, batch, strict=True)}
    _put(network, state, node, t, vectors, any(x.hooks for x in region.values()))


def _put(network: Network, state: State, node: Tensor, t: int, vectors: dict, hooked: bool) -> None:
    """Write down the parts, and what no reader accounts for: a loss outside the graph at hand, or a hook."""
    gradient = gradient_of(network.statuses, node)
    if gradient is not None:
        with np.errstate(invalid="ignore"):  # ∞ − ∞
            rest = gradient - sum(vectors.values(), np.zeros(node.shape))
        if norm(rest) > 1e-5 * norm(gradient):
            label = BY_HOOK if hooked else FROM_LOSS
            vectors[label] = vectors.get(label, 0) + rest
        from_next = [v for way, v in vectors.items() if way in state.gates]
        state.next_step[t] = norm(sum(from_next, np.zeros(node.shape)))
        state.whole[t] = np.asarray(gradient, np.float64)
    state.vectors[t] = vectors
    for label, part in vectors.items():
        state.parts.setdefault(label, {})[t] = norm(part)


def _region(
    network: Network, band: str, t: int, node: Tensor, following: int | None, far: bool
) -> tuple[dict[int, Tensor], set[int]]:
    """The nodes that hand the state on before a named quantity of another step reads it.

    Also those of them to which a way leads from the state that is element by element all along.
    """
    members = (
        [g for g in network.cells.get((band, following), ()) if g.kind == SHARED]
        if following is not None
        else []
    )
    own = network.cells.get((band, t), []) if far else []
    region, clear = {node.number: node}, {node.number}
    here = {id(g) for g in own}
    for n in sorted((n for g in [*own, *members] for n in g.nodes), key=lambda n: n.number):
        if n.number > node.number and any(x.number in region for x in n.inputs):
            region[n.number] = n
            element = n.op is not None and n.op.kind == "elementwise"
            if (
                element
                and id(network.group_of[n.number]) not in here
                and any(x.number in clear for x in n.inputs)
            ):
                clear.add(n.number)
    return region, clear


def _way(state: State, reader: Group, n: Tensor, t: int, is_next: bool, clear: bool, ahead) -> str:
    """The words for the way that a part came."""
    if n.number in ahead:
        return f"from {ahead[n.number]}"
    if reader.kind in (OUTPUT, END):
        return FROM_LOSS
    if reader.band != state.band:
        return f"from {reader.band or OTHER_LAYER}"
    if is_next:
        element = n.op is not None and n.op.kind == "elementwise"
        straight = reader.name == state.name and element and clear
        return STRAIGHT if straight else f"through {pretty(reader.name) or OTHERS}"
    who = f"from {pretty(reader.name)}" if reader.kind == QUANTITY else f"from {ITSELF}"
    return f"{who}{SAME_STEP}" if reader.t == t else who


def told(way: str) -> str:
    """A way in the language of the picture; the words themselves are names in its `data`."""
    if way in (FROM_LOSS, STRAIGHT, BY_HOOK):
        return tr(way)
    if way.endswith(SAME_STEP):
        return tr("{way}, same step", way=told(way.removesuffix(SAME_STEP)))
    kind, _, what = way.partition(" ")
    return tr("through {what}", what=tr(what)) if kind == "through" else tr("from {source}", source=tr(what))


def _bands_ahead(network: Network) -> dict[int, str]:
    """Nodes outside all steps that hand something to the steps of a layer, by number, and which layer."""
    inside = {n.number for groups in network.cells.values() for g in groups for n in g.nodes}
    found: dict[int, str] = {}
    for n in reversed(network.nodes):
        band = network.group_of[n.number].band if n.number in inside else found.get(n.number)
        for x in n.inputs if band is not None else ():
            if x.number not in inside and network.group_of[x.number].kind in (OUTPUT, END):
                found[x.number] = band or OTHER_LAYER
    return found


def arrays(states: list[State]) -> dict[str, np.ndarray]:
    """By name: "dc" is ∂L/∂c at the steps "t", (steps, N, H), and "dc through f" a part of it; NaN: not known."""
    found: dict[str, np.ndarray] = {"t": np.array(states[0].times if states else [])}
    for s in states:
        shape = next((v.shape for v in s.whole.values()), ())
        unknown, none = np.full(shape, np.nan), np.zeros(shape)
        name = key(s.band, f"d{s.name}")
        found[name] = np.array([s.whole.get(t, unknown) for t in s.times])
        for way in s.ways:
            parts = [s.vectors.get(t, {}).get(way, none) if t in s.whole else unknown for t in s.times]
            plain = f"through {s.gates[way]}" if way.startswith("through ") and way in s.gates else way
            found[f"{name} {plain}"] = np.array(parts)
    return found


# What a gate does with the gradient that reaches it.


def passed_on(network: Network, state: State, way: str, t: int) -> float | None:
    """How much of the gradient that reaches a gate of the next step comes back to the state: a ratio of norms."""
    gate = network.find(state.band, state.after.get(t, t), state.gates[way])
    part = state.parts.get(way, {}).get(t)  # none where a cut lies between
    arrives = gradient_status(network.statuses, gate.out)[0] if gate is not None else None
    if part is None or not arrives or not np.isfinite(arrives):
        return None
    return part / arrives


def slope(network: Network, state: State, way: str, t: int) -> float | None:
    """The mean size of the slope of the gate's own function there; None where it is not a function of one input."""
    gate = network.find(state.band, state.after.get(t, t), state.gates[way])
    op = gate.out.op if gate is not None else None
    if gate is None or op is None or op.kind != "elementwise" or len(gate.out.inputs) != 1 or op.vjp is None:
        return None
    return float(np.abs(pulled(gate.out, 0, np.ones((1, *gate.out.shape), gate.out.dtype))).mean())


def before_steps(network: Network) -> set[int]:
    """Operations that are done to weights before any step, such as the norm of a weight-normed one."""
    places = where(network)
    return {n.number for n in network.nodes if n.op is not None} - places.place.keys() - places.outside


def weight_names(network: Network) -> dict[int, str]:
    """The weights that steps or outputs read, by number; with the layer where there are several."""
    wanted, through = (
        {n.number for n in network.nodes if n.op is None and n.requires_grad} - network.data,
        before_steps(network),
    )
    bands: dict[int, set[str]] = {}
    for n in reversed(network.nodes):
        at = step_of(n) if n.op is not None else None
        own = {at[0]} if at else bands.get(n.number, set()) if n.number in through else {""}
        for x in n.inputs if own else ():
            if x.number in wanted or x.number in through:
                bands.setdefault(x.number, set()).update(own)
    fresh, found = Keys().fresh, {}
    for n in network.nodes:
        if n.number in wanted and n.number in bands:
            band = " and ".join(sorted(bands[n.number] - {""})) if len(network.bands) > 1 else ""
            found[n.number] = fresh(key(band, n.name or "weight"))
    return found
