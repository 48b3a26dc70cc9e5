"""The gated recurrent unit with biases, its reset before the product."""

import numpy as np

from minigrad import Tensor, concat, sigmoid, tanh

from .gru import GRU


class BiasedGRU(GRU):
    """Gated recurrent unit (Cho et al., 2014), its reset before the product, with a bias for each gate.

    ``3 * H * (H + D + 1)`` parameters.  It is the `GRU` of the slide with biases: Keras's with ``reset_after=False``,
    ONNX's with ``linear_before_reset=0``.  PyTorch resets after the product: see `ResetAfterGRU`.
    """

    b_z: Tensor
    b_r: Tensor
    b_h: Tensor

    def build(self, rng):
        super().build(rng)
        for name in ("b_z", "b_r", "b_h"):
            self.parameter(name, np.zeros(self.hidden))

    def step(self, x, h_prev):
        hx = concat(h_prev, x)
        z = sigmoid(hx @ self.W_z + self.b_z)  # how much to renew
        r = sigmoid(hx @ self.W_r + self.b_r)  # how much of the past the candidate sees
        h_tilde = tanh(concat(r * h_prev, x) @ self.W + self.b_h)  # what could come in
        h = (1 - z) * h_prev + z * h_tilde
        return dict(z=z, r=r, h_tilde=h_tilde, h=h)
