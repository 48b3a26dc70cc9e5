"""The matrix LSTM of xLSTM: values are stored under keys, and a query reads them."""

from minigrad import Tensor, abs, exp, maximum, sigmoid, softplus, zeros

from .cell import Cell


class MLSTM(Cell):
    """mLSTM (Beck et al., 2024), one head: the memory C (N, H, H) adds up products v kᵀ, and is read by a query q.

    ``4 * H * (D + 1) + 2 * (D + 1)`` parameters.  The gates i and f are one number for each sequence, and all see
    the input alone.  n (N, H) adds up the keys by the same weights; m (N, 1) is the largest logarithm of a weight so
    far, and i, f, C and n are divided by e^m.  f is a σ (the paper allows exp too), and its bias starts at 1.
    """

    gates = "q k v f i o"
    state = "h C n m"
    W_q: Tensor
    W_k: Tensor
    W_v: Tensor
    W_f: Tensor
    W_i: Tensor
    W_o: Tensor
    b_q: Tensor
    b_k: Tensor
    b_v: Tensor
    b_f: Tensor
    b_i: Tensor
    b_o: Tensor

    def build(self, rng):
        for name in "qkv":
            self.input_parameters(name, rng)
        self.input_parameters("f", rng, width=1, bias=1.0)
        self.input_parameters("i", rng, width=1)
        self.input_parameters("o", rng)

    def initial_state(self, sequences):
        shapes = dict(h=(self.hidden,), C=(self.hidden, self.hidden), n=(self.hidden,), m=(1,))
        return tuple(zeros((sequences, *shape), self.dtype.name).named(s) for s, shape in shapes.items())

    def step(self, x, h_prev, C_prev, n_prev, m_prev):
        N, H = x.shape[0], self.hidden
        q = x @ self.W_q + self.b_q  # what is asked for
        k = H**-0.5 * (x @ self.W_k) + self.b_k  # under which key to store
        v = x @ self.W_v + self.b_v  # what could come in
        log_f = -softplus(-(x @ self.W_f + self.b_f))  # log σ
        log_i = x @ self.W_i + self.b_i
        m = maximum(log_f + m_prev, log_i)
        f = exp(log_f + m_prev - m)  # what to forget
        i = exp(log_i - m)  # what to let in
        C = f.reshape((N, 1, 1)) * C_prev + (i * v).reshape((N, H, 1)) * k.reshape((N, 1, H))
        n = f * n_prev + i * k
        o = sigmoid(x @ self.W_o + self.b_o)  # what to show
        read = (C @ q.reshape((N, H, 1))).reshape((N, H))
        h = o * read / maximum(abs((n * q).sum(axis=1, keepdims=True)), exp(-m))
        return dict(q=q, k=k, v=v, log_f=log_f, log_i=log_i, m=m, f=f, i=i, C=C, n=n, o=o, h=h)
