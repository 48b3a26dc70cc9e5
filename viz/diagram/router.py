"""Lines with right angles between boxes: ports shared out along each side, tracks shared out in each channel.

A route leaves one side of a box, runs through named corridors and enters a side
of another box.  Only when all routes are known does each get its own port on the
side and its own track in the corridor, so that no two lines lie on each other
and each keeps its own colour and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .canvas import Box, Point


@dataclass(frozen=True)
class Corridor:
    """A strip in which lines run side by side: across ("h", a y) or down ("v", an x)."""

    key: tuple
    way: str
    start: float  # where the first track lies
    pitch: float  # distance and direction to the next


@dataclass
class Route:
    source: Box
    leave: str  # left | right | top | bottom
    target: Box
    enter: str
    via: Sequence[Corridor] = ()
    lane: bool = False  # a straight line at the level of `at`
    at: float | None = None
    leave_at: float | None = None  # the x of an end at a top or bottom, where it may not be chosen freely
    enter_at: float | None = None
    what: object = None
    points: list[Point] = field(default_factory=list)


def lay(routes: list[Route]) -> None:
    """Give every route its points."""
    tracks = _tracks(routes)
    ports = _ports(routes)
    for k, route in enumerate(routes):
        start, end = ports[k, 0], ports[k, 1]
        if not route.via and route.leave_at is None and route.enter_at is None:
            start, end = _straighten(route, start, end)
        points = [start]
        for corridor in route.via:
            x, y = points[-1]
            place = tracks[k, corridor.key]
            points.append((x, place) if corridor.way == "h" else (place, y))
        x, y = points[-1]
        if not route.via and route.leave_at is not None and route.target.left < start[0] < route.target.right:
            end = (start[0], end[1])
        points.append((end[0], y) if route.enter in ("top", "bottom") else (x, end[1]))
        points.append(end)
        route.points = _without_detours(points)


def _tracks(routes: list[Route]) -> dict[tuple[int, tuple], float]:
    used: dict[tuple, list[tuple[float, int, Corridor]]] = {}
    for k, route in enumerate(routes):
        for corridor in route.via:
            used.setdefault(corridor.key, []).append((route.target.x, k, corridor))
    # The nearest target takes the first track, so that no line crosses one that goes further.
    return {
        (k, key): corridor.start + corridor.pitch * place
        for key, members in used.items()
        for place, (_, k, corridor) in enumerate(sorted(members, key=lambda m: (m[0], m[1])))
    }


def _ports(routes: list[Route]) -> dict[tuple[int, int], Point]:
    """Points on the sides of the boxes: lanes at their level, the others spread, sorted by where they go."""
    sides: dict[tuple[str, str], list[tuple[float, int, int, Box]]] = {}
    ports: dict[tuple[int, int], Point] = {}
    for k, route in enumerate(routes):
        for end, box, side, other in (
            (0, route.source, route.leave, route.target),
            (1, route.target, route.enter, route.source),
        ):
            if route.lane and route.at is not None:
                ports[k, end] = (box.right if side == "right" else box.left, route.at)
            elif (fixed := (route.leave_at, route.enter_at)[end]) is not None:
                ports[k, end] = (fixed, box.top if side == "top" else box.bottom)
            else:
                along = other.x if side in ("top", "bottom") else other.y
                sides.setdefault((box.key, side), []).append((along, k, end, box))
    for (_, side), members in sides.items():
        members.sort(key=lambda m: m[:3])
        taken = any(
            r.lane
            and (
                (r.source.key, r.leave) == (members[0][3].key, side)
                or (r.target.key, r.enter) == (members[0][3].key, side)
            )
            for r in routes
        )
        for place, (_, k, end, box) in enumerate(members):
            share = (place + 1) / (len(members) + 1)
            if side in ("top", "bottom"):
                ports[k, end] = (box.left + box.width * share, box.top if side == "top" else box.bottom)
            else:
                # Below the lane, which takes the middle.
                y = box.y + 7 + (box.height / 2 - 9) * share if taken else box.top + box.height * share
                ports[k, end] = (box.left if side == "left" else box.right, y)
    return ports


def _straighten(route: Route, start: Point, end: Point) -> tuple[Point, Point]:
    """A line without corridors between facing sides runs straight where the boxes overlap."""
    if {route.leave, route.enter} == {"top", "bottom"}:
        if (
            route.target.left + 4 <= start[0] <= route.target.right - 4
            and route.source.width <= route.target.width
        ):
            end = (start[0], end[1])
        elif route.source.left + 4 <= end[0] <= route.source.right - 4:
            start = (end[0], start[1])
        elif route.target.left + 4 <= start[0] <= route.target.right - 4:
            end = (start[0], end[1])
    return start, end


def _without_detours(points: list[Point]) -> list[Point]:
    """Without repeated points, and without corners on a straight line."""
    kept: list[Point] = []
    for p in points:
        if kept and abs(kept[-1][0] - p[0]) < 0.05 and abs(kept[-1][1] - p[1]) < 0.05:
            continue
        if len(kept) > 1 and (kept[-2][0] == kept[-1][0] == p[0] or kept[-2][1] == kept[-1][1] == p[1]):
            kept.pop()
        kept.append(p)
    return kept
