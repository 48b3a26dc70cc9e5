"""Numbers, colours and the logarithmic scale."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viz.diagram.canvas import spline
from viz.language.scale import Scale, ramp, signed
from viz.language.status import norm
from viz.language.text import number, pretty


@pytest.mark.parametrize(
    "value, said",
    [(0.034123, "0.034"), (1.2e-5, "1.2e−5"), (0, "0"), (-0.5, "−0.5"), (1234.5, "1234"), (4.1e8, "4.1e8"),
     (100, "100"), (float("nan"), "NaN"), (float("-inf"), "−∞"), (1e-8, "1e−8"), (0.999, "1"), (99.9, "100")],
)  # fmt: skip
def test_numbers(value, said):
    assert number(value) == said


@given(st.floats(-1e300, 1e300))
def test_a_number_can_be_read_back(value):
    read = float(number(value).replace("−", "-"))
    assert read == 0 == value or abs(value) < 1e-300 or math.isclose(read, value, rel_tol=0.06)


@given(st.lists(st.floats(-1e150, 1e150), max_size=20))
def test_the_norm(values):
    assert math.isclose(norm(np.array(values)), math.hypot(*values), rel_tol=1e-12)


def test_the_norm_of_extremes():
    assert norm(np.array([1e200, 1e200])) == pytest.approx(1.414e200, rel=1e-3)
    assert norm(np.array([3e-200, 4e-200])) == pytest.approx(5e-200)
    assert math.isnan(norm(np.array([np.nan, 1]))) and norm(np.array([np.inf, 1])) == math.inf
    assert norm(np.zeros((0, 3))) == 0


def lightness(colour: str) -> float:
    r, g, b = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return 0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2


def test_the_ramp_keeps_its_order_in_greyscale():
    values = [lightness(ramp(k / 40)) for k in range(41)]
    assert all(a > b for a, b in itertools.pairwise(values))
    assert values[0] > 0.5 and values[-1] < 0.05


def test_signed_colours_are_white_in_the_middle_and_fall_to_both_ends():
    assert signed(0.0, 1) == "#ffffff" and signed(1, 1) != signed(-1, 1)
    for sign in (1, -1):
        values = [lightness(signed(sign * k / 10, 1)) for k in range(11)]
        assert values == sorted(values, reverse=True)


def test_the_scale_covers_whole_decades():
    scale = Scale.of([0.003, 0.2, 0.0, float("nan"), 1e-30])
    assert (scale.low, scale.high) == (-3, 0) and scale.share(1e-3) == 0 and scale.share(1) == 1
    assert [scale.status(v) for v in (None, 0, 1e-9, 0.1, 1e5, math.inf)] == [
        "not computed", "exactly zero", "vanished", "normal", "exploded", "not a number"
    ]  # fmt: skip
    assert len(Scale(-6, 3).ticks()) <= 7


def test_names_as_on_the_slide():
    assert pretty("c_tilde") == "c̃" and pretty("W_f") == "W_f"


def test_a_line_ends_in_its_arrow():
    text = spline([(0, 0), (50, 0), (50, 40)], "forward")
    assert text.startswith("e,50.0,40.0 0.0,0.0 ")
    assert (len(text.split()) - 2) % 3 == 0  # a start, and three points for every piece
