"""Renders the pictures that README.md shows, into docs/pictures: `make pictures`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import cells
import minigrad as mg
import viz

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))
import hello_lstm  # noqa: E402


def compiled_lstm():
    rng = np.random.default_rng(0)
    cell, output = cells.LSTM(4, 8, rng), cells.Output(8, 4, rng)

    def loss(x, targets):
        return mg.cross_entropy(cells.run(cell, x, output=output).y, targets).named("L")

    step = mg.compile(loss)
    step.value_and_grad(np.zeros((4, 1, 4), np.float32), np.zeros((4, 1), np.int64))
    return step


def main() -> None:
    target = HERE / "pictures"
    with tempfile.TemporaryDirectory() as folder:
        hello_lstm.main(hello_lstm.arguments(["--out", folder]))
        for name in ("network", "gradient", "gates"):
            shutil.copy(Path(folder) / f"{name}.png", target / f"{name}.png")
    viz.rewrites(compiled_lstm())["hoist forward"].save(target / "hoist.png")


if __name__ == "__main__":
    main()
