"""Why a gradient is exactly zero, where that is easily known."""

from __future__ import annotations

from ..language.text import pretty
from ..read.network import Group, Network


def zero_because(network: Network, g: Group) -> str:
    """What the quantity is multiplied with wherever it is read, if that is 0: "c of t = 0 is 0"; else nothing."""
    found = ""
    for n in network.nodes:
        if all(x is not g.out for x in n.inputs):
            continue
        others = [x for x in n.inputs if x is not g.out and not x.is_symbol and not x.value.any()]
        if n.op is None or n.op.name != "mul" or not others:
            return ""
        zero = network.group_of.get(others[0].number)
        found = (
            f"{pretty(zero.name)} of t = {zero.t} is 0" if zero is not None and zero.name else "it meets a 0"
        )
    return found
