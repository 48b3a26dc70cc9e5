"""What the graph spells out and readers call by one word: softmax, layer_norm, mean, … and some of their gradients.

Recognised by structure alone, whoever wrote it.  A composition's `inputs` are all that it reads, so that
nobody writes out what lies between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigrad import Tensor
from minigrad.sizes import SIZE

TINY = 1e-30  # what keeps a sum of exponentials from 0
EPSILON = 1e-5  # of layer_norm


@dataclass(frozen=True)
class Composition:
    """`name` of `inputs` along the program's `axes`.

    `extra`: an epsilon that is not the usual one; of pieces, that the last input is added to them.
    """

    name: str
    inputs: tuple[Tensor, ...]
    axes: tuple[int, ...] = ()
    extra: float | None = None


def composition(n: Tensor) -> Composition | None:
    """What this node is called, if its structure has a name."""
    if n.op is None:
        return None
    for read in READERS.get(n.op.name, ()):
        if (found := read(n)) is not None:
            return found
    return None


# Parts that structures are made of.


def inputs_of(n: Tensor, *names: str) -> tuple[Tensor, ...] | None:
    """The inputs of a node that is one of these operations."""
    return n.inputs if n.op is not None and n.op.name in names else None


def is_number(n: Tensor, value: float | None = None) -> bool:
    """Is it a constant without axes, and this one?"""
    bare = n.op is None and not n.is_symbol and n.shape == () and not n.name
    return bare and (value is None or n.value == value)


def _plus(n: Tensor, value: float) -> Tensor | None:
    """x of x + value."""
    sides = inputs_of(n, "add")
    return sides[0] if sides and is_number(sides[1], value) else None


def _spread(n: Tensor) -> Tensor:
    """What is repeated, where something is."""
    return n.inputs[0] if inputs_of(n, "broadcast_to") else n


def _is_negative(n: Tensor, x: Tensor) -> bool:
    sides = inputs_of(n, "neg")
    return sides is not None and sides[0] is x


def _shifted_exponential(e: Tensor) -> tuple[Tensor, tuple] | None:
    """x and the axes of e^(x − max x)."""
    inner = inputs_of(e, "exp")
    return _less_largest(inner[0]) if inner else None


def _less_largest(n: Tensor) -> tuple[Tensor, tuple] | None:
    """x and the axes of x − max x."""
    sides = inputs_of(n, "sub")
    if sides and inputs_of(sides[1], "top") and sides[1].inputs[0] is sides[0]:
        return sides[0], sides[1].params[0]
    return None


def _total(t: Tensor) -> Tensor | None:
    """e of Σ e + tiny."""
    added = _plus(t, TINY)
    inner = inputs_of(added, "sum") if added is not None else None
    return inner[0] if inner else None


def _count(divisor: Tensor, shape: tuple, axes: tuple) -> bool:
    """Is the divisor the number of what was added up?"""
    count = 1
    for a in axes:
        count = shape[a] * count
    if divisor.op is SIZE:
        return str(divisor.params[0]) == str(count)
    return is_number(divisor) and isinstance(count, int) and float(divisor.value) == float(np.prod(count))


# Forward.


def _relu(n: Tensor) -> Composition | None:
    condition, zero, x = n.inputs
    sides = inputs_of(condition, "greater_equal")
    if sides and is_number(zero, 0) and is_number(sides[0], 0) and sides[1] is x:  # 0 where 0 ≥ x, else x
        return Composition("relu", (x,))
    return None


def _norm(n: Tensor) -> Composition | None:
    """0 where Σ x² is 0, else its root."""
    nothing, zero, root = n.inputs
    inner = inputs_of(root, "sqrt")
    safe = inputs_of(inner[0], "where") if inner else None
    if not (safe and is_number(zero, 0) and safe[0] is nothing and is_number(safe[1], 1)):
        return None
    squares = inputs_of(safe[2], "sum")
    factors = inputs_of(squares[0], "mul") if squares else None
    compared = inputs_of(nothing, "equal")
    if factors and factors[0] is factors[1] and compared and compared[0] is safe[2]:
        return Composition("norm", factors[:1], safe[2].params[0])
    return None


def _isnan(n: Tensor) -> Composition | None:
    """Not x = x."""
    inner, no = n.inputs
    sides = inputs_of(inner, "equal")
    if sides and sides[0] is sides[1] and no.dtype.kind == "b" and is_number(no, False):
        return Composition("isnan", sides[:1])
    return None


def _clip(n: Tensor) -> Composition | None:
    """high where y > high, else y; y being low where low > x, else x."""
    above, high, y = n.inputs
    sides, lower = inputs_of(above, "greater"), inputs_of(y, "where")
    below = inputs_of(lower[0], "greater") if lower else None
    if not (sides and lower and below and sides[0] is y and below[1] is lower[2]):
        return None
    return (
        Composition("clip", (lower[2], lower[1], high))
        if _same(sides[1], high) and _same(below[0], lower[1])
        else None
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (is_number(a) and is_number(b) and bool(a.value == b.value))


def _place_of(n: Tensor) -> Composition | None:
    """The least of the places 0, 1, … where x is its maximum or minimum (or NaN), and so many elsewhere."""
    chosen = inputs_of(n.inputs[0], "where")
    hit = chosen[0] if chosen else None
    either = inputs_of(hit, "or") if hit is not None else None
    if either and (bad := composition(either[1])) is not None and bad.name == "isnan":
        hit = either[0]
    sides = inputs_of(hit, "equal") if hit is not None else None
    if not chosen or not sides or not inputs_of(sides[1], "max", "min") or sides[1].inputs[0] is not sides[0]:
        return None
    (axes,), places, count = sides[1].params[:1], chosen[1], chosen[2]
    size = sides[0].shape[axes[0]] if len(axes) == 1 else None
    if size is None or n.params[0] != axes or (either and bad.inputs[0] is not sides[0]):
        return None
    known = isinstance(size, int) and is_number(count, size) and not places.is_symbol
    if known and np.array_equal(places.value.reshape(-1), np.arange(size)):
        return Composition(f"arg{sides[1].op.name}", sides[:1], axes)
    return None


def _mean(n: Tensor) -> Composition | None:
    total, divisor = n.inputs
    inner = inputs_of(total, "sum")
    if inner and total.params[0] and _count(divisor, inner[0].shape, total.params[0]):
        return Composition("mean", inner, total.params[0])
    return None


def _softmax(n: Tensor) -> Composition | None:
    e, t = n.inputs
    found = _shifted_exponential(e)
    return Composition("softmax", found[:1], found[1]) if found and _total(t) is e else None


def _log_softmax(n: Tensor) -> Composition | None:
    shifted, logarithm = n.inputs
    inner, found = inputs_of(logarithm, "log"), _less_largest(shifted)
    e = _total(inner[0]) if inner else None
    if found and e is not None and inputs_of(e, "exp") and e.inputs[0] is shifted:
        return Composition("log_softmax", found[:1], found[1])
    return None


def _cross_entropy(n: Tensor) -> Composition | None:
    """Σ w log Σ e^l − Σ w l for weights w of the classes, l being the logits less the largest."""
    left, right = inputs_of(n.inputs[0], "mul"), inputs_of(n.inputs[1], "sum")
    weights, logarithm = (inputs_of(left[0], "sum"), inputs_of(left[1], "log")) if left else (None, None)
    e = _total(logarithm[0]) if logarithm else None
    product = inputs_of(right[0], "mul") if right else None
    finite = inputs_of(product[1], "where") if product else None
    if e is None or not inputs_of(e, "exp") or not weights or not finite or product[0] is not weights[0]:
        return None
    found, last = _less_largest(e.inputs[0]), (len(weights[0].shape) - 1,)
    if found and finite[2] is e.inputs[0] and found[1] == last == n.inputs[1].params[0]:
        return Composition("cross_entropy", (found[0], weights[0]))
    return None


def _cross_entropy_of_classes(n: Tensor) -> Composition | None:
    """log Σ e^l − l of the class."""
    logarithm, right = inputs_of(n.inputs[0], "log"), inputs_of(n.inputs[1], "sum")
    e = _total(logarithm[0]) if logarithm else None
    picked = inputs_of(right[0], "where") if right else None
    if e is None or not picked or not inputs_of(e, "exp") or not is_number(picked[2], 0):
        return None
    found, hot = _less_largest(e.inputs[0]), inputs_of(picked[0], "equal")
    places = inputs_of(hot[0], "reshape") if hot else None
    if found and places and picked[1] is e.inputs[0] and hot[1].op is None and not hot[1].is_symbol:
        inside = inputs_of(places[0], "inside")
        if np.array_equal(hot[1].value, np.arange(found[0].shape[-1])):
            return Composition("cross_entropy", (found[0], inside[0] if inside else places[0]))
    return None


def _layer_norm(n: Tensor) -> Composition | None:
    centred, root = n.inputs
    sides, inner = inputs_of(centred, "sub"), inputs_of(root, "sqrt")
    added = inputs_of(inner[0], "add") if inner else None
    if not (sides and added and is_number(added[1])):
        return None
    middle, variance = composition(sides[1]), composition(added[0])
    last = (len(centred.shape) - 1,)
    if not (middle and variance and middle.name == variance.name == "mean"):
        return None
    square = inputs_of(variance.inputs[0], "mul")
    if square is None or square[0] is not centred or square[1] is not centred:
        return None
    if middle.inputs[0] is not sides[0] or middle.axes != last or variance.axes != last:
        return None
    epsilon = float(added[1].value)
    usual = np.isclose(epsilon, EPSILON, rtol=1e-6)
    return Composition("layer_norm", sides[:1], last, None if usual else epsilon)


def _outer(n: Tensor) -> Composition | None:
    """Σ over places and sequences of rows times columns: what a weight gets that all places share."""
    product = inputs_of(n.inputs[0], "matmul")
    lead = len(n.inputs[0].shape) - 2
    if product and lead and n.params[0] == tuple(range(lead)):
        return Composition("outer", product, n.params[0])
    return None


# Backward: reverse mode's own order of operations.


def _through_division(s: Tensor, g: Tensor, y: Tensor, root: Tensor) -> bool:
    """Is it Σ −g ⊙ y / root: what flows to the divisor of y?"""
    inner = inputs_of(s, "sum")
    over = inputs_of(inner[0], "div") if inner else None
    product = inputs_of(over[0], "mul") if over else None
    return bool(over and product and over[1] is root and _is_negative(product[0], g) and product[1] is y)


def _softmax_gradient(n: Tensor) -> Composition | None:
    """(g / t + Σ −g ⊙ y / t) ⊙ e for y = e / t; and of a logarithm of t: g / t ⊙ e, which is g ⊙ softmax."""
    sides, e = inputs_of(n.inputs[0], "add"), n.inputs[1]
    found = _shifted_exponential(e)
    if not found:
        return None
    spread = _spread(n.inputs[0])
    of_total = inputs_of(spread.inputs[0] if inputs_of(spread, "reshape") else spread, "div")
    if of_total and _total(of_total[1]) is e:
        return Composition("times_softmax", (of_total[0], found[0]), found[1])
    if sides and inputs_of(sides[0], "div"):
        g, t = sides[0].inputs
        through = _spread(sides[1])
        inner = inputs_of(through, "sum")
        over = inputs_of(inner[0], "div") if inner else None
        y = over[0].inputs[1] if over and inputs_of(over[0], "mul") else None
        if y is not None and _total(t) is e and _through_division(through, g, y, t):
            return Composition("softmax_gradient", (g, y), found[1])
    return None


def _layer_norm_gradient(n: Tensor) -> Composition | None:
    """P + B + mean(−B), B being what flows to x − mean x; P, what has come to x by other ways, may be missing."""
    before, through = n.inputs
    middle = composition(_spread(through))
    if middle is None or middle.name != "mean" or not inputs_of(middle.inputs[0], "neg"):
        return None
    whole = middle.inputs[0].inputs[0]
    sides = inputs_of(before, "add")
    prior: tuple[Tensor, ...] = ()
    if before is not whole:
        if not sides or sides[1] is not whole:
            return None
        prior = sides[:1]
    first, last = inputs_of(whole, "add"), None
    if first and inputs_of(first[0], "add") and inputs_of(first[1], "mul"):
        last, first = first[1], first[0].inputs
    if first is None or last is None or not inputs_of(first[0], "div") or not inputs_of(first[1], "mul"):
        return None
    (g, root), (slope, centred) = first[0].inputs, first[1].inputs
    if last.inputs[0] is not slope or last.inputs[1] is not centred:
        return None
    return _of_the_variance(prior, g, root, slope, centred, middle.axes)


def _of_the_variance(prior, g, root, slope, centred, axes) -> Composition | None:
    """The rest of it: `slope` is what flows to each of the squares."""
    over = inputs_of(_spread(slope), "div")
    halved = inputs_of(over[0], "div") if over else None
    if not over or not halved or not _count(over[1], centred.shape, axes):
        return None
    twice, inner = inputs_of(halved[1], "mul"), inputs_of(halved[0], "sum")
    ratio = inputs_of(inner[0], "div") if inner else None
    product = inputs_of(ratio[0], "mul") if ratio else None
    if not (product and twice and is_number(twice[0], 2) and twice[1] is root):
        return None
    y = product[1]
    found = composition(y)
    if found is None or found.name != "layer_norm" or y.inputs != (centred, root):
        return None
    if not _through_division(halved[0], g, y, root):
        return None
    return Composition("layer_norm_gradient", (g, y, *found.inputs, *prior), axes, found.extra)


def _pieces(n: Tensor) -> Composition | None:
    """P + placed + placed + …, where what is placed fills an axis; P may be missing.  The gradient of slices."""
    found: dict[int, Tensor] = {}
    rest: Tensor | None = n
    while rest is not None:
        sides = inputs_of(rest, "add")
        last = sides[1] if sides else rest
        if inputs_of(last, "place") is None or last.params[1] in found:
            return None
        found[last.params[1]], rest = last, sides[0] if sides else None
        axis, end, ordered = last.params[0], 0, [found[k] for k in sorted(found)]
        for piece in ordered:
            if piece.params[0] != axis or piece.params[3] != 1 or piece.params[1] != end:
                break
            end = piece.params[2]
        else:
            if isinstance(end, int) and end == last.params[4] and len(found) > 1:
                inputs = [p.inputs[0] for p in ordered] + ([] if rest is None else [rest])
                return Composition("pieces", tuple(inputs), (axis,), None if rest is None else 1)
    return None


READERS = {
    "where": (_relu, _norm, _clip),
    "equal": (_isnan,),
    "min": (_place_of,),
    "div": (_layer_norm, _softmax, _mean),
    "sub": (_log_softmax, _cross_entropy, _cross_entropy_of_classes),
    "mul": (_softmax_gradient,),
    "add": (_layer_norm_gradient, _pieces),
    "sum": (_outer,),
}
