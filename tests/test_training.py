"""Training over many steps: the LSTM learns "hello", memory stays where it is without the garbage
collector's help, and the same seed gives the same numbers in another process.
"""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
import weakref

import numpy as np
import pytest

from cells import LSTM, Alphabet, Output, unroll
from minigrad import ancestors, cross_entropy, optim, stack


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
        return self.output(stack([step.h for step in unroll(self.cell, self.x)]))

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


def run(statement: str, request) -> str:
    """Run a statement that knows this file's names in a process of its own."""
    program = f"import sys; sys.path[:0] = {[str(request.config.rootpath), str(request.path.parent)]}; "
    program += f"from test_training import *; {statement}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


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
