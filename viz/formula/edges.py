"""The chain rule at one edge, as it is printed: what arrives times the local derivative is what goes on.

The operation of the edge is made once more on symbols, and reverse mode differentiates it: so what is printed comes from
the same rule that has computed the numbers, and no derivative is typed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from minigrad import Tensor, grad
from minigrad.tensor import OPS, apply, apply_symbolic, symbol

from .compositions import composition
from .notation import Notation
from .words import Words, bare, d, label

LONGEST = 6  # operations written out in one name; what is longer is called u_1, u_2, …
UNARY = (
    "sigmoid",
    "tanh",
    "exp",
    "log",
    "softplus",
)  # what stands inside of them is a_f, with the quantity's name


@dataclass(frozen=True)
class EdgeWords:
    """An edge from `reader` to its input: all as words.

    forward : the operation, "h = o ⊙ tanh(c)".  arrives : the gradient that has arrived, "dh".  goes : what goes on, as
    an expression of it.  into : the gradient that it is a part of.  slope : the local derivative, None where it is not a
    factor: where numbers are only moved.
    """

    forward: tuple[Words, Words]
    arrives: Words
    goes: Words
    into: Words
    slope: Words | None


class EdgeWriter(Notation):
    """Names every node of a graph, and writes its edges.

    nodes : by rising number.  times : the step of a node, by its number, where it stands in one.
    """

    def __init__(self, nodes: list[Tensor], times: Mapping[int, int]):
        super().__init__()
        self.whole_words: dict[int, Words] = {}
        readers: dict[int, list[Tensor]] = {}
        for n in nodes:
            for x in n.inputs:
                readers.setdefault(x.number, []).append(n)
        extra = 0
        for n in nodes:
            at = str(times[n.number]) if n.number in times else ""
            shape = bare(n.shape)
            written = Notation.raw(self, n) if n.op is None or composition(n) is None else self._of_table(n)
            self.whole_words[n.number] = written
            own = readers.get(n.number, [])
            name = n.name
            if (
                not name
                and len(own) == 1
                and own[0].name
                and own[0].op is not None
                and own[0].op.name in UNARY
            ):
                name = f"a_{own[0].name.removesuffix('_tilde')}"
            if name:
                words = label(name, at)
            elif written.size > LONGEST:
                extra += 1
                words = Words(f"u_{extra}", f"u_{{{extra}}}")
            else:
                words = written
            self.words[n.number] = replace(words, shape=shape)
            if name or words is not written:
                self.named.add(n.number)

    def _of_table(self, n: Tensor) -> Words:
        """By its own operation, also where it is the end of a composition: each of its nodes is drawn."""
        special = getattr(self, f"_{n.op.name}", None) if n.op is not None else None
        made = special(n) if special is not None else None
        return self.elementwise(n) if made is None else made

    def raw(self, n: Tensor) -> Words:
        return self._of_table(n) if n.op is not None else super().raw(n)

    def reads(self, n: Tensor) -> tuple[Tensor, ...]:
        return n.inputs

    def edge(self, n: Tensor, k: int) -> EdgeWords:
        """The edge from n to its input k."""
        x = n.inputs[k]
        inputs = [self._stand_in(i, requires=j == k) for j, i in enumerate(n.inputs)]
        again = apply_symbolic(n.op, tuple(inputs), n.params)
        arrives = d(self.words[n.number])
        seed = symbol(again.shape, again.dtype, "arrives")
        self.words[again.number], self.words[seed.number] = (
            self.words[n.number],
            replace(arrives, shape=bare(n.shape)),
        )
        self.named |= {again.number, seed.number}
        result = grad(again, inputs[k], cotangent=seed)
        factor = _factor(result, seed)
        forward = self.words[n.number], self.whole_words[n.number]
        slope = None if factor is None else self.expression(factor)
        return EdgeWords(forward, arrives, self.expression(result), d(self.words[x.number]), slope)

    def _stand_in(self, x: Tensor, requires: bool) -> Tensor:
        """A symbol in place of an input; a constant number stands for itself."""
        if x.op is None and not x.requires_grad and x.name is None and x.shape == () and not requires:
            return x
        made = symbol(x.shape, x.dtype, x.name or "x", requires)
        self.words[made.number] = self.words[x.number]
        self.named.add(made.number)
        return made

    def expression(self, root: Tensor) -> Words:
        """Written out down to what has words."""
        pending = [root]
        while pending:
            n = pending[-1]
            missing = [x for x in n.inputs if x.number not in self.words]
            if n.number in self.words:
                pending.pop()
            elif missing:
                pending += missing
            else:
                self.words[n.number] = replace(self.raw(n), shape=bare(n.shape))
                pending.pop()
        return self.words[root.number]


def _factor(result: Tensor, seed: Tensor) -> Tensor | None:
    """What `seed` is multiplied by in `result`, None where it is not a product with it."""
    if result is seed:
        return Tensor(np.ones((), seed.dtype))
    op, inputs = result.op, result.inputs
    if op is None:
        return None
    inner = [_factor(x, seed) if _has(x, seed) else None for x in inputs]
    name = op.name
    if name == "mul" and (inner[0] is None) != (inner[1] is None):
        return _times(inner[0], inputs[1]) if inner[0] is not None else _times(inner[1], inputs[0])
    if name == "div" and inner[0] is not None and inner[1] is None:
        return _apply("div", inner[0], inputs[1])
    if name == "neg" and inner[0] is not None:
        return _apply("neg", inner[0])
    if name == "matmul":
        other = [x for x, found in zip(inputs, inner, strict=True) if found is None]
        found = [f for f in inner if f is not None]
        return other[0] if len(found) == 1 and _is_one(found[0]) else None
    if name in ("reshape", "broadcast_to", "sum"):
        return inner[0]  # of numbers that were repeated all are added up
    return None


def _has(n: Tensor, seed: Tensor) -> bool:
    pending = [n]
    while pending:
        m = pending.pop()
        if m is seed:
            return True
        pending.extend(m.inputs)
    return False


def _is_one(n: Tensor) -> bool:
    return n.op is None and not n.is_symbol and n.shape == () and float(n.value) == 1


def _times(a: Tensor | None, b: Tensor) -> Tensor:
    assert a is not None
    return b if _is_one(a) else _apply("mul", a, b)


def _apply(name: str, *inputs: Tensor) -> Tensor:
    return apply(OPS[name], inputs, ())
