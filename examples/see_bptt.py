"""A gallery of your own text: RNN, LSTM, GRU and JANET on the same characters, and pictures that answer questions.

Each cell is trained briefly on the text, compiled; then the same stretch of it runs through all
four, visibly, and is drawn: the unrolled network, the gradient on its way back, the gates, which
way the gradient took, which step's loss reaches which step, the weights by step, a health report,
a comparison, and for each cell a page to walk about in.  Open index.html in the folder.

    python examples/see_bptt.py
    python examples/see_bptt.py --text book.txt --out gallery --steps 500 --hidden 32
"""

from __future__ import annotations

import argparse
import html
import os
import sys
import tempfile
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

KINDS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "janet": "JANET"}
WINDOW, BATCH = 24, 16  # of the training: steps in a window, windows in a batch
MOST_CHARACTERS = 2000  # different ones; beyond, this example is too slow

# Every picture answers one question.
QUESTIONS = {
    "network": ("The unrolled network", "What is computed from what, and along which line does how much gradient flow back?"),
    "gradient": ("The gradient on its way back", "Does the gradient vanish or explode on its way to the first step?"),
    "paths": ("Which way the gradient took", "Which gate lets the gradient through, and which one kills it?"),
    "bptt": ("The BPTT matrix", "The loss of which step reaches back to which step, and how fast is it forgotten?"),
    "gates": ("Gates over time", "What does each gate do at each character, and is it stuck at the end of its range?"),
    "weights": ("Weights by step", "Which step teaches each weight, and do the steps agree?"),
    "report": ("Health report", "What is wrong with this network, if anything, and what can be tried?"),
}  # fmt: skip


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
        recordings.append((f"after {number} training steps", loss, run.steps))
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
            {s.name: s.loss for s in seen}, title="Four cells, one text, one scale", **told
        )
    }
    for s in seen:
        given = (s.loss, s.steps)
        found |= {
            f"{s.kind}_network": viz.draw(
                *given, level="gate", title=f"{s.name}: the unrolled network", **told
            ),
            f"{s.kind}_gradient": viz.gradient(
                *given, title=f"{s.name}: the gradient on its way back", **told
            ),
            f"{s.kind}_paths": viz.paths(*given, title=f"{s.name}: which way the gradient took", **told),
            f"{s.kind}_bptt": viz.bptt(
                *given, title=f"{s.name}: which step's loss reaches which step", **told
            ),
            f"{s.kind}_gates": viz.gates(*given, title=f"{s.name}: gates and states over time", **told),
            f"{s.kind}_weights": viz.weights_by_step(*given, title=f"{s.name}: the weights by step", **told),
            f"{s.kind}_report": viz.report(*given, s.model.parameters(), title=f"{s.name}: health report"),
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
        title = f"{s.name}, reading {quoted(alphabet.decode(shown))}"
        page = viz.page(s.recordings, captions=captions, title=title, scale=scale)
        page.save(options.out / f"{s.kind}.html")
        advance(3)
    page = index(seen, drawn, alphabet.decode(shown), options)
    files.write(options.out / "index.html", page.encode())


# The page that holds them.

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #5d6470; --line: #c3c9d1; --paper: #fff;
  --page: #f4f6f8; --mark: #0b57d0; --sheet: none }
@media (prefers-color-scheme: dark) { :root { --ink: #e9eaec; --soft: #a9b0bb; --line: #474d57; --paper: #141414;
  --page: #1d1f23; --mark: #8ab4f8; --sheet: invert(.92) hue-rotate(180deg) } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1500px; padding: 18px; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", Verdana, sans-serif }
h1 { font-size: 1.6rem; margin: 0 } h2 { margin: 2.2rem 0 0; font-size: 1.25rem } h3 { margin: 0; font-size: 1rem }
p { margin: .3rem 0; max-width: 75ch } a { color: var(--mark) } code { overflow-wrap: anywhere }
:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 12px 0 }
.soft, figcaption { color: var(--soft) }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 12px 0; background: var(--paper) }
th, td { white-space: nowrap }
th, td { border: 1px solid var(--line); padding: 5px 12px; text-align: left; font-variant-numeric: tabular-nums }
.cells { display: grid; gap: 16px; margin-top: 10px }
figure { margin: 0; padding: 12px; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; min-width: 0 }
figure .shot { display: block }
figure img { display: block; max-width: 100%; height: auto; filter: var(--sheet); margin: 8px 0 }
@media (max-width: 700px) { body { padding: 10px } .shot { overflow-x: auto } .shot img { max-width: none; width: 900px } }
"""


def index(seen: list[Seen], drawn: dict[str, viz.Picture], shown: str, options) -> str:
    """The gallery as HTML: figures first, then a section for each question, in it a picture for each cell."""
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in figures(seen, drawn))
    head = "".join(f"<th>{name}</th>" for name in ("cell", *FIGURES))
    sections = [
        '<h2 id="comparison">Comparison</h2><p>Which of the four cells carries the gradient furthest on this text?</p>'
        f'<div class="cells">{figure("comparison", "RNN, LSTM, GRU and JANET on one scale")}</div>'
    ]
    for key, (title, question) in QUESTIONS.items():
        own = "".join(figure(f"{s.kind}_{key}", f"{s.name}: {title.lower()}", s.name) for s in seen)
        sections.append(f'<h2 id="{key}">{title}</h2><p>{question}</p><div class="cells">{own}</div>')
    links = "".join(
        f'<a href="#{k}">{t}</a>'
        for k, t in [("comparison", "Comparison"), *((k, v[0]) for k, v in QUESTIONS.items())]
    )
    source = html.escape(quoted(options.text.name), quote=True)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Backpropagation through time, seen</title><style>{STYLE}</style></head><body>
<h1>Backpropagation through time, seen</h1>
<p>Four cells learned {options.steps} steps long to predict the next character of <code>{source}</code>; all read
<code>{html.escape(quoted(shown), quote=True)}</code> in the pictures below. Gradients stand on one scale in all of them.</p>
<nav aria-label="Pictures">{links}</nav>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
<p class="soft">The page of a cell can be walked about in: zoom, open a step, play the backward pass, go through the
training. Click a picture to see it in full.</p>
{"".join(sections)}
</body></html>
"""


FIGURES = (
    "page",
    "parameters",
    "bits per character",
    "gradient, per step back",
    "half-life",
    "health",
)


def figures(seen: list[Seen], drawn: dict[str, viz.Picture]) -> list[list[str]]:
    """A row of the table for each cell, as HTML."""
    rows = []
    for s in seen:
        way = viz.transport(s.loss)[0]
        factors = way.factors()
        per_step = f"× {np.median(factors):.2g} ({min(factors):.2g} … {max(factors):.2g})"
        half = way.stretches[0].half_life
        if half is None:
            life = "–"
        elif half < 0:
            life = f"doubles in {-half:.1f} steps"
        else:
            life = f"{half:.1f} steps" if half < 1e4 else "keeps its size"
        report = drawn[f"{s.kind}_report"]
        count = sum(p.size for p in s.model.parameters().values())
        kinds = ", ".join(dict.fromkeys(f.kind for f in getattr(report, "faults", [])))
        rows.append(
            [
                s.name, f'<a href="{s.kind}.html">open {s.name}</a>', f"{count:,}", f"{bits(s):.2f}", per_step, life,
                html.escape(kinds or "no fault found"),
            ]
        )  # fmt: skip
    return rows


def bits(s: Seen) -> float:
    """Bits per character over the last tenth of the training; of the stretch shown, where there was none."""
    nats = s.losses[-max(1, len(s.losses) // 10) :].mean() if len(s.losses) else s.loss.value.item()
    return float(nats) / float(np.log(2))


def figure(name: str, alt: str, head: str = "") -> str:
    title = f"<h3>{head}</h3>" if head else ""
    return (
        f'<figure>{title}<a class="shot" href="{name}.svg"><img src="{name}.svg" alt="{alt}" loading="lazy"></a>'
        f'<figcaption><a href="{name}.svg">SVG</a> · <a href="{name}.png">PNG</a></figcaption></figure>'
    )


# Reading and telling.


def visible(char: str) -> str:
    """A character so that it can be seen."""
    return {" ": "␣", "\n": "⏎"}.get(char, char if char.isprintable() else repr(char)[1:-1])


def quoted(text: str) -> str:
    return "“" + "".join(map(visible, text)).replace("␣", " ") + "”"


def read(options: argparse.Namespace) -> str:
    try:
        text = options.text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise mg.InputError(f"--text {options.text}: cannot be read as UTF-8 text ({reason})") from None
    return text


def stretch(text: str, length: int) -> str:
    """What is drawn: from the first line on that starts after a third of the text, or from the end of it."""
    start = max(text.find("\n", len(text) // 3), text.find(" ", len(text) // 3)) + 1
    start = max(0, min(start, len(text) - length - 1))
    return text[start : start + length + 1]


def prepare(out: Path) -> None:
    """Fail before the training, not after it, when the pictures could not be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=out)
        os.close(handle)
        Path(probe).unlink()
    except OSError as error:
        raise mg.InputError(
            f"--out {out}: cannot be written ({error.strerror}); choose another folder"
        ) from None


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    carroll = Path(__file__).with_name("carroll.txt")
    parser.add_argument(
        "--text", type=Path, default=carroll, help="a text file, UTF-8 (default: carroll.txt)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/gallery"), help="folder (default: out/gallery)")
    parser.add_argument("--steps", type=int, default=200, help="training steps for each cell (default: 200)")
    parser.add_argument("--hidden", type=int, default=16, help="hidden units (default: 16)")
    parser.add_argument("--shown", type=int, default=12, help="steps that are drawn, 2 to 40 (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    options = parser.parse_args(given)
    if options.steps < 0 or options.seed < 0:
        parser.error("--steps and --seed must not be negative")
    if not 1 <= options.hidden <= 1000 or not 2 <= options.shown <= 40:
        parser.error("--hidden must be 1 to 1000, --shown 2 to 40")
    return options


def main(options: argparse.Namespace) -> None:
    console = Console()
    text = read(options)
    alphabet = cells.Alphabet(text)
    if len(alphabet) > MOST_CHARACTERS or len(text) < 3:
        few = f"{len(text)} characters are too few; give at least 3"
        many = (
            f"{len(alphabet):,} different characters are more than {MOST_CHARACTERS:,}; give a shorter text"
        )
        raise mg.InputError(f"--text {options.text}: {few if len(text) < 3 else many}")
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


if __name__ == "__main__":
    try:
        main(arguments(None))
    except mg.MinigradError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
