"""What the README shows runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

from minigrad import checkpoint

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


CELL, RESUMED = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_cell_of_ones_own_runs(tmp_path):
    said = run(CELL, tmp_path)
    assert "dW_f" in said and "c̃_t = tanh" in said
    assert (tmp_path / "my_cell.svg").exists() and len(list((tmp_path / "compiler").glob("*.svg"))) > 5


def test_the_training_that_stopped_goes_on_to_the_same_bits(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    assert run(RESUMED, whole) == "200 (19, 16) running sums\n"
    assert run(RESUMED.replace("batches(200)", "batches(90)"), parts) == "90 (19, 16) running sums\n"
    assert run(RESUMED, parts) == "200 (19, 16) running sums\n"
    one, two = (checkpoint.load(folder / "sums.safetensors") for folder in (whole, parts))
    assert one.keys() == two.keys() and all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert one["tensors/losses"][-1] < 0.5 * one["tensors/losses"][0]


def test_every_picture_and_link_is_there():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_there_are_exactly_two_commands_to_start_with():
    first = re.findall(r"```\n(.*?)```", README, re.DOTALL)[0]
    assert [line.split()[:2] for line in first.splitlines()] == [["make", "hello"], ["make", "test"]]
