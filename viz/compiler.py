"""Pictures of the compiler: what is inside the loop over the steps, and what left it in a rewrite.

`rewrites` shows the step of every loop after each rewrite that changed something,
with what stands before and after the loop; `loops` shows the final steps, in which
operations that became one element-wise loop stand in one frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import graphviz

from minigrad import InputError, Tensor

from .cards import short
from .render import Picture
from .stages import (
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
    Signatures,
    Stage,
    formula,
    mark,
    read_items,
    say,
    stages_of,
)
from .style import FAINT, FONT, INK, PANEL, SOFT, Keys, clean, plain, text

BUDGET = 150
FILL = {PRODUCT: "#fbd7a8", MOVE: "#e6e9ed", VALUE: "#ffffff", GIVEN: "#eef4fb"}
PEN = {LEFT: ("#1b7837", 3.2), NEW: ("#2166ac", 3.2), "": (INK, 1.0)}
SAID = {"traced": "The step as it was written.", "gradients": "The step before the rewrites."}


def rewrites(compiled, *, budget: int = BUDGET, time_limit: float = 20.0) -> dict[str, Picture]:
    """A picture of every loop after each rewrite that changed what is in it or around it.

    compiled : what `minigrad.compile` returned, after a call.
    budget : the greatest number of nodes in a picture; the rest is said in one node.
    time_limit : seconds that Graphviz may take for each picture.

    Returns pictures by name, in the order of the compiler: "hoist, forward", "hoist, backward", …
    Raises InputError before the first call, and where there is no loop.
    """
    _check(budget)
    stages, signatures = stages_of(compiled)
    pictures: dict[str, Picture] = {}
    looks: dict[str, list] = {}
    before: Stage | None = None
    for stage in stages:
        for loop in stage.loops.values():
            read_items(loop)
            mark(loop, stage, before, signatures)
            look = [(i.where, i.kind, i.name, i.said, i.mark) for i in loop.items]
            if _marked(loop) or loop.name not in looks or len(look) != len(looks[loop.name]):
                title = f"{stage.name}, {loop.name}"
                pictures[title] = _picture(loop, stage, before, title, signatures, budget, time_limit)
            looks[loop.name] = look
        before = stage
    return pictures


def _check(budget: object) -> None:
    if not isinstance(budget, int) or budget < 10:
        raise InputError(f"budget = {budget!r} nodes; give a whole number of at least 10")


def _marked(loop: Loop) -> bool:
    return any(i.mark for i in loop.items)


def _explained(stage: Stage) -> str:
    from minigrad.compiler.rewrite import REWRITES  # not at import: pictures need no compiler

    if stage.name in REWRITES:
        return (REWRITES[stage.name].__doc__ or "").strip().split("\n")[0]
    return SAID.get(stage.name, "")


# One loop at one stage.


def _picture(
    loop: Loop, stage: Stage, before: Stage | None, title: str, signatures: Signatures, budget: int,
    time_limit: float,
) -> Picture:  # fmt: skip
    graph = _sheet(title, [_explained(stage), *_verdict(loop, before, signatures)])
    shown, hidden = _within(loop.items, budget)
    keys, ids = Keys(), {}
    for where, label in ((BEFORE, "before the loop, once"), (INSIDE, _loop_label(loop)), (AFTER, "after the loop, once")):
        members = [i for i in shown if i.where == where]
        left_out = sum(i.where == where for i in hidden)
        if not members and not left_out:
            continue
        with graph.subgraph(name=f"cluster {where}") as frame:
            _frame(frame, label, where == INSIDE)
            for item in members:
                ids[id(item)] = keys.fresh(f"{where} {item.name or item.said}")
                _node(frame, ids[id(item)], item)
            if left_out:
                frame.node(keys.fresh(f"{where} rest"), label=_rows([text(f"{left_out} more, not drawn", 10, SOFT)]),
                           style="rounded,filled,dashed", fillcolor=PANEL, color=SOFT)  # fmt: skip
    for item in shown:
        for source in item.reads:
            if id(source) in ids:
                graph.edge(ids[id(source)], ids[id(item)], **_line(source, item))
    _keep_order(graph, shown, ids)
    return Picture(graph.source, title, "dot", time_limit)


def _verdict(loop: Loop, before: Stage | None, signatures: Signatures) -> list[str]:
    """The answer in words: how many products a step has, had, and where the others are now."""
    old = before.loops.get(loop.name) if before is not None else None
    count, said = len(loop.products()), []
    if old is None:
        return [f"Every step computes {_counted(count, 'product')}."]
    was = len(old.products())
    if was != count:
        said.append(f"Every step computed {_counted(was, 'product')}, and now computes {count}.")
    else:
        said.append(f"Every step computes {_counted(count, 'product')}, as before.")
    for where, words in ((BEFORE, "before the loop"), (AFTER, "after it")):
        for kind, what in ((PRODUCT, "product"), (MOVE, "slice or transpose")):
            gone = sum(i.mark == LEFT and i.where == where and i.kind == kind for i in loop.items)
            if gone:
                said.append(f"{_counted(gone, what)} left the loop: now {words}, once for all steps.")
    return [" ".join(said)]


def _counted(count: int, what: str) -> str:
    plural = {"slice or transpose": "slices or transposes"}.get(what, what + "s")
    return f"{count} {what if count == 1 else plural}"


def _loop_label(loop: Loop) -> str:
    order = "from the last step to the first" if loop.body.reverse else "from the first step to the last"
    return f"for every t, {order}"


def _within(items: Sequence[Item], budget: int) -> tuple[list[Item], list[Item]]:
    """What the budget allows: products and marked items first, in their order."""
    order = sorted(range(len(items)), key=lambda k: (not items[k].mark, items[k].kind != PRODUCT, k))
    kept = set(order[:budget])
    return [i for k, i in enumerate(items) if k in kept], [i for k, i in enumerate(items) if k not in kept]


def _keep_order(graph, shown: Sequence[Item], ids: dict[int, str]) -> None:
    """Before stands left of the loop, and after right of it, also where no line says so."""
    inside = [i for i in shown if i.where == INSIDE]
    if not inside:
        return
    starts = [i for i in inside if not any(r.where == INSIDE for r in i.reads)] or inside[:1]
    read = {id(r) for i in inside for r in i.reads}
    ends = [i for i in inside if id(i) not in read] or inside[-1:]
    linked = {id(r) for i in inside for r in i.reads}
    for item in shown:
        if item.where == BEFORE and id(item) not in linked:
            graph.edge(ids[id(item)], ids[id(starts[0])], style="invis")
        if item.where == AFTER:
            graph.edge(ids[id(ends[-1])], ids[id(item)], style="invis")


# How it is written.


def _sheet(title: str, lines: Sequence[str]) -> graphviz.Digraph:
    graph = graphviz.Digraph("minigrad", comment="Lay out with dot.")
    rows = [text(title, 15, INK, True), *(text(line, 11, INK, longest=200) for line in lines if line)]
    legend = [("product", FILL[PRODUCT], INK, 2.0), (LEFT, "#ffffff", *PEN[LEFT]), (NEW, "#ffffff", *PEN[NEW])]
    label = "".join(f'<TR><TD ALIGN="LEFT">{r}</TD></TR>' for r in rows)
    graph.attr(
        "graph", rankdir="LR", bgcolor="white", pad="0.15", nodesep="0.12", ranksep="0.45", fontname=FONT,
        labelloc="t", labeljust="l", tooltip=plain(title), compound="true", newrank="false",
        label=f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">{label}</TABLE>>',
    )  # fmt: skip
    del legend
    graph.attr("node", shape="box", style="rounded,filled", fillcolor="white", fontname=FONT,
               margin="0.07,0.03", height="0.3", width="0.3", color=INK)  # fmt: skip
    graph.attr("edge", fontname=FONT, fontsize="9", color=SOFT, arrowsize="0.6", penwidth="0.9")
    return graph


def _frame(frame, label: str, loop: bool) -> None:
    frame.attr(
        label=f"<{text(label, 12.5 if loop else 11.5, INK, True)}>", style="rounded,filled" if loop else "rounded,dashed",
        fillcolor=PANEL, color=INK if loop else FAINT, penwidth="1.8" if loop else "1.2", margin="10",
        tooltip=plain(label),
    )  # fmt: skip


def _rows(rows: Sequence[str]) -> str:
    body = "".join(f"<TR><TD>{r}</TD></TR>" for r in rows if r)
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{body}</TABLE>>'


def _node(into, key: str, item: Item) -> None:
    colour, width = PEN[item.mark]
    product = item.kind == PRODUCT
    named = f"{short(item.name)} = " if item.name and product else ""
    rows = [
        "" if product else text(clean(item.name, 20), 13, INK, True) if item.name else "",
        text(named + item.said, 11.5 if product else 9.5, INK if product or not item.name else SOFT, product, 44)
        if item.said
        else "",
    ]
    notes = [w for w, there in (("carried on", item.carried), ("kept", item.kept)) if there]
    if notes:
        rows.append(text(", ".join(notes), 8.5, SOFT))
    if item.mark:
        rows.append(text(item.mark, 9.5, colour, True))
    into.node(
        key, label=_rows(rows), fillcolor=FILL[item.kind], color=colour,
        penwidth=f"{max(width, 2.0 if product else 1.0):g}",
        tooltip=plain(f"{item.name} {item.said} ({item.kind}{', ' + item.mark if item.mark else ''})".strip()),
    )  # fmt: skip


def _line(source: Item, target: Item) -> dict[str, str]:
    out = source.where != target.where
    return {"color": FAINT if out and source.kind == MOVE else SOFT, "style": "solid"}


# The final steps.


def loops(compiled, *, budget: int = BUDGET, time_limit: float = 20.0) -> Picture:
    """The steps that are run: each frame is one element-wise loop of the generated program, under its name.

    compiled, budget, time_limit : as for `rewrites`; raises what that raises.
    """
    _check(budget)
    stages, _ = stages_of(compiled)
    functions = compiled.last.program.loops
    title = f"{clean(compiled.name)}: what one step runs"
    graph = _sheet(title, ["A frame is one loop over all numbers of a step: what is in it is never stored in between."])
    keys = Keys()
    for loop in stages[-1].loops.values():
        with graph.subgraph(name=f"cluster {loop.name}") as frame:
            _frame(frame, f"{loop.name}, {_loop_label(loop)}", True)
            _operations(graph, frame, loop, functions, keys, budget)
    return Picture(graph.source, title, "dot", time_limit)


def _operations(graph, frame, loop: Loop, functions: dict[str, list[int]], keys: Keys, budget: int) -> None:
    body = loop.body
    home = {number: name for name, numbers in functions.items() for number in numbers}
    ids: dict[int, str] = {}
    nodes = [n for n in loop.nodes if not (n.op is not None and n.op.name == "broadcast_to")][:budget]
    inner: dict[str, list[Tensor]] = {}
    for n in nodes:
        ids[n.number] = keys.fresh(f"{loop.name} {n.name or (n.op.name if n.op else 'value')}")
        inner.setdefault(home.get(n.number, ""), []).append(n)
    read = {x.number for n in nodes for x in n.inputs}
    for symbol in (*body.carry, *body.xs):
        if symbol.number in read:
            ids[symbol.number] = keys.fresh(f"{loop.name} {loop.names.get(symbol.number, 'given')}")
            said = text(loop.names.get(symbol.number) or "from before the loop", 11, INK, True)
            frame.node(ids[symbol.number], label=_rows([said]), fillcolor=FILL[GIVEN])
    for name, members in inner.items():
        if not name:
            for n in members:
                _operation(frame, ids[n.number], n, loop)
            continue
        with frame.subgraph(name=f"cluster {keys.fresh(name)}") as one:
            one.attr(label=f"<{text(name, 11, '#1b7837', True)}>", style="rounded,filled", fillcolor="#eaf5e4",
                     color="#1b7837", penwidth="2", margin="8", tooltip=plain(name))  # fmt: skip
            for n in members:
                _operation(one, ids[n.number], n, loop)
    if len(loop.nodes) > len(nodes) and len(nodes) == budget:
        rest = f"{len(loop.nodes) - budget} more, not drawn"
        frame.node(keys.fresh(f"{loop.name} rest"), label=_rows([text(rest, 10, SOFT)]), style="rounded,filled,dashed")
    for n in nodes:
        for x in dict.fromkeys(x.number for x in n.inputs):
            if x in ids:
                graph.edge(ids[x], ids[n.number])


def _operation(into, key: str, n: Tensor, loop: Loop) -> None:
    assert n.op is not None
    product = n.op.kind == "product"
    name = loop.names.get(n.number) or (short(n.name) if n.name else "")
    said = formula(n, loop.names, 2) if product else n.op.symbol or n.op.name
    rows = [text(f"{name} = {said}" if name else said, 12, INK, product or bool(name), 40)]
    into.node(key, label=_rows(rows), fillcolor=FILL[PRODUCT if product else VALUE],
              penwidth="2" if product else "1", tooltip=plain(say(n, {}, 1)))  # fmt: skip
