"""`attention`: where each output step looks, as a matrix of weights or as lines from inputs to outputs.

One panel per head, all on one scale from 0 to 1; with the gradient ∂L/∂α beside it
where that is asked for.  The picture answers: which inputs does this output step look
at, and how sharply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minigrad import InputError, Tensor

from ..language.catalogue import tr, trn
from ..language.picture import Picture
from ..language.scale import NAN, SOFT, Scale, line_of
from ..language.status import CUT, NOT_COMPUTED, UNKNOWN
from ..language.text import brief, clean, number
from ..measure.attention import LEAST, Places, sharpness, sizes, together, with_lines
from ..read.attention import Weights, find
from .figure import Chart
from .panels import (
    CELL,
    NEVER,
    Axis,
    Cell,
    Heat,
    Line,
    Mark,
    Panel,
    Plot,
    Sheet,
    Words,
    gradient_cell,
    weight_cell,
)

VIEWS = ("matrix", "lines")
PAGE, BETWEEN, MOST_PANELS, LONGEST = 950.0, 44.0, 16, 24
SMALL, LARGE, WIDE = (
    15.0,
    34.0,
    64.0,
)  # the least width for a cell, the most, and the most between ends of lines


def attention(
    what: Tensor | np.ndarray | list, steps: list | None = None, *, view: str = "matrix", name: str = "alpha",
    inputs: Sequence | None = None, outputs: Sequence | None = None, gradient: bool = False,
    heads: Sequence[int] | None = None, sequence: int = 0, axes: str | None = None,
    window: tuple[int, int] | None = None, over: tuple[int, int] | None = None, least: float = LEAST,
    title: str = "", scale: Scale | None = None, ax=None,
) -> Picture:  # fmt: skip
    """The weights of attention: where each output step looks among the inputs.

    what : the weights, an array or tensor; or a tensor computed with them, such as the loss, whose graph
        holds tensors of that `name`; or the steps of a decoder that each have one.
    view : "matrix" (a row per output step) or "lines" (from the inputs below to the outputs above,
        width and darkness in proportion to α).
    inputs, outputs : what is written at the steps, such as the characters; a text, or a list of texts.
    gradient : also ∂L/∂α, after ``loss.backward(record=True)``; for "matrix" only.
    heads, sequence : which heads (default: all, at most 16) and which of the N sequences.
    axes : a letter for each axis of the weights: n sequence, h head, q output step, k input step, e.g.
        "hnqk".  Default: inputs lie along the axis along which the weights sum to 1, and before them
        outputs, heads and sequences, "nhqk".
    window, over : the first and the last output step and input step to draw; what looks beyond is added
        up.  Default: all, where there are more than 40 several at a time (outputs as their mean, inputs
        added up), and the picture says so.
    least : "lines" leaves out smaller weights, unless they are at least half of that output's largest.
    title, scale : as for `draw`; scale is that of the gradient.
    ax : axes of matplotlib, into which one head is drawn.

    `data` of the picture holds "alpha" (heads, outputs, inputs) and, when known, "d alpha"; where there are
    several sets of weights, each name begins with its place: "block 1/alpha".

    Raises InputError for what holds no weights, labels that are not as many as the steps, and options that
    make no sense.
    """
    _check(view, gradient, least)
    found = find(what, steps, name, axes, sequence, "attention")
    chosen = _chosen(found, heads)
    if ax is not None and (len(chosen) > 1 or gradient):
        raise InputError(
            f"attention: ax= holds the weights of one head, and there are {len(chosen)}; choose with heads=[0], "
            "give one set of weights, and leave gradient= out"
        )
    _, Q, K = found[0].alpha.shape
    if outputs is None and Q == K:
        outputs = inputs
    rows = Places.of("window", Q, window, outputs, beyond=False)
    if over is None and Q == K:
        over = window
    columns = Places.of("over", K, over, inputs, beyond=True)
    lines = _in_lines(chosen[:MOST_PANELS], rows, columns)
    heads_ = [head for line in lines for head in line]
    known = [np.abs(h.gradient[h.alpha != 0]) for h in heads_ if h.gradient is not None] if gradient else []
    scale = scale or Scale.of(np.concatenate(known).tolist() if known else [])
    sheet = Sheet(
        title or tr("Attention: where each output looks"),
        [],
        _said(view, rows, columns, chosen, found, sequence),
    )
    if view == "matrix":
        _matrices(sheet, lines, rows, columns, scale, gradient)
    else:
        _bipartite(sheet, lines, rows, columns, least)
    sheet.notes.append(tr("“Looks at n inputs”: e to the mean entropy of the rows."))
    if columns.beyond:
        sheet.notes.append(tr("…: all inputs on that side that are not drawn, added up."))
    return Chart(sheet, _data(found), ax)


def _said(
    view: str, rows: Places, columns: Places, chosen: list, found: list[Weights], sequence: int
) -> list[str]:
    """How to read it, and what is left out."""
    count = found[0].sequences
    notes = [
        rows.said(output=True), columns.said(output=False),
        tr("{n} of {total} heads are drawn", n=MOST_PANELS, total=len(chosen)) * (len(chosen) > MOST_PANELS),
        tr("sequence {sequence} of {count}", sequence=sequence, count=count) * (count > 1),
    ]  # fmt: skip
    how = {
        "matrix": tr(
            "A row is an output step: how it shares its attention among the inputs, which are the columns."
        ),
        "lines": tr(
            "Inputs below, outputs above: a line is wide and dark where the output looks at that input."
        ),
    }[view]
    return [how, *[said + "." for said in ["; ".join(note for note in notes if note)] if said]]


def _chosen(found: list[Weights], heads: Sequence[int] | None) -> list[tuple[Weights, int]]:
    """The heads to draw, set by set."""
    first, chosen = found[0], []
    for weights in found:
        if weights.alpha.shape[1:] != first.alpha.shape[1:]:
            raise InputError(
                f"attention: weights of different sizes: {first.label} {first.alpha.shape[1:]} and "
                f"{weights.label} {weights.alpha.shape[1:]}; draw one at a time, by giving the weights themselves"
            )
        count = len(weights.alpha)
        shown = list(range(count)) if heads is None else list(heads)
        if not shown or not all(isinstance(h, (int, np.integer)) and 0 <= h < count for h in shown):
            raise InputError(f"attention: heads = {clean(heads)}; there are the heads 0 … {count - 1}")
        chosen += [(weights, h) for h in shown]
    return chosen


def _check(view: str, gradient: bool, least: float) -> None:
    if view not in VIEWS:
        raise InputError(
            f"attention: view = {clean(repr(view))}; choose one of {', '.join(map(repr, VIEWS))}"
        )
    if gradient and view != "matrix":
        raise InputError("attention: the gradient of the weights is shown by view='matrix'")
    if not 0 <= least < 1:
        raise InputError(f"attention: least = {least!r}; give a weight of at least 0 and below 1")


def _data(found: list[Weights]) -> dict[str, np.ndarray]:
    data = {}
    for weights in found:
        before = f"{weights.label}/" if len(found) > 1 else ""
        while f"{before}alpha" in data:
            before = f"{before[:-1]}'/"
        data[f"{before}alpha"] = weights.alpha
        if weights.gradient is not None:
            data[f"{before}d alpha"] = weights.gradient
    return data


@dataclass
class _Head:
    """What one panel shows, place by place: weights, and what is known of their gradient."""

    name: str
    sharp: float
    alpha: np.ndarray
    gradient: np.ndarray | None
    status: str | None

    @property
    def said(self) -> str:
        if np.isnan(self.sharp):
            return ""
        return trn(
            "looks at {inputs} input on average",
            "looks at {inputs} inputs on average",
            1 + (self.sharp > 1.05),
            inputs=number(self.sharp),
        )


def _in_lines(chosen: list[tuple[Weights, int]], rows: Places, columns: Places) -> list[list[_Head]]:
    """Each set of weights begins a line, if it has several heads."""
    lines: list[list[_Head]] = [[]]
    for k, (weights, head) in enumerate(chosen):
        if k and chosen[k - 1][0] is not weights and len(weights.alpha) > 1:
            lines.append([])
        parts = [weights.label] if weights.label else []
        parts += [tr("head {head}", head=head)] if len(weights.alpha) > 1 else []
        alpha = weights.alpha[head]
        slopes = None if weights.gradient is None else sizes(weights.gradient[head], rows, columns)
        shown = together(alpha, rows, columns)
        lines[-1].append(_Head(", ".join(parts), sharpness(alpha), shown, slopes, weights.status))
    return lines


def _fitting(
    most: int, count: int, labels: Sequence[str], largest: float, doubled: bool
) -> tuple[int, float]:
    """How many panels stand side by side, and the width of their cells; gradients beside weights where there is room."""
    beside = _beside(labels)
    for across in [2 * most] * doubled + list(range(most, 0, -1)):
        room = ((PAGE + BETWEEN) / across - BETWEEN - beside) / count
        if room >= (SMALL if across <= most else 26.0) or across == 1:
            break
    return across, max(7.0, min(largest, room))


def _beside(labels: Sequence[str]) -> float:
    """About the room for the names of rows."""
    return 10 + 6.2 * max((min(len(label), LONGEST) for label in labels), default=0)


def _width(across: int, most: int, panel: float) -> float:
    """Of the page: no wider than its panels need, with room for the words around them."""
    return min(PAGE + 30, max(600.0, 30 + min(across, most) * (panel + BETWEEN)))


def _rows(lines: list[list[Panel]], across: int) -> list[list[Panel]]:
    return [line[k : k + across] for line in lines for k in range(0, len(line), across)]


# As matrices.


def _matrices(
    sheet: Sheet, lines: list[list[_Head]], rows: Places, columns: Places, scale: Scale, gradient: bool
) -> None:
    """A heat map for each head, and, with `gradient`, that of its slopes, beside it or below."""
    count = len(columns.places)
    across, cell = _fitting(max(map(len, lines)), count, rows.labels, LARGE, gradient)
    look = _Look(rows, columns, cell, scale)
    sheet.width = _width(across, max(map(len, lines)) * (1 + gradient), _beside(rows.labels) + cell * count)
    for line in lines:
        own: list[Panel] = [look.weights(head) for head in line]
        slopes: list[Panel] = [look.slopes(head) for head in line] if gradient else []
        for k in range(0, len(own), across):
            part, below = own[k : k + across], slopes[k : k + across]
            sheet.panels += [part + below] if len(part + below) <= across else [part, below]
    if any(c.colour == NEVER for c in sheet.cells):
        sheet.keys.append((NEVER, tr("exactly 0, such as a step that may not be looked at")))
    sheet.notes.append(tr("•: the largest of a row."))
    if gradient:
        sheet.scale = scale
        if any(head.gradient is None and head.status != CUT for line in lines for head in line):
            sheet.notes.insert(0, tr(UNKNOWN))
        grouped = rows.each > 1 or columns.each > 1
        sheet.notes.append(
            tr("∂L/∂α of steps taken together: the norm.") if grouped else tr("− marks a negative gradient.")
        )


@dataclass
class _Look:
    """How the matrices of one picture look."""

    rows: Places
    columns: Places
    cell: float
    scale: Scale

    def heat(self, cells: list[list[Cell]], head: str, said: str) -> Heat:
        return Heat(
            cells, [clean(label, LONGEST) for label in self.rows.labels],
            [clean(label, LONGEST) for label in self.columns.labels], head=head, said=said,
            width=self.cell * len(self.columns.places), above=True, named=True, height=CELL if self.cell >= 10 else 10.0,
        )  # fmt: skip

    def weights(self, head: _Head) -> Heat:
        cells = []
        for row in head.alpha:
            finite = np.isfinite(row)
            most = int(np.argmax(np.where(finite, row, -np.inf))) if finite.any() else -1
            cells.append([self._weight(float(a), k == most) for k, a in enumerate(row)])
        return self.heat(cells, head.name, head.said)

    def _weight(self, alpha: float, largest: bool) -> Cell:
        room = self.cell >= 24 and abs(alpha) >= 0.005
        return weight_cell(alpha, (brief(alpha, self.cell - 3) if room else "") + "•" * largest)

    def slopes(self, head: _Head) -> Heat:
        status = head.status or NOT_COMPUTED if head.gradient is None else None
        found = np.zeros_like(head.alpha) if head.gradient is None else head.gradient
        cells = [
            [self._slope(float(g), status) if a else Cell(NEVER) for a, g in zip(*both, strict=True)]
            for both in zip(head.alpha, found, strict=True)
        ]
        return self.heat(cells, f"∂L/∂α  {head.name}".strip(), tr(status) if status else "")

    def _slope(self, size: float, status: str | None) -> Cell:
        said = None
        if status is None and np.isfinite(size) and size:
            said = number(size, 1)
            if self.cell < 30 or 6.2 * len(said) > self.cell - 2:
                said = "−" if size < 0 else ""  # the sign, which no colour tells
        return gradient_cell(abs(size) if status is None else None, self.scale, status, said)


# As lines.


def _bipartite(sheet: Sheet, lines: list[list[_Head]], rows: Places, columns: Places, least: float) -> None:
    """Inputs below, outputs above, and a line for every weight; then a sample of the lines."""
    count = max(len(rows.places), len(columns.places))
    across, pitch = _fitting(max(map(len, lines)), count, [], WIDE, False)
    sheet.width = _width(across, max(map(len, lines)), pitch * count)
    sheet.panels += _rows(
        [[_lines(head, rows, columns, pitch, least) for head in line] for line in lines], across
    )
    samples: list[Mark] = [Line([k + 0.15, k + 0.85], [1, 1], line_of(k / 10)) for k in range(1, 11)]
    samples += [Words(k + 0.5, 0.35, f"{k / 10:g}") for k in range(1, 11)]
    samples.append(Words(0, 1, tr("weight α"), bold=True))
    sheet.panels.append([Plot(samples, Axis(-1, 11), Axis(0, 1.3), 26, width=330, grid=False)])
    if not all(np.isfinite(head.alpha).all() for line in lines for head in line):
        sheet.keys.append((NAN, tr("dashed: not a number (NaN, ∞)")))
    sheet.notes.append(
        tr("Left out: weights below {least:g}, or below half of the largest of that output.", least=least)
    )


def _lines(head: _Head, rows: Places, columns: Places, pitch: float, least: float) -> Plot:
    count = max(len(rows.places), len(columns.places))
    ends = [np.arange(len(p.places)) + 0.5 + (count - len(p.places)) / 2 for p in (rows, columns)]
    kept = [(q, k) for q, row in enumerate(head.alpha) for k in np.flatnonzero(with_lines(row, least))]
    # Strong ones lie on weak ones, and what is not a number on top.
    kept.sort(key=lambda at: (a if np.isfinite(a := head.alpha[at]) else np.inf, at))
    marks: list[Mark] = [
        Line([ends[1][k], ends[0][q]], [0.13, 0.87], line_of(float(head.alpha[q, k]))) for q, k in kept
    ]
    size = min(9.5, max(6.5, pitch / 2))  # smaller where they stand close, so that none is left out
    for places, xs, y in ((columns, ends[1], 0.05), (rows, ends[0], 0.95)):
        marks += [
            Words(float(x), y, label, size, True, colour=SOFT if at in places.beyond else "", room=pitch - 2)
            for at, (x, label) in enumerate(zip(xs, places.labels, strict=True))
        ]
    tall = min(170.0, max(96.0, 0.28 * pitch * count))
    return Plot(marks, Axis(0, count), Axis(0, 1), tall + 24, head.name, head.said, pitch * count, grid=False)
