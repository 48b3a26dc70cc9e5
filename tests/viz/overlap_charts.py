"""Where the letters of a chart stand: none upon another, none outside of the figure.

What is measured is what matplotlib draws, line by line: its own renderer tells each text, with its place and size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg

POINT = 1.0  # how far letters may reach into each other


class Words(NamedTuple):
    """One line of text and its box in points, from the top left corner of the figure."""

    said: str
    left: float
    top: float
    right: float
    bottom: float


class _Listening(RendererAgg):
    """Agg, which also notes each text that it is asked to draw."""

    def __init__(self, width: float, height: float, dpi: float):
        super().__init__(width, height, dpi)
        self.found: list[Words] = []
        self.unit = 72 / dpi

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)
        if not s.strip():
            return
        width, height, descent = self.get_text_width_height_descent(s, prop, ismath)
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        corners = [
            (u * cos + v * sin, v * cos - u * sin) for u in (0, width) for v in (descent - height, descent)
        ]
        xs, ys = zip(*corners, strict=True)
        box = (x + min(xs), y + min(ys), x + max(xs), y + max(ys))
        self.found.append(Words(s, *(edge * self.unit for edge in box)))


def words_of(figure) -> list[Words]:
    """Every line of text that is drawn, annotations and names of ticks too."""
    renderer = _Listening(*(figure.get_size_inches() * figure.dpi), figure.dpi)
    figure.draw(renderer)
    return renderer.found


def collisions(figure, points: float = POINT) -> list[str]:
    """What stands upon each other, or outside, by more than so many points."""
    found = words_of(figure)
    if not found:
        return []
    left, top, right, bottom = np.array([w[1:] for w in found], float).T
    wide, high = figure.get_size_inches() * 72
    outside = np.maximum.reduce([-left, -top, right - wide, bottom - high]) > points
    across = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    down = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top)
    upon = np.argwhere(np.triu((across > points) & (down > points), 1))
    said = [f"{found[k].said!r} leaves the figure" for k in np.flatnonzero(outside)]
    return said + [f"{found[a].said!r} stands upon {found[b].said!r}" for a, b in upon]


def assert_apart(chart) -> None:
    """No two texts of a `Chart` (or figure) overlap, and none leaves it."""
    bad = collisions(getattr(chart, "figure", chart))
    assert not bad, "\n".join([getattr(chart, "title", ""), *bad])
