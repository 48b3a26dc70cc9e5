"""The compiler where things are bad: other processors, no memory, long sequences and batches, long programs and Ctrl-C.

Each is right, or told in one line.  What is wrong with the cache's folder is in test_cache.py.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features

import minigrad as mg
from minigrad.compiler import cache, llvm, machine, memory, variant
from tests.compiler.test_cache import PROGRAM, VALUE, finish, start

# Processors.

LACKS = next((f"+{name}" for name, on in sorted(get_host_cpu_features().items()) if not on), "")
X86 = machine.TRIPLE.startswith("x86_64")
SETTINGS = {
    "a processor without a name": ({"NUMBA_CPU_NAME": "generic"}, ""),
    "a processor that LLVM does not know": ({"NUMBA_CPU_NAME": "made-up"}, "NUMBA_CPU_NAME=made-up is not used"),
    "a feature that LLVM does not know": ({"NUMBA_CPU_FEATURES": "+made-up"}, "NUMBA_CPU_FEATURES=.*is not used"),
    "over which LLVM ends the process": ({"NUMBA_CPU_FEATURES": "made-up"}, "begins with neither"),
    "numbers that are none": ({"NUMBA_OPT": "7"}, "NUMBA_OPT=7 is not one of 0, 1, 2, 3, max: 3 is used"),
}  # fmt: skip
if LACKS:
    SETTINGS["what this processor lacks"] = ({"NUMBA_CPU_FEATURES": LACKS}, re.escape(f"lacks {LACKS}"))
if X86:
    SETTINGS["no AVX"] = {"NUMBA_CPU_FEATURES": "-avx"}, ""
    SETTINGS["a processor of 32 bits"] = (
        {"NUMBA_CPU_NAME": "pentium", "NUMBA_CPU_FEATURES": ""},
        "NUMBA_CPU_NAME=pentium NUMBA_CPU_FEATURES= is not used",
    )


@pytest.mark.parametrize("case", SETTINGS)
def test_a_program_for_another_processor(case, tmp_path):
    settings, said = SETTINGS[case]
    out, err = finish(start(tmp_path, env=settings))
    assert out.startswith(VALUE) and err.split()[-1] == "compiled"
    assert err.count("UserWarning") == bool(said) and re.search(said, err), err
    assert len(err.splitlines()) == (3 if said else 1), "a warning is a line, and the line that it is about"


def test_processors_that_share_a_home(tmp_path):
    """Each finds its own, and leaves the other's."""
    another = {"NUMBA_CPU_NAME": "generic"}
    versions = "import llvmlite; llvmlite.__version__ = '0.0.1'\n" + PROGRAM
    runs = [({}, PROGRAM), (another, PROGRAM), ({}, versions)]
    for word in ("compiled", "found"):
        for settings, program in runs:
            out, err = finish(start(tmp_path, program, env=settings))
            assert out.startswith(VALUE) and err.split() == [word]


# Memory.


def gates(x):
    def step(h, x):
        return mg.tanh(h * 0.5 + x), None

    return (mg.scan(step, mg.zeros((x.shape[1], 64), "float32"), x)[0] ** 2).mean()


@pytest.mark.parametrize("told", [True, False], ids=["the system tells", "only NumPy's error"])
def test_more_memory_than_there_is(told, monkeypatch):
    if not told:
        monkeypatch.setattr(memory, "free_bytes", lambda: None)
    w = mg.Tensor(np.ones(64, "f4"), requires_grad=True)
    compiled = mg.compile(lambda x: gates(x * w))
    huge = np.broadcast_to(np.float32(0.5), (100_000, 100_000, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it does not try to run eagerly
        with pytest.raises(mg.TooLargeError) as error:
            compiled.value_and_grad(huge)
        assert re.fullmatch(
            r"<lambda>: for arguments of \(100000, 100000, 64\) it takes [\d,.]+ GiB \([\d.]+ MiB of results, [\d,.]+ GiB "
            r"of values in between\), .*: give fewer sequences at once, or fewer steps, and carry the detached state.*",
            str(error.value),
        )
        assert isinstance(error.value, MemoryError)
        value, gradients = compiled.value_and_grad(huge[:3, :2])
    right = gates(mg.Tensor(huge[:3, :2]) * w)
    (slope,) = mg.grad(right, [w])
    np.testing.assert_allclose(value.value, right.value, rtol=1e-6)
    np.testing.assert_allclose(gradients[w], slope.value, rtol=1e-5)


def test_what_is_kept_for_other_sizes_goes_first(monkeypatch):
    compiled = mg.compile(lambda x: mg.tanh(x @ x.T).sum())
    most = [1 << 40]
    monkeypatch.setattr(variant, "kept_bytes", lambda: most[0])
    for n in (300, 310, 320):
        compiled(np.ones((n, 2)))
    assert compiled.last
    plans = compiled.last.plans
    sizes = lambda: [shapes[0][0] for shapes in plans]  # noqa: E731
    assert sizes() == [300, 310, 320]
    most[0] = sum(plan.bytes for plans in plans.values() for plan in plans)
    compiled(np.ones((900, 2)))
    compiled(np.ones((20, 2)))
    assert sizes() == [20], "what is too large is kept until it is called with other sizes"
    monkeypatch.setattr(memory, "ASKED_FROM", 0)
    monkeypatch.setattr(memory, "free_bytes", lambda: 0 if len(plans) > 1 else 1 << 40)
    compiled(np.ones((30, 2)))
    assert sizes() == [30], "and goes at once where there is no room"


def test_what_is_free_is_what_the_system_and_the_container_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert memory.free_bytes() is None
    (tmp_path / "meminfo").write_text(
        "MemTotal: 9000 kB\nMemAvailable:  500 kB\nSwapFree: 20 kB\nHugePages: 0\n"
    )
    assert memory.free_bytes() == 520 * 1024
    for name, text in {
        "max": "max",
        "current": "300000",
        "stat": "inactive_file 1000\nactive_file 500",
    }.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.free_bytes() == 520 * 1024
    (tmp_path / "memory.max").write_text("400000\n")
    assert memory.free_bytes() == 101_500


# Sizes.


@pytest.mark.parametrize(("T", "N"), [(100_000, 1), (2, 100_000)])
def test_many_steps_and_many_sequences(T, N, rng):
    """An RNN and its gradients, against loops in NumPy."""
    V, W = (mg.Tensor(0.4 * rng.standard_normal((3, 3)), requires_grad=True, name=n) for n in "VW")
    x = rng.standard_normal((T, N, 3))

    def loss(x):
        def step(h, x):
            h = mg.tanh(x @ V + h @ W)
            return h, h

        last, hs = mg.scan(step, mg.zeros((x.shape[1], 3), "float64"), x)
        return (hs * hs).mean() + last.sum()

    value, gradients = mg.compile(loss).value_and_grad(x)
    hs = np.zeros((T + 1, N, 3))
    for t in range(T):
        hs[t + 1] = np.tanh(x[t] @ V.value + hs[t] @ W.value)
    assert np.isclose(value.item(), (hs[1:] ** 2).mean() + hs[-1].sum(), rtol=1e-11)
    slopes, carried = np.empty((T, N, 3)), np.ones((N, 3))
    for t in range(T, 0, -1):
        slopes[t - 1] = (carried + 2 * hs[t] / (T * N * 3)) * (1 - hs[t] ** 2)
        carried = slopes[t - 1] @ W.value.T
    flat = slopes.reshape(-1, 3)
    np.testing.assert_allclose(gradients[V], x.reshape(-1, 3).T @ flat, rtol=1e-9)
    np.testing.assert_allclose(gradients[W], hs[:-1].reshape(-1, 3).T @ flat, rtol=1e-9)


@pytest.mark.skipif(
    (memory.free_bytes() or 0) < 10 << 30, reason="room for 8 GiB, of which little is touched"
)
def test_an_array_of_more_numbers_than_32_bits_count():
    n = 46_500  # n² is beyond 2³¹; pages of zeros are not there until they are written
    x = np.zeros((n, n), "f4")
    x[-1, -9:], x[-2, -1], x[0, 0] = np.arange(9), 5, 7
    rows = np.array([n - 1, 0, n - 2])

    def function(x, rows):
        return mg.gather(x, rows).sum(axis=1), x[-2:].sum(axis=1), x[-1, -3:], x[n - 2 :, n - 2 :] * 2.0

    results: tuple = mg.compile(function)(x, rows)
    for got, right in zip(
        results,
        (x[rows].sum(axis=1), x[-2:].sum(axis=1), x[-1, -3:], x[-2:, -2:] * 2),
        strict=True,
    ):
        np.testing.assert_array_equal(got.value, right)


# Long programs, and Ctrl-C.

x = mg.Tensor(np.random.default_rng(0).standard_normal((3, 4)), requires_grad=True, name="x")


def unlike(x):
    """Operations in an order of which no stretch is like another; no sum of them is 0."""
    draw, values = np.random.default_rng(1), [x]
    for _ in range(100):
        a, c = values[-1], values[-1 - int(draw.integers(0, min(len(values), 5)))]
        ways = [mg.tanh(a + c), a * 0.9 + x, mg.sigmoid(c) - a * 0.5, a - c @ np.eye(4) * 0.3]
        values.append(ways[int(draw.integers(0, len(ways)))])
    return (values[-1] ** 2).sum()


@pytest.fixture
def short_pieces(monkeypatch, tmp_path):
    """Pieces so short that a program of seconds has many, and an empty cache."""
    monkeypatch.setattr(llvm, "PIECE", 10_000)
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_programs", {})


def test_a_long_program_is_compiled_in_pieces(short_pieces, monkeypatch, tmp_path):
    pieces: list[int] = []
    made = machine._emitted
    monkeypatch.setattr(
        machine, "_emitted", lambda text, level: [pieces.append(len(text)), made(text, level)][1]
    )
    compiled = mg.compile(unlike)
    value, gradients = compiled.value_and_grad(x)
    assert len([n for n in pieces if n > 10_000]) > 10 and max(pieces) < 300_000
    (slope,) = mg.grad(unlike(x), [x])
    np.testing.assert_allclose(value.value, unlike(x).value, rtol=1e-12)
    np.testing.assert_allclose(gradients[x], slope.value, rtol=1e-10)
    monkeypatch.setattr(cache, "_programs", {})
    found = mg.compile(unlike)
    assert found.value_and_grad(x)[0].item() == value.item() and found.last and found.last.module.found
    monkeypatch.setattr(llvm, "PIECE", 1 << 40)
    monkeypatch.setattr(cache, "_programs", {})
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "whole"))
    whole = mg.compile(unlike)
    assert whole.value_and_grad(x)[0].item() == value.item(), "the same bits as in one piece"
    assert whole.last and not whole.last.module.found


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_ends_a_long_compilation_with_the_piece_at_hand(short_pieces, monkeypatch, tmp_path):
    """What LLVM is at, a second at most, is finished in its thread; nothing more is begun, and the next call goes well."""
    begun, made = [0], machine._emitted

    def emitted(text, level):
        begun[0] += 1
        if begun[0] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return made(text, level)

    monkeypatch.setattr(machine, "_emitted", emitted)
    compiled, threads = mg.compile(unlike), threading.active_count()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            compiled.value_and_grad(x)
    finally:
        signal.signal(signal.SIGINT, before)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and "ThreadPool" in thread.name:
            thread.join(30)
    assert begun == [3] and threading.active_count() <= threads
    left = [
        f.name for f in Path(tmp_path / "cache").iterdir() if f.suffix == ".o" or f.name.startswith("part")
    ]
    assert not left, "nothing half made"
    value, _ = compiled.value_and_grad(x)
    np.testing.assert_allclose(value.value, unlike(x).value, rtol=1e-12)
