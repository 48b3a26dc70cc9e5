"""`fit`: each step is the one written out by hand; schedules, carried states, several batches per step, validation,
stopping, progress, steps that go wrong, and going on from a file; test_training.py does that in processes of their own.
"""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad import InputError, NonFiniteError, ShapeError, Tensor, checkpoint, optim, progress, training
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


def test_a_loss_that_is_not_finite_names_the_step_and_changes_nothing():
    p, q = (Tensor(np.zeros(2), requires_grad=True, name="w") for _ in range(2))
    loss_of = lambda p: lambda x: (p * x + mg.log(x)).sum()  # noqa: E731
    bad = (np.array([1.0, -1.0]),)
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(NonFiniteError, match="loss of step 3 is nan; use a smaller learning rate"),
    ):
        mg.fit(loss_of(p), [p], [(np.ones(2),)] * 2 + [bad])
    mg.fit(loss_of(q), [q], [(np.ones(2),)] * 2)
    np.testing.assert_array_equal(p.value, q.value)


BLAMED = {
    "an argument": (
        lambda x, y: (x, put(y, np.nan)),
        r"in batch 3 the argument 'y' is nan at \(1, 0\); clean or mask",
    ),
    "infinite": (
        lambda x, y: (put(x, -np.inf), y),
        r"in batch 3 the argument 'x' is -inf at \(1, 0\); clean or mask",
    ),
}


def put(array, value):
    array = array.copy()
    array[1, 0] = value
    return array


@pytest.mark.parametrize(("spoil", "words"), BLAMED.values(), ids=BLAMED)
def test_data_that_are_not_finite_are_blamed_with_batch_argument_and_place(spoil, words, problem):
    parameters, loss_of, batches = problem
    p, q = parameters(), parameters()
    bad = spoil(*batches[2])
    with pytest.raises(NonFiniteError, match=f"loss of step 3 is (nan|inf): {words}"):
        mg.fit(loss_of(p), p, [*batches[:2], bad, *batches[3:]])
    mg.fit(loss_of(q), q, batches[:2])
    same(p, q)
    with pytest.raises(NonFiniteError, match=words.replace("batch 3", "batch 1 of step 2")):
        mg.fit(loss_of(p), p, [*batches[:2], bad, *batches[3:]], accumulate=2)
    with pytest.raises(NonFiniteError, match=words.replace("batch 3", "batch 2 of validate")):
        mg.fit(loss_of(p), p, batches, validate=[batches[0], bad])


def test_data_in_a_dict_a_carried_state_and_weights_are_blamed_by_their_place():
    w = Tensor(np.ones(2), requires_grad=True, name="w")
    given = {"x": np.ones(2), "more": (np.ones(1), np.array([1.0, np.nan]))}
    with pytest.raises(NonFiniteError, match=r"batch 1 the argument 'b'\['more'\]\[1\] is nan at \(1,\)"):
        mg.fit(lambda b: (w * b["x"] * b["more"][1]).sum(), [w], [(given,)])
    with pytest.raises(
        NonFiniteError, match=r"loss of step 2 is inf: in batch 2 the argument 'h' is inf at \(0,\)"
    ):
        mg.fit(lambda x, h: ((w * x + h).sum(), h + x * np.inf), [w], [(np.ones(2),)] * 3, state=np.zeros(2))
    w.value = [np.inf, 1.0]
    with pytest.raises(
        NonFiniteError, match=r"'w' \(2,\) float64 itself is inf at \(0,\); start with finite weights"
    ):
        mg.fit(lambda x: (w * x).sum(), [w], [(np.ones(2),)])


def test_data_that_are_not_finite_and_masked_are_no_mistake(problem):
    parameters, _, _ = problem
    p = parameters()
    x, y = np.ones((5, 3)), np.array([[1.0], [np.nan], [2.0], [np.nan], [3.0]])
    losses = mg.fit(lambda x, y: mg.mse(x @ p["w"].reshape((3, 1)) + p["b"], y, y == y), p, [(x, y)] * 3)
    assert np.isfinite(losses).all()


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


# Several batches per step, epochs, states.


@pytest.mark.parametrize(("k", "epochs"), [(2, 1), (4, 1), (4, 3), (10, 2)])
def test_gradients_are_accumulated_over_batches(k, epochs, problem):
    parameters, loss_of, batches = problem
    p, q = parameters(), parameters()
    losses = mg.fit(loss_of(p), p, batches, accumulate=k, epochs=epochs, lr=0.1, clip=0.5)
    groups = [batches[at : at + k] for at in range(0, 6, k)] * epochs
    optimiser, loss, expected = optim.Adam(q, 0.1), loss_of(q), []
    for group in groups:
        optimiser.zero_grad()
        value = sum(loss(*batch) for batch in group) / len(group)
        value.backward()
        optim.clip_grad_norm(optimiser.parameters, 0.5)
        optimiser.step()
        expected.append(value.item())
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    same(p, q)


def test_elements_of_gradients_are_clipped(problem):
    parameters, loss_of, batches = problem
    p, q = parameters(), parameters()
    sgd, loss = optim.SGD(q, 0.1), loss_of(q)
    mg.fit(loss_of(p), None, batches, optimiser=optim.SGD(p, 0.1), clip=None, clip_value=0.3)
    for batch in batches:
        sgd.zero_grad()
        loss(*batch).backward()
        optim.clip_grad_value(sgd.parameters, 0.3)
        sgd.step()
    same(p, q)


def test_batches_by_epoch_and_no_more_than_so_many_steps(problem):
    parameters, loss_of, batches = problem
    p, asked = parameters(), []

    def of(epoch):
        asked.append(epoch)
        return batches[:epoch]

    losses = mg.fit(loss_of(p), p, of, epochs=None, steps=8)
    assert asked == [1, 2, 3, 4] and len(losses) == 8
    drawn = iter(batches)
    assert len(mg.fit(loss_of(p), p, drawn, steps=4)) == 4 and len([*drawn]) == 2  # no batch is drawn in vain
    assert len(mg.fit(loss_of(p), p, batches, epochs=2)) == 12
    assert len(mg.fit(loss_of(p), p, batches, steps=0)) == 0
    assert len(mg.fit(loss_of(p), p, lambda epoch: [], epochs=None)) == 0


class Text:
    """A cell that reads a long sequence in windows."""

    def __init__(self, dtype="float64"):
        rng = np.random.default_rng(0)
        self.W = Tensor(rng.standard_normal((2, 2)) / 2, requires_grad=True, name="W", dtype=dtype)
        self.xs = rng.standard_normal((6, 3, 2)).astype(dtype)
        self.first = np.ones((3, 2), dtype)

    def loss(self, x, h, n):
        h = mg.tanh(h @ self.W + x)
        return (h * h).sum(), h, n + 1.0

    def fit(self, **options):
        given = dict(lr=0.1, state=(self.first, np.zeros((), self.first.dtype))) | options
        return mg.fit(self.loss, [self.W], [(x,) for x in self.xs], **given)


@pytest.mark.parametrize("k", [1, 2])
def test_a_state_is_carried_from_batch_to_batch_and_starts_anew_with_the_epoch(k):
    text, other = Text(), Text()
    losses = text.fit(epochs=2, accumulate=k)
    optimiser, expected = optim.Adam([other.W], 0.1), []
    for _ in range(2):
        h = other.first
        for at in range(0, 6, k):
            optimiser.zero_grad()
            values = []
            for x in other.xs[at : at + k]:
                value, h, _ = other.loss(x, h, Tensor(0.0))
                (value / k).backward()
                h = h.value
                values.append(value.item())
            optim.clip_by_norm([other.W], 1.0)
            optimiser.step()
            expected.append(np.mean(values))
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    np.testing.assert_allclose(text.W.value, other.W.value, rtol=1e-10)


def test_a_state_that_does_not_come_back_is_named():
    text = Text()
    with pytest.raises(InputError, match=r"given 2 carried states and returned 0; return \(loss, \*states\)"):
        mg.fit(
            lambda x, h, n: ((h @ text.W + x) ** 2).sum(),
            [text.W],
            [(text.xs[0],)],
            state=(text.first, np.zeros(())),
        )


# Validation.


def test_validation_is_the_mean_loss_after_every_epoch(problem):
    parameters, loss_of, batches = problem
    p, q = parameters(), parameters()
    losses = mg.fit(loss_of(p), p, batches, epochs=3, validate=iter(batches[:2]))
    assert losses.validated_at.tolist() == [6, 12, 18] and losses.shape == (18,)
    loss = loss_of(q)
    for epoch in range(1, 4):
        q = {n: Tensor(t.value, requires_grad=True) for n, t in parameters().items()}
        loss = loss_of(q)
        mg.fit(loss, q, batches, epochs=epoch)
        right = np.mean([loss(*batch).item() for batch in batches[:2]])
        assert losses.validation[epoch - 1] == pytest.approx(right, rel=1e-10)
    assert losses.best == losses.validated_at[losses.validation.argmin()]
    assert (
        type(losses * 2) is np.ndarray and isinstance(losses.mean(), float) and losses[3:].best == losses.best
    )


def test_validation_carries_the_state_from_the_first():
    text = Text()
    losses = text.fit(steps=4, validate=[(x,) for x in text.xs[:3]])
    h, values = text.first, []
    for x in text.xs[:3]:
        value, h, _ = text.loss(x, h, Tensor(0.0))
        values.append(value.item())
    assert losses.validated_at.tolist() == [4] and losses.validation[0] == pytest.approx(
        np.mean(values), rel=1e-10
    )


SCORES = [5.0, 4.0, 4.5, 3.0, 3.5, 3.0, 4.0, 1.0, 1.0, 1.0]  # 3.0 again is not smaller


@pytest.mark.parametrize(
    ("patience", "stopped", "best"), [(1, 3, 2), (2, 6, 4), (3, 7, 4), (4, 10, 8), (np.inf, 10, 8)]
)
def test_it_stops_when_nothing_gets_smaller_and_keeps_the_best(patience, stopped, best, problem):
    parameters, loss_of, batches = problem
    p, seen, scores = parameters(), [], iter(SCORES)

    def validate():
        seen.append({n: t.value for n, t in p.items()})
        return next(scores)

    losses = mg.fit(
        loss_of(p), p, batches * 2, steps=10, validate=validate, validate_every=1, patience=patience
    )
    assert len(losses) == len(seen) == stopped and losses.best == best
    assert losses.validation.tolist() == SCORES[:stopped]
    assert all(p[n].value.tobytes() == seen[best - 1][n].tobytes() for n in p)


def test_without_patience_the_last_stays(problem):
    parameters, loss_of, batches = problem
    p, q, scores = parameters(), parameters(), iter(SCORES)
    losses = mg.fit(loss_of(p), p, batches, validate=lambda: next(scores), validate_every=2)
    assert losses.validated_at.tolist() == [2, 4, 6]
    mg.fit(loss_of(q), q, batches)
    same(p, q)


# Progress.


def test_plain_lines_where_there_is_no_terminal_and_nothing_when_not_asked(problem, capsys):
    parameters, loss_of, batches = problem
    p = parameters()
    for asked in (None, False):
        mg.fit(loss_of(p), p, batches, progress=asked)
        assert capsys.readouterr() == ("", "")
    losses = mg.fit(loss_of(p), p, batches, epochs=5, lr=lambda step: 0.1 / step, progress=True)
    out, lines = capsys.readouterr()
    lines = lines.splitlines()
    assert out == "" and len(lines) == 10
    assert lines[0].startswith(f"step 3 of 30: loss {losses[2]:.4g}, rate {0.1 / 3:.3g}, ")
    assert all(line.endswith(" s left") for line in lines) and lines[-1].endswith(", 0 s left")
    mg.fit(loss_of(p), p, iter(batches * 4), progress=True)
    steps = [line.split(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert steps == ["step 1", "step 2", "step 5", "step 10", "step 20"]


@pytest.mark.parametrize("asked", [None, True])
def test_a_bar_on_a_terminal(asked, problem, monkeypatch):
    parameters, loss_of, batches = problem

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    p = parameters()
    losses = mg.fit(loss_of(p), p, batches, epochs=4, lr=0.02, progress=asked)
    shown = sys.stderr.getvalue()
    assert (
        "training" in shown
        and "24/24" in shown
        and "rate 0.02" in shown
        and f"loss {losses[-1]:.4g}" in shown
    )
    monkeypatch.setattr(sys, "stderr", Terminal())
    mg.fit(loss_of(p), p, batches, progress=False)
    assert sys.stderr.getvalue() == ""


def test_time_left_in_words():
    said = [progress._words(s) for s in (0.4, 59, 61, 3600, 7325)]
    assert said == ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "2 h 2 min"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(accumulate=0), "accumulate = 0; give a whole number of at least 1"),
        (dict(epochs=0), "epochs = 0"),
        (dict(steps=-1), "steps = -1; give a whole number of at least 0"),
        (dict(epochs=2, batches=iter([])), "gone through once, and epochs = 2; give a list, or a function"),
        (dict(validate=[]), "validate has no batches"),
        (dict(patience=2), "patience and validate_every need validate"),
        (dict(validate_every=2), "patience and validate_every need validate"),
        (dict(validate=lambda: 0.0, patience=0), "patience = 0; give a number of at least 1"),
        (dict(validate=[np.ones(2)]), "batch 1 of validate is ndarray; give tuples"),
        (dict(clip_value=0), "clip_grad_value: the limit is 0"),
    ],
)
def test_mistakes_in_what_comes_around_a_step_are_named(options, words, problem):
    parameters, loss_of, batches = problem
    p = parameters()
    with pytest.raises(InputError, match=words):
        mg.fit(loss_of(p), **(dict(parameters=p, batches=batches) | options))


def test_validate_that_returns_nan_is_named(problem):
    parameters, loss_of, batches = problem
    p = parameters()
    with pytest.raises(NonFiniteError, match="validate returned nan after step 6"):
        mg.fit(loss_of(p), p, batches, validate=lambda: np.nan)


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
        ("only weights", p, InputError, "holds arrays but no training"),
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


# Going on with states, epochs and validation.


class Long(Text):
    """A training with all that there is, as a program has it that is started again and again."""

    def __init__(self, file):
        super().__init__("float32")
        self.file, self.rng, self.looked = file, np.random.default_rng(0), 0
        self.compiled = mg.compile(self.loss)

    def batches(self, epoch):
        for k in self.rng.permutation(6):
            yield (self.xs[k],)

    def validate(self):
        """Better at first, and then by chance: the generator that is drawn from here has to go on too."""
        return float(abs(self.W.value).sum()) + float(self.rng.random())

    def fit(self, watch=None, **options):
        given = dict(
            epochs=5, accumulate=4, lr=0.05, state=(self.first, np.zeros((), "float32")), rng=self.rng,
            validate=self.validate, validate_every=3, patience=np.inf, resume=self.file, save_every=2, watch=watch,
        ) | options  # fmt: skip
        return mg.fit(self.compiled, {"W": self.W}, self.batches, **given)

    def image(self):
        return self.W.value.tobytes(), {n: a.tobytes() for n, a in checkpoint.load(self.file).items()}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    run = Long(tmp_path_factory.mktemp("long") / "run")
    losses = run.fit()
    return losses, run.image()


def alike(found, expected):
    assert (
        found.tobytes() == expected.tobytes() and found.validation.tobytes() == expected.validation.tobytes()
    )
    assert found.validated_at.tolist() == expected.validated_at.tolist()


@pytest.mark.parametrize("first", range(11))
def test_all_that_belongs_to_a_training_goes_on_to_the_same_bits(first, long, file):
    assert len(long[0]) == 10 and len(long[0].validation) == 3
    Long(file).fit(steps=first)
    run = Long(file)
    alike(run.fit(), long[0])
    assert run.image() == long[1]
    again = Long(file)
    alike(again.fit(), long[0])  # a finished one is not trained again, and has its best
    assert again.image() == long[1]


def test_ctrl_c_at_any_instruction_with_all_that_there_is(long, file):
    places = 0
    for after in range(0, 100_000, 97):
        run, done = Long(file), []
        if interrupted(lambda run=run, done=done: done.append(run.fit()), after, training, optim, step):
            places += 1
            if file.exists():
                found = checkpoint.load(file)
                assert (
                    len(found["tensors/losses"]) < 10
                    or found["tensors/losses"].tobytes() == long[0].tobytes()
                )
                if len(found["tensors/losses"]) == 10:
                    alike(Long(file).fit(), long[0])
                    file.unlink()
            continue
        break
    alike(done[0], long[0])
    assert places > 30 and run.image() == long[1]


def test_a_training_that_stopped_early_is_not_gone_on_with(problem, file):
    parameters, loss_of, batches = problem

    def fit(p, scores):
        scores = iter(scores)
        return mg.fit(
            loss_of(p), p, batches, validate=lambda: next(scores), validate_every=1, patience=2, resume=file
        )

    p, q = parameters(), parameters()
    losses = fit(p, [2.0, 1.0, 3.0, 3.0])
    assert len(losses) == 4 and losses.best == 2
    alike(fit(q, []), losses)
    assert all(p[n].value.tobytes() == q[n].value.tobytes() for n in p)
    kept, last = checkpoint.load(file, "tensors/best/"), checkpoint.load(file, "parameters/")
    assert all(kept[n].tobytes() == p[n].value.tobytes() != last[n].tobytes() for n in p)


def test_a_carried_state_of_another_kind_is_refused_and_nothing_changes(file):
    Text("float32").fit(resume=file)
    kept = file.read_bytes()
    for state, kind, words in (
        (
            (np.ones((4, 2), "float32"), np.zeros((), "float32")),
            ShapeError,
            r"carried state in .*'0' has shape",
        ),
        ((np.ones((3, 2)), np.zeros((), "float32")), mg.DTypeError, "'0' is float32, not float64"),
        ((np.ones((3, 2), "float32"),), InputError, "surplus '1'"),
        ((), InputError, "surplus '0', '1'"),
    ):
        text = Text("float32")
        before = text.W.value
        with pytest.raises(kind, match=words):
            text.fit(resume=file, state=state)
        assert text.W.value is before and file.read_bytes() == kept
