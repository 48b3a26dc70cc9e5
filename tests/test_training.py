"""Training over many steps: the LSTM learns "hello", memory stays where it is without the garbage
collector's help, the same seed gives the same numbers in another process, and a training that goes on in
another process ends in the same bits.
"""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

from cells import LSTM, Alphabet, Output, Stack
from minigrad import ancestors, checkpoint, compile, cross_entropy, fit, one_hot, optim, stack

pytestmark = pytest.mark.as_shipped


class Hello:
    """The lecture's example: predict the next character of "hello" with an LSTM."""

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        letters = Alphabet("hello")
        self.x, self.targets = letters.one_hot("hell"), letters.encode("ello")[:, None]
        self.cell, self.output = LSTM(len(letters), 8, rng), Output(8, len(letters), rng)
        parameters = [*self.cell.parameters().values(), *self.output.parameters().values()]
        self.optimiser = optim.Adam(parameters, lr=0.05)

    def logits(self):
        return self.output(stack([step.h for step in self.cell(self.x).steps]))

    def loss(self):
        return cross_entropy(self.logits(), self.targets)

    def step(self) -> float:
        loss = self.loss()
        self.optimiser.zero_grad()
        loss.backward()
        optim.clip_by_norm(self.optimiser.parameters, 5.0)
        self.optimiser.step()
        return loss.item()


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.smoke
def test_the_lstm_learns_hello():
    hello = Hello()
    losses = [hello.step() for _ in range(100)]
    assert losses[0] > 1 and losses[-1] < 0.05
    np.testing.assert_array_equal(hello.logits().value.argmax(-1), hello.targets)


@pytest.mark.smoke
def test_every_array_of_a_training_step_is_float32():
    hello = Hello()
    hello.step()
    loss = hello.loss()
    loss.backward(record=True)
    floats = [node for node in ancestors(loss) if node.dtype.kind == "f"]
    assert len(floats) > 60 and {node.dtype for node in floats} == {np.dtype("float32")}
    assert {node.grad.dtype for node in floats if node.grad is not None} == {np.dtype("float32")}
    assert {a.dtype for a in [*hello.optimiser.first, *hello.optimiser.second]} == {np.dtype("float32")}


@pytest.mark.smoke
def test_dropping_the_loss_frees_its_graph_at_once(without_collector):
    hello = Hello()
    loss = hello.loss()
    loss.backward(record=True)
    kept = {p.number for p in hello.optimiser.parameters}
    alive = [weakref.ref(node) for node in ancestors(loss) if node.number not in kept]
    del loss
    assert len(alive) > 60 and not any(node() for node in alive)


@pytest.mark.smoke
def test_training_leaves_no_cycles_behind(without_collector):
    hello = Hello()
    for _ in range(50):
        hello.step()
    assert gc.collect() == 0, "objects that only the garbage collector can free"


def test_memory_grows_by_less_than_one_percent_over_a_thousand_steps(request):
    pytest.importorskip("resource", reason="the peak of a process's memory is asked of a POSIX system")
    before, after = map(int, run("print(*peaks(1000))", request).split())
    assert after < 1.01 * before, f"the peak of {before} became {after}"


def test_the_same_seed_gives_the_same_numbers_in_another_process(request):
    assert digest() == digest() == run("print(digest())", request).strip()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fit", "hand"])
def test_two_hundred_steps_and_twice_a_hundred_in_two_processes_end_in_the_same_bits(kind, request, tmp_path):
    for file, steps in (("whole", 200), ("parts", 100), ("parts", 200)):
        said = run(f"learn_by_{kind}({str(tmp_path / file)!r}, {steps})", request)
        assert said.splitlines()[-1] == f"{steps} steps"
    whole, parts = (checkpoint.load(tmp_path / file) for file in ("whole", "parts"))
    assert whole.keys() == parts.keys() and whole.notes == parts.notes
    for name, array in whole.items():
        assert array.tobytes() == parts[name].tobytes() and array.dtype == parts[name].dtype, name
    weights = checkpoint.load(tmp_path / "whole", "parameters/")
    assert {a.dtype for a in weights.values()} == {np.dtype("float32")} and len(weights) > 16
    assert whole[f"optimiser/{'Adam' if kind == 'fit' else 'AdamW'}.steps"] == 200


def run(statement: str, request) -> str:
    """Run a statement that knows this file's names in a process of its own."""
    program = f"import sys; sys.path[:0] = {[str(request.config.rootpath), str(request.path.parent)]}; "
    program += f"from test_training import *; {statement}"
    programs = {"MINIGRAD_CACHE": str(request.config.rootpath / ".pytest_cache" / "minigrad")}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | programs
    ).stdout


def peaks(steps: int) -> tuple[int, int]:
    """The peak of the process's memory before and after that many steps without garbage collection."""
    import resource

    gc.disable()
    hello, found = Hello(), []
    for count in (50, steps):
        for _ in range(count):
            hello.step()
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return tuple(found)


def digest() -> str:
    hello = Hello(seed=3)
    losses = [hello.step() for _ in range(10)]
    weights = b"".join(p.value.tobytes() for p in hello.optimiser.parameters)
    return hashlib.sha256(repr(losses).encode() + weights).hexdigest()


class Writer:
    """Two layers of LSTMs that read random pieces of a text with random dropout, as programs have them."""

    def __init__(self):
        text = "the quick brown fox jumps over the lazy dog; " * 4
        self.rng, letters = np.random.default_rng(11), Alphabet(text)
        self.codes, self.classes = letters.encode(text), len(letters)
        self.layers = Stack(LSTM, self.classes, 12, 2, self.rng)
        self.output = Output(12, self.classes, self.rng)
        self.parameters = {**self.layers.parameters(), **self.output.parameters()}

    def loss(self, x, targets, mask, *state):
        run = self.layers(one_hot(x, self.classes) * mask, state, output=self.output)
        return (cross_entropy(run.y, targets), *run.state)

    def batch(self):
        places = self.rng.integers(0, len(self.codes) - 9, 4) + np.arange(9)[:, None]
        mask = (self.rng.random((8, 4, 1)) < 0.9).astype("float32")
        return self.codes[places][:-1], self.codes[places][1:], mask


def learn_by_fit(file: str, steps: int) -> None:
    writer = Writer()
    state = writer.layers.initial_state(4)
    losses = fit(
        writer.loss, writer.parameters, ((*writer.batch(), *state) for _ in range(steps)),
        lr=lambda step: 0.01 / (1 + step / 100), resume=file, save_every=30, rng=writer.rng, notes={"of": "a fox"},
    )  # fmt: skip
    print(f"{len(losses)} steps")


def learn_by_hand(file: str, steps: int) -> None:
    """The same in a loop of one's own, with states that are carried from step to step."""
    writer = Writer()
    loss, optimiser = compile(writer.loss), optim.AdamW(writer.parameters, lr=0.01, weight_decay=0.01)
    state = writer.layers.initial_state(4)
    if os.path.exists(file):
        found = checkpoint.load_training(file, optimiser, rng=writer.rng)
        state = [found[f"state {k}"] for k in range(len(state))]
    while optimiser.steps < steps:
        optimiser.zero_grad()
        _, *state = loss.backward(*writer.batch(), *state)
        optim.clip_by_norm(writer.parameters, 1.0)
        optimiser.step()
    states = {f"state {k}": s for k, s in enumerate(state)}
    checkpoint.save_training(file, optimiser, rng=writer.rng, tensors=states, notes={"of": "a fox"})
    print(f"{optimiser.steps} steps")
