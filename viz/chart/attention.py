"""`attention`: where each output step looks, as a matrix of weights or as lines from inputs to outputs.

One panel per head, all on one scale from 0 to 1; with the gradient ∂L/∂α beside it
where that is asked for.  The picture answers: which inputs does this output step look
at, and how sharply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minigrad import InputError, Tensor

from ..diagram.alpha import (
    LEAST,
    Axis,
    Weights,
    alpha_scale,
    find,
    line_of,
    shade,
    sizes,
    together,
    with_lines,
)
from ..diagram.canvas import Box, Canvas
from ..diagram.legend import UNKNOWN, legend
from ..diagram.markup import cell, square, table, text
from ..diagram.render import Diagram
from ..language.scale import FAINT, INK, PANEL, SOFT, Scale
from ..language.text import brief, clean, fitting, number, span
from ..read.network import NOT_COMPUTED

VIEWS = ("matrix", "lines")
PAGE, MOST_PANELS, GAP, HEIGHT = 1060.0, 16, 26.0, 17.0
SMALL, LARGE, WIDE = 15.0, 34.0, 64.0  # the least width for a label, the most for a cell, and between lines


def attention(
    what: Tensor | np.ndarray | list, steps: list | None = None, *, view: str = "matrix", name: str = "alpha",
    inputs: Sequence | None = None, outputs: Sequence | None = None, gradient: bool = False,
    heads: Sequence[int] | None = None, sequence: int = 0, axes: str | None = None,
    window: tuple[int, int] | None = None, over: tuple[int, int] | None = None, least: float = LEAST,
    title: str = "", scale: Scale | None = None, time_limit: float = 20.0,
) -> Diagram:  # fmt: skip
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
    title, scale, time_limit : as for `draw`; scale is that of the gradient.

    `data` of the picture holds "alpha" (heads, outputs, inputs) and, when known, "d alpha"; where there are
    several sets of weights, each name begins with its place: "block 1/alpha".

    Raises InputError for what holds no weights, labels that are not as many as the steps, and options that
    make no sense.
    """
    _check(view, gradient, least)
    found = find(what, steps, name, axes, sequence, "attention")
    chosen = _chosen(found, heads)
    _, Q, K = found[0].alpha.shape
    if outputs is None and Q == K:
        outputs = inputs
    rows = Axis.of("window", Q, window, outputs, beyond=False)
    if over is None and Q == K:
        over = window
    columns = Axis.of("over", K, over, inputs, beyond=True)
    title = title or "Attention: where each output looks"
    largest = LARGE if view == "matrix" else WIDE
    drawing = _Drawing(chosen[:MOST_PANELS], rows, columns, title, scale, gradient, largest)
    count = found[0].sequences
    notes = [f"{MOST_PANELS} of {len(chosen)} heads are drawn"] if len(chosen) > MOST_PANELS else []
    notes += [f"sequence {sequence} of {count}"] if count > 1 else []
    if view == "matrix":
        y = drawing.head(
            "A row is an output step: how it shares its attention among the inputs.", "; ".join(notes)
        )
        drawing.legend(drawing.draw(y, drawing.matrix))
    else:
        words = "Inputs below, outputs above: a line is wide and dark where the output looks at that input."
        y = drawing.head(words, "; ".join(notes))
        y = drawing.draw(y, lambda panel, x, top, _: drawing.bipartite(panel, x, top + 4, least))
        drawing.legend_of_lines(y, least)
    return Diagram(drawing.canvas.picture_text(), title, "nop2", time_limit, _data(found))


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


def sharpness(alpha: np.ndarray) -> float:
    """At how many inputs an output step looks: e to the mean entropy of its weights; rows without any do not count."""
    rows = alpha[np.isfinite(alpha).all(axis=1)]
    rows = rows[rows.sum(axis=1) > 0]
    if not len(rows):
        return float("nan")
    shares = np.clip(rows, 0.0, None)
    shares = shares / shares.sum(axis=1, keepdims=True)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return float(np.exp(entropy.mean()))


@dataclass
class _Panel:
    """What one panel shows, place by place: weights, and what is known of their gradient."""

    name: str
    sharp: float
    alpha: np.ndarray
    gradient: np.ndarray | None
    state: str | None


class _Drawing:
    def __init__(
        self, chosen: list[tuple[Weights, int]], rows: Axis, columns: Axis, title: str, scale: Scale | None,
        gradient: bool, largest: float,
    ):  # fmt: skip
        self.canvas, self.rows, self.columns, self.gradient = Canvas(title), rows, columns, gradient
        self.lines_of_panels = self._panels(chosen)
        self.panels = [panel for line in self.lines_of_panels for panel in line]
        known = [np.abs(p.gradient[p.alpha != 0]) for p in self.panels if p.gradient is not None]
        self.scale = scale or Scale.of(np.concatenate(known).tolist() if known else [])
        self.label_width = min(120.0, 14.0 + 6.6 * max(len(clean(label)) for label in rows.labels))
        self.across, self.cell = self._fitting(largest)
        self.width = self.label_width + self.cell * len(columns.places)

    def _panels(self, chosen: list[tuple[Weights, int]]) -> list[list[_Panel]]:
        """In lines: each set of weights begins one, if it has several heads."""
        lines: list[list[_Panel]] = [[]]
        for k, (weights, head) in enumerate(chosen):
            if k and chosen[k - 1][0] is not weights and len(weights.alpha) > 1:
                lines.append([])
            parts = [weights.label] if weights.label else []
            parts += [f"head {head}"] if len(weights.alpha) > 1 else []
            alpha = weights.alpha[head]
            gradient = (
                None if weights.gradient is None else sizes(weights.gradient[head], self.rows, self.columns)
            )
            shown = together(alpha, self.rows, self.columns)
            lines[-1].append(_Panel(", ".join(parts), sharpness(alpha), shown, gradient, weights.state))
        return lines

    def _fitting(self, largest: float) -> tuple[int, float]:
        """How many panels stand side by side, and the width of their cells."""
        longest = max(len(clean(label)) for label in self.columns.labels)
        least = min(58.0, max(SMALL, 6.4 * longest + 3))  # long labels get room
        count = len(self.columns.places)
        most = max(map(len, self.lines_of_panels))
        # The gradients stand beside the weights where there is room, else below them.
        for across in [2 * most] * self.gradient + list(range(most, 0, -1)):
            room = ((PAGE + GAP) / across - GAP - self.label_width) / count
            if room >= (least if across <= most else max(least, 26.0)) or across == 1:
                break
        return across, max(7.0, min(max(largest, least), room))

    def head(self, said: str, sequence: str) -> float:
        """Title, how to read it, what is left out; returns where the panels begin."""
        canvas = self.canvas
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        canvas.words(8, 34, said, 10, SOFT, align="left", longest=200)
        notes = [self.rows.said("output", "mean"), self.columns.said("input", "sum"), sequence]
        notes = [note for note in notes if note]
        if notes:
            canvas.words(8, 50, "; ".join(notes) + ".", 10, SOFT, align="left", longest=200)
        return 76.0 if notes else 60.0

    def draw(self, y: float, one: Callable[[_Panel, float, float, bool], float]) -> float:
        """All panels from `y` down, each drawn by `one`; returns their bottom."""
        for line in self.lines_of_panels:
            for start in range(0, len(line), self.across):
                part = [(panel, False) for panel in line[start : start + self.across]]
                slopes = [(panel, True) for panel, _ in part] if self.gradient else []
                rows = [part + slopes] if len(part) + len(slopes) <= self.across else [part, slopes]
                for row in rows:
                    bottoms = []
                    for k, (panel, gradient) in enumerate(row):
                        x = 8 + k * (self.width + GAP)
                        self._panel_head(panel, x, y, gradient)
                        bottoms.append(one(panel, x, y + 12, gradient))
                    y = max(bottoms) + 26
        return y

    def _panel_head(self, panel: _Panel, x: float, y: float, gradient: bool) -> None:
        name = f"∂L/∂α  {panel.name}".strip() if gradient else panel.name
        name = fitting(name, max(self.width, 120), 12)
        if name:
            self.canvas.words(x, y, name, 12, INK, True, "left")
        if not gradient and not np.isnan(panel.sharp):
            said = f"looks at {number(panel.sharp)} input{'s' * (panel.sharp > 1.05)} on average"
            if not name or 8.6 * len(name) + 10 + 5.6 * len(said) < self.width + GAP:
                self.canvas.words(x + (8.6 * len(name) + 10 if name else 0), y, said, 10, SOFT, align="left")

    # As matrices.

    def matrix(self, panel: _Panel, left: float, top: float, gradient: bool) -> float:
        """One matrix as a table; returns its bottom."""
        key = f"{'d ' if gradient else ''}alpha {panel.name}".strip()
        if gradient and panel.gradient is None:
            state = panel.state or NOT_COMPUTED
            said = text(f"∂L/∂α {state}", 10, SOFT)
            self.canvas.box(key, left, top, self.width, 34, said, dash="dashed", colour=SOFT, tooltip=state)
            return top + 34
        rows = [self._row_of_inputs()]
        for label, alpha, slope in zip(
            self.rows.labels,
            panel.alpha,
            panel.alpha if panel.gradient is None else panel.gradient,
            strict=True,
        ):
            finite = np.isfinite(alpha)
            most = int(np.argmax(np.where(finite, alpha, -np.inf))) if finite.any() else -1
            cells = [
                square(PANEL, self.cell, HEIGHT) if a == 0
                else self._gradient_cell(float(g)) if gradient
                else self._alpha_cell(float(a), k == most)
                for k, (a, g) in enumerate(zip(alpha, slope, strict=True))
            ]  # fmt: skip
            rows.append("".join([self._label_cell(label), *cells]))
        height = HEIGHT * len(rows)
        self.canvas.box(key, left, top, self.width, height, [table(rows)], border=0, tooltip=key)
        return top + height

    def _row_of_inputs(self) -> str:
        size = {"WIDTH": f"{self.cell:g}", "HEIGHT": f"{HEIGHT:g}", "FIXEDSIZE": "TRUE"}
        small = min(9.5, max(6.5, self.cell * 0.55))
        labels = [
            text(fitting(label, self.cell + 2, small), small, INK, True) for label in self.columns.labels
        ]
        return "".join([self._label_cell(""), *(cell(label, **size) for label in labels)])

    def _label_cell(self, label: str) -> str:
        size = {"HEIGHT": f"{HEIGHT:g}", "FIXEDSIZE": "TRUE"}
        said = text(fitting(label, self.label_width - 5, 9.5), 9.5, INK, True) if label else ""
        width = f"{self.label_width - 5:g}"
        return cell(said, WIDTH=width, ALIGN="RIGHT", **size) + cell("", WIDTH="5", **size)

    def _alpha_cell(self, alpha: float, largest: bool) -> str:
        room = self.cell >= 24
        said = (
            "?" if not np.isfinite(alpha) else brief(alpha, self.cell) if room and abs(alpha) >= 0.005 else ""
        )
        said = said + "•" if largest and room and self.cell >= 28 else "•" if largest and not room else said
        return square(shade(alpha), self.cell, HEIGHT, said, 8.0 if self.cell >= 26 else 7.0)

    def _gradient_cell(self, size: float) -> str:
        if size == 0:
            return square("#ffffff", self.cell, HEIGHT, "0", 8.0)
        mark = "!" if not np.isfinite(size) else "−" if size < 0 else ""
        return square(self.scale.colour(abs(size)), self.cell, HEIGHT, mark, 8.0)

    # As lines.

    def bipartite(self, panel: _Panel, left: float, top: float, least: float) -> float:
        """Boxes of inputs below, of outputs above, and a line for every weight; returns its bottom."""
        width, tall = self.width, min(170.0, max(90.0, 0.28 * self.width))
        outs = self._boxes(f"{panel.name} output", self.rows, left, top, width)
        ins = self._boxes(f"{panel.name} input", self.columns, left, top + tall, width)
        lines = [(q, k) for q, row in enumerate(panel.alpha) for k in np.flatnonzero(with_lines(row, least))]
        drawn = [(float(panel.alpha[q, k]), q, k) for q, k in lines]
        for a, q, k in sorted(drawn, key=lambda d: (np.inf if np.isnan(d[0]) else d[0], d[1], d[2])):
            said = f"{self.rows.labels[q]} ← {self.columns.labels[k]}: α = {number(a, 3)}"
            start, end = ins[k], outs[q]
            points = [(start.x, start.top), (end.x, end.bottom)]
            self.canvas.line(start.key, end.key, points, line_of(a), said, "none")
        return top + tall + HEIGHT

    def _boxes(self, key: str, axis: Axis, left: float, top: float, width: float) -> list[Box]:
        pitch = min(width / len(axis.places), 74.0)
        start = left + (width - pitch * len(axis.places)) / 2
        size = min(10.5, max(6.5, pitch * 0.5))
        found = []
        for at, (place, label) in enumerate(zip(axis.places, axis.labels, strict=True)):
            beyond = at in axis.beyond
            words = text(fitting(label, pitch, size), size, INK, True)
            said = f"{label}: {span([place[0] + 1, place[-1] + 1][: len(place)])}"
            found.append(
                self.canvas.box(
                    f"{key} {place[0] + 1}".strip(), start + at * pitch + 1, top, pitch - 2, HEIGHT, words,
                    tooltip=said, border=0.8, colour=SOFT if beyond else FAINT, dash="dashed" if beyond else "solid",
                    fill=PANEL if beyond else "#ffffff",
                )
            )  # fmt: skip
        return found

    # What is said below.

    def notes(self) -> list[str]:
        found = ["“looks at n inputs”: e to the mean entropy of the rows."]
        if self.columns.beyond:
            found.append("…: all inputs on that side that are not drawn, added up.")
        return found

    def legend(self, y: float) -> None:
        notes = [
            "•: the largest of a row. Grey: exactly 0, such as a step that may not be looked at.",
            *self.notes(),
        ]
        if not self.gradient:
            alpha_scale(self.canvas, 8, y + 4)
            for k, note in enumerate(notes):
                self.canvas.words(320, y + 4 + 14 * k, note, 9.5, SOFT, align="left", longest=160)
            return
        if any(panel.gradient is None for panel in self.panels):
            notes.insert(0, UNKNOWN)
        grouped = self.rows.each > 1 or self.columns.each > 1
        notes.append("Of steps taken together: the norm." if grouped else "− marks a negative gradient.")
        bottom = legend(self.canvas, 8, y, 1020, self.scale, None, notes, False)
        alpha_scale(self.canvas, 8, max(y + 80, bottom - 26))

    def legend_of_lines(self, y: float, least: float) -> None:
        alpha_scale(self.canvas, 8, y, lines=True)
        notes = [f"Left out: weights below {least:g}, or below half of the largest of that output."]
        for k, note in enumerate([*notes, *self.notes()]):
            self.canvas.words(320, y + 14 * k, note, 9.5, SOFT, align="left", longest=160)
