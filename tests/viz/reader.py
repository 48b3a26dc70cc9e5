"""Reads printed equations as a person would, and computes them: strict, and ignorant of how they were written.

Every quantity is an array (sequences, *axes of one sequence in the program's order), with 1 for the sequences where all
share it, and without leading axes of one element.  In print the axes stand in the opposite order: a vector is a
column.  What is not plain is refused: ⊙ beside · without brackets, a division by `2 x`, an unknown word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np

from minigrad import Tensor
from viz.formula.equations import equations
from viz.formula.words import d, label


class UnclearError(ValueError):
    """A text that can be read in two ways, or in none."""


def bare(a: np.ndarray) -> np.ndarray:
    while a.ndim > 1 and a.shape[1] == 1:
        a = a[:, 0]
    return a


def aligned(*arrays: np.ndarray) -> list[np.ndarray]:
    rank = max(a.ndim for a in arrays)
    return [a.reshape(a.shape[:1] + (1,) * (rank - a.ndim) + a.shape[1:]) for a in arrays]


def each(function: Callable) -> Callable:
    return lambda *arrays: bare(function(*aligned(*arrays)))


def times(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left·right in print is right @ left in the program; a vector is one row there."""
    a, b = aligned(*(x[:, None] if x.ndim == 2 else x for x in (right, left)))
    if a.ndim < 3 or b.ndim < 3:
        raise UnclearError("a matrix product of numbers")
    return bare(a @ b)


def flipped(a: np.ndarray) -> np.ndarray:
    if a.ndim > 3:
        raise UnclearError("the transpose of more than a matrix")
    return a if a.ndim == 1 else a[:, :, None] if a.ndim == 2 else bare(a.swapaxes(1, 2))


def softmax(a, axis):
    e = np.exp(a - a.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def centred(a, axis):
    return a - a.mean(axis=axis, keepdims=True)


def deviation(a, axis, epsilon=1e-5):
    return np.sqrt((centred(a, axis) ** 2).mean(axis=axis, keepdims=True) + epsilon)


def entropy(logits, place):
    """Of a class, or of weights of the classes."""
    if place.ndim == logits.ndim:
        return -(place * np.log(softmax(logits, -1))).sum(axis=-1)
    return -np.take_along_axis(np.log(softmax(logits, -1)), place.astype(int)[..., None], -1)[..., 0]


ELEMENTS = {
    "σ": lambda x: 1 / (1 + np.exp(-x)), "√": np.sqrt, "tanh": np.tanh, "exp": np.exp, "log": np.log, "sin": np.sin,
    "cos": np.cos, "sign": np.sign, "abs": np.abs, "softplus": lambda x: np.log1p(np.exp(x)), "stop": lambda x: x,
    "relu": lambda x: np.maximum(x, 0), "trunc": np.trunc, "where": np.where, "float32": np.float32,
    "floor": np.floor, "ceil": np.ceil, "round": np.round, "expm1": np.expm1, "mod": np.mod, "logaddexp": np.logaddexp,
    "erf": lambda x: np.frompyfunc(math.erf, 1, 1)(x).astype(float), "isnan": np.isnan, "clip": np.clip,
    "inside": lambda x, rows: x, "cross_entropy": None,
}  # fmt: skip
REDUCTIONS = {
    "mean": lambda a, axis: a.mean(axis=axis, keepdims=True), "max": lambda a, axis: a.max(axis=axis, keepdims=True),
    "min": lambda a, axis: a.min(axis=axis, keepdims=True), "std": deviation,
    "norm": lambda a, axis: np.sqrt((a * a).sum(axis=axis, keepdims=True)),
    "logsumexp": lambda a, axis: np.log(np.exp(a).sum(axis=axis, keepdims=True)),
    "argmax": lambda a, axis: a.argmax(axis=axis[0], keepdims=True),
    "argmin": lambda a, axis: a.argmin(axis=axis[0], keepdims=True),
    "Σ": lambda a, axis: a.sum(axis=axis, keepdims=True),
}  # fmt: skip
SAME_SHAPE = {
    "cumsum": lambda a, axis: a.cumsum(axis=axis[0]),
    "cumsum_back": lambda a, axis: np.flip(np.flip(a, axis[0]).cumsum(axis=axis[0]), axis[0]),
    "softmax": softmax, "log_softmax": lambda a, axis: np.log(softmax(a, axis)),
    "layer_norm": lambda a, axis, epsilon=1e-5: centred(a, axis) / deviation(a, axis, epsilon),
}  # fmt: skip
COMPARISONS = {
    ">": np.greater,
    "≥": np.greater_equal,
    "<": np.less,
    "≤": np.less_equal,
    "=": np.equal,
    "≠": np.not_equal,
}
JUNCTIONS = {"∧": np.logical_and, "∨": np.logical_or, "⊕": np.logical_xor}
FUNCTION = re.compile(r"(σ|√|[a-z][a-z0-9_]*?)(?:_(units|sequences|all|\{[^}]*\}))?\(")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e−?\d+)?|∞|NaN")
END = r"(?![A-Za-z0-9_{′\u0303])"


class Reader:
    """``reader.run(lines)`` computes equations one after the other; `values` holds what every name stands for."""

    def __init__(self, sequences: int, values: dict[str, np.ndarray]):
        self.sequences = sequences
        self.values = {"N": np.array([float(sequences)])} | {
            k: bare(np.asarray(a)) for k, a in values.items()
        }

    def run(self, lines) -> None:
        for line in lines:
            left, value = line.left.text, self.compute(line.right.text)
            if left.startswith("["):
                self.share_out(left, value)
            else:
                self.values[left] = value

    def share_out(self, left: str, value: np.ndarray) -> None:
        """[da, db] = …: a and b are known, and so are their sizes."""
        inner, axis = re.fullmatch(r"\[(.*)\](?:_\{axis (\d+) of \d+\})?", left).groups()
        at = value.ndim - 1 if axis is None else int(axis) + 1
        begin = 0
        for part in split(inner):
            of = part.rstrip("′")[1:]
            size = self.compute(of)
            size = (
                size.shape[at - (value.ndim - size.ndim)]
                if size.ndim > 1 and at > value.ndim - size.ndim
                else 1
            )
            self.values[part] = bare(value.take(range(begin, begin + size), axis=at))
            begin += size
        assert begin == value.shape[at], f"{left}: {value.shape[at]} numbers are shared out as {begin}"

    def compute(self, text: str) -> np.ndarray:
        self.text, self.at = text, 0
        value = self.comparison()
        if self.at != len(text):
            raise UnclearError(f"{text[: self.at]} ▸{text[self.at :]}")
        return bare(np.asarray(value))

    # From the weakest to the strongest.

    def has(self, *signs: str) -> str | None:
        for sign in signs:
            if self.text.startswith(sign, self.at):
                self.at += len(sign)
                return sign
        return None

    def need(self, sign: str) -> None:
        if not self.has(sign):
            raise UnclearError(f"{self.text[: self.at]} ▸{self.text[self.at :]}: {sign} is missing")

    def comparison(self):
        """Comparisons, or what is made of several: those stand in brackets."""
        value = self.compared()
        if sign := self.has(*(f" {s} " for s in JUNCTIONS)):
            value = each(JUNCTIONS[sign.strip()])(value, self.compared())
        return value

    def compared(self):
        if self.has("not "):
            return ~self.comparison()
        left = self.total()
        sign = self.has(*(f" {s} " for s in COMPARISONS))
        return each(COMPARISONS[sign.strip()])(left, self.total()) if sign else left

    def total(self):
        value = -self.term() if self.has("−") else self.term()
        while sign := self.has(" + ", " − "):
            value = each(np.add if sign == " + " else np.subtract)(value, self.term())
        return value

    def term(self):
        if self.has("Σ_"):
            found = re.compile(r"(units|all|\{[^}]*\}) ").match(self.text, self.at)
            self.at = found.end()
            return self.reduced("Σ", found[1], self.term())
        if self.has("Σ "):
            value = self.term()
            return np.broadcast_to(value, (self.sequences, *value.shape[1:])).sum(axis=0, keepdims=True)
        value = self.factor()
        if self.has("·"):
            value = times(value, self.closed())
            if self.text.startswith(("·", " ⊙", " /"), self.at):
                raise UnclearError(f"· beside another product: {self.text}")
            return value
        while sign := self.has(" ⊙ ", " / "):
            right = self.factor(sign == " / ")
            if self.text.startswith("·", self.at):
                raise UnclearError(f"· beside another product: {self.text}")
            value = each(np.multiply if sign == " ⊙ " else np.divide)(value, right)
        return value

    def factor(self, below: bool = False):
        """2 x is a product that binds closely."""
        found = NUMBER.match(self.text, self.at)
        if found and re.match(r" [^⊙/+−=<>≤≥≠o]", self.text[found.end() :]):
            if below:
                raise UnclearError(f"/ {found[0]} x in {self.text}")
            self.at = found.end() + 1
            return each(np.multiply)(np.array([self.number(found[0])]), self.closed())
        return self.closed()

    def closed(self):
        value = self.primary()
        while sign := self.has("ᵀ", "²", "^", "["):
            if sign == "ᵀ":
                value = flipped(value)
            elif sign == "²":
                value = value * value
            elif sign == "^":
                value = each(np.power)(value, self.primary())
            else:
                value = self.indexed(value, self.until("]"))
        return value

    def primary(self):
        if self.has("1["):
            value = self.comparison()
            self.need("]")
            if value.dtype != bool:
                raise UnclearError(f"1[…] of numbers: {self.text}")
            return value.astype(float)
        for name in sorted(self.values, key=len, reverse=True):
            if re.compile(re.escape(name) + END).match(self.text, self.at):
                self.at += len(name)
                return self.values[name]
        for opening, closing in (("(", ")"), ("|", "|")):
            if self.has(opening):
                value = self.total() if opening == "|" else self.comparison()
                self.need(closing)
                return abs(value) if opening == "|" else value
        if self.has("["):
            return self.above()
        if found := FUNCTION.match(self.text, self.at):
            self.at = found.end()
            return self.function(*found.groups())
        if found := NUMBER.match(self.text, self.at):
            self.at = found.end()
            return np.array([self.number(found[0])])
        for word in ("True", "False"):
            if self.has(word):
                return np.array([word == "True"])
        raise UnclearError(f"{self.text[: self.at]} ▸{self.text[self.at :]}")

    def number(self, text: str) -> float:
        return float(text.replace("−", "-").replace("∞", "inf"))

    # What has arguments.

    def until(self, end: str) -> str:
        depth, begin = 0, self.at
        while depth or self.text[self.at] != end:
            depth += (self.text[self.at] in "([") - (self.text[self.at] in ")]")
            self.at += 1
        self.at += 1
        return self.text[begin : self.at - 1]

    def inner(self, text: str):
        return Reader.compute(self.copy(), text)

    def copy(self) -> Reader:
        other = object.__new__(Reader)
        other.sequences, other.values = self.sequences, self.values
        return other

    def indexed(self, a, text: str):
        items = split(text)
        if all(re.fullmatch(r"-?\d*(:\d*){0,2}(:-\d+)?", i) for i in items):
            return bare(eval(f"a[:, {', '.join(items)}]", {}, {"a": a}))
        return a[0][self.inner(text).astype(int)]

    def above(self):
        parts = [self.inner(part) for part in split(self.until("]"))]
        found = re.compile(r"_\{axis (\d+) of (\d+)\}").match(self.text, self.at)
        rank = int(found[2]) if found else max(max(p.ndim - 1 for p in parts), 1)
        if found:
            self.at = found.end()
        parts = [p.reshape(p.shape[:1] + (1,) * (rank + 1 - p.ndim) + p.shape[1:]) for p in parts]
        most = max(len(p) for p in parts)
        wide = [np.broadcast_to(p, (most, *p.shape[1:])) for p in parts]
        return bare(np.concatenate(wide, axis=int(found[1]) + 1 if found else rank))

    def reduced(self, name: str, mark: str | None, a, *more):
        axes = self.axes(mark, a)
        value = REDUCTIONS[name](a, axes, *more)
        return bare(value.reshape([n for k, n in enumerate(value.shape) if not k or k not in axes]))

    def axes(self, mark: str | None, a) -> tuple[int, ...]:
        if mark in (None, "all"):
            return tuple(range(1, a.ndim))
        if mark == "sequences":
            return (0,)
        if mark == "units":
            return (a.ndim - 1,)
        said = re.fullmatch(r"\{(sequences, )?(units|all|axis|axes) ?([\d, ]*)\}", mark)
        numbers = [int(k) + 1 for k in said[3].split(", ")] if said[3] else self.axes(said[2], a)
        return (*((0,) if said[1] else ()), *numbers)

    def function(self, name: str, mark: str | None):
        arguments = split(self.until(")"))
        if name in ("reshape", "broadcast", "transpose", "place"):
            return self.moved(name, self.inner(arguments[0]), arguments[1:])
        values = [self.inner(a) for a in arguments]
        if name in ("max", "min") and len(values) == 2:
            return each(np.maximum if name == "max" else np.minimum)(*values)
        if name in REDUCTIONS:
            return self.reduced(name, mark, *values)
        if name in SAME_SHAPE:
            a, *more = values
            return SAME_SHAPE[name](a, self.axes(mark or "units", a), *more)
        if name == "shift":
            a, by = values[0], int(values[1].item())
            out = np.zeros_like(a)
            for k in range(a.shape[1]):
                if 0 <= k - by < a.shape[1]:
                    out[:, k] = a[:, k - by]
            return out
        if name == "scatter":
            g, index, rows = values
            most, wide = max(len(g), len(index)), index.ndim - 1
            g = np.broadcast_to(g, (most, *index.shape[1:], *g.shape[1 + wide :]))
            out = np.zeros((most, int(rows.item()), *g.shape[1 + wide :]))
            for n in range(most):
                np.add.at(out[n], np.broadcast_to(index, (most, *index.shape[1:]))[n].astype(int), g[n])
            return out
        if name == "cross_entropy":
            return entropy(*values)
        if name not in ELEMENTS:
            raise UnclearError(f"{name}(…) in {self.text}")
        return each(ELEMENTS[name])(*values)

    def moved(self, name: str, a, said: list[str]):
        if name == "place":
            shape, items = [a.shape[0]], [slice(None)]
            a = a.reshape(a.shape[:1] + (1,) * (len(said) + 1 - a.ndim) + a.shape[1:])
            for k, item in enumerate(said, 1):
                where, _, size = item.partition(" of ")
                shape.append(int(size) if size else a.shape[k])
                items.append(eval(f"np.s_[{where}]"))
            out = np.zeros(shape)
            out[tuple(items)] = a
            return out
        numbers = [int(n) for n in (said if name == "transpose" else said[0].split("×"))]
        if name == "transpose":
            return bare(a.transpose(0, *(k + 1 for k in numbers)))
        if name == "broadcast":
            (a,) = (a.reshape(a.shape[:1] + (1,) * (len(numbers) + 1 - a.ndim) + a.shape[1:]),)
            return bare(np.broadcast_to(a, (a.shape[0], *numbers)))
        return bare(a.reshape(a.shape[0], *numbers))


def split(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts]


# Against the cell itself.


def known(cell, x, states) -> dict[str, np.ndarray]:
    """What the right sides may read, by the names in print."""
    found = {"x_t": x} | {label(s, "t−1").text: v for s, v in zip(cell.state.split(), states, strict=True)}
    found |= {label(n.rpartition(".")[2]).text: p.value[None] for n, p in cell.parameters().items()}
    return found | {label(n).text: a[None] for n, a in vars(cell).items() if isinstance(a, np.ndarray)}


def close(found, expected, of: str, bound: float) -> None:
    found = found.reshape(found.shape[:1] + (1,) * (expected.ndim - found.ndim) + found.shape[1:])
    scale = max(1.0, abs(expected).max())
    assert abs(np.broadcast_to(found, expected.shape) - expected).max() <= bound * scale, of


def sound(tex: str) -> None:
    """Braces and brackets are closed, no name stands raw, no sign of the plain text, no second superscript."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", tex):
        depth += 1 if brace == "{" else -1
        assert depth >= 0, tex
    assert depth == 0 and len(re.findall(r"\\left(?!arrow)", tex)) == tex.count(r"\right"), tex
    rest = re.sub(r"\\(?:begin|end|mathrm|mathit|text|mathbb)\{(?:[^{}]|\\[{}])*\}", " ", tex)
    assert not re.findall(r"[A-Za-z]{2,}|[²ᵀ⊙·−Σ√σ×′∞≥≤≠]", re.sub(r"\\[A-Za-z]+", " ", rest)), tex
    assert not re.search(r"('|\^\{(?:[^{}]|\{[^{}]*\})*\})\^", tex), tex


def computes(cell, rng, N=6) -> None:
    """The printed equations give the cell's own values and gradients, and their LaTeX is sound."""
    x = Tensor(rng.uniform(0.1, 0.9, (N, cell.inputs)), requires_grad=True)
    states = []
    for s in cell.initial_state(N):
        whole = s.dtype.kind in "iu"
        value = rng.integers(0, 3, s.shape) if whole else rng.uniform(-1, 1, s.shape)
        states.append(Tensor(value, requires_grad=not whole))
    quantities = cell.step(x, *states)
    cotangents = {s: rng.standard_normal(v.shape) for s, v in zip(cell.state.split(), states, strict=True)}
    floats = [s for s in cotangents if quantities[s].dtype.kind == "f"]
    sum((quantities[s] * cotangents[s]).sum() for s in floats).backward()

    printed = equations(cell)
    sound(printed.latex)
    bound = 2e-5 if re.search(r"\d\.\d{5}", printed.text) else 1e-9  # where numbers are printed rounded
    reader = Reader(N, known(cell, x.value, [s.value for s in states]))
    reader.run(printed.forward)
    for quantity, value in quantities.items():
        close(reader.values[label(quantity, "t").text], value.value, quantity, bound)
    for s in floats:
        reader.values[d(label(s, "t")).text] = cotangents[s]
    reader.run(printed.backward)
    wanted = {"dx_t": x.grad} | {
        d(label(s, "t−1")).text: v.grad for s, v in zip(cotangents, states, strict=True)
    }
    wanted |= {
        d(label(n.rpartition(".")[2])).text: None if p.grad is None else p.grad[None]
        for n, p in cell.parameters().items()
    }
    for name, value in wanted.items():
        if value is None or not value.any():
            continue
        close(reader.values[name], value, name, bound)
