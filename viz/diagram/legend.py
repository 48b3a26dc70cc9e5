"""The legend that stands under every picture: the scale of gradients, the status of gradients, the scale of values."""

from __future__ import annotations

from ..language.catalogue import deferred, tr
from ..language.scale import BLUE, INK, ORANGE, SOFT, Scale, mix, opening
from ..language.status import CUT, EXPLODES, NORMAL, NOT_A_NUMBER, NOT_COMPUTED, STATUSES, VANISHED, ZERO
from ..language.text import decade, number
from .canvas import Canvas
from .cards import BEYOND, GATES, OPEN_ABOVE, SHUT_BELOW, VALUES
from .markup import square, table


def legend(
    canvas: Canvas,
    left: float,
    top: float,
    width: float,
    scale: Scale,
    values: float | None,
    notes: list[str],
    seen: set[str] | None = None,
) -> float:
    """Draw it and return its bottom.

    values : the end of the scale of values, None where none are shown.
    seen : what occurs in the picture and is explained; None: everything.
    """
    gates = seen is not None and GATES in seen
    if gates:
        notes = [
            *notes,
            tr(
                "shut, open: a gate whose mean is below {low}, above {high}.",
                low=SHUT_BELOW,
                high=OPEN_ABOVE,
            ),
        ]
    if seen is not None and BEYOND in seen:
        notes = [*notes, tr("‹ ›: a value beyond the ends of its scale.")]
    if seen is not None and VALUES not in seen:
        values = None
    rule = top + 6
    canvas.words(left, rule + 12, tr("gradient"), 10, INK, True, "left")
    unit = tr("its norm ‖∂L/∂·‖, on a logarithmic scale: colour and width")
    canvas.words(left + 62, rule + 12, unit, 9, SOFT, align="left")
    _gradient_scale(canvas, left + 4, rule + 36, scale)
    right = left + 400
    if values is not None:
        value_scale(canvas, left, rule + 72, values)
    if gates:
        gate_scale(canvas, left, rule + 72 + 28 * (values is not None))
    _statuses(canvas, right if width >= 760 else left, rule + (12 if width >= 760 else 132), scale, seen)
    y = rule + (72 if width >= 760 else 186)
    for k, note in enumerate(notes):
        canvas.words(right if width >= 760 else left, y + 13 * k, note, 9, SOFT, align="left", longest=150)
    return y + 13 * max(len(notes), 4) + 8


def _gradient_scale(canvas: Canvas, left: float, y: float, scale: Scale) -> None:
    """One piece of line per half decade, in its colour and width, and the decades below."""
    span, pieces = 300.0, 24
    step = span / pieces
    ends = [canvas.box(f"scale {k}", left + k * step, y, 0.1, 0.1, border=0) for k in range(pieces + 1)]
    for k in range(pieces):
        exponent = scale.low + (scale.high - scale.low) * (k + 0.5) / pieces
        x = left + k * step
        canvas.line(
            ends[k].key,
            ends[k + 1].key,
            [(x, y), (x + step, y)],
            scale.stroke(10**exponent, NORMAL),
            arrow="none",
            tooltip=decade(round(exponent)),
        )
    for tick in scale.ticks():
        x = left + span * (tick - scale.low) / (scale.high - scale.low)
        canvas.words(x, y + 14, decade(tick), 9)


def value_scale(canvas: Canvas, left: float, y: float, top: float) -> None:
    canvas.words(left, y, tr("value"), 10, INK, True, "left")
    cells = [square(mix("#ffffff", BLUE if k < 0 else ORANGE, abs(k) / 5), 15, 10) for k in range(-5, 6)]
    canvas.box(deferred("scale of values"), left + 104, y - 8, 178, 16, [table(["".join(cells)])], border=0)
    canvas.words(left + 108, y, f"≤ {number(-top)}", 9, align="right")
    canvas.words(left + 278, y, f"≥ {number(top)}", 9, align="left")
    canvas.words(left + 193, y + 13, "0", 9)


def gate_scale(canvas: Canvas, left: float, y: float) -> None:
    canvas.words(left, y, tr("gate (σ)"), 10, INK, True, "left")
    cells = [square(opening(k / 10), 15, 10) for k in range(11)]
    canvas.box(deferred("scale of gates"), left + 104, y - 8, 178, 16, [table(["".join(cells)])], border=0)
    canvas.words(left + 100, y, tr("0 shut"), 9, align="right")
    canvas.words(left + 286, y, tr("1 open"), 9, align="left")


def _statuses(canvas: Canvas, left: float, y: float, scale: Scale, seen: set[str] | None = None) -> None:
    """A sample of every status that occurs, as a line, with the bounds in figures."""
    said = {
        NOT_COMPUTED: tr("– no gradient arrives"), CUT: tr("cut (detach)"), ZERO: tr("exactly zero"),
        VANISHED: tr("vanished: < {bound}", bound=number(scale.vanished)),
        EXPLODES: tr("exploded: > {bound}", bound=number(scale.exploded)),
        NOT_A_NUMBER: tr("not a number (NaN, ∞)"),
    }  # fmt: skip
    found = [s for s in STATUSES if s != NORMAL and (seen is None or s in seen)]
    if found:
        canvas.words(left, y, tr("status"), 10, INK, True, "left")
    for k, status in enumerate(found):
        x, row = left + 56 + 196 * (k % 3), y + 22 * (k // 3)
        stroke = scale.stroke(None, status)
        a = canvas.box(f"status {k} a", x, row, 0.1, 0.1, border=0)
        b = canvas.box(f"status {k} b", x + 40, row, 0.1, 0.1, border=0)
        canvas.line(a.key, b.key, [(x, row), (x + 40, row)], stroke, arrow="none", tooltip=tr(status))
        if stroke.mark and status not in (VANISHED, EXPLODES):
            canvas.words(x + 20, row, stroke.mark, 9, stroke.colour.split(":")[0], True, paper="#ffffff")
        canvas.words(x + 46, row, said[status], 9, INK, align="left")
