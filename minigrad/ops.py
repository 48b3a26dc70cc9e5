"""The table of operations: one record per primitive, and the functions that call them.

A record holds the NumPy forward, the shape rule, the derivative rules, the source
for the compiler and the notation for equations and pictures.  A rule is one
expression in operators and `either(op, …)`, which mean the same on arrays and on
tensors: reverse mode runs it on plain arrays when nobody wants the graph of the
gradient, and on tensors when somebody does.  Broadcasting is undone once, in
reverse.py, so a rule may return the broadcast shape.

A new primitive is one `define(…)` here; op.py describes the record.  The test suite walks the table, and so do the
compiler and the drawn programs.  The `source` of an element-wise one is an expression of one number each, {0} {1} …, in
operators and in the functions that the compiler has (places.FUNCTIONS); an operand may stand in it several times, and
{kind}(…) is a number of the result's type.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from . import axes, tensor
from .errors import DTypeError, InputError, ShapeError, first_outside
from .op import OPS, Op
from .sizes import as_many, fix_at_one, is_one, known, shape_given, some
from .tensor import Tensor, apply, apply_symbolic, as_tensor, constants, describe

BOOL = np.dtype(bool)


def define(name: str, forward, shape, vjp, **facts) -> Op:
    """Put one record into the table."""
    OPS[name] = op = Op(name, forward, shape, vjp, **facts)
    return op


def either(op: Op, *inputs, params: tuple = ()):
    """The operation on tensors if the first input is one, else on plain arrays."""
    if type(inputs[0]) is Tensor:
        return apply(op, inputs, params)
    return op.forward(*inputs, *params)


# Shapes.


def broadcast(*shapes: tuple) -> tuple:
    """The common shape of `shapes` by NumPy's rule; raises ShapeError."""
    ndim = builtins.max(map(len, shapes))
    result = []
    for sizes in zip(*((1,) * (ndim - len(s)) + tuple(s) for s in shapes), strict=True):
        size = sizes[0]
        for other in sizes[1:]:
            if is_one(size):
                size = other
            elif not (is_one(other) or size == other or fix_at_one(other)):
                if not fix_at_one(size):
                    raise ShapeError(
                        f"shapes {' and '.join(map(str, shapes))} do not broadcast: {size} is not {other}"
                    )
                size = other
        result.append(size)
    return tuple(result)


def _same(shape, *_):
    return shape


def axes_of(ndim: int, axis) -> tuple[int, ...]:
    """`axis` (None, a number or several) as sorted non-negative numbers."""
    axes = range(ndim) if axis is None else (axis if isinstance(axis, Sequence) else (axis,))
    found = []
    for a in axes:
        if not -ndim <= a < ndim:
            raise ShapeError(f"axis {a} of a tensor with {ndim} axes")
        found.append(a % ndim)
    if len(set(found)) != len(found):
        raise ShapeError(f"axis {axis} names an axis twice")
    return tuple(sorted(found))


def _matmul_shape(a, b):
    if a[-1] != b[-2]:
        raise ShapeError(f"matmul of {a} and {b}: {a[-1]} columns on the left, {b[-2]} rows on the right")
    return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def _reduced(shape, axes, keepdims):
    if keepdims:
        return tuple(1 if k in axes else n for k, n in enumerate(shape))
    return tuple(n for k, n in enumerate(shape) if k not in axes)


def _reshape_shape(shape, new):
    if not as_many(math.prod(shape), math.prod(new)):
        raise ShapeError(f"reshape of {shape} to {new}: {math.prod(shape)} elements are not {math.prod(new)}")
    return tuple(new)


def _broadcast_to_shape(shape, new):
    if broadcast(shape, new) != tuple(new):
        raise ShapeError(f"broadcast of {shape} to the smaller {new}")
    return tuple(new)


def _concat_shape(*shapes_axis):
    *shapes, axis = shapes_axis
    first = shapes[0]
    for s in shapes[1:]:
        if len(s) != len(first) or any(s[k] != first[k] for k in range(len(s)) if k != axis):
            raise ShapeError(
                f"concat along axis {axis}: {' and '.join(map(str, shapes))} differ along another axis"
            )
    total = first[axis]
    for s in shapes[1:]:
        total = total + s[axis]
    return (*first[:axis], total, *first[axis + 1 :])


def _slice_shape(shape, axis, start, stop, step):
    size = stop - start if step == 1 else (stop - start) // step  # a whole number of steps
    return (*shape[:axis], size, *shape[axis + 1 :])


# How values are computed, where it is more than one NumPy call.


def _sigmoid(x):
    """1 / (1 + e^-x): relative accuracy in both tails, no overflow warning, few calls."""
    if x.dtype.kind == "c":
        return 1 / (1 + np.exp(-x))
    if x.dtype.kind != "f":
        x = x.astype(np.result_type(x.dtype, np.float16))  # what NumPy takes for e^x of integers
    limit, one = _SIGMOID_CONSTANTS[x.dtype.char]
    e = np.exp(np.minimum(x, limit))
    return e / (e + one)


# Arrays, because a Python number costs NumPy more to convert than a small sum takes.
_SIGMOID_CONSTANTS = {
    t: (np.array(limit, t), np.array(1, t)) for t, limit in zip("efdg", (11, 88, 709, 709), strict=True)
}


def _matmul(a, b):
    """np.dot where it means the same: it is quicker, and np.matmul takes 20 µs for a rank-one update."""
    return a.dot(b) if a.ndim == b.ndim == 2 else np.matmul(a, b)


def _slices(axis, start, stop, step):
    """A stop below 0 means that the first element is in: NumPy would count it from the end.

    A start below 0 is before the first: nothing is in.
    """
    own = slice(0, 0) if start < 0 else slice(start, None if stop < 0 else stop, step)
    return (*(slice(None),) * axis, own)


def _slice(x, axis, start, stop, step):
    return x[_slices(axis, start, stop, step)]


def _place(g, axis, start, stop, step, size):
    out = np.zeros((*g.shape[:axis], size, *g.shape[axis + 1 :]), g.dtype)
    out[_slices(axis, start, stop, step)] = g
    return out


def _shift(x, by):
    out = np.zeros_like(x)
    out[builtins.max(by, 0) : builtins.max(len(x) + by, 0)] = x[
        builtins.max(-by, 0) : builtins.max(len(x) - by, 0)
    ]
    return out


def _softplus(x):
    if x.dtype.kind == "c":
        return np.log1p(np.exp(x))
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_LOWEST = {t: np.array(np.finfo(t).min, t) for t in "efdg"}


def _top(x, axes, keepdims):
    """The maximum, or the lowest finite number where it is −∞, so that it can be subtracted."""
    top = x.max(axis=axes, keepdims=keepdims)
    return np.maximum(top, _LOWEST[top.dtype.char]) if top.dtype.kind == "f" else top


def _logsumexp(x, axes, keepdims):
    top = x.max(axis=axes, keepdims=True) if x.size else np.zeros(_reduced(x.shape, axes, True), x.dtype)
    top = np.where(np.isfinite(top), top, 0).astype(x.dtype)
    with np.errstate(divide="ignore", over="ignore"):
        out = np.log(_sum(np.exp(x - top), axes, True)) + top
    return out if keepdims else out.reshape(_reduced(x.shape, axes, False))


def _scatter_shape(g, index, rows):
    if tuple(g[: len(index)]) != tuple(index):
        raise ShapeError(f"scatter of {g} by an index {index}: the leading axes must be those of the index")
    return (rows, *g[len(index) :])


def _scatter(g, index, rows):
    _scatter_shape(g.shape, index.shape, rows)
    _inside(index, rows)
    wide = np.float64 if index.size > FEW and g.dtype.kind == "f" else g.dtype  # many may come to one row
    out = np.zeros((rows, *g.shape[index.ndim :]), wide)
    np.add.at(out, index, g.astype(wide, copy=False))
    return out.astype(g.dtype, copy=False)


def _gather(x, index):
    _inside(index, len(x))
    return x[index]


def _inside(index, rows, of="the rows", who=""):
    """The index itself, if all of it are places among so many rows."""
    if index.dtype.kind not in "iu":
        raise TypeError(f"an index must hold integers, not {index.dtype}")
    if index.size and (index.min() < 0 or index.max() >= rows):
        raise IndexError(first_outside(index, 0, rows, of, who))
    return index


def _kept(g, x, axes, keepdims):
    """Give a reduced cotangent its lost axes back, as axes of size 1."""
    return g if keepdims else g.reshape(_reduced(x.shape, axes, True))


def _spread(g, x, axes, keepdims):
    g = _kept(g, x, axes, keepdims)
    if type(g) is Tensor:
        return apply(BROADCAST_TO, (g,), (x.shape,))
    out = np.empty((*g.shape[: g.ndim - x.ndim], *x.shape), g.dtype)  # axes before those of x are items
    out[...] = g
    return out


def _share_of_max(g, y, x, axes, keepdims):
    """The gradient of a maximum or minimum goes to where it is taken, in equal shares among ties."""
    taken = either(CAST, x == _kept(y, x, axes, keepdims), params=(x.dtype,))
    return _kept(g, x, axes, keepdims) * (taken / either(SUM, taken, params=(axes, True)))


def shares(x, axes):
    """e^x / Σ e^x from the numbers themselves: exp(x − log Σ e^x) loses the digits that a large logarithm takes."""
    if 0 in x.shape:
        return x
    e = either(EXP, x - either(TOP, x, params=(axes, True)))
    # The sum is at least 1, or 0 where all are −∞: then all shares are 0, and not 0 / 0.
    return e / (either(SUM, e, params=(axes, True)) + 1e-30)


def _share_of_larger(g, a, b):
    """Likewise for the larger of two: one half each where they are equal."""
    return g * (either(CAST, a > b, params=(g.dtype,)) + 0.5 * either(CAST, a == b, params=(g.dtype,)))


FEW = 4096  # so many float32 numbers are added up without a thought


def _sum(x, axes, keepdims):
    """NumPy adds in pairs along contiguous last axes only: many numbers along others are added up in float64."""
    if (x.size > FEW or x.itemsize == 2) and x.dtype.kind == "f" and x.itemsize < 8:
        last = x.flags.c_contiguous and axes == tuple(range(x.ndim - len(axes), x.ndim))
        if x.itemsize == 2 or (not last and math.prod(x.shape[a] for a in axes) > 256):
            return np.add.reduce(x, axis=axes, dtype=np.float64, keepdims=keepdims).astype(x.dtype)
    return np.add.reduce(x, axis=axes, keepdims=keepdims)  # without the detour of x.sum


def _repeated(x, shape):
    """A copy: np.broadcast_to takes longer than filling what is small."""
    if np.broadcast_shapes(x.shape, shape) != tuple(shape):
        raise ValueError
    out = np.empty(shape, x.dtype)
    out[...] = x
    return out


def _permute(x, axes):
    return x.transpose(axes)


def _inverse(axes) -> tuple[int, ...]:
    return tuple(axes.index(k) for k in range(len(axes)))


def _part(k):
    """The rule of input k of a concat: its own slice of the cotangent."""

    def rule(g, y, *inputs_axis):
        *inputs, axis = inputs_axis
        start = 0
        for x in inputs[:k]:
            start = start + x.shape[axis]
        return either(SLICE, g, params=(axis, start, start + inputs[k].shape[axis], 1))

    return rule


# Element by element.

ADD = define("add", np.add, broadcast, (lambda g, y, a, b: g, lambda g, y, a, b: g),
    kind="elementwise", source="{0} + {1}", tex="{0} + {1}", text="{0} + {1}", symbol="+", binding=1)  # fmt: skip
SUB = define("sub", np.subtract, broadcast, (lambda g, y, a, b: g, lambda g, y, a, b: -g),
    kind="elementwise", source="{0} - {1}", tex="{0} - {1}", text="{0} − {1}", symbol="−", binding=1)  # fmt: skip
MUL = define("mul", np.multiply, broadcast, (lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
    kind="elementwise", source="{0} * {1}",
    tex=r"{0} \odot {1}", text="{0} ⊙ {1}", symbol="⊙", binding=2)  # fmt: skip
DIV = define("div", np.true_divide, broadcast, (lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b),
    kind="elementwise", source="{0} / {1}", tex=r"{0} / {1}", text="{0} / {1}", symbol="÷", binding=2)  # fmt: skip
NEG = define("neg", np.negative, _same, (lambda g, y, x: -g,),
    kind="elementwise", source="-{0}", tex="-{0}", text="−{0}", symbol="−", binding=3)  # fmt: skip
POWER = define("power", lambda x, p: x**p, _same, (lambda g, y, x, p: g * (p * x ** (p - 1)) if p else 0 * g,),
    params=("exponent",), kind="elementwise", source="{0} ** {exponent}", tex="{0}^{{{exponent}}}",
    text="{0}^{exponent}", symbol="xⁿ", binding=4)  # fmt: skip
EXP = define("exp", np.exp, _same, (lambda g, y, x: g * y,),
    kind="elementwise", source="exp({0})", tex=r"\exp({0})", text="exp({0})", symbol="exp")  # fmt: skip
LOG = define("log", np.log, _same, (lambda g, y, x: g / x,),
    kind="elementwise", source="log({0})", tex=r"\log({0})", text="log({0})", symbol="log")  # fmt: skip
LOG1P = define("log1p", np.log1p, _same, (lambda g, y, x: g / (1 + x),),
    kind="elementwise", source="log1p({0})", tex=r"\log(1 + {0})", text="log(1 + {0})", symbol="log1p")  # fmt: skip
SQRT = define("sqrt", np.sqrt, _same, (lambda g, y, x: g / (2 * y),),
    kind="elementwise", source="sqrt({0})", tex=r"\sqrt{{{0}}}", text="√({0})", symbol="√")  # fmt: skip
SIN = define("sin", np.sin, _same, (lambda g, y, x: g * either(COS, x),),
    kind="elementwise", source="sin({0})", tex=r"\sin({0})", text="sin({0})", symbol="sin")  # fmt: skip
COS = define("cos", np.cos, _same, (lambda g, y, x: -g * either(SIN, x),),
    kind="elementwise", source="cos({0})", tex=r"\cos({0})", text="cos({0})", symbol="cos")  # fmt: skip
TANH = define("tanh", np.tanh, _same, (lambda g, y, x: g * (1 - y * y),),
    kind="elementwise", source="tanh({0})", tex=r"\tanh({0})", text="tanh({0})", symbol="tanh")  # fmt: skip
SIGMOID = define("sigmoid", _sigmoid, _same, (lambda g, y, x: g * (y * (1 - y)),),
    kind="elementwise", source="sigmoid({0})", tex=r"\sigma({0})", text="σ({0})", symbol="σ")  # fmt: skip
SOFTPLUS = define("softplus", _softplus, _same, (lambda g, y, x: g * either(SIGMOID, x),),
    kind="elementwise", source="softplus({0})",
    tex=r"\mathrm{{softplus}}({0})", text="softplus({0})", symbol="softplus")  # fmt: skip
SIGN = define("sign", np.sign, _same, None,
    kind="elementwise", smooth=False, source="sign({0})",
    tex=r"\mathrm{{sign}}({0})", text="sign({0})", symbol="sign")  # fmt: skip
ABS = define("abs", np.abs, _same, (lambda g, y, x: g * either(SIGN, x),),
    kind="elementwise", smooth=False, source="abs({0})", tex="|{0}|", text="|{0}|", symbol="|x|")  # fmt: skip
MAXIMUM = define("maximum", np.maximum, broadcast,
    (lambda g, y, a, b: _share_of_larger(g, a, b), lambda g, y, a, b: _share_of_larger(g, b, a)),
    kind="elementwise", smooth=False, source="maximum({0}, {1})",
    tex=r"\max({0}, {1})", text="max({0}, {1})", symbol="max")  # fmt: skip
MINIMUM = define("minimum", np.minimum, broadcast,
    (lambda g, y, a, b: _share_of_larger(g, b, a), lambda g, y, a, b: _share_of_larger(g, a, b)),
    kind="elementwise", smooth=False, source="minimum({0}, {1})",
    tex=r"\min({0}, {1})", text="min({0}, {1})", symbol="min")  # fmt: skip
WHERE = define("where", np.where, broadcast,
    (None, lambda g, y, c, a, b: either(WHERE, c, g, 0), lambda g, y, c, a, b: either(WHERE, c, 0, g)),
    dtype=lambda c, a, b: np.result_type(a, b),
    kind="elementwise", smooth=False, source="({1} if {0} else {2})", tex=r"\mathrm{{where}}({0}, {1}, {2})",
    text="where({0}, {1}, {2})", symbol="where")  # fmt: skip
GREATER = define("greater", np.greater, broadcast, None, dtype=lambda *_: BOOL,
    kind="elementwise", smooth=False, source="{0} > {1}",
    tex="{0} > {1}", text="{0} > {1}", symbol=">", binding=0)  # fmt: skip
GREATER_EQUAL = define("greater_equal", np.greater_equal, broadcast, None, dtype=lambda *_: BOOL,
    kind="elementwise", smooth=False, source="{0} >= {1}",
    tex=r"{0} \ge {1}", text="{0} ≥ {1}", symbol="≥", binding=0)  # fmt: skip
EQUAL = define("equal", np.equal, broadcast, None, dtype=lambda *_: BOOL,
    kind="elementwise", smooth=False, source="{0} == {1}",
    tex="{0} = {1}", text="{0} = {1}", symbol="=", binding=0)  # fmt: skip
CAST = define("cast", lambda x, dtype: x.astype(dtype), _same,
    (lambda g, y, x, dtype: either(CAST, g, params=(x.dtype,)),), dtype=lambda _, dtype: dtype, params=("dtype",),
    kind="elementwise", smooth=False, source="{dtype}({0})", tex="{dtype}({0})", text="{dtype}({0})", symbol="cast")  # fmt: skip

# Products and reductions.

MATMUL = define("matmul", _matmul, _matmul_shape,
    (lambda g, y, a, b: either(MATMUL, g, b.swapaxes(-1, -2)), lambda g, y, a, b: either(MATMUL, a.swapaxes(-1, -2), g)),
    kind="product", source="matmul", tex=r"{0} \cdot {1}", text="{0} · {1}", symbol="·", binding=2)  # fmt: skip
SUM = define("sum", _sum, _reduced,
    (lambda g, y, x, axes, keepdims: _spread(g, x, axes, keepdims),), params=("axes", "keepdims"),
    kind="reduction", source="sum", tex=r"\sum {0}", text="Σ {0}", symbol="Σ", binding=3)  # fmt: skip
MAX = define("max", lambda x, axes, keepdims: x.max(axis=axes, keepdims=keepdims), _reduced,
    (lambda g, y, x, axes, keepdims: _share_of_max(g, y, x, axes, keepdims),), params=("axes", "keepdims"),
    kind="reduction", smooth=False, source="max", tex=r"\max({0})", text="max({0})", symbol="max")  # fmt: skip
TOP = define("top", _top, _reduced, None, params=("axes", "keepdims"), kind="reduction", smooth=False,
    source="top", tex=r"\mathrm{{stop}}(\max({0}))", text="stop(max({0}))", symbol="max")  # fmt: skip
MIN = define("min", lambda x, axes, keepdims: x.min(axis=axes, keepdims=keepdims), _reduced,
    (lambda g, y, x, axes, keepdims: _share_of_max(g, y, x, axes, keepdims),), params=("axes", "keepdims"),
    kind="reduction", smooth=False, source="min", tex=r"\min({0})", text="min({0})", symbol="min")  # fmt: skip
LOGSUMEXP = define("logsumexp", _logsumexp, _reduced,
    (lambda g, y, x, axes, keepdims: _kept(g, x, axes, keepdims) * shares(x, axes),),
    params=("axes", "keepdims"), kind="reduction", smooth=False, source="logsumexp",
    tex=r"\mathrm{{logsumexp}}({0})", text="logsumexp({0})", symbol="log Σ exp")  # fmt: skip

# Structure: elements move and are not changed.

RESHAPE = define("reshape", lambda x, shape: x.reshape(shape), _reshape_shape,
    (lambda g, y, x, shape: g.reshape(x.shape),), params=("shape",), axes=axes.reshaped,
    tex="{0}", text="{0}", symbol="reshape")  # fmt: skip
TRANSPOSE = define("transpose", _permute, lambda s, axes: tuple(s[a] for a in axes),
    (lambda g, y, x, axes: g.transpose(_inverse(axes)),), params=("axes",), axes=axes.permuted,
    tex=r"{0}^{{\top}}", text="{0}ᵀ", symbol="ᵀ", binding=4)  # fmt: skip
BROADCAST_TO = define("broadcast_to", _repeated, _broadcast_to_shape,
    (lambda g, y, x, shape: g,), params=("shape",), axes=axes.aligned, tex="{0}", text="{0}", symbol="broadcast")  # fmt: skip
CONCAT = define("concat", lambda *xs: np.concatenate(xs[:-1], axis=xs[-1]), _concat_shape, _part,
    dtype=lambda *dtypes_axis: np.result_type(*dtypes_axis[:-1]),
    variadic=True, params=("axis",), axes=axes.side_by_side, tex="[{*}]", text="[{*}]", symbol="[ , ]")  # fmt: skip
SLICE = define("slice", _slice, _slice_shape,
    (lambda g, y, x, axis, start, stop, step: either(PLACE, g, params=(axis, start, stop, step, x.shape[axis])),),
    params=("axis", "start", "stop", "step"), axes=axes.cut_out,
    tex="{0}[{start}:{stop}]", text="{0}[{start}:{stop}]", symbol="slice")  # fmt: skip
PLACE = define("place", _place, lambda s, axis, start, stop, step, size: (*s[:axis], size, *s[axis + 1 :]),
    (lambda g, y, x, axis, start, stop, step, size: either(SLICE, g, params=(axis, start, stop, step)),),
    params=("axis", "start", "stop", "step", "size"), axes=axes.put_in,
    tex=r"\text{{place}}({0})", text="place({0})", symbol="place")  # fmt: skip
GATHER = define("gather", _gather, lambda x, index: (*index, *x[1:]),
    (lambda g, y, x, index: either(SCATTER, g, index, params=(x.shape[0],)), None),
    axes=axes.looked_up, smooth=False, tex="{0}[{1}]", text="{0}[{1}]", symbol="gather")  # fmt: skip
SCATTER = define("scatter", _scatter, _scatter_shape,
    (lambda g, y, x, index, rows: either(GATHER, g, index), None), params=("rows",),
    axes=axes.within_rows, smooth=False,
    tex=r"\mathrm{{scatter}}({0}, {1})", text="scatter({0}, {1})", symbol="scatter")  # fmt: skip
SHIFT = define("shift", _shift, _same, (lambda g, y, x, by: either(SHIFT, g, params=(-by,)),), params=("by",),
    axes=axes.later, tex=r"\mathrm{{shift}}({0}, {by})", text="shift({0}, {by})", symbol="⇥")  # fmt: skip
INSIDE = define("inside", _inside, _same, None, params=("rows", "of", "who"),
    axes=axes.aligned, smooth=False, tex="{0}", text="{0}", symbol="∈")  # fmt: skip
DETACH = define("detach", lambda x: x, _same, None, axes=axes.aligned, smooth=False,
    tex=r"\mathrm{{stop}}({0})", text="stop({0})", symbol="✂")  # fmt: skip


# The functions that call them.


def _unary(op: Op, doc: str):
    def function(x) -> Tensor:
        return apply(op, (x if type(x) is Tensor else as_tensor(x),))

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = doc
    return function


exp = _unary(EXP, "e^x, element by element.")
log = _unary(LOG, "The natural logarithm, element by element.")
log1p = _unary(LOG1P, "log(1 + x), element by element, which keeps the digits of a small x.")
sqrt = _unary(SQRT, "The square root, element by element.")
sin = _unary(SIN, "The sine, element by element.")
cos = _unary(COS, "The cosine, element by element.")
tanh = _unary(TANH, "The hyperbolic tangent, element by element.")
sigmoid = _unary(
    SIGMOID, "1 / (1 + e^−x), element by element; keeps relative accuracy down to e^−700 (e^-87 in float32)."
)


def maximum(a, b) -> Tensor:
    """The larger of two, element by element; where they are equal each gets half the gradient."""
    return apply(MAXIMUM, (a, b))


def minimum(a, b) -> Tensor:
    """The smaller of two, element by element; where they are equal each gets half the gradient."""
    return apply(MINIMUM, (a, b))


def where(condition, a, b) -> Tensor:
    """`a` where `condition` holds, else `b`, all broadcast; the side not taken gets a gradient of zero.

    Raises DTypeError for a condition that is not boolean.
    """
    condition = as_tensor(condition)
    if condition.dtype != BOOL:
        raise DTypeError(f"where: the condition {describe(condition)} is not boolean; compare, e.g. x > 0")
    return apply(WHERE, (condition, *constants(WHERE, (a, b))))


def power(x, exponent) -> Tensor:
    """x to the power of a number, or of a tensor, element by element.

    The gradient with respect to a varying exponent is y log x; it is 0 where x is 0 and the exponent is not below 0, and
    NaN where x is negative.  At 0^0 that with respect to x is 0.  Raises DTypeError for integers to negative powers.
    """
    if isinstance(exponent, Tensor) or not np.isscalar(exponent):
        return apply(OPS["pow"], (x, exponent))
    return apply(POWER, (as_tensor(x),), (exponent.item() if isinstance(exponent, np.generic) else exponent,))


def matmul(a, b) -> Tensor:
    """The matrix product of (…, m, k) and (…, k, n), batched as in NumPy; vectors as in NumPy.

    Raises ShapeError for plain numbers and for shapes that do not fit.
    """
    if type(a) is not Tensor or type(b) is not Tensor:
        a, b = (as_tensor(x, b if x is a else a) for x in (a, b))
    na, nb = len(a.shape), len(b.shape)
    if na >= 2 and nb >= 2:
        return apply(MATMUL, (a, b))
    if not na or not nb:
        raise ShapeError(f"matmul of {describe(a)} and {describe(b)}: a number is not a matrix; use *")
    left = a if na > 1 else a.reshape(1, a.shape[0])
    right = b if nb > 1 else b.reshape(b.shape[0], 1)
    y = apply(MATMUL, (left, right))
    shape = y.shape
    return y.reshape((*shape[:-2], *(shape[-2:-1] if na > 1 else ()), *(shape[-1:] if nb > 1 else ())))


def sum(x, axis=None, keepdims=False) -> Tensor:
    """The sum over `axis`, a number or several (None: all); raises ShapeError for an axis that `x` does not have."""
    x = as_tensor(x)
    return apply(SUM, (x,), (axes_of(x.ndim, axis), keepdims))


def max(x, axis=None, keepdims=False) -> Tensor:
    """The maximum over `axis` (None: all); equal maxima share the gradient equally."""
    x = as_tensor(x)
    return apply(MAX, (x,), (_axes_with_some(x, axis, "max"), keepdims))


def min(x, axis=None, keepdims=False) -> Tensor:
    """The minimum over `axis` (None: all); equal minima share the gradient equally."""
    x = as_tensor(x)
    return apply(MIN, (x,), (_axes_with_some(x, axis, "min"), keepdims))


def _axes_with_some(x: Tensor, axis, what: str) -> tuple[int, ...]:
    axes = axes_of(x.ndim, axis)
    if x.is_symbol:  # values are looked at by NumPy
        for a in axes:
            some(x, a, what)
    return axes


def zeros(shape, dtype: DTypeLike = "float32") -> Tensor:
    """All 0; sizes may be unknown, so that a state of zeros can be made while tracing."""
    if known(shape := shape_given("zeros", shape, dtype)):
        return Tensor(np.zeros(shape, dtype))
    return apply_symbolic(BROADCAST_TO, (Tensor(np.zeros((), dtype)),), (shape,))


def shift(x, by: int) -> Tensor:
    """y_t = x_{t − by} along the first axis: later by so many steps, with zeros where nothing comes from."""
    return apply(SHIFT, (as_tensor(x),), (int(by),))


def broadcast_to(x, shape) -> Tensor:
    """`x` repeated along axes of size 1 and new leading axes."""
    return apply(BROADCAST_TO, (as_tensor(x),), (tuple(shape),))


def concat(*tensors, axis: int = -1) -> Tensor:
    """Side by side along `axis`, also as one list: ``concat(h_prev, x)``.

    Raises InputError for no tensors, ShapeError for an axis or sizes that do not fit.
    """
    xs = tuple(tensors[0]) if len(tensors) == 1 and type(tensors[0]) in (list, tuple) else tensors
    if not xs:
        raise InputError("concat of nothing: give at least one tensor")
    ndim = len(xs[0].shape) if type(xs[0]) is Tensor else np.ndim(xs[0])
    if not -ndim <= axis < ndim:
        raise ShapeError(f"concat along axis {axis} of {describe(as_tensor(xs[0]))}")
    return apply(CONCAT, xs, (axis % ndim,))


def gather(table, index) -> Tensor:
    """Rows of `table` by an integer array of any shape: the embedding look-up."""
    return apply(GATHER, (as_tensor(table), as_tensor(index)))


def scatter(g, index, rows: int) -> Tensor:
    """Rows of `g` added up into `rows` rows by `index`: the adjoint of `gather`."""
    return apply(SCATTER, (as_tensor(g), as_tensor(index)), (rows,))


for _f in (matmul, power, sum, max, min):
    tensor._FUNCTIONS[_f.__name__] = _f
