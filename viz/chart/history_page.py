"""The pictures of a training: gradient flow, saturation and half-life over its steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..diagram.canvas import Canvas
from ..diagram.legend import legend
from ..diagram.markup import gradient_cell, square
from ..language.scale import INK, ORANGE, SOFT, Scale, Stroke, mix
from ..language.states import NOT_COMPUTED
from ..language.text import clean, fitting, number, pretty
from .canvas_chart import CELL, LABELS, Frame, curve, path, row, ticks

PAGE, MOST_ROWS, MOST_COLUMNS = 1000.0, 30, 25
Data = dict[str, np.ndarray]


def evenly(count: int, most: int) -> list[int]:
    """All of 0 … count − 1, or `most` of them, first and last included."""
    if count <= most:
        return list(range(count))
    return sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})


def _said(name: str) -> str:
    """layer 1: ∂L/∂c̃ of layer 1 / dc_tilde."""
    band, _, own = name.rpartition(" / ")
    return f"{clean(band)}: {pretty(clean(own))}" if band else pretty(clean(own))


def _heads(canvas: Canvas, title: str, said: str, left_out: str) -> None:
    canvas.words(8, 12, title, 15, INK, True, "left")
    canvas.words(8, 33, f"{said} {left_out}".strip(), 9.5, SOFT, align="left", longest=190)


def _sampled(records: int, kept: int, what: str) -> str:
    return f"{kept} of {records} {what} are drawn." if kept < records else ""


def flow_page(title: str, data: Data, name: str, relative: bool, scale: Scale | None) -> str:
    """Rows: steps of the training; columns: steps of the sequence; colour: the norm of the gradient."""
    canvas, values = Canvas(title), data[name]
    largest = np.array([row_[np.isfinite(row_)].max(initial=0.0) for row_ in values])
    if relative:
        values = values / np.where(largest > 0, largest, 1.0)[:, None]
    rows, columns = evenly(len(values), MOST_ROWS), evenly(values.shape[1], MOST_COLUMNS)
    scale = scale or Scale.of(float(v) for v in values.ravel() if np.isfinite(v))
    band, _, own = name.rpartition(" / ")
    state = pretty(clean(own[1:]))
    where = f" of {clean(band)}" if band else ""
    said = f"Row: step of the training, column: step t of the sequence, colour: ‖∂L/∂{state}_t‖{where}"
    said += ", as a share of the largest of its row." if relative else "."
    left_out = " ".join(
        filter(None, [_sampled(len(values), len(rows), "records"), _sampled(values.shape[1], len(columns), "steps t")])
    )  # fmt: skip
    _heads(canvas, title, said, left_out)
    canvas.words(
        8, 54, _flow_verdict(data["step"], data["t"], values, state), 10.5, INK, True, "left", longest=180
    )
    width = float(int((PAGE - LABELS - 130) / len(columns)))
    y = 88.0
    canvas.words(LABELS - 8, y - 4, "training step ↓", 9.5, SOFT, align="right")
    for place, head in ((12, "largest"), (70, "loss")):
        canvas.words(LABELS + width * len(columns) + place, y - 4, head, 9.5, SOFT, align="left")
    y += CELL / 2 + 6
    for r in rows:
        cells = [_cell(float(values[r, k]), scale, width) for k in columns]
        row(canvas, f"step {data['step'][r]}", LABELS, y, width, cells, f"{int(data['step'][r]):,}")
        for place, value in ((12, largest[r]), (70, data["loss"][r])):
            x = LABELS + width * len(columns) + place
            canvas.words(x, y, number(float(value)), 9.5, INK, align="left")
        y += CELL
    y += 4
    canvas.words(LABELS - 8, y, "step t", 9.5, SOFT, align="right")
    for j, k in enumerate(columns):
        canvas.words(LABELS + width * (j + 0.5), y, str(int(data["t"][k])), 9.5, INK, True)
    legend(canvas, 8, y + 14, PAGE, scale, None, [], lines=False)
    return canvas.picture_text()


def _cell(value: float, scale: Scale, width: float) -> str:
    if np.isnan(value):
        return gradient_cell(None, scale, width, state=NOT_COMPUTED)
    return gradient_cell(value, scale, width)


def _flow_verdict(steps: np.ndarray, times: np.ndarray, values: np.ndarray, state: str) -> str:
    """How much of the gradient at the end of the sequence is there at its start, first and last in the training."""
    said = []
    for r in dict.fromkeys([0, len(values) - 1]):
        row_ = values[r]
        good = np.flatnonzero(np.isfinite(row_) & (row_ > 0))
        if len(good) > 1:
            first, last = good[0], good[-1]
            ratio = row_[first] / row_[last]
            said.append(
                f"step {int(steps[r]):,}: t = {times[first]} gets × {number(ratio)} of what t = {times[last]} gets"
            )
    return f"∂L/∂{state} at " + "; ".join(said) + "." if said else "No gradient was recorded."


def gates_page(title: str, data: Data, names: Sequence[str]) -> str:
    """Rows: steps of the training; two columns for each gate: saturated low and high."""
    canvas = Canvas(title)
    steps = data["step"]
    rows, shown = evenly(len(steps), MOST_ROWS), list(names[:12])
    left_out = _sampled(len(steps), len(rows), "records")
    left_out += f" {len(names) - 12} more gates are not drawn." if len(names) > 12 else ""
    _heads(
        canvas,
        title,
        "% of units near the lower (▾) and the upper (▴) end of σ or tanh, over all steps t, and the mean.",
        left_out,
    )
    y, slot = 64.0, max(66.0, min(150.0, (PAGE - LABELS) / len(shown)))
    width = float(int((slot - 8) / 3))
    for k, name in enumerate(shown):
        x = LABELS + slot * k
        canvas.words(x + 1.5 * width, y, fitting(_said(name), slot - 6, 10.5), 10.5, INK, True)
        for j, head in enumerate(("▾ %", "▴ %", "mean")):
            canvas.words(x + width * (j + 0.5), y + 16, head, 9, SOFT)
    canvas.words(LABELS - 8, y + 16, "training step ↓", 9.5, SOFT, align="right")
    y += 16 + CELL
    for r in rows:
        canvas.words(LABELS - 8, y, f"{int(steps[r]):,}", 9.5, INK, align="right")
        for k, name in enumerate(shown):
            shares = [_mean(data[f"{name} saturated {end}"][r]) for end in ("low", "high")]
            cells = [_share(s, width) for s in shares]
            mean = _mean(data[f"{name} mean"][r])
            cells.append(
                square("#ffffff", width, CELL, "" if np.isnan(mean) else f"{mean:.2f}".replace("-", "−"), 8.5)
            )
            row(canvas, f"{name} {steps[r]}", LABELS + slot * k, y, width, cells)
        y += CELL
    return canvas.picture_text()


def _mean(values: np.ndarray) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if good.size else float("nan")


def _share(share: float, width: float) -> str:
    if np.isnan(share):
        return square("#ffffff", width, CELL, "–", 8.5)
    said = f"{100 * share:.0f}" if share >= 0.005 else ""
    return square(mix("#ffffff", ORANGE, share), width, CELL, said, 8.5)


def half_life_page(title: str, data: Data, names: Sequence[str]) -> str:
    """Two charts above each other: the loss, and what a step back leaves of the gradient of every layer."""
    canvas, steps = Canvas(title), data["step"].astype(float)
    _heads(canvas, title, "Over the steps of the training, on the batch that is recorded.", "")
    rows = evenly(len(steps), 60)
    xs = _places(steps[rows])
    y = _chart(canvas, "Loss", [("loss", "", data["loss"][rows])], steps[rows], xs, 60.0)
    curves = []
    for name in names:
        band, slash, _ = name.rpartition(" / ")
        half = data[f"{band}{slash}half-life"]
        said = f"{clean(band) + ': ' if band else ''}{_half(half[0])} at first, {_half(half[-1])} at last"
        curves.append((name, said, np.exp(data[name][rows])))
    if curves:
        head = "What one step back leaves of the gradient: 1 keeps it, below it vanishes, above it explodes"
        _chart(canvas, head, curves, steps[rows], xs, y + 30, log=False)
    return canvas.picture_text()


def _half(value: float) -> str:
    if np.isnan(value):
        return "nothing flows"
    if np.isinf(value) or abs(value) > 1e4:
        return "kept"
    return f"halved in {number(value)} steps" if value > 0 else f"doubled in {number(-value)} steps"


def _places(steps: np.ndarray) -> list[float]:
    span = (steps[-1] - steps[0]) or 1.0
    return [LABELS + 10 + (PAGE - LABELS - 60) * float((s - steps[0]) / span) for s in steps]


def _chart(
    canvas: Canvas, head: str, curves, steps: np.ndarray, xs: list[float], top: float, log: bool = True
) -> float:
    canvas.words(8, top, head, 12, INK, True, "left")
    for k, (key, label, _) in enumerate(curves):
        if label:
            top += 15
            curve(Frame(canvas, 12, top + 2, 30, 2, 0, 1, False), f"{key} sample", [14, 40], [0.5, 0.5], k)
            canvas.words(50, top + 3, label, 10.5, INK, align="left")
    found = np.concatenate([values for _, _, values in curves])
    found = found[np.isfinite(found) & (found > 0)]
    if log:
        found = np.log10(found)
        low, high = (np.floor(found.min()), np.ceil(found.max())) if found.size else (0, 1)
        low, high = float(low), float(max(high, low + 1))
    else:
        low, high = min(0.0, found.min(initial=0)), max(1.2, min(found.max(initial=1), 3.0))
    frame = Frame(canvas, LABELS, top + 20, PAGE - LABELS - 40, 150.0, low, high, log)
    frame.grid(head, None if log else _with_half_life)
    for k, (key, _, values) in enumerate(curves):
        said = [f"step {int(s):,}: {number(float(v), 4)}" for s, v in zip(steps, values, strict=True)]
        curve(frame, key, xs, [float(v) for v in values], k, said)
    if not log:
        y = frame.y(1.0)
        path(
            canvas,
            "kept",
            [(LABELS, y), (LABELS + frame.width, y)],
            Stroke(INK, 1.2, "dashed", ""),
            "1: kept",
        )
    last = steps[-1] if len(steps) > 1 else steps[0] + 1
    for tick in ticks(steps[0], last, most=11):
        x = LABELS + 10 + (PAGE - LABELS - 60) * (tick - steps[0]) / (last - steps[0])
        canvas.words(x, frame.bottom + 12, f"{tick:,.0f}", 9.5, INK, True)
    canvas.words(LABELS - 8, frame.bottom + 12, "training step", 9.5, SOFT, align="right")
    return frame.bottom + 16


def _with_half_life(factor: float) -> str:
    """× 0.8 (3.1 steps)"""
    if not 0 < factor < 0.999:
        return f"× {number(factor)}"
    return f"× {number(factor)} (½ in {number(float(-np.log(2) / np.log(factor)))})"
