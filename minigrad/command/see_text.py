"""A gallery of your own text: RNN, LSTM, GRU and JANET on the same characters, and pictures that answer questions.

Each cell is trained briefly on the text, compiled; then the same stretch of it runs through all
four, visibly, and is drawn: the unrolled network, the gradient on its way back, the gates, which
way the gradient took, which step's loss reaches which step, the weights by step, a health report,
a comparison, and for each cell a page to walk about in.  Open index.html in the folder.

    minigrad see book.txt
    minigrad see book.txt --out gallery --steps 500 --hidden 32
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import cells
import minigrad as mg
import viz
from minigrad import files
from viz.language.catalogue import deferred, tr

from .gallery import QUESTIONS, Section, document, faults, figure, link, speed, words
from .given import UsageError, add_out, add_text, not_negative, prepare, quoted, read_text, visible

KINDS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "janet": "JANET"}
WINDOW, BATCH = 24, 16  # of the training: steps in a window, windows in a batch
MOST_CHARACTERS = 2000  # different ones; beyond, this example is too slow


class Model:
    """A cell and an output layer: characters in, logits of the next character out."""

    def __init__(self, kind: str, classes: int, hidden: int, seed: int):
        rng = np.random.default_rng(seed)
        self.classes = classes
        self.cell = cells.CELLS[kind](classes, hidden, rng)
        self.output = cells.Output(hidden, classes, rng)

    def parameters(self) -> dict[str, mg.Tensor]:
        return {**self.cell.parameters(), **self.output.parameters()}

    def run(self, x) -> cells.Run:
        return self.cell(x, output=self.output)

    def loss(self, codes, targets) -> mg.Tensor:
        """codes, targets (T, N) → nats per character."""
        return mg.cross_entropy(self.run(mg.one_hot(codes, self.classes)).y, targets).named("L")


@dataclass
class Seen:
    """One cell on the stretch of text that is drawn; recordings: (label, loss, steps) while it learned."""

    kind: str
    model: Model
    recordings: list[tuple[str, mg.Tensor, list]]
    losses: np.ndarray

    @property
    def name(self) -> str:
        return KINDS[self.kind]

    @property
    def loss(self) -> mg.Tensor:
        return self.recordings[-1][1]

    @property
    def steps(self) -> list:
        return self.recordings[-1][2]


# Training.


def batches(codes: np.ndarray, steps: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows from random places of the text: the same for every cell."""
    rng = np.random.default_rng(seed)
    T = min(WINDOW, len(codes) - 1)
    for _ in range(steps):
        starts = rng.integers(0, len(codes) - T, BATCH)
        window = codes[starts + np.arange(T + 1)[:, None]]
        yield window[:-1], window[1:]


def train(kind: str, codes: np.ndarray, shown: np.ndarray, alphabet, options, advance) -> Seen:
    """Train one cell, and run the stretch that is shown through it: untrained, half-way and at the end."""
    model = Model(kind, len(alphabet), options.hidden, options.seed)
    parameters = model.parameters()
    kept = {0: copies(parameters)}
    wanted = {options.steps // 10, options.steps} - {0}

    def watch(number: int, _: float) -> None:
        if number in wanted:
            kept[number] = copies(parameters)
        advance(1)

    losses = np.zeros(0)
    if options.steps:
        losses = mg.fit(
            model.loss,
            parameters,
            batches(codes, options.steps, options.seed),
            lr=0.03,
            watch=watch,
            progress=False,
        )
    recordings = []
    for number, values in kept.items():
        model = Model(kind, len(alphabet), options.hidden, options.seed)  # each has gradients of its own
        for layer in (model.cell, model.output):
            layer.load_state_dict({name: values[name] for name in layer.parameters()})
        run = model.run(np.eye(len(alphabet), dtype=np.float32)[shown[:-1]][:, None, :])
        loss = mg.cross_entropy(run.y, shown[1:, None]).named("L")
        loss.backward(record=True)
        recordings.append((tr("after {n} training steps", n=number), loss, run.steps))
    return Seen(kind, model, recordings, losses)


def copies(parameters: dict[str, mg.Tensor]) -> dict[str, np.ndarray]:
    return {name: p.value.copy() for name, p in parameters.items()}


# Pictures.


def one_scale(seen: list[Seen]) -> viz.Scale:
    """The scale of gradients for all pictures of all cells."""
    sizes = [
        float(np.linalg.norm(q.grad)) for s in seen for step in s.steps for q in step.quantities.values()
    ]
    for s in seen:
        sizes += viz.bptt(s.loss, s.steps).data["h"].ravel().tolist()
    return viz.Scale.of(sizes)


def pictures(seen: list[Seen], captions: list[str], scale: viz.Scale) -> dict[str, viz.Picture]:
    """All pictures by the names of their files."""
    told = {"captions": captions, "scale": scale}
    found = {
        "comparison": viz.compare(
            {s.name: s.loss for s in seen}, title=tr("Four cells, one text, one scale"), **told
        )
    }
    for s in seen:
        given = (s.loss, s.steps)
        found |= {
            f"{s.kind}_network": viz.draw(
                *given, level="gate", title=tr("{name}: the unrolled network", name=s.name), **told
            ),
            f"{s.kind}_gradient": viz.gradient(
                *given, title=tr("{name}: the gradient on its way back", name=s.name), **told
            ),
            f"{s.kind}_paths": viz.paths(
                *given, title=tr("{name}: which way the gradient took", name=s.name), **told
            ),
            f"{s.kind}_bptt": viz.bptt(
                *given, title=tr("{name}: which step's loss reaches which step", name=s.name), **told
            ),
            f"{s.kind}_gates": viz.gates(
                *given, title=tr("{name}: gates and states over time", name=s.name), **told
            ),
            f"{s.kind}_weights": viz.weights_by_step(
                *given, title=tr("{name}: the weights by step", name=s.name), **told
            ),
            f"{s.kind}_report": viz.report(
                *given, s.model.parameters(), title=tr("{name}: health report", name=s.name)
            ),
        }
    return found


def write_all(seen: list[Seen], text: str, shown: np.ndarray, alphabet, options, advance) -> None:
    captions = [
        f"{visible(alphabet.characters[a])} → {visible(alphabet.characters[b])}" for a, b in pairwise(shown)
    ]
    scale = one_scale(seen)
    drawn = pictures(seen, captions, scale)
    advance(len(seen))

    def save(name: str) -> None:
        for suffix in (".svg", ".png"):
            drawn[name].save(options.out / (name + suffix))
        advance(1)

    with ThreadPoolExecutor(2) as pool:  # Graphviz runs in processes of its own
        list(pool.map(save, drawn))
    for s in seen:
        title = tr("{name}, reading {text}", name=s.name, text=quoted(alphabet.decode(shown)))
        page = viz.page(s.recordings, captions=captions, title=title, scale=scale)
        page.save(options.out / f"{s.kind}.html")
        advance(3)
    files.write(options.out / "index.html", index(seen, drawn, alphabet.decode(shown), options))


# The page that holds them.


def index(seen: list[Seen], drawn: dict[str, viz.Picture], shown: str, options) -> bytes:
    """The gallery as HTML: figures first, then a section for each question, in it a picture for each cell."""
    sections = [
        Section(
            "comparison", tr("Comparison"), tr("Which of the four cells carries the gradient furthest on this text?"),
            figure("comparison", tr("RNN, LSTM, GRU and JANET on one scale")),
        )
    ]  # fmt: skip
    for key, (title, question) in QUESTIONS.items():
        own = "".join(figure(f"{s.kind}_{key}", f"{s.name}: {tr(title).lower()}", s.name) for s in seen)
        sections.append(Section(key, tr(title), tr(question), own))
    said = tr(
        "Four cells learned {n} steps long to predict the next character of {text}; all read {shown} in the pictures "
        "below. Gradients stand on one scale in all of them.",
        n=options.steps,
        text=f"<code>{words(quoted(options.text.name))}</code>",
        shown=f"<code>{words(quoted(shown))}</code>",
    )
    return document(
        tr("Backpropagation through time, seen"),
        [said],
        (tr("cell"), *map(tr, FIGURES)),
        figures(seen, drawn),
        sections,
    )


FIGURES = (
    deferred("page"),
    deferred("parameters"),
    deferred("bits per character"),
    deferred("gradient, per step back"),
    deferred("half-life"),
    deferred("health"),
)


def figures(seen: list[Seen], drawn: dict[str, viz.Picture]) -> list[list[str]]:
    """A row of the table for each cell, as HTML."""
    rows = []
    for s in seen:
        per_step, life = speed(viz.transport(s.loss)[0])
        count = sum(p.size for p in s.model.parameters().values())
        rows.append(
            [
                s.name, link(f"{s.kind}.html", tr("open {name}", name=s.name)), f"{count:,}", f"{bits(s):.2f}", per_step, life,
                words(faults(drawn[f"{s.kind}_report"])),
            ]
        )  # fmt: skip
    return rows


def bits(s: Seen) -> float:
    """Bits per character over the last tenth of the training; of the stretch shown, where there was none."""
    nats = s.losses[-max(1, len(s.losses) // 10) :].mean() if len(s.losses) else s.loss.value.item()
    return float(nats) / float(np.log(2))


# Reading and telling.


def stretch(text: str, length: int) -> str:
    """What is drawn: from the first line on that starts after a third of the text, or from the end of it."""
    start = max(text.find("\n", len(text) // 3), text.find(" ", len(text) // 3)) + 1
    start = max(0, min(start, len(text) - length - 1))
    return text[start : start + length + 1]


OPTIONS = {
    "steps": (200, "training steps for each cell"),
    "hidden": (16, "hidden units"),
    "shown": (12, "steps that are drawn, 2 to 40"),
}


def add_arguments(parser: argparse.ArgumentParser, text: Path | None = None) -> None:
    add_text(parser, text)
    add_out(parser, "out/gallery")
    add_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")


def add_options(parser: argparse._ActionsContainer) -> None:
    for name, (default, what) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default: {default})")


def main(options: argparse.Namespace) -> None:
    not_negative(options)
    if not 1 <= options.hidden <= 1000 or not 2 <= options.shown <= 40:
        raise UsageError("--hidden must be 1 to 1000, --shown 2 to 40")
    console = Console()
    text = read_text(options.text)
    alphabet = cells.Alphabet(text)
    if len(alphabet) > MOST_CHARACTERS or len(text) < 3:
        few = f"{len(text)} characters are too few; give at least 3"
        many = (
            f"{len(alphabet):,} different characters are more than {MOST_CHARACTERS:,}; give a shorter text"
        )
        raise mg.InputError(f"{options.text}: {few if len(text) < 3 else many}")
    codes = alphabet.encode(text)
    shown = alphabet.encode(stretch(text, options.shown))
    prepare(options.out)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        training = progress.add_task("training", total=options.steps * len(KINDS))
        drawing = progress.add_task("drawing", total=len(KINDS) * (4 + len(QUESTIONS)) + 1)
        seen = []
        for kind in KINDS:
            progress.update(training, description=f"training {KINDS[kind]}")
            seen.append(train(kind, codes, shown, alphabet, options, lambda n: progress.advance(training, n)))
        write_all(seen, text, shown, alphabet, options, lambda n: progress.advance(drawing, n))
    table = Table("cell", "bits per character", title=f"after {options.steps} training steps")
    for s in seen:
        table.add_row(s.name, f"{bits(s):.2f}")
    console.print(table)
    console.print(f"open {escape(str(options.out / 'index.html'))}", soft_wrap=True)
