"""The verifier: it finds nothing in what the compiler makes, and everything that a program must not do.

What it believes of kernels (`EFFECTS`) is compared with what their own text touches, run by the interpreter.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad.compiler import kernels, runtime
from minigrad.compiler.plan import numbers_of
from minigrad.compiler.program import (
    ONE,
    OPERANDS,
    PART,
    WRITTEN,
    ZERO,
    Buffer,
    Call,
    Constant,
    For,
    Name,
    Number,
    Program,
    Set,
    Stage,
    View,
    chosen,
    compared,
    maximum,
    minimum,
    value_of,
)
from minigrad.compiler.text import text_of
from minigrad.compiler.verify import EFFECTS, Access, VerifyError, overlaps, verify
from tests.drawn import interpret
from tests.drawn.mutations import MUTATIONS, applied

T, N, D, H = 5, 6, 3, 9


def variant_of(cell: str, dtype: str = "float32"):
    rng = np.random.default_rng(0)
    layer = cells.CELLS[cell](D, H, rng, dtype=dtype)
    output = cells.Output(layer.width, 4, rng, dtype=dtype)
    x, targets = rng.standard_normal((T, N, D)).astype(dtype), rng.integers(0, 4, (T, N))
    loss = mg.compile(lambda x, y: mg.cross_entropy(cells.run(layer, x, output=output).y, y))
    variant, call = loss.variant((x, targets), True, load=False)
    assert variant is not None
    return variant, call


@pytest.mark.parametrize("cell", cells.CELLS)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_nothing_is_found_in_the_training_step_of_a_cell(cell, threads):
    variant, call = variant_of(cell)
    verify(variant.program, numbers_of(variant.traced, call.shapes), threads)
    with interpret.small_blocks():  # several blocks of rows and steps
        variant, call = variant_of(cell)
        verify(variant.program, numbers_of(variant.traced, call.shapes), threads)


# Programs written by hand.

A, B = (Buffer(name, "f8", 6, "work") for name in "ab")
GIVEN = Buffer("given", "f8", 6, "input")
PACKED = Buffer("packed", "f8", 64, "packed")
TWO = [Number(2)] * 3  # rows, columns and the stride of a matrix


def program(*stages: Stage) -> Program:
    buffers = [A, B, GIVEN, PACKED]
    return Program(
        "", list(stages), [], [], buffers, [], touched={"add": ([1, 2], (3,)), "add_to": ([1, 2], (2,))}
    )


def fill(x) -> Call:
    return Call("fill", [x, Constant("f8", 0.0)])


def looked_at(*statements, parallel: bool = False, threads: int = 2) -> None:
    verify(program(Stage(parallel, list(statements))), lambda size: size, threads)


def own(buffer: Buffer, first=PART) -> View:
    return View(buffer, first * 3, Number(3))


@pytest.mark.parametrize(
    ("words", "parallel", "statements"),
    [
        ("reads a before it is written", False, [Call("copy", [A, B])]),
        ("reads a before it is written", False, [fill(View(A, ZERO, Number(5))), Call("copy", [A, B])]),
        ("touches elements 2 … 7 of a, which has 6", False, [fill(View(A, Number(2), Number(6)))]),
        ("touches elements -1 … 4 of a", False, [fill(View(A, -ONE, Number(6)))]),
        ("writes to given, which is given from outside", False, [Call("copy", [GIVEN, GIVEN])]),
        ("`fill(a, f8(0.0))` writes to a what another thread", True, [fill(A)]),
        ("reads a before it is written", True, [fill(own(A)), Call("copy", [A, B])]),
        (
            "is given what it writes of a twice",
            False,
            [fill(A), Call("add", [Number(5), View(A, ZERO, Number(5)), GIVEN, View(A, ONE, Number(5))])],
        ),
        ("is given what it writes of a twice", False, [fill(A), Call("add", [Number(6), A, GIVEN, A])]),
        (
            "stage 0, `fill(view(a, t * 2, 2), f8(0.0))` at t = 3 touches elements 6 … 7",
            False,
            [For("t", ZERO, Number(4), body=[fill(View(A, Name("t") * 2, Number(2)))])],
        ),
        (
            "overwrites of a what it reads",
            False,
            [fill(A), Call("pack", [GIVEN, ZERO, *TWO, ONE, PACKED, ZERO]),
             Call("matmul", [A, ZERO, *TWO, ONE, PACKED, ZERO, A, ZERO, *TWO[:2], False])],
        ),
        (
            "reads packed before it is written",
            False,
            [Call("matmul", [GIVEN, ZERO, *TWO, ONE, PACKED, ZERO, A, ZERO, *TWO[:2], False])],
        ),
    ],
)  # fmt: skip
def test_what_no_program_may_do(words, parallel, statements):
    with pytest.raises(VerifyError, match="a defect of the compiler, please report it") as caught:
        looked_at(*statements, parallel=parallel)
    assert words in str(caught.value)


def test_what_a_program_may_do():
    looked_at(fill(own(A)), Call("copy", [own(A), own(B)]), parallel=True)
    looked_at(Call("copy", [GIVEN, A]), Call("copy", [GIVEN, B]), Call("add_to", [Number(6), B, A]))
    looked_at(Set(("k",), (Number(2),)), fill(View(A, Name("k") * 3, ZERO)), parallel=True)  # of nothing
    stages = [Stage(True, [fill(own(A))]), Stage(True, [Call("copy", [own(A, ONE - PART), own(B)])])]
    verify(program(*stages), lambda size: size, 2)  # another thread's, in the stage after


def test_threads_of_one_stage_share_no_element_that_one_writes():
    whole = Stage(False, [fill(A), fill(B)])
    for statements, words in (
        ([fill(own(A)), Call("copy", [A, own(B)])], "writes to a what another thread reads or writes"),
        (
            [Call("copy", [own(A, ONE - PART), own(B)]), fill(own(A))],
            "(writes to|reads of) a what another thread",
        ),
        (
            [Call("copy", [own(A), View(B, ZERO, Number(3))])],
            "writes to b what another thread reads or writes",
        ),
    ):
        split = program(whole, Stage(True, list(statements)))
        verify(split, lambda size: size, 1)
        with pytest.raises(VerifyError, match=words):
            verify(split, lambda size: size, 2)
    late = chosen(compared("==", PART, 0), 3, 0)  # only the first thread writes, and the second reads
    split = program(whole, Stage(True, [fill(View(A, ZERO, late)), Call("copy", [own(A, ZERO), own(B)])]))
    with pytest.raises(VerifyError, match="reads of a what another thread writes"):
        verify(split, lambda size: size, 2)


def test_a_result_that_was_never_written_is_found():
    whole = program(Stage(False, [fill(View(A, ZERO, Number(3)))]))
    variant, _ = variant_of("rnn")
    whole.results = [type(variant.program.results[0])(A, ZERO, (6,))]
    with pytest.raises(VerifyError, match="a result reads a before it is written"):
        verify(whole, lambda size: size)


# The kernels.


def drawn_calls(name: str, rng: np.random.Generator):
    """Operands of a kernel, for small sizes: (buffers with what they hold, operands)."""

    def buffer(label: str, size: int, kind: str = "input") -> Buffer:
        return Buffer(label, "f4", size, kind)

    m, k, n, gap = (int(x) for x in rng.integers(1, 5, 4))
    long, by = m + k, int(rng.integers(-3, 4))
    first = int(rng.integers(0, long))
    count = int(rng.integers(1, long - first + 1))
    accumulate = bool(rng.integers(2))
    packed, scratch = buffer("packed", k * 64, "packed"), Name("scratch")
    c = buffer("c", gap + max(long, m) * (n + 40), "work")
    a_strides = [(k, 1), (1, m)][int(rng.integers(2))]
    b_strides = [(n, 1), (1, k)][int(rng.integers(2))]
    whole, start, step = 3 * m + 4, int(rng.integers(0, 3)), int(rng.integers(1, 3))
    if rng.integers(2):
        start, step = start + 2 * (m - 1), -step
    start = max(start, 0) if step > 0 else start + (m - 1)
    made = {
        "matmul": [buffer("a", gap + m * k), gap, m, k, *a_strides, packed, 0, c, gap, n, n + gap, accumulate],
        "matmul_sum": [
            buffer("a", gap + k * (m + gap)), gap, m + gap, buffer("b", k * n), 0, n, k, m, n, c, gap, n, accumulate, scratch,
        ],
        "matmul_shifted": [
            buffer("a", gap + long * k), gap, long, by, first, count, k, packed, c, gap, n, accumulate,
        ],
        "matmul_sum_shifted": [
            buffer("a", gap + long * m), gap, m, long, by, first, count, buffer("b", long * n), 0, m, n, c, gap,
            accumulate, scratch,
        ],
        "matmul_batch": [
            buffer("a", gap + 2 * m * k), gap, *a_strides, buffer("b", 2 * k * n), 0, *b_strides,
            buffer("packed", k * 64, "packed"), c, gap, 2, m, k, n,
        ],
        "pack": [buffer("b", gap + k * n), gap, k, n, *b_strides, buffer("packed", 64 * k, "packed"), 0],
        "start_rows": [
            buffer("o", 64), gap, buffer("c", 128, "work"), gap, first % 3, m, n, accumulate,
        ],
        "copy_slice": [buffer("o", k * whole * n), buffer("c", k * m * n, "work"), k, whole, start, m, step, n],
        "place_slice": [buffer("o", k * m * n), buffer("c", k * whole * n, "work"), k, whole, start, m, step, n],
        "permute": [
            buffer("o", m * k * n * gap), buffer("c", m * k * n * gap, "work"), m, k, n, gap, k * n * gap, 1, k, k * n,
        ],
    }  # fmt: skip
    return made[name]


@pytest.mark.parametrize("name", sorted(set(EFFECTS) - {"scatter"}))
def test_what_a_kernel_touches_is_what_the_verifier_believes(name):
    """Its own text is run by Python on arrays that note what is read and written."""
    rng = np.random.default_rng(3)
    function = interpret._names()[name]
    for _ in range(60):
        operands = drawn_calls(name, rng)
        memories = {x: Noting(x) for x in operands if isinstance(x, Buffer)}
        if "packed" in name or (name.startswith("matmul") and "sum" not in name and name != "matmul_batch"):
            packed = next(x for x in operands if isinstance(x, Buffer) and x.name == "packed")
            k = operands[3 if name == "matmul" else 6]
            memories[packed].packed[0] = np.zeros((k, operands[10]), np.float32)
        values = [
            interpret.Array(memories[x], 0, x.size) if isinstance(x, Buffer) else None if isinstance(x, Name) else x
            for x in operands
        ]  # fmt: skip
        function(*values)
        whole = [Access(x, 0, 1, 0, x.size) if isinstance(x, Buffer) else x for x in operands]
        effect = EFFECTS[name](*whole)
        for memory in memories.values():
            if memory.buffer.name == "packed":
                continue  # its panels are the kernels' own affair: all of it counts as read or written
            reads, writes = ([*xs, *effect.adds] for xs in (effect.reads, effect.writes))
            for believed, seen in ((reads, memory.seen_read), (writes, memory.seen_written)):
                found = set().union(*(elements_of(x) for x in believed if x.buffer is memory.buffer))
                assert set(np.flatnonzero(seen)) == found, (name, operands, memory.buffer.name)


def elements_of(x: Access) -> set[int]:
    return {x.at + r * x.stride + j for r in range(x.rows) for j in range(x.width)}


class Noting(interpret.Memory):
    """A memory that notes which elements are read, and which are written."""

    def __init__(self, buffer: Buffer):
        super().__init__(buffer.name, buffer.dtype, buffer.size, None)
        self.buffer = buffer
        self.seen_read, self.seen_written = (np.zeros(buffer.size, bool) for _ in range(2))

    def read(self, at):
        self.seen_read[at] = True
        return self.values[at]

    def write(self, at, values) -> None:
        self.seen_written[at] = True
        self.values[at] = values


def test_every_kernel_that_programs_call_is_known():
    """And the positions that are written bear the names of what kernels write."""
    called = {name for name, value in vars(runtime).items() if hasattr(value, "__wrapped__")} & set(WRITTEN)
    assert called == set(WRITTEN) and set(EFFECTS) <= set(WRITTEN)
    for name, places in WRITTEN.items():
        names = list(inspect.signature(getattr(runtime, name).__wrapped__).parameters)
        assert {names[k] for k in places} <= {"target", "c", "packed"}, name
        assert {"target", "c"} & set(names) <= {names[k] for k in places}, name
    for name, operands in OPERANDS.items():
        assert list(operands) == list(inspect.signature(getattr(runtime, name).__wrapped__).parameters), name
    assert kernels.pack is runtime.pack


def test_accesses_overlap():
    rng = np.random.default_rng(0)
    for _ in range(300):
        x, y = (Access(A, *(int(v) for v in rng.integers((8, 0, -5, 0), (16, 4, 6, 4)))) for _ in range(2))
        elements = [elements_of(z) for z in (x, y)]
        assert overlaps(x, y) == bool(elements[0] & elements[1])


# Integers.


def test_the_text_of_an_integer_is_its_value():
    rng = np.random.default_rng(0)
    names = {"a": 3, "b": 7, "t": 2, "H": 5}

    def drawn(depth: int):
        if depth == 0 or rng.random() < 0.2:
            return (
                Number(int(rng.integers(0, 4))) if rng.random() < 0.4 else Name(str(rng.choice(list(names))))
            )
        x, y = drawn(depth - 1), drawn(depth - 1)
        made = (
            lambda: x + y, lambda: x * y, lambda: x - y, lambda: -x, lambda: maximum(x, y), lambda: minimum(x, y),
            lambda: x // maximum(1, y), lambda: x % maximum(1, y), lambda: chosen(compared("<", x, y), x, y),
        )  # fmt: skip
        return made[int(rng.integers(len(made)))]()

    for _ in range(500):
        x = drawn(4)
        assert eval(text_of(x), {"max": max, "min": min}, names) == value_of(x, names), text_of(x)


def test_check_looks_at_the_program_before_it_compares_numbers():
    broken = next(m for m in MUTATIONS if "slots in turn" in m.what)
    cell = cells.LSTM(D, H, np.random.default_rng(0))
    loss = mg.compile(lambda x: (cell(x).last ** 2).sum(), check=True)
    with applied(broken), pytest.raises(VerifyError, match="before it is written"):
        loss.value_and_grad(np.zeros((T, N, D), np.float32))


def test_long_sequences_are_verified_with_few_steps():
    cell = cells.RNN(D, H, np.random.default_rng(0), dtype="float64")
    loss = mg.compile(lambda x: (cell(x).last ** 2).sum(), check=True)
    variant, call = loss.variant((np.zeros((2000, 2, D)),), True)
    assert variant is not None and variant._few(call.shapes) == ((9, 2, D),)
