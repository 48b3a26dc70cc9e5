"""Names are data: what users call things, made fit for source, files, pictures and terminals.

A name may be any text, and reaches places that would read it as something else: code, a path, markup,
commands of a terminal.  Every such place asks here first.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable

LONGEST = 60  # characters of a name
UNSEEN = (
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
    "Zl",
    "Zp",
)  # control, direction, surrogate, private, unassigned, line breaks


def text_of(name: object) -> str:
    """The characters of a name, whatever type it is of."""
    try:
        return str.__str__(name) if isinstance(name, str) else str.__str__(str(name))
    except Exception:  # an object that cannot say what it is
        return type(name).__name__


def name_of(function: object) -> str:
    """What a function, class or callable object is called."""
    try:
        name = getattr(function, "__name__", None)
    except Exception:  # a property that raises
        name = None
    return str.__str__(name) if isinstance(name, str) else type(function).__name__


def printable(name: object, longest: int = LONGEST) -> str:
    """One line that shows the name: what cannot be seen, or turns the line around, is �; an … ends what is cut."""
    text = text_of(name)[: 4 * longest]
    line = (text if text.isprintable() else "".join(map(_seen, text))).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"


def shown(text: str) -> str:
    """A text of many lines for a terminal: its line breaks and tabs stay, what else cannot be seen is �."""
    return "".join(c if c in "\n\t" else _seen(c) for c in text)


def quotable(name: object) -> str:
    """For the inside of a string, docstring or comment of emitted source, which it cannot end."""
    return printable(name).translate({ord("\\"): "/", ord('"'): "'"})


def identifier(name: object) -> str:
    """A word of ASCII letters, digits and underscores that Python takes for a variable."""
    word = re.sub(r"\W+", "_", text_of(name)[:LONGEST], flags=re.ASCII) or "value"
    if word[0].isdigit():
        return f"v{word}"
    return f"{word}_" if keyword.iskeyword(word) or word == "__debug__" else word


class Taken(set[str]):
    """Names that are in use; it knows the last number behind each, so that the thousandth is found at once."""

    def __init__(self, names: Iterable[str] = ()):
        super().__init__(names)
        self.following: dict[str, int] = {}


def unique(name: str, taken: set[str], between: str = "_") -> str:
    """The name, or with the first number that is free behind it; it is taken from now on."""
    following = taken.following if isinstance(taken, Taken) else {}
    free, k = name, following.get(name, 2)
    while free in taken:
        free, k = f"{name}{between}{k}", k + 1
    taken.add(free)
    following[name] = k
    return free


def file_stem(name: object, longest: int = 40) -> str:
    """The beginning of a file name, for every file system; it is not a file name by itself."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text_of(name)[: 4 * longest]).strip("_")[:longest] or "program"


def _seen(c: str) -> str:
    return " " if c in "\t\n\r" else "\ufffd" if unicodedata.category(c) in UNSEEN else c
