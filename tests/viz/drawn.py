"""Small networks with known gradients, and readers for the pictures of them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

import cells
from minigrad import Tensor, concat, cross_entropy, sigmoid, stack, tanh


def network(cell=cells.LSTM, T=4, H=8, D=4, seed=0, backward=True, dtype="float64", N=1):
    """An unrolled cell with an output layer and a loss over all steps: (loss, steps)."""
    rng = np.random.default_rng(seed)
    made = cell(D, H, rng, dtype)
    output = cells.Output(made.width, D, rng, dtype)
    steps = cells.run(made, rng.standard_normal((T, N, D)).astype(dtype)).steps
    loss = cross_entropy(stack([output(s.state[0]) for s in steps]), rng.integers(0, D, (T, N)))
    if backward:
        loss.backward(record=True)
    return loss, steps


def plain(backward=True):
    """sigmoid(x·W + b)², summed."""
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((2, 3)), name="x")
    W = Tensor(rng.standard_normal((3, 4)), requires_grad=True, name="W")
    b = Tensor(np.zeros(4), requires_grad=True, name="b")
    loss = (sigmoid(x @ W + b) ** 2).sum().named("loss")
    if backward:
        loss.backward(record=True)
    return loss


class GRU(cells.Cell):
    """The lecture's gated recurrent unit: its only state is a memory line that also feeds the gates."""

    gates = "z r h_tilde"

    def build(self, rng):
        for gate in "zrh":
            self.gate_parameters(gate, rng)

    def step(self, x, h_prev):
        hx = concat(h_prev, x)
        z = sigmoid(hx @ self.W_z)
        r = sigmoid(hx @ self.W_r)
        h_tilde = tanh(concat(r * h_prev, x) @ self.W_h)
        h = (1 - z) * h_prev + z * h_tilde
        return {"z": z, "r": r, "h_tilde": h_tilde, "h": h}


def texts(svg: str) -> list[str]:
    """All visible words of a picture, in the order in which they stand in it."""
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")]


def edges(dot: str) -> list[tuple[str, str]]:
    """The edges of a DOT text as pairs of node ids."""
    found = re.findall(r'^\s*("[^"]*"|\w+) -> ("[^"]*"|\w+)(?: \[|$)', dot, re.MULTILINE)
    return [(a.strip('"'), b.strip('"')) for a, b in found]


def attributes_of(dot: str, source: str, target: str) -> str:
    """The attributes of one edge."""
    for line in dot.splitlines():
        if re.match(rf'\s*"?{re.escape(source)}"? -> "?{re.escape(target)}"? \[', line):
            return line
    raise AssertionError(f"no edge {source} -> {target}")


def structure(dot: str) -> str:
    """What a golden compares: frames, nodes with their words, edges with their dash; no positions."""
    lines = []
    for line in dot.splitlines():
        line = line.strip()
        if found := re.match(r'subgraph ("[^"]*"|\w+)', line):
            lines.append(f"frame {found[1]}")
        elif found := re.match(r'("[^"]*"|\w+) -> ("[^"]*"|\w+)((?: \[.*\])?)$', line):
            dash = re.search(r"style=(\w+)", found[3])
            label = re.search(r"label=<(.*?)> ", found[3])
            words = re.sub(r"<[^>]*>", "", label[1]) if label else ""
            lines.append(f"  {found[1]} -> {found[2]} {dash[1] if dash else ''} {words}".rstrip())
        elif (found := re.match(r'("[^"]*"|\w+) \[label=(.*)', line)) and "scale" not in found[1]:
            words = re.findall(r">([^<>]+)<", found[2])
            lines.append(f"  {found[1]}: {' '.join(w.strip() for w in words if w.strip())}")
    return "\n".join(lines) + "\n"


def words_of(picture) -> str:
    """All visible words of a picture, one after the other."""
    return " ".join(texts(picture.svg()))


def described(sheet) -> str:
    """A chart as text: what each panel says, and every cell, bar, arrow and dot of it."""
    said = [line if isinstance(line, str) else "     ".join(line) for line in sheet.lines]
    lines = [sheet.title, *said, *sheet.headlines]
    for row in sheet.panels:
        for panel in row:
            lines.append(f"{type(panel).__name__.lower()} {panel.head}: {panel.said}".rstrip(": "))
            if hasattr(panel, "rows"):
                names = [*panel.labels, *[""] * len(panel.rows)]
                for name, cells_ in zip(names, panel.rows, strict=False):
                    lines.append(f"  {name}: " + ", ".join(c.said or c.status or "-" for c in cells_))
                lines.append("  columns: " + " ".join(panel.columns))
            else:
                for mark in panel.marks:
                    said = getattr(mark, "said", "") or getattr(mark, "label", "")
                    lines.append(f"  {type(mark).__name__.lower()} {said}".rstrip())
    return "\n".join([*lines, *(f"legend: {s}" for s in sheet.statuses), *sheet.notes]) + "\n"
