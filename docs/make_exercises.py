"""Makes the notebooks to be solved from the solved one: `python docs/make_exercises.py`.

examples/exercises/exercises.ipynb is it without the solutions, exercicios.ipynb the same with its texts in Portuguese.

The solved one is the source, in nbgrader's format: cells to be filled in and cells that grade are marked in their metadata,
and what stands between ### BEGIN SOLUTION and ### END SOLUTION is left out, as `nbgrader generate_assignment` does.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from docs.exercises_pt import TEXTS  # noqa: E402
from minigrad.files import write  # noqa: E402

FOLDER = ROOT / "examples" / "exercises"
SOLVED, UNSOLVED = FOLDER / "solved" / "exercises.ipynb", FOLDER / "exercises.ipynb"
PORTUGUESE = FOLDER / "exercicios.ipynb"
REGION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.MULTILINE | re.DOTALL)


def unsolved(notebook: dict) -> dict:
    """The same notebook with a stub in place of every solution."""
    found = copy.deepcopy(notebook)
    for cell in found["cells"]:
        text = REGION.sub(r"\1# YOUR CODE HERE\n\1raise NotImplementedError()", "".join(cell["source"]))
        cell["source"] = text.splitlines(keepends=True)
    return found


def translated(notebook: dict) -> dict:
    """The same notebook with its texts in Portuguese, code as it is.  Raises KeyError with a text that has none."""
    found = copy.deepcopy(notebook)
    for cell in found["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = TEXTS["".join(cell["source"])].splitlines(keepends=True)
    return found


def main() -> None:
    notebook = unsolved(json.loads(SOLVED.read_text(encoding="utf-8")))
    for path, made in {UNSOLVED: notebook, PORTUGUESE: translated(notebook)}.items():
        text = json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        write(path, text.encode("utf-8"))


if __name__ == "__main__":
    main()
