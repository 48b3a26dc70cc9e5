"""`fit`: each step is the one written out by hand; schedules, stopping, steps that go wrong, and going on from a
file; test_training.py does that in processes of their own.
"""

from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import InputError, NonFiniteError, ShapeError, Tensor, checkpoint, optim, training
from minigrad.compiler import step
from tests.interrupts import interrupted


@pytest.fixture
def problem(rng):
    """A line to be found: w (3,) and b () with data in batches."""

    def parameters():
        return {
            "w": Tensor(np.linspace(-1, 1, 3), requires_grad=True, name="w"),
            "b": Tensor(0.5, requires_grad=True, name="b"),
        }

    def loss_of(p):
        def loss(x, y):
            return ((x @ p["w"].reshape((3, 1)) + p["b"] - y) ** 2).mean()

        return loss

    batches = [(rng.standard_normal((5, 3)), rng.standard_normal((5, 1))) for _ in range(6)]
    return parameters, loss_of, batches


def by_hand(p, loss, batches, rates, clip=1.0):
    optimiser, losses = optim.Adam(p, 1.0), []
    for batch, rate in zip(batches, rates, strict=True):
        optimiser.lr = rate
        optimiser.zero_grad()
        value = loss(*batch)
        value.backward()
        optim.clip_by_norm(optimiser.parameters, clip)
        optimiser.step()
        losses.append(value.item())
    return losses


def same(ours, theirs):
    for name in ours:
        np.testing.assert_allclose(ours[name].value, theirs[name].value, rtol=1e-10)


@pytest.mark.parametrize("lr", [0.1, lambda step: 0.2 / step], ids=["a rate", "a schedule"])
def test_every_step_is_the_one_written_by_hand(lr, problem):
    parameters, loss_of, batches = problem
    ours, theirs = parameters(), parameters()
    losses = mg.fit(loss_of(ours), ours, batches, lr=lr, clip=0.5)
    rates = [lr(k) if callable(lr) else lr for k in range(1, 7)]
    np.testing.assert_allclose(losses, by_hand(theirs, loss_of(theirs), batches, rates, 0.5), rtol=1e-10)
    same(ours, theirs)
    assert losses.shape == (6,)


def test_another_optimiser_and_a_compiled_loss_with_more_results(problem):
    parameters, loss_of, batches = problem
    ours, theirs = parameters(), parameters()
    loss = loss_of(ours)
    compiled = mg.compile(lambda x, y: (loss(x, y), ours["w"] * 2))
    sgd = optim.SGD(ours, 0.05)
    losses = mg.fit(compiled, None, iter(batches), optimiser=sgd, clip=1e9)
    for batch, value in zip(batches, losses, strict=True):
        eager = loss_of(theirs)(*batch)
        assert value == pytest.approx(eager.item(), rel=1e-10)
        gradients = mg.grad(eager, list(theirs.values()))
        for p, g in zip(theirs.values(), gradients, strict=True):
            p.value = p.value - 0.05 * g.value
    same(ours, theirs)


def test_it_is_watched_and_stops_when_told(problem):
    parameters, loss_of, batches = problem
    p, seen = parameters(), []

    def watch(step, loss):
        seen.append((step, loss))
        return step == 3

    losses = mg.fit(loss_of(p), p, batches, watch=watch)
    assert seen == list(enumerate(losses, 1)) and len(losses) == 3
    assert mg.fit(loss_of(p), p, []).shape == (0,)


def test_a_loss_that_is_not_finite_names_the_step_and_changes_nothing(problem):
    parameters, loss_of, batches = problem
    p, q = parameters(), parameters()
    bad = (batches[2][0], np.full((5, 1), np.nan))
    with pytest.raises(NonFiniteError, match="loss of step 3 is nan; use a smaller learning rate"):
        mg.fit(loss_of(p), p, [*batches[:2], bad, *batches[3:]])
    mg.fit(loss_of(q), q, batches[:2])
    same(p, q)


def test_a_gradient_that_is_not_finite_names_the_step_and_the_parameter():
    p = Tensor(np.zeros(2), requires_grad=True, name="w")
    with pytest.raises(NonFiniteError, match=r"step 1: .*'w'.* not finite"):
        mg.fit(lambda x: mg.sqrt(p * x).sum(), [p], [(np.ones(2),)])
    np.testing.assert_array_equal(p.value, 0)


def test_ctrl_c_passes_and_keeps_what_was_learned(problem):
    parameters, loss_of, batches = problem
    p, q = parameters(), parameters()

    def interrupted():
        yield from batches[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mg.fit(loss_of(p), p, interrupted())
    mg.fit(loss_of(q), q, batches[:2])
    same(p, q)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(lr=0.0), "learning rate is 0.0"),
        (dict(lr=lambda step: 2.0 - step), "learning rate of step 3 is -1.0"),
        (dict(lr=lambda step: np.nan), "learning rate of step 1 is nan"),
        (dict(clip=0), "limit is 0"),
        (dict(batches=[np.ones((2, 3))]), "batch 1 is ndarray; give tuples"),
        (dict(parameters={}), "no parameters"),
    ],
)
def test_mistakes_are_named(options, words, problem):
    parameters, loss_of, batches = problem
    p = parameters()
    given = dict(parameters=p, batches=batches) | options
    with pytest.raises(InputError, match=words):
        mg.fit(loss_of(p), **given)


# Going on from a file.


class Run:
    """A training whose batches come from a generator, as a program has it that is started again and again."""

    def __init__(self, file, seed=0):
        self.rng, self.file = np.random.default_rng(seed), file
        self.p = {
            "w": Tensor(np.linspace(-1, 1, 3, dtype="float32"), requires_grad=True),
            "b": Tensor(np.float32(0.5), requires_grad=True),
        }
        w, b = self.p.values()
        self.loss = mg.compile(lambda x, y: ((x @ w.reshape((3, 1)) + b - y) ** 2).mean())
        self.drawn = []

    def batches(self, count=10**9):
        for _ in range(count):
            self.drawn.append(self.rng.standard_normal(4).astype("float32"))
            yield self.drawn[-1][None, :3], self.drawn[-1][None, 3:]

    def fit(self, count, **options):
        given = (
            dict(batches=self.batches(count), rng=self.rng, resume=self.file, lr=0.1, save_every=4) | options
        )
        return mg.fit(self.loss, self.p, **given)

    def image(self):
        """Parameters as bytes, and what the file holds."""
        found = checkpoint.load(self.file)
        return [p.value.tobytes() for p in self.p.values()], {n: a.tobytes() for n, a in found.items()}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.safetensors"


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """Ten steps in one go: losses, and the image of the end."""
    run = Run(tmp_path_factory.mktemp("ten") / "run")
    losses = run.fit(10)
    return losses, run.image()


@pytest.mark.parametrize("seed", [0, 7])  # the generator goes on from the file, whatever it was seeded with
@pytest.mark.parametrize("first", [0, 1, 3, 4, 9, 10])
def test_a_training_in_two_parts_ends_as_one_in_one_go(first, seed, ten, file):
    Run(file).fit(first)
    run = Run(file, seed)
    losses = run.fit(10)
    assert losses.tobytes() == ten[0].tobytes() and run.image() == ten[1]


def test_batches_that_were_trained_on_are_passed_over(problem, file):
    parameters, loss_of, batches = problem
    whole, parts = parameters(), parameters()
    expected = mg.fit(loss_of(whole), whole, batches, lr=lambda step: 0.2 / step)
    seen = []
    mg.fit(loss_of(parts), parts, batches[:2], lr=lambda step: 0.2 / step, resume=file)
    again = parameters()
    losses = mg.fit(
        loss_of(again), again, iter(batches), lr=lambda step: 0.2 / step, resume=str(file),
        watch=lambda step, loss: seen.append(step),
    )  # fmt: skip
    assert losses.tobytes() == expected.tobytes() and seen == [3, 4, 5, 6]
    for name in whole:
        assert whole[name].value.tobytes() == again[name].value.tobytes()


def test_a_finished_training_is_not_trained_again(ten, file):
    Run(file).fit(10)
    for count in (10, 6):
        run = Run(file)
        assert run.fit(count).tobytes() == ten[0].tobytes() and run.image() == ten[1]


STOPS = {"Ctrl-C": KeyboardInterrupt, "an error": RuntimeError, "a full memory": MemoryError}


@pytest.mark.parametrize("kind", STOPS.values(), ids=STOPS)
@pytest.mark.parametrize("where", ["batch", "watch"])
def test_what_stops_it_is_passed_on_and_it_goes_on_from_there(where, kind, ten, file):
    run = Run(file)

    def batches():
        yield from run.batches(6)
        run.rng.random(5)  # half a batch was drawn
        raise kind

    def watch(step, loss):
        if step == 6:
            raise kind

    with pytest.raises(kind):
        run.fit(10, **({"batches": batches()} if where == "batch" else {"watch": watch}))
    assert len(checkpoint.load(file)["tensors/losses"]) == 6
    run = Run(file)
    assert run.fit(10).tobytes() == ten[0].tobytes() and run.image() == ten[1]


def test_ctrl_c_at_any_instruction_of_the_loop_loses_no_step_and_none_is_done_twice(ten, file):
    """Where Python looks for it in fit and in the optimiser, one place a run, each run going on from the last."""
    places = 0
    for after in range(0, 100_000, 41):
        run = Run(file, seed=after if file.exists() else 0)
        done = []
        if interrupted(lambda run=run, done=done: done.append(run.fit(10)), after, training, optim, step):
            places += 1
            if file.exists():
                losses = checkpoint.load(file)["tensors/losses"]
                assert losses.tobytes() == ten[0][: len(losses)].tobytes()
                if len(losses) == 10:
                    assert Run(file).fit(10).tobytes() == ten[0].tobytes() and run.image()[1] == ten[1][1]
                    file.unlink()
            continue
        (losses,) = done
        break
    assert places > 50 and losses.tobytes() == ten[0].tobytes() and run.image() == ten[1]


def test_a_generator_that_watch_draws_from_goes_on_too(file):
    def fit(kept, stop):
        def watch(step, loss):
            kept.append(float(run.rng.random()))
            return step == stop

        run = Run(file)
        run.fit(8, watch=watch)
        return run.image()

    whole, parts = [], []
    expected = fit(whole, 0)
    file.unlink()
    for stop in (3, 5, 0):
        found = fit(parts, stop)
    assert parts == whole and found == expected


def test_the_file_is_written_at_the_start_now_and_then_and_at_the_end(file, monkeypatch):
    written, write = [], checkpoint.write_training

    def noted(path, optimiser, *rest):
        written.append(optimiser.steps)
        write(path, optimiser, *rest)

    monkeypatch.setattr(checkpoint, "write_training", noted)
    Run(file).fit(10)
    Run(file).fit(12)
    assert written == [0, 4, 8, 10, 10, 12]


def test_options_come_from_the_call_and_an_optimiser_of_ones_own_from_the_file(file):
    run = Run(file)
    run.fit(2, optimiser=optim.SGD(run.p, 0.25, momentum=0.5), notes={"alphabet": "ab"})
    run = Run(file)
    own = optim.SGD(run.p, 0.75, momentum=0.125)
    run.fit(4, optimiser=own)
    assert (own.lr, own.momentum, own.steps) == (0.25, 0.5, 4)
    assert checkpoint.load(file).notes == {"alphabet": "ab"}
    run = Run(file)
    run.fit(5, optimiser=optim.SGD(run.p, momentum=0.5), notes={})
    assert checkpoint.load(file).notes == {}
    file.unlink()
    for rate in (0.5, 0.125):
        run = Run(file)
        run.fit(1 if rate == 0.5 else 2, lr=rate)
    assert float(checkpoint.load(file)["optimiser/Adam.lr"]) == 0.125


def test_a_file_that_cannot_be_gone_on_from_is_refused_and_stays(problem, tmp_path, file):
    parameters, loss_of, batches = problem
    p = parameters()
    Run(file).fit(2)
    (tmp_path / "broken").write_bytes(file.read_bytes()[:-1])
    (tmp_path / "only weights").write_bytes(b"")
    checkpoint.save(tmp_path / "only weights", p)
    other = {"w": Tensor(np.ones(4), requires_grad=True), "b": Tensor(1.0, requires_grad=True)}
    for name, own, kind, words in (
        ("broken", p, InputError, "damaged"),
        ("only weights", p, InputError, "holds arrays, and no training"),
        ("run.safetensors", other, ShapeError, "'w' has shape"),
        ("run.safetensors", p, InputError, "random generators are"),
        ("broken/run", p, InputError, "cannot be written"),
    ):
        given = {f: f.read_bytes() for f in tmp_path.iterdir()}
        rng = np.random.default_rng(0) if kind is ShapeError else None
        before = {n: t.value for n, t in own.items()}
        if words.startswith("random"):
            own = {n: Tensor(t.value, requires_grad=True, dtype="float32") for n, t in p.items()}
            before = {n: t.value for n, t in own.items()}
        with pytest.raises(kind, match=words):
            mg.fit(loss_of(own), own, batches, resume=tmp_path / name, rng=rng)
        assert {f: f.read_bytes() for f in tmp_path.iterdir()} == given
        assert all(own[n].value is value for n, value in before.items())


@pytest.mark.parametrize("every", [0, -1, 2.5, True, None])
def test_how_often_to_save_is_a_whole_number(every, problem):
    parameters, loss_of, batches = problem
    p = parameters()
    with pytest.raises(InputError, match=r"save_every = .*; give a whole number of at least 1"):
        mg.fit(loss_of(p), p, batches, save_every=every)
