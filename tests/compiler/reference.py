"""The reference of the machine code: the emitted source as it stands, compiled by Numba.

It takes Numba seconds, so that tests take a few programs of each kind; tests/drawn/interpret.py runs the source of all
others as Python.
"""

from __future__ import annotations

import ctypes
import functools
from contextlib import contextmanager

import numpy as np

from minigrad.compiler.compile import Compiled


@functools.lru_cache(16)
def reference(source: str) -> Reference:
    return Reference(source)


class Reference:
    """A program's source run by Numba, called as `minigrad.compiler.cache.Program` is."""

    def __init__(self, source: str):
        names: dict = {"__name__": "reference"}
        exec(compile(source, "<reference>", "exec"), names)
        self.by_numba = names["run"]
        self.scratch = ctypes.c_double if "float64[::1]" in source else ctypes.c_float

    def run(self, table: int, count: int, scratch: int, length: int, *stages: int) -> int:
        numbers = np.frombuffer((ctypes.c_int64 * count).from_address(table), np.int64)
        room = np.frombuffer((self.scratch * length).from_address(scratch), self.scratch)
        return self.by_numba(numbers, room, *stages)


@contextmanager
def run_by_numba(compiled: Compiled):
    """The last program of a compiled function runs by Numba."""
    variant = compiled.last
    before = variant.module
    variant.plans.clear()
    variant.__dict__["module"] = reference(variant.program.source)
    try:
        yield
    finally:
        variant.plans.clear()
        variant.__dict__["module"] = before
