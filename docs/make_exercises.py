"""Makes examples/exercises/exercises.ipynb, to be solved, from the solved notebook: `python docs/make_exercises.py`.

The solved one is the source, in nbgrader's format: cells to be filled in and cells that grade are marked in their metadata,
and what stands between ### BEGIN SOLUTION and ### END SOLUTION is left out, as `nbgrader generate_assignment` does.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

from minigrad.files import write

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "exercises"
SOLVED, UNSOLVED = FOLDER / "solved" / "exercises.ipynb", FOLDER / "exercises.ipynb"
REGION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.MULTILINE | re.DOTALL)


def unsolved(notebook: dict) -> dict:
    """The same notebook with a stub in place of every solution."""
    found = copy.deepcopy(notebook)
    for cell in found["cells"]:
        text = REGION.sub(r"\1# YOUR CODE HERE\n\1raise NotImplementedError()", "".join(cell["source"]))
        cell["source"] = text.splitlines(keepends=True)
    return found


def main() -> None:
    notebook = unsolved(json.loads(SOLVED.read_text(encoding="utf-8")))
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write(UNSOLVED, text.encode("utf-8"))


if __name__ == "__main__":
    main()
