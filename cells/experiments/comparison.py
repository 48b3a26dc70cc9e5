"""Networks side by side: the same task, the same number of parameters, the same batches.

`compare` gives one `Record` for each model: its learning curve, how long a step takes, and what it is worth
on data that was held out; `curves` draws them.  `trained` makes and trains one of them, which is also what a
`sweep` does many times; `learn` is the training of layers that are there.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import minigrad
from minigrad import InputError, files
from minigrad.optim import Optimiser

from ..gru import GRU
from ..initial import chrono
from ..janet import JANET
from ..layer import Output, positive
from ..lstm import LSTM
from ..rnn import RNN
from ..stack import Stack
from ..tcn import TCN
from ..transformer import Transformer
from .tasks import Task


@dataclass(frozen=True)
class Model:
    """How a sequence layer is made: ``make(inputs, width, length, rng)``, for sequences of this `length`.

    multiple : what the width must be a multiple of, e.g. the number of heads.
    lr : Adam's learning rate, the same for every task.
    """

    make: Callable[[int, int, int, np.random.Generator], Callable]
    multiple: int = 1
    lr: float = 5e-3


@dataclass(eq=False)
class Record:
    """One model's training: `scores` (tests,) on held-out data, in `measure`, after `steps` and `seconds`.

    seconds : of training alone, without compiling, drawing data and testing.
    seconds_a_step : the median.
    score : what it reached in the end, on more held-out data, which no test has seen.
    wall : seconds from start to end, all included.
    weights : a checksum of what was learned: equal ones are equal to the last bit.
    """

    model: str
    task: str
    measure: str
    baseline: float
    width: int
    parameters: int
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds_a_step: float = 0.0
    score: float = float("nan")
    wall: float = 0.0
    weights: str = ""


def recurrent(kind, remembers: bool = False):
    """Makes a stack of one layer of a kind of cell; `remembers`: its gates start from `chrono`, for this length."""

    def make(inputs, width, length, rng):
        layer = Stack(kind, inputs, width, 1, rng)
        if remembers:
            chrono(layer, max(2, length), rng)
        return layer

    return make


def _tcn(inputs, width, length, rng):
    """As many levels as let the last output see all steps."""
    levels = 1
    while 1 + 2 * (TAPS - 1) * (2**levels - 1) < length:
        levels += 1
    return TCN(inputs, width, levels, TAPS, rng)


TAPS, HEADS, BLOCKS = 5, 2, 1
MOST = 10_000_000  # parameters: the search for a width makes networks
MODELS: dict[str, Model] = {
    "RNN": Model(recurrent(RNN), lr=1e-3),
    "LSTM": Model(recurrent(LSTM, remembers=True)),
    "GRU": Model(recurrent(GRU)),
    "JANET": Model(recurrent(JANET, remembers=True)),
    "TCN": Model(_tcn, lr=3e-3),
    "Transformer": Model(
        lambda D, width, length, rng: Transformer(D, width, HEADS, BLOCKS, rng), HEADS, 3e-3
    ),
}


def compare(
    task: Task, *, parameters: int = 5_000, models: dict[str, Model] = MODELS, steps: int | None = None,
    seconds: float | None = None, batch: int = 32, seed: int = 0,
    watch: Callable[[Record], object] | None = None,
) -> list[Record]:  # fmt: skip
    """Train every model on a task, one after the other; a Record for each.

    parameters : how many numbers each model, its output layer included, is to learn; its width is chosen so
        that there are as near to that many as can be.
    steps, seconds : how long each is trained: optimiser steps or seconds of training, whichever is first.
    seed : of the first weights and of the data: all see the same batches and the same held-out data.
    watch : called with a model's Record after every test of it.

    Raises InputError for a number of parameters that a model does not come near to, and where neither steps
    nor seconds are given.
    """
    if steps is None and seconds is None:
        raise InputError("compare: give steps, or seconds, for which each model is trained")
    positive("compare", batch=batch)
    widths = {name: width_for(model, task, parameters, name) for name, model in models.items()}
    given: dict[str, Any] = dict(batch=batch, steps=steps, seconds=seconds, watch=watch)
    return [trained(task, m, name=n, width=widths[n], seed=seed, **given) for n, m in models.items()]


def trained(
    task: Task, model: Model, *, name: str, width: int, seed: int, lr: float | None = None, **options
) -> Record:
    """Make a model of this width, and train it.

    seed : of the first weights and of the data: two models with one seed see the same batches.
    lr : in place of the model's own.
    options : those of `learn`.
    """
    layer, output = build(model, task, width, np.random.default_rng(seed))
    data = np.random.default_rng([seed, 1])
    rate = model.lr if lr is None else lr
    return learn(task, layer, output, data, name=name, width=width, lr=rate, **options)


def learn(
    task: Task, layer, output, rng: np.random.Generator, *, lr: float | Callable[[int], float] = 3e-3,
    batch: int = 32, clip: float | None = 1.0, optimiser: Callable[[dict], Optimiser] | None = None,
    steps: int | None = None, seconds: float | None = None, wall: float | None = None,
    every: int | None = None, tests: int = 8, until: float | None = None,
    name: str = "", width: int = 0, watch: Callable[[Record], object] | None = None,
) -> Record:  # fmt: skip
    """Train one layer and its output layer, tested at the start, every `every` steps, and at the end.

    steps, seconds, wall : where to end: optimiser steps, seconds of training, seconds in all.
    optimiser : makes one of what is learned, in place of Adam; with its own rate unless `lr` is a function.
    tests : how many held-out batches a test reads; they are the same each time.
    until : end when a test is below it.
    watch : called with the Record after every test.
    """
    learned = {**layer.parameters(), **{f"output.{n}": p for n, p in output.parameters().items()}}
    size = sum(p.size for p in learned.values())
    record = Record(name or type(layer).__name__, task.name, task.measure, task.baseline, width, size)
    loss = minigrad.compile(lambda *arrays: task.loss(layer, output, *arrays))
    held_out = _held_out(task, batch, tests, 1)
    every = every or max(1, (steps or 1000) // 20)
    began, clock = time.perf_counter(), _Clock()

    def test(step: int) -> bool:
        record.steps.append(step)
        record.seconds.append(clock.total)
        record.scores.append(_mean(loss, held_out) * task.unit)
        if watch is not None:
            watch(record)
        return until is not None and record.scores[-1] < until

    def after(step: int, _) -> bool:
        clock.stop()
        over = (
            (steps is not None and step >= steps)
            or (seconds is not None and clock.total >= seconds)
            or (wall is not None and time.perf_counter() - began >= wall)
        )
        return (test(step) if step % every == 0 or over else False) or over

    def batches() -> Iterator:
        while True:
            arrays = task.draw(batch, rng)
            clock.start()
            yield arrays

    if not test(0) and steps != 0:
        moves = optimiser and optimiser(learned)
        minigrad.fit(loss, learned, batches(), lr=lr, clip=clip, optimiser=moves, watch=after, progress=False)
    record.seconds_a_step = clock.median
    record.score = _mean(loss, _held_out(task, batch, 4 * tests, 2)) * task.unit
    record.wall = time.perf_counter() - began
    record.weights = _checksum(learned)
    return record


def _checksum(tensors) -> str:
    found = hashlib.sha256()
    for name, p in tensors.items():
        found.update(f"{name} {p.dtype} {p.shape} ".encode() + np.ascontiguousarray(p.value).tobytes())
    return found.hexdigest()[:16]


HELD_OUT = 20_260_000


def _held_out(task: Task, batch: int, count: int, seed: int) -> list:
    # Three numbers: no training draws from such a generator, whatever its seed.
    return [task.held_out(batch, np.random.default_rng([seed, k, HELD_OUT])) for k in range(count)]


def _mean(loss, batches: list) -> float:
    """By the program that training needs too: one without gradients would have to be compiled first."""
    return float(np.mean([float(loss.value_and_grad(*arrays)[0]) for arrays in batches]))


class _Clock:
    """Seconds of the steps alone."""

    def __init__(self):
        self.laps: list[float] = []
        self.total, self._began = 0.0, 0.0

    def start(self) -> None:
        self._began = time.perf_counter()

    def stop(self) -> None:
        self.laps.append(time.perf_counter() - self._began)
        self.total += self.laps[-1]

    @property
    def median(self) -> float:
        return float(np.median(self.laps)) if self.laps else 0.0


def build(model: Model, task: Task, width: int, rng: np.random.Generator) -> tuple:
    """A layer of this width for a task, and its output layer."""
    layer = model.make(task.inputs, width, task.length, rng)
    return layer, Output(layer.width, task.width, rng)  # type: ignore[attr-defined]


def width_for(model: Model, task: Task, parameters: int, name: str = "the model") -> int:
    """The width with which layer and output layer have as near to `parameters` as can be.

    Raises InputError where the nearest is more than a fifth away.
    """

    positive("compare", parameters=parameters)
    if parameters > MOST:
        raise InputError(f"compare: parameters = {parameters:,}; give at most {MOST:,}")

    def size(count: int) -> int:
        parts = build(model, task, count * model.multiple, np.random.default_rng(0))
        return sum(part.size for part in parts)

    most = 1
    while size(most) < parameters:
        most *= 2
    least = most // 2
    while most - least > 1:  # the narrowest that has at least as many stands at `most`
        middle = (least + most) // 2
        least, most = (middle, most) if size(middle) < parameters else (least, middle)
    near = min((k for k in (least, most) if k), key=lambda k: abs(size(k) - parameters))
    if abs(size(near) - parameters) > 0.2 * parameters:
        raise InputError(
            f"{name} has {size(near):,} parameters at width {near * model.multiple}, which is the nearest to "
            f"{parameters:,}; ask for about as many, or leave {name} out"
        )
    return near * model.multiple


# Colours that also the colour-blind tell apart (Okabe and Ito, 2008), each with a line of its own.
LINES = [
    ("#000000", "-"), ("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"),
    ("#E69F00", (0, (5, 1, 1, 1, 1, 1))), ("#56B4E9", (0, (1, 1))),
]  # fmt: skip
MARKERS = "osD^vP*"


def curves(records: Sequence[Record], *paths: Path | str, title: str = "") -> None:
    """Draw the learning curves, against steps and against seconds of training, into files (.svg, .png, .pdf).

    Raises InputError where there is no record.
    """
    from matplotlib import rc_context  # imported when it is first needed
    from matplotlib.figure import Figure

    if not records:
        raise InputError("curves: there are no records to draw; give what compare returned")
    with rc_context({"font.size": 12, "svg.hashsalt": "minigrad", "svg.fonttype": "none"}):
        figure = Figure(figsize=(12, 5), layout="constrained")
        for axes, of, label in zip(
            figure.subplots(1, 2, sharey=True), ("steps", "seconds"), ("training steps", "seconds of training"),
            strict=True,
        ):  # fmt: skip
            _panel(axes, records, of, label)
        figure.axes[0].set_ylabel(f"{records[0].measure}, held out")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", handlelength=3.5)
        about = title or f"{records[0].task}: about {_round(records[0].parameters):,} parameters each"
        figure.suptitle(about, parse_math=False)
        for path in map(Path, paths):
            save(figure, path, "curves")


def _round(n: int) -> int:
    """To two digits."""
    return int(float(f"{n:.1e}"))


def _panel(axes, records: Sequence[Record], of: str, label: str) -> None:
    for k, record in enumerate(records):
        colour, line = LINES[k % len(LINES)]
        axes.plot(
            getattr(record, of), record.scores, color=colour, linestyle=line, linewidth=2,
            marker=MARKERS[k % len(MARKERS)], markevery=max(1, len(record.scores) // 8), markersize=6,
            label=record.model,
        )  # fmt: skip
    axes.axhline(
        records[0].baseline, color="#666666", linewidth=1, linestyle=(0, (2, 2)), label="without memory"
    )
    scores = [s for r in records for s in r.scores if s > 0]
    if scores and max(scores) > 10 * min(scores):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    if max(scores, default=0) > 2 * records[0].baseline:  # first guesses are far off, and would take the room
        axes.set_ylim(top=2 * records[0].baseline)
    axes.set_xlabel(label)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)


def save(figure, path: Path, what: str) -> None:
    """Write a figure of matplotlib: whole or not at all, and the same records give the same bytes.

    Raises InputError for a name that ends otherwise than .svg, .png or .pdf, and where it cannot be written.
    """
    kind = path.suffix.lstrip(".")
    if kind not in ("svg", "png", "pdf"):
        raise InputError(f"{what}: {path.name}; give a name that ends in .svg, .png or .pdf")
    metadata = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}[kind]
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=120, metadata=metadata)
    files.write(path, drawn.getvalue(), what=what)
