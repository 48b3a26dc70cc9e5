"""Cells of the literature, each from its paper in the library's own style: what somebody who reads papers writes.

Those written here have what the shipped cells lack: states of integers, sub-steps in a Python loop, weights that are
made in the step, statistics over the batch, a memory that is read by softmax.  `LITERATURE` is the table that
`test_literature.py` walks; a new cell is tested by standing there, also one that `cells` ships.
"""

from __future__ import annotations

import numpy as np

from cells import LSTM, MGU, MLSTM, SLSTM, SRU, Cell, LogMinGRU, LogMinLSTM, MinGRU, MinLSTM
from minigrad import (
    broadcast_to,
    concat,
    conv1d,
    cos,
    exp,
    layer_norm,
    relu,
    sigmoid,
    sin,
    softmax,
    softplus,
    sqrt,
    tanh,
    where,
    zeros,
)
from minigrad.init import glorot, orthogonal


def affine(cell: Cell, name: str, inputs: int, width: int, rng, bias: float = 0.0) -> None:
    """W_name (inputs, width) and b_name (width,)."""
    cell.parameter(f"W_{name}", glorot(rng, (inputs, width)))
    cell.parameter(f"b_{name}", np.full(width, bias))


class QRNN(Cell):
    """Quasi-recurrent network (Bradbury, Merity, Xiong and Socher, 2016), window 2, fo-pooling."""

    gates = "z f o"
    state = "h c x_prev"

    def build(self, rng):
        for gate in "zfo":
            self.parameter(f"W_{gate}", glorot(rng, (2 * self.inputs, self.hidden)))

    def step(self, x, h_prev, c_prev, x_prev):
        window = concat(x_prev, x)
        z = tanh(window @ self.W_z)
        f = sigmoid(window @ self.W_f)
        o = sigmoid(window @ self.W_o)
        c = f * c_prev + (1 - f) * z
        h = o * c
        return dict(z=z, f=f, o=o, c=c, h=h, x_prev=x)

    def initial_state(self, sequences):
        before = zeros((sequences, self.inputs), self.dtype.name).named("x_prev")
        return (*(zeros((sequences, self.hidden), self.dtype.name).named(s) for s in "hc"), before)


class LMU(Cell):
    """Legendre memory unit (Voelker, Kajić and Eliasmith, 2019), discretised by Euler's method.

    The memory holds the last `theta` steps as so many Legendre polynomials as it has numbers.
    """

    gates = "u"
    state = "h m"
    order, theta = 6, 12.0

    def build(self, rng):
        j = np.arange(self.order)
        above = j[:, None] < j
        A = (2 * j[:, None] + 1) * np.where(above, -1.0, (-1.0) ** (j[:, None] - j + 1))
        self.A = (A / self.theta + np.eye(self.order)).T
        self.B = ((2 * j + 1) * (-1.0) ** j / self.theta)[None]
        sizes = dict(x=self.inputs, h=self.hidden, m=self.order)
        for name, size in sizes.items():
            self.parameter(f"e_{name}", glorot(rng, (size, 1)))
            self.parameter(f"W_{name}", glorot(rng, (size, self.hidden)))

    def step(self, x, h_prev, m_prev):
        u = x @ self.e_x + h_prev @ self.e_h + m_prev @ self.e_m  # what is written: one number
        m = m_prev @ self.A + u @ self.B
        h = tanh(x @ self.W_x + h_prev @ self.W_h + m @ self.W_m)
        return dict(u=u, m=m, h=h)

    def initial_state(self, sequences):
        sizes = dict(h=self.hidden, m=self.order)
        return tuple(zeros((sequences, n), self.dtype.name).named(name) for name, n in sizes.items())


class PhasedLSTM(Cell):
    """Phased LSTM (Neil, Pfeiffer and Liu, 2016): a rhythm of each unit's own says when it may change.

    Period tau, shift s and open share r are learned; time is a state that counts.
    """

    gates = "k f i c_tilde o"
    state = "h c t"
    leak = 0.001

    def build(self, rng):
        for gate in "fico":
            self.gate_parameters(gate, rng)
        for gate in "fio":
            self.parameter(f"p_{gate}", rng.uniform(-0.5, 0.5, self.hidden))
        self.parameter("tau", np.exp(rng.uniform(0.5, 2, self.hidden)))
        self.parameter("s", rng.uniform(0, self.tau.value))
        self.parameter("r", np.full(self.hidden, 0.5))

    def step(self, x, h_prev, c_prev, t_prev):
        t = t_prev + 1.0
        turns = (t - self.s) / self.tau + 1.0  # above 0, so that cutting off digits rounds down
        phase = turns - turns.detach().astype("int64").astype(self.dtype.name)
        rise = 2.0 * phase / self.r
        k = where(phase < self.r / 2.0, rise, where(phase < self.r, 2.0 - rise, self.leak * phase))
        hx = concat(h_prev, x)
        f = sigmoid(hx @ self.W_f + self.p_f * c_prev + self.b_f)
        i = sigmoid(hx @ self.W_i + self.p_i * c_prev + self.b_i)
        c_tilde = f * c_prev + i * tanh(hx @ self.W_c + self.b_c)
        o = sigmoid(hx @ self.W_o + self.p_o * c_tilde + self.b_o)
        c = k * c_tilde + (1 - k) * c_prev
        h = k * (o * tanh(c_tilde)) + (1 - k) * h_prev
        return dict(t=t, k=k, f=f, i=i, c_tilde=c_tilde, o=o, c=c, h=h)

    def initial_state(self, sequences):
        sizes = dict(h=self.hidden, c=self.hidden, t=1)
        return tuple(zeros((sequences, n), self.dtype.name).named(name) for name, n in sizes.items())


class ClockworkRNN(Cell):
    """Clockwork RNN (Koutník, Greff, Gomez and Schmidhuber, 2014): slow units tell fast ones, and are told by none.

    Periods are powers of 2; every unit counts its own steps, a state of whole numbers.
    """

    state = "h clock"

    def build(self, rng):
        self.periods = 2 ** (np.arange(self.hidden) // 2)
        self.told = (self.periods[:, None] >= self.periods).astype(
            self.dtype
        )  # by whom (rows), whom (columns)
        self.parameter("W_h", orthogonal(rng, (self.hidden, self.hidden)))
        affine(self, "x", self.inputs, self.hidden, rng)

    def step(self, x, h_prev, clock_prev):
        ticks = clock_prev + 1
        clock = where(ticks >= self.periods, 0, ticks)
        fresh = tanh(h_prev @ (self.W_h * self.told) + x @ self.W_x + self.b_x)
        h = where(clock >= 1, h_prev, fresh)
        return dict(clock=clock, h=h)

    def initial_state(self, sequences):
        clock = zeros((sequences, self.hidden), "int64").named("clock")
        return zeros((sequences, self.hidden), self.dtype.name).named("h"), clock


class SoftmaxMemory(Cell):
    """A memory that is read and written by content (Graves, Wayne and Danihelka, 2014, without addressing by place).

    The memory's first content is learned.  A step reads what the steps before have left, then erases and adds.
    """

    gates = "beta w r e a"
    state = "h r M"
    places = 3

    def build(self, rng):
        H = self.hidden
        affine(self, "h", 2 * H + self.inputs, H, rng)
        for name in "kea":
            affine(self, name, H, H, rng)
        affine(self, "beta", H, 1, rng)
        self.parameter("M_0", rng.standard_normal((self.places, H)))

    def step(self, x, h_prev, r_prev, M_prev):
        N, H, L = x.shape[0], self.hidden, self.places
        h = tanh(concat(h_prev, x, r_prev) @ self.W_h + self.b_h)
        k = tanh(h @ self.W_k + self.b_k)
        beta = softplus(h @ self.W_beta + self.b_beta)
        lengths = sqrt((M_prev * M_prev).sum(axis=2)) * sqrt((k * k).sum(axis=1, keepdims=True))
        cosine = (M_prev @ k.reshape((N, H, 1))).reshape((N, L)) / (lengths + 1e-6)
        w = softmax(beta * cosine)
        r = (w.reshape((N, 1, L)) @ M_prev).reshape((N, H))
        e = sigmoid(h @ self.W_e + self.b_e)
        a = tanh(h @ self.W_a + self.b_a)
        at = w.reshape((N, L, 1))
        M = M_prev * (1 - at * e.reshape((N, 1, H))) + at * a.reshape((N, 1, H))
        return dict(k=k, beta=beta, w=w, r=r, e=e, a=a, M=M, h=h)

    def initial_state(self, sequences):
        h, r = (zeros((sequences, self.hidden), self.dtype.name).named(name) for name in "hr")
        return h, r, broadcast_to(self.M_0, (sequences, self.places, self.hidden)).named("M")


class ConvLSTM(Cell):
    """Convolutional LSTM (Shi et al., 2015) along one axis: D places with one number each, H channels.

    States are (N, D, H); what a place sees of the step before is itself and its two neighbours.
    """

    gates = "f i c_tilde o"
    state = "h c"

    def build(self, rng):
        for gate in "fico":
            self.parameter(f"W_{gate}", 0.5 * rng.standard_normal((3, self.hidden + 1, self.hidden)))
            self.parameter(f"b_{gate}", np.zeros(self.hidden))
        for gate in "fio":
            self.parameter(f"p_{gate}", rng.uniform(-0.5, 0.5, (self.inputs, self.hidden)))

    def step(self, x, h_prev, c_prev):
        places = x.reshape((x.shape[0], self.inputs, 1))
        hx = concat(h_prev, places).swapaxes(0, 1)

        def across(W):
            return conv1d(hx, W, causal=False).swapaxes(0, 1)

        f = sigmoid(across(self.W_f) + self.p_f * c_prev + self.b_f)
        i = sigmoid(across(self.W_i) + self.p_i * c_prev + self.b_i)
        c_tilde = tanh(across(self.W_c) + self.b_c)
        c = f * c_prev + i * c_tilde
        o = sigmoid(across(self.W_o) + self.p_o * c + self.b_o)
        h = o * tanh(c)
        return dict(f=f, i=i, c_tilde=c_tilde, c=c, o=o, h=h)

    def initial_state(self, sequences):
        shape = (sequences, self.inputs, self.hidden)
        return tuple(zeros(shape, self.dtype.name).named(s) for s in "hc")


class LRU(Cell):
    """Linear recurrent unit (Orvieto et al., 2023): a complex diagonal, its real and imaginary part as two states."""

    state = "h re im"

    def build(self, rng):
        D, H = self.inputs, self.hidden
        modulus, angle = rng.uniform(0.5, 0.95, H), rng.uniform(0.1, 2, H)
        self.parameter("nu", np.log(-np.log(modulus)))
        self.parameter("theta", np.log(angle))
        self.parameter("gamma", np.log(np.sqrt(1 - modulus**2)))
        for part in ("re", "im"):
            self.parameter(f"B_{part}", glorot(rng, (D, H)))
            self.parameter(f"C_{part}", glorot(rng, (H, H)))
        self.parameter("D", glorot(rng, (D, H)))

    def step(self, x, h_prev, re_prev, im_prev):
        modulus, angle, scale = exp(-exp(self.nu)), exp(self.theta), exp(self.gamma)
        a, b = modulus * cos(angle), modulus * sin(angle)
        re = a * re_prev - b * im_prev + scale * (x @ self.B_re)
        im = a * im_prev + b * re_prev + scale * (x @ self.B_im)
        h = re @ self.C_re - im @ self.C_im + x @ self.D
        return dict(re=re, im=im, h=h)


class MogrifierLSTM(Cell):
    """Mogrifier LSTM (Melis, Kočiský and Blunsom, 2020): input and state gate each other, by turns, before the LSTM."""

    gates = "f i c_tilde o"
    state = "h c"
    rounds = 5

    def build(self, rng):
        for gate in "fico":
            self.gate_parameters(gate, rng)
        for k in range(1, self.rounds + 1):
            rows, columns = (self.hidden, self.inputs) if k % 2 else (self.inputs, self.hidden)
            self.parameter(f"Q_{k}" if k % 2 else f"R_{k}", rng.standard_normal((rows, columns)))

    def step(self, x, h_prev, c_prev):
        for k in range(1, self.rounds + 1):
            if k % 2:
                x = 2.0 * sigmoid(h_prev @ getattr(self, f"Q_{k}")) * x
            else:
                h_prev = 2.0 * sigmoid(x @ getattr(self, f"R_{k}")) * h_prev
        hx = concat(h_prev, x)
        f = sigmoid(hx @ self.W_f + self.b_f)
        i = sigmoid(hx @ self.W_i + self.b_i)
        c_tilde = tanh(hx @ self.W_c + self.b_c)
        c = f * c_prev + i * c_tilde
        o = sigmoid(hx @ self.W_o + self.b_o)
        h = o * tanh(c)
        return dict(f=f, i=i, c_tilde=c_tilde, c=c, o=o, h=h)


class DeltaRule(Cell):
    """Fast weights that are corrected (Schlag, Irie and Schmidhuber, 2021): keys and queries through their DPFP-1."""

    gates = "k v q beta"
    state = "h W"

    def build(self, rng):
        for name in "kvq":
            self.parameter(f"W_{name}", rng.standard_normal((self.inputs, self.hidden)))
        self.parameter("W_beta", rng.standard_normal((self.inputs, 1)))

    def features(self, k):
        """Products of neighbours among the positive and negative parts, (N, H) → (N, 2H); they add up to 1."""
        parts = relu(concat(k, -k))
        products = parts * concat(parts[:, -1:], parts[:, :-1])
        return products / (products.sum(axis=1, keepdims=True) + 1e-6)

    def step(self, x, h_prev, W_prev):
        N, H = x.shape[0], self.hidden
        k, q = self.features(x @ self.W_k), self.features(x @ self.W_q)
        v = x @ self.W_v
        beta = sigmoid(x @ self.W_beta)
        known = (W_prev @ k.reshape((N, 2 * H, 1))).reshape((N, H))  # what is stored under the key
        W = W_prev + (beta * (v - known)).reshape((N, H, 1)) * k.reshape((N, 1, 2 * H))
        h = (W @ q.reshape((N, 2 * H, 1))).reshape((N, H))
        return dict(k=k, v=v, q=q, beta=beta, W=W, h=h)

    def initial_state(self, sequences):
        shapes = dict(h=(self.hidden,), W=(self.hidden, 2 * self.hidden))
        return tuple(zeros((sequences, *s), self.dtype.name).named(name) for name, s in shapes.items())


class CTRNN(Cell):
    """Continuous-time RNN (Funahashi and Nakamura, 1993), several steps of Euler's method for each input."""

    gates = "u"
    substeps, dt = 4, 0.25

    def build(self, rng):
        self.parameter("W_h", orthogonal(rng, (self.hidden, self.hidden)))
        affine(self, "x", self.inputs, self.hidden, rng)
        self.parameter("tau", rng.uniform(1, 3, self.hidden))

    def step(self, x, h_prev):
        u = x @ self.W_x + self.b_x  # the same in all sub-steps
        h = h_prev
        for _ in range(self.substeps):
            h = h + self.dt / self.tau * (sigmoid(h) @ self.W_h + u - h)
        return dict(u=u, h=h)


class LTC(Cell):
    """Liquid time-constant network (Hasani, Lechner, Amini, Rus and Grosu, 2021), by the paper's fused solver."""

    substeps, dt = 6, 1 / 6

    def build(self, rng):
        self.parameter("W_h", orthogonal(rng, (self.hidden, self.hidden)))
        affine(self, "x", self.inputs, self.hidden, rng)
        self.parameter("A", rng.standard_normal(self.hidden))
        self.parameter("tau", rng.uniform(0.5, 2, self.hidden))

    def step(self, x, h_prev):
        h = h_prev
        for _ in range(self.substeps):
            f = sigmoid(h @ self.W_h + x @ self.W_x + self.b_x)
            h = (h + self.dt * f * self.A) / (1 + self.dt * (1 / self.tau + f))
        return dict(h=h)


class MultiplicativeLSTM(Cell):
    """Multiplicative LSTM (Krause, Murray, Renals and Lu, 2016): every input has a recurrent matrix of its own.

    In this LSTM the output gate stands inside the tanh.
    """

    gates = "m h_hat i f o"
    state = "h c"

    def build(self, rng):
        self.parameter("W_mx", rng.standard_normal((self.inputs, self.hidden)))
        self.parameter("W_mh", rng.standard_normal((self.hidden, self.hidden)))
        for gate in "hifo":
            self.gate_parameters(gate, rng)

    def step(self, x, h_prev, c_prev):
        m = (x @ self.W_mx) * (h_prev @ self.W_mh)
        mx = concat(m, x)
        h_hat = mx @ self.W_h + self.b_h
        i = sigmoid(mx @ self.W_i + self.b_i)
        f = sigmoid(mx @ self.W_f + self.b_f)
        o = sigmoid(mx @ self.W_o + self.b_o)
        c = f * c_prev + i * h_hat
        h = tanh(c * o)
        return dict(m=m, h_hat=h_hat, i=i, f=f, o=o, c=c, h=h)


class HyperLSTM(Cell):
    """HyperLSTM (Ha, Dai and Le, 2016): a small LSTM scales the rows of the large one's weights, at every step.

    The four gates of a unit lie side by side: what is scaled and normalised is (N, 4, H).
    """

    gates = "f i c_tilde o"
    state = "h c hyper_h hyper_c"
    units, embedding = 3, 2

    def build(self, rng):
        D, H, U, E = self.inputs, self.hidden, self.units, self.embedding
        affine(self, "hyper", U + H + D, 4 * U, rng)
        self.parameter("W_h", np.concatenate([orthogonal(rng, (H, H)) for _ in "fico"], axis=1))
        self.parameter("W_x", glorot(rng, (D, 4 * H)))
        for part in "hxb":  # the scales of both weights, and the bias
            affine(self, f"z_{part}", U, 4 * E, rng, bias=float(part != "b"))
            self.parameter(f"D_{part}", rng.standard_normal((4, E, H)) * 0.5)
        for name, shape in dict(gates=(4, H), c=(H,)).items():
            self.parameter(f"g_{name}", np.ones(shape))
            self.parameter(f"b_{name}", np.zeros(shape))

    def scale(self, hyper_h, part):
        """One number for each gate and unit, (N, 4, H), by way of a small embedding of each gate's own."""
        z = hyper_h @ getattr(self, f"W_z_{part}") + getattr(self, f"b_z_{part}")
        embedded = z.reshape((z.shape[0], 4, self.embedding, 1))
        return (embedded * getattr(self, f"D_{part}")).sum(axis=2)

    def step(self, x, h_prev, c_prev, hyper_h_prev, hyper_c_prev):
        N, H, U = x.shape[0], self.hidden, self.units
        small = concat(hyper_h_prev, h_prev, x) @ self.W_hyper + self.b_hyper
        forget, let_in, show = (sigmoid(small[:, k * U : (k + 1) * U]) for k in range(3))
        hyper_c = forget * hyper_c_prev + let_in * tanh(small[:, 3 * U :])
        hyper_h = show * tanh(hyper_c)
        of_h = self.scale(hyper_h, "h") * (h_prev @ self.W_h).reshape((N, 4, H))
        of_x = self.scale(hyper_h, "x") * (x @ self.W_x).reshape((N, 4, H))
        large = layer_norm(of_h + of_x + self.scale(hyper_h, "b"), self.g_gates, self.b_gates)
        f, i, o = (sigmoid(large[:, k]) for k in range(3))
        c_tilde = tanh(large[:, 3])
        c = f * c_prev + i * c_tilde
        h = o * tanh(layer_norm(c, self.g_c, self.b_c))
        return dict(hyper_h=hyper_h, hyper_c=hyper_c, f=f, i=i, c_tilde=c_tilde, c=c, o=o, h=h)

    def initial_state(self, sequences):
        sizes = dict(h=self.hidden, c=self.hidden, hyper_h=self.units, hyper_c=self.units)
        return tuple(zeros((sequences, n), self.dtype.name).named(name) for name, n in sizes.items())


class ZoneoutLSTM(Cell):
    """LSTM with zoneout (Krueger et al., 2017): some units keep what they had, by chance.

    Which ones is drawn outside: the last 2H columns of x are uniform numbers, for c and for h.
    """

    gates = "f i c_tilde o"
    state = "h c"
    rate_c, rate_h = 0.5, 0.3

    def build(self, rng):
        for gate in "fico":
            affine(self, gate, self.hidden + self.features, self.hidden, rng)

    @property
    def features(self):
        return self.inputs - 2 * self.hidden

    def step(self, x, h_prev, c_prev):
        D, H = self.features, self.hidden
        keep_c, keep_h = x[:, D : D + H] < self.rate_c, x[:, D + H :] < self.rate_h
        hx = concat(h_prev, x[:, :D])
        f = sigmoid(hx @ self.W_f + self.b_f)
        i = sigmoid(hx @ self.W_i + self.b_i)
        c_tilde = tanh(hx @ self.W_c + self.b_c)
        o = sigmoid(hx @ self.W_o + self.b_o)
        fresh = f * c_prev + i * c_tilde
        c = where(keep_c, c_prev, fresh)
        h = where(keep_h, h_prev, o * tanh(fresh))
        return dict(f=f, i=i, c_tilde=c_tilde, o=o, c=c, h=h)


class BatchNormLSTM(Cell):
    """LSTM with recurrent batch normalisation (Cooijmans et al., 2017): statistics over the sequences of a step."""

    gates = "f i o g"
    state = "h c"

    def build(self, rng):
        H = self.hidden
        self.parameter("W_h", np.concatenate([orthogonal(rng, (H, H)) for _ in "fiog"], axis=1))
        self.parameter("W_x", glorot(rng, (self.inputs, 4 * H)))
        self.parameter("b", np.zeros(4 * H))
        for name, size in dict(h=4 * H, x=4 * H, c=H).items():
            self.parameter(f"gamma_{name}", np.full(size, 0.1))
        self.parameter("beta_c", np.zeros(H))

    def step(self, x, h_prev, c_prev):
        H = self.hidden
        gates = batch_norm(h_prev @ self.W_h, self.gamma_h) + batch_norm(x @ self.W_x, self.gamma_x) + self.b
        f, i, o = (sigmoid(gates[:, k * H : (k + 1) * H]) for k in range(3))
        g = tanh(gates[:, 3 * H :])
        c = f * c_prev + i * g
        h = o * tanh(batch_norm(c, self.gamma_c) + self.beta_c)
        return dict(f=f, i=i, o=o, g=g, c=c, h=h)


def batch_norm(x, gain):
    centred = x - x.mean(axis=0, keepdims=True)
    return gain * centred / sqrt((centred * centred).mean(axis=0, keepdims=True) + 1e-5)


class WeightNormRNN(Cell):
    """RNN with weight normalisation (Salimans and Kingma, 2016): a column's length is learned apart from its direction."""

    def build(self, rng):
        self.weights("V", rng)
        self.parameter("g", np.ones(self.hidden))
        self.parameter("b", np.zeros(self.hidden))

    def step(self, x, h_prev):
        W = self.V * (self.g / sqrt((self.V * self.V).sum(axis=0)))
        return dict(h=tanh(concat(h_prev, x) @ W + self.b))


class LearnedStateLSTM(LSTM):
    """LSTM whose first states are learned (Forcada and Carrasco, 1995)."""

    def build(self, rng):
        super().build(rng)
        for state in "hc":
            self.parameter(f"{state}_0", rng.uniform(-0.5, 0.5, self.hidden))

    def initial_state(self, sequences):
        shape = (sequences, self.hidden)
        return broadcast_to(self.h_0, shape).named("h"), broadcast_to(self.c_0, shape).named("c")


LITERATURE: dict[str, type[Cell]] = {
    "mgu": MGU,
    "sru": SRU,
    "qrnn": QRNN,
    "min_gru": MinGRU,
    "min_lstm": MinLSTM,
    "min_gru_log": LogMinGRU,
    "min_lstm_log": LogMinLSTM,
    "slstm": SLSTM,
    "mlstm": MLSTM,
    "lmu": LMU,
    "phased_lstm": PhasedLSTM,
    "clockwork_rnn": ClockworkRNN,
    "softmax_memory": SoftmaxMemory,
    "conv_lstm": ConvLSTM,
    "lru": LRU,
    "mogrifier_lstm": MogrifierLSTM,
    "delta_rule": DeltaRule,
    "ctrnn": CTRNN,
    "ltc": LTC,
    "multiplicative_lstm": MultiplicativeLSTM,
    "hyper_lstm": HyperLSTM,
    "zoneout_lstm": ZoneoutLSTM,
    "batch_norm_lstm": BatchNormLSTM,
    "weight_norm_rnn": WeightNormRNN,
    "learned_state_lstm": LearnedStateLSTM,
}
