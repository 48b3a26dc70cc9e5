"""The sizes of a network in words, as they stand under the title of a picture: steps, sequences, inputs, units."""

from __future__ import annotations

from ..language.text import clean
from .network import Network


def sizes(network: Network) -> str:
    """T = 8 steps · N = 3 sequences · D = 4 inputs · H = 4 units · losses at 8 steps; several layers each with its own."""
    said = [f"T = {len(network.steps)} step{'s' * (len(network.steps) != 1)}"]
    batch = _batch(network)
    if batch:
        said.append(f"N = {batch} sequence{'s' * (batch != 1)}")
    for band in [b for b in network.bands if network.carried[b]] or network.bands:
        who = f"{clean(band)}: " if band and len(network.bands) > 1 else ""
        given, units = _inputs(network, band), _units(network, band)
        parts = [f"D = {given} input{'s' * (given != 1)}"] if given else []
        parts += [f"H = {units} unit{'s' * (units != 1)}"] if units else []
        if parts:
            said.append(who + ", ".join(parts))
    if network.outputs:
        said.append(f"outputs at {len(network.outputs)} step{'s' * (len(network.outputs) != 1)}")
    return " · ".join(said)


def _state(network: Network, band: str) -> tuple[int, ...]:
    """The shape of the state carried last, or of the last quantity."""
    for t in reversed(network.steps):
        names = network.carried[band] or [g.name for g in network.cells.get((band, t), ()) if g.name][-1:]
        found = network.find(band, t, names[-1]) if names else None
        if found is not None:
            return found.out.shape
    return ()


def _units(network: Network, band: str) -> int | None:
    shape = _state(network, band)
    return shape[-1] if shape else None


def _batch(network: Network) -> int | None:
    found = {shape[0] for band in network.bands if len(shape := _state(network, band)) > 1}
    return found.pop() if len(found) == 1 else None


def _inputs(network: Network, band: str) -> int | None:
    found = {
        g.out.shape[-1]
        for (b, _), own in network.inputs.items()
        if b == band
        for g in own[:1]
        if g.out.ndim > 1
    }
    return found.pop() if len(found) == 1 else None
