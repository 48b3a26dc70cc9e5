"""An LSTM learns to write "hello", and pictures show how the gradient taught it.

Trains on next characters (h→e, e→l, l→l, l→o) with the compiled loss, prints what was learned and how
large the gradient is at every step, and draws the unrolled network, the gradient
flowing back through time, and the gates over time.

    minigrad hello
    minigrad hello --word banana --cell rnn --hidden 16
    minigrad hello --text book.txt --steps 500 --out pictures
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

import cells
import minigrad as mg
import viz
from viz.language.catalogue import deferred, tr

from .given import add_out, not_negative, prepare, read_text, visible

WINDOW, BATCH = 25, 8  # of a longer text: steps in a window, windows in a batch
PICTURES = {
    "network": deferred("the unrolled network"),
    "gradient": deferred("the gradient flowing back through time"),
    "gates": deferred("the gates over time"),
}


class Model:
    """A cell and an output layer: one-hot characters in, logits of the next character out."""

    def __init__(self, kind: str, alphabet: cells.Alphabet, hidden: int, rng: np.random.Generator):
        self.cell = cells.CELLS[kind](len(alphabet), hidden, rng)
        self.output = cells.Output(hidden, len(alphabet), rng)

    def parameters(self) -> dict[str, mg.Tensor]:
        return {**self.cell.parameters(), **self.output.parameters()}

    def run(self, x) -> cells.Run:
        """x (T, N, K) → all steps; each has the logits of the next character in y."""
        return self.cell(x, output=self.output)

    def loss(self, x, targets) -> mg.Tensor:
        return mg.cross_entropy(self.run(x).y, targets).named("L")


def windows(codes: np.ndarray, T: int, N: int, rng: np.random.Generator) -> np.ndarray:
    """N windows of T + 1 characters from random places: (T + 1, N)."""
    starts = rng.integers(0, len(codes) - T, N)
    return codes[starts + np.arange(T + 1)[:, None]]


def train(model: Model, codes: np.ndarray, steps: int, rng: np.random.Generator, console: Console) -> None:
    optimiser = mg.optim.Adam(model.parameters(), lr=0.03)
    one = len(codes) <= WINDOW + 1
    T, N = (len(codes) - 1, 1) if one else (WINDOW, BATCH)
    rows = np.eye(model.cell.inputs, dtype=np.float32)
    loss = mg.compile(model.loss)
    for _ in track(range(steps), "training", console=console, transient=True):
        batch = windows(codes, T, N, rng)
        optimiser.zero_grad()
        loss.backward(rows[batch[:-1]], batch[1:])
        mg.optim.clip_by_norm(optimiser.parameters, 5.0)
        optimiser.step()


def show(char: str) -> str:
    """A character for the terminal, where it cannot act as markup."""
    return escape(visible(char))


def report(
    model: Model, steps, logits: mg.Tensor, codes: np.ndarray, alphabet: cells.Alphabet, console: Console
) -> None:
    """Print what was learned, and gates and gradients step by step."""
    probabilities = mg.softmax(logits).value[:, 0]
    best = probabilities.argmax(axis=-1)
    learned = Table(
        "t", tr("input"), tr("target"), tr("predicted"), tr("probability"), "", title=tr("What it learned")
    )
    for k in range(len(best)):
        given, target, predicted = (show(alphabet.characters[c]) for c in (codes[k], codes[k + 1], best[k]))
        right = tr("right") if best[k] == codes[k + 1] else tr("wrong")
        learned.add_row(str(k + 1), given, target, predicted, f"{probabilities[k, best[k]]:.3f}", right)
    console.print(learned)
    console.print(tr("{n} of {total} characters right", n=int((best == codes[1:]).sum()), total=len(best)))

    states = model.cell.state.split()
    gates = [name for name in model.cell.gates.split() if name not in states]
    flow = Table(
        "t",
        *(tr("mean {name}", name=g) for g in gates),
        *(f"‖∂L/∂{s}_t‖" for s in states),
        title=tr("Gates and gradients"),
    )
    for step in steps:
        means = [f"{step[g].value.mean():.3f}" for g in gates]
        flow.add_row(str(step.t), *means, *(f"{np.linalg.norm(step[s].grad):.3e}" for s in states))
    console.print(flow)


def write(model: Model, first: int, length: int, alphabet: cells.Alphabet) -> str:
    """Let the model write: each most likely character is the next input."""
    text, state, rows = [first], None, np.eye(len(alphabet), dtype=np.float32)
    with mg.no_grad():
        for _ in range(length):
            run = model.cell(rows[[[text[-1]]]], state)
            state = run.state
            text.append(int(model.output(run.last).value.argmax()))
    return alphabet.decode(text)


def draw(steps, loss: mg.Tensor, captions: list[str], title: str, out: Path) -> list[Path]:
    titled = {name: f"{title}: {tr(what)}" for name, what in PICTURES.items()}
    pictures = {
        "network": viz.draw(loss, steps=steps, title=titled["network"], captions=captions),
        "gradient": viz.gradient(loss, steps=steps, title=titled["gradient"], captions=captions),
        "gates": viz.gates(steps, title=titled["gates"], captions=captions),
    }
    paths = [out / f"{name}{suffix}" for name in pictures for suffix in (".svg", ".png")]
    for path in paths:
        pictures[path.stem].save(path)
    return paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--word", default="hello", help="the word to learn (default: hello)")
    source.add_argument(
        "--text", type=Path, help="a text file to learn from, UTF-8; windows of it are trained on"
    )
    parser.add_argument("--cell", choices=sorted(cells.CELLS), default="lstm")
    parser.add_argument("--hidden", type=int, default=8, help="hidden units (default: 8)")
    parser.add_argument("--steps", type=int, default=300, help="training steps (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    add_out(parser, "out")


def main(options: argparse.Namespace) -> None:
    not_negative(options)
    console = Console()
    text = options.word if options.text is None else read_text(options.text)
    alphabet = cells.Alphabet(text)
    codes = alphabet.encode(text)
    rng = np.random.default_rng(options.seed)
    model = Model(options.cell, alphabet, options.hidden, rng)
    prepare(options.out)
    console.print(escape(repr(model.cell).split("\n")[0]), soft_wrap=True)
    train(model, codes, options.steps, rng, console)

    # The same model once more on values: now every step is there to be looked at.
    shown = codes[: WINDOW + 1]
    run = model.run(alphabet.one_hot(alphabet.decode(shown[:-1])))
    steps, logits = run.steps, run.y
    loss = mg.cross_entropy(logits, shown[1:, None]).named("L")
    loss.backward(record=True)
    report(model, steps, logits, shown, alphabet, console)
    written = write(model, shown[0], len(shown) - 1, alphabet)
    console.print(tr("it writes: {text}", text="".join(map(show, written))), soft_wrap=True)
    read = tr("the text") if options.text else repr(text[:20])
    title = tr("{cell} on {text}", cell=type(model.cell).__name__, text=read)
    console.print(tr("pictures:"))
    captions = [
        f"{visible(alphabet.characters[a])} → {visible(alphabet.characters[b])}" for a, b in pairwise(shown)
    ]
    for path in draw(steps, loss, captions, title, options.out):
        console.print(f"  {escape(str(path))}", soft_wrap=True)
