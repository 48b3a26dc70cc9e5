"""Steps of one structure: a picture is laid out once for all of them, and only its numbers differ.

Two steps are alike where their operations, names, shapes, ways of reading each other, cuts and
missing gradients are the same, node by node.  Then the k-th node of the one has its place where
the k-th node of the other has, and the numbers of all can be computed as one array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minigrad import Tensor
from minigrad.audit import NOT_COMPUTED as UNKNOWN

from ..measure.links import Transport
from ..read.network import (
    END,
    FIRST,
    INPUT,
    OUTPUT,
    PARAMETER,
    QUANTITY,
    SHARED,
    Group,
    Network,
    edge_gradient,
    gradient_of,
)

Use = tuple[Tensor, int, Tensor]  # a node, which of its inputs, and that input
INSIDE = (QUANTITY, SHARED, INPUT, OUTPUT)


@dataclass(eq=False)
class Step:
    """What belongs to one step, in the order of computation.

    t : None for a graph without steps.
    uses : what its nodes read, and after these the reads of its nodes from outside.
    """

    t: int | None
    nodes: list[Tensor] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)


@dataclass(eq=False)
class Kind:
    """Steps that are alike; `at`: their places in the order of time."""

    signature: tuple
    statuses: dict[int, str]
    steps: list[Step] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)  # uses that read what a picture shows besides: weights

    @property
    def example(self) -> Step:
        """The one by which the picture is laid out."""
        return self.steps[len(self.steps) // 2]

    def node(self, step: Step, k: int) -> Tensor:
        """The k-th node; after those of the step come those outside."""
        own = len(step.nodes)
        return step.nodes[k] if k < own else step.uses[self.outside[k - own]][2]

    def gradient(self, k: int) -> bool:
        """Whether the gradient of the k-th node is known."""
        return gradient_of(self.statuses, self.node(self.example, k)) is not None

    def part(self, u: int) -> bool:
        """Whether it is known what flowed along a use."""
        n, k, _ = self.example.uses[u]
        return bool(n.contributions) and n.contributions[k] is not None


def kinds(
    network: Network | None, nodes: Sequence[Tensor], statuses: dict[int, str], transport: Sequence[Transport]
) -> list[Kind]:
    """The steps of a network by their structure, in the order in which they occur; a graph without steps is one."""
    if network is None:
        whole = Step(None, list(nodes), [(n, k, x) for n in nodes for k, x in enumerate(n.inputs)])
        return [Kind(("graph", *_signature(whole, None, statuses, ())), statuses, [whole], [0])]
    found: dict[tuple, Kind] = {}
    cuts: dict[int, list[tuple]] = {}
    for one in transport:
        for link in one.links:
            if link.cut:
                cuts.setdefault(link.after, []).append((one.band, *link.cut))
    for k, step in enumerate(_steps(network, nodes)):
        ends = min(k, 1), min(len(network.times) - 1 - k, 1)
        signature = (*ends, *_signature(step, network, statuses, cuts.get(step.t or 0, ())))
        kind = found.setdefault(signature, Kind(signature, statuses))
        kind.steps.append(step)
        kind.at.append(k)
    return list(found.values())


def _steps(network: Network, nodes: Sequence[Tensor]) -> list[Step]:
    """A first state belongs to the step that reads it."""
    found = {t: Step(t) for t in network.times}
    start = {id(g): t for g in network.first.values() if (t := _reader(network, g)) is not None}
    home: dict[int, Step] = {}
    for n in nodes:
        g = network.group_of[n.number]
        own = found.get(g.t) if g.kind in INSIDE else found.get(start.get(id(g), -1))
        if own is not None:
            home[n.number] = own
            own.nodes.append(n)
    for n in nodes:
        own = home.get(n.number)
        if own is not None:
            own.uses += [(n, k, x) for k, x in enumerate(n.inputs)]
    for n in nodes:
        own = home.get(n.number)
        for k, x in enumerate(n.inputs):
            there = home.get(x.number)
            if there is not None and there is not own:
                there.uses.append((n, k, x))
    return list(found.values())


def _reader(network: Network, first: Group) -> int | None:
    """The step that takes up a first state: the one of its layer that is computed first."""
    return next((t for b, t in network.cells if b == first.band), None)


def _signature(step: Step, network: Network | None, statuses: dict[int, str], cuts: Sequence) -> tuple:
    """All on which the picture of a step depends besides its numbers."""
    own = {n.number: k for k, n in enumerate(step.nodes)}
    others: dict[int, int] = {}  # by order of appearance, as numbers differ from step to step

    def outside(n: Tensor) -> tuple:
        if n.op is None and n.shape == () and not n.requires_grad and not n.is_symbol:
            return ("constant", n.value.item(), n.name)
        g = network.group_of[n.number] if network is not None else None
        shift = g.t - step.t if g is not None and g.kind not in (END, PARAMETER, FIRST) else 0
        which = others.setdefault(n.number, len(others)) if g is not None and g.kind == PARAMETER else 0
        role = (g.kind, g.band, g.name, shift) if g is not None else ()
        return (*role, which, n.name, n.op and n.op.name, n.shape, n.requires_grad)

    def inside(n: Tensor) -> tuple:
        g = network.group_of[n.number] if network is not None else None
        known = None if n.grad is not None and statuses.get(n.number) != UNKNOWN else statuses.get(n.number)
        power = n.params[0] if n.op is not None and n.op.name == "power" else None
        role = (g.kind, g.band, g.name) if g is not None else ()
        return (
            *role,
            n.name,
            n.op and n.op.name,
            power,
            n.shape,
            n.dtype.str,
            n.is_symbol,
            known,
            n.requires_grad,
        )

    def use(n: Tensor, k: int, x: Tensor) -> tuple:
        part, why = edge_gradient(statuses, n, k, x)
        reads = own.get(n.number)
        ends = (
            (reads, k) if reads is not None else outside(n),
            own[x.number] if x.number in own else outside(x),
        )
        return (*ends, part is None, why)

    return (tuple(map(inside, step.nodes)), tuple(use(*u) for u in step.uses), tuple(cuts))
