"""Reads a page's own numbers back out of its HTML, apart from the code that packed them and the script that draws them."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np


class Unpacked:
    """The data of one recording of a page; steps are counted from 0."""

    def __init__(self, html: str, recording: int = -1):
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
        self.data = json.loads(found[1])
        r = self.recording = self.data["recordings"][recording]
        self.kind = _array(r["of"], 2)
        self.sizes = r["sizes"]
        digits, powers = _array(r["digits"], 2), _array(r["powers"], 2).astype(np.int16)
        self.codes, self.at = [], np.zeros(len(self.kind), int)
        place = 0
        for kind, (columns, _, steps) in enumerate(self.sizes):
            own = slice(place, place + columns * steps)
            self.codes.append((digits[own].reshape(columns, steps), powers[own].reshape(columns, steps)))
            place += columns * steps
            self.at[self.kind == kind] = np.arange(steps)
        assert place == len(digits) == len(powers)

    def plan(self, k: int) -> dict:
        return self.data["plans"][self.recording["plans"][self.kind[k]]]

    def number(self, k: int, column: int) -> float:
        """The number in a column at a step, with four digits."""
        code, power = (int(a[column, self.at[k]]) for a in self.codes[self.kind[k]])
        sign, digits = (-1 if code >> 15 else 1), code & 0x3FFF
        special = {10001: np.nan, 10002: np.inf}
        return sign * special.get(digits, float(f"{digits}e{power - 3}"))

    def boxes(self, k: int, level: str) -> list[tuple[dict, list]]:
        """Every box of a step, and what is said of its node."""
        plan = self.plan(k)
        return [(b, plan["nodes"][b["n"]]) for b in plan[level]["boxes"] if b["n"] >= 0]

    def lines(self, k: int, level: str) -> list[tuple[str, str, float | str]]:
        """(from, to, gradient or why there is none) of every line of a step."""
        t = self.data["steps"][k] if self.data["steps"] else 0
        found = []
        for _, column, _, state, _, source, a, target, b, _ in self.plan(k)[level]["lines"]:
            ends = (n if dt is None else f"{n} t={t + dt}".strip() for n, dt in ((source, a), (target, b)))
            found.append((*ends, self.number(k, column) if column >= 0 else state))
        return found

    def beats(self, level: str) -> list[tuple[int, str, str]]:
        """(beat, from, to) of every line along which a gradient flows."""
        beats, place, starts = _array(self.recording["beats"][level], 4), 0, []
        for which, (_, _, steps) in zip(self.recording["plans"], self.sizes, strict=True):
            starts.append(place)
            place += self.data["plans"][which][level]["turns"] * steps
        assert place == len(beats)
        found = []
        for k, kind in enumerate(self.kind):
            turns = [line[4] for line in self.plan(k)[level]["lines"]]
            for turn, (source, target, _) in zip(turns, self.lines(k, level), strict=True):
                if turn >= 0:
                    at = starts[kind] + turn * self.sizes[kind][2] + self.at[k]
                    found.append((int(beats[at]), source, target))
        return found


def _array(packed: str, size: int) -> np.ndarray:
    raw = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(size, -1)
    return np.ascontiguousarray(raw.T).view(f"<u{size}").ravel()
