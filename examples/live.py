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
from minigrad.command.given import add_language

KINDS = {"lstm": "LSTM", "rnn": "RNN", "gru": "GRU", "janet": "JANET"}
FORGET = {"lstm": ("b_f", "f"), "janet": ("b_f", "f")}  # the forget gate's bias, and the gate
LARGEST = {"T": 40, "H": 24, "K": 30}
LONG = "a long memory is hard"

STORIES = [
    viz.Story(
        "Vanishing: RNN",
        "Look to the left: arrows fade from step to step, and little arrives at the first letter. Then the next story.",
        {"cell": "RNN", "text": LONG, "scale": 0.6},
    ),
    viz.Story(
        "… the LSTM keeps it",
        "The same word, and recurrent weights of the same size. Along c, × is close to what f lets through: the gradient "
        "arrives.",
        {"cell": "LSTM", "text": LONG, "scale": 0.6, "bias": 4},
    ),
    viz.Story(
        "Forget gate at −5",
        "The same LSTM, but f is shut at every step: next to nothing of c survives, and next to nothing comes back along it. "
        "Train: f opens little by little.",
        {"cell": "LSTM", "text": LONG, "scale": 0.6, "bias": -5},
    ),
    viz.Story(
        "Exploding",
        "Recurrent weights × 4: the gradient grows on its way back; look to the left. “One step” tells how large all of it "
        "is.",
        {"cell": "RNN", "text": "hello world", "scale": 4, "lr": -1.3},
    ),
    viz.Story(
        "… clipped",
        "The same, with the norm of the gradient held at 1: its direction stays, its size is bounded. Press “One step”.",
        {"cell": "RNN", "text": "hello world", "scale": 4, "lr": -1.3, "clip": 1},
    ),
    viz.Story(
        "Saturation",
        "Press Train: so large a learning rate drives all units to −1 or 1, where tanh is flat.",
        {"cell": "RNN", "text": "hello", "lr": 0.5},
    ),
    viz.Story(
        "A cut",
        "Truncated every 4 steps: ✂ no gradient goes further, whatever the gates do.",
        {"cell": "LSTM", "text": LONG, "truncate": 4, "bias": 4},
    ),
    viz.Story(
        "One gate: JANET",
        "Half the weights of the LSTM, a forget gate alone, and the gradient arrives.",
        {"cell": "JANET", "text": LONG, "scale": 0.6, "bias": 4},
    ),
]


class Watched:
    """A cell whose gradient between steps can be seen, and cut: `link` are zeros that are added to the states it reads."""

    def __init__(self, cell: cells.Cell):
        self.cell, self.state = cell, cell.state
        self.hidden, self.inputs, self.dtype = cell.hidden, cell.inputs, cell.dtype

    def step(self, x, *state, cut, link):
        state = [s + link[:, k] for k, s in enumerate(state)]
        return self.cell.step(x, *(mg.where(cut, s.detach(), s) for s in state))


def learner(kind: str, largest=LARGEST, rng: np.random.Generator | None = None) -> viz.Learner:
    """A cell and an output layer as viz.live takes them."""
    rng = rng or np.random.default_rng(0)
    cell = cells.CELLS[kind](largest["K"], largest["H"], rng)
    output, watched = cells.Output(cell.outputs, largest["K"], rng), Watched(cell)
    states = cell.state.split()
    quantities = list(dict.fromkeys([*cell.gates.split(), *states]))

    def loss(x, targets, weights, cut, link, own):
        run = cells.run(watched, x, cut=cut, link=link)
        logits = output(run.outputs + own)
        each = mg.cross_entropy(logits, targets, reduction="none")
        return ((each * weights).sum(), mg.softmax(logits), *(run[q] for q in quantities))

    forget, keeper = FORGET.get(kind, ("", ""))
    return viz.Learner(
        KINDS[kind], loss, {**cell.parameters(), **output.parameters()}, quantities, states,
        gates=[q for q in quantities if q not in states and not q.endswith("_tilde")],
        forget=forget, keeper=keeper, equations=str(viz.equations(cell)).strip(),
    )  # fmt: skip


def make(word: str) -> viz.Page:
    learners = [learner(kind) for kind in KINDS]
    return viz.live(
        learners, optimiser=mg.optim.Adam(learners[0].parameters, lr=0.01, betas=(0.9, 0.99)), text=word,
        title="Watch a recurrent network learn", stories=STORIES, largest=LARGEST,
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
    console = Console()
    with console.status("compiling"):
        page = make(options.word)
    path = page.save(options.out / "live.html")
    console.print(f"open {escape(str(path))} ({path.stat().st_size / 1000:.0f} kB)", soft_wrap=True)


if __name__ == "__main__":
    try:
        main(arguments(None))
    except mg.MinigradError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
