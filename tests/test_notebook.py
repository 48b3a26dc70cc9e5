"""The lecture as a notebook: running it gives what is stored, with a picture wherever one is asked for."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest

import cells
import minigrad as mg
import viz

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "lecture.ipynb"
STORED = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
PICTURES = ("draw", "gradient", "paths", "bptt", "gates", "compare", "report", "taps", "attention")
REMEDY = "if meant, run python docs/run_notebook.py, and read what it wrote"


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(notebook: Path, out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "docs" / "run_notebook.py"), str(notebook), "--out", str(out)]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MINIGRAD_CACHE": str(ROOT / ".pytest_cache" / "minigrad"),
    }
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")


def shown(cell: dict) -> list[tuple[str, str]]:
    """The outputs of a cell as (kind, text); of a picture only that it is one, as letters differ in width."""
    found = []
    for output in cell["outputs"]:
        data = output["data"] if "data" in output else {"stdout": output["text"]}
        for kind, lines in sorted(data.items()):
            text = "".join(lines)
            found.append((kind, "a picture" if kind == "image/svg+xml" and "<svg" in text else text))
    return found


NUMBER = re.compile(r"(?<![\w.])[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-−+]?\d+)?")


def alike(one: str, other: str) -> bool:
    """The same words, and numbers within 5 % or 0.005: another processor rounds otherwise, and training shows it."""

    def numbers(text: str) -> list[float]:
        return [float(n.replace(",", "").replace("−", "-")) for n in NUMBER.findall(text)]

    words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)) for text in (one, other)]
    return words[0] == words[1] and all(
        math.isclose(a, b, rel_tol=0.05, abs_tol=0.005)
        for a, b in zip(numbers(one), numbers(other), strict=True)
    )


def different(stored: dict, made: dict) -> list[str]:
    """What another run shows otherwise, for a reader."""
    found = []
    for k, (old, new) in enumerate(zip_longest(code_cells(stored), code_cells(made)), 1):
        pairs = zip_longest(shown(old), shown(new), fillvalue=("nothing", ""))
        found += [
            f"code cell {k}, {a[0]}:\n{a[1][:2000]}\n--- now {b[0]}:\n{b[1][:2000]}"
            for a, b in pairs
            if a[0] != b[0] or not alike(a[1], b[1])
        ]
    return found


def test_running_it_gives_what_is_stored(tmp_path):
    done = run(NOTEBOOK, tmp_path / "made.ipynb")
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "made.ipynb").read_text(encoding="utf-8"))
    assert [c["source"] for c in made["cells"]] == [c["source"] for c in STORED["cells"]]
    found = different(STORED, made)
    assert not found, "\n\n".join([*found, REMEDY])


def test_every_view_has_its_picture():
    asked = dict.fromkeys(PICTURES, 0)
    for cell in code_cells(STORED):
        source = "".join(cell["source"])
        called = [name for name in PICTURES if f"viz.{name}(" in source]
        pictures = sum(kind == "image/svg+xml" for kind, _ in shown(cell))
        if source.splitlines()[-1].startswith(("viz.", "unwell(")) and "viz.equations" not in source:
            assert pictures == 1 and called, source
        for name in called:
            asked[name] += pictures
    assert min(asked.values()) >= 1, asked
    formulas = [text for cell in code_cells(STORED) for kind, text in shown(cell) if kind == "text/latex"]
    assert len(formulas) == 3 and all(r"\begin{aligned}" in f for f in formulas)


def test_the_file_holds_nothing_of_the_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < 3e6
    assert text == json.dumps(STORED, indent=1, ensure_ascii=False, sort_keys=True) + "\n", REMEDY
    assert STORED["metadata"]["kernelspec"]["name"] == "python3"
    assert (STORED["nbformat"], STORED["nbformat_minor"]) == (4, 5)
    for k, cell in enumerate(STORED["cells"]):
        assert cell["metadata"] == {} and cell["id"] == f"cell-{k:02}"
        assert all(
            o.get("metadata", {}) == {} and o["output_type"] != "error" for o in cell.get("outputs", [])
        )
    assert [c["execution_count"] for c in code_cells(STORED)] == [*range(1, len(code_cells(STORED)) + 1)]
    for trace in (str(ROOT), str(Path.home()) + "/", sys.prefix, "site-packages"):
        assert trace not in text, trace


def test_a_changed_output_is_noticed():
    def changed(kind: str, change) -> list[str]:
        made = copy.deepcopy(STORED)
        outputs = [o for c in code_cells(made) for o in c["outputs"]]
        change(next(o for o in outputs if kind in o.get("data", o)))
        return different(STORED, made)

    def replaced(old: str, new: str):
        return lambda o: o.update(text=[line.replace(old, new) for line in o["text"]])

    assert different(STORED, copy.deepcopy(STORED)) == []
    assert changed("text", replaced("1.24", "1.25")) == []
    assert len(changed("text", replaced("1.24", "1.44"))) == 1
    assert len(changed("text", replaced("ello", "elli"))) == 1
    assert len(changed("text", lambda o: o.update(text=[*o["text"], "more"]))) == 1
    assert len(changed("text/latex", lambda o: o["data"].update({"text/latex": ["$$$$"]}))) == 1
    assert len(changed("image/svg+xml", lambda o: o["data"].pop("image/svg+xml"))) >= 1
    assert (
        len(changed("image/svg+xml", lambda o: o["data"].update({"image/svg+xml": ["nothing drawn"]}))) == 1
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import numpy as np\nnp.float32(1) / np.zeros(1)", "RuntimeWarning"),
        ("x = (", "SyntaxError"),
    ],
)
def test_a_cell_that_fails_or_warns_is_named_and_nothing_is_written(source, words, tmp_path):
    notebook = copy.deepcopy(STORED)
    notebook["cells"] = [notebook["cells"][0], {"cell_type": "code", "source": [source]}]
    (tmp_path / "bad.ipynb").write_text(json.dumps(notebook))
    done = run(tmp_path / "bad.ipynb", tmp_path / "out.ipynb")
    assert done.returncode != 0 and "code cell 1 failed or warned" in done.stderr and words in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["bad.ipynb"]


def test_all_that_viz_gives_displays_in_a_notebook(rng):
    cell, output = cells.LSTM(3, 4, rng), cells.Output(4, 3, rng)
    x = rng.standard_normal((12, 1, 3)).astype("float32")
    loss = mg.cross_entropy(cells.run(cell, x, output=output).y, rng.integers(0, 3, (12, 1))).named("L")
    loss.backward(record=True)

    report = viz.report(loss)._repr_mimebundle_()
    assert "The gradient on its way back" in report["text/plain"] and "<svg" in report["text/html"]
    assert "share of the sum by way" in viz.paths(loss)._repr_mimebundle_()["text/plain"]

    # SVG is scaled to a page, by its size alone; in HTML the page does it.
    wide = viz.gradient(loss)
    own, fitted = (
        re.search(r'<svg[^>]*? width="([\d.]+)(?:pt)?" height="([\d.]+)', s)
        for s in (wide.svg(), wide._repr_svg_())
    )
    assert own and fitted and float(own[1]) * 4 / 3 > 1200 and fitted[1] == "960"
    assert np.isclose(float(fitted[2]) / float(own[2]), 960 / float(own[1]), rtol=0.01)
    assert wide.svg().partition("viewBox")[2] == wide._repr_svg_().partition("viewBox")[2]
    assert (
        f"max-width:100%;height:auto;min-width:{float(own[1]) / 2:.0f}pt"
        in wide._repr_mimebundle_()["text/html"]
    )

    equations = viz.equations(cell)
    assert repr(equations) == str(equations) and "f_t = σ(" in repr(equations)
    assert r"\begin{aligned}" in equations._repr_latex_() and viz.page(loss)._repr_html_().startswith(
        "<iframe"
    )
