"""`check(program)`: is what is compiled what is seen?  None, or a `Finding` that says what differs.

Each call of a program is made twice, eagerly and compiled, and its values, further outputs and every gradient
are compared: shape, dtype, and numbers with |a − b| ≤ tol · (max |b| + 1), where tol is 1e-12 in float64 and
1e-5 in float32 and 1 is the scale of the computation, whose numbers are drawn to be moderate.  What is further
apart is a finding unless the program itself loses so much: it is run eagerly again with every number that it is
given changed by a few units in its last place (and, in float32, also in float64), and ten times the largest
change that this makes is allowed.  Where one raises a MinigradError so must the other.  Anything else that the
compiled run raises is a finding; that it runs eagerly, with its reason, is not.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import minigrad as mg
from minigrad.compiler import plan
from minigrad.compiler.places import DEFECT
from minigrad.compiler.plan import numbers_of
from minigrad.compiler.verify import verify
from minigrad.scanning import flatten
from minigrad.tensor import as_tensor

from .programs import Built, Program, build, names_in, of_packed, packed, symbolic

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
NOISE = 10.0
RUNS_EAGERLY: Counter = Counter()  # reasons why programs were not compiled, counted


@dataclass
class Finding:
    """What differs; `kind` is value | shape | dtype | raises | accepts | crash | defect | numeric."""

    kind: str
    message: str
    stamp: str = ""  # what tells findings of one kind apart: the exception, or nothing

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    def same(self, other: Finding | None) -> bool:
        return other is not None and (self.kind, self.stamp) == (other.kind, other.stamp)


class Results:
    """Values and gradients of one call, by name, or the MinigradError that it raised."""

    def __init__(self, quantities: dict[str, np.ndarray] | None, error: Exception | None = None):
        self.quantities, self.error = quantities or {}, error


# Two ways to run.


def eager(program: Program, built: Built, k: int) -> Results:
    arguments = [symbolic(a) for a in built.calls[k]]
    try:
        with np.errstate(all="ignore"):
            outputs = [as_tensor(o) for o in flatten(built.function(*arguments))[0]]
            found = {f"output {j}": o.value for j, o in enumerate(outputs)}
            if program.gradients:
                wrt = _wrt(program, built, arguments)
                gradients = mg.grad(outputs[0], list(wrt.values()))
                found |= {f"d{name}": g.value for name, g in zip(wrt, gradients, strict=True)}
    except mg.MinigradError as error:
        return Results(None, error)
    return Results(found)


def compiled(program: Program, built: Built, k: int, function, run: Callable) -> Results:
    arguments = built.calls[k]
    try:
        values, gradients = run(function, packed(program, arguments), program.threads, program.gradients)
    except mg.MinigradError as error:
        return Results(None, error)
    outputs, _ = flatten(values)
    found = {f"output {j}": o.value for j, o in enumerate(outputs)}
    if program.gradients:
        for name, x in _wrt(program, built, arguments).items():
            found[f"d{name}"] = gradients[x] if x in gradients else np.zeros(x.shape, x.dtype)
    return Results(found)


def _wrt(program: Program, built: Built, arguments: list) -> dict[str, mg.Tensor]:
    own = {g.name: a for g, a in zip(program.arguments, arguments, strict=True) if g.form == "grad"}
    return {**built.leaves, **own}


# Runners: (compiled function, arguments, threads, with gradients?) -> (values, gradients or None)


def by_machine(function, arguments, threads, gradients):
    """The machine code, on as many threads as the program says, however small its arrays are."""
    before = plan.THREADS_FROM
    plan.THREADS_FROM = -1
    try:
        verified(function, arguments, threads, gradients)
        return function.value_and_grad(*arguments) if gradients else (function(*arguments), None)
    finally:
        plan.THREADS_FROM = before


def verified(function, arguments, threads, gradients) -> None:
    """Raises what the verifier finds, which looks at the program and at no number."""
    variant, call = function.variant(arguments, gradients)
    if variant is not None:
        verify(variant.program, numbers_of(variant.traced, call.shapes), threads)


def by_interpreter(function, arguments, threads, gradients):
    """The emitted source, run by Python."""
    from .interpret import interpreted

    return interpreted(function, *arguments, parts=threads, gradients=gradients)


RUNNERS = {"machine": by_machine, "interpret": by_interpreter}


# The comparison.


def check(program: Program, run: str | Callable = "machine") -> Finding | None:
    """None, or the first thing in which compiled and eager differ.

    run : "machine", "interpret", or a function like them.
    """
    runner = RUNNERS[run] if isinstance(run, str) else run
    built = build(program)
    function = mg.compile(of_packed(program, built.function), threads=program.threads)
    for k in range(len(built.calls)):
        if k:
            _assign_anew(built, k)
        right = eager(program, built, k)
        if _nothing_to_unroll(right):
            continue
        with warnings.catch_warnings(record=True) as heard, np.errstate(all="ignore"):
            warnings.simplefilter("always")
            try:
                got = compiled(program, built, k, function, runner)
            except Exception as error:
                if right.error is not None and "before it was written" in str(error):
                    continue  # what follows a bad index is read by the interpreter before the call is refused
                return _crash(error, k)
        said = [str(w.message) for w in heard if "runs eagerly" in str(w.message)]
        RUNS_EAGERLY.update(map(_reason, said))
        if any(DEFECT in message for message in said):  # it is caught for users, and must not happen
            return Finding("defect", f"call {k}: {said[0]}", _reason(said[0]))
        finding = compare(program, right, got, k)
        if finding:
            return finding
        if said:  # the other calls would compare eager with itself
            return None
    return None


def _nothing_to_unroll(right: Results) -> bool:
    """A scan over T = 0 steps is refused eagerly, where nothing tells the outputs' shapes, and is well compiled."""
    return right.error is not None and "T = 0" in str(right.error)


def _assign_anew(built: Built, k: int) -> None:
    """What is captured has other values at the next call, as after an optimiser's step."""
    for x in {id(x): x for x in [*built.leaves.values(), *_constants(built)]}.values():
        x.value = (x.value * (1 - 0.1 * k) + 0.05).astype(x.dtype)


def _crash(error: Exception, k: int) -> Finding:
    at = error.__traceback__
    where = ""
    while at is not None:
        file = at.tb_frame.f_code.co_filename
        if "minigrad" in file or "emitted" in file:
            where = f"{file.rsplit('/', 1)[-1]}: {at.tb_frame.f_code.co_name}"
        at = at.tb_next
    said = str(error).strip().splitlines() or [""]
    return Finding(
        "crash",
        f"call {k}: {type(error).__name__}: {' | '.join(said)[:300]} (in {where})",
        f"{type(error).__name__} {where}",
    )


def _reason(message: str) -> str:
    """The reason of a warning without the names of this program."""
    message = message.split("runs eagerly:", 1)[-1].strip()
    message = re.sub(r"(function|<lambda>): | ?'[^']*'", "", message)
    message = re.sub(r"\([^)]*\)|\b(?!float|int|uint)[a-zA-Z_]*\d\w*|-?\b\d+\b", "…", message)
    return message[:120]


def compare(program: Program, right: Results, got: Results, k: int) -> Finding | None:
    if right.error is not None or got.error is not None:
        if right.error is not None and got.error is not None:
            return None
        if right.error is not None:
            if _of_what_nobody_asked_for(program, k):
                return None
            return Finding(
                "accepts", f"call {k}: eager raises {type(right.error).__name__}: {right.error}; compiled gives a result",
                type(right.error).__name__,
            )  # fmt: skip
        return Finding(
            "raises", f"call {k}: compiled raises {type(got.error).__name__}: {got.error}; eager gives a result",
            type(got.error).__name__,
        )  # fmt: skip
    if set(right.quantities) != set(got.quantities):
        return Finding(
            "shape", f"call {k}: results {sorted(got.quantities)}, eager {sorted(right.quantities)}"
        )
    for name, b in right.quantities.items():
        a = np.asarray(got.quantities[name])
        if a.shape != b.shape:
            return Finding("shape", f"call {k}: {name} has shape {a.shape}, eager {b.shape}")
        if a.dtype != b.dtype:
            return Finding("dtype", f"call {k}: {name} is {a.dtype}, eager {b.dtype}")
    allowed: dict[str, float] | None = None
    outputs = [b for name, b in right.quantities.items() if not name.startswith("d") and b.dtype.kind == "f"]
    holes = any(g.kind == "holes" for g in program.arguments) or not all(
        np.isfinite(b).all() for b in outputs
    )
    for name, b in right.quantities.items():
        a = np.asarray(got.quantities[name])
        # 0 · NaN: a step that no loss depends on, a tap outside of the sequence.
        if holes and name.startswith("d"):
            a = np.where(np.isnan(a) | np.isnan(b), b, a)
        if _far(a, b, program.dtype):
            allowed = noise(program, k) if allowed is None else allowed
            if _far(a, b, program.dtype, allowed.get(name, 0.0)):
                at, x, y = _worst(a, b)
                return Finding("value", f"call {k}: {name}{at or ''} is {x!r} compiled, {y!r} eager")
    return None


def _of_what_nobody_asked_for(program: Program, k: int) -> bool:
    """Does the error come from a statement that no output depends on?  Such are not compiled, and may not raise."""
    from .shrink import without_dead_states

    look_ups = ("gather", "scatter", "one_hot", "take")
    looked_up = [
        n
        for s in program.statements()
        if s.op in look_ups or (s.op == "index" and names_in(s.params["index"]))
        for n in s.to
    ]
    if any(f"{n}.shape" in str(s.of) + str(s.params) for n in looked_up for s in program.statements()):
        return True  # only its shape may be asked for
    program = without_dead_states(program)
    built = build(program)
    for j in range(1, k + 1):
        _assign_anew(built, j)
    return eager(program, built, k).error is None


def _far(a: np.ndarray, b: np.ndarray, dtype: str, noise: float = 0.0) -> bool:
    if b.dtype.kind != "f":
        return bool((a != b).any()) and not noise
    same = (np.isnan(a) & np.isnan(b)) | (a == b)
    if same.all():
        return False
    finite = np.isfinite(b)
    bound = TOLERANCE[dtype] * (np.abs(b[finite]).max(initial=0.0) + 1) + NOISE * noise
    with np.errstate(all="ignore"):
        return not bool((same | (np.abs(a.astype(float) - b) <= bound)).all())


def _worst(a: np.ndarray, b: np.ndarray) -> tuple:
    with np.errstate(all="ignore"):
        apart = np.abs(a.astype(float) - b.astype(float))
    apart = np.where(np.isnan(apart), np.where(np.isnan(a) & np.isnan(b), 0, np.inf), apart)
    at = np.unravel_index(int(apart.argmax()), a.shape) if a.size else ()
    return tuple(map(int, at)), a[at].item(), b[at].item()


def noise(program: Program, k: int) -> dict[str, float]:
    """By how much each quantity changes when all that is given changes in its last places: what rounding may do."""
    exact = _eager_at(program, k, program.dtype, None)
    others = [_eager_at(program, k, program.dtype, s) for s in range(4)]
    if program.dtype == "float32":
        others.append(_eager_at(program, k, "float64", None))
    found: dict[str, float] = {}
    for other in others:
        for name, b in exact.items():
            a = other.get(name)
            if a is not None and a.shape == b.shape and a.size:
                with np.errstate(all="ignore"):
                    apart = np.abs(a.astype(float) - b.astype(float))
                found[name] = max(found.get(name, 0.0), float(np.nan_to_num(apart, nan=0.0).max()))
    return found


def _eager_at(program: Program, k: int, dtype: str, seed: int | None) -> dict[str, np.ndarray]:
    built = build(program, dtype)
    if program.dtype != dtype:  # the same numbers, to more places
        same = build(program)
        for name, x in same.leaves.items():
            built.leaves[name].value = x.value
        for own, other in zip(built.calls[k], same.calls[k], strict=True):
            if isinstance(own, mg.Tensor):
                own.value = other.value
            elif isinstance(own, np.ndarray) and own.dtype.kind == "f":
                own[...] = other
    for j in range(1, k + 1):
        _assign_anew(built, j)
    if seed is not None:
        rng = np.random.default_rng(seed)
        unit = 4 * np.finfo(dtype).eps

        def shaken(v):
            whole = v == np.round(2 * v) / 2  # ties among round numbers are meant
            return np.where(whole, v, v * (1 + unit * rng.uniform(-1, 1, v.shape))).astype(v.dtype)

        for x in {id(x): x for x in [*built.leaves.values(), *_constants(built)]}.values():
            x.value = shaken(x.value)
        for j, x in enumerate(built.calls[k]):
            if isinstance(x, mg.Tensor) and x.dtype.kind == "f":
                x.value = shaken(x.value)
            elif isinstance(x, np.ndarray) and x.dtype.kind == "f":
                built.calls[k][j] = shaken(x)
    return eager(program, built, k).quantities


def _constants(built: Built) -> list[mg.Tensor]:
    return [
        x
        for n, x in built.namespace.items()
        if n[0] == "c" and isinstance(x, mg.Tensor) and x.dtype.kind == "f"
    ]


# Eager against numbers.


def is_smooth(program: Program) -> bool:
    """Can differences judge the first call: no kinks, no hooks, nothing cut, and float64?"""
    if program.dtype != "float64" or not program.gradients or any(g.hook for g in program.leaves):
        return False
    built = build(program)
    if eager(program, built, 0).error is not None:
        return False
    arguments = [symbolic(a) for a in built.calls[0]]
    with np.errstate(all="ignore"):
        outputs, _ = flatten(built.function(*arguments))
    return not any(n.op is not None and n.op.name in KINKS for n in mg.ancestors(outputs[0]))


def check_numerically(program: Program) -> Finding | None:
    """Eager gradients of the first call, along one direction, against central differences; None also where the
    program is not smooth, so that these are no judge."""
    if not is_smooth(program) or any(g.kind == "holes" for g in program.arguments):
        return None
    built = build(program)
    right = eager(program, built, 0)
    arguments = [symbolic(a) for a in built.calls[0]]
    rng = np.random.default_rng(0)
    wrt = list(_wrt(program, built, arguments).values())
    start = [x.value for x in wrt]
    along = [rng.standard_normal(x.shape) for x in wrt]
    names = list(_wrt(program, built, arguments))
    exact = sum(float((right.quantities[f"d{n}"] * u).sum()) for n, u in zip(names, along, strict=True))
    scale = sum(float(np.abs(right.quantities[f"d{n}"] * u).sum()) for n, u in zip(names, along, strict=True))

    def at(step: float) -> float:
        for x, v, u in zip(wrt, start, along, strict=True):
            x.value = v + step * u
        with np.errstate(all="ignore"):
            return flatten(built.function(*arguments))[0][0].item()

    estimates = []
    for h in (1e-3, 2e-4):
        estimates.append((8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h))
    spread = abs(estimates[0] - estimates[1])
    if not np.isfinite(exact) or abs(exact - estimates[1]) <= 1e-6 * (scale + 1) + 20 * spread:
        return None
    return Finding(
        "numeric", f"the derivative along a direction is {exact!r} eager, {estimates[1]!r} by differences"
    )


KINKS = {
    "sign", "abs", "maximum", "where", "max", "greater", "greater_equal", "equal", "cast", "detach", "floor", "ceil", "round",
    "mod", "floor_divide",
}  # fmt: skip
