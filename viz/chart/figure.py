"""`Chart`: a `Sheet` drawn by matplotlib, as a figure that is the reader's to restyle.

The style sheet and fonts that are in force when the figure is made are honoured: letters, paper and frames
are theirs, only what the colours of data mean is fixed.  matplotlib is imported when a figure is first made.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import InputError

from ..language.catalogue import deferred, language, tr
from ..language.picture import Picture, checked_width
from ..language.scale import Scale, Stroke, ink_on, mix, opening, shade, signed
from ..language.status import CUT, EXPLODES, NORMAL, NOT_A_NUMBER, NOT_COMPUTED, VANISHED, ZERO
from ..language.text import clean, number
from .panels import (
    CELL,
    GRADIENT,
    KINDS,
    SHARE,
    VALUE,
    WEIGHT,
    Axis,
    Bar,
    Cell,
    Curve,
    Dots,
    Heat,
    Items,
    Line,
    Panel,
    Plot,
    Sheet,
    Words,
    gradient_cell,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES, MARKERS = ("-", "--", ":"), ("s", "s", "o", "D")
SQUARE = [1, 2, 2, 2, 2]  # of matplotlib's codes: move to a corner, lines to the next three and back
STYLES = {"solid": "-", "dashed": "--", "dotted": ":"}
EAST_ASIAN = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Source Han Sans",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)
EDGE, GAP, BETWEEN, HEAD, UNDER = 14.0, 14.0, 34.0, 18.0, 16.0  # points: around, between panels, heads, steps
CHIP, SAMPLE = 15.0, 14.0  # of a row beside its label; the height of a line that says what a curve is
SAID = {
    NOT_COMPUTED: deferred("not computed"),
    CUT: deferred("cut (detach)"),
    ZERO: deferred("exactly zero"),
    NOT_A_NUMBER: deferred("not a number (NaN, ∞)"),
}


class Chart(Picture):
    """A chart; `figure` is matplotlib's, made when it is first asked for, and drawn as it is when it is saved.

    sheet : what is to be seen.
    ax : axes of one's own, into which the first panel is drawn at once; the figure is then theirs.
    """

    def __init__(self, sheet: Sheet, data: Mapping[str, np.ndarray] | None = None, ax: Axes | None = None):
        super().__init__(sheet.title, data)
        self.sheet = sheet
        self._figure: Any = None
        if ax is not None:
            _into(sheet, ax)
            self._figure = ax.figure

    @property
    def figure(self) -> Figure:
        """The figure, to restyle or to add to; it is not known to pyplot and needs no closing."""
        if self._figure is None:
            with language(self.language):
                self._figure = _Page(self.sheet).figure
        return self._figure

    def svg(self) -> str:
        """The chart as an SVG document, its text as text."""
        return self._saved(
            "svg",
            metadata={
                "Date": None,
                "Creator": None,
                "Format": None,
                "Type": None,
                "Title": clean(self.title, 200),
            },
        ).decode("utf-8")

    def png(self, width: int = 1600) -> bytes:
        """The chart as PNG, at most `width` pixels wide and 2.5 times as high."""
        wide, high = self.figure.get_size_inches()
        return self._saved(
            "png", dpi=min(checked_width(width) / wide, 2.5 * width / high), metadata={"Software": None}
        )

    def pdf(self) -> bytes:
        """The chart as a PDF document of one page."""
        return self._saved(
            "pdf",
            metadata={
                "CreationDate": None,
                "Creator": None,
                "Producer": None,
                "Title": clean(self.title, 200),
            },
        )

    def _saved(self, kind: str, **options) -> bytes:
        import matplotlib

        figure, file = self.figure, io.BytesIO()
        with (
            matplotlib.rc_context({"svg.hashsalt": "minigrad", "svg.fonttype": "none", "pdf.fonttype": 42}),
            _quiet(),
        ):
            figure.savefig(file, format=kind, facecolor=figure.get_facecolor(), **options)
        return file.getvalue()

    def __repr__(self) -> str:
        return f"<Chart {self.title!r}: .figure is matplotlib's, .save('picture.svg') draws it>"


def one_panel(who: str, ax: Axes | None, choices: Sequence[str]) -> None:
    """Raises InputError where axes are given for several states: they take one panel."""
    if ax is not None and len(choices) > 1:
        raise InputError(
            f"{who}: ax takes one panel, and here are {len(choices)}; choose with of = one of {', '.join(choices)}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """A letter that no font here has is drawn as a box, and the ticks of an axis may lie beyond all floats; nobody
    is warned while a picture is drawn."""
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _into(sheet: Sheet, ax: Axes) -> None:
    """The first panel into axes of somebody's own."""
    from matplotlib.axes import Axes as Known

    if not isinstance(ax, Known):
        raise InputError(
            f"ax: {type(ax).__name__} is not a matplotlib axes; give one that plt.subplots() returned"
        )
    panel = sheet.panels[0][0]
    width = ax.get_window_extent().width / ax.figure.dpi * 72
    panel_on(ax, panel, width)
    rows = next((p for p in sheet.every if isinstance(p, Heat) and p.columns), None)
    if rows is not None:  # which name the columns, and what colours are, of a plot above them too
        if isinstance(panel, Plot) and panel.x.ticks == ():
            _column_names(ax, rows, width / len(rows.columns), len(rows.columns))
            _key(ax, rows)
        ax.set_xlabel(rows.below, fontsize=9)
    ax.set_title(
        clean(getattr(panel, "head", "") or sheet.title, 200), loc="left", fontsize="medium", parse_math=False
    )


def _key(ax: Axes, rows: Heat) -> None:
    """The colours of bars and what they stand for."""
    from matplotlib.patches import Patch

    names = [(c, clean(n, 40)) for c, n in zip(rows.chips, rows.labels, strict=False) if c]
    if names:
        ax.legend(
            handles=[Patch(color=c, label=n) for c, n in names], fontsize=8, frameon=False, ncols=3,
            loc="upper center", bbox_to_anchor=(0.5, -0.16),
        )  # fmt: skip


# Letters.


def width_of(said: str, size: float, bold: bool = False) -> float:
    """Points that a text takes at a size, in the font in force: the sum of its letters, none of them moved together."""
    fonts = _in_force()
    # Hinted letters, as pixels have them, are a little wider.
    return 1.02 * size * sum(_advance(c, bold, fonts) for c in clean(said, 400))


def _in_force() -> tuple:
    """What the width of a letter depends on, beside itself."""
    import matplotlib

    return tuple(
        map(tuple, (matplotlib.rcParams[k] for k in ("font.family", "font.sans-serif", "font.serif")))
    )


@lru_cache(maxsize=4096)
def _advance(letter: str, bold: bool, fonts: tuple) -> float:
    """How far a letter moves those behind it, of a size: what it adds between two others."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    with _quiet():
        font = FontProperties(family=_families(letter), size=1, weight="bold" if bold else "normal")
        wide = TextToPath().get_text_width_height_descent
        return float(wide(f"0{letter}0", font, False)[0] - wide("00", font, False)[0])


def _families(said: str) -> list[str]:
    """The family in force, and, for letters of East Asia, those of the fonts known to have them that are there."""
    import matplotlib

    found = list(matplotlib.rcParams["font.family"])
    if any(ord(c) >= 0x2E80 for c in said):
        found += [name for name in EAST_ASIAN if name in _installed()]
    return found


@lru_cache(maxsize=1)
def _installed() -> frozenset[str]:
    from matplotlib.font_manager import get_font_names

    return frozenset(get_font_names())


def fitted(said: str, width: float, size: float, bold: bool = False) -> str:
    """As much of a text as a width holds; an … where it is cut, nothing where not even that fits."""
    said = clean(said, 400)
    if width_of(said, size, bold) <= width:
        return said
    while said and width_of(said + "…", size, bold) > width:
        said = said[:-1]
    return said.rstrip() + "…" if said else ""


def folded(said: str, width: float, size: float, bold: bool = False) -> list[str]:
    """A text in lines that a width holds, broken at spaces."""
    lines = [""]
    for word in re.split(r"(?<!✂) ", clean(said, 2000)):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, size, bold) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


# One panel.


class _Inks:
    """Colours of letters and frames, from the style in force."""

    def __init__(self):
        import matplotlib
        from matplotlib.colors import to_hex

        self.ink, self.paper = (to_hex(matplotlib.rcParams[k]) for k in ("text.color", "figure.facecolor"))
        self.soft, self.faint = mix(self.ink, self.paper, 0.35), mix(self.ink, self.paper, 0.8)


def _write(
    ax, x, y, said: str, size: float = 9, colour: str = "", bold: bool = False, align: str = "center", **more
) -> Any:
    """Text at a place in the data of axes."""
    said = clean(said, 400)
    return ax.text(
        x, y, said, fontsize=size, color=colour or _Inks().ink, weight="bold" if bold else "normal", ha=align,
        va=more.pop("va", "center"), parse_math=False, family=_families(said), **more,
    )  # fmt: skip


def panel_on(ax: Axes, panel: Panel, width: float) -> None:
    """Draw a panel into axes that are `width` points wide."""
    if isinstance(panel, Items):
        raise InputError("ax: paragraphs have no axes; draw this picture as a figure of its own")
    (_heat if isinstance(panel, Heat) else _plot)(ax, panel, width)  # type: ignore[operator]


def _heat(ax, panel: Heat, width: float) -> None:
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    from .numbers import Number, Numbers

    count, rows = max((len(r) for r in panel.rows), default=0), len(panel.rows)
    ax.set_xlim(0, max(count, 1))
    ax.set_ylim(max(rows, 1), 0)
    inks, wide = _Inks(), width / max(count, 1)
    tall = panel.height
    found: dict[tuple[str, bool], list] = {}  # one path for all cells of a colour
    numbers: list[Number] = []
    for r, row in enumerate(panel.rows):
        for k, cell in enumerate(row):
            if cell.colour or cell.framed:
                key = cell.colour or inks.paper, cell.framed and min(wide, tall) >= 9
                found.setdefault(key, []).append([(k, r), (k + 1, r), (k + 1, r + 1), (k, r + 1), (k, r)])
            bold, size = r in panel.bold, min(8.5, tall - 3)
            if said := _in_cell(cell, wide, size, bold):
                colour = ink_on(cell.colour) if cell.colour else inks.ink
                room, families = width_of(said, size, bold), tuple(_families(said))
                numbers.append(Number(k + 0.5, r + 0.5, said, size, colour, bold, families, room))
    if found:
        edges = [inks.faint if framed else colour for colour, framed in found]
        ax.add_collection(
            PathCollection(
                [Path(np.reshape(own, (-1, 2)), SQUARE * len(own)) for own in found.values()],
                facecolors=[colour for colour, _ in found], edgecolors=edges,
                linewidths=[0.6 if framed else 0.2 for _, framed in found], clip_on=False,
            ),
            autolim=False,
        )  # fmt: skip
    ax.add_artist(Numbers(numbers))
    for side in ax.spines.values():
        side.set_visible(False)
    ax.tick_params(length=0, labelsize=9, pad=3)
    _row_names(ax, panel, tall, wide)
    _column_names(ax, panel, wide, count)


def _in_cell(cell: Cell, wide: float, size: float, bold: bool) -> str:
    """What a cell says, where there is room for it: the whole of it, or its mark, or nothing."""
    if size < 5:
        return ""
    said = clean(cell.said, 400)
    if said and width_of(said, size, bold) <= wide - 2:
        return said
    return (
        gradient_cell(None, Scale(), cell.status).said
        if cell.status not in ("", NORMAL) and wide >= 9
        else ""
    )


def _row_names(ax, panel: Heat, tall: float, wide: float) -> None:
    """As many as there is room for, counted from the last row; with chips of colour between them and the cells."""
    every = max(1, math.ceil(11 / tall))
    for r, colour in enumerate(panel.chips):
        if colour:
            ax.plot([-8 / wide], [r + 0.5], "s", color=colour, markersize=7, clip_on=False)
    if panel.chips:
        ax.tick_params(axis="y", pad=CHIP)
    names = [(r + 0.5, n) for r, n in enumerate(panel.labels) if (len(panel.labels) - 1 - r) % every == 0]
    _ticks(ax.yaxis, names)
    for label, (r, _) in zip(ax.get_yticklabels(), names, strict=True):
        label.set_weight("bold" if int(r) in panel.bold else "normal")


def _column_names(ax, panel: Heat, wide: float, count: int) -> None:
    upright = _upright(panel, wide)
    longest = 6.0 if upright else max((width_of(c, 9, True) for c in panel.columns), default=0)
    every = max(1, math.ceil((longest + 6) / wide)) if count else 1
    shown = [(k + 0.5, c) for k, c in enumerate(panel.columns) if (count - 1 - k) % every == 0]
    if panel.captions:
        room = wide * every - 2
        shown = [(x, f"{c}\n{fitted(panel.captions[int(x)], room, 9)}".rstrip()) for x, c in shown]
    ax.xaxis.set_ticks_position("top" if panel.above else "bottom")
    _ticks(ax.xaxis, shown)
    if upright:
        ax.tick_params(axis="x", rotation=90)


def _upright(panel: Heat, wide: float) -> float:
    """The height of names of columns that are longer than a column is wide: they stand upright."""
    longest = max((width_of(c, 9) for c in panel.columns), default=0.0) if panel.named else 0.0
    return longest if longest + 4 > wide else 0.0


def _ticks(axis, found: Sequence[tuple[float, str]]) -> None:
    axis.set_ticks([x for x, _ in found])
    axis.set_ticklabels(["\n".join(clean(line, 200) for line in said.split("\n")) for _, said in found])
    for label in axis.get_ticklabels():
        label.set_parse_math(False)
        label.set_fontfamily(_families(label.get_text()))


def _plot(ax, panel: Plot, width: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    inks = _Inks()
    for axis, of, limits in ((ax.xaxis, panel.x, ax.set_xlim), (ax.yaxis, panel.y, ax.set_ylim)):
        if of.log:
            (ax.set_xscale if axis is ax.xaxis else ax.set_yscale)("log")
        limits(of.low, of.high)
        if of.ticks is not None:
            _ticks(axis, of.ticks)
        elif of.log:
            axis.set_major_locator(LogLocator(numticks=7))
            axis.set_major_formatter(FuncFormatter(lambda v, _: number(v)))
        else:
            axis.set_major_locator(MaxNLocator(7, integer=axis is ax.xaxis, steps=[1, 2, 5, 10]))
        axis.set_minor_formatter(NullFormatter())
        if of.label:
            axis.set_label_text(clean(of.label, 200), fontsize=9, color=inks.soft, parse_math=False)
    ax.tick_params(length=0, labelsize=9, pad=4)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.minorticks_off()
    if panel.bare:
        ax.set_xticks([])
        ax.set_yticks([])
    else:
        ax.yaxis.grid(True, color=inks.faint, linewidth=0.6)
        ax.set_axisbelow(True)
        if panel.y.low < 0 < panel.y.high and not panel.y.log:
            ax.axhline(0, color=inks.soft, linewidth=1)
    plain = {id(m): m for m in panel.marks if isinstance(m, Line) and not (m.arrow or m.label)}
    _lines(ax, list(plain.values()), inks)
    for mark in (m for m in panel.marks if id(m) not in plain):
        _MARKS[type(mark)](ax, mark, width / ((panel.x.high - panel.x.low) or 1), inks)


def _bar(ax, m: Bar, unit: float, inks: _Inks) -> None:
    from matplotlib.patches import Rectangle

    odd = m.status not in ("", NORMAL)
    ax.add_artist(
        Rectangle(
            (m.x - m.width / 2, m.low), m.width, m.high - m.low, facecolor=m.colour,
            edgecolor=inks.ink if odd else "none", linestyle="--" if odd else "-", linewidth=1.2 if odd else 0,
        )
    )  # fmt: skip
    if m.said and width_of(m.said, 9, True) <= unit + 6:
        _above(ax, m.x, m.high, m.said + (f"\n{tr(m.status)}" if odd and unit > 44 else ""), 9)
    if m.inside and width_of(m.inside, 8.5) <= unit * m.width - 2:
        _write(ax, m.x, (m.low + m.high) / 2, m.inside, 8.5, ink_on(m.colour))


def _above(ax, x: float, y: float, said: str, size: float) -> None:
    """A number over a bar, on paper of its own, so that no line of the grid runs through it."""
    paper = {
        "facecolor": ax.figure.get_facecolor(),
        "edgecolor": "none",
        "pad": 0.8,
    }  # that of the axes may be clear
    ax.annotate(
        said, (x, y), xytext=(0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=size,
        weight="bold", bbox=paper, parse_math=False, linespacing=1.0,
    )  # fmt: skip


def _curve(ax, m: Curve, unit: float, inks: _Inks) -> None:
    colour = KINDS[m.kind % len(KINDS)]
    ys = np.array(
        [
            y if y is not None and math.isfinite(y) and (y > 0 or ax.get_yscale() != "log") else np.nan
            for y in m.ys
        ],
        float,
    )
    dense = len(ys) > 1 and unit * abs(m.xs[1] - m.xs[0]) < 5
    ax.plot(
        m.xs, ys, DASHES[m.kind % len(DASHES)], color=colour, linewidth=1.8, label=m.label or None,
        marker=MARKERS[m.kind % len(MARKERS)] if m.marks and not dense else None, markersize=5.5,
        markerfacecolor=colour if m.kind % 2 == 0 else inks.paper, clip_on=False, solid_joinstyle="round",
    )  # fmt: skip


def _lines(ax, plain: Sequence[Line], inks: _Inks) -> None:
    """All lines without arrow and label at once."""
    from matplotlib.collections import LineCollection

    if plain:
        ax.add_collection(
            LineCollection(
                [list(zip(m.xs, m.ys, strict=True)) for m in plain],
                colors=[m.stroke.colour.split(":")[0] or inks.ink for m in plain],
                linewidths=[m.stroke.width for m in plain], linestyles=[STYLES[m.stroke.dash] for m in plain],
            ),
            autolim=False,
        )  # fmt: skip


def _line(ax, m: Line, unit: float, inks: _Inks) -> None:
    colour = m.stroke.colour.split(":")[0] or inks.ink
    style = STYLES[m.stroke.dash]
    if m.arrow:
        ax.annotate(
            "", (m.xs[-1], m.ys[-1]), xytext=(m.xs[0], m.ys[0]),
            arrowprops={
                "arrowstyle": f"-|>,head_length={0.45 + 0.07 * m.stroke.width:.2f},head_width={0.2 + 0.05 * m.stroke.width:.2f}",
                "color": colour, "linewidth": m.stroke.width, "linestyle": style, "shrinkA": 0, "shrinkB": 0,
            },
        )  # fmt: skip
    else:
        ax.plot(m.xs, m.ys, style, color=colour, linewidth=m.stroke.width)
    if m.label:
        room = unit * abs(m.xs[-1] - m.xs[0]) + 8
        if width_of(m.label, 9, True) <= room:
            ax.annotate(
                m.label, ((m.xs[0] + m.xs[-1]) / 2, (m.ys[0] + m.ys[-1]) / 2), xytext=(0, 4 + m.stroke.width / 2),
                textcoords="offset points", ha="center", va="bottom", fontsize=9, weight="bold", parse_math=False,
            )  # fmt: skip


def _dots(ax, m: Dots, unit: float, inks: _Inks) -> None:
    face = [inks.paper] * len(m.xs) if m.hollow else list(m.colours)
    ax.scatter(
        m.xs,
        m.ys,
        s=m.size**2,
        c=face,
        edgecolors=list(m.colours),
        linewidths=1.1 if m.hollow else 0,
        zorder=3,
        clip_on=False,
    )


def _words(ax, m: Words, unit: float, inks: _Inks) -> None:
    said = fitted(m.said, m.room, m.size, m.bold) if m.room else clean(m.said, 200)
    _write(ax, m.x, m.y, said, m.size, m.colour or inks.ink, m.bold, m.align)


_MARKS: dict[type, Any] = {Bar: _bar, Curve: _curve, Line: _line, Dots: _dots, Words: _words}


# The whole page.


class _Page:
    """Places all of a sheet, from the top down, in points; one instance per figure."""

    def __init__(self, sheet: Sheet):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.sheet, self.inks = sheet, _Inks()
        self.y, self.todo = EDGE, []  # what to draw once the height is known
        lefts = [self._left(row) for row in sheet.panels]
        self._header()
        for row in sheet.panels:  # those of as many panels stand in line
            like = [x for x, r in zip(lefts, sheet.panels, strict=True) if len(r) == len(row)]
            self._row(row, [max(own) for own in zip(*like, strict=True)])
        self._legend()
        self.height = self.y + EDGE
        with _quiet():
            self.figure = Figure(figsize=(sheet.width / 72, self.height / 72), dpi=100)
            FigureCanvasAgg(self.figure)
            for do in self.todo:
                do()

    # Words outside of panels.

    def words(
        self,
        x: float,
        y: float,
        said: str,
        size: float = 9,
        colour: str = "",
        bold: bool = False,
        align: str = "left",
    ) -> None:
        """At a place in points from the top left corner; y is the middle of the letters."""
        said = clean(said, 400)

        def do() -> None:
            self.figure.text(
                x / self.sheet.width, 1 - y / self.height, said, fontsize=size, color=colour or self.inks.ink, ha=align,
                va="center_baseline", weight="bold" if bold else "normal", parse_math=False, family=_families(said),
            )  # fmt: skip

        self.todo.append(do)

    def paragraph(
        self, said: str, size: float, colour: str = "", bold: bool = False, x: float = EDGE, width: float = 0
    ) -> None:
        for line in folded(said, width or self.sheet.width - x - EDGE, size, bold):
            self.words(x, self.y + size * 0.75, line, size, colour, bold)
            self.y += size * 1.5

    def _columns(self, lines: Sequence[str], size: float) -> None:
        """In as many columns as fit, each read downwards."""
        room = self.sheet.width - 2 * EDGE
        width = max((width_of(line, size) for line in lines), default=room) + 20
        across = max(1, int((room + 20) / width))
        down = -(-len(lines) // across)
        for k, line in enumerate(lines):
            said = fitted(line, room, size)
            self.words(EDGE + width * (k // down), self.y + size * (0.75 + 1.5 * (k % down)), said, size)
        self.y += size * 1.5 * down

    def _header(self) -> None:
        self.paragraph(self.sheet.title, 14, bold=True)
        for said in self.sheet.lines:
            if isinstance(said, str):
                self.paragraph(said, 9.5, self.inks.soft)
            else:
                self._columns(said, 9.5)
        for said in self.sheet.headlines:
            self.y += 2
            self.paragraph(said, 10.5, bold=True)
        self.y += 8

    # Panels.

    def _left(self, row: Sequence[Panel]) -> list[float]:
        """The room that each panel of a row needs on its left for names."""
        found = []
        for p in row:
            if isinstance(p, Heat):
                room = max(
                    [width_of(clean(n, 60), 9, r in p.bold) for r, n in enumerate(p.labels)]
                    + [width_of(p.below, 9) if p.columns and not p.above else 0.0, width_of(p.left, 9)]
                ) + CHIP * bool(p.chips)
            elif isinstance(p, Items):
                room = 0.0
            elif p.bare:
                room = width_of(p.label, 9)
            else:
                room = max([width_of(s, 9) for _, s in p.y.ticks] if p.y.ticks else [30.0]) + (
                    18 if p.y.label else 0
                )
            found.append(room + 8)
        return found

    def _row(self, row: Sequence[Panel], lefts: Sequence[float]) -> None:
        room = self.sheet.width - 2 * EDGE - sum(lefts) - BETWEEN * (len(row) - 1)
        given = sum(p.width or 0 for p in row)
        free = [p for p in row if p.width is None]
        share = max(60.0, (room - given) / len(free)) if free else 0.0
        widths = [panel.width or share for panel in row]
        xs = [EDGE + sum(lefts[:k]) + sum(widths[:k]) + BETWEEN * k for k in range(len(row))]
        ends = [x - 12 for x in xs[1:]] + [self.sheet.width - EDGE]
        # Panels side by side begin at one height, however long their heads are.
        top = max(map(self._head, row, xs, lefts, ends))
        bottom = max(map(self._panel, row, xs, lefts, [top] * len(row), widths))
        self.y = bottom + (4 if all(isinstance(p, Plot) and p.bare for p in row) else GAP)

    def _head(self, panel: Panel, x: float, left: float, end: float) -> float:
        """What stands over a panel: its head, and beside it what is said; returns its bottom."""
        y = self.y
        if not isinstance(panel, (Heat, Plot)) or not panel.head + panel.said:
            return y
        self.words(x, y + 8, panel.head, 11.5, bold=True)
        start = x + max(left, width_of(panel.head, 11.5, True) + 12 if panel.head else 0)
        for k, line in enumerate(folded(panel.said, end - start, 9.5) if panel.said else []):
            y += 13 * (k > 0)
            self.words(start, y + 8, line, 9.5, self.inks.soft)
        return y + HEAD

    def _panel(self, panel: Panel, x: float, left: float, top: float, width: float) -> float:
        """Draw one panel whose axes begin at x + left; returns its bottom."""
        if isinstance(panel, Items):
            return self._items(panel, x, top)
        y, heat = top, isinstance(panel, Heat)
        if isinstance(panel, Heat):
            if panel.above:
                y += max(UNDER, 6 + _upright(panel, width / max(map(len, panel.rows), default=1)))
            y += 12 * bool(panel.left)
            if panel.left:
                self.words(x + left - 4, y - 7, panel.left, 9, self.inks.soft, align="right")
            height = panel.height * len(panel.rows)
        else:
            y = self._curves(panel, x + left, y) + 12 * (not panel.bare)  # for numbers over the highest bar
            height = panel.height
        self._axes(panel, x + left, y, width, height)
        y += height
        if heat and panel.columns and not panel.above:  # type: ignore[union-attr]
            self.words(x + left - 4, y + 8, panel.below, 9, self.inks.soft, align="right")  # type: ignore[union-attr]
            y += UNDER + (11 if any(panel.captions) else 0)  # type: ignore[union-attr]
        elif isinstance(panel, Plot) and not panel.bare:
            y += UNDER * bool(panel.x.ticks is None or panel.x.ticks) + 14 * bool(panel.x.label)
        elif isinstance(panel, Plot) and panel.label:
            self.words(x + left - 4, y - height / 2, panel.label, 9, self.inks.soft, align="right")
        return y

    def _curves(self, panel: Plot, x: float, y: float) -> float:
        """What each curve of a plot is: a sample of it and its label, one below the other."""
        for m in panel.marks:
            if isinstance(m, Curve) and m.label:
                sample = Curve([0, 1], [0.5, 0.5], m.kind, marks=m.marks)
                self._axes(Plot([sample], Axis(0, 1), Axis(0, 1), grid=False), x, y + 3, 28, 8)
                lines = folded(m.label, self.sheet.width - x - 38 - EDGE, 9.5)
                for k, line in enumerate(lines):
                    self.words(x + 38, y + 7 + SAMPLE * k, line, 9.5)
                y += SAMPLE * len(lines)
        return y

    def _items(self, panel: Items, x: float, top: float) -> float:
        """Paragraphs beside the words that say what they are about; returns their bottom."""
        chip = max((width_of(item.word, 9.5, True) for item in panel.items), default=0.0) + 14
        self.y = top
        for item in panel.items:
            self._axes(Heat([[Cell(item.colour, framed=False)]], height=CELL), x, self.y, chip, CELL)
            self.words(
                x + chip / 2, self.y + CELL / 2, item.word, 9.5, ink_on(item.colour), True, align="center"
            )
            self.y += 1
            for k, said in enumerate(item.said):
                self.paragraph(said, 10, self.inks.soft if k else "", x=x + chip + 12)
            self.y += 7
        return self.y

    def _axes(self, panel: Panel, left: float, top: float, width: float, height: float) -> None:
        def do() -> None:
            wide, high = self.sheet.width, self.height
            ax = self.figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))
            ax.patch.set_alpha(0)
            panel_on(ax, panel, width)

        self.todo.append(do)

    # The legend.

    def _legend(self) -> None:
        """What occurs and nothing else: scales of colours, status of gradients, keys; then the notes."""
        sheet, x, top = self.sheet, EDGE, self.y
        scales = sheet.scales
        if GRADIENT in scales and sheet.scale is not None:
            x = self._ramp(x, top, sheet.scale_head, *_gradient_ramp(sheet.scale))
        if VALUE in scales:
            ends = [(0.0, f"≤ {number(-sheet.top)}"), (0.5, "0"), (1.0, f"≥ {number(sheet.top)}")]
            x = self._ramp(
                x, top, tr("value"), [signed(k / 5 * sheet.top, sheet.top) for k in range(-5, 6)], ends
            )
        for of, head in ((SHARE, tr("gate, 0 to 1")), (WEIGHT, tr("weight α"))):
            if of in scales:
                colours = [(opening if of == SHARE else shade)(k / 10) for k in range(11)]
                x = self._ramp(x, top, head, colours, [(0.0, "0"), (0.5, "0.5"), (1.0, "1")])
        used = x > EDGE
        self.y = top + (44 if used else 0)
        self._samples()
        for note in sheet.notes:
            self.paragraph(note, 8.5, self.inks.soft)

    def _ramp(
        self, x: float, y: float, head: str, colours: Sequence[str], ends: Sequence[tuple[float, str]]
    ) -> float:
        """A scale of colours with its ends in numbers; returns where the next may begin."""
        width = 190.0
        self.words(x, y + 6, head, 9, bold=True)
        for k, colour in enumerate(colours):
            self._swatch(colour, x + width * k / len(colours), y + 14, width / len(colours), 9)
        written = -math.inf
        for share, said in ends:
            align, long = "left" if share == 0 else "right" if share == 1 else "center", width_of(said, 8.5)
            start = x + width * share - {"left": 0, "center": long / 2, "right": long}[align]
            if start > written:
                self.words(x + width * share, y + 30, said, 8.5, align=align)
                written = start + long + 4
        return x + width + 40

    def _swatch(
        self, colour: str, x: float, y: float, width: float, height: float, framed: bool = False
    ) -> None:
        def do() -> None:
            from matplotlib.patches import Rectangle

            wide, high, face = self.sheet.width, self.height, colour or self.inks.paper
            self.figure.add_artist(
                Rectangle(
                    (x / wide, 1 - (y + height) / high), width / wide, height / high, facecolor=face,
                    edgecolor=self.inks.faint if framed else face, linewidth=0.6 if framed else 0.2,
                )
            )  # fmt: skip

        self.todo.append(do)

    def _samples(self) -> None:
        """Each status that occurs, and keys, each with a sample of its colour."""
        scale = self.sheet.scale or Scale()
        bounds = {
            VANISHED: tr("vanished: < {bound}", bound=number(scale.vanished)),
            EXPLODES: tr("exploded: > {bound}", bound=number(scale.exploded)),
        }
        found = [(gradient_cell(None, scale, s), bounds.get(s) or tr(SAID[s])) for s in self.sheet.statuses]
        found += [(Cell(colour), clean(said, 80)) for colour, said in self.sheet.keys]
        x = EDGE
        for cell, said in found:
            wide = 30 + width_of(said, 9)
            if x + wide > self.sheet.width - EDGE:
                x, self.y = EDGE, self.y + 18
            self._swatch(cell.colour, x, self.y, 20, 12, framed=True)
            self.words(
                x + 10, self.y + 6, cell.said, 8.5, ink_on(cell.colour) if cell.colour else "", align="center"
            )
            self.words(x + 26, self.y + 6, said, 9)
            x += wide + 18
        self.y += 22 if found else 0


def _gradient_ramp(scale: Scale) -> tuple[list[str], list[tuple[float, str]]]:
    pieces = 48
    colours = [
        scale.colour(10 ** (scale.low + (scale.high - scale.low) * (k + 0.5) / pieces), NORMAL)
        for k in range(pieces)
    ]
    ends = [((t - scale.low) / (scale.high - scale.low), number(10.0**t)) for t in scale.ticks()]
    return colours, ends


__all__ = ["CELL", "Axis", "Chart", "Stroke"]
