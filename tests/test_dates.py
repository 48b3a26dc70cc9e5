"""The example of dates: what is written is right, what is held out is never drawn, and where it looked is drawn."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import dates


@pytest.mark.smoke
def test_days_in_digits_and_words():
    day = date(1998, 3, 3)
    assert dates.written(day, "{weekday} the {th} of {month} {year}") == "Tuesday the 3rd of March 1998"
    assert dates.written(day, "{mm}/{dd}/{yy}") == "03/03/98"
    assert dates.written(day, "{ordinal} {mon} {words}") == "third Mar nineteen ninety-eight"
    endings = [dates.written(date(2000, 1, d), "{th}") for d in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31)]
    assert endings == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "13th",
        "21st",
        "22nd",
        "23rd",
        "30th",
        "31st",
    ]
    assert [dates.ordinal(n) for n in (5, 8, 9, 12, 19, 20, 21, 30)] == [
        "fifth", "eighth", "ninth", "twelfth", "nineteenth", "twentieth", "twenty-first", "thirtieth",
    ]  # fmt: skip
    assert [dates.year_in_words(y) for y in (1930, 1999, 2000, 2007, 2012, 2029)] == [
        "nineteen thirty", "nineteen ninety-nine", "two thousand", "two thousand seven", "twenty twelve",
        "twenty twenty-nine",
    ]  # fmt: skip


@pytest.mark.smoke
def test_no_two_days_are_written_alike_and_all_can_be_read():
    days = [dates.FIRST + timedelta(k) for k in range(dates.DAYS)]
    assert days[-1] == date(2029, 12, 31)
    seen: dict[str, date] = {}
    for day in days[::13]:
        for form in dates.FORMS:
            assert seen.setdefault(dates.written(day, form).lower(), day) == day
    dates.encode([*seen, *(t.upper() for t in seen)])


@pytest.mark.smoke
def test_days_that_are_held_out_are_never_drawn_for_training():
    data, again = (dates.Dates(np.random.default_rng(3)) for _ in range(2))
    assert not set(data.held_out) & set(data.known) and len(data.held_out) == dates.DAYS // 10
    held_out = {str(dates.FIRST + timedelta(int(k))) for k in data.held_out}
    codes, lengths, answers = data.batch(500)
    assert codes.shape == (lengths.max(), 500) and answers.shape == (10, 500)
    assert not {dates.TARGET.decode(column) for column in answers.T} & held_out
    assert set(data.draw(50, data.held_out)[1]) <= held_out
    for ours, same in zip((codes, lengths, answers), again.batch(500), strict=True):
        np.testing.assert_array_equal(ours, same)


def test_where_it_looked_is_drawn(tmp_path, capsys):
    dates.main(dates.arguments(["--steps", "0", "--cell", "rnn", "--hidden", "4", "--out", str(tmp_path)]))
    out = capsys.readouterr().out
    assert (
        "of 2100 held-out dates exactly right" in out and "asked for 'Tuesday the 3rd of March 1998'" in out
    )
    for view in ("matrix", "lines"):
        for suffix in (".svg", ".png"):
            assert (tmp_path / f"dates_{view}{suffix}").stat().st_size > 1000
    model = dates.Model("lstm", 4, np.random.default_rng(0))
    text = "3 march 98"
    alpha = model.looked(text, *model.write([text]))
    assert alpha.shape == (10, len(text))
    np.testing.assert_allclose(alpha.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--ask", "3 März"], "'ä' does not occur in a date"), (["--ask", ""], "an empty text"),
        (["--hidden", "0"], "at least 1"), (["--lr", "nan"], "--lr"), (["--steps", "-1"], "negative"),
    ],
)  # fmt: skip
def test_mistakes_get_one_clear_line(given, words, capsys):
    with pytest.raises(SystemExit):
        dates.arguments(given)
    assert words in capsys.readouterr().err.splitlines()[-1]
