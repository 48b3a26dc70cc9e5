"""Threads, tasks and processes: what one of them does changes no number of another, and nobody waits for ever.

Right values are those of one thread, or of a run that was not interrupted.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import threading
import time
import weakref
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from cells import LSTM, RNN, Layer, Output, Stack, run
from minigrad import NonFiniteError, Tensor, optim
from minigrad.compiler import compile
from minigrad.compiler import plan as planning

METHODS = multiprocessing.get_all_start_methods()
every_method = pytest.mark.parametrize("method", [m for m in ("fork", "spawn") if m in METHODS])
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# From Python 3.12 on a fork beside threads warns; that it goes well is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
WAIT = 120  # seconds: only who waits for ever takes so long


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGRAD_CACHE", str(Path(request.config.rootpath) / ".pytest_cache" / "minigrad"))
        yield


def in_threads(*works):
    """Run all at once; raises what one of them raises."""
    start = threading.Barrier(len(works), timeout=WAIT)

    def work(k):
        start.wait()
        return works[k]()

    with ThreadPoolExecutor(len(works)) as pool:
        return [f.result(WAIT) for f in [pool.submit(work, k) for k in range(len(works))]]


def in_a_fork(work):
    """What `work` gives in a forked child, or AssertionError when it does not come back."""
    inbox, outbox = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(outbox, np.asarray(work(), "f8").tobytes())
        finally:
            os._exit(0)
    os.close(outbox)
    deadline = time.monotonic() + WAIT
    try:
        while not os.waitpid(child, os.WNOHANG)[0]:
            if time.monotonic() > deadline:
                os.kill(child, 9)
                os.waitpid(child, 0)
                raise AssertionError("the child waits for ever")
            time.sleep(0.01)
        with os.fdopen(inbox, "rb", closefd=False) as file:
            return np.frombuffer(file.read())
    finally:
        os.close(inbox)


# Modes belong to a context.


@pytest.mark.smoke
def test_tasks_do_not_share_modes_or_scopes():
    x, bad = Tensor([1.0], requires_grad=True), Tensor([0.0])

    async def one(turns):
        with mg.no_grad(), mg.scope("one"), mg.anomaly():
            turns[0].set()
            await turns[1].wait()
            y = mg.tanh(x)
            with np.errstate(divide="ignore"), pytest.raises(NonFiniteError):
                mg.log(bad)
        return y

    async def two(turns):
        await turns[0].wait()
        with mg.scope("two"):
            y = mg.tanh(x)
            with np.errstate(divide="ignore"):
                mg.log(bad)  # no anomaly mode here
            turns[1].set()
            await asyncio.sleep(0)
            z = mg.tanh(y)
        return y, z

    async def both():
        turns = [asyncio.Event(), asyncio.Event()]
        return await asyncio.gather(one(turns), two(turns))

    silent, loud = asyncio.run(both())
    assert not silent.requires_grad and silent.scope == ("one",)
    assert all(t.requires_grad and t.scope == ("two",) for t in loud)
    assert mg.tanh(x).scope == () and mg.tanh(x).requires_grad


def test_a_task_begins_with_what_held_where_it_was_made():
    x = Tensor([1.0], requires_grad=True)

    async def main():
        with mg.no_grad():
            task = asyncio.create_task(asyncio.sleep(0, result=None))
            inside = asyncio.create_task(made())
        outside = asyncio.create_task(made())
        await task
        return await inside, await outside

    async def made():
        return mg.tanh(x)

    inside, outside = asyncio.run(main())
    assert not inside.requires_grad and outside.requires_grad


def test_a_generator_that_is_closed_elsewhere_changes_nothing_there():
    x = Tensor([1.0], requires_grad=True)

    def silent():
        with mg.no_grad(), mg.scope("silent"):
            yield

    left = silent()
    in_threads(lambda: next(left))  # entered in another thread, and left inside
    with mg.scope("here"):
        left.close()
        y = mg.tanh(x)
    assert y.requires_grad and y.scope == ("here",)


# Threads that share leaves and programs.


def test_threads_that_learn_the_same_leaf_lose_no_gradient():
    W = Tensor(np.zeros(200_000), requires_grad=True)

    def work():
        for _ in range(25):
            (W * 1.0).sum().backward()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        in_threads(*[work] * 8)
    finally:
        sys.setswitchinterval(before)
    assert (W.grad == 200).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_eight_threads_call_one_compiled_function(threads, rng, monkeypatch):
    monkeypatch.setattr(planning, "THREADS_FROM", 0)
    cell = LSTM(3, 8, rng)
    traces = []

    def loss(x):
        traces.append(threading.get_ident())
        return (run(cell, x).h ** 2).mean()

    cases = [rng.standard_normal((2 + k % 3, 2 + k, 3)).astype("f4") for k in range(8)]
    alone = compile(loss, threads=threads)
    right = [alone.value_and_grad(x) for x in cases]
    step, traces[:] = compile(loss, threads=threads), []

    def work(k):
        value, gradients = right[k]
        for _ in range(50):
            v, g = step.value_and_grad(cases[k])
            assert v.value == value.value, "another thread's numbers"
            for p in cell.parameters().values():
                np.testing.assert_array_equal(g[p], gradients[p])

    in_threads(*[lambda k=k: work(k) for k in range(8)])
    assert len(traces) == 1, "the first call alone makes the program, and the others wait for it"


def test_threads_make_different_programs_and_equal_ones_at_once(rng):
    W = Tensor(rng.standard_normal((3, 3)), requires_grad=True)
    x = rng.standard_normal((2, 3))

    def program(power, odd):
        return compile(lambda x: mg.tanh((x @ W) ** power + odd).sum())

    # A constant that no program on disk has, so that all are made now.
    odd = 1 + int.from_bytes(os.urandom(4), "little") / 2**33
    made = in_threads(*[lambda p=p: program(p, odd).value_and_grad(x) for p in (2, 2, 2, 3)])
    for power, (value, gradients) in zip((2, 2, 2, 3), made, strict=True):
        loss = mg.tanh((Tensor(x) @ W) ** power + odd).sum()
        np.testing.assert_allclose(value.value, loss.value, rtol=1e-12)
        np.testing.assert_allclose(gradients[W], mg.grad(loss, W).value, rtol=1e-10)


def test_a_compiled_function_may_call_another_while_it_is_made(rng):
    inner = compile(lambda x: (x * 2).sum())
    outer = compile(lambda x: (x * inner(np.ones(3)).value).sum())
    assert outer(np.ones(2)).value == 12


class Late:
    """A pool whose work begins when it is told to, and whose waiting is interrupted."""

    def __init__(self):
        self.go, self.done = threading.Event(), threading.Event()

    def submit(self, function, *arguments):
        def work():
            self.go.wait(WAIT)
            function(*arguments)
            self.done.set()

        threading.Thread(target=work, daemon=True).start()
        return Interrupted()


class Interrupted(Future):
    def result(self, timeout=None):
        raise KeyboardInterrupt


def test_an_interrupt_while_others_still_work_leaves_right_numbers(rng, monkeypatch):
    monkeypatch.setattr(planning, "THREADS_FROM", 0)
    W = Tensor(rng.standard_normal((4, 4)), requires_grad=True)

    def loss(x):
        hs = mg.scan(lambda h, x: (mg.tanh(h @ W + x),) * 2, mg.zeros((6, 4), "float64"), x)[1]
        return (hs**2).sum()

    step = compile(loss, threads=2)
    x, y = rng.standard_normal((2, 3, 6, 4))
    right = mg.grad(loss(Tensor(y)), W).value
    step.value_and_grad(x)
    (free,) = step.last.plans.values()
    (plan,) = free
    late = Late()
    with monkeypatch.context() as patch:
        patch.setattr(planning, "_pool", lambda threads: late)
        with pytest.raises(KeyboardInterrupt):
            step.value_and_grad(x[:, :, ::-1])  # an array that is laid out anew for the call
    assert plan not in free, "somebody still writes into it"
    _, found = step.value_and_grad(y)
    np.testing.assert_allclose(found[W], right, rtol=1e-12)
    kept = found[W].copy()
    gone = weakref.ref(plan)
    del plan
    gc.collect()
    assert gone() is not None, "who still works holds the memory that he writes to"
    late.go.set()
    assert late.done.wait(WAIT)
    np.testing.assert_array_equal(found[W], kept)
    np.testing.assert_allclose(step.value_and_grad(y)[1][W], right, rtol=1e-12)


# Forks.


@needs_fork
def test_a_fork_after_threads_were_used_goes_on_with_threads_of_its_own(rng, monkeypatch):
    monkeypatch.setattr(planning, "THREADS_FROM", 0)
    cell = RNN(3, 4, rng)
    step = compile(lambda x: (run(cell, x).h ** 2).mean(), threads=2)
    x = rng.standard_normal((5, 6, 3)).astype("f4")
    right = step.value_and_grad(x)[0].item()
    for _ in range(2):  # the parent's own threads still work, and the next child's too
        assert in_a_fork(lambda: [step.value_and_grad(x)[0].item(), in_a_fork(lambda: step(x).value)[0]]) == (
            pytest.approx([right, right], rel=1e-6)
        )
        assert step.value_and_grad(x)[0].item() == right


@needs_fork
def test_a_fork_while_a_thread_makes_a_program_or_adds_a_gradient():
    W = Tensor(np.ones(3), requires_grad=True)
    begun = threading.Event()

    def loss(x):
        begun.set()
        time.sleep(0.2)  # the fork falls into this
        return (x * W).sum()

    step = compile(loss)

    def learn():
        for _ in range(200):
            (W * 1.0).sum().backward()

    with ThreadPoolExecutor(2) as pool:
        work = [pool.submit(step.value_and_grad, np.ones(3)), pool.submit(learn)]
        assert begun.wait(WAIT)

        def child():
            W.grad = None
            return [step.backward(np.ones(3)).item(), *np.ravel(W.grad)]

        assert in_a_fork(child).tolist() == [3, 1, 1, 1]
        assert work[0].result(WAIT)[0].item() == 3
        work[1].result(WAIT)


# Other processes that go on.


class Model(Layer):
    def __init__(self, rng):
        super().__init__("float64")
        self.rnn = Stack(LSTM, 3, 4, 2, rng, "float64")
        self.output = Output(4, 2, rng, "float64")

    def loss(self, x, target):
        return mg.mse(self.output(self.rnn(x).last), target)


def learn(model, optimiser, step, rng, count):
    """Goes on with training and gives all back; run here or elsewhere."""
    for _ in range(count):
        optimiser.zero_grad()
        x, target = rng.standard_normal((3, 2, 3)), rng.standard_normal((2, 2))
        (step.backward(x, target) if step else model.loss(x, target).backward())
        optimiser.step()
    return model, optimiser, step, rng


def beginning(compiled):
    rng = np.random.default_rng(7)
    model = Model(rng)
    return model, optim.Adam(model.parameters(), 0.05), compile(model.loss) if compiled else None, rng


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("compiled", [False, True])
def test_another_process_goes_on_with_training_to_the_same_bits(method, compiled):
    here = learn(*beginning(compiled), 6)
    begun = learn(*beginning(compiled), 2)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        there = pool.submit(learn, *begun, 2).result(WAIT)
    numbers = {p.number for p in begun[0].parameters().values()}
    assert not numbers & {p.number for p in there[0].parameters().values()}
    assert all(p is q for p, q in zip(there[0].parameters().values(), there[1].parameters, strict=True))
    back = learn(*there, 2)
    assert list(here[0].parameters()) == list(back[0].parameters())
    for p, q in zip(here[0].parameters().values(), back[0].parameters().values(), strict=True):
        np.testing.assert_array_equal(p.value, q.value)
        np.testing.assert_array_equal(p.grad, q.grad)
        assert p.name == q.name


def beside_its_own(b):
    """A leaf that came from elsewhere beside many of this process: gradients do not mix."""
    own = [Tensor([1.0], requires_grad=True) for _ in range(2 * b.size)]
    loss = (b * 5).sum()
    for a in own:
        loss = loss + (a * 2).sum()
    loss.backward()
    return {float(a.grad[0]) for a in own}, b.grad


@every_method
def test_a_tensor_from_elsewhere_takes_no_number_of_this_process(method):
    b = Tensor(np.ones(100), requires_grad=True)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        own, gradient = pool.submit(beside_its_own, b).result(WAIT)
    assert own == {2.0} and (gradient == 5).all() and b.grad is None


def loss_of(model, x, target):
    return model.loss(x, target).item()


def test_joblib_copies_rightly():
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    rng = np.random.default_rng(0)
    model = Model(rng)
    x, target = rng.standard_normal((3, 2, 3)), rng.standard_normal((2, 2))
    found = joblib.Parallel(2)(joblib.delayed(loss_of)(model, x, target + k) for k in range(2))
    assert found == [loss_of(model, x, target + k) for k in range(2)]
