"""The rows and columns of an unrolled network at gate level, and what stands in its boxes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..language.catalogue import tr, trn
from ..language.scale import INK, SOFT
from ..language.text import number, span
from ..measure import words
from ..measure.folding import held, product
from ..measure.links import Transport
from ..measure.reasons import zero_said
from ..read.network import QUANTITY, SHARED, Group, Network, gradient_status, joined, parameter_flows
from ..read.titles import equations_of, sizes
from .canvas import Box, Canvas
from .cards import Look, card, short, tip
from .markup import text

COLUMN, GAP, LEFT, RIGHT, STEP_GAP, TRACK = 66.0, 10.0, 22.0, 42.0, 12.0, 8.0
MOST_INPUTS = 3  # of a step, that are drawn


@dataclass
class Column:
    """One place on the time axis: a step, or the gap where steps are left out."""

    t: int | None
    hidden: Sequence[int] = ()
    left: float = 0.0
    width: float = 0.0

    @property
    def right(self) -> float:
        return self.left + self.width


class Band:
    """The rows of one layer and where they lie."""

    def __init__(self, network: Network, name: str, times: list[int], look: Look):
        self.name = name
        groups = [g for t in times for g in network.cells.get((name, t), ())]
        quantities = list(dict.fromkeys(g.name for g in groups if g.kind == QUANTITY))
        carried = network.carried[name]
        self.top_states = [s for s in carried if s in network.memory[name]]
        self.low_states = [s for s in carried if s not in network.memory[name]]
        self.gates = [q for q in quantities if q not in carried]
        if not carried and self.gates:  # no recurrence: the last quantity is the output
            self.low_states = [self.gates.pop()]
        self.shared = any(g.kind == SHARED for g in groups)
        low = bool(self.shared) + bool(self.low_states)
        # The row of inputs below the steps: of x, and of at most two beside it.
        inputs = [network.inputs.get((name, t), [])[:MOST_INPUTS] for t in times]
        self.inputs = max(
            (card(g, COLUMN, look, g.name or "x")[1] for own in inputs for g in own), default=0.0
        )
        self.columns = max(len(self.gates), low, 1, *map(len, inputs))
        self.cards: dict[int, tuple[list[str], float]] = {}
        for g in groups:
            self.cards[id(g)] = self._card(network, g, look)
        self.heights = {
            "top": max(
                [c[1] for g in groups if g.name in self.top_states and (c := self.cards[id(g)])], default=0.0
            ),
            "gate": max(
                [c[1] for g in groups if g.name in self.gates and (c := self.cards[id(g)])], default=0.0
            ),
            "low": max(
                [self.cards[id(g)][1] for g in groups if g.kind == SHARED or g.name in self.low_states],
                default=0.0,
            ),
        }
        self.step_width = LEFT + self.columns * (COLUMN + GAP) - GAP + RIGHT

    def _card(self, network: Network, g: Group, look: Look) -> tuple[list[str], float]:
        out = g.out
        symbol = (
            out.op.symbol
            if g.kind == QUANTITY and out.op and out.op.kind == "elementwise" and len(out.inputs) == 1
            else ""
        )
        extra = []
        for flow in sorted(parameter_flows(network, g), key=lambda f: -f.source.out.ndim)[:1]:
            said = "–" if flow.norm is None else number(flow.norm)
            line = f"∂{short(flow.source.name or 'W')} {said}"
            extra.append(text(line, min(9.5, 60 / (0.62 * len(line))), SOFT))
        if gradient_status(network.statuses, g.out)[0] == 0 and (why := zero_said(network, g)):
            extra.insert(0, text(why, min(8, 58 / (0.62 * len(why))), SOFT))
        width = COLUMN
        if g.name in self.top_states:
            first, last = self.span(network, g)
            width = min((last - first) * (COLUMN + GAP) + COLUMN, 150)
        elif g.name in self.low_states:
            width = COLUMN + RIGHT - 10
        return card(g, width, look, g.name or joined(network, g), symbol, extra)

    def span(self, network: Network, g: Group) -> tuple[int, int]:
        """The first and the last column of the gates that a state above them reads."""
        read = {
            network.group_of[x.number].name
            for n in g.nodes
            for x in n.inputs
            if network.group_of[x.number].t == g.t
        }
        over = [k for k, q in enumerate(self.gates) if q in read] or [0]
        return min(over), max(over)

    def place(self, top: float, upward: int) -> float:
        """Set the rows from `top` down; upward: how many tracks the channel above the gates needs."""
        self.panel_top = top
        y = top + 20
        self.lane_y: dict[str, float] = {}
        for s in self.top_states:
            self.lane_y[s] = y + self.heights["top"] / 2
            y += self.heights["top"] + 12
        self.up_bottom = y + (16 + TRACK * upward if self.top_states else 6)
        self.gate_top = self.up_bottom
        y = self.gate_top + self.heights["gate"]
        self.low_top = y + 15  # a mark above the first line is clear of the gates
        if self.heights["low"]:
            y = self.low_top + (TRACK * max(len(self.gates), 1) + 8 if self.gates else 4)
            for s in self.low_states or [""]:
                self.lane_y[s] = y + self.heights["low"] / 2
                y += self.heights["low"] + 10
        self.under = y + 2
        self.panel_bottom = y + 14
        self.input_top = self.panel_bottom + 16
        return self.input_top + self.inputs - 8

    @property
    def first_low(self) -> float:
        return self.lane_y[(self.low_states or [""])[0]]


def columns(
    network: Network, shown: list[int], left: float, width: float, between: float, gap: float
) -> list[Column]:
    """Steps and gaps from left to right; between: the space after each, gap: the width of a gap."""
    found: list[Column] = []
    hidden: list[int] = []
    for t in [*network.times, None]:
        if t is not None and t not in shown:
            hidden.append(t)
            continue
        if hidden:
            # Room on its left for the number on the line that runs into it.
            start = left + max(0.0, 34 - between)
            found.append(Column(None, hidden, start, gap))
            left, hidden = start + gap + (max(34, between) if network.mirrored else between), []
        if t is not None:
            found.append(Column(t, (), left, width))
            left += width + between
    return found


def above(
    canvas: Canvas, network: Network, look: Look, y: float, first: float, right: float,
    places: Sequence[tuple[Group, float, float]], again: bool = False,
    loss: bool = True,
) -> tuple[float, dict[int, Box]]:  # fmt: skip
    """The end as a bar from `first` to `right`, and below it the outputs, each with its left end and width.

    again : whether the end stands in a line above already; loss : whether it stands in this one.

    Returns where the steps begin, and the boxes by id of their groups.
    """
    boxes: dict[int, Box] = {}
    if network.end is not None and loss:
        called = network.end_text + tr("  (the same)") * again
        content, said = text(called, 13, bold=True), tip(network.end.out, look, tr("loss"))
        box = canvas.box(
            "loss" + " again" * again,
            first,
            y,
            right - first,
            26,
            content,
            tooltip=said,
        )
        boxes[id(network.end)] = replace(box, key="loss")
        y += 52
    made = [card(g, width, look, g.name) for g, _, width in places]
    height = max((h for _, h in made), default=0.0)
    for (g, left, width), (rows, _) in zip(places, made, strict=True):
        said = tip(g.out, look, tr("output t={t}", t=g.t))
        boxes[id(g)] = canvas.box(f"t={g.t} output", left, y, width, height, rows, tooltip=said)
    return y + (height + 26 if made else 0 if boxes else 16), boxes


def gap_rows(network: Network, band: str, column: Column, one: Transport | None, gates: bool) -> list[str]:
    """What the box of a gap says: its steps, the factor over all of them, the range of everything in it."""
    rows = [
        text(span(column.hidden), 12, bold=True),
        text(trn("{n} step", "{n} steps", len(column.hidden)), 10, SOFT),
        text(tr("not drawn"), 10, SOFT),
    ]
    over = product(one, column.hidden) if one is not None else None
    if over is not None:
        rows.append(text(tr("all of them ×{factor}", factor=number(over)), 8.5, INK, True))
    rows += [text(tr("arrows: first, last of them"), 8, SOFT)] * (one is not None)
    return rows + [
        text(line, max(6.0, min(8.5, 112 / (0.6 * len(line)))))
        for line in held(network, band, column.hidden, gates)
    ]


def heading(
    canvas: Canvas, network: Network, found: Iterable[Transport], right: float, title: bool = True
) -> float:
    """The title, the sizes, the equations in as many columns as fit, the headlines; returns where they end."""
    y = 12.0
    if title:
        canvas.words(8, y, canvas.title, 15, INK, True, "left")
        y += 20
    for line in textwrap.wrap(sizes(network), int(max(right, 780) / 6.8)):
        canvas.words(8, y, line, 10, SOFT, align="left", longest=400)
        y += 15
    lines = equations_of(network)
    width = 6.8 * max(map(len, lines), default=1) + 24
    across = max(1, int((max(right, 780) - 8) / width))
    down = -(-len(lines) // across)
    for k, line in enumerate(lines):
        canvas.words(8 + width * (k // down), y + 14 * (k % down), line, 10, INK, align="left", longest=400)
    return headlines(canvas, found, y + 14 * down + 6, right, words.inputs_cut(network))


def headlines(canvas: Canvas, found: Iterable[Transport], y: float, right: float, more: str = "") -> float:
    """The headlines, no wider than the picture; returns where they end."""
    most = int(max(right, 780) / 7.2)  # letters, of the room that `words` gives to one
    for sentences in (*map(words.sentences, found), [more]):
        lines: list[str] = []
        for said in (piece for sentence in sentences for piece in textwrap.wrap(sentence, most)):
            if lines and len(lines[-1]) + len(said) < most:
                lines[-1] += f" {said}"
            else:
                lines.append(said)
        for line in lines:
            canvas.words(8, y, line, 10.5, INK, True, "left", longest=400)
            y += 16
    return y
