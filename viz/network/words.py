"""What is said of transport in words: how much a step carries back, how fast it fades, where it is cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..drawing.style import clean, number, pretty
from ..graphs.transport import Transport


def factor(value: float) -> str:
    """× 0.5: a part of the gradient of the next step."""
    return f"× {number(value)}"


def headline(transport: Transport) -> str:
    """How much a step carries back, over the stretches without a cut; what own losses add; the cuts."""
    who = f"{clean(transport.band)}: " if transport.band else ""
    said = [carried(transport.factors()) or "Nothing is carried back from step to step."]
    lives = [s.half_life for s in transport.stretches if s.half_life is not None and len(s.links) > 1]
    if lives:
        above = ", with what comes by the layer above" if transport.from_above else ""
        said.append(f"{half_lives(lives)}{above}.")
    said += [entered(transport), cuts(transport)]
    return who + " ".join(filter(None, said))


def carried(factors: Sequence[float], where: str = "back") -> str:
    """A step carries × 0.5 of it back (0.48 … 0.53)."""
    good = sorted(f for f in factors if np.isfinite(f))
    if not good:
        return "What is carried back is not a number." if factors else ""
    middle, ends = number(float(np.median(good))), [number(good[0]), number(good[-1])]
    over = "" if len(good) == 1 else ", at every step" if ends[0] == ends[1] else f" ({ends[0]} … {ends[1]})"
    bad = " At some steps it is not a number." if len(good) < len(factors) else ""
    return f"A step carries × {middle} of the gradient {where}{over}.{bad}"


def half_lives(lives: Sequence[float]) -> str:
    """Half-life 1.0 steps, or of stretches that differ: 1.0 … 3.2 steps."""
    said: dict[str, list[str]] = {}
    for v in sorted(lives, key=abs):
        kind = "Keeps its size" if abs(v) > 1e4 else "Half-life" if v > 0 else "Doubles every"
        said.setdefault(kind, []).append("" if abs(v) > 1e4 else number(abs(v)))
    parts = []
    for kind, found in said.items():
        ends = list(dict.fromkeys([found[0], found[-1]]))
        parts.append(f"{kind} {' … '.join(ends)} step{'s' * (ends != ['1'])}" if ends[0] else kind)
    return "; ".join([parts[0], *(p[0].lower() + p[1:] for p in parts[1:])])


def entered(transport: Transport) -> str:
    """What each step's own loss adds, as norms."""
    found = {t: v for t, v in sorted(transport.added.items()) if v}
    if not found:
        return ""
    above = " with the layer above" if transport.from_above else ""
    sizes = [number(v) for v in found.values()]
    if len(found) < 3:
        times = " and ".join(f"t = {t}" for t in found)
        return f"Loss{'es' * (len(found) > 1)}{above} at {times} alone: {' and '.join(sizes)}."
    low, high = number(min(found.values())), number(max(found.values()))
    adds = f"adds {low}" if low == high else f"adds {low} … {high}"
    return f"Each step's own loss{above} {adds}."


def cuts(transport: Transport) -> str:
    """Between which steps nothing comes back, or not to one of the states."""
    found: dict[tuple[str, ...], list[str]] = {}
    for link in transport.links:
        if link.cut:
            key = () if link.is_cut else tuple(link.cut)
            found.setdefault(key, []).append(f"t = {link.after} and {link.t}")
    said = []
    for names, places in found.items():
        what = " and ".join(map(pretty, names))
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        said.append(f"✂ {what + ' is cut' if what else 'Cut'} between {', '.join(places[:3])}{more}.")
    return " ".join(said)
