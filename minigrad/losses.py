"""Losses: compositions whose result is one number, to be minimised.

All take logits, not probabilities; a `mask` says what counts (what does not may hold anything, NaN too); `reduction`
is "mean" over what counts, "sum", or "none" for a loss at every place.  Nothing here has a derivative rule of its own.
"""

from __future__ import annotations

import numpy as np

from .errors import InputError, ShapeError
from .functional import (
    _floating,
    _hot,
    _less_largest,
    _log_total,
    _single,
    log_softmax,
    logsumexp,
    mean,
    softplus,
    stack,
    within,
)
from .ops import broadcast_to, concat, gather, maximum, minimum, sum, where
from .scanning import scan
from .sizes import Size, arange
from .tensor import Tensor, as_tensor, describe

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(
    logits,
    targets,
    mask=None,
    ignore_index: int | None = None,
    *,
    weights=None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """−log p(target), averaged over all places, from logits (…, K).

    targets : integers (…), or weights (…, K) of the classes, e.g. distributions or one-hot rows; the loss of
        weights t is −Σ t log p, whatever they sum to.
    mask : booleans (…); only True places count.  No True place gives 0.
    ignore_index : places whose target is this integer do not count, e.g. those of padding.
    weights : (K,), how much each class counts; with targets that are integers the mean is that over the weights of
        the targets.
    label_smoothing : ε in 0 … 1; the target becomes (1 − ε) · target + ε / K (Szegedy et al., 2016).
    reduction : "mean", "sum", or "none" for a loss at every place (…), which is 0 where nothing counts.

    A logit of −∞ is a probability of 0.  Places that do not count may hold anything in their logits, NaN too.
    Raises ShapeError for targets, weights or a mask of another shape and InputError for classes outside 0 … K − 1,
    which it names with their place, and for another reduction.
    """
    logits = _floating(logits)
    if logits.dtype == np.float16:

        def half(x, t, m, i, w):
            return cross_entropy(x, t, m, i, weights=w, label_smoothing=label_smoothing, reduction=reduction)

        return _single(half, logits, targets, mask, ignore_index, weights)
    _check_reduction("cross_entropy", reduction)
    if not 0 <= label_smoothing <= 1:
        raise InputError(f"cross_entropy: label_smoothing is {label_smoothing}; give a number in 0 … 1")
    targets = as_tensor(targets)
    by_class = targets.dtype.kind in "iu" and targets.ndim != logits.ndim
    places = tuple(logits.shape[:-1])
    if tuple(targets.shape) != (places if by_class else tuple(logits.shape)):
        raise ShapeError(
            f"cross_entropy: targets {describe(targets)} do not fit logits {describe(logits)}"
            + _the_other_way("targets", targets.shape, places if targets.ndim < logits.ndim else logits.shape)
            + _classes_second(targets.shape, logits.shape)
        )
    if weights is not None:
        weights = as_tensor(weights, logits).astype(logits.dtype)
        if tuple(weights.shape) != tuple(logits.shape[-1:]):
            raise ShapeError(
                f"cross_entropy: weights {describe(weights)} do not fit logits {describe(logits)}"
            )
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
    logits = _less_largest(logits, -1)
    if by_class and not label_smoothing:
        losses = _losses_of_classes(logits, targets)
        counts = None if weights is None else gather(weights, targets)
        losses = losses if counts is None else counts * losses
    else:
        rows = _hot("cross_entropy", targets, logits.shape[-1]) if by_class else targets
        rows = rows.astype(logits.dtype) if rows.dtype.kind != "f" else rows
        if label_smoothing:
            rows = rows * (1 - label_smoothing) + as_tensor(label_smoothing, logits) / logits.shape[-1]
        counts = gather(weights, targets) if by_class and weights is not None else None
        losses = _losses_of_weights(logits, rows if weights is None else rows * weights)
    return _reduced(losses, mask, reduction, counts)


def _the_other_way(name: str, given: tuple, wanted: tuple) -> str:
    """A remedy where shapes fit as soon as the first two axes of one are exchanged."""
    known = all(isinstance(n, int) for n in (*given, *wanted))
    fits = known and len(given) > 1 and (given[1], given[0], *given[2:]) == tuple(wanted)
    return f"; steps come before sequences in all: {name}.swapaxes(0, 1) would fit" if fits else ""


def _classes_second(targets: tuple, logits: tuple) -> str:
    """The same where the classes of the logits are axis 1, behind the sequences."""
    known = all(isinstance(n, int) for n in (*targets, *logits))
    if not known or len(logits) < 3 or targets != (logits[0], *logits[2:]):
        return ""
    axes = (0, *range(2, len(logits)), 1)
    return f"; classes are the last axis of the logits: logits.transpose({axes}) would fit"


def _losses_of_classes(logits: Tensor, targets: Tensor) -> Tensor:
    hot = _hot("cross_entropy", targets, logits.shape[-1])
    return _log_total(logits, -1) - sum(where(hot, logits, 0.0), -1)  # the others may be −∞


def _losses_of_weights(logits: Tensor, weights: Tensor) -> Tensor:
    lowest = float(np.finfo(logits.dtype).min)
    finite = where(weights == 0, maximum(logits, lowest), logits)  # 0 · log 0 is 0
    return sum(weights, -1) * _log_total(logits, -1) - sum(weights * finite, -1)


def binary_cross_entropy(logits, targets, mask=None, *, pos_weight=None, reduction: str = "mean") -> Tensor:
    """−t log σ(x) − (1 − t) log(1 − σ(x)) from logits x of any shape, averaged; stable for logits of any size.

    targets : t of the same shape, 0 … 1, or booleans.
    mask : booleans of that shape, or of its first axes, e.g. (T, N) for logits (T, N, D); only True places count.
        No True place gives 0.
    pos_weight : what t log σ(x) is multiplied by, a number or an array that broadcasts, e.g. (D,); above 1 it makes
        up for few positives.
    reduction : "mean", "sum", or "none" for a loss at every place.

    Raises ShapeError for targets or a mask of another shape, and InputError for another reduction.
    """
    logits = _floating(logits)
    if logits.dtype == np.float16:
        half = lambda x, t, m, p: binary_cross_entropy(x, t, m, pos_weight=p, reduction=reduction)  # noqa: E731
        return _single(half, logits, targets, mask, pos_weight)
    targets = as_tensor(targets, logits)
    targets = targets if targets.dtype.kind == "f" else targets.astype(logits.dtype)
    mask = _fitting("binary_cross_entropy", logits, targets, mask, reduction)
    if mask is not None:
        logits, targets = where(mask, logits, 0.0), where(mask, targets, 0.0)
    positive = targets
    if pos_weight is not None:
        positive = targets * as_tensor(pos_weight, logits).astype(logits.dtype)
    losses = positive * softplus(-logits) + (1 - targets) * softplus(logits)
    return _reduced(losses, mask, reduction)


def mse(prediction, target, mask=None, *, reduction: str = "mean") -> Tensor:
    """The mean squared error of arrays of any one shape.

    mask : booleans of that shape, or of its first axes, e.g. (T, N) for (T, N, D); only True places count, and may
        alone be numbers.  No True place gives 0.
    reduction : "mean", "sum", or "none" for a loss at every place.

    Raises ShapeError where shapes differ (nothing is broadcast), and InputError for another reduction.
    """
    return _of_differences("mse", lambda d: d * d, prediction, target, mask, reduction)


def mae(prediction, target, mask=None, *, reduction: str = "mean") -> Tensor:
    """The mean absolute error (L1); at a difference of 0 its gradient is 0.

    `mask`, `reduction` and errors as in `mse`.
    """
    return _of_differences("mae", abs, prediction, target, mask, reduction)


def huber(prediction, target, mask=None, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """d²/2 where |d| ≤ δ, else δ·(|d| − δ/2): squared near 0, absolute far out (Huber, 1964).

    With δ = 1 it is the smooth L1 loss; that of another β is ``huber(…, delta=β) / β``.  `mask`, `reduction` and
    errors as in `mse`; InputError for a δ that is not positive, too.
    """
    if not delta > 0:
        raise InputError(f"huber: delta is {delta}; give a positive number")

    def of(difference: Tensor) -> Tensor:
        size = abs(difference)
        near = minimum(size, delta)
        return near * (size - near / 2)

    return _of_differences("huber", of, prediction, target, mask, reduction)


def _of_differences(who: str, of, prediction, target, mask, reduction: str) -> Tensor:
    prediction = _floating(prediction)
    if prediction.dtype == np.float16:
        half = lambda p, t, m: _of_differences(who, of, p, t, m, reduction)  # noqa: E731
        return _single(half, prediction, target, mask)
    target = as_tensor(target, prediction)
    mask = _fitting(who, prediction, target, mask, reduction)
    difference = prediction - target
    return _reduced(of(difference if mask is None else where(mask, difference, 0.0)), mask, reduction)


def _fitting(who: str, prediction: Tensor, target: Tensor, mask, reduction: str) -> Tensor | None:
    """The mask in the shape of the prediction; raises for shapes and a reduction that do not fit."""
    _check_reduction(who, reduction)
    shape = tuple(prediction.shape)
    if shape != tuple(target.shape):
        raise ShapeError(
            f"{who} of {describe(prediction)} and {describe(target)}: shapes must be the same"
            + _the_other_way("target", target.shape, shape)
        )
    if mask is None:
        return None
    mask = as_tensor(mask)
    if tuple(mask.shape) != shape[: mask.ndim]:
        raise ShapeError(
            f"{who}: the mask {describe(mask)} does not fit {describe(prediction)}; give its shape, or its first axes"
        )
    if mask.ndim < len(shape):
        mask = broadcast_to(mask.reshape((*mask.shape, *[1] * (len(shape) - mask.ndim))), shape)
    return mask


def _check_reduction(who: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise InputError(f'{who}: reduction = {reduction!r}; give "mean", "sum" or "none"')


def _reduced(losses: Tensor, mask: Tensor | None, reduction: str, weights: Tensor | None = None) -> Tensor:
    """What counts of the losses, reduced; weights : of the places, for their mean."""
    if mask is None and weights is None and reduction == "mean":
        return mean(losses)
    counted = losses if mask is None else where(mask, losses, 0.0)
    if reduction != "mean":
        return counted if reduction == "none" else sum(counted)
    if weights is None:
        assert mask is not None
        return sum(counted) / maximum(sum(mask.astype(losses.dtype)), 1.0)
    total = sum(weights if mask is None else where(mask, weights, 0.0))
    return sum(counted) / where(total == 0, 1.0, total)


def ctc_loss(
    logits,
    targets,
    input_lengths=None,
    target_lengths=None,
    *,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """−log p(targets), summed over all ways to write them into the steps (Graves et al., 2006).

    A way writes a class or the blank at every step; repeated classes are then joined and blanks dropped, so that
    "aa" needs a blank between.

    logits : (T, N, K); log-probabilities are logits, too.
    targets : integers (N, S), without blanks; what lies beyond a target's length may be anything.
    input_lengths, target_lengths : integers (N,): how many steps and classes of each sequence count; None: all.
    blank : the class that stands for nothing.
    reduction : "mean" over the sequences of loss / length of the target (at least 1), "sum", or "none" for (N,).
    zero_infinity : an infinite loss, of a target for which there are too few steps or no way has a probability, counts
        as 0.  Its gradient is 0 either way.

    Raises ShapeError for shapes that do not fit, and InputError for classes outside 0 … K − 1, lengths beyond T or S
    or below 0, a blank that is not a class, and another reduction.
    """
    logits, targets = _floating(logits), as_tensor(targets)
    if logits.dtype == np.float16:
        chosen = dict(blank=blank, reduction=reduction, zero_infinity=zero_infinity)
        return _single(
            lambda x, *rest: ctc_loss(x, *rest, **chosen), logits, targets, input_lengths, target_lengths
        )
    _check_reduction("ctc_loss", reduction)
    if logits.ndim != 3 or targets.ndim != 2 or logits.shape[1] != targets.shape[0]:
        raise ShapeError(
            f"ctc_loss of {describe(logits)} and {describe(targets)}: give logits (steps, sequences, classes) and "
            "targets (sequences, length)"
        )
    T, N, K = logits.shape
    S = targets.shape[1]
    nothing = within("ctc_loss: blank", as_tensor(np.array(blank, np.int64)), K, "the classes")
    input_lengths = _lengths("input_lengths", input_lengths, N, T, "the steps")
    lengths = _lengths("target_lengths", target_lengths, N, S, "the targets")
    if lengths is not None:
        targets = where(arange(S).reshape((1, S)) < lengths.reshape((N, 1)), targets, blank)
    labels = _with_blanks(
        within("ctc_loss", targets, K, "the classes").astype("int64"), nothing
    )  # (N, 2S + 1)
    forward = _alphas(log_softmax(logits), labels, input_lengths)
    # All of the target is written at its last class, or at the blank behind it.
    at, end = (
        arange(2 * S + 1).reshape((1, 2 * S + 1)),
        2 * (S if lengths is None else lengths.reshape((N, 1))),
    )
    last = where(at == end, True, at == end - 1)
    losses = -logsumexp(where(last, forward, -np.inf), -1)
    if zero_infinity:
        losses = where(losses == np.inf, 0.0, losses)
    if reduction == "mean":
        counts = S if lengths is None else lengths
        losses = losses / maximum(as_tensor(counts).astype(losses.dtype), 1.0)
    return _reduced(losses, None, reduction)


def _lengths(name: str, lengths, N, most, of: str) -> Tensor | None:
    if lengths is None:
        return None
    lengths = as_tensor(lengths)
    if tuple(lengths.shape) != (N,):
        raise ShapeError(
            f"ctc_loss: {name} {describe(lengths)}; give one length for each of the {N} sequences"
        )
    return within(f"ctc_loss: {name}", lengths, most + 1, of)


def _with_blanks(targets: Tensor, blank: Tensor) -> Tensor:
    """(N, S) → (N, 2S + 1): a blank before, between and behind."""
    N, S = targets.shape
    pairs = stack([broadcast_to(blank.reshape((1, 1)), (N, S)), targets], axis=2).reshape((N, 2 * S))
    return concat(pairs, broadcast_to(blank.reshape((1, 1)), (N, 1)), axis=1)


def _alphas(log_p: Tensor, labels: Tensor, lengths: Tensor | None) -> Tensor:
    """log of the probability that all steps have written the labels up to each place, (N, L)."""
    T, N, K = log_p.shape
    L = labels.shape[1]
    never = broadcast_to(as_tensor(np.full((1, 1), -np.inf, log_p.dtype)), (N, 1))
    # Two places on only past a blank between different classes; before the first step, all is at the first blank.
    longer = isinstance(L, Size) or L > 1
    fresh = concat(labels[:, :1] < 0, labels[:, :1] < 0, labels[:, 2:] != labels[:, :-2]) if longer else None
    start = broadcast_to(where(arange(L).reshape((1, L)) == 0, 0.0, -np.inf).astype(log_p.dtype), (N, L))
    rows = labels + arange(N).reshape((N, 1)) * K  # in a step's log-probabilities as one column

    def step(before, now):
        p, t = now
        ways = [before]
        if fresh is not None:
            ways.append(concat(never, before[:, :-1]))
            ways.append(where(fresh, concat(never, never, before[:, :-2]), -np.inf))
        after = logsumexp(stack(ways), 0) + gather(p.reshape((N * K,)), rows)
        return (after if lengths is None else where(t < lengths.reshape((N, 1)), after, before)), None

    return scan(step, start, (log_p, arange(T)))[0]
