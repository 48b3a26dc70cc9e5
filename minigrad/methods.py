"""What NumPy's users write on a tensor besides arithmetic: methods, and the operators % // & | ^ ~.

Each calls the function of the same name, which says more; the files that have the functions put them into
`_FUNCTIONS`, so that nothing is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .hints import TENSOR, attributes_of, hint_methods, say_what_is_elsewhere

_FUNCTIONS: dict[str, Callable[..., Any]] = {}


class Methods:
    """The part of `Tensor` that is not needed to read the engine."""

    __slots__ = ()

    def __rpow__(self, base):
        return _FUNCTIONS["power"](base, self)

    def __mod__(self, other):
        return _FUNCTIONS["mod"](self, other)

    def __rmod__(self, other):
        return _FUNCTIONS["mod"](other, self)

    def __floordiv__(self, other):
        return _FUNCTIONS["floor_divide"](self, other)

    def __rfloordiv__(self, other):
        return _FUNCTIONS["floor_divide"](other, self)

    def __and__(self, other):
        return _FUNCTIONS["bitwise_and"](self, other)

    def __rand__(self, other):
        return _FUNCTIONS["bitwise_and"](other, self)

    def __or__(self, other):
        return _FUNCTIONS["bitwise_or"](self, other)

    def __ror__(self, other):
        return _FUNCTIONS["bitwise_or"](other, self)

    def __xor__(self, other):
        return _FUNCTIONS["bitwise_xor"](self, other)

    def __rxor__(self, other):
        return _FUNCTIONS["bitwise_xor"](other, self)

    def __invert__(self):
        return _FUNCTIONS["invert"](self)

    def __pos__(self):
        return _FUNCTIONS["positive"](self)

    def sum(self, axis=None, keepdims=False):
        """As `minigrad.sum`; raises what that raises."""
        return _FUNCTIONS["sum"](self, axis, keepdims)

    def mean(self, axis=None, keepdims=False):
        """As `minigrad.mean`; raises what that raises."""
        return _FUNCTIONS["mean"](self, axis, keepdims)

    def max(self, axis=None, keepdims=False):
        """As `minigrad.max`; raises what that raises."""
        return _FUNCTIONS["max"](self, axis, keepdims)

    def min(self, axis=None, keepdims=False):
        """As `minigrad.min`; raises what that raises."""
        return _FUNCTIONS["min"](self, axis, keepdims)

    def prod(self, axis=None, keepdims=False):
        """As `minigrad.prod`; raises what that raises."""
        return _FUNCTIONS["prod"](self, axis, keepdims)

    def var(self, axis=None, ddof=0, keepdims=False):
        """As `minigrad.var`; raises what that raises."""
        return _FUNCTIONS["var"](self, axis, ddof, keepdims)

    def std(self, axis=None, ddof=0, keepdims=False):
        """As `minigrad.std`; raises what that raises."""
        return _FUNCTIONS["std"](self, axis, ddof, keepdims)

    def argmax(self, axis=None, keepdims=False):
        """As `minigrad.argmax`; raises what that raises."""
        return _FUNCTIONS["argmax"](self, axis, keepdims)

    def argmin(self, axis=None, keepdims=False):
        """As `minigrad.argmin`; raises what that raises."""
        return _FUNCTIONS["argmin"](self, axis, keepdims)

    def cumsum(self, axis=None):
        """As `minigrad.cumsum`; raises what that raises."""
        return _FUNCTIONS["cumsum"](self, axis)

    def cumprod(self, axis=None):
        """As `minigrad.cumprod`; raises what that raises."""
        return _FUNCTIONS["cumprod"](self, axis)

    def abs(self):
        """As `minigrad.abs`; raises what that raises."""
        return _FUNCTIONS["abs"](self)

    def clip(self, a_min=None, a_max=None):
        """As `minigrad.clip`; raises what that raises."""
        return _FUNCTIONS["clip"](self, a_min, a_max)

    def round(self, decimals=0):
        """As `minigrad.round`; raises what that raises."""
        return _FUNCTIONS["round"](self, decimals)

    def squeeze(self, axis=None):
        """As `minigrad.squeeze`; raises what that raises."""
        return _FUNCTIONS["squeeze"](self, axis)

    def reshape(self, *shape):
        """As `minigrad.reshape`; raises what that raises."""
        return _FUNCTIONS["reshape"](self, *shape)

    def transpose(self, *axes):
        """As `minigrad.transpose`; raises what that raises."""
        return _FUNCTIONS["transpose"](self, *axes)

    def swapaxes(self, a: int, b: int):
        """Two axes exchanged; raises what `transpose` raises."""
        return _FUNCTIONS["swapaxes"](self, a, b)

    @property
    def T(self):
        """The axes in reversed order."""
        return _FUNCTIONS["transpose"](self)

    def __dir__(self) -> list[str]:
        return attributes_of(self)


say_what_is_elsewhere(Methods, TENSOR)
hint_methods(Methods, list(vars(Methods)), "Tensor")
