"""The gates over time: values and gradients, units by steps, with means and saturation in numbers.

A row of panels per quantity; after a recorded backward pass its gradient stands on the right of its
values, so that a saturated gate is seen beside what little gradient it gets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from minigrad import InputError, Tensor

from ..language.catalogue import tr
from ..language.picture import Picture
from ..language.scale import Scale
from ..language.status import NOT_COMPUTED, UNKNOWN
from ..language.text import brief, clean, number, pretty
from ..measure.gates import Quantity, quantities
from ..read.network import Captions, read, roots_of
from ..read.titles import heading
from ..read.units import NEAR
from .figure import Chart, one_panel
from .panels import BLANK, VALUE, Cell, Heat, Panel, Sheet, gradient_cell, share_cell, value_cell
from .steps import captions_of, drawn, sampled

MOST_UNITS, WIDTH = 16, 378.0  # of a panel, in points, where two stand side by side


def gates(
    what: Tensor | list, steps: list | None = None, *, of: str | None = None, title: str = "", sequence: int = 0,
    gradients: bool = True, scale: Scale | None = None, captions: Captions | None = None, ax=None,
) -> Picture:  # fmt: skip
    """Every named quantity of an unrolled cell over time: units by steps, as colours and numbers.

    what : the loss, or the steps of a run, `run.steps`; steps : those, with a loss.
    of : the one to show, such as "f", or that of one layer, such as "layer 2 / f"; default: all.
    sequence : which of the N sequences the cells show; means and norms are over all.
    gradients : also show ∂L/∂f beside f, where ``loss.backward(record=True)`` left it.
    title, scale, captions : as for `draw`.
    ax : axes of matplotlib, into which the values of one quantity are drawn.

    The picture's `data` has the values (steps, N, units) as "f" and the gradients as "df", NaN where there
    are none, at the steps "t".  Raises InputError where there are no steps, no such sequence or quantity.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    if network is None:
        raise InputError(
            'gates: nothing in this graph stands in a step (scope "t=…"); give those of a run, run.steps'
        )
    found = quantities(network)
    count = min(q.values.shape[1] for q in found)
    if not 0 <= sequence < count:
        raise InputError(f"gates: sequence = {sequence!r}; there are the sequences 0 … {count - 1}")
    shown = _chosen(found, of)
    one_panel("gates", ax, [q.key for q in shown])
    both = gradients and any(q.gradients is not None for q in shown)
    times, stride = drawn(network.times)
    view = _View(
        [network.times.index(t) for t in times], [str(t) for t in times], captions_of(network, times), sequence,
        scale or Scale.of(v for q in shown if q.gradients is not None for v in _norms(q, sequence)), _top(shown),
    )  # fmt: skip
    rows: list[list[Panel]] = [
        [view.values(q), view.gradients(q)] if both else [view.values(q)] for q in shown
    ]
    if not both:
        rows = [[p for row in rows[k : k + 2] for p in row] for k in range(0, len(rows), 2)]
    said = [*heading(network), _said(shown, sequence, count), *sampled(stride, len(network.times))]
    sheet = Sheet(
        title or tr("Gates and states over time"), rows, said, scale=view.scale if both else None, top=view.top,
        width=min(980.0, max(740.0, 250 + 2 * view.wide * len(times))),
    )  # fmt: skip
    sheet.notes = _notes(sheet, shown, both, gradients)
    return Chart(sheet, _arrays(found, network.times), ax)


def _notes(sheet: Sheet, shown: list[Quantity], both: bool, wanted: bool) -> list[str]:
    ends = tr(
        "Saturated: within {near:g} of the ends of σ (0 … 1) or tanh (−1 … 1), where hardly any gradient passes.",
        near=NEAR,
    )
    notes = [ends] * any(q.kind for q in shown)
    if both:
        notes.append(tr("∂L/∂·: colour is its size; ‖·‖ is over all units and sequences."))
    elif wanted:
        notes.append(tr(UNKNOWN))
    if any(c.of == VALUE and c.said.endswith(("▴", "▾")) for c in sheet.cells):
        notes.append(tr("▴ ▾: beyond the scale of values."))
    return notes


def _chosen(found: list[Quantity], of: str | None) -> list[Quantity]:
    shown = [q for q in found if of in (None, q.name, q.key)]
    if not shown:
        known = ", ".join(dict.fromkeys(q.name for q in found))
        raise InputError(f"gates: of = {clean(repr(of))} is not a quantity of a step; there are {known}")
    return shown


def _arrays(found: list[Quantity], steps: list[int]) -> dict[str, np.ndarray]:
    data = {"t": np.array(steps)}
    for q in found:
        data[q.key] = q.values
        slopes = np.array(np.nan) if q.gradients is None else q.gradients
        data[f"{q.band} / d{q.name}" if q.band else f"d{q.name}"] = slopes
    return data


def _said(shown: list[Quantity], sequence: int, count: int) -> str:
    """What rows, columns and numbers stand for, and what is left out."""
    units = max(q.values.shape[2] for q in shown)
    rows = (
        tr("Rows are units ({n} of {total}, evenly chosen), columns steps", n=MOST_UNITS, total=units)
        if units > MOST_UNITS
        else tr("Rows are units, columns steps")
    )
    if count > 1:
        return tr(
            "{rows}, of sequence {sequence} of {count}; means, ranges and percentages are over all.",
            rows=rows,
            sequence=sequence,
            count=count,
        )
    return tr("{rows}; means, ranges and percentages are over all units.", rows=rows)


def _norms(q: Quantity, sequence: int) -> list[float]:
    return [*np.abs(q.gradients[:, sequence]).ravel().tolist(), *q.sizes.tolist()]  # type: ignore[index]


def _top(shown: list[Quantity]) -> float:
    """The end of the scale of values: 1, or the next of 2, 5, 10 … that all but the largest fiftieth stay below."""
    values = np.concatenate([np.abs(q.values[np.isfinite(q.values)]) for q in shown if not q.is_gate] or [[]])
    most = float(np.percentile(values, 98)) if len(values) else 1.0
    decade = 10.0 ** math.floor(math.log10(max(most, 1.0)))
    return next(decade * k for k in (1, 2, 5, 10) if most <= decade * k or k == 10)


def evenly(count: int, most: int) -> list[int]:
    """All of 0 … count − 1, or `most` of them, first and last included."""
    kept = range(count) if count <= most else (round(k * (count - 1) / (most - 1)) for k in range(most))
    return sorted(set(kept))


class _View:
    """Describes the panels of one picture: which steps are its columns, on which scales."""

    def __init__(
        self,
        kept: list[int],
        columns: Sequence[str],
        captions: Sequence[str],
        sequence: int,
        scale: Scale,
        top: float,
    ):
        self.kept, self.columns, self.captions = kept, columns, captions
        self.sequence, self.scale, self.top = sequence, scale, top
        self.wide = min(50.0, WIDTH / len(kept))  # of a cell

    def values(self, q: Quantity) -> Heat:
        """The mean of all units, and the share of those at an end of their range; below, a row of cells per unit."""
        means, own, units = (
            q.means().tolist(),
            q.values[:, self.sequence],
            evenly(q.values.shape[2], MOST_UNITS),
        )
        write = number if self.wide > 24 else partial(brief, width=self.wide)
        rows = [[self._value(q, k, means[k], write(means[k])) for k in self.kept]]
        if q.kind:
            rows.append([Cell("", f"{100 * q.saturated[k]:.0f}", framed=False) for k in self.kept])
        said = None if self.wide > 24 else ""
        rows += [[self._value(q, k, float(own[k, u]), said) for k in self.kept] for u in units]
        labels = [tr("mean"), *[tr("saturated %")] * bool(q.kind), *(tr("unit {u}", u=u) for u in units)]
        head = f"{q.band}  {pretty(q.name)}".strip() + (f": {tr(q.stands)}" if q.stands else "")
        return self._heat(head, q.figures(), rows, labels)

    def _value(self, q: Quantity, k: int, value: float, said: str | None) -> Cell:
        if q.statuses[k] == "":
            return BLANK
        return share_cell(value, said) if q.is_gate else value_cell(value, self.top, said)

    def gradients(self, q: Quantity) -> Heat:
        """The norm over all, and a row of cells per unit, in line with those of the values."""
        known = q.gradients is not None
        norms = q.sizes if known else np.full(len(q.statuses), np.nan)
        rows = [[self._gradient(q, k, float(norms[k]), None) for k in self.kept]]
        rows += [[BLANK] * len(self.kept)] * bool(q.kind and known)
        units = evenly(q.values.shape[2], MOST_UNITS) if known else []
        rows += [[self._slope(q, k, u) for k in self.kept] for u in units]
        return self._heat(f"∂L/∂{pretty(q.name)}", q.slopes(), rows, ["‖·‖"])

    def _slope(self, q: Quantity, k: int, u: int) -> Cell:
        """One gradient, with its number and sign where there is room."""
        value = float(q.gradients[k, self.sequence, u])  # type: ignore[index]
        said = number(value, 1) if self.wide > 34 else ""
        return self._gradient(q, k, abs(value), said if value and math.isfinite(value) else None)

    def _gradient(self, q: Quantity, k: int, size: float, said: str | None) -> Cell:
        status = q.statuses[k]
        if status == "":
            return BLANK
        return gradient_cell(
            size if status is None else None, self.scale, status and (status or NOT_COMPUTED), said
        )

    def _heat(self, head: str, said: str, rows: list[list[Cell]], labels: list[str]) -> Heat:
        height = 14.0 if len(rows) <= 10 else 11.0
        return Heat(
            rows,
            labels,
            self.columns,
            self.captions,
            head,
            said,
            height,
            self.wide * len(self.kept),
            bold=(0,),
        )
