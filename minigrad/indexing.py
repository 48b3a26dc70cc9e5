"""Indexing and shapes as in NumPy: `reshape`, `transpose`; numbers, slices, None, … and integer arrays in brackets,
each a slice, a reshape or a gather.  Sizes may be those of a trace, and indices its symbols.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np

from .errors import DTypeError, GraphError, InputError, ShapeError, first_outside
from .ops import INSIDE, RESHAPE, SLICE, TRANSPOSE, broadcast, gather, where
from .sizes import Size, arange, held, quotient, resolve
from .tensor import _ARRAY_FUNCTIONS, _FUNCTIONS, Tensor, apply, as_tensor, describe, modes


def getitem(x: Tensor, index) -> Tensor:
    """Numbers, slices, None, …, integer arrays and boolean masks, as in NumPy.

    An array is a tensor, an array or a list of integers, which may count from the end; several broadcast.  A mask
    picks where it is True; it has to be known, as the shape depends on it.  Raises InputError, naming the tensor and
    the range, for an index outside, ShapeError for more of them than axes and for shapes that do not fit, and DTypeError
    for one that is not a place.
    """
    y, axis, shape = x, 0, []
    items = _items(x, index if isinstance(index, tuple) else (index,))
    if _stand_apart(items):
        return _apart(x, items)
    for item in items:
        if item is None:
            shape.append(1)
            continue
        if isinstance(item, list):
            y, count = _take(y, axis, item)
            shape.extend(y.shape[axis : axis + count])
            axis += count
            continue
        y, kept = _one_index(y, axis, item)
        if kept:
            shape.append(y.shape[axis])
        axis += 1
    shape.extend(y.shape[axis:])
    whole = len(shape) == len(y.shape) and not any(item is None for item in items)
    return y if whole else reshape(y, tuple(shape))


def _items(x: Tensor, index: tuple) -> Sequence:
    """One item for each axis that is indexed, and None for new ones; arrays that stand side by side are one list."""
    if len(index) <= x.ndim and set(map(type, index)) <= {int, slice}:
        return index  # as nearly always
    items = [i for item in index for i in _item(x, item)]
    used = sum(i is not None and i is not Ellipsis for i in items)
    dots = [k for k, i in enumerate(items) if i is Ellipsis]
    if used > x.ndim or len(dots) > 1:
        raise ShapeError(f"{used} indices for {describe(x)}")
    if dots:
        items[dots[0] : dots[0] + 1] = [slice(None)] * (x.ndim - used)
    _check_masks(x, items)
    arrays = [k for k, i in enumerate(items) if _is_array(i)]
    if not any(items[k].ndim for k in arrays):
        return [[i] if _is_array(i) else i for i in items]
    # Numbers beside arrays are arrays too, in NumPy.
    arrays = [k for k, i in enumerate(items) if i is not None and not isinstance(i, slice)]
    first, last = arrays[0], arrays[-1] + 1
    if dots and first < dots[0] < last and len(arrays) == last - first:  # an empty … stands between them
        return [[i] if k in arrays else i for k, i in enumerate(items)]
    if len(arrays) == last - first:
        items[first:last] = [items[first:last]]
        return items
    return [[i] if k in arrays else i for k, i in enumerate(items)]


def _is_array(i) -> bool:
    return isinstance(i, (Tensor, np.ndarray))


class _Picked(np.ndarray):
    """One of the indices of a mask, which remembers the size that the mask has along its axis."""

    size_of_mask: int


def _item(x: Tensor, i) -> tuple:
    """A list as an array, an array without axes as its number, if that is known, and a mask as places."""
    if isinstance(i, list):
        i = np.asarray(i) if i else np.asarray(i, int)
    if not _is_array(i):
        return (i,)
    if not i.ndim and not _is_live(i):
        return (np.asarray(i)[()],)
    if i.dtype == bool:
        if _is_live(i):
            raise DTypeError(
                f"a boolean mask of {describe(x)} is computed: how much it picks, and so the result's shape, is not known "
                "while tracing; use minigrad.where, which keeps the shape, e.g. where(mask, x, 0)"
            )
        return _places_of_mask(np.asarray(i))
    if i.dtype.kind not in "iu":
        raise DTypeError(f"index of {describe(x)}: arrays must hold integers")
    return (i,)


def _places_of_mask(mask: np.ndarray) -> tuple:
    places = tuple(p.view(_Picked) for p in np.nonzero(mask))
    for p, n in zip(places, mask.shape, strict=True):
        p.size_of_mask = n
    return places


def _check_masks(x: Tensor, items: Sequence) -> None:
    """A mask has to be as long as the axes that it masks."""
    axis = 0
    for i in items:
        if isinstance(i, _Picked) and x.shape[axis] != i.size_of_mask:
            raise ShapeError(
                f"boolean mask of {describe(x)}: {i.size_of_mask} along axis {axis}, which has {x.shape[axis]}"
            )
        axis += i is not None


def _stand_apart(items: Sequence) -> bool:
    """Are there several groups of arrays, with something else between them?"""
    groups = [i for i in items if isinstance(i, list)]
    return len(groups) > 1 and any(getattr(g[0], "ndim", 0) for g in groups)


def _apart(x: Tensor, items: Sequence) -> Tensor:
    """Arrays with something else between them: NumPy puts their axes first."""
    rest = tuple(slice(None) if isinstance(i, list) else i for i in items)
    y = getitem(x, rest)
    at = [k for k, i in enumerate(items) if isinstance(i, list)]
    others = [k for k in range(y.ndim) if k not in at]
    arrays = tuple(i[0] for i in items if isinstance(i, list))
    return getitem(transpose(y, (*at, *others)), arrays)


def _is_live(i) -> bool:
    """May an index be another one when the traced program runs?"""
    return isinstance(i, Tensor) and (i.is_symbol or modes()[3])


def _one_index(x: Tensor, axis: int, item) -> tuple[Tensor, bool]:
    """A slice or a number along one axis, and whether the axis stays."""
    size = x.shape[axis]
    if isinstance(item, slice):
        if item == slice(None):
            return x, True
        return apply(SLICE, (x,), (axis, *_bounds(x, size, item))), True
    if isinstance(item, (bool, np.bool_)):
        raise DTypeError(f"index {item} of {describe(x)}: a truth value is not an index; use minigrad.where")
    try:
        k = item if isinstance(item, Size) else item.__index__()
    except (AttributeError, TypeError):
        raise DTypeError(
            f"index {item!r} of {describe(x)}: use numbers, slices, None, … or integer arrays"
        ) from None
    if isinstance(size, int) and isinstance(k, int):
        at, inside = k + size if k < 0 else k, -size <= k < size
    else:
        at = k if held(k, 0) else k + size
        inside = held(at, 0) and held(size - 1 - at, 0)
    if not inside:
        raise InputError(f"index {k} outside axis {axis} of {describe(x)}, 0 … {size - 1}")
    return apply(SLICE, (x,), (axis, at, at + 1, 1)), False


def _bounds(x: Tensor, size, item: slice) -> tuple:
    """(start, stop, step) of a slice: the stop on the grid, and below 0 where a slice backwards has the first element."""
    try:
        start, stop, step = item.indices(size)
        count = len(range(start, stop, step))
    except GraphError:  # sizes that are not known while tracing
        start, count, step = _unknown_bounds(size, item)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"index {item} of {describe(x)}: {error}") from None
    if isinstance(count, int) and not count:  # a start before the beginning would be read from the end
        return 0, 0, 1
    return start, resolve(start + count * step), step


def _unknown_bounds(size, item: slice) -> tuple:
    """(start, length, step), of which the last is a number.  Whatever lies inside now is demanded to at every call."""
    given = item.start, item.stop
    first, last = (None if isinstance(b, Size) else b for b in given)
    _, _, step = slice(first, last, item.step).indices(1)
    low, high = (0, size) if step > 0 else (-1, size - 1)
    ends = (low, high) if step > 0 else (high, low)
    start, stop = (e if b is None else _clipped(b, size, low, high) for b, e in zip(given, ends, strict=True))
    by, length = abs(step), stop - start if step > 0 else start - stop
    return start, length if by == 1 and held(length, 0) else quotient(length + by - 1, by), step


def _clipped(bound, size, low, high):
    """Where a bound of a slice lies, between `low` and `high`."""
    bound = bound if isinstance(bound, Size) else operator.index(bound)
    if held(bound, 0):
        return bound if held(high - bound, 0) else resolve(high - quotient(high - bound, 1))
    bound = resolve(size + bound)
    return bound if held(bound - low, 0) else resolve(low + quotient(bound - low, 1))


def _take(x: Tensor, axis: int, indices: Sequence) -> tuple[Tensor, int]:
    """What integer arrays name along the axes from `axis` on, and in how many axes it stands.

    These axes and those before are the rows of one table, so that nothing has to be transposed.
    """
    behind = axis + len(indices)
    before, sizes, after = x.shape[:axis], x.shape[axis:behind], x.shape[behind:]
    alone = behind == 1  # the table is x itself, and gather looks after it
    places = [_places(i, n, x, axis + k, alone) for k, (i, n) in enumerate(zip(indices, sizes, strict=True))]
    try:
        own = broadcast(*(i.shape for i in places))
    except ShapeError as error:
        raise ShapeError(f"index of {describe(x)}: {error}") from None
    flat = places[0]
    for i, n in zip(places[1:], sizes[1:], strict=True):
        flat = flat * n + i
    if alone:
        return gather(x, flat), len(own)
    rows, count = math.prod(before), math.prod(sizes)
    if axis:
        firsts = np.arange(rows) if isinstance(rows, int) else arange(rows)
        flat = firsts.reshape((rows, *(1,) * len(own))) * count + flat
    y = gather(x.reshape((rows * count, *after)), flat)
    return reshape(y, (*before, *own, *after)), len(own)


def _places(i, size, x: Tensor, axis: int, alone: bool):
    """An index as places 0 … size − 1: an array if all is known, else a tensor that is looked at when the program runs."""
    of = f"axis {axis} of {describe(x)}"
    if not _is_live(i):
        i = np.asarray(i)
        if i.dtype.kind not in "iu":
            raise DTypeError(f"index of {describe(x)}: arrays must hold integers")
        i = i.astype(np.int64)  # i + size may be too large for small integers
        if isinstance(size, int):
            if found := first_outside(i, -size, size, of):
                raise InputError(found)
            return np.where(i < 0, i + size, i)
    below = _is_live(i) or i.min(initial=0) < 0
    i = as_tensor(i).astype("int64")
    i = where(i < 0, i + size, i) if below else i
    return i if alone else apply(INSIDE, (i,), (size, of, ""))


def reshape(x, *shape) -> Tensor:
    """The same elements in another shape; one size may be −1.  Raises ShapeError where they do not fit into it."""
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
    """Axes in another order (none given: reversed); raises ShapeError unless each comes once."""
    x = as_tensor(x)
    order = axes[0] if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], Sequence)) else axes
    order = tuple(a + x.ndim if a < 0 else a for a in order) if order else tuple(reversed(range(x.ndim)))
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"transpose of {describe(x)}: {order} is not an order of its {x.ndim} axes")
    if order == tuple(range(x.ndim)):
        return x
    return apply(TRANSPOSE, (x,), (order,))


def swapaxes(x, a: int, b: int) -> Tensor:
    """Two axes exchanged; raises ShapeError for an axis that does not exist."""
    x = as_tensor(x)
    axes = list(range(x.ndim))
    try:
        axes[a], axes[b] = axes[b], axes[a]
    except IndexError:
        raise ShapeError(f"swapaxes({a}, {b}) of {describe(x)}: there is no such axis") from None
    return transpose(x, axes)


_FUNCTIONS.update(getitem=getitem, reshape=reshape, transpose=transpose, swapaxes=swapaxes)
_ARRAY_FUNCTIONS.update(
    reshape=lambda a, shape: reshape(a, shape), transpose=lambda a, axes=None: transpose(a, axes)
)
