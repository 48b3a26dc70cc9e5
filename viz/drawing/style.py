"""What every picture shares: escaping, numbers as text, colours, the one logarithmic scale of gradients.

A gradient is shown by colour AND width on a logarithmic scale, a signed value by
blue, white and orange on a linear one.  Both ramps keep their order in greyscale
and for colour-blind readers, and no state is told by colour alone: see `STATES`.
All text that comes from outside (names, scopes, titles) passes `html`, `plain`
or `identifier` before it enters a picture.
"""

from __future__ import annotations

import html as _html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from minigrad.names import printable as clean  # one line of printable text, an … where it is cut

FONT = "DejaVu Sans,Verdana,Helvetica,sans-serif"
INK, SOFT, FAINT, PAPER, PANEL = "#1b1b1b", "#5d6470", "#c3c9d1", "#ffffff", "#f4f6f8"
# Light to dark with evenly falling lightness, so that order survives greyscale print.
RAMP = ("#c9dd5a", "#8acb5c", "#4fb56d", "#2c9b80", "#26808a", "#30658b", "#40498a", "#4a2f7b", "#43135d")
BLUE, ORANGE = "#2166ac", "#e08214"
EXPLODED, NAN, CUT_INK = "#c8102e", "#c51b8a", "#1b1b1b"
VANISHED_BELOW, EXPLODED_ABOVE = 1e-6, 1e3

NOT_COMPUTED, CUT, ZERO, VANISHED, NORMAL, EXPLODES, NOT_A_NUMBER = STATES = (
    "not computed", "cut", "exactly zero", "vanished", "normal", "exploded", "not a number",
)  # fmt: skip


# Text from outside.


def fitting(text: object, width: float, size: float) -> str:
    """As much of `text` as `width` points hold at a size of letters; spaces go first."""
    longest = max(2, int(width / (0.6 * size)))
    line = clean(text)
    return line if len(line) <= longest else clean(line.replace(" ", ""), longest)


def html(text: object, longest: int = 60) -> str:
    """`text` for the inside of HTML."""
    return _html.escape(clean(text, longest), quote=True)


def plain(text: object, longest: int = 200) -> str:
    r"""`text` for a label or tooltip, also for the inside of an HTML-like one.

    No \N or \G is replaced, nothing is taken for markup, and a lone ], at which
    Graphviz 2.4x stumbles, stands as an entity.
    """
    return html(text, longest).replace("\\", "\\\\").replace("]", "&#93;")


def identifier(text: object) -> str:
    """`text` as a node id of harmless characters (`:` would be read as a port)."""
    return re.sub(r"[^\w.=/ -]", "_", clean(text), flags=re.ASCII) or "_"


class Keys:
    """Fresh ids for nodes: harmless characters, numbered when two names come out alike."""

    def __init__(self):
        self.used: dict[str, int] = {}

    def fresh(self, wanted: object) -> str:
        base = key = identifier(wanted)
        while key in self.used:
            self.used[base] += 1
            key = f"{base} {self.used[base]}"
        self.used[key] = 1
        return key


def pretty(name: str) -> str:
    """`c_tilde` as c̃, the way the slide writes it."""
    return re.sub(r"(\w)_tilde\b", "\\1\u0303", name)


def number(value: float, digits: int = 2) -> str:
    """Few digits, no padding: 0.034, 1.2e-5, 4.1e+3."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if 1e-3 <= size < 10**4:
        text = f"{value:.{digits}g}" if size < 10**digits else f"{value:.0f}"
        text = f"{float(text):.6g}"
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    return text.replace("-", "−")


def span(times: Sequence[int]) -> str:
    """`t = 4 … 97`, or `t = 4` for a single one."""
    return f"t = {times[0]} … {times[-1]}" if len(times) > 1 else f"t = {times[0]}"


def tight(value: float, most: int = 6) -> str:
    """`number` for narrow places: one digit where two would need more than `most` characters."""
    said = number(value)
    return said if len(said) <= most else number(value, 1)


def shape_text(shape: Sequence) -> str:
    return " × ".join(clean(n, 12) for n in shape) or "number"


def norm(array) -> float:
    """The Euclidean norm in double precision, which neither overflows nor underflows on the way."""
    values = np.abs(np.asarray(array, dtype=np.float64))
    top = float(values.max(initial=0.0))
    if top == 0 or not math.isfinite(top):
        return top if not np.isnan(values).any() else math.nan
    return top * float(np.sqrt(np.square(values / top).sum()))


# Colours and widths.


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


def ink_on(colour: str) -> str:
    """Black or white, whichever is read better on `colour`."""
    r, g, b = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#ffffff" if 0.299 * r + 0.587 * g + 0.114 * b < 140 else INK


@dataclass(frozen=True)
class Stroke:
    """How a line is drawn: everything that tells its state."""

    colour: str
    width: float
    dash: str  # solid | dashed | dotted
    mark: str  # text on the line, where colour and width do not say it


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
        return (math.log10(value) - self.low) / (self.high - self.low)

    def state(self, value: float | None) -> str:
        """The state of a gradient by its norm; None is not computed."""
        if value is None:
            return NOT_COMPUTED
        if not math.isfinite(value):
            return NOT_A_NUMBER
        if value == 0:
            return ZERO
        return VANISHED if value < self.vanished else EXPLODES if value > self.exploded else NORMAL

    def colour(self, value: float | None, state: str | None = None) -> str:
        state = state or self.state(value)
        if state == NORMAL and value:
            return ramp(self.share(value))
        return {EXPLODES: EXPLODED, NOT_A_NUMBER: NAN, VANISHED: "#a59d3a", CUT: CUT_INK}.get(
            state, "#9aa1ab"
        )

    def stroke(self, value: float | None, state: str | None = None) -> Stroke:
        state = state or self.state(value)
        colour = self.colour(value, state)
        if state == NORMAL and value:
            return Stroke(colour, round(1.2 + 4.8 * min(max(self.share(value), 0.0), 1.0), 2), "solid", "")
        if state == EXPLODES:
            return Stroke(f"{colour}:{colour}:{colour}", 2.6, "solid", "exploded")
        width, dash, mark = {
            NOT_A_NUMBER: (2.4, "dashed", "NaN"),
            VANISHED: (1.4, "dotted", "vanished"),
            CUT: (1.4, "dashed", "✂"),
            ZERO: (0.8, "solid", "0"),
        }.get(state, (0.8, "dashed", ""))
        return Stroke(colour, width, dash, mark)

    def ticks(self) -> list[int]:
        """The decades that the legend writes, at most 7."""
        step = max(1, -(-(self.high - self.low) // 6))
        return list(range(self.low, self.high + 1, step))


def decade(exponent: int) -> str:
    """10⁻³, or 1."""
    return (
        "1" if exponent == 0 else "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


# HTML-like labels.  Only these functions write markup, and only from escaped text.


def text(value: object, size: float = 9, colour: str = INK, bold: bool = False, longest: int = 60) -> str:
    """Escaped text with a size and a colour."""
    inner = plain(value, longest) or " "
    inner = f"<B>{inner}</B>" if bold else inner
    return f'<FONT POINT-SIZE="{size:g}" COLOR="{colour}">{inner}</FONT>'


def cell(content: str = "", **attributes: object) -> str:
    settings = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f"<TD{settings}>{content}</TD>"


def table(rows: Sequence[str], **attributes: object) -> str:
    """A table of finished rows (each a string of cells), without lines unless asked for."""
    settings = {"BORDER": 0, "CELLBORDER": 0, "CELLSPACING": 0, "CELLPADDING": 0} | attributes
    written = "".join(f' {key}="{value}"' for key, value in settings.items())
    return f"<TABLE{written}>" + "".join(f"<TR>{row}</TR>" for row in rows) + "</TABLE>"


def node_label(rows: Sequence[str], align: str = "", padding: int = 1) -> str:
    """The whole label of a node: finished rows below each other; "" where there are none."""
    where = f' ALIGN="{align}"' if align else ""
    body = "".join(f"<TR><TD{where}>{row}</TD></TR>" for row in rows if row)
    head = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="{padding}">'
    return f"<{head}{body}</TABLE>>" if body else ""


def square(colour: str, width: float, height: float, mark: str = "", size: float = 7) -> str:
    """One coloured cell, with an optional mark in it."""
    content = text(mark, size, ink_on(colour)) if mark else ""
    fixed = {"FIXEDSIZE": "TRUE", "WIDTH": f"{width:g}", "HEIGHT": f"{height:g}", "BGCOLOR": colour}
    return cell(content, BORDER=1, COLOR="#d5d9de", **fixed)


def strip(values: np.ndarray, width: float, height: float, colours, marks) -> str:
    """A small array (at most two axes matter) as rows of coloured cells, at most `width` points wide."""
    rows = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    size = max(1, math.floor(width / rows.shape[1]))
    seen = marks if size >= 5 else lambda _: ""  # a mark would hide its neighbours
    lines = ("".join(square(colours(v), size, height, seen(v)) for v in row) for row in rows.tolist())
    return table(list(lines))


def is_small(array: np.ndarray, most_columns: int = 16, most_rows: int = 4) -> bool:
    """Whether the numbers themselves are shown: few columns and few rows."""
    columns = array.shape[-1] if array.ndim else 1
    return (
        0 < array.size <= most_columns * most_rows
        and columns <= most_columns
        and array.size // columns <= most_rows
    )


def brief(value: float, width: float) -> str:
    """Two decimals; without the leading 0 where there is little room."""
    if not np.isfinite(value):
        return number(value)
    said = f"{value:.2f}".replace("-", "−")
    return (
        said
        if width >= 30
        else said.replace("0.", ".", 1)
        if abs(value) < 1
        else f"{value:.1f}".replace("-", "−")
    )
