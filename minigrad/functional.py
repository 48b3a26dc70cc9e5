"""Compositions of primitives: means, norms, activations, softmax, losses.

Nothing here has a derivative rule of its own; numerical stability comes from the
primitives sigmoid, softplus and logsumexp, and from the largest logit taken out first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .errors import DTypeError, InputError, ShapeError
from .ops import (
    INSIDE,
    LOGSUMEXP,
    SOFTPLUS,
    TOP,
    axes_of,
    broadcast_to,
    concat,
    erf,
    exp,
    log,
    matmul,
    maximum,
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
    """Along a new axis."""
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
    """x Φ(x), Φ being the normal distribution (Hendrycks & Gimpel, 2016): by erf, or approximate="tanh"."""
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
    """Booleans (…, classes): is this the class?  Raises InputError for classes that there are not."""
    if index.dtype.kind not in "iu":
        raise InputError(f"{who} of {describe(index)}: give integers")
    # What cannot be seen yet, or may be assigned anew, is looked at when the program runs.
    unseen = index.is_symbol or isinstance(classes, Size) or modes()[3]
    if not unseen and index.size and not (index.value.min() >= 0 and index.value.max() < classes):
        raise InputError(
            f"{who}: {index.value.min()} … {index.value.max()} outside the classes 0 … {classes - 1}"
        )
    if unseen:
        index = apply(INSIDE, (index,), (classes, "the classes"))
    return index.reshape((*index.shape, 1)) == arange(classes)


def cross_entropy(logits, targets, mask=None, ignore_index: int | None = None) -> Tensor:
    """−log p(target), averaged over all places, from logits (…, K).

    targets : integers (…), or weights (…, K) of the classes, e.g. distributions or one-hot rows; the loss of
        weights t is −Σ t log p, whatever they sum to.
    mask : booleans (…); only True places count.  No True place gives 0.
    ignore_index : places whose target is this integer do not count, e.g. those of padding.

    A logit of −∞ is a probability of 0.  Places that do not count may hold anything in their logits, NaN too.
    Raises ShapeError for targets or a mask of another shape and InputError for classes outside 0 … K − 1.
    """
    logits = _floating(logits)
    if logits.dtype == np.float16:
        return _single(cross_entropy, logits, targets, mask, ignore_index)
    targets = as_tensor(targets)
    by_class = targets.dtype.kind in "iu" and targets.ndim != logits.ndim
    places = tuple(logits.shape[:-1])
    if tuple(targets.shape) != (places if by_class else tuple(logits.shape)):
        raise ShapeError(f"cross_entropy: targets {describe(targets)} do not fit logits {describe(logits)}")
    if ignore_index is not None:
        if not by_class:
            raise InputError(
                f"cross_entropy: ignore_index = {ignore_index} with targets {describe(targets)}; "
                "it is a class, so give integers, or a mask"
            )
        ignored = targets == ignore_index
        targets, mask = where(ignored, 0, targets), where(ignored, False, True if mask is None else mask)
    if mask is not None:
        mask = as_tensor(mask)
        mask = mask if tuple(mask.shape) == places else broadcast_to(mask, places)
        logits = where(mask.reshape((*places, 1)), logits, 0.0)
    losses = (_losses_of_classes if by_class else _losses_of_weights)(_less_largest(logits, -1), targets)
    if mask is None:
        return mean(losses)
    count = maximum(sum(mask.astype(logits.dtype)), 1.0)
    return sum(where(mask, losses, 0.0)) / count


def _losses_of_classes(logits: Tensor, targets: Tensor) -> Tensor:
    hot = _hot("cross_entropy", targets, logits.shape[-1])
    return _log_total(logits, -1) - sum(where(hot, logits, 0.0), -1)  # the others may be −∞


def _losses_of_weights(logits: Tensor, weights: Tensor) -> Tensor:
    weights = weights.astype(logits.dtype) if weights.dtype.kind != "f" else weights
    lowest = float(np.finfo(logits.dtype).min)
    finite = where(weights == 0, maximum(logits, lowest), logits)  # 0 · log 0 is 0
    return sum(weights, -1) * _log_total(logits, -1) - sum(weights * finite, -1)


def mse(prediction, target) -> Tensor:
    """The mean squared error; raises ShapeError where shapes differ (nothing is broadcast)."""
    prediction = _floating(prediction)
    if prediction.dtype == np.float16:
        return _single(mse, prediction, target)
    target = as_tensor(target, prediction)
    if tuple(prediction.shape) != tuple(target.shape):
        raise ShapeError(f"mse of {describe(prediction)} and {describe(target)}: shapes must be the same")
    difference = prediction - target
    return mean(difference * difference)


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
            "W (taps, inputs, outputs)"
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
