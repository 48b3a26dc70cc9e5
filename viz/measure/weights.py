"""What each step alone adds to the gradient of each weight, and how far the steps agree."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minigrad.items import itemised

from ..language.catalogue import deferred
from ..language.status import norm
from ..read.network import OUTPUT, Network
from .ways import before_steps, weight_names, where

AT_ONCE = deferred("at once")  # what no single step adds: a product over all steps outside of them


@dataclass
class Parts:
    """The gradient of one weight: by step its norm, and the sum of all."""

    name: str
    norms: dict[int | str, float] = field(default_factory=dict)
    total: np.ndarray | None = None

    @property
    def agreement(self) -> float | None:
        """‖sum‖ ÷ sum of norms: 1 where all steps pull the same way."""
        sizes = sum(self.norms.values())
        return norm(self.total) / sizes if self.total is not None and sizes and np.isfinite(sizes) else None


def by_step(network: Network) -> list[Parts]:
    """The parts of every weight, in the order in which the weights were made."""
    places, leaves = where(network), {number: Parts(name) for number, name in weight_names(network).items()}
    through = before_steps(network)
    seeds: dict[int | str, list] = {}
    for n in network.nodes:
        if n.op is None or n.number in through or not n.contributions:
            continue
        g = network.group_of[n.number]
        when = places.place.get(n.number, g.t if g.kind == OUTPUT else AT_ONCE)
        when = when if when in network.times else AT_ONCE  # a learned first state
        for x, part in zip(n.inputs, n.contributions, strict=True):
            if part is not None and (x.number in leaves or x.number in through):
                seeds.setdefault(when, []).append((x, 0, part))
    for when, own in seeds.items():
        for n, _, batch in itemised(own, through, leaves):
            if n.number in leaves:
                p, part = leaves[n.number], batch[0].astype(np.float64)
                p.norms[when] = norm(part)
                p.total = part if p.total is None else p.total + part
    return list(leaves.values())
