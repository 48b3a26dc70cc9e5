"""The unrolled network at gate level: a box per step, in it a box per gate, states on lanes of their own.

Memory lines (states that run on by element-wise operations alone) stand above the
gates, the other states below, as on the slide.  The picture answers: what is
computed from what, with which values, and along which line how much gradient
flows back.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np

from ..language.catalogue import tr
from ..language.scale import INK, PANEL, SOFT, Scale
from ..language.status import UNKNOWN
from ..language.text import fitting, identifier
from ..measure import words
from ..measure.transport import transports
from ..read.network import (
    END,
    FIRST,
    OUTPUT,
    PARAMETER,
    QUANTITY,
    SHARED,
    Flow,
    Group,
    Network,
    bridges,
    flows,
    gradient_status,
)
from .canvas import Box, Canvas
from .cards import Look, card, flow_said, tip, value_top
from .legend import legend as draw_legend
from .render import Diagram
from .router import Corridor, Route, lay
from .rows import (
    COLUMN,
    GAP,
    LEFT,
    MOST_INPUTS,
    RIGHT,
    STEP_GAP,
    TRACK,
    Band,
    Column,
    above,
    columns,
    gap_rows,
    heading,
)  # fmt: skip

PAGE, FIRST_WIDTH = 1690.0, 60.0  # points of a line of steps; of the states that come into it
START = 8 + FIRST_WIDTH + STEP_GAP + 20
LANE, STATE = "#fbeec3", "#fff9e8"


class Unrolled:
    """Places and draws everything; one instance per picture."""

    def __init__(self, network: Network, shown: list[int], title: str, scale: Scale | None):
        self.network, self.shown = network, shown
        self.canvas = Canvas(title)
        groups = [g for b in network.bands for t in shown for g in network.cells.get((b, t), ())]
        groups += [network.outputs[t] for t in shown if t in network.outputs]
        groups += [network.end] if network.end is not None else []
        self.flows = flows(network, groups) + bridges(network)
        self.gap_flows = self._flows_into_gaps()
        numbers = [f.norm for f in self.flows + self.gap_flows if f.norm and f.source.kind != PARAMETER]
        # The end's own gradient is 1 by definition and says nothing.
        numbers += [gradient_status(network.statuses, g.out)[0] for g in groups if g is not network.end]
        self.scale = scale or Scale.of(n for n in numbers if n)
        visible = [g.out for g in groups if g.kind == QUANTITY]
        self.look = Look(self.scale, value_top(visible), network.statuses)
        self.boxes: dict[int, Box] = {}  # by id of the group; only to look up, never to write
        self.gaps: list[tuple[Column, Box]] = []
        self.routes: list[Route] = []
        # A layer that reads the sequence from its end is drawn in the mirror.
        self.mirrored = network.mirrored
        self.transport = {one.band: one for one in transports(network)}

    def _flows_into_gaps(self) -> list[Flow]:
        """From a state of the last step before a gap to all of the hidden step that reads it."""
        found = []
        for (band, t), before in sorted(self.network.before.items()):
            if t not in self.shown and before in self.shown:
                members = (n for g in self.network.cells[band, t] for n in g.nodes)
                merged = Group("hidden", band, t, "", sorted(members, key=lambda n: n.number))
                found += [
                    f
                    for f in flows(self.network, [merged])
                    if f.source.kind == QUANTITY and f.source.t == before and f.source.band == band
                ]
        return found

    # Places.

    def draw(self, title: bool = True, legend: bool = True) -> str:
        """All of it as DOT; title, legend : whether they stand in it."""
        net, canvas = self.network, self.canvas
        self.whole = [Band(net, b, self.shown, self.look) for b in net.bands]
        for band in self.whole:
            self._room_for_labels(band)
        step_width = max(b.step_width for b in self.whole)
        lines = self._wrapped(columns(net, self.shown, START, step_width, STEP_GAP, 128))
        right = max(line[-1].right for line in lines)
        y = heading(canvas, net, self.transport.values(), right, title)
        for self.columns in lines:
            y = self._steps(y) + 18
        if legend:
            self.legend(canvas, y - 12, right)
        return canvas.picture_text()

    def _room_for_labels(self, band: Band) -> None:
        """Boxes of states so high that each arrow that leaves them has its number."""
        counts: dict[tuple[str, int, int], int] = {}
        for f in self.flows + self.gap_flows:
            if f.source.band == band.name and self._between(f):
                key = f.source.name, f.source.t, f.target.t
                counts[key] = counts.get(key, 0) + 1
        for row, names in (("top", band.top_states), ("low", band.low_states)):
            most = max([n for (name, *_), n in counts.items() if name in names], default=0)
            if most > 1:
                band.heights[row] = max(band.heights[row], 2 * (11 + 11.0 * (most + 1)))

    def legend(self, canvas: Canvas, y: float, right: float) -> None:
        """What occurs in the picture, explained; to be called after `draw`."""
        notes = [
            tr("Arrows: the forward computation. The gradient flows back against them;"),
            tr("colour and width of a line: how much of it flows along that line."),
            tr(
                "In a box: cells and numbers are the values (of a gate: mean, and range), then cells of the gradient"
            ),
            tr("(− marks negative); ∂f = ‖∂L/∂f‖, and ∂W = what this step alone adds to ‖∂L/∂W‖."),
            *map(tr, [*words.ON_ARROWS, words.CARRIED] * bool(self.transport)),
        ]
        if not self.network.computed:
            notes = [tr(UNKNOWN), tr("Arrows: the forward computation.")]
        draw_legend(canvas, 8, y, max(right, 780), self.scale, self.look.top, notes, seen=self.look.seen)

    def _wrapped(self, whole: list[Column]) -> list[list[Column]]:
        """Lines of steps that a page is wide enough for; a fold never ends a line, as its states run on."""
        net, before = self.network, self.network.before
        far = any(
            f.source.kind == QUANTITY and f.target.kind in (QUANTITY, SHARED, FIRST) and f.source.t != f.target.t
            and (f.source.band != f.target.band or before.get((f.target.band, f.target.t)) != f.source.t)
            for f in self.flows
        )  # fmt: skip
        if far or whole[-1].right <= PAGE * 1.05:
            return [whole]
        count = -(-len(net.times if len(whole) == len(net.times) else whole) // max(
            1, int((PAGE - START) / (whole[-1].width + STEP_GAP))
        ))  # fmt: skip
        each, lines = -(-len(whole) // count), [[]]  # type: ignore[var-annotated]
        for column in whole:
            steps = [c for c in lines[-1] if c.t is not None]
            if len(steps) >= each or (column.t is None and len(steps) == each):
                lines.append([])
            lines[-1].append(column)
        for line, following in itertools.pairwise(lines):
            if line[-1].t is None:
                following.insert(0, line.pop())
        for line in lines:
            by = line[0].left - START
            for column in line:
                column.left -= by
        return lines

    def _steps(self, y: float) -> float:
        """One line of steps, with the loss above and the states that come into it on its left."""
        self.bands, start = [copy.copy(b) for b in self.whole], len(self.routes)
        y = self._end_and_outputs(y, self.columns[-1].right)
        for band in reversed(self.bands):  # the first layer lowest, near its inputs
            y = band.place(y, self._upward(band)) + (26 if band is not self.bands[0] else 10)
            self._band(band)
        self._route_all()
        lay(self.routes[start:])
        for route in self.routes[start:]:
            self._line(route)
        return y

    def _flip(self, band: str, column: Column, x: float, width: float) -> float:
        """The left end of a box, in the mirror where the band runs backwards."""
        return column.left + column.right - x - width if band in self.mirrored else x

    def _end_and_outputs(self, y: float, right: float) -> float:
        net, canvas = self.network, self.canvas
        outputs = [(c, net.outputs[c.t]) for c in self.columns if c.t is not None and c.t in net.outputs]
        first = min([c.left for c, _ in outputs], default=self.columns[0].left)
        places = [(g, c.right - COLUMN - 40, COLUMN + 36) for c, g in outputs]
        again = id(net.end) in self.boxes  # in a line above
        here = {t for c in self.columns for t in (c.hidden or [c.t])}
        sent = [
            f.source.t for f in self.flows if f.target.kind == END and f.source.kind in (QUANTITY, OUTPUT)
        ]
        loss = not set(sent).isdisjoint(here) or (not sent and not again)
        if outputs and len(outputs) < len(self.columns):  # the loss reads these steps alone
            right = max(left + width for _, left, width in places)
        y, boxes = above(canvas, net, self.look, y, first, right, places, again, loss)
        self.boxes.update(boxes)
        return y

    def _upward(self, band: Band) -> int:
        """How many lines run in the channel above the gates of one step."""
        counts: dict[int, int] = {}
        for f in self.flows:
            if f.target.band == band.name and f.target.t in self.shown and self._channel(band, f) == "up":
                counts[f.target.t] = counts.get(f.target.t, 0) + 1
        return max(counts.values(), default=0)

    def _channel(self, band: Band, f: Flow) -> str:
        here = f.source.t == f.target.t
        role, to = self._role(band, f.source), self._role(band, f.target)
        if to == "gate" and role in ("top", "gate") and not (role == "gate" and not here):
            return "up"
        return "up" if to == "top" and role == "low" else ""

    def _role(self, band: Band, g: Group) -> str:
        if g.kind == SHARED:
            return SHARED
        if g.kind not in (QUANTITY, FIRST):
            return g.kind
        return "top" if g.name in band.top_states else "low" if g.name in band.low_states else "gate"

    def _band(self, band: Band) -> None:
        canvas = self.canvas
        for column in self.columns:
            if column.t is None:
                self._gap(band, column)
            else:
                self._step(band, column, column.t)
        last = self.columns[-1]
        one = self.transport.get(band.name)
        for name in (s for s in band.top_states if one is None or one.leads(s)):
            y = band.lane_y[name]
            end = (
                last.right if band.name in self.mirrored else last.left + LEFT + COLUMN / 2
            )  # where it arrives
            lane = canvas.panel(f"{band.name} memory line {name}".strip(), 30, y - 13, end - 30, 26, "", LANE)
            canvas.box(f"lane {band.name} {name}", 30, y, 0.1, 0.1, border=0, panel=lane, fill=LANE)
        self._first_states(band, last.right + STEP_GAP if band.name in self.mirrored else 8)
        if band.name:
            canvas.words(8, band.panel_top - 8, band.name, 11, SOFT, True, "left")

    def _first_states(self, band: Band, x: float) -> None:
        """In the column before the step that is computed first."""
        net, mirrored = self.network, band.name in self.mirrored
        every = [t for c in self.columns for t in (c.hidden or [c.t]) if t is not None]
        times = [t for t in every if (band.name, t) in net.cells]
        start = times[-1 if mirrored else 0] if times else 0
        before = net.before.get((band.name, start))  # of a line of steps that goes on from the one above
        found = [
            (name, g)
            for name in band.lane_y
            if (
                g := net.first.get((band.name, name)) if before is None else net.find(band.name, before, name)
            )
        ]
        said = f"t = {before}" if before is not None else tr("first") if mirrored else "t = 0"
        if found:
            if before is not None:
                said += tr(" again")
            self.canvas.words(x + 26, band.panel_top + 11, said, 12 if before is None else 10, INK, True)
        for name, g in found:
            rows, height = card(g, FIRST_WIDTH, self.look, name)
            height = max(height, band.heights["top" if name in band.top_states else "low"])
            key = f"{band.name} t={0 if before is None else before} {name}".strip()
            box = self.canvas.box(
                key + " again" * (before is not None), x, band.lane_y[name] - height / 2, FIRST_WIDTH, height, rows,
                tooltip=tip(g.out, self.look, f"{name} {said}"),
            )  # fmt: skip
            # Where the step itself is drawn, its arrows keep its name.
            self.boxes[id(g)] = replace(box, key=identifier(key)) if before in self.shown else box

    def _gap(self, band: Band, column: Column) -> None:
        times = column.hidden
        rows = gap_rows(self.network, band.name, column, self.transport.get(band.name), True)
        box = self.canvas.box(
            f"{band.name} t={times[0]}..{times[-1]}".strip(), column.left, band.panel_top, column.width,
            band.panel_bottom - band.panel_top, rows, fill=PANEL, dash="dashed", colour=SOFT,
        )  # fmt: skip
        self.gaps.append((column, box))
        for g in (g for t in times for g in self.network.cells.get((band.name, t), ())):
            self.boxes[id(g)] = box

    def _step(self, band: Band, column: Column, t: int) -> None:
        net, canvas = self.network, self.canvas
        cell = net.cells.get((band.name, t))
        if not cell:
            return
        left = column.left
        panel = canvas.panel(
            f"{band.name} t={t}".strip(),
            left,
            band.panel_top,
            column.width,
            band.panel_bottom - band.panel_top,
            f"t = {t}",
            at=column.right - 30 if band.name in self.mirrored else None,
        )
        self._caption(band, column, t)

        for g in cell:
            place = self._place(band, column, g)
            self._put(band, column, g, band.cards[id(g)][0], *place, panel)
        for k, g in enumerate(net.inputs.get((band.name, t), ())[:MOST_INPUTS]):
            rows, height = card(g, COLUMN, self.look, g.name or "x")
            left = column.left + LEFT + k * (COLUMN + GAP)
            self._put(band, column, g, rows, left, band.input_top, COLUMN, height, "#ffffff", "")

    def _place(self, band: Band, column: Column, g: Group) -> tuple[float, float, float, float, str]:
        """Where a group of a step stands: left, top, width, height, and the colour of its box."""
        left, pitch, kind = column.left + LEFT, COLUMN + GAP, self._role(band, g)
        if kind == "gate":
            left += pitch * band.gates.index(g.name)
            return left, band.gate_top, COLUMN, band.heights["gate"], "#ffffff"
        if kind == SHARED:
            return left, band.first_low - band.heights["low"] / 2, COLUMN, band.heights["low"], "#ffffff"
        level = band.lane_y[g.name]
        if kind == "low":
            left += pitch * (band.columns - 1)
            height = band.heights["low"]
            return left, level - height / 2, COLUMN + RIGHT - 6, height, STATE
        first, last = band.span(self.network, g)
        height = band.heights["top"]
        return left + first * pitch, level - height / 2, (last - first) * pitch + COLUMN, height, STATE

    def _put(
        self, band: Band, column: Column, g: Group, rows, left: float, top: float, width: float,
        height: float, fill: str, panel: str,
    ) -> None:  # fmt: skip
        name = g.name or (SHARED if panel else "x")
        self.boxes[id(g)] = self.canvas.box(
            f"{band.name} t={column.t} {name}".strip(), self._flip(band.name, column, left, width), top,
            width, height, rows, panel, tip(g.out, self.look, f"{tr(name) if name == SHARED else name} t={column.t}"), fill=fill,
            border=1.6 if fill == STATE else 1.1 if panel else 1.2,
        )  # fmt: skip

    def _caption(self, band: Band, column: Column, t: int) -> None:
        """What belongs to the step from outside, beside its "t = 3"."""
        said = self.network.captions.get(t)
        if said:
            mirrored, taken = band.name in self.mirrored, 14 + 8.5 * len(f"t = {t}")
            x = column.right - taken if mirrored else column.left + taken
            self.canvas.words(
                x, band.panel_top + 11, fitting(said, column.width - taken - 8, 12), 12,
                align="right" if mirrored else "left",
            )  # fmt: skip

    # Lines.

    def _route_all(self) -> None:
        by_name = {b.name: b for b in self.bands}
        here = {t for c in self.columns for t in (c.hidden or [c.t])}
        for f in self.flows + self.gap_flows:
            if (f.source.t if f.target.kind in (END, FIRST) else f.target.t) not in here:
                continue
            source, target = self.boxes.get(id(f.source)), self.boxes.get(id(f.target))
            if f.target.kind == "hidden":
                target = next((b for c, b in self.gaps if f.target.t in c.hidden), None)
            if source is None or target is None or source is target:
                continue
            start = len(self.routes)
            band = (
                by_name.get(f.target.band)
                if f.target.kind != OUTPUT and f.target.kind != END
                else by_name.get(f.source.band)
            )
            band = band or self.bands[0]
            self._route(f, source, target, band)
            if band.name in self.mirrored:
                self._mirror(self.routes[start:])

    def _mirror(self, routes: list[Route]) -> None:
        other = {"left": "right", "right": "left"}
        for r in routes:
            assert isinstance(r.what, Flow)
            to_end = r.what.target.kind in (OUTPUT, END)
            column = self._column(r.what.source.t if to_end else r.what.target.t)
            r.leave, r.enter = other.get(r.leave, r.leave), other.get(r.enter, r.enter)
            r.via = [
                c if c.way == "h" else Corridor(c.key, "v", column.left + column.right - c.start, -c.pitch)
                for c in r.via
            ]
            if to_end:  # first up out of the step, then across
                band = next(b for b in self.bands if b.name == r.what.source.band)
                r.via = [Corridor(("over", r.what.source.t), "h", band.panel_top - 8, -3)]
            if r.leave_at is not None:
                r.leave_at = r.source.left + r.source.right - r.leave_at
            if r.enter_at is not None:
                r.enter_at = column.left + column.right - r.enter_at

    def _column(self, t: int) -> Column:
        return next(c for c in self.columns if c.t == t or t in c.hidden)

    def _route(self, f: Flow, source: Box, target: Box, band: Band) -> None:
        """Choose sides and corridors by where the two ends stand."""
        role, to = self._role(band, f.source), self._role(band, f.target)
        if f.target.kind in (OUTPUT, END):
            # At the right end of the source, clear of the gates above it.
            self.routes.append(Route(source, "top", target, "bottom", leave_at=source.right - 10, what=f))
            return
        between = Corridor(("between", f.source.band), "h", band.panel_bottom + 8, 4)
        if f.target.kind == FIRST:
            route = Route(source, "top", target, "bottom", [between], leave_at=source.right - 10, what=f)
            self.routes.append(route)
            return
        column = self._column(f.target.t)
        inner = (band.name, f.target.t)
        margin = Corridor(("left", *inner), "v", column.left + 7, 5.5)
        low = Corridor(("low", *inner), "h", band.low_top, TRACK)
        up = Corridor(("up", *inner), "h", band.gate_top - 9, -TRACK)
        under = Corridor(("under", *inner), "h", band.under, 4)
        if f.target.kind == "hidden":
            self._lane(f, source, target, band, f.source.name)
        elif f.source.band != f.target.band and f.source.kind == QUANTITY:
            self.routes.append(
                Route(source, "top", target, "bottom", [between], leave_at=source.right - 10, what=f)
            )
        elif f.source.t != f.target.t and f.source.kind in (QUANTITY, FIRST):
            self._from_before(f, source, target, band, to, role, margin, low, up, under)
        elif f.source.kind == OUTPUT:
            self.routes.append(
                Route(
                    source,
                    "right",
                    target,
                    "bottom",
                    [Corridor(("back", f.source.t), "v", column.left - 8, 3), under],
                    what=f,
                )
            )
        elif role not in ("top", "low", "gate", SHARED):  # an input, from below
            if f.source.band != f.target.band:  # past the layers between
                outer = Corridor(("outer", f.target.t), "v", column.left - 5, 2)
                self.routes.append(Route(source, "left", target, "bottom", [outer, under], what=f))
                return
            straight = to == SHARED or (to == "low" and not band.shared)
            via = [] if straight else [margin, up if to == "top" else low]
            self.routes.append(Route(source, "top" if straight else "left", target, "bottom", via, what=f))
        else:
            self._within(f, source, target, role, to, low, up, column, band)

    def _lane(self, f: Flow, source: Box, target: Box, band: Band, name: str) -> None:
        self.routes.append(Route(source, "right", target, "left", lane=True, at=band.lane_y[name], what=f))

    def _from_before(self, f, source, target, band, to, role, margin, low, up, under) -> None:
        """From a state of the step before."""
        name = f.source.name
        hidden = any(source is gap for _, gap in self.gaps)
        level = band.lane_y.get(name)
        if level is None:
            level = source.y
        first_low = to == SHARED and role == "low" and name == (band.low_states or [""])[0]
        direct = to in ("top", "low") and name == f.target.name and not (to == "low" and band.shared)
        if first_low or direct:
            self._lane(f, source, target, band, name)
            return
        via, enter = {
            "gate": ([margin, up if role == "top" else low], "top" if role == "top" else "bottom"),
            SHARED: ([margin], "left"),
            "top": ([margin, up], "bottom"),
            "low": ([margin, under], "bottom") if role == "low" else ([margin, low], "top"),
        }[to]
        route = Route(source, "right", target, enter, via, what=f)
        if hidden:  # leave the gap a little below the lane
            source = Box(source.key, source.left, level - 48, source.width, 96)
            route.source = source
        self.routes.append(route)

    def _within(self, f, source, target, role, to, low, up, column, band) -> None:
        overlap = source.left < target.right - 8 and target.left < source.right - 8
        if role == "gate" and to == "top":
            self.routes.append(Route(source, "top", target, "bottom", [] if overlap else [up], what=f))
        elif role == "gate" and to == "low":
            self.routes.append(Route(source, "bottom", target, "top", [] if overlap else [low], what=f))
        elif to == "gate" and role in (SHARED, "low"):
            straight = overlap and role == SHARED
            self.routes.append(Route(source, "top", target, "bottom", [] if straight else [low], what=f))
        elif to == "gate" and role == "gate":
            near = 0 < target.left - source.right < 1.5 * GAP
            self.routes.append(
                Route(
                    source,
                    "right" if near else "top",
                    target,
                    "left" if near else "top",
                    [] if near else [up],
                    what=f,
                )
            )
        elif role == "top" and to == "low":
            x = column.right - RIGHT + 11 + 7 * band.top_states.index(f.source.name)
            self.routes.append(Route(source, "right", target, "top", enter_at=x, what=f))
        elif role == "top" and to == "gate":
            self.routes.append(Route(source, "bottom", target, "top", [up], what=f))
        elif to == "top":
            self.routes.append(Route(source, "top", target, "bottom", [up], what=f))
        else:
            self.routes.append(Route(source, "right", target, "left", what=f))

    def _line(self, route: Route) -> None:
        f = route.what
        assert isinstance(f, Flow)
        status, said_of = words.on_arrow(self.transport, f) if self._between(f) else (f.status, "")
        stroke = self.scale.stroke(f.norm, status)
        self.look.seen.add(status or self.scale.status(f.norm))
        ends = [
            f"{g.name or tr(g.kind)} t={g.t}" if g.kind != END else tr("loss") for g in (f.source, f.target)
        ]
        said = flow_said(f.norm, status, self.scale)
        label, at = "", None
        if route.lane:
            # In the open piece of the lane, right of what it leaves.
            label = said_of or stroke.mark
            (x, y), (end, _) = route.points[0], route.points[-1]
            # Near the start of a long piece: other lines cross it further on.
            middle = min((x + end) / 2, x + 26) if end > x else max((x + end) / 2, x - 26)
            level = y - 8 - stroke.width / 2
            at = (self._clear(x, end, middle, level, 6.6 * len(label)), level)
        elif self._between(f) and route.leave in ("left", "right"):
            label, (x, y) = said_of or stroke.mark, route.points[0]
            at = (x + (20 if route.leave == "right" else -20), y - 5.5)
        elif len(stroke.mark) == 1 and _longest(route.points) > 12:  # a word would lie on other lines
            label, at = stroke.mark, _middle(route.points, len(stroke.mark))
        self.canvas.line(
            route.source.key,
            route.target.key,
            route.points,
            stroke,
            f"{ends[0]} → {ends[1]}: {said}",
            label=label,
            at=at,
            small=not route.lane and self._between(f),
        )

    def _clear(self, x: float, end: float, wanted: float, y: float, width: float) -> float:
        """The middle of a label between x and end that no upright line runs through, as near to `wanted` as can be."""
        upright = [
            a[0]
            for route in self.routes
            for a, b in itertools.pairwise(route.points)
            if abs(a[0] - b[0]) < 0.1 and min(a[1], b[1]) - 6 < y < max(a[1], b[1]) + 6
        ]
        low, high = min(x, end) + width / 2 + 1, max(x, end) - width / 2 - 1
        free = [p for p in np.arange(low, high, 2.0) if all(abs(p - at) > width / 2 + 2 for at in upright)]
        return float(min(free, key=lambda p: abs(p - wanted), default=wanted))

    def _between(self, f: Flow) -> bool:
        """Whether it runs from a state to the step after."""
        return (
            f.source.kind in (QUANTITY, FIRST)
            and f.target.kind not in (OUTPUT, END)
            and f.source.t != f.target.t
            and f.source.band == f.target.band
        )


def _longest(points) -> float:
    return max(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in itertools.pairwise(points))


def _middle(points, length: int) -> tuple[float, float]:
    """Beside the middle of the longest piece."""
    a, b = max(
        itertools.pairwise(points),
        key=lambda ab: abs(ab[0][0] - ab[1][0]) + abs(ab[0][1] - ab[1][1]),
    )
    x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    return (x + 8 + 2.6 * length, y) if abs(a[0] - b[0]) < 0.1 else (x, y - 8)


def draw_gates(
    network: Network, shown: list[int], title: str, scale: Scale | None, time_limit: float
) -> Diagram:
    return Diagram(Unrolled(network, shown, title, scale).draw(), title, "nop2", time_limit)
