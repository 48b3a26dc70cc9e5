"""A character model on any text file: stacked layers, truncated backpropagation through time, compiled.

Windows of the text follow one another in parallel streams, and the state is carried
from window to window while gradients stop at its edge.  Prints the loss in bits per
character on text that was held out, and a sample; Ctrl-C keeps what was learned.  With
--resume, the same command goes on where the last one stopped, to the same bits.

    python examples/char_rnn.py
    python examples/char_rnn.py --text book.txt --hidden 256 --layers 2 --steps 5000 --out model
    python examples/char_rnn.py --text book.txt --steps 5000 --resume book.safetensors
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import cells
import minigrad as mg
from minigrad import checkpoint
from minigrad.names import shown

HELD_OUT = 0.1  # of the text, at its end


class Model:
    """One-hot characters in, stacked cells, logits of the next character out."""

    def __init__(self, kind: str, classes: int, hidden: int, layers: int, rng: np.random.Generator):
        self.classes = classes
        self.stack = cells.Stack(cells.CELLS[kind], classes, hidden, layers, rng)
        self.output = cells.Output(hidden, classes, rng)

    def parameters(self) -> dict[str, mg.Tensor]:
        return {**self.stack.parameters(), **self.output.parameters()}

    def loss(self, x, targets, *state):
        """x, targets (T, N) characters, states (N, H) → nats per character, and the states after."""
        run = self.stack(mg.one_hot(x, self.classes), state, output=self.output)
        return (mg.cross_entropy(run.y, targets), *run.state)


def streams(codes: np.ndarray, N: int) -> np.ndarray:
    """The text as N columns that are read downwards: (length, N)."""
    length = len(codes) // N
    return codes[: length * N].reshape(N, length).T


def bits_held_out(loss, model: Model, codes: np.ndarray, window: int) -> float:
    """Bits per character over the held-out text, read as one sequence from zero states."""
    state, total, count = model.stack.initial_state(1), 0.0, 0
    for start in range(0, len(codes) - 1, window):
        part = codes[start : start + window + 1]
        nats, *state = loss(part[:-1, None], part[1:, None], *state)
        total += float(nats) * (len(part) - 1)
        count += len(part) - 1
    return total / count / math.log(2)


class Training:
    """A model, its optimiser, and the place in the text that it has reached, with the states carried there."""

    def __init__(self, model: Model, rng: np.random.Generator, options: argparse.Namespace, alphabet: str):
        self.model, self.rng, self.options, self.alphabet = model, rng, options, alphabet
        self.optimiser = mg.optim.Adam(model.parameters(), lr=options.lr)
        # By the optimiser's step count, which changes with the parameters: so Ctrl-C cannot come between the two.
        self.places = {0: (0, model.stack.initial_state(options.batch))}

    def step(self, step, columns: np.ndarray) -> tuple[float, int]:
        """One window in every stream: bits per character, and how many characters were read."""
        now, window = self.optimiser.steps, self.options.window
        at, state = self.places[now]
        if at + window + 1 > len(columns):  # the text is read through: from the top, with fresh states
            at, state = 0, self.model.stack.initial_state(self.options.batch)
        part = columns[at : at + window + 1]
        nats, *after = step.compute(part[:-1], part[1:], *state)
        self.places = {now: self.places[now], now + 1: (at + window, after)}
        step.move()
        return float(nats) / math.log(2), part[1:].size

    def save(self) -> None:
        if self.options.resume is not None:
            at, state = self.places[self.optimiser.steps]
            tensors = {"place": np.array(at), **{f"state {k}": s for k, s in enumerate(state)}}
            notes = {"alphabet": self.alphabet}
            checkpoint.save_training(
                self.options.resume, self.optimiser, rng=self.rng, tensors=tensors, notes=notes
            )

    def load(self) -> None:
        """Go on from the file: raises InputError where it is of another text or another model."""
        file, fresh = self.options.resume, self.places[0][1]
        known = checkpoint.load(file)
        if "tensors/place" not in known:
            raise mg.InputError(f"--resume {file}: this program did not write that file; give another name")
        if known.notes["alphabet"] != self.alphabet:
            raise mg.InputError(
                f"--resume {file}: the text has other characters than the one that the model was trained on; "
                "give the same --text, or another file"
            )
        found = checkpoint.load_training(file, self.optimiser, rng=self.rng)
        states = [found.get(f"state {k}", found["place"]) for k in range(len(fresh))]
        if [s.shape for s in states] != [s.shape for s in fresh]:
            raise mg.InputError(
                f"--resume {file}: it was trained with another --batch than {self.options.batch}"
            )
        self.optimiser.lr = self.options.lr
        self.places = {self.optimiser.steps: (int(found["place"]), [mg.Tensor(s) for s in states])}


def train(training: Training, codes: np.ndarray, held_out: np.ndarray, console: Console) -> None:
    model, options, done = training.model, training.options, training.optimiser.steps
    loss, columns = mg.compile(model.loss), streams(codes, options.batch)
    one_step = mg.training_step(loss, training.optimiser, clip=5.0)
    seen, bits, start = 0, math.nan, time.perf_counter()
    progress = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[bits]:.3f} bits, {task.fields[speed]:,.0f} characters/s"),
        console=console, transient=True,
    )  # fmt: skip
    with progress:
        task = progress.add_task("training", total=options.steps, completed=done, bits=bits, speed=0.0)
        for step in range(done + 1, options.steps + 1):
            bits, read = training.step(one_step, columns)
            seen += read
            if not bits < 100:
                raise mg.InputError(
                    f"step {step}: the loss has run away ({bits:.3g} bits); use a smaller --lr"
                )
            speed = seen / (time.perf_counter() - start)
            progress.update(task, advance=1, bits=bits, speed=speed)
            if step % max(1, options.steps // 5) == 0:
                training.save()
                out = bits_held_out(loss, model, held_out, options.window)
                console.print(
                    f"step {step}: {bits:.3f} bits on the window, {out:.3f} held out, {speed:,.0f} characters/s"
                )


def sample(model: Model, alphabet: cells.Alphabet, first: str, length: int, rng: np.random.Generator) -> str:
    """Let the model write, each character drawn by its probability."""
    codes, state = list(alphabet.encode(first)), model.stack.initial_state(1)
    rows = np.eye(model.classes, dtype=np.float32)
    with mg.no_grad():
        for k in range(len(codes) + length - 1):
            run = model.stack(rows[codes[k]][None, None], state, output=model.output)
            state = run.state
            if k + 1 == len(codes):
                p = mg.softmax(run.y).value.ravel().astype(np.float64)
                codes.append(int(rng.choice(len(p), p=p / p.sum())))
    return alphabet.decode(codes)


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise mg.InputError(f"--text {path}: cannot be read as UTF-8 text ({error})") from None


def arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text", type=Path, default=Path(__file__).with_name("carroll.txt"), help="a UTF-8 text file"
    )
    parser.add_argument("--steps", type=int, default=200, help="training steps (default: 200)")
    parser.add_argument("--cell", choices=sorted(cells.CELLS), default="lstm")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--window", type=int, default=50, help="steps of one window (default: 50)")
    parser.add_argument("--batch", type=int, default=8, help="streams read in parallel (default: 8)")
    parser.add_argument("--lr", type=float, default=3e-3, help="Adam's learning rate (default: 0.003)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resume", type=Path, metavar="FILE",
        help="go on from this file where it is there, and keep the training in it",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the weights (default: out)")
    options = parser.parse_args(arguments)
    for name in ("hidden", "layers", "window", "batch"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if not 0 < options.lr < 1:
        parser.error("--lr must lie between 0 and 1")
    if options.steps < 0 or options.seed < 0:
        parser.error("--steps and --seed must not be negative")
    return options


def main(options: argparse.Namespace) -> None:
    console = Console()
    text = read(options.text)
    alphabet = cells.Alphabet(text)
    codes = alphabet.encode(text)
    cut = int(len(codes) * (1 - HELD_OUT))
    if cut // options.batch <= options.window or len(codes) - cut < 2:
        raise mg.InputError(
            f"the text has {len(codes)} characters: too few for {options.batch} streams of windows of "
            f"{options.window}; use a smaller --batch or --window, or a longer text"
        )
    rng = np.random.default_rng(options.seed)
    model = Model(options.cell, len(alphabet), options.hidden, options.layers, rng)
    size = sum(p.size for p in model.parameters().values())
    console.print(
        f"{options.cell}, {options.layers} × {options.hidden} units, {size:,} parameters; {len(codes):,} characters"
    )
    training, weights = (
        Training(model, rng, options, alphabet.characters),
        options.out / "weights.safetensors",
    )
    if options.resume is not None and options.resume.exists():
        training.load()
        console.print(f"goes on after step {training.optimiser.steps}")

    def save() -> None:
        training.save()
        checkpoint.save(weights, model.parameters(), {"alphabet": alphabet.characters})

    save()  # fails before the training, not after
    try:
        train(training, codes[:cut], codes[cut:], console)
    except KeyboardInterrupt:
        console.print("stopped; what was learned so far is kept")
    save()
    console.print(escape(shown(sample(model, alphabet, text[0], 300, rng))), soft_wrap=True, highlight=False)
    console.print(f"weights: {escape(str(weights))}", soft_wrap=True)


if __name__ == "__main__":
    try:
        main(arguments(None))
    except mg.MinigradError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
