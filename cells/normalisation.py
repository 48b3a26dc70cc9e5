"""Layer normalisation as a layer: the same function that the layer-norm LSTM and the Transformer call."""

from __future__ import annotations

import numpy as np

from minigrad import InputError, Tensor, layer_norm

from .layer import Layer, fitting, positive


class LayerNorm(Layer):
    """Gives the units of each place mean 0 and variance 1, then a gain g and a bias b (Ba, Kiros and Hinton, 2016).

    Shapes: x (…, D) → (…, D).  ``2 * D`` parameters: g starts at 1, b at 0.
    epsilon : what is added to the variance.
    Raises InputError for a width below 1 or an epsilon that is not above 0, and when called, ShapeError or DTypeError
    for an x of another width or float type.
    """

    g: Tensor
    b: Tensor

    def __init__(self, inputs: int, epsilon: float = 1e-5, dtype="float32"):
        super().__init__(dtype)
        positive(type(self).__name__, inputs=inputs)
        if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 < epsilon < np.inf:
            raise InputError(
                f"{type(self).__name__}: epsilon = {epsilon!r}; give a positive number, e.g. 1e-5"
            )
        self.inputs = self.width = int(inputs)
        self.epsilon = float(epsilon)
        self.parameter("g", np.ones(inputs))
        self.parameter("b", np.zeros(inputs))

    def __call__(self, x) -> Tensor:
        return layer_norm(fitting(self, x), self.g, self.b, self.epsilon)
