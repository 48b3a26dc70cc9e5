"""Long short-term memory whose output is a projection onto fewer numbers."""

from minigrad import Tensor, concat, sigmoid, tanh, zeros
from minigrad.init import glorot

from .cell import Cell
from .layer import positive


class ProjectedLSTM(Cell):
    """LSTM with a recurrent projection (Sak, Senior and Beaufays, 2014): states h (N, P) and c (N, H).

    ``4 * H * (P + D + 1) + P * H`` parameters.  The gates see the projection h alone, so that a large memory costs
    few weights.  projection : P, default half of `hidden`.
    """

    gates = "f i c_tilde o"
    state = "h c"
    inner = ("W_p",)  # does not see the last output: `dropped` leaves it as it is
    W_f: Tensor
    W_i: Tensor
    W_c: Tensor
    W_o: Tensor
    W_p: Tensor
    b_f: Tensor
    b_i: Tensor
    b_c: Tensor
    b_o: Tensor

    def __init__(self, inputs, hidden, rng, dtype="float32", *, projection: int | None = None):
        positive(type(self).__name__, inputs=inputs, hidden=hidden)
        self.projection = max(1, hidden // 2) if projection is None else projection
        positive(type(self).__name__, projection=self.projection)
        super().__init__(inputs, hidden, rng, dtype)

    @property
    def outputs(self) -> int:
        return self.projection

    def build(self, rng):
        self.gate_parameters("f", rng, bias=1.0)
        for gate in "ico":
            self.gate_parameters(gate, rng)
        self.parameter("W_p", glorot(rng, (self.hidden, self.projection)))

    def initial_state(self, sequences):
        h, c = (zeros((sequences, size), self.dtype.name) for size in (self.projection, self.hidden))
        return h.named("h"), c.named("c")

    def step(self, x, h_prev, c_prev):
        hx = concat(h_prev, x)
        f = sigmoid(hx @ self.W_f + self.b_f)  # what to forget
        i = sigmoid(hx @ self.W_i + self.b_i)  # what to let in
        c_tilde = tanh(hx @ self.W_c + self.b_c)  # what could come in
        c = f * c_prev + i * c_tilde
        o = sigmoid(hx @ self.W_o + self.b_o)  # what to show
        m = o * tanh(c)
        h = m @ self.W_p  # in fewer numbers
        return dict(f=f, i=i, c_tilde=c_tilde, c=c, o=o, m=m, h=h)
