"""A whole training step: loss, gradients, clipping by norm and Adam, beside PyTorch's with its fused Adam.

One LSTM layer and an output layer, float32, one thread, both programs in this process, turn by turn.

    python benchmarks/training.py [--cases hello char mid]
"""

from __future__ import annotations

import argparse

from compiled import CASES, medians, settle_threads


def ours(T: int, N: int, D: int, H: int):
    import numpy as np

    import cells
    import minigrad as mg

    rng = np.random.default_rng(0)
    cell, output = cells.LSTM(D, H, rng), cells.Output(H, D, rng)
    x, targets = rng.standard_normal((T, N, D)).astype("float32"), rng.integers(0, D, (T, N))

    def loss(x, targets):
        return mg.cross_entropy(cell(x, output=output).y, targets)

    optimiser = mg.optim.Adam({**cell.parameters(), **output.parameters()}, 1e-3)
    step = mg.training_step(loss, optimiser, clip=1.0)
    return lambda: step(x, targets)


def torchs(T: int, N: int, D: int, H: int):
    import torch

    torch.set_num_threads(1)
    layer, output = torch.nn.LSTM(D, H), torch.nn.Linear(H, D)
    parameters = [*layer.parameters(), *output.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-3, fused=True)
    x, targets = torch.randn(T, N, D), torch.randint(0, D, (T * N,))

    def step():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(output(layer(x)[0]).reshape(T * N, D), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        return loss

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["hello", "char", "mid"])
    parser.add_argument("--budget", type=float, default=6.0, help="seconds for each row")
    options = parser.parse_args()
    settle_threads(1)
    for name in options.cases:
        mine, theirs = medians([ours(*CASES[name]), torchs(*CASES[name])], options.budget)
        print(
            f"{name:6s} {1e6 * mine:10.1f} µs, PyTorch with fused Adam {1e6 * theirs:10.1f} µs: {theirs / mine:.2f} ×"
        )


if __name__ == "__main__":
    main()
