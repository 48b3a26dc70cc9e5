"""What every layer shares: named parameters, kept in the order in which they were made.

And the simplest of layers, `Dense`, which is also the `Output` of the lecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from keyword import iskeyword

import numpy as np

from minigrad import DTypeError, InputError, ShapeError, Tensor, describe, init
from minigrad.names import printable


class Layer:
    """Holds parameters as attributes: ``self.W_f`` is a tensor named "W_f".

    An attribute that is a layer, or a list, tuple or dictionary of them, brings its parameters along:
    ``self.rnn = LSTM(…)`` those that are called "rnn.W_f", …, ``self.blocks = [Dense(…), Dense(…)]``
    "blocks.1.W", …; so does a tensor that requires a gradient.  What is assigned anew or deleted is
    replaced or gone.

    ``copy.copy(layer)`` is another layer with the same parameters, ``copy.deepcopy(layer)`` one with its own;
    what is shared inside (tied weights) is shared inside the copy, and in what a pickle gives.
    """

    numbered = ""  # the attribute whose layers are called by their numbers alone: "1.W_f"
    _names: tuple[str, ...] = ()  # attributes that are parameters, also when they do not learn for a while

    def __init__(self, dtype="float32"):
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

    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name, in the order in which they were made, those of layers within included.

        Each tensor comes once, by its first name, however many share it.
        """
        found: dict[str, Tensor] = {}
        for name, p in _within(self, {id(self): self}):
            if name in found:
                raise InputError(
                    f"{type(self).__name__}: two parameters are called {name!r}; give the layers other names"
                )
            found[name] = p
        return found

    def __setattr__(self, name: str, value) -> None:
        if _learns(value):
            self._check_name(name)
            if isinstance(value, Tensor) and name not in self._names:
                object.__setattr__(self, "_names", (*self._names, name))
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        object.__setattr__(self, "_names", tuple(n for n in self._names if n != name))

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
        """How many numbers are learned."""
        return sum(p.size for p in self.parameters().values())

    def load(self, values: dict) -> None:
        """Set all parameters from arrays by name.

        Nothing is changed when one is missing, surplus (InputError) or misshapen (ShapeError).
        """
        own = self.parameters()
        if set(values) != set(own):
            missing, surplus = sorted(set(own) - set(values)), sorted(set(values) - set(own))
            raise InputError(
                f"{type(self).__name__}.load: missing {missing or 'none'}, surplus {surplus or 'none'}"
            )
        for name, p in own.items():
            if np.shape(values[name]) != p.shape:
                raise ShapeError(
                    f"{type(self).__name__}.load: {name} has shape {np.shape(values[name])}, not {p.shape}"
                )
        try:
            ready = {name: np.asarray(values[name], dtype=p.dtype) for name, p in own.items()}
        except (ValueError, TypeError):
            bad = next(name for name in own if np.asarray(values[name]).dtype.kind not in "fiub")
            raise InputError(f"{type(self).__name__}.load: {bad} holds no numbers") from None
        for name, p in own.items():
            p.value = ready[name]

    def __repr__(self) -> str:
        own = {printable(name): p for name, p in self.parameters().items()}
        width = max(map(len, own), default=0)
        rows = "".join(f"\n  {name:<{max(width, 8)}} {p.shape}" for name, p in own.items())
        return f"{printable(type(self).__name__)}, {self.size:,} parameters, {self.dtype}{rows}"


class Dense(Layer):
    """A layer of units that see all inputs of the same place: for data without a sequence, or each step by itself.

    Shapes: x (…, D) → (…, K).  ``K * (D + 1)`` parameters: W starts after Glorot and Bengio (2010), b at 0.
    activation : a function of tensors on top, e.g. ``minigrad.relu``.
    Raises ShapeError, when called, for an x of another width.
    """

    names = "W b"  # of the weights and the bias

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rng: np.random.Generator,
        activation: Callable | None = None,
        dtype="float32",
    ):
        super().__init__(dtype)
        positive(type(self).__name__, inputs=inputs, outputs=outputs)
        if activation is not None and not callable(activation):
            raise InputError(
                f"{type(self).__name__}: activation = {activation!r}; give a function, e.g. minigrad.relu"
            )
        self.inputs, self.outputs, self.activation = int(inputs), int(outputs), activation
        W, b = self.names.split()
        self.parameter(W, init.glorot(rng, (inputs, outputs)))
        self.parameter(b, np.zeros(outputs))

    def __call__(self, x) -> Tensor:
        x = fitting(self, x)
        W, b = self.parameters().values()
        y = x @ W + b
        return y if self.activation is None else self.activation(y)


class Output(Dense):
    """The output layer of the lecture: logits, which softmax or cross-entropy make probabilities.

    Shapes: h (…, H) → (…, K).
    """

    names = "W_y b_y"
    W_y: Tensor
    b_y: Tensor

    def __init__(self, hidden: int, classes: int, rng: np.random.Generator, dtype="float32"):
        positive(type(self).__name__, hidden=hidden, classes=classes)
        super().__init__(hidden, classes, rng, dtype=dtype)


def _learns(value, within: tuple = ()) -> bool:
    """Is this something that `parameters` looks into?  It may stand in itself, `within` is what it stands in."""
    if isinstance(value, Tensor):
        return value.requires_grad and value.is_leaf
    if isinstance(value, (list, tuple, dict)):
        parts = value.values() if isinstance(value, dict) else value
        return not any(value is w for w in within) and any(_learns(p, (*within, value)) for p in parts)
    return isinstance(value, Layer)


def _within(layer: Layer, seen: dict[int, object]) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a layer by name, in the order of its attributes, without what was `seen` before."""
    for attribute, value in vars(layer).items():
        if attribute in layer._names or not isinstance(value, Tensor):
            yield from _named("" if attribute == layer.numbered else attribute, value, seen)


def _named(name: str, value, seen: dict[int, object]) -> Iterator[tuple[str, Tensor]]:
    """The parameters in an attribute, whatever it is."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value, 1):
            if _learns(part):
                yield from _named(f"{name}.{key}" if name else str(key), part, seen)
    elif isinstance(value, Layer) and type(value).parameters is Layer.parameters:
        yield from ((f"{name}.{inner}", p) for inner, p in _within(value, seen))
    elif isinstance(value, Layer):  # one that has a way of its own
        for inner, p in value.parameters().items():
            yield from _named(f"{name}.{inner}", p, seen)


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
