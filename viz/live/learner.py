"""What learns in the live page: a cell with an output layer, whose gradient between steps can be seen, and cut.

`learner` makes it of any cell, of the package or of one's own: it needs `inputs`, `hidden`, `state`,
`step` and `parameters`, as for `viz.equations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import InputError, Tensor

from ..formula.equations import equations


@dataclass(frozen=True)
class Learner:
    """A kind of network for `live`.

    loss : ``loss(x, targets, weights, cut, link, own)``, written with tensors; its first result is the loss Σ weights ·
        −log p(target), its second the probabilities (T, 1, K), then follow `quantities`, (T, 1, H) each.  It is given
        x, targets (T, 1, K), rows with a single 1; weights (T, 1) of the steps' losses; cut (T, 1, 1), True where the
        gradient is not to go on to the step before; and zeros that it adds, so that their gradients tell what flows
        there: link (T, 1, S, H), to the S states that a step reads, before a cut; own (T, 1, H), to the outputs that
        the logits are computed from.
    parameters : by name, what the loss reads; the first rows of a matrix (H + K, H) are its recurrent weights.
    state : names of the states, that of the output first.  gates : those of the quantities that lie in 0 … 1.
    forget : the parameter that is the forget gate's bias, "" where there is none.  keeper : the gate that keeps the
        memory when it is open, "" where there is none.
    equations : as they are shown.
    """

    name: str
    loss: Callable
    parameters: Mapping[str, Tensor]
    quantities: Sequence[str]
    state: Sequence[str]
    gates: Sequence[str] = ()
    forget: str = ""
    keeper: str = ""
    equations: str = ""


def learner(cell: Any, name: str = "", rng: np.random.Generator | None = None) -> Learner:
    """A cell and a softmax over its output, as `live` takes them.

    cell : made for the largest sizes: K inputs (different letters) and H hidden units, float32; its first state is
        the output.
    name : how the page calls it; default: its class.  rng : draws the output layer.

    Raises InputError for what has no step, and for a step that gives no quantities of H units by name.
    """
    lacking = [a for a in ("step", "state", "inputs", "hidden", "parameters") if not hasattr(cell, a)]
    if lacking:
        raise InputError(
            f"live: {type(cell).__name__} has no {', '.join(lacking)}; give a cell, or a Learner"
        )
    rng = rng or np.random.default_rng(0)
    K, H, states = cell.inputs, cell.hidden, cell.state.split()
    limit = np.sqrt(6 / (H + K))
    W = Tensor(rng.uniform(-limit, limit, (H, K)).astype("float32"), requires_grad=True, name="W_y")
    b = Tensor(np.zeros(K, "float32"), requires_grad=True, name="b_y")
    quantities, gates = _quantities(cell, states)

    def step(before, now):
        x, cut, link = now
        seen = [s + link[:, k] for k, s in enumerate(before)]
        made = cell.step(x, *(mg.where(cut, s.detach(), s) for s in seen))
        named = {q: made[q].named(q) for q in quantities}
        return tuple(named[s] for s in states), tuple(named.values())

    def loss(x, targets, weights, cut, link, own):
        first = _first(cell, states, x.shape[1])
        _, found = mg.scan(step, first, (x, cut, link))
        logits = (found[quantities.index(states[0])] + own) @ W + b
        each = mg.cross_entropy(logits, targets, reduction="none")
        return ((each * weights).sum(), mg.softmax(logits), *found)

    parameters = {**cell.parameters(), "W_y": W, "b_y": b}
    forget = "b_f" if "b_f" in parameters and "f" in gates else ""
    return Learner(
        name or type(cell).__name__, loss, parameters, quantities, states, gates,
        forget=forget, keeper="f" if forget else "", equations=str(equations(cell)).strip(),
    )  # fmt: skip


def _first(cell: Any, states: list[str], sequences: int) -> tuple[Tensor, ...]:
    """The states before the first step; zeros for a cell that does not say."""
    if not hasattr(cell, "initial_state"):
        return tuple(mg.zeros((sequences, cell.hidden)) for _ in states)
    return tuple(mg.as_tensor(s) for s in cell.initial_state(sequences))


def _quantities(cell: Any, states: list[str]) -> tuple[list[str], list[str]]:
    """The names of a step's quantities of H units, gates first and states last; and those that are gates."""
    x = Tensor(np.zeros((1, cell.inputs), "float32"), requires_grad=True)  # else nothing tells what a gate is
    made = cell.step(x, *_first(cell, states, 1))
    if not isinstance(made, Mapping) or not set(states) <= set(made):
        raise InputError(
            f"live: the step of {type(cell).__name__} must return its quantities by name, {', '.join(states)} too"
        )
    alike = [q for q, v in made.items() if v.shape == (1, cell.hidden)]
    wanted = getattr(cell, "gates", "").split()
    names = list(
        dict.fromkeys([*(q for q in wanted if q in alike), *(q for q in alike if q not in states), *states])
    )
    return names, [
        q for q in names if q not in states and made[q].op is not None and made[q].op.name == "sigmoid"
    ]
