"""Several runs measured alike: the gradient of one state of each, the quantities that they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad import InputError

from ..language.catalogue import tr
from ..language.text import pretty
from ..read.network import QUANTITY, Network, gradient_status, read, roots_of
from . import words
from .transport import transports


@dataclass
class Run:
    """One network: its name, its graph, and which state of which layer stands for it."""

    name: str
    network: Network
    band: str
    state: str

    def gradient(self, t: int) -> tuple[float | None, str | None]:
        """‖∂L/∂state_t‖, or None and why."""
        first = self.network.first.get((self.band, self.state))
        g = self.network.find(self.band, t, self.state) or (
            first if first is not None and first.t == t else None
        )
        return gradient_status(self.network.statuses, g.out) if g is not None else (None, "")

    @property
    def quantities(self) -> list[str]:
        cell = next(groups for (band, _), groups in self.network.cells.items() if band == self.band)
        return [g.name for g in cell if g.kind == QUANTITY and g.name]

    def values(self, name: str) -> dict[int, np.ndarray]:
        """A quantity (N, H) at every step."""
        found = {t: self.network.find(self.band, t, name) for t in self.network.times}
        return {t: g.out.value for t, g in found.items() if g is not None and g.out.value.size}


@dataclass
class Shared:
    """A quantity of all runs: its means over units and sequences, by run and step."""

    name: str
    gate: bool  # never negative; else the means are of sizes
    means: dict[str, dict[int, float]]

    @property
    def title(self) -> str:
        return (
            tr("mean {name}", name=pretty(self.name))
            if self.gate
            else tr("mean |{name}|", name=pretty(self.name))
        )

    @staticmethod
    def of(found: list[Run], name: str) -> Shared:
        """The mean of a gate; of what is positive and negative, such as a candidate, the mean size."""
        values = {r.name: r.values(name) for r in found}
        gate = all((v >= 0).all() for own in values.values() for v in own.values())
        means = {
            run: {t: float(np.mean(v if gate else np.abs(v), dtype=np.float64)) for t, v in own.items()}
            for run, own in values.items()
        }
        return Shared(name, gate, means)


def run_of(name: str, what, of: str | None, captions) -> Run:
    root, records = roots_of(what)
    network = read(root, records, captions)
    for band in reversed(network.bands if network is not None else ()):
        assert network is not None
        names = network.carried[band]
        if names and of in (None, *names):
            return Run(name, network, band, of or names[-1])
    raise InputError(f"compare: {name} carries no state{f' {of!r}' if of else ''} from step to step")


def shared_quantities(found: list[Run]) -> list[Shared]:
    """The quantities that all runs have, in the order of the first."""
    names = [q for q in found[0].quantities if all(q in r.quantities for r in found[1:])]
    return [Shared.of(found, name) for name in names]


def same_inputs(found: list[Run]) -> bool | None:
    """Whether all runs read the same values; None where some read none that can be compared."""

    def read_by(r: Run, t: int):
        return next((g[0].out for (_, s), g in r.network.inputs.items() if s == t and g), None)

    for t in found[0].network.times:
        values = [read_by(r, t) for r in found]
        if any(v is None for v in values):
            return None
        if not all(v is not None and np.array_equal(v.value, values[0].value) for v in values):  # type: ignore[union-attr]
            return False
    return True


def arrays(found: list[Run], shared: list[Shared]) -> dict[str, np.ndarray]:
    times = found[0].network.times
    data = {"t": np.array(times)}
    for r in found:
        data[f"{r.name} d{r.state}"] = _floats(r.gradient(t)[0] for t in times)
        data |= {f"{r.name} {q.name}": _floats(q.means[r.name].get(t) for t in times) for q in shared}
    return data


def _floats(values) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values])


def ratio(value: float | None, first: float | None) -> float | None:
    return (
        value / first if value is not None and first and np.isfinite(value) and np.isfinite(first) else None
    )


def verdict(r: Run) -> str:
    """In words: the loss, and how much of the gradient a step carries back."""
    one = next((x for x in transports(r.network) if x.band == r.band), None)
    if one is None:
        return tr("not computed: run loss.backward(record=True)")
    loss = f"L = {r.network.end_text.split()[-1]}. " if r.network.end_text.split()[1:] else ""
    return loss + " ".join(words.sentences(one, own=False))
