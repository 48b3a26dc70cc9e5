"""Nodes that have a graph within: If, whose condition has to be known, and Loop and Scan, each turn of them a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad import GraphError, InputError, as_tensor, scope

from .operators import concat, known
from .read import Graph, Node
from .recurrent import MOST_TURNS
from .steps import at


def _if(player, node: Node, inputs: list, values: dict[str, Any]) -> tuple:
    yes = bool(known(inputs[0], "the condition of an If").any())
    return _played(player, node.attributes["then_branch" if yes else "else_branch"], {}, values)


def _loop(player, node: Node, inputs: list, values: dict[str, Any]) -> tuple:
    """Loop: (most turns, condition, carried …) → the carried values after it, and what each turn gave."""
    body, carried = node.attributes["body"], inputs[2:]
    most = MOST_TURNS if inputs[0] is None else int(known(inputs[0], "the number of turns of a Loop").item())
    going = True if inputs[1] is None else bool(known(inputs[1], "the condition of a Loop").item())
    kept: list[list] = [[] for _ in body.outputs[1 + len(carried) :]]
    names = [v.name for v in body.inputs]
    t = 0
    while going and t < most:
        if t >= MOST_TURNS:
            raise InputError(f"a Loop of more than {MOST_TURNS:,} turns")
        own = dict(zip(names, [np.array(t, np.int64), np.array(True), *carried], strict=True))
        with scope(f"t={t + 1}"):
            going_on, *rest = _played(player, body, own, values)
        carried, given = rest[: len(carried)], rest[len(carried) :]
        for rows, value in zip(kept, given, strict=True):
            rows.append(value)
        going = bool(known(going_on, "the condition of a Loop").item())
        t += 1
    return (*carried, *(_stacked(rows, 0) for rows in kept))


def _scan(player, node: Node, inputs: list, values: dict[str, Any]) -> tuple:
    """Scan: (carried …, sequences …) → the carried values after it, and what each step gave, stacked."""
    attributes, body = node.attributes, node.attributes["body"]
    if player.opset < 9:
        raise InputError(
            "a Scan of opset 8, which had an axis of sequences; export the model with a later one"
        )
    count = attributes["num_scan_inputs"]
    carried, sequences = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    outs = len(body.outputs) - len(carried)
    axes = attributes.get("scan_input_axes") or [0] * count
    back = attributes.get("scan_input_directions") or [0] * count
    out_axes = attributes.get("scan_output_axes") or [0] * outs
    out_back = attributes.get("scan_output_directions") or [0] * outs
    T = sequences[0].shape[axes[0]]
    if not isinstance(T, int):
        raise GraphError(
            "a Scan over a sequence whose length is not known while tracing: call the layer on values"
        )
    names = [v.name for v in body.inputs]
    kept: list[list] = [[] for _ in range(outs)]
    for t in range(T):
        now = [
            at(as_tensor(x), a, T - 1 - t if b else t) for x, a, b in zip(sequences, axes, back, strict=True)
        ]
        with scope(f"t={t + 1}"):
            rest = _played(player, body, dict(zip(names, [*carried, *now], strict=True)), values)
        carried = rest[: len(carried)]
        for rows, value in zip(kept, rest[len(carried) :], strict=True):
            rows.append(value)
    made = [_stacked(r[::-1] if b else r, a) for r, a, b in zip(kept, out_axes, out_back, strict=True)]
    return (*carried, *made)


def _played(player, graph: Graph, own: dict[str, Any], around: dict[str, Any]) -> tuple:
    """The outputs of a graph within a node, which reads what stands around it."""
    values = {**around, **graph.initialisers, **own}
    player.all(graph, values)
    return tuple(values[v.name] for v in graph.outputs)


def _stacked(rows: list, axis: int):
    if not rows:
        raise InputError("a Loop or Scan without a turn, whose outputs have no known shape")
    shaped = [(r.shape, axis + len(r.shape) + 1 if axis < 0 else axis) for r in rows]
    return concat(
        [r.reshape((*s[:a], 1, *s[a:])) for r, (s, a) in zip(rows, shaped, strict=True)], shaped[0][1]
    )


CONTROL: dict[str, Callable] = {"If": _if, "Loop": _loop, "Scan": _scan}
