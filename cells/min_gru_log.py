"""The minimal GRU in logarithms, for states that stay positive."""

import numpy as np

from minigrad import Tensor, exp, full, log, logaddexp, relu, softplus, where

from .min_gru import MinGRU


class LogMinGRU(MinGRU):
    """Minimal GRU in log space (Feng et al., 2024): log h is carried, so that products of many gates do not underflow.

    ``2 * H * (D + 1)`` parameters, those of `MinGRU`.  The candidate must be positive: a + 1/2 above 0, σ(a) below.
    Given that candidate and first states of 1/2, `MinGRU` gives the same h.
    """

    gates = "log_z log_h_tilde"
    state = "h log_h"

    def step(self, x, h_prev, log_h_prev):
        s = x @ self.W_z + self.b_z
        log_z = -softplus(-s)  # log σ(s): how much to renew
        log_keep = log_z - s  # log(1 − σ(s))
        log_h_tilde = log_positive(x @ self.W_h + self.b_h)  # what could come in
        log_h = logaddexp(log_keep + log_h_prev, log_z + log_h_tilde)
        return dict(s=s, log_z=log_z, log_keep=log_keep, log_h_tilde=log_h_tilde, log_h=log_h, h=exp(log_h))

    def initial_state(self, sequences):
        shape, dtype = (sequences, self.hidden), self.dtype.name
        return full(shape, 0.5, dtype).named("h"), full(shape, np.log(0.5), dtype).named("log_h")


def log_positive(a: Tensor) -> Tensor:
    """The logarithm of a + 1/2 where a ≥ 0, of σ(a) below: of any number something positive."""
    return where(a >= 0, log(relu(a) + 0.5), -softplus(-a))
