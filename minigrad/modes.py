"""What holds for the operations made here: whether they are recorded, anomaly checks, the scope they stand in.

It is kept in a context variable, so that neither threads nor asyncio tasks see each other's: a
task begins with what held where it was made, a thread with nothing but what is usual.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from .errors import GraphError, describe

# (record, anomaly, scope, tracing): one tuple, because every operation reads it and reading is not free.
_modes: ContextVar[tuple[bool, bool, tuple[str, ...], bool]] = ContextVar(
    "minigrad modes", default=(True, False, (), False)
)
modes = _modes.get  # modes() → the tuple


@contextmanager
def _changed(
    record: bool | None = None,
    anomaly: bool | None = None,
    scope: tuple[str, ...] = (),
    tracing: bool | None = None,
) -> Iterator:
    before = modes()
    token = _modes.set(
        (
            before[0] if record is None else record,
            before[1] if anomaly is None else anomaly,
            (*before[2], *scope),
            before[3] if tracing is None else tracing,
        )
    )
    try:
        yield
    finally:
        # A generator that was left inside may be closed in another context, where nothing of this holds.
        with suppress(ValueError):
            _modes.reset(token)


def scope(*labels: str):
    """Nodes made inside belong to this scope: ``with scope("t=3"): …``."""
    return _changed(scope=labels)


def no_grad():
    """Nothing is recorded inside: values only, no graph, no gradients."""
    return _changed(record=False)


def anomaly():
    """Stop at the first node whose value or gradient is not finite, naming it."""
    return _changed(anomaly=True)


def recording(tracing: bool | None = None):
    """What is made inside is recorded, also within no_grad; with ``tracing`` it is a trace, whose Python runs once."""
    return _changed(record=True, tracing=tracing)


# For each scan whose step is being traced: what is younger than this is the step's own.
_steps: ContextVar[tuple[int, ...]] = ContextVar("minigrad steps", default=())


@contextmanager
def step_of_scan(start: int) -> Iterator:
    """Inside, the step of a scan is traced."""
    token = _steps.set((*_steps.get(), start))
    try:
        yield
    finally:
        _steps.reset(token)


def refuse_outside(y, targets, nodes) -> None:
    """What a step is given may depend on anything outside, and the step does not know how."""
    for start in _steps.get():
        outside = next((x for x in targets if x.number <= start), None)
        if outside is not None and any(n.op is None and n.is_symbol and n.number > start for n in nodes):
            raise GraphError(
                f"gradient of {describe(y)} inside of the step of a scan, with respect to {describe(outside)}, which "
                "is outside: how the step's inputs depend on it is not known there; take it after the scan"
            )
