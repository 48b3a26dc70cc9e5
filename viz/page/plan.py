"""Where boxes, frames and lines of a page stand: laid out once for all steps that are alike.

Steps and gates take the places that the pictures of `draw` give them; operations are laid out by
Graphviz's `dot`.  A plan has no numbers, only the columns in which they stand, so that the page's
script draws any step from it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import graphviz

from minigrad import Tensor

from ..diagram.cards import short
from ..diagram.operations import Edge, Item, frames, is_constant, select, step_name, symbol_of, with_constant
from ..diagram.render import layout
from ..diagram.sequence import _Sequence
from ..diagram.unrolled import Unrolled
from ..language.catalogue import deferred, tr
from ..language.scale import Scale
from ..language.status import CUT, NOT_COMPUTED
from ..language.text import Keys, clean, identifier, pretty, shape_text
from ..measure import words
from ..measure.links import Transport
from ..read.network import (
    END,
    INPUT,
    OUTPUT,
    PARAMETER,
    QUANTITY,
    SHARED,
    Flow,
    Group,
    Network,
    edge_gradient,
    gradient_status,
    joined,
    parameter_flows,
)
from .alike import INSIDE, Kind
from .numbers import Wanted

FEW = 40  # nodes of a graph without steps whose small arrays are written out
WIDEST = 12  # steps beside each other, to lay out one that reads from afar
JOINED = deferred("joined")
STEPS, GATES, OPERATIONS = "steps", "gates", "operations"


class _Line(Unrolled):
    """The gates of all steps in one line."""

    def _wrapped(self, whole):
        return [whole]


@dataclass
class Plan:
    """One kind of steps: what its nodes are, and by level where everything stands."""

    kind: Kind
    network: Network | None
    wanted: Wanted
    nodes: dict[int, list] = field(default_factory=dict)  # by place in Step.nodes
    levels: dict[str, dict] = field(default_factory=dict)
    turns: dict[str, list[tuple]] = field(default_factory=dict)  # by level: the targets of its lines
    layout: int = 0  # with which plans it stands side by side
    shallow: tuple[int, int] = (0, 0)  # columns and cells that are needed without operations

    def __post_init__(self):
        self.place = {n.number: k for k, n in enumerate(self.kind.example.nodes)}

    @property
    def few(self) -> bool:
        return self.network is None and len(self.kind.example.nodes) <= FEW

    def node(self, n: Tensor, name: str) -> int:
        """Note what is said of a node, which may stand outside of the steps as a weight does.

        Name, shape, columns, strip, why it has no gradient, whether it is a gate, kind of numbers.
        """
        k = self.place.get(n.number)
        if k is None:
            k = self.place[n.number] = len(self.kind.example.nodes) + len(self.kind.outside)
            self.kind.outside.append(next(u for u, use in enumerate(self.kind.example.uses) if use[2] is n))
        if k not in self.nodes:
            why = gradient_status(self.kind.statuses, n)[1] or ""
            gate = int(n.op is not None and n.op.name == "sigmoid")
            columns, strip = self.wanted.node(k), self.wanted.strip(k, self.few)
            self.nodes[k] = [name, shape_text(n.shape), columns, strip, why, gate, n.dtype.kind]
        return k

    def turn(self, level: str, what: tuple) -> int:
        own = self.turns.setdefault(level, [])
        if what not in own:
            own.append(what)
        return own.index(what)


def title_of(g: Group) -> str:
    """What a group is called in words."""
    name = pretty(g.name) if g.name else tr({SHARED: JOINED}.get(g.kind, g.kind))
    return f"{clean(g.band)} {name}".strip()


def keys_of(network: Network, t: int) -> dict[str, Group]:
    """Everything of a step that has a box of its own, by the id of that box in the pictures."""
    fresh, found = Keys().fresh, {}
    if t in network.outputs:
        found[fresh(f"t={t} output")] = network.outputs[t]
    for band in network.bands:
        own = [(g.name or SHARED, g) for g in network.cells.get((band, t), ())]
        own += [(g.name or "x", g) for g in network.inputs.get((band, t), ())]
        for name, g in own:
            found[fresh(f"{band} t={t} {name}".strip())] = g
        if any(b == band for b, _ in network.first) and next(s for b, s in network.cells if b == band) == t:
            for (b, name), g in network.first.items():
                if b == band:
                    found |= {
                        identifier(f"{band} t={s} {name}".strip()): g
                        for s in dict.fromkeys((0, g.t))
                        if s != t
                    }
    return found


# Steps and gates.


def lay_steps(plans: Sequence[Plan], network: Network, transport: Sequence[Transport], scale: Scale) -> dict:
    """Fill the plans' levels of steps and gates; returns what both levels have in common over all steps."""
    found = {}
    for level, make in ((STEPS, _Sequence), (GATES, _Line)):
        shown = sorted({t for p in plans for t in _around(p, network)})
        view = make(_only(network, shown), shown, "", scale)
        view.draw()
        places = {key: _rectangle(key, a) for nodes in view.canvas.nodes.values() for key, a in nodes}
        panels = {key: box for key, box, *_ in view.canvas.panels}
        left = {c.t: c.left for c in view.columns if c.t is not None}
        near = [left[b] - left[a] for a, b in itertools.pairwise(shown) if _following(network, a, b)]
        width = next(c.width for c in view.columns if c.t is not None)
        pitch = near[0] if near else width + 40
        for p in plans:
            t = p.kind.example.t
            assert t is not None
            p.levels[level] = _lay_step(p, level, network, t, view, places, panels, left[t], transport)
        end = places.get("loss")
        lanes = [[round(b.top, 1), b.height] for k, b in panels.items() if "memory line" in k]
        found[level] = {
            "pitch": round(pitch, 1), "width": round(width, 1), "lanes": lanes,
            "end": [round(end[1], 1), round(end[3], 1)] if end is not None else None,
        }  # fmt: skip
    return found


def _only(network: Network, shown: list[int]) -> Network:
    """The network of some of its steps, so that no folded ones are laid out between them."""
    kept = set(shown)
    return replace(
        network,
        times=shown,
        cells={where: own for where, own in network.cells.items() if where[1] in kept},
        before={where: t for where, t in network.before.items() if where[1] in kept and t in kept},
        outputs={t: g for t, g in network.outputs.items() if t in kept},
    )


def _following(network: Network, a: int, b: int) -> bool:
    return network.times.index(b) == network.times.index(a) + 1


def _around(p: Plan, network: Network) -> list[int]:
    """The steps between those that a step reads and those that read it."""
    t, order = p.kind.example.t, {t: k for k, t in enumerate(network.times)}
    assert t is not None, "the plan of a graph without steps has nothing around it"
    at = {order[t]}
    for n, _, x in p.kind.example.uses:
        at |= {order[g.t] for g in (network.group_of[n.number], network.group_of[x.number])
               if g.kind in INSIDE and g.t in order}  # fmt: skip
    here = order[t]
    return network.times[max(min(at), here - WIDEST) : min(max(at), here + WIDEST) + 1]


def _rectangle(key: str, attributes: Mapping) -> tuple[float, float, float, float]:
    (x, y), (w, h) = attributes["pos"], (72 * float(attributes[a]) for a in ("width", "height"))
    return x - w / 2, y - h / 2, w, h


def _lay_step(p: Plan, level, network, t, view, places, panels, left, transport) -> dict:
    boxes, frame_list, lines = [], [], []
    for band in network.bands:
        key = identifier(f"{band} t={t}".strip())
        box = panels.get(key)
        at = (box.left, box.top, box.width, box.height) if box is not None else places.get(key)
        if at is not None:
            frame_list.append([clean(band), *_near(at, left)])
    for key, g in keys_of(network, t).items():
        if key in places:
            boxes.append(_card(p, level, network, g, t, _near(places[key], left)))
    for route in view.routes:
        if _owner(route.what) == t:
            lines.append(_line(p, level, network, route, t, left, transport))
    lines = [line for line in lines if line]
    return {"frames": frame_list, "boxes": boxes, "lines": lines, "turns": len(p.turns.get(level, ()))}


def _near(at: Sequence[float], left: float) -> list[float]:
    return [round(v, 1) for v in (at[0] - left, *at[1:])]


def _owner(f: Flow) -> int | None:
    """The step with which a line is drawn: where it ends, or of the end of the graph where it starts."""
    return f.source.t if f.target.kind == END else f.target.t


def _card(p: Plan, level: str, network: Network, g: Group, t: int, at: list[float]) -> dict:
    """A box: its place, node, words in it, and the step that it is named after, counted from its own."""
    k = p.node(g.out, title_of(g))
    n, extra = g.out, []
    if level == GATES and g.kind in (QUANTITY, SHARED):
        for flow in sorted(parameter_flows(network, g), key=lambda f: -f.source.out.ndim)[:1]:
            column, _ = p.wanted.flow(_uses(p, network, flow.source, g))
            extra = [f"∂{short(flow.source.name or 'W')}", column]
    alone = n.op is not None and n.op.kind == "elementwise" and len(n.inputs) == 1
    name = short(g.name or (joined(network, g) if g.kind == SHARED else "x" if g.kind == INPUT else g.kind))
    return {
        "at": at, "n": k, "name": name, "key": g.name or {SHARED: SHARED, INPUT: "x"}.get(g.kind, g.kind),
        "band": clean(g.band), "dt": g.t - t, "symbol": n.op.symbol if alone and g.kind == QUANTITY and n.op else "",
        "more": extra, "fill": int(g.name in network.carried.get(g.band, ()) and g.kind == QUANTITY),
        "output": int(g.kind == OUTPUT),
    }  # fmt: skip


def _uses(p: Plan, network: Network, source: Group, target: Group) -> list[int]:
    """The reads between two groups, also where the target is a whole step."""
    within = {n.number for n in target.nodes}
    return [
        u
        for u, (n, _, x) in enumerate(p.kind.example.uses)
        if n.number in within and network.group_of[x.number] is source
    ]


def _line(p: Plan, level: str, network: Network, route, t: int, left: float, transport) -> list | None:
    f: Flow = route.what
    uses = _uses(p, network, f.source, f.target)
    if not uses:
        return None
    between = (
        f.target.kind not in (OUTPUT, END) and f.source.t != f.target.t and f.source.band == f.target.band
    )
    arrow = between and f.source.kind not in (INPUT, PARAMETER)
    column, factor = p.wanted.flow(
        uses, f.target.band if arrow and (route.lane or route.leave in ("left", "right")) else None
    )
    status = ""
    if column < 0:
        status = words.on_arrow({one.band: one for one in transport}, f)[0] if arrow else f.status
    turn = -1
    if column >= 0:
        what = (END,) if f.target.kind == END else (f.target.kind == OUTPUT, p.place[f.target.out.number])
        turn = p.turn(level, what)
    points = [round(v, 1) for x, y in route.points for v in (x - left, y)]
    return [
        points,
        column,
        factor,
        status or NOT_COMPUTED,
        turn,
        *_said_end(f.source, t),
        *_said_end(f.target, t),
        0,
    ]


def _said_end(g: Group, t: int) -> list:
    """A name and the step after it, counted from this one."""
    kind = {SHARED: JOINED, "step": "", "hidden": ""}.get(g.kind, g.kind)
    name = g.name or (tr(kind) if kind else "")
    if g.kind == END:
        return [clean(g.out.name or tr("loss")), None]
    return [" ".join(x for x in (clean(g.band), pretty(name)) if x), g.t - t]


# Operations.


def lay_operations(p: Plan, nodes: Sequence[Tensor], root: Tensor, time_limit: float) -> None:
    """Fill the plan's level of operations."""
    items, edges = _items(p) if p.network is not None else select(root, nodes, None, [], 400)
    use = {(n.number, k): u for u, (n, k, _) in enumerate(p.kind.example.uses)}
    drawn = {item.key: _operation(p, item) for item in items}
    graph = graphviz.Digraph("minigrad")
    graph.attr("graph", rankdir="LR", nodesep="0.16", ranksep="0.42")
    graph.attr("node", shape="box", fixedsize="true", label="")
    graph.attr("edge", arrowsize="0.7")

    def write(into, item: Item) -> None:
        _, _, w, h = drawn[item.key]["at"]
        into.node(item.key, width=f"{w / 72:.3f}", height=f"{h / 72:.3f}")

    frames(graph, items, None, write)
    for e in edges:
        graph.edge(e.source, e.target)
    found = json.loads(layout(graph.source, "dot", time_limit))
    _, _, width, height = map(float, found["bb"].split(","))
    names, frame_list = {}, []
    for thing in found.get("objects", ()):
        names[thing["_gvid"]] = thing["name"]
        if "bb" in thing:
            x0, y0, x1, y1 = map(float, thing["bb"].split(","))
            frame_list.append(
                [thing["name"], round(x0, 1), round(height - y1, 1), round(x1 - x0, 1), round(y1 - y0, 1)]
            )
        elif thing["name"] in drawn:
            (x, y), at = map(float, thing["pos"].split(",")), drawn[thing["name"]]["at"]
            at[:2] = [round(x - at[2] / 2, 1), round(height - y - at[3] / 2, 1)]
    spelled = {_cluster(i.frame[:k]): i.frame[:k] for i in items for k in range(1, len(i.frame) + 1)}
    frame_list = [
        ["" if len(spelled[f[0]]) == 1 else short(spelled[f[0]][1]), *f[1:5], len(spelled[f[0]])]
        for f in frame_list if f[0] in spelled
    ]  # fmt: skip
    lines = []
    by_ends = {(e.source, e.target): e for e in edges}
    for e in found.get("edges", ()):
        edge = by_ends[names[e["tail"]], names[e["head"]]]
        uses = [use[n.number, k] for n, k, _ in edge.parts]
        column, _ = p.wanted.flow(uses)
        status = "" if column >= 0 else _why(p, edge)
        ends = [drawn[k]["name"] or drawn[k]["symbol"] for k in (edge.source, edge.target)]
        lines.append([_spline(e["pos"], height), column, -1, status, -1, ends[0], None, ends[1], None, 1])
    p.levels[OPERATIONS] = {
        "frames": sorted(frame_list, key=lambda f: f[5]), "boxes": list(drawn.values()), "lines": lines,
        "size": [round(width, 1), round(height, 1)],
    }  # fmt: skip


def _cluster(frame: Sequence[str]) -> str:
    return " ".join(["cluster", *map(identifier, frame)])


def _why(p: Plan, edge: Edge) -> str:
    reasons = [edge_gradient(p.kind.statuses, *part)[1] for part in edge.parts]
    return CUT if CUT in reasons else NOT_COMPUTED


def _spline(pos: str, height: float) -> list[float]:
    """Its end, then the points of a Bézier curve."""
    parts = pos.split(" ")
    if not parts[0].startswith("e,"):
        parts.insert(0, "e," + parts[-1])
    turned = [tuple(map(float, part.removeprefix("e,").split(","))) for part in parts]
    return [round(v, 1) for x, y in turned for v in (x, height - y)]


def _items(p: Plan) -> tuple[list[Item], list[Edge]]:
    """What is drawn of a step: its operations and data, its parameters, and a box for what lies before and after."""
    network, t, fresh = p.network, p.kind.example.t, Keys().fresh
    assert network is not None and t is not None
    own = {n.number for n in p.kind.example.nodes}
    items: dict[object, Item] = {}
    edges: dict[tuple[str, str], Edge] = {}

    def item(n: Tensor, other: Tensor) -> Item:
        g = network.group_of[n.number]
        if n.number in own:
            which, frame, said = n.number, _frame(network, g, t), ""
        elif g.kind == PARAMETER:
            reader = network.group_of[other.number]
            which, frame, said = (n.number, reader.band), _frame(network, reader, t)[:1], ""
        else:
            said = END if g.kind == END else "after" if g.t > t else "before"
            which, frame = said, ()
        if which not in items:
            name = said or n.name or (n.op.name if n.op else "constant")
            items[which] = Item(fresh(" ".join([*frame[:1], name])), [n], frame, said)
        return items[which]

    for n, k, x in p.kind.example.uses:
        target = item(n, x)
        if is_constant(x):
            target.label = target.label or with_constant(n, k, x)
            continue
        source = item(x, n)
        edges.setdefault((source.key, target.key), Edge(source.key, target.key)).parts.append((n, k, x))
    return list(items.values()), list(edges.values())


def _frame(network: Network, g: Group, t: int) -> tuple[str, ...]:
    if (g.band, g.t) not in network.cells or g.t != t:
        return ()
    step = step_name(g.band, g.t)
    return {QUANTITY: (step, g.name), SHARED: (step,)}.get(g.kind, ())


def _operation(p: Plan, item: Item) -> dict:
    """A box whose size holds the numbers of any step."""
    if item.said:
        return {"at": [0, 0, 92.0, 40.0], "n": -1, "name": item.said, "key": item.said, "fill": 3}
    n = item.nodes[0]
    name, symbol = short(n.name) if n.name else tr("data") if n.op is None else "", symbol_of(n, item.label)
    k = p.node(n, pretty(clean(n.name or (n.op.name if n.op else "data"), 40)))
    strip = p.nodes[k][3]
    title = 9.2 * len(name) + (7.6 * len(symbol) + 16 * bool(name) if symbol else 0)
    known = f"∂{name if len(name) < 9 else ''} 1.2e−12"
    width = max(title, 6.2 * len(known), 74 if strip is not None else 56) + 14
    rows = 18 + 12 * bool(n.shape or not n.op) + 14 + 12
    if strip is not None:
        written = strip[4] >= 0
        rows += (14 if written else 9) * strip[0] * (1 + (strip[3] >= 0)) - 8
        width = max(width, 38 * strip[1] + 14) if written else width
    fill = 1 if n.name and n.op is not None else 2 if n.op is None else 0
    return {
        "at": [0, 0, round(width, 1), float(rows)], "n": k, "name": name, "key": name or symbol, "symbol": symbol,
        "fill": fill, "shape": shape_text(n.shape) if n.shape or not n.op else "", "op": 1,
        "cut": int(p.kind.statuses.get(n.number) == CUT), "all": int(k >= len(p.kind.example.nodes)),
    }  # fmt: skip
