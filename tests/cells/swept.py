"""Models of the tests of sweeps, by names that other processes find: quick ones, and ones that go wrong.

What happens in a worker is said in files of the folder SWEPT.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np

import minigrad as mg
from cells import Cell, tasks
from cells.experiments.comparison import Model
from cells.layer import Layer
from minigrad.compiler import cache


class Mean(Layer):
    """A layer without states that compiles in no time: every step through one matrix, the mean of all in front."""

    def __init__(self, inputs, width, rng):
        super().__init__()
        self.width = width
        self.W = self.parameter("W", rng.standard_normal((inputs, width)))

    def __call__(self, xs):
        return mg.tanh(xs @ self.W) + xs.mean(axis=0) @ self.W


class Leaky(Cell):
    """A cell of a user's own."""

    state = "h"

    def build(self, rng):
        self.W = self.parameter("W", rng.standard_normal((self.inputs, self.hidden)) / 4)

    def step(self, x, h_prev):
        return dict(h=0.5 * h_prev + mg.tanh(x @ self.W))


def note(file: str, text: str) -> None:
    """One line, which several processes may write."""
    with open(Path(os.environ["SWEPT"]) / file, "a", encoding="utf-8") as out:
        out.write(f"{text}\n")


def _quick(inputs, width, length, rng):
    return Mean(inputs, width, rng)


def _slow(inputs, width, length, rng):
    note("pids", str(os.getpid()))
    note("threads", os.environ.get("OMP_NUM_THREADS", ""))
    time.sleep(0.2)
    return Mean(inputs, width, rng)


def _dies(inputs, width, length, rng):
    note("deaths", str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


def _dies_once(inputs, width, length, rng):
    if not (Path(os.environ["SWEPT"]) / "deaths").exists():
        _dies(inputs, width, length, rng)
    return Mean(inputs, width, rng)


def _raises(inputs, width, length, rng):
    if (Path(os.environ["SWEPT"]) / "mended").exists():
        return Mean(inputs, width, rng)
    raise KeyError("no such\nweight")


class Watched:
    """A task's held-out data, which say which programs and kernels this process has compiled, and wait for a second process."""

    def __init__(self, task):
        self.task = task

    def __call__(self, N, rng):
        if multiprocessing.parent_process() is None:  # the sweep itself, which looks at its tasks first
            return self.task.held_out(N, rng)
        note("processes", str(os.getpid()))
        end = time.monotonic() + 30
        while len({*(Path(os.environ["SWEPT"]) / "processes").read_text().split()}) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        for name, program in cache._programs.items():
            note("programs", f"{os.getpid()} {name} {'found' if program.found else 'compiled'}")
        for name, (_, found) in cache._kernels.items():
            note("programs", f"{os.getpid()} {name} {'found' if found else 'compiled'}")
        return self.task.held_out(N, rng)


def watched(T: int) -> tasks.Task:
    task = tasks.adding_task(T)
    return tasks.Task(**{**vars(task), "held_out": Watched(task)})


quick, slow, dies, dies_once, raises = (
    Model(make, 3, 0.01) for make in (_quick, _slow, _dies, _dies_once, _raises)
)
NOT_A_MODEL = np.zeros(3)
