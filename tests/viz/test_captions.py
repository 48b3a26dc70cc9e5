"""Captions: what belongs to a step from outside, beside its "t = 3"."""

from __future__ import annotations

import re

import numpy as np
import pytest
from drawn import network, plain, texts
from test_escaping import NASTY, harmless

import viz
from minigrad import InputError, Tensor, scope, tanh
from viz.measure.folding import steps_shown
from viz.read.network import read

HELLO = ["h → e", "e → l", "l → l", "l → o"]


def pictures(loss, steps, captions):
    window = (steps[0].t, steps[-1].t)
    for level in ("step", "gate", "operation"):
        yield viz.draw(loss, steps, level=level, captions=captions, window=window)
    yield viz.gradient(loss, steps, captions=captions)
    yield viz.gates(steps, captions=captions)


def test_every_step_shows_its_own():
    loss, steps = network()
    for picture in pictures(loss, steps, HELLO):
        words = texts(picture.svg())
        assert all(any(said.endswith(caption) for said in words) for caption in HELLO), picture.title


def test_a_caption_stands_beside_its_time():
    loss, steps = network()
    step = viz.draw(loss, steps, level="step", captions=HELLO).dot
    assert ">t = 3  l → l<" in step
    gate = viz.draw(loss, steps, captions=HELLO).dot
    at = re.search(r'"text e _ l" \[.*pos="([\d.]+),([\d.]+)!"', gate)
    panel = re.search(r'subgraph "cluster t=2" \{\s*bb="([-\d.]+),([-\d.]+),([-\d.]+),([-\d.]+)"', gate)
    assert float(panel[1]) < float(at[1]) < float(panel[3]) and float(panel[4]) - float(at[2]) < 20


def test_a_dict_gives_captions_to_some_steps():
    loss, steps = network()
    for picture in pictures(loss, steps, {3: "here"}):
        assert any(said.endswith("here") for said in texts(picture.svg()))
    assert viz.draw(loss, steps, captions={}).dot == viz.draw(loss, steps).dot


def test_long_captions_are_shortened():
    loss, steps = network()
    for picture in pictures(loss, steps, ["a very long caption, " * 20] * 4):
        assert max((len(said) for said in texts(picture.svg()) if "a very" in said), default=0) <= 60


def test_captions_in_steps_that_are_left_out_are_left_out():
    loss, steps = network(T=30)
    shown = steps_shown(read(loss))
    dot = viz.draw(loss, steps, captions=[f"no. {t}" for t in range(1, 31)]).dot
    assert len(shown) < 30 and all((f"no. {t}<" in dot) == (t in shown) for t in range(1, 31))


@pytest.mark.parametrize("caption", NASTY, ids=range(len(NASTY)))
def test_nasty_captions(caption):
    loss, steps = network(T=2, H=2, D=2)
    for picture in pictures(loss, steps, [caption, caption]):
        harmless(picture.svg())


def test_no_number_is_lost_beside_empty_words():
    """An id that was numbered must not meet a word that is that number."""
    loss, steps = network()
    words = texts(viz.gradient(loss, steps, captions={1: "", 2: "", 3: "", 4: ""}).svg())
    assert all(words.count(str(t)) >= 2 for t in range(5)), words  # once below each state


@pytest.mark.parametrize(
    "captions, words",
    [(["a", "b"], "captions: 2 for 4 steps (t = 1 … 4); give one text per step"),
     ({7: "a"}, "captions: there is no step t = 7; there are t = 1 … 4"),
     ("hell", "captions: 'hell' is not a list; give one text per step"), (5, "captions: 5 is not a list")],
)  # fmt: skip
def test_wrong_captions(captions, words):
    loss, steps = network()
    for call in (
        lambda: viz.draw(loss, steps, captions=captions),
        lambda: viz.gradient(loss, steps, captions=captions),
        lambda: viz.gates(steps, captions=captions),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            call()


def test_a_graph_without_steps_has_no_captions():
    with pytest.raises(InputError, match="captions are for steps"):
        viz.draw(plain(), captions=["a"])


def test_gates_of_no_sequences():
    with scope("t=1"):
        h = tanh(Tensor(np.zeros((0, 3)), requires_grad=True, name="x") * 2.0).named("h")
    with pytest.raises(InputError, match="N = 0 sequences"):
        viz.gates(h)
