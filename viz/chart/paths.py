"""Which way the gradient took: the share of every gate, what cancels, and what each gate lets through.

The gradient of a state is a sum of vectors, one for each way.  A part's share is its
length along the sum, so that shares add up to 100 %; a part that works against the sum
hangs below zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigrad import Tensor

from ..diagram.canvas import Canvas
from ..diagram.legend import UNKNOWN, legend
from ..diagram.markup import gradient_cell, square
from ..diagram.render import Diagram
from ..language.scale import INK, SOFT, Scale, ink_on, mix
from ..language.states import CUT
from ..language.text import clean, number, pretty
from ..measure.ways import FROM_LOSS, STRAIGHT, State, arrays, carried, passed_on, slope, split
from ..read.network import Captions, Network, read, roots_of
from .canvas_chart import (
    CELL,
    KINDS,
    LABELS,
    Frame,
    column_width,
    drawn,
    row,
    sampled,
    steps_below,
)

SHARES, MOST_SHARE = 104.0, 3.0  # the height of the chart of shares, and where its axis ends
OWN = {FROM_LOSS: "#b8bec8", STRAIGHT: "#f0cf5a"}  # as the loss and the memory line elsewhere
PASSES = "#2c9b80"
NOTHING_LEFT = 1e-3  # of the sum of the parts' norms; of less, which may be rounding, shares say nothing


def paths(
    what: Tensor | list, steps: list | None = None, *, of: str | None = None, title: str = "",
    scale: Scale | None = None, time_limit: float = 20.0, captions: Captions | None = None,
) -> Diagram:  # fmt: skip
    """By which gate how much of ∂L/∂state came, step by step: which lets it through, and which kills it.

    what, steps : the loss after ``loss.backward(record=True)``, as for `gradient`.
    of : the name of a carried state, such as "c"; default: all of them, in all layers.
    title, scale, time_limit, captions : as for `draw`.

    The picture's `data` has the parts as vectors (steps, N, H): "dc" is the sum of all "dc through f" and
    the like.  `text` is the same as a table of words.  Raises InputError where no such state is carried.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    found = carried("paths", network, of)
    assert network is not None
    times, stride = drawn(sorted({*network.steps, *(g.t for g in network.first.values())}))
    states = [split(network, band, name, times, far=True) for band, name in found]
    title = title or "Which way the gradient took"
    page = _Paths(network, states, title, scale, stride)
    picture = Diagram(page.draw(), title, "nop2", time_limit, arrays(states))
    picture.text = "\n\n".join(_table(network, s) for s in states)
    return picture


def shares(state: State, t: int) -> dict[str, float]:
    """The signed share of each way at a step; together 1.  None where the gradient is 0 or not finite,
    or where the parts cancel to next to nothing."""
    if (cancelled(state, t) or 0.0) > 1 - NOTHING_LEFT:
        return {}
    whole, parts = state.whole.get(t), state.vectors.get(t, {})
    top = float(np.abs(whole).max(initial=0)) if whole is not None else 0.0
    if whole is None or not top or not np.isfinite(top):
        return {}
    unit = whole / top
    return {way: float((part / top * unit).sum() / (unit * unit).sum()) for way, part in parts.items()}


def cancelled(state: State, t: int) -> float | None:
    """1 − ‖sum of the parts‖ / sum of their norms: 0 where all point one way, 1 where nothing is left."""
    sizes, total = [p[t] for p in state.parts.values() if t in p], state.total.get(t)
    return (
        None
        if total is None or not sum(sizes) or not np.isfinite(sum(sizes))
        else max(0.0, 1 - total / sum(sizes))
    )


class _Paths:
    def __init__(self, network: Network, states: list[State], title: str, scale: Scale | None, stride: int):
        self.network, self.states, self.stride = network, states, stride
        self.canvas = Canvas(title)
        numbers = [
            v for s in states for v in [*s.total.values(), *(v for p in s.parts.values() for v in p.values())]
        ]
        self.scale = scale or Scale.of(v for v in numbers if v)
        self.times = states[0].times
        self.column = column_width(len(self.times))
        gates = list(dict.fromkeys(w for s in states for w in s.ways if w not in OWN))
        self.colours = OWN | {way: KINDS[k % len(KINDS)] for k, way in enumerate(gates)}

    def draw(self) -> str:
        canvas, right = self.canvas, LABELS + self.column * len(self.times)
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        said = (
            "Bars: the share of each way in ∂L/∂state (in %, together 100); what hangs below 0 works against the sum. "
            "Cells: norms."
        )
        said += sampled(self.stride, len(self.network.steps))
        canvas.words(8, 33, said, 9.5, SOFT, align="left", longest=220)
        y = 52.0
        for state in self.states:
            y = self._state(state, y, right) + 24
        notes = [
            "“through f”: by way of gate f of step t + 1; “straight along”: element by element from its state.",
            "“passes”: ‖what comes back to the state by a gate‖ ÷ ‖∂L/∂gate‖: below 1 the gate weakens the gradient.",
            "“cancelled”: 1 − ‖sum of the parts‖ ÷ sum of their norms.",
        ]
        if not self.network.computed:
            notes[0] = UNKNOWN
        legend(canvas, 8, y - 6, max(right, 780), self.scale, None, notes, lines=False)
        return canvas.picture_text()

    def _state(self, state: State, top: float, right: float) -> float:
        canvas, key = self.canvas, f"{state.band} {state.name}".strip()
        head = f"{state.band + ': ' if state.band else ''}∂L/∂{pretty(state.name)}"
        canvas.words(8, top + 8, head, 13, INK, True, "left")
        start = max(LABELS, 20 + 8.2 * len(head))
        canvas.words(start, top + 8, verdict(self.network, state), 10.5, INK, align="left", longest=190)
        found = {t: shares(state, t) for t in state.times}
        y = top + 24
        if any(found.values()):
            self._shares(state, found, y, right, key)
            y += SHARES + 12
        return self._rows(state, y, key)

    def _shares(
        self, state: State, found: dict[int, dict[str, float]], top: float, right: float, key: str
    ) -> None:
        """Stacked bars: up what adds to the gradient, down what works against it."""
        ups = [sum(v for v in s.values() if v > 0) for s in found.values()]
        downs = [sum(v for v in s.values() if v < 0) for s in found.values()]
        high, low = min(max([1.0, *ups]), MOST_SHARE), max(min([0.0, *downs]), 1 - MOST_SHARE)
        frame = Frame(self.canvas, LABELS, top, right - LABELS, SHARES, low, high, log=False)
        frame.grid(key, lambda v: f"{100 * v:.0f} %".replace("-", "−"))
        for k, t in enumerate(state.times):
            up = down = 0.0
            for way in [w for w in state.ways if w in found[t]]:
                share = found[t][way]
                start = up if share > 0 else down
                up, down = up + max(share, 0), down + min(share, 0)
                self._segment(frame, k, start, start + share, way, pretty(state.name), f"{key} t={t}")
            if up > high or down < low:
                beyond = f"+{100 * up:.0f} −{-100 * down:.0f}"
                self.canvas.words(self._x(k), top - 2, beyond, 8, INK, True, paper="#ffffff")

    def _segment(
        self, frame: Frame, k: int, start: float, end: float, way: str, state: str, key: str
    ) -> None:
        """One piece of a bar with the name of its gate, where there is room."""
        top, bottom = frame.y(max(start, end)), frame.y(min(start, end))
        if bottom - top < 0.4:
            return
        width, colour = min(self.column * 0.7, 70), self.colours[way]
        name = short(way, state) if bottom - top > 9.5 else ""
        said = f"{key}: {way} {100 * (end - start):.0f} %"
        left = self._x(k) - width / 2
        self.canvas.box(
            f"{key} {way} share", left, top, width, bottom - top, border=0.6, colour="#ffffff", fill=colour,
            rounded=False, tooltip=said,
        )  # fmt: skip
        if name:
            self.canvas.words(self._x(k), (top + bottom) / 2, name, 9, ink_on(colour), True)

    def _x(self, k: int) -> float:
        return LABELS + self.column * (k + 0.5)

    def _rows(self, state: State, y: float, key: str) -> float:
        """The norms of the parts and of their sum, how much cancels, and what each gate passes on."""
        name = pretty(state.name)
        y += CELL / 2
        for way in state.ways:
            self._chip(f"{key} {way} colour", self.colours[way], y)
            label = f"{way} {name}" if way == STRAIGHT else way
            self._cells(
                f"{key} {way}",
                label,
                y,
                [state.parts[way].get(t) for t in state.times],
                self._cuts(state, way),
            )
            y += CELL
        whys = [state.why.get(t) if t in state.total else "" for t in state.times]
        self._cells(f"{key} sum", f"‖∂L/∂{name}‖", y, [state.total.get(t) for t in state.times], whys, True)
        y += CELL
        lost = [None if (v := cancelled(state, t)) is None else (v, f"{100 * v:.0f} %") for t in state.times]
        if any(lost):
            self._plain(f"{key} cancelled", "cancelled", y, lost, KINDS[1])
            y += CELL + 6
        for way in [w for w in state.ways if w in state.gates]:
            passes = [passed_on(self.network, state, way, t) for t in state.times]
            said = [None if v is None else (v, f"× {number(v)}") for v in passes]
            if any(said):
                self._plain(f"{key} {way} passes", f"{short(way, name)} passes", y, said, PASSES)
                y += CELL
        return steps_below(self.canvas, LABELS, y + 4, self.column, state.times, self.network.captions)

    def _cells(self, key: str, label: str, y: float, values, states: Sequence, bold: bool = False) -> None:
        cells = [
            gradient_cell(v, self.scale, self.column, state=why if v is None else None)
            for v, why in zip(values, states, strict=False)
        ]
        row(self.canvas, key, LABELS, y, self.column, cells, label, bold=bold, gap=20)

    def _cuts(self, state: State, way: str) -> list[str]:
        """What a cell without a number says."""
        return [CUT if way in state.gates and t in state.cut else "" for t in state.times]

    def _plain(self, key: str, label: str, y: float, said: Sequence, colour: str) -> None:
        """Cells that are darker the nearer a ratio is to 1."""
        cells = [
            square("#ffffff", self.column, CELL)
            if v is None
            else square(mix("#ffffff", colour, min(v[0], 1.0) * 0.75), self.column, CELL, v[1], 8.5)
            for v in said
        ]
        row(self.canvas, key, LABELS, y, self.column, cells, label, gap=20)

    def _chip(self, key: str, colour: str, y: float) -> None:
        """The colour of a way beside its name."""
        self.canvas.box(key, LABELS - 15, y - 4.5, 9, 9, border=0, fill=colour, rounded=False)


def short(way: str, straight: str = "straight") -> str:
    """A way in a word: the name of its gate."""
    return {FROM_LOSS: "loss", STRAIGHT: straight}.get(way) or way.removeprefix("through ").removeprefix(
        "from "
    )


def verdict(network: Network, state: State) -> str:
    """In words: by which way most of it came, which gate lets most and which least through, how much cancels."""
    inner = [t for t in state.times if state.total.get(t) and np.isfinite(state.total[t] or 0)]
    if not inner:
        return (
            "not computed: run loss.backward(record=True)" if not state.whole else "nothing that has a size"
        )
    known = [found for t in inner if (found := shares(state, t))]
    part = {way: _mean(found.get(way, 0.0) for found in known) for way in state.ways}
    way = max(part, key=lambda w: part[w])
    said = [f"Most comes {way}: {100 * part[way]:.0f} % on average."]
    if not known:
        said = ["The ways cancel: of all that comes, less than a thousandth is left."]
    kept = {
        w: float(np.exp(np.mean(np.log(found))))
        for w in state.gates
        if (found := [v for t in inner if (v := passed_on(network, state, w, t))])
    }
    if len(kept) > 1:
        best, worst = max(kept, key=lambda w: kept[w]), min(kept, key=lambda w: kept[w])
        bend = [v for t in inner if (v := slope(network, state, worst, t)) is not None]
        why = f"; slope {number(_mean(bend))}" if bend else ""
        name = pretty(state.name)
        said.append(
            f"Of the gradient that reaches it, {short(best, name)} lets most through (× {number(kept[best])}), "
            f"{short(worst, name)} least (× {number(kept[worst])}{why})."
        )
    lost = [v for t in inner if (v := cancelled(state, t)) is not None]
    if lost and _mean(lost) > 0.005:
        said.append(f"{100 * _mean(lost):.0f} % cancels.")
    return " ".join(said)


def _mean(values) -> float:
    values = list(values)
    return float(np.mean(values)) if values else 0.0


def _table(network: Network, state: State) -> str:
    """The same numbers as text: norm and share of each way, and what cancels."""
    head = f"{clean(state.band) + ' / ' if state.band else ''}∂L/∂{state.name}: norm, and share of the sum by way"
    columns = ["t", "norm", *map(clean, state.ways), "cancelled"]
    lines = [columns]
    for t in state.times:
        if t not in state.total:
            continue
        part, total, lost = shares(state, t), state.total[t], cancelled(state, t)
        line = [str(t), (state.why.get(t) or "–") if total is None else number(total)]
        line += [f"{100 * part[w]:.0f} %" if w in part else "–" for w in state.ways]
        lines.append([*line, "–" if lost is None else f"{100 * lost:.0f} %"])
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    return "\n".join(
        [head, *("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines)]
    )
