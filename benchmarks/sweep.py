"""What a sweep loses when it is killed, and what a second worker is worth.

24 small trainings, with one worker and with two, in turns: seconds of the clock, and of processors, as other programs
may share them; what a second one is worth is the median over the rounds.  Then the same sweep, a shorter one, killed at
five moments and started again each time: how many trainings were begun in vain.

    python benchmarks/sweep.py [--rounds 3] [--steps 800]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cells import sweep, tasks

MODELS, GRID, SEEDS = ["RNN", "LSTM", "GRU"], {"width": 32, "lr": [1e-3, 3e-3], "batch": 32}, 4
MOMENTS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the time that the whole takes


def trials(steps: int, **options):
    return sweep(
        MODELS, tasks.adding_task(50), {**GRID, "steps": steps}, SEEDS, tests=2, every=steps, **options
    )


def measured(steps: int, workers: int) -> tuple[float, float, float, list[str]]:
    """Seconds of the clock; of processors, of this process and of its workers; checksums of what was learned."""
    began, before = time.perf_counter(), os.times()
    found = trials(steps, workers=workers)
    clock, after = time.perf_counter() - began, os.times()
    own = after.user + after.system - before.user - before.system
    theirs = after.children_user + after.children_system - before.children_user - before.children_system
    return clock, own, theirs, [r.record.weights for r in found if r.record]


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def killed(steps: int, seconds: float, expected: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trials.jsonl"
        command = [sys.executable, __file__, "--steps", str(steps), "--resume", str(file)]
        for share in MOMENTS:
            file.unlink(missing_ok=True)
            running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            time.sleep(share * seconds)
            running.kill()
            running.wait()
            kept = lines(file)
            found = trials(steps, workers=2, resume=file)
            same = [r.record.weights for r in found if r.record] == expected
            print(
                f"killed at {share:.0%}: {kept} kept, {lines(file) - kept} run afterwards, same bits: {same}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--resume", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.resume:
        trials(options.steps, workers=2, resume=options.resume)
        return
    trials(2, workers=1)  # compiles
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    ratios, bits = [], set()
    for _ in range(options.rounds):
        (clock, own, theirs, weights), (clock_2, own_2, theirs_2, weights_2) = found = [
            measured(options.steps, workers) for workers in (1, 2)
        ]
        ratios.append((clock / clock_2, (own + theirs) / (own_2 + theirs_2 / 2)))
        bits |= {tuple(weights), tuple(weights_2)}
        for count, (clock, own, theirs, _) in enumerate(found, 1):
            print(
                f"{count} worker{'s' * (count > 1)}: {clock:.1f} s; processor seconds: {own:.1f} here, {theirs:.1f} in "
                "workers, their start included",
                flush=True,
            )
    clock, processors = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(
        f"2 workers ÷ 1, median of {options.rounds} rounds: {clock:.2f} by the clock; {processors:.2f} by processor seconds, "
        f"were both idle before\nsame bits: {len(bits) == 1}",
        flush=True,
    )
    short = options.steps // 4
    seconds, *_, expected = measured(short, 2)
    killed(short, seconds, expected)


if __name__ == "__main__":
    main()
