"""The health report as a picture: findings on top, and below them, step by step, where they are."""

from __future__ import annotations

import numpy as np

from ..diagram.canvas import Canvas
from ..diagram.markup import cell, square, table, text
from ..language.scale import CUT_INK, EXPLODED, INK, ORANGE, SOFT, Scale, Stroke, mix
from ..language.states import NOT_COMPUTED
from ..language.text import clean, decade, fitting, number, pretty
from ..measure.diagnosis import Finding, folded
from ..measure.health import FINE, FROZEN, UNKNOWN, ZERO, Facts, Weight
from ..measure.recurrence import CUT, GONE, Flow
from .canvas_chart import CELL, DASHES, KINDS, Frame, drawn, path, row, ticks

PAGE, LABELS, CHIP, CHART, LETTERS = 1000.0, 128.0, 118.0, 170.0, 128
MOST_FINDINGS, MOST_ROWS, MOST_WEIGHTS, DECADES = 12, 16, 24, 16
SEEN = 0.05  # a gate of which less is saturated at every step has no row
GOOD, NOTE = "#1a7f4b", "#5d6470"


def draw(facts: Facts, found: list[Finding], title: str) -> str:
    """The whole page as DOT."""
    return _Page(facts, title).draw(found)


class _Page:
    def __init__(self, facts: Facts, title: str):
        self.facts, self.canvas = facts, Canvas(title)
        self.times, self.stride = drawn(facts.network.steps) if facts.network is not None else ([], 1)
        self.column = float(int((PAGE - LABELS - 40) / max(len(self.times), 1))) if self.times else 60.0
        self.column = min(self.column, 90.0)
        self.right = LABELS + self.column * len(self.times)

    def draw(self, found: list[Finding]) -> str:
        canvas = self.canvas
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        canvas.words(8, 33, self._about(), 9.5, SOFT, align="left", longest=170)
        y = self._findings(found, 52.0)
        if self.facts.flows:
            y = self._flow(y + 16)
            y = self._by_step(y + 6)
        else:
            y = self._units(y + 16)
        self._weights(y + 24)
        return canvas.picture_text()

    def _about(self) -> str:
        facts, said = self.facts, []
        if facts.network is not None:
            states = "; ".join(
                (f"{clean(f.band)}: " if f.band else "") + " ".join(pretty(s) for s in f.states)
                for f in facts.flows
            )
            count = len(facts.network.steps)
            said = [
                f"{count} step{'s' * (count > 1)}",
                f"states {states}" if states else "no state is carried",
            ]
            said.append(clean(facts.network.end_text))
        else:
            said = ["No recurrence", f"{len(facts.nodes):,} nodes"]
        if self.stride > 1:
            said.append(f"every {self.stride}th step is drawn, findings and figures are over all")
        return ", ".join(said) + "."

    # Findings.

    def _findings(self, found: list[Finding], y: float) -> float:
        faults = [f for f in found if f.fault]
        if not faults:
            known = self.facts.computed
            said = "No fault found" if known else "No fault found so far; the gradient is not computed"
            self._chip("verdict", y, "healthy" if known else NOT_COMPUTED, GOOD if known else NOTE)
            self.canvas.words(CHIP + 22, y + 9, said, 11, INK, True, "left")
            y += 28
        for k, f in enumerate(found[:MOST_FINDINGS]):
            y = self._finding(k, f, y)
        if len(found) > MOST_FINDINGS:
            more = f"… and {len(found) - MOST_FINDINGS} more: print the report."
            self.canvas.words(CHIP + 22, y + 6, more, 10, SOFT, align="left")
            y += 18
        return y

    def _chip(self, key: str, y: float, word: str, colour: str) -> None:
        self.canvas.box(
            f"chip {key}", 8, y, CHIP, 19, text(word, 10.5, "#ffffff", True), border=0, fill=colour,
            tooltip=word,
        )  # fmt: skip

    def _finding(self, k: int, f: Finding, y: float) -> float:
        self._chip(f"{k} {f.kind}", y, f.kind, EXPLODED if f.fault else NOTE)
        said = f"{f.where}: {f.said}" if f.where else f.said
        lines = [(line, INK) for line in folded(said, LETTERS)]
        lines += [(line, SOFT) for line in folded(f"Try: {f.advice}", LETTERS) if f.advice]
        for line, colour in lines:
            self.canvas.words(CHIP + 22, y + 9, line, 10, colour, align="left", longest=LETTERS + 4)
            y += 15
        return y + 10

    # Over the steps.

    def _x(self, t: float) -> float:
        """The middle of the column in which a step is, or would be."""
        first, last = self.times[0], self.times[-1]
        return LABELS + self.column * (0.5 + (t - first) / max(last - first, 1) * (len(self.times) - 1))

    def _flow(self, top: float) -> float:
        """What is left of a gradient of the last step at every step, on a logarithmic axis."""
        canvas, flows = self.canvas, self.facts.flows
        head = "What is left, at step t, of a gradient that starts as 1 at the last step"
        head += ", and anew behind a cut" if any(f.cuts for f in flows) else ""
        canvas.words(8, top, head, 12, INK, True, "left")
        for k, f in enumerate(flows[:8]):
            y = top + 18 + 16 * k
            path(canvas, f"flow {k} sample", [(12, y), (42, y)], Stroke(KINDS[k], 2.2, DASHES[k % 3], ""))
            canvas.words(50, y, _summary(f), 10.5, INK, True, "left", longest=150)
        top += 18 + 16 * min(len(flows), 8) + 12
        logs = np.concatenate([f.left for f in flows]) / np.log(10)
        low = int(np.floor(max(min(logs.min(), -2.0), -DECADES)))
        high = int(np.ceil(min(max(logs.max(), 1.0), DECADES)))
        step = -(-(high - low) // 6)  # so that 1 stands among the numbers of the axis
        low, high = step * (low // step), step * -(-high // step)
        frame = Frame(canvas, LABELS, top, self.right - LABELS, CHART, low, high)
        frame.grid("left", said=lambda d: f"× {decade(d)}" if d else "1")
        for k, f in enumerate(flows[:8]):
            self._curve(frame, f, k)
        y = frame.bottom + 12
        for tick in ticks(self.times[0], self.times[-1], most=26):
            if tick == int(tick):
                canvas.words(self._x(tick), y, str(int(tick)), 9.5, INK, True)
        canvas.words(LABELS - 8, y, "step t", 9.5, SOFT, align="right")
        return y + 8

    def _curve(self, frame: Frame, f: Flow, kind: int) -> None:
        """One layer's line, which starts anew behind a cut."""
        kept = range(len(f.times))[:: max(1, len(f.times) // 200)]
        left = f.left
        stroke = Stroke(KINDS[kind], 2.2, DASHES[kind % 3], "")
        piece: list[tuple[float, float]] = []
        pieces = [piece]
        for k in range(len(f.times)):
            if k in kept or k in f.why or k - 1 in f.why:
                share = (left[k] / np.log(10) - frame.low) / (frame.high - frame.low)
                if 0 <= share <= 1:  # the axis ends where next to nothing is left
                    piece.append((self._x(f.times[k]), frame.bottom - frame.height * share))
            if k in f.why:
                piece = []
                pieces.append(piece)
        for j, points in enumerate(p for p in pieces if p):
            if len(points) > 1:
                path(frame.canvas, f"flow {kind} piece {j}", points, stroke, _summary(f))
        lost = [k for k in sorted(f.why) if f.why[k] != CUT]
        for k in lost[:: max(1, len(lost) // 40)]:
            x, said = (self._x(f.times[k]) + self._x(f.times[k + 1])) / 2, "0" if f.why[k] == GONE else "NaN"
            place = frame.top + 14 + 11 * (kind % 4)
            frame.canvas.words(x, place, said, 9.5, KINDS[kind], True)
        for k in sorted(f.cuts)[:: max(1, len(f.cuts) // 40)]:
            x = (self._x(f.times[k]) + self._x(f.times[k + 1])) / 2
            key = f"cut {kind} {f.times[k]}"
            path(frame.canvas, key, [(x, frame.top), (x, frame.bottom)], Stroke(CUT_INK, 1.2, "dashed", ""))
            said = "✂ cut" if f.why.get(k) == CUT else f"✂ {pretty(f.cuts[k][0])}"
            frame.canvas.words(x, frame.top - 6 + 11 * (kind % 4), said, 9.5, INK, True, paper="#ffffff")

    def _by_step(self, y: float) -> float:
        """Rows of cells below the chart: masks, the loss of each step, and the saturation of each gate."""
        gates, idle = self._gates()
        rows = [*self._masks(), *self._entries(), *gates]
        y += CELL / 2 + 6
        for key, label, cells in rows[:MOST_ROWS]:
            row(self.canvas, key, LABELS, y, self.column, cells, fitting(label, LABELS - 10, 9.5))
            y += CELL
        if gates:
            said = "Orange: % of units that are saturated, so that they hardly react (a memory held open does not count)."
            said += f" {len(rows) - MOST_ROWS} more rows are not drawn." if len(rows) > MOST_ROWS else ""
            self.canvas.words(LABELS, y + 2, said, 9, SOFT, align="left", longest=170)
            y += 14
        if idle:
            names = ", ".join(idle[:8]) + (f" and {len(idle) - 8} more" if len(idle) > 8 else "")
            said = f"Hardly a unit is saturated in {names}."
            self.canvas.words(LABELS, y + 2, said, 9, SOFT, align="left", longest=170)
            y += 14
        return y

    def _masks(self):
        for f in self.facts.flows:
            if f.real is not None and not f.real.all():
                hidden = dict(zip(f.times, 1 - f.real.mean(axis=1), strict=True))
                cells = [self._share(hidden.get(t), "#8a909a") for t in self.times]
                yield f"{f.band} masked", _label(f.band, "masked %"), cells

    def _entries(self):
        entries = self.facts.entries
        if len(entries) > 1 and not all(entries.values()):
            cells = [
                square("#ffffff" if t not in entries else "#e8eaee" if entries[t] else "#8a909a", self.column, CELL,
                       "" if t not in entries else "●" if entries[t] else "0", 8.5)
                for t in self.times
            ]  # fmt: skip
            yield "loss", "loss enters", cells

    def _gates(self) -> tuple[list, list[str]]:
        """A row for every gate that is saturated somewhere, and the names of the others."""
        rows, idle = [], []
        for g in self.facts.gates:
            if g.saturated.max(initial=0) < SEEN:
                idle.append(_label(g.band, g.name))
                continue
            by_step = dict(zip(g.times, g.saturated, strict=True))
            cells = [self._share(by_step.get(t), ORANGE) for t in self.times]
            rows.append((f"{g.band} {g.name} {g.kind}", _label(g.band, g.name), cells))
        return rows, idle

    def _share(self, share: float | None, colour: str) -> str:
        if share is None or not np.isfinite(share):
            return square("#ffffff", self.column, CELL)
        said = f"{100 * share:.0f}" if share >= 0.005 and self.column >= 18 else ""
        return square(mix("#ffffff", colour, float(share)), self.column, CELL, said, 8.5)

    # Without steps, and the weights.

    def _units(self, y: float) -> float:
        """Gates and rectifiers as rows with one number each, and the gradient from layer to layer."""
        canvas, facts = self.canvas, self.facts
        lines = [
            (f"{_label(r.band, r.name)}: {r.units} ReLU units", r.off, "are off for all samples")
            for r in facts.rectifiers
        ]
        lines += [
            (f"{_label(g.band, g.name)} ({g.kind})", float(g.saturated.mean()), "of the units are saturated")
            for g in facts.gates
        ]
        count, lines = len(lines), [line for line in lines if line[1] > 0]
        if count:
            said = "Units that hardly react" + ("" if lines else ": none")
            canvas.words(8, y, said, 12, INK, True, "left")
            y += 20
        for k, (name, share, said) in enumerate(lines[:MOST_ROWS]):
            bar = square(mix("#ffffff", ORANGE, share), 60, CELL, f"{100 * share:.0f} %", 8.5)
            row(canvas, f"units {k}", 330, y, 60, [bar], name)
            canvas.words(400, y, said, 9.5, SOFT, align="left")
            y += CELL
        chain = [v for _, v in facts.depth]
        if chain:
            scale = Scale.of(chain)
            canvas.words(
                8,
                y + 16,
                "‖∂L/∂·‖ of each activation, from the first layer to the last",
                12,
                INK,
                True,
                "left",
            )
            shown = chain[:MOST_ROWS]
            cells = [square(scale.colour(v), 60, CELL, number(v), 8.5) for v in shown]
            row(canvas, "depth", 8, y + 36, 60, cells)
            y += 48
        return y

    def _weights(self, y: float) -> float:
        """The norm of each weight's gradient, on the scale of gradients, and what does not learn."""
        canvas, weights = self.canvas, self.facts.weights
        if not weights:
            return y
        scale = Scale.of(w.norm for w in weights if w.norm)
        said = "Gradient of each weight, ‖∂L/∂W‖: dark is large, grey does not learn"
        if len(weights) > MOST_WEIGHTS:
            said += f" ({MOST_WEIGHTS} of {len(weights)} are drawn, those with a fault first)"
        canvas.words(8, y, said, 12, INK, True, "left", longest=150)
        shown = sorted(weights, key=lambda w: w.state == FINE)[:MOST_WEIGHTS]
        shown = [w for w in weights if any(w is s for s in shown)]
        per_row, y = 8, y + 14
        for k in range(0, len(shown), per_row):
            cells = [self._weight(w, scale) for w in shown[k : k + per_row]]
            width = 122.0
            rows = [table(["".join(cells)])]
            canvas.box(f"weights {k}", 8, y, width * len(cells), 36, rows, border=0, tooltip="weights")
            y += 40
        return y

    def _weight(self, w: Weight, scale: Scale) -> str:
        name = text(fitting(w.name, 112, 9.5), 9.5, INK, True)
        if w.state in (FINE, UNKNOWN, ZERO) or w.norm is None or not np.isfinite(w.norm):
            said = "–" if w.norm is None else number(w.norm)
            colour = scale.colour(w.norm) if w.norm else "#ffffff"
        else:
            said, colour = "", "#c3c9d1"
        if w.state in (FROZEN, CUT):
            said, colour = w.state, "#c3c9d1"
        swatch = square(colour, 104, 15, said, 8.5)
        return cell(
            table([cell(name, HEIGHT="17", WIDTH="116", FIXEDSIZE="TRUE"), swatch]),
            WIDTH="122",
            HEIGHT="36",
            FIXEDSIZE="TRUE",
        )


def _label(band: str, name: str) -> str:
    return f"{clean(band)} {name}" if band else name


def _summary(f: Flow) -> str:
    """What the line of a layer says, in words."""
    who = f"{clean(f.band)}: " if f.band else ""
    names = " ".join(pretty(clean(s)) for s in f.states)
    if f.rate is None:
        said = "exactly zero (0)" if GONE in f.why.values() else "not a number" if f.why else "nothing"
        return f"{who}{names}: what comes back is {said}"
    half = f.half_life
    speed = (
        "keeps its size" if half is None or abs(half) > 1e4
        else f"halves every {number(half)} steps" if half > 0
        else f"doubles every {number(-half)} steps"
    )  # fmt: skip
    return f"{who}{names}: × {number(float(np.exp(f.rate)), 3)} per step back, {speed}"
