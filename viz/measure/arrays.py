"""The arrays behind a picture of a graph: values, gradients, and the gradient along every line, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minigrad import Tensor

from ..language.text import Keys, key, of_gradient
from ..read.network import END, PARAMETER, SHARED, Group, Network, flows, gradient_of, joined
from .ways import weight_names


def of_network(network: Network, shown: Sequence[int]) -> dict[str, np.ndarray]:
    """At the steps "t" that are drawn: values "f" and gradients "df" (steps, …), and norms "f → c" (steps,).

    The name of a layer stands before, as "layer 1 / f"; "c before → f" is a line from another step.
    Weights have no axis of steps.  NaN stands where there is nothing, or nothing is known.
    """
    inside = [g for band in network.bands for t in shown for g in network.cells.get((band, t), ())]
    ends = [network.outputs[t] for t in shown if t in network.outputs]
    inputs = [g for (_, t), found in network.inputs.items() if t in shown for g in found]
    by_name: dict[tuple[str, str], dict[int, Group]] = {}
    for g in [*inputs, *inside, *ends]:
        if g.kind != SHARED:
            by_name.setdefault((g.band, g.name or "x"), {})[g.t] = g
    data: dict[str, np.ndarray] = {"t": np.array(shown)}
    for (band, name), own in by_name.items():
        nodes = [own[t].out if t in own else None for t in shown]
        data[key(band, name)] = _stacked(nodes, lambda n: None if n.is_symbol else n.value)
        data[key(band, f"d{name}")] = _stacked(nodes, lambda n: gradient_of(network.statuses, n))
    names = weight_names(network)
    for n in network.nodes:
        if n.number in names:
            data |= _both(names[n.number], n, network.statuses)
    for f in flows(network, [*inside, *ends, *([network.end] if network.end is not None else [])]):
        when = f.source.t if f.target.kind == END else f.target.t
        if f.norm is not None and when in shown and f.source.kind != PARAMETER:
            apart = f.source.t != f.target.t and f.target.kind != END
            name = f"{_label(network, f.source)}{' before' * apart} → {_label(network, f.target)}"
            line = data.setdefault(name, np.full(len(shown), np.nan))
            line[list(shown).index(when)] = f.norm
    return data


def of_nodes(nodes: Sequence[Tensor], statuses: dict[int, str]) -> dict[str, np.ndarray]:
    """Value and gradient of each node, by its name or its operation, numbered where two are called alike."""
    fresh, data = Keys().fresh, {}
    for n in nodes:
        data |= _both(fresh(n.name or (n.op.name if n.op is not None else "constant")), n, statuses)
    return data


def _both(name: str, n: Tensor, statuses: dict[int, str]) -> dict[str, np.ndarray]:
    """Value and gradient."""
    gradient = gradient_of(statuses, n)
    return {
        name: np.array(np.nan) if n.is_symbol else np.asarray(n.value),
        of_gradient(name): np.full(n.shape if not n.is_symbol else (), np.nan)
        if gradient is None
        else np.asarray(gradient),
    }


def _label(network: Network, g: Group) -> str:
    name = joined(network, g) if g.kind == SHARED else "loss" if g.kind == END else g.name or "x"
    return key(g.band, name)


def _stacked(nodes: Sequence[Tensor | None], read: Callable[[Tensor], np.ndarray | None]) -> np.ndarray:
    """What is read from the nodes, one for each step; NaN where there is none or a shape of its own."""
    found = [None if n is None else read(n) for n in nodes]
    like = next((n for n in nodes if n is not None and not n.is_symbol), None)
    shape = () if like is None else like.shape
    unknown = np.full(shape, np.nan)
    return np.stack([unknown if v is None or np.shape(v) != shape else np.asarray(v) for v in found])
