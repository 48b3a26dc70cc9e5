"""`Numbers`: all the numbers in the cells of a heat map as one artist of matplotlib, drawn in a fraction of the time that a
text for each takes.

It imports matplotlib, and is itself imported when a figure is first made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.transforms import IdentityTransform


@dataclass(frozen=True)
class Number:
    """A few letters around the place x, y in the data of axes, and the points that they are wide."""

    x: float
    y: float
    said: str
    size: float
    colour: str
    bold: bool
    families: tuple[str, ...]
    wide: float


class Numbers(Artist):
    """Draws each number in the middle of its place; `set_colour` and `set_size` restyle all of them.

    Middle is what a digit's is, so that a row has one base line.
    """

    zorder = 3  # as that of texts

    def __init__(self, numbers: list[Number]):
        super().__init__()
        self.numbers = numbers
        self.colour: str | None = None
        self.size: float | None = None
        self.set_in_layout(False)  # they lie within their cells

    def set_colour(self, colour: str) -> None:
        self.colour, self.stale = colour, True

    def set_size(self, size: float) -> None:
        self.size, self.stale = size, True

    def draw(self, renderer) -> None:
        if not (self.get_visible() and self.numbers and self.axes):
            return
        renderer.open_group("numbers", self.get_gid())
        places: list = self.axes.transData.transform([(n.x, n.y) for n in self.numbers]).tolist()
        fonts: dict[tuple, tuple[FontProperties, float]] = {}
        centred = Text(ha="center", transform=IdentityTransform())  # tells SVG where the middle is
        high, unit = renderer.get_canvas_width_height()[1], float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
        gc = renderer.new_gc()
        for number, (x, y) in zip(self.numbers, places, strict=True):
            size = self.size or number.size
            key = size, number.bold, number.families
            if key not in fonts:
                fonts[key] = _font(renderer.get_text_width_height_descent, *key)
            font, digit = fonts[key]
            gc.set_foreground(self.colour or number.colour)
            centred.set_position((x, y))
            left, base = x - number.wide * size / number.size * unit / 2, y - digit / 2
            where = high - base if renderer.flipy() else base
            renderer.draw_text(gc, left, where, number.said, font, 0.0, False, centred)
        gc.restore()
        renderer.close_group("numbers")
        self.stale = False


def _font(
    measured: Callable, size: float, bold: bool, families: tuple[str, ...]
) -> tuple[FontProperties, float]:
    """A font, and how high its digits are, in the pixels of a renderer."""
    font = FontProperties(family=list(families), size=size, weight="bold" if bold else "normal")
    _, height, descent = measured("0", font, False)
    return font, height - descent
