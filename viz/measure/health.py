"""What a health report measures on one graph: the way back through the states, gates, rectifiers, weights, losses by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from minigrad import InputError, Tensor, ancestors, describe

from ..language.catalogue import deferred
from ..language.status import CUT, NORMAL, NOT_A_NUMBER, NOT_COMPUTED, ZERO, norm
from ..language.text import Keys, clean
from ..read.network import CUT_STATUS, Network, gradient_of, read, roots_of, statuses_of, step_of
from ..read.units import Gate, Rectifier, gates_of, rectifier_input, rectifiers_of
from .recurrence import Decay, decays
from .ways import weight_names, where

FROZEN = deferred("frozen")  # the status of a weight beside those of its gradient


@dataclass
class Weight:
    """A parameter: its name, the norm of its gradient, and its status in a word."""

    name: str
    tensor: Tensor
    norm: float | None
    status: str


@dataclass
class Facts:
    """All that is measured on one graph."""

    root: Tensor
    nodes: list[Tensor]
    network: Network | None
    statuses: dict[int, str]
    given: dict[int, str] | None  # names of the parameters that training moves, by number
    unused: list[str]
    decays: list[Decay] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    rectifiers: list[Rectifier] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)

    @cached_property
    def computed(self) -> bool:
        reached = [self.root] if self.root.size == 1 else self.nodes  # steps alone: their loss is outside
        return any(n.contributions for n in reached)

    @cached_property
    def entries(self) -> dict[int, float]:
        """How much gradient the loss itself sends into each step."""
        found: dict[int, list[float]] = {}
        if self.network is not None and self.root.size == 1 and self.root.dtype.kind == "f":
            for _, t, part in where(self.network).entrances(self.root):
                found.setdefault(t, []).append(norm(part))
        return {t: norm(np.array(v)) for t, v in sorted(found.items())}

    @cached_property
    def depth(self) -> list[tuple[str, float]]:
        """‖∂L/∂·‖ from the first layer to the last: of states by layer, else of what activations give."""
        if self.network is not None:
            found = [
                (band, max((norm(g) for t in decay.times if (g := self._state_gradient(decay, t)) is not None), default=0.0))
                for decay in self.decays
                for band in [decay.band]
            ]  # fmt: skip
            return found if len(found) > 1 and not self.network.mirrored else []
        chain = [n for n in self.nodes if _activation(n) and gradient_of(self.statuses, n) is not None]
        return [(n.name or f"{k}", norm(n.grad)) for k, n in enumerate(chain, 1)] if len(chain) > 1 else []

    def _state_gradient(self, decay: Decay, t: int) -> np.ndarray | None:
        assert self.network is not None
        g = self.network.find(decay.band, t, decay.states[-1])
        return gradient_of(self.statuses, g.out) if g is not None else None


def facts_of(what, steps=None, parameters=None) -> Facts:
    """Measure everything; raises InputError for what is not a graph with values."""
    root, records = roots_of(what, steps)
    if root.is_symbol:
        raise InputError(
            f"report: {describe(root)} is a symbol without a value; give the loss of an eager run"
        )
    network = read(root, records)
    nodes = network.nodes if network is not None else ancestors(root)
    given = _given(parameters)
    there = {n.number for n in nodes}
    unused = [name for number_, name in (given or {}).items() if number_ not in there]
    facts = Facts(root, nodes, network, statuses_of(root), given, unused)
    if network is not None:
        facts.decays = decays(network)
    facts.gates, facts.rectifiers = gates_of(nodes, network), rectifiers_of(nodes, network)
    facts.weights = _weights(facts)
    return facts


def _given(parameters) -> dict[int, str] | None:
    if parameters is None:
        return None
    pairs = parameters.items() if isinstance(parameters, Mapping) else ((None, p) for p in parameters)
    found = {}
    for name, p in pairs:
        if not isinstance(p, Tensor):
            raise InputError(
                f"report: a parameter is {type(p).__name__}; give tensors, or a dict of them by name"
            )
        found[p.number] = str(name or p.name or "weight")
    return found


def _activation(n: Tensor) -> bool:
    return n.op is not None and (n.op.name in ("sigmoid", "tanh") or rectifier_input(n) is not None)


# Weights.


def _weights(facts: Facts) -> list[Weight]:
    names = weight_names(facts.network) if facts.network is not None else {}
    frozen = _frozen(facts.nodes)
    fresh, found = Keys().fresh, []
    data = facts.network.data if facts.network is not None else set()
    for n in facts.nodes:
        learns = n.op is None and n.requires_grad and n.number not in data
        if not learns and n.number not in frozen:
            continue
        name = (facts.given or {}).get(n.number) or names.get(n.number)
        if name is None:
            band = frozen.get(n.number, "")
            several = facts.network is not None and len(facts.network.bands) > 1
            name = fresh(f"{band} / {n.name or 'weight'}" if band and several else n.name or "weight")
        gradient = gradient_of(facts.statuses, n)
        size = None if gradient is None or not facts.computed else norm(gradient)
        if not learns:
            status = FROZEN
        elif facts.statuses.get(n.number) == CUT_STATUS:
            status = CUT
        else:
            status = (
                NOT_COMPUTED
                if size is None
                else NOT_A_NUMBER
                if not np.isfinite(size)
                else NORMAL
                if size
                else ZERO
            )
        found.append(Weight(clean(name), n, size, status))
    return found


def _frozen(nodes: Sequence[Tensor]) -> dict[int, str]:
    """Weights that do not learn, by number, with their layer: named leaves on the right of a product, and vectors
    beside one, that require no gradient, and what a layer has frozen.  What has no name is a constant of the equations,
    as is a number."""
    found: dict[int, str] = {}
    for n in nodes:
        if n.op is None:
            continue
        at = step_of(n)
        band = at[0] if at else " / ".join(n.scope)
        for x in n.inputs:
            if x.is_parameter and not x.requires_grad:  # a layer says so itself
                found.setdefault(x.number, band)
        if n.op.kind == "product" and not n.inputs[0].is_parameter:
            for x in _leaves(n.inputs[1]):
                found.setdefault(x.number, band)
        elif n.op.name == "gather" and _is_still(n.inputs[0]) and n.inputs[0].ndim == 2 and n.inputs[0].name:
            found.setdefault(n.inputs[0].number, band)
        elif n.op.name in ("add", "mul"):
            for x, other in (n.inputs, n.inputs[::-1]):
                vector = _is_still(x) and x.ndim == 1 and x.size > 1 and x.name
                if vector and other.op is not None and other.shape[-1:] == x.shape:
                    found.setdefault(x.number, band)
    return found


def _is_still(x: Tensor) -> bool:
    return (
        x.op is None and not x.requires_grad and not x.is_constant and not x.is_symbol and x.dtype.kind == "f"
    )


def _leaves(x: Tensor) -> list[Tensor]:
    """The leaves of a matrix of weights, through slices and the norm of weights; none where a matrix learns or it is
    data."""
    if x.ndim != 2:
        return []
    leaves, pending = [], [x]
    while pending:
        n = pending.pop()
        if n.op is None:
            if n.requires_grad and n.ndim > 1:
                return []
            leaves += [n] * (n.ndim > 1 and bool(n.name) and _is_still(n))
        elif n.op.kind in ("structure", "elementwise", "reduction"):
            pending.extend(n.inputs)
        else:
            return []
        if len(leaves) > 4:
            return []
    return [n for n in leaves if step_of(n) is None]  # what was made in a step is data
