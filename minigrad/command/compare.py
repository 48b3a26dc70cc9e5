"""The networks of the lecture side by side: the same task, the same number of parameters, the same batches.

RNN, LSTM, GRU, JANET, TCN and Transformer learn one after the other.  Prints what each reached on held-out
data and how long its steps took, and draws the learning curves.

    minigrad compare
    minigrad compare --task copy --parameters 20000 --steps 2000
    minigrad compare --task characters --text book.txt --seconds 60 --models LSTM GRU Transformer
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cells
from cells import tasks
from cells.experiments.comparison import MODELS, Record, curves, width_for

from .given import UsageError, add_out, not_negative, prepare, read_text


def task_of(options: argparse.Namespace) -> tasks.Task:
    if options.task == "adding":
        return tasks.adding_task(options.length)
    if options.task == "copy":
        return tasks.copy_task(options.length)
    if options.text is None:
        raise UsageError("--task characters needs a text: --text FILE")
    text = read_text(options.text)
    alphabet = cells.Alphabet(text)
    return tasks.characters_task(alphabet.encode(text), len(alphabet), options.length)


def report(records: list[Record], console: Console) -> None:
    one = records[0]
    table = Table(
        "network", "width", "parameters", "held out", "", "steps", "ms a step", "seconds",
        title=f"{one.task}: {one.measure} on held-out data, without memory {one.baseline:.4g}",
    )  # fmt: skip
    for column in table.columns:
        column.no_wrap = column.header != "ms a step"  # on a narrow terminal
        column.justify = "left" if column.header in ("network", "") else "right"
    best = min(r.score for r in records)
    for r in records:
        table.add_row(
            escape(r.model), str(r.width), f"{r.parameters:,}", f"{r.score:.3g}", "best" if r.score == best else "",
            str(r.steps[-1]), f"{1e3 * r.seconds_a_step:.2f}", f"{r.seconds[-1]:.1f}",
        )  # fmt: skip
    console.print(table)


def add_arguments(parser: argparse.ArgumentParser, text: Path | None = None) -> None:
    parser.add_argument("--task", choices=["adding", "copy", "characters"], default="adding")
    parser.add_argument(
        "--length",
        type=int,
        default=50,
        help="steps to add over, or to wait before copying, or of a text's window",
    )
    parser.add_argument(
        "--text", type=Path, default=text, metavar="FILE", help="for --task characters, UTF-8"
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--parameters", type=int, default=5000, help="of each network, about (default: 5000)")
    parser.add_argument("--steps", type=int, help="training steps of each (default: 400)")
    parser.add_argument("--seconds", type=float, help="or seconds of training of each, whichever is first")
    parser.add_argument("--seed", type=int, default=0, help="same seed and steps, same result (default: 0)")
    add_out(parser, "out", "the curves")


def main(options: argparse.Namespace) -> None:
    not_negative(options)
    if options.seconds is not None and not options.seconds > 0:
        raise UsageError("--seconds must be above 0")
    steps = 400 if options.steps is None and options.seconds is None else options.steps
    console = Console()
    task = task_of(options)
    task.draw(1, np.random.default_rng(0))  # refuses an unknown task
    models = {name: MODELS[name] for name in options.models}
    for name, model in models.items():
        width_for(model, task, options.parameters, name)  # nor as many parameters as cannot be had
    prepare(options.out)
    with console.status("compiling") as status:
        records = cells.compare(
            task, parameters=options.parameters, models=models, steps=steps, seconds=options.seconds,
            seed=options.seed,
            watch=lambda r: status.update(f"{escape(r.model)}: step {r.steps[-1]}, {r.scores[-1]:.4g} {r.measure}"),
        )  # fmt: skip
    report(records, console)
    paths = [options.out / f"compare_{task.name}{suffix}" for suffix in (".svg", ".png")]
    curves(records, *paths)
    console.print("pictures:")
    for path in paths:
        console.print(f"  {escape(str(path))}", soft_wrap=True)
