"""The emitted source, and the kernels that it calls, as LLVM instructions: what compiled programs run as.

The source is a small language over flat arrays, and every type in it follows from those of the arguments: so one walk of
its syntax tree writes the instructions that Numba would, in a hundredth of the time.  Meaning is Numba's, which runs the
same source as the reference in tests: integers widen to 64 bits and are divided downwards, x / 0 is what IEEE says, x // 0
is 0, and each function's arithmetic has the freedoms (flags) that its decorator gives.  What is not in the language raises
`UnknownError`; nothing is guessed.  A kernel is made apart from the programs, once for each tuple of argument types.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from llvmlite import ir

from . import instructions
from .instructions import LOOP_FLAGS, REDUCTION_FLAGS, Kind, function_named

I1, I8, I32, I64, F4, F8 = (
    ir.IntType(1),
    ir.IntType(8),
    ir.IntType(32),
    ir.IntType(64),
    ir.FloatType(),
    ir.DoubleType(),
)
Value = Any  # LLVM's, whose types no checker of Python's knows
SCALARS = {"f4": F4, "f8": F8, "i4": I32, "i8": I64, "b1": I1}
ELEMENTS = {**SCALARS, "b1": I8}  # as they stand in memory
CODES = {I8: "b1"} | {kind: code for code, kind in SCALARS.items()}
FLAGS = {"loop": LOOP_FLAGS, "stage": (), "entry": (), "kernel": (), "reduction": REDUCTION_FLAGS}
LOWEST = {F4: -3.4028234663852886e38, F8: -1.7976931348623157e308}
FLAGGED = {"fadd", "fsub", "fmul", "fdiv", "fcmp"}
RELATIONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
BITS = {ast.BitAnd: "and_", ast.BitOr: "or_", ast.BitXor: "xor"}
WHOLE = {ast.Add: ("add", operator.add), ast.Sub: ("sub", operator.sub), ast.Mult: ("mul", operator.mul)}
TEXTS = ("kernels", "runtime")  # where the kernels stand
ENTRY = "run"
# LLVM takes the square of the time over what is long: so many statements one after the other become a function.
TOGETHER, LONG = 48, 128
# Of one call of LLVM, which hears no Ctrl-C: longer modules are compiled in pieces, function by function.
PIECE = 100_000  # characters
HELD = 256  # arrays that a function reads at its beginning and keeps: of more, LLVM cannot keep all anyway
RUN = ("pi8", "pf4", "i8", "i8", "i8", "i8")  # table, scratch, part, parts, first, last


class UnknownError(NotImplementedError):
    """What stands in a source is not in the language that is written here."""


class Array(NamedTuple):
    """A flat array: its address, the type of its elements, how many there are."""

    address: Value
    element: ir.Type
    count: Value


class Code(NamedTuple):
    """A module in LLVM's language, the kernels that it calls (symbols, which name a kernel and its argument types), and
    the same as modules that are compiled one by one and linked: one, or where it is long, several."""

    text: str
    needs: list[str]
    pieces: list[str]


def program_code(source: str) -> Code:
    """All of an emitted program; `run` is what it exports."""
    definitions = {d.name: d for d in ast.parse(source).body if isinstance(d, ast.FunctionDef)}
    module = Module({**_kernels(), **definitions}, set(definitions))
    signature = ast.unparse(definitions[ENTRY].decorator_list[0])
    kinds = [k.replace("pf4", "pf8") if "float64" in signature else k for k in RUN]
    module.function(ENTRY, kinds).linkage = ""
    return module.code()


def kernel_code(symbol: str) -> Code:
    """One kernel, for the argument types that its symbol tells."""
    name, *kinds = symbol.split(".")
    module = Module(_kernels(), {name})
    if name == "block":
        kind = Kind(ELEMENTS[kinds[0][1:]])
        function = ir.Function(module.llvm, instructions.block_type(kind), symbol)
        function.attributes.add("nounwind")
        instructions.write_block(kind, ir.IRBuilder(function.append_basic_block()), *function.args)
    else:
        module.function(name, kinds).linkage = ""
    return module.code()


@functools.cache
def _kernels() -> dict[str, ast.FunctionDef]:
    """The definitions of kernels.py and runtime.py, read as text: importing them would import Numba."""
    found = {}
    for statement in _statements():
        if isinstance(statement, ast.FunctionDef) and _decorator(statement) in (
            "kernel",
            "reduction",
            "njit",
        ):
            found[statement.name] = statement
    return found


@functools.cache
def _constants() -> dict[str, int]:
    """Whole numbers that have a name."""
    found = {
        name: value for name, value in vars(instructions).items() if name.isupper() and type(value) is int
    }
    for statement in _statements():
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int(value))):
                found[name] = value
    return found


def _statements() -> list[ast.stmt]:
    specs = [importlib.util.find_spec(f"{__package__}.{name}") for name in TEXTS]
    return [s for spec in specs for s in ast.parse(spec.loader.get_source(spec.name)).body]  # type: ignore[union-attr]


def _decorator(definition: ast.FunctionDef) -> str:
    (decorator, *_) = [ast.unparse(d) for d in definition.decorator_list] or [""]
    return decorator.partition("(")[0]


class Module:
    """LLVM functions, one for each function of the source and tuple of argument types."""

    def __init__(self, definitions: dict[str, ast.FunctionDef], own: set[str]):
        self.definitions, self.own = definitions, own  # what is not its own is called as a kernel
        self.llvm = ir.Module("minigrad")
        self.needs: list[str] = []

    def code(self) -> Code:
        text = str(self.llvm)
        return Code(text, self.needs, [text] if len(text) < 2 * PIECE else list(self.pieces()))

    def pieces(self) -> Iterator[str]:
        """Modules of some of the functions each, with declarations of those that they call in others."""
        functions = {f.name: f for f in self.llvm.functions}
        declared = ir.Module()
        facts = "\n".join(map(str, self.llvm.metadata))
        texts: dict[str, str] = {}
        last = list(functions)[-1]
        for name, function in functions.items():
            if not function.is_declaration:
                function.linkage = ""  # the others are to find it
                texts[name] = str(function)
            if name != last and sum(map(len, texts.values())) < PIECE:
                continue
            called = {n for text in texts.values() for n in CALLED.findall(text)} - set(texts)
            yield "\n".join(
                [*(_declaration(declared, functions[n]) for n in sorted(called)), *texts.values(), facts]
            )
            texts = {}

    def function(self, name: str, kinds: Sequence[str]) -> ir.Function:
        """The function for arguments of these kinds: ``f4`` a number, ``pf4`` an array, as an address and a count."""
        definition = self.definitions.get(name)
        if definition is None or len(definition.args.args) != len(kinds):
            raise UnknownError(f"{name}({', '.join(kinds)})")
        own = name in self.own
        symbol = name if name == ENTRY else ".".join([name, *kinds])
        if symbol in self.llvm.globals:
            return self.llvm.globals[symbol]
        arguments: list[ir.Type] = []
        for kind in kinds:
            arguments += [ELEMENTS[kind[1:]].as_pointer(), I64] if kind[0] == "p" else [SCALARS[kind]]
        returns = any(isinstance(s, ast.Return) and s.value is not None for s in ast.walk(definition))
        function = ir.Function(
            self.llvm, ir.FunctionType(I64 if returns else ir.VoidType(), arguments), symbol
        )
        function.attributes.add("nounwind")
        if _decorator(definition) == "loop":
            # verify.py holds programs to it; LLVM would compare all arrays at run time, and leaves short rows scalar.
            for argument in function.args:
                if isinstance(argument.type, ir.PointerType):
                    argument.add_attribute("noalias")
        if own:
            function.linkage = "internal"
            function.attributes.add("noinline")  # or each call of a loop is optimised anew
            Writer(self, function, definition, kinds).write()
        else:
            self.needs.append(symbol)
        return function

    def part(self, name: str, of: ir.FunctionType) -> ir.Function:
        """A function for a part of another one."""
        function = ir.Function(self.llvm, of, self.llvm.get_unique_name(f"{name}.part"))
        for attribute in ("nounwind", "noinline"):
            function.attributes.add(attribute)
        function.linkage = "internal"
        return function

    def block(self, kind: Kind) -> ir.Function:
        """The product of one panel, which several kernels share."""
        symbol = f"block.p{CODES[kind.scalar]}"
        if symbol not in self.llvm.globals:
            self.needs.append(symbol)
        return function_named(self.llvm, instructions.block_type(kind), symbol)


CALLED = re.compile(r'@"([^"]+)"')


def _declaration(module: ir.Module, function: ir.Function) -> str:
    declared = function_named(module, function.ftype, function.name)
    declared.attributes.add("nounwind")
    return str(declared)


class Writer:
    """Writes the body of one function."""

    def __init__(
        self, module: Module, function: ir.Function, definition: ast.FunctionDef, kinds: Sequence[str]
    ):
        self.module, self.function, self.definition = module, function, definition
        self.build: Any = ir.IRBuilder(function.append_basic_block("entry"))
        self.slots: dict[str, Value] = {}  # of numbers that are set in more than one place
        # Arrays, and numbers that have no slot, by the block in which they got their names.
        self.scopes: list[dict[str, Any]] = [{}]
        self.once = _set_once(definition)
        self.following: list[ir.Block] = []  # where `continue` goes
        self.owned: list[Value] = []  # memory to be given back
        self.choosing = 0  # inside of an expression of which both ways are computed
        self.looked_up = _looked_up(definition)  # arrays that are read from the table where they are used
        values = iter(function.args)
        for argument, kind in zip(definition.args.args, kinds, strict=True):
            if kind[0] == "p":
                self.assign(argument.arg, Array(next(values), ELEMENTS[kind[1:]], next(values)))
            else:
                self.assign(argument.arg, next(values))

    def write(self) -> None:
        self.statements(self.definition.body)
        if not self.build.block.is_terminated:
            self.leave(None)
        flags = FLAGS[_decorator(self.definition)]
        for block in self.function.blocks:
            for instruction in block.instructions:
                if instruction.opname in FLAGGED and not instruction.flags:
                    instruction.flags.extend(flags)
                elif instruction.opname == "call" and instruction.type in (F4, F8):
                    instruction.fastmath.update(flags)

    # Statements.

    def statements(self, body: Sequence[ast.stmt]) -> None:
        if len(body) > LONG and _decorator(self.definition) in (
            "stage",
            "entry",
        ):  # not what runs for each element
            body = self.outlined(body)
        for statement in body:
            if self.build.block.is_terminated:
                raise UnknownError(f"what can never run: {ast.unparse(statement)}")
            self.statement(statement)

    def outlined(self, body: Sequence[ast.stmt]) -> Sequence[ast.stmt]:
        """Write a long body, most of it as functions that are called; the statements that are left to be written."""
        k = next((k for k, s in enumerate(body) if not isinstance(s, ast.Assign)), len(body))
        for s in body[:k]:  # what all others read
            self.statement(s)
        last = {n.id: j for j, s in enumerate(body) for n in ast.walk(s) if isinstance(n, ast.Name)}
        while k < len(body):
            stop = min(len(body), k + TOGETHER)
            while stop < len(body) and isinstance(body[stop - 1], ast.Assign):  # the next one may read it
                stop += 1
            part = body[k:stop]
            if any(isinstance(n, (ast.Return, ast.Continue)) for s in part for n in ast.walk(s)):
                return body[k:]
            self.call_of(part, lambda name, stop=stop: last[name] >= stop)
            k = stop
        return ()

    def call_of(self, part: Sequence[ast.stmt], later: Callable[[str], bool]) -> None:
        """Statements as a function of the names that they read; what they set, and others read, is given as an address."""
        used = [n for s in part for n in ast.walk(s) if isinstance(n, ast.Name)]
        for n in used:
            if isinstance(n.ctx, ast.Store) and n.id not in self.slots and later(n.id):
                with (
                    self.build.goto_entry_block()
                ):  # all numbers are of 64 bits outside of loops over elements
                    self.slots[n.id] = self.build.alloca(I64, name=n.id)
        looked_up = {n.id: self.looked_up[n.id] for n in used if n.id in self.looked_up}
        words = list(dict.fromkeys([n.id for n in used] + ["table"] * bool(looked_up)))
        written = {n.id for n in used if isinstance(n.ctx, ast.Store) and n.id in self.slots}
        arrays = {w: scope[w] for scope in self.scopes for w in words if w in scope and w not in written}
        numbers = {
            w: self.named(w) for w in words if w in self.slots and w not in written and w not in arrays
        }
        given = {**arrays, **numbers}
        kinds = [f"p{CODES[v.element]}" if isinstance(v, Array) else CODES[v.type] for v in given.values()]
        values = [x for v in given.values() for x in ((v.address, v.count) if isinstance(v, Array) else (v,))]
        places = {w: self.slots[w] for w in words if w in written}
        of = ir.FunctionType(ir.VoidType(), [v.type for v in (*values, *places.values())])
        function = self.module.part(self.function.name, of)
        names = ast.arguments([], [ast.arg(w) for w in given], None, [], [], None, [])
        definition = ast.FunctionDef(function.name, names, list(part), self.definition.decorator_list)
        writer = Writer(self.module, function, definition, kinds)
        writer.slots |= dict(zip(places, function.args[len(values) :], strict=True))
        writer.looked_up = looked_up
        writer.write()
        self.build.call(function, [*values, *places.values()])

    @contextmanager
    def inside(self, block: ir.Block) -> Iterator[None]:
        """A block of statements of its own: arrays that get a name in it lose it at its end."""
        self.build.position_at_end(block)
        self.scopes.append({})
        yield
        self.scopes.pop()

    def statement(self, s: ast.stmt) -> None:
        match s:
            case ast.Assign(targets=[ast.Name(id=name)]) if name in self.looked_up:
                pass
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                for target, value in zip(names, [self.value(v) for v in values], strict=True):
                    self.store(target, value)
            case ast.Assign(targets=targets, value=value):
                value = self.value(value)
                for target in targets:
                    self.store(target, value)
            case ast.AugAssign(target=target, op=op, value=value):
                self.store(target, self.arithmetic(type(op), self.value(target), self.value(value)))
            case ast.For(
                target=ast.Name(id=name), iter=ast.Call(ast.Name("range"), limits), body=body, orelse=[]
            ):
                self.loop(name, limits, body)
            case ast.While(test=test, body=body, orelse=[]):
                self.repeat(test, body)
            case ast.If(test=test, body=body, orelse=orelse):
                self.branch(self.truth(self.value(test)), body, orelse)
            case ast.Continue():
                self.build.branch(self.following[-1])
            case ast.Return(value=value):
                self.leave(value)
            case ast.Expr(value=ast.Constant(value=str())):
                pass  # a docstring
            case ast.Expr(value=ast.Call() as call):
                self.value(call)
            case _:
                raise UnknownError(ast.unparse(s))

    def store(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name(id=name):
                self.assign(name, value)
            case ast.Subscript(value=array, slice=index):
                array = self.array(array)
                truth = array.element == I8
                value = self.cast(value, I1 if truth else array.element)
                self.build.store(self.build.zext(value, I8) if truth else value, self.element(array, index))
            case _:
                raise UnknownError(ast.unparse(target))

    def assign(self, name: str, value: Any) -> None:
        if isinstance(value, Array):
            if name in self.slots or any(name in scope for scope in self.scopes[:-1]):
                raise UnknownError(f"{name} names another array in here than before")
            self.scopes[-1][name] = value
            return
        if name in self.once and name not in self.slots:
            self.scopes[-1][name] = value
            return
        if name not in self.slots:
            with self.build.goto_entry_block():
                self.slots[name] = self.build.alloca(value.type, name=name)
        slot = self.slots[name]
        if slot.type.pointee != value.type or any(name in scope for scope in self.scopes):
            raise UnknownError(f"{name} is of another type than before")
        self.build.store(value, slot)

    def loop(self, name: str, arguments: list[ast.expr], body: list[ast.stmt]) -> None:
        b = self.build
        values = [self.cast(self.value(a), I64) for a in arguments]
        values = [I64(0)] * (len(values) == 1) + values
        first, last, step = values + [I64(1)] * (len(values) == 2)
        known = _constant(step)
        rises = b.icmp_signed(">", step, I64(0)) if known is None else None

        def goes_on(i: Value) -> Value:
            if known is not None:
                return b.icmp_signed("<" if known > 0 else ">", i, last)
            return b.select(rises, b.icmp_signed("<", i, last), b.icmp_signed(">", i, last))

        before = b.block
        start, end, after = (b.append_basic_block(f"{name}.{part}") for part in ("loop", "next", "done"))
        b.cbranch(goes_on(first), start, after)
        with self.inside(start):
            counter = b.phi(I64, name)
            counter.add_incoming(first, before)
            self.assign(name, counter)
            self.rounds(body, end)
        b.position_at_end(end)
        following = b.add(counter, step, flags=("nsw",))
        counter.add_incoming(following, end)
        b.cbranch(goes_on(following), start, after)
        b.position_at_end(after)

    def repeat(self, test: ast.expr, body: list[ast.stmt]) -> None:
        b = self.build
        again, start, after = (b.append_basic_block(f"while.{part}") for part in ("test", "loop", "done"))
        b.branch(again)
        b.position_at_end(again)
        b.cbranch(self.truth(self.value(test)), start, after)
        with self.inside(start):
            self.rounds(body, again)
        b.position_at_end(after)

    def rounds(self, body: list[ast.stmt], following: ir.Block) -> None:
        """The statements of a loop; the next round begins at that block."""
        self.following.append(following)
        self.statements(body)
        self.following.pop()
        if not self.build.block.is_terminated:
            self.build.branch(following)

    def branch(self, test: Value, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        b = self.build
        after = b.append_basic_block("done")
        ways = [(b.append_basic_block("then"), body)]
        if orelse:
            ways.append((b.append_basic_block("else"), orelse))
        b.cbranch(test, ways[0][0], ways[-1][0] if orelse else after)
        for block, statements in ways:
            with self.inside(block):
                self.statements(statements)
                if not b.block.is_terminated:
                    b.branch(after)
        b.position_at_end(after)

    def leave(self, value: ast.expr | None) -> None:
        result = None if value is None else self.cast(self.value(value), I64)
        free = ir.FunctionType(ir.VoidType(), [I8.as_pointer()])
        for memory in self.owned:
            self.build.call(function_named(self.module.llvm, free, "free"), [memory])
        if result is None:
            self.build.ret_void()
        else:
            self.build.ret(result)

    # Expressions.

    def array(self, e: ast.expr) -> Array:
        value = self.value(e)
        if not isinstance(value, Array):
            raise UnknownError(f"{ast.unparse(e)} is not an array")
        return value

    def element(self, array: Array, index: ast.expr) -> Value:
        return self.build.gep(array.address, [self.cast(self.value(index), I64)], inbounds=True)

    def value(self, e: ast.expr) -> Any:
        """An expression's: an LLVM value, or an array."""
        b = self.build
        match e:
            case ast.Constant(value=bool(x)):
                return I1(int(x))
            case ast.Constant(value=int(x)):
                return I64(x)
            case ast.Constant(value=float(x)):
                return F8(x)
            case ast.Name(id=name):
                return self.named(name)
            case ast.Subscript(value=array, slice=ast.Slice(ast.expr() as low, ast.expr() as high, None)):
                array, first, last = self.array(array), self.value(low), self.value(high)
                return self.view(array, first, b.sub(last, first, flags=("nsw",)))
            case ast.Subscript(value=array, slice=index):
                array = self.array(array)
                x = b.load(self.element(array, index))
                return b.trunc(x, I1) if array.element == I8 else x
            case ast.UnaryOp(op=ast.USub(), operand=x):
                x = self.value(x)
                if isinstance(x, ir.Constant):
                    return x.type(-x.constant)
                return b.fneg(x) if x.type in (F4, F8) else b.neg(self.whole(x))
            case ast.UnaryOp(op=ast.Not(), operand=x):
                return b.not_(self.truth(self.value(x)))
            case ast.BinOp(left=x, op=op, right=y):
                return self.arithmetic(type(op), self.value(x), self.value(y))
            case ast.BoolOp(op=op, values=values):
                with self.both():
                    parts = [self.truth(self.value(v)) for v in values]
                return functools.reduce(b.and_ if isinstance(op, ast.And) else b.or_, parts)
            case ast.Compare(left=first, ops=ops, comparators=others):
                values = [self.value(v) for v in (first, *others)]
                pairs = zip(ops, values, values[1:], strict=False)
                return functools.reduce(b.and_, [self.compare(type(op), x, y) for op, x, y in pairs])
            case ast.IfExp(test=test, body=x, orelse=y):
                with self.both():
                    return self.chosen(self.truth(self.value(test)), self.value(x), self.value(y))
            case ast.Attribute(value=ast.Name(id="np"), attr="inf"):
                return F8(float("inf"))
            case ast.Attribute(value=ast.Name() as array, attr="size"):
                return self.array(array).count
            case ast.Attribute(value=ast.Call(ast.Attribute(ast.Name("np"), "finfo"), [of]), attr="min"):
                return self.kind_of(of)(LOWEST[self.kind_of(of)])
            case ast.Call(func=ast.Attribute(ast.Name("np"), "empty"), args=[count, kind], keywords=[]):
                return self.memory(self.value(count), self.kind_of(kind))
            case ast.Call(func=ast.Attribute(ast.Name("np"), "full"), args=[count, value], keywords=[]):
                value = self.value(value)
                array = self.memory(self.value(count), value.type)
                self.kernel("fill", [array, value])
                return array
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
                return self.call(name, [*arguments, *self.in_order(name, len(arguments), keywords)])
        raise UnknownError(ast.unparse(e))

    def named(self, name: str) -> Any:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        if name in self.slots:
            return self.build.load(self.slots[name])
        if name in self.looked_up:
            return self.value(self.looked_up[name])
        if name in _constants():
            return I64(_constants()[name])
        raise UnknownError(f"the name {name}")

    @contextmanager
    def both(self) -> Iterator[None]:
        """Both ways are computed, and one is taken: there must be nothing in them but numbers."""
        self.choosing += 1
        yield
        self.choosing -= 1

    def chosen(self, test: Value, x: Any, y: Any) -> Any:
        select = functools.partial(self.build.select, test)
        if isinstance(x, Array) and isinstance(y, Array) and x.element == y.element:
            return Array(select(x.address, y.address), x.element, select(x.count, y.count))
        return select(*self.alike(x, y))

    def whole(self, x: Value) -> Value:
        """An integer or a truth value as an integer of 64 bits."""
        if isinstance(x, Array) or not isinstance(x.type, ir.IntType):
            raise UnknownError("an integer is needed")
        return x if x.type == I64 else self.build.zext(x, I64) if x.type == I1 else self.build.sext(x, I64)

    def truth(self, x: Value) -> Value:
        if x.type == I1:
            return x
        return self.compare(ast.NotEq, x, x.type(0))

    def alike(self, x: Value, y: Value) -> tuple[Value, Value]:
        """Two numbers of one type: the wider, or where both are integers that differ, 64 bits."""
        if isinstance(x, Array) or isinstance(y, Array):
            raise UnknownError("arithmetic with an array")
        if x.type == y.type:
            return x, y
        if F8 in (x.type, y.type) and F4 in (x.type, y.type):
            return self.cast(x, F8), self.cast(y, F8)
        for one, other in ((x, y), (y, x)):  # 0 for 0.0
            if isinstance(one, ir.Constant) and one.type == I64 and other.type in (F4, F8):
                return self.cast(x, other.type), self.cast(y, other.type)
        return self.whole(x), self.whole(y)

    def arithmetic(self, op: type, x: Value, y: Value) -> Value:
        b = self.build
        x, y = self.alike(x, y)
        if x.type in (F4, F8):
            if op is ast.Pow:
                of = ir.FunctionType(x.type, [x.type] * 2)
                return b.call(function_named(self.module.llvm, of, f"llvm.pow.{_width(x.type)}"), [x, y])
            floats = {ast.Add: b.fadd, ast.Sub: b.fsub, ast.Mult: b.fmul, ast.Div: b.fdiv}
            if op in floats:
                return floats[op](x, y)
            if op in (ast.FloorDiv, ast.Mod):
                return self.divided_downwards(x, y, op is ast.Mod)
        elif op in (ast.FloorDiv, ast.Mod):
            return self.divided(self.whole(x), self.whole(y), op is ast.Mod)
        else:
            if op in BITS:
                x, y = (x, y) if x.type == I1 else (self.whole(x), self.whole(y))
                return getattr(b, BITS[op])(x, y)
            if op in WHOLE:
                name, of_constants = WHOLE[op]
                x, y = self.whole(x), self.whole(y)
                known = _constant(x), _constant(y)
                if None not in known and -(2**63) <= (z := of_constants(*known)) < 2**63:
                    return I64(z)
                return getattr(b, name)(x, y, flags=("nsw",))
        raise UnknownError(f"{op.__name__} of {x.type} and {y.type}")

    def divided(self, x: Value, y: Value, rest: bool) -> Value:
        """x // y or x % y: rounded downwards, and 0 where y is 0 or the quotient does not fit 64 bits."""
        b = self.build
        sound = _constant(y) not in (None, 0, -1)
        if not sound:
            lowest = b.and_(b.icmp_signed("==", x, I64(-(2**63))), b.icmp_signed("==", y, I64(-1)))
            senseless = b.or_(lowest, b.icmp_signed("==", y, I64(0)))
            y = b.select(senseless, I64(1), y)
        quotient, remainder = b.sdiv(x, y), b.srem(x, y)
        below = b.icmp_signed("<", b.xor(remainder, y), I64(0))
        lower = b.and_(below, b.icmp_signed("!=", remainder, I64(0)))
        result = (
            b.select(lower, b.add(remainder, y), remainder)
            if rest
            else b.select(lower, b.sub(quotient, I64(1)), quotient)
        )
        return result if sound else b.select(senseless, I64(0), result)

    def divided_downwards(self, x: Value, y: Value, rest: bool) -> Value:
        """x // y or x % y of floats, from the exact remainder; a remainder of 0 has the sign of y, as in Python."""
        b, zero = self.build, x.type(0)
        remainder = b.frem(x, y)
        other = b.xor(b.fcmp_ordered("<", remainder, zero), b.fcmp_ordered("<", y, zero))
        wrong = b.and_(other, b.fcmp_ordered("!=", remainder, zero))
        if rest:
            right = b.select(wrong, b.fadd(remainder, y), remainder)
            return b.select(b.fcmp_ordered("==", right, zero), self.signed_as(zero, y), right)
        exact = b.fdiv(b.fsub(x, remainder), y)
        exact = b.select(wrong, b.fsub(exact, x.type(1)), exact)
        below = self.intrinsic("floor", exact)
        near = b.select(
            b.fcmp_ordered(">", b.fsub(exact, below), x.type(0.5)), b.fadd(below, x.type(1)), below
        )
        plain = b.fdiv(x, y)
        near = b.select(b.fcmp_ordered("==", exact, zero), self.signed_as(zero, plain), near)
        return b.select(b.fcmp_ordered("==", y, zero), plain, near)

    def signed_as(self, size: Value, sign: Value) -> Value:
        of = ir.FunctionType(size.type, [size.type] * 2)
        function = function_named(self.module.llvm, of, f"llvm.copysign.{_width(size.type)}")
        return self.build.call(function, [size, sign])

    def compare(self, op: type, x: Value, y: Value) -> Value:
        """False where a NaN is compared, but for ``!=``."""
        b, (x, y) = self.build, self.alike(x, y)
        if op not in RELATIONS:
            raise UnknownError(op.__name__)
        if x.type in (F4, F8):
            return (b.fcmp_unordered if op is ast.NotEq else b.fcmp_ordered)(RELATIONS[op], x, y)
        return b.icmp_signed(RELATIONS[op], self.whole(x), self.whole(y))

    def cast(self, x: Any, to: ir.Type) -> Value:
        """A number of another type; in memory and where a type is written, any becomes any, as in NumPy."""
        b = self.build
        if isinstance(x, Array):
            raise UnknownError("an array where a number is needed")
        if x.type == to:
            return x
        if isinstance(x, ir.Constant) and x.type == F8 and to == F4:
            return to(x.constant)
        if to == I1:
            return self.truth(x)
        if x.type in (F4, F8):
            if to in (F4, F8):
                return b.fpext(x, to) if to == F8 else b.fptrunc(x, to)
            return b.fptosi(x, to)
        if to in (F4, F8):
            return (b.uitofp if x.type == I1 else b.sitofp)(x, to)
        x = self.whole(x)
        return x if to == I64 else b.trunc(x, to)

    def kind_of(self, e: ast.expr) -> ir.Type:
        match e:
            case ast.Attribute(value=ast.Name() as array, attr="dtype"):
                return self.array(array).element
        raise UnknownError(ast.unparse(e))

    def view(self, array: Array, first: Value, count: Value) -> Array:
        return Array(self.build.gep(array.address, [self.whole(first)]), array.element, self.whole(count))

    def memory(self, count: Value, kind: ir.Type) -> Array:
        """An array that lives until the function returns."""
        if len(self.scopes) > 1 or kind == I8:
            raise UnknownError("memory for truth values, or that is asked for in a loop or a branch")
        of = ir.FunctionType(I8.as_pointer(), [I64])
        size = self.build.mul(self.whole(count), I64(8 if kind in (F8, I64) else 4))
        address = self.build.call(function_named(self.module.llvm, of, "malloc"), [size])
        self.owned.append(address)
        return Array(self.build.bitcast(address, kind.as_pointer()), kind, self.whole(count))

    # Calls.

    def in_order(self, name: str, first: int, keywords: Sequence[ast.keyword]) -> list[ast.expr]:
        """The arguments that are given by name, in the order of the function's own, of which it has `first` already."""
        if not keywords:
            return []
        given = {k.arg: k.value for k in keywords}
        definition = self.module.definitions.get(name)
        words = [a.arg for a in definition.args.args[first:]] if definition is not None else []
        if set(words) != set(given):
            raise UnknownError(f"{name}(…, {', '.join(map(str, given))})")
        return [given[word] for word in words]

    def call(self, name: str, arguments: list[ast.expr]) -> Any:
        if name == "float":  # float("inf")
            (text,) = arguments
            return F8(float(ast.literal_eval(text)))
        if name.startswith("array_") and name[6:] in ELEMENTS:
            table, place = arguments
            return self.of_table(ELEMENTS[name[6:]], self.array(table), self.value(place))
        values = [self.value(a) for a in arguments]
        if name in SCALARS:
            (x,) = values
            return self.cast(x, SCALARS[name])
        known = {
            "view": self.view, "abs": self.absolute, "sign": self.sign,
            "wrapping_add": self.build.add, "wrapping_sub": self.build.sub, "wrapping_mul": self.build.mul,
            "maximum": functools.partial(self.extreme, ast.Gt), "minimum": functools.partial(self.extreme, ast.Lt),
            "max": lambda x, y: self.extreme(ast.Gt, self.whole(x), self.whole(y)),
            "min": lambda x, y: self.extreme(ast.Lt, self.whole(x), self.whole(y)),
            "wide_zero": lambda array: F8(0.0) if array.element in (F4, F8) else I64(0),
            "_panel_width": lambda array: I64(Kind(array.element).panel),
            "_vector_width": lambda array: I64(Kind(array.element).width),
            "_block": self.block, "_never_inline": lambda: None,  # no kernel is inlined
        }  # fmt: skip
        if name in known:
            return known[name](*values)
        if name in instructions.COPIES:
            source, at, row, column, target, target_at, *more = values
            places = (
                self.build.gep(source.address, [at]),
                row,
                column,
                self.build.gep(target.address, [target_at]),
            )
            return instructions.copy(name, Kind(source.element), self.build, [*places, *more])
        if name in instructions.FORMULAS and values[0].type in (F4, F8):
            (x,) = values
            return instructions.formula(name, self.build, x)
        if name in ("sqrt", "sin", "cos", "floor", "rint") and values[0].type in (F4, F8):
            (x,) = values
            return self.intrinsic(name, x)
        if name in ("floor", "rint") and not isinstance(values[0], Array):
            return self.whole(values[0])
        return self.kernel(name, values)

    def kernel(self, name: str, values: list) -> Value:
        """The call of another function of the source, or of a kernel."""
        if self.choosing:
            raise UnknownError(f"{name}(…) where both ways are computed")
        kinds = [f"p{CODES[v.element]}" if isinstance(v, Array) else CODES[v.type] for v in values]
        flat = [x for v in values for x in ((v.address, v.count) if isinstance(v, Array) else (v,))]
        return self.build.call(self.module.function(name, kinds), flat)

    def intrinsic(self, name: str, x: Value) -> Value:
        of = ir.FunctionType(x.type, [x.type])
        return self.build.call(function_named(self.module.llvm, of, f"llvm.{name}.{_width(x.type)}"), [x])

    def of_table(self, element: ir.Type, table: Array, place: Value) -> Array:
        """The array whose address and size stand in an entry of the table."""
        b = self.build
        at = self.arithmetic(ast.Mult, place, I64(2))
        after = self.arithmetic(ast.Add, at, I64(1))
        address, count = (b.load(b.gep(table.address, [k], inbounds=True)) for k in (at, after))
        return Array(b.inttoptr(address, element.as_pointer()), element, count)

    def block(self, a, a_at, a_row, a_col, b, b_at, b_row, b_panel, k, c, c_at, *more) -> None:
        at = [self.build.gep(array.address, [first]) for array, first in ((a, a_at), (b, b_at), (c, c_at))]
        operands = [at[0], a_row, a_col, at[1], b_row, b_panel, k, at[2], *more]
        self.build.call(self.module.block(Kind(a.element)), operands)

    def extreme(self, op: type, x: Value, y: Value) -> Value:
        """As runtime.py writes maximum and minimum: NaN wins."""
        x, y = self.alike(x, y)
        return self.build.select(self.build.or_(self.compare(op, x, y), self.compare(ast.NotEq, x, x)), x, y)

    def absolute(self, x: Value) -> Value:
        if x.type in (F4, F8):
            return self.intrinsic("fabs", x)
        x = self.whole(x)
        return self.build.select(self.compare(ast.Lt, x, I64(0)), self.build.neg(x), x)

    def sign(self, x: Value) -> Value:
        b, zero = self.build, x.type(0)
        negative = b.select(self.compare(ast.Lt, x, zero), x.type(-1), x)
        return b.select(self.compare(ast.Gt, x, zero), x.type(1), negative)


def _constant(x: Value) -> int | None:
    """The number, where it is known now."""
    return x.constant if isinstance(x, ir.Constant) and x.type == I64 else None


def _set_once(definition: ast.FunctionDef) -> set[str]:
    """Names that are set in one place of each block that reads them, before: the value stands for the name, without a slot.

    Every block that sets such a name does so once, no block within it does, and nothing outside of these blocks reads it.
    """
    within: Counter[str] = Counter()  # how many reads stand in the blocks that set a name
    again: set[str] = set()  # what is set where its value may be the old one

    def block(body: Sequence[ast.stmt], sets: list[str]) -> tuple[Counter[str], set[str]]:
        """How often a block reads each name, and what it sets, with the blocks in it; `sets` is set at its beginning."""
        reads: Counter[str] = Counter()
        inside: set[str] = set()
        for s in body:
            heads, parts = _parts(s)
            for n in (n for head in heads for n in ast.walk(head) if isinstance(n, ast.Name)):
                if isinstance(n.ctx, ast.Load):
                    reads[n.id] += 1
                else:
                    sets.append(n.id)
            if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
                again.add(s.target.id)
            for part, first in parts:
                more, names = block(part, first)
                reads.update(more)
                inside |= names
        again.update(name for name, count in Counter(sets).items() if count > 1 or name in inside)
        for name in set(sets):
            within[name] += reads[name]
        return reads, inside | set(sets)

    reads, names = block(definition.body, [a.arg for a in definition.args.args])
    return {name for name in names if name not in again and within[name] == reads[name]}


def _parts(s: ast.stmt) -> tuple[list[ast.AST], list[tuple[list[ast.stmt], list[str]]]]:
    """What a statement itself reads and sets, and the blocks in it, with the names that are set when they begin."""
    match s:
        case ast.For(target=ast.Name(id=name), iter=limits, body=body, orelse=[]):
            return [limits], [(body, [name])]
        case ast.While(test=test, body=body, orelse=orelse) | ast.If(test=test, body=body, orelse=orelse):
            return [test], [(body, []), (orelse, [])]
    return [s], []


def _looked_up(definition: ast.FunctionDef) -> dict[str, ast.expr]:
    """The arrays of a function's beginning, where they are many: held all the time they make LLVM slow."""
    found: dict[str, ast.expr] = {}
    for s in definition.body:
        match s:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id=function), args=[ast.Name(), ast.Constant()]) as value,
            ) if function.startswith("array_"):
                found[name] = value
    return found if len(found) > HELD else {}


def _width(kind: ir.Type) -> str:
    return "f32" if kind == F4 else "f64"
