"""What stands under a picture's title: the sizes, what a number means for a batch, and the cell's equations.

The equations are printed from the graph: a step that was drawn is run again on symbols.
"""

from __future__ import annotations

import numpy as np

from minigrad import Tensor
from minigrad.tensor import apply

from ..formula.equations import equations
from ..read.network import QUANTITY, Network

LONGEST = 12  # lines of equations that still are read


def sizes(network: Network) -> str:
    """T, N, D, H and the outputs; over how many sequences a norm goes."""
    said = [f"T = {len(network.steps)} steps"]
    batch = None
    for band in network.bands:
        of = f" of {band}" if len(network.bands) > 1 else ""
        first = next(t for b, t in network.cells if b == band)
        x = next((g.out for g in network.inputs.get((band, first), ())), None)
        state = next((g.out for s in network.carried[band] if (g := network.find(band, first, s))), None)
        if state is not None and state.ndim == 2:
            batch = state.shape[0]
            said.append(f"H = {state.shape[1]} units{of}")
        if x is not None and x.ndim == 2:
            batch = x.shape[0] if batch is None else batch
            said.insert(len(said) - (state is not None and state.ndim == 2), f"D = {x.shape[1]} inputs{of}")
    y = next((g.out for g in network.outputs.values()), None)
    if y is not None and y.ndim:
        said.append(f"{y.shape[-1]} outputs at {len(network.outputs)} step{'s' * (len(network.outputs) > 1)}")
    if batch is not None:
        whole = f"N = {batch} sequence{'s' * (batch > 1)}"
        said.insert(1, whole + " (rows of cells; a norm is over all of them)" * (batch > 1))
    return ",  ".join(said)


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
        groups = network.cells[band, t]
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
        own = {x.name: x for n in self.nodes for x in n.inputs if x.op is None and x.requires_grad and x.name}
        data = {x.number for x in (self.x, *self.before)}
        return {str(name): x for name, x in own.items() if x.number not in data}

    def initial_state(self, sequences: int) -> tuple:
        return tuple(np.zeros((sequences, *b.shape[1:]), b.dtype) for b in self.before)

    def step(self, x: Tensor, *state: Tensor) -> dict[str, Tensor]:
        made = {self.x.number: x} | {old.number: new for old, new in zip(self.before, state, strict=True)}
        for n in self.nodes:
            made[n.number] = apply(n.op, tuple(made.get(i.number, i) for i in n.inputs), n.params)  # type: ignore[arg-type]
        return {name: made[q.number].named(name) for name, q in self.quantities.items()}
