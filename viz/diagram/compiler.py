"""Pictures of the compiler: what is inside the loop over the steps, and what left it in a rewrite.

`rewrites` shows the step of every loop after each rewrite that changed something,
with what stands before and after the loop; `loops` shows the final steps, in which
operations that became one element-wise loop stand in one frame.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import graphviz

from minigrad import InputError, Tensor

from ..language.catalogue import deferred, tr, trn
from ..language.scale import FAINT, FONT, INK, PANEL, SOFT
from ..language.text import Keys, clean, plain
from ..read.stages import (
    AFTER,
    BEFORE,
    GIVEN,
    INSIDE,
    LEFT,
    MOVE,
    NEW,
    PRODUCT,
    VALUE,
    Item,
    Loop,
    Stage,
    formula,
    mark,
    read_items,
    stages_of,
)
from .cards import short
from .markup import node_label, text
from .render import Diagram

BUDGET = 150
FILL = {PRODUCT: "#fbd7a8", MOVE: "#e6e9ed", VALUE: "#ffffff", GIVEN: "#eef4fb"}
PEN = {LEFT: ("#1b7837", 3.2), NEW: ("#2166ac", 3.2), "": (INK, 1.0)}
FUSED = "#1b7837"
SAID = {
    "traced": deferred("The step as it was written."),
    "gradients": deferred("The step of the derivative, as its rules give it."),
}
NOTE = deferred(
    "Orange: a product. Carried on: the next step starts from it. Kept: stored at every step, for what runs later."
)
LOOP_NOTE = deferred(
    "Green frame: one loop of the generated program, under its name; what only its own frame reads "
    "is never stored. Orange: a product; sums of products are made with them."
)


def rewrites(compiled, *, budget: int = BUDGET, time_limit: float = 20.0) -> dict[str, Diagram]:
    """A picture of every loop after each rewrite that changed what is in it or around it.

    compiled : what `minigrad.compile` returned, after a call.
    budget : the greatest number of nodes in a picture; the rest is said in one node.
    time_limit : seconds that Graphviz may take for each picture.

    Returns pictures by name, in the order of the compiler: "hoist forward", "hoist backward", …
    Raises InputError before the first call, and where there is no loop.
    """
    _check(budget)
    stages = stages_of(compiled)
    pictures: dict[str, Diagram] = {}
    looks: dict[str, tuple] = {}  # of each loop: how many boxes, and where the products stand
    before: Stage | None = None
    for stage in stages:
        for loop in stage.loops.values():
            read_items(loop)
            mark(loop, stage, before)
            look = len(loop.items), sorted(i.where for i in loop.items if i.kind == PRODUCT)
            if any(i.mark for i in loop.items) or look != looks.get(loop.name):
                # Products are split once before the derivative is taken, so that it is split as well.
                name = "split products" if stage.name == "gradients" and loop.name in looks else stage.name
                pictures[f"{name} {loop.name}"] = _picture(loop, name, before, budget, time_limit)
            looks[loop.name] = look
        before = stage
    return pictures


def _check(budget: object) -> None:
    if not isinstance(budget, int) or budget < 10:
        raise InputError(f"budget = {budget!r} nodes; give a whole number of at least 10")


def _explained(name: str) -> str:
    """What a rewrite does, in its own words."""
    from minigrad.compiler.rewrite import REWRITES  # not at import: pictures need no compiler

    if name in REWRITES:
        return tr((REWRITES[name].__doc__ or "").strip().split("\n")[0])
    return tr(SAID[name]) if name in SAID else ""


# One loop at one stage.


def _picture(loop: Loop, name: str, before: Stage | None, budget: int, time_limit: float) -> Diagram:
    way, _, count = loop.name.partition(" ")
    title = tr("{name}: the {way} loop {number}", name=tr(name), way=tr(way), number=count).strip()
    graph = _sheet(title, [_explained(name), _verdict(loop, before)], tr(NOTE))
    shown, hidden = _within(loop.items, budget)
    keys, ids = Keys(), {}
    for where, said in (
        (BEFORE, tr("before the loop, once")),
        (INSIDE, _loop_label(loop)),
        (AFTER, tr("after the loop, once")),
    ):
        members = [i for i in shown if i.where == where]
        left_out = sum(i.where == where for i in hidden)
        if not members and not left_out:
            continue
        with graph.subgraph(name=f"cluster {where}") as frame:
            _frame(frame, said, where == INSIDE)
            for item in members:
                ids[id(item)] = keys.fresh(f"{where} {item.name or item.said}")
                _node(frame, ids[id(item)], item)
            _rest(frame, keys.fresh(f"{where} rest"), left_out)
    for item in shown:
        for source in item.reads:
            if id(source) in ids:
                graph.edge(ids[id(source)], ids[id(item)])
    _keep_order(graph, shown, ids)
    return Diagram(graph.source, title, "dot", time_limit)


def _verdict(loop: Loop, before: Stage | None) -> str:
    """The answer in words: how many products a step has, had, and where the others are now."""
    old = before.loops.get(loop.name) if before is not None else None
    count, said = len(loop.products()), []
    if old is None:
        return trn("Every step computes {n} product.", "Every step computes {n} products.", count)
    was = len(old.products())
    if was != count:
        said.append(
            trn(
                "Every step computed {n} product, and now computes {count}.",
                "Every step computed {n} products, and now computes {count}.",
                was,
                count=count,
            )
        )
    else:
        said.append(
            trn(
                "Every step computes {n} product, as before.",
                "Every step computes {n} products, as before.",
                count,
            )
        )
    for where, words in ((BEFORE, tr("before the loop")), (AFTER, tr("after it"))):
        for kind in (PRODUCT, MOVE):
            gone = sum(i.mark == LEFT and i.where == where and i.kind == kind for i in loop.items)
            if gone:
                counted = (
                    _products(gone)
                    if kind == PRODUCT
                    else trn("{n} slice or transpose", "{n} slices or transposes", gone)
                )
                said.append(
                    tr(
                        "{counted} left the loop: now {where}, once for all steps.",
                        counted=counted,
                        where=words,
                    )
                )
    if loop.elsewhere:
        said.append(tr("{n} more left, and needs nothing of this loop.", n=loop.elsewhere))
    return " ".join(said)


def _products(count: int) -> str:
    return trn("{n} product", "{n} products", count)


def _loop_name(loop: Loop) -> str:
    way, _, count = loop.name.partition(" ")
    return f"{tr(way)} {count}".strip()


def _loop_label(loop: Loop) -> str:
    order = tr("from the last to the first") if loop.body.reverse else tr("from the first to the last")
    count = len(loop.products())
    others = trn("{n} other operation", "{n} other operations", len(loop.nodes) - count)
    return tr(
        "for every t, {order}: {products}, {others}", order=order, products=_products(count), others=others
    )


def _within(items: Sequence[Item], budget: int) -> tuple[list[Item], list[Item]]:
    """What the budget allows: products and marked items first, in their order."""
    order = sorted(range(len(items)), key=lambda k: (not items[k].mark, items[k].kind != PRODUCT, k))
    kept = set(order[:budget])
    return [i for k, i in enumerate(items) if k in kept], [i for k, i in enumerate(items) if k not in kept]


def _keep_order(graph, shown: Sequence[Item], ids: dict[int, str]) -> None:
    """Before stands left of the loop, and after right of it: invisible lines by way of two points."""
    inside = [i for i in shown if i.where == INSIDE]
    read = {id(r) for i in inside for r in i.reads}
    starts = [i for i in inside if not any(r.where == INSIDE for r in i.reads)]
    ends = [i for i in inside if id(i) not in read]
    for point, lefts, rights in (
        ("left", [i for i in shown if i.where == BEFORE], starts),
        ("right", ends, [i for i in shown if i.where == AFTER]),
    ):
        if lefts and rights:
            graph.node(point, style="invis", shape="point", width="0.01", height="0.01", label="")
            for item in lefts:
                graph.edge(ids[id(item)], point, style="invis", weight="0")
            for item in rights:
                graph.edge(point, ids[id(item)], style="invis", weight="0")


# How it is written.


def _sheet(title: str, lines: Sequence[str], note: str) -> Any:
    graph = graphviz.Digraph("minigrad", comment="Lay out with dot.")
    said = [text(title, 15, INK, True), *(text(line, 11, INK, longest=200) for line in lines if line)]
    said.append(text(note, 9.5, SOFT, longest=200))
    graph.attr(
        "graph", rankdir="LR", bgcolor="white", pad="0.15", nodesep="0.12", ranksep="0.45", fontname=FONT,
        labelloc="t", labeljust="l", newrank="true", tooltip=plain(title), label=node_label(said, "LEFT", 2),
    )  # fmt: skip
    graph.attr("node", shape="box", style="rounded,filled", fillcolor="white", fontname=FONT,
               margin="0.08,0.055", height="0.3", width="0.3", color=INK)  # fmt: skip
    graph.attr("edge", fontname=FONT, fontsize="9", color=SOFT, arrowsize="0.6", penwidth="0.9")
    return graph


def _frame(frame, said: str, loop: bool) -> None:
    frame.attr(
        label=f"<{text(said, 12.5 if loop else 11.5, INK, True, 120)}>", fillcolor=PANEL, margin="10",
        style="rounded,filled" if loop else "rounded,dashed", color=INK if loop else FAINT,
        penwidth="1.8" if loop else "1.2", tooltip=plain(said),
    )  # fmt: skip


def _rest(frame, key: str, count: int) -> None:
    """What the budget leaves out."""
    if count > 0:
        said = tr("{n} more, not drawn", n=count)
        frame.node(key, label=node_label([text(said, 10, SOFT)]), style="rounded,filled,dashed",
                   fillcolor=PANEL, color=SOFT, tooltip=said)  # fmt: skip


def _node(into, key: str, item: Item) -> None:
    colour, width = PEN[item.mark]
    product = item.kind == PRODUCT
    name = text(item.name, 13, INK, True, 30) if item.name and not product else ""
    equation = f"{short(item.name)} = {item.said}" if item.name and product else item.said
    ink = INK if product or not item.name else SOFT
    lines = [equation] if item.nodes else textwrap.wrap(item.said, 26)[:6]  # without nodes: a list of names
    said = [text(line, 11.5 if product else 9.5, ink, product, 44) for line in lines if line]
    notes = [w for w, there in ((tr("carried on"), item.carried), (tr("kept"), item.kept)) if there]
    said += [text(", ".join(notes), 8.5, SOFT)] if notes else []
    said += [text(tr(item.mark), 9.5, colour, True)] if item.mark else []
    into.node(
        key, label=node_label([name, *said]), fillcolor=FILL[item.kind], color=colour,
        penwidth=f"{max(width, 2.0 if product else 1.0):g}",
        tooltip=plain(f"{item.name} {item.said} ({', '.join(map(tr, filter(None, (item.kind, item.mark))))})".strip()),
    )  # fmt: skip


# The final steps.


def loops(compiled, *, budget: int = BUDGET, time_limit: float = 20.0) -> Diagram:
    """The steps that are run: each frame is one element-wise loop of the generated program, under its name.

    compiled, budget, time_limit : as for `rewrites`; raises what `rewrites` raises.
    """
    _check(budget)
    stages = stages_of(compiled)
    functions = compiled.last.program.loops
    title = tr("{name}: what one step runs", name=clean(compiled.name))
    graph = _sheet(title, [], tr(LOOP_NOTE))
    keys = Keys()
    for loop in reversed(stages[-1].loops.values()):  # dot puts the last one on top
        read_items(loop)
        with graph.subgraph(name=f"cluster {loop.name}") as frame:
            _frame(frame, f"{_loop_name(loop)}, {_loop_label(loop)}", True)
            _operations(graph, frame, loop, functions, keys, budget)
    return Diagram(graph.source, title, "dot", time_limit)


def _operations(graph, frame, loop: Loop, functions: dict[str, list[int]], keys: Keys, budget: int) -> None:
    """One step by its operations, in the frames of the loops that run them."""
    home = {number: name for name, numbers in functions.items() for number in numbers}
    nodes = [n for n in loop.nodes if n.op is not None and n.op.name != "broadcast_to"]
    nodes, left_out = nodes[:budget], len(nodes) - budget
    ids = _given(frame, loop, {x.number for n in nodes for x in n.inputs}, keys)
    frames: dict[str, list[Tensor]] = {}
    for n in nodes:
        ids[n.number] = keys.fresh(f"{loop.name} {n.name or n.op.name}")  # type: ignore[union-attr]
        frames.setdefault(home.get(n.number, ""), []).append(n)
    for n in frames.pop("", []):
        _operation(frame, ids[n.number], n, loop)
    for name, members in frames.items():
        with frame.subgraph(name=f"cluster {keys.fresh(name)}") as one:
            one.attr(label=f"<{text(name, 11, FUSED, True)}>", style="rounded,filled", fillcolor="#eaf5e4",
                     color=FUSED, penwidth="2", margin="8", tooltip=plain(name))  # fmt: skip
            for n in members:
                _operation(one, ids[n.number], n, loop)
    _rest(frame, keys.fresh(f"{loop.name} rest"), left_out)
    for n in nodes:
        for x in dict.fromkeys(x.number for x in n.inputs):
            if x in ids:
                graph.edge(ids[x], ids[n.number])


def _given(frame, loop: Loop, read: set[int], keys: Keys) -> dict[int, str]:
    """Nodes for the states and the inputs of a step that it reads."""
    body, ids = loop.body, {}
    sequences = dict(zip([x.number for x in body.xs], loop.node.inputs[len(body.carry) :], strict=False))
    for symbol in (*body.carry, *body.xs):
        if symbol.number in read:
            said = loop.names.get(symbol.number, "…")
            if said == "…" and symbol.number in sequences:
                said = formula(sequences[symbol.number], loop.names)
            ids[symbol.number] = keys.fresh(f"{loop.name} {said}")
            content = node_label([text(said, 11, INK, longest=40)])
            frame.node(ids[symbol.number], label=content, fillcolor=FILL[GIVEN], tooltip=plain(said))
    return ids


def _operation(into, key: str, n: Tensor, loop: Loop) -> None:
    assert n.op is not None
    product = n.op.kind == "product"
    name = loop.names.get(n.number) or short(n.name or "")
    said = formula(n, loop.names) if product else n.op.symbol or n.op.name
    content = text(f"{name} = {said}" if name else said, 12, INK, product or bool(name), 40)
    into.node(key, label=node_label([content]), fillcolor=FILL[PRODUCT if product else VALUE],
              penwidth="2" if product else "1", tooltip=plain(formula(n, loop.names)))  # fmt: skip
