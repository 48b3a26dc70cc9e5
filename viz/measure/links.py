"""What is known of transport: links from step to step, the stretches between cuts, rows of losses, a layer's `Transport`.

transport.py measures them, and words.py says them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Link:
    """From the states of step `after` back to those of step `t`, the step computed before it."""

    t: int
    after: int
    factor: float | None  # ‖Jᵀg‖ ÷ ‖g‖; None: cut, or no gradient at step `after`
    by_state: dict[str, float] = field(default_factory=dict)  # that state's part of Jᵀg, over the same ‖g‖
    # Of a state that runs on element by element: what comes straight along it, and what comes else, over the same ‖g‖.
    straight: dict[str, tuple[float, float]] = field(default_factory=dict)
    by_way: dict[tuple[str, str], float] = field(default_factory=dict)  # by state and way, where split
    cut: list[str] = field(default_factory=list)  # states to which nothing comes back, as a detach stops it
    is_cut: bool = False  # whether that holds for all states of the step


@dataclass
class Stretch:
    """Links without a cut between them, in the order in which the steps were computed."""

    links: list[Link]
    half_life: float | None = None  # in steps, fitted to rows; negative: it doubles; inf: keeps its size
    largest: float | None = None  # per step: of the product of the Jacobians, its largest singular value
    typical: float | None = None  # and its root mean square stretch of a vector

    @property
    def times(self) -> list[int]:
        return [*(link.t for link in self.links), self.links[-1].after]


@dataclass
class Rows:
    """‖∂L_s/∂(states of step t)‖: rows s (`losses`), columns t (`times`); NaN where no gradient flows."""

    losses: list[int]
    times: list[int]
    norms: np.ndarray

    def back(self, times: list[int]) -> list[np.ndarray]:
        """Of each loss within one stretch of steps, the norms from its own step back to the first."""
        column = {t: k for k, t in enumerate(self.times)}
        return [
            self.norms[r, [column[t] for t in times[: times.index(s) + 1]]][::-1]
            for r, s in enumerate(self.losses)
            if s in times
        ]


@dataclass
class Transport:
    """The way back through the states of one layer; dicts are by step, norms in units of the loss per unit of state."""

    band: str
    states: list[str]
    links: list[Link]  # in the order in which the steps were computed
    size: dict[int, float]  # ‖g‖
    added: dict[int, float]  # the norm of what comes not from the next step: the step's own loss
    others: bool = False  # whether other layers read the states: their part is in `added` and in `rows`
    # (step, quantity): what reads the states before and no state of its step is made of, as an output's gate: its part
    # comes from the loss, and is in `added`.
    aside: set[tuple[int, str]] = field(default_factory=set)
    rows: Rows | None = None
    stretches: list[Stretch] = field(default_factory=list)

    def factors(self, state: str | None = None) -> list[float]:
        """Those of all links that are not cut; of one state: what arrives there."""
        if state is None:
            return [link.factor for link in self.links if link.factor is not None]
        return [v for link in self.links if (v := link.by_state.get(state)) is not None]

    def leads(self, state: str) -> bool:
        """Whether most comes back straight along it: only then is a state that runs on element by element a memory line."""
        found = [link.straight[state] for link in self.links if state in link.straight]
        along, besides = np.median(found, axis=0) if found else (0.0, 0.0)
        return bool(along >= besides)
