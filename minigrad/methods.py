"""What NumPy's users write on a tensor besides arithmetic: methods, and the operators % // & | ^ ~.

Each calls the function of the same name, which says more; the files that have the functions put them into
`_FUNCTIONS`, so that nothing is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
        return _FUNCTIONS["sum"](self, axis, keepdims)

    def mean(self, axis=None, keepdims=False):
        return _FUNCTIONS["mean"](self, axis, keepdims)

    def max(self, axis=None, keepdims=False):
        return _FUNCTIONS["max"](self, axis, keepdims)

    def min(self, axis=None, keepdims=False):
        return _FUNCTIONS["min"](self, axis, keepdims)

    def prod(self, axis=None, keepdims=False):
        return _FUNCTIONS["prod"](self, axis, keepdims)

    def var(self, axis=None, ddof=0, keepdims=False):
        return _FUNCTIONS["var"](self, axis, ddof, keepdims)

    def std(self, axis=None, ddof=0, keepdims=False):
        return _FUNCTIONS["std"](self, axis, ddof, keepdims)

    def argmax(self, axis=None, keepdims=False):
        return _FUNCTIONS["argmax"](self, axis, keepdims)

    def argmin(self, axis=None, keepdims=False):
        return _FUNCTIONS["argmin"](self, axis, keepdims)

    def cumsum(self, axis=None):
        return _FUNCTIONS["cumsum"](self, axis)

    def cumprod(self, axis=None):
        return _FUNCTIONS["cumprod"](self, axis)

    def abs(self):
        return _FUNCTIONS["abs"](self)

    def clip(self, a_min=None, a_max=None):
        return _FUNCTIONS["clip"](self, a_min, a_max)

    def round(self, decimals=0):
        return _FUNCTIONS["round"](self, decimals)

    def squeeze(self, axis=None):
        return _FUNCTIONS["squeeze"](self, axis)

    def reshape(self, *shape):
        return _FUNCTIONS["reshape"](self, *shape)

    def transpose(self, *axes):
        return _FUNCTIONS["transpose"](self, *axes)

    def swapaxes(self, a: int, b: int):
        return _FUNCTIONS["swapaxes"](self, a, b)

    @property
    def T(self):
        return _FUNCTIONS["transpose"](self)
