"""`draw(seed)`: a whole program over the table of operations, the same for the same seed.

Every statement is run on values while it is drawn, so that shapes, dtypes and sizes of numbers are known and
what does not fit is left out.  Each program prefers some families of operations and does without others
(swarm testing: Groce et al., 2012), so that rare combinations come up in small programs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager

import numpy as np

import cells
import minigrad as mg

from . import programs
from .programs import (
    PACKED,
    TEMPLATES,
    Given,
    Program,
    Statement,
    argument,
    drawn_cell,
    expression,
    leaf,
    values,
)

LARGEST = 25.0  # numbers beyond are not drawn: comparisons should be meaningful
MOST = 1500  # elements of a value
INTEGERS = ("int64",) * 16 + ("int32",) * 8 + ("uint8", "int8", "uint16", "int16", "uint32")
LABELS = (
    "h", "c", "y", "W", "b", "f", "dh", "T", "N", "t", "k", "row0", "rows", "part", "scratch", "at_0", "i0", "n0", "v",
    "h_new", "zero", "one", "number", "sum", "table", "lambda", "first", "view", "size_0", "packed_W", "x", "loss", "t_1",
    "at_1_0", "H", "D",
)  # fmt: skip
CELLS = (
    "RNN", "IRNN", "LSTM", "PeepholeLSTM", "CoupledLSTM", "LayerNormLSTM", "GRU", "ResetAfterGRU", "JANET",
)  # fmt: skip


def _of_bits(template: str) -> bool:
    """Does an operation of the table refuse floats?"""
    try:
        mg.tensor.apply(mg.OPS[template[3:]], (1.0,) * (1 + ("{1}" in TEMPLATES[template])))
    except mg.DTypeError:
        return True
    return False


OF_TABLE = [t for t in TEMPLATES if t.startswith("op_")]
OF_BITS = [t for t in OF_TABLE if _of_bits(t)]
# A statement is not drawn that is refused: also by NumPy, whose arrays have no detach, or by Python, whose 0 has no inverse.
REFUSED = (mg.MinigradError, ArithmeticError, AttributeError, TypeError, ValueError)


def draw(seed: int, dtype: str | None = None) -> Program:
    """The program of a seed; in a dtype of one's own if one is given."""
    program = Drawer(np.random.default_rng([seed, 2026]), dtype).program()
    packing = np.random.default_rng([seed, 2027])  # dice of its own
    program.packed = str(packing.choice(list(PACKED), p=[0.7, 0.1, 0.1, 0.1]))
    return program


class Drawer:
    def __init__(self, rng: np.random.Generator, dtype: str | None = None):
        self.rng = rng
        sizes = {
            "T": self.of([1, 2, 3, 4, 5], [1, 3, 4, 3, 2]),
            "N": self.of([1, 2, 3, 4, 5, 0, 17, 33], [3, 6, 5, 2, 2, 1, 0.5, 0.5]),
            "D": self.of([1, 2, 3, 4, 5], [2, 3, 4, 2, 1]),
            "H": self.of([1, 2, 3, 4, 5, 17, 33], [2, 4, 4, 3, 2, 0.4, 0.3]),
            "K": self.of([1, 2, 3, 4], [1, 3, 3, 1]),
        }
        drawn = self.of(["float64", "float32"], [3, 1])
        self.p = Program(dtype or drawn, self.of([1, 2, 3, 4], [4, 2, 2, 2]), self.chance(0.92), sizes)
        self.values: dict = {
            "mg": mg, "np": np, "cells": cells, "drawn_cell": drawn_cell,
        }  # fmt: skip
        self.scopes: list[list[str]] = [[]]
        self.bodies: list[list[Statement]] = [self.p.body]
        self.read: dict[str, int] = {}
        self.count = 0
        self.blocks: list[str] = []  # the kinds of the blocks that are being drawn, outermost first
        self.free = self.chance(
            0.3
        )  # leaves may have the sizes of arguments, which other calls then cannot change
        families: dict[Callable, float] = {
            self.unary: 3, self.binary: 3, self.number: 2, self.size: 1, self.product: 2, self.affine: 4, self.gates: 2,
            self.shared_gates: 2, self.compare: 1, self.boolean: 1, self.where: 2, self.integer: 2, self.cast: 0.5,
            self.reduce: 3, self.softmax: 1, self.index: 2, self.pick_out: 1.5, self.move: 2, self.reshape: 2, self.broadcast: 1,
            self.concat: 2, self.stack: 1, self.gather: 1, self.scatter: 0.7, self.shift: 1, self.conv: 1.2,
            self.table: 2, self.table_of_bits: 1.5, self.numpys: 1.5, self.sums: 0.7,
            self.norm: 1, self.detach: 0.7, self.named: 0.7, self.second: 0.6, self.batched: 1, self.losses: 1,
            self.repeat: 1, self.scan: 5, self.run: 1.5, self.constant: 0.5,
        }  # fmt: skip
        swarm = rng.choice([0.0, 0.4, 1.0, 3.0], len(families), p=[0.3, 0.2, 0.35, 0.15])
        self.families = {f: w * s for (f, w), s in zip(families.items(), swarm, strict=True)}
        if not any(self.families[f] for f in (self.unary, self.binary, self.affine)):
            self.families[self.affine] = 3

    # Dice.

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def of(self, things: Sequence, weights: Sequence | None = None):
        p = None if weights is None else np.asarray(weights, float) / np.sum(weights)
        return things[int(self.rng.choice(len(things), p=p))]

    def upto(self, n: int) -> int:
        return int(self.rng.integers(1, n + 1))

    # What there is.

    def new(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def names(self, test: Callable) -> list[str]:
        return [
            n for scope in self.scopes for n in scope if _is_array(self.values[n]) and test(self.values[n])
        ]

    def pick(self, test: Callable) -> str | None:
        """A name of what passes: inner before outer, unread before read, new before old."""
        found = self.names(test)
        if not found:
            return None
        inner = set(self.scopes[-1])
        weights = [
            (4 if n in inner else 1) * (1 if self.read.get(n) else 2.5) * (2 if k >= len(found) - 3 else 1)
            for k, n in enumerate(found)
        ]
        return self.of(found, weights)

    def float(self, test: Callable = lambda v: True) -> str | None:
        return self.pick(lambda v: v.dtype == self.p.dtype and test(v))

    def shape(self, name: str) -> tuple:
        return tuple(self.values[name].shape)

    def sized(self, shape: Sequence[int]) -> list:
        """A shape in names of sizes, where a number is that of one size only."""
        names = {}
        for name, n in self.p.sizes.items():
            names.setdefault(n, []).append(name)
        return [
            n if n in self.p.sizes else names[n][0] if len(names.get(n, ())) == 1 and n > 1 else int(n)
            for n in shape
        ]

    def varies(self, shape: Sequence[int]) -> bool:
        return not self.free and any(n in (self.p.sizes["T"], self.p.sizes["N"]) for n in shape if n > 1)

    def give(self, where: str, shape: Sequence[int], kind: str = "normal") -> str:
        """A new argument, leaf or constant of a shape; `where` names the list, or is "any"."""
        names = self.sized(shape)
        shape = tuple(self.p.sizes.get(n, n) for n in shape)
        if where == "any":
            learns = kind in ("normal", "positive") and not self.varies(shape)
            where = self.of(
                ["leaves", "constants", "arguments"],
                [3 * learns, 1.0 * (not self.varies(shape)), 1 + 2 * self.varies(shape)],
            )
        seed = int(self.rng.integers(1000))
        name = self.new({"leaves": "w", "constants": "c", "arguments": "x"}[where])
        g = Given(name, names, kind, seed)
        dtype = self.p.dtype
        if where == "leaves":
            g.label = self.of(LABELS) if self.chance(0.4) else None
            g.hook = 0.5 if self.chance(0.06) else None
            self.values[name] = leaf(shape, seed, g.label, dtype, kind)
        else:
            array = values(_kind(kind, self.p.sizes), shape, seed, dtype)
            tensor = self.chance(0.4)
            if where == "arguments" and kind in ("normal", "positive", "grid") and self.chance(0.35):
                g.form = "grad"
            elif tensor:
                g.form = "tensor"
            elif where == "arguments" and shape and self.chance(0.1):
                g.form = "gaps"
            self.values[name] = mg.Tensor(array) if where == "arguments" or tensor else array
        getattr(self.p, where).append(g)
        self.scopes[0].append(name)
        return name

    def given(self, g: Given) -> tuple:
        shape = [self.p.sizes.get(n, n) for n in g.shape]
        return programs.kind_of(g.kind, self.p.sizes), shape, g.seed, self.p.dtype

    # Writing.

    def add(self, op: str, *of: str, **params) -> str | None:
        """One more statement, if it gives a value of a moderate size; else None."""
        s = Statement([self.new("v")], op, [str(x) for x in of], params)
        try:
            with np.errstate(all="ignore"):
                value = eval(expression(s), self.values)
        except REFUSED:
            return None
        if not _moderate(value):
            return None
        return self.keep(s, [value])

    def keep(self, s: Statement, results: Sequence) -> str:
        self.bodies[-1].append(s)
        for name, value in zip(s.to, results, strict=True):
            self.values[name] = value
            self.scopes[-1].append(name)
        for name in programs.reads(s):
            self.read[name] = self.read.get(name, 0) + 1
        return s.to[0]

    @contextmanager
    def inside(self, kind: str):
        """A block's scope; yields the list of its statements."""
        self.blocks.append(kind)
        self.scopes.append([])
        self.bodies.append([])
        try:
            yield self.bodies[-1]
        finally:
            self.scopes.pop()
            self.bodies.pop()
            self.blocks.pop()

    def block_statement(self, s: Statement) -> str | None:
        """Run a block on values and keep it if its results are moderate."""
        scratch = dict(self.values)
        try:
            with np.errstate(all="ignore"):
                exec("\n".join(programs._BLOCK_TEXTS[s.op](s, self.p)), scratch)
        except REFUSED:
            return None
        results = [scratch[n] for n in s.to]
        if not all(map(_moderate, results)):
            return None
        return self.keep(s, results)

    def step(self) -> str | None:
        """One more item from a family that this program likes."""
        families = {f: w for f, w in self.families.items() if w}
        if self.blocks:
            families.pop(self.conv, None)
            if self.run in families:
                families[self.run] *= 0.2 if self.blocks == ["scan"] else 0
            if self.scan in families:  # in a step, and now and then in a step of that one
                families[self.scan] *= 0.25 if self.blocks.count("scan") < 2 else 0.05
            if "repeat" in self.blocks:
                families.pop(self.repeat, None)
                families.pop(self.scan, None)
        families = {f: w for f, w in families.items() if w}
        return self.of(list(families), list(families.values()))()

    # Operands.

    def companion(self, shape: tuple) -> str:
        """Something that broadcasts with a shape: a number, what is there, or something new."""
        what = self.rng.random()
        if what < 0.2:
            return self.of(["1.0", "0.5", "2.0", "(-1.0)", "1", "2", "0.3", "0"])
        if what < 0.65:
            found = self.float(lambda v: _fits(tuple(v.shape), shape))
            if found:
                return found
        n = len(shape)
        shapes = [(), (1,), shape]
        if n:
            ones = tuple(1 if self.chance(0.5) else k for k in shape)
            shapes += [
                shape[-1:],
                (1, shape[-1]),
                (*shape[:-1], 1),
                ones,
                shape[1:],
                (shape[0], *(1,) * (n - 1)),
            ]
        return self.give("any", self.of(shapes))

    def weight(self, rows: int, columns: int | None = None) -> str:
        """A matrix that learns, old or new."""
        old = self.names(
            lambda v: isinstance(v, mg.Tensor) and v.op is None and v.ndim == 2 and v.shape[0] == rows
            and (columns is None or v.shape[1] == columns) and v.dtype == self.p.dtype and v.requires_grad
        )  # fmt: skip
        if old and self.chance(0.4):
            return self.of(old)
        if columns is None:
            columns = self.of([self.p.sizes["H"], self.p.sizes["D"], rows, self.p.sizes["K"]], [4, 1, 2, 1])
        return self.give("leaves", (rows, columns))

    # Families: each writes one item or a few, and returns a name, or None where nothing fits.

    def unary(self):
        x = self.float()
        if x is None:
            return None
        v = _array(self.values[x])
        low = v.min(initial=9.0)
        choices = [
            "tanh", "tanh", "sigmoid", "sigmoid", "neg", "sin", "cos", "abs", "relu", "softplus", "safe_exp", "safe_log",
            "safe_sqrt", "sign", "power", "power", "scaled",
        ]  # fmt: skip
        if low > 0.1:
            choices += ["log", "sqrt", "power", "log", "sqrt", "log1p", "log1p"]
        if abs(v).max(initial=0) < 3:
            choices.append("exp")
        op = self.of(choices)
        if op == "power":
            exponents = [2, 3, 2.0, 1, 0, 4] + ([0.5, -1, -0.5, 1.5, -2] if low > 0.1 else [])
            return self.add(op, x, exponent=self.of(exponents))
        if op == "scaled":
            return self.add(op, x, factor=self.of([0.3, 0.5, -1, 2, 0.0]))
        return self.add(op, x)

    def binary(self):
        x = self.float()
        if x is None:
            return None
        y = self.companion(self.shape(x))
        op = self.of(
            ["add", "sub", "mul", "safe_div", "maximum", "minimum", "residual", "leak"],
            [4, 3, 5, 1, 1, 1, 1, 1],
        )
        if op == "residual" and y not in self.values:
            op = "add"
        if op in ("add", "sub", "mul") and self.chance(0.3):
            return self.add(op, y, x)
        return self.add(op, x, y)

    def table(self):
        """Any operation of the table that takes floats."""
        x = self.float()
        op = self.of([*(t for t in OF_TABLE if t not in OF_BITS), "log1p"])
        return x and (
            self.add(op, x, self.companion(self.shape(x))) if "{1}" in TEMPLATES[op] else self.add(op, x)
        )

    def table_of_bits(self):
        """Any that takes booleans or integers only."""
        op = self.of([*OF_BITS, *OF_BITS, "not", "isnan"])
        if op == "isnan":
            x = self.float()
            return x and self.add(op, x)
        a = (
            self.a_boolean()
            if self.chance(0.7)
            else self.pick(lambda v: v.dtype.kind in "iu") or self.a_boolean()
        )
        if a is None or op == "not":
            return a and self.add(op, a)
        kind = self.values[a].dtype
        b = self.pick(lambda v: v.dtype == kind and _fits(tuple(v.shape), self.shape(a)))
        made = b and self.add(op, a, b)
        if not made or kind.kind != "b":
            return made
        x = self.float(lambda v: _fits(self.shape(made), tuple(v.shape)))  # so that something depends on it
        return x and self.add("where", made, x, self.companion(self.shape(x)))

    def numpys(self):
        """What is composed of the table, element by element and in structure."""
        x = self.float(lambda v: v.ndim > 0 and v.size > 0)
        if x is None:
            return None
        n = len(self.shape(x))
        axis = int(self.rng.integers(-n, n))
        what = self.of(["clip", "gelu", "round", "flip", "pad", "halves", "squeezed", "einsum", "outer", "zeros_like",
                        "ones_like", "argmax"])  # fmt: skip
        if what == "clip":
            return self.add(what, x, low=self.of(["None", "-0.5"]), high=self.of(["0.25", "1.0"]))
        if what == "gelu":
            return self.add(what, x, approximate=self.of(["none", "tanh"]))
        if what == "round":
            return self.add(what, x, decimals=self.of([0, 1, -1]))
        if what == "pad":
            widths = str([(self.of([0, 1]), self.of([0, 2])) for _ in range(n)])
            return self.add(what, x, widths=widths, value=self.of([0, 0, 1.5]))
        if what == "outer":
            y = self.float()
            return y and self.add(what, x, y)
        if what == "einsum":
            y = self.float(lambda v: v.ndim == 2 and v.shape[0] == self.shape(x)[-1])
            return (
                self.add(what, x, y, subscripts=self.of(["...i,ij->...j", "...i,ij->j...", "...i,ij->..."]))
                if y
                else None
            )
        if what in ("zeros_like", "ones_like"):
            return self.add(what, x)
        if what == "argmax":
            return self.add(
                self.of(["argmax", "argmin"]), x, axis=self.of([axis, None]), keepdims=self.chance(0.5)
            )
        return self.add(what, x, axis=axis, part=self.of([0, 1]))

    def sums(self):
        """Further reductions, and sums and products up to each place."""
        x = self.float(lambda v: v.ndim > 0 and v.size > 0)
        if x is None:
            return None
        what = self.of(["var", "std", "prod", "cumsum", "cumsum", "cumprod"])
        if what.startswith("cum"):
            return self.add(what, x, axis=self.of([*range(len(self.shape(x))), -1, None]))
        return self.add(what, x, **self.axes(x))

    def number(self):
        x = self.float()
        if x is None:
            return None
        n = self.of(["1.0", "0.5", "2", "(-1)", "3.0", "1", "0.1", "1.5"])
        op = self.of(["add", "sub", "mul", "div"])
        if self.chance(0.1):
            n = self.new("x")
            self.p.arguments.append(Given(n, [], "positive", int(self.rng.integers(1000)), "number"))
            self.values[n] = argument(*self.given(self.p.arguments[-1]), form="number")
        return self.add(op, n, x) if self.chance(0.3) and op != "div" else self.add(op, x, n)

    def size(self):
        x = self.float()
        if x is None:
            return None
        y = self.pick(lambda v: v.ndim > 0)
        if y is None:
            return None
        k = int(self.rng.integers(len(self.shape(y))))
        n = f"{y}.shape[{k}]"
        n = self.of([n, n, f"(0.1 * {n})", f"({n} - 0.5)", f"({n} + 1)", f"(2 * {n} - 1)", f"({n} * {n})"])
        if self.chance(0.2):
            return self.add("size_power", x, n, exponent=self.of([-0.5, 0.5, 2, -1]))
        op = self.of(["div", "mul", "add", "sub"])
        if op == "div" and not eval(n, self.values):
            op = "add"
        return self.add(op, n, x) if op in ("add", "sub") and self.chance(0.3) else self.add(op, x, n)

    def product(self):
        x = self.float(lambda v: v.ndim >= 1 and v.shape[-1] > 0)
        if x is None:
            return None
        if self.chance(0.15):  # the activation on the right
            w = self.give(
                "any", (self.of([1, 2, 3]), self.shape(x)[-2] if len(self.shape(x)) > 1 else self.shape(x)[0])
            )
            return self.add("matmul", w, x)
        w = self.weight(self.shape(x)[-1])
        if self.chance(0.1):
            return self.add("matmul_T", x, self.weight(self.of([2, 3]), self.shape(x)[-1]))
        return self.add("matmul", x, w)

    def affine(self):
        """A product and what is added to it, before or after."""
        total = self.product()
        if total is None:
            return None
        for _ in range(self.upto(2)):
            if self.chance(0.25):  # another product of the same shape
                y = self.with_rows(self.shape(total)[:-1])
                w = y and self.weight(self.shape(y)[-1], self.shape(total)[-1])
                other = self.add("matmul", y, w) if y else None
            else:
                other = self.companion(self.shape(total))
            if other is None:
                continue
            op = self.of(["add", "add", "add", "sub"])
            total = (self.add(op, other, total) if self.chance(0.4) else self.add(op, total, other)) or total
        return self.add(self.of(["tanh", "sigmoid", "tanh", "relu"]), total) if self.chance(0.7) else total

    def with_rows(self, rows: tuple) -> str | None:
        return self.float(lambda v: v.ndim >= 1 and tuple(v.shape[:-1]) == rows and v.shape[-1] > 0)

    def with_first_axis(self, n: int) -> str | None:
        return self.float(lambda v: v.ndim == 2 and v.shape[0] == n)

    def gates(self):
        """A mixture of two by a gate, as cells have it."""
        x = self.float(lambda v: v.ndim >= 1)
        y = x and self.float(lambda v: tuple(v.shape) == self.shape(x))
        g = y and self.add("sigmoid", self.of([x, y]))
        if not g:
            return None
        one = self.add("sub", self.of(["1", "1.0"]), g)
        a, b = self.add("mul", g, x), one and self.add("mul", one, y)
        return self.add("add", a, b) if a and b else None

    def shared_gates(self):
        """A projection of one value that two or three sums read."""
        x = self.float(lambda v: v.ndim >= 2 and v.shape[-1] > 0)
        h = x and self.float(
            lambda v: v.ndim == len(self.shape(x)) and v.shape[:-1] == self.shape(x)[:-1] and v.shape[-1]
        )
        if not h:
            return None
        columns = self.shape(h)[-1]
        u = self.add("matmul", x, self.weight(self.shape(x)[-1], columns))
        if u and self.chance(0.6):
            u = self.add("add", u, self.companion((columns,)))
        if not u:
            return None
        made = []
        for _ in range(self.of([2, 3])):
            product = self.add("matmul", h, self.weight(columns, columns))
            total = product and (
                self.add("add", product, u) if self.chance(0.5) else self.add("add", u, product)
            )
            gate = total and self.add(self.of(["tanh", "sigmoid"]), total)
            if gate:
                made.append(gate)
        if len(made) > 1:
            return self.add(self.of(["mul", "add"]), *made[:2])
        return None

    def compare(self):
        op = self.of(["greater", "greater_equal", "less", "less_equal"])
        if self.chance(0.4):
            x = self.pick(lambda v: v.dtype.kind in "iu")
            if x:
                other = self.pick(lambda v: v.dtype.kind in "iu" and _fits(tuple(v.shape), self.shape(x)))
                y = self.of(["0", "1", "2", other or "1"])
                return self.add(self.of([op, "equal", "not_equal"]), x, y)
        x = self.float()
        return self.add(op, x, self.companion(self.shape(x))) if x else None

    def a_boolean(self, shape: tuple | None = None) -> str | None:
        fits = lambda v: v.dtype == bool and (shape is None or _fits(tuple(v.shape), shape))  # noqa: E731
        if self.chance(0.6):
            found = self.pick(fits)
            if found:
                return found
        if self.chance(0.5):
            return self.give("any", shape or (self.p.sizes["N"],), "bool")
        made = self.compare()
        return made if made and fits(self.values[made]) else None

    def boolean(self):
        a = self.a_boolean()
        if a is None:
            return None
        what = self.of(["equal", "not_equal", "sum", "cast", "max", "mul"])
        if what in ("equal", "not_equal", "mul"):
            b = (
                self.a_boolean(self.shape(a))
                if what != "mul"
                else self.float(lambda v: _fits(self.shape(a), tuple(v.shape)))
            )
            return self.add(what, a, b) if b else None
        if what == "cast":
            return self.add("cast", a, dtype=self.of([self.p.dtype, self.p.dtype, "int64"]))
        return self.add(what, a, **self.axes(a))

    def where(self):
        x = self.float()
        if x is None:
            return None
        c = self.a_boolean(self.shape(x))
        if c is None:
            return None
        y = self.companion(self.shape(x))
        return self.add("where", c, x, y) if self.chance(0.5) else self.add("where", c, y, x)

    def integer(self):
        i = self.pick(lambda v: v.dtype.kind in "iu") if self.chance(0.7) else None
        if i is None:
            shape = self.of(
                [(self.p.sizes["N"],), (self.p.sizes["T"], self.p.sizes["N"]), (), (3,), (self.p.sizes["H"],)]
            )
            kind = self.of(INTEGERS)
            low = "within" if kind.startswith("int") and self.chance(0.3) else "below"
            i = self.give(self.of(["arguments", "any"]), shape, f"{kind} {low} {self.of([2, 3, 4, 100])}")
        what = self.of(
            [
                "add",
                "mul",
                "sub",
                "neg",
                "sum",
                "max",
                "min",
                "mean",
                "cast",
                "float",
                "float",
                "where",
                "two",
                "maximum",
            ]
        )
        n = self.of(["1", "2", "3"])
        if what in ("add", "mul", "sub"):
            return self.add(what, i, n) if self.chance(0.6) else self.add(what, n, i)
        if what == "neg":
            return self.add(what, i)
        if what in ("sum", "max", "min", "mean"):
            return self.add(what, i, **self.axes(i))
        if what == "cast":
            return self.add("cast", i, dtype=self.of([self.p.dtype, "int64", "int32"]))
        other = self.pick(lambda v: v.dtype.kind in "iu" and _fits(tuple(v.shape), self.shape(i)))
        if what in ("two", "maximum"):
            op = "maximum" if what == "maximum" else self.of(["add", "mul", "sub"])
            return self.add(op, i, other) if other else None
        if what == "where":
            c = self.a_boolean(self.shape(i))
            return self.add("where", c, i, self.of([n, other or n])) if c else None
        x = self.float(lambda v: _fits(self.shape(i), tuple(v.shape)))
        return self.add(self.of(["mul", "add"]), *self.of([(x, i), (i, x)])) if x else None

    def cast(self):
        x = self.pick(lambda v: True)
        if x is None:
            return None
        kind = self.values[x].dtype.kind
        return self.add("cast", x, dtype=self.of([self.p.dtype, "int64"] if kind == "f" else [self.p.dtype]))

    def axes(self, x: str) -> dict:
        n = len(self.shape(x))
        if not n or self.chance(0.25):
            return dict(axis=None, keepdims=self.chance(0.3))
        if n > 1 and self.chance(0.3):
            some = tuple(sorted(int(k) for k in self.rng.permutation(n)[: self.upto(n)]))
            return dict(axis=str(some), keepdims=self.chance(0.4))
        return dict(axis=int(self.rng.integers(-n, n)), keepdims=self.chance(0.5))

    def reduce(self):
        x = self.float()
        op = self.of(["sum", "mean", "max", "min", "logsumexp"], [3, 3, 1, 1, 1])
        return self.add(op, x, **self.axes(x)) if x else None

    def softmax(self):
        x = self.float(lambda v: v.ndim > 0)
        if x is None:
            return None
        axis = self.of([-1, -1, 0])
        if self.chance(0.25):
            m = self.a_boolean(self.shape(x))
            return self.add("masked_softmax", x, m, axis=axis) if m else None
        return self.add(self.of(["softmax", "log_softmax"]), x, axis=axis)

    def index(self):
        x = self.pick(lambda v: v.ndim > 0)
        if self.chance(0.1):
            x = self.give("leaves", self.of([(4,), (3, 2), (self.p.sizes["H"],)]))
        if x is None:
            return None
        items, shape = [], self.shape(x)
        for n in shape[: self.upto(len(shape))]:
            choices = [":", ":", "0", "-1", "1:", ":-1", ":1", "-1:"] if n else [":"]
            choices += ["1", "-2:", ":2", f":{n - 1}", f"{n - 1}:"] if n > 1 else []
            if self.chance(0.5):
                choices += ["::-1", "::2", "1::2", "::-2", "-1:0:-1", f"{n}:", "-9:", ":9", "1:1"]
            items.append(self.of(choices))
        if self.chance(0.2):
            items.insert(self.upto(len(items)), self.of(["None", "None", "..."]))
        return self.add("index", x, index=", ".join(items))

    def pick_out(self):
        """Integer arrays side by side, among slices and new axes."""
        x = self.float(lambda v: v.ndim > 0 and v.size > 0)
        if x is None:
            return None
        shape = self.shape(x)
        first = int(self.rng.integers(len(shape)))
        last = min(first + self.of([1, 1, 2]), len(shape))
        arrays = [self.an_index(n, True) or "0" for n in shape[first:last]]
        part = lambda: self.of([":", ":", "1:", "::-1", "::2"])  # noqa: E731
        items = [
            *(part() for _ in shape[:first]),
            *arrays,
            *(part() for _ in shape[last:] if self.chance(0.4)),
        ]
        if self.chance(0.15):
            items.insert(0, self.of(["None", "..."]))
        elif len(shape) > 2 and self.chance(0.3):  # NumPy puts the axes of arrays that stand apart first
            items = [self.an_index(shape[0], True) or "0", part(), self.of(["0", "-1", "[0, -1]"])]
        elif self.chance(0.1):
            mask = [self.chance(0.6) for _ in range(shape[0])]  # type: ignore[misc]  # it has an axis
            items = [str(mask), *items[1:]] if first else [str(mask)]
        return self.add("index", x, index=", ".join(items))

    def move(self):
        x = self.pick(lambda v: v.ndim > 1)
        if x is None:
            return None
        n = len(self.shape(x))
        what = self.of(["T", "swapaxes", "transpose"])
        if what == "T":
            return self.add("T", x)
        if what == "swapaxes":
            a, b = (int(k) for k in self.rng.permutation(n)[:2])
            return self.add("swapaxes", x, a=a - n if self.chance(0.5) else a, b=b)
        return self.add("transpose", x, axes=str(tuple(int(k) for k in self.rng.permutation(n))))

    def reshape(self):
        x = self.pick(lambda v: True)
        if x is None:
            return None
        shape = [f"{x}.shape[{k}]" for k in range(len(self.shape(x)))]
        what = self.of(["one", "merge", "flat", "swap", "join"])
        if what == "merge" and len(shape) > 1:
            k = int(self.rng.integers(len(shape) - 1))
            shape[k : k + 2] = [f"{shape[k]} * {shape[k + 1]}"]
        elif what == "flat" and len(shape) > 1 and 0 not in self.shape(x):
            shape = ["-1"] if self.chance(0.5) else ["-1", shape[-1]]
        elif what == "swap" and len(shape) > 1:
            shape = shape[::-1]
        else:
            at = int(self.rng.integers(len(shape) + 1))
            shape.insert(at, "1")
        return self.add("reshape", x, shape="(" + ", ".join(shape) + ",)")

    def broadcast(self):
        x = self.pick(lambda v: v.ndim < 4)
        if x is None:
            return None
        shape = [f"{x}.shape[{k}]" for k in range(len(self.shape(x)))]
        for k, n in enumerate(self.shape(x)):
            if n == 1 and self.chance(0.7):
                shape[k] = str(self.of([2, 3]))
        other = self.pick(lambda v: v.ndim > 0)
        if self.chance(0.6) and other:
            shape.insert(0, f"{other}.shape[0]" if self.chance(0.6) else str(self.of([1, 2, 3])))
        return self.add("broadcast_to", x, shape="(" + "".join(f"{n}, " for n in shape) + ")")

    def concat(self):
        x = self.pick(lambda v: v.ndim > 0)
        if x is None:
            return None
        shape = self.shape(x)
        axis = self.of([-1, -1, 0, len(shape) - 1])
        like = shape[:-1] if axis else shape[1:]
        at = axis % len(shape)

        def fits(v):
            same = v.dtype == self.values[x].dtype and v.ndim == len(shape)
            return same and all(
                a == b for k, (a, b) in enumerate(zip(v.shape, shape, strict=True)) if k != at
            )

        parts = [x]
        for _ in range(self.upto(2)):
            what = self.of(["same", "other", "part"], [1, 3, 1])
            y = x if what == "same" else self.pick(fits)
            if what == "part" and y:  # parts of one tensor that overlap
                cut = self.of(["1:", ":-1", "-2:", ":1"])
                y = self.add("index", y, index=f"..., {cut}" if at == len(shape) - 1 else cut) or y
            parts.append(y or x)
        del like
        if self.chance(0.3):
            parts.reverse()
        return self.add("concat", *parts, axis=axis)

    def stack(self):
        x = self.pick(lambda v: v.ndim < 4)
        if x is None:
            return None
        y = self.pick(lambda v: v.dtype == self.values[x].dtype and tuple(v.shape) == self.shape(x)) or x
        return self.add("stack", x, y, axis=int(self.rng.integers(-1, len(self.shape(x)) + 1)))

    def an_index(self, rows: int, signed: bool = False) -> str | None:
        found = self.pick(
            lambda v: (
                v.dtype.kind in "iu"
                and v.ndim < 3
                and v.size > 0
                and _array(v).min() >= 0
                and _array(v).max() < rows
            )
        )
        if found and self.chance(0.5):
            return found
        if not rows:
            return None
        shape = self.of([(self.p.sizes["N"],), (self.p.sizes["T"], self.p.sizes["N"]), (), (2,), (4,)])
        if signed and rows > 1 and self.chance(0.5):  # from the end too
            return self.give(self.of(["arguments", "any"]), shape, f"int64 within {rows - 1}")
        return self.give(self.of(["arguments", "any"]), shape, f"{self.of(INTEGERS)} below {rows}")

    def gather(self):
        fixed = lambda v: v.ndim > 0 and (self.free or not self.varies(v.shape[:1]))  # noqa: E731
        x = self.float(fixed) if self.chance(0.6) else self.give("any", (4, self.p.sizes["H"]))
        if x is None:
            return None
        if self.chance(0.2):
            k = self.shape(x)[0]
            return self.add("take", x, f"np.array([0, {k - 1}, 0])") if k else None
        i = self.an_index(self.shape(x)[0])
        return self.add("take" if i and i[0] == "c" and self.chance(0.3) else "gather", x, i) if i else None

    def scatter(self):
        rows = self.of([2, 3, 4])
        i = self.an_index(rows)
        if i is None:
            return None
        shape = self.shape(i)
        x = self.float(lambda v: v.ndim >= len(shape) and tuple(v.shape[: len(shape)]) == shape)
        if x is None:
            x = self.give("any", (*shape, self.p.sizes["H"]))
        return self.add("scatter", x, i, rows=rows)

    def shift(self):
        x = self.float(lambda v: v.ndim > 0)
        return self.add("shift", x, by=self.of([1, 1, 2, -1, 0, 7])) if x else None

    def conv(self):
        x = self.float(lambda v: v.ndim == 3 and v.shape[-1] > 0)
        if x is None:
            return None
        w = self.give("leaves", (self.of([1, 2, 3]), self.shape(x)[-1], self.p.sizes["H"]))
        return self.add(
            "conv1d", x, w, dilation=self.of([1, 2]), causal=self.chance(0.5) or self.shape(w)[0] % 2 == 0
        )

    def norm(self):
        x = self.float(lambda v: v.ndim > 0 and v.shape[-1] > 1)
        if x is None:
            return None
        extra = [self.companion(self.shape(x)[-1:]) for _ in range(self.of([0, 1, 2]))]
        return self.add("layer_norm", x, *extra)

    def detach(self):
        x = self.float()
        return self.add("detach", x) if x else None

    def named(self):
        x = self.pick(lambda v: isinstance(v, mg.Tensor) and v.op is not None)
        return self.add("named", x, name=self.of(LABELS)) if x else None

    def second(self):
        x = self.float(lambda v: isinstance(v, mg.Tensor) and v.op is not None)
        if x is None:
            return None
        number = self.add(self.of(["square_sum", "tanh_sum", "square_mean"]), x)
        if number is None:
            return None
        behind = {n.number for n in mg.ancestors(self.values[number])}
        inner = "scan" in self.blocks or "run" in self.blocks
        wrt = [
            n
            for n in self.scopes[-1]
            if programs.can_be_wrt(n, self.bodies[-1] if inner else self.p.body, inner)
        ]
        wrt = [n for n in wrt if isinstance(self.values[n], mg.Tensor) and self.values[n].number in behind]
        wrt = [n for n in wrt if self.values[n].dtype == self.p.dtype and n != number]
        leaves = [n for n in wrt if self.values[n].op is None]
        if not wrt:
            return None
        w = self.of(leaves if leaves and self.chance(0.7) else wrt)
        return self.add(self.of(["grad_square", "grad"]), number, w)

    def batched(self):
        x = self.float(lambda v: v.ndim >= 3)
        if x is None:
            return None
        lead = self.shape(x)[:-2]
        if self.chance(0.3):
            return self.add("matmul_T", x, x)
        if self.chance(0.3):  # leading axes that are repeated
            some = tuple(1 if self.chance(0.5) else n for n in lead)[self.of([0, 0, 1]) :]
            y = self.give("any", (*self.of([(), (), (2,)]), *some, self.shape(x)[-1], self.of([1, 2, 3])))
            return self.add("matmul", x, y)
        y = self.float(
            lambda v: v.ndim >= 3 and tuple(v.shape[:-2]) == lead and v.shape[-2] == self.shape(x)[-1]
        )
        if y and self.chance(0.5):
            return self.add("matmul", x, y)
        y = self.float(
            lambda v: v.ndim >= 3 and tuple(v.shape[:-2]) == lead and v.shape[-1] == self.shape(x)[-1]
        )
        return self.add("matmul_T", x, y) if y else None

    def losses(self):
        x = self.float(lambda v: v.ndim >= 1 and v.shape[-1] > 0 and v.size)
        if x is None:
            return None
        shape = self.shape(x)
        what = self.of(["classes", "classes", "rows", "mse", "one_hot"])
        if what == "one_hot":
            by_size = self.chance(0.5)
            i = self.an_index(shape[-1] if by_size else self.p.sizes["K"])
            classes = f"{x}.shape[{len(shape) - 1}]" if by_size else self.p.sizes["K"]
            return self.add("one_hot", i, classes=classes, dtype=self.p.dtype) if i else None
        if what == "mse":
            y = self.float(lambda v: tuple(v.shape) == shape) or x
            return self.add("mse", x, y)
        extra = []
        if self.chance(0.3):
            extra = [self.give("any", shape[:-1], "bool")]
        if what == "rows":
            y = self.float(lambda v: tuple(v.shape) == shape)
            return self.add("cross_entropy", x, y, *extra) if y else None
        i = self.pick(
            lambda v: v.dtype.kind in "iu" and tuple(v.shape) == shape[:-1] and v.size
            and _array(v).min() >= 0 and _array(v).max() < shape[-1]
        )  # fmt: skip
        i = i or self.give("any", shape[:-1], f"{self.of(INTEGERS)} below {shape[-1]}")
        return self.add("cross_entropy", x, i, *extra)

    def constant(self):
        H, N = self.p.sizes["H"], self.p.sizes["N"]
        if self.chance(0.4):
            x = self.pick(lambda v: v.ndim > 1)
            if x:
                shape = f"({x}.shape[0], {x}.shape[1])"
                return self.add("zeros", shape=shape, dtype=self.p.dtype)
        return self.give("any", self.of([(), (1,), (H,), (1, H), (N, 1), (N, H), (0, H), (H, 0)]))

    # Blocks.

    def next_of(self, state: str) -> str:
        """What a state becomes: a value of its shape and dtype."""
        like = self.values[state]

        def same(v):
            return v.dtype == like.dtype and tuple(v.shape) == tuple(like.shape)

        if like.dtype != self.p.dtype or self.chance(0.06):
            found = [n for n in self.names(same) if self.values[n] is not like] or [state]
            return self.of([n for n in found if n in self.scopes[-1]] or found)
        fresh = [n for n in self.names(same) if n in self.scopes[-1] and self.values[n] is not like]
        name = self.of(fresh[-4:]) if fresh and self.chance(0.75) else None
        if name is None:
            other = self.float(lambda v: _fits(tuple(v.shape), tuple(like.shape)) and v is not like)
            name = self.add(self.of(["add", "mul", "leak", "residual"]), state, other) if other else None
            if name and not same(self.values[name]):
                name = None
        name = name or state
        for _ in range(2):  # what nobody has read yet
            unread = [n for n in self.scopes[-1] if n[0] == "v" and not self.read.get(n) and n != name]
            unread = [n for n in unread if self.values[n].dtype == like.dtype]
            if unread and self.chance(0.7):
                other = self.of(unread)
                if not _fits(self.shape(other), tuple(like.shape)) or self.values[other].ndim > like.ndim:
                    other = self.add("mean", other, axis=None, keepdims=False)
                total = other and self.add(self.of(["add", "sub", "mul"]), name, other)
                if total and same(self.values[total]):
                    name = total
        if self.chance(0.6):
            name = self.add(self.of(["tanh", "tanh", "sin"]), name) or name
        return name

    def accumulated(self, state: str) -> str:
        """A state that only sums up: it and one or two terms, which may be reductions or products over sequences."""
        like = self.values[state]
        total = state
        for _ in range(self.of([1, 1, 2])):
            x = self.float(lambda v: v.ndim < 4)
            what = self.of(["sum", "product", "itself", "scatter"], [3, 1, 1, 1])
            if what == "scatter":
                x = self.scatter()
            elif x and what == "sum":
                axes = dict(axis=0, keepdims=self.chance(0.3)) if self.chance(0.5) else self.axes(x)
                x = self.add("sum", x, **axes)
            elif x and what == "product" and len(self.shape(x)) == 2:
                y = self.with_first_axis(self.shape(x)[0])
                turned = y and self.add("T", x)
                x = self.add("matmul", turned, y) if turned else None
            if x and self.values[x].dtype == like.dtype and _fits(self.shape(x), tuple(like.shape)):
                new = self.add("add", total, x) if self.chance(0.6) else self.add("add", x, total)
                if new and self.shape(new) == tuple(like.shape):
                    total = new
        return total

    def first_state(self) -> str | None:
        N, H, D = (self.p.sizes[k] for k in "NHD")
        shape = self.of(
            [(N, H), (N, D), (), (H,), (N, 1), (N, H, H), (1,), (N,), (1, H), (H, H)],
            [9, 2, 1, 1, 1, 0.7, 0.7, 0.7, 0.5, 0.5],
        )
        if np.prod(shape) > 600:
            shape = (N, H)
        what = self.of(["zeros", "old", "new", "learned", "integer", "bool"], [3, 3, 4, 2, 0.5, 0.3])
        if what == "zeros" and shape[:1] == (N,):
            zeros = self.zeros_of_a_batch(shape[1:])
            if zeros:
                return zeros
        if what == "old":
            old = self.float(lambda v: v.ndim < 4)
            if old:
                return old
        if what == "learned" and shape[:1] == (N,) and len(shape) == 2:
            w = self.give("leaves", shape[1:])
            x = self.pick(lambda v: v.ndim == 3 and v.shape[1] == N)
            if x:
                return self.add("broadcast_to", w, shape=f"({x}.shape[1], {shape[1]})")
        if what == "integer":
            return self.give(
                "any", self.of([(), (1,), (N,), (N, 1)]), f"{self.of(['int64', 'int32'])} below 3"
            )
        if what == "bool":
            return self.give("any", self.of([(1,), (N,), (N, 1)]), "bool")
        return self.give("any", shape)

    def zeros_of_a_batch(self, rest: tuple | None = None) -> str | None:
        """Zeros (N, …) as cells make them, of a size that is not known while tracing."""
        x = self.pick(lambda v: v.ndim == 3 and v.shape[1] == self.p.sizes["N"])
        rest = (self.p.sizes[self.of(["H", "D"])],) if rest is None else rest
        shape = f"({x}.shape[1]{''.join(f', {n}' for n in rest) or ','})"
        return self.add("zeros", shape=shape, dtype=self.p.dtype) if x else None

    def steps_of_a_step(self) -> tuple[int, str]:
        """How many steps a scan in a step has, and a sequence of so many: the step's own, one from outside, or a count."""
        what = self.of(["old", "argument", "learned", "count"], [5, 2, 1, 1])
        x = self.pick(lambda v: v.ndim > 0 and 0 < v.shape[0] < 6) if what == "old" else None
        if x is None and what == "count":
            n = self.of([1, 2, 3])
            x = self.give("constants", (n,), self.of(["normal", f"int64 up to {n}"]))
        elif x is None:
            N, D = self.p.sizes["N"], self.p.sizes["D"]
            shape = self.of([(self.of(["K", 2, 3]), N, D), ("T", "N", "D"), (self.of(["K", 1, 2]), D)])
            shape = tuple(self.p.sizes.get(n, n) for n in shape)
            x = self.give("leaves" if what == "learned" and not self.varies(shape) else "arguments", shape)
        return self.shape(x)[0], x

    def scan(self):
        T = self.p.sizes["T"]
        of_length = lambda v: v.ndim > 0 and v.shape[0] == T  # noqa: E731
        if "scan" in self.blocks or "run" in self.blocks:
            T, x = self.steps_of_a_step()
            xs = [x, *(self.pick(of_length) for _ in range(self.of([0, 1, 2], [4, 2, 1])))]
        else:
            xs = [self.pick(of_length) for _ in range(self.of([1, 2, 3], [4, 2, 1]))]
        if xs[0] is None:
            xs = [self.give("arguments", "TND")]
        if self.chance(0.85):
            xs = list(dict.fromkeys(xs))
        firsts = [f for f in (self.first_state() for _ in range(self.of([1, 2, 3, 4], [5, 3, 1.5, 1]))) if f]
        if not firsts:
            return None
        if len(firsts) > 1 and self.chance(0.1):
            firsts[1] = firsts[0]
        only_sum = {f for f in firsts if self.values[f].dtype == self.p.dtype and self.chance(0.15)}
        if len(firsts) < 4 and self.chance(0.2):
            zeros = self.zeros_of_a_batch()
            if zeros:
                firsts.append(zeros)
                only_sum.add(zeros)
        reverse = self.chance(0.2)
        with self.inside("scan") as body:
            states, steps = [self.new("s") for _ in firsts], [self.new("e") for _ in xs]
            for name, of in zip(states, firsts, strict=True):
                self.values[name] = _own(self.values[of])
            for name, of in zip(steps, xs, strict=True):
                self.values[name] = mg.as_tensor(self.values[of])[-1 if reverse else 0]
            sums = [n for n, f in zip(states, firsts, strict=True) if f in only_sum]
            self.scopes[-1].extend([*(n for n in states if n not in sums), *steps])
            for _ in range(self.of([2, 3, 4, 5, 6, 7])):
                self.step()
            after = [self.accumulated(s) if s in sums else self.next_of(s) for s in states]
            if len(after) > 1 and self.chance(0.06):
                after = [
                    self.of([n for n in after if _alike(self.values[n], self.values[s])] or [s])
                    for s in states
                ]
            fresh = [n for n in self.scopes[-1] if n not in after]
            unread = [n for n in fresh if not self.read.get(n)]
            pool = unread * 3 + fresh + after + (self.names(lambda v: True)[:2] if self.chance(0.2) else [])
            outs = list(dict.fromkeys(self.of(pool) for _ in range(self.of([0, 1, 2, 3], [2, 4, 3, 1]))))
            outs = [o for o in outs if _is_array(self.values[o])]
            statements = list(body)
        to = [self.new("v") for _ in range(len(states) + len(outs))]
        q = dict(states=states, steps=steps, next=after, outs=outs, reverse=reverse)
        return self.block_statement(Statement(to, "scan", [*firsts, *xs], q, statements))

    def repeat(self):
        of = [n for n in (self.float(lambda v: v.ndim < 4) for _ in range(self.of([1, 1, 2]))) if n]
        if not of:
            return None
        with self.inside("repeat") as body:
            states = [self.new("s") for _ in of]
            for name, start in zip(states, of, strict=True):
                self.values[name] = _own(self.values[start])
            self.scopes[-1].extend(states)
            for _ in range(self.of([1, 2, 3])):
                self.step()
            after = [self.next_of(s) for s in states]
            statements = list(body)
        to = [self.new("v") for _ in of]
        q = dict(states=states, next=after, times=self.of([2, 2, 3, 1]))
        return self.block_statement(Statement(to, "repeat", of, q, statements))

    def run(self):
        sizes = self.p.sizes
        x = self.float(
            lambda v: v.ndim == 3 and v.shape[0] == sizes["T"] and v.shape[1] == sizes["N"] and v.shape[2]
        )
        if x is None:
            x = self.give("arguments", "TND")
        N, D, H = sizes["N"], self.shape(x)[2], sizes["H"]
        q: dict = dict(inputs=D, hidden=H, read=[])
        body: list[Statement] = []
        if self.chance(0.5):
            kind = self.of(CELLS)
            name = self.new("cell")
            self.p.cells.append((name, kind, D, H, self.upto(100)))
            cell = getattr(cells, kind)(D, H, np.random.default_rng(self.p.cells[-1][-1]), self.p.dtype)
            self.values[name] = cell
            q["cell"], names, quantities = (
                name,
                cell.state.split(),
                [*cell.gates.split(), *cell.state.split()],
            )
        else:
            q["cell"] = ""
            names, body = self.drawn_step(q, D, H)
            quantities = list(q["quantities"])
        of = [x]
        if self.chance(0.35):
            found = lambda: self.float(lambda v: tuple(v.shape) == (N, H)) or self.give("any", (N, H))  # noqa: E731
            of += [found() for _ in names]
        if self.chance(0.3):
            q["reverse"] = True
        if self.chance(0.35):
            q["truncate"] = self.of([1, 2, 3])
        if self.chance(0.25):
            q["lengths"] = self.give(
                "arguments", "N", f"{self.of(['int64', 'int32', 'uint8'], [6, 3, 1])} up to T"
            )
        elif self.chance(0.3):
            q["mask"] = self.pick(
                lambda v: v.dtype == bool and tuple(v.shape) == (sizes["T"], N)
            ) or self.give("any", "TN", "bool")
        if self.chance(0.25):
            name = self.new("output")
            kind, width = "Output", sizes["K"]
            self.p.cells.append((name, kind, H, width, self.upto(100)))
            self.values[name] = cells.Output(
                H, width, np.random.default_rng(self.p.cells[-1][-1]), self.p.dtype
            )
            q["output"] = name
            quantities.append("y")
        reads = [
            ".outputs",
            ".last",
            ".state[0]",
            f".state[{len(names) - 1}]",
            *(f"[{n!r}]" for n in quantities),
        ]
        q["read"] = list(dict.fromkeys(self.of(reads) for _ in range(self.of([1, 2, 3]))))
        to = [self.new("v") for _ in q["read"]]
        return self.block_statement(Statement(to, "run", of, q, body))

    def drawn_step(self, q: dict, D: int, H: int) -> tuple[list[str], list[Statement]]:
        N = self.p.sizes["N"]
        names = self.of([["h"], ["h", "c"], ["y"], ["s", "n"], ["h", "c", "m"]])
        with self.inside("run") as body:
            q["x"] = self.new("e")
            q["states"] = [self.new("s") for _ in names]
            q["state_names"] = names
            rng = np.random.default_rng(self.upto(1000))
            self.values[q["x"]] = mg.Tensor(rng.standard_normal((N, D)), dtype=self.p.dtype)
            for s in q["states"]:
                self.values[s] = mg.Tensor(rng.standard_normal((N, H)), dtype=self.p.dtype)
            self.scopes[-1].extend([q["x"], *q["states"]])
            self.affine()
            for _ in range(self.of([1, 2, 3, 4])):
                self.step()
            quantities = {n: self.next_of(s) for n, s in zip(names, q["states"], strict=True)}
            more = [
                n
                for n in self.scopes[-1]
                if n not in quantities.values() and isinstance(self.values[n], mg.Tensor)
            ]
            if more and self.chance(0.5):
                quantities[self.of(["g", "f", "z"])] = self.of(more)
            q["quantities"] = quantities
            return names, list(body)

    # The whole.

    def program(self) -> Program:
        T, N, D = (self.p.sizes[k] for k in "TND")
        if self.chance(0.85):
            self.give("arguments", "TND", self.of(["normal", "normal", "normal", "grid", "positive"]))
        else:
            self.give("any", self.of([(N, D), (D,), (), (3, 2), (T, N)]))
        if self.chance(0.7):
            self.of([self.scan, self.scan, self.run])()
        for _ in range(self.of([1, 2, 3, 4, 5, 6])):
            self.step()
        self.finish()
        return self.p

    def finish(self) -> None:
        """The loss of what nobody has read yet, and further outputs."""
        made = [n for n in self.scopes[0] if n[0] == "v" and self.values[n].dtype == self.p.dtype]
        unread = [n for n in made if not self.read.get(n)]
        read = [n for n in made if self.read.get(n)]
        wanted = unread[-4:] + ([self.of(read)] if read and self.chance(0.4) else [])
        if not wanted:
            wanted = [self.float() or self.give("leaves", (2,))]
        total = None
        for name in wanted:
            term = self.term(name)
            total = term if total is None else self.add("add", total, term) or total
        others = [n for s in self.scopes for n in s if isinstance(self.values[n], mg.Tensor) and n != total]
        more = [self.of(others) for _ in range(self.of([0, 1, 2, 3], [4, 3, 2, 1]))] if others else []
        if not self.p.gradients and others:
            total = self.of(others[-5:])
        self.p.outputs = [total, *dict.fromkeys(more)]
        self.p.form = self.of(["tuple", "dict"])
        if self.chance(0.35):
            self.p.calls.append({})
        if self.chance(0.4):
            self.p.calls.append(
                {"T": self.of([1, 2, 3, 6]), "N": self.of([1, 2, 3, 5, 0], [2, 3, 3, 2, 0.5])}
            )
        indices = [g for g in self.p.arguments if " below " in g.kind]
        if indices and self.chance(0.1):  # a code that there is not
            g = self.of(indices)
            g.kind = g.kind.rsplit(" ", 1)[0] + f" {int(g.kind.rsplit(' ', 1)[1]) + 3}"
        normal = [g for g in self.p.arguments if g.kind == "normal" and g.form != "number"]
        if normal and self.chance(0.04):
            self.of(normal).kind = "holes"
        _leave_out_unused(self.p)

    def term(self, name: str) -> str:
        """A single number of a value."""
        shape = self.shape(name)
        choices = ["square_sum", "tanh_sum", "weighted_sum", "sum"] + (
            [] if 0 in shape else ["square_mean"] * 2
        )
        op = self.of(choices)
        if op == "sum":
            return self.add("sum", name, axis=None, keepdims=False) or self._fallback(name)
        if op == "weighted_sum":
            other = self.give("any", shape)
            return self.add(op, name, other) or self._fallback(name)
        return self.add(op, name) or self._fallback(name)

    def _fallback(self, name: str) -> str:
        s = Statement([self.new("v")], "tanh_sum", [name])
        return self.keep(s, [eval(expression(s), self.values)])


def _own(x) -> mg.Tensor:
    """What a state is in the step: a tensor of its own, so that it is told from what it was made of."""
    return mg.as_tensor(x) if not isinstance(x, mg.Tensor) else x * 1 if x.dtype.kind != "b" else x == True  # noqa: E712


def _alike(a, b) -> bool:
    return a.dtype == b.dtype and tuple(a.shape) == tuple(b.shape)


def _leave_out_unused(p: Program) -> None:
    """Arguments, leaves, constants and cells that nothing reads."""
    read = {n for s in p.body for n in programs.reads(s)} | set(p.outputs)
    p.leaves = [g for g in p.leaves if g.name in read]
    p.constants = [g for g in p.constants if g.name in read]
    p.cells = [c for c in p.cells if c[0] in read]
    kept = [g for g in p.arguments if g.name in read]
    p.arguments = kept or p.arguments[:1] or [Given("x0", [2])]


def _kind(kind: str, sizes: dict[str, int]) -> str:
    return programs.kind_of(kind, sizes)


def _is_array(v) -> bool:
    return isinstance(v, (mg.Tensor, np.ndarray))


def _array(v) -> np.ndarray:
    return v.value if isinstance(v, mg.Tensor) else v


def _moderate(value) -> bool:
    if not isinstance(value, mg.Tensor):
        return False
    v = value.value
    if v.size > MOST or v.ndim > 4:
        return False
    return v.dtype.kind != "f" or bool(np.isfinite(v).all() and abs(v).max(initial=0) < LARGEST)


def _fits(small: tuple, large: tuple) -> bool:
    """Does `small` broadcast with `large`, to no more than a moderate size?"""
    try:
        return int(np.prod(np.broadcast_shapes(small, large))) <= MOST
    except ValueError:
        return False
