"""The eager engine against PyTorch: an LSTM's step equations, operation by operation, one thread, forward
and backward with all gradients. Both run in this one process, turn by turn, so that a busy machine slows
both; given are medians and their ratio. The last row is what `import minigrad` costs beyond NumPy.

    python benchmarks/eager.py [--json] [--rounds 300]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before NumPy is imported, which reads it once

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from cells import LSTM  # noqa: E402
from minigrad import Tensor  # noqa: E402

try:
    import torch
except ImportError:
    torch = None

CASES = {"hello": (4, 1, 4, 8), "characters": (25, 1, 65, 100)}  # T, N, D, H
GATES = "fico"


def ours(cell: LSTM, xs: np.ndarray, weigh: np.ndarray) -> Callable[[], dict]:
    """One forward and backward pass in minigrad; returns all gradients by name."""
    parameters = cell.parameters()
    inputs, factors = [Tensor(x) for x in xs], [Tensor(w) for w in weigh]

    def run() -> dict:
        for p in parameters.values():
            p.grad = None
        h, c = cell.initial_state(xs.shape[1])
        loss = None
        for x, factor in zip(inputs, factors, strict=True):
            quantities = cell.step(x, h, c)
            h, c = quantities["h"], quantities["c"]
            part = (h * factor).sum()
            loss = part if loss is None else loss + part
        loss.backward()
        return {name: p.grad for name, p in parameters.items()}

    return run


def theirs(cell: LSTM, xs: np.ndarray, weigh: np.ndarray) -> Callable[[], dict]:
    """The same equations in PyTorch, with the same weights."""
    weights = {name: torch.tensor(p.value, requires_grad=True) for name, p in cell.parameters().items()}
    W_f, W_i, W_c, W_o = (weights[f"W_{g}"] for g in GATES)
    b_f, b_i, b_c, b_o = (weights[f"b_{g}"] for g in GATES)
    inputs, factors = list(torch.tensor(xs)), list(torch.tensor(weigh))
    sigmoid, tanh, cat = torch.sigmoid, torch.tanh, torch.cat

    def run() -> dict:
        for w in weights.values():
            w.grad = None
        h = c = torch.zeros(xs.shape[1], cell.hidden)
        loss = None
        for x, factor in zip(inputs, factors, strict=True):
            hx = cat((h, x), 1)
            f = sigmoid(hx @ W_f + b_f)
            i = sigmoid(hx @ W_i + b_i)
            c_tilde = tanh(hx @ W_c + b_c)
            c = f * c + i * c_tilde
            o = sigmoid(hx @ W_o + b_o)
            h = o * tanh(c)
            part = (h * factor).sum()
            loss = part if loss is None else loss + part
        loss.backward()
        return {name: w.grad for name, w in weights.items()}

    return run


def medians(runs: list[Callable], rounds: int, warm_up: int = 20) -> list[float]:
    """Seconds a run, the runs taking turns."""
    for _ in range(warm_up):
        for run in runs:
            run()
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, found in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in seconds]


def import_seconds(repeats: int = 7) -> float:
    """What `import minigrad` takes in a fresh interpreter that has imported NumPy."""
    program = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); import numpy; start = time.perf_counter(); "
        "import minigrad; print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", program]
    found = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats + 1)
    ]
    return statistics.median(found[1:])  # the first may compile the files


def rows(rounds: int = 300) -> list[dict]:
    """What was measured: one record a case, times in microseconds."""
    if torch is not None:
        torch.set_num_threads(1)
    found = []
    for name, (T, N, D, H) in CASES.items():
        rng = np.random.default_rng(0)
        cell = LSTM(D, H, rng)
        data = [rng.standard_normal(shape).astype("float32") for shape in ((T, N, D), (T, N, H))]
        runs = [make(cell, *data) for make in ((ours, theirs) if torch is not None else (ours,))]
        if torch is not None:
            check_same(*(run() for run in runs))
        mine, *other = (1e6 * seconds for seconds in medians(runs, max(20, rounds // (1 if T < 10 else 3))))
        record = {"case": f"LSTM eager, {name}: T={T} N={N} D={D} H={H}", "ours": mine, "unit": "µs"}
        if other:
            record |= {"peer": f"PyTorch {torch.__version__}", "theirs": other[0], "ratio": other[0] / mine}
        found.append(record)
    found.append({"case": "import minigrad beyond NumPy", "ours": 1e6 * import_seconds(), "unit": "µs"})
    return found


def check_same(mine: dict, other: dict) -> None:
    """A comparison of two programs that compute different things would be worth nothing."""
    for name, gradient in mine.items():
        expected = other[name].numpy()
        worst = abs(gradient - expected).max() / max(1.0, abs(expected).max())
        if not worst <= 1e-4:
            raise AssertionError(f"the gradient of {name} differs from PyTorch's by {worst:.2g}")


def show(records: list[dict]) -> None:
    """A table, by rich where it is installed."""
    header = ["case", "minigrad", "peer", "peer's time", "times faster"]
    table = []
    for r in records:
        time_of = lambda key, r=r: f"{r[key]:,.0f} {r['unit']}" if key in r else ""  # noqa: E731
        table.append(
            [
                r["case"],
                time_of("ours"),
                r.get("peer", ""),
                time_of("theirs"),
                f"{r['ratio']:.2f}" if "ratio" in r else "",
            ]
        )
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(header, *table, strict=True)]
        for line in (header, *table):
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    pretty = Table(*header, box=box.SIMPLE)
    for line in table:
        pretty.add_row(*line)
    console = Console()
    console.print(pretty) if console.is_terminal else Console(width=120).print(pretty)


def main(collect: Callable[[int], list[dict]] = rows) -> None:
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print the records as JSON in place of a table")
    parser.add_argument("--rounds", type=int, default=300, help="turns of each program in each case")
    options = parser.parse_args()
    records = collect(options.rounds)
    if options.json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    if torch is None:
        print("PyTorch is not installed, so only minigrad is measured (`make torch` installs it).")
    show(records)


if __name__ == "__main__":
    main()
