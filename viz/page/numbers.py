"""The numbers of a page: computed for all steps that are alike at once, packed so that each is shown as it is.

A number is packed as the four decimal digits that it has when rounded, with a bit that says how the
shorter form is rounded, so that the script rounds nothing.  Cells are packed as the colours that they have.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from minigrad import Tensor

from ..language.scale import Scale
from ..language.status import is_small, norm, norms
from ..read.network import gradient_of
from ..read.units import NEAR, RANGES
from .alike import Kind

NAN, INFINITE = 10001, 10002  # in place of four digits
LEVELS = 60  # of a colour
VANISHED_LEVEL, EXPLODED_LEVEL, BROKEN = 61, 62, 63


def decimals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As uint16 (bit 15: negative, bit 14: the short form is rounded up, else four digits) and exponents as int16."""
    v = np.asarray(values, np.float64).ravel()
    size = np.abs(v)
    good = np.isfinite(v) & (v != 0)
    digits, power = _digits(size[good], 3)
    unit = 10 ** np.where(
        power == 2, 1, np.where(power == 3, 0, 2)
    )  # of the short form's last digit, see `number`
    up = 2 * (digits % unit) > unit
    tie = np.flatnonzero(2 * (digits % unit) == unit)  # the digits left out decide, or evenness
    for after in (1, 2):
        own = tie[unit[tie] == 10 ** (3 - after)]
        short, at = _digits(size[good][own], after)
        up[own] = short * 10 ** (at - power[own]) > digits[own] // unit[own]
    code = np.zeros(v.shape, np.uint16)
    code[good] = digits.astype(np.uint16) | (up.astype(np.uint16) << 14)
    code[np.isnan(v)], code[np.isinf(v)] = NAN, INFINITE
    code |= (v < 0).astype(np.uint16) << 15
    exponent = np.zeros(v.shape, np.int16)
    exponent[good] = power
    return code, exponent


def _digits(size: np.ndarray, after: int) -> tuple[np.ndarray, np.ndarray]:
    """The digits of positive numbers as integers, and their exponents, as Python rounds them."""
    width = after + 7
    text = (f"%{width}.{after}e" * len(size)) % tuple(size.tolist())
    raw = np.frombuffer(text.encode("ascii"), np.uint8).reshape(-1, width).astype(np.int64) - ord("0")
    long = raw[:, 0] >= 0  # an exponent of three digits
    raw[~long] = np.roll(raw[~long], -1, axis=1)
    found = raw[:, 0]
    for k in range(after):
        found = found * 10 + raw[:, 2 + k]
    e = after + 3  # behind the letter
    power = raw[:, e + 1] * 10 + raw[:, e + 2]
    power = np.where(long, power * 10 + raw[:, min(e + 3, width - 1)], power)
    return found, np.where(raw[:, e] == ord("-") - ord("0"), -power, power)


class Wanted:
    """The columns that the pictures of one kind of steps ask for, in the order in which they asked."""

    def __init__(self, kind: Kind, cells: bool):
        self.kind, self.with_cells = kind, cells
        self.numbers: dict[tuple, int] = {}
        self.cells: dict[tuple, tuple[int, int]] = {}  # the first row and how many

    def column(self, *key) -> int:
        return self.numbers.setdefault(key, len(self.numbers))

    def node(self, k: int) -> list[int]:
        """Columns of the k-th node: norm, gradient, smallest, largest, mean, share of saturated; −1: none."""
        n, found = self.kind.node(self.kind.example, k), [-1] * 6
        if has_numbers(n):
            found[0], found[2], found[3] = (self.column("node", k, what) for what in ("norm", "min", "max"))
            if k < len(self.kind.example.nodes) and n.op is not None and n.op.name in RANGES:
                found[4], found[5] = self.column("node", k, "mean"), self.column("node", k, "saturated")
        if self.kind.gradient(k):
            found[1] = self.column("gradient", k)
        return found

    def flow(self, uses: Sequence[int], band: str | None = None) -> tuple[int, int]:
        """Columns of what flows along uses, and of its share of the gradient of a band's step; −1: not known."""
        known = any(self.kind.part(u) for u in uses)
        key = tuple(sorted(uses))
        return (
            (self.column("flow", key), -1 if band is None else self.column("factor", key, band))
            if known
            else (-1, -1)
        )

    def strip(self, k: int, few: bool) -> list | None:
        """[rows, columns, first cell of values, of gradients, first column of both as numbers]; −1: none.

        few : whether there are so few nodes that small arrays are written out.
        """
        n = self.kind.node(self.kind.example, k)
        if (
            k >= len(self.kind.example.nodes)
            or not self.with_cells
            or not has_numbers(n)
            or n.size < 2
            or not is_small(n.value)
        ):
            return None
        columns = n.shape[-1]
        gradient = self._cells("gradient", k, n.size) if self.kind.gradient(k) else -1
        written = [-1, -1]
        if few and is_small(n.value, 4, 4):
            written[0] = min(self.column("element", k, i) for i in range(n.size))
            if gradient >= 0:
                written[1] = min(self.column("slope", k, i) for i in range(n.size))
        return [n.size // columns, columns, self._cells("value", k, n.size), gradient, *written]

    def _cells(self, what: str, k: int, size: int) -> int:
        count = sum(n for _, n in self.cells.values())
        return self.cells.setdefault((what, k), (count, size))[0]


class Columns:
    """What was asked for, computed for the steps of one kind in one recording."""

    scale: Scale
    top: float  # the end of the scale of values

    def __init__(
        self, wanted: Wanted, kind: Kind, statuses: dict[int, str], sizes: Mapping[str, Mapping[int, float]]
    ):
        self.wanted, self.kind, self.statuses, self.sizes = wanted, kind, statuses, sizes
        kind.outside = wanted.kind.outside
        self.values = cache(self.values)  # type: ignore[method-assign]
        self.gradients = cache(self.gradients)  # type: ignore[method-assign]
        self.known: dict[tuple, np.ndarray] = {}

    def values(self, k: int) -> np.ndarray:
        """(steps, numbers) of the k-th node."""
        return _rows(s.nodes[k].value for s in self.kind.steps)

    def gradients(self, k: int) -> np.ndarray:
        return _rows(gradient_of(self.statuses, s.nodes[k]) for s in self.kind.steps)

    def column(self, key: tuple) -> np.ndarray:
        """The numbers of one column by step."""
        if key not in self.known:
            outside = key[0] in ("node", "gradient") and key[1] >= len(self.kind.example.nodes)
            self.known[key] = self._weight(*key) if outside else getattr(self, f"_{key[0]}")(*key[1:])
        return self.known[key]

    def _weight(self, kind: str, k: int, what: str = "norm") -> np.ndarray:
        """Of what stands outside of the steps, computed once for each."""
        own = [self.kind.node(s, k) for s in self.kind.steps]
        known = {}
        for n in {n.number: n for n in own}.values():
            array = n.value if kind == "node" else gradient_of(self.statuses, n)
            known[n.number] = float(
                {"norm": norm, "min": np.min, "max": np.max, "mean": np.mean}[what](array)
            )
        return np.array([known[n.number] for n in own])

    def _node(self, k: int, what: str) -> np.ndarray:
        v = self.values(k)
        if what == "saturated":
            low, high = RANGES[self.kind.example.nodes[k].op.name]
            return np.rint(100 * ((v < low + NEAR) | (v > high - NEAR)).mean(1))
        return {
            "norm": norms,
            "min": lambda v: v.min(1),
            "max": lambda v: v.max(1),
            "mean": lambda v: v.mean(1),
        }[what](v)

    def _element(self, k: int, i: int) -> np.ndarray:
        return self.values(k)[:, i]

    def _slope(self, k: int, i: int) -> np.ndarray:
        return self.gradients(k)[:, i]

    def _gradient(self, k: int) -> np.ndarray:
        return norms(self.gradients(k))

    def _flow(self, uses: tuple[int, ...]) -> np.ndarray:
        """Summed where they read the same node."""
        by_read: dict[int, np.ndarray] = {}
        for u in uses:
            if self.kind.part(u):
                part = _rows(s.uses[u][0].contributions[s.uses[u][1]] for s in self.kind.steps)
                number = self.kind.example.uses[u][2].number
                by_read[number] = by_read[number] + part if number in by_read else part
        sizes = [norms(p) for p in by_read.values()]
        return norms(np.stack(sizes, 1)) if len(sizes) > 1 else sizes[0]

    def _factor(self, uses: tuple[int, ...], band: str) -> np.ndarray:
        """−1 where there is none, see words.on_arrow."""
        size = np.array(
            [self.sizes.get(band, {}).get(s.t) or np.nan for s in self.kind.steps if s.t is not None],
            np.float64,
        )
        found = self.column(("flow", uses)) / size
        return np.where(np.isnan(size), -1.0, found)

    def matrix(self, most: int | None = None) -> np.ndarray:
        """(columns, steps)."""
        keys = list(self.wanted.numbers)[:most]
        return np.stack([self.column(k) for k in keys]) if keys else np.zeros((0, len(self.kind.steps)))

    def colours(self, most: int | None = None) -> np.ndarray:
        """(cells, steps): of values 64 is white, less is negative; of gradients 0 is 0, 64 more is negative."""
        found = [
            (
                self._value_levels(self.values(k))
                if what == "value"
                else self._gradient_levels(self.gradients(k))
            ).T
            for what, k in list(self.wanted.cells)[:most]
        ]
        return np.concatenate(found) if found else np.zeros((0, len(self.kind.steps)), np.uint8)

    def _value_levels(self, v: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            level = 64 + np.rint(LEVELS * np.clip(v / self.top, -1, 1))
        return np.where(np.isnan(v), 127, level).astype(np.uint8)

    def _gradient_levels(self, g: np.ndarray) -> np.ndarray:
        size, s = np.abs(g), self.scale
        with np.errstate(all="ignore"):
            level = 1 + np.rint((LEVELS - 1) * np.clip((np.log10(size) - s.low) / (s.high - s.low), 0, 1))
        level = np.where(
            size < s.vanished, VANISHED_LEVEL, np.where(size > s.exploded, EXPLODED_LEVEL, level)
        )
        level = np.where(np.isfinite(g), np.where(g == 0, 0, level), BROKEN)
        return (level + 64 * (g < 0)).astype(np.uint8)


def has_numbers(n: Tensor) -> bool:
    return not n.is_symbol and n.value.dtype.kind in "fiub" and n.size > 0


def _rows(arrays) -> np.ndarray:
    return np.array([np.ravel(a) for a in arrays], np.float64)


def packed(parts: Sequence[np.ndarray], cells: Sequence[np.ndarray]) -> dict[str, str]:
    """Matrices of numbers and of cells, one after the other: digits, exponents and colours."""
    code, exponent = decimals(np.concatenate([p.ravel() for p in parts]))
    return {
        "digits": deflated(code.astype("<u2")),
        "powers": deflated(exponent.astype("<i2")),
        "cells": deflated(np.concatenate([c.ravel() for c in cells])),
    }


def deflated(array: np.ndarray) -> str:
    """The low bytes of all numbers, then the high bytes, deflated: like follows like."""
    planes = np.ascontiguousarray(array).view(np.uint8).reshape(-1, array.itemsize).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")
