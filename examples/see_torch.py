"""Why does my classifier not learn?  A PyTorch LSTM is brought over, and the fault is seen in its gradient.

The task: sequences of noise, the class is the sign of the FIRST number.  The model reads well, and its loss stays at
that of a coin.  Somebody has set the bias of its forget gates to −3 where +3 was meant: the pictures show that c keeps
nothing from step to step, by which gate, and what the same model does when that is mended.  Needs PyTorch and `onnx`.

    python examples/see_torch.py --out pictures
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import cells
import minigrad as mg
import viz
from minigrad.command.given import add_language

T, N, H = 12, 64, 16


def classifier(torch, forget: float):
    """nn.LSTM and a linear layer on its last output; `forget` is what its forget gates' bias starts from."""

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.output = torch.nn.LSTM(1, H), torch.nn.Linear(H, 2)
            with torch.no_grad():
                self.rnn.bias_ih_l0[H : 2 * H] = forget  # PyTorch's order of gates: i, f, g, o

        def forward(self, x):
            h, _ = self.rnn(x)
            return self.output(h[-1])

    torch.manual_seed(0)
    return Classifier()


def draw(rng: np.random.Generator, sequences: int = N) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((T, sequences, 1)).astype("float32")
    return x, (x[0, :, 0] > 0).astype(np.int64)


def train(torch, model, rng: np.random.Generator, steps: int) -> float:
    """As one does it in PyTorch; returns the share of sequences that are told right in the end."""
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        x, target = map(torch.from_numpy, draw(rng))
        adam.zero_grad()
        torch.nn.functional.cross_entropy(model(x), target).backward()
        adam.step()
    x, target = draw(rng, 1000)
    with torch.no_grad():
        return float((model(torch.from_numpy(x)).argmax(1).numpy() == target).mean())


def see(torch, model, rng: np.random.Generator, out: Path) -> mg.Tensor:
    """The model as a layer of ours, its gradient, and what the report says of it; returns the loss that was looked at."""
    x, target = draw(rng, 4)
    network = cells.from_torch(model, torch.from_numpy(x))
    loss = mg.cross_entropy(network(x), target).named("L")
    loss.backward(record=True)
    print(viz.report(loss))
    viz.gradient(loss, title="The gradient of h and c, back from the last step").save(out / "gradient.svg")
    viz.gates(loss).save(out / "gates.svg")
    return loss


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/see_torch"),
        help="folder for the pictures (default: out/see_torch)",
    )
    parser.add_argument("--steps", type=int, default=300, help="training steps of each model")
    add_language(parser)
    options = parser.parse_args(given)
    viz.language(options.language)
    try:
        import torch
    except ImportError:
        print("see_torch needs PyTorch: pip install torch; nothing was drawn")
        return 0
    losses = {}
    for name, forget in {"fault": -3.0, "mended": 3.0}.items():
        rng, model = np.random.default_rng(0), classifier(torch, forget)
        right = train(torch, model, rng, options.steps)
        print(f"\n{name}: bias of the forget gates {forget:+g}, {right:.0%} of 1,000 sequences right\n")
        try:
            losses[f"forget bias {forget:+g}"] = see(torch, model, rng, options.out / name)
        except mg.MinigradError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    both = viz.compare(
        losses, title="What the loss sends back to the first number, with the fault and without"
    )
    for kind in ("svg", "png"):
        both.save(options.out / f"compare.{kind}")
    print(f"pictures: {options.out.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
