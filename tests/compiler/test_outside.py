"""An index out of range: the same kind of error in the same words eagerly, compiled and in a step of training."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad import InputError, Tensor, optim
from minigrad.ops import _inside
from minigrad.trace import everywhere

rng = np.random.default_rng(0)
TABLE = rng.standard_normal((4, 3, 5))
SCORES = rng.standard_normal((2, 3, 4))
EMBEDDING = cells.Embedding(4, 3, rng, dtype="float64")
PADDED = cells.Embedding(4, 3, rng, padding=2, dtype="float64")

# What is called with x and indices, x, indices that fit, indices that do not, and what the message says of these.
ROWS = {
    "gather": (lambda x, i: mg.gather(x, i), TABLE, [0, 3], [0, 4], r"index 4 at \(1,\) outside the rows, 0 … 3"),
    "gather below": (lambda x, i: mg.gather(x, i), TABLE, [[0], [3]], [[0], [-1]],
                     r"index -1 at \(1, 0\) outside the rows, 0 … 3"),
    "scatter": (lambda x, i: mg.scatter(x, i, 3), TABLE[:2], [0, 2], [3, 2], r"index 3 at \(0,\) outside the rows, 0 … 2"),
    "rows": (lambda x, i: x[i], TABLE, [0, -4], [0, -5], r"index -5 at \(1,\) outside axis 0 of 'x' .*, 0 … 3"),
    "rows beyond": (lambda x, i: x[i], TABLE, [0, 3], [0, 4], r"index 4 at \(1,\) outside axis 0 of 'x' .*, 0 … 3"),
    "columns": (lambda x, i: x[:, i], TABLE, [0, -3], [-4, 1], r"index -4 at \(0,\) outside axis 1 of 'x' .*, 0 … 2"),
    "last axis": (lambda x, i: x[..., i], TABLE, [4], [5], r"index 5 at \(0,\) outside axis 2 of 'x' .*, 0 … 4"),
    "side by side": (lambda x, i: x[i, i - 1], TABLE, [1, 3], [1, 4], r"index 4 at \(1,\) outside axis 0 of 'x' .*, 0 … 3"),
    "side by side, the second": (
        lambda x, i: x[i - i, i], TABLE, [1, 2], [1, 3], r"index 3 at \(1,\) outside axis 1 of 'x' .*, 0 … 2"),
    "beside a number": (lambda x, i: x[1, i], TABLE, [0, 2], [3, 2], r"index 3 at \(0,\) outside axis 1 of 'x' .*, 0 … 2"),
    "apart": (lambda x, i: x[i, :, i], TABLE, [0, 3], [0, -5], r"index -5 at \(1,\) outside axis . of .*, 0 … 3"),
    "a number": (lambda x, i: x[i], TABLE, 3, 4, r"index 4 outside axis 0 of 'x' .*, 0 … 3"),
    "small integers": (lambda x, i: x[i], TABLE, np.int8([1]), np.int8([-5]), r"index -5 at \(0,\) outside axis 0 of 'x' "),
    "one_hot": (lambda x, i: x * mg.one_hot(i, 5, "float64"), TABLE[0, 0], [0, 4], [0, 5],
                r"one_hot: index 5 at \(1,\) outside the classes, 0 … 4"),
    "cross_entropy": (lambda x, t: mg.cross_entropy(x, t), SCORES, [[0, 1, 2], [3, 3, 3]], [[0, 1, 2], [3, -1, 4]],
                      r"cross_entropy: index -1 at \(1, 1\) outside the classes, 0 … 3"),
    "cross_entropy, smoothed": (
        lambda x, t: mg.cross_entropy(x, t, label_smoothing=0.1), SCORES, np.zeros((2, 3), int), np.full((2, 3), 4),
        r"cross_entropy: index 4 at \(0, 0\) outside the classes, 0 … 3"),
    "cross_entropy, masked": (
        lambda x, t: mg.cross_entropy(x, t, t != 9), SCORES[0], [0, 1, 2], [0, 9, 9],
        r"cross_entropy: index 9 at \(1,\) outside the classes, 0 … 3"),
    "cross_entropy, weighted": (
        lambda x, t: mg.cross_entropy(x, t, weights=np.ones(4)), SCORES[0], [0, 1, 2], [0, 4, 2],
        r"cross_entropy: index 4 at \(1,\) outside the classes, 0 … 3"),
    "ctc_loss": (lambda x, t: mg.ctc_loss(x, t), rng.standard_normal((6, 2, 4)), [[1, 2], [3, 1]], [[1, 2], [4, 1]],
                 r"ctc_loss: index 4 at \(1, 0\) outside the classes, 0 … 3"),
    "ctc_loss, lengths": (
        lambda x, n: mg.ctc_loss(x, np.ones((2, 2), int), n), rng.standard_normal((6, 2, 4)), [6, 4], [6, 7],
        r"ctc_loss: input_lengths: index 7 at \(1,\) outside the steps, 0 … 6"),
    "Embedding": (lambda x, i: EMBEDDING(i) * x, TABLE[0, 0, 0], [[0, 1], [2, 3]], [[0, 1], [4, 3]],
                  r"gather of 'W' \(4, 3\) float64, 'i' \(2, 2\) int64: index 4 at \(1, 0\) outside the rows, 0 … 3"),
    "Embedding, padded": (lambda x, i: PADDED(i) * x, TABLE[0, 0, 0], [0, 2], [-1, 2],
                          r"index -1 at \(0,\) outside the rows, 0 … 3"),
    "in a scan": (lambda x, i: mg.scan(lambda h, k: (h + x[k], None), mg.zeros((3, 5), "float64"), i)[0], TABLE,
                  [0, 3], [3, 4], r"index 4 outside axis 0 of 'x' .*, 0 … 3"),
}  # fmt: skip


def named(function, x, index) -> tuple[Tensor, Tensor]:
    """Arguments as a compiled function calls them."""
    first, second = inspect.signature(function).parameters
    return Tensor(x, name=first), Tensor(index, name=second)


def refusal(call) -> str:
    with pytest.raises(InputError) as error:
        call()
    assert type(error.value) is InputError
    return str(error.value)


@pytest.mark.parametrize("which", ROWS)
def test_the_words_are_those_of_eager_mode(which):
    function, x, good, bad, words = ROWS[which]
    function(*named(function, x, good))
    said = refusal(lambda: function(*named(function, x, bad)))
    assert re.search(words, said), said
    compiled = mg.compile(function)
    for _ in range(2):
        compiled(x, np.asarray(good))
        assert of_sizes(refusal(lambda: compiled(x, np.asarray(bad))), x) == f"{compiled.name}: {said}"


def of_sizes(text: str, x: np.ndarray) -> str:
    """A tensor that was named while tracing has sizes with names: here their numbers."""
    return re.sub(r"\bx_(\d)", lambda found: str(x.shape[int(found[1])]), text)


@pytest.mark.parametrize("which", ROWS)
def test_a_step_of_training_says_the_same_and_moves_nothing(which):
    function, x, good, bad, _ = ROWS[which]
    p = Tensor(x, requires_grad=True, name="x")
    index = [*inspect.signature(function).parameters][1]
    namespace = {"function": function, "p": p}
    loss = eval(
        f"lambda {index}: (function(p, {index}) ** 2).sum()", namespace
    )  # an argument is called as it is there
    step = mg.training_step(loss, optim.SGD([p], lr=0.1))
    said = refusal(lambda: loss(Tensor(bad, name=index)))
    for _ in range(2):
        step(np.asarray(good))
        before = p.value.copy()
        assert refusal(lambda: step(np.asarray(bad))) == f"{step.loss.name}: {said}"
        np.testing.assert_array_equal(p.value, before)
        assert step.optimiser.steps == step.optimiser.counts[0]
    compiled = mg.compile(loss)
    assert refusal(lambda: compiled.value_and_grad(np.asarray(bad))) == f"{compiled.name}: {said}"


def test_the_rows_reach_every_operation_that_looks_at_an_index():
    forward = {name: op.forward for name, op in mg.OPS.items() if inspect.isfunction(op.forward)}
    looks = {name for name, f in forward.items() if f is _inside or "_inside" in f.__code__.co_names}
    reached = set()
    for function, x, good, _, _ in ROWS.values():
        compiled = mg.compile(function)
        made = compiled(x, np.asarray(good))
        assert made.shape == function(*named(function, x, good)).shape
        traces = [variant.traced for variants in compiled.variants.values() for variant in variants]
        reached |= {n.op.name for traced in traces for n in everywhere(traced.results) if n.op}
    assert looks and looks <= reached


@pytest.mark.parametrize("index", [4, -5, np.int64(4)])
def test_a_number_in_the_source_too(index):
    x = Tensor(TABLE, name="x")
    said = refusal(lambda: x[index])
    assert said == f"index {index} outside axis 0 of 'x' (4, 3, 5) float64, 0 … 3"
    assert of_sizes(refusal(lambda: mg.compile(lambda x: x[index])(TABLE)), TABLE).startswith(said[:-1])
    assert refusal(lambda: mg.compile(lambda: x[index])()) == said
