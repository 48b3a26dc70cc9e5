"""The minimal LSTM, whose gates do not look back and add up to 1."""

from minigrad import Tensor, sigmoid

from .cell import Cell


class MinLSTM(Cell):
    """Minimal LSTM (Feng et al., 2024): its gates see the input alone, and what they keep and let in adds up to 1.

    ``3 * H * (D + 1)`` parameters.  There is no output gate: h is the memory.  `LogMinLSTM` computes it in
    logarithms.
    """

    gates = "f i h_tilde"
    state = "h"
    W_f: Tensor
    b_f: Tensor
    W_i: Tensor
    b_i: Tensor
    W_h: Tensor
    b_h: Tensor

    def build(self, rng):
        self.input_parameters("f", rng, bias=1.0)
        for gate in "ih":
            self.input_parameters(gate, rng)

    def step(self, x, h_prev):
        f = sigmoid(x @ self.W_f + self.b_f)  # what to forget
        i = sigmoid(x @ self.W_i + self.b_i)  # what to let in
        h_tilde = x @ self.W_h + self.b_h  # what could come in
        h = f / (f + i) * h_prev + i / (f + i) * h_tilde
        return dict(f=f, i=i, h_tilde=h_tilde, h=h)
