"""The lecture's stories for the live page: presets that show how gradients vanish, live, explode and are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..language.catalogue import deferred

TITLE = deferred("Watch a recurrent network learn")
LONG = "a long memory is hard"


@dataclass(frozen=True)
class Story:
    """A preset: what its button says, what is then to be seen, and what it chooses, as in `live`."""

    label: str
    said: str
    chosen: Mapping[str, Any]


LECTURE = (
    Story(
        deferred("Vanishing: RNN"),
        deferred(
            "The loss stands at the last letter alone. Look to the left: arrows fade from step to step, and "
            "little arrives at the first letter. Then the next story."
        ),
        {"cell": "RNN", "text": LONG, "scale": 0.6, "where": "last"},
    ),
    Story(
        deferred("… the LSTM keeps it"),
        deferred(
            "The same text and recurrent weights of the same size. Along c, but for the last arrow, × is "
            "close to what f lets through: the gradient arrives."
        ),
        {"cell": "LSTM", "text": LONG, "scale": 0.6, "bias": 4, "where": "last"},
    ),
    Story(
        deferred("Forget gate at −5"),
        deferred(
            "The same LSTM, but f is shut at every step: next to nothing of c survives, and next to nothing "
            "comes back along it. Train: f opens little by little."
        ),
        {"cell": "LSTM", "text": LONG, "scale": 0.6, "bias": -5},
    ),
    Story(
        deferred("Exploding"),
        deferred(
            "Recurrent weights × 4: the gradient grows on its way back; look to the left. “One step” tells "
            "how large all of it is."
        ),
        {"cell": "RNN", "text": "hello world", "scale": 4, "lr": -1.3},
    ),
    Story(
        deferred("… clipped"),
        deferred(
            "The same, with the norm of the gradient held at 1: its direction stays, its size is bounded. "
            "Press “One step”. With Adam, which divides by the gradient’s recent size, the first step moves "
            "the weights as far as without clipping."
        ),
        {"cell": "RNN", "text": "hello world", "scale": 4, "lr": -1.3, "clip": 1},
    ),
    Story(
        deferred("Saturation"),
        deferred("Press Train: so large a learning rate drives all units to −1 or 1, where tanh is flat."),
        {"cell": "RNN", "text": "hello", "lr": 0.5},
    ),
    Story(
        deferred("A cut"),
        deferred("Truncated every 4 steps: ✂ no gradient goes further, whatever the gates do."),
        {"cell": "LSTM", "text": LONG, "truncate": 4, "bias": 4},
    ),
    Story(
        deferred("One gate: JANET"),
        deferred("About half the weights of the LSTM, a forget gate alone, and the gradient arrives."),
        {"cell": "JANET", "text": LONG, "scale": 0.6, "bias": 4, "where": "last"},
    ),
)
