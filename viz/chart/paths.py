"""Which way the gradient took: the share of every gate, what cancels, and what each gate lets through.

The gradient of a state is a sum of vectors, one for each way.  A part's share is its
length along the sum, so that shares add up to 100 %; a part that works against the sum
hangs below zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from minigrad import Tensor

from ..language.catalogue import deferred, tr
from ..language.picture import Picture
from ..language.scale import Scale, mix
from ..language.status import CUT, UNKNOWN
from ..language.text import clean, columns, key, number, pretty
from ..measure.diagnosis import spans
from ..measure.shares import cancelled, shares
from ..measure.ways import (
    FROM_LOSS,
    SAME_STEP,
    STRAIGHT,
    State,
    arrays,
    carried,
    passed_on,
    slope,
    split,
    told,
)
from ..read.network import Captions, Network, read, roots_of
from ..read.titles import heading
from .figure import Chart, one_panel
from .panels import KINDS, NOT_YET, Axis, Bar, Cell, Heat, Panel, Plot, Sheet, gradient_cell
from .steps import captions_of, drawn, sampled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SHARE = 3.0  # where the axis of shares ends
OWN = {FROM_LOSS: "#b8bec8", STRAIGHT: "#f0cf5a"}  # as the loss and the memory line elsewhere
PASSES = "#2c9b80"
NOTES = [
    deferred(
        "“through f”: by way of gate f of step t + 1; “straight along”: element by element from its state."
    ),
    deferred(
        "“f passes”: ‖what comes back to the state by way of f‖ ÷ ‖∂L/∂f‖; below 1 the gate weakens the gradient."
    ),
    deferred("“cancelled”: 1 − ‖sum of the parts‖ ÷ sum of their norms."),
]


def paths(
    what: Tensor | list, steps: list | None = None, *, of: str | None = None, title: str = "",
    scale: Scale | None = None, captions: Captions | None = None, ax: Axes | None = None,
) -> Picture:  # fmt: skip
    """By which gate how much of ∂L/∂state came, step by step: which lets it through, and which kills it.

    what, steps : the loss after ``loss.backward(record=True)``, as for `gradient`.
    of : the name of a carried state, such as "c", or "layer 1 / c"; default: all of them, in all layers.
    ax : axes of matplotlib, into which the shares of one state are drawn.
    title, scale, captions : as for `draw`.

    The picture's `data` has the parts as vectors (steps, N, H): "dc" is the sum of all "dc through f" and
    the like.  `text` is the same as a table of words.  Raises InputError where no such state is carried, and
    where `ax` is given for several.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    found = carried("paths", network, of)
    assert network is not None
    one_panel("paths", ax, [key(*which) for which in found])
    times, stride = drawn(sorted({*network.times, *(g.t for g in network.first.values())}))
    states = [split(network, band, name, times, far=True) for band, name in found]
    numbers = [v for s in states for own in (s.total, *s.parts.values()) for v in own.values() if v]
    gates = dict.fromkeys(w for s in states for w in s.ways if w not in OWN)
    colours = OWN | {way: KINDS[k % len(KINDS)] for k, way in enumerate(gates)}
    scale = scale or Scale.of(numbers)
    lines = [*heading(network), tr("Bars: the share of each way in ∂L/∂state (in %, together 100); what hangs below 0 works "
        'against the sum. Rows: norms.')]  # fmt: skip
    sheet = Sheet(
        title or tr("Which way the gradient took"), [[p] for s in states for p in _panels(network, s, colours, scale)],
        [*lines, *sampled(stride, len(network.times))], scale=scale,
        notes=[*map(tr, NOTES)] if network.computed else [tr(UNKNOWN)],
    )  # fmt: skip
    picture = Chart(sheet, arrays(states), ax)
    picture.text = "\n\n".join(_table(s) for s in states)
    return picture


def _panels(network: Network, state: State, colours: dict[str, str], scale: Scale) -> list[Panel]:
    """Bars of shares, where there are some, and rows of numbers below them."""
    head = f"{clean(state.band) + ': ' if state.band else ''}∂L/∂{pretty(state.name)}"
    said = verdict(network, state)
    found = {t: shares(state, t) for t in state.times}
    rows = _rows(network, state, colours, scale)
    if not any(found.values()):
        rows.head, rows.said = head, said
        return [rows]
    marks, low, high = _bars(state, found, colours)
    ends = np.arange(np.ceil(low * 2), np.floor(high * 2) + 1) / 2
    axis = Axis(low, high, ticks=[(v, percent(v)) for v in ends.tolist()])
    return [Plot(marks, Axis(0, len(found), ticks=()), axis, 104, head, said), rows]


def _bars(
    state: State, found: dict[int, dict[str, float]], colours: dict[str, str]
) -> tuple[list, float, float]:
    """Stacked: up what adds to the gradient, down what works against it; and the ends of their axis."""
    ups = [sum(v for v in s.values() if v > 0) for s in found.values()]
    downs = [sum(v for v in s.values() if v < 0) for s in found.values()]
    high, low = min(max([1.0, *ups]), MOST_SHARE), max(min([0.0, *downs]), 1 - MOST_SHARE)
    marks: list = []
    for k, t in enumerate(state.times):
        for sign in (1, -1):
            start = 0.0
            for way in (w for w in state.ways if found[t].get(w, 0.0) * sign > 0):
                ends = [min(max(v, low), high) for v in (start, start + found[t][way])]
                tall = (max(ends) - min(ends)) / (high - low) * 104 > 9.5
                name = short(way, pretty(state.name)) if tall else ""
                marks.append(Bar(k + 0.5, min(ends), max(ends), colours[way], 0.7, inside=name))
                start += found[t][way]
        if ups[k] > high or downs[k] < low:  # where the axis ends it says where the bar does
            beyond = f"+{100 * ups[k]:.0f} −{-100 * downs[k]:.0f}" if len(found) <= 12 else "▴"
            marks.append(Bar(k + 0.5, high, high, "#ffffff", said=beyond))
    return marks, low, high


def _rows(network: Network, state: State, colours: dict[str, str], scale: Scale) -> Heat:
    """The norms of the parts and of their sum, how much cancels, and what each gate passes on."""
    name, times = pretty(state.name), state.times
    cuts = dict.fromkeys(state.cut, CUT)

    def norms(values: dict, whys: dict) -> list[Cell]:
        return [
            gradient_cell(v := values.get(t), scale, None if v is not None else whys.get(t, ""))
            for t in times
        ]

    rows = [(tr("straight along {state}", state=name) if way == STRAIGHT else told(way),
             norms(state.parts[way], cuts if way in state.gates else {}),
             colours[way]) for way in state.ways]  # fmt: skip
    rows.append((f"‖∂L/∂{name}‖", norms(state.total, {t: state.why.get(t) or "" for t in state.total}), ""))
    bold = len(rows) - 1
    lost = _ratios(times, lambda t: cancelled(state, t), percent, KINDS[1])
    rows.append((tr("cancelled"), lost, ""))
    for way in (w for w in state.ways if w in state.gates):
        passes = _ratios(
            times, lambda t, w=way: passed_on(network, state, w, t), lambda v: f"×{number(v)}", PASSES
        )  # type: ignore[misc]
        rows.append((tr("{way} passes", way=short(way, name)), passes, ""))
    rows = [row for k, row in enumerate(rows) if k <= bold or any(c.said for c in row[1])]
    labels, cells, chips = zip(*rows, strict=True)
    return Heat(
        list(cells), labels, [str(t) for t in times], captions_of(network, times), bold=[bold], chips=chips
    )


def _ratios(times: list[int], of: Callable, said: Callable, colour: str) -> list[Cell]:
    """Cells that are darker the nearer a ratio is to 1."""
    found = [of(t) for t in times]
    return [Cell() if v is None else Cell(mix("#ffffff", colour, min(v, 1.0) * 0.75), said(v)) for v in found]


def short(way: str, straight: str = "") -> str:
    """A way in a word: the name of its gate."""
    found = {FROM_LOSS: tr("loss"), STRAIGHT: straight or tr("straight")}.get(way)
    if found:
        return found
    bare, same, _ = way.removeprefix("through ").removeprefix("from ").partition(SAME_STEP)
    return tr("{way}, same step", way=tr(bare)) if same else tr(bare)


def percent(share: float) -> str:
    """A share in whole percent; what rounds to zero is 0 %, without a sign."""
    return f"{round(100 * share) if np.isfinite(share) else number(share)} %".replace("-", "−")


def verdict(network: Network, state: State) -> str:
    """In words: by which way most of it came, which gate lets most and which least through, how much cancels."""
    inner = [t for t in state.times if state.total.get(t) and np.isfinite(state.total[t] or 0)]
    if not inner:
        bad = [t for t, v in state.total.items() if v]
        return (
            tr("not a number at {times}", times=spans(bad))
            if bad
            else tr("exactly zero")
            if state.whole
            else tr(NOT_YET)
        )
    known = [found for t in inner if (found := shares(state, t))]
    part = {way: _mean(found.get(way, 0.0) for found in known) for way in state.ways}
    way = max(part, key=lambda w: part[w])
    said = [tr("Most comes {way}: {share} on average.", way=told(way), share=percent(part[way]))]
    if not known:
        said = [tr("The ways cancel: of all that comes, less than a thousandth is left.")]
    kept = {
        w: float(np.exp(np.mean(np.log(found))))
        for w in state.gates
        if (found := [v for t in inner if (v := passed_on(network, state, w, t))])
    }
    if len(kept) > 1:
        best, worst = max(kept, key=lambda w: kept[w]), min(kept, key=lambda w: kept[w])
        bend = [v for t in inner if (v := slope(network, state, worst, t)) is not None]
        why = tr("; slope {mean}", mean=number(_mean(bend))) if bend else ""
        name = pretty(state.name)
        said.append(
            tr(
                "Of the gradient that reaches it, {best} lets most through (× {most}), {worst} least "
                "(× {least}{why}).",
                best=short(best, name),
                most=number(kept[best]),
                worst=short(worst, name),
                least=number(kept[worst]),
                why=why,
            )
        )
    lost = [v for t in inner if (v := cancelled(state, t)) is not None]
    if lost and _mean(lost) > 0.005:
        said.append(tr("{share} cancels.", share=percent(_mean(lost))))
    return " ".join(said)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return float(np.mean(values)) if values else 0.0


def _table(state: State) -> str:
    """The same numbers as text: norm and share of each way, and what cancels."""
    lines = [["t", tr("norm"), *(clean(told(w)) for w in state.ways), tr("cancelled")]]
    for t in (t for t in state.times if t in state.total):
        part, total, lost = shares(state, t), state.total[t], cancelled(state, t)
        line = [str(t), (tr(state.why.get(t) or "–")) if total is None else number(total)]
        line += [percent(part[w]) if w in part else "–" for w in state.ways]
        lines.append([*line, "–" if lost is None else percent(lost)])
    head = tr("{key}: norm, and share of the sum by way", key=key(clean(state.band), f"∂L/∂{state.name}"))
    return "\n".join([head, *columns(lines)])
