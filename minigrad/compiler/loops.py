"""Element-wise operations of one shape as one loop over flat arrays, which LLVM turns into vector code.

Where a value dies in the loop that makes another of its size, the new one takes its
place: gates overwrite their pre-activations, and gradients overwrite the gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ..names import Taken, quotable
from ..ops import OPS
from ..sizes import SIZE, is_one, resolve
from ..tensor import Op, Tensor, describe
from .lowering import Lowering
from .places import CODES, CannotCompile, Level, Place, named
from .program import Call, Index

BROADCAST_TO, POWER = OPS["broadcast_to"], OPS["power"]
WRAPPING = ("add", "sub", "mul", "neg")
# Python's parser, and whoever reads the source, follow a statement only so deep.
DEEPEST = 12
# LLVM takes more than twice as long over a loop of twice the length.
OPERATIONS, ARRAYS = 120, 64
# What takes some twenty instructions, each of which waits for the one before.
SLOW = ("exp", "log", "log1p", "expm1", "tanh", "sigmoid", "softplus", "erf", "sin", "cos")
MORE_ARRAYS = 1  # that cutting such a chain may cost


def _times(node: Tensor, k: int) -> int:
    """How often an operation reads its operand k: what is read twice gets a name in the loop."""
    op: Op = node.op  # type: ignore[assignment]
    if op is POWER and node.params[0] in (2, 3):
        return int(node.params[0])
    if op.name == "floor_divide":
        return 2
    return max(1, op.source.count(f"{{{k}}}"))


class Term(NamedTuple):
    """An expression: its text, how strongly its outermost operator binds, how deep it nests."""

    text: str
    binding: int = 9
    depth: int = 0


def loops_of(emitter: Lowering, level: Level, nodes: Sequence[Tensor]) -> Iterator[Loop]:
    """Operations of one shape as loops that are quick to run and to compile."""
    for part in _without_chains(level, nodes) if level.body is not None else [nodes]:
        yield from _bounded(emitter, level, part)


def _without_chains(level: Level, nodes: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """A function of another one's result, tanh(c) of c = f · c + …, in a loop of its own, if few values need arrays for it.

    The processor begins with the next numbers while it waits for these: so far ahead it sees only in short loops.
    """
    numbers = {n.number for n in nodes}
    readers = {n.number: [r.number for r in level.readers.get(n.number, ())] for n in nodes}
    stored = {k for k, own in readers.items() if k in level.wanted or any(r not in numbers for r in own)}
    loop: dict[int, int] = {}
    for node in nodes:
        is_slow = any(f"{name}(" in node.op.source for name in SLOW)  # type: ignore[union-attr]
        loop[node.number] = max((loop.get(x.number, 0) for x in node.inputs), default=0) + is_slow
    last = max(loop.values())
    for number, own in reversed(readers.items()):  # what is made for later alone is made there
        if own and number not in stored and loop[number] < 1:
            loop[number] = min(loop[r] for r in own)
    part_of = {number: max(1, k) for number, k in loop.items()}
    more = [n for n, own in readers.items() if n not in stored and any(part_of[r] > part_of[n] for r in own)]
    if last < 2 or len(more) > MORE_ARRAYS:
        return [nodes]
    return [[n for n in nodes if part_of[n.number] == k] for k in range(1, last + 1)]


def _bounded(emitter: Lowering, level: Level, nodes: Sequence[Tensor]) -> Iterator[Loop]:
    """Operations of one shape as loops of bounded length, cut where the fewest values go from one to the next.

    So a chain of equal steps is cut between two of them, and loops that are equal are found.
    """
    at = {n.number: k for k, n in enumerate(nodes)}
    kept: set[int] = set()  # what needs an array wherever the cuts are
    rises = [0] * (len(nodes) + 1)
    for k, node in enumerate(nodes):
        readers = [at.get(r.number, -1) for r in level.readers.get(node.number, ())]
        if node.number in level.wanted or -1 in readers:
            kept.add(node.number)
        elif readers:
            rises[k + 1] += 1
            rises[max(readers) + 1] -= 1
    crossing = list(accumulate(rises))  # how many values a cut in front of an operation would store
    start = 0
    while start < len(nodes):
        stop = _furthest(emitter, nodes, start, kept)
        if stop < len(nodes):
            half = start + (stop - start) // 2
            stop = min(range(stop, half, -1), key=crossing.__getitem__)
        yield Loop(emitter, level, list(nodes[start:stop]))
        start = stop


def _furthest(emitter: Lowering, nodes: Sequence[Tensor], start: int, kept: set[int]) -> int:
    """Where a loop that begins there has to end."""
    end = min(len(nodes), start + OPERATIONS)
    own: set[int] = set()
    arrays: set[int] = set()
    for k in range(start, end):
        node = nodes[k]
        own.add(node.number)
        arrays.update(x.number for x in node.inputs if x.number not in own and not emitter.is_number(x))
        if node.number in kept:
            arrays.add(node.number)
        if len(arrays) > ARRAYS and k > start:
            return k
    return end


class Loop:
    """Element-wise operations of one shape, as one function over flat arrays."""

    def __init__(self, emitter: Lowering, level: Level, nodes: list[Tensor]):
        self.e, self.level, self.nodes = emitter, level, nodes
        self.own = {n.number for n in nodes}
        self.shape = emitter.local_shape(nodes[-1], level)
        self._begin(plain=False)

    def _begin(self, plain: bool) -> None:
        """The text is begun; plain: with a number for each name, so that equal loops have equal texts."""
        self.taken = (
            None if plain else Taken({f"n{k}" for k in range(8)} | {f"i{k}" for k in range(8)} | {"at"})
        )
        self.words = 0
        self.constants: dict[str, str] = {}
        self.scalars: dict[Index, str] = {}

    def word(self, wanted: str) -> str:
        """A new name in the loop."""
        self.words += 1
        return f"v{self.words}" if self.taken is None else self.e._fresh(wanted, self.taken)

    def emit(self) -> None:
        e, level = self.e, self.level
        if level.body is None:
            e.serial()
        stored = [n for n in self.nodes if self._is_read_outside(n)]
        read = {x.number: x for node in self.nodes for x in node.inputs if x.number not in self.own}
        operands = [x for x in read.values() if not e.is_number(x)]
        places = {x.number: e.place(x, level) for x in operands}
        targets = self._targets(stored, operands, places)
        parameters: dict[tuple, int] = {}  # places, each once
        distinct: list[Place] = []
        arrays: dict[int, int] = {}  # which of them an operand or a result is
        for x, place in [
            *((x, places[x.number]) for x in operands),
            *((n, targets[n.number]) for n in stored),
        ]:
            key = (place.store, place.at, e.elements(place.shape))
            arrays[x.number] = parameters.setdefault(key, len(parameters))
            if len(parameters) > len(distinct):
                distinct.append(place)
        written = {arrays[n.number] for n in stored}
        dims = self._dims(operands, places)
        views = [e.view(place) for place in distinct]
        title = e._fresh(self._title(stored), e.store_names)

        def text(plain: bool) -> str:
            self._begin(plain)
            words = [self.word(place.store.name) for place in distinct]
            names = {number: words[k] for number, k in arrays.items()}
            lines = self._lines(operands, places, names, stored, targets, dims)
            head = ", ".join([*self.scalars.values(), *(f"n{k}" for k in range(len(dims))), *words])
            if plain:
                return "\n".join([head, *lines])
            moved = [
                f"{quotable(n.name)} in {names[n.number]}"
                for n in stored
                if n.name and names[n.number] != n.name
            ]
            note = [f"    # in place: {', '.join(moved)}"] if moved else []
            return "\n".join([f"@loop\ndef {title}({head}):", *note, *lines]) + "\n"

        key = text(plain=True)
        if key not in e.functions:
            e.functions[key] = title, text(plain=False)
        function, _ = e.functions[key]
        first = len(self.scalars) + len(dims)
        e.touched[function] = (
            [first + arrays[x.number] for x in operands],
            tuple(first + k for k in sorted(written)),
        )
        e.loops.setdefault(function, []).extend(n.number for n in self.nodes)
        e.write(level, Call(function, [*self.scalars, *(e.size(n) for n, _ in dims), *views]))

    def _title(self, stored: list[Tensor]) -> str:
        named = [n.name for n in stored if n.name] or [stored[-1].op.name if stored else "nothing"]  # type: ignore[union-attr]
        title = "_".join(map(str, named[:6]))
        return f"{title}_step" if self.level.body is not None else f"compute_{title}"

    def _is_read_outside(self, node: Tensor) -> bool:
        readers = self.level.readers.get(node.number, [])
        return node.number in self.level.wanted or any(r.number not in self.own for r in readers)

    def _targets(self, stored, operands, places) -> dict[int, Place]:
        """Where results go: over an operand of the same size that dies here, if there is one."""
        e, level = self.e, self.level
        free = []
        for x in operands:
            same = e.elements(x.shape) == e.elements(self.nodes[-1].shape)
            if same and x.number in level.stepwise and e.may_overwrite(x, level, self.own):
                free.append(x)
        shared = {}
        for x in operands:
            shared.setdefault(places[x.number].store, set()).add(x.number)
        free = [x for x in free if len(shared[places[x.number].store]) == 1]
        donors: dict[int, Tensor] = {}
        # Only a value that is kept for all steps needs, and may take, a place for all steps.
        able = [
            n
            for n in stored
            if n.number in level.stacks and n.number not in e.places and n.number not in level.targets
        ]
        for alike in (True, False):  # f where z_f stood and dz_f where f stood; then what is left
            for n in able:
                fits = (x for x in free if x.dtype == n.dtype)
                wanted = (
                    x
                    for x in fits
                    if not alike or places[x.number].store.name in (f"z_{n.name}", str(n.name)[1:])
                )
                donor = next(wanted, None) if n.number not in donors else None
                if donor is not None:
                    donors[n.number] = donor
                    free = [x for x in free if x is not donor]
        targets = {}
        for n in stored:
            if n.number in donors:
                e.settle(n, level, places[donors[n.number].number])
                level.stepwise.add(n.number)
            targets[n.number] = e.target(n, level)
        return targets

    def _dims(self, operands, places) -> list[tuple]:
        """The loop's axes, neighbours merged where every operand has both or neither: (size, who has it)."""
        dims: list[tuple] = []
        shape = self.shape
        for k, n in enumerate(shape):
            if is_one(n):
                continue
            who = []
            for x in operands:
                own = (1,) * (len(shape) - len(places[x.number].shape)) + tuple(places[x.number].shape)
                who.append(not is_one(own[k]))
            if dims and dims[-1][1] == who:
                dims[-1] = (resolve(named(dims[-1][0]) * named(n)), who)
            else:
                dims.append((resolve(n), who))
        return dims

    def _lines(self, operands, places, names, stored, targets, dims) -> list[str]:
        """The function's body: numbers, loops, loads, one line per operation, stores."""
        code: list[str] = []
        text: dict[int, Term] = {}
        uses: dict[int, int] = {}
        for node in self.nodes:
            for k, x in enumerate(node.inputs):
                uses[x.number] = uses.get(x.number, 0) + _times(node, k)
        for k, x in enumerate(operands):
            index = self._index([axis for axis, (_, who) in enumerate(dims) if who[k]])
            load = f"{names[x.number]}[{index}]"
            if uses[x.number] > 1:
                local = self.word(f"{names[x.number]}_")
                code.append(f"{local} = {load}")
                load = local
            text[x.number] = Term(load)
        keep = {n.number for n in stored}
        used = set(names.values())
        for node in self.nodes:
            term = self._expression(node, text)
            if node.name or uses.get(node.number, 0) > 1 or node.number in keep or term.depth >= DEEPEST:
                local = self.word(f"{node.name}_new" if node.name in used else node.name or "v")
                code.append(f"{local} = {term.text}")
                term = Term(local)
            text[node.number] = term
        full = self._index(range(len(dims)))
        code += [f"{names[n.number]}[{full}] = {text[n.number].text}" for n in stored]
        head = [f"    {name} = {value}" for value, name in self.constants.items()]
        loops = []
        for k in range(len(dims)):
            loops.append("    " * (k + 1) + f"for i{k} in range(n{k}):")
        return [*head, *loops, *("    " * (len(dims) + 1) + line for line in code)]

    @staticmethod
    def _index(axes: Sequence[int]) -> str:
        """The place in a flat array that has these axes of the loop."""
        index = ""
        for k in axes:
            outer = f"({index})" if "+" in index else index
            index = f"{outer} * n{k} + i{k}" if index else f"i{k}"
        return index or "0"

    def _expression(self, node: Tensor, terms: dict[int, Term]) -> Term:
        own = [terms.get(x.number) or Term(self._number(x)) for x in node.inputs]
        text, binding = self._written(node, own)
        return Term(text, binding, max((x.depth for x in own), default=0) + 1)

    def _written(self, node: Tensor, own: list[Term]) -> tuple[str, int]:
        """An operation on terms, and how strongly it binds."""
        op: Op = node.op  # type: ignore[assignment]
        kind = CODES.get(node.dtype)
        if kind is None:
            raise CannotCompile(
                f"{self.e.name}: {describe(node)}; the compiler takes float32, float64, int32, int64 and bool: "
                "convert it with .astype(…)"
            )
        if op is SIZE:
            return self._number(node), 9
        operands = []
        for k, (x, (inner, binding, _)) in enumerate(zip(node.inputs, own, strict=True)):
            if node.dtype.kind == "f" and x.dtype.kind in "iub" and op.name not in ("cast", "where", "size"):
                inner, binding = f"{kind}({inner})", 9  # NumPy computes these in floats too
            # a + (b + c) is not a + b + c when it is rounded; comparisons of comparisons would be read as a chain.
            weak = binding < op.binding or (binding == op.binding and (k > 0 or op.binding == 0))
            operands.append(f"({inner})" if weak and op.binding < 9 else inner)
        if op is BROADCAST_TO:
            return operands[0], own[0].binding
        if op is POWER:
            return self._power(operands[0], node, kind)
        if (
            node.dtype.kind in "iu" and op.name in WRAPPING
        ):  # an overflow wraps, and is nothing that cannot happen
            typed = ", ".join(f"{kind}({x})" for x in (operands if len(operands) > 1 else ["0", *operands]))
            return f"wrapping_{'sub' if op.name == 'neg' else op.name}({typed})", 9
        if op.name == "floor_divide" and node.dtype.kind in "iu":  # by −1 it wraps too
            a, b = operands[0], f"{kind}({operands[1]})"
            return f"({kind}({a} // {b}) if {b} != -1 else wrapping_sub({kind}(0), {kind}({a})))", 9
        if op.name == "pow" and node.dtype.kind != "f":
            raise CannotCompile(
                f"{self.e.name}: {describe(node)}: convert integers to floats, x.astype('float64')"
            )
        expression = op.source.format(*operands, kind=kind, dtype=kind)
        if node.dtype.kind != "f" and op.binding > 0 and op.name != "where":
            return (
                f"{kind}({expression})",
                9,
            )  # machine code widens integers and booleans on the way, NumPy does not
        return expression, op.binding

    def _power(self, x: str, node: Tensor, kind: str) -> tuple[str, int]:
        exponent = node.params[0]
        base = x if x.isidentifier() else f"({x})"
        if node.dtype.kind != "f":
            if not 1 <= exponent <= 3:
                raise CannotCompile(
                    f"{self.e.name}: {describe(node)}: multiply integers, or convert them to floats"
                )
            product = f"{kind}({base})"
            for _ in range(int(exponent) - 1):
                product = f"wrapping_mul({product}, {kind}({base}))"
            return product, 9
        if exponent in (2, 3):
            return " * ".join([base] * int(exponent)), 2
        return f"{kind}({base} ** {kind}({float(exponent)!r}))", 9

    def _number(self, x: Tensor) -> str:
        """A constant or a size, made of the right type before the loop."""
        kind = CODES.get(x.dtype, "f8")
        if x.op is SIZE:
            expression = self.e.size(x.params[0])
            if expression not in self.scalars:
                self.scalars[expression] = self.word("size")
            name = self.scalars[expression]
            label, value = "number", f"{kind}({name})"
        else:
            number = x.value.item()
            label = {1: "one", 2: "two", 0: "zero", 0.5: "half"}.get(number, "number")
            value = f"{kind}({number!r})" if np.isfinite(number) else f'{kind}(float("{number}"))'
        if value not in self.constants:
            self.constants[value] = self.word(label)
        return self.constants[value]
