"""A tiny reverse-mode autograd engine for recurrent networks that one can see.

``Tensor`` is the only node; `ops.py` is the table of operations; `backward` and
`grad` differentiate; see `cells` for recurrent cells and `viz` for pictures.
"""

from . import indexing, init, optim
from .audit import audit, grad_states
from .check import check_grads
from .errors import (
    DTypeError,
    GraphError,
    InputError,
    LayoutError,
    MinigradError,
    NonFiniteError,
    ShapeError,
    TooLargeError,
)
from .functional import (
    conv1d,
    cross_entropy,
    layer_norm,
    log_softmax,
    logsumexp,
    mean,
    mse,
    norm,
    one_hot,
    relu,
    softmax,
    softplus,
    stack,
)
from .grad import ancestors, backward, grad
from .indexing import reshape, transpose
from .ops import (
    broadcast_to,
    concat,
    cos,
    exp,
    gather,
    log,
    log1p,
    matmul,
    max,
    maximum,
    min,
    minimum,
    power,
    scatter,
    shift,
    sigmoid,
    sin,
    sqrt,
    sum,
    tanh,
    where,
    zeros,
)
from .scan import scan
from .tensor import OPS, Op, Tensor, anomaly, as_tensor, describe, no_grad, scope
from .training import fit


def compile(function, *, threads: int = 1, check: bool = False):
    """The same function, compiled when it is first called: see `minigrad.compiler.compile`."""
    from .compiler import compile as compile_function  # LLVM is loaded when it is first needed

    return compile_function(function, threads=threads, check=check)


def training_step(loss, optimiser, *, clip: float | None = None):
    """A step of training, ``step(*batch)``, with as little Python as can be: see `minigrad.compiler.TrainingStep`."""
    from .compiler import TrainingStep

    return TrainingStep(loss, optimiser, clip)


__version__ = "0.1.0"
__all__ = [
    "DTypeError",
    "GraphError",
    "InputError",
    "LayoutError",
    "MinigradError",
    "NonFiniteError",
    "OPS",
    "Op",
    "ShapeError",
    "TooLargeError",
    "Tensor",
    "ancestors",
    "anomaly",
    "as_tensor",
    "audit",
    "backward",
    "broadcast_to",
    "check_grads",
    "compile",
    "concat",
    "conv1d",
    "cos",
    "cross_entropy",
    "describe",
    "exp",
    "fit",
    "gather",
    "grad",
    "grad_states",
    "indexing",
    "init",
    "layer_norm",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mse",
    "no_grad",
    "norm",
    "one_hot",
    "optim",
    "power",
    "relu",
    "reshape",
    "scan",
    "scatter",
    "scope",
    "shift",
    "sigmoid",
    "sin",
    "softmax",
    "softplus",
    "sqrt",
    "stack",
    "sum",
    "tanh",
    "training_step",
    "transpose",
    "where",
    "zeros",
]
