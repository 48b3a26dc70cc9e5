"""A training step in one call against loss, clipping and optimiser one after the other."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import cells
import minigrad as mg
from minigrad import InputError, NonFiniteError, Tensor, optim
from minigrad.compiler import TrainingStep
from minigrad.compiler import step as step_module
from tests.interrupts import interrupted
from tests.optimisers import every_optimiser, every_row

T, N, D, H = 3, 2, 4, 5


def network(seed=0, dtype="float64"):
    """A loss of a batch, and the parameters that it depends on."""
    rng = np.random.default_rng(seed)
    cell, output = cells.LSTM(D, H, rng, dtype), cells.Output(H, D, rng, dtype)

    def loss(x, targets):
        return mg.cross_entropy(cells.run(cell, x, output=output).y, targets)

    return loss, {**cell.parameters(), **output.parameters()}


def batches(count, dtype="float64", length=T):
    rng = np.random.default_rng(1)
    return [
        (rng.standard_normal((length, N, D)).astype(dtype), rng.integers(0, D, (length, N)))
        for _ in range(count)
    ]


def one_by_one(loss, optimiser, batch, clip, clip_value=None):
    """The same step in its parts."""
    optimiser.zero_grad()
    value = loss.backward(*batch)
    if clip_value is not None:
        optim.clip_grad_value(optimiser.parameters, clip_value)
    norm = optim.clip_grad_norm(optimiser.parameters, np.inf if clip is None else clip)
    optimiser.step()
    return value.item(), norm


def image(optimiser) -> tuple:
    return tuple(p.value.tobytes() for p in optimiser.parameters) + tuple(
        a.tobytes() for a in optimiser.state_dict().values()
    )


def assert_alike(one, two, dtype="float64"):
    tolerance = dict(rtol=1e-9, atol=1e-12) if dtype == "float64" else dict(rtol=2e-3, atol=2e-5)
    for p, q in zip(one.parameters, two.parameters, strict=True):
        np.testing.assert_allclose(p.value, q.value, **tolerance)
        assert p.dtype == dtype and type(p.value) is np.ndarray and not p.value.flags.writeable
    ours, theirs = one.state_dict(), two.state_dict()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], **tolerance, err_msg=name)


@every_optimiser
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip", [None, 0.2, 1e9])
@pytest.mark.as_shipped
def test_it_is_loss_clipping_and_optimiser_one_after_the_other(make, dtype, clip):
    (f, p), (g, q) = network(dtype=dtype), network(dtype=dtype)
    one, two = make(p), make(q)
    step, compiled = TrainingStep(f, one, clip), mg.compile(g)
    for batch in batches(8, dtype):
        value = step(*batch)
        expected, norm = one_by_one(compiled, two, batch, clip)
        assert value.item() == pytest.approx(expected, rel=1e-9 if dtype == "float64" else 1e-4)
        assert step.norm == pytest.approx(norm, rel=1e-9 if dtype == "float64" else 1e-3)
        assert all(x.grad is None for x in p.values())
    assert step.now is not None and one.counts == two.counts == [8] * len(p) and one.steps == 8
    assert_alike(one, two, dtype)


@pytest.mark.oracle
@every_row
def test_twenty_five_compiled_steps_equal_pytorchs(row):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    f, p = network()
    optimiser = row.make(p)
    copies = [torch.tensor(x.value, requires_grad=True) for x in optimiser.parameters]
    oracle, step, gradients = row.theirs(torch, copies), TrainingStep(f, optimiser), mg.compile(f)
    for batch in batches(25):
        found = gradients.value_and_grad(*batch)[1]
        for x, their in zip(optimiser.parameters, copies, strict=True):
            their.grad = torch.tensor(found[x])
        step(*batch)
        oracle.step()
        for x, their in zip(optimiser.parameters, copies, strict=True):
            np.testing.assert_allclose(x.value, their.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_elements_are_clipped_before_the_norm(clip):
    (f, p), (g, q) = network(), network()
    one, two = optim.SGD(p, lr=0.5), optim.SGD(q, lr=0.5)
    step, compiled = mg.training_step(f, one, clip=clip, clip_value=0.01), mg.compile(g)
    free = mg.training_step(*(lambda f, p: (f, optim.SGD(p, lr=0.5)))(*network()))
    for batch in batches(6):
        step(*batch)
        free(*batch)
        _, norm = one_by_one(compiled, two, batch, clip, 0.01)
        assert step.norm == pytest.approx(norm, rel=1e-9)
        assert step.norm < 0.9 * free.norm
    assert step.now is not None
    assert_alike(one, two)


@every_optimiser
@pytest.mark.parametrize("lengths", [(T, T, T), (T, T + 1, T), (T,)])
def test_a_step_of_several_batches_is_that_of_their_mean_gradient(make, lengths):
    (f, p), (g, q) = network(), network()
    one, two = make(p), make(q)
    step, compiled = TrainingStep(f, one, 0.5), mg.compile(g)
    for _ in range(4):
        total, sums = None, {}
        for k, length in enumerate(lengths, 1):
            (batch,) = batches(1, length=length)
            step.compute(*batch)
            total = step.average(total, len(lengths) if k == len(lengths) else None)
            gradients = compiled.value_and_grad(*batch)[1]
            sums = {x.number: sums.get(x.number, 0) + gradients[x] for x in two.parameters}
        step.move()
        for x in two.parameters:
            x.grad = sums[x.number] / len(lengths)
        optim.clip_by_norm(two.parameters, 0.5)
        two.step()
    assert_alike(one, two)


def test_a_step_of_several_batches_where_parameters_have_no_gradient_in_some():
    W, V = (
        Tensor(np.full(2, value), requires_grad=True, name=name) for name, value in (("W", 1.0), ("V", 3.0))
    )
    step = TrainingStep(
        lambda x: (W * x["w"]).sum() if "w" in x else (V * x["v"]).sum(), optim.SGD([W, V], lr=1.0)
    )
    step.compute({"w": np.array([1.0, 2.0])})
    total = step.average(None)
    step.compute({"v": np.array([4.0, 6.0])})
    step.average(total, 2)
    step.move()
    np.testing.assert_allclose(W.value, [0.5, 0.0])
    np.testing.assert_allclose(V.value, [1.0, 0.0])


def test_the_rule_is_compiled_once_for_all_networks_and_sizes():
    made = []
    for seed, hidden in ((0, 3), (1, 6)):
        rng = np.random.default_rng(seed)
        cell = cells.GRU(D, hidden, rng)
        step = TrainingStep(
            lambda x, cell=cell: (cells.run(cell, x).h ** 2).sum(), optim.Adam(cell.parameters())
        )
        step(batches(1, "float32")[0][0])
        made.append((step_module.rule_of(step.optimiser), step.rule.plan.module))
    assert made[0] == made[1]


@every_optimiser
def test_what_somebody_holds_is_never_written_over(make):
    f, p = network()
    optimiser = make(p)
    step, held = TrainingStep(f, optimiser, 1.0), []
    for k, batch in enumerate(batches(8)):
        step(*batch)
        if k % 3 == 0:
            arrays = [
                next(iter(p.values())).value,
                *[getattr(optimiser, name)[1] for name in optimiser.slots],
            ]
            held += [(a, a.copy()) for a in arrays]
        if k == 4:
            held.append((step.now.views[2][0], step.now.views[2][0].copy()))  # a view of a view
    for array, as_it_was in held:
        np.testing.assert_array_equal(array, as_it_was)


def test_memory_is_used_again_where_nobody_holds_it():
    f, p = network()
    step = TrainingStep(f, optim.Adam(p), 1.0)
    states = []
    for batch in batches(10):
        step(*batch)
        states.append(id(step.now))
    assert len({*states[2:]}) == 2


@every_optimiser
def test_what_is_assigned_in_between_counts(make):
    (f, p), (g, q) = network(), network()
    one, two = make(p), make(q)
    step, compiled = TrainingStep(f, one, 0.5), mg.compile(g)
    kept = None
    for k, batch in enumerate(batches(12)):
        if k == 3:
            for x in (p["W_f"], q["W_f"]):
                x.value = x.value * 0.5
        if k == 5:
            kept = one.state_dict()
        if k == 8:
            one.load_state_dict(kept)
            two.load_state_dict(kept)
        if k == 9:
            one.lr = two.lr = 0.007
        if k == 10:
            for o in (one, two):  # between whole steps, one of the other kind
                o.zero_grad()
                for x in o.parameters[:3]:
                    x.grad = np.full(x.shape, 0.3)
                o.step()
        step(*batch)
        one_by_one(compiled, two, batch, 0.5)
    assert_alike(one, two)


def test_batches_of_other_sizes_and_threads():
    (f, p), (g, q) = network(), network()
    one, two = optim.Adam(p), optim.Adam(q)
    step, compiled = TrainingStep(mg.compile(f, threads=2), one, 1.0), mg.compile(g)
    for length in (3, 5, 3, 1, 5):
        for batch in batches(2, length=length):
            step(*batch)
            one_by_one(compiled, two, batch, 1.0)
    assert_alike(one, two)


# What does not fit.


class Rule(optim.Optimiser):
    """A rule of one's own: signs of a mean."""

    slots = ("mean",)

    def __init__(self, parameters, lr=0.01):
        super().__init__(parameters, lr)
        self.mean = [np.zeros_like(p.value) for p in self.parameters]

    def numbers(self, count):
        return self.lr / count, 0.9

    @staticmethod
    def moved(xp, value, gradient, slots, numbers):
        rate, keep = numbers
        mean = keep * slots[0] + gradient
        return value - rate * xp.tanh(mean), (mean,)


class Own:
    """No optimiser of the library's at all."""

    def __init__(self, parameters):
        self.parameters, self.lr, self.steps, self.counts = list(parameters.values()), 0.1, 0, [0]

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None

    def step(self):
        for p in self.parameters:
            p.value = p.value - 0.1 * np.sign(p.grad)
        self.steps += 1


class Loud(optim.SGD):
    def step(self):
        self.heard = getattr(self, "heard", 0) + 1
        super().step()


@pytest.mark.parametrize(("make", "whole"), [(Rule, True), (Own, False), (Loud, False)])
def test_an_optimiser_of_ones_own(make, whole):
    (f, p), (g, q) = network(), network()
    one, two = make(p), make(q)
    step, compiled = TrainingStep(f, one, 0.3), mg.compile(g)
    for batch in batches(4):
        step(*batch)
        one_by_one(compiled, two, batch, 0.3)
    assert (step.now is not None) == whole and getattr(one, "heard", 4) == 4
    for x, y in zip(one.parameters, two.parameters, strict=True):
        np.testing.assert_allclose(x.value, y.value, rtol=1e-9, atol=1e-12)


def test_a_rule_that_cannot_be_compiled_is_named_and_works():
    class Sorted(Rule):
        @staticmethod
        def moved(xp, value, gradient, slots, numbers):
            return value - numbers[0] * gradient * float(np.median(np.asarray(gradient)) > 0), slots

    f, p = network()
    step = TrainingStep(f, Sorted(p), 1.0)
    with pytest.warns(UserWarning, match="Sorted moves one parameter after the other: "):
        step(*batches(1)[0])
    step(*batches(1)[0])
    assert step.optimiser.counts == [2] * len(p) and not step.whole


def test_parameters_without_gradient_and_counts_that_differ():
    def made():
        f, p = network()
        return f, {**p, "unused": Tensor(np.ones(3), requires_grad=True)}

    (f, p), (g, q) = made(), made()
    one, two = optim.Adam(p), optim.Adam(q)
    step, compiled = TrainingStep(f, one, 0.5), mg.compile(g)
    for batch in batches(3):
        step(*batch)
        one_by_one(compiled, two, batch, 0.5)
    assert one.counts == [*[3] * (len(p) - 1), 0]
    assert_alike(one, two)


def test_parameters_of_two_dtypes():
    rng = np.random.default_rng(0)
    W = Tensor(rng.standard_normal((D, H)).astype("float32"), requires_grad=True, name="W")
    v = Tensor(rng.standard_normal(H), requires_grad=True, name="v")
    optimiser = optim.Adam({"W": W, "v": v})
    step = TrainingStep(lambda x: ((mg.tanh(x @ W).astype("float64") * v) ** 2).sum(), optimiser, 1.0)
    before = W.value, v.value
    for _ in range(3):
        step(rng.standard_normal((N, D)).astype("float32"))
    assert (
        W.dtype == "float32"
        and v.dtype == "float64"
        and (W.value != before[0]).all()
        and (v.value != before[1]).all()
    )


def test_more_that_learns_than_the_optimiser_moves():
    f, p = network()
    some = {name: p[name] for name in ("W_f", "b_f")}
    kept = p["W_i"].value
    step = TrainingStep(f, optim.Adam(some), 1.0)
    for batch in batches(2):
        step(*batch)
    assert p["W_i"].value is kept and p["W_i"].grad is None and step.optimiser.counts == [2, 2]


def test_a_loss_that_runs_eagerly():
    W = Tensor(np.ones((D, H)), requires_grad=True, name="W")
    step = TrainingStep(
        lambda x: ((x @ W) * float(np.asarray(x.value).shape[0])).sum(), optim.SGD({"W": W}), 1.0
    )
    with pytest.warns(UserWarning, match="runs eagerly"):
        step(np.ones((N, D)))
    assert (W.value != 1).all() and step.norm > 1


@pytest.mark.parametrize(("kinds", "whole"), [(3, True), (4, True), (6, False)])
def test_parameters_that_joined_later_or_are_in_groups_are_moved_by_a_run_for_each_kind(kinds, whole):
    (f, p), (g, q) = network(), network()
    groups = {"W_*": dict(lr=0.05), "b_[fi]": dict(betas=(0.5, 0.9))}
    one, two = optim.AdamW(p, 0.02, groups=groups), optim.AdamW(q, 0.02, groups=groups)
    late = [k for k, name in enumerate(p) if name in ("b_o", "W_o")[: kinds - 3]]
    if kinds == 6:
        late.append(list(p).index("b_f"))
    for optimiser in (one, two):  # steps in which these had no gradient
        for k, x in enumerate(optimiser.parameters):
            x.grad = None if k in late[:1] + late[2:] else np.full(x.shape, 0.1)
        optimiser.step()
        for k, x in enumerate(optimiser.parameters):
            x.grad = None if k in late[1:] else np.full(x.shape, -0.2)
        optimiser.step()
    step, compiled = TrainingStep(f, one, 0.3), mg.compile(g)
    assert len(step._kinds()) == kinds
    for batch in batches(5):
        step(*batch)
        one_by_one(compiled, two, batch, 0.3)
    assert (step.now is not None) == whole and one.counts == two.counts
    assert_alike(one, two)


# Numbers that are none, and those that are too large for their squares.


def squares(start):
    p = Tensor(np.array(start, "float32"), requires_grad=True, name="p")
    return p, lambda scale: (p * scale).sum()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_named_and_moves_nothing(bad):
    p, loss = squares([1.0, 2.0])
    step = TrainingStep(loss, optim.Adam({"p": p}), 1.0)
    step(np.float32(2.0))
    before, state = p.value, image(step.optimiser)
    with pytest.raises(NonFiniteError, match="gradient of 'p'"), np.errstate(all="ignore"):
        step(np.float32(bad))
    assert p.value is before and image(step.optimiser) == state and p.grad is None
    step(np.float32(2.0))
    assert step.optimiser.counts == [2]


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20, 1e20, 3e38])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_gradients_of_every_size(size, clip):
    (p, f), (q, g) = squares([1.0, 2.0, 3.0]), squares([1.0, 2.0, 3.0])
    one, two = optim.Adam({"p": p}), optim.Adam({"p": q})
    step, compiled = TrainingStep(f, one, clip), mg.compile(g)
    for scale in (1.0, size, 0.5):
        step(np.float32(scale))
        _, norm = one_by_one(compiled, two, (np.float32(scale),), clip)
        assert step.norm == pytest.approx(norm, rel=1e-5, abs=0)
    assert np.isfinite(p.value).all()
    assert_alike(one, two, "float32")


def test_what_makes_no_sense_is_refused():
    f, p = network()
    with pytest.raises(InputError, match="clip_grad_value: the limit is -1"):
        mg.training_step(f, optim.SGD(p), clip_value=-1)
    with pytest.raises(InputError, match="the limit is 0"):
        TrainingStep(f, optim.SGD(p), 0)
    with pytest.raises(InputError, match="the limit is nan"):
        mg.training_step(f, optim.SGD(p), clip=float("nan"))


# A step is whole.


@every_optimiser
def test_ctrl_c_at_any_instruction_leaves_the_old_step_or_the_new(make):
    f, p = network()
    optimiser = make(p)
    step, batch = TrainingStep(f, optimiser, 0.3), batches(1)[0]
    step(*batch)
    step(*batch)
    start, state, old = {n: x.value for n, x in p.items()}, optimiser.state_dict(), image(optimiser)
    step(*batch)
    new, seen = image(optimiser), set()
    for after in range(0, 100_000, 3):
        optimiser.load_state_dict(state)
        for name, value in start.items():
            p[name].value = value
        if not interrupted(lambda: step(*batch), after, step_module, optim):
            break
        assert image(optimiser) in (old, new), after
        seen.add(image(optimiser))
        step(*batch)  # and what follows is a step from there
        assert image(optimiser) != old
    assert after > 300 and old in seen and image(optimiser) == new


def test_a_copy_of_the_optimiser_has_slots_of_its_own():
    f, p = network()
    step = TrainingStep(f, optim.Adam(p), 1.0)
    for batch in batches(3):
        step(*batch)
    other = copy.copy(step.optimiser)
    before = [a.tobytes() for a in other.state_dict().values()]
    for batch in batches(3):
        step(*batch)
    assert [a.tobytes() for a in other.state_dict().values()] == before


RATES = Tensor(np.linspace(0.4, 0.1, 4), name="rates")


class Looked(optim.SGD):
    """Its rate is looked up in a table by the size of the gradient."""

    @staticmethod
    def moved(xp, value, gradient, slots, numbers):
        if xp is np:
            return value - RATES.value[np.floor(np.abs(gradient)).astype("int64")] * gradient, slots
        return value - RATES[mg.floor(mg.abs(gradient)).astype("int64")] * gradient, slots


def test_a_rule_that_reads_a_table():
    p = {
        name: Tensor(np.ones(shape), requires_grad=True, name=name)
        for name, shape in (("v", 2), ("w", (2, 3)))
    }
    step = mg.training_step(lambda x: (p["w"] * x).sum() + p["v"].sum(), Looked([*p.values()], lr=1.0))
    x = np.array([[0.5, 1.5, 2.5], [3.5, -1.5, 0.0]])
    for turn in (1, 2):
        step(x)
        rates = RATES.value[np.abs(x).astype(int)]
        assert step.now is not None
        np.testing.assert_allclose(p["w"].value, 1 - turn * rates * x, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(p["v"].value, 1 - turn * RATES.value[1] * np.ones(2), rtol=1e-12)
    before = image(step.optimiser)
    x[1, 1] = -7
    with pytest.raises(
        InputError,
        match=r"Looked, moving 'w' \(2, 3\) .*index 7 at \(1, 1\) outside axis 0 of 'rates' \(4,\) float64, 0 … 3",
    ):
        step(x)
    assert image(step.optimiser) == before


@pytest.mark.parametrize("taken", [0, 2])
def test_an_index_out_of_range_is_named_with_its_place_and_moves_nothing(taken):
    rng = np.random.default_rng(3)
    table, output = (
        Tensor(rng.standard_normal((9, H)), requires_grad=True, name="E"),
        cells.Output(H, D, rng, "float64"),
    )

    def loss(codes, targets):
        return mg.cross_entropy(output(mg.gather(table, codes)), targets)

    step = mg.training_step(loss, optim.Adam([table, *output.parameters().values()]))
    codes, targets = rng.integers(0, 9, (T, N)), rng.integers(0, D, (T, N))
    for _ in range(taken):
        step(codes, targets)
    before = image(step.optimiser)
    wrong, beyond = codes.copy(), targets.copy()
    wrong[2, 1], beyond[1, 0] = 9, -5
    with pytest.raises(
        InputError, match=r"gather of 'E' \(9, 5\).*index 9 at \(2, 1\) outside the rows, 0 … 8"
    ):
        step(wrong, targets)
    with pytest.raises(InputError, match=r"cross_entropy: index -5 at \(1, 0\) outside the classes, 0 … 3"):
        step(codes, beyond)
    assert image(step.optimiser) == before
    step(codes, targets)
    assert image(step.optimiser) != before
