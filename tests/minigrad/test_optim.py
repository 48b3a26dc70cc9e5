"""Optimisers, clipping and initial weights by themselves, and what they refuse; test_pytorch.py has the
comparison.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigrad import DTypeError, GraphError, InputError, NonFiniteError, ShapeError, Tensor, init, optim, tanh
from tests.interrupts import interrupted
from tests.optimisers import every_optimiser

pytestmark = pytest.mark.smoke
SHAPES = [(3, 4), (4,), ()]


def parameters(rng, dtype="float64"):
    return [
        Tensor(rng.standard_normal(s), requires_grad=True, name=f"p{k}", dtype=dtype)
        for k, s in enumerate(SHAPES)
    ]


@every_optimiser
def test_float32_stays_float32_in_values_and_slots(make, rng):
    ours = parameters(rng, "float32")
    optimiser = make(ours)
    for _ in range(3):
        optimiser.zero_grad()
        sum((tanh(p) * 2.0).sum() for p in ours).backward()
        optim.clip_by_norm(ours, 0.5)
        optimiser.step()
    slots = [
        a
        for value in vars(optimiser).values()
        if isinstance(value, list)
        for a in value
        if isinstance(a, np.ndarray)
    ]
    assert len(slots) == len(optimiser.slots) * len(ours)
    for array in [*slots, *(p.value for p in ours), *(p.grad for p in ours)]:
        assert array.dtype == "float32"
    for p in ours:
        assert not p.value.flags.writeable and p.is_leaf and p.requires_grad and type(p.value) is np.ndarray


@every_optimiser
def test_a_parameter_without_gradient_stays_and_others_move(make, rng):
    ours = parameters(rng)
    before = [p.value for p in ours]
    (ours[0] * ours[0]).sum().backward()
    make(ours).step()
    assert (ours[0].value != before[0]).all()
    for p, old in zip(ours[1:], before[1:], strict=True):
        np.testing.assert_array_equal(p.value, old)


@every_optimiser
def test_a_gradient_of_another_shape_is_named_and_nothing_moves(make, rng):
    ours = parameters(rng)
    before = [p.value for p in ours]
    optimiser = make(ours)
    ours[0].grad, ours[1].grad = np.ones((3, 4)), np.ones((2, 4))
    with pytest.raises(ShapeError, match=r"gradient of 'p1' \(4,\) float64 has shape \(2, 4\)"):
        optimiser.step()
    assert all(p.value is old for p, old in zip(ours, before, strict=True))


def test_a_step_leaves_the_old_array_to_whoever_holds_it(rng):
    (p,) = parameters(rng)[:1]
    held, kept = p.value, p.value.copy()
    (p * p).sum().backward()
    optim.SGD([p]).step()
    np.testing.assert_array_equal(held, kept)
    assert p.value is not held


@every_optimiser
def test_every_optimiser_finds_the_minimum_of_a_bowl(make, rng):
    (p,) = parameters(rng)[:1]
    optimiser = make({"p": p})
    first = float((p.value**2).sum())
    for _ in range(200):
        optimiser.zero_grad()
        (p * p).sum().backward()
        optimiser.step()
    assert float((p.value**2).sum()) < 1e-3 * first


WRONG = {
    "no parameters": (lambda p: optim.SGD([]), InputError, "no parameters"),
    "learning rate zero": (
        lambda p: optim.Adam([p], lr=0),
        InputError,
        "learning rate is 0; give a positive number",
    ),
    "learning rate not a number": (
        lambda p: optim.Adam([p], lr=math.nan),
        InputError,
        "learning rate is nan",
    ),
    "momentum of one": (
        lambda p: optim.SGD([p], momentum=1),
        InputError,
        r"momentum is 1; give a number in \[0, 1\)",
    ),
    "betas": (lambda p: optim.Adam([p], betas=(0.9, 1.0)), InputError, r"betas is \(0\.9, 1\.0\); give two"),
    "weight decay": (
        lambda p: optim.Adam([p], weight_decay=-1),
        InputError,
        "weight_decay is -1; give a number not below 0",
    ),
    "a number": (lambda p: optim.SGD(0.1), InputError, "given float; give a dict or a list of parameters"),
    "an array": (lambda p: optim.SGD([p.value]), InputError, "is not a parameter; give leaves"),
    "a computed tensor": (lambda p: optim.SGD([p * 2]), InputError, "is not a parameter; give leaves"),
    "whole numbers": (lambda p: optim.SGD([Tensor([1, 2])]), InputError, "is not a parameter"),
    "no gradient wanted": (lambda p: optim.SGD([Tensor([1.0])]), InputError, r"requires_grad=True"),
    "the same twice": (lambda p: optim.Adam([p, p]), InputError, "twice"),
    "limit below zero": (
        lambda p: optim.clip_by_norm([p], -1.0),
        InputError,
        r"limit is -1\.0; give a positive",
    ),
    "limit not a number": (lambda p: optim.clip_by_norm([p], math.nan), InputError, "limit is nan"),
    "no gradients": (lambda p: optim.SGD([p]).step(), GraphError, r"call loss\.backward\(\) first"),
}


@pytest.mark.parametrize(("call", "kind", "words"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused_with_the_remedy(call, kind, words, rng):
    with pytest.raises(kind, match=words):
        call(parameters(rng)[0])


# Gradients that come rarely, are huge, or of another kind.


def adam(gradients, lr=0.02, betas=(0.9, 0.999), epsilon=1e-8):
    """Adam by the paper, in Python's numbers, for one parameter that starts at 0: its value after each gradient."""
    value, m, v, found = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        value -= lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + epsilon)
        found.append(value)
    return found


def test_a_gradient_that_comes_rarely_is_corrected_by_its_own_count():
    often, rare = (Tensor(0.0, requires_grad=True, name=n) for n in ("often", "rare"))
    optimiser, given = optim.Adam([often, rare], lr=0.02), [0.3, -2.0, 0.7]
    expected = adam(given)
    for step in range(30):
        optimiser.zero_grad()
        often.grad = np.array(1.0)
        if step % 10 == 9:
            rare.grad = np.array(given[step // 10])
        before = rare.value
        optimiser.step()
        if step % 10 == 9:
            assert rare.item() == pytest.approx(expected[step // 10], rel=1e-12)
        else:
            assert rare.value is before
    assert often.item() == pytest.approx(adam([1.0] * 30)[-1], rel=1e-12)
    assert optimiser.steps == 30 and optimiser.counts == [30, 3]


HUGE = {"float32": [1e19, 2e19, 1e20, 3e38], "float64": [1e155, 1e308], "float16": [200.0, 300.0, 6e4]}


@pytest.mark.parametrize(("dtype", "huge"), [(d, g) for d, gradients in HUGE.items() for g in gradients])
def test_one_huge_gradient_leaves_adam_finite_and_moving(dtype, huge):
    epsilon = 1e-8 if dtype != "float16" else 1e-3
    p = Tensor(np.zeros(3), requires_grad=True, dtype=dtype)
    optimiser = optim.Adam([p], lr=0.02, epsilon=epsilon)
    given = [huge, 1.0, -1.0, 1.0, huge, 1.0]
    # In units of a huge gradient a small one is nothing, and Python's numbers hold the squares.
    expected = adam([g / huge if g == huge else 0.0 for g in given], epsilon=0.0)
    moved = []
    for g in given:
        p.grad = np.array([g, 1.0, 0.0], dtype)
        before = p.value
        optimiser.step()
        moved.append(float(p.value[0] - before[0]))
    if dtype != "float16":
        assert p.value[0] == pytest.approx(expected[-1], rel=1e-5)
        assert p.value[1] == pytest.approx(adam([1.0] * 6)[-1], rel=1e-5)
    assert all(moved) and p.value[2] == 0
    for slot in (optimiser.first, optimiser.second):
        assert np.isfinite(slot[0]).all() and slot[0].dtype == dtype


def test_a_velocity_stays_finite_and_comes_back():
    p = Tensor(np.zeros(2), requires_grad=True, dtype="float32")
    optimiser = optim.SGD([p], lr=1e-3, momentum=0.9)
    for _ in range(20):
        p.grad = np.array([3e38, -3e38], "float32")
        optimiser.step()
        assert np.isfinite(optimiser.velocity[0]).all() and np.isfinite(p.value).all()
    for _ in range(1000):
        p.grad = np.ones(2, "float32")
        optimiser.step()
    np.testing.assert_allclose(optimiser.velocity[0], 10, rtol=1e-5)


@every_optimiser
def test_gradients_of_another_dtype_or_order_leave_values_and_slots_as_they_were(make, rng):
    ours, same = parameters(rng, "float32"), parameters(np.random.default_rng(2024), "float32")
    one, two = make(ours), make(same)
    for _ in range(3):
        for p, q in zip(ours, same, strict=True):
            q.grad = rng.standard_normal(p.shape).astype("float32")
            p.grad = np.asarray(q.grad, "float64", order="F")
        one.step()
        two.step()
    for p, q in zip(ours, same, strict=True):
        assert p.dtype == "float32" and p.value.flags.c_contiguous and p.value.tobytes() == q.value.tobytes()


# A step is whole.


def image(ours, optimiser) -> tuple:
    """All that a step changes, as bytes."""
    return tuple(p.value.tobytes() for p in ours) + tuple(
        a.tobytes() for a in optimiser.state_dict().values()
    )


@every_optimiser
@pytest.mark.parametrize("rarely", [False, True])
def test_ctrl_c_at_any_instruction_leaves_the_old_step_or_the_new(make, rarely, rng):
    ours = parameters(rng)[1:]
    optimiser, seen = make(ours), set()
    gradients = [rng.standard_normal(p.shape) for p in ours]
    if rarely:
        gradients[0] = None

    def step():
        for p, g in zip(ours, gradients, strict=True):
            p.grad = g
        optimiser.step()

    step()
    start, state = [p.value for p in ours], optimiser.state_dict()
    old = image(ours, optimiser)
    step()
    new = image(ours, optimiser)
    for after in range(100_000):
        optimiser.load_state_dict(state)
        for p, value in zip(ours, start, strict=True):
            p.value = value
        if not interrupted(step, after, optim):
            break
        assert image(ours, optimiser) in (old, new), after
        seen.add(image(ours, optimiser))
        step()  # and what follows is a step from there
        assert image(ours, optimiser) != old
    assert after > 100 and old in seen and image(ours, optimiser) == new


@every_optimiser
def test_an_error_in_the_middle_leaves_the_old_step(make, rng, monkeypatch):
    ours = parameters(rng)
    optimiser = make(ours)
    for p in ours:
        p.grad = np.ones(p.shape)
    optimiser.step()
    old, moved, calls = image(ours, optimiser), type(optimiser).moved, []

    def fails(*given):
        calls.append(given)
        if len(calls) == len(ours):
            raise MemoryError
        return moved(*given)

    with monkeypatch.context() as patch:
        patch.setattr(type(optimiser), "moved", staticmethod(fails))
        with pytest.raises(MemoryError):
            optimiser.step()
    assert image(ours, optimiser) == old


STEPS = """
import signal, sys; sys.path.insert(0, {source!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without
import numpy as np
from minigrad import Tensor, optim
ours = [Tensor(np.zeros(3), requires_grad=True) for _ in range(100)]
optimiser = optim.Adam(ours, lr=1e-3)
for p in ours:
    p.grad = np.arange(1.0, 4.0)
whole = True
while True:
    try:
        print(whole, flush=True)  # and then comes the signal
        while True:
            optimiser.step()
    except KeyboardInterrupt:
        whole = set(optimiser.counts) == {{optimiser.steps}} and all(
            (p.value == ours[0].value).all() and (m == optimiser.first[0]).all() and (v == optimiser.second[0]).all()
            for p, m, v in zip(ours, optimiser.first, optimiser.second)
        )
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_hundred_interrupts_of_a_process_that_steps_all_leave_it_whole():
    program = STEPS.format(source=str(Path(optim.__file__).resolve().parents[1]))
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with child:
        child.stdout.readline()
        rng, whole = np.random.default_rng(0), []
        for _ in range(100):
            time.sleep(rng.uniform(0, 0.004))
            child.send_signal(signal.SIGINT)
            whole.append(child.stdout.readline().strip())
        child.kill()
    assert whole == ["True"] * 100


# The state.


@every_optimiser
def test_a_state_put_back_into_another_optimiser_goes_on_to_the_same_bits(make, rng):
    ours, theirs = parameters(rng, "float32"), parameters(rng, "float32")
    one, two = make(ours), make(theirs)
    for k in range(6):
        if k == 3:
            state = one.state_dict()
            for p, q in zip(ours, theirs, strict=True):
                q.value = p.value
            one.lr = 0.3  # the options are in the state too
            two.load_state_dict(state)
            one.load_state_dict(state)
            assert one.lr == two.lr != 0.3
        for p, q in zip(ours, theirs, strict=True):
            p.grad = q.grad = (
                None if k % 2 and p.ndim == 1 else rng.standard_normal(p.shape).astype("float32")
            )
        one.step()
        if k >= 3:
            two.step()
    assert image(ours, one) == image(theirs, two)


def test_a_state_is_a_copy_and_knows_parameters_by_key_name_or_position(rng):
    def named(**names):
        return {key: Tensor(np.ones(2), requires_grad=True, name=name) for key, name in names.items()}

    def labels(given):
        optimiser = optim.SGD(given, momentum=0.5)
        return [n.removeprefix("SGD.velocity.") for n in optimiser.state_dict() if ".velocity." in n]

    assert labels(named(x="W", y="W")) == ["x", "y"]
    assert labels(list(named(x="W", y="b").values())) == ["W", "b"]
    assert labels(list(named(x="W", y="W").values())) == ["0", "1"]
    assert labels(named(x="W", y=None).values()) == ["0", "1"]
    assert labels({1: Tensor([1.0], requires_grad=True), "1": Tensor([1.0], requires_grad=True)}) == [
        "0",
        "1",
    ]
    a, b = named(x="W", y="b").values()
    one, two = optim.SGD([a, b], momentum=0.5), optim.SGD([b, a], momentum=0.5)
    a.grad, b.grad = np.full(2, 1.0), np.full(2, 2.0)
    one.step()
    b.grad = None
    one.step()
    state = one.state_dict()
    two.load_state_dict(state)
    assert two.velocity[0].tolist() == [2, 2] and two.velocity[1].tolist() == [1.5, 1.5]
    assert two.counts == [1, 2] and two.steps == 2
    one.step()
    one.step()
    assert state["SGD.velocity.W"].tolist() == [1.5, 1.5] and state["SGD.steps"] == 2


def changed(state: dict, **changes) -> dict:
    return {n: a for n, a in (state | changes).items() if a is not None}


STATUSES = {
    "missing": (
        lambda s: changed(s, **{"Adam.first.p1": None}),
        InputError,
        "missing 'Adam.first.p1'; surplus none",
    ),
    "surplus": (lambda s: changed(s, extra=np.ones(2)), InputError, "missing none; surplus 'extra'"),
    "shape": (
        lambda s: changed(s, **{"Adam.second.p1": np.ones((2, 2))}),
        ShapeError,
        r"'Adam.second.p1' has shape \(2, 2\), not \(4,\)",
    ),
    "dtype": (
        lambda s: changed(s, **{"Adam.first.p0": np.ones((3, 4), "float32")}),
        DTypeError,
        "'Adam.first.p0' is float32, not float64",
    ),
    "options": (lambda s: changed(s, **{"Adam.betas": np.ones(3)}), ShapeError, "'Adam.betas' has shape"),
    "numbers": (
        lambda s: changed(s, **{"Adam.lr": [[1], [1, 2]]}),
        InputError,
        "'Adam.lr' is not a numeric array",
    ),
    "nothing": (lambda s: {}, InputError, r"missing 'Adam.steps'.* and \d+ more; surplus none"),
    "a list": (lambda s: [s], InputError, "give a dict of arrays by name, not list"),
}


@pytest.mark.parametrize(("change", "kind", "words"), STATUSES.values(), ids=STATUSES)
def test_a_state_that_does_not_fit_is_named_and_changes_nothing(change, kind, words, rng):
    ours = parameters(rng)
    optimiser = optim.Adam(ours)
    for p in ours:
        p.grad = rng.standard_normal(p.shape)
    optimiser.step()
    before = image(ours, optimiser)
    with pytest.raises(kind, match=f"Adam.load_state_dict: .*{words}"):
        optimiser.load_state_dict(change(optimiser.state_dict()))
    assert image(ours, optimiser) == before


@every_optimiser
def test_a_copy_of_an_optimiser_has_slots_and_counts_of_its_own(make, rng):
    ours = parameters(rng)
    optimiser = make(ours)
    for p in ours:
        p.grad = rng.standard_normal(p.shape)
    optimiser.step()
    other = copy.copy(optimiser)
    before = [a.tobytes() for a in other.state_dict().values()]
    for _ in range(3):
        optimiser.step()
    assert [a.tobytes() for a in other.state_dict().values()] == before
    assert other.parameters[0] is ours[0]


# Clipping.


def test_clipping_keeps_directions_and_what_is_below_the_limit(rng):
    ours = parameters(rng)
    ours[0].grad, ours[1].grad = np.full((3, 4), 3.0), np.full(4, -4.0)
    norm = optim.clip_by_norm(ours, 1.0)
    assert norm == pytest.approx(math.sqrt(12 * 9 + 4 * 16), rel=1e-14)
    np.testing.assert_allclose(ours[0].grad, np.full((3, 4), 3 / norm), rtol=1e-14)
    assert optim.clip_by_norm(ours, 5.0) == pytest.approx(1.0, rel=1e-14) and ours[2].grad is None
    np.testing.assert_allclose(ours[1].grad, np.full(4, -4 / norm), rtol=1e-14)


def test_clipping_large_float32_gradients_does_not_overflow():
    p = Tensor(np.ones(4, "float32"), requires_grad=True)
    p.grad = np.full(4, 1e25, "float32")
    assert optim.clip_by_norm([p], 1.0) == pytest.approx(2e25, rel=1e-6)
    np.testing.assert_allclose(p.grad, np.full(4, 0.5), rtol=1e-6)


SIZES = {
    "float16": [1e-7, 1e-3, 3e4],
    "float32": [1e-44, 1e-30, 1e-6, 1e25, 1e38],
    "float64": [1e-320, 1e-200, 1e-30, 1e25, 1e160, 8e307],
}


@pytest.mark.parametrize(
    ("dtype", "size"), [(dtype, size) for dtype, sizes in SIZES.items() for size in sizes]
)
def test_clipping_works_for_all_sizes_of_numbers(dtype, size):
    ours = [Tensor(np.ones(n), requires_grad=True, dtype=dtype) for n in (3, 1)]
    for limit in (10 * size, size, 1.0):
        for p in ours:
            p.grad = np.full(p.shape, size, dtype)
        exact = float(ours[0].grad[0])
        assert optim.clip_by_norm(ours, limit) == pytest.approx(
            2 * exact, rel=1e-3 if dtype == "float16" else 1e-6
        )
        expected = np.full(3, min(exact, limit / 2)).astype(dtype)
        close = dict(rtol=2 * np.finfo(dtype).eps, atol=2 * np.finfo(dtype).smallest_subnormal)
        np.testing.assert_allclose(ours[0].grad, expected, **close)
        assert ours[0].grad.dtype == dtype


def test_clipping_gradients_of_zeros_leaves_them():
    p = Tensor(np.ones(3), requires_grad=True)
    p.grad = np.zeros(3)
    assert optim.clip_by_norm([p], 1.0) == 0 and not p.grad.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_names_a_gradient_that_is_not_finite_and_changes_none(bad, rng):
    ours = parameters(rng)
    ours[0].grad, ours[1].grad = np.full((3, 4), 3.0), np.array([0, 0, bad, 0])
    with pytest.raises(NonFiniteError, match=r"gradient of 'p1' .* is not finite"):
        optim.clip_by_norm(ours, 1.0)
    np.testing.assert_array_equal(ours[0].grad, np.full((3, 4), 3.0))


# Initial weights.

INITIALISERS = {
    "zeros": init.zeros,
    "uniform": init.uniform,
    "glorot": init.glorot,
    "orthogonal": init.orthogonal,
}


@pytest.mark.parametrize("draw", INITIALISERS.values(), ids=INITIALISERS)
def test_the_same_seed_draws_the_same_weights(draw):
    first, again, other = (draw(np.random.default_rng(seed), (5, 3)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert draw is init.zeros or (first != other).any()
    assert first.shape == (5, 3) and first.dtype == "float32"
    assert draw(np.random.default_rng(1), (5, 3), "float64").dtype == "float64"


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6), (1, 5)])
def test_orthogonal_weights_are_orthonormal(shape, rng):
    weights = init.orthogonal(rng, shape, "float64", gain=2.0)
    small = weights if shape[0] <= shape[1] else weights.T
    np.testing.assert_allclose(small @ small.T, 4 * np.eye(min(shape)), atol=1e-14)


def test_uniform_weights_stay_within_and_fill_their_bounds(rng):
    for draw, bound in (
        (init.uniform(rng, (100, 50)), 0.1),
        (init.uniform(rng, (100, 50), bound=0.25), 0.25),
        (init.glorot(rng, (100, 50)), 0.2),
    ):
        assert (
            abs(draw).max() <= np.float32(bound)
            and abs(draw).max() > 0.99 * bound
            and abs(draw.mean()) < 0.05 * bound
        )
    assert not init.zeros(rng, (3, 2)).any()


@pytest.mark.parametrize("draw", [init.uniform, init.glorot, init.orthogonal])
def test_a_seed_in_place_of_a_generator_is_refused(draw):
    with pytest.raises(InputError, match=r"numpy\.random\.default_rng\(seed\), not 7"):
        draw(7, (2, 2))
