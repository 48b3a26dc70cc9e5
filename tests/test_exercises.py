"""The exercises: every solution passes, every cell that is not filled in fails with its hint, and faults are named."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import pytest

import cells
import viz
from docs import make_exercises
from tests.viz.languages import left_in_english

FOLDER = make_exercises.FOLDER
SOLVED = json.loads(make_exercises.SOLVED.read_text(encoding="utf-8"))
UNSOLVED = json.loads(make_exercises.UNSOLVED.read_text(encoding="utf-8"))
NUMBERS = range(1, 11)


@pytest.fixture(scope="module", autouse=True)
def judge():
    """The module beside the notebook."""
    sys.path.insert(0, str(FOLDER))
    import judge

    yield judge
    sys.path.remove(str(FOLDER))
    del sys.modules["judge"]


def of(notebook: dict, number: int) -> tuple[str, str]:
    """The cell that is filled in, and the one that grades it."""
    by_id = {c["metadata"]["nbgrader"]["grade_id"]: "".join(c["source"]) for c in graded(notebook)}
    return by_id[f"answer-{number}"], by_id[f"test-{number}"]


def graded(notebook: dict) -> list[dict]:
    return [c for c in notebook["cells"] if c["metadata"]]


def run(notebook: dict, number: int, old: str = "", new: str = "") -> str:
    """Run the first cell, an answer, which may be changed, and its grading; returns what was printed."""
    first = next("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    answer, test = of(notebook, number)
    assert old in answer, f"{old!r} is not in the answer"
    space: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for text in (first, answer.replace(old, new, 1), test):
            exec(text, space)
    return printed.getvalue()


@pytest.mark.parametrize("number", NUMBERS)
def test_every_solution_passes(number):
    assert run(SOLVED, number) == f"Exercise {number}: right.\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_not_filled_in_fails_with_its_hint(number, judge):
    hint = judge.EXERCISES[number].hint if number in judge.EXERCISES else judge.CELLS[number][1]
    with pytest.raises(judge.Wrong, match="still to be filled in") as found:
        run(UNSOLVED, number)
    assert hint in str(found.value)


FAULTS = [  # exercise, what stands in the solution, what a student wrote, what is said, the edge that is marked
    (1, "dy @ W.T", "dy @ np.ones_like(W.T)", "dh is wrong: it is off", ("h", "matmul")),
    (1, "h.T @ dy", "dy.T @ h", "dW has the shape (2, 3), and W (3, 2)", ("W", "matmul")),
    (2, "(1 - h**2)", "1", "the factor (1 − h²) is missing", ("a", "h")),
    (3, "f * (1 - f)", "f", "the factor (1 − f) is missing", ("a", "f")),
    (4, "-dy", "dy", "db is wrong: its sign is turned", ("b", "y")),
    (5, " + np.concatenate([h_0, x_1], axis=1).T @ da_1", "", "what comes along the marked edge is missing", ("W", "matmul")),
    (6, "df=dc * c_prev", "df=dc * f", "df is wrong", ("f", "mul")),
    (6, "di=dc * c_tilde", "di=dc", "the factor c_tilde is missing", ("i", "mul 2")),
    (7, "dc=dh * o *", "dc=dh *", "dc is wrong: the factor o is missing", ("c", "tanh")),
    (8, "dc_0=dc_1 * f_1", "dc_0=dc_2 * f_1", "dc_0 is wrong: the factor f_2 is missing", ("c_0", "mul")),
    (9, "concat(r * h_prev, x)", "hx", "h_tilde is the first quantity that is wrong", None),
    (9, "(1 - z) * h_prev + z * h_tilde", "z * h_prev + (1 - z) * h_tilde", "h is the first quantity that is wrong", None),
    (10, "s - self.beta", "s", "h is the first quantity that is wrong", None),
    (10, "tanh(hx @ self.W_c", "sigmoid(hx @ self.W_c", "c_tilde is the first quantity that is wrong", None),
]  # fmt: skip


@pytest.mark.parametrize(("number", "old", "new", "said", "edge"), FAULTS)
def test_a_fault_is_named_and_its_edge_is_marked(number, old, new, said, edge, judge):
    with pytest.raises(judge.Wrong) as found:
        run(SOLVED, number, old, new)
    assert (said in str(found.value) and "Hint: " in str(found.value)) or "has the shape" in said
    assert said in str(found.value)
    assert isinstance(found.value.picture, viz.Diagram)
    (line,) = [line for line in found.value.picture.dot.split("\n") if "penwidth=7" in line]
    if edge:
        ends = [end.strip('" ') for end in line.split(" [")[0].strip().split(" -> ")]
        assert ends[0] == edge[0] and re.sub(r" \d$", "", ends[1]) == re.sub(r" \d$", "", edge[1])


@pytest.mark.parametrize("number", NUMBERS)
def test_the_judge_speaks_portuguese(number, judge):
    """A hint of each exercise, and that the picture's title is in the same language."""
    with viz.language("pt"):
        with pytest.raises(
            judge.Wrong, match=f"^O exercício {number} ainda está por preencher. Dica: "
        ) as found:
            run(UNSOLVED, number)
        assert run(SOLVED, number) == f"Exercício {number}: certo.\n"
    hint = judge.EXERCISES[number].hint if number in judge.EXERCISES else judge.CELLS[number][1]
    assert hint not in str(found.value)


@pytest.mark.parametrize(("number", "old", "new", "said", "edge"), FAULTS)
def test_a_fault_is_named_in_portuguese(number, old, new, said, edge, judge):
    with pytest.raises(judge.Wrong) as english:
        run(SOLVED, number, old, new)
    with viz.language("pt"), pytest.raises(judge.Wrong) as found:
        run(SOLVED, number, old, new)
    whole, ours = (f"{e.value} {e.value.picture.title}" for e in (english, found))
    assert left_in_english(ours, whole, "pt", set(re.findall(r"\w+", "beta prev tilde"))) == set()


def test_a_cell_that_is_right_but_cannot_be_compiled_is_told(judge):
    class Peeks(cells.JANET):
        def step(self, x, h_prev):
            found = super().step(x, h_prev)
            return found | {"h": found["h"] + 0 * float(found["h"].value.sum())}

    with pytest.raises(judge.Wrong, match=r"cells\.check says"):
        judge.judge(10, Peeks)


def test_the_notebook_to_solve_is_made_from_the_solved_one():
    assert make_exercises.unsolved(SOLVED) == UNSOLVED, "run python docs/make_exercises.py"
    text = make_exercises.UNSOLVED.read_text(encoding="utf-8")
    assert "SOLUTION" not in text and text.count("YOUR CODE HERE") == len(NUMBERS)


def test_the_notebook_in_portuguese_is_the_same_but_for_its_texts():
    made = json.loads(make_exercises.PORTUGUESE.read_text(encoding="utf-8"))
    assert made == make_exercises.translated(UNSOLVED), "run python docs/make_exercises.py"
    texts = [
        ["".join(c["source"]) for c in n["cells"] if c["cell_type"] == "markdown"] for n in (UNSOLVED, made)
    ]
    assert list(make_exercises.TEXTS) == texts[0], "a text of the table that is in no cell"
    for english, ours in zip(*texts, strict=True):
        assert ours != english
        for kept in (r"[A-Za-z_0-9]+ = [^\n.,]*[()⊙\]][^\n,.]*", r"∂L/∂\S+?(?=[,. ]|$)", r"\d+"):
            assert re.findall(kept, ours) == re.findall(kept, english), "formulas and numbers stay"


def test_nbgrader_finds_ten_points():
    cells_ = [c["metadata"]["nbgrader"] for c in graded(UNSOLVED)]
    assert all(c["schema_version"] == 3 and set(c) >= {"grade", "solution", "locked", "task"} for c in cells_)
    assert sum(c.get("points", 0) for c in cells_) == 10
    assert [c["grade_id"] for c in cells_] == [f"{w}-{n}" for n in NUMBERS for w in ("answer", "test")]
    assert [c["solution"] for c in cells_] == [True, False] * 10 == [not c["grade"] for c in cells_]


def test_the_folder_holds_all_that_a_student_needs():
    assert {p.name for p in FOLDER.iterdir() if p.name != "__pycache__"} == {
        "exercicios.ipynb",
        "exercises.ipynb",
        "judge.py",
        "solved",
    }
    assert Path(FOLDER / "judge.py").read_text(encoding="utf-8").startswith('"""')
