"""The numeric kernels which emitted loops call: exp, tanh, sigmoid, log, log1p, softplus, expm1 and erf of one
number, and packed matrix products.

Scalar functions, used inside any `@njit` loop, for float32 and float64:

    exp(x)  tanh(x)  sigmoid(x)  log(x)  log1p(x)  softplus(x)  expm1(x)  erf(x)

They are straight-line code without a branch, so that a simple loop over one-dimensional contiguous arrays
becomes vector code.  NaN stays NaN, infinities have their limits, subnormal numbers are kept.

Matrix products, on flat C-contiguous arrays of one dtype with an offset (`_at`) and strides in elements:

    packed_size(like, k, n)        elements of the packed copy of B (k, n); `like`: an array of the dtype
    pack(b, b_at, k, n, b_row, b_col, packed, packed_at)
    matmul(a, a_at, m, k, a_row, a_col, packed, packed_at, c, c_at, n, c_row, accumulate)
    sum_scratch_size(like, m, n)   elements of the scratch array of matmul_sum
    matmul_sum(a, a_at, a_row, b, b_at, b_row, k, m, n, c, c_at, c_row, accumulate, scratch)

`matmul` is C (m, n) = or += A (m, k) B (k, n); `matmul_sum` is C (m, n) = or += transpose of A (k, m), times
B (k, n), for a long k.  Nothing is read or written outside the given blocks.  One number of C is always
summed in the same order over k, whatever m and n are: rows computed together, apart or in several threads
agree to the last bit.  There is no state: every function may run in several threads at once.  Where an array
starts does not change results; it is fastest where packed copies and scratch start at a multiple of 64 bytes.

The text of this file is what llvm.py makes into machine code; imported, it is the same kernels by Numba, for the
reference in tests.
"""

# Numba's intrinsics are called with fewer arguments than they are written with, which no type checker knows.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import functools

from llvmlite import ir
from numba import njit, types
from numba.core import config
from numba.core.errors import TypingError
from numba.core.typing.templates import infer, infer_global, make_overload_template
from numba.extending import intrinsic

from . import instructions, machine
from .instructions import (
    A_BLOCK,
    INT64,
    K_BLOCK,
    M_BLOCK,
    NARROW,
    PANELS_BLOCK,
    REDUCTION_FLAGS,
    ROWS,
    SHORT_K,
    VECTOR_BYTES,  # noqa: F401
    Kind,
)

# Sums of vectors come out the same to the last bit only where the vectors are as wide.
config.CPU_NAME, config.CPU_FEATURES = machine.NAME, machine.FEATURES


def _scalar_function(name):
    def function(typing, x):
        if x not in (types.float32, types.float64):
            raise TypingError(f"{name}(x): x must be float32 or float64, not {x}")
        return x(x), lambda context, build, signature, args: instructions.formula(name, build, args[0])

    function.__name__ = function.__qualname__ = name
    return intrinsic(function)


exp, tanh, sigmoid, log, log1p, softplus, expm1, erf = map(_scalar_function, instructions.FORMULAS)


# --- The products -------------------------------------------------------------------------------------------


def kernel(function):
    """Compile `function` once for each dtype, when compiled code calls it.

    A plain njit function would be compiled anew for each combination of constant arguments that its callers
    write; an overload is offered the types without the constants.
    """
    return _offered(function, False)


def reduction(function):
    """A kernel whose sums may be taken in any order, so that they become vector code."""
    return _offered(function, set(REDUCTION_FLAGS))


def _offered(function, fastmath):
    from_python = njit(error_model="numpy", fastmath=fastmath)(function)

    @functools.wraps(function)
    def call(*args):
        return from_python(*args)

    options = {"error_model": "numpy", "fastmath": fastmath}
    template = make_overload_template(call, lambda *types, **named: function, options, False, "never")
    infer(template)
    infer_global(call, types.Function(template))
    return call


@kernel
def packed_size(like, k, n):
    """How many elements the packed copy of a matrix B (k, n) has; `like` is any array of its dtype."""
    panel = _panel_width(like)
    return (max(n, 0) + panel - 1) // panel * panel * max(k, 0)


@kernel
def sum_scratch_size(like, m, n):
    """How many elements the scratch array of matmul_sum must have, for any k."""
    panel = _panel_width(like)
    packed_b = K_BLOCK * (min(max(n, 0), PANELS_BLOCK * panel) + panel)
    return packed_b + (A_BLOCK // ROWS * (K_BLOCK * ROWS + panel) if m > 2 * ROWS else 0)


@kernel
def pack(b, b_at, k, n, b_row, b_col, packed, packed_at):
    """Copy B (k, n), given by strides, into panels two vectors wide, zeros at the end: [n / panel][k][panel].

    Fast where one of the strides is 1; any other strides are right but slow.
    """
    _never_inline()
    panel, width = _panel_width(b), _vector_width(b)
    if b_col == 1:
        _copy_panels(b, b_at, b_row, 1, packed, packed_at, panel * k, k, n)
        return
    k_done = k // width * width
    for n0 in range(0, n, panel):
        columns, source, target, done = min(panel, n - n0), b_at + n0 * b_col, packed_at + n0 * k, 0
        if columns < panel:
            _clear(b, source, 0, 0, packed, target, panel, k, panel)
        if b_row == 1:
            while done + width <= columns:
                _copy_squares(
                    b, source + done * b_col, 1, b_col, packed, target + done, panel, k // width, width
                )
                done += width
        _copy_numbers(b, source + done * b_col, b_row, b_col, packed, target + done, panel, k, columns - done)
        _copy_numbers(b, source + k_done * b_row, b_row, b_col, packed, target + k_done * panel, panel,
                      k - k_done, done)  # fmt: skip


@kernel
def matmul(a, a_at, m, k, a_row, a_col, packed, packed_at, c, c_at, n, c_row, accumulate):
    """C (m, n) = A (m, k) B (k, n), or += where `accumulate`: B packed, A by strides, rows of C c_row apart.

    C must not overlap A.
    """
    _never_inline()
    panel = _panel_width(packed)
    m0 = 0
    while m0 < m:
        rows = min(M_BLOCK, m - m0)
        step = 4 * panel if rows == 1 else panel
        k0 = 0
        while k0 < k or k0 == 0:
            n0 = 0
            while n0 < n:
                _block(a, a_at + m0 * a_row + k0 * a_col, a_row, a_col,
                       packed, packed_at + n0 * k + k0 * panel, panel, k * panel, min(K_BLOCK, k - k0),
                       c, c_at + m0 * c_row + n0, c_row,
                       rows, min(n - n0, step), accumulate or k0 > 0)  # fmt: skip
                n0 += step
            k0 += K_BLOCK
        m0 += M_BLOCK


@kernel
def matmul_sum(a, a_at, a_row, b, b_at, b_row, k, m, n, c, c_at, c_row, accumulate, scratch):
    """C (m, n) = or += A (k, m) transposed, times B (k, n).

    Rows of A, B and C are contiguous, a_row, b_row and c_row apart.
    `scratch` has sum_scratch_size(like, m, n) elements.  C must not overlap A or B.
    """
    _never_inline()
    panel = _panel_width(b)
    # With few rows a copy is not used often enough to pay for itself, and a short k or narrow rows stride over
    # little memory: then only the narrow last panel of B is packed.
    direct = m <= 2 * ROWS or k <= SHORT_K or max(a_row, b_row) <= NARROW * panel
    for n0 in range(0, n, PANELS_BLOCK * panel):
        n_here = min(PANELS_BLOCK * panel, n - n0)
        n_direct = n_here // panel * panel if direct else 0
        packed_a = K_BLOCK * (n_here - n_direct + panel)
        for k0 in range(0, max(k, 1), K_BLOCK):
            k_here, add = min(K_BLOCK, k - k0), accumulate or k0 > 0
            a_from, b_from = a_at + k0 * a_row, b_at + k0 * b_row + n0
            pack(b, b_from + n_direct, k_here, n_here - n_direct, b_row, 1, scratch, 0)
            for m0 in range(0, m, A_BLOCK):
                rows = min(A_BLOCK, m - m0)
                slivers = 0 if direct else rows // ROWS
                rest = m0 + slivers * ROWS
                # Not a power of two apart, lest the same row of all slivers meet in one set of the cache.
                sliver = k_here * ROWS + panel
                _copy_slivers(a, a_from + m0, a_row, 1, scratch, packed_a, sliver, k_here, slivers)
                for j in range(0, n_here, panel):
                    columns, c_from = min(panel, n_here - j), c_at + n0 + j
                    for s in range(slivers):
                        _block(scratch, packed_a + s * sliver, 1, ROWS, scratch, j * k_here, panel, 0, k_here,
                               c, c_from + (m0 + s * ROWS) * c_row, c_row, ROWS, columns, add)  # fmt: skip
                    if j < n_direct:
                        _block(a, a_from + rest, 1, a_row, b, b_from + j, b_row, 0, k_here,
                               c, c_from + rest * c_row, c_row, m0 + rows - rest, columns, add)  # fmt: skip
                    else:
                        _block(a, a_from + rest, 1, a_row, scratch, (j - n_direct) * k_here, panel, 0, k_here,
                               c, c_from + rest * c_row, c_row, m0 + rows - rest, columns, add)  # fmt: skip


def _kind_of(*arrays):
    for array in arrays:
        ok = isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"
        if not ok or array.dtype not in (types.float32, types.float64) or array.dtype != arrays[0].dtype:
            raise TypingError(
                "matrix products take one-dimensional C-contiguous arrays, all float32 or all float64 "
                f"(use .reshape(-1)), not {', '.join(map(str, arrays))}"
            )
    return Kind(ir.FloatType() if arrays[0].dtype == types.float32 else ir.DoubleType())


@intrinsic
def _block(typing, a, a_at, a_row, a_col, b, b_at, b_row, b_panel, k, c, c_at, c_row, m, n, accumulate):
    """C (m, n) = or += A (m, k) B (k, n), B one panel wide (for m = 1 up to four, b_panel apart)."""
    kind, count = _kind_of(a, b, c), types.intp

    def emit(context, build, signature, args):
        at = functools.partial(_address, context, build, signature, args)
        instructions.block(kind, build, [at(0), *args[2:4], at(4), *args[6:9], at(9), *args[11:]])
        return context.get_dummy_value()

    return types.void(a, *[count] * 3, b, *[count] * 4, c, *[count] * 4, types.boolean), emit


def _address(context, build, signature, args, position):
    """Of the element of an array argument that the argument after it counts."""
    data = context.make_array(signature.args[position])(context, build, args[position]).data
    return build.gep(data, [args[position + 1]])


@intrinsic
def _panel_width(typing, array):
    """Columns in a panel of B, a constant."""
    kind = _kind_of(array)
    return types.intp(array), lambda context, build, signature, args: INT64(kind.panel)


@intrinsic
def _never_inline(typing):
    """Marks the function that calls it: a program that calls it often holds its code once."""

    def emit(context, build, signature, args):
        build.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), emit


def _copy_kernel(name):
    @intrinsic
    def copy(
        typing, source, source_at, source_row, source_col, target, target_at, target_row, count, columns
    ):
        """A copy of a block; positions and steps count elements."""
        kind, count_type = _kind_of(source, target), types.intp

        def emit(context, build, signature, args):
            at = functools.partial(_address, context, build, signature, args)
            instructions.copy(name, kind, build, [at(0), args[2], args[3], at(4), *args[6:]])
            return context.get_dummy_value()

        return types.void(source, *[count_type] * 3, target, *[count_type] * 4), emit

    return copy


_copy_panels, _copy_slivers, _clear, _copy_numbers, _copy_squares = map(_copy_kernel, instructions.COPIES)


@intrinsic
def _vector_width(typing, array):
    """Numbers in a vector register, a constant."""
    kind = _kind_of(array)
    return types.intp(array), lambda context, build, signature, args: INT64(kind.width)
