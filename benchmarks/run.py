"""All benchmarks, one after the other: each module in `BENCHMARKS` has `rows(rounds)`, which returns its
records.

python benchmarks/run.py [--json] [--rounds 300]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import eager  # first: it settles the number of threads before NumPy is imported

BENCHMARKS = [eager]


def rows(rounds: int) -> list[dict]:
    return [record for benchmark in BENCHMARKS for record in benchmark.rows(rounds)]


if __name__ == "__main__":
    eager.main(rows)
