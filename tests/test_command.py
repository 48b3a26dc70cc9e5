"""The command `minigrad`: help at once, one line and an exit code for what goes wrong, and what each word gives."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import cells
import minigrad as mg
import viz
from minigrad.command import cache, equations, gallery, given, main, see_model, see_text
from minigrad.compiler.cache import folder

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("cells", "viz", "rich", "matplotlib", "llvmlite", "numba", "platformdirs")


def run(*words: str) -> int:
    """The exit code."""
    try:
        return main.main(words)
    except SystemExit as end:
        return int(end.code or 0)


def fails(capsys, *words: str) -> tuple[int, str]:
    """The exit code, and the one line that was said."""
    code = run(*words)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said, said
    return code, said


# Words, help and endings.


@pytest.mark.smoke
def test_help_loads_nothing_heavy_and_names_every_command():
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from minigrad.command.main import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit as end: print(end.code, [m for m in {HEAVY} if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.endswith("0 []\n") and all(f"\n    {name}" in said for name in main.COMMANDS)
    assert "examples:" in said


@pytest.mark.smoke
@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_every_command_has_help_with_an_example_that_is_read(name, capsys):
    assert run(name, "--help") == 0
    said = capsys.readouterr().out
    shown = [
        line.split("   ")[0].split()
        for line in map(str.strip, said.splitlines())
        if line.startswith("minigrad ")
    ]
    assert shown and all(words[:2] == ["minigrad", name] for words in shown)
    for words in shown:
        parser = argparse.ArgumentParser(exit_on_error=False)
        main.import_module(f"minigrad.command.{name}").add_arguments(parser)
        without_pipe = words[2 : words.index(">")] if ">" in words else words[2:]
        parser.parse_args([w.strip('"') for w in without_pipe])


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("sea", 2, "invalid choice: 'sea'"),
        ("see", 2, "FILE"),
        ("see model.onnx --steps 3", 2, "--steps is of a text"),
        ("see book.txt --step 3 --unit 1", 2, "--step, --unit is of a model"),
        ("see model.onnx --loss mse", 2, "give --target"),
        ("see model.onnx --length 0", 2, "--length"),
        ("see book.txt --hidden 0", 2, "--hidden must be"),
        ("see no/such/book.txt", 1, "cannot be read as UTF-8 text (No such file or directory)"),
        ("train no/such/book.txt", 1, "cannot be read as UTF-8 text (No such file or directory)"),
        ("train book.txt --lr 2", 2, "--lr must lie"),
        ("compare --task characters", 2, "--text FILE"),
        ("compare --steps -1", 2, "--steps"),
        ("hello --steps x", 2, "invalid int value: 'x'"),
        ("hello --seed -1", 2, "--seed"),
        ("hello --word aaaa", 1, "only 'a'"),
        ("equations lstn", 2, "no cell is called 'lstn'; there are rnn,"),
        ("equations no.such:Cell", 1, "ModuleNotFoundError"),
        ("equations cells:Nothing", 1, "AttributeError"),
        ("equations cells:Alphabet", 1, "TypeError"),
        ("equations math:pi", 1, "equations of float: it has no step"),
        ("equations \x1b[31m:red", 1, "�[31m"),
        ("hello \x1b[31m", 2, "�[31m"),
    ],
)
def test_what_is_wrong_gets_one_line_and_a_code(words, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, line = fails(capsys, *words.split())
    assert (found, said in line) == (code, True) and "\x1b" not in line, (found, line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.smoke
def test_no_word_is_a_wrong_call_that_shows_the_help(capsys):
    assert run() == 2 and "minigrad equations lstm" in capsys.readouterr().err
    assert run("--version") == 0 and capsys.readouterr().out == f"minigrad {mg.__version__}\n"


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped\n"),
        (mg.ShapeError("two\nlines, \x1b[31mred"), 1, "error: two lines, �[31mred\n"),
        (given.UsageError("not so"), 2, "minigrad: error: not so\n"),
    ],
)
def test_how_a_command_ends(error, code, said, capsys):
    def command():
        raise error

    assert main.ended("minigrad", command) == code and capsys.readouterr().err == said
    with pytest.raises(ZeroDivisionError):  # a fault of the program keeps its traceback
        main.ended("minigrad", lambda: 1 / 0)


def test_python_m_is_the_same_and_a_reader_may_leave():
    with subprocess.Popen(
        [sys.executable, "-m", "minigrad", "equations", "lstm_layer_norm"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=given.os.environ | {"PYTHONPATH": str(ROOT)},
    ) as running:  # fmt: skip
        assert running.stdout and running.stderr
        assert running.stdout.readline() == "LayerNormLSTM, step t\n"
        running.stdout.close()
        assert running.stderr.read() == "" and running.wait(60) in (0, 1)


# Commands.


@pytest.mark.smoke
@pytest.mark.parametrize("name", list(cells.CELLS))
def test_the_equations_of_every_cell_are_printed(name, capsys):
    cell = equations.made(name)
    for options, expected in [
        ((), viz.equations(cell).text),
        (("--latex",), viz.equations(cell).latex),
        (("--forward",), viz.equations(cell, backward=False).text),
    ]:
        assert run("equations", name, *options) == 0 and capsys.readouterr().out == expected


@pytest.mark.smoke
def test_the_equations_of_a_cell_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "of_my_own.py").write_text("import cells\nclass Outer:\n    class Mine(cells.LSTM): pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert run("equations", "of_my_own:Outer.Mine", "--forward") == 0
    assert capsys.readouterr().out.startswith("Mine, step t\n")


@pytest.mark.skipif(not hasattr(cells, "check"), reason="this version has no check")
def test_a_cell_is_checked_and_what_is_wrong_ends_with_one(tmp_path, monkeypatch, capsys):
    assert run("check", "rnn") == 0 and "RNN: all is well" in capsys.readouterr().out
    text = "import cells\nclass Wrong(cells.RNN):\n    def step(self, x, h_prev): return dict(h=h_prev[:1])\n"
    (tmp_path / "wrong_cells.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, said = fails(capsys, "check", "wrong_cells:Wrong")
    assert code == 1 and said.startswith("error: Wrong: wrong at")


def test_the_cache_is_told_and_cleared_and_nothing_else_is_touched(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "cache"))
    x = np.ones((3, 2))
    step = mg.compile(lambda x: mg.sum(mg.tanh(x)))
    step(x)
    stranger = tmp_path / "cache" / "letter.txt"
    stranger.write_text("not ours")
    files = folder().files()
    assert len(files) >= 2 and sum(f.size for f in files) > 100
    assert run("cache") == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "cache") in said and f"{cache.size(files)}" in said and "today" in said
    assert run("cache", "--clear") == 0
    assert f"removed {len(files)} files, {cache.size(files)}" in capsys.readouterr().out
    assert folder().files() == [] and stranger.read_text() == "not ours"
    assert float(step(x)) == pytest.approx(6 * np.tanh(1))


def test_what_is_being_written_is_not_cleared(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "cache"))
    place = folder()
    young, old = tmp_path / "cache" / "part_aaaaaaaa", tmp_path / "cache" / "part_bbbbbbbb"
    for part in (young, old):
        part.write_bytes(b"half")
    given.os.utime(old, (0, 0))
    assert [f.name for f in place.clear()] == [old.name] and young.exists()


def test_a_cache_that_cannot_be_used_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be written"):
        code, said = fails(capsys, "cache")
    assert code == 1 and "there is no cache folder" in said


@pytest.mark.smoke
def test_a_text_is_seen_by_what_sees_texts_and_a_model_by_its_ending(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(see_text, "main", lambda options: seen.append((options.text, options.steps)))
    monkeypatch.setattr(see_model, "main", lambda options: seen.append((options.file, options.step)))
    assert run("see", "book.txt", "--steps", "7") == run("see", "A.ONNX", "--step", "3") == 0
    assert seen == [(Path("book.txt"), 7), (Path("A.ONNX"), 3)]


def test_a_training_goes_on_where_it_stopped(tmp_path, capsys):
    text = tmp_path / "book.txt"
    text.write_text("one two three four five six seven eight nine ten\n" * 12)
    given = ["train", str(text), "--hidden", "4", "--window", "9", "--batch", "3", "--out", str(tmp_path)]
    for steps in ("4", "6"):
        assert run(*given, "--resume", str(tmp_path / "run"), "--steps", steps) == 0
        out = capsys.readouterr().out
        assert ("goes on after step 4" in out) == (steps == "6") and f"step {steps}:" in out


# A model.


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "it begins otherwise"),
        (b"\x80\x04K\x01.", "it begins otherwise"),
        (b"PK\x03\x04 cut short", "cannot be read as .npz or .npy"),
        (b"\x93NUMPY\x01\x00", "cannot be read as .npz or .npy"),
    ],
)
def test_a_file_of_arrays_that_is_none(content, said, tmp_path):
    file = tmp_path / "x.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(mg.InputError, match=r"--input .*cannot be read") as caught:
        see_model.arrays(file, "--input")
    assert said in str(caught.value)


@pytest.mark.smoke
def test_objects_in_a_file_of_arrays_are_not_made(tmp_path):
    np.save(tmp_path / "x.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(mg.InputError, match="cannot be read"):
        see_model.arrays(tmp_path / "x.npy", "--input")


@pytest.mark.smoke
def test_arrays_are_taken_by_name_and_without_one_in_order(tmp_path):
    a, b = np.zeros(2), np.ones(3)
    np.savez(tmp_path / "named.npz", y=b, x=a)
    np.savez(tmp_path / "nameless.npz", a, b)
    np.save(tmp_path / "one.npy", b)
    for file, names, sizes in [
        ("named.npz", "xy", [2, 3]),
        ("nameless.npz", "xy", [2, 3]),
        ("one.npy", "x", [3]),
    ]:
        found = see_model.named(see_model.arrays(tmp_path / file, "--input"), list(names))
        assert [found[n].size for n in names] == sizes


@pytest.mark.smoke
def test_which_loss_is_meant():
    logits = mg.Tensor(np.array([[2.0, -1.0], [0.5, 0.5]]))
    p = mg.softmax(logits)
    whole = np.array([0, 1])
    assert see_model.loss_of(logits, whole, None)[0] == "cross_entropy"
    assert see_model.loss_of(p, whole, None)[0] == "nll"
    assert see_model.loss_of(logits, np.zeros((2, 2)), None)[0] == "mse"
    assert see_model.loss_of(logits, whole, "mae") == ("mae", "")
    assert see_model.compared("nll", p, whole).item() == pytest.approx(mg.cross_entropy(logits, whole).item())


@pytest.mark.smoke
def test_what_comes_from_outside_is_text_in_the_page():
    bad = '<script>alert("x")</script>'
    section = gallery.Section("k", "Title", "Question?", f"<pre>{gallery.words(bad)}</pre>")
    page = gallery.document(
        "Title", [gallery.words(bad)], ["layer"], [[gallery.words(bad)]], [section]
    ).decode()
    assert "<script" not in page and page.count("&lt;script&gt;") == 3


# A whole model, where ONNX files are read: exported here, with a name that is markup.

needs_onnx = pytest.mark.skipif(not hasattr(cells, "from_onnx"), reason="this version reads no ONNX files")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A two-layer LSTM with an output layer at every step, T and N free."""
    torch = pytest.importorskip("torch", reason="the model is exported by PyTorch")
    pytest.importorskip("onnx", reason="ONNX files are read by onnx")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = torch.nn.LSTM(3, 4, 2), torch.nn.Linear(4, 5)

        def forward(self, x):
            return self.out(self.rnn(x)[0])

    torch.manual_seed(0)
    network, file = Network(), tmp_path_factory.mktemp("model") / "<b>&.onnx"
    axes = {0: "time", 1: "batch"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.randn(7, 2, 3),), str(file), dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": axes, "y": axes},
        )  # fmt: skip
    return file


@needs_onnx
@pytest.mark.oracle
def test_a_model_is_seen_with_its_data_and_without(model, tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((6, 2, 3)))
    np.save(tmp_path / "y.npy", rng.integers(0, 5, (6, 2)))
    given = ["--input", str(tmp_path / "x.npz"), "--target", str(tmp_path / "y.npy")]
    assert run("see", str(model), *given, "--out", str(tmp_path / "a")) == 0
    said = capsys.readouterr().out
    assert "is cross_entropy between" in said and "x (6, 2, 3) float32" in said and "random" not in said
    index = (tmp_path / "a" / "index.html").read_text(encoding="utf-8")
    assert "<b>" not in index and "&lt;b&gt;&amp;.onnx" in index and "Not drawn" not in index
    linked = set(re.findall(r'(?:href|src)="([^"#][^"]*)"', index))
    assert linked == {f"{key}.svg" for key in gallery.QUESTIONS} | {"page.html"}
    assert {p.name for p in (tmp_path / "a").iterdir()} == linked | {"index.html"}

    assert run("see", str(model), "--step", "3", "--unit", "1", "--png", "--out", str(tmp_path / "b")) == 0
    said = capsys.readouterr().out
    assert "random numbers" in said and "of step 3 of unit 1" in said
    assert (tmp_path / "b" / "report.png").exists()


@needs_onnx
@pytest.mark.oracle
@pytest.mark.slow
def test_a_two_layer_lstm_of_fifty_steps_is_seen_within_ten_seconds(tmp_path):
    """Of the processor's time, with nothing cached, the start of the process included.

    Where ten seconds are too few, on a slow or busy machine, less than four times what one layer of five steps takes there:
    it has a hundred cells to draw, not five.
    """
    torch = pytest.importorskip("torch", reason="the model is exported by PyTorch")
    torch.manual_seed(0)

    def spent(length: int, layers: int) -> float:
        folder = tmp_path / f"{layers}"
        folder.mkdir()
        file = folder / "lstm.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = (torch.randn(length, 2, 16),)
            torch.onnx.export(torch.nn.LSTM(16, 128, layers), x, str(file), dynamo=False)
        words = [sys.executable, "-m", "minigrad", "see", str(file), "--out", str(folder / "out")]
        before = os.times()
        subprocess.run(
            words, check=True, capture_output=True, env=os.environ | {"MINIGRAD_CACHE": str(folder)}
        )
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    taken = spent(50, 2)
    assert taken < 10 or taken < 4 * spent(5, 1), f"{taken:.1f} s"


@needs_onnx
@pytest.mark.oracle
def test_one_step_and_unit_are_what_is_differentiated(model):
    network = see_model.load(model)
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    options = argparse.Namespace(output=None, step=3, unit=1, loss=None, target=None)
    results = network.run(x)
    what = see_model.differentiated(network, results, None, options)
    assert what.loss.item() == pytest.approx(float(results["y"].value[2, :, 1].sum()))
    target = np.random.default_rng(1).standard_normal((6, 2, 5)).astype(np.float32)
    what = see_model.differentiated(network, results, {"": target}, options)
    assert what.loss.item() == pytest.approx(
        float(((results["y"].value - target)[2, :, 1] ** 2).mean()), rel=1e-5
    )


@needs_onnx
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--step", "13"], "has the steps 1 … 12"),
        (["--unit", "5"], "has the units 0 … 4"),
        (["--output", "z"], "there are y"),
        (["--input", "{z}"], "missing x; surplus a, b"),
        (["--length", "999999999"], "random numbers are too many"),
        (["--input", "{nothing}"], "--input"),
        (["--target", "{y}"], "cross_entropy"),
    ],
)
def test_what_a_model_cannot_take(model, words, said, tmp_path, capsys):
    names = {name: tmp_path / f"{name}.npz" for name in ("z", "y", "nothing")}
    np.savez(names["z"], a=np.zeros(1), b=np.zeros(1))
    np.savez(names["y"], np.zeros((3, 3), np.int64))
    out = tmp_path / "out"
    code, line = fails(capsys, "see", str(model), *(w.format(**names) for w in words), "--out", str(out))
    assert code == 1 and said in line and not out.exists(), line


@needs_onnx
def test_what_is_no_model(tmp_path, capsys):
    file = tmp_path / "text.onnx"
    file.write_text("this is no model")
    assert fails(capsys, "see", str(file))[0] == 1
    assert "there is no such file" in fails(capsys, "see", str(tmp_path / "none.onnx"))[1]
