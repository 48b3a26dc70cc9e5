"""What the README and the site's pages show runs as it stands there: Python, command lines, links."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from docs import pages
from minigrad import checkpoint
from minigrad.command.main import main

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PORTUGUESE = ROOT / "docs" / "pt"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
(CELL,) = pages.blocks(README.read_text(encoding="utf-8"), "python")
ORACLES = ("torch", "onnx")
QUICK = {
    "train": "--steps 4 --hidden 8",
    "compare": "--steps 4 --parameters 500",
    "hello": "--steps 4",
    "see": "",
}
QUICK_TEXT = "--steps 4 --hidden 4 --shown 2"  # of `see` with a text


def of(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_page = pytest.mark.parametrize("path", PAGES, ids=of)


def python_of(path: Path) -> list[pages.Block]:
    return pages.blocks(path.read_text(encoding="utf-8"), "python")


@pytest.fixture
def oracles():
    """Asks for the libraries that a page imports beside ours."""

    def ask(code: str) -> None:
        if "torch" in code:
            for name in ORACLES:
                pytest.importorskip(name, reason=f"the page brings a network from PyTorch: it needs {name}")

    return ask


# Python.  Pages in Portuguese have the blocks of the English ones in their own words, as a test below sees to, and are not
# run again.


@pytest.mark.parametrize("path", [p for p in PAGES if python_of(p) and PORTUGUESE not in p.parents], ids=of)
def test_the_python_of_a_page_runs(path, tmp_path, oracles, monkeypatch):
    text = path.read_text(encoding="utf-8")
    oracles("".join(b.code for b in python_of(path)))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    outputs = list(pages.run(text, tmp_path, path.stem))
    assert len(outputs) == len(python_of(path))
    shows = [o for o in outputs if o.printed or o.value is not None]
    assert shows, "a page that shows nothing of what it runs"
    for output in outputs:
        last = output.block.code.rstrip().splitlines()[-1]
        assert output.printed or not last.startswith("print("), f"nothing was printed by: {last}"
        assert ": False\n" not in output.printed, f"shown not to hold: {output.printed}"


@pytest.mark.smoke
def test_a_block_that_fails_or_warns_is_named(tmp_path):
    for code, words in {
        "1 / 0": "ZeroDivisionError",
        "import warnings; warnings.warn('so so')": "so so",
        "x = (": "SyntaxError",
    }.items():
        with pytest.raises(RuntimeError, match=f"page, Python block 2, .*{words}"):
            list(pages.run(f"```python\nx = 1\n```\n```python\n{code}\n```\n", tmp_path, "page"))


@pytest.mark.smoke
def test_a_page_shows_what_its_blocks_give(tmp_path):
    class Drawn:
        title = 'a "picture"'

        def svg(self):
            return "<svg/>"

    text = (
        "```python\nx = 2\nprint('x is', x)\nx + 1\n```\nand\n```python hide\nprint('no')\n```\n"
        "```python show=python\nprint('x = 3')\nx;\n```\n```sh\nminigrad cache\n```\n"
    )
    shown, files = pages.shown(text, tmp_path, "page")
    assert "```text { .output }\nx is 2\n3\n```" in shown and "no\n```" not in shown
    assert "```python { .output }\nx = 3\n```" in shown and files == {} and "```sh\nminigrad cache" in shown
    assert [b.language for b in pages.blocks(text)] == ["python", "python", "python", "sh"]
    output = pages.Output(pages.blocks(text)[0], value=Drawn())
    shown, files = pages._shown(output, "page-1")
    assert files == {"page-1.svg": b"<svg/>"} and 'alt="a &quot;picture&quot;"' in shown


@every_page
@pytest.mark.smoke
def test_blocks_are_of_languages_that_are_tested(path):
    text = path.read_text(encoding="utf-8")
    found = pages.blocks(text)
    assert {b.language for b in found} <= {"python", "py", "sh", "text"}  # py: run by a test of its own
    assert text.count("```") == 2 * len(found) + 2 * text.count("````"), "a block that is not closed"


# In Portuguese.


FENCED = re.compile(r"```.*?```", re.DOTALL)


def levels(text: str) -> list[int]:
    """How deep each heading of a page is."""
    return [len(marks) for marks in re.findall(r"^(#+) ", FENCED.sub("", text), re.MULTILINE)]


def years(text: str) -> list[str]:
    """What is cited, by its year."""
    return re.findall(r"\b(?:19|20)\d\d\b", FENCED.sub("", text))


def quoted(text: str) -> set[str]:
    """Names of functions and quantities, which are not translated."""
    return set(re.findall(r"`([^`\n]+)`", FENCED.sub("", text)))


def code_and_words(code: str) -> tuple[str, set[str]]:
    """What a block does, and what it says to a reader: titles, docstrings, comments, and sentences that it prints."""
    tree, words = ast.parse(code), set(re.findall(r"  # (.*)|^# (.*)", code))
    words = {comment for pair in words for comment in pair if comment}

    def said(node: ast.AST) -> None:
        for text in ast.walk(node):
            key = isinstance(getattr(text, "parent", None), ast.Subscript)
            if isinstance(text, ast.Constant) and not key and re.search(r"[a-z]{4}", str(text.value)):
                words.add(str(text.value))
                text.value = ""

    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "title":
            said(node.value)
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            said(node.body[0])
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
            for argument in node.args:
                if isinstance(argument, (ast.Constant, ast.JoinedStr)):
                    said(argument)
    return ast.dump(tree), words - {"hell →"}  # which was read


@pytest.mark.parametrize("path", [p for p in PAGES if PORTUGUESE in p.parents], ids=of)
@pytest.mark.smoke
def test_a_page_in_portuguese_is_the_english_one(path):
    """The same headings, the same Python with words in Portuguese, in a chapter the same sources and names, and no line in
    English."""
    texts = [p.read_text(encoding="utf-8") for p in (path, ROOT / "docs" / path.relative_to(PORTUGUESE))]
    ours, english = map(levels, texts)
    assert ours == english
    if path.parent.name == "lecture":  # the other two are shorter
        for same in (years, quoted):
            ours, english = map(same, texts)
            assert ours == english, same.__name__
    ours, english = (pages.blocks(text, "python") for text in texts)
    assert [b.options for b in ours] == [b.options for b in english]
    ours, english = ([code_and_words(b.code) for b in blocks] for blocks in (ours, english))
    assert [c for c, _ in ours] == [c for c, _ in english], "the blocks do what those of the English page do"
    for (_, words), (_, others) in zip(ours, english, strict=True):
        assert len(words) == len(others) and not words & others, f"left in English: {words & others}"
    ours, english = (set(re.findall(r"[^\n]{40,}", FENCED.sub("", text))) for text in texts)
    assert ours and not ours & english, f"left in English: {ours & english}"


@pytest.mark.smoke
def test_every_chapter_is_there_in_portuguese():
    names = [sorted(p.name for p in (folder / "lecture").iterdir()) for folder in (ROOT / "docs", PORTUGUESE)]
    assert names[0] == names[1] and len(names[0]) > 6


# Command lines.


@pytest.fixture
def at_hand(tmp_path, monkeypatch):
    """A folder with the files that the command lines name."""
    carroll = (ROOT / "examples" / "carroll.txt").read_text(encoding="utf-8")
    (tmp_path / "book.txt").write_text(carroll[:3000], encoding="utf-8")
    (tmp_path / "my_cells.py").write_text(CELL.code.partition("\n\n\nrng = ")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_cells", None)


def exported(folder: Path) -> None:
    """The model of the page about PyTorch, as a file, with an input and a target."""
    torch = pytest.importorskip("torch", reason="makes the model that the command line reads")
    pytest.importorskip("onnx", reason="reads the model")
    space: dict = {}
    exec(python_of(ROOT / "docs/how/torch.md")[0].code.partition("network = ")[0], space)
    x = torch.from_numpy(space["x"])
    with warnings.catch_warnings():  # the exporter's own, of what is to come in PyTorch
        warnings.simplefilter("ignore")
        torch.onnx.export(space["Classifier"](), (x,), folder / "model.onnx", dynamo=False, input_names=["x"])
    np.savez(folder / "x.npz", x=space["x"])
    np.savez(folder / "y.npz", y=np.array([0, 1, 1, 0]))


def lines_of(path: Path) -> list[str]:
    found = pages.blocks(path.read_text(encoding="utf-8"), "sh")
    lines = [line.partition("  #")[0].strip() for b in found for line in b.code.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


@pytest.mark.parametrize(
    "line",
    dict.fromkeys(line for p in PAGES for line in lines_of(p) if line.startswith("minigrad ")),
)
def test_a_command_line_runs(line, at_hand, capsys):
    words = shlex.split(line)[1:]
    if "model.onnx" in words:
        exported(at_hand)
    quick = QUICK_TEXT if words[:2] == ["see", "book.txt"] else QUICK.get(words[0], "")
    assert main([*words, *quick.split()]) == 0, capsys.readouterr().err


@every_page
@pytest.mark.smoke
def test_other_command_lines_name_what_is_there(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    for line in lines_of(path):
        program = re.sub(r"^(mpiexec -n \d+ |uv run |\.venv/bin/)", "", line)
        if program.startswith("make "):
            assert re.search(rf"^{program.split()[1]}:", makefile, re.MULTILINE), line
        elif program.startswith("python "):
            for file in re.findall(r"examples/\S+|docs/\S+", program):
                assert (ROOT / file).exists(), line
        for extra in re.findall(r"(?:\.|minigrad-rnn)\[(\w+)\]", line):
            assert extra in extras, line
        known = ("make ", "python ", "pip ", "uv ", "minigrad ", "examples/", "pytest")
        assert program.startswith(known), f"who runs {line!r}?"


# Links.


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.pt.md"], ids=of)
@pytest.mark.smoke
def test_every_picture_and_link_is_there(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        if "reference/" in file:  # made while the site is built, which checks it
            assert file.rpartition("/")[2][:-3] in reference_pages() and anchor.startswith(
                file.rpartition("/")[2][:-3]
            )
            continue
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\s-]", "", t).strip().lower().replace(" ", "-") for t in titles]
            assert anchor in slugs, f"{link}: there is {slugs}"


def reference_pages() -> set[str]:
    from docs import reference

    return set(reference.PACKAGES)


@pytest.mark.smoke
def test_every_page_is_in_the_navigation():
    listed = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    here = {p.relative_to(ROOT / "docs").as_posix() for p in PAGES if p != README}
    assert here == {p for p in listed if not p.startswith("reference/")} and len(listed) == len(set(listed))


def test_the_reference_has_every_public_name():
    from docs import reference

    made = reference.pages()
    for package in reference.PACKAGES:
        for name in reference.names(package):
            assert f"{{ #{package}.{name} }}" in made[package], name
    assert "## bptt" in made["viz"] and "Raises" in made["viz"] and "- **" in made["viz"]
    assert "at 0x" not in "".join(made.values())


# The README.


def test_the_cell_of_ones_own_runs(tmp_path):
    (output,) = pages.run(README.read_text(encoding="utf-8"), tmp_path, "README")
    assert "dW_f" in output.printed and "c̃_t = tanh" in output.printed
    assert (tmp_path / "my_cell.svg").exists() and len(list((tmp_path / "compiler").glob("*.svg"))) > 5


@pytest.mark.smoke
def test_the_readme_is_what_a_first_visitor_needs():
    text = README.read_text(encoding="utf-8")
    first = pages.blocks(text)[0]
    assert [line.split()[:2] for line in first.code.splitlines()] == [["make", "hello"], ["make", "test"]]
    assert len(text.splitlines()) < 110 and text.count("\n| question |") == 1
    assert text.startswith("![") and all(f"docs/{p}" in text for p in ("start.md", "teachers.md", "speed.md"))


# A training that stopped.


def run(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_training_that_stopped_goes_on_to_the_same_bits(tmp_path):
    resumed = python_of(ROOT / "docs/how/text.md")[0].code
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    assert run(resumed, whole) == "200 (19, 16) running sums\n"
    assert run(resumed.replace("batches(200)", "batches(90)"), parts) == "90 (19, 16) running sums\n"
    assert run(resumed, parts) == "200 (19, 16) running sums\n"
    one, two = (checkpoint.load(folder / "sums.safetensors") for folder in (whole, parts))
    assert one.keys() == two.keys() and all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert one["tensors/losses"][-1] < 0.5 * one["tensors/losses"][0]
