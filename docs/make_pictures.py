"""Renders the pictures that README.md shows, into docs/pictures: `make pictures`."""

from __future__ import annotations

import importlib.util
import runpy
import shutil
import tempfile
from pathlib import Path

import numpy as np

import cells
import minigrad as mg
import viz
from minigrad.command.main import main as command

HERE = Path(__file__).resolve().parent


def compiled_lstm():
    rng = np.random.default_rng(0)
    cell, output = cells.LSTM(4, 8, rng), cells.Output(8, 4, rng)

    def loss(x, targets):
        return mg.cross_entropy(cell(x, output=output).y, targets).named("L")

    step = mg.compile(loss)
    step.value_and_grad(np.zeros((4, 1, 4), np.float32), np.zeros((4, 1), np.int64))
    return step


def temporal() -> viz.Picture:
    """What the last output of a temporal convolutional network sees, freshly made, before any training."""
    rng = np.random.default_rng(0)
    text = "what does this output see"
    letters = cells.Alphabet(text)
    network = cells.TCN(len(letters), 8, 3, 2, rng)
    output = cells.Output(8, len(letters), rng)
    h = network(mg.Tensor(letters.one_hot(text[:-1]), name="x")).outputs
    loss = mg.cross_entropy(output(h[-1]), letters.encode(text[-1])).named("L")
    loss.backward(record=True)
    captions = ["␣" if c == " " else c for c in text[:-1]]
    return viz.taps(loss, captions=captions, title="A temporal convolutional network: 3 levels, 2 taps each")


def attention(word: str = "backwards") -> viz.Picture:
    """A decoder that learned to write words backwards: where it looks."""
    rng = np.random.default_rng(0)
    letters = cells.Alphabet("abcdefghijklmnopqrstuvwxyz")
    K, H = len(letters), 32
    encoder = cells.Bidirectional(cells.GRU, K, H, rng)
    decoder = cells.AttentionDecoder(cells.GRU, K, H, encoder.width, rng)
    output = cells.Output(H, K, rng)
    layers = {"encoder": encoder, "decoder": decoder, "output": output}
    parameters = {
        f"{part}.{name}": p for part, layer in layers.items() for name, p in layer.parameters().items()
    }

    def loss(x, given, targets):
        return mg.cross_entropy(decoder.over(encoder(x).outputs)(given, output=output).y, targets).named("L")

    def batch(codes):  # what the decoder reads is what it should have written before
        rows, targets = np.eye(K, dtype=np.float32), codes[::-1]
        return rows[codes], np.concatenate([np.zeros_like(rows[codes[:1]]), rows[targets[:-1]]]), targets

    words = (rng.integers(0, K, (rng.integers(4, 12), 32)) for _ in range(900))
    mg.fit(loss, parameters, map(batch, words), lr=5e-3)
    seen = loss(*batch(letters.encode(word)[:, None]))
    return viz.attention(seen, view="lines", inputs=word, outputs=word[::-1], title="Where a decoder looks")


def unrolled(kind, text: str = "the gradient goes back", last: bool = False):
    """A cell that reads a text letter by letter, freshly made: the loss of each next letter, or of the last alone."""
    rng = np.random.default_rng(0)
    letters = cells.Alphabet(text)
    cell, output = kind(len(letters), 16, rng), cells.Output(16, len(letters), rng)
    run = cell(letters.one_hot(text[:-1]), output=output)
    y, targets = run.y, letters.encode(text[1:])[:, None]
    loss = (mg.cross_entropy(y[-1], targets[-1]) if last else mg.cross_entropy(y, targets)).named("L")
    loss.backward(record=True)
    return loss, ["␣" if c == " " else c for c in text[:-1]]


def split(target: Path) -> None:
    """The pictures that take the gradient apart."""
    loss, captions = unrolled(cells.LSTM)
    viz.paths(loss, of="c", title="LSTM: which way ∂L/∂c took", captions=captions).save(target / "paths.png")
    viz.bptt(loss, title="LSTM: which letter's loss reaches which step", captions=captions).save(
        target / "bptt.png"
    )
    viz.weights_by_step(loss, captions=captions).save(target / "weights_by_step.png")
    losses = {kind.__name__: unrolled(kind, last=True)[0] for kind in (cells.LSTM, cells.GRU, cells.RNN)}
    title = "LSTM, GRU and RNN: what the loss of the last letter sends back"
    viz.compare(losses, title=title, captions=captions).save(target / "compare.png")


def health(target: Path) -> None:
    """What the health report says of an LSTM whose forget gate is shut, and how the gradient flows over a training."""
    rng = np.random.default_rng(0)
    cell, output = cells.LSTM(6, 24, rng), cells.Output(24, 6, rng)
    parameters = cell.parameters() | output.parameters()

    def loss(x, y):  # the first symbol is to be remembered to the end
        return mg.cross_entropy(cell(x, output=output).y[-1], y).named("L")

    def batch(sequences=32):
        codes = rng.integers(0, 6, (20, sequences))
        return np.eye(6, dtype=np.float32)[codes], codes[0]

    history = viz.History(every=25)
    mg.fit(loss, parameters, (batch() for _ in range(500)), lr=3e-3, watch=history.watch(loss, *batch(4)))
    history.flow(title="Gradient flow while an LSTM learns to remember its first input").save(
        target / "history.png"
    )
    fresh = cells.LSTM(6, 24, rng)
    fresh.b_f.value = np.full(24, -5.0)
    x, y = batch()
    shut = mg.cross_entropy(fresh(x, output=output).y[-1], y).named("L")
    shut.backward(record=True)
    viz.report(shut).save(target / "report.png")


def brought(target: Path) -> None:
    """A PyTorch model that does not learn, and the same one mended: where PyTorch is there."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnx") is None:
        print("no PyTorch or no onnx: fault.png stays as it is")
        return
    with tempfile.TemporaryDirectory() as folder:
        runpy.run_path(str(HERE.parent / "examples" / "see_torch.py"))["main"](["--out", folder])
        shutil.copy(Path(folder) / "compare.png", target / "fault.png")


def main() -> None:
    target = HERE / "pictures"
    with tempfile.TemporaryDirectory() as folder:
        command(["hello", "--out", folder])
        for name in ("network", "gradient", "gates"):
            shutil.copy(Path(folder) / f"{name}.png", target / f"{name}.png")
    viz.rewrites(compiled_lstm())["hoist forward"].save(target / "hoist.png")
    split(target)
    health(target)
    temporal().save(target / "taps.png")
    attention().save(target / "attention.png")
    brought(target)


if __name__ == "__main__":
    main()
