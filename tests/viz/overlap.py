"""Finds texts of a picture that lie on each other or on the border of a box, from the layout that Graphviz made."""

from __future__ import annotations

import json
from dataclasses import dataclass

from viz.diagram.render import Diagram, _graphviz

SLACK = 1.0  # points: what two texts may share without being seen


@dataclass(frozen=True)
class Area:
    text: str
    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Area) -> bool:
        across = min(self.right, other.right) - max(self.left, other.left)
        up = min(self.top, other.top) - max(self.bottom, other.bottom)
        return across > SLACK and up > SLACK

    def holds(self, other: Area) -> bool:
        return (
            self.left <= other.left + SLACK and other.right <= self.right + SLACK
            and self.bottom <= other.bottom + SLACK and other.top <= self.top + SLACK
        )  # fmt: skip


def overlaps(picture: Diagram) -> list[str]:
    """What lies on what, in words; [] where all can be read."""
    drawn = json.loads(_graphviz(picture.dot, "json", picture.engine, picture.time_limit))
    texts: list[Area] = []
    boxes: list[Area] = []
    for thing in [*drawn.get("objects", ()), *drawn.get("edges", ())]:
        texts += _texts(thing.get("_ldraw_", ()))
        if thing.get("shape") == "box" and float(thing.get("penwidth", 1)) > 0:
            boxes += _boxes(thing)
    texts = [t for t in texts if t.text.strip()]
    said = []
    by_place = sorted(texts, key=lambda t: t.left)
    for k, a in enumerate(by_place):
        for b in by_place[k + 1 :]:
            if b.left > a.right:
                break
            if a.meets(b):
                said.append(f"{a.text!r} lies on {b.text!r}")
    for t in texts:
        said += [
            f"{t.text!r} lies on the border of {b.text!r}" for b in boxes if b.meets(t) and not b.holds(t)
        ]
    return said


def _texts(operations) -> list[Area]:
    """Letters stand on a base line: most reach 0.75 of their size above it and 0.2 below."""
    found, size = [], 14.0
    for o in operations:
        if o["op"] == "F":
            size = o["size"]
        elif o["op"] == "T":
            x, y = o["pt"]
            left = x - o["width"] * {"l": 0.0, "c": 0.5, "r": 1.0}[o["align"]]
            found.append(Area(o["text"], left, y - 0.2 * size, left + o["width"], y + 0.75 * size))
    return found


def _boxes(thing) -> list[Area]:
    x, y = map(float, thing["pos"].rstrip("!").split(","))
    width, height = 36 * float(thing["width"]), 36 * float(thing["height"])
    return [Area(thing["name"], x - width, y - height, x + width, y + height)] if width > 1 else []
