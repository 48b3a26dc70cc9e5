"""Several runs on one scale: how the gradient goes back in each, the gates that they share, and their difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minigrad import InputError, Tensor

from ..diagram.canvas import Canvas
from ..diagram.legend import legend
from ..diagram.markup import gradient_cell, square
from ..diagram.render import Diagram
from ..language.scale import BLUE, INK, ORANGE, SOFT, Scale, Stroke, mix, signed
from ..language.text import clean, fitting, number, pretty
from ..measure import words
from ..measure.transport import transports
from ..read.network import QUANTITY, Captions, Network, gradient_state, read, roots_of
from .canvas_chart import (
    CELL,
    DASHES,
    KINDS,
    Frame,
    column_width,
    curve,
    decades,
    drawn,
    path,
    row,
    sampled,
    steps_below,
)

LABELS, CHART, MOST_RUNS = 150.0, 150.0, 4


@dataclass
class Run:
    """One network: its name, its graph, and which state of which layer stands for it."""

    name: str
    network: Network
    band: str
    state: str

    def gradient(self, t: int) -> tuple[float | None, str | None]:
        """‖∂L/∂state_t‖, or None and why."""
        first = self.network.first.get((self.band, self.state))
        g = self.network.find(self.band, t, self.state) or (
            first if first is not None and first.t == t else None
        )
        return gradient_state(self.network.states, g.out) if g is not None else (None, "")

    @property
    def quantities(self) -> list[str]:
        cell = next(groups for (band, _), groups in self.network.cells.items() if band == self.band)
        return [g.name for g in cell if g.kind == QUANTITY and g.name]

    def values(self, name: str) -> dict[int, np.ndarray]:
        """A quantity (N, H) at every step."""
        found = {t: self.network.find(self.band, t, name) for t in self.network.steps}
        return {t: g.out.value for t, g in found.items() if g is not None and g.out.value.size}


@dataclass
class Shared:
    """A quantity of all runs: its means over units and sequences, by run and step."""

    name: str
    title: str
    means: dict[str, dict[int, float]]

    @staticmethod
    def of(found: list[Run], name: str) -> Shared:
        """The mean of a gate; of what is positive and negative, such as a candidate, the mean size."""
        values = {r.name: r.values(name) for r in found}
        gate = all((v >= 0).all() for own in values.values() for v in own.values())
        means = {
            run: {t: float(np.mean(v if gate else np.abs(v), dtype=np.float64)) for t, v in own.items()}
            for run, own in values.items()
        }
        return Shared(name, f"mean {pretty(name)}" if gate else f"mean |{pretty(name)}|", means)


def compare(
    runs: Mapping[str, Tensor | list], *, of: str | None = None, title: str = "", scale: Scale | None = None,
    time_limit: float = 20.0, captions: Captions | None = None,
) -> Diagram:  # fmt: skip
    """Two to four networks on the same input: ‖∂L/∂state_t‖ of each on one scale, gates they share, differences.

    runs : names and losses after ``loss.backward(record=True)``, as {"LSTM": a, "GRU": b}; all of the same
        number of steps.
    of : the name of the state that all have; default: the last carried state of the last layer of each.
    title, scale, time_limit, captions : as for `draw`.

    The picture's `data` has ‖∂L/∂state‖ as "LSTM dh" and the means of shared quantities as "LSTM f", all
    (steps,), NaN where they are not known.  Raises InputError for one run, for more than four, and for
    runs that cannot be compared.
    """
    if not isinstance(runs, Mapping) or not 2 <= len(runs) <= MOST_RUNS:
        raise InputError(
            f"compare: give two to {MOST_RUNS} runs by name, as {{'LSTM': loss, 'GRU': other_loss}}, "
            f"not {len(runs) if isinstance(runs, Mapping) else type(runs).__name__}"
        )
    found = [_run(clean(str(name), 16), what, of, captions) for name, what in runs.items()]
    for r in found[1:]:
        if r.network.steps != found[0].network.steps:
            raise InputError(
                f"compare: {found[0].name} has {len(found[0].network.steps)} steps and {r.name} "
                f"{len(r.network.steps)}; run them on the same input"
            )
    title = title or f"{', '.join(r.name for r in found[:-1])} and {found[-1].name} on one scale"
    page = _Compared(found, title, scale)
    return Diagram(page.draw(), title, "nop2", time_limit, _arrays(found, page.shared))


def _run(name: str, what, of: str | None, captions) -> Run:
    root, records = roots_of(what)
    network = read(root, records, captions)
    for band in reversed(network.bands if network is not None else ()):
        assert network is not None
        names = network.carried[band]
        if names and of in (None, *names):
            return Run(name, network, band, of or names[-1])
    raise InputError(f"compare: {name} carries no state{f' {of!r}' if of else ''} from step to step")


def shared_quantities(found: list[Run]) -> list[Shared]:
    """The quantities that all runs have, in the order of the first."""
    names = [q for q in found[0].quantities if all(q in r.quantities for r in found[1:])]
    return [Shared.of(found, name) for name in names]


def same_inputs(found: list[Run]) -> bool | None:
    """Whether all runs read the same values; None where some read none that can be compared."""

    def read_by(r: Run, t: int):
        return next((g[0].out for (_, s), g in r.network.inputs.items() if s == t and g), None)

    for t in found[0].network.steps:
        values = [read_by(r, t) for r in found]
        if any(v is None for v in values):
            return None
        if not all(v is not None and np.array_equal(v.value, values[0].value) for v in values):  # type: ignore[union-attr]
            return False
    return True


def _arrays(found: list[Run], shared: list[Shared]) -> dict[str, np.ndarray]:
    steps = found[0].network.steps
    data = {"t": np.array(steps)}
    for r in found:
        data[f"{r.name} d{r.state}"] = _floats(r.gradient(t)[0] for t in steps)
        data |= {f"{r.name} {q.name}": _floats(q.means[r.name].get(t) for t in steps) for q in shared}
    return data


def _floats(values) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values])


class _Compared:
    def __init__(self, found: list[Run], title: str, scale: Scale | None):
        self.found = found
        self.canvas = Canvas(title)
        self.shared = shared_quantities(found)
        self.times, self.stride = drawn(found[0].network.steps)
        sizes = [v for r in found for t in self.times if (v := r.gradient(t)[0])]
        self.scale = scale or Scale.of(sizes)
        self.low, self.high = decades(sizes, self.scale)
        self.column = min(column_width(len(self.times)), 120.0)
        self.right = LABELS + self.column * len(self.times)

    def draw(self) -> str:
        canvas = self.canvas
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        alike = same_inputs(self.found)
        said = "" if alike is None else "All read the same input." if alike else "They read DIFFERENT inputs."
        said = f"‖∂L/∂state‖ at each step, on a logarithmic scale. {said}"
        said += sampled(self.stride, len(self.found[0].network.steps))
        canvas.words(8, 33, said, 9.5, SOFT, align="left", longest=220)
        y = self._chart(54.0)
        y = self._rows(y)
        y = steps_below(canvas, LABELS, y + 2, self.column, self.times, self.found[0].network.captions) + 18
        for quantity in self.shared:
            y = self._quantity(quantity, y)
        notes = [
            "÷: how many times as much gradient; blue: less than the first, orange: more.",
            "Lower rows: means over units and sequences (of sizes, where values have both signs); −: the difference.",
        ]
        if not all(r.network.computed for r in self.found):
            notes[0] = "–: no gradient is known: loss.backward(record=True) was not run."
        legend(canvas, 8, y, max(self.right, 780), self.scale, 1.0, notes, lines=False)
        return canvas.picture_text()

    def _chart(self, top: float) -> float:
        canvas = self.canvas
        for k, r in enumerate(self.found):
            y = top + 8 + 17 * k
            path(canvas, f"{r.name} sample", [(12, y), (44, y)], Stroke(KINDS[k], 2.0, DASHES[k % 3], ""))
            fill = KINDS[k] if k % 2 == 0 else "#ffffff"
            canvas.box(
                f"{r.name} sample mark",
                24,
                y - 4,
                8,
                8,
                border=1.4,
                colour=KINDS[k],
                fill=fill,
                rounded=k > 1,
            )
            canvas.words(52, y, f"{r.name}: {verdict(r)}", 10.5, INK, True, "left", longest=190)
        top += 17 * len(self.found) + 14
        frame = Frame(canvas, LABELS, top, self.right - LABELS, CHART, self.low, self.high)
        frame.grid("gradient")
        xs = [LABELS + self.column * (k + 0.5) for k in range(len(self.times))]
        for k, r in enumerate(self.found):
            values = [r.gradient(t)[0] for t in self.times]
            said = [f"{r.name} t={t}: {number(v or 0, 4)}" for t, v in zip(self.times, values, strict=True)]
            curve(frame, r.name, xs, values, k, said)
        return frame.bottom + 12

    def _rows(self, y: float) -> float:
        """The norms of every run, and how many times the first's they are."""
        first = [self.found[0].gradient(t)[0] for t in self.times]
        y += CELL / 2
        for k, r in enumerate(self.found):
            values = [r.gradient(t) for t in self.times]
            cells = [
                gradient_cell(v, self.scale, self.column, state=why or "" if v is None else None)
                for v, why in values
            ]
            row(
                self.canvas,
                f"{r.name} gradient",
                LABELS,
                y,
                self.column,
                cells,
                f"{r.name}  ‖∂L/∂{pretty(r.state)}‖",
            )
            y += CELL
            if k:
                ratios = [_ratio(v, a) for (v, _), a in zip(values, first, strict=True)]
                label = f"{r.name} ÷ {self.found[0].name}"
                row(self.canvas, label, LABELS, y, self.column, [self._ratio_cell(v) for v in ratios], label)
                y += CELL
        return y

    def _ratio_cell(self, ratio: float | None) -> str:
        """Orange above 1, blue below, on the scale of decades."""
        if ratio is None:
            return square("#ffffff", self.column, CELL)
        share = min(abs(np.log10(ratio)) / 2, 1.0) if ratio > 0 and np.isfinite(ratio) else 1.0
        colour = mix(
            "#ffffff", ORANGE if ratio > 1 else BLUE, 0.15 + 0.85 * float(share) if ratio != 1 else 0.0
        )
        return square(colour, self.column, CELL, fitting(f"× {number(ratio)}", self.column + 8, 8.5), 8.5)

    def _quantity(self, shared: Shared, y: float) -> float:
        """The mean of a quantity in every run, and the difference from the first."""
        canvas, name = self.canvas, shared.name
        canvas.words(8, y, shared.title, 11, INK, True, "left")
        y += 4
        first = [shared.means[self.found[0].name].get(t) for t in self.times]
        for k, r in enumerate(self.found):
            values = [shared.means[r.name].get(t) for t in self.times]
            row(
                canvas,
                f"{r.name} {name}",
                LABELS,
                y,
                self.column,
                [self._value_cell(v) for v in values],
                r.name,
            )
            y += CELL
            if k:
                gaps = [None if v is None or a is None else v - a for v, a in zip(values, first, strict=True)]
                label = f"{r.name} − {self.found[0].name}"
                row(
                    canvas,
                    f"{label} {name}",
                    LABELS,
                    y,
                    self.column,
                    [self._value_cell(v) for v in gaps],
                    label,
                )
                y += CELL
        return y + 8

    def _value_cell(self, value: float | None) -> str:
        if value is None:
            return square("#ffffff", self.column, CELL)
        return square(
            signed(value, 1.0), self.column, CELL, fitting(number(value), self.column + 8, 8.5), 8.5
        )


def _ratio(value: float | None, first: float | None) -> float | None:
    return (
        value / first if value is not None and first and np.isfinite(value) and np.isfinite(first) else None
    )


def verdict(r: Run) -> str:
    """In words: the loss, and how much of the gradient a step carries back."""
    one = next((x for x in transports(r.network) if x.band == r.band), None)
    if one is None:
        return "not computed: run loss.backward(record=True)"
    loss = f"L = {r.network.end_text.split()[-1]}. " if r.network.end_text.split()[1:] else ""
    return loss + " ".join(words.sentences(one, own=False))
