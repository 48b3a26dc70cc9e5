"""Compositions of primitives: means, norms, activations, softmax, convolution; the losses are in losses.py.

Nothing here has a derivative rule of its own; numerical stability comes from the
primitives sigmoid, softplus and logsumexp, and from the largest logit taken out first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .elements import erf
from .errors import DTypeError, InputError, ShapeError, first_outside
from .ops import (
    INSIDE,
    LOGSUMEXP,
    SOFTPLUS,
    TOP,
    axes_of,
    concat,
    exp,
    log,
    matmul,
    shares,
    shift,
    sqrt,
    sum,
    tanh,
    where,
)
from .sizes import Size, arange, some
from .tensor import _ARRAY_FUNCTIONS, _FUNCTIONS, Tensor, apply, as_tensor, describe, modes


def _floating(x) -> Tensor:
    """`x` as a tensor of floats: whole numbers and booleans become float64, as in NumPy's mean."""
    x = as_tensor(x)
    return x if x.dtype.kind in "fc" else x.astype("float64")


def _single(function: Callable, *arguments) -> Tensor:
    """A function of float16 computed in float32: squares, sums and counts soon leave the range of float16."""
    half = [getattr(a, "dtype", None) == np.float16 for a in arguments]
    ready = (a.astype("float32") if h else a for a, h in zip(arguments, half, strict=True))
    return function(*ready).astype("float16")


def mean(x, axis=None, keepdims=False) -> Tensor:
    """The mean over `axis` (None: all); of integers in float64, as in NumPy."""
    x = _floating(x)
    if x.dtype == np.float16:
        return _single(mean, x, axis, keepdims)
    count: Any = 1
    for a in axes_of(x.ndim, axis):
        count = count * some(x, a, "mean")
    return sum(x, axis, keepdims) / count


def logsumexp(x, axis=None, keepdims=False) -> Tensor:
    """log Σ e^x over `axis`, without overflow; −∞, with a gradient of 0, where all elements are −∞."""
    x = _floating(x)
    if x.dtype == np.float16:
        return _single(logsumexp, x, axis, keepdims)
    return apply(LOGSUMEXP, (x,), (axes_of(x.ndim, axis), keepdims))


def norm(x, axis=None, keepdims=False) -> Tensor:
    """√(Σ x²) over `axis` (None: all): the Euclidean length; at 0 its gradient is 0."""
    x = _floating(x)
    if x.dtype == np.float16:
        return _single(norm, x, axis, keepdims)
    squares = sum(x * x, axis, keepdims)
    nothing = squares == 0  # the root is not taken there: its slope is infinite
    return where(nothing, 0.0, sqrt(where(nothing, 1.0, squares)))


def stack(tensors, axis: int = 0) -> Tensor:
    """Tensors of one shape, one behind the other along a new axis.

    Raises InputError for no tensors, ShapeError for an axis or shapes that do not fit.
    """
    xs = [as_tensor(x) for x in tensors]
    if not xs:
        raise InputError("stack of nothing: give at least one tensor")
    if not -xs[0].ndim - 1 <= axis <= xs[0].ndim:
        raise ShapeError(f"stack along axis {axis} of {describe(xs[0])}: there is no such axis")
    at = axis % (xs[0].ndim + 1)
    return concat(*(x.reshape((*x.shape[:at], 1, *x.shape[at:])) for x in xs), axis=at)


def relu(x) -> Tensor:
    """max(x, 0); the gradient at 0 is 0."""
    x = as_tensor(x)
    return where(x <= 0, 0, x)  # in this order NaN stays NaN


def softplus(x) -> Tensor:
    """log(1 + e^x), without overflow, and with all digits where it is small."""
    return apply(SOFTPLUS, (_floating(x),))


def gelu(x, approximate: str = "none") -> Tensor:
    """x Φ(x), Φ being the normal distribution (Hendrycks & Gimpel, 2016): by erf, or approximate="tanh".

    Raises InputError for another approximation.
    """
    x = _floating(x)
    if x.dtype == np.float16:
        return _single(lambda y: gelu(y, approximate), x)
    if approximate == "none":
        return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))
    if approximate != "tanh":
        raise InputError(f"gelu: approximate = {approximate!r}; give 'none' or 'tanh'")
    return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _less_largest(x: Tensor, axis) -> Tensor:
    """x − max x along `axis`, which gives back the digits that a large offset takes from a logarithm of a sum.

    Where all are −∞ they stay so.
    """
    return x if 0 in x.shape else x - apply(TOP, (x,), (axes_of(x.ndim, axis), True))


def _log_total(x: Tensor, axis, keepdims: bool = False) -> Tensor:
    """log Σ e^x along `axis` of what _less_largest returned: the sum is at least 1, or 0 where all are −∞."""
    return log(sum(exp(x), axis, keepdims) + 1e-30)


def log_softmax(x, axis: int = -1) -> Tensor:
    """x − log Σ e^x along `axis`."""
    x = _floating(x)
    if x.dtype == np.float16:
        return _single(log_softmax, x, axis)
    x = _less_largest(x, axis)
    return x - _log_total(x, axis, keepdims=True)


def softmax(x, axis: int = -1, mask=None) -> Tensor:
    """e^x / Σ e^x along `axis`; where `mask` is False the weight is 0.

    A row that is masked everywhere, or −∞ everywhere, gives zeros, not NaN.
    """
    x = _floating(x)
    if x.dtype == np.float16:
        return _single(softmax, x, axis, mask)
    if mask is not None:
        x = where(mask, x, -np.inf)
    return shares(x, axes_of(x.ndim, axis))


def one_hot(index, classes: int, dtype: DTypeLike = "float32") -> Tensor:
    """Integers of any shape (…) as rows (…, classes) with a single 1.

    Raises InputError for an index outside 0 … classes − 1.
    """
    return _hot("one_hot", as_tensor(index), classes).astype(dtype)


def _hot(who: str, index: Tensor, classes) -> Tensor:
    """Booleans (…, classes): is this the class?  Raises InputError for class indices out of range."""
    index = within(who, index, classes, "the classes")
    return index.reshape((*index.shape, 1)) == arange(classes)


def within(who: str, index: Tensor, count, of: str) -> Tensor:
    """The index itself; raises InputError, naming index and place, where one is outside 0 … count − 1."""
    if index.dtype.kind not in "iu":
        raise InputError(f"{who} of {describe(index)}: give integers")
    # What cannot be seen yet, or may be assigned anew, is looked at when the program runs.
    if index.is_symbol or isinstance(count, Size) or modes()[3]:
        return apply(INSIDE, (index,), (count, of, f"{who}: "))
    if found := first_outside(index.value, 0, count, of, f"{who}: "):
        raise InputError(found)
    return index


def layer_norm(x, gain=None, bias=None, epsilon: float = 1e-5) -> Tensor:
    """(x − mean) / √(variance + ε) over the last axis, times gain, plus bias (Ba et al., 2016)."""
    x = _floating(x)
    if x.dtype == np.float16:
        return _single(layer_norm, x, gain, bias, epsilon)
    axes = axes_of(x.ndim, -1)
    centred = x - mean(x, axes, keepdims=True)
    y = centred / sqrt(mean(centred * centred, axes, keepdims=True) + epsilon)
    y = y if gain is None else y * gain
    return y if bias is None else y + bias


def conv1d(x, W, dilation: int = 1, causal: bool = True) -> Tensor:
    """Convolution along time: y_t = Σ_j x_{t − (k − 1 − j)·dilation} · W_j, with zeros outside the sequence.

    x : (T, N, D).  W : (k, D, C), its last slice is that of the newest x.  Returns (T, N, C).
    causal : y_t sees no later x; else as many steps after t as before, and k is odd.

    Raises ShapeError for shapes that do not fit or no tap at all, and InputError for an even k that is
    not causal or a dilation below 1.
    """
    x, W = as_tensor(x), as_tensor(W)
    if x.ndim != 3 or W.ndim != 3 or x.shape[2] != W.shape[1] or not W.shape[0]:
        raise ShapeError(
            f"conv1d of {describe(x)} with {describe(W)}: give x (steps, sequences, inputs) and "
            "W (taps, inputs, width)"
        )
    if isinstance(dilation, bool) or not isinstance(dilation, (int, np.integer)) or dilation < 1:
        raise InputError(f"conv1d: dilation = {dilation!r}; give a whole number of at least 1")
    k = W.shape[0]
    if not causal and k % 2 == 0:
        raise InputError(f"conv1d: {k} taps have no middle; give an odd number, or causal=True")
    newest = k - 1 if causal else k // 2  # the tap that sees x_t
    total = None
    for j in sorted(range(k), key=lambda j: abs(newest - j)):
        tap = (x if j == newest else shift(x, (newest - j) * int(dilation))) @ W[j]
        total = tap if total is None else total + tap
    assert total is not None
    return total


def _dot(a, b) -> Tensor:
    if np.ndim(a) > 2 or np.ndim(b) > 2:
        raise DTypeError(
            "np.dot of more than two axes is not recorded by minigrad: use @, which multiplies batches of matrices"
        )
    return matmul(a, b)


_FUNCTIONS["mean"] = mean
_ARRAY_FUNCTIONS["mean"] = lambda a, axis=None, keepdims=False: mean(a, axis, keepdims)
_ARRAY_FUNCTIONS.update(stack=lambda arrays, axis=0: stack(arrays, axis), dot=_dot)
