"""A cell's equations, forward and backward, read from its graph.

One step is traced on symbols and walked in the order of creation.  A quantity that the step
returns stands on the left of an equation of its own; so does a gradient that has a
name, and whatever long expression is read more than once.  All else is written out
(notation.py), with brackets where the operators' binding strengths ask for them.

All equations are for one sequence; gradients of parameters are sums over the sequences.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from minigrad import InputError, Tensor, ancestors, no_grad, scope
from minigrad.names import printable
from minigrad.reverse import lets_through, walk
from minigrad.sizes import Size, Variable
from minigrad.tensor import symbol

from ..language.catalogue import deferred, tr
from .compositions import composition
from .notation import Notation
from .words import LONG, Words, bare, d, label, per_sequence, turns

MEANINGS = (  # what a text may hold, and what is said of it below
    (r"Σ(?!_)", deferred("Σ: over the sequences")),
    (r"_sequences|sequences ", deferred("sequences: over all sequences of the batch")),
    (r"\bstop\(", deferred("stop: no gradient flows through it")),
    (r"\btrunc\(", deferred("trunc: without the digits after the point")),
    ("∧", deferred("∧: and")),
    ("∨", deferred("∨: or")),
    ("⊕", deferred("⊕: one, not both")),
    (r"\bmod\(", deferred("mod: what a division leaves, with the sign of the divisor")),
    (r"\bexpm1\(", deferred("expm1(x): exp(x) − 1")),
    (r"\bcumsum_back", deferred("cumsum_back: sums from each place to the end")),
    (r"\bplace\(", deferred("place: with zeros elsewhere")),
    (r"\bstd(_units)?\(", deferred("std: √(variance + 1e−5)")),
    (
        r"axis|axes|reshape\(|place\(|\[:",
        deferred("axes and ranges: as in the program, from 0, without that of the sequences"),
    ),
)
VIEWS = ("reshape", "transpose", "broadcast_to", "cast")


@dataclass(frozen=True)
class Equation:
    left: Words
    right: Words
    sign: str = "="  # "←" where the right side reads what the left side was before


@dataclass(frozen=True, repr=False)
class Equations:
    """The equations of one step: `forward` and `backward`, `text` and `latex`."""

    name: str
    forward: list[Equation]
    backward: list[Equation]
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        parts = [tr("{name}, step t", name=self.name), "", *_aligned(self.forward)]
        if self.backward:
            parts += ["", tr("backward"), "", *_aligned(self.backward)]
        if self.notes:
            parts += ["", *self.notes]
        return "\n".join(parts) + "\n"

    @property
    def latex(self) -> str:
        blocks = [_latex(part) for part in (self.forward, self.backward) if part]
        return "\n".join(blocks) + "\n"

    def __repr__(self) -> str:
        return self.text.rstrip("\n")

    def _repr_latex_(self) -> str:
        """One display per block, which is what notebooks render."""
        return "\n\n".join(f"$${_latex(part)}$$" for part in (self.forward, self.backward) if part)


def equations(cell, *, backward: bool = True, **beside) -> Equations:
    """The equations of a cell, from the graph of one step.

    cell : anything with ``step(x, *state)`` that returns its quantities by name, `state`
        (names separated by blanks), `inputs`, `hidden` and ``parameters()``.  Its ``initial_state(sequences)``
        tells the states' shapes, which else are (N, hidden).
    beside : what the step takes beside x, by name, each an example for one step, ``keep=np.ones((1, H), bool)``.

    Gradients are those of any loss: dh_t and dc_t on the right are what comes from it and from step t + 1.
    Raises InputError for an object that has no such step or whose step takes more than it is given, and what the
    step itself raises.
    """
    missing = [a for a in ("step", "state", "inputs", "hidden", "parameters") if not hasattr(cell, a)]
    if missing:
        raise InputError(
            f"equations of {type(cell).__name__}: it has no {', '.join(missing)}; "
            "give a cell, such as cells.LSTM(…)"
        )
    lacking = [p.name for p in _further(cell) if p.default is p.empty and p.name not in beside]
    if lacking:
        raise InputError(
            f"equations of {type(cell).__name__}: its step takes {', '.join(lacking)} beside x; give an example of one "
            f"step's, e.g. {lacking[0]}=np.ones((1, {cell.hidden}))"
        )
    return _Writer(cell, beside).written(backward)


class _Writer(Notation):
    """Walks one step's graph and writes it down."""

    def __init__(self, cell, beside: dict):
        super().__init__()
        self.cell, self.name = cell, printable(type(cell).__name__)
        self.taken: dict[str, int | str] = {}  # labels, and what they are of
        self.parameters: dict[str, Tensor] = cell.parameters()
        N = Size({(Variable("N", 2),): 1})
        with scope("t"):
            self.x = symbol((N, cell.inputs), _dtype(cell), "x", True)
            self.before = [
                symbol(tuple(N if s is None else s for s in shape), dtype, f"{s}_prev", dtype.kind == "f")
                for s, (shape, dtype) in zip(cell.state.split(), _states(cell), strict=True)
            ]
            self.beside = {name: _example(name, a, N) for name, a in beside.items()}
            self.quantities: dict[str, Tensor] = cell.step(self.x, *self.before, **self.beside)
        self.state = [self.quantities[s] for s in cell.state.split()]
        self.called = {q.number: n for n, q in reversed(self.quantities.items())}
        for name, node in {"x": self.x, **self.beside}.items():
            self.call(node, self.label(name, "t"))
        for s, node in zip(cell.state.split(), self.before, strict=True):
            self.call(node, self.label(s, "t−1"))
        for name, p in self.parameters.items():
            self.call(p, self.label(name.rpartition(".")[2], of=name))
        self.fixed = (
            {n: a for n, a in vars(cell).items() if isinstance(a, np.ndarray)}
            if hasattr(cell, "__dict__")
            else {}
        )
        self.constants: list[tuple[np.ndarray, Words]] = []
        self.inside: list[tuple[Words, Words]] = []  # a_f and the quantity f = σ(a_f)
        self.joint: dict[
            int, tuple[Tensor, list[Words], int]
        ] = {}  # gradient of [a, b] → that, names of its parts, axis
        self.extra = 0

    def written(self, backward: bool) -> Equations:
        roots = list(self.quantities.values())
        for node in ancestors(*roots):
            if node.is_constant and node.name and node.number not in self.named:
                self.call(node, self.label(node.name, of=f"constant {node.number}"))
            if node.name and node.op is not None:
                self.called.setdefault(node.number, node.name)
        for name in self.quantities:
            self.label(name, "t")
        names = {number: self.label(name, "t") for number, name in self.called.items()}
        forward = self.lines(roots, names)
        for name, node in self.quantities.items():  # two names of one node, such as h = c
            if (own := self.label(name, "t")).text != self.words[node.number].text:
                forward.append(Equation(own, self.words[node.number]))
        found, notes = self.gradients() if backward else ([], [])
        return Equations(self.name, forward, found, notes + self.meanings(forward + found))

    def meanings(self, lines: list[Equation]) -> list[str]:
        text = "\n".join(f"{e.left.text} {e.right.text}" for e in lines)
        said = [tr(meaning) for pattern, meaning in MEANINGS if re.search(pattern, text)]
        matrices = [self.words[n.number].text for n in self.before if len(bare(per_sequence(n)[0])) > 1]
        if matrices:
            said.append(tr("{matrices}: rows of the program are columns here", matrices=", ".join(matrices)))
        return said + [
            tr("{text}: a constant {shape}", text=w.text, shape=value.shape)
            for value, w in self.constants
            if w.text.startswith("const")
        ]

    # Names.

    def label(self, name: str, time: str = "", of: str | None = None) -> Words:
        """A label that looks like no other, nor like the gradient of another: the later one is numbered."""
        owner, number = of or f"{name} {time}", 0
        while True:
            words = label(name, time, number)
            if all(self.taken.get(text, owner) == owner for text in (words.text, d(words).text)):
                break
            number = max(number + 1, 2)
        self.taken[words.text] = self.taken[d(words).text] = owner
        return words

    def call(self, node: Tensor, words: Words) -> None:
        self.words[node.number] = replace(words, shape=bare(per_sequence(node)[0]))
        self.named.add(node.number)

    def new_name(self) -> Words:
        while True:
            self.extra += 1
            words = Words(f"u_{self.extra}", f"u_{{{self.extra}}}")
            if words.text not in self.taken:
                return words

    def constant(self, n: Tensor) -> Words:
        """An array that the cell holds has its name there; others are numbered."""
        if n.is_symbol:
            return super().constant(n)
        for value, words in self.constants:
            if value.shape == n.shape and np.array_equal(value, n.value):
                return words
        name = next(
            (k for k, a in self.fixed.items() if np.array_equal(a, n.value)),
            f"const_{len(self.constants) + 1}",
        )
        words = replace(self.label(name, of=f"constant {name}"), shape=bare(n.shape))
        self.constants.append((n.value, words))
        return words

    # Lines.

    def reached(self, roots: Iterable[Tensor]) -> list[Tensor]:
        """All that `roots` are written with, by rising number: not what lies inside of a composition, nor what a weight
        was made of before the step."""
        weights = {p.number for p in self.parameters.values()}
        seen = {}
        pending = list(roots)
        while pending:
            node = pending.pop()
            if node.number not in seen:
                seen[node.number] = node
                pending.extend(self.reads(node) if node.number not in weights else ())
        return [seen[n] for n in sorted(seen)]

    def lines(self, roots: Iterable[Tensor], names: dict[int, Words]) -> list[Equation]:
        """An equation for every named node, in the order of creation; the rest is written out."""
        found = []
        nodes = [n for n in self.reached(roots) if n.number not in self.words]
        readers, often = self.readers(nodes, names)
        for n in nodes:
            whole = self.raw(n)
            own = names.get(n.number)
            if own is None and n.number in self.joint:
                own = self.joined(*self.joint[n.number])
            if own is None and self.deserves_a_name(n, whole, readers, often):
                own = self.new_name()
            if own is not None:
                found.append(Equation(own, whole, "←" if self.reads_name(n, own) else "="))
                self.named.add(n.number)
            self.words[n.number] = whole if own is None else replace(own, shape=whole.shape)
        return found

    def readers(
        self, nodes: list[Tensor], names: Container[int] = ()
    ) -> tuple[dict[int, int], dict[int, int]]:
        """How many of `nodes` read each node, and what stands several times in one text, with the size that is too much.

        Who reads what is only seen in another shape, reads what is seen.
        """
        count: dict[int, int] = {}
        often: dict[int, int] = {}
        for n in reversed(nodes):
            for x in self.reads(n):
                seen = n.op is not None and n.op.name in VIEWS and n.number in count and n.number not in names
                count[x.number] = count.get(x.number, 0) + (count[n.number] if seen else 1)
            found = composition(n)
            if found is not None and found.name in ("layer_norm_gradient", "softmax_gradient"):
                often |= {x.number: size for x, size in zip(found.inputs, (1, 1, 2 * LONG + 1), strict=False)}
        return count, often

    def deserves_a_name(
        self, n: Tensor, whole: Words, readers: dict[int, int], often: dict[int, int]
    ) -> bool:
        if n.op is None or n.op.name == "concat" or n.op.binding == 0:
            return False
        if turns(whole):  # as it will be where it is read
            return False
        return (whole.size >= LONG and readers.get(n.number, 0) > 1) or whole.size >= often.get(
            n.number, np.inf
        )

    def named_anew(self, roots: list[Tensor]) -> list[Equation]:
        """Names for long expressions of the forward graph that the backward one reads more than once."""
        nodes = self.reached(roots)
        readers, often = self.readers([n for n in nodes if n.number not in self.words])
        known = set(self.named)
        found = []
        for n in nodes:
            if n.number not in self.words or n.number in known or n.op is None:
                continue
            whole = self.words[n.number] = self.raw(n)
            if self.deserves_a_name(n, whole, readers, often):
                self.words[n.number] = replace(self.new_name(), shape=whole.shape)
                self.named.add(n.number)
                found.append(Equation(self.words[n.number], whole))
        return found

    def reads_name(self, n: Tensor, own: Words) -> bool:
        """Does the right side stand on the same name, as in dc_t ← dc_t + …?"""
        pending = list(self.reads(n))
        while pending:
            x = pending.pop()
            if self.words[x.number].text == own.text:
                return True
            if x.number not in self.named:
                pending.extend(self.reads(x))
        return False

    # Backward.

    def gradients(self) -> tuple[list[Equation], list[str]]:
        outputs, cotangents = [], []
        for name, node in zip(self.cell.state.split(), self.state, strict=True):
            if node.dtype.kind == "f":  # counters have no gradient
                outputs.append(node)
                cotangents.append(symbol(node.shape, node.dtype, f"d{name}", True))
                self.call(cotangents[-1], d(self.label(name, "t")))
        learned = [p for p in self.parameters.values() if p.requires_grad or p.op is not None]
        targets = [x for x in (self.x, *self.before, *learned) if x.dtype.kind == "f"]
        depends = {x.number for x in targets}
        for node in ancestors(*outputs):
            if lets_through(node) and any(x.number in depends for x in node.inputs):
                depends.add(node.number)
        visited = list(walk(zip(outputs, cotangents, strict=True), None, depends, True))
        wanted = {x.number: g for x, g, _ in visited if x.number in {t.number for t in targets}}
        names = self.gradient_names(visited, wanted)
        roots = [g for x, g, _ in visited if x.number in wanted or self.name_of(x) is not None]
        found = self.named_anew(roots)
        found += self.lines(roots, names)
        for node, gradient, _ in visited:  # two names of one gradient, such as df = dc
            own, words = self.name_of(node), self.words.get(gradient.number)
            if own is None or words is None or words.text == d(own).text or self.in_joint(d(own)):
                continue
            if d(own).text not in {e.left.text for e in found}:
                found.append(Equation(d(own), words))
        notes = []
        if self.inside:
            (words, quantity), *more = self.inside
            others = tr(", and likewise for the others") if more else ""
            notes.append(
                tr(
                    "{text}: what stands inside the function of {quantity}{others}",
                    text=words.text,
                    quantity=quantity.text,
                    others=others,
                )
            )
        return found, notes

    def name_of(self, node: Tensor) -> Words | None:
        """What a node of the forward graph is called, if it has a name."""
        named = node.number in self.called or (node.op is None and (node.is_symbol or node.requires_grad))
        return self.words[node.number] if named else None

    def in_joint(self, words: Words) -> bool:
        return any(words.text == p.text for _, parts, _ in self.joint.values() for p in parts)

    def gradient_names(self, visited, wanted) -> dict[int, Words]:
        names: dict[int, Words] = {}
        users: dict[int, list[Tensor]] = {}
        for node, _, _ in visited:
            for x in node.inputs:
                users.setdefault(x.number, []).append(node)
        final = {node.number: gradient for node, gradient, _ in visited}
        primes: dict[str, int] = {}
        for node, gradient, parts in visited:
            own = self.name_of(node)
            if own is not None and gradient.op is not None:
                names.setdefault(gradient.number, d(own))
            elif gradient.op is not None and gradient.number not in names:
                gates = users.get(node.number, [])
                outer = self.called.get(gates[0].number) if len(gates) == 1 and _of_one(gates[0]) else None
                if outer and node.op is not None and node.op.kind != "structure":
                    words = self.label("a_" + outer.removesuffix("_tilde"), "t", of=f"inside {outer}")
                    if words.text not in (w.text for w, _ in self.inside):
                        self.inside.append((words, self.words[gates[0].number]))
                        names[gradient.number] = d(words)
            if node.op is not None and node.op.name == "concat":
                self.split(node, gradient, parts, final, primes, names)
        return names

    def split(self, node, gradient, parts, final, primes, names) -> None:
        """The gradient of [h, x] has the parts dh and dx: one equation with both on its left."""
        called = []
        for x, part in zip(node.inputs, parts, strict=True):
            if part is None:
                called.append(Words("·", r"\cdot"))
                continue
            words = self.whole(x)
            whole = final.get(x.number) is part and (x.number in self.named or words.text not in primes)
            primes[words.text] = primes.get(words.text, 0) + (not whole)
            own = d(words, 0 if whole else primes[words.text])
            self.call(part, own)
            names.pop(part.number, None)
            called.append(own)
        self.joint[gradient.number] = node, called, node.params[0]
        names.pop(gradient.number, None)


def _dtype(cell) -> np.dtype:
    first = next(iter(cell.parameters().values()), None)
    return np.dtype("float32") if first is None else first.dtype


def _states(cell) -> list[tuple[tuple, np.dtype]]:
    """Shape and type of every state; None is the size that follows the number of sequences."""
    if not hasattr(cell, "initial_state"):
        return [((None, cell.hidden), _dtype(cell)) for _ in cell.state.split()]
    with no_grad():
        two, three = (_several(cell.initial_state(sequences)) for sequences in (2, 3))
    return [  # one of a single row is taken for all sequences
        (
            tuple(
                m if m == n and (k or m > 1) else None
                for k, (m, n) in enumerate(zip(a.shape, b.shape, strict=True))
            ),
            a.dtype,
        )
        for a, b in zip(two, three, strict=True)
    ]


def _several(states) -> tuple:
    return tuple(states) if isinstance(states, (tuple, list)) else (states,)


def _example(name: str, a, N: Size) -> Tensor:
    """The symbol of one step's input, as many sequences as x has."""
    a = a if isinstance(a, Tensor) else Tensor(a)
    return symbol((N, *a.shape[1:]) if a.shape else (), a.dtype, name, a.dtype.kind == "f")


def _further(cell) -> list[inspect.Parameter]:
    """What a step takes behind x and its states."""
    given = list(inspect.signature(cell.step).parameters.values())
    by_place = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [*by_place[1 + len(cell.state.split()) :], *(p for p in given if p.kind is p.KEYWORD_ONLY)]


def _of_one(n: Tensor) -> bool:
    """A function of one argument, relu included."""
    found = composition(n)
    return (
        n.op is not None
        and n.op.kind == "elementwise"
        and (len(n.inputs) == 1 or (bool(found) and found.name == "relu"))
    )


def _aligned(lines: list[Equation]) -> list[str]:
    width = max(_width(e.left.text) for e in lines)
    return [f"  {e.left.text}{' ' * (width - _width(e.left.text))} {e.sign} {e.right.text}" for e in lines]


def _width(text: str) -> int:
    return sum(c != "\u0303" for c in text)


def _latex(lines: list[Equation]) -> str:
    signs = {"=": "=", "←": r"\leftarrow"}
    rows = [rf"{e.left.tex} &{signs[e.sign]} {e.right.tex}" for e in lines]
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"
