"""The backward pass one edge at a time, which a teacher pages through: `steps`.

Each slide is one edge of the graph of operations, in the order in which reverse mode goes: the edge is marked in the
picture, and beside it stand the operation, the local derivative, the gradient that has arrived, and their product, with
their numbers.  The file needs nothing else, and without scripts it is the picture and all slides below one another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from importlib.resources import files
from pathlib import Path

import numpy as np

from minigrad import InputError, Tensor, ancestors
from minigrad.files import write

from ..diagram.draw import choose
from ..diagram.operations import draw_operations, is_constant, select
from ..diagram.render import Diagram
from ..formula.edges import EdgeWords, EdgeWriter
from ..formula.words import Words
from ..language.catalogue import current, language, tr
from ..language.scale import ORANGE, Scale
from ..language.status import norm
from ..language.text import clean, html, number, pretty, shape_text
from ..read.network import END, FIRST, PARAMETER, Captions, Network, read, roots_of, statuses_of
from .page import filled, framed
from .parts import cleaned

MOST = 600  # slides
WIDE, HIGH = 6, 4  # numbers of an array that are written out


@dataclass(frozen=True)
class Slide:
    """An edge: from the item `reader` of the picture to the item `source` that it reads, and what is said of it.

    operation, slope, arrives, goes, into : words; slope is None where numbers are only moved.  sent, factor, product :
    what arrives, the local derivative where it is one number for each of the output's, and what goes on.
    where : the step, 0 outside of all.
    """

    reader: str
    source: str
    where: int
    words: EdgeWords
    sent: np.ndarray
    factor: np.ndarray | None
    product: np.ndarray
    count: tuple[int, int]  # which of how many parts of the input's gradient this is

    @property
    def text(self) -> str:
        """The slide in lines of plain text."""
        w = self.words
        lines = (
            [f"{w.forward[0].text} = {w.forward[1].text}"] if w.forward[0].text != w.forward[1].text else []
        )
        if w.slope is not None:
            lines.append(tr("local derivative: {slope}", slope=w.slope.text))
        lines.append(f"{w.into.text} {self.sign} {w.goes.text}")
        return "\n".join(lines)

    @property
    def sign(self) -> str:
        """ "+=" where other edges send parts of the same gradient."""
        return "=" if self.count[1] == 1 else "+="


class Slides:
    """The backward pass as slides.  `slides` are they, `html` is the page, `picture` the graph without marks.

    `begins` says, where the end of the graph is one box, that the pass starts behind it.
    """

    def __init__(self, title: str, picture: Diagram, slides: Sequence[Slide], begins: str = ""):
        self.title, self.picture, self.slides, self.begins = title, picture, list(slides), begins
        self._language = current()  # in which it stays

    @property
    def html(self) -> str:
        """One HTML file: arrows, buttons or a touch go from edge to edge."""
        with language(self._language):
            return _document(self)

    def save(self, path: str | os.PathLike, seconds: float = 2.0) -> Path:
        """Write the slides: a page (.html), a film (.gif, or .mp4 where ffmpeg is on PATH).

        seconds : that each edge is shown in a film.  A missing folder is made; the file appears complete or not at all.
        Raises InputError for another ending, for .mp4 without ffmpeg, and for seconds that are not above 0.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind in (".html", ".htm"):
            return write(path, self.html.encode("utf-8"))
        if kind not in (".gif", ".mp4"):
            raise InputError(
                f"save {path}: the slides are a page or a film; end the name in .html, .gif or .mp4"
            )
        from .film import film

        return film(self, path, seconds)

    def at(self, k: int) -> Diagram:
        """The picture with the edge of slide k marked, as it stands in a film.  Raises InputError where there is none."""
        if not -len(self.slides) <= k < len(self.slides):
            raise InputError(f"steps: there is no slide {k}; there are {len(self.slides)}, from 0")
        slide, picture = self.slides[k], self.picture
        lines = [
            _orange(line) if _ends(line) == (slide.source, slide.reader) else line
            for line in picture.dot.split("\n")
        ]
        with language(self._language):
            title = tr("{title}: edge {k}", title=self.title, k=k % len(self.slides) + 1)
        return Diagram("\n".join(lines), title, picture.engine, picture.time_limit)

    def _repr_html_(self) -> str:
        return framed(self.html, self.title)

    def __len__(self) -> int:
        return len(self.slides)

    def __repr__(self) -> str:
        return f"<Slides {self.title!r}: {len(self.slides)} edges; .save('steps.html') writes them>"


def steps(
    what: Tensor | list, steps: list | None = None, *, title: str = "", window: tuple[int, int] | None = None,
    budget: int = 400, scale: Scale | None = None, time_limit: float = 20.0, captions: Captions | None = None,
) -> Slides:  # fmt: skip
    """The backward pass one edge at a time: the graph of operations, with the equation of the current edge beside it.

    what : a tensor, such as the loss, after ``loss.backward(record=True)``, or the steps of a run.
    steps, title, window, budget, scale, time_limit, captions : as for `draw`, whose level "operation" this is; edges
        of what is not drawn have no slide.

    Slides stand in the order of reverse mode: a node is left when all that reads it has been.  Equations are printed from
    the graph, for all sequences at once.  Raises InputError where no gradient was recorded, where there are more than 600
    edges, and what `draw` raises.
    """
    root, records = roots_of(what, steps)
    network = read(root, records, captions)
    nodes = network.nodes if network is not None else ancestors(root)
    statuses = network.statuses if network is not None else statuses_of(root)
    if not any(n.contributions for n in nodes):
        raise InputError("steps: no gradient was recorded; call loss.backward(record=True) first")
    shown = choose(network, "operation", budget, window) if network is not None else []
    title = clean(title or tr("{name}, backward, edge by edge", name=clean(root.name or tr("graph"))), 200)
    picture = draw_operations(root, nodes, statuses, network, shown, budget, title, scale, time_limit)
    slides = _slides(root, nodes, network, shown, budget)
    if len(slides) > MOST:
        raise InputError(
            f"steps: {len(slides)} edges; show at most {MOST}, e.g. window=(1, 2) or a smaller budget="
        )
    if not slides:
        raise InputError(
            "steps: no edge that is drawn has a gradient; draw more of it, by window= or budget="
        )
    ended = network is not None and network.end is not None
    name = clean(root.name or tr("the loss"))
    begins = tr("The pass starts with what {name} sends to what it is made of.", name=name) if ended else ""
    return Slides(title, picture, slides, begins)


def _slides(
    root: Tensor, nodes: list[Tensor], network: Network | None, shown: list[int], budget: int
) -> list[Slide]:
    items, edges = select(root, nodes, network, shown, budget)
    drawn = {i.key for i in items if not i.said}
    line = {
        (n.number, k): (e.source, e.target)
        for e in edges
        for n, k, _ in e.parts
        if e.source in drawn and e.target in drawn
    }
    times = {n.number: _time(network, n) for n in nodes} if network is not None else {}
    writer = EdgeWriter(nodes, {number: t for number, t in times.items() if t is not None})
    parts: dict[int, int] = {}
    for n in nodes:
        for k, x in enumerate(n.inputs):
            parts[x.number] = parts.get(x.number, 0) + _sends(n, k)
    so_far: dict[int, int] = {}
    found = []
    for n in reversed(nodes):
        for k, x in enumerate(n.inputs):
            if not _sends(n, k):
                continue
            so_far[x.number] = so_far.get(x.number, 0) + 1
            if (n.number, k) in line:
                source, reader = line[n.number, k]
                count = so_far[x.number], parts[x.number]
                sent, part = np.asarray(n.grad), np.asarray(n.contributions[k])  # type: ignore[index]
                words = writer.edge(n, k)
                found.append(
                    Slide(reader, source, times.get(n.number) or 0, words, sent, _factor(n, k), part, count)
                )
    return found


def _sends(n: Tensor, k: int) -> bool:
    return bool(n.contributions) and n.contributions[k] is not None and not is_constant(n.inputs[k])


def _time(network: Network, n: Tensor) -> int | None:
    """The step that is written behind a node's name."""
    group = network.group_of[n.number]
    return None if group.kind in (PARAMETER, END) else 0 if group.kind == FIRST else group.t


def _factor(n: Tensor, k: int) -> np.ndarray | None:
    """The local derivative of an operation element by element: what goes on where 1 arrives."""
    if n.op is None or n.op.kind != "elementwise" or n.op.vjp is None:
        return None
    one = np.ones(n.shape, n.dtype)
    return np.broadcast_to(n.op.vjp[k](one, n.value, *(x.value for x in n.inputs), *n.params), n.shape)


# The picture.

_NAME = r'("(?:[^"\\]|\\.)*"|[\w.]+)'
_LINE = re.compile(rf"\s*{_NAME} -> {_NAME} \[")


def _ends(line: str) -> tuple[str, ...] | None:
    """The two ends of a line of DOT that is an edge."""
    found = _LINE.match(line)
    return tuple(n.strip('"').replace('\\"', '"') for n in found.groups()) if found else None


def _orange(line: str) -> str:
    line = re.sub(r' color="?[^" ]+"?', f' color="{ORANGE}"', line, count=1)
    return re.sub(r" penwidth=[\d.]+", " penwidth=7", line, count=1)


# The page.


def _document(made: Slides) -> str:
    folder = files(__package__ or "viz") / "web"
    page, style, script = (
        (folder / f"steps.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    parts = {
        "picture": _marked(made),
        "slides": "\n".join(_slide(s, k, len(made.slides)) for k, s in enumerate(made.slides)),
        "last": str(len(made.slides)), "begins": html(made.begins, 400),
    }  # fmt: skip
    return filled(page, made.title, style, script, parts)


def _marked(made: Slides) -> str:
    """The picture, in which every line and box of a slide can be found by the number of that slide."""
    of_edge: dict[str, list[int]] = {}
    of_node: dict[str, list[int]] = {}
    for k, s in enumerate(made.slides):
        of_edge.setdefault(f"{s.source}->{s.reader}", []).append(k)
        of_node.setdefault(s.source, []).append(k)
        of_node.setdefault(s.reader, []).append(k)

    def marked(found: re.Match) -> str:
        slides = {"edge": of_edge, "node": of_node}[found[1]].get(unescape(found[2]))
        said = f' data-slides="{" ".join(map(str, slides))}"' if slides else ""
        return f'<g class="{found[1]}"{said}>'

    svg = re.sub(r'<g id="[^"]*" class="(edge|node)">\s*<title>(.*?)</title>', marked, made.picture.svg())
    return cleaned(svg, made.title)


def _slide(s: Slide, k: int, of: int) -> str:
    w = s.words
    title = tr("edge {k} of {n}", k=k + 1, n=of)
    if s.where:
        title = tr("step {t}, {edge}", t=s.where, edge=title)
    rows = []
    if w.forward[0].text != w.forward[1].text:
        rows.append(
            f'<p class="forward"><span>{tr("forward")}</span>{_formula(w.forward[0])} = {_formula(w.forward[1])}</p>'
        )
    goes = _formula(w.goes, w.arrives)
    rows.append(f'<p class="backward"><span>{tr("backward")}</span>{_formula(w.into)} {s.sign} {goes}</p>')
    rows.append('<div class="numbers">')
    rows.append(_array(tr("arrives"), w.arrives, s.sent, "up"))
    if w.slope is not None:
        rows.append(_array(tr("local derivative"), w.slope, s.factor, "slope"))
    else:
        moved = tr("numbers are only moved")
        rows.append(f'<figure class="slope"><figcaption>{moved}</figcaption></figure>')
    rows.append(_array(tr("goes on"), w.into, s.product, "goes"))
    rows.append("</div>")
    if s.count[1] > 1:
        part = dict(k=s.count[0], n=s.count[1], gradient=_formula(w.into))
        said = (
            tr("Part {k} of {n} of {gradient}; it is complete now.", **part)
            if s.count[0] == s.count[1]
            else tr("Part {k} of {n} of {gradient}.", **part)
        )
        rows.append(f'<p class="said">{said}</p>')
    return f'<li id="edge-{k + 1}"><h2>{title}</h2>{"".join(rows)}</li>'


def _array(caption: str, words: Words, array: np.ndarray | None, kind: str) -> str:
    said = f"<figcaption>{caption}<br>{_formula(words)}</figcaption>"
    if array is None:
        return f'<figure class="{kind}">{said}</figure>'
    rows = np.asarray(array, np.float64)
    rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim else rows.reshape(1, 1)
    if rows.shape[0] > HIGH or rows.shape[1] > WIDE:
        return f'<figure class="{kind}">{said}<p>{shape_text(array.shape)}, ‖·‖ {number(norm(array), 3)}</p></figure>'
    cells = "".join("<tr>" + "".join(f"<td>{number(v, 3)}</td>" for v in row) + "</tr>" for row in rows)
    return f'<figure class="{kind}">{said}<table>{cells}</table></figure>'


def _formula(words: Words, up: Words | None = None) -> str:
    """Words as HTML: indices low, transposition high; `up`, the gradient that arrives, is marked in them."""
    text = words.text
    parts = text.split(up.text) if up is not None and up.text in text else [text]
    mark = f'<b class="up">{_lowered(up.text)}</b>' if up is not None else ""
    return f'<span class="formula">{mark.join(map(_lowered, parts))}</span>'


def _lowered(text: str) -> str:
    inner = text.strip()
    if not inner:
        return text
    before, _, after = text.partition(inner)
    safe = html(pretty(inner), 2000)
    safe = re.sub(r"_\{([^{}]*)\}", r"<sub>\1</sub>", safe)
    safe = re.sub(r"_(\w+)", r"<sub>\1</sub>", safe)
    return before + safe.replace("ᵀ", "<sup>⊤</sup>") + after
