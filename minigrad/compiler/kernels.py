"""The numeric kernels which emitted loops call: exp, tanh, sigmoid, log, log1p and softplus of one
number, and packed matrix products.

Scalar functions, used inside any `@njit` loop, for float32 and float64:

    exp(x)  tanh(x)  sigmoid(x)  log(x)  log1p(x)  softplus(x)

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

The text of this file stands in the key of every cached program: see cache.py.
"""

# Numba's intrinsics are called with fewer arguments than they are written with, which no type checker knows.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import contextlib
import functools
import math

import numpy as np
from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing.templates import infer, infer_global, make_overload_template
from numba.extending import intrinsic

from .cache import cached

INT32, INT64 = ir.IntType(32), ir.IntType(64)


# --- exp, tanh, sigmoid, log, log1p, softplus ---------------------------------------------------------------

# Polynomials: least largest relative error (minimax), fitted by fit_coefficients.py.
#   expm1:  (exp(r) - 1 - r) / r^2                              on |r| <= ln2 / 2
#   log:    the rest of log(1 + f) = f - f^2/2 + s (f^2/2 + z R(z)), s = f / (2 + f), z = s^2
# ln2 is split in two: n * ln2_high is exact for every exponent n.
_FLOAT32 = dict(
    type=ir.FloatType(), bits=ir.IntType(32), numpy=np.float32, mantissa=23, bias=127,
    exp_low=-104.0, exp_high=89.0, tanh_one=10.0, tiny=2.0**-126,
    ln2_high=0.693145751953125, ln2_low=1.4286068203094173e-06,
    expm1=(0.4999999701976776, 0.1666654348373413, 0.04166720062494278, 0.008366520516574383,
           0.0013882518978789449),
    log=(0.6666677594184875, 0.3997756838798523, 0.29871076345443726),
)  # fmt: skip
_FLOAT64 = dict(
    type=ir.DoubleType(), bits=ir.IntType(64), numpy=np.float64, mantissa=52, bias=1023,
    exp_low=-746.0, exp_high=710.0, tanh_one=20.0, tiny=2.0**-1022,
    ln2_high=0.693147180559663, ln2_low=2.8235290563031577e-13,
    expm1=(0.5000000000000004, 0.1666666666666541, 0.041666666666598434, 0.008333333334206909,
           0.0013888888923706479, 0.00019841267855319638, 2.480151451830574e-05, 2.755913231219055e-06,
           2.762255012336994e-07, 2.449374996715274e-08),
    log=(0.6666666666667036, 0.39999999996539304, 0.2857142945955979, 0.22222121345108764,
         0.181876653717966, 0.1520822871914414, 0.15856212190480315),
)  # fmt: skip


class _Number:
    """A number in the making: arithmetic on it emits LLVM instructions.

    Every instruction carries its own flag.  Numba would give the caller's flags to those without one, and
    `arcp` or `contract` could then round differently in the vector loop and in its scalar remainder.
    """

    def __init__(self, build, kind, value):
        self.build, self.kind, self.value = build, kind, value

    def _new(self, value):
        return _Number(self.build, self.kind, value)

    def _operand(self, other):
        return other.value if isinstance(other, _Number) else ir.Constant(self.kind["type"], other)

    def __add__(self, other):
        return self._new(self.build.fadd(self.value, self._operand(other), flags=("nsz",)))

    def __sub__(self, other):
        return self._new(self.build.fsub(self.value, self._operand(other), flags=("nsz",)))

    def __mul__(self, other):
        return self._new(self.build.fmul(self.value, self._operand(other), flags=("nsz",)))

    def __truediv__(self, other):
        return self._new(self.build.fdiv(self.value, self._operand(other), flags=("nsz",)))

    def times_plus(self, factor, addend):
        """self * factor + addend, rounded once where the machine can."""
        operands = [self.value, self._operand(factor), self._operand(addend)]
        name = f"llvm.fmuladd.f{self.kind['bits'].width}"
        kind = self.kind["type"]
        function = cgutils.get_or_insert_function(self.build.module, ir.FunctionType(kind, [kind] * 3), name)
        return self._new(self.build.call(function, operands))

    def polynomial(self, coefficients):
        total = coefficients[-1]
        total = self._new(self._operand(total))
        for coefficient in reversed(coefficients[:-1]):
            total = total.times_plus(self, coefficient)
        return total

    def select(self, relation, other, if_true, if_false):
        """if_true where `self relation other`, else (and where a NaN is compared) if_false."""
        holds = self.build.fcmp_ordered(relation, self.value, self._operand(other), flags=("nsz",))
        return self._new(self.build.select(holds, self._operand(if_true), self._operand(if_false)))

    def at_most(self, limit):  # keeps NaN
        return self.select(">", limit, limit, self)

    def at_least(self, limit):
        return self.select("<", limit, limit, self)

    def bits(self):
        return self.build.bitcast(self.value, self.kind["bits"])

    def from_bits(self, bits):
        return self._new(self.build.bitcast(bits, self.kind["type"]))

    def sign_and_size(self):
        """The sign bit, and the absolute value."""
        bits, sign = self.bits(), self.kind["bits"](1 << (self.kind["bits"].width - 1))
        size = self.build.and_(bits, self.kind["bits"](sign.constant - 1))
        return self.build.and_(bits, sign), self.from_bits(size)


def _round_to_integer(x):
    """The nearest integer to x, as a number, and as bits (plus those of the returned third value).

    Adding 1.5 * 2^mantissa leaves the integer in the low bits: no conversion instruction, which not every
    machine has for vectors, and nothing undefined for NaN.
    """
    magic = 1.5 * 2.0 ** x.kind["mantissa"]
    shifted = x + magic
    magic_bits = int(np.array(magic, x.kind["numpy"]).view(f"i{x.kind['bits'].width // 8}"))
    return shifted - magic, shifted.bits(), magic_bits


def _reduce(x):
    """x = n ln2 + r with |r| <= ln2 / 2: r, expm1(r), the bits of n with an offset, the offset."""
    n, bits, offset = _round_to_integer(x * (1 / math.log(2)))
    r = n.times_plus(-x.kind["ln2_low"], n.times_plus(-x.kind["ln2_high"], x))
    return r, (r * r).times_plus(r.polynomial(x.kind["expm1"]), r), bits, offset


def _exp(x, low_only=False):
    kind, build = x.kind, x.build
    x = x.at_least(kind["exp_low"])
    if not low_only:
        x = x.at_most(kind["exp_high"])
    _, power, bits, offset = _reduce(x)
    # 2^n is out of range where the result is subnormal or almost infinite, so it is applied in two halves.
    # The bias is added twice first: the number to be halved is then positive.
    integer, one = kind["bits"], kind["bits"](1)
    both = build.sub(bits, integer(offset - 2 * kind["bias"]))
    half = build.lshr(both, one)
    mantissa = integer(kind["mantissa"])
    first, second = build.shl(half, mantissa), build.shl(build.sub(both, half), mantissa)
    return (power + 1.0) * x.from_bits(first) * x.from_bits(second)


def _tanh(x):
    """expm1(2 |x|) / (expm1(2 |x|) + 2), with the sign of x: accurate near zero too."""
    kind, build = x.kind, x.build
    sign, size = x.sign_and_size()
    size = size.at_most(kind["tanh_one"])
    _, power, bits, offset = _reduce(size + size)
    integer = kind["bits"]
    exponent = build.sub(bits, integer(offset - kind["bias"]))
    scale = x.from_bits(build.shl(exponent, integer(kind["mantissa"])))
    grown = power.times_plus(scale, scale - 1.0)
    return x.from_bits(build.or_((grown / (grown + 2.0)).bits(), sign))


def _sigmoid(x):
    """From exp(-|x|), which cannot overflow: the left tail keeps its relative accuracy."""
    _, size = x.sign_and_size()
    small = _exp(size * -1.0, low_only=True)
    return x.select("<", 0.0, small, 1.0) / (small + 1.0)


def _log(x):
    kind, given = x.kind, x
    # Subnormal numbers are scaled up first.
    x = given.select("<", kind["tiny"], given * 2.0 ** kind["mantissa"], given)
    y, e, zero = _fraction_and_exponent(x)
    e = e - given.select("<", kind["tiny"], zero + kind["mantissa"], zero)
    result = _log_of(e, y - 1.0)
    special = given.select("==", 0.0, -math.inf, given.select("<", 0.0, math.nan, given))
    return given.select(">", 0.0, given.select("<", math.inf, result, special), special)


def _log1p(x):
    """log(u) of u = 1 + x, and what u lost by rounding made good; where 1 + x is near 1, from x itself."""
    u = x + 1.0
    lost = x.select("<", 1.0, x - (u - 1.0), (x - u) + 1.0)
    y, e, zero = _fraction_and_exponent(u)
    e = e - zero
    result = _log_of(e, e.select("==", 0.0, x, y - 1.0), e.select("==", 0.0, 0.0, lost / u))
    special = x.select("==", -1.0, -math.inf, x.select("<", -1.0, math.nan, x))
    return x.select(">", -1.0, x.select("<", math.inf, result, special), special)


def _softplus(x):
    """log(1 + exp(x)), from exp(-|x|)."""
    _, size = x.sign_and_size()
    return x.at_least(0.0) + _log1p(_exp(size * -1.0, low_only=True))


def _fraction_and_exponent(x):
    """x = 2^e y with sqrt(1/2) <= y < sqrt(2), for a normal x: y, and e plus a number that is returned third."""
    kind, build = x.kind, x.build
    integer, mantissa = kind["bits"], kind["mantissa"]
    # Subtract the bits of sqrt(1/2), and the exponent comes out whole.
    root = int(np.array(math.sqrt(0.5), kind["numpy"]).view(f"i{integer.width // 8}"))
    above = build.sub(x.bits(), integer(root))
    y = x.from_bits(build.add(build.and_(above, integer((1 << mantissa) - 1)), integer(root)))
    # e to a number by the trick of _round_to_integer; a shift that keeps the sign is no vector instruction
    # everywhere, so the exponent is kept positive with the bias.
    magic = 1.5 * 2.0**mantissa
    magic_bits = int(np.array(magic, kind["numpy"]).view(f"i{integer.width // 8}"))
    exponent = build.lshr(build.add(above, integer(kind["bias"] << mantissa)), integer(mantissa))
    return y, x.from_bits(build.add(exponent, integer(magic_bits))), magic + kind["bias"]


def _log_of(e, f, more=None):
    """e ln2 + log(1 + f) + more, a small number."""
    kind = e.kind
    s = f / (f + 2.0)
    z, half_square = s * s, f * f * 0.5
    rest = s * z.times_plus(z.polynomial(kind["log"]), half_square)
    rest = e.times_plus(kind["ln2_low"], rest if more is None else rest + more)
    return e.times_plus(kind["ln2_high"], f - (half_square - rest))


def _scalar_function(name, formula):
    def function(typing, x):
        kind = {types.float32: _FLOAT32, types.float64: _FLOAT64}.get(x)
        if kind is None:
            raise TypingError(f"{name}(x): x must be float32 or float64, not {x}")

        def emit(context, build, signature, args):
            return formula(_Number(build, kind, args[0])).value

        return x(x), emit

    function.__name__ = function.__qualname__ = name
    return intrinsic(function)


exp = _scalar_function("exp", _exp)
tanh = _scalar_function("tanh", _tanh)
sigmoid = _scalar_function("sigmoid", _sigmoid)
log = _scalar_function("log", _log)
log1p = _scalar_function("log1p", _log1p)
softplus = _scalar_function("softplus", _softplus)


# --- The products -------------------------------------------------------------------------------------------


def kernel(function):
    """Compile `function` once for each dtype, when compiled code calls it.

    A plain njit function would be compiled anew for each combination of constant arguments that its callers
    write; an overload is offered the types without the constants.  Calls from Python work too, for tests and
    trials: those are compiled apart and not cached, since the cached code has no entry for Python, which
    halves its cost.
    """
    return _offered(function, False)


def reduction(function):
    """A kernel whose sums may be taken in any order, so that they become vector code."""
    return _offered(function, {"reassoc", "contract", "nsz"})


def _offered(function, fastmath):
    from_python = njit(error_model="numpy", fastmath=fastmath)(function)

    @functools.wraps(function)
    def call(*args):
        return from_python(*args)

    options = {"error_model": "numpy", "fastmath": fastmath}
    template = make_overload_template(call, lambda *types: function, options, False, "never")
    template._get_jit_decorator = lambda self: _cached_njit
    infer(template)
    infer_global(call, types.Function(template))
    return call


def _cached_njit(**options):
    """What `overload` compiles with, and our cache in place of Numba's, which knows nothing of callees."""
    compiler = njit(**options)
    return lambda function: cached(compiler(function))


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
    # With few rows a copy is not used often enough to pay for itself, and a short k strides over little
    # memory: then only the narrow last panel of B is packed.
    direct = m <= 2 * ROWS or k <= SHORT_K
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


# --- What the products are made of --------------------------------------------------------------------------


def _vector_bytes():
    """Width of a vector register of the machine that Numba compiles for, and whether there are 32 of them."""
    if config.CPU_FEATURES is not None:
        features = set(config.CPU_FEATURES.split(","))
    else:
        features = set(binding.get_host_cpu_features().flatten().split(","))
    if "+avx512f" in features:
        return 64, True
    if "+avx2" in features or "+avx" in features:
        return 32, False
    return 16, "+neon" in features


VECTOR_BYTES, MANY_REGISTERS = _vector_bytes()
# A tile of C, ROWS by two vectors, stays in registers while k runs, beside two vectors of B.
ROWS = 12 if MANY_REGISTERS else 6
FEW_ROWS = 4
# k is taken in blocks: two vectors' width of B, K_BLOCK deep, is 32 kB with the widest vectors.
K_BLOCK = 256
# Up to this k matmul_sum reads A and B where they are.
SHORT_K = 32
# Rows of A taken at a time by matmul: with K_BLOCK columns they fit the second-level cache.
M_BLOCK = 20 * ROWS
# Rows of the result of matmul_sum whose part of A is packed at a time.
A_BLOCK = 10 * ROWS
# Panels of B which matmul_sum packs at a time: with K_BLOCK rows they fit the second-level cache.
PANELS_BLOCK = 16


class _Kind:
    """How one dtype is laid out in vectors."""

    def __init__(self, dtype):
        self.scalar = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
        self.bytes = dtype.bitwidth // 8
        self.width = VECTOR_BYTES // self.bytes
        self.panel = 2 * self.width
        self.vector = ir.VectorType(self.scalar, self.width)
        self.name = f"v{self.width}f{dtype.bitwidth}"
        self.zero = ir.Constant(self.vector, [0.0] * self.width)


def _kind_of(*arrays):
    for array in arrays:
        ok = isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"
        if not ok or array.dtype not in (types.float32, types.float64) or array.dtype != arrays[0].dtype:
            raise TypingError(
                "matrix products take one-dimensional C-contiguous arrays, all float32 or all float64 "
                f"(use .reshape(-1)), not {', '.join(map(str, arrays))}"
            )
    return _Kind(arrays[0].dtype)


def _load(build, kind, address, vector=None):
    vector = vector or kind.vector
    value = build.load(build.bitcast(address, vector.as_pointer()))
    value.align = kind.bytes
    return value


def _store(build, kind, value, address):
    build.store(value, build.bitcast(address, value.type.as_pointer())).align = kind.bytes


def _lanes_below(build, kind, count):
    """A mask of the lanes whose number is less than count."""
    vector = ir.VectorType(INT64, kind.width)
    lanes = ir.Constant(vector, list(range(kind.width)))
    return build.icmp_signed("<", lanes, _splat(build, count, kind.width))


def _splat(build, scalar, width):
    undef = ir.Constant(ir.VectorType(scalar.type, width), ir.Undefined)
    first = build.insert_element(undef, scalar, INT32(0))
    return build.shuffle_vector(first, undef, ir.Constant(ir.VectorType(INT32, width), [0] * width))


def _masked_load(build, kind, address, mask):
    pointer = kind.vector.as_pointer()
    of = ir.FunctionType(kind.vector, [pointer, INT32, mask.type, kind.vector])
    function = cgutils.get_or_insert_function(build.module, of, f"llvm.masked.load.{kind.name}.p0")
    return build.call(function, [build.bitcast(address, pointer), INT32(kind.bytes), mask, kind.zero])


def _masked_store(build, kind, value, address, mask):
    pointer = kind.vector.as_pointer()
    of = ir.FunctionType(ir.VoidType(), [kind.vector, pointer, INT32, mask.type])
    function = cgutils.get_or_insert_function(build.module, of, f"llvm.masked.store.{kind.name}.p0")
    build.call(function, [value, build.bitcast(address, pointer), INT32(kind.bytes), mask])


def _shared_function(module, name, of, write_body):
    """The function of that name in this module, written when first asked for, and never inlined.

    However many products a program calls, each kernel is compiled once in it.
    """
    name = f"minigrad_kernel_{name}"
    known = name in module.globals
    function = cgutils.get_or_insert_function(module, of, name)
    if not known:
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        write_body(ir.IRBuilder(function.append_basic_block("entry")), *function.args)
    return function


# --- The tile: a few rows by a few vectors of C -------------------------------------------------------------


def _write_tile(kind, rows, vectors, build, *args):
    """The body of a tile kernel.

    Rows beyond `row_count` repeat the last row: they read and write what it does.  Columns beyond
    `column_count` are computed from the zeros of the packed panel (panels beyond the last one repeat it), and
    not stored.
    """
    a, a_row, a_col, b, b_row, b_panel, k_count, c, c_row, row_count, column_count, accumulate = args
    last_row = build.sub(row_count, INT64(1))
    row = [INT64(0)] + [_smaller(build, INT64(r), last_row) for r in range(1, rows)]
    a_rows = [build.gep(a, [build.mul(r, a_row)]) for r in row]
    c_rows = [build.gep(c, [build.mul(r, c_row)]) for r in row]
    last_panel = build.sdiv(build.sub(column_count, INT64(1)), INT64(kind.panel))
    panel = [INT64(0)] + [_smaller(build, INT64(p), last_panel) for p in range(1, (vectors + 1) // 2)]
    b_panels = [build.gep(b, [build.mul(p, b_panel)]) for p in panel]
    tile = [(r, v) for r in range(rows) for v in range(vectors)]
    with _counted_loop(build, k_count, [kind.zero] * len(tile)) as (k, totals, results):
        b_at, a_at = build.mul(k, b_row), build.mul(k, a_col)
        b_vectors = [
            _load(build, kind, build.gep(b_panels[v // 2], [build.add(b_at, INT64(v % 2 * kind.width))]))
            for v in range(vectors)
        ]
        numbers = [_splat(build, build.load(build.gep(a_line, [a_at])), kind.width) for a_line in a_rows]
        for (r, v), total in zip(tile, totals, strict=True):
            results.append(_multiply_add(build, kind, numbers[r], b_vectors[v], total))
    _write_back(kind, build, dict(zip(tile, results, strict=True)), c_rows, column_count, accumulate)
    build.ret_void()


@contextlib.contextmanager
def _counted_loop(build, count, start=()):
    """A loop over i < count which carries values: yields i, the values, and a list for the next ones to
    append to.

    After the loop that list holds the last values.  The loop is neither unrolled nor vectorised further:
    there is work enough in one round, and that would only take longer to compile.
    """
    before, loop, after = build.block, build.append_basic_block("loop"), build.append_basic_block("done")
    build.cbranch(build.icmp_signed(">", count, INT64(0)), loop, after)
    build.position_at_end(loop)
    index, values, following = build.phi(INT64), [build.phi(value.type) for value in start], []
    yield index, values, following
    index_next, end = build.add(index, INT64(1)), build.block
    for phi, first, then in [(index, INT64(0), index_next), *zip(values, start, following, strict=True)]:
        phi.add_incoming(first, before)
        phi.add_incoming(then, end)
    _leave_alone(build, build.cbranch(build.icmp_signed("<", index_next, count), loop, after))
    build.position_at_end(after)
    for i, (first, then) in enumerate(zip(start, following, strict=True)):
        following[i] = build.phi(first.type)
        following[i].add_incoming(first, before)
        following[i].add_incoming(then, end)


def _write_back(kind, build, result, c_rows, column_count, accumulate):
    """C = or += the tile.  All is read before anything is written, since rows may be repeated."""
    vectors = 1 + max(v for _, v in result)
    address = {(r, v): build.gep(c_rows[r], [INT64(v * kind.width)]) for r, v in result}
    whole = build.icmp_signed(">=", column_count, INT64(vectors * kind.width))
    mask = [_lanes_below(build, kind, build.sub(column_count, INT64(v * kind.width))) for v in range(vectors)]
    with build.if_else(whole) as (full, partial):
        for way, load, store in (
            (full, lambda at, v: _load(build, kind, at), lambda x, at, v: _store(build, kind, x, at)),
            (
                partial,
                lambda at, v: _masked_load(build, kind, at, mask[v]),
                lambda x, at, v: _masked_store(build, kind, x, at, mask[v]),
            ),
        ):
            with way:
                start, ready, add = (
                    build.block,
                    build.append_basic_block("ready"),
                    build.append_basic_block("add"),
                )
                build.cbranch(accumulate, add, ready)
                build.position_at_end(add)
                sums = {i: build.fadd(load(address[i], i[1]), result[i]) for i in result}
                build.branch(ready)
                build.position_at_end(ready)
                for i in result:
                    value = build.phi(kind.vector)
                    value.add_incoming(result[i], start)
                    value.add_incoming(sums[i], add)
                    sums[i] = value
                for i in result:
                    store(sums[i], address[i], i[1])


def _smaller(build, x, y):
    return build.select(build.icmp_signed("<", x, y), x, y)


def _multiply_add(build, kind, x, y, z):
    of = ir.FunctionType(kind.vector, [kind.vector] * 3)
    return build.call(
        cgutils.get_or_insert_function(build.module, of, f"llvm.fmuladd.{kind.name}"), [x, y, z]
    )


def _leave_alone(build, branch):
    """Mark the loop that this branch closes, against unrolling and vectorising."""
    module = build.module
    string, false = functools.partial(ir.MetaDataString, module), ir.IntType(1)(0)
    wishes = [[string("llvm.loop.unroll.disable")], [string("llvm.loop.vectorize.enable"), false]]
    loop = module.add_metadata([INT32(len(module.metadata))])  # unlike any other; then made to name itself
    loop.operands = (loop, *(module.add_metadata(wish) for wish in wishes))
    branch.set_metadata("llvm.loop", loop)


def _tile(kind, module, rows, vectors):
    """The tile kernel of that size, as an LLVM function."""
    body = functools.partial(_write_tile, kind, rows, vectors)
    return _shared_function(module, f"tile_{rows}_{vectors}_{kind.name}", _block_type(kind), body)


def _block_type(kind):
    number, flag = kind.scalar.as_pointer(), ir.IntType(1)
    a, b, c = [number, INT64, INT64], [number, INT64, INT64], [number, INT64]
    return ir.FunctionType(ir.VoidType(), [*a, *b, INT64, *c, INT64, INT64, flag])


def _write_block(kind, build, *args):
    """Any number of rows, one panel wide (a single row: up to four panels), tile by tile from the top."""
    a, a_row, a_col, b, b_row, b_panel, k, c, c_row, m, n, accumulate = args
    tile, choose = functools.partial(_tile, kind, build.module), build.select
    narrow = build.icmp_signed("<=", n, INT64(kind.width))
    # One row of one panel is too little work at a time to keep the machine busy.
    single = build.and_(build.icmp_signed("==", m, INT64(1)), build.icmp_signed(">", n, INT64(kind.panel)))
    few_tile = choose(single, tile(1, 8), choose(narrow, tile(FEW_ROWS, 1), tile(FEW_ROWS, 2)))
    many_tile = choose(narrow, tile(ROWS, 1), tile(ROWS, 2))

    before, loop, after = build.block, build.append_basic_block("rows"), build.append_basic_block("done")
    build.cbranch(build.icmp_signed(">", m, INT64(0)), loop, after)
    build.position_at_end(loop)
    row = build.phi(INT64)
    left = build.sub(m, row)
    many = build.icmp_signed(">", left, INT64(2 * FEW_ROWS))
    rows = _smaller(build, left, choose(many, INT64(ROWS), INT64(FEW_ROWS)))
    a_here, c_here = build.gep(a, [build.mul(row, a_row)]), build.gep(c, [build.mul(row, c_row)])
    build.call(
        choose(many, many_tile, few_tile),
        [a_here, a_row, a_col, b, b_row, b_panel, k, c_here, c_row, rows, n, accumulate],
    )
    row_next = build.add(row, rows)
    row.add_incoming(INT64(0), before)
    row.add_incoming(row_next, loop)
    build.cbranch(build.icmp_signed("<", row_next, m), loop, after)
    build.position_at_end(after)
    build.ret_void()


@intrinsic
def _block(typing, a, a_at, a_row, a_col, b, b_at, b_row, b_panel, k, c, c_at, c_row, m, n, accumulate):
    """C (m, n) = or += A (m, k) B (k, n), B one panel wide (for m = 1 up to four, b_panel apart)."""
    kind, count = _kind_of(a, b, c), types.intp

    def emit(context, build, signature, args):
        at = functools.partial(_address, context, build, signature, args)
        body = functools.partial(_write_block, kind)
        function = _shared_function(build.module, f"block_{kind.name}", _block_type(kind), body)
        build.call(function, [at(0), *args[2:4], at(4), *args[6:9], at(9), *args[11:]])
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


def _copy_kernel(write_body):
    """Intrinsic that copies a block; its body is written by the decorated function.

    Positions and steps count elements.  Each body takes what it needs of the strides, and names the rest `_`.
    """

    @intrinsic
    def copy(
        typing, source, source_at, source_row, source_col, target, target_at, target_row, count, columns
    ):
        kind, count_type = _kind_of(source, target), types.intp

        def emit(context, build, signature, args):
            number = kind.scalar.as_pointer()
            of = ir.FunctionType(ir.VoidType(), [number, INT64, INT64, number, INT64, INT64, INT64])
            function = _shared_function(
                build.module, f"{write_body.__name__}_{kind.name}", of, functools.partial(write_body, kind)
            )
            at = functools.partial(_address, context, build, signature, args)
            build.call(function, [at(0), args[2], args[3], at(4), *args[6:]])
            return context.get_dummy_value()

        return types.void(source, *[count_type] * 3, target, *[count_type] * 4), emit

    return copy


@_copy_kernel
def _copy_panels(kind, build, source, source_row, _, target, target_panel, count, columns):
    """`count` rows of `columns` numbers into panels target_panel apart, the last one filled up with zeros."""
    panels = build.sdiv(build.add(columns, INT64(kind.panel - 1)), INT64(kind.panel))
    with _counted_loop(build, count) as (i, _, _), _counted_loop(build, panels) as (p, _, _):
        at = build.mul(p, INT64(kind.panel))
        here = build.gep(source, [build.add(build.mul(i, source_row), at)])
        there = build.gep(target, [build.add(build.mul(i, INT64(kind.panel)), build.mul(p, target_panel))])
        left = build.sub(columns, at)
        sources, targets = ([build.gep(q, [INT64(v * kind.width)]) for v in range(2)] for q in (here, there))
        with build.if_else(build.icmp_signed(">=", left, INT64(kind.panel))) as (full, partial):
            with full:
                for v in range(2):
                    _store(build, kind, _load(build, kind, sources[v]), targets[v])
            with partial:
                for v in range(2):
                    mask = _lanes_below(build, kind, build.sub(left, INT64(v * kind.width)))
                    _store(build, kind, _masked_load(build, kind, sources[v], mask), targets[v])
    build.ret_void()


@_copy_kernel
def _copy_slivers(kind, build, source, source_row, _, target, target_sliver, count, slivers):
    """`count` rows of slivers * ROWS numbers into slivers of ROWS columns, target_sliver apart."""
    vector = ir.VectorType(kind.scalar, ROWS)
    with _counted_loop(build, count) as (i, _, _), _counted_loop(build, slivers) as (s, _, _):
        here = build.gep(source, [build.add(build.mul(i, source_row), build.mul(s, INT64(ROWS)))])
        there = build.gep(target, [build.add(build.mul(i, INT64(ROWS)), build.mul(s, target_sliver))])
        _store(build, kind, _load(build, kind, here, vector), there)
    build.ret_void()


@_copy_kernel
def _clear(kind, build, source, _, __, target, target_row, count, columns):
    """`count` rows of zeros, each a panel wide."""
    with _counted_loop(build, count) as (i, _, _):
        for v in range(2):
            at = build.add(build.mul(i, target_row), INT64(v * kind.width))
            _store(build, kind, kind.zero, build.gep(target, [at]))
    build.ret_void()


@_copy_kernel
def _copy_numbers(kind, build, source, source_row, source_col, target, target_row, count, columns):
    """`count` rows of `columns` numbers, one by one: the edges of what the others copy."""
    with _counted_loop(build, count) as (i, _, _), _counted_loop(build, columns) as (j, _, _):
        here = build.gep(source, [build.add(build.mul(i, source_row), build.mul(j, source_col))])
        build.store(build.load(here), build.gep(target, [build.add(j, build.mul(i, target_row))]))
    build.ret_void()


@_copy_kernel
def _copy_squares(kind, build, source, _, source_col, target, target_row, count, __):
    """`count` squares of a vector's width, one above the other, whose columns are contiguous in the source.

    A square is turned over by log2(width) rounds of shuffles, all in registers.
    """
    width = kind.width
    with _counted_loop(build, count) as (square, _, _):
        here = build.gep(source, [build.mul(square, INT64(width))])
        there = build.gep(target, [build.mul(square, build.mul(target_row, INT64(width)))])
        rows = [_load(build, kind, build.gep(here, [build.mul(source_col, INT64(i))])) for i in range(width)]
        step = 1
        while step < width:  # swap the off-diagonal quarters of every square of 2 * step
            lanes = range(width)
            low = [i if not i & step else width + i - step for i in lanes]
            high = [i + step if not i & step else width + i for i in lanes]
            masks = [ir.Constant(ir.VectorType(INT32, width), m) for m in (low, high)]
            for i in lanes:
                if not i & step:
                    pair = rows[i], rows[i + step]
                    rows[i], rows[i + step] = (build.shuffle_vector(*pair, mask) for mask in masks)
            step *= 2
        for i, value in enumerate(rows):
            _store(build, kind, value, build.gep(there, [build.mul(target_row, INT64(i))]))
    build.ret_void()


@intrinsic
def _vector_width(typing, array):
    """Numbers in a vector register, a constant."""
    kind = _kind_of(array)
    return types.intp(array), lambda context, build, signature, args: INT64(kind.width)
