"""Every operation as a node of its own, laid out by `dot`: for any graph, recurrent or not.

In a recurrence steps and gates are frames, and a parameter stands once per step,
so that its line shows what that step alone adds to ∂L/∂W.  What the budget or the
depth of a page does not allow is put into one dashed node that says what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import graphviz
import numpy as np

from minigrad import Tensor

from ..language.catalogue import deferred, tr, trn
from ..language.scale import FAINT, FONT, INK, PANEL, SOFT, Scale, ramp, signed
from ..language.status import (
    CUT,
    EXPLODES,
    NORMAL,
    NOT_A_NUMBER,
    NOT_COMPUTED,
    UNKNOWN,
    VANISHED,
    ZERO,
    is_small,
    norm,
)
from ..language.text import Keys, decade, identifier, number, plain, shape_text, span
from ..read.network import (
    CUT_STATUS,
    END,
    FIRST,
    PARAMETER,
    QUANTITY,
    SHARED,
    Group,
    Network,
    edge_gradient,
    gradient_of,
    gradient_status,
)
from .cards import Look, flow_said, gradient_line, gradient_text, held_as, short, tip, value_line, value_top
from .markup import cell, node_label, square, table, text
from .render import Diagram

DEEPEST, DEEP_START, DEEP_END = 24, 3, 6  # ranks on a page; how many of a longer graph stand at either end
MIDDLE = deferred("the middle")  # of a deep graph, where it is not drawn


@dataclass
class Item:
    """What becomes one node: an operation, a leaf, or what is left out."""

    key: str
    nodes: list[Tensor] = field(default_factory=list)
    frame: tuple[str, ...] = ()
    said: str = ""  # of what is left out
    label: str = ""


@dataclass
class Edge:
    source: str
    target: str
    parts: list[tuple[Tensor, int, Tensor]] = field(default_factory=list)


def draw_operations(
    root: Tensor, nodes: Sequence[Tensor], statuses: dict[int, str], network: Network | None, shown: list[int],
    budget: int, title: str, scale: Scale | None, time_limit: float,
) -> Diagram:  # fmt: skip
    items, edges = select(root, nodes, network, shown, budget)
    gradients = [_edge_norm(statuses, e) for e in edges]
    drawn = [i for i in items if not i.said]
    own = [gradient_status(statuses, i.nodes[0])[0] for i in drawn]
    scale = scale or Scale.of([*(g for g, _ in gradients if g), *(g for g in own if g)])
    look = Look(
        scale,
        value_top([i.nodes[0] for i in drawn if i.nodes[0].is_symbol or is_small(i.nodes[0].value)]),
        statuses,
    )
    seen = [status or scale.status(value) for value, status in gradients]
    graph = graphviz.Digraph("minigrad", comment="Lay out with dot.")
    graph.attr(
        "graph", rankdir="LR", bgcolor="white", pad="0.15", nodesep="0.16", ranksep="0.42", fontname=FONT,
        label=_heading(title, scale, look, seen, any(n.contributions for n in nodes)), labelloc="t", labeljust="l",
        tooltip=plain(title),
    )  # fmt: skip
    graph.attr(
        "node",
        shape="box",
        style="rounded,filled",
        fillcolor="white",
        fontname=FONT,
        margin="0.1,0.05",
        height="0.3",
        width="0.3",
        color=INK,
    )
    graph.attr("edge", fontname=FONT, fontsize="9")
    few = len(drawn) <= 40 and network is None

    def write(into, item: Item) -> None:
        n = item.nodes[0]
        weight = (
            network is not None and len(network.times) > 1 and network.group_of[n.number].kind == PARAMETER
        )
        _node(into, item, look, few, weight and n.requires_grad)

    frames(graph, items, network, write)
    for edge, (value, status) in zip(edges, gradients, strict=True):
        _edge(graph, edge, value, status, scale, few)
    return Diagram(graph.source, title, "dot", time_limit)


# What is drawn.


class _Selection:
    """Nodes and edges of the picture, found from the end of the graph backwards."""

    def __init__(self, network: Network | None, holder: dict[int, str]):
        self.network, self.holder = network, holder
        self.fresh = Keys().fresh
        self.items: dict[object, Item] = {}
        self.edges: dict[tuple[str, str], Edge] = {}

    def add(self, n: Tensor) -> None:
        """Take up a node and the lines into it; constants stand in its label."""
        own = self.item(n, None)
        if own is None:
            return
        for k, x in enumerate(n.inputs):
            if is_constant(x):
                own.label = own.label or with_constant(n, k, x)
                continue
            other = self.item(x, n)
            if other is not None and other is not own:
                edge = self.edges.setdefault((other.key, own.key), Edge(other.key, own.key))
                edge.parts.append((n, k, x))
        if n.number in self.holder:
            own.nodes.append(n)

    def item(self, n: Tensor, reader: Tensor | None) -> Item | None:
        """The item that shows `n` to `reader`; a parameter has one in every step that reads it."""
        held = self.holder.get(n.number)
        if held is not None:
            if held not in self.items:
                self.items[held] = Item(self.fresh(held.replace(" = ", "=").replace(" … ", "..")), said=held)
            return self.items[held]
        which: object = n.number
        group = None
        if self.network is not None:
            group = self.network.group_of[n.number]
            if (
                group.kind in (PARAMETER, FIRST)
                and n.op is None
                and reader is not None
                and reader.number in self.holder
            ):
                return None
            if group.kind == PARAMETER and n.op is None and reader is not None:
                group = self.network.group_of[reader.number]
                which = (n.number, group.band, group.t)
        if which not in self.items:
            name = n.name or (n.op.name if n.op else tr("constant"))
            frame = self.frame(group)
            self.items[which] = Item(self.fresh(" ".join([*frame[:1], name])), [n], frame)
        return self.items[which]

    def frame(self, group: Group | None) -> tuple[str, ...]:
        """The step, and in it the gate, around what belongs to a group."""
        if self.network is None or group is None or (group.band, group.t) not in self.network.cells:
            return ()
        step = step_name(group.band, group.t)
        return {QUANTITY: (step, group.name), SHARED: (step,)}.get(group.kind, ())


def select(root, nodes, network, shown, budget) -> tuple[list[Item], list[Edge]]:
    """What is drawn, in the order of computation."""
    selection = _Selection(network, _hidden(root, nodes, network, shown, budget))
    for n in reversed(nodes):  # so that every leaf is met by a reader first
        if n is root or n.op is not None:
            selection.add(n)
    return list(selection.items.values())[::-1], list(selection.edges.values())[::-1]


def is_constant(n: Tensor) -> bool:
    return n.op is None and not n.requires_grad and n.name is None and n.shape == () and not n.is_symbol


def with_constant(n: Tensor, k: int, x: Tensor) -> str:
    """The operation with its constant: `1 −` or `⊙ 2`."""
    constant = number(x.value.item(), 3) if x.value.dtype.kind in "fiub" else ""
    symbol = (n.op.symbol or n.op.name) if n.op is not None else ""
    return f"{constant} {symbol}" if k == 0 else f"{symbol} {constant}"


def _hidden(root, nodes, network, shown, budget) -> dict[int, str]:
    """For every node that is not drawn: the name of what holds it."""
    holder: dict[int, str] = {}
    if network is not None:
        for where, times in _runs(network.times, shown):
            for n in nodes:
                g = network.group_of[n.number]
                if g.t in times and g.kind in (QUANTITY, SHARED, "input", "output"):
                    holder[n.number] = where
        for n in nodes:
            if network.end is not None and network.group_of[n.number] is network.end:
                holder[n.number] = END
        _what_only_the_end_reads(nodes, network, holder)
        _what_only_hidden_steps_read(nodes, network, holder)
    visible = [n for n in nodes if n.number not in holder and not is_constant(n)]
    depth = _depths(nodes)
    deepest = max((depth[n.number] for n in visible), default=0)
    if network is None and deepest > DEEPEST:
        for n in visible:
            if DEEP_START <= depth[n.number] <= deepest - DEEP_END:
                holder[n.number] = MIDDLE
        visible = [n for n in visible if n.number not in holder]
    if len(visible) > budget:
        # Nearest to the start and to the end stay; the root always.
        order = sorted(visible, key=lambda n: (depth[n.number], n.number))
        start = budget // 3
        for n in order[start : len(order) - (budget - start - 1)]:
            holder[n.number] = MIDDLE
    if network is None or network.end is None:
        holder.pop(root.number, None)
    return holder


def _what_only_the_end_reads(nodes, network, holder: dict[int, str]) -> None:
    """Targets, and what is made of them, belong into the box of the end."""
    others = set()
    for n in reversed(nodes):
        outside = network.group_of[n.number].kind == PARAMETER and not n.requires_grad and n.role is None
        if outside and n.number not in others and holder.get(n.number) is None and network.end is not None:
            holder[n.number] = END
        if holder.get(n.number) != END:
            others.update(x.number for x in n.inputs)


def _what_only_hidden_steps_read(nodes, network, holder: dict[int, str]) -> None:
    """A piece cut out of a sequence belongs to the step that reads it."""
    readers: dict[int, set[str | None]] = {}
    for n in reversed(nodes):
        own = readers.get(n.number, set())
        if (
            n.op is not None
            and network.group_of[n.number].kind == PARAMETER
            and len(own) == 1
            and None not in own
        ):
            holder.setdefault(n.number, *own)  # type: ignore[arg-type]
        for x in n.inputs:
            readers.setdefault(x.number, set()).add(holder.get(n.number))


def _runs(times: list[int], shown: list[int]) -> list[tuple[str, set[int]]]:
    """Runs of steps that are left out, with the words for them."""
    runs: list[list[int]] = []
    fresh = True
    for t in times:
        if t in shown:
            fresh = True
        elif fresh:
            runs.append([t])
            fresh = False
        else:
            runs[-1].append(t)
    return [(span(r), set(r)) for r in runs]


def _depths(nodes: Sequence[Tensor]) -> dict[int, int]:
    """Ranks: one more than the deepest input; a leaf stands just before its first reader."""
    depth: dict[int, int] = {}
    for n in nodes:
        depth[n.number] = (
            1 + max((depth[x.number] for x in n.inputs if x.op is not None), default=0)
            if n.op is not None
            else -1
        )
    for n in reversed(nodes):
        for x in n.inputs:
            if x.op is None:
                at = depth[n.number] - 1
                depth[x.number] = at if depth[x.number] < 0 else min(at, depth[x.number])
    return depth


def _edge_norm(statuses: dict[int, str], edge: Edge) -> tuple[float | None, str | None]:
    """What flowed along all graph edges that this line stands for."""
    sums: dict[int, np.ndarray] = {}
    why = None
    for node, k, x in edge.parts:
        part, reason = edge_gradient(statuses, node, k, x)
        if part is None:
            why = CUT if CUT in (why, reason) else reason
        else:
            sums[x.number] = sums[x.number] + part if x.number in sums else np.asarray(part, dtype=np.float64)
    if sums:
        return norm(np.array([norm(s) for s in sums.values()])), None
    return None, why


# How it is written.


def frames(graph, items: Sequence[Item], network: Network | None, write) -> None:
    """Nodes into the frames of their step and gate; write(graph, item) puts a node there."""
    captions = _captions_by_frame(network)
    tree: dict[str, dict[str, list[Item]]] = {}
    for item in items:
        if not item.frame:
            write(graph, item)
        else:
            step, gate = (*item.frame, "")[:2]
            tree.setdefault(step, {}).setdefault(gate, []).append(item)
    for step, gates in tree.items():
        with graph.subgraph(name=f"cluster {identifier(step)}") as frame:
            label = text(step.replace("t=", "t = "), 12, INK, True) + captions.get(step, "")
            frame.attr(
                label=f"<{label}>", style="rounded,filled", fillcolor=PANEL, color=FAINT, margin="6",
                tooltip=plain(step),
            )  # fmt: skip
            for gate, members in gates.items():
                if not gate:
                    for item in members:
                        write(frame, item)
                    continue
                with frame.subgraph(name=f"cluster {identifier(step)} {identifier(gate)}") as inner:
                    inner.attr(
                        label=f"<{text(short(gate), 11, SOFT, True)}>", fillcolor="white", color=FAINT,
                        margin="5", tooltip=plain(gate),
                    )  # fmt: skip
                    for item in members:
                        write(inner, item)


def step_name(band: str, t: int) -> str:
    return f"{band} t={t}".strip()


def _captions_by_frame(network: Network | None) -> dict[str, str]:
    """Markup that follows "t = 3" in the label of a step's frame."""
    if network is None:
        return {}
    return {
        step_name(band, t): "&nbsp; " + text(network.captions[t], 12, longest=40)
        for band, t in network.cells
        if t in network.captions
    }


def _node(into, item: Item, look: Look, few: bool, everywhere: bool) -> None:
    """A box; everywhere: what it shows is the sum over all steps."""
    if item.said:
        _left_out(into, item)
        return
    n = item.nodes[0]
    gradient, status = gradient_status(look.statuses, n)
    name = short(n.name) if n.name else ""
    said = " · ".join(filter(None, [shape_text(n.shape), held_as(n)]))
    shape = text(said, 8.5, SOFT) if n.shape or not n.op else ""
    rows = [_title(n, name, item.label), shape]
    if few and _readable(n):
        rows += _numbers(n, look)
    else:
        rows += [value_line(n, 66, look) or text(f"‖·‖ {number(norm(n.value))}", 9.5, SOFT)]
        rows.append(gradient_line(n, 66, look))
    if n.dtype.kind == "f":
        said = gradient_text(gradient, status, name if len(name) < 9 else "", 10)
        rows.append(text(tr("all t:") + "\u00a0\u00a0", 8.5, SOFT) + said if everywhere else said)
        wrong = look.scale.status(gradient)
        if gradient is not None and wrong not in (NORMAL, NOT_COMPUTED):
            rows.append(text(tr(wrong), 8.5, look.scale.colour(gradient), True))
    fill = "#fff9e8" if n.name and n.op is not None else "#eef4fb" if n.op is None else "#ffffff"
    dashed = {"style": "rounded,filled,dashed"} if look.statuses.get(n.number) == CUT_STATUS else {}
    said = tip(n, look, n.name or (n.op.name if n.op else tr("constant")))
    into.node(item.key, label=node_label(rows), fillcolor=fill, tooltip=plain(said), **dashed)


def _left_out(into, item: Item) -> None:
    """The one box for what is not drawn; that of the end still tells its value."""
    count = trn("{n:,} operation", "{n:,} operations", len(item.nodes))
    rows = [text(_called(item.said), 12, bold=True), text(count, 9, SOFT), text(tr("not drawn"), 9, SOFT)]
    if item.said == END:
        root = max(item.nodes, key=lambda n: n.number)
        one = not root.is_symbol and root.value.size == 1
        value = number(root.value.item(), 4) if one else shape_text(root.shape)
        title = text(f"{short(root.name or tr('loss'))} {value}", 13, bold=True)
        rows = [title, text(tr("{count} in one box", count=count), 9, SOFT)]
    into.node(
        item.key, label=node_label(rows), style="rounded,filled,dashed", fillcolor=PANEL, color=SOFT,
        tooltip=plain(tr("{said}: {count}, not drawn", said=_called(item.said), count=count)),
    )  # fmt: skip


def _called(said: str) -> str:
    """What the box of what is not drawn is called: "the middle", or a step's name."""
    return tr(said) if said in (MIDDLE, END) else said


def _title(n: Tensor, name: str, with_constant: str) -> str:
    """Name and operation."""
    symbol = symbol_of(n, with_constant)
    if name and symbol:
        return text(name, 14, INK, True) + text(f"\u00a0\u00a0=\u00a0{symbol}", 11, SOFT)
    return (
        text(name, 14, INK, True)
        if name
        else text(symbol, 13, INK, True)
        if symbol
        else text(tr("data"), 10, SOFT)
    )


def symbol_of(n: Tensor, with_constant: str) -> str:
    if n.op is None:
        return ""
    if n.op.name == "power":
        return f"x^{number(n.params[0], 3)}"
    if n.op.kind == "product":  # its dot alone is easily overlooked
        return f"{n.op.symbol} {n.op.name}"
    return with_constant or n.op.symbol or n.op.name


def _readable(n: Tensor) -> bool:
    """Few enough numbers to write them out."""
    return not n.is_symbol and n.value.dtype.kind in "fiub" and n.value.size > 1 and is_small(n.value, 4, 4)


def _numbers(n: Tensor, look: Look) -> list[str]:
    """Values and gradient written into their cells."""

    def grid(array, colours) -> str:
        rows = array.reshape(-1, array.shape[-1]).tolist() if array.ndim else [[array.item()]]
        return table(["".join(square(colours(v), 38, 14, number(v), 8) for v in row) for row in rows])

    lines = [grid(n.value.astype(np.float64), lambda v: signed(v, look.top))]
    gradient = gradient_of(look.statuses, n)
    if gradient is not None:
        lines.append(
            grid(
                np.asarray(gradient, dtype=np.float64),
                lambda g: "#ffffff" if g == 0 else look.scale.colour(abs(g)),
            )
        )
    return lines


def _edge(graph, edge: Edge, value: float | None, status: str | None, scale: Scale, few: bool) -> None:
    stroke = scale.stroke(value, status)
    attributes = {
        "color": stroke.colour,
        "penwidth": f"{stroke.width:g}",
        "style": stroke.dash,
        "tooltip": plain(flow_said(value, status, scale)),
        "arrowsize": "0.7",
    }
    said = number(value) if few and value is not None and (value or not stroke.mark) else stroke.mark
    if said:
        attributes["label"] = f"<{text(said, 8.5, stroke.colour.split(':')[0], True)}>"
    graph.edge(edge.source, edge.target, **attributes)


def _heading(title: str, scale: Scale, look: Look, seen: Sequence[str], computed: bool) -> str:
    """The title, and below it the legend: the scales, and each status that occurs."""
    rows = [text(title, 15, INK, True, 200)] if title else []
    if not computed:
        rows.append(text(tr(UNKNOWN), 10, INK, True, 100))
    bar = "".join(
        cell(
            table(
                [
                    cell(
                        "",
                        BGCOLOR=ramp((k + 0.5) / 12),
                        WIDTH=16,
                        HEIGHT=4 + round(0.7 * k),
                        FIXEDSIZE="TRUE",
                    )
                ]
            )
        )
        for k in range(12)
    )
    values = "".join(square(signed(k / 4, 1.0), 14, 10) for k in range(-4, 5))
    parts = [
        text(tr("gradient ‖∂L/∂·‖: colour and width of lines"), 9, SOFT, longest=120),
        text(decade(scale.low), 9), table([bar]), text(decade(scale.high), 9),
        text("   " + tr("values (upper cells):"), 9, SOFT), text(f"≤ −{number(look.top)}", 9), table([values]),
        text(f"≥ {number(look.top)}", 9), text(tr("lower cells: gradient"), 9, SOFT),
    ]  # fmt: skip
    said = {
        NOT_COMPUTED: tr("– – not computed"), CUT: tr("- ✂ - cut"), ZERO: tr("0 exactly zero"),
        VANISHED: tr("··· vanished < {bound}", bound=number(scale.vanished)),
        EXPLODES: tr("━ exploded > {bound}", bound=number(scale.exploded)),
        NOT_A_NUMBER: tr("- NaN - not a number"),
    }  # fmt: skip
    parts += [text(f"   {said[s]}", 9, SOFT) for s in said if s in seen]
    rows.append(table(["".join(map(cell, parts))], CELLPADDING=2))
    return f"<{table([cell(row, ALIGN='LEFT') for row in rows])}>"
