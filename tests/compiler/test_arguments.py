"""What a compiled function is called with: containers, settings and names, and integers of few bits."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections import OrderedDict, defaultdict
from typing import NamedTuple

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from minigrad.compiler import TrainingStep
from tests.compiler.reference import run_by_numba

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


@pytest.fixture(autouse=True)
def compiled_or_failed():
    """What runs eagerly fails a test, unless the test awaits the warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(*shape, seed=0, dtype="float64"):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def learned(*shape, seed=0, dtype="float64", name=None):
    return Tensor(drawn(*shape, seed=seed, dtype=dtype), requires_grad=True, name=name)


def seen(x):
    """What the function is given when it is run as it stands: tensors in place of arrays."""
    if isinstance(x, np.ndarray):
        return Tensor(x)
    if isinstance(x, dict):
        return type(x)((k, seen(v)) for k, v in x.items())
    if isinstance(x, tuple) and hasattr(x, "_make"):
        return x._make(map(seen, x))
    return type(x)(map(seen, x)) if isinstance(x, (tuple, list)) else x


def compiled_is_eager(function, *positional, wrt=(), options=None, **named):
    """Value and every gradient of the compiled function, which is returned, are those of the function."""
    compiled = mg.compile(function, **(options or {}))
    value, gradients = compiled.value_and_grad(*positional, **named)
    right = function(*map(seen, positional), **{k: seen(v) for k, v in named.items()})
    tolerance = TOLERANCE[str(right.dtype)]
    assert value.dtype == right.dtype
    np.testing.assert_allclose(value.value, right.value, rtol=tolerance, atol=tolerance)
    assert len(gradients) == len(wrt)
    for x, g in zip(wrt, mg.grad(right, list(wrt)), strict=True):
        np.testing.assert_allclose(gradients[x], g.value, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(compiled(*positional, **named).value, right.value, rtol=tolerance)
    return compiled


# Containers.

W = learned(4, 3, seed=1, name="W")


class Pair(NamedTuple):
    """A state by name."""

    h: object
    c: object


def nested(batch, state, scale=1.0):
    parts = [state[0] @ batch["a"], *(t * batch["more"][1] for t in state[1])]
    if batch["mask"] is not None:
        parts[0] = parts[0] * batch["mask"]
    return sum((mg.tanh(p).sum() for p in parts), batch["more"][0][0] * scale)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("threads", [1, 3])
def test_nested_containers_hold_arrays_tensors_numbers_and_none(dtype, threads):
    a, h, c = learned(3, 2, dtype=dtype), learned(4, 3, dtype=dtype), learned(2, 2, seed=3, dtype=dtype)
    for mask in (None, drawn(4, 2, seed=2, dtype=dtype)):
        batch = {"a": a, "mask": mask, "more": ([1.5], 2)}
        batch["more"] = (Tensor(np.array([0.5, 1.0], dtype)), 2)
        compiled = compiled_is_eager(
            nested, batch, (h, [c, drawn(3, dtype=dtype)]), wrt=(a, h, c), options={"threads": threads}
        )
    assert "batch_a = array" in compiled.source and "state_1_0 = array" in compiled.source


def test_the_source_says_in_which_container_a_size_stands():
    compiled = mg.compile(lambda batch: (batch["x"].sum(axis=1), batch["y"][0] * 2))
    compiled({"x": drawn(3, 5), "y": (drawn(7),)})
    assert {"batch_x_0", "batch_x_1", "batch_y_0_0"} <= set(compiled.last.program.source.split()), (
        compiled.source
    )


def test_names_in_containers_may_be_any_text_and_the_same():
    given = {"x 1": drawn(3), "x_1": drawn(4), 1: drawn(5), "1": drawn(6), "a\n'b": drawn(2), None: drawn(7)}
    compiled_is_eager(lambda x: sum((v * v).sum() for v in x.values()), given)
    compiled_is_eager(lambda x, x_0, x_0_0: (x[0] * x[0]).sum() + x_0.sum() + x_0_0.sum(),
        (drawn(2, 3),), drawn(4), drawn(5, 6))  # fmt: skip


def test_a_tuple_of_arrays_is_no_array_and_a_list_of_numbers_is_one():
    kinds = []

    def function(a, b, c, d):
        kinds.append((type(a), type(b), type(c), type(d)))
        return a[0].sum() + a[1].sum() + b[0].sum() + c.sum() + d[0] * d[1]

    compiled, x = mg.compile(function), drawn(2)
    got = compiled((x, x), [x, drawn(3)], [[1.0, 2], [3, True]], (2.0, 3.0))
    assert got.item() == pytest.approx(3 * x.sum() + 7 + 6)
    assert kinds == [(tuple, list, Tensor, tuple)]


def test_containers_of_nothing_and_of_settings_alone():
    def function(x, things, options):
        assert not things and options == {"a": [None, True], "b": "text"}
        return (x * x).sum()

    compiled_is_eager(function, drawn(3), [], {"a": [None, True], "b": "text"})
    compiled_is_eager(function, drawn(3), {}, {"a": [None, True], "b": "text"})


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "OrderedDict", "Pair"])
def test_states_of_a_scan_come_in_any_container(kind):
    h, c, x = learned(2, 3), learned(2, 3, seed=1), drawn(5, 2, 4)
    make = {
        "tuple": tuple, "list": list, "dict": lambda s: dict(zip("hc", s, strict=True)), "Pair": Pair._make,
        "OrderedDict": lambda s: OrderedDict(zip("hc", s, strict=True)),
    }[kind]  # fmt: skip
    keys = [*"hc"] if "ict" in kind else [0, 1]

    def loss(state, x):
        assert type(state) is type(make([1, 2]))

        def step(s, x):
            h, c = (s[k] for k in keys)
            c = mg.sigmoid(x @ W) * c + mg.tanh(h)
            new = {keys[0]: mg.tanh(c), keys[1]: c} if "ict" in kind else (mg.tanh(c), c)
            return new, new[keys[0]]

        state, hs = mg.scan(step, state, x)
        return (hs * hs).mean() + sum(s.sum() for s in (state.values() if "ict" in kind else state))

    compiled = compiled_is_eager(loss, make([h, c]), x, wrt=(W, h, c))
    assert "state_h" in compiled.source or "state_0" in compiled.source
    first = mg.compile(lambda state, x: mg.scan(lambda s, x: (s, None), state, x)[0])(make([h, c]), x)
    assert [s.shape for s in (first.values() if isinstance(first, dict) else first)] == [(2, 3), (2, 3)]


def test_a_program_serves_other_sizes_and_not_another_form():
    compiled = mg.compile(lambda d: sum(k * v.sum() for k, v in d.items()))
    for given in ({2: drawn(3), 3: drawn(4)}, {2: drawn(30), 3: drawn(0)}):
        assert compiled(given).item() == pytest.approx(2 * given[2].sum() + 3 * given[3].sum())
    assert len(compiled.variants) == 1
    for k in (1, 1.5, True, 0.0, -0.0):  # some of which are equal
        got = compiled({k: np.full(1, np.inf)}).value
        np.testing.assert_array_equal(got, k * np.inf if k else np.nan)
    compiled = mg.compile(lambda d: next(iter(d.values())) * next(iter(d)))
    for k in (0.0, -0.0, 0, False):
        assert np.signbit(compiled({k: np.ones(1)}).value).item() == np.signbit(k)


def test_order_and_type_of_containers_are_part_of_the_program():
    def function(given):
        first, second = given.values() if isinstance(given, dict) else given
        return (first - 2 * second).sum() + isinstance(given, (list, dict))

    compiled, a, b = mg.compile(function), drawn(3), drawn(3, seed=1)
    want = (a - 2 * b).sum()
    for given, more in (((a, b), 0), ([a, b], 1), ({"a": a, "b": b}, 1), (Pair(a, b), 0)):
        assert compiled(given).item() == pytest.approx(want + more)
    assert compiled({"b": b, "a": a}).item() == pytest.approx((b - 2 * a).sum() + 1)


def test_what_the_function_does_to_its_container_stays_with_it():
    given = {"x": drawn(3), "y": [drawn(3)]}

    def function(d):
        d["y"].append(d.pop("x"))
        return sum((v * v).sum() for v in d["y"])

    compiled = mg.compile(function)
    for _ in range(2):
        compiled(given)
    assert list(given) == ["x", "y"] and len(given["y"]) == 1


def test_a_number_of_python_in_a_container_takes_the_dtype_of_an_array():
    compiled = mg.compile(lambda d: d["x"] * d["scale"][0] + d["n"])
    result = compiled({"scale": (0.1,), "n": 2, "x": drawn(3, dtype="float32")})
    np.testing.assert_array_equal(result.value, drawn(3, dtype="float32") * np.float32(0.1) + np.float32(2))
    compiled({"scale": (0.7,), "n": 3, "x": drawn(4, dtype="float32")})  # a number is not a setting
    assert len(compiled.variants) == 1
    V = learned(3, dtype="float32")
    compiled = mg.compile(lambda d, mode=None: (V * d["scale"]).sum())
    assert compiled({"scale": 0.1}, mode="a").dtype == compiled({"scale": 0.2}).dtype == np.float32
    runs = []
    with pytest.raises(mg.DTypeError, match="element types differ"):
        mg.compile(lambda d: (runs.append(d), V + d["x"])[1])({"x": drawn(3), "none": None})
    assert len(runs) == 2  # traced, and run eagerly: there is no float of Python that could be float32


# None, texts, truth values.


def test_a_setting_is_what_python_sees_and_part_of_the_program():
    runs = []

    def function(x, mode, causal=True, mask=None):
        runs.append((mode, causal))
        y = x * mask if mask is not None else x
        y = y.sum(axis=0) if causal is True else y.sum(axis=1)
        return getattr(mg, mode)(y).sum()

    x = learned(3, 3)
    for mode in ("tanh", "exp"):
        for causal in (True, False):
            for mask in (None, drawn(3, 3, seed=4)):
                compiled_is_eager(function, x, mode, causal, mask, wrt=(x,))
    compiled = mg.compile(function)
    runs.clear()
    for _ in range(2):
        for mode in ("tanh", "exp"):
            compiled(x, mode, causal=True)
    assert runs == [("tanh", True), ("exp", True)]


# Arguments by name.


def weighted(x, y, *more, weight=None, **others):
    total = (x * y).sum() + sum((m * m).sum() for m in more)
    for name, other in others.items():
        total = total + len(name) * mg.tanh(other["z"]).sum()
    return total if weight is None else total * weight


def test_arguments_by_name():
    x, y, z = learned(3), learned(3, seed=1), learned(2)
    compiled_is_eager(weighted, x, y=y, wrt=(x, y))
    compiled_is_eager(weighted, y=y, x=x, weight=0.3, wrt=(y, x))
    compiled = compiled_is_eager(weighted, x, y, z, weight=drawn(), ab={"z": z}, c={"z": z}, wrt=(x, y, z))
    assert "weight = array" in compiled.source
    compiled.backward(x, y=y, ab={"z": z}, c={"z": z})
    np.testing.assert_allclose(x.grad, y.value)
    compiled(x, y, ab={"z": drawn(2)})
    assert "ab_z = array" in compiled.source
    with pytest.raises(TypeError, match="required positional argument"):
        mg.compile(weighted)(x, weight=1.0)


def test_self_and_function_are_names_like_others():
    compiled = mg.compile(lambda self, function, gradients: (self * function * gradients).sum())
    given = dict(self=drawn(3), function=drawn(3), gradients=drawn(3))
    assert compiled(**given).item() == pytest.approx((drawn(3) ** 3).sum())
    assert compiled.value_and_grad(**given)[0].item() == pytest.approx((drawn(3) ** 3).sum())


# Tensors in containers.


def test_a_tensor_that_is_given_twice_gets_both_gradients():
    x = learned(3)
    function = lambda a, b: (a["x"] * b[0] * b[0]).sum()  # noqa: E731
    compiled_is_eager(function, {"x": x}, (x,), wrt=(x,))
    y = x * 2  # one that was computed is a leaf here
    _, gradients = mg.compile(function).value_and_grad({"x": y}, (y,))
    np.testing.assert_allclose(gradients[y], 3 * y.value**2)
    with mg.anomaly():
        _, gradients = mg.compile(function).value_and_grad({"x": y}, (y,))
    np.testing.assert_allclose(gradients[y], 3 * y.value**2)
    _, gradients = mg.compile(lambda a, b: (a * b * b).sum()).value_and_grad(y, y)
    np.testing.assert_allclose(gradients[y], 3 * y.value**2)


def test_hooks_of_tensors_in_containers():
    x = learned(3)
    compiled = mg.compile(lambda d: (d["x"] ** 2).sum())
    np.testing.assert_allclose(compiled.value_and_grad({"x": x})[1][x], 2 * x.value)
    remove = x.hook(lambda g: g * 10)
    np.testing.assert_allclose(compiled.value_and_grad({"x": x})[1][x], 20 * x.value)
    remove()
    np.testing.assert_allclose(compiled.value_and_grad({"x": x})[1][x], 2 * x.value)


def test_backward_leaves_gradients_and_refuses_what_was_computed():
    x, y = learned(3), learned(3, seed=1) * 2
    compiled = mg.compile(lambda d: (d["x"] * d["more"][0]).sum())
    compiled.backward({"x": x, "more": (drawn(3),)})
    np.testing.assert_allclose(x.grad, drawn(3))
    with pytest.raises(mg.GraphError, match="was computed"):
        compiled.backward({"x": x, "more": (y,)})
    np.testing.assert_allclose(x.grad, drawn(3))
    with pytest.raises(mg.GraphError, match="was computed"):
        TrainingStep(compiled, mg.optim.SGD([x], lr=0.1))({"x": x, "more": (y,)})


def test_an_argument_that_is_read_from_outside_too_runs_eagerly():
    x = learned(3, name="x")
    compiled = mg.compile(lambda d: (d["x"] * x).sum())
    with pytest.warns(UserWarning, match="reads it from outside too"):
        np.testing.assert_allclose(compiled.value_and_grad({"x": x})[1][x], 2 * x.value)


# What else calls functions.


def test_what_cannot_be_compiled_runs_eagerly_with_its_containers():
    def function(d, *, mode):
        assert mode == "a" and isinstance(d["y"], tuple)
        return (d["x"] * float(d["y"][0].value.sum())).sum()  # values are not known while tracing

    compiled, x = mg.compile(function), learned(3)
    given = {"x": x, "y": (drawn(2),)}
    with pytest.warns(UserWarning, match=r"'d_y_0' .*has no value"):
        compiled.value_and_grad(given, mode="a")
    value, gradients = compiled.value_and_grad(given, mode="a")  # it is said once
    assert value.item() == pytest.approx((x.value * drawn(2).sum()).sum())
    np.testing.assert_allclose(gradients[x], np.full(3, drawn(2).sum()))


def test_anomaly_mode_names_what_stands_in_a_container():
    with mg.anomaly(), pytest.raises(mg.NonFiniteError, match="batch_x"):
        mg.compile(lambda batch: mg.log(batch["x"]).sum())({"x": np.array([1.0, np.nan])})


def test_a_compiled_function_within_another():
    inner = mg.compile(lambda d, scale=1.0: mg.tanh(d["x"]) * scale + d["y"][0])
    outer = mg.compile(
        lambda x, y: (
            (inner({"x": x, "y": (y, None)}, scale=2.0) * x).sum() + inner({"x": x, "y": [1.0]}).sum()
        )
    )
    x, y = drawn(3), drawn(3, seed=1)
    want = ((2 * np.tanh(x) + y) * x).sum() + (np.tanh(x) + 1).sum()
    assert outer(x, y).item() == pytest.approx(want)


def test_check_compares_what_comes_in_containers():
    h, x = learned(2, 3), drawn(5, 2, 4)

    def loss(batch, state):
        _, hs = mg.scan(lambda s, x: ((mg.tanh(x @ W + s[0]),) * 2,), (state, state), batch["x"])
        return (hs * hs).mean()

    def right(batch, state):
        def step(s, x):
            h = mg.tanh(x @ W + s[0]).named("h")
            return (h, s[0]), h

        _, hs = mg.scan(step, state, batch["x"])
        return (hs * hs).mean()

    compiled_is_eager(right, {"x": x}, (h, h), wrt=(W, h), options={"check": True})
    noise = iter(range(100))
    with pytest.raises(mg.GraphError, match="traced twice it differs"):
        mg.compile(lambda d: (d["x"] * next(noise)).sum(), check=True)({"x": drawn(3)})


def test_copies_and_pickles_take_containers():
    compiled = mg.compile(weighted)
    given = {"y": drawn(3), "ab": {"z": learned(2)}}
    value, gradients = compiled.value_and_grad(drawn(3), **given)
    for again in (copy.copy(compiled), copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert again.value_and_grad(drawn(3), **given)[0].item() == value.item()
    (kept,) = pickle.loads(pickle.dumps(gradients)).items()
    np.testing.assert_array_equal(kept[1], gradients[given["ab"]["z"]])


def test_threads_may_call_it_at_the_same_time():
    compiled = mg.compile(lambda d: (d["x"] * d["y"][0]).sum())
    wrong = []

    def calls(k):
        for n in range(1, 40):
            x, y = np.full(n, float(k)), Tensor(np.ones(n), requires_grad=True)
            value, gradients = compiled.value_and_grad({"x": x, "y": (y,)})
            if value.item() != k * n or not (gradients[y] == k).all():
                wrong.append((k, n))

    threads = [threading.Thread(target=calls, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def batches(count):
    for k in range(count):
        yield drawn(5, 4, seed=k), drawn(5, 3, seed=100 + k)


def test_training_on_batches_in_containers_is_training_on_arrays():
    """`fit` and a step of training: the same bits."""
    found = []
    for kind in ("arrays", "dicts", "names"):
        V = Tensor(W.value, requires_grad=True, name="V")

        def loss(x, y, V=V):
            return ((x @ V - y) ** 2).mean()

        def of_dict(batch, mode=None, loss=loss):
            assert mode is None
            return loss(**batch)

        if kind == "names":
            step = mg.training_step(loss, mg.optim.Adam([V], 0.01), clip=1.0)
            losses = np.array([step(x=x, y=y).item() for x, y in batches(6)])
        else:
            given = (((x, y) if kind == "arrays" else ({"x": x, "y": y}, None)) for x, y in batches(6))
            losses = mg.fit(loss if kind == "arrays" else of_dict, [V], given, lr=0.01)
        found.append((losses, V.value))
    for losses, value in found[1:]:
        np.testing.assert_array_equal(losses, found[0][0])
        np.testing.assert_array_equal(value, found[0][1])


# What is not an argument.


class Config:
    """An object that is not a number."""


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (Config(), "an argument is Config: give tensors"), ({"a": (Config(),)}, "an argument is Config: give tensors"),
        (defaultdict(list, a=[drawn(2)]), "an argument is defaultdict"), ([[1, 2], [3]], "is not an array"),
        (len, "an argument is builtin_function"), (np.array(["a"]), "not a numeric type"),
        ({1, 2}, "an argument is set: give tensors"),
    ],
)  # fmt: skip
def test_what_is_no_argument_is_refused(argument, said):
    with warnings.catch_warnings(), pytest.raises(mg.MinigradError, match=said):
        warnings.simplefilter("ignore")
        mg.compile(lambda x: x)(argument)


# Integers of few bits.

NARROW = ["int8", "uint8", "int16", "uint16", "uint32"]


def whole(dtype, *shape, most=None, seed=0):
    info = np.iinfo(dtype)
    low, high = (info.min, info.max) if most is None else (0, most - 1)
    return np.random.default_rng(seed).integers(low, high, shape, dtype=dtype, endpoint=True)


E = learned(6, 3, seed=5, name="E")
L = learned(4, 6, seed=6, name="L")
COMPILED = {
    "gather": lambda i: (mg.gather(E, i) ** 2).sum(),
    "one_hot": lambda i: (mg.one_hot(i, 6, "float64") @ E).sum(),
    "cross_entropy": lambda i: mg.cross_entropy(L, i),
    "ignored": lambda i: mg.cross_entropy(L, i, ignore_index=2),
    "cast": lambda i: (i.astype("float64") / 255 * E[:4, 0]).sum(),
    "float32": lambda i: i.astype("float32").mean(),
    "int32": lambda i: (i.astype("int32") * 1000000).astype("float64").sum(),
    "bool": lambda i: mg.where(i.astype("bool"), E[:4, 0], 0.0).sum(),
    "compared": lambda i: mg.where((i > 2) == (i != 3), E[:4, 0], i * E[:4, 1]).sum(),
    "beside floats": lambda i: (i * E[:4, 0] + i / 2.5).sum(),
    "moved": lambda i: mg.gather(E, mg.concat(i.reshape((2, 2)).T, i.reshape((2, 2))[::1], axis=0)).sum(),
    "chosen": lambda i: mg.gather(E, mg.where(i > 3, i, mg.minimum(i, 1))).sum() + i.max().astype("float64"),
    "mean": lambda i: i.mean() * E[0, 0],
}


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", COMPILED)
def test_small_integers_are_looked_up_compared_moved_and_converted(name, dtype):
    wrt = () if name in ("float32", "int32") else (L,) if "entropy" in name or name == "ignored" else (E,)
    indices = name in ("gather", "one_hot", "cross_entropy", "ignored", "moved", "chosen")
    i = whole(dtype, 4, most=6) if indices else whole(dtype, 4)
    compiled_is_eager(COMPILED[name], i, wrt=wrt)
    compiled_is_eager(lambda d: COMPILED[name](d["i"][0]), {"i": (Tensor(i),)}, wrt=wrt)


WRAPPING = {
    "add": lambda i: i + 1, "sub": lambda i: i - 1, "mul": lambda i: i * i, "neg": lambda i: -i, "abs": abs,
    "power": lambda i: i**2, "cast": lambda i: i.astype("float64").astype("int16"),
    "scatter": lambda i: mg.scatter(i, [0, 0, 0, 1], 2),
}  # fmt: skip
RETURNED = {
    "reshape": lambda i: i.reshape((2, 2)), "concat": lambda i: mg.concat(i, i), "max": lambda i: i.max(),
    "where": lambda i: mg.where(i > 0, i, 0), "gather": lambda i: mg.gather(i, [1, 0]),
}  # fmt: skip
OTHERS = {
    "sum": mg.sum, "exp": mg.exp, "div": lambda i: i / i, "sqrt": mg.sqrt, "with int64": lambda i: i + np.ones(4, "int64"),
    "with int16": lambda i: i * np.full(4, 300, "int16"), "with int32": lambda i: i * np.full(4, 2**30, "int32"),
}  # fmt: skip
WRAPS = {**WRAPPING, **RETURNED, **OTHERS}


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", WRAPS)
def test_arithmetic_of_small_integers_is_that_of_numpy(name, dtype):
    """Where it would wrap, or be done in a type that is not compiled, it runs eagerly."""
    i = whole(dtype, 4)
    i[:2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    wide = lambda i: WRAPS[name](i).astype("float64")  # noqa: E731
    for function in (WRAPS[name], wide):
        with warnings.catch_warnings(record=True) as heard, np.errstate(all="ignore"):
            warnings.simplefilter("always")
            got, right = mg.compile(function)(i), function(Tensor(i))
        assert got.dtype == right.dtype
        np.testing.assert_allclose(got.value, right.value, rtol=1e-5)
        said = [str(w.message) for w in heard if "runs eagerly" in str(w.message)]
        if name in WRAPPING or (name in RETURNED and function is not wide):
            assert len(said) == 1 and "does not compute or return it: convert it" in said[0], said


def test_small_integers_step_by_step():
    """Codes of a text, read in the step of a scan, and as a state."""

    def loss(text, last):
        def step(s, code):
            h, before = s
            h = mg.tanh(mg.gather(E, code) + mg.gather(E, before) * h)
            return (h, mg.where(code > 2, code, before)), h

        (h, code), hs = mg.scan(step, (mg.zeros((text.shape[1], 3), "float64"), last), text)
        return (hs * hs).mean() + (mg.gather(E, code) * h).sum()

    for dtype in NARROW:
        text, last = whole(dtype, 7, 2, most=6), whole(dtype, 2, most=6)
        compiled_is_eager(loss, text, last, wrt=(E,), options={"threads": 2})
        compiled_is_eager(loss, text[::-2], last[::-1], wrt=(E,))  # not contiguous


def test_small_integers_that_change_in_place_are_read_anew():
    compiled, i = mg.compile(lambda i: mg.gather(E, i).sum(axis=1)), whole("uint8", 4, most=6)
    for _ in range(3):
        np.testing.assert_allclose(compiled(i).value, E.value[i].sum(axis=1))
        i[:] = (i + 1) % 6


def test_small_integers_that_are_captured():
    table, codes = Tensor(whole("uint8", 5, most=6)), Tensor(np.array([4, 0, 1], "int16"))
    compiled_is_eager(
        lambda i: (mg.gather(E, mg.gather(table, i)) * mg.gather(E, codes)).sum(), codes.value, wrt=(E,)
    )
    compiled = mg.compile(lambda x: x * mg.gather(E, codes))
    for _ in range(2):
        np.testing.assert_allclose(compiled(np.ones(())).value, E.value[codes.value])
        codes.value = codes.value[::-1]


@pytest.mark.parametrize("dtype", ["int8", "uint32"])
def test_an_index_that_there_is_not_is_refused(dtype):
    for bad in (
        np.array([1, 6], dtype),
        np.array([-1], dtype) if dtype == "int8" else np.array([2**32 - 1], dtype),
    ):
        for function in (lambda i: mg.gather(E, i), lambda i: mg.one_hot(i, 6)):
            with pytest.raises(mg.InputError, match=r"index .* outside the (rows|classes), 0 …"):
                mg.compile(function)(bad)


@pytest.mark.parametrize("dtype", ["uint64", "float16"])
def test_other_types_keep_their_reason(dtype):
    with pytest.warns(UserWarning, match=f"an argument is {dtype}; the compiler takes"):
        mg.compile(lambda d: d["x"].astype("float64").sum())({"x": np.ones(3, dtype)})


@pytest.mark.as_shipped
def test_numba_reads_small_integers_alike():
    compiled = mg.compile(lambda d, i: (mg.gather(E, i) * d["x"].astype("float64")).sum())
    given = {"x": whole("uint8", 4, 1)}, whole("int16", 4, most=6)
    value, gradients = compiled.value_and_grad(*given)
    value, g = value.value, gradients[E].copy()
    with run_by_numba(compiled):
        again, gradients = compiled.value_and_grad(*given)
        assert again.value == value and (gradients[E] == g).all()


@pytest.mark.parametrize("gradients", [False, True])
def test_arrays_that_were_given_can_still_be_written_to(gradients):
    x, codes = drawn(3), np.arange(3)
    compiled = mg.compile(lambda x, codes: (x * mg.gather(x, codes)).sum())
    for _ in range(2):
        (compiled.value_and_grad if gradients else compiled)(x, codes)
        x += 1
        codes[:] = 0
    value = compiled(x, codes)
    assert value.item() == pytest.approx((x * x[codes]).sum())
