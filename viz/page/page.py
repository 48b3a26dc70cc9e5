"""One HTML file to walk about in: the unrolled network with pan and zoom, steps that open, training as a slider.

The file needs nothing else: no network, no font, no library; a policy in it forbids every
request.  Its first picture is plain SVG and stands there without scripts too.  Of steps that are
alike the file has one plan and the numbers of each, from which web/page.js draws what is in view:
so it is small and made soon at any length.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np

from minigrad import InputError, Tensor, ancestors
from minigrad.files import write

from ..diagram.canvas import Canvas
from ..diagram.cards import value_top
from ..diagram.legend import legend
from ..diagram.operations import draw_operations
from ..diagram.render import Diagram
from ..diagram.sequence import draw_steps
from ..language.catalogue import tag, tr, trn
from ..language.catalogue import words as translated
from ..language.scale import Scale, ramp, signed
from ..language.status import (
    CUT,
    EXPLODES,
    NOT_A_NUMBER,
    NOT_COMPUTED,
    STATUSES,
    UNKNOWN,
    VANISHED,
    ZERO,
    is_small,
    norm,
)
from ..language.text import clean, html, identifier, number, pretty, shape_text
from ..measure import words
from ..measure.links import Transport
from ..measure.transport import transports
from ..read.network import (
    END,
    QUANTITY,
    SHARED,
    Captions,
    Network,
    gradient_status,
    read,
    roots_of,
    statuses_of,
)
from .alike import Kind, kinds
from .numbers import LEVELS, Columns, Wanted, deflated, has_numbers, packed
from .parts import cleaned
from .plan import GATES, OPERATIONS, STEPS, Plan, lay_operations, lay_steps

MOST_NUMBERS = 1_000_000  # in all recordings; beyond, only the last has operations
MOST_CELLS = 800_000  # beyond, small arrays are shown by their norms


class Page:
    """A finished page.  `html` is its text, `title` its title."""

    def __init__(self, text: str, title: str, made: Mapping[str, _Made]):
        self.html, self.title, self._made = text, title, made

    @cached_property
    def data(self) -> dict[str, dict[str, list]]:
        """The numbers of the boxes, by recording and by part such as "t=3 c".

        Each is a list of name, step, shape, norm of the value, norm of the gradient, its status, smallest,
        largest, share of saturated units, all as they are written.
        """
        return {label: made.numbers() for label, made in self._made.items()}

    def save(self, path: str | os.PathLike) -> Path:
        """Write the page to a file whose name ends in .html; a missing folder is made.

        The file appears complete or not at all.  Raises InputError for another ending and for a folder that
        may not be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"save {path}: a page is an HTML file; end the name in .html")
        return write(path, self.html.encode("utf-8"))

    def _repr_html_(self) -> str:
        return framed(self.html, self.title)

    def __repr__(self) -> str:
        return f"<Page {self.title!r}: {len(self.html):,} characters; .save('network.html') writes it>"


def page(
    what: Tensor | Sequence | Mapping[str, Tensor], steps: list | None = None, *, title: str = "",
    scale: Scale | None = None, time_limit: float = 20.0, captions: Captions | None = None,
) -> Page:  # fmt: skip
    """The network as a page: pan, zoom, hover for numbers, a click opens a step, play runs the gradient back.

    what : the loss after ``loss.backward(record=True)``, or the steps of a run, `run.steps`; or
        several recordings of one network, shown with a slider: a dict {"step 0": loss, …} or a list of
        (label, loss) or (label, loss, steps).
    steps, title, scale, time_limit, captions : as for `draw`.

    Every step is in the page, at any length.  Where all recordings together have more than a million numbers,
    operations are in it for the last recording alone.  Raises InputError for what cannot be drawn and for
    recordings that do not show the same steps.
    """
    recordings = [_Recording(*r, captions) for r in _recordings(what, steps)]
    _same(recordings)
    last = recordings[-1]
    title = clean(title or _title(last), 200)
    plans, layouts = _plans(recordings, time_limit)
    every = [_Made(r, plans) for r in recordings]
    scale = scale or Scale.of(v for made in every for v in made.sizes())
    top = max(made.top() for made in every)
    for made in every:
        made.settle(scale, top)
    numbers = sum(len(c.wanted.numbers) * len(c.kind.steps) for made in every for c in made.columns)
    network = last.network
    times = network.times if network is not None else []
    data = {
        "steps": times,
        "captions": [clean(network.captions.get(t, ""), 60) for t in times] if network is not None else [],
        "layouts": layouts,
        "plans": [
            {"nodes": [p.nodes.get(k) for k in range(max(p.nodes, default=-1) + 1)], "layout": p.layout, **p.levels}
            for p in plans.values()
        ],
        "recordings": [made.packed(numbers <= MOST_NUMBERS or made is every[-1]) for made in every],
        "style": style_of(scale, top),
    }  # fmt: skip
    text = _document(
        title, last, _first(last, title, scale, time_limit), _legend(scale, top, time_limit), data
    )
    return Page(text, title, {made.recording.label: made for made in every})


# What is recorded.


@dataclass
class _Recording:
    """The network at one point: its label, its graph, and everything that can be pointed at."""

    label: str
    root: Tensor
    records: list | None
    captions: Captions | None
    network: Network | None = None
    nodes: list[Tensor] = field(default_factory=list)
    statuses: dict[int, str] = field(default_factory=dict)

    def __post_init__(self):
        self.network = read(self.root, self.records, self.captions)
        self.nodes = self.network.nodes if self.network is not None else ancestors(self.root)
        self.statuses = self.network.statuses if self.network is not None else statuses_of(self.root)

    @cached_property
    def transport(self) -> list[Transport]:
        return transports(self.network) if self.network is not None else []

    @cached_property
    def kinds(self) -> list[Kind]:
        return kinds(self.network, self.nodes, self.statuses, self.transport)

    @property
    def end(self) -> Tensor:
        end = self.network.end if self.network is not None else None
        return end.out if end is not None else self.root

    @property
    def loss_text(self) -> str:
        one = not self.end.is_symbol and self.end.value.size == 1 and self.end.dtype.kind in "fiub"
        return f"{clean(self.end.name or tr('loss'), 20)} = {number(self.end.value.item(), 4)}" if one else ""

    @property
    def said(self) -> list[str]:
        """What is not known, or how the gradient is carried back."""
        known = any(n.contributions for n in self.nodes)
        return [words.headline(one) for one in self.transport] if known else [tr(UNKNOWN)]


class _Made:
    """The numbers of one recording."""

    def __init__(self, recording: _Recording, plans: Mapping[tuple, Plan]):
        self.recording = recording
        order = {signature: k for k, signature in enumerate(plans)}
        self.plans = [plans[kind.signature] for kind in recording.kinds]
        self.which = [order[kind.signature] for kind in recording.kinds]
        sizes = {one.band: one.size for one in recording.transport}
        self.columns = [
            Columns(p.wanted, kind, recording.statuses, sizes)
            for p, kind in zip(self.plans, recording.kinds, strict=True)
        ]

    @cached_property
    def end(self) -> list:
        """Of the end of the graph: as `Page.data` has it."""
        n, name = self.recording.end, pretty(clean(self.recording.end.name or tr("loss")))
        gradient, why = gradient_status(self.recording.statuses, n)
        value = np.asarray(n.value, np.float64).ravel() if has_numbers(n) else None
        return _entry(name, None, shape_text(n.shape), gradient, why, value, self.columns[0].scale)

    def sizes(self) -> Iterator[float]:
        """The norms that the scale of gradients must hold: of all groups and of the lines between them."""
        for c in self.columns:
            for key in c.wanted.numbers:
                if key[0] == "flow" or (key[0] == "gradient" and key[1] < len(c.kind.example.nodes)):
                    values = c.column(key)
                    good = values[np.isfinite(values) & (values > 0)]
                    yield from (float(f(good)) for f in (np.min, np.max) if good.size)

    def top(self) -> float:
        """The end of the scale of values."""
        boxes = [(p.kind.node(c.kind.example, b["n"])) for p, c in zip(self.plans, self.columns, strict=True)
                 for b in p.levels.get(GATES, p.levels[OPERATIONS])["boxes"] if b["n"] >= 0]  # fmt: skip
        return value_top(boxes)

    def settle(self, scale: Scale, top: float) -> None:
        for c in self.columns:
            c.scale, c.top = scale, top

    def packed(self, deep: bool) -> dict:
        """deep : with operations."""
        parts = [
            (c, *((None, None) if deep else p.shallow)) for c, p in zip(self.columns, self.plans, strict=True)
        ]
        rows = [c.matrix(numbers) for c, numbers, _ in parts]
        cells = [c.colours(some) for c, _, some in parts]
        r, of_step = self.recording, {k: at for at, kind in enumerate(self.recording.kinds) for k in kind.at}
        return {
            "label": r.label, "loss": r.loss_text, "said": r.said, "end": self.end, "deep": deep,
            "plans": self.which, "of": deflated(np.array([of_step[k] for k in range(len(of_step))], "<u2")),
            "sizes": [[len(a), len(b), a.shape[1]] for a, b in zip(rows, cells, strict=True)],
            **packed(rows, cells), "beats": {level: self._beats(level) for level in (STEPS, GATES) if r.network},
        }  # fmt: skip

    def _beats(self, level: str) -> str:
        """By kind, target and step: at which beat of the backward pass the lines into a target light up.

        The gradient of a node is complete when all its readers have been visited, by falling
        number; so lines into the same target light up together, those of the latest target first.
        """
        turns = [
            [[self._turn(s, *what) for s in c.kind.steps] for what in p.turns.get(level, ())]
            for p, c in zip(self.plans, self.columns, strict=True)
        ]
        flat = np.array([v for kind in turns for column in kind for v in column], np.float64)
        order = np.unique(flat)
        return deflated((len(order) - np.searchsorted(order, flat)).astype("<u4"))

    def _turn(self, step, output, place: int = -1) -> float:
        """The number by which a target is visited.

        An output that is computed after all steps takes its turn just before its own step: nothing
        between the two needs it, and so the pass goes back through time in one sweep.
        """
        if output == END:
            return float(self.recording.end.number)
        n, network = step.nodes[place], self.recording.network
        assert network is not None
        if not output:
            return n.number
        inside = [m.number for m in step.nodes if network.group_of[m.number].kind in (QUANTITY, SHARED)]
        return max([m for m in inside if m < n.number], default=n.number - 0.5) + 0.5

    def numbers(self) -> dict[str, list]:
        """By the id of a box of a step: see `Page.data`."""
        if self.recording.network is None:
            return {}
        found = {"loss": self.end} if self.recording.network.end is not None else {}
        for p, c in zip(self.plans, self.columns, strict=True):
            for box in p.levels[GATES]["boxes"]:
                name, shape, (*where,), _, why, *_ = p.nodes[box["n"]]
                keys = list(p.wanted.numbers)
                columns = [c.column(keys[k]) if k >= 0 else None for k in where]
                for k, step in enumerate(c.kind.steps):
                    size, gradient, least, most, _, share = (
                        None if v is None else float(v[k]) for v in columns
                    )
                    t = step.t + box["dt"]
                    key = f"t={t} output" if box["output"] else f"{box['band']} t={t} {box['key']}".strip()
                    found[identifier(key)] = [
                        name, t, shape, "" if size is None else number(size, 4),
                        "" if gradient is None else number(gradient, 4), why or c.scale.status(gradient),
                        "" if least is None else number(least, 4), "" if most is None else number(most, 4),
                        "" if share is None else f"{share:.0f} %",
                    ]  # fmt: skip
        return found


def _entry(name, t, shape, gradient, why, value, scale: Scale) -> list:
    said = ["", "", ""] if value is None else [number(v, 4) for v in (norm(value), value.min(), value.max())]
    known = "" if gradient is None else number(gradient, 4)
    return [name, t, shape, said[0], known, why or scale.status(gradient), *said[1:], ""]


def _plans(recordings: Sequence[_Recording], time_limit: float) -> tuple[dict[tuple, Plan], list[dict]]:
    """A plan for each kind of steps in any recording, by signature; and by layout what is common to its steps."""
    cells = sum(
        n.size * len(kind.steps)
        for r in recordings
        for kind in r.kinds
        for n in kind.example.nodes
        if has_numbers(n) and is_small(n.value)
    )
    found: dict[tuple, Plan] = {}
    layouts: list[dict] = []
    for r in reversed(recordings):
        new = [k for k in r.kinds if k.signature not in found]
        own = [Plan(k, r.network, Wanted(k, 2 * cells <= MOST_CELLS)) for k in new]
        if own and r.network is not None:
            layouts.append(lay_steps(own, r.network, r.transport, Scale()))
        for p in own:
            p.shallow = len(p.wanted.numbers), len(p.wanted.cells)
            p.layout = max(len(layouts) - 1, 0)
            lay_operations(p, r.nodes, r.root, time_limit)
            found[p.kind.signature] = p
    return found, layouts


def _recordings(what, steps) -> list[tuple[str, Tensor, list | None]]:
    """(label, loss, steps) of each recording."""
    if isinstance(what, Mapping):
        what = list(what.items())
    several = isinstance(what, (list, tuple)) and what and all(isinstance(r, tuple) for r in what)
    if not several:
        return [("", *roots_of(what, steps))]
    if steps is not None:
        raise InputError("page: steps= is for a single loss; give recordings as (label, loss, steps)")
    found = []
    for r in what:
        if not 2 <= len(r) <= 3:
            raise InputError(
                f"page: a recording of {len(r)} parts; give (label, loss) or (label, loss, steps)"
            )
        found.append((clean(r[0], 80), *roots_of(*r[1:])))
    labels = [label for label, _, _ in found]
    if len(set(labels)) < len(labels):
        twice = next(x for x in labels if labels.count(x) > 1)
        raise InputError(f"page: two recordings are called {twice!r}; give each a label of its own")
    return found


def _same(recordings: list[_Recording]) -> None:
    """Raises InputError where recordings show different networks."""

    def seen(r: _Recording):
        return r.network and (r.network.times, list(r.network.cells))

    for r in recordings[1:]:
        if seen(r) != seen(recordings[0]):
            raise InputError(
                f"page: the recordings {recordings[0].label!r} and {r.label!r} do not show the same layers and "
                "steps; record one network on one input"
            )


def _title(r: _Recording) -> str:
    name = clean(r.root.name or tr("graph"))
    if r.network is None:
        return tr("{name}: {n} operations and data", name=name, n=len(r.nodes))
    return trn("{name}: {n} step", "{name}: {n} steps", len(r.network.times), name=name)


# Pictures.


def _first(r: _Recording, title: str, scale: Scale, time_limit: float) -> str:
    """What stands there without scripts: some steps at both ends."""
    if r.network is None:
        picture = draw_operations(r.root, r.nodes, r.statuses, None, [], 400, title, scale, time_limit)
    else:
        times = r.network.times
        shown = times if len(times) <= 8 else [*times[:4], *times[-4:]]
        picture = draw_steps(r.network, shown, title, scale, time_limit)
    return cleaned(picture.svg(), title)


def _legend(scale: Scale, top: float, time_limit: float) -> str:
    canvas = Canvas(tr("legend"))
    notes = [
        tr("Arrows: the forward computation. The gradient flows back against them."),
        tr("∂f = ‖∂L/∂f‖; ∂W = what this step alone adds to ‖∂L/∂W‖."),
        *map(tr, words.ON_ARROWS),
    ]
    legend(canvas, 8, 0, 1000, scale, top, notes)
    svg = Diagram(canvas.picture_text(), "legend", "nop2", time_limit).svg()
    return cleaned(svg, tr("Legend: the scales of gradients and of values, and the status of gradients"))


def style_of(scale: Scale, top: float) -> dict:
    """Colours and lines as `Scale` has them, for the script to look up."""
    strokes = {s: scale.stroke(None, s) for s in (NOT_COMPUTED, CUT, ZERO, VANISHED, EXPLODES, NOT_A_NUMBER)}
    return {
        "low": scale.low, "high": scale.high, "vanished": scale.vanished, "exploded": scale.exploded,
        "ramp": [ramp(k / (LEVELS - 1)) for k in range(LEVELS)],
        "values": [signed((k - 64) / LEVELS, 1.0) for k in range(64 - LEVELS, 65 + LEVELS)],
        "strokes": {s: [x.colour.split(":")[0], x.width, x.dash, x.mark] for s, x in strokes.items()},
        "nan": signed(np.nan, 1.0), "top": number(top),
    }  # fmt: skip


# The document.


def _document(title: str, last: _Recording, first: str, legend_svg: str, data: dict) -> str:
    folder = files(__package__ or "viz") / "web"
    template, style, shapes, script = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "shapes.js", "page.js")
    )
    script = shapes + script
    parts = {
        "said": html(" ".join(last.said), 2000),
        "picture": first, "legend": legend_svg,
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "last": str(len(data["recordings"]) - 1), "steps": str(max(len(data["steps"]) - 1, 0)),
        "label": html(" · ".join(x for x in (last.label, last.loss_text) if x), 200),
    }  # fmt: skip
    return filled(template, title, style, script, parts)


def filled(
    template: str, title: str, style: str, script: str, parts: Mapping[str, str], sources: str = ""
) -> str:
    """A document: the head that all share, and a template with its parts, in the language that is chosen.

    sources : what may run beside the script, as its policy says it.
    """
    head = (files(__package__ or "viz") / "web" / "head.html").read_text(encoding="utf-8")
    said = json.dumps(translated([*messages_of(script), *STATUSES]), ensure_ascii=False)
    parts = {
        **parts,
        "policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src {sources}{hash_of(script)}; style-src {hash_of(style)}",
        "title": html(title, 200),
        "style": style,
        "script": script,
        "language": tag(),
        "words": said.replace("<", "\\u003c"),
    }
    template = re.sub(r"\{\{tr:(.*?)\}\}", lambda found: html(tr(found[1]), 2000), head + template)
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def messages_of(script: str) -> list[str]:
    """What a script asks the catalogue for: the literal first arguments of its ``tr``."""
    return [json.loads(found) for found in re.findall(r"""\btr\(("(?:[^"\\]|\\.)*")""", script)]


def framed(document: str, title: str) -> str:
    """For notebooks: a document in a frame of its own, which its policy seals off."""
    inner = document.replace("&", "&amp;").replace('"', "&quot;")
    return (
        f'<iframe title="{html(title, 200)}" sandbox="allow-scripts" srcdoc="{inner}" '
        'style="width:100%;height:680px;border:1px solid #c3c9d1"></iframe>'
    )


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
