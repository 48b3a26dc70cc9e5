"""The basic recurrent layer that starts as a memory."""

import numpy as np

from minigrad import concat, relu

from .rnn import RNN


class IRNN(RNN):
    """The basic recurrent layer with a rectifier, started at the identity (Le, Jaitly and Hinton, 2015).

    ``H * (H + D + 1)`` parameters.  At first it adds up what comes in and keeps it.
    """

    def build(self, rng):
        super().build(rng)
        self.W_h.value = np.concatenate([np.eye(self.hidden), self.W_h.value[self.hidden :]])

    def step(self, x, h_prev):
        h = relu(concat(h_prev, x) @ self.W_h + self.b_h)
        return dict(h=h)
