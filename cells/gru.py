"""The gated recurrent unit, as on the lecture's slide."""

from minigrad import Tensor, concat, sigmoid, tanh

from .cell import Cell


class GRU(Cell):
    """Gated recurrent unit (Cho et al., 2014): the reset comes before the product, and there are no biases.

    ``3 * H * (H + D)`` parameters.  Here z lets in what is new; in PyTorch, Keras and ONNX it
    keeps what is old.  Their usual reset stands after the product: see `ResetAfterGRU`.
    """

    gates = "z r h_tilde"
    state = "h"
    W_z: Tensor
    W_r: Tensor
    W: Tensor

    def build(self, rng):
        for name in ("W_z", "W_r", "W"):
            self.weights(name, rng)

    def step(self, x, h_prev):
        hx = concat(h_prev, x)
        z = sigmoid(hx @ self.W_z)  # how much to renew
        r = sigmoid(hx @ self.W_r)  # how much of the past the candidate sees
        h_tilde = tanh(concat(r * h_prev, x) @ self.W)  # what could come in
        h = (1 - z) * h_prev + z * h_tilde
        return dict(z=z, r=r, h_tilde=h_tilde, h=h)
