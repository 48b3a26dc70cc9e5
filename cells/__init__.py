"""Recurrent cells, each a short file with the equations of its slide.

`CELLS` is the table that the tests, the examples and the benchmarks walk.
"""

from . import comparison, exchange, tasks
from .attention import AdditiveAttention, AttentionDecoder
from .bidirectional import Bidirectional
from .cell import Cell, Step, unroll
from .comparison import compare
from .configurations import FirstState, by_probability, generate, many_to_many, many_to_one, one_to_many
from .convolution import Conv1d, weight_norm
from .dropout import dropped, recurrent_masks
from .gru import GRU
from .gru_biased import BiasedGRU
from .gru_reset_after import ResetAfterGRU
from .initial import chrono, forget_bias
from .irnn import IRNN
from .janet import JANET
from .layer import Dense, Layer, Output
from .lstm import LSTM
from .lstm_coupled import CoupledLSTM
from .lstm_layer_norm import LayerNormLSTM
from .lstm_peephole import PeepholeLSTM
from .onnx import Network, from_keras, from_onnx, from_torch
from .rnn import RNN
from .sequence import Run, run
from .stack import Stack
from .tcn import TCN, TCNBlock
from .text import Alphabet
from .transformer import MultiHeadAttention, Transformer, TransformerBlock

CELLS: dict[str, type[Cell]] = {
    "rnn": RNN,
    "irnn": IRNN,
    "lstm": LSTM,
    "lstm_peephole": PeepholeLSTM,
    "lstm_coupled": CoupledLSTM,
    "lstm_layer_norm": LayerNormLSTM,
    "gru": GRU,
    "gru_biased": BiasedGRU,
    "gru_reset_after": ResetAfterGRU,
    "janet": JANET,
}

__all__ = [
    "CELLS",
    "GRU",
    "IRNN",
    "JANET",
    "LSTM",
    "RNN",
    "TCN",
    "BiasedGRU",
    "CoupledLSTM",
    "LayerNormLSTM",
    "PeepholeLSTM",
    "ResetAfterGRU",
    "AdditiveAttention",
    "Alphabet",
    "AttentionDecoder",
    "Bidirectional",
    "Cell",
    "Conv1d",
    "Dense",
    "FirstState",
    "Layer",
    "MultiHeadAttention",
    "Network",
    "Output",
    "Run",
    "Stack",
    "Step",
    "TCNBlock",
    "Transformer",
    "TransformerBlock",
    "by_probability",
    "chrono",
    "compare",
    "comparison",
    "dropped",
    "exchange",
    "forget_bias",
    "from_keras",
    "from_onnx",
    "from_torch",
    "generate",
    "many_to_many",
    "many_to_one",
    "one_to_many",
    "recurrent_masks",
    "run",
    "tasks",
    "unroll",
    "weight_norm",
]
