"""The gradient that flows back through time: how much arrives at each state, and by which way.

Bars on the logarithmic scale say where it vanishes or explodes; below, the
gradient of each state is split: from the loss, from the same step, and from the
next step through each of its gates.  Headlines and arrows speak of transport: which part
of the next step's gradient arrives.
"""

from __future__ import annotations

import numpy as np

from minigrad import Tensor

from ..diagram.canvas import Canvas
from ..diagram.legend import UNKNOWN, legend
from ..diagram.render import Diagram
from ..diagram.rows import headlines
from ..language.scale import INK, SOFT, Scale
from ..language.states import CUT, NORMAL, NOT_COMPUTED, ZERO
from ..language.text import number, pretty
from ..measure import words
from ..measure.transport import Link, transports
from ..measure.ways import FROM_LOSS, STRAIGHT, State, arrays, carried, split
from ..read.network import Captions, Network, read, roots_of
from .canvas_chart import (
    CELL,
    LABELS,
    Frame,
    column_width,
    decades,
    drawn,
    gradient_cell,
    row,
    sampled,
    steps_below,
)

__all__ = ["FROM_LOSS", "STRAIGHT", "gradient", "split"]
BARS = 84.0


def gradient(
    what: Tensor | list,
    steps: list | None = None,
    *,
    title: str = "",
    scale: Scale | None = None,
    time_limit: float = 20.0,
    captions: Captions | None = None,
) -> Diagram:
    """How much gradient arrives at every carried state, step by step, and by which way it came.

    what : the loss (or any tensor) after ``loss.backward(record=True)``, or the steps.
    steps, title, scale, time_limit, captions : as for `draw`.

    Raises InputError where there is no recurrence to look at.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    carried("gradient", network)
    assert network is not None
    title = title or "The gradient on its way back through time"
    flowing = _Flowing(network, title, scale)
    return Diagram(flowing.draw(), title, "nop2", time_limit, arrays(flowing.states))


class _Flowing:
    def __init__(self, network: Network, title: str, scale: Scale | None):
        self.network = network
        self.canvas = Canvas(title)
        times = sorted({*network.steps, *(g.t for g in network.first.values())})
        self.all_times = times
        self.times, self.stride = drawn(times)
        # A layer that reads the sequence from its end: its gradient flows to the right.
        self.mirrored = network.mirrored
        self.transport = {one.band: one for one in transports(network)}
        self.states = [split(network, *which, self.times) for which in carried("gradient", network)]
        numbers = [v for s in self.states for v in s.total.values() if v] + [
            v for s in self.states for p in s.parts.values() for v in p.values()
        ]
        self.scale = scale or Scale.of(numbers)
        # The axis goes as far as the numbers; the colours stop at vanished and exploded.
        self.low, self.high = decades(numbers, self.scale)
        self.column = column_width(len(self.times))

    def draw(self) -> str:
        canvas = self.canvas
        right = LABELS + self.column * len(self.times)
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        said = (
            "Bars: ‖∂L/∂state‖ on a logarithmic scale. Arrows: the way back from step t + 1 to step t. "
            "Below: by which way it came."
        )
        said += sampled(self.stride, len(self.all_times))
        canvas.words(8, 34, said, 9.5, SOFT, align="left", longest=220)
        y = 54.0
        for state in self.states:
            one = self.transport.get(state.band)
            if one is not None and state is next(s for s in self.states if s.band == state.band):
                y = headlines(canvas, [one], y, right) + 4
            y = self._state(state, y, right) + 24
        notes = [
            "The parts are vectors: their norms do not add up to the norm of the sum.",
            "“straight along”: element by element from the next step's state; "
            "“through f”: by way of gate f of step t + 1.",
        ]
        if self.transport:
            notes.append(words.ON_ARROWS)
        if not self.network.computed:
            notes[0] = UNKNOWN
        legend(canvas, 8, y - 6, max(right, 780), self.scale, None, notes)
        return canvas.picture_text()

    def _x(self, k: int) -> float:
        return LABELS + self.column * (k + 0.5)

    def _state(self, state: State, top: float, right: float) -> float:
        canvas, name = self.canvas, pretty(state.name)
        memory = state.name in self.network.memory[state.band]
        who = f"{state.band}: " if state.band else ""
        canvas.words(8, top + 8, f"{who}∂L/∂{name}", 13, INK, True, "left")
        start = max(LABELS, 20 + 8.2 * len(f"{who}∂L/∂{name}"))
        canvas.words(
            start,
            top + 8,
            ("Memory line. " if memory else "") + self._verdict(state),
            10.5,
            INK,
            align="left",
            longest=160,
        )
        odd = any(
            self.scale.state(v) in ("exploded", "not a number") for v in state.total.values() if v is not None
        )
        base = top + (40 if odd else 28) + BARS
        self.frame = Frame(canvas, LABELS, base - BARS, right - LABELS, BARS, self.low, self.high)
        self.frame.grid(f"{state.band} {state.name}")
        for k, t in enumerate(state.times):
            self._bar(state, k, t, base)
        boxes = [self._stop(state, k, t, base + 21) for k, t in enumerate(state.times)]
        self._arrows(state, boxes, base + 21)
        return self._parts(state, base + 40)

    def _verdict(self, state: State) -> str:
        """In words: what happens between the last step and the first."""
        known = [(t, v) for t in state.times if (v := state.total.get(t)) is not None]
        if not known:
            return "not computed: run loss.backward(record=True)"
        bad = [t for t, v in known if self.scale.state(v) == "not a number"]
        if bad:
            return f"not a number from t = {max(bad)} back to t = {min(bad)}"
        positive = [(t, v) for t, v in known if v > 0]
        if len(positive) < 2:
            return "exactly zero" + (f" except at t = {positive[0][0]}" if positive else " everywhere")
        worst = {self.scale.state(v) for _, v in positive} & {"vanished", "exploded"}
        alarm = "".join(
            f" It has {w} at t = {_span([t for t, v in positive if self.scale.state(v) == w])}."
            for w in sorted(worst)
        )
        one = self.transport.get(state.band)
        if one is None or len(one.states) == 1:  # the headline says it
            return alarm.strip()
        return words.carried(one.factors(state.name), f"to {pretty(state.name)}") + alarm

    def _bar(self, state: State, k: int, t: int, base: float) -> None:
        """A bar with its number on it; what has no size on the scale is said in words."""
        if t not in state.total:
            return
        value, why = state.total[t], state.why.get(t)
        kind = self.scale.state(value)
        if value is None or kind == ZERO:
            said = "0" if kind == ZERO else {CUT: "cut", NOT_COMPUTED: "–"}.get(why or "", "–")
            self.canvas.words(self._x(k), base - 8, said, 9.5, SOFT, True)
            return
        width, height = (
            min(self.column * 0.62, 60),
            max(1.5, base - self.frame.y(value)) if value == value else BARS,
        )
        dash, border = ("solid", 0.0) if kind == NORMAL else ("dashed", 1.5)
        self.canvas.box(
            f"bar {state.band} {state.name} t={t}", self._x(k) - width / 2, base - height, width, height,
            dash=dash, border=border, fill=self.scale.colour(value), rounded=False,
            tooltip=f"{state.name} t={t}: {number(value, 4)} ({kind})",
        )  # fmt: skip
        self.canvas.words(self._x(k), base - height - 9, number(value), 9.5, INK, True, paper="#ffffff")
        if kind != NORMAL and np.isfinite(value):
            self.canvas.words(self._x(k), base - height - 21, kind, 8, self.scale.colour(value), True)

    def _stop(self, state: State, k: int, t: int, y: float):
        """The dot that stands for a step on the lane."""
        if t not in state.total:
            return None
        value, why = state.total.get(t), state.why.get(t)
        return self.canvas.box(
            f"{state.band} {state.name} t={t}".strip(), self._x(k) - 6, y - 6, 12, 12, border=1.2,
            dash="dashed" if value is None else "solid",
            colour=INK if value is not None else SOFT,
            tooltip=f"{state.name} t={t}: {why or number(value or 0, 4)}",
        )  # fmt: skip

    def _arrows(self, state: State, boxes, y: float) -> None:
        """From each step back to the one before it."""
        for k in range(len(boxes) - 1):
            mirrored = state.band in self.mirrored
            t = state.times[k + 1] if mirrored else state.times[k]
            if t not in state.total or boxes[k] is None or boxes[k + 1] is None:
                continue
            value = state.next_step.get(t)
            link = self._link(state, t)
            cut = link is not None and state.name in link.cut
            why = CUT if cut else NOT_COMPUTED
            stroke = self.scale.stroke(value, why if value is None or cut else None)
            said = why if value is None or cut else f"from the next step to t={t}: {number(value, 4)}"
            part = link.by_state.get(state.name) if link is not None and not cut else None
            label = "✂ cut" if cut else words.factor(part) if part is not None else stroke.mark
            middle = (boxes[k].right + boxes[k + 1].left) / 2
            if label:
                self.canvas.words(middle, y - 10, label, 9, INK, True)
            self.canvas.line(
                boxes[k].key,
                boxes[k + 1].key,
                [(boxes[k].right, y), (boxes[k + 1].left, y)],
                stroke,
                said,
                arrow="end" if mirrored else "start",
            )

    def _link(self, state: State, t: int) -> Link | None:
        one = self.transport.get(state.band)
        return next((x for x in one.links if x.t == t), None) if one is not None else None

    def _parts(self, state: State, top: float) -> float:
        """A row of cells for every way, and the numbers of the steps below."""
        name = pretty(state.name)
        for r, label in enumerate(state.ways):
            values = [state.parts[label].get(t) for t in state.times]
            cells = [
                gradient_cell(v, self.scale, self.column, state=None if v is not None else "") for v in values
            ]
            row(
                self.canvas, f"{state.band} {state.name} {label}".strip(), LABELS, top + CELL * (r + 0.5), self.column,
                cells, f"{label} {name}" if label == STRAIGHT else label, tooltip=f"{state.name}: {label}",
            )  # fmt: skip
        y = top + CELL * len(state.parts) + 9
        return steps_below(self.canvas, LABELS, y, self.column, state.times, self.network.captions)


def _span(times: list[int]) -> str:
    return f"{min(times)}" if len(times) == 1 else f"{min(times)} … {max(times)}"
