"""Long short-term memory."""

from minigrad import Tensor, concat, sigmoid, tanh

from .cell import Cell


class LSTM(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000).

    ``4 * H * (H + D + 1)`` parameters.  The forget gate's bias starts at 1, so that memory is kept at
    first (Jozefowicz et al., 2015).
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

    def build(self, rng):
        self.gate_parameters("f", rng, bias=1.0)
        for gate in "ico":
            self.gate_parameters(gate, rng)

    def step(self, x, h_prev, c_prev):
        hx = concat(h_prev, x)
        f = sigmoid(hx @ self.W_f + self.b_f)  # what to forget
        i = sigmoid(hx @ self.W_i + self.b_i)  # what to let in
        c_tilde = tanh(hx @ self.W_c + self.b_c)  # what could come in
        c = f * c_prev + i * c_tilde
        o = sigmoid(hx @ self.W_o + self.b_o)  # what to show
        h = o * tanh(c)
        return dict(f=f, i=i, c_tilde=c_tilde, c=c, o=o, h=h)
