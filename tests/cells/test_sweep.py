"""Sweeps: the same bits wherever trials run, nothing lost of what was finished, and figures that say what they are.

What happens to other processes is tested with other processes.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cells import GRU, sweep, tasks
from cells.experiments import sweep as sweeping
from cells.experiments import trials
from cells.experiments.comparison import MODELS, Record, trained, width_for
from cells.experiments.results import Results, student
from cells.experiments.trials import Result, Trial
from minigrad import InputError, MinigradError
from tests.cells import swept

ROOT = Path(__file__).resolve().parents[2]
TASK = tasks.adding_task(6)
HERE = "tests.cells.swept:"
QUICK, SLOW = HERE + "quick", HERE + "slow"
SMALL = {"width": 3, "steps": 5, "batch": 4}
GRID = {**SMALL, "lr": [0.01, 0.1]}
needs_signals = pytest.mark.skipif(os.name != "posix", reason="this system has no signals")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where workers say what happens in them."""
    monkeypatch.setenv("SWEPT", str(tmp_path))
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    return tmp_path


@pytest.fixture
def here():
    """An executor in this process, where nothing has to start."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def bits(results) -> list[tuple]:
    """All that must not depend on where a trial ran."""
    return [(str(r.trial), r.record.weights, r.record.score, r.record.scores) for r in results]


def said(folder: Path, file: str) -> list[str]:
    path = folder / file
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


# What is planned.


def test_every_model_meets_every_task_and_point_and_seed_in_order(here):
    two = {"short": TASK, "long": tasks.adding_task(9)}
    found = sweep([QUICK, HERE + "Leaky"], two, GRID, seeds=[3, 1], executor=here)
    t = [r.trial for r in found]
    assert [(x.task, x.model.rpartition(":")[2], x.lr, x.seed) for x in t] == [
        (task, model, lr, seed)
        for task in two
        for model in ("quick", "Leaky")
        for lr in (0.01, 0.1)
        for seed in (3, 1)
    ]
    assert {(x.width, x.batch, x.steps, x.clip) for x in t} == {(3, 4, 5, 1.0)}
    assert len({r.record.weights for r in found}) == len(found), "each trial is another training"
    assert not found.failed and all(r.record.steps == list(range(6)) for r in found)
    assert all(r.versions["numpy"] == np.__version__ and r.processor > 0 for r in found)


def test_a_trial_is_the_training_that_compare_makes(here):
    (result,) = sweep("GRU", TASK, {"parameters": 150, "steps": 4}, [7], here, tests=2)
    width = width_for(MODELS["GRU"], TASK, 150)
    record = trained(TASK, MODELS["GRU"], name="GRU", width=width, seed=7, batch=32, steps=4, tests=2)
    assert result.trial.width == width and result.trial.lr == MODELS["GRU"].lr
    assert (result.record.weights, result.record.scores) == (record.weights, record.scores)


def test_a_class_is_named_so_that_other_processes_find_it(here):
    (result,) = sweep(GRU, TASK, {"width": 3, "steps": 1}, 1, here)
    assert result.trial.model == "cells.gru:GRU" and result.record is not None


def test_points_that_come_to_the_same_width_are_one_trial(here):
    assert len(sweep(QUICK, TASK, {**SMALL, "width": [3, 6, 3]}, [0, 0], here)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(models=[]), "there is no model"),
        (dict(models="LTSM"), "no model 'LTSM'; give RNN, LSTM"),
        (dict(models=HERE + "Missing"), "'tests.cells.swept:Missing' cannot be imported"),
        (dict(models="nowhere.to.be:Found"), "cannot be imported .No module named 'nowhere'"),
        (dict(models=HERE + "NOT_A_MODEL"), "is ndarray; name a class of cells"),
        (dict(models=[swept.quick]), "give a class, or a name"),
        (dict(tasks=[]), "there is no task"),
        (dict(tasks=["adding"]), "task 'adding' is str; give e.g. tasks.adding_task"),
        (dict(tasks=[TASK, TASK]), "several tasks are called adding over 6 steps; give a dict"),
        (
            dict(grid={"rate": 1}),
            "the grid has 'rate'; it can have parameters, lr, batch, clip, steps, width",
        ),
        (dict(grid={"width": 3, "parameters": 9}), "both width and parameters"),
        (dict(grid={"width": 4}), "width = 4; tests.cells.swept:quick needs a multiple of 3"),
        (dict(grid={"lr": []}), "no value of lr"),
        (dict(grid={"lr": [0.1, -1]}), "lr = -1; give a number above 0"),
        (dict(grid={"lr": float("nan")}), "lr = nan"),
        (dict(grid={"steps": 1.5}), "steps = 1.5; give a whole number"),
        (dict(seeds=0), "seeds = 0"),
        (dict(seeds=[1, -1]), "seed -1"),
        (dict(executor=3), "executor = 3; give one of concurrent.futures"),
        (dict(workers=2), "workers = 2 beside an executor"),
        (dict(executor=None, workers=0), "workers = 0"),
    ],
)
def test_mistakes_are_named_before_anything_runs(change, words, here, folder):
    given = {**dict(models=SLOW, tasks=TASK, grid=SMALL, seeds=1, executor=here), **change}
    with pytest.raises(InputError, match=words):
        sweep(
            **{**given, "models": QUICK if "width = 4" in words else given["models"]}, resume=folder / "file"
        )
    assert list(folder.iterdir()) == []


# The same bits wherever, and what is compiled.

SCRIPT = """
import json, sys
from contextlib import contextmanager
from concurrent.futures import ThreadPoolExecutor
from cells import sweep
from tests.cells import test_sweep

@contextmanager
def dask():
    from dask.distributed import Client, LocalCluster
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield client.get_executor()

@contextmanager
def mpi():
    from mpi4py.futures import MPIPoolExecutor
    with MPIPoolExecutor(2) as executor:
        yield executor

if __name__ == "__main__":
    with {"dask": dask, "mpi": mpi}[sys.argv[1]]() as executor:
        found = sweep([test_sweep.QUICK, "RNN"], test_sweep.TASK, test_sweep.GRID, 2, executor)
    print("found:", json.dumps(test_sweep.bits(found)), flush=True)
"""


@pytest.fixture(scope="module")
def expected():
    """The bits of trials that ran one after the other, in a process that does nothing else."""
    with ThreadPoolExecutor(1) as executor:
        return bits(sweep([QUICK, "RNN"], TASK, GRID, 2, executor))


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_the_same_bits(workers, expected, folder):
    found = sweep([QUICK, "RNN"], TASK, GRID, 2, workers=workers, resume=folder / "file")
    assert bits(found) == expected
    assert bits(sweep([QUICK, "RNN"], TASK, GRID, 2, workers=workers, resume=folder / "file")) == expected


def test_threads_and_pools_of_processes_give_the_same_bits_in_any_order(expected):
    with ThreadPoolExecutor(2) as executor:
        assert bits(sweep([QUICK, "RNN"], TASK, GRID, 2, executor)) == expected
        other = sweep(["RNN", QUICK], TASK, {**GRID, "lr": [0.1, 0.01]}, [1, 0], executor)
    assert sorted(bits(other)) == sorted(expected)


def in_a_script(kind: str, folder: Path, *command: str) -> list:
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    ran = subprocess.run(
        [*command, str(script), kind], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("found:")]
    return [tuple(one) for one in json.loads(line.removeprefix("found:"))]


@pytest.mark.skipif(
    not importlib.util.find_spec("mpi4py") or not shutil.which("mpiexec"), reason="needs mpi4py and mpiexec"
)
def test_mpi_gives_the_same_bits(expected, folder):
    command = ["mpiexec", "-n", "3", sys.executable, "-m", "mpi4py.futures"]
    assert in_a_script("mpi", folder, *command) == expected


@pytest.mark.skipif(not importlib.util.find_spec("distributed"), reason="needs Dask's distributed")
def test_dask_gives_the_same_bits(expected, folder):
    assert in_a_script("dask", folder, sys.executable) == expected


def test_a_program_is_compiled_once_for_all_workers(folder, monkeypatch):
    monkeypatch.setenv("MINIGRAD_CACHE", str(folder / "cache"))
    found = sweep(HERE + "Leaky", swept.watched(5), SMALL, 6, workers=2)
    assert not found.failed
    lines = {tuple(line.split()) for line in said(folder, "programs")}
    assert len({pid for pid, _, _ in lines}) == 2, "both workers have trained"
    compiled = [name for _, name, how in lines if how == "compiled"]
    assert len(compiled) == len(set(compiled)) == len({name for _, name, _ in lines}) >= 3
    assert any(name.startswith("matmul") for name in compiled), "kernels too"


# What goes wrong.


def test_a_trial_that_fails_is_a_result_and_the_others_go_on(here, folder):
    given = dict(
        models=[QUICK, HERE + "raises"], tasks=TASK, grid={**SMALL, "lr": [0.01, 1e38], "clip": 1e38}, seeds=1,
        executor=here, resume=folder / "file",
    )  # fmt: skip
    with pytest.warns(
        UserWarning, match="3 of 4 trials failed, e.g. tests.cells.swept:quick .width 3. on adding"
    ):
        found = sweep(**given)
    good, diverged, *raised = found
    assert good.record is not None and found.failed == [diverged, *raised]
    assert diverged.error.startswith("NonFiniteError: ") and diverged.final
    assert all(re.fullmatch(r"KeyError: 'no such.+weight' \(swept.py, line \d+\)", r.error) for r in raised)
    (folder / "mended").touch()
    with pytest.warns(UserWarning, match="2 of 4"):  # of those that were tried again one diverges, too
        again = sweep(**given)
    assert [r.processor for r in again[:2]] == [good.processor, diverged.processor], (
        "these were not run again"
    )
    assert again[2].record is not None and again[3].error.startswith("NonFiniteError")
    assert len(said(folder, "file")) == 6, "what was tried again is one more line, and the last one counts"


@needs_signals
@pytest.mark.parametrize("model", ["dies_once", "dies"])
def test_a_worker_that_dies_loses_its_own_trial_alone_which_is_tried_again_once(model, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error" if model == "dies_once" else "ignore")
        found = sweep([HERE + model, SLOW], TASK, SMALL, 2 if model == "dies_once" else 1, workers=2)
    slow = [r for r in found if r.trial.model == SLOW]
    assert all(r.record is not None for r in slow)
    assert len(said(folder, "pids")) == len(slow), "each ran once"
    if model == "dies_once":
        assert not found.failed and len(said(folder, "deaths")) == 1
    else:
        assert len(said(folder, "deaths")) == 2
        assert [r.error for r in found.failed] == ["the worker was ended by signal 9, 2 times"]


@needs_signals
def test_a_worker_that_dies_while_it_has_nothing_to_do_costs_no_trial():
    ((trial, task),) = [(r.trial, TASK) for r in made({(QUICK, 3, 0.01): [0.1]})]
    place = sweeping._Process()
    try:
        first = place.submit(trial, task).result(60)
        place.context.process.kill()
        place.context.process.join(60)
        again = place.submit(trial, task)
        if (
            place.lost(again) is not None
        ):  # it was sent before the death was known: this is the sweep's to mend
            again = place.submit(trial, task)
        assert first.error is None and again.result(60).record.weights == first.record.weights
    finally:
        place.end()


def test_workers_have_one_thread_each_and_this_process_what_it_had(monkeypatch, folder):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert not sweep(SLOW, TASK, SMALL, 1).failed
    assert said(folder, "threads") == ["1"]
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


class Broken(Executor):
    """An executor whose workers are gone."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        future.set_exception(BrokenExecutor("a process died"))
        return future


def test_an_executor_that_breaks_ends_the_sweep_with_a_remedy():
    with pytest.raises(MinigradError, match=r"executor broke \(a process died\); start the sweep again"):
        sweep(QUICK, TASK, SMALL, 3, Broken())


@needs_signals
def test_a_script_without_a_guard_is_told_of_it(folder):
    script = folder / "script.py"
    script.write_text(
        "from cells import sweep, tasks\n"
        f"sweep({QUICK!r}, tasks.adding_task(6), {SMALL!r}, 2, workers=2)\n", encoding="utf-8"
    )  # fmt: skip
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    # Python may add what became of the workers' semaphores.
    said = [line for line in ran.stderr.splitlines() if line.startswith("minigrad.errors.MinigradError: ")]
    assert ran.returncode == 1 and len(said) == 1 and "sweep: no worker" in said[0], ran.stderr


# Sweeps that end before their end.

LONG = f"""
import signal, sys
from cells import sweep, tasks
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background was told to ignore it
    sweep({SLOW!r}, tasks.adding_task(6), {SMALL!r}, 8, workers=2, resume=sys.argv[1])
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()  # it has ended, and nobody has asked how
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return os.path.isdir("/proc/self") is False


def stopped(folder: Path, after: int, by: int) -> subprocess.Popen:
    """A sweep that gets a signal when its file has so many lines; it and its workers are gone then."""
    script, file = folder / "long.py", folder / "file"
    script.write_text(LONG, encoding="utf-8")
    end = time.monotonic() + 60
    with open(folder / "stderr", "w") as errors:
        running = subprocess.Popen([sys.executable, str(script), str(file)], stderr=errors)
    while len(said(folder, "file")) < after:
        assert time.monotonic() < end and running.poll() is None, said(folder, "stderr")
        time.sleep(0.01)
    running.send_signal(by)
    running.wait(20)
    pids = {int(pid) for pid in said(folder, "pids")}
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, "a worker outlives its sweep"
        time.sleep(0.01)
    return running


@needs_signals
@pytest.mark.parametrize("after", [1, 4])
def test_a_killed_sweep_goes_on_where_it_was(after, folder, here):
    stopped(folder, after, signal.SIGKILL)
    begun, kept = len(said(folder, "pids")), len(said(folder, "file"))
    assert after <= kept < 8 and begun - kept <= 2, "no more than what was running is lost"
    found = sweep(SLOW, TASK, SMALL, 8, here, resume=folder / "file")
    assert len(said(folder, "pids")) == begun + 8 - kept, "what was finished is not run again"
    assert bits(found) == bits(sweep(SLOW, TASK, SMALL, 8, here))


@needs_signals
def test_ctrl_c_ends_all_workers_and_leaves_the_file_whole(folder):
    running = stopped(folder, 2, signal.SIGINT)
    assert (
        running.returncode in (-signal.SIGINT, 1, 130) and said(folder, "stderr")[-1] == "KeyboardInterrupt"
    )
    data = (folder / "file").read_bytes()
    assert data.endswith(b"\n") and all(Result.read(line).record for line in data.splitlines())


# The file.


def test_a_line_is_read_as_it_was_written_and_half_a_line_is_dropped(here, folder):
    file = folder / "new folder" / "file"
    first = sweep(QUICK, TASK, SMALL, 3, here, resume=file)
    lines = file.read_bytes().splitlines(keepends=True)
    assert [Result.read(line).line() for line in lines] == lines
    for half in (lines[-1][:1], lines[-1][:200], lines[-1][:-1]):
        file.write_bytes(b"".join(lines[:2]) + half)
        again = sweep(QUICK, TASK, SMALL, 3, here, resume=file)
        assert bits(again) == bits(first)
        assert [r.processor for r in again[:2]] == [r.processor for r in first[:2]] and len(
            said(folder / "new folder", "file")
        ) == 3
        with trials.Journal(file) as journal:
            assert len(journal.found) == 3, "and the file is whole again"


def test_another_task_or_size_of_the_same_name_is_another_trial(here, folder):
    for k, (task, grid) in enumerate(
        [(TASK, SMALL), (tasks.adding_task(7), SMALL), (TASK, {**SMALL, "batch": 5})], 1
    ):
        (one,) = sweep(QUICK, {"mine": task}, grid, 1, here, resume=folder / "file")
        assert len(said(folder, "file")) == k and one.record is not None


def test_files_of_others_are_refused_and_stay_as_they_are(here, folder):
    sweep(QUICK, TASK, SMALL, 1, here, resume=folder / "good")
    good = (folder / "good").read_bytes()
    cases = {
        b"Chapter 1": "does not end with a result",
        b"a,b\n1,2\n": "line 1 of .*file' is not a result of a sweep",
        good + b"{}\n" + good: "line 2 of",
        good.replace(b'"width"', b'"depth"'): "line 1 of",
        good + b"\0\0\0": "does not end with a result",
    }
    for data, words in cases.items():
        (folder / "file").write_bytes(data)
        with pytest.raises(InputError, match=words):
            sweep(QUICK, TASK, SMALL, 2, here, resume=folder / "file")
        assert (folder / "file").read_bytes() == data
    with pytest.raises(InputError, match="cannot be written"):
        sweep(QUICK, TASK, SMALL, 1, here, resume=folder)


@pytest.mark.skipif(trials.files.fcntl is None, reason="this system has no such locks")
def test_two_sweeps_do_not_write_one_file(here, folder):
    with trials.Journal(folder / "file"), pytest.raises(InputError, match="another sweep is writing"):
        sweep(QUICK, TASK, SMALL, 1, here, resume=folder / "file")


def test_results_of_other_versions_are_told(here, folder):
    sweep(QUICK, TASK, SMALL, 1, here, resume=folder / "file")
    line = (folder / "file").read_text().replace(f'"numpy": "{np.__version__}"', '"numpy": "1.0"')
    (folder / "file").write_text(line)
    with pytest.warns(UserWarning, match="different versions .*numpy 1.0"):
        sweep(QUICK, TASK, SMALL, 2, here, resume=folder / "file")


def test_how_far_it_is(here, folder, capsys):
    given = (QUICK, TASK, SMALL)
    sweep(*given, 2, here, resume=folder / "file")
    assert capsys.readouterr() == ("", "")
    sweep(*given, 4, here, resume=folder / "file", progress=True)
    out, err = capsys.readouterr()
    assert out == "" and [line.rpartition(",")[0] for line in err.splitlines()] == [
        "trial 3 of 4: none failed", "trial 4 of 4: none failed",
    ]  # fmt: skip
    assert err.rstrip().endswith("0 s left")


# Figures.


def test_students_t_is_that_of_the_tables():
    """Two-sided 95 %, as printed in Fisher and Yates (1938)."""
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 10: 2.228, 29: 2.045, 120: 1.980}
    assert {n: round(student(n), 3) for n in printed} == printed


def test_the_interval_holds_the_mean_as_often_as_it_says(rng):
    trial = Trial("m", "t", "", 3, 0.1, 4, 1.0, 5, 0)
    hits, rounds = 0, 2000
    for _ in range(rounds):
        scores = rng.normal(2.0, 3.0, 4)
        records = [Record("m", "t", "nats", 1.0, 3, 9, score=float(s)) for s in scores]
        (group,) = Results(
            Result(replace(trial, seed=k), r, None, 1.0, {}) for k, r in enumerate(records)
        ).groups
        hits += abs(group.mean - 2.0) <= group.margin
    assert abs(hits / rounds - 0.95) < 0.02


def made(scores: dict[tuple, list], tasks=("adding",)) -> Results:
    """Results by (model, width, lr), a score for each seed; None: it failed."""
    found = Results()
    for task in tasks:
        for (model, width, lr), values in scores.items():
            for seed, score in enumerate(values):
                record = score and Record(
                    model, task, "nats", 0.5, width, 100 * width, [0], [0], [1], 0.002, score
                )
                trial = Trial(model, task, "", width, lr, 4, 1.0, 5, seed)
                found.append(Result(trial, record, None if score else "NonFiniteError: nan", 1.0, {}))
    return found


SCORES = {
    ("LSTM", 3, 0.01): [0.1, 0.2, 0.3], ("LSTM", 3, 0.1): [0.4, None, 0.4],
    ("mine:Own", 3, 0.01): [0.05, 0.06, 0.4], ("mine:Own", 3, 0.1): [None, None, None],
}  # fmt: skip


def printed(results: Results) -> str:
    from rich.console import Console

    console = Console(width=150, record=True, file=io.StringIO())
    console.print(results.table())
    return console.export_text()


def test_the_table_says_mean_interval_spread_and_failures():
    text = printed(made(SCORES))
    rows = [line.split() for line in text.splitlines() if line.startswith(("LSTM", "Own"))]
    assert [" ".join(row) for row in rows] == [
        "LSTM 3 300 0.01 3 0.2 0.25 0.1 … 0.3 2",
        "LSTM 3 300 0.1 2, 1 failed 0.4 0 0.4 … 0.4 2",
        "Own 3 300 0.01 3 0.17 0.49 0.05 … 0.4 best 2",
        "Own 3 – 0.1 0, 3 failed – – – –",
    ]
    assert "95 %: confidence interval of their mean, Student's t" in text
    assert "adding: nats, held out; without memory 0.5" in text
    alone = printed(made({("LSTM", 3, 0.01): [0.1]}))
    assert "0.1       –" in alone, "there is no interval of one seed"
    several = printed(made(SCORES, ("adding", "[b]copy")))
    assert "[b]copy: nats" in several and several.count("best") == 2


def test_the_picture_says_what_its_bars_are_and_is_the_same_each_time(folder):
    paths = [folder / name for name in ("a.svg", "b.svg", "a.png")]
    made(SCORES, ("adding", "copy")).plot(*paths[::2])
    made(SCORES, ("adding", "copy")).plot(paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes() and paths[2].stat().st_size > 10_000
    svg = paths[0].read_text(encoding="utf-8")
    for words in (
        "LSTM", "Own", "adding", "copy", "learning rate", "0.01", "0.1", "nats, held out", "without memory",
        "Markers: mean with its 95 % confidence interval (Student's t), n = 2 … 3 seeds.",
        "Dots: one seed each.  A bar without a cap leaves the frame.  Hollow: some seeds failed.  ×: all failed.",
    ):  # fmt: skip
        assert f">{words}<" in re.sub("&#39;|&apos;", "'", svg), words
    made({("LSTM", 3, 0.01): [0.1]}).plot(paths[0])
    svg = paths[0].read_text(encoding="utf-8")
    assert ">Markers: mean, n = 1 seed.<" in svg and "interval" not in svg and "failed" not in svg


def test_a_picture_of_sizes_has_a_line_for_each_model():
    from matplotlib.figure import Figure

    from cells.experiments import results as drawn

    groups = made({(m, w, 0.1): [0.1, 0.2] for m in ("GRU", "LSTM") for w in (3, 9)}).groups
    axes = Figure().subplots()
    drawn._panel(axes, groups, groups, drawn._varied(groups))
    lines = [line for line in axes.get_lines() if line.get_label() in ("GRU", "LSTM")]
    assert len(lines) == 2 and axes.get_xlabel() == "width"
    for line in lines:
        np.testing.assert_allclose(line.get_ydata(), [0.15, 0.15])
        np.testing.assert_allclose(line.get_xdata(), [3, 9], rtol=0.05)
    assert (lines[0].get_xdata() < lines[1].get_xdata()).all(), "one beside the other"


def test_nothing_is_drawn_of_nothing(folder):
    with pytest.raises(InputError, match="there is no result"):
        Results().table()
    for empty in (Results(), made({("LSTM", 3, 0.1): [None]})):
        with pytest.raises(InputError, match="no result with a score"):
            empty.plot(folder / "a.svg")
    with pytest.raises(InputError, match=r"plot: a.gif; give a name that ends in \.svg"):
        made(SCORES).plot(folder / "a.gif")
