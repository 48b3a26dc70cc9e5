"""Compositions of primitives: activations, softmax, losses.

Nothing here has a derivative rule of its own; numerical stability comes from the
primitives sigmoid and logsumexp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .errors import InputError, ShapeError
from .ops import INSIDE, axes_of, exp, log, logsumexp, maximum, mean, shares, shift, sqrt, where
from .tensor import Tensor, apply, as_tensor, describe


def relu(x) -> Tensor:
    """max(x, 0); the gradient at 0 is 0."""
    x = as_tensor(x)
    return where(x > 0, x, 0.0)


def softplus(x) -> Tensor:
    """log(1 + e^x), without overflow."""
    x = as_tensor(x)
    return maximum(x, 0.0) + log(1 + exp(-abs(x)))


def log_softmax(x, axis: int = -1) -> Tensor:
    """x − log Σ e^x along `axis`."""
    x = as_tensor(x)
    return x - logsumexp(x, axis, keepdims=True)


def softmax(x, axis: int = -1, mask=None) -> Tensor:
    """e^x / Σ e^x along `axis`; where `mask` is False the weight is 0.

    A row that is masked everywhere gives zeros, not NaN.
    """
    x = as_tensor(x)
    if mask is None:
        return shares(x, axes_of(x.ndim, axis))
    mask = as_tensor(mask)
    lowest = float(np.finfo(x.dtype).min) / 2  # far below all, and finite when something is subtracted
    return where(mask, shares(where(mask, x, lowest), axes_of(x.ndim, axis)), 0.0)


def one_hot(index, classes: int, dtype: DTypeLike = "float32") -> Tensor:
    """Integers of any shape (…) as rows (…, classes) with a single 1.

    Raises InputError for an index outside 0 … classes − 1.
    """
    index = as_tensor(index)
    if index.dtype.kind not in "iu":
        raise InputError(f"one_hot of {describe(index)}: give integers")
    if not index.is_symbol and index.size and not (index.value.min() >= 0 and index.value.max() < classes):
        raise InputError(
            f"one_hot: {index.value.min()} … {index.value.max()} outside the classes 0 … {classes - 1}"
        )
    return _hot(index, classes).astype(dtype)


def _hot(index: Tensor, classes: int) -> Tensor:
    if index.is_symbol:  # what cannot be seen yet is looked at when the program runs
        index = apply(INSIDE, (index,), (classes,))
    return index.reshape((*index.shape, 1)) == np.arange(classes)


def cross_entropy(logits, targets, mask=None) -> Tensor:
    """−log p(target), averaged over all places, from logits (…, K).

    targets : integers (…) or distributions (…, K), e.g. one-hot rows.
    mask : booleans (…); only True places count.  No True place gives 0.

    Raises ShapeError for targets of another shape and InputError for classes outside 0 … K − 1.
    """
    logits = as_tensor(logits)
    targets = as_tensor(targets, logits)
    by_class = targets.dtype.kind in "iu" and targets.ndim != logits.ndim
    if by_class:
        if tuple(targets.shape) != tuple(logits.shape[:-1]):
            raise ShapeError(
                f"cross_entropy: targets {describe(targets)} do not fit logits {describe(logits)}"
            )
        one_hot(targets, logits.shape[-1])  # refuses classes that there are not
        scores = where(_hot(targets, logits.shape[-1]), logits, 0.0)  # others may be −∞
    elif tuple(targets.shape) != tuple(logits.shape):
        raise ShapeError(f"cross_entropy: targets {describe(targets)} do not fit logits {describe(logits)}")
    else:
        scores = logits * targets
    losses = logsumexp(logits, -1) - scores.sum(axis=-1)
    if mask is None:
        return mean(losses)
    mask = as_tensor(mask)
    count = maximum(mask.astype(logits.dtype).sum(), 1.0)
    return where(mask, losses, 0.0).sum() / count


def mse(prediction, target) -> Tensor:
    """The mean squared error; raises ShapeError where shapes differ (nothing is broadcast)."""
    prediction = as_tensor(prediction)
    target = as_tensor(target, prediction)
    if tuple(prediction.shape) != tuple(target.shape):
        raise ShapeError(f"mse of {describe(prediction)} and {describe(target)}: shapes must be the same")
    difference = prediction - target
    return mean(difference * difference)


def layer_norm(x, gain=None, bias=None, epsilon: float = 1e-5) -> Tensor:
    """(x − mean) / √(variance + ε) over the last axis, times gain, plus bias (Ba et al., 2016)."""
    x = as_tensor(x)
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
