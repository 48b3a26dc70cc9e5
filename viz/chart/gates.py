"""The gates over time: values and gradients, units by steps, with means and saturation in numbers.

A block per quantity; after a recorded backward pass the block of its gradient stands on
its right, so that a saturated gate is seen beside what little gradient it gets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minigrad import InputError, Tensor

from ..diagram.canvas import Canvas
from ..diagram.legend import legend, value_scale
from ..diagram.markup import cell, gradient_cell, square, table, text
from ..diagram.render import Diagram
from ..language.scale import INK, SOFT, Scale, signed
from ..language.states import NOT_COMPUTED, norms
from ..language.text import brief, fitting, number, pretty
from ..read.network import QUANTITY, Captions, Group, Network, gradient_of, read, roots_of
from ..read.units import NEAR, RANGES

MOST_UNITS, MOST_STEPS, PAGE, LABELS, GAP = 16, 40, 1340.0, 74.0, 24.0
HEIGHT = 15.0  # of a row


@dataclass
class Block:
    """One quantity: values (steps, sequences, units), and the range of its last operation if that has one."""

    name: str
    symbol: str
    values: np.ndarray
    ends: tuple[float, float] | None
    gradients: np.ndarray | None  # of the same shape, NaN at steps where none is known; None: at no step
    known: list[bool]  # at which steps there is one

    @property
    def top(self) -> float:
        """The end of its scale of colours: 1, so that gates can be compared, or its own largest size."""
        largest = float(np.abs(self.values[np.isfinite(self.values)]).max(initial=0))
        return largest if largest > 1.0 else 1.0

    def saturated(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the values are near the upper, and near the lower end."""
        if self.ends is None:
            nowhere = np.zeros(self.values.shape, bool)
            return nowhere, nowhere
        low, high = self.ends
        return self.values > high - NEAR, self.values < low + NEAR


def gates(
    what: Tensor | list, steps: list | None = None, *, title: str = "", sequence: int = 0, gradients: bool = True,
    scale: Scale | None = None, time_limit: float = 20.0, captions: Captions | None = None,
) -> Diagram:  # fmt: skip
    """Every named quantity of an unrolled cell over time: units by steps, as colours and numbers.

    what : the loss, or the steps that `cells.unroll` returned; steps : those, with a loss.
    sequence : which of the N sequences the cells show; means and norms are over all.
    gradients : also show ∂L/∂f beside f, where ``loss.backward(record=True)`` left it.
    title, scale, time_limit, captions : as for `draw`.

    The picture's `data` has the values (steps, N, units) as "f" and the gradients as "df", NaN where there
    are none, at the steps "t".  Raises InputError where there are no steps or no such sequence.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    if network is None:
        raise InputError(
            'gates: nothing in this graph stands in a step (scope "t=…"); give the steps of cells.unroll'
        )
    blocks, data = [], {"t": np.array(network.steps)}
    for band in network.bands:
        names = dict.fromkeys(
            g.name for t in network.steps for g in network.cells.get((band, t), ()) if g.kind == QUANTITY
        )
        for name in names:
            groups = [network.find(band, t, name) for t in network.steps]
            blocks.append(_block(network, f"{band}  {pretty(name)}".strip(), groups))
            known = blocks[-1].gradients
            data[f"{band} / {name}" if band else name] = blocks[-1].values
            data[f"{band} / d{name}" if band else f"d{name}"] = np.array(np.nan) if known is None else known
    if not blocks:
        raise InputError(
            "gates: nothing in the steps bears a name; name what is to be seen, as tensor.named('f')"
        )
    count = min(b.values.shape[1] for b in blocks)
    if not count:
        raise InputError("gates: the steps hold N = 0 sequences, so there are no values to show")
    if not 0 <= sequence < count:
        raise InputError(f"gates: sequence = {sequence!r}; there are the sequences 0 … {count - 1}")
    title = title or "Gates and states over time"
    page = _Heat(
        blocks if gradients else [replace(b, gradients=None) for b in blocks], network, sequence, title, scale
    )
    return Diagram(page.draw(), title, "nop2", time_limit, data)


def _block(network: Network, name: str, groups: list[Group | None]) -> Block:
    """A quantity at all steps; NaN at those that do not have it."""
    nodes = [g.out for g in groups if g is not None]
    if any(n.is_symbol for n in nodes):
        raise InputError(
            f"gates: {name} is a symbol of a traced graph and has no value; unroll the cell on arrays"
        )
    last, found = nodes[-1], [g and gradient_of(network.states, g.out) for g in groups]
    shape = np.asarray(last.value).reshape(-1, last.shape[-1] if last.shape else 1).shape
    values, gradients = np.full((2, len(groups), *shape), np.nan)
    for k, g in enumerate(groups):
        if g is not None:
            values[k] = g.out.value.reshape(shape)
        part = found[k]
        if part is not None:
            gradients[k] = part.reshape(shape)
    known = [part is not None for part in found]
    bounded = last.op is not None and last.op.name in RANGES
    symbol, ends = (last.op.symbol, RANGES[last.op.name]) if bounded and last.op else ("", None)
    return Block(name, symbol, values, ends, gradients if any(known) else None, known)


class _Heat:
    def __init__(self, blocks: list[Block], network: Network, sequence: int, title: str, scale: Scale | None):
        self.blocks, self.steps, self.sequence = blocks, network.steps, sequence
        self.captions, self.canvas = network.captions, Canvas(title)
        self.both = any(b.gradients is not None for b in blocks)
        self.kept = _evenly(len(self.steps), 25 if self.both else MOST_STEPS)
        self.units = _evenly(blocks[0].values.shape[2], MOST_UNITS)
        sizes = [
            s
            for b in blocks
            if b.gradients is not None
            for s in (np.abs(b.gradients[:, sequence]), norms(b.gradients))
        ]
        self.scale = scale or Scale.of(float(v) for s in sizes for v in s.ravel())
        self._columns()

    def _columns(self) -> None:
        """How wide a step is, and how many blocks stand side by side; a gradient stands beside its values."""
        count = len(self.kept)
        self.width = min(46.0, max(23.0, (PAGE / 2 - LABELS - GAP) / count))
        four = int((PAGE / 4 - LABELS - GAP) / count)
        if self.both and len(self.blocks) > 1 and four >= 34:
            self.width = float(min(four, 46))
        self.block_width = max(LABELS + self.width * count, 250.0) + GAP
        slots = max(1, int((PAGE + GAP) // self.block_width))
        total = len(self.blocks) * (2 if self.both else 1)
        self.across = min(slots, total, -(-total // -(-total // slots)))
        if self.both:
            self.across = max(2, slots // 2 * 2)

    def draw(self) -> str:
        canvas = self.canvas
        canvas.words(8, 12, canvas.title, 15, INK, True, "left")
        y = 44.0 + self._said()
        kinds = (False, True) if self.both else (False,)
        places = [(b, gradient) for b in self.blocks for gradient in kinds]
        for start in range(0, len(places), self.across):
            bottoms = [
                (self._gradients if gradient else self._values)(b, 8 + k * self.block_width, y)
                for k, (b, gradient) in enumerate(places[start : start + self.across])
            ]
            y = max(bottoms) + 22
        self._legend(y)
        return canvas.picture_text()

    def _legend(self, y: float) -> None:
        notes = [
            f"▴ saturated high, ▾ saturated low: within {NEAR:g} of the ends of σ (0 … 1) or tanh (−1 … 1)",
            "saturated %: share of all units where the gate hardly reacts, and hardly any gradient passes it",
        ]
        if self.both:
            notes.append(
                "∂L/∂f: colour is its size, − marks a negative one; ‖·‖ is over all units and sequences"
            )
            legend(self.canvas, 8, y - 14, PAGE, self.scale, 1.0, notes, lines=False)
            return
        value_scale(self.canvas, 8, y + 4, 1.0)
        for k, note in enumerate(notes):
            self.canvas.words(340, y + 4 + 14 * k, note, 9.5, SOFT, align="left", longest=160)

    def _said(self) -> float:
        """What is left out; returns the room that it takes."""
        said, (_, sequences, count) = [], self.blocks[0].values.shape
        if len(self.kept) < len(self.steps):
            said.append(f"{len(self.kept)} of {len(self.steps)} steps are drawn, evenly chosen")
        if len(self.units) < count:
            said.append(
                f"{len(self.units)} of {count} units are drawn, evenly chosen; means and percentages are over all"
            )
        if sequences > 1:
            said.append(f"sequence {self.sequence} of {sequences}; means and percentages are over all")
        if said:
            self.canvas.words(8, 34, "; ".join(said) + ".", 9.5, SOFT, align="left", longest=240)
        return 16.0 if said else -8.0

    def _values(self, block: Block, left: float, y: float) -> float:
        """The values of one quantity; returns the bottom."""
        saturated = np.logical_or(*block.saturated())
        rows = self._unit_rows(block)
        means = [brief(float(v), self.width) for v in map(mean_of_finite, block.values[self.kept])]
        rows.append(_row("mean", means, self.width, True))
        if block.ends:
            shares = saturated[self.kept].mean(axis=(1, 2))
            rows.append(_row("saturated %", [f"{100 * v:.0f}" for v in shares], self.width))
        return self._block(block.name, _figures(block), rows, left, y)

    def _gradients(self, block: Block, left: float, y: float) -> float:
        """The gradient of one quantity; returns the bottom."""
        name = f"∂L/∂{block.name.split()[-1]}"
        if block.gradients is None:
            return self._block(name, "not computed", [], left, y)
        rows = []
        for u in _evenly(block.values.shape[2], MOST_UNITS):
            cells = [self._gradient_cell(block, k, u) for k in self.kept]
            rows.append("".join([_head(f"unit {u}"), *cells]))
        sizes = norms(block.gradients)
        cells = [
            gradient_cell(
                float(sizes[k]), self.scale, self.width, HEIGHT, None if block.known[k] else NOT_COMPUTED
            )
            for k in self.kept
        ]
        rows.append("".join([_head("‖·‖"), *cells]))
        if block.ends:  # the row beside is that of the saturation
            rows.append(_row("", [""] * len(self.kept), self.width))
        finite = sizes[np.isfinite(sizes)]
        figures = f"‖·‖ {number(finite.min())} … {number(finite.max())}" if finite.size else "no finite value"
        return self._block(name, figures, rows, left, y)

    def _gradient_cell(self, block: Block, k: int, unit: int) -> str:
        assert block.gradients is not None
        value = float(block.gradients[k, self.sequence, unit])
        if not block.known[k] or value == 0:
            return square("#ffffff", self.width, HEIGHT, "0" if block.known[k] else "–", 8.5)
        said = number(value, 1) if self.width >= 34 else "−" if value < 0 else ""
        return square(
            self.scale.colour(abs(value)), self.width, HEIGHT, said if np.isfinite(value) else "?", 8.5
        )

    def _block(self, name: str, figures: str, rows: list[str], left: float, y: float) -> float:
        """Heading, rows and steps."""
        canvas = self.canvas
        canvas.words(left, y, name, 13, INK, True, "left")
        canvas.words(left + max(LABELS, 14 + 9 * len(name)), y, figures, 10, SOFT, align="left")
        rows.append(_row("step t", [str(self.steps[k]) for k in self.kept], self.width))
        if self.captions:
            said = [fitting(self.captions.get(self.steps[k], ""), self.width, 7.6) for k in self.kept]
            rows.append(_row("", said, self.width))
        total = len(rows) * HEIGHT
        canvas.box(
            f"heat {name}", left, y + 12, LABELS + self.width * len(self.kept), total, [table(rows)],
            border=0, tooltip=f"{name} over time",
        )  # fmt: skip
        return y + 12 + total

    def _unit_rows(self, block: Block) -> list[str]:
        """A row of coloured cells per unit."""
        high, low = block.saturated()
        rows, n = [], self.sequence
        for u in _evenly(block.values.shape[2], MOST_UNITS):
            row = [_head(f"unit {u}")]
            for k in self.kept:
                v = float(block.values[k, n, u])
                mark = "▴" if high[k, n, u] else "▾" if low[k, n, u] else ""
                said = (number(v) + mark) if self.width >= 34 else mark if np.isfinite(v) else "?"
                row.append(square(signed(v, block.top), self.width, HEIGHT, said, 8.5))
            rows.append("".join(row))
        return rows


def _evenly(count: int, most: int) -> list[int]:
    """All of 0 … count − 1, or `most` of them, first and last included."""
    return (
        list(range(count))
        if count <= most
        else sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})
    )


def _figures(block: Block) -> str:
    """Range and saturation, in words."""
    finite = block.values[np.isfinite(block.values)]
    spread = f"{number(finite.min())} … {number(finite.max())}" if finite.size else "no finite value"
    said = (f"{block.symbol}    " if block.symbol else "") + f"range {spread}"
    if block.ends:
        said += f"    saturated {100 * float(np.logical_or(*block.saturated()).mean()):.0f} %"
    return said + (f"    darkest at ±{number(block.top)}" if block.top > 1 else "")


def _head(label: str) -> str:
    return cell(
        text(label, 9, SOFT), ALIGN="RIGHT", WIDTH=f"{LABELS - 8:g}", HEIGHT=f"{HEIGHT:g}", FIXEDSIZE="TRUE"
    )


def mean_of_finite(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _row(label: str, said: list[str], width: float, bold: bool = False) -> str:
    size = {"WIDTH": f"{width:g}", "HEIGHT": f"{HEIGHT:g}", "FIXEDSIZE": "TRUE"}
    small = 8.5 if width >= 30 else 7.6
    cells = [_head(label), *(cell(text(s, small, INK, bold), **size) for s in said)]
    return "".join(cells)
