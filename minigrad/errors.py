"""The library's own kinds of error.

Each is also the built-in kind that a NumPy user expects, so that
``except ValueError`` keeps working.  A message names the node or step, the
shapes or the value, and the remedy.
"""


class MinigradError(Exception):
    """Base of everything that minigrad raises on purpose."""


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


class LayoutError(MinigradError, RuntimeError):
    """Graphviz is absent, failed, or took longer than its time limit."""
