"""First values for the biases of forget gates, wherever they are: in a cell, both directions, a stack."""

from __future__ import annotations

import numpy as np

from minigrad import InputError, Tensor

from .layer import Layer


def forget_bias(layer: Layer, value: float = 1.0) -> None:
    """Set every b_f to `value`, so that memory is kept at first (Gers et al., 2000; Jozefowicz et al., 2015).

    Raises InputError where there is no forget gate with a bias.
    """
    for p in _biases(layer, "b_f").values():
        p.value = np.full(p.shape, value)


def chrono(layer: Layer, T_max: int, rng: np.random.Generator) -> None:
    """For memories up to `T_max` steps: b_f = log U(1, T_max − 1), and b_i = −b_f where there is one.

    Tallec and Ollivier, 2018.  Raises InputError where there is no forget gate, and for T_max below 2.
    """
    if not isinstance(T_max, (int, float, np.integer)) or isinstance(T_max, bool) or not T_max >= 2:
        raise InputError(f"chrono: T_max = {T_max!r}; give the longest memory in steps, at least 2")
    forget, let_in = _biases(layer, "b_f"), layer.parameters()
    for name, p in forget.items():
        p.value = log_uniform(rng, T_max - 1, p.shape)
        opposite = name[:-3] + "b_i"
        if opposite in let_in:
            let_in[opposite].value = -p.value


def log_uniform(rng: np.random.Generator, T_max: float, shape) -> np.ndarray:
    """log U(1, T_max): a gate σ of it forgets after 1 … T_max steps."""
    return np.log(rng.uniform(1, T_max, shape))


def _biases(layer: Layer, wanted: str) -> dict[str, Tensor]:
    found = {name: p for name, p in layer.parameters().items() if name.rpartition(".")[2] == wanted}
    if not found:
        raise InputError(
            f"{type(layer).__name__} has no forget gate's bias {wanted}; it has "
            f"{', '.join(layer.parameters())}"
        )
    return found
