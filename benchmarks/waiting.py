"""How long somebody waits for the first step of a program: the compiler's time, beside JAX's jit of the same.

Every program runs in a process of its own, which says how long the first call took after the imports: with no cache
at all (the first program ever on a machine), with kernels known but not the program (a changed cell), and with the
program on disk.

    python benchmarks/waiting.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

START = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
rng = np.random.default_rng(0)
def timed(run):
    clock, processor = time.perf_counter(), time.process_time()
    run()
    print(time.perf_counter() - clock, time.process_time() - processor)
"""
OURS = """
import minigrad as mg, cells, minigrad.compiler
x, y = rng.integers(0, 65, (25, 8)), rng.integers(0, 65, (25, 8))
def gradients(loss, *arguments):
    step = mg.compile(loss)
    timed(lambda: step.value_and_grad(*arguments))
"""
LSTM = """
class Changed(cells.LSTM):
    def step(self, x, h, c):
        z = mg.concat(h, x)
        f = mg.sigmoid(z @ self.W_f + self.b_f + 1).named("f")  # the change
        i = mg.sigmoid(z @ self.W_i + self.b_i).named("i")
        c_tilde = mg.tanh(z @ self.W_c + self.b_c).named("c_tilde")
        o = mg.sigmoid(z @ self.W_o + self.b_o).named("o")
        c = (f * c + i * c_tilde).named("c")
        return dict(f=f, i=i, c_tilde=c_tilde, o=o, c=c, h=(o * mg.tanh(c)).named("h"))
cell, output = Changed(65, 100, rng), cells.Output(100, 65, rng)
gradients(lambda x, y: mg.cross_entropy(cell(mg.one_hot(x, 65), output=output).y, y), x, y)
"""
PROGRAMS = {
    "LSTM 65 → 100": LSTM,
    "TCN, 8 levels of 7 taps": """
tcn, output = cells.TCN(65, 25, 8, 7, rng), cells.Output(25, 65, rng)
gradients(lambda x, y: mg.cross_entropy(tcn(mg.one_hot(x, 65), output=output).y, y), x, y)
""",
    "Transformer block": """
from cells.transformer import TransformerBlock
block = TransformerBlock(64, 4, rng)
visible = mg.Tensor(np.tril(np.ones((25, 25), bool)))
gradients(lambda x: (block(x, visible) ** 2).mean(), rng.standard_normal((25, 8, 64)).astype("float32"))
""",
    "8 GRU steps in a Python loop": """
cell = cells.GRU(65, 100, rng)
def loss(x):
    h = mg.Tensor(np.zeros((8, 100), "float32"))
    for t in range(8):
        h = cell.step(x[t], h)["h"]
    return (h * h).sum()
gradients(loss, rng.standard_normal((8, 8, 65)).astype("float32"))
""",
}
OTHER = LSTM.replace("Changed(65", "cells.LSTM(65")  # makes the kernels known
JAX = """
import jax, jax.numpy as jnp
D, H = 65, 100
sizes = {**dict.fromkeys("fico", (H + D, H)), "W": (H, D)}
w = {name: rng.standard_normal(size).astype("float32") / 9 for name, size in sizes.items()}
w |= {"b" + name: np.zeros(size[1], "float32") for name, size in sizes.items()}
x, y = rng.integers(0, D, (25, 8)), rng.integers(0, D, (25, 8))
def loss(w, x, y):
    def step(state, x):
        h, c = state
        z = jnp.concatenate([h, x], 1)
        f, i, o = (jax.nn.sigmoid(z @ w[g] + w["b" + g] + (g == "f")) for g in "fio")
        c = f * c + i * jnp.tanh(z @ w["c"] + w["bc"])
        h = o * jnp.tanh(c)
        return (h, c), h
    start = jnp.zeros((x.shape[1], H)), jnp.zeros((x.shape[1], H))
    _, h = jax.lax.scan(step, start, jax.nn.one_hot(x, D))
    p = jax.nn.log_softmax(h @ w["W"] + w["bW"])
    return -jnp.take_along_axis(p, y[..., None], -1).mean()
go = jax.jit(jax.value_and_grad(loss))
jnp.zeros(1).block_until_ready()
timed(lambda: jax.block_until_ready(go(w, x, y)))
"""


def seconds(program: str, cache: str) -> tuple[float, float]:
    """Of the clock and of the processor, for the first call in a new process."""
    run = subprocess.run(
        [sys.executable, "-c", START + program], env=os.environ | {"MINIGRAD_CACHE": cache}, capture_output=True, text=True
    )  # fmt: skip
    if run.returncode:
        raise RuntimeError(run.stderr)
    clock, processor = map(float, run.stdout.split()[-2:])
    return clock, processor


def row(name: str, found: list[tuple[float, float]], peer: float | None = None) -> None:
    clock, processor = (statistics.median(part) for part in zip(*found, strict=True))
    beside = "" if peer is None else f"   {clock / peer:5.2f} × JAX's"
    print(f"{name:48} {clock:6.3f} s, processor {processor:6.3f} s{beside}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = range(parser.parse_args().rounds)
    first, known, disk, jax = [], {name: [] for name in PROGRAMS}, [], []
    for _ in rounds:
        with tempfile.TemporaryDirectory() as cache:
            first.append(seconds(OURS + LSTM, cache))
            disk.append(seconds(OURS + LSTM, cache))
        with tempfile.TemporaryDirectory() as cache:
            seconds(OURS + OTHER, cache)
            for name, program in PROGRAMS.items():
                known[name].append(seconds(OURS + program, cache))
        jax.append(seconds(JAX, ""))
    peer = statistics.median(clock for clock, _ in jax)
    row("the first program ever, LSTM 65 → 100", first)
    row("from disk, LSTM 65 → 100", disk)
    for name, found in known.items():
        row(f"kernels known, {name}", found, peer if name.startswith("LSTM") else None)
    row("JAX's jit, LSTM 65 → 100", jax)


if __name__ == "__main__":
    main()
