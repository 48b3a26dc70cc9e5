"""A character model on any text file: stacked layers, truncated backpropagation through time, compiled.

Windows of the text follow one another in parallel streams, and the state is carried
from window to window while gradients stop at its edge.  Prints the loss in bits per
character on text that was held out, and a sample; Ctrl-C keeps what was learned.  With
--resume, the same command goes on where the last one stopped, to the same bits.  Started by
mpiexec, several processes share the streams, and learn what one would: to rounding, or with --parts, which
divides the streams in as many parts on any number of processes, to the same bits.

    minigrad train book.txt
    minigrad train book.txt --hidden 256 --layers 2 --steps 5000 --out model
    minigrad train book.txt --steps 5000 --resume book.run

    mpiexec -n 4 minigrad train book.txt --batch 32 --parts 4
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

import cells
import minigrad as mg
from minigrad import checkpoint, parallel
from minigrad.names import shown

from .given import UsageError, add_out, add_text, not_negative, read_text

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


def windows(columns: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows (T, N) of all streams, one after the other, and the characters that follow."""
    for at in range(0, len(columns) - window, window):
        yield columns[at : at + window], columns[at + 1 : at + window + 1]


def train(
    model: Model,
    rng,
    options,
    alphabet: str,
    codes: np.ndarray,
    held_out: np.ndarray,
    console,
    ranks,
    done: int,
) -> None:
    """done : how many steps the training has behind it."""
    loss, columns = mg.compile(model.loss), streams(codes, options.batch)
    every, start = max(1, options.steps // 5), time.perf_counter()
    if done:
        console.print(f"goes on after step {done}")

    def watch(step: int, nats: float) -> None:
        bits = nats / math.log(2)
        if not bits < 100:
            raise mg.InputError(f"step {step}: the loss has run away ({bits:.3g} bits); use a smaller --lr")
        if step % every == 0:
            speed = (step - done) * options.window * options.batch / (time.perf_counter() - start)
            out = bits_held_out(loss, model, held_out, options.window)
            console.print(
                f"step {step}: {bits:.3f} bits on the window, {out:.3f} held out, {speed:,.0f} characters/s"
            )

    mg.fit(
        loss, model.parameters(), lambda epoch: windows(columns, options.window), epochs=None, steps=options.steps,
        state=model.stack.initial_state(options.batch), lr=options.lr, clip=5.0, watch=watch,
        resume=options.resume, save_every=every, rng=rng, notes={"alphabet": alphabet},
        comm=ranks,
    )  # fmt: skip


def steps_done(options: argparse.Namespace, alphabet: str) -> int:
    """How many steps a training has behind it: raises InputError where it is of another text or batch."""
    file = options.resume
    if file is None or not file.exists():
        return 0
    known = checkpoint.load(file)
    if "alphabet" not in known.notes or "tensors/state/0" not in known:
        raise mg.InputError(f"--resume {file}: this program did not write that file; give another name")
    if known.notes["alphabet"] != alphabet:
        raise mg.InputError(
            f"--resume {file}: the text has other characters than the one that the model was trained on; "
            "give the same --text, or another file"
        )
    if len(known["tensors/state/0"]) != options.batch:
        raise mg.InputError(f"--resume {file}: it was trained with another --batch than {options.batch}")
    return len(known["tensors/losses"])


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


def add_arguments(parser: argparse.ArgumentParser, text: Path | None = None) -> None:
    add_text(parser, text)
    parser.add_argument("--steps", type=int, default=200, help="training steps (default: 200)")
    parser.add_argument("--cell", choices=sorted(cells.CELLS), default="lstm")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--window", type=int, default=50, help="steps of one window (default: 50)")
    parser.add_argument("--batch", type=int, default=8, help="streams read in parallel (default: 8)")
    parser.add_argument(
        "--parts", type=int, metavar="P",
        help="compute the streams in P parts, which give the same bits on any number of processes (default: one each)",
    )  # fmt: skip
    parser.add_argument("--lr", type=float, default=3e-3, help="Adam's learning rate (default: 0.003)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resume", type=Path, metavar="FILE",
        help="go on from this file where it is there, and keep the training in it",
    )  # fmt: skip
    add_out(parser, "out", "the weights")


def check(options: argparse.Namespace) -> None:
    for name in ("hidden", "layers", "window", "batch"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1")
    if not 0 < options.lr < 1:
        raise UsageError("--lr must lie between 0 and 1")
    not_negative(options)


def main(options: argparse.Namespace) -> None:
    comm = parallel.world()
    count = comm.Get_size() if comm else 1
    ranks = parallel.ranks_of(parallel.Ranks(comm, parts=max(options.parts or 1, count)))
    if ranks.rank > 0:
        warnings.simplefilter("ignore")  # rank 0 says the same
    console = Console(quiet=ranks.rank > 0)
    weights = options.out / "weights.safetensors"
    with ranks:
        check(options)
        if options.batch < ranks.size:
            raise UsageError(
                f"--batch {options.batch}: {ranks.size} processes share the streams; give at least as many"
            )
        if options.parts is not None and not ranks.size <= options.parts <= options.batch:
            raise UsageError(
                f"--parts {options.parts}: give at least 1 and as many as there are processes ({ranks.size}), and no more "
                f"than streams (--batch {options.batch})"
            )
        text = read_text(options.text)
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

        def save() -> None:
            if ranks.rank == 0:
                checkpoint.save(weights, model.parameters(), {"alphabet": alphabet.characters})

        save()  # fails before the training, not after
        done = ranks.first(steps_done, options, alphabet.characters)
        ranks.done()
    size = sum(p.size for p in model.parameters().values())
    console.print(
        f"{options.cell}, {options.layers} × {options.hidden} units, {size:,} parameters; {len(codes):,} characters"
        + (f"; {ranks.size} processes" if ranks.size > 1 else "")
    )
    try:
        train(model, rng, options, alphabet.characters, codes[:cut], codes[cut:], console, ranks, done)
    except KeyboardInterrupt:
        console.print("stopped; what was learned so far is kept")
    save()
    if ranks.rank == 0:
        said = shown(sample(model, alphabet, text[0], 300, rng))
        console.print(escape(said), soft_wrap=True, highlight=False)
        console.print(f"weights: {escape(str(weights))}", soft_wrap=True)
