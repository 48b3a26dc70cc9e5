"""A tiny reverse-mode autograd engine for recurrent networks that one can see.

``Tensor`` is the only node; `ops.py` is the table of operations; `backward` and
`grad` differentiate; see `cells` for recurrent cells and `viz` for pictures.
"""

from . import init, optim
from .errors import (
    DTypeError,
    GraphError,
    InputError,
    LayoutError,
    MinigradError,
    NonFiniteError,
    ShapeError,
)
from .functional import cross_entropy, layer_norm, log_softmax, mse, one_hot, relu, softmax, softplus
from .grad import ancestors, audit, backward, check_grads, grad, grad_states
from .ops import (
    broadcast_to,
    concat,
    cos,
    exp,
    gather,
    log,
    logsumexp,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    power,
    reshape,
    scatter,
    sigmoid,
    sin,
    sqrt,
    stack,
    sum,
    tanh,
    transpose,
    where,
    zeros,
)
from .tensor import OPS, Op, Tensor, anomaly, as_tensor, describe, no_grad, scope

__version__ = "0.1.0"
__all__ = [name for name in dir() if not name.startswith("_")]
