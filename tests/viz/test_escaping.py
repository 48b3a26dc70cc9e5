"""Names, scopes and titles are text, whatever is in them: no script, link or file can enter through them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from drawn import texts
from hypothesis import given, settings
from hypothesis import strategies as st

import cells
import viz
from minigrad import Tensor, scope, tanh
from viz.language.text import clean

NASTY = [
    "</svg><script>alert(1)</script>",
    "javascript:alert(1)",
    '"><img src=x onerror=alert(1)>',
    '<<IMG SRC="/etc/passwd"/>>',
    "<b>",
    r"\N \G \L \\",
    "a\x00b\x1b\x07",
    "line\nbreak\ttab\r\n",
    "]; node [URL=x]; // -->",
    "&lt;&amp;&#60;",
    "a:b:n",
    "‮ right to left",
    "q" * 500,
    "",
    "<",
    "\\",
    '"',
    "\ud800",
    "￾",
]
URL = re.compile(r"url\(\s*[\"']?([^)]*)\)")
ALLOWED = {
    "svg",
    "g",
    "title",
    "polygon",
    "path",
    "polyline",
    "ellipse",
    "text",
    "a",
    "tspan",
    "stop",
    "linearGradient",
    "defs",
    "b",
    # of charts
    "metadata",
    "RDF",
    "Work",
    "type",
    "use",
    "clipPath",
    "rect",
    "style",
}


def harmless(svg: str) -> None:
    """Well-formed, drawn of shapes and words alone, without a link to anywhere."""
    for element in ElementTree.fromstring(svg).iter():
        tag = element.tag.rpartition("}")[2]
        assert tag in ALLOWED, f"<{tag}> in the picture"
        for name in element.attrib:
            local, value = name.rpartition("}")[2].lower(), element.attrib[name]
            assert not local.startswith("on") and local not in ("src", "url"), local
            assert local != "href" or value.startswith("#"), value  # within the picture
            assert all(place.startswith("#") for place in URL.findall(value)), value
        if tag in ("style", "metadata"):
            assert not URL.search("".join(element.itertext())) and "@import" not in (element.text or "")


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        assert not [n for n, _ in attrs if n.startswith("on") or n in ("href", "src")]


def named(name: str):
    """A graph in which `name` stands wherever a text from outside can."""
    x = Tensor(np.ones((1, 2)), requires_grad=True, name=name)
    with scope(name, "t=1"):
        a = tanh(x * 2.0).named(name)
    with scope(name, "t=2"):
        b = tanh(a).named(name)
    loss = b.sum().named(name)
    loss.backward(record=True)
    return loss


@pytest.mark.parametrize("name", NASTY, ids=range(len(NASTY)))
def test_nasty_names(name):
    loss = named(name)
    pictures = [viz.draw(loss, level=level, title=name) for level in ("step", "gate", "operation")]
    pictures.append(viz.draw(tanh(loss).detach(), title=name))
    if name:  # a quantity without a name is none
        views = (viz.gradient, viz.gates, viz.paths, viz.bptt, viz.direct, viz.weights_by_step)
        pictures += [view(loss, title=name) for view in views]
        pictures.append(viz.compare({name: loss, "other": loss}, title=name))
        assert all(c.isprintable() or c in " \n" for p in pictures for c in p.text)
    for picture in pictures:
        harmless(picture.svg())
        assert "\x00" not in getattr(picture, "dot", "")
        tags = Tags()
        tags.feed(picture._repr_mimebundle_()["text/html"])
        assert not tags.seen & {"script", "img", "iframe", "object", "image", "foreignobject"}


def test_a_name_comes_out_as_it_is():
    for name in ("<b>", "W & b", 'q"q', r"a\Nb", "&lt;", "]", "[a]", "\\"):
        loss = tanh(Tensor(np.ones(2), requires_grad=True, name=name))
        assert any(name in t for t in texts(viz.draw(loss).svg())), name


@settings(max_examples=20)
@given(st.text(max_size=30), st.text(max_size=30))
def test_drawn_names(name, title):
    loss = named(name)
    for picture in (viz.draw(loss, title=title), viz.draw(loss, level="operation", title=title)):
        harmless(picture.svg())


@given(st.text(max_size=300))
def test_clean_text_is_one_printable_line(text):
    line = clean(text)
    assert len(line) <= 60 and all(c.isprintable() or c == " " for c in line)


def test_two_nodes_of_one_name_stay_two():
    a, b = Tensor(1.0, requires_grad=True, name="w"), Tensor(2.0, requires_grad=True, name="w")
    dot = viz.draw(a * b).dot
    assert "\tw [" in dot and '"w 2" [' in dot


def test_words_of_a_cell_do_not_leak_into_links():
    loss = cells.run(
        cells.RNN(2, 2, np.random.default_rng(0)), np.ones((2, 1, 2), "f"), label="javascript:x"
    ).steps
    svg = viz.draw(loss).svg()
    harmless(svg)
    assert any("javascript:x" in t for t in texts(svg))
