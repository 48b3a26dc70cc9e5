"""What is wrong with a network, and what to try: findings, each with its figures, from what was measured.

Every finding is a fault or a note.  The bounds stand at the top: a network at its usual start
keeps clear of them, and a planted fault passes them (both tested on every cell).
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from minigrad import Tensor

from ..language.catalogue import deferred, listed, tr, trn
from ..language.status import CUT, NORMAL, VANISHED_BELOW, ZERO
from ..language.text import clean, number, pretty
from ..read.network import gradient_of, step_of
from .health import FROZEN, Facts
from .recurrence import Decay

VANISHING_HALF_LIFE = 1.05  # steps; the usual starts have 1.1 (a basic layer with large inputs) and more
SHUT_HALF_LIFE = 0.5  # with gates, which can open: half open they have 1, beside a leak 0.7
VANISHING_LEFT = 1e-2  # over the whole sequence
# A network that has learned to hold its first input does send back more than arrived, as an LSTM of 12 steps with × 1.3
# per step (× 18 in all): it is the whole growth over the steps at hand that a learning rate has to bear.
EXPLODING_RATE, EXPLODING_GROWTH = np.log(1.25), 30.0  # both passed; or
SLOW_RATE, SLOW_GROWTH = np.log(1.05), 1e3  # both of these
GROWING = 10.0  # at a rate that will explode over more steps
MANY_STEPS = 100
LARGE_RADIUS = 1.4  # of the recurrent weights of a cell without gates
SATURATED_SHARE = 0.8  # of the units of a gate, over all steps; trained networks do have a half
SQUASHED_SHARE = 0.95  # of what is inside a quantity, as the tanh of a memory that has been filled
DEAD_SHARE, OFF_SHARE, ENOUGH = 0.1, 0.5, 8  # shares of units; samples needed to tell
DEPTH_LEFT, DEPTH_GROWN = 1e-4, 1e4  # across the layers of a network


TRY = {
    "not computed": deferred("Run loss.backward(record=True) first."),
    "not a number": deferred(
        "A smaller learning rate, clipping (fit(clip=1)), a look at the data; minigrad.anomaly() "
        "stops where it arises."
    ),
    "zero": deferred("Look for a factor or a mask of zeros before the loss, and for units that are off."),
    "explodes": deferred(
        "Clip the gradient (fit(clip=1)), a smaller learning rate, orthogonal recurrent weights "
        "(spectral radius 1), or "
    ),
    "gone": deferred("Look for units that are off or wholly saturated, and for states that are set anew."),
    "remember": deferred(
        "A cell with a memory line (LSTM, GRU, JANET), orthogonal recurrent weights (spectral radius "
        "1), or IRNN's start."
    ),
    "too deep": deferred(
        "ReLU in place of σ or tanh, residual connections, layer normalisation, larger initial weights."
    ),
    "too steep": deferred("Smaller initial weights (Glorot), layer normalisation, clipping (fit(clip=1))."),
    "saturated": deferred(
        "Its bias nearer to 0, smaller weights, inputs scaled to about −1 … 1, layer normalisation."
    ),
    "dead": deferred(
        "A smaller learning rate, biases at 0 or a little above, He or identity (IRNN) start, layer normalisation."
    ),
    "cut": deferred("Nothing, if it is meant (truncated backpropagation); else remove the detach."),
    "no derivative": "Nothing, if the other states carry what is to be learned; else a smooth function in its place.",
    "behind a cut": deferred("Remove the detach, or take these weights from the optimiser."),
    "gap": deferred("Check the mask: gaps within a sequence are rarely meant."),
    "padding": deferred("Sort sequences by length into batches."),
    "masked loss": deferred("Check the mask of the loss."),
    "frozen": deferred("Set requires_grad = True, unless the layer is meant to stay as it is."),
    "unused": deferred("Use these parameters, or do not give them to the optimiser."),
    "left out": deferred("Give them to the optimiser."),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found: its `kind` in a word, where, figures in a sentence, and what to try.

    fault : False for a note, which may well be intended.  times : the steps t that it concerns.
    """

    kind: str
    where: str
    said: str
    advice: str = ""
    times: tuple[int, ...] = ()
    fault: bool = True


def findings(facts: Facts) -> list[Finding]:
    """All that there is to say, faults first."""
    looks = (_numbers, _exploding, _vanishing, _saturated, _dead, _cuts, _masks, _silent, _not_learning)
    return sorted((f for look in looks for f in look(facts)), key=lambda f: not f.fault)


def _numbers(facts: Facts) -> Iterator[Finding]:
    """Whether there is a gradient at all, and whether it is made of numbers."""
    if not facts.computed:
        said = tr("No gradient is known, so nothing is said of it below but how fast it would go.")
        yield Finding(deferred("not computed"), "", said, tr(TRY["not computed"]), fault=False)
    bad = [
        n
        for n in facts.nodes
        if (g := gradient_of(facts.statuses, n)) is not None and not np.isfinite(g).all()
    ]
    if bad or (facts.root.dtype.kind == "f" and not np.isfinite(facts.root.value).all()):
        values = [n for n in facts.nodes if n.dtype.kind == "f" and not np.isfinite(n.value).all()]
        first, what = (values[0], tr("value")) if values else (bad[-1], tr("gradient"))
        at = step_of(first)
        said = tr(
            "NaN or ∞ in {values} values and {bad} gradients; the first is the {what} of {first}.",
            values=len(values),
            bad=len(bad),
            what=what,
            first=_called(first),
        )
        yield Finding(
            deferred("not a number"),
            clean(at[0]) if at else "",
            said,
            tr(TRY["not a number"]),
            (at[1],) if at else (),
        )
    elif facts.computed:
        zero = [w for w in facts.weights if w.status == ZERO]
        if zero and not any(w.status == NORMAL for w in facts.weights):
            said = tr("The gradient of every weight is exactly zero: nothing can be learned.")
            yield Finding(deferred("exactly zero"), "", said, tr(TRY["zero"]))
        elif zero:
            said = tr("The gradient of {names} is exactly zero.", names=_list(w.name for w in zero))
            yield Finding(deferred("exactly zero"), "", said, fault=False)


def _called(n: Tensor) -> str:
    name = (
        clean(n.name)
        if n.name
        else tr("the result of {name}", name=n.op.name)
        if n.op is not None
        else tr("an input")
    )
    return tr("{name} at t = {t}", name=name, t=at[1]) if (at := step_of(n)) else name


# Vanishing and exploding.


def _exploding(facts: Facts) -> Iterator[Finding]:
    for decay in facts.decays:
        rate = decay.rate
        if rate is None:
            continue
        growth = decay.over
        fast = rate >= EXPLODING_RATE and growth >= np.log(EXPLODING_GROWTH)
        slow = rate >= SLOW_RATE and growth >= np.log(SLOW_GROWTH)
        advice = tr(TRY["explodes"]) + (
            tr("layer normalisation.") if decay.gated else tr("a cell with gates (LSTM, GRU).")
        )
        radii = {} if decay.gated else decay.radii  # gates, not the weights alone, decide how it grows
        large = {k: r for k, r in radii.items() if r >= LARGE_RADIUS}
        if fast or slow:
            yield Finding(deferred("exploding"), clean(decay.band), f"{_speed(decay)} {_over(decay)}", advice)
        elif large:
            name, radius = max(large.items(), key=lambda item: item[1])
            said = tr(
                "The recurrent weights {name} have spectral radius {radius}: while units are not "
                "saturated the gradient grows × {radius} in each step. Here saturation holds it at × "
                "{factor}.",
                name=name,
                radius=number(radius, 3),
                factor=number(np.exp(rate)),
            )
            yield Finding(deferred("large weights"), clean(decay.band), said, advice, fault=False)
        elif growth >= np.log(SLOW_GROWTH):
            yield Finding(
                deferred("grows slowly"), clean(decay.band), f"{_speed(decay)} {_over(decay)}", fault=False
            )
        elif rate >= EXPLODING_RATE and growth >= np.log(GROWING):
            so_few = tr(
                "So few steps bear that; over {steps} it would be × {factor}.",
                steps=MANY_STEPS, factor=power(rate * MANY_STEPS),
            )  # fmt: skip
            said = f"{_speed(decay)} {_over(decay)} {so_few}"
            longer = tr(
                "Nothing at this length; for longer sequences: {advice}",
                advice=f"{advice[:1].lower()}{advice[1:]}",
            )
            yield Finding(deferred("grows"), clean(decay.band), said, longer, fault=False)
    share, said = _depth(facts)
    if share > DEPTH_GROWN:
        yield Finding(deferred("exploding"), tr("across layers"), said, tr(TRY["too steep"]))


def _vanishing(facts: Facts) -> Iterator[Finding]:
    for decay in facts.decays:
        gone = [decay.times[k] for k in sorted(decay.why) if decay.why[k] == ZERO]
        if gone:
            said = tr(
                "Nothing at all comes back to the states of {times}: the gradient is exactly zero there.",
                times=spans(gone),
            )
            yield Finding(deferred("vanishing"), clean(decay.band), said, tr(TRY["gone"]), tuple(gone))
        rate, half = decay.rate, decay.half_life
        if rate is None or half is None or rate >= 0:
            continue
        left, bound = decay.over, SHUT_HALF_LIFE if decay.gated else VANISHING_HALF_LIFE
        advice = _remember(facts, decay)
        if half <= bound * (1 + 1e-9) and left <= np.log(VANISHING_LEFT):
            yield Finding(deferred("vanishing"), clean(decay.band), f"{_speed(decay)} {_over(decay)}", advice)
        elif left <= np.log(VANISHED_BELOW):
            reach = int(np.log(VANISHED_BELOW) / rate)
            said = tr(
                "{speed} A loss reaches about {reach} of {steps} steps back (there 1e−6 is left).",
                speed=_speed(decay),
                reach=reach,
                steps=decay.length,
            )
            advice = tr(
                "Nothing, if no older input matters; else: {advice}", advice=advice[:1].lower() + advice[1:]
            )
            yield Finding(deferred("short memory"), clean(decay.band), said, advice, fault=False)
    share, said = _depth(facts)
    if share < DEPTH_LEFT:
        yield Finding(deferred("vanishing"), tr("across layers"), said, tr(TRY["too deep"]))


def _speed(decay: Decay) -> str:
    rate, half = decay.rate, decay.half_life
    assert rate is not None and half is not None
    steps = number(abs(half))
    count = 1 if steps == "1" else 2
    way = (
        trn(
            "halves every {steps} step (half-life)",
            "halves every {steps} steps (half-life)",
            count,
            steps=steps,
        )
        if half > 0
        else trn("doubles every {steps} step", "doubles every {steps} steps", count, steps=steps)
    )
    return tr(
        "The gradient {way}: × {factor} per step back, rate λ = {rate}.",
        way=way,
        factor=number(np.exp(rate)),
        rate=number(rate, 3),
    )


def _over(decay: Decay) -> str:
    start, end = decay.stretch
    assert decay.over is not None
    return tr(
        "From t = {last} back to t = {first}: × {left}.",
        last=decay.times[end],
        first=decay.times[start],
        left=power(decay.over),
    )


def power(logarithm: float) -> str:
    """A factor by its natural logarithm, however small."""
    decades = logarithm / np.log(10)
    return number(10**decades) if abs(decades) < 300 else f"1e{decades:.0f}".replace("-", "−")


def _remember(facts: Facts, decay: Decay) -> str:
    keeper = next((g for g in facts.gates if g.band == decay.band and g.keeps), None)
    if keeper is None:
        return tr(TRY["remember"])
    return tr("{advice}; larger recurrent weights; shorter sequences.", advice=_keep(keeper))


def _keep(gate) -> str:
    bias = tr("1 … 2, or chrono initialisation,") if gate.keeps > 0 else "−1 … −2"
    return tr("A bias of {bias} for the gate {name}, so that it keeps the memory", bias=bias, name=gate.name)


def _depth(facts: Facts) -> tuple[float, str]:
    """What is left of the gradient from the last layer to the first, and in words; 1 where there is nothing to say."""
    chain = [v for _, v in facts.depth if np.isfinite(v) and v > 0]
    if len(chain) < 2:
        return 1.0, ""
    share = chain[0] / chain[-1]
    said = tr(
        "From the last of {count} layers ({last}) down to the first ({first}) the gradient becomes × "
        "{share}, × {each} per layer.",
        count=len(chain),
        last=number(chain[-1]),
        first=number(chain[0]),
        share=number(share),
        each=number(share ** (1 / (len(chain) - 1))),
    )
    return share, said


# Units.


def _saturated(facts: Facts) -> Iterator[Finding]:
    for g in facts.gates:
        share, low, high = (float(v.mean()) for v in (g.saturated, g.low, g.high))
        if share <= (SATURATED_SHARE if g.named else SQUASHED_SHARE):
            continue
        times = tuple(t for t, s in zip(g.times, g.saturated, strict=True) if s > SATURATED_SHARE)
        bottom = "0.05" if g.kind == "sigmoid" else "−0.95"
        said = tr(
            "{name}: {share:.0f} % of its units are saturated ({low:.0f} % below {bottom}, "
            "{high:.0f} % above 0.95; mean {mean}).",
            name=g.said,
            share=100 * share,
            low=100 * low,
            bottom=bottom,
            high=100 * high,
            mean=number(float(g.mean.mean())),
        )
        forgets = g.keeps and (low if g.keeps > 0 else high) > SATURATED_SHARE
        said += (
            tr(" The memory is forgotten in every step.")
            if forgets
            else tr(" Hardly any gradient passes through it.")
        )
        advice = f"{_keep(g)}." if forgets else tr(TRY["saturated"])
        yield Finding(deferred("saturated"), clean(g.band), said, advice, times)


def _dead(facts: Facts) -> Iterator[Finding]:
    for r in facts.rectifiers:
        share = r.dead if r.dead >= DEAD_SHARE else r.off if r.off > OFF_SHARE else 0.0
        if r.samples >= ENOUGH and share:
            said = tr(
                "{name}: {share:.0f} % of its {units} ReLU units are off for all of {samples:,} "
                "samples, so that they get no gradient.",
                name=r.name,
                share=100 * share,
                units=r.units,
                samples=r.samples,
            )
            yield Finding(deferred("dead"), clean(r.band), said, tr(TRY["dead"]))


# Cuts, masks, and what does not learn.


def _cuts(facts: Facts) -> Iterator[Finding]:
    for decay in facts.decays:
        by_states: dict[tuple[str, ...], list[int]] = {}
        for k in sorted(decay.cuts):
            if lost := tuple(s for s in decay.cuts[k] if s not in decay.still):
                by_states.setdefault(lost, []).append(k)
        for states, places in by_states.items():
            gaps = {b - a for a, b in itertools.pairwise(places)}
            regular = decay.detached and len(states) == len(decay.states) and len(gaps) == 1
            by = tr("detach") if decay.detached else tr("what hands it on has no derivative")
            at = ", ".join(
                tr("{t} and {next}", t=decay.times[k], next=decay.times[k + 1]) for k in places[:6]
            )
            at += tr(" (and {n} more)", n=len(places) - 6) if len(places) > 6 else ""
            names = _list(pretty(clean(s)) for s in states)
            said = tr(
                "The gradient of {names} is cut ({why}) between t = {places}.", names=names, why=by, places=at
            )
            said += (
                tr(" Every {n} steps: truncated backpropagation.", n=gaps.pop())
                if regular
                else tr(" No loss on one side reaches the other.")
                if len(states) == len(decay.states)
                else tr(" What comes back goes by the other states alone.")
            )
            times = tuple(decay.times[k + 1] for k in places)
            yield Finding(
                deferred("cut"),
                clean(decay.band),
                said,
                "" if regular else tr(TRY["cut"]),
                times,
                not regular,
            )
        if decay.still:
            names = _list(pretty(clean(s)) for s in decay.still)
            said = tr(
                "No gradient comes back through {names}: what hands it on has no derivative, in all steps.",
                names=names,
            )
            yield Finding(
                deferred("no derivative"), clean(decay.band), said, tr(TRY["no derivative"]), fault=False
            )
    behind = [w.name for w in facts.weights if w.status == CUT]
    if behind:
        said = tr(
            "No gradient reaches {names}: every way to the loss leads through detach.", names=_list(behind)
        )
        yield Finding(deferred("cut"), "", said, tr(TRY["behind a cut"]))


def _masks(facts: Facts) -> Iterator[Finding]:
    """Steps at which the states are only handed on."""
    for decay in facts.decays:
        if decay.real is None or decay.real.all():
            continue
        order = np.argsort(decay.times)
        real, times = decay.real[order], np.array(decay.times)[order]
        before, after = np.maximum.accumulate(real), np.maximum.accumulate(real[::-1])[::-1]
        gaps = (~real & before & after).any(axis=1) | ~real.any(axis=1)
        if gaps.any():
            share = 100 * (1 - float(real[gaps].mean()))
            hidden = tuple(int(t) for t in times[gaps])
            said = tr(
                "A mask hides {steps} of {share:.0f} % of the sequences: the states are only handed on there.",
                steps=spans(hidden),
                share=share,
            )
            yield Finding(deferred("masked"), clean(decay.band), said, tr(TRY["gap"]), hidden)
        else:
            share = 100 * (1 - float(real.mean()))
            said = tr(
                "{share:.0f} % of all places are padding, which costs time and teaches nothing.", share=share
            )
            yield Finding(deferred("padding"), clean(decay.band), said, tr(TRY["padding"]), fault=False)


def _silent(facts: Facts) -> Iterator[Finding]:
    """Steps whose own loss counts for nothing, while that of steps before and after counts."""
    heard = [t for t, v in facts.entries.items() if v]
    silent = [t for t, v in facts.entries.items() if not v and heard and heard[0] < t < heard[-1]]
    if silent:
        said = tr(
            "The loss of {times} is masked: exactly nothing comes from it, though it does before and after.",
            times=spans(silent),
        )
        yield Finding(deferred("masked"), tr("loss"), said, tr(TRY["masked loss"]), tuple(silent))


def _not_learning(facts: Facts) -> Iterator[Finding]:
    by_layer: dict[str, list[str]] = {}
    for w in facts.weights:
        if w.status == FROZEN:
            layer, _, own = w.name.rpartition(" / ")
            by_layer.setdefault(layer, []).append(own)
    for layer, names in by_layer.items():
        said = tr("Learning is disabled (requires_grad is False): {names} will not move.", names=_list(names))
        yield Finding(deferred("frozen"), layer, said, tr(TRY["frozen"]))
    if facts.unused:
        yield Finding(
            deferred("unused"),
            "",
            tr("The loss does not depend on {names}.", names=_list(map(clean, facts.unused))),
            tr(TRY["unused"]),
        )
    if facts.given is not None:
        left_out = [
            w.name for w in facts.weights if w.tensor.number not in facts.given and w.status != FROZEN
        ]
        if left_out:
            said = tr(
                "Not among the parameters given, so that training does not move them: {names}.",
                names=_list(left_out),
            )
            yield Finding(deferred("frozen"), "", said, tr(TRY["left out"]))


# Words.


def spans(times: Iterable[int]) -> str:
    """t = 3 … 5, 9"""
    runs: list[list[int]] = []
    for t in sorted(times):
        if runs and t == runs[-1][1] + 1:
            runs[-1][1] = t
        else:
            runs.append([t, t])
    said = [f"{a} … {b}" if b > a + 1 else f"{a}, {b}" if b > a else f"{a}" for a, b in runs]
    return "t = " + ", ".join(said[:6]) + (", …" if len(said) > 6 else "")


def folded(said: str, width: int) -> list[str]:
    """Lines of at most `width` characters; what belongs together, as t = 3, stays so."""
    glued = re.sub(r"([×=<>…]) (?=\S)", "\\1\u00a0", re.sub(r" (?=[=%…])", "\u00a0", said))
    return [line.replace("\u00a0", " ") for line in textwrap.wrap(glued, width, break_long_words=False)]


def _list(names: Iterable[str], most: int = 8) -> str:
    """a, b and c"""
    every = list(names)
    if len(every) > most:
        every = [*every[:most], tr("{n} more", n=len(every) - most)]
    return listed(filter(None, [", ".join(every[:-1]), *every[-1:]]))
