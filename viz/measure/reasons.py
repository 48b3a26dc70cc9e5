"""Why a gradient is exactly zero, where that is easily known."""

from __future__ import annotations

from ..language.catalogue import tr
from ..language.text import pretty
from ..read.network import FIRST, Group, Network


def zero_factors(network: Network, g: Group) -> list[Group | None]:
    """The quantities that are 0 and with which this one is multiplied wherever it is read; None: a part of one."""
    found: list[Group | None] = []
    for n in network.readers.get(g.out.number, ()):
        zeros = [
            x for x in n.inputs if x is not g.out and not x.is_symbol and x.value.size and not x.value.any()
        ]
        if n.op is None or n.op.name != "mul" or not zeros:
            return []
        q = network.group_of.get(zeros[0].number)
        found.append(q if q is not None and q.out is zeros[0] else None)
    return found


def zero_because(network: Network, g: Group) -> str:
    """As words: "c of t = 0 is 0"; nothing where the reason is another."""
    found = zero_factors(network, g)
    if not found:
        return ""
    q = found[-1]
    return (
        tr("{name} of t = {t} is 0", name=pretty(q.name), t=q.t)
        if q is not None and q.name
        else tr("it meets a 0")
    )


def zero_said(network: Network, g: Group) -> str:
    """As briefly as a box has room for: "as c_0 = 0"."""
    found = zero_factors(network, g)
    if not found:
        return ""
    q = found[0]
    if q is None:
        return tr("it meets a 0")
    first = q.kind == FIRST and q.t
    return (
        tr("as first {name} = 0", name=pretty(q.name))
        if first
        else tr("as {name}_{t} = 0", name=pretty(q.name) or tr("input"), t=q.t)
    )
