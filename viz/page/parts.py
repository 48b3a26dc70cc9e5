"""Graphviz's SVG made fit for a page: without what only Graphviz needs, and with words that can be read."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from ..language.scale import INK, mix

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
READABLE = 4.5  # contrast that WCAG 2 asks of text
DROPPED = ("id", "font-family", f"{XLINK}title", f"{XLINK}href", "target")


def cleaned(svg: str, title: str) -> str:
    """The SVG as one picture that is called `title`; what stood in links keeps its tooltip."""
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    for parent in root.iter():
        parent.tag = parent.tag.removeprefix(SVG)
    for parent in root.iter():
        for e in [e for e in parent if e.tag == "title"]:  # Graphviz's own names
            parent.remove(e)
    for e in root.iter():
        if e.tag == "a":
            e.tag, tip = "g", e.get(f"{XLINK}title")
            if tip:
                said = ElementTree.Element("title")
                said.text = tip
                e.insert(0, said)
        for name in DROPPED:
            e.attrib.pop(name, None)
        for name in ("fill", "stroke"):
            if e.get(name) == "transparent":
                e.set(name, "none")
        if e.tag == "text":
            e.set("fill", readable(e.get("fill", "#000000")))
        e.tail = None
        if e.text is not None and not e.text.strip():
            e.text = None
    root.attrib |= {"xmlns": SVG[1:-1], "class": "picture", "role": "img", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode")


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
