"""The gates over time: one block per quantity, units by steps, with means and saturation in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad import InputError, Tensor

from .canvas import Canvas
from .legend import value_scale
from .reading import QUANTITY, Captions, Group, read, roots_of
from .render import Picture
from .style import INK, SOFT, cell, fitting, number, pretty, signed, square, table, text

MOST_UNITS, MOST_STEPS, PAGE, LABELS, GAP = 16, 40, 1340.0, 74.0, 24.0
HEIGHT = 15.0  # of a row
NEAR = 0.05  # within this of the end of its range a gate is called saturated
RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


@dataclass
class Block:
    """One quantity: values (steps, sequences, units), and the range of its last operation if that has one."""

    name: str
    symbol: str
    values: np.ndarray
    ends: tuple[float, float] | None

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
    steps: Tensor | list, *, title: str = "", sequence: int = 0, time_limit: float = 20.0,
    captions: Captions | None = None,
) -> Picture:  # fmt: skip
    """Every named quantity of an unrolled cell over time: units by steps, as colours and numbers.

    steps : what `cells.unroll` returned, or a tensor computed from it.
    sequence : which of the N sequences the cells show; means are over all.
    title, time_limit, captions : as for `draw`.

    Raises InputError where there are no steps or no such sequence.
    """
    root, records = roots_of(steps)
    network = read(root, records, captions)
    if network is None:
        raise InputError(
            'gates: nothing in this graph stands in a step (scope "t=…"); give the steps of cells.unroll'
        )
    blocks = []
    for band in network.bands:
        names = dict.fromkeys(
            g.name for t in network.steps for g in network.cells.get((band, t), ()) if g.kind == QUANTITY
        )
        for name in names:
            groups = [g for t in network.steps if (g := network.find(band, t, name))]
            blocks.append(_block(f"{band}  {pretty(name)}".strip(), groups))
    count = min(b.values.shape[1] for b in blocks)
    if not count:
        raise InputError("gates: the steps hold N = 0 sequences, so there are no values to show")
    if not 0 <= sequence < count:
        raise InputError(f"gates: sequence = {sequence!r}; there are the sequences 0 … {count - 1}")
    title = title or "Gates and states over time"
    return Picture(_draw(blocks, network.steps, sequence, title, network.captions), title, "nop2", time_limit)


def _block(name: str, groups: list[Group]) -> Block:
    nodes = [g.out for g in groups]
    if any(n.is_symbol for n in nodes):
        raise InputError(
            f"gates: {name} is a symbol of a traced graph and has no value; unroll the cell on arrays"
        )
    values = np.stack(
        [np.asarray(n.value, dtype=np.float64).reshape(-1, n.shape[-1] if n.shape else 1) for n in nodes]
    )
    op = nodes[-1].op
    return Block(
        name, op.symbol if op and op.name in RANGES else "", values, RANGES.get(op.name) if op else None
    )


def _draw(blocks: list[Block], steps: list[int], sequence: int, title: str, captions: dict[int, str]) -> str:
    canvas = Canvas(title)
    canvas.words(8, 12, title, 15, INK, True, "left")
    kept = _evenly(len(steps), MOST_STEPS)
    width = min(46.0, max(23.0, (PAGE / 2 - LABELS - GAP) / len(kept)))
    block_width = max(LABELS + width * len(kept), 250.0) + GAP
    across = max(1, int((PAGE + GAP) // block_width))
    across = min(across, len(blocks), -(-len(blocks) // -(-len(blocks) // across)))
    units = _evenly(blocks[0].values.shape[2], MOST_UNITS)
    y = 44.0 + _said(canvas, blocks, steps, kept, units, sequence)
    for row in range(0, len(blocks), across):
        bottoms = [
            _heat(canvas, b, 8 + k * block_width, y, width, steps, kept, sequence, captions)
            for k, b in enumerate(blocks[row : row + across])
        ]
        y = max(bottoms) + 22
    value_scale(canvas, 8, y + 4, 1.0)
    notes = f"▴ saturated high, ▾ saturated low: within {NEAR:g} of the ends of σ (0 … 1) or tanh (−1 … 1)"
    canvas.words(340, y + 4, notes, 9.5, SOFT, align="left", longest=160)
    canvas.words(
        340,
        y + 18,
        "saturated %: share of all units where the gate hardly reacts, and hardly any gradient passes it",
        9.5,
        SOFT,
        align="left",
        longest=160,
    )
    return canvas.picture_text()


def _evenly(count: int, most: int) -> list[int]:
    """All of 0 … count − 1, or `most` of them, first and last included."""
    return (
        list(range(count))
        if count <= most
        else sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})
    )


def _said(canvas: Canvas, blocks, steps, kept, units, sequence) -> float:
    said = []
    if len(kept) < len(steps):
        said.append(f"{len(kept)} of {len(steps)} steps are drawn, evenly chosen")
    count = blocks[0].values.shape[2]
    if len(units) < count:
        said.append(
            f"{len(units)} of {count} units are drawn, evenly chosen; means and percentages are over all"
        )
    if blocks[0].values.shape[1] > 1:
        said.append(f"sequence {sequence} of {blocks[0].values.shape[1]}; means and percentages are over all")
    if said:
        canvas.words(8, 34, "; ".join(said) + ".", 9.5, SOFT, align="left", longest=240)
    return 16.0 if said else -8.0


def _heat(
    canvas: Canvas, block: Block, left: float, y: float, width: float, steps, kept, sequence: int,
    captions: dict[int, str],
) -> float:  # fmt: skip
    """One block; returns its bottom."""
    canvas.words(left, y, block.name, 13, INK, True, "left")
    canvas.words(left + LABELS, y, _figures(block), 10, SOFT, align="left")
    saturated = np.logical_or(*block.saturated())
    rows = _unit_rows(block, width, kept, sequence)
    means = [brief(float(v), width) for v in map(mean_of_finite, block.values[kept])]
    rows.append(_row("mean", means, width, True))
    if block.ends:
        rows.append(_row("saturated %", [f"{100 * v:.0f}" for v in saturated[kept].mean(axis=(1, 2))], width))
    rows.append(_row("step t", [str(steps[k]) for k in kept], width))
    if captions:
        rows.append(_row("", [fitting(captions.get(steps[k], ""), width, 7.6) for k in kept], width))
    total = len(rows) * HEIGHT
    canvas.box(
        f"heat {block.name}", left, y + 12, LABELS + width * len(kept), total, [table(rows)],
        border=0, tooltip=f"{block.name} over time",
    )  # fmt: skip
    return y + 12 + total


def _figures(block: Block) -> str:
    """Range and saturation, in words."""
    finite = block.values[np.isfinite(block.values)]
    spread = f"{number(finite.min())} … {number(finite.max())}" if finite.size else "no finite value"
    said = (f"{block.symbol}    " if block.symbol else "") + f"range {spread}"
    if block.ends:
        said += f"    saturated {100 * float(np.logical_or(*block.saturated()).mean()):.0f} %"
    return said + (f"    darkest at ±{number(block.top)}" if block.top > 1 else "")


def _unit_rows(block: Block, width: float, kept, sequence: int) -> list[str]:
    """A row of coloured cells per unit."""
    high, low = block.saturated()
    rows = []
    for u in _evenly(block.values.shape[2], MOST_UNITS):
        row = [_head(f"unit {u}")]
        for k in kept:
            v = float(block.values[k, sequence, u])
            mark = "▴" if high[k, sequence, u] else "▾" if low[k, sequence, u] else ""
            said = (number(v) + mark) if width >= 34 else mark if np.isfinite(v) else "?"
            row.append(square(signed(v, block.top), width, HEIGHT, said, 8.5))
        rows.append("".join(row))
    return rows


def _head(label: str) -> str:
    return cell(
        text(label, 9, SOFT), ALIGN="RIGHT", WIDTH=f"{LABELS - 8:g}", HEIGHT=f"{HEIGHT:g}", FIXEDSIZE="TRUE"
    )


def mean_of_finite(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def brief(value: float, width: float) -> str:
    """Two decimals; without the leading 0 where there is little room."""
    if not np.isfinite(value):
        return number(value)
    said = f"{value:.2f}".replace("-", "−")
    return (
        said
        if width >= 30
        else said.replace("0.", ".", 1)
        if abs(value) < 1
        else f"{value:.1f}".replace("-", "−")
    )


def _row(label: str, said: list[str], width: float, bold: bool = False) -> str:
    size = {"WIDTH": f"{width:g}", "HEIGHT": f"{HEIGHT:g}", "FIXEDSIZE": "TRUE"}
    small = 8.5 if width >= 30 else 7.6
    cells = [_head(label), *(cell(text(s, small, INK, bold), **size) for s in said)]
    return "".join(cells)
