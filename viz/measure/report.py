"""What a health report says: in a sentence, in tables of figures, as text, and as arrays by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..language.catalogue import listed, tr, trn
from ..language.status import NORMAL, NOT_COMPUTED, norm
from ..language.text import clean, columns, key, number, of_gradient, pretty
from .diagnosis import Finding, folded, power
from .health import Facts
from .recurrence import Decay
from .words import half_lives

WIDTH, MOST_ROWS = 100, 24


def verdict(facts: Facts, found: list[Finding]) -> str:
    """In words: how many faults there are, and of what kind."""
    faults, notes = [f for f in found if f.fault], [f for f in found if not f.fault]
    kinds = ", ".join(dict.fromkeys(tr(f.kind) for f in faults))
    said = trn("{n} fault", "{n} faults", len(faults)) + f": {kinds}" if faults else tr("No fault found")
    if not facts.computed and not faults:
        said = tr("No fault found so far, but the gradient is not computed: run loss.backward(record=True)")
    return said + ("; " + trn("{n} note", "{n} notes", len(notes)) if notes else "") + "."


def tables(facts: Facts) -> list[tuple[str, list[str], list[list[str]]]]:
    """The figures: heading, columns, rows."""
    found = []
    decays = [_decay_row(f) for f in facts.decays]
    if decays:
        heads = [
            tr("states"),
            tr("half-life (steps)"),
            tr("× per step"),
            tr("rate λ"),
            tr("steps"),
            tr("left over all"),
        ]
        found.append((tr("The gradient on its way back through the states"), heads, decays))
    gates = [
        [_in(g.band, f"{g.said}  {'σ' if g.kind == 'sigmoid' else g.kind}"), number(float(g.mean.mean())), _percent(g.low.mean()),
         _percent(g.high.mean()), tr("high keeps memory") if g.keeps > 0 else tr("low keeps memory") if g.keeps < 0 else ""]
        for g in facts.gates
    ]  # fmt: skip
    if gates:
        found.append(
            (
                tr("Gates and candidates"),
                ["", tr("mean"), tr("saturated low"), tr("saturated high"), ""],
                gates,
            )
        )
    rectifiers = [
        [_in(r.band, r.name), str(r.units), _percent(r.off), f"{r.samples:,}"] for r in facts.rectifiers
    ]
    if rectifiers:
        found.append(("ReLU", ["", tr("units"), tr("off everywhere"), tr("samples")], rectifiers))
    weights = [
        [w.name, "–" if w.norm is None else number(w.norm), number(norm(w.tensor.value)), _odd(w.status)]
        for w in facts.weights
    ]  # fmt: skip
    if weights:
        found.append((tr("Weights"), ["", "‖∂L/∂W‖", "‖W‖", ""], weights))
    return [(head, columns, _shortened(rows)) for head, columns, rows in found]


def _decay_row(decay: Decay) -> list[str]:
    rate, half = decay.rate, decay.half_life
    names = _in(decay.band, " ".join(pretty(s) for s in decay.states))
    if rate is None or decay.over is None:
        return [names, "–", "–", "–", str(decay.length), tr("nothing")]
    said = (
        tr("keeps its size")
        if half is None
        else number(half)
        if half > 0
        else tr("doubles in {half}", half=number(-half))
    )
    start, end = decay.stretch
    return [names, said, number(float(np.exp(rate)), 3), number(rate, 3), str(end - start), power(decay.over)]


def speed(decay: Decay) -> str:
    """layer 1: c h: × 0.5 per step back, halves every 1 step."""
    names = _in(decay.band, " ".join(pretty(clean(s)) for s in decay.states))
    if decay.rate is None:
        why = listed(dict.fromkeys(tr(why) for why in decay.why.values())) or tr("nothing")
        return tr("{names}: what comes back is {why}", names=names, why=why)
    half = half_lives([np.inf if decay.half_life is None else decay.half_life])
    return tr(
        "{names}: × {factor} per step back, {half}",
        names=names,
        factor=number(float(np.exp(decay.rate)), 3),
        half=half,
    )


def _odd(status: str) -> str:
    return "" if status in (NORMAL, NOT_COMPUTED) else tr(status)


def _shortened(rows: list[list[str]]) -> list[list[str]]:
    if len(rows) <= MOST_ROWS:
        return rows
    more = tr("… and {n} more", n=len(rows) - MOST_ROWS)
    return [*rows[:MOST_ROWS], [more, *[""] * (len(rows[0]) - 1)]]


def _in(band: str, name: str) -> str:
    return f"{clean(band)}: {name}" if band else name


def _percent(share: float) -> str:
    return f"{100 * float(share):.0f} %"


def text(facts: Facts, found: list[Finding], title: str) -> str:
    """All of it as lines of text."""
    lines = [title, verdict(facts, found)]
    for k, f in enumerate(found, 1):
        where = f" ({f.where})" if f.where else ""
        kind = tr(f.kind).upper() if f.fault else tr("note: {kind}", kind=tr(f.kind))
        lines += [
            "",
            f"{k}. {kind}{where}",
            *_wrapped(f.said),
        ]
        lines += _wrapped(tr("Try: {advice}", advice=f.advice)) if f.advice else []
    for head, heads, rows in tables(facts):
        lines += ["", head, *(f"   {line}" for line in columns([heads, *rows], left=True))]
    return "\n".join(line.rstrip() for line in lines)


def _wrapped(said: str) -> list[str]:
    return [f"   {line}" for line in folded(said, WIDTH - 3)]


def arrays(facts: Facts) -> dict[str, np.ndarray]:
    """The figures by name; by step where they are, at the steps "t"."""
    every = facts.network.times if facts.network is not None else []
    data: dict[str, np.ndarray] = {"t": np.array(every)} if facts.network is not None else {}

    def by_step(times: Sequence[int], values: np.ndarray) -> np.ndarray:
        found = dict(zip(times, values, strict=True))
        return np.array([found.get(t, np.nan) for t in every]) if every else np.array(values)

    for d in facts.decays:
        data[key(d.band, "rate")] = np.array(np.nan if d.rate is None else d.rate)
        data[key(d.band, "half-life")] = np.array(np.inf if d.half_life is None else d.half_life)
        data[key(d.band, "left")] = by_step(d.times, d.left)
    for g in facts.gates:
        data[key(g.band, f"{g.name} saturated")] = (
            by_step(g.times, g.saturated) if g.times != [0] else g.saturated
        )
    for r in facts.rectifiers:
        data[key(r.band, f"{r.name} dead")] = np.array(r.dead)
    for w in facts.weights:
        data[of_gradient(w.name, "norm")] = np.array(np.nan if w.norm is None else w.norm)
    return data
