"""Indexing and shapes as in NumPy: `reshape`, `transpose`; numbers, slices, None, … and integer arrays in brackets,
each a slice, a reshape or a gather.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .errors import DTypeError, GraphError, ShapeError
from .ops import RESHAPE, SLICE, TRANSPOSE, gather
from .sizes import Size, at_least
from .tensor import _ARRAY_FUNCTIONS, _FUNCTIONS, Tensor, apply, as_tensor, describe


def getitem(x: Tensor, index) -> Tensor:
    """Numbers, slices, None, … and integer arrays on leading axes, as in NumPy."""
    items = index if isinstance(index, tuple) else (index,)
    items = tuple(
        np.asarray(i)[()] if isinstance(i, (Tensor, np.ndarray)) and not i.ndim else i for i in items
    )
    arrays = [i for i in items if isinstance(i, (np.ndarray, list, Tensor))]
    if arrays:
        return _advanced(x, items, len(arrays))
    used = sum(i is not None and i is not Ellipsis for i in items)
    if used > x.ndim or items.count(Ellipsis) > 1:
        raise ShapeError(f"{used} indices for {describe(x)}")
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items = (*items[:at], *(slice(None),) * (x.ndim - used), *items[at + 1 :])
    y, axis, shape = x, 0, []
    for item in items:
        if item is None:
            shape.append(1)
            continue
        y, kept = _one_index(y, axis, item)
        if kept:
            shape.append(y.shape[axis])
        axis += 1
    shape.extend(y.shape[axis:])
    return y if len(shape) == len(y.shape) and None not in items else reshape(y, tuple(shape))


def _one_index(x: Tensor, axis: int, item) -> tuple[Tensor, bool]:
    size = x.shape[axis]
    if isinstance(item, slice):
        if item == slice(None):
            return x, True
        if not isinstance(size, int):
            start, stop = _unknown_slice(x, size, item)
            return apply(SLICE, (x,), (axis, start, stop, 1)), True
        try:
            start, stop, step = item.indices(size)
        except (TypeError, ValueError) as error:
            raise DTypeError(f"index {item} of {describe(x)}: {error}") from None
        count = len(range(start, stop, step))
        stop = start + count * step  # on the grid, and below 0 where the first element is in
        if not count:  # a start before the beginning would be read from the end
            start, stop, step = 0, 0, 1
        return apply(SLICE, (x,), (axis, start, stop, step)), True
    if isinstance(item, (bool, np.bool_)):
        raise DTypeError(f"index {item} of {describe(x)}: a truth value is no place; use minigrad.where")
    try:
        k = item.__index__()
    except (AttributeError, TypeError):
        raise DTypeError(
            f"index {item!r} of {describe(x)}: use numbers, slices, None, … or integer arrays"
        ) from None
    hint = size if isinstance(size, int) else at_least(size, k + 1 if k >= 0 else -k)
    if not -hint <= k < hint:
        raise ShapeError(f"index {k} outside {describe(x)}, whose axis {axis} has {size}")
    k = k + size if k < 0 else k
    return apply(SLICE, (x,), (axis, k, k + 1, 1)), False


def _unknown_slice(x: Tensor, size, item: slice) -> tuple:
    """(start, stop) along an axis whose size is not known while tracing; its bounds must lie inside at every call."""
    bounds = []
    for bound, default in ((item.start, 0), (item.stop, size)):
        if bound is None or bound is size:
            bounds.append(default)
        elif isinstance(bound, (int, np.integer)) and abs(bound) <= at_least(size, abs(int(bound))):
            bounds.append(int(bound) if bound >= 0 else size + int(bound))
        else:
            raise GraphError(
                f"slice {item} of {describe(x)}: its bounds depend on a size that is not known while tracing"
            )
    start, stop = bounds
    length = stop - start
    if item.step not in (None, 1) or (at_least(length, 0) if isinstance(length, Size) else length) < 0:
        raise GraphError(
            f"slice {item} of {describe(x)}: its length depends on a size that is not known while tracing"
        )
    return start, stop


def _advanced(x: Tensor, items: tuple, count: int) -> Tensor:
    """Integer arrays on the leading axes: rows of the flattened leading axes."""
    if len(items) != count:
        raise DTypeError(
            f"index of {describe(x)}: arrays mixed with slices are not supported; index in two goes"
        )
    indices = [np.asarray(i, dtype=int if isinstance(i, list) and not i else None) for i in items]
    if any(i.dtype == bool for i in indices):
        raise DTypeError(
            f"a boolean mask of {describe(x)} has a shape that depends on data; use minigrad.where"
        )
    if any(i.dtype.kind not in "iu" for i in indices):
        raise DTypeError(f"index of {describe(x)}: arrays must hold integers")
    sizes = x.shape[:count]
    for i, n in zip(indices, sizes, strict=True):
        if i.size and (i.min() < -n or i.max() >= n):
            raise ShapeError(f"index {i.min()} … {i.max()} outside 0 … {n - 1} of {describe(x)}")
    indices = [i.astype(np.int64) for i in indices]  # i + n may be too large for small integers
    indices = [np.where(i < 0, i + n, i) for i, n in zip(indices, sizes, strict=True)]
    flat = np.ravel_multi_index(np.broadcast_arrays(*indices), sizes)
    return gather(x if count == 1 else x.reshape((math.prod(sizes), *x.shape[count:])), flat)


def reshape(x, *shape) -> Tensor:
    """The same elements in another shape; one size may be −1."""
    x = as_tensor(x)
    new = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    if -1 in [n for n in new if isinstance(n, int)]:
        known, total = 1, 1
        for n in new:
            known = known * (1 if isinstance(n, int) and n == -1 else n)
        for n in x.shape:
            total = total * n
        if isinstance(known, int) and (known == 0 or (isinstance(total, int) and total % known)):
            raise ShapeError(f"reshape of {describe(x)} to {new}: {total} elements do not divide by {known}")
        new = tuple(total // known if isinstance(n, int) and n == -1 else n for n in new)
    return apply(RESHAPE, (x,), (tuple(n if not isinstance(n, np.integer) else int(n) for n in new),))


def transpose(x, *axes) -> Tensor:
    """Axes in another order (none given: reversed)."""
    x = as_tensor(x)
    order = axes[0] if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], Sequence)) else axes
    order = tuple(a + x.ndim if a < 0 else a for a in order) if order else tuple(reversed(range(x.ndim)))
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"transpose of {describe(x)}: {order} is no order of its {x.ndim} axes")
    if order == tuple(range(x.ndim)):
        return x
    return apply(TRANSPOSE, (x,), (order,))


_FUNCTIONS.update(getitem=getitem, reshape=reshape, transpose=transpose)
_ARRAY_FUNCTIONS.update(
    reshape=lambda a, shape: reshape(a, shape), transpose=lambda a, axes=None: transpose(a, axes)
)
