"""`draw`: one entry for pictures of a graph at every level of detail."""

from __future__ import annotations

from minigrad import InputError, Tensor, ancestors

from ..language.catalogue import tr, trn
from ..language.scale import Scale
from ..language.text import clean
from ..measure.arrays import of_network, of_nodes
from ..measure.folding import LEAST_FOLD, MOST, WHOLE, steps_shown
from ..read.network import Captions, Network, read, roots_of, statuses_of
from .operations import draw_operations
from .render import Diagram
from .sequence import draw_steps
from .unrolled import draw_gates

LEVELS = ("step", "gate", "operation")
LEAST_BUDGET = 10


def draw(
    what: Tensor | list, steps: list | None = None, *, level: str | None = None, title: str = "",
    budget: int = 400, window: tuple[int, int] | None = None, scale: Scale | None = None,
    time_limit: float = 20.0, captions: Captions | None = None,
) -> Diagram:  # fmt: skip
    """A picture of the graph behind a tensor, with the gradients of the last recorded backward pass.

    what : a tensor, such as the loss, or the steps of a run, `run.steps`.
    steps : those steps; they may be left out, as the graph tells them by its scopes.
    level : "step", "gate" (the default for a recurrence) or "operation".  A graph
        without steps is always drawn by its operations.
    budget : the greatest number of nodes.  The middle of longer sequences and
        chains is left out, and the picture says so.
    window : the first and the last step to draw, e.g. (3, 4); default: all up to 8, of
        more the ends and every step at which something happens.
    scale : a `Scale`, to set several pictures side by side.
    time_limit : seconds that Graphviz may take.
    captions : what is written beside "t = 3", such as the input and the target "e → l":
        a text per step, or a dict from t to text.

    Gradients are shown after ``loss.backward(record=True)``; before, the picture says
    that they are not computed.  The picture's `data` has the values of the drawn steps "t"
    as "f", gradients as "df", weights as "W_f" and "dW_f", and the norms along the lines
    as "c before → f".  Raises InputError for what cannot be drawn or an option that makes
    no sense, GraphError for a graph that was freed.
    """
    root, steps = roots_of(what, steps)
    if level is not None and level not in LEVELS:
        raise InputError(f"draw: level = {level!r}; choose one of {', '.join(map(repr, LEVELS))}")
    if not isinstance(budget, int) or budget < LEAST_BUDGET:
        raise InputError(f"draw: budget = {budget!r} nodes; give a whole number of at least {LEAST_BUDGET}")
    if not time_limit > 0:
        raise InputError(f"draw: time_limit = {time_limit!r}; give seconds above 0")
    network = read(root, steps, captions)
    if network is None:
        if captions is not None:
            raise InputError("draw: captions are for steps, and nothing in this graph stands in one")
        nodes, statuses = ancestors(root), statuses_of(root)
        picture = draw_operations(root, nodes, statuses, None, [], budget, title, scale, time_limit)
        picture.data = of_nodes(nodes, statuses)
        return picture
    level = level or "gate"
    shown = choose(network, level, budget, window)
    title = title or trn(
        "{name}: {n} step", "{name}: {n} steps", len(network.times), name=clean(root.name or tr("graph"))
    )
    if level == "operation":
        picture = draw_operations(
            root, network.nodes, network.statuses, network, shown, budget, title, scale, time_limit
        )
    else:
        picture = (draw_steps if level == "step" else draw_gates)(network, shown, title, scale, time_limit)
    picture.data = of_network(network, shown)
    return picture


def choose(network: Network, level: str, budget: int, window: tuple[int, int] | None) -> list[int]:
    """The steps to draw: those of the window, or those that `steps_shown` finds, within the budget."""
    times = network.times
    if window is not None:
        try:
            first, last = window
            times = [t for t in times if first <= t <= last]
        except (TypeError, ValueError):
            raise InputError(
                f"draw: window = {window!r}; give the first and the last step, e.g. (3, 4)"
            ) from None
        if not times:
            raise InputError(
                f"draw: window = {window!r} holds no step; "
                f"there are t = {network.times[0]} … {network.times[-1]}"
            )
    # Outside the steps stand the end and the first states.
    most = max(1, (budget - 6) // _cost(network, level))
    if window is not None:
        start = most // 2
        return times if len(times) <= most else times[:start] + times[len(times) - (most - start) :]
    if level == "operation":
        return steps_shown(network, 1, min(most, LEAST_FOLD))
    return steps_shown(network, WHOLE, min(most, MOST), level == "gate")


def _cost(network: Network, level: str) -> int:
    """Nodes per step."""
    t = network.times[-1]
    cells = [(key, groups) for key, groups in network.cells.items() if key[1] == t]
    if level == "step":
        return sum(3 + max(1, len(network.carried[band])) for (band, _), _ in cells)
    if level == "gate":
        return sum(len(groups) + len(network.inputs.get(key, ())) for key, groups in cells) + 2
    return sum(2 * len(g.nodes) for _, groups in cells for g in groups)
