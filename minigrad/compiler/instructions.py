"""What is written as LLVM instructions by hand: exp, tanh, sigmoid, log, log1p, softplus, expm1 and erf of one number,
the tile of a product that stays in registers, and copies into the form in which tiles read.

`FORMULAS` and `sign` take and give numbers of a builder; `block` and `copy` write the call of a function that each module
has once.  Nothing here knows Numba: kernels.py hands these to it, llvm.py to LLVM itself.
"""

from __future__ import annotations

import contextlib
import functools
import math

import numpy as np
from llvmlite import ir

from ..erf import EDGE, FAR, MIDDLE, NEAR, ONE
from .machine import ARM, FEATURES

INT32, INT64 = ir.IntType(32), ir.IntType(64)
# What LLVM may do with the numbers of a loop, and of a sum: NaN, infinity and the sign of 0 are kept (never nnan, ninf).
# Nor does it multiply by a reciprocal (arcp): that rounds otherwise than dividing, and is infinite where x is subnormal.
LOOP_FLAGS = ("contract",)
REDUCTION_FLAGS = ("reassoc", "contract", "nsz")


def function_named(module, of, name):
    """The function of that name and type in the module, declared when it is asked for first."""
    return module.globals.get(name) or ir.Function(module, of, name)


# --- exp, tanh, sigmoid, log, log1p, softplus, expm1, erf ----------------------------------------------------

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
    `contract` could then round differently in the vector loop and in its scalar remainder.
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
        function = function_named(self.build.module, ir.FunctionType(kind, [kind] * 3), name)
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


def _expm1(x):
    """From the same parts as tanh; e^x itself, where the 1 is less than its last digit."""
    kind, build, given = x.kind, x.build, x
    x = x.at_least(-60.0).at_most(60.0)
    _, power, bits, offset = _reduce(x)
    exponent = build.sub(bits, kind["bits"](offset - kind["bias"]))
    scale = x.from_bits(build.shl(exponent, kind["bits"](kind["mantissa"])))
    return given.select(">", 50.0, _exp(given), power.times_plus(scale, scale - 1.0))


def _erf(x):
    """As erf.py says."""
    sign, size = x.sign_and_size()
    size = size.at_most(ONE)
    tail = ((size - MIDDLE) / (size + MIDDLE)).polynomial(FAR)
    far = (_exp(size * size * -1.0, low_only=True) * tail) * -1.0 + 1.0
    near = size * (size * size).polynomial(NEAR)
    return x.from_bits(x.build.or_(size.select("<", EDGE, near, far).bits(), sign))


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
    # e to a number by the trick of _round_to_integer; a shift that keeps the sign is not a vector instruction
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


FORMULAS = {
    "exp": _exp,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "log": _log,
    "log1p": _log1p,
    "softplus": _softplus,
    "expm1": _expm1,
    "erf": _erf,
}


def formula(name, build, value):
    """The function of that name of a float32 or float64."""
    kind = _FLOAT32 if value.type == ir.FloatType() else _FLOAT64
    return FORMULAS[name](_Number(build, kind, value)).value


# --- What the products are made of --------------------------------------------------------------------------


def _vector_bytes() -> tuple[int, bool]:
    """Width of a vector register of the machine that code is made for, and whether there are 32 of them."""
    features = set(FEATURES.split(","))
    if "+avx512f" in features:
        return 64, True
    if "+avx2" in features or "+avx" in features:
        return 32, False
    return 16, ARM and "+simd128" not in features  # of which WebAssembly says nothing


VECTOR_BYTES, MANY_REGISTERS = _vector_bytes()
# A tile of C, ROWS by two vectors, stays in registers while k runs, beside two vectors of B.
ROWS = 12 if MANY_REGISTERS else 6
FEW_ROWS = 4
# k is taken in blocks: two vectors' width of B, K_BLOCK deep, is 32 kB with the widest vectors.
K_BLOCK = 256
# Up to this k, and where their rows are no longer than so many panels, matmul_sum reads A and B where they are.
SHORT_K, NARROW = 32, 8
# Rows of A taken at a time by matmul: with K_BLOCK columns they fit the second-level cache.
M_BLOCK = 20 * ROWS
# Rows of the result of matmul_sum whose part of A is packed at a time.
A_BLOCK = 120
# Panels of B which matmul_sum packs at a time: with K_BLOCK rows they fit the second-level cache.
PANELS_BLOCK = 1024 // VECTOR_BYTES
# Rows that copies have fetched before they come to them: memory a whole row apart is not foreseen by the machine.
AHEAD = 8
UNROLLED = 4  # values of k that a whole tile takes in one round of its loop
AHEAD_IN_PANEL = 4  # likewise, of a panel of B that is read as it stands


class Kind:
    """How one dtype, an LLVM type, is laid out in vectors."""

    def __init__(self, scalar):
        self.scalar = scalar
        self.bytes = 4 if scalar == ir.FloatType() else 8
        self.width = VECTOR_BYTES // self.bytes
        self.panel = 2 * self.width
        self.vector = ir.VectorType(self.scalar, self.width)
        self.name = f"v{self.width}f{8 * self.bytes}"
        self.zero = ir.Constant(self.vector, [0.0] * self.width)


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
    function = function_named(build.module, of, f"llvm.masked.load.{kind.name}.p0")
    return build.call(function, [build.bitcast(address, pointer), INT32(kind.bytes), mask, kind.zero])


def _masked_store(build, kind, value, address, mask):
    pointer = kind.vector.as_pointer()
    of = ir.FunctionType(ir.VoidType(), [kind.vector, pointer, INT32, mask.type])
    function = function_named(build.module, of, f"llvm.masked.store.{kind.name}.p0")
    build.call(function, [value, build.bitcast(address, pointer), INT32(kind.bytes), mask])


def _shared_function(module, name, of, write_body):
    """The function of that name in this module, written when first asked for, and never inlined.

    However many products a program calls, each kernel is compiled once in it.
    """
    name = f"minigrad_kernel_{name}"
    known = name in module.globals
    function = function_named(module, of, name)
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
    for r, v in tile:  # for when the loop is done
        _prefetch(build, build.gep(c_rows[r], [INT64(v * kind.width)]), 1, 3)
    totals, done = [kind.zero] * len(tile), INT64(0)
    if vectors <= 2:  # whole tiles whose rows, or columns, lie together
        one, most = INT64(1), build.and_(k_count, INT64(-UNROLLED))
        whole, packed, by_rows, by_columns = (
            build.icmp_signed("==", x, y)
            for x, y in ((row_count, INT64(rows)), (b_row, INT64(kind.panel)), (a_col, one), (a_row, one))
        )
        # Rows of B that are a power of two apart throw each other out of the first-level cache; a panel is foreseen.
        next_rows = (build.gep(b, [build.mul(b_row, INT64(AHEAD_IN_PANEL))]), b_row)
        for way, steps, fetched in (
            (build.and_(by_rows, packed), (a_row, one, INT64(kind.panel)), []),
            (by_columns, (one, a_col, b_row), [next_rows] if rows == ROWS else []),
        ):
            here = build.select(build.and_(whole, way), build.sub(most, done), INT64(0))
            totals = _unrolled(kind, build, tile, totals, here, a, b, steps, fetched)
            done = build.add(done, here)
    with _counted_loop(build, build.sub(k_count, done), totals) as (i, totals, results):
        k = build.add(i, done)
        a_at, b_at = build.mul(k, a_col), build.mul(k, b_row)
        results.extend(_round(kind, build, tile, totals, a_rows, a_at, b_panels, b_at))
    _write_back(kind, build, dict(zip(tile, results, strict=True)), c_rows, column_count, accumulate)
    build.ret_void()


def _unrolled(kind, build, tile, totals, count, a, b, steps, ahead):
    """The totals after `count` k, a multiple of UNROLLED; rows and columns of A and rows of B are `steps` apart.

    Few registers and instructions hold the addresses so: with one for each row there are as many of those as of products.
    ahead : what to have fetched meanwhile, from where and how far with each k; or nothing.
    """
    row_step, col_step, b_step = steps
    rows = 1 + max(r for r, _ in tile)
    lines = [(a, col_step), (b, b_step), *ahead]
    rounds = build.sdiv(count, INT64(UNROLLED))
    with _counted_loop(build, rounds, [*totals, *(at for at, _ in lines)]) as (_, values, results):
        sums, (a, b, *fetched) = values[: len(tile)], values[len(tile) :]
        for u in range(UNROLLED):
            a_at, b_at = (build.mul(INT64(u), step) for step in (col_step, b_step))
            a_lines = [build.gep(a, [build.mul(INT64(r), row_step)]) for r in range(rows)]
            sums = _round(kind, build, tile, sums, a_lines, a_at, [b], b_at)
        for at, (_, step) in zip(fetched, ahead, strict=True):
            for u in range(UNROLLED):
                _prefetch(build, build.gep(at, [build.mul(INT64(u), step)]), 0, 3)
        further = zip((a, b, *fetched), lines, strict=True)
        results.extend(sums)
        results.extend(build.gep(at, [build.mul(INT64(UNROLLED), step)]) for at, (_, step) in further)
    return results[: len(tile)]


def _round(kind, build, tile, totals, a_lines, a_at, b_panels, b_at):
    """One k: a number of each row times the vectors of a row of B, added to the totals of the tile."""
    vectors = 1 + max(v for _, v in tile)
    b_vectors = [
        _load(build, kind, build.gep(b_panels[v // 2], [build.add(b_at, INT64(v % 2 * kind.width))]))
        for v in range(vectors)
    ]
    sums: list = []
    for r, line in enumerate(a_lines):  # row by row, so that few of the numbers are in registers at a time
        number = _splat(build, build.load(build.gep(line, [a_at])), kind.width)
        row = totals[r * vectors : (r + 1) * vectors]
        sums += [
            _multiply_add(build, kind, number, b, total) for b, total in zip(b_vectors, row, strict=True)
        ]
    return sums


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


def _prefetch(build, address, write, level):
    """Have memory fetched before it is needed, to be written (1) or not (0): level 3 is the first cache, 2 the second.

    Any address will do: nothing is read at one that is not there.
    """
    pointer = ir.IntType(8).as_pointer()
    of = ir.FunctionType(ir.VoidType(), [pointer, INT32, INT32, INT32])
    operands = [build.bitcast(address, pointer), INT32(write), INT32(level), INT32(1)]
    build.call(function_named(build.module, of, "llvm.prefetch.p0"), operands)


def _smaller(build, x, y):
    return build.select(build.icmp_signed("<", x, y), x, y)


def _multiply_add(build, kind, x, y, z):
    of = ir.FunctionType(kind.vector, [kind.vector] * 3)
    return build.call(function_named(build.module, of, f"llvm.fmuladd.{kind.name}"), [x, y, z])


def _leave_alone(build, branch):
    """Mark the loop that this branch closes, against unrolling and vectorising."""
    module = build.module
    string, false = functools.partial(ir.MetaDataString, module), ir.IntType(1)(0)
    wishes = [
        [string("llvm.loop.unroll.disable")],
        [string("llvm.loop.vectorize.enable"), false],
        [string("llvm.loop.align"), INT32(64)],
    ]
    loop = module.add_metadata([INT32(len(module.metadata))])  # unlike any other; then made to name itself
    loop.operands = (loop, *(module.add_metadata(wish) for wish in wishes))
    branch.set_metadata("llvm.loop", loop)


def _tile(kind, module, rows, vectors):
    """The tile kernel of that size, as an LLVM function."""
    body = functools.partial(_write_tile, kind, rows, vectors)
    return _shared_function(module, f"tile_{rows}_{vectors}_{kind.name}", block_type(kind), body)


def block_type(kind):
    number, flag = kind.scalar.as_pointer(), ir.IntType(1)
    a, b, c = [number, INT64, INT64], [number, INT64, INT64], [number, INT64]
    return ir.FunctionType(ir.VoidType(), [*a, *b, INT64, *c, INT64, INT64, flag])


def write_block(kind, build, *args):
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
    if ROWS < 2 * FEW_ROWS:  # between one small tile and two, a whole one of ROWS is less work
        fits = build.icmp_unsigned("<", build.sub(left, INT64(FEW_ROWS + 1)), INT64(ROWS - FEW_ROWS))
        many = build.or_(many, fits)
    most, function = INT64(FEW_ROWS), few_tile
    if ROWS > 2 * FEW_ROWS:  # two small tiles as one
        two = build.icmp_signed(">", left, INT64(FEW_ROWS))
        two_tile = choose(narrow, tile(2 * FEW_ROWS, 1), tile(2 * FEW_ROWS, 2))
        most, function = choose(two, INT64(2 * FEW_ROWS), most), choose(two, two_tile, function)
    most, function = choose(many, INT64(ROWS), most), choose(many, many_tile, function)
    rows = _smaller(build, left, most)
    a_here, c_here = build.gep(a, [build.mul(row, a_row)]), build.gep(c, [build.mul(row, c_row)])
    build.call(function, [a_here, a_row, a_col, b, b_row, b_panel, k, c_here, c_row, rows, n, accumulate])
    row_next = build.add(row, rows)
    row.add_incoming(INT64(0), before)
    row.add_incoming(row_next, loop)
    build.cbranch(build.icmp_signed("<", row_next, m), loop, after)
    build.position_at_end(after)
    build.ret_void()


def block(kind, build, args):
    """C (m, n) = or += A (m, k) B (k, n), B one panel wide (for m = 1 up to four, b_panel apart).

    args : a, a_row, a_col, b, b_row, b_panel, k, c, c_row, m, n, accumulate
    """
    body = functools.partial(write_block, kind)
    build.call(_shared_function(build.module, f"block_{kind.name}", block_type(kind), body), args)


COPIES = {}


def _copy(write_body):
    """A copy of a block; its body is written by the decorated function.

    Steps count elements.  Each body takes what it needs of the strides, and names the rest `_`.
    """
    COPIES[write_body.__name__] = write_body
    return write_body


def copy(name, kind, build, args):
    """The copy of that name.

    args : source, source_row, source_col, target, target_row, count, columns
    """
    number = kind.scalar.as_pointer()
    of = ir.FunctionType(ir.VoidType(), [number, INT64, INT64, number, INT64, INT64, INT64])
    body = functools.partial(COPIES[name], kind)
    build.call(_shared_function(build.module, f"{name}_{kind.name}", of, body), args)


@_copy
def _copy_panels(kind, build, source, source_row, _, target, target_panel, count, columns):
    """`count` rows of `columns` numbers into panels target_panel apart, the last one filled up with zeros."""
    panels = build.sdiv(build.add(columns, INT64(kind.panel - 1)), INT64(kind.panel))
    with _counted_loop(build, count) as (i, _, _), _counted_loop(build, panels) as (p, _, _):
        at = build.mul(p, INT64(kind.panel))
        here = build.gep(source, [build.add(build.mul(i, source_row), at)])
        there = build.gep(target, [build.add(build.mul(i, INT64(kind.panel)), build.mul(p, target_panel))])
        left = build.sub(columns, at)
        _prefetch(build, build.gep(here, [build.mul(source_row, INT64(AHEAD))]), 0, 3)
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


@_copy
def _copy_slivers(kind, build, source, source_row, _, target, target_sliver, count, slivers):
    """`count` rows of slivers * ROWS numbers into slivers of ROWS columns, target_sliver apart."""
    vector = ir.VectorType(kind.scalar, ROWS)
    with _counted_loop(build, count) as (i, _, _), _counted_loop(build, slivers) as (s, _, _):
        here = build.gep(source, [build.add(build.mul(i, source_row), build.mul(s, INT64(ROWS)))])
        there = build.gep(target, [build.add(build.mul(i, INT64(ROWS)), build.mul(s, target_sliver))])
        _prefetch(build, build.gep(here, [build.mul(source_row, INT64(AHEAD))]), 0, 3)
        _store(build, kind, _load(build, kind, here, vector), there)
    build.ret_void()


@_copy
def _clear(kind, build, source, _, __, target, target_row, count, columns):
    """`count` rows of zeros, each a panel wide."""
    with _counted_loop(build, count) as (i, _, _):
        for v in range(2):
            at = build.add(build.mul(i, target_row), INT64(v * kind.width))
            _store(build, kind, kind.zero, build.gep(target, [at]))
    build.ret_void()


@_copy
def _copy_numbers(kind, build, source, source_row, source_col, target, target_row, count, columns):
    """`count` rows of `columns` numbers, one by one: the edges of what the others copy."""
    with _counted_loop(build, count) as (i, _, _), _counted_loop(build, columns) as (j, _, _):
        here = build.gep(source, [build.add(build.mul(i, source_row), build.mul(j, source_col))])
        build.store(build.load(here), build.gep(target, [build.add(j, build.mul(i, target_row))]))
    build.ret_void()


@_copy
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
