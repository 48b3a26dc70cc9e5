"""Colours, line widths and the one logarithmic scale of gradients.

A gradient is shown by colour AND width on a logarithmic scale, a signed value by
blue, white and orange on a linear one.  Both ramps keep their order in greyscale
and for colour-blind readers, and no status is told by colour alone: see `STATUSES`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .catalogue import tr
from .status import (
    CUT,
    EXPLODED_ABOVE,
    EXPLODES,
    NORMAL,
    NOT_A_NUMBER,
    NOT_COMPUTED,
    VANISHED,
    VANISHED_BELOW,
    ZERO,
)

# The first that is installed is taken; letters that it lacks come from the others: install one of the Noto Sans
# CJK fonts (Debian: fonts-noto-cjk) for captions in Chinese, Japanese or Korean.
FONT = "DejaVu Sans,Verdana,Helvetica,Noto Sans CJK SC,Noto Sans CJK JP,Source Han Sans,Microsoft YaHei,PingFang SC,sans-serif"


INK, SOFT, FAINT, PAPER, PANEL = "#1b1b1b", "#5d6470", "#c3c9d1", "#ffffff", "#f4f6f8"


# Light to dark with evenly falling lightness, so that order survives greyscale print.
RAMP = ("#c9dd5a", "#8acb5c", "#4fb56d", "#2c9b80", "#26808a", "#30658b", "#40498a", "#4a2f7b", "#43135d")


BLUE, ORANGE = "#2166ac", "#e08214"


GATE = "#3f4a59"  # an open gate; a shut one is white


EXPLODED, NAN, CUT_INK = "#c8102e", "#c51b8a", "#1b1b1b"


# For weights of attention, from 0 to 1: white to dark brown, with evenly falling lightness.
SHADES = ("#ffffff", "#fbe3c0", "#f2b66b", ORANGE, "#a8560a", "#572c05")


def mix(a: str, b: str, share: float) -> str:
    """The colour `share` of the way from a to b."""
    parts = ((int(a[k : k + 2], 16), int(b[k : k + 2], 16)) for k in (1, 3, 5))
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in parts)


def ramp(share: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(RAMP) - 1)
    k = min(int(place), len(RAMP) - 2)
    return mix(RAMP[k], RAMP[k + 1], place - k)


def signed(value: float, top: float) -> str:
    """Blue for −top, white for 0, orange for +top; grey stripes of the legend mean not a number."""
    if math.isnan(value):
        return "#d9a3c9"
    share = min(abs(value) / top, 1.0) if top else 0.0
    return mix("#ffffff", ORANGE if value > 0 else BLUE, share)


def shade(alpha: float) -> str:
    """The colour of a weight; grey for what is not a number."""
    if not math.isfinite(alpha):
        return "#d9a3c9"
    place = min(max(alpha, 0.0), 1.0) * (len(SHADES) - 1)
    k = min(int(place), len(SHADES) - 2)
    return mix(SHADES[k], SHADES[k + 1], place - k)


def opening(value: float) -> str:
    """White for a shut gate (0), dark for an open one (1)."""
    return "#d9a3c9" if math.isnan(value) else mix("#ffffff", GATE, min(max(value, 0.0), 1.0))


def ink_on(colour: str) -> str:
    """Black or white, whichever is read better on `colour`."""
    r, g, b = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#ffffff" if 0.299 * r + 0.587 * g + 0.114 * b < 140 else INK


@dataclass(frozen=True)
class Stroke:
    """How a line is drawn: everything that tells its status."""

    colour: str
    width: float
    dash: str  # solid | dashed | dotted
    mark: str  # text on the line, where colour and width do not say it


def line_of(alpha: float) -> Stroke:
    """The look of a line that carries a weight."""
    if not math.isfinite(alpha):
        return Stroke("#c51b8a", 2.4, "dashed", "NaN")
    return Stroke(shade(0.12 + 0.88 * alpha), round(0.5 + 5.5 * min(max(alpha, 0.0), 1.0), 2), "solid", "")


@dataclass(frozen=True)
class Scale:
    """The one logarithmic scale of a picture: from 10^low to 10^high.

    Pass the same `Scale` to several pictures to set them side by side.
    """

    low: int = -4
    high: int = 0
    vanished: float = VANISHED_BELOW
    exploded: float = EXPLODED_ABOVE

    @staticmethod
    def of(norms: Iterable[float]) -> Scale:
        """Whole decades around the finite norms, within the bounds of vanished and exploded."""
        found = [
            math.log10(n) for n in norms if n and math.isfinite(n) and VANISHED_BELOW <= n <= EXPLODED_ABOVE
        ]
        if not found:
            return Scale()
        low, high = math.floor(min(found) + 1e-9), math.ceil(max(found) - 1e-9)
        return Scale(low if low < high - 1 else high - 2, high)

    def share(self, value: float) -> float:
        """Where a norm above 0 lies on the scale: 0 at its lower end, 1 at its upper."""
        return (math.log10(value) - self.low) / (self.high - self.low)

    def status(self, value: float | None) -> str:
        """The status of a gradient by its norm; None is not computed."""
        if value is None:
            return NOT_COMPUTED
        if not math.isfinite(value):
            return NOT_A_NUMBER
        if value == 0:
            return ZERO
        return VANISHED if value < self.vanished else EXPLODES if value > self.exploded else NORMAL

    def colour(self, value: float | None, status: str | None = None) -> str:
        """The colour of a gradient by its norm, as #rrggbb; None is not computed."""
        status = status or self.status(value)
        if status == NORMAL and value:
            return ramp(self.share(value))
        return {EXPLODES: EXPLODED, NOT_A_NUMBER: NAN, VANISHED: "#a59d3a", CUT: CUT_INK}.get(
            status, "#9aa1ab"
        )

    def stroke(self, value: float | None, status: str | None = None) -> Stroke:
        """Colour, width and dashes of an arrow by the norm of its gradient, and the mark on it."""
        status = status or self.status(value)
        colour = self.colour(value, status)
        if status == NORMAL and value:
            return Stroke(colour, round(1.2 + 4.8 * min(max(self.share(value), 0.0), 1.0), 2), "solid", "")
        if status == EXPLODES:
            return Stroke(f"{colour}:{colour}:{colour}", 2.6, "solid", tr("exploded"))
        width, dash, mark = {
            NOT_A_NUMBER: (2.4, "dashed", "NaN"),
            VANISHED: (1.4, "dotted", tr("vanished")),
            CUT: (1.4, "dashed", "✂"),
            ZERO: (0.8, "solid", "0"),
        }.get(status, (0.8, "dashed", ""))
        return Stroke(colour, width, dash, mark)

    def ticks(self) -> list[int]:
        """The decades that the legend writes, at most 7."""
        step = max(1, -(-(self.high - self.low) // 6))
        return list(range(self.low, self.high + 1, step))
