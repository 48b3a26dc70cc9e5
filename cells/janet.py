"""JANET: just another network, with a forget gate alone."""

from minigrad import Tensor, concat, sigmoid, tanh

from .cell import Cell
from .initial import log_uniform
from .layer import positive


class JANET(Cell):
    """The LSTM with nothing but its forget gate (van der Westhuizen and Lasenby, 2018, arXiv 1804.04849).

    ``2 * H * (H + D + 1)`` parameters.  There is no output gate and no tanh of the memory: h is
    the memory c, so that one state is carried.  `beta` lets in a little more than was forgotten.
    The forget gate's bias starts at log U(1, T_max), for memories up to `T_max` steps long
    (Tallec and Ollivier, 2018).
    """

    gates = "f c_tilde"
    state = "h"
    W_f: Tensor
    b_f: Tensor
    W_c: Tensor
    b_c: Tensor

    def __init__(self, inputs, hidden, rng, dtype="float32", *, T_max: int = 100, beta: float = 1.0):
        positive(type(self).__name__, T_max=T_max)
        self.T_max, self.beta = T_max, float(beta)
        super().__init__(inputs, hidden, rng, dtype)

    def build(self, rng):
        self.gate_parameters("f", rng)
        self.gate_parameters("c", rng)
        self.b_f.value = log_uniform(rng, self.T_max, self.hidden)

    def step(self, x, h_prev):
        hx = concat(h_prev, x)
        s = hx @ self.W_f + self.b_f
        f = sigmoid(s)  # what to forget
        c_tilde = tanh(hx @ self.W_c + self.b_c)  # what could come in
        h = f * h_prev + (1 - sigmoid(s - self.beta)) * c_tilde
        return dict(s=s, f=f, c_tilde=c_tilde, h=h)
