"""Direct and total: what the loss of a step itself sends to its state, beside all that arrives there."""

from __future__ import annotations

import numpy as np

from minigrad import Tensor
from minigrad.items import itemised

from ..language.status import norm
from ..language.text import key
from ..read.network import Network, gradient_of, gradient_status
from .ways import where

NOTHING_LEFT = 1e-3  # of both parts' norms; of less, which may be rounding, a share says nothing
PARTS = ("direct", "from other steps", "total")


class Direct:
    """One state over time: its gradient (total), the part of its own step's loss (direct), and the rest."""

    def __init__(self, band: str, name: str, times: list[int]):
        self.band, self.name, self.times = band, name, times
        self.vectors: dict[str, dict[int, np.ndarray]] = {kind: {} for kind in PARTS}
        self.why: dict[int, str | None] = {}

    def norm(self, kind: str, t: int) -> float | None:
        return norm(self.vectors[kind][t]) if t in self.vectors[kind] else None

    def share(self, t: int) -> float | None:
        """The share of the direct part in the total: its length along it."""
        a, b = self.vectors["direct"].get(t), self.vectors["total"].get(t)
        if a is None or b is None or not norm(b) or not np.isfinite(norm(b)):
            return None
        if norm(b) < NOTHING_LEFT * (norm(a) + norm(b - a)):  # both cancel
            return None
        unit = b / norm(b)
        return float((a / norm(b) * unit).sum())


def measured(network: Network, root: Tensor, which: list[tuple[str, str]], times: list[int]) -> list[Direct]:
    """Both gradients of the states `which` at `times`."""
    places = where(network)
    known = network.computed
    entered: dict[int, list] = {}
    for n, t, part in places.entrances(root) if known else ():
        entered.setdefault(t, []).append((n, 0, part))
    at_step: dict[int, set[int]] = {}
    for n, t in places.place.items():
        at_step.setdefault(t, set()).add(n)
    found = [Direct(band, name, times) for band, name in which]
    for t in times:
        nodes = {}
        for d in found:
            first = network.first.get((d.band, d.name))
            g = network.find(d.band, t, d.name) or (first if first is not None and first.t == t else None)
            if g is not None:
                nodes[g.out.number] = (d, g.out)
                d.why[t] = gradient_status(network.statuses, g.out)[1]
        through = at_step.get(t, set()) | places.outside
        parts = {
            n.number: batch[0]
            for n, _, batch in itemised(entered.get(t, ()), through, nodes)
            if n.number in nodes
        }
        for number_, (d, node) in nodes.items():
            total = gradient_of(network.statuses, node)
            if total is not None and known:
                own = np.asarray(parts.get(number_, np.zeros(node.shape)), np.float64)
                total = np.asarray(total, np.float64)
                with np.errstate(invalid="ignore"):  # ∞ − ∞
                    rest = total - own
                if norm(rest) <= 8 * np.finfo(node.dtype).eps * norm(total):
                    rest = np.zeros(node.shape)  # what rounding leaves of nothing
                d.vectors["total"][t], d.vectors["direct"][t], d.vectors["from other steps"][t] = (
                    total,
                    own,
                    rest,
                )
    return found


def arrays(found: list[Direct]) -> dict[str, np.ndarray]:
    """The vectors by name, (steps, N, H), at the steps "t"; NaN: not known."""
    data = {"t": np.array(found[0].times)}
    for d in found:
        shape = next((v.shape for v in d.vectors["total"].values()), ())
        for kind, own in d.vectors.items():
            rows = [own.get(t, np.full(shape, np.nan)) for t in d.times]
            data[key(d.band, f"d{d.name} {kind}")] = np.array(rows)
    return data
