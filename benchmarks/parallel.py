"""What a second rank is worth, what an exchange costs, and what to expect of more ranks than this machine has.

One LSTM layer with an output, Adam and clipping, float32, is trained by `mg.fit(…, comm=…)` on 1, 2 and 4 ranks of
one machine, a thread each, in turns of a few steps within the same processes, and by one process in four parts, which
gives the bits of four ranks.  What is worth how much is the median over the rounds of turns.  Other programs may share
the machine: so beside the clock stands what a step takes by processor seconds: the most that a rank computes, and the
exchange as the rank has it that comes last; or, with more ranks than processors, all that all of them use, shared out
over these.

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
STEPS = {"mid": 20, "large": 4}  # of a turn; the first does not count
COUNTS = (1, 2, 4)  # of ranks
# What takes turns: ranks, parts of a batch, and of how many such batches it is one.
KINDS = [(1, 1, 1), (1, 4, 1), (2, 2, 1), (4, 4, 1), (1, 1, 2), (1, 1, 4)]
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

    def turn(self, comm, parts: int, steps: int, sequences: int) -> dict[str, list[float]]:
        """Seconds of each step but the first: of the clock, and of the processor while it computes and exchanges."""
        import minigrad as mg

        ranks, started = timed(comm, parts), []

        def rate(number: int) -> float:  # called at the beginning of each step
            started.append((time.perf_counter(), time.process_time()))
            return 1e-4

        batch = self.x[:, :sequences], self.targets[:, :sequences]
        mg.fit(self.loss, self.parameters, [batch] * (steps + 1), lr=rate, comm=ranks)
        clock, processor = np.diff(np.array(started), axis=0).T
        exchange = np.array(ranks.took)[: len(clock)] if ranks.took else np.zeros(len(clock))
        found = {"clock": clock, "compute": processor - exchange, "exchange": exchange}
        return {name: values[1:].tolist() for name, values in found.items()}


def timed(comm, parts: int):
    import minigrad as mg
    from minigrad import parallel

    class Timed(mg.Ranks):
        """Ranks that say what each exchange has taken of the processor."""

        def meet(self, what, *arguments, **named):
            began = time.process_time()
            found = super().meet(what, *arguments, **named)
            if what == parallel.STEP:
                self.took.append(time.process_time() - began)
            return found

    ranks = Timed(comm, check=False, parts=parts)
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
        size: used(comm, lambda k, b=b: comm.Allreduce(MPI.IN_PLACE, b, MPI.SUM), 20 if size > 1e6 else 100)
        for size, b in buffers.items()
    }


def exchanges(comm, sizes: list[int]) -> dict[int, float]:
    """Seconds of a meeting and of adding up rows, by processors, of ranks that come from work and not at the same time."""
    import minigrad as mg
    from minigrad import parallel

    matrix = np.ones((400, 400), np.float32)

    def work() -> None:
        for _ in range(4):
            matrix @ matrix

    found = {}
    with mg.Ranks(comm) as ranks:
        for size in sizes:
            buffer = np.ones(size // 4, np.float32)

            def exchange(k: int, buffer=buffer) -> None:
                ranks.meet(parallel.STEP, k, lambda: ranks.added([buffer]))

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
                exchanges(comm, sizes),
            )
        waited(world)
    measured["turns"] = []
    for name, case in cases.items():
        for k in range(rounds + 1):
            for n, parts, share in KINDS:
                found = case.turn(comms[n], parts, STEPS[name], case.N // share) if world.rank < n else None
                waited(world)
                together = world.gather(found)
                if together and k:  # the first round has compiled
                    measured["turns"].append((name, (n, parts, share), [t for t in together if t]))
    if world.rank == 0:
        print("measured:", json.dumps(measured), flush=True)


# What was found.


def turns_of(measured: dict, name: str, kind: tuple) -> list[dict[str, np.ndarray]]:
    """What each turn of a kind has found, (ranks, steps) each."""
    turns = [found for case, of, found in measured["turns"] if (case, tuple(of)) == (name, kind)]
    return [
        {what: np.array([rank[what] for rank in turn]) for what in ("clock", "compute", "exchange")}
        for turn in turns
    ]


def together(turns: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {what: np.concatenate([turn[what] for turn in turns], axis=1) for what in turns[0]}


def median(numbers) -> float:
    return float(np.median(np.array([*numbers])))


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
    turns = {kind: turns_of(measured, name, kind) for kind in KINDS}
    alone = {
        N // share: together(turns[n, parts, share]) for n, parts, share in KINDS if (n, parts) == (1, 1)
    }
    points = {n: float(np.median(found["compute"])) for n, found in alone.items()}
    near = alone[N]["compute"].ravel()
    spread = np.clip(near / np.median(near), *np.percentile(near / np.median(near), [2, 98]))
    simulation = Simulation(line_through(points), spread)
    print(
        "   ranks, parts    clock, ms  processors, ms  of them exchange   1 ÷ this by the clock, by processors   simulated, ms"
    )
    clocks = {kind: [median(turn["clock"]) for turn in found] for kind, found in turns.items()}
    works = {
        kind: [shared_seconds(t["compute"], t["exchange"], cores())[0] for t in found]
        for kind, found in turns.items()
    }
    for kind in KINDS:
        n, parts, share = kind
        if share > 1:
            continue
        ratios = [
            median(one / other for one, other in zip(of[1, 1, 1], of[kind], strict=True))
            for of in (clocks, works)
        ]
        found = together(turns[kind])
        seconds, exchange = shared_seconds(found["compute"], found["exchange"], cores())
        told = 0.0 if n == 1 else measured["exchange"][str(n)][str(size)]
        simulated = simulation.step(n, N / n, told, cores())
        said = "" if n < parts else f"{1e3 * simulated:20.2f} {simulated / seconds - 1:+.0%}"
        print(
            f"   {n:5d} {parts:6d} {1e3 * median(clocks[kind]):12.2f} {1e3 * seconds:15.2f} {1e3 * exchange:17.2f} "
            f"{ratios[0]:23.2f} {ratios[1]:15.2f}{said}"
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
