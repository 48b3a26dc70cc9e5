"""What to run first on a cell of one's own: `check(cell)` tries all that a cell is for, and says what does not work.

Each trial is a function that returns what it measured, or raises what is wrong.  They work on copies, most of them
in float64 and with weights a little away from their first values, so the cell itself stays as it is.
"""

from __future__ import annotations

import copy
import inspect
import io
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigrad import (
    OPS,
    GraphError,
    InputError,
    MinigradError,
    Tensor,
    ancestors,
    anomaly,
    check_grads,
    compile,
    describe,
    optim,
)
from minigrad.check import KinkError
from minigrad.errors import dims, first_bad
from minigrad.names import printable
from minigrad.roles import Role

from .embedding import Embedding
from .layer import Layer
from .recurrence import state_names
from .sequence import causal, run
from .steps import Run

T, N = 5, 2  # steps and sequences of the trials
DRAWS = 20  # of weights and inputs, until none is at a kink
AGREE = 1e-9  # how far compiled numbers may be from eager ones in float64, relative to the largest
SMALL = {"inputs": 3, "hidden": 4, "width": 4, "heads": 2, "layers": 2, "blocks": 2, "levels": 2,
         "taps": 3, "dilation": 1, "classes": 4}  # fmt: skip
OURS = tuple(Path(__file__).parent.parent / package for package in ("minigrad", "cells", "viz"))


class Row(NamedTuple):
    """One trial: `ok` is None where it could not be made, `measured` says what was found, `look` that all is well
    but somebody should look at it."""

    name: str
    ok: bool | None
    measured: str
    look: bool = False


class Checked:
    """What `check` found: true where all is well; it prints as one line and a table.

    `rows` has a `Row` (name, ok, measured) for each trial.
    """

    def __init__(self, name: str, rows: list[Row]):
        self.name, self.rows = name, rows

    def __bool__(self) -> bool:
        return all(row.ok is not False for row in self.rows)

    @property
    def line(self) -> str:
        """The answer in one line."""
        wrong = [row.name for row in self.rows if row.ok is False]
        if wrong:
            return f"{self.name}: wrong at {', '.join(wrong)}"
        look = [row.name for row in self.rows if row.look]
        return f"{self.name}: all is well" + (f"; look at {', '.join(look)}" if look else "")

    def __repr__(self) -> str:
        from rich.console import Console  # loaded only where a table is drawn
        from rich.table import Table
        from rich.text import Text

        table = Table("", "check", "measured")
        for row in self.rows:
            sign = "look" if row.look else {True: "ok", False: "WRONG", None: "–"}[row.ok]
            table.add_row(*map(Text, (sign, row.name, row.measured)))
        page = io.StringIO()
        Console(file=page, width=110, color_system=None).print(table)
        return f"{self.line}\n{page.getvalue()}".rstrip("\n")


def check(layer, xs=None, **beside) -> Checked:
    """Try a cell or layer of your own: ``print(cells.check(MyCell))``.

    layer : a made cell, stack, TCN, …, or whatever else `run` takes; or a class, which is made with small sizes.
    xs : an example of what it reads, (T, N, …) with T of at least 3; default: random numbers (5, 2, inputs).
    beside : what its step takes beside x, one row a step, as for `run`: ``keep=array`` (T, N, …).

    The trials: it can be made and run, and its states and outputs have the shapes that it says; its quantities have
    names; the same input gives the same numbers again, all finite; every parameter is used; gradients equal finite
    differences (`minigrad.check_grads`, away from the kinks of relu, abs and max); the compiled program equals the
    eager run in values and gradients, for two lengths, new weights and padded sequences; equations and a picture can
    be made; and a step of gradient descent lowers a loss.

    The layer is left as it is.  What is wrong with it is said in a row of the `Checked` that is returned, and is no
    error.  Raises InputError for what is not a layer, and for an `xs` of fewer than 3 steps.
    """
    if isinstance(layer, Tensor) or not (callable(layer) or hasattr(layer, "step")):
        raise InputError(
            f"check: {printable(repr(layer))} is not a layer; give a cell, another layer, or its class"
        )
    if xs is not None and (np.ndim(xs) < 2 or len(xs) < 3):
        raise InputError(f"check: xs has shape {dims(np.shape(xs))}; give (T, N, …) with T of at least 3")
    name = printable(layer.__name__ if inspect.isclass(layer) else type(layer).__name__)
    subject = Subject(layer, xs, beside)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [_tried("runs", subject, _runs)]
        for title, trial in TRIALS.items():
            rows.append(
                _tried(title, subject, trial)
                if rows[0].ok
                else Row(title, None, "not tried: it does not run")
            )
    return Checked(name, rows)


class Look(Exception):  # noqa: N818 - nothing is wrong
    """All is well, but somebody should look at this."""


class NotTried(Exception):  # noqa: N818 - nothing is wrong
    """Why a trial cannot be made here."""


def _tried(title: str, subject: Subject, trial: Callable[[Subject], str]) -> Row:
    try:
        with np.errstate(all="ignore"):
            return Row(title, True, trial(subject))
    except Look as said:
        return Row(title, True, str(said), look=True)
    except NotTried as reason:
        return Row(title, None, str(reason))
    except Exception as error:  # whatever a faulty cell raises
        return Row(title, False, _in_words(error))


def _in_words(error: Exception) -> str:
    """An error, and in which line of the caller's own code it came up."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__)
        if not any(Path(f.filename).is_relative_to(folder) for folder in OURS)
    ]  # fmt: skip
    kind = "" if isinstance(error, MinigradError) else f"{type(error).__name__}: "
    place = (
        f" ({frames[-1].name}, line {frames[-1].lineno} of {Path(frames[-1].filename).name})"
        if frames
        else ""
    )
    return printable(f"{kind}{error}{place}", 1000)


# What is tried: the layer, and copies of it.


class Subject:
    """The layer, what it reads, and copies of it with other weights."""

    def __init__(self, layer, xs, beside: dict):
        self.layer, self.given, self.beside = layer, xs, {k: np.asarray(a) for k, a in beside.items()}
        self.outputs: tuple = ()  # the shape of its outputs

    def copy(self, rng: np.random.Generator | None = None, given: dict[int, Tensor] | None = None) -> Any:
        """A copy in float64: with given leaves by id, or with weights drawn near its own."""
        memo: dict[int, Any] = {}
        for leaf in _arrays_in(self.layer):
            memo[id(leaf)] = given[id(leaf)] if given and id(leaf) in given else _wider(leaf, rng)
        other = copy.deepcopy(self.layer, memo)
        for part in _parts_in(other):
            if "dtype" in vars(part):
                vars(part)["dtype"] = np.dtype("float64")
        return other

    def parameters(self) -> dict[str, Tensor]:
        """Those that learn."""
        own = self.layer.parameters() if hasattr(self.layer, "parameters") else {}
        return {name: p for name, p in own.items() if p.requires_grad}

    def xs(self, rng: np.random.Generator, dtype="float64", length: int | None = None) -> np.ndarray:
        """What it reads, at most so long."""
        if self.given is not None:
            xs = np.asarray(self.given.value if isinstance(self.given, Tensor) else self.given)
            return xs[:length].astype(dtype) if xs.dtype.kind == "f" else xs[:length]
        first = next((p for p in _parts_in(self.layer) if isinstance(p, Embedding) or _inputs(p)), None)
        if isinstance(first, Embedding):
            return rng.integers(0, first.classes, (T, N))[:length]
        if first is None:
            raise InputError("the width of its input is not known; give an example: check(layer, xs)")
        return rng.standard_normal((T, N, _inputs(first) or 1)).astype(dtype)[:length]

    def rows(self, length: int | None = None, dtype="float64") -> dict[str, np.ndarray]:
        """What its step takes beside x."""
        return {
            name: a[:length].astype(dtype if a.dtype.kind == "f" else a.dtype)
            for name, a in self.beside.items()
        }

    def weigh(self, xs, rng: np.random.Generator) -> np.ndarray:
        """A weight for each output, so that no gradient cancels."""
        return rng.standard_normal((len(xs), *self.outputs[1:]))


def _loss(layer, x, weigh, **options) -> Tensor:
    """One number in which every output and every last state counts."""
    found = run(layer, x, **options)
    total = (found.outputs * weigh).sum()
    for s in found.state:
        total = total + (s * s).sum() if s.dtype.kind == "f" else total
    return total


def _inputs(part) -> int | None:
    inputs = getattr(part, "inputs", None)
    return int(inputs) if isinstance(inputs, (int, np.integer)) else None


def _held(part) -> list:
    if isinstance(part, (list, tuple)):
        return list(part)
    if isinstance(part, dict):
        return list(part.values())
    is_array = isinstance(part, (Tensor, np.ndarray, np.generic, np.dtype))
    return (
        list(vars(part).values())
        if hasattr(part, "step") or (isinstance(part, Layer) and not is_array)
        else []
    )


def _everything_in(layer) -> Iterator:
    """The layer and what it holds, layers and arrays, each once, in order."""
    seen: set[int] = set()
    left = [layer]
    while left:
        part = left.pop(0)
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            left = _held(part) + left


def _parts_in(layer) -> Iterator:
    return (p for p in _everything_in(layer) if isinstance(p, Layer) or hasattr(p, "step"))


def _arrays_in(layer) -> Iterator:
    return (p for p in _everything_in(layer) if isinstance(p, (Tensor, np.ndarray)) and p.dtype.kind == "f")


def _wider(leaf, rng: np.random.Generator | None) -> Any:
    """A leaf in float64; if it learns, a little away from where it was."""
    if isinstance(leaf, np.ndarray):
        return leaf.astype(np.float64)
    value = leaf.value.astype(np.float64)
    if rng is not None and leaf.requires_grad:
        value = value + 0.2 * rng.standard_normal(value.shape)
    other = Tensor(value, requires_grad=leaf.requires_grad, name=leaf.name)
    other.role = None if leaf.role is None else Role(leaf.role.kind)
    return other


def _made(kind) -> Any:
    """A layer of a class, of small sizes."""
    wanted = [
        p for p in list(inspect.signature(kind).parameters.values())
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]  # fmt: skip
    known = {**SMALL, "rng": np.random.default_rng(0)}
    unknown = [p.name for p in wanted if p.name not in known]
    if unknown:
        raise InputError(
            f"{', '.join(unknown)} cannot be guessed; make the {kind.__name__} yourself and give that"
        )
    return kind(**{p.name: known[p.name] for p in wanted})


# The trials.


def _runs(s: Subject) -> str:
    """Makes the layer where it is a class; the shapes of its states and outputs."""
    if inspect.isclass(s.layer):
        s.layer = _made(s.layer)
    rng = np.random.default_rng(0)
    layer = s.copy()
    xs = s.xs(rng)
    found = run(layer, xs, **s.rows())
    s.outputs = tuple(found.outputs.shape)
    said = getattr(layer, "width", None)
    if isinstance(said, (int, np.integer)) and s.outputs[2:] != (said,):
        raise GraphError(
            f"outputs are {dims(s.outputs)}, and {type(layer).__name__}.width says {said} for each step; "
            "say how many numbers a step gives in a property `width`"
        )
    states = [f"{n} {dims(a.shape)}" for n, a in zip(state_names(layer), found.state, strict=False)]
    kept = f"; keeps {', '.join(states)}" if states else "; keeps no state"
    return f"{dims(xs.shape)} → {dims(s.outputs)}{kept}"


def _names(s: Subject) -> str:
    layer = s.copy()
    found = run(layer, s.xs(np.random.default_rng(0)), **s.rows())
    names = [n for n in found.names if n not in ("x", *s.beside)]
    missing = [gate for gate in getattr(layer, "gates", "").split() if gate not in names]
    if missing and found.steps:
        raise GraphError(
            f"step does not return the gate {', '.join(missing)}; return it too, so that pictures show it, or take "
            "it out of `gates`"
        )
    return ", ".join(names)


def _repeats(s: Subject) -> str:
    rng = np.random.default_rng(0)
    layer, xs = s.copy(rng), s.xs(rng)
    first, second = run(layer, xs, **s.rows()), run(layer, xs, **s.rows())
    for name, a, b in _both(first, second):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            raise GraphError(
                f"run twice, {name} differs: by {np.nanmax(np.abs(a - b)):.2g}; a random number, or a counter that it "
                "keeps, has to come from outside: give it beside x, as an argument of step"
            )
    return "run twice, the same bits"


def _both(first: Run, second: Run) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """All quantities of two runs, step by step where there are steps."""
    for a, b in zip(first.steps, second.steps, strict=True):
        for name in a:
            yield f"{name} at t={a.t}", a[name].value, b[name].value
    yield "the output", first.outputs.value, second.outputs.value


def _finite(s: Subject) -> str:
    rng = np.random.default_rng(0)
    layer, xs = s.copy(rng), s.xs(rng)
    found = run(layer, xs, **s.rows())
    for name, a, _ in _both(found, found):
        if not np.isfinite(a).all():
            with anomaly():  # names the operation that makes it
                run(layer, xs, **s.rows())
            raise GraphError(f"{name} is {first_bad(a)}")
    loss = _loss(layer, xs, s.weigh(xs, rng), **s.rows())
    if loss.requires_grad:
        loss.backward()
    for name, p in _learning(layer).items():
        if p.grad is not None and not np.isfinite(p.grad).all():
            raise GraphError(
                f"the gradient of {name} is {first_bad(p.grad)}, all values are finite; is there a root, a logarithm or "
                "a quotient at 0?"
            )
    largest = max(float(np.abs(a).max(initial=0)) for _, a, _ in _both(found, found))
    return f"quantities up to {largest:.2g}, gradients too"


def _learning(layer) -> dict[str, Tensor]:
    own = layer.parameters() if hasattr(layer, "parameters") else {}
    return {name: p for name, p in own.items() if p.requires_grad}


def _used(s: Subject) -> str:
    rng = np.random.default_rng(0)
    layer, xs = s.copy(rng), s.xs(rng)
    loss = _loss(layer, xs, s.weigh(xs, rng), **s.rows())
    own, reached = _learning(layer), {n.number for n in ancestors(loss)}
    if not own:
        raise Look("no parameter learns")
    if loss.requires_grad:
        loss.backward()
    unused = [name for name, p in own.items() if p.number not in reached]
    still = [name for name, p in own.items() if name not in unused and (p.grad is None or not p.grad.any())]
    said = [f"{', '.join(unused)}: never used by the step"] if unused else []
    said += [f"{', '.join(still)}: used, but the gradient is 0 (is it detached?)"] if still else []
    if said:
        raise Look("; ".join(said))
    return f"{len(own)}, {sum(p.size for p in own.values()):,} numbers, a gradient for each"


def _gradients(s: Subject) -> str:
    """Against finite differences; where a draw is at a kink, another is drawn."""
    parameters = s.parameters()
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        xs = s.xs(rng, length=3)
        weigh, drawn = s.weigh(xs, rng), _learning(s.copy(rng))
        reads = [xs] if xs.dtype.kind == "f" else []

        def loss(*given, xs=xs, weigh=weigh, reads=reads):
            x, weights = (given[0], given[1:]) if reads else (xs, given)
            ours = {id(p): w for p, w in zip(parameters.values(), weights, strict=True)}
            return _loss(s.copy(given=ours), x, weigh, **s.rows(3))

        try:
            error = check_grads(loss, [*reads, *(p.value for p in drawn.values())], order=1)
        except KinkError:
            continue
        except GraphError as error:
            cut = next((n for n in ancestors(loss(*reads, *drawn.values())) if n.op is OPS["detach"]), None)
            if cut is None:
                raise
            raise Look(
                f"not those of finite differences, as {describe(cut.inputs[0])} is detached"
            ) from error
        what = " and ".join(["x"] * bool(reads) + [f"{len(drawn)} parameters"] * bool(drawn))
        return f"of {what}: {error:.1g} from finite differences" + (f", in draw {draw + 1}" if draw else "")
    raise NotTried(
        f"at each of {DRAWS} draws it is at a kink of abs, relu or max, where there is no derivative"
    )


def _compiled(s: Subject) -> str:
    return f"= eager to {_compare(s, None):.1g}, values and gradients, two lengths, two sets of weights"


def _padded(s: Subject) -> str:
    if not causal(s.layer):
        raise NotTried("it sees later steps: a layer alone cannot say what padding is")
    return f"some sequences 2 steps shorter: compiled = eager to {_compare(s, [0, 2]):.1g}, no gradient behind them"


def _compare(s: Subject, shorter: list[int] | None) -> float:
    """The largest difference of compiled from eager numbers; shorter : by how many steps sequences are padded."""
    rng = np.random.default_rng(0)
    layer = s.copy(rng)
    own, worst = _learning(layer), 0.0

    def loss(x, weigh, beside, lengths):
        return _loss(layer, x, weigh, **beside, **({} if lengths is None else {"lengths": lengths}))

    loss.__name__ = type(s.layer).__name__
    step = compile(loss, check=True)
    for length in (None, 3, None):
        x = s.xs(rng, length=length)
        lengths = None if shorter is None else np.array([len(x) - shorter[n % 2] for n in range(x.shape[1])])
        batch = s.weigh(x, rng), s.rows(length), lengths
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            x = Tensor(x, requires_grad=x.dtype.kind == "f", name="x")
            value, gradients = step.value_and_grad(x, *batch)
        refused = [str(w.message) for w in told if "runs eagerly" in str(w.message)]
        if refused:
            raise GraphError(refused[0])
        for t in (x, *own.values()):
            t.grad = None
        expected = loss(x, *batch)
        expected.backward()
        pairs = [("the value", value.value, expected.value)]
        pairs += [
            (f"the gradient of {name}", gradients[t] if t in gradients else 0 * t.value, t.grad)
            for name, t in {"x": x, **own}.items() if t.grad is not None
        ]  # fmt: skip
        for what, a, b in pairs:
            error = float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(b).max(initial=0)))
            if not error <= AGREE and not np.array_equal(a, b, equal_nan=True):
                raise GraphError(
                    f"compiled, {what} differs by {error:.2g}; Python runs once, while it is traced: what NumPy computes "
                    "in step stays as it was then; use minigrad's operations"
                )
            worst = max(worst, np.nan_to_num(error))
        if shorter is not None and (x.grad is not None) and x.grad[len(x.value) - 2 :, 1::2].any():
            raise GraphError(
                "what a sequence holds beyond its length has a gradient; hand lengths on to every layer within: "
                "__call__(self, xs, **options)"
            )
        for p in own.values():
            p.value = p.value + 0.1 * rng.standard_normal(p.shape)
    return worst


def _equations(s: Subject) -> str:
    from viz import equations  # only here do cells know pictures

    rows = {name: a[0] for name, a in s.rows().items()}
    texts = [repr(equations(cell, **rows)) for cell in _cells_of(s.layer)]
    if not texts:
        raise NotTried("it has no step to write down")
    return f"{sum(len(text.splitlines()) for text in texts)} lines, viz.equations(cell)"


def _cells_of(layer) -> Iterator:
    """What has a step: the layer, or the layers that it is a row of."""
    if hasattr(layer, "step"):
        yield layer
        return
    for part in (*getattr(layer, "cells", ()), *getattr(layer, "layers", ())):
        yield from _cells_of(part)


def _picture(s: Subject) -> str:
    from viz import draw

    rng = np.random.default_rng(0)
    layer, xs = s.copy(rng), s.xs(rng, length=3)
    loss = _loss(layer, xs, s.weigh(xs, rng), **s.rows(3))
    if loss.requires_grad:
        loss.backward(record=True)
    picture = draw(loss)
    return f"{len(picture.svg()):,} characters of SVG, viz.draw(loss)"


def _learns(s: Subject) -> str:
    rng = np.random.default_rng(0)
    layer, xs = s.copy(), s.xs(rng)
    goal, own = rng.standard_normal(s.outputs), _learning(layer)
    if not own:
        raise NotTried("no parameter learns")

    def loss() -> Tensor:
        return ((run(layer, xs, **s.rows()).outputs - goal) ** 2).mean()

    first = loss()
    first.backward()
    kept = {name: p.value for name, p in own.items()}
    for rate in (0.1, 0.01, 0.001, 1e-4):
        optim.SGD(own, lr=rate).step()
        after = loss().item()
        if after < first.item():
            return f"one step at rate {rate:g}: loss {first.item():.4f} → {after:.4f}"
        for name, p in own.items():
            p.value = kept[name]
    raise GraphError(f"no step along the gradient lowers the loss of {first.item():.4g}")


TRIALS: dict[str, Callable[[Subject], str]] = {
    "quantities": _names,
    "repeatable": _repeats,
    "finite": _finite,
    "parameters": _used,
    "gradients": _gradients,
    "compiled": _compiled,
    "padding": _padded,
    "equations": _equations,
    "picture": _picture,
    "learns": _learns,
}
