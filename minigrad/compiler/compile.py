"""`compile`: trace, rewrite, emit, load, and call with as little between as can be.

A `Compiled` keeps one program (variant.py) for every combination of argument types that it has met; sizes are run-time
values, so another number of steps or sequences meets a program that is there.
"""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..arguments import taken_apart
from ..errors import DTypeError, GraphError, InputError
from ..locks import lock
from ..modes import recording
from ..names import name_of, printable
from ..reverse import adding
from ..tensor import Tensor, as_tensor, describe, modes, no_grad
from .call import NONE, Call, Gradients, constant
from .places import DEFECT, CannotCompile
from .plan import view_of
from .variant import Variant, eager_run, reasons

if TYPE_CHECKING:
    from .wasm import Wasm

_making = lock()  # one program is made at a time; what is traced may make another


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
        return values, Gradients(variant.targets(call), plan.gradients, flat)

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

        who = f"wasm of {self.name}"
        return make(who, *self.alone(who, arguments, gradients, named), self.function)

    def alone(
        self, who: str, arguments: Sequence, gradients: bool, named: Mapping[str, Any] = NONE
    ) -> tuple[Variant, Call]:
        """The program of a call, for who runs it elsewhere; raises InputError where there is none that a module can have."""
        if self.threads > 1:
            raise InputError(f"{who}: a module has one thread, not {self.threads}; compile it with threads=1")
        if modes()[3]:
            raise InputError(f"{who}: while a function is traced, nothing has sizes; make the module outside")
        variant, call = self.variant(arguments, gradients, named)
        if variant is None:
            reason = call.reason or self.eager.get(call.key) or "anomaly mode is on"
            raise InputError(f"{who}: it runs eagerly, so there is no program to print: {reason}")
        return variant, call

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
                        with reasons(DEFECT):
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


__all__ = ["CannotCompile", "Compiled", "Gradients", "compile"]
