"""Runs a graph forwards again with something changed: gradients without reverse mode.

`slope` moves the value that some readers see of a node and measures, by central
differences, how the loss follows: the only oracle here that no derivative rule enters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

import cells
from minigrad import Tensor, ancestors, cross_entropy

Reads = Callable[[Tensor], bool]


def slope(
    root: Tensor, node: Tensor, direction: np.ndarray, reads: Reads | None = None, carry: Collection[int] = (),
    step: float = 1e-6,
) -> float:  # fmt: skip
    """The derivative of root along a direction of node's value, as seen by the readers for which `reads` holds.

    carry : numbers of nodes that hand the moved value on; `reads` is asked of who reads those, too.
    """
    ends = [_run(root, node, sign * step * direction, reads or (lambda n: True), carry) for sign in (1, -1)]
    return float(np.sum(ends[0] - ends[1]) / (2 * step))


def _run(root: Tensor, node: Tensor, delta: np.ndarray, reads: Reads, carry: Collection[int]) -> np.ndarray:
    moved, changed = {node.number: node.value + delta}, {}
    for n in ancestors(root):
        if n.number in carry and any(x.number in moved for x in n.inputs):
            moved[n.number] = _value(n, moved)
    for n in ancestors(root):
        if n.op is None or n.number in moved:
            continue
        seen = {x.number: moved[x.number] for x in n.inputs if x.number in moved and reads(n)}
        seen |= {x.number: changed[x.number] for x in n.inputs if x.number in changed}
        if seen:
            changed[n.number] = _value(n, seen)
    return np.asarray(changed.get(root.number, root.value))


def _value(n: Tensor, instead: dict[int, np.ndarray]) -> np.ndarray:
    assert n.op is not None
    return np.asarray(n.op.forward(*(instead.get(x.number, x.value) for x in n.inputs), *n.params))


def carried_states(run) -> list[str]:
    """The states that a later step reads; an output that none reads is drawn as an output."""
    names = {q.number: name for name, q in run.steps[0].quantities.items()}
    there = {n.number for q in run.steps[1].quantities.values() for n in ancestors(q)}
    return [names[s.number] for s in run.steps[0].state if s.number in there]


def network(cell=cells.LSTM, T=5, H=4, D=3, N=2, seed=0, backward=True, build=None, bend=1.0, **options):
    """Layers or a cell with random weights and biases, an output layer and a loss of all steps: (loss, run).

    build : what makes the layers, called like a cell; bend : what all weights are multiplied by.
    options : `mask`, `truncate`, `reverse`, `last` (the loss is of the last step alone).
    """
    rng = np.random.default_rng(seed)
    last = options.pop("last", False)
    layers = (build or cell)(D, H, rng, "float64")
    for p in layers.parameters().values():
        p.value = bend * (p.value + 0.3 * rng.standard_normal(p.shape))
    x = rng.standard_normal((T, N, D))
    run = layers(x, **options)
    outputs = run.each
    head = cells.Output(outputs[0].shape[-1], D, rng, "float64")
    targets = rng.integers(0, D, (T, N))
    steps = range(T - 1, T) if last else range(T)
    loss = sum((cross_entropy(head(outputs[t]), targets[t]) for t in steps), start=Tensor(0.0)).named("L")
    if backward:
        loss.backward(record=True)
    return loss, run


def stacked(D, H, rng, dtype):
    return cells.Stack(cells.LSTM, D, H, 2, rng, dtype)


def both_ways(D, H, rng, dtype):
    return cells.Stack(cells.Bidirectional.of(cells.GRU), D, H, 2, rng, dtype)


MASK = np.array([[1, 1], [1, 1], [1, 0], [0, 0], [1, 1]], bool)
UNUSUAL = {
    "stacked": dict(build=stacked),
    "both ways": dict(build=both_ways, T=4),
    "masked": dict(mask=MASK),
    "truncated": dict(truncate=2),
    "from the end": dict(reverse=True),
    "one loss": dict(last=True),
    "single step": dict(T=1),
}
EVERY = {name: dict(cell=cell) for name, cell in cells.CELLS.items()} | UNUSUAL
