"""Long short-term memory whose gates look at the memory itself."""

import numpy as np

from minigrad import Tensor, concat, sigmoid, tanh
from minigrad.init import uniform

from .cell import Cell


class PeepholeLSTM(Cell):
    """LSTM with peepholes (Gers and Schmidhuber, 2000): f and i see the old memory, o the new one.

    ``4 * H * (H + D + 1) + 3 * H`` parameters; a peephole weighs each unit's own memory.
    """

    gates = "f i c_tilde o"
    state = "h c"
    W_f: Tensor
    W_i: Tensor
    W_c: Tensor
    W_o: Tensor
    b_f: Tensor
    b_i: Tensor
    b_c: Tensor
    b_o: Tensor
    p_f: Tensor
    p_i: Tensor
    p_o: Tensor

    def build(self, rng):
        self.gate_parameters("f", rng, bias=1.0)
        for gate in "ico":
            self.gate_parameters(gate, rng)
        for gate in "fio":
            self.parameter(f"p_{gate}", uniform(rng, (self.hidden,), bound=1 / np.sqrt(self.hidden)))

    def step(self, x, h_prev, c_prev):
        hx = concat(h_prev, x)
        f = sigmoid(hx @ self.W_f + self.p_f * c_prev + self.b_f)  # what to forget
        i = sigmoid(hx @ self.W_i + self.p_i * c_prev + self.b_i)  # what to let in
        c_tilde = tanh(hx @ self.W_c + self.b_c)  # what could come in
        c = f * c_prev + i * c_tilde
        o = sigmoid(hx @ self.W_o + self.p_o * c + self.b_o)  # what to show
        h = o * tanh(c)
        return dict(f=f, i=i, c_tilde=c_tilde, c=c, o=o, h=h)
