"""The gated recurrent unit as PyTorch, cuDNN and Keras compute it."""

import numpy as np

from minigrad import Tensor, concat, sigmoid, tanh
from minigrad.init import glorot, orthogonal

from .cell import Cell


class ResetAfterGRU(Cell):
    """Gated recurrent unit with the reset after the product (Cho et al., 2014, in the form of cuDNN).

    ``3 * H * (H + D) + 4 * H`` parameters.  Here z keeps what is old: the opposite of `GRU`.
    PyTorch and Keras keep two biases for z and r too; they add up to one.
    """

    gates = "r z h_tilde"
    state = "h"
    W_r: Tensor
    b_r: Tensor
    W_z: Tensor
    b_z: Tensor
    W: Tensor
    b_W: Tensor
    U: Tensor
    b_U: Tensor

    def build(self, rng):
        self.gate_parameters("r", rng)
        self.gate_parameters("z", rng)
        self.parameter("W", glorot(rng, (self.inputs, self.hidden)))
        self.parameter("b_W", np.zeros(self.hidden))
        self.parameter("U", orthogonal(rng, (self.hidden, self.hidden)))
        self.parameter("b_U", np.zeros(self.hidden))

    def step(self, x, h_prev):
        hx = concat(h_prev, x)
        r = sigmoid(hx @ self.W_r + self.b_r)  # how much of the past the candidate sees
        z = sigmoid(hx @ self.W_z + self.b_z)  # how much to keep
        h_tilde = tanh(x @ self.W + self.b_W + r * (h_prev @ self.U + self.b_U))  # what could come in
        h = (1 - z) * h_tilde + z * h_prev
        return dict(r=r, z=z, h_tilde=h_tilde, h=h)
