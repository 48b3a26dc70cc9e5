"""Long short-term memory with layer normalisation."""

import numpy as np

from minigrad import Tensor, concat, layer_norm, sigmoid, tanh

from .cell import Cell


class LayerNormLSTM(Cell):
    """LSTM with layer normalisation (Ba, Kiros and Hinton, 2016), each gate by itself.

    ``4 * H * (H + D) + 10 * H`` parameters.  Convention: a gate's whole product, of the state and
    the input together, is normalised over its H units, with a gain g and a bias b of its own; and so is
    the memory where it is shown, while the memory that is carried on stays as it is.  (The paper's
    other convention normalises the products of state and input apart, over all four gates at once.)
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
    g_f: Tensor
    g_i: Tensor
    g_c: Tensor
    g_o: Tensor
    g_h: Tensor
    b_h: Tensor

    def build(self, rng):
        self.gate_parameters("f", rng, bias=1.0)
        for gate in "ico":
            self.gate_parameters(gate, rng)
        for gate in "fico":
            self.parameter(f"g_{gate}", np.ones(self.hidden))
        self.parameter("g_h", np.ones(self.hidden))
        self.parameter("b_h", np.zeros(self.hidden))

    def step(self, x, h_prev, c_prev):
        hx = concat(h_prev, x)
        f = sigmoid(layer_norm(hx @ self.W_f, self.g_f, self.b_f))  # what to forget
        i = sigmoid(layer_norm(hx @ self.W_i, self.g_i, self.b_i))  # what to let in
        c_tilde = tanh(layer_norm(hx @ self.W_c, self.g_c, self.b_c))  # what could come in
        c = f * c_prev + i * c_tilde
        o = sigmoid(layer_norm(hx @ self.W_o, self.g_o, self.b_o))  # what to show
        h = o * tanh(layer_norm(c, self.g_h, self.b_h))
        return dict(f=f, i=i, c_tilde=c_tilde, c=c, o=o, h=h)
