"""The gated recurrent unit with biases, its reset before the product."""

from minigrad import Tensor, concat, sigmoid, tanh

from .cell import Cell


class BiasedGRU(Cell):
    """Gated recurrent unit (Cho et al., 2014), its reset before the product, with a bias for each gate.

    ``3 * H * (H + D + 1)`` parameters.  It is the `GRU` of the slide with biases: Keras's with ``reset_after=False``,
    ONNX's with ``linear_before_reset=0``.  PyTorch resets after the product: see `ResetAfterGRU`.
    """

    gates = "z r h_tilde"
    state = "h"
    W_z: Tensor
    W_r: Tensor
    W_h: Tensor
    b_z: Tensor
    b_r: Tensor
    b_h: Tensor

    def build(self, rng):
        for gate in "zrh":
            self.gate_parameters(gate, rng)

    def step(self, x, h_prev):
        hx = concat(h_prev, x)
        z = sigmoid(hx @ self.W_z + self.b_z)  # how much to renew
        r = sigmoid(hx @ self.W_r + self.b_r)  # how much of the past the candidate sees
        h_tilde = tanh(concat(r * h_prev, x) @ self.W_h + self.b_h)  # what could come in
        h = (1 - z) * h_prev + z * h_tilde
        return dict(z=z, r=r, h_tilde=h_tilde, h=h)
