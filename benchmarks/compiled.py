"""The compiled scan against its peers: PyTorch's fused layers, PyTorch operation by operation, and JAX.

One layer over a whole sequence, float32, forward and backward with the gradients of
the input and of every weight, every program in this one process, turn by turn, with
the machine's peak beside it.  All peers compute the same thing, which is checked first.

    python benchmarks/compiled.py [--cases hello char mid large long] [--threads 1 2] [--json]
    python benchmarks/compiled.py --growth      how time grows with T, N and H, and the first step's time
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from peak import peak_gflops  # noqa: E402

CASES = {  # T, N, D, H
    "hello": (4, 1, 4, 8),
    "char": (25, 1, 65, 100),
    "mid": (100, 32, 64, 128),
    "large": (128, 64, 256, 512),
    "long": (1000, 8, 32, 64),
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def settle_threads(threads: int) -> None:
    """Before NumPy, PyTorch and JAX are imported: they read it once."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # for the children of this process too


# The cells, each once, and for PyTorch and JAX as the same equations in their own words.


def own_cells() -> dict:
    import cells
    from minigrad import concat, sigmoid, tanh

    class Coupled(cells.Cell):
        """A cell that only exists here: the forget gate decides the input gate, and the output gate sees tanh(c)."""

        gates, state = "f c_tilde o", "h c"

        def build(self, rng):
            from minigrad.init import orthogonal

            for gate in "fco":
                self.gate_parameters(gate, rng)
            self.parameter("U_o", orthogonal(rng, (self.hidden, self.hidden)))

        def step(self, x, h_prev, c_prev):
            hx = concat(h_prev, x)
            f = sigmoid(hx @ self.W_f + self.b_f)
            c_tilde = tanh(hx @ self.W_c + self.b_c)
            c = f * c_prev + (1 - f) * c_tilde
            q = tanh(c)
            o = sigmoid(hx @ self.W_o + q @ self.U_o + self.b_o)
            return dict(f=f, c_tilde=c_tilde, c=c, q=q, o=o, h=o * q)

    return {"LSTM": cells.LSTM, "RNN": cells.RNN, "own cell": Coupled}


def equations(name: str, w: dict, concat, sigmoid, tanh) -> Callable:
    """One step (x, state) → state in the words of another library."""

    def lstm(x, h, c):
        hx = concat(h, x)
        f, i = sigmoid(hx @ w["W_f"] + w["b_f"]), sigmoid(hx @ w["W_i"] + w["b_i"])
        c = f * c + i * tanh(hx @ w["W_c"] + w["b_c"])
        return sigmoid(hx @ w["W_o"] + w["b_o"]) * tanh(c), c

    def rnn(x, h):
        return (tanh(concat(h, x) @ w["W_h"] + w["b_h"]),)

    def coupled(x, h, c):
        hx = concat(h, x)
        f = sigmoid(hx @ w["W_f"] + w["b_f"])
        c = f * c + (1 - f) * tanh(hx @ w["W_c"] + w["b_c"])
        q = tanh(c)
        return sigmoid(hx @ w["W_o"] + q @ w["U_o"] + w["b_o"]) * q, c

    return {"LSTM": lstm, "RNN": rnn, "own cell": coupled}[name]


def multiply_adds(name: str, T: int, N: int, D: int, H: int) -> int:
    """Floating-point operations of forward and backward: three products for every weight."""
    weights = {"LSTM": 4 * H * (D + H), "RNN": H * (D + H), "own cell": 3 * H * (D + H) + H * H}[name]
    return 3 * 2 * T * N * weights


# The programs: each returns (run, gradients as a dict of arrays).


def ours(cell, x, dy, threads: int):
    import minigrad as mg

    xs = mg.Tensor(x, requires_grad=True, name="x")
    weigh = mg.Tensor(dy, name="dy")
    step = mg.compile(lambda x, dy: (cell(x).h * dy).sum(), threads=threads)

    def go():
        return step.value_and_grad(xs, weigh)

    def gradients():
        found = go()[1]
        return {"x": found[xs], **{name: found[p] for name, p in cell.parameters().items()}}

    return go, gradients


def torch_fused(name: str, cell, x, dy):
    """nn.LSTM and nn.RNN, with the same weights; None for a cell that nobody has a kernel for."""
    import numpy as np
    import torch

    order = {"LSTM": "ifco", "RNN": "h"}.get(name)
    if order is None:
        return None
    layer = {"LSTM": torch.nn.LSTM, "RNN": torch.nn.RNN}[name](cell.inputs, cell.hidden)
    parameters, H = cell.parameters(), cell.hidden
    W = np.concatenate([parameters[f"W_{g}"].value for g in order], 1)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.tensor(W[:H].T))
        layer.weight_ih_l0.copy_(torch.tensor(W[H:].T))
        layer.bias_ih_l0.copy_(torch.tensor(np.concatenate([parameters[f"b_{g}"].value for g in order])))
        layer.bias_hh_l0.zero_()
    xs, weigh = torch.tensor(x, requires_grad=True), torch.tensor(dy)

    def go():
        layer.zero_grad()
        xs.grad = None
        (layer(xs)[0] * weigh).sum().backward()

    def gradients():
        go()
        return {"x": xs.grad.numpy()}

    return go, gradients


def torch_by_operation(name: str, cell, x, dy):
    import torch

    w = {n: torch.tensor(p.value, requires_grad=True) for n, p in cell.parameters().items()}
    xs, weigh = torch.tensor(x, requires_grad=True), torch.tensor(dy)
    step = equations(name, w, lambda h, x: torch.cat((h, x), -1), torch.sigmoid, torch.tanh)

    def go():
        xs.grad = None
        for p in w.values():
            p.grad = None
        state, outs = (torch.zeros(x.shape[1], cell.hidden),) * len(cell.state.split()), []
        for x_t in xs:
            state = step(x_t, *state)
            outs.append(state[0])
        (torch.stack(outs) * weigh).sum().backward()

    def gradients():
        go()
        return {"x": xs.grad.numpy(), **{n: p.grad.numpy() for n, p in w.items()}}

    return go, gradients


def jax_scan(name: str, cell, x, dy):
    import jax
    import jax.numpy as jnp

    weights = {n: jnp.array(p.value) for n, p in cell.parameters().items()}
    states = len(cell.state.split())

    def loss(w, x):
        step = equations(name, w, lambda h, x: jnp.concatenate((h, x), -1), jax.nn.sigmoid, jnp.tanh)

        def body(state, x):
            state = step(x, *state)
            return state, state[0]

        first = (jnp.zeros((x.shape[1], cell.hidden)),) * states
        return (jax.lax.scan(body, first, x)[1] * dy).sum()

    compiled, xs = jax.jit(jax.value_and_grad(loss, (0, 1))), jnp.array(x)

    def go():
        return jax.block_until_ready(compiled(weights, xs))

    def gradients():
        import numpy as np

        dw, dx = go()[1]
        return {"x": np.asarray(dx), **{n: np.asarray(g) for n, g in dw.items()}}

    return go, gradients


def available(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def medians(runs: list[Callable], budget: float) -> list[float]:
    """Seconds a run; the programs take turns, so that a busy machine slows all of them."""
    once = []
    for run in runs:
        run()
        start = time.perf_counter()
        run()
        once.append(time.perf_counter() - start)
    # Quick programs run several times a turn: the clock and the first miss of the cache should not be what is measured.
    times = [max(1, min(50, int(0.002 / t))) for t in once]
    turns = max(5, min(200, int(budget / sum(n * t for n, t in zip(times, once, strict=True)))))
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(turns):
        for run, n, seconds in zip(runs, times, found, strict=True):
            start = time.perf_counter()
            for _ in range(n):
                run()
            seconds.append((time.perf_counter() - start) / n)
    return [statistics.median(f) for f in found]


def measure(name: str, case: str, threads: int, budget: float) -> dict:
    """One row: our milliseconds and how many times as long each peer takes."""
    import numpy as np

    T, N, D, H = CASES[case]
    rng = np.random.default_rng(0)
    cell = own_cells()[name](D, H, rng)
    x, dy = (rng.standard_normal(s).astype("float32") for s in ((T, N, D), (T, N, H)))
    programs = {"minigrad": ours(cell, x, dy, threads)}
    if available("torch"):
        import torch

        torch.set_num_threads(threads)
        programs |= {
            "fused": torch_fused(name, cell, x, dy),
            "by operation": torch_by_operation(name, cell, x, dy),
        }
    if available("jax"):
        programs["JAX"] = jax_scan(name, cell, x, dy)
    programs = {k: p for k, p in programs.items() if p is not None}
    reference = programs["minigrad"][1]()
    for peer, (_, gradients) in programs.items():
        for key, g in gradients().items():
            worst = np.abs(g - reference[key]).max() / np.abs(reference[key]).max()
            assert worst < 1e-4, f"{peer}: the gradient of {key} differs by {worst:.1g}"
    seconds = dict(zip(programs, medians([p[0] for p in programs.values()], budget), strict=True))
    mine = seconds.pop("minigrad")
    return {
        "cell": name, "case": case, "T, N, D, H": f"{T}, {N}, {D}, {H}", "threads": threads, "ms": 1e3 * mine,
        "GFLOP/s": multiply_adds(name, T, N, D, H) / mine / 1e9, **{peer: s / mine for peer, s in seconds.items()},
    }  # fmt: skip


def rows(rounds: int = 300, threads: tuple[int, ...] = (1, 2), cases=tuple(CASES)) -> list[dict]:
    """All rows, each number of threads in a process of its own."""
    found = []
    for n in threads:
        command = [
            sys.executable,
            __file__,
            "--one",
            str(n),
            "--cases",
            *cases,
            "--budget",
            str(rounds / 100),
        ]
        out = subprocess.run(command, capture_output=True, text=True)
        if out.returncode:
            raise RuntimeError(out.stderr)
        found += json.loads(out.stdout.splitlines()[-1])
    return found


# How it grows, and how it starts.

FIRST_STEP = """
import time, sys
sys.path[:0] = [{root!r}]
import numpy as np
import minigrad as mg, cells
import minigrad.compiler
rng = np.random.default_rng(0)
cell, out = cells.LSTM(65, 128, rng), cells.Output(128, 65, rng)
step = mg.compile(lambda x, y: mg.cross_entropy(cell(mg.one_hot(x, 65), output=out).y, y))
x = rng.integers(0, 65, (100, 32))
start = time.perf_counter()
step.value_and_grad(x, x)
print(time.perf_counter() - start)
"""


def first_step() -> list[dict]:
    """Seconds from the imports to the end of the first training step, with an empty and with a full cache."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"MINIGRAD_CACHE": folder, "NUMBA_CACHE_DIR": folder + "/numba"}
        command = [sys.executable, "-c", FIRST_STEP.format(root=str(ROOT))]
        seconds = [
            float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
            for _ in range(4)
        ]
    return [
        {"what": "first step, cold cache", "s": seconds[0]},
        {"what": "first step, warm cache", "s": statistics.median(seconds[1:])},
    ]


def growth() -> list[dict]:
    """Nanoseconds per step, sequence and weight."""
    import numpy as np

    found = []
    for what, sizes in {
        "T": [(T, 8, 32, 64) for T in (10, 100, 1000, 10_000)],
        "N": [(50, N, 32, 64) for N in (1, 8, 64, 256)],
        "H": [(50, 16, 32, H) for H in (16, 64, 256, 1024)],
    }.items():
        for T, N, D, H in sizes:
            rng = np.random.default_rng(0)
            cell = own_cells()["LSTM"](D, H, rng)
            x, dy = (rng.standard_normal(s).astype("float32") for s in ((T, N, D), (T, N, H)))
            (seconds,) = medians([ours(cell, x, dy, 1)[0]], 2.0)
            found.append(
                {"what": what, "T": T, "N": N, "H": H, "ms": 1e3 * seconds, "µs a step": 1e6 * seconds / T}
            )
    return found


def show(records: list[dict]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns = list(dict.fromkeys(key for r in records for key in r))
    titles = {"fused": "nn.LSTM/RNN", "by operation": "PyTorch by op", "JAX": "JAX jit(scan)"}
    table = Table(*(titles.get(c, c) for c in columns), box=box.SIMPLE)
    for r in records:
        table.add_row(*(f"{r[c]:.3g}" if isinstance(r.get(c), float) else str(r.get(c, "")) for c in columns))
    Console(width=130).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each row")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        settle_threads(options.one)
        names = ("LSTM", "RNN", "own cell")
        print(json.dumps([measure(n, c, options.one, options.budget) for n in names for c in options.cases]))
        return
    if options.growth:
        settle_threads(1)
    records = (
        first_step() + growth()
        if options.growth
        else rows(int(100 * options.budget), tuple(options.threads), options.cases)
    )
    if options.json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    print(
        f"peak of one core: {peak_gflops():.0f} GFLOP/s (float32); ratios: how many times as long the peer takes"
    )
    show(records)


if __name__ == "__main__":
    main()
