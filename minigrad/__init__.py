"""A tiny reverse-mode autograd engine for recurrent networks that one can see.

``Tensor`` is the only node; `ops.py` is the table of operations; `backward` and
`grad` differentiate; see `cells` for recurrent cells and `viz` for pictures.
"""

import sys
from typing import TYPE_CHECKING

from . import functional, hints, indexing, init, losses, optim, tensor
from .arrays import (
    argmax,
    argmin,
    clip,
    cumprod,
    einsum,
    expand_dims,
    flip,
    isfinite,
    isinf,
    isnan,
    outer,
    pad,
    prod,
    round,
    split,
    squeeze,
    std,
    var,
)
from .audit import audit, grad_status
from .check import check_grads
from .elements import (
    abs,
    ceil,
    cumsum,
    erf,
    expm1,
    floor,
    floor_divide,
    full,
    hypot,
    logaddexp,
    mod,
    ones,
    ones_like,
    sign,
    zeros_like,
)
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
    gelu,
    layer_norm,
    log_softmax,
    logsumexp,
    mean,
    norm,
    one_hot,
    relu,
    softmax,
    softplus,
    stack,
)
from .indexing import reshape, transpose
from .losses import binary_cross_entropy, cross_entropy, ctc_loss, huber, mae, mse
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
from .parallel import Ranks
from .reverse import ancestors, backward, grad
from .scanning import scan
from .tensor import OPS, Op, Tensor, anomaly, as_tensor, describe, no_grad, scope
from .training import fit


def compile(function, *, threads: int = 1, check: bool = False):
    """The same function, compiled when it is first called: see `minigrad.compiler.compile`."""
    from .compiler import compile as compile_function  # LLVM is loaded when it is first needed

    return compile_function(function, threads=threads, check=check)


def training_step(loss, optimiser, *, clip: float | None = None, clip_value: float | None = None):
    """A step of training, ``step(*batch)``, with as little Python as possible: see `minigrad.compiler.TrainingStep`.

    loss : a function of a batch; its first (or only) result is the loss.
    optimiser : whose parameters are moved, e.g. ``mg.optim.Adam(parameters)``.
    clip : the greatest joint norm of the gradients (`optim.clip_grad_norm`).
    clip_value : the greatest element of them (`optim.clip_grad_value`), before the norm is taken.

    Raises InputError for a limit that is not positive.
    """
    from .compiler import TrainingStep

    return TrainingStep(loss, optimiser, clip, clip_value)


if not TYPE_CHECKING:  # which would believe that there is any name

    def __getattr__(name: str):
        """Where a name is that is looked for here, as in other libraries."""
        if name in hints.NAMES:
            raise hints.missing("module 'minigrad'", name, hints.NAMES)
        inside = name.removesuffix("_")  # clip_grad_norm_
        where = (
            f"; it is minigrad.optim.{inside}" if not name.startswith("_") and hasattr(optim, inside) else ""
        )
        raise AttributeError(f"module 'minigrad' has no attribute {name!r}{where}")


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
    "Ranks",
    "ShapeError",
    "TooLargeError",
    "Tensor",
    "abs",
    "ancestors",
    "anomaly",
    "argmax",
    "argmin",
    "as_tensor",
    "audit",
    "backward",
    "binary_cross_entropy",
    "broadcast_to",
    "ceil",
    "check_grads",
    "clip",
    "compile",
    "concat",
    "conv1d",
    "cos",
    "cross_entropy",
    "ctc_loss",
    "cumprod",
    "cumsum",
    "describe",
    "einsum",
    "erf",
    "exp",
    "expand_dims",
    "expm1",
    "fit",
    "flip",
    "floor",
    "floor_divide",
    "full",
    "gather",
    "gelu",
    "grad",
    "grad_status",
    "huber",
    "hypot",
    "indexing",
    "init",
    "isfinite",
    "isinf",
    "isnan",
    "layer_norm",
    "log",
    "log1p",
    "log_softmax",
    "logaddexp",
    "logsumexp",
    "mae",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mod",
    "mse",
    "no_grad",
    "norm",
    "one_hot",
    "ones",
    "ones_like",
    "optim",
    "outer",
    "pad",
    "power",
    "prod",
    "relu",
    "reshape",
    "round",
    "scan",
    "scatter",
    "scope",
    "shift",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "std",
    "sum",
    "tanh",
    "training_step",
    "transpose",
    "var",
    "where",
    "zeros",
    "zeros_like",
]

hints.hint_functions("minigrad", globals(), __all__)
Tensor.backward = backward  # type: ignore[method-assign]  # with its hints
for _module in (functional, losses):
    hints.say_where_in(_module, sys.modules[__name__])
tensor.__class__ = hints.Module  # type: ignore[attr-defined]
