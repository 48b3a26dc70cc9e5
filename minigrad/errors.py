"""The library's own kinds of error.

Each is also the built-in kind that a NumPy user expects, so that
``except ValueError`` keeps working.  A message names the node or step, the
shapes or the value, and the remedy.
"""

from __future__ import annotations

import numpy as np

from .names import printable, shown


class MinigradError(Exception):
    """Base of everything that minigrad raises on purpose."""

    def __str__(self) -> str:
        return shown(super().__str__())  # names stand in it, and a terminal would obey them


class ShapeError(MinigradError, ValueError):
    """Shapes that an operation or a cell cannot take."""


class DTypeError(MinigradError, TypeError):
    """Element types that do not fit, or that have no gradient."""


class GraphError(MinigradError, RuntimeError):
    """A graph that cannot be differentiated, drawn or compiled as asked."""


class NonFiniteError(MinigradError, ArithmeticError):
    """A value or gradient that is NaN or infinite, found in anomaly mode."""


class InputError(MinigradError, ValueError):
    """Data or an option from outside that makes no sense."""


class TooLargeError(MinigradError, MemoryError):
    """A computation that takes more memory than there is."""


class LayoutError(MinigradError, RuntimeError):
    """Graphviz is absent, failed, or took longer than its time limit."""


# How messages speak of nodes, shapes and values.


def dims(shape: tuple) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def describe(node) -> str:
    """A node in the words of an error message: name, operation, place, shape, dtype."""
    what = repr(printable(node.name)) if node.name else (node.op.name if node.op else "a constant")
    origin = f" ({node.op.name})" if node.op and node.name else ""
    where = f" in {' / '.join(map(printable, node.scope))}" if node.scope else ""
    return f"{what}{origin}{where} {dims(node.shape)} {node.dtype}"


def first_outside(index: np.ndarray, low: int, count: int, of: str, who: str = "") -> str:
    """The first of these indices that is not low … count − 1, with its place; "" if all are.

    Such as "index 5 at (1, 2) outside the classes, 0 … 4"; who : what stands before it.
    """
    bad = (index < low) | (index >= count)
    if not bad.any():
        return ""
    at = tuple(map(int, np.unravel_index(int(np.argmax(bad)), bad.shape)))
    return f"{who}index {index[at]}{f' at {at}' if at else ''} outside {of}, 0 … {count - 1}"


def first_bad(value: np.ndarray) -> str:
    """The first element that is not finite, in words."""
    at = np.unravel_index(int(np.argmin(np.isfinite(value))), value.shape)
    return f"{value[at]} at {tuple(map(int, at))}" if value.ndim else str(value[()])
