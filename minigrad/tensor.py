"""The only kind of node: `Tensor`, with its names, scopes and operators.

A tensor with a value is eager; one without is a symbol that stands in a traced
graph.  Either way it remembers the operation and the inputs it came from, and
that is the whole graph: reverse mode, the compiler, the pictures and the
equations all read it.  Three properties carry much weight:

* Creation order is a topological order: `number` counts up, so an input always
  has a smaller number than what is made of it.  Nothing here recurses.
* A tensor points to its inputs and to nothing else.  There are no cycles, so
  dropping the loss frees the graph at once.
* A value is never changed behind the graph's back: arrays are read-only, and a
  leaf that is assigned anew takes a fresh number into `changed`, which reverse
  mode compares with the numbers of those who read the old value.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .errors import DTypeError, GraphError, InputError, NonFiniteError, ShapeError, describe, dims, first_bad
from .hints import Count
from .methods import _FUNCTIONS, Methods
from .modes import anomaly, modes, no_grad, scope  # noqa: F401  (the rest of the engine takes them from here)
from .names import printable
from .op import OPS, Op
from .roles import is_constant, is_parameter

next_number = itertools.count(1).__next__
ndarray = np.ndarray


class Tensor(Methods):
    """An array that remembers how it was computed.

    Parameters
    ----------
    data : array-like; its dtype is kept (lists follow NumPy).  The data is copied,
        so that later changes of the array cannot spoil a gradient.
    requires_grad : whether `backward` should leave a gradient here (floats only).
    name : what errors, pictures and equations call it.

    Attributes: `value` (read-only array), `grad` (array or None), `op`, `inputs`,
    `params` (how it was computed; None and () for a leaf), `name`, `scope`,
    `contributions` (after ``backward(record=True)``: the gradient that flowed along
    each edge to `inputs`).

    Raises DTypeError when a gradient is asked for on integers, and InputError for
    data that is not a numeric array.
    """

    __slots__ = (
        "__weakref__", "_value", "changed", "contributions", "grad", "hooks", "inputs",
        "name", "number", "op", "params", "requires_grad", "role", "scope", "spec",
    )  # fmt: skip
    __hash__ = object.__hash__
    __array_priority__ = 1000.0

    def __init__(self, data, requires_grad: bool = False, name: str | None = None, dtype=None):
        if isinstance(data, Tensor):
            data = data.value
        try:
            value = np.array(data, dtype=dtype, order="C")
        except (ValueError, TypeError) as error:
            raise InputError(f"Tensor{_called(name)}: this is not a numeric array ({error})") from None
        if value.dtype.kind not in "fiubc":
            raise DTypeError(
                f"Tensor{_called(name)}: {value.dtype} is not a numeric type; give floats or integers"
            )
        if requires_grad and value.dtype.kind != "f":
            raise DTypeError(
                f"Tensor{_called(name)}: {value.dtype} has no gradient; make it a float first, "
                "e.g. Tensor(data, dtype='float32')"
            )
        fill_node(self, value, None, (), (), requires_grad)
        self.name = name

    # What it is.

    @property
    def value(self) -> np.ndarray:
        """The read-only array; assign a leaf a new one, of the same shape, to change it.

        Raises GraphError for a symbol, which has none, and where a value that was computed is assigned, and ShapeError
        and InputError for an assigned array that does not fit.
        """
        if self._value is None:
            raise GraphError(
                f"{describe(self)} is a symbol of a traced graph and has no value; "
                "run the function eagerly to see values"
            )
        return self._value

    @value.setter
    def value(self, data) -> None:
        if self.op is not None:
            raise GraphError(
                f"in-place change of {describe(self)}: it was computed, and reverse mode still reads it; "
                "compute a new tensor instead"
            )
        try:
            value = np.array(data, dtype=self.dtype, order="C")
        except (ValueError, TypeError) as error:
            raise InputError(f"{describe(self)}: the new value is not a numeric array ({error})") from None
        if value.shape != self.shape:
            raise ShapeError(f"{describe(self)}: the new value has shape {value.shape}")
        value.setflags(write=False)
        self._value = value
        self.changed = next_number()

    @property
    def shape(self) -> tuple:
        """Its sizes; while tracing they may be symbols."""
        return self.spec[0] if self._value is None else self._value.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of its elements."""
        return self.spec[1] if self._value is None else self._value.dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return Count(self.value.size)

    @property
    def is_leaf(self) -> bool:
        """Whether it was given, not computed."""
        return self.op is None

    is_parameter = property(is_parameter)
    is_constant = property(is_constant)

    @property
    def is_symbol(self) -> bool:
        """Whether it has a shape and no value, as while tracing."""
        return self._value is None

    def numpy(self) -> np.ndarray:
        """A writable copy of the value."""
        return self.value.copy()

    def item(self) -> float:
        """The number in a tensor of one element; raises ValueError for more than one, GraphError for a symbol."""
        return self.value.item()

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if form else str(self)

    def __round__(self, digits: int | None = None):
        return round(self.item(), digits)

    def named(self, name: str) -> Tensor:
        """Give the node a name and return it: ``f = sigmoid(…).named("f")``."""
        self.name = name
        return self

    def hook(self, function: Callable) -> Callable[[], None]:
        """Call ``function(gradient)`` when the gradient of this node is complete.

        What it returns, unless None, replaces the gradient from here backwards.
        Returns a function that removes the hook.
        """
        if not callable(function):
            raise InputError(f"hook of {describe(self)}: {function!r} is not a function of a gradient")
        self.hooks = (*self.hooks, function)

        def remove() -> None:
            self.hooks = tuple(h for h in self.hooks if h is not function)

        return remove

    def backward(self, cotangent=None, **options) -> None:
        """Leave ∂self/∂leaf in `grad` of every leaf that requires it: see `minigrad.backward`."""
        raise NotImplementedError  # grad.py puts its function here

    # Python and NumPy manners.

    def __repr__(self) -> str:
        origin = f", from {self.op.name}" if self.op else (", requires grad" if self.requires_grad else "")
        where = f", in {' / '.join(map(printable, self.scope))}" if self.scope else ""
        head = f"Tensor{_called(self.name)}: {dims(self.shape)} {self.dtype}{origin}{where}"
        if self._value is None:
            return f"<{head}, symbol>"
        body = np.array2string(self._value, precision=4, threshold=60, edgeitems=3, prefix="  ")
        return f"<{head}\n  {body}>"

    def __array__(self, dtype=None, copy=None):
        return np.array(self.value, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is not None:
            target = next((t for t in out if isinstance(t, Tensor)), self)
            raise GraphError(
                f"in-place change of {describe(target)}: np.{ufunc.__name__}(…, out=…) would spoil gradients"
            )
        function = _UFUNCS.get(ufunc.__name__)
        if method != "__call__" or function is None or options:
            raise DTypeError(
                f"np.{ufunc.__name__} is not recorded by minigrad: use np.asarray(t) for plain values, "
                f"or one of {', '.join(sorted(_UFUNCS))}"
            )
        return function(*inputs)

    def __array_function__(self, function, types, args, kwargs):
        name = function.__name__
        if name in ("shape", "ndim", "size", "array_repr", "array_str"):  # read no gradient
            return function._implementation(*args, **kwargs)
        ours = _ARRAY_FUNCTIONS.get(name)
        if ours is None:
            raise DTypeError(f"np.{name} is not recorded by minigrad: use np.asarray(t) for plain values")
        try:
            inspect.signature(ours).bind(*args, **kwargs)
        except TypeError as error:  # an option that would be ignored is refused
            raise DTypeError(
                f"np.{name} of tensors: {error}; use minigrad.{name}, or np.asarray(t)"
            ) from None
        return ours(*args, **kwargs)

    def __len__(self) -> int:
        if not self.shape:
            raise DTypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(len(self)))

    def __bool__(self) -> bool:
        if self._value is None:
            raise GraphError(
                f"a Python branch on {describe(self)}, which has no value while tracing: "
                "use minigrad.where, so that both branches are in the graph"
            )
        return bool(self._value)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __setitem__(self, index, value) -> None:
        raise GraphError(
            f"in-place change of {describe(self)}: a tensor's elements cannot be assigned; "
            "use minigrad.where or concat, or assign a leaf's whole `value`"
        )

    def __getitem__(self, index) -> Tensor:
        return _getitem(self, index)

    # Operators: each is one row of the table.

    def __add__(self, other):
        return apply(OPS["add"], (self, other))

    def __radd__(self, other):
        return apply(OPS["add"], (other, self))

    def __sub__(self, other):
        return apply(OPS["sub"], (self, other))

    def __rsub__(self, other):
        return apply(OPS["sub"], (other, self))

    def __mul__(self, other):
        return apply(OPS["mul"], (self, other))

    def __rmul__(self, other):
        return apply(OPS["mul"], (other, self))

    def __truediv__(self, other):
        return apply(OPS["div"], (self, other))

    def __rtruediv__(self, other):
        return apply(OPS["div"], (other, self))

    def __matmul__(self, other):
        return _FUNCTIONS["matmul"](self, other)

    def __rmatmul__(self, other):
        return _FUNCTIONS["matmul"](other, self)

    def __pow__(self, exponent):
        return _FUNCTIONS["power"](self, exponent)

    def __neg__(self):
        return apply(OPS["neg"], (self,))

    def __abs__(self):
        return apply(OPS["abs"], (self,))

    def __lt__(self, other):
        return apply(OPS["greater"], (other, self))

    def __gt__(self, other):
        return apply(OPS["greater"], (self, other))

    def __le__(self, other):
        return apply(OPS["greater_equal"], (other, self))

    def __ge__(self, other):
        return apply(OPS["greater_equal"], (self, other))

    def __eq__(self, other):  # type: ignore[override]
        return apply(OPS["equal"], (self, other))

    def __ne__(self, other):  # type: ignore[override]
        return apply(OPS["equal"], (apply(OPS["equal"], (self, other)), False))

    def astype(self, dtype):
        """The same numbers in another type; gradients come back in this one."""
        return apply(OPS["cast"], (self,), (np.dtype(dtype),))

    def detach(self):
        """The same value, through which no gradient flows: a cut that pictures show, with what lies behind it.

        A loop from window to window (truncated backpropagation, ``state = [s.detach() for s in run.state]``)
        would so keep all windows.  Therefore a detached tensor that is given as a first state to `scan`,
        `cells.run` or a layer becomes a leaf there, of the same value and name, and lets go of its history.
        Detach last: what is computed of a detached tensor, or read as data, keeps what lies behind the
        cut; ``Tensor(x.value)`` keeps nothing.
        """
        return apply(OPS["detach"], (self,))

    # Copies.

    def __reduce_ex__(self, protocol):
        """A copy, a deep copy and what a pickle gives are another tensor, with a number and a gradient of its own.

        Value, dtype, name, scope, role, `requires_grad`, the gradient so far and hooks come along (a hook that is
        a method of what is copied becomes the copy's; pickle wants functions that a module has by name).
        A copied model shares inside what the model shares.  A detached tensor comes as a leaf.  Raises
        GraphError for any other that was computed, and for a symbol: a copy without its graph would lose
        gradients without a word.
        """
        if self._value is None or self.op not in (None, OPS["detach"]):
            raise GraphError(
                f"copy or pickle of {describe(self)}: it was computed, and a graph is not copied; copy what it was "
                "computed from, or take its value alone: .detach() or .numpy()"
            )
        kept = self.name, self.scope, self.hooks, self.grad, self.role
        return Tensor, (self._value, self.requires_grad), kept

    def __setstate__(self, kept) -> None:
        self.name, self.scope, self.hooks, grad, self.role = kept
        self.grad = None if grad is None else np.array(grad)


_ARRAY_FUNCTIONS: dict[str, Callable] = {}  # ops.py fills these, and _FUNCTIONS
_UFUNCS: dict[str, Callable] = {}


def _getitem(tensor: Tensor, index) -> Tensor:
    return _FUNCTIONS["getitem"](tensor, index)


def fill_node(node, value, op, inputs, params, requires_grad, labels: tuple | None = None) -> None:
    """Set every slot: the one place where a node is made.  labels : the scope, where it is known already."""
    if value is not None:
        value.setflags(False)
    node._value = value
    node.op = op
    node.inputs = inputs
    node.params = params
    node.requires_grad = requires_grad
    node.number = next_number()
    node.scope = modes()[2] if labels is None else labels
    node.changed = 0
    node.name = node.grad = node.contributions = node.spec = node.role = None
    node.hooks = ()


_new = Tensor.__new__


def apply(op: Op, inputs: tuple, params: tuple = ()) -> Tensor:
    """Run one operation on tensors (anything else becomes a constant) and record it.

    Eager when all inputs have values, else the result is a symbol with the shape
    that the operation's shape rule gives.  Raises ShapeError and DTypeError, which
    name the operation and its inputs, and NonFiniteError in anomaly mode.
    """
    values = []
    needs = mixed = False
    try:
        for x in inputs:
            value = x._value
            if value is None:
                return apply_symbolic(op, inputs, params)
            if values and value.dtype is not values[0].dtype:
                mixed = True
            values.append(value)
            if x.requires_grad:
                needs = True
    except AttributeError:
        return apply(op, constants(op, inputs), params)
    if mixed:
        inputs = same_float(op, inputs)
        values = [x._value for x in inputs]
    try:
        value = op.forward(*values, *params)
    except (ValueError, TypeError, IndexError, OverflowError, GraphError) as error:
        if any(map(_is_unknown, params)):  # a constant, spread to a size that is only known at run time
            return apply_symbolic(op, inputs, params)
        raise explain(op, inputs, params, error) from None
    if type(value) is not ndarray:
        value = np.asarray(value)
    record, watched, labels, tracing = modes()
    node = _new(Tensor)
    if record:
        fill_node(
            node, value, op, inputs, params, needs and op.vjp is not None and value.dtype.kind == "f", labels
        )
    elif tracing:  # computed at every call, as it is eagerly
        fill_node(node, value, op, inputs, params, False)
        return _cut(node)
    else:
        fill_node(node, value, None, (), (), False)
    if watched and value.dtype.kind == "f" and not np.isfinite(value).all():
        raise _not_finite(op, node, inputs)
    return node


def _result_dtype(op: Op, dtypes: list, params: tuple):
    """That of the first float input; for integers and booleans what NumPy makes of them."""
    floats = [d for d in dtypes if d.kind == "f"]
    if floats or op.kind == "structure":
        return (floats or dtypes)[0]
    if op.kind == "elementwise":
        return np.asarray(op.forward(*(np.ones((), d) for d in dtypes), *params)).dtype
    if op.kind == "reduction":
        return np.asarray(op.forward(np.ones(1, dtypes[0]), (0,), False)).dtype
    return np.result_type(*dtypes)


def _is_unknown(param) -> bool:
    return hasattr(param, "as_symbol") or (isinstance(param, tuple) and any(map(_is_unknown, param)))


def _not_finite(op: Op, node: Tensor, inputs: Sequence) -> NonFiniteError:
    """Blame the data where they came in bad, else the operation that made the first bad value."""
    data = next((x for x in inputs if x.dtype.kind == "f" and not np.isfinite(x.value).all()), None)
    if data is not None:
        return NonFiniteError(
            f"{first_bad(data.value)} in the data {describe(data)}, read by {op.name}{_at()}"
        )
    operands = ", ".join(map(describe, inputs))
    return NonFiniteError(
        f"{first_bad(node.value)} in the value of {op.name}{_at()}, computed from {operands}"
    )


def apply_symbolic(op: Op, inputs: tuple, params: tuple) -> Tensor:
    """A node without a value, whose shape and dtype the operation's rules give."""
    inputs = same_float(op, constants(op, inputs))
    shape = op.shape(*(x.shape for x in inputs), *params)
    dtypes = [x.dtype for x in inputs]
    dtype = op.dtype(*dtypes, *params) if op.dtype else _result_dtype(op, dtypes, params)
    node = _new(Tensor)
    needs = dtype.kind == "f" and op.vjp is not None and any(x.requires_grad for x in inputs)
    fill_node(node, None, op, inputs, params, needs)
    node.spec = (tuple(shape), np.dtype(dtype))
    return node if modes()[0] or op.name == "scan" else _cut(node)


def _cut(node: Tensor) -> Tensor:
    """In a trace, what no_grad makes of a result: nothing flows back through it."""
    behind = _new(Tensor)
    fill_node(behind, node._value, OPS["detach"], (node,), (), False)
    behind.spec = node.spec
    return behind


def symbol(shape: tuple, dtype, name: str | None = None, requires_grad: bool = False) -> Tensor:
    """A leaf without a value, for tracing."""
    node = _new(Tensor)
    fill_node(node, None, None, (), (), requires_grad)
    node.spec, node.name = (tuple(shape), np.dtype(dtype)), name
    return node


def as_tensor(x, like: Tensor | None = None) -> Tensor:
    """`x` itself if it is a tensor, else a constant; a Python number takes the dtype of `like`.

    Raises DTypeError for a number that this type cannot hold and for what is not numeric, InputError for what is not
    an array.
    """
    if isinstance(x, Tensor):
        return x
    if hasattr(x, "as_symbol"):  # a size that is not known while tracing
        return x.as_symbol(like)
    if like is not None and isinstance(x, (bool, int, float, complex)):
        kind = (
            np.result_type(like.dtype, x) if isinstance(x, complex) or like.dtype.kind != "f" else like.dtype
        )
        try:
            value = np.asarray(x, dtype=kind)
        except OverflowError:
            raise DTypeError(
                f"{x} does not fit {kind}, the type of {describe(like)}; use .astype(…)"
            ) from None
        fill_node(node := _new(Tensor), value, None, (), (), False)  # nobody else holds it: no copy
        return node
    return Tensor(x)


def let_go(x: Tensor) -> Tensor:
    """A detached tensor becomes a leaf, so that a run that begins with it does not keep the runs before.

    It stays the same tensor: hooks, and gradients with respect to it, are those of the first state.
    """
    if x.op is OPS["detach"] and x._value is not None and not modes()[3]:
        x.name = x.name or x.inputs[0].name
        x.op, x.inputs = None, ()
    return x


def constants(op: Op, inputs: Sequence) -> tuple:
    known = [x if isinstance(x, Tensor) else as_tensor(x) for x in inputs if isinstance(x, (Tensor, ndarray))]
    like = next((x for x in known if x.dtype.kind in "fc"), known[0] if known else None)
    if (
        like is not None
        and like.dtype.kind in "iu"
        and op.name in ("greater", "greater_equal", "equal", "div")
    ):
        like = None  # any integer may be compared with any other, or divided by it
    return tuple(as_tensor(x, like) for x in inputs)


def same_float(op: Op, inputs: Sequence) -> tuple:
    """Nothing is promoted silently: floats must agree, integers beside floats become that float.

    Indices and conditions keep their type: operations that take some are of kind
    'structure' (gather; concat is too, but takes any number of equals) or say so by
    their first input being boolean (where).
    """
    if op.name == "scan":  # it computes nothing of them itself
        return tuple(inputs)
    floats = {x.dtype for x in inputs if x.dtype.kind in "fc"}
    if len({d for d in floats if d.kind == "f"}) > 1 and not any(d.kind == "c" for d in floats):
        raise DTypeError(
            f"{op.name}: {' with '.join(map(describe, inputs))}: element types differ and nothing is "
            "promoted silently; convert one with .astype(…)"
        )
    if (op.kind == "structure" and op.name != "concat") or len(floats) != 1:
        return tuple(inputs)
    (dtype,) = floats
    return tuple(apply(OPS["cast"], (x,), (dtype,)) if x.dtype.kind in "iu" else x for x in inputs)


def explain(op: Op, inputs, params, error) -> Exception:
    """NumPy's complaint as ours: the shape rule knows the shapes and says which do not fit."""
    try:
        op.shape(*(x.shape for x in inputs), *params)
    except ShapeError as better:
        return ShapeError(f"{better}  [{op.name} of {', '.join(map(describe, inputs))}{_at()}]")
    kinds = {IndexError: InputError, TypeError: DTypeError, OverflowError: DTypeError}
    kind = next((ours for theirs, ours in kinds.items() if isinstance(error, theirs)), ShapeError)
    return kind(f"{op.name} of {', '.join(map(describe, inputs))}{_at()}: {error}")


def _at() -> str:
    labels = modes()[2]
    return f", in {' / '.join(map(printable, labels))}" if labels else ""


def _called(name: str | None) -> str:
    return f" {printable(name)!r}" if name else ""
