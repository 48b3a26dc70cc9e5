"""Which step's loss sends how much gradient back to which step, measured for every quantity.

One walk over the graph carries the gradients of all steps' losses side by side, so that
the whole matrix costs a few backward passes, not one for every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minigrad import InputError, Tensor, describe
from minigrad.items import itemised, reach, rows_of, together

from ..language.status import norms
from ..read.network import QUANTITY, SHARED, Network
from .transport import halving, rate
from .ways import where

MOST_LOSSES = 100
NO_WAY, CUT_OFF, FLOWS = 0, 1, 2  # between a loss and a state


@dataclass
class Matrix:
    """‖∂L_s/∂q_t‖ of one quantity q: rows s (`losses`), columns t (`times`); NaN where no way leads."""

    band: str
    name: str
    losses: list[int]
    times: list[int]
    there: np.ndarray  # at which of these times the quantity is there
    norms: np.ndarray
    ways: np.ndarray  # NO_WAY, CUT_OFF or FLOWS
    entry: int | None = (
        None  # the only step through which losses reach this layer, such as the last of an encoder
    )

    @property
    def key(self) -> str:
        """Its name among all: that of its layer before its own."""
        return f"{self.band} / {self.name}" if self.band else self.name

    @property
    def mirrored(self) -> bool:
        """Whether later states feel earlier losses: a layer that reads the sequence from its end."""
        if self.entry is not None:
            return bool((self.ways[:, np.array(self.times) > self.entry] != NO_WAY).any())
        return bool((self.ways[np.less.outer(self.losses, self.times)] != NO_WAY).any())

    @cached_property
    def by_distance(self) -> dict[int, np.ndarray]:
        """The positive finite norms for each number of steps that they came back over."""
        counts = np.array([self.back(r) for r in range(len(self.losses))])
        good = (self.ways == FLOWS) & np.isfinite(self.norms) & (self.norms > 0)
        return {int(d): self.norms[good & (counts == d)] for d in np.unique(counts[good])}

    def back(self, r: int) -> np.ndarray:
        """Over how many steps of this layer a loss comes back to each of its states."""
        return np.abs(np.array(self.times) - (self.losses[r] if self.entry is None else self.entry))

    def row(self, r: int) -> tuple[np.ndarray, np.ndarray]:
        """(steps back, norms) of a loss, nearest first."""
        back = self.back(r)
        order = [k for k in np.argsort(back, kind="stable") if self.ways[r, k] == FLOWS]
        return back[order].astype(float), self.norms[r, order]

    @property
    def cuts(self) -> list[tuple[int, int]]:
        """The steps before and behind each cut that a loss does not reach back over, from the last to the first."""
        found = set()
        for own in self.ways:
            reached, beyond = np.flatnonzero(own == FLOWS), np.flatnonzero(own == CUT_OFF)
            if not len(reached):
                continue
            if self.mirrored:
                k = reached[-1]
                near = beyond[beyond > k][:1]
            else:
                k = reached[0]
                near = beyond[beyond < k][-1:]
            found.update((int(min(k, b)), int(max(k, b))) for b in near)
        return [(self.times[a], self.times[b]) for a, b in sorted(found, reverse=True)]

    @property
    def half_lives(self) -> list[float]:
        """Steps in which the gradient halves (negative: doubles), one for each stretch between cuts."""
        stretches: dict[int, list] = {}
        for r in range(len(self.losses)):
            k = np.flatnonzero(self.ways[r] == FLOWS)
            if len(k):
                far = max(k, key=self.back(r).__getitem__)
                stretches.setdefault(int(far), []).append(self.row(r))
        if len(self.by_distance) < 3:
            return []
        return [v for rows in stretches.values() if (v := halving(rate(rows))) is not None]

    @property
    def slope(self) -> tuple[float, float]:
        """The line of all rows on a logarithmic scale: its norm where it begins, and the factor of a step."""
        every = [self.row(r) for r in range(len(self.losses))]
        step = rate(every) or 0.0
        good = [(np.isfinite(v) & (v > 0) & (d > 0), d, v) for d, v in every]
        start = np.median(np.concatenate([np.log(v[ok]) - step * d[ok] for ok, d, v in good]))
        return float(np.exp(start)), float(np.exp(step))


def losses_of(what) -> tuple[Tensor, list[Tensor]]:
    losses = [what] if isinstance(what, Tensor) else list(what) if isinstance(what, (list, tuple)) else []
    if not losses or not all(isinstance(y, Tensor) for y in losses):
        raise InputError(
            f"bptt: give the loss, or a list with a loss for each step, not {type(what).__name__}"
            + (f" of {type(losses[0]).__name__}" if losses else "")
        )
    for y in losses:
        if y.is_symbol or y.size != 1 or y.dtype.kind != "f":
            raise InputError(f"bptt: a loss is a single number with a value, not {describe(y)}; take .mean()")
    root = losses[0]
    for y in losses[1:]:
        root = root + y
    return root, losses


def matrices(network: Network, losses: Sequence[Tensor]) -> list[Matrix]:
    """The matrix of every quantity, in the order of layers and equations."""
    places = where(network)
    times, seeds, starts = places.times, [], []
    for k, y in enumerate(losses):
        label = None if len(losses) == 1 else network.times[k] if len(losses) == len(network.times) else k + 1
        seeds += [(n, t if label is None else label, part) for n, t, part in places.entrances(y)]
        for x in reach([(y, 0)], places.outside, times, cuts=False):
            if x in times:
                starts.append((x, times[x] if label is None else label))
    if not starts:
        raise InputError("bptt: the loss depends on no step of this graph; there is nothing to follow")
    labels = sorted({label for _, label in starts})
    labels = labels[:: -max(1, -(-len(labels) // MOST_LOSSES))][::-1]
    rows = {label: r for r, label in enumerate(labels)}
    by_number = {n.number: n for n in network.nodes}
    return _measured(
        network, labels, [(n, rows[s], g) for n, s, g in seeds if s in rows],
        [(by_number[n], rows[s]) for n, s in starts if s in rows], set(places.place) | places.outside, set(places.first),
    )  # fmt: skip


def _measured(network: Network, labels, seeds, starts, through: set[int], first: set[int]) -> list[Matrix]:
    """Follow what enters at `seeds`, and the norms of what arrives at every quantity."""
    nodes: dict[tuple[str, str], dict[int, Tensor]] = {}
    for (band, t), groups in network.cells.items():
        for g in groups:
            if g.kind == QUANTITY:
                nodes.setdefault((band, g.name), {})[t] = g.out
    for key, g in network.first.items():
        nodes.get(key, {})[g.t] = g.out
    times = sorted({t for own in nodes.values() for t in own})
    entries = _entries(network, {network.group_of[n.number].band for n, _, _ in seeds})
    at: dict[int, tuple[Matrix, int]] = {}
    found = []
    for key, own in sorted(nodes.items(), key=lambda item: network.bands.index(item[0][0])):
        empty = (len(labels), len(times))
        there = np.array([t in own for t in times])
        norms_, ways = np.full(empty, np.nan), np.zeros(empty, np.int8)
        found.append(Matrix(*key, labels, times, there, norms_, ways, entries.get(key[0])))
        at.update({own[t].number: (found[-1], k) for k, t in enumerate(times) if t in own})
    for x, bits in reach(starts, through, first, cuts=False).items():
        if x in at:
            matrix, k = at[x]
            matrix.ways[rows_of(together(bits)), k] = CUT_OFF
    for n, items, batch in itemised(seeds, through, first):
        if n.number in at:
            matrix, k = at[n.number]
            matrix.norms[items, k], matrix.ways[items, k] = norms(batch), FLOWS
    return found


def _entries(network: Network, heard: set[str]) -> dict[str, int]:
    """By layer that hears no loss itself: the step whose quantities other layers read, where that is a single one."""
    read: dict[str, set[int]] = {}
    for n in network.nodes:
        own = network.group_of[n.number]
        for x in n.inputs:
            g = network.group_of[x.number]
            outer = own.kind not in (QUANTITY, SHARED) or own.band != g.band
            if outer and g.kind in (QUANTITY, SHARED) and g.band not in heard:
                read.setdefault(g.band, set()).add(g.t)
    return {band: times.pop() for band, times in read.items() if len(times) == 1}


def arrays(found: list[Matrix]) -> dict[str, np.ndarray]:
    """The norms by the names of layers and quantities, with the steps of rows and columns."""
    places = {"s": np.array(found[0].losses), "t": np.array(found[0].times)}
    return places | {m.key: m.norms for m in found}
