"""Makes the parts of Graphviz's SVG known to a page: what can be pointed at, in which step, and what is said of it.

Graphviz writes groups with ids of its own, comments, fonts at every word and links without
a target.  Here boxes and lines get a title, a role and their place in time; the rest goes.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..language.scale import INK, mix
from ..language.text import clean

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
READABLE = 4.5  # contrast that WCAG 2 asks of text
DROPPED = ("id", "font-family", f"{XLINK}title", "target")


@dataclass(frozen=True)
class Known:
    """What a box shows: its step, what is said of it, and whether it is a whole step."""

    t: int | None
    said: str
    step: bool = False


@dataclass
class Parts:
    """By the ids in the DOT text: boxes and frames; by their number: lines as (said, beat, step).

    alone : the step to which every box of the picture belongs.
    """

    nodes: Mapping[str, Known]
    edges: Sequence[tuple[str, int, int | None]]
    alone: int | None = None


def annotate(svg: str, parts: Parts, title: str) -> str:
    """The SVG with known parts, without what only Graphviz needs."""
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    for parent in root.iter():
        parent.tag = parent.tag.removeprefix(SVG)
    frame = next(g for g in root if g.get("class") == "graph")
    for g in list(frame):
        if g.tag == "title":
            frame.remove(g)
        elif g.tag == "g" and g.get("class") in ("node", "edge", "cluster"):
            _one(g, parts)
        elif len(g) == 1 and g[0].tag == "a":  # the paper
            g[:] = list(g[0])
    for e in root.iter():
        for name in DROPPED:
            e.attrib.pop(name, None)
        if e.get("fill") == "transparent":
            e.set("fill", "none")
        if e.get("stroke") == "transparent":
            e.set("stroke", "none")
        if e.tag == "text":
            e.set("fill", readable(e.get("fill", "#000000")))
        e.tail = None
        if e.text is not None and not e.text.strip():
            e.text = None
    said = ElementTree.Element("title")
    said.text = title
    root.insert(0, said)
    root.attrib |= {"xmlns": SVG[1:-1], "class": "picture", "role": "group", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode")


def _one(g: ElementTree.Element, parts: Parts) -> None:
    """A box, a line or a frame."""
    kind, number = g.get("class"), g.get("id", "")
    key = "".join(next((e for e in g if e.tag == "title"), g).itertext()).strip()
    tip = _unwrap(g)
    _join_cells(g)
    known = parts.nodes.get(key)
    said, t = tip, parts.alone
    if kind == "edge":
        place = int(number.removeprefix("edge") or 0) - 1
        if 0 <= place < len(parts.edges):
            said, beat, t = parts.edges[place]
            if beat:
                g.set("data-beat", str(beat))
    elif known is not None:
        said, t = known.said, known.t
        g.set("data-key", key.removeprefix("cluster "))
        if known.step:
            g.set("class", "step")
    elif kind == "cluster" or parts.alone is None or not tip:
        g.set("class", "loose")
        return
    if not said:
        return
    if t is not None:
        g.set("data-t", str(t))
    if kind != "edge":
        g.set("role", "button" if t is not None else "img")
        g.set("tabindex", "-1")
    title = ElementTree.Element("title")
    title.text = clean(said, 200)
    g.insert(0, title)


def _unwrap(g: ElementTree.Element) -> str:
    """Take the shapes out of Graphviz's link and drop its title; returns what the link said."""
    tip, kept = "", []
    for e in g:
        inner = e[0] if e.tag == "g" and len(e) == 1 and e[0].tag == "a" else None
        if inner is not None:
            tip = inner.get(f"{XLINK}title", "")
            kept += list(inner)
        elif e.tag != "title":
            kept.append(e)
    g[:] = kept
    return tip


def _join_cells(g: ElementTree.Element) -> None:
    """Graphviz draws a coloured cell as a filled polygon and its border as another: one is enough."""
    kept: list[ElementTree.Element] = []
    for e in g:
        if kept and _frames(e, kept[-1]):
            e.set("fill", kept.pop().get("fill", "none"))
        kept.append(e)
    g[:] = kept


def _frames(border: ElementTree.Element, fill: ElementTree.Element) -> bool:
    """Whether one polygon, without a fill, is the border of another, without a border: to a point."""
    if (
        not border.tag == fill.tag == "polygon"
        or border.get("fill") != "none"
        or fill.get("stroke") != "transparent"
    ):
        return False
    a, b = (
        sorted(tuple(map(float, p.split(","))) for p in set(e.get("points", "").split()))
        for e in (border, fill)
    )
    apart = (abs(x - y) for p, q in zip(a, b, strict=False) for x, y in zip(p, q, strict=True))
    return len(a) == len(b) and all(d <= 1.01 for d in apart)


def contrast(a: str, b: str) -> float:
    """The ratio of two colours by WCAG 2, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def readable(colour: str) -> str:
    """A colour for text on paper: as it is, or darker; white stands on dark cells and stays."""
    if not colour.startswith("#") or len(colour) != 7 or colour == "#ffffff":
        return colour
    found, share = colour, 0.0
    while contrast(found, "#ffffff") < READABLE and share < 1:
        share += 0.1
        found = mix(colour, INK, share)
    return found
