"""One call of a compiled function: its arguments as arrays and as leaves, and the gradients that it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ..arguments import Form, plain, taken_apart
from ..errors import DTypeError, GraphError, InputError
from ..tensor import Tensor, describe, fill_node
from .plan import view_of

NONE: Mapping = {}


class Call:
    """The arguments of one call: their arrays, and what tells programs apart."""

    __slots__ = ("arguments", "arrays", "form", "gradients", "key", "needs", "reason", "shapes", "twice")

    def __init__(
        self,
        arguments: Sequence,
        gradients: bool,
        floats: str = "float64",
        named: Mapping = NONE,
        form: Form | None = None,
    ):
        """floats : the dtype of Python's floats where no argument has one to go by.
        form : what the arguments are the leaves of, where that is known.
        """
        if named:
            form, arguments = taken_apart(arguments, named)
        try:
            arrays = [
                a._value
                if type(a) is Tensor
                else a
                if type(a) is np.ndarray
                else _array(a, arguments, floats, form)
                for a in arguments
            ]
        except NotPlainError:  # containers are looked for only where there are some: looking takes time
            form, arguments = taken_apart(arguments, named)
            arrays = [_array(a, arguments, floats, form) for a in arguments]
        self.arguments, self.arrays, self.form = arguments, arrays, form
        self.gradients, self.reason = gradients, ""
        # A hook is part of the program, so those of an argument are part of the key.
        self.needs = tuple(
            [
                gradients and type(a) is Tensor and a.requires_grad and (tuple(map(id, a.hooks)) or True)
                for a in arguments
            ]
        )
        self.shapes = tuple([a.shape for a in arrays])
        self.twice = () if len(arrays) < 2 else self._twice()
        self.key = (gradients, self.needs, tuple([(a.dtype, a.ndim) for a in arrays]), self.twice, form)

    def _twice(self) -> tuple:
        """Which arguments are the same tensor as one before; nothing where none is."""
        ids = [id(a) for a in self.arguments]
        if len(set(ids)) == len(ids):
            return ()
        pairs = enumerate(zip(ids, self.arguments, strict=True))
        return tuple([ids.index(n) if type(a) is Tensor else k for k, (n, a) in pairs])

    @property
    def whole(self) -> Form:
        """How the function gets the arguments."""
        return self.form or plain(len(self.arguments))

    def leaves(self, leaf: Callable = Tensor) -> list[Tensor]:
        """The arguments as leaves of a graph: how one was computed is not the function's.

        leaf : makes one of an array, `constant` without a copy of it.
        """
        found = [
            a if type(a) is Tensor and a.op is None else _leaf(leaf(array), a, bool(needed))
            for a, array, needed in zip(self.arguments, self.arrays, self.needs, strict=True)
        ]
        # A computed tensor that is given twice is one leaf too.
        return [found[k] for k in self.twice] if self.twice else found


class NotPlainError(Exception):
    """An argument is a container, None, a text or a truth value."""


def _array(argument, arguments: Sequence, floats: str, form: Form | None) -> np.ndarray:
    """A number or list as an array; a Python float takes the dtype of the first argument that has one."""
    if type(argument) is np.ndarray:
        return argument
    if isinstance(argument, Tensor):
        return argument.value
    if isinstance(argument, float):
        dtypes = (a.dtype for a in arguments if isinstance(a, (Tensor, np.ndarray)))
        return np.asarray(argument, next((d for d in dtypes if d.kind == "f"), floats))
    if form is None and (argument is None or isinstance(argument, (bool, str, dict, tuple, list))):
        raise NotPlainError
    try:
        array = np.asarray(argument)
    except ValueError as error:
        raise InputError(
            f"an argument is a {type(argument).__name__} that is not an array: {error}"
        ) from None
    if array.dtype.kind not in "fiubc":
        raise DTypeError(
            f"an argument is {type(argument).__name__}: give tensors, arrays, numbers, None, texts, truth values, "
            "or dicts, tuples and lists of them"
        )
    return array


def _leaf(leaf: Tensor, argument, requires_grad: bool) -> Tensor:
    """A leaf of its own, with what an argument has beside its array."""
    if isinstance(argument, Tensor):
        leaf.name, leaf.hooks, leaf.requires_grad = argument.name, argument.hooks, requires_grad
    return leaf


def constant(value: np.ndarray) -> Tensor:
    """A leaf around an array that nobody else writes to, without a copy."""
    node = Tensor.__new__(Tensor)
    fill_node(node, value.view(), None, (), (), False)  # of its own, as a node's array cannot be written to
    return node


class Gradients:
    """Gradients by tensor: ``gradients[W]`` is an array of W's shape.

    They are made when they are asked for: of parts of one array, which a program has written, or of arrays.
    """

    __slots__ = ("flat", "made", "parts", "tensors")

    def __init__(self, tensors: Sequence[Tensor], parts: Sequence, flat: np.ndarray | None = None):
        self.tensors, self.parts, self.flat = tensors, parts, flat
        self.made: dict[int, np.ndarray] = {}

    def __getitem__(self, tensor: Tensor) -> np.ndarray:
        number = tensor.number
        if number not in self.made:
            found = [part for t, part in zip(self.tensors, self.parts, strict=False) if t is tensor]
            if not found:
                raise GraphError(
                    f"no gradient for {describe(tensor)}: it does not require one, or was not used"
                )
            if self.flat is not None:
                found = [view_of(self.flat, part) for part in found]
            total = found[0]
            for part in found[1:]:  # the same tensor was given twice, or given and captured
                total = total + part
            self.made[number] = total
        return self.made[number]

    def __contains__(self, tensor: Tensor) -> bool:
        return any(t is tensor for t in self.tensors)

    def __len__(self) -> int:
        return len({t.number for t in self.tensors})

    def __iter__(self) -> Iterator[Tensor]:
        return iter({t.number: t for t in self.tensors}.values())

    def items(self) -> list[tuple[Tensor, np.ndarray]]:
        return [(t, self[t]) for t in self]

    def __reduce__(self):  # tensors that are copied along have numbers of their own
        return Gradients, ([*self], [self[t] for t in self])
