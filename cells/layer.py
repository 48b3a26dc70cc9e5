"""What every layer shares: named parameters, kept in the order in which they were made.

And the simplest of layers, `Dense`, which is also the `Output` of the lecture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minigrad import DTypeError, InputError, ShapeError, Tensor, describe, init
from minigrad.names import printable


class Layer:
    """Holds parameters as attributes: ``self.W_f`` is a tensor named "W_f"."""

    def __init__(self, dtype="float32"):
        self.dtype = np.dtype(dtype)
        if self.dtype.kind != "f":
            raise InputError(f"{type(self).__name__}: dtype {self.dtype}; parameters need a float type")
        self._names: list[str] = []

    def parameter(self, name: str, data) -> Tensor:
        """Make a parameter and set it as an attribute."""
        tensor = Tensor(data, requires_grad=True, name=name, dtype=self.dtype)
        self._names.append(name)
        setattr(self, name, tensor)
        return tensor

    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name, in the order in which they were made."""
        return {name: getattr(self, name) for name in self._names}

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
        rows = "".join(f"\n  {printable(name):<8} {p.shape}" for name, p in self.parameters().items())
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
