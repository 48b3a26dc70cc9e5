"""Where units stand that can be stuck: gates and candidates at the ends of their range, rectifiers that are off.

Nothing here knows a cell.  A gate that holds a memory is known by what it does: it is
multiplied with a state of the step before.  Where such a gate is open the memory is
kept, which is not harmful saturation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minigrad import Tensor
from minigrad.items import flows_back

from ..language.catalogue import tr
from ..language.text import clean, pretty
from .network import QUANTITY, SHARED, Group, Network, step_of

NEAR = 0.05  # within this of the end of its range a gate is called saturated
RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


@dataclass
class Gate:
    """One sigmoid or tanh of a layer over all steps: where its units stand."""

    band: str
    name: str
    kind: str  # "sigmoid" or "tanh"
    times: list[int]
    mean: np.ndarray  # by step
    low: np.ndarray  # share of units within NEAR of the lower end, by step
    high: np.ndarray
    named: bool = True  # whether it is the whole of a quantity, such as f, or stands inside of one
    keeps: int = 0  # 1: memory is kept where it is high; −1: where it is low; 0: it holds no memory

    @property
    def said(self) -> str:
        """Its name in the language of the picture; `name` is what arrays are called."""
        symbol, within, name = self.name.partition(" in ")
        return tr("{symbol} in {name}", symbol=symbol, name=tr(name)) if within else self.name

    @property
    def saturated(self) -> np.ndarray:
        """Share of units at an end where they hardly react, by step; keeping the memory is not a fault."""
        return self.low * (self.keeps >= 0) + self.high * (self.keeps <= 0)


@dataclass
class Rectifier:
    """The units of one max(x, 0): those that are off everywhere, and those far from being on anywhere."""

    band: str
    name: str
    units: int
    samples: int
    off: float  # share of units
    dead: float


def gates_of(nodes: Sequence[Tensor], network: Network | None) -> list[Gate]:
    """Every sigmoid and tanh, over all steps; outside of steps each by itself."""
    found: dict[tuple, list[Tensor]] = {}
    for key, n in _bounded(nodes, network):
        found.setdefault(key, []).append(n)
    keeps = _keepers(network) if network is not None else {}
    gates = []
    for (band, name, kind, _, whole), own in found.items():
        low, high = RANGES[kind]
        values = [np.asarray(n.value, np.float64).reshape(-1) for n in own]
        values = [v[np.isfinite(v)] for v in values]
        if not all(v.size for v in values):
            continue
        at = [step_of(n) for n in own]
        order = np.argsort([a[1] if a else 0 for a in at], kind="stable")
        means, lows, highs = (
            np.array([float(f(values[k])) for k in order])
            for f in (
                np.mean,
                lambda v, e=low: np.mean(v < e + NEAR),
                lambda v, e=high: np.mean(v > e - NEAR),
            )
        )
        times = [a[1] if (a := at[k]) else 0 for k in order]
        sign = next((keeps[n.number] for n in own if n.number in keeps), 0)
        gates.append(Gate(band, name, kind, times, means, lows, highs, whole, sign))
    return gates


def _bounded(nodes: Sequence[Tensor], network: Network | None) -> Iterator[tuple[tuple, Tensor]]:
    """Every sigmoid and tanh, and what tells it from others at any step."""
    seen: dict[tuple, int] = {}
    for n in nodes:
        if n.op is None or n.op.name not in RANGES or n.is_symbol:
            continue
        kind, at = n.op.name, step_of(n)
        group = network.group_of[n.number] if network is not None else None
        if at is None or group is None or group.kind not in (QUANTITY, SHARED):
            if not n.name:
                seen[(kind,)] = seen.get((kind,), 0) + 1
            label = clean(n.name or f"{kind} {seen[(kind,)]}")
            yield (clean(" / ".join(n.scope)), pretty(label), kind, n.number if not n.name else 0, True), n
            continue
        alone = sum(m.op is not None and m.op.name in RANGES for m in group.nodes) == 1
        straight = n is group.out or (
            alone and group.out.op is not None and any(n is x for x in _branches(group.out))
        )
        symbol = "σ" if kind == "sigmoid" else kind
        name = (
            pretty(group.name) if straight and group.name else f"{symbol} in {pretty(group.name) or 'step'}"
        )
        count = (*at, name, kind)
        seen[count] = seen.get(count, -1) + 1
        yield (at[0], name, kind, seen[count], straight), n


def _branches(node: Tensor) -> tuple[Tensor, ...]:
    return node.inputs[1:] if node.op is not None and node.op.name == "where" else ()


def _keepers(network: Network) -> dict[int, int]:
    """The sigmoids that weigh a memory from the step before: 1 if it is kept where they are high, −1 where low."""
    found: dict[int, int] = {}
    for (band, t), groups in network.cells.items():
        before = network.before.get((band, t))
        for state in network.memory.get(band, ()):
            own = network.find(band, t, state)
            old = (
                network.find(band, before, state) if before is not None else network.first.get((band, state))
            )
            if own is None or old is None:
                continue
            bases = {}
            for factor in _factors(own, old.out):
                gate, sign, base = _sigmoid(factor)
                if gate is not None:
                    found[gate.number], bases[base.number] = sign, sign
            for g in groups:  # what shares the number that decides, such as 1 − σ(s − β) beside σ(s)
                for n in g.nodes:
                    if n.op is not None and n.op.name == "sigmoid" and n.number not in found:
                        sign, base = _base(n.inputs[0])
                        if base.number in bases:
                            found[n.number] = bases[base.number] * sign
    return found


def _factors(group: Group, old: Tensor) -> Iterator[Tensor]:
    """What an old state is multiplied by on its way to the new one, element by element."""
    inside = {n.number for n in group.nodes}
    pending, seen = [group.out], set()
    while pending:
        n = pending.pop()
        if n.number in seen or n.op is None or n.op.kind != "elementwise":
            continue
        seen.add(n.number)
        if n.op.name == "mul":
            for a, b in (n.inputs, n.inputs[::-1]):
                linear = b.op is not None and b.op.name in ("add", "sub") and any(x is old for x in b.inputs)
                if b is old or linear:
                    yield a
        else:
            pending.extend(x for x in n.inputs if x.number in inside)


def _base(n: Tensor) -> tuple[int, Tensor]:
    """The sign with which a number goes in, and that number, behind constants that are added or taken from it."""
    sign = 1
    while n.op is not None and n.op.name in ("add", "sub", "neg"):
        moving = [k for k, x in enumerate(n.inputs) if x.op is not None]
        if len(moving) != 1 or any(x.op is None and x.size != 1 for x in n.inputs):
            break
        if n.op.name == "neg" or (n.op.name == "sub" and moving[0] == 1):
            sign = -sign
        n = n.inputs[moving[0]]
    return sign, n


def _sigmoid(factor: Tensor) -> tuple[Tensor | None, int, Tensor]:
    sign, gate = _base(factor)
    if gate.op is None or gate.op.name != "sigmoid":
        return None, 0, gate
    inner, base = _base(gate.inputs[0])
    return gate, sign, base if inner > 0 else gate


# Rectifiers.


def rectifiers_of(nodes: Sequence[Tensor], network: Network | None) -> list[Rectifier]:
    """Every max(x, 0), over all steps, but those beside which x goes another way, as in max(x, 0) + log(1 + e^−|x|):
    where such a unit is off a gradient still comes back."""
    found: dict[tuple[str, str], list[Tensor]] = {}
    ways: dict[int, int] = {}  # how many operations hand a gradient to a node
    for n in nodes:
        for x in {x.number: x for k, x in enumerate(n.inputs) if flows_back(n, k)}.values():
            ways[x.number] = ways.get(x.number, 0) + 1
    count = 0
    for n in nodes:
        x = rectifier_input(n)
        if x is None or n.is_symbol or not n.ndim or any(ways.get(a.number, 0) > 1 for a in _behind(x)):
            continue
        at = step_of(n)
        if at is None or network is None:
            count += 1
            key = (clean(" / ".join(n.scope)), clean(n.name) if n.name else f"ReLU {count}")
        else:
            key = (at[0], pretty(network.group_of[n.number].name) or "ReLU")
        found.setdefault(key, []).append(x)
    made = []
    for (band, name), inputs in found.items():
        units = inputs[0].shape[-1]
        values = [
            np.asarray(x.value, np.float64).reshape(-1, x.shape[-1]) for x in inputs if x.shape[-1] == units
        ]
        values = np.concatenate(values)
        if not values.size or not np.isfinite(values).all():
            continue
        off = (values <= 0).all(axis=0)
        far = values.mean(axis=0) + 3 * values.std(axis=0) < 0
        made.append(Rectifier(band, name, units, len(values), float(off.mean()), float((off & far).mean())))
    return made


def _behind(x: Tensor) -> Iterator[Tensor]:
    """A number, and that of which it is the negative or which is moved or scaled by a constant to it."""
    while True:
        yield x
        moving = [a for a in x.inputs if a.op is not None or a.size != 1]
        if x.op is None or x.op.name not in ("neg", "add", "sub", "mul", "div") or len(moving) != 1:
            return
        x = moving[0]


def rectifier_input(n: Tensor) -> Tensor | None:
    """The x of max(x, 0), however it was written."""
    if n.op is None:
        return None
    if n.op.name == "maximum":
        for a, b in (n.inputs, n.inputs[::-1]):
            if b.op is None and b.size == 1 and not b.is_symbol and b.value.item() == 0 and a.op is not None:
                return a
    if n.op.name == "where":
        chosen = n.inputs[0]
        compared = chosen.op is not None and chosen.op.name in ("greater", "greater_equal")
        bound = [x for x in chosen.inputs if x.op is None and not x.is_symbol and not x.value.any()]
        for k in (1, 2) if compared and bound else ():  # x where x > 0, else 0; or 0 where 0 ≥ x, else x
            x, other = n.inputs[k], n.inputs[3 - k]
            zero = other.op is None and not other.is_symbol and not other.value.any()
            if chosen.inputs[k - 1] is x and zero:
                return x
    return None
