"""One HTML file to walk about in: the unrolled network with pan and zoom, steps that open, training as a slider.

The file needs nothing else: no network, no font, no library; a policy in it forbids every
request.  Its first picture is plain SVG and stands there without scripts too.  The other
pictures are SVG as well, drawn beforehand and packed; web/page.js only shows them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np

from minigrad import InputError, Tensor, ancestors

from ..diagram.canvas import Canvas
from ..diagram.cards import value_top
from ..diagram.legend import UNKNOWN, legend
from ..diagram.operations import draw_operations
from ..diagram.render import Diagram
from ..diagram.sequence import _Sequence
from ..diagram.unrolled import Unrolled
from ..language.files import write
from ..language.scale import Scale
from ..language.states import norm
from ..language.text import clean, html, identifier, number, pretty, shape_text, span
from ..read.network import (
    END,
    FIRST,
    INPUT,
    OUTPUT,
    PARAMETER,
    QUANTITY,
    SHARED,
    Captions,
    Flow,
    Group,
    Network,
    flows,
    gradient_state,
    read,
    roots_of,
    states_of,
)
from ..read.units import NEAR, RANGES
from .parts import Known, Parts, annotate

MOST_STEPS = 60  # steps times layers in one picture
MOST_OPERATIONS = 120  # pictures of single steps; beyond, only the last recording has them
STEPS, GATES, OPERATIONS = "steps", "gates", "operations"


class Page:
    """A finished page.  `html` is its text, `title` its title, `data` the numbers in it, by recording and part."""

    def __init__(self, text: str, title: str, data: dict[str, dict[str, list]]):
        self.html, self.title, self.data = text, title, data

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
        """For notebooks: the page in a frame of its own, which its policy seals off."""
        inner = self.html.replace("&", "&amp;").replace('"', "&quot;")
        return (
            f'<iframe title="{html(self.title, 200)}" sandbox="allow-scripts" srcdoc="{inner}" '
            'style="width:100%;height:680px;border:1px solid #c3c9d1"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<Page {self.title!r}: {len(self.html):,} characters; .save('network.html') writes it>"


def page(
    what: Tensor | Sequence | Mapping[str, Tensor], steps: list | None = None, *, title: str = "",
    scale: Scale | None = None, time_limit: float = 20.0, captions: Captions | None = None,
) -> Page:  # fmt: skip
    """The network as a page: pan, zoom, hover for numbers, a click opens a step, play runs the gradient back.

    what : the loss after ``loss.backward(record=True)``, or the steps that `cells.unroll` returned; or
        several recordings of one network, shown with a slider: a dict {"step 0": loss, …} or a list of
        (label, loss) or (label, loss, steps).
    steps, title, scale, time_limit, captions : as for `draw`.

    The middle of sequences longer than 60 steps is left out, and the page says so; operations are drawn for
    the last recording alone where all would be more than 120 pictures.  Raises InputError for what cannot be
    drawn and for recordings that do not show the same steps.
    """
    recordings = [_Recording(*r, captions) for r in _recordings(what, steps)]
    _same(recordings)
    last = recordings[-1]
    title = clean(title or _title(last), 200)
    scale = scale or Scale.of(v for r in recordings for v in r.sizes())
    make = _Drawing(recordings, title, scale, time_limit)
    made = [make.views(r, last=r is last) for r in recordings]
    packed = [
        {
            "label": r.label,
            "loss": r.loss_text,
            "views": {
                view: {at: _packed(svg) for at, svg in own.items()} for view, own in views.items() if own
            },
            "nodes": r.numbers(scale),
        }
        for r, views in zip(recordings, made, strict=True)
    ]
    first = next(iter(next(iter(made[-1].values())).values()))
    text = _document(title, _said(last, make.shown), first, make.legend(), packed, make.shown)
    return Page(text, title, {r.label: own["nodes"] for r, own in zip(recordings, packed, strict=True)})


# What is recorded.


@dataclass
class _Recording:
    """One state of the network: its label, its graph, and everything that can be pointed at."""

    label: str
    root: Tensor
    records: list | None
    captions: Captions | None
    network: Network | None = None
    nodes: list[Tensor] = field(default_factory=list)
    states: dict[int, str] = field(default_factory=dict)

    def __post_init__(self):
        self.network = read(self.root, self.records, self.captions)
        self.nodes = self.network.nodes if self.network is not None else ancestors(self.root)
        self.states = self.network.states if self.network is not None else states_of(self.root)

    @property
    def loss_text(self) -> str:
        root = (
            self.network.end.out if self.network is not None and self.network.end is not None else self.root
        )
        one = not root.is_symbol and root.value.size == 1 and root.dtype.kind in "fiub"
        return f"{clean(root.name or 'loss', 20)} = {number(root.value.item(), 4)}" if one else ""

    def sizes(self) -> list[float]:
        """The norms that the scale must hold."""
        if self.network is None:
            return [v for n in self.nodes if (v := gradient_state(self.states, n)[0])]
        groups = [g for g in self.groups().values() if g.kind != END]
        ends = [self.network.end] if self.network.end is not None else []
        found = [gradient_state(self.states, g.out)[0] for g in groups]
        found += [f.norm for f in flows(self.network, [*groups, *ends]) if f.source.kind != PARAMETER]
        return [v for v in found if v]

    def groups(self) -> dict[str, Group]:
        """Everything with a box of its own at the levels of steps and gates, by the id of that box."""
        net = self.network
        if net is None:
            return {}
        shown = shown_steps(net)
        found = [("", "loss", net.end)] if net.end is not None else []
        found += [("", f"t={t} output", g) for t, g in net.outputs.items() if t in shown]
        for (band, t), groups in net.cells.items():
            if t not in shown:
                continue
            found += [(band, f"t={t} {g.name or SHARED}", g) for g in groups]
            found += [(band, f"t={t} {g.name or 'x'}", g) for g in net.inputs.get((band, t), ())]
        for (band, name), g in net.first.items():
            found += [(band, f"t={t} {name}", g) for t in dict.fromkeys((0, g.t))]
        return {identifier(f"{band} {key}".strip()): g for band, key, g in found if g is not None}

    def numbers(self, scale: Scale) -> dict[str, list]:
        """By the id of a box: name, step, shape, norm, gradient, its state, smallest, largest, saturated."""
        return {key: _numbers(g, self.states, scale) for key, g in self.groups().items()}


def shown_steps(network: Network) -> list[int]:
    """All steps, or as many at both ends as one picture holds."""
    steps, most = network.steps, max(4, MOST_STEPS // len(network.bands))
    return steps if len(steps) <= most else [*steps[: most // 2], *steps[-(most - most // 2) :]]


def _numbers(g: Group, states: dict[int, str], scale: Scale) -> list:
    n, (gradient, why) = g.out, gradient_state(states, g.out)
    t = None if g.kind in (END, PARAMETER) else g.t
    name = pretty(g.name) if g.name else {INPUT: "input", SHARED: "joined"}.get(g.kind, g.kind)
    if g.kind == END:
        name = pretty(clean(n.name or "loss"))
    name = f"{clean(g.band)} {name}".strip()
    entry = [name, t, shape_text(n.shape), "", "", why or scale.state(gradient), "", "", ""]
    if gradient is not None:
        entry[4] = number(gradient, 4)
    if n.is_symbol or n.value.dtype.kind not in "fiub" or not n.size:
        return entry
    values = np.asarray(n.value, np.float64)
    entry[3] = number(norm(values), 4)
    entry[6], entry[7] = number(values.min(), 4), number(values.max(), 4)
    if n.op is not None and n.op.name in RANGES:
        low, high = RANGES[n.op.name]
        share = float(((values < low + NEAR) | (values > high - NEAR)).mean())
        entry[8] = f"{100 * share:.0f} %"
    return entry


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
        return r.network and (r.network.steps, list(r.network.cells))

    for r in recordings[1:]:
        if seen(r) != seen(recordings[0]):
            raise InputError(
                f"page: the recordings {recordings[0].label!r} and {r.label!r} do not show the same layers and "
                "steps; record one network on one input"
            )


def _title(r: _Recording) -> str:
    if r.network is None:
        return f"{clean(r.root.name or 'graph')}: {len(r.nodes)} operations and data"
    return f"{clean(r.root.name or 'graph')}: {len(r.network.steps)} steps"


def _said(r: _Recording, shown: list[int]) -> str:
    """What is left out, and what is not known."""
    if r.network is None:
        return "" if any(n.contributions for n in r.nodes) else UNKNOWN
    hidden = [t for t in r.network.steps if t not in shown]
    said = [f"{span(hidden)}: {len(hidden)} steps are not drawn."] if hidden else []
    return " ".join([*said, *([] if r.network.computed else [UNKNOWN])])


# Pictures.


class _Drawing:
    """Draws the views of all recordings on one scale."""

    def __init__(self, recordings: list[_Recording], title: str, scale: Scale, time_limit: float):
        self.title, self.scale, self.time_limit = title, scale, time_limit
        self.network = recordings[-1].network
        self.shown: list[int] = []
        self.top = 1.0
        if self.network is not None:
            self.shown = shown_steps(self.network)
            self.top = value_top(
                g.out for r in recordings for g in r.groups().values() if g.kind in (QUANTITY, FIRST)
            )
        self.all = len(recordings) * len(self.shown) <= MOST_OPERATIONS

    def views(self, r: _Recording, last: bool) -> dict[str, dict[str, str]]:
        """By view and step ("" for all of them): SVG."""
        net = r.network
        if net is None:
            return {OPERATIONS: {"": self._operations(r, [])}}
        whole = [_Sequence(net, self.shown, self.title, self.scale)]
        whole.append(Unrolled(net, self.shown, self.title, self.scale))  # type: ignore[arg-type]
        found = {STEPS: {"": self._whole(r, whole[0])}, GATES: {"": self._whole(r, whole[1])}, OPERATIONS: {}}
        if last or self.all:
            with ThreadPoolExecutor(2) as pool:  # each waits for a Graphviz of its own
                drawn = pool.map(lambda t: self._operations(r, [t]), self.shown)
            found[OPERATIONS] = {str(t): svg for t, svg in zip(self.shown, drawn, strict=True)}
        return found

    def _whole(self, r: _Recording, view) -> str:
        """All steps at one level; the legend stands beside the picture, once for all."""
        view.look.top = self.top
        view.draw()
        canvas: Canvas = view.canvas
        loose = canvas.nodes[""]
        start = max(k for k, (key, _) in enumerate(loose) if re.fullmatch(r"text gradient( \d+)?", key))
        del loose[start:], loose[0], canvas.edges[len(view.routes) :]  # its title is the page's
        svg = Diagram(canvas.picture_text(), self.title, "nop2", self.time_limit).svg()
        nodes = {
            key: Known(g.t if g.kind != END else None, _spoken(g, r, self.scale))
            for key, g in r.groups().items()
        }
        assert r.network is not None
        for band, t in r.network.cells:
            key = identifier(f"{band} t={t}".strip())
            said = f"step t = {t} {r.network.captions.get(t, '')}".strip()
            nodes[key] = nodes[f"cluster {key}"] = Known(t, f"{band} {said}".strip(), step=True)
        return annotate(
            svg,
            Parts(nodes, _edges(r.network, [route.what for route in view.routes], self.scale)),
            self.title,
        )

    def _operations(self, r: _Recording, shown: list[int]) -> str:
        title = f"{self.title}: the operations of step t = {shown[0]}" if shown else self.title
        drawn = draw_operations(
            r.root, r.nodes, r.states, r.network, shown, 400, title, self.scale, self.time_limit
        )
        dot = "\n".join(line for line in drawn.dot.split("\n") if not line.startswith("\tlegend ["))
        svg = Diagram(dot, title, "dot", self.time_limit).svg()
        return annotate(svg, Parts({}, [], shown[0] if shown else None), title)

    def legend(self) -> str:
        canvas = Canvas("legend")
        notes = [
            "Arrows: the forward computation. The gradient flows back against them.",
            "∂f = ‖∂L/∂f‖; ∂W = what this step alone adds to ‖∂L/∂W‖.",
        ]
        legend(canvas, 8, 0, 1000, self.scale, self.top, notes)
        svg = Diagram(canvas.picture_text(), "legend", "nop2", self.time_limit).svg()
        return annotate(svg, Parts({}, []), "Legend: the scale of gradients, of values, and the states")


def _spoken(g: Group, r: _Recording, scale: Scale) -> str:
    """What a screen reader says of a box."""
    name, t, shape, value, gradient, state, *_ = _numbers(g, r.states, scale)
    where = "" if t is None else f" t={t}"
    said = f"gradient {gradient} ({state})" if gradient else f"gradient: {state}"
    return f"{name}{where}: {shape}, norm {value or 'unknown'}, {said}"


def _edges(network: Network, drawn: Sequence[Flow], scale: Scale) -> list[tuple[str, int, int | None]]:
    """By number of the line: what it says, the beat of the backward pass, and the step that it reaches.

    The gradient of a node is complete when all its readers have been visited, by falling
    number; so lines into the same target light up together, those of the latest target first.
    """
    turns = {id(f): _turn(network, f.target) for f in drawn}
    beats = {turn: k + 1 for k, turn in enumerate(sorted(set(turns.values()), reverse=True))}
    found = []
    for f in drawn:
        ends = []
        for g in (f.source, f.target):
            name = g.name or {SHARED: "joined", INPUT: "input", "step": "", "hidden": ""}.get(g.kind, g.kind)
            own = " ".join(x for x in (clean(g.band), pretty(name), f"t={g.t}") if x)
            ends.append(clean(g.out.name or "loss") if g.kind == END else own)
        said = f.state if f.norm is None else f"{number(f.norm, 4)} ({scale.state(f.norm)})"
        t = f.source.t if f.source.kind != PARAMETER else f.target.t
        beat = beats[turns[id(f)]] if f.norm is not None else 0
        found.append((f"{ends[0]} → {ends[1]}: gradient {said}", beat, t))
    return found


def _turn(network: Network, target: Group) -> float:
    """The number by which a target is visited.

    An output that is computed after all steps takes its turn just before its own step: nothing
    between the two needs it, and so the pass goes back through time in one sweep.
    """
    if target.kind != OUTPUT:
        return target.out.number
    cells = (groups for (_, t), groups in network.cells.items() if t == target.t)
    own = [n.number for groups in cells for g in groups for n in g.nodes if n.number < target.out.number]
    return max(own) + 0.5 if own else target.out.number


# The document.


def _packed(svg: str) -> str:
    return base64.b64encode(zlib.compress(svg.encode("utf-8"), 9)).decode("ascii")


def _document(
    title: str, said: str, first: str, legend_svg: str, recordings: list[dict], shown: list[int]
) -> str:
    folder = files(__package__ or "viz") / "web"
    template, style, script = (
        (folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    data = json.dumps({"recordings": recordings, "steps": shown}, ensure_ascii=False, separators=(",", ":"))
    parts = {
        "policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src {_hash(script)}; style-src {_hash(style)}",
        "title": html(title, 200), "style": style, "script": script, "said": html(said, 300),
        "picture": first, "legend": legend_svg, "data": data.replace("<", "\\u003c"),
        "last": str(len(recordings) - 1),
        "label": html(" · ".join(x for x in (recordings[-1]["label"], recordings[-1]["loss"]) if x), 200),
    }  # fmt: skip
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
