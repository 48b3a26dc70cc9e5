"""Dates as people write them into digits: "the 3rd of March, 1998" → "1998-03-03", character by character.

An encoder reads the text in both directions; a decoder writes the date, and before each
character looks at the text by additive attention (Bahdanau, Cho and Bengio, 2015).  One day in ten
is never seen in training: prints how many of those come out exactly right, by way of writing, and
draws where the decoder looked.

    python examples/dates.py
    python examples/dates.py --ask "Tuesday the 3rd of march '98" --cell lstm --hidden 64 --steps 2000 --out pictures
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cells
import minigrad as mg
import viz
from minigrad.command.given import add_language, prepare
from minigrad.command.main import ended

FIRST, DAYS = date(1930, 1, 1), 36_525  # a hundred years, so that two digits say which one
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
ORDINALS = dict(
    one="first", two="second", three="third", five="fifth", eight="eighth", nine="ninth", twelve="twelfth"
)
FORMS = (
    "{d} {month} {year}", "{d} {mon} {yy}", "{d}. {month} {year}", "{mon} {d} {year}", "{month} {d}, {year}",
    "{th} {month} {year}", "{th} of {month} {year}", "the {th} of {month}, {year}", "{month} the {th}, {year}",
    "{weekday} the {th} of {month} {year}", "{weekday}, {month} {d}, {year}", "{day}, {d} {mon} '{yy}",
    "{year} {month} {d}", "{mm}/{dd}/{yy}", "{m}/{d}/{year}", "{dd}.{mm}.{year}", "{d}.{m}.{yy}", "{year}-{mm}-{dd}",
    "the {ordinal} of {month}, {year}", "{month} the {ordinal}, {words}", "{ordinal} {month} {words}",
)  # fmt: skip
CASES = (str, str.lower, str.upper)


def words(number: int) -> str:
    """A number below 100 in words."""
    if number < 20:
        return NUMBERS[number]
    ten, one = divmod(number, 10)
    return TENS[ten - 2] + (f"-{NUMBERS[one]}" if one else "")


def ordinal(number: int) -> str:
    """third, fourth, twentieth, twenty-first."""
    start, dash, last = words(number).rpartition("-")
    return start + dash + ORDINALS.get(last, last[:-1] + "ieth" if last.endswith("y") else f"{last}th")


def year_in_words(year: int) -> str:
    """nineteen ninety-eight, two thousand three, twenty twelve."""
    century, rest = divmod(year, 100)
    if 2000 <= year < 2010:
        return "two thousand" + (f" {words(rest)}" if rest else "")
    return f"{words(century)} {words(rest)}"


def written(day: date, form: str) -> str:
    """A day in one of the FORMS; with slashes the month comes first, with dots the day."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(0 if 10 < day.day < 20 else day.day % 10, "th")
    month, weekday = MONTHS[day.month - 1], WEEKDAYS[day.weekday()]
    return form.format(
        d=day.day, dd=f"{day.day:02}", th=f"{day.day}{ending}", ordinal=ordinal(day.day),
        m=day.month, mm=f"{day.month:02}", month=month, mon=month[:3], weekday=weekday, day=weekday[:3],
        year=day.year, yy=f"{day.year % 100:02}", words=year_in_words(day.year),
    )  # fmt: skip


SOURCE = cells.Alphabet("".join(chr(k) for k in range(ord(" "), ord("~") + 1) if chr(k).isalnum()) + " ,./'-")
TARGET = cells.Alphabet("0123456789-")
LENGTH = len("1998-03-03")


class Dates:
    """Days to learn from and days held out, one in ten; drawn in any way of writing."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        days = rng.permutation(DAYS)
        self.held_out, self.known = days[: DAYS // 10], days[DAYS // 10 :]

    def draw(self, N: int, of: np.ndarray, forms=FORMS) -> tuple[list[str], list[str]]:
        """N texts and their dates."""
        drawn = [FIRST + timedelta(int(k)) for k in self.rng.choice(of, N)]
        texts = [written(day, forms[self.rng.integers(len(forms))]) for day in drawn]
        return [CASES[self.rng.integers(len(CASES))](text) for text in texts], [str(day) for day in drawn]

    def batch(self, N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Texts (L, N), their lengths (N,), and dates (10, N), as numbers of characters."""
        texts, dates = self.draw(N, self.known)
        return (*encode(texts), np.stack([TARGET.encode(d) for d in dates], axis=1))


def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (L, N) of the characters of N texts, and the lengths of the texts."""
    lengths = np.array([len(text) for text in texts])
    codes = np.zeros((lengths.max(), len(texts)), np.int64)
    for n, text in enumerate(texts):
        codes[: len(text), n] = SOURCE.encode(text)
    return codes, lengths


class Model:
    """What reads in both directions, what writes and looks, and logits of the next character."""

    def __init__(self, kind: str, hidden: int, rng: np.random.Generator):
        cell, K = cells.CELLS[kind], len(TARGET)
        self.encoder = cells.Bidirectional(cell, len(SOURCE), hidden, rng)
        self.decoder = cells.AttentionDecoder(cell, K, 2 * hidden, self.encoder.width, rng, hidden)
        self.output = cells.Output(self.decoder.width, K, rng)

    def parameters(self) -> dict[str, mg.Tensor]:
        parts = {"encoder": self.encoder, "decoder": self.decoder, "output": self.output}
        return {
            f"{part}.{name}": p for part, layer in parts.items() for name, p in layer.parameters().items()
        }

    def reading(self, codes, lengths) -> cells.AttentionDecoder:
        """The decoder that looks at these texts (L, N)."""
        h = self.encoder(mg.one_hot(codes, len(SOURCE)), lengths=lengths).outputs
        return self.decoder.over(h, lengths=lengths)

    def loss(self, codes, lengths, dates) -> mg.Tensor:
        """Nats per character; each is written after the right ones before it (teacher forcing)."""
        given = mg.one_hot(dates[:-1], len(TARGET))
        return mg.cross_entropy(
            cells.one_to_many(self.reading(codes, lengths), self.output, None, given), dates
        )

    def write(self, texts: list[str]) -> list[str]:
        """The date of each text; what was written is read as the next input."""
        codes, lengths = encode(texts)
        with mg.no_grad():
            nothing = np.zeros((len(texts), len(TARGET)), np.float32)
            chosen = cells.generate(self.reading(codes, lengths), self.output, nothing, LENGTH)
        return [TARGET.decode(column) for column in chosen.T]

    def looked(self, text: str, answer: str) -> np.ndarray:
        """The weights (10, L): where it looked in the text before each character of its answer."""
        given = np.eye(len(TARGET), dtype=np.float32)[TARGET.encode(answer[:-1])]
        xs = np.concatenate([np.zeros((1, len(TARGET)), np.float32), given])[:, None]
        with mg.no_grad():
            return self.reading(*encode([text]))(xs).alpha.value[:, 0]


def train(model: Model, data: Dates, options: argparse.Namespace, console: Console) -> None:
    def rate(step: int) -> float:  # up over the first tenth, then down along a cosine
        share = step / options.steps
        return options.lr * min(share / 0.1, 0.5 + 0.5 * math.cos(math.pi * share))

    batches = (data.batch(options.batch) for _ in range(options.steps))
    start = time.perf_counter()
    losses = mg.fit(model.loss, model.parameters(), batches, steps=options.steps, lr=rate)
    if len(losses):
        console.print(
            f"{options.steps} steps in {time.perf_counter() - start:.0f} s; "
            f"{losses[-50:].mean():.4f} nats per character at the end"
        )


def report(model: Model, data: Dates, trials: int, console: Console) -> None:
    """How many held-out days come out exactly right, and an example of each way of writing."""
    table = Table("written as", "an example", "it writes", "right", title="Days that were never seen")
    right = 0
    for form in FORMS:
        texts, dates = data.draw(trials, data.held_out, (form,))
        answers = model.write(texts)
        hits = [a == d for a, d in zip(answers, dates, strict=True)]
        right += sum(hits)
        mark = "" if hits[0] else f" ≠ {dates[0]}"
        table.add_row(escape(form), escape(texts[0]), answers[0] + mark, f"{sum(hits)} of {trials}")
    console.print(table)
    console.print(
        f"{right / (trials * len(FORMS)):.2%} of {trials * len(FORMS)} held-out dates exactly right"
    )


def draw(model: Model, text: str, answer: str, out: Path) -> list[Path]:
    """Where it looked in the text before it wrote each character, as a matrix and as lines."""
    alpha, paths = model.looked(text, answer), []
    for view in ("matrix", "lines"):
        picture = viz.attention(alpha, view=view, inputs=text, outputs=answer, title=f"{text} → {answer}")
        for suffix in (".svg", ".png"):
            picture.save(out / f"dates_{view}{suffix}")
            paths.append(out / f"dates_{view}{suffix}")
    return paths


def arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ask", default="Tuesday the 3rd of March 1998", help="a date to write down and to draw"
    )
    parser.add_argument("--cell", choices=sorted(cells.CELLS), default="gru")
    parser.add_argument("--hidden", type=int, default=32, help="hidden units of each direction (default: 32)")
    parser.add_argument("--steps", type=int, default=1500, help="training steps (default: 1500)")
    parser.add_argument("--batch", type=int, default=64, help="dates in a batch (default: 64)")
    parser.add_argument(
        "--lr", type=float, default=5e-3, help="Adam's largest learning rate (default: 0.005)"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the pictures (default: out)"
    )
    add_language(parser)
    options = parser.parse_args(arguments)
    if options.steps < 0 or options.seed < 0:
        parser.error("--steps and --seed must not be negative")
    if options.hidden < 1 or options.batch < 1:
        parser.error("--hidden and --batch must be at least 1")
    if not 0 < options.lr < 1:
        parser.error("--lr must lie between 0 and 1")
    unknown = [c for c in options.ask if c not in SOURCE.characters]
    if unknown or not options.ask:
        what = f"{unknown[0]!r} does not occur in a date" if unknown else "an empty text is not a date"
        parser.error(f"--ask: {what}; use letters A to Z, digits, blanks and , . / ' -")
    return options


def main(options: argparse.Namespace) -> None:
    viz.language(options.language)
    console = Console()
    rng = np.random.default_rng(options.seed)
    data, model = Dates(rng), Model(options.cell, options.hidden, rng)
    prepare(options.out)
    size = sum(p.size for p in model.parameters().values())
    console.print(
        f"{options.cell} in both directions, {options.hidden} units each; decoder with attention, "
        f"{2 * options.hidden} units; {size:,} parameters"
    )
    try:
        train(model, data, options, console)
    except KeyboardInterrupt:
        console.print("stopped; what was learned so far is kept")
    report(model, data, 100, console)
    (answer,) = model.write([options.ask])
    console.print(escape(f"asked for {options.ask!r} it writes {answer}"), soft_wrap=True, highlight=False)
    console.print("pictures:")
    for path in draw(model, options.ask, answer, options.out):
        console.print(f"  {escape(str(path))}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(ended(Path(__file__).name, lambda: main(arguments(None))))
