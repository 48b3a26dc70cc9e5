"""`Picture`: what every view gives, whether Graphviz or matplotlib draws it.

A picture is drawn when it is asked for.  It can be saved, shown in a notebook, and asked for the arrays
behind it; what draws it is told by its class: `Diagram` (boxes and arrows) or `Chart` (bars, heat maps, curves).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minigrad import InputError, LayoutError
from minigrad.files import write

from .catalogue import current
from .text import html

NOTEBOOK = 960  # pixels
_SIZE = re.compile(r'<svg[^>]*? width="([\d.]+)pt" height="([\d.]+)pt"')


class Picture:
    """A picture, drawn when it is asked for.

    Attributes: `title`; `data`, the arrays behind the picture, by name; `text`, what it says as a
    table of words, where it has one; `language`, that in which it was made.  The same program draws the same bytes.

    A name in `data` has, in this order: the layer, where there are several, "layer 1 / "; a d, where it is
    the gradient's; the quantity; and what of it, in a word: "f", "df", "layer 2 / dc through f", "dW_f norm".
    Arrays by step have steps as their first axis, and "t" says which; NaN stands where there is nothing.
    """

    formats: tuple[str, ...] = ("svg", "png", "pdf")
    title: str
    data: dict[str, np.ndarray]
    text: str

    def __init__(self, title: str = "", data: Mapping[str, np.ndarray] | None = None):
        self.title, self.data, self.text = title, dict(data or {}), ""
        self.language = current()

    def svg(self) -> str:
        """The picture as an SVG document."""
        raise NotImplementedError

    def png(self, width: int = 1600) -> bytes:
        """The picture as PNG, at most `width` pixels wide and 2.5 times as high."""
        raise NotImplementedError

    def pdf(self) -> bytes:
        """The picture as a PDF document of one page."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike) -> Path:
        """Write the picture; the ending of `path` chooses the format, one of `formats`.

        A missing folder is made.  The file appears complete or not at all.  Raises InputError for another ending.
        """
        path = Path(path)
        kind = path.suffix.lower().lstrip(".")
        if kind not in self.formats:
            known = ", ".join(f".{f}" for f in self.formats[:-1]) + f" or .{self.formats[-1]}"
            raise InputError(
                f"save {path}: {path.suffix or 'no ending'} is not a format of this picture; end the name in {known}"
            )
        content = self.dot if kind == "dot" else getattr(self, kind)()  # type: ignore[attr-defined]
        return write(path, content.encode("utf-8") if isinstance(content, str) else content)

    def _repr_svg_(self) -> str:
        """No wider than a page of `NOTEBOOK` pixels, but at least half its size: viewers of SVG do not shrink it."""
        drawn = self.svg()
        size = _SIZE.search(drawn)
        if size is None:
            return drawn
        width, height = float(size[1]), float(size[2])  # in points, of which three are four pixels
        scale = min(4 / 3, max(NOTEBOOK / width, 2 / 3))
        old, new = f'{size[1]}pt" height="{size[2]}pt"', f'{width * scale:.0f}" height="{height * scale:.0f}"'
        return drawn[: size.start()] + size[0].replace(old, new) + drawn[size.end() :]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        """For notebooks: HTML with the picture inside, SVG, and plain text, which says in words what it can.

        HTML is as wide as its page where that is narrower, down to half its size; from there on it scrolls.
        """
        bundle = {"text/plain": f"{self!r}\n{self.text}".rstrip("\n")}
        try:
            drawn = self.svg()
        except LayoutError as error:
            bundle["text/html"] = f"<pre>{html(error, 400)}</pre>"
            return bundle
        size = _SIZE.search(drawn)
        style = f"max-width:100%;height:auto;min-width:{float(size[1]) / 2:.0f}pt" if size else ""
        inner = f'<svg style="{style}"' + drawn[drawn.index("<svg") + 4 :]
        bundle["text/html"] = f'<div style="overflow-x:auto;background:#ffffff">{inner}</div>'
        bundle["image/svg+xml"] = self._repr_svg_()
        return bundle


def checked_width(width: int) -> int:
    """Raises InputError for a PNG that nobody can mean."""
    if not 50 <= width <= 8000:
        raise InputError(f"png: width = {width!r}; give 50 to 8000 pixels")
    return width
