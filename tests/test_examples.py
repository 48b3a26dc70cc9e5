"""The examples as people run them: what is learned, what is written, and one clear line for every mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))
import hello_lstm  # noqa: E402

ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "MINIGRAD_CACHE": str(ROOT / ".pytest_cache" / "minigrad"),
}


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    monkeypatch.setenv("MINIGRAD_CACHE", ENVIRONMENT["MINIGRAD_CACHE"])


@pytest.mark.parametrize("kind", ["lstm", "rnn", "gru"])
def test_hello_is_learned_with_every_seed(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hello_lstm, "draw", lambda *_: [])
    for seed in range(10):
        hello_lstm.main(hello_lstm.arguments(["--cell", kind, "--seed", str(seed), "--out", str(tmp_path)]))
        out = capsys.readouterr().out
        assert "4 of 4 characters right" in out and "it writes: hello" in out, (seed, out)


def test_pictures_are_written_and_named(tmp_path, capsys):
    hello_lstm.main(hello_lstm.arguments(["--out", str(tmp_path)]))
    out = capsys.readouterr().out
    for name in ("network", "gradient", "gates"):
        for suffix in (".svg", ".png"):
            assert (tmp_path / (name + suffix)).stat().st_size > 1000 and name + suffix in out


def fails(example: str, *arguments: str) -> str:
    """The one line that a wrong call gets."""
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--word", ""], "empty text"),
        (["--word", "aaaa"], "only 'a'"),
        (["--hidden", "0"], "hidden = 0"),
        (["--steps", "-1"], "--steps"),
        (["--text", "no/such/file"], "cannot be read"),
        (["--text", "{folder}"], "cannot be read"),
        (["--text", "{binary}"], "UTF-8"),
        (["--out", "{binary}"], "cannot be written"),
    ],
)
def test_mistakes_get_one_clear_line(arguments, words, tmp_path):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00" * 50)
    given = [a.format(folder=tmp_path, binary=binary) for a in arguments]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    assert words in fails("hello_lstm.py", *given)
    assert not (tmp_path / "out").exists() and binary.read_bytes() == b"\xff\xfe\x00" * 50


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--text", "{short}"], "too few"), (["--lr", "nan"], "--lr")]
)
def test_mistakes_of_the_character_model(arguments, words, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("a short text")
    given = [a.format(short=short) for a in arguments]
    assert words in fails("char_rnn.py", *given, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
