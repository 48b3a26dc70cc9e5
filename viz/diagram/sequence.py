"""The sequence at step level: one box per step with its states in it, states run between the boxes."""

from __future__ import annotations

from ..language.catalogue import tr
from ..language.scale import INK, PANEL, SOFT, Scale
from ..language.status import UNKNOWN
from ..language.text import clean, fitting
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
from .rows import above, columns, gap_rows, heading

GAP_WIDTH, LEFT = 126.0, 64.0


def draw_steps(
    network: Network, shown: list[int], title: str, scale: Scale | None, time_limit: float
) -> Diagram:
    return Diagram(_Sequence(network, shown, title, scale).draw(), title, "nop2", time_limit)


class _Sequence:
    def __init__(self, network: Network, shown: list[int], title: str, scale: Scale | None):
        self.network, self.shown, self.canvas = network, shown, Canvas(title)
        self.merged: dict[tuple[str, int], Group] = {}
        hidden_after = [key for key, before in network.before.items() if before in shown]
        for key in [*network.cells, *hidden_after]:
            if key not in self.merged and (key[1] in shown or key in hidden_after):
                nodes = sorted((n for g in network.cells[key] for n in g.nodes), key=lambda n: n.number)
                self.merged[key] = Group("step", *key, "", nodes)
        ends = [network.outputs[t] for t in shown if t in network.outputs]
        ends += [network.end] if network.end is not None else []
        self.flows = flows(network, [*self.merged.values(), *ends]) + bridges(network)
        self.shown_states = {b: self._states_of(b) for b in network.bands}
        groups = [
            g
            for b in network.bands
            for t in shown
            for s in self.shown_states[b]
            if (g := network.find(b, t, s))
        ]
        own = [v for g in groups if (v := gradient_status(network.statuses, g.out)[0])]
        self.scale = scale or Scale.of(
            [*(f.norm for f in self.flows if f.norm and f.source.kind != PARAMETER), *own]
        )
        self.look = Look(self.scale, value_top(g.out for g in groups), network.statuses)
        self.tall = max([card(g, 60, self.look, g.name)[1] for g in groups], default=60.0)
        self.boxes: dict[object, Box] = {}
        self.lane: dict[tuple[str, str], float] = {}
        self.routes: list[Route] = []
        self.mirrored = network.mirrored
        self.transport = {one.band: one for one in transports(network)}

    def _states_of(self, band: str) -> list[str]:
        """Memory lines first, then the others; without recurrence the last quantity."""
        carried = self.network.carried[band]
        ordered = sorted(carried, key=lambda s: s not in self.network.memory[band])
        last = next(groups for (b, _), groups in self.network.cells.items() if b == band)
        return ordered or [g.name for g in last if g.kind == QUANTITY][-1:]

    def draw(self, title: bool = True, legend: bool = True) -> str:
        """All of it as DOT; title, legend : whether they stand in it."""
        canvas, net = self.canvas, self.network
        room = 1240.0 / max(len(self.shown), 1)
        self.width = min(118.0, max(70.0, room - 56))
        self.gap = min(64.0, max(44.0, room - self.width))
        self.columns = columns(net, self.shown, 8 + LEFT + self.gap, self.width, self.gap, GAP_WIDTH)
        right = self.columns[-1].right
        y = self._above(heading(canvas, net, self.transport.values(), right, title), right)
        for band in reversed(net.bands):
            y = self._band(band, y) + 34
        self._lines()
        if legend:
            self.legend(canvas, y - 20, right)
        return canvas.picture_text()

    def legend(self, canvas: Canvas, y: float, right: float) -> None:
        """What occurs in the picture, explained; to be called after `draw`."""
        notes = [
            tr("Arrows: the forward computation. The gradient flows back against them;"),
            tr("colour and width: how much of it flows along the line; ∂h = ‖∂L/∂h‖."),
            *map(tr, [*words.ON_ARROWS, words.CARRIED] * bool(self.transport)),
        ]
        if not self.network.computed:
            notes[0] = tr(UNKNOWN)
        draw_legend(canvas, 8, y, max(right, 780), self.scale, self.look.top, notes, seen=self.look.seen)

    def _above(self, y: float, right: float) -> float:
        net = self.network
        places = [
            (net.outputs[c.t], c.left, c.width)
            for c in self.columns
            if c.t is not None and c.t in net.outputs
        ]
        y, boxes = above(
            self.canvas,
            net,
            self.look,
            y,
            min([x for _, x, _ in places], default=self.columns[0].left),
            right,
            places,
        )
        self.boxes.update(boxes.items())
        return y

    def _band(self, band: str, top: float) -> float:
        net, canvas = self.network, self.canvas
        names = self.shown_states[band]
        head = 22 + (15 if self._under_heading() else 0)
        height = head + 2 + (self.tall + 6) * len(names)
        for k, name in enumerate(names):
            self.lane[band, name] = top + head + (self.tall + 6) * k + self.tall / 2
            first = net.first.get((band, name))
            if first is not None:
                rows, _ = card(first, LEFT, self.look, name)
                y = self.lane[band, name] - self.tall / 2
                x = self.columns[-1].right + self.gap if band in self.mirrored else 8
                self.boxes[id(first)] = canvas.box(
                    f"{band} t={first.t} {name}".strip(),
                    x,
                    y,
                    LEFT,
                    self.tall,
                    rows,
                    tooltip=tip(first.out, self.look, tr("first {name}", name=name)),
                )
        below = top + height
        for c in self.columns:
            if c.t is None:
                key = f"{band} t={c.hidden[0]}..{c.hidden[-1]}".strip()
                box = canvas.box(
                    key,
                    c.left,
                    top,
                    c.width,
                    height,
                    gap_rows(self.network, band, c, self.transport.get(band), False),
                    dash="dashed",
                    colour=SOFT,
                    fill=PANEL,
                )
                self.boxes.update({(band, hidden): box for hidden in c.hidden})
                continue
            if (band, c.t) in net.cells:
                self._step(band, c.t, c.left, top, c.width, height, names)
            for g in net.inputs.get((band, c.t), ())[:1]:
                name = g.name or "x"
                rows, tall = card(g, c.width, self.look, name)
                key = f"{band} t={c.t} {name}".strip()
                self.boxes[id(g)] = canvas.box(
                    key, c.left, top + height + 24, c.width, tall, rows, tooltip=tip(g.out, self.look, name)
                )
                below = max(below, top + height + 24 + tall)
        if band:
            canvas.words(8, top + 8, band, 11, SOFT, True, "left")
        return below

    def _step(
        self, band: str, t: int, left: float, top: float, width: float, height: float, names: list[str]
    ) -> None:
        canvas = self.canvas
        box = canvas.box(
            f"{band} t={t}".strip(), left, top, width, height, fill=PANEL, tooltip=tr("step t={t}", t=t)
        )
        self.boxes[band, t] = box
        self._heading(t, left + width / 2, top + 11, width)
        for name in names:
            g = self.network.find(band, t, name)
            if g is not None:
                rows, _ = card(g, width - 10, self.look, name)
                y = self.lane[band, name] - self.tall / 2
                canvas.box(
                    f"{band} t={t} {name}".strip(),
                    left + 5,
                    y,
                    width - 10,
                    self.tall,
                    rows,
                    border=0.8,
                    fill="#fff9e8",
                    tooltip=tip(g.out, self.look, f"{name} t={t}"),
                )

    def _under_heading(self) -> bool:
        """Whether some caption finds no room beside its "t = 3" and all stand below."""
        captions = self.network.captions
        return any(
            7.4 * len(f"t = {t}  {clean(captions[t])}") > self.width for t in self.shown if t in captions
        )

    def _heading(self, t: int, x: float, y: float, width: float) -> None:
        """The time, and beside or below it the step's caption."""
        canvas, said = self.canvas, self.network.captions.get(t, "")
        if not said or self._under_heading():
            canvas.words(x, y, f"t = {t}", 12, INK, True)
            if said:
                canvas.words(x, y + 15, fitting(said, width, 11), 11)
            return
        whole = f"t = {t}  {clean(said)}"
        canvas.words(x, y, whole, 11.5, INK, True)

    def _box(self, g: Group) -> Box | None:
        """Its own box, or that of its step; an output of a hidden step has none."""
        within = g.kind in (QUANTITY, SHARED, "step")
        return self.boxes.get(id(g)) or (self.boxes.get((g.band, g.t)) if within else None)

    def _lines(self) -> None:
        for f in self.flows:
            source, target = self._box(f.source), self._box(f.target)
            if source is None or target is None or source is target:
                continue
            level = self.lane.get((f.source.band, f.source.name))
            if (
                f.source.kind in (QUANTITY, FIRST)
                and f.source.band == f.target.band
                and f.target.kind == "step"
                and level is not None
            ):
                sides = ("left", "right") if f.source.band in self.mirrored else ("right", "left")
                self.routes.append(Route(source, sides[0], target, sides[1], lane=True, at=level, what=f))
            elif (
                f.target.kind in (OUTPUT, END) and f.source.kind == QUANTITY and f.source.t not in self.shown
            ):
                continue
            else:
                # To a first state over the heads of the steps between.
                over = Corridor(("over", f.source.band), "h", source.top - 12, -4)
                via = [over] if f.target.kind == FIRST else []
                self.routes.append(Route(source, "top", target, "bottom", via, what=f))
        lay(self.routes)
        for r in self.routes:
            f = r.what
            assert isinstance(f, Flow)
            status, label = words.on_arrow(self.transport, f) if r.lane else (f.status, "")
            stroke = self.scale.stroke(f.norm, status)
            self.look.seen.add(status or self.scale.status(f.norm))
            said = flow_said(f.norm, status, self.scale)
            label = label or stroke.mark
            (x0, y0), (x1, y1) = r.points[0], r.points[-1]
            at = ((x0 + x1) / 2, y0 - 8 - stroke.width / 2) if r.lane else (x1 + 18, (y0 + y1) / 2)
            self.canvas.line(
                source=r.source.key,
                target=r.target.key,
                points=r.points,
                stroke=stroke,
                tooltip=said,
                label=label,
                at=at,
            )
