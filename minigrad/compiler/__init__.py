"""`compile`: a Python function of tensors → the same function as one compiled program."""

from .compile import Compiled, compile
from .places import CannotCompile
from .step import TrainingStep

__all__ = ["CannotCompile", "Compiled", "TrainingStep", "compile"]
