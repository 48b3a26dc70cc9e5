"""The named quantities of a cell over time, with their gradients: where they stand, in numbers and words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad import InputError

from ..language.catalogue import deferred, tr
from ..language.status import norms
from ..language.text import number, pretty
from ..read.network import QUANTITY, Group, Network, gradient_of, gradient_status
from ..read.units import NEAR, RANGES
from .reasons import zero_because


@dataclass
class Quantity:
    """One quantity of a layer: values (steps, sequences, units), NaN at the steps that do not have it."""

    band: str
    name: str
    kind: str  # "sigmoid", "tanh" or "": its last operation, where that has two ends
    symbol: str
    values: np.ndarray
    gradients: np.ndarray | None  # of the same shape, NaN at steps where none is known; None: at no step
    statuses: list[
        str | None
    ]  # why there is none, by step; None where there is one, "" where there is no quantity
    zeros: dict[int, str]  # steps at which the gradient is exactly zero, and why, where it is known

    @property
    def key(self) -> str:
        """Its name among all: that of its layer before its own."""
        return f"{self.band} / {self.name}" if self.band else self.name

    @property
    def is_gate(self) -> bool:
        return self.kind == "sigmoid"

    @property
    def sizes(self) -> np.ndarray:
        """‖∂L/∂quantity‖ at each step, over all sequences and units."""
        assert self.gradients is not None
        return norms(self.gradients)

    @property
    def saturated(self) -> np.ndarray:
        """The share of units at either end of the range, by step."""
        low, high = RANGES[self.kind]
        return ((self.values > high - NEAR) | (self.values < low + NEAR)).mean(axis=(1, 2))

    def means(self) -> np.ndarray:
        """By step, of what is finite."""
        return np.array([mean_of_finite(own) for own in self.values])

    @property
    def stands(self) -> str:
        """Of a gate, by its mean: shut, open, or nothing."""
        return standing(mean_of_finite(self.values)) if self.is_gate else ""

    def figures(self) -> str:
        """Mean and range in numbers."""
        finite = self.values[np.isfinite(self.values)]
        if not finite.size:
            return tr("no finite value")
        mean, ends = float(finite.mean()), f"{number(finite.min())} … {number(finite.max())}"
        said = [tr("mean {mean}", mean=number(mean)), ends]
        if self.kind:
            said.append(tr("{share:.0f} % saturated", share=100 * float(np.mean(self.saturated))))
        return f"{self.symbol}  {', '.join(said)}".strip()

    def slopes(self) -> str:
        """The range of its gradient in numbers, and why it is zero where it is."""
        sizes = self.sizes[np.isfinite(self.sizes)] if self.gradients is not None else np.array([])
        said = [f"‖·‖ {number(sizes.min())} … {number(sizes.max())}"] if sizes.size else []
        said += [tr("0 at t = {t}, as {why}", t=t, why=why) for t, why in self.zeros.items() if why][:1]
        return ", ".join(said)


def standing(mean: float) -> str:
    """What is said of a gate by its mean: shut, open, or nothing."""
    return deferred("shut") if mean < NEAR else deferred("open") if mean > 1 - NEAR else ""


def mean_of_finite(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def quantities(network: Network) -> list[Quantity]:
    """Those of all layers, in the order of layers and equations; raises InputError where none can be shown."""
    found = []
    for band in network.bands:
        names = dict.fromkeys(
            g.name for t in network.times for g in network.cells.get((band, t), ()) if g.kind == QUANTITY
        )
        found += [_quantity(network, band, name) for name in names]
    if not found:
        raise InputError(
            "gates: nothing in the steps bears a name; name what is to be seen, as tensor.named('f')"
        )
    if not min(q.values.shape[1] for q in found):
        raise InputError("gates: the steps hold N = 0 sequences, so there are no values to show")
    return found


def _quantity(network: Network, band: str, name: str) -> Quantity:
    groups: list[Group | None] = [network.find(band, t, name) for t in network.times]
    last = [g.out for g in groups if g is not None][-1]
    if any(g is not None and g.out.is_symbol for g in groups):
        raise InputError(
            f"gates: {pretty(name)} is a symbol of a traced graph and has no value; run the cell on arrays"
        )
    shape = np.asarray(last.value).reshape(-1, last.shape[-1] if last.shape else 1).shape
    values, gradients = np.full((2, len(groups), *shape), np.nan)
    statuses: list[str | None] = []
    zeros: dict[int, str] = {}
    for k, g in enumerate(groups):
        if g is None:
            statuses.append("")
            continue
        values[k] = g.out.value.reshape(shape)
        part = gradient_of(network.statuses, g.out)
        statuses.append(None if part is not None else gradient_status(network.statuses, g.out)[1])
        if part is not None:
            gradients[k] = part.reshape(shape)
            if not part.any():
                zeros[network.times[k]] = zero_because(network, g)
    kind = last.op.name if last.op is not None and last.op.name in RANGES else ""
    known = any(s is None for s in statuses)
    symbol = last.op.symbol if kind and last.op is not None else ""
    return Quantity(band, name, kind, symbol, values, gradients if known else None, statuses, zeros)
