"""A sequence in, a sequence out with a delay: nothing is answered until all has been heard.

--task copy: some symbols, a pause, a sign, and then the symbols are to be said again (copy memory).
--task reverse: the symbols are to be said from the last to the first, as soon as the last was heard.  Prints
what is said beside what was told, against guessing, and draws the first and the last steps with the gradient
that leads from the answers back to what was told.

    python examples/delay.py
    python examples/delay.py --delay 40 --cell rnn             # at some distance it is forgotten
    python examples/delay.py --task reverse --length 8
"""

from __future__ import annotations

import argparse
import math
import string
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cells
import minigrad as mg
import viz
from cells import tasks
from minigrad.command.given import add_language, prepare
from minigrad.command.main import ended

BATCH, TEST = 32, 500  # sequences in a batch, and held out


class Task:
    """Which arrays are drawn, and how many steps after the first input the first output comes."""

    def __init__(self, options: argparse.Namespace):
        self.name, self.length, self.symbols = options.task, options.length, options.symbols
        self.pause = options.delay if self.name == "copy" else 0
        self.delay = self.pause + self.length
        self.draw(1, np.random.default_rng(0))  # refuses impossible sizes

    def draw(self, N: int, rng: np.random.Generator) -> tuple:
        """x (T, N) and what is to be said at its last steps, (length, N)."""
        if self.name == "reverse":
            return tasks.reversal(self.length, N, rng, symbols=self.symbols)
        x, targets = tasks.copy_memory(self.pause, N, rng, length=self.length, symbols=self.symbols)
        return x, targets[-self.length :]

    def spell(self, symbols: np.ndarray) -> str:
        """Letters for symbols, a point for a blank, ? for the sign to begin."""
        return "".join(("·" + string.ascii_letters[: self.symbols] + "?")[k] for k in symbols)


class Model:
    """A layer whose outputs begin `delay` steps after its inputs: x (T, N) → y (T − delay, N, K)."""

    def __init__(self, kind: str, hidden: int, task: Task, rng: np.random.Generator):
        self.task, self.inputs = task, task.symbols + 2  # with the blank and the sign
        self.layer = cells.Stack(cells.CELLS[kind], self.inputs, hidden, 1, rng)
        self.output = cells.Output(hidden, task.symbols + 1, rng)

    def parameters(self) -> dict[str, mg.Tensor]:
        return {**self.layer.parameters(), **self.output.parameters()}

    def answer(self, x):
        return cells.many_to_many(self.layer, self.output, mg.one_hot(x, self.inputs), delay=self.task.delay)

    def loss(self, x, targets) -> mg.Tensor:
        return mg.cross_entropy(self.answer(x), targets)


def train(model: Model, steps: int, rng: np.random.Generator) -> None:
    batches = (model.task.draw(BATCH, rng) for _ in range(steps))
    mg.fit(model.loss, model.parameters(), batches, steps=steps, lr=lambda step: 0.01 / (1 + step / 2000))


def report(model: Model, rng: np.random.Generator, console: Console) -> None:
    task = model.task
    x, targets = task.draw(TEST, rng)
    with mg.no_grad():
        logits = model.answer(x)
        nats = mg.cross_entropy(logits, targets).item()
    said = logits.value.argmax(axis=-1)
    table = Table("told", "to be said", "said", "", title="What it says")
    for n in range(6):
        right = "right" if (said[:, n] == targets[:, n]).all() else "wrong"
        table.add_row(*(task.spell(s[:, n]) for s in (x[: task.length], targets, said)), right)
    console.print(table)
    title = f"What it learned: {task.name}, first answer {task.delay} steps after the first symbol"
    learned = Table("", "nats a symbol", "symbols right", "sequences right", title=title)
    guess = 1 / task.symbols
    learned.add_row("guessing", f"{math.log(task.symbols):.4f}", f"{guess:.1%}", f"{guess**task.length:.1%}")
    right = said == targets
    name = type(model.layer.cells[0]).__name__
    learned.add_row(name, f"{nats:.4f}", f"{right.mean():.1%}", f"{right.all(axis=0).mean():.1%}")
    console.print(learned)


def draw(model: Model, rng: np.random.Generator, out: Path) -> list[Path]:
    """How what is said depends on what was told: the gradient of its score, as that of the loss is near 0 by now."""
    task = model.task
    x, _ = task.draw(1, rng)
    logits = model.answer(x)
    said = logits.value.argmax(axis=-1)
    score = (mg.one_hot(said, task.symbols + 1) * logits).sum().named("score")
    score.backward(record=True)
    captions = list(task.spell(x[:, 0]))
    for k, letter in enumerate(task.spell(said[:, 0])):
        captions[task.delay + k] += f" → {letter}"
    title = f"many to many with a delay of {task.delay} steps: {task.name}"
    stem = f"delay_{task.name}"
    pictures = {
        stem: viz.draw(score, level="step", title=title, captions=captions),
        f"{stem}_gradient": viz.gradient(
            score, title=f"{title}, the gradient of what is said", captions=captions
        ),
    }
    paths = [out / f"{name}{suffix}" for name in pictures for suffix in (".svg", ".png")]
    for path in paths:
        pictures[path.stem].save(path)
    return paths


def arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=["copy", "reverse"], default="copy")
    parser.add_argument("--length", type=int, default=5, help="symbols of a sequence (default: 5)")
    parser.add_argument("--symbols", type=int, default=8, help="different symbols (default: 8)")
    parser.add_argument(
        "--delay", type=int, default=20, help="steps of the pause before copying (default: 20)"
    )
    parser.add_argument("--cell", choices=sorted(cells.CELLS), default="lstm")
    parser.add_argument("--hidden", type=int, default=64, help="hidden units (default: 64)")
    parser.add_argument("--steps", type=int, default=2500, help="training steps (default: 2500)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the pictures (default: out)"
    )
    add_language(parser)
    options = parser.parse_args(arguments)
    if options.steps < 0 or options.seed < 0:
        parser.error("--steps and --seed must not be negative")
    if not 2 <= options.symbols <= len(string.ascii_letters):
        parser.error(f"--symbols must be 2 … {len(string.ascii_letters)}")
    return options


def main(options: argparse.Namespace) -> None:
    viz.language(options.language)
    console = Console()
    rng = np.random.default_rng(options.seed)
    task = Task(options)
    model = Model(options.cell, options.hidden, task, rng)
    if any(name.endswith("b_f") for name in model.parameters()):
        cells.chrono(model.layer, task.delay + task.length, rng)  # so that it remembers as long as it has to
    prepare(options.out)
    console.print(escape(repr(model.layer.cells[0]).split("\n")[0]), soft_wrap=True)
    train(model, options.steps, rng)
    report(model, rng, console)
    console.print("pictures:")
    for path in draw(model, rng, options.out):
        console.print(f"  {escape(str(path))}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(ended(Path(__file__).name, lambda: main(arguments(None))))
