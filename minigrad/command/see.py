"""A gallery of a trained model, or of four cells that learn a text: open index.html in its folder.

A model is an ONNX file, as PyTorch and Keras export it; its RNN, LSTM and GRU are seen with their gates.  Without
--input and --target it reads random numbers, and the sum of its output is differentiated.

    minigrad see model.onnx
    minigrad see model.onnx --input x.npz --target y.npz --out gallery
    minigrad see model.onnx --input x.npz --step 40 --unit 3         what the 4th unit of the output of step 40 depends on
    minigrad see book.txt --steps 500 --hidden 32
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import see_text
from .given import UsageError, add_out

MODEL = ".onnx"
OF_MODELS = {
    "input": None,
    "target": None,
    "loss": None,
    "output": None,
    "step": None,
    "unit": None,
    "length": 12,
    "png": False,
}
LOSSES = ("cross_entropy", "nll", "binary_cross_entropy", "mse", "mae", "huber")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help=f"a model, which ends in {MODEL}, or a UTF-8 text file"
    )
    add_out(parser, "out/gallery")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    model = parser.add_argument_group("of a model")
    model.add_argument(
        "--input", type=Path, metavar="FILE", help="its inputs by name, .npz, or the only one, .npy"
    )
    model.add_argument("--target", type=Path, metavar="FILE", help="what its output should be, .npz or .npy")
    model.add_argument(
        "--loss", choices=LOSSES, metavar="LOSS",
        help=f"between output and target: {', '.join(LOSSES)} (default: by the target's type)",
    )  # fmt: skip
    model.add_argument(
        "--output", metavar="NAME", help="the output that is differentiated (default: the first)"
    )
    model.add_argument("--step", type=int, metavar="T", help="only of the output of this step, from 1")
    model.add_argument("--unit", type=int, metavar="K", help="only of this unit of the output, from 0")
    model.add_argument("--length", type=int, default=12, help="steps of random inputs (default: 12)")
    model.add_argument(
        "--png", action="store_true", help="PNG beside SVG, as a text's gallery has, in twice the time"
    )
    see_text.add_options(parser.add_argument_group("of a text"))


def main(options: argparse.Namespace) -> None:
    is_model = options.file.suffix.lower() == MODEL
    strange = {name: default for name, (default, _) in see_text.OPTIONS.items()} if is_model else OF_MODELS
    given = [f"--{name}" for name, default in strange.items() if getattr(options, name) != default]
    if given:
        what = "a text" if is_model else f"a model, and those end in {MODEL}"
        raise UsageError(f"{options.file}: {', '.join(given)} is of {what}")
    if is_model:
        from . import see_model

        see_model.main(options)
    else:
        options.text = options.file
        see_text.main(options)
