"""Who is who: a copied, deep-copied or unpickled tensor is another one, and what belongs together stays together.

Right values are counted by hand: of a loss 2·a + 5·b the gradient of a is 2 and that of its copy b is 5.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import GraphError, InputError, Tensor, optim
from minigrad.compiler import compile

WAYS = {"copy": copy.copy, "deep copy": copy.deepcopy} | {
    f"pickle {p}": lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


def halved(g):
    return g * 0.5


@every_way
@pytest.mark.smoke
def test_a_copy_is_another_tensor(way):
    a = Tensor([1.0, 2.0], requires_grad=True, name="a")
    b = way(a)
    ((a * 2).sum() + (b * 5).sum()).backward()
    assert a.grad.tolist() == [2, 2] and b.grad.tolist() == [5, 5]
    assert a.number < b.number < Tensor(0).number, "its number is the newest of this process"
    found = mg.grad((a * 2 + b * 5).sum(), [a, b])
    assert [g.value.tolist() for g in found] == [[2, 2], [5, 5]]
    assert len({n.number for n in mg.ancestors(a * b)}) == 3


@every_way
@pytest.mark.parametrize(
    "value", [np.float32(1.5), np.arange(6.0).reshape(2, 3).T, np.ones((0, 3), "f4"), np.array([1, 7], "u1"),
    np.array([True, False]), np.array([1 + 2j])], ids=lambda v: f"{v.dtype}{v.shape}",
)  # fmt: skip
def test_a_copy_has_value_type_name_and_place(value, way):
    with mg.scope("layer 1", "t=3"):
        a = Tensor(value, requires_grad=value.dtype.kind == "f", name="W f\n")
    b = way(a)
    np.testing.assert_array_equal(b.value, a.value)
    assert (b.shape, b.dtype, b.name, b.scope) == (a.shape, a.dtype, a.name, a.scope)
    assert b.requires_grad is a.requires_grad and b.is_leaf and b.grad is None
    assert not b.value.flags.writeable and b.value.flags.c_contiguous
    b.value = np.zeros_like(value)
    np.testing.assert_array_equal(a.value, value)


@every_way
def test_a_copy_goes_on_from_the_same_gradient_and_has_its_own(way):
    a = Tensor([1.0], requires_grad=True)
    (a * 2).sum().backward()
    b = way(a)
    (b * 5).sum().backward()
    b.grad *= 10
    assert a.grad.tolist() == [2] and b.grad.tolist() == [70]


@every_way
def test_hooks_come_along(way):
    a = Tensor([1.0], requires_grad=True)
    remove = a.hook(halved)
    b = way(a)
    remove()
    (a * 2 + b * 2).sum().backward()
    assert a.grad.tolist() == [2] and b.grad.tolist() == [1]


class Counting:
    """A model whose parameter has a method of it as a hook: it points back."""

    def __init__(self):
        self.W, self.count = Tensor([1.0], requires_grad=True), 0
        self.W.hook(self.seen)

    def seen(self, g):
        self.count += 1

    def loss(self, x):
        return (x * self.W).sum()


@pytest.mark.parametrize("way", [copy.deepcopy, WAYS["pickle 5"]])
def test_a_hook_that_is_a_method_becomes_the_copys(way):
    first = Counting()
    other = way(first)
    (other.W * 2).sum().backward()
    assert (first.count, other.count) == (0, 1)


@every_way
def test_what_is_shared_inside_is_shared_inside_the_copy(way):
    W, b = Tensor(np.ones(2), requires_grad=True, name="W"), Tensor(np.zeros(2), requires_grad=True)
    made = way({"in": W, "out": W, "b": [b, b]})
    assert made["in"] is made["out"] and made["b"][0] is made["b"][1]
    assert (made["in"] is W) is (way is copy.copy), "only copy.copy of what holds tensors holds the same"


def computed():
    x = Tensor([1.0], requires_grad=True, name="x")
    freed = (x * 2).sum()
    freed.backward(free=True)
    return {
        "computed": mg.tanh(x).named("y"),
        "without a gradient": Tensor([1.0]) * 2,
        "behind a cut": x.detach() * 2,
        "freed": freed,
        "symbol": mg.tensor.symbol((2,), np.dtype("f4"), "s"),
    }


@every_way
@pytest.mark.parametrize("kind", list(computed()))
def test_what_was_computed_is_refused_with_the_reason_and_the_remedy(kind, way):
    y = computed()[kind]
    with pytest.raises(GraphError, match=r"copy or pickle of .*computed.*\.detach\(\) or \.numpy\(\)"):
        way(y)


@every_way
def test_a_detached_tensor_comes_as_a_leaf(way):
    x = Tensor([1.0], requires_grad=True)
    y = mg.tanh(x).detach().named("h")
    z = way(y)
    assert z.is_leaf and not z.requires_grad and z.name == "h" and z.value == np.tanh(1.0)
    assert not y.is_leaf, "the cut in the graph stays"


@pytest.mark.parametrize("way", [copy.deepcopy, WAYS["pickle 2"]])
@pytest.mark.parametrize("kind", [lambda p: optim.Adam(p, lr=0.1), lambda p: optim.SGD(p, 0.1, momentum=0.9)])
def test_an_optimiser_that_is_copied_with_its_model_moves_the_copys_parameters(kind, way):
    def learn(model, optimiser, steps):
        for k in range(steps):
            optimiser.zero_grad()
            ((model["W"] * (k + 2) - 1) ** 2).sum().backward()
            optimiser.step()

    def made():
        model = {"W": Tensor(np.linspace(-1, 1, 5), requires_grad=True)}
        return model, kind(model)

    whole, optimiser = made()
    learn(whole, optimiser, 3)
    model, other = way((whole, optimiser))
    assert other.parameters[0] is model["W"] is not whole["W"]
    before = whole["W"].value.copy()
    learn(model, other, 4)
    np.testing.assert_array_equal(whole["W"].value, before)
    learn(whole, optimiser, 4)
    np.testing.assert_array_equal(whole["W"].value, model["W"].value)
    assert not np.array_equal(before, whole["W"].value)


# Compiled functions and their gradients.


def square(x):
    return (x * x).sum()


@compile
def cube(x):
    return (x * x * x).sum()


def test_a_compiled_function_that_bears_the_name_of_its_function_is_found_by_it():
    assert pickle.loads(pickle.dumps(cube)) is cube
    assert copy.deepcopy(cube).function is cube.function


@every_way
def test_a_copied_compiled_function_computes_the_same_with_the_same_options(way):
    first = compile(square, threads=2)
    first(np.ones(3))
    other = way(first)
    assert other is not first and (other.function, other.threads, other.last) == (square, 2, None)
    assert other(np.array([1.0, 2.0])).value == 5


@pytest.mark.parametrize("way", [copy.deepcopy, WAYS["pickle 5"]])
def test_a_compiled_method_is_copied_with_its_object(way):
    model = Counting()
    model.step = compile(model.loss)
    other = way(model)
    other.W.value = [3.0]
    assert other.step.function.__self__ is other
    assert model.step(np.ones(2)).value == 2 and other.step(np.ones(2)).value == 6


def test_a_compiled_lambda_copies_and_says_why_it_cannot_be_pickled():
    step = compile(lambda x: (x * 3).sum())
    assert copy.copy(step)(np.ones(2)).value == 6 and copy.deepcopy(step)(np.ones(2)).value == 6
    with pytest.raises(
        InputError, match=r"<lambda>.*cannot be found by its name.*compile a function of a module"
    ):
        pickle.dumps(step)


@pytest.mark.parametrize("way", [copy.deepcopy, WAYS["pickle 5"]])
@pytest.mark.parametrize("eager", [False, True])
def test_gradients_belong_to_the_tensors_that_are_copied_along(eager, way):
    a, b = Tensor([1.0, 2.0], requires_grad=True, name="a"), Tensor([3.0, 4.0], requires_grad=True, name="b")
    step = compile(lambda x: (x * a * 2 + x * b * 5).sum())
    if eager:
        with mg.anomaly():
            _, found = step.value_and_grad(np.ones(2))
    else:
        _, found = step.value_and_grad(np.ones(2))
        assert found[a].tolist() == [2, 2]
    (c, d), made = way(((a, b), found))
    assert made[c].tolist() == [2, 2] and made[d].tolist() == [5, 5] and len(made) == 2
    with pytest.raises(GraphError, match="no gradient for 'a'"):
        made[a]
    assert [t.name for t, _ in made.items()] == [t.name for t, _ in found.items()]


# Detached first states.


def stands(node, root):
    return any(n is node for n in mg.ancestors(root))


def test_a_detached_first_state_is_a_leaf_of_the_same_value_and_name_and_stays_the_same_tensor():
    W = Tensor(np.full((2, 2), 0.5), requires_grad=True)
    behind = mg.tanh(Tensor(np.ones((1, 2))) @ W).named("h")
    cut = behind.detach()
    assert stands(behind, cut.sum()), "a cut shows what lies behind it"
    seen = []
    cut.hook(lambda g: seen.append(g))
    end, _ = mg.scan(lambda h, x: (mg.tanh(h @ W + x), None), cut, np.ones((3, 1, 2)))
    assert cut.is_leaf and cut.name == "h" and stands(cut, end) and not stands(behind, end)
    np.testing.assert_array_equal(cut.value, behind.value)
    loss = end.sum()
    given = mg.grad(loss, cut).value
    assert given.any(), "the gradient with respect to the state that was given"
    loss.backward(record=True)
    np.testing.assert_array_equal(cut.grad, given)
    assert len(seen) == 2


def test_a_state_that_is_not_detached_keeps_its_graph():
    W = Tensor(np.full((2, 2), 0.5), requires_grad=True)
    first = mg.tanh(Tensor(np.ones((1, 2))) @ W)
    end, _ = mg.scan(lambda h, x: (mg.tanh(h @ W + x), None), first, np.ones((3, 1, 2)))
    assert not first.is_leaf and stands(first, end)
