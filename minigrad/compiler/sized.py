"""A compiled function as one WebAssembly module for all sizes: its host lays out memory, by formulas that come along.

A program knows no size: it reads sizes and addresses from a table.  `Compiled.wasm` fills that table for given
arguments; here the host does, for any sizes up to the largest.  In a graph the sizes of parameters are numbers, so the
largest ones are chosen to be all different, and a number then tells which size it is: every other one is a polynomial
in them.  What the table holds and what lies where is written down as such polynomials.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..names import unique
from ..sizes import Quotient, Size, Variable, resolve
from .places import Fixed, named
from .plan import SCRATCH, itemsize
from .wasm import Frame, Wasm, module_of

if TYPE_CHECKING:
    from .compile import Compiled
    from .variant import Variant

SMALL = 8  # below, an unnamed size is a number: how many states there are, how many rows
Polynomial = dict[tuple[str, ...], int]  # products of names, each with its coefficient


class _Empty(Frame):
    """The memory of a module into which the host puts everything."""

    def image(self) -> bytes:
        return b""


def sized(
    compiled: Compiled, arguments: Sequence, largest: Mapping[str, int], gradients: bool = True
) -> Wasm:
    """The module of a function for all sizes up to those of these arguments, and what its host needs to lay it out.

    arguments : of the largest sizes; the function's parameters too.
    largest : what each size is called, e.g. ``{"T": 40, "H": 24, "K": 30}``: numbers, and sums of two of them, that
        are all different and at least 8, so that each tells which size is meant.

    The host fills the table in front of ``scratch``, from ``table`` on: for each of `stores` its address and the number
    of its elements, then the numbers `sizes`, all int64.  It may put stores of the kinds input, constant and output
    between the table and ``scratch``, the others behind ``scratch`` + ``scratch_bytes``, each at a multiple of 64, in
    their order: they fit for sizes up to the largest.  Polynomials are lists of terms [coefficient, name, …].  Sizes of
    arguments must be at least 1, those of parameters at least 2, as a 1 may be broadcast.

    Raises InputError as `Compiled.wasm` does, for sizes that cannot be told apart or are no polynomials of these, and
    for a program that holds for some sizes of its arguments alone.  Branches on sizes of parameters, which are plain
    numbers, cannot be seen: a function that takes them must not be given.
    """
    who = f"sized wasm of {compiled.name}"
    meaning = _meanings(who, largest)
    variant, call = compiled.alone(who, arguments, gradients)
    free = variant.traced.sizes(call.shapes)
    assert free is not None
    _holds_for_all(who, variant)
    write = _writer(who, meaning, free)
    frame = _Empty(variant, call)
    module = module_of(who, variant, frame)
    program = variant.program
    if program.lists:
        raise InputError(f"{who}: its table holds lists that depend on sizes")
    words = call.whole.names(compiled.function)
    layout = {
        "sha256": hashlib.sha256(module).hexdigest(),
        "bytes": frame.end, "largest": dict(largest), "table": frame.table_at, "scratch": frame.scratch_at,
        "scratch_bytes": SCRATCH * int(program.scratch[1]),
        "sizes": [write(s) for s in program.sizes],
        "stores": [[s.kind, itemsize(s.dtype), write(s.size)] for s in program.stores],
        **_places(who, frame, words, write),
    }  # fmt: skip
    return Wasm(module, layout)


def _holds_for_all(who: str, variant: Variant) -> None:
    """Raises InputError unless a trace holds for all sizes of arguments from 1 on."""
    traced = variant.traced
    for difference, zero in traced.compared:
        difference = resolve(difference)
        if isinstance(difference, Size) and (zero or len(difference.terms) > 1):
            raise InputError(
                f"{who}: what it does depends on whether {difference} is 0; a module for all sizes has one way"
            )
    for _, _, v in traced.variables:
        if v.zeros or (v.bound is None and v.minimum > max(1, v.hint if v.hint < SMALL else 1)):
            raise InputError(
                f"{who}: it needs an argument's size to be at least {v.minimum}, or of a certain kind"
            )


def _meanings(who: str, largest: Mapping[str, int]) -> dict[int, Polynomial]:
    """By number, the size that it is."""
    found: dict[int, Polynomial] = {}
    sums = [{(a,): 1, (b,): 1} for a, b in itertools.combinations(largest, 2)]
    for one in [*({(name,): 1} for name in largest), *sums]:
        number = sum(largest[name] for (name,) in one)
        if number in found or number < SMALL:
            raise InputError(f"{who}: sizes {dict(largest)} do not tell which one {number} is; choose others")
        found[number] = one
    return found


def _writer(who: str, meaning: dict[int, Polynomial], free: Callable[[Variable], int]):
    """A function that writes a size as a polynomial of the names."""

    def of(v: Variable) -> Polynomial:
        number = v.hint if isinstance(v, Fixed) else free(v)
        if isinstance(v, Quotient) or (number not in meaning and number >= SMALL):
            raise InputError(f"{who}: a size of {number} is none that has a name, and no sum of two")
        return meaning.get(number, {(): number})

    def write(size: Size | int) -> list[list]:
        size = resolve(size)
        total: Polynomial = {}
        for product, coefficient in size.terms.items() if isinstance(size, Size) else [((), size)]:
            part: Polynomial = {(): coefficient}
            for v in product:
                part = _times(part, of(v))
            for names, c in part.items():
                total[names] = total.get(names, 0) + c
        return [[c, *names] for names, c in total.items() if c]

    return write


def _times(a: Polynomial, b: Polynomial) -> Polynomial:
    product: Polynomial = {}
    for (p, c), (q, d) in itertools.product(a.items(), b.items()):
        names = tuple(sorted(p + q))
        product[names] = product.get(names, 0) + c * d
    return product


def _places(who: str, frame: Frame, words: Sequence[str], write) -> dict[str, Any]:
    """What the host reads and writes: each with the number of its store, its dtype and its shape."""
    variant, program = frame.variant, frame.variant.program
    read = {s.node.number: k for k, s in enumerate(program.stores) if s.node is not None}
    written = {s.name: k for k, s in enumerate(program.stores)}

    def fact(store: int | None, dtype: object, shape: Sequence) -> dict[str, Any]:
        return {"store": store, "dtype": str(dtype), "shape": [write(named(n)) for n in shape]}

    arguments = [
        {"name": word, **fact(read.get(a.number), a.dtype, a.shape)}  # None: nothing reads it
        for word, a in zip(words, variant.traced.arguments, strict=True)
    ]
    names = {a.number: word for a, word in zip(variant.traced.arguments, words, strict=True)}
    parameters, constants, taken = {}, {}, set(words)
    for leaf in sorted(frame.leaves, key=lambda n: n.number):
        if leaf.requires_grad:
            names[leaf.number] = name = unique(str(leaf.name or "unnamed"), taken)
            parameters[name] = fact(read[leaf.number], leaf.dtype, leaf.shape)
        elif leaf.size == 1:
            constants[str(read[leaf.number])] = [str(leaf.dtype), leaf._value.item()]
        else:
            raise InputError(
                f"{who}: it reads a constant of shape {leaf.shape}, which differs from size to size"
            )
    results = [fact(written[r.store.name], dtype, r.shape) for r, (_, _, dtype) in
               zip(program.results, frame.plan.values + frame.plan.gradients, strict=True)]  # fmt: skip
    count = len(frame.plan.values)
    targets = [variant.traced.arguments[k] for k in variant.of_arguments] + variant.leaves
    return {
        "arguments": arguments, "parameters": parameters, "constants": constants, "results": results[:count],
        "gradients": {names[t.number]: r for t, r in zip(targets, results[count:], strict=True)},
    }  # fmt: skip
