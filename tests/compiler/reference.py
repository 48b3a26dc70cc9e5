"""The reference of the machine code: the emitted source as it stands, compiled by Numba.

It takes Numba seconds, so that tests take a few programs of each kind; tests/drawn/interpret.py runs the source of all
others as Python.  Most of these seconds goes into `run`, which has no arithmetic but that of places: where a program
differs from another one in the dtype alone, Numba compiles its loops and kernels, and Python does what `run` says.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import inspect
from collections.abc import Callable
from contextlib import contextmanager
from types import FunctionType

import numpy as np
from numba import njit

from minigrad.compiler import runtime
from minigrad.compiler.compile import Compiled

LOOP = njit(error_model="numpy", fastmath=runtime.FLAGS)  # as emitted loops are, and called from Python
NUMBERS = {
    "f4": ctypes.c_float,
    "f8": ctypes.c_double,
    "i4": ctypes.c_int32,
    "i8": ctypes.c_int64,
    "b1": ctypes.c_bool,
}


@functools.lru_cache(16)
def reference(source: str, whole: bool) -> Reference | Driven:
    return Reference(source) if whole else Driven(source)


def array_at(kind: type, table: list[int], k: int) -> np.ndarray:
    """The array whose address and size stand in entry k of the table."""
    address, count = table[2 * k : 2 * k + 2]
    return np.frombuffer((kind * count).from_address(address), kind) if count else np.zeros(0, kind)


def by_name(kernel: Callable) -> Callable:
    """A kernel that takes arguments by name too."""
    signature = inspect.signature(kernel)
    return lambda *given, **named: kernel(*signature.bind(*given, **named).args)


class Driven:
    """As `Reference`, with the loops and the kernels by Numba, and `run`, which calls them, by Python."""

    def __init__(self, source: str):
        tree = ast.parse(source)
        tree.body = [s for s in tree.body if not isinstance(s, ast.ImportFrom)]
        names = {name: value for name, value in vars(runtime).items() if name[0] != "_"}
        names |= {f"array_{code}": functools.partial(array_at, kind) for code, kind in NUMBERS.items()}
        names |= {
            name: by_name(f)
            for name, f in names.items()
            if isinstance(f, FunctionType) and hasattr(f, "__wrapped__")
        }
        names |= {"view": lambda array, at, n: array[at : at + n], "loop": LOOP}
        names |= {"entry": lambda signature: lambda run: run, "stage": lambda part: part}
        exec(compile(tree, "<driven>", "exec"), names)
        self.by_python = names["run"]
        self.scratch = ctypes.c_double if "float64[::1]" in source else ctypes.c_float

    def run(self, table: int, count: int, scratch: int, length: int, *stages: int) -> int:
        numbers = list((ctypes.c_int64 * count).from_address(table))
        room = np.frombuffer((self.scratch * length).from_address(scratch), self.scratch)
        return self.by_python(numbers, room, *stages)


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
def run_by_numba(compiled: Compiled, whole: bool = True):
    """The last program of a compiled function runs by Numba: all of it, or its loops and kernels."""
    variant = compiled.last
    before = variant.module
    variant.plans.clear()
    variant.__dict__["module"] = reference(variant.program.source, whole)
    try:
        yield
    finally:
        variant.plans.clear()
        variant.__dict__["module"] = before
