"""`check_grads` where a function takes no complex numbers, as a cell does, and where the complex step is asked for."""

from __future__ import annotations

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad import MinigradError, check_grads
from minigrad.check import KinkError


@pytest.mark.parametrize("name", cells.CELLS)
def test_every_cell_with_its_default_first_states(name, rng):
    cell = cells.CELLS[name](3, 4, rng, "float64")
    xs = rng.standard_normal((3, 2, 3))
    assert check_grads(lambda x: cells.run(cell, x).h, [xs]) <= 1e-6
    assert check_grads(lambda x: cells.run(cell, x).h, [xs], order=1) <= 1e-6
    W = next(iter(cell.parameters()))

    def with_weight(W_given):
        kept = getattr(cell, W)
        setattr(cell, W, W_given)
        try:
            return cells.run(cell, xs).h
        finally:
            setattr(cell, W, kept)

    assert check_grads(with_weight, [getattr(cell, W)]) <= 1e-6


@pytest.mark.smoke
def test_a_wrong_gradient_of_a_function_that_takes_no_complex_numbers_is_seen(rng):
    def step(x):
        if x.dtype.kind != "f":
            raise mg.DTypeError("floats only")
        return mg.tanh(x) * x.detach()

    with pytest.raises(mg.GraphError, match=r"order 1 .*finite differences"):
        check_grads(step, [rng.standard_normal(3)])
    with pytest.raises(MinigradError, match="floats only"):  # asked for in words: it cannot be had
        check_grads(step, [rng.standard_normal(3)], complex_step=True)


@pytest.mark.smoke
def test_the_complex_step_goes_through_new_operations(rng):
    x = rng.uniform(-0.5, 0.9, (2, 3))
    for function in (mg.log1p, mg.softplus, lambda x: mg.mean(x, 0), lambda x: mg.log1p(x * x).sum(axis=1)):
        assert check_grads(function, [x], complex_step=True) <= 1e-6
        assert check_grads(function, [x], order=1, complex_step=True) <= 1e-13
    assert np.isfinite(check_grads(mg.norm, [x]))


@pytest.mark.smoke
def test_at_a_kink_it_says_so_and_beside_one_it_still_measures(rng):
    with pytest.raises(
        KinkError, match=r"over 1e-3 and .* over 1e-5: the inputs are at a kink .*; draw others"
    ):
        check_grads(mg.abs, [np.array([0.5, 1e-6])], order=1)
    assert check_grads(mg.abs, [np.array([0.5, 2e-4])], order=1) <= 1e-6
    assert check_grads(lambda x: mg.relu(x) * x, [np.array([0.5, -2e-4])]) <= 1e-6


@pytest.mark.smoke
def test_a_kink_nearby_hides_no_wrong_gradient(rng):
    def wrong(x):
        return mg.abs(x) + mg.tanh(x.detach())

    with pytest.raises(mg.GraphError):  # of a kink or of a gradient: which, another draw tells
        check_grads(wrong, [np.array([0.5, 2e-4])], order=1)
    with pytest.raises(mg.GraphError, match="by reverse mode and"):
        check_grads(wrong, [np.array([0.5, 0.1])], order=1)
