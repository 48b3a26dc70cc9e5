"""``python -m tests.drawn.fuzz --minutes 30``: draw programs and compare, as long as wanted; see `check.py`.

Half are run by the interpreter of the emitted source, half as machine code: that takes a little longer to make.  Each
finding is made small, kept in tests/drawn/found/ and printed as Python; the exit code is 1 if there was one.
Every line of progress says from which seed to which: ``--seed`` starts there again.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import queue
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from . import check as checking
from .check import Finding, check, check_numerically
from .draw import draw
from .programs import Program, text, to_json
from .shrink import shrink

FOUND = Path(__file__).parent / "found"
ALIKE = 3  # findings of one kind that are made small and kept; the rest are counted
EVERY = 30  # seconds between two lines of progress


@dataclass
class Report:
    """What a worker has to say since it last said something."""

    drawn: int = 0
    as_machine_code: int = 0
    eagerly: Counter = field(default_factory=Counter)
    finding: tuple[int, str, str, str] | None = None  # seed, kind, message, small program as JSON


def examine(seed: int, run: str, kinds: Counter) -> Report:
    """One program, with its finding made small if it has one."""
    report = Report(drawn=1, as_machine_code=int(run == "machine"))
    checking.RUNS_EAGERLY.clear()
    program = draw(seed)
    finding = check(program, run)
    report.eagerly = Counter(checking.RUNS_EAGERLY)
    judge = lambda p: check(p, run)  # noqa: E731
    if finding is None and seed % 5 == 0:
        finding, judge = check_numerically(program), check_numerically
    if finding is not None:
        kinds[finding.kind, finding.stamp] += 1
        if kinds[finding.kind, finding.stamp] <= (ALIKE if finding.stamp else 10 * ALIKE):
            program = shrink(
                program, lambda p: finding.same(judge(p)), 40 if run == "machine" else 1000, seconds=60
            )
        finding = judge(program) or finding
        report.finding = (seed, _kind_of(finding, program), str(finding), to_json(program))
    return report


def _kind_of(finding: Finding, program: Program) -> str:
    """What small findings of one cause have in common, mostly: the kind, and the operations that are left."""
    operations = sorted({s.op for s in program.statements()})
    return " ".join([finding.kind, finding.stamp, *operations])


def work(first: int, step: int, share: float, until: float, reports, stop) -> None:
    """One process: its own seeds, until the time is over."""
    kinds: Counter = Counter()
    seed, due = first, 0.0
    try:
        while time.time() < until and not stop.is_set():
            due += share
            run = "machine" if due >= 1 else "interpret"
            due -= run == "machine"
            try:
                reports.put(examine(seed, run, kinds))
            except Exception:  # a defect of the generator itself
                reports.put(Report(1, finding=(seed, "defect", f"seed {seed}: {traceback.format_exc()}", "")))
            seed += step
    except KeyboardInterrupt:
        pass
    reports.put(None)


def keep(kind: str, program: str, folder: Path = FOUND) -> Path:
    folder.mkdir(exist_ok=True)
    name = kind.split()[0] + "-" + hashlib.sha256(program.encode()).hexdigest()[:12]
    file = folder / f"{name}.json"
    file.write_text(program + "\n", encoding="utf-8")
    return file


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.drawn.fuzz", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, help="the first seed (default: from the clock)")
    parser.add_argument(
        "--machine-share", type=float, default=0.5, help="share of programs that run as machine code"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=FOUND, help="the folder for findings")
    options = parser.parse_args(arguments)
    seed = int(time.time()) * 1000 if options.seed is None else options.seed
    until = time.time() + 60 * options.minutes
    context = multiprocessing.get_context("spawn")  # fork copies threads and locks
    reports, stop = context.Queue(), context.Event()
    workers = [
        context.Process(
            target=work,
            args=(seed + k, options.workers, options.machine_share, until, reports, stop),
            daemon=True,
        )
        for k in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    try:
        return collect(reports, len(workers), seed, until, options.keep)
    except KeyboardInterrupt:
        stop.set()
        return 130
    finally:
        for worker in workers:
            worker.join(timeout=5)
            if worker.is_alive():
                worker.terminate()


def collect(reports, running: int, seed: int, until: float, folder: Path) -> int:
    total, eagerly, kinds = Report(), Counter(), Counter()
    said = start = time.time()
    print(f"seeds from {seed}, for {(until - start) / 60:.3g} minutes", flush=True)
    while running:
        try:
            report = reports.get(timeout=EVERY)
        except queue.Empty:
            report = Report()
            if time.time() > until + 300:
                print("a worker does not answer", flush=True)
                return 1
        if report is None:
            running -= 1
            continue
        total.drawn += report.drawn
        total.as_machine_code += report.as_machine_code
        eagerly.update(report.eagerly)
        if report.finding:
            at, kind, message, program = report.finding
            kinds[kind] += 1
            if kinds[kind] <= ALIKE:
                show(at, kind, message, program, folder)
        if time.time() - said > EVERY:
            said = time.time()
            progress(total, eagerly, kinds, said - start)
    progress(total, eagerly, kinds, time.time() - start)
    for reason, count in eagerly.most_common():
        print(f"  {count:6d} ran eagerly: {reason}")
    for kind, count in kinds.most_common():
        print(f"  {count:6d} found: {kind}")
    return int(bool(kinds))


def show(seed: int, kind: str, message: str, program: str, folder: Path) -> None:
    from .programs import from_json

    print(f"\nFOUND with seed {seed}: {message}")
    if program:
        print(f"kept as {keep(kind, program, folder)}")
        print(text(from_json(program)), flush=True)


def progress(total: Report, eagerly: Counter, kinds: Counter, seconds: float) -> None:
    print(
        f"{seconds:6.0f} s: {total.drawn} programs drawn, {total.as_machine_code} of them run as machine code; "
        f"{eagerly.total()} ran eagerly; {kinds.total()} findings of {len(kinds)} kinds",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
