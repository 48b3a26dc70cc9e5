"""Networks of PyTorch that are brought over: a table, name → (module, inputs, loops that have to be found).

Each row is made with the sizes T, N, D, H below; the number of steps of its loops is T unless it says otherwise.
"""

from __future__ import annotations

T, N, D, H = 5, 3, 4, 6
WORDS = 7


def models(torch) -> dict:
    nn = torch.nn

    class Recurrent(nn.Module):
        """A recurrent layer, all of whose outputs are given."""

        def __init__(self, kind, *sizes, **options):
            super().__init__()
            self.rnn = getattr(nn, kind)(*sizes, **options)

        def forward(self, x):
            y, last = self.rnn(x)
            return (y, *last) if isinstance(last, tuple) else (y, last)

    class Begun(Recurrent):
        """With first states from outside."""

        def forward(self, x, h, c):
            y, (h, c) = self.rnn(x, (h, c))
            return y, h, c

    class Packed(Recurrent):
        """Sequences of different length."""

        def forward(self, x, lengths):
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths)
            y, last = self.rnn(packed)
            y, _ = nn.utils.rnn.pad_packed_sequence(y)
            return (y, *last) if isinstance(last, tuple) else (y, last)

    class Classifier(nn.Module):
        """Words → LSTM → the class of the whole."""

        def __init__(self, **options):
            super().__init__()
            self.words = nn.Embedding(WORDS, D)
            self.rnn = nn.LSTM(D, H, **options)
            self.drop = nn.Dropout(0.3)
            self.out = nn.Linear(H * (2 if options.get("bidirectional") else 1), 3)

        def forward(self, words):
            y, _ = self.rnn(self.words(words))
            return torch.log_softmax(self.out(self.drop(y[-1])), -1)

    class Tagger(Classifier):
        def forward(self, words):
            return self.out(torch.relu(self.rnn(self.words(words))[0]))

    class Attended(nn.Module):
        """Attention over the outputs of a GRU in both directions."""

        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(D, H, batch_first=True, bidirectional=True)
            self.score, self.out = nn.Linear(2 * H, 1), nn.Linear(2 * H, 3)

        def forward(self, x):
            y, _ = self.rnn(x)
            alpha = torch.softmax(self.score(torch.tanh(y)), 1)
            return self.out((alpha * y).sum(1))

    class EncoderDecoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.GRU(D, H), nn.GRU(D, H)
            self.out = nn.Linear(H, D)

        def forward(self, x, y):
            _, h = self.encoder(x)
            return self.out(self.decoder(y, h)[0])

    class ConvLSTM(nn.Module):
        """A convolution along time, and what it gives to an LSTM."""

        def __init__(self, **options):
            super().__init__()
            self.conv, self.rnn = nn.Conv1d(D, 8, 3, **options), nn.LSTM(8, H, batch_first=True)

        def forward(self, x):
            return self.rnn(torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2))[0]

    class Loop(nn.Module):
        """A cell in a Python loop."""

        def __init__(self, cell, states=1, first="zeros", **options):
            super().__init__()
            self.cell, self.states, self.first = cell(**options), states, first

        def forward(self, x):
            zero = torch.zeros(x.shape[1], H, dtype=x.dtype)
            state, outputs = (zero,) * self.states, []
            for t in range(x.shape[0]):
                state = self.cell(x[t], state if self.states > 1 else state[0])
                state = state if isinstance(state, tuple) else (state,)
                outputs.append(state[0])
            return torch.stack(outputs)

    class TwoCells(nn.Module):
        """Two LSTM cells on top of each other, in one loop."""

        def __init__(self):
            super().__init__()
            self.low, self.high = nn.LSTMCell(D, H), nn.LSTMCell(H, H)
            self.out = nn.Linear(H, 2)

        def forward(self, x):
            zero = torch.zeros(x.shape[1], H, dtype=x.dtype)
            a, b = (zero, zero), (zero, zero)
            for t in range(x.shape[0]):
                a = self.low(x[t], a)
                b = self.high(a[0], b)
            return self.out(b[0])

    class LoopAfterLoop(nn.Module):
        """The outputs of one loop are the inputs of the next."""

        def __init__(self):
            super().__init__()
            self.low, self.high = nn.GRUCell(D, H), nn.GRUCell(H, H)

        def forward(self, x):
            for cell in (self.low, self.high):
                h, outputs = torch.zeros(x.shape[1], H, dtype=x.dtype), []
                for row in x.unbind(0):
                    h = cell(row, h)
                    outputs.append(h)
                x = torch.stack(outputs)
            return x

    class Elman(nn.Module):
        """A cell of one's own: tanh of two products."""

        def __init__(self):
            super().__init__()
            self.W, self.U = nn.Parameter(torch.randn(D, H)), nn.Parameter(torch.randn(H, H))
            self.b = nn.Parameter(torch.randn(H))

        def forward(self, x, h):
            return torch.tanh(x @ self.W + h @ self.U + self.b)

    class Leaky(nn.Module):
        """A cell of one's own: a leaky unit, which keeps 0.9 of what it was, and a layer norm."""

        def __init__(self):
            super().__init__()
            self.lift, self.norm = nn.Linear(D + H, H), nn.LayerNorm(H)

        def forward(self, x, h):
            return 0.9 * h + 0.1 * torch.relu(self.norm(self.lift(torch.cat([x, h], -1))))

    class Minimal(nn.Module):
        """A cell of one's own with one gate, written with several outputs."""

        def __init__(self):
            super().__init__()
            self.lift = nn.Linear(D + H, 2 * H)

        def forward(self, x, h):
            gate, new = self.lift(torch.cat([x, h], -1)).chunk(2, -1)
            f = torch.sigmoid(gate)
            return f * h + (1 - f) * torch.tanh(new)

    class Decoder(nn.Module):
        """An encoder, and a loop that attends to it and reads what it wrote itself."""

        def __init__(self):
            super().__init__()
            self.encoder, self.cell = nn.GRU(D, H), nn.GRUCell(H + D, H)
            self.look, self.out = nn.Linear(H, H), nn.Linear(H, D)

        def forward(self, x):
            seen, h = self.encoder(x)
            seen, h = seen.transpose(0, 1), h[0]
            y, outputs = x[-1], []
            for _ in range(4):
                alpha = torch.softmax((seen @ self.look(h).unsqueeze(2)).squeeze(2), 1)
                context = (alpha.unsqueeze(1) @ seen).squeeze(1)
                h = self.cell(torch.cat([context, y], 1), h)
                y = self.out(h)
                outputs.append(y)
            return torch.stack(outputs)

    class Transformer(nn.Module):
        def __init__(self, layers=2, activation="gelu", norm_first=True):
            super().__init__()
            layer = nn.TransformerEncoderLayer(
                8, 2, 12, batch_first=True, activation=activation, norm_first=norm_first
            )
            self.lift = nn.Linear(D, 8)
            self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

        def forward(self, x):
            mask = torch.triu(torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=x.dtype), 1)
            return self.encoder(self.lift(x), mask=mask)

    class Tied(nn.Module):
        """The embedding's weights are the output's too."""

        def __init__(self):
            super().__init__()
            self.words, self.rnn = nn.Embedding(WORDS, H), nn.RNN(H, H)
            self.out = nn.Linear(H, WORDS)
            self.out.weight = self.words.weight

        def forward(self, words):
            return self.out(self.rnn(self.words(words))[0])

    class Arithmetic(nn.Module):
        """Element-wise functions, powers, shapes and masks of all kinds."""

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(D))

        def forward(self, x):
            y = torch.exp(-((x * self.w) ** 2)) + torch.sqrt(x * x + 1) / (1 + x.abs())
            y = torch.where(x > 0, y, nn.functional.leaky_relu(y)) - torch.erf(x) + nn.functional.gelu(y)
            y = nn.functional.elu(y) + nn.functional.softplus(x) + torch.log(x * x + 0.5)
            y = y.clamp(-1.5, 2.5).reshape(x.shape[0], -1) + y.flatten(1).mean(1, keepdim=True)
            return torch.cat([y.max(1).values, y.sum(1), y.cumsum(1)[:, -1]])

    class Looped(nn.Module):
        """T steps of a module that is given states of its own."""

        def __init__(self):
            super().__init__()
            self.cell = nn.LSTMCell(D, H)
            self.h0, self.c0 = nn.Parameter(torch.randn(H)), nn.Parameter(torch.randn(H))

        def forward(self, x):
            state = (self.h0.expand(x.shape[1], H), self.c0.expand(x.shape[1], H))
            for t in reversed(range(x.shape[0])):
                state = self.cell(x[t], state)
            return state[0]

    x, words = torch.randn(T, N, D), torch.randint(0, WORDS, (T, N))
    first = x.transpose(0, 1).contiguous()
    lengths = torch.tensor([5, 3, 1])
    table = {
        "rnn": (Recurrent("RNN", D, H), x, 0),
        "rnn relu, 2 layers": (Recurrent("RNN", D, H, 2, nonlinearity="relu"), x, 0),
        "rnn both ways, 3 layers": (Recurrent("RNN", D, H, 3, bidirectional=True), x, 0),
        "rnn without bias": (Recurrent("RNN", D, H, bias=False), x, 0),
        "lstm": (Recurrent("LSTM", D, H), x, 0),
        "lstm, 3 layers": (Recurrent("LSTM", D, H, 3), x, 0),
        "lstm both ways": (Recurrent("LSTM", D, H, bidirectional=True), x, 0),
        "lstm both ways, 2 layers, sequences first": (
            Recurrent("LSTM", D, H, 2, bidirectional=True, batch_first=True), first, 0,
        ),
        "lstm with dropout between layers": (Recurrent("LSTM", D, H, 2, dropout=0.4), x, 0),
        "lstm without bias": (Recurrent("LSTM", D, H, bias=False), x, 0),
        "lstm with projection": (Recurrent("LSTM", D, H, proj_size=2), x, 1),
        "lstm with first states": (
            Begun("LSTM", D, H, 2), (x, torch.randn(2, N, H), torch.randn(2, N, H)), 0,
        ),
        "lstm both ways with first states": (
            Begun("LSTM", D, H, bidirectional=True), (x, torch.randn(2, N, H), torch.randn(2, N, H)), 0,
        ),
        "lstm, packed": (Packed("LSTM", D, H), (x, lengths), 0),
        "gru both ways, packed": (Packed("GRU", D, H, bidirectional=True), (x, lengths), 0),
        "gru": (Recurrent("GRU", D, H), x, 0),
        "gru, 2 layers, sequences first": (Recurrent("GRU", D, H, 2, batch_first=True), first, 0),
        "gru both ways, 2 layers": (Recurrent("GRU", D, H, 2, bidirectional=True), x, 0),
        "gru without bias": (Recurrent("GRU", D, H, bias=False), x, 0),
        "classifier of words": (Classifier(), words, 0),
        "classifier of words, both ways, 2 layers": (Classifier(num_layers=2, bidirectional=True), words, 0),
        "tagger of words": (Tagger(), words, 0),
        "attention on a gru": (Attended(), first, 0),
        "encoder and decoder": (EncoderDecoder(), (x, torch.randn(4, N, D)), 0),
        "convolution before an lstm": (ConvLSTM(padding=1), first, 0),
        "convolution with dilation, stride and groups": (ConvLSTM(dilation=2, groups=2), first, 0),
        "loop of an lstm cell": (Loop(nn.LSTMCell, 2, input_size=D, hidden_size=H), x, 1),
        "loop of a gru cell": (Loop(nn.GRUCell, input_size=D, hidden_size=H), x, 1),
        "loop of an rnn cell": (Loop(nn.RNNCell, input_size=D, hidden_size=H), x, 1),
        "loop of a cell of one's own": (Loop(Elman), x, 1),
        "loop of a leaky cell": (Loop(Leaky), x, 1),
        "loop of a minimal gate": (Loop(Minimal), x, 1),
        "loop of two lstm cells": (TwoCells(), x, 1),
        "loop after loop": (LoopAfterLoop(), x, 2),
        "loop from the end, learned first states": (Looped(), x, 1),
        "decoder with attention in a loop": (Decoder(), x, 1),
        "transformer": (Transformer(), first, 0),
        "transformer, norm last, relu": (Transformer(1, "relu", False), first, 0),
        "tied weights": (Tied(), words, 0),
        "arithmetic": (Arithmetic(), x, 0),
    }  # fmt: skip
    return table
