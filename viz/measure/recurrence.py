"""How fast a gradient decays, or grows, from step to step: measured on the graph of any recurrence.

The way back over a step is walked by itself, from random
gradients of a step's states to those of the step before, so that losses at other steps
hide nothing and nothing underflows: what is measured are Jacobian products ∂state_s/∂state_t.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from minigrad import Tensor
from minigrad.items import itemised, reach

from ..language.status import CUT, NOT_A_NUMBER, ZERO
from ..language.text import clean
from ..read.network import Network, step_of

DIRECTIONS = 4  # random gradients per sequence; fewer where there are many sequences
BURN_IN = 5  # steps until a random gradient has turned to where it shrinks least


@dataclass
class Decay:
    """The way back through the states of one layer; `times` in the order in which the steps were computed."""

    band: str
    states: list[str]
    times: list[int]
    log_factors: np.ndarray  # [k]: mean of log ‖v_k‖/‖v_{k+1}‖ from times[k + 1] back to times[k]; NaN: none
    why: dict[int, str] = field(default_factory=dict)  # by k, why there is none for all states
    cuts: dict[int, list[str]] = field(default_factory=dict)  # by k: states that are cut behind times[k]
    real: np.ndarray | None = None  # (times, sequences): False where a mask only hands the states on
    detached: bool = False  # whether a detach stands in some step
    still: list[str] = field(default_factory=list)  # states that no step hands on by what has a derivative
    blocks: dict[str, np.ndarray] = field(default_factory=dict)  # square blocks of recurrent weights, by name
    gated: bool = False

    @property
    def left(self) -> np.ndarray:
        """log of what is left at times[k] of a gradient that starts at the last step, or at the cut before."""
        left = np.zeros(len(self.times))
        for k in range(len(self.times) - 2, -1, -1):
            # Where all sequences are masked the gradient is handed on as it is.
            left[k] = 0.0 if k in self.why else left[k + 1] + np.nan_to_num(self.log_factors[k])
        return left

    @property
    def rate(self) -> float | None:
        """Change of the logarithm per step (the largest Lyapunov exponent), None where nothing flows.

        A robust line (Theil, 1950; Sen, 1968) through what is left against the steps, from pairs far apart.
        """
        factors = self.log_factors[::-1]
        good = factors[np.isfinite(factors)]
        if not good.size:
            return None
        good = good[min(BURN_IN, len(good) // 4) :]
        points = np.concatenate([[0.0], np.cumsum(good)])
        pairs = [(points[lag:] - points[:-lag]) / lag for lag in range(max(1, len(points) // 2), len(points))]
        return float(np.median(np.concatenate(pairs)))

    @property
    def radii(self) -> dict[str, float]:
        """The spectral radius of every square block of weights by which a state is multiplied."""
        return {
            k: float(np.abs(np.linalg.eigvals(b.astype(np.float64))).max()) for k, b in self.blocks.items()
        }

    @property
    def length(self) -> int:
        return len(self.times) - 1

    @property
    def stretch(self) -> tuple[int, int]:
        """The longest way without a cut: from which of `times` to which, as indices."""
        ends = [-1, *sorted(self.why), len(self.times) - 1]
        start, end = max(itertools.pairwise(ends), key=lambda e: e[1] - e[0])
        return start + 1, end

    @property
    def over(self) -> float | None:
        """log of what is left over that stretch, at the rate."""
        start, end = self.stretch
        return None if self.rate is None else self.rate * (end - start)

    @property
    def half_life(self) -> float | None:
        """Steps in which the gradient halves; negative: in which it doubles; None: it keeps its size."""
        return None if self.rate is None or abs(self.rate) < 1e-12 else -np.log(2) / self.rate


def operations(network: Network) -> tuple[dict[tuple[str, int], set[int]], set[int]]:
    """Numbers of the operations of each layer and step, and of those in no step."""
    inside: dict[tuple[str, int], set[int]] = {}
    free: set[int] = set()
    for n in network.nodes:
        if n.op is not None:
            at = step_of(n)
            (inside.setdefault(at, set()) if at else free).add(n.number)
    return inside, free


# The way back.


def decays(network: Network, seed: int = 0) -> list[Decay]:
    """One `Decay` for each layer that carries a state."""
    inside, free = operations(network)
    found = []
    for band in network.bands:
        names, states = [s for s in network.carried[band] if _moves(network, band, s)], {}
        for t in (t for b, t in network.cells if b == band):
            groups = [network.find(band, t, s) for s in names]
            nodes = [g.out for g in groups if g is not None]
            if names and len(nodes) == len(names) and all(n.size for n in nodes):
                states[t] = nodes
        times = sorted(states, key=lambda t: states[t][0].number)
        if len(times) > 1:
            rng = np.random.default_rng(seed)
            found.append(_decay(network, band, names, times, states, inside, free, rng))
    return found


def _moves(network: Network, band: str, name: str) -> bool:
    """Whether a state has a gradient at all: one of whole numbers, such as a counter, has none."""
    found = (network.find(band, t, name) for b, t in network.cells if b == band)
    return all(g is None or g.out.dtype.kind == "f" for g in found)


def _decay(network, band, names, times, states, inside, free, rng) -> Decay:
    decay = Decay(band, names, times, np.full(len(times) - 1, np.nan))
    decay.real = _real(times, states)
    walk = _Walk(states[times[-1]], rng)
    for k in range(len(times) - 2, -1, -1):
        t, before = times[k + 1], states[times[k]]
        through = inside[band, t] | free
        arrived, reached = walk.back(states[t], before, through)
        lost = cut_states(states[t], before, through, reached)
        if lost:
            decay.cuts[k] = [decay.states[j] for j in lost]
        decay.log_factors[k], why = walk.settle(arrived, real_sequences(states[t][0]))
        if why:
            decay.why[k] = CUT if len(lost) == len(before) else why
        decay.detached |= any(n.op.name == "detach" for g in network.cells[band, t] for n in g.nodes)
    always = [s for s in decay.states if all(s in decay.cuts.get(k, ()) for k in range(len(times) - 1))]
    decay.still = [] if decay.detached or len(always) == len(names) else always
    decay.gated = _gated(network, band, times[-1])
    decay.blocks = _blocks(network, band, times[-1], states[times[-2]])
    return decay


def _gated(network: Network, band: str, t: int) -> bool:
    """Whether what an S-shaped function made is multiplied with something, or divided, or added as a logarithm:
    a gate in whatever form, such as exp(−softplus(a)).  An S-shaped activation alone is none."""
    made: dict[
        int, tuple[str, ...]
    ] = {}  # what is made of one, element by element: by which operations it is a gate
    for n in sorted((n for g in network.cells[band, t] for n in g.nodes), key=lambda n: n.number):
        uses = next((made[x.number] for x in n.inputs if x.number in made), ())
        if n.op.name in uses and all(x.op is not None for x in n.inputs):
            return True
        if uses and n.op.kind != "product":
            made[n.number] = uses
        elif n.op.name in ("sigmoid", "softplus"):
            made[n.number] = ("mul", "div", "add", "sub")[: 4 if n.op.name == "softplus" else 2]
    return False


class _Walk:
    """Random gradients of the states that are carried back step by step, each sequence at length 1."""

    def __init__(self, nodes: Sequence[Tensor], rng: np.random.Generator):
        rows = {n.shape[:-1] for n in nodes if n.ndim}
        self.rows = int(np.prod(rows.pop())) if len(rows) == 1 else 1  # sequences; 1: all at once
        self.count = max(1, min(DIRECTIONS, 16 // max(self.rows, 1)))
        self.now = [rng.standard_normal((self.count, *n.shape)) for n in nodes]

    def _sizes(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Joint norms of all states, (directions, sequences)."""
        with np.errstate(all="ignore"):
            squares = sum(np.square(p.reshape(self.count, self.rows, -1)).sum(axis=-1) for p in parts)
        return np.sqrt(np.asarray(squares))

    def _scaled(self, parts: Sequence[np.ndarray], sizes: np.ndarray) -> list[np.ndarray]:
        return [(p.reshape(self.count, self.rows, -1) / sizes[..., None]).reshape(p.shape) for p in parts]

    def back(self, nodes, before, through) -> tuple[list[np.ndarray], set[int]]:
        """What arrives at the states of the step before, and at which of them a way arrives."""
        sizes = self._sizes(self.now)
        self.now = self._scaled(self.now, sizes)
        seeds = [(n, k, part[k]) for n, part in zip(nodes, self.now, strict=True) for k in range(self.count)]
        wanted = {n.number for n in before}
        got = {
            n.number: (items, batch)
            for n, items, batch in itemised(seeds, through, wanted)
            if n.number in wanted
        }
        arrived = []
        for n in before:
            whole = np.zeros((self.count, *n.shape))
            if n.number in got:
                whole[got[n.number][0]] = got[n.number][1]
            arrived.append(whole)
        return arrived, set(got)

    def settle(self, arrived, real) -> tuple[float, str]:
        """The mean of log factors, or NaN and why there is none; what was lost starts anew, turned as it was."""
        sizes = self._sizes(arrived)
        finite, alive = np.isfinite(sizes), sizes > 0
        counts = finite & alive
        safe = np.where(counts, sizes, 1.0)
        keep = counts.reshape(self.count, self.rows, 1)
        self.now = [
            np.where(keep, a.reshape(self.count, self.rows, -1), b.reshape(self.count, self.rows, -1)).reshape(a.shape)
            for a, b in zip(self._scaled(arrived, safe), self.now, strict=True)
        ]  # fmt: skip
        if not finite.all():
            return np.nan, NOT_A_NUMBER
        if not alive.any():
            return np.nan, ZERO
        if real is not None and real.size == self.rows:
            counts = counts & real.reshape(1, -1)  # padding hands the gradient on as it is
            if not counts.any():
                return np.nan, ""
        return float(np.log(sizes[counts]).mean()), ""


def cut_states(nodes, before, through, reached) -> list[int]:
    """Which of the states before are read, but not by a way on which a gradient comes back."""
    missing = [j for j, n in enumerate(before) if n.number not in reached]
    if not missing:
        return []
    read = reach([(n, 0) for n in nodes], through, {n.number for n in before}, cuts=False)
    return [j for j in missing if before[j].number in read]


def real_sequences(node: Tensor) -> np.ndarray | None:
    """Which sequences a masked state really moves in, where it is the choice of a mask."""
    if node.op is None or node.op.name != "where":
        return None
    mask = node.inputs[0]
    if mask.op is not None or mask.is_symbol or mask.ndim != node.ndim or mask.shape[-1] != 1:
        return None
    return mask.value.reshape(-1)


def _real(times: Sequence[int], states: dict[int, list[Tensor]]) -> np.ndarray | None:
    """The masks of all steps, where some step has one."""
    rows = [real_sequences(states[t][0]) for t in times]
    width = next((len(r) for r in rows if r is not None), 0)
    if not width or any(r is not None and len(r) != width for r in rows):
        return None
    return np.array([np.ones(width, bool) if r is None else r for r in rows])


def _blocks(network: Network, band: str, t: int, before: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """The square blocks of weights by which a state of the step before is multiplied, by name."""
    numbers, found = {n.number: n for n in before}, {}
    for g in network.cells[band, t]:
        for n in g.nodes:
            if n.op is None or n.op.kind != "product" or n.inputs[1].op is not None or n.inputs[1].ndim != 2:
                continue
            start, x = 0, n.inputs[0]
            if x.op is not None and x.op.name == "concat" and x.params[0] == x.ndim - 1:
                for part in x.inputs:
                    if part.number in numbers:
                        x = part
                        break
                    start += part.shape[-1]
            if x.number in numbers:
                block = n.inputs[1].value[start : start + x.shape[-1]]
                if block.shape[0] == block.shape[1] <= 1024 and np.isfinite(block).all():
                    found[clean(n.inputs[1].name or "weights")] = block
    return found
