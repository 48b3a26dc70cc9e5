"""The gradient that flows back through time: how much arrives at each state, and by which way.

Bars on the logarithmic scale say where it vanishes or explodes; below, the
gradient of each state is split: from the loss, from the same step, and from the
next step through each of its gates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from minigrad import InputError, Tensor
from minigrad.grad import reverse

from .canvas import Canvas
from .legend import UNKNOWN, legend
from .reading import (
    END,
    OUTPUT,
    QUANTITY,
    SHARED,
    Captions,
    Group,
    Network,
    edge_gradient,
    gradient_of,
    gradient_state,
    read,
    roots_of,
)
from .render import Picture
from .style import (
    CUT,
    FAINT,
    INK,
    NORMAL,
    NOT_COMPUTED,
    SOFT,
    ZERO,
    Scale,
    Stroke,
    decade,
    fitting,
    norm,
    number,
    pretty,
    square,
    table,
)  # fmt: skip

MOST_COLUMNS, LABELS, BARS, CELL = 27, 128.0, 84.0, 17.0
FROM_LOSS, STRAIGHT = "from the loss", "straight along"


@dataclass
class State:
    """One state over time: its gradient at each step and what it is made of."""

    band: str
    name: str
    times: list[int]
    total: dict[int, float | None] = field(default_factory=dict)
    why: dict[int, str | None] = field(default_factory=dict)
    parts: dict[str, dict[int, float]] = field(default_factory=dict)
    next_step: dict[int, float] = field(default_factory=dict)  # what comes from the next step by all ways
    cut: list[int] = field(default_factory=list)  # steps to which detach lets nothing come back


def gradient(
    what: Tensor | list,
    steps: list | None = None,
    *,
    title: str = "",
    scale: Scale | None = None,
    time_limit: float = 20.0,
    captions: Captions | None = None,
) -> Picture:
    """How much gradient arrives at every carried state, step by step, and by which way it came.

    what : the loss (or any tensor) after ``loss.backward(record=True)``, or the steps.
    steps, title, scale, time_limit, captions : as for `draw`.

    Raises InputError where there is no recurrence to look at.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    if network is None or not any(network.carried.values()):
        raise InputError(
            "gradient: no state is carried from step to step in this graph; give the loss of an unrolled cell"
        )
    return Picture(
        _Flowing(network, title or "The gradient on its way back through time", scale).draw(),
        title or "gradient",
        "nop2",
        time_limit,
    )


def split(network: Network, band: str, name: str, times: list[int]) -> State:
    """The gradient of one state at `times`, in parts."""
    state = State(band, name, times)
    after = {before: t for (b, t), before in network.before.items() if b == band}
    first = network.first.get((band, name))
    if first is not None:
        after.setdefault(first.t, next(t for b, t in network.cells if b == band))
    readers: dict[int, list[tuple[Tensor, int]]] = {}
    for n in network.nodes:
        for k, x in enumerate(n.inputs):
            readers.setdefault(x.number, []).append((n, k))
    for t in times:
        g = network.find(band, t, name) or (first if first is not None and first.t == t else None)
        if g is not None:
            _split_at(network, state, g.out, t, after.get(t), readers)
    return state


def _split_at(network: Network, state: State, node: Tensor, t: int, following: int | None, readers) -> None:
    """One step of `split`: what each reader of `node` sent back; following: the step computed next."""
    state.total[t], state.why[t] = gradient_state(network.states, node)
    found: dict[str, np.ndarray] = {}
    known, from_next = np.zeros(node.shape), np.zeros(node.shape)
    for n, k in readers.get(node.number, ()):
        part = n.contributions[k] if n.contributions else None
        reader = network.group_of[n.number]
        is_next = (reader.band, reader.t) == (state.band, following) and reader.kind in (QUANTITY, SHARED)
        if part is None:
            if is_next and edge_gradient(network.states, n, k, node)[1] == CUT and t not in state.cut:
                state.cut.append(t)
            continue
        known = known + part
        if is_next:
            from_next = from_next + part
        if not (is_next and reader.kind == SHARED):  # that is split by gates below
            _add(found, _way(network, state, reader, t, is_next), part)
    if following is not None:
        for gate, part in _through_shared(network, state.band, following, node, readers):
            _add(found, f"through {gate}", part)
    gradient = gradient_of(network.states, node)
    if gradient is not None:
        rest = gradient - known
        # What no reader accounts for came from a loss that lies outside the graph at hand.
        if norm(rest) > 1e-5 * norm(gradient):
            _add(found, FROM_LOSS, rest)
        state.next_step[t] = norm(from_next) if following is not None else 0.0
    for label, part in found.items():
        state.parts.setdefault(label, {})[t] = norm(part)


def _way(network: Network, state: State, reader: Group, t: int, is_next: bool) -> str:
    """The words for the way that a part came."""
    if reader.kind in (OUTPUT, END):
        return FROM_LOSS
    if reader.band != state.band:
        return f"from {reader.band or 'another layer'}"
    if is_next:
        straight = reader.name == state.name and state.name in network.memory[state.band]
        return STRAIGHT if straight else f"through {pretty(reader.name)}"
    who = f"from {pretty(reader.name)}" if reader.kind == QUANTITY else "from the step itself"
    return f"{who}, same step" if reader.t == t else who


def _add(found: dict[str, np.ndarray], label: str, part) -> None:
    found[label] = found.get(label, 0) + np.asarray(part, dtype=np.float64)


def _through_shared(network: Network, band: str, t: int, node: Tensor, readers):
    """What each gate of step t sends to `node` by way of nodes that several gates share, such as [h, x]."""
    shared = next((g for g in network.cells.get((band, t), ()) if g.kind == SHARED), None)
    if shared is None or not any(x is node for n in shared.nodes for x in n.inputs):
        return
    inside = {n.number for n in shared.nodes} | {node.number}
    gates: dict[str, dict[int, tuple[Tensor, np.ndarray]]] = {}
    for n in shared.nodes:
        for user, k in readers.get(n.number, ()):
            part = user.contributions[k] if user.contributions else None
            g = network.group_of[user.number]
            if part is None or g is shared:
                continue
            label = pretty(g.name) if g.kind == QUANTITY else "others"
            sums = gates.setdefault(label, {})
            sums[n.number] = (n, sums[n.number][1] + part if n.number in sums else part)
    for label, cotangents in gates.items():
        members = sorted(cotangents.values(), key=lambda m: -m[0].number)
        for reached, part, _ in reverse([m[0] for m in members], [m[1] for m in members], inside, False):
            if reached is node:
                yield label, part


class _Flowing:
    def __init__(self, network: Network, title: str, scale: Scale | None):
        self.network = network
        self.canvas = Canvas(title)
        times = sorted({*network.steps, *(g.t for g in network.first.values())})
        self.all_times = times
        self.stride = max(1, -(-len(times) // MOST_COLUMNS))
        # Counted from the end, where the gradient comes from.
        self.times = times[:: -self.stride][::-1]
        # A layer that reads the sequence from its end: its gradient flows to the right.
        self.mirrored = network.mirrored
        self.states = []
        for band in network.bands:
            memory = network.memory[band]
            for name in sorted(network.carried[band], key=lambda s: s not in memory):
                self.states.append(split(network, band, name, self.times))
        numbers = [v for s in self.states for v in s.total.values() if v] + [
            v for s in self.states for p in s.parts.values() for v in p.values()
        ]
        self.scale = scale or Scale.of(numbers)
        # The axis goes as far as the numbers; the colours stop at vanished and exploded.
        sizes = [math.log10(v) for v in numbers if v and math.isfinite(v)] or [
            self.scale.low,
            self.scale.high,
        ]
        self.low, self.high = (
            min(self.scale.low, math.floor(min(sizes))),
            max(self.scale.high, math.ceil(max(sizes))),
        )
        if all(self.scale.state(v) == "exploded" for v in numbers):
            self.low = math.floor(min(sizes)) - 1
        self.column = min(150.0, max(46.0, round(1210.0 / len(self.times))))

    def draw(self) -> str:
        canvas = self.canvas
        right = LABELS + self.column * len(self.times)
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        said = (
            "Bars: ‖∂L/∂state‖ on a logarithmic scale. Arrows: what flows from step t + 1 back to step t. "
            "Below: by which way it came."
        )
        if self.stride > 1:
            said += f" Every {self.stride}th of {len(self.all_times)} steps is drawn."
        canvas.words(8, 34, said, 9.5, SOFT, align="left", longest=220)
        y = 52.0
        for state in self.states:
            y = self._state(state, y, right) + 24
        notes = [
            "The parts are vectors: their norms do not add up to the norm of the sum.",
            "“straight along”: element by element from the next step's state; "
            "“through f”: by way of gate f of step t + 1.",
        ]
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
            ("memory line. " if memory else "") + self._verdict(state),
            10.5,
            INK,
            align="left",
            longest=160,
        )
        odd = any(
            self.scale.state(v) in ("exploded", "not a number") for v in state.total.values() if v is not None
        )
        base = top + (40 if odd else 28) + BARS
        self._grid(state, base, right)
        for k, t in enumerate(state.times):
            self._bar(state, k, t, base)
        boxes = [self._stop(state, k, t, base + 15) for k, t in enumerate(state.times)]
        self._arrows(state, boxes, base + 15)
        return self._parts(state, base + 34)

    def _verdict(self, state: State) -> str:
        """In words: what happens between the last step and the first."""
        known = [(t, v) for t in state.times if (v := state.total.get(t)) is not None]
        if state.band in self.mirrored:
            known.reverse()
        if not known:
            return "not computed: run loss.backward(record=True)"
        bad = [t for t, v in known if self.scale.state(v) == "not a number"]
        if bad:
            return f"not a number from t = {max(bad)} back to t = {min(bad)}"
        positive = [(t, v) for t, v in known if v > 0]
        if len(positive) < 2:
            return "exactly zero" + (f" except at t = {positive[0][0]}" if positive else " everywhere")
        (first, a), (last, b) = positive[0], positive[-1]
        each = (a / b) ** (1 / abs(last - first))
        words = "grows" if each > 1.02 else "shrinks" if each < 0.98 else "keeps its size"
        worst = {self.scale.state(v) for _, v in positive} & {"vanished", "exploded"}
        cuts = [t for t in state.cut if not state.next_step.get(t)]
        cuts_said = (
            f" Cut behind t = {', '.join(map(str, sorted(cuts)))}: nothing comes back from later steps."
            if cuts
            else ""
        )
        alarm = "".join(
            f" It has {w} at t = {_span([t for t, v in positive if self.scale.state(v) == w])}."
            for w in sorted(worst)
        )
        figures = f"{number(b)} → {number(a)}, × {number(each, 3)} per step"
        return f"From t = {last} back to t = {first} it {words}: {figures}.{alarm}{cuts_said}"

    def _grid(self, state: State, base: float, right: float) -> None:
        canvas = self.canvas
        for tick in range(self.low, self.high + 1, max(1, -(-(self.high - self.low) // 6))):
            y = base - BARS * (tick - self.low) / (self.high - self.low)
            canvas.words(LABELS - 8, y, decade(tick), 9, SOFT, align="right")
            a = canvas.box(f"grid {state.band} {state.name} {tick}", LABELS, y, 0.1, 0.1, border=0)
            b = canvas.box(f"grid {state.band} {state.name} {tick} end", right, y, 0.1, 0.1, border=0)
            canvas.line(
                a.key, b.key, [(LABELS, y), (right, y)], Stroke(FAINT, 0.5, "solid", ""), arrow="none"
            )

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
        share = (math.log10(value) - self.low) / (self.high - self.low) if np.isfinite(value) else 1.0
        width, height = min(self.column * 0.62, 60), max(1.5, BARS * share)
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
            cut = t in state.cut and not value
            stroke = self.scale.stroke(value, CUT if cut else None if value is not None else NOT_COMPUTED)
            said = (
                CUT
                if cut
                else f"from the next step to t={t}: {number(value, 4)}"
                if value is not None
                else NOT_COMPUTED
            )
            if cut:
                self.canvas.words(
                    (boxes[k].right + boxes[k + 1].left) / 2, y, "✂ cut", 9, INK, True, paper="#ffffff"
                )
            self.canvas.line(
                boxes[k].key,
                boxes[k + 1].key,
                [(boxes[k].right, y), (boxes[k + 1].left, y)],
                stroke,
                said,
                arrow="end" if mirrored else "start",
            )

    def _parts(self, state: State, top: float) -> float:
        """A row of cells for every way, and the numbers of the steps below."""
        canvas, name = self.canvas, pretty(state.name)
        labels = sorted(state.parts, key=lambda p: (p != FROM_LOSS, "same step" not in p, p != STRAIGHT))
        for r, label in enumerate(labels):
            y = top + CELL * (r + 0.5)
            canvas.words(
                LABELS - 8, y, f"{label} {name}" if label == STRAIGHT else label, 9.5, INK, align="right"
            )
            cells = []
            for t in state.times:
                value = state.parts[label].get(t)
                if value is None:
                    cells.append(square("#ffffff", self.column, CELL, "", 8.5))
                    continue
                colour = "#ffffff" if value == 0 else self.scale.colour(value)
                cells.append(square(colour, self.column, CELL, number(value), 8.5))
            key = f"{state.band} {state.name} {label}".strip()
            canvas.box(
                key,
                LABELS,
                y - CELL / 2,
                self.column * len(state.times),
                CELL,
                [table(["".join(cells)])],
                border=0,
                tooltip=f"{state.name}: {label}",
            )
        y = top + CELL * len(labels) + 9
        canvas.words(LABELS - 8, y, "step t", 9.5, SOFT, align="right")
        for k, t in enumerate(state.times):
            canvas.words(self._x(k), y, str(t), 10, INK, True)
        captions = self.network.captions
        if captions:
            y += 14
            for k, t in enumerate(state.times):
                if t in captions:
                    canvas.words(self._x(k), y, fitting(captions[t], self.column, 9), 9, SOFT)
        return y + 6


def _span(times: list[int]) -> str:
    return f"{min(times)}" if len(times) == 1 else f"{min(times)} … {max(times)}"
