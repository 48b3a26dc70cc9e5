"""A compiled function as a WebAssembly module: the source that runs natively, printed for wasm32.

The program is laid out in the module's one memory, compiled by LLVM in a child process, and its object made a module.
Memory begins with the stack, which grows down: where it is too small, the machine stops.  There follow the table,
parameters and constants with their values, arguments, results and gradients, scratch, and values in between.

The binary format is that of the WebAssembly Core Specification 2.0, chapter 5 (5.2.2 numbers, 5.5 sections).  What an
object has beside is described in Linking.md of the WebAssembly tool conventions: memory, stack pointer and function table
are imported, and custom sections tell a linker what to move.  LLVM writes what holds where nothing is moved: data from
address 0, functions from place 1 of the table.  So it stays, as there is one object (LLVM has joined program and kernels
before), and linking is to put definitions in place of the imports.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files
from ..errors import InputError
from ..names import unique
from ..tensor import Tensor
from ..trace import everywhere
from .call import Call
from .places import CHECKS, DEFECT, NARROW, product_of
from .plan import ALIGN, SCRATCH, Plan, address_of, numbers_of

if TYPE_CHECKING:
    from .variant import Variant

FEATURES = "+simd128,+bulk-memory,+sign-ext"  # all of them in the specification's 2.0
PAGE = 1 << 16
MOST = 1 << 31  # bytes: LLVM supposes that no two numbers of an array lie further apart
OWN_DATA = 1 << 12  # bytes at the stack's end that LLVM's data may take
MEMORY, TABLE, STACK_POINTER = "__linear_memory", "__indirect_function_table", "__stack_pointer"
TYPES, IMPORTS, FUNCTIONS, TABLES, MEMORIES, GLOBALS, EXPORTS, DATA, DATA_COUNT = 1, 2, 3, 4, 5, 6, 7, 11, 12


class Wasm:
    """What `Compiled.wasm` returns: the module's `bytes`, and its `layout`, plain data that json can write."""

    def __init__(self, module: bytes, layout: dict[str, Any]):
        self.bytes, self.layout = module, layout

    def save(self, path) -> Path:
        """Write the module, and its layout as path.json, each beside its place and then into it; raises InputError."""
        path = files.write(path, self.bytes, what="the module")
        files.write(f"{path}.json", json.dumps(self.layout, indent=1).encode(), what="its layout")
        return path


def make(who: str, variant: Variant, call: Call, function: Callable) -> Wasm:
    """The module for arguments of these shapes; see `Compiled.wasm`."""
    frame = Frame(variant, call)
    module = module_of(who, variant, frame)
    layout = frame.layout(call.whole.names(function))
    return Wasm(module, {"sha256": hashlib.sha256(module).hexdigest(), **layout})


def module_of(who: str, variant: Variant, frame: Frame) -> bytes:
    """The module that has a frame's memory."""
    if frame.end > MOST:
        raise InputError(f"{who}: it takes {frame.end:,} bytes, of {MOST:,} at most; give smaller arguments")
    return link(who, object_code(who, variant.program.source, frame.entry()), frame)


class Frame:
    """Where everything of a program lies in the memory of its module."""

    def __init__(self, variant: Variant, call: Call):
        self.variant, self.call, self.plan = variant, call, Plan(variant, call.shapes)
        # What is narrower is int64 in a program.
        self.arrays = [a.astype("int64") if str(a.dtype) in NARROW else a for a in call.arrays]
        self.stack = self.end = PAGE + -(-self._rows() // PAGE) * PAGE
        self.table_at = self.room(self.plan.table.nbytes)
        self.leaves: list[Tensor] = [leaf for leaf, *_ in self.plan.leaves]
        self.offsets = {leaf.number: self.room(leaf._value.nbytes) for leaf in self.leaves}
        self.image_end = self.end
        for symbol, array in zip(variant.traced.arguments, self.arrays, strict=True):
            if symbol.number not in self.offsets:  # the same tensor twice has one place
                self.offsets[symbol.number] = self.room(array.nbytes)
        self.output_at = self.room(self.plan.output_bytes)
        self.scratch_at = self.room(SCRATCH * int(variant.program.scratch[1]))
        self.arena_at = self.room(self.plan.arena.nbytes)
        self.end = -(-self.end // PAGE) * PAGE

    def room(self, size: int) -> int:
        at, self.end = self.end, self.end + -(-size // ALIGN) * ALIGN
        return at

    def _rows(self) -> int:
        """Bytes that reductions ask for: at most two rows of what stays (sums of columns) or of what is reduced."""
        number, most = numbers_of(self.variant.traced, self.call.shapes), 0
        for node in everywhere([*self.variant.stages_of.values()][-1]):
            if node.op is not None and node.op.name in ("sum", "logsumexp"):
                before, after = (number(product_of(tuple(x.shape))) for x in (node.inputs[0], node))
                most = max(most, after, before // max(after, 1))
        return 16 * most

    def entry(self) -> list[int]:
        """What the program is run with: addresses and lengths of table and scratch, part, parts, first and last stage."""
        table, stages = (self.table_at, len(self.plan.table)), (0, len(self.plan.parallel))
        return [*table, self.scratch_at, SCRATCH, 0, 1, *stages]

    def image(self) -> bytes:
        """What stands in memory from the table on: the table, constants, parameters."""
        table, program = self.plan.table.copy(), self.variant.program
        moved = self.arena_at - -(-address_of(self.plan.arena) // ALIGN) * ALIGN
        for k, store in enumerate(program.stores):
            given = store.node is not None and store.kind in ("input", "constant")
            table[2 * k] = self.offsets[store.node.number] if given else table[2 * k] + moved  # type: ignore[union-attr]
        table[self.plan.output_at] = self.plan.output_offsets + self.output_at
        image = bytearray(self.image_end - self.table_at)
        for at, array in [(self.table_at, table), *((self.offsets[n.number], n._value) for n in self.leaves)]:
            data = np.asarray(array, array.dtype.newbyteorder("<")).tobytes()
            image[at - self.table_at : at - self.table_at + len(data)] = data
        return bytes(image)

    def layout(self, words: Sequence[str]) -> dict[str, Any]:
        """Plain data about all that the host reads or writes; words : what the function calls its arguments."""
        traced, plan = self.variant.traced, self.plan
        checks = [f"{traced.name}: {check}" for check in self.variant.program.checks]
        targets = [traced.arguments[k] for k in self.variant.of_arguments] + self.variant.leaves
        names: dict[int, str] = {}
        taken: set[str] = set()
        for a, word in zip(traced.arguments, words, strict=True):
            names.setdefault(a.number, unique(word, taken))
        # Parameters first, and the oldest, so that each has one name with gradients and without.
        for n in sorted([*self.leaves, *self.variant.leaves], key=lambda n: (not n.requires_grad, n.number)):
            if n.number not in names:
                names[n.number] = unique(str(n.name or "unnamed"), taken)

        def fact(offset: int, shape: Sequence[int], dtype: object) -> dict[str, Any]:
            return {"offset": int(offset), "dtype": str(dtype), "shape": [int(n) for n in shape]}

        def place(n: Tensor, array: np.ndarray) -> dict[str, Any]:
            return fact(self.offsets[n.number], array.shape, array.dtype)

        arguments = zip(words, traced.arguments, self.arrays, strict=True)
        results = [fact(self.output_at + at, shape, of) for at, shape, of in plan.values + plan.gradients]
        gradients = results[len(plan.values) :]
        return {
            "bytes": self.end,
            "arguments": [{"name": word, **place(a, array)} for word, a, array in arguments],
            "parameters": {names[n.number]: place(n, n._value) for n in self.leaves if n.requires_grad},
            "constants": {names[n.number]: place(n, n._value) for n in self.leaves if not n.requires_grad},
            "results": results[: len(plan.values)],
            "gradients": {names[t.number]: g for t, g in zip(targets, gradients, strict=True)},
            "table": fact(self.table_at, plan.table.shape, plan.table.dtype),
            "scratch": fact(self.scratch_at, (SCRATCH,), np.dtype(self.variant.program.scratch)),
            "checks": {str(CHECKS - k): check for k, check in enumerate(checks, 1)},  # by what `run` returns
        }


def object_code(who: str, source: str, entry: Sequence[int]) -> bytes:
    """The object, from a process of its own: LLVM ends the process on what a target does not know.

    Kernels are written for the vectors that machine.py names when it is imported, which here are others than natively.
    """
    program = f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as wasm; wasm.write_object({entry})"
    machine = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": FEATURES}
    try:
        run, env = [sys.executable, "-c", program], {**os.environ, **machine}
        done = subprocess.run(run, input=source.encode(), capture_output=True, env=env)
    except (OSError, TypeError) as error:  # TypeError: nobody knows where this Python is
        raise InputError(f"{who}: no process can be started for LLVM: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
        raise InputError(f"{who}: LLVM cannot make WebAssembly of it: {said.splitlines()[-1]}")
    return done.stdout


def write_object(entry: Sequence[int]) -> None:
    """The child's part: a program's source from standard input, with its kernels, as one object to standard output."""
    from llvmlite import binding, ir

    from . import llvm, machine

    def on_stack(writer: llvm.Writer, count: Any, kind: ir.Type) -> llvm.Array:
        """The memory of a reduction, which asks for it once: there is no malloc."""
        return llvm.Array(writer.build.alloca(kind, writer.whole(count)), kind, writer.whole(count))

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    wasm32 = binding.Target.from_triple("wasm32-unknown-unknown")
    target = wasm32.create_target_machine(cpu="mvp", features=FEATURES, opt=machine.LEVEL)
    llvm.Writer.memory, machine._target = on_stack, lambda level: target  # type: ignore[assignment]

    code = llvm.program_code(sys.stdin.buffer.read().decode())
    module, program = binding.parse_assembly(_exported(entry)), binding.parse_assembly(code.text)
    program.get_function("run").name = "program"
    module.link_in(program)
    wanted = [*code.needs]
    for symbol in wanted:  # which grows meanwhile
        code = llvm.kernel_code(symbol)
        module.link_in(binding.parse_assembly(code.text))
        wanted += [other for other in code.needs if other not in wanted]
    for function in module.functions:
        if not function.is_declaration and function.name != "run":
            function.linkage = "internal"
            function.add_function_attribute("noinline")  # kernels stand once, and give their stack back
    sys.stdout.buffer.write(machine.object_code(str(module)))


def _exported(entry: Sequence[int]) -> str:
    """The function without arguments that runs all of the program."""
    from llvmlite import ir

    byte, short, long = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
    module = ir.Module()
    program = ir.Function(module, ir.FunctionType(long, [byte, long] * 2 + [long] * 4), "program")
    run = ir.Function(module, ir.FunctionType(short, []), "run")
    build = ir.IRBuilder(run.append_basic_block())
    given = [long(n).inttoptr(byte) if k in (0, 2) else long(n) for k, n in enumerate(entry)]
    build.ret(build.trunc(build.call(program, given), short))
    return str(module)


def _number(n: int) -> bytes:
    """LEB128, without a sign."""
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + _number(n >> 7)


def _read(stream: BytesIO) -> int:
    (byte,) = stream.read(1)
    return byte if byte < 128 else (byte & 127) + (_read(stream) << 7)


def _address(n: int) -> bytes:
    """The expression i32.const n, whose number has a sign: five bytes leave it 0."""
    return b"\x41" + bytes([n >> k & 127 | 128 for k in (0, 7, 14, 21)]) + bytes([n >> 28]) + b"\x0b"


def _sections(code: bytes) -> dict[int, bytes]:
    """Contents by number, without those for linkers, whose number is 0."""
    stream, found = BytesIO(code[8:]), {}
    while kind := stream.read(1):
        found[kind[0]] = stream.read(_read(stream))
    return {kind: content for kind, content in found.items() if kind}


def _imports(content: bytes) -> dict[str, int]:
    """What an object asks for, by name, and the last number of its type: of a table, how many places it has."""
    stream, found = BytesIO(content), {}
    for _ in range(_read(stream)):
        _, name = (stream.read(_read(stream)).decode() for _ in range(2))
        for _ in range((1, 3, 2, 2)[_read(stream)]):  # a function's, a table's, a memory's, a global's
            found[name] = _read(stream)
    return found


def link(who: str, code: bytes, frame: Frame) -> bytes:
    """An object as a module that has a frame's memory."""
    own = _sections(code)
    imports, data = _imports(own.pop(IMPORTS)), own.pop(DATA, b"\0")
    missing = sorted(imports.keys() - {MEMORY, TABLE, STACK_POINTER})
    if missing:
        raise InputError(
            f"{who}: it calls {', '.join(missing)}, for which minigrad has no code of its own; write it with exp, log and "
            "sqrt, or compute it outside and pass it as an argument"
        )
    types, functions = BytesIO(own[TYPES]), BytesIO(own[FUNCTIONS])
    first = _read(types), types.read(4), _read(functions), _read(functions)
    known = first[1::2] == (b"\x60\0\1\x7f", 0) and not own.keys() & {TABLES, MEMORIES, GLOBALS, EXPORTS}
    if not known or len(data) > OWN_DATA:  # the first function is the one without arguments
        raise InputError(f"{who}: LLVM's object is not as expected ({DEFECT})")
    if TABLE in imports:
        own[TABLES] = b"\1\x70\0" + _number(imports[TABLE] + 1)  # place 0 stays empty
    own[MEMORIES] = b"\1\1" + _number(frame.end // PAGE) * 2
    if STACK_POINTER in imports:
        own[GLOBALS] = b"\1\x7f\1" + _address(frame.stack)
    own[EXPORTS] = b"\2\6memory\2\0\3run\0\0"
    segments, image = BytesIO(data), frame.image()
    own[DATA] = _number(_read(segments) + 1) + segments.read()
    own[DATA] += b"\0" + _address(frame.table_at) + _number(len(image)) + image
    own.pop(DATA_COUNT, None)  # only what copies from segments has to have it
    return code[:8] + b"".join(bytes([kind]) + _number(len(own[kind])) + own[kind] for kind in sorted(own))
