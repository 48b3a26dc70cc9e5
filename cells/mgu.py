"""The minimal gated unit: a GRU whose two gates are one."""

from minigrad import Tensor, concat, sigmoid, tanh

from .cell import Cell


class MGU(Cell):
    """Minimal gated unit (Zhou et al., 2016): the forget gate resets the past, and lets in what is new.

    ``2 * H * (H + D + 1)`` parameters.  Unlike an LSTM's, a forget gate of 0 keeps the old state.
    """

    gates = "f h_tilde"
    state = "h"
    W_f: Tensor
    b_f: Tensor
    W_h: Tensor
    b_h: Tensor

    def build(self, rng):
        self.gate_parameters("f", rng)
        self.gate_parameters("h", rng)

    def step(self, x, h_prev):
        f = sigmoid(concat(h_prev, x) @ self.W_f + self.b_f)  # how much to renew
        h_tilde = tanh(concat(f * h_prev, x) @ self.W_h + self.b_h)  # what could come in
        h = (1 - f) * h_prev + f * h_tilde
        return dict(f=f, h_tilde=h_tilde, h=h)
