"""What holds for the operations made here: whether they are recorded, anomaly checks, the scope they stand in.

It is kept in a context variable, so that neither threads nor asyncio tasks see each other's: a
task begins with what held where it was made, a thread with nothing but what is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps

from .errors import GraphError, describe

# (record, anomaly, scope, tracing): one tuple, because every operation reads it and reading is not free.
_modes: ContextVar[tuple[bool, bool, tuple[str, ...], bool]] = ContextVar(
    "minigrad modes", default=(True, False, (), False)
)
modes = _modes.get  # modes() → the tuple


class _Changed:
    """What holds inside of a ``with``, or of a function that it decorates: a class, as it is entered at every step."""

    __slots__ = "anomaly", "record", "scope", "tokens", "tracing"

    def __init__(self, record=None, anomaly=None, scope: tuple[str, ...] = (), tracing=None):
        self.record, self.anomaly, self.scope, self.tracing = record, anomaly, scope, tracing
        self.tokens: tuple = ()  # (that of the innermost with, those around it)

    def __enter__(self) -> None:
        record, anomaly, scope, tracing = modes()
        token = _modes.set(
            (
                record if self.record is None else self.record,
                anomaly if self.anomaly is None else self.anomaly,
                scope + self.scope,
                tracing if self.tracing is None else self.tracing,
            )
        )
        self.tokens = token, self.tokens

    def __exit__(self, *_) -> None:
        # A generator that was left inside may be closed in another context, where nothing of this holds.
        token, self.tokens = self.tokens
        try:  # noqa: SIM105 (suppress takes as long as all the rest)
            _modes.reset(token)
        except ValueError:
            pass

    def __call__(self, function: Callable) -> Callable:
        @wraps(function)
        def inside(*args, **options):
            with _Changed(self.record, self.anomaly, self.scope, self.tracing):
                return function(*args, **options)

        return inside


def scope(*labels: str):
    """Nodes made inside belong to this scope: ``with scope("t=3"): …``."""
    return _Changed(scope=labels)


def no_grad():
    """Nothing is recorded inside: values only, no graph, no gradients."""
    return _Changed(record=False)


def anomaly():
    """Stop at the first node whose value or gradient is not finite, naming it."""
    return _Changed(anomaly=True)


def recording(tracing: bool | None = None):
    """What is made inside is recorded, also within no_grad; with ``tracing`` it is a trace, whose Python runs once."""
    return _Changed(record=True, tracing=tracing)


_remarks: ContextVar[list[str] | None] = ContextVar("minigrad remarks", default=None)


@contextmanager
def training() -> Iterator[list[str]]:
    """Inside, a loss runs that is trained by: yields a list that gets what layers have to say of that, each thing once."""
    said: list[str] = []
    token = _remarks.set(said)
    try:
        yield said
    finally:
        _remarks.reset(token)


def remark(text: str) -> None:
    """Say something that matters where a layer is trained, and nowhere else."""
    said = _remarks.get()
    if said is not None and text not in said:
        said.append(text)


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
