"""Words for formulas, plain and LaTeX, and how they are put together: names, brackets, sums, products, shapes.

Nothing here knows of a graph's operations; notation.py writes nodes out with these.  Every `Words` knows the shape
that its text has when it is computed (for one sequence, in the program's order, without leading 1s), so that
repetition along axes may stay unsaid where an operation repeats by itself, and is said where none does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minigrad import Tensor
from minigrad.names import printable
from minigrad.sizes import Size

ADD, PRODUCT, MULTIPLY, CLOSED = 1, 1.5, 2, 9  # as in the table of operations; W·h ⊙ r asks for brackets
LONG = 2  # an expression of so many operations that is read twice gets a name
COMMANDS = str.maketrans({c: rf"\{c}" for c in "{}$%&#_"} | {"\\": r"{\backslash}", "^": r"{\wedge}", "~": r"{\sim}"}
    | {c: f"{{{c}}}" for c in "<>"})  # fmt: skip


@dataclass(frozen=True)
class Words:
    """The same thing as text and as LaTeX.

    binding : the strength of its outermost operator.
    size : how many operations are written out in it.
    shape : of what the text computes, for one sequence.
    positive, flipped, moved : what it is the negative, the transpose or another shape of.
    factors, terms, total : of a matrix product; of a sum, all but the last term, and that; of Σ, what is added up.
    """

    text: str
    tex: str
    binding: float = CLOSED
    size: int = 0
    shape: tuple = ()
    positive: Words | None = None
    flipped: Words | None = None
    moved: Words | None = None
    factors: tuple[Words, Words] | None = None
    terms: tuple[Words, Words] | None = None
    total: Words | None = None

    @property
    def negative(self) -> bool:
        return self.positive is not None

    def within(self, strength: float) -> Words:
        """In brackets, unless it binds at least as strongly as where it stands."""
        if self.binding >= strength:
            return self
        return Words(f"({self.text})", rf"\left({self.tex}\right)", CLOSED, self.size, self.shape)

    def unsigned(self, strength: float = MULTIPLY) -> Words:
        """Without its leading minus, to be read within `strength`."""
        return (self.positive or self).within(strength)

    def signed(self, negative: bool) -> Words:
        if not negative:
            return self
        whole = self.within(PRODUCT)
        return Words(f"−{whole.text}", f"-{whole.tex}", ADD, self.size, self.shape, positive=self)


# Names in the lecture's notation.


def label(name: str, time: str = "", number: int = 0) -> Words:
    """c_tilde at t → c̃_t; W_f → W_f; log_h → log h; Greek and primes pass through.  `number` tells it from its likes."""
    name = printable(name) or "?"
    if name.startswith("log_") and name.removeprefix("log_").removesuffix("_tilde").strip("_"):
        inner = label(name.removeprefix("log_"), time, number)
        return Words(f"log {inner.text}", rf"\log {inner.tex}", PRODUCT)
    tilde = name.endswith("_tilde") and name != "_tilde"
    base, _, index = (name[: -len("_tilde")] if tilde else name).partition("_")
    if not base:
        base, index = name, ""
    text, tex = base, escaped(base) if len(base) == 1 else rf"\mathit{{{escaped(base)}}}"
    if tilde and index and len(base) > 1:  # of the last part, where the first is a word
        index, inner = f"{index[:-1]}{index[-1]}\u0303", rf"\tilde{{{_upright(index)}}}"
    else:
        inner = _upright(index)
        if tilde:
            text, tex = base[0] + "\u0303" + base[1:], rf"\tilde{{{escaped(base)}}}"
    numbered = str(number) if number else ""
    low = ",".join(filter(None, [index, numbered, time]))
    if not low:
        return Words(text, tex)
    plain = low if len(low) == 1 else "{" + low + "}"
    low_tex = ",".join(filter(None, [inner, numbered, escaped(time).replace("−", "-")]))
    return Words(f"{text}_{plain if time or numbered else low}", f"{tex}_{{{low_tex}}}")


def escaped(text: str) -> str:
    """Text for a formula, in which it commands nothing; what is marked in brackets is not a tag in a notebook either."""
    return text.translate(COMMANDS)


def _upright(text: str) -> str:
    return rf"\mathrm{{{escaped(text)}}}" if len(text) > 1 and any(map(str.isalpha, text)) else escaped(text)


def d(words: Words, prime: int = 0) -> Words:
    """The gradient of what these words stand for."""
    closed = words.binding == CLOSED and not words.size and not words.flipped
    text, tex = (words.text, words.tex) if closed else (f"({words.text})", rf"\left({words.tex}\right)")
    return Words("d" + text + "′" * prime, rf"\mathrm{{d}}{tex}" + "'" * prime, shape=words.shape)


# Shapes, of one sequence.


def per_sequence(n: Tensor) -> tuple[tuple, int | None]:
    """A node's shape without the axis of the sequences, and which axis that is."""
    at = next((k for k, s in enumerate(n.shape) if isinstance(s, Size)), None)
    return tuple(s if isinstance(s, int) else str(s) for k, s in enumerate(n.shape) if k != at), at


def without(axes: Sequence[int], at: int | None) -> list[int]:
    """The program's axes, counted without that of the sequences."""
    return [a - (at is not None and at < a) for a in axes if a != at]


def bare(shape: tuple) -> tuple:
    """Without leading 1s, which no operation sees."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape


def is_scalar(shape: tuple) -> bool:
    return all(s == 1 for s in shape)


def repeats_to(shape: tuple, wanted: tuple) -> bool:
    """Does an operation repeat `shape` to `wanted` by itself?"""
    return len(shape) <= len(wanted) and all(
        s in (1, w) for s, w in zip(shape[::-1], wanted[::-1], strict=False)
    )


def common(shapes: list[tuple]) -> tuple:
    longest = max(map(len, shapes), default=0)
    padded = [(1,) * (longest - len(s)) + s for s in shapes]
    return tuple(next((s for s in sizes if s != 1), 1) for sizes in zip(*padded, strict=True))


def bare_axes(x: Tensor, axes: Sequence[int]) -> list[int]:
    """The program's axes, counted in the bare shape, that have more than one element."""
    shape, at = per_sequence(x)
    lead = len(shape) - len(bare(shape))
    return [k - lead for k in without(axes, at) if k >= lead and shape[k] != 1]


def over_sequences(x: Tensor, axes: Sequence[int]) -> bool:
    return per_sequence(x)[1] in axes


def dropped(shape: tuple, axes: list[int]) -> tuple:
    return tuple(s for k, s in enumerate(shape) if k not in axes)


def times(shape: tuple) -> tuple[str, str]:
    return "×".join(map(str, shape)), r" \times ".join(map(str, shape))


# Words made of words.


def function(name: str, *arguments: Words, shape: tuple = (), mark: tuple[str, str] = ("", "")) -> Words:
    return Words(
        f"{name}{mark[0]}({', '.join(a.text for a in arguments)})",
        rf"\mathrm{{{escaped(name)}}}{mark[1]}\left({', '.join(a.tex for a in arguments)}\right)",
        CLOSED,
        1 + sum(a.size for a in arguments),
        shape,
    )


def written(text: str, tex: str) -> Words:
    """An argument that is not a quantity."""
    return Words(text, tex)


def product(left: Words, right: Words, shape: tuple) -> Words:
    """The matrix product, as on the slide."""
    size, negative = 1 + left.size + right.size, left.negative != right.negative
    factors = left.positive or left, right.positive or right
    a, b = (w.within(CLOSED) for w in factors)
    words = Words(
        f"{a.text}·{b.text}", rf"{a.tex} \cdot {b.tex}", PRODUCT, size + LONG, shape, factors=factors
    )
    return words.signed(negative)


def added(a: Words, b: Words, minus: bool, shape: tuple) -> Words:
    """a + b, or a − b."""
    if b.terms and not minus and not b.negative:  # a + (p − q) is a + p − q, also where p is negative
        for term in b.terms:
            a = added(a, term.positive or term, term.negative, shape)
        return a
    size, sign = 1 + a.size + b.size, "−" if minus else "+"
    terms = a, b.signed(minus)
    a, b = a.within(ADD), b.within(PRODUCT if minus or b.negative else ADD)
    tex = f"{a.tex} {sign.replace('−', '-')} {b.tex}"
    return Words(f"{a.text} {sign} {b.text}", tex, ADD, size, shape, terms=terms)


def summed(a: Words) -> Words:
    """Over the sequences."""
    inner, whole = a.unsigned(PRODUCT), a.positive or a
    words = Words(f"Σ {inner.text}", rf"\sum {inner.tex}", PRODUCT, 1 + a.size, a.shape, total=whole)
    return words.signed(a.negative)


def turns(a: Words) -> bool:
    """Does it become simpler by transposition?"""
    return bool(a.flipped or (a.factors and any(f.flipped for f in a.factors)))


def transposed(a: Words) -> Words:
    """Rows for columns; of a vector, the row."""
    if is_scalar(a.shape) or a.flipped:
        return a.flipped or a
    if a.positive:
        return transposed(a.positive).signed(True)
    shape = (a.shape[0], 1) if len(a.shape) == 1 else bare(a.shape[::-1])
    if a.factors and any(f.flipped for f in a.factors):
        left, right = a.factors
        return product(transposed(right), transposed(left), shape)
    if a.total and turns(a.total):
        return summed(transposed(a.total))
    if a.terms and all(turns(t.positive or t) for t in a.terms):
        first, last = map(transposed, a.terms)
        return added(first, last.positive or last, last.negative, shape)
    closed = a.within(CLOSED)
    tex = raised(closed, r"\top")
    return Words(f"{closed.text}ᵀ", tex, CLOSED, a.size, shape, flipped=a)


def raised(a: Words, exponent: str) -> str:
    """LaTeX takes no second superscript."""
    return f"{{{a.tex}}}^{{{exponent}}}" if "'" in a.tex or "^" in a.tex else f"{a.tex}^{{{exponent}}}"


def seen(a: Words, shape: tuple) -> Words:
    """The same elements in another shape."""
    have, wanted = bare(a.shape), bare(shape)
    if have == wanted or is_scalar(have):
        return a
    if len(have) + len(wanted) == 3 and (wanted == (*have, 1) or have == (*wanted, 1)):  # a row for a column
        return transposed(a)
    a = a.moved or a
    return (
        a
        if bare(a.shape) == wanted
        else replace(function("reshape", a, written(*times(wanted)), shape=wanted), moved=a)
    )


def fitted(a: Words, shape: tuple) -> Words:
    """For an operation that repeats by itself."""
    return a if repeats_to(bare(a.shape), shape) else seen(a, shape)


def mark(axes: list[int], rank: int, sequences: bool, whole: str = "") -> tuple[str, str]:
    """Which axes a reduction goes over, as an index; `whole`: what is said of all axes."""
    said = ["sequences"] if sequences else []
    if axes and len(axes) == rank:
        said += [whole] if whole or not sequences else ["all"]
    elif axes == [rank - 1]:
        said.append("units")
    elif axes:
        said.append(f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, axes))}")
    low = ", ".join(filter(None, said))
    if not low:
        return "", ""
    plain = low if low.isalpha() else f"{{{low}}}"
    return f"_{plain}", rf"_{{\mathrm{{{low.replace(' ', '~')}}}}}"


def number(value: float) -> Words:
    said, _, exponent = f"{abs(value):.6g}".partition("e")
    power = str(int(exponent)) if exponent else ""
    text = {"inf": "∞", "nan": "NaN"}.get(said, said) + (f"e{power}" if power else "")
    tex = {"inf": r"\infty", "nan": r"\mathrm{NaN}"}.get(said, said)
    words = Words(text.replace("-", "−"), tex + (rf" \cdot 10^{{{power}}}" if power else ""))
    return words.signed(value < 0)
