"""What an operation is: the record `Op`.  The records, and how one is added, are in ops.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False, slots=True)
class Op:
    """One row of the table of operations: all that anybody needs to know of it.

    `forward` and `vjp` take arrays; the rules in `vjp` are written with operators
    and functions that mean the same on tensors, so one text serves both.
    """

    name: str
    forward: Callable  # (*values, *params) -> array
    shape: Callable  # (*shapes, *params) -> shape; raises ShapeError
    vjp: Any  # a rule per input, (g, out, *inputs, *params) -> cotangent; or rule(k) if variadic
    params: tuple[str, ...] = ()  # names of the parameters
    kind: str = "structure"  # elementwise | product | reduction | structure
    axes: Callable | None = (
        None  # (axis, shape, input shapes, *params) -> entries, as above; None: that of its kind
    )
    smooth: bool = True  # complex step is allowed
    source: str = ""  # scalar expression for the compiler, of {0} {1} …
    tex: str = ""  # LaTeX, of {0} {1} … and parameter names
    text: str = ""  # the same as plain Unicode text
    symbol: str = ""  # what a picture writes on the node
    binding: int = 9  # strength of the operator: 1 add, 2 multiply, 3 unary, 9 closed
    variadic: bool = False  # any number of inputs; vjp is then a function of the input's position
    dtype: Callable | None = None  # (*dtypes, *params) -> dtype; None: that of the first float input

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def rule(self, k: int) -> Callable | None:
        """The derivative rule of input k; None where nothing flows back."""
        if self.vjp is None:
            return None
        return self.vjp(k) if self.variadic else self.vjp[k]


OPS: dict[str, Op] = {}  # the table: ops.py and elements.py fill it
