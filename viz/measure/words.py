"""What is said of transport in words: how much a step carries back, how fast it fades, where it is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..language.catalogue import deferred, listed, tr, trn
from ..language.status import CUT, NOT_COMPUTED
from ..language.text import clean, number, pretty
from ..read.network import Flow, Network
from .links import Transport


def factor(value: float) -> str:
    """×0.5: a part of the gradient of the next step."""
    return f"×{number(value)}"


def headline(transport: Transport) -> str:
    """How much a step carries back, over the stretches without a cut; what own losses add; the cuts."""
    return " ".join(sentences(transport))


def sentences(transport: Transport, own: bool = True) -> list[str]:
    """Those of the headline; own : with what each step's own loss adds."""
    who = f"{clean(transport.band)}: " if transport.band else ""
    said = [who + (carried(transport.factors()) or tr("Nothing is carried back from step to step."))]
    lives = [s.half_life for s in transport.stretches if s.half_life is not None and len(s.links) > 1]
    if lives:
        too = tr(", by way of other layers too") if transport.others else ""
        followed = transport.rows.losses if transport.rows is not None else []
        whose = tr("the loss of t = {t}", t=followed[0]) if len(followed) == 1 else tr("one loss")
        first = first_step(transport)
        falls = ""
        if first:
            falls = (
                tr("falls to × {factor} in its first step, then ", factor=number(first))
                if first < 1
                else tr("rises to × {factor} in its first step, then ", factor=number(first))
            )
        said.append(
            tr("What {whose} sends back {fades}{too}.", whose=whose, fades=falls + half_lives(lives), too=too)
        )
    return [s for s in [*said, entered(transport) if own else "", cuts(transport)] if s]


def first_step(transport: Transport) -> float | None:
    """What one step back leaves of a loss's own gradient, where later steps, whose half-life is told, leave another part.

    A loss may come in by a state that hands on little, and fade slowly once it has reached the memory.
    """
    rows, found, later = transport.rows, [], []
    if rows is None:
        return None
    for stretch in transport.stretches:
        for sizes in rows.back(stretch.times):
            if len(sizes) > 3 and np.isfinite(sizes).all() and (sizes > 0).all():
                found.append(sizes[1] / sizes[0])
                later.append((sizes[-1] / sizes[1]) ** (1 / (len(sizes) - 2)))
    if not found:
        return None
    first, rest = float(np.median(found)), float(np.median(later))
    return first if max(first, rest) > 1.6 * min(first, rest) else None


def inputs_cut(network: Network) -> str:
    """The steps at which the gradient is cut on its way to an input that gets one at others."""
    statuses = {
        t: network.statuses.get(g.out.number) == CUT for (_, t), own in network.inputs.items() for g in own
    }
    times = sorted(t for t, cut in statuses.items() if cut)
    if not times or len(times) == len(statuses):
        return ""
    more = tr(" and {n} more", n=len(times) - 3) if len(times) > 3 else ""
    return tr("✂ x is cut at t = {times}.", times=", ".join(map(str, times[:3])) + more)


def carried(factors: Sequence[float], to: str = "") -> str:
    """A step carries × 0.5 of the gradient back (0.48 … 0.53); to : the state, where it is that of one alone."""
    good = sorted(f for f in factors if np.isfinite(f))
    if not good:
        return tr("What is carried back is not a number.") if factors else ""
    middle, ends = number(float(np.median(good))), [number(good[0]), number(good[-1])]
    over = (
        "" if len(good) == 1 else tr(", at every step") if ends[0] == ends[1] else f" ({ends[0]} … {ends[1]})"
    )
    bad = tr(" At some steps it is not a number.") if len(good) < len(factors) else ""
    if to:
        return (
            tr(
                "A step carries × {factor} of the gradient to {state}{over}.",
                factor=middle,
                state=to,
                over=over,
            )
            + bad
        )
    return tr("A step carries × {factor} of the gradient back{over}.", factor=middle, over=over) + bad


def half_lives(lives: Sequence[float]) -> str:
    """halves every 2 steps; of stretches that differ: every 1 … 3.2 steps."""
    said: dict[str, list[float]] = {}
    for v in sorted(lives, key=abs):
        said.setdefault("" if abs(v) > 1e4 else "halves" if v > 0 else "doubles", []).append(v)
    parts = []
    for kind, found in said.items():
        ends = list(dict.fromkeys(number(abs(v)) for v in (found[0], found[-1])))
        steps, count = " … ".join(ends), 1 if ends == ["1"] else 2
        if not kind:
            parts.append(tr("keeps its size"))
        elif kind == "halves":
            parts.append(trn("halves every {steps} step", "halves every {steps} steps", count, steps=steps))
        else:
            parts.append(trn("doubles every {steps} step", "doubles every {steps} steps", count, steps=steps))
    return tr(" or ").join(parts)


def entered(transport: Transport) -> str:
    """What each step's own loss adds, as norms."""
    found = {t: v for t, v in sorted(transport.added.items()) if v}
    if not found:
        return ""
    if len(found) < min(3, len(transport.links)):
        sizes = listed(tr("{size} at t = {t}", size=number(v), t=t) for t, v in found.items())
        if transport.others:
            return tr("The loss and other layers add {sizes}, nothing elsewhere.", sizes=sizes)
        return tr("The loss adds {sizes}, nothing elsewhere.", sizes=sizes)
    ends = dict.fromkeys([number(min(found.values())), number(max(found.values()))])
    sizes = " … ".join(ends)
    if transport.others:
        return tr("Each step's own loss and other layers add {sizes}.", sizes=sizes)
    return tr("Each step's own loss adds {sizes}.", sizes=sizes)


def cuts(transport: Transport) -> str:
    """Between which steps nothing comes back, or not to one of the states."""
    found: dict[tuple[str, ...], list[str]] = {}
    for link in transport.links:
        if link.cut:
            key = () if link.is_cut else tuple(link.cut)
            found.setdefault(key, []).append(tr("t = {t} and {next}", t=link.after, next=link.t))
    said = []
    for names, places in found.items():
        what = listed(map(pretty, names))
        more = tr(" and {n} more", n=len(places) - 3) if len(places) > 3 else ""
        between = ", ".join(places[:3]) + more
        said.append(
            tr("✂ {states} is cut between {places}.", states=what, places=between)
            if what
            else tr("✂ Cut between {places}.", places=between)
        )
    return " ".join(said)


# In pictures.


def on_arrow(found: Mapping[str, Transport], f: Flow) -> tuple[str | None, str]:
    """Of an arrow between steps: why nothing flows along it, and its label ×0.5 (or ✂)."""
    one = found.get(f.target.band)
    if f.norm is None:
        links = one.links if one is not None else []
        cut = any(f.source.name in x.cut for x in links if (x.t, x.after) == (f.source.t, f.target.t))
        return (CUT, tr("✂ cut")) if cut or (one is None and f.status == CUT) else (NOT_COMPUTED, "")
    if one is not None and (f.target.t, f.target.name) in one.aside:
        return None, ""  # it comes from the loss, and is no part of what the states of that step hand back
    size = one.size.get(f.target.t) if one is not None else None
    return None, factor(f.norm / size) if size else ""


_ONCE = deferred("What passes from state to state within a step counts once: where it came in.")
ON_ARROWS = (
    deferred("×0.5 on an arrow: ‖what comes back along it‖ ÷ ‖gradient of all states of the later step‖."),
    _ONCE,
)
TO_STATES = (
    deferred(
        "×0.5 on an arrow: ‖what comes back to the state, all ways together‖ ÷ "
        "‖gradient of all states of the later step‖."
    ),
    _ONCE,
)
CARRIED = deferred(
    "“A step carries × 0.5 back (0.4 … 0.6)”: all states together, the median over the steps (least … most)."
)
