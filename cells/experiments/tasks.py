"""Tasks that tell recurrent networks apart, made from a generator: the same generator, the same data.

Each function draws a batch of N sequences, time-major, and says its shapes.  `Task` binds what is drawn to the
configuration that answers it, to its measure, and to what one reaches without memory.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from minigrad import InputError, Tensor, cross_entropy, mse, one_hot

from ..configurations import many_to_many, many_to_one
from ..layer import positive

Batch = tuple[np.ndarray, ...]

BLANK = 0  # of copy memory and reversal: nothing is said, nothing is asked
ADDING_BASELINE = 1 / 6  # the variance of a sum of two uniform numbers


def adding(T: int, N: int, rng: np.random.Generator) -> Batch:
    """The adding problem: x (T, N, 2), a number in [0, 1) and a marker, and the targets (N, 1).

    Two steps of each sequence are marked; their numbers are to be added (Hochreiter and Schmidhuber, 1997,
    in the version of Le, Jaitly and Hinton, 2015).  Always saying 1 has the mean squared error 1/6.
    Raises InputError for fewer than two steps.
    """
    _check("adding", rng, T=T, N=N)
    if T < 2:
        raise InputError(f"adding: T = {T} steps; two of them are marked, give at least 2")
    x = np.zeros((T, N, 2), np.float32)
    x[..., 0] = rng.random((T, N), np.float32)
    first = rng.integers(0, T, N)
    second = (first + rng.integers(1, T, N)) % T  # any other step
    for marked in (first, second):
        x[marked, np.arange(N), 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(axis=0)[:, None]


def copy_memory(delay: int, N: int, rng: np.random.Generator, *, length: int = 10, symbols: int = 8) -> Batch:
    """Copy memory: x and targets, both (delay + 2·length, N) whole numbers 0 … symbols + 1 and 0 … symbols.

    `length` symbols, `delay` steps later, of which the last says it with a delimiter, to be recalled in their
    order; all else is blank (Hochreiter and Schmidhuber, 1997; as in Arjovsky, Shah and Bengio, 2016, and
    Bai, Kolter and Koltun, 2018, with 10 symbols of 8).
    Raises InputError for sizes below 1 and an `rng` that is not a generator.
    """
    _check("copy_memory", rng, delay=delay, N=N, length=length, symbols=symbols)
    told = rng.integers(1, symbols + 1, (length, N))
    x = np.full((delay + 2 * length, N), BLANK)
    targets = x.copy()
    x[:length] = told
    x[length + delay - 1] = symbols + 1
    targets[-length:] = told
    return x, targets


def copy_baseline(delay: int, *, length: int = 10, symbols: int = 8) -> float:
    """The cross-entropy a step, in nats, of who knows when to recall but not what."""
    return length * math.log(symbols) / (delay + 2 * length)


def reversal(length: int, N: int, rng: np.random.Generator, *, symbols: int = 8) -> Batch:
    """Reversal: x (2·length, N), symbols 1 … `symbols` and then blanks, and the targets (length, N).

    The targets are the symbols from the last to the first, and stand against the last `length` steps.
    Raises InputError for sizes below 1 and an `rng` that is not a generator.
    """
    _check("reversal", rng, length=length, N=N, symbols=symbols)
    told = rng.integers(1, symbols + 1, (length, N))
    return np.concatenate([told, np.full_like(told, BLANK)]), told[::-1].copy()


def windows(codes: np.ndarray, T: int, N: int, rng: np.random.Generator) -> Batch:
    """N windows of a text from random places: x (T, N) and targets (T, N), the next characters.

    codes : the text as whole numbers (length,), as from `Alphabet.encode`.
    Raises InputError for a text of fewer than T + 1 characters.
    """
    _check("windows", rng, T=T, N=N)
    if len(codes) < T + 1:
        raise InputError(
            f"windows: the text has {len(codes)} characters, a window of T = {T} steps needs {T + 1}"
        )
    part = codes[rng.integers(0, len(codes) - T, N) + np.arange(T + 1)[:, None]]
    return part[:-1], part[1:]


# Words by their class.

WORDS: dict[str, tuple[str, ...]] = {
    "animal": ("badger", "donkey", "falcon", "lizard", "otter", "spider"),
    "colour": ("crimson", "green", "indigo", "purple", "violet", "yellow"),
    "fruit": ("apricot", "banana", "cherry", "lemon", "orange", "quince"),
    "metal": ("cobalt", "copper", "iron", "nickel", "silver", "zinc"),
    "tree": ("alder", "beech", "cedar", "hazel", "linden", "willow"),
    "weather": ("drizzle", "fog", "hail", "mist", "snow", "thunder"),
}
END = "."  # after a word


def words(N: int, rng: np.random.Generator, *, of: dict[str, tuple[str, ...]] = WORDS) -> Batch:
    """Words by class: classes (N,), the word's letters (T, N) with its end, and which of them count (T, N).

    Letters are numbers in ``word_alphabet(of)``; T is the longest word's length and 1 for the end.
    Raises InputError for N below 1 and an `rng` that is not a generator.
    """
    _check("words", rng, N=N)
    letters = word_alphabet(of)
    names = list(of)
    classes = rng.integers(0, len(names), N)
    drawn = [of[names[c]][rng.integers(len(of[names[c]]))] + END for c in classes]
    T = max(map(len, chain.from_iterable(of.values()))) + 1
    spelled = np.array([[letters.index(c) for c in w.ljust(T, END)] for w in drawn]).T
    return classes, spelled, np.arange(T)[:, None] < np.array([len(w) for w in drawn])


def word_alphabet(of: dict[str, tuple[str, ...]] = WORDS) -> str:
    """The end and the letters of the words, in the order of their numbers."""
    return END + "".join(sorted(set("".join(chain.from_iterable(of.values())))))


# Sentiment: sentences of our own making, in which the order of the words decides.

SUBJECTS = ["film", "plot", "music", "ending", "acting", "story", "dialogue", "pace"]
GOOD = ["good", "great", "charming", "clever", "funny", "moving", "gripping", "lovely"]
BAD = ["bad", "dull", "boring", "clumsy", "weak", "tedious", "silly", "bleak"]
NEGATIONS = ["not", "never", "hardly"]
ADVERBS = ["very", "really", "quite"]
VOCABULARY = (
    "the", "is", "and", "but", *SUBJECTS, *GOOD, *BAD, *NEGATIONS, *ADVERBS,
)  # fmt: skip
LONGEST = 2 * 5 + 1  # words of a sentence


def sentence(rng: np.random.Generator) -> tuple[str, int]:
    """A sentence about a film, and whether it is praise (1) or not (0).

    "the plot is not dull but the music is weak" is not praise, "the plot is dull but the music is not weak" is:
    a negation turns what follows it, and after "but" comes what counts.
    """
    first, praise = _clause(rng)
    if rng.random() < 0.25:
        return first, praise
    while True:
        second, also = _clause(rng)
        if second.split()[1] != first.split()[1]:
            return f"{first} {'and' if also == praise else 'but'} {second}", also


def _clause(rng: np.random.Generator) -> tuple[str, int]:
    good = int(rng.integers(2))
    modifier = rng.integers(3)  # a negation, an adverb, nothing
    word = str(rng.choice((GOOD, BAD)[1 - good]))
    between = (f"{rng.choice(NEGATIONS)} ", f"{rng.choice(ADVERBS)} ", "")[modifier]
    return f"the {rng.choice(SUBJECTS)} is {between}{word}", 1 - good if modifier == 0 else good


def sentiment(N: int, rng: np.random.Generator, *, held_out: bool = False) -> Batch:
    """Sentences: words (T, N) as places in VOCABULARY, their lengths (N,), and praise or not (N,).

    T is the longest sentence's length; shorter ones are padded with 0.  A fifth of all sentences, told by
    their text, is held out: those come with `held_out` and never without.
    Raises InputError for N below 1 and an `rng` that is not a generator.
    """
    _check("sentiment", rng, N=N)
    found: list[tuple[str, int]] = []
    while len(found) < N:
        text, praise = sentence(rng)
        if (zlib.crc32(text.encode()) % 5 == 0) == held_out:
            found.append((text, praise))
    return (*encode_sentences([text for text, _ in found]), np.array([praise for _, praise in found]))


def encode_sentences(sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Words (T, N) as places in VOCABULARY, padded with 0, and lengths (N,).

    Raises InputError naming a word that is not in it.
    """
    split = [s.lower().split() for s in sentences]
    for w in chain.from_iterable(split):
        if w not in VOCABULARY:
            raise InputError(f"the word {w!r} is not known; the words are {', '.join(VOCABULARY)}")
    lengths = np.array([len(s) for s in split])
    x = np.zeros((max(lengths, default=0), len(split)), np.int64)
    for n, s in enumerate(split):
        x[: len(s), n] = [VOCABULARY.index(w) for w in s]
    return x, lengths


# A task: what is drawn, how it is answered, and how well.


@dataclass(frozen=True)
class Task:
    """What a sequence layer with `inputs` and an output layer of this `width` are to learn.

    width : of an answer, how many numbers it has.
    draw : ``draw(N, rng)`` gives the arrays of a training batch, `held_out` those of a test.
    loss : ``loss(layer, output, *batch)``, one number; times `unit` it is in `measure`.
    baseline : what is reached without memory, in `measure`.
    length : of a sequence, T: how far back a network must see.

    The tasks below go to other processes as they are (pickle): what they are made of has a name in this file.
    """

    name: str
    inputs: int
    width: int
    draw: Callable[[int, np.random.Generator], Batch]
    held_out: Callable[[int, np.random.Generator], Batch]
    loss: Callable[..., Tensor]
    measure: str
    baseline: float
    length: int
    unit: float = 1.0


def adding_task(T: int = 100) -> Task:
    """The adding problem over T steps, many to one; mean squared error.  Its `draw` raises InputError for T below 2."""
    draw = partial(adding, T)
    return Task("adding", 2, 1, draw, draw, _sum, "mean squared error", ADDING_BASELINE, T)


def copy_task(delay: int = 50, *, length: int = 10, symbols: int = 8) -> Task:
    """Copy memory over `delay` steps, many to many; nats a step, over all steps."""
    draw = partial(copy_memory, delay, length=length, symbols=symbols)
    loss = partial(_symbols, symbols + 2)
    baseline = copy_baseline(delay, length=length, symbols=symbols)
    return Task(
        "copy", symbols + 2, symbols + 1, draw, draw, loss, "nats a step", baseline, delay + 2 * length
    )


def characters_task(codes: np.ndarray, classes: int, T: int = 100, held_out: float = 0.1) -> Task:
    """The next character of a text, many to many; bits a character on the part held out at its end.

    codes : the text as whole numbers 0 … classes − 1.  The baseline knows how frequent each character is.
    Raises InputError for a text that is too short for a window in either part.
    """
    cut = int(len(codes) * (1 - held_out))
    for part in (codes[:cut], codes[cut:]):
        windows(part, T, 1, np.random.default_rng(0))  # refuses a text that is too short
    share = (np.bincount(codes[:cut], minlength=classes) + 1) / (cut + classes)
    return Task(
        "characters", classes, classes, partial(windows, codes[:cut], T), partial(windows, codes[cut:], T),
        partial(_symbols, classes), "bits a character", float(-np.log2(share)[codes[cut:]].mean()), T,
        1 / math.log(2),
    )  # fmt: skip


def _sum(layer, output, x, target) -> Tensor:
    return mse(many_to_one(layer, output, x), target)


def _symbols(classes: int, layer, output, x, target) -> Tensor:
    return cross_entropy(many_to_many(layer, output, one_hot(x, classes)), target)


def _check(who: str, rng, **sizes) -> None:
    positive(who, **sizes)
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"{who}: give a generator, numpy.random.default_rng(seed), not {rng!r}")
