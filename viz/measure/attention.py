"""Attention as it is shown: the places along each axis, what of it gets a line, and how sharply an output looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minigrad import InputError

from ..language.catalogue import deferred, tr
from ..language.status import norm
from ..language.text import clean, span

MOST = 40  # places along an axis
LEAST = 0.05  # smaller weights get no line


@dataclass
class Places:
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
    ) -> Places:
        """Single steps of a window, or all of them, in runs where they are too many; raises InputError.

        option : "window" for the outputs, "over" for the inputs.  beyond : whether what lies beside a
            window has a place too.
        """
        labels = _labels("outputs" if option == "window" else "inputs", count, given)
        if wanted is None:
            each = -(-count // MOST)
            places = [range(k, min(k + each, count)) for k in range(0, count, each)]
            return Places(places, labels if each == 1 else [str(p[0] + 1) for p in places], count, [])
        first, last = _bounds(option, count, wanted)
        axis = Places([range(k, k + 1) for k in range(first, last)], labels[first:last], count, [])
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

    def said(self, output: bool) -> str:
        """What is left out or taken together, in words."""
        if self.each > 1:
            message = (
                deferred("{n} output steps, {each} at a time (mean)")
                if output
                else deferred("{n} input steps, {each} at a time (sum)")
            )
            return tr(message, n=self.count, each=self.each)
        shown = [p[0] for k, p in enumerate(self.places) if k not in self.beyond]
        if len(shown) == self.count:
            return ""
        message = (
            deferred("{n} of {total} output steps, {times}")
            if output
            else deferred("{n} of {total} input steps, {times}")
        )
        return tr(message, n=len(shown), total=self.count, times=span([shown[0] + 1, shown[-1] + 1]))


def together(values: np.ndarray, rows: Places, columns: Places) -> np.ndarray:
    """Weights place by place: added up over inputs, their mean over outputs."""
    found = np.stack([values[:, p[0] : p[-1] + 1].sum(axis=1) for p in columns.places], axis=1)
    return np.stack([found[p[0] : p[-1] + 1].mean(axis=0) for p in rows.places])


def sizes(gradient: np.ndarray, rows: Places, columns: Places) -> np.ndarray:
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


def with_lines(weights: np.ndarray, least: float) -> np.ndarray:
    """Which weights of an output step get a line: an output that looks everywhere has lines too."""
    finite = np.isfinite(weights)
    bound = min(least, 0.5 * float(weights[finite].max(initial=0.0)))
    return ~finite | ((weights >= bound) & (weights != 0))


def sharpness(alpha: np.ndarray) -> float:
    """At how many inputs an output step looks: e to the mean entropy of its weights; rows without any do not count."""
    rows = alpha[np.isfinite(alpha).all(axis=1)]
    rows = rows[rows.sum(axis=1) > 0]
    if not len(rows):
        return float("nan")
    shares = np.clip(rows, 0.0, None)
    shares = shares / shares.sum(axis=1, keepdims=True)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return float(np.exp(entropy.mean()))
