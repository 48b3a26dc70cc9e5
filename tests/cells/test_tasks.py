"""The tasks' data: what is asked follows from what is given, baselines are what a guess without memory reaches,
and the same generator gives the same data.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigrad as mg
from cells import GRU, Output, Stack, tasks
from minigrad import InputError

DRAWS = {
    "adding": lambda rng: tasks.adding(20, 6, rng),
    "copy": lambda rng: tasks.copy_memory(7, 6, rng),
    "reversal": lambda rng: tasks.reversal(5, 6, rng),
    "windows": lambda rng: tasks.windows(np.arange(100) % 7, 9, 6, rng),
    "words": lambda rng: tasks.words(6, rng),
    "sentiment": lambda rng: tasks.sentiment(6, rng),
}


@pytest.mark.parametrize("name", list(DRAWS))
def test_the_same_generator_gives_the_same_data(name):
    first, again, other = (DRAWS[name](np.random.default_rng(seed)) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(first, other, strict=True))


def test_adding_marks_two_different_steps_and_asks_for_their_sum(rng):
    x, target = tasks.adding(7, 5000, rng)
    assert x.shape == (7, 5000, 2) and target.shape == (5000, 1) and x.dtype == target.dtype == np.float32
    assert (x[..., 1].sum(axis=0) == 2).all() and set(np.unique(x[..., 1])) == {0, 1}
    for n in range(50):
        np.testing.assert_allclose(target[n, 0], sum(v for v, m in x[:, n] if m), rtol=1e-6)
    share = x[..., 1].mean(axis=1)
    np.testing.assert_allclose(share, 2 / 7, atol=0.03)  # every step is marked as often
    assert abs(float(((target - 1) ** 2).mean()) - tasks.ADDING_BASELINE) < 0.01


def test_copy_memory_asks_for_the_symbols_behind_the_delimiter(rng):
    x, targets = tasks.copy_memory(30, 500, rng)
    assert x.shape == targets.shape == (50, 500)
    np.testing.assert_array_equal(targets[-10:], x[:10])
    assert not targets[:-10].any() and (x[39] == 9).all() and not x[40:].any() and not x[10:39].any()
    assert set(np.unique(x[:10])) == set(range(1, 9))
    few, _ = tasks.copy_memory(3, 4, rng, length=2, symbols=2)
    assert few.shape == (7, 4) and few[4].tolist() == [3] * 4 and few[:2].max() <= 2


def test_the_baseline_of_copy_memory_is_that_of_who_knows_when_but_not_what(rng):
    _, targets = tasks.copy_memory(50, 200, rng)
    logits = np.full((70, 200, 9), -1e9)
    logits[:60, :, 0] = 0
    logits[60:, :, 1:] = 0
    assert abs(mg.cross_entropy(logits, targets).item() - tasks.copy_baseline(50)) < 1e-9
    assert tasks.copy_baseline(50) == 10 * math.log(8) / 70


def test_reversal_asks_for_the_symbols_from_the_last_on(rng):
    x, targets = tasks.reversal(4, 30, rng, symbols=3)
    assert x.shape == (8, 30) and targets.shape == (4, 30)
    np.testing.assert_array_equal(targets, x[:4][::-1])
    assert not x[4:].any() and set(np.unique(x[:4])) == {1, 2, 3}


def test_windows_are_of_the_text_and_their_targets_one_further(rng):
    codes = np.arange(50)
    x, targets = tasks.windows(codes, 8, 2000, rng)
    np.testing.assert_array_equal(targets, x + 1)
    np.testing.assert_array_equal(x, x[0] + np.arange(8)[:, None])
    assert x[0].min() == 0 and targets[-1].max() == 49  # every place can come


def test_words_are_of_their_class_with_an_end(rng):
    classes, spelled, real = tasks.words(400, rng)
    letters, names = tasks.word_alphabet(), list(tasks.WORDS)
    for n in range(400):
        word = "".join(letters[k] for k in spelled[real[:, n], n])
        assert word.endswith(".") and word[:-1] in tasks.WORDS[names[classes[n]]]
    assert set(classes) == set(range(len(names)))
    assert len({w for of in tasks.WORDS.values() for w in of}) == sum(map(len, tasks.WORDS.values()))


def truth(text: str) -> int:
    """The sentiment, read by other rules: from the last word back."""
    *before, word = text.split()
    negated = any(w in tasks.NEGATIONS for w in before[-2:])
    return int((word in tasks.GOOD) != negated)


def test_the_order_of_a_sentence_decides_its_sentiment(rng):
    x, lengths, praise = tasks.sentiment(600, rng)
    seen: dict[tuple, set] = {}
    for n in range(600):
        words = [tasks.VOCABULARY[k] for k in x[: lengths[n], n]]
        text = " ".join(words)
        assert praise[n] == truth(text), text
        assert ("but" in words) == (truth(text.split(" but ")[0]) != praise[n])
        assert not x[lengths[n] :, n].any()
    assert 0.4 < praise.mean() < 0.6 and lengths.max() <= tasks.LONGEST
    for _ in range(20_000):  # the same words in another order may say the opposite
        text, good = tasks.sentence(rng)
        seen.setdefault(tuple(sorted(text.split())), set()).add(good)
    assert sum(len(both) == 2 for both in seen.values()) > 10


def test_held_out_sentences_are_never_trained_on(rng):
    def texts(**options):
        x, lengths, _ = tasks.sentiment(1500, rng, **options)
        return {tuple(x[:k, n]) for n, k in enumerate(lengths)}

    trained, held_out = texts(), texts(held_out=True)
    assert len(trained) > 800 and len(held_out) > 400 and not trained & held_out


def test_sentences_are_encoded_and_padded():
    x, lengths = tasks.encode_sentences(["The plot is not dull", "the end".replace("end", "ending")])
    assert lengths.tolist() == [5, 2] and x.shape == (5, 2) and not x[2:, 1].any()
    with pytest.raises(InputError, match="word 'gold' is not known"):
        tasks.encode_sentences(["the plot is gold"])


TASKS = {
    "adding": lambda: tasks.adding_task(12),
    "copy": lambda: tasks.copy_task(3, length=2, symbols=4),
    "characters": lambda: tasks.characters_task(np.arange(400) % 5, 5, 12),
}


@pytest.mark.parametrize("name", list(TASKS))
def test_a_task_has_a_loss_that_moves_every_parameter(name, rng):
    task = TASKS[name]()
    layer, output = Stack(GRU, task.inputs, 6, 1, rng), Output(6, task.width, rng)
    parameters = [*layer.parameters().values(), *output.parameters().values()]
    for batch in (task.draw(8, rng), task.held_out(8, rng)):
        loss = task.loss(layer, output, *batch)
        assert loss.shape == () and 0 < loss.item() * task.unit < 10 * task.baseline
    loss.backward()
    assert all(np.abs(p.grad).max() > 0 for p in parameters)


def test_the_characters_held_out_are_those_at_the_end(rng):
    codes = np.concatenate([np.zeros(90, int), np.ones(30, int)])
    task = tasks.characters_task(codes, 2, 5, held_out=0.25)
    assert not task.draw(50, rng)[0].any() and task.held_out(50, rng)[0].all()
    assert task.baseline == pytest.approx(-math.log2(1 / 92)) and task.unit == 1 / math.log(2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda rng: tasks.adding(1, 2, rng), "at least 2"),
        (lambda rng: tasks.adding(5, 0, rng), "N = 0"),
        (lambda rng: tasks.adding(5, 2, 3), "numpy.random.default_rng"),
        (lambda rng: tasks.copy_memory(0, 2, rng), "delay = 0"),
        (lambda rng: tasks.reversal(2.5, 2, rng), "length = 2.5"),
        (lambda rng: tasks.windows(np.arange(5), 5, 2, rng), "5 characters, a window of T = 5 steps needs 6"),
        (lambda rng: tasks.characters_task(np.arange(20), 20, 10), "needs 11"),
        (lambda rng: tasks.words(0, rng), "N = 0"),
        (lambda rng: tasks.sentiment(True, rng), "N = True"),
    ],
)
def test_mistakes_are_named(call, words, rng):
    with pytest.raises(InputError, match=words):
        call(rng)
