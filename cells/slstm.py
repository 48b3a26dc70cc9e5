"""The scalar LSTM of xLSTM: an exponential gate lets in, and the memory is a weighted mean."""

from minigrad import Tensor, concat, exp, maximum, sigmoid, softplus, tanh

from .cell import Cell


class SLSTM(Cell):
    """sLSTM (Beck et al., 2024), one head: i = exp instead of σ, so that what is new can outweigh all that was.

    ``4 * H * (H + D + 1)`` parameters.  n is the sum of the weights of what the memory c holds, c / n their mean.
    The stabiliser m is the largest logarithm of a weight so far; i, f, c and n are divided by e^m, which cancels in
    c / n.  f is a σ, as in the LSTM (the paper allows exp too), and its bias starts at 1.
    """

    gates = "f i z o"
    state = "h c n m"
    W_f: Tensor
    W_i: Tensor
    W_z: Tensor
    W_o: Tensor
    b_f: Tensor
    b_i: Tensor
    b_z: Tensor
    b_o: Tensor

    def build(self, rng):
        self.gate_parameters("f", rng, bias=1.0)
        for gate in "izo":
            self.gate_parameters(gate, rng)

    def step(self, x, h_prev, c_prev, n_prev, m_prev):
        hx = concat(h_prev, x)
        log_f = -softplus(-(hx @ self.W_f + self.b_f))  # log σ
        log_i = hx @ self.W_i + self.b_i
        m = maximum(log_f + m_prev, log_i)
        f = exp(log_f + m_prev - m)  # what to forget
        i = exp(log_i - m)  # what to let in
        z = tanh(hx @ self.W_z + self.b_z)  # what could come in
        c = f * c_prev + i * z
        n = f * n_prev + i
        o = sigmoid(hx @ self.W_o + self.b_o)  # what to show
        h = o * c / n
        return dict(log_f=log_f, log_i=log_i, m=m, f=f, i=i, z=z, c=c, n=n, o=o, h=h)
