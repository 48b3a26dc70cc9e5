"""Programs on disk: found again, written by two at once, garbage, and no folder that can be written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import numpy as np, minigrad as mg
w = mg.Tensor(np.ones(3), requires_grad=True, name="w")
step = mg.compile(lambda x: (mg.tanh(x * w)).sum())
print(step.value_and_grad(np.arange(6.0).reshape(2, 3))[0].item())
"""
VALUE = "3.5"  # tanh(0) + … + tanh(5), its first digits


def start(folder: Path, program: str = PROGRAM) -> subprocess.Popen:
    env = os.environ | {"MINIGRAD_CACHE": str(folder), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    return subprocess.Popen(
        [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip(), err


def test_second_process_finds_the_program_and_two_may_write_at_once(tmp_path):
    outs = [finish(p)[0] for p in [start(tmp_path), start(tmp_path)]]
    assert outs[0] == outs[1]
    files = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()}
    assert len([f for f in files if f.suffix == ".py"]) == 1 and not [f for f in files if f.suffix == ".part"]
    assert finish(start(tmp_path))[0] == outs[0]
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()} == files, (
        "nothing is written again"
    )


def test_garbage_in_the_folder_is_replaced(tmp_path):
    right = finish(start(tmp_path))[0]
    for file in [f for f in tmp_path.rglob("*") if f.is_file()]:
        file.write_bytes(b"\x00garbage\xff")
    assert finish(start(tmp_path))[0] == right


@pytest.mark.parametrize("what", ["file in the way", "read-only"])
def test_no_folder_that_can_be_written(tmp_path, what):
    folder = tmp_path / "cache"
    if what == "read-only":
        if os.geteuid() == 0:
            folder = Path("/proc/minigrad")  # root may write everywhere else
        else:
            folder.mkdir(mode=0o555)
    else:
        folder.write_text("in the way")
    out, err = finish(start(folder))
    assert out and err.count("cannot be written") == 1 and "MINIGRAD_CACHE" in err


def heed_interrupts():
    """What runs behind a shell ignores them, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_interrupt_keeps_what_was_learned(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "examples" / "char_rnn.py"),
        "--steps",
        "100000",
        "--out",
        str(tmp_path),
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    once = ["1" if word == "100000" else word for word in command]
    subprocess.run(
        once, env=env, check=True, capture_output=True
    )  # so that the signal meets training, not compiling
    (tmp_path / "weights.safetensors").unlink()
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_interrupts,
    )
    weights = tmp_path / "weights.safetensors"
    while not weights.exists():
        assert process.poll() is None
        time.sleep(0.05)
    first = weights.read_bytes()
    time.sleep(8)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out = process.communicate(timeout=30)[0]
    assert time.monotonic() - began < 2 and process.returncode == 0, out
    assert "stopped; what was learned so far is kept" in out
    assert weights.read_bytes() != first and not list(tmp_path.glob("*.part"))
