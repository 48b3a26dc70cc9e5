"""The minimal GRU, whose gate does not look back."""

from minigrad import Tensor, sigmoid

from .cell import Cell


class MinGRU(Cell):
    """Minimal GRU (Feng et al., 2024): gate and candidate see the input alone, and nothing bends the candidate.

    ``2 * H * (D + 1)`` parameters.  What a step does to the state is known before the state is: h is a weighted mean
    of all candidates so far.  `LogMinGRU` computes it in logarithms.
    """

    gates = "z h_tilde"
    state = "h"
    W_z: Tensor
    b_z: Tensor
    W_h: Tensor
    b_h: Tensor

    def build(self, rng):
        for gate in "zh":
            self.input_parameters(gate, rng)

    def step(self, x, h_prev):
        z = sigmoid(x @ self.W_z + self.b_z)  # how much to renew
        h_tilde = x @ self.W_h + self.b_h  # what could come in
        h = (1 - z) * h_prev + z * h_tilde
        return dict(z=z, h_tilde=h_tilde, h=h)
