"""Names of other libraries: each is refused with what it is called here, and what it is called here exists."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import numpy as np
import pytest

import cells
import minigrad
from cells.recurrence import OPTIONS
from minigrad import Tensor, hints

TABLES = {
    name: table
    for name, table in vars(hints).items()
    if name.isupper() and name[0] != "_" and name != "CALLS" and isinstance(table, dict)
} | {f"CALLS[{name}]": table for name, table in hints.CALLS.items()}
ROWS = [(table, name) for table, rows in TABLES.items() for name in rows]
# What a remedy may speak of by a plain word, e.g. "inputs": parameters of layers, runs and optimisers.


def taken_by(functions) -> set[str]:
    return {p for f in functions for p in inspect.signature(f).parameters}


PUBLIC = [getattr(module, name) for module in (minigrad, cells) for name in module.__all__]
OPTIMISERS = [minigrad.optim.SGD, minigrad.optim.Adam, minigrad.optim.RMSprop]
WORDS = {
    "PARAMETERS": taken_by(filter(inspect.isfunction, [*PUBLIC, minigrad.optim.clip_grad_norm])),
    "LAYER_PARAMETERS": taken_by(k.__init__ for k in PUBLIC if inspect.isclass(k)) | {*OPTIONS},
    "OPTIMISER_PARAMETERS": taken_by(k.__init__ for k in OPTIMISERS),
}
# Functions and methods that answer for another library's parameters, by the name in `hints.CALLS`, or their own.
ANSWERING = [
    (f"{owner.__name__}.{name}", function)
    for owner in (minigrad, minigrad.optim, minigrad.optim.Optimiser, Tensor, cells, cells.Layer)
    for name in dir(owner)
    if not name.startswith("_")
    and inspect.isfunction(function := inspect.getattr_static(owner, name))
    and hasattr(function, "__wrapped__")
    and hints.called_otherwise(function.__wrapped__)
]
for _, function in ANSWERING:
    WORDS.setdefault(f"CALLS[{function.__name__}]", set()).update(inspect.signature(function).parameters)
LAYER = cells.LSTM(2, 3, np.random.default_rng(0))
KNOWN = {
    "minigrad": minigrad, "cells": cells, "np": np, "x": Tensor(np.ones((2, 2))), "layer": LAYER, "self": LAYER,
    "run": cells.run(LAYER, np.ones((1, 1, 2), "float32")), "copy": copy,
}  # fmt: skip
KNOWN["rng"] = np.random.default_rng(0)


def there(path: str) -> bool:
    owner, *names = path.split(".")
    thing = KNOWN[owner]
    for name in names:
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


@pytest.mark.smoke
@pytest.mark.parametrize(("table", "name"), ROWS)
def test_every_remedy_exists(table, name):
    remedy = TABLES[table][name]
    for path in re.findall(rf"\b(?:{'|'.join(KNOWN)})(?:\.[A-Za-z_]\w*)+", remedy):
        assert there(path), f"{table}: {name!r} is said to be {path} here, which there is not"
    if table in WORDS and remedy.isidentifier():
        assert remedy in WORDS[table], f"{table}: {name!r} is said to be {remedy}= here, which nothing takes"


@pytest.mark.smoke
@pytest.mark.parametrize("name", hints.NAMES)
def test_names_of_the_module_say_what_they_are_called(name):
    assert name not in minigrad.__all__
    with pytest.raises(AttributeError, match=re.escape(f"{name!r}; here it is: {hints.NAMES[name]}")):
        getattr(minigrad, name)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("owner", "table", "name"),
    [
        (owner, table, n)
        for owner, table in [("x", "TENSOR"), ("layer", "LAYER"), ("cells", "CELLS")]
        for n in TABLES[table]
    ],
)
def test_attributes_say_what_they_are_called(owner, table, name):
    with pytest.raises(AttributeError, match=re.escape(f"{name!r}; here it is: {TABLES[table][name]}")):
        getattr(KNOWN[owner], name)
    assert owner == "cells" or name not in dir(KNOWN[owner])


@pytest.mark.smoke
@pytest.mark.parametrize(("name", "function"), ANSWERING, ids=[name for name, _ in ANSWERING])
def test_functions_say_what_a_parameter_is_called(name, function):
    rows = hints.called_otherwise(function.__wrapped__)
    for other, ours in rows.items():
        if function.__name__ not in hints.CALLS or other not in hints.CALLS[function.__name__]:
            assert ours == hints.PARAMETERS[other] and ours in inspect.signature(function).parameters
        with pytest.raises(TypeError, match=re.escape(f"takes no {other}=; here it is: {ours}") + "$"):
            function(KNOWN["x"], **{other: 0})
    assert pickle.loads(pickle.dumps(function)) is function
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        function(KNOWN["x"], nonsense=1)


@pytest.mark.smoke
def test_every_row_of_a_function_is_answered_for():
    answering = {function.__name__ for _, function in ANSWERING}
    assert {*hints.CALLS} <= answering
    for name in hints.CALLS:
        for function in [f for _, f in ANSWERING if f.__name__ == name]:
            taken = {*hints.CALLS[name]} & {*inspect.signature(function).parameters}
            assert not taken, f"{name} takes {taken}, which a row says it does not"


@pytest.mark.smoke
@pytest.mark.parametrize("module", [minigrad.functional, minigrad.losses])
def test_modules_say_where_a_name_of_the_package_is(module):
    for name in ("LSTM", "Softplus", *minigrad.__all__, *hints.NAMES):
        if name in vars(module):
            continue
        said = f"here it is: {f'minigrad.{name}' if name in minigrad.__all__ else hints.NAMES.get(name)}"
        with pytest.raises(AttributeError, match=re.escape(said) if "None" not in said else "Softplus'$"):
            getattr(module, name)


@pytest.mark.smoke
def test_methods_and_size_say_what_they_are_called():
    x = KNOWN["x"]
    with pytest.raises(TypeError, match=r"Tensor\.sum takes no dim=; here it is: axis"):
        x.sum(dim=0)
    with pytest.raises(TypeError, match=r"Tensor\.mean takes no keepdim=; here it is: keepdims"):
        x.mean(0, keepdim=True)
    with pytest.raises(TypeError, match=r"x\.shape"):
        x.size()
    with pytest.raises(TypeError, match=r"here it is: minigrad\.Tensor\(data\)"):
        minigrad.tensor([1.0])  # type: ignore[operator]
    assert x.size == 4 and f"{x.size}" == "4" and np.zeros(x.size).shape == (4,)


@pytest.mark.smoke
@pytest.mark.parametrize("name", hints.MAKING_PARAMETERS)
def test_layers_say_what_is_left_to_the_run(name):
    for kind in (cells.LSTM, cells.Stack, cells.Dense):
        with pytest.raises(
            TypeError, match=re.escape(f"takes no {name}=; here it is: {hints.MAKING_PARAMETERS[name]}")
        ):
            kind(**sized(kind), **{name: 1})


def sized(kind) -> dict:
    taken = inspect.signature(kind.__init__).parameters
    sizes = dict(inputs=2, hidden=3, width=3, classes=4, layers=1, rate=0.1, kind=cells.GRU)
    return {"rng": KNOWN["rng"], **{n: size for n, size in sizes.items() if n in taken}}


@pytest.mark.smoke
@pytest.mark.parametrize("name", hints.LAYER_PARAMETERS)
def test_layers_say_what_their_sizes_and_options_are_called(name):
    match = re.escape(f"takes no {name}=; here it is: {hints.LAYER_PARAMETERS[name]}")
    for kind in (cells.LSTM, cells.Stack, cells.Dense):
        with pytest.raises(TypeError, match=match):
            kind(**sized(kind), **{name: 1})
    with pytest.raises(TypeError, match=match):
        LAYER(np.ones((1, 1, 2), "float32"), **{name: 1})
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        cells.LSTM(**sized(cells.LSTM), nonsense=1)


@pytest.mark.smoke
def test_a_layer_of_ones_own_may_use_these_names():
    class Own(cells.Layer):
        def __init__(self, hidden_size: int, **rest):
            super().__init__()
            self.train, self.size_of_all = hidden_size, rest

    own = Own(hidden_size=3, num_layers=2)
    assert (own.train, own.size_of_all) == (3, {"num_layers": 2}) and "train" in dir(own)
    own.parameter("to", np.ones(2))
    assert [*own.parameters()] == ["to"] and own.to.shape == (2,)
    assert copy.deepcopy(own).train == 3 and pickle.loads(pickle.dumps(LAYER)).hidden == 3
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = own.nothing


@pytest.mark.smoke
@pytest.mark.parametrize("name", hints.OPTIMISER_PARAMETERS)
def test_optimisers_say_what_their_options_are_called(name):
    match = re.escape(f"takes no {name}=; here it is: {hints.OPTIMISER_PARAMETERS[name]}")
    for kind in OPTIMISERS:
        with pytest.raises(TypeError, match=match):
            kind(LAYER.parameters(), **{name: 1})


@pytest.mark.smoke
@pytest.mark.parametrize("name", hints.OPTIM)
def test_names_of_the_optimisers_module_say_what_they_are_called(name):
    with pytest.raises(AttributeError, match=re.escape(f"{name!r}; here it is: {hints.OPTIM[name]}")):
        getattr(minigrad.optim, name)
    with pytest.raises(AttributeError, match=r"param_groups'; here it is: .*optimiser\.lr"):
        _ = minigrad.optim.SGD([Tensor(np.ones(2), requires_grad=True)], lr=0.1).param_groups


@pytest.mark.smoke
def test_a_layer_without_a_generator_asks_for_one():
    for kind, given, said in [
        (cells.LSTM, (2, 3), "LSTM(inputs, hidden, rng)"),
        (cells.Embedding, (5, 3), "Embedding(classes, width, rng)"),
        (cells.Stack, ([LAYER, LAYER],), "Stack(kind, inputs, hidden, layers, rng)"),
    ]:
        with pytest.raises(
            TypeError, match=re.escape(f"{said} was given no rng") + r".*np\.random\.default_rng\(seed\)"
        ):
            kind(*given)
    for other in (copy.copy(LAYER), copy.deepcopy(LAYER), pickle.loads(pickle.dumps(LAYER))):
        assert other.hidden == 3


@pytest.mark.smoke
def test_a_shape_is_one_argument():
    for make in (minigrad.zeros, minigrad.ones):
        with pytest.raises(
            TypeError, match=rf"give the shape as one tuple, e\.g\. {make.__name__}\(\(3, 4\)\)"
        ):
            make(3, 4)
        assert make(3).shape == make([3]).shape == (3,) and make((2, 3), "float64").shape == (2, 3)
    assert minigrad.full(2, 7).value.tolist() == [7, 7]


# Shapes as they are elsewhere: (layers, N, H) states, sequences first, classes second.

T, N, D, H = 5, 4, 2, 3


def zeros(*shape) -> np.ndarray:
    return np.zeros(shape, "float32")


def made(kind, *more):
    return kind(*more, D, H, *([2] if kind is cells.Stack else []), np.random.default_rng(0))


LAYERED = {
    "Stack of GRU": (made(cells.Stack, cells.GRU), ["h"]),
    "Stack of LSTM": (made(cells.Stack, cells.LSTM), ["h", "c"]),
    "Bidirectional": (made(cells.Bidirectional, cells.LSTM), ["h", "c"]),
    "Stack of both": (made(cells.Stack, cells.Bidirectional.of(cells.LSTM)), ["h", "c"]),
}


@pytest.mark.smoke
@pytest.mark.parametrize("which", LAYERED)
def test_a_state_with_an_axis_of_layers_is_said_to_be_its_rows(which):
    """What the message says to give is taken, and is what the layer runs with row by row."""
    layer, kinds = LAYERED[which]
    x, layers = zeros(T, N, D), len(layer.state.split()) // len(kinds)
    draw = np.random.default_rng(1)
    given = {kind: draw.standard_normal((layers, N, H)).astype("float32") for kind in kinds}
    with pytest.raises(minigrad.ShapeError, match="states given") as error:
        layer(x, tuple(given.values()))
    said = str(error.value).partition(f"so give the rows of ({layers}, {N}, {H}): ")[2]
    rows = eval(said if len(kinds) * layers > 1 else f"({said},)", {}, given)
    start = layer(x, rows)
    assert [s.shape for s in start.state] == [(N, H)] * len(rows)
    for k, state in enumerate(rows):
        assert np.array_equal(state, given[kinds[k % len(kinds)]][k // len(kinds)])


@pytest.mark.smoke
@pytest.mark.parametrize("kind", [cells.GRU, cells.LSTM])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_single_layers_state_has_no_axis_of_layers(kind, compiled):
    layer, x = made(kind), zeros(T, N, D)
    call = minigrad.compile(lambda x, *s: layer(x, s).last) if compiled else lambda x, *s: layer(x, s).last
    states = [zeros(1, N, H) for _ in layer.state.split()]
    with pytest.raises(
        minigrad.ShapeError, match=r"give \(4, 3\).*, without the axis of layers, e\.g\. h\[0\]"
    ):
        call(x, *states)
    assert call(x, *(s[0] for s in states)).shape == (N, H)


@pytest.mark.smoke
def test_where_x_fits_with_its_first_axes_exchanged_the_message_says_so():
    layer, x = made(cells.GRU), zeros(N, T, D)  # read as N steps of T sequences
    said = re.escape(
        "x is (steps, sequences, …), (4, 5, …): if its sequences come first, give xs.swapaxes(0, 1)"
    )
    for options in (dict(state=zeros(N, H)), dict(lengths=np.arange(N))):
        with pytest.raises(minigrad.ShapeError, match=said):
            layer(x, **options)
        assert layer(x.swapaxes(0, 1), **options).outputs.shape == (T, N, H)
        if "state" in options:  # as many rows as nothing of x has
            with pytest.raises(minigrad.ShapeError, match=r"for all sequences$"):
                layer(x, zeros(7, H))
    with pytest.raises(minigrad.ShapeError, match=r"\(5,\)$"):
        layer(x, lengths=np.arange(7))
    with pytest.raises(minigrad.ShapeError, match=r"e\.g\. mask\.swapaxes\(0, 1\)$"):
        layer(x, mask=np.ones((T, N), bool))
    with pytest.raises(minigrad.ShapeError, match=r"for a single sequence x\[:, None\]"):
        layer(x[0])


class Kept(cells.Cell):
    state = "h"

    def build(self, rng):
        pass

    def step(self, x, h, keep):
        return dict(h=h * keep)


@pytest.mark.smoke
def test_inputs_beside_x_say_so_too():
    cell = Kept(D, H, np.random.default_rng(0))
    with pytest.raises(minigrad.ShapeError, match=r"if its sequences come first, give xs\.swapaxes"):
        cell(zeros(N, T, D), keep=zeros(T, N, 1))
    assert cell(zeros(T, N, D), keep=zeros(T, N, 1)).outputs.shape == (T, N, H)
    with pytest.raises(minigrad.ShapeError, match=r"give \(4, …\)$"):
        cell(zeros(N, T, D), keep=zeros(7, 1))


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("loss", "given", "wanted", "remedy"),
    [
        (minigrad.cross_entropy, (T, N, H), (N, T), lambda x, t: (x, t.swapaxes(0, 1))),
        (minigrad.cross_entropy, (N, H, T), (N, T), lambda x, t: (x.transpose((0, 2, 1)), t)),
        (minigrad.cross_entropy, (N, H, T, D), (N, T, D), lambda x, t: (x.transpose((0, 2, 3, 1)), t)),
        (minigrad.mse, (T, N, D), (N, T, D), lambda x, t: (x, t.swapaxes(0, 1))),
        (minigrad.mae, (T, N), (N, T), lambda x, t: (x, t.swapaxes(0, 1))),
        (minigrad.huber, (T, N, D), (N, T, D), lambda x, t: (x, t.swapaxes(0, 1))),
        (minigrad.binary_cross_entropy, (T, N), (N, T), lambda x, t: (x, t.swapaxes(0, 1))),
    ],
)
def test_losses_say_which_axes_are_exchanged(loss, given, wanted, remedy):
    x, t = zeros(*given), np.zeros(wanted, "int64" if loss is minigrad.cross_entropy else "float32")
    with pytest.raises(minigrad.ShapeError, match=r"(swapaxes\(0, 1\)|transpose\(\(.*\)\)) would fit$"):
        loss(x, t)
    assert loss(*remedy(x, t)).shape == ()
    with pytest.raises(minigrad.ShapeError) as error:
        loss(x, t[:2, :2])
    assert "would fit" not in str(error.value)
