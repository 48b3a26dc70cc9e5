"""Optimisers and gradient clipping: they read `grad` and assign `value` anew.

Every slot has its parameter's dtype.  Assigning marks the parameter as changed,
so that a backward pass through a graph from before the step is an error.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .errors import GraphError, InputError, NonFiniteError, ShapeError
from .tensor import Tensor, describe, next_number


def _parameters(parameters) -> list[Tensor]:
    found = list(parameters.values() if isinstance(parameters, dict) else parameters)
    if not found:
        raise InputError("optimiser: no parameters given")
    for p in found:
        if not isinstance(p, Tensor) or p.op is not None or not p.requires_grad:
            raise InputError(f"optimiser: {p!r} is no parameter; give leaves made with requires_grad=True")
    if len({p.number for p in found}) < len(found):
        raise InputError("optimiser: a parameter is given twice and would move twice")
    return found


def _assign(p: Tensor, value: np.ndarray) -> None:
    """The new value replaces the array; the old one stays with whoever still reads it."""
    value = np.asarray(value)  # NumPy's arithmetic makes a bare number of an array without axes
    value.setflags(write=False)
    p._value = value
    p.changed = next_number()


class Optimiser:
    """What all share: the parameters, `zero_grad`, and a step over those that have gradients."""

    def __init__(self, parameters, lr: float):
        if not lr > 0:
            raise InputError(f"optimiser: the learning rate is {lr}; give a positive number")
        self.parameters, self.lr = _parameters(parameters), lr
        self.steps = 0

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient; raises GraphError when none has."""
        if all(p.grad is None for p in self.parameters):
            raise GraphError("optimiser step without gradients: call loss.backward() first")
        for p in self.parameters:
            if p.grad is not None and p.grad.shape != p.shape:
                raise ShapeError(f"optimiser step: the gradient of {describe(p)} has shape {p.grad.shape}")
        self.steps += 1
        for k, p in enumerate(self.parameters):
            if p.grad is not None:
                _assign(p, self._moved(k, p._value, p.grad))

    def _moved(self, k: int, value: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class SGD(Optimiser):
    """Gradient descent with momentum (Polyak, 1964): v = m·v + g; p = p − lr·v."""

    def __init__(self, parameters, lr: float = 0.01, momentum: float = 0.0):
        super().__init__(parameters, lr)
        if not 0 <= momentum < 1:
            raise InputError(f"SGD: momentum is {momentum}; give a number in [0, 1)")
        self.momentum = momentum
        self.velocity = [np.zeros_like(p.value) for p in self.parameters] if momentum else []

    def _moved(self, k, value, gradient):
        if self.momentum:
            self.velocity[k] *= self.momentum
            self.velocity[k] += gradient
            gradient = self.velocity[k]
        return value - self.lr * gradient


class Adam(Optimiser):
    """Adam (Kingma and Ba, 2015); `weight_decay` is decoupled from the gradient (Loshchilov and Hutter, 2019)."""

    def __init__(
        self,
        parameters,
        lr: float = 1e-3,
        betas=(0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr)
        if not all(0 <= b < 1 for b in betas) or weight_decay < 0:
            raise InputError(
                f"Adam: betas {betas} must lie in [0, 1) and weight_decay {weight_decay} not below 0"
            )
        self.betas, self.epsilon, self.weight_decay = betas, epsilon, weight_decay
        self.first = [np.zeros_like(p.value) for p in self.parameters]
        self.second = [np.zeros_like(p.value) for p in self.parameters]

    def _moved(self, k, value, gradient):
        b1, b2 = self.betas
        m, v = self.first[k], self.second[k]
        m += (1 - b1) * (gradient - m)
        v += (1 - b2) * (gradient * gradient - v)
        size = np.sqrt(v)
        size /= float(np.sqrt(1 - b2**self.steps))
        size += self.epsilon
        step = np.asarray(m / size)
        step *= self.lr / (1 - b1**self.steps)
        if self.weight_decay:
            step += self.lr * self.weight_decay * value
        return np.subtract(value, step, out=step)


def clip_by_norm(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale all gradients together so that their joint norm is at most `limit`; returns the norm before.

    Raises NonFiniteError, naming the parameter, and changes nothing when a gradient is not finite.
    """
    if not limit > 0:
        raise InputError(f"clip_by_norm: the limit is {limit}; give a positive number")
    with_grad = [p for p in _parameters(parameters) if p.grad is not None]
    squares = [float(np.vdot(p.grad, p.grad)) for p in with_grad]
    if not np.isfinite(sum(squares)):  # a float32 overflows in its square long before itself
        squares = [float(np.square(p.grad, dtype=np.float64).sum()) for p in with_grad]
    norm = float(np.sqrt(sum(squares)))
    if not np.isfinite(norm):
        bad = next((p for p, s in zip(with_grad, squares, strict=True) if not np.isfinite(s)), with_grad[0])
        raise NonFiniteError(f"clip_by_norm: the gradient of {describe(bad)} is not finite")
    if norm > limit:
        for p in with_grad:
            p.grad = np.asarray(p.grad * p.dtype.type(limit / norm))
    return norm
