"""The arguments of a call, taken apart: leaves, which change from call to call, and the form around them.

Leaves are tensors, arrays and numbers, and lists of numbers alone.  Dicts, tuples and other lists around them, and
None, texts and truth values, are the form: it is Python that a traced function has run through, so that calls of
another form are calls of another program.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import DTypeError
from .names import text_of
from .tensor import Tensor

NUMBERS = (int, float, complex, np.number, np.bool_)


class Still(NamedTuple):
    """None, a text or a truth value."""

    kind: type
    value: Any


class Container(NamedTuple):
    """A dict, tuple or list; `keys` are those of a dict, in its order, and what tells them apart."""

    kind: type
    keys: tuple
    parts: tuple


class Form(NamedTuple):
    """A call without its leaves, for which None stands; as a key it tells programs apart."""

    positional: tuple
    named: tuple = ()  # (name, part)

    def names(self, function: Callable) -> list[str]:
        """What the function calls its leaves: x, batch_x for ``batch["x"]``, state_0 for ``state[0]``."""
        own = zip(argument_names(function, len(self.positional)), self.positional, strict=True)
        return [name for start, part in (*own, *self.named) for name in _names(part, start)]

    def call(self, function: Callable, leaves: Sequence) -> Any:
        """The function of these leaves, in containers that are its own."""
        rest = iter(leaves)
        positional = [_together(part, rest) for part in self.positional]
        return function(*positional, **{name: _together(part, rest) for name, part in self.named})


def plain(count: int) -> Form:
    """So many leaves, by position."""
    return Form((None,) * count)


def taken_apart(positional: Sequence, named: Mapping[str, Any]) -> tuple[Form, list]:
    """The form of a call and its leaves; raises DTypeError for a container that could not be made again."""
    leaves: list = []
    parts = tuple([_apart(x, leaves) for x in positional])
    return Form(parts, tuple([(name, _apart(x, leaves)) for name, x in named.items()])), leaves


def argument_names(function: Callable, count: int) -> list[str]:
    """What the function calls its arguments by position."""
    code = getattr(function, "__code__", None)
    names = code.co_varnames[hasattr(function, "__self__") : code.co_argcount] if code else ()
    return [names[k] if k < len(names) else f"argument{k}" for k in range(count)]


def _apart(x: Any, leaves: list) -> Any:
    kind = type(x)
    if kind is Tensor or kind is np.ndarray:
        leaves.append(x)
        return None
    if x is None or isinstance(x, (bool, str)):
        return Still(kind, x)
    if kind is dict or kind is OrderedDict:
        return Container(kind, tuple(map(_told_apart, x)), tuple([_apart(v, leaves) for v in x.values()]))
    named_tuple = isinstance(x, tuple) and hasattr(kind, "_make")
    if kind is tuple or named_tuple or (kind is list and not _only_numbers(x)):
        return Container(kind, (), tuple([_apart(v, leaves) for v in x]))
    if isinstance(x, (dict, tuple, list)) and not _only_numbers(x):
        raise DTypeError(f"an argument is {kind.__name__}, which is not known here; give dict, tuple or list")
    leaves.append(x)
    return None


def _only_numbers(x: Any) -> bool:
    """A list of numbers, or of lists of them: an array."""
    return (
        isinstance(x, list)
        and len(x) > 0
        and all(isinstance(e, NUMBERS) or (isinstance(e, list) and _only_numbers(e)) for e in x)
    )


def _told_apart(key: Any) -> Any:
    """1, 1.0 and True are one key of a dict, and three programs; likewise 0.0 and -0.0."""
    return key if type(key) is str else (type(key), repr(key), key)


def _key(told: Any) -> Any:
    return told if type(told) is str else told[2]


def _together(part: Any, leaves: Iterator) -> Any:
    if part is None:
        return next(leaves)
    if type(part) is Still:
        return part.value
    values = [_together(p, leaves) for p in part.parts]
    if part.kind in (dict, OrderedDict):
        return part.kind(zip(map(_key, part.keys), values, strict=True))
    return getattr(part.kind, "_make", part.kind)(values)


def _names(part: Any, start: str) -> Iterator[str]:
    if part is None:
        yield start
    elif type(part) is Container:
        keys = [*map(_key, part.keys)] or getattr(part.kind, "_fields", range(len(part.parts)))
        for key, inner in zip(keys, part.parts, strict=True):
            yield from _names(inner, f"{start}_{text_of(key)}")
