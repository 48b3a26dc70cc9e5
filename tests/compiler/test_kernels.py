"""The numeric kernels: accuracy over the whole range, every edge of the products, nothing touched outside."""

import ctypes
import math
import mmap
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite.binding import get_host_cpu_features
from numba import njit
from numba.core.errors import TypingError
from numba.core.registry import cpu_target

from minigrad.compiler import kernels
from minigrad.compiler.plan import SCRATCH

DTYPES = [np.float32, np.float64]
FLAGS = {"error_model": "numpy", "fastmath": {"contract"}}


def looped(function):
    @njit(**FLAGS)
    def loop(x, y):
        for j in range(x.size):
            y[j] = function(x[j])

    def call(x):
        y = np.empty_like(x)
        loop(x, y)
        return y

    call.loop = loop
    return call


LOOPS = {
    name: looped(getattr(kernels, name))
    for name in ("exp", "tanh", "sigmoid", "log", "log1p", "softplus", "expm1", "erf")
}


def wide_sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def wide_softplus(x):
    return np.where(x > 0, x, 0) + np.log1p(np.exp(-np.abs(x)))


def wide_erf(x):
    """By the standard library, whose numbers are float64: float32 is judged in full, float64 to its last digit."""
    return np.frompyfunc(math.erf, 1, 1)(x.astype(np.float64)).astype(np.longdouble)


WIDE = {
    "exp": np.exp,
    "tanh": np.tanh,
    "sigmoid": wide_sigmoid,
    "log": np.log,
    "log1p": np.log1p,
    "softplus": wide_softplus,
    "expm1": np.expm1,
    "erf": wide_erf,
}
BREAKS = {  # where the formula or the form of the result changes
    "exp": [(i + 0.5) * np.log(2) for i in range(-1076, 1025)]
    + [-103.97, -87.34, 88.72, -745.13, -708.4, 709.78],
    "tanh": [(i + 0.5) * np.log(2) / 2 for i in range(60)] + [9.01, 10.0, 19.06, 20.0],
    "sigmoid": [(i + 0.5) * np.log(2) for i in range(-1076, 60)] + [0.0, -103.97, -87.34, -745.13, -708.4],
    "log": [2.0**i * s for i in range(-149, 128) for s in (1.0, np.sqrt(0.5))] + [2.0**-1022, 2.0**1000, 1.0],
    "log1p": [2.0**i * s - 1 for i in range(-53, 128) for s in (1.0, np.sqrt(0.5))]
    + [s * 2.0**i for i in range(-149, 2) for s in (1.0, -1.0)]
    + [1.0, 2.0**1000],
    "softplus": [(i + 0.5) * np.log(2) for i in range(-1076, 60)] + [0.0, -103.97, -87.34, -745.13, -708.4],
    "expm1": [(i + 0.5) * np.log(2) for i in range(-90, 1025)] + [-60.0, 50.0, 60.0, 88.72, 709.78],
    "erf": [1.0, 3.0, 6.0],
}


def samples(name, dtype):
    rng, bits = np.random.default_rng(0), np.dtype(dtype).itemsize * 8
    anything = rng.integers(0, 2**bits, 300_000, dtype=f"u{bits // 8}").view(dtype)
    spread = rng.uniform(-110, 100, 200_000), rng.uniform(-750, 720, 200_000), rng.standard_normal(200_000)
    near = np.asarray(BREAKS[name], dtype)
    steps = np.arange(-40, 41)[:, None] * np.spacing(np.abs(near))
    tiny = np.arange(2000) * np.finfo(dtype).smallest_subnormal
    parts = [
        anything,
        *spread,
        (near + steps).ravel(),
        (1 + steps * 1e-3).ravel(),
        tiny,
        np.geomspace(1e-37, 90, 200_000),
    ]
    x = np.concatenate([np.asarray(part, dtype) for part in parts])
    x = np.concatenate([x, -x])
    lowest = {"log": 0, "log1p": -1}.get(name)
    return x if lowest is None else x[(x > lowest) | ~np.isfinite(x)]


def ulp_error(name, x, y):
    """Largest error in units of the last place; infinities and NaN must be where they belong."""
    with np.errstate(all="ignore"):
        wanted = WIDE[name](x.astype(np.longdouble))
        rounded = wanted.astype(x.dtype)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(rounded))
        np.testing.assert_array_equal(y[np.isinf(rounded)], rounded[np.isinf(rounded)])
        finite = np.isfinite(rounded)
        unit = np.spacing(np.abs(rounded[finite])).astype(np.longdouble)
        error = np.abs(y[finite].astype(np.longdouble) - wanted[finite]) / unit
        return float(error.max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOOPS)
def test_accuracy_over_the_whole_range(name, dtype):
    with np.errstate(all="ignore"):
        x = samples(name, dtype)
    assert ulp_error(name, x, LOOPS[name](x)) <= 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype):
    inf, nan, tiny = np.inf, np.nan, np.finfo(dtype).smallest_subnormal
    table = {
        "exp": [(-inf, 0), (inf, inf), (0, 1), (-0.0, 1), (nan, nan), (1000, inf), (-1000, 0), (tiny, 1)],
        "tanh": [
            (-inf, -1),
            (inf, 1),
            (0, 0),
            (nan, nan),
            (-nan, nan),
            (tiny, tiny),
            (-tiny, -tiny),
            (50, 1),
            (-50, -1),
        ],
        "sigmoid": [(-inf, 0), (inf, 1), (0, 0.5), (-0.0, 0.5), (nan, nan), (1e30, 1), (-1e30, 0)],
        "log": [
            (0, -inf),
            (-0.0, -inf),
            (-1, nan),
            (-tiny, nan),
            (-inf, nan),
            (inf, inf),
            (nan, nan),
            (1, 0),
        ],
        "softplus": [(-inf, 0), (inf, inf), (nan, nan), (1e30, 1e30), (-1e30, 0), (1000, 1000), (-1000, 0)],
        "log1p": [
            (-1, -inf),
            (-2, nan),
            (-inf, nan),
            (inf, inf),
            (nan, nan),
            (0, 0),
            (-0.0, 0),
            (tiny, tiny),
            (-tiny, -tiny),
        ],
    }
    for name, pairs in table.items():
        for at in (1, 100):  # in the scalar remainder and in the vector loop
            for x, wanted in pairs:
                got = LOOPS[name](np.full(at, x, dtype))
                np.testing.assert_array_equal(got, np.full(at, wanted, dtype), err_msg=f"{name}({x})")
    signs = np.signbit(LOOPS["tanh"](np.array([-0.0, 0.0], dtype)))
    assert signs.tolist() == [True, False]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOOPS)
def test_vector_loop_and_remainder_agree(name, dtype):
    x = np.abs(np.random.default_rng(1).standard_normal(1000).astype(dtype) * 5)
    whole = LOOPS[name](x)
    for size in (1, 2, 3, 5, 7, 17):
        pieces = np.concatenate([LOOPS[name](x[i : i + size]) for i in range(0, x.size, size)])
        np.testing.assert_array_equal(whole.view(f"u{x.itemsize}"), pieces.view(f"u{x.itemsize}"))


@pytest.mark.parametrize("name", LOOPS)
def test_loops_become_vector_code(name):
    # LLVM takes half of the widest registers where it knows that the whole ones slow the processor down.
    registers = {64: ("zmm", "ymm"), 32: ("ymm",)}.get(kernels.VECTOR_BYTES)
    if registers is None:
        pytest.skip("register names are known for AVX machines only")
    LOOPS[name](np.ones(4, np.float32))
    text = LOOPS[name].loop.inspect_asm(LOOPS[name].loop.signatures[0])
    assert any(
        "vfmadd" in line and "ps" in line and any(r in line for r in registers) for line in text.splitlines()
    )


def test_other_types_are_refused():
    with pytest.raises(TypingError, match=r"exp\(x\): x must be float32 or float64"):
        njit(lambda x: kernels.exp(x))(3)
    matrix = np.zeros((4, 4), np.float32)
    with pytest.raises(TypingError, match="one-dimensional C-contiguous"):
        kernels.packed_size(matrix, 2, 2)
    with pytest.raises(TypingError, match="one-dimensional C-contiguous"):
        kernels.packed_size(matrix.reshape(-1)[::2], 2, 2)
    with pytest.raises(TypingError, match="one-dimensional C-contiguous"):
        kernels.packed_size(np.zeros(4, np.int64), 2, 2)


# --- products ---


class Block:
    """A matrix somewhere in the middle of a flat array, by strides; all around it NaN."""

    def __init__(self, values, gap=0, transposed=False, at=5, room=3):
        rows, columns = values.shape
        self.at = at
        self.row, self.col = (1, rows + gap) if transposed else (columns + gap, 1)
        last = (rows - 1) * self.row + (columns - 1) * self.col if values.size else 0
        self.flat = np.full(at + last + 1 + room, np.nan, values.dtype)
        self.index = at + np.arange(rows)[:, None] * self.row + np.arange(columns)[None, :] * self.col
        self.flat[self.index] = values

    @property
    def values(self):
        return self.flat[self.index]

    def assert_rest_untouched(self):
        rest = np.ones(self.flat.size, bool)
        rest[self.index] = False
        assert np.isnan(self.flat[rest]).all()


def draw(rng, rows, columns, dtype):
    return rng.standard_normal((rows, columns)).astype(dtype)


def packed_copy(b, k, n, at=0, room=0):
    """Exactly as long as asked, and full of NaN before."""
    packed = np.full(at + kernels.packed_size(b.flat, k, n) + room, np.nan, b.flat.dtype)
    kernels.pack(b.flat, b.at, k, n, b.row, b.col, packed, at)
    return packed


def assert_close(got, a, b, start):
    wide = np.float64 if got.dtype == np.float32 else np.longdouble
    wide_a, wide_b, wide_start = (x.astype(wide) for x in (a, b, start))
    bound = (
        (np.abs(wide_a) @ np.abs(wide_b) + np.abs(wide_start)) * np.finfo(got.dtype).eps * (a.shape[1] + 2)
    )
    assert (np.abs(got - (wide_a @ wide_b + wide_start)) <= bound).all()


def check_matmul(m, k, n, dtype, a_transposed, b_transposed, gap, accumulate, seed=0):
    rng = np.random.default_rng(seed)
    a, b, start = draw(rng, m, k, dtype), draw(rng, k, n, dtype), draw(rng, m, n, dtype)
    A, B, C = (
        Block(a, gap, a_transposed),
        Block(b, gap, b_transposed),
        Block(start if accumulate else start * np.nan, gap),
    )
    packed = packed_copy(B, k, n, at=gap, room=gap)
    assert not np.isnan(packed[gap : packed.size - gap]).any()
    assert np.isnan(packed[:gap]).all() and np.isnan(packed[packed.size - gap :]).all()
    kernels.matmul(A.flat, A.at, m, k, A.row, A.col, packed, gap, C.flat, C.at, n, C.row, accumulate)
    assert_close(C.values, a, b, start if accumulate else start * 0)
    C.assert_rest_untouched()


def check_sum(k, m, n, dtype, gap, accumulate, seed=0):
    rng = np.random.default_rng(seed)
    a, b, start = draw(rng, k, m, dtype), draw(rng, k, n, dtype), draw(rng, m, n, dtype)
    A, B, C = Block(a, gap), Block(b, 2 * gap), Block(start if accumulate else start * np.nan, gap)
    scratch = np.full(kernels.sum_scratch_size(A.flat, m, n) + 7, np.nan, dtype)
    kernels.matmul_sum(
        A.flat, A.at, A.row, B.flat, B.at, B.row, k, m, n, C.flat, C.at, C.row, accumulate, scratch
    )
    assert_close(C.values, a.T, b, start if accumulate else start * 0)
    C.assert_rest_untouched()
    assert np.isnan(scratch[-7:]).all()


sizes, flag, dtypes = st.integers(0, 70), st.booleans(), st.sampled_from(DTYPES)


@settings(deadline=None, max_examples=300)
@given(sizes, sizes, sizes, dtypes, flag, flag, st.integers(0, 9), flag, st.integers(0, 99))
def test_matmul_of_any_size(m, k, n, dtype, a_transposed, b_transposed, gap, accumulate, seed):
    check_matmul(m, k, n, dtype, a_transposed, b_transposed, gap, accumulate, seed)


@settings(deadline=None, max_examples=300)
@given(sizes, sizes, sizes, dtypes, st.integers(0, 9), flag, st.integers(0, 99))
def test_matmul_sum_of_any_size(k, m, n, dtype, gap, accumulate, seed):
    check_sum(k, m, n, dtype, gap, accumulate, seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 2, 4, 5, 8, 9, 12, 13, 240, 241, 245])
def test_matmul_across_the_blocks(m, dtype):
    for k, n in [(1, 1), (255, 33), (256, 64), (257, 130), (600, 17), (513, 16), (3, 300)]:
        check_matmul(m, k, n, dtype, k % 2 == 0, k % 3 == 0, 3, k > 300)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 11, 12, 24, 25, 119, 120, 121, 250])
def test_matmul_sum_across_the_blocks(m, dtype):
    for k, n in [(1, 1), (31, 40), (32, 130), (33, 33), (256, 64), (257, 530), (600, 17), (520, 40)]:
        check_sum(k, m, n, dtype, 2, k > 300)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scratch_of_programs_is_enough(dtype):
    for m, n in [(1, 10**6), (10**6, 1), (10**6, 10**6), (10**6, 500), (300, 1000)]:
        assert kernels.sum_scratch_size(np.zeros(1, dtype), m, n) <= SCRATCH


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_to_sum_clears_or_leaves(dtype):
    for m, n in [(0, 0), (0, 5), (5, 0), (1, 100), (13, 33), (250, 5)]:
        check_matmul(m, 0, n, dtype, False, False, 2, False)
        check_matmul(m, 0, n, dtype, False, False, 2, True)
        check_sum(0, m, n, dtype, 2, False)
        check_sum(0, m, n, dtype, 2, True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pack_of_general_strides(dtype):
    rng = np.random.default_rng(3)
    k, n, b_row, b_col = 37, 41, 3, 120
    flat = rng.standard_normal((k - 1) * b_row + (n - 1) * b_col + 1).astype(dtype)
    b = flat[np.arange(k)[:, None] * b_row + np.arange(n) * b_col]
    packed, plain = (np.empty(kernels.packed_size(flat, k, n), dtype) for _ in range(2))
    kernels.pack(flat, 0, k, n, b_row, b_col, packed, 0)
    kernels.pack(b.reshape(-1).copy(), 0, k, n, n, 1, plain, 0)
    np.testing.assert_array_equal(packed, plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinity_and_nan_stay_in_their_row_and_column(dtype):
    m, k, n = 14, 20, 35
    rng = np.random.default_rng(4)
    a, b = draw(rng, m, k, dtype), draw(rng, k, n, dtype)
    a[13, 2], b[1, 34] = np.inf, np.nan
    A, B, C = Block(a), Block(b), Block(np.zeros((m, n), dtype))
    kernels.matmul(A.flat, A.at, m, k, A.row, A.col, packed_copy(B, k, n), 0, C.flat, C.at, n, C.row, False)
    wrong = ~np.isfinite(C.values)
    assert wrong[13].all() and wrong[:, 34].all() and wrong.sum() == n + m - 1
    C.assert_rest_untouched()


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_whatever_the_grouping_and_the_alignment(dtype):
    m, k, n = 29, 300, 90
    rng = np.random.default_rng(5)
    a, b, start = draw(rng, m, k, dtype), draw(rng, k, n, dtype), draw(rng, m, n, dtype)

    def product(rows, columns, at):
        A, B = Block(a[rows], at=at), Block(b[:, columns], at=at + 1)
        C = Block(start[rows, columns], at=at + 2)
        m_here, n_here = C.index.shape
        packed = packed_copy(B, k, n_here, at=at)
        kernels.matmul(A.flat, A.at, m_here, k, A.row, A.col, packed, at, C.flat, C.at, n_here, C.row, True)
        D, (T, U) = Block(start[rows, columns], at=at), (Block(np.ascontiguousarray(a[rows].T), at=at), B)
        scratch = np.empty(kernels.sum_scratch_size(A.flat, m_here, n_here), dtype)
        kernels.matmul_sum(
            T.flat, T.at, T.row, U.flat, U.at, U.row, k, m_here, n_here, D.flat, D.at, D.row, True, scratch
        )
        np.testing.assert_array_equal(C.values, D.values)
        return C.values

    whole = product(slice(None), slice(None), 0)
    for at in range(1, 20):
        np.testing.assert_array_equal(product(slice(None), slice(None), at), whole)
    for rows in [slice(0, 1), slice(3, 5), slice(7, 15), slice(0, 28)]:
        for columns in [slice(0, 1), slice(5, 70), slice(2, 90)]:
            np.testing.assert_array_equal(product(rows, columns, 3), whole[rows, columns])


def guarded(size, dtype, at_end):
    """An array that touches forbidden memory with its last (or first) number."""
    page, bytes_needed = mmap.PAGESIZE, size * np.dtype(dtype).itemsize
    middle = -(-max(bytes_needed, 1) // page) * page
    memory = mmap.mmap(-1, middle + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for forbidden in (start, start + page + middle):
        assert protect(ctypes.c_void_p(forbidden), ctypes.c_size_t(page), 0) == 0
    offset = page + (middle - bytes_needed if at_end else 0)
    return np.frombuffer(memory, dtype, size, offset)


@pytest.mark.skipif(os.name != "posix", reason="guard pages are made with mprotect")
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_access_outside(dtype, at_end):
    """A stray read or write ends the process here."""
    for m, k, n in [
        (1, 3, 5),
        (1, 40, 100),
        (2, 17, 33),
        (11, 35, 47),
        (13, 40, 8),
        (30, 290, 65),
        (40, 33, 64),
    ]:
        a, b, c = (guarded(size, dtype, at_end) for size in (m * k, k * n, m * n))
        packed = guarded(kernels.packed_size(a, k, n), dtype, at_end)
        scratch = guarded(kernels.sum_scratch_size(a, m, n), dtype, at_end)
        for b_row, b_col, a_row, a_col in [(n, 1, k, 1), (1, k, 1, m)]:
            kernels.pack(b, 0, k, n, b_row, b_col, packed, 0)
            kernels.matmul(a, 0, m, k, a_row, a_col, packed, 0, c, 0, n, n, True)
        kernels.matmul_sum(a, 0, m, b, 0, n, k, m, n, c, 0, n, False, scratch)
        assert not c.any()


@njit(nogil=True)
def many_products(times, a, m, k, b, n, c):
    packed = np.empty(kernels.packed_size(b, k, n), b.dtype)
    scratch = np.empty(kernels.sum_scratch_size(b, k, n), b.dtype)
    total = np.zeros(k * n, b.dtype)
    for i in range(times):
        kernels.pack(b, 0, k, n, n, 1, packed, 0)
        kernels.matmul(a, 0, m, k, k, 1, packed, 0, c, 0, n, n, i > 0)
        kernels.matmul_sum(a, 0, k, c, 0, n, m, k, n, total, 0, n, True, scratch)
    return total


def test_several_threads_at_once():
    rng = np.random.default_rng(6)
    m, k, n = 23, 40, 50
    cases = [(draw(rng, m, k, np.float32).ravel(), draw(rng, k, n, np.float32).ravel()) for _ in range(4)]
    alone = [many_products(50, a, m, k, b, n, np.zeros(m * n, np.float32)) for a, b in cases]
    together = [None] * 4

    def work(i):
        together[i] = many_products(50, cases[i][0], m, k, cases[i][1], n, np.zeros(m * n, np.float32))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_constant_arguments_do_not_compile_again():
    @njit
    def use(a, packed, c):
        for at in range(3):
            kernels.matmul(a, 0, 2, 3, 3, 1, packed, 0, c, at, 4, 4, False)
        kernels.matmul(a, 1, 1, 3, 3, 1, packed, 0, c, 2, 4, 4, True)
        kernels.pack(a, 1, 1, 3, 3, 1, packed, 0)
        kernels.pack(a, 0, 2, 5, 1, 7, packed, 4)

    use(*(np.zeros(200, np.float32) for _ in range(3)))
    for function in (kernels.matmul, kernels.pack):
        (template,) = cpu_target.typing_context.resolve_value_type(function).templates
        signatures = [signature for signature in template._compiled_overloads if "float32" in str(signature)]
        assert len(signatures) == 1


HOST_FEATURES = get_host_cpu_features().flatten().split(",")
SMALLER_MACHINES = {"haswell": "+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt", "generic": ""}
WITH_AVX2 = pytest.mark.skipif(not {"+avx2", "+fma"} <= set(HOST_FEATURES), reason="a processor with AVX2")
SPILLS = """
import re
from llvmlite import ir
from minigrad.compiler import instructions, machine

module, kind = ir.Module(), instructions.Kind(ir.FloatType())
instructions._tile(kind, module, instructions.ROWS, 2).linkage = ""
blocks = re.split(r"^\\.L\\w+:", machine._emitted(str(module), assembly=True), flags=re.M)
loops = [b for b in blocks if b.count("vfmadd") >= 2 * instructions.ROWS]
assert len(loops) == 3, len(loops)  # by rows, by columns, and what is left
for loop in loops:
    spilled = [line for line in loop.splitlines() if "mm" in line and "rsp" in line]
    assert not spilled, spilled
    products, all = loop.count("vfmadd"), len(re.findall(r"^\\t\\w", loop, flags=re.M))
    assert products < 3 * instructions.ROWS or all <= 2 * products, (all, products)
"""


@WITH_AVX2
@pytest.mark.parametrize("machine", ["this one", "haswell"])
def test_a_tile_stays_in_registers(machine):
    """Four instructions a cycle are all that many processors take: no more than one beside each product, none for a stack."""
    other = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": SMALLER_MACHINES["haswell"]}
    environment = (
        os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | (other if machine == "haswell" else {})
    )
    done = subprocess.run([sys.executable, "-c", SPILLS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@WITH_AVX2
@pytest.mark.parametrize("machine", SMALLER_MACHINES)
def test_narrower_vectors(machine, tmp_path):
    """The same code for a machine with 32 or 16 bytes in a vector, in a process of its own."""
    program = (
        "import numpy as np, test_kernels as t\n"
        f"assert t.kernels.VECTOR_BYTES == {32 if machine == 'haswell' else 16}\n"
        "for m, k, n in [(1, 40, 50), (7, 300, 17), (13, 33, 9)]:\n"
        "    t.check_matmul(m, k, n, np.float32, False, True, 3, True)\n"
        "    t.check_sum(k, m + 20, n, np.float32, 3, False)\n"
        "for m in range(13, 27):\n"  # rows that are longer than those that are read where they are
        "    t.check_sum(300, m, 270, np.float32, 3, m % 2 == 0)\n"
        "t.test_scratch_of_programs_is_enough(np.float32)\n"
        "for name in t.LOOPS:\n"
        "    x = t.samples(name, np.float32)[::7].copy()\n"
        "    assert t.ulp_error(name, x, t.LOOPS[name](x)) <= 4, name\n"
    )
    here = os.path.dirname(os.path.abspath(__file__))
    environment = dict(
        os.environ,
        NUMBA_CPU_NAME=machine,
        NUMBA_CPU_FEATURES=SMALLER_MACHINES[machine],
        NUMBA_CACHE_DIR=str(tmp_path),
        PYTHONPATH=os.pathsep.join(sys.path),
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=here, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
