"""The simple recurrent unit: gates that look back at the memory number by number, and a highway past it."""

import numpy as np

from minigrad import Tensor, sigmoid
from minigrad.init import glorot, uniform

from .cell import Cell


class SRU(Cell):
    """Simple recurrent unit (Lei, Zhang, Wang, Dai and Artzi, 2018, arXiv 1709.02755): all matrices see the input alone.

    ``4 * H * (D + 1)`` parameters.  The memory c meets the gates in the vectors v_f and v_r alone: every unit has its
    own, and all products with x can be taken before the first step.  The rest of the output is the input itself, past
    the memory: x where D = H, and there are D * H parameters fewer, else x @ W_x.  alpha = √(1 + 2 exp b_r) keeps its
    size, for the b_r = 0 that training starts with.
    """

    gates = "f c_tilde r"
    state = "h c"
    alpha = 3**0.5
    W_f: Tensor
    W_r: Tensor
    W_c: Tensor
    W_x: Tensor  # where D is not H
    v_f: Tensor
    v_r: Tensor
    b_f: Tensor
    b_r: Tensor

    def build(self, rng):
        for gate in "fr":
            self.input_parameters(gate, rng)
            self.parameter(f"v_{gate}", uniform(rng, (self.hidden,), bound=1 / np.sqrt(self.hidden)))
        self.parameter("W_c", glorot(rng, (self.inputs, self.hidden)))
        if self.inputs != self.hidden:
            self.parameter("W_x", glorot(rng, (self.inputs, self.hidden)))

    def step(self, x, h_prev, c_prev):
        f = sigmoid(x @ self.W_f + self.v_f * c_prev + self.b_f)  # what to keep
        c_tilde = x @ self.W_c  # what could come in
        c = f * c_prev + (1 - f) * c_tilde
        r = sigmoid(x @ self.W_r + self.v_r * c_prev + self.b_r)  # how much of the memory to show
        skip = x if self.inputs == self.hidden else x @ self.W_x  # what goes past the memory
        h = r * c + (1 - r) * (self.alpha * skip)
        return dict(f=f, c_tilde=c_tilde, c=c, r=r, h=h)
