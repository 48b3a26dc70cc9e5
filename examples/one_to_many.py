"""One input, a sequence out: a network writes a word from its class, "metal" → "silver".

The class is the first input, or makes the first state (--class-as state).  In training every letter of the
word is given as the next input; when writing, each letter that was written is.  Prints words for every class
and how many of them are words of it, and draws one word with the gradient that taught it.

    python examples/one_to_many.py
    python examples/one_to_many.py --class-as state --cell gru --temperature 0.5 --out pictures
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cells
import minigrad as mg
import viz
from cells.experiments.tasks import END, WORDS, word_alphabet, words
from minigrad.command.given import add_language, prepare
from minigrad.command.main import ended

LETTERS, CLASSES = word_alphabet(), list(WORDS)
LONGEST = max(map(len, itertools.chain(*WORDS.values()))) + 1
BATCH, TRIALS = 36, 100  # words in a batch; words written for each class


class Model:
    """A cell and an output layer.  Inputs (…, K + C) are one-hot rows of a letter or, at first, of a class."""

    def __init__(self, kind: str, hidden: int, class_as: str, rng: np.random.Generator):
        self.rows = np.eye(len(LETTERS) + len(CLASSES), dtype=np.float32)
        self.layer = cells.Stack(cells.CELLS[kind], len(self.rows), hidden, 1, rng)
        self.output = cells.Output(hidden, len(LETTERS), rng)
        self.first = cells.FirstState(self.layer, len(CLASSES), rng) if class_as == "state" else None

    def parameters(self) -> dict[str, mg.Tensor]:
        first = {} if self.first is None else self.first.parameters()
        return {**first, **self.layer.parameters(), **self.output.parameters()}

    def begin(self, classes) -> tuple:
        """What the word is made from: the first input (N, K + C), and the first state if the class makes it."""
        rows = mg.one_hot(classes + len(LETTERS), len(self.rows))
        if self.first is None:
            return rows, None
        return rows * 0.0, self.first(rows[:, len(LETTERS) :])

    def logits(self, classes, spelled):
        """classes (N,), letters (T, N) → (T, N, K), each from the class and the letters before."""
        first, state = self.begin(classes)
        given = mg.one_hot(spelled[:-1], len(self.rows))
        return cells.one_to_many(self.layer, self.output, first, given, state=state)

    def loss(self, classes, spelled, real) -> mg.Tensor:
        return mg.cross_entropy(self.logits(classes, spelled), spelled, mask=real).named("L")

    def write(self, classes: np.ndarray, choose) -> list[str]:
        """A word for each class (N,), up to its end."""
        first, state = self.begin(mg.Tensor(classes))
        written = cells.generate(self.layer, self.output, first, LONGEST, choose=choose, state=state)
        return ["".join(LETTERS[k] for k in column).split(END)[0] for column in written.T]


def train(model: Model, options: argparse.Namespace, rng: np.random.Generator) -> None:
    batches = (words(BATCH, rng) for _ in range(options.steps))
    mg.fit(model.loss, model.parameters(), batches, steps=options.steps, lr=0.01)


def by_frequency(rng: np.random.Generator) -> tuple[float, list[str]]:
    """Who knows only how frequent letters are: nats a letter, and what would be written."""
    every = "".join(w + END for w in itertools.chain(*WORDS.values()))
    p = np.array([every.count(c) for c in LETTERS]) / len(every)
    drawn = rng.choice(list(LETTERS), p=p, size=(len(CLASSES) * TRIALS, LONGEST))
    return float(-(p * np.log(p)).sum()), ["".join(row).split(END)[0] for row in drawn]


def report(model: Model, options: argparse.Namespace, rng: np.random.Generator, console: Console) -> None:
    choose = cells.by_probability(rng, options.temperature)
    asked = np.repeat(np.arange(len(CLASSES)), TRIALS)
    written = model.write(asked, choose)
    table = Table("class", "written", "words of the class", title="What it writes")
    for k, name in enumerate(CLASSES):
        own = written[k * TRIALS : (k + 1) * TRIALS]
        right = sum(w in WORDS[name] for w in own)
        table.add_row(name, escape(", ".join(own[:6])), f"{right} of {TRIALS}")
    console.print(table)

    def share(some: list[str]) -> str:
        right = sum(w in WORDS[CLASSES[c]] for c, w in zip(asked, some, strict=True))
        return f"{right / len(some):.1%}"

    guess, guessed = by_frequency(rng)
    batch = words(600, rng)
    with mg.no_grad():
        nats = model.loss(*batch).item()
    letters = float(batch[2].sum(axis=0).mean())
    learned = Table("", "nats a letter", "words of the class", title="What it learned")
    learned.add_row("letters by their frequency", f"{guess:.3f}", share(guessed))
    learned.add_row(type(model.layer.cells[0]).__name__, f"{nats:.3f}", share(written))
    best = np.mean([np.log(len(of)) for of in WORDS.values()]) / letters
    learned.add_row("best possible", f"{best:.3f}", "100.0%")
    console.print(learned)


def draw(model: Model, name: str, word: str, out: Path) -> list[Path]:
    """The word letter by letter: how the class comes in, and what every step gives."""
    spelled = np.array([[LETTERS.index(c)] for c in word + END])
    loss = model.loss(np.array([CLASSES.index(name)]), spelled, np.ones(spelled.shape, bool))
    loss.backward(record=True)
    read = [name if model.first is None else "nothing", *word]
    captions = [f"{a} → {'end' if b == END else b}" for a, b in zip(read, word + END, strict=True)]
    title = f"one to many: {name} → {word}" + ("" if model.first is None else ", told by the first state")
    pictures = {
        "one_to_many": viz.draw(loss, level="step", title=title, captions=captions),
        "one_to_many_gates": viz.draw(
            loss, title=f"{title}, the first three steps", captions=captions, window=(1, 3)
        ),
    }
    paths = [out / f"{stem}{suffix}" for stem in pictures for suffix in (".svg", ".png")]
    for path in paths:
        pictures[path.stem].save(path)
    return paths


def arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--class-as", choices=["input", "state"], default="input", help="how the class is told"
    )
    parser.add_argument("--cell", choices=sorted(cells.CELLS), default="lstm")
    parser.add_argument("--hidden", type=int, default=48, help="hidden units (default: 48)")
    parser.add_argument("--steps", type=int, default=600, help="training steps (default: 600)")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1 it writes more boldly")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the pictures (default: out)"
    )
    add_language(parser)
    options = parser.parse_args(arguments)
    if options.steps < 0 or options.seed < 0:
        parser.error("--steps and --seed must not be negative")
    return options


def main(options: argparse.Namespace) -> None:
    viz.language(options.language)
    console = Console()
    rng = np.random.default_rng(options.seed)
    model = Model(options.cell, options.hidden, options.class_as, rng)
    cells.by_probability(rng, options.temperature)  # refuses what is not a temperature
    prepare(options.out)
    console.print(escape(repr(model.layer.cells[0]).split("\n")[0]), soft_wrap=True)
    train(model, options, rng)
    report(model, options, rng, console)
    name = CLASSES[3]
    (word,) = model.write(np.array([3]), None)
    console.print("pictures:")
    for path in draw(model, name, word or WORDS[name][0], options.out):
        console.print(f"  {escape(str(path))}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(ended(Path(__file__).name, lambda: main(arguments(None))))
