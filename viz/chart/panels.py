"""What a chart consists of, as data: panels of cells, bars, curves, arrows and words, and the legend below them.

A view describes what is to be seen and draws nothing; `figure.py` is the one renderer.  Panels over
time have columns: column k lies between k and k + 1 on their x axis, so that panels below each other
line up.  Sizes are points at the letters' usual size of 10.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..language.catalogue import deferred, tr
from ..language.scale import NAN, Scale, Stroke, opening, shade, signed
from ..language.status import CUT, EXPLODES, NORMAL, NOT_A_NUMBER, NOT_COMPUTED, VANISHED, ZERO
from ..language.text import number

CELL = 17.0  # the height of a row of cells with numbers
# For kinds of things (after Okabe and Ito); each also bears its name, a dash or a marker.
KINDS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d1f", "#7f3c8d", "#3d3d3d")
NOT_YET = deferred("not computed: run loss.backward(record=True)")
NO_WAY = "no way"  # of what cannot depend on each other, such as a loss and a later state
MARKS = {CUT: "✂", NOT_COMPUTED: "–", ZERO: "0", NOT_A_NUMBER: "?", EXPLODES: "!", VANISHED: "·"}
GRADIENT, VALUE, SHARE, WEIGHT = "gradient", "value", "share", "weight"  # the scales of colours


@dataclass(frozen=True)
class Cell:
    """A coloured place with a few letters in it; `of` is the scale of its colour, `status` that of a gradient."""

    colour: str = ""  # "": paper
    said: str = ""
    of: str = ""
    status: str = ""
    framed: bool = True


BLANK = Cell(framed=False)
NEVER = "#dfe3e8"  # of a weight that is exactly 0
NAN_CELL = Cell(NAN, "?", status=NOT_A_NUMBER)


def gradient_cell(
    value: float | None, scale: Scale, status: str | None = None, said: str | None = None
) -> Cell:
    """A gradient's norm; what has none bears the mark of its status.

    value : None where there is none, and `status` says why; said : in place of the number.
    """
    kind = scale.status(value) if status is None else status
    if kind == NO_WAY:
        return Cell(status=NO_WAY, framed=False)
    if kind == NORMAL and value is not None:
        return Cell(scale.colour(value, kind), number(value) if said is None else said, GRADIENT, kind)
    colour = {CUT: "#e4e6ea"}.get(kind) or (
        "" if kind in (NOT_COMPUTED, ZERO, "") else scale.colour(value, kind)
    )
    written = number(value) if value is not None and kind in (VANISHED, EXPLODES) else MARKS.get(kind, "")
    return Cell(colour, written if said is None else said, GRADIENT if value else "", kind)


def value_cell(value: float, top: float, said: str | None = None) -> Cell:
    """A signed value: blue, white, orange from −top to +top; what lies outside is marked."""
    if math.isnan(value):
        return NAN_CELL
    beyond = "▴" if value > top else "▾" if value < -top else ""
    return Cell(signed(value, top), (number(value) if said is None else said) + beyond, VALUE)


def share_cell(value: float, said: str | None = None) -> Cell:
    """A gate's value, or a share, from 0 to 1."""
    if math.isnan(value):
        return NAN_CELL
    return Cell(opening(value), number(value) if said is None else said, SHARE)


def weight_cell(alpha: float, said: str = "") -> Cell:
    """A weight of attention from 0 to 1; exactly 0 is what may not be looked at."""
    if not math.isfinite(alpha):
        return NAN_CELL
    return Cell(shade(alpha), said, WEIGHT) if alpha else Cell(NEVER)


@dataclass(frozen=True)
class Axis:
    """From low to high; log: both are values above 0.  ticks: places and their texts, None: as matplotlib chooses."""

    low: float
    high: float
    log: bool = False
    label: str = ""
    ticks: Sequence[tuple[float, str]] | None = None


@dataclass(frozen=True)
class Bar:
    x: float
    low: float
    high: float
    colour: str
    width: float = 0.62
    said: str = ""  # above it
    inside: str = ""  # in it, where there is room
    status: str = ""  # what is odd about it: a dashed frame


@dataclass(frozen=True)
class Curve:
    """A line through what is finite, with a mark at each point; `kind` chooses colour, dash and mark together."""

    xs: Sequence[float]
    ys: Sequence[float]
    kind: int = 0
    label: str = ""
    marks: bool = True


@dataclass(frozen=True)
class Line:
    """A plain line through points, or, with `arrow`, an arrow to the last."""

    xs: Sequence[float]
    ys: Sequence[float]
    stroke: Stroke
    arrow: bool = False
    label: str = ""  # over its middle


@dataclass(frozen=True)
class Dots:
    xs: Sequence[float]
    ys: Sequence[float]
    colours: Sequence[str]
    size: float = 5.0
    hollow: bool = False


@dataclass(frozen=True)
class Words:
    x: float
    y: float
    said: str
    size: float = 9.0
    bold: bool = False
    align: str = "center"
    colour: str = ""  # "": that of text
    room: float = 0.0  # points that it may take, 0: any


Mark = Bar | Curve | Line | Dots | Words


@dataclass
class Plot:
    """Marks in a frame with two axes."""

    marks: list[Mark]
    x: Axis
    y: Axis
    height: float = 96.0
    head: str = ""
    said: str = ""  # beside the head
    width: float | None = None  # None: all there is
    grid: bool = True
    label: str = ""  # on the left, where there is no y axis

    @property
    def bare(self) -> bool:
        """Without axes: a lane of dots and arrows."""
        return not self.grid


@dataclass
class Heat:
    """Rows of cells with their names on the left, steps (or other columns) below or above."""

    rows: list[list[Cell]]
    labels: Sequence[str] = ()
    columns: Sequence[str] = ()
    captions: Sequence[str] = ()
    head: str = ""
    said: str = ""
    height: float = CELL  # of a row
    width: float | None = None
    below: str = field(default_factory=lambda: tr("step t"))  # what the columns are
    above: bool = False  # columns stand above
    named: bool = False  # columns have names, not numbers: upright where they are longer than a cell
    left: str = ""  # what the rows are
    bold: Sequence[int] = ()  # rows whose labels and numbers are
    chips: Sequence[str] = ()  # colours beside the labels, as those of bars above; "": none


@dataclass(frozen=True)
class Item:
    """A word on a coloured ground, and beside it paragraphs: the first in ink, the others softer."""

    word: str
    colour: str
    said: Sequence[str]


@dataclass
class Items:
    """Paragraphs below each other, over the whole width."""

    items: list[Item]
    width: float | None = None


Panel = Plot | Heat | Items


@dataclass
class Sheet:
    """A whole chart: title, sentences, rows of panels side by side, and what its legend has to explain."""

    title: str
    panels: list[list[Panel]]
    # Below the title: sizes, equations (a list: side by side, in columns), how to read.
    lines: Sequence[str | list[str]] = ()
    headlines: list[str] = field(default_factory=list)  # what is to be seen, bold
    scale: Scale | None = None
    scale_head: str = field(default_factory=lambda: tr("gradient: ‖∂L/∂·‖"))
    top: float = 1.0  # the end of the scale of values
    keys: list[tuple[str, str]] = field(default_factory=list)  # colours and what they stand for
    notes: list[str] = field(default_factory=list)
    width: float = 980.0

    @property
    def every(self) -> list[Panel]:
        return [panel for row in self.panels for panel in row]

    @property
    def cells(self) -> list[Cell]:
        return [c for p in self.every if isinstance(p, Heat) for row in p.rows for c in row]

    @property
    def statuses(self) -> list[str]:
        """Those of gradients that occur, which the legend explains."""
        found = {c.status for c in self.cells} | {
            m.status for p in self.every if isinstance(p, Plot) for m in p.marks if isinstance(m, Bar)
        }
        return [s for s in (NOT_COMPUTED, CUT, ZERO, VANISHED, EXPLODES, NOT_A_NUMBER) if s in found]

    @property
    def scales(self) -> set[str]:
        """The scales of colours that occur."""
        return {c.of for c in self.cells if c.of} | ({GRADIENT} if self.scale is not None else set())


def ends_of(values: Iterable[float], scale: Scale) -> tuple[float, float]:
    """The ends of a logarithmic axis, whole decades: those of the scale, and further where the numbers go on."""
    sizes = [math.log10(v) for v in values if v and math.isfinite(v)]
    low, high = math.floor(min([scale.low, *sizes])), math.ceil(max([scale.high, *sizes]))
    if sizes and all(s > math.log10(scale.exploded) for s in sizes):
        low = math.floor(min(sizes)) - 1
    return 10.0 ** max(low, -300), 10.0 ** min(high, 300)


def gradient_panel(
    head: str, said: str, values: np.ndarray, scale: Scale, columns: Sequence[str], captions: Sequence[str] = ()
) -> Plot:  # fmt: skip
    """Bars of norms over columns on a logarithmic axis, with the number on each; a nan gets no bar."""
    low, high = ends_of(values, scale)
    bars = [
        Bar(k + 0.5, low, v, scale.colour(v), said=number(v), status="" if scale.status(v) == NORMAL else scale.status(v))
        for k, v in enumerate(values.tolist()) if math.isfinite(v) and v > 0
    ]  # fmt: skip
    ticks = [(k + 0.5, c) for k, c in enumerate(columns)]
    return Plot(list(bars), Axis(0, len(columns), ticks=ticks), Axis(low, high, True), head=head, said=said)
