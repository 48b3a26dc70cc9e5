"""What users of NumPy expect of arrays, as compositions of primitives: clip, var, prod, argmax, einsum, pad, split, …

Nothing here has a derivative rule of its own.  Names, arguments and results are NumPy's; where a function has a kink,
its docstring says which gradient is taken there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .elements import abs, full, ones, rint
from .errors import DTypeError, InputError, ShapeError
from .functional import _floating, _single, mean, norm
from .indexing import getitem, reshape, transpose
from .op import OPS
from .ops import PLACE, axes_of, broadcast_to, concat, matmul, max, min, power, sum, where, zeros
from .scanning import scan
from .sizes import arange, as_many, fix_at_one, held, is_one, some
from .tensor import _ARRAY_FUNCTIONS, _FUNCTIONS, _UFUNCS, Tensor, apply, as_tensor, describe

# Element by element.


def clip(x, a_min=None, a_max=None) -> Tensor:
    """`x`, but `a_min` where it is below and `a_max` where it is above; either may be None.

    The gradient goes to what is taken: at a bound to x, beyond it to the bound.  NaN stays NaN.  Raises InputError for
    a bound that is NaN and where there is no bound at all.
    """
    if a_min is None and a_max is None:
        raise InputError("clip without a bound: give a_min, a_max or both")
    for bound in (a_min, a_max):
        if isinstance(bound, float) and bound != bound:
            raise InputError("clip: a bound is NaN")
    x = as_tensor(x, next((b for b in (a_min, a_max) if isinstance(b, Tensor)), None))
    if a_min is not None:
        x = where(x < a_min, a_min, x)
    return x if a_max is None else where(x > a_max, a_max, x)


def round(x, decimals: int = 0) -> Tensor:
    """To so many decimals, of two that are as near to the even one, as in NumPy; nothing flows back through it."""
    x = as_tensor(x)
    if decimals == 0 or (x.dtype.kind in "iu" and decimals > 0):
        return x if x.dtype.kind in "iu" else rint(x)
    scale = 10.0 ** np.abs(decimals)
    y = rint(x * scale) / scale if decimals > 0 else rint(x / scale) * scale
    return y.astype(x.dtype)


def isnan(x) -> Tensor:
    """Booleans: is it no number?"""
    x = as_tensor(x)
    return x != x


def isfinite(x) -> Tensor:
    """Booleans: is it neither NaN nor infinite?"""
    return abs(_numbers(x)) < math.inf


def isinf(x) -> Tensor:
    """Booleans: is it infinite?"""
    return abs(_numbers(x)) == math.inf


def _numbers(x) -> Tensor:
    """Whole numbers as floats, so that they may be compared with infinity."""
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else x.astype("float64")


# Reductions.


def var(x, axis=None, ddof: float = 0, keepdims: bool = False) -> Tensor:
    """The variance over `axis` (None: all): the sum of (x − mean)² over n − `ddof`; ShapeError unless n > `ddof`."""
    x = _floating(x)
    if x.dtype == np.float16:
        return _single(lambda y: var(y, axis, ddof, keepdims), x)
    centred = x - mean(x, axis, keepdims=True)
    return sum(centred * centred, axis, keepdims) / _freedoms(x, axis, ddof, "var")


def std(x, axis=None, ddof: float = 0, keepdims: bool = False) -> Tensor:
    """√var over `axis` (None: all); where all numbers are equal its gradient is 0.  ShapeError unless n > `ddof`."""
    x = _floating(x)
    if x.dtype == np.float16:
        return _single(lambda y: std(y, axis, ddof, keepdims), x)
    centred = x - mean(x, axis, keepdims=True)
    return norm(centred, axis, keepdims) / _freedoms(x, axis, ddof, "std") ** 0.5


def _freedoms(x: Tensor, axis, ddof: float, what: str) -> Any:
    count: Any = 1
    for a in axes_of(x.ndim, axis):
        count = count * some(x, a, what)
    if not (count > ddof if isinstance(count, int) else held(count, math.floor(ddof) + 1)):
        raise ShapeError(
            f"{what} of {describe(x)}: {count} numbers less ddof = {ddof} leave nothing to divide by"
        )
    return count - ddof


def prod(x, axis=None, keepdims: bool = False) -> Tensor:
    """The product over `axis` (None: all), whose gradient is right where factors are 0 too."""
    x = _wide(as_tensor(x))
    axes = axes_of(x.ndim, axis)
    shape = tuple(1 if k in axes else n for k, n in enumerate(x.shape))
    rest = tuple(n for k, n in enumerate(x.shape) if k not in axes)
    order = (*axes, *(k for k in range(x.ndim) if k not in axes))
    y = (
        reshape(transpose(x, order), (math.prod(x.shape[a] for a in axes), *rest))
        if axes
        else x.reshape((1, *rest))
    )
    y = _product_of_rows(y)
    return y.reshape(shape) if keepdims else y


def _product_of_rows(y: Tensor) -> Tensor:
    """Half of the rows times the other half, again and again; one after the other where their number is not known."""
    n, rest = y.shape[0], tuple(y.shape[1:])
    if not isinstance(n, int):
        return scan(lambda total, row: (total * row, None), ones(rest, y.dtype), y)[0]
    if n == 0:
        return ones(rest, y.dtype)
    while n > 1:
        half = n // 2
        pairs = y[:half] * y[half : 2 * half]
        y = concat(pairs, y[2 * half :], axis=0) if n % 2 else pairs
        n -= half
    return y.reshape(rest)


def cumprod(x, axis=None) -> Tensor:
    """The products of the elements up to each one along `axis` (None: of all, in one row), by `scan`.

    A scan multiplies in NumPy's order and its gradient divides by nothing, so that it is right at zeros for any length;
    a rule from the products themselves would divide by the elements.
    """
    x = _wide(as_tensor(x))
    if axis is None:
        x, axis = x.reshape(-1), 0
    (axis,) = axes_of(x.ndim, axis)
    if isinstance(x.shape[axis], int) and not x.shape[axis]:
        return x
    order = (axis, *(k for k in range(x.ndim) if k != axis))
    y = transpose(x, order)

    def step(total, row):
        total = total * row
        return total, total

    _, y = scan(step, ones(tuple(y.shape[1:]), y.dtype), y, labels=False)
    return transpose(y, tuple(order.index(k) for k in range(x.ndim)))


def _wide(x: Tensor) -> Tensor:
    """Booleans and small integers as what NumPy multiplies them in."""
    return x.astype(np.multiply.reduce(np.ones(1, x.dtype)).dtype) if x.dtype.kind in "iub" else x


def argmax(x, axis=None, keepdims: bool = False) -> Tensor:
    """Where the maximum is along `axis` (None: in the row of all): the first of several, or the first NaN; int64."""
    return _place_of(max, x, axis, keepdims)


def argmin(x, axis=None, keepdims: bool = False) -> Tensor:
    """Where the minimum is along `axis` (None: in the row of all): the first of several, or the first NaN; int64."""
    return _place_of(min, x, axis, keepdims)


def _place_of(extreme, x, axis, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    if axis is None:
        y = _place_of(extreme, x.reshape(-1), 0, False)
        return y.reshape((1,) * x.ndim) if keepdims else y
    x = x.astype("int64") if x.dtype.kind == "b" else x
    (axis,) = axes_of(x.ndim, axis)
    found = x == extreme(x, axis, True)
    found = found | (x != x) if x.dtype.kind == "f" else found
    n = x.shape[axis]
    places = as_tensor(arange(n)).astype("int64").reshape((n, *(1,) * (x.ndim - axis - 1)))
    return min(where(found, places, n), axis, keepdims)


# Products.


def outer(a, b) -> Tensor:
    """All products of an element of `a` with one of `b`: (m, n), of both as rows of numbers."""
    return as_tensor(a).reshape(-1, 1) * as_tensor(b).reshape(1, -1)


def einsum(subscripts: str, *operands) -> Tensor:
    """Products of axes by Einstein's rule, as np.einsum: sums, transposes and matrix products, from left to right.

    A letter that occurs twice in one operand is its diagonal; … stands for any further axes, which broadcast.  Raises
    InputError for subscripts that cannot be read and ShapeError where sizes of one letter differ.
    """
    if not isinstance(subscripts, str):
        raise InputError(f"einsum: give subscripts such as 'ij,jk->ik' first, not {subscripts!r}")
    tensors = [as_tensor(x) for x in operands]
    terms, out = _read(subscripts, tensors)
    pairs = [_diagonal(x, labels, subscripts) for x, labels in zip(tensors, terms, strict=True)]
    sizes = _sizes_of(pairs, subscripts)
    pairs = [_without_ones(x, labels, sizes) for x, labels in pairs]
    missing = [label for label in out if label not in sizes]
    if missing:
        raise InputError(f"einsum {subscripts!r}: the result has {missing[0]!r}, which no operand has")
    x, labels = pairs[0]
    for k in range(1, len(pairs)):
        kept = {*out, *(label for _, more in pairs[k + 1 :] for label in more)}
        x, labels = _contracted(
            _summed(x, labels, kept | {*pairs[k][1]}), _summed(*pairs[k], kept | {*labels}), kept
        )
    x, labels = _summed(x, labels, {*out})
    x = x.reshape((*x.shape, *(1 for label in out if label not in labels)))  # of size 1 in every operand
    labels = [*labels, *(label for label in out if label not in labels)]
    return transpose(x, tuple(labels.index(label) for label in out))


def _read(subscripts: str, tensors: Sequence[Tensor]) -> tuple[list[list[str]], list[str]]:
    """The labels of each operand's axes and of the result's; those of … are numbers, counted from the last."""
    said = subscripts.replace(" ", "")
    given, arrow, result = said.partition("->")
    terms = given.split(",")
    if len(terms) != len(tensors):
        raise InputError(f"einsum {subscripts!r}: {len(terms)} operands are named, {len(tensors)} given")
    for term in (*terms, result):
        letters = term.replace("...", "", 1)
        if not all(c.isascii() and c.isalpha() for c in letters):
            raise InputError(f"einsum {subscripts!r}: cannot read {term!r}; give letters and at most one ...")
    if len(set(result)) != len(result.replace("...", ".")):
        raise InputError(f"einsum {subscripts!r}: a letter occurs twice in the result")
    found, most = [], 0
    for term, x in zip(terms, tensors, strict=True):
        more = x.ndim - len(term.replace("...", ""))
        if more < 0 or (more and "..." not in term):
            raise ShapeError(f"einsum {subscripts!r}: {term!r} of {describe(x)}, which has {x.ndim} axes")
        most = np.maximum(most, more) if "..." in term else most
        found.append(_labels(term, more))
    if arrow:
        if most and "..." not in result:
            raise InputError(
                f"einsum {subscripts!r}: the axes of ... are missing from the result; add ... to it"
            )
        return found, _labels(result, int(most))
    once = sorted({c for c in given if c.isalpha() and given.count(c) == 1})
    return found, [*_labels("...", int(most)), *once]


def _labels(term: str, more: int) -> list[str]:
    before, dots, after = term.partition("...")
    return [*before, *(str(k) for k in reversed(range(more)) if dots), *after]


def _diagonal(x: Tensor, labels: list[str], subscripts: str) -> tuple[Tensor, list[str]]:
    """Axes of one label as one."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            n, rest = x.shape[i], [k for k in range(x.ndim) if k not in (i, j)]
            if x.shape[j] != n:
                raise ShapeError(f"einsum {subscripts!r}: {label!r} is {n} and {x.shape[j]} in {describe(x)}")
            x = transpose(x, (i, j, *rest))
            x = where(_eye(n).reshape((n, n, *(1,) * len(rest))), x, 0).sum(axis=1)
            labels = [label, *(labels[k] for k in rest)]
    return x, labels


def _eye(n) -> Tensor:
    places = as_tensor(arange(n))
    return places.reshape((n, 1)) == places


def _sizes_of(pairs, subscripts: str) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for x, labels in pairs:
        for n, label in zip(x.shape, labels, strict=True):
            known = sizes.setdefault(label, n)
            if is_one(known):
                sizes[label] = n
            elif not is_one(n) and n != known:
                raise ShapeError(f"einsum {subscripts!r}: {label!r} is {known} and, in {describe(x)}, {n}")
    return sizes


def _without_ones(x: Tensor, labels: list[str], sizes) -> tuple[Tensor, list[str]]:
    """Without axes of size 1: they are repeated, and so like axes that are not there."""
    kept = [k for k, n in enumerate(x.shape) if not is_one(n)]
    return reshape(x, tuple(x.shape[k] for k in kept)), [labels[k] for k in kept]


def _summed(x: Tensor, labels: list[str], kept: set[str]) -> tuple[Tensor, list[str]]:
    gone = tuple(k for k, label in enumerate(labels) if label not in kept)
    return (sum(x, gone), [label for label in labels if label in kept]) if gone else (x, labels)


def _contracted(left, right, kept: set[str]) -> tuple[Tensor, list[str]]:
    """Two operands as one, summed over what both have and nobody else reads."""
    (a, la), (b, lb) = left, right
    both = [label for label in la if label in lb]
    batch, inner = [x for x in both if x in kept], [x for x in both if x not in kept]
    rows, columns = [x for x in la if x not in both], [x for x in lb if x not in both]
    size = {**dict(zip(lb, b.shape, strict=True)), **dict(zip(la, a.shape, strict=True))}
    a = transpose(a, tuple(la.index(x) for x in (*batch, *rows, *inner)))
    b = transpose(b, tuple(lb.index(x) for x in (*batch, *inner, *columns)))
    lead = tuple(size[x] for x in batch)
    m, k, n = (math.prod(size[x] for x in labels) for labels in (rows, inner, columns))
    if inner:
        y = matmul(a.reshape((*lead, m, k)), b.reshape((*lead, k, n)))
    else:
        y = a.reshape((*lead, m, 1)) * b.reshape((*lead, 1, n))
    labels = [*batch, *rows, *columns]
    return y.reshape(tuple(size[x] for x in labels)), labels


# Structure.


def squeeze(x, axis=None) -> Tensor:
    """Without axes of size 1: all (None) or those of `axis`; raises ShapeError for one of another size."""
    x = as_tensor(x)
    if axis is None:
        gone = tuple(k for k, n in enumerate(x.shape) if is_one(n) or fix_at_one(n))
        for n in x.shape:
            held(n, 2)  # what is longer while tracing stays so at every call
    else:
        gone = axes_of(x.ndim, axis)
        for a in gone:
            if x.shape[a] != 1:
                raise ShapeError(f"squeeze of {describe(x)}: axis {a} has {x.shape[a]}, not 1")
    return reshape(x, tuple(n for k, n in enumerate(x.shape) if k not in gone)) if gone else x


def expand_dims(x, axis) -> Tensor:
    """With new axes of size 1, which stand at `axis`, a number or several, in the result."""
    x = as_tensor(x)
    axes = axes_of(x.ndim + (len(axis) if isinstance(axis, Sequence) else 1), axis)
    own = iter(x.shape)
    return reshape(x, tuple(1 if k in axes else next(own) for k in range(x.ndim + len(axes))))


def split(x, indices_or_sections, axis: int = 0) -> list[Tensor]:
    """So many equal parts along `axis`, or the parts between the given indices; ShapeError where it does not divide."""
    x = as_tensor(x)
    (axis,) = axes_of(x.ndim, axis)
    n = x.shape[axis]
    before = (slice(None),) * axis
    if not isinstance(indices_or_sections, (int, np.integer)):
        ends = [0, *indices_or_sections, None]
        return [x[(*before, slice(a, b))] for a, b in itertools.pairwise(ends)]
    sections = int(indices_or_sections)
    if sections < 1 or not as_many(n // sections * sections, n):
        raise ShapeError(
            f"split of {describe(x)}: axis {axis} has size {n}, which does not divide into {sections} equal parts"
        )
    size = n // sections
    return [x[(*before, slice(k * size, (k + 1) * size))] for k in range(sections)]


def flip(x, axis=None) -> Tensor:
    """Backwards along `axis` (None: along all)."""
    x = as_tensor(x)
    axes = axes_of(x.ndim, axis)
    return getitem(x, tuple(slice(None, None, -1) if k in axes else slice(None) for k in range(x.ndim)))


def pad(x, pad_width, mode: str = "constant", constant_values=0) -> Tensor:
    """With further elements before and after each axis, as np.pad: a number, (before, after), or a pair for each axis.

    mode : "constant", or what repeats elements: "edge", "reflect", "symmetric", "wrap", which want known sizes.
    Raises InputError for other modes and negative widths, and ShapeError for widths that do not fit the axes.
    """
    x = as_tensor(x)
    try:
        widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2))
    except ValueError:
        raise ShapeError(
            f"pad of {describe(x)}: {pad_width!r} is not a pair for each of {x.ndim} axes"
        ) from None
    if widths.dtype.kind not in "iu" or widths.min(initial=0) < 0:
        raise InputError(f"pad of {describe(x)}: {pad_width!r}; give whole numbers from 0")
    if mode not in ("constant", "edge", "reflect", "symmetric", "wrap"):
        raise InputError(f"pad of {describe(x)}: there is no mode {mode!r}")
    for axis, (before, after) in enumerate(widths.tolist()):
        if before or after:
            x = _padded(x, axis, before, after, mode, constant_values)
    return x


def _padded(x: Tensor, axis: int, before: int, after: int, mode: str, value) -> Tensor:
    n = x.shape[axis]
    if mode != "constant":
        if not isinstance(n, int):
            raise ShapeError(f"pad of {describe(x)}: mode {mode!r} needs a known size of axis {axis}")
        try:
            index = np.pad(np.arange(n), (before, after), mode)  # type: ignore[call-overload]
        except ValueError as error:
            raise ShapeError(f"pad of {describe(x)}: {error}") from None
        return x[(*(slice(None),) * axis, index)]
    if isinstance(value, (int, float)) and value == 0:
        return apply(PLACE, (x,), (axis, before, before + n, 1, before + n + after))
    ends = [full((*x.shape[:axis], k, *x.shape[axis + 1 :]), value, x.dtype) for k in (before, after)]
    return concat(ends[0], x, ends[1], axis=axis)


def _norm_of(x, ord=None, axis=None, keepdims=False) -> Tensor:
    one = np.ndim(x) == 1 or isinstance(axis, int)
    if ord is not None and not (ord == "fro" and not one) and not (ord == 2 and one):
        raise DTypeError(
            f"np.linalg.norm with ord={ord!r} is not recorded by minigrad, which has the Euclidean norm only"
        )
    return norm(x, axis, keepdims)


_FUNCTIONS.update(
    clip=clip,
    round=round,
    var=var,
    std=std,
    prod=prod,
    cumprod=cumprod,
    argmax=argmax,
    argmin=argmin,
    squeeze=squeeze,
)


def _apply(op: str, *inputs) -> Tensor:
    return apply(OPS[op], inputs)


# What NumPy's own functions do with tensors.
_UFUNCS.update({
    name: lambda *inputs, op=op: _apply(op, *inputs)
    for name, op in dict(
        add="add", subtract="sub", multiply="mul", divide="div", negative="neg", exp="exp", log="log", log1p="log1p",
        sqrt="sqrt", sin="sin", cos="cos", tanh="tanh", absolute="abs", sign="sign", maximum="maximum",
        minimum="minimum", greater="greater", greater_equal="greater_equal", equal="equal",
    ).items()
})  # fmt: skip
_UFUNCS.update(
    matmul=matmul, power=power, square=lambda x: power(x, 2), less=lambda a, b: _apply("greater", b, a),
    less_equal=lambda a, b: _apply("greater_equal", b, a),
    not_equal=lambda a, b: _apply("equal", _apply("equal", a, b), False), isnan=isnan, isfinite=isfinite, isinf=isinf,
)  # fmt: skip
_ARRAY_FUNCTIONS.update(
    sum=lambda a, axis=None, keepdims=False: sum(a, axis, keepdims),
    max=lambda a, axis=None, keepdims=False: max(a, axis, keepdims),
    amax=lambda a, axis=None, keepdims=False: max(a, axis, keepdims),
    min=lambda a, axis=None, keepdims=False: min(a, axis, keepdims),
    broadcast_to=lambda a, shape: broadcast_to(a, shape),
    concatenate=lambda arrays, axis=0: concat(*arrays, axis=axis),
    where=lambda condition, x, y: where(condition, x, y),
    clip=lambda a, a_min=None, a_max=None: clip(a, a_min, a_max),
    round=lambda a, decimals=0: round(a, decimals),
    var=lambda a, axis=None, *, ddof=0, keepdims=False: var(a, axis, ddof, keepdims),
    std=lambda a, axis=None, *, ddof=0, keepdims=False: std(a, axis, ddof, keepdims),
    prod=lambda a, axis=None, *, keepdims=False: prod(a, axis, keepdims),
    cumprod=lambda a, axis=None: cumprod(a, axis),
    argmax=lambda a, axis=None, *, keepdims=False: argmax(a, axis, keepdims),
    argmin=lambda a, axis=None, *, keepdims=False: argmin(a, axis, keepdims),
    outer=lambda a, b: outer(a, b),
    einsum=lambda subscripts, *operands: einsum(subscripts, *operands),
    squeeze=lambda a, axis=None: squeeze(a, axis),
    expand_dims=lambda a, axis: expand_dims(a, axis),
    split=lambda ary, indices_or_sections, axis=0: split(ary, indices_or_sections, axis),
    flip=lambda m, axis=None: flip(m, axis),
    pad=lambda array, pad_width, mode="constant", *, constant_values=0: pad(array, pad_width, mode, constant_values),
    norm=_norm_of,
    zeros_like=lambda a, dtype=None: zeros(a.shape, a.dtype if dtype is None else dtype),
    ones_like=lambda a, dtype=None: ones(a.shape, a.dtype if dtype is None else dtype),
    full_like=lambda a, fill_value, dtype=None: full(a.shape, fill_value, a.dtype if dtype is None else dtype),
)  # fmt: skip
