"""The table of ONNX operators: one row each, what it computes in minigrad's operations.

A row is a function of the inputs (None where an optional one is left out) and, by keyword, of the attributes; its
signature says which there are, so that an attribute that nobody reads is an error and never a silently wrong number.
One that asks for `opset` is told the version.  A value is a `Tensor`, or a NumPy array where it is known before
anything is computed: constants, and shapes, whose sizes may be those of a trace.  Operators and methods mean the same
on both; where they do not, `_of` chooses.  Meaning and defaults: the ONNX operator reference, opsets 7 to 23.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache, reduce
from itertools import pairwise
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import DTypeError, GraphError, InputError, ShapeError, Tensor, describe

from .read import MOST_NUMBERS
from .steps import at, reshaped

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip


# Values: known arrays and tensors.


def known(x, what: str) -> np.ndarray:
    """A value that has to be known before anything is computed, such as a shape; raises GraphError where it is not."""
    if isinstance(x, Tensor):
        if x.is_symbol:
            raise GraphError(
                f"{what} is computed from the inputs, which are not known while tracing: call the layer on values, "
                "without mg.compile, or export the model with that size fixed"
            )
        return x.value
    return np.asarray(x)


def _numbers(x, what: str) -> list:
    """Known whole numbers, or sizes of a trace, as a list."""
    return known(x, what).reshape(-1).tolist()


def _of(x, tensors: Callable, arrays: Callable) -> Callable:
    return tensors if isinstance(x, Tensor) else arrays


def bounded(shape) -> tuple:
    """A shape that may be made; raises ShapeError beyond `MOST_NUMBERS` numbers or below size 0."""
    shape = tuple(shape)
    known_sizes = [n for n in shape if isinstance(n, int)]
    if any(n < 0 for n in known_sizes) or math.prod(known_sizes) > MOST_NUMBERS:
        raise ShapeError(f"a result of shape {shape}; at most {MOST_NUMBERS:,} numbers are made")
    return shape


def _sizes(x) -> np.ndarray:
    """The shape of a value as a known array; of objects where sizes are not known while tracing."""
    sizes = list(x.shape)
    return np.array(sizes, np.int64 if all(isinstance(n, (int, np.integer)) for n in sizes) else object)


def _axis(x, axis: int) -> int:
    ndim = len(x.shape)
    if not -ndim <= axis < max(ndim, 1):
        raise ShapeError(f"axis {axis} of {ndim} axes")
    return axis + ndim if axis < 0 else axis


def _fits(*xs) -> None:
    """Raise ShapeError where broadcasting would make far too much; what does not fit at all is told by the operation."""
    most: list[int] = []
    for k in range(1, max(len(x.shape) for x in xs) + 1):
        sizes = [x.shape[-k] for x in xs if len(x.shape) >= k]
        most.append(max([n for n in sizes if isinstance(n, int)], default=1))
    bounded(reversed(most))


def _each(function: Callable) -> Callable:
    """An operation element by element, with broadcasting."""

    def row(a, b):
        _fits(a, b)
        return function(a, b)

    return row


def _many(function: Callable) -> Callable:
    return lambda *xs: reduce(_each(function), xs)


# Element by element.


def _divide(a, b):
    if a.dtype.kind not in "iuO":
        return a / b
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return a // b if a.dtype == object or b.dtype == object else np.trunc(a / b).astype(a.dtype)
    return mg.sign(a) * mg.sign(b) * (mg.abs(a) // mg.abs(b))  # towards 0


def _remainder(a, b, *, fmod=0):
    return mg.sign(a) * (mg.abs(a) % mg.abs(b)) if fmod else a % b


def _power(a, b):
    if a.dtype.kind in "iu" and b.dtype.kind == "f":  # the result is of the base's type
        return mg.power(mg.as_tensor(a).astype("float64"), mg.as_tensor(b).astype("float64")).astype(a.dtype)
    exponent = np.asarray(b) if not isinstance(b, Tensor) else b
    if isinstance(exponent, np.ndarray) and not exponent.ndim:
        return a ** exponent.item()
    return mg.power(a, exponent if exponent.dtype.kind == "f" else mg.as_tensor(exponent).astype(a.dtype))


def _choose(condition, a, b):
    _fits(condition, a, b)
    everywhere = (
        isinstance(condition, np.ndarray) and condition.ndim <= len(a.shape) and bool(np.all(condition))
    )
    if everywhere and isinstance(a, Tensor) and tuple(a.shape) == tuple(b.shape):
        return a  # such as a mask that is True at all steps
    if any(isinstance(x, Tensor) for x in (condition, a, b)):
        return mg.where(mg.as_tensor(condition), a, b)
    return np.where(condition, a, b)


def _clip(x, low=None, high=None, *, min=None, max=None):
    low = low if low is not None or min is None else np.array(min, x.dtype)
    high = high if high is not None or max is None else np.array(max, x.dtype)
    x = x if low is None else _choose(x < low, low, x)
    return x if high is None else _choose(x > high, high, x)


def _cast(x, *, to, saturate=1, round_mode="up"):
    if to not in DTYPES:
        raise DTypeError(f"Cast to ONNX's type {to}; known are {', '.join(DTYPES.values())}")
    if x.dtype == DTYPES[to]:
        return x
    if not isinstance(x, Tensor) and x.dtype == object:
        if np.dtype(DTYPES[to]).kind == "f":
            return mg.stack([mg.as_tensor(n).astype(DTYPES[to]) for n in x.reshape(-1)]).reshape(x.shape)
        return x  # sizes of a trace are whole numbers
    if np.dtype(DTYPES[to]).kind in "iu" and isinstance(x, Tensor) and x.dtype.kind == "f":
        x = mg.sign(x) * mg.floor(mg.abs(x))
    return x.astype(DTYPES[to])


def _gelu(x, *, approximate="none"):
    return mg.gelu(x, approximate)


def _prelu(x, slope):
    _fits(x, slope)
    return mg.where(x < 0, slope * x, x)


def _leaky(x, *, alpha=0.01):
    return mg.where(x < 0, alpha * x, x)


def _elu(x, *, alpha=1.0):
    return mg.where(x < 0, alpha * mg.expm1(mg.minimum(x, 0.0)), x)


def _selu(x, *, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875):
    return gamma * mg.where(x < 0, alpha * mg.expm1(mg.minimum(x, 0.0)), x)


def _hard_sigmoid(x, *, alpha=0.2, beta=0.5):
    return mg.clip(alpha * x + beta, 0.0, 1.0)


def _dropout(x, ratio=None, training=None, *, seed=0):
    if training is not None and bool(known(training, "Dropout's training_mode").any()):
        raise InputError("Dropout in training mode draws random numbers; export the model in evaluation mode")
    return x, _all_true(x)


def _old_dropout(x, *, ratio=0.5):
    return x, _all_true(x)


def _all_true(x):
    """The mask of a dropout that drops nothing."""
    return x == x if any(not isinstance(n, int) for n in x.shape) else np.broadcast_to(np.True_, x.shape)


# Reductions and what normalises.


def _reduce(function: str) -> Callable:
    def row(x, axes_input=None, *, axes=None, keepdims=1, noop_with_empty_axes=0):
        chosen = _numbers(axes_input, f"the axes of a {function}") if axes_input is not None else axes
        if not x.shape or (not chosen and noop_with_empty_axes):
            return x
        if not chosen:
            chosen = range(len(x.shape))
        chosen = tuple(_axis(x, a) for a in chosen)
        y = getattr(x, function)(axis=chosen, keepdims=bool(keepdims)) if chosen else x
        return (
            y if x.dtype == object or y.dtype == x.dtype else y.astype(x.dtype)
        )  # NumPy widens small integers

    return row


def _after(first: Callable, row: Callable, last: Callable = lambda y: y) -> Callable:
    """A reduction of first(x), and last of its result, with the same attributes."""

    def function(x, axes_input=None, *, axes=None, keepdims=1, noop_with_empty_axes=0):
        y = row(first(x), axes_input, axes=axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)
        return last(y)

    return function


def _extreme(function: str) -> Callable:
    def row(x, *, axis=0, keepdims=1, select_last_index=0):
        if select_last_index:
            raise InputError(f"{function} of the last of several is not known")
        return getattr(mg.as_tensor(x), function)(_axis(x, axis), bool(keepdims))

    return row


def _softmax(function: Callable) -> Callable:
    def row(x, *, axis=None, opset):
        if opset >= 13:
            return function(x, _axis(x, -1 if axis is None else axis))
        axis = _axis(x, 1 if axis is None else axis)  # all axes from this one on are one
        return function(_flatten(x, axis=axis), -1).reshape(tuple(x.shape))

    return row


def _layer_norm(x, scale=None, bias=None, *, axis=-1, epsilon=1e-5, stash_type=1, outputs):
    axes = tuple(range(_axis(x, axis), len(x.shape)))
    if len(axes) == 1 and outputs == 1:
        return mg.layer_norm(x, scale, bias, epsilon)
    mean = mg.mean(x, axes, keepdims=True)
    inverse = 1 / mg.sqrt(mg.mean((x - mean) * (x - mean), axes, keepdims=True) + epsilon)
    y = (x - mean) * inverse
    y = y if scale is None else y * scale
    return y if bias is None else y + bias, mean, inverse


def _batch_norm(x, scale, bias, mean, variance, *, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1):
    if training_mode or not spatial:
        raise InputError("BatchNormalization in training mode; export the model in evaluation mode")
    shape = (1, -1, *(1,) * (len(x.shape) - 2))
    scale, bias, mean, variance = (mg.as_tensor(a).reshape(shape) for a in (scale, bias, mean, variance))
    return (x - mean) / mg.sqrt(variance + epsilon) * scale + bias


# Structure.


def concat(xs, axis: int):
    """Tensors and known arrays, one after the other; sizes of a trace beside numbers stay sizes."""
    axis = _axis(xs[0], axis)
    along = [x.shape[axis] for x in xs if len(x.shape) > axis]
    if all(isinstance(n, int) for n in along):
        bounded([*xs[0].shape[:axis], sum(along), *xs[0].shape[axis + 1 :]])
    if any(isinstance(x, Tensor) for x in xs):
        return mg.concat(*(mg.as_tensor(x) for x in xs), axis=axis)
    return np.concatenate([np.asarray(x) for x in xs], axis=axis)


def _concat(*xs, axis):
    return concat(xs, axis)


def _slice(x, starts, ends, axes=None, steps=None):
    starts, ends = _numbers(starts, "the starts of a Slice"), _numbers(ends, "the ends of a Slice")
    axes = None if axes is None else _numbers(axes, "the axes of a Slice")
    steps = [1] * len(starts) if steps is None else _numbers(steps, "the steps of a Slice")
    index = [slice(None)] * len(x.shape)
    for start, end, axis, step in zip(starts, ends, axes or range(len(starts)), steps, strict=True):
        axis = _axis(x, axis)
        size = x.shape[axis]
        if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
            # The end of a slice backwards, if it lies before the beginning, is none in Python.
            low, high, _ = slice(start, end, step).indices(size)
            index[axis] = slice(low, None if high < 0 else high, step)
        else:
            far = isinstance(end, int) and abs(end) >= 1 << 31  # ONNX's way to say: to the end
            index[axis] = slice(start, None if far else end, step)
    return _taken(x, tuple(index))


def _old_slice(x, *, starts, ends, axes=None):
    return _slice(x, np.array(starts), np.array(ends), None if axes is None else np.array(axes))


def _taken(x, index: tuple):
    """x[index]; one step of a sequence is taken from where it was put together."""
    cut = [a for a, s in enumerate(index) if s != slice(None)]
    if len(cut) == 1 and isinstance(x, Tensor) and isinstance(x.shape[cut[0]], int):
        axis = cut[0]
        places = range(*index[axis].indices(x.shape[axis]))
        if len(places) == 1 and x.shape[axis] > 1:
            shape = [1 if a == axis else n for a, n in enumerate(x.shape)]
            return at(x, axis, places[0]).reshape(tuple(shape))
    return x[index]


def _gather(x, index, *, axis=0):
    axis = _axis(x, axis)
    index = index if isinstance(index, Tensor) else np.asarray(index)
    if isinstance(x, Tensor) and not isinstance(index, Tensor) and not index.ndim:
        return at(x, axis, index.item())
    if not isinstance(x, Tensor) and isinstance(index, Tensor):
        x = mg.as_tensor(x)
    if not isinstance(index, Tensor):
        index = index.astype(np.int64)
        return np.take(x, index, axis) if not isinstance(x, Tensor) else x[(*(slice(None),) * axis, index)]
    return x[(*(slice(None),) * axis, index)]


def _gather_elements(x, index, *, axis=0):
    axis, where = _axis(x, axis), known(index, "the index of GatherElements").astype(np.int64)
    grid = [
        np.arange(n).reshape([-1 if k == a else 1 for k in range(where.ndim)])
        for a, n in enumerate(where.shape)
    ]
    grid[axis] = where
    return x[tuple(np.broadcast_arrays(*grid))]


def _gather_nd(x, index, *, batch_dims=0):
    if batch_dims:
        raise InputError("GatherND with batch_dims is not known; export it with Gather")
    where = known(index, "the index of GatherND").astype(np.int64)
    return x[tuple(where[..., k] for k in range(where.shape[-1]))]


def _split(x, sizes=None, *, axis=0, split=None, num_outputs=None, outputs):
    axis = _axis(x, axis)
    total = x.shape[axis]
    sizes = _numbers(sizes, "the sizes of a Split") if sizes is not None else split
    if sizes is None:
        count = num_outputs or outputs
        if not isinstance(total, int):
            return tuple(mg.split(x, count, axis))
        most = -(-total // count)
        sizes = [most] * (count - 1) + [total - most * (count - 1)]
    return tuple(_parts(x, axis, sizes))


def _parts(x, axis: int, sizes: list) -> list:
    ends = [0]
    for n in sizes:
        ends.append(ends[-1] + n)
    if isinstance(x.shape[axis], int) and ends[-1] != x.shape[axis]:
        raise ShapeError(f"parts of {sizes} along axis {axis}, which has {x.shape[axis]}")
    before = (slice(None),) * axis
    rest = (slice(None),) * (len(x.shape) - axis - 1)
    return [_taken(x, (*before, slice(a, b), *rest)) for a, b in pairwise(ends)]


def _as(x, shape: tuple):
    """In another shape; one that is known while tracing is not made twice."""
    if isinstance(x, Tensor) and not x.is_symbol and -1 not in shape and math.prod(shape) == x.size:
        return reshaped(x, shape)
    return x.reshape(shape)


def _squeeze(x, axes_input=None, *, axes=None):
    axes = axes if axes_input is None else _numbers(axes_input, "the axes of a Squeeze")
    if axes is None:
        return x.squeeze()
    gone = {_axis(x, a) for a in axes}
    odd = [a for a in sorted(gone) if isinstance(x.shape[a], int) and x.shape[a] != 1]
    if odd:
        raise ShapeError(f"a Squeeze of axis {odd[0]}, which has {x.shape[odd[0]]}")
    return _as(x, tuple(n for a, n in enumerate(x.shape) if a not in gone))


def _unsqueeze(x, axes_input=None, *, axes=()):
    axes = axes if axes_input is None else _numbers(axes_input, "the axes of an Unsqueeze")
    ndim = len(x.shape) + len(axes)
    new = {a + ndim if a < 0 else a for a in axes}
    own = iter(x.shape)
    return _as(x, tuple(1 if a in new else next(own) for a in range(ndim)))


def _transpose(x, *, perm=None):
    return x.transpose(tuple(perm) if perm is not None else tuple(reversed(range(len(x.shape)))))


def _reshape(x, shape, *, allowzero=0):
    new = _numbers(shape, "the shape of a Reshape")
    if not allowzero:
        new = [x.shape[k] if isinstance(n, int) and n == 0 else n for k, n in enumerate(new)]
    return _as(x, tuple(new))


def _old_reshape(x, *, shape):
    return _reshape(x, np.array(shape))


def _flatten(x, *, axis=1):
    axis = len(x.shape) + axis if axis < 0 else axis
    return x.reshape((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _expand(x, shape):
    new = _numbers(shape, "the shape of an Expand")
    own = [1] * (len(new) - len(x.shape)) + list(x.shape)
    new = [1] * (len(own) - len(new)) + new
    shape = bounded(tuple(a if isinstance(n, int) and n == 1 else n for a, n in zip(own, new, strict=True)))
    if isinstance(x, Tensor) or not all(isinstance(n, int) for n in shape):
        return mg.broadcast_to(x, shape)
    return np.broadcast_to(x, shape)


def _shape(x, *, start=0, end=None):
    return _sizes(x)[slice(start, end)]


def _size(x):
    total = math.prod(x.shape)
    return np.array(total, np.int64 if isinstance(total, int) else object)


def _constant(*, value=None, value_float=None, value_floats=None, value_int=None, value_ints=None):
    if value is not None:
        return value
    given = [
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
    ]
    return next(np.array(v, dtype) for v, dtype in given if v is not None)


def _constant_of_shape(shape, *, value=None):
    value = np.zeros(1, np.float32) if value is None else value
    sizes = bounded(_numbers(shape, "the shape of a ConstantOfShape"))
    if all(isinstance(n, int) for n in sizes):
        return np.full(sizes, value.reshape(-1)[0])
    return mg.full(sizes, value.reshape(-1)[0].item(), value.dtype)


def _range(start, limit, delta):
    first, last, by = (known(v, "a bound of a Range").reshape(-1)[0] for v in (start, limit, delta))
    if not all(isinstance(v, (int, float, np.number)) for v in (first, last, by)):
        if isinstance(by, (int, np.integer)) and by == 1:
            return mg.indexing.arange(last - first) + first
        raise GraphError("a Range to a size that is not known while tracing, in steps other than 1")
    if by == 0:
        raise InputError("a Range in steps of 0")
    count = max(math.ceil((last - first) / by), 0)
    bounded((count,))
    return first + by * np.arange(count, dtype=np.asarray(start).dtype)


def _tile(x, repeats):
    times = _numbers(repeats, "the repeats of a Tile")
    bounded([n * k for n, k in zip(x.shape, times, strict=True)])
    for axis, k in enumerate(times):
        if not isinstance(k, int):
            raise GraphError("a Tile as often as a size that is not known while tracing")
        x = x if k == 1 else concat([x] * k, axis)
    return x


def _pad(x, pads, value=None, axes=None, *, mode="constant"):
    pads = _numbers(pads, "the widths of a Pad")
    fill: Any = 0.0 if value is None else known(value, "the value of a Pad").item()
    chosen = (
        range(len(x.shape)) if axes is None else [_axis(x, a) for a in _numbers(axes, "the axes of a Pad")]
    )
    widths = [(0, 0)] * len(x.shape)
    for k, axis in enumerate(chosen):
        widths[axis] = (pads[k], pads[k + len(pads) // 2])
    index = tuple(slice(max(-a, 0), -max(-b, 0) or None) for a, b in widths)  # below 0 is cut off
    x = mg.as_tensor(x)[index]
    widths = [(max(a, 0), max(b, 0)) for a, b in widths]
    bounded([n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)])
    return mg.pad(x, widths, mode, fill)


def _old_pad(x, *, pads, mode="constant", value=0.0):
    return _pad(x, np.array(pads), np.array(value), mode=mode)


def _triangle(x, k=None, *, upper=1):
    k = 0 if k is None else int(known(k, "the diagonal of a Trilu").item())
    rows, columns = (mg.indexing.arange(n) for n in x.shape[-2:])
    above = columns - rows.reshape((-1, 1)) - k
    return _choose(mg.as_tensor(above >= 0 if upper else above <= 0), x, np.zeros((), x.dtype))


def _cumsum(x, axis, *, exclusive=0, reverse=0):
    axis = _axis(x, int(known(axis, "the axis of a CumSum").item()))
    y = mg.as_tensor(x)
    y = mg.flip(y, axis) if reverse else y
    total = mg.cumsum(y, axis)
    total = total - y if exclusive else total
    return (mg.flip(total, axis) if reverse else total).astype(x.dtype)


def _one_hot(index, depth, values, *, axis=-1):
    count = int(known(depth, "the depth of a OneHot").item())
    bounded([*index.shape, count])
    index = mg.as_tensor(index).astype("int64")
    hot = mg.where(index < 0, index + count, index).reshape((*index.shape, 1)) == np.arange(count)
    y = mg.where(hot, values[1], values[0])
    axis = axis + y.ndim if axis < 0 else axis
    order = list(range(y.ndim - 1))
    return y.transpose((*order[:axis], y.ndim - 1, *order[axis:]))


# Products.


def _matmul(a, b):
    if len(a.shape) > 1 and len(b.shape) > 1:
        rows = a if len(a.shape) >= len(b.shape) else b
        bounded([*rows.shape[:-2], a.shape[-2], b.shape[-1]])
    return a @ b


def _gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):  # noqa: N803  (ONNX's names)
    a, b = (a.T if transA else a), (b.T if transB else b)
    y = _matmul(a, b)
    y = y if alpha == 1 else y * alpha
    return y if c is None or beta == 0 else y + (c if beta == 1 else c * beta)


def _einsum(*xs, equation):
    given, _, result = equation.replace(" ", "").partition("->")
    size = {
        c: n
        for term, x in zip(given.split(","), xs, strict=False)
        for c, n in zip(term, x.shape, strict=False)
    }
    if "." not in equation:
        bounded([size[c] for c in result if c in size])
    return mg.einsum(equation, *xs)


def _conv(
    x, W, b=None, *, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None
):
    """Along one axis: x (N, C, L), W (M, C / group, k), as one product per tap."""
    if len(x.shape) != 3 or len(W.shape) != 3:
        raise ShapeError(
            f"Conv of {describe(x)} with {describe(W)}: known is the one along one axis, (N, C, L)"
        )
    k, by, every = W.shape[2], (dilations or [1])[0], (strides or [1])[0]
    reach = (k - 1) * by
    before, after = pads or (0, 0)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        total = max((-(-x.shape[2] // every) - 1) * every + reach + 1 - x.shape[2], 0)
        before, after = (total // 2, total - total // 2)[:: 1 if auto_pad == "SAME_UPPER" else -1]
    bounded([*x.shape[:2], x.shape[2] + before + after])
    xs = mg.pad(mg.transpose(x, (2, 0, 1)), [(before, after), (0, 0), (0, 0)])  # steps first, as elsewhere
    length, N, C = xs.shape
    last = length - reach
    W = mg.transpose(W, (2, 1, 0))  # (k, C / group, M)
    M = W.shape[2]
    if group > 1:
        xs = xs.reshape((length, N, group, 1, C // group))
        W = W.reshape((k, C // group, group, M // group)).transpose((0, 2, 1, 3))
    total: Any = None
    for j in range(k):
        rows = xs[j * by : j * by + last]
        tap = (rows if every == 1 else rows[::every]) @ W[j]
        total = tap if total is None else total + tap
    total = total.reshape((total.shape[0], N, M)) if group > 1 else total
    total = total if b is None else total + b
    return mg.transpose(total, (1, 2, 0))


# Sequences: Python lists of values.


def _split_to_sequence(x, split=None, *, axis=0, keepdims=1):
    axis = _axis(x, axis)
    if split is None:
        sizes = [1] * x.shape[axis]
    elif not known(split, "the sizes of a SplitToSequence").ndim:
        each, total = known(split, "the size").item(), x.shape[axis]
        sizes = [min(each, total - k) for k in range(0, total, each)]
    else:
        sizes = _numbers(split, "the sizes of a SplitToSequence")
    parts = _parts(x, axis, sizes)
    return [_squeeze(p, axes=[axis]) for p in parts] if split is None and not keepdims else parts


def _from_sequence(xs, *, axis, new_axis=0):
    return concat([_unsqueeze(x, axes=[axis]) for x in xs] if new_axis else xs, axis)


def _place(position) -> int:
    return int(known(position, "a place in a sequence").item())


def _inserted(xs, x, position=None):
    k = len(xs) if position is None else _place(position)
    return [*xs[:k], x, *xs[k:]]


# The table.

_sum, _mean, _max, _min = (_reduce(name) for name in ("sum", "mean", "max", "min"))

OPERATORS: dict[str, Callable] = {
    # element by element
    "Add": _each(lambda a, b: a + b),
    "Sub": _each(lambda a, b: a - b),
    "Mul": _each(lambda a, b: a * b),
    "Div": _each(_divide),
    "Pow": _each(_power),
    "Mod": _remainder,
    "Sum": _many(lambda a, b: a + b),
    "Mean": lambda *xs: _many(lambda a, b: a + b)(*xs) / len(xs),
    "Max": _many(lambda a, b: mg.maximum(a, b)),
    "Min": _many(lambda a, b: mg.minimum(a, b)),
    "Equal": _each(lambda a, b: a == b),
    "Greater": _each(lambda a, b: a > b),
    "GreaterOrEqual": _each(lambda a, b: a >= b),
    "Less": _each(lambda a, b: a < b),
    "LessOrEqual": _each(lambda a, b: a <= b),
    "And": _each(lambda a, b: a & b),
    "Or": _each(lambda a, b: a | b),
    "Xor": _each(lambda a, b: a ^ b),
    "Not": lambda x: ~x,
    "Where": _choose,
    "Neg": lambda x: -x,
    "Abs": lambda x: abs(x),
    "Sign": lambda x: mg.sign(x),
    "Floor": lambda x: mg.floor(x),
    "Ceil": lambda x: mg.ceil(x),
    "Round": lambda x: mg.round(x),
    "Reciprocal": lambda x: 1 / x,
    "Sqrt": lambda x: mg.sqrt(x),
    "Exp": lambda x: mg.exp(x),
    "Log": lambda x: mg.log(x),
    "Erf": lambda x: mg.erf(x),
    "Sin": lambda x: mg.sin(x),
    "Cos": lambda x: mg.cos(x),
    "Sigmoid": lambda x: mg.sigmoid(x),
    "Tanh": lambda x: mg.tanh(x),
    "Relu": lambda x: mg.relu(x),
    "Softplus": lambda x: mg.softplus(x),
    "Softsign": lambda x: x / (1 + mg.abs(x)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * _hard_sigmoid(x, alpha=1 / 6),
    "Swish": lambda x, *, alpha=1.0: x * mg.sigmoid(alpha * x),
    "Mish": lambda x: x * mg.tanh(mg.softplus(x)),
    "Gelu": _gelu,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Elu": _elu,
    "Selu": _selu,
    "Clip": _clip,
    "IsNaN": lambda x: mg.isnan(x),
    "Cast": _cast,
    "CastLike": lambda x, like, *, saturate=1, round_mode="up": x.astype(like.dtype),
    "Identity": lambda x: x,
    "Dropout": _dropout,
    # reductions and what normalises
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": _max,
    "ReduceMin": _min,
    "ReduceProd": _reduce("prod"),
    "ReduceSumSquare": _after(lambda x: x * x, _sum),
    "ReduceL1": _after(lambda x: mg.abs(x), _sum),
    "ReduceL2": _after(lambda x: x * x, _sum, lambda y: mg.sqrt(y)),
    "ReduceLogSum": _after(lambda x: x, _sum, lambda y: mg.log(y)),
    "ArgMax": _extreme("argmax"),
    "ArgMin": _extreme("argmin"),
    "Softmax": _softmax(mg.softmax),
    "LogSoftmax": _softmax(mg.log_softmax),
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    # structure
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Expand": _expand,
    "Shape": _shape,
    "Size": _size,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Tile": _tile,
    "Pad": _pad,
    "Trilu": _triangle,
    "CumSum": _cumsum,
    "OneHot": _one_hot,
    # products
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Conv": _conv,
    # sequences
    "SplitToSequence": _split_to_sequence,
    "SequenceAt": lambda xs, position: xs[_place(position)],
    "SequenceConstruct": lambda *xs: list(xs),
    "SequenceEmpty": lambda *, dtype=1: [],
    "SequenceInsert": _inserted,
    "SequenceLength": lambda xs: np.array(len(xs), np.int64),
    "ConcatFromSequence": _from_sequence,
}

# Where attributes became inputs: rows of the opsets before.
BEFORE: dict[tuple[str, int], Callable] = {
    ("Slice", 10): _old_slice,
    ("Reshape", 5): _old_reshape,
    ("Pad", 11): _old_pad,
    ("Dropout", 12): _old_dropout,
}


def row_of(op: str, opset: int) -> Callable | None:
    """The row of an operator at this version; None where there is none."""
    older = [(until, row) for (name, until), row in BEFORE.items() if name == op and opset < until]
    return min(older, key=lambda pair: pair[0])[1] if older else OPERATORS.get(op)


def settled(value):
    """A value as a tensor, an array or a list of them: arithmetic of arrays without axes leaves bare numbers and sizes."""
    if isinstance(value, (Tensor, np.ndarray, list)):
        return value
    held = np.empty((), object if hasattr(value, "as_symbol") else np.asarray(value).dtype)
    held[()] = value
    return held


@cache
def signature_of(row: Callable) -> tuple[inspect.Signature, frozenset[str]]:
    """What a row takes, and the attributes among that; `opset` and `outputs` (how many) are given to whoever asks."""
    signature = inspect.signature(row)
    return signature, frozenset(p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY)
