"""A sheet with given positions: boxes, panels, lines and words, written as DOT for `neato -n2`.

An unrolled recurrence has a known grid, so the views say where everything
stands and Graphviz only draws.  Coordinates are points, x to the right and y
DOWN from the top left corner, as one reads; `dot` turns them over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import graphviz

from ..language.catalogue import tr
from ..language.scale import FAINT, FONT, INK, PANEL, Stroke
from ..language.text import Keys, clean, plain
from .markup import node_label, text

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A placed node: its id and its rectangle."""

    key: str
    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def x(self) -> float:
        return self.left + self.width / 2

    @property
    def y(self) -> float:
        return self.top + self.height / 2


class Canvas:
    """Collects what is drawn and writes it as one DOT text."""

    def __init__(self, title: str):
        self.title = title
        self.panels: list[
            tuple[str, Box, str, str, float]
        ] = []  # in the order in which they cover each other
        self.nodes: dict[str, list[tuple[str, dict]]] = {"": []}  # by panel
        self.edges: list[tuple[str, str, dict, Sequence[Point], Point | None]] = []
        self.key = Keys().fresh

    def panel(
        self,
        key: str,
        left: float,
        top: float,
        width: float,
        height: float,
        label: str,
        fill=PANEL,
        at: float | None = None,
    ) -> str:
        """A frame behind the boxes put into it, a cluster in the DOT text; at: the x of its label."""
        name = self.key(key)
        self.panels.append(
            (name, Box(name, left, top, width, height), label, fill, left + 30 if at is None else at)
        )
        self.nodes[name] = []
        return name

    def box(
        self, key: str, left: float, top: float, width: float, height: float, rows: Sequence[str] | str = "",
        panel: str = "", tooltip: str = "", border: float = 1.2, colour: str = INK, fill: str = "#ffffff",
        dash: str = "solid", rounded: bool = True,
    ) -> Box:  # fmt: skip
        """A rectangle with HTML-like rows in it, each a centred line of markup made by style.py."""
        name = self.key(key)
        style = ",".join(["filled", *["rounded"] * (rounded and border > 0), *[dash] * (dash != "solid")])
        attributes = {
            "label": node_label([rows] if isinstance(rows, str) else rows), "shape": "box",
            "style": style, "penwidth": f"{border:g}",
            "color": colour if border else fill, "fillcolor": fill, "tooltip": plain(tooltip or tr(key)),
            "width": f"{width / 72:.4f}", "height": f"{height / 72:.4f}",
        }  # fmt: skip
        box = Box(name, left, top, width, height)
        self.nodes[panel].append((name, attributes | {"pos": (box.x, box.y)}))
        return box

    def words(
        self, x: float, y: float, content: str, size: float = 9, colour: str = INK, bold: bool = False,
        align: str = "center", panel: str = "", longest: int = 120, paper: str = "",
    ) -> None:  # fmt: skip
        """Text at (x, y): its middle, or its left or right end."""
        # Width by the widest font that may stand in; alignment is done inside a fixed cell.
        width = 0.68 * size * max(1, len(clean(content, longest))) + 4
        centre = x + {"center": 0, "left": width / 2, "right": -width / 2}[align]
        line = text(content, size, colour, bold, longest)
        paper = f' BGCOLOR="{paper}"' if paper else ""
        if align == "center":
            markup = (
                f'<<TABLE BORDER="0" CELLBORDER="0" CELLPADDING="0"{paper}><TR><TD>{line}</TD></TR></TABLE>>'
            )
        else:
            markup = (
                '<<TABLE BORDER="0" CELLBORDER="0" CELLPADDING="0" CELLSPACING="0"><TR>'
                f'<TD FIXEDSIZE="TRUE" WIDTH="{width:.0f}" HEIGHT="{size * 1.5:.0f}" ALIGN="{align.upper()}">'
                f"{line}</TD></TR></TABLE>>"
            )
        name = self.key("text " + content[:24])
        self.nodes[panel].append(
            (
                name,
                {
                    "label": markup,
                    "shape": "plain",
                    "tooltip": plain(content),
                    "width": "0",
                    "height": "0",
                    "pos": (centre, y),
                },
            )
        )

    def line(
        self, source: str, target: str, points: Sequence[Point], stroke: Stroke, tooltip: str = "",
        arrow: str = "end", label: str = "", at: Point | None = None, small: bool = False,
    ) -> None:  # fmt: skip
        """A line through `points` with rounded corners; arrow: "end", "start" or "none"."""
        attributes = {
            "color": stroke.colour, "penwidth": f"{stroke.width:g}", "style": stroke.dash,
            "tooltip": plain(tooltip),
            "dir": {"end": "forward", "start": "back", "none": "none"}[arrow],
            "arrowsize": f"{0.5 + 0.05 * stroke.width:.2f}",
        }  # fmt: skip
        if label:
            attributes |= {"label": f"<{text(label, 7.5 if small else 8.5, INK, True)}>"}
        self.edges.append((source, target, attributes, points, at))

    def picture_text(self) -> str:
        """All of it as DOT."""
        bottom = max(
            [p[1].bottom for p in self.panels]
            + [n[1]["pos"][1] for nodes in self.nodes.values() for n in nodes]
        )
        graph: Any = graphviz.Digraph(
            "minigrad", comment="Positions are given: lay out with neato -n2.", strict=False
        )
        graph.attr(
            "graph", bgcolor="white", pad="0.15", outputorder="edgesfirst", splines="true", fontname=FONT,
            tooltip=plain(self.title),
        )  # fmt: skip
        graph.attr("node", fontname=FONT, fixedsize="true", margin="0", fontsize="9")
        graph.attr("edge", fontname=FONT, fontsize="9")
        for name, box, label, fill, at in self.panels:
            with graph.subgraph(name=f"cluster {name}") as cluster:
                cluster.attr(
                    label=f"<{text(label, 12, INK, True)}>" if label else "",
                    style="rounded,filled", fillcolor=fill, color=FAINT if label else fill,
                    bb=f"{box.left:.1f},{bottom - box.bottom:.1f},{box.right:.1f},{bottom - box.top:.1f}",
                    lp=f"{at:.1f},{bottom - box.top - 11:.1f}", tooltip=plain(label),
                )  # fmt: skip
                self._put(cluster, name, bottom)
        self._put(graph, "", bottom)
        for source, target, attributes, points, at in self.edges:
            turned = [(x, bottom - y) for x, y in points]
            if at is not None:
                attributes["lp"] = f"{at[0]:.1f},{bottom - at[1]:.1f}"
            pos = spline(turned, attributes["dir"], float(attributes["penwidth"]))
            graph.edge(source, target, pos=pos, **attributes)
        return graph.source

    def _put(self, into, panel: str, bottom: float) -> None:
        """The nodes of one panel, turned over."""
        for name, attributes in self.nodes[panel]:
            x, y = attributes["pos"]
            rest = {k: v for k, v in attributes.items() if k != "pos"}
            if rest["shape"] == "plain":
                rest |= {"fixedsize": "false"}
            into.node(name, pos=f"{x:.1f},{bottom - y:.1f}!", **rest)


def spline(points: Sequence[Point], direction: str, width: float = 1.0) -> str:
    """Graphviz's spline text of a polyline: corners rounded, the end pulled back for the arrow head."""
    points = [p for k, p in enumerate(points) if k == 0 or p != points[k - 1]]
    head, tail = "", ""
    gap = 10 * (0.5 + 0.05 * width) - 0.4  # the length of the arrow head, see `line`
    if direction == "forward":
        head = f"e,{points[-1][0]:.1f},{points[-1][1]:.1f} "
        points = [*points[:-1], _towards(points[-1], points[-2], gap)]
    elif direction == "back":
        tail = f"s,{points[0][0]:.1f},{points[0][1]:.1f} "
        points = [_towards(points[0], points[1], gap), *points[1:]]
    path = [points[0]]
    for k in range(1, len(points) - 1):
        before, corner, after = points[k - 1], points[k], points[k + 1]
        radius = min(7.0, _distance(before, corner) / 2, _distance(corner, after) / 2)
        start, end = _towards(corner, before, radius), _towards(corner, after, radius)
        path += [*_straight(path[-1], start), start, _mid(start, corner), _mid(corner, end), end]
    path += [*_straight(path[-1], points[-1]), points[-1]]
    return head + tail + " ".join(f"{x:.1f},{y:.1f}" for x, y in path)


def _distance(a: Point, b: Point) -> float:
    return ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5


def _towards(a: Point, b: Point, by: float) -> Point:
    share = by / (_distance(a, b) or 1.0)
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _mid(a: Point, b: Point) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _straight(a: Point, b: Point) -> list[Point]:
    """The two control points of a straight piece."""
    return [_towards(a, b, _distance(a, b) / 3), _towards(a, b, 2 * _distance(a, b) / 3)]
