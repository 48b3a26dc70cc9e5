"""What a sweep has found: results by what only their seeds tell apart, as a table and as a picture.

The spread over seeds is shown whole, from the smallest score to the greatest, and beside the mean stands its 95 %
confidence interval by Student's t (1908), mean ± t · s / √n for n seeds: of a single seed there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from minigrad import InputError

from .comparison import LINES, MARKERS, Record, save
from .trials import Result, Trial

AXES = {
    "lr": "learning rate", "width": "width", "batch": "sequences a batch", "clip": "greatest norm of the gradients",
    "steps": "training steps",
}  # fmt: skip
LEVEL = 0.95


class Results(list[Result]):
    """The results of a sweep, in its order.  `failed` are those with an error; `groups` is what can be compared."""

    @property
    def failed(self) -> list[Result]:
        return [r for r in self if r.record is None]

    @property
    def groups(self) -> list[Group]:
        """Results that differ in their seed alone."""
        found: dict[Trial, Group] = {}
        for result in self:
            key = replace(result.trial, seed=0)
            found.setdefault(key, Group(key)).results.append(result)
        return list(found.values())

    def table(self):
        """A `rich.table.Table`: ``rich.print(results.table())``.  Raises InputError where there is no result."""
        return _table(self.groups)

    def plot(self, *paths: Path | str) -> None:
        """Draw scores against what the grid varies first, a panel for each task, into files (.svg, .png, .pdf).

        Raises InputError where there is no result with a score.
        """
        _plot(self.groups, *map(Path, paths))


@dataclass(eq=False)
class Group:
    """Results that differ in their seed alone; numbers are of those that have not failed, nan where there is none."""

    trial: Trial
    results: list[Result] = field(default_factory=list)

    @property
    def records(self) -> list[Record]:
        return [r.record for r in self.results if r.record is not None]

    @property
    def scores(self) -> np.ndarray:
        """(n,), one for each seed."""
        return np.array([r.score for r in self.records])

    @property
    def failed(self) -> int:
        return len(self.results) - len(self.records)

    @property
    def mean(self) -> float:
        return float(self.scores.mean()) if self.records else math.nan

    @property
    def margin(self) -> float:
        """Half the confidence interval of the mean; nan for fewer than two seeds."""
        n = len(self.records)
        return float(student(n - 1) * self.scores.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan


@cache
def student(freedom: int, level: float = LEVEL) -> float:
    """The t with ``P(|T| < t) = level``, for T of Student's distribution with so many degrees of freedom."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t): Abramowitz and Stegun (1964), 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _names(groups: list[Group]) -> dict[str, str]:
    """Models in short, "Mine" for "my.cells:Mine", where that tells them apart."""
    full = dict.fromkeys(g.trial.model for g in groups)
    short = {name: name.rpartition(":")[2] for name in full}
    return short if len(set(short.values())) == len(short) else {name: name for name in full}


def _varied(groups: list[Group]) -> list[str]:
    """The axes on which one model takes several values on one task."""
    found = []
    for axis in AXES:
        values: dict[tuple, set] = {}
        for g in groups:
            values.setdefault((g.trial.model, g.trial.task), set()).add(getattr(g.trial, axis))
        if any(len(v) > 1 for v in values.values()):
            found.append(axis)
    return found


# The table.


def _table(groups: list[Group]):
    from rich.markup import escape  # loaded only where a table is made
    from rich.table import Table

    if not groups:
        raise InputError("table: there is no result")
    several = len({g.trial.task for g in groups}) > 1
    varied = [a for a in _varied(groups) if a not in ("lr", "width")]
    head = ["network", "width", "parameters", "lr", *varied, "n", "mean", "± 95 %", "spread", "", "ms a step"]
    table = Table(
        *(["task"] if several else []), *head, box=None, padding=(0, 2, 0, 0), title=_title(groups),
        caption="n seeds; ± 95 %: confidence interval of their mean, Student's t",
    )  # fmt: skip
    for column in table.columns:
        column.no_wrap = column.header not in ("task", "n", "spread", "ms a step")  # on a narrow terminal
        column.justify = "left" if column.header in ("task", "network", "") else "right"
        column.min_width = 8 if column.header == "spread" else None
    names, best = _names(groups), _best(groups)
    for g in groups:
        t, n = g.trial, len(g.records)
        table.add_row(
            *([escape(t.task)] if several else []), escape(names[t.model]), str(t.width),
            f"{g.records[0].parameters:,}" if n else "–", f"{t.lr:g}", *(f"{getattr(t, a):g}" for a in varied),
            f"{n}, {g.failed} failed" if g.failed else str(n), _number(g.mean), _number(g.margin, 2),
            f"{_number(g.scores.min())} … {_number(g.scores.max())}" if n else "–",
            "best" if g is best.get(t.task) else "",
            _number(1e3 * float(np.median([r.seconds_a_step for r in g.records]))) if n else "–",
        )  # fmt: skip
    return table


def _title(groups: list[Group]) -> str:
    """What is measured on each task, on a line of its own."""
    found = {g.trial.task: f"{g.trial.task}: no score" for g in reversed(groups)}
    for g in groups:
        for r in g.records:
            found[g.trial.task] = f"{g.trial.task}: {r.measure}, held out; without memory {r.baseline:.4g}"
    from rich.markup import escape

    return "\n".join(escape(line) for line in reversed(found.values()))


def _best(groups: list[Group]) -> dict[str, Group]:
    """By task, the group with the smallest mean of those without a failure."""
    found: dict[str, Group] = {}
    for g in groups:
        if not g.failed and (g.trial.task not in found or g.mean < found[g.trial.task].mean):
            found[g.trial.task] = g
    return found


def _number(value: float, digits: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}g}"


# The picture.


def _plot(groups: list[Group], *paths: Path) -> None:
    from matplotlib import rc_context  # loaded only where something is drawn
    from matplotlib.figure import Figure

    if not any(g.records for g in groups):
        raise InputError("plot: there is no result with a score to draw")
    tasks = list(dict.fromkeys(g.trial.task for g in groups))
    with rc_context({"font.size": 12, "svg.hashsalt": "minigrad", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.5 * len(tasks) + 2.5, 5.5), layout="constrained")
        varied, handles = _varied(groups), {}
        for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
            _panel(axes, [g for g in groups if g.trial.task == task], groups, varied)
            axes.set_title(task, parse_math=False)
            handles.update({h.get_label(): h for h in axes.get_legend_handles_labels()[0]})
        figure.legend(handles=list(handles.values()), loc="outside right upper", handlelength=3.5)
        figure.supxlabel(_caption(groups), fontsize=10)
        for path in paths:
            save(figure, path, "plot")


def _caption(groups: list[Group]) -> str:
    counts = sorted({len(g.records) for g in groups if g.records})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} … {counts[-1]}"
    bars = " with its 95 % confidence interval (Student's t)" if counts[-1] > 1 else ""
    text = f"Markers: mean{bars}, n = {n} seed{'s' * (counts[-1] > 1)}.\nDots: one seed each."
    text += "  A bar without a cap leaves the frame." * (counts[-1] > 1)
    return text + "  Hollow: some seeds failed.  ×: all failed." * any(g.failed for g in groups)


def _panel(axes, here: list[Group], everywhere: list[Group], varied: list[str]) -> None:
    """One line for each model, and for each value of what is varied besides the horizontal axis."""
    names = _names(everywhere)
    across, beside = (varied[0], varied[1:]) if varied else (None, [])

    def line_of(g: Group) -> str:
        return ", ".join([names[g.trial.model], *(f"{AXES[a]} {getattr(g.trial, a):g}" for a in beside)])

    lines = list(dict.fromkeys(line_of(g) for g in everywhere))
    ticks = sorted({getattr(g.trial, across) for g in everywhere}) if across else []
    apart = (
        (ticks[-1] / ticks[0]) ** 0.03 if ticks else 1.0
    )  # of the first line and the last, so that all are seen
    for k, name in enumerate(lines):
        mine = [g for g in here if line_of(g) == name]
        shift = k / (len(lines) - 1) - 0.5 if len(lines) > 1 else 0.0
        xs = [k if across is None else getattr(g.trial, across) * apart**shift for g in mine]
        _line(axes, mine, xs, name, k)
    if across is None:
        axes.set_xticks(range(len(lines)), lines, rotation=20)
    else:
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks], rotation=45 if len(ticks) > 5 else 0)
        axes.set_xticks([], minor=True)
        axes.set_xlabel(AXES[across])
    _heights(axes, here)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)


def _line(axes, groups: list[Group], xs: Sequence[float], name: str, k: int) -> None:
    colour, line = LINES[k % len(LINES)]
    order = sorted(range(len(groups)), key=lambda i: xs[i])
    drawn = [(xs[i], groups[i]) for i in order if groups[i].records]
    axes.plot(
        [x for x, _ in drawn], [g.mean for _, g in drawn], color=colour, linestyle=line, linewidth=1.5,
        marker=MARKERS[k % len(MARKERS)], markersize=7, label=name,
    )  # fmt: skip
    for x, g in drawn:
        if len(g.records) > 1:
            axes.errorbar([x], [g.mean], [g.margin], color=colour, capsize=4, linewidth=1.5, linestyle="none")
        axes.plot([x] * len(g.scores), g.scores, ".", color=colour, markersize=6, zorder=3)
        if g.failed:
            marker = MARKERS[k % len(MARKERS)]
            axes.plot([x], [g.mean], marker, color=colour, markerfacecolor="white", markersize=7)
    for x, g in zip(xs, groups, strict=True):
        if not g.records:  # at the top, whatever the scale
            axes.plot([x], [0.97], "x", color=colour, markersize=9, transform=axes.get_xaxis_transform())


def _heights(axes, groups: list[Group]) -> None:
    records = [r for g in groups for r in g.records]
    if not records:
        return
    base, scores = records[0].baseline, np.array([r.score for r in records])
    axes.axhline(base, color="#666666", linewidth=1, linestyle=(0, (2, 2)), label="without memory")
    axes.set_ylabel(f"{records[0].measure}, held out")
    if scores.min() <= 0:
        return
    # No score is below zero, though an interval may be: its bar then leaves the frame.
    if max(scores.max(), base) > 10 * scores.min():
        axes.set_yscale("log")
        axes.set_ylim(bottom=scores.min() / 2)
        axes.yaxis.set_major_formatter("{x:g}")
    elif axes.get_ylim()[0] < 0:
        axes.set_ylim(bottom=0)
