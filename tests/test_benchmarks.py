"""The scripts in `benchmarks/` run: nobody else notices when a name that they use has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHORTEST = {
    "compiled.py": "--cases hello --threads 1 --budget 0.01",
    "training.py": "--cases hello --budget 0.01",
    "lecture.py": "--cases hello --budget 0.01",
    "characters.py": "--steps 3 --hidden 8 --window 10 --batch 2",
}
SAID = {  # the words of a row, and of what stands beside it
    "compiled.py": ["LSTM", "own cell", "nn.LSTM/RNN"],
    "training.py": ["hello", "PyTorch with fused Adam"],
    "lecture.py": ["lstm_projected", "gru_reset_after", "TCN", "Transformer block"],
    "characters.py": ["held-out bits", "ratio"],
}


@pytest.mark.oracle
@pytest.mark.parametrize("script", SHORTEST)
def test_a_benchmark_runs(script):
    pytest.importorskip("torch")
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *SHORTEST[script].split()],
        capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert [words for words in SAID[script] if words not in run.stdout] == []
