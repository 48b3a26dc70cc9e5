"""One HTML file in which recurrent networks learn before the reader's eyes: no server, no network, no library.

What learns is what Python compiled: loss, gradients and the optimiser's rule are WebAssembly modules in the file, and
so each equation stands once.  The scripts in web/, one file for each idea, lay out the modules' memory for the reader's
text, train, and draw in the colours of all pictures here.
"""

from __future__ import annotations

import base64
import copy
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

import minigrad
from minigrad import InputError, Tensor
from minigrad.compiler.sized import sized
from minigrad.compiler.step import rule_of
from minigrad.optim import Adam, Optimiser

from ..diagram.draw import draw
from ..language.catalogue import tr
from ..language.scale import RAMP, Scale
from ..language.text import clean, html
from ..measure import diagnosis
from ..page.page import Page, filled, style_of
from ..page.parts import cleaned
from .learner import Learner, learner
from .stories import Story

FILES = ("program.js", "text.js", "network.js", "picture.js", "charts.js", "said.js", "main.js")
MOST_COUNTS = 20_000  # steps after which the optimiser's numbers must stand still
ALL = "*"  # the value of the choice of all cells side by side, as web/main.js has it
HIDDEN = (2, 4, 8, 12, 16, 24, 32)  # what can be chosen, up to the largest
STILL = 8  # steps of the picture that stands without scripts
LARGEST = {"T": 40, "H": 24, "K": 30}


def live(
    learners: Any, *, optimiser: Optimiser | None = None, text: str = "hello", title: str = "", stories: Sequence[Story] = (),
    chosen: Mapping[str, Any] | None = None, largest: Mapping[str, int] | None = None,
) -> Page:  # fmt: skip
    """A page in which networks learn the reader's own word, by what Python compiled; it needs nothing but itself.

    learners : the kinds of networks that can be chosen, one at a time or side by side; the first one is shown at
        first: cells, of the package or of your own, made for the largest sizes, or what `learner` makes of them;
        one, a list, or a dict by name.
    optimiser : whose rule moves the weights, with its options; its learning rate is where the reader's starts;
        default: Adam with a learning rate of 0.01.
    text, chosen : what is chosen at first: by the names of the controls, cell (a learner's name), hidden, lr (its
        decimal logarithm), bias, scale, where ("each" or "last"), truncate, clip, seed, speed (0 … 4).
    stories : presets.
    largest : T steps, H hidden units and K different letters: all smaller networks come from the same
        modules; default: 40 steps, and H and K of the first cell, else 24 and 30.

    Raises InputError for a loss that does not give what `Learner` says or cannot be compiled to WebAssembly.
    """
    learners, sizes = _learners(learners)
    largest = dict(largest) if largest is not None else sizes
    optimiser = optimiser or Adam(learners[0].parameters, lr=0.01, betas=(0.9, 0.99))
    by_name = {learner.name: learner for learner in learners}
    if len(by_name) < len(learners):
        raise InputError(f"live: two learners have one name: {', '.join(x.name for x in learners)}")
    title = clean(tr(title) if title else tr("Recurrent networks learn"), 200)
    count = max(sum(p.size for p in learner.parameters.values()) for learner in learners)
    programs = {learner.name: _program(learner, largest) for learner in learners}
    flat, slots = np.zeros(count, "float32"), len(optimiser.slots)
    numbers = np.zeros(1 + len(optimiser.numbers(1)), "float32")
    programs["rule"] = _packed(
        sized(rule_of(optimiser), [flat] * (2 + slots) + [numbers], {"n": count}, False)
    )
    hidden = max((n for n in HIDDEN if n <= min(16, largest["H"])), default=2)
    first = {
        "text": text, "cell": learners[0].name, "hidden": hidden, "lr": float(np.log10(optimiser.lr)), "bias": 1, "scale": 1,
        "where": "each", "truncate": 0, "clip": 0, "seed": 0, "speed": 2, **(chosen or {}),
    }  # fmt: skip
    data = {
        "programs": programs, "largest": dict(largest), "chosen": first,
        "cells": {learner.name: _facts(learner) for learner in learners},
        "rule": _numbers(optimiser),
        "presets": [{"chosen": dict(s.chosen), "story": tr(s.said)} for s in stories],
        "style": style_of(Scale(), 1.0), "bounds": _bounds(),
    }  # fmt: skip
    return Page(_document(title, learners, optimiser, stories, largest, data), title, {})


def _learners(given: Any) -> tuple[list[Learner], dict[str, int]]:
    """Cells as learners, and the sizes that they were made for; raises InputError for none."""
    named = given.items() if isinstance(given, Mapping) else [("", x) for x in (
        given if isinstance(given, (list, tuple)) else [given]
    )]  # fmt: skip
    named = list(named)
    if not named:
        raise InputError("live: no learners given")
    cells = [x for _, x in named if not isinstance(x, Learner)]
    made = {(c.hidden, c.inputs) for c in cells if hasattr(c, "hidden") and hasattr(c, "inputs")}
    if len(made) > 1:
        raise InputError(
            f"live: cells of different sizes (H, K): {sorted(made)}; make all of them for the largest ones"
        )
    sizes = dict(LARGEST)
    for H, K in made:
        sizes |= {"H": H, "K": K}
    return [x if isinstance(x, Learner) else learner(x, name) for name, x in named], sizes


def _program(learner: Learner, largest: Mapping[str, int]) -> dict[str, Any]:
    T, H, K, S = largest["T"], largest["H"], largest["K"], len(learner.state)

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, "float32")

    rows = zeros(T, 1, K)
    rows[..., 0] = 1
    link = Tensor(zeros(T, 1, S, H), requires_grad=True, name="link")
    own = Tensor(zeros(T, 1, H), requires_grad=True, name="own")
    arguments = [rows, rows.copy(), zeros(T, 1), np.zeros((T, 1, 1), bool), link, own]
    made = sized(minigrad.compile(learner.loss), arguments, largest)
    results, wanted = made.layout["results"], {"T": T, "H": H, "K": K}
    shapes = [[_number(axis, wanted) for axis in r["shape"]] for r in results]
    right = [[], [T, 1, K], *([T, 1, H] for _ in learner.quantities)]
    if shapes != right:
        raise InputError(
            f"live: the loss of {learner.name} gives shapes {shapes}; give the loss, probabilities (T, 1, K) and "
            f"{', '.join(learner.quantities)} (T, 1, H) of T, H, K = {T}, {H}, {K}: {right}"
        )
    names = [fact["name"] for fact in made.layout["arguments"]]
    if names != ["x", "targets", "weights", "cut", "link", "own"]:
        raise InputError(
            f"live: the loss of {learner.name} calls its arguments {', '.join(names)}; see Learner"
        )
    if sorted(made.layout["parameters"]) != sorted(learner.parameters):
        raise InputError(
            f"live: {learner.name} reads {', '.join(made.layout['parameters'])}, not the parameters given"
        )
    return _packed(made)


def _number(polynomial: Sequence[Sequence], sizes: Mapping[str, int]) -> int:
    return sum(c * int(np.prod([sizes[name] for name in names])) for c, *names in polynomial)


def _packed(made) -> dict[str, Any]:
    return {"module": _deflated(made.bytes), "layout": made.layout}


def _deflated(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _facts(learner: Learner) -> dict[str, Any]:
    """What the scripts know of a kind of network; vectors start at the mean of what Python has."""
    return {
        "name": learner.name, "quantities": list(learner.quantities), "state": list(learner.state),
        "gates": list(learner.gates), "forget": learner.forget, "keeper": learner.keeper,
        "biases": {name: float(p.value.mean()) for name, p in learner.parameters.items() if p.ndim == 1},
    }  # fmt: skip


def _numbers(optimiser: Optimiser) -> dict[str, Any]:
    """What an optimiser's rule takes at each step, until it stays the same; those that go with the learning rate are per 1."""
    one, two = copy.copy(optimiser), copy.copy(optimiser)
    one.lr, two.lr = 1.0, 2.0
    scaled = [a != b for a, b in zip(one.numbers(1), two.numbers(1), strict=True)]
    rows = [np.array(one.numbers(1), "float32")]
    for count in range(2, MOST_COUNTS):
        row = np.array(one.numbers(count), "float32")
        if np.array_equal(row, rows[-1]) and np.array_equal(
            row, np.array(one.numbers(10 * count), "float32")
        ):
            return {"scaled": scaled, "table": _deflated(np.stack(rows, axis=1).astype("<f4").tobytes())}
        rows.append(row)
    raise InputError(
        f"live: the numbers of {type(optimiser).__name__} still change after {MOST_COUNTS:,} steps; for Adam give betas "
        "such as (0.9, 0.99)"
    )


def _bounds() -> dict[str, float]:
    """When something is said, as for `viz.report`."""
    return {
        "exploding": float(np.exp(diagnosis.EXPLODING_RATE)), "growth": diagnosis.EXPLODING_GROWTH,
        "left": diagnosis.VANISHING_LEFT, "saturated": diagnosis.SATURATED_SHARE,
    }  # fmt: skip


# The document.


def _document(
    title: str, learners: Sequence[Learner], optimiser: Optimiser, stories: Sequence[Story], largest, data: dict
) -> str:  # fmt: skip
    web = files(__package__ or "viz") / "web"
    pages = web.parent.parent / "page" / "web"  # type: ignore[attr-defined]
    template, style = ((web / name).read_text(encoding="utf-8") for name in ("live.html", "live.css"))
    script = (pages / "shapes.js").read_text(encoding="utf-8")
    script += "\n".join((web / name).read_text(encoding="utf-8") for name in FILES)
    parts = {
        "cells": "".join(_choice(learner.name, k == 0) for k, learner in enumerate(learners))
        + (_choice(ALL, False, tr("side by side")) if len(learners) > 1 else ""),
        "optimiser": html(type(optimiser).__name__, 80),
        "picture": _still(learners[0], data["chosen"]["text"], largest),
        "presets": "".join(
            f'<button type="button" id="preset_{k}">{html(tr(s.label), 80)}</button>' for k, s in enumerate(stories)
        ),
        "hidden": "".join(f"<option>{n}</option>" for n in HIDDEN if n <= largest["H"]),
        "equations": "".join(
            f'<div data-cell="{html(x.name, 80)}"><h3>{html(x.name, 80)}</h3><pre>{_lines(x.equations)}</pre></div>'
            for x in learners
        ),
        "ramp": '<svg width="63" height="9" aria-hidden="true">'
        + "".join(f'<rect x="{7 * k}" width="7" height="9" fill="{c}"/>' for k, c in enumerate(RAMP)) + "</svg>",
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }  # fmt: skip
    return filled(template, title, style, script, parts, "'wasm-unsafe-eval' ")


def _lines(text: str) -> str:
    return "\n".join(html(line, 400) if line.strip() else "" for line in text.split("\n"))


def _choice(name: str, checked: bool, said: str = "") -> str:
    value = html(name, 80)
    shown = html(said, 80) or value
    return f'<label><input type="radio" name="cell" value="{value}"{" checked" * checked}>{shown}</label>'


def _still(learner: Learner, text: str, largest: Mapping[str, int]) -> str:
    """What stands where scripts are off: the first network at its start, on the first letters of the text."""
    letters = (text[: STILL + 1] if len(text) > 1 else "hello")[: largest["T"] + 1]
    known = {c: k % largest["K"] for k, c in enumerate(sorted(set(letters)))}
    codes, T = [known[c] for c in letters], len(letters) - 1
    rows = np.eye(largest["K"], dtype="float32")[codes][:, None]
    H, S = largest["H"], len(learner.state)
    loss, *_ = learner.loss(
        Tensor(rows[:-1]), Tensor(rows[1:]), Tensor(np.full((T, 1), 1 / T, "float32")), Tensor(np.zeros((T, 1, 1), bool)),
        Tensor(np.zeros((T, 1, S, H), "float32")), Tensor(np.zeros((T, 1, H), "float32")),
    )  # fmt: skip
    kept = [(p, p.grad) for p in learner.parameters.values()]
    loss.named("L").backward(record=True)
    captions = {t + 1: f"{a} → {b}" for t, (a, b) in enumerate(itertools.pairwise(letters))}
    title = tr("{cell} at its start, on {text}", cell=learner.name, text=repr(letters))
    drawn = draw(loss, level="step", title=title, captions=captions).svg()
    for p, gradient in kept:
        p.grad = gradient
    return cleaned(drawn, title)
