"""Networks that were trained elsewhere, as layers whose recurrent nodes are our cells, with gates that are seen.

`read` makes a plain graph of a file and checks it, `operators` is the table of what is known, `recurrent` turns
RNN, LSTM and GRU nodes into cells, `repeats` finds the steps of loops that arrive unrolled, `network` runs a graph
as a layer, and `exporters` asks PyTorch and Keras for theirs.  None of these libraries is imported before it is
asked for, and nothing that stands in a file is executed.
"""

from .exporters import from_keras, from_torch
from .network import Network, from_onnx

__all__ = ["Network", "from_keras", "from_onnx", "from_torch"]
