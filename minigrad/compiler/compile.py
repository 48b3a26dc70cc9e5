"""`compile`: trace, rewrite, emit, load, and call with as little between as can be.

A `Compiled` keeps one program for every combination of argument types that it has
met; sizes are run-time values, so another number of steps or sequences meets a
program that is there.  A `Plan` is a program laid out for given sizes: its table of
sizes and addresses is filled once, and a call only puts in what has changed.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from sys import getrefcount
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..arguments import Form, plain, taken_apart
from ..errors import DTypeError, GraphError, InputError, MinigradError, ShapeError
from ..locks import lock
from ..modes import recording
from ..names import name_of, printable
from ..reverse import adding, ancestors, changed_after, grad
from ..scanning import flatten
from ..sizes import Size, Variable, resolve
from ..tensor import Tensor, as_tensor, describe, fill_node, modes, no_grad
from ..trace import Traced, evaluate, everywhere, leaves_of, trace, trace_gradients
from . import cache
from .check import earliest, first_difference, largest, quantities, same_trace
from .emit import emit
from .memory import kept_bytes, refuse_beyond, too_large
from .places import CHECKS, CHOOSING, DEFECT, DTYPES, NARROW, CannotCompile, Fixed, Program
from .rewrite import REWRITES, split_products

if TYPE_CHECKING:
    from .wasm import Wasm

ALIGN = 64
NONE: Mapping = {}


def compile(function: Callable, *, threads: int = 1, check: bool = False) -> Compiled:
    """The same function, compiled when it is first called.

    function : of arguments by position and by name, returning a tensor, or a tuple or dict of tensors.  Leaves that
        it reads from outside (parameters) are looked up at every call.
    threads : how many threads share the sequences of a batch; for one number the
        result is the same bits at every run.
    check : compare every new program with the eager run at its first call, value and gradients, and trace the
        function a second time; raises GraphError, naming the first quantity that differs, its step, and both numbers.

    Arguments are tensors, arrays and numbers; None, texts and truth values; and dicts, tuples (also with names) and
    lists of all of these, one in the other.  The function gets tensors in place of arrays and numbers, in containers
    of its own, so that what it does to them is not seen outside.  A list of numbers alone is an array.  A Python float
    takes the dtype of the first argument that has one.  Numbers in tensors and arrays, sizes, and Python's numbers may
    differ from call to call; None, texts, truth values, and the order, keys and types of containers belong to the
    program: for others another one is made.  An array in a container is called after its place, ``batch_x`` for
    ``batch["x"]`` and ``state_0`` for ``state[0]``.  Gradients are by tensor, wherever a tensor stands.  Arrays of
    int8, uint8, int16, uint16 and uint32 may be looked up by, compared, moved and converted; arithmetic that would wrap
    in their type runs eagerly.  Raises DTypeError for an argument of any other kind, and InputError for what is not a
    function and for fewer than one thread.

    Python runs once: while it is traced.  An attribute that is changed later, a random number that was drawn, a
    mask that was made with NumPy inside stay as they were.  What is to stay live is an argument of the function,
    or a tensor, whose `value` is assigned anew.

    Calling it gives values without a graph; `value_and_grad` and `backward` give
    gradients too.  What no result needs is not computed, and so refuses nothing; a step that no loss depends on has a
    gradient of 0, which is NaN where its own values are.  What cannot be compiled says which operation and why, once, as a
    warning, and runs eagerly.
    """
    if not callable(function):
        raise InputError(f"compile: {function!r} is not a function")
    if not isinstance(threads, int) or threads < 1:
        raise InputError(f"compile: threads = {threads!r}; give a whole number of at least 1")
    return Compiled(function, threads, check)


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

    def targets(self, variant: Variant) -> list[Tensor]:
        """The tensors that the gradients of a program belong to, in its order."""
        return [self.arguments[k] for k in variant.of_arguments] + variant.leaves


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


class Compiled:
    """What `compile` returns; `source` is the generated program of the last call.

    Threads may call it at the same time.  A copy, or what a pickle gives, is the same function compiled
    with the same options, which makes its programs when it is called (from the cache, where they are
    there); a deep copy of a compiled method is that of the copied object.
    """

    def __init__(self, function: Callable, threads: int, check: bool = False):
        self.function, self.threads, self.check = function, threads, check
        self.name = printable(name_of(function))
        self.variants: dict[tuple, list[Variant]] = {}
        self.eager: dict[tuple, str] = {}  # what could not be compiled, and why
        self.last: Variant | None = None
        self.floats = "float64"  # what Python's floats are where no argument tells

    def __copy__(self) -> Compiled:
        return Compiled(self.function, self.threads, self.check)

    def __deepcopy__(self, memo) -> Compiled:
        return Compiled(copy.deepcopy(self.function, memo), self.threads, self.check)

    def __reduce__(self):
        name, module = getattr(self.function, "__qualname__", ""), getattr(self.function, "__module__", "")
        if getattr(sys.modules.get(module), name, None) is self:  # @compile: it bears the function's name
            return _decorated, (module, name)
        if "<" in name:  # <lambda>, <locals>
            raise InputError(
                f"pickle of the compiled {name}: a lambda, or a function within a function, "
                "cannot be found by its name in another process; compile a function of a module or a method"
            )
        return Compiled, (self.function, self.threads, self.check)

    @property
    def source(self) -> str:
        """The program that ran last, as readable Python; raises GraphError before the first call."""
        if self.last is None:
            raise GraphError(f"{self.name} was not called yet, so there is no source to show")
        return self.last.program.source

    def __call__(self, /, *arguments, **named):
        if modes()[3]:  # within the trace of another function: values without a graph, as they are eagerly
            form, leaves = taken_apart(arguments, named)
            with no_grad():
                return form.call(self.function, [as_tensor(a) for a in leaves])
        variant, call = self.variant(arguments, False, named)
        if variant is None:
            return self._eagerly(call)
        flat, plan = variant.run(call.arrays, call.shapes, self.threads)
        return variant.traced.rebuild([constant(view_of(flat, part)) for part in plan.values])

    def value_and_grad(self, /, *arguments, **named) -> tuple[Any, Gradients]:
        """What the function returns, and the gradients of its first result with respect to every leaf that requires one.

        The first (or only) result is the loss, a single number; others come along as values.  An argument that
        was itself computed is a leaf here.  Raises ShapeError where the first result is not a single number, and
        GraphError inside of a function that is traced itself.
        """
        if modes()[3]:
            raise GraphError(
                f"value_and_grad of {self.name} inside of a function that is traced: it would be done once; use minigrad.grad"
            )
        variant, call = self.variant(arguments, True, named)
        if variant is None:
            return self._eagerly(call)
        flat, plan = variant.run(call.arrays, call.shapes, self.threads)
        values = variant.traced.rebuild([constant(view_of(flat, part)) for part in plan.values])
        return values, Gradients(call.targets(variant), plan.gradients, flat)

    def backward(self, /, *arguments, **named) -> Any:
        """What the function returns; gradients are added to `grad` of every leaf that requires one, as `backward` does."""
        value, gradients = self.value_and_grad(*arguments, **named)
        self.refuse_computed(gradients)
        with adding:
            for leaf, g in gradients.items():
                leaf.grad = g if leaf.grad is None else leaf.grad + g
        return value

    def wasm(self, *arguments, gradients: bool = False, **named) -> Wasm:
        """The program of a call as a WebAssembly module: the same emitted source, for web pages and other hosts.

        arguments, named : as for a call; their shapes and dtypes are fixed in the module, their values do not go into it.
        gradients : the program of `value_and_grad`, in place of that of a call.

        Returns a `Wasm`: its `bytes` are the module, its `layout` is plain data that says where everything lies in the
        module's memory, and ``save(path)`` writes the module and, as path.json, the layout.  The module imports nothing
        and exports ``memory`` and a function ``run`` without arguments.  In JavaScript, of an argument x (T, N, D):

            const { memory, run } = (await WebAssembly.instantiate(bytes)).instance.exports;
            const [x] = layout.arguments, [loss] = layout.results;
            new Float32Array(memory.buffer, x.offset, T * N * D).set(numbers);
            const bad = run();                         // 0, or what has failed: layout.checks[bad]
            new Float32Array(memory.buffer, loss.offset, 1)[0];

        Each entry has an `offset` in bytes, a `dtype` and a `shape`; arrays are in row-major order, little-endian, an
        int64 is a BigInt there, a bool a byte.  ``arguments`` and ``results`` are lists in the function's order;
        ``parameters``, ``constants`` (what else it reads from outside) and ``gradients`` go by name, a second one of a
        name as name_2.  Parameters and constants have the values of now, until others are written over them.  ``table``
        and ``scratch`` are the program's own, ``bytes`` is the size of the memory, ``sha256`` that of the module.

        Sums are taken in another order than natively, as vectors are 16 bytes wide: results agree to rounding.
        Where no integer holds a number, a cast makes of it what the machine does, natively too: here mostly the
        nearest int32, and 0 of NaN; the lowest where numbers are cast one by one.

        Raises InputError where there is no such program: threads > 1, what runs eagerly (with the reason), sin, cos and
        other powers than -1, 0.5, 1, 2, 3 (minigrad has no code of its own for them), more than 2 GiB, or where LLVM fails.

        Facts of the format are from the WebAssembly Core Specification 2.0 (chapter 5; it includes vectors of 128 bits)
        and, for the object that LLVM writes, from Linking.md of the WebAssembly tool conventions.
        """
        from .wasm import make  # only now: few need it

        return make(self, arguments, gradients, named)

    def refuse_computed(self, leaves: Iterable) -> None:
        """Raise GraphError for an argument whose gradient would have to go on to what it was computed from."""
        for a in leaves:
            if type(a) is Tensor and a.op is not None and a.requires_grad:
                raise GraphError(
                    f"backward of compiled {self.name}: the argument {describe(a)} was computed, and how is not "
                    "seen here; give a leaf, detach it, or take its gradient from value_and_grad"
                )

    def _eagerly(self, call: Call):
        """The function itself, node by node; if that is because it cannot be compiled, a warning says so once."""
        result = eager_run(self.function, call)
        if call.reason:
            self.eager[call.key] = call.reason
            warnings.warn(f"{self.name} runs eagerly: {call.reason}", stacklevel=3)
        return result

    def variant(
        self, arguments: Sequence, gradients: bool, named: Mapping = NONE, load: bool = True
    ) -> tuple[Variant | None, Call]:
        """The program for these arguments, made now if there is none; None where it has to run eagerly.

        named : arguments by name.
        load : make the machine code too, so that what the machine cannot do is a reason to run eagerly.
        """
        call = Call(arguments, gradients, self.floats, named)
        if modes()[1]:  # anomaly mode names a node, and only eager mode has nodes to look at
            return None, call
        variant = self._made(call)
        if variant is not None or call.key in self.eager:
            return variant, call
        with _making:
            variant = self._made(call)  # another thread may have made it meanwhile
            if variant is not None or call.key in self.eager:
                return variant, call
            try:
                with recording():
                    variant = Variant(self.function, call, self.check)
                    if load:
                        with _reasons(DEFECT):
                            _ = variant.module
                    if self.check:
                        variant.compare(self.function, call, self.threads)
            except CannotCompile as reason:
                single = Call(call.arguments, gradients, "float32", form=call.form)
                if isinstance(reason.__cause__, DTypeError) and single.key != call.key:  # the parameters tell
                    self.floats = "float32"
                    return self.variant(arguments, gradients, named, load)
                call.reason = str(reason)
                return None, call
            self.variants.setdefault(call.key, []).append(variant)
        self.last = variant
        return variant, call

    def _made(self, call: Call) -> Variant | None:
        for variant in self.variants.get(call.key, ()):
            if variant.holds(call.shapes):
                self.last = variant
                return variant
        return None


def _decorated(module: str, name: str) -> Compiled:
    return getattr(importlib.import_module(module), name)


def eager_run(function: Callable, call: Call):
    """What `Compiled.__call__` or `value_and_grad` return, from the function as it stands."""
    leaves = call.leaves()
    for leaf, name, a in zip(leaves, call.whole.names(function), call.arguments, strict=True):
        if leaf is not a and leaf.name is None:
            leaf.name = name
    with recording():  # the function may take gradients itself
        results, rebuild = flatten(call.whole.call(function, leaves))
    results = [as_tensor(r) for r in results]
    if not call.gradients:
        return rebuild([constant(np.array(r.value)) for r in results])
    loss = only_number(results, function)
    given = {leaf.number: a for leaf, a in zip(leaves, call.arguments, strict=True)}
    learned = [n for n in ancestors(*results) if n.op is None and n.requires_grad and n.number not in given]
    targets = [leaf for leaf, needed in zip(leaves, call.needs, strict=True) if needed] + learned
    targets = list({t.number: t for t in targets}.values())
    found = [g.value for g in grad(loss, targets)]
    values = rebuild([constant(np.array(r.value)) for r in results])
    return values, Gradients([given.get(t.number, t) for t in targets], found)


def only_number(results: Sequence[Tensor], function: Callable) -> Tensor:
    """The loss among the results: the first; raises ShapeError where it is not a single number."""
    if not results or results[0].shape:
        what = describe(results[0]) if results else "nothing"
        raise ShapeError(
            f"gradients of {printable(name_of(function))}: its first result is {what}; return a single number first, e.g. a mean"
        )
    return results[0]


@contextmanager
def _reasons(remedy: str):
    """What goes wrong while a program is made is a reason to run eagerly, which then says it better, if it fails too."""
    try:
        yield
    except (CannotCompile, MemoryError):  # eagerly it takes more
        raise
    except MinigradError as error:
        raise CannotCompile(str(error)) from error
    except Exception as error:
        raise CannotCompile(f"{type(error).__name__}: {error} ({remedy})") from error


class Variant:
    """One program of a function."""

    def __init__(self, function: Callable, call: Call, check: bool = False):
        for a in call.arrays:
            if str(a.dtype) not in DTYPES:
                raise CannotCompile(
                    f"an argument is {a.dtype}; the compiler takes float32, float64, int32, int64 and bool: "
                    "convert it, e.g. with .astype('int64')"
                )
        gradients = call.gradients
        with _reasons(
            "while it was traced, when sizes and values are not known; use minigrad's operations, or pass what "
            "Python computes as an argument"
        ):
            self.traced: Traced = trace(function, call.leaves(constant), call.needs, call.form)
            if gradients:
                only_number(self.traced.outputs, function)
        if check:  # before sizes are bound by what is done with the graph
            again = trace(function, call.leaves(constant), call.needs, call.form)
            same_trace(self.traced.name, self.traced.outputs, again.outputs, self.traced.start)
        self._refuse_both_ways(call)
        self.stages_of: dict[str, list[Tensor]] = {"traced": self.traced.outputs}
        outputs = self.traced.outputs
        if not any(
            n.hooks for n in everywhere(outputs) if n.op is not None or n.is_symbol
        ):  # a copy would have none
            with _reasons(
                DEFECT
            ):  # before the gradients are made, so that they are products with the parts too
                outputs = self.traced.outputs = split_products(outputs)
        self.of_arguments = [
            k for k, needed in enumerate(call.needs) if needed and (not call.twice or call.twice[k] == k)
        ]
        self.leaves: list[Tensor] = self.traced.captures if gradients else []
        if gradients:
            with _reasons(
                "while its gradient was traced, when values are not known; return a new gradient from hooks"
            ):
                symbols = [self.traced.arguments[k] for k in self.of_arguments]
                outputs = outputs + trace_gradients(self.traced, symbols + self.leaves)
        self.learning = [
            (leaf, leaf.requires_grad, leaf.hooks, leaf.role)
            for leaf in leaves_of(outputs)
            if leaf.role is not None
            or (leaf.dtype.kind == "f" and (leaf.number < self.traced.start or leaf.requires_grad))
        ]
        # Numbers that the function made itself stand in the source.
        self.frozen = [n for n in leaves_of(outputs) if n.number > self.traced.start and not n.shape]
        self.computed = computed_before(self.stages_of["traced"], self.traced.start)
        self.stages_of["gradients"] = outputs
        self._refuse_wrapping(outputs)
        self._write(outputs)

    def _refuse_both_ways(self, call: Call) -> None:
        """A tensor that is an argument and is read from outside too would be two, each with a part of the gradient."""
        own = {a.number for a in call.arguments if type(a) is Tensor}
        for leaf in leaves_of(self.traced.outputs):
            if leaf.number in own and leaf.dtype.kind == "f":
                raise CannotCompile(
                    f"{describe(leaf)} is an argument, and the function reads it from outside too: read it in one way"
                )

    def _refuse_wrapping(self, outputs: Sequence[Tensor]) -> None:
        """Small integers are held as int64, in which they would not wrap, and are not returned."""
        made = [n for n in everywhere(outputs) if n.op is not None and n.op.name not in CHOOSING]
        for node in (*made, *self.traced.outputs):
            if str(node.dtype) in NARROW:
                raise CannotCompile(
                    f"{describe(node)}: the compiler looks up, compares, moves and converts {node.dtype}, and does not "
                    "compute or return it: convert it, e.g. with .astype('int64')"
                )

    def _write(self, outputs: list[Tensor]) -> None:
        """Rewrite and emit what computes `outputs`."""
        with _reasons(DEFECT):
            for name, rewrite in REWRITES.items():
                outputs = rewrite(outputs)
                self.stages_of[name] = outputs
            self.program: Program = emit(outputs, self.traced.arguments, self.traced.name, self.traced.start)
        self.plans: dict[tuple, list[Plan]] = {}

    def compare(self, function: Callable, call: Call, threads: int) -> None:
        """Raise GraphError where this program is not what the function computes eagerly."""
        name = self.traced.name
        expected = eager_run(function, call)
        values, right = expected if call.gradients else (expected, None)
        flat, plan = self.run(call.arrays, call.shapes, threads)
        results = zip(plan.values, flatten(values)[0], strict=True)
        pairs = [(f"result {k}", view_of(flat, part), v.value) for k, (part, v) in enumerate(results)]
        if right is not None:
            ours = Gradients(call.targets(self), plan.gradients, flat)
            pairs += [(f"the gradient of {describe(t)}", g, right[t]) for t, g in ours.items() if t in right]
        beside = largest(*(b for _, _, b in pairs))
        for what, a, b in pairs:
            at = first_difference(a, b, beside=beside) if a.shape == b.shape and a.dtype == b.dtype else ()
            if at is not None:
                numbers = (
                    f"{a[at]} compiled and {b[at]} eagerly"
                    if a.shape == b.shape
                    else f"{a.shape}, not {b.shape}"
                )
                where = f" at {list(at)}" if at else ""
                raise GraphError(
                    f"check of {name}: {self._earliest(call, threads) or f'{what}{where} is {numbers}'}; the compiler "
                    "is wrong here: please report it, and run the function as it is"
                )

    def _earliest(self, call: Call, threads: int) -> str:
        """The first quantity with a name that the program gets wrong, when it keeps all of them."""
        graph = self.stages_of["gradients"]
        groups = quantities(graph)
        asked = [q.asked for group in groups for q in group]
        arguments = {a.number: array for a, array in zip(self.traced.arguments, call.arrays, strict=True)}
        theirs = evaluate(asked, arguments, self.traced.sizes(call.shapes))  # type: ignore[arg-type]
        wider = copy.copy(self)
        wider.__dict__.pop("module", None)
        wider.stages_of = {}
        wider._write([*graph, *asked])
        flat, plan = wider.run(call.arrays, call.shapes, threads)
        ours = [view_of(flat, part) for part in [*plan.values, *plan.gradients][len(graph) :]]
        return earliest(groups, ours, theirs)

    @cached_property
    def module(self) -> cache.Program:
        """The program as machine code."""
        return cache.load(self.program.source, self.traced.name)

    def holds(self, shapes: tuple) -> bool:
        """Is this the program for these shapes, and do layers hold the leaves, and learn them, as when it was made?"""
        for leaf, learned, hooks, role in self.learning:  # a hook makes it another tuple
            if leaf.requires_grad is not learned or leaf.hooks is not hooks or leaf.role is not role:
                return False
        for leaf in self.frozen:
            if leaf.changed:
                return False
        for leaf, node in self.computed:
            if leaf.changed > node.number:
                raise changed_after(leaf, node)
        return shapes in self.plans or self.traced.sizes(shapes) is not None

    def refuse(self, bad: int) -> None:
        """Raise what a check in the program has found."""
        if bad:
            raise InputError(f"{self.traced.name}: {self.program.checks[CHECKS - bad - 1]}")

    def run(
        self, arrays: list, shapes: tuple, threads: int, known: Known | None = None
    ) -> tuple[np.ndarray, Plan]:
        """The results, in one array, and the plan that says where; known : leaves whose addresses are known."""
        free = self.plans.get(shapes)
        if free is None:
            self._let_go()
            free = self.plans.setdefault(shapes, [])
        try:
            plan = free.pop()  # a plan serves one call at a time; another thread makes its own
        except IndexError:
            plan = None
        if plan is None:
            plan = self._plan(shapes)
        if known is not None:
            plan.know(known)
        try:
            flat = plan.run(arrays, threads)
        except MemoryError:  # of the results, or of a copy of an argument
            raise too_large(self.traced.name, shapes, plan.output_bytes, plan.arena.nbytes) from None
        except InputError as error:
            raise InputError(f"{error}{self._found(arrays, shapes)}") from None
        free.append(plan)  # not after an interrupt: another thread may still be writing into it
        return flat, plan

    def _found(self, arrays: list, shapes: tuple) -> str:
        """Which index a check of the program has found: the graph is run once more, step by step."""
        arguments = {a.number: array for a, array in zip(self.traced.arguments, arrays, strict=True)}
        try:
            with np.errstate(all="ignore"):
                evaluate(self.traced.outputs, arguments, self.traced.sizes(shapes))  # type: ignore[arg-type]
        except IndexError as found:
            return f": {found}"
        except Exception:  # the error that is told already is the one that matters
            pass
        return ""

    def _let_go(self) -> None:
        """Before a plan for other sizes is made, the oldest go: each holds memory for all that it computes."""
        most = kept_bytes()
        for oldest in list(self.plans):  # a copy, as another thread may add to them
            held = sum(plan.bytes for plans in list(self.plans.values()) for plan in list(plans))
            if len(self.plans) < PLANS and held <= most:
                return
            self.plans.pop(oldest, None)

    def _plan(self, shapes: tuple) -> Plan:
        """A new plan; where there is no room for it, what is kept for other sizes goes."""
        try:
            return Plan(self, shapes)
        except MemoryError:
            for other in list(self.plans):
                if other != shapes:
                    self.plans.pop(other, None)
        return Plan(self, shapes)


def computed_before(outputs: Sequence[Tensor], start: int) -> list[tuple[Tensor, Tensor]]:
    """(leaf, node) for what was computed from leaves before the function was traced: its value is that of then."""
    nodes = [n for n in everywhere(outputs) if n.op is not None and n._value is not None and n.number < start]
    return [(x, n) for n in nodes for x in n.inputs if x.op is None]


def numbers_of(variant: Variant, shapes: tuple) -> Callable[[Size | int], int]:
    """A function from sizes to numbers, for arguments of these shapes."""
    free = variant.traced.sizes(shapes)
    assert free is not None

    def of(v: Variable) -> int:
        return v.hint if isinstance(v, Fixed) else free(v)

    def number(size: Size | int) -> int:
        size = resolve(size)
        return size.value(of) if isinstance(size, Size) else size

    return number


class Known(NamedTuple):
    """Arrays of some leaves whose addresses are known, so that none has to be asked for."""

    places: dict[int, int]  # by number of the leaf, which of the arrays is its own
    arrays: list[np.ndarray]
    addresses: np.ndarray


class Plan:
    """A program laid out for given sizes: where everything lies, and the table that says so."""

    def __init__(self, variant: Variant, shapes: tuple):
        program, traced = variant.program, variant.traced
        number = numbers_of(variant, shapes)
        self.module, self.refuse = variant.module, variant.refuse
        self.parallel = program.parallel
        count = len(program.stores)
        # Addresses and sizes of arrays, sizes by name, and what the calls of repeated stages work on.
        sizes = [number(s) for s in program.sizes]
        own = {a.number: k for k, a in enumerate(traced.arguments)}
        # [argument, position in the table, the array whose address stands there, whether it is of small integers]
        self.arguments: list[list] = []
        self.leaves: list[list] = []  # likewise, [leaf, position, array, …]
        work, outputs = [], []
        for k, store in enumerate(program.stores):
            if store.kind in ("input", "constant"):
                node: Tensor = store.node  # type: ignore[assignment]
                entries, key = (
                    (self.arguments, own[node.number]) if node.number in own else (self.leaves, node)
                )
                entries.append([key, 2 * k, None, str(node.dtype) in NARROW])
            else:
                (outputs if store.kind == "output" else work).append((2 * k, number(store.size), store.dtype))
        offsets, total = _layout([n * _itemsize(d) for _, n, d in work])
        output_offsets, self.output_bytes = _layout([n * _itemsize(d) for _, n, d in outputs])
        self.bytes = self.output_bytes + total
        refuse_beyond(traced.name, shapes, self.output_bytes, total)
        self.table = np.array([0] * (2 * count) + sizes + program.lists, np.int64)
        self.table[1 : 2 * count : 2] = [number(s.size) for s in program.stores]
        try:
            self.arena = np.empty(total + ALIGN, np.uint8)
        except MemoryError:  # a limit of the process's own
            raise too_large(traced.name, shapes, self.output_bytes, total) from None
        self.large = total > THREADS_FROM
        base = -(-address_of(self.arena) // ALIGN) * ALIGN
        for (at, _, _), offset in zip(work, offsets, strict=True):
            self.table[at] = base + offset
        self.output: np.ndarray | None = None
        self.address = 0  # of the last results
        self.known: dict | None = None
        self.layout: Any = None  # what a training step has found out about where gradients lie
        self.output_at = np.array([at for at, _, _ in outputs], np.int64)
        self.output_offsets = np.array(output_offsets, np.int64)
        by_name = {
            program.stores[at // 2].name: o for (at, _, _), o in zip(outputs, output_offsets, strict=True)
        }
        parts = [
            (
                by_name[r.store.name],
                tuple(number(n) for n in r.shape),
                np.dtype(r.store.dtype if r.store.dtype != "b1" else bool),
            )
            for r in program.results
        ]
        count = len(traced.outputs)
        self.values, self.gradients = parts[:count], parts[count:]
        self.scratch: list[np.ndarray] = []
        self.rooms: list[
            tuple[int, int, int, int]
        ] = []  # the table's address and length, a thread's scratch's
        self.run_part, self.scratch_type = self.module.run, program.scratch
        self._rooms_for(1)

    def _rooms_for(self, threads: int) -> None:
        while len(self.rooms) < threads:
            self.scratch.append(np.empty(SCRATCH, self.scratch_type))
            self.rooms.append(
                (address_of(self.table), len(self.table), address_of(self.scratch[-1]), SCRATCH)
            )

    def run(self, arrays: list, threads: int) -> np.ndarray:
        held: list[np.ndarray] = []  # copies that live as long as the call
        for entry in self.arguments:
            array = arrays[entry[0]]
            if array is not entry[2]:  # the array of the last call is still where it was
                self._enter(entry, array, held)
        for entry in self.leaves:
            array = entry[0]._value
            if array is not entry[2]:
                self._enter(entry, array, held)
        flat = self._output()
        bad = self._run_threads(threads, held) if threads > 1 and self.large else self.run_alone()
        self.refuse(bad)
        return flat

    def know(self, known: Known) -> None:
        """Put the addresses of these leaves into the table, all at once."""
        if self.known is not known.places:
            own = [(e, known.places[e[0].number]) for e in self.leaves if e[0].number in known.places]
            self.known, self.known_leaves = known.places, own
            self.known_at = np.array([e[1] for e, _ in own], np.int64)
            self.known_from = np.array([k for _, k in own], np.int64)
        for entry, k in self.known_leaves:
            entry[2] = known.arrays[k]
        self.table[self.known_at] = known.addresses[self.known_from]

    def _enter(self, entry: list, array: np.ndarray, held: list[np.ndarray]) -> None:
        """Put the address of an array into the table, or that of a copy in the order in which it is read."""
        entry[2] = array
        if entry[3] or not array.flags.c_contiguous or not array.flags.aligned:
            array = np.require(array, np.int64 if entry[3] else None, ["C", "A", "O"])
            entry[2] = None  # looked at again at the next call
            held.append(array)
        self.table[entry[1]] = address_of(array)

    def _output(self) -> np.ndarray:
        """An array for the results: the last one, if its results were dropped, else a new one.

        Memory that was just used is in the cache, and its address stands in the table already.
        """
        if self.output is None or getrefcount(self.output) > 2:
            # Between gradients lie zeros, so that a training step may take all of them as one array.
            self.output = (np.zeros if self.gradients else np.empty)(self.output_bytes, np.uint8)
            self.address = address_of(self.output)
            self.table[self.output_at] = self.output_offsets + self.address
        return self.output

    def run_alone(self) -> int:
        return self.run_part(*self.rooms[0], 0, 1, 0, len(self.parallel))

    def _part(self, held: list, p: int, threads: int, k: int) -> int:
        """Thread p's part of stage k: the pool so holds all memory that it reads and writes, whoever lets go of it."""
        return self.run_part(*self.rooms[p], p, threads, k, k + 1)

    def _run_threads(self, threads: int, held: list) -> int:
        pool, bad, stages = _pool(threads), 0, len(self.parallel)
        self._rooms_for(threads)
        k = 0
        while k < stages:
            if self.parallel[k]:
                futures = [pool.submit(self._part, held, p, threads, k) for p in range(1, threads)]
                bad = bad or self._part(held, 0, threads, k)
                for future in futures:
                    bad = bad or future.result()
                k += 1
            else:
                following = next((j for j in range(k, stages) if self.parallel[j]), stages)
                bad = bad or self.run_part(*self.rooms[0], 0, 1, k, following)
                k = following
        return bad


THREADS_FROM = 1 << 20  # bytes of values in between: below, waking threads takes longer than they save
PLANS = 8  # sizes that a program is kept laid out for
SCRATCH = 220_000  # numbers; more than matmul_sum asks for at any size
_pools: dict[int, ThreadPoolExecutor] = {}
_making = lock()  # one program is made at a time; what is traced may make another


def _pool(threads: int) -> ThreadPoolExecutor:
    pool = _pools.get(threads)
    if pool is None:  # two threads may come here at once: a pool that got no work has no threads
        pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="minigrad")
    return _pools.setdefault(threads, pool)


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads: it makes pools of its own
    os.register_at_fork(after_in_child=_pools.clear)


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    offsets, total = [], 0
    for size in sizes:
        offsets.append(total)
        total += -(-size // ALIGN) * ALIGN
    return offsets, total


def _itemsize(dtype: str) -> int:
    return int(dtype[1:])


def address_of(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def view_of(flat: np.ndarray, part: tuple) -> np.ndarray:
    offset, shape, dtype = part
    return np.ndarray(shape, dtype, flat, offset)


def constant(value: np.ndarray) -> Tensor:
    """A leaf around an array that nobody else writes to, without a copy."""
    node = Tensor.__new__(Tensor)
    fill_node(node, value.view(), None, (), (), False)  # of its own, as a node's array cannot be written to
    return node


__all__ = ["CannotCompile", "Compiled", "Gradients", "compile"]
