"""A cell's equations, forward and backward, read from its graph.

One step is traced on symbols and walked in the order of creation.  A quantity that the step
returns stands on the left of an equation of its own; so does a gradient that has a
name, and whatever long expression is read more than once.  All else is written out,
with brackets where the operators' binding strengths ask for them.

Arrays are row vectors, ``hx @ W``; the slide has columns, W·[h, x].  So every product is
printed with its sides exchanged, which is the same equation transposed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from minigrad import InputError, Tensor, ancestors, scope
from minigrad.grad import reverse
from minigrad.names import printable
from minigrad.sizes import Size, Variable
from minigrad.tensor import symbol

ADD, PRODUCT, MULTIPLY, CLOSED = 1, 1.5, 2, 9  # as in the table of operations; W·h ⊙ r asks for brackets
COMMANDS = str.maketrans({c: rf"\{c}" for c in "{}$%&#_"} | {"\\": r"{\backslash}", "^": r"{\wedge}", "~": r"{\sim}"}
    | {c: f"{{{c}}}" for c in "<>"})  # fmt: skip
LONG = 2  # an expression of so many operations that is read twice gets a name


@dataclass(frozen=True)
class Words:
    """The same thing as text and as LaTeX; `binding` is the strength of its outermost operator, `size` how
    many operations are written out in it, `negative` says that it begins with a minus that may be moved."""

    text: str
    tex: str
    binding: float = CLOSED
    size: int = 0
    negative: bool = False

    def within(self, strength: float) -> Words:
        """In brackets, unless it binds at least as strongly as where it stands."""
        if self.binding >= strength:
            return self
        return Words(f"({self.text})", rf"\left({self.tex}\right)", CLOSED, self.size)

    def unsigned(self, strength: float = MULTIPLY) -> Words:
        """Without its leading minus, to be read within `strength`."""
        if not self.negative:
            return self.within(strength)
        return Words(self.text[1:], self.tex[1:], MULTIPLY, self.size).within(strength)

    def signed(self, negative: bool) -> Words:
        if not negative:
            return self
        whole = self.within(MULTIPLY)
        return Words(f"−{whole.text}", f"-{whole.tex}", ADD, self.size, True)


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
        parts = [f"{self.name}, step t", "", *_aligned(self.forward)]
        if self.backward:
            parts += [
                "",
                "backward",
                "",
                *_aligned(self.backward),
                *([""] if self.notes else []),
                *self.notes,
            ]
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


def equations(cell, *, backward: bool = True) -> Equations:
    """The equations of a cell, from the graph of one step.

    cell : anything with ``step(x, *state)`` that returns its quantities by name, `state`
        (names separated by blanks), `inputs`, `hidden` and ``parameters()``.

    Gradients are those of any loss: dh_t and dc_t on the right are what comes from it and from step t + 1.
    Raises InputError for an object that has no such step, and what the step itself raises.
    """
    missing = [a for a in ("step", "state", "inputs", "hidden", "parameters") if not hasattr(cell, a)]
    if missing:
        raise InputError(
            f"equations of {type(cell).__name__}: it has no {', '.join(missing)}; "
            "give a cell, such as cells.LSTM(…)"
        )
    return _Writer(cell).written(backward)


# Names in the lecture's notation.


def label(name: str, time: str = "") -> Words:
    """c_tilde at t → c̃_t; W_f → W_f; Greek and primes pass through."""
    name = printable(name) or "?"
    tilde = name.endswith("_tilde") and name != "_tilde"
    base, _, index = (name[: -len("_tilde")] if tilde else name).partition("_")
    if not base:
        base, index = name, ""
    text, tex = base, escaped(base) if len(base) == 1 else rf"\mathit{{{escaped(base)}}}"
    if tilde:
        text, tex = base[0] + "\u0303" + base[1:], rf"\tilde{{{escaped(base)}}}"
    low = ",".join(filter(None, [index, time]))
    if not low:
        return Words(text, tex)
    plain = low if len(low) == 1 else "{" + low + "}"
    return Words(f"{text}_{plain if time else low}", f"{tex}_{{{escaped(low).replace('−', '-')}}}")


def escaped(text: str) -> str:
    """Text for a formula, in which it commands nothing; what is marked in brackets is no tag in a notebook either."""
    return text.translate(COMMANDS)


def d(words: Words, prime: int = 0) -> Words:
    """The gradient of what these words stand for."""
    closed = words.binding == CLOSED and not words.size
    text, tex = (words.text, words.tex) if closed else (f"({words.text})", rf"\left({words.tex}\right)")
    return Words("d" + text + "′" * prime, rf"\mathrm{{d}}{tex}" + "'" * prime)


class _Writer:
    """Walks one step's graph and writes it down."""

    def __init__(self, cell):
        self.cell, self.name = cell, printable(type(cell).__name__)
        N = Size({(Variable("N", 2),): 1})
        state = cell.state.split()
        self.words: dict[int, Words] = {}  # what a node is called where it is read
        with scope("t"):
            self.x = symbol((N, cell.inputs), _dtype(cell), "x", True)
            self.before = [symbol((N, cell.hidden), _dtype(cell), f"{s}_prev", True) for s in state]
            self.quantities: dict[str, Tensor] = cell.step(self.x, *self.before)
        self.state = [self.quantities[s] for s in state]
        self.called = {q.number: n for n, q in reversed(self.quantities.items())}
        self.words[self.x.number] = label("x", "t")
        for s, node in zip(state, self.before, strict=True):
            self.words[node.number] = label(s, "t−1")
        self.parameters: dict[str, Tensor] = cell.parameters()
        for name, p in self.parameters.items():
            self.words[p.number] = label(name.rpartition(".")[2])
        self.rectified: dict[int, Tensor] = {}  # condition of max(x, 0) → the whole
        self.inside: list[tuple[Words, Words]] = []  # a_f and the quantity f = σ(a_f)
        self.joint: dict[int, list[Words]] = {}  # gradient of [a, b] → what its parts are called
        self.extra = 0

    def written(self, backward: bool) -> Equations:
        roots = list(self.quantities.values())
        for node in ancestors(*roots):
            if node.name and node.op is not None:
                self.called.setdefault(node.number, node.name)
        forward = self.lines(roots, {number: label(name, "t") for number, name in self.called.items()})
        for name, node in self.quantities.items():  # two names of one node, such as h = c
            if (own := label(name, "t")).text != self.words[node.number].text:
                forward.append(Equation(own, self.words[node.number]))
        if not backward:
            return Equations(self.name, forward, [])
        return Equations(self.name, forward, *self.gradients())

    # Lines.

    def lines(self, roots: Iterable[Tensor], names: dict[int, Words]) -> list[Equation]:
        """An equation for every named node, in the order of creation; the rest is written out."""
        found = []
        nodes = [n for n in ancestors(*roots) if n.number not in self.words]
        readers = _readers(nodes)
        for n in nodes:
            whole = self.raw(n)
            own = names.get(n.number)
            if own is None and n.number in self.joint:
                parts = self.joint[n.number]
                own = Words(
                    "[" + ", ".join(p.text for p in parts) + "]",
                    r"\left[" + ", ".join(p.tex for p in parts) + r"\right]",
                )
            if own is None and readers.get(n.number, 0) > 1 and self.deserves_a_name(n, whole):
                own = self.new_name()
            if own is not None:
                found.append(Equation(own, whole, "←" if self.reads(n, own) else "="))
            self.words[n.number] = whole if own is None else own
        return found

    def deserves_a_name(self, n: Tensor, whole: Words) -> bool:
        return whole.size >= LONG and n.op is not None and n.op.name != "concat"

    def new_name(self) -> Words:
        self.extra += 1
        return Words(f"u_{self.extra}", f"u_{{{self.extra}}}")

    def named_anew(self, roots: list[Tensor]) -> list[Equation]:
        """Names for long expressions of the forward graph that the backward one reads more than once."""
        nodes = ancestors(*roots)
        readers = _readers([n for n in nodes if n.number not in self.words])
        known = {number for number, words in self.words.items() if not words.size}
        found = []
        for n in nodes:
            if n.number not in self.words or n.number in known or n.op is None:
                continue
            whole = self.words[n.number] = self.raw(n)
            if readers.get(n.number, 0) > 1 and self.deserves_a_name(n, whole):
                self.words[n.number] = self.new_name()
                found.append(Equation(self.words[n.number], whole))
        return found

    def reads(self, n: Tensor, own: Words) -> bool:
        """Does the right side stand on the same name, as in dc_t ← dc_t + …?"""
        pending = list(n.inputs)
        while pending:
            x = pending.pop()
            words = self.words[x.number]
            if words.text == own.text:
                return True
            if words.size:
                pending.extend(x.inputs)
        return False

    # Backward.

    def gradients(self) -> tuple[list[Equation], list[str]]:
        cotangents = []
        for name, node in zip(self.cell.state.split(), self.state, strict=True):
            g = symbol(node.shape, node.dtype, f"d{name}", True)
            self.words[g.number] = d(label(name, "t"))
            cotangents.append(g)
        targets = [self.x, *self.before, *self.parameters.values()]
        depends = {x.number for x in targets}
        for node in ancestors(*self.state):
            if (
                node.op is not None
                and node.op.vjp is not None
                and any(x.number in depends for x in node.inputs)
            ):
                depends.add(node.number)
        visited = list(reverse(self.state, cotangents, depends, True))
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
            others = ", and likewise for the others" if more else ""
            notes.append(f"{words.text}: what stands inside the function of {quantity.text}{others}")
        if any(e.right.text.startswith("Σ") for e in found):
            notes.append("Σ: over the sequences")
        return found, notes

    def name_of(self, node: Tensor) -> Words | None:
        """What a node of the forward graph is called, if it has a name."""
        named = node.number in self.called or (node.op is None and (node.is_symbol or node.requires_grad))
        return self.words[node.number] if named else None

    def in_joint(self, words: Words) -> bool:
        return any(words.text == p.text for parts in self.joint.values() for p in parts)

    def gradient_names(self, visited, wanted) -> dict[int, Words]:
        names: dict[int, Words] = {}
        users: dict[int, list[Tensor]] = {}
        for node, _, _ in visited:
            for x in node.inputs:
                users.setdefault(x.number, []).append(node)
        final = {node.number: gradient for node, gradient, _ in visited}
        primes: dict[int, int] = {}
        for node, gradient, parts in visited:
            own = self.name_of(node)
            if own is not None and gradient.op is not None:
                names.setdefault(gradient.number, d(own))
            elif gradient.op is not None and gradient.number not in names:
                gates = users.get(node.number, [])
                outer = self.called.get(gates[0].number) if len(gates) == 1 and _of_one(gates[0]) else None
                if outer and node.op is not None and node.op.kind != "structure":
                    words = label("a_" + outer.removesuffix("_tilde"), "t")
                    if words.text not in (w.text for w, _ in self.inside):
                        self.inside.append((words, label(outer, "t")))
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
            whole = final.get(x.number) is part
            if not whole:
                primes[x.number] = primes.get(x.number, 0) + 1
            own = d(self.words[x.number], 0 if whole else primes[x.number])
            self.words[part.number] = own
            names.pop(part.number, None)
            called.append(own)
        self.joint[gradient.number] = called
        names.pop(gradient.number, None)

    # One node written out.

    def raw(self, n: Tensor) -> Words:
        op = n.op
        if op is None:
            return _constant(n)
        special = getattr(self, f"_{op.name}", None)
        inputs = [self.words[x.number] for x in n.inputs]
        size = 1 + sum(w.size for w in inputs)
        if special is not None:
            made = special(n, *inputs)
            if made is not None:
                return made
        if op.variadic:
            return Words(
                "[" + ", ".join(w.text for w in inputs) + "]",
                r"\left[" + ", ".join(w.tex for w in inputs) + r"\right]",
                CLOSED,
                size,
            )
        if op.kind == "structure" or op.name == "cast":
            return inputs[0]
        strength = op.binding
        if strength < CLOSED:
            inputs = [w.within(strength) for w in inputs]
        params = dict(zip(op.params, n.params, strict=True))
        return Words(
            op.text.format(*(w.text for w in inputs), **params),
            op.tex.format(*(w.tex for w in inputs), **params),
            strength,
            size,
        )

    def _matmul(self, n, a, b) -> Words:
        """Sides exchanged: rows become the slide's columns."""
        size, negative = 1 + a.size + b.size, a.negative != b.negative
        a, b = a.unsigned(CLOSED), b.unsigned(CLOSED)
        return Words(f"{b.text}·{a.text}", rf"{b.tex} \cdot {a.tex}", PRODUCT, size + LONG).signed(negative)

    def _transpose(self, n, a) -> Words:
        a = a.within(CLOSED)
        return Words(f"{a.text}ᵀ", rf"{a.tex}^{{\top}}", CLOSED, a.size)

    def _add(self, n, a, b) -> Words:
        if a.text == b.text:
            a = a.within(MULTIPLY)
            return Words(f"2 {a.text}", rf"2\, {a.tex}", MULTIPLY, 1 + a.size)
        if a.negative and not b.negative:
            a, b = b, a
        size, sign = 1 + a.size + b.size, "−" if b.negative else "+"
        b = b.unsigned(PRODUCT) if b.negative else b.within(ADD)
        return Words(f"{a.text} {sign} {b.text}", f"{a.tex} {sign.replace('−', '-')} {b.tex}", ADD, size)

    def _sub(self, n, a, b) -> Words:
        size, b = 1 + a.size + b.size, b.within(PRODUCT)
        return Words(f"{a.text} − {b.text}", f"{a.tex} - {b.tex}", ADD, size)

    def _neg(self, n, a) -> Words:
        return a.unsigned() if a.negative else a.signed(True)

    def _mul(self, n, a, b) -> Words:
        if n.inputs[0] is n.inputs[1]:
            return self.squared(a)
        size, negative = 1 + a.size + b.size, a.negative != b.negative
        a, b = a.unsigned(), b.unsigned()
        if _is_number(n.inputs[0]) or _is_number(n.inputs[1]):
            first, second = (a, b) if _is_number(n.inputs[0]) else (b, a)
            return Words(
                f"{first.text} {second.text}", rf"{first.tex}\, {second.tex}", MULTIPLY, size
            ).signed(negative)
        b = b.within(CLOSED) if " / " in b.text and b.binding == MULTIPLY else b
        return Words(f"{a.text} ⊙ {b.text}", rf"{a.tex} \odot {b.tex}", MULTIPLY, size).signed(negative)

    def squared(self, a: Words) -> Words:
        a = a.within(CLOSED)
        return Words(f"{a.text}²", f"{a.tex}^{{2}}", CLOSED, 1 + a.size)

    def _power(self, n, a) -> Words | None:
        return self.squared(a) if n.params[0] == 2 else None

    def _div(self, n, a, b) -> Words:
        top, negative = n.inputs[0], a.negative != b.negative
        if top.op is not None and top.op.name == "sum" and _counts(top, n.inputs[1]):
            inner = self.words[top.inputs[0].number]
            size, sign, inner = 1 + inner.size, inner.negative, inner.unsigned(0)
            return Words(
                f"mean({inner.text})", rf"\mathrm{{mean}}\left({inner.tex}\right)", CLOSED, size
            ).signed(sign)
        size, over, under = 1 + a.size + b.size, a.unsigned(0), b.unsigned(0)
        left, right = over.within(MULTIPLY), under.within(CLOSED)
        words = Words(f"{left.text} / {right.text}", rf"\frac{{{over.tex}}}{{{under.tex}}}", MULTIPLY, size)
        return words.signed(negative)

    def _sum(self, n, a) -> Words:
        over_units = n.params[0] == (len(n.inputs[0].shape) - 1,)
        size, negative, a = 1 + a.size, a.negative, a.unsigned(PRODUCT)
        mark = ("Σ_units ", r"\sum_{\mathrm{units}} ") if over_units else ("Σ ", r"\sum ")
        return Words(mark[0] + a.text, mark[1] + a.tex, PRODUCT, size).signed(negative)

    def _where(self, n, c, a, b) -> Words | None:
        condition = n.inputs[0]
        if _is_zero(n.inputs[1]) and condition.op is not None and condition.op.name == "greater_equal":
            left, right = condition.inputs
            if right is n.inputs[2] and _is_zero(left):  # 0 where 0 ≥ x, else x
                self.rectified[condition.number] = n
                return Words(f"max({b.text}, 0)", rf"\max\left({b.tex}, 0\right)", CLOSED, 1 + b.size)
        if _is_zero(n.inputs[2]) or _is_zero(n.inputs[1]):
            kept, no = (a, "") if _is_zero(n.inputs[2]) else (b, "not ")
            if condition.number in self.rectified:  # where max(x, 0) > 0, there x > 0
                whole = self.words[self.rectified[condition.number].number]
                no = "" if no else "not "
                c = Words(f"{whole.text} > 0", f"{whole.tex} > 0")
            kept = kept.within(MULTIPLY)
            return Words(
                f"{kept.text} ⊙ 1[{no}{c.text}]",
                rf"{kept.tex} \odot \mathbb{{1}}[{no}{c.tex}]",
                MULTIPLY,
                1 + kept.size,
            )
        return None


def _dtype(cell) -> np.dtype:
    first = next(iter(cell.parameters().values()), None)
    return np.dtype("float32") if first is None else first.dtype


def _is_number(n: Tensor) -> bool:
    return n.op is None and not n.is_symbol and n.shape == () and not n.name


def _is_zero(n: Tensor) -> bool:
    return _is_number(n) and n.value == 0


def _counts(total: Tensor, divisor: Tensor) -> bool:
    """Is the divisor the number of what was added up?"""
    axes, shape = total.params[0], total.inputs[0].shape
    sizes = [shape[a] for a in axes]
    return (
        _is_number(divisor)
        and all(isinstance(s, int) for s in sizes)
        and float(divisor.value) == float(np.prod(sizes))
    )


def _constant(n: Tensor) -> Words:
    if n.name:
        return label(n.name)
    if n.is_symbol or n.value.size != 1:
        return Words("const", r"\mathrm{const}")
    number, _, exponent = f"{float(n.value.reshape(-1)[0]):.6g}".partition("e")
    power = str(int(exponent)) if exponent else ""
    text = (number + (f"e{power}" if power else "")).replace("-", "−")
    tex = number + (rf" \cdot 10^{{{power}}}" if power else "")
    return Words(text, tex, CLOSED if not number.startswith("-") else ADD)


def _readers(nodes: list[Tensor]) -> dict[int, int]:
    """How many of `nodes` read each node; max(x, 0) reads x once."""
    count: dict[int, int] = {}
    for n in nodes:
        if n.op is not None and not (n.op.name == "greater_equal" and _is_zero(n.inputs[0])):
            for x in n.inputs:
                count[x.number] = count.get(x.number, 0) + 1
    return count


def _of_one(n: Tensor) -> bool:
    """A function of one argument, max(x, 0) included."""
    return n.op is not None and n.op.kind == "elementwise" and (len(n.inputs) == 1 or n.op.name == "where")


def _aligned(lines: list[Equation]) -> list[str]:
    width = max(_width(e.left.text) for e in lines)
    return [f"  {e.left.text}{' ' * (width - _width(e.left.text))} {e.sign} {e.right.text}" for e in lines]


def _width(text: str) -> int:
    return sum(c != "\u0303" for c in text)


def _latex(lines: list[Equation]) -> str:
    signs = {"=": "=", "←": r"\leftarrow"}
    rows = [rf"{e.left.tex} &{signs[e.sign]} {e.right.tex}" for e in lines]
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"
