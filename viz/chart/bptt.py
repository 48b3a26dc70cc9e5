"""The BPTT matrix: which step's loss sends how much gradient back to the state of which step.

One walk over the graph carries the gradients of all steps' losses side by side, so that
the whole matrix costs a few backward passes, not one for every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minigrad import InputError, Tensor, describe
from minigrad.items import itemised, reach, rows_of, together

from ..diagram.canvas import Canvas
from ..diagram.legend import legend
from ..diagram.markup import NO_WAY, gradient_cell, table
from ..diagram.render import Diagram
from ..language.scale import INK, SOFT, Scale, Stroke
from ..language.states import CUT, norms
from ..language.text import fitting, number, pretty
from ..measure.transport import halving, rate
from ..measure.ways import where
from ..measure.words import half_lives
from ..read.network import QUANTITY, Captions, Network, read
from .canvas_chart import CELL, Frame, path, ticks

MOST_LOSSES, SIDE, CHART, LEFT = 100, 600.0, 400.0, 56.0


@dataclass
class Matrix:
    """‖∂L_s/∂q_t‖ of one quantity q: rows s (`losses`), columns t (`times`); NaN where no way leads."""

    band: str
    name: str
    losses: list[int]
    times: list[int]
    there: np.ndarray  # at which of these times the quantity is there
    norms: np.ndarray
    ways: np.ndarray  # 0: no way; 1: cut; 2: a gradient flows

    def state(self, scale: Scale, r: int, k: int) -> str:
        return (NO_WAY, CUT, scale.state(float(self.norms[r, k])))[self.ways[r, k]]

    @cached_property
    def by_distance(self) -> dict[int, np.ndarray]:
        """The positive finite norms for each number of steps that they came back over."""
        counts = np.abs(np.subtract.outer(self.losses, self.times))
        good = (self.ways == 2) & np.isfinite(self.norms) & (self.norms > 0)
        return {int(d): self.norms[good & (counts == d)] for d in np.unique(counts[good])}

    def row(self, r: int) -> tuple[np.ndarray, np.ndarray]:
        """(steps back, norms) of a loss, nearest first."""
        back = np.abs(np.array(self.times) - self.losses[r])
        order = [k for k in np.argsort(back, kind="stable") if self.ways[r, k] == 2]
        return back[order].astype(float), self.norms[r, order]

    @property
    def half_lives(self) -> list[float]:
        """Steps in which the gradient halves (negative: doubles), one for each stretch between cuts."""
        stretches: dict[int, list] = {}
        for r in range(len(self.losses)):
            k = np.flatnonzero(self.ways[r] == 2)
            if len(k):
                far = max(k, key=lambda j, r=r: abs(self.times[j] - self.losses[r]))
                stretches.setdefault(int(far), []).append(self.row(r))
        if len(self.by_distance) < 3:
            return []
        return [v for rows in stretches.values() if (v := halving(rate(rows))) is not None]


def bptt(
    what: Tensor | Sequence[Tensor], steps: list | None = None, *, of: str | None = None, title: str = "",
    scale: Scale | None = None, time_limit: float = 20.0, captions: Captions | None = None,
) -> Diagram:  # fmt: skip
    """‖∂L_s/∂h_t‖ as a matrix: what the loss of step s sends back to step t, and how fast it is forgotten.

    what : the loss, of which L_s is the part that enters at step s (for a sum over steps: that step's
        own term); or a list of losses, each a single number.  No backward pass is needed.
    of : the name of a quantity, such as "c" or a gate "f"; default: the last carried state of a step.
    steps, title, scale, time_limit, captions : as for `draw`.

    At most 100 losses are followed, evenly chosen and counted from the end.  The picture's `data` has the
    norms (losses, steps) of every quantity by name, NaN where no way leads or where it is cut, and the
    steps "s" and "t" of rows and columns.  Raises InputError for what is no loss of an unrolled cell.
    """
    root, losses = _losses(what)
    network = read(root, steps, captions)
    if network is None:
        raise InputError("bptt: nothing in this graph stands in a step; give the loss of an unrolled cell")
    found = matrices(network, losses)
    shown = _chosen(network, found, of)
    title = title or "Which step's loss reaches which step"
    page = _Matrices(network, shown, title, scale)
    return Diagram(page.draw(), title, "nop2", time_limit, _arrays(found))


def _losses(what) -> tuple[Tensor, list[Tensor]]:
    losses = [what] if isinstance(what, Tensor) else list(what) if isinstance(what, (list, tuple)) else []
    if not losses or not all(isinstance(y, Tensor) for y in losses):
        raise InputError(
            f"bptt: give the loss, or a list with a loss for each step, not {type(what).__name__}"
            + (f" of {type(losses[0]).__name__}" if losses else "")
        )
    for y in losses:
        if y.is_symbol or y.size != 1 or y.dtype.kind != "f":
            raise InputError(f"bptt: a loss is a single number with a value, not {describe(y)}; take .mean()")
    root = losses[0]
    for y in losses[1:]:
        root = root + y
    return root, losses


def matrices(network: Network, losses: Sequence[Tensor]) -> list[Matrix]:
    """The matrix of every quantity, in the order of layers and equations."""
    places = where(network)
    times, seeds, starts = places.times, [], []
    for k, y in enumerate(losses):
        label = None if len(losses) == 1 else network.steps[k] if len(losses) == len(network.steps) else k + 1
        seeds += [(n, t if label is None else label, part) for n, t, part in places.entrances(y)]
        for x in reach([(y, 0)], places.outside, times, cuts=False):
            if x in times:
                starts.append((x, times[x] if label is None else label))
    if not starts:
        raise InputError("bptt: the loss depends on no step of this graph; there is nothing to follow")
    labels = sorted({label for _, label in starts})
    labels = labels[:: -max(1, -(-len(labels) // MOST_LOSSES))][::-1]
    rows = {label: r for r, label in enumerate(labels)}
    by_number = {n.number: n for n in network.nodes}
    return _measured(
        network, labels, [(n, rows[s], g) for n, s, g in seeds if s in rows],
        [(by_number[n], rows[s]) for n, s in starts if s in rows], set(places.place) | places.outside, set(places.first),
    )  # fmt: skip


def _measured(network: Network, labels, seeds, starts, through: set[int], first: set[int]) -> list[Matrix]:
    """Follow what enters at `seeds`, and the norms of what arrives at every quantity."""
    nodes: dict[tuple[str, str], dict[int, Tensor]] = {}
    for (band, t), groups in network.cells.items():
        for g in groups:
            if g.kind == QUANTITY:
                nodes.setdefault((band, g.name), {})[t] = g.out
    for key, g in network.first.items():
        nodes.get(key, {})[g.t] = g.out
    times = sorted({t for own in nodes.values() for t in own})
    at: dict[int, tuple[Matrix, int]] = {}
    found = []
    for key, own in sorted(nodes.items(), key=lambda item: network.bands.index(item[0][0])):
        empty = (len(labels), len(times))
        there = np.array([t in own for t in times])
        found.append(Matrix(*key, labels, times, there, np.full(empty, np.nan), np.zeros(empty, np.int8)))
        at.update({own[t].number: (found[-1], k) for k, t in enumerate(times) if t in own})
    for x, bits in reach(starts, through, first, cuts=False).items():
        if x in at:
            matrix, k = at[x]
            matrix.ways[rows_of(together(bits)), k] = 1
    for n, items, batch in itemised(seeds, through, first):
        if n.number in at:
            matrix, k = at[n.number]
            matrix.norms[items, k], matrix.ways[items, k] = norms(batch), 2
    return found


def _chosen(network: Network, found: list[Matrix], of: str | None) -> list[Matrix]:
    """Those to draw: called `of`, or the last carried state of each layer."""
    if of is None:
        last = {band: names[-1] for band, names in network.carried.items() if names}
        shown = [m for m in found if last.get(m.band) == m.name]
        if not shown:
            raise InputError(
                "bptt: no state is carried from step to step in this graph; name a quantity with of="
            )
        return shown
    shown = [m for m in found if m.name == of]
    if not shown:
        known = ", ".join(dict.fromkeys(m.name for m in found))
        raise InputError(f"bptt: of = {of!r} is no quantity of a step; there are {known}")
    return shown


def _arrays(found: list[Matrix]) -> dict[str, np.ndarray]:
    data = {f"{m.band} / {m.name}" if m.band else m.name: m.norms for m in found}
    return {"s": np.array(found[0].losses), "t": np.array(found[0].times)} | data


class _Matrices:
    def __init__(self, network: Network, shown: list[Matrix], title: str, scale: Scale | None):
        self.network, self.shown = network, shown
        self.canvas = Canvas(title)
        self.scale = scale or Scale.of(float(v) for m in shown for v in m.norms[m.ways == 2] if v)
        most = max(len(shown[0].losses), len(shown[0].times))
        self.side = float(max(5, min(46, int(SIDE / most))))  # of a cell; whole points, as Graphviz rounds
        self.tall = max(self.side, CELL) if len(shown[0].losses) < 12 else self.side

    def draw(self) -> str:
        canvas = self.canvas
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        said = (
            "Row s, column t: ‖∂L_s/∂state_t‖, the gradient that the loss of step s sends back to step t. "
            "Right: the same by distance."
        )
        total, count = len(self.network.steps), len(self.shown[0].losses)
        if count == MOST_LOSSES < total or total > 2 * MOST_LOSSES:
            said += f" {count} losses are followed."
        canvas.words(8, 33, said, 9.5, SOFT, align="left", longest=220)
        y = 54.0
        for m in self.shown:
            y = self._one(m, y) + 26
        notes = [
            "White, without a frame: no way leads from that state to that loss (it comes later).",
            "“Halves every …”: the common slope of the rows, each on a level of its own, from cut to cut; dashed line.",
        ]
        legend(canvas, 8, y - 10, 1100, self.scale, None, notes, lines=False)
        return canvas.picture_text()

    def _one(self, m: Matrix, top: float) -> float:
        canvas, name = self.canvas, pretty(m.name)
        head = f"{m.band + ': ' if m.band else ''}‖∂L_s/∂{name}_t‖"
        canvas.words(8, top + 8, head, 13, INK, True, "left")
        canvas.words(
            max(140.0, 24 + 8.4 * len(head)),
            top + 8,
            verdict(m, self.scale),
            10.5,
            INK,
            align="left",
            longest=190,
        )
        columns = [k for k in self._every(len(m.times)) if m.there[k]]
        y = top + 48
        key = f"{m.band} {m.name} matrix".strip()
        rows = []
        for r in range(len(m.losses)):
            cells = [
                gradient_cell(
                    float(m.norms[r, k]), self.scale, self.side, self.tall, m.state(self.scale, r, k)
                )
                for k in columns
            ]
            rows.append("".join(cells))
        width, height = self.side * len(columns), self.tall * len(rows)
        canvas.box(key, LEFT, y, width, height, [table(rows)], border=0, tooltip=head)
        bottom = self._axes(m, columns, y, width, height)
        if len(m.by_distance) > 1:
            bottom = max(bottom, self._distances(m, LEFT + max(width, 220) + 96, y, key))
        return bottom

    def _every(self, count: int) -> list[int]:
        """All columns, or every nth counted from the end, as the rows are."""
        return list(range(count))[:: -max(1, -(-count // int(SIDE / 5)))][::-1]

    def _axes(self, m: Matrix, columns: list[int], y: float, width: float, height: float) -> float:
        """Steps above and on the left, as many as there is room for, captions below; returns the bottom."""
        canvas = self.canvas
        canvas.words(LEFT + width, y - 20, "state of step t →", 9, SOFT, align="right")
        canvas.words(8, y - 20, "loss of", 9, SOFT, align="left")
        canvas.words(8, y - 8, "step s ↓", 9, SOFT, align="left")
        apart = max(1, -(-(8 + 7 * len(str(m.times[-1]))) // int(self.side)))
        for j, k in enumerate(columns):
            if (len(columns) - 1 - j) % apart == 0:
                canvas.words(LEFT + self.side * (j + 0.5), y - 8, str(m.times[k]), 9, INK, True)
        apart = max(1, -(-12 // int(self.tall)))
        for r, s in enumerate(m.losses):
            if (len(m.losses) - 1 - r) % apart == 0:
                canvas.words(LEFT - 6, y + self.tall * (r + 0.5), str(s), 9, INK, True, align="right")
        said = self.network.captions if self.side >= 12 else {}
        for j, k in enumerate(columns):
            if m.times[k] in said:
                place = LEFT + self.side * (j + 0.5)
                canvas.words(place, y + height + 9, fitting(said[m.times[k]], self.side, 9), 9, SOFT)
        return y + height + (16 if said else 0)

    def _distances(self, m: Matrix, left: float, top: float, key: str) -> float:
        """The norms by distance: the median as a mark, smallest to largest as a line, and the line of the half-life."""
        canvas, found = self.canvas, m.by_distance
        sizes = [float(np.log10(v)) for values in found.values() for v in (values.min(), values.max())]
        low, high = int(np.floor(min(sizes))), int(np.ceil(max(sizes)))
        frame = Frame(canvas, left, top + 4, CHART, 190.0, low, max(high, low + 1))
        frame.grid(f"{key} distance")
        canvas.words(
            left,
            top - 14,
            f"‖∂L_s/∂{pretty(m.name)}_t‖ by distance: median, smallest and largest",
            9.5,
            INK,
            True,
            "left",
        )
        furthest = max(found)

        def x(distance: float) -> float:
            return left + CHART * (distance + 0.5) / (furthest + 1)

        wide = CHART / min(furthest + 1, MOST_LOSSES)
        for d in list(found)[:: -(-len(found) // MOST_LOSSES)]:
            values = found[d]
            middle = float(np.median(values))
            ends = [(x(d), frame.y(float(values.min()))), (x(d), frame.y(float(values.max())))]
            if len(values) > 1:
                path(canvas, f"{key} {d} range", ends, Stroke("#aeb4bd", min(4.0, wide * 0.4), "solid", ""))
            size = min(9.0, max(2.0, wide * 0.7))
            canvas.box(
                f"{key} distance {d}", x(d) - size / 2, frame.y(middle) - size / 2, size, size, border=0,
                fill=self.scale.colour(middle), rounded=False, tooltip=f"{d} steps back: {number(middle, 4)}",
            )  # fmt: skip
        for d in ticks(0, furthest, most=12):
            if d == int(d):
                canvas.words(x(d), frame.bottom + 10, str(int(d)), 9, INK, True)
        canvas.words(left + CHART / 2, frame.bottom + 24, "distance s − t, in steps", 9, SOFT)
        if m.half_lives:
            every = [m.row(r) for r in range(len(m.losses))]
            step = (rate(every) or 0.0) / np.log(10)
            good = [(np.isfinite(v) & (v > 0) & (d > 0), d, v) for d, v in every]
            start = float(np.median(np.concatenate([np.log10(v[ok]) - step * d[ok] for ok, d, v in good])))
            line = [(x(d), frame.y(10 ** (start + step * d))) for d in (0, furthest)]
            path(canvas, f"{key} half-life", line, Stroke(INK, 1.2, "dashed", ""), "the slope of the rows")
            said = half_lives(m.half_lives)
            canvas.words(left + CHART - 4, frame.top + 10, said, 10.5, INK, True, "right", paper="#ffffff")
        return frame.bottom + 30


def verdict(m: Matrix, scale: Scale) -> str:
    """In words: how fast the gradient is forgotten, what is left of that which comes furthest, what is cut."""
    said = []
    if (m.ways == 2).any() and not np.isfinite(m.norms[m.ways == 2]).all():
        said.append("It is not a number in places.")
    if m.half_lives:
        said.append(f"What one loss sends back {half_lives(m.half_lives)}.")
    steps, sizes = max(map(m.row, range(len(m.losses))), key=lambda row: row[0].max(initial=-1))
    there = np.flatnonzero(np.isfinite(sizes) & (sizes > 0))
    there = there[1:] if len(there) > 3 else there
    if len(there) > 1:
        near, far = steps[there[[0, -1]]].tolist()
        left = float(sizes[there[-1]] / sizes[there[0]])
        grown = f"{number(left)} times as much" if left > 1 else f"× {number(left)} of it"
        said.append(f"From {near:.0f} step{'s' * (near != 1)} back to {far:.0f}: {grown} is left.")
    elif not m.by_distance and (m.ways == 2).any():
        said.append("Exactly zero everywhere.")
    behind = sorted(
        {m.times[k] for r in range(len(m.losses)) for k in range(len(m.times)) if m.ways[r, k] == 1}
    )
    if behind:
        said.append(f"Cut: later losses do not reach t ≤ {behind[-1]}." if not _mirrored(m) else "Cut.")
    small = [d for d, v in m.by_distance.items() if scale.state(float(np.median(v))) == "vanished"]
    if small:
        said.append(f"Vanished from {min(small)} steps on.")
    return " ".join(said)


def _mirrored(m: Matrix) -> bool:
    """Whether later states feel earlier losses: a layer that reads the sequence from its end."""
    return any(t > s and m.ways[r, k] for r, s in enumerate(m.losses) for k, t in enumerate(m.times))
