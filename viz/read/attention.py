"""Attention weights, found in a graph, in steps or in an array, and ordered as heads × outputs × inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad import InputError, Tensor, ancestors

from ..language.text import clean
from .network import gradient_of, gradient_status, statuses_of, step_of

LETTERS = {"n": "sequence", "h": "head", "q": "output step", "k": "input step"}


@dataclass
class Weights:
    """The weights of one place: `alpha` (heads, outputs, inputs) of one sequence."""

    label: str
    alpha: np.ndarray
    gradient: np.ndarray | None = None  # ∂L/∂α, of the same shape
    status: str | None = None  # why there is none
    sequences: int = 1


# Which axis is which.


def order(value: np.ndarray, axes: str | None, who: str) -> str:
    """Letters for the axes of `value`: n sequence, h head, q output step, k input step.

    Where they are not given: the inputs lie along the last axis along which all weights sum to 1.
    """
    if axes is not None:
        if (
            len(axes) != value.ndim
            or "k" not in axes
            or len(set(axes)) != len(axes)
            or set(axes) - set(LETTERS)
        ):
            known = ", ".join(f"{letter} for the {said}" for letter, said in LETTERS.items())
            raise InputError(
                f"{who}: axes = {clean(axes)!r} for weights of shape {value.shape}; give one letter per axis, "
                f"each once and k among them: {known}"
            )
        return axes
    if not 1 <= value.ndim <= 4:
        raise InputError(
            f"{who}: weights of shape {value.shape}; give (outputs, inputs) and up to 2 axes before"
        )
    with np.errstate(invalid="ignore"):
        sums = [value.sum(axis=a) for a in range(value.ndim)]
    ones = [a for a, s in enumerate(sums) if np.isclose(s, 1.0, atol=1e-3).any() and _ones_or_zeros(s)]
    k = ones[-1] if ones else value.ndim - 1
    letters = {1: "", 2: "q", 3: "nq", 4: "nhq"}[value.ndim]
    if value.ndim == 3 and k == 1:  # (outputs, inputs, sequences)
        letters = "qn"
    return letters[:k] + "k" + letters[k:]


def _ones_or_zeros(sums: np.ndarray) -> bool:
    """A step that may look nowhere has weights 0."""
    return bool((np.isclose(sums, 1.0, atol=1e-3) | np.isclose(sums, 0.0, atol=1e-6)).all())


def arranged(value: np.ndarray, axes: str, sequence: int, who: str) -> np.ndarray:
    """(heads, outputs, inputs) of one sequence."""
    if "n" in axes:
        at = axes.index("n")
        count = value.shape[at]
        if (
            isinstance(sequence, bool)
            or not isinstance(sequence, (int, np.integer))
            or not 0 <= sequence < count
        ):
            raise InputError(f"{who}: sequence = {sequence!r}; there are the sequences 0 … {count - 1}")
        value, axes = value.take(sequence, axis=at), axes.replace("n", "")
    for letter in "qh":
        if letter not in axes:
            value, axes = value[None], letter + axes
    return value.transpose([axes.index(letter) for letter in "hqk"])


# Where they stand.


def find(what, steps, name: str, axes: str | None, sequence: int, who: str) -> list[Weights]:
    """The weights behind `what`: an array or tensor of them, a loss made with them, or steps that have them."""
    if isinstance(what, np.ndarray):
        what = Tensor(what)
    if isinstance(what, Tensor) and steps is None:
        nodes = ancestors(what)
        found = [n for n in nodes if n.name == name and n.op is not None] or [
            n for n in nodes if n.name == name
        ]
        statuses = statuses_of(what)
        if not found or what.name == name:
            if what.ndim < 2:
                raise InputError(
                    f"{who}: nothing is named {clean(name)!r} in the graph; give the weights themselves"
                )
            found = [what]
    else:
        records = what if steps is None else steps
        if not isinstance(records, (list, tuple)) or not records:
            raise InputError(f"{who}: {clean(type(what).__name__)} holds no weights; give a tensor or steps")
        found = [_of_step(record, name, who) for record in records]
        last = max(found, key=lambda n: n.number)
        statuses = statuses_of(what if isinstance(what, Tensor) else last)
        if not isinstance(what, Tensor):  # what backward left on them is the steps' own
            statuses = {**statuses, **{n.number: "" for n in found}}
    for n in found:
        if n.is_symbol:
            raise InputError(
                f"{who}: {clean(name)!r} is a symbol of a traced graph; call the function on arrays"
            )
        if n.dtype.kind != "f" or n.size == 0:
            raise InputError(
                f"{who}: weights {clean(n.name or '')} of shape {n.shape} {n.dtype}: nothing to show"
            )
    bands: dict[str, list[Tensor]] = {}
    alone: list[list[Tensor]] = []
    for n in found:
        place = step_of(n)
        if place is None and (isinstance(what, Tensor) and steps is None):
            alone.append([n])
        else:
            bands.setdefault(place[0] if place else "", []).append(n)
    groups = [(" / ".join(g[0].scope), g, False) for g in alone] + [(b, g, True) for b, g in bands.items()]
    return [
        _weights(label, group, by_step, statuses, axes, sequence, who) for label, group, by_step in groups
    ]


def _of_step(record, name: str, who: str) -> Tensor:
    quantities = getattr(record, "quantities", {})
    if name not in quantities:
        known = ", ".join(map(clean, quantities)) or "nothing"
        raise InputError(f"{who}: a step has no {clean(name)!r}; it has {known}")
    return quantities[name]


def _weights(
    label: str, nodes: list[Tensor], by_step: bool, statuses: dict[int, str], axes: str | None, sequence: int,
    who: str,
) -> Weights:  # fmt: skip
    """One set: a tensor of all outputs, or a tensor per output step."""
    gradients = [gradient_of(statuses, n) for n in nodes]
    known = all(g is not None for g in gradients)
    if by_step:
        shapes = {n.shape for n in nodes}
        if len(shapes) > 1:
            raise InputError(f"{who}: the steps have weights of different shapes {sorted(shapes)}")
        value = np.stack([n.value for n in nodes])
        gradient = np.stack(gradients) if known else None  # type: ignore[arg-type]
        letters = "q" + (axes.replace("q", "") if axes else _order_of_step(nodes, who))
    else:
        value, gradient = nodes[0].value, gradients[0]
        letters = order(value, axes, who)
    sequences = value.shape[letters.index("n")] if "n" in letters else 1
    return Weights(
        clean(label),
        arranged(value, letters, sequence, who).astype(np.float64),
        None if gradient is None else arranged(gradient, letters, sequence, who).astype(np.float64),
        gradient_status(statuses, nodes[0])[1],
        sequences,
    )


def _order_of_step(nodes: list[Tensor], who: str) -> str:
    """The axes of the weights of one step: no output step among them."""
    one = nodes[0]
    if not 1 <= one.ndim <= 3:
        raise InputError(f"{who}: weights of shape {one.shape} at a step; give (sequences, inputs)")
    fits = []
    for a in range(one.ndim):
        sums = [n.value.sum(axis=a) for n in nodes]
        fits.append(all(_ones_or_zeros(s) and np.isclose(s, 1.0, atol=1e-3).any() for s in sums))
    k = max((a for a in range(one.ndim) if fits[a] and one.shape[a] > 1), default=one.ndim - 1)
    letters = {1: "", 2: "n", 3: "nh"}[one.ndim]
    return letters[:k] + "k" + letters[k:]
