"""Slides of the backward pass as a film, GIF or MP4: the picture with the edge marked, and its equation below.

Graphviz draws the picture once and says where its lines are; matplotlib marks one of them in each frame.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from minigrad import InputError
from minigrad.files import write

from ..diagram.render import layout
from ..language.scale import INK, ORANGE, SOFT

if TYPE_CHECKING:
    from .steps import Slides

WIDTH, PAD = 1280, 0.15 * 72  # pixels; points around the picture, as draw_operations has them
LINES, LINE = 6, 26  # of text, and their height in pixels


def film(made: Slides, path: Path, seconds: float) -> Path:
    """Write it; raises what `Slides.save` raises."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"save {path}: seconds = {seconds!r}; give how long each edge is shown, above 0")
    import matplotlib.animation as animation
    import matplotlib.image as image
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch

    if path.suffix.lower() == ".mp4" and not animation.writers.is_available("ffmpeg"):
        raise InputError(
            f"save {path}: a film in MP4 needs ffmpeg on PATH; install it, or end the name in .gif"
        )
    pixels = image.imread(io.BytesIO(made.picture.png(WIDTH)))
    lines, width, height = _lines(made)
    rows, columns = pixels.shape[:2]
    tall = rows + LINES * LINE
    figure = Figure(
        figsize=((columns + columns % 2) / 100, (tall + tall % 2) / 100), dpi=100, facecolor="white"
    )
    FigureCanvasAgg(figure)
    share = rows / tall
    axes = figure.add_axes((0, 1 - share, 1, share))
    axes.imshow(pixels, extent=(-PAD, width + PAD, -PAD, height + PAD), aspect="auto")
    axes.axis("off")
    mark = axes.add_patch(
        PathPatch(_curve([(0.0, 0.0)] * 4), fill=False, edgecolor=ORANGE, linewidth=4, zorder=3)
    )
    words = figure.text(0.02, (1 - share) * 0.9, "", va="top", ha="left", color=INK, fontsize=11)
    count = figure.text(0.98, (1 - share) * 0.12, "", va="bottom", ha="right", color=SOFT, fontsize=9)
    kind = animation.PillowWriter if path.suffix.lower() == ".gif" else animation.FFMpegWriter
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"film{path.suffix.lower()}"
        writer = kind(fps=1 / seconds)  # type: ignore[arg-type]  # fewer than one a second
        with writer.saving(figure, str(file), 100):
            for k, slide in enumerate(made.slides):
                mark.set_path(_curve(lines[slide.source, slide.reader]))  # type: ignore[attr-defined]
                words.set_text("\n".join(textwrap.shorten(line, 130) for line in slide.text.splitlines()))
                count.set_text(f"edge {k + 1} of {len(made.slides)}")
                writer.grab_frame()
        return write(path, file.read_bytes())


def _lines(made: Slides) -> tuple[dict[tuple[str, str], list[tuple[float, float]]], float, float]:
    """The points of every line in points, y upwards, and the size of the picture."""
    found = json.loads(layout(made.picture.dot, made.picture.engine, made.picture.time_limit))
    _, _, width, height = map(float, found["bb"].split(","))
    names = {thing["_gvid"]: thing["name"] for thing in found.get("objects", ())}
    lines = {}
    for e in found.get("edges", ()):
        parts = [p for p in e["pos"].split(" ") if p[0] not in "es"]
        points = [(float(x), float(y)) for x, y in (p.split(",") for p in parts)]
        lines.setdefault((names[e["tail"]], names[e["head"]]), points)
    return lines, width, height


def _curve(points: list[tuple[float, float]]):
    from matplotlib.path import Path as Curve

    return Curve(points, [Curve.MOVETO, *[Curve.CURVE4] * (len(points) - 1)])
