"""What generated code calls besides the kernels: arrays from addresses, copies, reductions, table look-ups.

Compiled programs run as llvm.py writes them, from the text of this file and of kernels.py, which stands in the key of
every cached program, so that a change of either is noticed.  Imported, it is what makes emitted source valid
Numba: generated modules import all of this file's public names, and so run in tests as the reference.
"""

# Numba's intrinsics are called with fewer arguments than they are written with, which no type checker knows.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportUnsupportedDunderAll=false

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .instructions import LOOP_FLAGS
from .kernels import (  # noqa: F401
    erf,
    exp,
    expm1,
    kernel,
    log,
    log1p,
    matmul,
    matmul_sum,
    pack,
    reduction,
    sigmoid,
    softplus,
    tanh,
)
from .places import IMPORTED

f4, f8, i4, i8, b1 = np.float32, np.float64, np.int32, np.int64, np.bool_
sqrt, sin, cos, floor, rint = math.sqrt, math.sin, math.cos, np.floor, np.rint
FLAGS = set(LOOP_FLAGS)

# Only compiled code calls loops: without the doors for Python and C they compile quicker.
loop = njit(error_model="numpy", fastmath=FLAGS, no_cpython_wrapper=True, no_cfunc_wrapper=True)


# A part of a program that it does several times over.
stage = njit(error_model="numpy", boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry(signature: str):
    """A function that Python calls: compiled at once, and without the interpreter's lock."""
    return njit(signature, nogil=True, error_model="numpy", boundscheck=False)


def _view_at(context, build, array_type, pointer, n):
    """An array over memory that somebody else keeps alive."""
    array = context.make_array(array_type)(context, build)
    itemsize = ir.Constant(n.type, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
    context.populate_array(array, data=build.bitcast(pointer, array.data.type), shape=cgutils.pack_array(build, [n]),
        strides=cgutils.pack_array(build, [itemsize]), itemsize=itemsize, meminfo=None)  # fmt: skip
    return array._getvalue()


def _array_at(dtype):
    array_type = types.Array(dtype, 1, "C")

    @intrinsic
    def array_at(typing, table, k):
        """The array whose address and size stand in entry k of the table."""

        def emit(context, build, signature, args):
            numbers = context.make_array(signature.args[0])(context, build, args[0]).data
            at = build.mul(args[1], ir.Constant(args[1].type, 2))
            address = build.load(build.gep(numbers, [at]))
            n = build.load(build.gep(numbers, [build.add(at, ir.Constant(at.type, 1))]))
            pointer = build.inttoptr(address, context.get_data_type(dtype).as_pointer())
            return _view_at(context, build, array_type, pointer, n)

        return array_type(types.Array(types.int64, 1, "C"), types.int64), emit

    return array_at


@intrinsic
def view(typing, array, at, n):
    """array[at : at + n], without the checks and the counting of a slice."""
    array_type = types.Array(array.dtype, 1, "C")

    def emit(context, build, signature, args):
        data = context.make_array(signature.args[0])(context, build, args[0]).data
        return _view_at(context, build, array_type, build.gep(data, [args[1]]), args[2])

    return array_type(array, types.int64, types.int64), emit


array_f4, array_f8 = _array_at(types.float32), _array_at(types.float64)
array_i4, array_i8, array_b1 = _array_at(types.int32), _array_at(types.int64), _array_at(types.boolean)


def _wrapping(name):
    @intrinsic
    def operation(typing, x, y):
        """Arithmetic of integers that wraps: Numba's own lets LLVM suppose that nothing overflows."""
        return x(x, x), lambda context, build, signature, args: getattr(build, name)(*args)

    return operation


wrapping_add, wrapping_sub, wrapping_mul = map(_wrapping, ("add", "sub", "mul"))


@njit(inline="always", error_model="numpy")
def maximum(a, b):
    return a if a > b or a != a else b  # NaN wins, as in NumPy


@njit(inline="always", error_model="numpy")
def minimum(a, b):
    return a if a < b or a != a else b


@njit(inline="always", error_model="numpy")
def sign(x):
    return np.sign(x)


@kernel
def copy(origin, target):
    for k in range(target.size):
        target[k] = origin[k]


@kernel
def fill(target, value):
    for k in range(target.size):
        target[k] = value


@kernel
def count_up(target):
    for k in range(target.size):
        target[k] = k


@kernel
def start_rows(origin, origin_at, target, target_at, row0, rows, width, same):
    """Rows of a sum of products start as those of `origin`, or as `origin` itself, a bias."""
    for r in range(row0, row0 + rows):
        o = (
            origin[origin_at + r * width : origin_at + (r + 1) * width]
            if same
            else origin[origin_at : origin_at + width]
        )
        t = target[target_at + r * width : target_at + (r + 1) * width]
        for k in range(width):
            t[k] = o[k]


@kernel
def copy_slice(origin, target, outer, whole, start, count, step, inner):
    k = 0
    for r in range(outer):
        for s in range(count):
            at = (r * whole + start + s * step) * inner
            for j in range(inner):
                target[k] = origin[at + j]
                k += 1


@kernel
def place_slice(origin, target, outer, whole, start, count, step, inner):
    k = 0
    for r in range(outer):
        for s in range(count):
            at = (r * whole + start + s * step) * inner
            for j in range(inner):
                target[at + j] = origin[k]
                k += 1


@kernel
def permute(origin, target, n0, n1, n2, n3, s0, s1, s2, s3):
    """Four axes (n0, n1, n2, n3) of the target, read from the origin by strides."""
    k = 0
    for i0 in range(n0):
        for i1 in range(n1):
            for i2 in range(n2):
                at = i0 * s0 + i1 * s1 + i2 * s2
                if s3 == 1:
                    for j in range(n3):
                        target[k + j] = origin[at + j]
                else:
                    for j in range(n3):
                        target[k + j] = origin[at + j * s3]
                k += n3


@kernel
def matmul_batch(a, a_at, a_row, a_col, b, b_at, b_row, b_col, packed, c, c_at, batch, m, k, n):
    """C (batch, m, n) = A · B, one product after the other; A and B by strides within each."""
    for r in range(batch):
        pack(b, b_at + r * k * n, k, n, b_row, b_col, packed, 0)
        matmul(a, a_at + r * m * k, m, k, a_row, a_col, packed, 0, c, c_at + r * m * n, n, n, False)


@kernel
def shift_rows(origin, target, count, by, inner):
    """Rows of `inner` elements, later by `by`; zeros come in."""
    for r in range(count):
        inside = 0 <= r - by < count
        for j in range(r * inner, (r + 1) * inner):
            if inside:
                target[j] = origin[j - by * inner]
            else:
                target[j] = 0


@kernel
def matmul_shifted(a, a_at, long, by, first, count, k, packed, c, c_at, n, accumulate):
    """Rows first … of C (long, n) = or += shift(A, by) · B, for A (long, k) that is read where it stands."""
    low = max(first, min(by, first + count))
    high = max(low, min(first + count, long + by))
    if not accumulate:
        for at in range(c_at + first * n, c_at + low * n):
            c[at] = 0
        for at in range(c_at + high * n, c_at + (first + count) * n):
            c[at] = 0
    matmul(a, a_at + (low - by) * k, high - low, k, k, 1, packed, 0, c, c_at + low * n, n, n, accumulate)


@kernel
def matmul_sum_shifted(a, a_at, a_row, long, by, first, count, b, b_at, m, n, c, c_at, accumulate, scratch):
    """C (m, n) = or += shift(A, by)ᵀ · B over rows first …, of which there are `count`."""
    low = max(first, min(by, first + count))
    high = max(low, min(first + count, long + by))
    matmul_sum(
        a,
        a_at + (low - by) * a_row,
        a_row,
        b,
        b_at + low * n,
        n,
        high - low,
        m,
        n,
        c,
        c_at,
        n,
        accumulate,
        scratch,
    )


@kernel
def gather(table, index, target, rows, width):
    """Rows of a table; returns how many indices lie outside of it, where zeros are put."""
    bad = 0
    for r in range(index.size):
        row = index[r]
        inside = 0 <= row < rows
        if not inside:
            bad += 1
        for j in range(width):
            if inside:
                target[r * width + j] = table[row * width + j]
            else:
                target[r * width + j] = 0
    return bad


@kernel
def scatter(g, index, target, rows, width):
    bad = 0
    for r in range(index.size):
        row = index[r]
        if row < 0 or row >= rows:
            bad += 1
            continue
        for j in range(width):
            target[row * width + j] += g[r * width + j]
    return bad


@kernel
def count_outside(index, rows):
    """How many of the indices lie outside 0 … size − 1."""
    bad = 0
    for r in range(index.size):
        if index[r] < 0 or index[r] >= rows:
            bad += 1
    return bad


# Sums are taken in blocks, and those of float32 added up in float64, so that they keep their accuracy over long axes.
BLOCK = 128  # of a row, which vector code adds in many lanes
COLUMN = 32  # of a column, whose numbers are added one after the other


def wide_zero(like):
    """The 0 to which sums of such numbers are added: called by compiled code alone."""
    raise NotImplementedError


@overload(wide_zero, inline="always")
def _wide_zero(like):
    if isinstance(like.dtype, types.Float):
        return lambda like: np.float64(0)
    return lambda like: np.int64(0)


@reduction
def sum_rows(origin, target, rows, width):
    if rows <= 0:
        return
    target[0] = 0
    zero = target[0]  # of the right type
    if width <= BLOCK:
        for r in range(rows):
            part, row = zero, origin[r * width : (r + 1) * width]
            for j in range(row.size):
                part += row[j]
            target[r] = part
        return
    for r in range(rows):
        total = wide_zero(target)
        for j0 in range(0, width, BLOCK):
            part, row = zero, origin[r * width + j0 : r * width + min(j0 + BLOCK, width)]
            for j in range(row.size):
                part += row[j]
            total += part
        target[r] = total


@kernel
def sum_columns(origin, target, outer, count, width):
    """Sums over the middle axis of (outer, count, width)."""
    block, total = np.empty(width, target.dtype), np.full(width, wide_zero(target))
    for o in range(outer):
        for j in range(width):
            total[j] = 0
        for r0 in range(0, count, COLUMN):
            for j in range(width):
                block[j] = 0
            for r in range(r0, min(r0 + COLUMN, count)):
                row = origin[(o * count + r) * width : (o * count + r + 1) * width]
                for j in range(width):
                    block[j] += row[j]
            for j in range(width):
                total[j] += block[j]
        for j in range(width):
            target[o * width + j] = total[j]


@kernel
def cumsum_columns(origin, target, outer, count, width, backwards):
    """Sums up to each place of the middle axis of (outer, count, width), from its beginning or from its end."""
    for o in range(outer):
        for j in range(width):
            total = wide_zero(target)
            for r in range(count):
                at = (o * count + (count - 1 - r if backwards else r)) * width + j
                total += origin[at]
                target[at] = total


@kernel
def max_rows(origin, target, rows, width):
    for r in range(rows):
        row = origin[r * width : (r + 1) * width]
        a = b = c = d = row[0]  # four chains, as each comparison has to wait for the one before
        whole = width // 4 * 4
        for j in range(0, whole, 4):
            a, b = maximum(a, row[j]), maximum(b, row[j + 1])
            c, d = maximum(c, row[j + 2]), maximum(d, row[j + 3])
        for j in range(whole, width):
            a = maximum(a, row[j])
        target[r] = maximum(maximum(a, b), maximum(c, d))


@kernel
def max_columns(origin, target, outer, count, width):
    for o in range(outer):
        for j in range(width):
            top = origin[o * count * width + j]
            for r in range(1, count):
                x = origin[(o * count + r) * width + j]
                top = top if top > x or top != top else x
            target[o * width + j] = top


@kernel
def top_rows(origin, target, rows, width):
    lowest = np.finfo(target.dtype).min
    if width == 0:
        fill(target, lowest)
        return
    max_rows(origin, target, rows, width)
    for r in range(rows):
        target[r] = maximum(target[r], lowest)


@kernel
def top_columns(origin, target, outer, count, width):
    lowest = np.finfo(target.dtype).min
    if count == 0:
        fill(target, lowest)
        return
    max_columns(origin, target, outer, count, width)
    for r in range(outer * width):
        target[r] = maximum(target[r], lowest)


@kernel
def min_rows(origin, target, rows, width):
    for r in range(rows):
        row = origin[r * width : (r + 1) * width]
        a = b = c = d = row[0]
        whole = width // 4 * 4
        for j in range(0, whole, 4):
            a, b = minimum(a, row[j]), minimum(b, row[j + 1])
            c, d = minimum(c, row[j + 2]), minimum(d, row[j + 3])
        for j in range(whole, width):
            a = minimum(a, row[j])
        target[r] = minimum(minimum(a, b), minimum(c, d))


@kernel
def min_columns(origin, target, outer, count, width):
    for o in range(outer):
        for j in range(width):
            low = origin[o * count * width + j]
            for r in range(1, count):
                low = minimum(low, origin[(o * count + r) * width + j])
            target[o * width + j] = low


@kernel
def logsumexp_rows(origin, target, rows, width):
    if width == 0:  # log 0
        for r in range(rows):
            target[r] = -np.inf
        return
    e = np.empty(width, origin.dtype)
    max_rows(origin, target, rows, width)
    for r in range(rows):
        row, top = origin[r * width : (r + 1) * width], target[r]
        if top - top != 0:  # ±infinity, NaN
            target[r] = 0
            top = target[r]  # a zero of the right type
        for j in range(width):
            e[j] = exp(row[j] - top)
        sum_rows(e, target[r : r + 1], 1, width)
        target[r] = log(target[r]) + top


@kernel
def logsumexp_columns(origin, target, outer, count, width):
    row = np.empty(count, origin.dtype)
    for o in range(outer):
        for j in range(width):
            for r in range(count):
                row[r] = origin[(o * count + r) * width + j]
            logsumexp_rows(row, target[o * width + j : o * width + j + 1], 1, count)


__all__ = list(IMPORTED)
