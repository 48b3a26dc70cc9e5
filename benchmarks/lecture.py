"""Every cell's time per floating-point operation beside the LSTM's, and GRU, TCN and Transformer against PyTorch.

One thread, float32, forward and backward with the gradients of the input and of every
weight, in one process, turn by turn.  What PyTorch computes is compared first.

    python benchmarks/lecture.py [--cases char mid large long] [--only cells gru tcn transformer] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if str(Path(__file__).resolve().parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from compiled import CASES, medians, ours, settle_threads, show
from peak import peak_gflops

TCN_SIZES = dict(T=400, N=32, D=2, hidden=25, levels=8, taps=7)
TRANSFORMER_SIZES = dict(T=128, N=16, width=128, heads=4)


def cell_and_data(kind: type, case: str):
    import numpy as np

    T, N, D, H = CASES[case]
    rng = np.random.default_rng(0)
    cell = kind(D, H, rng)
    x, dy = (rng.standard_normal((T, N, width)).astype("float32") for width in (D, cell.width))
    return cell, x, dy


def operations(cell, T: int, N: int) -> int:
    """Floating-point operations of forward and backward: three products for every weight of a matrix."""
    return 3 * 2 * T * N * sum(p.size for p in cell.parameters().values() if p.ndim == 2)


def cells_beside_the_lstm(cases: list[str], budget: float) -> list[dict]:
    """Time per operation as a multiple of the LSTM's, which takes its turn beside each."""
    from cells import CELLS

    found = []
    for case in cases:
        T, N, D, H = CASES[case]
        lstm, x, dy = cell_and_data(CELLS["lstm"], case)
        reference = ours(lstm, x, dy, 1)[0]
        for name, kind in CELLS.items():
            if name == "lstm":
                continue
            cell, x, dy = cell_and_data(kind, case)
            mine, lstms = medians([ours(cell, x, dy, 1)[0], reference], budget)
            per = mine / operations(cell, T, N) / (lstms / operations(lstm, T, N))
            found.append({
                "cell": name, "case": case, "T, N, D, H": f"{T}, {N}, {D}, {H}", "ms": 1e3 * mine,
                "GFLOP/s": operations(cell, T, N) / mine / 1e9, "time per operation, LSTM = 1": per,
            })  # fmt: skip
    return found


def gru_against_torch(cases: list[str], budget: float) -> list[dict]:
    """Both GRUs of ours beside nn.GRU, which computes what the one with the reset after the product does."""
    import numpy as np
    import torch

    import cells

    found = []
    for case in cases:
        after, x, dy = cell_and_data(cells.ResetAfterGRU, case)
        layer = torch.nn.GRU(after.inputs, after.hidden)
        state = cells.exchange.to_pytorch(after)
        layer.load_state_dict({name: torch.tensor(np.ascontiguousarray(w)) for name, w in state.items()})
        xs, weigh = torch.tensor(x, requires_grad=True), torch.tensor(dy)

        def theirs(layer=layer, xs=xs, weigh=weigh):
            layer.zero_grad()
            xs.grad = None
            (layer(xs)[0] * weigh).sum().backward()

        theirs()
        run, gradients = ours(after, x, dy, 1)
        alike("nn.GRU", gradients()["x"], xs.grad.numpy())
        slide, x, dy = cell_and_data(cells.GRU, case)
        mine, other, torchs = medians([run, ours(slide, x, dy, 1)[0], theirs], budget)
        for name, seconds in (("gru_reset_after", mine), ("gru", other)):
            found.append({"cell": name, "case": case, "ms": 1e3 * seconds, "nn.GRU": torchs / seconds})
    return found


def alike(peer: str, a, b) -> None:
    """By norm: where a sum that goes into a ReLU is 0 but for rounding, single numbers may differ by more."""
    apart = ((a - b) ** 2).sum() ** 0.5 / (b**2).sum() ** 0.5
    assert apart < 1e-3, f"{peer}: the gradient of x differs by {apart:.1g}"


def against_torch(name: str, outputs, module, x, dy, budget: float) -> dict:
    """One of our layers over a sequence beside a PyTorch module of the same weights."""
    import torch

    import minigrad as mg

    xs, weigh = mg.Tensor(x, requires_grad=True, name="x"), mg.Tensor(dy)
    step = mg.compile(lambda x, dy: (outputs(x) * dy).sum())
    xt, dyt = torch.tensor(x, requires_grad=True), torch.tensor(dy)

    def theirs():
        module.zero_grad()
        xt.grad = None
        (module(xt) * dyt).sum().backward()

    def mine():
        return step.value_and_grad(xs, weigh)

    theirs()
    alike(name, mine()[1][xs], xt.grad.numpy())
    seconds, torchs = medians([mine, theirs], budget)
    return {"network": name, "ms": 1e3 * seconds, "PyTorch, ms": 1e3 * torchs, "PyTorch": torchs / seconds}


def tcn_against_torch(budget: float) -> dict:
    import numpy as np
    import torch
    from torch.nn.utils.parametrizations import weight_norm

    import cells

    T, N, D, hidden, levels, taps = TCN_SIZES.values()
    rng = np.random.default_rng(0)
    tcn = cells.TCN(D, hidden, levels, taps, rng)

    class Block(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.reach = (taps - 1) * block.dilation
            self.convolutions = torch.nn.ModuleList()
            for k, width in ((1, block.inputs), (2, hidden)):
                layer = weight_norm(torch.nn.Conv1d(width, hidden, taps, dilation=block.dilation))
                v, g, b = (torch.tensor(getattr(block, f"{n}_{k}").value) for n in "vgb")
                layer.parametrizations.weight.original1.data = v.permute(2, 1, 0).contiguous()
                layer.parametrizations.weight.original0.data = g.reshape(-1, 1, 1)
                layer.bias.data = b
                self.convolutions.append(layer)
            self.around = None
            if block.inputs != hidden:
                self.around = torch.nn.Conv1d(block.inputs, hidden, 1)
                self.around.weight.data = torch.tensor(block.W_s.value.T[:, :, None].copy())
                self.around.bias.data = torch.tensor(block.b_s.value)

        def forward(self, x):
            y = x
            for layer in self.convolutions:
                y = torch.relu(layer(torch.nn.functional.pad(y, (self.reach, 0))))
            return torch.relu(y + (x if self.around is None else self.around(x)))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.Sequential(*map(Block, tcn.blocks))

        def forward(self, x):  # to PyTorch's (N, channels, T) and back
            return self.blocks(x.permute(1, 2, 0)).permute(2, 0, 1)

    x, dy = (rng.standard_normal(s).astype("float32") for s in ((T, N, D), (T, N, hidden)))
    return against_torch("TCN", lambda x: tcn(x).outputs, Net(), x, dy, budget)


def transformer_against_torch(budget: float) -> dict:
    import numpy as np
    import torch

    import minigrad as mg
    from cells.transformer import TransformerBlock

    T, N, width, heads = TRANSFORMER_SIZES.values()
    rng = np.random.default_rng(0)
    block = TransformerBlock(width, heads, rng)
    module = torch.nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, norm_first=True)
    a, w = block.attention, {n: torch.tensor(p.value) for n, p in block.parameters().items()}
    state = {
        "self_attn.in_proj_weight": torch.cat([w[f"attention.W_{n}"].T for n in "qkv"]),
        "self_attn.in_proj_bias": torch.cat([w[f"attention.b_{n}"] for n in "qkv"]),
        "self_attn.out_proj.weight": w["attention.W_o"].T, "self_attn.out_proj.bias": w["attention.b_o"],
        "linear1.weight": w["W_1"].T, "linear1.bias": w["b_1"], "linear2.weight": w["W_2"].T, "linear2.bias": w["b_2"],
        "norm1.weight": w["g_a"], "norm1.bias": w["b_a"], "norm2.weight": w["g_f"], "norm2.bias": w["b_f"],
    }  # fmt: skip
    module.load_state_dict(state)
    future = ~torch.tril(torch.ones(T, T, dtype=torch.bool))

    class Causal(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = module

        def forward(self, x):
            return self.layer(x, src_mask=future)

    assert a.heads == heads
    visible = mg.Tensor(np.tril(np.ones((T, T), bool)))
    x, dy = (rng.standard_normal((T, N, width)).astype("float32") for _ in range(2))
    return against_torch("Transformer block", lambda x: block(x, visible), Causal(), x, dy, budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["char", "mid", "large", "long"])
    parts = ["cells", "gru", "tcn", "transformer"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each row")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settle_threads(1)
    if set(options.only) != {"cells"}:
        import torch

        torch.set_num_threads(1)
    tables = []
    if "cells" in options.only:
        tables.append(cells_beside_the_lstm(options.cases, options.budget))
    if "gru" in options.only:
        tables.append(gru_against_torch(options.cases, options.budget))
    networks = {"tcn": tcn_against_torch, "transformer": transformer_against_torch}
    networks = [measure(options.budget) for name, measure in networks.items() if name in options.only]
    tables += [networks] if networks else []
    if options.json:
        print(json.dumps([row for table in tables for row in table], indent=2, ensure_ascii=False))
        return
    print(
        f"peak of one core: {peak_gflops():.0f} GFLOP/s (float32); PyTorch's columns: how many times as long it takes"
    )
    for table in tables:
        show(table)


if __name__ == "__main__":
    main()
