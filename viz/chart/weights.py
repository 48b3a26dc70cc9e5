"""Weights by step: how much each step alone adds to the gradient of each weight, and what is left of it in the sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minigrad import InputError, Tensor

from ..language.catalogue import tr
from ..language.picture import Picture
from ..language.scale import Scale, mix
from ..language.status import NOT_COMPUTED, UNKNOWN, ZERO, norm
from ..language.text import clean, number, of_gradient
from ..measure.weights import AT_ONCE, Parts, by_step
from ..read.network import Captions, read, roots_of
from ..read.titles import heading
from .figure import Chart
from .panels import KINDS, Cell, Heat, Sheet, gradient_cell
from .steps import captions_of, drawn, sampled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUM = 60.0  # the width of a column behind those of the steps


def weights_by_step(
    what: Tensor | list, steps: list | None = None, *, title: str = "", scale: Scale | None = None,
    captions: Captions | None = None, ax: Axes | None = None,
) -> Picture:  # fmt: skip
    """‖∂L/∂W‖ of each weight, step by step: what step t alone adds, the sum, and whether the steps agree.

    what, steps, title, scale, captions : as for `gradient`, after ``loss.backward(record=True)``.
    ax : axes of matplotlib, into which the steps are drawn, without the columns of sums.

    The picture's `data` has the norms of all steps "t" as "dW_f", (steps,), and the sum, of W_f's own shape,
    as "dW_f sum".  Raises InputError where no step reads a weight.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    found = by_step(network) if network is not None else []
    if network is None or not found:
        raise InputError(
            "weights_by_step: no step in this graph reads a weight; give the loss of an unrolled cell"
        )
    numbers = [v for p in found for v in p.norms.values()] + [
        norm(p.total) for p in found if p.total is not None
    ]
    scale = scale or Scale.of(numbers)
    times, stride = drawn(network.times)
    cells = [[_cell(p, p.norms.get(t), scale, AT_ONCE not in p.norms) for t in times] for p in found]
    by_time = Heat(
        cells, [clean(p.name, 40) for p in found], [str(t) for t in times], captions_of(network, times)
    )
    heads, outside = [tr("sum"), tr("agree")], any(AT_ONCE in p.norms for p in found)
    sums = [[_cell(p, None if p.total is None else norm(p.total), scale), _agreement(p)] for p in found]
    if outside:
        heads = [tr(AT_ONCE), *heads]
        sums = [
            [_cell(p, p.norms.get(AT_ONCE), scale, False), *row] for p, row in zip(found, sums, strict=True)
        ]
    lines = [
        *heading(network),
        tr("Cells: ‖∂L/∂W‖ of step t alone. Sum: over all steps, the gradient that training uses."),
    ]
    notes = [
        tr("“agree”: ‖sum over all steps‖ ÷ sum of their norms: 100 % where all steps pull the same way.")
    ]
    notes += [tr("“at once”: used outside of the steps, in one product for all.")] * outside
    sheet = Sheet(
        title or tr("What each step adds to the gradient of each weight"),
        [[by_time, Heat(sums, columns=heads, width=SUM * len(heads), below="")]],
        [*lines, *sampled(stride, len(network.times))], [verdict(found)], scale,
        notes=notes if network.computed else [tr(UNKNOWN)],
    )  # fmt: skip
    data = {"t": np.array(network.times)}
    for p in found:
        name = of_gradient(p.name)
        data[name] = np.array([p.norms.get(t, 0.0 if p.norms else np.nan) for t in network.times])
        data[f"{name} sum"] = np.array(np.nan) if p.total is None else p.total
    return Chart(sheet, data, ax)


def _cell(p: Parts, value: float | None, scale: Scale, told: bool = True) -> Cell:
    """A norm; told: whether its absence is (a weight of no single step has nothing to say in a step)."""
    missing = (ZERO if p.norms else NOT_COMPUTED) if told else ""
    return gradient_cell(value, scale, None if value is not None else missing)


def _agreement(p: Parts) -> Cell:
    share = p.agreement if len(p.norms) > 1 else None
    return (
        Cell()
        if share is None
        else Cell(mix("#ffffff", KINDS[2], 0.75 * min(share, 1.0)), f"{100 * share:.0f} %")
    )


def verdict(found: list[Parts]) -> str:
    """In words: where the largest part is, from which steps half of all comes, and where steps disagree most."""
    parts = [(v, p.name, t) for p in found for t, v in p.norms.items() if np.isfinite(v) and t != AT_ONCE]
    if not any(p.norms for p in found):
        return tr("Not computed: run loss.backward(record=True).")
    bad = [p.name for p in found if not all(map(np.isfinite, p.norms.values()))]
    odd = (
        [tr("Not a number: {names}", names=", ".join(map(clean, bad[:6]))) + (" …" if len(bad) > 6 else ".")]
        if bad
        else []
    )
    if not any(v for v, _, _ in parts):
        return odd[0] if odd else tr("Exactly zero at every step.")
    largest = max(parts, key=lambda v: v[0])
    said = [
        tr(
            "Largest: {weight} at t = {t} ({norm}).",
            weight=clean(largest[1]),
            t=largest[2],
            norm=number(largest[0]),
        )
    ]
    by_time: dict[int, float] = {}
    for v, _, t in parts:
        by_time[int(t)] = by_time.get(int(t), 0.0) + v
    order, gone, half = sorted(by_time), 0.0, sum(by_time.values()) / 2
    for t in reversed(order):
        gone += by_time[t]
        if gone >= half and len(order) > 2:
            said.append(tr("Half of all norms comes from t ≥ {t}.", t=t))
            break
    shares = [(p.agreement, p.name) for p in found if p.agreement is not None and len(p.norms) > 1]
    if len(shares) > 1:
        worst = min(shares)
        said.append(
            tr(
                "The steps agree least on {weight} ({share:.0f} %).",
                weight=clean(worst[1]),
                share=100 * worst[0],
            )
        )
    return " ".join([*said, *odd])
