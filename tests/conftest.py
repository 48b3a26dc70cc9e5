"""What all tests share: golden files, the law of contributions, and repeatable drawn examples.

A golden is a text that a reader sees (an equation, a picture's source); it lies in `goldens/` beside the
test file and is written anew by ``pytest --update-goldens``.
"""

from __future__ import annotations

import os
from pathlib import Path

# One thread of NumPy's products per test process: several processes with several each wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

os.environ["LANGUAGE"] = "en"  # the goldens' language, whatever that of the machine

import hypothesis
import numpy as np
import pytest

from minigrad import Tensor, ancestors, audit

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Programs are compiled without optimisation, in a fifth of the time; `as_shipped` marks the tests that have it.

    Kernels are as users have them everywhere.  Child processes have the same setting, through their environment.
    """
    if item.get_closest_marker("as_shipped"):
        os.environ.pop("MINIGRAD_OPT", None)
    else:
        os.environ["MINIGRAD_OPT"] = "0"


def pytest_addoption(parser):
    parser.addoption(
        "--update-goldens", action="store_true", help="write the goldens instead of comparing with them"
    )


@pytest.fixture(scope="session", autouse=True)
def programs(request):
    """Programs that tests compile are kept beside pytest's own cache: a second run is quick, and no home is touched."""
    before = os.environ.get("MINIGRAD_CACHE")
    os.environ["MINIGRAD_CACHE"] = str(Path(request.config.rootpath) / ".pytest_cache" / "minigrad")
    yield
    if before is None:
        del os.environ["MINIGRAD_CACHE"]
    else:
        os.environ["MINIGRAD_CACHE"] = before


@pytest.fixture
def golden(request):
    """``golden(name, text)`` compares `text` with goldens/`name` beside the test file."""
    update = request.config.getoption("--update-goldens")
    folder = Path(request.path).parent / "goldens"

    def compare(name: str, text: str) -> None:
        file = folder / name
        if update:
            folder.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
            return
        assert file.exists(), f"no golden {file.name}: run pytest --update-goldens, and read what it wrote"
        assert text == file.read_text(encoding="utf-8"), (
            f"{file.name} changed: if meant, run pytest --update-goldens"
        )

    return compare


@pytest.fixture
def rng():
    return np.random.default_rng(2024)


@pytest.fixture(scope="session")
def assert_law():
    """``assert_law(root)``: what flowed into a node along its edges sums to its gradient.

    To be called after ``root.backward(record=True)``. Counted here node by node, independently of
    `minigrad.audit`, which must agree.
    """
    return _assert_law


def _assert_law(root: Tensor, bound: float = 1e-12) -> None:
    nodes = ancestors(root)
    arrived: dict[int, list[np.ndarray]] = {}
    for node in nodes:
        for x, part in zip(node.inputs, node.contributions or (), strict=False):
            if part is not None:
                assert part.shape == x.shape, f"contribution of shape {part.shape} into {x!r}"
                arrived.setdefault(x.number, []).append(part)
    assert arrived or not root.inputs, "no contribution was recorded at all"
    for node in nodes:
        if node is root or node.number not in arrived:
            continue
        parts = arrived[node.number]
        assert node.grad is not None, f"contributions flow into {node!r}, which has no gradient"
        assert node.grad.shape == node.shape
        size = sum(float(np.abs(part).max(initial=0)) for part in parts)
        off = float(np.abs(sum(parts) - node.grad).max(initial=0))
        assert off <= bound * size, f"{node!r}: contributions miss the gradient by {off:.2g} of {size:.2g}"
    assert audit(root) <= bound
