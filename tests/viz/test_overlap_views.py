"""The letters of paths, direct, weights and reports stand apart, for shipped cells and those of the literature."""

from __future__ import annotations

import numpy as np
import pytest
from forward import EVERY, network
from literature import LITERATURE
from overlap_charts import assert_apart
from test_history import network as trained
from test_literature_pictures import small

import cells
import viz

pytestmark = pytest.mark.usefixtures("spoken")  # words are longer in some languages

VIEWS = {
    "paths": viz.paths,
    "direct": viz.direct,
    "weights": viz.weights_by_step,
    "report": lambda loss, captions=None: viz.report(loss),
}
every_view = pytest.mark.parametrize("view", VIEWS)


@every_view
@pytest.mark.parametrize("name", cells.CELLS)
def test_shipped_cells(view, name):
    assert_apart(VIEWS[view](network(cells.CELLS[name], T=5)[0]))


@pytest.mark.slow
@every_view
@pytest.mark.parametrize("name", LITERATURE)
def test_cells_of_the_literature(view, name):
    assert_apart(VIEWS[view](small(LITERATURE[name], length=3)[0]))


@every_view
@pytest.mark.parametrize("T", [1, 30])
def test_one_step_and_many_with_captions(view, T):
    captions = [f"{chr(97 + t % 26)} → a longer one" if t % 3 else "ß" for t in range(T)]
    assert_apart(VIEWS[view](network(T=T, N=3)[0], captions=captions))


@every_view
def test_cuts_layers_and_masks(view):
    mask = np.ones((5, 2), bool)
    mask[3:, 0] = False
    for options in ({"truncate": 2, "T": 8}, EVERY["stacked"], {"mask": mask}):
        assert_apart(VIEWS[view](network(**options)[0]))


@pytest.mark.parametrize("layers, records", [(1, 1), (1, 40), (2, 3)])
def test_a_training(layers, records):
    loss, _, batch = trained(layers=layers)
    history, probe = viz.History(), batch()
    for step in range(records):
        history.record(1000 * step, loss, *probe)
    losses = history.data["loss"]
    for picture in (history.flow(), history.gates(), history.half_life(), history.loss(losses)):
        assert_apart(picture)
