"""How far a training is, in plain lines: which steps are told, and how time is put into words."""

from __future__ import annotations

import pytest

from minigrad import progress


@pytest.mark.parametrize(
    "total, told",
    [(20, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]), (3, [1, 2, 3]), (None, [1, 2, 5, 10, 20, 50])],
)
def test_lines_tell_tenths_of_the_whole_or_round_numbers(total, told, capsys):
    with progress.shown(True, total) as show:
        for number in range(1, (total or 60) + 1):
            show(number, 0.5, 0.01)
    lines = capsys.readouterr().err.splitlines()
    of, left = (f" of {total}", ", 0 s left") if total else ("", "")
    assert lines == [f"step {n}{of}: loss 0.5, rate 0.01{left}" for n in told]


def test_a_line_is_due_after_half_a_minute_whatever_was_reached(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.shown(True, 1000, done=100) as show:
        for number in (101, 102, 103):
            now[0] += 20.0
            show(number, 0.5, 0.01)
    assert capsys.readouterr().err == "step 102 of 1000: loss 0.5, rate 0.01, 4 h 59 min left\n"


@pytest.mark.parametrize("wanted", [False, None])
def test_nothing_is_said_unless_asked_where_no_terminal_is(wanted, capsys):
    with progress.shown(wanted, 3) as show:
        show(3, 0.5, 0.01)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "seconds, said", [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (9000, "2 h 30 min")]
)  # fmt: skip
def test_time_in_words(seconds, said):
    assert progress._words(seconds) == said
