"""What every layer shares: named parameters, kept in the order in which they were made."""

from __future__ import annotations

import numpy as np

from minigrad import InputError, ShapeError, Tensor


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
        rows = "".join(f"\n  {name:<8} {p.shape}" for name, p in self.parameters().items())
        return f"{type(self).__name__}, {self.size:,} parameters, {self.dtype}{rows}"


class Output(Layer):
    """The output layer of the lecture: logits, which softmax or cross-entropy make probabilities.

    Shapes: h (…, H) → (…, K).
    """

    def __init__(self, hidden: int, classes: int, rng: np.random.Generator, dtype="float32"):
        from minigrad.init import glorot

        super().__init__(dtype)
        positive(type(self).__name__, hidden=hidden, classes=classes)
        self.W_y: Tensor = self.parameter("W_y", glorot(rng, (hidden, classes)))
        self.b_y: Tensor = self.parameter("b_y", np.zeros(classes))

    def __call__(self, h: Tensor) -> Tensor:
        return h @ self.W_y + self.b_y


def positive(who: str, **sizes) -> None:
    """Raise InputError unless every size is a whole number above 0."""
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
            raise InputError(f"{who}: {name} = {size!r}; give a whole number of at least 1")
