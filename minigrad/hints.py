"""What PyTorch, JAX and Keras call otherwise: no aliases, but errors that say what it is called here.

One table for each place where such a name may stand; a remedy that a test can look up is written as code: minigrad.…,
cells.…, np.… or x.… of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from inspect import CO_VARKEYWORDS, getattr_static
from types import FunctionType, ModuleType
from typing import Any

_ARRAY = "np.asarray(x), whose result is a plain array through which no gradient flows"
_HERE = "arrays live where NumPy has them, in main memory; leave it out"
_WEIGHTS = "draw with rng = np.random.default_rng(seed) and hand that to the layers"
_RATES = "dropout is drawn where masks are handed in, cells.Dropout: there is nothing to switch"
_DRAWN = "minigrad.Tensor(rng.standard_normal(shape)) with rng = np.random.default_rng(seed)"

_DTYPE = "dtype= when the layer is made"
_LENGTHS = "lengths= where a layer is run, layer(xs, lengths=lengths): there is nothing to pack"
_SCHEDULE = (
    "lr= of minigrad.fit, a function of the step; in a loop of your own, optimiser.lr = number before a step"
)
_NN = "minigrad.cross_entropy, minigrad.relu and so on, and layers are cells.LSTM, cells.Dense and so on"
_BCE = "minigrad.binary_cross_entropy, of scores"
_CLIP = "clip= of minigrad.fit or minigrad.training_step; in a loop of your own, minigrad.optim.clip_grad_norm(parameters, limit)"
_COMPILED = "minigrad.training_step, which compiles the whole step; leave it out"
_NONE_SUCH = "not among the optimisers; leave it out, or write a subclass of {} whose `moved` does it"
_KEPT = "not needed: the graph stays until it is dropped, or freed by backward(free=True)"
_TRACED = "not needed: shapes and options are found when the function is called; leave it out"
_UNROLLED = "not needed: every step is there on values, and compiled it is a loop; leave it out"
_EACH = "reduction='none', whose losses can be weighted before they are averaged"
_LAST = "not needed: it is the last axis"
_INITIAL = (
    "set after it is made, layer.W_f.value = array, with numbers e.g. of minigrad.init.orthogonal(rng, shape)"
)
_BIASES = "there wherever the equations have it; to keep it at zero, layer.freeze('b*')"
_THERE = "not here: x.requires_grad = True, of the tensor"

# minigrad.…, and minigrad.functional.…
NAMES = {
    "array": "minigrad.Tensor(data)", "asarray": "minigrad.as_tensor(data)",
    "from_numpy": "minigrad.Tensor(array)", "FloatTensor": "minigrad.Tensor(data, dtype='float32')",
    "LongTensor": "minigrad.Tensor(data, dtype='int64')", "Variable": "minigrad.Tensor(data, requires_grad=True)",
    "Parameter": "minigrad.Tensor(data, requires_grad=True), or in a layer its self.parameter(name, data)",
    "cat": "minigrad.concat(a, b, axis=…)", "concatenate": "minigrad.concat(a, b, axis=…)",
    "hstack": "minigrad.concat(a, b, axis=…)", "vstack": "minigrad.concat(a, b, axis=0)", "dot": "a @ b",
    "mm": "a @ b", "bmm": "a @ b", "mv": "a @ b", "addmm": "x @ W + b", "tensordot": "minigrad.einsum", "pow": "x ** y",
    "add": "a + b", "sub": "a - b", "mul": "a * b", "div": "a / b", "neg": "-a", "eq": "a == b", "gt": "a > b",
    "lt": "a < b", "clamp": "minigrad.clip(x, low, high)", "permute": "minigrad.transpose(x, axes)",
    "swapaxes": "x.swapaxes(a, b)", "unsqueeze": "minigrad.expand_dims(x, axis)", "chunk": "minigrad.split",
    "flatten": "x.reshape(-1)", "ravel": "x.reshape(-1)", "index_select": "minigrad.gather(table, index)",
    "take": "minigrad.gather(table, index), or x[index]", "embedding": "minigrad.gather(table, index)",
    "arange": "minigrad.Tensor(np.arange(n))", "linspace": "minigrad.Tensor(np.linspace(a, b, n))",
    "eye": "minigrad.Tensor(np.eye(n))", "empty": "minigrad.zeros(shape)", "randn": _DRAWN, "rand": _DRAWN,
    "normal": _DRAWN, "manual_seed": _WEIGHTS, "seed": _WEIGHTS, "random": _WEIGHTS,
    "mse_loss": "minigrad.mse", "l1_loss": "minigrad.mae", "smooth_l1_loss": "minigrad.huber",
    "huber_loss": "minigrad.huber", "nll_loss": "minigrad.cross_entropy, of scores", "ctc": "minigrad.ctc_loss",
    "binary_cross_entropy_with_logits": "minigrad.binary_cross_entropy, of scores", "logits": "minigrad.log_softmax",
    "inference_mode": "minigrad.no_grad()", "set_grad_enabled": "minigrad.no_grad()", "enable_grad": "minigrad.no_grad()",
    "stop_gradient": "x.detach()", "autograd": "minigrad.grad(y, xs)", "value_and_grad": "minigrad.grad(y, xs)",
    "vjp": "minigrad.grad(y, xs, cotangent)", "jit": "minigrad.compile(f)", "lax": "minigrad.scan(step, carry, xs)",
    "numpy": "minigrad itself: its functions are named as NumPy's", "nn": _NN, "F": _NN,
    "LSTM": "cells.LSTM", "GRU": "cells.GRU", "RNN": "cells.RNN", "Embedding": "cells.Embedding",
    "Dropout": "cells.Dropout", "dropout": "cells.Dropout", "LayerNorm": "cells.LayerNorm", "BCELoss": _BCE,
    "BCEWithLogitsLoss": _BCE, "CTCLoss": "minigrad.ctc_loss", "L1Loss": "minigrad.mae", "HuberLoss": "minigrad.huber",
    "SmoothL1Loss": "minigrad.huber", "NLLLoss": "minigrad.cross_entropy, of scores", "linear": "x @ W + b",
    "silu": "x * minigrad.sigmoid(x)", "swish": "x * minigrad.sigmoid(x)", "logsigmoid": "-minigrad.softplus(-x)",
    "leaky_relu": "minigrad.where(x > 0, x, slope * x)",
    "elu": "minigrad.where(x > 0, x, minigrad.expm1(minigrad.minimum(x, 0)))",
    "save": "layer.save(path), as of every cells.Layer", "load": "layer.load(path), as of every cells.Layer",
    "Module": "cells.Layer", "Linear": "cells.Dense", "CrossEntropyLoss": "minigrad.cross_entropy", "MSELoss": "minigrad.mse",
    "pack_padded_sequence": _LENGTHS, "pad_packed_sequence": _LENGTHS, "pack_sequence": _LENGTHS,
    "utils": "minigrad.optim.clip_grad_norm; in place of packing, layer(xs, lengths=lengths)",
    "DataLoader": "any list of batches, or a function that gives those of an epoch, as minigrad.fit takes them",
    "device": _HERE, "cuda": _HERE, "float32": "dtype='float32'", "float64": "dtype='float64'",
}  # fmt: skip
# minigrad.optim.…
OPTIM = {
    **dict.fromkeys(
        ("lr_scheduler", "StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR", "LambdaLR", "OneCycleLR"), _SCHEDULE
    ),
    "ReduceLROnPlateau": _SCHEDULE, "clip_grad_norm_": "minigrad.optim.clip_grad_norm(parameters, limit)",
    "clip_grad_value_": "minigrad.optim.clip_grad_value(parameters, limit)", "Optimizer": "minigrad.optim.Optimiser",
}  # fmt: skip
# optimiser.…
OPTIMISER = {
    "param_groups": "the options are attributes, e.g. optimiser.lr = 0.001; groups are given where it is made"
}
# minigrad.…(), of modules
MODULES = {"tensor": "minigrad.Tensor(data)"}
# x.… of a tensor
TENSOR = {
    "view": "x.reshape(shape)", "flatten": "x.reshape(-1)", "ravel": "x.reshape(-1)", "view_as": "x.reshape(y.shape)",
    "permute": "x.transpose(axes)", "t": "x.T", "mT": "x.swapaxes(-1, -2)", "unsqueeze": "minigrad.expand_dims(x, axis)",
    "expand": "minigrad.broadcast_to(x, shape)", "expand_as": "minigrad.broadcast_to(x, shape)",
    "repeat": "minigrad.concat, or minigrad.broadcast_to", "dim": "x.ndim", "numel": "x.size", "clamp": "x.clip(low, high)",
    "matmul": "a @ b", "mm": "a @ b", "bmm": "a @ b", "dot": "a @ b", "pow": "x ** y", "add": "a + b", "sub": "a - b",
    "mul": "a * b", "div": "a / b", "exp": "minigrad.exp(x)", "log": "minigrad.log(x)", "sqrt": "minigrad.sqrt(x)",
    "tanh": "minigrad.tanh(x)", "sigmoid": "minigrad.sigmoid(x)", "relu": "minigrad.relu(x)", "norm": "minigrad.norm(x)",
    "softmax": "minigrad.softmax(x)", "log_softmax": "minigrad.log_softmax(x)", "chunk": "minigrad.split(x, sections)",
    "split": "minigrad.split(x, sections)", "float": "x.astype('float32')", "double": "x.astype('float64')",
    "half": "x.astype('float16')", "long": "x.astype('int64')", "int": "x.astype('int32')", "bool": "x.astype(bool)",
    "type": "x.astype(dtype)", "to": "x.astype(dtype)", "cuda": _HERE, "cpu": _HERE, "device": _HERE, "data": "x.value",
    "tolist": "x.numpy().tolist()", "clone": "copy.copy(x) of a leaf; what is computed is never changed", "contiguous": _HERE,
    "zero_": "an optimiser's zero_grad(), or x.grad = None", "copy_": "x.value = array", "fill_": "x.value = array",
    "retain_grad": "x.backward(record=True), which leaves a gradient in every node", "register_hook": "x.hook(function)",
    "grad_fn": "x.op and x.inputs", "requires_grad_": "x.requires_grad = True", "index_select": "x[index]",
    "masked_fill": "minigrad.where(mask, value, x)", "at": "minigrad.where, or minigrad.scatter", "gather": "x[index]",
    "block_until_ready": "nothing: a value is there when it is computed",
}  # fmt: skip
# What a cells.Layer has not.
LAYER = {
    "train": _RATES, "eval": _RATES, "training": _RATES, "to": _DTYPE, "cuda": _HERE, "cpu": _HERE,
    "named_parameters": "layer.parameters(), a dict by name", "trainable_weights": "layer.parameters()",
    "weights_list": "layer.parameters()", "get_weights": "layer.state_dict()", "set_weights": "layer.load_state_dict(values)",
    "requires_grad_": "layer.freeze() and layer.unfreeze()", "zero_grad": "an optimiser's zero_grad()",
    "register_buffer": "layer.constant(name, array)", "register_parameter": "layer.parameter(name, data)",
    "buffers": "layer.constants()", "children": "vars(layer)", "modules": "vars(layer)", "apply": "layer.parameters()",
    "half": _DTYPE, "float": _DTYPE, "double": _DTYPE, "num_parameters": "layer.size", "count_params": "layer.size",
    "forward": "layer(xs)", "flatten_parameters": "nothing: there is no other layout", "summary": "print(layer)",
    "fit": "minigrad.fit", "compile": "minigrad.compile(function of the arguments)", "predict": "layer(xs)",
    "init": "the layer itself, which has its parameters from when it is made", "save_weights": "layer.save(path)",
    "load_weights": "layer.load(path)",
}  # fmt: skip
# name=…, of functions that have the parameter on the right
PARAMETERS = {
    "dim": "axis", "dims": "axis", "keepdim": "keepdims", "keep_dims": "keepdims", "input": "x", "correction": "ddof",
    "unbiased": "ddof", "min": "a_min", "max": "a_max", "num_classes": "classes", "target": "targets", "labels": "targets",
    "y_true": "targets", "weight": "weights", "size_average": "reduction", "reduce": "reduction", "eps": "epsilon",
    "size": "shape", "optimizer": "optimiser", "max_norm": "limit",
}  # fmt: skip
_LOSS = {"from_logits": "not needed: every loss takes logits", "sample_weight": _EACH, "where": "mask"}
_ERROR = {
    "input": "prediction",
    "y_pred": "prediction",
    "y_true": "target",
    "labels": "target",
}
_MADE = {"requires_grad": _THERE, "device": _HERE, "out": "what it returns: nothing is written into an array"}
_CLIPPED = dict.fromkeys(
    (
        "max_norm",
        "grad_norm_clip",
        "max_grad_norm",
        "grad_clip",
        "clip_norm",
        "clipnorm",
        "gradient_clip_val",
    ),
    "clip",
) | {"clipvalue": "clip_value", "grad_value_clip": "clip_value"}
_NORMED = {
    "norm_type": "always the Euclidean one; leave it out",
    "error_if_nonfinite": "always so; leave it out",
}
_GENERATED = {
    "max_length": "length", "max_new_tokens": "length", "max_len": "length", "hidden": "state", "initial_state": "state",
    "do_sample": "choose=cells.by_probability(rng, temperature), of cells.generate",
    "temperature": "choose=cells.by_probability(rng, temperature), of cells.generate",
}  # fmt: skip
# name=… of the functions and methods on the left
CALLS = {
    "cross_entropy": {"input": "logits", "y_pred": "logits", "axis": _LAST, "dim": _LAST, **_LOSS},
    "binary_cross_entropy": {"input": "logits", "y_pred": "logits", "weight": _EACH, **_LOSS},
    "ctc_loss": {"log_probs": "logits", "logit_length": "input_lengths", "label_length": "target_lengths"},
    "mse": {**_ERROR, "weight": _EACH, **_LOSS}, "mae": {**_ERROR, "weight": _EACH, **_LOSS},
    "huber": {**_ERROR, "beta": "delta, and the loss divided by beta", "weight": _EACH, **_LOSS},
    "softmax": {"where": "mask", "dtype": "x.astype(dtype) before"}, "log_softmax": {"dtype": "x.astype(dtype) before"},
    "layer_norm": {"weight": "gain", "scale": "gain", "normalized_shape": _LAST},
    "conv1d": {
        "weight": "W", "bias": "added: minigrad.conv1d(x, W) + b", "stride": "a slice of the result, y[::stride]",
        "padding": "causal, or minigrad.pad before; the result is always as long as x", "kernel": "W",
    },
    "one_hot": {"tensor": "index", "depth": "classes", "axis": _LAST},
    "norm": {"p": "always the Euclidean one; leave it out", "ord": "always the Euclidean one; leave it out"},
    "pad": {"pad": "pad_width", "value": "constant_values"}, "stack": {"arrays": "tensors"},
    "swapaxes": {"dim0": "a", "dim1": "b", "axis0": "a", "axis1": "b", "axis2": "b"},
    "transpose": {"dim0": "x.swapaxes(a, b)", "dim1": "x.swapaxes(a, b)", "perm": "x.transpose(axes)"},
    "split": {"split_size_or_sections": "indices_or_sections, of which a number counts the parts",
        "num_or_size_splits": "indices_or_sections"},
    "gather": {"dim": "x[index]", "axis": "x[index], or for another axis x.swapaxes(a, b)[index]", "input": "table"},
    "zeros": _MADE, "ones": _MADE, "full": {"fill_value": "value", **_MADE}, "zeros_like": _MADE, "ones_like": _MADE,
    "clip": {"x_min": "a_min", "x_max": "a_max"}, "logsumexp": {"b": "inside of it: x + minigrad.log(b)"},
    "backward": {
        "gradient": "cotangent", "grad_tensors": "cotangent", "retain_graph": _KEPT, "inputs": "minigrad.grad(y, xs)",
        "create_graph": "minigrad.grad(y, xs, create_graph=True)",
    },
    "grad": {
        "outputs": "y", "inputs": "wrt", "argnums": "wrt", "grad_outputs": "cotangent", "retain_graph": _KEPT,
        "allow_unused": "not needed: what y does not depend on gets zeros",
        "materialize_grads": "not needed: what y does not depend on gets zeros",
    },
    "scan": {"f": "step", "init": "carry", "length": "the length of xs, e.g. np.arange(length)", "unroll": _UNROLLED},
    "compile": {
        **dict.fromkeys(("fullgraph", "dynamic", "backend", "mode", "static_argnums", "static_argnames"), _TRACED),
        "donate_argnums": _TRACED, "fun": "function", "model": "function, of the arguments that change",
    },
    "training_step": _CLIPPED,
    "fit": {
        **_CLIPPED, "learning_rate": "lr", "scheduler": "lr, a function of the step",
        "lr_scheduler": "lr, a function of the step",
        "num_epochs": "epochs", "max_epochs": "epochs", "max_steps": "steps", "params": "parameters",
        "validation_data": "validate", "callbacks": "watch", "verbose": "progress", "train_dataloaders": "batches",
        "dataloader": "batches", "accumulate_grad_batches": "accumulate", "gradient_accumulation_steps": "accumulate",
        "seed": "rng", "batch_size": "batches, each of them a tuple of arrays", "early_stopping": "patience",
        "shuffle": "batches, a function of the epoch that gives them in the order that is wanted",
        "x": "batches, tuples of arrays", "y": "batches, tuples of arrays", "model": "loss, a function of a batch",
    },
    "clip_by_norm": _NORMED,
    "clip_grad_value": {"clip_value": "limit"},
    "zero_grad": {"set_to_none": "always so: x.grad becomes None; leave it out"},
    "step": {"closure": "loss and gradients before: loss.backward(), then optimiser.step()"},
    "generate": {**_GENERATED, "num_beams": "cells.beam_search(layer, output, first, length, width)"},
    "beam_search": {
        **_GENERATED, "num_beams": "width", "beam_width": "width", "beam_size": "width", "eos_token_id": "end",
    },
    "load": {"map_location": _HERE, "weights_only": "always so; leave it out"},
    "load_state_dict": {"assign": "not needed: numbers are copied; leave it out", "state_dict": "values"},
}  # fmt: skip
# name=… where a layer is made or called
LAYER_PARAMETERS = {
    "input_size": "inputs", "in_features": "inputs", "input_dim": "inputs", "hidden_size": "hidden", "units": "hidden",
    "hidden_dim": "hidden", "out_features": "width", "embedding_dim": "width", "num_embeddings": "classes",
    "num_layers": "cells.Stack(kind, inputs, hidden, layers, rng)", "proj_size": "cells.ProjectedLSTM(…, projection=)",
    "bidirectional": "cells.Bidirectional(kind, inputs, hidden, rng)",
    "go_backwards": "reverse=True where it is run: layer(xs, reverse=True)",
    "batch_first": "xs (T, N, D), steps first; x.swapaxes(0, 1) turns batches around",
    "time_major": "xs (T, N, D), steps first; x.swapaxes(0, 1) turns batches around",
    "return_sequences": "run.outputs for all steps and run.last for the last", "return_state": "run.state",
    "initial_state": "state, where it is run: layer(xs, state)", "hx": "state", "h0": "state", "sequence_length": "lengths",
    "recurrent_dropout": "dropout, by cells.recurrent_masks", "p": "rate", "device": _HERE, "stateful": "run.state, handed on",
    "h_0": "state", "init_carry": "state", "initial_carry": "state", "seq_lens": "lengths", "seq_lengths": "lengths",
    "features": "width", "filters": "width", "in_channels": "inputs", "out_channels": "width", "input_shape": "inputs",
    "output_dim": "width", "kernel_size": "taps", "dilation_rate": "dilation", "padding_idx": "padding", "d_model": "width",
    "embed_dim": "width", "num_heads": "heads", "nhead": "heads", "dim_feedforward": "feedforward",
    "eps": "epsilon", "normalized_shape": "inputs", "param_dtype": "dtype", "key": "rng", "rngs": "rng", "seed": "rng",
    "bias": _BIASES, "use_bias": _BIASES, "kernel_initializer": _INITIAL, "recurrent_initializer": _INITIAL,
    "bias_initializer": _INITIAL, "kernel_init": _INITIAL, "nonlinearity": "a class of its own: cells.RNN is that of tanh",
    "kernel_regularizer": "weight_decay= of an optimiser", "unroll": _UNROLLED,
}  # fmt: skip
# name=… where a layer is made
MAKING_PARAMETERS = {
    "dropout": "masks where it is run, layer(xs, dropout=masks), of its dropout_masks, or cells.Dropout(rate)",
    "dropout_rate": "masks where it is run, layer(xs, dropout=masks), of its dropout_masks, or cells.Dropout(rate)",
}  # fmt: skip
# name=… of an optimiser
OPTIMISER_PARAMETERS = {
    "params": "parameters", "learning_rate": "lr", "beta_1": "betas", "beta_2": "betas", "b1": "betas", "b2": "betas",
    "eps": "epsilon", "rho": "alpha", "decay": "alpha", "centered": "centred",
    "clipnorm": "minigrad.optim.clip_by_norm(parameters, limit)",
    "global_clipnorm": "minigrad.optim.clip_by_norm(parameters, limit)",
    "clipvalue": "minigrad.optim.clip_grad_value(parameters, limit)",
    "max_norm": _CLIP, "grad_norm_clip": _CLIP, "max_grad_norm": _CLIP, "clip": _CLIP, "grad_clip": _CLIP,
    "amsgrad": _NONE_SUCH.format("minigrad.optim.Adam"), "nesterov": _NONE_SUCH.format("minigrad.optim.SGD"),
    "dampening": _NONE_SUCH.format("minigrad.optim.SGD"), "maximize": "a minus before the loss", "foreach": _COMPILED,
    "fused": _COMPILED, "capturable": _COMPILED, "differentiable": _COMPILED, "schedule": _SCHEDULE,
    "param_groups": "groups", "momentum_decay": _NONE_SUCH.format("minigrad.optim.Adam"), "weight_decay_rate": "weight_decay",
}  # fmt: skip
# cells.…
CELLS = {
    "Linear": "cells.Dense", "Module": "cells.Layer", "Model": "cells.Layer", "LSTMCell": "cells.LSTM, whose step is one step",
    "GRUCell": "cells.GRU, whose step is one step", "RNNCell": "cells.RNN, whose step is one step",
    "SimpleRNN": "cells.RNN", "StackedRNNCells": "cells.Stack", "MultiheadAttention": "cells.MultiHeadAttention",
    "TransformerEncoder": "cells.Transformer", "TransformerEncoderLayer": "cells.TransformerBlock",
    "ModuleList": "a list that is an attribute of a cells.Layer", "ModuleDict": "a dict that is an attribute of a cells.Layer",
    "TimeDistributed": "cells.Dense, which takes any axes before the last", "LayerNormalization": "cells.LayerNorm",
    "CrossEntropyLoss": "minigrad.cross_entropy", "NLLLoss": "minigrad.cross_entropy, of scores", "MSELoss": "minigrad.mse",
    "L1Loss": "minigrad.mae", "BCEWithLogitsLoss": "minigrad.binary_cross_entropy, of scores", "CTCLoss": "minigrad.ctc_loss",
    "Tanh": "minigrad.tanh", "Sigmoid": "minigrad.sigmoid", "ReLU": "minigrad.relu", "GELU": "minigrad.gelu",
    "pack_padded_sequence": _LENGTHS, "pad_packed_sequence": _LENGTHS,
    "functional": _NN, "nn": _NN, "F": _NN, "mse_loss": "minigrad.mse", "cross_entropy": "minigrad.cross_entropy",
    "Softmax": "minigrad.softmax", "Parameter": "self.parameter(name, data) in a cells.Layer",
}  # fmt: skip


class Module(ModuleType):
    """A module of ours whose name is a function's elsewhere."""

    def __call__(self, *_, **__):
        raise TypeError(f"{self.__name__} is a module; here it is: {MODULES[self.__name__.split('.')[-1]]}")


class Count(int):
    """How many elements: a number, which says so where it is called as in x.size()."""

    def __call__(self, *_):
        raise TypeError("size is a number here, x.size; the sizes of the axes are x.shape")


def missing(owner: str, name: str, table: dict[str, str], of: Any = None) -> AttributeError:
    """The error for an attribute that is called otherwise here."""
    return AttributeError(f"{owner} has no attribute {name!r}; here it is: {table[name]}", name=name, obj=of)


class Elsewhere:
    """An attribute that is not there, and says so itself: a class with `__getattr__` has slower attributes all over."""

    def __init__(self, name: str, table: dict[str, str]):
        self.name, self.table = name, table

    def __get__(self, of: Any, owner: type):
        raise missing(owner.__name__, self.name, self.table, of)


def say_what_is_elsewhere(owner: type, table: dict[str, str]) -> None:
    """Let the attributes of a table, but for those that the class has, be answered with what they are called here."""
    for name in table:
        if name not in dir(owner):
            setattr(owner, name, Elsewhere(name, table))


def say_where_in(module: Any, package: Any) -> None:
    """Let a module answer for a name that its package has, or that the package calls otherwise."""

    def elsewhere(name: str):
        if name in package.__all__:
            raise AttributeError(
                f"module {module.__name__!r} has no attribute {name!r}; here it is: minigrad.{name}"
            )
        if name in NAMES:
            raise missing(f"module {module.__name__!r}", name, NAMES)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    module.__getattr__ = elsewhere


def attributes_of(thing: Any) -> list[str]:
    """What `dir` lists, without what is elsewhere."""
    own = getattr(thing, "__dict__", ())
    elsewhere = {n for n in dir(type(thing)) if isinstance(getattr_static(type(thing), n), Elsewhere)}
    return [n for n in object.__dir__(thing) if n in own or n not in elsewhere]


def parameters_of(function: Any) -> tuple[str, ...]:
    """Names of a function's parameters."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def refuse(what: str, given: Iterable[str], taken: Iterable[str], table: dict[str, str]) -> None:
    """Raise TypeError for the first argument, of those given by name, that is called otherwise here."""
    for name in given:
        if name in table and name not in taken:
            raise TypeError(f"{what} takes no {name}=; here it is: {table[name]}")


def refuse_made(kind: type, options: Mapping[str, Any], table: dict[str, str]) -> None:
    """The same for what is made of a class, unless that takes any name."""
    code = getattr(kind.__init__, "__code__", None)
    if options and code is not None and not code.co_flags & CO_VARKEYWORDS:
        refuse(kind.__name__, options, parameters_of(kind.__init__), table)


def refuse_without_rng(kind: type, given: int, options: Mapping[str, Any]) -> None:
    """Raise TypeError where a layer that draws its weights is made without the generator to draw them from."""
    code = getattr(kind.__init__, "__code__", None)
    if code is None or not (given or options):  # as copies and pickles are made
        return
    names = code.co_varnames[1 : code.co_argcount]
    needed = names[: len(names) - len(kind.__init__.__defaults__ or ())]
    if "rng" in needed and "rng" not in options and names.index("rng") >= given:
        raise TypeError(
            f"{kind.__name__}({', '.join(needed)}) was given no rng: weights are drawn from rng=np.random.default_rng(seed)"
        )


def called_otherwise(function: Callable) -> dict[str, str]:
    """What the parameters of a function are called elsewhere, and what that is here."""
    taken = parameters_of(function)
    own = CALLS.get(function.__name__, {})
    rows = {**{name: ours for name, ours in PARAMETERS.items() if ours in taken}, **own}
    return {name: ours for name, ours in rows.items() if name not in taken}


def hinted(function: Callable, what: str) -> Callable:
    """The function itself, but its TypeError for another library's parameter says what the parameter is called."""
    taken = parameters_of(function)
    table = called_otherwise(function)

    @wraps(function)
    def call(*args, **options):
        try:
            return function(*args, **options)
        except TypeError:
            refuse(what, options, taken, table)
            raise

    return call


def hint_functions(module: str, members: dict[str, Any], names: Iterable[str]) -> None:
    """Give hints to those functions of a module, its `globals()`, that have a row in these tables."""
    for name, function in _with_hints(members, names, module):
        function.__module__, function.__qualname__ = module, name  # where pickle looks for it
        members[name] = function


def hint_methods(owner: type, names: Iterable[str], called: str = "") -> None:
    """The same for methods of a class, which messages call otherwise than by its own name if `called` says so."""
    for name, method in _with_hints(vars(owner), names, called or owner.__name__):
        setattr(owner, name, method)


def _with_hints(
    members: Mapping[str, Any], names: Iterable[str], owner: str
) -> Iterator[tuple[str, Callable]]:
    """Those functions that have a row in these tables, with its hint; what takes numbers alone stays as it is."""
    ours = {*PARAMETERS.values()} - {"x"}
    for name in names:
        function = members.get(name)
        if isinstance(function, FunctionType) and (name in CALLS or ours & {*parameters_of(function)}):
            yield name, hinted(function, f"{owner}.{name}")
