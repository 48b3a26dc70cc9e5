"""Direct and total: what a step's own loss sends to its state, beside all that arrives there.

∂L/∂h_t of a recurrence holds more than the output of step t: all later steps read h_t too.
Taking the direct part for the whole is a well-known trap (tensorflow issue 5412).
"""

from __future__ import annotations

import numpy as np

from minigrad import Tensor
from minigrad.items import itemised

from ..diagram.canvas import Canvas
from ..diagram.legend import UNKNOWN, legend
from ..diagram.markup import gradient_cell
from ..diagram.render import Diagram
from ..language.scale import INK, SOFT, Scale
from ..language.states import norm
from ..language.text import number, pretty
from ..measure.ways import carried, where
from ..read.network import Captions, Network, gradient_of, gradient_state, read, roots_of
from .canvas_chart import (
    CELL,
    KINDS,
    LABELS,
    Frame,
    column_width,
    decades,
    drawn,
    row,
    sampled,
    steps_below,
)

BARS = 96.0
NOTHING_LEFT = 1e-3  # of both parts' norms; of less, which may be rounding, a share says nothing
COLOURS = {"direct": "#b8bec8", "from other steps": KINDS[0], "total": "#3d3d3d"}


class Direct:
    """One state over time: its gradient (total), the part of its own step's loss (direct), and the rest."""

    def __init__(self, band: str, name: str, times: list[int]):
        self.band, self.name, self.times = band, name, times
        self.vectors: dict[str, dict[int, np.ndarray]] = {kind: {} for kind in COLOURS}
        self.why: dict[int, str | None] = {}

    def norm(self, kind: str, t: int) -> float | None:
        return norm(self.vectors[kind][t]) if t in self.vectors[kind] else None

    def share(self, t: int) -> float | None:
        """The share of the direct part in the total: its length along it."""
        a, b = self.vectors["direct"].get(t), self.vectors["total"].get(t)
        if a is None or b is None or not norm(b) or not np.isfinite(norm(b)):
            return None
        if norm(b) < NOTHING_LEFT * (norm(a) + norm(b - a)):  # both cancel
            return None
        unit = b / norm(b)
        return float((a / norm(b) * unit).sum())


def direct(
    what: Tensor | list, steps: list | None = None, *, of: str | None = None, title: str = "",
    scale: Scale | None = None, time_limit: float = 20.0, captions: Captions | None = None,
) -> Diagram:  # fmt: skip
    """The gradient of each state in two bars per step: direct, from the loss of its own step, and total.

    Direct is what comes back without leaving the step, also through layers above; the rest comes by way
    of other steps.  what, steps, of, … : as for `paths`, after ``loss.backward(record=True)``.

    The picture's `data` has the vectors (steps, N, H) as "dh direct", "dh from other steps" and "dh total".
    Raises InputError where no such state is carried.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    which = carried("direct", network, of)
    assert network is not None
    times, stride = drawn(sorted({*network.steps, *(g.t for g in network.first.values())}))
    found = measured(network, root, which, times)
    data: dict[str, np.ndarray] = {"t": np.array(times)}
    for d in found:
        name = f"{d.band} / d{d.name}" if d.band else f"d{d.name}"
        shape = next((v.shape for own in d.vectors.values() for v in own.values()), ())
        for kind, own in d.vectors.items():
            data[f"{name} {kind}"] = np.array([own.get(t, np.full(shape, np.nan)) for t in times])
    title = title or "Direct and total gradient of the states"
    return Diagram(_Direct(network, found, title, scale, stride).draw(), title, "nop2", time_limit, data)


def measured(network: Network, root: Tensor, which: list[tuple[str, str]], times: list[int]) -> list[Direct]:
    """Both gradients of the states `which` at `times`."""
    places = where(network)
    known = network.computed
    entered: dict[int, list] = {}
    for n, t, part in places.entrances(root) if known else ():
        entered.setdefault(t, []).append((n, 0, part))
    at_step: dict[int, set[int]] = {}
    for n, t in places.place.items():
        at_step.setdefault(t, set()).add(n)
    found = [Direct(band, name, times) for band, name in which]
    for t in times:
        nodes = {}
        for d in found:
            first = network.first.get((d.band, d.name))
            g = network.find(d.band, t, d.name) or (first if first is not None and first.t == t else None)
            if g is not None:
                nodes[g.out.number] = (d, g.out)
                d.why[t] = gradient_state(network.states, g.out)[1]
        through = at_step.get(t, set()) | places.outside
        parts = {
            n.number: batch[0]
            for n, _, batch in itemised(entered.get(t, ()), through, nodes)
            if n.number in nodes
        }
        for number_, (d, node) in nodes.items():
            total = gradient_of(network.states, node)
            if total is not None and known:
                own = np.asarray(parts.get(number_, np.zeros(node.shape)), np.float64)
                total = np.asarray(total, np.float64)
                rest = total - own
                if norm(rest) <= 8 * np.finfo(node.dtype).eps * norm(total):
                    rest = np.zeros(node.shape)  # what rounding leaves of nothing
                d.vectors["total"][t], d.vectors["direct"][t], d.vectors["from other steps"][t] = (
                    total,
                    own,
                    rest,
                )
    return found


class _Direct:
    def __init__(self, network: Network, found: list[Direct], title: str, scale: Scale | None, stride: int):
        self.network, self.found, self.stride = network, found, stride
        self.canvas = Canvas(title)
        self.times = found[0].times
        self.sizes = [norm(v) for d in found for own in d.vectors.values() for v in own.values()]
        self.scale = scale or Scale.of(self.sizes)
        self.low, self.high = decades(self.sizes, self.scale)
        self.column = column_width(len(self.times))

    def draw(self) -> str:
        canvas, right = self.canvas, LABELS + self.column * len(self.times)
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        said = "Left bar: direct, from the loss of step t itself. Right bar: total, ∂L/∂state_t. Logarithmic scale."
        said += sampled(self.stride, len(self.network.steps))
        canvas.words(8, 33, said, 9.5, SOFT, align="left", longest=220)
        y = 52.0
        for d in self.found:
            y = self._state(d, y, right) + 24
        notes = ["direct + from other steps = total, as vectors: their norms do not add up.", ""]
        if not self.network.computed:
            notes = [UNKNOWN]
        legend(canvas, 8, y - 6, max(right, 780), self.scale, None, notes, lines=False)
        return canvas.picture_text()

    def _state(self, d: Direct, top: float, right: float) -> float:
        canvas, key = self.canvas, f"{d.band} {d.name}".strip()
        head = f"{d.band + ': ' if d.band else ''}∂L/∂{pretty(d.name)}"
        canvas.words(8, top + 8, head, 13, INK, True, "left")
        canvas.words(
            max(LABELS, 20 + 8.2 * len(head)), top + 8, verdict(d), 10.5, INK, align="left", longest=190
        )
        y = top + 26
        if self.sizes:
            frame = Frame(canvas, LABELS, y, right - LABELS, BARS, self.low, self.high)
            frame.grid(key)
            for k, t in enumerate(self.times):
                for side, kind in ((-1, "direct"), (1, "total")):
                    self._bar(frame, d, k, t, side, kind, key)
            y += BARS + 12
        y += CELL / 2
        for kind, colour in COLOURS.items():
            canvas.box(
                f"{key} {kind} colour", LABELS - 15, y - 4.5, 9, 9, border=0, fill=colour, rounded=False
            )
            values = [d.norm(kind, t) for t in self.times]
            cells = [
                gradient_cell(v, self.scale, self.column, state=(d.why.get(t) or "") if v is None else None)
                for t, v in zip(self.times, values, strict=True)
            ]
            row(canvas, f"{key} {kind}", LABELS, y, self.column, cells, kind, bold=kind == "total", gap=20)
            y += CELL
        return steps_below(canvas, LABELS, y + 2, self.column, self.times, self.network.captions)

    def _bar(self, frame: Frame, d: Direct, k: int, t: int, side: int, kind: str, key: str) -> None:
        value, width = d.norm(kind, t), min(self.column * 0.38, 30)
        if value is None:
            return
        middle = LABELS + self.column * (k + 0.5)
        if not value or not np.isfinite(value):
            said = "0" if value == 0 else "?"
            self.canvas.words(middle + side * width / 2, frame.bottom - 7, said, 9, SOFT, True)
            return
        y = frame.y(value)
        self.canvas.box(
            f"{key} {kind} t={t}", middle - (width if side < 0 else 0), y, width, max(1.5, frame.bottom - y),
            border=0, fill=COLOURS[kind], rounded=False, tooltip=f"{key} t={t}: {kind} {number(value, 4)}",
        )  # fmt: skip


def verdict(d: Direct) -> str:
    """In words: how much of the gradient the direct part is, and where it is least."""
    if not d.vectors["total"]:
        return "not computed: run loss.backward(record=True)"
    found = {t: v for t in d.times if (v := d.share(t)) is not None and d.norm("direct", t)}
    if not found:
        return "no step's own loss sends anything that has a size, beside which it could be set"
    least = min(found, key=lambda t: found[t])
    return (
        f"The loss of its own step sends {100 * float(np.mean(list(found.values()))):.0f} % of it on average, "
        f"least at t = {least} ({100 * found[least]:.0f} %); the rest comes by way of other steps."
    ).replace("-", "−")
