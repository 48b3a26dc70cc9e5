"""The letters of charts stand apart, for every view, every shipped cell and those of the literature."""

from __future__ import annotations

import pytest
from forward import network
from literature import LITERATURE
from matplotlib.figure import Figure
from overlap_charts import assert_apart, collisions
from test_literature_pictures import small

import cells
import viz

pytestmark = pytest.mark.usefixtures("spoken")  # words are longer in some languages

VIEWS = {
    "gradient": lambda loss, steps, **more: viz.gradient(loss, **more),
}
every_view = pytest.mark.parametrize("view", VIEWS)


def test_what_stands_upon_each_other_is_found():
    figure = Figure(figsize=(4, 2))
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.3, "apart")
    assert not collisions(figure)
    figure.text(0.52, 0.52, "two", rotation=90)
    figure.text(0.98, 0.9, "far out")
    assert collisions(figure) == ["'far out' leaves the figure", "'one' stands upon 'two'"]


@every_view
@pytest.mark.parametrize("name", cells.CELLS)
def test_shipped_cells(view, name):
    loss, run = network(cells.CELLS[name], T=5)
    assert_apart(VIEWS[view](loss, run.steps))


@pytest.mark.slow
@every_view
@pytest.mark.parametrize("name", LITERATURE)
def test_cells_of_the_literature(view, name):
    assert_apart(VIEWS[view](*small(LITERATURE[name], length=3)))


@every_view
@pytest.mark.parametrize("T", [1, 30])
def test_one_step_and_many_with_captions(view, T):
    loss, run = network(T=T, N=3)
    captions = [f"{chr(97 + t % 26)} → a longer one" if t % 3 else "ß" for t in range(T)]
    assert_apart(VIEWS[view](loss, run.steps, captions=captions))
