"""The health report: what is wrong with a network, in words, tables and a picture, with figures and what to try."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from minigrad import Tensor

from ..diagram.render import Diagram
from ..language.states import norm
from ..language.text import clean, number, pretty
from ..measure.diagnosis import Finding, findings, folded, power
from ..measure.health import UNKNOWN, Facts, facts_of
from ..measure.recurrence import Flow
from .report_page import draw

WIDTH, MOST_ROWS = 100, 24


class Report(Diagram):
    """A health report: ``print`` shows it as text, rich as tables, and it is a `Diagram` besides.

    Attributes: `findings`, faults first, each with its `kind`, `where`, `said`, `advice` and `steps`; `data`, the
    figures by name; `text`, what is printed; and those of `Diagram`.
    """

    def __init__(self, facts: Facts, found: list[Finding], title: str, time_limit: float):
        super().__init__(draw(facts, found, title), title, "nop2", time_limit, _data(facts))
        self.findings, self._facts = found, facts
        self.text = _text(facts, found, title)

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

    def __rich__(self):
        from rich.console import Group as Rows  # imported when it is first needed
        from rich.table import Table
        from rich.text import Text

        parts: list = [Text(self.title, style="bold"), Text(verdict(self._facts, self.findings))]
        if self.findings:
            table = Table(show_lines=True)
            for head in ("", "where", "what was found", "what to try"):
                table.add_column(head)
            for f in self.findings:
                kind = Text(f.kind, style="bold red" if f.fault else "bold")
                table.add_row(kind, Text(f.where), Text(f.said), Text(f.advice))
            parts.append(table)
        for head, columns, rows in tables(self._facts):
            table = Table(title=Text(head, style="bold"), title_justify="left")
            for k, column in enumerate(columns):
                table.add_column(Text(column), justify="left" if k == 0 else "right")
            for row in rows:
                table.add_row(*map(Text, row))
            parts.append(table)
        return Rows(*parts)


def report(
    what: Tensor | list, steps: list | None = None, parameters: Mapping[str, Tensor] | Iterable[Tensor] | None = None,
    *, title: str = "", time_limit: float = 20.0,
) -> Report:  # fmt: skip
    """Name what is wrong with a network: vanishing, exploding, saturated, dead, cut, masked and frozen places.

    what : the loss, after ``loss.backward(record=True)``; or the steps that `cells.unroll` returned.
    steps : those, with a loss.
    parameters : what is trained, by name as a layer's `parameters()` gives it; then what the loss does
        not depend on is named too, and names are these.
    title, time_limit : as for `draw`.

    How fast the gradient goes back is measured on the graph, from each step's states to those of the step
    before, from random directions: losses at many steps do not hide that none reaches far.  The rate per step
    is the largest Lyapunov exponent, and the half-life follows from it.  Units count as saturated within 0.05
    of the ends of σ or tanh.  The same graph gives the same report.

    The report's `data` has, with the layer's name before where there is one: "rate" (per step), "half-life"
    (steps; negative where it doubles), "left" (log of what is left, at steps "t"), "f saturated" by step, "h dead"
    (share of units), "W_f gradient" (norm).  Raises InputError for what is no graph with values.
    """
    facts = facts_of(what, steps, parameters)
    return Report(facts, findings(facts), clean(title, 120) or "Health report", time_limit)


def verdict(facts: Facts, found: list[Finding]) -> str:
    """In words: how many faults there are, and of what kind."""
    faults, notes = [f for f in found if f.fault], [f for f in found if not f.fault]
    kinds = ", ".join(dict.fromkeys(f.kind for f in faults))
    said = f"{_count(faults, 'fault')}: {kinds}" if faults else "No fault found"
    if not facts.computed and not faults:
        said = "No fault found so far, but the gradient is not computed: run loss.backward(record=True)"
    return said + (f"; {_count(notes, 'note')}" if notes else "") + "."


def _count(found: list, what: str) -> str:
    return f"{len(found)} {what}{'s' * (len(found) > 1)}"


def tables(facts: Facts) -> list[tuple[str, list[str], list[list[str]]]]:
    """The figures: heading, columns, rows."""
    found = []
    flows = [_flow_row(f) for f in facts.flows]
    if flows:
        columns = ["states", "half-life (steps)", "× per step", "rate λ", "steps", "left over all"]
        found.append(("The gradient on its way back through the states", columns, flows))
    gates = [
        [_in(g.band, f"{g.name}  {'σ' if g.kind == 'sigmoid' else g.kind}"), number(float(g.mean.mean())), _percent(g.low.mean()),
         _percent(g.high.mean()), "high keeps memory" if g.keeps > 0 else "low keeps memory" if g.keeps < 0 else ""]
        for g in facts.gates
    ]  # fmt: skip
    if gates:
        found.append(("Gates and candidates", ["", "mean", "saturated low", "saturated high", ""], gates))
    rectifiers = [
        [_in(r.band, r.name), str(r.units), _percent(r.off), f"{r.samples:,}"] for r in facts.rectifiers
    ]
    if rectifiers:
        found.append(("ReLU", ["", "units", "off everywhere", "samples"], rectifiers))
    weights = [
        [w.name, "–" if w.norm is None else number(w.norm), number(norm(w.tensor.value)), w.state if w.state != UNKNOWN else ""]
        for w in facts.weights
    ]  # fmt: skip
    if weights:
        found.append(("Weights", ["", "‖∂L/∂W‖", "‖W‖", ""], weights))
    return [(head, columns, _shortened(rows)) for head, columns, rows in found]


def _flow_row(flow: Flow) -> list[str]:
    rate, half = flow.rate, flow.half_life
    names = _in(flow.band, " ".join(pretty(s) for s in flow.states))
    if rate is None or flow.over is None:
        return [names, "–", "–", "–", str(flow.steps), "nothing"]
    said = "keeps its size" if half is None else number(half) if half > 0 else f"doubles in {number(-half)}"
    return [
        names,
        said,
        number(float(np.exp(rate)), 3),
        number(rate, 3),
        str(flow.stretch[1] - flow.stretch[0]),
        power(flow.over),
    ]


def _shortened(rows: list[list[str]]) -> list[list[str]]:
    if len(rows) <= MOST_ROWS:
        return rows
    more = f"… and {len(rows) - MOST_ROWS} more"
    return [*rows[:MOST_ROWS], [more, *[""] * (len(rows[0]) - 1)]]


def _in(band: str, name: str) -> str:
    return f"{clean(band)}: {name}" if band else name


def _percent(share: float) -> str:
    return f"{100 * float(share):.0f} %"


def _text(facts: Facts, found: list[Finding], title: str) -> str:
    lines = [title, verdict(facts, found)]
    for k, f in enumerate(found, 1):
        where = f" ({f.where})" if f.where else ""
        lines += ["", f"{k}. {f.kind.upper() if f.fault else 'note: ' + f.kind}{where}", *_wrapped(f.said)]
        lines += _wrapped(f"Try: {f.advice}") if f.advice else []
    for head, columns, rows in tables(facts):
        lines += ["", head, *_columns([columns, *rows])]
    return "\n".join(line.rstrip() for line in lines)


def _wrapped(said: str) -> list[str]:
    return [f"   {line}" for line in folded(said, WIDTH - 3)]


def _columns(rows: list[list[str]]) -> list[str]:
    """Rows as text, the first column to the left and numbers to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "   " + "  ".join(s.rjust(w) if k else s.ljust(w) for k, (s, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]  # fmt: skip


def _data(facts: Facts) -> dict[str, np.ndarray]:
    data: dict[str, np.ndarray] = {}
    if facts.network is not None:
        data["t"] = np.array(facts.network.steps)

    def by_step(times, values) -> np.ndarray:
        found = dict(zip(times, values, strict=True))
        return (
            np.array([found.get(t, np.nan) for t in facts.network.steps])
            if facts.network
            else np.array(values)
        )

    for f in facts.flows:
        key = f"{f.band} / " if f.band else ""
        data[f"{key}rate"] = np.array(np.nan if f.rate is None else f.rate)
        data[f"{key}half-life"] = np.array(np.inf if f.half_life is None else f.half_life)
        data[f"{key}left"] = by_step(f.times, f.left)
    for g in facts.gates:
        key = f"{g.band} / " if g.band else ""
        data[f"{key}{g.name} saturated"] = by_step(g.times, g.saturated) if g.times != [0] else g.saturated
    for r in facts.rectifiers:
        data[f"{r.band} / {r.name} dead" if r.band else f"{r.name} dead"] = np.array(r.dead)
    for w in facts.weights:
        data[f"{w.name} gradient"] = np.array(np.nan if w.norm is None else w.norm)
    return data
