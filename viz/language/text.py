"""Text in pictures: what comes from outside made harmless, numbers in few digits, names as the slide writes them.

All text that comes from outside (names, scopes, titles) passes `html`, `plain` or `identifier`
before it enters a picture.
"""

from __future__ import annotations

import html as _html
import math
import re
from collections.abc import Sequence

import numpy as np

from minigrad.names import printable as clean  # one line of printable text, an … where it is cut

from .catalogue import tr


def fitting(text: object, width: float, size: float) -> str:
    """As much of `text` as `width` points hold at a size of letters; spaces go first."""
    longest = max(2, int(width / (0.6 * size)))
    line = clean(text)
    return line if len(line) <= longest else clean(line.replace(" ", ""), longest)


def ending(name: object, longest: int) -> str:
    """A name in at most so many letters: of one with dots, such as layers.0.linear.weight, the end tells it apart."""
    line = clean(name, 400)
    if "." not in line or len(line) <= longest:
        return clean(line, longest)
    return "…" + line[1 - longest :]


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


def key(layer: str, name: str) -> str:
    """The name of an array in a picture's `data`: "layer 1 / f"."""
    return f"{layer} / {name}" if layer else name


def of_gradient(name: str, what: str = "") -> str:
    """The name of what belongs to a gradient: "layer 1 / dW_f norm", of "layer 1 / W_f" and "norm"."""
    layer, _, own = name.rpartition(" / ")
    return key(layer, f"d{own} {what}".rstrip())


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
    return " × ".join(clean(n, 12) for n in shape) or tr("number")


def decade(exponent: int) -> str:
    """10⁻³, or 1."""
    return (
        "1" if exponent == 0 else "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
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


def columns(rows: Sequence[Sequence[str]], left: bool = False) -> list[str]:
    """Rows as lines of text whose columns line up on the right; left: the first column on its left."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(s.ljust(w) if left and k == 0 else s.rjust(w) for k, (s, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]  # fmt: skip
