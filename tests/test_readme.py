"""What the README shows runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_cell_of_ones_own_runs(tmp_path):
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "dW_f" in done.stdout and "c̃_t = tanh" in done.stdout
    assert (tmp_path / "my_cell.svg").exists() and len(list((tmp_path / "compiler").glob("*.svg"))) > 5


def test_every_picture_and_link_is_there():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_there_are_exactly_two_commands_to_start_with():
    first = re.findall(r"```\n(.*?)```", README, re.DOTALL)[0]
    assert [line.split()[:2] for line in first.splitlines()] == [["make", "hello"], ["make", "test"]]
