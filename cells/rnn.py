"""The basic recurrent layer."""

from minigrad import Tensor, concat, tanh

from .cell import Cell


class RNN(Cell):
    """The basic recurrent layer (Elman, 1990): one tanh of the last state and the input.

    ``H * (H + D + 1)`` parameters.
    """

    state = "h"
    W_h: Tensor
    b_h: Tensor

    def build(self, rng):
        self.gate_parameters("h", rng)

    def step(self, x, h_prev):
        h = tanh(concat(h_prev, x) @ self.W_h + self.b_h)
        return dict(h=h)
