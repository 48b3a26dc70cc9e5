"""Recurrent cells, each a short file with the equations of its slide.

`CELLS` is the table that the tests, the examples and the benchmarks walk.
"""

from typing import TYPE_CHECKING

from minigrad import hints

from . import exchange
from .attention import AdditiveAttention, AttentionDecoder
from .bidirectional import Bidirectional
from .cell import Cell
from .checking import Checked, check
from .configurations import (
    FirstState,
    beam_search,
    by_probability,
    generate,
    many_to_many,
    many_to_one,
    one_to_many,
)
from .convolution import Conv1d, weight_norm
from .dropout import Dropout, dropped, recurrent_masks
from .embedding import Embedding
from .experiments import comparison, tasks
from .experiments.comparison import compare
from .experiments.sweep import sweep
from .experiments.text import Alphabet
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
from .lstm_projected import ProjectedLSTM
from .lstm_zoneout import ZoneoutLSTM
from .mgu import MGU
from .min_gru import MinGRU
from .min_gru_log import LogMinGRU
from .min_lstm import MinLSTM
from .min_lstm_log import LogMinLSTM
from .mlstm import MLSTM
from .normalisation import LayerNorm
from .onnx import Network, from_keras, from_onnx, from_torch
from .rnn import RNN
from .sequence import run
from .sequential import Sequential
from .slstm import SLSTM
from .sru import SRU
from .stack import Stack
from .steps import Run, Step
from .tcn import TCN, TCNBlock
from .transformer import MultiHeadAttention, Transformer, TransformerBlock

CELLS: dict[str, type[Cell]] = {
    "rnn": RNN,
    "irnn": IRNN,
    "lstm": LSTM,
    "lstm_peephole": PeepholeLSTM,
    "lstm_coupled": CoupledLSTM,
    "lstm_layer_norm": LayerNormLSTM,
    "lstm_projected": ProjectedLSTM,
    "lstm_zoneout": ZoneoutLSTM,
    "gru": GRU,
    "gru_biased": BiasedGRU,
    "gru_reset_after": ResetAfterGRU,
    "janet": JANET,
    "mgu": MGU,
    "min_gru": MinGRU,
    "min_gru_log": LogMinGRU,
    "min_lstm": MinLSTM,
    "min_lstm_log": LogMinLSTM,
    "slstm": SLSTM,
    "mlstm": MLSTM,
    "sru": SRU,
}


if not TYPE_CHECKING:  # which would believe that there is any name

    def __getattr__(name: str):
        """Where a name is that is looked for here, as in other libraries."""
        if name in hints.CELLS:
            raise hints.missing("module 'cells'", name, hints.CELLS)
        raise AttributeError(f"module 'cells' has no attribute {name!r}")


__all__ = [
    "CELLS",
    "GRU",
    "IRNN",
    "JANET",
    "LSTM",
    "MGU",
    "MLSTM",
    "RNN",
    "SLSTM",
    "SRU",
    "TCN",
    "BiasedGRU",
    "CoupledLSTM",
    "LayerNormLSTM",
    "LogMinGRU",
    "LogMinLSTM",
    "MinGRU",
    "MinLSTM",
    "PeepholeLSTM",
    "ProjectedLSTM",
    "ResetAfterGRU",
    "AdditiveAttention",
    "Alphabet",
    "AttentionDecoder",
    "Bidirectional",
    "Cell",
    "Checked",
    "Conv1d",
    "Dense",
    "Dropout",
    "Embedding",
    "FirstState",
    "Layer",
    "LayerNorm",
    "MultiHeadAttention",
    "Network",
    "Output",
    "Run",
    "Sequential",
    "Stack",
    "Step",
    "TCNBlock",
    "Transformer",
    "TransformerBlock",
    "beam_search",
    "by_probability",
    "check",
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
    "sweep",
    "tasks",
    "ZoneoutLSTM",
    "weight_norm",
]

hints.hint_functions("cells", globals(), ["generate", "beam_search"])
