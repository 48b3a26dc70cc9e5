"""Which steps are drawn, and what a fold holds: one rule for every picture that shows single steps.

Few steps are drawn whole.  Of more, both ends are drawn and every step at which something happens: a cut, a
gradient that becomes exactly zero, NaN or missing (or stops being so), a mask that changes, the largest and
the smallest of everything that the picture speaks of.  No fold hides fewer than three steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from ..language.catalogue import deferred, tr
from ..language.text import number, pretty
from ..read.network import QUANTITY, Group, Network, gradient_status
from .links import Transport
from .recurrence import real_sequences
from .transport import transports

WHOLE, MOST, LEAST_FOLD = 8, 12, 3  # steps that are drawn whole; with events among them; that a fold hides


def steps_shown(network: Network, whole: int = WHOLE, most: int = MOST, gates: bool = True) -> list[int]:
    """The steps to draw: all up to `whole`, else the ends and what happens, at most `most` (but at least one).

    gates : whether the picture shows what is computed within a step, and not the states alone.
    """
    times, most = network.times, max(1, most)
    if len(times) <= min(whole, most):
        return times
    kept: list[int] = []
    # The end is where the gradient comes from: with a single step to show, show that.
    ends = [times[-1], times[0], times[-2], times[1]][: max(1, whole // 2)]
    for k, t in enumerate([*ends, *(_events(network, gates) if whole > 1 else ())]):
        wider = _without_small_folds(times, {*kept, t})
        if len(wider) <= most or k == 0:
            kept = wider if len(wider) <= most else [t]
    return kept


def folds(times: Sequence[int], shown: Sequence[int]) -> list[list[int]]:
    """The runs of steps that are not drawn."""
    return [list(run) for hidden, run in groupby(times, lambda t: t not in shown) if hidden]


def _without_small_folds(times: Sequence[int], kept: Iterable[int]) -> list[int]:
    kept = set(kept)
    small = [t for fold in folds(times, sorted(kept)) if len(fold) < LEAST_FOLD for t in fold]
    return [t for t in times if t in kept or t in small]


def _events(network: Network, gates: bool) -> list[int]:
    """Steps at which something happens, what matters most first; each once."""
    found = [t for one in transports(network) for link in one.links if link.cut for t in (link.after, link.t)]
    rows = _rows(network, gates)
    for states in (_kinds(network, groups) for groups in rows):
        found += [
            b
            for a, b in zip(network.times, network.times[1:], strict=False)
            if states.get(a) != states.get(b)
        ]
    measured = [_sizes(network, groups) for groups in rows]
    measured += [
        {x.after: x.factor for x in one.links if x.factor is not None} for one in transports(network)
    ]
    for sizes in measured:
        good = {t: v for t, v in sizes.items() if np.isfinite(v) and v > 0}
        if good:
            found += [max(good, key=lambda t, g=good: g[t]), min(good, key=lambda t, g=good: g[t])]
    return list(dict.fromkeys(t for t in found if t in network.times))


def _rows(network: Network, gates: bool) -> list[dict[int, Group]]:
    """What a picture speaks of, each by step: states first, then inputs, outputs and gates."""
    states: dict[tuple, dict[int, Group]] = {}
    others: dict[tuple, dict[int, Group]] = {}
    for (band, t), groups in network.cells.items():
        for g in groups:
            if g.kind == QUANTITY and (gates or g.name in network.carried[band]):
                into = states if g.name in network.carried[band] else others
                into.setdefault((band, g.name), {})[t] = g
    inputs: dict[tuple, dict[int, Group]] = {}
    for (band, t), groups in network.inputs.items():
        for k, g in enumerate(groups):
            inputs.setdefault((band, k), {})[t] = g
    return [*states.values(), *inputs.values(), *[network.outputs] * bool(network.outputs), *others.values()]


def _sizes(network: Network, groups: dict[int, Group]) -> dict[int, float]:
    found = {t: gradient_status(network.statuses, g.out)[0] for t, g in groups.items()}
    return {t: v for t, v in found.items() if v is not None}


def _kinds(network: Network, groups: dict[int, Group]) -> dict[int, object]:
    """What a step's value and gradient are like: a change from one step to the next is an event."""
    found = {}
    for t, g in groups.items():
        size, why = gradient_status(network.statuses, g.out)
        value = g.out.value if not g.out.is_symbol and g.out.dtype.kind == "f" else np.zeros(0)
        mask = real_sequences(g.out)
        masked = "" if mask is None else mask.tobytes()
        bad = size is not None and not np.isfinite(size)
        found[t] = why, size == 0, bad, bool(np.isfinite(value).all()), masked
    return found


# What a fold holds.


def held(network: Network, band: str, hidden: Sequence[int], gates: bool) -> list[str]:
    """In lines: the range of each gradient over the hidden steps, and of each gate's values."""
    lines = []
    for groups in _rows(network, gates):
        own = {t: g for t, g in groups.items() if t in hidden and g.band in (band, "")}
        if not own:
            continue
        g = next(iter(own.values()))
        name = pretty(g.name or "x")
        if g.kind == QUANTITY and g.name not in network.carried[g.band]:
            means = [
                float(q.out.value.mean())
                for q in own.values()
                if not q.out.is_symbol and q.out.dtype.kind == "f"
            ]
            lines += [f"{name} {_range(means)}"] * bool(means)
        sizes, every = _sizes(network, own), _sizes(network, groups)
        ends = [
            tr(message, t=t)
            for message, pick in (
                (deferred("largest of all t = {t}"), max),
                (deferred("smallest of all t = {t}"), min),
            )
            if every and (t := pick(every, key=every.__getitem__)) in sizes and len(set(every.values())) > 1
        ]
        lines.append(
            f"∂{name} {_range(list(sizes.values()))}" if sizes else tr("∂{name} not computed", name=name)
        )
        lines += [f"({said})" for said in ends]
    return lines


def product(one: Transport, hidden: Sequence[int]) -> float | None:
    """The factor over a fold, as the product of its steps; None where one of them is cut or unknown."""
    factors = [x.factor for x in one.links if x.t in hidden and x.after in hidden]
    return None if not factors or None in factors else float(np.prod(np.array(factors, float)))


def _range(values: Sequence[float]) -> str:
    good = [v for v in values if np.isfinite(v)]
    ends = list(dict.fromkeys([number(min(good)), number(max(good))])) if good else []
    return " ".join([" … ".join(ends), "NaN"] if len(good) < len(values) else [" … ".join(ends)]).strip()
