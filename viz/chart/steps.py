"""Which steps a chart over time has as columns, and what it says of those that it leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from ..language.catalogue import tr
from ..language.text import clean
from ..read.network import Network

MOST_COLUMNS = 27


def drawn(times: Sequence[int], most: int = MOST_COLUMNS) -> tuple[list[int], int]:
    """The steps to draw, and their distance: every nth, counted from the end, where the gradient comes from."""
    stride = max(1, -(-len(times) // most))
    return list(times[::-stride][::-1]), stride


def sampled(stride: int, total: int) -> list[str]:
    """The sentence that says which steps are drawn; none where all are."""
    end = "th" if stride % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(stride % 10, "th")
    return (
        [tr("Every {n}{th} of {total} steps is drawn.", n=stride, th=end, total=total)] if stride > 1 else []
    )


def captions_of(network: Network, times: Sequence[int]) -> list[str]:
    """What stands below the numbers of the steps; nothing where there are no captions."""
    return [clean(network.captions.get(t, "")) for t in times] if network.captions else []
