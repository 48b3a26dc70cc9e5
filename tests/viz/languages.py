"""The words of a picture or a page, for tests in every language: what is left in English under another one."""

from __future__ import annotations

import gettext
import html
import re
from functools import cache

from viz.language import catalogue

# Names that no language changes: of cells, functions, options, quantities, and the words of formulas.
NAMES = {
    "add", "anomaly", "backward", "bool", "BPTT", "chrono", "clip", "concat", "detach", "End", "Enter",
    "Esc", "exp", "False", "fit", "float", "float32", "float64", "GRU", "Home", "hot", "int64", "IRNN",
    "JANET", "LayerNorm", "log", "loss", "LSTM", "minigrad", "mul", "name", "names", "NaN", "one",
    "PgDn", "PgUp", "PNG", "record", "ReLU", "requires_grad", "RNN", "Shift", "sigmoid", "softmax",
    "sum", "SVG", "tanh", "TCN", "True", "viz", "where",
}  # fmt: skip
WORD = re.compile(r"[^\W\d_]{3,}")


POINT = re.compile(
    r"(scale|width|status) \d+( [ab])?$|lane |seen |\d"
)  # ends of sample lines, too small to be pointed at


def words(text: str) -> set[str]:
    return {w.lower() for w in WORD.findall(text)}


@cache
def messages(name: str) -> tuple[set[str], set[str]]:
    """The words of all English messages of the catalogue, and of all its translations."""
    found = gettext.translation(catalogue.DOMAIN, catalogue.FOLDER, [name])._catalog  # type: ignore[attr-defined]
    ids = [k[0] if isinstance(k, tuple) else k for k in found if k]
    return words(" ".join(map(plain, ids))), words(" ".join(plain(v) for k, v in found.items() if k))


def plain(message: str) -> str:
    """Without the {names} that are filled in."""
    return re.sub(r"\{\w+(?::[^{}]*)?\}", " ", message)


def texts(document: str) -> str:
    """What a reader of an SVG or HTML document sees, hears or points at: text, titles, labels."""
    document = re.sub(
        r"<(style|script|defs|metadata)\b.*?</\1>|<!--.*?-->|<!DOCTYPE.*?>|<\?.*?\?>",
        " ",
        document,
        flags=re.S,
    )
    document = re.sub(r">(scale|width|status) \d+( [ab])?<|lane [\w ]+<", "><", document)
    labels = re.findall(r'(?:aria-label|alt|title)="([^"]*)"', document)
    return html.unescape(" ".join([re.sub(r"<[^>]*>", " ", document), *labels]))


def seen(picture) -> str:
    """All that a picture says.  Of a diagram what is written in its DOT, which needs no layout: labels and tooltips."""
    if not hasattr(picture, "dot"):
        return texts(picture.svg())
    said = re.findall(r">([^<>]+)</", picture.dot) + [
        t for t in re.findall(r'tooltip="([^"]*)"', picture.dot) if not POINT.match(t)
    ]
    return html.unescape(html.unescape(" ".join([picture.title, *said])))


def left_in_english(document: str, english: str, name: str, known: set[str] = frozenset()) -> set[str]:
    """Words of a view that are none of the language's: those of English messages alone, or equal in both renderings."""
    ids, strings = messages(name)
    own, other = words(document), words(english)
    fine = strings | {w.lower() for w in NAMES} | {w.lower() for w in known}
    return ((own & ids) | (own & other)) - fine
