"""`taps`: a network that handles the whole sequence at once, as rows of steps and lines between them.

A row is a quantity over time, the inputs at the bottom; a line is a tap of a
convolution, a skip connection, or a weight of attention.  The picture answers: what
does this output see, and along which lines does how much gradient come back?
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from minigrad import InputError, Tensor

from ..language.catalogue import tr, trn
from ..language.scale import FAINT, INK, PANEL, SOFT, Scale, Stroke, line_of, mix, signed
from ..language.status import CUT, UNKNOWN
from ..language.text import clean, fitting, number, pretty, span
from ..measure.attention import LEAST, with_lines
from ..read.attention import arranged
from ..read.network import Captions, captions_of
from ..read.whole import Row, Way, Whole, read_whole
from .alpha import alpha_scale
from .canvas import Box, Canvas, Point
from .cards import flow_said
from .legend import legend
from .markup import text
from .render import Diagram

PAGE, LEFT, MOST, GAP_WIDTH = 1060.0, 132.0, 40, 76.0
VALUE, GRADIENT = 13.0, 8.0  # heights of the two parts of a cell
UNSEEN = Stroke("#e3e6ea", 0.6, "solid", "")


def taps(
    what: Tensor, *, step: int | None = None, rows: list[str] | None = None, window: tuple[int, int] | None = None,
    head: int | None = None, sequence: int = 0, title: str = "", budget: int = 3000, scale: Scale | None = None,
    time_limit: float = 20.0, captions: Captions | None = None,
) -> Diagram:  # fmt: skip
    """A network over whole sequences: every tap of its convolutions and every weight of its attention.

    what : the loss, or the outputs (T, N, units).
    step : the output step, 1 … T, whose receptive field is emphasised; default: the last that the loss
        reads, or the last.
    rows : names of the quantities that are rows; default: those that are read at another step or by
        another block, or that leave the network.
    window : the first and the last step to draw; default: at most 40 that end at `step`.
    head, sequence : whose weights of attention are drawn; default: the mean over the heads, the first
        of the N sequences.
    budget : the greatest number of lines; the weakest are left out, and the picture says so.
    title, scale, time_limit, captions : as for `draw`.

    Values and gradients are norms over units and sequences.  Gradients are shown after
    ``loss.backward(record=True)``; what a line carries is what the convolution at its upper end sends
    back along that tap.  `data` of the picture holds "values/row", "gradients/row", "seen/row",
    "taps/row/source/offset" (all (T,)) and "alpha/row/source" (heads, T, T).

    Raises InputError for what holds no whole sequence, and options that make no sense.
    """
    if not isinstance(what, Tensor):
        raise InputError(f"taps: cannot draw {type(what).__name__}: give a minigrad.Tensor, such as the loss")
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 10:
        raise InputError(f"taps: budget = {budget!r} lines; give a whole number of at least 10")
    whole = read_whole(what, rows)
    missing = [name for name in rows or () if name not in [row.node.name for row in whole.rows]]
    if missing:
        raise InputError(f"taps: nothing over all {whole.T} steps is named {clean(missing[0])!r}")
    chosen = _chosen(whole, step)
    shown = _shown(whole.T, chosen, window)
    said = captions_of(captions, list(range(1, whole.T + 1)))
    attention = _attention(whole, head, sequence)
    title = title or trn(
        "{n} step at once: what is read from where", "{n} steps at once: what is read from where", whole.T
    )
    drawing = _Drawing(whole, chosen, shown, attention, head, title, scale, budget, said, sequence)
    return Diagram(drawing.draw(), title, "nop2", time_limit, drawing.data())


def _chosen(whole: Whole, step: int | None) -> int:
    """The output step, from 0, whose receptive field is emphasised."""
    if step is None:
        sizes, _ = whole.gradient(whole.top)
        read = [] if sizes is None else np.flatnonzero(sizes).tolist()
        return read[-1] if read else whole.T - 1
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or not 1 <= step <= whole.T:
        raise InputError(f"taps: step = {step!r}; there are the steps 1 … {whole.T}")
    return int(step) - 1


def _shown(T: int, chosen: int, window: tuple[int, int] | None) -> range:
    """The steps to draw, from 0."""
    if window is None:
        last = min(T, max(chosen + 1, MOST))
        return range(max(0, last - MOST), last)
    try:
        first, last = window
        shown = range(max(int(first) - 1, 0), min(int(last), T))
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"taps: window = {window!r}; give the first and the last step, e.g. (3, 14)"
        ) from None
    if not shown:
        raise InputError(f"taps: window = {window!r} holds no step; there are t = 1 … {T}")
    if len(shown) > 2 * MOST:
        raise InputError(
            f"taps: window = {window!r} holds {len(shown)} steps; at most {2 * MOST} can be read"
        )
    return shown


def _attention(whole: Whole, head: int | None, sequence: int) -> dict[int, np.ndarray]:
    """By id of the way: weights (heads, T, T)."""
    found = {}
    for row in whole.rows:
        for way in row.ways:
            parts = []
            for w in way.weights:
                count = way.source.node.shape[1] if way.source.node.ndim > 2 else 1
                axes = {2: "qk", 3: "nqk" if w.shape[0] == count else "hqk"}.get(w.ndim)
                axes = axes or ("nhqk" if w.shape[0] == count or w.shape[1] != count else "hnqk")
                parts.append(arranged(w.value, axes, sequence, "taps"))
            if parts:
                alpha = np.concatenate(parts).astype(np.float64)
                if head is not None and not (isinstance(head, (int, np.integer)) and 0 <= head < len(alpha)):
                    raise InputError(f"taps: head = {head!r}; there are the heads 0 … {len(alpha) - 1}")
                found[id(way)] = alpha
    return found


@dataclass
class _Line:
    """One line: from a step of one row (None: a hidden one) to a step of the row above."""

    way: Way
    source: tuple[Row, int]
    target: tuple[Row, int]
    stroke: Stroke
    strength: float
    said: str


class _Drawing:
    def __init__(
        self, whole: Whole, chosen: int, shown: range, attention: dict[int, np.ndarray], head: int | None,
        title: str, scale: Scale | None, budget: int, captions: dict[int, str], sequence: int,
    ):  # fmt: skip
        self.whole, self.chosen, self.shown, self.captions = whole, chosen, shown, captions
        self.attention, self.head, self.sequence, self.budget = attention, head, sequence, budget
        self.canvas = Canvas(title)
        self.seen = whole.seen_from(chosen)
        self.values = {row.node.number: row.values() for row in whole.rows}
        self.gradients = {row.node.number: whole.gradient(row)[0] for row in whole.rows}
        self.scale = scale or Scale.of(self._sizes())
        finite = [v[np.isfinite(v)].max(initial=0.0) for v in self.values.values()]
        self.value_top = _rounded(max([*map(float, finite)]) or 1.0)
        self.hidden = {"before": range(0, shown[0]), "after": range(shown[-1] + 1, whole.T)}
        sides = sum(bool(h) for h in self.hidden.values())
        self.pitch = min(72.0, (PAGE - LEFT - GAP_WIDTH * sides) / len(shown))
        self.width = min(38.0, max(7.0, self.pitch * 0.64))
        self.start = LEFT + (GAP_WIDTH if self.hidden["before"] else 0.0)
        self.right = self.start + self.pitch * len(shown) + (GAP_WIDTH if self.hidden["after"] else 0.0)
        self.top_of: dict[int, float] = {}
        self.boxes: dict[tuple[int, int], Box] = {}
        self.gaps: dict[str, Box] = {}

    def _sizes(self) -> list[float]:
        """Gradients within the receptive field, which the scale is made for."""
        found: list[float] = []
        for row in self.whole.rows:
            mine, own = self.seen[row.node.number], self.gradients[row.node.number]
            found += [] if own is None else own[mine].tolist()
            for way in row.ways:
                if way.norms is not None:
                    found += way.norms[mine].tolist()
        return found

    @property
    def height(self) -> float:
        """Of a cell."""
        return VALUE + (GRADIENT if self.whole.computed else 0.0)

    # Places.

    def draw(self) -> str:
        canvas, whole = self.canvas, self.whole
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        y = 34.0
        for k, line in enumerate(self._verdict()):
            canvas.words(8, y, line, 12.5 if k == 0 else 10.5, INK, k == 0, "left", longest=190)
            y += 19.0
        y += 10.0
        loss = whole.root is not whole.top.node and whole.computed
        loss_top = y
        y += 24.0 + 26.0 if loss else 0.0
        first = y
        for k, row in enumerate(reversed(whole.rows)):
            self.top_of[row.node.number] = y
            self._row(row, y)
            if row.ways:
                below = whole.rows[len(whole.rows) - 2 - k]
                room = self._room(row)
                self._said_beside(row, below, y + self.height + room / 2)
                y += self.height + room
            else:
                y += self.height + 10
        self._hidden(first, y - 10)
        self._lines()
        if loss:
            self._loss(loss_top)
        y = self._time(y - 4)
        self._legend(y)
        return canvas.picture_text()

    def _room(self, row: Row) -> float:
        """Between a row and the next below."""
        if any(way.offset is None for way in row.ways):
            return 84.0
        taps_ = sum(1 for way in row.ways if way.offset)
        return 44.0 + 4.0 * min(taps_, 8) if taps_ else 26.0

    def _x(self, t: int) -> float:
        """The left end of a cell."""
        return self.start + self.pitch * (t - self.shown[0]) + (self.pitch - self.width) / 2

    def _row(self, row: Row, y: float) -> None:
        """The cells of one row: the norm of the value, below it that of the gradient."""
        canvas, number_ = self.canvas, row.node.number
        name = pretty(row.name) if row.name or row.scope else tr("(no name)")
        canvas.words(
            8, y + self.height / 2, fitting(f"{row.scope}  {name}", LEFT - 12, 10.5), 11, INK, True, "left"
        )
        seen, values, gradients = self.seen[number_], self.values[number_], self.gradients[number_]
        for t in self.shown:
            inside, x = bool(seen[t]), self._x(t)
            chosen = row is self.whole.top and t == self.chosen
            line = {"border": 2.4 if chosen else 0.9 if inside else 0.6, "colour": INK if inside else FAINT}
            said = tr("{label} t={t}: norm {size}", label=row.label, t=t + 1, size=number(values[t], 4))
            value = self._faded(signed(float(values[t]), self.value_top), inside)
            mark = "" if np.isfinite(values[t]) else text("?", 8, INK)
            key = f"{row.label} t={t + 1}"
            self.boxes[number_, t] = canvas.box(
                key, x, y, self.width, VALUE, mark, rounded=False, fill=value, tooltip=said, **line
            )
            if self.whole.computed:
                size = None if gradients is None else float(gradients[t])
                canvas.box(
                    f"d {key}", x, y + VALUE, self.width, GRADIENT, self._mark(size, inside), rounded=False,
                    fill=self._faded("#ffffff" if not size else self.scale.colour(size), inside),
                    tooltip=tr("{key}: gradient {value}", key=key, value=tr("not computed") if size is None else number(size, 4)),
                    **line,
                )  # fmt: skip

    @staticmethod
    def _mark(size: float | None, inside: bool) -> str:
        if size is None or (np.isfinite(size) and (size > 0 or not inside)):
            return ""
        return text("0" if size == 0 else "!", 6.5, SOFT if size == 0 or not inside else "#ffffff")

    @staticmethod
    def _faded(colour: str, inside: bool) -> str:
        return colour if inside else mix(colour, "#ffffff", 0.72)

    def _said_beside(self, row: Row, below: Row, y: float) -> None:
        """How the row reads those below it, in words."""
        said = ways_said(row, below)
        for k, line in enumerate(said):
            at = y + 12.5 * (k - (len(said) - 1) / 2)
            self.canvas.words(14, at, fitting(line, LEFT - 16, 9), 9.5, SOFT, align="left")

    def _hidden(self, top: float, bottom: float) -> None:
        """Boxes for the steps that are left out."""
        for side, times in self.hidden.items():
            if not times:
                continue
            left = LEFT if side == "before" else self.right - GAP_WIDTH + 8
            rows = [
                text(span([times[0] + 1, times[-1] + 1][: len(times)]), 9, bold=True),
                text(trn("{n} step", '{n} steps', len(times)), 9, SOFT), text(tr("not drawn"), 9, SOFT),
            ]  # fmt: skip
            self.gaps[side] = self.canvas.box(
                f"{side}", left, top, GAP_WIDTH - 8, bottom - top, rows, dash="dashed", colour=SOFT, fill=PANEL,
                tooltip=tr("{n} steps are not drawn", n=len(times)),
            )  # fmt: skip

    def _time(self, y: float) -> float:
        """Below the inputs: the steps, their captions, and what of them is seen."""
        canvas, inputs = self.canvas, self.whole.inputs
        seen = np.any([self.seen[row.node.number] for row in inputs], axis=0)
        every = max(1, -(-int(6.2 * len(str(self.shown[-1] + 1)) + 2) // int(self.pitch)))
        canvas.words(8, y + 8, tr("step t"), 9.5, SOFT, align="left")
        for t in self.shown:
            x = self._x(t) + self.width / 2
            if (self.shown[-1] - t) % every == 0:
                canvas.words(x, y + 8, str(t + 1), 9, INK if seen[t] else SOFT, bool(seen[t]))
            if t + 1 in self.captions:
                canvas.words(
                    x, y + 22, fitting(self.captions[t + 1], self.pitch, 10), 10, INK if seen[t] else SOFT
                )
        y += 36.0 if self.captions else 20.0
        drawn = [t for t in self.shown if seen[t]]
        if drawn:
            hidden = any(seen[t] for t in self.hidden["before"])
            left = LEFT if hidden else self._x(drawn[0])
            right = self._x(drawn[-1]) + self.width
            a = canvas.box("seen from", left, y, 0.1, 0.1, border=0)
            b = canvas.box("seen to", right, y, 0.1, 0.1, border=0)
            ends = [(left, y - 5), (left, y), (right, y), (right, y - 5)]
            canvas.line(
                a.key,
                b.key,
                ends,
                Stroke(INK, 1.6, "solid", ""),
                arrow="none",
                tooltip=tr("receptive field"),
            )
            words = tr(
                "seen from {name} at t = {t}: {seen} of {total}",
                name=pretty(self.whole.top.name),
                t=self.chosen + 1,
                seen=int(seen.sum()),
                total=self.whole.T,
            )
            half = 3.4 * len(words)
            x = min(max((left + right) / 2, 8 + half), max(self.right, 780) - half)
            canvas.words(x, y + 11, words, 10, INK, True)
        return y + 20

    # Lines.

    def _lines(self) -> None:
        strong, faint = [], []
        for row in self.whole.rows:
            for way in row.ways:
                for line in self._of_way(row, way):
                    (strong if self.seen[row.node.number][line.target[1]] else faint).append(line)
        strong.sort(key=lambda line: line.strength)
        self.left_out = max(0, len(strong) - self.budget)
        self.faint = len(faint) if len(strong) + len(faint) <= self.budget else 0
        self.without = len(faint) - self.faint
        for line in faint[: self.faint]:
            if line.source[1] in self.shown:
                self._draw_line(line, UNSEEN if line.way.offset is not None else pale(line.stroke))
        for line in strong[self.left_out :]:
            self._draw_line(line, line.stroke)

    def _of_way(self, row: Row, way: Way) -> list[_Line]:
        """The lines of one way into the steps that are drawn."""
        if way.offset is None:
            return self._of_weights(row, way) if way.weights else []
        found = []
        for t in way.times:
            if t not in self.shown:
                continue
            size = None if way.norms is None else float(way.norms[t])
            said = _from(row, t, way, t + way.offset) + ": "
            strength = -1.0 if size is None else np.inf if np.isnan(size) else size
            stroke = self.scale.stroke(size, way.status)
            said += flow_said(size, way.status, self.scale)
            found.append(_Line(way, (way.source, t + way.offset), (row, t), stroke, strength, said))
        return found

    def _of_weights(self, row: Row, way: Way) -> list[_Line]:
        """Lines of attention; the weights of the hidden steps on either side are added up."""
        alpha = self._alpha(way)
        found = []
        for t in self.shown:
            ends = {s: float(alpha[t, s]) for s in self.shown}
            for hidden in self.hidden.values():
                if hidden:
                    ends[hidden[0]] = float(alpha[t, hidden[0] : hidden[-1] + 1].sum())
            drawn = with_lines(np.array(list(ends.values())), LEAST)
            for (s, a), wanted in zip(ends.items(), drawn, strict=True):
                if wanted:
                    said = f"{_from(row, t, way, s)}: α = {number(a, 3)}"
                    strength = np.inf if np.isnan(a) else a
                    found.append(_Line(way, (way.source, s), (row, t), line_of(a), strength, said))
        return found

    def _alpha(self, way: Way) -> np.ndarray:
        alpha = self.attention[id(way)]
        return alpha.mean(axis=0) if self.head is None else alpha[self.head]

    def _draw_line(self, line: _Line, stroke: Stroke) -> None:
        (source, s), (target, t) = line.source, line.target
        end = self.boxes[target.node.number, t]
        top = self.top_of[source.node.number]
        foot = self.top_of[target.node.number] + self.height
        start = self.boxes.get((source.node.number, s))
        if start is None:
            gap = self.gaps["before" if s < self.shown[0] else "after"]
            x = gap.right if s < self.shown[0] else gap.left
            self._stroke(gap, end, [(x, top), (end.x, foot)], stroke, line)
        elif line.way.offset == 0 and self._around(source, target):
            # Around the rows between them, or the lines of attention, in the space beside the cells.
            x, beside = end.x + self.width * 0.28, end.right + (self.pitch - self.width) / 2
            points = [(x, top), (x, top - 7), (beside, top - 7), (beside, foot + 7), (x, foot + 7), (x, foot)]
            self._stroke(start, end, points, stroke, line)
        else:
            self._stroke(start, end, [(start.x, top), (end.x, foot)], stroke, line)

    def _stroke(self, start: Box, end: Box, points: list[Point], stroke: Stroke, line: _Line) -> None:
        self.canvas.line(start.key, end.key, points, stroke, line.said, arrow="none")

    def _around(self, source: Row, target: Row) -> bool:
        rows = self.whole.rows
        return rows.index(target) - rows.index(source) > 1 or any(
            way.source is source and way.weights for way in target.ways
        )

    def _loss(self, y: float) -> None:
        """The end as a bar above the rows, and what it sends to each step of the output."""
        root, top = self.whole.root, self.whole.top
        one = root.value.size == 1
        said = (
            f"{pretty(clean(root.name or tr('loss')))}  {number(root.value.item(), 4) if one else ''}".strip()
        )
        left, right = self._x(self.shown[0]), self._x(self.shown[-1]) + self.width
        bar = self.canvas.box(
            "loss", left, y, max(right - left, 90), 24, text(said, 12, bold=True), tooltip=tr("loss")
        )
        sizes = self.gradients[top.node.number]
        assert sizes is not None
        for t in self.shown:
            if sizes[t] != 0:
                cell = self.boxes[top.node.number, t]
                stroke = self.scale.stroke(float(sizes[t]))
                stroke = stroke if t == self.chosen else pale(stroke)
                said = tr(
                    "loss from {label} t={t}: {flow}",
                    label=top.label,
                    t=t + 1,
                    flow=flow_said(float(sizes[t]), None, self.scale),
                )
                self.canvas.line(
                    cell.key, bar.key, [(cell.x, cell.top), (cell.x, bar.bottom)], stroke, said, "none"
                )

    # Words.

    def _verdict(self) -> list[str]:
        """What is seen, and how much gradient comes back from there."""
        whole, T = self.whole, self.whole.T
        bottom = whole.inputs[0]
        seen = np.flatnonzero(np.any([self.seen[row.node.number] for row in whole.inputs], axis=0))
        name = pretty(whole.top.name or tr("the output"))
        where = span([seen[0] + 1, seen[-1] + 1][: len(seen)]) if len(seen) else tr("none")
        lines = [
            trn(
                "{name} at t = {t} sees {seen} of {n} step of {input}: {where}",
                "{name} at t = {t} sees {seen} of {n} steps of {input}: {where}",
                T,
                name=name,
                t=self.chosen + 1,
                seen=len(seen),
                input=pretty(bottom.name),
                where=where,
            )
        ]
        mixes = any(way.offset is None for row in whole.rows for way in row.ways)
        if not mixes and whole.reach() > len(seen):
            lines[0] += tr("  (its receptive field is {n} steps)", n=whole.reach())
        sizes = self.gradients[bottom.node.number]
        if sizes is not None and len(seen):
            oldest, newest = int(seen[0]), int(seen[-1])
            lines.append(
                tr(
                    "‖∂L/∂{name}‖ is {size} at t = {t}",
                    name=pretty(bottom.name),
                    size=number(sizes[newest]),
                    t=newest + 1,
                )
            )
            if oldest != newest:
                lines[-1] += tr(
                    ", the newest step that is seen, and {size} at t = {t}, the oldest",
                    size=number(sizes[oldest]),
                    t=oldest + 1,
                )
            top = self.gradients[whole.top.node.number]
            if top is not None and (top != 0).sum() > 1:
                lines[-1] += tr(
                    "; the loss reads {n} steps of {name}, all are in this gradient",
                    n=int((top != 0).sum()),
                    name=name,
                )
            lines[-1] += "."
        return lines

    def _legend(self, y: float) -> None:
        notes = [
            tr("Lines run upwards, from what is read to what reads it; the gradient flows back down them."),
            tr("Strong: what the output at t = {t} sees; pale: the rest.", t=self.chosen + 1),
            tr("A cell: ‖value‖ over units and sequences")
            + (tr(", below it ‖∂L/∂·‖.") if self.whole.computed else "."),
        ]
        if not self.whole.computed:
            notes.insert(0, tr(UNKNOWN))
        if self.left_out:
            notes.append(
                tr(
                    "The {n:,} strongest of {total:,} lines are drawn.",
                    n=self.budget,
                    total=self.budget + self.left_out,
                )
            )
        if self.without:
            notes.append(tr("{n:,} lines to steps that are not seen are left out.", n=self.without))
        if self.attention:
            count = len(next(iter(self.attention.values())))
            whose = (
                tr("mean of {n} heads", n=count)
                if self.head is None and count > 1
                else tr("head {head}", head=self.head or 0)
            )
            notes.append(
                tr(
                    "Brown: attention, {whose}, sequence {sequence}; no line below {least:g}, or "
                    "half of a step's largest.",
                    whose=whose,
                    sequence=self.sequence,
                    least=LEAST,
                )
            )
        bottom = legend(self.canvas, 8, y, max(self.right, 1020), self.scale, self.value_top, notes)
        if self.attention:
            alpha_scale(self.canvas, 8, max(y + 112, bottom - 26), lines=True)

    def data(self) -> dict[str, np.ndarray]:
        """The arrays behind the picture."""
        found: dict[str, np.ndarray] = {}
        names: dict[int, str] = {}
        for row in self.whole.rows:
            again = sum(label.split(" #")[0] == row.label for label in names.values())
            names[row.node.number] = row.label + (f" #{again + 1}" if again else "")
        for row in self.whole.rows:
            number_, name = row.node.number, names[row.node.number]
            found[f"values/{name}"] = self.values[number_]
            gradient = self.gradients[number_]
            if gradient is not None:
                found[f"gradients/{name}"] = gradient
            found[f"seen/{name}"] = self.seen[number_]
            for way in row.ways:
                source = names[way.source.node.number]
                if way.norms is not None:
                    found[f"taps/{name}/{source}/{way.offset}"] = way.norms
                if id(way) in self.attention:
                    found[f"alpha/{name}/{source}"] = self.attention[id(way)]
        return found


def _from(row: Row, t: int, way: Way, source: int) -> str:
    return tr(
        "{name} t={t} from {source} t={before}",
        name=row.label,
        t=t + 1,
        source=way.source.label,
        before=source + 1,
    )


def pale(stroke: Stroke) -> Stroke:
    """The look of a line that is not in the receptive field."""
    colours = [mix(c, "#ffffff", 0.7) for c in stroke.colour.split(":")]
    return Stroke(":".join(colours), round(0.7 * stroke.width, 2), stroke.dash, "")


def ways_said(row: Row, below: Row) -> list[str]:
    """How a row reads others, in words: a line per source."""
    by_source: dict[int, list[Way]] = {}
    for way in row.ways:
        by_source.setdefault(way.source.node.number, []).append(way)
    lines = []
    for ways in sorted(by_source.values(), key=lambda w: w[0].source is not below):
        source = ways[0].source
        offsets = sorted(way.offset for way in ways if way.offset is not None)
        parts = [] if not offsets or offsets == [0] else [offsets_said(offsets)]
        parts += [tr("both sides")] if offsets and offsets[0] < 0 < offsets[-1] else []
        heads = sum(1 for way in ways for _ in way.weights)
        if any(way.offset is None for way in ways):
            parts.append(tr("attention") if heads else tr("all steps"))
        if offsets == [0]:
            parts.append(tr("skip") if source is not below or heads else tr("same step"))
        said, where = (
            ", ".join(parts),
            "" if source is below else tr("from {source}", source=source.label or tr("a row below")),
        )
        lines += [f"{said} {where}".strip()] if len(said) + len(where) <= 22 else [*parts, where]
        if any(way.status == CUT for way in ways):
            lines.append(tr("✂ cut (detach)"))
    return [line for line in lines if line]


def offsets_said(offsets: list[int]) -> str:
    """3 taps, dilation 2."""
    if len(offsets) == 1:
        by = offsets[0]
        if by < 0:
            return trn("{n} step back", "{n} steps back", -by)
        return trn("{n} step ahead", "{n} steps ahead", by)
    apart = {b - a for a, b in itertools.pairwise(offsets)}
    said = tr("{n} taps", n=len(offsets))
    if len(apart) > 1:
        return f"{said}: {', '.join(map(str, offsets))}".replace("-", "−")
    return said + tr(", dilation {n}", n=apart.pop())


def _rounded(size: float) -> float:
    """Up to 1, 2 or 5 × 10ⁿ."""
    power = 10.0 ** np.floor(np.log10(size))
    return float(next(m * power for m in (1, 2, 5, 10) if size <= m * power * 1.000001))
