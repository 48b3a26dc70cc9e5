"""Networks side by side: as many parameters as asked for, the same data for all, curves that are what was measured."""

from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from cells import RNN, Output, Stack, compare, tasks
from cells.experiments.comparison import HELD_OUT, MODELS, Record, curves, learn, width_for
from minigrad import InputError
from tests.cells.swept import Mean
from tests.cells.swept import quick as quick_model

TASK = tasks.adding_task(6)


QUICK = dict.fromkeys(("one", "two"), quick_model)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("parameters", [2_000, 10_000])
def test_the_width_is_that_with_the_nearest_number_of_parameters(name, parameters):
    model = MODELS[name]
    width = width_for(model, TASK, parameters)
    assert width % model.multiple == 0

    def off(width):
        layer = model.make(TASK.inputs, width, TASK.length, np.random.default_rng(0))
        learned = [
            *layer.parameters().values(),
            *Output(layer.width, 1, np.random.default_rng(0)).parameters().values(),
        ]
        return abs(sum(p.size for p in learned) - parameters)

    others = [width + k * model.multiple for k in (-2, -1, 1, 2) if width + k * model.multiple > 0]
    assert all(off(width) <= off(other) for other in others)
    assert off(width) <= 0.2 * parameters


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_answers_the_task_and_sees_all_its_steps(name, rng):
    task = tasks.adding_task(40)
    layer = MODELS[name].make(2, 12, task.length, rng)
    output = Output(layer.width, 1, rng)
    x, target = task.draw(3, rng)
    x = mg.Tensor(x, requires_grad=True)
    loss = task.loss(layer, output, x, target)
    loss.backward()
    assert loss.shape == () and np.abs(x.grad[0]).max() > 0, "the first step moves the answer"


def test_a_record_is_what_was_measured(rng):
    layer, output = Stack(RNN, 2, 5, 1, rng), Output(5, 1, rng)
    seen = []
    record = learn(
        TASK, layer, output, rng, steps=25, every=10, tests=2, batch=8, name="mine", width=5,
        watch=lambda r: seen.append((r.steps[-1], r.scores[-1])),
    )  # fmt: skip
    assert record.steps == [0, 10, 20, 25] and seen == list(zip(record.steps, record.scores, strict=True))
    assert record.parameters == layer.size + output.size == 7 * 5 + 5 + 6
    assert (record.model, record.task, record.measure, record.width) == (
        "mine",
        "adding",
        "mean squared error",
        5,
    )
    again = [TASK.held_out(8, np.random.default_rng([1, k, HELD_OUT])) for k in range(2)]
    expected = np.mean([TASK.loss(layer, output, *arrays).item() for arrays in again])
    assert record.scores[-1] == pytest.approx(expected, rel=1e-5)
    others = [TASK.held_out(8, np.random.default_rng([2, k, HELD_OUT])) for k in range(8)]
    expected = np.mean([TASK.loss(layer, output, *arrays).item() for arrays in others])
    assert record.score == pytest.approx(expected, rel=1e-5)
    assert 0 < record.seconds_a_step < record.seconds[-1] <= record.wall
    assert record.seconds == sorted(record.seconds) and record.seconds[0] == 0


def quick(seed=0, **options):
    rng = np.random.default_rng(seed)
    layer = Mean(2, 4, rng)
    return learn(TASK, layer, Output(4, 1, rng), rng, tests=1, batch=8, every=5, **options)


def test_training_ends_when_told():
    assert quick(until=1e9).steps == [0]
    assert quick(steps=0).steps == [0]
    assert quick(steps=7).steps == [0, 5, 7]
    assert quick(seconds=1e-9).steps == [0, 1] and quick(wall=1e-9).steps == [0, 1]
    early = quick(steps=500, until=0.5, lr=0.05)
    assert early.steps[-1] < 500 and early.scores[-1] < 0.5 <= min(early.scores[:-1])


def test_the_score_is_in_the_unit_of_the_task():
    codes = np.random.default_rng(0).integers(0, 4, 300)
    task = tasks.characters_task(codes, 4, 5)
    rng = np.random.default_rng(0)
    layer, output = Mean(4, 3, rng), Output(3, 4, rng)
    record = learn(task, layer, output, rng, steps=0, tests=3, batch=4)
    batches = [task.held_out(4, np.random.default_rng([1, k, HELD_OUT])) for k in range(3)]
    nats = np.mean([task.loss(layer, output, *arrays).item() for arrays in batches])
    assert record.scores == [pytest.approx(nats / np.log(2), rel=1e-5)]


def test_all_models_see_the_same_batches_and_the_same_seed_gives_the_same_record():
    drawn: dict[str, list] = {}
    name = ""

    def draw(N, rng):
        x, target = TASK.draw(N, rng)
        drawn.setdefault(name, []).append(x)
        return x, target

    def watch(record):
        nonlocal name
        name = record.model

    task = tasks.Task(**{**vars(TASK), "draw": draw})
    first = compare(task, models=QUICK, parameters=60, steps=6, batch=4, watch=watch)
    assert [r.model for r in first] == ["one", "two"] and len(drawn["one"]) == len(drawn["two"]) >= 6
    for a, b in zip(drawn["one"], drawn["two"], strict=True):
        np.testing.assert_array_equal(a, b)
    again = compare(TASK, models=QUICK, parameters=60, steps=6, batch=4)
    assert [r.scores for r in again] == [r.scores for r in first]
    assert compare(TASK, models=QUICK, parameters=60, steps=6, batch=4, seed=1)[0].scores != first[0].scores


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give steps, or seconds"),
        (dict(steps=1, parameters=5), "one has 10 parameters at width 3"),
        (dict(steps=1, parameters=0), "parameters = 0"),
        (dict(steps=1, parameters=10**9), "at most 10,000,000"),
        (dict(steps=1, batch=1.5), "batch = 1.5"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(InputError, match=words):
        compare(TASK, models=QUICK, **options)


# The picture.


def records() -> list[Record]:
    made = []
    for k, name in enumerate(MODELS):
        steps = list(range(0, 200, 20))
        scores = [0.2 * 0.8 ** (n * (k + 1) / 4) for n in range(len(steps))]
        made.append(
            Record(
                name, "adding", "mean squared error", 1 / 6, 8, 5000, steps, [s / 100 for s in steps], scores
            )
        )
    return made


def test_curves_are_drawn_with_their_units_and_the_same_each_time(tmp_path):
    first, again = tmp_path / "a" / "curves.svg", tmp_path / "b" / "curves.svg"
    curves(records(), first, first.with_suffix(".png"), title="<script> & $5$")
    curves(records(), again, again.with_suffix(".png"), title="<script> & $5$")
    for suffix in (".svg", ".png"):
        assert first.with_suffix(suffix).read_bytes() == again.with_suffix(suffix).read_bytes()
    svg = first.read_text(encoding="utf-8")
    for text in (
        *MODELS,
        "training steps",
        "seconds of training",
        "mean squared error, held out",
        "without memory",
    ):
        assert f">{text}<" in svg, text
    assert "&lt;script&gt; &amp; $5$" in svg and "<script" not in svg
    assert first.with_suffix(".png").stat().st_size > 10_000
    assert (
        len({line for line in svg.split("stroke: #")[1:] if line[:6] in "0072b2 d55e00 009e73 cc79a7 e69f00"})
        >= 5
    )
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == [
        "curves.png",
        "curves.png",
        "curves.svg",
        "curves.svg",
    ]


def test_what_cannot_be_drawn_is_said(tmp_path):
    with pytest.raises(InputError, match="no record"):
        curves([], tmp_path / "a.svg")
    with pytest.raises(InputError, match=r"ends in \.svg, \.png or \.pdf"):
        curves(records(), tmp_path / "a.gif")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        curves(records(), file / "a.svg")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_held_out_is_never_trained_on():
    from cells.experiments.comparison import _held_out

    task = tasks.adding_task(10)
    held_out = [arrays[0] for seed in (1, 2) for arrays in _held_out(task, 4, 3, seed)]
    for seed in range(6):
        for key in (seed, [seed, 1]):
            first = task.draw(4, np.random.default_rng(key))[0]
            assert not any(np.array_equal(first, x) for x in held_out)
