"""A character model trained compiled, beside the same model in PyTorch with nn.LSTM: characters a second, held-out loss.

Both start from the same weights, read the same windows, use the same Adam (PyTorch's is the fused one) and the
same clipping; training steps take turns in one process, one thread.

    python benchmarks/characters.py --text book.txt [--steps 300] [--hidden 128] [--window 100] [--batch 32] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import compiled

compiled.settle_threads(1)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import cells  # noqa: E402
import minigrad as mg  # noqa: E402
from minigrad.command import train as char_rnn  # noqa: E402


class Theirs(torch.nn.Module):
    """nn.LSTM and a linear layer, with the weights of ours."""

    def __init__(self, model: char_rnn.Model):
        super().__init__()
        (cell,) = model.stack.cells
        self.classes = model.classes
        self.lstm, self.output = (
            torch.nn.LSTM(model.classes, cell.hidden),
            torch.nn.Linear(cell.hidden, model.classes),
        )
        weights = cells.exchange.to_pytorch(model.stack)
        self.lstm.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
        with torch.no_grad():
            self.output.weight.copy_(torch.tensor(model.output.W_y.value.T))
            self.output.bias.copy_(torch.tensor(model.output.b_y.value))
        # PyTorch keeps two biases, of which ours is the sum: only one of them learns here.
        self.lstm.bias_hh_l0.requires_grad_(False)

    def loss(self, x, targets, state):
        h, state = self.lstm(torch.nn.functional.one_hot(x, self.classes).float(), state)
        logits = self.output(h)
        nats = torch.nn.functional.cross_entropy(logits.reshape(-1, self.classes), targets.reshape(-1))
        return nats, tuple(s.detach() for s in state)


def measure(options: argparse.Namespace) -> dict:
    torch.set_num_threads(1)
    text = options.text.read_text(encoding="utf-8")
    alphabet = cells.Alphabet(text)
    codes = alphabet.encode(text)
    cut = int(len(codes) * (1 - char_rnn.HELD_OUT))
    columns, held_out = char_rnn.streams(codes[:cut], options.batch), codes[cut : cut + 20_000]
    model = char_rnn.Model("lstm", len(alphabet), options.hidden, 1, np.random.default_rng(0))
    theirs = Theirs(model)
    loss = mg.compile(model.loss)
    step = mg.training_step(loss, mg.optim.Adam(model.parameters(), lr=3e-3), clip=5.0)
    learned = [p for p in theirs.parameters() if p.requires_grad]
    their_adam = torch.optim.Adam(learned, lr=3e-3, fused=True)
    state = model.stack.initial_state(options.batch)
    their_state, seconds = tuple(torch.zeros(1, options.batch, options.hidden) for _ in range(2)), ([], [])
    at = 0
    for _ in range(options.steps):
        if at + options.window + 1 > len(columns):
            at, state = 0, model.stack.initial_state(options.batch)
            their_state = tuple(torch.zeros_like(s) for s in their_state)
        part = np.ascontiguousarray(columns[at : at + options.window + 1])
        at += options.window
        start = time.perf_counter()
        _, *state = step(part[:-1], part[1:], *state)
        middle = time.perf_counter()
        x = torch.tensor(part)
        their_adam.zero_grad()
        nats, their_state = theirs.loss(x[:-1], x[1:], their_state)
        nats.backward()
        torch.nn.utils.clip_grad_norm_(learned, 5.0)
        their_adam.step()
        seconds[0].append(middle - start)
        seconds[1].append(time.perf_counter() - middle)
    ours, other = (statistics.median(s[1:]) for s in seconds)
    characters = options.window * options.batch
    with torch.no_grad():
        x = torch.tensor(held_out)[:, None]
        their_bits = theirs.loss(x[:-1], x[1:], tuple(torch.zeros(1, 1, options.hidden) for _ in range(2)))[0]
    return {
        "characters a second": characters / ours, "PyTorch": characters / other, "ratio": other / ours,
        "held-out bits": char_rnn.bits_held_out(loss, model, held_out, options.window),
        "held-out bits, PyTorch": float(their_bits) / math.log(2), "steps": options.steps,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--text", type=Path, default=compiled.ROOT / "examples" / "carroll.txt")
    for name, value in {"steps": 300, "hidden": 128, "window": 100, "batch": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    record = measure(options)
    if options.json:
        print(json.dumps(record, indent=2))
    else:
        compiled.show([record])


if __name__ == "__main__":
    main()
