"""The lecture's page in which networks learn: RNN, LSTM, GRU and JANET on the reader's own word, one HTML file.

Open the file in a browser: type a word, press Train, move the forget gate's bias, and see which gate lets the gradient
through.  The page needs neither Python nor a network.

    python examples/live.py
    python examples/live.py --word banana --out lecture
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

import cells
import minigrad as mg
import viz
from minigrad.command.given import add_language, prepare
from minigrad.command.main import ended

KINDS = {"lstm": "LSTM", "rnn": "RNN", "gru": "GRU", "janet": "JANET"}
LARGEST = {"T": 40, "H": 24, "K": 30}


def learner(kind: str, largest=LARGEST, rng: np.random.Generator | None = None) -> viz.Learner:
    """A cell of the largest size as viz.live takes it."""
    rng = rng or np.random.default_rng(0)
    return viz.learner(cells.CELLS[kind](largest["K"], largest["H"], rng), KINDS[kind], rng)


def make(word: str) -> viz.Page:
    learners = [learner(kind) for kind in KINDS]
    return viz.live(
        learners, optimiser=mg.optim.Adam(learners[0].parameters, lr=0.01, betas=(0.9, 0.99)), text=word,
        title="Watch a recurrent network learn", stories=viz.LECTURE, largest=LARGEST,
    )  # fmt: skip


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--word", default="hello", help="what is learned at first (default: hello)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the page, live.html (default: out)"
    )
    add_language(parser)
    return parser.parse_args(given)


def main(options: argparse.Namespace) -> None:
    viz.language(options.language)
    prepare(options.out)
    console = Console()
    with console.status("compiling"):
        page = make(options.word)
    path = page.save(options.out / "live.html")
    console.print(f"open {escape(str(path))} ({path.stat().st_size / 1000:.0f} kB)", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(ended(Path(__file__).name, lambda: main(arguments(None))))
