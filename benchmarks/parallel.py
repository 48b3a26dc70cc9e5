"""What a second rank is worth, what an exchange costs, and what to expect of more ranks than this machine has.

One LSTM layer with an output, Adam and clipping, float32, is trained by `mg.fit(…, comm=…)` on 1, 2 and 4 ranks of
one machine, a thread each, in turns of a few steps within the same processes.  Other programs may share the machine:
so beside the clock stands what a step takes by processor seconds: the most that a rank computes, and the exchange as the
rank has it that comes last; or, with more ranks than processors, all that all of them use, shared out over these.

Then a simulation, which is given what one process takes for shares of the batch and what an all-reduce takes, and
nothing that was measured of training on several ranks: what it says of 1, 2 and 4 is compared with that, and then it
goes on to 16, 256 and 4,096, on a network that is told to it.

    python benchmarks/parallel.py [--cases mid large] [--rounds 3] [--latency 5e-6] [--bandwidth 10e9]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before NumPy is imported

import numpy as np  # noqa: E402

CASES = {"mid": (100, 32, 64, 128), "large": (128, 64, 256, 512)}  # T, N, D, H
STEPS = {"mid": 40, "large": 5}  # of a turn; the first does not count
COUNTS = (1, 2, 4)  # of ranks
FEW = 25  # per cent: what an exchange takes where no other program has come between


# In the ranks.


class Case:
    """A model, its data, and turns of training it."""

    def __init__(self, name: str):
        import cells
        import minigrad as mg

        T, N, D, H = CASES[name]
        rng = np.random.default_rng(0)
        cell, output = cells.LSTM(D, H, rng), cells.Output(H, D, rng)
        self.parameters, self.N = {**cell.parameters(), **output.parameters()}, N
        self.x, self.targets = rng.standard_normal((T, N, D)).astype("f4"), rng.integers(0, D, (T, N))
        self.loss = mg.compile(lambda x, targets: mg.cross_entropy(cell(x, output=output).y, targets))
        self.bytes = 4 * sum(p.size for p in self.parameters.values())

    def turn(self, comm, steps: int, sequences: int) -> dict[str, list[float]]:
        """Seconds of each step but the first: of the clock, and of the processor while it computes and exchanges."""
        import minigrad as mg

        ranks, started = timed(comm), []

        def rate(number: int) -> float:  # called at the beginning of each step
            started.append((time.perf_counter(), time.process_time()))
            return 1e-4

        batch = self.x[:, :sequences], self.targets[:, :sequences]
        mg.fit(self.loss, self.parameters, [batch] * (steps + 1), lr=rate, comm=ranks)
        clock, processor = np.diff(np.array(started), axis=0).T
        exchange = np.array(ranks.took)[: len(clock)] if ranks.took else np.zeros(len(clock))
        found = {"clock": clock, "compute": processor - exchange, "exchange": exchange}
        return {name: values[1:].tolist() for name, values in found.items()}


def timed(comm):
    import minigrad as mg

    class Timed(mg.Ranks):
        """Ranks that say what each sum has taken of the processor."""

        def summed(self, *arguments):
            began = time.process_time()
            value = super().summed(*arguments)
            self.took.append(time.process_time() - began)
            return value

    ranks = Timed(comm, check=False)
    ranks.took = []
    return ranks


def waited(comm) -> None:
    """All are here; who comes first leaves the processor to the others."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(1e-3)


def all_reduces(comm, MPI, sizes: list[int]) -> dict[int, float]:  # noqa: N803
    """Seconds of one by its bytes, by processors."""
    buffers = {size: np.ones(size // 4, np.float32) for size in sizes}
    return {
        size: used(comm, lambda k, b=b: comm.Allreduce(MPI.IN_PLACE, b, MPI.SUM), 40 if size > 1e6 else 200)
        for size, b in buffers.items()
    }


def exchanges(comm, MPI, sizes: list[int]) -> dict[int, float]:  # noqa: N803
    """Seconds of a meeting and an all-reduce, by processors, of ranks that come from work and not at the same time."""
    import minigrad as mg

    matrix = np.ones((400, 400), np.float32)

    def work() -> None:
        for _ in range(4):
            matrix @ matrix

    found = {}
    with mg.Ranks(comm) as ranks:
        for size in sizes:
            buffer = np.ones(size // 4, np.float32)

            def exchange(k: int, buffer=buffer) -> None:
                ranks.done(k)
                ranks.comm.Allreduce(MPI.IN_PLACE, buffer, MPI.SUM)

            found[size] = used(comm, exchange, 60, work)
    return found


def used(comm, exchange: Callable[[int], object], count: int, before: Callable | None = None) -> float:
    took = []
    for k in range(count):
        (before or comm.Barrier)()
        began = time.process_time()
        exchange(k)
        took.append(time.process_time() - began)
    together = comm.gather(took)
    return shared_seconds(np.zeros((1, 1)), np.array(together), cores())[0] if together else 0.0


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_seconds(compute: np.ndarray, exchange: np.ndarray, cores: int) -> tuple[float, float]:
    """Seconds of a step, and of the exchange in it, from processor seconds (ranks, steps) of both."""
    most = np.median(compute, axis=1)
    if len(exchange) <= cores:
        last = float(np.percentile(exchange.min(axis=0), FEW))
        return float(most.max()) + last, last
    all_of_it = float(np.percentile(exchange.sum(axis=0), FEW)) / cores
    return float(most.sum()) / cores + all_of_it, all_of_it


def inside(names: list[str], rounds: int) -> None:
    """On every rank; rank 0 prints what was measured as JSON."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    comms = {n: world.Split(world.rank < n) for n in COUNTS}
    cases = {name: Case(name) for name in names}
    sizes = sorted({8, 4096, 65_536, *[case.bytes for case in cases.values()]})
    measured: dict[str, Any] = {
        "bytes": {name: case.bytes for name, case in cases.items()},
        "reduce": {},
        "exchange": {},
    }
    for n, comm in comms.items():
        if n > 1 and world.rank < n:
            measured["reduce"][n], measured["exchange"][n] = (
                all_reduces(comm, MPI, sizes),
                exchanges(comm, MPI, sizes),
            )
        waited(world)
    turns: list[tuple] = []
    for name, case in cases.items():
        for _ in range(rounds + 1):
            for n, comm in comms.items():
                for share in (1, 2, 4) if n == 1 else (1,):
                    found = case.turn(comm, STEPS[name], case.N // share) if world.rank < n else None
                    waited(world)
                    together = world.gather(found)
                    turns.append((name, n, case.N // share, together and [t for t in together if t]))
    if world.rank == 0:
        first = {(name, n, N): k for k, (name, n, N, _) in reversed([*enumerate(turns)])}
        measured["turns"] = [t for k, t in enumerate(turns) if k not in first.values()]  # those have compiled
        print("measured:", json.dumps(measured), flush=True)


# What was found.


def steps_of(measured: dict, name: str, count: int, sequences: int) -> dict[str, np.ndarray]:
    """What all turns of a kind have found, (ranks, steps) each."""
    turns = [found for case, n, N, found in measured["turns"] if (case, n, N) == (name, count, sequences)]
    return {
        what: np.concatenate([np.array([rank[what] for rank in turn]) for turn in turns], axis=1)
        for what in ("clock", "compute", "exchange")
    }


# The simulation.


class Simulation:
    """Steps of ranks that compute a share each, wait for the slowest, and exchange.

    compute : seconds of a step by sequences.
    spread : by how much steps differ, as multiples of their median; each rank draws from it in each step.
    """

    def __init__(self, compute: Callable[[float], float], spread: np.ndarray):
        self.compute, self.spread = compute, spread

    def step(self, count: int, sequences: float, exchange: float, cores: int, steps: int = 100) -> float:
        """Seconds of a step on average.

        sequences : of one rank.
        exchange : its seconds.
        cores : processors, which more ranks than these share evenly.
        """
        rng = np.random.default_rng(0)
        works = np.sort(self.compute(sequences) * rng.choice(self.spread, (steps, count)), axis=1)
        more = np.diff(works, axis=1, prepend=0)  # what is left of each when the one before it is done
        active = np.arange(count, 0, -1)
        return float((more * np.maximum(1, active / cores)).sum(axis=1).mean()) + exchange


def line_through(points: dict[int, float]) -> Callable[[float], float]:
    slope, start = np.polyfit([*points], [*points.values()], 1)
    return lambda n: max(start + slope * n, slope * n)


def network(count: int, size: int, latency: float, bandwidth: float) -> float:
    """Seconds of a meeting and an all-reduce of `size` bytes: halving and doubling, 2 log₂ R messages of which all together
    carry 2 (R − 1) / R times the bytes (Rabenseifner, 2004)."""
    messages = 2 * int(np.ceil(np.log2(count)))
    return messages * latency + messages * latency + 2 * (count - 1) / count * size / bandwidth


def report(measured: dict, names: list[str], options: argparse.Namespace) -> None:
    print(f"{cores()} processors, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'µs by processors':32s}" + "".join(f"{int(size):>12,} B" for size in measured["reduce"]["2"]))
    for kind, what in (("reduce", "all-reduce alone"), ("exchange", "exchange after work")):
        for n, found in measured[kind].items():
            print(f"{f'{what}, {n} ranks':32s}" + "".join(f"{1e6 * s:14.0f}" for s in found.values()))
    for name in names:
        one(name, measured, options)


def one(name: str, measured: dict, options: argparse.Namespace) -> None:
    T, N, D, H = CASES[name]
    size = measured["bytes"][name]
    print(f"\n{name}: T {T}, N {N}, D {D}, H {H}; {size:,} bytes of gradients")
    alone = {N // k: steps_of(measured, name, 1, N // k) for k in (1, 2, 4)}
    points = {n: float(np.median(found["compute"])) for n, found in alone.items()}
    near = alone[N]["compute"].ravel()
    spread = np.clip(near / np.median(near), *np.percentile(near / np.median(near), [2, 98]))
    simulation = Simulation(line_through(points), spread)
    print("   ranks      clock, ms  processors, ms  of them exchange   1 ÷ this   simulated, ms   differs by")
    first = 0.0
    for n in COUNTS:
        found = steps_of(measured, name, n, N)
        seconds, exchange = shared_seconds(found["compute"], found["exchange"], cores())
        first = first or seconds
        told = 0.0 if n == 1 else measured["exchange"][str(n)][str(size)]
        simulated = simulation.step(n, N / n, told, cores())
        print(
            f"   {n:5d} {1e3 * np.median(found['clock']):14.2f} {1e3 * seconds:15.2f} {1e3 * exchange:17.2f} "
            f"{first / seconds:10.2f} {1e3 * simulated:15.2f} {simulated / seconds - 1:+12.0%}"
        )
    print(
        f"   on a network of {1e6 * options.latency:.0f} µs and {options.bandwidth / 1e9:.0f} GB/s, a processor for each rank:"
    )
    print(
        "   ranks   bytes sent by each   exchange, ms   efficiency of 1 sequence a rank, of 8, of 32   batch for 90 % of the best"
    )
    for n in (16, 256, 4096):
        exchange = network(n, size, options.latency, options.bandwidth)
        shares = [exact_share(simulation, n, s, exchange) for s in (1, 8, 32)]
        enough = next(
            s
            for s in range(1, 10**6)
            if exact_share(simulation, n, s, exchange, 20) >= 0.9 * limit(simulation, n)
        )
        print(
            f"   {n:5d} {2 * (n - 1) / n * size:20,.0f} {1e3 * exchange:13.2f} {shares[0]:34.0%} {shares[1]:5.0%} "
            f"{shares[2]:6.0%} {n * enough:27,d}"
        )


def exact_share(
    simulation: Simulation, count: int, sequences: float, exchange: float, steps: int = 50
) -> float:
    """How much of what so many processors could do is done."""
    return simulation.compute(sequences) / simulation.step(count, sequences, exchange, count, steps)


def limit(simulation: Simulation, count: int) -> float:
    """That, were an exchange to take no time: ranks wait for the slowest."""
    return exact_share(simulation, count, 1, 0.0, 20)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=5e-6, help="seconds of a message (default: 5e-6)")
    parser.add_argument(
        "--bandwidth", type=float, default=10e9, help="bytes a second of a link (default: 10e9)"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.cases, options.rounds)
        return
    launcher = shutil.which("mpiexec") or shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    if launcher is None or importlib.util.find_spec("mpi4py") is None:
        print("left out: needs mpiexec and mpi4py, pip install mpi4py mpich", file=sys.stderr)
        return
    command = [
        launcher,
        "-n",
        str(max(COUNTS)),
        *[sys.executable, "-m", "mpi4py"],  # which ends all where one fails
        str(Path(__file__).resolve()),
        "--inside",
        "--cases",
    ]
    ran = subprocess.run(
        [*command, *options.cases, "--rounds", str(options.rounds)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("measured:")]
    report(json.loads(line.removeprefix("measured:")), options.cases, options)


if __name__ == "__main__":
    main()
