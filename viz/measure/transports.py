"""`transport`: how much of the gradient of a step arrives at the step before, in numbers and in words."""

from __future__ import annotations

from minigrad import InputError, Tensor

from ..language.text import clean, number
from ..read.network import read, roots_of
from .transport import MOST_LOSSES, Transport, follow, jacobians, transports
from .ways import carried, split
from .words import headline


class Transports(list[Transport]):
    """One `Transport` for each layer that carries states; printed as a few lines of words."""

    def __repr__(self) -> str:
        return "\n".join(line for one in self for line in _lines(one))


def transport(what: Tensor | list, steps: list | None = None) -> Transports:
    """Of the gradient at step t + 1, which part arrives at step t: for each layer, step, state and way.

    what, steps : the loss after ``loss.backward(record=True)``, as for `gradient`.

    A `Transport` has a link for each two steps: `factor` is ‖Jᵀg‖ ÷ ‖g‖ of all states together, a number
    without unit; `by_state` and `by_way` are those parts' norms over the same ‖g‖.  `added` is the norm of
    what the step's own loss adds.  Each of `stretches`, from cut to cut, has a half-life in steps, fitted to
    rows, and, of at most 64 units, the largest and the typical stretch of the product of its Jacobians, per
    step.  `rows` has the norms of ∂L_s/∂(states of step t), for at most 100 losses of a stretch.

    Raises InputError where no state is carried or no gradient was recorded.
    """
    root, records = roots_of(what, steps)
    network = read(root, records)
    names = carried("transport", network)
    assert network is not None
    if not network.computed:
        raise InputError("transport: no gradient was recorded; run loss.backward(record=True)")
    found = Transports(transports(network))
    for one in found:
        follow(network, one, MOST_LOSSES)
        jacobians(network, one)
        for band, name in names:
            if band == one.band:
                state = split(network, band, name, [link.t for link in one.links])
                for link in (link for link in one.links if one.size[link.after]):
                    for way in state.gates:
                        if (part := state.parts.get(way, {}).get(link.t)) is not None:
                            link.by_way[name, way] = part / one.size[link.after]
    return found


def _lines(one: Transport) -> list[str]:
    """The headline, and the links as a table."""
    lines = [headline(one)]
    columns = [["t", "joint", *map(clean, one.states), "own loss"]]
    for link in reversed(one.links):
        parts = [
            "cut" if s in link.cut else number(link.by_state[s]) if s in link.by_state else "–"
            for s in one.states
        ]
        joint = "cut" if link.is_cut else "–" if link.factor is None else number(link.factor)
        columns.append([f"{link.t} ← {link.after}", joint, *parts, number(one.added.get(link.t, 0.0))])
    if len(columns) > 14:
        columns = [*columns[:7], ["…"] + [""] * (len(columns[0]) - 1), *columns[-6:]]
    widths = [max(len(row[k]) for row in columns) for k in range(len(columns[0]))]
    return lines + ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in columns]
