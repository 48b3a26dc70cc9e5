"""Weights by step: how much each step alone adds to the gradient of each weight, and what is left of it in the sum."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minigrad import InputError, Tensor
from minigrad.items import itemised

from ..diagram.canvas import Canvas
from ..diagram.legend import UNKNOWN, legend
from ..diagram.markup import gradient_cell, square
from ..diagram.render import Diagram
from ..language.scale import INK, SOFT, Scale, mix
from ..language.states import NOT_COMPUTED, ZERO, norm
from ..language.text import clean, number
from ..measure.ways import before_steps, weight_names, where
from ..read.network import OUTPUT, Captions, Network, read, roots_of
from .canvas_chart import CELL, KINDS, column_width, drawn, row, sampled, steps_below

LABELS, SUM = 150.0, 62.0
AT_ONCE = "at once"  # what no single step adds: a product over all steps outside of them


@dataclass
class Parts:
    """The gradient of one weight: by step its norm, and the sum of all."""

    name: str
    norms: dict[int | str, float] = field(default_factory=dict)
    total: np.ndarray | None = None

    @property
    def agreement(self) -> float | None:
        """‖sum‖ ÷ sum of norms: 1 where all steps pull the same way."""
        sizes = sum(self.norms.values())
        return norm(self.total) / sizes if self.total is not None and sizes and np.isfinite(sizes) else None


def weights_by_step(
    what: Tensor | list, steps: list | None = None, *, title: str = "", scale: Scale | None = None,
    time_limit: float = 20.0, captions: Captions | None = None,
) -> Diagram:  # fmt: skip
    """‖∂L/∂W‖ of each weight, step by step: what step t alone adds, the sum, and whether the steps agree.

    what, steps, title, scale, time_limit, captions : as for `gradient`, after ``loss.backward(record=True)``.

    The picture's `data` has the norms of all steps "t" as "dW_f", (steps,), and the sum, of W_f's own shape,
    as "dW_f sum".  Raises InputError where no step reads a weight.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    found = by_step(network) if network is not None else []
    if network is None or not found:
        raise InputError(
            "weights_by_step: no step in this graph reads a weight; give the loss of an unrolled cell"
        )
    title = title or "What each step adds to the gradient of each weight"
    data = {"t": np.array(network.steps)}
    for p in found:
        data[_d(p.name)] = np.array([p.norms.get(t, 0.0 if p.norms else np.nan) for t in network.steps])
        data[f"{_d(p.name)} sum"] = np.array(np.nan) if p.total is None else p.total
    return Diagram(_Weights(network, found, title, scale).draw(), title, "nop2", time_limit, data)


def _d(name: str) -> str:
    """layer 1 / dW_f of layer 1 / W_f."""
    layer, slash, own = name.rpartition(" / ")
    return f"{layer}{slash}d{own}"


def by_step(network: Network) -> list[Parts]:
    """The parts of every weight, in the order in which the weights were made."""
    places, leaves = where(network), {number: Parts(name) for number, name in weight_names(network).items()}
    through = before_steps(network)
    seeds: dict[int | str, list] = {}
    for n in network.nodes:
        if n.op is None or n.number in through or not n.contributions:
            continue
        g = network.group_of[n.number]
        when = places.place.get(n.number, g.t if g.kind == OUTPUT else AT_ONCE)
        when = when if when in network.steps else AT_ONCE  # a learned first state
        for x, part in zip(n.inputs, n.contributions, strict=True):
            if part is not None and (x.number in leaves or x.number in through):
                seeds.setdefault(when, []).append((x, 0, part))
    for when, own in seeds.items():
        for n, _, batch in itemised(own, through, leaves):
            if n.number in leaves:
                p, part = leaves[n.number], batch[0].astype(np.float64)
                p.norms[when] = norm(part)
                p.total = part if p.total is None else p.total + part
    return list(leaves.values())


class _Weights:
    def __init__(self, network: Network, found: list[Parts], title: str, scale: Scale | None):
        self.network, self.found = network, found
        self.canvas = Canvas(title)
        sizes = [v for p in found for v in p.norms.values()]
        sizes += [norm(p.total) for p in found if p.total is not None]
        self.scale = scale or Scale.of(sizes)
        self.times, self.stride = drawn(network.steps)
        self.column = min(column_width(len(self.times)), 96.0)
        self.right = LABELS + self.column * len(self.times)

    def draw(self) -> str:
        canvas = self.canvas
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        said = "Cells: ‖∂L/∂W‖ of step t alone. Sum: the gradient that training uses."
        said += sampled(self.stride, len(self.network.steps))
        said += " The sums are over all." if self.stride > 1 else ""
        canvas.words(8, 33, said, 9.5, SOFT, align="left", longest=220)
        canvas.words(8, 52, verdict(self.found), 10.5, INK, align="left", longest=200)
        outside = any(AT_ONCE in p.norms for p in self.found)
        heads = [*([AT_ONCE] if outside else []), "sum", "agree"]
        for k, head in enumerate(heads):
            canvas.words(self.right + 14 + SUM * (k + 0.5), 72, head, 9.5, INK, True)
        y = 72 + CELL
        for p in self.found:
            self._row(p, y, outside)
            y += CELL
        y = steps_below(canvas, LABELS, y, self.column, self.times, self.network.captions)
        notes = [
            "“agree”: ‖sum over all steps‖ ÷ sum of their norms: 100 % where all steps pull the same way.",
            "“at once”: used outside of the steps, in one product for all." if outside else "",
        ]
        if not self.network.computed:
            notes[0] = UNKNOWN
        legend(canvas, 8, y + 8, max(self.right, 780), self.scale, None, [n for n in notes if n], lines=False)
        return canvas.picture_text()

    def _row(self, p: Parts, y: float, outside: bool) -> None:
        canvas, known = self.canvas, bool(p.norms)
        state = ZERO if known else NOT_COMPUTED

        def cell_of(value: float | None, width: float, why: str = state) -> str:
            return gradient_cell(value, self.scale, width, state=None if value is not None else why)

        missing = "" if AT_ONCE in p.norms else state  # a weight of no single step: nothing to say there
        row(
            canvas,
            p.name,
            LABELS,
            y,
            self.column,
            [cell_of(p.norms.get(t), self.column, missing) for t in self.times],
            clean(p.name, 24),
        )
        last = [cell_of(p.norms.get(AT_ONCE), SUM, "")] if outside else []
        last.append(cell_of(None if p.total is None else norm(p.total), SUM))
        share = p.agreement if len(p.norms) > 1 else None
        colour = "#ffffff" if share is None else mix("#ffffff", KINDS[2], 0.75 * min(share, 1.0))
        last.append(square(colour, SUM, CELL, "" if share is None else f"{100 * share:.0f} %", 8.5))
        row(canvas, f"{p.name} sum", self.right + 14, y, SUM, last)


def verdict(found: list[Parts]) -> str:
    """In words: where the largest part is, from which steps half of all comes, and where steps disagree most."""
    parts = [(v, p.name, t) for p in found for t, v in p.norms.items() if np.isfinite(v) and t != AT_ONCE]
    if not any(p.norms for p in found):
        return "Not computed: run loss.backward(record=True)."
    bad = [p.name for p in found if not all(map(np.isfinite, p.norms.values()))]
    odd = [f"Not a number: {', '.join(map(clean, bad[:6]))}{' …' if len(bad) > 6 else ''}."] if bad else []
    if not any(v for v, _, _ in parts):
        return odd[0] if odd else "Exactly zero at every step."
    largest = max(parts, key=lambda v: v[0])
    said = [f"Largest: {clean(largest[1])} at t = {largest[2]} ({number(largest[0])})."]
    by_time: dict[int, float] = {}
    for v, _, t in parts:
        by_time[int(t)] = by_time.get(int(t), 0.0) + v
    order, gone, half = sorted(by_time), 0.0, sum(by_time.values()) / 2
    for t in reversed(order):
        gone += by_time[t]
        if gone >= half and len(order) > 2:
            said.append(f"Half of all norms comes from t ≥ {t}.")
            break
    shares = [(p.agreement, p.name) for p in found if p.agreement is not None and len(p.norms) > 1]
    if len(shares) > 1:
        worst = min(shares)
        said.append(f"The steps agree least on {clean(worst[1])} ({100 * worst[0]:.0f} %).")
    return " ".join([*said, *odd])
