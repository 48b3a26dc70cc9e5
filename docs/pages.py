"""Runs the Python of a page of Markdown, as its tests do, and shows what it gives, as the site does.

The blocks of a page run one after the other in one namespace and one folder, with warnings as errors, as cells of a
notebook do.  What a block prints stands below it on the site, and so does the value of its last line: a picture as
SVG, a page in a frame, anything else as text.  So a page cannot show what the library does not give.

Behind ```python an option may stand: `hide` leaves the output out, `show=python` says what language it is in.
"""

from __future__ import annotations

import ast
import contextlib
import html
import io
import linecache
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import viz

FENCE = re.compile(
    r"^```(?P<language>\w*)(?P<options>[^\n`]*)\n(?P<code>.*?)^```[^\S\n]*$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the options behind it, its code, and where it stands in the page."""

    language: str
    options: tuple[str, ...]
    code: str
    start: int
    end: int


@dataclass
class Output:
    """What a block printed, and the value of its last line, None where that is no expression."""

    block: Block
    printed: str = ""
    value: object = None
    files: dict[str, bytes] = field(default_factory=dict)  # what the site has to hold beside the page


def blocks(text: str, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, all or those of a language."""
    found = [
        Block(m["language"], tuple(m["options"].split()), m["code"], m.start(), m.end())
        for m in FENCE.finditer(text)
    ]
    return [b for b in found if language in (None, b.language)]


def run(text: str, folder: Path, name: str) -> Iterator[Output]:
    """Run the Python blocks of a page in `folder`; raises RuntimeError with the block where one fails or warns."""
    space: dict = {"__name__": "__main__"}
    for k, block in enumerate(blocks(text, "python"), 1):
        output, printed = Output(block), io.StringIO()
        where = f"<{name}, block {k}>"
        linecache.cache[where] = len(block.code), None, block.code.splitlines(keepends=True), where
        try:
            with _in(folder), contextlib.redirect_stdout(printed), warnings.catch_warnings():
                warnings.simplefilter("error")
                output.value = _value(block.code, where, space)
        except Exception as error:
            raise RuntimeError(
                f"{name}, Python block {k}, {type(error).__name__}: {error}\n{block.code}"
            ) from error
        output.printed = printed.getvalue()
        yield output


def _value(code: str, where: str, space: dict) -> object:
    """Run it; the value of its last line, which a semicolon behind it keeps back as in a notebook."""
    tree = ast.parse(code, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), space)
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), where, "eval"), space)
    return None if code.rstrip().endswith(";") else value


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[None]:
    """In a folder, which is also where modules are found."""
    before = os.getcwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        os.chdir(before)


# What a reader sees.

APART = {"en": "The same on a page of its own", "pt": "O mesmo em uma página à parte"}  # words of a link


def shown(text: str, folder: Path, name: str, language: str = "en") -> tuple[str, dict[str, bytes]]:
    """The page with the outputs of its blocks in a language, and the files beside it by name."""
    parts, at, files = [], 0, {}
    with viz.language(language):
        for k, output in enumerate(run(text, folder, name), 1):
            block = output.block
            parts += [text[at : block.start], f"```python\n{block.code}```\n"]
            if "hide" not in block.options:
                said, more = _shown(output, f"{name}-{k}", language)
                parts.append(said)
                files |= more
            at = block.end
    return "".join([*parts, text[at:]]), files


def _shown(output: Output, stem: str, language: str = "en") -> tuple[str, dict[str, bytes]]:
    value, said, files = output.value, output.printed, {}
    picture = frame = ""
    if callable(getattr(value, "svg", None)):
        files[f"{stem}.svg"] = value.svg().encode()
        title = html.escape(value.title or "picture", quote=True)
        picture = f'\n<a class="picture" href="{stem}.svg"><img src="{stem}.svg" alt="{title}"></a>\n'
    elif isinstance(getattr(value, "html", None), str):
        files[f"{stem}.html"] = value.html.encode()
        title = html.escape(getattr(value, "title", "") or "page", quote=True)
        frame = (
            f'\n<iframe class="page" title="{title}" src="{stem}.html" loading="lazy"></iframe>\n'
            f'\n<a href="{stem}.html">{APART[language]}</a>\n'
        )
    elif value is not None:
        said += f"{value!r}\n"
    language = next((o.removeprefix("show=") for o in output.block.options if o.startswith("show=")), "text")
    words = f"\n```{language} {{ .output }}\n{said.rstrip()}\n```\n" if said.strip() else ""
    return words + picture + frame, files
