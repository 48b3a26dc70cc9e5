"""The BPTT matrix: which step's loss sends how much gradient back to the state of which step, and how it fades."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigrad import InputError, Tensor

from ..language.catalogue import deferred, tr, trn
from ..language.picture import Picture
from ..language.scale import SOFT, Scale, Stroke
from ..language.status import CUT, VANISHED
from ..language.text import number, pretty
from ..measure.bptt import FLOWS, MOST_LOSSES, NO_WAY, Matrix, arrays, losses_of, matrices
from ..measure.words import half_lives
from ..read.network import Captions, Network, read
from ..read.titles import heading
from . import panels
from .figure import Chart, one_panel
from .panels import CELL, Axis, Cell, Dots, Heat, Line, Mark, Plot, Sheet, gradient_cell
from .steps import captions_of

SIDE, LARGEST = 470.0, 44.0  # of a matrix, and of a cell
HALVES = deferred(
    "“Halves every …”: the common slope of the rows, each on a level of its own, from cut to cut; dashed line."
)


def bptt(
    what: Tensor | Sequence[Tensor], steps: list | None = None, *, of: str | None = None, title: str = "",
    scale: Scale | None = None, captions: Captions | None = None, ax=None,
) -> Picture:  # fmt: skip
    """‖∂L_s/∂h_t‖ as a matrix: what the loss of step s sends back to step t, and how fast it is forgotten.

    what : the loss, of which L_s is the part that enters at step s (for a sum over steps: that step's
        own term); or a list of losses, each a single number.  No backward pass is needed.
    of : the name of a quantity, such as "c" or a gate "f", or that of one layer, such as "layer 2 / c";
        default: the last carried state of a step.
    steps, title, scale, captions : as for `draw`.
    ax : axes of matplotlib, into which the matrix of one layer is drawn.

    At most 100 losses are followed, evenly chosen and counted from the end.  The picture's `data` has the
    norms (losses, steps) of every quantity by name, NaN where no way leads or where it is cut, and the
    steps "s" and "t" of rows and columns.  Raises InputError for what is not a loss of an unrolled cell.
    """
    root, losses = losses_of(what)
    network = read(root, steps, captions)
    if network is None:
        raise InputError("bptt: nothing in this graph stands in a step; give the loss of an unrolled cell")
    found = matrices(network, losses)
    shown = _chosen(network, found, of)
    one_panel("bptt", ax, [m.key for m in shown])
    scale = scale or Scale.of(float(v) for m in shown for v in m.norms[m.ways == FLOWS] if v)
    total, count = len(network.times), len(shown[0].losses)
    sampled = count == MOST_LOSSES < total or total > 2 * MOST_LOSSES
    sheet = Sheet(
        title or tr("Which step's loss reaches which step"),
        [_panels(network, m, scale) for m in shown],
        [*heading(network), tr("Row s, column t: ‖∂L_s/∂state_t‖, the gradient that the loss of step s sends back to "
            'step t.')
            + tr(" {count} losses are followed.", count=count) * sampled],
        [f"{m.band + ': ' if len(shown) > 1 else ''}{verdict(m, scale)}" for m in shown],
        scale,
        notes=[
            tr("Without a frame: no way leads from that state to that loss (it comes later)."),
            *[tr(HALVES)] * any(m.half_lives for m in shown),
        ],
    )  # fmt: skip
    return Chart(sheet, arrays(found), ax)


def _chosen(network: Network, found: list[Matrix], of: str | None) -> list[Matrix]:
    """Those to draw: called `of`, or the last carried state of each layer."""
    if of is None:
        last = {band: names[-1] for band, names in network.carried.items() if names}
        shown = [m for m in found if last.get(m.band) == m.name]
        if not shown:
            raise InputError(
                "bptt: no state is carried from step to step in this graph; name a quantity with of="
            )
        return shown
    shown = [m for m in found if of in (m.name, m.key)]
    if not shown:
        known = ", ".join(dict.fromkeys(m.name for m in found))
        raise InputError(f"bptt: of = {of!r} is not a quantity of a step; there are {known}")
    return shown


def _panels(network: Network, m: Matrix, scale: Scale) -> list[panels.Panel]:
    matrix = _matrix(network, m, scale)
    return [matrix, _distances(m, scale)] if len(m.by_distance) > 1 else [matrix]


def _matrix(network: Network, m: Matrix, scale: Scale) -> Heat:
    """Cells as square as their numbers allow, at most 100 columns: every nth, counted from the end, as the rows are."""
    columns = list(range(len(m.times)))[:: -max(1, -(-len(m.times) // (MOST_LOSSES + 1)))][::-1]
    columns = [k for k in columns if m.there[k]]
    side = min(LARGEST, SIDE / max(len(m.losses), len(columns)))
    times = [m.times[k] for k in columns]
    return Heat(
        [[_cell(m, r, k, scale) for k in columns] for r in range(len(m.losses))],
        [str(s) for s in m.losses], [str(t) for t in times], captions_of(network, times),
        f"{m.band + ': ' if m.band else ''}‖∂L_s/∂{pretty(m.name)}_t‖",
        height=max(side, CELL) if len(m.losses) < 12 else side, width=side * len(columns), below=tr("state of step t"),
        left=tr("loss of step s"),
    )  # fmt: skip


def _cell(m: Matrix, r: int, k: int, scale: Scale) -> Cell:
    if m.ways[r, k] == FLOWS:
        return gradient_cell(float(m.norms[r, k]), scale)
    return gradient_cell(None, scale, panels.NO_WAY if m.ways[r, k] == NO_WAY else CUT)


def _distances(m: Matrix, scale: Scale) -> Plot:
    """The norms by distance: medians as dots, smallest to largest as lines, and the line of the half-life."""
    found, furthest = m.by_distance, max(m.by_distance)
    kept = {d: found[d] for d in list(found)[:: -(-len(found) // MOST_LOSSES)]}
    middles = [float(np.median(v)) for v in kept.values()]
    marks: list[Mark] = [
        Line([d, d], [float(v.min()), float(v.max())], Stroke("#aeb4bd", 3.0 if len(kept) < 40 else 1.4, "solid", ""))
        for d, v in kept.items() if len(v) > 1
    ]  # fmt: skip
    if m.half_lives:
        start, step = np.log(m.slope)
        ends = np.exp(np.clip([start, start + step * furthest], -700, 700)).tolist()  # within floats
        marks.append(Line([0, furthest], ends, Stroke(SOFT, 1.2, "dashed", "")))
    size = 7.0 if len(kept) < 40 else 4.0
    marks.append(Dots(list(kept), middles, [scale.colour(v) for v in middles], size))
    every = np.log10(np.concatenate(list(found.values())))
    low = 10.0 ** np.clip(np.floor(every.min()), -300, 299)
    high = 10.0 ** np.clip(np.ceil(every.max()), -299, 300)
    label = (
        tr("distance | s − t |, in steps") if m.entry is None else tr("steps back from t = {t}", t=m.entry)
    )
    x = Axis(-0.5, furthest + 0.5, label=label)
    said = tr("median, smallest and largest") + tr(
        "; dashed: {fades}", fades=half_lives(m.half_lives)
    ) * bool(m.half_lives)
    return Plot(marks, x, Axis(low, max(high, low * 10), True), 190, tr("By distance"), said)


def verdict(m: Matrix, scale: Scale) -> str:
    """In words: how fast the gradient is forgotten, what is left of that which comes furthest, what is cut."""
    said = []
    flows = m.norms[m.ways == FLOWS]
    if len(flows) and not np.isfinite(flows).all():
        said.append(tr("It is not a number in places."))
    if m.half_lives:
        said.append(tr("What one loss sends back {fades}.", fades=half_lives(m.half_lives)))
    back, norms = max(map(m.row, range(len(m.losses))), key=lambda row: row[0].max(initial=-1))
    there = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    there = there[1:] if len(there) > 3 else there
    if len(there) > 1:
        near, far = back[there[[0, -1]]].tolist()
        left = float(norms[there[-1]] / norms[there[0]])
        grown = (
            tr("{left} times as much", left=number(left))
            if left > 1
            else tr("× {left} of it", left=number(left))
        )
        said.append(
            trn(
                "From {n:.0f} step back to {far:.0f}: {grown} is left.",
                "From {n:.0f} steps back to {far:.0f}: {grown} is left.",
                int(near),
                far=far,
                grown=grown,
            )
        )
    elif not m.by_distance and len(flows):
        said.append(tr("Exactly zero everywhere."))
    cuts = m.cuts
    if cuts:
        more = tr(" and {n} more", n=len(cuts) - 3) if len(cuts) > 3 else ""
        where = ", ".join(tr("{t} and {next}", t=a, next=b) for a, b in cuts[:3]) + more
        said.append(tr("✂ Cut between t = {where}: a loss does not reach back over it.", where=where))
    small = [d for d, v in m.by_distance.items() if scale.status(float(np.median(v))) == VANISHED]
    if small:
        said.append(tr("Vanished from {n} steps on.", n=min(small)))
    return " ".join(said)
