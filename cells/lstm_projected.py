"""Long short-term memory whose output is a projection onto fewer numbers."""

from minigrad import Tensor, zeros
from minigrad.init import glorot

from .layer import positive
from .lstm import LSTM


class ProjectedLSTM(LSTM):
    """LSTM with a recurrent projection (Sak, Senior and Beaufays, 2014): states h (N, P) and c (N, H).

    ``4 * H * (P + D + 1) + P * H`` parameters.  The gates see the projection h alone, so that a large memory costs
    few weights.  projection : P, default half of `hidden`.
    """

    inner = ("W_p",)  # does not see the last output: `dropped` leaves it as it is
    W_p: Tensor

    def __init__(self, inputs, hidden, rng, dtype="float32", *, projection: int | None = None):
        positive(type(self).__name__, inputs=inputs, hidden=hidden)
        self.projection = max(1, hidden // 2) if projection is None else projection
        positive(type(self).__name__, projection=self.projection)
        super().__init__(inputs, hidden, rng, dtype)

    @property
    def width(self) -> int:
        return self.projection

    def build(self, rng):
        super().build(rng)
        self.parameter("W_p", glorot(rng, (self.hidden, self.projection)))

    def initial_state(self, sequences):
        h, c = (zeros((sequences, size), self.dtype.name) for size in (self.projection, self.hidden))
        return h.named("h"), c.named("c")

    def step(self, x, h_prev, c_prev):
        new = super().step(x, h_prev, c_prev)
        m = new.pop("h")
        return new | dict(m=m, h=m @ self.W_p)  # in fewer numbers
