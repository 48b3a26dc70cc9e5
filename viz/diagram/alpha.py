"""The scale of weights of attention, drawn."""

from __future__ import annotations

from ..language.catalogue import deferred, tr
from ..language.scale import INK, line_of, shade
from .canvas import Canvas
from .markup import square, table


def alpha_scale(canvas: Canvas, left: float, y: float, lines: bool = False) -> None:
    """The scale of weights, drawn; lines: as widths too."""
    canvas.words(left, y, tr("weight α"), 10, INK, True, "left")
    cells = [square(shade(k / 10), 18, 10) for k in range(11)]
    canvas.box(deferred("scale of weights"), left + 66, y - 8, 210, 16, [table(["".join(cells)])], border=0)
    for k in (0, 5, 10):
        canvas.words(left + 78 + 18.6 * k, y + 14, f"{k / 10:g}", 9)
    if lines:
        for k in range(1, 11):
            x = left + 78 + 18.6 * k
            a = canvas.box(f"width {k} a", x - 8, y + 26, 0.1, 0.1, border=0)
            b = canvas.box(f"width {k} b", x + 8, y + 26, 0.1, 0.1, border=0)
            ends = [(x - 8, y + 26), (x + 8, y + 26)]
            canvas.line(a.key, b.key, ends, line_of(k / 10), arrow="none", tooltip=f"α = {k / 10:g}")
