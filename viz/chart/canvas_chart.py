"""What charts over time share: a frame with an axis, rows of coloured cells, and which steps are drawn.

Columns are steps, from left to right.  A frame has a linear or a logarithmic axis; a
row of cells has its label on the left, and a cell says its number where there is room.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..diagram.canvas import Canvas, Point
from ..diagram.markup import table
from ..language.scale import FAINT, INK, SOFT, Scale, Stroke
from ..language.text import decade, fitting, number

MOST_COLUMNS, LABELS, CELL = 27, 128.0, 17.0
# For kinds of things (after Okabe and Ito); each also bears its name, a dash or a marker.
KINDS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d1f", "#7f3c8d", "#3d3d3d")
DASHES = ("solid", "dashed", "dotted")


@dataclass(frozen=True)
class Frame:
    """The area of a chart: from `low` at the bottom to `high` at the top; log: these are decades."""

    canvas: Canvas
    left: float
    top: float
    width: float
    height: float
    low: float
    high: float
    log: bool = True

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def y(self, value: float) -> float:
        """Where a number stands; what is below or above the axis stands at its end."""
        place = math.log10(max(value, 1e-320)) if self.log else value
        share = (min(max(place, self.low), self.high) - self.low) / ((self.high - self.low) or 1)
        return self.bottom - self.height * share

    def grid(self, key: str, said=None) -> None:
        """Lines across, with their numbers on the left; said: how a number is written."""
        write = said or (decade if self.log else number)
        for tick in ticks(self.low, self.high, self.log):
            y = self.bottom - self.height * (tick - self.low) / ((self.high - self.low) or 1)
            self.canvas.words(self.left - 8, y, write(tick), 9, SOFT, align="right")
            heavy = not self.log and tick == 0
            stroke = Stroke(SOFT if heavy else FAINT, 1.0 if heavy else 0.5, "solid", "")
            path(self.canvas, f"grid {key} {tick:g}", [(self.left, y), (self.left + self.width, y)], stroke)


def ticks(low: float, high: float, log: bool = False, most: int = 7) -> list:
    """At most `most` round numbers from low to high; log: whole decades."""
    if log:
        return list(range(int(low), int(high) + 1, max(1, -(-(int(high) - int(low)) // (most - 1)))))
    power = 10.0 ** math.floor(math.log10((high - low) / most or 1.0))
    step = next(m * power for m in (1, 2, 5, 10, 20) if (high - low) / (m * power) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(values: Iterable[float], scale: Scale) -> tuple[int, int]:
    """The ends of a logarithmic axis: those of the scale, and further where the numbers go on."""
    sizes = [math.log10(v) for v in values if v and math.isfinite(v)]
    low, high = math.floor(min([scale.low, *sizes])), math.ceil(max([scale.high, *sizes]))
    alone = sizes and all(s > math.log10(scale.exploded) for s in sizes)
    return (math.floor(min(sizes)) - 1 if alone else low), high


def path(canvas: Canvas, key: str, points: Sequence[Point], stroke: Stroke, tooltip: str = "") -> None:
    """Straight pieces from point to point, without arrows."""
    ends = [
        canvas.box(f"{key} {k}" if k else key, x, y, 0.1, 0.1, border=0, tooltip=tooltip or key)
        for k, (x, y) in enumerate(points)
    ]
    for a, b, p, q in zip(ends, ends[1:], points, points[1:], strict=False):
        canvas.line(a.key, b.key, [p, q], stroke, tooltip, arrow="none")


def curve(
    frame: Frame, key: str, xs: Sequence[float], values: Sequence[float | None], kind: int, tooltips: Sequence[str] = ()
) -> None:  # fmt: skip
    """A line through the values that have a place on the axis, with a mark at each: one `kind` of thing."""
    canvas, colour, dash = frame.canvas, KINDS[kind % len(KINDS)], DASHES[kind % len(DASHES)]
    there = [v is not None and math.isfinite(v) and (v > 0 or not frame.log) for v in values]
    points = [
        (x, frame.y(v)) if ok and v is not None else None for x, v, ok in zip(xs, values, there, strict=True)
    ]
    for k, (p, q) in enumerate(itertools.pairwise(points)):
        if p is not None and q is not None:
            path(canvas, f"{key} line {k}", [p, q], Stroke(colour, 2.0, dash, ""))
    size = max(3.0, min(8.0, (xs[1] - xs[0]) * 0.5)) if len(xs) > 1 else 8.0
    for k, p in enumerate(points):
        if p is not None:
            said = tooltips[k] if tooltips else f"{key}: {number(values[k] or 0, 4)}"
            fill = colour if kind % 2 == 0 else "#ffffff"  # told apart without colour: full and hollow
            canvas.box(
                f"{key} mark {k}", p[0] - size / 2, p[1] - size / 2, size, size, border=1.4, colour=colour,
                fill=fill, rounded=kind % 4 > 1, tooltip=said,
            )  # fmt: skip


def drawn(times: Sequence[int], most: int = MOST_COLUMNS) -> tuple[list[int], int]:
    """The steps to draw, and their distance: every nth, counted from the end, where the gradient comes from."""
    stride = max(1, -(-len(times) // most))
    return list(times[::-stride][::-1]), stride


def sampled(stride: int, total: int) -> str:
    """The sentence that says which steps are drawn."""
    end = "th" if stride % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(stride % 10, "th")
    return f" Every {stride}{end} of {total} steps is drawn." if stride > 1 else ""


def column_width(count: int) -> float:
    """So that all columns fill a page."""
    return min(150.0, max(46.0, round(1210.0 / count)))


# Rows of cells.


def row(
    canvas: Canvas, key: str, left: float, y: float, width: float, cells: Sequence[str], label: str = "",
    height: float = CELL, tooltip: str = "", bold: bool = False, gap: float = 8.0,
) -> None:  # fmt: skip
    """Finished cells side by side around the height `y`, and what they are on their left."""
    if label:
        canvas.words(left - gap, y, label, 9.5, INK, bold, align="right")
    canvas.box(
        key, left, y - height / 2, width * len(cells), height, [table(["".join(cells)])], border=0,
        tooltip=tooltip or key,
    )  # fmt: skip


def steps_below(
    canvas: Canvas, left: float, y: float, width: float, times: Sequence[int], captions: dict[int, str],
    label: str = "step t",
) -> float:  # fmt: skip
    """The numbers of the steps under their columns, and their captions; returns the bottom."""
    canvas.words(left - 8, y, label, 9.5, SOFT, align="right")
    for k, t in enumerate(times):
        canvas.words(left + width * (k + 0.5), y, str(t), 10 if width >= 16 else 8, INK, True)
    if captions:
        y += 14
        for k, t in enumerate(times):
            if t in captions:
                canvas.words(left + width * (k + 0.5), y, fitting(captions[t], width, 9), 9, SOFT)
    return y + 6
