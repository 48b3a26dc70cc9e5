"""Further records of the table: what cells seldom need and NumPy's users expect, and the functions that call them.

Powers, remainders, rounding, bits, erf, sums up to each place: written like those in ops.py, which say what a record holds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from . import axes
from .erf import erf as _erf
from .errors import DTypeError
from .op import Op
from .ops import (
    ABS,
    BOOL,
    BROADCAST_TO,
    EQUAL,
    EXP,
    LOG,
    SIGMOID,
    SIGN,
    WHERE,
    _same,
    _unary,
    axes_of,
    broadcast,
    define,
    either,
    zeros,
)  # fmt: skip
from .sizes import shape_given
from .tensor import (
    _ARRAY_FUNCTIONS,
    _FUNCTIONS,
    _UFUNCS,
    Tensor,
    apply,
    apply_symbolic,
    as_tensor,
    describe,
)

# How values are computed, and slopes that are more than one expression.


def _raised(x, p):
    if np.result_type(x, p).kind in "iu" and (p < 0).any():
        raise TypeError("integers to negative powers are not integers; convert them with .astype('float64')")
    return np.power(x, p)


def _bitwise(function):
    """The type of what `&`, `|` and `^` make: booleans of booleans, integers of integers."""

    def dtype(a, b):
        try:
            return function(np.ones((), a), np.ones((), b)).dtype
        except TypeError:
            raise DTypeError(
                f"{function.__name__} of {a} and {b}: give booleans or integers; compare, e.g. x > 0"
            ) from None

    return dtype


def _cumsum(x, axis, backwards):
    """Sums of float32 are added up in float64, as in `sum`."""
    if backwards:
        return np.flip(_cumsum(np.flip(x, axis), axis, False), axis)
    if x.dtype.kind != "f":
        return np.cumsum(x, axis, dtype=x.dtype)
    return np.cumsum(x, axis, dtype=np.float64).astype(x.dtype, copy=False)


def _slope_of_base(a, b):
    """b a^(b − 1), which at 0^0 is 0 and not 0 · 0^−1."""
    return b * either(POW, either(WHERE, (a == 0) & (b == 0), 1, a), b - 1)


def _slope_of_exponent(y, a, b):
    """a^b log a, which is 0 where a is 0 and b is not below."""
    return y * either(LOG, either(WHERE, (a == 0) & (b >= 0), 1, a))


def _share_of_logaddexp(a, b):
    """e^a / (e^a + e^b): one half each for two infinities of one sign, whose difference is NaN."""
    difference = a - b
    same = (a == b) & (difference != 0)
    return either(SIGMOID, either(WHERE, same, 0, difference))


def _nonzero(y):
    """For 0 / 0 to be 0."""
    return either(WHERE, y == 0, 1, y)


# As large · √(1 + (small / large)²), which neither overflows nor loses small numbers; an infinity wins over NaN.
_LARGE, _SMALL = "maximum(abs({0}), abs({1}))", "minimum(abs({0}), abs({1}))"
_HYPOT_SOURCE = (
    "(abs({0}) if abs({0}) == {kind}(1e999) else abs({1}) if abs({1}) == {kind}(1e999) else "
    f"{_LARGE} * sqrt({{kind}}(1) + ({_SMALL} / ({_LARGE} if {_LARGE} != 0 else {{kind}}(1))) ** 2))"
)

# The records.

EXPM1 = define("expm1", np.expm1, _same, (lambda g, y, x: g * either(EXP, x),),
    kind="elementwise", source="expm1({0})", tex=r"\mathrm{{expm1}}({0})", text="expm1({0})", symbol="expm1")  # fmt: skip
LOGADDEXP = define("logaddexp", np.logaddexp, broadcast,
    (lambda g, y, a, b: g * _share_of_logaddexp(a, b), lambda g, y, a, b: g * _share_of_logaddexp(b, a)),
    kind="elementwise", smooth=False, source="(maximum({0}, {1}) + softplus(-abs({0} - {1} if {0} != {1} else {kind}(0))))",
    tex=r"\mathrm{{logaddexp}}({0}, {1})", text="logaddexp({0}, {1})", symbol="log Σ exp")  # fmt: skip
HYPOT = define("hypot", np.hypot, broadcast,
    (lambda g, y, a, b: g * (a / _nonzero(y)), lambda g, y, a, b: g * (b / _nonzero(y))),
    kind="elementwise", smooth=False, source=_HYPOT_SOURCE,
    tex=r"\sqrt{{{0}^{{2}} + {1}^{{2}}}}", text="√({0}² + {1}²)", symbol="√x²+y²")  # fmt: skip
ERF = define("erf", _erf, _same, (lambda g, y, x: g * (2 / math.sqrt(math.pi) * either(EXP, -(x * x))),),
    kind="elementwise", smooth=False, source="erf({0})", tex=r"\mathrm{{erf}}({0})", text="erf({0})", symbol="erf")  # fmt: skip
POW = define("pow", _raised, broadcast,
    (lambda g, y, a, b: g * _slope_of_base(a, b), lambda g, y, a, b: g * _slope_of_exponent(y, a, b)),
    kind="elementwise", smooth=False, source="(({0}) ** ({1}))", tex="{0}^{{{1}}}", text="{0}^{1}", symbol="xʸ")  # fmt: skip
MOD = define("mod", np.remainder, broadcast,
    (lambda g, y, a, b: g, lambda g, y, a, b: -g * either(FLOOR_DIVIDE, a, b)),
    kind="elementwise", smooth=False, source="(({0}) % ({1}))",
    tex=r"\mathrm{{mod}}({0}, {1})", text="mod({0}, {1})", symbol="mod")  # fmt: skip
FLOOR_DIVIDE = define("floor_divide", np.floor_divide, broadcast, None,
    kind="elementwise", smooth=False, source="(({0}) // ({1}))",
    tex=r"\lfloor {0} / {1} \rfloor", text="floor({0} / {1})", symbol="//")  # fmt: skip
FLOOR = define("floor", np.floor, _same, None,
    kind="elementwise", smooth=False, source="floor({0})",
    tex=r"\lfloor {0} \rfloor", text="floor({0})", symbol="⌊x⌋")  # fmt: skip
CEIL = define("ceil", np.ceil, _same, None,
    kind="elementwise", smooth=False, source="(-floor(-({0})))",
    tex=r"\lceil {0} \rceil", text="ceil({0})", symbol="⌈x⌉")  # fmt: skip
ROUND = define("round", np.rint, _same, None,
    kind="elementwise", smooth=False, source="rint({0})",
    tex=r"\mathrm{{round}}({0})", text="round({0})", symbol="round")  # fmt: skip
AND = define("and", np.bitwise_and, broadcast, None, dtype=_bitwise(np.bitwise_and),
    kind="elementwise", smooth=False, source="{0} & {1}",
    tex=r"{0} \wedge {1}", text="{0} ∧ {1}", symbol="∧", binding=0)  # fmt: skip
OR = define("or", np.bitwise_or, broadcast, None, dtype=_bitwise(np.bitwise_or),
    kind="elementwise", smooth=False, source="{0} | {1}",
    tex=r"{0} \vee {1}", text="{0} ∨ {1}", symbol="∨", binding=0)  # fmt: skip
XOR = define("xor", np.bitwise_xor, broadcast, None, dtype=_bitwise(np.bitwise_xor),
    kind="elementwise", smooth=False, source="{0} ^ {1}",
    tex=r"{0} \oplus {1}", text="{0} ⊕ {1}", symbol="⊕", binding=0)  # fmt: skip
CUMSUM = define("cumsum", _cumsum, lambda shape, axis, backwards: shape,
    (lambda g, y, x, axis, backwards: either(CUMSUM, g, params=(axis, not backwards)),), params=("axis", "backwards"),
    axes=axes.other_than, tex=r"\mathrm{{cumsum}}({0})", text="cumsum({0})", symbol="Σ…")  # fmt: skip


# The functions that call them.


expm1 = _unary(EXPM1, "e^x − 1, element by element, which keeps the digits of a small x.")
abs = _unary(ABS, "The absolute value, element by element; the gradient at 0 is 0.")
sign = _unary(SIGN, "−1, 0 or 1, element by element; nothing flows back through it.")
erf = _unary(ERF, "The error function 2/√π ∫₀ˣ e^−s² ds, element by element.")


def _whole_unary(op: Op, doc: str):
    of_floats = _unary(op, doc)

    def function(x) -> Tensor:
        x = as_tensor(x)
        return x if x.dtype.kind in "iu" else of_floats(x)

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = doc
    return function


floor = _whole_unary(FLOOR, "The largest whole number that is not above x; nothing flows back through it.")
ceil = _whole_unary(CEIL, "The smallest whole number that is not below x; nothing flows back through it.")
rint = _unary(
    ROUND, "The nearest whole number as a float, the even one of two; nothing flows back through it."
)


def logaddexp(a, b) -> Tensor:
    """log(e^a + e^b), element by element, without overflow; the gradient is the share of each in the sum.

    Two infinities of one sign, whose shares nobody knows, get one half each.
    """
    return apply(LOGADDEXP, (a, b))


def hypot(a, b) -> Tensor:
    """√(a² + b²), element by element, without overflow: the length of (a, b); the gradient at (0, 0) is 0."""
    return apply(HYPOT, (a, b))


def mod(a, b) -> Tensor:
    """a − b ⌊a / b⌋, element by element, which has the sign of b, as Python's and NumPy's %.

    The gradient is 1 with respect to a and −⌊a / b⌋ to b, where it jumps too.  Integers modulo 0 are 0, as in NumPy.
    """
    return apply(MOD, (a, b))


def floor_divide(a, b) -> Tensor:
    """⌊a / b⌋, element by element, as Python's and NumPy's //; nothing flows back through it."""
    return apply(FLOOR_DIVIDE, (a, b))


def ones(shape, dtype: DTypeLike = "float32") -> Tensor:
    """All 1; sizes may be unknown, as in `zeros`."""
    return full(shape_given("ones", shape, dtype), 1, dtype)


def full(shape, value, dtype: DTypeLike = "float32") -> Tensor:
    """All `value`, a number; sizes may be unknown, as in `zeros`."""
    shape = shape_given("full", shape, dtype)
    if all(isinstance(n, (int, np.integer)) for n in shape):
        return Tensor(np.full(shape, value, dtype))
    return apply_symbolic(BROADCAST_TO, (Tensor(np.full((), value, dtype)),), (tuple(shape),))


def zeros_like(x, dtype: DTypeLike | None = None) -> Tensor:
    """All 0, of the shape of `x` and its type or another."""
    x = as_tensor(x)
    return zeros(x.shape, x.dtype if dtype is None else dtype)


def ones_like(x, dtype: DTypeLike | None = None) -> Tensor:
    """All 1, of the shape of `x` and its type or another."""
    x = as_tensor(x)
    return ones(x.shape, x.dtype if dtype is None else dtype)


def cumsum(x, axis=None) -> Tensor:
    """The sums of the elements up to each one along `axis` (None: of all, in one row).

    Booleans and small integers are added up as NumPy's sum does.  The gradient is a cumulative sum from the end.
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = x.reshape(-1), 0
    (axis,) = axes_of(x.ndim, axis)
    if x.dtype.kind in "iub":
        x = x.astype(np.add.reduce(np.ones(1, x.dtype)).dtype)
    return apply(CUMSUM, (x,), (axis, False))


def _positive(x: Tensor) -> Tensor:
    if x.dtype == BOOL:
        raise DTypeError(f"+ of {describe(x)}: booleans have no sign; use .astype(…)")
    return x


def bitwise_and(a, b) -> Tensor:
    """And, of booleans or of the bits of integers, element by element."""
    return apply(AND, (a, b))


def bitwise_or(a, b) -> Tensor:
    """Or, of booleans or of the bits of integers, element by element."""
    return apply(OR, (a, b))


def bitwise_xor(a, b) -> Tensor:
    """One and not both, of booleans or of the bits of integers, element by element."""
    return apply(XOR, (a, b))


def invert(x) -> Tensor:
    """Not, of booleans; of integers with all bits changed.  Raises DTypeError for floats."""
    x = as_tensor(x)
    if x.dtype.kind == "b":
        return apply(EQUAL, (x, False))
    if x.dtype.kind not in "iu":
        raise DTypeError(f"~ of {describe(x)}: give booleans or integers; compare, e.g. x > 0")
    return apply(XOR, (x, np.array(-1).astype(x.dtype)))


_UFUNCS.update(
    expm1=expm1, hypot=hypot, logaddexp=logaddexp, remainder=mod, floor_divide=floor_divide, floor=floor, ceil=ceil, rint=rint,
    positive=_positive, bitwise_and=bitwise_and, bitwise_or=bitwise_or, bitwise_xor=bitwise_xor, invert=invert,
)  # fmt: skip
_FUNCTIONS.update(
    abs=abs, mod=mod, floor_divide=floor_divide, cumsum=cumsum, positive=_positive, bitwise_and=bitwise_and,
    bitwise_or=bitwise_or, bitwise_xor=bitwise_xor, invert=invert,
)  # fmt: skip
_ARRAY_FUNCTIONS.update(cumsum=lambda a, axis=None: cumsum(a, axis))
