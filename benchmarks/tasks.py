"""What the networks of the lecture learn, and how soon: adding, copy memory, the next character of a text.

Each run trains one network with one seed until its score on held-out data is below the bound, or its time
is up, and tests it on other held-out data.  Time counts from the first line to the last, compiling included.

    python benchmarks/tasks.py [--task adding copy characters] [--model lstm tcn …] [--seed 0 1 2]
        [--text book.txt] [--json results.json]
    python benchmarks/tasks.py --seed --json results.json      # only show what is in the file

With --json the results are added to those in the file, so that runs can be split over processors; without a
--text the next character is left out.  OMP_NUM_THREADS=1 keeps NumPy's products on one core as well.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cells
import minigrad as mg
from cells import GRU, JANET, LSTM, RNN, TCN, Stack, Transformer, chrono, tasks
from cells.experiments.comparison import Record, learn
from minigrad import files

WINDOW = 64  # characters


@dataclass(frozen=True)
class Row:
    """A network on a task: how it is made from the number of inputs and a generator, and how it is trained."""

    task: str
    model: str
    make: Callable
    lr: Callable[[int], float]
    bound: float  # of the score, in the task's measure
    minutes: float
    fails: bool = False  # the bound is one that it must not reach
    margin: float = (
        0.8  # training ends at a test below this share of the bound: other held-out data may be harder
    )
    tests: int = 16  # batches that a test reads
    batch: int = 32
    every: int = 50


def recurrent(kind, hidden: int, remember: int = 0) -> Callable:
    """One layer; with `remember` its forget gates start with memories of up to so many steps."""

    def make(inputs, rng):
        layer = Stack(kind, inputs, hidden, 1, rng)
        if remember:
            chrono(layer, remember, rng)
        return layer

    return make


def falling(lr: float, half: float, warm: int = 1) -> Callable[[int], float]:
    """A rate that rises to `lr` over `warm` steps and has halved after `half`."""
    return lambda step: lr * min(1.0, step / warm) / (1 + step / half)


def transformer(inputs, rng):
    return Transformer(inputs, 128, 4, 2, rng)


TEXT = dict(every=100, margin=0.985, tests=32)
ROWS = [
    Row("adding", "lstm", recurrent(LSTM, 32, 100), falling(0.01, 1000), 0.01, 5),
    Row("adding", "gru", recurrent(GRU, 32), falling(0.01, 1000), 0.01, 5),
    Row("adding", "janet", recurrent(JANET, 32, 100), falling(0.01, 1000), 0.01, 5),
    Row("adding", "tcn", lambda D, rng: TCN(D, 16, 5, 5, rng), falling(4e-3, 2000), 0.01, 5),
    Row("copy", "tcn", lambda D, rng: TCN(D, 24, 5, 3, rng), falling(4e-3, 2000), 1e-3, 5),
    Row("copy", "rnn", recurrent(RNN, 128), falling(1e-3, 2000), 0.1, 1, fails=True),
    Row("characters", "lstm", recurrent(LSTM, 192), falling(0.01, 1000), 2.4, 10, **TEXT),
    Row("characters", "gru", recurrent(GRU, 192), falling(0.01, 1000), 2.4, 10, **TEXT),
    Row("characters", "transformer", transformer, falling(2e-3, 4000, 200), 2.4, 10, **TEXT),
]  # fmt: skip


def task_of(name: str, text: str) -> tasks.Task:
    if name == "adding":
        return tasks.adding_task(100)
    if name == "copy":
        return tasks.copy_task(50)
    alphabet = cells.Alphabet(text)
    return tasks.characters_task(alphabet.encode(text), len(alphabet), WINDOW)


def train(row: Row, text: str, seed: int, console: Console) -> dict:
    began, worked = time.perf_counter(), time.process_time()
    task, rng = task_of(row.task, text), np.random.default_rng(seed)
    layer = row.make(task.inputs, rng)
    output = cells.Output(layer.width, task.width, rng)

    def show(record: Record) -> None:
        status.update(f"step {record.steps[-1]}, {record.scores[-1]:.4g} {task.measure}")

    with console.status(f"{row.task}, {row.model}, seed {seed}") as status:
        record = learn(
            task, layer, output, rng, lr=row.lr, batch=row.batch, every=row.every, tests=row.tests,
            wall=60 * row.minutes, until=None if row.fails else row.margin * row.bound, name=row.model, watch=show,
        )  # fmt: skip
    return {
        "task": row.task, "model": row.model, "seed": seed, "score": record.score, "measure": task.measure,
        "baseline": task.baseline, "bound": row.bound, "as it must": (record.score < row.bound) != row.fails,
        "fails": row.fails, "steps": record.steps[-1], "seconds": time.perf_counter() - began,
        "processor seconds": time.process_time() - worked, "milliseconds a step": 1e3 * record.seconds_a_step,
        "parameters": record.parameters, "curve": list(zip(record.steps, record.scores, strict=True)),
    }  # fmt: skip


def read(path: Path) -> list[dict]:
    """The results in a file, none where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError) as error:
        raise mg.InputError(f"--json {path}: holds no results ({error}); name another file") from None


def add(path: Path, result: dict) -> None:
    """Into the file, in place of an older result of the same run."""
    run = ("task", "model", "seed")
    kept = [r for r in read(path) if [r[k] for k in run] != [result[k] for k in run]]
    files.write(path, json.dumps([*kept, result], indent=1).encode(), what="results")


def show(results: list[dict], console: Console) -> None:
    """A table for each task, a row for each network, its seeds below one another."""
    for task in dict.fromkeys(r["task"] for r in results):
        of_task = [r for r in results if r["task"] == task]
        title = f"{task}: {of_task[0]['measure']}, without memory {of_task[0]['baseline']:.4g}"
        table = Table(
            "network", "parameters", "held out", "as it must", "bound", "steps", "seconds", title=title
        )
        for model in dict.fromkeys(r["model"] for r in of_task):
            own = sorted((r for r in of_task if r["model"] == model), key=lambda r: r["seed"])
            said = ["yes" if r["as it must"] else "NO" for r in own]
            table.add_row(
                model, f"{own[0]['parameters']:,}", "\n".join(f"{r['score']:.3g}" for r in own), "\n".join(said),
                f"{'above' if own[0]['fails'] else 'below'} {own[0]['bound']:g}",
                "\n".join(str(r["steps"]) for r in own), "\n".join(f"{r['seconds']:.0f}" for r in own),
            )  # fmt: skip
        console.print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", nargs="+", choices=sorted({r.task for r in ROWS}))
    parser.add_argument("--model", nargs="+", choices=sorted({r.model for r in ROWS}))
    parser.add_argument(
        "--seed", nargs="*", type=int, default=[0, 1, 2], help="default: 0 1 2; none: show the file"
    )
    parser.add_argument("--text", type=Path, help="the text whose next characters are learned, UTF-8")
    parser.add_argument("--json", type=Path, help="the file to which the results are added")
    return parser.parse_args()


def main(options: argparse.Namespace) -> None:
    console = Console()
    try:
        text = options.text.read_text(encoding="utf-8") if options.text else ""
    except (OSError, UnicodeDecodeError) as error:
        raise mg.InputError(f"--text {options.text}: cannot be read as UTF-8 text ({error})") from None
    if options.json:
        read(options.json)  # fails before the training, not after
    rows = [
        r
        for r in ROWS
        if (options.task is None or r.task in options.task)
        and (options.model is None or r.model in options.model)
        and (text or r.task != "characters")
    ]
    if not rows:
        raise mg.InputError(
            "nothing to run: the next character needs --text FILE, and the other tasks other networks"
        )
    results = []
    for row in rows:
        for seed in options.seed:
            result = train(row, text, seed, console)
            results.append(result)
            said = "as it must" if result["as it must"] else "NOT as it must"
            console.print(
                f"{row.task}, {row.model}, seed {seed}: {result['score']:.4g} {result['measure']} "
                f"after {result['steps']} steps, {result['seconds']:.0f} s: {said}"
            )
            if options.json:
                add(options.json, result)
    show(read(options.json) if options.json else results, console)  # those of other runs too
    if options.json:
        console.print(f"results: {escape(str(options.json))}", soft_wrap=True)


if __name__ == "__main__":
    try:
        main(arguments())
    except mg.MinigradError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
