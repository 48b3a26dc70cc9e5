"""Many trainings on many processors: networks × tasks × sizes × rates × seeds, written down as they come.

`sweep` plans `Trial`s, leaves those out that its file has, and has the others run by any executor of
`concurrent.futures`.  A `Trial` is all that its numbers depend on, so that these are the same to the last bit
wherever, however many at once and in whichever order trials run.  `results.py` says what came out.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import math
import multiprocessing
import os
import platform
import signal
import threading
import time
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing.context import SpawnContext
from queue import SimpleQueue
from typing import Any

import numpy as np

import minigrad
from minigrad import InputError, MinigradError, NonFiniteError
from minigrad.progress import shown

from .comparison import MODELS, Model, recurrent, trained, width_for
from .results import Results
from .tasks import Task
from .trials import Journal, Result, Trial

GRID: dict[str, Any] = {"parameters": 5_000, "lr": None, "batch": 32, "clip": 1.0, "steps": 400}
TRIES = 2  # of a trial whose worker dies


def sweep(
    models: Iterable[str | type], tasks: Task | Iterable[Task] | Mapping[str, Task],
    grid: Mapping[str, Any] | None = None, seeds: int | Iterable[int] = 3, executor: Executor | None = None, *,
    workers: int | None = None, tests: int = 8, every: int | None = None,
    resume: str | os.PathLike | None = None, progress: bool | None = None,
) -> Results:  # fmt: skip
    """Train every model on every task at every point of a grid with every seed.

    models : names in `comparison.MODELS`; "module:Class", a cell of your own, which is made as ``Stack(Class,
        inputs, width, 1, rng)``; "module:NAME", a `comparison.Model`; or such a class itself.
    tasks : one, several, or several by name.
    grid : numbers, or lists of them: "width", or "parameters" (5,000), to which the nearest width is taken; "lr"
        (each model's own); "batch" (32); "clip" (1), the greatest norm of the gradients; "steps" (400).
    seeds : how many, from 0, or which.
    executor : where trials run; processes of this machine by default, with one thread each.  It stays open.  In a
        script they need ``if __name__ == "__main__":`` around what starts them.
    workers : how many such processes; as many as there are processors for this one.
    tests, every : held-out batches of a test, and after how many steps there is one (`comparison.learn`).
    resume : a file, to which each result is added as one line of JSON, and is on the disk then.  The same sweep,
        started again, does only what is missing, and also what failed for another reason than that numbers were not
        finite.  A file may serve several sweeps: each takes what it needs.
    progress : True shows on stderr how far it is, as a bar on a terminal and as lines elsewhere; None only the
        bar, False nothing.

    Returns one result for each trial, in the order of the arguments.  A trial that fails is a result with its error;
    a warning says in the end how many did.  A trial whose worker dies is tried once more.  Ctrl-C passes through,
    after the default processes were ended; what was finished is in the file.

    Raises InputError for arguments that make no sense, before anything runs, and for a file that is not a sweep's or
    that another sweep is writing; MinigradError where an executor breaks, so that no other trial can run.
    """
    named, tests_of = _named(tasks), dict(tests=tests, every=every)
    trials = [*dict.fromkeys(_planned(models, named, grid or {}, seeds, tests_of))]
    places = _places(executor, workers, len(trials))
    with Journal(resume) as journal:
        found = {t: journal.found[t] for t in trials if t in journal.found and journal.found[t].final}
        todo = [(t, named[t.task]) for t in trials if t not in found]
        with (
            shown(progress, len(trials), len(found), doing="sweep", each="trial", figures=_figures) as show,
            closing(_run_all(todo, places[: len(todo)])) as coming,
        ):
            for result in coming:
                journal.add(result)
                found[result.trial] = result
                show(len(found), found)
    results = Results(found[t] for t in trials)
    _say(results)
    return results


def _figures(found: dict[Trial, Result]) -> str:
    failed = sum(r.record is None for r in found.values())
    return f"{failed} failed" if failed else "none failed"


def _say(results: Results) -> None:
    """What a reader of the results must know beside them."""
    if failed := results.failed:
        first = failed[0]
        warnings.warn(
            f"sweep: {len(failed)} of {len(results)} trials failed, e.g. {first.trial}: {first.error}",
            stacklevel=3,
        )
    if len(versions := {tuple(r.versions.items()) for r in results if r.versions}) > 1:
        said = "; ".join(", ".join(f"{n} {v}" for n, v in one) for one in sorted(versions))
        warnings.warn(
            f"sweep: the results are of different versions ({said}): they may differ in their last bits",
            stacklevel=3,
        )


# The plan.


def _named(tasks) -> dict[str, Task]:
    if isinstance(tasks, Mapping):
        named = {str(name): task for name, task in tasks.items()}
    else:
        given = [tasks] if isinstance(tasks, Task) else list(tasks)
        named = {f"{t.name} over {t.length} steps" if isinstance(t, Task) else str(t): t for t in given}
        if len(named) < len(given):
            raise InputError(
                f"sweep: several tasks are called {', '.join(named)}; give a dict of tasks by name"
            )
    for name, task in named.items():
        if not isinstance(task, Task):
            raise InputError(
                f"sweep: task {name!r} is {type(task).__name__}; give e.g. tasks.adding_task(100)"
            )
    if not named:
        raise InputError("sweep: there is no task; give at least one")
    return named


def _planned(models, named: dict[str, Task], grid: Mapping, seeds, tests_of: dict) -> Iterator[Trial]:
    names = [_name_of(m) for m in ([models] if isinstance(models, (str, type)) else models)]
    found = [
        (name, model_named(name)) for name in names
    ]  # a name that is not there is known before anything runs
    axes, numbers = _axes(grid), _seeds(seeds)
    if not found:
        raise InputError("sweep: there is no model; give at least one")
    for task_name, task in named.items():
        drawn = _drawn(task)
        for (name, model), values in itertools.product(found, itertools.product(*axes.values())):
            point = dict(zip(axes, values, strict=True))
            parameters = point.pop("parameters", None)
            if parameters is not None:
                point["width"] = width_for(model, task, parameters, name)
            elif point["width"] % model.multiple:
                raise InputError(
                    f"sweep: width = {point['width']}; {name} needs a multiple of {model.multiple}"
                )
            point["lr"] = float(model.lr if point["lr"] is None else point["lr"])
            for seed in numbers:
                yield Trial(name, task_name, drawn, **point, seed=seed, **tests_of)


def _axes(grid: Mapping) -> dict[str, list]:
    """The values of each axis; raises InputError for what is none, or has none."""
    known = [*GRID, "width"]
    if unknown := [name for name in grid if name not in known]:
        raise InputError(f"sweep: the grid has {unknown[0]!r}; it can have {', '.join(known)}")
    if "width" in grid and "parameters" in grid:
        raise InputError("sweep: the grid has both width and parameters; give one of them")
    axes = {}
    for name, usual in GRID.items():
        name = "width" if name == "parameters" and "width" in grid else name
        values = grid.get(name, usual)
        axes[name] = [values] if values is None or np.ndim(values) == 0 else list(values)
        if not axes[name]:
            raise InputError(
                f"sweep: the grid has no value of {name}; give at least one, or leave {name} out"
            )
        axes[name] = [v if v is None and name == "lr" else _number(name, v) for v in axes[name]]
    return axes


def _number(name: str, value) -> float:
    whole = name not in ("lr", "clip")
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
        what = "a whole number of at least 1" if whole else "a number above 0"
        raise InputError(f"sweep: {name} = {value!r}; give {what}")
    return int(value) if whole else float(value)


def _seeds(seeds) -> list[int]:
    numbers = list(range(seeds)) if isinstance(seeds, (int, np.integer)) else list(seeds)
    for seed in numbers:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise InputError(f"sweep: seed {seed!r}; give whole numbers of at least 0")
    if not numbers or isinstance(seeds, bool):
        raise InputError(f"sweep: seeds = {seeds!r}; give how many, or a list of them")
    return [int(seed) for seed in numbers]


def _drawn(task: Task) -> str:
    """A checksum of what a task draws first and of its figures: another text, or another length, is another task."""
    found = hashlib.sha256(
        repr(
            (task.name, task.inputs, task.width, task.measure, float(task.baseline), task.length, task.unit)
        ).encode()
    )
    for draw in (task.draw, task.held_out):
        for array in draw(2, np.random.default_rng(0)):
            found.update(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


# Models by name, as other processes find them too.


def _name_of(model) -> str:
    if isinstance(model, str):
        return model
    if not isinstance(model, type):
        raise InputError(
            f"sweep: model {model!r}; give a class, or a name, so that other processes find it too"
        )
    return f"{model.__module__}:{model.__qualname__}"


def model_named(name: str) -> Model:
    """The model in `comparison.MODELS`, or "module:Class", a cell, or "module:NAME", a `comparison.Model`.

    Raises InputError where there is none.
    """
    if name in MODELS:
        return MODELS[name]
    module, colon, attributes = name.partition(":")
    if not colon:
        raise InputError(f"sweep: there is no model {name!r}; give {', '.join(MODELS)}, or 'module:Class'")
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"sweep: the model {name!r} cannot be imported ({error}); put it into a module that every worker can import"
        ) from None
    if isinstance(found, Model):
        return found
    if not callable(found):
        raise InputError(f"sweep: {name!r} is {type(found).__name__}; name a class of cells, or a Model")
    return Model(recurrent(found))


# One trial, wherever it runs.


def _run(trial: Trial, task: Task) -> Result:
    began, record, error = time.thread_time(), None, None
    try:
        record = trained(
            task, model_named(trial.model), name=trial.model, width=trial.width, seed=trial.seed, lr=trial.lr,
            batch=trial.batch, clip=trial.clip, steps=trial.steps, tests=trial.tests, every=trial.every,
        )  # fmt: skip
        if not math.isfinite(record.score):
            raise NonFiniteError(f"the score is {record.score}; use a smaller learning rate")
    except Exception as reason:
        record, error = None, _said(reason)
    versions = {
        "minigrad": minigrad.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return Result(trial, record, error, time.thread_time() - began, versions)


def _said(error: BaseException) -> str:
    """The error on one line; where it is not one of ours, also where it was raised."""
    where = ""
    if not isinstance(error, MinigradError) and (frames := traceback.extract_tb(error.__traceback__)):
        where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def _run_all(todo: list[tuple[Trial, Task]], places: list) -> Generator[Result]:
    """The results as they come.  However it ends, no worker of ours is left."""
    waiting, tries = deque(todo), Counter[Trial]()
    running: dict[Future, tuple[Any, tuple[Trial, Task]]] = {}
    finished: SimpleQueue[Future] = SimpleQueue()
    try:
        while waiting or running:
            for place in places:
                while waiting and place.free:
                    future = place.submit(*waiting[0])
                    running[future] = place, waiting.popleft()
                    future.add_done_callback(finished.put)
            future = finished.get()
            place, (trial, task) = running.pop(future)
            lost = place.lost(future)  # not the trial's own error, which is in its result
            tries[trial] += 1
            if lost is None:
                yield future.result()
            elif tries[trial] < TRIES:
                waiting.appendleft((trial, task))
            else:
                yield Result(trial, None, f"{lost}, {TRIES} times", 0.0, {})
    finally:
        for future in running:
            future.cancel()
        for place in places:
            place.end()


# Where trials run.


def _places(executor: Executor | None, workers: int | None, most: int) -> list:
    if executor is not None:
        if not callable(getattr(executor, "submit", None)):
            raise InputError(f"sweep: executor = {executor!r}; give one of concurrent.futures, or None")
        if workers is not None:
            raise InputError(
                f"sweep: workers = {workers} beside an executor, which has its own; give one of the two"
            )
        return [_Given(executor)]
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [_Process() for _ in range(min(int(_number("workers", workers)), most))]


class _Given:
    """An executor of the user's: it shares trials out, and ends when the user says so."""

    free = True

    def __init__(self, executor: Executor):
        self.executor = executor

    def submit(self, trial: Trial, task: Task) -> Future:
        return self.executor.submit(_run, trial, task)

    def lost(self, future: Future) -> str | None:
        """Why nothing came back, in words; None where something did."""
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            raise MinigradError(
                f"sweep: the executor broke ({error}); start the sweep again with a new one: it goes on from `resume`"
            ) from None
        if error is not None and not isinstance(error, Exception):  # Ctrl-C in a worker
            raise error
        return error and _said(error)

    def end(self) -> None:
        pass


class _Context(SpawnContext):
    """Starts processes as "spawn" does, and knows the last one."""

    process: Any = None

    def Process(self, *args, **options):  # noqa: N802
        self.process = super().Process(*args, **options)
        return self.process


class _Process:
    """One process for one trial after the other.  A pool of several would end them all when one of them dies."""

    def __init__(self):
        self.free = True
        self.pool: Any = None  # of one process, when there is something to do

    def _started(self) -> ProcessPoolExecutor:
        self.context = _Context()
        pool = ProcessPoolExecutor(1, mp_context=self.context, initializer=_prepare)
        with _one_thread():
            self.ready = pool.submit(os.getpid)
        return pool

    def submit(self, trial: Trial, task: Task) -> Future:
        if self.pool is None:
            self.pool = self._started()
        try:
            future = self.pool.submit(_run, trial, task)
        except BrokenExecutor:  # it died while it had nothing to do
            self._again()
            future = self.pool.submit(_run, trial, task)
        self.free = False
        return future

    def lost(self, future: Future) -> str | None:
        """Why nothing came back, in words; None where something did.  There is a new process where one died."""
        self.free, error = True, future.exception()
        return self._again() if isinstance(error, BrokenExecutor) else error and _said(error)

    def _again(self) -> str:
        if self.ready.exception() is not None:
            raise MinigradError(
                'sweep: no worker starts; what it says is above.  A script needs `if __name__ == "__main__":` around '
                "what starts a sweep"
            ) from None
        process = self.context.process
        process.join()
        self.pool.shutdown()
        self.pool = self._started()
        how = (
            f"was ended by signal {-process.exitcode}"
            if process.exitcode < 0
            else f"ended with {process.exitcode}"
        )
        return f"the worker {how}"

    def end(self) -> None:
        if self.pool is not None:
            if not self.free:
                self.context.process.kill()
            self.pool.shutdown(cancel_futures=True)


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started meanwhile multiply matrices with one thread each: NumPy reads it when it is loaded."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _prepare() -> None:
    """In a new worker: Ctrl-C is the sweep's to handle, and a worker does not outlive it, however it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
