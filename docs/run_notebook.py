"""Runs examples/lecture.ipynb and stores what its cells give: `python docs/run_notebook.py`.

The notebook is its own source: edit its cells in Jupyter or in any editor, then run this, so that
outputs fit cells and the file holds nothing of the machine that ran it.  The cells run in IPython, by which
Jupyter's kernel displays too, but without a kernel, a server and the thirty packages that bring them.

    python docs/run_notebook.py                    # the lecture, in place
    python docs/run_notebook.py mine.ipynb --out shown.ipynb
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

LECTURE = Path(__file__).resolve().parents[1] / "examples" / "lecture.ipynb"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(notebook: dict) -> dict:
    """The same cells with outputs made anew, numbered from 1.

    Raises RuntimeError, with the cell and what it wrote, when a cell fails or writes to stderr, as warnings do.
    """
    shell, cells, count = _shell(), [], 0
    for place, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        kept = {
            "cell_type": cell["cell_type"],
            "id": f"cell-{place:02}",
            "metadata": {},
            "source": _lines(source),
        }
        if cell["cell_type"] == "code":
            count += 1
            kept |= {"execution_count": count, "outputs": _run(shell, source, count)}
        cells.append(kept)
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def write(notebook: dict, path: Path) -> None:
    """One key a line, as Jupyter itself writes it; the file appears complete or not at all."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(beside, path)


def _shell():
    """An IPython without history, and without what its user has set up."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IPYTHONDIR"] = folder
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "NoColor"
        return InteractiveShell.instance(config=config)


def _run(shell, source: str, count: int) -> list[dict]:
    from IPython.utils.capture import capture_output

    shown: list[dict] = []

    def show(value) -> None:
        if value is not None:
            data, _ = shell.display_formatter.format(value)
            shown.append({"data": _stored(data), "execution_count": count, "output_type": "execute_result"})

    shell.display_trap.hook = show  # what a cell's last line is given to
    with capture_output() as captured:
        result = shell.run_cell(source)
    if not result.success or captured.stderr:
        raise RuntimeError(
            f"code cell {count} failed or warned:\n{source}\n\n{captured.stdout}{captured.stderr}"
        )
    outputs: list[dict] = []
    if captured.stdout:
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(captured.stdout)})
    outputs += [{"data": _stored(d.data), "output_type": "display_data"} for d in captured.outputs]
    return [o if "text" in o else o | {"metadata": {}} for o in outputs + shown]


def _stored(data: dict) -> dict:
    """A picture once: as SVG, which every viewer shows, GitHub's too; not in HTML besides."""
    return {
        kind: _lines(text)
        for kind, text in data.items()
        if not (kind == "text/html" and "image/svg+xml" in data)
    }


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebook", type=Path, nargs="?", default=LECTURE)
    parser.add_argument(
        "--out", type=Path, help="where to write the notebook with its outputs (default: in place)"
    )
    options = parser.parse_args(arguments)
    notebook = execute(json.loads(options.notebook.read_text(encoding="utf-8")))
    write(notebook, options.out or options.notebook)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
