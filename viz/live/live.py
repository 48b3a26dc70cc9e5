"""One HTML file in which recurrent networks learn before the reader's eyes: no server, no network, no library.

What learns is what Python compiled: loss, gradients and the optimiser's rule are WebAssembly modules in the file, and
so each equation stands once.  The scripts in web/, one file for each idea, lay out the modules' memory for the reader's
text, train, and draw in the colours of all pictures here.
"""

from __future__ import annotations

import base64
import copy
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

import minigrad
from minigrad import InputError, Tensor
from minigrad.compiler.sized import sized
from minigrad.compiler.step import rule_of
from minigrad.optim import Optimiser

from ..language.catalogue import tr
from ..language.scale import RAMP, Scale
from ..language.text import clean, html
from ..measure import diagnosis
from ..page.page import Page, filled, hash_of, style_of

FILES = ("program.js", "text.js", "network.js", "picture.js", "charts.js", "said.js", "main.js")
MOST_COUNTS = 20_000  # steps after which the optimiser's numbers must stand still
LARGEST = {"T": 40, "H": 24, "K": 30}


@dataclass(frozen=True)
class Learner:
    """A kind of network for `live`.

    loss : ``loss(x, targets, weights, cut, link, own)``, written with tensors; its first result is the loss Σ weights ·
        −log p(target), its second the probabilities (T, 1, K), then follow `quantities`, (T, 1, H) each.  It is given
        x, targets (T, 1, K), rows with a single 1; weights (T, 1) of the steps' losses; cut (T, 1, 1), True where the
        gradient is not to go on to the step before; and zeros that it adds, so that their gradients tell what flows
        there: link (T, 1, S, H), to the S states that a step reads, before a cut; own (T, 1, H), to the outputs that
        the logits are computed from.
    parameters : by name, what the loss reads; the first rows of a matrix (H + K, H) are its recurrent weights.
    state : names of the states, that of the output first.  gates : those of the quantities that lie in 0 … 1.
    forget : the parameter that is the forget gate's bias, "" where there is none.  keeper : the gate that keeps the
        memory when it is open, "" where there is none.
    equations : as they are shown.
    """

    name: str
    loss: Callable
    parameters: Mapping[str, Tensor]
    quantities: Sequence[str]
    state: Sequence[str]
    gates: Sequence[str] = ()
    forget: str = ""
    keeper: str = ""
    equations: str = ""


@dataclass(frozen=True)
class Story:
    """A preset: what its button says, what is then to be seen, and what it chooses, as in `live`."""

    label: str
    said: str
    chosen: Mapping[str, Any]


def live(
    learners: Sequence[Learner], *, optimiser: Optimiser, text: str = "hello", title: str = "", stories: Sequence[Story] = (),
    chosen: Mapping[str, Any] | None = None, largest: Mapping[str, int] = LARGEST,
) -> Page:  # fmt: skip
    """A page in which networks learn the reader's own word, by what Python compiled; it needs nothing but itself.

    learners : the kinds of networks that can be chosen, made for the largest sizes; the first one is shown at first.
    optimiser : whose rule moves the weights, with its options; its learning rate is where the reader's starts.
    text, chosen : what is chosen at first: by the names of the controls, cell (a learner's name), hidden, lr (its
        decimal logarithm), bias, scale, where ("each" or "last"), truncate, clip, seed, speed (0 … 4).
    stories : presets.
    largest : T steps, H hidden units and K different letters: all smaller networks come from the same modules.

    Raises InputError for a loss that does not give what `Learner` says or cannot be compiled to WebAssembly.
    """
    if not learners:
        raise InputError("live: no learners given")
    by_name = {learner.name: learner for learner in learners}
    if len(by_name) < len(learners):
        raise InputError(f"live: two learners have one name: {', '.join(x.name for x in learners)}")
    title = clean(title or tr("Recurrent networks learn"), 200)
    count = max(sum(p.size for p in learner.parameters.values()) for learner in learners)
    programs = {learner.name: _program(learner, largest) for learner in learners}
    flat, slots = np.zeros(count, "float32"), len(optimiser.slots)
    numbers = np.zeros(1 + len(optimiser.numbers(1)), "float32")
    programs["rule"] = _packed(
        sized(rule_of(optimiser), [flat] * (2 + slots) + [numbers], {"n": count}, False)
    )
    first = {
        "text": text, "cell": learners[0].name, "hidden": 16, "lr": float(np.log10(optimiser.lr)), "bias": 1, "scale": 1,
        "where": "each", "truncate": 0, "clip": 0, "seed": 0, "speed": 2, **(chosen or {}),
    }  # fmt: skip
    data = {
        "programs": programs, "largest": dict(largest), "chosen": first,
        "cells": {learner.name: _facts(learner) for learner in learners},
        "rule": _numbers(optimiser),
        "presets": [{"chosen": dict(s.chosen), "story": s.said} for s in stories],
        "style": style_of(Scale(), 1.0), "bounds": _bounds(),
    }  # fmt: skip
    return Page(_document(title, learners, stories, largest, data), title, {})


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


def _document(title: str, learners: Sequence[Learner], stories: Sequence[Story], largest, data: dict) -> str:
    web = files(__package__ or "viz") / "web"
    pages = web.parent.parent / "page" / "web"  # type: ignore[attr-defined]
    template, style = ((web / name).read_text(encoding="utf-8") for name in ("live.html", "live.css"))
    script = (pages / "shapes.js").read_text(encoding="utf-8")
    script += "\n".join((web / name).read_text(encoding="utf-8") for name in FILES)
    parts = {
        "policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src 'wasm-unsafe-eval' {hash_of(script)}; style-src {hash_of(style)}",
        "title": html(title, 200), "style": style, "script": script,
        "cells": "".join(_choice(learner.name, k == 0) for k, learner in enumerate(learners)),
        "presets": "".join(
            f'<button type="button" id="preset_{k}">{html(s.label, 80)}</button>' for k, s in enumerate(stories)
        ),
        "hidden": "".join(f"<option>{n}</option>" for n in (2, 4, 8, 12, 16, 24, 32) if n <= largest["H"]),
        "equations": "".join(
            f'<div data-cell="{html(x.name, 80)}"><h3>{html(x.name, 80)}</h3><pre>{_lines(x.equations)}</pre></div>'
            for x in learners
        ),
        "ramp": '<svg width="63" height="9" aria-hidden="true">'
        + "".join(f'<rect x="{7 * k}" width="7" height="9" fill="{c}"/>' for k, c in enumerate(RAMP)) + "</svg>",
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }  # fmt: skip
    return filled(template, parts, script)


def _lines(text: str) -> str:
    return "\n".join(html(line, 400) if line.strip() else "" for line in text.split("\n"))


def _choice(name: str, checked: bool) -> str:
    value = html(name, 80)
    return f'<label><input type="radio" name="cell" value="{value}"{" checked" * checked}>{value}</label>'
