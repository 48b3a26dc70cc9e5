"""A sequence in, one output: the sum of the two marked numbers of a sequence, or whether a sentence is praise.

--task adding: 100 steps of a random number and a marker; only after the last step the two marked numbers
are asked for (the adding problem).  --task sentiment: sentences of different length in which the order
decides: "the plot is not dull but the music is weak" is not praise.  Prints what was learned beside what is
reached without memory or without order, and draws how the answer to one sequence depends on each of its steps.

    python examples/many_to_one.py
    python examples/many_to_one.py --cell rnn                  # does not learn it
    python examples/many_to_one.py --task sentiment --say "the plot is never dull"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
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
WORDS = len(tasks.VOCABULARY)
SAID = [
    "the plot is not dull but the music is weak",
    "the plot is dull but the music is not weak",
    "the film is never boring",
    "the ending is good and the story is really funny",
]


class Model:
    """A layer whose last step gives the output: x (T, N, D) → y (N, K)."""

    def __init__(self, kind: str, inputs: int, hidden: int, width: int, rng: np.random.Generator):
        self.layer = cells.Stack(cells.CELLS[kind], inputs, hidden, 1, rng)
        self.output = cells.Output(hidden, width, rng)

    def parameters(self) -> dict[str, mg.Tensor]:
        return {**self.layer.parameters(), **self.output.parameters()}

    def sum_of(self, x):
        """(T, N, 2) → (N, 1)."""
        return cells.many_to_one(self.layer, self.output, x)

    def sum_loss(self, x, target) -> mg.Tensor:
        return mg.mse(self.sum_of(x), target).named("L")

    def praise_of(self, x, lengths):
        """Words (T, N) and lengths (N,) → logits (N, 2)."""
        return cells.many_to_one(self.layer, self.output, mg.one_hot(x, WORDS), lengths=lengths)

    def praise_loss(self, x, lengths, praise) -> mg.Tensor:
        return mg.cross_entropy(self.praise_of(x, lengths), praise).named("L")


def train(loss: Callable, parameters: dict, draw: Callable, steps: int, lr: float) -> None:
    mg.fit(loss, parameters, (draw(BATCH) for _ in range(steps)), steps=steps, lr=lr)


def adding(model: Model, options: argparse.Namespace, rng: np.random.Generator, console: Console):
    """Train, report, and give the answer to one sequence, its captions and its title."""
    train(
        model.sum_loss, model.parameters(), lambda N: tasks.adding(options.length, N, rng), options.steps,
        0.01,
    )  # fmt: skip
    x, target = tasks.adding(options.length, TEST, rng)
    with mg.no_grad():
        said = model.sum_of(x).value
    table = Table("marked numbers", "sum", "said", title="What it says")
    for n in range(5):
        table.add_row(
            " + ".join(f"{v:.2f}" for v in x[:, n, 0][x[:, n, 1] > 0]),
            f"{target[n, 0]:.2f}",
            f"{said[n, 0]:.2f}",
        )
    console.print(table)
    learned = Table(
        "", "mean squared error", title=f"What it learned, {options.length} steps, {TEST} held-out sequences"
    )
    learned.add_row("always 1", f"{np.mean((target - 1) ** 2):.4f}")
    learned.add_row(type(model.layer.cells[0]).__name__, f"{np.mean((target - said) ** 2):.4f}")
    console.print(learned)

    shown, _ = tasks.adding(options.length, 1, rng)
    shown[..., 1] = 0
    shown[min(1, options.length - 2), 0] = 0.5, 1  # where the picture shows them
    shown[max(1, options.length - 3), 0] = 0.3, 1
    answer = model.sum_of(shown)[0, 0].named("sum")
    return (
        answer,
        [f"{v:.2f}{' marked' if m else ''}" for v, m in shown[:, 0]],
        "many to one: the sum of the marked numbers.",
    )


def bag_of_words(steps: int, rng: np.random.Generator) -> Callable:
    """The same without order: which words a sentence has, and an output layer."""
    output = cells.Output(WORDS, 2, rng)

    def counts(x, lengths):
        real = (np.arange(len(x))[:, None] < lengths)[..., None]
        return (np.eye(WORDS, dtype=np.float32)[x] * real).sum(axis=0)

    def draw(N):
        x, lengths, praise = tasks.sentiment(N, rng)
        return counts(x, lengths), praise

    train(lambda c, praise: mg.cross_entropy(output(c), praise), output.parameters(), draw, steps, 0.03)
    return lambda x, lengths: output(counts(x, lengths)).value.argmax(axis=-1)


def sentiment(model: Model, options: argparse.Namespace, rng: np.random.Generator, console: Console):
    """Train, report, and give the answer to one sentence, its captions and its title."""
    x, lengths = tasks.encode_sentences([options.say, *SAID] if options.say else SAID)
    train(model.praise_loss, model.parameters(), lambda N: tasks.sentiment(N, rng), options.steps, 0.01)
    without_order = bag_of_words(options.steps, rng)

    def share(x, lengths):
        with mg.no_grad():
            return mg.softmax(model.praise_of(x, lengths)).value[:, 1]

    table = Table("sentence", "praise", title="What it says")
    for n, p in enumerate(share(x, lengths)):
        table.add_row(escape(" ".join(tasks.VOCABULARY[k] for k in x[: lengths[n], n])), f"{p:.1%}")
    console.print(table)
    test_x, test_lengths, praise = tasks.sentiment(TEST, rng, held_out=True)
    learned = Table("", "right", title=f"What it learned, {TEST} held-out sentences")
    learned.add_row("always the same", f"{max(praise.mean(), 1 - praise.mean()):.1%}")
    learned.add_row(
        "its words without their order", f"{np.mean(without_order(test_x, test_lengths) == praise):.1%}"
    )
    right = np.mean((share(test_x, test_lengths) > 0.5) == praise)
    learned.add_row(type(model.layer.cells[0]).__name__, f"{right:.1%}")
    console.print(learned)

    one = x[: lengths[0], :1]
    logits = model.praise_of(one, lengths[:1])
    answer = (logits[0, 1] - logits[0, 0]).named("praise")
    return answer, [tasks.VOCABULARY[k] for k in one[:, 0]], "many to one: is it praise? (above 0: yes)"


def draw(answer: mg.Tensor, captions: list[str], title: str, stem: str, out: Path) -> list[Path]:
    """How the answer depends on every step: its own gradient, not that of the loss, which is near 0 by now."""
    answer.backward(record=True)
    told, last = {"captions": captions}, (len(captions) - 2, len(captions))
    pictures = {
        stem: viz.draw(answer, level="step", title=title, **told),
        f"{stem}_gates": viz.draw(answer, title=f"{title} The last steps", window=last, **told),
    }
    paths = [out / f"{name}{suffix}" for name in pictures for suffix in (".svg", ".png")]
    for path in paths:
        pictures[path.stem].save(path)
    return paths


def arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=["adding", "sentiment"], default="adding")
    parser.add_argument("--cell", choices=sorted(cells.CELLS), default="lstm")
    parser.add_argument("--hidden", type=int, default=32, help="hidden units (default: 32)")
    parser.add_argument("--length", type=int, default=100, help="steps of the adding problem (default: 100)")
    parser.add_argument(
        "--say", default="", help="a sentence of your own; the words are printed when one is not known"
    )
    parser.add_argument("--steps", type=int, default=600, help="training steps (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the pictures (default: out)"
    )
    add_language(parser)
    options = parser.parse_args(arguments)
    if options.steps < 0 or options.seed < 0:
        parser.error("--steps and --seed must not be negative")
    if options.say and options.task != "sentiment":
        parser.error("--say is for --task sentiment")
    return options


def main(options: argparse.Namespace) -> None:
    viz.language(options.language)
    console = Console()
    rng = np.random.default_rng(options.seed)
    tasks.encode_sentences([options.say])  # refuses words that are not known
    tasks.adding(options.length, 1, np.random.default_rng(0))  # and lengths that are too short
    inputs, width = (2, 1) if options.task == "adding" else (WORDS, 2)
    model = Model(options.cell, inputs, options.hidden, width, rng)
    if options.task == "adding" and any(name.endswith("b_f") for name in model.parameters()):
        cells.chrono(model.layer, max(2, options.length), rng)  # so that it remembers as long as it has to
    prepare(options.out)
    console.print(escape(repr(model.layer.cells[0]).split("\n")[0]), soft_wrap=True)
    answer, captions, title = (adding if options.task == "adding" else sentiment)(
        model, options, rng, console
    )
    console.print("pictures:")
    for path in draw(answer, captions, title, f"many_to_one_{options.task}", options.out):
        console.print(f"  {escape(str(path))}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(ended(Path(__file__).name, lambda: main(arguments(None))))
