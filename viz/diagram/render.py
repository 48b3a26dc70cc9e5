"""`Diagram`: a DOT text, and Graphviz run on it in a child process with a time limit.

`dot` on PATH is used where there is one, else the Graphviz that pygraphviz
brings, through its own library in a Python child.  Either way a layout that
hangs or crashes cannot take the session with it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minigrad import LayoutError

from ..language.picture import Picture, checked_width
from ..language.text import html

_CHILD = """
import sys, pygraphviz
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode("utf-8"))
data = graph.draw(format=sys.argv[1], prog=sys.argv[2])
sys.stdout.buffer.write(data if isinstance(data, bytes) else data.encode("utf-8"))
"""


class Diagram(Picture):
    """A picture of boxes and arrows, which Graphviz draws when it is asked for.

    Attributes besides those of `Picture`: `dot`, the DOT text: the same program writes the same bytes;
    `engine`, the Graphviz layout ("nop2" where the positions are given).

    `svg`, `png` and `pdf` raise LayoutError when Graphviz is absent, fails or needs
    longer than `time_limit` seconds; `dot` is there even then.
    """

    formats = ("dot", "svg", "png", "pdf")

    def __init__(
        self,
        dot: str,
        title: str = "",
        engine: str = "nop2",
        time_limit: float = 20.0,
        data: Mapping[str, np.ndarray] | None = None,
    ):
        super().__init__(title, data)
        self.dot, self.engine, self.time_limit = dot, engine, time_limit
        self._svg: str | None = None

    def svg(self) -> str:
        """The picture as an SVG document."""
        if self._svg is None:
            self._svg = _graphviz(self.dot, "svg", self.engine, self.time_limit).decode("utf-8")
        return self._svg

    def png(self, width: int = 1600) -> bytes:
        """The picture as PNG, at most `width` pixels wide and 2.5 times as high."""
        return _graphviz(_limited(self.dot, checked_width(width)), "png", self.engine, self.time_limit)

    def pdf(self) -> bytes:
        """The picture as a PDF document of one page."""
        return _graphviz(self.dot, "pdf", self.engine, self.time_limit)

    def __repr__(self) -> str:
        return f"<Diagram {self.title!r}: {len(self.dot):,} characters of DOT; .save('picture.svg') draws it>"


def layout(dot: str, engine: str, time_limit: float) -> bytes:
    """Where Graphviz places everything, as JSON; raises LayoutError as `Diagram` does."""
    return _graphviz(dot, "json0", engine, time_limit)


def font_directory() -> Path | None:
    """The folder of the fonts that this package brings for machines without any: a subset of DejaVu Sans.

    None where the package does not lie in a folder (in a zip file, say).
    """
    folder = Path(__file__).with_name("fonts")
    return folder if folder.is_dir() else None


def _graphviz(dot: str, kind: str, engine: str, time_limit: float) -> bytes:
    """Run Graphviz in a child process; raise LayoutError with the remedy when it does not deliver."""
    program = shutil.which("dot")
    if program:
        command = [program, f"-T{kind}", f"-K{engine}"]
    elif importlib.util.find_spec("pygraphviz"):
        command = [sys.executable, "-I", "-c", _CHILD, kind, engine]
    else:
        raise LayoutError(
            "Graphviz is not installed: neither `dot` on PATH nor the Python package pygraphviz; "
            "install one of them (`apt install graphviz`, `pip install pygraphviz`), "
            "or use .dot, the text of the picture"
        )
    with tempfile.TemporaryDirectory(prefix="minigrad-viz-") as folder:
        environment = _with_fonts(Path(folder))
        try:
            done = subprocess.run(
                command,
                input=dot.encode("utf-8"),
                capture_output=True,
                timeout=time_limit,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:  # run() has killed the child
            raise LayoutError(
                f"Graphviz needed longer than {time_limit:g} s for this picture; draw less of it "
                "(a coarser level=, a smaller budget= or window=), raise time_limit=, or use .dot"
            ) from None
        except OSError as error:
            raise LayoutError(
                f"Graphviz could not be started ({command[0]}: {error}); repair it, or use .dot"
            ) from None
    if done.returncode or not done.stdout:
        complaint = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
        raise LayoutError(
            f"Graphviz failed (exit {done.returncode}): {complaint[0][:300]}; "
            "the text of the picture is in .dot"
        )
    return done.stdout


def _with_fonts(folder: Path) -> dict[str, str]:
    """The child's environment: the system's fonts, and those of `font_directory` besides."""
    environment = dict(os.environ)
    fonts = font_directory()
    if fonts is not None and "FONTCONFIG_FILE" not in environment:
        configuration = folder / "fonts.conf"
        configuration.write_text(
            '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
            '<include ignore_missing="yes">/etc/fonts/fonts.conf</include>'
            f'<dir>{html(fonts, 1000)}</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>',
            encoding="utf-8",
        )
        environment["FONTCONFIG_FILE"] = str(configuration)
    return environment


def _limited(dot: str, width: int) -> str:
    """The same graph with a greatest size in inches of 96 dots: an unlimited PNG can take a gigabyte."""
    start = dot.index("{") + 1
    return f'{dot[:start]}\n\tgraph [dpi=96 size="{width / 96:.3f},{2.5 * width / 96:.3f}"]{dot[start:]}'
