"""Long short-term memory that keeps some units as they were, at random."""

import numpy as np

from minigrad import InputError, where

from .lstm import LSTM


class ZoneoutLSTM(LSTM):
    """LSTM with zoneout (Krueger et al., 2017): at every step some units of h and c keep their last value.

    ``4 * H * (H + D + 1)`` parameters, those of the LSTM.  Which units, is drawn outside and given beside x,
    ``cell(xs, **cell.masks(T, N, rng))``; without masks, as in a test, each state is the mean over them.
    rate_h, rate_c : how probable it is that a unit is kept; the paper's values for characters.
    Raises InputError for a rate outside 0 … 1.
    """

    def __init__(self, inputs, hidden, rng, dtype="float32", *, rate_h: float = 0.05, rate_c: float = 0.5):
        for name, rate in (("rate_h", rate_h), ("rate_c", rate_c)):
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
                raise InputError(f"{type(self).__name__}: {name} = {rate!r}; give a number from 0 to 1")
        self.rate_h, self.rate_c = float(rate_h), float(rate_c)
        super().__init__(inputs, hidden, rng, dtype)

    def masks(self, T: int, N: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """What is kept at each step: keep_h and keep_c, booleans (T, N, H)."""
        rates = {"keep_h": self.rate_h, "keep_c": self.rate_c}
        return {name: rng.random((T, N, self.hidden)) < rate for name, rate in rates.items()}

    def step(self, x, h_prev, c_prev, keep_h=None, keep_c=None):
        new = super().step(x, h_prev, c_prev)
        h = kept(keep_h, self.rate_h, h_prev, new["h"])  # made of the new memory, whatever is kept of that
        c = kept(keep_c, self.rate_c, c_prev, new["c"])
        return new | dict(h_new=new["h"], c_new=new["c"], c=c, h=h)


def kept(keep, rate: float, old, new):
    """The old state where `keep`, else the new one; without `keep` the mean of both."""
    return rate * old + (1 - rate) * new if keep is None else where(keep, old, new)
