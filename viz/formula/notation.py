"""One node of a graph as words, for one sequence.

Arrays are row vectors in the program, ``hx @ W``; the slide has columns, W·[h, x].  So all that is printed has
its axes in the opposite order: products have their sides exchanged, a vector is a column, and what the program
reshapes to a column is a row here, xᵀ.  The axis of the sequences is not written; sums over it are, Σ.
"""

from __future__ import annotations

from dataclasses import replace

from minigrad import Tensor
from minigrad.sizes import Size

from .compositions import Composition, composition, inputs_of, is_number
from .words import (
    ADD,
    CLOSED,
    MULTIPLY,
    PRODUCT,
    Words,
    added,
    bare,
    bare_axes,
    common,
    dropped,
    fitted,
    function,
    is_scalar,
    label,
    mark,
    number,
    over_sequences,
    per_sequence,
    product,
    raised,
    seen,
    summed,
    times,
    transposed,
    without,
    written,
)

DENIED = {
    "greater": ("≤", r"\le"),
    "greater_equal": ("<", "<"),
    "equal": ("≠", r"\ne"),
}  # where they do not hold


class Notation:
    """Writes nodes out, each by the words of what it reads."""

    def __init__(self):
        self.words: dict[int, Words] = {}  # what a node is called where it is read
        self.named: set[int] = set()  # those that are called by a name
        self.rectified: dict[int, Tensor] = {}  # condition of relu → the relu

    def reads(self, n: Tensor) -> tuple[Tensor, ...]:
        """What has to have words before this node can be written out."""
        if (found := composition(n)) is not None:
            return found.inputs
        if n.op is not None and n.op.name == "where" and (relu := self.rectifier(n.inputs[0])) is not None:
            return (relu, *n.inputs[1:])
        return n.inputs

    def rectifier(self, condition: Tensor) -> Tensor | None:
        """The relu that has a name and was decided by this condition."""
        relu = self.rectified.get(condition.number)
        return relu if relu is not None and relu.number in self.named else None

    def raw(self, n: Tensor) -> Words:
        """A node written out."""
        if (found := composition(n)) is not None:
            return getattr(self, f"_{found.name}_of")(n, found)
        special = getattr(self, f"_{n.op.name}" if n.op is not None else "_leaf", None)
        made = special(n) if special is not None else None
        return self.elementwise(n) if made is None else made

    def elementwise(self, n: Tensor) -> Words:
        """By the template of the table of operations."""
        op, inputs = n.op, self.operands(n)
        params = dict(zip(op.params, n.params, strict=True))
        strength = op.binding
        if strength < CLOSED:
            inputs = [w.within(max(strength, ADD)) for w in inputs]
        return Words(
            op.text.format(*(w.text for w in inputs), **params),
            op.tex.format(*(w.tex for w in inputs), **params),
            strength,
            1 + sum(w.size for w in inputs),
            common([w.shape for w in inputs]),
        )

    def operands(self, n: Tensor) -> list[Words]:
        """The inputs of an operation element by element, which repeats them as NumPy does."""
        at = per_sequence(n)[1]
        return [self.operand(x, n, at) for x in n.inputs]

    def operand(self, x: Tensor, n: Tensor, at: int | None) -> Words:
        """One of them; where n has the axis `at` of the sequences, x has it too, or 1 for all of them."""
        k = -1 if at is None else at - (len(n.shape) - len(x.shape))
        shape = per_sequence(x)[0]
        if k >= 0 and not isinstance(x.shape[k], Size):
            shape = tuple(s for j, s in enumerate(x.shape) if j != k)
        return fitted(self.words[x.number], shape)

    def whole(self, x: Tensor) -> Words:
        """In its full shape: for what does not repeat by itself."""
        words, shape = self.words[x.number], bare(per_sequence(x)[0])
        if bare(words.shape) == shape:
            return words
        return function("broadcast", words, written(*times(shape)), shape=shape)

    # Element by element.

    def _add(self, n) -> Words:
        a, b = self.operands(n)
        shape = common([a.shape, b.shape])
        if a.text == b.text:
            return self.multiplied(number(2), a, True)
        if a.terms and a.terms[1].text == b.text:
            twice = self.multiplied(number(2), b, True)
            return added(a.terms[0], twice.positive or twice, twice.negative, shape)
        if a.negative and not b.negative:
            a, b = b, a
        return added(a, b.positive or b, b.negative, shape)

    def _sub(self, n) -> Words:
        a, b = self.operands(n)
        return added(a, b.positive or b, not b.negative, common([a.shape, b.shape]))

    def _neg(self, n) -> Words:
        (a,) = self.operands(n)
        return a.positive or a.signed(True)

    def _mul(self, n) -> Words:
        a, b = self.operands(n)
        if n.inputs[0] is n.inputs[1]:
            return self.squared(a)
        if is_number(n.inputs[1]) and not is_number(n.inputs[0]):
            a, b = b, a
        return self.multiplied(a, b, is_number(n.inputs[0]) or is_number(n.inputs[1]))

    def multiplied(self, a: Words, b: Words, by_number: bool = False) -> Words:
        size, negative, shape = 1 + a.size + b.size, a.negative != b.negative, common([a.shape, b.shape])
        a, b = a.unsigned(), b.unsigned()
        if by_number and not (b.text[0].isdigit() or b.text[0] == "["):
            words = Words(f"{a.text} {b.text}", rf"{a.tex}\, {b.tex}", MULTIPLY, size, shape)
            return words.signed(negative)
        b = b.within(CLOSED) if " / " in b.text and b.binding == MULTIPLY else b
        words = Words(f"{a.text} ⊙ {b.text}", rf"{a.tex} \odot {b.tex}", MULTIPLY, size, shape)
        return words.signed(negative)

    def squared(self, a: Words) -> Words:
        return self.to_the(a.positive or a, "²", "2")

    def to_the(self, a: Words, text: str, tex: str) -> Words:
        a = a.within(CLOSED)
        if a.text[-1] in "²ᵀ":
            a = replace(a, text=f"({a.text})")
        return Words(a.text + text, raised(a, tex), CLOSED, 1 + a.size, a.shape)

    def _power(self, n) -> Words:
        (a,), exponent = self.operands(n), number(float(n.params[0]))
        if n.params[0] == 1:
            return a
        if n.params[0] == 2:
            return self.squared(a)
        return self.to_the(a, f"^{exponent.within(CLOSED).text}", exponent.tex)

    def _pow(self, n) -> Words:
        a, b = self.operands(n)
        a = a.within(CLOSED)
        if "^" in a.text:
            a = replace(a, text=f"({a.text})", tex=rf"\left({a.tex}\right)")
        shape = common([a.shape, b.shape])
        return replace(
            self.to_the(a, f"^{b.within(CLOSED).text}", b.tex), size=1 + a.size + b.size, shape=shape
        )

    def _floor_divide(self, n) -> Words:
        a, b = self.operands(n)
        return function("floor", self.divided(a, b), shape=common([a.shape, b.shape]))

    def _div(self, n) -> Words:
        return self.divided(*self.operands(n))

    def divided(self, a: Words, b: Words) -> Words:
        size, negative = 1 + a.size + b.size, a.negative != b.negative
        over, under = a.positive or a, b.positive or b
        left, right = over.within(MULTIPLY), under.within(CLOSED)
        shape, tex = common([a.shape, b.shape]), rf"\frac{{{over.tex}}}{{{under.tex}}}"
        return Words(f"{left.text} / {right.text}", tex, MULTIPLY, size, shape).signed(negative)

    def _log1p(self, n) -> Words:
        (a,) = self.operands(n)
        inner = added(number(1), a.positive or a, a.negative, a.shape)
        return Words(f"log({inner.text})", rf"\log\left({inner.tex}\right)", CLOSED, 1 + a.size, a.shape)

    def _abs(self, n) -> Words | None:
        (a,) = self.operands(n)
        return function("abs", a, shape=a.shape) if "|" in a.text else None

    def _equal(self, n) -> Words | None:
        """Is not, where the comparison is denied."""
        inner, no = n.inputs
        if not (is_number(no) and no.dtype.kind == "b" and not no.value and inner.dtype.kind == "b"):
            return None
        compared = inputs_of(inner, "equal")
        if compared and inner.number not in self.named:
            a, b = (w.within(ADD) for w in self.operands(inner))
            return Words(f"{a.text} ≠ {b.text}", rf"{a.tex} \ne {b.tex}", 0, 1 + a.size + b.size,
                common([a.shape, b.shape]))  # fmt: skip
        return None

    def _cast(self, n) -> Words:
        (a,), (x,) = self.operands(n), n.inputs
        before, after = x.dtype, n.dtype
        if after.kind == "b":
            a = a.within(ADD)
            return Words(f"{a.text} ≠ 0", rf"{a.tex} \ne 0", 0, 1 + a.size, a.shape)
        if before.kind == "b":
            return self.indicator(a)
        if before.kind in "fc" and after.kind in "iu":
            return function("trunc", a, shape=a.shape)
        if (before.kind == after.kind and before != after) or before.kind == "c":
            return function(after.name, a, shape=a.shape)
        return a  # whole numbers as floats

    def indicator(self, a: Words, no: str = "") -> Words:
        return Words(
            f"1[{no}{a.text}]", rf"\mathbb{{1}}\left[{_said(no)}{a.tex}\right]", CLOSED, 1 + a.size, a.shape
        )

    def _where(self, n) -> Words:
        condition, one, other = n.inputs
        c, a, b = self.conditional(n)
        if is_number(one, 0) or is_number(other, 0):
            return self.multiplied(b if is_number(one, 0) else a, self.held(condition, c, is_number(one, 0)))
        return Words(
            f"where({c.text}, {a.text}, {b.text})",
            rf"\mathrm{{where}}\left({c.tex}, {a.tex}, {b.tex}\right)",
            CLOSED,
            1 + c.size + a.size + b.size,
            common([c.shape, a.shape, b.shape]),
        )

    def conditional(self, n) -> list[Words]:
        at, relu = per_sequence(n)[1], self.rectifier(n.inputs[0])
        return [
            self.operand(n.inputs[0] if relu is None else relu, n, at),
            *(self.operand(x, n, at) for x in n.inputs[1:]),
        ]

    def held(self, condition: Tensor, c: Words, no: bool) -> Words:
        """1 where the condition holds; where relu(x) is not 0, there x > 0."""
        relu, sides = self.rectifier(condition), inputs_of(condition, "greater_equal")
        if no and relu is None and sides and is_number(sides[0], 0) and condition.number not in self.named:
            c, relu = self.words[sides[1].number].within(ADD), condition
        if no and relu is not None:
            return self.indicator(Words(f"{c.text} > 0", f"{c.tex} > 0", 0, 1 + c.size, c.shape))
        if (
            no
            and condition.op is not None
            and condition.op.name in DENIED
            and condition.number not in self.named
        ):
            (a, b), (text, tex) = (w.within(ADD) for w in self.operands(condition)), DENIED[condition.op.name]
            return self.indicator(
                Words(f"{a.text} {text} {b.text}", f"{a.tex} {tex} {b.tex}", 0, c.size, c.shape)
            )
        return self.indicator(c, "not " if no else "")

    def _detach(self, n) -> Words:
        a = self.words[n.inputs[0].number]
        return function("stop", a, shape=a.shape)

    def _inside(self, n) -> Words:
        a = self.words[n.inputs[0].number]
        return function("inside", a, number(n.params[0]), shape=a.shape)

    def _size(self, n) -> Words:
        parts = str(n.params[0]).replace(" * ", " ").split(" + ")
        strength = ADD if len(parts) > 1 else MULTIPLY if " " in parts[0] else CLOSED
        return Words(" + ".join(parts), " + ".join(parts).replace(" ", r"\, "), strength)

    # Products.

    def _matmul(self, n) -> Words:
        """Sides exchanged: rows become the slide's columns."""
        (a, b), (own, _) = n.inputs, per_sequence(n)
        (left, i), (right, j) = per_sequence(a), per_sequence(b)
        i, j = (None if k is None else k - len(x.shape) for k, x in ((i, a), (j, b)))
        if i == -1 and j == -2:  # a sum over the sequences
            return summed(self.outer(a, b))
        A, B = self.whole(a), self.whole(b)
        if i == -2 and len(bare(right)) > 2:  # every row has a matrix of its own
            return seen(product(B, seen(A, (*left[:-1], 1, left[-1])), (*own[:-1], 1, own[-1])), own)
        if j == -1:  # columns, as on the slide
            return seen(product(seen(B, (*right, 1)), A, (*own, 1)), own)
        return product(B, A, bare(own))

    def outer(self, a: Tensor, b: Tensor) -> Words:
        """For each sequence, the products of rows of a with columns of b."""
        A, B = self.whole(a), self.whole(b)
        left, right = per_sequence(a)[0], per_sequence(b)[0]
        if len(bare(left)) > 1 or len(bare(right)) > 1:
            return product(seen(B, (*right[:-1], 1, right[-1])), seen(A, (*left, 1)), (*left, right[-1]))
        return product(B, transposed(A), (*left[-1:], *right[-1:]))

    def _outer_of(self, n, found: Composition) -> Words:
        """Places and sequences are added up by one product."""
        a, b = found.inputs
        (left, i), (right, j) = per_sequence(a), per_sequence(b)
        if (i, j) == (len(a.shape) - 1, len(b.shape) - 2) and len(left) == len(right) == 2:
            words = summed(product(self.whole(b), transposed(self.whole(a)), (left[1], right[1])))
        else:
            inner = self.words[n.inputs[0].number] = self._matmul(n.inputs[0])
            words = self.reduced(n, replace(inner, shape=bare(per_sequence(n.inputs[0])[0])))
        return seen(words, per_sequence(n)[0])

    # Reductions.

    def _sum(self, n) -> Words:
        return seen(self.reduced(n, self.whole(n.inputs[0])), per_sequence(n)[0])

    def reduced(self, n, a: Words) -> Words:
        axes = bare_axes(n.inputs[0], n.params[0])
        a = self.over_units(a, axes) if axes else a
        return summed(a) if over_sequences(n.inputs[0], n.params[0]) else a

    def over_units(self, a: Words, axes: list[int]) -> Words:
        text, tex = mark(axes, len(a.shape), False, "units" if len(a.shape) == 1 else "all")
        inner, kept = a.unsigned(PRODUCT), dropped(a.shape, axes)
        words = Words(f"Σ{text} {inner.text}", rf"\sum{tex} {inner.tex}", PRODUCT, 1 + a.size, kept)
        return words.signed(a.negative)

    def gathered(self, name: str, x: Tensor, axes: tuple, *more: Words) -> Words:
        """A function along axes that gives as many numbers as it takes; usually along the last axis."""
        a, along = self.whole(x), bare_axes(x, axes)
        said = mark(along, len(a.shape), over_sequences(x, axes))
        return function(name, a, *more, shape=a.shape, mark=("", "") if said[0] == "_units" else said)

    def reduction(self, name: str, a: Words, x: Tensor, axes: tuple) -> Words:
        along = bare_axes(x, axes)
        said = mark(along, len(a.shape), over_sequences(x, axes))
        return function(name, a, shape=bare(dropped(a.shape, along)), mark=said)

    def _max(self, n) -> Words:
        (x,) = n.inputs
        return seen(self.reduction(n.op.name, self.whole(x), x, n.params[0]), per_sequence(n)[0])

    _min = _logsumexp = _max

    def _top(self, n) -> Words:
        (x,) = n.inputs
        words = self.reduction("max", self.whole(x), x, n.params[0])
        return seen(function("stop", words, shape=words.shape), per_sequence(n)[0])

    def _mean_of(self, n, found: Composition) -> Words:
        (x,) = found.inputs
        a = self.whole(x)
        words = self.reduction("mean", a.positive or a, x, found.axes).signed(a.negative)
        return seen(words, per_sequence(n)[0])

    def _norm_of(self, n, found: Composition) -> Words:
        (x,) = found.inputs
        return seen(self.reduction("norm", self.whole(x), x, found.axes), per_sequence(n)[0])

    def _argmax_of(self, n, found: Composition) -> Words:
        (x,) = found.inputs
        return seen(self.reduction(found.name, self.whole(x), x, found.axes), per_sequence(n)[0])

    _argmin_of = _argmax_of

    def _cumsum(self, n) -> Words:
        axis, backwards = n.params
        return self.gathered("cumsum_back" if backwards else "cumsum", n.inputs[0], (axis,))

    # Compositions.

    def _isnan_of(self, n, found: Composition) -> Words:
        a = self.words[found.inputs[0].number]
        return function("isnan", a, shape=a.shape)

    def _clip_of(self, n, found: Composition) -> Words:
        at = per_sequence(n)[1]
        parts = [self.operand(x, n, at) for x in found.inputs]
        return function("clip", *parts, shape=common([p.shape for p in parts]))

    def _relu_of(self, n, found: Composition) -> Words:
        self.rectified[n.inputs[0].number] = n
        a = self.words[found.inputs[0].number]
        return function("relu", a, shape=a.shape)

    def _softmax_of(self, n, found: Composition) -> Words:
        return self.gathered(found.name, found.inputs[0], found.axes)

    _log_softmax_of = _softmax_of

    def _layer_norm_of(self, n, found: Composition) -> Words:
        more = [] if found.extra is None else [number(found.extra)]
        return self.gathered(found.name, found.inputs[0], found.axes, *more)

    def _cross_entropy_of(self, n, found: Composition) -> Words:
        x, place = found.inputs
        a = self.whole(x)
        return function("cross_entropy", a, self.whole(place), shape=bare(a.shape[:-1]))

    def _softmax_gradient_of(self, n, found: Composition) -> Words:
        """y ⊙ (g − Σ g ⊙ y)"""
        (g, y), axes = (self.whole(x) for x in found.inputs), bare_axes(found.inputs[1], found.axes)
        kept = tuple(1 if k in axes else s for k, s in enumerate(y.shape))
        total = seen(self.over_units(self.multiplied(g, y), axes), kept)
        return self.multiplied(y, added(g, total.positive or total, not total.negative, y.shape))

    def _times_softmax_of(self, n, found: Composition) -> Words:
        g, x = found.inputs
        softmax, axes = self.gathered("softmax", x, found.axes), bare_axes(x, found.axes)
        kept = tuple(1 if k in axes else s for k, s in enumerate(softmax.shape))
        return self.multiplied(seen(self.words[g.number], kept), softmax)

    def _layer_norm_gradient_of(self, n, found: Composition) -> Words:
        """(g − mean(g) − y ⊙ mean(g ⊙ y)) / std(x)"""
        g, y, x = (self.whole(x) for x in found.inputs[:3])
        last, shape = len(y.shape) - 1, (*y.shape[:-1], 1)
        said = mark([last], last + 1, False)

        def over_units(name, a, *more):
            return seen(function(name, a, *more, shape=a.shape[:-1], mark=said), shape)

        less = added(g, over_units("mean", g.positive or g), not g.negative, y.shape)
        through = self.multiplied(g, y)
        mean = over_units("mean", through.positive or through)
        less = added(less, self.multiplied(y, mean), not through.negative, y.shape)
        std = over_units("std", x, *([] if found.extra is None else [number(found.extra)]))
        words = self.divided(less, std)
        if len(found.inputs) == 4:
            words = added(self.operand(found.inputs[3], n, per_sequence(n)[1]), words, False, y.shape)
        return words

    # Structure.

    def _pieces_of(self, n, found: Composition) -> Words:
        """Placed side by side: one array of all."""
        inputs, prior = found.inputs, None
        if found.extra:
            inputs, prior = inputs[:-1], self.operand(inputs[-1], n, per_sequence(n)[1])
        parts, shape = [self.whole(x) for x in inputs], bare(per_sequence(n)[0])
        words = replace(
            self.joined(n, parts, found.axes[0]), size=1 + sum(p.size for p in parts), shape=shape
        )
        return words if prior is None else added(prior, words, False, shape)

    def _reshape(self, n) -> Words:
        (x,), shape = n.inputs, per_sequence(n)[0]
        sliced = x.number not in self.named and inputs_of(x, "slice")
        if sliced and (picked := self.sliced(x, shape)) is not None:
            return picked
        words = self.words[x.number]
        if is_scalar(words.shape):
            return words
        if bare(per_sequence(x)[0]) == bare(shape):  # repetition stays unsaid
            return words
        return seen(self.whole(x), shape)

    def _broadcast_to(self, n) -> Words:
        return self.operand(n.inputs[0], n, per_sequence(n)[1])

    def _transpose(self, n) -> Words:
        (x,), (axes,) = n.inputs, n.params
        shape, at = per_sequence(x)
        order = without(axes, at)
        moved = [k for k in order if shape[k] != 1]
        if moved == sorted(moved):
            own = per_sequence(n)[0]
            return self.words[x.number] if bare(own) == bare(shape) else seen(self.whole(x), own)
        lead, a = len(shape) - len(bare(shape)), self.whole(x)
        order = [k - lead for k in order if k >= lead]
        if order == [1, 0]:
            return seen(transposed(a), per_sequence(n)[0])
        said, moved = ", ".join(map(str, order)), tuple(a.shape[k] for k in order)
        return seen(function("transpose", a, written(said, said), shape=bare(moved)), per_sequence(n)[0])

    def _concat(self, n) -> Words:
        parts = [self.whole(x) for x in n.inputs]
        size = 1 + sum(p.size for p in parts)
        return replace(self.joined(n, parts, n.params[0]), size=size, shape=bare(per_sequence(n)[0]))

    def joined(self, n, parts: list[Words], axis: int) -> Words:
        """One above the other, which together are n; the program's axis is said unless it is the last."""
        text, tex = (
            f"[{', '.join(p.text for p in parts)}]",
            rf"\left[{', '.join(p.tex for p in parts)}\right]",
        )
        shape, at = per_sequence(n)
        said = ""
        if axis == at:
            said = "sequences"
        elif axis != len(n.shape) - 1:
            lead = len(shape) - len(bare(shape))
            said = f"axis {without([axis], at)[0] - lead} of {len(shape) - lead}"
        if said:
            text, tex = f"{text}_{{{said}}}", rf"{tex}_{{\mathrm{{{said.replace(' ', '~')}}}}}"
        return Words(text, tex)

    def _slice(self, n) -> Words:
        words = self.sliced(n)
        assert words is not None
        return words

    def sliced(self, n, shape: tuple | None = None) -> Words | None:
        """x[0:4] for all slices of x in a row; where a reshape to `shape` follows that drops their axes, x[2]."""
        (_, at), items, x = per_sequence(n), {}, n
        while inputs_of(x, "slice") and (x is n or x.number not in self.named):
            axis, start, stop, step = x.params
            if axis in items:
                break
            items[axis] = (start, stop, step)
            x = x.inputs[0]
        base, full = self.whole(x), per_sequence(x)[0]
        if at in items:
            said = "{}:{}".format(*items[at])
            return function("sequences", base, written(said, said), shape=base.shape)
        ones = {k for k, (start, stop, step) in items.items() if abs(stop - start) == 1}
        kept = tuple(s for k, s in enumerate(n.shape) if k != at and k not in ones)
        if shape is not None and (bare(shape) != bare(kept) or not ones):
            return None
        lead = len(full) - len(bare(full))
        said, result = [], []
        for k, size in enumerate(n.shape):
            if k == at or without([k], at)[0] < lead:
                continue
            start, stop, step = items.get(k, (0, 0, 0))
            if k in items and shape is not None and k in ones:
                said.append(str(start))
                continue
            said.append(_range(start, stop, step) if k in items else ":")
            result.append(size)
        while said and said[-1] == ":":
            said.pop()
        if not said:
            return base
        base = base.within(CLOSED)
        base = replace(base, text=f"({base.text})") if base.text[0].isdigit() else base
        index = ", ".join(said)
        tex = rf"{base.tex}[{index.replace(':', '{:}')}]"
        return Words(f"{base.text}[{index}]", tex, CLOSED, 1 + base.size, bare(tuple(result)))

    def _place(self, n) -> Words:
        axis, start, stop, step, size = n.params
        shape, at = per_sequence(n)
        if axis == at:
            said = f"sequences {start}:{stop}"
        else:
            lead = len(shape) - len(bare(shape))
            said = ", ".join(
                f"{_range(start, stop, step)} of {size}" if k == without([axis], at)[0] else ":"
                for k in range(lead, len(shape))
            )
        tex = (
            said.replace(":", "{:}")
            .replace(" of ", r"\text{ of }")
            .replace("sequences ", r"\text{sequences }")
        )
        return function("place", self.whole(n.inputs[0]), written(said, tex), shape=bare(shape))

    def _gather(self, n) -> Words:
        table, index = self.whole(n.inputs[0]).within(CLOSED), self.whole(n.inputs[1])
        size = 1 + table.size + index.size
        return Words(
            f"{table.text}[{index.text}]", f"{table.tex}[{index.tex}]", CLOSED, size, bare(per_sequence(n)[0])
        )

    def _scatter(self, n) -> Words:
        g, index = (self.whole(x) for x in n.inputs)
        rows = number(n.params[0])
        words = function("scatter", g, index, rows, shape=bare(per_sequence(n)[0]))
        return summed(words) if per_sequence(n.inputs[1])[1] is not None else words

    def _shift(self, n) -> Words:
        a, at = self.whole(n.inputs[0]), per_sequence(n)[1]
        said = ("_sequences", r"_{\mathrm{sequences}}") if at == 0 else ("", "")
        return function("shift", a, number(n.params[0]), shape=a.shape, mark=said)

    # Leaves.

    def _leaf(self, n) -> Words:
        if n.name:
            return replace(label(n.name), shape=bare(per_sequence(n)[0]))
        if n.is_symbol or not n.value.size or (n.value != n.value.flat[0]).any():
            return self.constant(n)
        value = n.value.flat[0]
        if n.dtype.kind == "b":
            return Words(str(bool(value)), rf"\mathrm{{{bool(value)}}}")
        return number(float(value))

    def constant(self, n) -> Words:
        return Words("const", r"\mathrm{const}", shape=bare(per_sequence(n)[0]))


def _said(no: str) -> str:
    return rf"\text{{{no}}}" if no else ""


def _range(start: int, stop: int, step: int) -> str:
    if step == 1:
        return f"{start}:{stop}"
    return f"{start}:{stop if stop >= 0 else ''}:{step}"
