"""What stands under a picture's title: the sizes, what a number means for a batch, and the cell's equations.

The equations are printed from the graph: a step that was drawn is run again on symbols.
"""

from __future__ import annotations

import numpy as np

from minigrad import Tensor
from minigrad.tensor import apply

from ..formula.equations import equations
from ..language.catalogue import tr, trn
from ..language.text import clean
from .network import PARAMETER, QUANTITY, Network

LONGEST = 12  # lines of equations that still are read


def heading(network: Network) -> list[str | list[str]]:
    """The sizes, and the equations, which stand in columns."""
    return [sizes(network), equations_of(network)]


def sizes(network: Network) -> str:
    """T = 8 steps · N = 3 sequences · D = 4 inputs · H = 4 units · losses at 8 steps; several layers each with its own."""
    said = [trn("T = {n} step", "T = {n} steps", len(network.times))]
    batch = _batch(network)
    if batch:
        said.append(
            trn("N = {n} sequence", "N = {n} sequences", batch)
            + tr(" (a norm is over all of them)") * (batch > 1)
        )
    for band in [b for b in network.bands if network.carried[b]] or network.bands:
        who = f"{clean(band)}: " if band and len(network.bands) > 1 else ""
        given, units = _inputs(network, band), _units(network, band)
        parts = [trn("D = {n} input", "D = {n} inputs", given)] if given else []
        parts += [trn("H = {n} unit", "H = {n} units", units)] if units else []
        if parts:
            said.append(who + ", ".join(parts))
    y = next((g.out for g in network.outputs.values()), None)
    if y is not None:
        what = trn("{n} output", "{n} outputs", y.shape[-1]) if y.ndim else tr("a loss")
        said.append(trn("{what} at {n} step", "{what} at {n} steps", len(network.outputs), what=what))
    return " · ".join(said)


def _state(network: Network, band: str) -> tuple[int, ...]:
    """The shape of the state carried last, or of the last quantity."""
    for t in reversed(network.times):
        names = network.carried[band] or [g.name for g in network.cells.get((band, t), ()) if g.name][-1:]
        found = network.find(band, t, names[-1]) if names else None
        if found is not None:
            return found.out.shape
    return ()


def _units(network: Network, band: str) -> int | None:
    shape = _state(network, band)
    return shape[-1] if shape else None


def _batch(network: Network) -> int | None:
    found = {shape[0] for band in network.bands if len(shape := _state(network, band)) > 1}
    return found.pop() if len(found) == 1 else None


def _inputs(network: Network, band: str) -> int | None:
    found = {
        g.out.shape[-1]
        for (b, _), own in network.inputs.items()
        if b == band
        for g in own[:1]
        if g.out.ndim > 1
    }
    return found.pop() if len(found) == 1 else None


def equations_of(network: Network) -> list[str]:
    """A line for each quantity of a step, of the first layer; none where a step is not like the others."""
    band = network.bands[0]
    times = [t for b, t in network.cells if b == band]
    try:
        found = equations(_Step(network, band, times[-1]), backward=False)
    except (ValueError, TypeError, LookupError, AttributeError):
        return []  # a step that mixes the sequences of its batch has no equation for one of them
    lines = [f"{e.left.text} {e.sign} {e.right.text}" for e in found.forward]
    return lines if len(lines) <= LONGEST else []


class _Step:
    """One step of a graph as a cell that can be traced."""

    def __init__(self, network: Network, band: str, t: int):
        groups, self.group_of = network.cells[band, t], network.group_of
        self.state = " ".join(network.carried[band])
        before = network.before.get((band, t))
        self.before: list[Tensor] = []
        for name in network.carried[band]:
            g = network.find(band, before, name) if before is not None else network.first.get((band, name))
            self.before.append(g.out)  # type: ignore[union-attr]
        (x,) = network.inputs[band, t]
        self.x, self.quantities = x.out, {g.name: g.out for g in groups if g.kind == QUANTITY}
        self.inputs, self.hidden = self.x.shape[-1], self.before[0].shape[-1]
        self.nodes = sorted((n for g in groups for n in g.nodes), key=lambda n: n.number)
        self.dtype = self.x.dtype

    def parameters(self) -> dict[str, Tensor]:
        """The weights that the step reads, and what was made of weights before any step and has a name."""
        own: dict[str, Tensor] = {}
        pending = [x for n in self.nodes for x in n.inputs]
        while pending:
            x = pending.pop(0)
            before = x.op is not None and self.group_of[x.number].kind == PARAMETER
            if x.name and (x.is_parameter or before):
                own.setdefault(x.name, x)
            elif before:  # such as the transpose of a weight
                pending.extend(x.inputs)
        data = {x.number for x in (self.x, *self.before)}
        own = {str(name): x for name, x in own.items() if x.number not in data}
        alone = len({name.rpartition(".")[2] for name in own}) == len(
            own
        )  # else W.weight and U.weight are told apart
        return own if alone else {name.replace(".", "_"): x for name, x in own.items()}

    def initial_state(self, sequences: int) -> tuple:
        return tuple(np.zeros((sequences, *b.shape[1:]), b.dtype) for b in self.before)

    def step(self, x: Tensor, *state: Tensor) -> dict[str, Tensor]:
        made = {self.x.number: x} | {old.number: new for old, new in zip(self.before, state, strict=True)}
        for n in self.nodes:
            made[n.number] = apply(n.op, tuple(made.get(i.number, i) for i in n.inputs), n.params)  # type: ignore[arg-type]
        return {name: made[q.number].named(name) for name, q in self.quantities.items()}
