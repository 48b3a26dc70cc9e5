"""Texts of node-link pictures neither lie on each other nor on the border of a box: computed from the layout."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import network
from literature import LITERATURE
from overlap import overlaps

import cells
import viz
from minigrad import Tensor

pytestmark = pytest.mark.usefixtures("spoken")  # words are longer in some languages

SHIPPED = {
    name: made
    for name in cells.__all__
    if isinstance(made := getattr(cells, name), type)
    and issubclass(made, cells.Cell)
    and made not in (cells.Cell, cells.AttentionDecoder)
}


def unrolled(kind, T, N, D=4, H=4):
    rng = np.random.default_rng(0)
    own = D + 2 * H if kind.__name__.lower().startswith("zoneout") else D
    cell = kind(own, H, rng, "float64")
    steps = cells.run(cell, rng.uniform(0, 1, (T, N, own))).steps
    loss = sum((s.state[0].sum() for s in steps[1:]), steps[0].state[0].sum()) ** 2
    loss.backward(record=True)
    return loss


@pytest.mark.parametrize("name", [*SHIPPED, *LITERATURE])
@pytest.mark.parametrize("N", [1, 3])
def test_no_text_lies_on_another(name, N):
    loss = unrolled((SHIPPED | LITERATURE)[name], 3, N)
    for level in ("step", "gate"):
        assert overlaps(viz.draw(loss, level=level)) == [], level


@pytest.mark.parametrize("T", [9, 30])
def test_no_text_lies_on_another_in_long_sequences(T):
    for level in ("step", "gate", "operation"):
        assert overlaps(viz.draw(network(T=T)[0], level=level)) == [], level


def test_the_measure_finds_what_overlaps():
    picture = viz.draw(Tensor(np.ones(3), name="x"))
    picture.dot = (
        'digraph { a [shape=box fixedsize=true width=0.2 label="much too long" pos="0,0!"] '
        'b [label="beside it" pos="20,0!"] }'
    )
    picture.engine = "nop2"
    assert len(overlaps(picture)) >= 2


@pytest.mark.parametrize("reverse", [False, True])
def test_no_text_lies_on_another_in_layers_that_wrap(reverse):
    rng = np.random.default_rng(0)
    below = cells.run(
        cells.GRU(4, 6, rng), rng.standard_normal((10, 1, 4)).astype("f"), label="one", reverse=reverse
    ).steps
    above = cells.run(cells.LSTM(6, 5, rng), [s.h for s in below], label="two", reverse=reverse).steps
    loss = (above[0 if reverse else -1].h ** 2).sum()
    loss.backward(record=True)
    for level in ("step", "gate"):
        picture = viz.draw(loss, level=level)
        assert picture.svg() and overlaps(picture) == [], level
