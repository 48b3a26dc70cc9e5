"""The minimal LSTM in logarithms, for states that stay positive."""

from minigrad import exp, logaddexp, softplus

from .min_gru_log import LogMinGRU, log_positive
from .min_lstm import MinLSTM


class LogMinLSTM(MinLSTM):
    """Minimal LSTM in log space (Feng et al., 2024): log h is carried, so that products of many gates do not underflow.

    ``3 * H * (D + 1)`` parameters, those of `MinLSTM`.  The candidate must be positive: a + 1/2 above 0, σ(a) below.
    Given that candidate and first states of 1/2, `MinLSTM` gives the same h.
    """

    gates = "log_f log_i log_h_tilde"
    state = "h log_h"
    initial_state = LogMinGRU.initial_state

    def step(self, x, h_prev, log_h_prev):
        d = softplus(-(x @ self.W_f + self.b_f)) - softplus(-(x @ self.W_i + self.b_i))  # log i − log f
        log_f = -softplus(d)  # log(f / (f + i))
        log_i = log_f + d  # log(i / (f + i))
        log_h_tilde = log_positive(x @ self.W_h + self.b_h)  # what could come in
        log_h = logaddexp(log_f + log_h_prev, log_i + log_h_tilde)
        return dict(d=d, log_f=log_f, log_i=log_i, log_h_tilde=log_h_tilde, log_h=log_h, h=exp(log_h))
