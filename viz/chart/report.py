"""The health report: what is wrong with a network, in words, tables and a picture, with figures and what to try.

The picture has the findings on top, and below them, step by step, where they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from minigrad import Tensor

from ..language.catalogue import tr
from ..language.scale import EXPLODED, ORANGE, Scale, mix
from ..language.status import CUT, NORMAL, NOT_COMPUTED, ZERO, norm
from ..language.text import clean, ending, number, pretty
from ..measure.diagnosis import Finding, findings
from ..measure.health import FROZEN, Facts, Weight, facts_of
from ..measure.recurrence import Decay
from ..measure.report import arrays, speed, tables, text, verdict
from ..read.titles import sizes
from .figure import Chart
from .panels import Axis, Cell, Curve, Heat, Item, Items, Panel, Plot, Sheet, gradient_cell, gradient_panel
from .steps import captions_of, drawn, sampled

MOST_FINDINGS, MOST_LAYERS, MOST_ROWS, MOST_WEIGHTS, DECADES = 12, 8, 16, 24, 16
SEEN = 0.05  # a gate of which less is saturated at every step has no row
GOOD, NOTE, KEPT, MASKED = "#1a7f4b", "#5d6470", "#2c9b80", "#8a909a"


class Report(Chart):
    """A health report: ``print`` shows it as text, rich as tables, and it is a `Chart` besides.

    Attributes: `findings`, faults first, each with its `kind`, `where`, `said`, `advice` and `times`; `data`, the
    figures by name; `text`, what is printed; and those of `Chart`.
    """

    def __init__(self, facts: Facts, found: list[Finding], title: str):
        super().__init__(sheet(facts, found, title), arrays(facts))
        self.findings, self._facts = found, facts
        self.text = text(facts, found, title)

    @property
    def faults(self) -> list[Finding]:
        """What is wrong; notes, which may well be intended, are not among them."""
        return [f for f in self.findings if f.fault]

    @property
    def healthy(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Report {self.title!r}: {verdict(self._facts, self.findings)}>"

    def __rich__(self):
        from rich.console import Group as Rows  # imported when it is first needed
        from rich.table import Table
        from rich.text import Text

        parts: list = [Text(self.title, style="bold"), Text(verdict(self._facts, self.findings))]
        if self.findings:
            table = Table(show_lines=True)
            for head in ("", tr("where"), tr("what was found"), tr("what to try")):
                table.add_column(head)
            for f in self.findings:
                kind = Text(tr(f.kind), style="bold red" if f.fault else "bold")
                table.add_row(kind, Text(f.where), Text(f.said), Text(f.advice))
            parts.append(table)
        for head, heads, rows in tables(self._facts):
            table = Table(title=Text(head, style="bold"), title_justify="left")
            for k, column in enumerate(heads):
                table.add_column(Text(column), justify="left" if k == 0 else "right")
            for row in rows:
                table.add_row(*map(Text, row))
            parts.append(table)
        return Rows(*parts)


def report(
    what: Tensor | list, steps: list | None = None, parameters: Mapping[str, Tensor] | Iterable[Tensor] | None = None,
    *, title: str = "",
) -> Report:  # fmt: skip
    """Name what is wrong with a network: vanishing, exploding, saturated, dead, cut, masked and frozen places.

    what : the loss, after ``loss.backward(record=True)``; or the steps of a run, `run.steps`.
    steps : those, with a loss.
    parameters : what is trained, by name as a layer's `parameters()` gives it; then what the loss does
        not depend on is named too, and names are these.
    title : as for `draw`.

    How fast the gradient goes back is measured on the graph, from each step's states to those of the step
    before, from random directions: losses at many steps do not hide that none reaches far.  The rate per step
    is the largest Lyapunov exponent, and the half-life follows from it.  Units count as saturated within 0.05
    of the ends of σ or tanh.  The same graph gives the same report.

    The report's `data` has, with the layer's name before where there is one: "rate" (per step), "half-life"
    (steps; negative where it doubles), "left" (log of what is left, at steps "t"), "f saturated" by step, "h dead"
    (share of units), "dW_f norm".  Raises InputError for what is not a graph with values.
    """
    facts = facts_of(what, steps, parameters)
    return Report(facts, findings(facts), clean(title, 120) or tr("Health report"))


# The picture.


def sheet(facts: Facts, found: list[Finding], title: str) -> Sheet:
    """Findings; the way back and, step by step, gates and masks; without steps, units and layers; weights."""
    scale = Scale.of([w.norm for w in facts.weights if w.norm] + [v for _, v in facts.depth])
    panels: list[list[Panel]] = [[_findings(facts, found)]]
    lines, notes = [tr("No recurrence, {nodes:,} nodes.", nodes=len(facts.nodes))], []
    if facts.network is not None:
        times, stride = drawn(facts.network.times)
        lines = [sizes(facts.network), *sampled(stride, len(facts.network.times))]
        lines += [tr("Findings and figures are over all steps.")] * (stride > 1)
        rows = _Steps(facts, times, stride)
        panels += [[p] for p in rows.panels()]
        notes = rows.notes
    else:
        panels += [[p] for p in _units(facts, scale)]
    if len(facts.weights) > MOST_WEIGHTS:
        notes.append(
            tr(
                "{n} of {total} weights are drawn, those with a fault first.",
                n=MOST_WEIGHTS,
                total=len(facts.weights),
            )
        )
    return Sheet(title, [*panels, *_weights(facts, scale)], lines, [verdict(facts, found)] * any(f.fault for f in found),
                 scale if facts.weights or facts.depth else None, notes=notes)  # fmt: skip


def _findings(facts: Facts, found: list[Finding]) -> Items:
    items = []
    if not any(f.fault for f in found):
        word, colour = (tr("healthy"), GOOD) if facts.computed else (tr(NOT_COMPUTED), NOTE)
        items.append(Item(word, colour, [verdict(facts, found)]))
    for f in found[:MOST_FINDINGS]:
        said = [
            f"{f.where}: {f.said}" if f.where else f.said,
            *([tr("Try: {advice}", advice=f.advice)] if f.advice else []),
        ]
        items.append(Item(tr(f.kind), EXPLODED if f.fault else NOTE, said))
    if len(found) > MOST_FINDINGS:
        items.append(Item("…", NOTE, [tr("And {n} more: print the report.", n=len(found) - MOST_FINDINGS)]))
    return Items(items)


class _Steps:
    """What is told over the steps: a column may stand for several, of which it tells the worst."""

    def __init__(self, facts: Facts, times: list[int], stride: int):
        assert facts.network is not None
        self.facts, self.times, self.stride = facts, times, stride
        self.every, self.network = facts.network.times, facts.network
        self.notes: list[str] = []

    def panels(self) -> list[Panel]:
        decays = [d for d in self.facts.decays if len(d.times) > 1][:MOST_LAYERS]
        rows = [*self._way_back(decays), *self._masks(), *self._entries(), *self._gates()]
        if len(rows) > MOST_ROWS:
            self.notes.append(tr("{n} more rows are not drawn.", n=len(rows) - MOST_ROWS))
        rows = rows[:MOST_ROWS]
        steps = Heat(
            [cells for _, cells in rows], [name for name, _ in rows], [str(t) for t in self.times],
            captions_of(self.network, self.times),
        )  # fmt: skip
        return [*([self._left(decays)] if decays else []), *([steps] if rows else [])]

    def _left(self, decays: list[Decay]) -> Plot:
        """What is left of a gradient of the last step at every step, on a logarithmic axis."""
        head = tr("What is left, at step t, of a gradient that starts as 1 at the last step")
        head += tr(", and anew behind a cut") if any(d.cuts for d in decays) else ""
        logs = np.concatenate([d.left for d in decays]) / np.log(10)
        low = int(np.floor(max(min(logs.min(), -1.0), -DECADES)))
        high = int(np.ceil(min(max(logs.max(), 0.0), DECADES)))
        curves = [self._curve(d, k, low, high) for k, d in enumerate(decays)]
        return Plot(
            [*curves], Axis(0, len(self.times), ticks=()), Axis(10.0**low, 10.0**high, log=True), 150, head
        )

    def _curve(self, d: Decay, kind: int, low: int, high: int) -> Curve:
        """The line of a layer, which starts anew behind a cut; the axis ends where next to nothing is left."""
        xs, ys = [], []
        first = self.every.index(self.times[0])
        places = {t: 0.5 + (k - first) / self.stride for k, t in enumerate(self.every)}
        for k, (t, left) in enumerate(zip(d.times, d.left, strict=True)):
            decades = left / np.log(10)
            if places[t] >= 0:
                xs.append(places[t])
                ys.append(10**decades if low <= decades <= high else np.nan)
            if k in d.why and xs:
                xs.append(xs[-1])
                ys.append(np.nan)
        return Curve(xs, ys, kind, speed(d))

    # Rows: a name and a cell for each step that is drawn.

    def _grouped(self, values: Mapping[int, object]) -> list[list]:
        """By column, what is known of its step and of those before it that are not drawn."""
        found: list[list] = [[] for _ in self.times]
        for t, v in values.items():
            found[bisect_left(self.times, t)].append(v)
        return found

    def _way_back(self, decays: list[Decay]) -> Iterator[tuple[str, list[Cell]]]:
        """The factor of each step, and cuts, zeros and what is not a number between steps."""
        for d in decays:
            between = {
                t: (float(np.exp(f)), d.why.get(k), d.cuts.get(k))
                for k, (t, f) in enumerate(zip(d.times, d.log_factors, strict=False))
            }
            yield _label(d.band, tr("× per step back")), [_factor(own) for own in self._grouped(between)]
        if decays:
            self.notes.append(
                tr(
                    "“× per step back” at t: what a gradient of the states of the step after becomes "
                    "on its way to step t."
                )
            )

    def _masks(self) -> Iterator[tuple[str, list[Cell]]]:
        for d in self.facts.decays:
            if d.real is not None and not d.real.all():
                hidden = self._grouped(dict(zip(d.times, 1 - d.real.mean(axis=1), strict=True)))
                yield (
                    _label(d.band, tr("masked %")),
                    [_percent(max(own, default=None), MASKED) for own in hidden],
                )

    def _entries(self) -> Iterator[tuple[str, list[Cell]]]:
        entries = self.facts.entries
        if len(entries) > 1 and not all(entries.values()):
            cells = [
                Cell() if not own else Cell("#e8eaee", "●") if all(own) else Cell(MASKED, "0")
                for own in self._grouped(entries)
            ]
            yield tr("loss enters"), cells

    def _gates(self) -> Iterator[tuple[str, list[Cell]]]:
        """A row for every gate that is saturated somewhere; the names of the others go into a note."""
        idle = []
        for g in self.facts.gates:
            if g.saturated.max(initial=0) < SEEN:
                idle.append(_label(g.band, pretty(g.said)))
                continue
            shares = self._grouped(dict(zip(g.times, g.saturated, strict=True)))
            yield (
                _label(g.band, tr("{name} saturated %", name=pretty(g.said))),
                [_percent(max(own, default=None), ORANGE) for own in shares],
            )
        if len(idle) < len(self.facts.gates):
            self.notes.append(
                tr(
                    "Orange: % of units that are saturated, so that they hardly react (a memory held "
                    "open does not count)."
                )
            )
        if idle:
            more = tr(" and {n} more", n=len(idle) - 8) if len(idle) > 8 else ""
            self.notes.append(
                tr("Hardly a unit is saturated in {names}{more}.", names=", ".join(idle[:8]), more=more)
            )


def _factor(own: Sequence[tuple[float, str | None, list[str] | None]]) -> Cell:
    """Of the steps of a column: a cut of all states, what is zero or no number, a cut of some; else the mean factor."""
    whys = [why for _, why, _ in own if why]
    if whys:
        return gradient_cell(None, Scale(), CUT if CUT in whys else whys[0])
    cut = sorted({s for _, _, cuts in own for s in cuts or ()})
    if cut:
        return Cell("#e4e6ea", f"✂ {' '.join(map(pretty, cut))}", status=CUT)
    known = [v for v, _, _ in own if np.isfinite(v)]
    if not known:
        return Cell()
    middle = float(np.exp(np.mean(np.log(known))))
    return Cell(mix("#ffffff", KEPT, min(middle, 1.0) * 0.75), f"×{number(middle)}")


def _percent(share: float | None, colour: str) -> Cell:
    if share is None or not np.isfinite(share):
        return Cell()
    return Cell(mix("#ffffff", colour, float(share)), f"{100 * share:.0f}" if share >= 0.005 else "")


def _label(band: str, name: str) -> str:
    return f"{clean(band)}: {clean(name)}" if band else clean(name)


# Without steps, and the weights.


def _units(facts: Facts, scale: Scale) -> Iterator[Panel]:
    """Rectifiers and gates with a share each, and the gradient from layer to layer."""
    found = [
        (
            tr(
                "{name}: off for all samples, of {units} ReLU units",
                name=_label(r.band, r.name),
                units=r.units,
            ),
            r.off,
        )
        for r in facts.rectifiers
    ]
    found += [
        (
            tr("{name} ({kind}): saturated", name=_label(g.band, g.said), kind=g.kind),
            float(g.saturated.mean()),
        )
        for g in facts.gates
    ]
    shown = [(name, share) for name, share in found if share > 0][:MOST_ROWS]
    if shown:
        cells = [[Cell(mix("#ffffff", ORANGE, share), f"{100 * share:.0f} %")] for _, share in shown]
        yield Heat(cells, [name for name, _ in shown], head=tr("Units that hardly react"), width=60)
    if facts.depth:
        names, sizes_ = zip(*facts.depth[:MOST_ROWS], strict=True)
        head = tr("‖∂L/∂·‖ of each activation, from the first layer to the last")
        yield gradient_panel(head, "", np.array(sizes_), scale, [clean(n, 12) for n in names])


def _weights(facts: Facts, scale: Scale) -> list[list[Panel]]:
    """The norm of each weight's gradient, on the scale of gradients, and what does not learn; in three columns."""
    weights = facts.weights
    shown = sorted(weights, key=lambda w: w.status == NORMAL)[:MOST_WEIGHTS]
    shown = [w for w in weights if any(w is s for s in shown)]
    per = max(1, -(-len(shown) // 3))
    row: list[Panel] = []
    for k in range(0, len(shown), per):
        own = shown[k : k + per]
        cells = [[_weight(w, scale), Cell("", number(norm(w.tensor.value)))] for w in own]
        row.append(Heat(cells, [ending(w.name, 28) for w in own], ["‖∂L/∂W‖", "‖W‖"], width=128, above=True))
    return [row] if row else []


def _weight(w: Weight, scale: Scale) -> Cell:
    if w.status == FROZEN:
        return Cell("#c3c9d1", tr(FROZEN))
    if w.status == CUT or w.norm is None:
        return gradient_cell(None, scale, CUT if w.status == CUT else NOT_COMPUTED)
    return gradient_cell(w.norm, scale, ZERO if not w.norm else None)
