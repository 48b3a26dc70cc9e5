"""Published figures beside ours: adding problem, copy memory, digits row by row; what differs is said in each row.

Each of ours is one training per seed with a fixed number of batches, or as many as --minutes leave time for, tested on
data that was held out; the published ones are cited.  Results are kept in a file, so that runs can be split and stopped;
--write puts the table into docs/replication.md.

    python benchmarks/replication.py [--task adding copy digits] [--model TCN] [--seed 0 1] [--minutes 45] [--write]
    python benchmarks/replication.py --seed --write            # only show what is in the file

The digits come with scikit-learn; where it is not installed they are left out, and the table says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tasks import add, falling, read, recurrent

import cells
import minigrad as mg
from cells import GRU, JANET, LSTM, RNN, TCN, tasks
from cells.experiments.comparison import Record, learn
from minigrad import files
from minigrad.optim import RMSprop

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "replication.md", ROOT / "benchmarks" / "replication.json"
START, END = "<!-- table: python benchmarks/replication.py --write -->", "<!-- end of the table -->"
BAI = "Bai, Kolter and Koltun (2018), table 1"
SVC = "scikit-learn's own example, a support vector machine on all 64 pixels at once"


RATE = falling(3e-3, 2000)


@dataclass(frozen=True)
class Row:
    """A network on a task: `published` is the figure, `source` whose, `differs` what is not as it was there."""

    task: str
    model: str
    published: str
    source: str
    differs: str
    make: Callable | None = None  # None: not run
    lr: Callable[[int], float] | float = RATE
    steps: int = 3000
    clip: float | None = 1.0
    optimiser: Callable | None = None  # None: Adam
    blanks: int = 1000  # in copy memory, between the last symbol and the first that is to be said


def tcn(hidden: int, levels: int, taps: int) -> Callable:
    return lambda inputs, rng: TCN(inputs, hidden, levels, taps, rng)


class LastOfTCN(TCN):
    """A TCN of which only the last of T outputs is asked for: each level computes the steps that this depends on alone.

    Level k reads every 2 ** (k − 1)-th step, back from the last, and its taps lie as many steps apart: so behind each
    level every second step goes, and the taps of the next are neighbours.  What is left is the same function, with the
    same gradients, in about a fourth of the time.
    """

    def __init__(self, length: int, *arguments):
        super().__init__(*arguments)
        self.length = length
        for block in self.blocks:
            block.dilation = 1

    def last(self, x):
        """x (T, N, D) → h (N, H), after the last step."""
        length = self.length
        for block in self.blocks:
            first = (length - 1) % 2
            x, length = block(x)[first::2], (length - first + 1) // 2
        return x[-1]


def last_of_tcn(inputs: int, rng) -> LastOfTCN:
    """That of the paper for the adding problem over 600 steps."""
    return LastOfTCN(600, inputs, 24, 8, 8, rng)


def _sum(layer, output, x, target):
    y = output(layer.last(x)) if isinstance(layer, LastOfTCN) else cells.many_to_one(layer, output, x)
    return mg.mse(y, target)


# The paper's recurrent networks have about 70,000 parameters in the adding problem and 16,000 in copy memory.
FEW = "one layer of 32 units in place of about 70,000 parameters; sequences seen once"
SLOWER = "rate 0.002 in place of the code's 0.004; sequences seen once, not 50,000 of them ten times"
SHORT = "32 units; 980 blanks, so that it is 0.0208 without memory"
NO_DATA = "not run: the data are not at hand"
ROWS = [
    Row("adding", "RNN", "0.177", BAI, FEW, recurrent(RNN, 32)),
    Row("adding", "LSTM", "0.164", BAI, FEW + "; forget gates start open for up to T steps", recurrent(LSTM, 32, 600)),
    Row("adding", "GRU", "5.3e-5", BAI, FEW, recurrent(GRU, 32), falling(0.01, 1000)),
    Row("adding", "JANET", "–", "", FEW, recurrent(JANET, 32, 600), falling(0.01, 1000)),
    Row("adding", "TCN", "5.8e-5", BAI, SLOWER, last_of_tcn, 2e-3, 15_630, None),
    Row("copy", "RNN", "0.0202", BAI, SHORT, recurrent(RNN, 32), steps=500, blanks=980),
    Row("copy", "LSTM", "0.0204", BAI, SHORT, recurrent(LSTM, 32), steps=500, blanks=980),
    Row("copy", "GRU", "0.0197", BAI, SHORT, recurrent(GRU, 32), steps=500, blanks=980),
    Row("copy", "TCN", "3.5e-5", BAI, "symbols as one of ten, not as a number; sequences seen once", tcn(10, 8, 8), 5e-4, 15_650,
        optimiser=partial(RMSprop, lr=5e-4)),
    Row("digits", "RNN", "97 %", SVC, "reads one row of 8 pixels a step", recurrent(RNN, 64), falling(5e-3, 1500), 3000),
    Row("digits", "LSTM", "97 %", SVC, "reads one row of 8 pixels a step", recurrent(LSTM, 64), falling(5e-3, 1500), 3000),
    Row("digits", "GRU", "97 %", SVC, "reads one row of 8 pixels a step", recurrent(GRU, 64), falling(5e-3, 1500), 3000),
    Row("digits", "JANET", "97 %", SVC, "reads one row of 8 pixels a step", recurrent(JANET, 64, 8), falling(5e-3, 1500), 3000),
    Row("JSB chorales", "RNN, LSTM, GRU, TCN", "8.91, 8.45, 8.43, 8.10", BAI, NO_DATA),
    Row("Nottingham", "RNN, LSTM, GRU, TCN", "4.05, 3.29, 3.46, 3.07", BAI, NO_DATA),
]  # fmt: skip
TITLES = {
    "adding": "Adding problem, T = 600: mean squared error; without memory 0.167",
    "copy": "Copy memory, T = 1000: nats a step; without memory 0.0204",
    "digits": "Digits of scikit-learn, 8 steps of 8 pixels: digits that are right, of the second half",
    "JSB chorales": "JSB chorales: nats a step",
    "Nottingham": "Nottingham: nats a step",
}


# The digits, row by row.


def _loss(layer, output, x, digits):
    return mg.cross_entropy(cells.many_to_one(layer, output, x), digits)


def digits_task() -> tuple[tasks.Task, tuple[np.ndarray, np.ndarray]]:
    """Row by row, many to one; trained on the first half, and the second half to test on, as the example has it."""
    from sklearn.datasets import load_digits

    pictures, digits = load_digits(return_X_y=True)
    x = (pictures.reshape(-1, 8, 8) / 16).transpose(1, 0, 2).astype(np.float32)  # (T, N, D)
    half = len(digits) // 2

    def draw(N: int, rng: np.random.Generator):
        which = rng.integers(0, half, N)
        return x[:, which], digits[which]

    task = tasks.Task("digits", 8, 10, draw, draw, _loss, "nats", float(np.log(10)), 8)
    return task, (x[:, half:], digits[half:])


def run(row: Row, seed: int, minutes: float | None = None) -> dict:
    """Train one network with one seed, ended after so many minutes; its score is in the measure of `TITLES`."""
    assert row.make is not None
    began, rng, test = time.process_time(), np.random.default_rng(seed), None
    if row.task == "digits":
        task, test = digits_task()
    else:
        task = (
            replace(tasks.adding_task(600), loss=_sum)
            if row.task == "adding"
            else tasks.copy_task(row.blanks)
        )
    layer = row.make(task.inputs, rng)
    output = cells.Output(layer.width, task.width, rng)

    def watch(record: Record) -> None:
        about = f"{row.task}, {row.model}, seed {seed}"
        print(f"{about}: {record.scores[-1]:.4g} after {record.steps[-1]} batches", file=sys.stderr)

    record = learn(
        task, layer, output, rng, lr=row.lr, clip=row.clip, optimiser=row.optimiser, batch=32, tests=4, every=500,
        steps=row.steps, wall=minutes and 60 * minutes, watch=watch,
    )  # fmt: skip
    score = record.score
    if test is not None:
        x, digits = test
        with mg.no_grad():
            score = float((cells.many_to_one(layer, output, x).value.argmax(axis=1) == digits).mean())
    return {
        "task": row.task, "model": row.model, "seed": seed, "score": score, "steps": record.steps[-1],
        "parameters": record.parameters, "processor seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


# The table.


def said(task: str, score: float) -> str:
    return f"{100 * score:.1f} %" if task == "digits" else f"{score:.3g}"


def table(results: list[dict]) -> str:
    """All rows as Markdown; of what was not run the table says so."""
    parts = []
    for task, title in TITLES.items():
        parts += [f"**{title}**", "",
                  "| network | published | ours, by seed | batches of 32 | parameters | processor seconds | what differs |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        for row in (r for r in ROWS if r.task == task):
            own = sorted(
                (r for r in results if (r["task"], r["model"]) == (task, row.model)), key=lambda r: r["seed"]
            )
            scores = ", ".join(said(task, r["score"]) for r in own) or (
                "–" if row.make is None else "not run"
            )
            seconds = ", ".join(f"{r['processor seconds']:.0f}" for r in own) or "–"
            steps = ", ".join(f"{n:,}" for n in sorted({r["steps"] for r in own})) or "–"
            if any(r["steps"] < row.steps for r in own):
                steps += f" of {row.steps:,}"
            size = f"{own[0]['parameters']:,}" if own else "–"
            source = f"{row.published} ({row.source})" if row.source else "none"
            parts.append(
                f"| {row.model} | {source} | {scores} | {steps} | {size} | {seconds} | {row.differs} |"
            )
        parts.append("")
    return "\n".join(parts)


def written(page: str, results: list[dict]) -> str:
    """The page with its table replaced; raises InputError where its place is not marked."""
    if START not in page or END not in page:
        raise mg.InputError(f"{PAGE}: there is no place for the table between {START} and {END}")
    return page[: page.index(START) + len(START)] + "\n\n" + table(results) + "\n" + page[page.index(END) :]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--model", nargs="+", choices=sorted({r.model for r in ROWS if r.make}))
    parser.add_argument(
        "--seed", nargs="*", type=int, default=[0, 1], help="default: 0 1; none: show the file"
    )
    parser.add_argument(
        "--minutes", type=float, help="end each training after so many (default: when it is done)"
    )
    parser.add_argument("--json", type=Path, default=RESULTS, help="the file to which results are added")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    for row in ROWS:
        if (
            row.make is None
            or row.task not in options.task
            or row.model not in (options.model or [row.model])
        ):
            continue
        if row.task == "digits" and importlib.util.find_spec("sklearn") is None:
            print("digits: left out, scikit-learn is not installed")
            continue
        for seed in options.seed:
            result = run(row, seed, options.minutes)
            add(options.json, result)
            print(f"{row.task}, {row.model}, seed {seed}: {said(row.task, result['score'])}, "
                  f"{result['processor seconds']:.0f} s", flush=True)  # fmt: skip
    results = read(options.json)
    print(table(results))
    if options.write:
        files.write(PAGE, written(PAGE.read_text(encoding="utf-8"), results).encode("utf-8"))


if __name__ == "__main__":
    try:
        main()
    except mg.MinigradError as error:
        sys.exit(f"error: {error}")
