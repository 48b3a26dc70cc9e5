"""The page that holds a gallery's pictures: figures first, then a section for each question.

What comes from outside is text, and is escaped by whoever calls: `words`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

import viz
from viz.language.catalogue import deferred, tag, tr
from viz.measure.links import Transport

# Every picture answers one question.
QUESTIONS = {
    "network": (
        deferred("The unrolled network"),
        deferred("What is computed from what, and along which line does how much gradient flow back?"),
    ),
    "gradient": (
        deferred("The gradient on its way back"),
        deferred("Does the gradient vanish or explode on its way to the first step?"),
    ),
    "paths": (
        deferred("Which way the gradient took"),
        deferred("Which gate lets the gradient through, and which one kills it?"),
    ),
    "bptt": (
        deferred("The BPTT matrix"),
        deferred("The loss of which step reaches back to which step, and how fast is it forgotten?"),
    ),
    "gates": (
        deferred("Gates over time"),
        deferred("What does each gate do at each character, and is it stuck at the end of its range?"),
    ),
    "weights": (
        deferred("Weights by step"),
        deferred("Which step teaches each weight, and do the steps agree?"),
    ),
    "report": (
        deferred("Health report"),
        deferred("What is wrong with this network, if anything, and what can be tried?"),
    ),
}  # fmt: skip


HOW = deferred(
    "A page can be walked about in: zoom, open a step, play the backward pass, go through the training where\n"
    "it was recorded. Click a picture to see it in full."
)


@dataclass
class Section:
    """A heading with its question below, and what answers it, as HTML."""

    key: str
    title: str
    question: str
    content: str


def document(
    title: str,
    said: Iterable[str],
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    sections: list[Section],
) -> bytes:
    """The page: its title, paragraphs, a table, and its sections; everything given is HTML."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    links = "".join(f'<a href="#{s.key}">{s.title}</a>' for s in sections)
    parts = "".join(
        f'<h2 id="{s.key}">{s.title}</h2><p>{s.question}</p><div class="cells">{s.content}</div>'
        for s in sections
    )
    pictures = tr("Pictures")
    return f"""<!DOCTYPE html>
<html lang="{tag()}"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head><body>
<h1>{title}</h1>
{"".join(f"<p>{paragraph}</p>" for paragraph in said)}
<nav aria-label="{pictures}">{links}</nav>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
<p class="soft">{tr(HOW)}</p>
{parts}
</body></html>
""".encode()


def figure(name: str, alt: str, head: str = "", png: bool = True) -> str:
    """A picture that is there as `name`.svg, and as `name`.png; all given is HTML."""
    title = f"<h3>{head}</h3>" if head else ""
    also = f' · <a href="{name}.png">PNG</a>' if png else ""
    return (
        f'<figure>{title}<a class="shot" href="{name}.svg"><img src="{name}.svg" alt="{alt}" loading="lazy"></a>'
        f'<figcaption><a href="{name}.svg">SVG</a>{also}</figcaption></figure>'
    )


def link(to: str, said: str) -> str:
    return f'<a href="{to}">{said}</a>'


def paragraph(said: str) -> str:
    return f"<p>{said}</p>"


def words(text: object) -> str:
    """A text from outside as HTML, and as an attribute's value."""
    return html.escape(str(text), quote=True)


def speed(way: Transport) -> tuple[str, str]:
    """How a gradient fares on its way back, in words: a factor per step, and its half-life."""
    factors = way.factors()
    if not factors:
        return "–", "–"
    half = way.stretches[0].half_life
    if half is None:
        life = "–"
    elif half < 0:
        life = tr("doubles in {half:.1f} steps", half=-half)
    else:
        life = tr("{half:.1f} steps", half=half) if half < 1e4 else tr("keeps its size")
    return f"× {np.median(factors):.2g} ({min(factors):.2g} … {max(factors):.2g})", life


def faults(report: viz.Picture) -> str:
    return ", ".join(dict.fromkeys(tr(f.kind) for f in getattr(report, "faults", []))) or tr("no fault found")


STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #5d6470; --line: #c3c9d1; --paper: #fff;
  --page: #f4f6f8; --mark: #0b57d0; --sheet: none }
@media (prefers-color-scheme: dark) { :root { --ink: #e9eaec; --soft: #a9b0bb; --line: #474d57; --paper: #141414;
  --page: #1d1f23; --mark: #8ab4f8; --sheet: invert(.92) hue-rotate(180deg) } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1500px; padding: 18px; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", Verdana, sans-serif }
h1 { font-size: 1.6rem; margin: 0 } h2 { margin: 2.2rem 0 0; font-size: 1.25rem } h3 { margin: 0; font-size: 1rem }
p { margin: .3rem 0; max-width: 75ch } a { color: var(--mark) } code { overflow-wrap: anywhere }
:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 12px 0 }
.soft, figcaption { color: var(--soft) }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 12px 0; background: var(--paper) }
th, td { white-space: nowrap }
th, td { border: 1px solid var(--line); padding: 5px 12px; text-align: left; font-variant-numeric: tabular-nums }
pre { white-space: pre-wrap; padding: 12px; background: var(--paper); border: 1px solid var(--line); border-radius: 8px }
.cells { display: grid; gap: 16px; margin-top: 10px }
figure { margin: 0; padding: 12px; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; min-width: 0 }
figure .shot { display: block }
figure img { display: block; max-width: 100%; height: auto; filter: var(--sheet); margin: 8px 0 }
@media (max-width: 700px) { body { padding: 10px } .shot { overflow-x: auto } .shot img { max-width: none; width: 900px } }
"""
