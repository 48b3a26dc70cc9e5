"""Several runs on one scale: how the gradient goes back in each, the gates that they share, and their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minigrad import InputError, Tensor

from ..language.catalogue import tr
from ..language.picture import Picture
from ..language.scale import BLUE, ORANGE, Scale, mix
from ..language.status import UNKNOWN
from ..language.text import clean, number, pretty
from ..measure.runs import Run, Shared, arrays, ratio, run_of, same_inputs, shared_quantities, verdict
from ..read.network import Captions
from ..read.titles import sizes
from .figure import Chart
from .panels import (
    BLANK,
    Axis,
    Cell,
    Curve,
    Heat,
    Plot,
    Sheet,
    ends_of,
    gradient_cell,
    share_cell,
    value_cell,
)
from .steps import captions_of, drawn, sampled

MOST_RUNS = 4


def compare(
    runs: Mapping[str, Tensor | list], *, of: str | None = None, title: str = "", scale: Scale | None = None,
    captions: Captions | None = None, ax=None,
) -> Picture:  # fmt: skip
    """Two to four networks on the same input: ‖∂L/∂state_t‖ of each on one scale, gates they share, differences.

    runs : names and losses after ``loss.backward(record=True)``, as {"LSTM": a, "GRU": b}; all of the same
        number of steps.
    of : the name of the state that all have; default: the last carried state of the last layer of each.
    title, scale, captions : as for `draw`.
    ax : axes of matplotlib, into which the curves of the gradients are drawn.

    The picture's `data` has ‖∂L/∂state‖ as "LSTM dh" and the means of shared quantities as "LSTM f", all
    (steps,), NaN where they are not known.  Raises InputError for one run, for more than four, and for
    runs that cannot be compared.
    """
    if not isinstance(runs, Mapping) or not 2 <= len(runs) <= MOST_RUNS:
        raise InputError(
            f"compare: give two to {MOST_RUNS} runs by name, as {{'LSTM': loss, 'GRU': other_loss}}, "
            f"not {len(runs) if isinstance(runs, Mapping) else type(runs).__name__}"
        )
    found = [run_of(clean(str(name), 16), what, of, captions) for name, what in runs.items()]
    for r in found[1:]:
        if r.network.times != found[0].network.times:
            raise InputError(
                f"compare: {found[0].name} has {len(found[0].network.times)} steps and {r.name} "
                f"{len(r.network.times)}; run them on the same input"
            )
    every, network = found[0].network.times, found[0].network
    times, stride = drawn(every)
    norms = {r.name: [r.gradient(t)[0] for t in times] for r in found}
    scale = scale or Scale.of(v for own in norms.values() for v in own if v)
    shared, columns, alike = shared_quantities(found), [str(t) for t in times], same_inputs(found)
    said = (
        ""
        if alike is None
        else tr(" All read the same input.")
        if alike
        else tr(" They read DIFFERENT inputs.")
    )
    notes = [tr("÷: how many times as much gradient as the first."), tr("−: the difference from the first.")]
    if any(not q.gate for q in shared):
        notes.append(tr("|·|: the mean of sizes, where values have both signs."))
    if not all(r.network.computed for r in found):
        notes.insert(0, tr(UNKNOWN))
    sheet = Sheet(
        title or tr("{names} and {last} on one scale", names=', '.join(r.name for r in found[:-1]), last=found[-1].name),
        [
            [_curves(found, norms, scale, columns, ax is not None)],
            [_gradients(found, times, scale, columns, captions_of(network, times))],
            *([_means(q, found, times, columns)] for q in shared),
        ],
        [*_sizes(found), tr("‖∂L/∂state‖ at each step, on a logarithmic scale.{said}", said=said), *sampled(stride, len(every))],
        scale=scale, keys=[(BLUE, tr("less than the first")), (ORANGE, tr("more"))], notes=notes,
    )  # fmt: skip
    return Chart(sheet, arrays(found, shared), ax)


def _sizes(found: list[Run]) -> list[str]:
    """Once for all where they are alike."""
    said = {r.name: sizes(r.network) for r in found}
    return list(said.values())[:1] if len(set(said.values())) == 1 else [f"{n}: {s}" for n, s in said.items()]


def _curves(
    found: list[Run], norms: Mapping[str, Sequence], scale: Scale, columns: Sequence[str], alone: bool
) -> Plot:
    """A curve for each run; its label says how much of the gradient a step carries back."""
    xs = [k + 0.5 for k in range(len(columns))]
    curves = [
        Curve(xs, [np.nan if v is None else v for v in norms[r.name]], k, f"{r.name}: {verdict(r)}" if not alone else r.name)
        for k, r in enumerate(found)
    ]  # fmt: skip
    low, high = ends_of([v for own in norms.values() for v in own if v is not None], scale)
    ticks = [(x, c) for x, c in zip(xs, columns, strict=True)] if alone else ()
    return Plot(
        list(curves), Axis(0, len(columns), ticks=ticks), Axis(low, high, True), 150, "‖∂L/∂state‖" * alone
    )


def _gradients(
    found: list[Run], times: list[int], scale: Scale, columns: Sequence[str], captions: Sequence[str]
) -> Heat:
    """The norms of every run, and how many times the first's they are."""
    first = [found[0].gradient(t)[0] for t in times]
    rows, labels = [], []
    for k, r in enumerate(found):
        own = [r.gradient(t) for t in times]
        rows.append([gradient_cell(v, scale, why or "" if v is None else None) for v, why in own])
        labels.append(f"{r.name}  ‖∂L/∂{pretty(r.state)}‖")
        if k:
            rows.append([_ratio_cell(ratio(v, a)) for (v, _), a in zip(own, first, strict=True)])
            labels.append(f"{r.name} ÷ {found[0].name}")
    return Heat(rows, labels, columns, captions, tr("Gradient"))


def _ratio_cell(value: float | None) -> Cell:
    """Orange above 1, blue below, on the scale of decades."""
    if value is None:
        return BLANK
    share = min(abs(np.log10(value)) / 2, 1.0) if value > 0 and np.isfinite(value) else 1.0
    colour = mix("#ffffff", ORANGE if value > 1 else BLUE, 0.15 + 0.85 * float(share) if value != 1 else 0.0)
    return Cell(colour, f"× {number(value)}")


def _means(shared: Shared, found: list[Run], times: list[int], columns: Sequence[str]) -> Heat:
    """The mean of a quantity in every run, and the difference from the first."""
    first = [shared.means[found[0].name].get(t) for t in times]
    rows, labels = [], []
    write = share_cell if shared.gate else lambda v: value_cell(v, 1.0)
    for k, r in enumerate(found):
        own = [shared.means[r.name].get(t) for t in times]
        rows.append([BLANK if v is None else write(v) for v in own])
        labels.append(r.name)
        if k:
            gaps = zip(own, first, strict=True)
            rows.append([BLANK if v is None or a is None else value_cell(v - a, 1.0) for v, a in gaps])
            labels.append(f"{r.name} − {found[0].name}")
    return Heat(rows, labels, columns, head=shared.title, said=tr("over units and sequences"))
