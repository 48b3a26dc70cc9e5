"""Transport: of the gradient at step t + 1, which part arrives at step t, by state and by way.

The states of a layer at a step are taken as one vector that the step hands out.  What later
steps, losses and layers above send to it is g (what its own step makes of it, as h of c, lies
within the step and is not counted twice).  J is the derivative of the states of step t + 1 with
respect to those of step t: Jᵀg arrives at step t, and what that step's own loss adds comes on top.
A total ‖∂L/∂h_t‖ mixes the two and counts losses; a factor ‖Jᵀg‖ ÷ ‖g‖ does not.
`transport` gives them in numbers and in words.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minigrad import InputError, Tensor
from minigrad.items import flows_back, itemised, pulled, reach

from ..language.catalogue import tr
from ..language.status import norm, norms
from ..language.text import clean, columns, number
from ..read.network import QUANTITY, SHARED, Network, gradient_of, read, roots_of
from .links import Link, Rows, Stretch, Transport
from .recurrence import cut_states, operations
from .ways import Where, carried, split, where
from .words import headline

MOST_LOSSES, MOST_UNITS = 100, 64  # of a stretch; of a layer


class Transports(list[Transport]):
    """One `Transport` for each layer that carries states; printed as a few lines of words."""

    def __repr__(self) -> str:
        return "\n".join(line for one in self for line in _lines(one))


def transport(what: Tensor | list, steps: list | None = None) -> Transports:
    """Of the gradient at step t + 1, which part arrives at step t: for each layer, step, state and way.

    what, steps : the loss after ``loss.backward(record=True)``, as for `gradient`.

    A `Transport` has a link for each two steps: `factor` is ‖Jᵀg‖ ÷ ‖g‖ of all states together, a number
    without unit; `by_state` and `by_way` are those parts' norms over the same ‖g‖.  `added` is the norm of
    what the step's own loss adds.  Each of `stretches`, from cut to cut, has a half-life in steps, fitted to
    rows, and, of at most 64 units, the largest and the typical stretch of the product of its Jacobians, per
    step.  `rows` has the norms of ∂L_s/∂(states of step t), for at most 100 losses of a stretch.

    Raises InputError where no state is carried or no gradient was recorded.
    """
    root, records = roots_of(what, steps)
    network = read(root, records)
    names = carried("transport", network)
    assert network is not None
    if not network.computed:
        raise InputError("transport: no gradient was recorded; run loss.backward(record=True)")
    found = Transports(transports(network))
    for one in found:
        follow(network, one, MOST_LOSSES)
        jacobians(network, one)
        for band, name in names:
            if band == one.band:
                state = split(network, band, name, [link.t for link in one.links])
                for link in (link for link in one.links if one.size[link.after]):
                    for way in state.gates:
                        part = state.parts.get(way, {}).get(link.t)
                        if part is not None and (link.after, state.gates[way]) not in one.aside:
                            link.by_way[name, way] = part / one.size[link.after]
    return found


def _lines(one: Transport) -> list[str]:
    """The headline, and the links as a table."""
    lines = [headline(one)]
    rows = [["t", tr("joint"), *map(clean, one.states), tr("own loss")]]
    for link in reversed(one.links):
        parts = [
            tr("cut") if s in link.cut else number(link.by_state[s]) if s in link.by_state else "–"
            for s in one.states
        ]
        joint = tr("cut") if link.is_cut else "–" if link.factor is None else number(link.factor)
        rows.append([f"{link.t} ← {link.after}", joint, *parts, number(one.added.get(link.t, 0.0))])
    if len(rows) > 14:
        rows = [*rows[:7], ["…"] + [""] * (len(rows[0]) - 1), *rows[-6:]]
    return lines + columns(rows)


def transports(network: Network) -> list[Transport]:
    """One for each layer that carries states and got a gradient by ``backward(record=True)``.

    Rows are followed of a few losses of each stretch; `follow` follows more.  Measured once for a network.
    """
    if "transports" not in network.measured:
        bands = [band for band in network.bands if network.carried[band]] if network.computed else []
        found = [_transport(network, band) for band in bands]
        for one in found:
            follow(network, one)
        network.measured["transports"] = found
    return network.measured["transports"]  # type: ignore[return-value]


def state_nodes(network: Network, band: str) -> dict[int, dict[str, Tensor]]:
    """The states of a layer by step and name, in the order in which they were computed, first states first."""
    names = network.carried[band]
    found: dict[int, dict[str, Tensor]] = {}
    for name in names:
        if (g := network.first.get((band, name))) is not None:
            found.setdefault(g.t, {})[name] = g.out
    for t in (t for b, t in network.cells if b == band):
        found[t] = {s: g.out for s in names if (g := network.find(band, t, s)) is not None}
    return {t: nodes for t, nodes in found.items() if nodes}


def _transport(network: Network, band: str) -> Transport:
    nodes = state_nodes(network, band)
    of = {x.number: (t, name) for t, own in nodes.items() for name, x in own.items()}
    after = {before: t for (b, t), before in network.before.items() if b == band}
    for t in [t for t in nodes if (band, t) not in network.cells]:  # first states
        after.setdefault(t, next(s for b, s in network.cells if b == band))
    (came, added, within, straight), aside = _parts(network, band, of, after)
    for t, own in nodes.items():
        for name, x in own.items():
            gradient = gradient_of(network.statuses, x)
            if gradient is not None:  # of a loss outside the graph at hand no reader is known
                rest = gradient - sum(found.get((t, name), 0) for found in (came, added, within))
                if norm(rest) > 1e-5 * norm(gradient):
                    added[t, name] = added.get((t, name), 0) + rest
    size = {t: _joint([came.get((t, s), 0) + added.get((t, s), 0) for s in own]) for t, own in nodes.items()}
    own_loss = {t: _joint([added.get((t, s), 0) for s in own]) for t, own in nodes.items()}
    links, (inside, free) = [], operations(network)
    for t in [t for t in nodes if after.get(t) in nodes]:
        whole, parts = size[after[t]], {s: came[t, s] for s in nodes[t] if (t, s) in came}
        link = Link(t, after[t], None)
        if len(parts) < len(nodes[t]):
            _cut(link, nodes[after[t]], nodes[t], inside[band, after[t]] | free)
        if whole and parts:
            link.by_state = {s: norm(part) / whole for s, part in parts.items()}
            link.factor = _joint(list(parts.values())) / whole
            for s in (s for s in network.memory[band] if (t, s) in straight):
                besides = [part - straight[t, s] if name == s else part for name, part in parts.items()]
                link.straight[s] = norm(straight[t, s]) / whole, _joint(besides) / whole
        links.append(link)
    others = _read_by_others(network, band, of)
    return Transport(band, network.carried[band], links, size, own_loss, others, aside)


def _cut(link: Link, nodes: dict[str, Tensor], before: dict[str, Tensor], through: set[int]) -> None:
    """Which states are read by the next step, but not by a way on which a gradient comes back."""
    names, numbers = list(before), {x.number for x in before.values()}
    reached = numbers & reach([(n, 0) for n in nodes.values()], through, numbers).keys()
    lost = cut_states(nodes.values(), list(before.values()), through, reached)
    link.cut, link.is_cut = [names[k] for k in lost], bool(lost) and not reached


def _parts(network: Network, band: str, of: dict, after: dict[int, int]):
    """What each state got (by step and name): of the next step, of others, of its own step, of its own next value.

    And which quantities of the next step read it that make no state there.
    """
    came: dict = {}
    added: dict = {}
    within: dict = {}
    straight: dict = {}
    aside: set = set()
    makers, sides = _makers(network, band, of), []
    for n in network.nodes:
        g = network.group_of[n.number]
        in_cell = n.number in makers
        for k, x in enumerate(n.inputs):
            part = n.contributions[k] if n.contributions else None
            if part is None:
                continue
            if x.number not in of:
                t = network.group_of[x.number].t
                if x.number in makers and not (in_cell and g.t == t):  # a loss on a gate, say
                    sides.append((x, t, np.asarray(part, np.float64)))
                continue
            key = of[x.number]
            following = in_cell and g.t == after.get(key[0])
            if not in_cell and g.band == band and g.t == after.get(key[0]):
                aside.add((g.t, g.name))
            own = in_cell and g.t == key[0]
            into = came if following else within if own else added
            into[key] = into.get(key, 0) + np.asarray(part, np.float64)
            if following and g.name == key[1]:
                straight[key] = straight.get(key, 0) + np.asarray(part, np.float64)
    # What a loss on the inside of a step sends to states does not come by the step's own states.
    for x, items, batch in itemised(sides, makers - of.keys(), of.keys()) if sides else ():
        for t, part in zip(items, batch, strict=True):
            if (key := of.get(x.number)) is not None:
                into = within if t == key[0] else came
                into[key] = into.get(key, 0) - part
                added[key] = added.get(key, 0) + part
    made = {(network.group_of[k].t, network.group_of[k].name) for k in makers if k in network.group_of}
    return (came, added, within, straight), aside - made


def _makers(network: Network, band: str, of: dict) -> set[int]:
    """Numbers of what a step makes its own states of.  What it only gives out is on the loss's side: it is no way back."""
    found: set[int] = set()
    read: set[tuple[int, int]] = set()  # by a maker of this step
    for n in sorted(network.nodes, key=lambda n: n.number, reverse=True):
        g = network.group_of[n.number]
        if g.band == band and g.kind in (QUANTITY, SHARED) and (n.number in of or (g.t, n.number) in read):
            found.add(n.number)
            read.update((g.t, x.number) for x in n.inputs)
    return found


def _read_by_others(network: Network, band: str, of: dict) -> bool:
    """Whether the states of another layer depend on those of this one."""
    later = set(of)
    for n in network.nodes:
        if any(x.number in later for x in n.inputs):
            later.add(n.number)
    elsewhere = (own for b in network.bands if b != band for own in state_nodes(network, b).values())
    return any(x.number in later for own in elsewhere for x in own.values())


def _joint(parts: list) -> float:
    return norm(np.array([norm(np.asarray(p)) for p in parts]))


# Over more than a step.


def stretches(transport: Transport) -> list[Stretch]:
    """The links between cuts, those left out behind which there is no gradient."""
    found: list[list[Link]] = [[]]
    for link in transport.links:
        if link.factor is None:
            found.append([])
        else:
            found[-1].append(link)
    return [Stretch(links) for links in found if links]


def follow(network: Network, transport: Transport, most: int = 8) -> None:
    """Fill the rows of at most so many losses of each stretch, counted from its end, and the half-lives."""
    places, losses = where(network), []
    # Of steps alone the loss is not at hand: there is no vector of it to follow.
    seeds = [] if network.root.number in places.place else places.entrances(network.root)
    entered = {t for _, t, _ in seeds}
    transport.stretches = stretches(transport)
    for s in transport.stretches:
        own = [t for t in s.times if t in entered]
        losses += own[:: -max(1, -(-len(own) // most))][::-1]
    transport.rows = _rows(network, transport.band, places, seeds, losses)
    for s in transport.stretches:
        s.half_life = half_life(transport.rows, s.times)


def _rows(network: Network, band: str, places: Where, seeds: list, losses: list[int]) -> Rows:
    """What the losses of these steps send back to the states of each step: one walk carries all of them."""
    nodes = state_nodes(network, band)
    of = {x.number: t for t, own in nodes.items() for x in own.values()}
    row, column = {s: r for r, s in enumerate(losses)}, {t: k for k, t in enumerate(nodes)}
    found, makers = Rows(losses, list(nodes), np.zeros((len(losses), len(nodes)))), _makers(network, band, of)
    sums: dict[int, np.ndarray] = {}

    def add(x: Tensor, items, part: np.ndarray) -> None:
        if x.number not in sums:
            sums[x.number] = np.zeros((len(losses), *x.shape))
        sums[x.number][items] += part

    starts = [(n, row[t], part) for n, t, part in seeds if t in row]
    for n, r, part in starts:
        if n.number in of:
            add(n, [r], part[None])
    for n, items, batch in itemised(starts, set(places.place) | places.outside, set(places.first)):
        if n.number in sums:  # all that read it have been passed
            k = column[of[n.number]]
            found.norms[:, k] = np.hypot(found.norms[:, k], norms(sums.pop(n.number)))
        t = network.group_of[n.number].t
        for k, x in enumerate(n.inputs):
            inside = n.number in makers and t == of.get(x.number)
            if x.number in of and not inside and flows_back(n, k):
                add(x, items, pulled(n, k, batch))
    found.norms[found.norms == 0] = np.nan
    return found


def half_life(rows: Rows, times: list[int]) -> float | None:
    """Steps in which what a loss sends back halves, of the rows of one stretch; None: no row is long enough."""
    return halving(rate((np.arange(len(sizes), dtype=float), sizes) for sizes in rows.back(times)))


def rate(rows: Iterable[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """The common slope of log sizes against steps back, of rows (back, sizes); None with too few points.

    Each row has a level of its own, so that losses of different size, and rows that end early, do not bend
    it.  Where some row is long enough, first points are left out: what a loss sends to its own step directly.
    """
    over = covered = 0.0
    known = [(s[good], v[good]) for s, v in rows for good in [np.isfinite(v) & (v > 0)]]
    direct = int(max((len(s) for s, _ in known), default=0) > 3)
    for back, sizes in known:
        back, logs = back[direct:], np.log(sizes[direct:])
        if len(back) > 1:
            away = back - back.mean()
            over += float(away @ logs)
            covered += float(away @ away)
    return over / covered if covered else None


def halving(rate: float | None) -> float | None:
    """Steps in which something halves that changes by a factor exp(rate) per step; negative: it doubles."""
    return None if rate is None else float(np.inf) if abs(rate) < 1e-9 else float(-np.log(2) / rate)


def jacobians(network: Network, transport: Transport) -> None:
    """Fill the largest and the typical stretch of the product of Jacobians, where the states are few."""
    nodes = state_nodes(network, transport.band)
    inside, free = operations(network)
    for s in transport.stretches:
        last = nodes[s.times[-1]]
        count = sum(x.size for x in last.values())
        if count > MOST_UNITS:
            continue
        starts = np.cumsum([0, *(x.size for x in last.values())])
        eye = np.eye(count)
        now = {
            name: eye[:, a:b].reshape(count, *x.shape)
            for (name, x), a, b in zip(last.items(), starts, starts[1:], strict=False)
        }
        logs = 0.0
        for link in reversed(s.links):
            through = inside[transport.band, link.after] | free
            now = _pull_back(nodes[link.after], now, nodes[link.t], through)
            top = max((float(np.abs(p).max(initial=0)) for p in now.values()), default=0.0)
            if not top or not np.isfinite(top):
                break
            logs += np.log(top)
            now = {name: p / top for name, p in now.items()}
        else:
            product = np.concatenate([p.reshape(count, -1) for p in now.values()], axis=1)
            stretch = np.linalg.svd(product, compute_uv=False)
            each = len(s.links)
            s.largest = float(np.exp((np.log(stretch[0]) + logs) / each))
            s.typical = float(np.exp((np.log(norm(stretch) / np.sqrt(count)) + logs) / each))


def _pull_back(nodes: dict, now: dict, before: dict, through: set[int]) -> dict[str, np.ndarray]:
    """Gradients (items, …) of the states of a step, carried to those of the step before."""
    seeds = [(nodes[s], k, part) for s, batch in now.items() for k, part in enumerate(batch)]
    count = len(next(iter(now.values())))
    numbers = {x.number: name for name, x in before.items()}
    arrived = {name: np.zeros((count, *x.shape)) for name, x in before.items()}
    for n, items, batch in itemised(seeds, through, set(numbers)):
        if n.number in numbers:
            arrived[numbers[n.number]][items] = batch
    return arrived
