"""The examples as people run them: what is learned, what is written, and one clear line for every mistake."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))
import delay  # noqa: E402
import live  # noqa: E402
import many_to_one  # noqa: E402
import one_to_many  # noqa: E402

import minigrad as mg  # noqa: E402
from cells import Alphabet  # noqa: E402
from minigrad import MinigradError, checkpoint  # noqa: E402
from minigrad.command import compare, gallery, hello, see_text, train  # noqa: E402
from minigrad.compiler import TrainingStep  # noqa: E402

CARROLL = ROOT / "examples" / "carroll.txt"
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "MINIGRAD_CACHE": str(ROOT / ".pytest_cache" / "minigrad"),
}


pytestmark = pytest.mark.as_shipped


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    monkeypatch.setenv("MINIGRAD_CACHE", ENVIRONMENT["MINIGRAD_CACHE"])


@pytest.mark.parametrize("kind", ["lstm", "rnn", "gru"])
def test_hello_is_learned_with_every_seed(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hello, "draw", lambda *_: [])
    for seed in range(10):
        hello.main(options_of(hello, ["--cell", kind, "--seed", str(seed), "--out", str(tmp_path)]))
        out = capsys.readouterr().out
        assert "4 of 4 characters right" in out and "it writes: hello" in out, (seed, out)


def test_pictures_are_written_and_named(tmp_path, capsys):
    hello.main(options_of(hello, ["--out", str(tmp_path)]))
    out = capsys.readouterr().out
    for name in ("network", "gradient", "gates"):
        for suffix in (".svg", ".png"):
            assert (tmp_path / (name + suffix)).stat().st_size > 1000 and name + suffix in out


def options_of(command, given: list[str]) -> argparse.Namespace:
    """As the example of that command reads them."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser, **({} if command is hello else {"text": CARROLL}))
    return parser.parse_args(given)


# The sequence configurations: a figure of what was learned, and its bound.
LEARNED = [
    (one_to_many, [], "LSTM", lambda nats, share: nats < 0.32 and share > 90),
    (one_to_many, ["--class-as", "state"], "LSTM", lambda nats, share: nats < 0.32 and share > 90),
    (many_to_one, [], "LSTM", lambda error: error < 0.01),
    (many_to_one, ["--cell", "rnn"], "RNN", lambda error: error > 0.12),
    (many_to_one, ["--task", "sentiment"], "LSTM", lambda share: share > 95),
    (delay, [], "LSTM", lambda nats, symbols, sequences: nats < 0.1 and symbols > 97 and sequences > 90),
    (delay, ["--task", "reverse"], "LSTM", lambda nats, symbols, sequences: nats < 0.1 and sequences > 95),
]


@pytest.mark.parametrize(("example", "given", "name", "enough"), LEARNED)
def test_a_configuration_learns_its_task(example, given, name, enough, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(example, "draw", lambda *_: [])
    example.main(example.arguments([*given, "--seed", "1", "--out", str(tmp_path)]))
    out = capsys.readouterr().out
    rows = [[cell.strip(" %") for cell in line.split("│")] for line in out.splitlines()]
    (figures,) = [row[2:-1] for row in rows if row[1:2] == [name]]
    assert enough(*map(float, figures)), out


@pytest.mark.parametrize(
    ("example", "given", "names"),
    [
        (one_to_many, [], ["one_to_many", "one_to_many_gates"]),
        (many_to_one, [], ["many_to_one_adding", "many_to_one_adding_gates"]),
        (
            many_to_one,
            ["--task", "sentiment", "--say", "good"],
            ["many_to_one_sentiment", "many_to_one_sentiment_gates"],
        ),
        (delay, ["--task", "reverse"], ["delay_reverse", "delay_reverse_gradient"]),
    ],
)
def test_a_configuration_is_drawn_untrained_too(example, given, names, tmp_path, capsys):
    example.main(example.arguments([*given, "--steps", "0", "--out", str(tmp_path)]))
    out = capsys.readouterr().out
    for name in names:
        for suffix in (".svg", ".png"):
            assert (tmp_path / (name + suffix)).stat().st_size > 1000 and name + suffix in out.replace(
                "\n", ""
            )


def test_the_live_page_is_written_into_the_folder(tmp_path, capsys):
    live.main(live.arguments(["--word", "banana", "--out", str(tmp_path / "a" / "folder")]))
    page = tmp_path / "a" / "folder" / "live.html"
    assert "banana" in page.read_text(encoding="utf-8")
    assert str(page) in capsys.readouterr().out.replace("\n", "")


def test_the_gallery_has_every_picture_of_every_cell(tmp_path, capsys):
    text = tmp_path / '<b>&"x".txt'
    text.write_text("every </script><b>good</b> boy does fine\n" * 3)
    out = tmp_path / "gallery"
    given = ["--steps", "10", "--hidden", "3", "--shown", "4", "--text", str(text), "--out", str(out)]
    see_text.main(options_of(see_text, given))
    assert str(out / "index.html") in capsys.readouterr().out.replace("\n", "")
    index = (out / "index.html").read_text(encoding="utf-8")
    assert "<b>" not in index and "&lt;b&gt;&amp;&quot;x&quot;.txt" in index
    linked = set(re.findall(r'(?:href|src)="([^"#][^"]*)"', index))
    names = [f"{kind}_{picture}" for kind in see_text.KINDS for picture in gallery.QUESTIONS]
    expected = {name + suffix for name in (*names, "comparison") for suffix in (".svg", ".png")}
    assert linked == expected | {f"{kind}.html" for kind in see_text.KINDS}
    assert {p.name for p in out.iterdir()} == linked | {"index.html"}
    for kind, name in see_text.KINDS.items():
        page = (out / f"{kind}.html").read_text(encoding="utf-8")
        assert f"<h1>{name}, reading" in page and "<b>" not in page
        assert [f'"label":"after {n} training steps"' in page for n in (0, 1, 10)] == [True] * 3


def test_the_cells_of_the_gallery_read_the_same_and_learn():
    options = options_of(see_text, ["--hidden", "8", "--steps", "60"])
    text = "hello there, " * 20
    alphabet = Alphabet(text)
    codes, shown = alphabet.encode(text), alphabet.encode(see_text.stretch(text, 6))
    count = []
    seen = [see_text.train(kind, codes, shown, alphabet, options, count.append) for kind in ("rnn", "gru")]
    assert sum(count) == 2 * 60
    for s in seen:
        losses = [loss.value.item() for _, loss, _ in s.recordings]
        assert len(losses) == 3 and losses[-1] < 0.6 * losses[0]
        assert len({id(step["h"]) for _, _, steps in s.recordings for step in steps}) == 3 * 6
        for _, loss, steps in s.recordings:  # each with gradients of its own pass, not sums over several
            bias = next(n for n in mg.ancestors(loss) if n.name == "b_y")
            assert len(steps) == 6 and np.allclose(
                bias.grad, sum(step["y"].grad[0] for step in steps), atol=1e-6
            )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--text", "no/such/file"], "cannot be read"),
        (["--text", "{folder}"], "cannot be read"),
        (["--text", "{binary}"], "UTF-8"),
        (["--text", "{empty}"], "empty text"),
        (["--text", "{one}"], "only 'a'"),
        (["--text", "{short}"], "2 characters are too few"),
        (["--out", "{binary}"], "cannot be written"),
        (["--shown", "1"], "--shown 2 to 40"),
        (["--hidden", "0"], "--hidden must be"),
        (["--steps", "-1"], "--steps"),
    ],
)
def test_mistakes_of_the_gallery(given, words, tmp_path):
    files = {name: tmp_path / f"{name}.txt" for name in ("binary", "empty", "one", "short")}
    for name, content in zip(files, (b"\xff\xfe\x00" * 50, b"", b"aaaa", b"ab"), strict=True):
        files[name].write_bytes(content)
    given = [a.format(folder=tmp_path, **files) for a in given]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    assert words in fails("see_bptt.py", *given)
    assert not (tmp_path / "out").exists()


CHARACTERS = ["--hidden", "8", "--layers", "2", "--window", "9", "--batch", "3", "--lr", "0.01"]


@pytest.mark.slow
def test_the_character_model_goes_on_in_another_process_to_the_same_bits(tmp_path):
    text, program = tmp_path / "text", str(ROOT / "examples" / "char_rnn.py")
    text.write_text("one two three four five six seven eight nine ten\n" * 12)

    def write(name: str, steps: int) -> list[str]:
        out = f"{tmp_path / name}-weights"
        given = [
            *CHARACTERS,
            "--steps",
            str(steps),
            "--text",
            text,
            "--resume",
            tmp_path / name,
            "--out",
            out,
        ]
        done = subprocess.run(
            [sys.executable, program, *given], env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    whole = write("whole", 40)  # 19 windows are the whole text: it is read from the top again
    write("parts", 17)
    parts = write("parts", 40)
    assert parts[1] == "goes on after step 17" and parts[2].startswith("step 24:")
    assert whole[-6:-1] == parts[-6:-1]  # what it writes
    for name in ("", "-weights/weights.safetensors"):
        one, two = (checkpoint.load(f"{tmp_path}/{part}{name}") for part in ("whole", "parts"))
        assert one.keys() == two.keys() and one.notes == two.notes
        assert all(one[name].tobytes() == two[name].tobytes() for name in one)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--text", "{other}"], "the text has other characters"),
        (["--hidden", "9"], "has shape (24, 8), not (25, 9)"),
        (["--layers", "1"], "surplus '2."),
        (["--cell", "rnn"], "missing '1."),
        (["--batch", "4"], "another --batch than 4"),
        (["--resume", "{weights}"], "this program did not write that file"),
        (["--resume", "{other}"], "not a safetensors file, or damaged"),
        (["--resume", "{folder}"], "is a folder, not a file"),
        (["--resume", "{other}/x"], "cannot be written"),
    ],
)
def test_a_file_that_the_character_model_cannot_go_on_from(given, words, tmp_path, capsys):
    text, other, file = (tmp_path / name for name in ("text", "other", "run.safetensors"))
    text.write_text("one two three four five six seven eight nine ten\n" * 12)
    other.write_text("0123456789" * 60)
    first = [*CHARACTERS, "--text", str(text), "--resume", str(file), "--out", str(tmp_path / "out")]
    train.main(options_of(train, [*first, "--steps", "0"]))
    kept = file.read_bytes()
    names = dict(other=other, weights=tmp_path / "out" / "weights.safetensors", folder=tmp_path)
    options = options_of(train, [*first, *(a.format(**names) for a in given), "--steps", "5"])
    with pytest.raises(MinigradError) as caught:
        train.main(options)
    assert words in str(caught.value) and file.read_bytes() == kept


@pytest.mark.parametrize("place", ["before", "after"])
def test_ctrl_c_keeps_the_characters_read_and_the_weights_together(place, tmp_path, monkeypatch):
    text, file = tmp_path / "text", tmp_path / "run.safetensors"
    text.write_text("one two three four five six seven eight nine ten\n" * 12)
    given = [*CHARACTERS, "--text", str(text), "--out", str(tmp_path), "--resume"]
    train.main(options_of(train, [*given, str(tmp_path / "whole"), "--steps", "8"]))
    moved = TrainingStep.move

    def move(step):
        if place == "before" and step.optimiser.steps == 4:
            raise KeyboardInterrupt
        moved(step)
        if step.optimiser.steps == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "move", move)
        train.main(options_of(train, [*given, str(file), "--steps", "8"]))
    assert checkpoint.load(file)["optimiser/Adam.steps"] == 4
    train.main(options_of(train, [*given, str(file), "--steps", "8"]))
    whole, parts = checkpoint.load(tmp_path / "whole"), checkpoint.load(file)
    assert all(whole[name].tobytes() == parts[name].tobytes() for name in whole)


@pytest.mark.parametrize("task", ["adding", "copy", "characters"])
def test_networks_are_compared(task, tmp_path, capsys):
    given = f"--task {task} --models RNN GRU --parameters 900 --steps 20 --length 9".split()
    compare.main(options_of(compare, [*given, "--out", str(tmp_path)]))
    out = capsys.readouterr().out
    assert "RNN" in out and "GRU" in out and "without memory" in out and out.count("best") == 1
    assert {p.name for p in tmp_path.iterdir()} == {f"compare_{task}.svg", f"compare_{task}.png"}


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_writes_into_a_folder(example):
    command = [sys.executable, str(example), "--help"]
    wide = ENVIRONMENT | {"COLUMNS": "200"}
    told = subprocess.run(command, env=wide, capture_output=True, text=True, check=True).stdout
    assert re.search(r"--out OUT +folder for .*\(default: out(/\w+)?\)", told), told


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


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("one_to_many.py --temperature 0", "temperature = 0.0"),
        ("one_to_many.py --hidden 0", "hidden = 0"),
        ("many_to_one.py --length 1", "at least 2"),
        ("many_to_one.py --task sentiment --say [red]goldfish", "the word '[red]goldfish' is not known"),
        ("many_to_one.py --say bad", "--say is for --task sentiment"),
        ("delay.py --delay 0", "delay = 0"),
        ("delay.py --symbols 1", "--symbols must be 2"),
        ("delay.py --steps -1", "--steps"),
        ("compare.py --parameters 3", "RNN has 6 parameters at width 1"),
        ("compare.py --seconds 0", "--seconds must be above 0"),
        ("compare.py --task characters --text no/such/file", "cannot be read"),
        ("compare.py --task characters --length 5000", "a window of T = 5000 steps needs 5001"),
    ],
)
def test_mistakes_of_the_configurations(command, words, tmp_path):
    assert words in fails(*command.split(), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
