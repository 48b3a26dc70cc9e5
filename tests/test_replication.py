"""The table of published figures beside ours: its page is what the script writes from its results, and no row is left out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import cells
import minigrad as mg
from cells import tasks

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def replication():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import replication

    yield replication
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in ("replication", "tasks"):
        sys.modules.pop(name, None)


def test_the_page_is_what_the_script_writes(replication):
    page, results = replication.PAGE.read_text(encoding="utf-8"), replication.read(replication.RESULTS)
    assert replication.written(page, results) == page, "run python benchmarks/replication.py --seed --write"
    assert page.count("\n| ") >= len(replication.ROWS)


def test_results_are_of_rows_as_they_stand_and_what_was_not_run_says_so(replication):
    results = json.loads(replication.RESULTS.read_text(encoding="utf-8"))
    steps = {(row.task, row.model): row.steps for row in replication.ROWS if row.make}
    ended = [r for r in results if r["steps"] != steps[r["task"], r["model"]]]
    assert all(r["model"] == "TCN" and r["steps"] < steps[r["task"], "TCN"] for r in ended), (
        "but for what was ended by the clock"
    )
    page = replication.PAGE.read_text(encoding="utf-8")
    for row in replication.ROWS:
        own = [r for r in results if (r["task"], r["model"]) == (row.task, row.model)]
        (line,) = [p for p in page.split("\n") if p.startswith(f"| {row.model} | ") and p.endswith(f"| {row.differs} |")
                   and row.published.replace("–", "none") in p] if row.task != "digits" else [""]  # fmt: skip
        assert row.task == "digits" or own or "not run" in line
        assert row.differs and (row.source or row.published == "–")


@pytest.mark.parametrize("length", [37, 64])
def test_of_a_tcn_only_what_the_last_output_depends_on_is_computed(length, replication):
    """With the same loss and gradients."""
    rng = np.random.default_rng(0)
    x, y = (array.astype("f8") for array in tasks.adding(length, 3, rng))
    output, sizes = cells.Output(4, 1, rng, dtype="float64"), (2, 4, 5, 3)
    whole = cells.TCN(*sizes, np.random.default_rng(1), "float64")
    last = replication.LastOfTCN(length, *sizes, np.random.default_rng(1), "float64")
    found = []
    for layer in (whole, last):
        for p in layer.parameters().values():
            p.value = p.value + 0.1  # biases, too: at each level zeros stand before the first step
        loss, gradients = mg.compile(
            lambda x, y, layer=layer: replication._sum(layer, output, x, y)
        ).value_and_grad(x, y)
        found.append({"loss": float(loss), **{name: gradients[p] for name, p in layer.parameters().items()}})
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=0, atol=1e-12, err_msg=name)


def test_one_training_gives_a_result(replication):
    import dataclasses

    row = next(r for r in replication.ROWS if (r.task, r.model) == ("adding", "GRU"))
    result = replication.run(dataclasses.replace(row, steps=2), 0)
    assert result["parameters"] == 3 * 32 * 34 + 33 and 0 < result["score"] < 10
    assert "| GRU | 5.3e-5" in replication.table([result]) and f"{result['score']:.3g}" in replication.table(
        [result]
    )
