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

TABLES = {name: table for name, table in vars(hints).items() if name.isupper() and isinstance(table, dict)}
ROWS = [(table, name) for table, rows in TABLES.items() for name in rows]
# What a remedy may speak of by a plain word, e.g. "inputs": parameters of layers, runs and optimisers.


def taken_by(functions) -> set[str]:
    return {p for f in functions for p in inspect.signature(f).parameters}


PUBLIC = [getattr(module, name) for module in (minigrad, cells) for name in module.__all__]
OPTIMISERS = [minigrad.optim.SGD, minigrad.optim.Adam, minigrad.optim.RMSprop]
WORDS = {
    "PARAMETERS": taken_by(filter(inspect.isfunction, PUBLIC)),
    "LAYER_PARAMETERS": taken_by(k.__init__ for k in PUBLIC if inspect.isclass(k)) | {*OPTIONS},
    "OPTIMISER_PARAMETERS": taken_by(k.__init__ for k in OPTIMISERS),
}
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


FUNCTIONS = [n for n in minigrad.__all__ if hasattr(getattr(minigrad, n), "__wrapped__")]


@pytest.mark.smoke
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_what_a_parameter_is_called(name):
    function = getattr(minigrad, name)
    taken = inspect.signature(function).parameters
    given = [other for other, ours in hints.PARAMETERS.items() if ours in taken and other not in taken]
    assert given
    for other in given:
        with pytest.raises(TypeError, match=rf"takes no {other}=; here it is: {hints.PARAMETERS[other]}$"):
            function(KNOWN["x"], **{other: 0})
    assert pickle.loads(pickle.dumps(function)) is function
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        function(KNOWN["x"], nonsense=1)


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
