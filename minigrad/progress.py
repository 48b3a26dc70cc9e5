"""How far a training or a sweep is: a bar with figures and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONG = 30.0  # seconds after which a plain line is written whatever was reached

PERIOD = 3600.0  # seconds over which a bar takes the speed that tells the time left

Show = Callable[..., None]


def _figures(loss: float, rate: float) -> str:
    return f"loss {loss:.4g}, rate {rate:.3g}"


@contextmanager
def shown(
    progress: bool | None, total: int | None, done: int = 0, *, doing: str = "training", each: str = "step",
    figures: Callable[..., str] = _figures,
) -> Iterator[Show]:  # fmt: skip
    """A function to be called after each step with its number, from 1, and what `figures` puts into words.

    progress : True: a bar where stderr is a terminal, else lines; None: the bar, or nothing; False: nothing.
    total : the number of steps, where it is known; without it there is no time left to be told.
    done : steps that were made before, which say nothing about how long the others take.
    doing, each : what is counted, in words.
    figures : for a training its loss and its rate.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if progress is False or (progress is None and not terminal) or sys.stderr is None:
        yield lambda number, *what: None
    elif terminal:
        with _bar(total, done, doing, figures) as show:
            yield show
    else:
        yield _lines(total, done, each, figures)


@contextmanager
def _bar(total: int | None, done: int, doing: str, figures: Callable[..., str]) -> Iterator[Show]:
    from rich.console import Console  # loaded only where a bar is drawn
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    ]
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), speed_estimate_period=PERIOD
    ) as bar:
        task = bar.add_task(doing, total=total, completed=done, figures="")

        def show(number: int, *what) -> None:
            bar.update(task, completed=number, figures=figures(*what))

        yield show


def _lines(total: int | None, done: int, each: str, figures: Callable[..., str]) -> Show:
    start = last = time.monotonic()

    def show(number: int, *what) -> None:
        nonlocal last
        now = time.monotonic()
        if not (_round(number, total) or now - last > LONG):
            return
        last, of, left = now, "", ""
        if total is not None:
            of = f" of {total}"
            left = f", {_words((now - start) / max(1, number - done) * (total - number))} left"
        print(f"{each} {number}{of}: {figures(*what)}{left}", file=sys.stderr, flush=True)

    return show


def _round(number: int, total: int | None) -> bool:
    """Tenths of the whole; where that is not known 1, 2, 5, 10, 20, 50 …"""
    if total is not None:
        return number * 10 // max(1, total) > (number - 1) * 10 // max(1, total)
    return str(number).rstrip("0") in ("1", "2", "5")


def _words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
