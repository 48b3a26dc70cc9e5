"""A scan inside the step of a scan: an inner loop over steps in each outer step, compiled as loops in loops."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import minigrad as mg
from minigrad.compiler import emit as emitting
from minigrad.compiler import places
from minigrad.compiler import scans as loops
from minigrad.compiler.wasm import Wasm
from minigrad.grad import ancestors
from minigrad.scan import SCAN
from minigrad.trace import evaluate, trace, trace_gradients
from tests.compiler.test_llvm import assert_same_bits
from tests.drawn.interpret import interpreted

T, S, N, D, H = 3, 4, 2, 3, 5


def leaf(*shape, seed, name=None, dtype="float64"):
    array = np.asarray(np.random.default_rng(seed).standard_normal(shape) / np.sqrt(max([1, *shape[:1]])))
    return mg.Tensor(array.astype(dtype), requires_grad=True, name=name)


W, U, V = leaf(D, H, seed=1, name="W"), leaf(H, H, seed=2, name="U"), leaf(H, H, seed=3, name="V")
R, b, h0 = leaf(H, D, seed=4, name="R"), leaf(H, seed=5, name="b"), leaf(N, H, seed=6, name="h0")

# The arguments by name: what a program asks for is drawn in its shape, and learns.
SHAPES = {
    "x": (T, N, D), "xs": (T, S, N, D), "memory": (S, N, H), "more": (S + 1, N, H), "words": (2, T, S, N, D),
    "vector": (T, S), "one": (1, N, D), "chunks": (T, 1, N, D), "single": (1, S, N, D),
}  # fmt: skip


def zeros(like, *shape):
    return mg.zeros(shape or like.shape, like.dtype)


def recurrent(h, x):
    h = mg.tanh(x @ W + h @ U + b).named("h")
    return h, h


# Programs: each a loss, and what else it returns.


def hierarchical(xs):
    """A sentence of words: the inner state goes on from the outer one, whose step reads the inner's last."""

    def sentence(h, words):
        inner, _ = mg.scan(recurrent, h @ V, words)
        h = mg.tanh(h @ U + inner).named("s")
        return h, h

    last, all_steps = mg.scan(sentence, h0, xs)
    return (last * all_steps.mean(0)).sum()


def state_goes_through(xs):
    """The inner's last state is the outer's next one, and nothing else happens."""
    last, _ = mg.scan(lambda h, words: (mg.scan(recurrent, h, words)[0], None), h0, xs)
    return (last**2).sum()


def attention_over_a_memory(x, memory):
    """Softmax over a memory by a recurrence: numerator, denominator and maximum go from row to row."""

    def step(h, x):
        query = mg.tanh(x @ W + h @ U)

        def look(carry, row):
            total, norm = carry
            weight = mg.exp((query * row).sum(-1, keepdims=True) * 0.3)
            return (total + weight * (row @ V), norm + weight), weight

        (total, norm), weights = mg.scan(look, (zeros(query), zeros(query[:, :1])), memory)
        h = mg.tanh(total / norm + query).named("h")
        return h, weights

    last, weights = mg.scan(step, h0, x)
    return (last**2).sum() + (weights[1:] ** 2).mean()


def stacked_results_are_used(xs):
    """The outer step reads all inner steps, backwards and with a slice."""

    def step(h, words):
        _, states = mg.scan(recurrent, h, words)
        weights = mg.softmax((states * h).sum(-1, keepdims=True), 0)
        h = (weights * states[::-1]).sum(0) + states[1:].mean(0) @ V
        return mg.tanh(h), (states, weights)

    last, (states, weights) = mg.scan(step, h0, xs)
    return (last**2).sum() + (states * weights).sum()


def products_of_inner_and_outer(xs):
    """A right operand that differs from outer step to outer step: the inner loop multiplies by it, also transposed."""

    def step(M, words):
        def inner(h, x):
            h = mg.tanh(x @ W + h @ M + h @ M.T)
            return h, h @ M

        h, outs = mg.scan(inner, zeros(words[0] @ W), words)
        return mg.tanh(M + h.T @ outs.sum(0) * 0.1), outs

    M, outs = mg.scan(step, U, xs)
    return (M**2).sum() + (outs**2).mean()


def rows_of_a_state(x):
    """The inner loop goes over the rows of the outer state itself."""

    def step(M, x):
        def inner(s, row):
            s = mg.tanh(s * row + x.mean(0) @ W)
            return s, s

        _, rows = mg.scan(inner, zeros(b), M)
        return M * 0.5 + rows, None

    M, _ = mg.scan(step, U, x)
    return (M**2).sum()


def two_in_one_step(x, memory, more):
    def step(h, x):
        a, seen = mg.scan(lambda c, m: (mg.tanh(c @ U + m), c), h, memory)
        c, _ = mg.scan(lambda c, m: (mg.sigmoid(c * m + a), None), x @ W, more, reverse=True)
        return mg.tanh(a + c @ V), seen.sum(0)

    last, seen = mg.scan(step, h0, x)
    return (last**2).sum() + (seen**2).mean()


def one_after_the_other(xs):
    """The second inner loop goes over what the first one gives."""

    def step(h, words):
        _, states = mg.scan(recurrent, h, words)
        h, back = mg.scan(lambda c, s: (mg.tanh(c @ V + s), c * s), h, states, reverse=True)
        return h, back

    last, back = mg.scan(step, h0, xs)
    return (last * back.mean((0, 1))).sum()


def both_reversed(xs):
    def step(h, words):
        h, states = mg.scan(recurrent, h, words, reverse=True)
        return h, states

    last, states = mg.scan(step, h0, xs, reverse=True)
    return (last**2).sum() + (states[0] * states[-1]).sum()


def outer_reversed(x, memory):
    def step(h, x):
        c, seen = mg.scan(lambda c, m: (mg.tanh(c @ U + m), c), h, memory)
        return c + x @ W, seen

    last, seen = mg.scan(step, h0, x, reverse=True)
    return (last**2).mean() + (seen[-1] * seen[0]).sum()


def truncated(xs):
    """Cuts at both levels: nothing flows from one sentence to the next, nor through one of the inner states."""

    def step(h, words):
        h, _ = mg.scan(lambda c, x: recurrent(c.detach() * 0.5 + c * 0.5, x), h.detach() + b, words)
        return h, h

    last, states = mg.scan(step, h0, xs)
    return (last**2).sum() + (states**2).mean()


def pondering(x):
    """A number of inner steps that is written in the program: the inner loop only counts."""

    def step(h, x):
        h, halting = mg.scan(
            lambda c, k: (mg.tanh(c @ U + x @ W + k * 0.1), mg.sigmoid(c.mean())), h, np.arange(3.0)
        )
        return h, halting

    last, halting = mg.scan(step, h0, x)
    return (last**2).sum() + halting.mean()


def only_forward(x, memory):
    """What the inner loop finds has no gradient: it is compared, or cut."""

    def step(h, x):
        best, _ = mg.scan(lambda c, m: (mg.maximum(c, (m * h).sum(-1, keepdims=True)), None), zeros(h[:, :1]), memory)
        nearest, _ = mg.scan(lambda c, m: (c + m * 0.1, None), h.detach(), memory.detach())
        return mg.tanh(h @ U + x @ W) * (best > 0.2).astype("float64") + nearest, None

    last, _ = mg.scan(step, h0, x)
    return (last**2).sum()


def convolution_in_a_step(x):
    """A window that slides over a part of the state, as a causal convolution would within a step."""
    taps = V[:3]

    def step(h, x):
        def slide(window, column):
            window = mg.concat(window[1:], column.reshape(1, -1), axis=0)
            return window, (window * taps[:, : x.shape[0]]).sum(0)

        _, columns = mg.scan(slide, zeros(taps[:, : x.shape[0]]), h.T)
        return mg.tanh(columns.T + x @ W), None

    last, _ = mg.scan(step, h0, x)
    return (last**2).sum()


def three_levels(words):
    def page(h, sentences):
        def sentence(h, words):
            h, inner = mg.scan(recurrent, mg.tanh(h @ V), words)
            return h, inner.mean(0)

        last, means = mg.scan(sentence, h, sentences)
        return mg.tanh(last + means.mean(0) @ U), means

    last, means = mg.scan(page, h0, words)
    return (last**2).sum() + (means[0] * means[1]).mean()


def numbers_without_axes(vector):
    """States that are single numbers at both levels."""

    def step(s, row):
        def inner(c, v):
            return mg.tanh(c * v + b[0]), c

        c, outs = mg.scan(inner, s, row)
        return c + outs.mean(), None

    return mg.scan(step, b[1] * 1.0, vector)[0] ** 2


def captures_of_captures(x, memory):
    """The inner loop reads what the outer step computes, what it was given, its state, and what lies outside of both."""
    keys = memory @ V

    def step(carry, x):
        h, c = carry
        gate = mg.sigmoid(x @ W)

        def look(s, m):
            row, key = m
            return mg.tanh(s * gate + row * c + (key + h) @ U + b) * h0, s.sum(-1)

        s, sums = mg.scan(look, h * gate, (memory, keys))
        return (s + keys[0], c * gate), sums

    (h, c), sums = mg.scan(step, (h0, h0 * 0.5), x)
    return (h * c).sum() + (sums**2).mean()


def carries_that_stay(xs):
    """A state that no inner step changes, one that is handed on, and one that is swapped."""

    def step(carry, words):
        def inner(c, x):
            p, q, r = c
            return (q, p * 0.9 + x @ W, r), r

        (p, q, r), kept = mg.scan(inner, (*carry, carry[0] * b), words)
        return (q + r, p), kept.sum(0)

    (p, q), kept = mg.scan(step, (h0, h0), xs)
    return (p * q).sum() + kept.mean()


def steps_are_one(one, memory):
    last, _ = mg.scan(lambda h, x: (mg.scan(lambda c, m: (mg.tanh(c @ U + m * x.mean()), None), h, memory)[0], None),
                      h0, one)  # fmt: skip
    return (last**2).sum()


def inner_steps_are_one(chunks):
    return hierarchical(chunks)


def second_order(xs):
    """A gradient that is part of the loss."""

    def loss(h):
        last, _ = mg.scan(lambda h, words: (mg.scan(recurrent, h, words)[0], None), h, xs)
        return (last**2).sum()

    (g,) = mg.grad(loss(h0), [h0], create_graph=True)
    return loss(h0) + (g**2).sum()


def gathered(x, memory):
    """An inner loop that looks rows up by whole numbers, and counts."""

    def step(h, x):
        def pick(carry, k):
            c, count = carry
            return (mg.tanh(c + memory[k]), count + 1), count

        (c, count), counts = mg.scan(pick, (h, mg.Tensor(np.array(0))), np.array([2, 0, 2]))
        return c @ U + x @ W, counts

    last, counts = mg.scan(step, h0, x)
    return (last**2).mean() * counts.sum()


PROGRAMS = [
    hierarchical, state_goes_through, attention_over_a_memory, stacked_results_are_used, products_of_inner_and_outer,
    rows_of_a_state, two_in_one_step, one_after_the_other, both_reversed, outer_reversed, truncated, pondering,
    only_forward, convolution_in_a_step, three_levels, numbers_without_axes, captures_of_captures, carries_that_stay,
    steps_are_one, inner_steps_are_one, second_order, gathered,
]  # fmt: skip
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)


def arguments_of(program, seed=0, dtype="float64", **sizes):
    """Tensors that learn, in the shapes of the program's arguments; sizes: other lengths, such as T=7."""
    now = dict(zip((T, S, N, D, H), (T, S, N, D, H), strict=False)) | {}
    names = {"T": T, "S": S, "N": N} | sizes
    axes = {"x": "TND", "xs": "TSND", "memory": "SNH", "more": "SNH", "words": "2TSND", "vector": "TS", "one": "1ND",
            "chunks": "T1ND", "single": "1SND"}  # fmt: skip
    known = {**names, "D": D, "H": H, "1": 1, "2": 2}
    del now
    found = []
    for k, name in enumerate(inspect.signature(program).parameters):
        shape = [known[a] for a in axes[name]]
        if name == "more":
            shape[0] += 1
        found.append(leaf(*shape, seed=seed + 10 * k, name=name, dtype=dtype))
    return found


def eagerly(program, arguments):
    loss = program(*arguments)
    leaves = [n for n in ancestors(loss) if n.op is None and n.requires_grad]
    return loss.value, dict(zip([n.number for n in leaves], [g.value for g in mg.grad(loss, leaves)], strict=True)), leaves


def assert_same(program, arguments, value, gradients):
    wanted, right, leaves = eagerly(program, arguments)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    for x in leaves:
        np.testing.assert_allclose(gradients[x], right[x.number], rtol=1e-11, atol=1e-13, err_msg=str(x.name))


@every_program
def test_a_scan_in_a_step_compiles_and_gives_what_it_gives_eagerly(program):
    arguments = arguments_of(program)
    value, gradients = interpreted(mg.compile(program), *arguments, parts=1, gradients=True)
    assert_same(program, arguments, value.value, gradients)
