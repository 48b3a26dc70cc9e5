"""Machine code is what Numba makes of the same source, bit for bit, and what is not in the language is refused."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad.compiler import cache, llvm, machine, places, plan
from minigrad.compiler.llvm import UnknownError
from minigrad.scanning import flatten
from tests.compiler.reference import Reference, run_by_numba
from tests.drawn.draw import draw
from tests.drawn.programs import build

pytestmark = pytest.mark.as_shipped
ROOT = Path(__file__).parents[2]
T, N, D, H = 5, 6, 3, 9


def step(cell: str, dtype: str, threads: int):
    """A compiled training step, and what it is called with."""
    rng = np.random.default_rng(0)
    layer = cells.CELLS[cell](D, H, rng, dtype=dtype)
    output = cells.Output(layer.width, 4, rng, dtype=dtype)
    x, targets = rng.standard_normal((T, N, D)).astype(dtype), rng.integers(0, 4, (T, N))

    def loss(x, targets):
        return mg.cross_entropy(cells.run(layer, x, output=output).y, targets)

    return mg.compile(loss, threads=threads), (x, targets)


def assert_same_bits(compiled, *arguments, whole: bool = True) -> None:
    """Values and gradients of machine code and of Numba, for one call; whole: `run` by Numba too (reference.py)."""
    values, gradients = compiled.value_and_grad(*arguments)
    with run_by_numba(compiled, whole):
        wanted, reference = compiled.value_and_grad(*arguments)
    for value, right in zip(flatten(values)[0], flatten(wanted)[0], strict=True):
        np.testing.assert_array_equal(value.value, right.value)
    assert len(gradients) == len(reference)
    for tensor in gradients:
        np.testing.assert_array_equal(gradients[tensor], reference[tensor], err_msg=str(tensor.name))


@pytest.fixture
def many_threads(monkeypatch):
    monkeypatch.setattr(plan, "THREADS_FROM", -1)


# Programs.


def test_a_training_step_gives_the_bits_of_numba(many_threads):
    for threads in (1, 4):
        compiled, arguments = step("gru", "float32", threads)
        assert_same_bits(compiled, *arguments)


def test_what_selects_and_repeats_gives_the_bits_of_numba():
    def loss(x, y, i):
        picked = x[::2, i] @ y[:, None]
        return (
            (picked * picked).sum((0, 2)).max()
            + mg.cross_entropy(x[0], i[: x.shape[1]])
            + x[::-1][i, 0].sum()
        )

    rng = np.random.default_rng(0)
    x, y = (mg.Tensor(rng.standard_normal(s), requires_grad=True) for s in [(5, 4, 6), (2, 6, 3)])
    assert_same_bits(mg.compile(loss), x, y, np.array([1, 0, 3, 2]))


# s has two gradients, each a product: which of them is fused with the sum is chosen otherwise, in the last bit.
FUSED = [
    pytest.param(name, marks=pytest.mark.xfail(strict=False))
    if name in ("min_gru_log", "min_lstm_log")
    else name
    for name in cells.CELLS
]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", FUSED)
def test_every_cell_gives_the_bits_of_numba(cell, dtype, many_threads):
    for threads in (1, 4):
        compiled, arguments = step(cell, dtype, threads)
        assert_same_bits(
            compiled, *arguments, whole=dtype == "float32"
        )  # `run` differs in names of types alone


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300, 312))
def test_drawn_programs_give_the_bits_of_numba(seed):
    program = draw(seed)
    program.gradients = True
    built = build(program)
    compiled = mg.compile(built.function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compiled.value_and_grad(*built.calls[0])
        except mg.MinigradError:
            pytest.skip("it is refused")
    if compiled.last is None:
        pytest.skip("it runs eagerly")
    assert_same_bits(compiled, *built.calls[0])


# The language: every expression that the compiler emits, on numbers at its edges.

# fmt: off
INTEGERS = [
    "{k}(x // y)", "{k}(x % y)", "{k}(-x)", "{k}(abs(x))", "{k}(sign(x))", "wrapping_add(x, y)", "wrapping_sub(x, y)",
    "wrapping_mul(x, y)", "maximum(x, y)", "minimum(x, y)", "{k}(x + y)", "{k}(x - y)", "{k}(x * y)", "(x if x > y else z)",
    "b1(x < y)", "b1(x == y)", "b1(x != y)", "b1(0 <= x < y)", "b1(x)", "f4(x)", "f8(x)", "i4(x)", "i8(x)",
    "i8(max(x, min(y, z)))", "{k}(x & y)", "{k}(x | y)", "{k}(x ^ y)", "{k}(floor(x))",
]
FLOATS = [
    "x + y", "x * y + z", "x * y - z * x", "x * (y - x * z) + y * z", "x / y", "x / z + y / z", "-x", "abs(x)", "sign(x)",
    "maximum(x, y)", "minimum(x, y)", "sqrt(x)", "sin(x)", "cos(x)", "exp(x)", "tanh(x)", "sigmoid(x)", "log(x)",
    "log1p(x)", "softplus(x)", "{k}(x ** y)", "{k}(x ** {k}(2.5))", "(x if x > y else z)", "b1(x > y)", "b1(x >= y)",
    "b1(x == y)", "b1(x != y)", "b1(x)", "f4(x)", "f8(x)", "x * {k}(0.1)", '{k}(float("inf")) - x',
    "floor(x)", "rint(x)", "expm1(x)", "erf(x)", "x % y", "x // y",
]
TRUTHS = ["(x if x else y)", "b1(x == y)", "maximum(x, y)", "minimum(x, y)", "f4(x)", "f8(y)", "i4(x)", "i8(x)",
          "b1(x & y)", "b1(x | y)", "b1(x ^ y)"]
REAL = [
    0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-39, 1e30, -1e-3, 89.0, -104.0, np.inf, -np.inf, np.nan, 0.1, 1e-45, 7.3,
]
NUMBERS = {
    "i4": [0, 1, -1, 2, -7, 7, 3, -3, 2**31 - 1, -(2**31), 12345, -50000],
    "i8": [0, 1, -1, 2, -7, 7, 3, -3, 2**63 - 1, -(2**63), 2**40 + 1, -(2**53) - 1],
    "b1": [False, True], "f4": REAL, "f8": REAL,
}
# fmt: on
TYPES = {"f4": np.float32, "f8": np.float64, "i4": np.int32, "i8": np.int64, "b1": np.bool_}


def language(k: str) -> tuple[str, list[np.ndarray]]:
    """A program that computes every expression for all triples of a dtype's numbers, and its arrays."""
    of = FLOATS if k[0] == "f" else TRUTHS if k == "b1" else INTEGERS
    expressions = [e.replace("{k}", k) for e in of]
    kinds = [e[:2] if e[:2] in TYPES and e[2] == "(" else k for e in expressions]
    functions = [
        f"@loop\ndef loop_{j}(n0, a, b, c, to):\n    for i0 in range(n0):\n        x = a[i0]\n        y = b[i0]\n"
        f"        z = c[i0]\n        to[i0] = {e}\n"
        for j, e in enumerate(expressions)
    ]
    names = ["a", "b", "c", *(f"to{j}" for j in range(len(of)))]
    head = [
        f"    {n} = array_{kind}(table, {j})"
        for j, (n, kind) in enumerate(zip(names, [k, k, k, *kinds], strict=True))
    ]
    calls = [f"    loop_{j}(a.size, a, b, c, to{j})" for j in range(len(of))]
    signature = '@entry("int64(int64[::1], float32[::1], int64, int64, int64, int64)")'
    run = [signature, "def run(table, scratch, part, parts, first, last):", *head, *calls, "    return 0"]
    source = "\n\n".join(["from minigrad.compiler.runtime import *", *functions, "\n".join(run) + "\n"])
    triples = np.array(np.meshgrid(*[np.array(NUMBERS[k], TYPES[k])] * 3)).reshape(3, -1)
    given = [np.concatenate([row, row[:3]]) for row in triples]  # not a multiple of any vector
    return source, given + [np.zeros(given[0].size, TYPES[kind]) for kind in kinds]


def run(program, arrays: list[np.ndarray]) -> list[np.ndarray]:
    arrays = [a.copy() for a in arrays]
    table = np.array([n for a in arrays for n in (a.ctypes.data, a.size)], np.int64)
    scratch = np.zeros(8, np.float32)
    assert program.run(table.ctypes.data, table.size, scratch.ctypes.data, scratch.size, 0, 1, 0, 1) == 0
    return arrays


@pytest.mark.parametrize("k", TYPES)
def test_every_expression_gives_the_bits_of_numba(k):
    source, arrays = language(k)
    ours, theirs = run(cache.load(source, "language"), arrays), run(Reference(source), arrays)
    lines = [line.strip() for line in source.splitlines() if line.strip().startswith("to[i0]")]
    for what, a, b in zip(["a", "b", "c", *lines], ours, theirs, strict=True):
        bits = f"u{a.dtype.itemsize}"
        same = (a.view(bits) == b.view(bits)) | ((a != a) & (b != b))  # a NaN's sign is nobody's
        at = np.flatnonzero(~same)
        numbers = [(*(x[j] for x in ours[:3]), a[j], b[j]) for j in at[:3]]
        assert not at.size, f"{what}: {at.size} differ, e.g. (x, y, z, ours, Numba's) {numbers}"


def test_loops_go_as_in_python():
    """Up, down, in steps whose sign is only known at run time, not at all; `while`, `continue`, and a name used anew."""
    source = """
from minigrad.compiler.runtime import *

@entry("int64(int64[::1], float32[::1], int64, int64, int64, int64)")
def run(table, scratch, part, parts, first, last):
    given = array_i8(table, 0)
    found = array_i8(table, 1)
    at = 0
    for k in range(0, given.size, 3):
        for j in range(given[k], given[k + 1], given[k + 2]):
            if j == 4 or not j < 90:
                continue
            found[at] = j
            at += 1
            j = 1000
        found[at] = -99
        at += 1
    for t in range(given[0] - 3, given[0] - 8, -2):
        found[at] = t
        at += 1
    while at % 5 != 0 and at > 0:
        found[at] = at if at % 2 == 0 and at > 3 else -at
        at += 1
    return 0
"""
    triples = [
        (0, 6, 1),
        (6, 0, -1),
        (0, 7, 3),
        (7, 0, -3),
        (5, 5, 1),
        (5, 2, 1),
        (2, 5, -1),
        (88, 93, 1),
        (-5, 5, 4),
    ]
    given, found = np.array(triples).reshape(-1), np.zeros(100, np.int64)
    expected = [
        *(x for a, b, c in triples for x in [*(j for j in range(a, b, c) if j != 4 and j < 90), -99]),
        -3,
        -5,
        -7,
    ]
    while len(expected) % 5:
        at = len(expected)
        expected.append(at if at % 2 == 0 else -at)
    (_, found) = run(cache.load(source, "loops"), [given, found])
    assert found[: len(expected)].tolist() == expected and not found[len(expected) :].any()


def test_what_is_set_in_one_place_before_it_is_read_has_no_slot():
    """A name that is read outside of the block that sets it, or is set again where its value may be the old one, has."""
    source = """
def run(n):
    a = n
    for t in range(n):
        b = t + a
        if b > 2:
            c = b
            outside = c
        else:
            c = a
            outside = c
        e = outside
        again = e
        while again > 0:
            again = again - 1
    for t in range(a):
        last = t
    for k in range(n):
        for k in range(2):
            e = k
    sum = 0
    sum += last
    return sum
"""
    (definition,) = ast.parse(source).body
    assert llvm._set_once(definition) == {"n", "a", "t", "b", "c", "e"}


UNKNOWN = {
    "a float and an integer": "x = f4(1.0) + n",
    "a name that is not there": "x = nowhere + 1",
    "another type than before": "x = n\n    x = f4(1.0)",
    "a function that is not there": "unheard(table, n)",
    "a keyword": "x = max(n, 1, key=n)",
    "a list": "x = [n]",
    "division of integers": "x = n / 2",
    "a shift of bits": "x = n << 2",
    "a string": "x = 'text'",
    "a module": "x = np.random.rand(n)",
    "a try": "try:\n        x = n\n    finally:\n        x = 2",
    "an else of a loop": "for j in range(n):\n        x = j\n    else:\n        x = 0",
    "an array as a number": "x = table + 1",
    "memory in a loop": "for j in range(n):\n        x = np.empty(n, table.dtype)",
    "an array that changes in a loop": "x = view(table, 0, 1)\n    for j in range(n):\n        x = view(x, 1, 1)",
    "a call where both ways are computed": "x = gather(table, table, table, n, n) if n > 0 else 0",
    "too many arguments": "fill(table, n, n)",
    "what can never run": "return n\n    x = 1",
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_is_not_in_the_language_is_refused(what):
    source = '@entry("int64(int64[::1], float32[::1], int64, int64, int64, int64)")\n'
    source += f"def run(table, scratch, part, parts, first, last):\n    n = table[0]\n    {UNKNOWN[what]}\n    return n\n"
    with pytest.raises(UnknownError):
        llvm.program_code(source)


# Kernels.


def test_every_kernel_that_programs_import_can_be_written():
    """For float32 and float64, from the types of its arguments as the compiler calls it."""
    flags = {"same", "accumulate"}
    for name in set(places.IMPORTED) & set(llvm._kernels()):
        definition = llvm._kernels()[name]
        if llvm._decorator(definition) == "njit":  # written where it is called
            continue
        for kind in ("f4", "f8"):
            arrays = {"a", "b", "c", "g", "table", "packed", "scratch", "origin", "target"}
            kinds = [
                "b1" if a.arg in flags else "pi8" if a.arg == "index" else f"p{kind}" if a.arg in arrays
                else kind if a.arg == "value" else "i8"
                for a in definition.args.args
            ]  # fmt: skip
            assert machine.object_code(llvm.kernel_code(".".join([name, *kinds])).text)


def test_the_same_source_gives_the_same_text():
    compiled, arguments = step("lstm", "float32", 1)
    compiled.variant(arguments, True, load=False)
    source = compiled.variants[next(iter(compiled.variants))][0].program.source
    assert llvm.program_code(source) == llvm.program_code(source)


def test_numba_is_not_loaded_by_a_program_that_runs(tmp_path):
    program = (
        "import sys, numpy as np, minigrad as mg, cells\n"
        "f = mg.compile(lambda x: mg.tanh(x).sum())\n"
        "f(np.ones(3)), f.source\n"
        "print([m for m in ('numba',) if m in sys.modules], f.last is not None)"
    )
    env = os.environ | {"MINIGRAD_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[] True"


class Mine(cells.Cell):
    """A cell whose gate is called as the arrays of a program's table are."""

    gates, state = "array", "h"

    def build(self, rng):
        self.parameter("W", rng.standard_normal((7, 4)).astype("float32"))

    def step(self, x, h_prev):
        array = mg.tanh(mg.concat(h_prev, x) @ self.W)
        return dict(array=array, h=array)


def test_a_loop_may_be_called_as_arrays_are():
    layer = Mine(3, 4, np.random.default_rng(0))
    compiled = mg.compile(lambda x: cells.run(layer, x).h.sum())
    x = np.ones((3, 2, 3), "float32")
    assert abs(compiled(x).item() - cells.run(layer, x).h.value.sum()) < 1e-4
    assert "def array_step(" in compiled.source
