"""HTML-like labels of Graphviz.  Only these functions write markup, and only from escaped text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..language.scale import INK, ink_on
from ..language.text import plain


def text(value: object, size: float = 9, colour: str = INK, bold: bool = False, longest: int = 60) -> str:
    """Escaped text with a size and a colour."""
    inner = plain(value, longest) or " "
    inner = f"<B>{inner}</B>" if bold else inner
    return f'<FONT POINT-SIZE="{size:g}" COLOR="{colour}">{inner}</FONT>'


def cell(content: str = "", **attributes: object) -> str:
    settings = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f"<TD{settings}>{content}</TD>"


def table(rows: Sequence[str], **attributes: object) -> str:
    """A table of finished rows (each a string of cells), without lines unless asked for."""
    settings = {"BORDER": 0, "CELLBORDER": 0, "CELLSPACING": 0, "CELLPADDING": 0} | attributes
    written = "".join(f' {key}="{value}"' for key, value in settings.items())
    return f"<TABLE{written}>" + "".join(f"<TR>{row}</TR>" for row in rows) + "</TABLE>"


def node_label(rows: Sequence[str], align: str = "", padding: int = 1) -> str:
    """The whole label of a node: finished rows below each other; "" where there are none."""
    where = f' ALIGN="{align}"' if align else ""
    body = "".join(f"<TR><TD{where}>{row}</TD></TR>" for row in rows if row)
    head = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="{padding}">'
    return f"<{head}{body}</TABLE>>" if body else ""


def square(colour: str, width: float, height: float, mark: str = "", size: float = 7) -> str:
    """One coloured cell, with an optional mark in it."""
    content = text(mark, size, ink_on(colour)) if mark else ""
    fixed = {"FIXEDSIZE": "TRUE", "WIDTH": f"{width:g}", "HEIGHT": f"{height:g}", "BGCOLOR": colour}
    return cell(content, BORDER=1, COLOR="#d5d9de", **fixed)


def strip(values: np.ndarray, width: float, height: float, colours, marks) -> str:
    """A small array (at most two axes matter) as rows of coloured cells, at most `width` points wide."""
    rows = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    size = max(1, math.floor(width / rows.shape[1]))
    seen = marks if size >= 7 else lambda _: ""  # a mark would hide its neighbours
    lines = ("".join(square(colours(v), size, height, seen(v)) for v in row) for row in rows.tolist())
    return table(list(lines))
