"""How a network changes while it is trained: gradients, saturation and half-life over the steps of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minigrad import InputError

from ..language.catalogue import deferred, tr
from ..language.picture import Picture
from ..language.scale import ORANGE, Scale, Stroke, mix
from ..language.status import NOT_COMPUTED
from ..language.text import clean, key, number, of_gradient, pretty
from ..measure.history import Recording
from ..measure.words import half_lives
from .figure import Chart
from .panels import Axis, Cell, Curve, Heat, Line, Panel, Plot, Sheet, gradient_cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS, MOST_COLUMNS, MOST_GATES, MOST_POINTS = 30, 25, 12, 200
Data = dict[str, np.ndarray]


class History(Recording):
    __doc__ = f"""Records how gradients flow, and where gates stand, while a network is trained, and draws it.
{(Recording.__doc__ or "").split(chr(10), 1)[1]}"""

    def _some(self) -> Data:
        if not len(self):
            raise InputError(
                "History: nothing was recorded yet; train with watch=history.watch(loss, *batch)"
            )
        return self.data

    def flow(
        self, of: str | None = None, *, relative: bool = True, title: str = "", scale: Scale | None = None,
        ax: Axes | None = None,
    ) -> Picture:  # fmt: skip
        """‖∂L/∂h_t‖ over the training: rows are its steps, columns are the steps t of the sequence, colour is the norm.

        relative : each row is divided by its largest, as all of it falls with the loss; False: as it is.
        of : a quantity, as in `data` without the d: "h", "layer 1 / c"; default: the state carried last.
        ax : axes of matplotlib to draw into, without the columns of the largest norm and the loss.

        Raises InputError where nothing, or not this quantity, was recorded.
        """
        data = self._some()
        names = [n.removesuffix(" mean") for n in data if n.endswith(" mean")]
        wanted = self._state if of is None else of
        if wanted not in names:
            known = ", ".join(names) or "none, for nothing stands in steps"
            raise InputError(f"History.flow: {of or 'a carried state'} was not recorded; there are {known}")
        name = of_gradient(wanted)
        shown = {"step": data["step"], "t": data["t"], name: data[name]}
        return Chart(
            _flow(title or tr("Gradient flow over training"), data, wanted, relative, scale), shown, ax
        )

    def gates(self, *, title: str = "", ax: Axes | None = None) -> Picture:
        """How many units of each gate are saturated over the training: columns are its steps, rows the gates.

        ax : axes of matplotlib to draw into.

        Raises InputError where nothing, or no gate, was recorded.
        """
        data = self._some()
        names = [n.removesuffix(" saturated low") for n in data if n.endswith(" saturated low")]
        if not names:
            raise InputError("History.gates: no named sigmoid or tanh was recorded")
        shown = {"step": data["step"]} | {
            f"{n} saturated {end}": data[f"{n} saturated {end}"] for n in names for end in ("low", "high")
        }
        return Chart(_gates(title or tr("Saturated units over training"), data, names), shown, ax)

    def half_life(self, *, title: str = "", ax: Axes | None = None) -> Picture:
        """What one step back leaves of the gradient, with its half-life, and the loss, over the training.

        ax : axes of matplotlib, into which the first of both is drawn (without a recurrence the loss).
        """
        data = self._some()
        names = [n for n in data if n.rpartition(" / ")[2] == "rate"]
        more = [f"{n.removesuffix('rate')}half-life" for n in names]
        shown = {name: data[name] for name in ("step", "loss", *names, *more)}
        return Chart(
            _half_life(title or tr("Half-life of the gradient and loss over training"), data, names),
            shown,
            ax,
        )

    @staticmethod
    def loss(losses, *, title: str = "", ax: Axes | None = None) -> Picture:
        """The losses that `minigrad.fit` returned, over the steps, and those on the data that it validated on.

        losses : what `fit` returned, or other numbers (steps,).
        ax : axes of matplotlib to draw into.

        Raises InputError where there are none.
        """
        values = np.asarray(losses, np.float64)
        if values.ndim != 1 or not values.size:
            raise InputError(
                "History.loss: give the losses of at least one step, as minigrad.fit returned them"
            )
        data = {"step": np.arange(1, 1 + len(values)), "loss": values}
        found = getattr(losses, "validation", np.zeros(0))
        if len(found):
            data |= {"validated at": losses.validated_at, "validation": found}
        return Chart(_losses(title or tr("Loss over training"), data), data, ax)


def evenly(count: int, most: int) -> list[int]:
    """All of 0 … count − 1, or `most` of them, first and last included."""
    return (
        sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})
        if count > most
        else list(range(count))
    )


def _said(name: str) -> str:
    """layer 1: c̃ of layer 1 / c_tilde."""
    layer, _, own = name.rpartition(" / ")
    return f"{clean(layer)}: {pretty(clean(own))}" if layer else pretty(clean(own))


def _left_out(
    records: int, kept: int, message: str = deferred("{kept} of {total} records are drawn.")
) -> list[str]:
    return [tr(message, kept=kept, total=records)] if kept < records else []


def _speeds(data: Data, layer: str) -> str:
    """What a step back leaves of the gradient, at the first record and at the last."""
    rates, halves, steps = data[key(layer, "rate")], data[key(layer, "half-life")], data["step"]
    said = []
    for r in dict.fromkeys([0, len(steps) - 1]):
        speed = f"× {number(np.exp(rates[r]))} ({half_lives([float(halves[r])])})"
        said.append(
            tr(
                "{left} at step {step:,}",
                left=tr("nothing") if np.isnan(rates[r]) else speed,
                step=int(steps[r]),
            )
        )
    return ", ".join(said)


def _flow(title: str, data: Data, name: str, relative: bool, scale: Scale | None) -> Sheet:
    """Rows: steps of the training; columns: steps of the sequence; colour: the norm of the gradient."""
    values, (layer, _, own) = data[of_gradient(name)], name.rpartition(" / ")
    largest = np.array([row[np.isfinite(row)].max(initial=0.0) for row in values])
    if relative:
        values = values / np.where(largest > 0, largest, 1.0)[:, None]
    rows, columns = evenly(len(values), MOST_ROWS), evenly(values.shape[1], MOST_COLUMNS)
    scale = scale or Scale.of(float(v) for v in values.ravel() if np.isfinite(v))
    said = tr(
        "Row: step of the training, column: step t of the sequence, colour: ‖∂L/∂{own}_t‖",
        own=pretty(clean(own)),
    )
    said += tr(" of {layer}", layer=clean(layer)) if layer else ""
    said += tr(", as a share of the largest of its row") if relative else ""
    said += "."
    cells = [
        [gradient_cell(float(v), scale, NOT_COMPUTED if np.isnan(v) else None) for v in values[r, columns]]
        for r in rows
    ]
    beside = [[Cell("", number(float(v[r])), framed=False) for v in (largest, data["loss"])] for r in rows]
    labels, ts = [f"{int(data['step'][r]):,}" for r in rows], [str(int(t)) for t in data["t"][columns]]
    left_out = _left_out(len(values), len(rows)) + _left_out(
        values.shape[1], len(columns), deferred("{kept} of {total} steps t are drawn.")
    )
    speeds = (
        [
            tr(
                "A step back {layer}leaves of the gradient: {speeds}.",
                layer=tr("in {layer} ", layer=clean(layer)) if layer else "",
                speeds=_speeds(data, layer),
            )
        ]
        if key(layer, "rate") in data
        else []
    )
    by_time = Heat(cells, labels, ts, left=tr("training step ↓"))
    ends = Heat(beside, columns=[tr("largest"), tr("loss")], width=116, below="", left=" ")
    notes = [
        tr(
            "‖∂L/∂·_t‖ is a total: what the loss of step t adds, and what comes back from the steps behind it."
        )
    ]
    scale_head = tr("share of the largest of its row") if relative else tr("gradient: ‖∂L/∂·‖")
    return Sheet(title, [[by_time, ends]], [said, *left_out], speeds, scale, scale_head, notes=notes)


def _gates(title: str, data: Data, names: Sequence[str]) -> Sheet:
    """Three rows for each gate: saturated low and high, and the mean."""
    steps, shown = data["step"], list(names[:MOST_GATES])
    columns, cells, labels = evenly(len(steps), MOST_COLUMNS), [], []
    for name in shown:
        for end, mark in (("low", "▾"), ("high", "▴")):
            labels.append(f"{_said(name)}  {mark} %")
            cells.append([_share(_mean(data[f"{name} saturated {end}"][r])) for r in columns])
        labels.append(tr("{said}  mean", said=_said(name)))
        means = [_mean(data[f"{name} mean"][r]) for r in columns]
        cells.append(
            [Cell("", "" if np.isnan(m) else f"{round(m, 2) + 0.0:.2f}".replace("-", "−")) for m in means]
        )
    more = [tr("{n} more gates are not drawn.", n=len(names) - MOST_GATES)] * (len(names) > MOST_GATES)
    said = tr(
        "% of units near the lower (▾) and the upper (▴) end of σ or tanh, over all steps t, and the mean."
    )
    heat = Heat(cells, labels, [f"{int(steps[r]):,}" for r in columns], below=tr("training step"))
    return Sheet(title, [[heat]], [said, *_left_out(len(steps), len(columns)), *more])


def _mean(values: np.ndarray) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if good.size else float("nan")


def _share(share: float) -> Cell:
    if np.isnan(share):
        return Cell(said="–")
    return Cell(mix("#ffffff", ORANGE, share), f"{100 * share:.0f}" if share >= 0.005 else "")


def _half_life(title: str, data: Data, names: Sequence[str]) -> Sheet:
    """Two charts above each other: what a step back leaves of the gradient of every layer, and the loss."""
    rows = evenly(len(data["step"]), MOST_POINTS)
    xs = data["step"][rows].astype(float).tolist()
    panels: list[list[Panel]] = []
    if names:
        curves = []
        for k, name in enumerate(names):
            layer = name.rpartition(" / ")[0]
            label = f"{clean(layer) + ': ' if layer else ''}{_speeds(data, layer)}"
            curves.append(Curve(xs, np.exp(data[name][rows]).tolist(), k, label))
        head = tr("Left of the gradient by one step back: 1 keeps it, 0.5 halves it")
        kept = Line([xs[0], xs[-1]], [1, 1], Stroke("", 1.2, "dashed", ""))
        panels.append(
            [Plot([kept, *curves], _training(xs), _factors([y for c in curves for y in c.ys]), 150, head)]
        )
    losses = data["loss"][rows]
    panels.append(
        [Plot([Curve(xs, losses.tolist(), 6)], _training(xs), _losses_axis(losses), 130, tr("Loss"))]
    )
    return Sheet(title, panels, [tr("Over the steps of the training, on the batch that is recorded."),
                                 *_left_out(len(data["step"]), len(rows))])  # fmt: skip


def _losses(title: str, data: Data) -> Sheet:
    """One chart: the loss of the steps, and that of the validations."""
    rows = evenly(len(data["step"]), MOST_POINTS)
    curves = [
        Curve(data["step"][rows].astype(float).tolist(), data["loss"][rows].tolist(), 6, tr("of the step"))
    ]
    every, said = data["loss"][rows], []
    if "validation" in data:
        kept = evenly(len(data["validation"]), MOST_POINTS)
        at, values = data["validated at"][kept].astype(float), data["validation"][kept]
        curves.append(Curve(at.tolist(), values.tolist(), 1, tr("on the data to validate on")))
        every = np.concatenate([every, values])
        best = int(np.argmin(data["validation"]))
        said = [
            tr(
                "Smallest on the data to validate on: {loss}, after step {step:,}.",
                loss=number(data["validation"][best]),
                step=data["validated at"][best],
            )
        ]
    said += _left_out(len(data["step"]), len(rows), deferred("{kept} of {total} steps are drawn."))
    panel: Panel = Plot([*curves], _training(curves[0].xs), _losses_axis(every), 200, tr("Loss"))
    return Sheet(title, [[panel]], said)


def _losses_axis(losses: np.ndarray) -> Axis:
    """Logarithmic where all are above 0."""
    good = losses[np.isfinite(losses)]
    low, high = (good.min(), good.max()) if good.size else (0.0, 1.0)
    if good.size and low > 0:
        return Axis(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high) + 1e-9), log=True)
    return Axis(low, high + (low == high))


def _training(xs: Sequence[float]) -> Axis:
    room = ((xs[-1] - xs[0]) or 1.0) * 0.02
    return Axis(xs[0] - room, xs[-1] + room, label=tr("training step"))


def _factors(found: Sequence[float]) -> Axis:
    """From 0 to a little above 1; logarithmic where some are far above."""
    good = [v for v in found if np.isfinite(v)]
    if max(good, default=1.0) > 3:
        return Axis(
            10 ** np.floor(np.log10(min([0.1, *(v for v in good if v > 0)]))),
            10 ** np.ceil(np.log10(max(good))),
            log=True,
        )
    return Axis(0, max([1.2, *good]))
