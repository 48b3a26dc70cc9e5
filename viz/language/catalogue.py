"""The language in which pictures, reports and pages speak: English in the source, others from a gettext catalogue.

A sentence stands in the source in English, as ``tr("halves every {n} steps", n=2)``, and is looked up in
locale/pt/LC_MESSAGES/minigrad.po, which glossary.md keeps to the lecture's terms.  Formulas, names of
quantities and of arrays, and the decimal point are the same in every language.
"""

from __future__ import annotations

import gettext
import os
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from minigrad import InputError

DOMAIN, FOLDER = "minigrad", Path(__file__).with_name("locale")
LANGUAGES = ("en", "pt")
_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # in the order in which gettext asks them
_chosen: ContextVar[str | None] = ContextVar("language", default=None)


class language:  # noqa: N801 - called like a function
    """Choose the language of pictures, reports and pages that are made from now on: "en" or "pt".

    It holds in the current context (a thread or a task of its own starts with the environment's), or, as
    ``with viz.language("pt"):``, up to the end of the block.  None: the environment's, by LANGUAGE, LC_ALL,
    LC_MESSAGES and LANG, where it is one of these; else English.  A picture stays in the language in which it
    was made.  "pt_BR" and the like mean "pt".  Raises InputError for a language that there is none of.
    """

    LANGUAGES = LANGUAGES

    def __init__(self, name: str | None = None):
        known = None if name is None else _known(name) if isinstance(name, str) else ""
        if known == "":
            raise InputError(f"language: {name!r} is not there; choose one of {', '.join(LANGUAGES)}")
        self._before = _chosen.get()
        _chosen.set(known)
        self.name = current()

    def __enter__(self) -> language:
        return self

    def __exit__(self, *_) -> None:
        _chosen.set(self._before)

    def __repr__(self) -> str:
        return f"<language {self.name}>"


def current() -> str:
    """The language that is chosen, else the environment's."""
    return _chosen.get() or _of_environment()


def tag() -> str:
    """The language that is chosen, as HTML names it."""
    return {"pt": "pt-BR"}.get(current(), current())


def tr(message: str, /, **values: object) -> str:
    """The message in the language that is chosen, its {names} filled in."""
    said = _catalogue(current()).gettext(message)
    return said.format(**values) if values else said


def trn(one: str, many: str, n: int, /, **values: object) -> str:
    """One of two messages by a number, which is {n} in them."""
    return _catalogue(current()).ngettext(one, many, n).format(n=n, **values)


def deferred(message: str) -> str:
    """The message as it is: marks a constant for the catalogue, to be looked up by ``tr`` where it is shown."""
    return message


def listed(parts) -> str:
    """Sets the parts side by side: a and b and c."""
    return tr(" and ").join(parts)


def words(messages) -> dict[str, str]:
    """The catalogue's entries for the scripts of a page: those of the messages that read otherwise in this language."""
    found = {m: tr(m) for m in messages}
    return {m: said for m, said in found.items() if said != m}


def _known(name: str) -> str:
    """ "pt" of "pt_BR.UTF-8"; "" of what there is no catalogue of."""
    code = name.replace("-", "_").partition(".")[0].partition("@")[0].partition("_")[0]
    return "en" if code in ("C", "POSIX") else code.lower() if code.lower() in LANGUAGES else ""


def _of_environment() -> str:
    wanted = next((value for v in _VARIABLES if (value := os.environ.get(v))), "")
    return next((known for name in wanted.split(":") if (known := _known(name))), "en")


@cache
def _catalogue(name: str) -> gettext.NullTranslations:
    if name == "en":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, FOLDER, [name])
