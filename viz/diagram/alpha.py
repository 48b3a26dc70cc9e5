"""Attention weights: found in a graph, in steps or in an array, ordered as heads × outputs × inputs, and coloured.

Of long sequences several steps are taken together in one place of a picture (`Axis`).

A weight α is shown by darkness (and, on a line, by width) on one linear scale from 0
to 1, whose order survives greyscale print and colour-blind eyes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minigrad import InputError, Tensor, ancestors

from ..language.scale import INK, ORANGE, Stroke, mix
from ..language.states import norm
from ..language.text import clean, span
from ..read.network import gradient_of, gradient_state, states_of, step_of
from .canvas import Canvas
from .markup import square, table

# White to dark brown with evenly falling lightness.
SHADES = ("#ffffff", "#fbe3c0", "#f2b66b", ORANGE, "#a8560a", "#572c05")
MOST = 40  # places along an axis
LEAST = 0.05  # smaller weights get no line
LETTERS = {"n": "sequence", "h": "head", "q": "output step", "k": "input step"}


@dataclass
class Weights:
    """The weights of one place: `alpha` (heads, outputs, inputs) of one sequence."""

    label: str
    alpha: np.ndarray
    gradient: np.ndarray | None = None  # ∂L/∂α, of the same shape
    state: str | None = None  # why there is none
    sequences: int = 1


def shade(alpha: float) -> str:
    """The colour of a weight; grey for what is not a number."""
    if not np.isfinite(alpha):
        return "#d9a3c9"
    place = min(max(alpha, 0.0), 1.0) * (len(SHADES) - 1)
    k = min(int(place), len(SHADES) - 2)
    return mix(SHADES[k], SHADES[k + 1], place - k)


def line_of(alpha: float) -> Stroke:
    """The look of a line that carries a weight."""
    if not np.isfinite(alpha):
        return Stroke("#c51b8a", 2.4, "dashed", "NaN")
    return Stroke(shade(0.12 + 0.88 * alpha), round(0.5 + 5.5 * min(max(alpha, 0.0), 1.0), 2), "solid", "")


def with_lines(weights: np.ndarray, least: float) -> np.ndarray:
    """Which weights of an output step get a line: an output that looks everywhere has lines too."""
    finite = np.isfinite(weights)
    bound = min(least, 0.5 * float(weights[finite].max(initial=0.0)))
    return ~finite | ((weights >= bound) & (weights != 0))


def alpha_scale(canvas: Canvas, left: float, y: float, lines: bool = False) -> None:
    """The scale of weights, drawn; lines: as widths too."""
    canvas.words(left, y, "weight α", 10, INK, True, "left")
    cells = [square(shade(k / 10), 18, 10) for k in range(11)]
    canvas.box("scale of weights", left + 66, y - 8, 210, 16, [table(["".join(cells)])], border=0)
    for k in (0, 5, 10):
        canvas.words(left + 78 + 18.6 * k, y + 14, f"{k / 10:g}", 9)
    if lines:
        for k in range(1, 11):
            x = left + 78 + 18.6 * k
            a = canvas.box(f"width {k} a", x - 8, y + 26, 0.1, 0.1, border=0)
            b = canvas.box(f"width {k} b", x + 8, y + 26, 0.1, 0.1, border=0)
            ends = [(x - 8, y + 26), (x + 8, y + 26)]
            canvas.line(a.key, b.key, ends, line_of(k / 10), arrow="none", tooltip=f"α = {k / 10:g}")


# What stands at one place of a picture.


@dataclass
class Axis:
    """The places along one axis, each one step or a run of steps (from 0), and what is written at them.

    The places in `beyond` stand for all steps on that side that are not drawn.
    """

    places: list[range]
    labels: list[str]
    count: int
    beyond: list[int]

    @staticmethod
    def of(
        option: str, count: int, wanted: tuple[int, int] | None, given: Sequence | None, beyond: bool
    ) -> Axis:
        """Single steps of a window, or all of them, in runs where they are too many; raises InputError.

        option : "window" for the outputs, "over" for the inputs.  beyond : whether what lies beside a
            window has a place too.
        """
        labels = _labels("outputs" if option == "window" else "inputs", count, given)
        if wanted is None:
            each = -(-count // MOST)
            places = [range(k, min(k + each, count)) for k in range(0, count, each)]
            return Axis(places, labels if each == 1 else [str(p[0] + 1) for p in places], count, [])
        first, last = _bounds(option, count, wanted)
        axis = Axis([range(k, k + 1) for k in range(first, last)], labels[first:last], count, [])
        if beyond and last < count:
            axis.places.append(range(last, count))
            axis.labels.append("…")
            axis.beyond.append(len(axis.places) - 1)
        if beyond and first:
            axis.places.insert(0, range(0, first))
            axis.labels.insert(0, "…")
            axis.beyond = [0, *(k + 1 for k in axis.beyond)]
        return axis

    @property
    def each(self) -> int:
        """How many steps one place stands for."""
        return max(len(p) for k, p in enumerate(self.places) if k not in self.beyond)

    def said(self, what: str, how: str) -> str:
        """What is left out or taken together, in words."""
        if self.each > 1:
            return f"{self.count} {what} steps, {self.each} at a time ({how})"
        shown = [p[0] for k, p in enumerate(self.places) if k not in self.beyond]
        if len(shown) == self.count:
            return ""
        return f"{len(shown)} of {self.count} {what} steps, {span([shown[0] + 1, shown[-1] + 1])}"


def together(values: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """Weights place by place: added up over inputs, their mean over outputs."""
    found = np.stack([values[:, p[0] : p[-1] + 1].sum(axis=1) for p in columns.places], axis=1)
    return np.stack([found[p[0] : p[-1] + 1].mean(axis=0) for p in rows.places])


def sizes(gradient: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """The gradient place by place: with its sign where a place is one weight, else the norm."""
    found = np.empty((len(rows.places), len(columns.places)))
    for q, row in enumerate(rows.places):
        for k, column in enumerate(columns.places):
            part = gradient[row[0] : row[-1] + 1, column[0] : column[-1] + 1]
            found[q, k] = part[0, 0] if part.size == 1 else norm(part)
    return found


def _bounds(option: str, count: int, wanted: tuple[int, int]) -> tuple[int, int]:
    try:
        first, last = wanted
        first, last = max(int(first) - 1, 0), min(int(last), count)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"attention: {option} = {clean(wanted)}; give the first and the last step, e.g. (3, 14)"
        ) from None
    if not 0 < last - first <= 2 * MOST:
        raise InputError(
            f"attention: {option} = {clean(wanted)} holds {max(last - first, 0)} steps; "
            f"give 1 to {2 * MOST} of t = 1 … {count}"
        )
    return first, last


def _labels(option: str, count: int, given: Sequence | None) -> list[str]:
    if given is None:
        return [str(k + 1) for k in range(count)]
    try:
        labels = [str(label) for label in given]
    except TypeError:
        raise InputError(
            f"attention: {option} = {clean(given)}; give a text for each of {count} steps"
        ) from None
    if len(labels) != count:
        raise InputError(f"attention: {len(labels)} {option} for {count} steps; give one text for each")
    # A space is a character too, and should be seen.
    return ["␣" if label and not label.strip(" ") else label for label in labels]


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
        states = states_of(what)
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
        states = states_of(what if isinstance(what, Tensor) else last)
        if not isinstance(what, Tensor):  # what backward left on them is the steps' own
            states = {**states, **{n.number: "" for n in found}}
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
    return [_weights(label, group, by_step, states, axes, sequence, who) for label, group, by_step in groups]


def _of_step(record, name: str, who: str) -> Tensor:
    quantities = getattr(record, "quantities", {})
    if name not in quantities:
        known = ", ".join(map(clean, quantities)) or "nothing"
        raise InputError(f"{who}: a step has no {clean(name)!r}; it has {known}")
    return quantities[name]


def _weights(
    label: str, nodes: list[Tensor], by_step: bool, states: dict[int, str], axes: str | None, sequence: int,
    who: str,
) -> Weights:  # fmt: skip
    """One set: a tensor of all outputs, or a tensor per output step."""
    gradients = [gradient_of(states, n) for n in nodes]
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
        gradient_state(states, nodes[0])[1],
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
