"""Walks the table of operations: every record is tested by standing in `minigrad.OPS`.

Each is checked on drawn shapes: derivatives to second order, the shape rule against the forward's real
shape, element types, the symbolic result, the law of contributions, notation, and the compiler's source.
All that an operation needs besides its record is one row in `SAMPLES`: how to draw inputs that it takes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from minigrad import OPS, GraphError, Tensor, check_grads, grad
from minigrad.axes import moves
from minigrad.compiler.places import FUNCTIONS
from minigrad.items import itemised
from minigrad.tensor import Op, apply, symbol

shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
shapes_with_axes = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)


# How values are drawn. Kinks and poles keep a distance from every value that finite differences visit.


def normal(rng, shape):
    return rng.standard_normal(shape)


def positive(rng, shape):
    return rng.uniform(0.5, 2.0, shape)


def above_minus_one(rng, shape):
    return rng.uniform(-0.5, 2.0, shape)


def nonzero(rng, shape):
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.3, 2.0, shape)


def distinct(rng, shape):
    return rng.permutation(math.prod(shape)).reshape(shape) * 0.3 - 1.0


def fractions(rng, shape):
    return rng.integers(-3, 3, shape) + rng.uniform(0.1, 0.4, shape)


def boolean(rng, shape):
    return rng.random(shape) < 0.5


def small_whole(rng, shape):
    return rng.integers(0, 2, shape).astype(float)


# How inputs and parameters of an operation are drawn: (draw, rng) -> (arrays, params).


def unary(values=normal, params=lambda draw, shape: (), shape=shapes):
    def sample(draw, rng):
        drawn = draw(shape)
        return [values(rng, drawn)], params(draw, drawn)

    return sample


def together(*values):
    """Inputs of shapes that broadcast to a common one."""

    def sample(draw, rng):
        drawn = draw(
            mutually_broadcastable_shapes(num_shapes=len(values), max_dims=3, max_side=3)
        ).input_shapes
        return [v(rng, s) for v, s in zip(values, drawn, strict=True)], ()

    return sample


def apart(draw, rng):
    """Two inputs that broadcast and nowhere come closer than 0.3."""
    first, second = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)).input_shapes
    numbers = rng.permutation(math.prod(first) + math.prod(second)) * 0.3
    return [numbers[: math.prod(first)].reshape(first), numbers[math.prod(first) :].reshape(second)], ()


def between_wholes(draw, rng):
    """Numbers a and b that broadcast, a / b being no nearer to a whole number than 0.1."""
    first, second = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)).input_shapes
    b = rng.choice([-1.0, 1.0], second) * rng.choice([1.0, 2.0], second)
    return [rng.integers(-3, 3, first) * 2 + rng.uniform(0.3, 0.7, first), b], ()


def matrices(draw, rng):
    batches = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    return [normal(rng, (*batches[0], m, k)), normal(rng, (*batches[1], k, n))], ()


def axes_and_keepdims(draw, shape):
    axes = draw(st.sets(st.integers(0, len(shape) - 1))) if shape else ()
    return tuple(sorted(axes)), draw(st.booleans())


def same_size(draw, shape):
    return (draw(st.permutations([*shape, 1])),)


def larger(draw, shape):
    return ((*draw(shapes), *(draw(st.integers(1, 3)) if n == 1 else n for n in shape)),)


def several(draw, rng):
    shape = list(draw(shapes_with_axes))
    axis = draw(st.integers(0, len(shape) - 1))
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    return [normal(rng, (*shape[:axis], size, *shape[axis + 1 :])) for size in sizes], (axis,)


def part_of_axis(draw, shape):
    """(axis, start, stop, step) as indexing makes them: a stop on the grid, forwards and backwards."""
    axis = draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    step = draw(st.sampled_from([1, 2, -1, -2]))
    start = draw(st.integers(0, size - 1))
    room = size - start if step > 0 else start + 1
    count = draw(st.integers(1, -(-room // abs(step))))
    return axis, start, start + count * step, step


def placed(draw, rng):
    shape = draw(shapes_with_axes)
    axis, start, stop, step = part_of_axis(draw, shape)
    count = len(range(start, stop, step))
    return [normal(rng, (*shape[:axis], count, *shape[axis + 1 :]))], (axis, start, stop, step, shape[axis])


def rows_by_index(draw, rng):
    rows, index = draw(st.integers(1, 4)), draw(shapes)
    return [normal(rng, (rows, *draw(shapes))), rng.integers(0, rows, index)], ()


def among_rows(draw, rng):
    rows = draw(st.integers(1, 4))
    return [rng.integers(0, rows, draw(shapes))], (rows, "what there is", "")


def rows_added(draw, rng):
    rows, index = draw(st.integers(1, 4)), draw(shapes)
    return [normal(rng, (*index, *draw(shapes))), rng.integers(0, rows, index)], (rows,)


# THE ROW A NEW OPERATION NEEDS: its name and how its inputs are drawn.
SAMPLES = {
    "add": together(normal, normal),
    "sub": together(normal, normal),
    "mul": together(normal, normal),
    "div": together(normal, nonzero),
    "neg": unary(),
    "power": unary(positive, lambda draw, _: (draw(st.sampled_from([-2, -1, 0, 1, 2, 3, 0.5])),)),
    "exp": unary(),
    "log": unary(positive),
    "log1p": unary(above_minus_one),
    "expm1": unary(),
    "sqrt": unary(positive),
    "sin": unary(),
    "cos": unary(),
    "tanh": unary(),
    "sigmoid": unary(),
    "softplus": unary(),
    "logaddexp": together(normal, normal),
    "hypot": together(nonzero, nonzero),
    "erf": unary(),
    "pow": together(positive, normal),
    "mod": between_wholes,
    "floor_divide": between_wholes,
    "floor": unary(fractions),
    "ceil": unary(fractions),
    "round": unary(fractions),
    "sign": unary(nonzero),
    "abs": unary(nonzero),
    "maximum": apart,
    "minimum": apart,
    "where": together(boolean, normal, normal),
    "greater": together(normal, normal),
    "greater_equal": together(small_whole, small_whole),
    "equal": together(small_whole, small_whole),
    "and": together(boolean, boolean),
    "or": together(boolean, boolean),
    "xor": together(boolean, boolean),
    "cast": unary(normal, lambda draw, _: (np.dtype("float64"),)),
    "matmul": matrices,
    "sum": unary(normal, axes_and_keepdims),
    "max": unary(distinct, axes_and_keepdims),
    "min": unary(distinct, axes_and_keepdims),
    "top": unary(distinct, axes_and_keepdims),
    "logsumexp": unary(normal, axes_and_keepdims),
    "reshape": unary(normal, same_size),
    "transpose": unary(normal, lambda draw, shape: (tuple(draw(st.permutations(range(len(shape))))),)),
    "broadcast_to": unary(normal, larger),
    "concat": several,
    "slice": unary(normal, part_of_axis, shapes_with_axes),
    "place": placed,
    "gather": rows_by_index,
    "scatter": rows_added,
    "cumsum": unary(
        normal,
        lambda draw, shape: (draw(st.integers(0, len(shape) - 1)), draw(st.booleans())),
        shapes_with_axes,
    ),
    "inside": among_rows,
    "shift": unary(
        normal, lambda draw, shape: (draw(st.integers(-shape[0] - 1, shape[0] + 1)),), shapes_with_axes
    ),
    "detach": unary(),
}
BOOLEAN = {"greater", "greater_equal", "equal", "and", "or", "xor"}  # their result is not a float
WHOLE = {"inside"}  # nor theirs: it is what was given


@st.composite
def drawn(draw, name: str):
    assert name in SAMPLES, f"the operation {name!r} has no sample: add a row to SAMPLES in {__file__}"
    return SAMPLES[name](draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))


def floats(arrays) -> list[np.ndarray]:
    return [a for a in arrays if a.dtype.kind == "f"]


def bind(op: Op, arrays, params):
    """The operation as a function of its float inputs alone; the others are constants."""

    def function(*given):
        given = iter(given)
        return apply(op, tuple(next(given) if a.dtype.kind == "f" else Tensor(a) for a in arrays), params)

    return function


def leaves(arrays, dtype="float64") -> list[Tensor]:
    return [Tensor(a, requires_grad=True, dtype=dtype) for a in floats(arrays)]


every_op = pytest.mark.parametrize("name", list(OPS))
every_rule = pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.vjp is not None])
few = settings(max_examples=25)


@pytest.mark.smoke
def test_the_samples_are_those_of_the_table():
    missing, surplus = [n for n in OPS if n not in SAMPLES], [n for n in SAMPLES if n not in OPS]
    assert not missing, f"operations without a sample: {missing}; add a row each to SAMPLES in {__file__}"
    assert not surplus, f"samples without an operation: {surplus}; remove them from SAMPLES in {__file__}"


@every_rule
@few
@given(data=st.data())
def test_derivatives_to_second_order_match_finite_differences(name, data):
    arrays, params = data.draw(drawn(name))
    function = bind(OPS[name], arrays, params)
    assert check_grads(function, floats(arrays), order=2, tolerance=1e-6, complex_step=False) <= 1e-6


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.smooth and op.vjp is not None])
@few
@given(data=st.data())
def test_smooth_derivatives_match_the_complex_step(name, data):
    arrays, params = data.draw(drawn(name))
    function = bind(OPS[name], arrays, params)
    assert check_grads(function, floats(arrays), order=1, complex_step=True) <= 1e-12


@pytest.mark.smoke
@every_op
@few
@given(data=st.data())
def test_the_shape_rule_and_the_symbol_say_what_the_forward_does(name, data):
    op = OPS[name]
    arrays, params = data.draw(drawn(name))
    for dtype in ("float32", "float64"):
        typed = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]
        eager = apply(op, tuple(map(Tensor, typed)), params)
        traced = apply(op, tuple(symbol(a.shape, a.dtype) for a in typed), params)
        assert op.shape(*(a.shape for a in arrays), *params) == eager.shape
        assert traced.is_symbol and (traced.shape, traced.dtype) == (eager.shape, eager.dtype)


@pytest.mark.smoke
@every_op
@few
@given(data=st.data())
def test_a_place_changes_no_places_but_those_of_the_axis_map(name, data):
    arrays, params = data.draw(drawn(name))
    y = apply(OPS[name], tuple(map(Tensor, arrays)), params)
    for axis in range(y.ndim):
        for k, a, by, step, first, last in moves(y, axis):
            assert 0 <= first <= last <= y.shape[axis]
            for j in range(arrays[k].shape[a]):
                made_of_j = [i for i in range(first, last) if step * i + by == j]
                changed = np.moveaxis(arrays[k].copy(), a, 0)
                changed[j] = np.roll(changed[j - 1], 1)
                others = [*arrays[:k], np.moveaxis(changed, 0, a), *arrays[k + 1 :]]
                new = apply(OPS[name], tuple(map(Tensor, others)), params).value
                rest = np.delete(np.arange(y.shape[axis]), made_of_j)
                np.testing.assert_array_equal(new.take(rest, axis), y.value.take(rest, axis))


@pytest.mark.smoke
@every_rule
@few
@given(data=st.data())
def test_cotangents_side_by_side_are_those_of_the_rule_one_by_one(name, data):
    arrays, params = data.draw(drawn(name))
    xs = leaves(arrays)
    y = bind(OPS[name], arrays, params)(*xs)
    batch = np.random.default_rng(1).standard_normal((3, *y.shape))
    through, wanted = {y.number}, {x.number for x in xs}
    found = {n.number: g for n, _, g in itemised([(y, k, g) for k, g in enumerate(batch)], through, wanted)}
    for x in xs:
        for k, g in enumerate(batch):
            alone = grad(y, x, g).value
            side_by_side = (
                found[x.number][k] if x.number in found else np.zeros_like(alone)
            )  # no place is read
            np.testing.assert_allclose(side_by_side, alone, rtol=1e-12, atol=1e-14)


@pytest.mark.smoke
@every_op
@few
@given(data=st.data())
def test_float32_in_gives_float32_values_and_gradients(name, data):
    op = OPS[name]
    arrays, params = data.draw(drawn(name))
    params = (np.dtype("float32"),) if name == "cast" else params
    single = leaves(arrays, "float32")
    y = bind(op, arrays, params)(*single)
    assert y.dtype == (bool if name in BOOLEAN else y.inputs[0].dtype if name in WHOLE else "float32")
    if op.vjp is None:
        assert not y.requires_grad
        return
    y.backward(np.ones(y.shape, "float32"), record=True)
    for x in single:
        assert x.grad.dtype == "float32" and x.grad.shape == x.shape
        assert all(part is None or part.dtype == "float32" for part in y.contributions)
    double = leaves(arrays)
    params = (np.dtype("float64"),) if name == "cast" else params
    bind(op, arrays, params)(*double).backward(np.ones(y.shape))
    for x, exact in zip(single, double, strict=True):
        np.testing.assert_allclose(x.grad, exact.grad, rtol=1e-4, atol=1e-5)


@every_rule
@few
@given(data=st.data())
def test_the_rule_means_the_same_on_arrays_and_on_tensors(name, data, assert_law):
    arrays, params = data.draw(drawn(name))
    xs = leaves(arrays)
    y = bind(OPS[name], arrays, params)(*xs)
    cotangent = np.random.default_rng(1).standard_normal(y.shape)
    kept = cotangent.copy()
    y.backward(cotangent, record=True)
    assert_law(y)
    np.testing.assert_array_equal(cotangent, kept)
    for x, as_graph in zip(xs, grad(y, xs, cotangent, create_graph=True), strict=True):
        np.testing.assert_array_equal(x.grad, as_graph.value)


@pytest.mark.smoke
@every_op
@settings(max_examples=5)
@given(data=st.data())
def test_every_record_has_a_notation_that_can_be_filled(name, data):
    op = OPS[name]
    arrays, params = data.draw(drawn(name))
    assert op.name == name and op.kind in ("elementwise", "product", "reduction", "structure")
    assert len(op.params) == len(params), f"{name} names the parameters {op.params}"
    assert op.symbol and op.tex and op.text
    facts = dict(zip(op.params, params, strict=True))
    names = [f"operand_{k}" for k in range(len(arrays))]
    for template in (op.tex, op.text):
        filled = template.replace("{*}", ", ".join(names)).format(*names, **facts)
        assert all(n in filled for n in names) or name == "scatter", f"{filled!r} does not show every input"
    assert op.source or op.kind == "structure", f"{name} has no source for the compiler"


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.kind == "elementwise"])
@few
@given(data=st.data())
def test_the_source_for_the_compiler_says_what_the_forward_does(name, data):
    op = OPS[name]
    arrays, params = data.draw(drawn(name))
    numbers = [a.ravel()[0] if a.size else a.dtype.type(1) for a in arrays]
    facts = dict(zip(op.params, params, strict=True))
    source = op.source.format(*(f"({n!s})" for n in numbers), **({"kind": "float64"} | facts))
    known = {f: getattr(math, f, round) for f in FUNCTIONS}  # rint is Python's round
    known |= {
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
        "softplus": lambda x: math.log1p(math.exp(x)),
        "sign": lambda x: math.copysign(x != 0, x),
        "float64": float,
    }
    result = eval(source, {**known, "abs": abs, "maximum": max, "minimum": min})
    expected = op.forward(*(np.asarray(n) for n in numbers), *params)
    np.testing.assert_allclose(result, expected, rtol=1e-14)


@pytest.mark.smoke
def test_the_notation_of_the_table_reads_as_before(golden):
    rows = []
    for name, op in OPS.items():
        facts = {p: p for p in op.params}
        shown = [t.replace("{*}", "a, b, c").format("a", "b", "c", **facts) for t in (op.text, op.tex)]
        rows.append(f"{name:<14}{op.symbol:<12}{shown[0]:<24}{shown[1]}".rstrip())
    golden("notation.txt", "\n".join(rows) + "\n")


@pytest.mark.smoke
def test_check_grads_sees_a_wrong_rule_of_first_and_of_second_order(rng):
    cube = OPS["power"]
    wrong = Op("wrong", lambda x: x**3, lambda s: s, (lambda g, y, x: g * 2.999 * x * x,))
    constant = Op("constant", lambda x: x**3, lambda s: s, (lambda g, y, x: g * (3 * x * x).detach(),))
    x = positive(rng, (2, 3))
    assert check_grads(lambda x: apply(cube, (x,), (3,)), [x]) <= 1e-6
    with pytest.raises(GraphError, match="derivative of order 1"):
        check_grads(lambda x: apply(wrong, (x,)), [x])
    with pytest.raises(GraphError, match="derivative of order 2"):
        check_grads(lambda x: apply(constant, (x,)), [x])
