"""`compile`: a Python function of tensors → the same function as one compiled program."""

from .compile import Compiled, compile
from .places import CannotCompile

__all__ = ["CannotCompile", "Compiled", "compile"]
