"""The loop program as readable source, which Numba takes as it stands and llvm.py turns into machine code.

Names of buffers and sizes are asked of the caller, so that the same statements can be printed for other arrays, or with
a number in place of each name, by which equal ones are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .program import (
    OPERANDS,
    Arithmetic,
    Buffer,
    Call,
    Constant,
    For,
    If,
    Index,
    Name,
    Number,
    Operand,
    Product,
    Set,
    Statement,
    View,
)

Naming = Callable[["Buffer | Name"], str]  # of buffers and sizes
BINDING = {"if": 0, "<": 2, ">": 2, "==": 2, "+": 3, "-": 3, "*": 4, "//": 4, "%": 4, "neg": 5}


def own_name(x: Buffer | Name) -> str:
    return x.name if isinstance(x, Buffer) else x.text


def text_of(x: Operand, name: Naming = own_name) -> str:
    """An operand as source."""
    match x:
        case bool():
            return str(x)
        case Buffer():
            return name(x)
        case View(buffer, at, count):
            return f"view({name(buffer)}, {_text(at, name)}, {_text(count, name)})"
        case Constant(dtype, value):
            said = repr(value) if math.isfinite(value) else f'float("{value}")'
            return f"{dtype}({said})"
    return _text(x, name)


def _text(x: Index, name: Naming, least: int = 0, right: bool = False) -> str:
    """In brackets where it binds more loosely than what stands around it, or as loosely on the right of an operator."""
    match x:
        case Number(value):
            return str(value)
        case Name(text, is_size):
            return name(x) if is_size else text
        case Arithmetic("max" | "min" as function, (a, b)):
            return f"{function}({_text(a, name)}, {_text(b, name)})"
        case Arithmetic(operator, parts):
            binding = BINDING[operator]
            if operator == "if":
                condition, a, b = parts
                said = f"{_text(a, name, 1)} if {_text(condition, name, 1)} else {_text(b, name)}"
            elif operator == "neg":
                said = f"-{_text(parts[0], name, binding)}"
            else:
                first, *rest = parts
                said = _text(first, name, binding) + "".join(
                    f" {operator} {_text(p, name, binding, True)}" for p in rest
                )
            return f"({said})" if binding < least or (binding == least and right) else said
    raise TypeError(f"{x!r} is not an integer of the program")


def lines_of(body: Sequence[Statement], name: Naming = own_name, indent: str = "") -> list[str]:
    """Statements as lines of source."""
    lines: list[str] = []
    for s in body:
        match s:
            case Call(function, operands, check):
                said = [text_of(x, name) for x in operands]
                if function in OPERANDS:  # but for the arrays that it begins with
                    first = next(k for k, x in enumerate(operands) if not isinstance(x, (Buffer, View)))
                    words = OPERANDS[function][first:]
                    said[first:] = [f"{word}={x}" for word, x in zip(words, said[first:], strict=True)]
                call = f"{function}({', '.join(said)})"
                lines.append(indent + (f"bad = max(bad, min({call}, 1) * {check})" if check else call))
            case Set(names, values):
                lines.append(f"{indent}{', '.join(names)} = {', '.join(_text(v, name) for v in values)}")
            case For(counter, start, stop, step):
                bounds = [start, stop] if step == Number(1) else [start, stop, step]
                bounds = bounds[1:] if len(bounds) == 2 and start == Number(0) else bounds
                lines.append(f"{indent}for {counter} in range({', '.join(_text(b, name) for b in bounds)}):")
                lines += lines_of(s.body, name, indent + "    ")
            case If(condition, inner):
                lines.append(f"{indent}if {_text(condition, name)}:")
                lines += lines_of(inner, name, indent + "    ")
            case Product():
                raise TypeError("a product is printed as the calls that blocking.py makes of it")
    return lines
