"""Weights to and from PyTorch, Keras and ONNX, as plain dictionaries of arrays; none of them is imported.

A cell is taken apart into one `Block` per gate (weights of the input, weights of the state, biases),
and each library's arrays are blocks in its own order, named its own way (with G gates):

* PyTorch, per layer and direction: ``weight_ih_l0`` (G·H, D), ``weight_hh_l0`` (G·H, H), ``bias_ih_l0``
  and ``bias_hh_l0`` (G·H,), with ``_reverse`` behind the names of the backward direction;
* Keras, per cell: ``kernel`` (D, G·H), ``recurrent_kernel`` (H, G·H), ``bias`` (G·H,) or, with the reset
  after the product, (2, G·H); before them stand the layer of a stack and the direction, as in
  ``1.backward.kernel``;
* ONNX, per layer: ``W`` (directions, G·H, D), ``R`` (directions, G·H, H), ``B`` (directions, 2·G·H) and
  with peepholes ``P`` (directions, 3·H); before them stands the layer of a stack, ``1.W``.

PyTorch's nn.Linear, nn.Embedding, nn.MultiheadAttention and nn.TransformerEncoderLayer (with ``norm_first=True``) are
exchanged by their own names.  Biases that a library leaves out are 0 here.

PyTorch and ONNX keep two biases where these cells have one: they are added up when read,
and the second is 0 when written.  Where z means the opposite of the slide's, its weights change
their sign: 1 − σ(a) = σ(−a).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import InputError, ShapeError, checkpoint

from .embedding import Embedding
from .gru import GRU
from .gru_biased import BiasedGRU
from .gru_reset_after import ResetAfterGRU
from .irnn import IRNN
from .layer import Dense, Layer, Output
from .lstm import LSTM
from .lstm_peephole import PeepholeLSTM
from .lstm_projected import ProjectedLSTM
from .rnn import RNN
from .transformer import MultiHeadAttention, TransformerBlock


@dataclass(frozen=True)
class Family:
    """One kind of cell at the others': the order of its gates, by our letters; "" where they have none.

    `opposite` names the gates whose meaning is the opposite; `peepholes` is ONNX's order of P.
    """

    kind: type
    pytorch: str
    keras: str
    onnx: str
    opposite: str = ""
    peepholes: str = ""
    biases: bool = True


FAMILIES = [
    Family(RNN, pytorch="h", keras="h", onnx="h"),
    Family(IRNN, pytorch="h", keras="h", onnx="h"),  # its nonlinearity is told apart by `_checked_module`
    Family(LSTM, pytorch="ifco", keras="ifco", onnx="iofc"),
    Family(ProjectedLSTM, pytorch="ifco", keras="", onnx=""),
    Family(PeepholeLSTM, pytorch="", keras="", onnx="iofc", peepholes="iof"),
    Family(GRU, pytorch="", keras="zrh", onnx="zrh", opposite="z", biases=False),
    Family(BiasedGRU, pytorch="", keras="zrh", onnx="zrh", opposite="z"),
    Family(ResetAfterGRU, pytorch="rzh", keras="zrh", onnx="zrh"),
]


def to_pytorch(layer: Layer, path=None) -> dict[str, np.ndarray]:
    """The `state_dict` of nn.RNN, nn.LSTM or nn.GRU for a cell, both directions or a stack; also as a
    safetensors file at `path`."""
    return _written(_export(layer, "pytorch"), path)


def from_pytorch(layer: Layer, arrays, prefix: str = "") -> None:
    """Set all weights of `layer` from a module, its `state_dict`, or a safetensors file at that path.

    A `state_dict` does not tell everything: of a module, what computes something else is refused, such as an nn.RNN
    with ReLU for our RNN with tanh.

    prefix : what stands before the names in the state_dict of a larger model, e.g. "encoder.lstm.".
    Raises InputError naming what is missing or surplus, ShapeError naming what is misshapen, and
    InputError for a cell that PyTorch does not have.  Nothing is changed then.
    """
    if hasattr(arrays, "state_dict"):
        _checked_module(layer, arrays)
        arrays = {n: a.detach().cpu().numpy() for n, a in arrays.state_dict().items()}
    _import(layer, "pytorch", arrays, prefix)


def to_keras(layer: Layer, path=None) -> dict[str, np.ndarray]:
    """The weights of Keras's SimpleRNN, LSTM or GRU; their order is that of `set_weights`."""
    return _written(_export(layer, "keras"), path)


def from_keras(layer: Layer, arrays) -> None:
    """Set all weights from a dictionary, a safetensors file, or the list that `get_weights` gives.

    Raises what `from_pytorch` raises.
    """
    if isinstance(arrays, (list, tuple)):
        names = list(_export(layer, "keras"))
        if len(arrays) != len(names):
            raise InputError(
                f"from_keras: {len(arrays)} arrays, {type(layer).__name__} has {', '.join(names)}"
            )
        arrays = dict(zip(names, arrays, strict=True))
    _import(layer, "keras", arrays)


def to_onnx(layer: Layer, path=None) -> dict[str, np.ndarray]:
    """The inputs W, R, B (and P) of the ONNX operators RNN, LSTM and GRU.

    `GRU` and `BiasedGRU` need ``linear_before_reset=0`` there, `ResetAfterGRU` 1.
    """
    return _written(_export(layer, "onnx"), path)


def from_onnx(layer: Layer, arrays) -> None:
    """Set all weights from W, R, B (and P), or from a safetensors file.

    Raises what `from_pytorch` raises.
    """
    _import(layer, "onnx", arrays)


def weights_of_onnx(cell, arrays) -> dict[str, Any]:
    """A cell's own parameters made of one direction's W, R, B (and P), arrays or tensors, which are not copied."""
    return _into_cell(cell, "onnx", arrays)


# One gate.


@dataclass
class Block:
    """A gate: weights of the input (D, H) and of the state (H, H), and their biases (H,)."""

    W: np.ndarray
    U: np.ndarray
    b_W: np.ndarray
    b_U: np.ndarray


def _places(cell, gate: str) -> tuple[str, str, str, str]:
    """What our parameters of a gate are called: weights of input and state, their biases."""
    if isinstance(cell, ResetAfterGRU) and gate == "h":
        return "W", "U", "b_W", "b_U"
    matrix = "W" if isinstance(cell, GRU) and gate == "h" else f"W_{gate}"
    return matrix, matrix, f"b_{gate}", ""


def _signed(sign: int, a):
    """`a` or −a: an array, or a tensor whose graph is not burdened with a product by 1."""
    return a if sign == 1 else -a


def _take(cell, gate: str, sign: int) -> Block:
    """A gate's block out of a cell."""
    own = {name: p.value for name, p in cell.parameters().items()}
    W, U, b_W, b_U = _places(cell, gate)
    zero = np.zeros(cell.hidden, cell.dtype)
    rows = (own[W], own[U]) if W != U else (own[W][cell.width :], own[W][: cell.width])
    biases = own.get(b_W, zero), own.get(b_U, zero)
    return Block(*(_signed(sign, a) for a in (*rows, *biases)))


def _put(cell, gate: str, sign: int, block: Block) -> dict[str, np.ndarray]:
    """A gate's block as our parameters, by name."""
    W, U, b_W, b_U = _places(cell, gate)
    ours = {W: block.W, U: block.U} if W != U else {W: np.concatenate([block.U, block.W])}
    biases = {b_W: block.b_W, b_U: block.b_U} if b_U else {b_W: block.b_W + block.b_U}
    ours |= {name: a for name, a in biases.items() if name in cell.parameters()}
    return {name: _signed(sign, a) for name, a in ours.items()}


# One cell, as each library lays it out.  Every layout is a pair: blocks → arrays, arrays → blocks.


def _pytorch(blocks: list[Block], family: Family) -> dict[str, np.ndarray]:
    return {
        "weight_ih": np.concatenate([b.W.T for b in blocks]),
        "weight_hh": np.concatenate([b.U.T for b in blocks]),
        "bias_ih": np.concatenate([b.b_W for b in blocks]),
        "bias_hh": np.concatenate([b.b_U for b in blocks]),
    }


def _of_pytorch(a: Mapping[str, np.ndarray], family: Family, count: int) -> list[Block]:
    parts = [np.split(a[n], count) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    return [Block(W.T, U.T, b, c) for W, U, b, c in zip(*parts, strict=True)]


def _keras(blocks: list[Block], family: Family) -> dict[str, np.ndarray]:
    arrays = {
        "kernel": np.concatenate([b.W for b in blocks], axis=1),
        "recurrent_kernel": np.concatenate([b.U for b in blocks], axis=1),
    }
    if family.biases:
        two = [np.concatenate([b.b_W for b in blocks]), np.concatenate([b.b_U for b in blocks])]
        arrays["bias"] = np.stack(two) if family.kind is ResetAfterGRU else two[0] + two[1]
    return arrays


def _of_keras(a: Mapping[str, np.ndarray], family: Family, count: int) -> list[Block]:
    W, U = (np.split(a[n], count, axis=1) for n in ("kernel", "recurrent_kernel"))
    H = U[0].shape[0]
    bias = a["bias"] if family.biases else np.zeros(count * H, W[0].dtype)
    b, c = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    return [Block(*each) for each in zip(W, U, np.split(b, count), np.split(c, count), strict=True)]


def _onnx(blocks: list[Block], family: Family) -> dict[str, np.ndarray]:
    arrays = {"W": np.concatenate([b.W.T for b in blocks]), "R": np.concatenate([b.U.T for b in blocks])}
    if family.biases:
        arrays["B"] = np.concatenate([*(b.b_W for b in blocks), *(b.b_U for b in blocks)])
    return arrays


def _of_onnx(a: Mapping[str, np.ndarray], family: Family, count: int) -> list[Block]:
    W, U = np.split(a["W"], count), np.split(a["R"], count)
    biases = np.split(a["B"], 2 * count) if family.biases else [np.zeros(len(u), u.dtype) for u in U] * 2
    return [Block(w.T, u.T, *b) for w, u, *b in zip(W, U, biases[:count], biases[count:], strict=True)]


LAYOUTS: dict[str, Any] = {
    "pytorch": (_pytorch, _of_pytorch),
    "keras": (_keras, _of_keras),
    "onnx": (_onnx, _of_onnx),
}
CALLED = {"pytorch": "PyTorch", "keras": "Keras", "onnx": "ONNX"}


def _family(cell, library: str) -> tuple[Family, str]:
    """The family of a cell and the order of its gates; InputError where the library has no such cell."""
    step = getattr(type(cell), "step", None)
    for family in FAMILIES:
        # A subclass with a step of its own, such as one with zoneout, computes something else.
        if isinstance(cell, family.kind) and step is family.kind.step and getattr(family, library):
            return family, getattr(family, library)
    kinds = [f.kind for f in FAMILIES if getattr(f, library)]
    have = ", ".join(k.__name__ for k in [*kinds, *(PLAIN if library == "pytorch" else ())])
    base = next((k.__name__ for k in kinds if isinstance(cell, k)), None)
    remedy = f"; it computes something else than {base}, which can be given its state_dict" if base else ""
    raise InputError(
        f"{CALLED[library]} has no {type(cell).__name__}; weights can be exchanged for {have}{remedy}"
    )


def _from_cell(cell, library: str) -> dict[str, np.ndarray]:
    if library == "pytorch" and type(cell) in PLAIN:
        return PLAIN[type(cell)](cell.state_dict())
    family, order = _family(cell, library)
    blocks = [_take(cell, g, -1 if g in family.opposite else 1) for g in order]
    arrays = LAYOUTS[library][0](blocks, family)
    if family.peepholes:
        arrays["P"] = np.concatenate([getattr(cell, f"p_{g}").value for g in family.peepholes])
    if isinstance(cell, ProjectedLSTM):
        arrays["weight_hr"] = cell.W_p.value.T
    return arrays


def _into_cell(cell, library: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if library == "pytorch" and type(cell) in PLAIN:
        return _of_plain(cell, arrays)
    family, order = _family(cell, library)
    ours = {}
    for gate, block in zip(order, LAYOUTS[library][1](arrays, family, len(order)), strict=True):
        ours |= _put(cell, gate, -1 if gate in family.opposite else 1, block)
    if family.peepholes:
        parts = np.split(arrays["P"], len(family.peepholes))
        ours |= {f"p_{g}": p for g, p in zip(family.peepholes, parts, strict=True)}
    if isinstance(cell, ProjectedLSTM):
        ours["W_p"] = arrays["weight_hr"].T
    return ours


# PyTorch's layers without recurrence: from our arrays by name to theirs.


def _linear(W: str, b: str, name: str = "") -> Callable:
    return lambda a: {f"{name}weight": a[W].T, f"{name}bias": a[b]}


def _attention(a: Mapping[str, np.ndarray], inside: str = "", name: str = "") -> dict[str, np.ndarray]:
    return {
        f"{name}in_proj_weight": np.concatenate([a[f"{inside}W_{g}"].T for g in "qkv"]),
        f"{name}in_proj_bias": np.concatenate([a[f"{inside}b_{g}"] for g in "qkv"]),
        **_linear(f"{inside}W_o", f"{inside}b_o", f"{name}out_proj.")(a),
    }


def _encoder_layer(a: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        **_attention(a, "attention.", "self_attn."),
        **_linear("W_1", "b_1", "linear1.")(a),
        **_linear("W_2", "b_2", "linear2.")(a),
        **{
            f"norm{k}.{w}": a[f"{p}_{n}"]
            for k, n in ((1, "a"), (2, "f"))
            for w, p in (("weight", "g"), ("bias", "b"))
        },
    }


PLAIN: dict[type, Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]] = {
    Dense: _linear("W", "b"),
    Output: _linear("W_y", "b_y"),
    Embedding: lambda a: {"weight": a["W"]},
    MultiHeadAttention: _attention,
    TransformerBlock: _encoder_layer,
}


def _of_plain(layer: Layer, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Back: where each number of ours has gone, read from where numbers that count them go."""
    own, start, counted = layer.state_dict(), 0, {}
    for name, a in own.items():
        counted[name] = np.arange(start, start + a.size).reshape(a.shape)
        start += a.size
    all_of_them = np.empty(start, np.result_type(*arrays.values()))
    for name, places in PLAIN[type(layer)](counted).items():
        all_of_them[places] = arrays[name]
    return {name: all_of_them[places] for name, places in counted.items()}


def _checked_module(layer: Layer, module: Any) -> None:
    """Raise InputError for a module of PyTorch that computes something else with the same weights."""
    cell, wrong = _cells_of(layer)[0][0], []

    def differs(name: str, ours, remedy: str = "") -> None:
        theirs = getattr(module, name, ours)
        if theirs != ours:
            wrong.append(f"{name} = {theirs!r}, ours {ours!r}{remedy}")

    if isinstance(cell, RNN):
        ours, other = ("relu", "RNN") if isinstance(cell, IRNN) else ("tanh", "IRNN")
        differs("nonlinearity", ours, f"; load it into cells.{other}")
    if isinstance(layer, (MultiHeadAttention, TransformerBlock)):
        attention = layer if isinstance(layer, MultiHeadAttention) else layer.attention
        theirs = getattr(module, "self_attn", module)
        if theirs.num_heads != attention.heads:
            wrong.append(f"num_heads = {theirs.num_heads}, ours {attention.heads}")
        if getattr(theirs, "add_zero_attn", False):
            wrong.append("add_zero_attn = True, ours adds none")
    if isinstance(layer, TransformerBlock):
        differs("norm_first", True, "; ours normalises before the attention")
        called = getattr(module.activation, "__name__", type(module.activation).__name__).lower()
        if called != "relu":
            wrong.append(f"activation = {called}, ours relu")
        wrong += [
            f"norm{k}.eps = {e}, ours 1e-05" for k in (1, 2) if (e := getattr(module, f"norm{k}").eps) != 1e-5
        ]
    if wrong:
        raise InputError(
            f"from_pytorch: {type(module).__name__} is no {type(layer).__name__}: {', '.join(wrong)}"
        )


# Layers and directions: where each cell's arrays stand among all.


def _cells_of(layer) -> list[list]:
    """By layer, by direction."""
    parts = getattr(layer, "cells", None)
    if parts is None:
        return [[layer]]
    if hasattr(layer, "forward"):
        return [list(parts)]
    return [row for part in parts for row in _cells_of(part)]


def _called(layer, library: str, name: str, k: int, direction: int) -> tuple[str, int | None]:
    """Name of a cell's array among all, and its place on a leading axis of directions, if there is one."""
    rows = _cells_of(layer)
    if library == "pytorch" and type(layer) in PLAIN:
        return name, None
    before = f"{k + 1}." if len(rows) > 1 else ""
    if library == "pytorch":
        return f"{name}_l{k}{'_reverse' if direction else ''}", None
    if library == "onnx":
        return before + name, direction
    way = ("forward.", "backward.")[direction] if len(rows[0]) > 1 else ""
    return before + way + name, None


def _export(layer, library: str) -> dict[str, np.ndarray]:
    arrays: dict[str, Any] = {}
    for k, row in enumerate(_cells_of(layer)):
        for direction, cell in enumerate(row):
            for name, a in _from_cell(cell, library).items():
                key, place = _called(layer, library, name, k, direction)
                if place is None:
                    arrays[key] = a
                else:
                    arrays.setdefault(key, []).append(a)
    return {key: np.ascontiguousarray(np.stack(a) if isinstance(a, list) else a) for key, a in arrays.items()}


def _import(layer, library: str, arrays, prefix: str = "") -> None:
    if isinstance(arrays, (str, os.PathLike)):
        arrays = checkpoint.load(arrays)
    who = f"{CALLED[library]}'s weights for {type(layer).__name__}"
    if not isinstance(arrays, Mapping):
        raise InputError(f"{who}: give a dictionary of arrays or a file, not {type(arrays).__name__}")
    expected = _export(layer, library)
    given = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    missing = [prefix + n for n in expected if n not in given]
    surplus = [prefix + n for n in given if n not in expected]
    biases = [
        n for n in expected if n.rpartition(".")[2].startswith("bias") or n.endswith("_bias") or n[-1] == "B"
    ]
    if missing and not surplus and sorted(missing) == sorted(prefix + n for n in biases):  # made without
        given, missing = {**{n: np.zeros_like(expected[n]) for n in biases}, **given}, []
    if missing or surplus:
        raise InputError(
            f"{who}: missing {', '.join(missing) or 'none'}; surplus {', '.join(surplus) or 'none'}; "
            f"expected {', '.join(prefix + n for n in expected)}"
        )
    wrong = [
        f"{prefix}{n} {np.shape(given[n])}, not {a.shape}"
        for n, a in expected.items()
        if np.shape(given[n]) != a.shape
    ]
    if wrong:
        raise ShapeError(f"{who}: {'; '.join(wrong)}")
    numbers = {n: np.asarray(a) for n, a in given.items()}
    odd = [f"{prefix}{n} ({a.dtype})" for n, a in numbers.items() if a.dtype.kind not in "fiu"]
    if odd:
        raise InputError(f"{who}: {', '.join(odd)} hold no numbers")
    found = []
    for k, row in enumerate(_cells_of(layer)):
        for direction, cell in enumerate(row):
            own = {}
            for name in _from_cell(cell, library):
                key, place = _called(layer, library, name, k, direction)
                own[name] = numbers[key] if place is None else numbers[key][place]
            found.append((cell, _into_cell(cell, library, own)))
    for cell, values in found:  # only now: an error above leaves every weight as it was
        cell.load_state_dict({name: np.asarray(a, cell.dtype) for name, a in values.items()})


def _written(arrays: dict[str, np.ndarray], path) -> dict[str, np.ndarray]:
    if path is not None:
        checkpoint.save(path, arrays)  # type: ignore[arg-type]
    return arrays
