"""What every layer shares: named parameters and constants, kept in the order in which they were made.

They are frozen, saved and loaded by their names (`state.py`), and printed as a tree (`summary.py`).  And the
simplest of layers, `Dense`, which is also the `Output` of the lecture.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from keyword import iskeyword
from typing import Any

import numpy as np

from minigrad import DTypeError, InputError, ShapeError, Tensor, checkpoint, describe, hints, init
from minigrad.modes import modes
from minigrad.names import printable
from minigrad.roles import CONSTANT, PARAMETER, Role

from .state import Loaded, set_by_name
from .summary import tree
from .within import Holder, holds, leaves_in, leaves_within, shared_within


class Layer(Holder):
    """Holds parameters as attributes: ``self.W_f`` is a tensor named "W_f".

    An attribute that is a layer, or a list, tuple or dictionary of them, brings its parameters along:
    ``self.rnn = LSTM(…)`` those that are called "rnn.W_f", …, ``self.blocks = [Dense(…), Dense(…)]``
    "blocks.1.W", …; so does a tensor that requires a gradient.  What is assigned anew or deleted is
    replaced or gone, also for programs compiled before (but they do not notice what is changed inside a list).
    Weights are tied by assignment, ``self.out.W = self.embedding.W``: one tensor, which counts, learns and is
    saved once, by its first name.

    ``copy.copy(layer)`` is another layer with the same parameters, ``copy.deepcopy(layer)`` one with its own;
    what is shared inside (tied weights) is shared inside the copy, and in what a pickle gives.
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        cls._own_way = cls.parameters is not Layer.parameters
        if callable(vars(cls).get("forward")) and not any("__call__" in vars(kind) for kind in cls.__mro__):
            raise InputError(f"{cls.__name__}: nothing calls forward here; write __call__(self, xs) instead")

    def __new__(cls, *given, **options):
        hints.refuse_made(cls, options, {**hints.LAYER_PARAMETERS, **hints.MAKING_PARAMETERS})
        hints.refuse_without_rng(cls, len(given), options)
        return super().__new__(cls)

    def __init__(self, dtype="float32"):
        """dtype : of the parameters; raises InputError for one that is not a float type."""
        self.dtype = np.dtype(dtype)
        if self.dtype.kind != "f":
            raise InputError(f"{type(self).__name__}: dtype {self.dtype}; parameters need a float type")

    def parameter(self, name: str, data) -> Tensor:
        """Make a parameter and set it as an attribute.

        Raises InputError for what is not an identifier and for a name that is taken: by a method, a property or a size.
        """
        self._check_name(name)
        tensor = Tensor(data, requires_grad=True, name=name, dtype=self.dtype)
        setattr(self, name, tensor)
        return tensor

    def constant(self, name: str, data) -> Tensor:
        """Make an array that is neither learned nor an input, such as a fixed matrix, and set it as an attribute.

        It gets no gradient and is not among the `parameters`; it is saved and loaded with them (`state_dict`), and
        pictures and equations call it by its name.  Floats get the layer's dtype, whole numbers and booleans keep
        theirs.  Given again, or assigned (``layer.A = array``), it has the new value, for compiled programs too.

        Raises what `parameter` raises, and InputError for what is not a numeric array.
        """
        self._check_name(name)
        tensor = Tensor(data, name=name)
        if tensor.dtype.kind == "f" and tensor.dtype != self.dtype:
            tensor = Tensor(data, name=name, dtype=self.dtype)
        old: Any = vars(self).get(name)
        if name in self._constants and (old.shape, old.dtype) == (tensor.shape, tensor.dtype):
            old.value = tensor.value
            return old
        tensor.role = Role(CONSTANT)
        setattr(self, name, tensor)
        return tensor

    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name, in the order in which they were made, those of layers within included.

        Each tensor comes once, by its first name, however many share it; frozen ones are there too.
        """
        return self._held(PARAMETER)

    def constants(self) -> dict[str, Tensor]:
        """The constants by name, likewise."""
        return self._held(CONSTANT)

    def _held(self, kind: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, tensor, own in leaves_within(self):
            if own != kind:
                continue
            if name in found:
                raise InputError(
                    f"{type(self).__name__}: two {kind}s are called {name!r}; give the layers other names"
                )
            found[name] = tensor
        return found

    # Freezing.

    def freeze(self, *patterns: str) -> None:
        """Keep parameters as they are: they get no gradient, and optimisers skip them, until `unfreeze`.

        patterns : names, of parameters ("rnn.W_f") or layers ("rnn"), also with wildcards ("*.b_?"); without any,
            all.  Raises InputError for one that fits no parameter; nothing is frozen then.
        """
        self._learn(False, patterns)

    def unfreeze(self, *patterns: str) -> None:
        """Let frozen parameters learn again; `patterns` as in `freeze`."""
        self._learn(True, patterns)

    def _learn(self, learn: bool, patterns: tuple) -> None:
        own, chosen = self.parameters(), []
        names = {**{name: [name] for name in own}, **self._other_names(own)}
        for pattern in patterns or ("*",):
            fits = [found for name, found in names.items() if _fits(name, pattern)]
            if not fits and (patterns or own):
                raise InputError(
                    f"{type(self).__name__}: no parameter is called {printable(pattern)!r}; there are "
                    f"{', '.join(map(printable, list(own)[:50])) or 'none'}"
                )
            chosen += [own[name] for found in fits for name in found]
        for p in chosen:
            if p.role is None:
                p.role = Role(PARAMETER)  # else one in a list would be no parameter any more
            p.requires_grad = learn
            p.grad = None

    def _other_names(self, own: Mapping[str, Tensor]) -> dict[str, list[str]]:
        """Further names of what is shared: of a tensor, and of a layer, and by which names `own` has it."""
        return {
            other: [n for n in own if n == first or n.startswith(f"{first}." if first else "")]
            for other, first in shared_within(self).items()
        }

    # On disk and back.

    def state_dict(self) -> dict[str, np.ndarray]:
        """All parameters, then all constants, as read-only arrays by name; what is shared once, by its first name."""
        return {name: t.value for name, t in self._state().items()}

    def load_state_dict(self, values: Mapping, strict: bool = True) -> Loaded:
        """Set parameters and constants from arrays, or tensors, by name.

        What is shared may come by any of its names.  Returns which names were missing, surplus, or did not fit
        (of another shape or dtype).  Where `strict`, all of these are errors, and then nothing is changed: raises
        InputError, or ShapeError or DTypeError where just shapes or dtypes are wrong, with all that is wrong.
        Else what fits is loaded.
        """
        who = f"{type(self).__name__}.load_state_dict"
        return set_by_name(who, self._state(), shared_within(self), values, strict)

    def save(self, path, notes: Mapping[str, str] | None = None) -> None:
        """Write the `state_dict`, and notes, as a safetensors file: raises what `checkpoint.save` raises."""
        checkpoint.save(path, self._state(), notes)

    def load(self, path, strict: bool = True, prefix: str = "") -> Loaded:
        """Set parameters and constants from a safetensors file, as `load_state_dict` does from arrays.

        prefix : take the arrays whose names begin with it, e.g. "parameters/" of what `mg.fit` wrote for `resume`.

        Raises what `load_state_dict` and `checkpoint.load` raise; nothing is changed then.
        """
        who = type(self).__name__
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(
                f"{who}.load: give the name of a file, not {type(path).__name__}; arrays go to load_state_dict"
            )
        arrays = checkpoint.load(path, prefix)
        if not prefix and any(n.startswith("parameters/") for n in arrays):
            raise InputError(
                f"{who}.load: {str(path)!r:.200} holds a training; give prefix='parameters/' for its weights"
            )
        return set_by_name(
            f"{who} from {str(path)!r:.200}", self._state(), shared_within(self), arrays, strict
        )

    def _state(self) -> dict[str, Tensor]:
        own, constants = self.parameters(), self.constants()
        twice = [name for name in constants if name in own]
        if twice:
            raise InputError(f"{type(self).__name__}: a parameter and a constant are called {twice[0]!r}")
        return {**own, **constants}

    # Attributes.

    def __setattr__(self, name: str, value) -> None:
        old = vars(self).get(name)
        if name in self._constants and not (value is None or isinstance(value, Tensor) or holds(value)):
            self.constant(name, value)
            return
        if name in self._names and isinstance(value, (np.ndarray, np.generic, int, float)):
            raise InputError(
                f"{type(self).__name__}: {name!r} is a parameter; assign its numbers, layer.{name}.value = array, or "
                f"make it anew, layer.parameter({name!r}, array)"
            )
        if name in self._constants and isinstance(value, Tensor) and _is_plain(value):
            value.role = Role(CONSTANT)
        if holds(value):
            self._check_name(name)
            if isinstance(value, Tensor):
                self._enter(name, value)
        object.__setattr__(self, name, value)
        if old is not value:
            _let_go(old)

    def _enter(self, name: str, leaf: Tensor) -> None:
        """Note that a leaf is a parameter, or a constant, of this name."""
        if leaf.role is None:
            leaf.role = Role(PARAMETER)
        if leaf.name is None:
            leaf.name = name
        kinds = {PARAMETER: "_names", CONSTANT: "_constants"}
        for kind, attribute in kinds.items():
            names = tuple(n for n in getattr(self, attribute) if n != name)
            was_there = len(names) < len(getattr(self, attribute))
            if kind == leaf.role.kind:
                if not was_there:
                    object.__setattr__(self, attribute, (*names, name))
            elif was_there:
                object.__setattr__(self, attribute, names)

    def __dir__(self) -> list[str]:
        return hints.attributes_of(self)

    def __delattr__(self, name: str) -> None:
        old = vars(self).get(name)
        object.__delattr__(self, name)
        for attribute in ("_names", "_constants"):
            object.__setattr__(self, attribute, tuple(n for n in getattr(self, attribute) if n != name))
        _let_go(old)

    def _check_name(self, name: str) -> None:
        """Raise InputError unless an attribute of this name can be a parameter or a layer."""
        who = type(self).__name__
        if "dtype" not in vars(self):
            raise InputError(f"{who}: {name!r} is set before super().__init__(…); call that first")
        if not isinstance(name, str) or not name.isidentifier() or iskeyword(name):
            raise InputError(f"{who}: {name!r} is not a name for a parameter; give an identifier, e.g. 'W_f'")
        there = getattr(type(self), name, None)
        if isinstance(there, property) and there.fset is not None:
            return
        if callable(there) or hasattr(there, "__get__") or isinstance(there, (str, int, float, tuple)):
            raise InputError(
                f"{who}: {name!r} would hide {who}.{name}, which the class needs; give another name"
            )
        if isinstance(vars(self).get(name), (int, float, np.integer, np.dtype)):
            raise InputError(
                f"{who}: {name!r} would hide a size of the layer, {name} = {vars(self)[name]}; give another name"
            )

    @property
    def size(self) -> int:
        """How many numbers the parameters hold."""
        return sum(p.size for p in self.parameters().values())

    def __repr__(self) -> str:
        return tree(self)

    def described(self) -> str:
        """What the tree of `print` calls the layer."""
        return type(self).__name__


hints.say_what_is_elsewhere(Layer, hints.LAYER)
hints.hint_methods(Layer, ["load", "load_state_dict"])


class Dense(Layer):
    """A layer of units that see all inputs of the same place: for data without a sequence, or each step by itself.

    Shapes: x (…, D) → (…, width).  ``width * (D + 1)`` parameters: W starts after Glorot and Bengio (2010), b at 0.
    activation : a function of tensors on top, e.g. ``minigrad.relu``.
    Raises InputError for sizes below 1, and when called, ShapeError or DTypeError for an x that is not D wide or of
    another float type.
    """

    names = "W b"  # of the weights and the bias

    def __init__(
        self,
        inputs: int,
        width: int,
        rng: np.random.Generator,
        activation: Callable | None = None,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(type(self).__name__, inputs=inputs, width=width)
        if activation is not None and not callable(activation):
            raise InputError(
                f"{type(self).__name__}: activation = {activation!r}; give a function, e.g. minigrad.relu"
            )
        self.inputs, self.width, self.activation = int(inputs), int(width), activation
        W, b = self.names.split()
        self.parameter(W, init.glorot(rng, (inputs, width)))
        self.parameter(b, np.zeros(width))

    def __call__(self, x) -> Tensor:
        x = fitting(self, x)
        W, b = self.parameters().values()
        y = x @ W + b
        return y if self.activation is None else self.activation(y)


class Output(Dense):
    """The output layer of the lecture: logits, which softmax or cross-entropy make probabilities.

    Shapes: h (…, H) → (…, K).  Raises what `Dense` raises.
    """

    names = "W_y b_y"
    W_y: Tensor
    b_y: Tensor

    def __init__(self, hidden: int, classes: int, rng: np.random.Generator, dtype="float32"):
        positive(type(self).__name__, hidden=hidden, classes=classes)
        super().__init__(hidden, classes, rng, dtype=dtype)


def copy_with(layer: Any, **attributes) -> Any:
    """A shallow copy with other attributes, while `layer` holds what it held, and programs read that as before."""
    other = copy.copy(layer)
    vars(other).update(attributes)
    return other


def _is_plain(leaf: Tensor) -> bool:
    return leaf.is_leaf and leaf.role is None and not leaf.requires_grad


def _let_go(old) -> None:
    """An attribute has got another value: programs that read the leaves of the old one look anew which they read.

    Not while a function is traced, of which the program only then knows what it reads.
    """
    if not isinstance(old, (Tensor, Layer, list, tuple, dict)) or modes()[3]:
        return
    for _, leaf, kind in leaves_in(old):
        leaf.role = Role(kind if leaf.role is None else leaf.role.kind)


def _fits(name: str, pattern: str) -> bool:
    """Does a pattern fit the name of a parameter, or of a layer that it stands in?"""
    parts = name.split(".")
    return fnmatchcase(name, pattern) or any(".".join(parts[:k]) == pattern for k in range(1, len(parts)))


def fitting(layer, x, axes: str = "") -> Tensor:
    """`x` as a tensor (axes …, layer.inputs): raises ShapeError or DTypeError when the layer was made for another.

    axes : names of the axes before the last, which are then demanded, e.g. "steps, sequences".
    """
    x, who = x if isinstance(x, Tensor) else Tensor(x, name="x"), type(layer).__name__
    wrong = len(x.shape) != len(axes.split()) + 1 if axes else not x.shape
    if wrong or x.shape[-1] != layer.inputs:
        raise ShapeError(f"{who}: {describe(x)}; the layer was made for ({axes or '…'}, {layer.inputs})")
    if x.dtype.kind == "f" and x.dtype != layer.dtype:
        raise DTypeError(f"{who}: x is {x.dtype}, the layer {layer.dtype}; convert one with .astype(…)")
    return x


def positive(who: str, **sizes) -> None:
    """Raise InputError unless every size is a whole number above 0."""
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
            raise InputError(f"{who}: {name} = {size!r}; give a whole number of at least 1")
