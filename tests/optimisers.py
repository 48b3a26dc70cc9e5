"""The table of optimisers that all tests of them walk: ours beside PyTorch's with the same rule and options.

A new optimiser, or an option of one, is tested by a row here: alone (tests/minigrad/test_optim.py), against PyTorch,
eagerly and in the compiled step (tests/minigrad/test_pytorch.py, tests/compiler/test_step.py), and across Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from minigrad import optim


class Row(NamedTuple):
    make: Callable  # parameters (a list, or a dict of them) → our optimiser
    name: str  # of PyTorch's
    options: dict  # of PyTorch's
    last: dict | None = None  # PyTorch's options for the last parameter, where that is a group of its own

    def theirs(self, torch, copies: list):
        """PyTorch's optimiser for copies of the parameters."""
        given = copies
        if self.last is not None:
            given = [{"params": copies[:-1]}, {"params": copies[-1:], **self.last}]
        return getattr(torch.optim, self.name)(given, **self.options)


def last(parameters) -> list:
    return list(parameters.values() if isinstance(parameters, dict) else parameters)[-1:]


ROWS = {
    "SGD": Row(lambda p: optim.SGD(p, lr=0.1), "SGD", dict(lr=0.1)),
    "momentum": Row(lambda p: optim.SGD(p, lr=0.05, momentum=0.9), "SGD", dict(lr=0.05, momentum=0.9)),
    "SGD with decay": Row(
        lambda p: optim.SGD(p, lr=0.05, momentum=0.5, weight_decay=0.1),
        "SGD",
        dict(lr=0.05, momentum=0.5, weight_decay=0.1),
    ),
    "SGD in groups": Row(
        lambda p: optim.SGD(p, lr=0.1, groups=[(last(p), dict(lr=0.03, momentum=0.8, weight_decay=0.02))]),
        "SGD",
        dict(lr=0.1),
        dict(lr=0.03, momentum=0.8, weight_decay=0.02),
    ),
    "Adam": Row(lambda p: optim.Adam(p, lr=0.02), "Adam", dict(lr=0.02)),
    "Adam, other rates": Row(
        lambda p: optim.Adam(p, lr=0.02, betas=(0.5, 0.8), epsilon=1e-3),
        "Adam",
        dict(lr=0.02, betas=(0.5, 0.8), eps=1e-3),
    ),
    "Adam with decay": Row(
        lambda p: optim.Adam(p, lr=0.02, weight_decay=0.1), "Adam", dict(lr=0.02, weight_decay=0.1)
    ),
    "AdamW": Row(
        lambda p: optim.AdamW(p, lr=0.02, weight_decay=0.1), "AdamW", dict(lr=0.02, weight_decay=0.1)
    ),
    "AdamW as it comes": Row(lambda p: optim.AdamW(p, lr=0.02), "AdamW", dict(lr=0.02)),
    "AdamW in groups": Row(
        lambda p: optim.AdamW(p, lr=0.02, groups=[(last(p), dict(betas=(0.7, 0.9), weight_decay=0.3))]),
        "AdamW",
        dict(lr=0.02),
        dict(betas=(0.7, 0.9), weight_decay=0.3),
    ),
    "RMSprop": Row(lambda p: optim.RMSprop(p, lr=0.02), "RMSprop", dict(lr=0.02)),
    "RMSprop, all options": Row(
        lambda p: optim.RMSprop(p, 0.02, 0.9, 1e-4, 0.5, 0.1, centred=True),
        "RMSprop",
        dict(lr=0.02, alpha=0.9, eps=1e-4, momentum=0.5, weight_decay=0.1, centered=True),
    ),
}
OPTIMISERS = {name: row.make for name, row in ROWS.items()}
every_optimiser = pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
