"""Equations of networks that nobody wrote: drawn operations one upon the other, printed, read and computed.

So every operation stands beside every other, on both sides and at every strength, forward and backward.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader import computes

import cells
import minigrad as mg
from minigrad import (
    broadcast_to,
    concat,
    cos,
    exp,
    gather,
    layer_norm,
    log,
    log1p,
    log_softmax,
    logsumexp,
    maximum,
    minimum,
    norm,
    relu,
    shift,
    sigmoid,
    sin,
    softmax,
    softplus,
    sqrt,
    stack,
    tanh,
    where,
    zeros,
)

pytestmark = pytest.mark.smoke
D, H, R = 3, 4, 3  # inputs, units, rows of a matrix


class Drawn(cells.Cell):
    """A step of drawn moves; each takes two of what was made before, vectors (N, H) and matrices (N, R, H) alike."""

    state = "h M"

    def __init__(self, moves):
        self.moves = moves
        super().__init__(D, H, np.random.default_rng(3), "float64")

    def build(self, rng):
        shapes = dict(W=(H + D, H), V=(H, H), g=(H,), P=(R, H), U=(R, H, H), E=(5, H))
        for name, shape in shapes.items():
            self.parameter(name, rng.standard_normal(shape))

    def initial_state(self, sequences):
        return zeros((sequences, H), "float64"), zeros((sequences, R, H), "float64")

    def step(self, x, h, M):
        made = [M, h, tanh(concat(h, x) @ self.W)]
        for move, i, j in self.moves:
            made.append(MOVES[move](self, made[-1 - i % len(made)], made[-1 - j % len(made)]))
        for y in made:
            if len(y.shape) == 3:
                M = tanh(M * 0.5 + y)
            else:
                h = tanh(h - y)
        return {"h": h, "M": M}


def pair(function):
    """A vector stands beside a matrix as each of its rows."""

    def move(cell, a, b):
        ready = [t if len(t.shape) == longest else t.reshape((t.shape[0], 1, H)) for t in (a, b)] if (
            longest := max(len(a.shape), len(b.shape))
        ) else []  # fmt: skip
        return function(*ready)

    return move


def one(function):
    return lambda cell, a, b: function(a)


def with_cell(function):
    return lambda cell, a, b: function(cell, a)


def of_matrix(function, otherwise):
    """For matrices, and another move for vectors."""
    return lambda cell, a, b: function(cell, a) if len(a.shape) == 3 else otherwise(cell, a)


def attend(cell, M):
    """Weights of rows, and the mean."""
    N = M.shape[0]
    w = softmax((M * cell.g).sum(axis=2))
    return (w.reshape((N, 1, R)) @ M).reshape((N, H))


def write(cell, a, b):
    """An outer product beside what a matrix says of a vector."""
    matrix, vector = (a, b) if len(a.shape) == 3 else (b, a)
    if len(matrix.shape) != 3 or len(vector.shape) != 2:
        return a * 0.5 - b if len(a.shape) == len(b.shape) else a
    N = vector.shape[0]
    read = (matrix @ vector.reshape((N, H, 1))).reshape((N, R))
    return tanh(read).reshape((N, R, 1)) * vector.reshape((N, 1, H)) - matrix


def rows_of_a_table(cell, a):
    index = (abs(a[..., 0]) * 2.0).detach().astype("int64")
    return gather(cell.E, where(index > 4, 4, index)) * a


def pairs(a):
    return a.reshape((a.shape[0], 2, 2)).sum(axis=2).sum(axis=1, keepdims=True)


def columns(W, a):
    """As on the slide: vectors are columns."""
    return (W @ a.T).T


MOVES = [
    pair(lambda a, b: a + b),
    pair(lambda a, b: a - b),
    pair(lambda a, b: a * b),
    pair(lambda a, b: a / (abs(b) + 1.0)),
    pair(lambda a, b: a - (b - a)),
    pair(lambda a, b: -(a + b) * b),
    pair(lambda a, b: a * -b),
    pair(lambda a, b: -a - b),
    pair(lambda a, b: a * (b * a) / (a * a + 1.0)),
    pair(lambda a, b: 2.0 * (a / (b * b + 1.0)) * b),
    pair(lambda a, b: a / (2.0 * (abs(b) + 1.0)) / 4.0),
    pair(lambda a, b: (a + b) ** 2),
    pair(lambda a, b: (a - b) ** 3 * -0.5),
    pair(lambda a, b: (1.5 + abs(a)) ** -0.5 * b),
    pair(lambda a, b: (a * b) ** 2 + (a**2) ** 2),
    pair(maximum),
    pair(minimum),
    pair(lambda a, b: where(a > b, a, b)),
    pair(lambda a, b: where(a <= b, 0.0, a)),
    pair(lambda a, b: a * (a >= b).astype("float64") - (b != a).astype("float64")),
    pair(lambda a, b: where(a + b > 1.0, b, -a) + a),
    pair(lambda a, b: where((a > 0.0) == (b > 0.0), a, 0.0)),
    one(sigmoid),
    one(relu),
    one(lambda a: relu(a) * 2.0 + relu(-a)),
    one(lambda a: softplus(-a)),
    one(lambda a: abs(a - abs(a - 1.0))),
    one(lambda a: exp(-abs(a))),
    one(lambda a: log(1.0 + abs(a)) + log1p(abs(a))),
    one(lambda a: log1p(-sigmoid(a))),
    one(lambda a: sqrt(a * a + 0.5)),
    one(lambda a: mg.floor(2.0 * a) * a - mg.ceil(a + 0.1) / mg.round(a * 3.0 + 0.1 * a).clip(1.0, 2.0)),
    one(lambda a: mg.expm1(-abs(a)) * mg.erf(a)),
    one(lambda a: mg.gelu(a) + mg.gelu(a, "tanh")),
    one(lambda a: a.clip(-0.7, 0.9) * a),
    one(lambda a: mg.cumsum(a, -1) * a),
    one(lambda a: a * mg.argmax(a, -1, True).astype("float64") + mg.argmin(a, -1, True).astype("float64")),
    one(lambda a: a * mg.std(a, -1, ddof=1, keepdims=True) + mg.var(a, -1, keepdims=True)),
    one(lambda a: a * mg.prod(a, -1, keepdims=True)),
    one(lambda a: mg.flip(a, -1) - mg.pad(a[..., :-1], [(0, 0)] * (a.ndim - 1) + [(1, 0)])),
    one(lambda a: where((a > 0.3) & ~(a > 1.0) | mg.isnan(a), a, -a)),
    one(lambda a: where((a > 0.3) ^ (a * a > 1.0), 2.0 * a, 1.0)),
    pair(mg.logaddexp),
    pair(lambda a, b: a % (abs(b) + 1.0) * (a // (abs(b) + 0.5))),
    pair(lambda a, b: (abs(a) + 0.5) ** b * ((abs(b) + 0.5) ** a) ** 2),
    pair(lambda a, b: ((abs(a) + 0.5) ** (a + b)) ** -b),
    one(lambda a: sin(a) * cos(a)),
    one(lambda a: a.detach() * a),
    one(lambda a: a - (3.0 * a).astype("int64").astype("float64")),
    one(lambda a: 1.0 - a),
    one(lambda a: -2.0 * a),
    one(lambda a: 0.5 * (2.0 - a)),
    with_cell(lambda cell, a: a @ cell.V),
    with_cell(lambda cell, a: (a - 1.0) @ cell.V.T),
    with_cell(lambda cell, a: a * (a @ cell.V + cell.g)),
    with_cell(lambda cell, a: -a @ (cell.V * cell.g)),
    with_cell(lambda cell, a: a @ cell.U[1]),
    with_cell(lambda cell, a: a * cell.P[2] + cell.P.mean(axis=0)),
    with_cell(lambda cell, a: a * norm(cell.V, axis=0)),
    of_matrix(lambda cell, a: a * cell.P, lambda cell, a: columns(cell.V, a)),
    of_matrix(lambda cell, a: (a.reshape((a.shape[0], R, 1, H)) @ cell.U).reshape(a.shape), lambda cell, a: a[:, 2:3] * a),
    with_cell(rows_of_a_table),
    one(lambda a: concat(a[..., 2:], a[..., :2])),
    one(lambda a: a[..., ::-1] * a),
    one(lambda a: concat(a[..., :3], a[..., 3:]) * concat(a[..., 1:], a[..., :1])),  # slices that overlap
    one(lambda a: concat(a[..., :3], a[..., 1:])[..., 1:5]),
    one(lambda a: concat(a[..., ::2], a[..., 1::2]) - a),
    one(lambda a: concat(a[..., :2:2], a[..., 2:], a[..., :1])),
    one(lambda a: concat(2.0 * a, a)[..., :4] * concat(2.0 * a, -a)[..., 1:5]),  # twice the same text
    of_matrix(lambda cell, a: (a.swapaxes(0, 1) @ cell.U).swapaxes(0, 1), lambda cell, a: a),
    one(lambda a: concat(a[..., :2], -a[..., 2:]) * sigmoid(a)),
    with_cell(lambda cell, a: broadcast_to(a.sum(axis=-1, keepdims=True), a.shape) @ cell.V),
    one(lambda a: concat(broadcast_to(a[..., :1] * 2.0, a.shape), a)[..., 2:6]),
    with_cell(lambda cell, a: a * broadcast_to(cell.g[0], (H,)).sum()),
    one(lambda a: (a.swapaxes(0, 1) - a.swapaxes(0, 1).mean(axis=1, keepdims=True)).swapaxes(0, 1)),
    one(lambda a: (a.swapaxes(0, 1) * softplus(a.swapaxes(0, 1).sum(axis=1, keepdims=True))).swapaxes(0, 1)),
    one(lambda a: a - a[..., 1:2]),
    one(lambda a: concat(a[..., :1], 0.0 * a[..., 1:] + 1.0)),
    one(lambda a: a * a.sum(axis=-1, keepdims=True)),
    one(lambda a: a - a.mean(axis=-1, keepdims=True)),
    one(lambda a: a - a.max(axis=-1, keepdims=True)),
    one(lambda a: a * a.min(axis=-1, keepdims=True)),
    one(lambda a: a * norm(a, axis=-1, keepdims=True)),
    one(lambda a: a * logsumexp(a, axis=-1, keepdims=True)),
    one(lambda a: a - a.mean(axis=0, keepdims=True)),
    one(lambda a: a * a.sum(axis=0)),
    one(softmax),
    one(lambda a: log_softmax(a) * a),
    one(layer_norm),
    with_cell(lambda cell, a: layer_norm(2.0 * a, cell.g, epsilon=0.1)),
    of_matrix(lambda cell, a: a.mean(axis=1), lambda cell, a: stack([a, -a, 2.0 * a], axis=1)),
    of_matrix(lambda cell, a: a[:, 1] - a[:, :, 1:2].sum(axis=1), lambda cell, a: pairs(a) * a),
    of_matrix(lambda cell, a: softmax(a, axis=1), lambda cell, a: a),
    of_matrix(lambda cell, a: a - a.max(axis=(1, 2), keepdims=True), lambda cell, a: a),
    of_matrix(lambda cell, a: a @ a.swapaxes(1, 2) @ a, lambda cell, a: a),
    of_matrix(lambda cell, a: shift(a.swapaxes(0, 1), 1).swapaxes(0, 1), lambda cell, a: a),
    of_matrix(attend, lambda cell, a: a),
    write,
    write,
]  # fmt: skip

drawn = st.lists(
    st.tuples(st.integers(0, len(MOVES) - 1), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=6
)


@pytest.mark.parametrize("move", range(len(MOVES)))
def test_every_move_alone(move):
    for i in (0, 2):  # of a vector, of a matrix
        computes(Drawn([(move, i, 2 - i)]), np.random.default_rng(5))


@settings(max_examples=100)
@given(drawn)
def test_whatever_is_drawn_is_printed_so_that_it_can_be_computed(moves):
    computes(Drawn(moves), np.random.default_rng(5))
