"""The gradient that flows back through time: how much arrives at each state, and by which way.

Bars on the logarithmic scale say how large it is; below, the gradient of each state is split: from
the loss, from the same step, and from the next step through each of its gates.  Headlines and arrows
speak of transport: which part of the next step's gradient arrives.
"""

from __future__ import annotations

import math

import numpy as np

from minigrad import Tensor

from ..language.catalogue import tr
from ..language.picture import Picture
from ..language.scale import Scale
from ..language.status import CUT, EXPLODES, NOT_A_NUMBER, NOT_COMPUTED, UNKNOWN, VANISHED
from ..language.text import pretty
from ..measure import words
from ..measure.links import Link, Transport
from ..measure.transport import transports
from ..measure.ways import FROM_LOSS, STRAIGHT, State, arrays, carried, split, told
from ..read.network import Captions, Network, read, roots_of
from ..read.titles import heading
from .figure import Chart
from .panels import (
    NOT_YET,
    Axis,
    Dots,
    Heat,
    Line,
    Panel,
    Plot,
    Sheet,
    Words,
    gradient_cell,
    gradient_panel,
)
from .steps import captions_of, drawn, sampled

__all__ = ["FROM_LOSS", "STRAIGHT", "gradient", "split"]


def gradient(
    what: Tensor | list, steps: list | None = None, *, title: str = "", scale: Scale | None = None,
    captions: Captions | None = None,
) -> Picture:  # fmt: skip
    """How much gradient arrives at every carried state, step by step, and by which way it came.

    what : the loss (or any tensor) after ``loss.backward(record=True)``, or the steps.
    steps, title, scale, captions : as for `draw`.

    Raises InputError where there is no recurrence to look at.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    names = carried("gradient", network)
    assert network is not None
    every = sorted({*network.times, *(g.t for g in network.first.values())})
    times, stride = drawn(every)
    states = [split(network, *which, times) for which in names]
    numbers = [v for s in states for own in (s.total, *s.parts.values()) for v in own.values() if v]
    scale = scale or Scale.of(numbers)
    found = {one.band: one for one in transports(network)}
    panels: list[list[Panel]] = []
    for state in states:
        panels += [[p] for p in _panels(network, state, found.get(state.band), scale)]
    lines = [*heading(network), tr("Bars: ‖∂L/∂state‖, over all sequences, on a logarithmic scale. Arrows: the way back from "
        'step t + 1 to step t. Rows: by which way it came.')]  # fmt: skip
    headlines = [*map(words.headline, found.values()), words.inputs_cut(network)]
    sheet = Sheet(
        title or tr("The gradient on its way back through time"), panels, [*lines, *sampled(stride, len(every))],
        [said for said in headlines if said], scale, notes=_notes(network, bool(found), states),
    )  # fmt: skip
    return Chart(sheet, arrays(states))


def _notes(network: Network, arrows: bool, states: list[State]) -> list[str]:
    ways = dict.fromkeys(w for s in states for w in s.ways)
    gate = next((w for w in ways if w.startswith("through ")), "")
    named = [tr("“straight along”: element by element from the next step's state.")] * (STRAIGHT in ways)
    named += [
        tr("“{way}”: by way of {gate} of step t + 1.", way=told(gate), gate=gate.removeprefix("through "))
    ] * bool(gate)
    blank = [t for s in states for t in s.times if any(s.parts[w].get(t) is None for w in s.ways)]
    return [
        tr("The parts are vectors: their norms do not add up to the norm of the sum.")
        if network.computed
        else tr(UNKNOWN),
        *named,
        *map(tr, [*words.TO_STATES, words.CARRIED] * arrows),
        *[tr("Blank: nothing can come that way at that step (no loss of its own, no later step, a cut).")]
        * bool(blank),
        *[tr("–: no gradient arrives at that step.")]
        * any(s.total.get(t, 0.0) is None for s in states for t in s.times),
    ]


def _panels(network: Network, state: State, transport: Transport | None, scale: Scale) -> list[Panel]:
    """Bars, the lane with its arrows, and the rows by way, of one state."""
    columns = [str(t) for t in state.times]
    known = {t: v for t in state.times if (v := state.total.get(t)) is not None}
    sizes_ = np.array([known.get(t, math.nan) for t in state.times])
    who = f"{state.band}: " if state.band else ""
    bars = gradient_panel(
        f"{who}∂L/∂{pretty(state.name)}", _verdict(network, state, transport, known, scale), sizes_, scale, ()
    )
    bars.x = Axis(0, len(columns), ticks=())
    for k, t in enumerate(state.times):
        if t in state.total and not known.get(t):
            said = "0" if t in known else "–"
            bars.marks.append(
                Words(k + 0.5, bars.y.low * (bars.y.high / bars.y.low) ** 0.08, said, bold=True)
            )
    rows = [
        [
            gradient_cell(v := state.parts[way].get(t), scale, None if v is not None else "")
            for t in state.times
        ]
        for way in state.ways
    ]
    names = [
        tr("straight along {state}", state=pretty(state.name)) if way == STRAIGHT else told(way)
        for way in state.ways
    ]
    return [
        bars,
        _lane(network, state, transport, scale),
        Heat(rows, names, columns, captions_of(network, state.times)),
    ]


def _lane(network: Network, state: State, transport: Transport | None, scale: Scale) -> Plot:
    """Steps as dots, and from each the arrow back to the one before, with the part that it carries."""
    lane = Plot(
        [], Axis(0, len(state.times)), Axis(-1, 2), height=26, grid=False, label=tr("a step carries back")
    )
    # A layer that reads the sequence from its end: its gradient flows to the right.
    mirrored = state.band in network.mirrored
    for k in range(len(state.times) - 1):
        t = state.times[k + mirrored]
        if t not in state.total or state.times[k + 1 - mirrored] not in state.total:
            continue
        value, link = state.next_step.get(t), _link(transport, t)
        cut = link is not None and state.name in link.cut
        stroke = scale.stroke(value, CUT if cut else NOT_COMPUTED if value is None else None)
        part = link.by_state.get(state.name) if link is not None and not cut else None
        label = tr("✂ cut") if cut else words.factor(part) if part is not None else stroke.mark
        ends = [k + 1.42, k + 0.58] if not mirrored else [k + 0.58, k + 1.42]
        lane.marks.append(Line(ends, [0, 0], stroke, arrow=True, label=label))
    there = [k + 0.5 for k, t in enumerate(state.times) if t in state.total]
    lane.marks.append(Dots(there, [0.0] * len(there), ["#1b1b1b"] * len(there), 7.0, hollow=True))
    return lane


def _link(transport: Transport | None, t: int) -> Link | None:
    return next((x for x in transport.links if x.t == t), None) if transport is not None else None


def _verdict(
    network: Network, state: State, transport: Transport | None, known: dict[int, float], scale: Scale
) -> str:
    """In words: what happens between the last step and the first."""
    if not known:
        return tr(NOT_YET)
    bad = [t for t, v in known.items() if scale.status(v) == NOT_A_NUMBER]
    if bad:
        return tr("not a number from t = {last} back to t = {first}", last=max(bad), first=min(bad))
    positive = {t: v for t, v in known.items() if v > 0}
    if len(positive) < 2:
        return tr("exactly zero") + (
            tr(" except at t = {t}", t=next(iter(positive))) if positive else tr(" everywhere")
        )
    memory = state.name in network.memory[state.band] and (transport is None or transport.leads(state.name))
    said = [tr("Memory line.")] * memory
    if transport is not None and len(transport.states) > 1:  # of a single state the headline says it
        said.append(words.carried(transport.factors(state.name), pretty(state.name)))
    for kind in (VANISHED, EXPLODES):
        times = [t for t, v in positive.items() if scale.status(v) == kind]
        if times:
            said.append(
                tr(
                    "It has {kind} at t = {times}.",
                    kind=tr(kind),
                    times=" … ".join(dict.fromkeys(map(str, (min(times), max(times))))),
                )
            )
    return " ".join(said)
