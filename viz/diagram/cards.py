"""The content of a box: name, values and gradient, as coloured cells where they are few, else as norms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from minigrad import Tensor

from ..language.catalogue import tr
from ..language.scale import INK, SOFT, Scale, opening, signed
from ..language.status import CUT, NORMAL, NOT_A_NUMBER, NOT_COMPUTED, ZERO, is_small, norm
from ..language.text import ending, number, pretty, shape_text, tight
from ..read.network import FIRST, SHARED, Group, gradient_of, gradient_status
from .markup import strip, text

BOUNDED = ("sigmoid", "tanh")
SHUT_BELOW, OPEN_ABOVE = 0.05, 0.95  # of a gate's mean
VALUES, GATES, NUMBERS, BEYOND = (
    "values",
    "gates",
    "gradients",
    "beyond",
)  # what a legend explains besides the status of gradients


@dataclass
class Look:
    """What all boxes of one picture share."""

    scale: Scale
    top: float  # the end of the scale of values
    statuses: dict[int, str]
    seen: set[str] = field(default_factory=set)  # what occurred, for the legend


def value_top(nodes: Iterable[Tensor], least: float = 1.0) -> float:
    """The end of the scale of values: 1, or the largest size that is shown, rounded up to 1, 2 or 5 × 10ⁿ."""
    nodes = list(nodes)
    if any(n.name and n.op is not None and n.op.name in BOUNDED for n in nodes):
        return 1.0  # gates are to be compared; what is larger is as dark as can be
    sizes = [
        np.abs(n.value[np.isfinite(n.value)]).max(initial=0)
        for n in nodes
        if not n.is_symbol and n.value.dtype.kind in "fiu"
    ]
    top = max([least, *map(float, sizes)])
    power = 10.0 ** math.floor(math.log10(top))
    return next(m * power for m in (1, 2, 5, 10) if top <= m * power * 1.000001)


def value_line(node: Tensor, width: float, look: Look) -> str:
    """The values as cells, or their norm."""
    if node.is_symbol:
        return text(tr("no value"), 8, SOFT)
    value = node.value.astype(np.float64) if node.value.dtype.kind in "fiub" else None
    if value is None:
        return text(node.value.dtype.name, 8, SOFT)
    if value.size == 1:
        return text(number(float(value.ravel()[0]), 3), 10, INK)
    if is_small(value):
        if is_gate(node):
            look.seen.add(GATES)
            return strip(value, width, 9, opening, lambda v: "" if math.isfinite(v) else "?")
        look.seen.add(VALUES)
        if (np.abs(value[np.isfinite(value)]) > look.top).any():
            look.seen.add(BEYOND)
        return strip(value, width, 9, lambda v: signed(v, look.top), lambda v: beyond(v, look.top))
    return ""


def _fitted(line: str, width: float) -> float:
    """The size of letters at which a line fits."""
    return round(max(5.5, min(8.5, width / (0.64 * len(line)))), 1)


def is_gate(node: Tensor) -> bool:
    return node.op is not None and node.op.name == "sigmoid"


def beyond(value: float, top: float) -> str:
    """The mark of what lies outside of the scale of values."""
    return "?" if not math.isfinite(value) else "›" if value > top else "‹" if value < -top else ""


def value_words(node: Tensor, width: float) -> list[str]:
    """The values in numbers: a gate's mean, with "shut" or "open" where it is so, and the range of any."""
    if node.is_symbol or node.dtype.kind != "f" or node.value.size < 2:
        return []
    value = node.value.astype(np.float64)
    good = value[np.isfinite(value)]
    if not good.size:
        return [tr("not a number")]
    least, most = float(good.min()), float(good.max())
    ends = number(least) if number(least) == number(most) else f"{number(least)} … {number(most)}"
    if 5.2 * len(ends) > width:
        ends = f"{tight(least, 5)}…{tight(most, 5)}"
    if not is_gate(node):
        return [ends]
    mean = float(good.mean())
    word = tr(" shut") if mean < SHUT_BELOW else tr(" open") if mean > OPEN_ABOVE else ""
    return [f"{number(mean)}{word}"] + [ends] * (number(least) != number(most))


def gradient_line(node: Tensor, width: float, look: Look) -> str:
    """The gradient as cells on the scale of the whole picture; a minus marks the negative ones."""
    gradient = gradient_of(look.statuses, node)
    if gradient is None or gradient.size == 1 or not is_small(gradient):
        return ""

    look.seen.add(NUMBERS)
    look.seen.update(look.scale.status(abs(g)) for g in np.asarray(gradient, np.float64).ravel() if g)

    def colour(g: float) -> str:
        return "#ffffff" if g == 0 else look.scale.colour(abs(g))

    def mark(g: float) -> str:
        return "!" if not math.isfinite(g) else "−" if g < 0 else "0" if g == 0 else ""

    return strip(np.asarray(gradient, dtype=np.float64), width, 9, colour, mark)


def gradient_text(
    value: float | None, status: str | None, name: str, size: float = 8.5, narrow: bool = False
) -> str:
    """`∂f 0.012`, or the status where there is no number; bold where something is wrong."""
    if value is None:
        return text(f"∂{name} {'–' if status in (NOT_COMPUTED, CUT) else tr(status or '')}", size, SOFT)
    return text(f"∂{name} {tight(value, 5) if narrow else number(value)}", size, INK)


def short(name: str) -> str:
    return pretty(name) if len(name) <= 12 else ending(name, 11)


def card(
    group: Group, width: float, look: Look, name: str, symbol: str = "", extra: Iterable[str] = ()
) -> tuple[list[str], float]:
    """Rows of markup for a group's box and the height that they need."""
    node = group.out
    norm_, status = gradient_status(look.statuses, node)
    called = short(name)
    size = min(13.0, (width - 8) / (0.72 * len(called)))
    title = text(called, round(size, 1), INK, True)
    if symbol and 9.4 * len(called) + 6.5 * len(symbol) + 8 < width - 6:
        title += " &nbsp;" + text(symbol, 10, SOFT)
    said = value_words(node, width - 8) if group.kind not in (SHARED, FIRST) else []
    rows = [
        title,
        value_line(node, width - 8, look),
        *[
            text(
                line,
                9 if is_gate(node) and k == 0 else _fitted(line, width - 6),
                INK,
                is_gate(node) and k == 0,
            )
            for k, line in enumerate(said)
        ],
        gradient_line(node, width - 8, look),
        gradient_text(
            norm_,
            status,
            pretty(name) if len(pretty(name)) <= 3 and name[:1].isalpha() else "",
            9.5,
            width < 60,
        ),
        *extra,
    ]
    # Zero is said by its number and in its cells.
    if norm_ is not None and look.scale.status(norm_) not in (NORMAL, ZERO):
        rows.append(text(wrong(look.scale.status(norm_)), 8, look.scale.colour(norm_), True))
    rows = [r for r in rows if r]
    heights = [19.0] + [13 + 9 * (r.count("<TR>") - 1) if r.startswith("<TABLE") else 15 for r in rows[1:]]
    return rows, 8 + sum(heights)


def flow_said(value: float | None, status: str | None, scale: Scale) -> str:
    """For the tooltip of a line: how much gradient flows along it, or why none."""
    if value is None:
        return tr(status or NOT_COMPUTED)
    return tr("gradient {size} ({status})", size=number(value, 4), status=tr(scale.status(value)))


def wrong(status: str) -> str:
    return tr("NaN or ∞") if status == NOT_A_NUMBER else tr(status)


def held_as(node: Tensor) -> str:
    """Of a leaf that a layer holds and that does not learn: why."""
    return (
        tr("constant")
        if node.is_constant
        else tr("frozen")
        if node.is_parameter and not node.requires_grad
        else ""
    )


def tip(node: Tensor, look: Look, name: str) -> str:
    """The tooltip: what the box has no room for."""
    value = (
        ""
        if node.is_symbol
        else tr(", norm {size}", size=number(norm(node.value), 4))
        if node.value.dtype.kind == "f"
        else ""
    )
    gradient, status = gradient_status(look.statuses, node)
    said = tr(status or NOT_COMPUTED) if gradient is None else tr("norm {size}", size=number(gradient, 4))
    held = f", {held_as(node)}" if held_as(node) else ""
    return tr(
        "{name}: {shape} {dtype}{held}{value}; gradient: {said}",
        name=name,
        shape=shape_text(node.shape),
        dtype=node.dtype,
        held=held,
        value=value,
        said=said,
    )
