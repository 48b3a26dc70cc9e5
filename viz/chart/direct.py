"""Direct and total: what a step's own loss sends to its state, beside all that arrives there.

∂L/∂h_t of a recurrence holds more than the output of step t: all later steps read h_t too.
Taking the direct part for the whole is a well-known trap (tensorflow issue 5412).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minigrad import Tensor

from ..language.catalogue import deferred, tr
from ..language.picture import Picture
from ..language.scale import Scale
from ..language.status import UNKNOWN
from ..language.text import clean, key, pretty
from ..measure.diagnosis import spans
from ..measure.direct import Direct, arrays, measured
from ..measure.ways import carried
from ..read.network import Captions, Network, read, roots_of
from ..read.titles import heading
from .figure import Chart, one_panel
from .panels import NOT_YET, Axis, Bar, Heat, Panel, Plot, Sheet, Words, ends_of, gradient_cell
from .paths import percent
from .steps import captions_of, drawn, sampled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    deferred("direct"): "#b8bec8",
    deferred("from other steps"): "",
    deferred("total"): "#6b6f76",
}  # of bars


def direct(
    what: Tensor | list, steps: list | None = None, *, of: str | None = None, title: str = "",
    scale: Scale | None = None, captions: Captions | None = None, ax: Axes | None = None,
) -> Picture:  # fmt: skip
    """The gradient of each state in two bars per step: direct, from the loss of its own step, and total.

    Direct is what comes back without leaving the step, also through layers above; the rest comes by way
    of other steps.  what, steps, of, … : as for `paths`, after ``loss.backward(record=True)``.
    ax : axes of matplotlib, into which the bars of one state are drawn.

    The picture's `data` has the vectors (steps, N, H) as "dh direct", "dh from other steps" and "dh total".
    Raises InputError where no such state is carried, and where `ax` is given for several.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    which = carried("direct", network, of)
    assert network is not None
    one_panel("direct", ax, [key(*state) for state in which])
    times, stride = drawn(sorted({*network.times, *(g.t for g in network.first.values())}))
    found = measured(network, root, which, times)
    numbers = [v for d in found for kind in COLOURS for t in times if (v := d.norm(kind, t))]
    scale = scale or Scale.of(numbers)
    lines = [*heading(network), tr("Left bar: direct, from the loss of step t itself. Right bar: total, ∂L/∂state_t. "
        'Logarithmic scale.')]  # fmt: skip
    sheet = Sheet(
        title or tr("Direct and total gradient of the states"),
        [[panel] for d in found for panel in _panels(network, d, ends_of(numbers, scale), scale)],
        [*lines, *sampled(stride, len(network.times))], scale=scale,
        notes=[
            tr("direct + from other steps = total, as vectors: their norms do not add up.")
            if network.computed else tr(UNKNOWN)
        ],
    )  # fmt: skip
    return Chart(sheet, arrays(found), ax)


def _panels(network: Network, d: Direct, ends: tuple[float, float], scale: Scale) -> list[Panel]:
    """Two bars per step, and the numbers of both and of what is between them."""
    head = f"{clean(d.band) + ': ' if d.band else ''}∂L/∂{pretty(d.name)}"
    cells = [
        [gradient_cell(v := d.norm(kind, t), scale, None if v is not None else d.why.get(t) or "") for t in d.times]
        for kind in COLOURS
    ]  # fmt: skip
    steps, chips = [str(t) for t in d.times], list(COLOURS.values())
    rows = Heat(cells, [*map(tr, COLOURS)], steps, captions_of(network, d.times), bold=[2], chips=chips)
    if not d.vectors["total"]:
        rows.head, rows.said = head, verdict(d)
        return [rows]
    marks: list = []
    for k, t in enumerate(d.times):
        for kind, place in (("direct", k + 0.31), ("total", k + 0.69)):
            value = d.norm(kind, t)
            if value and np.isfinite(value):
                marks.append(Bar(place, ends[0], value, COLOURS[kind], 0.36))
            elif value is not None:
                low = ends[0] * (ends[1] / ends[0]) ** 0.06
                marks.append(Words(place, low, "?" if value else "0", bold=True))
    return [
        Plot(marks, Axis(0, len(steps), ticks=()), Axis(*ends, log=True), head=head, said=verdict(d)),
        rows,
    ]


def verdict(d: Direct) -> str:
    """In words: how much of the gradient the direct part is, where there is one, and where it is least."""
    if not d.vectors["total"]:
        return tr(NOT_YET)
    found = {t: v for t in d.times if (v := d.share(t)) is not None and d.norm("direct", t)}
    if bad := [t for t in d.times if not np.isfinite(d.norm("total", t) or 0.0)]:
        return tr("not a number at {times}", times=spans(bad))
    if not found:
        return tr("no step's own loss sends anything that has a size, beside which it could be set")
    least = min(found, key=lambda t: found[t])
    mean, low = (percent(v) for v in (float(np.mean(list(found.values()))), found[least]))
    if len(found) == 1:
        return tr(
            "Only at t = {least} does its own step send anything: {low} of it. Elsewhere all comes "
            "by way of other steps.",
            least=least,
            low=low,
        )
    return tr(
        "The loss of its own step sends {mean} of it on average ({times}), least at t = {least} "
        "({low}); the rest comes by way of other steps.",
        mean=mean,
        times=spans(found),
        least=least,
        low=low,
    )
