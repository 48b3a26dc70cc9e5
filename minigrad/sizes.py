"""Sizes that are not known while tracing: `Size`, a polynomial in size variables.

A traced function works on shapes such as (T, N, H + D).  Each axis of an argument
starts as a variable of its own; whatever demands that two sizes be equal (a
matrix product, a sum) binds one variable to the other, and what is left free is
read from the arguments at every call.  So another T or N never compiles again.
How long x[::2] is, or x[5:] of a few rows, is a `Quotient`: a variable of its own,
which is computed from another size.
What is not a polynomial any more (a size to the power of −0.5, a tenth of a size) is an
`Amount`: a number that the graph computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .errors import GraphError, ShapeError, describe
from .tensor import _FUNCTIONS, OPS, Op, Tensor, apply, apply_symbolic


class Variable:
    """One unknown size: `hint` is its value in the call that is traced."""

    def __init__(self, name: str, hint: int):
        self.name, self.hint = name, hint
        self.bound: Size | int | None = None
        self.minimum = 0  # the trace does not hold for less
        self.zeros: list[Size] = []  # nor where one of these is not 0
        self.quotients: dict[tuple, Quotient] = {}  # of sizes that this variable stands in

    def settled(self) -> bool:
        """Does it stand for itself?"""
        return self.bound is None

    def now(self) -> Size | int:
        return Size({(self,): 1}) if self.bound is None else resolve(self.bound)

    def value(self, of) -> int:
        if self.bound is None:
            return of(self)
        return self.bound if isinstance(self.bound, int) else self.bound.value(of)

    def bind(self, size: Size | int) -> None:
        self.bound = size  # arguments are compared with it at every call

    def demand(self, n: int) -> None:
        """It is at least n at every call."""
        self.minimum = max(self.minimum, n)

    def within(self, size: Size | int) -> bool:
        """Does a size depend on it?"""
        return any(v is self or (isinstance(v, Quotient) and self.within(v.whole)) for v in _variables(size))


class Quotient(Variable):
    """max(0, whole // by), for what is not a polynomial: how long a slice is that has a step, or begins behind the end."""

    def __init__(self, whole: Size, by: int):
        below = any(c < 0 for c in whole.terms.values())
        text = f"({source(whole)}) // {by}" if len(whole.terms) > 1 and by > 1 else f"{source(whole)} // {by}"
        text = source(whole) if by == 1 else text
        super().__init__(f"max(0, {text})" if below else f"({text})", max(0, whole.hint // by))
        self.whole, self.by = whole, by

    def settled(self) -> bool:
        return self.bound is None and all(v.settled() for v in _variables(self.whole))

    def now(self) -> Size | int:
        return super().now() if self.bound is not None or self.settled() else quotient(self.whole, self.by)

    def value(self, of) -> int:
        return max(0, self.whole.value(of) // self.by) if self.bound is None else super().value(of)

    def bind(self, size: Size | int) -> None:
        require_zero(Size({(Quotient(self.whole, self.by),): 1}) - size)  # no argument has it
        self.bound = size

    def demand(self, n: int) -> None:
        at_least(self.whole, n * self.by)


def quotient(whole: Size | int, by: int) -> Size | int:
    """max(0, whole // by): the same one for the same size."""
    whole = resolve(whole)
    if isinstance(whole, int):
        return max(0, whole // by)
    if all(c >= 0 and c % by == 0 for c in whole.terms.values()):
        return Size({product: c // by for product, c in whole.terms.items()})
    key = (by, frozenset((tuple(sorted(map(id, product))), c) for product, c in whole.terms.items()))
    known = min(_variables(whole), key=id).quotients
    if key not in known:
        known[key] = Quotient(whole, by)
    return known[key].now()


def require_zero(difference: Size | int) -> None:
    """The trace holds only for calls where this is 0: whoever keeps it, it is looked at with the arguments."""
    v = _variables(difference)[0]
    while isinstance(v, Quotient):
        v = _variables(v.whole)[0]
    v.zeros.append(difference)  # type: ignore[arg-type]


_compared: ContextVar[list[tuple[Size, bool]]] = ContextVar(
    "differences of sizes, and whether they must be 0"
)


@contextmanager
def noting_comparisons() -> Iterator[list[tuple[Size, bool]]]:
    """The differences of sizes that are compared inside, and what they must be at every call: 0, or anything else."""
    found: list[tuple[Size, bool]] = []
    token = _compared.set(found)
    try:
        yield found
    finally:
        _compared.reset(token)


def as_many(a, b) -> bool:
    """Are two numbers of elements the same?  It is demanded of every call, and binds no size."""
    difference = resolve(a - b)
    if isinstance(difference, Size) and difference.hint == 0:
        _compared.get([]).append((difference, True))
        return True
    return difference == 0


class Size:
    """Σ coefficient · product of variables."""

    __hash__ = None  # type: ignore[assignment]  # equality may bind, so a Size is not a key
    __array_ufunc__ = None  # NumPy's numbers and arrays let a Size answer

    def __init__(self, terms: dict[tuple[Variable, ...], int]):
        self.terms = terms

    def resolved(self) -> Size | int:
        """With every bound variable replaced; a plain number where none is left."""
        if all(v.settled() for product in self.terms for v in product):
            if any(self.terms):
                return self
            return self.terms.get((), 0)
        total: Size | int = 0
        for product, coefficient in self.terms.items():
            part: Size | int = coefficient
            for v in product:
                part = part * v.now()
            total = total + part
        return resolve(total)

    @property
    def hint(self) -> int:
        return self.value(lambda v: v.hint)

    def value(self, of) -> int:
        """The number, given a function from free variables to numbers."""
        total = 0
        for product, coefficient in self.terms.items():
            for v in product:
                coefficient *= v.value(of)
            total += coefficient
        return total

    def __add__(self, other) -> Any:
        if not _is_whole(other):
            return Amount("add", self, other).or_tensor()
        terms = dict(self.terms)
        for product, coefficient in _terms(other).items():
            terms[product] = terms.get(product, 0) + coefficient
        terms = {p: c for p, c in terms.items() if c}
        return Size(terms) if any(terms) else terms.get((), 0)

    def __mul__(self, other) -> Any:
        if not _is_whole(other):
            return Amount("mul", self, other).or_tensor()
        terms: dict[tuple[Variable, ...], int] = {}
        for p, c in self.terms.items():
            for q, d in _terms(other).items():
                product = tuple(sorted((*p, *q), key=lambda v: v.name))
                terms[product] = terms.get(product, 0) + c * d
        terms = {p: c for p, c in terms.items() if c}
        return Size(terms) if any(terms) else terms.get((), 0)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1

    def __sub__(self, other) -> Any:
        return self + other * -1 if _is_whole(other) else Amount("sub", self, other).or_tensor()

    def __rsub__(self, other) -> Any:
        return self * -1 + other if _is_whole(other) else Amount("sub", other, self).or_tensor()

    def __truediv__(self, other) -> Any:
        return Amount("div", self, other).or_tensor()

    def __rtruediv__(self, other) -> Any:
        return Amount("div", other, self).or_tensor()

    def __pow__(self, exponent) -> Any:
        if isinstance(exponent, (int, np.integer)) and exponent >= 0:
            total: Size | int = 1
            for _ in range(exponent):
                total = self * total
            return total
        return Amount("power", self, exponent).or_tensor()

    def __floordiv__(self, other):
        """Exact division by one product, as reshape(−1) needs it; by a number it is rounded down, where nothing is below 0."""
        if not _is_whole(other):
            self._unknown()
        (divisor, by), *more = _terms(other).items()
        exact = {}
        for product, coefficient in self.terms.items():
            rest = list(product)
            for v in divisor:
                if v not in rest:
                    more.append(((), 1))
                    break
                rest.remove(v)
            exact[tuple(rest)] = coefficient // by
            if coefficient % by:
                more.append(((), 1))
        if more and divisor == () and by > 0 and held(self, 0):
            return quotient(self, by)
        if more:
            raise GraphError(f"size {self} is not divisible by {other} for all sizes; spell the shape out")
        return resolve(Size(exact))

    def __eq__(self, other) -> bool:
        """Are they the same?  Equal hints are taken as a demand, and bind a variable."""
        if isinstance(other, (Tensor, np.ndarray)):
            return NotImplemented
        difference = resolve(self - other) if _is_whole(other) else 1
        if isinstance(difference, int):
            return difference == 0
        if difference.hint != 0:
            _compared.get([]).append((difference, False))  # the trace holds where they differ
            return False
        terms = difference.terms.items()
        for product, coefficient in sorted(
            terms, key=lambda term: any(isinstance(v, Quotient) for v in term[0])
        ):
            if len(product) == 1 and sum(product[0] in p for p in difference.terms) == 1:
                rest = resolve((difference - Size({product: coefficient})) * -1)
                known = abs(coefficient) == 1 or isinstance(rest, int)  # equal hints: a number is divisible
                if known and not product[0].within(rest):
                    product[0].bind(
                        resolve(rest * coefficient) if abs(coefficient) == 1 else rest // coefficient
                    )
                    return True
        raise GraphError(f"sizes {self} and {other} are equal here; which does not hold for all sizes")

    def _unknown(self, *_):
        raise GraphError(
            f"size {self} is not known while tracing (it changes from call to call); "
            "use minigrad.scan instead of a Python loop, and minigrad.zeros instead of numpy.zeros"
        )

    __index__ = __float__ = __bool__ = __lt__ = __le__ = __gt__ = __ge__ = _unknown
    __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rpow__ = __abs__ = __round__ = _unknown

    def __repr__(self) -> str:
        size = self.resolved()
        return str(size) if isinstance(size, int) else source(size)

    def as_symbol(self, like: Tensor | None = None) -> Tensor:
        """The size as a number in the graph."""
        dtype = like.dtype if like is not None and like.dtype.kind == "f" else np.dtype("int64")
        return apply_symbolic(SIZE, (), (self, dtype))


class Amount:
    """A number that is computed from sizes, such as ``0.1 * x.shape[0]``; beside a tensor it takes its dtype.

    It is computed in float64, as Python does where sizes are known, and rounded once.
    """

    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # an array lets us answer

    def __init__(self, op: str, *operands):
        self.op, self.operands = op, operands

    def or_tensor(self):
        """Itself; beside a tensor or an array, the operation of tensors."""
        if any(isinstance(x, (Tensor, np.ndarray)) for x in self.operands):
            known = [
                x if isinstance(x, Tensor) else Tensor(x)
                for x in self.operands
                if isinstance(x, (Tensor, np.ndarray))
            ]
            operands = [x.as_symbol(known[0]) if hasattr(x, "as_symbol") else x for x in self.operands]
            return (
                _FUNCTIONS["power"](*operands) if self.op == "power" else apply(OPS[self.op], tuple(operands))
            )
        return self

    def as_symbol(self, like: Tensor | None = None) -> Tensor:
        double = np.dtype("float64")
        operands = [
            apply_symbolic(SIZE, (), (x, double)) if isinstance(x, Size)
            else x.as_symbol() if isinstance(x, Amount) else Tensor(np.asarray(x, double))
            for x in self.operands
        ]  # fmt: skip
        if self.op == "power":
            if isinstance(self.operands[1], (Size, Amount)):
                Size._unknown(self)  # type: ignore[arg-type]
            y = apply_symbolic(OPS["power"], (operands[0],), (self.operands[1],))
        else:
            y = apply_symbolic(OPS[self.op], tuple(operands), ())
        rounded = like is not None and like.dtype.kind == "f" and like.dtype != double
        return apply_symbolic(OPS["cast"], (y,), (like.dtype,)) if rounded else y  # type: ignore[union-attr]

    def __add__(self, other):
        return Amount("add", self, other).or_tensor()

    def __radd__(self, other):
        return Amount("add", other, self).or_tensor()

    def __sub__(self, other):
        return Amount("sub", self, other).or_tensor()

    def __rsub__(self, other):
        return Amount("sub", other, self).or_tensor()

    def __mul__(self, other):
        return Amount("mul", self, other).or_tensor()

    def __rmul__(self, other):
        return Amount("mul", other, self).or_tensor()

    def __truediv__(self, other):
        return Amount("div", self, other).or_tensor()

    def __rtruediv__(self, other):
        return Amount("div", other, self).or_tensor()

    def __pow__(self, exponent):
        return Amount("power", self, exponent).or_tensor()

    def __neg__(self):
        return Amount("mul", self, -1)

    def __repr__(self) -> str:
        return f"{self.op} of {' and '.join(map(str, self.operands))}"

    __index__ = __int__ = __float__ = __bool__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__ = Size._unknown  # type: ignore
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rpow__ = __abs__ = __round__ = (
        Size._unknown
    )


def _is_whole(x) -> bool:
    return isinstance(x, (int, np.integer, Size))


def _terms(size) -> dict[tuple[Variable, ...], int]:
    size = resolve(size)
    return size.terms if isinstance(size, Size) else {(): int(size)}


def _variables(size) -> list[Variable]:
    return [v for product in size.terms for v in product] if isinstance(size, Size) else []


def resolve(size):
    """A size with bound variables replaced: a number or a Size."""
    return size.resolved() if isinstance(size, Size) else size


def source(size) -> str:
    """A size as a Python expression in the names of its variables."""
    size = resolve(size)
    if isinstance(size, int):
        return str(size)
    parts = []
    for product, coefficient in size.terms.items():
        names = [v.name for v in product]
        parts.append(" * ".join(([str(coefficient)] if coefficient != 1 or not names else []) + names))
    return " + ".join(parts).replace("+ -1 * ", "- ").replace("+ -", "- ")


def at_least(size: Size, n: int) -> int:
    """Demand, where it holds now, that a size is at least n at every call; returns what it is now."""
    hint = size.hint
    rest = {product: c for product, c in _terms(size).items() if product}
    n_rest = n - _terms(size).get((), 0)  # what the products alone must reach
    if n > hint or (n_rest <= 0 and all(c > 0 for c in rest.values())):
        return hint
    # One term that is large enough alone, if the others cannot take anything away.
    for product, coefficient in rest.items():
        enough = -(-n_rest // coefficient) if coefficient > 0 else 0
        alone = len(rest) == 1 or all(c > 0 for c in rest.values())
        if (
            enough > 0
            and alone
            and (len(product) == 1 or enough == 1)
            and all(v.hint >= enough for v in product)
        ):
            for v in product:
                v.demand(enough)
            return hint
    least: Size = size - n
    require_zero(Size({(Quotient(least, 1),): 1}) - least)
    return hint


def held(size: Size | int, n: int) -> bool:
    """Is a size at least n?  If it is so now, that is demanded of every call."""
    size = resolve(size)
    return (at_least(size, n) if isinstance(size, Size) else size) >= n


def some(x: Tensor, axis: int, what: str):
    """The size of an axis; raises ShapeError where it has no elements, when a program runs too."""
    size = x.shape[axis]
    if (at_least(size, 1) if isinstance(size, Size) else size) == 0:
        raise ShapeError(f"{what} of no elements: {describe(x)}")
    return size


def is_one(size) -> bool:
    """Is it 1 at every call?  A variable that only happens to be 1 now is not."""
    return resolve(size) == 1 if isinstance(resolve(size), int) else False


def fix_at_one(size) -> bool:
    """Bind a size to 1 when that is its value here, because it has to be repeated to fit another."""
    size = resolve(size)
    return isinstance(size, Size) and size.hint == 1 and size == 1


# Not in OPS: it has no inputs, and its value is only known at run time.
SIZE = Op("size", lambda size, dtype: size, lambda size, dtype: (), None, params=("size", "dtype"),
    kind="elementwise", dtype=lambda size, dtype: dtype, smooth=False, source="{size}", tex="{size}", text="{size}",
    symbol="size")  # fmt: skip
# Nor is this one: 0, 1, … as many as there are, where that is only known at run time.
ARANGE = Op("arange", np.arange, lambda size: (size,), None, params=("size",), dtype=lambda size: np.dtype("int64"),
    smooth=False, tex=r"(0, \dots)", text="(0, …)", symbol="0 …")  # fmt: skip


def arange(n) -> Tensor:
    """0, 1, … n − 1, whole numbers; n may be a size that is not known while tracing."""
    n = resolve(n)
    return apply_symbolic(ARANGE, (), (n,)) if isinstance(n, Size) else Tensor(np.arange(n))


def shape_given(what: str, shape, dtype) -> tuple:
    """A shape, or the size of the only axis; raises TypeError for sizes one by one."""
    if isinstance(dtype, int):
        raise TypeError(f"{what}: give the shape as one tuple, e.g. {what}(({shape}, {dtype}))")
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


def known(shape: tuple) -> bool:
    """Are all sizes numbers, as they are where nothing is traced?"""
    return all(isinstance(n, (int, np.integer)) for n in shape)
