"""The tensor itself: NumPy manners, element types, names and scopes, protection from in-place change,
anomaly mode, symbols, and threads that do not disturb one another.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

import minigrad
from minigrad import (
    DTypeError,
    GraphError,
    InputError,
    NonFiniteError,
    ShapeError,
    Tensor,
    anomaly,
    check_grads,
    concat,
    describe,
    grad,
    log,
    no_grad,
    one_hot,
    optim,
    scope,
    sqrt,
    tanh,
)
from minigrad.tensor import symbol

pytestmark = pytest.mark.smoke


@pytest.fixture
def x(rng):
    return Tensor(rng.standard_normal((3, 4)), requires_grad=True, name="x")


# NumPy manners.

INDICES = {
    "a number": 1,
    "from the end": -1,
    "a NumPy number": np.int64(2),
    "two numbers": (1, -2),
    "a slice": slice(1, 3),
    "an empty slice": slice(2, 2),
    "a slice past the end": slice(1, 99),
    "backwards": slice(None, None, -1),
    "backwards in twos": (slice(None), slice(None, None, -2)),
    "backwards from the middle": slice(1, None, -1),
    "backwards to the middle": (slice(None), slice(3, 0, -1)),
    "every second": (slice(None), slice(None, None, 2)),
    "every third from one": (slice(None), slice(1, None, 3)),
    "a new axis": (None, slice(None), None),
    "the rest": (..., 0),
    "the rest in front": (0, ...),
    "all at once": (None, ..., slice(None, None, -1), None),
    "nothing": (),
    "rows": np.array([2, 0, 0]),
    "rows from the end": [-1, 0],
    "rows of rows": np.array([[0, 1], [2, 2]]),
    "no rows": np.zeros(0, int),
    "elements": (np.array([0, 2, 0]), np.array([1, -1, 1])),
    "columns": (slice(None), np.array([3, 0, 3])),
    "columns of the last rows": (slice(1, None), [[-1, 0], [1, 1]]),
    "columns backwards, and a new axis": (slice(None, None, -1), None, [0, -1]),
    "an element of each column": (0, np.array([3, 1])),
    "elements that broadcast": (np.array([[0], [2]]), np.array([1, 3])),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_indexing_is_numpys_with_gradients(index, x):
    np.testing.assert_array_equal(x[index].value, x.value[index])
    check_grads(lambda x: x[index] * x[index], [x.value])
    x[index].sum().backward()
    expected = np.zeros(x.shape)
    np.add.at(expected, index, 1)
    np.testing.assert_array_equal(x.grad, expected)


def test_a_tensor_without_axes_is_an_index(x):
    np.testing.assert_array_equal(x[Tensor(1)].value, x.value[1])


BAD_INDICES = {
    "outside": (5, InputError, r"index 5 outside axis 0 of 'x' \(3, 4\) float64, 0 … 2"),
    "too many": ((0, 0, 0), ShapeError, r"3 indices for 'x' \(3, 4\)"),
    "a fraction": (0.5, DTypeError, r"0\.5 of 'x'.*integer arrays"),
    "a mask": (np.ones((2, 4), bool), ShapeError, r"mask of 'x' .*2 along axis 0, which has 3"),
    "a truth value": (True, DTypeError, r"'x'.*minigrad\.where"),
    "rows outside": (np.array([0, 3]), InputError, r"index 3 at \(1,\) outside axis 0 of 'x' .*, 0 … 2"),
    "fractions": (np.array([0.5]), DTypeError, r"'x' .*integers"),
    "arrays apart": (
        (np.array([0]), None, np.array([7])),
        InputError,
        r"index 7 at \(0,\) outside axis 1 of .*, 0 … 3",
    ),
    "columns outside": (
        (slice(None), [0, -5]),
        InputError,
        r"index -5 at \(1,\) outside axis 1 of 'x' \(3, 4\) float64, 0 … 3",
    ),
    "no common shape": (([0, 1], [0, 1, 2]), ShapeError, r"index of 'x' .*do not broadcast"),
}


@pytest.mark.parametrize(("index", "kind", "words"), BAD_INDICES.values(), ids=BAD_INDICES)
def test_an_index_that_does_not_fit_is_refused_by_name(index, kind, words, x):
    with pytest.raises(kind, match=words):
        x[index]


FUNCTIONS = {  # what a NumPy user types, which must mean the same on tensors
    "array + tensor": lambda a, t: a + t,
    "array - tensor": lambda a, t: a - t,
    "array * tensor": lambda a, t: a * t,
    "array / tensor": lambda a, t: a / t,
    "tensor / number": lambda a, t: t / 2,
    "number / tensor": lambda a, t: 2 / t,
    "number - tensor": lambda a, t: 1 - t,
    "NumPy number * tensor": lambda a, t: np.float64(3) * t,
    "array @ tensor": lambda a, t: a @ np.transpose(t),
    "vector @ tensor": lambda a, t: a[:, 0] @ t,
    "tensor @ vector": lambda a, t: t @ a[0],
    "vector @ vector": lambda a, t: a[0] @ t[0],
    "power": lambda a, t: t**2,
    "np.exp": lambda a, t: np.exp(t),
    "np.log": lambda a, t: np.log(abs(t)),
    "np.sqrt": lambda a, t: np.sqrt(np.abs(t)),
    "np.sin": lambda a, t: np.sin(t) * np.cos(t),
    "np.tanh": lambda a, t: np.tanh(t),
    "np.negative": lambda a, t: np.negative(t),
    "np.add": lambda a, t: np.add(a, t),
    "np.subtract": lambda a, t: np.subtract(t, a),
    "np.multiply": lambda a, t: np.multiply(t, a),
    "np.divide": lambda a, t: np.divide(t, a),
    "np.matmul": lambda a, t: np.matmul(a, t.T),
    "np.dot": lambda a, t: np.dot(a, t.T),
    "np.maximum": lambda a, t: np.maximum(a, t),
    "np.minimum": lambda a, t: np.minimum(t, a),
    "np.power": lambda a, t: np.power(t, 3),
    "np.square": lambda a, t: np.square(t),
    "np.sum": lambda a, t: np.sum(t, axis=0),
    "np.mean": lambda a, t: np.mean(t, axis=(0, 1), keepdims=True),
    "np.max": lambda a, t: np.max(t, axis=-1),
    "np.min": lambda a, t: np.min(t),
    "np.reshape": lambda a, t: np.reshape(t, (4, 3)),
    "np.transpose": lambda a, t: np.transpose(t, (1, 0)),
    "np.broadcast_to": lambda a, t: np.broadcast_to(t, (2, 3, 4)),
    "np.concatenate": lambda a, t: np.concatenate([a, t], axis=1),
    "np.stack": lambda a, t: np.stack([t, a, t], axis=-1),
    "np.where": lambda a, t: np.where(a > 0, t, a),
    "reshape with -1": lambda a, t: t.reshape(2, -1),
    "swapaxes": lambda a, t: t.swapaxes(0, 1),
    "broadcasting a row": lambda a, t: t + a[0],
    "broadcasting a column": lambda a, t: t * a[:, :1],
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_numpy_functions_and_operators_record_a_graph(function, x, rng):
    array = rng.standard_normal((3, 4))
    y = function(array, x)
    assert isinstance(y, Tensor) and y.requires_grad
    np.testing.assert_allclose(y.value, function(array, x.value), rtol=1e-15)
    away_from_poles = np.sign(x.value) * (abs(x.value) + 0.5)
    assert check_grads(lambda t: function(array, t), [away_from_poles]) <= 1e-6


COMPARISONS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


@pytest.mark.parametrize("compare", COMPARISONS.values(), ids=COMPARISONS)
def test_comparisons_are_element_by_element_from_either_side(compare):
    a, b = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    for left, right in (
        (Tensor(a), Tensor(b)),
        (Tensor(a), b),
        (a, Tensor(b)),
        (Tensor(a), 2),
        (2, Tensor(b)),
    ):
        y = compare(left, right)
        assert isinstance(y, Tensor) and not y.requires_grad
        np.testing.assert_array_equal(
            y.value, compare(*(z.value if isinstance(z, Tensor) else z for z in (left, right)))
        )


def test_what_numpy_would_do_behind_the_graphs_back_is_refused(x):
    for call, word in (
        (lambda: np.arctan(x), "np.arctan"),
        (lambda: np.add.reduce(x), "np.add"),
        (lambda: np.linalg.det(x), "np.det"),
        (lambda: np.median(x), "np.median"),
    ):
        with pytest.raises(DTypeError, match=rf"{word} is not recorded.*np\.asarray"):
            call()


def test_conversion_to_arrays_and_numbers(x):
    assert np.asarray(x).dtype == "float64" and np.asarray(x, dtype="float32").dtype == "float32"
    np.testing.assert_array_equal(np.array(x), x.value)
    assert float(x[1, 2]) == x[1, 2].item() == x.value[1, 2] and int(Tensor(3)) == 3
    assert (x.shape, x.ndim, x.size, len(x)) == ((3, 4), 2, 12, 3) and np.shape(x) == (3, 4)
    copied = x.numpy()
    copied[:] = 0
    assert x.value.all(), "numpy() is a copy that may be written to"


def test_iteration_goes_over_the_first_axis_and_records(x):
    rows = list(x)
    assert len(rows) == 3 and all(isinstance(row, Tensor) and row.shape == (4,) for row in rows)
    sum(row.sum() for row in rows).backward()
    np.testing.assert_array_equal(x.grad, np.ones((3, 4)))
    with pytest.raises(DTypeError, match="without axes"):
        len(x.sum())
    with pytest.raises(DTypeError, match="without axes"):
        list(x.sum())


def test_membership_and_hashing_go_by_identity_of_the_node(x):
    assert x in [x] and len({x, x, x * 1}) == 2 and {x: "found"}[x] == "found"


def test_the_printed_form_names_shape_type_origin_and_place():
    with scope("layer 1", "t=3"):
        f = tanh(Tensor([[1.0, 2.0]], requires_grad=True)).named("f")
    assert repr(f) == "<Tensor 'f': (1, 2) float64, from tanh, in layer 1 / t=3\n  [[0.7616 0.964 ]]>"
    assert repr(Tensor([1, 2], name="index")) == "<Tensor 'index': (2,) int64\n  [1 2]>"
    assert "requires grad" in repr(Tensor([1.0], requires_grad=True))
    assert "…" not in describe(f) and describe(f) == "'f' (tanh) in layer 1 / t=3 (1, 2) float64"
    assert len(repr(Tensor(np.zeros((1000, 1000))))) < 500


# Element types.


def test_nothing_is_promoted_silently():
    single, double = Tensor(np.ones(3, "f4"), name="single"), Tensor(np.ones(3), name="double")
    for combine in (lambda a, b: a + b, lambda a, b: a * b, lambda a, b: concat(a, b), minigrad.maximum):
        for pair in ((single, double), (double, single)):
            with pytest.raises(DTypeError, match=r"'single'.*astype|'double'.*astype"):
                combine(*pair)
    with pytest.raises(DTypeError, match="astype"):
        single + np.ones(3)
    for y in (
        single * 2,
        2.5 - single,
        single / 3,
        single**2,
        single + np.arange(3),
        single * True,
        1 / single,
    ):
        assert y.dtype == "float32"
    assert single.astype("float64").dtype == "float64"


def test_whole_numbers_joined_to_float32_stay_float32():
    assert concat(Tensor(np.ones(3, "f4")), np.arange(2)).dtype == "float32"


def test_what_is_no_number_is_refused():
    for data in (["a", "b"], [None], [object()], [[1, 2], [3]], {"a": 1}):
        with pytest.raises((InputError, DTypeError), match="numeric"):
            Tensor(data, name="data")
    with pytest.raises(DTypeError, match=r"'index'.*int64 has no gradient.*float"):
        Tensor([1, 2], requires_grad=True, name="index")


# In-place change.


def test_the_data_are_copied_and_arrays_are_read_only(rng):
    data = rng.standard_normal(3)
    x = Tensor(data, requires_grad=True)
    y = (x * x).sum()
    data[:] = 100
    y.backward()
    np.testing.assert_array_equal(x.grad, 2 * x.value)
    assert x.value.max() < 100
    for array in (
        x.value,
        np.asarray(x),
        np.asarray(y),
        tanh(x).value,
        x[1:].value,
        x.reshape(3, 1).value,
        x.detach().value,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_constant_in_a_graph_is_a_copy_too(x, rng):
    weights = rng.standard_normal((3, 4))
    kept = weights.copy()
    y = (x * weights).sum()
    weights[:] = 0
    y.backward()
    np.testing.assert_array_equal(x.grad, kept)


def test_elements_cannot_be_assigned(x):
    with pytest.raises(GraphError, match=r"in-place change of 'x'.*minigrad\.where"):
        x[0] = 1
    with pytest.raises(GraphError, match=r"in-place change of 'x'.*np\.add\(…, out=…\)"):
        np.add(x, 1.0, out=x)
    array = np.zeros((3, 4))
    with pytest.raises(GraphError, match="out="):
        np.add(x, 1.0, out=array)
    assert not array.any()
    before = x
    x += 1  # makes a new tensor, as for Python's numbers
    assert x is not before and before.op is None


def test_a_computed_value_cannot_be_assigned(x):
    y = (x * 2).named("y")
    with pytest.raises(GraphError, match=r"in-place change of 'y' \(mul\).*compute a new tensor"):
        y.value = np.zeros((3, 4))


def test_a_leaf_assigned_between_forward_and_backward_is_an_error_that_names_both(x):
    inner = tanh(x).named("f")
    x.value = np.zeros((3, 4))
    with pytest.raises(
        GraphError, match=r"change of 'x' \(3, 4\) float64 after 'f' \(tanh\).*compute the loss again"
    ):
        inner.sum().backward()
    with pytest.raises(GraphError, match="change of 'x'"):
        grad(inner.sum(), x)
    assert x.grad is None
    tanh(x).sum().backward()
    np.testing.assert_array_equal(x.grad, np.ones((3, 4)))


def test_an_optimisers_step_between_forward_and_backward_is_an_error(x):
    loss, other = (x * x).sum(), (x * 2).sum()
    optimiser = optim.SGD([x], lr=0.1)
    loss.backward()
    optimiser.step()
    with pytest.raises(GraphError, match="before the optimiser's step"):
        other.backward()


def test_assigning_another_shape_is_refused_and_changes_nothing(x):
    before = x.value
    with pytest.raises(ShapeError, match=r"'x' \(3, 4\) float64: the new value has shape \(4, 3\)"):
        x.value = np.zeros((4, 3))
    with pytest.raises(InputError, match=r"'x' \(3, 4\) float64: the new value is not a numeric array"):
        x.value = "words"
    assert x.value is before and (x * 1).requires_grad


# Anomaly mode.


def test_anomaly_mode_names_the_first_node_with_a_bad_value(x):
    with scope("layer 1", "t=2"), anomaly(), np.errstate(all="ignore"):
        z = (x - x).named("z")
        with pytest.raises(
            NonFiniteError, match=r"-inf at \(0, 0\) in the value of log, in layer 1 / t=2, .*'z'"
        ):
            tanh(log(z))


def test_anomaly_mode_names_the_data_where_they_came_in_bad(rng):
    values = rng.standard_normal((2, 3))
    values[1, 2] = np.nan
    data, W = Tensor(values, name="x"), Tensor(rng.standard_normal((3, 2)), requires_grad=True, name="W")
    with (
        anomaly(),
        pytest.raises(
            NonFiniteError, match=r"nan at \(1, 2\) in the data 'x' \(2, 3\) float64, read by matmul"
        ),
    ):
        data @ W


def test_anomaly_mode_names_the_node_with_a_bad_gradient_and_leaves_gradients_alone():
    x = Tensor([4.0, 0.0], requires_grad=True, name="x")
    with anomaly(), np.errstate(all="ignore"):
        inner = (x * 1.0).named("inner")
        loss = (sqrt(inner) * 1.0).sum()
        with pytest.raises(NonFiniteError, match=r"inf at \(1,\) in the gradient of 'inner' \(mul\) \(2,\)"):
            loss.backward()
        with pytest.raises(NonFiniteError, match=r"inf at \(1,\) in the gradient of 'inner' \(mul\) \(2,\)"):
            grad(loss, x)
        with pytest.raises(NonFiniteError, match=r"inf at \(1,\) in the value of div"):
            grad(loss, x, create_graph=True)
    assert x.grad is None
    with np.errstate(all="ignore"):
        loss.backward()
    assert np.isinf(x.grad[1]), "outside, bad values flow on"


# Symbols.


def test_a_symbol_has_shape_and_type_but_no_value():
    a, b = symbol((2, 3), np.dtype("f4"), "a"), symbol((3,), np.dtype("f4"), "b", requires_grad=True)
    y = tanh(a * b + 1).sum(axis=0)
    assert y.is_symbol and (y.shape, y.dtype, y.requires_grad) == ((3,), "float32", True)
    assert repr(a) == "<Tensor 'a': (2, 3) float32, symbol>"
    with pytest.raises(GraphError, match=r"'a' \(2, 3\) float32 is a symbol .*run the function eagerly"):
        _ = a.value
    with pytest.raises(GraphError, match=r"Python branch on 'b' \(3,\) float32.*minigrad\.where"):
        bool(b)
    assert grad(y, b, cotangent=symbol((3,), np.dtype("f4"))).is_symbol


def test_shapes_of_symbols_are_checked_when_they_are_traced():
    a, b = symbol((2, 3), np.dtype("f4"), "a"), symbol((4,), np.dtype("f4"), "b")
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(4,\) do not broadcast"):
        a + b
    with pytest.raises(ShapeError, match=r"3 columns on the left, 4 rows on the right"):
        a @ symbol((4, 2), np.dtype("f4"))
    with pytest.raises(DTypeError, match=r"'a'.*astype"):
        a + symbol((3,), np.dtype("f8"), "c")


def test_a_symbol_and_a_value_make_a_symbol():
    y = symbol((2, 3), np.dtype("f4")) @ Tensor(np.ones((3, 1), "f4")) + 1.5
    assert y.is_symbol and (y.shape, y.dtype) == ((2, 1), "float32")


# Errors of shape name the operation, its inputs and the place.

MISFITS = {
    "add": (
        lambda x: x + np.ones((2, 4)),
        r"\(3, 4\) and \(2, 4\) do not broadcast: 3 is not 2.*add of 'x' \(3, 4\)",
    ),
    "matmul": (
        lambda x: x @ x,
        r"matmul of \(3, 4\) and \(3, 4\): 4 columns on the left, 3 rows on the right.*'x'",
    ),
    "concat": (
        lambda x: concat(x, np.ones((2, 4))),
        r"concat along axis 1: .*\(3, 4\) and \(2, 4\) differ.*'x'",
    ),
    "reshape": (lambda x: x.reshape(5, 2), r"reshape of \(3, 4\) to \(5, 2\): 12 elements are not 10.*'x'"),
    "reshape to -1": (
        lambda x: x.reshape(5, -1),
        r"reshape of 'x' \(3, 4\) float64 to \(5, -1\): 12 .* divide by 5",
    ),
    "axis": (lambda x: x.sum(axis=2), r"axis 2 of a tensor with 2 axes"),
    "axis twice": (lambda x: x.sum(axis=(0, -2)), r"names an axis twice"),
    "broadcast": (
        lambda x: minigrad.broadcast_to(x, (3, 1)),
        r"broadcast of \(3, 4\) to the smaller \(3, 1\)",
    ),
    "stack": (lambda x: minigrad.stack([x], axis=3), r"stack along axis 3 of 'x'"),
    "swapaxes": (lambda x: x.swapaxes(0, 5), r"swapaxes\(0, 5\) of 'x' \(3, 4\)"),
    "where": (
        lambda x: minigrad.where(x > 0, x, np.ones(5)),
        r"\(3, 4\) and \(5,\) do not broadcast.*where of .*'x'",
    ),
    "mean of nothing": (lambda x: x[:0].mean(), r"mean of no elements.*\(0, 4\)"),
    "maximum of nothing": (lambda x: x[:0].max(), r"max of .*\(0, 4\)"),
}


@pytest.mark.parametrize(("call", "words"), MISFITS.values(), ids=MISFITS)
def test_shapes_that_do_not_fit_are_named(call, words, x):
    with scope("t=7"), pytest.raises(ShapeError, match=words) as caught:
        call(x)
    if "[" in str(caught.value):
        assert "in t=7" in str(caught.value), "the message says in which step"


def test_rows_that_there_are_not_are_named_with_their_step(x):
    with (
        scope("t=7"),
        pytest.raises(
            InputError, match=r"gather of 'x' \(3, 4\).*in t=7: index 3 at \(0,\) outside the rows, 0 … 2"
        ),
    ):
        minigrad.gather(x, [3])
    with pytest.raises(InputError, match=r"scatter of 'x' .*index -1 at \(2,\) outside the rows, 0 … 2"):
        minigrad.scatter(x, [0, 1, -1], 3)


def test_choices_need_truth_values_and_classes_need_integers(x):
    with pytest.raises(DTypeError, match=r"condition 'x' .*not boolean; compare"):
        minigrad.where(x, x, 0.0)
    with pytest.raises(InputError, match=r"'x' .*integers"):
        one_hot(x, 3)
    with pytest.raises(DTypeError, match=r"integers to negative powers"):
        Tensor([1, 2]) ** Tensor([0, -1])
    for nothing in (concat, lambda: minigrad.stack([])):
        with pytest.raises(InputError, match="at least one tensor"):
            nothing()


# Threads.


def test_threads_do_not_share_modes_or_scopes(x):
    ready, done, seen = threading.Barrier(2, timeout=10), threading.Barrier(2, timeout=10), {}

    def silent():
        with no_grad(), scope("silent"), anomaly():
            ready.wait()
            seen["silent"] = tanh(x)
            done.wait()

    thread = threading.Thread(target=silent)
    thread.start()
    with scope("loud"):
        ready.wait()
        y = tanh(x)
        with np.errstate(divide="ignore"):
            log(Tensor(0.0))  # no anomaly mode here
        done.wait()
    thread.join()
    assert y.requires_grad and y.scope == ("loud",)
    assert not seen["silent"].requires_grad and seen["silent"].scope == ("silent",)


def test_threads_compute_the_same_gradients_as_one(rng):
    data = rng.standard_normal((8, 4))
    weights = Tensor(rng.standard_normal((4, 4)), requires_grad=True)

    def gradient(row):
        y = Tensor(row)
        for _ in range(200):
            y = tanh(y @ weights)
        return grad(y.sum(), weights).value

    expected = [gradient(row) for row in data]
    found = [None] * len(data)
    threads = [
        threading.Thread(target=lambda k=k: found.__setitem__(k, gradient(data[k]))) for k in range(len(data))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, expected)
